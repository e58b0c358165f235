//! Runs connectors: builds their tasks, supervises each on a thread of its own, and waits for all of them.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use philotes_sdk::{Error, TaskInfo};
use tracing::{error, info, info_span};

use crate::config::ConnectorConfig;
use crate::plugin::Kind;
use crate::status::{ConnectorStatus, HostStatus, State, TaskStatus};
use crate::stop::Stop;
use crate::supervisor::supervise;
use crate::task::routing::Routing;
use crate::task::{Memory, Task};
use philotes_sdk::quantity::print_size;

/// What `philotes run` was told.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// End once every source is drained and all is committed.
    pub until_idle: bool,
    /// How long a stop may take.
    pub grace: Duration,
    /// The memory of all tasks together, in bytes.
    pub max_memory: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { until_idle: false, grace: Duration::from_secs(30), max_memory: 256 << 20 }
    }
}

/// Connectors under way.
pub struct Running {
    status: Arc<HostStatus>,
    threads: Vec<JoinHandle<bool>>,
    started: Instant,
}

/// Starts all connectors.
///
/// # Errors
/// When a source cannot say how many tasks its work splits into, or a thread cannot be started.
pub fn start(connectors: &[ConnectorConfig], options: &RunOptions, stop: &Stop) -> Result<Running, Error> {
    let mut counts = Vec::with_capacity(connectors.len());
    for connector in connectors {
        let tasks = connector.source.connector.tasks(&connector.source.config, connector.tasks);
        counts.push(tasks.map_err(|error| error.context(&connector.name))?.clamp(1, connector.tasks));
    }
    // The even share of those that have no memory of their own.
    let sharing: u32 =
        connectors.iter().zip(&counts).filter(|(connector, _)| connector.max_memory.is_none()).map(|(_, n)| n).sum();
    let even_share = options.max_memory / u64::from(sharing.max(1));
    let mut statuses = Vec::new();
    let mut tasks = Vec::new();
    for (connector, count) in connectors.iter().zip(counts) {
        let memory = connector.max_memory.map_or(even_share, |own| own / u64::from(count));
        let task_statuses: Vec<_> = (0..count).map(|task| Arc::new(TaskStatus::new(&connector.name, task))).collect();
        for (number, status) in (0..count).zip(&task_statuses) {
            tasks.push((connector, build_task(connector, number, count, memory, options, status)));
        }
        info!(
            connector = connector.name,
            source = connector.source.connector.name(),
            sink = connector.sink.connector.name(),
            tasks = count,
            memory_per_task = print_size(memory),
            "starting"
        );
        statuses.push(Arc::new(ConnectorStatus::new(
            &connector.name,
            connector.file.clone(),
            connector.source.connector.name(),
            connector.sink.connector.name(),
            task_statuses,
        )));
    }
    let mut threads = Vec::new();
    for (connector, task) in tasks {
        let (restart, stop) = (connector.restart.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name(format!("{}-{}", task.info.connector, task.info.task))
            .spawn(move || supervise(&task, &restart, &stop))
            .map_err(|error| Error::unavailable("cannot start a thread").with_source(error))?;
        threads.push(thread);
    }
    Ok(Running { status: Arc::new(HostStatus::new(statuses)), threads, started: Instant::now() })
}

fn build_task(
    connector: &ConnectorConfig,
    number: u32,
    count: u32,
    memory: u64,
    options: &RunOptions,
    status: &Arc<TaskStatus>,
) -> Arc<Task> {
    let span = info_span!("task", connector = connector.name, task = number);
    Arc::new(Task {
        info: TaskInfo {
            connector: connector.name.clone(),
            task: number,
            tasks: count,
            max_memory: memory,
            route: connector.route.clone(),
            tolerance: connector.tolerance,
            renewed: false,
        },
        source: connector.source.clone(),
        sink: connector.sink.clone(),
        routing: Routing::new(connector.route.clone(), connector.rename.clone()),
        commit: connector.commit.clone(),
        retry: connector.retry.clone(),
        stalled_after: connector.stalled_after,
        memory: Memory::share(memory),
        until_idle: options.until_idle,
        grace: options.grace,
        status: Arc::clone(status),
        span,
    })
}

impl Running {
    /// What is known of them.
    pub fn status(&self) -> Arc<HostStatus> {
        Arc::clone(&self.status)
    }

    /// Waits until all have ended, and says for each how it went; whether all ended well.
    pub fn wait(self) -> bool {
        let mut all_well = true;
        for thread in self.threads {
            // `supervise` contains its panics; a thread that died all the same has failed.
            all_well &= thread.join().unwrap_or(false);
        }
        let elapsed = self.started.elapsed().as_secs_f64();
        for connector in self.status.connectors() {
            summary(&connector.snapshot(), elapsed);
        }
        all_well
    }
}

fn summary(connector: &crate::status::ConnectorSnapshot, elapsed: f64) {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = (connector.committed_rows as f64 / elapsed.max(0.001)).round();
    let commits: u64 = connector.tasks.iter().map(|task| task.commits).sum();
    let streams = connector.tasks.iter().map(|task| task.streams.len()).sum::<usize>();
    let state = format!("{:?}", connector.state).to_lowercase();
    let uncommitted: u64 =
        connector.tasks.iter().flat_map(|task| &task.streams).map(|stream| stream.uncommitted_rows).sum();
    let last_error = connector.tasks.iter().find_map(|task| task.last_error.as_ref().map(|e| e.message.as_str()));
    let name = connector.name.as_str();
    let seconds = (elapsed * 1000.0).round() / 1000.0;
    if connector.state == State::Failed {
        let error = last_error.unwrap_or_default();
        error!(
            connector = name,
            state,
            rows = connector.committed_rows,
            uncommitted,
            commits,
            streams,
            seconds,
            error,
            "ended"
        );
    } else {
        info!(
            connector = name,
            state,
            rows = connector.committed_rows,
            commits,
            streams,
            seconds,
            rows_per_s = rate,
            "ended"
        );
    }
}

/// The memory that a task of one connector alone would have, for what runs no tasks (`plan`, `action`, `check`).
#[must_use]
pub fn single_task(connector: &ConnectorConfig, end: Kind) -> TaskInfo {
    let memory = Memory::share(connector.max_memory.unwrap_or(RunOptions::default().max_memory));
    let share = match end {
        Kind::Source => memory.source,
        Kind::Sink => memory.sink,
    };
    TaskInfo {
        connector: connector.name.clone(),
        task: 0,
        tasks: 1,
        max_memory: share as u64,
        route: connector.route.clone(),
        tolerance: connector.tolerance,
        renewed: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use philotes_sdk::{ErrorKind, Route};

    use super::*;
    use crate::config::{CommitPolicy, RestartPolicy, RetryPolicy};
    use crate::testing::{Fault, World, stream};

    fn connector(name: &str, world: &Arc<World>) -> ConnectorConfig {
        let (source, sink) = world.endpoints();
        let ms = Duration::from_millis;
        ConnectorConfig {
            name: name.to_owned(),
            file: PathBuf::from("f.yaml"),
            source,
            sink,
            route: Route::default(),
            rename: BTreeMap::new(),
            commit: CommitPolicy { interval: ms(5), ..CommitPolicy::default() },
            tolerance: philotes_sdk::Tolerance::None,
            tasks: 1,
            retry: RetryPolicy { initial: ms(1), max: ms(2), elapsed: ms(20) },
            stalled_after: ms(30_000),
            restart: RestartPolicy { on_failure: true, initial: ms(1), max: ms(5), attempts: 3 },
            max_memory: None,
        }
    }

    fn states(status: &HostStatus) -> Vec<State> {
        status.connectors().iter().map(|connector| connector.snapshot().state).collect()
    }

    #[test]
    fn a_failed_connector_leaves_the_others_running() {
        let (bad, good) = (World::with_rows(10), World::with_rows(10));
        bad.fault("sink.write", 1, 1, Fault::Fail(ErrorKind::Data));
        let stop = Stop::default();
        let connectors = [connector("bad", &bad), connector("good", &good)];
        let running = start(&connectors, &RunOptions::default(), &stop).unwrap();
        let status = running.status();
        good.wait_until("the good one commits", |state| state.acknowledged.get(&stream("t")) == Some(&10));
        while states(&status)[0] != State::Failed {
            std::thread::yield_now();
        }
        good.lock().rows.insert(stream("t"), 25);
        good.wait_until("it goes on", |state| state.acknowledged.get(&stream("t")) == Some(&25));
        assert_eq!(states(&status), [State::Failed, State::Running]);
        stop.raise();
        assert!(!running.wait());
        assert_eq!(states(&status), [State::Failed, State::Stopped]);
        let failed = status.connectors()[0].snapshot();
        assert_eq!(failed.tasks[0].last_error.as_ref().unwrap().kind, "data");
        // Data that cannot be written stays so: it was not tried again.
        assert_eq!((bad.count("source.open"), failed.tasks[0].restarts), (1, 0));
    }

    #[test]
    fn all_well_until_idle() {
        let worlds = [World::with_rows(10), World::with_rows(0)];
        let connectors = [connector("a", &worlds[0]), connector("b", &worlds[1])];
        let options = RunOptions { until_idle: true, ..RunOptions::default() };
        let running = start(&connectors, &options, &Stop::default()).unwrap();
        let status = running.status();
        assert!(running.wait());
        assert_eq!(states(&status), [State::Finished, State::Finished]);
        worlds[0].assert_each_row_once(&[("t", 10)]);
    }

    #[test]
    fn exhausted_retries_are_restarted_so_many_times() {
        let world = World::with_rows(10);
        world.fault("source.open", 1, usize::MAX, Fault::Fail(ErrorKind::Unavailable));
        let running = start(&[connector("a", &world)], &RunOptions::default(), &Stop::default()).unwrap();
        let status = running.status();
        assert!(!running.wait());
        let task = &status.connectors()[0].snapshot().tasks[0];
        assert_eq!((task.state, task.restarts), (State::Failed, 3));
        assert_eq!((&task.next_retry, &task.next_restart), (&None, &None));

        // A run until idle ends instead.
        let world = World::with_rows(10);
        world.fault("source.open", 1, usize::MAX, Fault::Fail(ErrorKind::Unavailable));
        let options = RunOptions { until_idle: true, ..RunOptions::default() };
        let running = start(&[connector("a", &world)], &options, &Stop::default()).unwrap();
        let status = running.status();
        assert!(!running.wait());
        assert_eq!(status.connectors()[0].snapshot().tasks[0].restarts, 0);
    }

    #[test]
    fn a_restarted_task_goes_on() {
        let world = World::with_rows(10);
        let mut connector = connector("a", &world);
        connector.retry.elapsed = Duration::ZERO;
        world.fault("sink.flush", 1, 2, Fault::Fail(ErrorKind::Unavailable));
        let stop = Stop::default();
        let running = start(&[connector], &RunOptions::default(), &stop).unwrap();
        world.wait_until("all is acknowledged", |state| state.acknowledged.get(&stream("t")) == Some(&10));
        stop.raise();
        assert!(running.wait());
        world.assert_each_row_once(&[("t", 10)]);
    }

    #[test]
    fn memory_is_split_evenly_over_tasks() {
        let shares = |total| {
            let memory = Memory::share(total);
            (memory.source, memory.queue, memory.sink)
        };
        assert_eq!(shares(256 << 20), (64 << 20, 16 << 20, 128 << 20));
        assert_eq!(Memory::share(256 << 20).batch(), 8 << 20);
        assert_eq!(Memory::share(16 << 20).batch(), 512 << 10);
    }
}
