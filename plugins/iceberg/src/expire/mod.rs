//! Expiry: which snapshots a table lets go, in requests of their own, and the files that nothing refers to afterwards.
//!
//! Others make tags and branches at any moment, and a REST catalog can assert only refs that the request names: never that there are
//! no others, nor properties. It drops a tag silently with the snapshot that the tag names. So a request is sent at once after a
//! load, asserts every known ref, and sets a [`Record`] of what it removes. Before any file goes, the metadata that the request
//! replaced is read (`record.rs`): a ref that was dropped, or `gc.enabled=false`, keeps the files, is reported as an error, and the
//! ref is put back where the catalog takes it (`restore.rs`). The record stays in the table until that is done with, whoever dies on
//! the way; while it does, nothing of the table is removed, by orphan runs either. The embedded catalog compares the metadata itself
//! and refuses such a request.
//!
//! The rules are those of `tests/model/src/expiry.rs`.

mod clean;
mod record;
mod restore;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata};
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use philotes_sdk::{Error, Result, failpoint};
use serde::Deserialize;
use uuid::Uuid;

use crate::catalog::{Catalog, CatalogErrorKind, CommitRequest, LoadedTable};
use crate::config::Retention;
use crate::error::chain;
use crate::lineage;
use crate::manifests::{flag, property};
use crate::snapshot::{is_ahead, now_ms};
use crate::token;
use clean::Cleaner;
pub(crate) use record::Verdict;
use record::{Found, Record, records};

/// Expiries of one table are at least so far apart. Tests do not wait.
const EVERY: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 60 });
/// A request names at most so many snapshots, the oldest first: its record is a table property.
const AT_ONCE: usize = 1000;
/// A request that comes upon another change of the table is made anew so often.
const ROUNDS: usize = 3;

/// The snapshots that may go, oldest first: those of the main branch's history that are neither among the last ones to keep, nor young,
/// nor held by a tag or another branch.
fn plan(metadata: &TableMetadata, retention: Retention, now_ms: i64) -> Result<Vec<i64>> {
    if !gc_enabled(metadata) || candidates(metadata, retention, now_ms)?.is_empty() {
        return Ok(Vec::new());
    }
    let refs = references(metadata)?;
    let Retention { keep, older_than } = agreed(metadata, refs.get(MAIN_BRANCH), retention)?;
    let held = held(metadata, &refs);
    let mut planned = candidates(metadata, Retention { keep, older_than }, now_ms)?;
    planned.retain(|snapshot| !held.contains(snapshot));
    planned.reverse();
    planned.truncate(AT_ONCE);
    Ok(planned)
}

/// What is neither among the last ones to keep nor young, newest first.
fn candidates(metadata: &TableMetadata, retention: Retention, now_ms: i64) -> Result<Vec<i64>> {
    let older_than = i64::try_from(retention.older_than.as_millis()).unwrap_or(i64::MAX);
    let before = now_ms.saturating_sub(older_than);
    let old = lineage::history(metadata).skip(retention.keep).filter(|snapshot| snapshot.timestamp_ms() <= before);
    Ok(old.map(|snapshot| snapshot.snapshot_id()).collect())
}

/// The connector's retention, or the table's own where that keeps more: its main branch's, else that of its properties.
fn agreed(metadata: &TableMetadata, main: Option<&SnapshotReference>, wanted: Retention) -> Result<Retention> {
    let (mut keep, mut age_ms) = (
        property::<usize>(metadata, "history.expire.min-snapshots-to-keep", 0)?,
        property::<u64>(metadata, "history.expire.max-snapshot-age-ms", 0)?,
    );
    if let Some(SnapshotReference {
        retention: SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, .. },
        ..
    }) = main
    {
        keep = min_snapshots_to_keep.and_then(|count| usize::try_from(count).ok()).unwrap_or(keep);
        age_ms = max_snapshot_age_ms.and_then(|age| u64::try_from(age).ok()).unwrap_or(age_ms);
    }
    Ok(Retention { keep: wanted.keep.max(keep), older_than: wanted.older_than.max(Duration::from_millis(age_ms)) })
}

/// Whether the table lets files be removed.
pub(crate) fn gc_enabled(metadata: &TableMetadata) -> bool {
    flag(metadata, "gc.enabled", true)
}

