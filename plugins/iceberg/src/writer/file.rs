//! One data file on its way: open while rows come, closed once encoded, stored once its storage has it all.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use iceberg::io::{FileIO, FileWrite};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Struct};
use parquet::file::metadata::ParquetMetaData;
use philotes_sdk::{Error, ErrorKind, Result, failpoint};

use super::encode::{Encoder, failed};
use super::metrics::{self, NanColumns};
use super::{Content, WriterTarget};

/// Files up to this size are kept whole until they are stored.
const LARGE_BYTES: usize = 32 << 20;
/// What storages hold of a file that leaves in parts: a few parts of 8 MiB under way.
const UNDER_WAY_BYTES: usize = 32 << 20;

/// A file that takes rows.
pub(super) struct OpenFile {
    partition: Struct,
    encoder: Encoder,
    nan_columns: Arc<NanColumns>,
    nan_counts: HashMap<i32, u64>,
    row_groups: usize,
    bytes: Outgoing,
    opened_at: u64,
    written_at: u64,
}

impl OpenFile {
    pub(super) fn new(
        location: String,
        partition: Struct,
        (encoder, nan_columns): (Encoder, Arc<NanColumns>),
        now: u64,
    ) -> Self {
        Self {
            partition,
            encoder,
            nan_columns,
            nan_counts: HashMap::new(),
            row_groups: 0,
            bytes: Outgoing { location, pending: Vec::new(), pending_bytes: 0, upload: None, sent_bytes: 0 },
            opened_at: now,
            written_at: now,
        }
    }

    pub(super) fn write(&mut self, rows: &RecordBatch, now: u64) -> Result<()> {
        self.written_at = now;
        self.nan_columns.count(rows, &mut self.nan_counts);
        self.encoder.write(rows).map_err(failed)?;
        self.gather()
    }

    pub(super) fn end_row_group(&mut self) -> Result<()> {
        self.encoder.flush().map_err(failed)?;
        self.gather()
    }

    /// Takes over what the encoder has finished.
    fn gather(&mut self) -> Result<()> {
        let row_groups = self.encoder.flushed_row_groups().len();
        if row_groups > self.row_groups {
            self.row_groups = row_groups;
            self.encoder.sync().map_err(|e| failed(e.into()))?;
            self.bytes.add(self.encoder.inner_mut().take());
        }
        Ok(())
    }

    /// Sends what is pending; in an error, whether rows were lost with it.
    pub(super) async fn send(&mut self, files: &FileIO) -> Result<(), (Error, bool)> {
        self.bytes.send(files).await
    }

    pub(super) fn opened_at(&self) -> u64 {
        self.opened_at
    }

    pub(super) fn written_at(&self) -> u64 {
        self.written_at
    }

    /// The size that the file has so far, the open row group estimated.
    pub(super) fn encoded_bytes(&self) -> u64 {
        (self.encoder.bytes_written() + self.encoder.in_progress_size()) as u64
    }

    /// Memory of the open row group.
    pub(super) fn unencoded_bytes(&self) -> usize {
        self.encoder.memory_size()
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.bytes.pending_bytes
    }

    /// Too large to be kept whole.
    pub(super) fn is_large(&self) -> bool {
        self.bytes.upload.is_some() || self.bytes.pending_bytes > LARGE_BYTES
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.encoder.memory_size() + self.bytes.buffered_bytes()
    }

    /// Ends the file and describes it. What was learnt of its columns counts for the files that follow.
    pub(super) fn close(mut self, target: &WriterTarget) -> Result<(ClosedFile, ParquetMetaData)> {
        let parquet = self.encoder.finish().map_err(failed)?;
        self.encoder.sync().map_err(|e| failed(e.into()))?;
        self.bytes.add(self.encoder.inner_mut().take());
        let mut metrics = metrics::of(&parquet, &target.schema);
        if target.content == Content::EqualityDeletes {
            metrics.leave_uuids_unbounded();
        }
        let split_offsets =
            parquet.row_groups().iter().filter_map(|group| group.column(0).byte_range().0.try_into().ok());
        let order = i32::try_from(target.sort_order_id())
            .map_err(|e| Error::data("the table's sort order has an id beyond those of files").with_source(e))?;
        let (content, equality_ids) = match target.content {
            Content::Rows => (DataContentType::Data, None),
            Content::EqualityDeletes => {
                let ids = target.schema.as_struct().fields().iter().map(|field| field.id);
                (DataContentType::EqualityDeletes, Some(ids.collect()))
            }
        };
        let described = DataFileBuilder::default()
            .content(content)
            .equality_ids(equality_ids)
            .file_format(DataFileFormat::Parquet)
            .file_path(self.bytes.location.clone())
            .file_size_in_bytes(self.encoder.bytes_written() as u64)
            .record_count(parquet.file_metadata().num_rows().unsigned_abs())
            .partition(self.partition)
            .partition_spec_id(target.spec.spec_id())
            .column_sizes(metrics.column_sizes)
            .value_counts(metrics.value_counts)
            .null_value_counts(metrics.null_value_counts)
            .nan_value_counts(self.nan_columns.all(&self.nan_counts))
            .lower_bounds(metrics.lower_bounds)
            .upper_bounds(metrics.upper_bounds)
            .split_offsets(Some(split_offsets.collect()))
            .sort_order_id(order)
            .build()
            .map_err(|e| Error::internal("a data file cannot be described").with_source(e))?;
        Ok((ClosedFile { described, bytes: self.bytes }, parquet))
    }
}

