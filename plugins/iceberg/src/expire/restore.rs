//! Puts back refs that were dropped with their snapshots, in one commit that clears the record too.
//!
//! A catalog takes no snapshot with an old sequence number, so what comes back has the next ones, and the time of the commit; its id
//! and its manifest list are as they were. The commit also makes an empty snapshot the current one: every expiry asserts the current
//! snapshot, so that a request from before this cannot arrive after it and drop the ref again.

use std::collections::{BTreeMap, HashMap, HashSet};

use iceberg::spec::{Snapshot, SnapshotReference, TableMetadata};
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use philotes_sdk::{Error, Result};

use super::{Found, Verdict};
use crate::base::Base;
use crate::catalog::{Catalog, CatalogErrorKind};
use crate::snapshot::{self, Attempt, Changes};
use crate::storage;
use crate::table::ROUNDS;
use crate::token;

/// Puts back what a record's request dropped, or finds it done.
///
/// # Errors
/// The catalog does not take it. Conflict: somebody has given one of the names to something else.
pub(super) async fn put_back(catalog: &dyn Catalog, table: &TableIdent, connector: &str, found: &Found) -> Result<()> {
    let Verdict::Forbidden { refs, gc_off, replaced, .. } = &found.verdict else { return Ok(()) };
    let mut last = None;
    for _ in 0..ROUNDS {
        let loaded = catalog.load_table(table).await?;
        if !loaded.metadata.properties().contains_key(&found.name) {
            return Ok(());
        }
        let (metadata, files) = (loaded.metadata.clone(), loaded.files.io.clone());
        let changes = Changes {
            connector,
            files: &[],
            empties: false,
            offsets: &BTreeMap::new(),
            properties: &HashMap::new(),
            // What gc.enabled=false kept is still to be decided.
            forget: if *gc_off { &[] } else { std::slice::from_ref(&found.name) },
        };
        let (mut request, attempt) = snapshot::propose(&mut Base::new(loaded), changes).await?;
        let ids = add_again(&metadata, &mut request.updates, refs, replaced)?;
        for (name, reference) in refs {
            request.requirements.push(TableRequirement::RefSnapshotIdMatch { r#ref: name.clone(), snapshot_id: None });
            let Some(id) = ids.get(&reference.snapshot_id) else { continue };
            let reference = SnapshotReference { snapshot_id: *id, ..reference.clone() };
            request.updates.push(TableUpdate::SetSnapshotRef { ref_name: name.clone(), reference });
        }
        match catalog.commit_table(table, request).await {
            Ok(after) if attempt.succeeded_in(&after.metadata, connector)? => return Ok(()),
            Err(error) if error.kind() == CatalogErrorKind::Refused || error.never_left() => {
                storage::discard(&files, attempt.locations).await;
                return Err(error.into());
            }
            outcome => {
                if has_landed(catalog, table, connector, &attempt).await? {
                    return Ok(());
                }
                last = outcome.err();
            }
        }
    }
    let error = Error::unavailable(format!("table {table} is changed by others all the time"));
    Err(match last {
        Some(last) => error.with_source(last),
        None => error,
    })
}

async fn has_landed(catalog: &dyn Catalog, table: &TableIdent, connector: &str, attempt: &Attempt) -> Result<bool> {
    attempt.succeeded_in(&catalog.load_table(table).await?.metadata, connector)
}

/// The updates that add snapshots again, behind those of a commit, put into its request; by the id that each had.
fn add_again(
    metadata: &TableMetadata,
    updates: &mut Vec<TableUpdate>,
    refs: &[(String, SnapshotReference)],
    replaced: &TableMetadata,
) -> Result<HashMap<i64, i64>> {
    let committed = updates.iter().rev().find_map(|update| match update {
        TableUpdate::AddSnapshot { snapshot } => Some(snapshot.clone()),
        _ => None,
    });
    let Some(committed) = committed else { return Err(Error::internal("a commit without a snapshot")) };
    // A token that names a snapshot which is aside of the history would be refused.
    let named: HashSet<i64> =
        token::read_everyones(metadata)?.into_iter().map(|(_, _, token)| token.snapshot_id).collect();
    let mut again = HashMap::new();
    let mut sequence_number = committed.sequence_number();
    for (_, SnapshotReference { snapshot_id, .. }) in refs {
        let Some(was) = replaced.snapshot_by_id(*snapshot_id).filter(|_| !again.contains_key(snapshot_id)) else {
            continue;
        };
        let id = if named.contains(snapshot_id) { snapshot::new_snapshot_id(metadata) } else { *snapshot_id };
        sequence_number += 1;
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(was.parent_snapshot_id())
            .with_sequence_number(sequence_number)
            .with_timestamp_ms(committed.timestamp_ms())
            .with_manifest_list(was.manifest_list())
            .with_summary(was.summary().clone())
            .with_encryption_key_id(was.encryption_key_id().map(str::to_owned))
            .with_schema_id(was.schema_id().unwrap_or(metadata.current_schema_id()));
        let snapshot = match committed.row_range() {
            // It adds no rows: those of its files have their ids.
            Some((first, count)) => snapshot.with_row_range(first + count, 0).build(),
            None => snapshot.build(),
        };
        updates.push(TableUpdate::AddSnapshot { snapshot });
        if let Some(file) = replaced.statistics_for_snapshot(*snapshot_id).filter(|_| id == *snapshot_id) {
            updates.push(TableUpdate::SetStatistics { statistics: file.clone() });
        }
        if let Some(file) = replaced.partition_statistics_for_snapshot(*snapshot_id).filter(|_| id == *snapshot_id) {
            updates.push(TableUpdate::SetPartitionStatistics { partition_statistics: file.clone() });
        }
        again.insert(*snapshot_id, id);
    }
    Ok(again)
}
