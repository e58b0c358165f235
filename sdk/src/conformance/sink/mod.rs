//! The suite for sinks: rows and offset become durable in one step, and a restart or a second instance finds the truth.

use async_trait::async_trait;

use self::rows::{Rows, partition};
use self::run::{open, open_with};
use super::{Check, OrViolation, Outcomes, Unchecked, Violation, Violations, ensure};
use crate::{ChangeBatch, ErrorKind, Offset, Result, Sink, StreamPartition, Tolerance};

mod rows;
mod run;

/// The clauses of the contract that the suite checks.
pub mod clause {
    /// See [`Sink::offsets`](crate::Sink::offsets).
    pub const OFFSETS: &str = "offsets answers in the order of the question, with none where nothing is known";
    /// See the trait's contract.
    pub const TRUTH: &str = "a reopened sink's offsets are what its own durable state says";
    /// See the trait's contract.
    pub const ONE_STEP: &str = "rows and the offset that covers them become durable in one step";
    /// See [`Sink::flush`](crate::Sink::flush).
    pub const NOT_BEFORE: &str = "nothing is visible before its flush";
    /// See [`Flushed`](crate::Flushed).
    pub const DURABLE: &str = "flush reports the last offset of each partition that became durable, and nothing else";
    /// See [`Sink::close`](crate::Sink::close).
    pub const DROPPED: &str = "what was not flushed is dropped with the instance";
    /// See [`Sink::write`](crate::Sink::write).
    pub const ROWS: &str = "each row lands once, its values and nulls as they were written";
    /// See [`Source`](crate::Source).
    pub const ORDER: &str = "rows of a partition are kept in order";
    /// See [`ChangeBatch::schema_id`](crate::ChangeBatch::schema_id).
    pub const SCHEMAS: &str = "a column that is added lands, and is null where rows do not have it";
    /// See [`ErrorKind::Fenced`](crate::ErrorKind::Fenced).
    pub const FENCED: &str = "an instance whose partition another one has committed to is fenced, and doubles nothing";
    /// See [`Sink::revoke`](crate::Sink::revoke).
    pub const REVOKED: &str =
        "a partition that was revoked can be written by another instance beside this one, and come back";
    /// See [`Sink::buffered_bytes`](crate::Sink::buffered_bytes).
    pub const BUFFERED: &str = "buffered_bytes grows with what is written and ends with its flush";
    /// See [`Sink::write`](crate::Sink::write).
    pub const AS_NEVER_GIVEN: &str = "a batch that write refuses is as if it had never been given";
    /// See the trait's contract.
    pub const KEPT: &str = "what a flush could not make durable is kept, and the same flush can be tried again";
    /// See [`Sink::DEAD_LETTERS`](crate::Sink::DEAD_LETTERS).
    pub const LETTERS: &str =
        "dead letters become durable with their offset, are counted once, and are no rows of the stream";
    /// Nothing is out of reach while the suite runs, unless it asked for it.
    pub const HEALTHY: &str = "no call fails while everything is healthy";
}

/// A row as it landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LandedRow {
    /// Column `id`, 64-bit integer: the key.
    pub id: i64,
    /// Column `note`, text, nullable.
    pub note: Option<String>,
    /// Column `added`, 64-bit integer, nullable: added to the schema later; `None` also where the table has no such column.
    pub added: Option<i64>,
}

/// What landed, as somebody else finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landed {
    /// The stream's rows, of all partitions; none where there is no table.
    pub rows: Vec<LandedRow>,
    /// The partition's durable offset.
    pub offset: Option<Offset>,
}

/// What the suite must know of a sink's system. Nothing else may use the system meanwhile.
///
/// The sink runs as the task 0 of 1 of the connector `conformance`. Run the suite on a runtime with timers and I/O.
/// All rows are INSERTs, each with a key of its own, so that a sink may append or upsert them.
#[async_trait]
pub trait SinkFixture: Send {
    /// The sink.
    type Sink: Sink;
    /// The system keeps the order in which the rows of a partition were written, and [`landed`](Self::landed) returns it.
    const ORDERED: bool = true;

