//! Manifests of a commit: those of the added files, and the parent's, merged as they pile up.
//!
//! Every commit adds a manifest, so that without merging each manifest list would be longer than the one before it. Once
//! as many small ones have piled up as the table's property says (100, as in Java), they become one; full ones stay.

mod avro;
mod names;
mod output;
mod read;

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, FormatVersion, ManifestContentType, ManifestFile, ManifestListWriter,
    PartitionSpecRef, SchemaRef, Struct, TableMetadata,
};
use philotes_sdk::{Error, Result};
use uuid::Uuid;

use crate::base::Base;
use crate::error::from_iceberg;
use crate::partition::alike_bytes;
use crate::storage;

pub(crate) use avro::{Content, MAGIC, bounded};
use output::Output;
pub(crate) use read::read;
#[cfg(feature = "fuzz")]
pub(crate) use {avro::file_of, names::readable};

/// Manifests read at a time when they are merged.
const READ_AT_ONCE: usize = 8;

/// A file with rows or deletes that waits to be committed, and the table's schema and the partition spec it was written with. Both may
/// be older than the table's current ones: readers find columns by id, and a manifest names its own spec.
#[derive(Clone, Debug)]
pub(crate) struct AddedFile {
    pub(crate) file: DataFile,
    pub(crate) schema: SchemaRef,
    pub(crate) spec: PartitionSpecRef,
}

/// The snapshot that manifests are written for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotIds {
    pub(crate) commit_id: Uuid,
    pub(crate) snapshot_id: i64,
    pub(crate) sequence_number: i64,
}

/// What was written for a snapshot.
pub(crate) struct Written {
    /// Where its manifest list is.
    pub(crate) list: String,
    /// What that lists.
    pub(crate) manifests: Arc<Vec<ManifestFile>>,
    /// The ids that it gives to rows.
    pub(crate) rows: Option<RowIds>,
    /// Every file that was written, the list included.
    pub(crate) locations: Vec<String>,
    /// What is no longer part of the table.
    pub(crate) removed: Tally,
}

/// The row ids that a snapshot hands out, in tables that have them: from the first on, at most so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowIds {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// Writes the manifests of a snapshot that adds `added` to the base, and its manifest list; `empties`: after it has removed all
/// files that are there. After an error nothing of it is left.
pub(crate) async fn write(base: &mut Base, added: &[AddedFile], empties: bool, ids: SnapshotIds) -> Result<Written> {
    let parents = base.manifests().await?;
    let mut folder = Folder { base, ids, locations: Vec::new(), removed: Tally::default() };
    match folder.write(added, &parents, empties).await {
        Ok((list, manifests, rows)) => {
            let Folder { locations, removed, .. } = folder;
            Ok(Written { list, manifests: Arc::new(manifests), rows, locations, removed })
        }
        Err(error) => {
            storage::discard(&base.files, folder.locations).await;
            Err(error)
        }
    }
}

/// The table's metadata folder, for one snapshot.
struct Folder<'a> {
    base: &'a Base,
    ids: SnapshotIds,
    /// What was written, or begun.
    locations: Vec<String>,
    removed: Tally,
}

impl AddedFile {
    /// Whether it deletes rows.
    pub(crate) fn is_deletes(&self) -> bool {
        self.file.content_type() != DataContentType::Data
    }
}

/// Files, counted as summaries of snapshots tell them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) data_files: u64,
    pub(crate) records: u64,
    pub(crate) delete_files: u64,
    pub(crate) equality_delete_files: u64,
    pub(crate) equality_deletes: u64,
    pub(crate) position_delete_files: u64,
    pub(crate) deletion_vectors: u64,
    pub(crate) position_deletes: u64,
    pub(crate) bytes: u64,
    pub(crate) partitions: HashSet<(i32, Struct)>,
}

impl Tally {
    pub(crate) fn of(added: &[AddedFile]) -> Self {
        let mut tally = Self::default();
        added.iter().for_each(|added| tally.count(&added.file, added.spec.spec_id()));
        tally
    }

