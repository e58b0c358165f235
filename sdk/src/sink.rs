//! The sink trait and its delivery contract.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::{Action, ActionOutput, ChangeBatch, Error, Offset, Result, StreamOffset, StreamPartition, TaskContext};

/// What a flush achieved: both halves may be filled.
#[derive(Debug, Default)]
pub struct Flushed {
    /// These offsets are durable in the sink from now on. Only these reach the source.
    pub durable: Vec<StreamOffset>,
    /// What became visible with them, one entry per commit; for logs and metrics.
    pub commits: Vec<Committed>,
    /// How many dead letters became durable, by partition: those of the source and the sink's own.
    pub dead_letters: Vec<(StreamPartition, u64)>,
    /// These partitions' rows are not durable. The sink keeps them: the host retries the flush or reopens, by kind.
    pub failed: Vec<(StreamPartition, Error)>,
}

/// One commit of a flush.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The table, as the sink prints it.
    pub table: String,
    /// Rows that became visible.
    pub rows: u64,
    /// Bytes of the files that became visible.
    pub bytes: u64,
    /// Files that became visible.
    pub files: u64,
    /// The sink's own name of the commit, for the log: a snapshot id.
    pub id: String,
}

/// Writes change batches and makes them durable together with their offsets.
///
/// # The contract
///
/// * One call at a time; the host calls from one thread of its own and drives the futures to their end.
/// * [`offsets`](Sink::offsets) is asked once per partition and open, before its first row, and reads the truth: what the sink's
///   own durable state says.
/// * Offsets become durable in the same atomic step as the rows they cover; never before, never after.
/// * After an error of [`offsets`](Sink::offsets), [`write`](Sink::write) or [`flush`](Sink::flush) with kind
///   [`Unavailable`](crate::ErrorKind::Unavailable), [`Conflict`](crate::ErrorKind::Conflict) or
///   [`Unknown`](crate::ErrorKind::Unknown) the same call is repeated on this instance, with back-off, so that the sink keeps what
///   it has, and looks at its durable state first where it does not know the outcome. On
///   [`Fenced`](crate::ErrorKind::Fenced) the host drops the instance with all that is uncommitted and reopens source and
///   sink. Every other kind stops the connector.
#[async_trait]
pub trait Sink: Send + Sized + 'static {
    /// The connector's name, as the YAML's `plugin:` says it: `[a-z0-9-]{1,63}`.
    const NAME: &'static str;
    /// One sentence for `philotes plugins describe`.
    const DOC: &'static str;
    /// It keeps dead letters: [`Tolerance::DeadLetter`](crate::Tolerance) is allowed. It then takes batches with
    /// [`ChangeBatch::dead_letters`] set, and where the connector asks for it (and not otherwise) makes dead letters of
    /// the rows that it cannot write itself, durable exactly once as rows are, with the offset of the batch they came in.
    const DEAD_LETTERS: bool = false;
    /// The configuration; its JSON Schema is the configuration spec. Use `deny_unknown_fields`.
    type Config: DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// Checks what the structure cannot say, without touching a server. One message per fault, each beginning with the
    /// path of its key.
    fn validate(config: &Self::Config) -> Vec<String> {
        let _ = config;
        Vec::new()
    }

    /// Tries to reach what the configuration names, reading only: for `philotes validate --connect`.
    ///
    /// # Errors
    /// What is out of reach, the key path first.
    async fn check(config: Self::Config, context: TaskContext) -> Result<()> {
        let _ = (config, context);
        Ok(())
    }

    /// Connects.
    async fn open(config: Self::Config, context: TaskContext) -> Result<Self>;

    /// The durable offsets of these partitions, in their order; `None` where nothing is known of one.
    async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>>;

    /// These partitions go to another task, and everything of them has been flushed: from now on others may write them beside
    /// this instance. [`offsets`](Sink::offsets) is asked again should they come back.
    async fn revoke(&mut self, at: &[StreamPartition]) -> Result<()> {
        let _ = at;
        Ok(())
    }

    /// Takes a batch in. On an error the batch is as if it had never been given.
    async fn write(&mut self, batch: &ChangeBatch) -> Result<()>;

    /// Makes durable what was written. An error here, or among the failed, leaves the rest intact.
    async fn flush(&mut self) -> Result<Flushed>;

    /// Memory and files held by what was written and not yet flushed, in bytes; the host flushes early when the task's share
    /// is reached.
    fn buffered_bytes(&self) -> usize;

    /// Lets go of everything within `timeout`; what was not flushed is dropped.
    async fn close(self, timeout: Duration) -> Result<()>;

    /// What would be created or altered for a stream of this schema: for `philotes plan`; writes nothing.
    async fn plan(config: Self::Config, context: TaskContext, at: &StreamPartition, schema: SchemaRef) -> Result<Plan>;

    /// What it can do beside moving data.
    fn actions() -> Vec<Action> {
        Vec::new()
    }

    /// Does one of [`actions`](Sink::actions); the arguments have been checked against its spec.
    async fn act(
        config: Self::Config,
        context: TaskContext,
        action: &str,
        arguments: serde_json::Value,
    ) -> Result<ActionOutput> {
        let _ = (config, context, arguments);
        Err(Error::config(format!("no action {action:?}")))
    }
}

/// What a sink would do for a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The table, as the sink prints it. Two streams with one name here collide.
    pub table: String,
    /// `create`, `alter` or `none`.
    pub change: String,
    /// The table's columns, in its order.
    pub columns: Vec<PlannedColumn>,
    /// Partition fields, printed: `day(_cdc_timestamp) as date`.
    pub partition_by: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// A column of a [`Plan`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedColumn {
    /// Its name in the table.
    pub name: String,
    /// Its type at the source.
    pub source_type: String,
    /// Its type in the table.
    pub target_type: String,
    /// It may not be null.
    pub required: bool,
    /// The source's type was inferred from data.
    pub inferred: bool,
    /// `add` where it would be added to an existing table, a promotion as `int to long`, or empty.
    pub change: String,
}
