//! What a type means beside its shape: by Avro's logical type, or by the name that Kafka Connect gives it.

use super::schema::{Notes, Shape, Type};
use crate::decode::kind::{Digits, Kind, Unit};

const CONNECT_DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
const VARIABLE_SCALE: &str = "io.debezium.data.VariableScaleDecimal";
const MOST_DIGITS: u64 = 38;

/// The kind of column of a type that means something of its own. An error says why it cannot be read.
pub(super) fn kind(of: &Type) -> Result<Option<Kind>, String> {
    let Some(logical) = of.notes.logical.as_deref() else { return Ok(None) };
    let timestamp = |zone, unit| Kind::timestamp(zone, Some(unit));
    Ok(Some(match (&of.shape, logical) {
        (Shape::Int, "date") => Kind::DATE,
        (Shape::Int, "time-millis") => Kind::Time(Some(Unit::Millis)),
        (Shape::Long, "time-micros") => Kind::Time(Some(Unit::Micros)),
        (Shape::Long, "timestamp-millis") => timestamp(true, Unit::Millis),
        (Shape::Long, "timestamp-micros") => timestamp(true, Unit::Micros),
        (Shape::Long, "timestamp-nanos") => timestamp(true, Unit::Nanos),
        (Shape::Long, "local-timestamp-millis") => timestamp(false, Unit::Millis),
        (Shape::Long, "local-timestamp-micros") => timestamp(false, Unit::Micros),
        (Shape::Long, "local-timestamp-nanos") => timestamp(false, Unit::Nanos),
        (Shape::String | Shape::Fixed(16), "uuid") => Kind::Uuid,
        (Shape::Bytes | Shape::Fixed(_), "decimal") => decimal(&of.notes)?,
        // The specification has it that what is not known, or does not fit, is read as if it did not stand there.
        _ => return Ok(None),
    }))
}

fn decimal(notes: &Notes) -> Result<Kind, String> {
    let allowed = "a precision from 1 to 38 and a scale from 0 to the precision are what can be read";
    let scale = notes.scale.unwrap_or(0);
    let precision = notes.precision.ok_or_else(|| format!("a decimal without a precision; {allowed}"))?;
    // Kafka Connect's decimals have no precision: its converter writes 64 where nothing else is told.
    let connect = notes.connect_name.as_deref() == Some(CONNECT_DECIMAL);
    let held = if connect { precision.min(MOST_DIGITS) } else { precision };
    if !(1..=MOST_DIGITS).contains(&held) || scale > held {
        return Err(format!("a decimal of precision {precision} and scale {scale}; {allowed}"));
    }
    match (u8::try_from(held), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) => Ok(Kind::Decimal(precision, scale, Digits::Bytes)),
        _ => Err(allowed.to_owned()),
    }
}

/// Whether a type is Debezium's decimal with a scale of its own, and then whether the scale comes first.
pub(super) fn variable_scale(of: &Type) -> Option<bool> {
    let Shape::Record(record) = &of.shape else { return None };
    if ![of.notes.connect_name.as_deref(), Some(&record.name)].contains(&Some(VARIABLE_SCALE)) {
        return None;
    }
    match record.fields.as_slice() {
        [scale, value] if scale.of.shape == Shape::Int && value.of.shape == Shape::Bytes => Some(true),
        [value, scale] if scale.of.shape == Shape::Int && value.of.shape == Shape::Bytes => Some(false),
        _ => None,
    }
}
