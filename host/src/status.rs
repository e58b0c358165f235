//! What the host knows about its running connectors: for /status, /metrics, the live line and the summary.
//!
//! The tasks report here, batch by batch at the finest; nothing here decides anything.

mod calls;
mod gauges;
mod progress;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use metrics::{counter, gauge, histogram};
use philotes_sdk::{Committed, Error, ErrorKind, StreamPartition};
use serde::Serialize;

use crate::plugin::Kind;
pub use calls::CallSnapshot;
pub(crate) use calls::Calls;
use progress::{Heard, StreamProgress};

/// All connectors of a host.
pub struct HostStatus {
    started: DateTime<Utc>,
    connectors: Vec<Arc<ConnectorStatus>>,
    recording: Mutex<()>,
}

/// One connector.
pub struct ConnectorStatus {
    /// Its name.
    pub name: String,
    file: PathBuf,
    source: String,
    sink: String,
    tasks: Vec<Arc<TaskStatus>>,
}

/// One task; its threads write, everybody reads.
pub struct TaskStatus {
    connector: String,
    task: u32,
    inner: Mutex<Inner>,
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Opening source and sink.
    Opening,
    /// Another task holds the source; this one waits for as long as it takes.
    Standby,
    /// Moving rows, or waiting for some.
    Running,
    /// A call of the sink failed and will be repeated, or source and sink will be opened again.
    Retrying,
    /// Retries are exhausted, or retrying cannot help.
    Failed,
    /// Stopped as asked, everything committed.
    Stopped,
    /// The source is drained and everything is committed.
    Finished,
}

/// The worst first; a connector is finished only once all its tasks are.
const STATES: [State; 7] =
    [State::Failed, State::Retrying, State::Opening, State::Standby, State::Running, State::Stopped, State::Finished];

impl State {
    /// As /status prints it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Standby => "standby",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
        }
    }
}

#[derive(Default)]
struct Inner {
    state: Option<State>,
    attempts: u32,
    restarts: u32,
    fences: u32,
    last_error: Option<LastError>,
    next_retry: Option<DateTime<Utc>>,
    next_restart: Option<DateTime<Utc>>,
    /// Of the session that runs now.
    calls: Option<Arc<Calls>>,
    last_commit: Option<DateTime<Utc>>,
    commits: u64,
    /// What the source has said in this session.
    heard: Heard,
    /// How often it was found that another task holds the source.
    standbys: u64,
    wedged: u32,
    queue_bytes: u64,
    streams: BTreeMap<StreamPartition, StreamProgress>,
}

/// The last error of a task.
#[derive(Clone, Debug, Serialize)]
pub struct LastError {
    /// Its kind.
    pub kind: &'static str,
    /// Source or sink.
    pub end: &'static str,
    /// What it says.
    pub message: String,
    /// When.
    pub at: String,
}

/// A host's status at one moment, as /status prints it.
#[derive(Serialize)]
pub struct HostSnapshot {
    version: &'static str,
    started: String,
    connectors: Vec<ConnectorSnapshot>,
}

/// A connector's status at one moment.
#[derive(Serialize)]
pub struct ConnectorSnapshot {
    /// Its name.
    pub name: String,
    file: PathBuf,
    source: String,
    sink: String,
    /// The worst of its tasks'.
    pub state: State,
    /// A call of one of its tasks does not come back.
    pub stalled: bool,
    /// Of its tasks together.
    pub read_rows: u64,
    /// Of its tasks together.
    pub committed_rows: u64,
    /// The largest of its streams'; `None` where unknown.
    pub lag_seconds: Option<f64>,
    /// The latest of its tasks'.
    pub last_commit: Option<String>,
    /// Its tasks.
    pub tasks: Vec<TaskSnapshot>,
}

/// A task's status at one moment.
#[derive(Serialize)]
pub struct TaskSnapshot {
    task: u32,
    /// What it is doing.
    pub state: State,
    /// Failures in a row.
    pub attempts: u32,
    /// Restarts after FAILED, the one that is waited for included.
    pub restarts: u32,
    /// How often another task was found to have taken over.
    pub fences: u32,
    /// The last error, also after it was overcome.
    pub last_error: Option<LastError>,
    /// When it will be tried again.
    pub next_retry: Option<String>,
    /// When it will be started again after FAILED.
    pub next_restart: Option<String>,
    /// The calls of source and sink that are under way.
    pub calls: Vec<CallSnapshot>,
    /// When the sink last committed.
    pub last_commit: Option<String>,
    /// How many commits.
    pub commits: u64,
    /// The source has delivered everything there was.
    pub caught_up: bool,
    /// Instances that ignored cancel and were let go.
    pub wedged: u32,
    queue_bytes: u64,
    /// The streams it has seen.
    pub streams: Vec<StreamSnapshot>,
}