    fn count(&mut self, file: &DataFile, spec_id: i32) {
        self.bytes += file.file_size_in_bytes();
        self.partitions.insert((spec_id, file.partition().clone()));
        match file.content_type() {
            DataContentType::Data => {
                self.data_files += 1;
                self.records += file.record_count();
            }
            DataContentType::EqualityDeletes => {
                self.delete_files += 1;
                self.equality_delete_files += 1;
                self.equality_deletes += file.record_count();
            }
            DataContentType::PositionDeletes => {
                self.delete_files += 1;
                match file.file_format() {
                    DataFileFormat::Puffin => self.deletion_vectors += 1,
                    _ => self.position_delete_files += 1,
                }
                self.position_deletes += file.record_count();
            }
        }
    }
}

impl Folder<'_> {
    async fn write(
        &mut self,
        added: &[AddedFile],
        parents: &[ManifestFile],
        empties: bool,
    ) -> Result<(String, Vec<ManifestFile>, Option<RowIds>)> {
        let mut manifests = self.add(added).await?;
        // A manifest that only tells of removals has told it in its own snapshot.
        let alive = parents.iter().filter(|manifest| is_alive(manifest));
        let least = least_data_sequence(parents);
        let mut kept = Vec::new();
        for manifest in alive {
            if empties || self.is_dangling(manifest, least).await? {
                manifests.push(self.remove(manifest).await?);
            } else {
                kept.push(manifest.clone());
            }
        }
        manifests.extend(self.merge(kept).await?);
        let rows = if self.has_row_ids() { Some(assign_row_ids(&mut manifests, &self.base.metadata)?) } else { None };
        let list = self.write_list(&manifests, rows).await?;
        Ok((list, manifests, rows))
    }

    /// Whether a manifest holds nothing but equality deletes that every row is younger than, as after a compaction.
    async fn is_dangling(&self, manifest: &ManifestFile, least: i64) -> Result<bool> {
        if !may_dangle(manifest, least) {
            return Ok(false);
        }
        let read = read(&self.base.files, manifest).await?;
        let mut alive = read.entries.iter().filter(|entry| entry.is_alive());
        Ok(alive.all(|entry| entry.content_type() == DataContentType::EqualityDeletes))
    }

    fn has_row_ids(&self) -> bool {
        self.base.metadata.format_version() >= FormatVersion::V3
    }

    fn location(&self, name: &str) -> String {
        let metadata = &self.base.metadata;
        let default = || format!("{}/metadata", metadata.location());
        let folder = metadata.properties().get("write.metadata.path").cloned().unwrap_or_else(default);
        format!("{}/{name}", folder.trim_end_matches('/'))
    }

    fn begin(&mut self, what: (ManifestContentType, &SchemaRef, &PartitionSpecRef)) -> Result<Output> {
        let location = self.location(&format!("{}-m{}.avro", self.ids.commit_id, self.locations.len()));
        self.locations.push(location.clone());
        Output::begin(location, &self.base.files, self.ids.snapshot_id, what, self.has_row_ids())
    }

    async fn close(&self, output: Output) -> Result<ManifestFile> {
        let mut manifest = output.close(&self.base.files).await?;
        // What the manifest list's writer would put into its file, so that memory and file say the same.
        manifest.sequence_number = self.ids.sequence_number;
        if manifest.min_sequence_number < 0 {
            manifest.min_sequence_number = self.ids.sequence_number;
        }
        Ok(manifest)
    }

    /// One manifest per content, partition spec and schema among the added files.
    async fn add(&mut self, added: &[AddedFile]) -> Result<Vec<ManifestFile>> {
        let mut groups: BTreeMap<(bool, i32, i32), Vec<&AddedFile>> = BTreeMap::new();
        for file in added {
            let group = (file.is_deletes(), file.spec.spec_id(), file.schema.schema_id());
            groups.entry(group).or_default().push(file);
        }
        let mut manifests = Vec::with_capacity(groups.len());
        for group in groups.into_values() {
            let content = if group[0].is_deletes() { ManifestContentType::Deletes } else { ManifestContentType::Data };
            let mut output = self.begin((content, &group[0].schema, &group[0].spec))?;
            for added in group {
                output.add(added.file.clone())?;
            }
            manifests.push(self.close(output).await?);
        }
        Ok(manifests)
    }

    /// The parent's manifests, merged where enough have piled up.
    async fn merge(&mut self, parents: Vec<ManifestFile>) -> Result<Vec<ManifestFile>> {
        let limits = MergeLimits::of(&self.base.metadata)?;
        let mut merged = Vec::new();
        for bin in limits.bins(parents) {
            match bin {
                Bin::Keep(manifests) => merged.extend(manifests),
                Bin::Merge(manifests) if self.can_be_merged(&manifests) => {
                    merged.push(self.merge_into_one(&manifests).await?);
                }
                Bin::Merge(manifests) => merged.extend(manifests),
            }
        }
        Ok(merged)
    }

    /// Whether manifests can be read and written again: those of an earlier specification need not.
    fn can_be_merged(&self, manifests: &[ManifestFile]) -> bool {
        let spec = manifests.first().and_then(|first| self.base.metadata.partition_spec_by_id(first.partition_spec_id));
        spec.is_none_or(|spec| {
            let sources = spec.fields().iter().map(|field| (field.transform, field.source_id));
            alike_bytes(sources, self.base.metadata.current_schema()).is_none()
        })
    }

    /// A manifest that says of all files of another that they are no longer part of the table.
    async fn remove(&mut self, manifest: &ManifestFile) -> Result<ManifestFile> {
        let metadata = self.base.metadata.clone();
        let spec = spec_of(&metadata, manifest)?;
        let read = read(&self.base.files, manifest).await?;
        let current = metadata.current_schema();
        let schema = if spec.partition_type(current).is_ok() { current } else { &read.schema };
        let mut output = self.begin((manifest.content, schema, spec))?;
        for entry in read.entries.iter().filter(|entry| entry.is_alive()) {
            output.remove(entry)?;
            self.removed.count(&entry.data_file, spec.spec_id());
        }
        self.close(output).await
    }

    async fn merge_into_one(&mut self, manifests: &[ManifestFile]) -> Result<ManifestFile> {
        let metadata = self.base.metadata.clone();
        let spec = spec_of(&metadata, &manifests[0])?;
        let files = &self.base.files;
        let mut reads: Vec<BoxFuture<'_, _>> = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            reads.push(Box::pin(read(files, manifest)));
        }
        let loaded: Vec<_> = futures::stream::iter(reads)
            .buffered(READ_AT_ONCE)
            .try_collect()
            .await
            .map_err(|e: Error| e.context("cannot merge manifests"))?;
        // The current schema, unless the spec is over a column that it no longer has: then one that has it.
        let current = metadata.current_schema();
        let schema = if spec.partition_type(current).is_ok() { current } else { &loaded[0].schema };
        let mut output = self.begin((manifests[0].content, schema, spec))?;
        for entry in loaded.iter().flat_map(|manifest| &manifest.entries).filter(|entry| entry.is_alive()) {
            output.keep(entry)?;
        }
        self.close(output).await
    }

    async fn write_list(&mut self, manifests: &[ManifestFile], rows: Option<RowIds>) -> Result<String> {
        let SnapshotIds { commit_id, snapshot_id, sequence_number } = self.ids;
        let location = self.location(&format!("snap-{snapshot_id}-0-{commit_id}.avro"));
        self.locations.push(location.clone());
        let failed = |e| from_iceberg("cannot write a manifest list", e);
        let output = self.base.files.new_output(&location).map_err(failed)?;
        let writer = output.writer().await.map_err(failed)?;
        let parent = self.base.head().map(|head| head.snapshot_id());
        let mut list = match rows {
            Some(rows) => ManifestListWriter::v3(writer, snapshot_id, parent, sequence_number, Some(rows.first)),
            None => ManifestListWriter::v2(writer, snapshot_id, parent, sequence_number),
        };
        list.add_manifests(manifests.iter().cloned()).map_err(failed)?;
        list.close().await.map_err(failed)?;
        Ok(location)
    }
}

