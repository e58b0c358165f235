//! Each type by bytes that were worked out by hand from the specification: longs are zigzag in groups of seven bits, the lowest
//! first; strings and bytes are preceded by their length; arrays and maps are blocks that end with a count of zero; a union is
//! the branch's index and the value; floats are little endian.

use arrow::datatypes::{DataType, TimeUnit};
use serde_json::json;

use super::*;

fn kind_of(schema: &Value) -> DataType {
    plan(schema).kind.arrow()
}

fn one(schema: &Value, bytes: &[u8]) -> String {
    printed(&read(schema, &[bytes]).unwrap()).remove(0)
}

fn refused(schema: &Value, bytes: &[u8]) -> String {
    let refusal = read(schema, &[bytes]).unwrap_err();
    format!("{}: {}", refusal.column.unwrap_or_default(), refusal.reason)
}

#[test]
fn primitives() {
    for (schema, bytes, expected, data_type) in [
        (json!("boolean"), &[1][..], "true", DataType::Boolean),
        (json!("boolean"), &[0], "false", DataType::Boolean),
        // The specification's own table of zigzag numbers.
        (json!("int"), &[0x00], "0", DataType::Int32),
        (json!("int"), &[0x01], "-1", DataType::Int32),
        (json!("int"), &[0x02], "1", DataType::Int32),
        (json!("int"), &[0x7f], "-64", DataType::Int32),
        (json!("int"), &[0x80, 0x01], "64", DataType::Int32),
        (json!("int"), &[0xff, 0xff, 0xff, 0xff, 0x0f], "-2147483648", DataType::Int32),
        (json!("long"), &[0x80, 0x01], "64", DataType::Int64),
        (
            json!("long"),
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "-9223372036854775808",
            DataType::Int64,
        ),
        (
            json!("long"),
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "9223372036854775807",
            DataType::Int64,
        ),
        // A number may be longer than it needs to be.
        (json!("long"), &[0x82, 0x00], "1", DataType::Int64),
        (json!("float"), &[0x00, 0x00, 0xc0, 0x3f], "1.5", DataType::Float32),
        (json!("double"), &[0, 0, 0, 0, 0, 0, 0xf8, 0xbf], "-1.5", DataType::Float64),
        (json!("bytes"), &[4, 0xff, 0x00], "ff00", DataType::Binary),
        (json!("string"), &[0x06, 0x66, 0x6f, 0x6f], "foo", DataType::Utf8),
        (json!("string"), &[0], "", DataType::Utf8),
        (json!({"type": "string", "avro.java.string": "String"}), &[2, b'x'], "x", DataType::Utf8),
        (json!({"type": {"type": "string"}}), &[2, b'x'], "x", DataType::Utf8),
        (json!({"type": "fixed", "name": "f", "size": 2}), &[0xca, 0xfe], "cafe", DataType::Binary),
        (json!({"type": "enum", "name": "e", "symbols": ["A", "B", "C"]}), &[2], "B", DataType::Utf8),
    ] {
        assert_eq!((one(&schema, bytes).as_str(), kind_of(&schema)), (expected, data_type), "{schema}");
    }
}

