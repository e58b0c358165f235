//! One table of a task: what the task knows of it, what it has written to it, and how rows get there.
//!
//! Committing is in `commit.rs`. Here is the rule that everything else stands on: whenever a state of the table is
//! adopted as the base of what comes next, for whatever reason, the tokens of all keys that this task owns are
//! compared with what it knows of them. Any difference means that somebody else writes them.

mod fit;
mod layout;
mod letters;
mod upsert;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::TableIdent;
use philotes_sdk::{ChangeBatch, Error, Offset, Result, StreamName, StreamPartition, TaskContext, failpoint};

use crate::base::Base;
use crate::catalog::{Catalog, CatalogErrorKind, LoadedTable};
use crate::commit::{Landed, Payload};
use crate::config::{Config, Retention};
pub(crate) use crate::create::{Making, create_table};
use crate::dead_letters::{self, Letter, Letters};
use crate::expire::Expiry;
use crate::fence;
pub(crate) use crate::format::check_format;
use crate::layout::order_of;
use crate::lineage;
use crate::manifests::AddedFile;
use crate::overrides::Overrides;
use crate::schema::{Numbers, Policy, Projection};
use crate::storage;
use crate::token::{self, Token};
use crate::upsert::{FilterBudget, Key, Removal, Rules, Stage, Upsert, check_mode};
use crate::writer::{TableWriter, WriterOptions, WriterTarget};

pub(crate) use fit::{Incoming, fixed_fields};

/// How often a change is proposed again, each time on a newer state, before the host is asked to wait.
pub(crate) const ROUNDS: usize = 8;

/// What all tables of a task have in common.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) context: TaskContext,
    pub(crate) catalog: Arc<dyn Catalog>,
    /// How tables are made, and what the layout of those that exist is to become.
    pub(crate) making: Making,
    pub(crate) retention: Option<Retention>,
    pub(crate) writer: WriterOptions,
    /// What may be done to tables.
    pub(crate) policy: Policy,
    /// What is said of single columns.
    pub(crate) overrides: Overrides,
    /// How changes are applied; `None` where each is a row.
    pub(crate) rules: Option<Rules>,
    /// What upsert tables may keep of their keys.
    pub(crate) filters: Arc<FilterBudget>,
    /// The table of dead letters.
    pub(crate) dead_letters: TableIdent,
    /// Held while dead letters are appended: the expiry of their table.
    pub(crate) appending: tokio::sync::Mutex<Expiry>,
}

/// A writer with less memory than this would write row groups too small to compress.
const MIN_BUFFER_BYTES: usize = 8 << 20;
/// Which part of the sink's memory the filters of keys may take, at most.
const FILTER_SHARE: usize = 8;
/// What they may take where the sink's memory has no limit.
const MAX_FILTER_BYTES: usize = 16 << 20;

