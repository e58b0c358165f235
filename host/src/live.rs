//! The live line of each connector on a terminal: rows, rows per second, lag, last commit.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::logging::Terminal;
use crate::status::{ConnectorSnapshot, HostStatus};
use crate::stop::Stop;

/// How often the lines are redrawn.
const REDRAW: Duration = Duration::from_millis(500);

/// The thread that redraws the lines; dropping it removes them.
pub struct Live {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts drawing; does nothing where stderr is no terminal.
    #[must_use]
    pub fn start(terminal: Terminal, status: Arc<HostStatus>) -> Self {
        let stop = Stop::default();
        if !terminal.is_live() {
            return Self { stop, thread: None };
        }
        let until = stop.clone();
        let draw = move || {
            let mut before = vec![0; status.connectors().len()];
            let mut since = Instant::now();
            while !until.sleep(REDRAW) {
                let elapsed = since.elapsed().as_secs_f64();
                since = Instant::now();
                let snapshots = status.connectors().iter().map(|connector| connector.snapshot());
                let lines = snapshots.zip(&mut before).map(|(connector, before)| {
                    let rows = connector.read_rows - std::mem::replace(before, connector.read_rows);
                    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
                    let rate = rows as f64 / elapsed;
                    line(&connector, rate, Utc::now())
                });
                terminal.show(lines.collect());
            }
            terminal.show(Vec::new());
        };
        Self { stop, thread: std::thread::Builder::new().name("live".to_owned()).spawn(draw).ok() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            // It holds nothing but the terminal's lines.
            let _ = thread.join();
        }
    }
}

fn line(connector: &ConnectorSnapshot, rate: f64, now: DateTime<Utc>) -> String {
    let lag = connector.lag_seconds.map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1} s"));
    let last_commit = connector
        .last_commit
        .as_ref()
        .and_then(|at| DateTime::parse_from_rfc3339(at).ok())
        .map_or_else(|| "none yet".to_owned(), |at| format!("{} s ago", (now - at.to_utc()).num_seconds().max(0)));
    let state = format!("{:?}", connector.state).to_lowercase();
    format!(
        "{}  {state}  {} rows committed  {rate:.0} rows/s  lag {lag}  last commit {last_commit}",
        connector.name, connector.committed_rows
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use philotes_sdk::{StreamName, StreamPartition};

    use super::*;
    use crate::status::{ConnectorStatus, TaskStatus};

    #[test]
    fn a_line_says_rows_rate_lag_and_last_commit() {
        let task = Arc::new(TaskStatus::new("shop", 0));
        let status = ConnectorStatus::new("shop", PathBuf::from("f"), "a", "b", vec![Arc::clone(&task)]);
        assert_eq!(
            line(&status.snapshot(), 0.0, Utc::now()),
            "shop  opening  0 rows committed  0 rows/s  lag -  last commit none yet"
        );
        let at = StreamPartition::only(StreamName::new(["public", "t"]).unwrap());
        task.running();
        task.read(&at, 7, 100, 0);
        task.committed(&at, 7, 0);
        task.caught_up(Utc::now());
        assert_eq!(
            line(&status.snapshot(), 12.3, Utc::now()),
            "shop  running  7 rows committed  12 rows/s  lag 0.0 s  last commit 0 s ago"
        );
    }
}
