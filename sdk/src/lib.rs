//! Write plugins for Philotes Connect.
//!
//! A plugin is a shared library with sources and sinks. Implement [`Source`] or [`Sink`], whose documentation is the
//! delivery contract, name them in [`export_plugin!`], and build a `cdylib`. The plugin runs on a Tokio runtime of its own,
//! its [`tracing`] events arrive in the host's log, and a panic becomes an error. Other languages implement
//! `include/philotes_plugin.h`; [`abi`] is its mirror.
//!
//! # A source
//!
//! Counts to `limit` and keeps nothing of its own, so that the offset in the sink's table is all it needs to go on.
//!
//! ```rust,standalone_crate
//! use std::{sync::Arc, time::Duration};
//! use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
//! use arrow::datatypes::{DataType, Field};
//! use philotes_sdk::*;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config { /** How far to count. */ limit: i64 }
//!
//! struct Counter { limit: i64, next: Option<i64>, announced: bool }
//!
//! fn numbers() -> Result<StreamPartition> {
//!     Ok(StreamPartition::only(StreamName::new(["numbers"])?))
//! }
//!
//! // The row's own columns, then the reserved ones: the operation, when it happened, and the source's position of it.
//! fn rows(from: i64, to: i64) -> Result<RecordBatch> {
//!     let schema = batch::schema(&numbers()?.stream, &["n"], [Field::new("n", DataType::Int64, false)]);
//!     let count = (to - from) as usize;
//!     RecordBatch::try_new(schema, vec![
//!         Arc::new(Int64Array::from_iter_values(from..to)),
//!         Arc::new(StringArray::from_iter_values(std::iter::repeat_n("INSERT", count))),
//!         Arc::new(TimestampMicrosecondArray::new_null(count).with_timezone(batch::UTC)),
//!         Arc::new(StringArray::new_null(count)),
//!     ]).map_err(|e| Error::internal("cannot build rows").with_source(e))
//! }
//!
//! #[async_trait::async_trait]
//! impl Source for Counter {
//!     const NAME: &'static str = "counter";
//!     const DOC: &'static str = "Counts.";
//!     type Config = Config;
//!
//!     async fn open(config: Config, _: TaskContext) -> Result<Self> {
//!         Ok(Self { limit: config.limit, next: None, announced: false })
//!     }
//!     async fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll> {
//!         let at = numbers()?;
//!         if !std::mem::replace(&mut self.announced, true) {
//!             return Ok(Poll::Announce(vec![at]));
//!         }
//!         let from = self.next.ok_or_else(|| Error::internal("polled before resume"))?;
//!         let to = self.limit.min(from + (max_bytes / 8).clamp(1, 1000) as i64);
//!         if from == to {
//!             return Ok(Poll::End);
//!         }
//!         self.next = Some(to);
//!         let (rows, offset) = (rows(from, to)?, Offset::from_value(&to)?);
//!         Ok(Poll::Batch(ChangeBatch {
//!             at, schema_id: 0, rows, offset, ends_transaction: true, initial_load: false, dead_letters: false,
//!             newest_micros: 0,
//!         }))
//!     }
//!     async fn resume(&mut self, _: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
//!         let next = offset.map_or(Ok(0), |offset| offset.as_str().parse());
//!         self.next = Some(next.map_err(|_| Error::config("the table's offset is no number: another source's table?"))?);
//!         Ok(())
//!     }
//!     async fn commit(&mut self, _: &[StreamOffset]) -> Result<()> { Ok(()) }
//!     async fn close(self, _: Duration) -> Result<()> { Ok(()) }
//!     async fn streams(_: Config, _: TaskContext) -> Result<Vec<StreamDescription>> {
//!         Ok(vec![StreamDescription { at: numbers()?, schema: rows(0, 0)?.schema(), sampled_rows: None }])
//!     }
//! }
//!
//! export_plugin! { id: "counter", sources: [Counter] }
//! # fn main() -> Result<()> {
//! #     let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
//! #     runtime.block_on(async {
//! #         let mut source = Counter::open(Config { limit: 1500 }, TaskContext::detached(TaskInfo::default())).await?;
//! #         let Poll::Announce(at) = source.poll(Duration::ZERO, 1 << 20).await? else { panic!("no announcement") };
//! #         source.resume(&at[0], Some(&Offset::new("7")?)).await?;
//! #         let mut counted = Vec::new();
//! #         while let Poll::Batch(batch) = source.poll(Duration::ZERO, 1 << 20).await? {
//! #             batch.check()?;
//! #             counted.push((batch.rows.num_rows(), batch.offset.as_str().to_owned()));
//! #         }
//! #         assert_eq!(counted, [(1000, "1007".to_owned()), (493, "1500".to_owned())]);
//! #         Ok(())
//! #     })
//! # }
//! ```
//!
//! # A sink
//!
//! Counts rows per stream into one small file. The file is renamed into place with the counts and the offsets in it, which
//! is what makes both durable in one step.
//!
//! ```rust,standalone_crate
//! use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};
//! use arrow::datatypes::SchemaRef;
//! use philotes_sdk::*;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config { /** The file that is written. */ path: PathBuf }
//!
//! type Counts = BTreeMap<String, (usize, StreamOffset)>;
//! struct Tally { path: PathBuf, durable: Counts, counts: Counts }
//!
//! fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
//!     Error::unavailable("the tally's file").with_source(error)
//! }
//!
//! #[async_trait::async_trait]
//! impl Sink for Tally {
//!     const NAME: &'static str = "tally";
//!     const DOC: &'static str = "Counts rows into a file.";
//!     type Config = Config;
//!
//!     async fn open(config: Config, _: TaskContext) -> Result<Self> {
//!         let json = if config.path.exists() { fs::read(&config.path).map_err(broken)? } else { b"{}".to_vec() };
//!         let counts: Counts = serde_json::from_slice(&json).map_err(broken)?;
//!         Ok(Self { path: config.path, durable: counts.clone(), counts })
//!     }
//!     async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
//!         Ok(at.iter().map(|at| self.durable.get(&at.to_string()).map(|(_, last)| last.offset.clone())).collect())
//!     }
//!     async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
//!         let last = StreamOffset { at: batch.at.clone(), offset: batch.offset.clone() };
//!         let entry = self.counts.entry(batch.at.to_string()).or_insert((0, last.clone()));
//!         *entry = (entry.0 + batch.rows.num_rows(), last);
//!         Ok(())
//!     }
//!     async fn flush(&mut self) -> Result<Flushed> {
//!         let new = self.path.with_extension("new");
//!         fs::write(&new, serde_json::to_vec(&self.counts).map_err(broken)?).map_err(broken)?;
//!         fs::rename(&new, &self.path).map_err(broken)?;
//!         let changed = self.counts.iter().filter(|(at, count)| self.durable.get(*at) != Some(count));
//!         let durable = changed.map(|(_, (_, last))| last.clone()).collect();
//!         self.durable = self.counts.clone();
//!         Ok(Flushed { durable, ..Flushed::default() })
//!     }
//!     fn buffered_bytes(&self) -> usize { 0 }
//!     async fn close(self, _: Duration) -> Result<()> { Ok(()) }
//!     async fn plan(config: Config, _: TaskContext, _: &StreamPartition, _: SchemaRef) -> Result<Plan> {
//!         Ok(Plan { table: config.path.display().to_string(), change: "none".into(), ..Plan::default() })
//!     }
//! }
//!
//! export_plugin! { id: "tally", sinks: [Tally] }
//! # fn main() -> Result<()> {
//! #     use arrow::array::*;
//! #     use arrow::datatypes::{DataType, Field};
//! #     use std::sync::Arc;
//! #     let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
//! #     runtime.block_on(async {
//! #         let path = std::env::temp_dir().join(format!("tally-{}.json", std::process::id()));
//! #         let open = || Tally::open(Config { path: path.clone() }, TaskContext::detached(TaskInfo::default()));
//! #         let at = StreamPartition::only(StreamName::new(["numbers"])?);
//! #         let schema = batch::schema(&at.stream, &["n"], [Field::new("n", DataType::Int64, false)]);
//! #         let rows = RecordBatch::try_new(schema, vec![
//! #             Arc::new(Int64Array::from(vec![1, 2, 3])),
//! #             Arc::new(StringArray::from(vec!["INSERT"; 3])),
//! #             Arc::new(TimestampMicrosecondArray::new_null(3).with_timezone(batch::UTC)),
//! #             Arc::new(StringArray::new_null(3)),
//! #         ]).unwrap();
//! #         let offset = Offset::new("3")?;
//! #         let batch = ChangeBatch {
//! #             at: at.clone(), schema_id: 0, rows, offset: offset.clone(), ends_transaction: true,
//! #             initial_load: false, dead_letters: false, newest_micros: 0,
//! #         };
//! #         batch.check()?;
//! #         let mut sink = open().await?;
//! #         sink.write(&batch).await?;
//! #         assert_eq!(open().await?.offsets(&[at.clone()]).await?, [None]);
//! #         assert_eq!(sink.flush().await?.durable.len(), 1);
//! #         assert_eq!(open().await?.offsets(&[at]).await?, [Some(offset)]);
//! #         assert!(sink.flush().await?.durable.is_empty());
//! #         fs::remove_file(&path).map_err(broken)
//! #     })
//! # }
//! ```
#![deny(missing_docs)]

