//! A source and a sink in memory, whose every call can be made to fail: for the tests of this crate.
//!
//! The source holds rows numbered from 0 per stream; an offset is the number of rows before it. The sink's tables live in
//! the world and survive a reopening, as does what the source was told to forget. The world checks the contract as it goes:
//! what breaks it is kept in `broken`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use philotes_sdk::batch::{self, META_STREAM};
use philotes_sdk::{
    Action, ActionArgument, ActionOutput, ChangeBatch, Committed, Error, ErrorKind, Flushed, Offset, Plan,
    PlannedColumn, Poll, Result, StreamDescription, StreamName, StreamOffset, StreamPartition, TaskInfo,
};
use serde_json::{Value, json};

use crate::config::{Endpoint, Plugins};
use crate::plugin::{Cancel, Connector, Kind, Services, SinkInstance, SourceInstance};

/// What a call does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Fail(ErrorKind),
    /// Fails because another task holds what it needs.
    Held,
    /// Does its work, and fails all the same: the reply was lost.
    LoseReply(ErrorKind),
    /// Does not return before the world lets it, whoever cancels.
    Hang,
    /// The same, and fails then.
    HangAndFail(ErrorKind),
}

#[derive(Default)]
pub(crate) struct World {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    /// The source's rows: how many there are per stream.
    pub(crate) rows: BTreeMap<StreamName, i64>,
    /// Rows that appear at the n-th poll.
    pub(crate) appear: Vec<(usize, StreamName, i64)>,
    pub(crate) rows_per_batch: i64,
    /// What the source says of its rows instead of INSERT.
    pub(crate) operation: Option<&'static str>,
    /// The source says END once it has delivered everything.
    pub(crate) ends: bool,
    /// The source never says that it is caught up.
    pub(crate) never_caught_up: bool,
    /// The source does not announce, or announces twice.
    pub(crate) announcements: usize,
    /// The next poll revokes this stream.
    pub(crate) revoke: Option<StreamName>,
    /// What the source was told to forget.
    pub(crate) acknowledged: BTreeMap<StreamName, i64>,
    /// The sink's tables: rows and offset.
    pub(crate) tables: BTreeMap<StreamPartition, (Vec<i64>, i64)>,
    /// Streams whose part of a flush fails with this kind, so many times.
    pub(crate) flush_fails: HashMap<StreamName, (ErrorKind, usize)>,
    /// A flush leaves the last batch of each stream unwritten.
    pub(crate) holds_back: bool,
    /// A flush reports this offset, which it was never given.
    pub(crate) invents: Option<i64>,
    /// What `buffered_bytes` says per written batch.
    pub(crate) buffered_per_batch: usize,
    /// A write takes this long.
    pub(crate) write_takes: Duration,
    /// Which calls were made, in order.
    pub(crate) calls: Vec<&'static str>,
    /// How often each was made.
    pub(crate) counts: HashMap<&'static str, usize>,
    faults: Vec<(&'static str, usize, usize, Fault)>,
    released: bool,
    /// What broke the contract.
    pub(crate) broken: Vec<String>,
    /// The schema metadata's stream of each batch that was written.
    pub(crate) printed_streams: Vec<String>,
    pub(crate) cancelled: usize,
}

pub(crate) fn stream(table: &str) -> StreamName {
    StreamName::new(["public", table]).unwrap()
}

pub(crate) fn only(table: &str) -> StreamPartition {
    StreamPartition::only(stream(table))
}

impl World {
    /// A source with so many rows in one stream `public.t`.
    pub(crate) fn with_rows(rows: i64) -> Arc<Self> {
        Self::with_streams(&[("t", rows)])
    }

    pub(crate) fn with_streams(streams: &[(&str, i64)]) -> Arc<Self> {
        let world = Self::default();
        {
            let mut state = world.lock();
            state.rows = streams.iter().map(|(table, rows)| (stream(table), *rows)).collect();
            state.rows_per_batch = 10;
            state.announcements = 1;
        }
        Arc::new(world)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The n-th call (from 1) and the `times - 1` after it do this.
    pub(crate) fn fault(&self, call: &'static str, nth: usize, times: usize, fault: Fault) {
        self.lock().faults.push((call, nth, nth.saturating_add(times), fault));
    }

    /// Lets hanging calls go on.
    pub(crate) fn release(&self) {
        self.lock().released = true;
        self.changed.notify_all();
    }

    pub(crate) fn count(&self, call: &'static str) -> usize {
        self.lock().counts.get(call).copied().unwrap_or(0)
    }

    /// Waits until this holds; panics after ten seconds.
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let (_state, timeout) =
            self.changed.wait_timeout_while(self.lock(), Duration::from_secs(10), |state| !holds(state)).unwrap();
        assert!(!timeout.timed_out(), "waited in vain until {what}");
    }