/// The table's tags and branches.
fn references(metadata: &TableMetadata) -> Result<HashMap<String, SnapshotReference>> {
    // The crate shows references by name only; the metadata's own JSON lists them.
    #[derive(Deserialize)]
    struct References {
        #[serde(default)]
        refs: HashMap<String, SnapshotReference>,
    }
    let read = || serde_json::from_slice::<References>(&serde_json::to_vec(metadata)?);
    let read = read().map_err(|e| Error::internal("a table's references cannot be read").with_source(e))?;
    Ok(read.refs)
}

/// The snapshots that tags name and that other branches than main consist of.
fn held(metadata: &TableMetadata, refs: &HashMap<String, SnapshotReference>) -> HashSet<i64> {
    let mut held = HashSet::new();
    for (name, reference) in refs {
        if name == MAIN_BRANCH {
            continue;
        }
        let mut next = Some(reference.snapshot_id);
        while let Some(id) = next
            && held.insert(id)
            && reference.is_branch()
        {
            next = metadata.snapshot_by_id(id).and_then(|snapshot| snapshot.parent_snapshot_id());
        }
    }
    held
}

/// Expires a table's snapshots, now and then.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    cleaner: Cleaner,
    last: Option<Instant>,
    /// Records that are done with: they leave the table with the next commit.
    done: BTreeSet<String>,
    /// Records that wait for somebody; that is said once.
    said: BTreeSet<String>,
}

impl Expiry {
    /// The properties that the next commit takes out of the table.
    pub(crate) fn done(&self) -> Vec<String> {
        self.done.iter().cloned().collect()
    }

    /// Expires what may go, if it is time. `metadata` is what the last commit left. What fails is told, and tried again later: no row
    /// depends on it.
    pub(crate) async fn tend(
        &mut self,
        catalog: &dyn Catalog,
        table: &TableIdent,
        connector: &str,
        retention: Option<Retention>,
        metadata: &TableMetadata,
    ) {
        let Some(retention) = retention else { return };
        self.done.retain(|name| metadata.properties().contains_key(name));
        if self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        if let Err(error) = self.expire(catalog, table, connector, retention, metadata).await {
            tracing::warn!(%table, error = chain(&error), "snapshots do not expire; it is tried again later");
        }
    }

