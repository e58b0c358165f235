//! Reads the buffer: one snapshot after the other, each from the lowest id that was not dealt with.
//!
//! Receiving and decoding share a task, so that a row costs no hand-over between threads; the server works ahead into the
//! socket's buffer meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use philotes_sdk::{Error, ErrorKind, Result, StreamPartition, TaskContext, failpoint};
use tokio::sync::mpsc;

use crate::acknowledge::Ledger;
use crate::claim::Claim;
use crate::config::{Settings, Unrouted};
use crate::connect::{Session, failed};
use crate::copy::{Row, Rows};
use crate::decode::{Appended, StreamDecoder, stream_name};
use crate::describe::Catalog;
use crate::letters::{self, Letters};
use crate::ranges::{self, Range};
use crate::ready::Ready;
use crate::registrar::{Closed, Content};
use crate::seen::Seen;
use crate::sql::{Snapshot, Wanted};
use crate::unreadable;
use crate::waiting::Waiting;

/// What a column of a stream takes beside its rows, in bytes: in its decoder, and in schemas of Arrow.
const COLUMN_BYTES: usize = 3 << 9;
/// Rows of the first snapshot, which finds out what streams there are.
const FIRST_LIMIT: u64 = 10_000;
/// Rows of a snapshot at most, and how long one shall take at the pace of the one before: it holds back vacuum.
const MAX_LIMIT: u64 = 500_000;
const SNAPSHOT_TIME: Duration = Duration::from_secs(10);
/// After rows of an unknown stream this many more are read before it is announced, so that others join it.
const GATHER: u64 = 10_000;
/// Between snapshots that did not find their limit: many small batches cost a commit each.
const LINGER: Duration = Duration::from_millis(50);
/// One part in this many is the time that may be spent looking in vain, and where the host waits to hear that all is read.
const IDLE_SHARE: u32 = 10;
const HURRIED_SHARE: u32 = 2;
/// The longest pause for that reason.
const MAX_SPACING: Duration = Duration::from_secs(5);

enum Status {
    /// The route does not take it.
    Unwanted { rows: u64, ids: Vec<Range> },
    /// Not announced yet, or announced and not resumed.
    Unknown { announced: bool },
    /// Resumed before the running snapshot began.
    Resumed,
}

struct Stream {
    at: Arc<StreamPartition>,
    schema: String,
    table: String,
    status: Status,
    decoder: StreamDecoder,
    /// Rows that cannot be decoded, where the connector tolerates them.
    letters: Letters,
    /// Rows that went into batches.
    delivered: u64,
}

/// What a snapshot brought.
#[derive(Default)]
struct Outcome {
    /// Rows the server sent.
    rows: u64,
    /// Rows that went into batches.
    delivered: u64,
    /// Streams that were met for the first time.
    unknown: Vec<usize>,
    /// How long the server looked at what was seen already: until the first row came, or all of it.
    in_vain: Duration,
    /// It ended before its limit: everything visible was read.
    complete: bool,
}

/// The reader and all it knows.
pub(crate) struct Reader {
    session: Session,
    settings: Settings,
    claim: Claim,
    context: TaskContext,
    ready: Arc<Ready>,
    ledger: Arc<Ledger>,
    catalog: Option<Catalog>,
    closed: mpsc::Sender<Closed>,
    seen: Seen,
    streams: Vec<Stream>,
    index: HashMap<(Vec<u8>, Vec<u8>), usize>,
    /// The streams of the running snapshot's marks.
    marked: Vec<usize>,
    limit: u64,
    /// Memory of the batches that are being built.
    open_bytes: usize,
    /// Too many unwanted rows to remember: they are left out by name.
    unwanted_by_name: bool,
    /// Snapshots in a row that ended at a row that could be read alone.
    vain_looks: u32,
    waiting: Waiting,
}

/// What [`Reader::new`] needs.
pub(crate) struct Parts {
    pub(crate) session: Session,
    pub(crate) settings: Settings,
    pub(crate) claim: Claim,
    pub(crate) context: TaskContext,
    pub(crate) ready: Arc<Ready>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) closed: mpsc::Sender<Closed>,
    /// Says what the reader waits for.
    pub(crate) waiting: Waiting,
}