/// A stream's status at one moment.
#[derive(Serialize)]
pub struct StreamSnapshot {
    /// The source's name of it.
    pub stream: String,
    partition: String,
    /// Rows the source delivered.
    pub read_rows: u64,
    /// Rows durable in the sink.
    pub committed_rows: u64,
    /// Records that could not be written and were kept as dead letters, durable in the sink.
    pub dead_letters: u64,
    /// Rows on their way.
    pub uncommitted_rows: u64,
    /// How old the oldest change is that is not durable in the sink, 0 where nothing waits; `None` where unknown.
    pub lag_seconds: Option<f64>,
    /// How many records of it are not in the sink yet; `None` where the source does not count them, or another task reads it.
    pub lag_records: Option<u64>,
    /// When the sink last committed rows of it.
    pub last_commit: Option<String>,
}

impl HostStatus {
    /// The status of these connectors.
    pub fn new(connectors: Vec<Arc<ConnectorStatus>>) -> Self {
        Self { started: Utc::now(), connectors, recording: Mutex::default() }
    }

    /// Each connector's status.
    pub fn connectors(&self) -> &[Arc<ConnectorStatus>] {
        &self.connectors
    }

    /// All of it now.
    pub fn snapshot(&self) -> HostSnapshot {
        HostSnapshot {
            version: env!("CARGO_PKG_VERSION"),
            started: print_time(self.started),
            connectors: self.connectors.iter().map(|connector| connector.snapshot()).collect(),
        }
    }
}

impl ConnectorStatus {
    /// The status of a connector with these tasks.
    pub fn new(name: &str, file: PathBuf, source: &str, sink: &str, tasks: Vec<Arc<TaskStatus>>) -> Self {
        Self { name: name.to_owned(), file, source: source.to_owned(), sink: sink.to_owned(), tasks }
    }

    /// All of it now.
    pub fn snapshot(&self) -> ConnectorSnapshot {
        let tasks: Vec<TaskSnapshot> = self.tasks.iter().map(|task| task.snapshot()).collect();
        let streams = || tasks.iter().flat_map(|task| &task.streams);
        ConnectorSnapshot {
            name: self.name.clone(),
            file: self.file.clone(),
            source: self.source.clone(),
            sink: self.sink.clone(),
            state: STATES
                .into_iter()
                .find(|state| tasks.iter().any(|task| task.state == *state))
                .unwrap_or(State::Opening),
            stalled: tasks.iter().flat_map(|task| &task.calls).any(|call| call.stalled),
            read_rows: streams().map(|stream| stream.read_rows).sum(),
            committed_rows: streams().map(|stream| stream.committed_rows).sum(),
            lag_seconds: streams().filter_map(|stream| stream.lag_seconds).reduce(f64::max),
            last_commit: tasks.iter().filter_map(|task| task.last_commit.clone()).max(),
            tasks,
        }
    }
}

