//! One open instance of a sink, driven as the host drives it, and what must have landed by now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::rows::Rows;
use super::{Landed, LandedRow, SinkFixture, clause};
use crate::conformance::{Check, FIXTURE, OrViolation, describe, ensure, stops, violation};
use crate::dead_letter::DeadLetter;
use crate::{
    ChangeBatch, Error, ErrorKind, Flushed, Offset, Sink, StreamName, StreamOffset, StreamPartition, TaskContext,
    TaskInfo, Tolerance, dead_letter,
};

/// How long anything that must happen in the end may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is durable, as the suite believes it: per partition the rows in order and the offset.
#[derive(Clone, Default)]
pub(super) struct Durable {
    partitions: BTreeMap<StreamPartition, (Vec<LandedRow>, Option<Offset>)>,
    /// Numbers the offsets, so that every batch has one of its own.
    batches: u64,
}

/// An open instance, what is durable, and what it was given since.
pub(super) struct Run<S> {
    sink: S,
    durable: Durable,
    written: BTreeMap<StreamPartition, (Vec<LandedRow>, Option<Offset>)>,
    /// Dead letters among it.
    letters: BTreeMap<StreamPartition, u64>,
}

/// Opens an instance, waiting where the system still holds on to one that crashed.
pub(super) async fn open<F: SinkFixture>(fixture: &F) -> Check<Run<F::Sink>> {
    open_with(fixture, Tolerance::None).await
}

/// The same, tolerating records that cannot be written or not.
pub(super) async fn open_with<F: SinkFixture>(fixture: &F, tolerance: Tolerance) -> Check<Run<F::Sink>> {
    let info = TaskInfo {
        tolerance,
        connector: "conformance".to_owned(),
        task: 0,
        tasks: 1,
        max_memory: 64 << 20,
        ..TaskInfo::default()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match F::Sink::open(fixture.config(), TaskContext::detached(info.clone())).await {
            Ok(sink) => {
                return Ok(Run {
                    sink,
                    durable: Durable::default(),
                    written: BTreeMap::new(),
                    letters: BTreeMap::new(),
                });
            }
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(violation(clause::HEALTHY, format!("open: {}", describe(&error)))),
        }
    }
}

impl<S: Sink> Run<S> {
    /// This is what instances before it made durable.
    pub(super) fn knowing(mut self, durable: Durable) -> Self {
        self.durable = durable;
        self
    }

    pub(super) fn durable(&self) -> Durable {
        self.durable.clone()
    }

    /// Asks for the offsets of all partitions in one call, as the host does on an announcement.
    pub(super) async fn announce(&mut self, partitions: &[&StreamPartition]) -> Check {
        let at: Vec<StreamPartition> = partitions.iter().map(|at| (*at).clone()).collect();
        let offsets = self.sink.offsets(&at).await.or_violation(clause::HEALTHY, "offsets")?;
        ensure(offsets.len() == at.len(), clause::OFFSETS, || {
            format!("{} answers to {} partitions", offsets.len(), at.len())
        })?;
        for (at, found) in at.iter().zip(offsets) {
            let expected = self.durable.partitions.get(at).and_then(|(_, offset)| offset.clone());
            let broken = if expected.is_some() { clause::TRUTH } else { clause::OFFSETS };
            ensure(found == expected, broken, || {
                format!("offset of {at} is {}, expected {}", print(found.as_ref()), print(expected.as_ref()))
            })?;
            self.durable.partitions.entry(at.clone()).or_default();
        }
        Ok(())
    }

    /// These go to another instance.
    pub(super) async fn revoke(&mut self, partitions: &[&StreamPartition]) -> Check {
        let at: Vec<StreamPartition> = partitions.iter().map(|at| (*at).clone()).collect();
        self.sink.revoke(&at).await.or_violation(clause::HEALTHY, "revoke")
    }

    /// What another instance has made durable of a partition.
    pub(super) fn learns(&mut self, at: &StreamPartition, other: &Self) {
        let durable = other.durable.partitions.get(at).cloned().unwrap_or_default();
        self.durable.partitions.insert(at.clone(), durable);
        self.durable.batches = self.durable.batches.max(other.durable.batches);
    }

