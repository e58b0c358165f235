//! Acknowledging: the rows of batches that are durable in the sink are marked or deleted, by their ids.
//!
//! It is garbage collection, off the critical path: that a row is safe is said by the offset in the sink's table. Each
//! statement is conditional on this task's epoch, and does all of it or nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use philotes_sdk::{Error, Offset, Result, StreamName, StreamOffset, TaskContext, failpoint};
use tokio::sync::Notify;
use tokio_postgres::Client;

use crate::claim::Claim;
use crate::config::{Acknowledge, Unrouted};
use crate::connect::failed;
use crate::offset::BufferOffset;
use crate::ranges::{Range, multirange};
use crate::ready::Ready;

/// Rows of one statement, roughly: it shall not run for minutes.
const ROWS_TOGETHER: u64 = 100_000;
/// Batches of an earlier epoch in one statement.
const BATCHES_TOGETHER: usize = 8;
/// How often old rows are looked for, and how many of them one statement deletes.
const RETENTION_TICK: Duration = Duration::from_secs(60);
const RETENTION_ROWS: i64 = 5_000;

/// A batch that was handed out and is not acknowledged.
struct Open {
    batch: i64,
    ids: Vec<Range>,
    rows: u64,
}

#[derive(Default)]
struct Books {
    open: HashMap<StreamName, VecDeque<Open>>,
    /// How far each stream is durable.
    durable: HashMap<StreamName, i64>,
    /// Rows that nobody wants, to be acknowledged.
    unwanted: Vec<Range>,
    /// Ids whose acknowledgement has committed since the last snapshot began.
    settled: Vec<Range>,
    /// The task is in the middle of a statement.
    busy: bool,
    /// The task has ended; nothing more will be acknowledged.
    ended: bool,
}

/// Which batches are out, how far they are durable, and what has been acknowledged: shared by the tasks.
#[derive(Default)]
pub(crate) struct Ledger {
    books: Mutex<Books>,
    /// There is something to acknowledge.
    wake: Notify,
    /// Something was acknowledged.
    done: Notify,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        // No code under the lock can leave it half done.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handed_out(&self, stream: &StreamName, batch: i64, ids: Vec<Range>, rows: u64) {
        let open = Open { batch, ids, rows };
        self.books().open.entry(stream.clone()).or_default().push_back(open);
    }

    /// The host says that these offsets are durable; they must be of this claim.
    pub(crate) fn commit(&self, claim: &Claim, offsets: &[StreamOffset]) -> Result<()> {
        let mut books = self.books();
        for StreamOffset { at, offset } in offsets {
            let BufferOffset { lineage, epoch, batch } = BufferOffset::parse(offset)?;
            if lineage != claim.lineage || epoch != claim.epoch {
                return Err(Error::internal(format!("stream {}: an offset of another open was committed", at.stream)));
            }
            let durable = books.durable.entry(at.stream.clone()).or_insert(batch);
            *durable = batch.max(*durable);
        }
        drop(books);
        self.wake.notify_one();
        Ok(())
    }

    /// Rows that nobody wants are to be acknowledged.
    pub(crate) fn unwanted(&self, ids: &[Range]) {
        self.books().unwanted.extend_from_slice(ids);
        self.wake.notify_one();
    }

    /// The ids whose acknowledgement has committed since this was last asked.
    pub(crate) fn take_settled(&self) -> Vec<Range> {
        std::mem::take(&mut self.books().settled)
    }

    /// Waits until all that is durable is acknowledged; false where it never will be, because the task has ended.
    pub(crate) async fn finished(&self) -> bool {
        loop {
            let done = self.done.notified();
            {
                let books = self.books();
                if books.durable.is_empty() && books.unwanted.is_empty() && !books.busy {
                    return true;
                }
                if books.ended {
                    return false;
                }
            }
            done.await;
        }
    }

    fn next(&self) -> Option<Work> {
        let mut books = self.books();
        let books = &mut *books;
        books.busy = true;
        while let Some((stream, durable)) = books.durable.iter().next() {
            let (stream, durable) = (stream.clone(), *durable);
            let open = books.open.entry(stream.clone()).or_default();
            let (mut ids, mut rows, mut last) = (Vec::new(), 0, None);
            while rows < ROWS_TOGETHER
                && let Some(front) = open.pop_front_if(|open| open.batch <= durable)
            {
                ids.extend(front.ids);
                rows += front.rows;
                last = Some(front.batch);
            }
            if open.front().is_none_or(|open| open.batch > durable) {
                books.durable.remove(&stream);
            }
            if let Some(batch) = last {
                return Some(Work::Batches { stream, batch, ids, rows });
            }
        }
        if !books.unwanted.is_empty() {
            return Some(Work::Unwanted(std::mem::take(&mut books.unwanted)));
        }
        books.busy = false;
        None
    }

    fn settle(&self, ids: Vec<Range>) {
        let mut books = self.books();
        books.settled.extend(ids);
        books.busy = false;
        drop(books);
        self.done.notify_waiters();
    }
}