impl Reader {
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let Parts { session, settings, claim, context, ready, ledger, closed, waiting } = parts;
        let catalog = Catalog::new(&settings.config, context.info().renewed)?;
        Ok(Self {
            session,
            settings,
            claim,
            context,
            ready,
            ledger,
            catalog,
            closed,
            seen: Seen::default(),
            streams: Vec::new(),
            index: HashMap::new(),
            marked: Vec::new(),
            limit: FIRST_LIMIT,
            open_bytes: 0,
            unwanted_by_name: false,
            vain_looks: 0,
            waiting,
        })
    }

    /// Takes snapshots until the task is aborted or fails.
    pub(crate) async fn run(mut self) -> Result<()> {
        let client = Arc::clone(&self.session.client);
        let check =
            client.prepare("SELECT FROM philotes.connectors WHERE source_id = $1 AND epoch = $2 AND epoch_bits = $3");
        let check = drive_in(&mut self.session, check).await?;
        loop {
            self.wait_for_answers().await?;
            // Their acknowledgement has committed, and this snapshot begins after it.
            self.seen.acknowledged(&self.ledger.take_settled());
            self.session.notified = false;
            let begun = Instant::now();
            // An idle task writes nothing, and would not notice that it was fenced.
            let Claim { source_id, epoch, .. } = &self.claim;
            let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [source_id, &epoch.counter, &epoch.bits];
            let looked = drive_in(&mut self.session, client.query(&check, &arguments));
            if self.waiting.during(looked).await?.is_empty() {
                return Err(self.claim.fenced());
            }
            let outcome = self.snapshot().await?;
            let took = begun.elapsed();
            self.adapt(&outcome, took);
            self.report_unwanted();
            let announced = self.announce(&outcome.unknown);
            self.ready.snapshot_done(begun, outcome.complete && outcome.delivered == 0 && !announced);
            if outcome.complete && !announced {
                self.pause(&outcome, took).await?;
            }
        }
    }

    async fn wait_for_answers(&mut self) -> Result<()> {
        while !self.ready.answered() {
            let wake = self.ready.wake.notified();
            self.session.wait(wake).await?;
            self.session.notified = false;
        }
        let resumed = self.ready.take_resumed();
        if !resumed.is_empty() {
            // A short one teaches the decoders what later snapshots need not send.
            self.limit = FIRST_LIMIT;
        }
        for resumed in resumed {
            for stream in self.streams.iter_mut().filter(|stream| stream.at.stream == resumed) {
                stream.status = Status::Resumed;
            }
        }
        Ok(())
    }

    /// Reads everything visible, up to the limit.
    async fn snapshot(&mut self) -> Result<Outcome> {
        let context = |e| failed("cannot read the buffer", e);
        let statement = self.statement();
        let begun = Instant::now();
        let client = Arc::clone(&self.session.client);
        let begin = drive_in(&mut self.session, client.copy_out(&statement));
        let mut copy = Box::pin(self.waiting.during(begin).await?);
        let mut rows = Rows::default();
        let mut outcome = Outcome::default();
        let mut last = None;
        let mut found_unknown_at = None;
        let mut at = None;
        let mut stopped = false;
        let mut unreadable = None;
        while let Some(message) = self.session.next(&mut copy).await? {
            match message {
                Ok(message) => rows.feed(message),
                Err(error) if unreadable::about_a_row(&error) => {
                    unreadable = Some(error);
                    stopped = true;
                    break;
                }
                Err(error) => return Err(context(error)),
            }
            while let Some(row) = rows.next()? {
                if last.is_some_and(|last| last >= row.id) {
                    return Err(Error::internal("the server sent rows of the buffer out of order"));
                }
                if outcome.rows == 0 {
                    outcome.in_vain = begun.elapsed();
                }
                last = Some(row.id);
                outcome.rows += 1;
                let stream = self.stream_of(&row, at)?;
                at = Some(stream);
                match &mut self.streams[stream].status {
                    Status::Unwanted { rows, ids } => {
                        *rows += 1;
                        ranges::push(ids, row.id);
                    }
                    Status::Unknown { announced: true } => {}
                    Status::Unknown { announced } => {
                        *announced = true;
                        outcome.unknown.push(stream);
                        found_unknown_at.get_or_insert(outcome.rows);
                    }
                    Status::Resumed => {
                        self.append(stream, &row).await?;
                        outcome.delivered += 1;
                        self.streams[stream].delivered += 1;
                    }
                }
            }
            if found_unknown_at.is_some_and(|at| outcome.rows >= at + GATHER) && outcome.delivered == 0 {
                // Nothing here is for the host before it has answered.
                stopped = true;
                break;
            }
        }
        if outcome.rows == 0 {
            outcome.in_vain = begun.elapsed();
        }
        drop(copy);
        match unreadable {
            Some(error) => self.leave_out(last, error, &mut outcome).await?,
            None => self.vain_looks = 0,
        }
        outcome.complete = !stopped && outcome.rows < self.limit;
        self.close_all(outcome.complete).await?;
        self.settle_unwanted();
        Ok(outcome)
    }

    /// The next snapshot's statement; remembers which streams it marks.
    fn statement(&mut self) -> String {
        let mut busiest: Vec<usize> = (0..self.streams.len()).collect();
        busiest.sort_by_key(|at| std::cmp::Reverse(self.streams[*at].delivered));
        busiest.retain(|at| matches!(self.streams[*at].status, Status::Resumed));
        let mut parts: Vec<Option<Wanted<'_>>> = Vec::new();
        let mut left_out = Vec::new();
        for stream in &mut self.streams {
            let keyed = self.settings.keys.of(&stream.at.stream).is_some();
            let part = Wanted { schema: &stream.schema, table: &stream.table, known: stream.decoder.know(), keyed };
            let by_name = self.unwanted_by_name && matches!(stream.status, Status::Unwanted { .. });
            if by_name {
                left_out.push(part);
                parts.push(None);
            } else {
                parts.push(Some(part));
            }
        }
        let wanted: Vec<Wanted<'_>> = busiest.iter().filter_map(|at| parts[*at].take()).collect();
        let statement = Snapshot {
            source_id: &self.claim.source_id,
            probes: &self.seen.probes(),
            wanted: &wanted,
            left_out: &left_out,
            limit: self.limit,
            indexed: self.claim.indexed,
        }
        .statement();
        self.marked = busiest;
        statement
    }

    /// The stream of a row; `last` is the stream of the row before, which is most often the same.
    fn stream_of(&mut self, row: &Row<'_>, last: Option<usize>) -> Result<usize> {
        if let Some(place) = row.place {
            let marked = self.marked.get(place).copied();
            return marked.ok_or_else(|| Error::internal("the server marks a stream that it was not told"));
        }
        if let Some(last) = last {
            let stream = &self.streams[last];
            if stream.table.as_bytes() == row.table && stream.schema.as_bytes() == row.schema {
                return Ok(last);
            }
        }
        let key = (row.schema.to_vec(), row.table.to_vec());
        if let Some(stream) = self.index.get(&key) {
            return Ok(*stream);
        }
        let name = stream_name(row)?;
        let status = if self.context.info().route.wants(&name) {
            Status::Unknown { announced: false }
        } else {
            tracing::info!(stream = %name, unrouted = ?self.settings.config.unrouted, "the route does not take this stream");
            Status::Unwanted { rows: 0, ids: Vec::new() }
        };
        let [schema, table] = name.parts() else { return Err(Error::internal("a stream's name has two parts")) };
        let stream = Stream {
            schema: schema.clone(),
            table: table.clone(),
            status,
            delivered: 0,
            decoder: StreamDecoder::new(name.clone(), self.catalog.is_some(), self.settings.columns.of(&name))
                .identified_by(self.settings.keys.of(&name)),
            letters: Letters::default(),
            at: Arc::new(StreamPartition::only(name)),
        };
        self.streams.push(stream);
        self.index.insert(key, self.streams.len() - 1);
        Ok(self.streams.len() - 1)
    }

    async fn append(&mut self, at: usize, row: &Row<'_>) -> Result<()> {
        debug_assert!(!self.seen.contains(row.id), "the snapshot leaves out what was seen");
        let mut bytes = self.streams[at].decoder.bytes();
        loop {
            let appended = match self.streams[at].decoder.append(row) {
                Ok(Appended::Done) => break,
                Ok(appended) => appended,
                Err(error) => return self.tolerate(at, row, error).await,
            };
            self.close(at, false).await?;
            bytes = 0;
            if appended == Appended::TypesWanted
                && let Err(error) = self.ask_catalog(at).await
            {
                return self.tolerate(at, row, error).await;
            }
        }
        let decoder = &self.streams[at].decoder;
        self.open_bytes += decoder.bytes() - bytes;
        if decoder.rows() >= self.settings.config.batch_rows as usize || decoder.bytes() >= self.ready.max_batch_bytes()
        {
            self.close(at, false).await?;
        } else if self.open_bytes >= self.ready.max_open_bytes() {
            // Many streams at once.
            self.close_all(false).await?;
        }
        Ok(())
    }

    /// Makes a dead letter of a row that cannot be decoded, where the connector tolerates that.
    async fn tolerate(&mut self, at: usize, row: &Row<'_>, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Data || !self.context.info().tolerance.dead_letters() {
            return Err(error);
        }
        // What is left of the row in the decoder goes with the batch.
        self.close(at, false).await?;
        let letters = &mut self.streams[at].letters;
        letters.push(row, &error);
        self.open_bytes += letters::bytes(row);
        if letters.rows() >= self.settings.config.batch_rows as usize || letters.bytes() >= self.ready.max_batch_bytes()
        {
            self.close_letters(at).await?;
        } else if self.open_bytes >= self.ready.max_open_bytes() {
            self.close_all(false).await?;
        }
        Ok(())
    }

    /// Makes a dead letter of the row that ended a snapshot with this error, after `last`, or says
    /// which it is.
    async fn leave_out(
        &mut self,
        last: Option<i64>,
        error: tokio_postgres::Error,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let found = unreadable::find(&mut self.session, &self.claim.source_id, &self.seen, last).await?;
        let Some(unreadable) = found else {
            // Others will have come between; should it go on so, the error itself is told.
            self.vain_looks += 1;
            return if self.vain_looks < 3 { Ok(()) } else { Err(failed("cannot read the buffer", error)) };
        };
        self.vain_looks = 0;
        let Some(at) = self
            .streams
            .iter()
            .position(|stream| stream.schema == unreadable.schema && stream.table == unreadable.table)
        else {
            return Err(failed("cannot read the buffer", error));
        };
        let stream = &mut self.streams[at];
        let told = unreadable.error.context(format!("stream {}, buffer id {}", stream.at.stream, unreadable.id));
        if !self.context.info().tolerance.dead_letters() {
            // The server may have memory again in a moment.
            let passes = error.code().is_some_and(|code| code.code().starts_with("53"));
            return Err(if passes { Error::unavailable(told.to_string()) } else { told });
        }
        stream.letters.push_unreadable(unreadable.id, unreadable.created_at, &told);
        stream.delivered += 1;
        outcome.delivered += 1;
        self.open_bytes += letters::UNREADABLE_BYTES;
        Ok(())
    }

    async fn ask_catalog(&mut self, at: usize) -> Result<()> {
        let Some(catalog) = &self.catalog else { return Ok(()) };
        let stream = &mut self.streams[at];
        let columns = catalog.columns(&stream.schema, &stream.table).await?;
        if columns.is_empty() {
            tracing::warn!(stream = %stream.at.stream, "the database of types_from has no such table");
        }
        stream.decoder.tell(&columns)
    }

    /// Closes a stream's batch and sends it to be written down.
    async fn close(&mut self, at: usize, ends_transaction: bool) -> Result<()> {
        let stream = &mut self.streams[at];
        let bytes = stream.decoder.bytes();
        let Some(built) = stream.decoder.close()? else { return Ok(()) };
        failpoint!("batch.decoded", |message| Error::unavailable(message));
        self.open_bytes -= bytes;
        let buffer_rows = built.buffer_rows;
        let (ids, newest_micros) = (built.ids.clone(), built.newest_micros);
        let content = Content::Rows { rows: built.rows, schema_id: built.schema_id };
        let at = Arc::clone(&stream.at);
        let columns: usize = self.streams.iter().map(|stream| stream.decoder.columns()).sum();
        self.ready.keep(columns * COLUMN_BYTES);
        self.hand_over(Closed { at, content, ids, buffer_rows, newest_micros, bytes, ends_transaction }).await
    }

    /// Closes a stream's batch of dead letters and sends it to be written down.
    async fn close_letters(&mut self, at: usize) -> Result<()> {
        let stream = &mut self.streams[at];
        let bytes = stream.letters.bytes();
        let Some(letters) = stream.letters.close() else { return Ok(()) };
        self.open_bytes -= bytes;
        letters.warn(&stream.at.stream);
        let at = Arc::clone(&stream.at);
        let overrides = self.settings.columns.of(&at.stream);
        self.hand_over(Closed {
            at,
            ids: letters.ids.clone(),
            buffer_rows: letters.faults.len() as u64,
            newest_micros: letters.newest_micros,
            content: Content::Letters(letters.faults, overrides),
            bytes,
            ends_transaction: false,
        })
        .await
    }

    async fn hand_over(&mut self, closed: Closed) -> Result<()> {
        self.seen.emitted(&closed.ids);
        while !self.ready.admit(closed.bytes) {
            self.ready.wake.notified().await;
        }
        // The registrar has failed, and said why.
        self.closed.send(closed).await.map_err(|_| Error::unavailable("the session that writes down batches was lost"))
    }

    /// Closes every batch; after a complete snapshot the last one ends its transactions.
    async fn close_all(&mut self, complete: bool) -> Result<()> {
        let last = self.streams.iter().rposition(|stream| stream.decoder.rows() > 0);
        for at in 0..self.streams.len() {
            self.close_letters(at).await?;
            self.close(at, complete && Some(at) == last).await?;
        }
        Ok(())
    }

    /// Remembers the rows that nobody wants, or has them acknowledged.
    fn settle_unwanted(&mut self) {
        for stream in &mut self.streams {
            let Status::Unwanted { ids, .. } = &mut stream.status else { continue };
            let ids = std::mem::take(ids);
            match self.settings.config.unrouted {
                Unrouted::Acknowledge => {
                    self.seen.emitted(&ids);
                    if !ids.is_empty() {
                        self.ledger.unwanted(&ids);
                    }
                }
                Unrouted::Keep if self.seen.unwanted(&ids) => {}
                Unrouted::Keep => {
                    if !self.unwanted_by_name {
                        tracing::warn!(
                            "the buffer keeps very many rows that the route does not take; consider unrouted: acknowledge"
                        );
                    }
                    self.unwanted_by_name = true;
                }
            }
        }
    }

    /// Announces the streams that were met; whether there were any.
    fn announce(&mut self, unknown: &[usize]) -> bool {
        if unknown.is_empty() {
            return false;
        }
        let announced: Vec<StreamPartition> = unknown.iter().map(|at| (*self.streams[*at].at).clone()).collect();
        self.ready.announce(announced);
        true
    }

    fn report_unwanted(&mut self) {
        for stream in &mut self.streams {
            if let Status::Unwanted { rows, .. } = &mut stream.status
                && *rows > 0
            {
                let labels = [("stream", &*stream.at.stream.to_string())];
                self.context.count("philotes_buffer_unrouted_rows_total", std::mem::take(rows), &labels);
            }
        }
    }

    /// Sets the next snapshot's limit by the pace of this one.
    fn adapt(&mut self, outcome: &Outcome, took: Duration) {
        if outcome.rows < FIRST_LIMIT {
            return;
        }
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let paced = u64::try_from(SNAPSHOT_TIME.as_millis()).unwrap_or(u64::MAX).saturating_mul(outcome.rows) / took;
        self.limit = paced.clamp(FIRST_LIMIT, MAX_LIMIT);
    }

    /// Waits until another snapshot is due, after one that took so long.
    async fn pause(&mut self, outcome: &Outcome, took: Duration) -> Result<()> {
        // The time since the snapshot began counts: where it brought many rows, looking in vain was a small part of it.
        let spacing = |share| (outcome.in_vain * share).saturating_sub(took).min(MAX_SPACING).max(LINGER);
        let now = tokio::time::Instant::now();
        let (hurried, spaced) = (now + spacing(HURRIED_SHARE), now + spacing(IDLE_SHARE));
        self.session.wait_until(hurried).await?;
        let due = if outcome.delivered > 0 { spaced } else { spaced.max(now + self.settings.poll_interval) };
        loop {
            let now = tokio::time::Instant::now();
            if now >= due || self.ready.wanted() || (self.session.notified && now >= spaced) {
                return Ok(());
            }
            let until = if self.session.notified { spaced } else { due };
            let wake = self.ready.wake.notified();
            let either = async {
                tokio::select! {
                    () = wake => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            };
            if self.session.notified {
                self.session.drive(either).await?;
            } else {
                self.session.wait(either).await?;
            }
        }
    }
}

/// Runs a query of the reader's own client on its session.
async fn drive_in<T>(
    session: &mut Session,
    query: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    session.drive(query).await?.map_err(|e| failed("cannot read the buffer", e))
}
