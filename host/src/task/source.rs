//! The source's thread: polls, answers announcements, queues rows, and hands back what became durable.

use std::collections::HashSet;
use std::time::Duration;

use chrono::Utc;
use philotes_sdk::{ChangeBatch, Error, Poll, Result, StreamOffset, StreamPartition, failpoint};
use tracing::{debug, info, warn};

use super::contract::Contracts;
use super::link::{Answer, Item, Left};
use super::routing::Renamer;
use super::session::{Leave, STOP_BY, Session};
use super::{Done, Task};
use crate::plugin::{Kind, SourceInstance};

/// How long a poll waits for rows; also how soon a stop and fresh durable offsets are noticed while nothing arrives.
const POLL_TIMEOUT: Duration = Duration::from_millis(250);
/// How long an instance may take to close after its session failed. What it would acknowledge meanwhile is acknowledged by
/// its successor's `resume`.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is left for the acknowledgements under way where flushing took the whole grace period.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// The body of the thread.
pub(super) fn run(task: &Task, session: &Session) -> Option<Done> {
    let opened = session.call(Kind::Source, "open", || {
        task.source.connector.open_source(&task.source.current(), &task.info_for(Kind::Source), task.services())
    });
    let source = match opened {
        Ok(source) => source,
        Err(error) => {
            session.leave(Kind::Source, Leave::Failed { error, exhausted: false });
            return None;
        }
    };
    session.opened(task, Kind::Source, source.canceller());
    let mut reader = Reader {
        task,
        session,
        source,
        announced: HashSet::new(),
        left_out: HashSet::new(),
        contracts: Contracts::default(),
        renamer: Renamer::default(),
    };
    let done = match reader.read() {
        Ok(done) => {
            session.finished(done);
            // The sink need not wait for the last acknowledgements.
            session.link.finish();
            Some(done)
        }
        Err(Left::Closed) => {
            session.leave(Kind::Source, Leave::Aborted);
            None
        }
        Err(Left::Source(error)) => {
            session.leave(Kind::Source, Leave::Failed { error, exhausted: false });
            None
        }
    };
    let timeout = match done {
        Some(_) => {
            let used = session.stop.since().map_or(Duration::ZERO, |since| since.elapsed());
            task.grace.mul_f64(STOP_BY).saturating_sub(used).max(LAST_MOMENT)
        }
        None => CLOSE_TIMEOUT.min(task.grace),
    };
    let source = reader.source;
    if let Err(error) = session.call(Kind::Source, "close", || source.close(timeout)) {
        warn!(error = %error, "closing the source failed; what it did not acknowledge is skipped when it is opened again");
    }
    done
}

struct Reader<'a> {
    task: &'a Task,
    session: &'a Session,
    source: Box<dyn SourceInstance>,
    /// Announced and resumed, by the source's names.
    announced: HashSet<StreamPartition>,
    /// Announced although the route leaves them out: not resumed, so that nothing of them is read.
    left_out: HashSet<StreamPartition>,
    contracts: Contracts,
    renamer: Renamer,
}

