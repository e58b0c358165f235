//! Manifests as they stand in files, and what their entries inherit from the manifest list.
//!
//! The crate's own reading leaves out the row ids of format version 3, and finds partition values by name, where names of a
//! partition specification need not be names that Avro has.

use std::sync::Arc;

use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, DataFileBuilder, Manifest, ManifestEntry, ManifestFile, ManifestStatus, SchemaRef, Struct,
};
use philotes_sdk::{Error, Result};

use super::names;
use crate::error::from_iceberg;

/// A manifest's entries, with what they inherit.
#[derive(Debug)]
pub(crate) struct ReadManifest {
    /// The schema that it was written with.
    pub(crate) schema: SchemaRef,
    pub(crate) entries: Vec<ManifestEntry>,
}

/// Reads a manifest.
pub(crate) async fn read(files: &FileIO, manifest: &ManifestFile) -> Result<ReadManifest> {
    let path = &manifest.manifest_path;
    let failed = |e| from_iceberg(format!("cannot read the manifest {path}"), e);
    let bytes = files.new_input(path).map_err(failed)?.read().await.map_err(failed)?;
    let bytes = names::readable(&bytes).map_err(|e| e.context(format!("the manifest {path}")))?;
    let (entries, metadata) = Manifest::parse_avro(&bytes).map_err(failed)?.into_parts();
    let entries = entries.into_iter().map(Arc::unwrap_or_clone).collect();
    Ok(ReadManifest { schema: metadata.schema, entries: inherited(manifest, entries)? })
}

/// By the specification: what an added entry does not say is the manifest's; row ids count on over the files that have none.
fn inherited(manifest: &ManifestFile, mut entries: Vec<ManifestEntry>) -> Result<Vec<ManifestEntry>> {
    let mut next_row_id = manifest.first_row_id;
    for entry in &mut entries {
        entry.snapshot_id = entry.snapshot_id.or(Some(manifest.added_snapshot_id));
        // A manifest of version 1 has no sequence numbers, which are 0 then.
        if entry.status == ManifestStatus::Added || manifest.sequence_number == 0 {
            entry.sequence_number = entry.sequence_number.or(Some(manifest.sequence_number));
            entry.file_sequence_number = entry.file_sequence_number.or(Some(manifest.sequence_number));
        }
        if entry.is_alive()
            && entry.data_file.first_row_id().is_none()
            && let Some(first) = next_row_id
        {
            next_row_id = first.checked_add(entry.data_file.record_count());
            entry.data_file = with_first_row_id(&entry.data_file, first, manifest.partition_spec_id)?;
        }
    }
    Ok(entries)
}

/// The same file, whose first row has this id.
fn with_first_row_id(file: &DataFile, first: u64, spec_id: i32) -> Result<DataFile> {
    let first = i64::try_from(first).map_err(|_| Error::data("the table's row ids are used up"))?;
    built(described(file, spec_id).first_row_id(Some(first)))
}

/// The same file with its partition in other words.
pub(super) fn with_partition(file: &DataFile, partition: Struct, spec_id: i32) -> Result<DataFile> {
    built(described(file, spec_id).partition(partition))
}

fn built(builder: &DataFileBuilder) -> Result<DataFile> {
    builder.build().map_err(|e| Error::internal("a data file cannot be described").with_source(e))
}

fn described(file: &DataFile, spec_id: i32) -> DataFileBuilder {
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(file.first_row_id())
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    builder
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{DataContentType, DataFileFormat, ManifestContentType};

    use super::*;

    fn entry(status: ManifestStatus, rows: u64, first_row_id: Option<i64>) -> ManifestEntry {
        let file = DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path("file:///f.parquet".to_owned())
            .file_format(DataFileFormat::Parquet)
            .record_count(rows)
            .file_size_in_bytes(1)
            .sort_order_id(3)
            .first_row_id(first_row_id)
            .build()
            .unwrap();
        ManifestEntry::builder()
            .status(status)
            .snapshot_id(1)
            .sequence_number(1)
            .file_sequence_number(1)
            .data_file(file)
            .build()
    }

    fn manifest(first_row_id: Option<u64>) -> ManifestFile {
        ManifestFile {
            manifest_path: "file:///m.avro".into(),
            manifest_length: 1,
            partition_spec_id: 0,
            content: ManifestContentType::Data,
            sequence_number: 7,
            min_sequence_number: 7,
            added_snapshot_id: 70,
            added_files_count: None,
            existing_files_count: None,
            deleted_files_count: None,
            added_rows_count: None,
            existing_rows_count: None,
            deleted_rows_count: None,
            partitions: None,
            key_metadata: None,
            first_row_id,
        }
    }

    /// The specification's "First Row ID Inheritance": a file without an id has the sum of the manifest's and of the rows of
    /// the files before it that have none; deleted ones do not count.
    #[test]
    fn row_ids_count_on_over_files_without() {
        use ManifestStatus::{Added, Deleted, Existing};
        let entries = vec![
            entry(Added, 10, None),
            entry(Existing, 5, Some(3)),
            entry(Deleted, 100, None),
            entry(Added, 20, None),
            entry(Added, 1, None),
        ];
        let ids = |first| -> Vec<Option<i64>> {
            let read = inherited(&manifest(first), entries.clone()).unwrap();
            read.iter().map(|entry| entry.data_file.first_row_id()).collect()
        };
        assert_eq!(ids(Some(1000)), [Some(1000), Some(3), None, Some(1010), Some(1030)]);
        assert_eq!(ids(None), [None, Some(3), None, None, None]);
        let read = inherited(&manifest(Some(0)), entries).unwrap();
        assert!(read.iter().all(|entry| entry.data_file.sort_order_id() == Some(3)));
    }

    #[test]
    fn what_an_entry_does_not_say_is_the_manifests() {
        let mut added = entry(ManifestStatus::Added, 1, None);
        (added.snapshot_id, added.sequence_number, added.file_sequence_number) = (None, None, None);
        let read = inherited(&manifest(None), vec![added]).unwrap();
        assert_eq!(
            (read[0].snapshot_id, read[0].sequence_number, read[0].file_sequence_number),
            (Some(70), Some(7), Some(7))
        );
    }
}