    /// Books a call; what it does instead of its work. The second half is called when the work is done.
    fn enter(&self, call: &'static str) -> Result<Option<ErrorKind>> {
        let mut state = self.lock();
        state.calls.push(call);
        let count = state.counts.entry(call).or_default();
        *count += 1;
        let count = *count;
        self.changed.notify_all();
        let fault = state.faults.iter().find(|(at, from, to, _)| *at == call && (*from..*to).contains(&count));
        match fault.map(|(_, _, _, fault)| *fault) {
            None => Ok(None),
            Some(Fault::Fail(kind)) => Err(Error::new(kind, format!("scripted failure of {call} {count}"))),
            Some(Fault::Held) => Err(Error::held_elsewhere("host b has it")),
            Some(Fault::LoseReply(kind)) => Ok(Some(kind)),
            Some(Fault::Hang) => {
                let _released = self.changed.wait_while(state, |state| !state.released).unwrap();
                Ok(None)
            }
            Some(Fault::HangAndFail(kind)) => {
                let _released = self.changed.wait_while(state, |state| !state.released).unwrap();
                Err(Error::new(kind, format!("scripted failure of {call} {count}, late")))
            }
        }
    }

    fn leave(call: &'static str, lost: Option<ErrorKind>) -> Result<()> {
        match lost {
            None => Ok(()),
            Some(kind) => Err(Error::new(kind, format!("the reply of {call} was lost"))),
        }
    }

    /// Every row is in its table once and in order, and the contract was kept.
    pub(crate) fn assert_each_row_once(&self, streams: &[(&str, i64)]) {
        let state = self.lock();
        assert!(state.broken.is_empty(), "{:?}", state.broken);
        for (table, rows) in streams {
            let found = state.tables.get(&only(table)).map(|(rows, _)| rows.clone()).unwrap_or_default();
            assert_eq!(found, (0..*rows).collect::<Vec<_>>(), "{table}");
        }
    }

    pub(crate) fn endpoints(self: &Arc<Self>) -> (Endpoint, Endpoint) {
        let endpoint = |kind| Endpoint {
            connector: Arc::new(MemoryConnector { kind, world: Arc::clone(self) }),
            config: "{}".to_owned(),
            renewal: None,
        };
        (endpoint(Kind::Source), endpoint(Kind::Sink))
    }
}

/// The plugins `memory-source` and `memory-sink` over a world.
impl Plugins for Arc<World> {
    fn connector(&self, kind: Kind, name: &str) -> Option<Arc<dyn Connector>> {
        self.all().into_iter().find(|each| each.kind() == kind && each.name() == name)
    }

    fn all(&self) -> Vec<Arc<dyn Connector>> {
        let (source, sink) = self.endpoints();
        vec![source.connector, sink.connector]
    }

    fn searched(&self) -> String {
        String::new()
    }
}

struct MemoryConnector {
    kind: Kind,
    world: Arc<World>,
}

impl Connector for MemoryConnector {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn name(&self) -> &str {
        match self.kind {
            Kind::Source => "memory-source",
            Kind::Sink => "memory-sink",
        }
    }

    fn version(&self) -> &str {
        "1.2.3"
    }

    fn doc(&self) -> &str {
        "Holds rows in memory."
    }

    fn library(&self) -> &Path {
        Path::new("memory.so")
    }

    fn config_spec(&self) -> &Value {
        static SPEC: OnceLock<Value> = OnceLock::new();
        SPEC.get_or_init(|| {
            json!({
                "type": "object",
                "properties": {
                    "dsn": {"type": "string", "writeOnly": true, "description": "Where."},
                    "rows": {"type": "integer", "minimum": 0, "default": 3},
                    "mode": {"type": "string", "enum": ["append", "upsert"]},
                    "catalog": {"type": "object", "properties": {"uri": {"type": "string"}}, "required": ["uri"]}
                }
            })
        })
    }

