//! From what stands in a message to what stands in a column. Nothing is rounded: what the column cannot hold is refused.

use philotes_sdk::json::time::{INFINITE_DAYS, INFINITE_MICROS};
use philotes_sdk::json::{Scanner, scalar};

use super::Refusal;
use super::kind::{Infinities, Unit};

const FINER: Refusal = Refusal::new("finer than microseconds");
const TOO_FAR: Refusal = Refusal::new("beyond what 64 bits of microseconds since 1970 hold");
const NO_DAY: Refusal = Refusal::new("beyond what 32 bits of days since 1970 hold");
const NO_TIME: Refusal = Refusal::new("not a time within a day, which ends before 24:00");

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What Debezium sends for PostgreSQL's infinities: the JDBC driver's own numbers, taken for milliseconds or microseconds alike.
const DEBEZIUM_INFINITY: i64 = 9_223_372_036_825_200_000;
const DEBEZIUM_MINUS_INFINITY: i64 = -9_223_372_036_832_400_000;
/// PostgreSQL's, of days since 2000, moved to 1970 in 32 bits.
const DEBEZIUM_INFINITE_DATE: i64 = i32::MIN as i64 + 10_956;
const DEBEZIUM_MINUS_INFINITE_DATE: i64 = i32::MIN as i64 + 10_957;

/// A whole number: `5.0` and `5e3` are two.
pub(super) fn integer(digits: &str) -> Result<i64, Refusal> {
    const NO_INTEGER: Refusal = Refusal::new("not a whole number that the column's type holds");
    digits.parse().or_else(|_| {
        let value = scalar::decimal(digits, 38, 0).map_err(|_| NO_INTEGER)?;
        i64::try_from(value).map_err(|_| NO_INTEGER)
    })
}

/// NaN or an infinity.
pub(super) fn not_finite(text: &str) -> Result<f64, Refusal> {
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        _ => Err(Refusal::new("not a number")),
    }
}

fn micros(value: i64, unit: Unit) -> Result<i64, Refusal> {
    match unit {
        Unit::Seconds => value.checked_mul(1_000_000).ok_or(TOO_FAR),
        Unit::Millis => value.checked_mul(1_000).ok_or(TOO_FAR),
        Unit::Micros => Ok(value),
        Unit::Nanos if value % 1_000 == 0 => Ok(value / 1_000),
        Unit::Nanos => Err(FINER),
    }
}

/// The same of a number that may have a fraction.
fn micros_of_digits(digits: &str, unit: Unit) -> Result<i64, Refusal> {
    if let Ok(value) = digits.parse() {
        return micros(value, unit);
    }
    let places = match unit {
        Unit::Seconds => 6,
        Unit::Millis => 3,
        Unit::Micros | Unit::Nanos => 0,
    };
    let value = scalar::decimal(digits, 38, places)?;
    let value = i64::try_from(value).map_err(|_| TOO_FAR)?;
    micros(value, if unit == Unit::Nanos { unit } else { Unit::Micros })
}

/// Microseconds since 1970.
pub(super) fn timestamp(value: i64, unit: Unit, infinities: Infinities) -> Result<i64, Refusal> {
    if infinities == Infinities::Debezium
        && let Some(infinite) = infinite_timestamp(value, unit)
    {
        return Ok(infinite);
    }
    finite(micros(value, unit)?)
}

pub(super) fn timestamp_digits(digits: &str, unit: Unit, infinities: Infinities) -> Result<i64, Refusal> {
    match digits.parse() {
        Ok(value) => timestamp(value, unit, infinities),
        Err(_) => finite(micros_of_digits(digits, unit)?),
    }
}

fn infinite_timestamp(value: i64, unit: Unit) -> Option<i64> {
    let (plus, minus) = match unit {
        Unit::Micros => (DEBEZIUM_INFINITY, DEBEZIUM_MINUS_INFINITY),
        // Debezium makes milliseconds of the microseconds; a driver's own milliseconds are the same numbers.
        Unit::Millis if value.unsigned_abs() < 1 << 62 => (DEBEZIUM_INFINITY / 1_000, DEBEZIUM_MINUS_INFINITY / 1_000),
        Unit::Millis => (DEBEZIUM_INFINITY, DEBEZIUM_MINUS_INFINITY),
        Unit::Seconds | Unit::Nanos => return None,
    };
    match value {
        _ if value == plus => Some(INFINITE_MICROS),
        _ if value == minus => Some(-INFINITE_MICROS),
        _ => None,
    }
}

