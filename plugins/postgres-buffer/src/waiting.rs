//! Makes it visible that the buffer cannot be read: a lock on it keeps the reader waiting without
//! an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use philotes_sdk::{Result, TaskContext};
use tokio_postgres::Client;

use crate::connect::{Connector, failed};

/// How long the server may say nothing before it is told, and how often after that.
const SILENCE: Duration = Duration::from_secs(10);

/// What holds the server process of the reader up.
const BLOCKERS: &str = "SELECT string_agg(format('server process %s (%s, %s, %s)', a.pid, a.usename, \
    quote_literal(a.application_name), a.state || ' for ' || date_trunc('second', clock_timestamp() - a.state_change)), ', ') \
    FROM unnest(pg_blocking_pids($1)) AS b (pid) JOIN pg_stat_activity a USING (pid)";

/// Watches the reader's waits.
pub(crate) struct Waiting {
    pub(crate) connector: Arc<Connector>,
    pub(crate) context: TaskContext,
    /// The server process of the reader.
    pub(crate) process: i32,
}

impl Waiting {
    /// Runs `work`, and says every now and then that the server does not answer, and because of
    /// whom.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let begun = Instant::now();
        let mut told = false;
        loop {
            if let Ok(output) = tokio::time::timeout(SILENCE, &mut work).await {
                if told {
                    self.context.gauge("philotes_buffer_waiting_seconds", 0.0, &[]);
                    tracing::info!(waited_s = begun.elapsed().as_secs(), "the buffer can be read again");
                }
                return output;
            }
            told = true;
            let waited = begun.elapsed();
            self.context.gauge("philotes_buffer_waiting_seconds", waited.as_secs_f64(), &[]);
            let held_by = match self.blockers().await {
                Ok(Some(blockers)) => blockers,
                Ok(None) => "no lock; the server itself is slow".to_owned(),
                Err(error) => format!("unknown: {error}"),
            };
            tracing::warn!(
                waited_s = waited.as_secs(),
                held_by,
                "the buffer cannot be read: the server does not answer"
            );
        }
    }

    async fn blockers(&self) -> Result<Option<String>> {
        let role = format!("philotes {} look", self.context.info().connector);
        let client: Arc<Client> = self.connector.open(&role, "SET statement_timeout = '5s'").await?.spawn(|_| {});
        let row = client.query_one(BLOCKERS, &[&self.process]).await.map_err(|e| failed("cannot look at locks", e))?;
        Ok(row.get(0))
    }
}
