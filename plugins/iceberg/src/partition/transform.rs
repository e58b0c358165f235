//! Iceberg's partition transforms over whole columns, by the specification and its appendix B.
//!
//! The crate's own are not used: they lose years that chrono cannot hold (PostgreSQL reaches 294276), know no large
//! binary, and bucket times before 1970 in nanoseconds wrongly.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, LargeBinaryArray, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::error::ArrowError;
use iceberg::spec::Transform;
use philotes_sdk::{Error, Result};

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// The transformed column; NULL stays NULL. The result has the Arrow type of the partition field.
pub(super) fn apply(transform: Transform, column: &ArrayRef) -> Result<ArrayRef> {
    let unsupported =
        || Error::internal(format!("partition transform {transform} does not apply to {}", column.data_type()));
    match transform {
        Transform::Identity => Ok(column.clone()),
        Transform::Void => Ok(arrow::array::new_null_array(column.data_type(), column.len())),
        Transform::Bucket(count) => bucket(column, count).ok_or_else(unsupported),
        Transform::Truncate(width) => truncate(column, width).ok_or_else(unsupported),
        Transform::Year => calendar(column, |days| civil(days).0 - 1970).ok_or_else(unsupported),
        Transform::Month => calendar(column, |days| {
            let (year, month, _) = civil(days);
            (year - 1970) * 12 + month - 1
        })
        .ok_or_else(unsupported),
        // A partition of days is a date, every other one a number.
        Transform::Day => match calendar(column, |days| days) {
            Some(days) => Ok(Arc::new(days.as_primitive::<Int32Type>().reinterpret_cast::<Date32Type>())),
            None => Err(unsupported()),
        },
        Transform::Hour => hours(column)?.ok_or_else(unsupported),
        Transform::Unknown => Err(unsupported()),
    }
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar.
///
/// Counted from 0000-03-01, so that a leap day is the last of its year: 146,097 days are 400 years.
pub(super) fn civil(days: i32) -> (i32, i32, i32) {
    const DAYS_TO_1970: i64 = 719_468;
    const ERA: i64 = 146_097;
    let days = i64::from(days) + DAYS_TO_1970;
    let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // A day in i32 lies within six million years.
    (narrow(year), narrow(month), narrow(day))
}

/// `f` of the day that each value falls into.
fn calendar(column: &ArrayRef, f: impl Fn(i32) -> i32) -> Option<ArrayRef> {
    Some(match column.data_type() {
        DataType::Date32 => Arc::new(column.as_primitive::<Date32Type>().unary::<_, Int32Type>(f)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Arc::new(
            column
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, Int32Type>(|micros| f(narrow(micros.div_euclid(DAY_MICROS)))),
        ),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Arc::new(
            column
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, Int32Type>(|nanos| f(narrow(nanos.div_euclid(1000 * DAY_MICROS)))),
        ),
        _ => return None,
    })
}

/// An hour is an int and reaches the year 246953. What lies beyond is refused: a partition value that is not the row's
/// own would hide the row from every reader that prunes by it.
fn hours(column: &ArrayRef) -> Result<Option<ArrayRef>> {
    let beyond = |_| ArrowError::ArithmeticOverflow(String::new());
    let hours = match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => column
            .as_primitive::<TimestampMicrosecondType>()
            .try_unary::<_, Int32Type, _>(|micros| i32::try_from(micros.div_euclid(HOUR_MICROS)).map_err(beyond)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => column
            .as_primitive::<TimestampNanosecondType>()
            .try_unary::<_, Int32Type, _>(|nanos| i32::try_from(nanos.div_euclid(1000 * HOUR_MICROS)).map_err(beyond)),
        _ => return Ok(None),
    };
    let hours = hours.map_err(|_| Error::data("a timestamp lies beyond the hours that Iceberg can count"))?;
    Ok(Some(Arc::new(hours)))
}

/// For values whose range the caller knows to fit.
fn narrow(value: i64) -> i32 {
    debug_assert!(i32::try_from(value).is_ok(), "{value} is no i32");
    #[allow(clippy::cast_possible_truncation)]
    let narrowed = value as i32;
    narrowed
}

fn truncate(column: &ArrayRef, width: u32) -> Option<ArrayRef> {
    let characters = usize::try_from(width).ok()?;
    Some(match column.data_type() {
        DataType::Int32 => {
            let width = i32::try_from(width).ok()?;
            let column = column.as_primitive::<Int32Type>();
            Arc::new(column.unary::<_, Int32Type>(|v| v.wrapping_sub(v.rem_euclid(width))))
        }
        DataType::Int64 => {
            let width = i64::from(width);
            let column = column.as_primitive::<Int64Type>();
            Arc::new(column.unary::<_, Int64Type>(|v| v.wrapping_sub(v.rem_euclid(width))))
        }
        DataType::Decimal128(precision, scale) => {
            // The width counts units of the last digit.
            let width = i128::from(width);
            let column = column.as_primitive::<Decimal128Type>();
            let column = column.unary::<_, Decimal128Type>(|v| v - v.rem_euclid(width));
            Arc::new(column.with_precision_and_scale(*precision, *scale).ok()?)
        }
        DataType::Utf8 => Arc::new(
            column.as_string::<i32>().iter().map(|s| s.map(|s| prefix(s, characters))).collect::<StringArray>(),
        ),
        DataType::LargeBinary => Arc::new(
            column
                .as_binary::<i64>()
                .iter()
                .map(|b| b.map(|b| &b[..b.len().min(characters)]))
                .collect::<LargeBinaryArray>(),
        ),
        _ => return None,
    })
}

/// The first `count` code points.
fn prefix(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(end, _)| &text[..end])
}

fn bucket(column: &ArrayRef, count: u32) -> Option<ArrayRef> {
    let count = i32::try_from(count).ok()?;
    let of = |hash: i32| (hash & i32::MAX) % count;
    let buckets: Int32Array = match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().unary(|v| of(hash_long(v.into()))),
        DataType::Int64 => column.as_primitive::<Int64Type>().unary(|v| of(hash_long(v))),
        DataType::Date32 => column.as_primitive::<Date32Type>().unary(|v| of(hash_long(v.into()))),
        DataType::Time64(TimeUnit::Microsecond) => {
            column.as_primitive::<Time64MicrosecondType>().unary(|v| of(hash_long(v)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().unary(|v| of(hash_long(v)))
        }
        // Nanoseconds hash as the microsecond they fall into, so that both precisions agree.
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            column.as_primitive::<TimestampNanosecondType>().unary(|v| of(hash_long(v.div_euclid(1000))))
        }
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().unary(|v| of(hash_decimal(v))),
        DataType::Utf8 => column.as_string::<i32>().iter().map(|v| v.map(|v| of(hash(v.as_bytes())))).collect(),
        DataType::LargeBinary => column.as_binary::<i64>().iter().map(|v| v.map(|v| of(hash(v)))).collect(),
        DataType::FixedSizeBinary(_) => column.as_fixed_size_binary().iter().map(|v| v.map(|v| of(hash(v)))).collect(),
        _ => return None,
    };
    Some(Arc::new(buckets))
}

fn hash_long(value: i64) -> i32 {
    hash(&value.to_le_bytes())
}

/// The unscaled value in as few big-endian bytes as hold it with its sign.
fn hash_decimal(value: i128) -> i32 {
    let bytes = value.to_be_bytes();
    let sign: u8 = if value < 0 { 0xff } else { 0 };
    let redundant = bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
    hash(&bytes[redundant..])
}

/// Murmur3, 32 bits, x86 variant, seed 0.
pub(super) fn hash(bytes: &[u8]) -> i32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let mix = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut state = 0_u32;
    for block in blocks {
        state = (state ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    state ^= mix(u32::from_le_bytes(last));
    // The algorithm takes the length modulo 2^32.
    #[allow(clippy::cast_possible_truncation)]
    let length = bytes.len() as u32;
    state ^= length;
    state = (state ^ (state >> 16)).wrapping_mul(0x85eb_ca6b);
    state = (state ^ (state >> 13)).wrapping_mul(0xc2b2_ae35);
    (state ^ (state >> 16)).cast_signed()
}