    async fn expire(
        &mut self,
        catalog: &dyn Catalog,
        table: &TableIdent,
        connector: &str,
        retention: Retention,
        metadata: &TableMetadata,
    ) -> Result<()> {
        let open = records(metadata).any(|(name, _)| !self.done.contains(name));
        if !open && candidates(metadata, retention, now_ms())?.is_empty() {
            return Ok(());
        }
        self.last = Some(Instant::now());
        for _ in 0..ROUNDS {
            let loaded = catalog.load_table(table).await?;
            if !self.settle(catalog, table, connector, &loaded, None).await? {
                // Nothing more goes before that is decided.
                return Ok(());
            }
            let planned = plan(&loaded.metadata, retention, now_ms())?;
            // Where a clock was ahead, snapshots expire once time has caught up with it.
            if planned.is_empty() || is_ahead(&loaded.metadata) {
                return Ok(());
            }
            let (name, request) = request(&loaded, &planned)?;
            failpoint!("expiry.unsent", |message| Error::unavailable(message));
            match catalog.commit_table(table, request).await {
                Ok(after) if after.metadata.properties().contains_key(&name) => {
                    failpoint!("expiry.answered", |message| Error::unknown(message));
                    tracing::debug!(%table, snapshots = planned.len(), "snapshots have expired");
                    self.settle(catalog, table, connector, &after, Some(&loaded)).await?;
                    return Ok(());
                }
                // If it was applied, its record will tell.
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {
                    tracing::debug!(%table, %error, "the table has changed before its snapshots expired");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Looks what every open record of the table was about, and removes the files of what may go. `planned_on` is a state that is at
    /// hand, which spares reading it. Gives back whether nothing is left open.
    async fn settle(
        &mut self,
        catalog: &dyn Catalog,
        table: &TableIdent,
        connector: &str,
        loaded: &LoadedTable,
        planned_on: Option<&LoadedTable>,
    ) -> Result<bool> {
        let open: Vec<_> = records(&loaded.metadata).filter(|(name, _)| !self.done.contains(*name)).collect();
        let (mut harmless, mut clear) = (Vec::new(), true);
        for (name, record) in open {
            let found = record::look(name, record, loaded, planned_on).await?;
            match &found.verdict {
                Verdict::Harmless(removed) => harmless.push((name.to_owned(), removed.clone())),
                Verdict::Forbidden { refs, .. } if !refs.is_empty() => {
                    let said = found.to_string();
                    match restore::put_back(catalog, table, connector, &found).await {
                        Ok(()) => {
                            tracing::error!(%table, "{said}. They are put back, each as a new snapshot with what it held");
                        }
                        Err(error) => self.tell(table, &found, &chain(&error)),
                    }
                    clear = false;
                }
                Verdict::Forbidden { .. } | Verdict::Unseen(_) => {
                    self.tell(table, &found, "");
                    clear = false;
                }
            }
        }
        if clear && !harmless.is_empty() {
            failpoint!("expiry.uncleaned", |message| Error::unavailable(message));
            let removed = harmless.iter().map(|(_, removed)| removed.clone()).collect();
            self.cleaner.clean(&loaded.files.io, &loaded.metadata, removed).await;
            self.done.extend(harmless.into_iter().map(|(name, _)| name));
        }
        Ok(clear)
    }

    /// Says once what waits for somebody.
    fn tell(&mut self, table: &TableIdent, found: &Found, error: &str) {
        if self.said.insert(found.name.clone()) {
            tracing::error!(
                %table, error,
                "{found}. Until somebody has decided, no file of the table is removed and no snapshot expires: {}",
                found.way_out(table)
            );
        }
    }
}

/// The request that removes snapshots, and its record's name.
fn request(loaded: &LoadedTable, snapshots: &[i64]) -> Result<(String, CommitRequest)> {
    let metadata = &loaded.metadata;
    let id = Uuid::new_v4();
    let record = Record { planned_on: loaded.metadata_location.clone(), snapshots: snapshots.to_vec() };
    let (name, value) = record.property(id)?;
    let set = HashMap::from([(name.clone(), value)]);
    token::check_size(metadata.properties(), &set)?;
    let mut requirements = vec![TableRequirement::UuidMatch { uuid: metadata.uuid() }];
    for (name, reference) in references(metadata)? {
        let snapshot_id = Some(reference.snapshot_id);
        requirements.push(TableRequirement::RefSnapshotIdMatch { r#ref: name, snapshot_id });
    }
    let mut updates = vec![
        TableUpdate::SetProperties { updates: set },
        TableUpdate::RemoveSnapshots { snapshot_ids: snapshots.to_vec() },
    ];
    for snapshot_id in snapshots.iter().copied() {
        if metadata.statistics_for_snapshot(snapshot_id).is_some() {
            updates.push(TableUpdate::RemoveStatistics { snapshot_id });
        }
        if metadata.partition_statistics_for_snapshot(snapshot_id).is_some() {
            updates.push(TableUpdate::RemovePartitionStatistics { snapshot_id });
        }
    }
    Ok((name, CommitRequest { id, requirements, updates, planned_on: loaded.metadata_location.clone() }))
}

/// What the records of a table are about.
///
/// # Errors
/// Unavailable: what was replaced cannot be read just now.
pub(crate) async fn found(loaded: &LoadedTable) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for (name, record) in records(&loaded.metadata) {
        all.push(record::look(name, record, loaded, None).await?);
    }
    Ok(all)
}

/// Refuses a table with a record that is not known to be harmless: what its snapshots held may be wanted.
///
/// # Errors
/// Config: somebody has to decide. Unavailable: what was replaced cannot be read just now.
pub(crate) async fn check_decided(table: &TableIdent, loaded: &LoadedTable) -> Result<()> {
    let open = found(loaded).await?.into_iter().find(|found| !matches!(found.verdict, Verdict::Harmless(_)));
    match open {
        None => Ok(()),
        Some(found) => {
            let way_out = found.way_out(table);
            Err(Error::config(format!("table {table}: {found}. Nothing was removed; decide first: {way_out}")))
        }
    }
}
