//! Avro and JSON Schema in Confluent's wire format, written by Confluent's own Python client: what Python put in is what the
//! readers find.

use std::time::Duration;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::Confluent;
use philotes_tests::or_skip;
use philotes_tests::readers::{READERS, Table};
use philotes_tests::services::proxy::{Fault, Proxy, Rule};
use philotes_tests::services::registry::Registry;
use serde_json::{Value, json};

use super::broker::Broker;
use super::{connector, wait_for};
use crate::PATIENCE;

fn reading(bootstrap: &str, topic: &str, format: &str, url: &str) -> Connector {
    connector(bootstrap, topic).source(format).source(&format!("registry: {{url: \"{url}\"}}"))
}

/// Asserts that the rows have these cells, in the order of the messages.
fn assert_cells(table: &Table, columns: &[&str], expected: &[Value]) {
    for reader in READERS {
        let chosen = columns.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let rows = reader.query(table, &format!("select {chosen} from t order by _kafka_offset")).unwrap().rows;
        assert_eq!(rows.len(), expected.len(), "{reader}");
        for (row, expected) in rows.iter().zip(expected) {
            for (cell, name) in row.iter().zip(columns) {
                assert_eq!(cell, &expected[*name], "{reader}: {name}");
            }
        }
    }
}

fn produced(result: anyhow::Result<Vec<Value>>) -> Option<Vec<Value>> {
    or_skip(|| result)
}

/// Every type of Avro 1.12 and every logical type that Confluent's client writes.
fn every_type() -> (Value, Vec<Value>) {
    let nullable = |of: Value| json!(["null", of]);
    let logical = |of: &str, name: &str| json!({"type": of, "logicalType": name});
    let decimal = |of: Value| {
        let mut decimal = of;
        decimal["logicalType"] = json!("decimal");
        decimal["precision"] = json!(20);
        decimal["scale"] = json!(4);
        decimal
    };
    let address = json!({"type": "record", "name": "address", "fields": [
        {"name": "street", "type": "string"}, {"name": "number", "type": nullable(json!("int"))},
    ]});
    let fields = [
        ("flag", json!("boolean")),
        ("small", json!("int")),
        ("large", json!("long")),
        ("single", json!("float")),
        ("double", json!("double")),
        ("text", json!("string")),
        ("binary", json!("bytes")),
        ("fixed", json!({"type": "fixed", "name": "four", "size": 4})),
        ("color", json!({"type": "enum", "name": "color", "symbols": ["RED", "GREEN"]})),
        ("list", json!({"type": "array", "items": "long"})),
        ("nested", address),
        // A name that was told before.
        ("places", json!({"type": "array", "items": "address"})),
        ("labels", json!({"type": "map", "values": nullable(json!("long"))})),
        ("holes", json!({"type": "array", "items": nullable(json!("string"))})),
        // Several types that are not null are a struct with a member for each.
        ("either", json!(["null", "long", "string"])),
        ("price", decimal(json!({"type": "bytes"}))),
        ("exact", decimal(json!({"type": "fixed", "name": "nine", "size": 9}))),
        ("id_of", logical("string", "uuid")),
        ("day", logical("int", "date")),
        ("millis_of_day", logical("int", "time-millis")),
        ("micros_of_day", logical("long", "time-micros")),
        ("at_millis", logical("long", "timestamp-millis")),
        ("at_micros", logical("long", "timestamp-micros")),
        ("local_millis", logical("long", "local-timestamp-millis")),
        ("local_micros", logical("long", "local-timestamp-micros")),
        ("maybe", nullable(json!("string"))),
        ("last", json!(["long", "null"])),
    ];
    let fields: Vec<Value> = fields.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
    let first = json!({
        "flag": true, "small": -2_147_483_648_i64, "large": i64::MAX, "single": 1.5, "double": 0.1,
        "text": "Grüße, 世界", "binary": {"$bytes": "00ff10"}, "fixed": {"$bytes": "deadbeef"}, "color": "GREEN",
        "list": [1, -1, 4_611_686_018_427_387_904_i64], "nested": {"street": "Hauptstraße", "number": 7},
        "places": [{"street": "a", "number": null}, {"street": "b", "number": 1}], "labels": {"a": 1, "b": null},
        "holes": ["x", null], "either": 5,
        "price": {"$decimal": "-1234567890.1234"}, "exact": {"$decimal": "0.0001"},
        "id_of": {"$uuid": "123e4567-e89b-12d3-a456-426614174000"},
        "day": {"$date": "2024-02-29"}, "millis_of_day": {"$time": "23:59:59.999"},
        "micros_of_day": {"$time": "23:59:59.999999"},
        "at_millis": {"$timestamp": "2024-02-29T12:00:00.123+02:00"},
        "at_micros": {"$timestamp": "1969-12-31T23:59:59.999999+00:00"},
        "local_millis": {"$timestamp": "2024-02-29T12:00:00.123"}, "local_micros": {"$timestamp": "1583-01-01T00:00:00.000001"},
        "maybe": "there", "last": 1,
    });
    let second = json!({
        "flag": false, "small": 0, "large": i64::MIN, "single": {"$float": "-inf"}, "double": {"$float": "nan"},
        "text": "", "binary": {"$bytes": ""}, "fixed": {"$bytes": "00000000"}, "color": "RED",
        "list": [], "nested": {"street": "", "number": null},
        "places": [], "labels": {}, "holes": [], "either": "five",
        "price": {"$decimal": "9999999999999999.9999"}, "exact": {"$decimal": "-99999999999999.9999"},
        "id_of": {"$uuid": "00000000-0000-0000-0000-000000000000"},
        "day": {"$date": "1969-12-31"}, "millis_of_day": {"$time": "00:00:00"}, "micros_of_day": {"$time": "00:00:00"},
        "at_millis": {"$timestamp": "9999-12-31T23:59:59.999+00:00"},
        "at_micros": {"$timestamp": "0001-01-01T00:00:00+00:00"},
        "local_millis": {"$timestamp": "1970-01-01T00:00:00"}, "local_micros": {"$timestamp": "9999-12-31T23:59:59.999999"},
        "maybe": null, "last": null,
    });
    (json!({"type": "record", "name": "every", "fields": fields}), vec![first, second])
}

