//! The types that a column can be given, and which of them a column can become.

use std::fmt;

use arrow::datatypes::{DataType, Field, TimeUnit};
use philotes_sdk::batch::UTC;

/// A type that `columns` can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Decimal { precision: u8, scale: i8 },
    Date,
    Time,
    Timestamp,
    Timestamptz,
    String,
    Uuid,
    Binary,
}

impl Target {
    pub(super) const ALLOWED: &str = "boolean, int, long, float, double, decimal(p,s) with p from 1 to 38 and s from 0 to p, \
        date, time, timestamp, timestamptz, string, uuid, binary, json";

    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        Some(match text {
            "boolean" => Self::Boolean,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            // Iceberg v2 has no type for JSON.
            "string" | "json" => Self::String,
            "uuid" => Self::Uuid,
            "binary" => Self::Binary,
            _ => {
                let inner = text.strip_prefix("decimal")?.trim_start().strip_prefix('(')?.strip_suffix(')')?;
                let (precision, scale) = inner.split_once(',')?;
                let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
                let sound = (1..=38).contains(&precision) && scale >= 0 && scale.unsigned_abs() <= precision;
                return sound.then_some(Self::Decimal { precision, scale });
            }
        })
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::String => DataType::Utf8,
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Binary => DataType::Binary,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Decimal { precision, scale } => return write!(f, "decimal({precision}, {scale})"),
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::String => "string",
            Self::Uuid => "uuid",
            Self::Binary => "binary",
        })
    }
}

/// What a column holds, as far as conversions tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Int,
    Float,
    Decimal,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Text,
    Uuid,
    Bytes,
}

impl Kind {
    /// `None` where no conversion begins at such a column.
    pub(super) fn of(field: &Field) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Self::Int,
            DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Decimal128(_, 0..) => Self::Decimal,
            DataType::Date32 => Self::Date,
            DataType::Time64(TimeUnit::Microsecond) => Self::Time,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Self::Timestamptz,
            DataType::Utf8 | DataType::LargeUtf8 => Self::Text,
            DataType::FixedSizeBinary(16) if crate::schema::is_uuid(field) => Self::Uuid,
            DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => Self::Bytes,
            _ => return None,
        })
    }

    /// Whether there is a conversion to this type at all; single values may still not survive it.
    pub(super) fn becomes(self, target: Target) -> bool {
        match self {
            Self::Text => true,
            _ if target == Target::String => true,
            Self::Int | Self::Float | Self::Decimal => {
                matches!(target, Target::Int | Target::Long | Target::Float | Target::Double | Target::Decimal { .. })
            }
            Self::Boolean => target == Target::Boolean,
            Self::Date => matches!(target, Target::Date | Target::Timestamp),
            Self::Time => target == Target::Time,
            Self::Timestamp | Self::Timestamptz => matches!(target, Target::Timestamp | Target::Timestamptz),
            Self::Uuid => target == Target::Uuid,
            Self::Bytes => target == Target::Binary,
        }
    }
}

/// One value of a column.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    Boolean(bool),
    Int(i64),
    Real(f32),
    Float(f64),
    Decimal { value: i128, scale: i8 },
    Date(i32),
    Time(i64),
    Timestamp(i64),
    Timestamptz(i64),
    Text(&'a str),
    Uuid(&'a [u8]),
    Bytes(&'a [u8]),
}
