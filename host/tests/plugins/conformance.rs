//! The suites through the boundary: what holds of the plugins in memory in process must hold of them as a library.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use philotes_host::plugin::{Connector, Kind, SinkInstance, SourceInstance};
use philotes_sdk::conformance::{Landed, LandedRow, SinkFixture, SourceFixture, check_sink, check_source};
use philotes_sdk::{
    ActionOutput, ChangeBatch, Error, Flushed, Offset, Plan, Poll, Result, Sink, Source, StreamDescription, StreamName,
    StreamOffset, StreamPartition, TaskContext,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{built, connector, services};

/// The configuration of a plugin's connector, behind the Rust trait again.
#[derive(Clone, Deserialize, JsonSchema)]
struct Config {
    store: String,
}

impl Config {
    fn json(&self) -> String {
        json!({ "store": self.store }).to_string()
    }
}

fn memory(kind: Kind) -> Arc<dyn Connector> {
    connector(&built("philotes_memory"), kind)
}

/// A store that no other test uses.
fn fresh() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("conformance-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn act(kind: Kind, store: &str, action: &str, arguments: &Value) -> Result<ActionOutput> {
    memory(kind).act(&json!({ "store": store }).to_string(), &crate::task(), action, arguments)
}

fn text(output: &ActionOutput) -> &str {
    match output {
        ActionOutput::Text(text) => text,
        ActionOutput::Rows { .. } => panic!("{output:?}"),
    }
}

struct LoadedSource(Box<dyn SourceInstance>);

#[async_trait]
impl Source for LoadedSource {
    const NAME: &'static str = "loaded";
    const DOC: &'static str = "A source of a library.";
    type Config = Config;

    async fn open(config: Config, context: TaskContext) -> Result<Self> {
        block_in_place(|| memory(Kind::Source).open_source(&config.json(), context.info(), services())).map(Self)
    }
    async fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll> {
        block_in_place(|| self.0.poll(timeout, max_bytes))
    }
    async fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
        block_in_place(|| self.0.resume(at, offset))
    }
    async fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
        block_in_place(|| self.0.commit(offsets))
    }
    async fn close(self, timeout: Duration) -> Result<()> {
        block_in_place(|| self.0.close(timeout))
    }
    async fn streams(config: Config, context: TaskContext) -> Result<Vec<StreamDescription>> {
        block_in_place(|| memory(Kind::Source).streams(&config.json(), context.info()))
    }
}

// The trait wants `Sync`, which an instance is not.
struct LoadedSink(Mutex<Box<dyn SinkInstance>>);

#[async_trait]
impl Sink for LoadedSink {
    const NAME: &'static str = "loaded";
    const DOC: &'static str = "A sink of a library.";
    type Config = Config;

    async fn open(config: Config, context: TaskContext) -> Result<Self> {
        let open = || memory(Kind::Sink).open_sink(&config.json(), context.info(), services());
        Ok(Self(block_in_place(open)?.into()))
    }
    async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        block_in_place(|| self.0.get_mut().unwrap().offsets(at))
    }
    async fn revoke(&mut self, at: &[StreamPartition]) -> Result<()> {
        block_in_place(|| self.0.get_mut().unwrap().revoke(at))
    }
    async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        block_in_place(|| self.0.get_mut().unwrap().write(batch))
    }
    async fn flush(&mut self) -> Result<Flushed> {
        block_in_place(|| self.0.get_mut().unwrap().flush())
    }
    fn buffered_bytes(&self) -> usize {
        self.0.lock().unwrap().buffered_bytes()
    }
    async fn close(self, timeout: Duration) -> Result<()> {
        block_in_place(|| self.0.into_inner().unwrap().close(timeout))
    }
    async fn plan(config: Config, context: TaskContext, at: &StreamPartition, schema: SchemaRef) -> Result<Plan> {
        block_in_place(|| memory(Kind::Sink).plan(&config.json(), context.info(), at, &schema))
    }
}

struct Fixture {
    store: String,
}

#[async_trait]
impl SourceFixture for Fixture {
    type Source = LoadedSource;

