//! Debezium's change events, with the schemas that Confluent's converter makes of theirs, written by apache-avro.

use apache_avro::types::Value as Avro;
use apache_avro::{Schema, to_avro_datum};
use serde_json::json;

use super::messages::{Topic, wire};
use super::*;
use crate::config::{Envelope, RegisteredFormat};
use crate::decode::Appended;
use crate::registry::scripted::{Scripted, avro, error};

const PLACEHOLDER: &str = "__debezium_unavailable_value";

fn value() -> Value {
    json!({"type": "record", "name": "Value", "connect.name": "shop.public.items.Value", "fields": [
        {"name": "id", "type": {"type": "int", "connect.default": 0}, "default": 0},
        {"name": "name", "type": ["null", "string"], "default": null},
        {"name": "price", "type": ["null", {"type": "bytes", "scale": 2, "precision": 10, "connect.version": 1,
            "connect.parameters": {"scale": "2", "connect.decimal.precision": "10"},
            "connect.name": "org.apache.kafka.connect.data.Decimal", "logicalType": "decimal"}], "default": null},
        {"name": "at", "type": ["null", {"type": "long", "connect.version": 1,
            "connect.name": "io.debezium.time.MicroTimestamp"}], "default": null},
        {"name": "on", "type": ["null", {"type": "int", "connect.version": 1, "connect.name": "io.debezium.time.Date"}]},
        {"name": "zoned", "type": ["null", {"type": "string", "connect.version": 1,
            "connect.name": "io.debezium.time.ZonedTimestamp"}]},
        {"name": "blob", "type": ["null", "bytes"]},
        {"name": "doc", "type": ["null", {"type": "string", "connect.version": 1, "connect.name": "io.debezium.data.Json"}]},
        {"name": "words", "type": ["null", {"type": "array", "items": ["null", "string"]}]},
        {"name": "numbers", "type": ["null", {"type": "array", "items": ["null", "long"]}]},
        {"name": "uuid", "type": ["null", {"type": "string", "connect.version": 1, "connect.name": "io.debezium.data.Uuid"}]},
        {"name": "bits", "type": ["null", {"type": "bytes", "connect.version": 1, "connect.parameters": {"length": "3"},
            "connect.name": "io.debezium.data.Bits"}]},
        {"name": "any", "type": ["null", {"type": "record", "name": "VariableScaleDecimal", "namespace": "io.debezium.data",
            "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
            "connect.name": "io.debezium.data.VariableScaleDecimal"}]},
        {"name": "point", "type": ["null", {"type": "record", "name": "Point", "namespace": "io.debezium.data.geometry",
            "fields": [{"name": "x", "type": "double"}, {"name": "y", "type": "double"},
                {"name": "wkb", "type": ["null", "bytes"]}, {"name": "srid", "type": ["null", "int"]}],
            "connect.name": "io.debezium.data.geometry.Point"}]}]})
}