    fn actions(&self) -> &[Action] {
        static ACTIONS: OnceLock<Vec<Action>> = OnceLock::new();
        let argument = |name: &str, required| ActionArgument {
            name: name.to_owned(),
            doc: format!("the {name}"),
            required,
            exclusive: name == "alone",
        };
        ACTIONS.get_or_init(|| {
            vec![
                Action {
                    name: "capture".to_owned(),
                    doc: "Captures a table.".to_owned(),
                    arguments: vec![argument("table", true), argument("schema", false)],
                },
                Action { name: "fail".to_owned(), doc: "Fails.".to_owned(), arguments: vec![argument("alone", false)] },
            ]
        })
    }

    fn validate(&self, config: &str) -> Result<Vec<String>> {
        let config: Value = serde_json::from_str(config).unwrap();
        Ok(match config["rows"].as_u64() {
            Some(13) => vec!["rows: 13 brings bad luck; any other number is allowed".to_owned()],
            Some(14) => vec!["nothing goes: at all".to_owned()],
            _ => Vec::new(),
        })
    }

    fn check(&self, _: &str, _: &TaskInfo) -> Result<()> {
        let call = if self.kind == Kind::Source { "source.check" } else { "sink.check" };
        self.world.enter(call).map(drop).map_err(|error| error.context("dsn"))
    }

    fn tasks(&self, _: &str, max: u32) -> Result<u32> {
        Ok(max)
    }

    fn open_source(&self, _: &str, _: &TaskInfo, _: Services) -> Result<Box<dyn SourceInstance>> {
        let lost = self.world.enter("source.open")?;
        World::leave("source.open", lost)?;
        Ok(Box::new(MemorySource {
            world: Arc::clone(&self.world),
            cancel: Arc::default(),
            announced: BTreeMap::new(),
            read: BTreeMap::new(),
        }))
    }

    fn open_sink(&self, _: &str, _: &TaskInfo, _: Services) -> Result<Box<dyn SinkInstance>> {
        let lost = self.world.enter("sink.open")?;
        World::leave("sink.open", lost)?;
        Ok(Box::new(MemorySink { world: Arc::clone(&self.world), cancel: Arc::default(), buffer: Vec::new() }))
    }

    fn streams(&self, _: &str, _: &TaskInfo) -> Result<Vec<StreamDescription>> {
        self.world.enter("source.streams")?;
        let describe = |stream: &StreamName| StreamDescription {
            at: StreamPartition::only(stream.clone()),
            schema: schema(stream),
            sampled_rows: Some(3),
        };
        Ok(self.world.lock().rows.keys().map(describe).collect())
    }

    fn plan(&self, _: &str, _: &TaskInfo, at: &StreamPartition, schema: &SchemaRef) -> Result<Plan> {
        self.world.enter("sink.plan")?;
        Ok(Plan {
            table: format!("cdc.{}", at.stream.parts()[1]),
            change: "create".to_owned(),
            columns: vec![PlannedColumn {
                name: schema.field(0).name().clone(),
                source_type: "bigint".to_owned(),
                target_type: "long".to_owned(),
                required: true,
                inferred: true,
                change: String::new(),
            }],
            partition_by: vec!["day(_cdc_timestamp) as date".to_owned()],
            notes: vec!["a note".to_owned()],
        })
    }

    fn act(&self, _: &str, _: &TaskInfo, action: &str, arguments: &Value) -> Result<ActionOutput> {
        match action {
            "capture" => Ok(ActionOutput::Rows {
                columns: vec!["table".to_owned(), "state".to_owned()],
                rows: vec![vec![arguments["table"].as_str().unwrap().to_owned(), "captured".to_owned()]],
            }),
            _ => Err(Error::unavailable("nobody is there")),
        }
    }
}

struct Flag(Arc<AtomicBool>, Arc<World>);

impl Cancel for Flag {
    fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.lock().cancelled += 1;
    }
}

fn cancelled(flag: &AtomicBool) -> Result<()> {
    if flag.load(Ordering::SeqCst) { Err(Error::unavailable("cancelled")) } else { Ok(()) }
}

