//! A source and a sink that misbehave on demand: they panic where the configuration says so, fail, wait to be cancelled,
//! log and count. The tests of the plugin boundary load them; they move no data that anybody wants.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use philotes_sdk::batch::{UTC, schema};
use philotes_sdk::{
    Action, ActionArgument, ActionOutput, ChangeBatch, Committed, Error, ErrorKind, Flushed, Offset, Plan, Poll,
    Result, Sink, Source, StreamDescription, StreamName, StreamOffset, StreamPartition, TaskContext,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What is to go wrong.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The function that panics; `drop` stands for dropping the open instance.
    #[serde(default)]
    pub panic_in: String,
    /// The function that fails with `fail_kind`.
    #[serde(default)]
    pub fail_in: String,
    /// Number of the error kind of that failure.
    #[serde(default)]
    pub fail_kind: u32,
    /// Polls and flushes last until they are cancelled.
    #[serde(default)]
    pub wait: bool,
}

impl Config {
    fn pass(&self, function: &str) -> Result<()> {
        assert_ne!(self.panic_in, function, "as asked for");
        match ErrorKind::from_u32(self.fail_kind) {
            Some(kind) if self.fail_in == function => Err(Error::new(kind, format!("{function} fails as asked for"))),
            _ => Ok(()),
        }
    }
}

/// Panics when it is dropped, if that is asked for.
struct Droppable(Config);

impl Drop for Droppable {
    fn drop(&mut self) {
        assert_ne!(self.0.panic_in, "drop", "as asked for");
    }
}

fn at(partition: &str) -> Result<StreamPartition> {
    Ok(StreamPartition { stream: StreamName::new(["probe", "rows"])?, partition: partition.to_owned() })
}

fn rows() -> Result<RecordBatch> {
    let schema = schema(&at("0")?.stream, &["n"], [Field::new("n", DataType::Int64, false)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec!["INSERT"; 3])),
        Arc::new(TimestampMicrosecondArray::new_null(3).with_timezone(UTC)),
        Arc::new(StringArray::new_null(3)),
    ];
    RecordBatch::try_new(schema, columns).map_err(|e| Error::internal("cannot build rows").with_source(e))
}

fn actions() -> Vec<Action> {
    let name = ActionArgument { name: "name".into(), doc: "Who is greeted.".into(), required: true, exclusive: false };
    let alone = ActionArgument { name: "alone".into(), doc: "Nobody else.".into(), required: false, exclusive: true };
    vec![Action { name: "greet".into(), doc: "Greets.".into(), arguments: vec![name, alone] }]
}

/// Announces two partitions, delivers three rows of the first, and ends.
pub struct ProbeSource {
    config: Droppable,
    context: TaskContext,
    polls: u32,
}

#[async_trait]
impl Source for ProbeSource {
    const NAME: &'static str = "probe";
    const DOC: &'static str = "Misbehaves on demand.";
    type Config = Config;

    fn validate(config: &Config) -> Vec<String> {
        config.pass("validate").err().map(|e| format!("fail_in: {e}")).into_iter().collect()
    }

    async fn check(config: Config, _: TaskContext) -> Result<()> {
        config.pass("check")
    }

    fn tasks(config: &Config, max: u32) -> u32 {
        if config.pass("tasks").is_err() { max + 1 } else { max }
    }

    async fn open(config: Config, context: TaskContext) -> Result<Self> {
        config.pass("open")?;
        tracing::info!(answer = 42, name = "probe", "opened");
        tracing::debug!("too fine for the host");
        context.count("philotes_probe_opens_total", 1, &[("stream", "probe.rows")]);
        // On the runtime's own thread, which knows its instance too.
        let spawned = tokio::spawn(async { tracing::warn!(thread = "worker", "working") });
        spawned.await.map_err(|e| Error::internal("the task ended badly").with_source(e))?;
        Ok(Self { config: Droppable(config), context, polls: 0 })
    }

