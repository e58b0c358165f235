//! Which keys the table cannot hold: nothing has to be removed of them.
//!
//! Two things are known of the keys that may be there, both by what the table's files say and never by what a source promises.
//! Bounds: no key lies outside of what the manifests tell of the key's columns, which is enough where keys rise. And a filter of all
//! keys that there are, in memory: exact for as long as they are few, then a Bloom filter, then nothing. Both take in what this
//! task writes; of what somebody else has committed, or this connector before, bounds are read from the manifests, and the keys
//! themselves only once they decide something.
//!
//! Saying that a key may be there when it is not costs a needless delete. The other way round would leave two rows of one key.

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use iceberg::spec::{DataFile, ManifestContentType, Operation};
use parquet::bloom_filter::Sbbf;
use philotes_sdk::{Error, Result};

use super::key::Key;
use super::stage::ChangedKeys;
use crate::base::Base;
use crate::lookup;
use crate::manifests;
use bounds::Bounds;

mod bounds;

/// What a slot of the exact filter takes, with what is left free beside it.
const SLOT_BYTES: usize = 10;
/// A Bloom filter with fewer bits per key tells too little.
const MIN_BITS_PER_KEY: usize = 8;

/// Memory that the filters of a task's tables may take together, in bytes.
#[derive(Debug)]
pub(crate) struct FilterBudget {
    total: usize,
    left: AtomicUsize,
}

impl FilterBudget {
    pub(crate) fn new(total: usize) -> Self {
        Self { total, left: AtomicUsize::new(total) }
    }

