//! The layout of tables that exist: how their partitioning and their sort order become those of the configuration.
//!
//! Data that is there stays as it is, in files that name the specification they were written with.

use std::fmt;

use iceberg::spec::{PartitionField as IcebergField, PartitionSpec, Schema, SortOrderRef, TableMetadata};
use iceberg::spec::{Transform, UnboundPartitionField, UnboundPartitionSpec};
use iceberg::{TableRequirement, TableUpdate};
use philotes_sdk::{Error, Result};
use uuid::Uuid;

use crate::catalog::CommitRequest;
use crate::create::Making;
use crate::partition::{self, PartitionField};
use crate::sort;

/// What is to become of a table's layout, in one request.
#[derive(Clone, Debug)]
pub(crate) struct Relayout {
    requirements: Vec<TableRequirement>,
    updates: Vec<TableUpdate>,
    pub(crate) differences: Vec<Difference>,
}

/// A part of the layout, as it is and as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) key: &'static str,
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.key == "sort_by" { "sorted" } else { "partitioned" };
        match &self.from[..] {
            [] => write!(f, "not {done}")?,
            from => write!(f, "{done} by {}", from.join(", "))?,
        }
        write!(f, "; {} says {}", self.key, self.to.join(", "))
    }
}

impl Relayout {
    pub(crate) fn request(&self) -> CommitRequest {
        CommitRequest {
            id: Uuid::new_v4(),
            requirements: self.requirements.clone(),
            updates: self.updates.clone(),
            planned_on: None,
        }
    }
}

/// Whether a schema has all columns that the configuration names. Those of a table that is yet to be altered may come with rows.
pub(crate) fn has_columns(making: &Making, schema: &Schema) -> bool {
    let partitions = making.partition_by.iter().map(|field| &field.column);
    partitions
        .chain(making.sort_by.iter().map(|field| &field.column))
        .all(|column| schema.field_by_name(column).is_some())
}

/// How a table's layout, with this current schema, differs from the configured one; `None` where it does not. What the
/// configuration does not say stays.
///
/// # Errors
/// Config: a field that the table's columns do not allow, or a partition field's name that has stood for something else.
pub(crate) fn difference(making: &Making, metadata: &TableMetadata, schema: &Schema) -> Result<Option<Relayout>> {
    let mut change = Relayout {
        requirements: vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        ],
        updates: Vec::new(),
        differences: Vec::new(),
    };
    if !making.partition_by.is_empty() {
        change.partitioning(&making.partition_by, metadata, schema)?;
    }
    if !making.sort_by.is_empty() {
        change.sorting(making, metadata, schema)?;
    }
    Ok((!change.updates.is_empty()).then_some(change))
}

impl Relayout {
    fn partitioning(
        &mut self,
        partition_by: &[PartitionField],
        metadata: &TableMetadata,
        schema: &Schema,
    ) -> Result<()> {
        // A name that was a column's stays taken, so that this says the same whatever becomes of the column; but for a partition field
        // that has it.
        let is_field =
            |name: &str| metadata.partition_specs_iter().any(|spec| spec.fields().iter().any(|f| f.name == name));
        let was_column = |name: &str| metadata.schemas_iter().any(|schema| schema.field_by_name(name).is_some());
        let is_column = |name: &str| schema.field_by_name(name).is_some() || (was_column(name) && !is_field(name));
        let partition_by = &partition::with_free_names(partition_by, is_column);
        let wanted = partition::bind(partition_by, schema)?;
        let current = metadata.default_partition_spec();
        if says(current, &wanted) {
            return Ok(());
        }
        if let Some(field) = current.fields().iter().find(|field| field.transform == Transform::Unknown) {
            return Err(Error::config(format!(
                "partition_by: the table's partition field {:?} has a transform that is not known here; allowed are identity, \
                 bucket, truncate, year, month, day, hour, void",
                field.name
            )));
        }
        // One that the table had before is taken up again.
        match metadata.partition_specs_iter().find(|spec| says(spec, &wanted)) {
            Some(spec) => self.updates.push(TableUpdate::SetDefaultSpec { spec_id: spec.spec_id() }),
            None => {
                let spec = numbered(&wanted, partition_by, metadata, schema)?;
                self.updates.push(TableUpdate::AddSpec { spec });
                self.updates.push(TableUpdate::SetDefaultSpec { spec_id: -1 });
            }
        }
        self.requirements.push(TableRequirement::LastAssignedPartitionIdMatch {
            last_assigned_partition_id: metadata.last_partition_id(),
        });
        self.requirements.push(TableRequirement::DefaultSpecIdMatch { default_spec_id: current.spec_id() });
        let to = partition_by.iter().map(ToString::to_string).collect();
        self.differences.push(Difference { key: "partition_by", from: printed(current, schema), to });
        Ok(())
    }

