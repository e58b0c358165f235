//! What schemas say of columns, and messages by a registry that has their schemas.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use philotes_sdk::batch::{META_KEY, META_SOURCE_TYPE};
use philotes_sdk::{ErrorKind, StreamName};
use serde_json::{Value, json};

use super::*;
use crate::config::FormatConfig;
use crate::decode::kind::{Digits, Infinities, Text, Unit};
use crate::decode::{OpenBatch, TopicDecoder};
use crate::registry::Referred;
use crate::registry::scripted::{Scripted, error, json_schema, ok};

fn registered(schema: &Value, references: &[(&str, Value)]) -> Registered {
    let referred = |(name, schema): &(&str, Value)| Referred { name: (*name).to_owned(), text: schema.to_string() };
    Registered {
        id: 1,
        language: Language::JsonSchema,
        text: schema.to_string(),
        references: references.iter().map(referred).collect(),
    }
}

fn kind(schema: &Value) -> Kind {
    described::parse(&registered(schema, &[]), Dialect::Connect).unwrap()
}

fn list(item: Kind) -> Kind {
    Kind::List(Box::new(item))
}

/// The names and kinds of a struct's members.
fn members(kind: Kind) -> Vec<(String, Kind)> {
    let Kind::Struct(members) = kind else { panic!("{kind:?} is no struct") };
    members.into_iter().map(|member| (member.name, member.kind)).collect()
}

#[test]
fn types_are_kinds() {
    for (schema, expected) in [
        (json!({"type": "integer"}), Kind::Long),
        (json!({"type": "number"}), Kind::Double),
        (json!({"type": "boolean"}), Kind::Boolean),
        (json!({"type": "string"}), Kind::STRING),
        (json!({"type": "string", "format": "date"}), Kind::DATE),
        (json!({"type": "string", "format": "time"}), Kind::Time(None)),
        (json!({"type": "string", "format": "date-time"}), Kind::timestamp(true, None)),
        (json!({"type": "string", "format": "uuid"}), Kind::Uuid),
        (json!({"type": "string", "format": "email"}), Kind::STRING),
        (json!({"type": "string", "contentEncoding": "base64"}), Kind::Binary),
        (json!({"type": "array", "items": {"type": "integer"}}), list(Kind::Long)),
        (json!({"items": {"type": "string"}}), list(Kind::STRING)),
        (
            json!({"type": "object", "additionalProperties": {"type": "number"}}),
            Kind::Map(Box::new(Kind::STRING), Box::new(Kind::Double)),
        ),
        // Null is what every column may be.
        (json!({"type": ["string", "null"]}), Kind::STRING),
        (json!({"type": ["null", "integer", "number"]}), Kind::Double),
        (json!({"oneOf": [{"type": "null"}, {"type": "integer"}]}), Kind::Long),
        (json!({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}), Kind::DATE),
        (json!({"anyOf": [{"type": "boolean"}, {"const": null}]}), Kind::Boolean),
        (json!({"allOf": [{"type": "integer"}]}), Kind::Long),
        (json!({"enum": ["a", "b", null]}), Kind::STRING),
        (json!({"enum": [1, 2]}), Kind::Long),
        (json!({"const": true}), Kind::Boolean),
        (json!({"type": "string", "enum": ["a"]}), Kind::STRING),
        // What has no one type is JSON.
        (json!(true), Kind::Json),
        (json!({}), Kind::Json),
        (json!({"type": ["string", "integer"]}), Kind::Json),
        (json!({"oneOf": [{"type": "string"}, {"type": "integer"}]}), Kind::Json),
        (json!({"enum": [1, "a"]}), Kind::Json),
        (json!({"type": "object"}), Kind::Json),
        (json!({"type": "object", "additionalProperties": true}), Kind::Json),
        (json!({"type": "array"}), Kind::Json),
        (json!({"type": "array", "prefixItems": [{"type": "string"}]}), Kind::Json),
        (json!({"type": "array", "items": [{"type": "string"}]}), Kind::Json),
    ] {
        assert_eq!(kind(&schema), expected, "{schema}");
    }
}

