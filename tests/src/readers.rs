//! Foreign readers: the tables as PyIceberg and DuckDB see them, through `readers/read.py`, and Spark, through
//! `readers/spark.py`.
//!
//! Nothing here shares code with the sink; that is the point of it.

mod others;
mod process;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::services::iceberg_rest::IcebergRest;
use crate::services::minio::Minio;

pub use others::Dangling;
pub use process::{install, measure_with_spark};

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// PyIceberg; a query runs in DuckDB over the rows that PyIceberg found.
    PyIceberg,
    /// DuckDB's own Iceberg extension.
    DuckDb,
    /// Spark, with the Iceberg project's own Java.
    Spark,
}

/// Those that start in a moment: all but Spark, whose Java takes seconds, so that few tests ask it.
pub const READERS: [Reader; 2] = [Reader::PyIceberg, Reader::DuckDb];

/// All of them.
pub const READERS_WITH_SPARK: [Reader; 3] = [Reader::PyIceberg, Reader::DuckDb, Reader::Spark];

/// A table of a catalog.
#[derive(Clone, Debug)]
pub struct Table {
    /// The catalog.
    pub catalog: Catalog,
    /// Namespace and name, with a dot.
    pub name: String,
}

/// Where a table is found; `readers/protocol.py` has the forms.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Catalog {
    /// A SQLite catalog.
    Sqlite(Sqlite),
    /// A REST catalog.
    Rest(Rest),
}

/// A SQLite catalog, whose tables lie in a folder of this machine or in S3.
#[derive(Clone, Debug, Serialize)]
pub struct Sqlite {
    /// Its file.
    pub file: PathBuf,
    /// Where the tables lie, if not in a folder.
    pub storage: Option<Storage>,
}

/// A REST catalog whose tables lie in S3.
#[derive(Clone, Debug, Serialize)]
pub struct Rest {
    /// The catalog's server.
    pub uri: String,
    /// Where it puts new tables.
    pub warehouse: String,
    /// Where the tables lie.
    pub storage: Storage,
}

/// An S3.
#[derive(Clone, Debug, Serialize)]
pub struct Storage {
    /// The server.
    pub endpoint: String,
    /// The id of the key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// What requests are signed for.
    pub region: String,
}

/// Rows as a reader found them: every cell is text, null, or a list of cells; see `readers/protocol.py` for the forms.
#[derive(Clone, Debug, Deserialize)]
pub struct Rows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

/// A column of a table's schema.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// The field id; 0 where the reader does not tell it.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its type, as the reader prints it.
    #[serde(rename = "type")]
    pub kind: String,
    /// It is never null.
    pub required: bool,
    /// It belongs to the identifier fields.
    pub identifier: bool,
}

/// A snapshot.
#[derive(Clone, Debug, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its parent's id; not from DuckDB.
    pub parent: Option<String>,
    /// Its sequence number; not from Spark.
    pub sequence: i64,
    /// When it was made, in milliseconds since 1970 UTC; not from DuckDB.
    pub timestamp_ms: f64,
    /// `append`, …
    pub operation: String,
    /// Its summary; not from DuckDB.
    pub summary: Map<String, Value>,
}

/// A live data file.
#[derive(Clone, Debug, Deserialize)]
pub struct DataFile {
    /// Where it lies.
    pub path: String,
    /// Its data sequence number.
    pub sequence: i64,
    /// Its rows.
    pub rows: u64,
    /// Its size in bytes; not from DuckDB.
    pub bytes: u64,
    /// Its partition values, printed by the reader; not from DuckDB.
    pub partition: Vec<String>,
}

/// A live delete file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DeleteFile {
    /// Where it lies.
    pub path: String,
    /// Whether it deletes by values or by positions.
    pub kind: DeleteKind,
    /// Its data sequence number; from DuckDB that of its manifest.
    pub sequence: i64,
    /// The id of the snapshot that added it; not from DuckDB.
    pub snapshot: String,
    /// Its rows.
    pub rows: u64,
    /// The id of the partition specification that it was written with; not from DuckDB.
    pub spec: i32,
    /// The field ids whose values it deletes by; not from DuckDB.
    pub columns: Vec<i64>,
}

/// How a delete file says what is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeleteKind {
    /// By the values of some columns.
    Equality,
    /// By file and position, or as the vector of a file.
    Position,
}

/// How a table is laid out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Layout {
    /// The version of its format.
    pub version: u8,
    /// The fields of its sort order: `identity(id) desc nulls-last`.
    pub order: Vec<String>,
    /// Its live data files, in the order of their commits.
    pub files: Vec<FileLayout>,
}

