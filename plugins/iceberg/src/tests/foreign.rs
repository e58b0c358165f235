//! What other programs do to a table.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::TableUpdate;
use iceberg::spec::{MAIN_BRANCH, Operation, Snapshot, SnapshotReference, SnapshotRetention, Summary, TableMetadata};
use uuid::Uuid;

use super::{ORDERS, ident};
use crate::catalog::sql::SqlCatalog;
use crate::catalog::{Catalog, CommitRequest};
use crate::lineage;

pub(super) fn branch(snapshot_id: i64) -> SnapshotReference {
    let retention =
        SnapshotRetention::Branch { min_snapshots_to_keep: None, max_snapshot_age_ms: None, max_ref_age_ms: None };
    SnapshotReference::new(snapshot_id, retention)
}

pub(super) async fn apply(catalog: &SqlCatalog, updates: Vec<TableUpdate>) {
    let request = CommitRequest { id: Uuid::new_v4(), requirements: Vec::new(), updates, planned_on: None };
    catalog.commit_table(&ident(ORDERS), request).await.unwrap();
}

async fn metadata(catalog: &SqlCatalog) -> Arc<TableMetadata> {
    catalog.load_table(&ident(ORDERS)).await.unwrap().metadata
}

/// A snapshot that changes no file: a writer of other rows, a compaction.
pub(super) async fn append(catalog: &SqlCatalog) {
    let metadata = metadata(catalog).await;
    let head = lineage::head(&metadata).unwrap();
    add_snapshot(catalog, &metadata, Some(head.snapshot_id()), head.manifest_list(), HashMap::new()).await;
}

/// As [`append`], by a program that does not write totals.
pub(super) async fn add_snapshot(
    catalog: &SqlCatalog,
    metadata: &TableMetadata,
    parent: Option<i64>,
    manifest_list: &str,
    additional_properties: HashMap<String, String>,
) {
    let id = metadata.last_sequence_number() + 1_000_000;
    let snapshot = Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(parent)
        .with_sequence_number(metadata.last_sequence_number() + 1)
        .with_timestamp_ms(metadata.last_updated_ms())
        .with_manifest_list(manifest_list)
        .with_summary(Summary { operation: Operation::Replace, additional_properties })
        .with_schema_id(metadata.current_schema_id())
        .build();
    let set = TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.into(), reference: branch(id) };
    apply(catalog, vec![TableUpdate::AddSnapshot { snapshot }, set]).await;
}

/// Expires everything but the current snapshot.
pub(super) async fn expire(catalog: &SqlCatalog) {
    let metadata = metadata(catalog).await;
    let head = lineage::head(&metadata).unwrap().snapshot_id();
    let snapshot_ids = metadata.snapshots().map(|s| s.snapshot_id()).filter(|id| *id != head).collect();
    apply(catalog, vec![TableUpdate::RemoveSnapshots { snapshot_ids }]).await;
}

/// Goes back by one snapshot.
pub(super) async fn roll_back(catalog: &SqlCatalog) {
    let metadata = metadata(catalog).await;
    let parent = lineage::head(&metadata).unwrap().parent_snapshot_id().unwrap();
    let set = TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.into(), reference: branch(parent) };
    apply(catalog, vec![set]).await;
}

/// CREATE OR REPLACE: properties and identity stay, the current snapshot goes.
pub(super) async fn replace(catalog: &SqlCatalog) {
    apply(catalog, vec![TableUpdate::RemoveSnapshotRef { ref_name: MAIN_BRANCH.into() }]).await;
}

/// Takes a column out of the schema.
pub(super) async fn drop_column(catalog: &SqlCatalog, name: &str) {
    let metadata = metadata(catalog).await;
    let fields = metadata.current_schema().as_struct().fields().iter().filter(|field| field.name != name).cloned();
    let schema = iceberg::spec::Schema::builder().with_fields(fields).build().unwrap();
    apply(catalog, vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }]).await;
}

/// Drops the only table, as another program would: its row goes.
pub(super) fn drop_table(folder: &std::path::Path) {
    drop_named(folder, "%");
}

/// Drops the one table whose name is like this.
pub(super) fn drop_named(folder: &std::path::Path, name: &str) {
    let database = rusqlite::Connection::open(folder.join("catalog.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM iceberg_tables WHERE table_name LIKE ?1", [name]).unwrap(), 1);
}
