//! A manifest on its way into a file.

use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, ManifestContentType, ManifestEntry, ManifestFile, ManifestWriter, ManifestWriterBuilder,
    PartitionSpecRef, SchemaRef,
};
use philotes_sdk::{Error, Result};

use super::names::Wording;
use super::read::with_partition;
use crate::error::from_iceberg;

/// Sequence numbers that readers take from the manifest list.
const INHERITED: i64 = -1;
/// Where a manifest lies in memory that is to be corrected.
const IN_MEMORY: &str = "memory:///manifest.avro";

/// A manifest that takes files.
pub(super) struct Output {
    location: String,
    wording: Wording,
    writer: ManifestWriter,
    /// Where the crate writes what is to be corrected.
    memory: Option<FileIO>,
}

impl Output {
    /// A manifest at this location, for files of this content, schema and partition specification.
    pub(super) fn begin(
        location: String,
        files: &FileIO,
        snapshot_id: i64,
        (content, schema, spec): (ManifestContentType, &SchemaRef, &PartitionSpecRef),
        has_row_ids: bool,
    ) -> Result<Self> {
        let wording = Wording::of(spec, schema)?;
        let memory = wording.is_odd().then(FileIO::new_with_memory);
        let output = match &memory {
            Some(memory) => memory.new_output(IN_MEMORY),
            None => files.new_output(&location),
        };
        let output = output.map_err(failed)?;
        let builder =
            ManifestWriterBuilder::new(output, Some(snapshot_id), wording.schema.clone(), wording.spec.clone());
        let writer = match (content, has_row_ids) {
            (ManifestContentType::Data, false) => builder.build_v2_data(),
            (ManifestContentType::Data, true) => builder.build_v3_data(),
            (ManifestContentType::Deletes, false) => builder.build_v2_deletes(),
            (ManifestContentType::Deletes, true) => builder.build_v3_deletes(),
        };
        Ok(Self { location, wording, writer, memory })
    }

    /// Adds a new file.
    pub(super) fn add(&mut self, file: DataFile) -> Result<()> {
        let file = self.worded(file)?;
        self.writer.add_file(file, INHERITED).map_err(|e| from_iceberg("cannot add a file to a manifest", e))
    }

    /// Says of a file that is in another manifest that it is no longer part of the table.
    pub(super) fn remove(&mut self, entry: &ManifestEntry) -> Result<()> {
        let missing = || Error::data("an entry of a manifest has no sequence number");
        let file = self.worded(entry.data_file.clone())?;
        self.writer
            .add_delete_file(file, entry.sequence_number.ok_or_else(missing)?, entry.file_sequence_number)
            .map_err(|e| from_iceberg("cannot remove a file from the table", e))
    }

    /// Adds a file that is in another manifest.
    pub(super) fn keep(&mut self, entry: &ManifestEntry) -> Result<()> {
        let missing = || Error::data("an entry of a manifest has no snapshot or sequence number");
        let file = self.worded(entry.data_file.clone())?;
        self.writer
            .add_existing_file(
                file,
                entry.snapshot_id.ok_or_else(missing)?,
                entry.sequence_number.ok_or_else(missing)?,
                entry.file_sequence_number,
            )
            .map_err(|e| from_iceberg("cannot merge manifests", e))
    }

    fn worded(&self, file: DataFile) -> Result<DataFile> {
        if !self.wording.is_odd() {
            return Ok(file);
        }
        with_partition(&file, self.wording.partition(file.partition()), self.wording.spec.spec_id())
    }

    /// Writes it.
    pub(super) async fn close(self, files: &FileIO) -> Result<ManifestFile> {
        let mut manifest = self.writer.write_manifest_file().await.map_err(failed)?;
        let Some(memory) = self.memory else { return Ok(manifest) };
        let written = memory.new_input(IN_MEMORY).map_err(failed)?.read().await.map_err(failed)?;
        let corrected = self.wording.corrected(written)?;
        manifest.manifest_length = i64::try_from(corrected.len()).unwrap_or(i64::MAX);
        files.new_output(&self.location).map_err(failed)?.write(corrected).await.map_err(failed)?;
        manifest.manifest_path = self.location;
        if self.wording.has_uuids() {
            // Readers do not agree on their order, and without bounds Java takes no row to be there: nothing is said at all.
            manifest.partitions = None;
        }
        Ok(manifest)
    }
}

fn failed(error: iceberg::Error) -> Error {
    from_iceberg("cannot write a manifest", error)
}
