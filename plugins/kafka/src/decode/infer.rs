//! Types inferred from values, where nobody tells them. Nothing is guessed: each type holds the digits that were seen.
//!
//! Whole numbers are long while they fit; other numbers are double where the double's shortest digits are the number's own, else
//! decimals of 38 digits with as many places as were seen; what fits none of these is text. Objects and arrays are JSON. Texts
//! stay text: nothing in one is taken for a time. A column becomes wider when a row needs it.

use philotes_sdk::json::{Value, scalar};

use super::kind::{Digits, Kind};

/// Digits of an inferred decimal.
const PRECISION: u8 = 38;

/// The type that one value speaks for; `None` for null.
pub(super) fn infer(value: Value<'_>) -> Option<Kind> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => Kind::Boolean,
        Value::Number(digits) => wider(&Kind::Long, &[], digits),
        Value::String(_) | Value::Escaped(_) => Kind::STRING,
        Value::Nested(_) => Kind::Json,
    })
}

/// Whether a column of an inferred type takes the value without a loss.
#[inline]
pub(super) fn holds(kind: &Kind, value: Value<'_>) -> bool {
    match (kind, value) {
        (_, Value::Null) | (Kind::String(_), _) | (Kind::Boolean, Value::Bool(_)) | (Kind::Json, Value::Nested(_)) => {
            true
        }
        (_, Value::Number(digits)) => holds_number(kind, digits),
        _ => false,
    }
}

fn holds_number(kind: &Kind, digits: &str) -> bool {
    match kind {
        Kind::Long => {
            (digits.len() < 19 && digits.bytes().all(|byte| byte.is_ascii_digit())) || digits.parse::<i64>().is_ok()
        }
        Kind::Double => scalar::survives_double(digits),
        Kind::Decimal(precision, scale, _) => scalar::decimal(digits, *precision, *scale).is_ok(),
        Kind::String(_) => true,
        _ => false,
    }
}

/// The type that holds a number and those there are, at least as wide as `kind`.
pub(super) fn wider(kind: &Kind, so_far: &[Option<String>], digits: &str) -> Kind {
    let numbers = || so_far.iter().flatten().map(String::as_str).chain([digits]);
    let least = if let Kind::Decimal(_, scale, _) = kind { *scale } else { 0 };
    let scale = numbers().map(scalar::places).fold(least, i8::max);
    let candidates = [Kind::Long, Kind::Double, Kind::Decimal(PRECISION, scale, Digits::Text)];
    let skipped = match kind {
        Kind::Long => 0,
        Kind::Double => 1,
        Kind::Decimal(..) => 2,
        _ => candidates.len(),
    };
    let fits = |kind: &Kind| numbers().all(|number| holds_number(kind, number));
    candidates.into_iter().skip(skipped).find(fits).unwrap_or(Kind::STRING)
}

/// The type that holds a value and those there are, as JSON printed them: `kind` does not hold it.
pub(super) fn wider_for(kind: &Kind, so_far: &[Option<String>], value: Value<'_>) -> Kind {
    match value {
        Value::Number(digits) => wider(kind, so_far, digits),
        _ => Kind::STRING,
    }
}

/// The type that holds the values there are, and whatever a column of the other type held.
pub(super) fn joined(kind: &Kind, so_far: &[Option<String>], other: &Kind) -> Kind {
    match (kind, other) {
        _ if kind == other => kind.clone(),
        (Kind::Long | Kind::Double | Kind::Decimal(..), Kind::Long | Kind::Double | Kind::Decimal(..)) => {
            wider(other, so_far, "0")
        }
        _ => Kind::STRING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn decimal(scale: i8) -> Kind {
        Kind::Decimal(38, scale, Digits::Text)
    }

    #[test]
    fn one_value_speaks_for_the_narrowest_type_that_keeps_its_digits() {
        for (digits, kind) in [
            ("7", Kind::Long),
            ("-0", Kind::Long),
            ("-9223372036854775808", Kind::Long),
            // A double's shortest digits for it are others.
            ("9223372036854775808", decimal(0)),
            ("1000000000000000000000", Kind::Double),
            ("9223372036854775809", decimal(0)),
            ("1.50", Kind::Double),
            ("123456789.12345", Kind::Double),
            ("0.1234567890123456789", decimal(19)),
            ("123456789012345678901234567890123456789", Kind::STRING),
            ("0.123456789012345678901234567890123456789", Kind::STRING),
        ] {
            assert_eq!(infer(Value::Number(digits)), Some(kind), "{digits}");
        }
        assert_eq!(infer(Value::String("2024-01-01T00:00:00Z")), Some(Kind::STRING));
        assert_eq!(infer(Value::Null), None);
    }

    #[test]
    fn a_column_widens_to_what_holds_all() {
        let so_far = |numbers: &[&str]| numbers.iter().map(|n| Some((*n).to_owned())).collect::<Vec<_>>();
        let wide = |kind, numbers: &[&str], digits| wider_for(&kind, &so_far(numbers), Value::Number(digits));
        assert_eq!(wide(Kind::Long, &["1", "2"], "0.5"), Kind::Double);
        assert_eq!(wide(Kind::Long, &["9007199254740993"], "0.5"), decimal(1));
        assert_eq!(wide(Kind::Double, &["0.25"], "9007199254740993"), decimal(2));
        assert_eq!(wide(decimal(2), &["90071992547409931.25"], "0.125"), decimal(3));
        assert_eq!(wide(decimal(0), &["12345678901234567890123456789012345678"], "0.5"), Kind::STRING);
        assert_eq!(wide(Kind::Json, &["[1]"], "1"), Kind::STRING);
        assert_eq!(wider_for(&Kind::Long, &so_far(&["1"]), Value::Bool(true)), Kind::STRING);
        // What came before this batch counts, too.
        assert_eq!(wide(decimal(3), &[], "0.12345"), decimal(5));
    }

    #[test]
    fn two_batches_of_a_topic_come_to_one_type() {
        let so_far = |number: &str| vec![Some(number.to_owned()), None];
        assert_eq!(joined(&Kind::Long, &so_far("5"), &Kind::Double), Kind::Double);
        assert_eq!(joined(&Kind::Double, &so_far("0.5"), &Kind::Long), Kind::Double);
        assert_eq!(joined(&Kind::Long, &so_far("9007199254740993"), &Kind::Double), decimal(0));
        assert_eq!(joined(&Kind::Double, &so_far("0.125"), &decimal(2)), decimal(3));
        assert_eq!(joined(&Kind::Boolean, &so_far("true"), &Kind::Long), Kind::STRING);
    }
}
