//! The suite for sources: what a host that restarts, loses acknowledgements and starts twice must be able to rely on.

use std::ops::Range;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::run::Run;
use super::{Check, OrViolation, Outcomes, Unchecked, Violations, describe, ensure, stops, violation};
use crate::{ErrorKind, Offset, Result, Source, StreamName, TaskContext, TaskInfo};

mod run;

/// The clauses of the contract that the suite checks.
pub mod clause {
    /// See the trait's contract.
    pub const ANNOUNCED: &str = "a partition is announced before its first batch";
    /// See the trait's contract.
    pub const ANNOUNCED_ONCE: &str = "a partition is announced once per open, and an announcement names at least one";
    /// See the trait's contract.
    pub const EXACTLY_ONCE: &str = "every row after the offset is delivered, each once";
    /// See the trait's contract.
    pub const ORDER: &str = "the rows of a key are delivered in order";
    /// See [`Offset`](crate::Offset).
    pub const OFFSET: &str = "an offset is JSON of at most 1 KiB";
    /// See [`batch`](crate::batch).
    pub const SHAPE: &str = "a batch carries the reserved columns, and its stream and key as schema metadata";
    /// See [`ChangeBatch::schema_id`](crate::ChangeBatch::schema_id).
    pub const SCHEMA_ID: &str = "a schema id names one schema of its stream and changes with it";
    /// See [`Poll::Idle`](crate::Poll::Idle).
    pub const CAUGHT_UP: &str = "caught up is said as soon as everything available was delivered, and not before";
    /// See [`Source::poll`](crate::Source::poll).
    pub const TIMEOUT: &str = "an idle poll returns within its time-out";
    /// See [`Source::resume`](crate::Source::resume).
    pub const COVERED: &str = "rows that the offset covers are not delivered again";
    /// See [`Source::commit`](crate::Source::commit).
    pub const COMMIT_RETURNS: &str = "commit returns without waiting";
    /// See [`Source::close`](crate::Source::close).
    pub const ACKNOWLEDGED: &str = "exactly what durable offsets cover is acknowledged, by close at the latest";
    /// See [`Source::open`](crate::Source::open).
    pub const ONE_INSTANCE: &str =
        "a second instance waits (unavailable), or the first is fenced and changes nothing more";
    /// See [`Poll::Revoke`](crate::Poll::Revoke).
    pub const SHARED: &str = "instances that share partitions out deliver each row once: what is revoked goes on elsewhere, behind what was durable";
    /// See [`Source::resume`](crate::Source::resume).
    pub const REFUSED: &str =
        "resume refuses an offset that the source does not know, and none where rows were acknowledged";
    /// Nothing is out of reach while the suite runs.
    pub const HEALTHY: &str = "no call fails while everything is healthy";
}

/// Rows with numbers that differ by this have the same key: a row's key is its number modulo this.
pub const KEYS: i64 = 7;

/// The connector's name in every context that the suite hands out.
const CONNECTOR: &str = "conformance";
/// How long an idle poll may wait.
const POLL: Duration = Duration::from_millis(200);
/// How much later than asked a call may return on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// How long anything that must happen in the end may take; in memory everything happens at once.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
const MAX_BYTES: usize = 1 << 20;

/// What the suite must know of a source's system. Nothing else may use the system meanwhile.
///
/// The source runs as the task 0 of 1 of the connector `conformance`. Run the suite on a runtime with timers and I/O.
#[async_trait]
pub trait SourceFixture: Send {
    /// The source.
    type Source: Source;
    /// Several instances share the partitions out, instead of keeping one another out. Both streams then need partitions for two.
    const SHARES: bool = false;

    /// Makes the system, or a part of it that [`config`](Self::config) names from now on, look as if the source had never
    /// seen it, without any row. Called once before each scenario, when no instance is open.
    async fn reset(&mut self) -> Result<()>;

    /// The configuration of an instance.
    fn config(&self) -> <Self::Source as Source>::Config;