#[test]
fn properties_are_members_in_their_order() {
    let schema = r#"{"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "object", "properties":
        {"y": {"type": "string"}, "b": {"type": "boolean"}}}}, "required": ["z"], "additionalProperties": false}"#;
    let registered = Registered { text: schema.to_owned(), ..registered(&json!(0), &[]) };
    let found = members(described::parse(&registered, Dialect::Connect).unwrap());
    assert_eq!(found[0], ("z".to_owned(), Kind::Long));
    assert_eq!(members(found[1].1.clone()), [("y".to_owned(), Kind::STRING), ("b".to_owned(), Kind::Boolean)]);
    // Kafka Connect's converter numbers them.
    let numbered = json!({"type": "object", "properties": {
        "a": {"type": "string", "connect.index": 2}, "b": {"type": "string", "connect.index": 0},
        "c": {"type": "string", "connect.index": 1}}});
    let names: Vec<_> = members(kind(&numbered)).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "c", "a"]);
    let all = json!({"type": "object", "properties": {"a": {"type": "string"}}, "allOf": [
        {"properties": {"b": {"type": "integer"}}}, {"if": {}, "then": {}}, {"$ref": "#/$defs/c"}],
        "$defs": {"c": {"type": "object", "properties": {"c": {"type": "boolean"}}}}});
    let names: Vec<_> = members(kind(&all)).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

/// As Confluent's JsonSchemaConverter writes Connect's types, optional ones as oneOf with null.
#[test]
fn types_of_kafka_connect() {
    let connect = |kind: &str, connect: &str, title: &str| {
        json!({"oneOf": [{"type": "null"}, {"type": kind, "connect.type": connect, "title": title, "connect.version": 1,
            "connect.parameters": {"scale": "2", "length": "3", "connect.decimal.precision": "10"}}]})
    };
    let local = |unit| Kind::Timestamp { zone: false, unit: Some(unit), infinities: Infinities::Debezium };
    for (schema, expected) in [
        (json!({"type": "integer", "connect.type": "int8"}), Kind::Int),
        (json!({"type": "integer", "connect.type": "int16"}), Kind::Int),
        (json!({"type": "integer", "connect.type": "int32"}), Kind::Int),
        (json!({"type": "integer", "connect.type": "int64"}), Kind::Long),
        (json!({"type": "number", "connect.type": "float32"}), Kind::Float),
        (json!({"type": "number", "connect.type": "float64"}), Kind::Double),
        (json!({"type": "string", "connect.type": "bytes"}), Kind::Binary),
        (
            json!({"type": "object", "connect.type": "map", "additionalProperties": {"type": "integer", "connect.type": "int32"}}),
            Kind::Map(Box::new(Kind::STRING), Box::new(Kind::Int)),
        ),
        (connect("string", "bytes", "org.apache.kafka.connect.data.Decimal"), Kind::Decimal(10, 2, Digits::Bytes)),
        (connect("number", "bytes", "org.apache.kafka.connect.data.Decimal"), Kind::Decimal(10, 2, Digits::Text)),
        (
            connect("integer", "int64", "org.apache.kafka.connect.data.Timestamp"),
            Kind::timestamp(true, Some(Unit::Millis)),
        ),
        (connect("integer", "int64", "io.debezium.time.MicroTimestamp"), local(Unit::Micros)),
        (connect("integer", "int32", "io.debezium.time.Date"), Kind::Date { infinities: Infinities::Debezium }),
        (connect("string", "bytes", "io.debezium.data.Bits"), Kind::String(Text::Bits(Some(3)))),
        (json!({"type": "string", "title": "io.debezium.data.Json", "connect.version": 1}), Kind::JsonText),
        (json!({"type": "string", "title": "io.debezium.time.ZonedTimestamp"}), Kind::timestamp(true, None)),
        (
            json!({"type": "object", "title": "io.debezium.data.VariableScaleDecimal", "properties": {
                "scale": {"type": "integer", "connect.type": "int32"}, "value": {"type": "string", "connect.type": "bytes"}}}),
            Kind::String(Text::VariableScale),
        ),
    ] {
        assert_eq!(kind(&schema), expected, "{schema}");
    }
}

#[test]
fn references_are_followed() {
    let other = json!({"$id": "https://example.com/schemas/other.json", "type": "string", "$defs": {
        "at": {"type": "string", "format": "date"}, "named": {"$anchor": "here", "type": "boolean"},
        "inner": {"$ref": "#/$defs/at"}}});
    for (reference, expected) in [
        ("#/$defs/a", Kind::Long),
        ("#/$defs/a~1b", Kind::Double),
        ("#/$defs/with%20space", Kind::Boolean),
        ("#local", Kind::Uuid),
        ("other.json", Kind::STRING),
        ("other.json#", Kind::STRING),
        ("https://example.com/schemas/other.json#/$defs/at", Kind::DATE),
        ("other.json#here", Kind::Boolean),
        ("other.json#/$defs/inner", Kind::DATE),
        ("registered-name", Kind::STRING),
    ] {
        let schema = json!({"$id": "https://example.com/schemas/top.json", "type": "object",
            "properties": {"x": {"$ref": reference}},
            "$defs": {"a": {"type": "integer"}, "a/b": {"type": "number"}, "with space": {"type": "boolean"},
                "u": {"$anchor": "local", "type": "string", "format": "uuid"}}});
        let registered = registered(&schema, &[("registered-name", other.clone())]);
        let found = members(described::parse(&registered, Dialect::Connect).unwrap());
        assert_eq!(found, [("x".to_owned(), expected)], "{reference}");
    }
}

