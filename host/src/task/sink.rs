//! The sink's thread: writes what the link brings, decides when to flush, and reports what became durable.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use philotes_sdk::{ChangeBatch, Error, Flushed, Offset, Result, StreamOffset, StreamPartition, failpoint};
use tracing::{debug, info, warn};

use super::Done;
use super::Task;
use super::link::{Answer, Item, Popped};
use super::retry::Episode;
use super::session::{Leave, Session};
use crate::error_policy::{Reaction, reaction};
use crate::plugin::{Kind, SinkInstance};

/// How long an instance may take to close: nothing is left to save by then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of the thread.
pub(super) fn run(task: &Task, session: &Session) -> Option<Done> {
    let opened = session.call(Kind::Sink, "open", || {
        task.sink.connector.open_sink(&task.sink.current(), &task.info_for(Kind::Sink), task.services())
    });
    let sink = match opened {
        Ok(sink) => sink,
        Err(error) => {
            session.leave(Kind::Sink, failed(error));
            return None;
        }
    };
    session.opened(task, Kind::Sink, sink.canceller());
    let mut writer = Writer { task, session, sink, pending: Pending::default() };
    if let Err(leave) = writer.write_all() {
        session.leave(Kind::Sink, leave);
    }
    let sink = writer.sink;
    if let Err(error) = session.call(Kind::Sink, "close", || sink.close(CLOSE_TIMEOUT.min(task.grace))) {
        warn!(error = %error, "closing the sink failed");
    }
    // Whether the task is done, and how, is the source's to say.
    None
}

struct Writer<'a> {
    task: &'a Task,
    session: &'a Session,
    sink: Box<dyn SinkInstance>,
    pending: Pending,
}

/// What was written and is not durable yet, in the order of writing.
#[derive(Default)]
struct Pending {
    partitions: HashMap<StreamPartition, Partition>,
    rows: u64,
    bytes: u64,
    /// When the oldest of it was written, or last held back by a flush.
    since: Option<Instant>,
}

#[derive(Default)]
struct Partition {
    batches: VecDeque<Written>,
    /// The last offset known to be durable: what the sink said when asked, or reported since.
    durable: Option<Offset>,
}

struct Written {
    offset: Offset,
    rows: u64,
    bytes: u64,
    newest_micros: i64,
}

impl Pending {
    fn wrote(&mut self, batch: &ChangeBatch, bytes: usize) {
        let rows = batch.rows.num_rows() as u64;
        let bytes = bytes as u64;
        self.rows += rows;
        self.bytes += bytes;
        self.since.get_or_insert_with(Instant::now);
        let written = Written { offset: batch.offset.clone(), rows, bytes, newest_micros: batch.newest_micros };
        self.partitions.entry(batch.at.clone()).or_default().batches.push_back(written);
    }

    /// Everything of a partition up to this offset is durable: the rows, and when the newest of them was new. `None` where
    /// nothing was written under this offset.
    fn settle(&mut self, durable: &StreamOffset) -> Option<(u64, i64)> {
        let partition = self.partitions.get_mut(&durable.at)?;
        let position = partition.batches.iter().rposition(|written| written.offset == durable.offset);
        let Some(position) = position else {
            return (partition.durable.as_ref() == Some(&durable.offset)).then_some((0, 0));
        };
        let (mut rows, mut newest) = (0, 0);
        for written in partition.batches.drain(..=position) {
            rows += written.rows;
            newest = written.newest_micros.max(newest);
            self.rows -= written.rows;
            self.bytes -= written.bytes;
        }
        partition.durable = Some(durable.offset.clone());
        Some((rows, newest))
    }

    fn batches(&self) -> usize {
        self.partitions.values().map(|partition| partition.batches.len()).sum()
    }
}

