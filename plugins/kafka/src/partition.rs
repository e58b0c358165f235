//! A partition that is being read: the rows that are not in a batch yet, and how far it was read.

use std::time::Instant;

use arrow::array::RecordBatch;
use philotes_sdk::{ChangeBatch, Error, Result, StreamPartition};

use crate::client::TopicPartition;
use crate::decode::{Built, OpenBatch, TopicDecoder};
use crate::handover::Start;
use crate::letters::{self, Letters};
use crate::message::{Header, Message};
use crate::offset::{GroupMark, Lineage, TableOffset};

/// A partition that is being read.
pub(crate) struct Partition {
    pub(crate) at: StreamPartition,
    pub(crate) name: TopicPartition,
    /// Where its topic is among the reader's.
    pub(crate) topic: usize,
    pub(crate) batch: OpenBatch,
    pub(crate) letters: Letters,
    /// When the first of these rows and letters came.
    pub(crate) opened: Option<Instant>,
    /// The newest of them, in milliseconds since 1970.
    newest_millis: i64,
    /// The first message that was to be read.
    start: i64,
    /// The next message.
    pub(crate) next: i64,
    /// It was revoked: nothing more is read of it.
    stopped: bool,
    /// There was none when it was asked for last.
    pub(crate) at_end: bool,
    /// How far batches reach that were made.
    made: Option<i64>,
    /// How far the table reaches.
    table: Option<i64>,
    /// What the group was told last.
    told: Option<(i64, GroupMark)>,
}

impl Partition {
    pub(crate) fn new(name: TopicPartition, topic: usize, start: &Start) -> Self {
        Self {
            at: start.at.clone(),
            name,
            topic,
            batch: OpenBatch::default(),
            letters: Letters::default(),
            opened: None,
            newest_millis: 0,
            start: start.offset,
            next: start.offset,
            stopped: false,
            at_end: false,
            made: start.table,
            table: start.table,
            told: None,
        }
    }

    /// It was revoked: nothing more is read of it, and what is in no batch yet is dropped.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        (self.batch, self.letters, self.opened) = (OpenBatch::default(), Letters::default(), None);
    }

    pub(crate) fn is_read(&self) -> bool {
        !self.stopped
    }

    /// Rows and letters that are in no batch yet.
    pub(crate) fn rows(&self) -> usize {
        self.batch.rows() + self.letters.rows()
    }

    /// Roughly how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.batch.bytes() + self.letters.bytes()
    }

    /// A message was taken in: as rows, as a letter, or as nothing.
    pub(crate) fn took(&mut self, message: &Message<'_>) {
        self.next = message.offset + 1;
        self.at_end = false;
        if self.rows() > 0 {
            self.opened.get_or_insert_with(Instant::now);
            self.newest_millis = self.newest_millis.max(message.timestamp_millis.unwrap_or(0));
        }
    }

    /// Keeps a message that makes no row. Rows before it must have been closed.
    pub(crate) fn keep(&mut self, message: &Message<'_>, headers: &[Header<'_>], error: &Error) {
        self.letters.push(message, headers, error);
    }

    /// What is open in a batch; `None` where there is nothing.
    pub(crate) fn close(&mut self, decoder: &mut TopicDecoder, lineage: &Lineage) -> Result<Option<ChangeBatch>> {
        match self.close_rows(decoder, lineage)? {
            Some(rows) => Ok(Some(rows)),
            None => self.close_letters(lineage),
        }
    }

    /// The rows in a batch, which covers all messages that were taken in.
    pub(crate) fn close_rows(&mut self, decoder: &mut TopicDecoder, lineage: &Lineage) -> Result<Option<ChangeBatch>> {
        let Some(Built { rows, schema_id, initial_load }) = decoder.close(&mut self.batch)? else { return Ok(None) };
        self.batch_of(rows, schema_id, lineage).map(|batch| Some(ChangeBatch { initial_load, ..batch }))
    }

    /// The letters in a batch, in the same way.
    pub(crate) fn close_letters(&mut self, lineage: &Lineage) -> Result<Option<ChangeBatch>> {
        let Some(rows) = self.letters.close(&self.at.stream)? else { return Ok(None) };
        self.batch_of(rows, letters::SCHEMA_ID, lineage).map(|batch| Some(ChangeBatch { dead_letters: true, ..batch }))
    }

    fn batch_of(&mut self, rows: RecordBatch, schema_id: u64, lineage: &Lineage) -> Result<ChangeBatch> {
        self.opened = None;
        let last = self.next - 1;
        self.made = Some(last);
        let newest_micros = std::mem::take(&mut self.newest_millis).saturating_mul(1000);
        Ok(ChangeBatch {
            at: self.at.clone(),
            schema_id,
            rows,
            offset: TableOffset { lineage: lineage.clone(), offset: last }.write()?,
            // Kafka does not say where its transactions end.
            ends_transaction: true,
            initial_load: false,
            dead_letters: false,
            newest_micros,
        })
    }

    pub(crate) fn durable(&mut self, offset: i64) {
        self.table = self.table.max(Some(offset));
    }

    /// How many messages the table is behind a partition that ends here.
    pub(crate) fn lag(&self, end: i64) -> i64 {
        (end - self.reached()).max(0)
    }

    /// The next message that is not in the table: the one behind the table's offset or, where all rows are in the table, behind
    /// those that were no rows.
    fn reached(&self) -> i64 {
        if self.table == self.made && self.rows() == 0 && !self.stopped {
            return self.next;
        }
        self.table.map_or(self.start, |table| table + 1).max(self.start)
    }

    /// What the group is to be told, if that is news.
    pub(crate) fn news(&mut self, lineage: &Lineage) -> Option<(i64, GroupMark)> {
        let news = (self.reached(), GroupMark::new(lineage, self.table));
        if self.told.as_ref() == Some(&news) {
            return None;
        }
        self.told = Some(news.clone());
        Some(news)
    }
}
