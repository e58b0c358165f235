//! Messages of a topic, by a registry that has their schemas.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use philotes_sdk::batch::{META_KEY, META_SOURCE_TYPE};
use philotes_sdk::{Error, ErrorKind, StreamName};
use serde_json::json;

use super::*;
use crate::config::{FormatConfig, MetadataColumn, RegisteredFormat};
use crate::decode::{Appended, OpenBatch, TopicDecoder};
use crate::message::Message;
use crate::registry::scripted::{Scene, Scripted, avro, error, ok};

/// A topic and its open batch.
pub(super) struct Topic {
    decoder: TopicDecoder,
    batch: OpenBatch,
    offset: i64,
}

impl Topic {
    pub(super) fn new(server: &Scripted, format: RegisteredFormat) -> Self {
        let stream = StreamName::new(["orders".to_owned()]).unwrap();
        let registry = Arc::new(server.client());
        let wanted = [MetadataColumn::Offset];
        let decoder = TopicDecoder::new(stream, &FormatConfig::Avro(format), &wanted, Some(&registry)).unwrap();
        Self { decoder, batch: OpenBatch::default(), offset: 0 }
    }

    pub(super) fn append(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Appended, Error> {
        let message = Message {
            topic: "orders",
            partition: 3,
            offset: self.offset,
            timestamp_millis: Some(1_700_000_000_000),
            key,
            value,
            headers: &[],
        };
        let appended = self.decoder.append(&mut self.batch, &message)?;
        if appended != Appended::CloseFirst {
            self.offset += 1;
        }
        Ok(appended)
    }

    pub(super) fn refused(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        let error = self.append(key, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        error.to_string()
    }

    pub(super) fn close(&mut self) -> (RecordBatch, u64, bool) {
        let built = self.decoder.close(&mut self.batch).unwrap().unwrap();
        (built.rows, built.schema_id, built.initial_load)
    }

    /// The rows, and how each column of them is printed.
    pub(super) fn printed(&mut self, columns: &[&str]) -> Vec<String> {
        let (rows, ..) = self.close();
        let columns: Vec<_> = columns.iter().map(|name| printed(rows.column_by_name(name).expect(name))).collect();
        (0..rows.num_rows())
            .map(|row| columns.iter().map(|column| column[row].as_str()).collect::<Vec<_>>().join(" "))
            .collect()
    }
}

/// Confluent's wire format.
pub(super) fn wire(id: u32, value: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), value].concat()
}

