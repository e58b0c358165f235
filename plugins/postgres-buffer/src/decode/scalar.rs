//! Values out of their texts: digits, dates, times, uuids, bytes. Never a wrong value; what does not fit is refused.

use super::Refusal;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What stands for PostgreSQL's infinities, which Iceberg has not: the values at the far ends, so that they sort as they must.
/// No finite value is read as one of them. DuckDB takes them for its own infinities.
const INFINITE_MICROS: i64 = i64::MAX;
const INFINITE_DAYS: i32 = i32::MAX;

/// A whole number.
pub(crate) fn integer(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| Refusal::new("not a whole number that the type holds"))
}

/// The unscaled value of a decimal, straight from its digits.
pub(crate) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Refusal> {
    const TOO_LONG: Refusal = Refusal::new("more digits than the type holds");
    const NO_NUMBER: Refusal =
        Refusal::new("not a finite number, which a decimal cannot hold; `columns` can have it read as text");
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
        return Err(Refusal::new("more digits after the point than the type holds"));
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
pub(crate) fn float(text: &str, single: bool) -> Result<f64, Refusal> {
    let value = if single { text.parse::<f32>().map(f64::from) } else { text.parse::<f64>() };
    let value = value.map_err(|_| Refusal::new("not a number"))?;
    if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::new("beyond what the type holds"));
    }
    Ok(value)
}

/// Reads a text from left to right.
struct Reader<'a>(&'a [u8]);

const BAD_DATE: Refusal = Refusal::new("not a date or time");
const TOO_FAR: Refusal =
    Refusal::new("beyond what 64 bits of microseconds since 1970 hold; `columns` can have it read as text");

/// A date or time without the era behind it, and whether that was BC.
fn without_era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

/// The sign of an infinity.
fn infinite(text: &str) -> Option<i8> {
    match text {
        "infinity" => Some(1),
        "-infinity" => Some(-1),
        _ => None,
    }
}

impl Reader<'_> {
    /// As many digits as there are, from one to nine.
    fn number(&mut self) -> Result<(i64, usize), Refusal> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&count) {
            return Err(BAD_DATE);
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok((digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')), count))
    }

    /// Exactly two digits; no caller lets a third one follow.
    fn two(&mut self, max: i64) -> Result<i64, Refusal> {
        let Some(([tens @ b'0'..=b'9', ones @ b'0'..=b'9'], rest)) = self.0.split_first_chunk() else {
            return Err(BAD_DATE);
        };
        self.0 = rest;
        let value = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
        if value <= max { Ok(value) } else { Err(BAD_DATE) }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.0.first() == Some(&wanted);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Refusal> {
        if self.take(wanted) { Ok(()) } else { Err(BAD_DATE) }
    }

    /// Days since 1970, in the Gregorian calendar however far back, as PostgreSQL counts.
    fn date(&mut self, before_christ: bool) -> Result<i64, Refusal> {
        let (year, digits) = self.number()?;
        // No year is 0; the one before 1 is 1 BC.
        if digits < 4 || year == 0 {
            return Err(BAD_DATE);
        }
        let year = if before_christ { 1 - year } else { year };
        self.expect(b'-')?;
        let month = self.two(12)?;
        self.expect(b'-')?;
        let day = self.two(31)?;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if month == 0 || day == 0 || day > length {
            return Err(BAD_DATE);
        }
        // Years that begin in March put the leap day at their end.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let day_of_year = (153 * month + 2) / 5 + day - 1;
        Ok(year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468)
    }

    /// Microseconds since midnight.
    fn time(&mut self) -> Result<i64, Refusal> {
        let hour = self.two(23)?;
        self.expect(b':')?;
        let minute = self.two(59)?;
        let mut micros = (hour * 60 + minute) * 60_000_000;
        if self.take(b':') {
            micros += self.two(59)? * 1_000_000;
            if self.take(b'.') {
                let (fraction, digits) = self.number()?;
                let digits = u32::try_from(digits).map_err(|_| BAD_DATE)?;
                micros += match digits {
                    0..=6 => fraction * 10_i64.pow(6 - digits),
                    _ if fraction % 10_i64.pow(digits - 6) == 0 => fraction / 10_i64.pow(digits - 6),
                    _ => return Err(Refusal::new("finer than microseconds")),
                };
            }
        }
        Ok(micros)
    }

    /// Seconds east of UTC, where a zone is given.
    fn zone(&mut self) -> Result<Option<i64>, Refusal> {
        if self.take(b'Z') {
            return Ok(Some(0));
        }
        let sign = match self.0.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Ok(None),
        };
        self.0 = &self.0[1..];
        let mut seconds = self.two(15)? * 3600;
        if self.take(b':') {
            seconds += self.two(59)? * 60;
            if self.take(b':') {
                seconds += self.two(59)?;
            }
        }
        Ok(Some(sign * seconds))
    }

    fn end(&self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(BAD_DATE) }
    }
}