impl TaskStatus {
    /// A task that has not begun.
    pub fn new(connector: &str, task: u32) -> Self {
        Self { connector: connector.to_owned(), task, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        let mut inner = self.inner();
        inner.state = Some(state);
        if state != State::Retrying {
            inner.next_retry = None;
        }
        if state != State::Failed {
            inner.next_restart = None;
        }
        drop(inner);
        let connector = self.connector.clone();
        let up = if state == State::Running { 1.0 } else { 0.0 };
        gauge!("philotes_task_running_count", "connector" => connector.clone(), "task" => self.task.to_string())
            .set(up);
        let failed = if state == State::Failed { 1.0 } else { 0.0 };
        gauge!("philotes_task_failed_count", "connector" => connector, "task" => self.task.to_string()).set(failed);
    }

    pub(crate) fn opening(&self) {
        self.set(State::Opening);
    }

    /// Both ends are open; whether another task held one of them before.
    pub(crate) fn running(&self) -> bool {
        let stood_by = self.inner().state == Some(State::Standby);
        self.set(State::Running);
        stood_by
    }

    /// Another task holds what this one needs, as the error says. Nothing failed.
    pub(crate) fn standby(&self, end: Kind, error: &Error) {
        let mut inner = self.inner();
        inner.standbys += 1;
        inner.attempts = 0;
        inner.last_error = Some(last_error(end, error));
        drop(inner);
        self.set(State::Standby);
    }

    /// How often it was found that another task holds what this one needs.
    pub(crate) fn standbys(&self) -> u64 {
        self.inner().standbys
    }

    pub(crate) fn stopped(&self) {
        self.set(State::Stopped);
    }

    pub(crate) fn finished(&self) {
        self.set(State::Finished);
    }

    /// A failed call will be repeated, or both ends opened again, after `wait`.
    pub(crate) fn retrying(&self, end: Kind, error: &Error, attempts: u32, wait: Duration) {
        self.error(end, error);
        {
            let mut inner = self.inner();
            inner.attempts = attempts;
            inner.next_retry = Some(Utc::now() + wait);
        }
        counter!("philotes_retries_total", "connector" => self.connector.clone(), "kind" => error.kind().name())
            .increment(1);
        self.set(State::Retrying);
    }

    /// What was retried works again.
    pub(crate) fn recovered(&self) {
        let mut inner = self.inner();
        let was_retrying = inner.state == Some(State::Retrying);
        inner.attempts = 0;
        drop(inner);
        if was_retrying {
            self.set(State::Running);
        }
    }

    pub(crate) fn failed(&self, end: Kind, error: &Error) {
        self.error(end, error);
        self.set(State::Failed);
    }

    /// FAILED, and it will be started again after `wait`.
    pub(crate) fn restarts_after(&self, wait: Duration) {
        let mut inner = self.inner();
        inner.restarts += 1;
        inner.next_restart = Some(Utc::now() + wait);
        counter!("philotes_restarts_total", "connector" => self.connector.clone()).increment(1);
    }

    /// FAILED, and it stays so.
    pub(crate) fn stays_failed(&self) {
        self.inner().next_restart = None;
    }

    /// A session begins, whose calls these are, or ends.
    pub(crate) fn session(&self, calls: Option<Arc<Calls>>) {
        self.inner().calls = calls;
    }

    /// A call has been running for longer than calls should.
    pub(crate) fn stalled(&self, end: Kind) {
        counter!("philotes_stalled_calls_total", "connector" => self.connector.clone(), "end" => end_name(end))
            .increment(1);
    }

    fn error(&self, end: Kind, error: &Error) {
        let mut inner = self.inner();
        inner.fences += u32::from(error.kind() == ErrorKind::Fenced);
        inner.last_error = Some(last_error(end, error));
        drop(inner);
        counter!("philotes_errors_total", "connector" => self.connector.clone(), "kind" => error.kind().name())
            .increment(1);
    }

    /// An instance ignored cancel and was let go.
    pub(crate) fn wedged(&self) {
        self.inner().wedged += 1;
        counter!("philotes_wedged_instances_total", "connector" => self.connector.clone()).increment(1);
    }

    /// A new session: what was read and not committed is dropped, and read again.
    pub(crate) fn drop_uncommitted(&self) {
        let mut inner = self.inner();
        inner.queue_bytes = 0;
        let heard = std::mem::take(&mut inner.heard);
        for progress in inner.streams.values_mut() {
            progress.drop_uncommitted(heard);
        }
    }

    /// The source delivered rows.
    pub(crate) fn read(&self, at: &StreamPartition, rows: u64, bytes: u64, newest_micros: i64) {
        {
            let mut inner = self.inner();
            inner.heard.idle = false;
            inner.heard.newest_micros = inner.heard.newest_micros.max(newest_micros);
            inner.stream(at).read(rows, newest_micros);
        }
        let stream = at.stream.to_string();
        counter!("philotes_source_rows_total", "connector" => self.connector.clone(), "stream" => stream.clone())
            .increment(rows);
        counter!("philotes_source_bytes_total", "connector" => self.connector.clone(), "stream" => stream)
            .increment(bytes);
    }

    /// The source says how many records of a partition are not in the sink yet. Names are as they are printed.
    pub(crate) fn lag_records(&self, stream: &str, partition: &str, records: u64) {
        let Ok(stream) = stream.parse() else { return };
        let at = StreamPartition { stream, partition: partition.to_owned() };
        self.inner().stream(&at).lag_records = Some(records);
    }

    /// Another task reads this partition from now on.
    pub(crate) fn revoked(&self, at: &StreamPartition) {
        self.inner().stream(at).revoke();
    }

    /// The source has handed over everything that there was at this moment.
    pub(crate) fn caught_up(&self, at: DateTime<Utc>) {
        let mut inner = self.inner();
        let micros = at.timestamp_micros();
        inner.heard = Heard { caught_up_micros: micros, idle: true, ..inner.heard };
        for progress in inner.streams.values_mut() {
            progress.caught_up();
        }
        if inner.state == Some(State::Running) {
            inner.attempts = 0;
        }
    }

    pub(crate) fn queued(&self, bytes: usize) {
        self.inner().queue_bytes = bytes as u64;
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a double in Prometheus as well")]
        gauge!("philotes_queue_bytes", "connector" => self.connector.clone(), "task" => self.task.to_string())
            .set(bytes as f64);
    }

    /// Rows of a partition became durable.
    pub(crate) fn committed(&self, at: &StreamPartition, rows: u64, newest_micros: i64) {
        let now = Utc::now();
        {
            let mut inner = self.inner();
            inner.last_commit = Some(now);
            inner.attempts = 0;
            inner.stream(at).committed(rows, newest_micros, now);
        }
        let stream = at.stream.to_string();
        counter!("philotes_sink_rows_total", "connector" => self.connector.clone(), "stream" => stream).increment(rows);
        #[expect(clippy::cast_precision_loss, reason = "exact for the next hundred thousand years")]
        gauge!("philotes_last_commit_timestamp_seconds", "connector" => self.connector.clone())
            .set(now.timestamp_millis() as f64 / 1000.0);
    }

    /// So many dead letters of a partition became durable.
    pub(crate) fn dead_letters(&self, at: &StreamPartition, count: u64) {
        self.inner().stream(at).dead_letters += count;
        let stream = at.stream.to_string();
        counter!("philotes_dead_letters_total", "connector" => self.connector.clone(), "stream" => stream)
            .increment(count);
    }

    /// A flush came back, having done these commits.
    pub(crate) fn flushed(&self, took: Duration, commits: &[Committed]) {
        self.inner().commits += commits.len() as u64;
        let connector = || self.connector.clone();
        histogram!("philotes_flush_duration_seconds", "connector" => connector()).record(took.as_secs_f64());
        counter!("philotes_sink_commits_total", "connector" => connector()).increment(commits.len() as u64);
        for commit in commits {
            counter!("philotes_sink_bytes_total", "connector" => connector()).increment(commit.bytes);
            counter!("philotes_sink_files_total", "connector" => connector()).increment(commit.files);
        }
    }

    /// All of it now.
    pub fn snapshot(&self) -> TaskSnapshot {
        let inner = self.inner();
        let now = Utc::now();
        let state = inner.state.unwrap_or(State::Opening);
        TaskSnapshot {
            task: self.task,
            state,
            attempts: inner.attempts,
            restarts: inner.restarts,
            fences: inner.fences,
            last_error: inner.last_error.clone(),
            next_retry: inner.next_retry.map(print_time),
            next_restart: inner.next_restart.map(print_time),
            calls: inner.calls.as_ref().map(|calls| calls.snapshot()).unwrap_or_default(),
            last_commit: inner.last_commit.map(print_time),
            commits: inner.commits,
            caught_up: inner.heard.idle,
            wedged: inner.wedged,
            queue_bytes: inner.queue_bytes,
            streams: inner
                .streams
                .iter()
                .map(|(at, progress)| StreamSnapshot {
                    stream: at.stream.to_string(),
                    partition: at.partition.clone(),
                    read_rows: progress.read_rows,
                    committed_rows: progress.committed_rows,
                    dead_letters: progress.dead_letters,
                    uncommitted_rows: progress.uncommitted_rows,
                    // What another task moves is not behind, as far as this one knows.
                    lag_seconds: progress.lag(inner.heard, now).filter(|_| state != State::Standby),
                    lag_records: progress.lag_records.filter(|_| !progress.revoked),
                    last_commit: progress.last_commit.map(print_time),
                })
                .collect(),
        }
    }
}

impl Inner {
    fn stream(&mut self, at: &StreamPartition) -> &mut StreamProgress {
        if !self.streams.contains_key(at) {
            self.streams.insert(at.clone(), StreamProgress::default());
        }
        self.streams.entry(at.clone()).or_default()
    }
}

fn last_error(end: Kind, error: &Error) -> LastError {
    LastError { kind: error.kind().name(), end: end_name(end), message: error.to_string(), at: print_time(Utc::now()) }
}

/// `source` or `sink`.
pub(crate) fn end_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "source",
        Kind::Sink => "sink",
    }
}

fn print_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