    /// The name of stream 0 or 1.
    fn stream(&self, index: usize) -> StreamName;

    /// Puts one change per number into the stream, in order, and returns when they can be read. A change's key is its
    /// number modulo [`KEYS`]. The rows must have a column `n` that is the number, of a type that casts to 64-bit integers.
    async fn put(&mut self, stream: usize, numbers: Range<i64>) -> Result<()>;

    /// How many changes the system holds that no acknowledgement has covered; `None` where it keeps no such state.
    async fn unacknowledged(&mut self) -> Result<Option<u64>>;

    /// Changes put from now on have one more column; `false` where that cannot be.
    async fn add_column(&mut self, stream: usize) -> Result<bool> {
        let _ = stream;
        Ok(false)
    }
}

/// Checks a source; `Ok` names the clauses that the fixture could not provoke.
///
/// # Errors
/// The clauses that do not hold.
pub async fn check_source<F: SourceFixture>(fixture: &mut F) -> Result<Unchecked, Violations> {
    let mut outcomes = Outcomes::default();
    outcomes.add("rows arrive, before and after the source was opened", arrival(fixture).await);
    outcomes.add("a restart after everything was acknowledged", acknowledged(fixture).await);
    outcomes.add("a restart after a part was acknowledged", partly_acknowledged(fixture).await);
    outcomes.add("restarts whose acknowledgement was lost", acknowledgement_lost(fixture).await);
    outcomes.add("a restart before anything was durable", nothing_durable(fixture).await);
    outcomes.add("a second instance opens", second_instance(fixture).await);
    outcomes.add("a sink whose offset does not fit", refused(fixture).await);
    outcomes.end()
}

async fn arrival<F: SourceFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let mut unchecked = Vec::new();
    put(fixture, 0, 0..40).await?;
    let mut run = open::<F>(fixture).await?;
    run.expect(&fixture.stream(0), 0..40);
    run.drain().await?;
    run.idle().await?;

    // Another stream appears, and the first goes on.
    put(fixture, 1, 0..20).await?;
    put(fixture, 0, 40..50).await?;
    run.expect(&fixture.stream(1), 0..20);
    run.expect(&fixture.stream(0), 40..50);
    run.drain().await?;

    if fixture.add_column(0).await.fixture("add_column")? {
        let before = run.columns(&fixture.stream(0));
        put(fixture, 0, 50..60).await?;
        run.expect(&fixture.stream(0), 50..60);
        run.drain().await?;
        let after = run.columns(&fixture.stream(0));
        ensure(after == before + 1, clause::SCHEMA_ID, || {
            format!("a column was added, but the schema went from {before} to {after} columns")
        })?;
    } else {
        unchecked.push(clause::SCHEMA_ID);
    }
    run.idle().await?;
    run.close().await?;
    Ok(unchecked)
}

async fn acknowledged<F: SourceFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    put(fixture, 0, 0..30).await?;
    put(fixture, 1, 0..5).await?;
    let mut run = open::<F>(fixture).await?;
    run.expect(&fixture.stream(0), 0..30);
    run.expect(&fixture.stream(1), 0..5);
    run.drain().await?;
    run.commit(&[]).await?;
    run.commit_all().await?;
    let durable = run.reached();
    run.close().await?;
    let known = still_unacknowledged(fixture, 0).await?;

    let mut run = open::<F>(fixture).await?.resuming(durable);
    run.idle().await?;
    put(fixture, 0, 30..40).await?;
    run.expect(&fixture.stream(0), 30..40);
    run.drain().await?;
    run.close().await?;
    Ok(if known { Vec::new() } else { vec![clause::ACKNOWLEDGED] })
}

