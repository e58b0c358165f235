//! The change batch: what a source delivers and a sink writes.

mod contract;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

pub use contract::{Contract, OPERATIONS};

use crate::{Error, Offset, Result, StreamName, StreamPartition};

/// Prefix of the columns that the host and its plugins reserve.
pub const RESERVED_PREFIX: &str = "_cdc_";
/// `_cdc_operation`: utf8, required: `INSERT`, `UPDATE`, `DELETE` or `TRUNCATE`.
pub const OPERATION: &str = "_cdc_operation";
/// `_cdc_timestamp`: timestamp in microseconds UTC: when the change happened at the source.
pub const TIMESTAMP: &str = "_cdc_timestamp";
/// `_cdc_lsn`: utf8, nullable: the source's own position of the change.
pub const LSN: &str = "_cdc_lsn";
/// `_cdc_unchanged`: list of utf8, nullable: the columns that the source did not send with this row, such as an unchanged TOASTed
/// value of PostgreSQL, or all but the key of a row that is gone. They are null in the row, and that says nothing of their value.
pub const UNCHANGED: &str = "_cdc_unchanged";

/// Schema metadata: the stream's printed name.
pub const META_STREAM: &str = "philotes.stream";
/// Schema metadata: a JSON array of the key columns' names, `[]` where there is no key.
pub const META_KEY: &str = "philotes.key";
/// Schema metadata: what the numbers of [`META_COLUMN_NUMBER`] belong to, such as the OID of a table: another value means another
/// table under the same name, whose numbers mean other columns. Absent where the source gives no numbers.
pub const META_RELATION: &str = "philotes.relation";
/// Field metadata: the source's own number of the column, decimal, which outlives a change of its name and is never given to
/// another column of the same [`META_RELATION`]. A schema with numbers names every column that the source has.
pub const META_COLUMN_NUMBER: &str = "philotes.number";
/// Field metadata: what the source's operators have written about the column.
pub const META_COMMENT: &str = "philotes.comment";
/// Field metadata: the name of the column's type at the source, as the source prints it.
pub const META_SOURCE_TYPE: &str = "philotes.source_type";
/// Field metadata: `"true"` where the column's type was inferred from data and not told by the source.
pub const META_INFERRED: &str = "philotes.inferred";

/// The zone of every timestamp with a time zone; readers of Iceberg accept no other spelling.
pub const UTC: &str = "+00:00";

/// The three reserved columns that every change batch has, in the order in which they follow the row itself.
#[must_use]
pub fn reserved_fields() -> [Field; 3] {
    [
        Field::new(OPERATION, DataType::Utf8, false),
        Field::new(TIMESTAMP, DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())), true),
        Field::new(LSN, DataType::Utf8, true),
    ]
}

/// [`UNCHANGED`], which follows the reserved columns in the batches of a source that leaves columns out.
#[must_use]
pub fn unchanged_field() -> Field {
    Field::new(UNCHANGED, DataType::new_list(DataType::Utf8, true), true)
}

/// The schema of a stream's change batches: the columns of the row, the reserved ones behind them, and the metadata that names the
/// stream and its key (columns of the row; none where there is no key).
#[must_use]
pub fn schema(stream: &StreamName, key: &[&str], columns: impl IntoIterator<Item = Field>) -> SchemaRef {
    let fields: Vec<Field> = columns.into_iter().chain(reserved_fields()).collect();
    let key = serde_json::Value::from(key).to_string();
    let metadata = [(META_STREAM.to_owned(), stream.to_string()), (META_KEY.to_owned(), key)];
    Arc::new(Schema::new_with_metadata(fields, metadata.into()))
}

/// Rows of one partition of one stream, all of one schema, and the offset that covers them.
///
/// The columns are the row itself (after an INSERT or UPDATE, before a DELETE, as much of it as is known), followed by
/// the reserved columns. All rows up to and including this batch are covered by `offset`: once the sink reports it
/// durable, the source may forget them. A batch is written whole or not at all and never split over two commits.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// Whose rows these are.
    pub at: StreamPartition,
    /// Identifies the schema within the stream; assigned by the source, never reused for another schema while the
    /// source instance lives.
    pub schema_id: u64,
    /// The rows.
    pub rows: RecordBatch,
    /// Covers these rows and all before them in this partition.
    pub offset: Offset,
    /// The last row ends a transaction of the source.
    pub ends_transaction: bool,
    /// The rows belong to the initial load.
    pub initial_load: bool,
    /// The rows are not the stream's own but its dead letters, in the columns of [`dead_letter`](crate::dead_letter).
    pub dead_letters: bool,
    /// When the source's server took the newest of these rows in, in microseconds since 1970 UTC; for the lag. Zero
    /// where unknown.
    pub newest_micros: i64,
}

impl ChangeBatch {
    /// Roughly how much memory the rows hold, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size()
    }

    /// The names of the key columns of a schema ([`META_KEY`]); empty where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) when the metadata is no JSON array of names of columns.
    pub fn key_columns(schema: &Schema) -> Result<Vec<String>> {
        let Some(json) = schema.metadata().get(META_KEY) else { return Ok(Vec::new()) };
        let names: Vec<String> = serde_json::from_str(json).map_err(|e| {
            Error::data(format!("schema metadata {META_KEY} must be a JSON array of names")).with_source(e)
        })?;
        for name in &names {
            if schema.index_of(name).is_err() {
                return Err(Error::data(format!("key column {name:?} is not a column of the schema")));
            }
        }
        Ok(names)
    }
}

/// A stream that a source would deliver: for `philotes plan`.
#[derive(Clone, Debug)]
pub struct StreamDescription {
    /// The stream and its partition (any one of them).
    pub at: StreamPartition,
    /// Its schema, reserved columns, metadata and all.
    pub schema: SchemaRef,
    /// How many rows the schema was sampled from; `None` where the source told it.
    pub sampled_rows: Option<u64>,
}
