//! Sources that break the contract.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{assert_violated, block_on, fresh_store};
use crate::batch::{LSN, META_KEY, META_STREAM};
use crate::conformance::source_clause as clause;
use crate::conformance::{MemorySource, MemorySourceConfig, MemoryStore, SourceFixture, check_source};
use crate::{
    ChangeBatch, Error, ErrorKind, Offset, Poll, Result, Source, StreamDescription, StreamName, StreamOffset,
    StreamPartition, TaskContext,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum Fault {
    None,
    /// No fault: the second instance waits until the first has closed.
    SecondWaits,
    SecondFailsOtherwise,
    IgnoresFence,
    AcknowledgesThoughFenced,
    EmitsBeforeAnnounce,
    AnnouncesTwice,
    AnnouncesNothing,
    SkipsARowAfterResume,
    RepeatsARowAfterResume,
    LosesARow,
    RepeatsABatch,
    ReordersABatch,
    LongOffset,
    NoLsn,
    NoStream,
    UnknownKey,
    OneSchemaId,
    SchemaIdPerBatch,
    CaughtUpTooEarly,
    NeverCaughtUp,
    OverstaysTimeout,
    SlowCommit,
    NeverAcknowledges,
    AcknowledgesBeforeDurable,
    AcceptsAnyOffset,
    RefusesForNow,
    PollFails,
}

#[derive(Deserialize, JsonSchema)]
struct FaultyConfig {
    fault: Fault,
    memory: MemorySourceConfig,
}

struct Faulty {
    inner: MemorySource,
    fault: Fault,
    store: String,
    announced: Vec<StreamPartition>,
    resumed_with_offset: bool,
    batches: u64,
    /// Did its worst, where once is enough.
    done: bool,
    repeat: Option<ChangeBatch>,
}

/// Stores that an instance has locked.
static LOCKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Drop for Faulty {
    fn drop(&mut self) {
        LOCKED.lock().unwrap().remove(&self.store);
    }
}

#[async_trait]
impl Source for Faulty {
    const NAME: &'static str = "faulty";
    const DOC: &'static str = "Breaks the contract.";
    type Config = FaultyConfig;

    async fn open(config: FaultyConfig, context: TaskContext) -> Result<Self> {
        let store = config.memory.store.clone();
        let locks = matches!(config.fault, Fault::SecondWaits | Fault::SecondFailsOtherwise);
        if locks && !LOCKED.lock().unwrap().insert(store.clone()) {
            return Err(match config.fault {
                Fault::SecondWaits => Error::unavailable("another instance is open"),
                _ => Error::config("another instance is open"),
            });
        }
        let inner = MemorySource::open(config.memory, context).await?;
        let (announced, repeat) = (Vec::new(), None);
        let (resumed_with_offset, done) = (false, false);
        Ok(Self { inner, fault: config.fault, store, announced, resumed_with_offset, batches: 0, done, repeat })
    }

    async fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll> {
        if let Some(batch) = self.repeat.take() {
            return Ok(Poll::Batch(batch));
        }
        if self.fault == Fault::AnnouncesTwice && !self.announced.is_empty() {
            return Ok(Poll::Announce(self.announced.clone()));
        }
        if self.fault == Fault::PollFails {
            return Err(Error::internal("broken"));
        }
        let poll = match self.inner.poll(timeout, max_bytes).await {
            Err(error) if error.kind() == ErrorKind::Fenced && self.fault == Fault::IgnoresFence => {
                tokio::time::sleep(timeout).await;
                return Ok(Poll::Idle { caught_up: true });
            }
            other => other?,
        };
        match poll {
            Poll::Announce(at) => self.announce(at, timeout, max_bytes).await,
            Poll::Batch(batch) => self.batch(batch).await,
            Poll::Idle { .. } if self.fault == Fault::NeverCaughtUp => Ok(Poll::Idle { caught_up: false }),
            Poll::Idle { .. } if self.fault == Fault::OverstaysTimeout && !self.done => {
                self.done = true;
                tokio::time::sleep(Duration::from_secs(4)).await;
                Ok(poll)
            }
            other => Ok(other),
        }
    }

    async fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
        self.resumed_with_offset = offset.is_some();
        if let (Fault::RepeatsARowAfterResume, Some(offset)) = (self.fault, offset) {
            return self.inner.resume(at, Some(&one_row_less(offset))).await;
        }
        match (self.inner.resume(at, offset).await, self.fault) {
            (Err(_), Fault::AcceptsAnyOffset) => Ok(()),
            (Err(error), Fault::RefusesForNow) => Err(Error::unavailable(error.to_string())),
            (outcome, _) => outcome,
        }
    }

    async fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
        match self.fault {
            Fault::NeverAcknowledges => return Ok(()),
            Fault::SlowCommit => tokio::time::sleep(Duration::from_millis(1200)).await,
            _ => {}
        }
        let outcome = self.inner.commit(offsets).await;
        if outcome.is_err() && self.fault == Fault::IgnoresFence {
            return Ok(());
        }
        if outcome.is_err() && self.fault == Fault::AcknowledgesThoughFenced {
            for log in MemoryStore::named(&self.store).state().logs.values_mut() {
                log.acknowledged = log.rows.len();
            }
        }
        outcome
    }

    async fn close(self, _timeout: Duration) -> Result<()> {
        Ok(())
    }

    async fn streams(config: FaultyConfig, context: TaskContext) -> Result<Vec<StreamDescription>> {
        MemorySource::streams(config.memory, context).await
    }
}

