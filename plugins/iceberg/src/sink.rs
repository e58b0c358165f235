//! The sink: streams to tables, several tables at once.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use philotes_sdk::{
    Action, ActionOutput, ChangeBatch, Error, ErrorKind, Flushed, Offset, Plan, Result, Sink, StreamName,
    StreamPartition, TaskContext,
};

use crate::actions;
use crate::catalog::{self, Catalog, sql};
use crate::config::{CatalogConfig, Config};
use crate::plan;
use crate::table::{Settings, Table};
use crate::template::Template;

/// Tables that are loaded or committed at a time.
const TABLES_AT_ONCE: usize = 8;
/// While a task has more tables than this, those without rows keep no writer.
const IDLE_WRITERS: usize = 16;

/// What a column of a table takes beside its rows, in bytes: in the table's metadata, in schemas of Arrow here and in the host,
/// and in how batches are fitted. Measured by `make bench BENCH="--fan-out 500"`.
const COLUMN_BYTES: usize = 3 << 10;

/// Writes change batches to Iceberg tables, one per stream, and commits them with their offsets.
#[derive(Debug)]
pub struct IcebergSink {
    settings: Arc<Settings>,
    template: Template,
    /// By name in lower case: some catalogs fold it, so that names that differ in case only are one table.
    tables: BTreeMap<String, Table>,
    streams: HashMap<StreamName, String>,
}

impl IcebergSink {
    /// A sink that writes to the tables of this catalog.
    pub(crate) fn new(config: &Config, context: TaskContext, catalog: Arc<dyn Catalog>) -> Result<Self> {
        let template = Template::parse(&config.table).map_err(|e| Error::config(format!("table: {e}")))?;
        let settings = Settings::new(config, context, catalog)?;
        Ok(Self { settings: Arc::new(settings), template, tables: BTreeMap::new(), streams: HashMap::new() })
    }

    /// The table of a stream, which no other stream may reach.
    fn assign(&mut self, stream: &StreamName) -> Result<String> {
        if let Some(key) = self.streams.get(stream) {
            return Ok(key.clone());
        }
        let name = self.template.table(stream)?;
        let key = name.to_string().to_lowercase();
        if key == self.settings.dead_letters.to_string().to_lowercase() {
            return Err(Error::data(format!(
                "stream {stream} would be written to table {name}, which is that of the dead letters; rename the stream in the \
                 connector's route, or set `table` or `dead_letters`"
            )));
        }
        if let Some((other, _)) = self.streams.iter().find(|(_, taken)| **taken == key) {
            return Err(Error::data(format!(
                "streams {other} and {stream} would both be written to table {name}; allowed is one stream per table: \
                 use {{schema}} and {{table}} in `table`, or rename a stream in the connector's route"
            )));
        }
        self.tables.insert(key.clone(), Table::new(name, self.settings.clone()));
        self.streams.insert(stream.clone(), key.clone());
        Ok(key)
    }
}

#[async_trait]
impl Sink for IcebergSink {
    const NAME: &'static str = "iceberg";
    const DOC: &'static str = "Apache Iceberg tables, exactly once, through a REST catalog or an embedded SQLite file, in S3 or on this machine.";
    const DEAD_LETTERS: bool = true;
    type Config = Config;

    fn validate(config: &Config) -> Vec<String> {
        config.faults()
    }

    async fn check(config: Config, _context: TaskContext) -> Result<()> {
        let embedded = match &config.catalog {
            CatalogConfig::Sql(embedded) => embedded,
            CatalogConfig::Rest(_) => {
                let catalog = catalog::open(&config).await?;
                catalog.list_namespaces().await?;
                return Ok(());
            }
        };
        let fault = |key: &str, message: String| Error::config(format!("{key}: {message}"));
        let database = sql::database_path(&embedded.uri).map_err(|e| fault("catalog.uri", e))?;
        let warehouse = sql::Warehouse::parse(&embedded.warehouse).map_err(|e| fault("catalog.warehouse", e))?;
        if database.exists() {
            catalog::open_existing(&config).await?;
        } else {
            check_creatable("catalog.uri", &database)?;
        }
        match warehouse {
            sql::Warehouse::Folder(folder) => check_creatable("catalog.warehouse", &folder),
            sql::Warehouse::S3 => catalog::files(&config).check(&embedded.warehouse).await.map_err(|e| {
                let kind = if e.retryable() { ErrorKind::Unavailable } else { ErrorKind::Config };
                let message = format!("catalog.warehouse: {} cannot be reached", embedded.warehouse);
                Error::new(kind, message).with_source(e)
            }),
        }
    }

    async fn open(config: Config, context: TaskContext) -> Result<Self> {
        let catalog = catalog::open(&config).await?;
        Self::new(&config, context, catalog)
    }

