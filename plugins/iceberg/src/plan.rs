//! What the sink would do for a stream: `philotes plan`. Reads the catalog where there is one; writes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};
use iceberg::spec::{FormatVersion, Schema};
use philotes_sdk::batch::{META_INFERRED, META_SOURCE_TYPE};
use philotes_sdk::{Error, Plan, PlannedColumn, Result, StreamPartition, TaskContext};

use crate::base::Base;
use crate::catalog;
use crate::config::Config;
use crate::create::Design;
use crate::layout;
use crate::overrides::{Columns, Conversion};
use crate::schema::{self, Change, Numbers, Policy, Wish};
use crate::sort;
use crate::table;
use crate::template::Template;
use crate::token;
use crate::upsert;

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
        Some(catalog) if catalog.table_exists(&name).await? => Some(Base::new(catalog.load_table(&name).await?)),
        Some(_) => None,
    };
    let overrides = config.overrides().map_err(Error::config)?;
    let rules = config.rules().map_err(Error::config)?;
    let (given, mut kept) = (arrow, arrow.clone());
    if rules.is_some() {
        kept = upsert::schema_without_unchanged(given);
    }
    let (arrow, mut notes) = overridden(overrides.of(&at.stream), &kept)?;
    let mut arrow = arrow.as_ref().clone();
    let key = match &rules {
        None => None,
        Some(rules) => {
            let key = upsert::of_batch(&at.stream, given, &arrow)?;
            let names: Vec<&str> = key.iter().map(|place| arrow.field(*place).name().as_str()).collect();
            notes.push(format!("mode upsert: one row per {}", names.join(", ")));
            if rules.soft {
                arrow = upsert::with_deleted(&arrow);
            }
            Some(key)
        }
    };
    let arrow = &arrow;
    let Some(mut existing) = existing else {
        let Design { schema: designed, partition_spec, sort_order, renamed } = making.design(arrow, key.as_deref())?;
        notes.extend(renamed);
        let spec = partition_spec.bind(designed.clone()).map_err(|e| Error::config("partition_by").with_source(e))?;
        if making.format_version >= FormatVersion::V3 {
            notes.push(format!("the table is made in format version {}", making.format_version as u8));
        }
        if !sort_order.is_unsorted() {
            notes.push(format!(
                "the rows of each file are sorted by {}",
                sort::printed(&sort_order, &designed).join(", ")
            ));
        }
        return Ok(Plan {
            table: name.to_string(),
            change: "create".into(),
            columns: columns(None, &designed, arrow, None),
            partition_by: layout::printed(&spec, &designed),
            notes,
        });
    };

    let metadata = existing.metadata.clone();
    table::check_format(&name, &metadata)?;
    upsert::check_mode(&name, &metadata, rules.as_ref())?;
    let connector = &context.info().connector;
    let known = Numbers::read(&metadata, connector, &at.stream)?.filter(|known| known.speak_of(arrow));
    let wish = Wish {
        arrow,
        policy: config.policy(),
        late: false,
        known: known.as_ref(),
        // Which rows have NULL where the table requires a value is not known before they come.
        nulls: &BTreeSet::new(),
        fixed: &table::fixed_fields(&metadata),
        last_column_id: metadata.last_column_id(),
    };
    let fitted = schema::evolve(metadata.current_schema(), &wish)?;
    if let Some(token) = token::read(&metadata, connector, at)? {
        notes.push(format!("the table holds rows of {at} up to offset {}", token.offset.as_str()));
        if let Err(reason) = crate::lineage::check(&metadata, &token) {
            notes.push(format!("the connector would refuse to go on: {reason}"));
        }
    }
    if let Some(key) = &key {
        let ids: Vec<i32> = key.iter().map(|place| fitted.fields[*place]).collect();
        match upsert::adoption(&name, &at.stream, &mut existing, &ids).await {
            Ok(None) => {}
            Ok(Some(_)) => notes.push("the table is made one of mode upsert".to_owned()),
            Err(error) => notes.push(format!("the connector would refuse rows: {error}")),
        }
    }
    // The others stand beside their columns.
    notes.extend(fitted.changes.iter().filter(|change| change.beside().is_none()).map(ToString::to_string));
    notes.extend(fitted.notes);
    let after = fitted.schema.as_ref().unwrap_or(metadata.current_schema());
    if fitted.schema.is_some()
        && let Err(error) = layout::check_names(&metadata, after)
    {
        notes.push(format!("the connector would refuse rows: {}", error.message()));
    }
    let mut partition_by = layout::printed(metadata.default_partition_spec(), after);
    let relayout = layout::difference(&making, &metadata, after)?;
    let follows = config.policy() != Policy::None;
    for difference in relayout.iter().flat_map(|change| &change.differences) {
        if !follows {
            notes.push(format!("the table is {difference}, and stays as it is: `evolve: none`"));
            continue;
        }
        notes.push(format!("the table is {difference}, which new data follows; what is there stays as it is"));
        if difference.key == "partition_by" {
            partition_by.clone_from(&difference.to);
        }
    }
    let alters = !fitted.changes.is_empty() || (follows && relayout.is_some());
    Ok(Plan {
        table: name.to_string(),
        change: if alters { "alter" } else { "none" }.into(),
        columns: columns(Some(metadata.current_schema()), after, arrow, Some((&fitted.fields, &fitted.changes))),
        partition_by,
        notes,
    })
}

/// The schema as the connector's `columns` have it, and what they say.
fn overridden(columns: Option<&Columns>, arrow: &ArrowSchema) -> Result<(SchemaRef, Vec<String>)> {
    let Some(columns) = columns else { return Ok((Arc::new(arrow.clone()), Vec::new())) };
    let mut notes = columns.notes();
    notes.extend(columns.unknown(arrow).iter().map(|column| format!("columns: the stream has no column {column}")));
    let (shaped, _) = columns.shape_schema(arrow)?;
    let conversion = Conversion::new(Some(columns), &Arc::new(shaped))?;
    Ok((conversion.schema().clone(), notes))
}

/// The table's columns, `before` and after: `fitted` says of each of the batch's which of them it is, and what changes. In a new
/// table they are the same by position.
fn columns(
    before: Option<&Schema>,
    schema: &Schema,
    arrow: &ArrowSchema,
    fitted: Option<(&[i32], &[Change])>,
) -> Vec<PlannedColumn> {
    let changes = fitted.map_or(&[][..], |(_, changes)| changes);
    let source_of = |index: usize, id: i32| match fitted {
        None => arrow.fields().get(index),
        Some((fields, _)) => fields.iter().position(|field| *field == id).and_then(|index| arrow.fields().get(index)),
    };
    schema
        .as_struct()
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let source: Option<&Field> = source_of(index, field.id).map(AsRef::as_ref);
            let metadata = |key: &str| source.and_then(|source| source.metadata().get(key));
            // Changes name a column as it is called until now.
            let name = before.and_then(|before| before.name_by_field_id(field.id)).unwrap_or(&field.name);
            let nested = format!("{name}.");
            let change = changes.iter().filter(|change| change.column == name || change.column.starts_with(&nested));
            PlannedColumn {
                name: field.name.clone(),
                source_type: metadata(META_SOURCE_TYPE).cloned().unwrap_or_default(),
                target_type: schema::type_name(&field.field_type),
                required: field.required,
                inferred: metadata(META_INFERRED).is_some_and(|value| value == "true"),
                change: change.filter_map(Change::beside).collect::<Vec<_>>().join(", "),
            }
        })
        .collect()
}
