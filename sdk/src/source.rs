//! The source trait and its delivery contract.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{
    Action, ActionOutput, ChangeBatch, Offset, Result, StreamDescription, StreamOffset, StreamPartition, TaskContext,
};

/// What a poll brought.
#[derive(Debug)]
pub enum Poll {
    /// Rows.
    Batch(ChangeBatch),
    /// Nothing arrived within the time-out.
    Idle {
        /// Everything that was available when the poll began has been delivered. `philotes run --until-idle` ends on
        /// this; say `false` where the source is only slow.
        caught_up: bool,
    },
    /// Drained for good: the source will never deliver again. The host flushes, commits and closes.
    End,
    /// These are about to be delivered for the first time: the host asks the sink for their offsets and answers each
    /// with [`Source::resume`] before the next poll. At least one. A partition is announced once per open.
    Announce(Vec<StreamPartition>),
    /// These go to another task: the host flushes what it has of them and lets go.
    Revoke(Vec<StreamPartition>),
}

/// Delivers change batches.
///
/// # The contract
///
/// * One call at a time; the host calls from one thread of its own and drives the futures to their end: a time-out is an
///   argument, never a dropped future. The source's own tasks run on the plugin's runtime
///   ([`tokio::spawn`] works inside every method).
/// * A source that keeps state of its own claims an epoch there in `open`, before it announces anything, and makes `resume`
///   and every acknowledgement conditional on it. If the epoch moved: [`ErrorKind::Fenced`](crate::ErrorKind::Fenced).
/// * Before the first batch of a partition the source announces it and receives [`resume`](Source::resume). It delivers
///   only rows after that offset, each once, in order. A stream that the route leaves out
///   ([`Route::wants`](crate::Route::wants)) need not be announced; if it is, it gets no answer, and nothing of it is wanted.
/// * A record that it cannot make a row of is an error of kind [`Data`](crate::ErrorKind::Data). Where the connector tolerates them
///   ([`TaskInfo::tolerance`](crate::TaskInfo)) it is a row of a batch of [dead letters](crate::dead_letter) instead, announced,
///   offset and acknowledged as every batch is.
/// * [`commit`](Source::commit) names offsets that are durable in the sink. It must return without waiting; acknowledging
///   is garbage collection and happens on the plugin's runtime. A failed acknowledgement surfaces at a later poll.
/// * Any error ends the instance: the host drops what is uncommitted, closes and reopens the source and the sink (after a
///   back-off where the kind is [`Unavailable`](crate::ErrorKind::Unavailable), [`Conflict`](crate::ErrorKind::Conflict) or
///   [`Unknown`](crate::ErrorKind::Unknown), at once where it is [`Fenced`](crate::ErrorKind::Fenced)) and starts again from
///   announce. The other kinds stop the connector.
#[async_trait]
pub trait Source: Send + Sized + 'static {
    /// The connector's name, as the YAML's `plugin:` says it: `[a-z0-9-]{1,63}`.
    const NAME: &'static str;
    /// One sentence for `philotes plugins describe`.
    const DOC: &'static str;
    /// The configuration; its JSON Schema is the configuration spec. Use `deny_unknown_fields`.
    type Config: DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// Checks what the structure cannot say, without touching a server. One message per fault, each beginning with the
    /// path of its key (`storage.endpoint: …`).
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

    /// How many tasks, at most `max`, the work can be split into. One where the source cannot be split.
    fn tasks(config: &Self::Config, max: u32) -> u32 {
        let _ = (config, max);
        1
    }

    /// Connects, and claims the source where it keeps state.
    async fn open(config: Self::Config, context: TaskContext) -> Result<Self>;

    /// Waits up to `timeout` for the next thing to say; a batch holds roughly `max_bytes` at most.
    async fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll>;

    /// Answers an announcement: rows after `offset` are wanted; `None` where the sink's table knows nothing of the partition.
    async fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()>;

    /// These offsets are durable. Returns at once.
    async fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()>;

    /// Sends the acknowledgements that are under way, within `timeout`, and lets go of everything.
    async fn close(self, timeout: Duration) -> Result<()>;

    /// The streams it would deliver with their schemas; at most 1,000 rows per stream are sampled, nothing is
    /// acknowledged or claimed.
    async fn streams(config: Self::Config, context: TaskContext) -> Result<Vec<StreamDescription>>;

    /// What it can do beside moving data.
    fn actions() -> Vec<Action> {
        Vec::new()
    }

    /// Does one of [`actions`](Source::actions); the arguments have been checked against its spec.
    async fn act(
        config: Self::Config,
        context: TaskContext,
        action: &str,
        arguments: serde_json::Value,
    ) -> Result<ActionOutput> {
        let _ = (config, context, arguments);
        Err(crate::Error::config(format!("no action {action:?}")))
    }
}
