//! Messages that make no row: without tolerance they stop the connector, with it they are kept whole, each once.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::{Client, Record};
use philotes_tests::readers::READERS;
use philotes_tests::services::registry::Registry;
use serde_json::{Value, json};

use super::broker::Broker;
use super::{assert_refused, connector};

/// Sends values to partition 0 of a new topic.
fn topic_of(client: &Client, topic: &str, records: &[Record<'_>]) {
    client.create_topic(topic, 1).unwrap();
    let producer = client.producer().unwrap();
    for record in records {
        producer.send(topic, 0, record).unwrap();
    }
    producer.flush().unwrap();
}

/// Asserts that the connector stops at this offset, and that with tolerance the other rows are in the table and these are
/// letters: what each message says of its reason, and the record.
fn assert_bad(connector: Connector, topic: &str, good: &[i64], bad: &[(i64, &str, Value)]) {
    let (first, reason, _) = &bad[0];
    let at = first.to_string();
    assert_refused(&connector, &[topic, &at, reason]);
    let connector =
        connector.top("errors: {tolerance: dead-letter}").sink(&format!("dead_letters: cdc.{topic}_letters"));
    Host::until_idle(&connector).unwrap();
    // Nothing twice by another start.
    Host::until_idle(&connector).unwrap();
    for reader in READERS {
        let table = connector.table(&format!("cdc.{topic}"));
        let rows = reader.query(&table, "select id from t order by _kafka_offset").unwrap().rows;
        let ids: Vec<i64> = rows.iter().map(|row| row[0].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(ids, good, "{reader}");
        let letters = connector.table(&format!("cdc.{topic}_letters"));
        let sql = "select stream, \"partition\", origin, kind, position, message, record from t order by sequence";
        let letters = reader.query(&letters, sql).unwrap().rows;
        assert_eq!(letters.len(), bad.len(), "{reader}: {letters:?}");
        for (letter, (offset, reason, wanted)) in letters.iter().zip(bad) {
            let position = format!("{topic}-0@{offset}");
            assert_eq!(json!(letter[..5]), json!([topic, "0", "source", "data", position]), "{reader}");
            assert!(letter[5].as_str().unwrap().contains(reason), "{reader}: {letter:?}, not {reason}");
            let record: Value = serde_json::from_str(letter[6].as_str().unwrap()).unwrap();
            for (name, value) in wanted.as_object().unwrap() {
                assert_eq!(&record[name], value, "{reader}: {name} of {record}");
            }
            assert_eq!((&record["topic"], &record["offset"]), (&json!(topic), &json!(offset)), "{reader}");
        }
    }
}

#[test]
fn broken_json() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "broken";
    let headers: &[(&str, Option<&[u8]>)] = &[("h", Some(b"\xff")), ("h", None), ("i", Some(b"1"))];
    let records = [
        Record::of(b"{\"id\":0}"),
        Record { key: Some(b"k"), headers, timestamp_millis: Some(1000), ..Record::of(b"{\"id\":1") },
        Record::of(b"\xff\xfe"),
        Record::of(b"{\"id\":3}"),
        Record::of(b"[1]"),
        Record::of(b""),
        Record::of(b"{\"id\":6} {\"id\":7}"),
        Record::of(b"{\"id\":7}"),
    ];
    topic_of(&client, topic, &records);
    let printed =
        json!([{"name": "h", "value_base64": "/w=="}, {"name": "h", "value": null}, {"name": "i", "value": "1"}]);
    let whole = json!({"key": "k", "value": "{\"id\":1", "headers": printed, "timestamp": 1000});
    let bad = [
        (1, "", whole),
        (2, "", json!({"key": null, "value_base64": "//4=", "headers": []})),
        (4, "", json!({"value": "[1]"})),
        (5, "", json!({"value": ""})),
        (6, "", json!({"value": "{\"id\":6} {\"id\":7}"})),
    ];
    assert_bad(connector(broker.bootstrap(), topic), topic, &[0, 3, 7], &bad);
}

#[test]
fn wrong_types_and_missing_keys() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "mistyped";
    let records = [
        Record::of(b"{\"id\":0,\"v\":1}"),
        Record::of(b"{\"id\":1,\"v\":\"many\"}"),
        Record::of(b"{\"id\":null,\"v\":1}"),
        Record::of(b"{\"v\":1}"),
        Record::of(b"{\"id\":4,\"v\":9223372036854775808}"),
        Record::of(b"{\"id\":5,\"v\":1.5}"),
        // A tombstone whose key does not tell which row.
        Record::default(),
        Record::of(b"{\"id\":7,\"v\":null}"),
    ];
    topic_of(&client, topic, &records);
    let connector =
        connector(broker.bootstrap(), topic).source("format: {type: json, columns: {id: long, v: long}, key: [id]}");
    let letter = |value: &str| json!({ "value": value });
    let bad = [
        (1, "v", letter("{\"id\":1,\"v\":\"many\"}")),
        (2, "id", letter("{\"id\":null,\"v\":1}")),
        (3, "id", letter("{\"v\":1}")),
        (4, "v", letter("{\"id\":4,\"v\":9223372036854775808}")),
        (5, "v", letter("{\"id\":5,\"v\":1.5}")),
        (6, "key", json!({"key": null, "value": null})),
    ];
    assert_bad(connector, topic, &[0, 7], &bad);
}

