use super::*;

fn feed(key: &[&str]) -> Feed {
    let key = key.iter().map(|key| (*key).to_owned()).collect();
    Feed::new(&FormatConfig::ConnectJson(RowFormat { key }))
}

/// As JsonConverter prints a struct's schema.
fn schema(fields: &serde_json::Value) -> String {
    serde_json::json!({"type": "struct", "fields": fields, "optional": false, "name": "Order"}).to_string()
}

fn wrapped(schema: &str, payload: &str) -> String {
    format!(r#"{{"schema":{schema},"payload":{payload}}}"#)
}

#[test]
fn types_come_from_the_schema() {
    let schema = schema(&serde_json::json!([
        {"type": "int8", "optional": false, "field": "i8"},
        {"type": "int32", "optional": true, "field": "i32"},
        {"type": "int64", "optional": true, "default": 5, "field": "i64"},
        {"type": "float", "optional": true, "field": "f"},
        {"type": "double", "optional": true, "field": "d"},
        {"type": "boolean", "optional": true, "field": "b"},
        {"type": "string", "optional": true, "field": "s"},
        {"type": "bytes", "optional": true, "field": "raw"},
        {"type": "bytes", "optional": true, "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
            "parameters": {"scale": "2", "connect.decimal.precision": "10"}, "field": "price"},
        {"type": "bytes", "optional": true, "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
            "parameters": {"scale": "3"}, "field": "amount"},
        {"type": "int32", "optional": true, "name": "org.apache.kafka.connect.data.Date", "version": 1, "field": "day"},
        {"type": "int32", "optional": true, "name": "org.apache.kafka.connect.data.Time", "version": 1, "field": "time"},
        {"type": "int64", "optional": true, "name": "org.apache.kafka.connect.data.Timestamp", "version": 1, "field": "at"},
        {"type": "array", "items": {"type": "int32", "optional": true}, "optional": true, "field": "list"},
        {"type": "map", "keys": {"type": "string"}, "values": {"type": "int64"}, "optional": true, "field": "map"},
        {"type": "map", "keys": {"type": "int32"}, "values": {"type": "string", "optional": true}, "optional": true, "field": "pairs"},
        {"type": "struct", "fields": [{"type": "string", "optional": true, "field": "x"}], "optional": true, "field": "inner"}
    ]));
    let payload = r#"{"i8":-128,"i32":5,"i64":6,"f":0.5,"d":0.25,"b":true,"s":"x","raw":"AQI=","price":"BNI=","amount":"BNI=",
        "day":19782,"time":1000,"at":951827696001,"list":[1,null],"map":{"a":1},"pairs":[[1,"x"],[2,null]],"inner":{"x":"y"}}"#;
    let mut feed = feed(&["i64"]);
    feed.put("", &wrapped(&schema, payload));
    feed.put("", &wrapped(&schema, r#"{"i64":7,"i8":1}"#));
    let built = feed.close();
    for (column, kind, expected) in [
        ("i8", DataType::Int32, "-128"),
        ("i32", DataType::Int32, "5"),
        ("i64", DataType::Int64, "6"),
        ("f", DataType::Float32, "0.5"),
        ("d", DataType::Float64, "0.25"),
        ("b", DataType::Boolean, "true"),
        ("s", DataType::Utf8, "x"),
        ("raw", DataType::Binary, "0102"),
        ("price", DataType::Decimal128(10, 2), "12.34"),
        ("amount", DataType::Decimal128(38, 3), "1.234"),
        ("day", DataType::Date32, "2024-02-29"),
        ("time", DataType::Time64(arrow::datatypes::TimeUnit::Microsecond), "00:00:01"),
    ] {
        assert_eq!((kind_of(&built, column), &*printed(&built, column)[0]), (kind, expected), "{column}");
    }
    for (column, expected) in [
        // Connect's timestamps are in UTC.
        ("at", "2000-02-29T12:34:56.001Z"),
        ("list", "[1, ]"),
        ("map", "{a: 1}"),
        ("pairs", "{1: x, 2: }"),
        ("inner", "{x: y}"),
        ("_cdc_operation", "INSERT"),
    ] {
        assert_eq!(printed(&built, column)[0], expected, "{column}");
    }
    assert_eq!(printed(&built, "s"), ["x", "-"]);
    assert_eq!(key_of(&built), ["i64"]);
    let source_type =
        |name: &str| built.rows.schema().field_with_name(name).unwrap().metadata()["philotes.source_type"].clone();
    assert_eq!(
        (source_type("i8"), source_type("day")),
        ("int8".to_owned(), "org.apache.kafka.connect.data.Date".to_owned())
    );
}

#[test]
fn another_schema_closes_the_batch() {
    let one = schema(&serde_json::json!([{"type": "int32", "field": "id"}]));
    let two = schema(&serde_json::json!([{"type": "int32", "field": "id"}, {"type": "string", "field": "v"}]));
    let mut feed = feed(&[]);
    feed.put("", &wrapped(&one, r#"{"id":1}"#));
    feed.put("", &format!(r#"{{ "payload" : {{"id":2}}, "schema" : {one} }}"#));
    let next = wrapped(&two, r#"{"id":3,"v":"x"}"#);
    assert_eq!(feed.append(None, Some(next.as_bytes())).unwrap(), Appended::CloseFirst);
    let first = feed.close();
    assert_eq!(printed(&first, "id"), ["1", "2"]);
    feed.put("", &next);
    let second = feed.close();
    assert_eq!(printed(&second, "v"), ["x"]);
    feed.put("", &wrapped(&one, r#"{"id":4}"#));
    assert_eq!((first.schema_id, second.schema_id, feed.close().schema_id), (1, 2, 1));
}

#[test]
fn tombstones_delete() {
    let schema = schema(
        &serde_json::json!([{"type": "int32", "field": "id"}, {"type": "string", "optional": true, "field": "v"}]),
    );
    let key = r#"{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":7}}"#;
    let mut keyed = feed(&["id"]);
    assert_eq!(keyed.tombstone(key).unwrap(), Appended::Rows, "the key's own schema tells its types");
    let alone = keyed.close();
    assert_eq!((kind_of(&alone, "id"), printed(&alone, "id")), (DataType::Int32, vec!["7".to_owned()]));
    assert!(alone.rows.column_by_name("_cdc_unchanged").is_none(), "nothing is known that it could lack");
    keyed.put("", &wrapped(&schema, r#"{"id":1,"v":"x"}"#));
    assert_eq!(keyed.tombstone(key).unwrap(), Appended::Rows);
    assert_eq!(keyed.tombstone(r#"{"id":8}"#).unwrap(), Appended::Rows);
    assert_eq!(keyed.tombstone(r#"{"schema":{"type":"int32"},"payload":9}"#).unwrap(), Appended::Rows);
    keyed.put("10", &wrapped(&schema, "null"));
    let built = keyed.close();
    assert_eq!(printed(&built, "id"), ["1", "7", "8", "9", "10"]);
    assert_eq!(printed(&built, "_cdc_operation"), ["INSERT", "DELETE", "DELETE", "DELETE", "DELETE"]);
    assert_eq!(printed(&built, "_cdc_unchanged"), ["-", "[v]", "[v]", "[v]", "[v]"]);
    let mut keyless = feed(&[]);
    assert!(keyless.tombstone(key).unwrap_err().message().contains("`key`"));
}

#[test]
fn what_is_no_envelope_is_refused() {
    let schema = schema(&serde_json::json!([{"type": "int32", "field": "id"}]));
    let mut feed = feed(&["id"]);
    for (text, reason) in [
        (r#"{"id":1}"#.to_owned(), "schemas.enable=true"),
        ("5".to_owned(), "schemas.enable=true"),
        (wrapped("null", r#"{"id":1}"#), "schemas.enable=true"),
        (wrapped("{}", r#"{"id":1}"#), "no schema of Kafka Connect"),
        (wrapped(r#"{"type":"int32"}"#, "1"), "a struct was expected"),
        (wrapped(&schema, "[1]"), "payload is no object"),
        (wrapped(&schema, r#"{"id":1,"x":2}"#), "column x: a member that the schema has not"),
        (wrapped(&schema, r#"{"id":"x"}"#), "column id: "),
        (wrapped(&schema, "{}"), "column id: a key column that is null"),
        (wrapped(r#"{"type":"struct","fields":[{"type":"int32","field":"_cdc_lsn"}]}"#, "{}"), "reserved"),
        (
            wrapped(r#"{"type":"struct","fields":[{"type":"int32","field":"a"}]}"#, "{}"),
            "column id: a key column that the row's schema has not",
        ),
        (wrapped(r#"{"type":"struct","fields":[{"type":"int5","field":"a"}]}"#, "{}"), "column a: \"int5\" is no type"),
        (
            wrapped(r#"{"type":"struct","fields":[{"type":"int8","field":"a"},{"type":"int8","field":"a"}]}"#, "{}"),
            "column a: the schema has the member twice",
        ),
        (
            wrapped(
                r#"{"type":"struct","fields":[{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","field":"a"}]}"#,
                "{}",
            ),
            "`scale`",
        ),
    ] {
        let found = feed.refused("", &text);
        assert!(found.contains(reason), "{text}: {found}");
    }
    feed.put("", &wrapped(&schema, r#"{"id":1}"#));
}
