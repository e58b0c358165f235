//! Types inferred from values, where nobody tells them. Nothing is guessed: each type holds the digits that were seen.
//!
//! Whole numbers are long while they fit; other numbers are double where the double's shortest digits are the number's own, else
//! decimals of 38 digits with as many places as were seen; what fits none of these is text. Objects and arrays are JSON. Texts
//! stay text: nothing in one is taken for a time. A column becomes wider when a row needs it.

use philotes_sdk::json::{Value, scalar};

use super::ColumnType;

/// Digits of an inferred decimal.
const PRECISION: u8 = 38;

/// The type that one value speaks for; `None` for null.
pub(crate) fn infer(value: Value<'_>) -> Option<ColumnType> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => ColumnType::Boolean,
        Value::Number(digits) => number(digits),
        Value::String(_) | Value::Escaped(_) => ColumnType::Text,
        Value::Nested(_) => ColumnType::Json,
    })
}

fn number(digits: &str) -> ColumnType {
    let candidates = [ColumnType::Int64, ColumnType::Float64, ColumnType::Decimal(PRECISION, scalar::places(digits))];
    candidates.into_iter().find(|kind| holds(kind, Value::Number(digits))).unwrap_or(ColumnType::Text)
}

/// Whether a column of an inferred type takes the value without a loss.
pub(crate) fn holds(kind: &ColumnType, value: Value<'_>) -> bool {
    match (kind, value) {
        (_, Value::Null) | (ColumnType::Text, _) | (ColumnType::Boolean, Value::Bool(_)) => true,
        (ColumnType::Json, Value::Nested(_)) => true,
        (ColumnType::Int64, Value::Number(digits)) => digits.parse::<i64>().is_ok(),
        (ColumnType::Float64, Value::Number(digits)) => scalar::survives_double(digits),
        (ColumnType::Decimal(precision, scale), Value::Number(digits)) => {
            scalar::decimal(digits, *precision, *scale).is_ok()
        }
        _ => false,
    }
}

/// The type that holds this value and those there are, as JSON printed them: `kind` does not hold it.
pub(crate) fn wider(kind: &ColumnType, so_far: &[Option<String>], value: Value<'_>) -> ColumnType {
    let Value::Number(digits) = value else { return ColumnType::Text };
    let (double, least) = match kind {
        ColumnType::Int64 | ColumnType::Float64 => (Some(ColumnType::Float64), 0),
        ColumnType::Decimal(_, scale) => (None, *scale),
        _ => return ColumnType::Text,
    };
    let numbers = || so_far.iter().flatten().map(String::as_str).chain([digits]);
    let scale = numbers().map(scalar::places).fold(least, i8::max);
    double
        .into_iter()
        .chain([ColumnType::Decimal(PRECISION, scale)])
        .find(|wider| numbers().all(|number| holds(wider, Value::Number(number))))
        .unwrap_or(ColumnType::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_speaks_for_the_narrowest_type_that_keeps_its_digits() {
        for (digits, kind) in [
            ("7", ColumnType::Int64),
            ("-9223372036854775808", ColumnType::Int64),
            // A double's shortest digits for it are others.
            ("9223372036854775808", ColumnType::Decimal(38, 0)),
            ("1000000000000000000000", ColumnType::Float64),
            ("9223372036854775809", ColumnType::Decimal(38, 0)),
            ("1.50", ColumnType::Float64),
            ("0.1234567890123456789", ColumnType::Decimal(38, 19)),
            ("123456789012345678901234567890123456789", ColumnType::Text),
            ("0.123456789012345678901234567890123456789", ColumnType::Text),
        ] {
            assert_eq!(infer(Value::Number(digits)), Some(kind), "{digits}");
        }
        assert_eq!(infer(Value::String("2024-01-01T00:00:00Z")), Some(ColumnType::Text));
        assert_eq!(infer(Value::Null), None);
    }

    #[test]
    fn a_column_widens_to_what_holds_all() {
        let so_far = |numbers: &[&str]| numbers.iter().map(|n| Some((*n).to_owned())).collect::<Vec<_>>();
        let wide = |kind, numbers: &[&str], digits| wider(&kind, &so_far(numbers), Value::Number(digits));
        assert_eq!(wide(ColumnType::Int64, &["1", "2"], "0.5"), ColumnType::Float64);
        assert_eq!(wide(ColumnType::Int64, &["9007199254740993"], "0.5"), ColumnType::Decimal(38, 1));
        assert_eq!(wide(ColumnType::Float64, &["0.25"], "9007199254740993"), ColumnType::Decimal(38, 2));
        assert_eq!(wide(ColumnType::Decimal(38, 2), &["90071992547409931.25"], "0.125"), ColumnType::Decimal(38, 3));
        let long = "12345678901234567890123456789012345678";
        assert_eq!(wide(ColumnType::Decimal(38, 0), &[long], "0.5"), ColumnType::Text);
        assert_eq!(wide(ColumnType::Json, &["[1]"], "1"), ColumnType::Text);
        assert_eq!(wider(&ColumnType::Int64, &so_far(&["1"]), Value::Bool(true)), ColumnType::Text);
        // What came before this batch counts, too.
        assert_eq!(wide(ColumnType::Decimal(38, 3), &[], "0.12345"), ColumnType::Decimal(38, 5));
    }
}
