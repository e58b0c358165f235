//! Schemas: what an Arrow schema becomes in an Iceberg table, and how a batch is fitted to the table it goes to.
//!
//! The type map, the names that a table cannot have, schema evolution and the projection of batches live here. It
//! knows no catalog and commits nothing: [`evolve`] only says what the schema should become.

mod change;
mod evolve;
mod map;
mod matching;
mod numbers;
mod projection;

use std::collections::BTreeSet;

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::TableUpdate;
use iceberg::spec::{Schema, TableMetadata, Type};
use philotes_sdk::{Error, Result};

pub(crate) use change::{Change, What};
pub(crate) use evolve::{Fitted, Policy, Wish, evolve, lies_within};
pub(crate) use map::{EXTENSION_KEY, UUID_EXTENSION, is_uuid};
pub(crate) use numbers::{Numbers, property as numbers_property};
pub(crate) use projection::Projection;

/// Names of Iceberg's own metadata columns, which no column of a table may have.
const RESERVED: [&str; 10] = [
    "_file",
    "_pos",
    "_deleted",
    "_spec_id",
    "_partition",
    "_row_id",
    "_last_updated_sequence_number",
    "_change_type",
    "_change_ordinal",
    "_commit_snapshot_id",
];

/// The schema of a new table for batches of this schema. Every column is optional: a TRUNCATE row carries no values and
/// a DELETE may carry only its key. Field ids count from 1 and are provisional, because a catalog assigns its own.
///
/// # Errors
/// Data: a type without a counterpart, a name that Iceberg reserves, two names that differ only in case.
pub(crate) fn table_schema(arrow: &ArrowSchema) -> Result<Schema> {
    let mut ids = map::Ids::after(0);
    check_columns(arrow)?;
    let fields = map::optional_fields(arrow.fields(), "", &mut ids)?;
    build(Schema::builder().with_fields(fields))
}

/// A type as operators and SQL engines write it: `list<string>`, `struct<a: int>`.
pub(crate) fn type_name(r#type: &Type) -> String {
    match r#type {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::List(list) => format!("list<{}>", type_name(&list.element_field.field_type)),
        Type::Map(map) => {
            format!("map<{}, {}>", type_name(&map.key_field.field_type), type_name(&map.value_field.field_type))
        }
        Type::Struct(fields) => {
            let fields: Vec<_> =
                fields.fields().iter().map(|f| format!("{}: {}", f.name, type_name(&f.field_type))).collect();
            format!("struct<{}>", fields.join(", "))
        }
    }
}

/// What gives a table this schema.
pub(crate) fn change_to(metadata: &TableMetadata, schema: Schema) -> Vec<TableUpdate> {
    // A schema that the table has had is not added again: catalogs take that for no addition, and know of no last one then.
    match metadata.schemas_iter().find(|had| same(had, &schema)) {
        Some(had) => vec![TableUpdate::SetCurrentSchema { schema_id: had.schema_id() }],
        None => vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }],
    }
}

/// Whether schemas differ in nothing but their ids.
fn same(one: &Schema, other: &Schema) -> bool {
    let identifiers = |schema: &Schema| schema.identifier_field_ids().collect::<BTreeSet<_>>();
    one.as_struct() == other.as_struct() && identifiers(one) == identifiers(other)
}

fn build(builder: iceberg::spec::SchemaBuilder) -> Result<Schema> {
    builder.build().map_err(|e| Error::data("the columns make no valid Iceberg schema").with_source(e))
}

/// Whether no column of a table may have this name.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// Refuses what no top level of a table can hold. Structs are checked by the type map as it descends.
fn check_columns(arrow: &ArrowSchema) -> Result<()> {
    for field in arrow.fields() {
        if is_reserved(field.name()) {
            return Err(Error::data(format!(
                "column {:?}: the name is reserved by Iceberg; reserved are {}. The sink's key `columns` gives it another: \
                 columns: {{<stream>: {{{}: {{name: …}}}}}}",
                field.name(),
                RESERVED.join(", "),
                field.name()
            )));
        }
    }
    map::check_names(arrow.fields(), "")
}

/// `parent.name`, as Iceberg writes the name of a nested field.
fn path(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// Where a column of this name stands among `names`: exactly, or else ignoring case where only one matches.
///
/// # Errors
/// Data: none is spelled so, and several differ from it only in case.
fn position<'a>(names: impl Iterator<Item = &'a str> + Clone, name: &str, parent: &str) -> Result<Option<usize>> {
    if let Some(exact) = names.clone().position(|candidate| candidate == name) {
        return Ok(Some(exact));
    }
    let lower = name.to_lowercase();
    let mut alike = names.enumerate().filter(|(_, candidate)| candidate.to_lowercase() == lower);
    match (alike.next(), alike.next()) {
        (None, _) => Ok(None),
        (Some((index, _)), None) => Ok(Some(index)),
        (Some((_, first)), Some((_, second))) => Err(Error::data(format!(
            "column {:?} could be {first:?} or {second:?} of the table, which differ only in case",
            path(parent, name)
        ))),
    }
}

#[cfg(test)]
mod tests;
