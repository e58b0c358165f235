//! From messages to record batches: one decoder per topic, one open batch per partition.
//!
//! A decoder never guesses a value: what does not fit its column is a Data error that names topic, partition, offset, column and reason.

mod avro;

use arrow::array::RecordBatch;
use philotes_sdk::{Result, StreamName};

use crate::config::{FormatConfig, MetadataColumn};
use crate::message::Message;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is one or more rows of the open batch.
    Rows,
    /// It is no row, and is not meant to be: a tombstone after Debezium's DELETE, a heartbeat.
    Skipped,
    /// Its rows have another schema than the open batch: close that, then append the message again.
    CloseFirst,
}

/// The rows of a closed batch.
#[derive(Debug)]
pub(crate) struct Built {
    /// The row's own columns, the reserved ones, and Kafka's where they are wanted; the schema carries the sdk's metadata.
    pub(crate) rows: RecordBatch,
    /// Names the schema within the topic, from 1.
    pub(crate) schema_id: u64,
}

/// Decodes the messages of one topic.
pub(crate) struct TopicDecoder {}

/// The rows of one partition that are not in a batch yet.
#[derive(Default)]
pub(crate) struct OpenBatch {}

impl TopicDecoder {
    pub(crate) fn new(stream: StreamName, format: &FormatConfig, metadata_columns: &[MetadataColumn]) -> Self {
        let _ = (stream, format, metadata_columns);
        Self {}
    }

    /// Appends the rows of a message. After an error the batch is as it was before.
    ///
    /// # Errors
    /// Data where the message makes no row; Unavailable where the registry is out of reach.
    pub(crate) fn append(&mut self, batch: &mut OpenBatch, message: &Message<'_>) -> Result<Appended> {
        let _ = (batch, message);
        Ok(Appended::Skipped)
    }

    /// Closes the batch; `None` where it has no rows.
    pub(crate) fn close(&mut self, batch: &mut OpenBatch) -> Result<Option<Built>> {
        let _ = batch;
        Ok(None)
    }
}

impl OpenBatch {
    /// How many rows it has.
    pub(crate) fn rows(&self) -> usize {
        0
    }

    /// Roughly how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        0
    }
}