fn schema(stream: &StreamName) -> SchemaRef {
    batch::schema(stream, &["id"], [Field::new("id", DataType::Int64, false)])
}

fn batch_of(stream: &StreamName, from: i64, to: i64, operation: Option<&'static str>) -> RecordBatch {
    let count = usize::try_from(to - from).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(from..to)),
        Arc::new(StringArray::from(vec![operation.unwrap_or("INSERT"); count])),
        Arc::new(TimestampMicrosecondArray::new_null(count).with_timezone(batch::UTC)),
        Arc::new(StringArray::new_null(count)),
    ];
    RecordBatch::try_new(schema(stream), columns).unwrap()
}

fn offset(rows: i64) -> Offset {
    Offset::from_value(&rows).unwrap()
}

fn rows_of(offset: &Offset) -> i64 {
    offset.as_str().parse().unwrap()
}

struct MemorySource {
    world: Arc<World>,
    cancel: Arc<AtomicBool>,
    /// Announced, and resumed after so many rows once that happened.
    announced: BTreeMap<StreamName, Option<i64>>,
    read: BTreeMap<StreamName, i64>,
}

impl MemorySource {
    fn acknowledge(&self, state: &mut State, stream: &StreamName, rows: i64) {
        let acknowledged = state.acknowledged.entry(stream.clone()).or_default();
        *acknowledged = (*acknowledged).max(rows);
    }
}

impl SourceInstance for MemorySource {
    fn poll(&mut self, timeout: Duration, _: usize) -> Result<Poll> {
        let lost = self.world.enter("source.poll")?;
        cancelled(&self.cancel)?;
        let mut state = self.world.lock();
        let polls = state.counts["source.poll"];
        for (_, stream, rows) in state.appear.extract_if(.., |(poll, _, _)| *poll <= polls).collect::<Vec<_>>() {
            *state.rows.entry(stream).or_default() += rows;
        }
        if let Some(stream) = state.revoke.take() {
            self.announced.remove(&stream);
            return Ok(Poll::Revoke(vec![StreamPartition::only(stream)]));
        }
        for (stream, rows) in state.rows.clone() {
            let Some(resumed) = self.announced.get(&stream) else {
                if state.announcements == 0 {
                    self.announced.insert(stream, Some(0));
                    continue;
                }
                self.announced.insert(stream.clone(), None);
                return Ok(Poll::Announce(vec![StreamPartition::only(stream)]));
            };
            if state.announcements == 2 {
                return Ok(Poll::Announce(vec![StreamPartition::only(stream)]));
            }
            // A partition that was not resumed is not read: the host left it out.
            let Some(resumed) = *resumed else { continue };
            let from = *self.read.entry(stream.clone()).or_insert(resumed);
            let to = rows.min(from + state.rows_per_batch);
            if from < to {
                self.read.insert(stream.clone(), to);
                let operation = state.operation;
                drop(state);
                World::leave("source.poll", lost)?;
                return Ok(Poll::Batch(ChangeBatch {
                    rows: batch_of(&stream, from, to, operation),
                    at: StreamPartition::only(stream),
                    schema_id: 1,
                    offset: offset(to),
                    ends_transaction: true,
                    initial_load: false,
                    dead_letters: false,
                    newest_micros: 0,
                }));
            }
        }
        let (ends, never_caught_up) = (state.ends, state.never_caught_up);
        drop(state);
        if ends {
            return Ok(Poll::End);
        }
        std::thread::sleep(timeout.min(Duration::from_millis(2)));
        Ok(Poll::Idle { caught_up: !never_caught_up })
    }

    fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
        let lost = self.world.enter("source.resume")?;
        let mut state = self.world.lock();
        let rows = offset.map_or(0, rows_of);
        let forgotten = state.acknowledged.get(&at.stream).copied().unwrap_or(0);
        if rows < forgotten {
            state.broken.push(format!("{at}: resumed after {rows} rows, {forgotten} are forgotten"));
        }
        self.acknowledge(&mut state, &at.stream, rows);
        drop(state);
        self.announced.insert(at.stream.clone(), Some(rows));
        self.read.remove(&at.stream);
        World::leave("source.resume", lost)
    }

    fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
        let lost = self.world.enter("source.commit")?;
        let mut state = self.world.lock();
        for each in offsets {
            let rows = rows_of(&each.offset);
            let durable = state.tables.values().map(|(_, offset)| *offset).max().unwrap_or(0);
            if rows > durable {
                state.broken.push(format!("{}: told to forget {rows} rows, {durable} are durable", each.at));
            }
            self.acknowledge(&mut state, &each.at.stream, rows);
        }
        drop(state);
        World::leave("source.commit", lost)
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::new(Flag(Arc::clone(&self.cancel), Arc::clone(&self.world)))
    }

    fn close(self: Box<Self>, _: Duration) -> Result<()> {
        self.world.enter("source.close").map(drop)
    }
}

struct MemorySink {
    world: Arc<World>,
    cancel: Arc<AtomicBool>,
    buffer: Vec<(StreamPartition, Vec<i64>, i64)>,
}

impl SinkInstance for MemorySink {
    fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        let lost = self.world.enter("sink.offsets")?;
        let state = self.world.lock();
        let offsets = at.iter().map(|at| state.tables.get(at).map(|(_, rows)| offset(*rows))).collect();
        drop(state);
        World::leave("sink.offsets", lost)?;
        Ok(offsets)
    }

    fn revoke(&mut self, _: &[StreamPartition]) -> Result<()> {
        self.world.enter("sink.revoke")?;
        Ok(())
    }

    fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.world.enter("sink.write")?;
        cancelled(&self.cancel)?;
        let takes = self.world.lock().write_takes;
        std::thread::sleep(takes);
        let ids = batch.rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
        self.world.lock().printed_streams.push(batch.rows.schema().metadata()[META_STREAM].clone());
        self.buffer.push((batch.at.clone(), ids, rows_of(&batch.offset)));
        Ok(())
    }

    fn flush(&mut self) -> Result<Flushed> {
        let lost = self.world.enter("sink.flush")?;
        cancelled(&self.cancel)?;
        let mut state = self.world.lock();
        let mut flushed = Flushed::default();
        let mut kept = Vec::new();
        let mut seen = BTreeMap::new();
        for (at, ids, end) in std::mem::take(&mut self.buffer) {
            let is_last = state.holds_back && ids.len() < usize::try_from(state.rows_per_batch).unwrap();
            if let Some((kind, times)) = state.flush_fails.get_mut(&at.stream).filter(|(_, times)| *times > 0) {
                if !seen.contains_key(&at) {
                    *times -= 1;
                    seen.insert(at.clone(), true);
                    flushed.failed.push((at.clone(), Error::new(*kind, "scripted failure of one table")));
                }
                kept.push((at, ids, end));
                continue;
            }
            if is_last || seen.contains_key(&at) {
                kept.push((at, ids, end));
                continue;
            }
            // Flushing again after a lost reply finds its own commit, as the Iceberg sink does by its token.
            let table = state.tables.entry(at.clone()).or_default();
            if table.1 < end {
                if ids.first().is_some_and(|first| *first != table.1) {
                    let message = format!("{at}: rows from {:?} on after row {}", ids.first(), table.1);
                    state.broken.push(message);
                    continue;
                }
                table.0.extend(ids);
                table.1 = end;
            }
            if lost.is_some() {
                kept.push((at, Vec::new(), end));
                continue;
            }
            flushed.durable.retain(|each: &StreamOffset| each.at != at);
            flushed.durable.push(StreamOffset { at, offset: offset(end) });
        }
        self.buffer = kept;
        if let (Some(rows), Some(first)) = (state.invents, flushed.durable.first_mut()) {
            first.offset = offset(rows);
        }
        flushed.commits.push(Committed { table: "memory".to_owned(), rows: 1, bytes: 1, files: 1, id: "1".to_owned() });
        drop(state);
        self.world.changed.notify_all();
        World::leave("sink.flush", lost)?;
        Ok(flushed)
    }

    fn buffered_bytes(&self) -> usize {
        self.buffer.len() * self.world.lock().buffered_per_batch
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::new(Flag(Arc::clone(&self.cancel), Arc::clone(&self.world)))
    }

    fn close(self: Box<Self>, _: Duration) -> Result<()> {
        self.world.enter("sink.close").map(drop)
    }
}