/// How a data file is laid out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FileLayout {
    /// Where it lies.
    pub path: String,
    /// The id of the partition specification that it was written with.
    pub spec: i32,
    /// The id of the sort order that its rows are in.
    pub order: Option<i32>,
}

/// Field ids by the path of the column.
pub type FieldIds = BTreeMap<String, i64>;

impl Rows {
    /// The position of a column.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn index(&self, column: &str) -> Result<usize> {
        self.columns
            .iter()
            .position(|name| name == column)
            .with_context(|| format!("no column {column}; there are {}", self.columns.join(", ")))
    }

    /// The cells of one column.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn column(&self, column: &str) -> Result<Vec<Value>> {
        let index = self.index(column)?;
        Ok(self.rows.iter().map(|row| row[index].clone()).collect())
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PyIceberg => "PyIceberg",
            Self::DuckDb => "DuckDB",
            Self::Spark => "Spark",
        })
    }
}

impl Reader {
    /// All rows, in the reader's order.
    ///
    /// # Errors
    /// What the reader says; the same holds for everything below.
    pub fn rows(self, table: &Table) -> Result<Rows> {
        self.ask(table, "rows", json!({}))
    }

    /// All rows of these columns, in the reader's order.
    ///
    /// # Errors
    /// What the reader says.
    pub fn rows_of(self, table: &Table, columns: &[&str]) -> Result<Rows> {
        self.ask(table, "rows", json!({ "columns": columns }))
    }

    /// The same of the table as it was at a snapshot; not from PyIceberg.
    ///
    /// # Errors
    /// What the reader says.
    pub fn rows_at(self, table: &Table, snapshot: &str, columns: &[&str]) -> Result<Rows> {
        self.ask(table, "rows", json!({ "columns": columns, "snapshot": snapshot }))
    }

    /// How many seconds the reader takes for a query over the table, from looking it up to the last row; not from PyIceberg.
    ///
    /// # Errors
    /// What the reader says.
    pub fn seconds(self, table: &Table, sql: &str) -> Result<f64> {
        self.ask(table, "timed", json!({ "sql": sql }))
    }

    /// The result of a query over the table, which is called `t` in it.
    ///
    /// # Errors
    /// What the reader says.
    pub fn query(self, table: &Table, sql: &str) -> Result<Rows> {
        self.ask(table, "query", json!({ "sql": sql }))
    }

    /// The only cell of a query's first row, as a number.
    ///
    /// # Errors
    /// What the reader says, and when the cell is no whole number.
    pub fn number(self, table: &Table, sql: &str) -> Result<i64> {
        let rows = self.query(table, sql)?;
        let cell = rows.rows.first().and_then(|row| row.first()).and_then(Value::as_str);
        cell.and_then(|cell| cell.parse().ok()).with_context(|| format!("{self}: {cell:?} is no number, from {sql}"))
    }

    /// The current schema.
    ///
    /// # Errors
    /// What the reader says.
    pub fn schema(self, table: &Table) -> Result<Vec<Column>> {
        self.ask(table, "schema", json!({}))
    }

    /// The snapshots, oldest first.
    ///
    /// # Errors
    /// What the reader says.
    pub fn snapshots(self, table: &Table) -> Result<Vec<Snapshot>> {
        self.ask(table, "snapshots", json!({}))
    }

    /// The live data files, in the order of their commits.
    ///
    /// # Errors
    /// What the reader says.
    pub fn files(self, table: &Table) -> Result<Vec<DataFile>> {
        self.ask(table, "files", json!({}))
    }

    /// The live delete files, in the order of their commits.
    ///
    /// # Errors
    /// What the reader says.
    pub fn delete_files(self, table: &Table) -> Result<Vec<DeleteFile>> {
        self.ask(table, "delete_files", json!({}))
    }

    /// The pairs of the column `id` and the id that a table of format version 3 gives to the row, sorted; not from PyIceberg.
    ///
    /// # Errors
    /// What the reader says.
    pub fn row_ids(self, table: &Table) -> Result<Vec<(i64, i64)>> {
        let rows: Rows = self.ask(table, "row_ids", json!({}))?;
        let number = |cell: &Value| cell.as_str().and_then(|cell| cell.parse().ok()).context("a row without an id");
        rows.rows.iter().map(|row| Ok((number(&row[0])?, number(&row[1])?))).collect()
    }

    fn ask<T: for<'a> Deserialize<'a>>(self, table: &Table, op: &str, arguments: Value) -> Result<T> {
        let (process, reader) = match self {
            Self::PyIceberg => (&process::READ, "pyiceberg"),
            Self::DuckDb => (&process::READ, "duckdb"),
            Self::Spark => (&process::SPARK, "spark"),
        };
        let mut request = json!({"op": op, "reader": reader, "catalog": table.catalog, "table": table.name});
        if let (Value::Object(request), Value::Object(arguments)) = (&mut request, arguments) {
            request.extend(arguments);
        }
        let answer = process.ask(&request)?;
        if let Some(error) = answer.get("error") {
            bail!("{self}, {op} of {}: {}", table.name, error.as_str().unwrap_or_default());
        }
        Ok(T::deserialize(answer.get("ok").cloned().unwrap_or_default())?)
    }
}

