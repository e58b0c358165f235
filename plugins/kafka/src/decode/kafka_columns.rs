//! The columns `_kafka_*`: what Kafka says of each message, on request.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use arrow::error::ArrowError;

use super::Refusal;
use super::kind::{Kind, Member, Unit};
use super::values::Values;
use crate::config::MetadataColumn;
use crate::message::Message;

/// The name of the column.
pub(super) const fn name(column: MetadataColumn) -> &'static str {
    match column {
        MetadataColumn::Key => "_kafka_key",
        MetadataColumn::Headers => "_kafka_headers",
        MetadataColumn::Timestamp => "_kafka_timestamp",
        MetadataColumn::Topic => "_kafka_topic",
        MetadataColumn::Partition => "_kafka_partition",
        MetadataColumn::Offset => "_kafka_offset",
    }
}

/// The names that a row's own column may have as little as those that begin with `_cdc_`.
pub(super) const NAMES: [&str; 6] =
    ["_kafka_key", "_kafka_headers", "_kafka_timestamp", "_kafka_topic", "_kafka_partition", "_kafka_offset"];

fn kind(column: MetadataColumn) -> Kind {
    match column {
        MetadataColumn::Key => Kind::Binary,
        MetadataColumn::Headers => {
            let member = |name: &str, kind| Member { name: name.to_owned(), kind, source_type: None };
            let header = vec![member("key", Kind::STRING), member("value", Kind::Binary)];
            Kind::List(Box::new(Kind::Struct(header)))
        }
        MetadataColumn::Timestamp => Kind::timestamp(true, Some(Unit::Millis)),
        MetadataColumn::Topic => Kind::STRING,
        MetadataColumn::Partition => Kind::Int,
        MetadataColumn::Offset => Kind::Long,
    }
}

/// The columns' fields.
pub(super) fn fields(wanted: &[MetadataColumn]) -> impl Iterator<Item = Field> {
    wanted.iter().map(|column| {
        let always = matches!(column, MetadataColumn::Topic | MetadataColumn::Partition | MetadataColumn::Offset);
        kind(*column).field(name(*column)).with_nullable(!always)
    })
}

/// The columns' values.
pub(super) struct KafkaColumns(Vec<(MetadataColumn, Values)>);

impl KafkaColumns {
    pub(super) fn new(wanted: &[MetadataColumn]) -> Self {
        Self(wanted.iter().map(|column| (*column, Values::new(&kind(*column)))).collect())
    }

    pub(super) fn push(&mut self, message: &Message<'_>) -> Result<(), Refusal> {
        for (column, values) in &mut self.0 {
            match column {
                MetadataColumn::Key => push_bytes(values, message.key)?,
                MetadataColumn::Headers => push_headers(values, message)?,
                MetadataColumn::Timestamp => match message.timestamp_millis {
                    Some(millis) => values.push_integer(millis)?,
                    None => values.push_null(),
                },
                MetadataColumn::Topic => values.push_text(message.topic)?,
                MetadataColumn::Partition => values.push_integer(message.partition.into())?,
                MetadataColumn::Offset => values.push_integer(message.offset)?,
            }
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.0.iter_mut().for_each(|(_, values)| values.truncate(rows));
    }

    pub(super) fn finish(self, arrays: &mut Vec<ArrayRef>) -> Result<(), ArrowError> {
        for (_, mut values) in self.0 {
            arrays.push(values.finish()?);
        }
        Ok(())
    }
}

fn push_bytes(values: &mut Values, bytes: Option<&[u8]>) -> Result<(), Refusal> {
    match bytes {
        Some(bytes) => values.push_bytes(bytes),
        None => {
            values.push_null();
            Ok(())
        }
    }
}

fn push_headers(values: &mut Values, message: &Message<'_>) -> Result<(), Refusal> {
    if message.headers.is_empty() {
        values.push_null();
        return Ok(());
    }
    let headers = values.elements()?;
    for header in message.headers {
        let (members, _) = headers.members()?;
        members[0].push_text(header.name)?;
        push_bytes(&mut members[1], header.value)?;
        headers.end_struct()?;
    }
    values.end_list()
}
