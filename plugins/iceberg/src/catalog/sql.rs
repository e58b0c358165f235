//! The embedded catalog: the JDBC catalog's tables in a SQLite file, which PyIceberg's `SqlCatalog` and Java's
//! `JdbcCatalog` open as well.
//!
//! A table's row names its current metadata file; a commit writes the next one and moves the row to it by
//! compare-and-swap. The file keeps SQLite's rollback journal, which every program can open, read-only ones included; one
//! that somebody has changed to a write-ahead log stays so. It serves one machine: SQLite on a network share is
//! nobody's friend.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use iceberg::spec::{FormatVersion, TableMetadata, TableMetadataBuilder, TableMetadataRef};
use iceberg::{MetadataLocation, NamespaceIdent, TableCreation, TableIdent};
use philotes_sdk::{failpoint, without_secrets};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use uuid::Uuid;

use super::{Catalog, CatalogError, CatalogErrorKind as Kind, CommitRequest, LoadedTable, Result, Shown, metadata};
use crate::config::SqlCatalogConfig;
use crate::manifests::flag;
use crate::storage::{Files, MAX_WHOLE_BYTES, too_long};

/// How long a statement waits for another program's lock on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The catalog's tables, as Java's `JdbcCatalog` (schema V1) and PyIceberg create them.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL,
    table_namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000),
    previous_metadata_location VARCHAR(1000),
    iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name)
);
CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000) NOT NULL,
    PRIMARY KEY (catalog_name, namespace, property_key)
);";

/// Delete superseded metadata files after a commit, as the table's property says.
const DELETE_AFTER_COMMIT: &str = "write.metadata.delete-after-commit.enabled";

/// A catalog in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqlCatalog {
    name: String,
    warehouse: String,
    database: Arc<Mutex<Connection>>,
    /// Rows say whether they are tables or views (schema V1); files of older programs do not have the column.
    has_type: bool,
    files: Files,
    /// The last metadata read or written per table and its location. Metadata files never change, so what is here under
    /// the location that the row names is what the file says.
    known: Mutex<HashMap<TableIdent, (String, TableMetadataRef)>>,
}

/// The path of the database file that a `sqlite:///path` URI names. SQLAlchemy's absolute form with four slashes is the
/// same path.
pub(crate) fn database_path(uri: &str) -> std::result::Result<PathBuf, String> {
    let path = uri.strip_prefix("sqlite://").unwrap_or_default();
    let path = if path.starts_with("//") { &path[1..] } else { path };
    if !path.starts_with('/') || path.ends_with('/') || path.contains(['?', '#']) {
        let shown = without_secrets(uri);
        return Err(format!("{shown:?} is no SQLite file; expected sqlite:///absolute/path/catalog.db"));
    }
    Ok(PathBuf::from(path))
}

/// What an embedded catalog's tables lie below.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Warehouse {
    /// `file:///path`: a folder of this machine.
    Folder(PathBuf),
    /// `s3://bucket/path`.
    S3,
}

impl Warehouse {
    pub(crate) fn parse(warehouse: &str) -> std::result::Result<Self, String> {
        // Readers cut a location at `?` and `#`, and no location may hold a relative or an empty part.
        let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['?', '#']);
        let trimmed = warehouse.trim_end_matches('/');
        if let Some(rest) = trimmed.strip_prefix("s3://")
            && !rest.split('/').any(odd)
        {
            return Ok(Self::S3);
        }
        let path = trimmed.strip_prefix("file://").unwrap_or_default();
        if !path.starts_with('/') || path[1..].split('/').any(odd) {
            let shown = without_secrets(warehouse);
            return Err(format!(
                "{shown:?} is neither a folder nor in S3; expected file:///absolute/path or s3://bucket/path, without `?`, \
                 `#`, `.`, `..` and empty parts"
            ));
        }
        Ok(Self::Folder(PathBuf::from(path)))
    }
}