#[test]
fn logical_types() {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
    let time = DataType::Time64(TimeUnit::Microsecond);
    let of = |kind: &str, logical: &str| json!({"type": kind, "logicalType": logical});
    // 1500 is 3000 in zigzag: 0x38, then 0x17.
    for (schema, bytes, expected, data_type) in [
        (of("int", "date"), &[0x01][..], "1969-12-31", DataType::Date32),
        (of("int", "time-millis"), &[0xb8, 0x17], "00:00:01.500", time.clone()),
        (of("long", "time-micros"), &[0xb8, 0x17], "00:00:00.001500", time),
        (of("long", "timestamp-millis"), &[0xb8, 0x17], "1970-01-01T00:00:01.500Z", utc.clone()),
        (of("long", "timestamp-micros"), &[0xb8, 0x17], "1970-01-01T00:00:00.001500Z", utc.clone()),
        // 2000 nanoseconds.
        (of("long", "timestamp-nanos"), &[0xa0, 0x1f], "1970-01-01T00:00:00.000002Z", utc),
        (of("long", "local-timestamp-millis"), &[0xb7, 0x17], "1969-12-31T23:59:58.500", local.clone()),
        (of("long", "local-timestamp-micros"), &[0xb8, 0x17], "1970-01-01T00:00:00.001500", local.clone()),
        (of("long", "local-timestamp-nanos"), &[0xa0, 0x1f], "1970-01-01T00:00:00.000002", local),
        (
            json!({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}),
            &[4, 0x04, 0xd2],
            "12.34",
            DataType::Decimal128(4, 2),
        ),
        (
            json!({"type": "fixed", "name": "d", "size": 3, "logicalType": "decimal", "precision": 4}),
            &[0xff, 0xfb, 0x2e],
            "-1234",
            DataType::Decimal128(4, 0),
        ),
        (
            of("string", "uuid"),
            &[&[72][..], b"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"].concat(),
            "f81d4fae7dec11d0a76500a0c91e6bf6",
            DataType::FixedSizeBinary(16),
        ),
        (
            json!({"type": "fixed", "name": "u", "size": 16, "logicalType": "uuid"}),
            &[0xf8, 0x1d, 0x4f, 0xae, 0x7d, 0xec, 0x11, 0xd0, 0xa7, 0x65, 0x00, 0xa0, 0xc9, 0x1e, 0x6b, 0xf6],
            "f81d4fae7dec11d0a76500a0c91e6bf6",
            DataType::FixedSizeBinary(16),
        ),
        (
            json!({"type": "fixed", "name": "d", "size": 12, "logicalType": "duration"}),
            &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
            "010000000200000003000000",
            DataType::Binary,
        ),
        // What is not known, or stands at the wrong type, is as if it did not stand there.
        (of("long", "date"), &[2], "1", DataType::Int64),
        (of("string", "currency"), &[2, b'x'], "x", DataType::Utf8),
    ] {
        assert_eq!((one(&schema, bytes).as_str(), kind_of(&schema)), (expected, data_type), "{schema}");
    }
    assert!(refused(&of("long", "timestamp-nanos"), &[2]).contains("finer than microseconds"));
    assert!(refused(&of("string", "uuid"), &[2, b'x']).len() > 5);
    // 86,400,000 milliseconds.
    assert!(refused(&of("int", "time-millis"), &[0x80, 0xf0, 0xb2, 0x52]).contains("time within a day"));
    // Five digits where four are told.
    let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2});
    assert!(refused(&decimal, &[4, 0x27, 0x10]).contains("digits"));
}

#[test]
fn parts() {
    let array = json!({"type": "array", "items": "long"});
    // The specification's own example: the array of 3 and 27.
    assert_eq!(one(&array, &[0x04, 0x06, 0x36, 0x00]), "[3, 27]");
    // The same in two blocks, one of them with its length.
    assert_eq!(one(&array, &[0x01, 0x02, 0x06, 0x02, 0x36, 0x00]), "[3, 27]");
    assert_eq!(one(&array, &[0]), "[]");
    let map = json!({"type": "map", "values": ["null", "int"]});
    assert_eq!(one(&map, &[0x04, 0x02, b'a', 0x02, 0x0a, 0x02, b'b', 0x00, 0x00]), "{a: 5, b: null}");
    // The specification's own example: {"a": 27, "b": "foo"}.
    let record = json!({"type": "record", "name": "test", "fields": [
        {"name": "a", "type": "long"}, {"name": "b", "type": "string"}]});
    assert_eq!(one(&record, &[0x36, 0x06, 0x66, 0x6f, 0x6f]), "{a: 27, b: foo}");
    // And its example of unions: null as 00, "a" as 02 02 61.
    let union = json!(["null", "string"]);
    assert_eq!(printed(&read(&union, &[&[0x00], &[0x02, 0x02, 0x61]]).unwrap()), ["null", "a"]);
    assert_eq!(printed(&read(&json!(["string", "null"]), &[&[0x02], &[0x00, 0x02, 0x61]]).unwrap()), ["null", "a"]);
    assert_eq!(one(&json!(["string"]), &[0x00, 0x02, 0x61]), "a");
    let nested = json!({"type": "array", "items": ["null", record]});
    assert_eq!(one(&nested, &[0x04, 0x00, 0x02, 0x36, 0x00, 0x00]), "[null, {a: 27, b: }]");
}