    /// Makes the system, or a part of it that [`config`](Self::config) names from now on, empty. Called once before each
    /// scenario, when no instance is open.
    async fn reset(&mut self) -> Result<()>;

    /// The configuration of an instance. It must not make the sink write before `flush` where it has a choice.
    fn config(&self) -> <Self::Sink as Sink>::Config;

    /// Reads rows and offset as a foreign reader does: not through the sink's own code where that can be.
    async fn landed(&mut self, at: &StreamPartition) -> Result<Landed>;

    /// This batch, changed so that `write` must refuse it, with the same stream and partition (a column of a type that
    /// the table cannot take); `None` where there is no such batch.
    fn spoil(&self, batch: ChangeBatch) -> Option<ChangeBatch> {
        let _ = batch;
        None
    }

    /// Puts the system out of the sink's reach, so that `flush` fails with kind `Unavailable`, or back; `false` where that
    /// cannot be done.
    async fn outage(&mut self, out_of_reach: bool) -> Result<bool> {
        let _ = out_of_reach;
        Ok(false)
    }
}

/// Checks a sink; `Ok` names the clauses that the fixture could not provoke.
///
/// # Errors
/// The clauses that do not hold.
pub async fn check_sink<F: SinkFixture>(fixture: &mut F) -> Result<Unchecked, Violations> {
    let mut outcomes = Outcomes::default();
    outcomes.add("the first rows of a stream", first_rows(fixture).await);
    outcomes.add("several streams and partitions in one flush", several(fixture).await);
    outcomes.add("a restart with rows that were not flushed", restart(fixture).await);
    outcomes.add("a column is added", added_column(fixture).await);
    outcomes.add("a second instance commits for the same partition", second_instance(fixture).await);
    outcomes.add("a partition goes to another instance and comes back", revoked(fixture).await);
    outcomes.add("memory is counted", buffered(fixture).await);
    outcomes.add("a batch that cannot be written", refused_batch(fixture).await);
    outcomes.add("the system is out of reach at a flush", outage(fixture).await);
    outcomes.add("dead letters", dead_letters(fixture).await);
    outcomes.end()
}

async fn first_rows<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let at = partition(0, "0");
    let mut run = open(fixture).await?;
    run.flush(&[]).await?;
    run.announce(&[&at]).await?;
    run.flush(&[]).await?;
    run.write(&at, &Rows::plain(0..10)).await?;
    run.write(&at, &Rows::plain(10..15)).await?;
    run.nothing_new(fixture, clause::NOT_BEFORE).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    run.flush(&[]).await?;
    run.landed(fixture).await?;
    run.write(&at, &Rows::plain(15..20)).await?;
    run.nothing_new(fixture, clause::NOT_BEFORE).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    run.close().await?;
    Ok(if F::ORDERED { Vec::new() } else { vec![clause::ORDER] })
}

async fn several<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let (a, b, other, unknown) = (partition(0, "0"), partition(0, "1"), partition(1, "0"), partition(1, "1"));
    let mut run = open(fixture).await?;
    run.announce(&[&a, &other, &b]).await?;
    run.write(&a, &Rows::plain(0..5)).await?;
    run.write(&other, &Rows::plain(100..103)).await?;
    run.write(&b, &Rows::plain(50..55)).await?;
    run.write(&a, &Rows::plain(5..8)).await?;
    run.flush(&[&a, &b, &other]).await?;
    run.landed(fixture).await?;
    // Only what has new rows is reported.
    run.write(&b, &Rows::plain(55..60)).await?;
    run.flush(&[&b]).await?;
    run.landed(fixture).await?;
    let durable = run.close().await?;

    let mut run = open(fixture).await?.knowing(durable);
    run.announce(&[&unknown, &b, &other, &a]).await?;
    run.write(&unknown, &Rows::plain(200..202)).await?;
    run.write(&a, &Rows::plain(8..10)).await?;
    run.flush(&[&unknown, &a]).await?;
    run.landed(fixture).await?;
    run.close().await?;
    Ok(Vec::new())
}

