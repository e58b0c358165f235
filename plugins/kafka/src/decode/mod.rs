//! From messages to record batches: one decoder per topic, one open batch per partition.
//!
//! A decoder never guesses a value: what does not fit its column is a Data error that names topic, partition, offset, column and reason.
//! A message that is refused leaves nothing behind in its batch, and the ones before and after it are rows.

mod batch;
mod column;
mod connect;
mod connect_schema;
mod convert;
mod debezium;
mod debezium_event;
mod debezium_key;
mod envelope;
mod fill;
mod infer;
mod json_rows;
mod json_value;
mod kafka_columns;
mod kind;
mod logical;
mod md5;
mod open_rows;
mod raw;
mod refusal;
mod row_key;
mod topic;
mod type_language;
mod unavailable;
mod values;

use arrow::array::RecordBatch;
use philotes_sdk::{Error, Result, StreamName};

use crate::config::{FormatConfig, MetadataColumn};
use crate::message::Message;
pub(crate) use batch::OpenBatch;
pub(crate) use refusal::Refusal;
use topic::Topic;
pub(crate) use type_language::parse_columns;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is a row of the open batch.
    Rows,
    /// It is no row, and is not meant to be: a tombstone after Debezium's DELETE, a heartbeat.
    Skipped,
    /// Its row has another schema than the open batch, or is of the initial load and the others are not: close that, then append the
    /// message again.
    CloseFirst,
}

/// The rows of a closed batch.
#[derive(Debug)]
pub(crate) struct Built {
    /// The row's own columns, the reserved ones, and Kafka's where they are wanted; the schema carries the sdk's metadata.
    pub(crate) rows: RecordBatch,
    /// Names the schema within the topic, from 1.
    pub(crate) schema_id: u64,
    /// The rows belong to an initial load: Debezium's snapshot.
    pub(crate) initial_load: bool,
}

/// Decodes the messages of one topic.
pub(crate) struct TopicDecoder {
    topic: Topic,
    format: Format,
}

/// What the messages of the topic are.
enum Format {
    Json(json_rows::JsonRows),
    Connect(connect::ConnectRows),
    Debezium(Box<debezium::DebeziumRows>),
    Raw(raw::RawRows),
}

impl TopicDecoder {
    /// # Errors
    /// Config where the format's declared columns have no types.
    pub(crate) fn new(stream: StreamName, format: &FormatConfig, metadata_columns: &[MetadataColumn]) -> Result<Self> {
        let mut topic = Topic::new(stream, metadata_columns);
        let format = match format {
            FormatConfig::Json(json) => Format::Json(json_rows::JsonRows::new(&mut topic, json)?),
            FormatConfig::ConnectJson(rows) => Format::Connect(connect::ConnectRows::new(&rows.key)),
            FormatConfig::DebeziumJson(debezium) => {
                Format::Debezium(Box::new(debezium::DebeziumRows::new(&mut topic, debezium)?))
            }
            FormatConfig::Raw(_) => Format::Raw(raw::RawRows::new(&mut topic)?),
            FormatConfig::Avro(_) | FormatConfig::JsonSchema(_) => {
                return Err(Error::internal("the format is decoded elsewhere"));
            }
        };
        Ok(Self { topic, format })
    }

    /// Appends the row of a message. After an error the batch is as it was before.
    ///
    /// # Errors
    /// Data where the message makes no row; Unavailable where the registry is out of reach.
    pub(crate) fn append(&mut self, batch: &mut OpenBatch, message: &Message<'_>) -> Result<Appended> {
        let topic = &mut self.topic;
        let appended = match &mut self.format {
            Format::Json(rows) => rows.append(topic, batch, message),
            Format::Connect(rows) => rows.append(topic, batch, message),
            Format::Debezium(rows) => rows.append(topic, batch, message),
            Format::Raw(rows) => rows.append(topic, batch, message),
        };
        appended.map_err(|refusal| {
            batch.roll_back();
            refused(message, refusal)
        })
    }

    /// Closes the batch; `None` where it has no rows.
    ///
    /// # Errors
    /// Internal where the rows are not as their schema says.
    pub(crate) fn close(&mut self, batch: &mut OpenBatch) -> Result<Option<Built>> {
        self.topic.close(batch)
    }
}

fn refused(message: &Message<'_>, refusal: Refusal) -> Error {
    let column = refusal.column.map_or_else(String::new, |column| format!(", column {column}"));
    Error::data(format!(
        "topic {}, partition {}, offset {}{column}: {}",
        message.topic, message.partition, message.offset, refusal.reason
    ))
}

/// The text of bytes.
fn utf8(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::new("not UTF-8"))
}

/// When a message says that it was made, in microseconds.
fn message_micros(message: &Message<'_>) -> Option<i64> {
    message.timestamp_millis.and_then(|millis| millis.checked_mul(1_000))
}

#[cfg(test)]
mod tests;
