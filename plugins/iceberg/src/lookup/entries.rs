//! What manifests say of files, as far as a lookup needs it: tables have many files, and of each there are bounds of all columns.

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use iceberg::io::FileIO;
use iceberg::metadata_columns::RESERVED_FIELD_ID_DELETE_FILE_PATH;
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, Datum, Literal, ManifestEntry, ManifestFile, PrimitiveLiteral,
    TableMetadata,
};
use philotes_sdk::{Error, Result};

use super::READ_AT_ONCE;
use super::keys::{Bounds, Keys};
use crate::manifests;
use crate::partition::PartitionKey;

/// A file that is read as Parquet, if it is.
#[derive(Clone, Debug)]
pub(super) struct FileEntry {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) format: DataFileFormat,
}

/// A partition of one specification.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Partition {
    spec_id: i32,
    values: PartitionKey,
}

/// A data file.
#[derive(Clone, Debug)]
pub(super) struct DataEntry {
    pub(super) file: FileEntry,
    pub(super) sequence: i64,
    partition: Partition,
    pub(super) bounds: Bounds,
}

/// A delete file, or a part of one.
#[derive(Debug)]
pub(super) struct DeleteEntry {
    pub(super) file: FileEntry,
    pub(super) sequence: i64,
    partition: Partition,
    pub(super) deletes: Deletes,
}

/// What it says is deleted.
#[derive(Debug)]
pub(super) enum Deletes {
    /// Rows with the same values in some columns.
    Equality {
        ids: Vec<i32>,
        /// In all partitions, and not only in its own.
        global: bool,
        bounds: Bounds,
    },
    /// Rows by their place: in one file, or in those whose paths lie between two.
    Positions { path: Option<String>, lowest: Option<String>, highest: Option<String> },
    /// Rows of one file: a deletion vector, and where in the file it is.
    Vector { path: String, offset: u64, bytes: u64 },
}

impl DeleteEntry {
    /// Whether it deletes rows of a data file, by all that is said of the two.
    pub(super) fn applies_to(&self, data: &DataEntry) -> bool {
        let same_partition = || self.partition == data.partition;
        match &self.deletes {
            Deletes::Equality { global, .. } => self.sequence > data.sequence && (*global || same_partition()),
            Deletes::Vector { path, .. } | Deletes::Positions { path: Some(path), .. } => {
                self.sequence >= data.sequence && *path == data.file.path
            }
            Deletes::Positions { path: None, lowest, highest } => {
                self.sequence >= data.sequence
                    && same_partition()
                    && lowest.as_ref().is_none_or(|lowest| *lowest <= data.file.path)
                    && highest.as_ref().is_none_or(|highest| data.file.path <= *highest)
            }
        }
    }
}

/// The data files of some manifests that may hold one of the keys.
pub(super) async fn data(
    files: &FileIO,
    metadata: &TableMetadata,
    manifests: &[&ManifestFile],
    keys: &Keys,
) -> Result<Vec<DataEntry>> {
    read(files, metadata, manifests, |entry, at| {
        let bounds = keys.bounds(&entry.data_file)?;
        if !keys.any_within(&bounds, |_| true) {
            return Ok(None);
        }
        let (file, sequence, partition) = (file(&entry.data_file), at.sequence(entry)?, at.partition(entry));
        Ok(Some(DataEntry { file, sequence, partition, bounds }))
    })
    .await
}

/// The delete files of some manifests for which this holds.
pub(super) async fn deletes(
    files: &FileIO,
    metadata: &TableMetadata,
    manifests: &[&ManifestFile],
    keys: &Keys,
    wanted: impl Fn(&DeleteEntry) -> bool + Sync,
) -> Result<Vec<DeleteEntry>> {
    read(files, metadata, manifests, |entry, at| {
        let deletes = match (entry.content_type(), entry.file_format()) {
            (DataContentType::Data, _) => {
                return Err(Error::data(format!(
                    "{} is no delete file, in a manifest of delete files",
                    entry.file_path()
                )));
            }
            (DataContentType::EqualityDeletes, _) => Deletes::Equality {
                ids: entry.data_file.equality_ids().unwrap_or_default(),
                global: at.unpartitioned,
                bounds: keys.bounds(&entry.data_file)?,
            },
            (DataContentType::PositionDeletes, DataFileFormat::Puffin) => vector(&entry.data_file)?,
            (DataContentType::PositionDeletes, _) => positions(&entry.data_file),
        };
        let (file, sequence, partition) = (file(&entry.data_file), at.sequence(entry)?, at.partition(entry));
        let entry = DeleteEntry { file, sequence, partition, deletes };
        Ok(wanted(&entry).then_some(entry))
    })
    .await
}

