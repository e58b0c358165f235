//! A table on disk without a catalog: data files by the sink's own writer, delete files as other programs commit them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, MAIN_BRANCH, ManifestContentType,
    ManifestFile, ManifestListWriter, ManifestWriterBuilder, Operation, PartitionSpecRef, Schema, Snapshot, SortOrder,
    Struct, Summary, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec,
};
use tempfile::TempDir;

use crate::base::Base;
use crate::catalog::LoadedTable;
use crate::manifests;
use crate::storage::Files;
use crate::writer::{Content, TableWriter, WriterOptions, WriterTarget};

pub(super) struct Rig {
    pub(super) folder: TempDir,
    pub(super) metadata: Arc<TableMetadata>,
    pub(super) files: Files,
}

/// A file that waits for a commit, with its specification, and its sequence number where that is not the commit's.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) file: DataFile,
    pub(super) spec: PartitionSpecRef,
    pub(super) sequence: i64,
}

impl Rig {
    pub(super) fn new(schema: Schema, spec: UnboundPartitionSpec, version: FormatVersion) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = format!("file://{}", folder.path().display());
        let order = SortOrder::unsorted_order();
        let metadata = TableMetadataBuilder::new(schema, spec, order, location, version, HashMap::new()).unwrap();
        Self { folder, metadata: Arc::new(metadata.build().unwrap().metadata), files: Files::local() }
    }

    /// The table as it is now.
    pub(super) fn base(&self) -> Base {
        let metadata = self.metadata.clone();
        Base::new(LoadedTable { metadata, metadata_location: None, files: self.files.clone() })
    }

    pub(super) fn schema(&self) -> &Schema {
        self.metadata.current_schema()
    }

    pub(super) fn id(&self, column: &str) -> i32 {
        self.schema().field_id_by_name(column).unwrap()
    }

    /// The next state of the schema.
    pub(super) fn alter(&mut self, schema: Schema) {
        self.change(|builder| builder.add_current_schema(schema).unwrap());
    }

    /// Another partitioning, which is the table's from now on where `default` says so.
    pub(super) fn add_spec(&mut self, spec: UnboundPartitionSpec, default: bool) -> PartitionSpecRef {
        self.change(|builder| {
            if default { builder.add_default_partition_spec(spec) } else { builder.add_partition_spec(spec) }.unwrap()
        });
        self.metadata.partition_specs_iter().max_by_key(|spec| spec.spec_id()).unwrap().clone()
    }

    fn change(&mut self, change: impl FnOnce(TableMetadataBuilder) -> TableMetadataBuilder) {
        let builder = TableMetadata::clone(&self.metadata).into_builder(None);
        self.metadata = Arc::new(change(builder).build().unwrap().metadata);
    }

    /// Data files with these rows, written as the sink writes them.
    pub(super) async fn data(&self, rows: &RecordBatch) -> Vec<Waiting> {
        self.data_with(rows, WriterOptions::default()).await
    }

    pub(super) async fn data_with(&self, rows: &RecordBatch, options: WriterOptions) -> Vec<Waiting> {
        let target = WriterTarget::current(&self.metadata);
        let spec = target.spec.clone();
        let files = self.written(target, rows, options).await;
        files.into_iter().map(|file| Waiting { file, spec: spec.clone(), sequence: -1 }).collect()
    }

    async fn written(&self, target: WriterTarget, rows: &RecordBatch, options: WriterOptions) -> Vec<DataFile> {
        let arrow = Arc::new(schema_to_arrow_schema(&target.schema).unwrap());
        let rows = RecordBatch::try_new(arrow, rows.columns().to_vec()).unwrap();
        let mut writer = TableWriter::new(self.files.io.clone(), target, options).unwrap();
        // In pieces, as they come from a source.
        for start in (0..rows.num_rows()).step_by(1000) {
            writer.write(&rows.slice(start, 1000.min(rows.num_rows() - start))).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    /// Equality deletes by these columns, which the rows hold in this order.
    pub(super) async fn equality(
        &self,
        ids: &[i32],
        rows: &RecordBatch,
        (spec, partition): (&PartitionSpecRef, Struct),
    ) -> Waiting {
        let fields = ids.iter().map(|id| self.schema().field_by_id(*id).unwrap().clone());
        let file = self.plain(Schema::builder().with_fields(fields).build().unwrap(), rows).await;
        let mut builder = described(&file, DataContentType::EqualityDeletes, spec, partition);
        let file = builder.equality_ids(Some(ids.to_vec())).build().unwrap();
        Waiting { file, spec: spec.clone(), sequence: -1 }
    }

    /// A file with rows of a schema of its own.
    pub(super) async fn plain(&self, schema: Schema, rows: &RecordBatch) -> DataFile {
        let spec = Arc::new(iceberg::spec::PartitionSpec::unpartition_spec());
        let location = self.metadata.location().to_owned();
        let target = WriterTarget { location, schema: Arc::new(schema), spec, order: None, content: Content::Rows };
        self.written(target, rows, WriterOptions::default()).await.remove(0)
    }

    /// Adds files in one snapshot, which has no longer those of these paths.
    pub(super) async fn commit(&mut self, data: Vec<Waiting>, deletes: Vec<Waiting>, gone: &[String]) {
        let mut base = self.base();
        let sequence = self.metadata.last_sequence_number() + 1;
        let mut manifests = Vec::new();
        for (content, added) in [(ManifestContentType::Data, data), (ManifestContentType::Deletes, deletes)] {
            let mut by_spec: BTreeMap<i32, Vec<Waiting>> = BTreeMap::new();
            added.into_iter().for_each(|file| by_spec.entry(file.spec.spec_id()).or_default().push(file));
            for added in by_spec.into_values() {
                let name = format!("{sequence}-{}.avro", manifests.len());
                let mut writer = self.manifest(&name, &added[0].spec, content);
                added.into_iter().for_each(|added| writer.add_file(added.file, added.sequence).unwrap());
                manifests.push(writer.write_manifest_file().await.unwrap());
            }
        }
        for parent in base.manifests().await.unwrap().iter() {
            let read = manifests::read(&base.files, parent).await.unwrap();
            if !read.entries.iter().any(|entry| gone.iter().any(|path| path == entry.file_path())) {
                manifests.push(parent.clone());
                continue;
            }
            let spec = self.metadata.partition_spec_by_id(parent.partition_spec_id).unwrap();
            let mut writer = self.manifest(&format!("{sequence}-{}.avro", manifests.len()), spec, parent.content);
            for entry in read.entries {
                let (id, number) = (entry.snapshot_id.unwrap(), entry.sequence_number.unwrap());
                let (file, own) = (entry.data_file.clone(), entry.file_sequence_number);
                if gone.iter().any(|path| path == entry.file_path()) {
                    writer.add_delete_file(file, number, own).unwrap();
                } else {
                    writer.add_existing_file(file, id, number, own).unwrap();
                }
            }
            manifests.push(writer.write_manifest_file().await.unwrap());
        }
        self.snapshot(sequence, manifests).await;
    }

    fn manifest(
        &self,
        name: &str,
        spec: &PartitionSpecRef,
        content: ManifestContentType,
    ) -> iceberg::spec::ManifestWriter {
        let output = self.files.io.new_output(format!("{}/metadata/{name}", self.metadata.location())).unwrap();
        let id = self.metadata.last_sequence_number() + 1;
        let schema = self.metadata.current_schema().clone();
        let builder =
            ManifestWriterBuilder::new(output, Some(id), schema, PartitionSpecRef::unwrap_or_clone(spec.clone()));
        match (self.metadata.format_version() >= FormatVersion::V3, content) {
            (false, ManifestContentType::Data) => builder.build_v2_data(),
            (false, ManifestContentType::Deletes) => builder.build_v2_deletes(),
            (true, ManifestContentType::Data) => builder.build_v3_data(),
            (true, ManifestContentType::Deletes) => builder.build_v3_deletes(),
        }
    }

    async fn snapshot(&mut self, sequence: i64, manifests: Vec<ManifestFile>) {
        let location = format!("{}/metadata/list-{sequence}.avro", self.metadata.location());
        let writer = self.files.io.new_output(&location).unwrap().writer().await.unwrap();
        let head = self.base().head().map(|head| head.snapshot_id());
        let v3 = self.metadata.format_version() >= FormatVersion::V3;
        let first = self.metadata.next_row_id();
        let mut list = if v3 {
            ManifestListWriter::v3(writer, sequence, head, sequence, Some(first))
        } else {
            ManifestListWriter::v2(writer, sequence, head, sequence)
        };
        list.add_manifests(manifests.into_iter()).unwrap();
        let next = list.next_row_id();
        list.close().await.unwrap();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(sequence)
            .with_parent_snapshot_id(head)
            .with_sequence_number(sequence)
            .with_timestamp_ms(self.metadata.last_updated_ms())
            .with_manifest_list(location)
            .with_summary(Summary { operation: Operation::Overwrite, additional_properties: HashMap::new() })
            .with_schema_id(self.metadata.current_schema_id());
        let snapshot = match next {
            Some(next) => snapshot.with_row_range(first, next - first).build(),
            None => snapshot.build(),
        };
        self.change(|builder| builder.set_branch_snapshot(snapshot, MAIN_BRANCH).unwrap());
    }

    /// Takes a file away, so that reading it fails.
    pub(super) fn lose(&self, file: &DataFile) {
        std::fs::remove_file(file.file_path().strip_prefix("file://").unwrap()).unwrap();
    }
}

/// The same file as one of deletes.
pub(super) fn described(
    file: &DataFile,
    content: DataContentType,
    spec: &PartitionSpecRef,
    partition: Struct,
) -> DataFileBuilder {
    let mut builder = DataFileBuilder::default();
    builder
        .content(content)
        .file_path(file.file_path().to_owned())
        .file_format(DataFileFormat::Parquet)
        .partition(partition)
        .partition_spec_id(spec.spec_id())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone());
    builder
}
