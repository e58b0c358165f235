//! Reads the table of dead letters as any reader does: whoever compacts it or deletes from it has not hidden anything.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use iceberg::TableIdent;
use iceberg::expr::Reference;
use iceberg::spec::Datum;
use philotes_sdk::{Error, Result};

use crate::base::Base;
use crate::catalog::{Catalog, CatalogErrorKind};
use crate::error::from_iceberg;

/// A letter as it stands in the table.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) table: String,
    pub(super) table_uuid: String,
    pub(super) stream: String,
    pub(super) partition: String,
    pub(super) sequence: u64,
    pub(super) origin: String,
    pub(super) position: String,
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) record: String,
    /// Only where it was asked for.
    pub(super) arrow: Option<Vec<u8>>,
}

const COLUMNS: [&str; 10] =
    ["table", "table_uuid", "stream", "partition", "sequence", "origin", "position", "kind", "message", "record"];

/// The letters of a connector, or of one of its streams, by stream, table and number; `with_rows` includes their rows.
pub(super) async fn letters(
    catalog: &dyn Catalog,
    table: &TableIdent,
    connector: &str,
    stream: Option<&str>,
    with_rows: bool,
) -> Result<Vec<Stored>> {
    let loaded = match catalog.load_table(table).await {
        Ok(loaded) => loaded,
        Err(error) if error.kind() == CatalogErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let failed = |e| from_iceberg(format!("cannot read table {table}"), e);
    // The crate's scan has no bound on what a list of manifests holds.
    Base::new(loaded.clone()).manifests().await.map_err(|e| e.context(format!("cannot read table {table}")))?;
    let read = iceberg::table::Table::builder()
        .identifier(table.clone())
        .metadata(loaded.metadata)
        .file_io(loaded.files.io)
        .runtime(iceberg::Runtime::current())
        .readonly(true)
        .build()
        .map_err(failed)?;
    let mut filter = Reference::new("connector").equal_to(Datum::string(connector));
    if let Some(stream) = stream {
        filter = filter.and(Reference::new("stream").equal_to(Datum::string(stream)));
    }
    let columns = COLUMNS.into_iter().chain(with_rows.then_some("arrow"));
    let scan = read.scan().with_filter(filter).select(columns).build().map_err(failed)?;
    let batches: Vec<RecordBatch> = scan.to_arrow().await.map_err(failed)?.try_collect().await.map_err(failed)?;
    let mut letters = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            letters
                .push(letter(batch, row).ok_or_else(|| Error::data(format!("table {table} holds no dead letters")))?);
        }
    }
    letters.sort_by(|a, b| (&a.stream, &a.table_uuid, a.sequence).cmp(&(&b.stream, &b.table_uuid, b.sequence)));
    Ok(letters)
}

fn letter(batch: &RecordBatch, row: usize) -> Option<Stored> {
    let text = |name: &str| {
        let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        Some(if column.is_valid(row) { column.value(row).to_owned() } else { String::new() })
    };
    let arrow = batch.column_by_name("arrow").and_then(|column| column.as_binary_opt::<i64>());
    let sequence = batch.column_by_name("sequence")?.as_primitive_opt::<Int64Type>()?.value(row);
    Some(Stored {
        table: text("table")?,
        table_uuid: text("table_uuid")?,
        stream: text("stream")?,
        partition: text("partition")?,
        sequence: u64::try_from(sequence).ok()?,
        origin: text("origin")?,
        position: text("position")?,
        kind: text("kind")?,
        message: text("message")?,
        record: text("record")?,
        arrow: arrow.filter(|arrow| arrow.is_valid(row)).map(|arrow| arrow.value(row).to_vec()),
    })
}