impl Settings {
    pub(crate) fn new(config: &Config, context: TaskContext, catalog: Arc<dyn Catalog>) -> Result<Self> {
        let mut writer = WriterOptions {
            target_file_bytes: config.target_file_bytes().map_err(Error::config)?,
            ..WriterOptions::default()
        };
        let mut filter_bytes = MAX_FILTER_BYTES;
        if let Ok(memory @ 1..) = usize::try_from(context.info().max_memory) {
            writer.max_buffer_bytes = writer.max_buffer_bytes.min(memory).max(MIN_BUFFER_BYTES);
            filter_bytes = memory / FILTER_SHARE;
        }
        Ok(Self {
            catalog,
            making: config.making()?,
            retention: config.retention().map_err(Error::config)?,
            writer,
            policy: config.policy(),
            overrides: config.overrides().map_err(Error::config)?,
            rules: config.rules().map_err(Error::config)?,
            filters: Arc::new(FilterBudget::new(filter_bytes)),
            context,
            dead_letters: config.dead_letters_table().map_err(Error::config)?,
            appending: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn connector(&self) -> &str {
        &self.context.info().connector
    }
}

/// A table of a task.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: TableIdent,
    pub(crate) settings: Arc<Settings>,
    /// The state that the next change builds on; `None` while the table does not exist.
    pub(crate) base: Option<Base>,
    /// The keys this task owns in the table, and the tokens it knows of them.
    pub(crate) owned: BTreeMap<StreamPartition, Option<Token>>,
    /// Rows on their way into files.
    open: Option<Open>,
    /// What is kept of a table of mode upsert.
    pub(crate) upsert: Option<Upsert>,
    /// Files that are complete and wait for the next commit.
    pub(crate) complete: Vec<AddedFile>,
    /// Records that cannot be written.
    pub(crate) letters: Letters,
    /// How far the rows in `open` and `complete`, and the letters, reach.
    pub(crate) offsets: BTreeMap<StreamPartition, Option<Offset>>,
    /// What was frozen for a commit that is not resolved yet.
    pub(crate) payload: Option<Payload>,
    /// Commits that succeeded and were not reported yet.
    pub(crate) landed: Vec<Landed>,
    pub(crate) expiry: Expiry,
    /// Which fields the source's numbers of columns are, as the last batch had it.
    pub(crate) numbers: Option<(StreamName, Numbers)>,
    /// The layout is the configured one, or stays as it is. It is looked at once: another connector may want another.
    laid_out: bool,
    /// Warnings that are not repeated.
    said: BTreeSet<String>,
    /// The number of the last intent that is known to be completed.
    pub(crate) completed: u64,
}

/// A writer, and how batches are fitted to its schema.
#[derive(Debug)]
struct Open {
    schema: iceberg::spec::SchemaRef,
    spec: iceberg::spec::PartitionSpecRef,
    writer: TableWriter,
    /// Where rows wait that may still be changed, in mode upsert.
    stage: Option<Stage>,
    /// By the source's schema id.
    projections: HashMap<u64, Projection>,
}

impl Table {
    pub(crate) fn new(name: TableIdent, settings: Arc<Settings>) -> Self {
        let upsert = settings.rules.is_some().then(|| Upsert::new(Removal::new(settings.filters.clone())));
        Self {
            name,
            settings,
            base: None,
            owned: BTreeMap::new(),
            open: None,
            upsert,
            complete: Vec::new(),
            letters: Letters::default(),
            offsets: BTreeMap::new(),
            payload: None,
            landed: Vec::new(),
            expiry: Expiry::default(),
            numbers: None,
            laid_out: false,
            said: BTreeSet::new(),
            completed: 0,
        }
    }

    /// Takes over keys: loads the table once, checks what their tokens say, and returns their offsets.
    pub(crate) async fn announce(&mut self, keys: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        failpoint!("token.unread", |message| Error::unavailable(message));
        self.reload().await?;
        failpoint!("token.read", |message| Error::unavailable(message));
        let Some(base) = &self.base else {
            self.owned.extend(keys.iter().map(|at| (at.clone(), None)));
            return Ok(vec![None; keys.len()]);
        };
        let mut tokens = Vec::with_capacity(keys.len());
        for at in keys {
            let token = token::read(&base.metadata, self.settings.connector(), at)?;
            if let Some(token) = &token {
                lineage::check(&base.metadata, token).map_err(|reason| self.refused(at, &reason))?;
            }
            tokens.push(token);
        }
        let offsets = tokens.iter().map(|token| token.as_ref().map(|token| token.offset.clone())).collect();
        self.owned.extend(keys.iter().cloned().zip(tokens));
        self.lay_out_known().await?;
        self.complete_intent().await?;
        Ok(offsets)
    }

    /// Lets go of a key that another task takes over: its token is no longer compared.
    ///
    /// # Errors
    /// Fenced where rows of it are not committed: they must not be any more once the other task begins, and only all of it can be
    /// dropped.
    pub(crate) fn revoke(&mut self, at: &StreamPartition) -> Result<()> {
        let frozen = self.payload.as_ref().is_some_and(|payload| payload.covers(at));
        if frozen || self.offsets.contains_key(at) {
            return Err(Error::fenced(format!("table {}: {at} goes to another task with rows under way", self.name)));
        }
        self.owned.remove(at);
        Ok(())
    }

    /// Loads the table as it is now and adopts it.
    ///
    /// # Errors
    /// Unavailable when it cannot be loaded just now; else as [`Table::adopt`].
    pub(crate) async fn reload(&mut self) -> Result<()> {
        match self.settings.catalog.load_table(&self.name).await {
            Ok(loaded) => self.adopt(loaded),
            Err(error) if error.kind() == CatalogErrorKind::NotFound && self.base.is_none() => Ok(()),
            Err(error) if error.kind() == CatalogErrorKind::NotFound => Err(Error::config(format!(
                "table {} was dropped while rows for it were under way; nothing of them was acknowledged. Restore it, \
                 or restart the connector to begin a new table: where the source has let go of earlier rows, it then \
                 refuses and names what to clear first",
                self.name
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a state of the table the base of what comes next.
    ///
    /// If one of the pending payload's requests is found to have succeeded, the payload is resolved by that.
    ///
    /// # Errors
    /// Fenced when a token is not what this task knows it to be, or orphan files were removed meanwhile; Config when the table is
    /// another one, or its history does not hold the rows that were committed.
    pub(crate) fn adopt(&mut self, loaded: LoadedTable) -> Result<()> {
        let metadata = loaded.metadata.clone();
        if self.base.as_ref().is_some_and(|base| base.metadata.uuid() != metadata.uuid()) {
            return Err(Error::config(format!(
                "table {} was dropped and created again while rows for it were under way; nothing of them was \
                 acknowledged. Restart the connector to write to the new table",
                self.name
            )));
        }
        check_format(&self.name, &metadata)?;
        check_mode(&self.name, &metadata, self.settings.rules.as_ref())?;
        if let Some(base) = &self.base {
            fence::check(&self.name, &base.metadata, &metadata)?;
        }
        let connector = self.settings.connector();
        let landed = match &self.payload {
            Some(payload) => payload.succeeded_in(&metadata, connector)?,
            None => None,
        };
        let mut expected = self.owned.clone();
        if let Some(attempt) = &landed {
            expected.extend(attempt.tokens.iter().map(|(at, token)| (at.clone(), token.clone())));
        }
        for (at, known) in &expected {
            let found = token::read(&metadata, connector, at)?;
            if found != *known {
                return Err(Error::fenced(format!(
                    "table {}: another task has committed {at} since this one began",
                    self.name
                )));
            }
            if let Some(token) = found {
                lineage::check(&metadata, &token).map_err(|reason| self.refused(at, &reason))?;
            }
        }
        if let Some(open) = &mut self.open {
            // The catalog may have lent new keys to them.
            open.writer.reach_files_by(loaded.files.io.clone());
        }
        let mut base = Base::new(loaded);
        if let Some(attempt) = &landed
            && base.head().is_some_and(|head| head.snapshot_id() == attempt.snapshot_id)
        {
            base = base.with_manifests(attempt.manifests.clone());
        }
        self.base = Some(base);
        self.owned = expected;
        if let Some(attempt) = landed
            && let Some(payload) = self.payload.take()
        {
            if let Some(upsert) = &mut self.upsert {
                upsert.removal.landed(&attempt)?;
            }
            self.landed.push(payload.landed(attempt));
        }
        Ok(())
    }

    fn refused(&self, at: &StreamPartition, reason: &str) -> Error {
        let (name, StreamPartition { stream, partition }) = (&self.name, at);
        Error::config(format!(
            "table {name}, {at}: {reason}. Nothing was acknowledged. Restore the table; or say where to go on with the sink's \
             action `offsets stream={stream} partition={partition} offset=…`, or `reset=true` to begin anew"
        ))
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// Fenced and Internal: rows were lost. On every other error the batch is as if it had never been given.
    pub(crate) async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        if !self.owned.contains_key(&batch.at) {
            return Err(Error::internal(format!("rows of {} before its announcement", batch.at)));
        }
        if batch.dead_letters {
            let mut letters = Letter::of_source(batch)?;
            if let Some(columns) = self.columns_of(&batch.at.stream) {
                let dropped = columns.dropped();
                letters.iter_mut().for_each(|letter| letter.leave_out(&dropped));
            }
            self.letters.extend(letters);
        } else if self.upsert.is_some() {
            self.tell_unknown_columns(batch);
            self.write_changes(batch).await?;
        } else if self.columns_of(&batch.at.stream).is_some() {
            self.tell_unknown_columns(batch);
            let rows = self.shaped(&batch.at.stream, &batch.rows)?;
            self.write_rows(&ChangeBatch { rows, ..batch.clone() }).await?;
        } else {
            self.write_rows(batch).await?;
        }
        self.offsets.insert(batch.at.clone(), Some(batch.offset.clone()));
        Ok(())
    }

    /// The columns of the table, where it is known.
    pub(crate) fn columns(&self) -> usize {
        self.base.as_ref().map_or(0, |base| base.metadata.current_schema().as_struct().fields().len())
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        let open = |open: &Open| open.writer.buffered_bytes() + open.stage.as_ref().map_or(0, Stage::buffered_bytes);
        self.open.as_ref().map_or(0, open) + self.letter_bytes()
    }

    /// The writer, if it writes what the table now is.
    fn open_writer(&self) -> Option<&Open> {
        let metadata = &self.base.as_ref()?.metadata;
        self.open.as_ref().filter(|open| {
            open.schema.schema_id() == metadata.current_schema_id()
                && open.spec.spec_id() == metadata.default_partition_spec_id()
                && open.writer.sort_order_id() == order_of(&self.settings.making, metadata).map_or(0, |o| o.order_id)
        })
    }

    fn new_writer(&self) -> Result<Open> {
        let Some(base) = &self.base else { return Err(Error::internal("a writer for a table that does not exist")) };
        let order = order_of(&self.settings.making, &base.metadata);
        let target = WriterTarget::current(&base.metadata).sorted_by(order);
        let schema = base.metadata.current_schema().clone();
        let writer = TableWriter::new(base.files.clone(), target, self.settings.writer)?;
        let stage = match (&self.settings.rules, Key::of(&schema)) {
            (Some(rules), Some(key)) => Some(Stage::new(writer.schema(), &key.places, rules.soft)?),
            (Some(_), None) => return Err(Error::internal("an upsert table without identifier fields")),
            (None, _) => None,
        };
        let spec = base.metadata.default_partition_spec().clone();
        Ok(Open { schema, spec, writer, stage, projections: HashMap::new() })
    }

    /// Completes the open files; the next rows begin new ones.
    ///
    /// # Errors
    /// Unavailable: nothing is lost, and it can be called again. Fenced: rows were lost.
    pub(crate) async fn roll(&mut self) -> Result<()> {
        self.settle().await.map_err(|e| e.context(format!("table {}", self.name)))?;
        let Some(open) = self.open.as_mut().filter(|open| open.writer.rows() > 0) else { return Ok(()) };
        let files = open.writer.finish().await.map_err(|e| e.context(format!("table {}", self.name)))?;
        let added = |file| AddedFile { file, schema: open.schema.clone(), spec: open.spec.clone() };
        self.complete.extend(files.into_iter().map(added));
        Ok(())
    }

    /// Lets go of the writer if it has no rows; the next ones bring another.
    pub(crate) fn rest(&mut self) {
        let idle = |open: &mut Open| {
            let staged = open.stage.as_ref().is_some_and(|stage| !stage.is_empty());
            open.writer.rows() == 0 && open.writer.buffered_bytes() == 0 && !staged
        };
        self.open.take_if(idle);
    }

    /// Lets go of the table: removes files that no request has ever named. Those of a payload that was sent stay, for the
    /// request may still succeed.
    pub(crate) async fn abandon(self) {
        let Some(base) = &self.base else { return };
        if let Some(intent) = self.payload.as_ref().and_then(Payload::unsent_intent) {
            dead_letters::remove(&self.settings, intent).await;
        }
        let unsent = self.payload.into_iter().flat_map(Payload::into_unsent_files);
        let complete = self.complete.into_iter().chain(unsent).map(|added| added.file.file_path().to_owned());
        let open = self.open.map(|mut open| open.writer.abandon());
        storage::discard(&base.files, complete.chain(open.into_iter().flatten())).await;
    }

    /// Creates the table for rows of this schema and key, and its namespaces. If somebody else has created it by now, that one
    /// is taken.
    async fn create(&mut self, arrow: &ArrowSchema, key: Option<&[usize]>) -> Result<()> {
        let settings = self.settings.clone();
        match create_table(settings.catalog.as_ref(), &self.name, &settings.making, (arrow, key)).await? {
            Some(created) => self.adopt(created),
            None => {
                self.reload().await?;
                match &self.base {
                    Some(_) => Ok(()),
                    None => Err(Error::unavailable(format!("cannot create table {}", self.name))),
                }
            }
        }
    }
}