async fn restart<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let at = partition(0, "0");
    let mut run = open(fixture).await?;
    run.announce(&[&at]).await?;
    run.write(&at, &Rows::plain(0..5)).await?;
    let durable = run.close().await?;

    // Nothing was flushed: the sink knows nothing, and the rows come again.
    let mut run = open(fixture).await?.knowing(durable);
    run.nothing_new(fixture, clause::DROPPED).await?;
    run.announce(&[&at]).await?;
    run.write(&at, &Rows::plain(0..5)).await?;
    run.flush(&[&at]).await?;
    run.write(&at, &Rows::plain(5..9)).await?;
    let durable = run.crash();

    let mut run = open(fixture).await?.knowing(durable);
    run.nothing_new(fixture, clause::DROPPED).await?;
    run.announce(&[&at]).await?;
    run.write(&at, &Rows::plain(5..9)).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    let durable = run.close().await?;

    let mut run = open(fixture).await?.knowing(durable);
    run.announce(&[&at]).await?;
    run.landed(fixture).await?;
    run.close().await?;
    Ok(Vec::new())
}

/// Only of sinks that keep them.
async fn dead_letters<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    if !F::Sink::DEAD_LETTERS {
        return Ok(Vec::new());
    }
    fixture.reset().await.fixture("reset")?;
    let at = partition(0, "0");
    let mut run = open_with(fixture, Tolerance::DeadLetter).await?;
    run.announce(&[&at]).await?;
    // Before the first row, between rows, and alone.
    run.write_letters(&at, 2).await?;
    run.flush(&[&at]).await?;
    run.write(&at, &Rows::plain(0..5)).await?;
    run.write_letters(&at, 3).await?;
    run.write(&at, &Rows::plain(5..9)).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    run.write_letters(&at, 1).await?;
    run.nothing_new(fixture, clause::NOT_BEFORE).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    let durable = run.close().await?;

    // What they cover is known also to one that tolerates none.
    let mut run = open(fixture).await?.knowing(durable);
    run.announce(&[&at]).await?;
    run.flush(&[]).await?;
    run.landed(fixture).await?;
    run.close().await?;
    Ok(Vec::new())
}

async fn added_column<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let at = partition(0, "0");
    let mut run = open(fixture).await?;
    run.announce(&[&at]).await?;
    run.write(&at, &Rows::plain(0..5)).await?;
    run.flush(&[&at]).await?;
    // Both schemas in one flush, then the old one alone: a source may deliver what it read before the change again.
    run.write(&at, &Rows::plain(5..8)).await?;
    run.write(&at, &Rows::with_added_column(8..12)).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    run.write(&at, &Rows::plain(12..14)).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    let durable = run.close().await?;

    let mut run = open(fixture).await?.knowing(durable);
    run.announce(&[&at]).await?;
    run.write(&at, &Rows::with_added_column(14..16)).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    run.close().await?;
    Ok(Vec::new())
}

async fn second_instance<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let at = partition(0, "0");
    let mut first = open(fixture).await?;
    first.announce(&[&at]).await?;
    first.write(&at, &Rows::plain(0..5)).await?;
    first.flush(&[&at]).await?;
    first.write(&at, &Rows::plain(5..10)).await?;

    let mut second = open(fixture).await?.knowing(first.durable());
    second.announce(&[&at]).await?;
    second.write(&at, &Rows::plain(5..10)).await?;
    second.flush(&[&at]).await?;
    first.expect_fenced().await?;
    under(clause::FENCED, second.landed(fixture).await)?;
    first.crash();

    second.write(&at, &Rows::plain(10..12)).await?;
    second.flush(&[&at]).await?;
    second.landed(fixture).await?;
    let durable = second.close().await?;

    // Both have seen the same state, and neither has written to the partition before.
    let mut first = open(fixture).await?.knowing(durable);
    let new = partition(1, "0");
    first.announce(&[&new, &at]).await?;
    let mut second = open(fixture).await?.knowing(first.durable());
    second.announce(&[&new]).await?;
    second.write(&new, &Rows::plain(100..103)).await?;
    second.flush(&[&new]).await?;
    // Already the write may notice, where it must look at the table.
    if first.write_unless_fenced(&new, &Rows::plain(100..103)).await? {
        first.expect_fenced().await?;
    }
    under(clause::FENCED, second.landed(fixture).await)?;
    first.crash();
    second.close().await?;
    Ok(Vec::new())
}

