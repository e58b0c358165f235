//! Dead letters: rows of the buffer that cannot be decoded, where the connector tolerates them.
//!
//! They travel as batches of their own, listed and acknowledged as every batch is. While they are collected only the reason
//! is kept; the row itself is read once more when its batch is written down, whole, as the snapshots do not send all of it.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use philotes_sdk::dead_letter::{self, DeadLetter};
use philotes_sdk::{Error, ErrorKind, Result, StreamName};
use tokio_postgres::Client;

use crate::connect::failed;
use crate::copy::Row;
use crate::decode::{Override, Overrides};
use crate::ranges::{self, Range};

/// The schema id of every stream's dead letters; a decoder's count from 1.
pub(crate) const SCHEMA_ID: u64 = 0;

/// Rows of the buffer as JSON, without the columns that the configuration leaves out.
const RECORDS: &str = "SELECT id, row_to_json(e)::text FROM (\
    SELECT id, source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns, \
    CASE jsonb_typeof(before_data) WHEN 'object' THEN before_data - $3::text[] ELSE before_data END AS before_data, \
    CASE jsonb_typeof(after_data) WHEN 'object' THEN after_data - $3::text[] ELSE after_data END AS after_data, \
    CASE jsonb_typeof(metadata -> 'key') WHEN 'object' THEN jsonb_set(metadata, '{key}', (metadata -> 'key') - $3::text[]) \
    ELSE metadata END AS metadata, event_time, created_at, processed_at \
    FROM philotes.cdc_events WHERE id = ANY ($1) AND source_id = $2) e";

/// The same of rows that the server cannot send: what cannot be the cause.
const UNREADABLE: &str = "SELECT id, row_to_json(e)::text FROM (SELECT id, schema_name, table_name, \
    CASE WHEN operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') THEN operation END AS operation, transaction_id, \
    event_time, created_at FROM philotes.cdc_events WHERE id = ANY ($1) AND source_id = $2) e";

/// Why a row of the buffer was not decoded.
#[derive(Debug)]
pub(crate) struct Fault {
    id: i64,
    message: String,
    timestamp_micros: Option<i64>,
    /// The server cannot send what is in it.
    unreadable: bool,
}

/// The dead letters of a stream that are not in a batch yet.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) faults: Vec<Fault>,
    pub(crate) ids: Vec<Range>,
    pub(crate) newest_micros: i64,
    bytes: usize,
}

/// What a row that was not read takes as a letter.
pub(crate) const UNREADABLE_BYTES: usize = 512;

/// Roughly what a row takes as a letter.
pub(crate) fn bytes(row: &Row<'_>) -> usize {
    let length = |text: Option<&[u8]>| text.map_or(0, <[u8]>::len);
    length(row.before) + length(row.after) + length(row.metadata) + 256
}

impl Letters {
    pub(crate) fn push(&mut self, row: &Row<'_>, error: &Error) {
        ranges::push(&mut self.ids, row.id);
        self.newest_micros = self.newest_micros.max(row.created_at.unwrap_or(0));
        self.bytes += bytes(row);
        let timestamp_micros = row.event_time.or(row.created_at);
        let message = error.message().to_owned();
        self.faults.push(Fault { id: row.id, message, timestamp_micros, unreadable: false });
    }

    /// A row that the server cannot send.
    pub(crate) fn push_unreadable(&mut self, id: i64, created_at: Option<i64>, error: &Error) {
        ranges::push(&mut self.ids, id);
        self.newest_micros = self.newest_micros.max(created_at.unwrap_or(0));
        self.bytes += UNREADABLE_BYTES;
        let message = error.message().to_owned();
        self.faults.push(Fault { id, message, timestamp_micros: created_at, unreadable: true });
    }

    pub(crate) fn rows(&self) -> usize {
        self.faults.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was collected; `None` where nothing was.
    pub(crate) fn close(&mut self) -> Option<Self> {
        (!self.faults.is_empty()).then(|| std::mem::take(self))
    }

    /// One line for all of them.
    pub(crate) fn warn(&self, stream: &StreamName) {
        if let Some(first) = self.faults.first() {
            tracing::warn!(
                %stream, rows = self.rows(), position = first.id, error = first.message,
                "rows of the buffer cannot be decoded and become dead letters; the first of them is named"
            );
        }
    }
}

/// The batch of these letters, with the rows as the buffer has them.
pub(crate) async fn read(
    client: &Client,
    source_id: &str,
    stream: &StreamName,
    faults: &[Fault],
    overrides: &Overrides,
) -> Result<RecordBatch> {
    let ids = |unreadable: bool| -> Vec<i64> {
        faults.iter().filter(|fault| fault.unreadable == unreadable).map(|fault| fault.id).collect()
    };
    let context = |e| failed("cannot read rows that become dead letters", e);
    let (readable, unreadable) = (ids(false), ids(true));
    let dropped: Vec<&str> =
        overrides.iter().filter(|(_, said)| **said == Override::Drop).map(|(column, _)| column.as_str()).collect();
    let mut found = Vec::new();
    if !readable.is_empty() {
        found = client.query(RECORDS, &[&readable, &source_id, &dropped]).await.map_err(context)?;
    }
    if !unreadable.is_empty() {
        found.extend(client.query(UNREADABLE, &[&unreadable, &source_id]).await.map_err(context)?);
    }
    let mut records: HashMap<i64, String> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
    let letters: Vec<DeadLetter> = faults
        .iter()
        .map(|Fault { id, message, timestamp_micros, .. }| DeadLetter {
            position: Some(id.to_string()),
            kind: ErrorKind::Data,
            message: message.clone(),
            // Nobody else deletes unprocessed rows; if somebody did, the letter still says which it was.
            record: records.remove(id).unwrap_or_else(|| format!("{{\"id\":{id}}}")),
            timestamp_micros: *timestamp_micros,
        })
        .collect();
    dead_letter::to_rows(stream, &letters)
}