fn path_of(config: &SqlCatalogConfig) -> Result<PathBuf> {
    database_path(&config.uri).map_err(|message| CatalogError::new(Kind::Refused, format!("catalog.uri: {message}")))
}

impl SqlCatalog {
    /// Opens the file, creating it, its tables and the folders above it where they are missing.
    pub(crate) async fn open(config: &SqlCatalogConfig, files: Files) -> Result<Self> {
        let path = path_of(config)?;
        let config = config.clone();
        blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|e| {
                    let message = format!("catalog.uri: cannot create the folder {}", folder.display());
                    CatalogError::new(Kind::Unavailable, message).with_source(e)
                })?;
            }
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            let database = connect(&path, flags)?;
            database.execute_batch(TABLES).map_err(|e| failed_to_open(&path, e))?;
            Self::new(&config, &path, database, files)
        })
        .await
    }

    /// Opens the file where it exists and holds a catalog; changes nothing.
    pub(crate) async fn open_existing(config: &SqlCatalogConfig, files: Files) -> Result<Option<Self>> {
        let path = path_of(config)?;
        let config = config.clone();
        blocking(move || {
            if !path.exists() {
                return Ok(None);
            }
            let database = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            let sql = "SELECT count(*) FROM sqlite_schema
                       WHERE name IN ('iceberg_tables', 'iceberg_namespace_properties')";
            let tables: i64 = database.query_row(sql, [], |row| row.get(0)).map_err(|e| failed_to_open(&path, e))?;
            if tables == 2 { Self::new(&config, &path, database, files).map(Some) } else { Ok(None) }
        })
        .await
    }

    fn new(config: &SqlCatalogConfig, path: &Path, database: Connection, files: Files) -> Result<Self> {
        let typed = "SELECT count(*) FROM pragma_table_info('iceberg_tables') WHERE name = 'iceberg_type'";
        let has_type: i64 = database.query_row(typed, [], |row| row.get(0)).map_err(|e| failed_to_open(path, e))?;
        Ok(Self {
            name: config.name.clone(),
            warehouse: config.warehouse.trim_end_matches('/').to_owned(),
            database: Arc::new(Mutex::new(database)),
            has_type: has_type > 0,
            files,
            known: Mutex::default(),
        })
    }

    /// Runs statements on a thread where waiting for a lock disturbs nobody.
    async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let database = self.database.clone();
        blocking(move || {
            // A panic while the lock was held cannot leave a connection half-changed: statements are atomic.
            let database = database.lock().unwrap_or_else(PoisonError::into_inner);
            statements(&database).map_err(|e| failed(&format!("cannot {doing} in the SQLite catalog"), e))
        })
        .await
    }

    /// Restricts a statement on `iceberg_tables` to tables, where views are told from them.
    fn only_tables(&self) -> &'static str {
        if self.has_type { " AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)" } else { "" }
    }

    async fn metadata_location(&self, table: &TableIdent) -> Result<Option<String>> {
        let sql = format!(
            "SELECT metadata_location FROM iceberg_tables
             WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3{}",
            self.only_tables()
        );
        let (name, namespace, table) = (self.name.clone(), dotted(table.namespace()), table.name().to_owned());
        let found = self.run("look up a table", move |database| {
            let key = params![name, namespace, table];
            database.query_row(&sql, key, |row| row.get::<_, Option<String>>(0)).optional()
        });
        Ok(found.await?.flatten())
    }

    async fn load(&self, table: &TableIdent) -> Result<(String, TableMetadataRef)> {
        let location = self
            .metadata_location(table)
            .await?
            .ok_or_else(|| CatalogError::new(Kind::NotFound, format!("table {table} does not exist")))?;
        if let Some((known, metadata)) = self.known().get(table)
            && *known == location
        {
            return Ok((location, metadata.clone()));
        }
        let metadata = Arc::new(self.read_metadata(table, &location).await?);
        self.known().insert(table.clone(), (location.clone(), metadata.clone()));
        Ok((location, metadata))
    }

    /// Reads a metadata file, all of which can be written again.
    async fn read_metadata(&self, table: &TableIdent, location: &str) -> Result<TableMetadata> {
        let doing = format!("cannot read the metadata of table {table}");
        let failed = |e: iceberg::Error| {
            let kind = if e.retryable() { Kind::Unavailable } else { Kind::Refused };
            CatalogError::new(kind, &doing).with_source(e)
        };
        let file = self.files.io.new_input(location).map_err(failed)?.read().await.map_err(failed)?;
        let refused = |e: serde_json::Error| CatalogError::new(Kind::Refused, &doing).with_source(e);
        let json = unpacked(&file).map_err(|e| CatalogError::new(Kind::Refused, &doing).with_source(e))?;
        let written: serde_json::Value = serde_json::from_slice(&json).map_err(refused)?;
        let read: TableMetadata = match serde_json::from_slice(&json) {
            Ok(read) => read,
            Err(error) => {
                return Err(match metadata::unreadable(&written) {
                    Some(why) => CatalogError::new(Kind::Refused, format!("table {table} cannot be written to: {why}")),
                    None => refused(error),
                });
            }
        };
        // Older versions are not written to.
        if read.format_version() >= FormatVersion::V2
            && let Some(lost) = metadata::lost(&written, &read).map_err(refused)?
        {
            return Err(CatalogError::new(
                Kind::Refused,
                format!(
                    "table {table} cannot be written to: its metadata has a part that would be lost with the next commit, {lost}; \
                     allowed is what version {} of the specification has",
                    read.format_version() as u8
                ),
            ));
        }
        Ok(read)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<TableIdent, (String, TableMetadataRef)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loaded(&self, at: String, metadata: TableMetadataRef) -> LoadedTable {
        LoadedTable { metadata, metadata_location: Some(at), files: self.files.clone() }
    }

    /// Writes a metadata file, and syncs to disk all that it names, so that the table's row can be moved to it.
    async fn write_metadata(&self, metadata: &TableMetadata, location: &MetadataLocation) -> Result<()> {
        let written = async {
            metadata.write_to(&self.files.io, location).await.map_err(|e| {
                let kind = if e.retryable() { Kind::Unavailable } else { Kind::Refused };
                CatalogError::new(kind, "cannot write the table's metadata").with_source(e)
            })?;
            self.files.sync().await.map_err(CatalogError::unsynced)
        };
        let written = written.await.map_err(CatalogError::unsent);
        if written.is_err() {
            self.discard(&location.to_string()).await;
        }
        written
    }

    /// Removes a file that nothing refers to; the worst that failing does is to leave it.
    async fn discard(&self, location: &str) {
        if let Err(error) = self.files.io.delete(location).await {
            tracing::debug!(location, %error, "an unused metadata file stays");
        }
    }
}