/// The manifest that an entry stands in.
struct At<'a> {
    manifest: &'a ManifestFile,
    unpartitioned: bool,
}

impl At<'_> {
    fn sequence(&self, entry: &ManifestEntry) -> Result<i64> {
        entry.sequence_number().ok_or_else(|| {
            Error::data(format!(
                "{} has no sequence number in the manifest {}",
                entry.file_path(),
                self.manifest.manifest_path
            ))
        })
    }

    /// Values are as wide as they can become: a manifest writes them in the types that the columns had at its time.
    fn partition(&self, entry: &ManifestEntry) -> Partition {
        let widened = |value: &Literal| match value {
            Literal::Primitive(PrimitiveLiteral::Int(value)) => Literal::long(i64::from(*value)),
            Literal::Primitive(PrimitiveLiteral::Float(value)) => Literal::double(f64::from(value.0)),
            other => other.clone(),
        };
        let values: iceberg::spec::Struct =
            entry.data_file.partition().iter().map(|value| value.map(widened)).collect();
        Partition { spec_id: self.manifest.partition_spec_id, values: values.into() }
    }
}

/// What is made of the live entries of some manifests.
async fn read<T: Send>(
    files: &FileIO,
    metadata: &TableMetadata,
    manifests: &[&ManifestFile],
    make: impl Fn(&ManifestEntry, &At<'_>) -> Result<Option<T>> + Sync,
) -> Result<Vec<T>> {
    let make = &make;
    let mut reads: Vec<BoxFuture<'_, Result<Vec<T>>>> = Vec::with_capacity(manifests.len());
    for manifest in manifests.iter().copied() {
        reads.push(Box::pin(async move {
            let read = manifests::read(files, manifest).await?;
            let spec = metadata.partition_spec_by_id(manifest.partition_spec_id).ok_or_else(|| {
                let (path, id) = (&manifest.manifest_path, manifest.partition_spec_id);
                Error::data(format!("the manifest {path} names partition spec {id}, which the table lacks"))
            })?;
            let at = At { manifest, unpartitioned: spec.is_unpartitioned() };
            let alive = read.entries.iter().filter(|entry| entry.is_alive());
            alive.filter_map(|entry| make(entry, &at).transpose()).collect()
        }));
    }
    futures::stream::iter(reads).buffered(READ_AT_ONCE).try_concat().await
}

/// What is needed of a file to read it.
pub(super) fn file(file: &DataFile) -> FileEntry {
    FileEntry { path: file.file_path().to_owned(), bytes: file.file_size_in_bytes(), format: file.file_format() }
}

fn positions(file: &DataFile) -> Deletes {
    let text = |bound: Option<&Datum>| match bound.map(Datum::literal) {
        Some(PrimitiveLiteral::String(text)) => Some(text.clone()),
        _ => None,
    };
    let lowest = text(file.lower_bounds().get(&RESERVED_FIELD_ID_DELETE_FILE_PATH));
    let highest = text(file.upper_bounds().get(&RESERVED_FIELD_ID_DELETE_FILE_PATH));
    // One path is as good as the field that names it, which is younger than the format.
    let only = lowest.clone().filter(|_| lowest == highest);
    Deletes::Positions { path: file.referenced_data_file().or(only), lowest, highest }
}

fn vector(file: &DataFile) -> Result<Deletes> {
    let part = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    let (offset, bytes) = (part(file.content_offset()), part(file.content_size_in_bytes()));
    match (file.referenced_data_file(), offset, bytes) {
        (Some(path), Some(offset), Some(bytes)) => Ok(Deletes::Vector { path, offset, bytes }),
        _ => Err(Error::data(format!(
            "the deletion vector in {} does not say whose rows it deletes, or where it is: referenced_data_file, content_offset and \
             content_size_in_bytes have to be there",
            file.file_path()
        ))),
    }
}
