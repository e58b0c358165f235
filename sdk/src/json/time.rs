//! Dates, times and timestamps out of the texts that PostgreSQL makes of them in JSON. Never a wrong value; what does not fit is
//! refused. The calendar is reckoned here because chrono's ends at the year 262142, long before PostgreSQL's.

use super::Fault;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What stands for PostgreSQL's infinities, which Iceberg has not: the values at the far ends, so that they sort as they must.
/// No finite value is read as one of them. DuckDB takes them for its own infinities.
pub const INFINITE_MICROS: i64 = i64::MAX;
/// The same for days.
pub const INFINITE_DAYS: i32 = i32::MAX;

/// Reads a text from left to right.
struct Reader<'a>(&'a [u8]);

const BAD_DATE: Fault = Fault::new("not a date or time");
const TOO_FAR: Fault =
    Fault::new("beyond what 64 bits of microseconds since 1970 hold; `columns` can have it read as text");

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
    fn number(&mut self) -> Result<(i64, usize), Fault> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&count) {
            return Err(BAD_DATE);
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok((digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')), count))
    }

    /// Exactly two digits; no caller lets a third one follow.
    fn two(&mut self, max: i64) -> Result<i64, Fault> {
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

    fn expect(&mut self, wanted: u8) -> Result<(), Fault> {
        if self.take(wanted) { Ok(()) } else { Err(BAD_DATE) }
    }

    /// Days since 1970, in the Gregorian calendar however far back, as PostgreSQL counts.
    fn date(&mut self, before_christ: bool) -> Result<i64, Fault> {
        // With a sign as ISO 8601 and Java print years that have more than four digits or are before 1: -0043 is 44 BC.
        let minus = !before_christ && self.take(b'-');
        if !minus && !before_christ {
            self.take(b'+');
        }
        let (year, digits) = self.number()?;
        // No year is 0; the one before 1 is 1 BC.
        if digits < 4 || year == 0 {
            return Err(BAD_DATE);
        }
        let year = match (before_christ, minus) {
            (true, _) => 1 - year,
            (_, true) => -year,
            _ => year,
        };
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
    fn time(&mut self) -> Result<i64, Fault> {
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
                    _ => return Err(Fault::new("finer than microseconds")),
                };
            }
        }
        Ok(micros)
    }

    /// Seconds east of UTC, where a zone is given.
    fn zone(&mut self) -> Result<Option<i64>, Fault> {
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
        if self.take(b':') || !self.0.is_empty() {
            seconds += self.two(59)? * 60;
            if self.take(b':') {
                seconds += self.two(59)?;
            }
        }
        Ok(Some(sign * seconds))
    }

    fn end(&self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(BAD_DATE) }
    }
}

/// Days since 1970.
///
/// # Errors
/// Where the text is none, or is too far away.
pub fn date(text: &str) -> Result<i32, Fault> {
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
///
/// # Errors
/// Where the text is none, or finer than that.
pub fn time(text: &str) -> Result<i64, Fault> {
    if text.starts_with("24:") {
        return Err(Fault::new("24:00 is no time of Iceberg's; `columns` can have it read as text"));
    }
    let mut reader = Reader(text.as_bytes());
    let micros = reader.time()?;
    reader.end()?;
    Ok(micros)
}

/// What a timestamp's text says of a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Nothing: it is what the clock on the wall says.
    Without,
    /// Which one.
    With,
    /// Nothing, and UTC is meant.
    Utc,
}

/// Microseconds since 1970: in UTC where there is a zone, else as the clock on the wall says.
///
/// # Errors
/// Where the text is none, is finer than that or too far away, or has a zone against what is said.
pub fn timestamp(text: &str, zone: Zone) -> Result<i64, Fault> {
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
            return Err(Fault::new("a timestamp without a time zone in a column with one"));
        }
        (Some(_), Zone::Without | Zone::Utc) => {
            return Err(Fault::new("a timestamp with a time zone in a column without one"));
        }
    };
    let micros = days.checked_mul(MICROS_PER_DAY).and_then(|micros| micros.checked_add(time - east * 1_000_000));
    micros.filter(|micros| (-INFINITE_MICROS + 1..INFINITE_MICROS).contains(micros)).ok_or(TOO_FAR)
}

/// A timestamp as PostgreSQL prints it as text, from the form that it has in JSON: a space for the T, and no minutes of a zone where
/// they are none.
#[must_use]
pub fn timestamp_text(json: &str) -> String {
    let (text, before_christ) = without_era(json);
    let zoned = text.len() > 6 && matches!(text.as_bytes()[text.len() - 6], b'+' | b'-') && text.contains('T');
    let text = if zoned { text.strip_suffix(":00").unwrap_or(text) } else { text };
    let era = if before_christ { " BC" } else { "" };
    format!("{}{era}", text.replacen('T', " ", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("2024-07-01T12:00:00-0700", 1_719_860_400),
            ("+12345-06-07T08:09:10Z", 327_416_976_550),
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
        assert_eq!(date("-0043-03-15"), date("0044-03-15 BC"));
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
            "-0000-01-01T00:00:00Z",
            "+2024-01-01T00:00:00Z BC",
            "2024-01-01T00:00:00+1",
            "2024-01-01T00:00:00+01000",
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
}
