//! One session of a task: both threads from open to close, watched from a third.
//!
//! The order of an ending: the source's thread stops polling, has everything flushed, hands the last offsets to its
//! instance, closes it, and only then finishes the link, upon which the sink's thread closes its own. When either end
//! fails, the link is closed, both threads leave at their next step, and close what they have.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use philotes_sdk::{Error, ErrorKind};
use tracing::{error, info, warn};

use super::link::Link;
use super::{Done, Failure, Task, sink, source};
use crate::error_policy::{Reaction, reaction};
use crate::plugin::{Cancel, Kind};
use crate::status::{Calls, end_name};
use crate::stop::Stop;

/// How often the watcher looks whether a stop was asked for.
const LOOK: Duration = Duration::from_millis(50);
/// How long an instance may go on before it is cancelled, once its session is over.
const PATIENCE: Duration = Duration::from_secs(2);
/// By this part of the grace period everything has to be flushed and closed; the rest is for those that do not return.
pub(super) const STOP_BY: f64 = 0.8;

/// How a session ended.
pub(super) struct Ended {
    pub(super) outcome: Result<Done, Failure>,
    /// It was of use: something was committed, all was caught up with, or it held for longer than any back-off.
    pub(super) progressed: bool,
    /// The failure came when the task was being stopped, so that what was read could not be flushed any more.
    pub(super) while_stopping: bool,
}

/// Why a thread of a session leaves before it is done.
#[derive(Debug)]
pub(super) enum Leave {
    /// The session is over already.
    Aborted,
    /// An error of its instance, which retrying a call could not heal (any more).
    Failed { error: Error, exhausted: bool },
}

/// What the two threads and the watcher share.
pub(super) struct Session {
    pub(super) link: Link,
    /// The task is asked to stop: flush, commit, close.
    pub(super) stop: Stop,
    /// The session is over: leave without flushing.
    pub(super) abort: Stop,
    progressed: AtomicBool,
    /// The first failure, and whether a stop was asked for before it. It is the cause; what the other end says while it is
    /// being closed is a consequence.
    failure: Mutex<Option<(Failure, bool)>>,
    /// The task is done: everything is flushed, and the instances are being closed.
    finished: Mutex<Option<(Done, Instant)>>,
    source: End,
    sink: End,
    /// What the two instances are in just now.
    calls: Arc<Calls>,
}

/// One end as the watcher knows it.
#[derive(Default)]
struct End {
    canceller: Mutex<Option<Arc<dyn Cancel>>>,
    opened: Mutex<Option<Instant>>,
}

impl Session {
    fn end(&self, kind: Kind) -> &End {
        match kind {
            Kind::Source => &self.source,
            Kind::Sink => &self.sink,
        }
    }

    /// An instance is open, and this cancels it.
    pub(super) fn opened(&self, task: &Task, kind: Kind, canceller: Arc<dyn Cancel>) {
        let end = self.end(kind);
        *end.canceller.lock().unwrap_or_else(PoisonError::into_inner) = Some(canceller);
        *end.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if self.both_open() && task.status.running() {
            info!("no other task holds the source any more: taking over");
        }
    }

    /// Everything is flushed; what is left is to close both instances.
    pub(super) fn finished(&self, done: Done) {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = Some((done, Instant::now()));
    }

