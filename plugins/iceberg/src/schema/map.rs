//! The type map: one Arrow type, one Iceberg type. Nothing is converted here; what has no counterpart is refused.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, StructType, Type};
use philotes_sdk::batch::{META_COMMENT, META_SOURCE_TYPE};
use philotes_sdk::{Error, Result};

use super::path;

/// Field metadata: the name of Arrow's extension type.
pub(crate) const EXTENSION_KEY: &str = "ARROW:extension:name";
/// That of UUIDs.
pub(crate) const UUID_EXTENSION: &str = "arrow.uuid";
const ALLOWED: &str = "boolean, int8, int16, int32, int64, float32, float64, decimal128 with a precision of 1 to 38 and \
    a scale of 0 to the precision, date32, time64 in microseconds, timestamp in microseconds with zone UTC or without, \
    utf8, large_utf8, binary, large_binary, fixed_size_binary, list, struct, map";

/// Hands out field ids.
pub(super) struct Ids {
    last: i32,
}

impl Ids {
    pub(super) fn after(last: i32) -> Self {
        Self { last }
    }

    pub(super) fn next(&mut self) -> i32 {
        self.last += 1;
        self.last
    }
}

/// Optional fields for all of these. As in Iceberg's own implementations a level's ids come before those beneath it.
pub(super) fn optional_fields(fields: &Fields, parent: &str, ids: &mut Ids) -> Result<Vec<NestedFieldRef>> {
    check_names(fields, parent)?;
    let level: Vec<i32> = fields.iter().map(|_| ids.next()).collect();
    fields.iter().zip(level).map(|(field, id)| optional_field(field, id, parent, ids)).collect()
}

/// One optional field with the id `id`; what is nested in it takes the next ones.
pub(super) fn optional_field(field: &Field, id: i32, parent: &str, ids: &mut Ids) -> Result<NestedFieldRef> {
    let r#type = field_type(field, &path(parent, field.name()), ids)?;
    let mut nested = NestedField::optional(id, field.name(), r#type);
    nested.doc = doc(field);
    Ok(Arc::new(nested))
}

/// What a column's field says of it: its comment at the source, else the name of its type there.
pub(super) fn doc(field: &Field) -> Option<String> {
    field.metadata().get(META_COMMENT).or_else(|| field.metadata().get(META_SOURCE_TYPE)).cloned()
}

fn field_type(field: &Field, at: &str, ids: &mut Ids) -> Result<Type> {
    Ok(match field.data_type() {
        DataType::Struct(fields) => Type::Struct(StructType::new(optional_fields(fields, at, ids)?)),
        DataType::List(element) => {
            let id = ids.next();
            let element = field_type(element, &path(at, "element"), ids)?;
            Type::List(ListType::new(Arc::new(NestedField::list_element(id, element, false))))
        }
        DataType::Map(entries, _) => {
            let (key, value) = map_entries(entries, at)?;
            let (key_id, value_id) = (ids.next(), ids.next());
            let key = field_type(key, &path(at, "key"), ids)?;
            let value = field_type(value, &path(at, "value"), ids)?;
            Type::Map(MapType::new(
                Arc::new(NestedField::map_key_element(key_id, key)),
                Arc::new(NestedField::map_value_element(value_id, value, false)),
            ))
        }
        _ => Type::Primitive(primitive(field).ok_or_else(|| unsupported(field, at))?),
    })
}

/// Key and value of a map's entries.
pub(super) fn map_entries<'a>(entries: &'a Field, at: &str) -> Result<(&'a Field, &'a Field)> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Ok((&fields[0], &fields[1])),
        other => Err(Error::data(format!("column {at:?}: the entries of a map must be pairs, not {other}"))),
    }
}

/// The Iceberg type of a field that is not nested; `None` where there is none.
pub(super) fn primitive(field: &Field) -> Option<PrimitiveType> {
    let microseconds = &TimeUnit::Microsecond;
    Some(match field.data_type() {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 => PrimitiveType::Int,
        DataType::Int64 => PrimitiveType::Long,
        DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Decimal128(precision, scale) => {
            let (precision, scale) = (u32::from(*precision), u32::try_from(*scale).ok()?);
            if !(1..=38).contains(&precision) || scale > precision {
                return None;
            }
            PrimitiveType::Decimal { precision, scale }
        }
        DataType::Date32 => PrimitiveType::Date,
        DataType::Time64(unit) if unit == microseconds => PrimitiveType::Time,
        DataType::Timestamp(unit, None) if unit == microseconds => PrimitiveType::Timestamp,
        DataType::Timestamp(unit, Some(zone)) if unit == microseconds && is_utc(zone) => PrimitiveType::Timestamptz,
        DataType::Utf8 | DataType::LargeUtf8 => PrimitiveType::String,
        DataType::Binary | DataType::LargeBinary => PrimitiveType::Binary,
        DataType::FixedSizeBinary(16) if is_uuid(field) => PrimitiveType::Uuid,
        DataType::FixedSizeBinary(width) => PrimitiveType::Fixed(u64::try_from(*width).ok()?),
        _ => return None,
    })
}

/// The error for a field that [`primitive`] has no type for.
pub(super) fn unsupported(field: &Field, at: &str) -> Error {
    Error::data(format!("column {at:?}: Iceberg has no type for {}; allowed are {ALLOWED}", field.data_type()))
}

/// Refuses empty names and names that differ only in case: readers that fold case could not tell them apart.
pub(super) fn check_names(fields: &Fields, parent: &str) -> Result<()> {
    let mut seen: HashMap<String, &str> = HashMap::with_capacity(fields.len());
    for field in fields {
        if field.name().is_empty() {
            return Err(Error::data(match parent {
                "" => "a column has an empty name".to_owned(),
                _ => format!("column {parent:?}: a field of it has an empty name"),
            }));
        }
        if let Some(first) = seen.insert(field.name().to_lowercase(), field.name()) {
            return Err(Error::data(format!(
                "columns {:?} and {:?} have the same name or differ only in case",
                path(parent, first),
                path(parent, field.name())
            )));
        }
    }
    Ok(())
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00")
}

/// Whether sixteen bytes are a UUID.
pub(crate) fn is_uuid(field: &Field) -> bool {
    field.metadata().get(EXTENSION_KEY).is_some_and(|name| name == UUID_EXTENSION)
}