#[test]
fn what_contains_itself_is_json() {
    let list = json!({"type": "object", "properties": {"id": {"type": "integer"}, "next": {"$ref": "#"}}});
    assert_eq!(members(kind(&list)), [("id".to_owned(), Kind::Long), ("next".to_owned(), Kind::Json)]);
    let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
    assert_eq!(kind(&circle), Kind::Json);
}

#[test]
fn schemas_that_cannot_be_read() {
    let deep = (0..70).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}));
    let mut wide = json!({"a0": {"type": "string"}});
    for level in 1..=20 {
        let below = format!("#/$defs/a{}", level - 1);
        wide[format!("a{level}")] = json!({"properties": {"x": {"$ref": &below}, "y": {"$ref": &below}}});
    }
    let decimal = json!({"type": "string", "connect.type": "bytes", "title": "org.apache.kafka.connect.data.Decimal"});
    for (schema, words) in [
        (json!({"$ref": "#/nowhere"}), "it refers to \"#/nowhere\", which is neither in it"),
        (json!({"$ref": "https://example.com/unknown.json"}), "unknown.json"),
        (json!({"$ref": "#/%zz"}), "#/%zz"),
        (deep, "deeper than 64"),
        (json!({"$ref": "#/$defs/a20", "$defs": wide}), "more than 100000 types"),
        (json!({"properties": {"d": decimal}}), "property \"d\": a Decimal whose parameter `scale`"),
    ] {
        let why = described::parse(&registered(&schema, &[]), Dialect::Connect).unwrap_err();
        assert!(why.contains(words), "{why}");
    }
    let no_json = Registered { text: "{".into(), ..registered(&json!(0), &[]) };
    assert!(described::parse(&no_json, Dialect::Connect).unwrap_err().contains("not JSON"));
}

/// A topic and its open batch.
struct Opened {
    decoder: TopicDecoder,
    batch: OpenBatch,
}

impl Opened {
    fn new(server: &Scripted, format: RegisteredFormat) -> Self {
        let stream = StreamName::new(["orders".to_owned()]).unwrap();
        let registry = Arc::new(server.client());
        let decoder = TopicDecoder::new(stream, &FormatConfig::JsonSchema(format), &[], Some(&registry)).unwrap();
        Self { decoder, batch: OpenBatch::default() }
    }

    fn append(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> philotes_sdk::Result<Appended> {
        let timestamp_millis = Some(1_700_000_000_000);
        let message = Message { topic: "orders", partition: 3, offset: 5, timestamp_millis, key, value, headers: &[] };
        self.decoder.append(&mut self.batch, &message)
    }

    fn refused(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        let error = self.append(key, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        error.to_string()
    }

    fn close(&mut self) -> RecordBatch {
        self.decoder.close(&mut self.batch).unwrap().unwrap().rows
    }
}

fn wire(id: u32, text: &str) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), text.as_bytes()].concat()
}

fn printed(rows: &RecordBatch, name: &str) -> Vec<String> {
    let array: &ArrayRef = rows.column_by_name(name).expect(name);
    let options = FormatOptions::default().with_null("null");
    let formatter = ArrayFormatter::try_new(array, &options).unwrap();
    (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
}

fn order() -> Value {
    json!({"title": "Order", "type": "object", "properties": {
        "id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"},
        "price": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": null},
        "tags": {"type": "array", "items": {"type": "string"}}, "any": {}}, "required": ["id"]})
}

fn keyed() -> RegisteredFormat {
    RegisteredFormat { key: vec!["id".to_owned()], ..RegisteredFormat::default() }
}

