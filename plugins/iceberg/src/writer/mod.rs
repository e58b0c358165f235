//! Writes rows of one table into data files: one open file per partition, rolled at the target size, with the metrics
//! that readers prune by.
//!
//! What is in the files is this module's; that they become part of the table is the commit's. Rows come projected to
//! the table's schema. Encoding happens on the calling thread, which is the sink's own: the source decodes on the
//! other, so that a second thread here would only take the source's core. Bytes leave on the runtime's threads.
//!
//! Rows are kept as they are until they take as much memory as an encoder does. So a task with many tables, each with a few
//! rows, has one encoder at a time, when the writers finish one after the other.
//!
//! Where rows are to be sorted they are all kept so, until half of the memory is full or the writer finishes: what was kept of a
//! partition is then sorted and becomes a file, or several that follow each other.
//!
//! Small files stay in memory until they are sent whole, and are sent again if that fails. Large ones, and what
//! memory has no room for, leave in parts as they grow; if such an upload breaks, its rows are gone from here.

mod dictionaries;
mod encode;
mod file;
mod metrics;
mod sorting;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use futures::StreamExt;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::io::FileIO;
use iceberg::spec::{DataFile, PartitionSpecRef, SchemaRef, SortOrderRef, TableMetadata};
use philotes_sdk::{Error, Result};
use uuid::Uuid;

use crate::partition::{PartitionKey, Partitioner, partition_path};
use crate::storage;
use dictionaries::Dictionaries;
use encode::Encoding;
use file::{ClosedFile, OpenFile};
use sorting::Sorting;

/// Rows are encoded in pieces of this many, so that a file ends near its target size however large a batch is.
const PIECE_ROWS: usize = 32 * 1024;
/// What an encoder takes per column before it has seen a value: the slots of its dictionary, mostly.
const ENCODER_BYTES_PER_COLUMN: usize = 80 << 10;
/// A batch with fewer rows than this is copied while it waits: what it came in takes more memory than the rows do.
const FEW_ROWS: usize = 256;
/// What an array takes beside its values: allocations of its own, with their headers and their rounding up.
const ARRAY_BYTES: usize = 512;
/// Files that are sent at a time when the writer finishes.
const FILES_UNDER_WAY: usize = 4;

/// How files are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterOptions {
    /// A file ends when it has about this size.
    pub(crate) target_file_bytes: u64,
    /// A row group ends when it has about this size.
    pub(crate) row_group_bytes: usize,
    /// The level of zstd.
    pub(crate) zstd_level: i32,
    /// Half of this is for rows in open row groups, half for encoded bytes. Beyond it the largest row group ends early, and
    /// bytes leave before their file is complete.
    pub(crate) max_buffer_bytes: usize,
    /// Beyond this, the file that waited longest for rows is closed.
    pub(crate) max_open_files: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            target_file_bytes: 128 << 20,
            row_group_bytes: 32 << 20,
            zstd_level: 1,
            max_buffer_bytes: 128 << 20,
            max_open_files: 64,
        }
    }
}

/// What is written to: a table in one state of its schema and partitioning.
#[derive(Clone, Debug)]
pub(crate) struct WriterTarget {
    /// The table's location, without a slash at its end.
    pub(crate) location: String,
    pub(crate) schema: SchemaRef,
    pub(crate) spec: PartitionSpecRef,
    /// What the rows of each file are sorted by; `None` leaves them as they come.
    pub(crate) order: Option<SortOrderRef>,
    /// What the files are.
    pub(crate) content: Content,
}

/// What files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The table's rows.
    Rows,
    /// Keys, in all of the columns, whose rows are deleted.
    EqualityDeletes,
}

impl WriterTarget {
    /// The table with its current schema and its default partitioning.
    pub(crate) fn current(metadata: &TableMetadata) -> Self {
        Self {
            location: metadata.location().trim_end_matches('/').to_owned(),
            schema: metadata.current_schema().clone(),
            spec: metadata.default_partition_spec().clone(),
            order: None,
            content: Content::Rows,
        }
    }

    /// The table's equality deletes under this specification; the columns are those of `key`.
    pub(crate) fn deletes(metadata: &TableMetadata, key: SchemaRef, spec: PartitionSpecRef) -> Self {
        Self { schema: key, spec, content: Content::EqualityDeletes, ..Self::current(metadata) }
    }

    /// The same with sorted files.
    pub(crate) fn sorted_by(mut self, order: Option<SortOrderRef>) -> Self {
        self.order = order;
        self
    }

    /// The id of the order that files have; 0 stands for none.
    fn sort_order_id(&self) -> i64 {
        self.order.as_ref().map_or(0, |order| order.order_id)
    }
}

