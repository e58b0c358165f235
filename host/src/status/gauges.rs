//! The gauges that change although nothing happens, or that are a view of the whole status: recorded before a scrape.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use chrono::DateTime;
use metrics::gauge;

use super::{ConnectorSnapshot, HostStatus, STATES, TaskSnapshot};

impl HostStatus {
    /// Records them all.
    pub fn record_gauges(&self) {
        // Two scrapes at once must not leave each other's older values behind.
        let _one_at_a_time = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        for connector in &self.connectors {
            let snapshot = connector.snapshot();
            record_connector(&snapshot);
            for task in &snapshot.tasks {
                record_task(&snapshot.name, task);
            }
        }
    }
}

fn record_connector(connector: &ConnectorSnapshot) {
    for state in STATES {
        let is = if state == connector.state { 1.0 } else { 0.0 };
        let labels = [("connector", connector.name.clone()), ("state", state.name().to_owned())];
        gauge!("philotes_connector_state", &labels).set(is);
    }
    // A stream is as far behind as the last of its partitions.
    let mut lags = BTreeMap::new();
    for stream in connector.tasks.iter().flat_map(|task| &task.streams) {
        // `max` prefers what is known; a gauge that is unknown must not go on showing what it was.
        let most: &mut f64 = lags.entry(&stream.stream).or_insert(f64::NAN);
        *most = most.max(stream.lag_seconds.unwrap_or(f64::NAN));
    }
    for (stream, lag) in lags {
        let labels = [("connector", connector.name.clone()), ("stream", stream.clone())];
        gauge!("philotes_lag_seconds", &labels).set(lag);
    }
}

fn record_task(connector: &str, task: &TaskSnapshot) {
    let labels = [("connector", connector.to_owned()), ("task", task.task.to_string())];
    gauge!("philotes_retry_attempts", &labels).set(f64::from(task.attempts));
    gauge!("philotes_next_retry_timestamp_seconds", &labels).set(seconds(task.next_retry.as_deref()));
    gauge!("philotes_next_restart_timestamp_seconds", &labels).set(seconds(task.next_restart.as_deref()));
    for end in ["source", "sink"] {
        let running = task.calls.iter().find(|call| call.end == end).map_or(0.0, |call| call.running_seconds);
        let [connector, task] = labels.clone();
        gauge!("philotes_call_running_seconds", &[connector, task, ("end", end.to_owned())]).set(running);
    }
}

/// Since 1970; zero for never.
fn seconds(time: Option<&str>) -> f64 {
    let time = time.and_then(|time| DateTime::parse_from_rfc3339(time).ok());
    #[expect(clippy::cast_precision_loss, reason = "exact for the next hundred thousand years")]
    time.map_or(0.0, |time| time.timestamp_millis() as f64 / 1000.0)
}
