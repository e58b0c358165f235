//! Parquet files, read no further than is needed: the footer, then those pages of the wanted columns that hold wanted rows.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use iceberg::io::{FileIO, FileRead};
use iceberg::spec::DataFileFormat;
use object_store::{OBJECT_STORE_COALESCE_DEFAULT, coalesce_ranges};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use philotes_sdk::{Error, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::columns::{Columns, check_ids, id_of};
use super::entries::FileEntry;
use super::keys::{Bounds, Keys};
use super::thrift;
use crate::error::from_iceberg;

/// Files up to this size are read whole: it takes one request, where it would be three.
const SMALL_BYTES: u64 = 1 << 20;
/// Read of a larger file's end, in the hope that its footer is not longer.
const FOOTER_BYTES: usize = 256 << 10;
/// Memory for what was read of files and not decoded yet, in KiB.
const ROOM_KIB: usize = 64 << 10;

/// Where files are read, and the room for it.
pub(super) struct Inputs<'a> {
    pub(super) files: &'a FileIO,
    room: Semaphore,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(files: &'a FileIO) -> Self {
        Self { files, room: Semaphore::new(ROOM_KIB) }
    }

    /// Opens a file for some columns.
    ///
    /// # Errors
    /// Data: it is no Parquet file, or its columns have no field ids.
    pub(super) async fn open<'b>(&'b self, file: &'b FileEntry, columns: &'b Columns) -> Result<OpenFile<'b>> {
        let path = file.path.as_str();
        if file.format != DataFileFormat::Parquet {
            return Err(Error::data(format!("{path} is a file of format {}; allowed is parquet", file.format)));
        }
        let input = Input::open(self.files, file).await.map_err(|e| from_iceberg(format!("cannot read {path}"), e))?;
        // Iceberg's types are in Parquet's; what a writer had in memory is its own.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder =
            ParquetRecordBatchStreamBuilder::new_with_options(input, options).await.map_err(|e| failed(path, e))?;
        check_ids(builder.schema().fields(), "").map_err(|e| e.context(path))?;
        Ok(OpenFile { path, columns, builder, room: &self.room })
    }
}

/// A Parquet file of which the footer was read.
pub(super) struct OpenFile<'a> {
    path: &'a str,
    columns: &'a Columns,
    builder: ParquetRecordBatchStreamBuilder<Input>,
    room: &'a Semaphore,
}

impl<'a> OpenFile<'a> {
    /// Refuses a file that lacks one of the columns.
    pub(super) fn check_columns(&self) -> Result<()> {
        let has = |id| self.builder.schema().fields().iter().any(|field| id_of(field) == Some(id));
        match self.columns.fields().iter().find(|field| !has(field.id)) {
            Some(field) => Err(Error::data(format!(
                "{} lacks the column {:?} (field id {}), which such a file has to have",
                self.path, field.name, field.id
            ))),
            None => Ok(()),
        }
    }

    /// The rows of each row group.
    pub(super) fn row_groups(&self) -> Vec<Range<u64>> {
        let mut end = 0_u64;
        let rows = self.builder.metadata().row_groups().iter().map(|group| group.num_rows().unsigned_abs());
        rows.map(|rows| {
            let start = end;
            // What a file says of its rows need not be true.
            end = end.saturating_add(rows);
            start..end
        })
        .collect()
    }

    /// Between which of the keys the bounds of each row group lie. The columns are those of the key.
    pub(super) fn bounds(&self, keys: &Keys) -> Result<Vec<Bounds>> {
        let groups = self.builder.metadata().row_groups();
        keys.bounds_of_groups(groups.len(), |column| {
            let id = self.columns.fields()[column].id;
            let Some(field) = self.builder.schema().fields().iter().find(|field| id_of(field) == Some(id)) else {
                return Ok(None);
            };
            let statistics =
                StatisticsConverter::try_new(field.name(), self.builder.schema(), self.builder.parquet_schema());
            let bounds = statistics.and_then(|statistics| {
                let deprecated = statistics.parquet_column_index().is_none_or(|leaf| are_deprecated(groups, leaf));
                // The older fields were filled in an order that was left open.
                if deprecated {
                    return Ok(None);
                }
                Ok(Some((statistics.row_group_mins(groups)?, statistics.row_group_maxes(groups)?)))
            });
            let Some((lower, upper)) = bounds.map_err(|e| failed(self.path, e))? else { return Ok(None) };
            let array = |bounds| self.columns.array(column, bounds).map_err(|e| e.context(self.path));
            Ok(Some((array(&lower)?, array(&upper)?)))
        })
    }

    /// Reads the columns, of all rows or of some.
    pub(super) async fn read(self, selection: Option<RowSelection>) -> Result<Pieces<'a>> {
        let ids: HashSet<i32> = self.columns.fields().iter().map(|field| field.id).collect();
        let fields = self.builder.schema().fields().iter().enumerate();
        let roots = fields.filter(|(_, field)| id_of(field).is_some_and(|id| ids.contains(&id))).map(|(root, _)| root);
        let mask = ProjectionMask::roots(self.builder.parquet_schema(), roots);
        let kib = self.kib(&mask);
        let room = self.room.acquire_many(kib).await;
        let room = room.map_err(|e| Error::internal("no room for reading is given any more").with_source(e))?;
        let mut builder = self.builder.with_projection(mask);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let stream = builder.build().map_err(|e| failed(self.path, e))?;
        Ok(Pieces { path: self.path, columns: self.columns, stream, _room: room })
    }

    /// What the largest row group takes of these columns, as far as there is room for it at all.
    fn kib(&self, mask: &ProjectionMask) -> u32 {
        let bytes = |group: &RowGroupMetaData| -> u64 {
            let chunks = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
            chunks.map(|(_, chunk)| chunk.compressed_size().unsigned_abs()).fold(0, u64::saturating_add)
        };
        let largest = self.builder.metadata().row_groups().iter().map(bytes).max().unwrap_or(0);
        u32::try_from((largest >> 10).clamp(1, ROOM_KIB as u64)).unwrap_or(1)
    }
}

