//! Values out of their texts: digits and uuids. Never a wrong value; what does not fit is refused.

use super::Fault;

/// A whole number.
///
/// # Errors
/// Where the text is none, or more than the type holds.
pub fn integer(text: &str) -> Result<i64, Fault> {
    text.parse().map_err(|_| Fault::new("not a whole number that the type holds"))
}

/// The unscaled value of a decimal, straight from its digits.
///
/// # Errors
/// Where the text is none, or more than the type holds.
pub fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Fault> {
    const TOO_LONG: Fault = Fault::new("more digits than the type holds");
    const NO_NUMBER: Fault =
        Fault::new("not a finite number, which a decimal cannot hold; `columns` can have it read as text");
    if let Some(unscaled) = short_decimal(text.as_bytes(), precision, scale) {
        return Ok(unscaled.into());
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], digits[at + 1..].parse::<i32>().map_err(|_| NO_NUMBER)?),
        None => (digits, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 {
        return Err(NO_NUMBER);
    }
    let mut unscaled = 0_i128;
    // Zeros at the end carry no digit: they only count once another one follows.
    let mut zeros = 0_i64;
    for digit in whole.bytes().chain(fraction.bytes()) {
        match digit {
            b'0' => zeros += 1,
            b'1'..=b'9' => {
                let shifted = shift(unscaled, zeros + 1).ok_or(TOO_LONG)?;
                unscaled = shifted.checked_add(i128::from(digit - b'0')).ok_or(TOO_LONG)?;
                zeros = 0;
            }
            _ => return Err(NO_NUMBER),
        }
    }
    let places = i64::try_from(fraction.len()).map_err(|_| TOO_LONG)?;
    let up = zeros - places + i64::from(exponent) + i64::from(scale);
    if unscaled != 0 && up < 0 {
        return Err(Fault::new("more digits after the point than the type holds"));
    }
    let unscaled = shift(unscaled, up).ok_or(TOO_LONG)?;
    if unscaled >= 10_i128.pow(u32::from(precision.min(38))) {
        return Err(TOO_LONG);
    }
    Ok(if negative { -unscaled } else { unscaled })
}

/// The same in 64 bits, which is several times as fast: most decimals are short and have no exponent. `None` where one is
/// not, or does not fit its type; that is told apart by [`decimal`].
fn short_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i64> {
    const MOST_DIGITS: usize = 18;
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut unscaled = 0_i64;
    let mut add = |digits: &[u8]| {
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        for digit in &digits[..count] {
            // Beyond 18 digits this wraps, and is not used.
            unscaled = unscaled.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
        }
        count
    };
    let whole = add(digits);
    let scale = usize::try_from(scale).ok()?;
    let places = match &digits[whole..] {
        [] => 0,
        [b'.', fraction @ ..] => {
            // PostgreSQL's division leaves zeros behind.
            let (kept, zeros) = fraction.split_at(fraction.len().min(scale));
            if add(kept) != kept.len() || zeros.iter().any(|byte| *byte != b'0') {
                return None;
            }
            kept.len()
        }
        _ => return None,
    };
    if whole + places == 0 || whole + scale > MOST_DIGITS {
        return None;
    }
    unscaled *= 10_i64.pow(u32::try_from(scale - places).ok()?);
    let fits = usize::from(precision) >= MOST_DIGITS || unscaled < 10_i64.pow(precision.into());
    fits.then_some(if negative { -unscaled } else { unscaled })
}

/// Times ten to the power of `by`.
fn shift(value: i128, by: i64) -> Option<i128> {
    if value == 0 {
        return Some(0);
    }
    value.checked_mul(10_i128.checked_pow(u32::try_from(by).ok()?)?)
}

/// A double, or a real where `single`; PostgreSQL's own NaN and infinities are values, an overflow is not.
///
/// # Errors
/// Where the text is none, or more than the type holds.
pub fn float(text: &str, single: bool) -> Result<f64, Fault> {
    let value = if single { text.parse::<f32>().map(f64::from) } else { text.parse::<f64>() };
    let value = value.map_err(|_| Fault::new("not a number"))?;
    if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new("beyond what the type holds"));
    }
    Ok(value)
}

