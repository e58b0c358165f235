//! What the reader's thread and the host's calls hand each other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use philotes_sdk::{ChangeBatch, Error, Result, StreamPartition};
use tokio::sync::Notify;

use crate::begin::Known;
use crate::client::TopicPartition;

/// What the next poll says.
#[derive(Debug)]
pub(crate) enum Said {
    Batch(Box<ChangeBatch>),
    Announce(Vec<StreamPartition>),
    Revoke(Vec<StreamPartition>),
}

/// What the reader is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// These partitions were resumed: all that was announced and is wanted.
    Begin(Vec<Start>),
    /// What was revoked has been flushed.
    LetGo,
    /// This is durable: the offset that the table holds.
    Durable(StreamPartition, i64),
    /// The instance closes.
    Stop,
}

/// Where a partition is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) at: StreamPartition,
    /// The first message to read.
    pub(crate) offset: i64,
    /// What the table holds.
    pub(crate) table: Option<i64>,
}

/// A partition that was announced.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    pub(crate) partition: TopicPartition,
    pub(crate) known: Known,
}

/// Between the two.
#[derive(Default)]
pub(crate) struct Handover {
    state: Mutex<State>,
    /// Something to say, for the host's call.
    arrived: Notify,
    /// Something to do, for the reader.
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    said: VecDeque<Said>,
    /// What the batches in it take.
    bytes: usize,
    failed: Option<Error>,
    requests: Vec<Request>,
    announced: HashMap<StreamPartition, Announced>,
    /// The most bytes of a batch that the host has asked for.
    batch_bytes: usize,
    /// Everything up to these offsets is handed over, and there was no more when each was reached; `None` while that is not so.
    drained: Option<Vec<(TopicPartition, i64)>>,
}

impl Handover {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reader: hands a batch over.
    pub(crate) fn batch(&self, batch: ChangeBatch) {
        let mut state = self.lock();
        state.bytes += batch.bytes();
        state.said.push_back(Said::Batch(Box::new(batch)));
        drop(state);
        self.arrived.notify_one();
    }

    /// Reader: announces partitions.
    pub(crate) fn announce(&self, partitions: Vec<(StreamPartition, Announced)>) {
        let mut state = self.lock();
        let names = partitions.iter().map(|(at, _)| at.clone()).collect();
        state.announced.extend(partitions);
        state.said.push_back(Said::Announce(names));
        drop(state);
        self.arrived.notify_one();
    }

    /// Reader: lets go of partitions: what was not said of them is not said any more. Whether the host has to hear of it.
    pub(crate) fn revoke(&self, partitions: &[StreamPartition]) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut heard = partitions.to_vec();
        state.said.retain_mut(|said| match said {
            Said::Batch(batch) => {
                let stays = !partitions.contains(&batch.at);
                if !stays {
                    state.bytes -= batch.bytes();
                }
                stays
            }
            Said::Announce(names) => {
                heard.retain(|at| !names.contains(at));
                names.retain(|at| !partitions.contains(at));
                !names.is_empty()
            }
            Said::Revoke(_) => true,
        });
        for at in partitions {
            state.announced.remove(at);
        }
        let speaks = !heard.is_empty();
        if speaks {
            state.said.push_front(Said::Revoke(heard));
        }
        drop(guard);
        self.arrived.notify_one();
        speaks
    }

    /// Reader: it has failed, and is about to end.
    pub(crate) fn fail(&self, error: Error) {
        self.lock().failed.get_or_insert(error);
        self.arrived.notify_one();
    }

    /// Reader: everything is handed over up to these offsets, or not.
    pub(crate) fn set_drained(&self, drained: Option<Vec<(TopicPartition, i64)>>) {
        self.lock().drained = drained;
    }

    /// Reader: what it is asked to do; waits so long for something.
    pub(crate) fn requests(&self, patience: Duration) -> Vec<Request> {
        let mut state = self.lock();
        if state.requests.is_empty() && !patience.is_zero() {
            state = self.wanted.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut state.requests)
    }

    /// Reader: how many bytes wait to be taken, and how large the host wants a batch at most.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let state = self.lock();
        (state.bytes, state.batch_bytes)
    }

    /// Reader: whether everything that was said has been heard.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().said.is_empty()
    }

    /// Host: asks the reader for something.
    pub(crate) fn request(&self, request: Request) {
        self.lock().requests.push(request);
        self.wanted.notify_one();
    }

    /// Host: the next thing to say; waits so long for it.
    ///
    /// # Errors
    /// What the reader failed with.
    pub(crate) async fn next(&self, patience: Duration, batch_bytes: usize) -> Result<Option<Said>> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            // Made before looking, so that what arrives meanwhile wakes it.
            let arrived = self.arrived.notified();
            if let Some(said) = self.look(batch_bytes)? {
                return Ok(Some(said));
            }
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return self.look(batch_bytes);
            }
        }
    }

    fn look(&self, batch_bytes: usize) -> Result<Option<Said>> {
        let mut state = self.lock();
        state.batch_bytes = batch_bytes;
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let said = state.said.pop_front();
        if let Some(Said::Batch(batch)) = &said {
            state.bytes -= batch.bytes();
            self.wanted.notify_one();
        }
        Ok(said)
    }

    /// Host: what is known of a partition that was announced.
    pub(crate) fn announced(&self, at: &StreamPartition) -> Option<Announced> {
        self.lock().announced.get(at).cloned()
    }

    /// Host: up to where everything is handed over, if it is.
    pub(crate) fn drained(&self) -> Option<Vec<(TopicPartition, i64)>> {
        self.lock().drained.clone()
    }
}
