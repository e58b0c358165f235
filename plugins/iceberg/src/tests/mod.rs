//! The sink on real files and a catalog that can fail in every way a catalog can.

mod conformance;
mod evolution;
mod expiry;
mod faulty;
mod foreign;
mod formats;
mod growth;
mod layouts;
mod letters;
mod moves;
mod operator;
mod orphans;
mod overridden;
mod protocol;
mod tables;
mod unsent;
mod upserts;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use iceberg::TableIdent;
use iceberg::spec::{ManifestContentType, ManifestFile, TableMetadataRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use philotes_sdk::batch::{UTC, reserved_fields};
use philotes_sdk::{ChangeBatch, ErrorKind, Flushed, Offset, Sink, StreamName, StreamPartition, TaskContext, TaskInfo};

use crate::base::Base;
use crate::catalog::sql::SqlCatalog;
use crate::catalog::{Catalog, LoadedTable};
use crate::config::{CatalogConfig, Config, DroppedColumns, Evolve, Mode, SqlCatalogConfig};
use crate::sink::IcebergSink;
use crate::storage::Files;
use faulty::FaultyCatalog;

/// A private warehouse and the connector that writes to it.
struct Lake {
    folder: tempfile::TempDir,
    config: Config,
}

impl Lake {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        let catalog = SqlCatalogConfig {
            uri: format!("sqlite://{root}/catalog.db"),
            warehouse: format!("file://{root}/warehouse"),
            name: "philotes".into(),
        };
        let config = Config {
            catalog: CatalogConfig::Sql(catalog),
            storage: None,
            table: "cdc.{schema}_{table}".into(),
            mode: Mode::Append,
            deletes: None,
            truncate: None,
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            format_version: 2,
            snapshots: None,
            dead_letters: "cdc.dead_letters".into(),
            target_file_size: "128MiB".into(),
            evolve: Evolve::Additive,
            dropped_columns: DroppedColumns::Keep,
            columns: BTreeMap::new(),
        };
        Self { folder, config }
    }

    fn context() -> TaskContext {
        TaskContext::detached(TaskInfo { connector: "shop".into(), tasks: 1, ..TaskInfo::default() })
    }

    async fn catalog(&self) -> Arc<SqlCatalog> {
        let CatalogConfig::Sql(config) = &self.config.catalog else { panic!("an embedded catalog") };
        Arc::new(SqlCatalog::open(config, Files::local()).await.unwrap())
    }

    /// A sink as the host opens it.
    async fn sink(&self) -> IcebergSink {
        IcebergSink::open(self.config.clone(), Self::context()).await.unwrap()
    }

    /// A sink whose catalog does what the test says.
    async fn faulty(&self) -> (IcebergSink, Arc<FaultyCatalog>) {
        let catalog = Arc::new(FaultyCatalog::new(self.catalog().await));
        (IcebergSink::new(&self.config, Self::context(), catalog.clone()).unwrap(), catalog)
    }

    /// A sink whose keys are announced already.
    async fn announced(&self) -> (IcebergSink, Arc<FaultyCatalog>) {
        let (mut sink, catalog) = self.faulty().await;
        sink.offsets(&[orders()]).await.unwrap();
        (sink, catalog)
    }

    async fn load(&self, table: &str) -> LoadedTable {
        self.catalog().await.load_table(&ident(table)).await.unwrap()
    }

    async fn metadata(&self) -> TableMetadataRef {
        self.load(ORDERS).await.metadata
    }

    /// The ids that a reader finds in the table, each as often as it stands there.
    async fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.rows(ORDERS).await.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// Ids and notes.
    async fn rows(&self, table: &str) -> Vec<(i64, Option<String>)> {
        let mut rows = Vec::new();
        for batch in self.batches(table).await {
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let notes = batch.column_by_name("note").map(|column| column.as_string::<i32>());
            let note = |row| notes.filter(|notes| notes.is_valid(row)).map(|notes| notes.value(row).to_owned());
            rows.extend(ids.values().iter().enumerate().map(|(row, id)| (*id, note(row))));
        }
        rows.sort();
        rows
    }

    /// What the files hold that the current snapshot lists, in the order in which they were committed.
    async fn batches(&self, table: &str) -> Vec<RecordBatch> {
        let mut base = Base::new(self.load(table).await);
        let deletes = |manifest: &ManifestFile| manifest.content == ManifestContentType::Deletes;
        assert!(!base.manifests().await.unwrap().iter().any(deletes));
        self.data_batches_of(table).await
    }

    /// The same of a table with deletes.
    async fn data_batches(&self) -> Vec<RecordBatch> {
        self.data_batches_of(ORDERS).await
    }

    async fn data_batches_of(&self, table: &str) -> Vec<RecordBatch> {
        let mut base = Base::new(self.load(table).await);
        let mut files = Vec::new();
        for manifest in base.manifests().await.unwrap().iter().filter(|m| m.content == ManifestContentType::Data) {
            let manifest = manifest.load_manifest(&base.files).await.unwrap();
            files.extend(manifest.entries().iter().filter(|entry| entry.is_alive()).cloned());
        }
        files.sort_by_key(|entry| entry.sequence_number());
        let mut batches = Vec::new();
        for entry in files {
            let path = entry.file_path().strip_prefix("file://").unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
            let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
            let rows: usize = read.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(rows as u64, entry.record_count(), "{path}");
            batches.extend(read);
        }
        batches
    }
}