/// Whether a manifest has files that are part of the table.
pub(crate) fn is_alive(manifest: &ManifestFile) -> bool {
    manifest.has_added_files() || manifest.has_existing_files()
}

/// The least sequence number that a row of these manifests has.
pub(crate) fn least_data_sequence(manifests: &[ManifestFile]) -> i64 {
    let data = manifests.iter().filter(|m| m.content == ManifestContentType::Data && is_alive(m));
    data.map(|manifest| manifest.min_sequence_number).min().unwrap_or(i64::MAX)
}

/// Whether a manifest has deletes, and no row is older than any of them.
pub(crate) fn may_dangle(manifest: &ManifestFile, least: i64) -> bool {
    manifest.content == ManifestContentType::Deletes && manifest.sequence_number <= least
}

fn spec_of<'a>(metadata: &'a TableMetadata, manifest: &ManifestFile) -> Result<&'a PartitionSpecRef> {
    let id = manifest.partition_spec_id;
    metadata
        .partition_spec_by_id(id)
        .ok_or_else(|| Error::data(format!("a manifest names partition spec {id}, which the table lacks")))
}

/// Gives ids to the rows of the manifests that have none: those that are new, and those of a time when the table had no row
/// ids. A merged manifest is counted whole, as Java does, although each of its files goes on with the ids it has.
fn assign_row_ids(manifests: &mut [ManifestFile], metadata: &TableMetadata) -> Result<RowIds> {
    let first = metadata.next_row_id();
    let mut next = first;
    for manifest in manifests {
        if manifest.content != ManifestContentType::Data || manifest.first_row_id.is_some() {
            continue;
        }
        let (Some(existing), Some(added)) = (manifest.existing_rows_count, manifest.added_rows_count) else {
            return Err(Error::data(format!(
                "the manifest {} does not say how many rows it has, so that they cannot be given ids",
                manifest.manifest_path
            )));
        };
        manifest.first_row_id = Some(next);
        let after = next.checked_add(existing).and_then(|next| next.checked_add(added));
        next = after.ok_or_else(|| Error::data("the table's row ids are used up"))?;
    }
    Ok(RowIds { first, count: next - first })
}

