//! The source itself: opens the sessions, starts the tasks, and stands between them and the host.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use philotes_sdk::{
    Action, ActionOutput, Error, Offset, Poll, Result, Source, StreamDescription, StreamOffset, StreamPartition,
    TaskContext,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::acknowledge::{Acknowledger, Ledger};
use crate::claim::{self, Claim};
use crate::config::{Config, Settings, faults};
use crate::connect::{Connector, failed};
use crate::reader::{Parts, Reader};
use crate::ready::{Event, Ready};
use crate::registrar::Registrar;
use crate::waiting::Waiting;
use crate::{actions, sample, sql};

/// What the pipeline holds at most, however much the host allows: a dozen batches keep the sink busy.
const MOST_MEMORY: u64 = 64 << 20;
/// Closed batches between reader and registrar.
const CLOSED_BATCHES: usize = 16;
/// How soon a waiting poll notices that it was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(100);
/// A poll that found nothing waits this long for a snapshot even where its time-out is shorter: only a snapshot begun
/// within the poll can say that all was delivered.
const LEAST_WAIT: Duration = Duration::from_millis(250);

/// Settings of the sessions. What is written must be on disk before it is relied on.
const CONTROL: &str = "SET synchronous_commit = on; SET statement_timeout = '10min'; SET lock_timeout = '1min'; \
    SET idle_session_timeout = 0; SET enable_seqscan = off; SET jit = off";
const REGISTRAR: &str = "SET synchronous_commit = on; SET statement_timeout = '1min'; SET idle_session_timeout = 0";
/// A snapshot that is read slowly holds back vacuum, so that it has a limit, too.
const READER: &str = "SET default_transaction_read_only = on; SET statement_timeout = '10min'; \
    SET idle_session_timeout = 0; SET standard_conforming_strings = on; SET jit = off";
/// With the index that polls read by, no other plan is wanted, whatever the statistics say.
const READ_BY_INDEX: &str = "; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off";

/// The source `postgres-buffer`.
pub struct PostgresBuffer {
    claim: Claim,
    context: TaskContext,
    ready: Arc<Ready>,
    ledger: Arc<Ledger>,
    acknowledger: Acknowledger,
    /// The reader, the registrar and the acknowledger; aborted when this is dropped.
    tasks: JoinSet<()>,
}

#[async_trait]
impl Source for PostgresBuffer {
    const NAME: &'static str = "postgres-buffer";
    const DOC: &'static str = "Reads the CDC buffer table that Philotes writers fill in PostgreSQL.";
    type Config = Config;

    fn validate(config: &Config) -> Vec<String> {
        faults(config)
    }

    async fn check(config: Config, context: TaskContext) -> Result<()> {
        let settings = Settings::new(config)?;
        let role = format!("philotes {} check", context.info().connector);
        let client = connector(&settings)?.open(&role, CONTROL).await?.spawn(|_| {});
        claim::inspect(&client).await.map(|_| ())
    }

    async fn open(config: Config, context: TaskContext) -> Result<Self> {
        let settings = Settings::new(config)?;
        let name = context.info().connector.clone();
        let memory = match context.info().max_memory {
            0 => MOST_MEMORY,
            limit => limit.min(MOST_MEMORY),
        };
        let ready = Arc::new(Ready::new(usize::try_from(memory).unwrap_or(usize::MAX)));
        let connector = Arc::new(connector(&settings)?.renewed(context.info().renewed));
        let lost = || {
            let ready = Arc::clone(&ready);
            move |error| ready.fail(error)
        };

        let control = connector.open(&format!("philotes {name} acknowledge"), CONTROL).await?.spawn(lost());
        let inspected = claim::inspect(&control).await?;
        claim::lock(&control, &settings.config.source_id).await?;
        let register = connector.open(&format!("philotes {name} register"), REGISTRAR).await?.spawn(lost());
        let by_index = if inspected.indexed { READ_BY_INDEX } else { "" };
        if !inspected.indexed {
            tracing::warn!(
                "the buffer has no index on (source_id, id) where processed_at is null: polls wade through processed rows; \
                 the source's action `init` adds it"
            );
        }
        let listen = format!("{READER}{by_index}; LISTEN {}", sql::CHANNEL);
        let mut session = connector.open(&format!("philotes {name} read"), &listen).await?;
        let reader = Arc::clone(&session.client);
        let process = session.drive(reader.query_one("SELECT pg_backend_pid()", &[])).await?;
        let process = process.map_err(|e| failed("cannot set up the session", e))?.get(0);
        let waiting = Waiting { connector: Arc::clone(&connector), context: context.clone(), process };
        // Last, when all that could fail has not: whoever claimed before is fenced from here on.
        let claim = claim::claim(&control, &settings.config.source_id, &name, inspected).await?;
        tracing::info!(source_id = claim.source_id, epoch = claim.epoch.counter, "claimed the buffer's source_id");

        let ledger = Arc::new(Ledger::default());
        let (closed, batches) = mpsc::channel(CLOSED_BATCHES);
        let acknowledger = Acknowledger {
            client: control,
            claim: claim.clone(),
            mode: settings.config.acknowledge,
            retention: settings.retention,
            unrouted: settings.config.unrouted,
            context: context.clone(),
        };
        let registrar = Registrar {
            client: register,
            claim: claim.clone(),
            ready: Arc::clone(&ready),
            ledger: Arc::clone(&ledger),
        };
        let reader = Reader::new(Parts {
            session,
            settings,
            claim: claim.clone(),
            context: context.clone(),
            ready: Arc::clone(&ready),
            ledger: Arc::clone(&ledger),
            closed,
            waiting,
        })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(watch(Arc::clone(&ready), registrar.run(batches)));
        tasks.spawn(watch(Arc::clone(&ready), acknowledger.clone().run(Arc::clone(&ledger), Arc::clone(&ready))));
        tasks.spawn(watch(Arc::clone(&ready), reader.run()));
        Ok(Self { claim, context, ready, ledger, acknowledger, tasks })
    }

