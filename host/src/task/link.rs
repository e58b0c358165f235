//! The link between the two threads of a task: a queue bounded in bytes towards the sink, durable offsets and answers
//! back. Nothing else is shared between them.
//!
//! The source's thread never just waits: whatever it waits for, offsets that became durable meanwhile are handed to it, so
//! that acknowledging goes on while the sink is busy or in a back-off.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use philotes_sdk::{ChangeBatch, Offset, Result, StreamOffset, StreamPartition};

/// What goes from the source's thread to the sink's, in order.
#[derive(Debug)]
pub(crate) enum Item {
    /// Rows, with the bytes they count for.
    Batch(ChangeBatch, usize),
    /// The offsets of these are wanted, in their order: [`Answer::Offsets`].
    Announce(Vec<StreamPartition>),
    /// These go to another task: flush, forget them: [`Answer::Done`].
    Revoke(Vec<StreamPartition>),
    /// Flush everything: [`Answer::Done`].
    Drain {
        /// The sink may hold back rows whose transaction is not whole; the source will deliver them again.
        may_hold_back: bool,
    },
}

/// What the sink's thread answers to a question among the items.
#[derive(Debug)]
pub(crate) enum Answer {
    Offsets(Vec<Option<Offset>>),
    Done,
}

/// Why the source's thread has to leave.
#[derive(Debug)]
pub(crate) enum Left {
    /// The session is over: the other end failed, or the task is being stopped.
    Closed,
    /// Handing durable offsets to the source failed.
    Source(philotes_sdk::Error),
}

/// What the sink's thread gets.
#[derive(Debug)]
pub(crate) enum Popped {
    Item(Item),
    /// Nothing came in time.
    Nothing,
    /// The source's thread is done and everything was taken out.
    Finished,
    /// The session is over; what is queued is dropped.
    Closed,
}

pub(crate) struct Link {
    limit: usize,
    state: Mutex<State>,
    to_sink: Condvar,
    to_source: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    most_bytes: usize,
    durable: BTreeMap<StreamPartition, Offset>,
    answer: Option<Answer>,
    finished: bool,
    closed: bool,
}

impl Link {
    /// A link whose queue holds `limit` bytes of rows, or one batch where that is larger.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), to_sink: Condvar::new(), to_source: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the source's side

    /// Queues a batch once there is room for it.
    pub(crate) fn push(
        &self,
        batch: ChangeBatch,
        bytes: usize,
        commit: &mut dyn FnMut(&[StreamOffset]) -> Result<()>,
    ) -> Result<(), Left> {
        let has_room = |state: &mut State| (state.bytes == 0 || state.bytes + bytes <= self.limit).then_some(());
        self.wait_for(has_room, commit)?;
        let mut state = self.lock();
        state.bytes += bytes;
        state.most_bytes = state.most_bytes.max(state.bytes);
        state.items.push_back(Item::Batch(batch, bytes));
        self.to_sink.notify_one();
        Ok(())
    }

    /// Queues a question behind the rows, and waits for its answer.
    pub(crate) fn ask(
        &self,
        question: Item,
        commit: &mut dyn FnMut(&[StreamOffset]) -> Result<()>,
    ) -> Result<Answer, Left> {
        self.lock().items.push_back(question);
        self.to_sink.notify_one();
        self.wait_for(|state| state.answer.take(), commit)
    }

    /// What became durable since the last time; nothing most of the time.
    pub(crate) fn take_durable(&self) -> Vec<StreamOffset> {
        take_durable(&mut self.lock())
    }

    /// No more items will come.
    pub(crate) fn finish(&self) {
        self.lock().finished = true;
        self.to_sink.notify_one();
    }

    /// Waits until `ready` gives something, handing durable offsets to `commit` first.
    fn wait_for<T>(
        &self,
        mut ready: impl FnMut(&mut State) -> Option<T>,
        commit: &mut dyn FnMut(&[StreamOffset]) -> Result<()>,
    ) -> Result<T, Left> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(Left::Closed);
            }
            let durable = take_durable(&mut state);
            if !durable.is_empty() {
                drop(state);
                commit(&durable).map_err(Left::Source)?;
                state = self.lock();
                continue;
            }
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            state = self.to_source.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    // ---- the sink's side

    /// The next item, waiting until `deadline` (or for as long as it takes).
    pub(crate) fn pop(&self, deadline: Option<Instant>) -> Popped {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Popped::Closed;
            }
            if let Some(item) = state.items.pop_front() {
                if let Item::Batch(_, bytes) = &item {
                    state.bytes -= bytes;
                    self.to_source.notify_one();
                }
                return Popped::Item(item);
            }
            if state.finished {
                return Popped::Finished;
            }
            let wait = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match wait {
                Some(Duration::ZERO) => return Popped::Nothing,
                Some(wait) => self.to_sink.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.to_sink.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// These offsets are durable; a later one replaces an earlier one.
    pub(crate) fn durable(&self, offsets: Vec<StreamOffset>) {
        self.lock().durable.extend(offsets.into_iter().map(|each| (each.at, each.offset)));
        self.to_source.notify_one();
    }

    /// Answers the question that was popped last.
    pub(crate) fn answer(&self, answer: Answer) {
        self.lock().answer = Some(answer);
        self.to_source.notify_one();
    }

    // ---- both sides

    /// The session is over: both threads leave, what is queued is dropped.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.items.clear();
        state.bytes = 0;
        self.to_sink.notify_all();
        self.to_source.notify_all();
    }

    /// The bytes that are queued now.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The most bytes that were ever queued.
    #[cfg(test)]
    pub(crate) fn most_bytes(&self) -> usize {
        self.lock().most_bytes
    }
}

fn take_durable(state: &mut State) -> Vec<StreamOffset> {
    std::mem::take(&mut state.durable).into_iter().map(|(at, offset)| StreamOffset { at, offset }).collect()
}
