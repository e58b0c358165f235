//! Values from text, in the forms that PostgreSQL and ISO 8601 have. Nothing is rounded: what a type cannot hold exactly is none.
//!
//! The calendar is reckoned here, and in `print`, because chrono's ends at the year 262142, long before PostgreSQL's.

use uuid::Uuid;

/// Microseconds of a day.
pub(super) const DAY: i64 = 86_400_000_000;
/// What stands for an infinite date; negated, for the one before all others. As docs/TYPES.md has it.
pub(super) const INFINITE_DATE: i32 = i32::MAX;
/// The same of timestamps.
pub(super) const INFINITE_TIME: i64 = i64::MAX;

/// Which end of time a text names, if it names one.
fn infinity(text: &str) -> Option<i64> {
    match text.trim().to_ascii_lowercase().as_str() {
        "infinity" | "+infinity" => Some(1),
        "-infinity" => Some(-1),
        _ => None,
    }
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

pub(super) fn int(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// The nearest number, unless the text's is too large or too small for any.
pub(super) fn float(text: &str) -> Option<f64> {
    let text = text.trim();
    let value: f64 = text.parse().ok()?;
    sound(text, value.is_infinite(), value == 0.0).then_some(value)
}

/// As [`float`], in single precision.
pub(super) fn real(text: &str) -> Option<f32> {
    let text = text.trim();
    let value: f32 = text.parse().ok()?;
    sound(text, value.is_infinite(), value == 0.0).then_some(value)
}

fn sound(text: &str, infinite: bool, zero: bool) -> bool {
    let says_infinity = text.contains(['i', 'I']);
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let says_zero = !mantissa.contains(|c: char| matches!(c, '1'..='9'));
    infinite == says_infinity && (!zero || says_zero)
}

/// The number with so many digits behind the point.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let text = text.trim();
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let shift = i64::from(scale).checked_add(exponent)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let shift = u32::try_from(shift.checked_add(zeros)?).ok()?;
    let value = significant.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(shift)?)?;
    (value < 10_i128.checked_pow(u32::from(precision))?).then_some(if negative { -value } else { value })
}

/// Days since 1970 of a date of the proleptic Gregorian calendar.
pub(super) fn date(text: &str) -> Option<i32> {
    if let Some(sign) = infinity(text) {
        return Some(if sign > 0 { INFINITE_DATE } else { -INFINITE_DATE });
    }
    let (text, before) = era(text.trim());
    i32::try_from(days(text, before)?).ok().filter(|days| (1 - INFINITE_DATE..INFINITE_DATE).contains(days))
}

/// The timestamp at the beginning of a date.
pub(super) fn midnight(date: i32) -> Option<i64> {
    match date {
        INFINITE_DATE => Some(INFINITE_TIME),
        _ if date == -INFINITE_DATE => Some(-INFINITE_TIME),
        _ => micros(i64::from(date), 0),
    }
}

/// Microseconds since midnight.
pub(super) fn time(text: &str) -> Option<i64> {
    clock(text.trim())
}

/// Microseconds since 1970, wherever that was.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    if let Some(sign) = infinity(text) {
        return Some(sign * INFINITE_TIME);
    }
    let (text, before) = era(text.trim());
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
    micros(days(date, before)?, clock(time.trim_start())?)
}

/// Microseconds since 1970 UTC; without a zone it is not known when that was.
pub(super) fn timestamptz(text: &str) -> Option<i64> {
    if let Some(sign) = infinity(text) {
        return Some(sign * INFINITE_TIME);
    }
    let (text, before) = era(text.trim());
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let at = time.find(['+', '-', 'Z', 'z', 'U'])?;
    let seconds = zone(&time[at..])?;
    finite(micros(days(date, before)?, clock(time[..at].trim())?)?.checked_sub(seconds * 1_000_000)?)
}

fn micros(days: i64, clock: i64) -> Option<i64> {
    finite(days.checked_mul(DAY)?.checked_add(clock)?)
}

fn finite(micros: i64) -> Option<i64> {
    (1 - INFINITE_TIME..INFINITE_TIME).contains(&micros).then_some(micros)
}

/// The text without its era, and whether that was the one before Christ.
fn era(text: &str) -> (&str, bool) {
    match (text.strip_suffix("BC"), text.strip_suffix("AD")) {
        (Some(rest), _) => (rest.trim_end(), true),
        (_, Some(rest)) => (rest.trim_end(), false),
        _ => (text, false),
    }
}

fn days(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() < 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    if year == 0 || year > 10_000_000 {
        return None;
    }
    // The year before 1 AD is 1 BC; astronomers call it 0.
    let year = if before_christ { 1 - year } else { year };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last one of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

fn clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next().unwrap_or("00"));
    let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
    if parts.next().is_some() || [hour, minute, second].iter().any(|part| part.len() != 2) {
        return None;
    }
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let micros = match fraction.len() {
        0 => 0,
        length @ 1..=6 => number(fraction)? * 10_i64.pow(u32::try_from(6 - length).ok()?),
        _ => return None,
    };
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// Seconds east of Greenwich.
fn zone(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z" | "UTC") {
        return Some(0);
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, text[1..].replace(':', "")),
        b'-' => (-1, text[1..].replace(':', "")),
        _ => return None,
    };
    if !digits.is_ascii() || !matches!(digits.len(), 2 | 4 | 6) {
        return None;
    }
    let part = |at: usize| digits.get(at..at + 2).map_or(Some(0), number);
    let (hours, minutes, seconds) = (part(0)?, part(2)?, part(4)?);
    // As far as PostgreSQL goes.
    (hours < 16 && minutes < 60 && seconds < 60).then_some(sign * ((hours * 60 + minutes) * 60 + seconds))
}

fn number(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    Uuid::try_parse(text.trim()).ok().map(Uuid::into_bytes)
}

/// The bytes of a bytea's text, hexadecimal or escaped.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    if let Some(digits) = text.strip_prefix("\\x") {
        if digits.len() % 2 != 0 {
            return None;
        }
        for pair in digits.as_bytes().chunks(2) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
            bytes.push(u8::from_str_radix(pair, 16).ok()?);
        }
        return Some(bytes);
    }
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, rest) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                rest = after;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            (b'\\', _) => return None,
            (byte, _) => bytes.push(*byte),
        }
    }
    Some(bytes)
}