#[test]
fn a_union_of_several_types_is_a_struct() {
    let record = |namespace: &str| json!({"type": "record", "name": "r", "namespace": namespace, "fields": [{"name": "x", "type": "int"}]});
    let union = json!(["null", "long", "string", record("a"), record("b")]);
    let array = read(&union, &[&[0], &[2, 2], &[4, 2, b'x'], &[6, 4], &[8, 6]]).unwrap();
    assert_eq!(
        printed(&array),
        [
            "null",
            "{long: 1, string: null, a.r: null, b.r: null}",
            "{long: null, string: x, a.r: null, b.r: null}",
            "{long: null, string: null, a.r: {x: 2}, b.r: null}",
            "{long: null, string: null, a.r: null, b.r: {x: 3}}",
        ]
    );
    let short = json!(["int", record("a")]);
    assert_eq!(printed(&read(&short, &[&[2, 4]]).unwrap()), ["{int: null, r: {x: 2}}"]);
}

#[test]
fn what_holds_no_value_has_no_column() {
    let record = json!({"type": "record", "name": "r", "fields": [
        {"name": "nothing", "type": "null"},
        {"name": "empty", "type": {"type": "record", "name": "e", "fields": []}},
        {"name": "never", "type": ["null"]},
        {"name": "x", "type": "int"},
        {"name": "nulls", "type": {"type": "array", "items": "null"}},
        {"name": "one", "type": ["e", "never", "int"]},
        {"name": "all", "type": {"type": "map", "values": "never"}}]});
    let record = record.to_string().replace(
        r#""type":["null"]"#,
        r#""type":{"type":"record","name":"never","fields":[{"name":"n","type":["null"]}]}"#,
    );
    let record: Value = serde_json::from_str(&record).unwrap();
    let written = [0, 2, 4, 0, 2, 0, 2, 2, b'k', 0, 0];
    assert_eq!(one(&record, &written), "{x: 1, nulls: [null, null], one: {int: null}, all: {k: null}}");
    let written = [0, 2, 0, 4, 6, 0];
    assert_eq!(one(&record, &written), "{x: 1, nulls: [], one: {int: 3}, all: {}}");
}

#[test]
fn names_are_resolved() {
    // Used twice, in its namespace, by its full name, and from a namespace within.
    let schema = json!({"type": "record", "name": "top", "namespace": "a.b", "fields": [
        {"name": "one", "type": {"type": "record", "name": "point", "fields": [{"name": "x", "type": "int"}]}},
        {"name": "two", "type": "point"},
        {"name": "three", "type": ["null", "a.b.point"]},
        {"name": "four", "type": {"type": "record", "name": "other.inner", "fields": [
            {"name": "five", "type": {"type": "enum", "name": "colour", "symbols": ["red"]}}]}},
        {"name": "six", "type": "other.colour"},
        {"name": "seven", "type": {"type": "point"}}]});
    let bytes = [2, 4, 2, 6, 0, 0, 8];
    assert_eq!(
        one(&schema, &bytes),
        "{one: {x: 1}, two: {x: 2}, three: {x: 3}, four: {five: red}, six: red, seven: {x: 4}}"
    );
}

#[test]
fn a_type_may_be_spelled_out_twice() {
    let point = |of: &str| json!({"type": "record", "name": "point", "fields": [{"name": "x", "type": of}]});
    let twice = |one: &str, two: &str| json!({"type": "record", "name": "r", "fields": [{"name": "a", "type": point(one)}, {"name": "b", "type": point(two)}]});
    assert_eq!(one(&twice("int", "int"), &[2, 4]), "{a: {x: 1}, b: {x: 2}}");
    assert!(parse(&twice("int", "long")).unwrap_err().contains("the type \"point\" is defined twice"));
}