/// Notes the end of the task, a panic's too.
struct Ending<'a>(&'a Ledger);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.books().ended = true;
        self.0.done.notify_waiters();
    }
}

enum Work {
    Batches { stream: StreamName, batch: i64, ids: Vec<Range>, rows: u64 },
    Unwanted(Vec<Range>),
}

/// Writes acknowledgements on a session of its own.
#[derive(Clone)]
pub(crate) struct Acknowledger {
    pub(crate) client: Arc<Client>,
    pub(crate) claim: Claim,
    pub(crate) mode: Acknowledge,
    /// `None` keeps marked rows for ever.
    pub(crate) retention: Option<Duration>,
    pub(crate) unrouted: Unrouted,
    pub(crate) context: TaskContext,
}

impl Acknowledger {
    /// Acknowledges what becomes durable, and deletes what is old, until the task is aborted or fails.
    pub(crate) async fn run(self, ledger: Arc<Ledger>, ready: Arc<Ready>) -> Result<()> {
        let _ending = Ending(&ledger);
        let mut swept: Option<Instant> = None;
        loop {
            match ledger.next() {
                Some(Work::Batches { stream, batch, ids, rows }) => {
                    let offset = self.claim.offset(batch);
                    self.acknowledge(&stream, &offset).await?;
                    self.context.count(
                        "philotes_buffer_acknowledged_rows_total",
                        rows,
                        &[("stream", &stream.to_string())],
                    );
                    ledger.settle(ids);
                }
                Some(Work::Unwanted(ids)) => {
                    debug_assert_eq!(self.unrouted, Unrouted::Acknowledge);
                    self.acknowledge_unwanted(&ids).await?;
                    ledger.settle(ids);
                }
                None => {
                    ledger.done.notify_waiters();
                    if swept.is_none_or(|swept| swept.elapsed() >= RETENTION_TICK) {
                        if self.sweep().await? {
                            continue;
                        }
                        swept = Some(Instant::now());
                    }
                    tokio::select! {
                        () = ledger.wake.notified() => {}
                        () = tokio::time::sleep(RETENTION_TICK) => {}
                    }
                }
            }
            // Rows that were settled can leave the reader's memory at its next snapshot.
            ready.wake.notify_one();
        }
    }

    /// What becomes of the unprocessed rows of the buffer whose ids `covered` holds.
    ///
    /// The statement leaves the planner one way, the primary key. To a join with the ranges every plan is equally good, and
    /// with many short ranges it compares each with every row; so it is an array of ids. And where the table's statistics are
    /// old, an index of unprocessed rows seems to hold next to none; so conditions on anything but the id stand in a CASE.
    fn change(&self, condition: &str) -> String {
        let ids = "ARRAY(SELECT generate_series(first, past - 1) FROM covered)";
        let rows =
            format!("e.id = ANY ({ids}) AND CASE WHEN e.processed_at IS NULL THEN e.source_id = $1 {condition} END");
        match self.mode {
            Acknowledge::Mark => format!("UPDATE philotes.cdc_events e SET processed_at = now() WHERE {rows}"),
            Acknowledge::Delete => format!("DELETE FROM philotes.cdc_events e WHERE {rows}"),
        }
    }