async fn revoked<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let (goes, stays) = (partition(0, "0"), partition(0, "1"));
    let mut first = open(fixture).await?;
    first.announce(&[&goes, &stays]).await?;
    first.write(&goes, &Rows::plain(0..5)).await?;
    first.write(&stays, &Rows::plain(50..55)).await?;
    first.flush(&[&goes, &stays]).await?;
    first.revoke(&[&goes]).await?;

    let mut second = open(fixture).await?.knowing(first.durable());
    second.announce(&[&goes]).await?;
    second.write(&goes, &Rows::plain(5..10)).await?;
    second.flush(&[&goes]).await?;
    first.write(&stays, &Rows::plain(55..60)).await?;
    under(clause::REVOKED, first.flush(&[&stays]).await)?;

    // And back, while the other goes on.
    second.revoke(&[&goes]).await?;
    first.learns(&goes, &second);
    second.learns(&stays, &first);
    under(clause::REVOKED, first.announce(&[&goes]).await)?;
    first.write(&goes, &Rows::plain(10..15)).await?;
    under(clause::REVOKED, first.flush(&[&goes]).await)?;
    second.crash();
    under(clause::REVOKED, first.landed(fixture).await)?;
    first.close().await?;
    Ok(Vec::new())
}

async fn buffered<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let at = partition(0, "0");
    let mut run = open(fixture).await?;
    run.announce(&[&at]).await?;
    let empty = run.buffered_bytes();
    run.write(&at, &Rows::plain(0..4000)).await?;
    let one = run.buffered_bytes();
    run.write(&at, &Rows::plain(4000..8000)).await?;
    let two = run.buffered_bytes();
    run.flush(&[&at]).await?;
    let flushed = run.buffered_bytes();
    ensure(one > empty && two > empty, clause::BUFFERED, || {
        format!("{empty} bytes before, {one} and {two} bytes after one and two batches of 4000 rows")
    })?;
    ensure(flushed <= one / 10, clause::BUFFERED, || format!("{flushed} bytes after the flush, {two} before"))?;
    run.landed(fixture).await?;
    run.close().await?;
    Ok(Vec::new())
}

async fn refused_batch<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let at = partition(0, "0");
    let mut run = open(fixture).await?;
    run.announce(&[&at]).await?;
    run.write(&at, &Rows::plain(0..5)).await?;
    run.flush(&[&at]).await?;
    run.write(&at, &Rows::plain(5..8)).await?;
    let batch = run.next_batch(&at, &Rows::plain(8..10))?;
    let Some(spoilt) = fixture.spoil(batch) else { return Ok(vec![clause::AS_NEVER_GIVEN]) };
    run.expect_refused(&spoilt).await?;
    under(clause::AS_NEVER_GIVEN, run.flush(&[&at]).await)?;
    under(clause::AS_NEVER_GIVEN, run.landed(fixture).await)?;
    run.write(&at, &Rows::plain(10..12)).await?;
    run.flush(&[&at]).await?;
    run.landed(fixture).await?;
    run.close().await?;
    Ok(Vec::new())
}

async fn outage<F: SinkFixture>(fixture: &mut F) -> Check<Unchecked> {
    fixture.reset().await.fixture("reset")?;
    let at = partition(0, "0");
    let mut run = open(fixture).await?;
    run.announce(&[&at]).await?;
    run.write(&at, &Rows::plain(0..5)).await?;
    run.flush(&[&at]).await?;
    run.write(&at, &Rows::plain(5..8)).await?;
    if !fixture.outage(true).await.fixture("outage")? {
        return Ok(vec![clause::KEPT]);
    }
    run.expect_failed_flush(ErrorKind::Unavailable, clause::KEPT).await?;
    fixture.outage(false).await.fixture("outage")?;
    run.nothing_new(fixture, clause::ONE_STEP).await?;
    under(clause::KEPT, run.flush(&[&at]).await)?;
    under(clause::KEPT, run.landed(fixture).await)?;
    run.close().await?;
    Ok(Vec::new())
}

/// What is wrong here is wrong because of this clause.
fn under(clause: &'static str, check: Check) -> Check {
    check.map_err(|violation| Violation { clause, ..violation })
}
