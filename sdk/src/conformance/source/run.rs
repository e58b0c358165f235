//! One open instance of a source, driven as the host drives it, every batch checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};

use super::{KEYS, MAX_BYTES, PATIENCE, POLL, SLACK, clause};
use crate::conformance::{Check, OrViolation, describe, ensure, violation};
use crate::{ChangeBatch, ErrorKind, Offset, Poll, Source, StreamName, StreamOffset, StreamPartition};

/// What a batch brought.
struct Delivered {
    at: StreamPartition,
    numbers: Vec<i64>,
    offset: Offset,
}

/// An open instance, what the sink tells it, and what it has delivered.
pub(super) struct Run<S> {
    pub(super) source: S,
    max_bytes: usize,
    /// The offsets that the sink holds.
    durable: HashMap<StreamPartition, Offset>,
    announced: HashSet<StreamPartition>,
    /// By schema id, per stream.
    schemas: HashMap<StreamName, BTreeMap<u64, SchemaRef>>,
    newest_schema: HashMap<StreamName, (u64, SchemaRef)>,
    delivered: Vec<Delivered>,
    /// How often each row has arrived, of those that are expected.
    expected: HashMap<(StreamName, i64), u32>,
    /// The number of the newest row per key.
    newest: HashMap<(StreamName, i64), i64>,
    /// What is revoked is durable from then on, as where a host flushes it.
    flushes_revoked: bool,
    revoked: bool,
}

