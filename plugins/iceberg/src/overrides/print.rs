//! Values as text, as PostgreSQL prints them: booleans as a cast to text does, timestamps with a zone in UTC.

use std::fmt::Write;

use uuid::Uuid;

use super::cell::Cell;
use super::read::{DAY, INFINITE_DATE, INFINITE_TIME};

const BEFORE_DATES: i32 = -INFINITE_DATE;
const BEFORE_TIMES: i64 = -INFINITE_TIME;

pub(super) fn text(cell: Cell<'_>) -> String {
    match cell {
        Cell::Boolean(value) => value.to_string(),
        Cell::Int(value) => value.to_string(),
        // So many digits before the point are written out, as PostgreSQL has it.
        Cell::Real(value) => float(f64::from(value), &format!("{value:e}"), 6),
        Cell::Float(value) => float(value, &format!("{value:e}"), 15),
        Cell::Decimal { value, scale } => decimal(value, scale),
        Cell::Date(INFINITE_DATE) | Cell::Timestamp(INFINITE_TIME) | Cell::Timestamptz(INFINITE_TIME) => {
            "infinity".to_owned()
        }
        Cell::Date(BEFORE_DATES) | Cell::Timestamp(BEFORE_TIMES) | Cell::Timestamptz(BEFORE_TIMES) => {
            "-infinity".to_owned()
        }
        Cell::Date(days) => {
            let (date, era) = date(i64::from(days));
            date + era
        }
        Cell::Time(micros) => time(micros),
        Cell::Timestamp(micros) => timestamp(micros, ""),
        Cell::Timestamptz(micros) => timestamp(micros, "+00"),
        Cell::Text(text) => text.to_owned(),
        Cell::Uuid(bytes) => Uuid::from_slice(bytes).map(|uuid| uuid.to_string()).unwrap_or_default(),
        Cell::Bytes(bytes) => {
            bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
                // Writing into a text does not fail.
                let _ = write!(text, "{byte:02x}");
                text
            })
        }
    }
}

/// A number from its shortest digits in scientific form.
fn float(value: f64, scientific: &str, plain_below: i32) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value.is_infinite() {
        return format!("{sign}Infinity");
    }
    let (mantissa, exponent) = scientific.trim_start_matches('-').split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..plain_below).contains(&exponent) {
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{exponent_sign}{:02}", exponent.abs());
    }
    let digits = mantissa.replace('.', "");
    let point = exponent + 1;
    match usize::try_from(point) {
        Ok(point @ 1..) if point >= digits.len() => format!("{sign}{digits}{}", "0".repeat(point - digits.len())),
        Ok(point @ 1..) => format!("{sign}{}.{}", &digits[..point], &digits[point..]),
        _ => format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
    }
}

pub(super) fn decimal(value: i128, scale: i8) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let scale = usize::from(scale.unsigned_abs());
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

fn timestamp(micros: i64, zone: &str) -> String {
    let (date, era) = date(micros.div_euclid(DAY));
    format!("{date} {}{zone}{era}", time(micros.rem_euclid(DAY)))
}

fn time(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { text } else { format!("{text}.{fraction:06}").trim_end_matches('0').to_owned() }
}

/// A date, and the era that follows it and a time.
fn date(days: i64) -> (String, &'static str) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}
