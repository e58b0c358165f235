//! Finds the keys in data files, from the newest file back, whatever has been deleted since.

use std::sync::atomic::{AtomicI64, Ordering};

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{ManifestContentType, ManifestFile};
use parquet::arrow::arrow_reader::RowSelection;
use philotes_sdk::{Error, Result};

use super::entries::{self, DataEntry};
use super::input::Inputs;
use super::keys::Keys;
use super::{Candidate, READ_AT_ONCE, Wanted};
use crate::base::Base;

/// The sequence number at which each key was found.
struct Sought {
    found_at: Vec<AtomicI64>,
    wanted: Wanted,
}

impl Sought {
    fn new(keys: usize, wanted: Wanted) -> Self {
        Self { found_at: std::iter::repeat_with(|| AtomicI64::new(i64::MIN)).take(keys).collect(), wanted }
    }

    /// Whether a key is looked for in files of this sequence number: it was not found in newer ones. Several files of one
    /// commit may hold it, of which all but one have deleted it again.
    fn wants(&self, key: usize, sequence: i64) -> bool {
        self.wanted == Wanted::All || self.found_at[key].load(Ordering::Relaxed) <= sequence
    }

    fn found(&self, key: usize, sequence: i64) {
        self.found_at[key].store(sequence, Ordering::Relaxed);
    }

    fn wants_any(&self, sequence: i64) -> bool {
        (0..self.found_at.len()).any(|key| self.wants(key, sequence))
    }
}

/// The newest rows of each key, dead or alive, by their keys; and the files that hold them.
pub(super) async fn candidates(
    base: &Base,
    inputs: &Inputs<'_>,
    manifests: &[ManifestFile],
    keys: &Keys,
    wanted: Wanted,
) -> Result<(Vec<DataEntry>, Vec<Candidate>)> {
    let mut manifests: Vec<&ManifestFile> = manifests
        .iter()
        .filter(|m| m.content == ManifestContentType::Data && (m.has_added_files() || m.has_existing_files()))
        .collect();
    manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.sequence_number));
    let sought = Sought::new(keys.len(), wanted);
    let (mut files, mut candidates) = (Vec::new(), Vec::new());
    let mut waiting = Vec::new();
    let mut unread = manifests.as_slice();
    while !unread.is_empty() {
        let (now, later) = unread.split_at(unread.len().min(READ_AT_ONCE));
        unread = later;
        waiting.extend(entries::data(inputs.files, &base.metadata, now, keys).await?);
        // No manifest has files that are newer than itself.
        let unknown = later.first().map_or(i64::MIN, |manifest| manifest.sequence_number);
        waiting.sort_by_key(|file: &DataEntry| std::cmp::Reverse(file.sequence));
        let older = waiting.split_off(waiting.partition_point(|file| file.sequence > unknown));
        scan(inputs, std::mem::replace(&mut waiting, older), keys, &sought, &mut files, &mut candidates).await?;
        if !sought.wants_any(unknown) {
            break;
        }
    }
    candidates.sort_by_key(|candidate| (candidate.key, candidate.file, candidate.position));
    Ok((files, candidates))
}

/// Looks into files, which come by falling sequence number.
async fn scan(
    inputs: &Inputs<'_>,
    waiting: Vec<DataEntry>,
    keys: &Keys,
    sought: &Sought,
    files: &mut Vec<DataEntry>,
    candidates: &mut Vec<Candidate>,
) -> Result<()> {
    let mut reads: Vec<BoxFuture<'_, Result<_>>> = Vec::with_capacity(waiting.len());
    for file in waiting {
        reads.push(Box::pin(async move {
            let rows = rows_with(inputs, &file, keys, sought).await?;
            Ok((file, rows))
        }));
    }
    // A file is begun before those before it are done, and looks for keys that they may turn out to hold.
    let mut reads = futures::stream::iter(reads).buffered(READ_AT_ONCE);
    while let Some((file, mut rows)) = reads.try_next().await? {
        rows.retain(|(key, _)| sought.wants(*key, file.sequence));
        if rows.is_empty() {
            continue;
        }
        for (key, position) in rows {
            sought.found(key, file.sequence);
            candidates.push(Candidate { key, file: files.len(), position });
        }
        files.push(file);
    }
    Ok(())
}

/// The keys that a file holds, and where.
async fn rows_with(inputs: &Inputs<'_>, file: &DataEntry, keys: &Keys, sought: &Sought) -> Result<Vec<(usize, u64)>> {
    let wanted = |key| sought.wants(key, file.sequence);
    if !keys.any_within(&file.bounds, wanted) {
        return Ok(Vec::new());
    }
    let open = inputs.open(&file.file, keys.columns()).await?;
    let groups = open.row_groups();
    let rows = groups.last().map_or(0, |last| last.end);
    let mut ranges = Vec::with_capacity(groups.len());
    for (group, bounds) in groups.into_iter().zip(open.bounds(keys)?) {
        if keys.any_within(&bounds, wanted) {
            ranges.push(group);
        }
    }
    let selection = selection(ranges.iter().cloned(), rows)?;
    let mut positions = ranges.into_iter().flatten();
    let mut found = Vec::new();
    let mut pieces = open.read(Some(selection)).await?;
    while let Some((_, columns)) = pieces.next().await? {
        // Zipped in this order, a position is taken only where there is a row for it.
        for (key, position) in keys.numbers(&columns)?.into_iter().zip(positions.by_ref()) {
            found.extend(key.filter(|key| wanted(*key)).map(|key| (key, position)));
        }
    }
    Ok(found)
}

/// Rows of a file with so many of them.
pub(super) fn selection(ranges: impl Iterator<Item = std::ops::Range<u64>>, rows: u64) -> Result<RowSelection> {
    let row = |row| usize::try_from(row).map_err(|e| Error::data("a file has too many rows").with_source(e));
    let ranges = ranges.map(|range| Ok(row(range.start)?..row(range.end)?)).collect::<Result<Vec<_>>>()?;
    Ok(RowSelection::from_consecutive_ranges(ranges.into_iter(), row(rows)?))
}
