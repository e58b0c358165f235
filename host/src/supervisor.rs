//! Keeps a task running: what happens once it FAILED.
//!
//! Only failures that time may heal are restarted. Wrong configuration, data that cannot be written and bugs stay FAILED, with
//! the reason in the log and in the status; the other connectors go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use philotes_sdk::Error;
use tracing::{error, info};

use crate::config::RestartPolicy;
use crate::error_policy::hint;
use crate::plugin::Kind;
use crate::status::end_name;
use crate::stop::Stop;
use crate::task::retry::delay;
use crate::task::{self, Done, Failure, Task};

/// Runs a task until it is done, stopped, or FAILED for good; whether it ended well.
pub(crate) fn supervise(task: &Arc<Task>, restart: &RestartPolicy, stop: &Stop) -> bool {
    let _in_span = task.span.enter();
    let mut restarts = 0;
    loop {
        let (commits, standbys) = (task.status.snapshot().commits, task.status.standbys());
        let outcome = catch_unwind(AssertUnwindSafe(|| task::run(task, stop)));
        let failure = match outcome {
            Ok(Ok(done)) => {
                ended(task, done);
                return true;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure { end: Kind::Source, error: Error::internal("the host panicked"), exhausted: false },
        };
        task.status.failed(failure.end, &failure.error);
        let kind = failure.error.kind();
        error!(
            end = end_name(failure.end),
            kind = kind.name(),
            error = %failure.error,
            hint = hint(kind),
            "FAILED"
        );
        // A standby has nothing to commit: it did what it is there for.
        if task.status.snapshot().commits > commits || task.status.standbys() > standbys {
            restarts = 0;
        }
        // A run until idle wants an end, not another try in ten minutes.
        let again = failure.exhausted
            && restart.on_failure
            && !task.until_idle
            && restarts < restart.attempts
            && !stop.is_raised();
        if !again {
            task.status.stays_failed();
            return false;
        }
        restarts += 1;
        let wait = delay(restart.initial, restart.max, restarts);
        task.status.restarts_after(wait);
        info!(restarts, restart_in_s = wait.as_secs_f64(), "will be restarted");
        if stop.sleep(wait) {
            task.status.stays_failed();
            return false;
        }
    }
}

fn ended(task: &Task, done: Done) {
    match done {
        Done::Finished => task.status.finished(),
        Done::Stopped => task.status.stopped(),
    }
}
