//! Debezium's types: documentation of its PostgreSQL connector, "Data type mappings".

use super::*;

/// Reads one value of a column whose schema is this, and says its Arrow type and how it is printed.
fn read(schema: &serde_json::Value, value: &str) -> Result<(DataType, String), String> {
    let mut field = schema.clone();
    field["field"] = "v".into();
    let row = |name| serde_json::json!({"type": "struct", "fields": [field], "optional": true, "field": name});
    let schema = serde_json::json!({"type": "struct", "fields": [row("before"), row("after")]});
    let text = format!(r#"{{"schema":{schema},"payload":{{"op":"c","after":{{"v":{value}}}}}}}"#);
    let mut feed = Feed::debezium();
    feed.append(None, Some(text.as_bytes())).map_err(|error| error.message().to_owned())?;
    let built = feed.close();
    Ok((kind_of(&built, "v"), printed(&built, "v").remove(0)))
}

fn named(base: &str, name: &str) -> serde_json::Value {
    serde_json::json!({"type": base, "optional": true, "name": name, "version": 1})
}

fn with(base: &str, name: &str, parameters: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({"type": base, "optional": true, "name": name, "parameters": parameters})
}

#[test]
fn types_are_real_types() {
    use arrow::datatypes::TimeUnit::Microsecond;
    let time = || DataType::Time64(Microsecond);
    let timestamp = || DataType::Timestamp(Microsecond, None);
    let plain = |base: &str| serde_json::json!({"type": base, "optional": true});
    for (schema, value, kind, expected) in [
        (plain("int16"), "7", DataType::Int32, "7"),
        (named("int32", "io.debezium.time.Date"), "19782", DataType::Date32, "2024-02-29"),
        (named("int32", "io.debezium.time.Time"), "1001", time(), "00:00:01.001"),
        (named("int64", "io.debezium.time.MicroTime"), "1000001", time(), "00:00:01.000001"),
        (named("int64", "io.debezium.time.NanoTime"), "1000001000", time(), "00:00:01.000001"),
        (named("int64", "io.debezium.time.Timestamp"), "951827696001", timestamp(), "2000-02-29T12:34:56.001"),
        (
            named("int64", "io.debezium.time.MicroTimestamp"),
            "951827696000001",
            timestamp(),
            "2000-02-29T12:34:56.000001",
        ),
        (
            named("int64", "io.debezium.time.NanoTimestamp"),
            "951827696000001000",
            timestamp(),
            "2000-02-29T12:34:56.000001",
        ),
        (
            named("string", "io.debezium.time.ZonedTimestamp"),
            "\"2000-02-29T12:34:56.5Z\"",
            DataType::Timestamp(Microsecond, Some("+00:00".into())),
            "2000-02-29T12:34:56.500Z",
        ),
        (named("string", "io.debezium.time.ZonedTime"), "\"10:00:00Z\"", DataType::Utf8, "10:00:00Z"),
        (named("string", "io.debezium.time.Interval"), "\"P1Y2M\"", DataType::Utf8, "P1Y2M"),
        (named("int64", "io.debezium.time.MicroDuration"), "-5", DataType::Int64, "-5"),
        (named("int32", "io.debezium.time.Year"), "2024", DataType::Int32, "2024"),
        (named("int32", "org.apache.kafka.connect.data.Date"), "19782", DataType::Date32, "2024-02-29"),
        (named("int32", "org.apache.kafka.connect.data.Time"), "1001", time(), "00:00:01.001"),
        // In time.precision.mode=connect that is a timestamp without a zone.
        (
            named("int64", "org.apache.kafka.connect.data.Timestamp"),
            "951827696001",
            timestamp(),
            "2000-02-29T12:34:56.001",
        ),
        (
            with(
                "bytes",
                "org.apache.kafka.connect.data.Decimal",
                &serde_json::json!({"scale": "2", "connect.decimal.precision": "5"}),
            ),
            "\"BNI=\"",
            DataType::Decimal128(5, 2),
            "12.34",
        ),
        (
            with(
                "bytes",
                "org.apache.kafka.connect.data.Decimal",
                &serde_json::json!({"scale": "2", "connect.decimal.precision": "50"}),
            ),
            "\"BNI=\"",
            DataType::Decimal128(38, 2),
            "12.34",
        ),
        (
            named("struct", "io.debezium.data.VariableScaleDecimal"),
            r#"{"scale":4,"value":"BNIwOQ=="}"#,
            DataType::Utf8,
            // 0x04d23039 is 80883769.
            "8088.3769",
        ),
        (named("string", "io.debezium.data.Json"), r#""{\"a\": 1.0}""#, DataType::Utf8, "{\"a\": 1.0}"),
        (
            named("string", "io.debezium.data.Uuid"),
            "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"",
            DataType::FixedSizeBinary(16),
            "000102030405060708090a0b0c0d0e0f",
        ),
        (named("string", "io.debezium.data.Xml"), "\"<a/>\"", DataType::Utf8, "<a/>"),
        (with("string", "io.debezium.data.Enum", &serde_json::json!({"allowed": "a,b"})), "\"a\"", DataType::Utf8, "a"),
        (
            with("string", "io.debezium.data.EnumSet", &serde_json::json!({"allowed": "a,b"})),
            "\"a,b\"",
            DataType::Utf8,
            "a,b",
        ),
        (named("string", "io.debezium.data.Ltree"), "\"Top.Science\"", DataType::Utf8, "Top.Science"),
        (named("string", "io.debezium.data.Tsvector"), "\"'a':1\"", DataType::Utf8, "'a':1"),
        // B'0000000101' of a bit(10): the lowest byte comes first.
        (
            with("bytes", "io.debezium.data.Bits", &serde_json::json!({"length": "10"})),
            "\"BQA=\"",
            DataType::Utf8,
            "0000000101",
        ),
    ] {
        assert_eq!(read(&schema, value), Ok((kind, expected.to_owned())), "{schema}");
    }
}

#[test]
fn geometries_are_structs() {
    let schema = serde_json::json!({"type": "struct", "optional": true, "name": "io.debezium.data.geometry.Point", "version": 1, "fields": [
        {"type": "double", "optional": false, "field": "x"},
        {"type": "double", "optional": false, "field": "y"},
        {"type": "bytes", "optional": true, "field": "wkb"},
        {"type": "int32", "optional": true, "field": "srid"}
    ]});
    let (_, value) = read(&schema, r#"{"x":1.5,"y":-2.0,"wkb":"AQE=","srid":null}"#).unwrap();
    assert_eq!(value, "{x: 1.5, y: -2.0, wkb: 0101, srid: }");
}

#[test]
fn arrays_and_hstore_are_lists_and_maps() {
    let dates =
        serde_json::json!({"type": "array", "optional": true, "items": named("int32", "io.debezium.time.Date")});
    assert_eq!(read(&dates, "[19782,null]").unwrap().1, "[2024-02-29, ]");
    let hstore = serde_json::json!({"type": "map", "optional": true, "keys": {"type": "string"}, "values": {"type": "string", "optional": true}});
    assert_eq!(read(&hstore, r#"{"a":"b","c":null}"#).unwrap().1, "{a: b, c: }");
}

/// Documentation: "special values … are converted to timestamps with value 9223372036825200000 … or -9223372036832400000".
#[test]
fn infinities_are_the_far_ends() {
    let raw = |base: &str, name: &str, value: &str| {
        let mut field = named(base, name);
        field["field"] = "v".into();
        let schema =
            serde_json::json!({"type": "struct", "fields": [{"type": "struct", "fields": [field], "field": "after"}]});
        let text = format!(r#"{{"schema":{schema},"payload":{{"op":"c","after":{{"v":{value}}}}}}}"#);
        let mut feed = Feed::debezium();
        feed.put("", &text);
        let array = feed.close().rows.column_by_name("v").unwrap().to_data();
        if array.data_type() == &DataType::Date32 {
            i64::from(array.buffers()[0].typed_data::<i32>()[0])
        } else {
            array.buffers()[0].typed_data::<i64>()[0]
        }
    };
    for (base, name, plus, minus, far) in [
        ("int64", "io.debezium.time.MicroTimestamp", "9223372036825200000", "-9223372036832400000", i64::MAX),
        ("int64", "io.debezium.time.Timestamp", "9223372036825200", "-9223372036832400", i64::MAX),
        ("string", "io.debezium.time.ZonedTimestamp", "\"infinity\"", "\"-infinity\"", i64::MAX),
        ("int32", "io.debezium.time.Date", "-2147472692", "-2147472691", i64::from(i32::MAX)),
    ] {
        assert_eq!((raw(base, name, plus), raw(base, name, minus)), (far, -far), "{name}");
    }
}

#[test]
fn values_that_were_not_sent_are_known_in_each_type() {
    let list = |items: serde_json::Value| serde_json::json!({"type": "array", "optional": true, "items": items});
    let text = "__debezium_unavailable_value";
    let numbers: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    for (schema, value) in [
        (serde_json::json!({"type": "bytes"}), "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"".to_owned()),
        (named("string", "io.debezium.data.Json"), format!("\"{text}\"")),
        (list(serde_json::json!({"type": "string"})), format!("[\"{text}\"]")),
        (list(serde_json::json!({"type": "bytes"})), "[\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"]".to_owned()),
        (list(serde_json::json!({"type": "int64"})), format!("[{}]", numbers.join(","))),
        (
            serde_json::json!({"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}),
            format!("{{\"{text}\":\"{text}\"}}"),
        ),
    ] {
        assert_eq!(read(&schema, &value).unwrap().1, "-", "{schema}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for (schema, value) in [
        (named("int64", "io.debezium.time.NanoTimestamp"), "1"),
        (named("int32", "io.debezium.time.Time"), "86400000"),
        (named("string", "io.debezium.data.Uuid"), "\"x\""),
        (named("string", "io.debezium.data.Json"), "\"{\""),
        (with("bytes", "io.debezium.data.Bits", &serde_json::json!({"length": "3"})), "\"/w==\""),
        (
            with(
                "bytes",
                "org.apache.kafka.connect.data.Decimal",
                &serde_json::json!({"scale": "2", "connect.decimal.precision": "3"}),
            ),
            "\"BNI=\"",
        ),
        // 2^160.
        (
            with("bytes", "org.apache.kafka.connect.data.Decimal", &serde_json::json!({"scale": "0"})),
            "\"AQAAAAAAAAAAAAAAAAAAAAAAAAAA\"",
        ),
        (named("struct", "io.debezium.data.VariableScaleDecimal"), r#"{"scale":4}"#),
        (named("struct", "io.debezium.data.VariableScaleDecimal"), r#"{"scale":2147483647,"value":"BNI="}"#),
    ] {
        let error = read(&schema, value).unwrap_err();
        assert!(error.contains("column v: "), "{error}");
    }
}