    async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        let mut asked: BTreeMap<String, Vec<StreamPartition>> = BTreeMap::new();
        for at in at {
            asked.entry(self.assign(&at.stream)?).or_default().push(at.clone());
        }
        let mut announcements: Vec<BoxFuture<'_, _>> = Vec::new();
        for (key, table) in &mut self.tables {
            if let Some(keys) = asked.remove(key) {
                announcements.push(Box::pin(async move {
                    let offsets = table.announce(&keys).await?;
                    Ok::<_, Error>(keys.into_iter().zip(offsets))
                }));
            }
        }
        let mut announced = futures::stream::iter(announcements).buffer_unordered(TABLES_AT_ONCE);
        let mut offsets = HashMap::new();
        while let Some(result) = announced.next().await {
            offsets.extend(result?);
        }
        Ok(at.iter().map(|at| offsets.get(at).cloned().flatten()).collect())
    }

    async fn revoke(&mut self, at: &[StreamPartition]) -> Result<()> {
        for at in at {
            if let Some(table) = self.streams.get(&at.stream).and_then(|key| self.tables.get_mut(key)) {
                table.revoke(at)?;
            }
        }
        Ok(())
    }

    async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        let table = self.streams.get(&batch.at.stream).and_then(|key| self.tables.get_mut(key));
        let table = table.ok_or_else(|| Error::internal(format!("rows of {} before its announcement", batch.at)))?;
        table.write(batch).await
    }

    async fn flush(&mut self) -> Result<Flushed> {
        let context = &self.settings.context;
        let mut flushes: Vec<BoxFuture<'_, _>> = Vec::new();
        for table in self.tables.values_mut() {
            flushes.push(Box::pin(table.flush()));
        }
        let mut flushes = futures::stream::iter(flushes).buffer_unordered(TABLES_AT_ONCE);
        let mut flushed = Flushed::default();
        while let Some(table) = flushes.next().await {
            for commit in &table.commits {
                tracing::info!(
                    table = commit.table,
                    snapshot = commit.id,
                    rows = commit.rows,
                    files = commit.files,
                    bytes = commit.bytes,
                    "committed"
                );
                let labels = [("table", commit.table.as_str())];
                context.count("philotes_iceberg_commits_total", 1, &labels);
                context.count("philotes_iceberg_rows_total", commit.rows, &labels);
                context.count("philotes_iceberg_files_total", commit.files, &labels);
                context.count("philotes_iceberg_file_bytes_total", commit.bytes, &labels);
            }
            flushed.durable.extend(table.durable);
            flushed.commits.extend(table.commits);
            flushed.dead_letters.extend(table.letters);
            flushed.failed.extend(table.failed);
        }
        drop(flushes);
        if self.tables.len() > IDLE_WRITERS {
            self.tables.values_mut().for_each(Table::rest);
        }
        Ok(flushed)
    }

    fn buffered_bytes(&self) -> usize {
        let rows: usize = self.tables.values().map(Table::buffered_bytes).sum();
        if rows == 0 {
            return 0;
        }
        // What is kept of the tables takes room from the rows, but leaves them an eighth.
        let columns = self.tables.values().map(Table::columns).sum::<usize>() * COLUMN_BYTES;
        let kept = columns + self.settings.filters.taken();
        let memory = usize::try_from(self.settings.context.info().max_memory).unwrap_or(usize::MAX);
        rows + kept.min(memory / 8 * 7)
    }

    async fn close(self, timeout: Duration) -> Result<()> {
        let tables = futures::stream::iter(self.tables.into_values());
        let abandoned = tables.for_each_concurrent(TABLES_AT_ONCE, Table::abandon);
        if tokio::time::timeout(timeout, abandoned).await.is_err() {
            tracing::debug!("files that were not committed stay behind");
        }
        Ok(())
    }

    async fn plan(config: Config, context: TaskContext, at: &StreamPartition, schema: SchemaRef) -> Result<Plan> {
        plan::plan(&config, &context, at, &schema).await
    }

    fn actions() -> Vec<Action> {
        actions::list()
    }

    async fn act(
        config: Config,
        context: TaskContext,
        action: &str,
        arguments: serde_json::Value,
    ) -> Result<ActionOutput> {
        actions::act(&config, &context, action, arguments).await
    }
}

/// Whether a file or folder could be created: what exists of the path must be a folder that can be written to.
fn check_creatable(key: &str, path: &Path) -> Result<()> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let state = existing
        .metadata()
        .map_err(|e| Error::config(format!("{key}: cannot look at {}", existing.display())).with_source(e))?;
    if !state.is_dir() {
        return Err(Error::config(format!("{key}: {} is no folder", existing.display())));
    }
    if state.permissions().readonly() {
        return Err(Error::config(format!("{key}: {} cannot be written to", existing.display())));
    }
    Ok(())
}