#[test]
fn referred_schemas_are_known_by_their_names() {
    use crate::registry::Referred;
    let text = |schema: Value| schema.to_string();
    let schema = Registered {
        id: 1,
        language: Language::Avro,
        text: text(json!({"type": "record", "name": "top", "fields": [{"name": "p", "type": "a.point"}]})),
        references: vec![
            Referred { name: "a.unit".into(), text: text(json!({"type": "enum", "name": "a.unit", "symbols": ["m"]})) },
            Referred {
                name: "a.point".into(),
                text: text(json!({"type": "record", "name": "point", "namespace": "a", "fields": [
                    {"name": "x", "type": "int"}, {"name": "in", "type": "unit"}]})),
            },
        ],
    };
    let plan = Plan::new(&schema::parse(&schema).unwrap(), Dialect::Connect).unwrap();
    let mut values = Values::new(&plan.kind);
    append(&plan, &[2, 0], &mut values).unwrap();
    assert_eq!(printed(&values.finish().unwrap()), ["{p: {x: 1, in: m}}"]);
}

#[test]
fn schemas_that_cannot_be_read() {
    let deep = (0..70).fold(json!("int"), |inner, _| json!({"type": "array", "items": inner}));
    // Each level has the one below twice: 2^20 types.
    let mut wide = vec![json!({"type": "record", "name": "r0", "fields": [{"name": "x", "type": "int"}]})];
    for level in 1..=20 {
        let inner = format!("r{}", level - 1);
        wide.push(json!({"type": "record", "name": format!("r{level}"), "fields": [
            {"name": "a", "type": &inner}, {"name": "b", "type": &inner}]}));
    }
    let decimal = |precision: i64, scale: i64| json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale});
    let list = json!({"type": "record", "name": "list", "namespace": "n", "fields": [
        {"name": "next", "type": ["null", "list"]}]});
    for (schema, words) in [
        (list, r#"the type "n.list" contains itself"#),
        (json!("n.unknown"), r#"the type "n.unknown" is not defined"#),
        (json!({"type": "array"}), "items"),
        (json!({"type": "record", "name": "r"}), "fields"),
        (json!({"type": "fixed", "name": "f", "size": -1}), "no length"),
        (json!({"type": "enum", "name": "e", "symbols": "A"}), "symbols"),
        (json!({"name": "x"}), "type"),
        (json!(7), "neither a name"),
        (json!([]), "no branches"),
        (json!(["int", ["null", "string"]]), "directly in a union"),
        (
            json!({"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}),
            "twice",
        ),
        (deep, "deeper than 64"),
        (json!(wide), "more than 100000 types"),
        (decimal(39, 2), "precision 39"),
        (decimal(0, 0), "precision 0"),
        (decimal(4, 5), "scale 5"),
        (json!({"type": "bytes", "logicalType": "decimal"}), "without a precision"),
    ] {
        let refused = parse(&schema).and_then(|of| Plan::new(&of, Dialect::Connect).map(|_| ()));
        let why = refused.expect_err(words);
        assert!(why.contains(words), "{why}");
    }
    let no_json = Registered { text: "{".into(), ..registered(&json!(0)) };
    assert!(schema::parse(&no_json).unwrap_err().contains("not JSON"));
    let bare = Registered { text: "long".into(), ..registered(&json!(0)) };
    assert_eq!(schema::parse(&bare).unwrap().shape, schema::Shape::Long);
}

/// What Confluent's converter writes for Kafka Connect's decimals, and Debezium's own of any scale.
#[test]
fn decimals_of_kafka_connect() {
    let schema = json!({"type": "bytes", "scale": 2, "precision": 64, "connect.version": 1,
        "connect.parameters": {"scale": "2"}, "connect.name": "org.apache.kafka.connect.data.Decimal",
        "logicalType": "decimal"});
    assert_eq!((one(&schema, &[4, 0x04, 0xd2]).as_str(), kind_of(&schema)), ("12.34", DataType::Decimal128(38, 2)));
    let schema = json!(["null", {"type": "record", "name": "VariableScaleDecimal", "namespace": "io.debezium.data",
        "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
        "connect.doc": "Variable scaled decimal", "connect.version": 1,
        "connect.name": "io.debezium.data.VariableScaleDecimal"}]);
    assert_eq!(printed(&read(&schema, &[&[0], &[2, 6, 4, 0x04, 0xd2]]).unwrap()), ["null", "1.234"]);
}
