//! Dead letters: messages that make no row, where the connector tolerates them, with all that Kafka keeps of them.

use arrow::array::RecordBatch;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use philotes_sdk::dead_letter::{self, DeadLetter};
use philotes_sdk::{Error, Result, StreamName};
use serde_json::{Map, Value, json};

use crate::message::{Header, Message};

/// The schema id of every stream's dead letters; a decoder's count from 1.
pub(crate) const SCHEMA_ID: u64 = 0;

/// The dead letters of a partition that are not in a batch yet.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    letters: Vec<DeadLetter>,
    bytes: usize,
}

impl Letters {
    pub(crate) fn push(&mut self, message: &Message<'_>, headers: &[Header<'_>], error: &Error) {
        let record = record(message, headers);
        self.bytes += record.len() + 256;
        self.letters.push(DeadLetter {
            position: Some(format!("{}-{}@{}", message.topic, message.partition, message.offset)),
            kind: error.kind(),
            message: error.message().to_owned(),
            record,
            timestamp_micros: message.timestamp_millis.map(|millis| millis.saturating_mul(1000)),
        });
    }

    pub(crate) fn rows(&self) -> usize {
        self.letters.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch of them; `None` where there are none.
    pub(crate) fn close(&mut self, stream: &StreamName) -> Result<Option<RecordBatch>> {
        let letters = std::mem::take(self).letters;
        let Some(first) = letters.first() else { return Ok(None) };
        tracing::warn!(
            %stream, messages = letters.len(), position = first.position, error = first.message,
            "messages make no rows and become dead letters; the first of them is named"
        );
        dead_letter::to_rows(stream, &letters).map(Some)
    }
}

/// The message as JSON: text where bytes are UTF-8, else base64 under a name that says so.
fn record(message: &Message<'_>, headers: &[Header<'_>]) -> String {
    let mut record = Map::new();
    record.insert("topic".into(), message.topic.into());
    record.insert("partition".into(), message.partition.into());
    record.insert("offset".into(), message.offset.into());
    record.insert("timestamp".into(), json!(message.timestamp_millis));
    put(&mut record, "key", message.key);
    put(&mut record, "value", message.value);
    let headers = headers.iter().map(|header| {
        let mut printed = Map::from_iter([("name".to_owned(), header.name.into())]);
        put(&mut printed, "value", header.value);
        Value::Object(printed)
    });
    record.insert("headers".into(), headers.collect());
    Value::Object(record).to_string()
}

fn put(record: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => record.insert(name.into(), Value::Null),
        Some(Ok(text)) => record.insert(name.into(), text.into()),
        Some(Err(bytes)) => record.insert(format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_holds_all_of_its_message() {
        let message = Message {
            topic: "orders",
            partition: 3,
            offset: 7,
            timestamp_millis: Some(5),
            key: Some(b"\xff\x00"),
            value: Some(b"{\"a\":"),
            headers: &[],
        };
        let headers = [Header { name: "h", value: Some(b"x") }, Header { name: "h", value: None }];
        let found: Value = serde_json::from_str(&record(&message, &headers)).unwrap();
        assert_eq!(
            found,
            json!({
                "topic": "orders", "partition": 3, "offset": 7, "timestamp": 5,
                "key_base64": "/wA=", "value": "{\"a\":",
                "headers": [{"name": "h", "value": "x"}, {"name": "h", "value": null}],
            })
        );
        let mut letters = Letters::default();
        letters.push(&message, &headers, &Error::data("broken"));
        assert!(letters.rows() == 1 && letters.bytes() > 0);
        let rows = letters.close(&StreamName::new(["orders"]).unwrap()).unwrap().unwrap();
        let letter = &dead_letter::from_rows(&rows).unwrap()[0];
        assert_eq!(letter.position.as_deref(), Some("orders-3@7"));
        assert_eq!((letter.message.as_str(), letter.timestamp_micros), ("broken", Some(5000)));
        assert_eq!(letters.close(&StreamName::new(["orders"]).unwrap()).unwrap(), None);
    }
}