/// The sixteen bytes of a uuid.
///
/// # Errors
/// Where the text is none, or more than the type holds.
pub fn uuid(text: &str) -> Result<[u8; 16], Fault> {
    const BAD: Fault = Fault::new("not a uuid");
    let mut bytes = [0; 16];
    let mut digits = text.bytes().filter(|byte| *byte != b'-');
    for byte in &mut bytes {
        let (Some(high), Some(low)) = (digits.next(), digits.next()) else { return Err(BAD) };
        *byte = hex(high).ok_or(BAD)? << 4 | hex(low).ok_or(BAD)?;
    }
    if digits.next().is_some() { Err(BAD) } else { Ok(bytes) }
}

/// The value of a hexadecimal digit.
#[must_use]
pub fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// As many places as a decimal may have.
const MOST_PLACES: usize = 38;

/// Digits after the point, as many as a decimal may have.
#[must_use]
pub fn places(digits: &str) -> i8 {
    let places = digits.split_once('.').map_or(0, |(_, fraction)| fraction.trim_end_matches('0').len());
    i8::try_from(places.min(MOST_PLACES)).unwrap_or(0)
}

/// Whether a number's digits come back from a double, zeros at either end aside.
#[must_use]
pub fn survives_double(digits: &str) -> bool {
    /// Any number of so many digits comes back (`f64::DIGITS`), together with a sign and a point.
    const ALWAYS: usize = f64::DIGITS as usize;
    if digits.len() <= ALWAYS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-')) {
        return true;
    }
    let Ok(double) = digits.parse::<f64>() else { return false };
    // Display prints the shortest digits that read back as the same double, and never an exponent.
    double.is_finite() && plain(&double.to_string()) == plain(digits)
}

/// Sign and significant digits of a number without an exponent, or the text itself where it has one.
fn plain(digits: &str) -> (bool, String, usize) {
    let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0').to_owned();
    (negative && !significant.is_empty(), significant, fraction.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_come_from_their_digits() {
        for (text, precision, scale, expected) in [
            ("0", 10, 2, Some(0)),
            ("12.30", 10, 2, Some(1230)),
            ("-0.01", 10, 2, Some(-1)),
            ("99999999.99", 10, 2, Some(9_999_999_999)),
            ("100000000.00", 10, 2, None),
            ("1.234", 10, 2, None),
            ("1.230000", 10, 2, Some(123)),
            ("1e3", 10, 2, Some(100_000)),
            ("15e-1", 10, 2, Some(150)),
            ("0.1e-1", 10, 2, Some(1)),
            // What a double would get wrong: 2^53 + 1, and 38 digits.
            ("9007199254740993.1", 38, 1, Some(90_071_992_547_409_931)),
            ("99999999999999999999999999999999999999", 38, 0, Some(99_999_999_999_999_999_999_999_999_999_999_999_999)),
            ("100000000000000000000000000000000000000", 38, 0, None),
            ("0.00000000000000000000000000000000000001", 38, 38, Some(1)),
            ("1e2147483647", 38, 0, None),
            // On both sides of what 64 bits are used for: 18 digits, with the zeros that the scale adds.
            ("999999999999999999", 18, 0, Some(999_999_999_999_999_999)),
            ("-1000000000000000000", 19, 0, Some(-1_000_000_000_000_000_000)),
            ("9999999999999999", 18, 2, Some(999_999_999_999_999_900)),
            ("9999999999999999", 19, 3, Some(9_999_999_999_999_999_000)),
            ("0.0000000000000000001", 19, 19, Some(1)),
            ("99999999999999999", 16, 0, None),
            ("-0.00", 10, 2, Some(0)),
            ("NaN", 10, 2, None),
            ("Infinity", 10, 2, None),
            ("-", 10, 2, None),
            ("--1", 10, 2, None),
            ("", 10, 2, None),
            ("1.2.3", 10, 2, None),
            ("1e", 10, 2, None),
        ] {
            assert_eq!(decimal(text, precision, scale).ok(), expected, "{text} as numeric({precision},{scale})");
        }
    }

    #[test]
    fn floats_integers_and_uuids() {
        assert!(float("NaN", false).unwrap().is_nan());
        assert_eq!(float("-Infinity", true).unwrap(), f64::NEG_INFINITY);
        assert!(float("1e309", false).is_err() && float("1e39", true).is_err() && float("x", false).is_err());
        assert_eq!(integer("-9223372036854775808").unwrap(), i64::MIN);
        assert!(integer("9223372036854775808").is_err() && integer("1.0").is_err());
        assert_eq!(uuid("00010203-0405-0607-0809-0a0b0c0d0e0F").unwrap()[15], 15);
        assert!(uuid("00010203").is_err() && uuid("zz010203-0405-0607-0809-0a0b0c0d0e0f").is_err());
    }
}