impl<S: Source> Run<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            source,
            max_bytes: MAX_BYTES,
            durable: HashMap::new(),
            announced: HashSet::new(),
            schemas: HashMap::new(),
            newest_schema: HashMap::new(),
            delivered: Vec::new(),
            expected: HashMap::new(),
            newest: HashMap::new(),
            flushes_revoked: false,
            revoked: false,
        }
    }

    /// Flushes what is revoked, as the host does.
    pub(super) fn flushing_revoked(mut self) -> Self {
        self.flushes_revoked = true;
        self
    }

    pub(super) fn was_revoked(&self) -> bool {
        self.revoked
    }

    pub(super) fn has_delivered(&self) -> bool {
        !self.delivered.is_empty()
    }

    /// How many rows have arrived.
    pub(super) fn arrived(&self) -> usize {
        self.expected.values().filter(|times| **times > 0).count()
    }

    /// The sink holds these offsets as well.
    pub(super) fn learn(&mut self, durable: &[StreamOffset]) {
        self.durable.extend(durable.iter().map(|durable| (durable.at.clone(), durable.offset.clone())));
    }

    /// A step of either, which share the partitions out; each learns what the other's flushes have made durable. No row arrives at
    /// both.
    pub(super) async fn share(&mut self, other: &mut Self) -> Check {
        self.step().await?;
        other.durable.extend(self.durable.clone());
        other.step().await?;
        self.durable.extend(other.durable.clone());
        for (row, times) in &self.expected {
            let both = *times + other.expected.get(row).copied().unwrap_or(0);
            ensure(both <= 1, clause::SHARED, || format!("row {} of {} arrived at both instances", row.1, row.0))?;
        }
        Ok(())
    }

    /// Every row has arrived at one of the two.
    pub(super) fn complete_with(&self, other: &Self) -> bool {
        self.expected.iter().all(|(row, times)| *times + other.expected.get(row).copied().unwrap_or(0) > 0)
    }

    /// The sink holds these offsets.
    pub(super) fn resuming(mut self, durable: Vec<StreamOffset>) -> Self {
        self.durable = durable.into_iter().map(|durable| (durable.at, durable.offset)).collect();
        self
    }

    /// Asks for batches of this size.
    pub(super) fn taking_at_most(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// These rows are in the system and must arrive.
    pub(super) fn expect(&mut self, stream: &StreamName, numbers: Range<i64>) {
        self.expected.extend(numbers.map(|number| ((stream.clone(), number), 0)));
    }

    /// These rows are in the system and must arrive.
    pub(super) fn expect_numbers(&mut self, stream: &StreamName, numbers: &[i64]) {
        self.expected.extend(numbers.iter().map(|number| ((stream.clone(), *number), 0)));
    }

    /// Polls until the source says that it has caught up; then every expected row has arrived.
    pub(super) async fn drain(&mut self) -> Check {
        let deadline = Instant::now() + PATIENCE;
        while !self.step().await? {
            ensure(Instant::now() < deadline, clause::CAUGHT_UP, || {
                format!("not caught up after {PATIENCE:?}; {}", self.missing())
            })?;
        }
        if self.complete() {
            return Ok(());
        }
        // Too early, or never?
        let missing = self.missing();
        let deadline = Instant::now() + SLACK;
        while Instant::now() < deadline && !self.complete() {
            self.step().await?;
        }
        let clause = if self.complete() { clause::CAUGHT_UP } else { clause::EXACTLY_ONCE };
        Err(violation(clause, format!("when the source said that it had caught up, {missing}")))
    }

    /// Nothing arrives any more, and polls say so in time.
    pub(super) async fn idle(&mut self) -> Check {
        let before = self.delivered.len();
        self.drain().await?;
        self.step().await?;
        ensure(self.delivered.len() == before, clause::EXACTLY_ONCE, || {
            "rows arrived after everything was delivered".to_owned()
        })
    }

    /// The first partition that is announced; it waits for its `resume`.
    pub(super) async fn announced(&mut self) -> Check<StreamPartition> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.poll(POLL).await? {
                Poll::Announce(partitions) => {
                    if let Some(at) = partitions.into_iter().next() {
                        return Ok(at);
                    }
                }
                Poll::Batch(batch) => return Err(violation(clause::ANNOUNCED, format!("a batch of {}", batch.at))),
                Poll::Idle { .. } | Poll::End | Poll::Revoke(_) => {}
            }
        }
        Err(violation(
            clause::EXACTLY_ONCE,
            format!("nothing was announced within {PATIENCE:?}, though rows are there"),
        ))
    }

    /// Another instance has taken over: this one must notice, and what it still says must have no effect.
    pub(super) async fn expect_fenced(&mut self) -> Check {
        // Its rows became durable just before it lost the source: the late acknowledgement must be void.
        match self.source.commit(&self.reached()).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Fenced => return Ok(()),
            Err(error) => {
                return Err(violation(clause::ONE_INSTANCE, format!("commit of the first: {}", describe(&error))));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.source.poll(POLL, MAX_BYTES).await {
                Err(error) if error.kind() == ErrorKind::Fenced => return Ok(()),
                Err(error) => {
                    return Err(violation(clause::ONE_INSTANCE, format!("poll of the first: {}", describe(&error))));
                }
                Ok(_) => {}
            }
        }
        Err(violation(
            clause::ONE_INSTANCE,
            format!("both instances go on: the first was not fenced within {PATIENCE:?}"),
        ))
    }

    /// The newest offset of every partition.
    pub(super) fn reached(&self) -> Vec<StreamOffset> {
        let newest: HashMap<_, _> = self.delivered.iter().map(|batch| (&batch.at, &batch.offset)).collect();
        newest.into_iter().map(|(at, offset)| StreamOffset { at: at.clone(), offset: offset.clone() }).collect()
    }

    /// Per partition the offset of the batch in the middle, and the numbers that no such offset covers.
    pub(super) fn halfway(&self) -> (Vec<StreamOffset>, Vec<i64>) {
        let mut partitions: BTreeMap<&StreamPartition, Vec<&Delivered>> = BTreeMap::new();
        for batch in &self.delivered {
            partitions.entry(&batch.at).or_default().push(batch);
        }
        let (mut durable, mut rest) = (Vec::new(), Vec::new());
        for (at, batches) in partitions {
            let (covered, uncovered) = batches.split_at(batches.len().div_ceil(2));
            durable.extend(covered.last().map(|batch| StreamOffset { at: at.clone(), offset: batch.offset.clone() }));
            rest.extend(uncovered.iter().flat_map(|batch| &batch.numbers));
        }
        (durable, rest)
    }

    /// Everything delivered is durable.
    pub(super) async fn commit_all(&mut self) -> Check {
        self.commit(&self.reached()).await
    }

    pub(super) async fn commit(&mut self, offsets: &[StreamOffset]) -> Check {
        let began = Instant::now();
        self.source.commit(offsets).await.or_violation(clause::HEALTHY, "commit")?;
        let took = began.elapsed();
        ensure(took < Duration::from_secs(1), clause::COMMIT_RETURNS, || format!("it took {took:?}"))
    }

    pub(super) async fn close(self) -> Check {
        let closing = tokio::time::timeout(PATIENCE + SLACK, self.source.close(PATIENCE)).await;
        let closed = closing.map_err(|_| violation(clause::TIMEOUT, format!("close took over {PATIENCE:?}")))?;
        closed.or_violation(clause::HEALTHY, "close")
    }

    /// Lets go of the instance as a process that dies does.
    pub(super) fn crash(self) {
        drop(self);
    }

    /// How many columns the stream's newest schema has.
    pub(super) fn columns(&self, stream: &StreamName) -> usize {
        self.newest_schema.get(stream).map_or(0, |(_, schema)| schema.fields().len())
    }

    /// One poll and what follows from it; whether the source has caught up.
    pub(super) async fn step(&mut self) -> Check<bool> {
        match self.poll(POLL).await? {
            Poll::Batch(batch) => self.batch(&batch).map(|()| false),
            Poll::Idle { caught_up } => Ok(caught_up),
            Poll::End => Ok(true),
            Poll::Announce(partitions) => {
                ensure(!partitions.is_empty(), clause::ANNOUNCED_ONCE, || "an empty announcement".to_owned())?;
                for at in partitions {
                    ensure(self.announced.insert(at.clone()), clause::ANNOUNCED_ONCE, || {
                        format!("{at} was announced twice")
                    })?;
                    let resumed = self.source.resume(&at, self.durable.get(&at)).await;
                    resumed.or_violation(clause::HEALTHY, &format!("resume of {at}"))?;
                }
                Ok(false)
            }
            Poll::Revoke(partitions) => {
                self.revoked = true;
                if self.flushes_revoked {
                    let reached = self.reached();
                    self.learn(&reached);
                    self.commit(&reached).await?;
                }
                for at in partitions {
                    self.announced.remove(&at);
                }
                Ok(false)
            }
        }
    }

    async fn poll(&mut self, timeout: Duration) -> Check<Poll> {
        let began = Instant::now();
        // Only a source that hangs meets this limit: the time-out is the source's own to keep.
        let polled = tokio::time::timeout(timeout + PATIENCE, self.source.poll(timeout, self.max_bytes)).await;
        let took = began.elapsed();
        let polled = polled.map_err(|_| violation(clause::TIMEOUT, format!("poll({timeout:?}) hangs")))?;
        let poll = polled.or_violation(clause::HEALTHY, "poll")?;
        ensure(!matches!(poll, Poll::Idle { .. }) || took <= timeout + SLACK, clause::TIMEOUT, || {
            format!("poll({timeout:?}) was idle for {took:?}")
        })?;
        Ok(poll)
    }

    fn batch(&mut self, batch: &ChangeBatch) -> Check {
        let at = &batch.at;
        ensure(self.announced.contains(at), clause::ANNOUNCED, || format!("a batch of {at}"))?;
        Offset::new(batch.offset.as_str()).or_violation(clause::OFFSET, &at.to_string())?;
        check_shape(batch)?;
        self.check_schema_id(batch)?;
        let numbers = numbers(&batch.rows)?;
        for &number in &numbers {
            let stream = &at.stream;
            let Some(times) = self.expected.get_mut(&(stream.clone(), number)) else {
                return Err(violation(clause::COVERED, format!("row {number} of {at} arrived")));
            };
            *times += 1;
            ensure(*times == 1, clause::EXACTLY_ONCE, || format!("row {number} of {at} arrived twice"))?;
            let before = self.newest.insert((stream.clone(), number.rem_euclid(KEYS)), number);
            ensure(before.is_none_or(|before| before < number), clause::ORDER, || {
                format!("row {number} of {at} arrived after row {}", before.unwrap_or_default())
            })?;
        }
        self.delivered.push(Delivered { at: at.clone(), numbers, offset: batch.offset.clone() });
        Ok(())
    }

    fn check_schema_id(&mut self, batch: &ChangeBatch) -> Check {
        let (id, stream, schema) = (batch.schema_id, &batch.at.stream, batch.rows.schema());
        let known = self.schemas.entry(stream.clone()).or_default();
        let named = known.entry(id).or_insert_with(|| schema.clone());
        ensure(*named == schema, clause::SCHEMA_ID, || format!("{stream}: schema id {id} names two schemas"))?;
        if let Some((before, same)) = self.newest_schema.insert(stream.clone(), (id, schema.clone())) {
            ensure(same != schema || before == id, clause::SCHEMA_ID, || {
                format!("{stream}: one schema has the ids {before} and {id}")
            })?;
        }
        Ok(())
    }

    fn complete(&self) -> bool {
        self.expected.values().all(|times| *times > 0)
    }

    fn missing(&self) -> String {
        let mut missing: Vec<_> = self.expected.iter().filter(|(_, times)| **times == 0).map(|(row, _)| row).collect();
        missing.sort();
        match missing.first() {
            None => "no row was missing".to_owned(),
            Some((stream, number)) => {
                format!("{} rows were missing, the first of them row {number} of {stream}", missing.len())
            }
        }
    }
}

/// What the host checks of every batch.
fn check_shape(batch: &ChangeBatch) -> Check {
    batch.check().or_violation(clause::SHAPE, &batch.at.to_string())
}

/// The column `n`.
fn numbers(rows: &RecordBatch) -> Check<Vec<i64>> {
    let column = rows.column_by_name("n");
    let column = column.ok_or_else(|| violation(clause::SHAPE, "the rows have no column n"))?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let numbers = cast_with_options(column, &DataType::Int64, &strict)
        .map_err(|e| violation(clause::SHAPE, format!("column n is {}: {e}", column.data_type())))?;
    ensure(numbers.null_count() == 0, clause::EXACTLY_ONCE, || "column n is null".to_owned())?;
    Ok(numbers.as_primitive::<Int64Type>().values().to_vec())
}