/// Days since 1970.
pub(crate) fn date(text: &str) -> Result<i32, Refusal> {
    if let Some(sign) = infinite(text) {
        return Ok(INFINITE_DAYS * i32::from(sign));
    }
    let (text, before_christ) = without_era(text);
    let mut reader = Reader(text.as_bytes());
    let days = reader.date(before_christ)?;
    reader.end()?;
    i32::try_from(days).ok().filter(|days| days.abs() < INFINITE_DAYS).ok_or(TOO_FAR)
}

/// Microseconds since midnight.
pub(crate) fn time(text: &str) -> Result<i64, Refusal> {
    if text.starts_with("24:") {
        return Err(Refusal::new("24:00 is no time of Iceberg's; `columns` can have it read as text"));
    }
    let mut reader = Reader(text.as_bytes());
    let micros = reader.time()?;
    reader.end()?;
    Ok(micros)
}

/// What a timestamp's text says of a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Nothing: it is what the clock on the wall says.
    Without,
    /// Which one.
    With,
    /// Nothing, and UTC is meant.
    Utc,
}

/// Microseconds since 1970: in UTC where there is a zone, else as the clock on the wall says.
pub(crate) fn timestamp(text: &str, zone: Zone) -> Result<i64, Refusal> {
    if let Some(sign) = infinite(text) {
        return Ok(INFINITE_MICROS * i64::from(sign));
    }
    let (text, before_christ) = without_era(text);
    let mut reader = Reader(text.as_bytes());
    let days = reader.date(before_christ)?;
    if !reader.take(b'T') {
        reader.expect(b' ')?;
    }
    let time = reader.time()?;
    let found = reader.zone()?;
    reader.end()?;
    let east = match (found, zone) {
        (Some(seconds), Zone::With) => seconds,
        (None, Zone::Without | Zone::Utc) => 0,
        (None, Zone::With) => {
            return Err(Refusal::new("a timestamp without a time zone in a column with one"));
        }
        (Some(_), Zone::Without | Zone::Utc) => {
            return Err(Refusal::new("a timestamp with a time zone in a column without one"));
        }
    };
    let micros = days.checked_mul(MICROS_PER_DAY).and_then(|micros| micros.checked_add(time - east * 1_000_000));
    micros.filter(|micros| (-INFINITE_MICROS + 1..INFINITE_MICROS).contains(micros)).ok_or(TOO_FAR)
}

/// A timestamp as PostgreSQL prints it as text, from the form that it has in JSON: a space for the T, and no minutes of a zone where
/// they are none.
pub(crate) fn timestamp_text(json: &str) -> String {
    let (text, before_christ) = without_era(json);
    let zoned = text.len() > 6 && matches!(text.as_bytes()[text.len() - 6], b'+' | b'-') && text.contains('T');
    let text = if zoned { text.strip_suffix(":00").unwrap_or(text) } else { text };
    let era = if before_christ { " BC" } else { "" };
    format!("{}{era}", text.replacen('T', " ", 1))
}

/// The sixteen bytes of a uuid.
pub(crate) fn uuid(text: &str) -> Result<[u8; 16], Refusal> {
    const BAD: Refusal = Refusal::new("not a uuid");
    let mut bytes = [0; 16];
    let mut digits = text.bytes().filter(|byte| *byte != b'-');
    for byte in &mut bytes {
        let (Some(high), Some(low)) = (digits.next(), digits.next()) else { return Err(BAD) };
        *byte = hex(high).ok_or(BAD)? << 4 | hex(low).ok_or(BAD)?;
    }
    if digits.next().is_some() { Err(BAD) } else { Ok(bytes) }
}

/// The bytes of a bytea as either of PostgreSQL's output formats prints them: hexadecimal behind `\x`, or escaped.
pub(crate) fn bytea(text: &str) -> Result<Vec<u8>, Refusal> {
    const BAD: Refusal = Refusal::new("not a bytea, neither in hexadecimal nor in escape form");
    let Some(digits) = text.strip_prefix("\\x") else { return unescaped(text).ok_or(BAD) };
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return Err(BAD) };
    pairs.iter().map(|[high, low]| Some(hex(*high)? << 4 | hex(*low)?)).collect::<Option<_>>().ok_or(BAD)
}

