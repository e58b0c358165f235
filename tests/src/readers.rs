//! Foreign readers: the tables as PyIceberg and DuckDB see them, through `readers/read.py`, and Spark, through
//! `readers/spark.py`.
//!
//! Nothing here shares code with the sink; that is the point of it.

mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::services::iceberg_rest::IcebergRest;
use crate::services::minio::Minio;

pub use process::install;

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

    /// Sets a property of the table, as somebody else with Spark would: PyIceberg writes no metadata of format version 3.
    ///
    /// # Errors
    /// What Spark says.
    pub fn set_property_as_somebody_else(&self, name: &str, value: &str) -> Result<()> {
        Reader::Spark.ask(self, "set_property", json!({ "name": name, "value": value }))
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

    /// Creates the table with fields `[name, type, required]`, as somebody else with PyIceberg would. A SQLite catalog
    /// has to be told the warehouse's folder, a REST catalog has a warehouse of its own.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn create_as_somebody_else(&self, warehouse: Option<&Path>, fields: &[Value]) -> Result<()> {
        let warehouse = match warehouse {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                Some(format!("file://{}", dir.display()))
            }
            None => None,
        };
        Reader::PyIceberg.ask(self, "create", json!({"fields": fields, "warehouse": warehouse}))
    }

    /// Appends rows, each an object by the columns' names, as somebody else with PyIceberg or Spark would. Times are
    /// microseconds since 1970 UTC.
    ///
    /// # Errors
    /// What the writer says; DuckDB is none.
    pub fn append_as_somebody_else(&self, writer: Reader, rows: &[Value]) -> Result<()> {
        writer.ask(self, "append", json!({ "rows": rows }))
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

    /// Drops the table, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn drop_as_somebody_else(&self) -> Result<()> {
        Reader::PyIceberg.ask(self, "drop", json!({}))
    }

    /// Drops a column of the table, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn drop_column_as_somebody_else(&self, column: &str) -> Result<()> {
        Reader::PyIceberg.ask(self, "drop_column", json!({ "column": column }))
    }

    /// Rolls the table back to a snapshot, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn roll_back_as_somebody_else(&self, snapshot: &str) -> Result<()> {
        Reader::PyIceberg.ask(self, "rollback", json!({ "snapshot": snapshot }))
    }

    /// Gives the table another name in the same catalog, as an operator with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn rename_as_somebody_else(&self, to: &str) -> Result<()> {
        Reader::PyIceberg.ask(self, "rename", json!({ "to": to }))
    }

    /// Writes all rows into one file, in their order, in place of the files that are there, as somebody else with PyIceberg
    /// would.
    ///
    /// # Errors
    /// What PyIceberg says, such as that the table has changed meanwhile.
    pub fn compact_as_somebody_else(&self) -> Result<()> {
        Reader::PyIceberg.ask(self, "compact", json!({}))
    }

    /// Expires all snapshots but the current one, and removes what only they had, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn expire_as_somebody_else(&self) -> Result<()> {
        Reader::PyIceberg.ask(self, "expire", json!({}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Server;

    /// Times that Python has no words for, and what is nested, come as what they are from each reader.
    #[test]
    fn cells_are_exact() {
        if let Err(error) = install() {
            return crate::skip(&error);
        }
        let dir = tempfile::tempdir().unwrap();
        let table = Table::new(&dir.path().join("catalog.db"), "cdc.public_t");
        let list =
            |element: Value| json!({"type": "list", "element-id": 20, "element": element, "element-required": false});
        let inner = json!({"type": "struct", "fields": [
            {"id": 31, "name": "a.b", "type": "timestamptz", "required": false},
            {"id": 32, "name": "c", "type": {"type": "list", "element-id": 33, "element": "date", "element-required": false},
             "required": false}]});
        let fields = [
            json!(["id", "long", true]),
            json!(["at", "timestamp", false]),
            json!(["moment", "timestamptz", false]),
            json!(["day", "date", false]),
            json!(["a \"quoted\" `name`.with dots", "float", false]),
            json!(["much", "decimal(38, 38)", false]),
            json!(["bytes", "binary", false]),
            json!(["nested", list(inner), false]),
        ];
        // In days and microseconds: the ends of what PostgreSQL has, and its infinities.
        let (first, last) = (-210_866_803_200_000_000_i64, 9_223_371_331_199_999_999_i64 - 946_684_800_000_000);
        let times = [first, last, i64::MAX, -i64::MAX, -1, -12_219_292_800_000_001, 253_402_300_800_000_000];
        let days = [-2_440_588_i64, 2_145_031_948, i64::from(i32::MAX), i64::from(-i32::MAX), -1, -141_428, 2_932_897];
        // PyIceberg has no words for such bounds.
        let properties = json!({"write.metadata.metrics.default": "none"});
        let warehouse = format!("file://{}", dir.path().display());
        let request = json!({"fields": fields, "warehouse": warehouse, "properties": properties});
        Reader::PyIceberg.ask::<()>(&table, "create", request).unwrap();
        // PyIceberg makes an empty list of a missing list of structs.
        let mut rows =
            vec![json!({"id": 0, "nested": []}), json!({"id": 1, "nested": [], fields[4][0].as_str().unwrap(): -0.0})];
        for (time, day) in times.iter().zip(days) {
            rows.push(json!({"id": rows.len(), "at": time, "moment": time, "day": day,
                "nested": [null, {"a.b": time, "c": [day, null]}, {"a.b": null, "c": null}]}));
        }
        table.append_as_somebody_else(Reader::PyIceberg, &rows).unwrap();
        let names: Vec<&str> = fields.iter().map(|field| field[0].as_str().unwrap()).collect();
        let mut expected = vec![
            json!(["0", null, null, null, null, null, null, []]),
            json!(["1", null, null, null, "8000000000000000", null, null, []]),
        ];
        for (number, (time, day)) in times.iter().zip(days).enumerate() {
            let (time, day) = (time.to_string(), day.to_string());
            let nested = json!([null, {"a.b": time, "c": [day, null]}, {"a.b": null, "c": null}]);
            expected.push(json!([(number + 2).to_string(), time, time, day, null, null, null, nested]));
        }
        for reader in READERS_WITH_SPARK {
            let mut found = reader.rows_of(&table, &names).unwrap();
            found.rows.sort_by_key(|row| row[0].as_str().unwrap().to_owned());
            assert_eq!(found.columns, names, "{reader}");
            assert_eq!(Value::from(found.rows), Value::from(expected.clone()), "{reader}");
        }
    }

    /// A table in the storage, under a REST catalog, outlives both servers' crashes; both readers find the same in it.
    #[test]
    fn a_rest_catalog_is_read() {
        let started = Minio::start().and_then(|minio| Ok((IcebergRest::start(&minio)?, minio)));
        let (mut rest, mut minio) = match started {
            Ok(started) => started,
            Err(error) => return crate::skip(&error),
        };
        let table = Table::rest(&Rest::new(&rest, &minio), "cdc.public_t");
        assert!(!table.exists().unwrap());
        table.create_as_somebody_else(None, &[json!(["id", "long", true]), json!(["who", "string", false])]).unwrap();
        assert!(table.exists().unwrap());
        table.append_as_somebody_else(Reader::PyIceberg, &[json!({"id": 1, "who": "a"}), json!({"id": 2})]).unwrap();
        rest.kill9();
        minio.kill9();
        assert!(table.exists().is_err() && Reader::DuckDb.rows(&table).is_err());
        minio.restart().unwrap();
        rest.restart().unwrap();
        table.append_as_somebody_else(Reader::PyIceberg, &[json!({"id": 3, "who": "c"})]).unwrap();

        let expected = [[json!("1"), json!("a")], [json!("2"), json!(null)], [json!("3"), json!("c")]];
        for reader in READERS {
            assert_eq!(reader.query(&table, "select id, who from t order by id").unwrap().rows, expected, "{reader}");
            let names: Vec<String> = reader.schema(&table).unwrap().into_iter().map(|column| column.name).collect();
            assert_eq!(names, ["id", "who"], "{reader}");
            assert_eq!(reader.snapshots(&table).unwrap().len(), 2, "{reader}");
            let files = reader.files(&table).unwrap();
            assert_eq!(files.iter().map(|file| file.rows).collect::<Vec<_>>(), [2, 1], "{reader}");
            assert!(files[0].path.starts_with(IcebergRest::WAREHOUSE), "{reader}: {}", files[0].path);
        }
        assert_eq!(table.rows_in_order().unwrap().rows, expected);
        assert_eq!(table.parquet_field_ids().unwrap().len(), 2);
        table.drop_as_somebody_else().unwrap();
        assert!(!table.exists().unwrap());
    }
}
