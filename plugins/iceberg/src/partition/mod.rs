//! Partitioning: `partition_by` read and bound to a table's columns, rows split by their partition, partitions as paths.
//!
//! A specification that cannot be followed is a Config error before anything is written, never an unpartitioned table.
//! What a table's partitioning *is* comes from the table; `layout.rs` changes it.

mod key;
mod parse;
mod path;
mod split;
mod transform;

use std::collections::HashMap;
use std::fmt;

use iceberg::spec::{PrimitiveType, Schema, Transform, Type, UnboundPartitionField, UnboundPartitionSpec};
use philotes_sdk::{Error, Result};

use crate::schema::type_name;

pub(crate) use key::PartitionKey;
pub(crate) use parse::{Parser, parse, quoted};
pub(crate) use path::partition_path;
pub(crate) use split::{Partitioner, place_of};

/// One entry of `partition_by`. Printed as it is parsed: `day(_cdc_timestamp) as date`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionField {
    pub(crate) transform: Transform,
    /// The column, nested ones with dots.
    pub(crate) column: String,
    /// The partition field's name in the table and in paths.
    pub(crate) name: String,
}

impl PartitionField {
    /// The name that Iceberg's Java implementation gives where none is told.
    fn default_name(transform: Transform, column: &str) -> String {
        let suffix = match transform {
            Transform::Identity | Transform::Unknown => return column.to_owned(),
            Transform::Bucket(_) => "bucket",
            Transform::Truncate(_) => "trunc",
            Transform::Year => "year",
            Transform::Month => "month",
            Transform::Day => "day",
            Transform::Hour => "hour",
            Transform::Void => "null",
        };
        format!("{column}_{suffix}")
    }
}

impl fmt::Display for PartitionField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = quoted(&self.column);
        match self.transform {
            Transform::Identity => write!(f, "{column}")?,
            Transform::Bucket(count) => write!(f, "bucket({count}, {column})")?,
            Transform::Truncate(width) => write!(f, "truncate({width}, {column})")?,
            other => write!(f, "{other}({column})")?,
        }
        if self.name != Self::default_name(self.transform, &self.column) {
            write!(f, " as {}", quoted(&self.name))?;
        }
        Ok(())
    }
}

/// The fields of `partition_by` under names that no column has: Iceberg lets a partition field be called as a column only where it is
/// that column itself. One whose name is taken gets the name that Java gives where none is told, with a number if need be.
pub(crate) fn with_free_names(fields: &[PartitionField], is_column: impl Fn(&str) -> bool) -> Vec<PartitionField> {
    let is_itself = |field: &PartitionField| field.transform == Transform::Identity && field.name == field.column;
    let mut named: Vec<PartitionField> = Vec::with_capacity(fields.len());
    for field in fields {
        let mut field = field.clone();
        if !is_itself(&field) && is_column(&field.name) {
            let base = PartitionField::default_name(field.transform, &field.column);
            let others: Vec<&str> = fields.iter().chain(&named).map(|other| other.name.as_str()).collect();
            let numbered = (2..).map(|number| format!("{base}_{number}"));
            let free = |name: &String| {
                let itself = field.transform == Transform::Identity && *name == field.column;
                (itself || !is_column(name)) && !others.contains(&name.as_str())
            };
            field.name = std::iter::once(base.clone()).chain(numbered).find(free).unwrap_or(base.clone());
        }
        named.push(field);
    }
    named
}

/// The fields of `partition_by` as a specification over this schema's columns.
///
/// # Errors
/// Config: a column that the schema lacks or that lies in a list or map, a transform that does not apply to the
/// column's type, a name that is already a column's, two fields that say the same.
pub(crate) fn bind(fields: &[PartitionField], schema: &Schema) -> Result<UnboundPartitionSpec> {
    let mut bound = Vec::with_capacity(fields.len());
    for field in fields {
        let source = schema.field_by_name(&field.column).ok_or_else(|| {
            let columns: Vec<&str> = schema.as_struct().fields().iter().map(|f| f.name.as_str()).collect();
            Error::config(format!(
                "partition_by: {:?}: no column {:?}; the columns are {}",
                field.to_string(),
                field.column,
                columns.join(", ")
            ))
        })?;
        check_type(field, &source.field_type)?;
        if schema.accessor_by_field_id(source.id).is_none() {
            return Err(Error::config(format!(
                "partition_by: {:?}: column {:?} lies in a list or a map, which has many values per row",
                field.to_string(),
                field.column
            )));
        }
        bound.push(UnboundPartitionField {
            source_id: source.id,
            field_id: None,
            name: field.name.clone(),
            transform: field.transform,
        });
    }
    let sources = bound.iter().map(|field| (field.transform, field.source_id));
    if let Some((one, other)) = alike_bytes(sources, schema) {
        return Err(Error::config(format!(
            "partition_by: {:?} and {:?} are both bytes of one length (a uuid has 16), of which a manifest can hold only one; \
             allowed is bucket(N, column) for the other",
            fields[one].to_string(),
            fields[other].to_string()
        )));
    }
    let refused = |e| Error::config("partition_by").with_source(e);
    let spec = UnboundPartitionSpec::builder().add_partition_fields(bound).map_err(refused)?.build();
    // Only against the schema does the crate see a name that is already a column's.
    spec.clone().bind(schema.clone()).map_err(refused)?;
    Ok(spec)
}

/// Two partition fields whose values are UUIDs or fixed bytes of one length: the crate's manifests define such a type once for each
/// field, under one name.
pub(crate) fn alike_bytes(fields: impl Iterator<Item = (Transform, i32)>, schema: &Schema) -> Option<(usize, usize)> {
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for (index, (transform, source)) in fields.enumerate() {
        let column = schema.field_by_id(source).map(|column| &*column.field_type);
        let length = match column.and_then(|column| transform.result_type(column).ok()) {
            Some(Type::Primitive(PrimitiveType::Uuid)) => 16,
            Some(Type::Primitive(PrimitiveType::Fixed(length))) => length,
            _ => continue,
        };
        if let Some(other) = seen.insert(length, index) {
            return Some((other, index));
        }
    }
    None
}

fn check_type(field: &PartitionField, column: &Type) -> Result<()> {
    let applies = column.is_primitive() && field.transform.result_type(column).is_ok();
    if applies {
        return Ok(());
    }
    let allowed = match field.transform {
        Transform::Year | Transform::Month | Transform::Day => "date, timestamp, timestamptz",
        Transform::Hour => "timestamp, timestamptz",
        Transform::Truncate(_) => "int, long, decimal, string, binary",
        Transform::Bucket(_) => "int, long, decimal, date, time, timestamp, timestamptz, string, uuid, fixed, binary",
        _ => "every type but list, map and struct",
    };
    Err(Error::config(format!(
        "partition_by: {:?}: {} does not apply to column {:?} of type {}; allowed are {allowed}",
        field.to_string(),
        field.transform,
        field.column,
        type_name(column)
    )))
}

#[cfg(test)]
mod extremes;
#[cfg(test)]
mod tests;
