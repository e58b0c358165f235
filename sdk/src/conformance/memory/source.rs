//! The source in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Log, MemoryStore, Row, State, actions};
use crate::batch::{META_KEY, META_SOURCE_TYPE, META_STREAM, UTC, reserved_fields};
use crate::{
    Action, ActionOutput, ChangeBatch, Error, Offset, Poll, Result, Source, StreamDescription, StreamName,
    StreamOffset, StreamPartition, TaskContext,
};

/// When row 0 happened, in microseconds since 1970; each row happens a millisecond after the one before.
const FIRST_MICROS: i64 = 1_769_212_800_000_000;
/// Roughly what a row takes in a batch.
const ROW_BYTES: usize = 64;
const MAX_BATCH_ROWS: usize = 8192;

/// The configuration of [`MemorySource`].
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemorySourceConfig {
    /// Name of the process-wide store.
    pub store: String,
    /// Generates this many rows of the stream `memory.numbers`, each with a key of its own.
    #[serde(default)]
    pub rows: u64,
}

/// Delivers what was put into a [`MemoryStore`], and rows that it generates.
#[derive(Debug)]
pub struct MemorySource {
    store: Arc<MemoryStore>,
    name: String,
    context: TaskContext,
    epoch: u64,
    /// How far each announced partition was delivered; `None` until it is resumed.
    delivered: BTreeMap<StreamPartition, Option<usize>>,
    /// Partitions to serve, the next one first, so that none starves.
    turns: VecDeque<StreamPartition>,
}

/// The lineage is the store's name: generated rows are the same in every process.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryOffset {
    store: String,
    /// How many rows of the partition are covered.
    rows: usize,
}

#[async_trait]
impl Source for MemorySource {
    const NAME: &'static str = "memory";
    const DOC: &'static str = "Delivers rows from memory, or generated ones, for tests.";
    type Config = MemorySourceConfig;

    async fn open(config: MemorySourceConfig, context: TaskContext) -> Result<Self> {
        let store = MemoryStore::named(&config.store);
        let mut state = store.state();
        in_reach(&state)?;
        generate(&mut state, config.rows)?;
        state.epoch += 1;
        let epoch = state.epoch;
        drop(state);
        Ok(Self { store, name: config.store, context, epoch, delivered: BTreeMap::new(), turns: VecDeque::new() })
    }

    async fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll> {
        let store = self.store.clone();
        // Made before looking, so that what arrives meanwhile wakes it.
        let arrived = store.arrived.notified();
        if let Some(poll) = self.look(max_bytes)? {
            return Ok(poll);
        }
        if tokio::time::timeout(timeout, arrived).await.is_err() {
            self.store.state().still_owned_by(self.epoch)?;
            return Ok(Poll::Idle { caught_up: true });
        }
        // What arrived may be nothing for this source.
        Ok(self.look(max_bytes)?.unwrap_or(Poll::Idle { caught_up: true }))
    }

    async fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
        let mut state = self.store.state();
        state.still_owned_by(self.epoch)?;
        let log = state.logs.entry(at.clone()).or_default();
        let covered = match offset {
            None if log.acknowledged > 0 => {
                return Err(Error::config(format!(
                    "{at}: no offset, but {} rows were acknowledged and will not come again",
                    log.acknowledged
                )));
            }
            None => 0,
            Some(offset) => self.parse(at, offset, log)?,
        };
        log.acknowledged = log.acknowledged.max(covered);
        drop(state);
        self.delivered.insert(at.clone(), Some(covered));
        self.turns.push_back(at.clone());
        Ok(())
    }

    async fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
        let mut state = self.store.state();
        state.still_owned_by(self.epoch)?;
        for StreamOffset { at, offset } in offsets {
            let log = state.logs.entry(at.clone()).or_default();
            log.acknowledged = log.acknowledged.max(self.parse(at, offset, log)?);
        }
        Ok(())
    }

    async fn close(self, _timeout: Duration) -> Result<()> {
        Ok(())
    }

    async fn streams(config: MemorySourceConfig, context: TaskContext) -> Result<Vec<StreamDescription>> {
        let store = MemoryStore::named(&config.store);
        let mut state = store.state();
        in_reach(&state)?;
        generate(&mut state, config.rows)?;
        let wanted = state.logs.iter().filter(|(at, _)| context.info().route.wants(&at.stream));
        let mut streams: Vec<StreamDescription> = Vec::new();
        for (at, log) in wanted {
            let schema = schema(&at.stream, log.rows.last().is_some_and(|row| row.widened));
            if streams.iter().all(|described| described.at.stream != at.stream) {
                streams.push(StreamDescription { at: at.clone(), schema, sampled_rows: None });
            }
        }
        Ok(streams)
    }

    fn actions() -> Vec<Action> {
        actions::actions()
    }

    async fn act(
        config: MemorySourceConfig,
        _context: TaskContext,
        action: &str,
        arguments: serde_json::Value,
    ) -> Result<ActionOutput> {
        actions::act(&MemoryStore::named(&config.store), action, &arguments)
    }
}

