//! The task over a source and a sink in memory: every arrow of the error table, and what must never happen.

mod errors;
mod flow;
mod stopping;

use std::sync::Arc;
use std::time::Duration;

use philotes_sdk::{Route, TaskInfo};

use super::routing::Routing;
use super::{Done, Failure, Memory, Task, run};
use crate::config::{CommitPolicy, RetryPolicy};
use crate::status::TaskStatus;
use crate::stop::Stop;
use crate::testing::World;

/// A task until idle whose waits are short.
fn task(world: &Arc<World>) -> Task {
    let (source, sink) = world.endpoints();
    Task {
        info: TaskInfo { connector: "test".to_owned(), tasks: 1, ..TaskInfo::default() },
        source,
        sink,
        routing: Routing::default(),
        commit: CommitPolicy { interval: Duration::from_millis(10), max_rows: 1000, max_bytes: 1 << 20 },
        retry: RetryPolicy {
            initial: Duration::from_millis(2),
            max: Duration::from_millis(8),
            elapsed: Duration::from_secs(5),
        },
        stalled_after: Duration::from_secs(30),
        memory: Memory { source: 1 << 20, queue: 1 << 20, sink: 1 << 20 },
        until_idle: true,
        grace: Duration::from_secs(5),
        status: Arc::new(TaskStatus::new("test", 0)),
        span: tracing::Span::none(),
    }
}

fn finish(task: Task) -> Result<Done, Failure> {
    run(&Arc::new(task), &Stop::default())
}

/// Runs a task on a thread of its own.
fn start(task: Task) -> (Stop, std::thread::JoinHandle<Result<Done, Failure>>) {
    let stop = Stop::default();
    let (task, until) = (Arc::new(task), stop.clone());
    (stop, std::thread::spawn(move || run(&task, &until)))
}