#[test]
fn every_avro_type_is_what_python_put_in() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "avro_types";
    client.create_topic(topic, 1).unwrap();
    let registry = Registry::start_for("me", "registry-secret").unwrap();
    let (schema, values) = every_type();
    let avro = Confluent::avro(broker.bootstrap(), &registry, topic, &schema).by("me", "registry-secret");
    let Some(mut cells) = produced(avro.produce(&values)) else { return };
    cells[0]["either"] = json!({"long": "5", "string": null});
    cells[1]["either"] = json!({"long": null, "string": "five"});
    let connector = connector(broker.bootstrap(), topic)
        .source("format: {type: avro}")
        .source(&format!("registry: {{url: \"{}\", username: me, password: registry-secret}}", registry.url()));
    Host::until_idle(&connector).unwrap();
    let names: Vec<&str> = schema["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_cells(&connector.table("cdc.avro_types"), &names, &cells);
}

/// A field comes in mid-stream, and its column with it; one that goes is empty from then on.
#[test]
fn schemas_evolve_in_mid_stream() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "avro_evolves";
    client.create_topic(topic, 1).unwrap();
    let registry = Registry::start().unwrap();
    let schema = |fields: &[(&str, Value)]| {
        let fields: Vec<Value> =
            fields.iter().map(|(name, kind)| json!({"name": name, "type": kind, "default": null})).collect();
        let fields = [vec![json!({"name": "id", "type": "long"})], fields].concat();
        json!({"type": "record", "name": "r", "fields": fields})
    };
    let text = || json!(["null", "string"]);
    let writes = |schema: &Value, values: &[Value]| {
        produced(Confluent::avro(broker.bootstrap(), &registry, topic, schema).produce(values))
    };
    let Some(_) = writes(&schema(&[("a", text())]), &[json!({"id": 1, "a": "x"})]) else { return };
    let connector = reading(broker.bootstrap(), topic, "format: {type: avro}", &registry.url());
    let table = connector.table("cdc.avro_evolves");
    let host = Host::start(&connector, &[]).unwrap();
    wait_for(&host, &table, 1);
    writes(&schema(&[("a", text()), ("b", text())]), &[json!({"id": 2, "a": "y", "b": "new"})]).unwrap();
    wait_for(&host, &table, 2);
    writes(&schema(&[("b", text())]), &[json!({"id": 3, "b": "z"})]).unwrap();
    // An old writer is still there.
    writes(&schema(&[("a", text())]), &[json!({"id": 4, "a": "w"})]).unwrap();
    wait_for(&host, &table, 4);
    host.terminate().unwrap();
    let expected = [
        json!({"id": "1", "a": "x", "b": null}),
        json!({"id": "2", "a": "y", "b": "new"}),
        json!({"id": "3", "a": null, "b": "z"}),
        json!({"id": "4", "a": "w", "b": null}),
    ];
    assert_cells(&table, &["id", "a", "b"], &expected);
    // By id, once each.
    for id in 1..4 {
        assert_eq!(registry.requests(&format!("GET /schemas/ids/{id}")), 1, "schema {id}");
    }
}