    async fn reset(&mut self) -> Result<()> {
        self.store = fresh();
        Ok(())
    }
    fn config(&self) -> Config {
        Config { store: self.store.clone() }
    }
    fn stream(&self, index: usize) -> StreamName {
        StreamName::new(["public", ["orders", "customers"][index]]).unwrap()
    }
    async fn put(&mut self, stream: usize, numbers: Range<i64>) -> Result<()> {
        let arguments = json!({
            "stream": SourceFixture::stream(self, stream).to_string(),
            "partitions": "2",
            "from": numbers.start.to_string(),
            "to": numbers.end.to_string(),
        });
        block_in_place(|| act(Kind::Source, &self.store, "put", &arguments)).map(drop)
    }
    async fn unacknowledged(&mut self) -> Result<Option<u64>> {
        let count = block_in_place(|| act(Kind::Source, &self.store, "unacknowledged", &json!({})))?;
        Ok(Some(text(&count).parse().unwrap()))
    }
    async fn add_column(&mut self, stream: usize) -> Result<bool> {
        let arguments = json!({ "stream": SourceFixture::stream(self, stream).to_string() });
        block_in_place(|| act(Kind::Source, &self.store, "add-column", &arguments)).map(|_| true)
    }
}

#[async_trait]
impl SinkFixture for Fixture {
    type Sink = LoadedSink;

    async fn reset(&mut self) -> Result<()> {
        self.store = fresh();
        Ok(())
    }
    fn config(&self) -> Config {
        Config { store: self.store.clone() }
    }
    async fn landed(&mut self, at: &StreamPartition) -> Result<Landed> {
        block_in_place(|| {
            let stream = at.stream.to_string();
            let ActionOutput::Rows { rows, .. } = act(Kind::Sink, &self.store, "rows", &json!({ "stream": stream }))?
            else {
                return Err(Error::internal("rows are no rows"));
            };
            let row = |cells: Vec<String>| {
                let row: Value = serde_json::from_str(&cells[0]).unwrap();
                LandedRow {
                    id: row["id"].as_str().unwrap().parse().unwrap(),
                    note: row["note"].as_str().map(str::to_owned),
                    added: row["added"].as_str().map(|added| added.parse().unwrap()),
                }
            };
            let arguments = json!({ "connector": "conformance", "stream": stream, "partition": at.partition });
            let offset = act(Kind::Sink, &self.store, "offset", &arguments)?;
            let offset = Some(text(&offset)).filter(|text| !text.is_empty()).map(Offset::new).transpose()?;
            Ok(Landed { rows: rows.into_iter().map(row).collect(), offset })
        })
    }
    fn spoil(&self, mut batch: ChangeBatch) -> Option<ChangeBatch> {
        // A text that is a number at its first write.
        let schema = batch.rows.schema();
        let note = schema.index_of("note").unwrap();
        let mut columns = batch.rows.columns().to_vec();
        columns[note] = Arc::new(Int64Array::from(vec![1; batch.rows.num_rows()]));
        let mut fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields[note] = fields[note].clone().with_data_type(DataType::Int64);
        let schema = arrow::datatypes::Schema::new_with_metadata(fields, schema.metadata().clone());
        batch.rows = arrow::array::RecordBatch::try_new(schema.into(), columns).unwrap();
        batch.schema_id += 1000;
        Some(batch)
    }
    async fn outage(&mut self, out_of_reach: bool) -> Result<bool> {
        let arguments = json!({ "out_of_reach": out_of_reach.to_string() });
        block_in_place(|| act(Kind::Sink, &self.store, "outage", &arguments)).map(|_| true)
    }
}

fn run<R>(suite: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(suite)
}

#[test]
fn the_source_in_memory_keeps_the_contract_as_a_library() {
    let unchecked =
        run(check_source(&mut Fixture { store: String::new() })).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(unchecked.is_empty(), "{unchecked:?}");
}

#[test]
fn the_sink_in_memory_keeps_the_contract_as_a_library() {
    let unchecked = run(check_sink(&mut Fixture { store: String::new() })).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(unchecked.is_empty(), "{unchecked:?}");
}
