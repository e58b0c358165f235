//! One attempt to commit: a snapshot on a base, its tokens, and the request that carries both.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use iceberg::TableRequirement;
use iceberg::spec::{MAIN_BRANCH, ManifestFile, Operation, Snapshot, Summary, TableMetadata};
use philotes_sdk::{Error, Offset, Result, StreamPartition};
use uuid::Uuid;

use crate::base::Base;
use crate::catalog::CommitRequest;
use crate::error::from_iceberg;
use crate::manifests::{self, AddedFile, SnapshotIds, Tally, Written};
use crate::storage;
use crate::token::{self, Token};

/// The summary's property with the commit's id.
pub(crate) const COMMIT_ID: &str = "philotes.commit-id";

/// What a commit is to change: files to add, offsets to set, or with `None` to forget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changes<'a> {
    pub(crate) connector: &'a str,
    pub(crate) files: &'a [AddedFile],
    /// Whether all files that are there are removed.
    pub(crate) empties: bool,
    pub(crate) offsets: &'a BTreeMap<StreamPartition, Option<Offset>>,
    /// Other properties to set.
    pub(crate) properties: &'a HashMap<String, String>,
    /// Properties to remove.
    pub(crate) forget: &'a [String],
}

/// A request that was made, whatever became of it.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) commit_id: Uuid,
    pub(crate) snapshot_id: i64,
    pub(crate) sequence_number: i64,
    /// The tokens that the keys have if it succeeds; `None` where they are forgotten.
    pub(crate) tokens: BTreeMap<StreamPartition, Option<Token>>,
    /// The snapshot's manifests.
    pub(crate) manifests: Arc<Vec<ManifestFile>>,
    /// The files that were written for it alone: its manifest list, and those manifests that are new.
    pub(crate) locations: Vec<String>,
}