const ORDERS: &str = "cdc.public_orders";

fn ident(table: &str) -> TableIdent {
    TableIdent::from_strs(table.split('.')).unwrap()
}

fn stream(table: &str) -> StreamPartition {
    StreamPartition::only(StreamName::new(["public", table]).unwrap())
}

fn orders() -> StreamPartition {
    stream("orders")
}

fn offset(n: i64) -> Offset {
    Offset::new(format!("{{\"batch\":{n}}}")).unwrap()
}

/// One row with this id, its offset the id.
fn row(id: i64) -> ChangeBatch {
    rows(orders(), &[id], None)
}

/// Rows of a stream; with a note where there is one, which is another schema.
fn rows(at: StreamPartition, ids: &[i64], note: Option<&str>) -> ChangeBatch {
    let mut fields = vec![Field::new("id", DataType::Int64, true)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids.to_vec()))];
    if let Some(note) = note {
        fields.push(Field::new("note", DataType::Utf8, true));
        columns.push(Arc::new(StringArray::from(vec![note; ids.len()])));
    }
    fields.extend(reserved_fields());
    let micros = vec![1_769_212_800_000_000; ids.len()];
    columns.push(Arc::new(StringArray::from(vec!["INSERT"; ids.len()])));
    columns.push(Arc::new(TimestampMicrosecondArray::from(micros).with_timezone(UTC)));
    columns.push(Arc::new(StringArray::from(vec![None::<&str>; ids.len()])));
    ChangeBatch {
        at,
        schema_id: u64::from(note.is_some()),
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(),
        offset: offset(ids.last().copied().unwrap_or(0)),
        ends_transaction: true,
        initial_load: false,
        dead_letters: false,
        newest_micros: 0,
    }
}

/// What a flush reported: durable offsets by stream, and the kinds of what failed.
fn outcome(flushed: &Flushed) -> (BTreeMap<String, String>, Vec<ErrorKind>) {
    let durable = flushed.durable.iter().map(|d| (d.at.to_string(), d.offset.as_str().to_owned())).collect();
    (durable, flushed.failed.iter().map(|(_, error)| error.kind()).collect())
}

/// Writes rows one by one and flushes them in one commit.
async fn commit(sink: &mut IcebergSink, ids: &[i64]) -> Flushed {
    for id in ids {
        sink.write(&row(*id)).await.unwrap();
    }
    sink.flush().await.unwrap()
}

fn assert_durable(flushed: &Flushed, id: i64) {
    let expected = BTreeMap::from([(orders().to_string(), offset(id).as_str().to_owned())]);
    assert_eq!(outcome(flushed), (expected, Vec::new()), "{:?}", flushed.failed);
}

fn assert_failed(flushed: &Flushed, kind: ErrorKind) {
    assert_eq!(outcome(flushed), (BTreeMap::new(), vec![kind]), "{:?}", flushed.failed);
}