    /// What is taken.
    pub(crate) fn taken(&self) -> usize {
        self.total - self.left.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is known of the keys that a table holds.
#[derive(Debug)]
pub(super) struct Known {
    budget: Arc<FilterBudget>,
    /// The key's columns, with the types in which the rest is kept.
    schema: Option<SchemaRef>,
    /// Of every live file that was added up to this sequence number the bounds are known, and its keys are in the filter or the
    /// file is unread.
    covered: i64,
    bounds: Vec<Bounds>,
    /// `None` once there is no room for it.
    filter: Option<Filter>,
    /// Files whose keys are not in the filter.
    unread: Vec<DataFile>,
}

impl Known {
    pub(super) fn new(budget: Arc<FilterBudget>) -> Self {
        Self {
            filter: Some(Filter::new(budget.clone())),
            budget,
            schema: None,
            covered: 0,
            bounds: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// Forgets everything: the commit that is under way empties the table.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::new(self.budget.clone());
    }

    /// Makes it ready for keys of this schema.
    fn begin(&mut self, schema: &SchemaRef) {
        if self.schema.as_ref() != Some(schema) {
            // What is kept of keys of other types is told apart by other bytes.
            self.begin_anew();
            self.bounds = vec![Bounds::Nothing; schema.fields().len()];
            self.schema = Some(schema.clone());
        }
    }

    /// Everything that was added up to this sequence number is known.
    pub(super) fn covers(&mut self, sequence_number: i64) {
        self.covered = self.covered.max(sequence_number);
    }

    /// For each of these keys, whether the table may hold it, as it is in this base.
    pub(super) async fn may_hold(
        &mut self,
        base: &mut Base,
        key: &Key,
        changed: &[ChangedKeys],
    ) -> Result<Vec<BooleanArray>> {
        let Some(schema) = changed.first().map(|keys| keys.columns.schema()) else { return Ok(Vec::new()) };
        self.begin(&schema);
        self.cover(base, key, &schema).await?;
        let within = changed.iter().map(|keys| self.within(&keys.columns)).collect::<Result<Vec<_>>>()?;
        let decides = changed.iter().zip(&within).any(|(keys, within)| {
            keys.inserted.iter().zip(within.values()).any(|(inserted, within)| *inserted && within)
        });
        if decides {
            self.read(base, key, &schema).await?;
        }
        let Some(filter) = self.filter.as_ref().filter(|_| self.unread.is_empty()) else { return Ok(within) };
        let converter = converter(&schema)?;
        let held = |(keys, within): (&ChangedKeys, &BooleanArray)| {
            let rows = converter.convert_columns(keys.columns.columns()).map_err(failed)?;
            let holds = |(row, within): (usize, bool)| within && filter.holds(hash(rows.row(row).data()));
            Ok(within.values().iter().enumerate().map(holds).map(Some).collect())
        };
        changed.iter().zip(&within).map(held).collect()
    }

    /// Takes in the keys of rows that are in the table.
    pub(super) fn note(&mut self, keys: &RecordBatch) -> Result<()> {
        self.begin(&keys.schema());
        for (bounds, column) in self.bounds.iter_mut().zip(keys.columns()) {
            bounds.take_in(column)?;
        }
        let rows = converter(&keys.schema())?.convert_columns(keys.columns()).map_err(failed)?;
        for row in &rows {
            let Some(filter) = &mut self.filter else { break };
            if !filter.add(hash(row.data())) {
                self.give_up();
            }
        }
        Ok(())
    }

    /// Does without a filter from now on.
    fn give_up(&mut self) {
        tracing::info!(
            "the table has more keys than memory has room for: from now on keys between the least and the greatest get \
             deletes when they are inserted"
        );
        self.filter = None;
        self.unread.clear();
    }

    /// Looks at what was committed since.
    async fn cover(&mut self, base: &mut Base, key: &Key, schema: &SchemaRef) -> Result<()> {
        let Some(head) = base.head().map(|head| head.sequence_number()) else { return Ok(()) };
        if head <= self.covered {
            return Ok(());
        }
        let listed = base.manifests().await?;
        let new = listed.iter().filter(|m| m.content == ManifestContentType::Data && m.sequence_number > self.covered);
        let mut bounds = self.bounds.clone();
        let mut unread = Vec::new();
        for manifest in new.filter(|m| m.has_added_files() || m.has_existing_files()) {
            let read = manifests::read(&base.files, manifest).await?;
            for entry in read.entries.into_iter().filter(|entry| entry.is_alive()) {
                let added = entry.file_sequence_number.or(entry.sequence_number).unwrap_or(i64::MAX);
                if added <= self.covered || self.was_covered(base, entry.snapshot_id) {
                    continue;
                }
                for ((bounds, id), field) in bounds.iter_mut().zip(&key.ids).zip(schema.fields()) {
                    bounds.take_in_file(&entry.data_file, *id, field.data_type())?;
                }
                unread.push(entry.data_file);
            }
        }
        self.bounds = bounds;
        if self.filter.is_some() {
            self.unread.extend(unread);
        }
        self.covered = head;
        Ok(())
    }

    /// Whether a snapshot only put files in the place of others, with the same rows, that are all known.
    fn was_covered(&self, base: &Base, snapshot_id: Option<i64>) -> bool {
        let snapshot = |id: Option<i64>| id.and_then(|id| base.metadata.snapshot_by_id(id));
        snapshot(snapshot_id).is_some_and(|replaced| {
            replaced.summary().operation == Operation::Replace
                && snapshot(replaced.parent_snapshot_id()).is_some_and(|p| p.sequence_number() <= self.covered)
        })
    }

    /// Which keys lie within the bounds.
    fn within(&self, keys: &RecordBatch) -> Result<BooleanArray> {
        let mut within = vec![true; keys.num_rows()];
        for (bounds, column) in self.bounds.iter().zip(keys.columns()) {
            bounds.keep(column, &mut within)?;
        }
        Ok(BooleanArray::from(within))
    }

    /// Reads the keys of files whose keys are not in the filter, if it has room for them.
    async fn read(&mut self, base: &Base, key: &Key, schema: &SchemaRef) -> Result<()> {
        let Some(filter) = &self.filter else { return Ok(()) };
        let rows: u64 = self.unread.iter().map(DataFile::record_count).sum();
        if usize::try_from(rows).map_or(true, |rows| filter.len() + rows > self.budget.total * 8 / MIN_BITS_PER_KEY) {
            self.give_up();
            return Ok(());
        }
        let unread = std::mem::take(&mut self.unread);
        let outcome = self.read_all(base, key, schema, &unread).await;
        if outcome.is_err() {
            // Keys that are taken in twice are no harm.
            self.unread = unread;
        }
        outcome
    }

    async fn read_all(&mut self, base: &Base, key: &Key, schema: &SchemaRef, files: &[DataFile]) -> Result<()> {
        for file in files {
            lookup::keys_of(base, file, &key.ids, |keys| {
                self.note(&keys.clone().with_schema(schema.clone()).map_err(failed)?)
            })
            .await?;
        }
        Ok(())
    }
}

/// The hashes of the keys that a table holds.
#[derive(Debug)]
struct Filter {
    budget: Arc<FilterBudget>,
    taken: usize,
    hashes: Hashes,
    len: usize,
}

enum Hashes {
    Exact(HashTable<u64>),
    Bloom(Sbbf),
}

impl std::fmt::Debug for Hashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Exact(_)) { "Exact" } else { "Bloom" })
    }
}

