//! Sinks that break the contract.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{assert_violated, block_on, fresh_store};
use crate::conformance::sink_clause as clause;
use crate::conformance::{Landed, LandedRow, MemoryConfig, MemorySink, MemoryStore, SinkFixture, check_sink};
use crate::{
    ChangeBatch, Error, ErrorKind, Flushed, Offset, Plan, Result, Sink, StreamOffset, StreamPartition, TaskContext,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum Fault {
    None,
    OffsetsInOtherOrder,
    OffsetOfAnother,
    ForgetsOffsets,
    VisibleBeforeFlush,
    OffsetBeforeFlush,
    ReportsWhatItDidNotKeep,
    RowsWithoutOffset,
    OffsetWithoutRows,
    ReportsFirstOffset,
    ReportsAgain,
    ReportsNothing,
    FlushesOnClose,
    DoublesRows,
    LosesNulls,
    DropsAddedColumn,
    ReordersRows,
    CommitsThoughFenced,
    FencedAsUnknown,
    KeepsRevoked,
    CountsNoBytes,
    CountsForEver,
    TakesSpoiltBatch,
    ForgetsOnRefusal,
    RefusesForNow,
    ForgetsOnOutage,
    SwallowsOutage,
    CountsNoLetters,
    FlushFails,
}

#[derive(Clone, Deserialize, JsonSchema)]
struct FaultyConfig {
    fault: Fault,
    memory: MemoryConfig,
}

struct Faulty {
    inner: MemorySink,
    config: FaultyConfig,
    context: TaskContext,
    store: Arc<MemoryStore>,
    announced: Vec<StreamPartition>,
    /// The first offset that each partition was given since the last flush.
    first: BTreeMap<StreamPartition, Offset>,
    last: BTreeMap<StreamPartition, Offset>,
    /// Revoked, with the offset that was known then.
    kept: Vec<(StreamPartition, Option<Offset>)>,
    bytes: usize,
}

#[async_trait]
impl Sink for Faulty {
    const NAME: &'static str = "faulty";
    const DOC: &'static str = "Breaks the contract.";
    const DEAD_LETTERS: bool = true;
    type Config = FaultyConfig;

    async fn open(config: FaultyConfig, context: TaskContext) -> Result<Self> {
        Ok(Self {
            inner: MemorySink::open(config.memory.clone(), context.clone()).await?,
            store: MemoryStore::named(&config.memory.store),
            config,
            context,
            announced: Vec::new(),
            first: BTreeMap::new(),
            last: BTreeMap::new(),
            kept: Vec::new(),
            bytes: 0,
        })
    }

    async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        let mut offsets = self.inner.offsets(at).await?;
        self.announced.extend_from_slice(at);
        match self.config.fault {
            Fault::OffsetsInOtherOrder => offsets.reverse(),
            Fault::OffsetOfAnother => {
                let any = self.store.state().offsets.values().next().cloned();
                offsets.iter_mut().filter(|offset| offset.is_none()).for_each(|offset| offset.clone_from(&any));
            }
            Fault::ForgetsOffsets => offsets.fill(None),
            _ => {}
        }
        Ok(offsets)
    }

    async fn revoke(&mut self, at: &[StreamPartition]) -> Result<()> {
        self.announced.retain(|announced| !at.contains(announced));
        if self.config.fault == Fault::KeepsRevoked {
            self.kept.extend(at.iter().map(|at| (at.clone(), self.store.offset("conformance", at))));
        }
        self.inner.revoke(at).await
    }

    async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        let mut batch = batch.clone();
        match self.config.fault {
            Fault::LosesNulls if !batch.dead_letters => replace(&mut batch.rows, "note", |column| {
                let texts = column.as_string::<i32>().iter();
                Arc::new(StringArray::from_iter_values(texts.map(Option::unwrap_or_default)))
            }),
            Fault::DropsAddedColumn => {
                if let Ok(index) = batch.rows.schema().index_of("added") {
                    batch.rows.remove_column(index);
                }
            }
            Fault::ReordersRows => {
                let indices = UInt64Array::from_iter_values((0..batch.rows.num_rows() as u64).rev());
                batch.rows = take_record_batch(&batch.rows, &indices).unwrap();
            }
            Fault::ReportsWhatItDidNotKeep => {
                self.last.insert(batch.at.clone(), batch.offset.clone());
                return Ok(());
            }
            Fault::OffsetBeforeFlush => {
                let key = (self.context.info().connector.clone(), batch.at.clone());
                self.store.state().offsets.insert(key, batch.offset.clone());
            }
            _ => {}
        }
        self.bytes += batch.bytes();
        self.first.entry(batch.at.clone()).or_insert_with(|| batch.offset.clone());
        match (self.inner.write(&batch).await, self.config.fault) {
            (Err(_), Fault::TakesSpoiltBatch) => return Ok(()),
            (Err(error), Fault::ForgetsOnRefusal) => {
                self.forget().await?;
                return Err(error);
            }
            (Err(error), Fault::RefusesForNow) => return Err(Error::unavailable(error.to_string())),
            (outcome, _) => outcome?,
        }
        if self.config.fault == Fault::VisibleBeforeFlush {
            self.inner.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<Flushed> {
        if self.kept.iter().any(|(at, known)| self.store.offset("conformance", at) != *known) {
            return Err(Error::fenced("another task has committed to what was revoked"));
        }
        let fault = self.config.fault;
        let first = std::mem::take(&mut self.first);
        let mut flushed = match self.inner.flush().await {
            Err(error) => match (error.kind(), fault) {
                (ErrorKind::Fenced, Fault::CommitsThoughFenced) => {
                    let announced = self.announced.clone();
                    self.inner.offsets(&announced).await?;
                    self.inner.flush().await?;
                    return Err(error);
                }
                (ErrorKind::Fenced, Fault::FencedAsUnknown) => return Err(Error::unknown(error.to_string())),
                (ErrorKind::Unavailable, Fault::ForgetsOnOutage) => {
                    self.store.set_out_of_reach(false);
                    self.forget().await?;
                    return Err(error);
                }
                (ErrorKind::Unavailable, Fault::SwallowsOutage) => return Ok(Flushed::default()),
                _ => return Err(error),
            },
            Ok(flushed) => flushed,
        };
        let written: Vec<StreamPartition> = flushed.durable.iter().map(|durable| durable.at.clone()).collect();
        let mut state = self.store.state();
        match fault {
            Fault::ReportsWhatItDidNotKeep => {
                let lost = std::mem::take(&mut self.last).into_iter();
                flushed.durable.extend(lost.map(|(at, offset)| StreamOffset { at, offset }));
            }
            Fault::RowsWithoutOffset => state.offsets.clear(),
            Fault::OffsetWithoutRows => state.tables.clear(),
            Fault::ReportsFirstOffset => {
                flushed.durable = first.into_iter().map(|(at, offset)| StreamOffset { at, offset }).collect();
            }
            Fault::ReportsAgain => {
                let all = state.offsets.iter();
                flushed.durable =
                    all.map(|((_, at), offset)| StreamOffset { at: at.clone(), offset: offset.clone() }).collect();
            }
            Fault::ReportsNothing => flushed.durable.clear(),
            Fault::CountsNoLetters => flushed.dead_letters.clear(),
            Fault::DoublesRows => {
                for at in written {
                    let table = state.tables.entry(at.stream).or_default();
                    let last = table.last().cloned();
                    table.extend(last);
                }
            }
            Fault::FlushFails => {
                let failed = written.into_iter().map(|at| (at, Error::unavailable("try again")));
                flushed.failed.extend(failed);
            }
            _ => {}
        }
        Ok(flushed)
    }

    fn buffered_bytes(&self) -> usize {
        match self.config.fault {
            Fault::CountsNoBytes => 0,
            Fault::CountsForEver => self.bytes,
            _ => self.inner.buffered_bytes(),
        }
    }

    async fn close(mut self, timeout: Duration) -> Result<()> {
        if self.config.fault == Fault::FlushesOnClose {
            self.inner.flush().await?;
        }
        self.inner.close(timeout).await
    }

    async fn plan(config: FaultyConfig, context: TaskContext, at: &StreamPartition, schema: SchemaRef) -> Result<Plan> {
        MemorySink::plan(config.memory, context, at, schema).await
    }
}

impl Faulty {
    /// Loses what was written and not flushed.
    async fn forget(&mut self) -> Result<()> {
        self.inner = MemorySink::open(self.config.memory.clone(), self.context.clone()).await?;
        let announced = self.announced.clone();
        self.inner.offsets(&announced).await.map(drop)
    }
}

/// Replaces a column, its type included.
fn replace(rows: &mut RecordBatch, name: &str, new: impl FnOnce(&ArrayRef) -> ArrayRef) {
    let schema = rows.schema();
    let index = schema.index_of(name).unwrap();
    let mut columns = rows.columns().to_vec();
    columns[index] = new(&columns[index]);
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[index] = fields[index].clone().with_data_type(columns[index].data_type().clone());
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    *rows = RecordBatch::try_new(schema.into(), columns).unwrap();
}

struct Fixture {
    fault: Fault,
    store: String,
}

#[async_trait]
impl SinkFixture for Fixture {
    type Sink = Faulty;

    async fn reset(&mut self) -> Result<()> {
        self.store = fresh_store();
        Ok(())
    }

    fn config(&self) -> FaultyConfig {
        FaultyConfig { fault: self.fault, memory: MemoryConfig { store: self.store.clone() } }
    }

    async fn landed(&mut self, at: &StreamPartition) -> Result<Landed> {
        let store = MemoryStore::named(&self.store);
        let mut rows = Vec::new();
        for batch in store.table(&at.stream) {
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let notes = batch.column_by_name("note").unwrap().as_string::<i32>();
            let added = batch.column_by_name("added").map(|column| column.as_primitive::<Int64Type>());
            rows.extend((0..batch.num_rows()).map(|row| LandedRow {
                id: ids.value(row),
                note: notes.is_valid(row).then(|| notes.value(row).to_owned()),
                added: added.filter(|added| added.is_valid(row)).map(|added| added.value(row)),
            }));
        }
        Ok(Landed { rows, offset: store.offset("conformance", at) })
    }

    fn spoil(&self, mut batch: ChangeBatch) -> Option<ChangeBatch> {
        replace(&mut batch.rows, "id", |column| arrow::compute::cast(column, &DataType::Utf8).unwrap());
        Some(batch)
    }

    async fn outage(&mut self, out_of_reach: bool) -> Result<bool> {
        MemoryStore::named(&self.store).set_out_of_reach(out_of_reach);
        Ok(true)
    }
}

fn check(fault: Fault) -> Result<Vec<&'static str>, crate::conformance::Violations> {
    block_on(check_sink(&mut Fixture { fault, store: String::new() }))
}

