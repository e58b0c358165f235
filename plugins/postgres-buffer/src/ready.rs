//! What the pipeline has ready for the host, and what the host has answered: the meeting point of `poll` and the tasks.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use philotes_sdk::{ChangeBatch, Error, ErrorKind, Result, StreamName, StreamPartition};
use tokio::sync::Notify;

/// Something for the host.
pub(crate) enum Event {
    Batch(Box<ChangeBatch>),
    Announce(Vec<StreamPartition>),
}

#[derive(Default)]
struct State {
    /// The events, and how much memory each holds.
    queue: VecDeque<(Event, usize)>,
    /// Memory of the batches that were closed and not taken yet.
    held_bytes: usize,
    /// Batches that were closed and are not in the queue yet: their rows are being written down.
    in_flight: usize,
    /// When the last snapshot began, if it brought nothing for the host.
    drained: Option<Instant>,
    /// When a snapshot was asked for, if one was since the host was last given something.
    asked: Option<Instant>,
    /// Streams that were announced and not resumed yet.
    unanswered: HashSet<StreamName>,
    /// Streams that were resumed since the last snapshot began.
    resumed: Vec<StreamName>,
    /// What ended the instance.
    failure: Option<(ErrorKind, String)>,
}

/// Shared by the source and its tasks.
pub(crate) struct Ready {
    state: Mutex<State>,
    /// Something for `poll` changed.
    pub(crate) changed: Notify,
    /// Something for the reader changed: there is room, a stream was resumed, a snapshot is wanted.
    pub(crate) wake: Notify,
    /// How much memory there is for rows and for what is kept of the streams.
    memory: usize,
    /// How much of it rows may hold, at most half of that in closed batches.
    budget: AtomicUsize,
    max_batch_bytes: AtomicUsize,
}

impl Ready {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            wake: Notify::new(),
            memory: budget,
            budget: AtomicUsize::new(budget),
            max_batch_bytes: AtomicUsize::new(budget / 8),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// So much memory is taken by what is kept of the streams; rows are left an eighth of all.
    pub(crate) fn keep(&self, bytes: usize) {
        self.budget.store(self.memory - bytes.min(self.memory / 8 * 7), Ordering::Relaxed);
    }

    /// How large a batch may grow.
    pub(crate) fn max_batch_bytes(&self) -> usize {
        self.max_batch_bytes.load(Ordering::Relaxed)
    }

    /// How much all batches that are being built may hold.
    pub(crate) fn max_open_bytes(&self) -> usize {
        self.budget() / 4
    }

    /// The host said how large a batch may be.
    pub(crate) fn limit_batches(&self, max_bytes: usize) {
        self.max_batch_bytes.store(max_bytes.min(self.budget() / 8).max(1), Ordering::Relaxed);
    }

    /// Ends the instance; the first error counts.
    #[expect(clippy::needless_pass_by_value, reason = "where an error ends up, it is not used again")]
    pub(crate) fn fail(&self, error: Error) {
        self.state().failure.get_or_insert_with(|| (error.kind(), error.to_string()));
        self.changed.notify_waiters();
        self.wake.notify_one();
    }

    /// Whether a closed batch of this size has room now; if so it is counted.
    pub(crate) fn admit(&self, bytes: usize) -> bool {
        let mut state = self.state();
        if state.held_bytes > 0 && state.held_bytes + bytes > self.budget() / 2 {
            return false;
        }
        state.held_bytes += bytes;
        state.in_flight += 1;
        true
    }

    /// A batch that was admitted, ready for the host.
    pub(crate) fn push(&self, batch: ChangeBatch, bytes: usize) {
        let mut state = self.state();
        state.in_flight -= 1;
        state.queue.push_back((Event::Batch(Box::new(batch)), bytes));
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn announce(&self, streams: Vec<StreamPartition>) {
        let mut state = self.state();
        state.unanswered.extend(streams.iter().map(|at| at.stream.clone()));
        state.queue.push_back((Event::Announce(streams), 0));
        drop(state);
        self.changed.notify_waiters();
    }

    /// The host asked for a stream's rows, and what its offset covers is acknowledged.
    pub(crate) fn answer(&self, stream: &StreamName) {
        let mut state = self.state();
        state.unanswered.remove(stream);
        state.resumed.push(stream.clone());
        drop(state);
        self.wake.notify_one();
    }

    /// Whether all announcements were answered.
    pub(crate) fn answered(&self) -> bool {
        self.state().unanswered.is_empty()
    }

    /// The streams resumed since this was last asked.
    pub(crate) fn take_resumed(&self) -> Vec<StreamName> {
        std::mem::take(&mut self.state().resumed)
    }

    /// A snapshot that began at `begun` has ended; `nothing` where it brought the host nothing.
    pub(crate) fn snapshot_done(&self, begun: Instant, nothing: bool) {
        self.state().drained = nothing.then_some(begun);
        self.changed.notify_waiters();
    }

    /// The next event; the failure before all.
    pub(crate) fn take(&self) -> Result<Option<Event>> {
        let mut state = self.state();
        if let Some((kind, message)) = &state.failure {
            return Err(Error::new(*kind, message.clone()));
        }
        let Some((event, bytes)) = state.queue.pop_front() else { return Ok(None) };
        state.held_bytes -= bytes;
        state.asked = None;
        drop(state);
        self.wake.notify_one();
        Ok(Some(event))
    }

    /// Whether all that was there at `since` has been taken.
    pub(crate) fn caught_up(&self, since: Instant) -> bool {
        let state = self.state();
        state.queue.is_empty()
            && state.in_flight == 0
            && state.unanswered.is_empty()
            && state.drained.is_some_and(|begun| begun >= since)
    }

    /// Asks for a snapshot at once, unless one was asked for since the host was last given something. Says whether it did.
    pub(crate) fn ask(&self) -> bool {
        let mut state = self.state();
        if state.asked.is_some() {
            return false;
        }
        state.asked = Some(Instant::now());
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Whether the host waits for a snapshot that has not begun yet.
    pub(crate) fn wanted(&self) -> bool {
        let state = self.state();
        state.asked.is_some_and(|asked| state.drained.is_none_or(|begun| begun < asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_wait_for_room_but_one_always_fits() {
        let ready = Ready::new(100);
        assert!(ready.admit(80), "the first fits whatever its size");
        assert!(!ready.admit(1));
    }

    #[test]
    fn what_is_kept_takes_room_from_rows_but_not_all() {
        let ready = Ready::new(800);
        ready.keep(400);
        ready.limit_batches(usize::MAX);
        assert_eq!((ready.max_open_bytes(), ready.max_batch_bytes()), (100, 50));
        ready.keep(usize::MAX);
        assert_eq!(ready.max_open_bytes(), 25);
        assert!(ready.admit(45) && !ready.admit(10));
    }

    #[test]
    fn the_first_failure_stays() {
        let ready = Ready::new(100);
        ready.fail(Error::fenced("first"));
        ready.fail(Error::internal("second"));
        for _ in 0..2 {
            let error = ready.take().err().unwrap();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Fenced, "first"));
        }
    }

    #[test]
    fn caught_up_means_an_empty_snapshot_begun_since_then() {
        let ready = Ready::new(100);
        let before = Instant::now();
        ready.snapshot_done(before, true);
        assert!(ready.caught_up(before));
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(!ready.caught_up(Instant::now()), "that snapshot is too old");
        assert!(ready.ask() && !ready.ask(), "one question until something is taken");
        ready.snapshot_done(before, true);
        assert!(ready.admit(10));
        assert!(!ready.caught_up(before), "a batch is in flight");
    }
}