    async fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll> {
        self.ready.limit_batches(max_bytes);
        let begun = Instant::now();
        let mut asked = false;
        loop {
            let changed = self.ready.changed.notified();
            match self.ready.take()? {
                Some(Event::Batch(batch)) => return Ok(Poll::Batch(*batch)),
                Some(Event::Announce(streams)) => return Ok(Poll::Announce(streams)),
                None => {}
            }
            let caught_up = self.ready.caught_up(begun);
            let waited = begun.elapsed();
            // The first poll that finds nothing says so at once; later ones wait for something to happen.
            let patience = if asked { timeout.max(LEAST_WAIT) } else { timeout };
            if waited >= patience || (asked && caught_up) || self.context.is_cancelled() {
                return Ok(Poll::Idle { caught_up });
            }
            if !caught_up {
                asked |= self.ready.ask();
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep((patience - waited).min(CANCEL_CHECK)) => {}
            }
        }
    }

    async fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
        self.acknowledger.resume(&at.stream, offset).await?;
        self.ready.answer(&at.stream);
        Ok(())
    }

    async fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
        self.ledger.commit(&self.claim, offsets)
    }

    async fn close(mut self, timeout: Duration) -> Result<()> {
        // What is not acknowledged in time will be by the next start's `resume`.
        let finished = tokio::time::timeout(timeout, self.ledger.finished()).await;
        if finished != Ok(true) {
            tracing::info!("closed before everything was acknowledged; the next start goes on with it");
        }
        self.tasks.shutdown().await;
        // The lock goes with the session, but the server may take a moment to notice that.
        let unlock = self.acknowledger.client.batch_execute("SELECT pg_advisory_unlock_all()");
        let _ = tokio::time::timeout(Duration::from_secs(1), unlock).await;
        Ok(())
    }

    async fn streams(config: Config, context: TaskContext) -> Result<Vec<StreamDescription>> {
        sample::streams(Settings::new(config)?, &context).await
    }

    fn actions() -> Vec<Action> {
        actions::list()
    }

    async fn act(
        config: Config,
        context: TaskContext,
        action: &str,
        arguments: serde_json::Value,
    ) -> Result<ActionOutput> {
        let settings = Settings::new(config)?;
        let role = format!("philotes {} {action}", context.info().connector);
        let client = connector(&settings)?.open(&role, CONTROL).await?.spawn(|_| {});
        actions::act(&client, &settings, action, &arguments).await
    }
}

fn connector(settings: &Settings) -> Result<Connector> {
    Connector::new("dsn", &settings.config.dsn, &settings.config)
}

/// Runs a task; its end is the instance's, and its error what the next poll says.
async fn watch(ready: Arc<Ready>, task: impl Future<Output = Result<()>>) {
    let error = match AssertUnwindSafe(task).catch_unwind().await {
        Ok(Err(error)) => error,
        Ok(Ok(())) => Error::unavailable("a task of the source has ended"),
        // Its message is in the host's log already.
        Err(_) => Error::internal("a task of the source panicked"),
    };
    ready.fail(error);
}