async fn partly_acknowledged<F: SourceFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    put(fixture, 0, 0..12).await?;
    let mut run = open::<F>(fixture).await?;
    run.expect(&fixture.stream(0), 0..12);
    run.drain().await?;
    let durable = run.reached();
    put(fixture, 0, 12..20).await?;
    put(fixture, 1, 0..3).await?;
    run.expect(&fixture.stream(0), 12..20);
    run.expect(&fixture.stream(1), 0..3);
    run.drain().await?;
    run.commit(&durable).await?;
    run.close().await?;
    still_unacknowledged(fixture, 11).await?;

    let mut run = open::<F>(fixture).await?.resuming(durable);
    run.expect(&fixture.stream(0), 12..20);
    run.expect(&fixture.stream(1), 0..3);
    run.drain().await?;
    run.close().await?;
    Ok(Vec::new())
}

/// The sink holds more than the source was told: `resume` is what acknowledges it.
async fn acknowledgement_lost<F: SourceFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let mut run = open::<F>(fixture).await?.taking_at_most(2048);
    for start in [0, 30, 60] {
        put(fixture, 0, start..start + 30).await?;
        run.expect(&fixture.stream(0), start..start + 30);
        run.drain().await?;
    }
    let (durable, rest) = run.halfway();
    run.crash();

    // The second time the source has acknowledged already what the offset covers.
    for _ in 0..2 {
        let mut run = open::<F>(fixture).await?.resuming(durable.clone());
        run.expect_numbers(&fixture.stream(0), &rest);
        run.drain().await?;
        run.crash();
    }
    let mut run = open::<F>(fixture).await?.resuming(durable);
    run.expect_numbers(&fixture.stream(0), &rest);
    run.drain().await?;
    run.commit_all().await?;
    run.close().await?;
    still_unacknowledged(fixture, 0).await?;
    Ok(Vec::new())
}

async fn nothing_durable<F: SourceFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    put(fixture, 0, 0..20).await?;
    for crash in [true, false, true] {
        let mut run = open::<F>(fixture).await?;
        run.expect(&fixture.stream(0), 0..20);
        run.drain().await?;
        if crash {
            run.crash();
        } else {
            run.close().await?;
        }
        still_unacknowledged(fixture, 20).await?;
    }
    Ok(Vec::new())
}

async fn second_instance<F: SourceFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    put(fixture, 0, 0..10).await?;
    let mut first = open::<F>(fixture).await?;
    first.expect(&fixture.stream(0), 0..10);
    first.drain().await?;
    if F::SHARES {
        return shared(fixture, first).await;
    }
    match tokio::time::timeout(PATIENCE, F::Source::open(fixture.config(), context())).await {
        Err(_) => Err(violation(clause::ONE_INSTANCE, format!("the second instance's open took over {PATIENCE:?}"))),
        Ok(Ok(second)) => {
            let mut second = Run::new(second);
            second.expect(&fixture.stream(0), 0..10);
            second.drain().await?;
            first.expect_fenced().await?;
            first.crash();
            still_unacknowledged(fixture, 10).await?;
            put(fixture, 0, 10..20).await?;
            second.expect(&fixture.stream(0), 10..20);
            second.drain().await?;
            second.commit_all().await?;
            second.close().await?;
            still_unacknowledged(fixture, 0).await?;
            Ok(Vec::new())
        }
        Ok(Err(error)) if error.kind() == ErrorKind::Unavailable => {
            put(fixture, 0, 10..20).await?;
            first.expect(&fixture.stream(0), 10..20);
            first.drain().await?;
            first.commit_all().await?;
            let durable = first.reached();
            first.close().await?;
            let mut second = open::<F>(fixture).await?.resuming(durable);
            second.idle().await?;
            second.close().await?;
            Ok(Vec::new())
        }
        Ok(Err(error)) => {
            Err(violation(clause::ONE_INSTANCE, format!("the second instance's open: {}", describe(&error))))
        }
    }
}