fn envelope() -> Value {
    json!({"type": "record", "name": "Envelope", "namespace": "shop.public.items", "connect.version": 2,
        "connect.name": "shop.public.items.Envelope", "fields": [
        {"name": "before", "type": ["null", value()], "default": null},
        {"name": "after", "type": ["null", "Value"], "default": null},
        {"name": "source", "type": {"type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql",
            "fields": [
                {"name": "version", "type": "string"},
                {"name": "ts_ms", "type": "long"},
                {"name": "snapshot", "type": [{"type": "string", "connect.version": 1, "connect.default": "false",
                    "connect.name": "io.debezium.data.Enum"}, "null"], "default": "false"},
                {"name": "lsn", "type": ["null", "long"], "default": null},
                {"name": "ts_us", "type": ["null", "long"], "default": null}]}},
        {"name": "transaction", "type": ["null", {"type": "record", "name": "block", "namespace": "event", "fields": [
            {"name": "id", "type": "string"}, {"name": "total_order", "type": "long"}]}], "default": null},
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": ["null", "long"], "default": null}]})
}

fn key() -> Value {
    json!({"type": "record", "name": "Key", "namespace": "shop.public.items", "fields": [
        {"name": "id", "type": {"type": "int", "connect.default": 0}, "default": 0}], "connect.name": "shop.public.items.Key"})
}

fn there(value: Avro) -> Avro {
    Avro::Union(1, Box::new(value))
}

fn null() -> Avro {
    Avro::Union(0, Box::new(Avro::Null))
}

fn text(value: &str) -> Avro {
    there(Avro::String(value.to_owned()))
}

/// A row; what is not given is null.
fn row(id: i32, given: &[(&str, Avro)]) -> Avro {
    let schema = value();
    let fields = schema["fields"].as_array().unwrap().iter().map(|field| {
        let name = field["name"].as_str().unwrap().to_owned();
        let value = match given.iter().find(|(given, _)| *given == name) {
            Some((_, value)) => value.clone(),
            None if name == "id" => Avro::Int(id),
            None => null(),
        };
        (name, value)
    });
    Avro::Record(fields.collect())
}

fn event(op: &str, before: Option<Avro>, after: Option<Avro>) -> Vec<u8> {
    let optional = |row: Option<Avro>| row.map_or_else(null, there);
    let source = vec![
        ("version".to_owned(), Avro::String("3.0".into())),
        ("ts_ms".to_owned(), Avro::Long(1_700_000_000_000)),
        ("snapshot".to_owned(), Avro::Union(0, Box::new(Avro::String("false".into())))),
        ("lsn".to_owned(), there(Avro::Long(0x16_B374_D848))),
        ("ts_us".to_owned(), there(Avro::Long(1_700_000_000_000_001))),
    ];
    let envelope_value = Avro::Record(vec![
        ("before".to_owned(), optional(before)),
        ("after".to_owned(), optional(after)),
        ("source".to_owned(), Avro::Record(source)),
        ("transaction".to_owned(), null()),
        ("op".to_owned(), Avro::String(op.to_owned())),
        ("ts_ms".to_owned(), there(Avro::Long(1_700_000_009_000))),
    ]);
    wire(1, &to_avro_datum(&Schema::parse(&envelope()).unwrap(), envelope_value).unwrap())
}

fn server() -> Scripted {
    let heartbeat = json!({"type": "record", "name": "Heartbeat", "namespace": "io.debezium.connector.common",
        "fields": [{"name": "ts_ms", "type": "long"}]});
    let transaction = json!({"type": "record", "name": "TransactionMetadataValue", "namespace": "io.debezium.connector.common",
        "fields": [{"name": "status", "type": "string"}, {"name": "id", "type": "string"},
            {"name": "ts_ms", "type": "long"}]});
    Scripted::with(&[
        (1, avro(&envelope())),
        (2, avro(&key())),
        (3, avro(&heartbeat)),
        (4, avro(&transaction)),
        (5, avro(&json!({"type": "record", "name": "flat", "fields": [{"name": "id", "type": "int"}]}))),
    ])
}

fn debezium() -> RegisteredFormat {
    RegisteredFormat { envelope: Envelope::Debezium, ..RegisteredFormat::default() }
}

fn key_of(id: u8) -> Vec<u8> {
    wire(2, &[id * 2])
}

#[test]
fn changes_are_rows() {
    let server = server();
    let mut topic = Topic::new(&server, debezium());
    let full = row(
        1,
        &[
            ("name", text("spanner")),
            ("price", there(Avro::Decimal(vec![0x04, 0xd2].into()))),
            ("at", there(Avro::Long(1_700_000_000_000_001))),
            ("on", there(Avro::Int(1))),
            ("zoned", text("2023-11-14T23:13:20.5+01:00")),
            ("blob", there(Avro::Bytes(vec![1, 255]))),
            ("doc", text(r#"{"a": 1}"#)),
            ("words", there(Avro::Array(vec![text("x"), null()]))),
            ("numbers", there(Avro::Array(vec![there(Avro::Long(5))]))),
            ("uuid", text("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")),
            ("bits", there(Avro::Bytes(vec![5]))),
            (
                "any",
                there(Avro::Record(vec![
                    ("scale".into(), Avro::Int(3)),
                    ("value".into(), Avro::Bytes(vec![0x04, 0xd2])),
                ])),
            ),
            (
                "point",
                there(Avro::Record(vec![
                    ("x".into(), Avro::Double(1.5)),
                    ("y".into(), Avro::Double(-2.0)),
                    ("wkb".into(), there(Avro::Bytes(vec![1]))),
                    ("srid".into(), null()),
                ])),
            ),
        ],
    );
    assert_eq!(topic.append(Some(&key_of(1)), Some(&event("c", None, Some(full)))).unwrap(), Appended::Rows);
    topic
        .append(Some(&key_of(1)), Some(&event("u", Some(row(1, &[])), Some(row(1, &[("name", text("new"))])))))
        .unwrap();
    topic.append(Some(&key_of(1)), Some(&event("d", Some(row(1, &[("name", text("old"))])), None))).unwrap();
    // The tombstone behind it.
    assert_eq!(topic.append(Some(&key_of(1)), None).unwrap(), Appended::Skipped);
    // A DELETE whose table tells nothing of the row before.
    topic.append(Some(&key_of(7)), Some(&event("d", None, None))).unwrap();
    topic.append(None, Some(&event("t", None, None))).unwrap();
    assert_eq!(topic.append(None, Some(&event("m", None, None))).unwrap(), Appended::Skipped);
    assert_eq!(topic.append(None, Some(&wire(3, &[2]))).unwrap(), Appended::Skipped);
    assert_eq!(topic.append(None, Some(&wire(4, &[0, 0, 0]))).unwrap(), Appended::Skipped);
    let (rows, id, initial_load) = topic.close();
    assert_eq!((id, initial_load), (1, false));
    assert_eq!(rows.schema().metadata()["philotes.key"], r#"["id"]"#);
    let column = |name: &str| printed(rows.column_by_name(name).expect(name));
    assert_eq!(column("_cdc_operation"), ["INSERT", "UPDATE", "DELETE", "DELETE", "TRUNCATE"]);
    assert_eq!(column("id"), ["1", "1", "1", "7", "null"]);
    assert_eq!(column("name"), ["spanner", "new", "old", "null", "null"]);
    assert_eq!(column("_cdc_lsn"), ["16/B374D848"; 5]);
    assert_eq!(column("_cdc_timestamp"), ["2023-11-14T22:13:20.000001Z"; 5]);
    for (name, expected) in [
        ("price", "12.34"),
        ("at", "2023-11-14T22:13:20.000001"),
        ("on", "1970-01-02"),
        ("zoned", "2023-11-14T22:13:20.500Z"),
        ("blob", "01ff"),
        ("doc", r#"{"a": 1}"#),
        ("words", "[x, null]"),
        ("numbers", "[5]"),
        ("uuid", "f81d4fae7dec11d0a76500a0c91e6bf6"),
        ("bits", "101"),
        ("any", "1.234"),
        ("point", "{x: 1.5, y: -2.0, wkb: 01, srid: null}"),
    ] {
        assert_eq!(column(name)[0], expected, "{name}");
    }
    // Of the second DELETE nothing but the key was sent.
    let unsent = "[name, price, at, on, zoned, blob, doc, words, numbers, uuid, bits, any, point]";
    assert_eq!(column("_cdc_unchanged"), ["null", "null", "null", unsent, "null"]);
}

#[test]
fn rows_of_a_snapshot_are_an_initial_load() {
    let server = server();
    let mut topic = Topic::new(&server, debezium());
    topic.append(Some(&key_of(1)), Some(&event("r", None, Some(row(1, &[]))))).unwrap();
    topic.append(Some(&key_of(2)), Some(&event("r", None, Some(row(2, &[]))))).unwrap();
    let change = event("c", None, Some(row(3, &[])));
    assert_eq!(topic.append(Some(&key_of(3)), Some(&change)).unwrap(), Appended::CloseFirst);
    let (rows, id, initial_load) = topic.close();
    assert_eq!((rows.num_rows(), id, initial_load), (2, 1, true));
    topic.append(Some(&key_of(3)), Some(&change)).unwrap();
    let (rows, id, initial_load) = topic.close();
    assert_eq!((rows.num_rows(), id, initial_load), (1, 1, false));
}

/// The forms are those of UnchangedToastedPlaceholder of Debezium 3; the uuid is the one that Java's nameUUIDFromBytes makes.
#[test]
fn what_was_not_sent_is_named() {
    let list = |item: Avro| there(Avro::Array(vec![item]));
    let numbers = PLACEHOLDER.bytes().map(|byte| there(Avro::Long(byte.into()))).collect();
    let left_out = [
        ("name", text(PLACEHOLDER)),
        ("blob", there(Avro::Bytes(PLACEHOLDER.into()))),
        ("doc", text(PLACEHOLDER)),
        ("words", list(text(PLACEHOLDER))),
        ("numbers", there(Avro::Array(numbers))),
    ];
    let server = server();
    let mut topic = Topic::new(&server, debezium());
    topic.append(Some(&key_of(1)), Some(&event("c", None, Some(row(1, &[("name", text("a"))]))))).unwrap();
    topic.append(Some(&key_of(1)), Some(&event("u", None, Some(row(1, &left_out))))).unwrap();
    // What the row before has is no secret.
    let before = row(1, &[("name", text("before")), ("doc", text(PLACEHOLDER)), ("blob", there(Avro::Bytes(vec![9])))]);
    topic.append(Some(&key_of(1)), Some(&event("u", Some(before), Some(row(1, &left_out))))).unwrap();
    topic.append(Some(&key_of(1)), Some(&event("u", None, Some(row(1, &[("name", text("whole"))]))))).unwrap();
    assert_eq!(
        topic.printed(&["name", "blob", "doc", "words", "numbers", "_cdc_unchanged"]),
        [
            "a null null null null null",
            "null null null null null [name, blob, doc, words, numbers]",
            "before 09 null null null [doc, words, numbers]",
            "whole null null null null null",
        ]
    );
}

#[test]
fn each_form_of_what_was_not_sent() {
    use crate::decode::avro::placeholder::forms;
    use crate::decode::unavailable::Unavailable;
    let unavailable = Unavailable::new(PLACEHOLDER);
    let map = format!(r#"{{"{PLACEHOLDER}":"{PLACEHOLDER}"}}"#);
    let entry = (PLACEHOLDER.to_owned(), Avro::String(PLACEHOLDER.to_owned()));
    // What Java's UUID.nameUUIDFromBytes makes of the text.
    let uuid = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";
    for (schema, value) in [
        (json!("string"), Avro::String(PLACEHOLDER.into())),
        (json!("string"), Avro::String(map)),
        (json!({"type": "array", "items": "bytes"}), Avro::Array(vec![Avro::Bytes(PLACEHOLDER.into())])),
        (
            json!({"type": "array", "items": "int"}),
            Avro::Array(PLACEHOLDER.bytes().map(|b| Avro::Int(b.into())).collect()),
        ),
        (json!({"type": "map", "values": "string"}), Avro::Map([entry].into())),
        (json!({"type": "array", "items": "string"}), Avro::Array(vec![Avro::String(uuid.into())])),
    ] {
        let bytes = to_avro_datum(&Schema::parse(&schema).unwrap(), value).unwrap();
        let written = forms(&plan(&schema), &unavailable);
        assert!(written.contains(&bytes), "{schema}: {bytes:?}, {written:?}");
    }
    assert!(forms(&plan(&json!("long")), &unavailable).is_empty());
}

#[test]
fn events_that_are_none() {
    let server = server();
    server.tell("/schemas/ids/9", error(404, 40403, "Schema 9 not found"));
    let mut topic = Topic::new(&server, debezium());
    let created = event("c", None, Some(row(1, &[])));
    topic.append(Some(&key_of(1)), Some(&created)).unwrap();
    for (key, value, words) in [
        (Some(key_of(1)), event("x", None, None), "its `op` is none of"),
        (Some(key_of(1)), event("c", None, None), "a change event without `after`"),
        (None, event("d", None, None), "the message's key is null, and rows before had one"),
        (Some(wire(2, &[])), event("d", None, None), "column id: the value ends before it should"),
        (Some(key_of(1)), created[..created.len() - 1].to_vec(), "column ts_ms: the value ends before it should"),
        (Some(key_of(1)), created[..20].to_vec(), "the value ends before it should"),
        (Some(key_of(1)), [&created[..], &[0]].concat(), "1 bytes are left behind"),
        (Some(key_of(1)), wire(5, &[2]), "flat is no change event of Debezium"),
        (Some(wire(9, &[])), created.clone(), "schema 9 does not exist in the registry"),
    ] {
        let refused = topic.refused(key.as_deref(), Some(&value));
        assert!(refused.contains(words), "{words}: {refused}");
    }
    assert_eq!(topic.printed(&["id"]), ["1"]);
}

/// The converters of keys and values may be different ones.
#[test]
fn keys_may_be_json() {
    let server = server();
    let mut topic = Topic::new(&server, debezium());
    topic.append(Some(br#"{"id": 1}"#), Some(&event("c", None, Some(row(1, &[]))))).unwrap();
    topic.append(Some(br#"{"schema": null, "payload": {"id": 2}}"#), Some(&event("d", None, None))).unwrap();
    topic.append(Some(&key_of(3)), Some(&event("d", None, None))).unwrap();
    assert_eq!(topic.printed(&["id", "_cdc_operation"]), ["1 INSERT", "2 DELETE", "3 DELETE"]);
}

/// A table without a key.
#[test]
fn without_a_key() {
    let server = server();
    let mut topic = Topic::new(&server, debezium());
    topic.append(None, Some(&event("c", None, Some(row(1, &[]))))).unwrap();
    let (rows, ..) = topic.close();
    assert_eq!(rows.schema().metadata()["philotes.key"], "[]");
}