fn are_deprecated(groups: &[RowGroupMetaData], leaf: usize) -> bool {
    groups.iter().any(|group| group.column(leaf).statistics().is_some_and(|known| known.is_min_max_deprecated()))
}

/// Rows of a file, a piece at a time.
pub(super) struct Pieces<'a> {
    path: &'a str,
    columns: &'a Columns,
    stream: ParquetRecordBatchStream<Input>,
    _room: SemaphorePermit<'a>,
}

impl Pieces<'_> {
    /// The next rows: how many, and an array of each column, in the table's types.
    pub(super) async fn next(&mut self) -> Result<Option<(usize, Vec<ArrayRef>)>> {
        let Some(batch) = self.stream.try_next().await.map_err(|e| failed(self.path, e))? else { return Ok(None) };
        let arrays = self.columns.of_file(&batch).map_err(|e| e.context(self.path))?;
        Ok(Some((batch.num_rows(), arrays)))
    }
}

/// What the Parquet crate reports; what the storage reported stands in it.
fn failed(path: &str, error: ParquetError) -> Error {
    let damaged = |error: ParquetError| {
        Error::data(format!("{path} cannot be read; allowed are Parquet files that are whole")).with_source(error)
    };
    match error {
        ParquetError::External(source) => match source.downcast::<iceberg::Error>() {
            Ok(storage) => from_iceberg(format!("cannot read {path}"), *storage),
            Err(source) => damaged(ParquetError::External(source)),
        },
        other => damaged(other),
    }
}

/// The bytes of a file.
struct Input {
    reader: Box<dyn FileRead>,
    bytes: u64,
    /// All of it, where it is small.
    whole: Option<Bytes>,
    /// Its end, from where on.
    tail: Option<(u64, Bytes)>,
}

impl Input {
    async fn open(files: &FileIO, file: &FileEntry) -> iceberg::Result<Self> {
        let reader = files.new_input(&file.path)?.reader().await?;
        let whole = if file.bytes <= SMALL_BYTES { Some(reader.read(0..file.bytes).await?) } else { None };
        Ok(Self { reader, bytes: file.bytes, whole, tail: None })
    }

    /// Refuses a footer for which the library would make more room than there is. What is no Parquet file it refuses itself.
    async fn check_footer(&mut self) -> Result<(), ParquetError> {
        let start = self.bytes.saturating_sub(FOOTER_BYTES as u64);
        let tail = self.range(start..self.bytes).await?;
        let Some((before, [length @ .., b'P', b'A', b'R', b'1'])) = tail.split_last_chunk::<8>() else { return Ok(()) };
        let length = u64::from(u32::from_le_bytes(*length));
        let Some(footer) = self.bytes.saturating_sub(8).checked_sub(length) else { return Ok(()) };
        if length > thrift::MAX_FOOTER {
            return Err(ParquetError::General(format!(
                "its footer has {length} bytes; allowed are {}",
                thrift::MAX_FOOTER
            )));
        }
        let sound = match footer.checked_sub(start).and_then(|at| usize::try_from(at).ok()) {
            Some(at) => thrift::is_sound(before.get(at..).unwrap_or_default()),
            None => thrift::is_sound(&self.range(footer..footer + length).await?),
        };
        self.tail = Some((start, tail));
        if sound { Ok(()) } else { Err(ParquetError::General("its footer says more than it holds".to_owned())) }
    }

    async fn range(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        if let Some((start, tail)) = &self.tail
            && let Some(at) = range.start.checked_sub(*start)
            && let (Ok(at), Ok(length)) = (usize::try_from(at), usize::try_from(range.end.saturating_sub(range.start)))
            && let Some(end) = at.checked_add(length).filter(|end| *end <= tail.len())
        {
            return Ok(tail.slice(at..end));
        }
        let Some(whole) = &self.whole else {
            return self.reader.read(range).await.map_err(|e| ParquetError::External(Box::new(e)));
        };
        let part = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        match part.filter(|(start, end)| start <= end && *end <= whole.len()) {
            Some((start, end)) => Ok(whole.slice(start..end)),
            None => Err(ParquetError::EOF(format!("bytes {range:?} of {}", whole.len()))),
        }
    }
}

impl AsyncFileReader for Input {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.range(range).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        let input = &*self;
        async move { coalesce_ranges(&ranges, |range| input.range(range), OBJECT_STORE_COALESCE_DEFAULT).await }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let options = options.map(|options| options.metadata_options().clone());
        async move {
            let bytes = self.bytes;
            self.check_footer().await?;
            let reader = ParquetMetaDataReader::new()
                .with_prefetch_hint(Some(FOOTER_BYTES))
                .with_column_index_policy(PageIndexPolicy::Skip)
                // Where pages begin, so that those without wanted rows need not be read.
                .with_offset_index_policy(PageIndexPolicy::Optional)
                .with_metadata_options(options);
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}