/// A second instance joins the first, and later the first leaves.
async fn shared<F: SourceFixture>(fixture: &mut F, first: Run<F::Source>) -> Check<Unchecked> {
    let (mut first, mut second) = (first.flushing_revoked(), open::<F>(fixture).await?.flushing_revoked());
    let mut next = 10;
    let deadline = Instant::now() + PATIENCE * 2;
    // Rows keep coming until both have had some of their own.
    while !(first.was_revoked() && second.has_delivered()) {
        ensure(Instant::now() < deadline, clause::SHARED, || {
            "the second instance got no partition, or nothing of it".to_owned()
        })?;
        put(fixture, 0, next..next + 14).await?;
        put(fixture, 1, next..next + 14).await?;
        for run in [&mut first, &mut second] {
            run.expect(&fixture.stream(0), next..next + 14);
            run.expect(&fixture.stream(1), next..next + 14);
        }
        next += 14;
        for _ in 0..4 {
            first.share(&mut second).await?;
        }
    }
    while !first.complete_with(&second) && Instant::now() < deadline {
        first.share(&mut second).await?;
    }
    ensure(first.complete_with(&second), clause::SHARED, || "not every row arrived".to_owned())?;
    // What the first has delivered is durable when it leaves, and the second takes over the rest.
    second.learn(&first.reached());
    first.commit_all().await?;
    first.close().await?;
    put(fixture, 0, next..next + 14).await?;
    put(fixture, 1, next..next + 14).await?;
    let before = second.arrived();
    for stream in 0..2 {
        second.expect(&fixture.stream(stream), next..next + 14);
    }
    while second.arrived() < before + 28 {
        ensure(Instant::now() < deadline, clause::SHARED, || {
            "what the first instance had does not go on at the second".to_owned()
        })?;
        second.step().await?;
    }
    second.close().await?;
    Ok(vec![clause::ONE_INSTANCE])
}

async fn refused<F: SourceFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    put(fixture, 0, 0..10).await?;
    let mut run = open::<F>(fixture).await?;
    run.expect(&fixture.stream(0), 0..10);
    run.drain().await?;
    run.commit_all().await?;
    run.close().await?;
    put(fixture, 0, 10..15).await?;

    let foreign = Offset::new(r#"{"conformance":"no source wrote this"}"#).fixture("an offset")?;
    let keeps_state = fixture.unacknowledged().await.fixture("unacknowledged")?.is_some();
    let mut attempts = vec![("an offset that no source wrote", Some(foreign))];
    if keeps_state {
        attempts.push(("no offset, though rows of the stream were acknowledged", None));
    }
    for (what, offset) in attempts {
        let mut run = open::<F>(fixture).await?;
        let at = run.announced().await?;
        match run.source.resume(&at, offset.as_ref()).await {
            Ok(()) => return Err(violation(clause::REFUSED, format!("{what} was accepted"))),
            Err(error) => ensure(stops(error.kind()), clause::REFUSED, || {
                format!("{what} was refused with a kind that the host retries: {}", describe(&error))
            })?,
        }
        run.crash();
    }
    Ok(Vec::new())
}

fn context() -> TaskContext {
    TaskContext::detached(TaskInfo {
        connector: CONNECTOR.to_owned(),
        task: 0,
        tasks: 1,
        max_memory: 64 << 20,
        ..TaskInfo::default()
    })
}

/// Opens an instance, waiting where the system still holds on to one that crashed.
async fn open<F: SourceFixture>(fixture: &F) -> Check<Run<F::Source>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match F::Source::open(fixture.config(), context()).await {
            Ok(source) => return Ok(Run::new(source)),
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(violation(clause::HEALTHY, format!("open: {}", describe(&error)))),
        }
    }
}

async fn put<F: SourceFixture>(fixture: &mut F, stream: usize, numbers: Range<i64>) -> Check {
    fixture.put(stream, numbers).await.fixture("put")
}

/// Whether the system knows how many rows are left unacknowledged; if so it must be this many.
async fn still_unacknowledged<F: SourceFixture>(fixture: &mut F, expected: u64) -> Check<bool> {
    let Some(found) = fixture.unacknowledged().await.fixture("unacknowledged")? else { return Ok(false) };
    ensure(found == expected, clause::ACKNOWLEDGED, || {
        format!("{found} rows are left unacknowledged in the source's system, expected {expected}")
    })?;
    Ok(true)
}