#[allow(unsafe_code, reason = "the C ABI; every block says why it holds")]
pub mod abi;
mod action;
pub mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
pub mod dead_letter;
mod error;
#[allow(unsafe_code, reason = "the plugin's side of the C ABI; every block says why it holds")]
pub mod export;
#[cfg(feature = "failpoints")]
pub mod failpoints;
#[cfg(feature = "json")]
pub mod json;
pub mod quantity;
mod secret;
mod sink;
mod source;
mod stream;

pub use action::{Action, ActionArgument, ActionOutput};
pub use batch::{ChangeBatch, StreamDescription};
pub use context::{Host, LAG_RECORDS, MetricKind, Route, TaskContext, TaskInfo, Tolerance, glob};
pub use error::{Error, ErrorKind, Result, is_out_of_files};
pub use secret::{Secret, without_secrets};
pub use sink::{Committed, Flushed, Plan, PlannedColumn, Sink};
pub use source::{Poll, Source};
pub use stream::{Offset, StreamName, StreamOffset, StreamPartition};

/// A point at which a test lets the process die, stall, panic, or this function return an error; see `failpoints`. Nothing, its
/// error included, is compiled without the feature `failpoints`.
///
/// `failpoint!("commit.sent", |message| Error::unknown(message));`
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal, |$message:ident| $error:expr) => {
        if $crate::failpoints::fails($name) {
            let $message = concat!("failpoint ", $name);
            return Err($error);
        }
    };
}

/// A point at which a test lets the process die, stall, panic, or this function return an error. Nothing, in a build without the
/// feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal, |$message:ident| $error:expr) => {};
}
