//! What a type means beside its shape: by the name that Kafka Connect gives it, or by Avro's logical type.

use super::schema::{Notes, Record, Shape, Type};
use crate::decode::kind::{Digits, Kind, Unit};
use crate::decode::logical::{self, Dialect};

const MOST_DIGITS: u64 = 38;

/// The kind of column of a type that means something of its own. An error says why it cannot be read.
pub(super) fn kind(of: &Type, dialect: Dialect) -> Result<Option<Kind>, String> {
    let Notes { name, connect_name, connect_parameters, scale, .. } = &of.notes;
    if let (Some(name), Some(base)) = (connect_name.as_ref().or(name.as_ref()), base(&of.shape)) {
        let parameter = |parameter: &str| match connect_parameters.get(parameter) {
            None if parameter == "scale" => scale.map(|scale| scale.to_string()),
            told => told.cloned(),
        };
        let named = logical::kind(name, base, parameter, dialect)?;
        if named.is_some() {
            return Ok(named);
        }
    }
    of_logical_type(of)
}

/// What Kafka Connect calls a shape.
fn base(shape: &Shape) -> Option<&'static str> {
    Some(match shape {
        Shape::Int => "int32",
        Shape::Long => "int64",
        Shape::String | Shape::Enum(_) => "string",
        Shape::Bytes => "bytes",
        Shape::Record(_) => "struct",
        _ => return None,
    })
}

fn of_logical_type(of: &Type) -> Result<Option<Kind>, String> {
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
    if !(1..=MOST_DIGITS).contains(&precision) || scale > precision {
        return Err(format!("a decimal of precision {precision} and scale {scale}; {allowed}"));
    }
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) => Ok(Kind::Decimal(precision, scale, Digits::Bytes)),
        _ => Err(allowed.to_owned()),
    }
}

/// Of Debezium's decimal with a scale of its own, whether the scale comes first.
pub(super) fn scale_first(record: &Record) -> Result<bool, String> {
    match record.fields.as_slice() {
        [scale, value] if scale.of.shape == Shape::Int && value.of.shape == Shape::Bytes => Ok(true),
        [value, scale] if scale.of.shape == Shape::Int && value.of.shape == Shape::Bytes => Ok(false),
        _ => Err(format!("{} is not a record of the int \"scale\" and the bytes \"value\"", record.name)),
    }
}