    async fn poll(&mut self, _: Duration, _: usize) -> Result<Poll> {
        self.config.0.pass("poll")?;
        if self.config.0.wait {
            self.context.cancelled().await;
            return Ok(Poll::Idle { caught_up: false });
        }
        self.polls += 1;
        Ok(match self.polls {
            1 => Poll::Announce(vec![at("0")?, at("1")?]),
            2 => Poll::Batch(ChangeBatch {
                at: at("0")?,
                schema_id: 7,
                rows: rows()?,
                offset: Offset::new("{\"n\":3}")?,
                ends_transaction: true,
                initial_load: true,
                dead_letters: false,
                newest_micros: 1_000_000,
            }),
            3 => Poll::Idle { caught_up: true },
            4 => Poll::Revoke(vec![at("1")?]),
            _ => Poll::End,
        })
    }

    async fn resume(&mut self, _: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
        tracing::info!(offset = offset.map(Offset::as_str), "resumed");
        self.config.0.pass("resume")
    }

    async fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
        tracing::info!(count = offsets.len(), "committed");
        self.config.0.pass("commit")
    }

    async fn close(self, _: Duration) -> Result<()> {
        self.config.0.pass("close")
    }

    async fn streams(config: Config, _: TaskContext) -> Result<Vec<StreamDescription>> {
        config.pass("streams")?;
        Ok(vec![StreamDescription { at: at("0")?, schema: rows()?.schema(), sampled_rows: Some(3) }])
    }

    fn actions() -> Vec<Action> {
        actions()
    }

    async fn act(config: Config, _: TaskContext, _: &str, arguments: serde_json::Value) -> Result<ActionOutput> {
        config.pass("act")?;
        Ok(ActionOutput::Text(format!("hello {}", arguments["name"].as_str().unwrap_or("nobody"))))
    }
}

/// Keeps the last offset per partition in memory.
pub struct ProbeSink {
    config: Droppable,
    context: TaskContext,
    written: Vec<ChangeBatch>,
}

#[async_trait]
impl Sink for ProbeSink {
    const NAME: &'static str = "probe";
    const DOC: &'static str = "Misbehaves on demand.";
    type Config = Config;

    async fn check(config: Config, _: TaskContext) -> Result<()> {
        config.pass("check")
    }

    async fn open(config: Config, context: TaskContext) -> Result<Self> {
        config.pass("open")?;
        Ok(Self { config: Droppable(config), context, written: Vec::new() })
    }

    async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        self.config.0.pass("offsets")?;
        Ok(at
            .iter()
            .map(|at| (at.partition == "0").then(|| Offset::from_value(&at.partition)).transpose())
            .collect::<Result<_>>()?)
    }

    async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        // Once: the second attempt of the same batch goes through.
        let failed = self.config.0.pass("write");
        if failed.is_err() {
            self.config.0.fail_in.clear();
            return failed;
        }
        self.written.push(batch.clone());
        Ok(())
    }

    async fn flush(&mut self) -> Result<Flushed> {
        self.config.0.pass("flush")?;
        if self.config.0.wait {
            self.context.cancelled().await;
            return Err(Error::unavailable("cancelled"));
        }
        let written = std::mem::take(&mut self.written);
        let commits = written.iter().map(|batch| Committed {
            table: batch.at.stream.to_string(),
            rows: batch.rows.num_rows() as u64,
            bytes: batch.bytes() as u64,
            files: 1,
            id: batch.schema_id.to_string(),
        });
        Ok(Flushed {
            dead_letters: Vec::new(),
            commits: commits.collect(),
            failed: vec![(at("1")?, Error::fenced("as always"))],
            durable: written.into_iter().map(|batch| StreamOffset { at: batch.at, offset: batch.offset }).collect(),
        })
    }

    fn buffered_bytes(&self) -> usize {
        let passed = self.config.0.pass("buffered_bytes");
        passed.map_or(0, |()| self.written.iter().map(ChangeBatch::bytes).sum())
    }

    async fn close(self, _: Duration) -> Result<()> {
        self.config.0.pass("close")
    }

    async fn plan(config: Config, _: TaskContext, at: &StreamPartition, schema: SchemaRef) -> Result<Plan> {
        config.pass("plan")?;
        let notes = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Plan { table: at.to_string(), change: "create".into(), notes, ..Plan::default() })
    }
}

philotes_sdk::export_plugin! { id: "probe", sources: [ProbeSource], sinks: [ProbeSink], worker_threads: 2 }
