//! Messages by hand; what is expected of them stands in the documentation of Debezium and in Kafka Connect's JSON converter.

mod broken;
mod connect;
mod debezium;
mod debezium_types;
mod json;
mod json_types;
mod random;

use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use philotes_sdk::{ChangeBatch, ErrorKind, StreamName};

use super::*;
use crate::config::{DebeziumFormat, JsonFormat, Others, RowFormat};
use crate::message::Header;

/// Partitions of one topic, and the messages that come from them.
struct Feed {
    decoder: TopicDecoder,
    batches: [OpenBatch; 2],
    partition: usize,
    offset: i64,
}

impl Feed {
    fn new(format: &FormatConfig) -> Self {
        Self::with(format, &[])
    }

    fn with(format: &FormatConfig, columns: &[MetadataColumn]) -> Self {
        let decoder = TopicDecoder::new(StreamName::new(["shop.orders"]).unwrap(), format, columns, None).unwrap();
        Self { decoder, batches: [OpenBatch::default(), OpenBatch::default()], partition: 0, offset: 6 }
    }

    fn json(json: JsonFormat) -> Self {
        Self::new(&FormatConfig::Json(json))
    }

    fn debezium() -> Self {
        Self::new(&FormatConfig::DebeziumJson(DebeziumFormat::default()))
    }

    /// A message with the next offset, from 7 on.
    fn append(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Appended> {
        self.offset += 1;
        let message = Message {
            topic: "shop.orders",
            partition: i32::try_from(self.partition).unwrap(),
            offset: self.offset,
            timestamp_millis: Some(1_700_000_000_123),
            key,
            value,
            headers: &[],
        };
        self.decoder.append(&mut self.batches[self.partition], &message)
    }

    #[track_caller]
    fn put(&mut self, key: &str, value: &str) {
        let key = Some(key.as_bytes()).filter(|key| !key.is_empty());
        assert_eq!(self.append(key, Some(value.as_bytes())).unwrap(), Appended::Rows, "{value}");
    }

    fn tombstone(&mut self, key: &str) -> Result<Appended> {
        self.append(Some(key.as_bytes()), None)
    }

    /// The reason of a refusal, and nothing of the batch may change.
    #[track_caller]
    fn refused(&mut self, key: &str, value: &str) -> String {
        let key = Some(key.as_bytes()).filter(|key| !key.is_empty());
        let before = (self.batches[self.partition].rows(), self.batches[self.partition].bytes());
        let error = self.append(key, Some(value.as_bytes())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert_eq!((self.batches[self.partition].rows(), self.batches[self.partition].bytes()), before);
        let place = format!("topic shop.orders, partition {}, offset {}", self.partition, self.offset);
        error.message().strip_prefix(&place).unwrap_or_else(|| panic!("{error}")).to_owned()
    }

    #[track_caller]
    fn close(&mut self) -> Built {
        self.decoder.close(&mut self.batches[self.partition]).unwrap().expect("rows")
    }
}

/// A column as Arrow prints it; null is `-`.
#[track_caller]
fn printed(built: &Built, column: &str) -> Vec<String> {
    let array = built.rows.column_by_name(column).unwrap_or_else(|| panic!("no column {column}"));
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options).unwrap();
    (0..array.len())
        .map(|row| if array.is_null(row) { "-".to_owned() } else { formatter.value(row).to_string() })
        .collect()
}

#[track_caller]
fn kind_of(built: &Built, column: &str) -> DataType {
    built.rows.schema().field_with_name(column).unwrap().data_type().clone()
}

fn key_of(built: &Built) -> Vec<String> {
    ChangeBatch::key_columns(&built.rows.schema()).unwrap()
}

fn names(built: &Built) -> Vec<String> {
    built.rows.schema().fields().iter().map(|field| field.name().clone()).collect()
}

fn columns(columns: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
}
