//! Whether a table that is there can be kept by mode upsert, and what it lacks for that.

use std::collections::BTreeSet;

use iceberg::spec::{MAIN_BRANCH, TableMetadata, UnboundPartitionSpec};
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use philotes_sdk::{Error, Result, StreamName};
use uuid::Uuid;

use super::Rules;
use super::key::identified;
use super::removal::global_spec;
use crate::base::Base;
use crate::catalog::CommitRequest;
use crate::lineage;
use crate::schema;
use crate::token;

/// The table's property that says what the table holds, and its value here.
pub(crate) const MODE: (&str, &str) = ("philotes.mode", "upsert");

/// The table's property that says how many of its rows share their keys with newer ones, as this connector has left it: other rows
/// have moved to their keys, and what becomes of them has not come yet.
pub(crate) fn displaced_property(connector: &str) -> String {
    format!("philotes.displaced.{connector}")
}

/// How many they are.
///
/// # Errors
/// Config: the property holds something else.
pub(crate) fn displaced(metadata: &TableMetadata, connector: &str) -> Result<u64> {
    let name = displaced_property(connector);
    let Some(value) = metadata.properties().get(&name) else { return Ok(0) };
    value.parse().map_err(|_| {
        Error::config(format!("table property {name} is {value:?}; allowed is a number of rows, as the sink writes it"))
    })
}

/// Refuses a table that the other mode has made. `rules` are those of mode upsert.
pub(crate) fn check_mode(table: &TableIdent, metadata: &TableMetadata, rules: Option<&Rules>) -> Result<()> {
    match metadata.properties().get(MODE.0) {
        Some(mode) if rules.is_none() || mode != MODE.1 => Err(Error::config(format!(
            "mode: table {table} was made by mode {mode}, and holds what that writes; allowed for it is that mode, or another table"
        ))),
        _ => Ok(()),
    }
}

/// What makes the table one of mode upsert whose rows these fields identify; `None` where it is.
///
/// # Errors
/// Config: it holds rows that are not one per key, as far as anybody knows.
pub(crate) async fn adoption(
    table: &TableIdent,
    stream: &StreamName,
    base: &mut Base,
    key: &[i32],
) -> Result<Option<CommitRequest>> {
    let metadata = base.metadata.clone();
    let wanted: BTreeSet<i32> = key.iter().copied().collect();
    let known: BTreeSet<i32> = metadata.current_schema().identifier_field_ids().collect();
    let is_marked = metadata.properties().contains_key(MODE.0);
    if is_marked && known == wanted && global_spec(&metadata).is_some() {
        return Ok(None);
    }
    if !base.is_empty().await? {
        check_rows(table, stream, &metadata, &known, &wanted)?;
        if !is_marked && !token::read_everyones(&metadata)?.is_empty() {
            return Err(Error::config(format!(
                "mode: table {table} was written by mode append, and holds changes and not rows; allowed for it is mode: append, or \
                 another table"
            )));
        }
    }
    let mut updates = Vec::new();
    if known != wanted {
        updates.extend(schema::change_to(&metadata, identified(metadata.current_schema(), key)?));
    }
    if global_spec(&metadata).is_none() {
        let next = metadata.partition_specs_iter().map(|spec| spec.spec_id()).max().unwrap_or(0) + 1;
        updates.push(TableUpdate::AddSpec { spec: UnboundPartitionSpec::builder().with_spec_id(next).build() });
    }
    if !is_marked {
        let (name, value) = MODE;
        updates.push(TableUpdate::SetProperties { updates: [(name.to_owned(), value.to_owned())].into() });
    }
    let head = lineage::head(&metadata).map(|head| head.snapshot_id());
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        // Of a table without rows the schema may be changed in any way.
        TableRequirement::RefSnapshotIdMatch { r#ref: MAIN_BRANCH.to_owned(), snapshot_id: head },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        TableRequirement::LastAssignedPartitionIdMatch { last_assigned_partition_id: metadata.last_partition_id() },
    ];
    Ok(Some(CommitRequest { id: Uuid::new_v4(), requirements, updates, planned_on: None }))
}

/// Refuses a table whose rows are told apart by other fields.
fn check_rows(
    table: &TableIdent,
    stream: &StreamName,
    metadata: &TableMetadata,
    known: &BTreeSet<i32>,
    wanted: &BTreeSet<i32>,
) -> Result<()> {
    if known == wanted {
        return Ok(());
    }
    let schema = metadata.current_schema();
    let names = |ids: &BTreeSet<i32>| {
        let names: Vec<&str> = ids.iter().filter_map(|id| schema.name_by_field_id(*id)).collect();
        names.join(", ")
    };
    let has = match known.is_empty() {
        true => "no identifier fields".to_owned(),
        false => format!("the identifier fields {}", names(known)),
    };
    Err(Error::config(format!(
        "mode: table {table} holds rows and has {has}, and the key of stream {stream} is {}; allowed are the same columns, or a table \
         without rows",
        names(wanted)
    )))
}