    /// The statement that acknowledges a stream up to an offset.
    pub(crate) fn statement(&self) -> String {
        let change = self.change("AND e.schema_name = $8 AND e.table_name = $9");
        format!(
            "WITH owner AS MATERIALIZED (SELECT FROM philotes.connectors WHERE source_id = $1 AND epoch = $2 AND \
             epoch_bits = $3 FOR SHARE), \
             listed AS (DELETE FROM philotes.batches b USING owner WHERE b.source_id = $1 AND b.stream = $4 AND \
             (b.epoch, b.batch) <= ($5, $7) RETURNING b.epoch, b.epoch_bits, b.ids), \
             covered AS MATERIALIZED (SELECT lower(r.r) AS first, upper(r.r) AS past FROM listed, unnest(listed.ids) AS r \
             WHERE listed.epoch = $5 AND listed.epoch_bits = $6), \
             changed AS ({change}) \
             INSERT INTO philotes.acknowledged (source_id, stream, epoch, epoch_bits, batch) \
             SELECT $1, $4, $5, $6, $7 FROM owner ON CONFLICT (source_id, stream) DO UPDATE \
             SET epoch = EXCLUDED.epoch, epoch_bits = EXCLUDED.epoch_bits, batch = EXCLUDED.batch"
        )
    }

    /// Acknowledges a stream up to this offset, which may be of an earlier epoch.
    async fn acknowledge(&self, stream: &StreamName, offset: &BufferOffset) -> Result<()> {
        let [schema, table] = stream.parts() else {
            return Err(Error::internal(format!("stream {stream}: a name of two parts was expected")));
        };
        let Claim { source_id, epoch, .. } = &self.claim;
        let printed = stream.to_string();
        let BufferOffset { epoch: of, batch, .. } = offset;
        failpoint!("acknowledgement.unsent", |message| Error::unavailable(message));
        let written = self
            .client
            .execute(
                &self.statement(),
                &[source_id, &epoch.counter, &epoch.bits, &printed, &of.counter, &of.bits, batch, schema, table],
            )
            .await
            .map_err(|e| failed("cannot acknowledge", e))?;
        failpoint!("acknowledgement.done", |message| Error::unavailable(message));
        if written == 1 { Ok(()) } else { Err(self.claim.fenced()) }
    }

    async fn acknowledge_unwanted(&self, ids: &[Range]) -> Result<()> {
        let Claim { source_id, epoch, .. } = &self.claim;
        let change = self.change("");
        let statement = format!(
            "WITH owner AS MATERIALIZED (SELECT FROM philotes.connectors WHERE source_id = $1 AND epoch = $2 AND \
             epoch_bits = $3 FOR SHARE), \
             covered AS MATERIALIZED (SELECT lower(r) AS first, upper(r) AS past FROM owner, unnest($4::text::int8multirange) AS r), \
             changed AS ({change}) SELECT count(*) FROM owner"
        );
        let row = self
            .client
            .query_one(&statement, &[source_id, &epoch.counter, &epoch.bits, &multirange(ids)])
            .await
            .map_err(|e| failed("cannot acknowledge rows that are not routed", e))?;
        if row.get::<_, i64>(0) == 1 { Ok(()) } else { Err(self.claim.fenced()) }
    }

