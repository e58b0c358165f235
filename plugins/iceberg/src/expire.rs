//! Expiry: which snapshots go with a commit, and which files nothing refers to afterwards.
//!
//! Snapshots are removed in the request that adds one, so that expiry costs no commit of its own and the table's metadata
//! stays small. Files go after the commit has succeeded, as far as it can be seen that no snapshot that is left uses
//! them; what cannot be removed or decided stays on disk and hurts nobody.

use std::collections::{HashMap, HashSet};

use iceberg::io::FileIO;
use iceberg::spec::{MAIN_BRANCH, ManifestFile, ManifestStatus, SnapshotRef, SnapshotReference, TableMetadata};
use philotes_sdk::{Error, Result};
use serde::Deserialize;

use crate::base::read_manifest_list;
use crate::config::Retention;
use crate::lineage;
use crate::manifests::{self, property};

/// More snapshots than this outside the main branch are not read to find out which files they use.
const MAX_LISTS_READ: usize = 16;

/// The snapshots that a commit to this table expires, newest first: those of the main branch's history that are neither
/// among the last ones to keep (the new one included), nor young, nor held by a tag or another branch.
pub(crate) fn plan(metadata: &TableMetadata, retention: Retention, now_ms: i64) -> Result<Vec<SnapshotRef>> {
    if !property(metadata, "gc.enabled", true)? {
        return Ok(Vec::new());
    }
    let older_than = i64::try_from(retention.older_than.as_millis()).unwrap_or(i64::MAX);
    let before = now_ms.saturating_sub(older_than);
    let candidates: Vec<_> = lineage::history(metadata)
        .skip(retention.keep - 1)
        .filter(|snapshot| snapshot.timestamp_ms() <= before)
        .cloned()
        .collect();
    if candidates.is_empty() {
        return Ok(candidates);
    }
    let held = held(metadata)?;
    Ok(candidates.into_iter().filter(|snapshot| !held.contains(&snapshot.snapshot_id())).collect())
}

/// The snapshots that tags name and that other branches than main consist of.
fn held(metadata: &TableMetadata) -> Result<HashSet<i64>> {
    // The crate shows references by name only; the metadata's own JSON lists them.
    #[derive(Deserialize)]
    struct References {
        #[serde(default)]
        refs: HashMap<String, SnapshotReference>,
    }
    let read = || serde_json::from_slice::<References>(&serde_json::to_vec(metadata)?);
    let references = read().map_err(|e| Error::internal("a table's references cannot be read").with_source(e))?;
    let mut held = HashSet::new();
    for (name, reference) in references.refs {
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
    Ok(held)
}

/// Removes files of expired snapshots. Remembers the list that it will need with the next commit.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    last: Option<(i64, Vec<ManifestFile>)>,
}

impl Cleaner {
    /// Removes what only the expired snapshots used; `metadata` is the table's after they are gone.
    pub(crate) async fn clean(&mut self, files: &FileIO, metadata: &TableMetadata, expired: &[SnapshotRef]) {
        if expired.is_empty() {
            return;
        }
        match self.unreachable(files, metadata, expired).await {
            Ok(locations) => {
                for location in locations {
                    if let Err(error) = files.delete(&location).await {
                        tracing::debug!(location, %error, "a file of an expired snapshot stays");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "files of expired snapshots stay"),
        }
    }

    async fn unreachable(
        &mut self,
        files: &FileIO,
        metadata: &TableMetadata,
        expired: &[SnapshotRef],
    ) -> Result<Vec<String>> {
        // A snapshot uses manifests of the one before it and new ones. So within one line of history, what the oldest
        // that is left does not use, none does.
        let line: Vec<_> = lineage::history(metadata).collect();
        let in_line: HashSet<i64> = line.iter().map(|snapshot| snapshot.snapshot_id()).collect();
        let aside: Vec<_> = metadata.snapshots().filter(|s| !in_line.contains(&s.snapshot_id())).collect();
        if aside.len() > MAX_LISTS_READ {
            tracing::debug!(snapshots = aside.len(), "too many snapshots aside of the main branch: manifests stay");
            return Ok(expired.iter().map(|snapshot| snapshot.manifest_list().to_owned()).collect());
        }
        let mut seen = HashSet::new();
        for snapshot in &aside {
            seen.extend(read_manifest_list(files, metadata, snapshot).await?.into_iter().map(|m| m.manifest_path));
        }
        let previous = self.last.take();
        let mut gone = Vec::new();
        if let Some(oldest) = line.last() {
            let list = read_manifest_list(files, metadata, oldest).await?;
            seen.extend(list.iter().map(|manifest| manifest.manifest_path.clone()));
            if aside.is_empty() {
                gone.extend(dropped_files(files, oldest, &list).await?);
            }
            self.last = Some((oldest.snapshot_id(), list));
        }
        let ids: HashSet<i64> = expired.iter().map(|snapshot| snapshot.snapshot_id()).collect();
        for snapshot in expired {
            let list = match &previous {
                Some((id, list)) if *id == snapshot.snapshot_id() => list.clone(),
                _ => read_manifest_list(files, metadata, snapshot).await?,
            };
            // What the first of them dropped went when the one before it expired.
            if aside.is_empty() && snapshot.parent_snapshot_id().is_some_and(|parent| ids.contains(&parent)) {
                gone.extend(dropped_files(files, snapshot, &list).await?);
            }
            for manifest in list {
                if !seen.contains(&manifest.manifest_path) {
                    gone.push(manifest.manifest_path.clone());
                    seen.insert(manifest.manifest_path);
                }
            }
            gone.push(snapshot.manifest_list().to_owned());
        }
        Ok(gone)
    }
}

/// The files with rows or deletes that a snapshot (a compaction, a TRUNCATE, a commit that found deletes to be of no use any more) took
/// out of the table. Once all before it have expired, nothing reads them.
async fn dropped_files(files: &FileIO, snapshot: &SnapshotRef, manifests: &[ManifestFile]) -> Result<Vec<String>> {
    let id = snapshot.snapshot_id();
    let mut dropped = Vec::new();
    for manifest in manifests.iter().filter(|m| m.added_snapshot_id == id && m.has_deleted_files()) {
        let read = manifests::read(files, manifest).await?;
        let entries = read.entries.iter();
        let removed = entries.filter(|e| e.status() == ManifestStatus::Deleted && e.snapshot_id() == Some(id));
        dropped.extend(removed.map(|entry| entry.file_path().to_owned()));
    }
    Ok(dropped)
}