/// What becomes of some of a table's manifests.
#[derive(Debug, PartialEq)]
enum Bin {
    Keep(Vec<ManifestFile>),
    Merge(Vec<ManifestFile>),
}

/// When manifests are merged: Java's table properties and their defaults.
#[derive(Clone, Copy, Debug)]
struct MergeLimits {
    enabled: bool,
    min_count: usize,
    target_bytes: u64,
}

impl MergeLimits {
    fn of(metadata: &TableMetadata) -> Result<Self> {
        Ok(Self {
            enabled: flag(metadata, "commit.manifest-merge.enabled", true),
            min_count: property(metadata, "commit.manifest.min-count-to-merge", 100)?,
            target_bytes: property(metadata, "commit.manifest.target-size-bytes", 8 << 20)?,
        })
    }

    /// Packs the manifests of each content and partition spec, which come newest first, into bins of the target size, beginning
    /// with the oldest: full bins come out the same every time, and only the newest is still filling. That one is merged
    /// once it holds `min_count`.
    fn bins(self, manifests: Vec<ManifestFile>) -> Vec<Bin> {
        if !self.enabled {
            return vec![Bin::Keep(manifests)];
        }
        let mut groups: BTreeMap<(bool, i32), Vec<ManifestFile>> = BTreeMap::new();
        for manifest in manifests {
            let is_data = manifest.content == ManifestContentType::Data;
            groups.entry((is_data, manifest.partition_spec_id)).or_default().push(manifest);
        }
        let mut bins = Vec::new();
        // Data first, and newer specs first, as their manifests are.
        for manifests in groups.into_values().rev() {
            let mut packed: Vec<Vec<ManifestFile>> = vec![Vec::new()];
            let mut bytes = 0;
            for manifest in manifests.into_iter().rev() {
                let length = u64::try_from(manifest.manifest_length).unwrap_or(0);
                if bytes + length > self.target_bytes && packed.last().is_some_and(|bin| !bin.is_empty()) {
                    packed.push(Vec::new());
                    bytes = 0;
                }
                bytes += length;
                if let Some(bin) = packed.last_mut() {
                    bin.push(manifest);
                }
            }
            for (age, mut bin) in packed.into_iter().rev().enumerate() {
                bin.reverse();
                let filling = age == 0 && bin.len() < self.min_count;
                bins.push(if filling || bin.len() < 2 { Bin::Keep(bin) } else { Bin::Merge(bin) });
            }
        }
        bins
    }
}

/// A table property that is true or false.
pub(crate) fn flag(metadata: &TableMetadata, name: &str, default: bool) -> bool {
    metadata.properties().get(name).map_or(default, |value| is_true(value))
}

/// A property's value as Iceberg's Java reads it: `true` in any case is true, and everything else is false.
pub(crate) fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// A property of the table, or its default.
pub(crate) fn property<T: FromStr>(metadata: &TableMetadata, name: &str, default: T) -> Result<T> {
    match metadata.properties().get(name) {
        None => Ok(default),
        Some(value) => value
            .parse()
            .map_err(|_| Error::config(format!("table property {name} is {value:?}, which is not what it can be"))),
    }
}
