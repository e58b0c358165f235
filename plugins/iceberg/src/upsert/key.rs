//! Which columns tell the rows of a table apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use philotes_sdk::{ChangeBatch, Error, Result, StreamName};

use crate::overrides;
use crate::schema::type_name;

/// The key of a table: its identifier fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The fields' ids, in the order of the table's columns.
    pub(crate) ids: Vec<i32>,
    /// Their places among the table's columns.
    pub(crate) places: Vec<usize>,
}

impl Key {
    /// The identifier fields of a schema; `None` where it has none, or one that lies in a struct.
    pub(crate) fn of(schema: &Schema) -> Option<Self> {
        let identifiers: BTreeSet<i32> = schema.identifier_field_ids().collect();
        let fields = schema.as_struct().fields().iter().enumerate();
        let (places, ids): (Vec<usize>, Vec<i32>) =
            fields.filter(|(_, field)| identifiers.contains(&field.id)).map(|(place, field)| (place, field.id)).unzip();
        (!ids.is_empty() && ids.len() == identifiers.len()).then_some(Self { ids, places })
    }
}

/// The places of the key's columns in batches of a stream: as the source gives them, and `shaped` by the key `columns`.
///
/// # Errors
/// Config: there is no key, or a column of it is not there.
pub(crate) fn of_batch(stream: &StreamName, given: &ArrowSchema, shaped: &ArrowSchema) -> Result<Vec<usize>> {
    let names = ChangeBatch::key_columns(given)?;
    if names.is_empty() {
        return Err(Error::config(format!(
            "mode: stream {stream} has no key, by which upsert tells rows apart: give the table a primary key, let the source name \
             the columns that identify a row (its `key`), or leave the stream out by `route`; streams without a key can be \
             written in mode append"
        )));
    }
    let place = |name: &String| {
        shaped.fields().iter().position(|field| overrides::original(field) == name).ok_or_else(|| {
            Error::config(format!(
                "columns: stream {stream}: column {name:?} is dropped, and it is one of its key; allowed in mode upsert are the others"
            ))
        })
    };
    names.iter().map(place).collect()
}

/// The same schema, in which these fields identify rows: they are required.
///
/// # Errors
/// Config: a field of a type that identifies nothing.
pub(crate) fn identified(schema: &Schema, ids: &[i32]) -> Result<Schema> {
    let required = |field: &Arc<NestedField>| {
        if !ids.contains(&field.id) {
            return Ok(field.clone());
        }
        match &*field.field_type {
            Type::Primitive(PrimitiveType::Float | PrimitiveType::Double) => Err(unfit(field)),
            Type::Primitive(_) => Ok(Arc::new(NestedField { required: true, ..(**field).clone() })),
            _ => Err(unfit(field)),
        }
    };
    let fields = schema.as_struct().fields().iter().map(required).collect::<Result<Vec<_>>>()?;
    Schema::builder()
        .with_schema_id(schema.schema_id())
        .with_identifier_field_ids(ids.iter().copied())
        .with_fields(fields)
        .build()
        .map_err(|e| Error::config("the columns of the key make no valid Iceberg schema").with_source(e))
}

fn unfit(field: &NestedField) -> Error {
    Error::config(format!(
        "column {:?} of type {} cannot identify rows; allowed are columns of any type but float, double, list, struct and map, \
         which the source can name in its place",
        field.name,
        type_name(&field.field_type)
    ))
}
