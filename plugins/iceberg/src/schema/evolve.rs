//! Schema evolution: what a table's schema must become before a batch fits, within what Iceberg's readers can follow.
//!
//! Columns that the batch lacks stay; a column never becomes narrower. An incompatible type is refused here, because
//! neither the iceberg crate nor the catalogs check promotions and a wrong one makes the table unreadable.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema};
use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type};
use philotes_sdk::{Error, Result};

use super::map::{self, Ids};
use super::{check_columns, path, position, type_name};

/// One change of a table's schema, for the log. Printed: `add note: string`, `id: int to long`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The column, nested ones with dots.
    pub(crate) column: String,
    /// Its type until now; `None` where the column is new.
    pub(crate) from: Option<Type>,
    /// Its type from now on.
    pub(crate) to: Type,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            None => write!(f, "add {}: {}", self.column, type_name(&self.to)),
            Some(from) => write!(f, "{}: {} to {}", self.column, type_name(from), type_name(&self.to)),
        }
    }
}

/// The schema that `table` must become so that batches of the schema `arrow` fit; `None` where they fit already. New
/// columns are optional and take ids above `last_column_id`, which is the table's own and not the schema's highest:
/// an id once used never returns. The schema id stays; the catalog assigns the next one.
///
/// # Errors
/// Data: a column whose type neither fits nor widens the table's, or that no table can hold.
pub(crate) fn evolve(
    table: &Schema,
    arrow: &ArrowSchema,
    last_column_id: i32,
) -> Result<Option<(Schema, Vec<Change>)>> {
    check_columns(arrow)?;
    let mut evolution = Evolution { ids: Ids::after(last_column_id), changes: Vec::new() };
    let fields = evolution.fields(table.as_struct().fields(), arrow.fields(), "")?;
    if evolution.changes.is_empty() {
        return Ok(None);
    }
    let builder = Schema::builder()
        .with_schema_id(table.schema_id())
        .with_identifier_field_ids(table.identifier_field_ids())
        .with_fields(fields);
    Ok(Some((super::build(builder)?, evolution.changes)))
}

struct Evolution {
    ids: Ids,
    changes: Vec<Change>,
}

impl Evolution {
    fn fields(&mut self, table: &[NestedFieldRef], incoming: &Fields, parent: &str) -> Result<Vec<NestedFieldRef>> {
        map::check_names(incoming, parent)?;
        let mut fields = table.to_vec();
        for field in incoming {
            match position(table.iter().map(|f| f.name.as_str()), field.name(), parent)? {
                Some(index) => {
                    let old = &table[index];
                    fields[index] = self.field(old, field, &path(parent, &old.name))?;
                }
                None => {
                    let id = self.ids.next();
                    let added = map::optional_field(field, id, parent, &mut self.ids)?;
                    self.changes.push(Change {
                        column: path(parent, field.name()),
                        from: None,
                        to: (*added.field_type).clone(),
                    });
                    fields.push(added);
                }
            }
        }
        Ok(fields)
    }

    fn field(&mut self, old: &NestedFieldRef, incoming: &Field, at: &str) -> Result<NestedFieldRef> {
        let before = self.changes.len();
        let r#type = self.merge(&old.field_type, incoming, at)?;
        if self.changes.len() == before {
            return Ok(old.clone());
        }
        Ok(Arc::new(NestedField { field_type: Box::new(r#type), ..(**old).clone() }))
    }

    fn merge(&mut self, table: &Type, incoming: &Field, at: &str) -> Result<Type> {
        match (table, incoming.data_type()) {
            (Type::Struct(old), DataType::Struct(new)) => {
                Ok(Type::Struct(StructType::new(self.fields(old.fields(), new, at)?)))
            }
            (Type::List(old), DataType::List(element)) => {
                let element = self.field(&old.element_field, element, &path(at, "element"))?;
                Ok(Type::List(ListType::new(element)))
            }
            (Type::Map(old), DataType::Map(entries, _)) => {
                let (key, value) = map::map_entries(entries, at)?;
                let before = self.changes.len();
                let key_field = self.field(&old.key_field, key, &path(at, "key"))?;
                // Iceberg forbids every change of a map's key.
                if self.changes.len() > before {
                    return Err(incompatible(&old.key_field.field_type, key, &path(at, "key")));
                }
                let value_field = self.field(&old.value_field, value, &path(at, "value"))?;
                Ok(Type::Map(MapType::new(key_field, value_field)))
            }
            (Type::Primitive(old), _) => {
                if incoming.data_type().is_nested() {
                    return Err(incompatible(table, incoming, at));
                }
                let new = map::primitive(incoming).ok_or_else(|| map::unsupported(incoming, at))?;
                match fit(old, &new) {
                    Fit::Fits => Ok(table.clone()),
                    Fit::Widens => {
                        let to = Type::Primitive(new);
                        self.changes.push(Change { column: at.to_owned(), from: Some(table.clone()), to: to.clone() });
                        Ok(to)
                    }
                    Fit::Never => Err(incompatible(table, incoming, at)),
                }
            }
            _ => Err(incompatible(table, incoming, at)),
        }
    }
}

enum Fit {
    /// Every value of the incoming type is one of the table's type.
    Fits,
    /// The table's type can be promoted to the incoming one.
    Widens,
    Never,
}

/// How an incoming type stands to the table's, by the promotions of the Iceberg specification (version 2).
fn fit(table: &PrimitiveType, incoming: &PrimitiveType) -> Fit {
    use PrimitiveType::{Decimal, Double, Float, Int, Long};
    match (table, incoming) {
        (table, incoming) if table == incoming => Fit::Fits,
        (Long, Int) | (Double, Float) => Fit::Fits,
        (Int, Long) | (Float, Double) => Fit::Widens,
        (Decimal { precision, scale }, Decimal { precision: new_precision, scale: new_scale }) => {
            if new_scale <= scale && new_precision - new_scale <= precision - scale {
                Fit::Fits
            } else if new_scale == scale {
                Fit::Widens
            } else {
                Fit::Never
            }
        }
        _ => Fit::Never,
    }
}

/// The error for a column whose type cannot become what the batch brings.
pub(super) fn incompatible(table: &Type, incoming: &Field, at: &str) -> Error {
    let incoming_type = match map::primitive(incoming) {
        Some(primitive) => primitive.to_string(),
        None => incoming.data_type().to_string(),
    };
    Error::data(format!(
        "column {at:?}: the table has {}, the batch {incoming_type}; allowed are the same type, int to long, float to \
         double, and a decimal of the same scale and higher precision",
        type_name(table)
    ))
}

/// Whether values of this field can be written to a column of the table's type without a change of the table.
pub(super) fn fits(table: &PrimitiveType, incoming: &Field) -> bool {
    map::primitive(incoming).is_some_and(|new| matches!(fit(table, &new), Fit::Fits))
}