    /// Deletes some of the rows that have been marked for longer than the retention; whether there may be more.
    async fn sweep(&self) -> Result<bool> {
        let Some(retention) = self.retention else { return Ok(false) };
        let Claim { source_id, epoch, .. } = &self.claim;
        let seconds = retention.as_secs_f64();
        let deleted = self
            .client
            .execute(
                "WITH owner AS MATERIALIZED (SELECT FROM philotes.connectors WHERE source_id = $1 AND epoch = $2 AND \
                 epoch_bits = $3 FOR SHARE) DELETE FROM philotes.cdc_events e USING owner WHERE e.id IN (SELECT id FROM \
                 philotes.cdc_events WHERE source_id = $1 AND processed_at < now() - $4::float8 * interval '1 second' \
                 ORDER BY processed_at LIMIT $5)",
                &[source_id, &epoch.counter, &epoch.bits, &seconds, &RETENTION_ROWS],
            )
            .await
            .map_err(|e| failed("cannot delete rows that are past their retention", e))?;
        Ok(deleted == RETENTION_ROWS.unsigned_abs())
    }

    /// Answers `resume`: checks the sink's offset against what the buffer knows, then acknowledges what it covers.
    pub(crate) async fn resume(&self, stream: &StreamName, offset: Option<&Offset>) -> Result<()> {
        let context = |e| failed("cannot resume", e);
        let Claim { source_id, lineage, .. } = &self.claim;
        let printed = stream.to_string();
        let stored = self
            .client
            .query_opt(
                "SELECT epoch, epoch_bits, batch FROM philotes.acknowledged WHERE source_id = $1 AND stream = $2",
                &[source_id, &printed],
            )
            .await
            .map_err(context)?
            .map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)));
        let refused = |why: &str| {
            Err(Error::config(format!(
                "stream {stream}: {why}; look at the table, then set or reset the sink's offset with its action `offsets`, \
                 or clear the source's memory of the stream: DELETE FROM philotes.acknowledged WHERE source_id = '{source_id}' \
                 AND stream = '{printed}'"
            )))
        };
        let Some(offset) = offset else {
            return match stored {
                None => self.still_ours().await,
                Some(_) => refused(
                    "the sink knows no offset, but rows of this stream were acknowledged and will not come again: was the \
                     table dropped or rolled back?",
                ),
            };
        };
        let offset = BufferOffset::parse(offset).map_err(|error| error.context(format!("stream {stream}")))?;
        if offset.lineage != *lineage {
            return refused(&format!(
                "the sink's offset is of another buffer ({}, here is {lineage}): was the buffer or its server recreated?",
                offset.lineage
            ));
        }
        let BufferOffset { epoch, batch, .. } = &offset;
        if stored != Some((epoch.counter, epoch.bits, *batch)) {
            let listed: Vec<i64> = self
                .client
                .query(
                    "SELECT batch FROM philotes.batches WHERE source_id = $1 AND stream = $2 AND epoch = $3 AND \
                     epoch_bits = $4 AND batch <= $5 ORDER BY batch",
                    &[source_id, &printed, &epoch.counter, &epoch.bits, batch],
                )
                .await
                .map_err(context)?
                .iter()
                .map(|row| row.get(0))
                .collect();
            if listed.last() != Some(batch) {
                return refused("the buffer does not know the sink's offset: was the table or the buffer rolled back?");
            }
            // Each step is an acknowledgement of its own, of an offset on the way.
            for step in listed.chunks(BATCHES_TOGETHER) {
                let Some(last) = step.last() else { continue };
                self.acknowledge(stream, &BufferOffset { batch: *last, ..offset.clone() }).await?;
            }
            return Ok(());
        }
        self.acknowledge(stream, &offset).await
    }

    /// An error where the epoch has moved.
    pub(crate) async fn still_ours(&self) -> Result<()> {
        let Claim { source_id, epoch, .. } = &self.claim;
        self.client
            .query_opt(
                "SELECT FROM philotes.connectors WHERE source_id = $1 AND epoch = $2 AND epoch_bits = $3",
                &[source_id, &epoch.counter, &epoch.bits],
            )
            .await
            .map_err(|e| failed("cannot read the epoch", e))?
            .map(|_| ())
            .ok_or_else(|| self.claim.fenced())
    }
}