    fn is_finished(&self) -> Option<(Done, Instant)> {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls an instance; a call that does not come back is seen by the watcher.
    pub(super) fn call<T>(&self, kind: Kind, name: &'static str, call: impl FnOnce() -> T) -> T {
        let (result, late) = self.calls.during(kind, name, call);
        if let Some(took) = late {
            info!(end = end_name(kind), call = name, running_s = took.as_secs_f64(), "the stalled call has returned");
        }
        result
    }

    pub(super) fn progressed(&self) {
        self.progressed.store(true, Ordering::Relaxed);
    }

    fn opened_at(&self, kind: Kind) -> Option<Instant> {
        *self.end(kind).opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn both_open(&self) -> bool {
        self.opened_at(Kind::Source).is_some() && self.opened_at(Kind::Sink).is_some()
    }

    fn open_for(&self) -> Option<Duration> {
        let (source, sink) = (self.opened_at(Kind::Source)?, self.opened_at(Kind::Sink)?);
        Some(source.max(sink).elapsed())
    }

    /// Ends the session: both threads leave at their next step.
    fn end_now(&self) {
        self.abort.raise();
        self.link.close();
    }

    /// A thread leaves before it is done. To be called before it closes its instance, which may take its time.
    pub(super) fn leave(&self, end: Kind, leave: Leave) {
        if let Leave::Failed { error, exhausted } = leave {
            self.fail(Failure { end, error, exhausted });
        }
        self.end_now();
    }

    fn fail(&self, failure: Failure) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *first {
            None if !self.abort.is_raised() => *first = Some((failure, self.stop.is_raised())),
            // Whoever is fenced often loses its connections as well, and hears of that first; this says what it means.
            Some((first, _)) if failure.error.kind() == ErrorKind::Fenced && would_reopen(first) => {
                warn!(end = end_name(first.end), error = %first.error, "failed before it turned out to be fenced");
                *first = failure;
            }
            _ => warn!(
                end = end_name(failure.end),
                kind = failure.error.kind().name(),
                error = %failure.error,
                "failed while the session was ending"
            ),
        }
    }

    fn cancel(&self) {
        for end in [&self.source, &self.sink] {
            let canceller = end.canceller.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(canceller) = canceller {
                canceller.cancel();
            }
        }
    }
}

fn would_reopen(failure: &Failure) -> bool {
    !failure.exhausted && matches!(reaction(failure.end, failure.error.kind()), Reaction::Reopen | Reaction::RetryCall)
}

/// What a thread does; `Some` where it ends the task.
type Body = fn(&Task, &Session) -> Option<Done>;

/// Runs one session to its end.
pub(super) fn run(task: &Arc<Task>, stop: &Stop) -> Ended {
    let session = Arc::new(Session {
        link: Link::new(task.memory.queue),
        stop: stop.clone(),
        abort: Stop::default(),
        progressed: AtomicBool::new(false),
        failure: Mutex::new(None),
        finished: Mutex::new(None),
        source: End::default(),
        sink: End::default(),
        calls: Arc::new(Calls::new(task.stalled_after)),
    });
    task.status.session(Some(Arc::clone(&session.calls)));
    let (sender, receiver) = mpsc::channel();
    let mut watch = Watch { task, session: &session, running: Vec::new(), done: None, said: Vec::new() };
    let bodies: [(Kind, Body); 2] = [(Kind::Sink, sink::run), (Kind::Source, source::run)];
    for (kind, body) in bodies {
        match spawn(kind, body, task, &session, sender.clone()) {
            Ok(()) => watch.running.push(kind),
            Err(error) => session.leave(kind, Leave::Failed { error, exhausted: false }),
        }
    }
    drop(sender);
    watch.until_left(&receiver);
    task.status.session(None);
    // An instance that does not close keeps nobody from being done.
    let done = watch.done.or(session.is_finished().map(|(done, _)| done));
    let lived = session.open_for().is_some_and(|open_for| open_for >= task.retry.max);
    let failure = session.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (outcome, while_stopping) = match (failure, done) {
        (Some((failure, while_stopping)), _) => (Err(failure), while_stopping),
        (None, Some(done)) => (Ok(done), false),
        (None, None) => {
            let error = Error::internal("a session ended without saying why");
            (Err(Failure { end: Kind::Source, error, exhausted: false }), false)
        }
    };
    Ended { outcome, progressed: lived || session.progressed.load(Ordering::Relaxed), while_stopping }
}

/// Starts a thread; it sends what it ended with.
fn spawn(
    kind: Kind,
    body: Body,
    task: &Arc<Task>,
    session: &Arc<Session>,
    sender: mpsc::Sender<(Kind, Option<Done>)>,
) -> Result<(), Error> {
    let (task, session) = (Arc::clone(task), Arc::clone(session));
    let name = format!("{}-{}-{}", task.info.connector, task.info.task, end_name(kind));
    let main = move || {
        let done = catch_unwind(AssertUnwindSafe(|| task.span.in_scope(|| body(&task, &session))));
        let done = done.unwrap_or_else(|_| {
            let error = Error::internal(format!("the host's {} thread panicked", end_name(kind)));
            session.leave(kind, Leave::Failed { error, exhausted: false });
            None
        });
        // Nobody listens any more once the watcher has given this thread up as wedged.
        let _ = sender.send((kind, done));
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(main)
        .map(drop)
        .map_err(|error| Error::unavailable(format!("cannot start the {} thread", end_name(kind))).with_source(error))
}

/// The watcher's view of a session.
struct Watch<'a> {
    task: &'a Task,
    session: &'a Session,
    running: Vec<Kind>,
    done: Option<Done>,
    /// The stalled calls that were spoken of: whose, when it began, when that was said.
    said: Vec<(Kind, Instant, Instant)>,
}

impl Watch<'_> {
    fn until_left(&mut self, receiver: &mpsc::Receiver<(Kind, Option<Done>)>) {
        let mut cancelled = false;
        while !self.running.is_empty() {
            match receiver.recv_timeout(LOOK) {
                Ok((kind, done)) => {
                    self.running.retain(|running| *running != kind);
                    // The sink has no say in it: it is done once the link is finished.
                    if kind == Kind::Source {
                        self.done = self.done.or(done);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let (Some(since), None) = (self.session.stop.since(), self.session.abort.since()) {
                self.hurry(since.elapsed());
            }
            self.speak_of_stalled_calls();
            let Some(over) = self.over() else { continue };
            // An instance that is being closed has had its time before it counts as over.
            let patience = if self.session.is_finished().is_some() { Duration::ZERO } else { PATIENCE };
            if !cancelled && over >= patience.min(self.task.grace) {
                self.session.cancel();
                cancelled = true;
            }
            if self.gives_up(over) {
                self.wedged();
                return;
            }
        }
    }

    /// How long the session has been over; `None` while its instances have time.
    fn over(&self) -> Option<Duration> {
        if let Some(since) = self.session.abort.since() {
            return Some(since.elapsed());
        }
        let (_, since) = self.session.is_finished()?;
        match self.session.stop.since() {
            Some(stop) => stop.elapsed().checked_sub(self.task.grace.mul_f64(STOP_BY)),
            None => since.elapsed().checked_sub(self.task.grace),
        }
    }

    /// Says what does not come back, again and again. It is not ended from here: a plugin's requests have time-outs of their
    /// own, after which it knows better what has become of them than whoever cancels.
    fn speak_of_stalled_calls(&mut self) {
        for end in [Kind::Source, Kind::Sink] {
            let Some((call, began, running)) = self.session.calls.stalled(end) else { continue };
            let before = self.said.iter().position(|(of, since, _)| (*of, *since) == (end, began));
            match before {
                Some(index) if self.said[index].2.elapsed() < self.task.stalled_after => continue,
                Some(index) => self.said[index].2 = Instant::now(),
                None => {
                    self.task.status.stalled(end);
                    self.said.retain(|(of, ..)| *of != end);
                    self.said.push((end, began, Instant::now()));
                }
            }
            warn!(
                end = end_name(end),
                call,
                running_s = running.as_secs_f64(),
                "stalled: waiting for a call to return"
            );
        }
    }

    /// The task was asked to stop this long ago and is not yet done.
    fn hurry(&mut self, since: Duration) {
        if self.session.is_finished().is_some() {
            // Everything is flushed: closing has what is left of the grace period.
            return;
        }
        if !self.session.both_open() {
            // Nothing was written, so there is nothing to flush, and an `open` has no canceller.
            if since >= PATIENCE.min(self.task.grace.mul_f64(0.5)) {
                self.done = Some(Done::Stopped);
                self.session.end_now();
            }
        } else if since >= self.task.grace.mul_f64(STOP_BY) {
            let mut message = format!(
                "not everything was flushed within {:.1} s of the stop; the rest will be read again",
                since.as_secs_f64()
            );
            // The source's thread has to leave its call before anything can be flushed; if it is in none that takes long, it
            // waits for the sink.
            let end = match self.session.calls.running(Kind::Source) {
                Some((call, running)) if running >= since / 2 => {
                    message = format!("{call} has not returned for {:.1} s: {message}", running.as_secs_f64());
                    Kind::Source
                }
                _ => Kind::Sink,
            };
            let error = Error::unavailable(message);
            self.session.leave(end, Leave::Failed { error, exhausted: false });
            self.session.cancel();
        }
    }

    /// Whether waiting for the threads of a session that is over has to end.
    fn gives_up(&self, over: Duration) -> bool {
        match self.session.stop.since() {
            // What hangs in `open` has read and written nothing.
            Some(_) if self.running.iter().all(|kind| self.session.opened_at(*kind).is_none()) => true,
            Some(since) => since.elapsed() >= self.task.grace,
            None => over >= PATIENCE.min(self.task.grace) + self.task.grace,
        }
    }

    fn wedged(&self) {
        for kind in &self.running {
            self.task.status.wedged();
            error!(
                end = end_name(*kind),
                grace_s = self.task.grace.as_secs_f64(),
                "a call ignored its cancellation; the instance is wedged and left behind with its thread"
            );
        }
    }
}