impl Faulty {
    async fn announce(&mut self, at: Vec<StreamPartition>, timeout: Duration, max_bytes: usize) -> Result<Poll> {
        match self.fault {
            Fault::EmitsBeforeAnnounce => {
                for at in &at {
                    self.inner.resume(at, None).await?;
                }
                self.inner.poll(timeout, max_bytes).await
            }
            Fault::AnnouncesNothing => Ok(Poll::Announce(Vec::new())),
            _ => {
                self.announced.clone_from(&at);
                Ok(Poll::Announce(at))
            }
        }
    }

    async fn batch(&mut self, mut batch: ChangeBatch) -> Result<Poll> {
        self.batches += 1;
        let rows = batch.rows.num_rows() as u64;
        let metadata = |batch: &mut ChangeBatch, key: &str, value: Option<&str>| {
            let mut metadata = batch.rows.schema().metadata().clone();
            metadata.remove(key);
            metadata.extend(value.map(|value| (key.to_owned(), value.to_owned())));
            let schema = Schema::new_with_metadata(batch.rows.schema().fields().clone(), metadata);
            batch.rows = RecordBatch::try_new(schema.into(), batch.rows.columns().to_vec()).unwrap();
        };
        match self.fault {
            Fault::SkipsARowAfterResume if self.resumed_with_offset && !self.done => {
                self.done = true;
                batch.rows = batch.rows.slice(1, batch.rows.num_rows() - 1);
            }
            Fault::LosesARow => batch.rows = batch.rows.slice(0, batch.rows.num_rows() - 1),
            Fault::RepeatsABatch if !self.done => {
                self.done = true;
                self.repeat = Some(batch.clone());
            }
            Fault::ReordersABatch => {
                batch.rows = take_record_batch(&batch.rows, &UInt64Array::from_iter_values((0..rows).rev())).unwrap();
            }
            // Past the check of `Offset::new`, as a foreign library might.
            Fault::LongOffset => batch.offset = serde_json::from_value("1".repeat(1025).into()).unwrap(),
            Fault::NoLsn => {
                let lsn = batch.rows.schema().index_of(LSN).unwrap();
                batch.rows.remove_column(lsn);
            }
            Fault::NoStream => metadata(&mut batch, META_STREAM, None),
            Fault::UnknownKey => metadata(&mut batch, META_KEY, Some(r#"["identity"]"#)),
            Fault::OneSchemaId => batch.schema_id = 0,
            Fault::SchemaIdPerBatch => batch.schema_id = self.batches,
            Fault::CaughtUpTooEarly if !self.done => {
                self.done = true;
                self.repeat = Some(batch);
                return Ok(Poll::Idle { caught_up: true });
            }
            Fault::AcknowledgesBeforeDurable => {
                let reached = StreamOffset { at: batch.at.clone(), offset: batch.offset.clone() };
                self.inner.commit(&[reached]).await?;
            }
            _ => {}
        }
        Ok(Poll::Batch(batch))
    }
}

fn one_row_less(offset: &Offset) -> Offset {
    let mut offset: serde_json::Value = serde_json::from_str(offset.as_str()).unwrap();
    offset["rows"] = offset["rows"].as_u64().map_or(offset["rows"].clone(), |rows| (rows - 1).into());
    Offset::from_value(&offset).unwrap()
}

struct Fixture {
    fault: Fault,
    store: String,
}

#[async_trait]
impl SourceFixture for Fixture {
    type Source = Faulty;

    async fn reset(&mut self) -> Result<()> {
        self.store = fresh_store();
        Ok(())
    }

    fn config(&self) -> FaultyConfig {
        FaultyConfig { fault: self.fault, memory: MemorySourceConfig { store: self.store.clone(), rows: 0 } }
    }

    fn stream(&self, index: usize) -> StreamName {
        StreamName::new(["public", ["orders", "customers"][index]]).unwrap()
    }

    async fn put(&mut self, stream: usize, numbers: Range<i64>) -> Result<()> {
        MemoryStore::named(&self.store).put(&self.stream(stream), 2, numbers);
        Ok(())
    }

    async fn unacknowledged(&mut self) -> Result<Option<u64>> {
        Ok(Some(MemoryStore::named(&self.store).unacknowledged()))
    }

    async fn add_column(&mut self, stream: usize) -> Result<bool> {
        MemoryStore::named(&self.store).add_column(&self.stream(stream));
        Ok(true)
    }
}

fn check(fault: Fault) -> Result<Vec<&'static str>, crate::conformance::Violations> {
    block_on(check_source(&mut Fixture { fault, store: String::new() }))
}

#[test]
fn the_source_in_memory_keeps_the_contract() {
    assert_eq!(check(Fault::None), Ok(Vec::new()));
}

#[test]
fn a_second_instance_may_wait() {
    assert_eq!(check(Fault::SecondWaits), Ok(Vec::new()));
}

#[test]
fn every_fault_is_named() {
    let faults = [
        (Fault::SecondFailsOtherwise, clause::ONE_INSTANCE),
        (Fault::IgnoresFence, clause::ONE_INSTANCE),
        (Fault::AcknowledgesThoughFenced, clause::ACKNOWLEDGED),
        (Fault::EmitsBeforeAnnounce, clause::ANNOUNCED),
        (Fault::AnnouncesTwice, clause::ANNOUNCED_ONCE),
        (Fault::AnnouncesNothing, clause::ANNOUNCED_ONCE),
        (Fault::SkipsARowAfterResume, clause::EXACTLY_ONCE),
        (Fault::RepeatsARowAfterResume, clause::COVERED),
        (Fault::LosesARow, clause::EXACTLY_ONCE),
        (Fault::RepeatsABatch, clause::EXACTLY_ONCE),
        (Fault::ReordersABatch, clause::ORDER),
        (Fault::LongOffset, clause::OFFSET),
        (Fault::NoLsn, clause::SHAPE),
        (Fault::NoStream, clause::SHAPE),
        (Fault::UnknownKey, clause::SHAPE),
        (Fault::OneSchemaId, clause::SCHEMA_ID),
        (Fault::SchemaIdPerBatch, clause::SCHEMA_ID),
        (Fault::CaughtUpTooEarly, clause::CAUGHT_UP),
        (Fault::NeverCaughtUp, clause::CAUGHT_UP),
        (Fault::OverstaysTimeout, clause::TIMEOUT),
        (Fault::SlowCommit, clause::COMMIT_RETURNS),
        (Fault::NeverAcknowledges, clause::ACKNOWLEDGED),
        (Fault::AcknowledgesBeforeDurable, clause::ACKNOWLEDGED),
        (Fault::AcceptsAnyOffset, clause::REFUSED),
        (Fault::RefusesForNow, clause::REFUSED),
        (Fault::PollFails, clause::HEALTHY),
    ];
    // They mostly wait, so that all at once take as long as the longest.
    std::thread::scope(|threads| {
        for (fault, clause) in faults {
            threads.spawn(move || assert_violated(check(fault), clause));
        }
    });
}
