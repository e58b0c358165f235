//! What the sink would do for a stream: `philotes plan`. Reads the catalog where there is one; writes nothing.

use std::collections::HashMap;

use arrow::datatypes::{Field, Schema as ArrowSchema};
use iceberg::spec::{PartitionSpec, Schema};
use philotes_sdk::batch::{META_INFERRED, META_SOURCE_TYPE};
use philotes_sdk::{Error, Plan, PlannedColumn, Result, StreamPartition, TaskContext};

use crate::catalog;
use crate::config::Config;
use crate::partition::{self, PartitionField};
use crate::schema;
use crate::table;
use crate::template::Template;
use crate::token;

/// The plan for a stream of this schema.
pub(crate) async fn plan(
    config: &Config,
    context: &TaskContext,
    at: &StreamPartition,
    arrow: &ArrowSchema,
) -> Result<Plan> {
    let template = Template::parse(&config.table).map_err(|e| Error::config(format!("table: {e}")))?;
    let name = template.table(&at.stream)?;
    let partition_by = partition::parse(&config.partition_by)?;
    let existing = match catalog::open_existing(config).await? {
        None => None,
        Some(catalog) if catalog.table_exists(&name).await? => Some(catalog.load_table(&name).await?.metadata),
        Some(_) => None,
    };
    let Some(metadata) = existing else {
        let (designed, spec) = table::design(&partition_by, arrow)?;
        let spec = spec.bind(designed.clone()).map_err(|e| Error::config("partition_by").with_source(e))?;
        return Ok(Plan {
            table: name.to_string(),
            change: "create".into(),
            columns: columns(&designed, arrow, &HashMap::new()),
            partition_by: printed(&spec, &designed),
            notes: Vec::new(),
        });
    };

    table::check_format(&name, &metadata)?;
    let current = metadata.current_schema();
    let evolved = schema::evolve(current, arrow, metadata.last_column_id())?;
    let changes: HashMap<String, String> = evolved
        .iter()
        .flat_map(|(_, changes)| changes)
        .map(|change| {
            let text = match &change.from {
                None => "add".to_owned(),
                Some(from) => format!("{} to {}", schema::type_name(from), schema::type_name(&change.to)),
            };
            (change.column.clone(), text)
        })
        .collect();
    let after = evolved.as_ref().map_or(&**current, |(schema, _)| schema);
    let mut notes = Vec::new();
    if let Some(token) = token::read(&metadata, &context.info().connector, at)? {
        notes.push(format!("the table holds rows of {at} up to offset {}", token.offset.as_str()));
        if let Err(reason) = crate::lineage::check(&metadata, &token) {
            notes.push(format!("the connector would refuse to go on: {reason}"));
        }
    }
    let spec = metadata.default_partition_spec();
    if let Some(note) = partition_note(&partition_by, spec, after) {
        notes.push(note);
    }
    Ok(Plan {
        table: name.to_string(),
        change: if evolved.is_some() { "alter" } else { "none" }.into(),
        columns: columns(after, arrow, &changes),
        partition_by: printed(spec, after),
        notes,
    })
}

/// Says so where an existing table is not partitioned as configured: it stays as it is.
pub(crate) fn partition_note(partition_by: &[PartitionField], spec: &PartitionSpec, schema: &Schema) -> Option<String> {
    if partition_by.is_empty() {
        return None;
    }
    let wanted = partition::bind(partition_by, schema).ok().and_then(|wanted| wanted.bind(schema.clone()).ok());
    if wanted.is_some_and(|wanted| wanted.is_compatible_with(spec)) {
        return None;
    }
    let found = printed(spec, schema);
    let found =
        if found.is_empty() { "not partitioned".into() } else { format!("partitioned by {}", found.join(", ")) };
    Some(format!("the table exists and is {found}, which differs from partition_by; it stays as it is"))
}

/// Partition fields as the configuration writes them.
fn printed(spec: &PartitionSpec, schema: &Schema) -> Vec<String> {
    spec.fields()
        .iter()
        .map(|field| PartitionField {
            transform: field.transform,
            column: schema.name_by_field_id(field.source_id).unwrap_or("?").to_owned(),
            name: field.name.clone(),
        })
        .map(|field| field.to_string())
        .collect()
}

fn columns(schema: &Schema, arrow: &ArrowSchema, changes: &HashMap<String, String>) -> Vec<PlannedColumn> {
    let incoming: HashMap<String, &Field> =
        arrow.fields().iter().map(|field| (field.name().to_lowercase(), field.as_ref())).collect();
    schema
        .as_struct()
        .fields()
        .iter()
        .map(|field| {
            let source = incoming.get(&field.name.to_lowercase());
            let metadata = |key: &str| source.and_then(|source| source.metadata().get(key));
            let nested = format!("{}.", field.name);
            let change = changes.iter().filter(|(column, _)| **column == field.name || column.starts_with(&nested));
            PlannedColumn {
                name: field.name.clone(),
                source_type: metadata(META_SOURCE_TYPE).cloned().unwrap_or_default(),
                target_type: schema::type_name(&field.field_type),
                required: field.required,
                inferred: metadata(META_INFERRED).is_some_and(|value| value == "true"),
                change: change.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(", "),
            }
        })
        .collect()
}