impl Attempt {
    /// Whether this attempt is part of the table: its id is in a snapshot or in a token.
    pub(crate) fn succeeded_in(&self, metadata: &TableMetadata, connector: &str) -> Result<bool> {
        let id = self.commit_id.to_string();
        let snapshot = metadata.snapshot_by_id(self.snapshot_id);
        if snapshot.is_some_and(|s| s.summary().additional_properties.get(COMMIT_ID) == Some(&id)) {
            return Ok(true);
        }
        for at in self.tokens.keys() {
            if token::read(metadata, connector, at)?.is_some_and(|token| token.commit_id == self.commit_id) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Builds an attempt on a base, under ids of its own, and writes its manifests. After an error nothing of them is left.
pub(crate) async fn propose(base: &mut Base, changes: Changes<'_>) -> Result<(CommitRequest, Attempt)> {
    let metadata = base.metadata.clone();
    let commit_id = Uuid::new_v4();
    let snapshot_id = new_snapshot_id(&metadata);
    let sequence_number = metadata.last_sequence_number() + 1;
    let mut tokens = BTreeMap::new();
    let (mut set, mut unset) = (changes.properties.clone(), changes.forget.to_vec());
    for (at, offset) in changes.offsets {
        let name = token::property(changes.connector, at);
        let token = offset.clone().map(|offset| Token { offset, commit_id, snapshot_id, sequence_number });
        match &token {
            Some(token) => {
                set.insert(name, token.to_value()?);
            }
            None => unset.push(name),
        }
        tokens.insert(at.clone(), token);
    }
    token::check_size(metadata.properties(), &set)?;

    let ids = SnapshotIds { commit_id, snapshot_id, sequence_number };
    let Written { list, manifests, rows, locations, removed } =
        manifests::write(base, changes.files, changes.empties, ids).await?;
    let head = base.head();
    let parent = head.map(|head| head.snapshot_id());
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(parent)
        .with_sequence_number(sequence_number)
        // Never before the last change: catalogs refuse that, and a clock that was ahead must not stop the table.
        .with_timestamp_ms(now_ms().max(metadata.last_updated_ms()))
        .with_manifest_list(list)
        .with_summary(summary(head.map(|head| head.summary()), &changes, &removed, commit_id))
        .with_schema_id(metadata.current_schema_id());
    let snapshot = match rows {
        Some(rows) => snapshot.with_row_range(rows.first, rows.count).build(),
        None => snapshot.build(),
    };

    let requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        // `None` asserts that the branch does not exist.
        TableRequirement::RefSnapshotIdMatch { r#ref: MAIN_BRANCH.to_owned(), snapshot_id: parent },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: metadata.default_partition_spec_id() },
    ];
    // The builder keeps what was set for the branch, and says beforehand whether the metadata takes the change.
    let updates = TableMetadata::clone(&metadata)
        .into_builder(None)
        .set_branch_snapshot(snapshot, MAIN_BRANCH)
        .and_then(|builder| builder.set_properties(set))
        .and_then(|builder| builder.remove_properties(&unset))
        .and_then(|builder| builder.build());
    let updates = match updates {
        Ok(built) => built.changes,
        Err(error) => {
            storage::discard(&base.files, locations).await;
            return Err(from_iceberg("the table's metadata does not take the commit", error));
        }
    };
    let request = CommitRequest { id: commit_id, requirements, updates, planned_on: None };
    Ok((request, Attempt { commit_id, snapshot_id, sequence_number, tokens, manifests, locations }))
}

/// A positive number that no snapshot of the table has.
pub(crate) fn new_snapshot_id(metadata: &TableMetadata) -> i64 {
    loop {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let id = i64::try_from((high ^ low) >> 1).unwrap_or(0);
        if id > 0 && metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// Whether the table's last change lies ahead of the clock. Metadata has the time of its newest snapshot, or else of its commit, and
/// catalogs refuse one that is over a minute before the last change: without a snapshot, such a table takes no change.
pub(crate) fn is_ahead(metadata: &TableMetadata) -> bool {
    metadata.last_updated_ms().saturating_sub(now_ms()) > 30_000
}

/// Milliseconds since 1970 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The summary of a snapshot: what it adds and removes, and the table's totals with it.
fn summary(parent: Option<&Summary>, changes: &Changes<'_>, removed: &Tally, commit_id: Uuid) -> Summary {
    let added = Tally::of(changes.files);
    let mut properties = HashMap::from([(COMMIT_ID.to_owned(), commit_id.to_string())]);
    for (name, value) in [
        ("added-data-files", added.data_files),
        ("added-records", added.records),
        ("added-delete-files", added.delete_files),
        ("added-equality-delete-files", added.equality_delete_files),
        ("added-equality-deletes", added.equality_deletes),
        ("added-files-size", added.bytes),
        ("deleted-data-files", removed.data_files),
        ("deleted-records", removed.records),
        ("removed-delete-files", removed.delete_files),
        ("removed-equality-delete-files", removed.equality_delete_files),
        ("removed-equality-deletes", removed.equality_deletes),
        ("removed-position-delete-files", removed.position_delete_files),
        ("removed-dvs", removed.deletion_vectors),
        ("removed-position-deletes", removed.position_deletes),
        ("removed-files-size", removed.bytes),
    ] {
        if value > 0 {
            properties.insert(name.to_owned(), value.to_string());
        }
    }
    let partitions = added.partitions.union(&removed.partitions).count();
    properties.insert("changed-partition-count".to_owned(), partitions.to_string());
    for (name, added, removed) in [
        ("total-data-files", added.data_files, removed.data_files),
        ("total-records", added.records, removed.records),
        ("total-files-size", added.bytes, removed.bytes),
        ("total-delete-files", added.delete_files, removed.delete_files),
        ("total-position-deletes", 0, removed.position_deletes),
        ("total-equality-deletes", added.equality_deletes, removed.equality_deletes),
    ] {
        let before = match parent {
            None => Some(0),
            // Nothing else is left.
            Some(_) if changes.empties => Some(removed),
            // A parent without totals leaves its children without them: a wrong one would be worse.
            Some(summary) => summary.additional_properties.get(name).and_then(|value| value.parse::<u64>().ok()),
        };
        if let Some(before) = before {
            properties.insert(name.to_owned(), (before + added).saturating_sub(removed).to_string());
        }
    }
    let operation = match (added.data_files, added.delete_files) {
        _ if changes.empties => Operation::Overwrite,
        (_, 0) => Operation::Append,
        (0, _) => Operation::Delete,
        _ => Operation::Overwrite,
    };
    Summary { operation, additional_properties: properties }
}

/// Refuses to add files to a schema that gained a required column which they do not have, or lost one by which they delete, and names
/// columns that were dropped while rows with them were under way.
///
/// Files written under an older schema stay valid otherwise: readers find columns by id, a column that was added reads as
/// null, one that was widened is widened on reading, and one that was dropped is not read, which is what dropping it
/// means.
pub(crate) fn check_schemas(table: &str, metadata: &TableMetadata, added: &[AddedFile]) -> Result<()> {
    let current = metadata.current_schema();
    let mut checked = HashSet::from([current.schema_id()]);
    for file in added {
        let ids = file.file.equality_ids().unwrap_or_default();
        if let Some(field) = ids.iter().find(|id| current.field_by_id(**id).is_none()) {
            let name = file.schema.name_by_field_id(*field).unwrap_or("?");
            return Err(Error::config(format!(
                "table {table}: column {name:?} of its key was dropped while rows were under way; nothing of them was acknowledged. \
                 Restore the column, or let the connector begin a new table"
            )));
        }
        if file.is_deletes() || !checked.insert(file.schema.schema_id()) {
            continue;
        }
        let written = file.schema.as_struct().fields();
        for field in current.as_struct().fields() {
            let had = file.schema.field_by_id(field.id);
            if field.required && !had.is_some_and(|had| had.required) {
                return Err(Error::data(format!(
                    "table {table}: column {:?} became required while rows without it were under way; make it optional",
                    field.name
                )));
            }
        }
        for field in written.iter().filter(|field| current.field_by_id(field.id).is_none()) {
            tracing::warn!(table, column = field.name, "a column was dropped while rows with it were under way");
        }
    }
    Ok(())
}
