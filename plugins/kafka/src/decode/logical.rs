//! The named types of Kafka Connect and Debezium, whatever the format they are named in: one table.

use super::kind::{Digits, Infinities, Kind, Text, Unit};

/// Who wrote the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A converter of Kafka Connect, whose timestamps are in UTC.
    Connect,
    /// Debezium, which also uses Connect's own timestamps for those without a zone.
    Debezium,
}

/// The kind of a named type over Connect's `base` type (int32, int64, string, bytes, struct …), with the schema's parameters; `None`
/// where the name says nothing, so that the base type says it all.
pub(crate) fn kind(
    name: &str,
    base: &str,
    parameter: impl Fn(&str) -> Option<String>,
    dialect: Dialect,
) -> Result<Option<Kind>, String> {
    const DEBEZIUM: Infinities = Infinities::Debezium;
    let timestamp = |unit| Kind::Timestamp { zone: false, unit: Some(unit), infinities: DEBEZIUM };
    let infinities = if dialect == Dialect::Debezium { DEBEZIUM } else { Infinities::No };
    Ok(Some(match (name, base) {
        ("io.debezium.time.Date", "int32") => Kind::Date { infinities: DEBEZIUM },
        ("io.debezium.time.Time", "int32") => Kind::Time(Some(Unit::Millis)),
        ("io.debezium.time.MicroTime", "int64") => Kind::Time(Some(Unit::Micros)),
        ("io.debezium.time.NanoTime", "int64") => Kind::Time(Some(Unit::Nanos)),
        ("io.debezium.time.Timestamp", "int64") => timestamp(Unit::Millis),
        ("io.debezium.time.MicroTimestamp", "int64") => timestamp(Unit::Micros),
        ("io.debezium.time.NanoTimestamp", "int64") => timestamp(Unit::Nanos),
        ("io.debezium.time.ZonedTimestamp", "string") => Kind::timestamp(true, None),
        ("io.debezium.data.Json", "string") => Kind::JsonText,
        ("io.debezium.data.Uuid", "string") => Kind::Uuid,
        ("io.debezium.data.VariableScaleDecimal", "struct") => Kind::String(Text::VariableScale),
        ("io.debezium.data.Bits", "bytes") => {
            Kind::String(Text::Bits(parameter("length").and_then(|length| length.parse().ok())))
        }
        ("org.apache.kafka.connect.data.Decimal", "bytes") => decimal(parameter)?,
        ("org.apache.kafka.connect.data.Date", "int32") => Kind::Date { infinities },
        ("org.apache.kafka.connect.data.Time", "int32") => Kind::Time(Some(Unit::Millis)),
        ("org.apache.kafka.connect.data.Timestamp", "int64") => {
            Kind::Timestamp { zone: dialect == Dialect::Connect, unit: Some(Unit::Millis), infinities }
        }
        // Text in a string, numbers in a number: ZonedTime, Interval, MicroDuration, Year, Enum, EnumSet, Xml, Ltree, Tsvector and
        // structs of geometry are what their base types are.
        _ => return Ok(None),
    }))
}

/// The kind of a base type of Connect that needs nothing else.
pub(crate) fn base(base: &str) -> Option<Kind> {
    Some(match base {
        "boolean" => Kind::Boolean,
        "int8" | "int16" | "int32" => Kind::Int,
        "int64" => Kind::Long,
        "float32" | "float" => Kind::Float,
        "float64" | "double" => Kind::Double,
        "string" => Kind::STRING,
        "bytes" => Kind::Binary,
        _ => return None,
    })
}

fn decimal(parameter: impl Fn(&str) -> Option<String>) -> Result<Kind, String> {
    let number = |name| parameter(name).and_then(|text| text.parse::<i8>().ok());
    let scale = number("scale").filter(|scale| (0..=38).contains(scale));
    let scale = scale.ok_or("a Decimal whose parameter `scale` is not between 0 and 38")?;
    let precision = number("connect.decimal.precision").and_then(|precision| u8::try_from(precision).ok());
    // Beyond 38 digits, or where nobody says how many, those values are taken that 38 digits hold.
    let precision = precision.filter(|precision| (1..=38).contains(precision)).unwrap_or(38);
    Ok(Kind::Decimal(precision.max(scale.unsigned_abs()), scale, Digits::Bytes))
}