impl Filter {
    fn new(budget: Arc<FilterBudget>) -> Self {
        Self { budget, taken: 0, hashes: Hashes::Exact(HashTable::new()), len: 0 }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn holds(&self, hash: u64) -> bool {
        match &self.hashes {
            Hashes::Exact(table) => table.find(hash, |other| *other == hash).is_some(),
            Hashes::Bloom(bloom) => bloom.check(&hash.to_le_bytes()[..]),
        }
    }

    /// Takes a key in; `false` where there is no room.
    fn add(&mut self, hash: u64) -> bool {
        if self.holds(hash) {
            return true;
        }
        if !self.make_room() {
            return false;
        }
        match &mut self.hashes {
            Hashes::Exact(table) => {
                table.insert_unique(hash, hash, |hash| *hash);
            }
            Hashes::Bloom(bloom) => bloom.insert(&hash.to_le_bytes()[..]),
        }
        self.len += 1;
        true
    }

    fn make_room(&mut self) -> bool {
        match &self.hashes {
            Hashes::Exact(table) if table.len() < table.capacity() => true,
            Hashes::Exact(table) => {
                // While it grows, old and new are there.
                let grown = table.capacity().max(7) * 2 * SLOT_BYTES;
                if grown <= self.budget.total / 2 && self.budget.take(grown - self.taken) {
                    self.taken = grown;
                    return true;
                }
                self.make_bloom()
            }
            Hashes::Bloom(bloom) => bloom.num_blocks() * 256 / MIN_BITS_PER_KEY > self.len,
        }
    }

    fn make_bloom(&mut self) -> bool {
        let Hashes::Exact(table) = &self.hashes else { return false };
        // The greatest power of two that there is memory for.
        let room = self.taken + self.budget.left.load(Ordering::Relaxed);
        let bytes = if room == 0 { 0 } else { 1 << room.ilog2() };
        if bytes * 8 / MIN_BITS_PER_KEY <= self.len || !self.budget.take(bytes.saturating_sub(self.taken)) {
            return false;
        }
        let mut bloom = Sbbf::new_with_num_of_bytes(bytes);
        table.iter().for_each(|hash| bloom.insert(&hash.to_le_bytes()[..]));
        self.hashes = Hashes::Bloom(bloom);
        self.budget.give_back(self.taken.saturating_sub(bytes));
        self.taken = bytes;
        true
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.budget.give_back(self.taken);
    }
}

fn hash(key: &[u8]) -> u64 {
    // Of one process only, and what is found equal here by accident costs a needless delete.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

fn converter(schema: &SchemaRef) -> Result<RowConverter> {
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
    RowConverter::new(fields.collect()).map_err(failed)
}

fn failed(error: arrow::error::ArrowError) -> Error {
    Error::internal("keys cannot be compared").with_source(error)
}

#[cfg(test)]
mod tests;
