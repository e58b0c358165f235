//! The catalog: which tables exist and which metadata of each is current.
//!
//! One trait, one implementation per kind of catalog. What an implementation must get right is the outcome of a
//! commit: [`Conflict`](CatalogErrorKind::Conflict) and [`Unavailable`](CatalogErrorKind::Unavailable) say that
//! *this* request changed nothing as far as the catalog knows, everything else that went wrong on the way is
//! [`Unknown`](CatalogErrorKind::Unknown). The commit protocol (`commit.rs`) builds on that and knows no catalog.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod metadata;
mod rest;
pub(crate) mod sql;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::spec::TableMetadataRef;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};
use philotes_sdk as sdk;
use uuid::Uuid;

pub(crate) use sql::unpacked;

use crate::config::{CatalogConfig, Config};
use crate::storage::{Files, S3Access, Unsynced, s3_parts};

/// A table as the catalog knows it at one moment.
#[derive(Clone, Debug)]
pub(crate) struct LoadedTable {
    /// Its metadata.
    pub(crate) metadata: TableMetadataRef,
    /// The file that holds it, where the catalog says so.
    pub(crate) metadata_location: Option<String>,
    /// Reaches its files; a catalog may hand out credentials per table.
    pub(crate) files: Files,
}

/// One request to change a table, all or nothing.
#[derive(Clone, Debug)]
pub(crate) struct CommitRequest {
    /// Identifies the request, for catalogs that honour idempotency keys. Only the very same request, byte for byte, may
    /// carry it again.
    pub(crate) id: Uuid,
    /// What must hold for the request to apply.
    pub(crate) requirements: Vec<TableRequirement>,
    /// What changes.
    pub(crate) updates: Vec<TableUpdate>,
    /// The metadata file that it was planned on, where nothing at all may have changed since. A catalog that compares metadata files
    /// refuses it on any other; one that knows requirements only cannot.
    pub(crate) planned_on: Option<String>,
}

/// Namespaces and tables.
#[async_trait]
pub(crate) trait Catalog: fmt::Debug + Send + Sync {
    /// Creates a namespace; its parents must exist where the catalog nests namespaces.
    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()>;
    /// Whether a namespace exists.
    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool>;
    /// All namespaces, nested ones as well.
    async fn list_namespaces(&self) -> Result<Vec<NamespaceIdent>>;
    /// The tables of a namespace.
    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>>;
    /// Creates a table; the catalog chooses its location where `creation` does not say one, and assigns field ids anew.
    async fn create_table(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<LoadedTable>;
    /// Whether a table exists.
    async fn table_exists(&self, table: &TableIdent) -> Result<bool>;
    /// The table as it is now.
    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable>;
    /// Applies a request and returns the table as it is afterwards (which may already be further on).
    async fn commit_table(&self, table: &TableIdent, request: CommitRequest) -> Result<LoadedTable>;
    /// Which of a table's snapshots its metadata shows.
    fn shown(&self) -> Shown {
        Shown::History
    }
}

/// Which of a table's snapshots a catalog shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// All: the metadata file is read here.
    All,
    /// All, if the history that is shown is whole.
    History,
    /// The current one, beside which others may be in use: on other branches of the catalog itself, say.
    Current,
}

/// Opens the catalog that the configuration names, creating what an embedded one consists of.
pub(crate) async fn open(config: &Config) -> Result<Arc<dyn Catalog>> {
    match &config.catalog {
        CatalogConfig::Sql(sql) => Ok(Arc::new(sql::SqlCatalog::open(sql, files(config)).await?)),
        CatalogConfig::Rest(rest) => Ok(Arc::new(rest::RestCatalog::open(rest, config.storage.as_ref()).await?)),
    }
}

/// Opens the catalog that the configuration names for reading; `None` where an embedded one does not exist yet.
pub(crate) async fn open_existing(config: &Config) -> Result<Option<Arc<dyn Catalog>>> {
    match &config.catalog {
        CatalogConfig::Sql(sql) => {
            let catalog = sql::SqlCatalog::open_existing(sql, files(config)).await?;
            Ok(catalog.map(|catalog| Arc::new(catalog) as Arc<dyn Catalog>))
        }
        CatalogConfig::Rest(_) => open(config).await.map(Some),
    }
}

/// Where the tables of an embedded catalog lie: the warehouse says it.
pub(crate) fn files(config: &Config) -> Files {
    match &config.catalog {
        CatalogConfig::Sql(sql) if s3_parts(&sql.warehouse).is_some() => {
            Files::s3(S3Access::configured(&config.storage.clone().unwrap_or_default()))
        }
        _ => Files::local(),
    }
}

/// A result of a catalog.
pub(crate) type Result<T, E = CatalogError> = std::result::Result<T, E>;

/// What went wrong at a catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CatalogErrorKind {
    /// No such table or namespace.
    NotFound,
    /// The table or namespace exists already.
    AlreadyExists,
    /// A requirement does not hold; this request was not applied.
    Conflict,
    /// The request may have been applied, or may yet be.
    Unknown,
    /// Out of reach; the request was not applied.
    Unavailable,
    /// The catalog will never accept this.
    Refused,
}

/// A failure of a catalog: its kind, a message and the error beneath.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CatalogError {
    kind: CatalogErrorKind,
    message: String,
    /// The request never left: nothing can come of it any more.
    unsent: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CatalogError {
    pub(crate) fn new(kind: CatalogErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), unsent: false, source: None }
    }

    /// The files that a commit names are not on disk, so that it was not sent.
    pub(crate) fn unsynced(error: Unsynced) -> Self {
        let (kind, message) = match error {
            Unsynced::NotTried(_) => {
                (CatalogErrorKind::Unavailable, "the table's files cannot be synced to disk just now")
            }
            Unsynced::Failed(_) => (CatalogErrorKind::Refused, "the disk does not keep the table's files"),
        };
        let (Unsynced::NotTried(source) | Unsynced::Failed(source)) = error;
        Self::new(kind, message).with_source(source).unsent()
    }

    /// The same, of a request that never left.
    pub(crate) fn unsent(mut self) -> Self {
        self.unsent = true;
        self
    }

    /// The same, of a request that had left before.
    pub(crate) fn sent(mut self) -> Self {
        self.unsent = false;
        self
    }

    /// Whether the request never left, so that what was written for it is of no use to anybody.
    pub(crate) fn never_left(&self) -> bool {
        self.unsent
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn kind(&self) -> CatalogErrorKind {
        self.kind
    }

    /// After a commit: the table must be loaded to see what became of it. Also when it is said to be gone, because what is
    /// gone is told from what was replaced by looking.
    pub(crate) fn calls_for_a_look(&self) -> bool {
        matches!(self.kind, CatalogErrorKind::Conflict | CatalogErrorKind::Unknown | CatalogErrorKind::NotFound)
    }
}

impl From<CatalogError> for sdk::Error {
    fn from(error: CatalogError) -> Self {
        let kind = match error.kind {
            CatalogErrorKind::NotFound | CatalogErrorKind::Refused => sdk::ErrorKind::Config,
            CatalogErrorKind::AlreadyExists | CatalogErrorKind::Conflict => sdk::ErrorKind::Conflict,
            // Where the outcome matters somebody has looked before an error gets here; what is left can be repeated.
            CatalogErrorKind::Unknown | CatalogErrorKind::Unavailable => sdk::ErrorKind::Unavailable,
        };
        let converted = Self::new(kind, error.message);
        match error.source {
            Some(source) => converted.with_source(source),
            None => converted,
        }
    }
}