/// Writes data files for one commit at a time.
///
/// Dropping it abandons what it has not handed out: open uploads are broken off, complete files removed as well as
/// that can be done.
pub(crate) struct TableWriter {
    files: FileIO,
    target: WriterTarget,
    options: WriterOptions,
    partitioner: Partitioner,
    sorting: Option<Sorting>,
    arrow: ArrowSchemaRef,
    /// How files are encoded, once one was; a table without open files need not keep it.
    encoding: Option<Encoding>,
    dictionaries: Dictionaries,
    /// Rows that no encoder has seen, with their partition, and the memory they take.
    staged: Vec<(PartitionKey, RecordBatch)>,
    staged_bytes: usize,
    open: HashMap<PartitionKey, OpenFile>,
    /// Encoded to their end and not yet stored.
    closed: Vec<ClosedFile>,
    /// Stored, and not yet handed out.
    stored: Vec<DataFile>,
    /// Every file begun and not yet handed out: what may lie in the storage, whatever its upload said.
    begun: Vec<String>,
    rows: u64,
    /// Counts pieces written: the age of open files.
    clock: u64,
    /// Rows were taken in and lost; nothing that is left may be committed.
    broken: bool,
}

impl TableWriter {
    /// A writer of files below the target's location.
    ///
    /// # Errors
    /// Config: a table whose partitioning or options cannot be followed.
    pub(crate) fn new(files: FileIO, target: WriterTarget, options: WriterOptions) -> Result<Self> {
        let arrow = schema_to_arrow_schema(&target.schema)
            .map_err(|e| Error::data("the table's schema cannot be written as Arrow").with_source(e))?;
        let arrow = Arc::new(arrow);
        // What cannot be encoded is refused before there are rows.
        Encoding::new(&target.schema, arrow.clone(), &options, &Dictionaries::default())?;
        let sorting = target.order.as_deref().map(|order| Sorting::new(order, &target.schema)).transpose()?;
        Ok(Self {
            partitioner: Partitioner::new(&target.spec, &target.schema)?,
            sorting,
            encoding: None,
            dictionaries: Dictionaries::default(),
            files,
            target,
            options,
            arrow,
            staged: Vec::new(),
            staged_bytes: 0,
            open: HashMap::new(),
            closed: Vec::new(),
            stored: Vec::new(),
            begun: Vec::new(),
            rows: 0,
            clock: 0,
            broken: false,
        })
    }