    fn sorting(&mut self, making: &Making, metadata: &TableMetadata, schema: &Schema) -> Result<()> {
        let wanted = sort::bind(&making.sort_by, schema)?;
        let current = metadata.default_sort_order();
        if current.fields == wanted.fields {
            return Ok(());
        }
        match metadata.sort_orders_iter().find(|order| order.fields == wanted.fields) {
            Some(order) => self.updates.push(TableUpdate::SetDefaultSortOrder { sort_order_id: order.order_id }),
            None => {
                let next = metadata.sort_orders_iter().map(|order| order.order_id).max().unwrap_or(0) + 1;
                self.updates.push(TableUpdate::AddSortOrder { sort_order: wanted.with_order_id(next) });
                self.updates.push(TableUpdate::SetDefaultSortOrder { sort_order_id: -1 });
            }
        }
        self.requirements.push(TableRequirement::DefaultSortOrderIdMatch { default_sort_order_id: current.order_id });
        let to = making.sort_by.iter().map(ToString::to_string).collect();
        self.differences.push(Difference { key: "sort_by", from: sort::printed(current, schema), to });
        Ok(())
    }
}

/// Refuses a schema with a column that is called as a partition field of the table: no catalog takes it, and no other specification
/// helps while the table has the one with that field.
///
/// # Errors
/// Config.
pub(crate) fn check_names(metadata: &TableMetadata, schema: &Schema) -> Result<()> {
    let default = metadata.default_partition_spec();
    let was_column = |name: &str| metadata.schemas_iter().any(|schema| schema.field_by_name(name).is_some());
    for spec in metadata.partition_specs_iter() {
        for field in spec.fields() {
            let Some(column) = schema.field_by_name(&field.name) else { continue };
            let is_itself = field.transform == Transform::Identity && column.id == field.source_id;
            let allowed = if spec.spec_id() == default.spec_id() { is_itself } else { was_column(&field.name) };
            if allowed || (is_itself && was_column(&field.name)) {
                continue;
            }
            return Err(Error::config(format!(
                "column {name:?} cannot be added: the table's partition field {} is called so, and a table cannot have both. Let the \
                 column have another name in the table, as in `columns: {{STREAM: {{{name}: {{name: {name}_}}}}}}`, or be left out, with \
                 `drop: true`; or let the connector begin a new table, where the partition field gets another name",
                one(field, schema),
                name = field.name,
            )));
        }
    }
    Ok(())
}

/// The table's order that files are sorted by: the configured one, where the table has it.
pub(crate) fn order_of(making: &Making, metadata: &TableMetadata) -> Option<SortOrderRef> {
    if making.sort_by.is_empty() {
        return None;
    }
    let wanted = sort::bind(&making.sort_by, metadata.current_schema()).ok()?;
    metadata.sort_orders_iter().find(|order| order.fields == wanted.fields).cloned()
}

/// Whether a specification says the same.
fn says(spec: &PartitionSpec, wanted: &UnboundPartitionSpec) -> bool {
    let same = |(one, other): (&IcebergField, &UnboundPartitionField)| {
        (one.source_id, one.transform, &one.name) == (other.source_id, other.transform, &other.name)
    };
    spec.fields().len() == wanted.fields().len() && spec.fields().iter().zip(wanted.fields()).all(same)
}

/// The specification with ids: a field that the table has had before goes on under the id it had, as in Java; others get the
/// next ones.
fn numbered(
    wanted: &UnboundPartitionSpec,
    partition_by: &[PartitionField],
    metadata: &TableMetadata,
    schema: &Schema,
) -> Result<UnboundPartitionSpec> {
    let mut earlier: Vec<&IcebergField> = metadata.partition_specs_iter().flat_map(|spec| spec.fields()).collect();
    earlier.sort_by_key(|field| field.field_id);
    let mut last = metadata.last_partition_id();
    let mut fields = Vec::with_capacity(wanted.fields().len());
    for (field, entry) in wanted.fields().iter().zip(partition_by) {
        let alike = || earlier.iter().filter(|e| (e.source_id, e.transform) == (field.source_id, field.transform));
        let had = alike().find(|e| e.name == field.name).or_else(|| alike().next());
        let field_id = had.map_or_else(
            || {
                last += 1;
                last
            },
            |had| had.field_id,
        );
        if let Some(other) = earlier.iter().find(|e| e.name == field.name && e.field_id != field_id) {
            return Err(Error::config(format!(
                "partition_by: {:?}: the table's partition field {:?} has stood for {} before, and readers that look at all \
                 partitions could not tell them apart; allowed is any other name, with \"as name\"",
                entry.to_string(),
                field.name,
                one(other, schema)
            )));
        }
        fields.push(UnboundPartitionField { field_id: Some(field_id), ..field.clone() });
    }
    let next = metadata.partition_specs_iter().map(|spec| spec.spec_id()).max().unwrap_or(0) + 1;
    let refused = |e| Error::config("partition_by").with_source(e);
    let spec =
        UnboundPartitionSpec::builder().with_spec_id(next).add_partition_fields(fields).map_err(refused)?.build();
    Ok(spec)
}

/// Partition fields as the configuration writes them.
pub(crate) fn printed(spec: &PartitionSpec, schema: &Schema) -> Vec<String> {
    spec.fields().iter().map(|field| one(field, schema)).collect()
}

fn one(field: &IcebergField, schema: &Schema) -> String {
    let column = schema.name_by_field_id(field.source_id).unwrap_or("?").to_owned();
    PartitionField { transform: field.transform, column, name: field.name.clone() }.to_string()
}