impl MemorySource {
    /// The next thing to say, if there is one.
    fn look(&mut self, max_bytes: usize) -> Result<Option<Poll>> {
        let state = self.store.state();
        in_reach(&state)?;
        state.still_owned_by(self.epoch)?;
        let wanted =
            |at: &&StreamPartition| !self.delivered.contains_key(*at) && self.context.info().route.wants(&at.stream);
        let unknown: Vec<StreamPartition> = state.logs.keys().filter(wanted).cloned().collect();
        if !unknown.is_empty() {
            self.delivered.extend(unknown.iter().map(|at| (at.clone(), None)));
            return Ok(Some(Poll::Announce(unknown)));
        }
        for _ in 0..self.turns.len() {
            self.turns.rotate_left(1);
            let Some(at) = self.turns.back() else { break };
            let (Some(log), Some(Some(delivered))) = (state.logs.get(at), self.delivered.get_mut(at)) else { continue };
            let Some(first) = log.rows.get(*delivered) else { continue };
            let limit = (max_bytes / ROW_BYTES).clamp(1, MAX_BATCH_ROWS);
            let rest = log.rows[*delivered..].iter();
            let rows: Vec<Row> = rest.take(limit).take_while(|row| row.widened == first.widened).copied().collect();
            let covered = *delivered + rows.len();
            let batch = batch(&self.name, at, &rows, covered)?;
            *delivered = covered;
            return Ok(Some(Poll::Batch(batch)));
        }
        Ok(None)
    }

    /// How many rows of the partition an offset covers.
    fn parse(&self, at: &StreamPartition, offset: &Offset, log: &Log) -> Result<usize> {
        let unknown = |why: &str| Error::config(format!("{at}: the sink's offset is {why}"));
        let parsed: MemoryOffset =
            serde_json::from_str(offset.as_str()).map_err(|e| unknown("not one of a memory source").with_source(e))?;
        if parsed.store != self.name {
            return Err(unknown(&format!("one of store {:?}, here is {:?}", parsed.store, self.name)));
        }
        if parsed.rows > log.rows.len() {
            return Err(unknown(&format!("at row {}, but there are {}", parsed.rows, log.rows.len())));
        }
        if parsed.rows < log.acknowledged {
            return Err(unknown(&format!("at row {}, but {} were acknowledged", parsed.rows, log.acknowledged)));
        }
        Ok(parsed.rows)
    }
}

impl State {
    fn still_owned_by(&self, epoch: u64) -> Result<()> {
        if self.epoch == epoch { Ok(()) } else { Err(Error::fenced("another task has opened the store")) }
    }
}

fn in_reach(state: &State) -> Result<()> {
    if state.out_of_reach { Err(Error::unavailable("the store is out of reach")) } else { Ok(()) }
}

/// Fills the stream `memory.numbers` up to this many rows.
fn generate(state: &mut State, rows: u64) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let rows = i64::try_from(rows).map_err(|_| Error::config(format!("rows: {rows} is too large")))?;
    let at = StreamPartition::only(StreamName::new(["memory", "numbers"])?);
    let log = state.logs.entry(at).or_default();
    let existing = i64::try_from(log.rows.len()).unwrap_or(i64::MAX);
    log.rows.extend((existing..rows).map(|number| Row { id: number, number, widened: false }));
    Ok(())
}

fn schema(stream: &StreamName, widened: bool) -> SchemaRef {
    let bigint = |name: &str, nullable: bool| {
        Field::new(name, DataType::Int64, nullable).with_metadata([(META_SOURCE_TYPE.into(), "bigint".into())].into())
    };
    let mut fields = vec![bigint("id", false), bigint("n", false)];
    if widened {
        fields.push(bigint("added", true));
    }
    fields.extend(reserved_fields());
    let metadata = [(META_STREAM.to_owned(), stream.to_string()), (META_KEY.to_owned(), r#"["id"]"#.to_owned())];
    Arc::new(Schema::new_with_metadata(fields, metadata.into()))
}

fn batch(store: &str, at: &StreamPartition, rows: &[Row], covered: usize) -> Result<ChangeBatch> {
    let widened = rows.first().is_some_and(|row| row.widened);
    let time = |row: &Row| FIRST_MICROS.saturating_add(row.number.saturating_mul(1000));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row.id)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.number)).collect::<Int64Array>()),
    ];
    if widened {
        columns.push(Arc::new(rows.iter().map(|row| Some(row.number)).collect::<Int64Array>()));
    }
    columns.push(Arc::new(rows.iter().map(|_| Some("INSERT")).collect::<StringArray>()));
    let times = rows.iter().map(|row| Some(time(row))).collect::<TimestampMicrosecondArray>();
    columns.push(Arc::new(times.with_timezone(UTC)));
    columns.push(Arc::new(rows.iter().map(|row| Some(row.number.to_string())).collect::<StringArray>()));
    let rows_of_schema = RecordBatch::try_new(schema(&at.stream, widened), columns)
        .map_err(|e| Error::internal("a batch does not match its schema").with_source(e))?;
    Ok(ChangeBatch {
        at: at.clone(),
        schema_id: u64::from(widened),
        rows: rows_of_schema,
        offset: Offset::from_value(&MemoryOffset { store: store.to_owned(), rows: covered })?,
        ends_transaction: true,
        initial_load: false,
        dead_letters: false,
        newest_micros: rows.last().map_or(0, time),
    })
}