/// Printable ASCII stands for itself, a backslash for itself where it is doubled, everything else as three octal digits
/// behind one. A text that begins with `\x` is never one of these.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', rest @ ..] => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                rest
            }
            [byte @ b' '..=b'~', rest @ ..] if *byte != b'\\' => {
                bytes.push(*byte);
                rest
            }
            _ => return None,
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
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
    fn dates_and_timestamps_agree_with_the_calendar() {
        // Seconds as `date -u -d … +%s` prints them.
        for (text, seconds) in [
            ("1970-01-01T00:00:00+00:00", 0),
            ("2000-02-29T12:34:56+00:00", 951_827_696),
            ("1900-03-01T00:00:00Z", -2_203_891_200),
            ("0001-01-01T00:00:00+00:00", -62_135_596_800),
            ("9999-12-31T23:59:59+00:00", 253_402_300_799),
            ("2024-07-01 12:00:00+05:30", 1_719_815_400),
            ("2024-07-01T12:00:00-07", 1_719_860_400),
            ("1883-11-18T12:03:58-04:56:02", -2_717_650_800),
            ("12345-06-07T08:09:10+00:00", 327_416_976_550),
        ] {
            assert_eq!(timestamp(text, Zone::With).unwrap(), seconds * 1_000_000, "{text}");
        }
        assert_eq!(timestamp("2024-07-01T12:00:00.5", Zone::Without).unwrap(), 1_719_835_200_500_000);
        assert_eq!(date("2024-02-29").unwrap(), 19_782);
        assert_eq!(time("23:59:59.999999").unwrap(), 86_399_999_999);
        assert_eq!(time("00:00:01").unwrap(), 1_000_000);
    }

    #[test]
    fn times_reach_as_far_as_their_integers() {
        // As PostgreSQL counts: select extract(epoch from …) and … - date '1970-01-01'.
        for (text, micros) in [
            ("0044-03-15T00:00:00 BC", -63_517_824_000_000_000),
            ("4714-11-24T00:00:00 BC", -210_866_803_200_000_000),
            ("294246-12-31T23:59:59.999999", 9_223_371_244_799_999_999),
            ("infinity", i64::MAX),
            ("-infinity", -i64::MAX),
        ] {
            assert_eq!(timestamp(text, Zone::Without).unwrap(), micros, "{text}");
        }
        for (text, days) in [
            ("0044-03-15 BC", -735_160),
            ("4714-11-24 BC", -2_440_588),
            ("5874897-12-31", 2_145_042_905),
            ("infinity", i32::MAX),
            ("-infinity", -i32::MAX),
        ] {
            assert_eq!(date(text).unwrap(), days, "{text}");
        }
        assert_eq!(
            timestamp("0044-03-15T00:00:00+00:00 BC", Zone::With),
            timestamp("0044-03-15T00:00:00 BC", Zone::Utc)
        );
        assert_eq!(timestamp("294247-01-10T04:00:54.775806", Zone::Without).unwrap(), i64::MAX - 1);
        for text in ["294247-01-10T04:00:54.775807", "294276-12-31T23:59:59", "999999999-01-01T00:00:00"] {
            assert_eq!(timestamp(text, Zone::Without), Err(TOO_FAR), "{text}");
        }
        assert_eq!(date("9999999-01-01"), Err(TOO_FAR));
    }

    #[test]
    fn what_is_no_date_or_time_is_refused() {
        for text in [
            "0000-01-01T00:00:00+00:00",
            "024-01-01T00:00:00+00:00",
            "2023-02-29T00:00:00+00:00",
            "2024-13-01T00:00:00+00:00",
            "2024-01-01T24:00:00+00:00",
            "2024-01-01T00:00:00.1234567+00:00",
            "2024-01-01T00:00:00",
            "2024-01-01",
            "Infinity",
            "infinity BC",
        ] {
            assert!(timestamp(text, Zone::With).is_err(), "{text}");
        }
        for zone in [Zone::Without, Zone::Utc] {
            assert!(timestamp("2024-01-01T00:00:00+00:00", zone).is_err());
        }
        assert!(date("2024-01-01 AD").is_err() && time("24:00:00").is_err() && time("infinity").is_err());
    }

    /// As to_jsonb(t) and t::text print the same moments.
    #[test]
    fn timestamps_are_spelt_as_text() {
        for (json, text) in [
            ("2024-02-29T01:02:03.5", "2024-02-29 01:02:03.5"),
            ("2024-02-29T01:00:00", "2024-02-29 01:00:00"),
            ("2024-02-29T01:00:00+00:00", "2024-02-29 01:00:00+00"),
            ("2024-02-29T01:00:00-03:30", "2024-02-29 01:00:00-03:30"),
            ("0044-03-15T00:00:00+00:00 BC", "0044-03-15 00:00:00+00 BC"),
            ("infinity", "infinity"),
        ] {
            assert_eq!(timestamp_text(json), text);
        }
    }

    #[test]
    fn floats_integers_uuids_and_bytes() {
        assert!(float("NaN", false).unwrap().is_nan());
        assert_eq!(float("-Infinity", true).unwrap(), f64::NEG_INFINITY);
        assert!(float("1e309", false).is_err() && float("1e39", true).is_err() && float("x", false).is_err());
        assert_eq!(integer("-9223372036854775808").unwrap(), i64::MIN);
        assert!(integer("9223372036854775808").is_err() && integer("1.0").is_err());
        assert_eq!(uuid("00010203-0405-0607-0809-0a0b0c0d0e0F").unwrap()[15], 15);
        assert!(uuid("00010203").is_err() && uuid("zz010203-0405-0607-0809-0a0b0c0d0e0f").is_err());
        assert_eq!(bytea("\\x00ff").unwrap(), [0, 255]);
        assert_eq!(bytea(r"a\\\000\377 ~").unwrap(), b"a\\\x00\xff ~");
        assert_eq!(bytea("").unwrap(), b"");
        for text in ["\\x0", "\\xzz", "\\", "\\9", "\\40", "\\400", "ä", "\n"] {
            assert!(bytea(text).is_err(), "{text}");
        }
    }
}