impl Rest {
    /// The catalog of these two servers.
    #[must_use]
    pub fn new(rest: &IcebergRest, minio: &Minio) -> Self {
        Self::at(&rest.uri(), IcebergRest::WAREHOUSE, minio)
    }

    /// The catalog of any server whose tables lie in MinIO.
    #[must_use]
    pub fn at(uri: &str, warehouse: &str, minio: &Minio) -> Self {
        Self { uri: uri.to_owned(), warehouse: warehouse.to_owned(), storage: Storage::new(minio) }
    }
}

impl Storage {
    /// This server.
    #[must_use]
    pub fn new(minio: &Minio) -> Self {
        Self {
            endpoint: minio.endpoint(),
            access_key: minio.access_key().to_owned(),
            secret_key: minio.secret_key().to_owned(),
            region: Minio::REGION.to_owned(),
        }
    }
}

impl Table {
    /// A table of a SQLite catalog that lies in a folder.
    #[must_use]
    pub fn new(catalog: &Path, name: &str) -> Self {
        let sqlite = Sqlite { file: catalog.to_owned(), storage: None };
        Self { catalog: Catalog::Sqlite(sqlite), name: name.to_owned() }
    }

    /// A table of a REST catalog.
    #[must_use]
    pub fn rest(catalog: &Rest, name: &str) -> Self {
        Self { catalog: Catalog::Rest(catalog.clone()), name: name.to_owned() }
    }

    /// Where the table lies.
    ///
    /// # Errors
    /// What PyIceberg says; the same holds for everything below that does not say another reader.
    pub fn location(&self) -> Result<String> {
        self.locations("table")
    }

    /// Where the current metadata file lies.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn metadata_location(&self) -> Result<String> {
        self.locations("metadata")
    }

    fn locations(&self, of: &str) -> Result<String> {
        let location: Value = Reader::PyIceberg.ask(self, "location", json!({}))?;
        Ok(location[of].as_str().unwrap_or_default().to_owned())
    }

    /// The table's properties.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn properties(&self) -> Result<BTreeMap<String, String>> {
        Reader::PyIceberg.ask(self, "properties", json!({}))
    }

    /// The partition fields: `day(_cdc_timestamp) as date`.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn partitions(&self) -> Result<Vec<String>> {
        Reader::PyIceberg.ask(self, "partitions", json!({}))
    }

    /// How the table and its files are laid out.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn layout(&self) -> Result<Layout> {
        Reader::PyIceberg.ask(self, "layout", json!({}))
    }

    /// All rows, in the order in which they were committed: file by file, each file's rows in its own order.
    ///
    /// # Errors
    /// What PyIceberg says, or pyarrow of a file.
    pub fn rows_in_order(&self) -> Result<Rows> {
        Reader::PyIceberg.ask(self, "rows_in_order", json!({}))
    }

    /// The field id of every column of the schema, nested ones by their path.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn field_ids(&self) -> Result<FieldIds> {
        Reader::PyIceberg.ask(self, "field_ids", json!({}))
    }

    /// The field ids in every live data file, 0 where one is missing.
    ///
    /// # Errors
    /// What PyIceberg says, or pyarrow of a file.
    pub fn parquet_field_ids(&self) -> Result<BTreeMap<String, FieldIds>> {
        Reader::PyIceberg.ask(self, "parquet_field_ids", json!({}))
    }

    /// What is wrong in what the manifests tell of the live data files, against what the files hold: their rows, each
    /// column's values, nulls and bounds, and whether a uuid says that it is one.
    ///
    /// # Errors
    /// What PyIceberg says, or pyarrow of a file.
    pub fn file_faults(&self) -> Result<Vec<String>> {
        Reader::PyIceberg.ask(self, "file_faults", json!({}))
    }

    /// The names of the files in the table's folders that its metadata does not reach.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn unreached(&self) -> Result<Vec<String>> {
        Reader::PyIceberg.ask(self, "unreached", json!({}))
    }

    /// Whether the catalog has the table.
    ///
    /// # Errors
    /// What PyIceberg says, unless it says that there is no such table.
    pub fn exists(&self) -> Result<bool> {
        match self.metadata_location() {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains("NoSuchTableError") => Ok(false),
            Err(_) if matches!(&self.catalog, Catalog::Sqlite(sqlite) if !sqlite.file.exists()) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