#[async_trait]
impl Catalog for SqlCatalog {
    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        if self.namespace_exists(namespace).await? {
            return Err(CatalogError::new(Kind::AlreadyExists, format!("namespace {namespace} exists already")));
        }
        let (name, dotted) = (self.name.clone(), dotted(namespace));
        self.run("create a namespace", move |database| {
            // Two may create it at once; both are content then.
            let sql = "INSERT OR IGNORE INTO iceberg_namespace_properties VALUES (?1, ?2, 'exists', 'true')";
            database.execute(sql, params![name, dotted])
        })
        .await?;
        Ok(())
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        let wanted = namespace.as_ref();
        Ok(self.list_namespaces().await?.iter().any(|found| found.as_ref().starts_with(wanted)))
    }

    async fn list_namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        let name = self.name.clone();
        let found = self.run("list namespaces", move |database| {
            let mut statement = database.prepare_cached(
                "SELECT table_namespace FROM iceberg_tables WHERE catalog_name = ?1
                 UNION SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = ?1 ORDER BY 1",
            )?;
            statement.query_map([name], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        });
        let found = found.await?;
        Ok(found.iter().filter_map(|dotted| NamespaceIdent::from_strs(dotted.split('.')).ok()).collect())
    }

    fn shown(&self) -> Shown {
        Shown::All
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let sql = format!(
            "SELECT table_name FROM iceberg_tables WHERE catalog_name = ?1 AND table_namespace = ?2{} ORDER BY 1",
            self.only_tables()
        );
        let (name, dotted) = (self.name.clone(), dotted(namespace));
        let found = self.run("list tables", move |database| {
            let mut statement = database.prepare_cached(&sql)?;
            statement.query_map([name, dotted], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        });
        Ok(found.await?.into_iter().map(|table| TableIdent::new(namespace.clone(), table)).collect())
    }

    async fn create_table(&self, namespace: &NamespaceIdent, mut creation: TableCreation) -> Result<LoadedTable> {
        let table = TableIdent::new(namespace.clone(), creation.name.clone());
        if !self.namespace_exists(namespace).await? {
            return Err(CatalogError::new(Kind::NotFound, format!("namespace {namespace} does not exist")));
        }
        // Unique, so that a table that is dropped and created again shares no file with its past.
        let location = creation.location.take().unwrap_or_else(|| {
            let parts: Vec<String> = namespace.iter().map(|part| escape(part)).collect();
            format!("{}/{}/{}-{}", self.warehouse, parts.join("/"), escape(&creation.name), Uuid::new_v4())
        });
        creation.location = Some(location.clone());
        let refused = |e| CatalogError::new(Kind::Refused, format!("cannot create table {table}")).with_source(e);
        let built = TableMetadataBuilder::from_table_creation(creation).map_err(refused)?.build().map_err(refused)?;
        let at = MetadataLocation::new_with_metadata(&location, &built.metadata);
        self.write_metadata(&built.metadata, &at).await?;
        let at = at.to_string();

        let sql = if self.has_type {
            "INSERT INTO iceberg_tables
             (catalog_name, table_namespace, table_name, metadata_location, iceberg_type) VALUES (?1, ?2, ?3, ?4, 'TABLE')"
        } else {
            "INSERT INTO iceberg_tables
             (catalog_name, table_namespace, table_name, metadata_location) VALUES (?1, ?2, ?3, ?4)"
        };
        let row = (self.name.clone(), dotted(namespace), table.name().to_owned(), at.clone());
        let inserted = self.run("create a table", move |database| match database.execute(sql, row) {
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::ConstraintViolation => Ok(false),
            result => result.map(|_| true),
        });
        if !inserted.await? {
            self.discard(&at).await;
            return Err(CatalogError::new(Kind::AlreadyExists, format!("table {table} exists already")));
        }
        let metadata = Arc::new(built.metadata);
        self.known().insert(table, (at.clone(), metadata.clone()));
        Ok(self.loaded(at, metadata))
    }

    async fn table_exists(&self, table: &TableIdent) -> Result<bool> {
        Ok(self.metadata_location(table).await?.is_some())
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        let (at, metadata) = self.load(table).await?;
        Ok(self.loaded(at, metadata))
    }

    async fn commit_table(&self, table: &TableIdent, request: CommitRequest) -> Result<LoadedTable> {
        let (current, metadata) = self.load(table).await?;
        tracing::trace!(%table, request = %request.id, from = current, "committing");
        if request.planned_on.as_ref().is_some_and(|planned_on| *planned_on != current) {
            return Err(CatalogError::new(Kind::Conflict, format!("table {table} has changed")));
        }
        for requirement in &request.requirements {
            requirement
                .check(Some(&metadata))
                .map_err(|e| CatalogError::new(Kind::Conflict, format!("table {table} has changed")).with_source(e))?;
        }
        let refused =
            |e| CatalogError::new(Kind::Refused, format!("table {table} does not take the change")).with_source(e);
        let mut builder = TableMetadata::clone(&metadata).into_builder(Some(current.clone()));
        for update in request.updates {
            builder = update.apply(builder).map_err(refused)?;
        }
        let built = builder.build().map_err(refused)?;
        // A foreign program may have named its metadata file in a way of its own; then the numbers start again.
        let next = MetadataLocation::from_str(&current).map_or_else(
            |_| MetadataLocation::new_with_metadata(built.metadata.location(), &built.metadata),
            |at| at.with_next_version().with_new_metadata(&built.metadata),
        );
        self.write_metadata(&built.metadata, &next).await?;
        let next = next.to_string();

        let sql = format!(
            "UPDATE iceberg_tables SET metadata_location = ?5, previous_metadata_location = ?4
             WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3 AND metadata_location = ?4{}",
            self.only_tables()
        );
        let row = (self.name.clone(), dotted(table.namespace()), table.name().to_owned(), current, next.clone());
        let moved = self.run("commit a table", move |database| database.execute(&sql, row)).await;
        if moved.as_ref().is_err_and(CatalogError::never_left) {
            self.discard(&next).await;
        }
        if moved? == 0 {
            self.discard(&next).await;
            return Err(CatalogError::new(Kind::Conflict, format!("table {table} was changed meanwhile")));
        }
        failpoint!("commit.sent", |message| CatalogError::new(Kind::Unknown, message));
        let metadata = Arc::new(built.metadata);
        self.known().insert(table.clone(), (next.clone(), metadata.clone()));
        if flag(&metadata, DELETE_AFTER_COMMIT, false) {
            for superseded in &built.expired_metadata_logs {
                self.discard(&superseded.metadata_file).await;
            }
        }
        Ok(self.loaded(next, metadata))
    }
}