    /// Takes in rows that were projected to the table's schema.
    ///
    /// # Errors
    /// Fenced and Internal: rows were lost, and every later call fails as well. After every other the batch is as if it
    /// had never been given.
    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check()?;
        if batch.schema_ref() != &self.arrow {
            return Err(Error::internal("a batch that was not projected to the table's schema"));
        }
        // What can fail without loss comes before the rows are taken in.
        self.relieve().await?;
        // An encoder that is there takes them at once.
        let limit = if self.open.is_empty() { self.arrow.fields().len() * ENCODER_BYTES_PER_COLUMN } else { 0 };
        let groups = self.partitioner.split(batch)?;
        // A part of a batch that is kept for long must not keep the others.
        let parted = self.sorting.is_some() && groups.len() > 1;
        let groups = groups.into_iter().map(|(partition, rows)| {
            let rows = if rows.num_rows() < FEW_ROWS || parted { copied(&rows)? } else { rows };
            Ok((PartitionKey::from(partition), rows))
        });
        let groups = groups.collect::<Result<Vec<_>>>()?;
        self.staged_bytes += groups.iter().map(|(_, rows)| memory_of(rows)).sum::<usize>();
        self.staged.extend(groups);
        self.rows += batch.num_rows() as u64;
        if self.sorting.is_some() {
            let most = self.options.max_buffer_bytes / 2;
            return if self.staged_bytes > most { self.encode_largest(most / 2) } else { Ok(()) };
        }
        if self.staged_bytes >= limit { self.encode_staged(false) } else { Ok(()) }
    }

    /// Encodes the rows of the partitions of which most is kept, to the end of their files, until no more than this is left.
    fn encode_largest(&mut self, most_left: usize) -> Result<()> {
        let mut kept: HashMap<&PartitionKey, usize> = HashMap::new();
        for (partition, rows) in &self.staged {
            *kept.entry(partition).or_default() += memory_of(rows);
        }
        let mut kept: Vec<(PartitionKey, usize)> =
            kept.into_iter().map(|(partition, bytes)| (partition.clone(), bytes)).collect();
        kept.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let (mut left, mut chosen) = (self.staged_bytes, HashSet::new());
        for (partition, bytes) in kept {
            if left <= most_left {
                break;
            }
            left -= bytes;
            chosen.insert(partition);
        }
        let (now, later) = std::mem::take(&mut self.staged).into_iter().partition(|(at, _)| chosen.contains(at));
        self.staged = now;
        self.encode_staged(true)?;
        self.staged = later;
        self.staged_bytes = left;
        Ok(())
    }

    /// Encodes the rows that were kept; with `close`, to the end of their files, one after the other.
    fn encode_staged(&mut self, close: bool) -> Result<()> {
        self.staged_bytes = 0;
        // Should anything fail, rows are lost.
        let broken = std::mem::replace(&mut self.broken, true);
        let mut order: Vec<PartitionKey> = Vec::new();
        let mut groups: HashMap<PartitionKey, Vec<RecordBatch>> = HashMap::new();
        for (partition, rows) in std::mem::take(&mut self.staged) {
            let rows_of = groups.entry(partition.clone()).or_default();
            if rows_of.is_empty() {
                order.push(partition);
            }
            rows_of.push(rows);
        }
        for partition in order {
            let rows = groups.remove(&partition).unwrap_or_default();
            if let Some(sorting) = &self.sorting {
                let sorted = sorting.sorted(rows)?;
                for piece in sorted.pieces(PIECE_ROWS) {
                    self.encode(&partition, &piece?)?;
                }
            } else {
                for rows in rows {
                    self.encode(&partition, &rows)?;
                }
            }
            if close {
                self.close(&partition)?;
            }
        }
        self.broken = broken;
        Ok(())
    }

    /// Whether each of these rows has a place in a file.
    ///
    /// # Errors
    /// As those of [`write`](Self::write) that leave the batch as if it had never been given.
    pub(crate) fn accepts(&self, batch: &RecordBatch) -> Result<()> {
        self.partitioner.split(batch).map(drop)
    }

    /// Another way to the same files, for those whose bytes have not begun to leave.
    pub(crate) fn reach_files_by(&mut self, files: FileIO) {
        self.files = files;
    }

    /// Memory held by rows and by bytes that have not left, estimated.
    pub(crate) fn buffered_bytes(&self) -> usize {
        let open: usize = self.open.values().map(OpenFile::buffered_bytes).sum();
        let closed: usize = self.closed.iter().map(ClosedFile::buffered_bytes).sum();
        self.staged_bytes + open + closed
    }

    /// The schema of the rows that it takes.
    pub(crate) fn schema(&self) -> &ArrowSchemaRef {
        &self.arrow
    }

    /// The id of the order that files have; 0 stands for none.
    pub(crate) fn sort_order_id(&self) -> i64 {
        self.target.sort_order_id()
    }

    /// Rows taken in since the last [`finish`](Self::finish).
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Completes every file and hands them out: all of them are stored, and durably so, when this returns. After an error of
    /// kind Unavailable nothing is lost and it can be called again.
    pub(crate) async fn finish(&mut self) -> Result<Vec<DataFile>> {
        self.check()?;
        self.encode_staged(true)?;
        let mut partitions: Vec<PartitionKey> = self.open.keys().cloned().collect();
        // The order of a hash map would make two runs over the same rows differ.
        partitions.sort_by_key(|partition| self.open[partition].opened_at());
        for partition in partitions {
            self.close(&partition)?;
        }
        self.store_closed().await?;
        self.rows = 0;
        self.begun.clear();
        self.encoding = None;
        Ok(std::mem::take(&mut self.stored))
    }

    /// Gives everything up: the files that may lie in the storage, for nobody.
    pub(crate) fn abandon(&mut self) -> Vec<String> {
        self.broken = true;
        self.open.clear();
        self.closed.clear();
        self.stored.clear();
        std::mem::take(&mut self.begun)
    }

    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(Error::fenced("rows were lost on their way into a file, so they have to be read again"));
        }
        Ok(())
    }

    /// Stores files that were rolled and sends bytes ahead where there is too much in memory.
    async fn relieve(&mut self) -> Result<()> {
        self.store_closed().await?;
        let pending: usize = self.open.values().map(OpenFile::pending_bytes).sum();
        let mut excess = pending.saturating_sub(self.options.max_buffer_bytes / 2);
        let mut files: Vec<&mut OpenFile> = self.open.values_mut().filter(|file| file.pending_bytes() > 0).collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.pending_bytes()));
        for file in files {
            if excess == 0 && !file.is_large() {
                continue;
            }
            excess = excess.saturating_sub(file.pending_bytes());
            // Should this future be dropped halfway, a part of the file is in nobody's hands.
            self.broken = true;
            let sent = file.send(&self.files).await;
            self.broken = matches!(sent, Err((_, true)));
            sent.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    async fn store_closed(&mut self) -> Result<()> {
        if self.closed.is_empty() {
            return Ok(());
        }
        let files = &self.files;
        let closed = std::mem::take(&mut self.closed);
        // Should this future be dropped halfway, the files go with it.
        self.broken = true;
        let results: Vec<_> =
            futures::stream::iter(closed).map(|file| file.store(files)).buffered(FILES_UNDER_WAY).collect().await;
        self.broken = false;
        let mut first_error = None;
        for result in results {
            match result {
                Ok(file) => self.stored.push(file),
                Err((error, kept)) => {
                    let lost = kept.is_none();
                    self.broken |= lost;
                    self.closed.extend(kept);
                    // A loss outweighs what could be tried again.
                    if lost || first_error.is_none() {
                        first_error = Some(error);
                    }
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn encode(&mut self, partition: &PartitionKey, rows: &RecordBatch) -> Result<()> {
        let mut start = 0;
        while start < rows.num_rows() {
            let piece = rows.slice(start, PIECE_ROWS.min(rows.num_rows() - start));
            start += piece.num_rows();
            self.clock += 1;
            if !self.open.contains_key(partition) {
                self.make_room()?;
                let (location, file) = self.new_file(partition)?;
                self.begun.push(location);
                self.open.insert(partition.clone(), file);
            }
            let Some(file) = self.open.get_mut(partition) else { continue };
            file.write(&piece, self.clock)?;
            if file.encoded_bytes() >= self.options.target_file_bytes {
                self.close(partition)?;
            }
        }
        let unencoded: usize = self.open.values().map(OpenFile::unencoded_bytes).sum();
        if unencoded > self.options.max_buffer_bytes / 2 {
            // An ended row group is smaller than its builders, and it can leave before its file is complete.
            let largest = self.open.values_mut().max_by_key(|file| file.unencoded_bytes());
            largest.map_or(Ok(()), OpenFile::end_row_group)?;
        }
        Ok(())
    }

    /// Before a file is opened: not too many at once, and no more encoders than memory has room for.
    fn make_room(&mut self) -> Result<()> {
        let encoder = self.arrow.fields().len() * ENCODER_BYTES_PER_COLUMN;
        let most = (self.options.max_buffer_bytes / 2 / encoder.max(1)).min(self.options.max_open_files).max(1);
        if self.open.len() < most {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, file)| file.written_at()).map(|(partition, _)| partition.clone());
        oldest.map_or(Ok(()), |partition| self.close(&partition))
    }

    fn close(&mut self, partition: &PartitionKey) -> Result<()> {
        let Some(file) = self.open.remove(partition) else { return Ok(()) };
        match file.close(&self.target) {
            Ok((file, parquet)) => {
                if self.dictionaries.learn(&parquet) {
                    self.encoding = None;
                }
                self.closed.push(file);
                Ok(())
            }
            Err(error) => {
                self.broken = true;
                Err(error)
            }
        }
    }

    fn new_file(&mut self, partition: &PartitionKey) -> Result<(String, OpenFile)> {
        let path = partition_path(&self.target.spec, self.partitioner.partition_type(), partition.as_struct());
        let slash = if path.is_empty() { "" } else { "/" };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let what = if self.target.content == Content::EqualityDeletes { "-deletes" } else { "" };
        let name = format!("{}-{seconds}{what}.parquet", Uuid::now_v7());
        let location = format!("{}/data/{path}{slash}{name}", self.target.location);
        let encoding = match self.encoding.take() {
            Some(encoding) => encoding,
            None => Encoding::new(&self.target.schema, self.arrow.clone(), &self.options, &self.dictionaries)?,
        };
        let encoding = self.encoding.insert(encoding);
        let file = OpenFile::new(location.clone(), partition.as_struct().clone(), encoding.start()?, self.clock);
        Ok((location, file))
    }
}

/// The memory that rows take while they are kept.
pub(crate) fn memory_of(rows: &RecordBatch) -> usize {
    rows.get_array_memory_size() + rows.num_columns() * ARRAY_BYTES
}

/// The same rows in memory of their own. What crossed from the source holds the source's buffers, with room for more values than
/// there are, and a handful of structures per column for each boundary that it crossed.
fn copied(rows: &RecordBatch) -> Result<RecordBatch> {
    let count = u32::try_from(rows.num_rows()).unwrap_or(u32::MAX);
    let all = UInt32Array::from_iter_values(0..count);
    take_record_batch(rows, &all).map_err(|e| Error::internal("rows cannot be copied").with_source(e))
}

impl fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableWriter")
            .field("target", &self.target.location)
            .field("open", &self.open.len())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        let begun = self.abandon();
        // Without a runtime they stay, in no snapshot.
        if let (false, Ok(runtime)) = (begun.is_empty(), tokio::runtime::Handle::try_current()) {
            let files = self.files.clone();
            runtime.spawn(async move { storage::discard(&files, begun).await });
        }
    }
}

#[cfg(test)]
mod extremes;
#[cfg(test)]
mod tests;