#[test]
fn the_sink_in_memory_keeps_the_contract() {
    assert_eq!(check(Fault::None), Ok(Vec::new()));
}

#[test]
fn every_fault_is_named() {
    for (fault, clause) in [
        (Fault::OffsetsInOtherOrder, clause::OFFSETS),
        (Fault::OffsetOfAnother, clause::OFFSETS),
        (Fault::ForgetsOffsets, clause::TRUTH),
        (Fault::VisibleBeforeFlush, clause::NOT_BEFORE),
        (Fault::OffsetBeforeFlush, clause::NOT_BEFORE),
        (Fault::ReportsWhatItDidNotKeep, clause::DURABLE),
        (Fault::RowsWithoutOffset, clause::ONE_STEP),
        (Fault::OffsetWithoutRows, clause::ONE_STEP),
        (Fault::ReportsFirstOffset, clause::DURABLE),
        (Fault::ReportsAgain, clause::DURABLE),
        (Fault::ReportsNothing, clause::DURABLE),
        (Fault::FlushesOnClose, clause::DROPPED),
        (Fault::DoublesRows, clause::ROWS),
        (Fault::LosesNulls, clause::ROWS),
        (Fault::DropsAddedColumn, clause::SCHEMAS),
        (Fault::ReordersRows, clause::ORDER),
        (Fault::CommitsThoughFenced, clause::FENCED),
        (Fault::FencedAsUnknown, clause::FENCED),
        (Fault::KeepsRevoked, clause::REVOKED),
        (Fault::CountsNoBytes, clause::BUFFERED),
        (Fault::CountsForEver, clause::BUFFERED),
        (Fault::TakesSpoiltBatch, clause::AS_NEVER_GIVEN),
        (Fault::ForgetsOnRefusal, clause::AS_NEVER_GIVEN),
        (Fault::RefusesForNow, clause::AS_NEVER_GIVEN),
        (Fault::ForgetsOnOutage, clause::KEPT),
        (Fault::SwallowsOutage, clause::KEPT),
        (Fault::CountsNoLetters, clause::LETTERS),
        (Fault::FlushFails, clause::HEALTHY),
    ] {
        assert_violated(check(fault), clause);
    }
}