impl Reader<'_> {
    /// Polls until there is nothing more to do.
    fn read(&mut self) -> Result<Done, Left> {
        // With --until-idle: everything up to the last poll was drained, so that one more empty poll ends the run.
        let mut drained = false;
        loop {
            let durable = self.session.link.take_durable();
            if !durable.is_empty() {
                self.commit(&durable)?;
            }
            if self.session.abort.is_raised() {
                return Err(Left::Closed);
            }
            if self.session.stop.is_raised() {
                info!("stopping: flushing what was read");
                self.drain(true)?;
                return Ok(Done::Stopped);
            }
            let source = &mut self.source;
            let began = Utc::now();
            let max_bytes = self.task.memory.batch();
            let poll = self.session.call(Kind::Source, "poll", || source.poll(POLL_TIMEOUT, max_bytes));
            match poll.map_err(Left::Source)? {
                Poll::Batch(batch) => {
                    drained = false;
                    self.batch(batch)?;
                }
                Poll::Announce(partitions) => {
                    drained = false;
                    self.announce(partitions)?;
                }
                Poll::Revoke(partitions) => {
                    drained = false;
                    self.revoke(&partitions)?;
                }
                Poll::Idle { caught_up } => {
                    if caught_up {
                        self.task.status.caught_up(began);
                    }
                    if caught_up && drained {
                        return Ok(Done::Finished);
                    }
                    if caught_up && self.task.until_idle {
                        self.drain(false)?;
                        self.session.progressed();
                        drained = true;
                    }
                }
                Poll::End => {
                    info!("the source has ended: flushing what was read");
                    self.task.status.caught_up(began);
                    self.drain(false)?;
                    return Ok(Done::Finished);
                }
            }
        }
    }

    fn batch(&mut self, batch: ChangeBatch) -> Result<(), Left> {
        if !self.announced.contains(&batch.at) {
            if self.left_out.contains(&batch.at) {
                return Ok(());
            }
            let message = format!("the source delivered rows of {} without having announced it", batch.at);
            return Err(Left::Source(Error::internal(message)));
        }
        self.contracts.check(&batch).map_err(Left::Source)?;
        failpoint!("host.polled", |message| Left::Source(Error::unavailable(message)));
        let (rows, bytes) = (batch.rows.num_rows() as u64, batch.bytes());
        self.task.status.read(&batch.at, rows, bytes as u64, batch.newest_micros);
        let batch = self.renamer.rename(&self.task.routing, batch).map_err(Left::Source)?;
        let (session, source) = (self.session, &mut self.source);
        session
            .link
            .push(batch, bytes, &mut |durable| session.call(Kind::Source, "commit", || source.commit(durable)))?;
        self.task.status.queued(self.session.link.bytes());
        Ok(())
    }

    fn announce(&mut self, partitions: Vec<StreamPartition>) -> Result<(), Left> {
        let mut wanted = Vec::new();
        for at in partitions {
            if self.announced.contains(&at) || wanted.contains(&at) {
                return Err(Left::Source(Error::internal(format!("the source announced {at} twice"))));
            }
            if self.task.routing.wants(&at.stream).map_err(Left::Source)? {
                wanted.push(at);
            } else if self.left_out.insert(at.clone()) {
                info!(stream = %at.stream, partition = at.partition, "the route leaves this stream out");
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let renamed = wanted.iter().map(|at| self.task.routing.to_sink(at)).collect();
        let Answer::Offsets(offsets) = self.ask(Item::Announce(renamed))? else {
            return Err(Left::Source(Error::internal("an announcement was answered without offsets")));
        };
        for (at, offset) in wanted.into_iter().zip(offsets) {
            debug!(stream = %at.stream, partition = at.partition, known = offset.is_some(), "resuming");
            let source = &mut self.source;
            let resumed = self.session.call(Kind::Source, "resume", || source.resume(&at, offset.as_ref()));
            resumed.map_err(Left::Source)?;
            self.announced.insert(at);
        }
        Ok(())
    }

    fn revoke(&mut self, partitions: &[StreamPartition]) -> Result<(), Left> {
        let ours = partitions.iter().filter(|at| self.announced.contains(at));
        let renamed: Vec<StreamPartition> = ours.map(|at| self.task.routing.to_sink(at)).collect();
        if !renamed.is_empty() {
            self.ask(Item::Revoke(renamed))?;
        }
        for at in partitions {
            self.announced.remove(at);
            self.task.status.revoked(at);
            self.left_out.remove(at);
        }
        Ok(())
    }

    /// Has everything flushed; when this returns, the source has been told of every durable offset.
    fn drain(&mut self, may_hold_back: bool) -> Result<(), Left> {
        self.ask(Item::Drain { may_hold_back })?;
        self.task.status.queued(0);
        Ok(())
    }

    fn ask(&mut self, question: Item) -> Result<Answer, Left> {
        let (session, source) = (self.session, &mut self.source);
        session.link.ask(question, &mut |durable| session.call(Kind::Source, "commit", || source.commit(durable)))
    }

    fn commit(&mut self, durable: &[StreamOffset]) -> Result<(), Left> {
        let source = &mut self.source;
        self.session.call(Kind::Source, "commit", || source.commit(durable)).map_err(Left::Source)
    }
}
