//! What the sink would do for a stream: `philotes plan`. Reads the catalog where there is one; writes nothing.

use std::collections::HashMap;

use arrow::datatypes::{Field, Schema as ArrowSchema};
use iceberg::spec::{FormatVersion, Schema};
use philotes_sdk::batch::{META_INFERRED, META_SOURCE_TYPE};
use philotes_sdk::{Error, Plan, PlannedColumn, Result, StreamPartition, TaskContext};

use crate::catalog;
use crate::config::Config;
use crate::create::Design;
use crate::layout;
use crate::schema;
use crate::sort;
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
    let making = config.making()?;
    let existing = match catalog::open_existing(config).await? {
        None => None,
        Some(catalog) if catalog.table_exists(&name).await? => Some(catalog.load_table(&name).await?.metadata),
        Some(_) => None,
    };
    let Some(metadata) = existing else {
        let Design { schema: designed, partition_spec, sort_order } = making.design(arrow)?;
        let spec = partition_spec.bind(designed.clone()).map_err(|e| Error::config("partition_by").with_source(e))?;
        let mut notes = Vec::new();
        if making.format_version >= FormatVersion::V3 {
            notes.push(format!("the table is made in format version {}", making.format_version as u8));
        }
        if !sort_order.is_unsorted() {
            notes.push(format!("the rows of each file are sorted by {}", sort::printed(&sort_order, &designed).join(", ")));
        }
        return Ok(Plan {
            table: name.to_string(),
            change: "create".into(),
            columns: columns(&designed, arrow, &HashMap::new()),
            partition_by: layout::printed(&spec, &designed),
            notes,
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
    let mut partition_by = layout::printed(metadata.default_partition_spec(), after);
    let relayout = layout::difference(&making, &metadata, after)?;
    for difference in relayout.iter().flat_map(|change| &change.differences) {
        notes.push(format!("the table is {difference}, which new data follows; what is there stays as it is"));
        if difference.key == "partition_by" {
            partition_by.clone_from(&difference.to);
        }
    }
    Ok(Plan {
        table: name.to_string(),
        change: if evolved.is_some() || relayout.is_some() { "alter" } else { "none" }.into(),
        columns: columns(after, arrow, &changes),
        partition_by,
        notes,
    })
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