/// Opens the file, and chooses how its commits reach the disk.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let open = || {
        let database = Connection::open_with_flags(path, flags)?;
        database.busy_timeout(BUSY_TIMEOUT)?;
        // A commit that was reported survives a power failure. Removing the journal would take two more syncs of the
        // folder than emptying it; this is a choice per connection and leaves nothing in the file.
        database.pragma_update(None, "synchronous", "FULL")?;
        let journal: String = database.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if journal == "delete" {
            database.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
        }
        Ok(database)
    };
    open().map_err(|e| failed_to_open(path, e))
}

fn failed_to_open(path: &Path, error: rusqlite::Error) -> CatalogError {
    failed(&format!("catalog.uri: cannot open {}", path.display()), error)
}

/// A namespace as the JDBC catalog writes it.
fn dotted(namespace: &NamespaceIdent) -> String {
    namespace.join(".")
}

/// A name as one part of a location: readers cut locations at some characters, and a slash would make two parts.
fn escape(name: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'=').remove(b'$');
    percent_encoding::utf8_percent_encode(name, KEPT).to_string()
}

/// A metadata file as text: it may be compressed.
pub(crate) fn unpacked(file: &[u8]) -> std::io::Result<Cow<'_, [u8]>> {
    if !file.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(file));
    }
    let mut json = Vec::new();
    flate2::read::MultiGzDecoder::new(file).take(MAX_WHOLE_BYTES + 1).read_to_end(&mut json)?;
    if json.len() as u64 > MAX_WHOLE_BYTES {
        return Err(std::io::Error::other(too_long("it would be")));
    }
    Ok(Cow::Owned(json))
}

/// What SQLite reports, as the catalog's error.
fn failed(doing: &str, error: rusqlite::Error) -> CatalogError {
    let code = error.sqlite_error_code();
    let kind = match code {
        // Locked by another program for the whole time-out, or not writable just now: nothing was changed.
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied,
        ) => Kind::Unavailable,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Kind::Refused,
        // The disk failed somewhere on the way: the commit may be found in the journal or not.
        Some(ErrorCode::SystemIoFailure) => Kind::Unknown,
        _ => Kind::Refused,
    };
    let failed = CatalogError::new(kind, doing).with_source(error);
    // SQLite has rolled the statement back, or never began it.
    if kind == Kind::Unavailable { failed.unsent() } else { failed }
}

/// Runs what blocks on a thread made for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(CatalogError::new(Kind::Unknown, "the SQLite catalog stopped").with_source(error)),
    }
}

#[cfg(test)]
mod tests;
