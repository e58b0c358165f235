//! Which files nothing refers to once snapshots have expired.
//!
//! Files go as far as it can be seen that no snapshot that is left uses them; what cannot be removed or decided stays on disk and
//! hurts nobody.

use std::collections::HashSet;

use futures::StreamExt;
use futures::future::BoxFuture;
use iceberg::io::FileIO;
use iceberg::spec::{ManifestFile, ManifestStatus, SnapshotRef, TableMetadata};
use philotes_sdk::Result;

use crate::base::read_manifest_list;
use crate::lineage;
use crate::manifests;

/// More snapshots than this outside the main branch are not read to find out which files they use.
const MAX_LISTS_READ: usize = 16;
/// Files read or removed at a time.
const AT_ONCE: usize = 16;

/// Snapshots that a request removed, with the files that were theirs by the metadata before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removed {
    snapshots: Vec<SnapshotRef>,
    statistics: Vec<String>,
}

impl Removed {
    /// Those with these ids that the metadata has.
    pub(super) fn of(replaced: &TableMetadata, ids: &[i64]) -> Self {
        let snapshots: Vec<_> = ids.iter().filter_map(|id| replaced.snapshot_by_id(*id)).cloned().collect();
        let mut statistics = Vec::new();
        for id in snapshots.iter().map(|snapshot| snapshot.snapshot_id()) {
            statistics.extend(replaced.statistics_for_snapshot(id).map(|file| file.statistics_path.clone()));
            statistics.extend(replaced.partition_statistics_for_snapshot(id).map(|file| file.statistics_path.clone()));
        }
        Self { snapshots, statistics }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.snapshots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.snapshots.len()
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.snapshots.iter().any(|snapshot| snapshot.snapshot_id() == id)
    }
}

impl FromIterator<Removed> for Removed {
    fn from_iter<T: IntoIterator<Item = Removed>>(all: T) -> Self {
        let mut union = Self::default();
        let mut seen = HashSet::new();
        for Removed { snapshots, statistics } in all {
            union.snapshots.extend(snapshots.into_iter().filter(|snapshot| seen.insert(snapshot.snapshot_id())));
            union.statistics.extend(statistics);
        }
        union
    }
}

/// Removes files of expired snapshots. Remembers the list that it will need with the next ones.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    last: Option<(i64, Vec<ManifestFile>)>,
}

impl Cleaner {
    /// Removes what only these snapshots used; `metadata` is the table's after they are gone.
    pub(super) async fn clean(&mut self, files: &FileIO, metadata: &TableMetadata, removed: Removed) {
        if removed.is_empty() {
            return;
        }
        match self.unreachable(files, metadata, removed).await {
            Ok(locations) => {
                let removals = locations.into_iter().map(async |location| {
                    if let Err(error) = files.delete(&location).await {
                        tracing::debug!(location, %error, "a file of an expired snapshot stays");
                    }
                });
                futures::stream::iter(removals).buffer_unordered(AT_ONCE).collect::<()>().await;
            }
            Err(error) => tracing::warn!(%error, "files of expired snapshots stay"),
        }
    }

    async fn unreachable(
        &mut self,
        files: &FileIO,
        metadata: &TableMetadata,
        Removed { mut snapshots, statistics }: Removed,
    ) -> Result<Vec<String>> {
        snapshots.retain(|snapshot| metadata.snapshot_by_id(snapshot.snapshot_id()).is_none());
        let mut gone = statistics;
        let kept: HashSet<&str> = metadata
            .statistics_iter()
            .map(|file| file.statistics_path.as_str())
            .chain(metadata.partition_statistics_iter().map(|file| file.statistics_path.as_str()))
            .collect();
        gone.retain(|path| !kept.contains(path.as_str()));
        // A snapshot uses manifests of the one before it and new ones. So within one line of history, what the oldest
        // that is left does not use, none does.
        let line: Vec<_> = lineage::history(metadata).collect();
        let in_line: HashSet<i64> = line.iter().map(|snapshot| snapshot.snapshot_id()).collect();
        let aside: Vec<_> = metadata.snapshots().filter(|s| !in_line.contains(&s.snapshot_id())).collect();
        if aside.len() > MAX_LISTS_READ {
            tracing::debug!(snapshots = aside.len(), "too many snapshots aside of the main branch: manifests stay");
            gone.extend(snapshots.iter().map(|snapshot| snapshot.manifest_list().to_owned()));
            return Ok(gone);
        }
        let mut seen = HashSet::new();
        for snapshot in &aside {
            seen.extend(read_manifest_list(files, metadata, snapshot).await?.into_iter().map(|m| m.manifest_path));
        }
        let previous = self.last.take();
        if let Some(oldest) = line.last() {
            let list = read_manifest_list(files, metadata, oldest).await?;
            seen.extend(list.iter().map(|manifest| manifest.manifest_path.clone()));
            if aside.is_empty() {
                gone.extend(dropped_files(files, oldest, &list).await?);
            }
            self.last = Some((oldest.snapshot_id(), list));
        }
        let ids: HashSet<i64> = snapshots.iter().map(|snapshot| snapshot.snapshot_id()).collect();
        let mut lists: Vec<BoxFuture<'_, _>> = Vec::with_capacity(snapshots.len());
        for snapshot in &snapshots {
            let known = previous.as_ref().filter(|(id, _)| *id == snapshot.snapshot_id()).map(|(_, list)| list.clone());
            lists.push(Box::pin(async move {
                let list = match known {
                    Some(list) => Ok(list),
                    None => read_manifest_list(files, metadata, snapshot).await,
                };
                (snapshot, list)
            }));
        }
        let mut lists = futures::stream::iter(lists).buffered(AT_ONCE);
        while let Some((snapshot, list)) = lists.next().await {
            let list = match list {
                Ok(list) => list,
                Err(error) => {
                    // Somebody who died on the way has removed it, say. What it names is left to an orphan run.
                    tracing::debug!(snapshot = snapshot.snapshot_id(), %error, "files of an expired snapshot stay");
                    continue;
                }
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
