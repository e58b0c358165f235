//! From messages to record batches: one decoder per topic, one open batch per partition.
//!
//! A decoder never guesses a value: what does not fit its column is a Data error that names topic, partition, offset, column and reason.
//! A message that is refused leaves nothing behind in its batch, and the ones before and after it are rows.

mod avro;
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
mod json_schema;
mod json_value;
mod kafka_columns;
mod kind;
mod logical;
mod open_rows;
mod raw;
mod refusal;
mod registered;
mod row_key;
mod topic;
mod type_language;
mod unavailable;
mod values;
mod wire;

use std::sync::Arc;

use arrow::array::RecordBatch;
use philotes_sdk::{Error, Result, StreamName};

use crate::config::{FormatConfig, MetadataColumn};
use crate::message::Message;
use crate::registry::Registry;
pub(crate) use batch::OpenBatch;
pub(crate) use refusal::Refusal;
use registered::Failure;
use topic::Topic;
pub(crate) use type_language::parse_columns;
#[cfg(feature = "fuzz")]
pub(crate) use type_language::parse_type;

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
    Avro(Box<avro::AvroRows>),
    JsonSchema(Box<json_schema::JsonSchemaRows>),
    Raw(raw::RawRows),
}

impl TopicDecoder {
    /// # Errors
    /// Config where the format's declared columns have no types, or where there is no registry and the format wants one.
    pub(crate) fn new(
        stream: StreamName,
        format: &FormatConfig,
        metadata_columns: &[MetadataColumn],
        registry: Option<&Arc<Registry>>,
    ) -> Result<Self> {
        let registry = || {
            registry.cloned().ok_or_else(|| {
                Error::config("registry: missing; the formats avro and json-schema want {url: http://host:8081}")
            })
        };
        let mut topic = Topic::new(stream, metadata_columns);
        let format = match format {
            FormatConfig::Json(json) => Format::Json(json_rows::JsonRows::new(&mut topic, json)?),
            FormatConfig::ConnectJson(rows) => Format::Connect(connect::ConnectRows::new(&rows.key)),
            FormatConfig::DebeziumJson(debezium) => {
                Format::Debezium(Box::new(debezium::DebeziumRows::new(&mut topic, debezium)?))
            }
            FormatConfig::Raw(_) => Format::Raw(raw::RawRows::new(&mut topic)?),
            FormatConfig::Avro(avro) => Format::Avro(Box::new(avro::AvroRows::new(registry()?, avro))),
            FormatConfig::JsonSchema(rows) => {
                Format::JsonSchema(Box::new(json_schema::JsonSchemaRows::new(&mut topic, registry()?, rows)?))
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
            Format::Json(rows) => rows.append(topic, batch, message).map_err(Failure::Refused),
            Format::Connect(rows) => rows.append(topic, batch, message).map_err(Failure::Refused),
            Format::Debezium(rows) => rows.append(topic, batch, message).map_err(Failure::Refused),
            Format::Avro(rows) => rows.append(topic, batch, message),
            Format::JsonSchema(rows) => rows.append(topic, batch, message),
            Format::Raw(rows) => rows.append(topic, batch, message).map_err(Failure::Refused),
        };
        appended.map_err(|failure| {
            batch.roll_back();
            match failure {
                Failure::Refused(refusal) => refused(message, refusal),
                Failure::Registry(error) => error.context(at(message)),
            }
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
    Error::data(format!("{}{column}: {}", at(message), refusal.reason))
}

/// Which message it is.
fn at(message: &Message<'_>) -> String {
    format!("topic {}, partition {}, offset {}", message.topic, message.partition, message.offset)
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