impl Writer<'_> {
    fn write_all(&mut self) -> Result<(), Leave> {
        loop {
            let due = self.pending.since.map(|since| since + self.task.commit.interval);
            if due.is_some_and(|due| due <= Instant::now()) {
                self.flush()?;
                continue;
            }
            match self.session.link.pop(due) {
                Popped::Nothing => {}
                Popped::Finished => return Ok(()),
                Popped::Closed => return Err(Leave::Aborted),
                Popped::Item(Item::Batch(batch, bytes)) => self.write(&batch, bytes)?,
                Popped::Item(Item::Announce(partitions)) => {
                    let offsets = self.offsets(&partitions)?;
                    self.session.link.answer(Answer::Offsets(offsets));
                }
                Popped::Item(Item::Revoke(partitions)) => {
                    self.drain(true)?;
                    self.forget(&partitions)?;
                    self.session.link.answer(Answer::Done);
                }
                Popped::Item(Item::Drain { may_hold_back }) => {
                    self.drain(may_hold_back)?;
                    self.session.link.answer(Answer::Done);
                }
            }
        }
    }

    fn offsets(&mut self, partitions: &[StreamPartition]) -> Result<Vec<Option<Offset>>, Leave> {
        let offsets = self.call("offsets", |sink| sink.offsets(partitions))?;
        if offsets.len() != partitions.len() {
            let message = format!("the sink gave {} offsets for {} partitions", offsets.len(), partitions.len());
            return Err(failed(Error::internal(message)));
        }
        for (at, offset) in partitions.iter().zip(&offsets) {
            let partition = Partition { batches: VecDeque::new(), durable: offset.clone() };
            self.pending.partitions.insert(at.clone(), partition);
        }
        Ok(offsets)
    }

    fn write(&mut self, batch: &ChangeBatch, bytes: usize) -> Result<(), Leave> {
        self.call("write", |sink| sink.write(batch))?;
        self.pending.wrote(batch, bytes);
        self.task.status.queued(self.session.link.bytes());
        let commit = &self.task.commit;
        if self.pending.rows >= commit.max_rows
            || self.pending.bytes >= commit.max_bytes
            || self.sink.buffered_bytes() >= self.task.memory.sink
        {
            self.flush()?;
        }
        Ok(())
    }

    /// Lets go of partitions that another task takes over.
    fn forget(&mut self, partitions: &[StreamPartition]) -> Result<(), Leave> {
        for at in partitions {
            let held_back = self.pending.partitions.remove(at).is_some_and(|partition| !partition.batches.is_empty());
            if held_back {
                // They must not be committed any more once the other task begins, and a sink drops only all it has.
                let message = format!("the sink held back rows of {at}, which goes to another task");
                return Err(failed(Error::fenced(message)));
            }
        }
        self.call("revoke", |sink| sink.revoke(partitions))
    }

    /// Flushes until nothing is left, or (where the sink may hold back rows) until a flush brings nothing more.
    fn drain(&mut self, may_hold_back: bool) -> Result<(), Leave> {
        while self.pending.batches() > 0 {
            let before = self.pending.batches();
            self.flush()?;
            if self.pending.batches() == before {
                if may_hold_back {
                    info!(rows = self.pending.rows, "the sink held rows back; they will be read again");
                    return Ok(());
                }
                let message = format!("a flush left {} rows behind without reporting a failure", self.pending.rows);
                return Err(failed(Error::internal(message)));
            }
        }
        Ok(())
    }

    /// Flushes until no partition fails. What became durable goes to the source each time, whatever failed beside it.
    fn flush(&mut self) -> Result<(), Leave> {
        let (task, session) = (self.task, self.session);
        let mut episode = Episode::new(&task.retry);
        loop {
            let started = Instant::now();
            let sink = &mut self.sink;
            let error = match session.call(Kind::Sink, "flush", || sink.flush()) {
                Ok(flushed) => match self.settle(flushed, started.elapsed()).map_err(failed)? {
                    None => break,
                    Some(error) => error,
                },
                Err(error) => error,
            };
            back_off("flush", error, &mut episode, task, session)?;
        }
        if episode.attempts() > 0 {
            task.status.recovered();
        }
        self.pending.since = (self.pending.batches() > 0).then(Instant::now);
        Ok(())
    }

    /// Books what a flush achieved, and gives the worst of what failed.
    fn settle(&mut self, flushed: Flushed, took: Duration) -> Result<Option<Error>> {
        let mut rows_durable = 0;
        let mut durable = Vec::with_capacity(flushed.durable.len());
        for each in flushed.durable {
            let Some((rows, newest)) = self.pending.settle(&each) else {
                // Passing it on would let the source forget rows that may be nowhere.
                let message = format!("the sink reported an offset of {} as durable that it was not given", each.at);
                return Err(Error::internal(message));
            };
            let at = self.task.routing.to_source(&each.at);
            if rows > 0 {
                self.task.status.committed(&at, rows, newest);
                self.session.progressed();
            }
            rows_durable += rows;
            durable.push(StreamOffset { at, offset: each.offset });
        }
        self.task.status.flushed(took, &flushed.commits);
        for (at, count) in &flushed.dead_letters {
            self.task.status.dead_letters(&self.task.routing.to_source(at), *count);
        }
        for commit in &flushed.commits {
            debug!(table = commit.table, rows = commit.rows, files = commit.files, id = commit.id, "committed");
        }
        if !durable.is_empty() {
            debug!(rows = rows_durable, took_ms = took.as_millis(), "flushed");
            failpoint!("host.durable", |message| Error::unavailable(message));
            self.session.link.durable(durable);
        }
        let worst = flushed.failed.into_iter().min_by_key(|(_, error)| match reaction(Kind::Sink, error.kind()) {
            Reaction::Fail => 0,
            Reaction::Reopen | Reaction::ReopenAtOnce => 1,
            Reaction::RetryCall => 2,
        });
        Ok(worst.map(|(at, error)| error.context(at)))
    }

    /// Calls the sink, again and again where its error says that the same call may be repeated.
    fn call<T>(
        &mut self,
        what: &'static str,
        mut call: impl FnMut(&mut dyn SinkInstance) -> Result<T>,
    ) -> Result<T, Leave> {
        let mut episode = Episode::new(&self.task.retry);
        loop {
            let sink = self.sink.as_mut();
            match self.session.call(Kind::Sink, what, || call(sink)) {
                Ok(value) => {
                    if episode.attempts() > 0 {
                        info!(call = what, "the sink is back");
                        self.task.status.recovered();
                    }
                    return Ok(value);
                }
                Err(error) => back_off(what, error, &mut episode, self.task, self.session)?,
            }
        }
    }
}

/// Waits before a call is repeated; an error where it must not be, or not any more.
fn back_off(
    what: &'static str,
    error: Error,
    episode: &mut Episode<'_>,
    task: &Task,
    session: &Session,
) -> Result<(), Leave> {
    if reaction(Kind::Sink, error.kind()) != Reaction::RetryCall {
        return Err(failed(error));
    }
    if session.abort.is_raised() {
        return Err(Leave::Aborted);
    }
    let Some(wait) = episode.failed(false) else {
        return Err(Leave::Failed { error, exhausted: true });
    };
    task.status.retrying(Kind::Sink, &error, episode.attempts(), wait);
    warn!(
        call = what,
        kind = error.kind().name(),
        attempts = episode.attempts(),
        retry_in_ms = wait.as_millis(),
        error = %error,
        "the sink is out of reach, calling again"
    );
    if session.abort.sleep(wait) { Err(Leave::Aborted) } else { Ok(()) }
}

fn failed(error: Error) -> Leave {
    Leave::Failed { error, exhausted: false }
}