/// A file that is encoded to its end.
pub(super) struct ClosedFile {
    described: DataFile,
    bytes: Outgoing,
}

impl ClosedFile {
    pub(super) fn buffered_bytes(&self) -> usize {
        self.bytes.buffered_bytes()
    }

    /// Stores the file. With an error it comes back where nothing of it is lost.
    pub(super) async fn store(mut self, files: &FileIO) -> Result<DataFile, (Error, Option<Self>)> {
        match self.bytes.store(files).await {
            Ok(()) => Ok(self.described),
            Err((error, true)) => Err((error, None)),
            Err((error, false)) => Err((error, Some(self))),
        }
    }
}

/// The bytes of a file between the encoder and its storage.
struct Outgoing {
    location: String,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// Where the bytes go once the first of them have left.
    upload: Option<Box<dyn FileWrite>>,
    sent_bytes: usize,
}

impl Outgoing {
    fn add(&mut self, chunks: Vec<Bytes>) {
        self.pending_bytes += chunks.iter().map(Bytes::len).sum::<usize>();
        self.pending.extend(chunks);
    }

    fn buffered_bytes(&self) -> usize {
        self.pending_bytes + self.sent_bytes.min(UNDER_WAY_BYTES)
    }

    /// Sends what is pending and keeps nothing of it. In an error: whether anything is lost.
    async fn send(&mut self, files: &FileIO) -> Result<(), (Error, bool)> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let opened = open(files, &self.location).await.map_err(|error| (error, false))?;
                self.upload.insert(opened)
            }
        };
        self.pending_bytes = 0;
        for chunk in std::mem::take(&mut self.pending) {
            self.sent_bytes += chunk.len();
            if let Err(error) = upload.write(chunk).await {
                return Err((self.lost(error), true));
            }
        }
        Ok(())
    }

    /// Sends the rest and completes the file. In an error: whether anything is lost.
    async fn store(&mut self, files: &FileIO) -> Result<(), (Error, bool)> {
        if self.upload.is_some() {
            self.send(files).await?;
            let Some(mut upload) = self.upload.take() else { return Ok(()) };
            return upload.close().await.map_err(|error| (self.lost(error), true));
        }
        // Nothing has left yet, and nothing is let go before everything has arrived.
        let mut upload = open(files, &self.location).await.map_err(|error| (error, false))?;
        for chunk in &self.pending {
            upload.write(chunk.clone()).await.map_err(|error| (cannot_write(&self.location, error), false))?;
        }
        upload.close().await.map_err(|error| (cannot_write(&self.location, error), false))?;
        failpoint!("file.stored", |message| (Error::unavailable(message), false));
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    /// Rows that are gone come back only when the source is asked for them again: that is what happens after Fenced.
    fn lost(&self, error: iceberg::Error) -> Error {
        Error::fenced(format!("the upload of {} broke, so its rows have to be read again", self.location))
            .with_source(error)
    }
}

async fn open(files: &FileIO, location: &str) -> Result<Box<dyn FileWrite>> {
    let output = files.new_output(location).map_err(|error| cannot_write(location, error))?;
    output.writer().await.map_err(|error| cannot_write(location, error))
}

/// Storages mark as invalid what will not get better by itself, such as a missing permission.
fn cannot_write(location: &str, error: iceberg::Error) -> Error {
    let passes = error.retryable() || error.kind() == iceberg::ErrorKind::Unexpected;
    let kind = if passes { ErrorKind::Unavailable } else { ErrorKind::Config };
    Error::new(kind, format!("cannot write {location}")).with_source(error)
}