/// The registry is away for ten seconds, or answers that something is wrong with it: that is told, and nothing is skipped.
#[test]
fn the_registry_goes_away_and_comes_back() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "avro_waits";
    client.create_topic(topic, 1).unwrap();
    let registry = Registry::start().unwrap();
    let proxy = Proxy::http(registry.port()).unwrap();
    let schema = |name: &str| json!({"type": "record", "name": name, "fields": [{"name": "id", "type": "long"}]});
    let writes = |name: &str, id: i64| {
        produced(Confluent::avro(broker.bootstrap(), &registry, topic, &schema(name)).produce(&[json!({ "id": id })]))
    };
    let Some(_) = writes("one", 1) else { return };
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let connector = reading(broker.bootstrap(), topic, "format: {type: avro}", &url);
    let table = connector.table("cdc.avro_waits");
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for(&host, &table, 1);
    proxy.set(Rule::new(Fault::Refuse)).unwrap();
    writes("two", 2).unwrap();
    let said = host.wait_for_log(&["unavailable", "registry"], PATIENCE).unwrap();
    assert!(said.contains(&url), "{said}");
    std::thread::sleep(Duration::from_secs(10));
    assert!(host.is_running().unwrap(), "{}", host.log_tail());
    proxy.clear().unwrap();
    wait_for(&host, &table, 2);
    registry.register("avro_waits-value", "AVRO", &schema("three").to_string());
    registry.fail(Some(503));
    client.producer().unwrap().send_one(topic, b"\0\0\0\0\x03\x06").unwrap();
    host.wait_for_log(&["unavailable", "503"], PATIENCE).unwrap();
    registry.fail(None);
    wait_for(&host, &table, 3);
    host.terminate().unwrap();
    assert_cells(&table, &["id"], &[json!({"id": "1"}), json!({"id": "2"}), json!({"id": "3"})]);
}

#[test]
fn a_wrong_password_of_the_registry_is_told() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "avro_secret";
    client.create_topic(topic, 1).unwrap();
    let registry = Registry::start_for("me", "registry-secret").unwrap();
    client.producer().unwrap().send_one(topic, b"\0\0\0\0\x01\x02").unwrap();
    let connector = connector(broker.bootstrap(), topic)
        .source("format: {type: avro}")
        .source(&format!("registry: {{url: \"{}\", username: me, password: wrong-secret}}", registry.url()));
    let mut host = Host::start(&connector, &[]).unwrap();
    super::assert_stops(&mut host, &["registry", "401"]);
    assert!(!host.log().contains("wrong-secret"));
}

#[test]
fn json_schema_is_what_python_put_in() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "json_schema";
    client.create_topic(topic, 1).unwrap();
    let registry = Registry::start().unwrap();
    let schema = json!({"type": "object", "title": "order", "required": ["id"], "properties": {
        "id": {"type": "integer"}, "price": {"type": "number"}, "paid": {"type": "boolean"}, "who": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "at": {"type": "object", "properties": {"city": {"type": "string"}}},
    }});
    let values = [
        json!({"id": 1, "price": 0.5, "paid": true, "who": "Grüße", "tags": ["a", "b"], "at": {"city": "Graz"}}),
        json!({"id": 2}),
    ];
    let json_schema = Confluent::json(broker.bootstrap(), &registry, topic, &schema);
    let Some(mut cells) = produced(json_schema.produce(&values)) else { return };
    for name in ["price", "paid", "who", "tags", "at"] {
        cells[1][name] = Value::Null;
    }
    let connector = reading(broker.bootstrap(), topic, "format: {type: json-schema}", &registry.url());
    Host::until_idle(&connector).unwrap();
    assert_cells(&connector.table("cdc.json_schema"), &["id", "price", "paid", "who", "tags", "at"], &cells);
}

/// A message without a value deletes the row that its Avro key names.
#[test]
fn avro_tombstones_are_deletes() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "avro_tombs";
    client.create_topic(topic, 1).unwrap();
    let registry = Registry::start().unwrap();
    let record = |name: &str, fields: Value| json!({"type": "record", "name": name, "fields": fields});
    let id = json!({"name": "id", "type": "long"});
    let avro =
        Confluent::avro(broker.bootstrap(), &registry, topic, &record("r", json!([id, {"name": "v", "type": "long"}])))
            .keyed(&record("k", json!([id])));
    let messages = [
        json!({"key": {"id": 1}, "value": {"id": 1, "v": 10}}),
        json!({"key": {"id": 2}, "value": {"id": 2, "v": 20}}),
        json!({"key": {"id": 1}, "value": null}),
    ];
    let Some(_) = produced(avro.produce_keyed(&messages)) else { return };
    let connector = reading(broker.bootstrap(), topic, "format: {type: avro, key: [id]}", &registry.url());
    Host::until_idle(&connector).unwrap();
    let expected = [
        json!({"_cdc_operation": "INSERT", "id": "1", "v": "10"}),
        json!({"_cdc_operation": "INSERT", "id": "2", "v": "20"}),
        json!({"_cdc_operation": "DELETE", "id": "1", "v": null}),
    ];
    assert_cells(&connector.table("cdc.avro_tombs"), &["_cdc_operation", "id", "v"], &expected);
}