/// A message without a value is the DELETE of the row that its key names.
#[test]
fn tombstones_are_deletes_where_there_is_a_key() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "tombs";
    let records = [
        Record { key: Some(b"{\"id\":1}"), ..Record::of(b"{\"id\":1,\"v\":1}") },
        Record { key: Some(b"{\"id\":1}"), ..Record::default() },
    ];
    topic_of(&client, topic, &records);
    let connector = connector(broker.bootstrap(), topic).source("format: {type: json, key: [id]}");
    Host::until_idle(&connector).unwrap();
    for reader in READERS {
        let sql = "select _cdc_operation, id, v from t order by _kafka_offset";
        let rows = reader.query(&connector.table("cdc.tombs"), sql).unwrap().rows;
        assert_eq!(json!(rows), json!([["INSERT", "1", "1"], ["DELETE", "1", null]]), "{reader}");
    }
}

#[test]
fn truncated_avro_and_unknown_schemas() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "truncated";
    let registry = Registry::start().unwrap();
    let schema = json!({"type": "record", "name": "r", "fields": [
        {"name": "id", "type": "long"}, {"name": "who", "type": "string"},
    ]});
    let id = registry.register("truncated-value", "AVRO", &schema.to_string());
    assert_eq!(id, 1);
    registry.register("other", "JSON", "{}");
    // Avro 1.12: a long is a zigzag varint, a string its length and its bytes.
    let records = [
        Record::of(b"\0\0\0\0\x01\x00\x04me"),
        Record::of(b"\0\0\0\0\x01\x02\x08me"),
        Record::of(b"\0\0\0\0\x01"),
        Record::of(b"\0\0\0\0\x09\x02\x04me"),
        Record::of(b"{\"id\":1}"),
        Record::of(b"\0\0"),
        Record::of(b"\0\0\0\0\x01\x0c\x04me!"),
        Record::of(b"\0\0\0\0\x01\x0e\x04\xff\xff"),
        Record::of(b"\0\0\0\0\x01\x10\x04me"),
    ];
    topic_of(&client, topic, &records);
    let connector = connector(broker.bootstrap(), topic)
        .source("format: {type: avro}")
        .source(&format!("registry: {{url: \"{}\"}}", registry.url()));
    let bad = [
        (1, "", json!({"value": "\0\0\0\0\x01\x02\x08me"})),
        (2, "", json!({"value": "\0\0\0\0\x01"})),
        (3, "9", json!({"value": "\0\0\0\0\t\x02\x04me"})),
        (4, "", json!({"value": "{\"id\":1}"})),
        (5, "", json!({"value": "\0\0"})),
        (6, "", json!({"value": "\0\0\0\0\x01\x0c\x04me!"})),
        // As `printf '\0\0\0\0\1\016\4\377\377' | base64` has it.
        (7, "", json!({"value_base64": "AAAAAAEOBP//"})),
    ];
    assert_bad(connector, topic, &[0, 8], &bad);
}