    /// A batch of these rows with an offset of its own.
    pub(super) fn next_batch(&mut self, at: &StreamPartition, rows: &Rows) -> Check<ChangeBatch> {
        self.durable.batches += 1;
        let batch = self.durable.batches;
        let record_batch = rows.batch(at).map_err(|e| violation(FIXTURE, e.to_string()))?;
        Ok(ChangeBatch {
            at: at.clone(),
            schema_id: rows.schema_id(),
            rows: record_batch,
            offset: Offset::new(format!(r#"{{"batch":{batch},"text":"ü \"/%"}}"#)).fixture("an offset")?,
            ends_transaction: true,
            initial_load: false,
            dead_letters: false,
            newest_micros: 0,
        })
    }

    /// Writes so many dead letters of a source.
    pub(super) async fn write_letters(&mut self, at: &StreamPartition, count: u64) -> Check {
        let letter = |number: u64| DeadLetter {
            position: number.is_multiple_of(2).then(|| number.to_string()),
            kind: ErrorKind::Data,
            message: "it is no row".to_owned(),
            record: format!("{{\"ü\":{number}}}"),
            timestamp_micros: number.is_multiple_of(2).then_some(1),
        };
        let letters: Vec<DeadLetter> = (0..count).map(letter).collect();
        let mut batch = self.next_batch(at, &Rows::plain(0..0))?;
        batch.rows = dead_letter::to_rows(&at.stream, &letters).fixture("dead letters")?;
        batch.schema_id = u64::MAX;
        batch.dead_letters = true;
        self.sink.write(&batch).await.or_violation(clause::HEALTHY, "write of dead letters")?;
        self.written.entry(at.clone()).or_default().1 = Some(batch.offset);
        *self.letters.entry(at.clone()).or_default() += count;
        Ok(())
    }

    pub(super) async fn write(&mut self, at: &StreamPartition, rows: &Rows) -> Check {
        let taken = self.write_unless_fenced(at, rows).await?;
        ensure(taken, clause::HEALTHY, || format!("write to {at}: fenced, though nobody else writes"))
    }

    /// Writes; `false` where the sink says that it is fenced.
    pub(super) async fn write_unless_fenced(&mut self, at: &StreamPartition, rows: &Rows) -> Check<bool> {
        let batch = self.next_batch(at, rows)?;
        match self.sink.write(&batch).await {
            Ok(()) => {
                let (written, offset) = self.written.entry(at.clone()).or_default();
                written.extend(rows.landed());
                *offset = Some(batch.offset);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Fenced => Ok(false),
            Err(error) => Err(violation(clause::HEALTHY, format!("write to {at}: {}", describe(&error)))),
        }
    }

    /// Flushes; exactly these partitions have become durable, each with the last offset it was given.
    pub(super) async fn flush(&mut self, partitions: &[&StreamPartition]) -> Check {
        let flushed = self.sink.flush().await.or_violation(clause::HEALTHY, "flush")?;
        if let Some((at, error)) = flushed.failed.first() {
            return Err(violation(clause::HEALTHY, format!("flush of {at}: {}", describe(error))));
        }
        let reported: BTreeSet<&StreamPartition> = flushed.durable.iter().map(|durable| &durable.at).collect();
        let expected: BTreeSet<&StreamPartition> = partitions.iter().copied().collect();
        ensure(reported == expected && flushed.durable.len() == reported.len(), clause::DURABLE, || {
            let names = |at: &mut dyn Iterator<Item = &StreamPartition>| {
                at.map(ToString::to_string).collect::<Vec<_>>().join(", ")
            };
            format!(
                "it reports [{}], expected [{}]",
                names(&mut flushed.durable.iter().map(|durable| &durable.at)),
                names(&mut expected.iter().copied())
            )
        })?;
        for StreamOffset { at, offset } in &flushed.durable {
            let last = self.written.get(at).and_then(|(_, offset)| offset.as_ref());
            ensure(last == Some(offset), clause::DURABLE, || {
                format!("{at}: it reports {}, expected {}", print(Some(offset)), print(last))
            })?;
        }
        let mut letters = BTreeMap::new();
        for (at, count) in flushed.dead_letters {
            *letters.entry(at).or_default() += count;
        }
        let expected = std::mem::take(&mut self.letters);
        ensure(letters == expected, clause::LETTERS, || format!("it reports {letters:?}, expected {expected:?}"))?;
        for (at, (rows, offset)) in std::mem::take(&mut self.written) {
            let durable = self.durable.partitions.entry(at).or_default();
            durable.0.extend(rows);
            durable.1 = offset;
        }
        Ok(())
    }

    /// A foreign reader finds what is durable, and only that.
    pub(super) async fn landed<F: SinkFixture>(&self, fixture: &mut F) -> Check {
        self.compare(fixture, None).await
    }

    /// A foreign reader finds nothing of what was written since: if it does, this clause is broken.
    pub(super) async fn nothing_new<F: SinkFixture>(&self, fixture: &mut F, broken: &'static str) -> Check {
        self.compare(fixture, Some(broken)).await
    }

    async fn compare<F: SinkFixture>(&self, fixture: &mut F, too_early: Option<&'static str>) -> Check {
        for (at, (_, expected)) in &self.durable.partitions {
            let Landed { rows, offset } = fixture.landed(at).await.fixture("landed")?;
            let mut missing: HashMap<i64, &LandedRow> =
                self.durable_rows(&at.stream).map(|row| (row.id, row)).collect();
            let durable = missing.len();
            for row in &rows {
                let Some(expected) = missing.remove(&row.id) else {
                    let again = self.durable_rows(&at.stream).any(|durable| durable.id == row.id);
                    let (broken, found) = match (too_early, again) {
                        (Some(broken), false) => (broken, "is visible"),
                        (_, false) => (clause::ROWS, "landed, which was not made durable"),
                        (_, true) => (clause::ROWS, "landed twice"),
                    };
                    return Err(violation(broken, format!("{}: row {} {found}", at.stream, row.id)));
                };
                ensure(row.note == expected.note, clause::ROWS, || {
                    format!("{}: row {} has note {:?}, expected {:?}", at.stream, row.id, row.note, expected.note)
                })?;
                ensure(row.added == expected.added, clause::SCHEMAS, || {
                    format!("{}: row {} has added {:?}, expected {:?}", at.stream, row.id, row.added, expected.added)
                })?;
            }
            let whole = missing.is_empty();
            let broken = match too_early {
                Some(broken) if whole => broken,
                None if !whole && offset != *expected => clause::DURABLE,
                _ => clause::ONE_STEP,
            };
            ensure(whole && offset == *expected, broken, || {
                format!(
                    "{at}: {} of {durable} rows and offset {} are visible, expected all and {}",
                    durable - missing.len(),
                    print(offset.as_ref()),
                    print(expected.as_ref())
                )
            })?;
            if F::ORDERED {
                self.check_order(at, &rows)?;
            }
        }
        Ok(())
    }

    fn check_order(&self, at: &StreamPartition, rows: &[LandedRow]) -> Check {
        let written: Vec<i64> = self
            .durable
            .partitions
            .get(at)
            .map(|(rows, _)| rows.iter().map(|row| row.id).collect())
            .unwrap_or_default();
        let own: BTreeSet<i64> = written.iter().copied().collect();
        let found: Vec<i64> = rows.iter().map(|row| row.id).filter(|id| own.contains(id)).collect();
        let mut pairs = written.iter().zip(&found);
        match pairs.find(|(written, found)| written != found) {
            None => Ok(()),
            Some((written, found)) => {
                Err(violation(clause::ORDER, format!("{at}: row {found} stands where row {written} was written")))
            }
        }
    }

    fn durable_rows<'a>(&'a self, stream: &'a StreamName) -> impl Iterator<Item = &'a LandedRow> {
        let partitions = self.durable.partitions.iter().filter(move |(at, _)| at.stream == *stream);
        partitions.flat_map(|(_, (rows, _))| rows)
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.sink.buffered_bytes()
    }

    /// `write` must refuse this batch, and with a kind that the host does not retry.
    pub(super) async fn expect_refused(&mut self, batch: &ChangeBatch) -> Check {
        match self.sink.write(batch).await {
            Ok(()) => Err(violation(clause::AS_NEVER_GIVEN, "write took the batch".to_owned())),
            Err(error) => ensure(stops(error.kind()), clause::AS_NEVER_GIVEN, || {
                format!("write refused it with a kind that the host retries: {}", describe(&error))
            }),
        }
    }

    /// Another instance has committed for the partition: the flush must fail as fenced, and nothing of it may land.
    pub(super) async fn expect_fenced(&mut self) -> Check {
        self.expect_failed_flush(ErrorKind::Fenced, clause::FENCED).await
    }

    /// The flush fails with this kind, or what it could not make durable does.
    pub(super) async fn expect_failed_flush(&mut self, kind: ErrorKind, broken: &'static str) -> Check {
        let errors: Vec<Error> = match self.sink.flush().await {
            Ok(Flushed { durable, failed, .. }) => {
                if let Some(durable) = durable.first() {
                    let offset = print(Some(&durable.offset));
                    return Err(violation(broken, format!("flush reports {offset} of {} as durable", durable.at)));
                }
                failed.into_iter().map(|(_, error)| error).collect()
            }
            Err(error) => vec![error],
        };
        let found = || errors.iter().map(describe).collect::<Vec<_>>().join("; ");
        ensure(!errors.is_empty() && errors.iter().all(|error| error.kind() == kind), broken, || {
            format!("flush fails with [{}], expected kind {kind}", found())
        })
    }

    /// Closes the instance; what was not flushed is gone.
    pub(super) async fn close(self) -> Check<Durable> {
        let closing = tokio::time::timeout(PATIENCE * 2, self.sink.close(PATIENCE)).await;
        let closed = closing.map_err(|_| violation(clause::HEALTHY, format!("close took over {PATIENCE:?}")))?;
        closed.or_violation(clause::HEALTHY, "close")?;
        Ok(self.durable)
    }

    /// Lets go of the instance as a process that dies does.
    pub(super) fn crash(self) -> Durable {
        self.durable
    }
}

fn print(offset: Option<&Offset>) -> &str {
    offset.map_or("none", Offset::as_str)
}
