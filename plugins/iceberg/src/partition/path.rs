//! Partitions as people read them in paths: `date=2026-01-24/id_bucket=3`. Only for people: readers take partition
//! values from manifests.

use std::fmt::Write;

use iceberg::spec::{Literal, PartitionSpec, PrimitiveLiteral, PrimitiveType, Struct, StructType, Transform, Type};
use uuid::Uuid;

use super::transform::civil;

/// File systems take 255 bytes per name; the rest is for the name of the field.
const MAX_VALUE_BYTES: usize = 128;
const SECOND_MICROS: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;

/// The path of a partition without a slash at either end; empty where the table is not partitioned. Names and values
/// are escaped as Iceberg's Java implementation does; a very long value is cut.
pub(crate) fn partition_path(spec: &PartitionSpec, partition_type: &StructType, partition: &Struct) -> String {
    let mut path = String::new();
    if spec.is_unpartitioned() {
        return path;
    }
    for ((field, r#type), value) in spec.fields().iter().zip(partition_type.fields()).zip(partition.iter()) {
        if !path.is_empty() {
            path.push('/');
        }
        escape_into(&mut path, &field.name);
        path.push('=');
        escape_into(&mut path, &human(field.transform, &r#type.field_type, value));
    }
    path
}

fn human(transform: Transform, r#type: &Type, value: Option<&Literal>) -> String {
    let (Some(Literal::Primitive(value)), Type::Primitive(r#type)) = (value, r#type) else {
        return "null".to_owned();
    };
    match (transform, value) {
        (Transform::Year, PrimitiveLiteral::Int(years)) => format!("{:04}", 1970 + years),
        (Transform::Month, PrimitiveLiteral::Int(months)) => {
            format!("{:04}-{:02}", 1970 + months.div_euclid(12), 1 + months.rem_euclid(12))
        }
        (Transform::Hour, PrimitiveLiteral::Int(hours)) => {
            format!("{}-{:02}", date(hours.div_euclid(24)), hours.rem_euclid(24))
        }
        _ => literal(r#type, value),
    }
}

fn literal(r#type: &PrimitiveType, value: &PrimitiveLiteral) -> String {
    match (r#type, value) {
        (PrimitiveType::Date, PrimitiveLiteral::Int(days)) => date(*days),
        (PrimitiveType::Time, PrimitiveLiteral::Long(micros)) => time(*micros),
        (PrimitiveType::Timestamp, PrimitiveLiteral::Long(micros)) => timestamp(*micros),
        (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(micros)) => timestamp(*micros) + "+00:00",
        (PrimitiveType::TimestampNs, PrimitiveLiteral::Long(nanos)) => timestamp_ns(*nanos),
        (PrimitiveType::TimestamptzNs, PrimitiveLiteral::Long(nanos)) => timestamp_ns(*nanos) + "+00:00",
        (PrimitiveType::Decimal { scale, .. }, PrimitiveLiteral::Int128(unscaled)) => decimal(*unscaled, *scale),
        (_, PrimitiveLiteral::Boolean(v)) => v.to_string(),
        (_, PrimitiveLiteral::Int(v)) => v.to_string(),
        (_, PrimitiveLiteral::Long(v)) => v.to_string(),
        (_, PrimitiveLiteral::Float(v)) => v.to_string(),
        (_, PrimitiveLiteral::Double(v)) => v.to_string(),
        (_, PrimitiveLiteral::String(v)) => v.clone(),
        (_, PrimitiveLiteral::UInt128(v)) => Uuid::from_u128(*v).to_string(),
        (_, PrimitiveLiteral::Binary(v)) => base64(v),
        (_, PrimitiveLiteral::Int128(v)) => v.to_string(),
        (_, PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin) => "null".to_owned(),
    }
}

fn date(days: i32) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn time(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(SECOND_MICROS), micros.rem_euclid(SECOND_MICROS));
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        text = format!("{text}.{fraction:06}");
    }
    text
}

fn timestamp(micros: i64) -> String {
    let seconds = micros.div_euclid(SECOND_MICROS);
    // Every i64 of microseconds lies within the days of an i32.
    let days = i32::try_from(seconds.div_euclid(DAY_SECONDS)).unwrap_or_default();
    let of_day = seconds.rem_euclid(DAY_SECONDS) * SECOND_MICROS + micros.rem_euclid(SECOND_MICROS);
    format!("{}T{}", date(days), time(of_day))
}

fn timestamp_ns(nanos: i64) -> String {
    let (micros, rest) = (nanos.div_euclid(1000), nanos.rem_euclid(1000));
    if rest == 0 {
        return timestamp(micros);
    }
    let whole = micros.div_euclid(SECOND_MICROS) * SECOND_MICROS;
    format!("{}.{:06}{rest:03}", timestamp(whole), micros.rem_euclid(SECOND_MICROS))
}

fn decimal(unscaled: i128, scale: u32) -> String {
    let scale = scale as usize;
    if scale == 0 {
        return unscaled.to_string();
    }
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let six = (group >> (18 - 6 * position) & 0x3f) as usize;
            text.push(if position > chunk.len() { '=' } else { char::from(ALPHABET[six]) });
        }
    }
    text
}

/// Escapes as a web form does, and `*` as well, which object stores would escape a second time.
fn escape_into(path: &mut String, text: &str) {
    let start = path.len();
    for c in text.chars() {
        let before = path.len();
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => path.push(c),
            ' ' => path.push('+'),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(path, "%{byte:02X}");
                }
            }
        }
        if path.len() - start > MAX_VALUE_BYTES {
            path.truncate(before);
            return;
        }
    }
}
