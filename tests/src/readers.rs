//! Foreign readers: the tables as PyIceberg and DuckDB see them, through `readers/read.py`.
//!
//! Nothing here shares code with the sink; that is the point of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::services::iceberg_rest::IcebergRest;
use crate::services::minio::Minio;
use crate::{services, target};

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// PyIceberg; a query runs in DuckDB over the rows that PyIceberg found.
    PyIceberg,
    /// DuckDB's own Iceberg extension.
    DuckDb,
}

/// Both.
pub const READERS: [Reader; 2] = [Reader::PyIceberg, Reader::DuckDb];

/// A table of a catalog.
#[derive(Clone, Debug)]
pub struct Table {
    /// The catalog.
    pub catalog: Catalog,
    /// Namespace and name, with a dot.
    pub name: String,
}

/// Where a table is found; `readers/read.py` tells them apart by the form.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Catalog {
    /// The file of a SQLite catalog.
    Sqlite(PathBuf),
    /// A REST catalog.
    Rest(Rest),
}

/// A REST catalog whose tables lie in S3.
#[derive(Clone, Debug, Serialize)]
pub struct Rest {
    /// The catalog's server.
    pub uri: String,
    /// Where it puts new tables.
    pub warehouse: String,
    /// The storage's server.
    pub endpoint: String,
    /// The id of the storage's key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// What requests to the storage are signed for.
    pub region: String,
}

/// Rows as a reader found them: every cell is text, null, or a list of cells; see `readers/read.py` for the forms.
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
    /// Its parent's id.
    pub parent: Option<String>,
    /// Its sequence number.
    pub sequence: i64,
    /// When it was made, in milliseconds since 1970 UTC; PyIceberg only.
    pub timestamp_ms: f64,
    /// `append`, …
    pub operation: String,
    /// Its summary; PyIceberg only.
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
    /// Its size in bytes; PyIceberg only.
    pub bytes: u64,
    /// Its partition values, printed; PyIceberg only.
    pub partition: Vec<String>,
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

    fn ask<T: for<'a> Deserialize<'a>>(self, table: &Table, op: &str, arguments: Value) -> Result<T> {
        let reader = match self {
            Self::PyIceberg => "pyiceberg",
            Self::DuckDb => "duckdb",
        };
        let mut request = json!({"op": op, "reader": reader, "catalog": table.catalog, "table": table.name});
        if let (Value::Object(request), Value::Object(arguments)) = (&mut request, arguments) {
            request.extend(arguments);
        }
        let answer = Process::ask(&request)?;
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
        Self {
            uri: rest.uri(),
            warehouse: IcebergRest::WAREHOUSE.to_owned(),
            endpoint: minio.endpoint(),
            access_key: minio.access_key().to_owned(),
            secret_key: minio.secret_key().to_owned(),
            region: Minio::REGION.to_owned(),
        }
    }
}

impl Table {
    /// A table of a SQLite catalog.
    #[must_use]
    pub fn new(catalog: &Path, name: &str) -> Self {
        Self { catalog: Catalog::Sqlite(catalog.to_owned()), name: name.to_owned() }
    }

    /// A table of a REST catalog.
    #[must_use]
    pub fn rest(catalog: &Rest, name: &str) -> Self {
        Self { catalog: Catalog::Rest(catalog.clone()), name: name.to_owned() }
    }

    /// The table's properties.
    ///
    /// # Errors
    /// What PyIceberg says; the same holds for everything below.
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

    /// Appends rows, each an object by the columns' names, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn append_as_somebody_else(&self, rows: &[Value]) -> Result<()> {
        Reader::PyIceberg.ask(self, "append", json!({ "rows": rows }))
    }

    /// Where the current metadata file lies.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn metadata_location(&self) -> Result<String> {
        let location: Value = Reader::PyIceberg.ask(self, "location", json!({}))?;
        Ok(location["metadata"].as_str().unwrap_or_default().to_owned())
    }

    /// Whether the catalog has the table.
    ///
    /// # Errors
    /// What PyIceberg says, unless it says that there is no such table.
    pub fn exists(&self) -> Result<bool> {
        match self.metadata_location() {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains("NoSuchTableError") => Ok(false),
            Err(_) if matches!(&self.catalog, Catalog::Sqlite(file) if !file.exists()) => Ok(false),
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

    /// Rolls the table back to a snapshot, as somebody else with PyIceberg would.
    ///
    /// # Errors
    /// What PyIceberg says.
    pub fn roll_back_as_somebody_else(&self, snapshot: &str) -> Result<()> {
        Reader::PyIceberg.ask(self, "rollback", json!({ "snapshot": snapshot }))
    }
}

/// The Python process; one for all tests of this process, started at the first request. Its end of input ends it.
struct Process {
    _child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn ask(request: &Value) -> Result<Value> {
        static PROCESS: Mutex<Option<Process>> = Mutex::new(None);
        let mut guard = PROCESS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(Self::start()?);
        }
        let Some(process) = guard.as_mut() else { bail!("no reader") };
        let answer = process.exchange(request);
        if answer.is_err() {
            *guard = None;
        }
        answer
    }

    fn start() -> Result<Self> {
        let python = install()?;
        let script = target::repository().join("tests/readers/read.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(target::root().join("readers/duckdb"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run the readers' Python")?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the reader has no pipes");
        };
        Ok(Self { _child: child, requests, answers: BufReader::new(answers) })
    }

    fn exchange(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the reader said {line:?} to {request}"))
    }
}

/// The Python of a virtual environment under `target/` that holds the pinned readers; made where it is missing or out of
/// date.
///
/// # Errors
/// When Python or the packages cannot be installed.
pub fn install() -> Result<PathBuf> {
    services::venv(&target::root().join("readers"), &target::repository().join("tests/readers/requirements.txt"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        table.append_as_somebody_else(&[json!({"id": 1, "who": "a"}), json!({"id": 2})]).unwrap();
        rest.kill9();
        minio.kill9();
        assert!(table.exists().is_err() && Reader::DuckDb.rows(&table).is_err());
        minio.restart().unwrap();
        rest.restart().unwrap();
        table.append_as_somebody_else(&[json!({"id": 3, "who": "c"})]).unwrap();

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