/// No finite moment is read as one of the far ends, which stand for infinities.
fn finite(micros: i64) -> Result<i64, Refusal> {
    if (-INFINITE_MICROS + 1..INFINITE_MICROS).contains(&micros) { Ok(micros) } else { Err(TOO_FAR) }
}

/// Microseconds since midnight.
pub(super) fn time(value: i64, unit: Unit) -> Result<i64, Refusal> {
    let micros = micros(value, unit).map_err(|refusal| if refusal == FINER { FINER } else { NO_TIME })?;
    if (0..MICROS_PER_DAY).contains(&micros) { Ok(micros) } else { Err(NO_TIME) }
}

pub(super) fn time_digits(digits: &str, unit: Unit) -> Result<i64, Refusal> {
    time(micros_of_digits(digits, unit)?, Unit::Micros)
}

/// Days since 1970.
pub(super) fn date(value: i64, infinities: Infinities) -> Result<i32, Refusal> {
    if infinities == Infinities::Debezium {
        match value {
            DEBEZIUM_INFINITE_DATE => return Ok(INFINITE_DAYS),
            DEBEZIUM_MINUS_INFINITE_DATE => return Ok(-INFINITE_DAYS),
            _ => {}
        }
    }
    i32::try_from(value).ok().filter(|days| (-INFINITE_DAYS + 1..INFINITE_DAYS).contains(days)).ok_or(NO_DAY)
}

/// A number in two's complement, big endian, where 128 bits hold it.
pub(super) fn unscaled(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let sign = if first & 0x80 == 0 { 0 } else { 0xff };
    // Bytes that only repeat the sign may be as many as they like.
    let skipped = bytes.iter().take_while(|byte| **byte == sign).count().min(bytes.len() - 1);
    let significant = &bytes[skipped..];
    let mut wide = [sign; 17];
    let start = wide.len().checked_sub(significant.len())?;
    wide[start..].copy_from_slice(significant);
    let value = i128::from_be_bytes(wide[1..].try_into().ok()?);
    // The seventeenth byte and the sign that is left must say the same.
    ((value < 0) == (wide[0] == 0xff) && matches!(wide[0], 0 | 0xff)).then_some(value)
}

/// A number's digits, without the machinery of formatting: every row has some.
pub(super) fn print_integer(value: i64, text: &mut Vec<u8>) {
    let mut digits = [0; 19];
    let (mut start, mut rest) = (digits.len(), value.unsigned_abs());
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        text.push(b'-');
    }
    text.extend_from_slice(&digits[start..]);
}

/// The same in capital hexadecimal digits.
pub(super) fn print_hexadecimal(value: u64, text: &mut Vec<u8>) {
    let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
    text.extend((0..digits).rev().map(|digit| b"0123456789ABCDEF"[(value >> (digit * 4) & 15) as usize]));
}

