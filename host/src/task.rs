//! A task: how a row goes from a source to a commit, and what happens when something fails on the way.
//!
//! # The path of a row
//!
//! A task has one source instance and one sink instance, each on a thread of its own, and a [`link`] between them.
//!
//! 1. The source's thread ([`source`]) polls. The first thing a source says of a partition is *announce*: the sink is asked
//!    for the offset that its table holds ([`SinkInstance::offsets`]), and the source is told to [`resume`] after it.
//! 2. Batches that the poll brings are routed (taken or left, renamed) and queued, at most so many bytes; a full queue stops
//!    the polling.
//! 3. The sink's thread ([`sink`]) writes them. After an interval, or so many rows or bytes, it flushes: rows and the
//!    offset that covers them become durable in one step.
//! 4. The offsets that a flush reports durable, and no others, go back over the link and reach [`SourceInstance::commit`]
//!    between two polls, so that the source may forget the rows.
//!
//! # When something fails
//!
//! Everything that is not committed can be lost at any moment without harm, because the offset in the table says where to go on. So
//! all recovery is one move: drop what is uncommitted, close both instances, open both, start from announce. That is a *session*;
//! a task is a loop over sessions. [`error_policy`] says which error leads there, which one only repeats a call of the sink, and
//! which one ends the task. A dying process is the same move, made by the next process.
//!
//! An instance that ignores its canceller is *wedged*: it is leaked together with its thread, which is safe for the same reason,
//! and because a flush of it that succeeds late is noticed by its successor's sink (fencing).
//!
//! Not here: what a source or sink does inside, and restarts after FAILED (`supervisor`).
//!
//! [`resume`]: crate::plugin::SourceInstance::resume
//! [`SourceInstance::commit`]: crate::plugin::SourceInstance::commit
//! [`SinkInstance::offsets`]: crate::plugin::SinkInstance::offsets
//! [`error_policy`]: crate::error_policy

mod contract;
pub(crate) mod link;
pub(crate) mod retry;
pub(crate) mod routing;
mod session;
mod sink;
mod source;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use philotes_sdk::{Error, TaskInfo};
use tracing::{info, warn};

use crate::config::{CommitPolicy, Endpoint, RetryPolicy};
use crate::error_policy::{Reaction, reaction};
use crate::plugin::{Kind, Services};
use crate::status::{TaskStatus, end_name};
use crate::stop::Stop;
use retry::Episode;
use routing::Routing;
use session::Ended;

/// Everything a task needs to run.
pub(crate) struct Task {
    pub(crate) info: TaskInfo,
    pub(crate) source: Endpoint,
    pub(crate) sink: Endpoint,
    pub(crate) routing: Routing,
    pub(crate) commit: CommitPolicy,
    pub(crate) retry: RetryPolicy,
    /// How long a call may take before it is called stalled.
    pub(crate) stalled_after: Duration,
    pub(crate) memory: Memory,
    pub(crate) until_idle: bool,
    /// How long a stop may take, and how long an instance may ignore its canceller.
    pub(crate) grace: Duration,
    pub(crate) status: Arc<TaskStatus>,
    pub(crate) span: tracing::Span,
}

/// How a task's memory is shared out, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) source: usize,
    pub(crate) queue: usize,
    pub(crate) sink: usize,
}

impl Memory {
    /// A quarter for what the source reads ahead, a sixteenth for the queue, half for the sink's open files. The rest is
    /// left for what nobody counts: batches between two owners, and what the allocator does not give back.
    pub(crate) fn share(total: u64) -> Self {
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let (source, queue) = (total / 4, total / 16);
        Self { source, queue, sink: total / 2 }
    }

    /// The size of one batch: two fit into the queue, and none is so large that it stops the pipeline.
    pub(crate) fn batch(&self) -> usize {
        (self.queue / 2).clamp(64 << 10, 8 << 20)
    }
}

impl Task {
    fn info_for(&self, end: Kind) -> TaskInfo {
        let (share, endpoint) = match end {
            Kind::Source => (self.memory.source, &self.source),
            Kind::Sink => (self.memory.sink, &self.sink),
        };
        let renewed = endpoint.renewal.is_some();
        TaskInfo { max_memory: share as u64, renewed, ..self.info.clone() }
    }

    fn services(&self) -> Services {
        Services {
            span: self.span.clone(),
            connector: self.info.connector.clone(),
            status: Some(Arc::clone(&self.status)),
        }
    }
}

/// How a task ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The source is drained, all is committed.
    Finished,
    /// Stopped as asked, all that was read is committed.
    Stopped,
}

/// Why a task FAILED.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) end: Kind,
    pub(crate) error: Error,
    /// Retrying might still help: a restart policy applies.
    pub(crate) exhausted: bool,
}

/// Runs a task to its end: session after session.
pub(crate) fn run(task: &Arc<Task>, stop: &Stop) -> Result<Done, Failure> {
    let mut episode = Episode::new(&task.retry);
    let mut standing_by = false;
    loop {
        if stop.is_raised() {
            return Ok(Done::Stopped);
        }
        task.status.drop_uncommitted();
        // A standby tries again and again, and is one all the while.
        if !standing_by {
            task.status.opening();
        }
        let (end, error) = match session::run(task, stop) {
            Ended { outcome: Ok(done), .. } => return Ok(done),
            Ended { outcome: Err(failure), progressed, while_stopping } => {
                if progressed {
                    episode.reset();
                }
                if failure.exhausted || while_stopping {
                    return Err(failure);
                }
                (failure.end, failure.error)
            }
        };
        // A run until idle wants an end: there it is a server that stays away.
        if error.is_held_elsewhere() && !task.until_idle {
            task.status.standby(end, &error);
            if !standing_by {
                info!(end = end_name(end), error = %error, "standby: another task holds it; this one waits for as long as it takes");
            }
            standing_by = true;
            episode.reset();
            if stop.sleep(retry::delay(task.retry.initial, task.retry.max, 1)) {
                return Ok(Done::Stopped);
            }
            continue;
        }
        standing_by = false;
        let at_once = match reaction(end, error.kind()) {
            Reaction::Fail => return Err(Failure { end, error, exhausted: false }),
            Reaction::ReopenAtOnce => true,
            // A session that ended with an error of the sink that a call would be repeated for: its `open` failed.
            Reaction::Reopen | Reaction::RetryCall => false,
        };
        if stop.is_raised() {
            info!(error = %error, "stopped instead of recovering; what was not committed will be read again");
            return Ok(Done::Stopped);
        }
        let Some(wait) = episode.failed(at_once) else {
            return Err(Failure { end, error, exhausted: true });
        };
        let attempts = episode.attempts();
        task.status.retrying(end, &error, attempts, wait);
        warn!(
            end = end_name(end),
            kind = error.kind().name(),
            attempts,
            retry_in_ms = wait.as_millis(),
            error = %error,
            "reopening source and sink"
        );
        if stop.sleep(wait) {
            return Ok(Done::Stopped);
        }
    }
}