#[test]
fn objects_are_rows() {
    let server = Scripted::with(&[(1, json_schema(&order())), (2, json_schema(&json!({"type": "integer"})))]);
    let mut topic = Opened::new(&server, keyed());
    let row = r#"{"id": 1, "at": "2023-11-14T22:13:20.5Z", "price": 1.5, "tags": ["a"], "any": {"x": [1]}}"#;
    assert_eq!(topic.append(None, Some(&wire(1, row))).unwrap(), Appended::Rows);
    topic.append(None, Some(&wire(1, r#"{"price": null, "id": 2}"#))).unwrap();
    // The key as an object or a number, with a schema or as plain text.
    topic.append(Some(&wire(1, r#"{"id": 3}"#)), None).unwrap();
    topic.append(Some(&wire(2, "4")), None).unwrap();
    topic.append(Some(b"5"), None).unwrap();
    topic.append(Some(b"6"), Some(&wire(1, "null"))).unwrap();
    for (value, words) in [
        (&b"{\"id\": 1}"[..], "its first byte is 123, and 0 in Confluent's wire format"),
        (&wire(1, r#"{"id": "x"}"#), "column id"),
        (&wire(1, r#"{"id": 1, "more": 2}"#), "column more: a member that the schema has not"),
        (&wire(1, r#"{"id": 1"#), "its JSON is broken"),
        (&wire(1, r#"{"id": 1} {}"#), "its JSON is broken: something follows"),
        (&wire(1, r#"{"price": 1}"#), "column id: a key column that is null or missing"),
        (&wire(1, "[1]"), "the value is no JSON object"),
        (&[0, 0, 0, 0, 1, 0xff], "not UTF-8"),
    ] {
        let refused = topic.refused(None, Some(value));
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let rows = topic.close();
    assert_eq!(printed(&rows, "id"), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(printed(&rows, "_cdc_operation"), ["INSERT", "INSERT", "DELETE", "DELETE", "DELETE", "DELETE"]);
    let unsent = printed(&rows, "_cdc_unchanged");
    assert_eq!(unsent[..2], ["null", "null"]);
    let names = rows.schema();
    let names = ["at", "price", "tags", "any"].map(|name| (names.index_of(name).unwrap(), name));
    let names: Vec<_> = std::collections::BTreeMap::from(names).into_values().collect();
    assert_eq!(unsent[2..], vec![format!("[{}]", names.join(", ")); 4]);
    for (name, expected) in
        [("at", "2023-11-14T22:13:20.500Z"), ("price", "1.5"), ("tags", "[a]"), ("any", r#"{"x": [1]}"#)]
    {
        assert_eq!(printed(&rows, name)[..2], [expected, "null"], "{name}");
    }
    assert_eq!(rows.schema().metadata()[META_KEY], r#"["id"]"#);
    assert_eq!(rows.schema().field_with_name("at").unwrap().metadata()[META_SOURCE_TYPE], "date-time");
    assert_eq!(server.asked().len(), 1, "keys need no schema where rows had one");
}

#[test]
fn another_schema_is_another_batch() {
    let mut wider = order();
    wider["properties"]["more"] = json!({"type": "string"});
    let mut renamed = order();
    renamed["title"] = json!("Renamed");
    let server = Scripted::with(&[(1, json_schema(&order())), (2, json_schema(&wider)), (3, json_schema(&renamed))]);
    let mut topic = Opened::new(&server, RegisteredFormat::default());
    topic.append(None, Some(&wire(1, r#"{"id": 1}"#))).unwrap();
    assert_eq!(topic.append(None, Some(&wire(3, r#"{"id": 2}"#))).unwrap(), Appended::Rows);
    assert_eq!(topic.append(None, Some(&wire(2, r#"{"id": 3}"#))).unwrap(), Appended::CloseFirst);
    assert_eq!(topic.close().num_rows(), 2);
    topic.append(None, Some(&wire(2, r#"{"id": 3, "more": "x"}"#))).unwrap();
    assert_eq!(printed(&topic.close(), "more"), ["x"]);
}

#[test]
fn the_first_message_may_have_no_value() {
    let server = Scripted::with(&[(1, json_schema(&order())), (2, json_schema(&json!({"type": "integer"})))]);
    let latest = "/subjects/orders-value/versions/latest";
    server.tell(latest, error(404, 40401, "Subject 'orders-value' not found."));
    let refused = Opened::new(&server, keyed()).refused(Some(b"4"), None);
    assert!(refused.contains("nothing says what types the key columns have"), "{refused}");
    let mut topic = Opened::new(&server, keyed());
    topic.append(Some(&wire(2, "4")), None).unwrap();
    assert_eq!(printed(&topic.close(), "id"), ["4"]);
    server.tell(latest, ok(&json!({"id": 1, "schema": order().to_string(), "schemaType": "JSON"})));
    let mut topic = Opened::new(&server, keyed());
    topic.append(Some(b"4"), None).unwrap();
    assert_eq!(printed(&topic.close(), "price"), ["null"]);
}

#[test]
fn what_is_no_object_is_one_column() {
    let server = Scripted::with(&[(1, json_schema(&json!({"type": "array", "items": {"type": "integer"}})))]);
    let mut topic = Opened::new(&server, RegisteredFormat::default());
    topic.append(None, Some(&wire(1, "[1, 2]"))).unwrap();
    assert!(topic.refused(None, Some(&wire(1, "[1, 2] 3"))).contains("its JSON is broken"));
    assert_eq!(printed(&topic.close(), "value"), ["[1, 2]"]);
}

/// The schema as Confluent's converter makes it of Debezium's.
#[test]
fn changes_are_rows() {
    let row = json!({"type": "object", "title": "shop.items.Value", "properties": {
        "id": {"type": "integer", "connect.index": 0, "connect.type": "int32"},
        "name": {"connect.index": 1, "oneOf": [{"type": "null"}, {"type": "string"}]},
        "at": {"connect.index": 2, "oneOf": [{"type": "null"}, {"type": "integer", "connect.type": "int64",
            "title": "org.apache.kafka.connect.data.Timestamp", "connect.version": 1}]}}});
    let optional = |index: usize, schema: Value| json!({"connect.index": index, "oneOf": [{"type": "null"}, schema]});
    let envelope = json!({"type": "object", "title": "shop.items.Envelope", "properties": {
        "before": optional(0, row.clone()), "after": optional(1, row),
        "source": {"connect.index": 2, "type": "object", "properties": {"lsn": {"type": "integer"}}},
        "op": {"connect.index": 4, "type": "string"}, "ts_ms": optional(5, json!({"type": "integer"}))}});
    let heartbeat = json!({"type": "object", "title": "io.debezium.connector.common.Heartbeat", "properties": {
        "ts_ms": {"type": "integer", "connect.type": "int64"}}});
    let server = Scripted::with(&[(1, json_schema(&envelope)), (2, json_schema(&heartbeat))]);
    let format = RegisteredFormat { envelope: Envelope::Debezium, ..RegisteredFormat::default() };
    let mut topic = Opened::new(&server, format);
    let key = wire(7, r#"{"id":1}"#);
    let mut event = |text: &str| topic.append(Some(&key), Some(&wire(1, text))).unwrap();
    let source = r#""source":{"ts_ms":1700000000000,"lsn":97500059720}"#;
    event(&format!(
        r#"{{"before":null,"after":{{"id":1,"name":"a","at":1700000000000}},{source},"op":"c","ts_ms":1}}"#
    ));
    event(&format!(
        r#"{{"before":null,"after":{{"id":1,"name":"__debezium_unavailable_value","at":null}},{source},"op":"u"}}"#
    ));
    event(&format!(r#"{{"before":{{"id":1,"name":"b","at":null}},"after":null,{source},"op":"d"}}"#));
    event(&format!(r#"{{"before":null,"after":null,{source},"op":"d"}}"#));
    assert_eq!(topic.append(Some(&key), None).unwrap(), Appended::Skipped);
    assert_eq!(topic.append(None, Some(&wire(2, r#"{"ts_ms":1}"#))).unwrap(), Appended::Skipped);
    let refused = topic.refused(Some(&key), Some(&wire(1, r#"{"op":"c","after":{"id":1,"more":2}}"#)));
    assert!(refused.contains("column more: a member that the schema has not"), "{refused}");
    let rows = topic.close();
    assert_eq!(rows.schema().metadata()[META_KEY], r#"["id"]"#);
    assert_eq!(printed(&rows, "_cdc_operation"), ["INSERT", "UPDATE", "DELETE", "DELETE"]);
    assert_eq!(printed(&rows, "id"), ["1", "1", "1", "1"]);
    assert_eq!(printed(&rows, "name"), ["a", "null", "b", "null"]);
    assert_eq!(printed(&rows, "_cdc_unchanged"), ["null", "[name]", "null", "[name, at]"]);
    // Debezium's own timestamps of Connect have no zone.
    assert_eq!(printed(&rows, "at")[0], "2023-11-14T22:13:20");
    // 97500059720 is 0x16B374D848.
    assert_eq!(printed(&rows, "_cdc_lsn")[0], "16/B374D848");
}