/// A decimal as PostgreSQL prints it.
pub(super) fn decimal_text(unscaled: i128, scale: i8) -> String {
    let mut text = Vec::new();
    print_digits(unscaled < 0, &unscaled.unsigned_abs().to_string(), scale.into(), &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// The same of any number of digits.
pub(super) fn print_decimal(unscaled: &[u8], scale: i32, text: &mut Vec<u8>) -> Result<(), Refusal> {
    /// As many digits as PostgreSQL allows before the point, more than it allows behind it.
    const MOST_DIGITS: usize = 131_072;
    const TOO_LONG: Refusal = Refusal::new("more digits than PostgreSQL's numeric has");
    if unscaled.is_empty() {
        return Err(Refusal::new("a decimal of no bytes"));
    }
    let places = usize::try_from(scale.unsigned_abs()).unwrap_or(usize::MAX);
    // A byte is 2.4 digits.
    if places > MOST_DIGITS || unscaled.len() > MOST_DIGITS / 2 {
        return Err(TOO_LONG);
    }
    let (negative, digits) = match self::unscaled(unscaled) {
        Some(value) => (value < 0, value.unsigned_abs().to_string()),
        None => (unscaled[0] & 0x80 != 0, magnitude(unscaled)),
    };
    print_digits(negative, &digits, scale, text);
    Ok(())
}

fn print_digits(negative: bool, digits: &str, scale: i32, text: &mut Vec<u8>) {
    if negative {
        text.push(b'-');
    }
    let places = usize::try_from(scale.unsigned_abs()).unwrap_or(0);
    if scale <= 0 {
        text.extend_from_slice(digits.as_bytes());
        let zeros = if digits == "0" { 0 } else { places };
        text.extend(std::iter::repeat_n(b'0', zeros));
        return;
    }
    let padded = places + 1;
    let zeros = padded.saturating_sub(digits.len());
    let whole = digits.len() + zeros - places;
    let all = std::iter::repeat_n(b'0', zeros).chain(digits.bytes());
    for (index, digit) in all.enumerate() {
        if index == whole {
            text.push(b'.');
        }
        text.push(digit);
    }
}

/// The digits of a number's magnitude, however long.
fn magnitude(bytes: &[u8]) -> String {
    const BASE: u64 = 1_000_000_000;
    let negative = bytes[0] & 0x80 != 0;
    let mut magnitude: Vec<u8> = bytes.iter().map(|byte| if negative { !byte } else { *byte }).collect();
    if negative {
        for byte in magnitude.iter_mut().rev() {
            let carried;
            (*byte, carried) = byte.overflowing_add(1);
            if !carried {
                break;
            }
        }
    }
    // Words of 32 bits, the highest first; nine digits at a time are divided off.
    let mut words: Vec<u32> = magnitude
        .rchunks(4)
        .rev()
        .map(|chunk| chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
        .collect();
    let mut groups = Vec::new();
    let mut start = 0;
    while start < words.len() {
        let mut rest = 0_u64;
        for word in &mut words[start..] {
            let value = rest << 32 | u64::from(*word);
            // Below 2^32, because rest is below BASE.
            *word = u32::try_from(value / BASE).unwrap_or(u32::MAX);
            rest = value % BASE;
        }
        groups.push(rest);
        start += words[start..].iter().take_while(|word| **word == 0).count();
    }
    let digits: String = groups.iter().rev().map(|group| format!("{group:09}")).collect();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
}

/// Zeros and ones of bytes whose last is the highest. Debezium sends as many bytes as the declared length needs; where there are
/// fewer, zeros in front are not known.
pub(super) fn bits(bytes: &[u8], length: Option<u32>, text: &mut Vec<u8>) -> Result<(), Refusal> {
    let sent = bytes.len() * 8;
    let significant =
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at * 8 + 8 - bytes[at].leading_zeros() as usize);
    let length = length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= sent);
    if length.is_some_and(|length| significant > length) {
        return Err(Refusal::new("more bits than the column's length"));
    }
    let printed = length.unwrap_or(significant.max(1));
    text.extend((0..printed).rev().map(|bit| b'0' + (bytes.get(bit / 8).map_or(0, |byte| byte >> (bit % 8) & 1))));
    Ok(())
}

/// Whether a text is JSON.
pub(super) fn json(text: &str) -> Result<(), Refusal> {
    let mut scanner = Scanner::new(text);
    scanner.value().and_then(|_| scanner.end()).map_err(|_| Refusal::new("a string that holds no JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_units_are_exact_or_refused() {
        let at = |digits, unit| timestamp_digits(digits, unit, Infinities::No).ok();
        for (digits, unit, expected) in [
            ("1700000000", Unit::Seconds, Some(1_700_000_000_000_000)),
            ("1700000000.123456", Unit::Seconds, Some(1_700_000_000_123_456)),
            ("1700000000.1234567", Unit::Seconds, None),
            ("1.7e9", Unit::Seconds, Some(1_700_000_000_000_000)),
            ("-1", Unit::Millis, Some(-1_000)),
            ("1.5", Unit::Millis, Some(1_500)),
            ("1.0005", Unit::Millis, None),
            ("1.0", Unit::Micros, Some(1)),
            ("1.5", Unit::Micros, None),
            ("1700000000123456000", Unit::Nanos, Some(1_700_000_000_123_456)),
            ("1700000000123456001", Unit::Nanos, None),
            ("9223372036854775807", Unit::Micros, None),
            ("9223372036854775", Unit::Millis, Some(9_223_372_036_854_775_000)),
            ("9223372036854776", Unit::Millis, None),
        ] {
            assert_eq!(at(digits, unit), expected, "{digits} {unit:?}");
        }
        assert_eq!(time_digits("86399999.999", Unit::Millis).unwrap(), 86_399_999_999);
        for (value, unit) in
            [(86_400_000, Unit::Millis), (-1, Unit::Micros), (1, Unit::Nanos), (i64::MAX, Unit::Seconds)]
        {
            assert!(time(value, unit).is_err(), "{value}");
        }
        for (digits, expected) in [
            ("5.0", Some(5)),
            ("5e3", Some(5_000)),
            ("5.5", None),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
        ] {
            assert_eq!(integer(digits).ok(), expected, "{digits}");
        }
    }

    /// The numbers that Debezium's documentation gives for microseconds; LocalDate.parse("-5877611-06-21") and -22 in its source.
    #[test]
    fn debeziums_infinities_are_the_far_ends() {
        let at = |value, unit| timestamp(value, unit, Infinities::Debezium).ok();
        assert_eq!(at(9_223_372_036_825_200_000, Unit::Micros), Some(i64::MAX));
        assert_eq!(at(-9_223_372_036_832_400_000, Unit::Micros), Some(-i64::MAX));
        assert_eq!(at(9_223_372_036_825_200, Unit::Millis), Some(i64::MAX));
        assert_eq!(at(-9_223_372_036_832_400, Unit::Millis), Some(-i64::MAX));
        assert_eq!(timestamp(9_223_372_036_825_200_000, Unit::Micros, Infinities::No), Ok(9_223_372_036_825_200_000));
        assert_eq!(date(-2_147_472_692, Infinities::Debezium), Ok(i32::MAX));
        assert_eq!(date(-2_147_472_691, Infinities::Debezium), Ok(-i32::MAX));
        assert_eq!(date(-2_147_472_692, Infinities::No), Ok(-2_147_472_692));
    }

    #[test]
    fn bytes_are_numbers() {
        for (bytes, expected) in [
            (&[][..], None),
            (&[0], Some(0)),
            (&[0xff], Some(-1)),
            (&[0x04, 0xd2], Some(1_234)),
            (&[0xff, 0x7f], Some(-129)),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], Some(5)),
        ] {
            assert_eq!(unscaled(bytes), expected, "{bytes:?}");
        }
        assert_eq!(unscaled(&i128::MAX.to_be_bytes()), Some(i128::MAX));
        assert_eq!(unscaled(&i128::MIN.to_be_bytes()), Some(i128::MIN));
        assert_eq!(unscaled(&[&[0][..], &u128::MAX.to_be_bytes()].concat()), None);
        assert_eq!(unscaled(&[&[0xff][..], &i128::MAX.to_be_bytes()].concat()), None);
    }

    #[test]
    fn decimals_are_printed_with_every_digit() {
        let print = |bytes: &[u8], scale| {
            let mut text = Vec::new();
            print_decimal(bytes, scale, &mut text).map(|()| String::from_utf8(text).unwrap()).ok()
        };
        for (value, scale, expected) in [
            (12_300_i128, 3, "12.300"),
            (-5, 3, "-0.005"),
            (0, 2, "0.00"),
            (0, -2, "0"),
            (12, -3, "12000"),
            (7, 0, "7"),
        ] {
            assert_eq!(print(&value.to_be_bytes(), scale).as_deref(), Some(expected));
        }
        // 2^160 and its negative, as bc prints them.
        let large = [&[1][..], &[0; 20]].concat();
        assert_eq!(print(&large, 2).unwrap(), "14615016373309029182036848327162830196559325429.76");
        let negative = [&[0xff][..], &[0; 20]].concat();
        assert_eq!(print(&negative, 0).unwrap(), "-1461501637330902918203684832716283019655932542976");
        assert_eq!(print(&[1], i32::MAX), None);
        assert_eq!(print(&[], 0), None);
    }

    #[test]
    fn integers_are_printed() {
        for value in [0, 7, -10, i64::MAX, i64::MIN] {
            let mut text = Vec::new();
            print_integer(value, &mut text);
            assert_eq!(String::from_utf8(text).unwrap(), value.to_string());
            let mut text = Vec::new();
            print_hexadecimal(value.cast_unsigned(), &mut text);
            assert_eq!(String::from_utf8(text).unwrap(), format!("{value:X}"));
        }
    }

    /// B'101' in a bit(3) is the number 5.
    #[test]
    fn bits_are_zeros_and_ones() {
        let print = |bytes: &[u8], length| {
            let mut text = Vec::new();
            bits(bytes, length, &mut text).map(|()| String::from_utf8(text).unwrap()).ok()
        };
        assert_eq!(print(&[5], Some(3)).unwrap(), "101");
        assert_eq!(print(&[5], Some(5)).unwrap(), "00101");
        assert_eq!(print(&[0x01, 0x02], Some(10)).unwrap(), "1000000001");
        assert_eq!(print(&[5, 0], None).unwrap(), "101");
        assert_eq!(print(&[5], Some(2_147_483_647)).unwrap(), "101");
        assert_eq!(print(&[8], Some(3)), None);
    }
}