fn order() -> Value {
    json!({"type": "record", "name": "order", "namespace": "shop", "fields": [
        {"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]}]})
}

/// The same with one more.
fn order_at() -> Value {
    json!({"type": "record", "name": "order", "namespace": "shop", "fields": [
        {"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0}]})
}

fn keyed() -> RegisteredFormat {
    RegisteredFormat { key: vec!["id".to_owned()], ..RegisteredFormat::default() }
}

#[test]
fn records_are_rows() {
    let server = Scripted::with(&[(1, avro(&order()))]);
    let mut topic = Topic::new(&server, keyed());
    assert_eq!(topic.append(None, Some(&wire(1, &[2, 2, 2, b'a']))).unwrap(), Appended::Rows);
    assert_eq!(topic.append(None, Some(&wire(1, &[4, 0]))).unwrap(), Appended::Rows);
    let (rows, id, initial_load) = topic.close();
    assert_eq!((id, initial_load), (1, false));
    let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "name", "_kafka_offset", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
    assert_eq!(rows.schema().metadata()[META_KEY], r#"["id"]"#);
    assert_eq!(rows.schema().field(0).metadata()[META_SOURCE_TYPE], "long");
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
    assert_eq!(printed(rows.column(1)), ["a", "null"]);
    assert_eq!(printed(rows.column(3)), ["INSERT", "INSERT"]);
    assert_eq!(printed(rows.column(4)), ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"]);
    assert_eq!(printed(rows.column(5)), ["orders-3@0", "orders-3@1"]);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn another_schema_is_another_batch() {
    let same = json!({"type": "record", "name": "order2", "fields": [
        {"name": "id", "type": ["null", "long"]}, {"name": "name", "type": ["string", "null"], "default": ""}]});
    let server = Scripted::with(&[(1, avro(&order())), (2, avro(&order_at())), (3, avro(&same))]);
    let mut topic = Topic::new(&server, RegisteredFormat::default());
    topic.append(None, Some(&wire(1, &[2, 0]))).unwrap();
    // Other bytes for the same columns.
    assert_eq!(topic.append(None, Some(&wire(3, &[2, 4, 0, 2, b'b']))).unwrap(), Appended::Rows);
    let second = wire(2, &[6, 0, 2]);
    assert_eq!(topic.append(None, Some(&second)).unwrap(), Appended::CloseFirst);
    let (rows, id, _) = topic.close();
    assert_eq!((rows.num_rows(), rows.num_columns(), id), (2, 6, 1));
    assert_eq!(printed(rows.column(1)), ["null", "b"]);
    assert_eq!(topic.append(None, Some(&second)).unwrap(), Appended::Rows);
    assert_eq!(topic.append(None, Some(&wire(1, &[8, 0]))).unwrap(), Appended::CloseFirst);
    let (rows, id, _) = topic.close();
    assert_eq!((rows.num_rows(), rows.num_columns(), id), (1, 7, 2));
    // A schema that comes back is the one it was.
    topic.append(None, Some(&wire(1, &[8, 0]))).unwrap();
    assert_eq!(topic.close().1, 1);
}

#[test]
fn bad_messages_leave_the_others_alone() {
    let server = Scripted::with(&[(1, avro(&order()))]);
    server.tell("/schemas/ids/9", error(404, 40403, "Schema 9 not found"));
    let mut topic = Topic::new(&server, keyed());
    let bad: [(&[u8], &str); 8] = [
        (&[], "0 bytes, which cannot be Confluent's wire format"),
        (&[0, 0, 0, 0], "4 bytes, which cannot be"),
        (b"{\"id\": 7}", "its first byte is 123, and 0 in Confluent's wire format"),
        (&wire(1, &[]), "column id: the value ends before it should"),
        (&wire(1, &[2, 2, 200, 1, b'a']), "column name: the value ends before it should"),
        (&wire(1, &[2, 9]), "column name: branch -5 of 2"),
        (&wire(1, &[2, 0, 0, 0, 0]), "3 bytes are left behind the value"),
        (&wire(9, &[2, 0]), "schema 9 does not exist in the registry"),
    ];
    for number in 0..80_u8 {
        if number % 10 == 5 {
            let (value, words) = bad[usize::from(number / 10)];
            let refused = topic.refused(None, Some(value));
            assert!(refused.starts_with(&format!("topic orders, partition 3, offset {}", topic.offset)), "{refused}");
            assert!(refused.contains(words), "{refused}");
            topic.offset += 1;
        } else {
            topic.append(None, Some(&wire(1, &[number * 2 % 128, 2, 2, b'a']))).unwrap();
        }
    }
    let (rows, ..) = topic.close();
    let expected: Vec<i64> = (0..80).filter(|number| number % 10 != 5).map(|number| number % 64).collect();
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), expected.as_slice());
    assert!(rows.columns().iter().all(|column| column.len() == 72));
}

#[test]
fn a_registry_out_of_reach_is_no_bad_message() {
    let server = Scripted::with(&[(1, avro(&order()))]);
    server.tell("/schemas/ids/2", error(503, 503, "later"));
    let mut topic = Topic::new(&server, keyed());
    topic.append(None, Some(&wire(1, &[2, 0]))).unwrap();
    let error = topic.append(None, Some(&wire(2, &[2, 0]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with("topic orders, partition 3, offset 1: the registry at"), "{error}");
    server.tell("/schemas/ids/2", ok(&avro(&order())));
    topic.append(None, Some(&wire(2, &[4, 0]))).unwrap();
    assert_eq!(topic.printed(&["id"]), ["1", "2"]);
}

#[test]
fn schemas_that_are_no_use_are_said_once_and_for_all() {
    let list = json!({"type": "record", "name": "n.list", "fields": [{"name": "next", "type": ["null", "list"]}]});
    let server = Scripted::with(&[
        (1, avro(&list)),
        (2, json!({"schema": "{}", "schemaType": "JSON"})),
        (3, json!({"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"})),
        (4, avro(&json!({"type": "record", "name": "r", "fields": [{"name": "_cdc_lsn", "type": "int"}]}))),
    ]);
    let mut topic = Topic::new(&server, RegisteredFormat::default());
    for (id, words) in [
        (1, "schema 1 of the registry cannot be used: n.list: field \"next\": the type \"n.list\" contains itself"),
        (2, "it is written in JSON Schema, and the format is for Avro"),
        (3, "\"PROTOBUF\"; AVRO and JSON are what can be read"),
        (4, "column _cdc_lsn: names that begin with _cdc_ are reserved"),
    ] {
        for _ in 0..3 {
            let refused = topic.refused(None, Some(&wire(id, &[0])));
            assert!(refused.contains(words), "{refused}");
        }
    }
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn what_is_no_record_is_one_column() {
    let server = Scripted::with(&[(1, avro(&json!("string"))), (2, avro(&json!(["null", "int"])))]);
    let mut topic = Topic::new(&server, RegisteredFormat::default());
    topic.append(None, Some(&wire(1, &[4, b'h', b'i']))).unwrap();
    assert_eq!(topic.printed(&["value"]), ["hi"]);
    topic.append(None, Some(&wire(2, &[2, 4]))).unwrap();
    topic.append(None, Some(&wire(2, &[0]))).unwrap();
    assert_eq!(topic.printed(&["value"]), ["2", "null"]);
}

#[test]
fn a_message_without_a_value_deletes_the_row_of_its_key() {
    let key = json!({"type": "record", "name": "key", "fields": [{"name": "id", "type": "int"}, {"name": "x", "type": "string"}]});
    let server = Scripted::with(&[(1, avro(&order())), (2, avro(&key)), (3, avro(&json!("long")))]);
    let mut topic = Topic::new(&server, keyed());
    topic.append(Some(b"1"), Some(&wire(1, &[2, 2, 2, b'a']))).unwrap();
    // As a record in Avro, as a number in Avro, as text, as JSON.
    topic.append(Some(&wire(2, &[4, 2, b'x'])), None).unwrap();
    topic.append(Some(&wire(3, &[6])), None).unwrap();
    topic.append(Some(b"4"), None).unwrap();
    topic.append(Some(br#"{"id": 5, "more": true}"#), None).unwrap();
    for (key, words) in [
        (None, "neither a value nor a key"),
        (Some(&b"x"[..]), "column id"),
        (Some(&wire(2, &[4])), "the value ends before it should"),
        (Some(&wire(1, &[4, 0, 0])), "1 bytes are left"),
    ] {
        let refused = topic.refused(key, None);
        assert!(refused.contains(words), "{refused}");
    }
    assert_eq!(
        topic.printed(&["id", "name", "_cdc_operation", "_cdc_unchanged"]),
        [
            "1 a INSERT null",
            "2 null DELETE [name]",
            "3 null DELETE [name]",
            "4 null DELETE [name]",
            "5 null DELETE [name]"
        ]
    );
    let refused = Topic::new(&server, RegisteredFormat::default()).refused(Some(b"4"), None);
    assert!(refused.contains("the format's `key` does not say"), "{refused}");
    // The key has to be there.
    let mut by_name = Topic::new(&server, RegisteredFormat { key: vec!["name".into()], ..RegisteredFormat::default() });
    let refused = by_name.refused(None, Some(&wire(1, &[4, 0])));
    assert!(refused.contains("column name: a key column that is null or missing"), "{refused}");
    let mut by_nothing =
        Topic::new(&server, RegisteredFormat { key: vec!["no".into()], ..RegisteredFormat::default() });
    let refused = by_nothing.refused(None, Some(&wire(1, &[4, 0])));
    assert!(refused.contains("column no: a key column that the row's schema has not"), "{refused}");
}

#[test]
fn the_first_message_may_have_no_value() {
    let server = Scripted::with(&[(1, avro(&order())), (3, avro(&json!("long")))]);
    server.tell("/subjects/orders-value/versions/latest", error(404, 40401, "Subject 'orders-value' not found."));
    // Nothing says what an id is.
    let refused = Topic::new(&server, keyed()).refused(Some(b"4"), None);
    assert!(refused.contains("nothing says what types the key columns have"), "{refused}");
    // The key does.
    let mut topic = Topic::new(&server, keyed());
    topic.append(Some(&wire(3, &[6])), None).unwrap();
    assert_eq!(topic.printed(&["id", "_cdc_operation"]), ["3 DELETE"]);
    // The registry does.
    let newest = json!({"subject": "orders-value", "version": 4, "id": 1, "schema": order().to_string()});
    server.tell("/subjects/orders-value/versions/latest", ok(&newest));
    let mut topic = Topic::new(&server, keyed());
    topic.append(Some(b"4"), None).unwrap();
    assert_eq!(topic.printed(&["id", "name", "_cdc_operation", "_cdc_unchanged"]), ["4 null DELETE [name]"]);
    // It may be out of reach.
    server.tell("/subjects/orders-value/versions/latest", Scene(None, String::new()));
    let error = Topic::new(&server, keyed()).append(Some(b"4"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
