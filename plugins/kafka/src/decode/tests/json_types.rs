use super::*;

/// What a declared type makes of values in JSON; `Err` where it refuses them.
fn read(kind: &str, value: &str) -> Result<String, String> {
    let mut feed = Feed::json(JsonFormat { columns: columns(&[("v", kind)]), ..JsonFormat::default() });
    let object = format!("{{\"v\":{value}}}");
    feed.put("", "{\"v\":null}");
    match feed.append(None, Some(object.as_bytes())) {
        Ok(_) => {
            feed.put("", "{}");
            let values = printed(&feed.close(), "v");
            assert_eq!((&*values[0], &*values[2]), ("-", "-"), "{kind}");
            Ok(values[1].clone())
        }
        Err(error) => {
            assert!(error.message().contains("column v:") && !error.message().contains("secret"), "{error}");
            Err(error.message().to_owned())
        }
    }
}

#[test]
fn declared_types_take_what_they_hold_and_nothing_else() {
    for (kind, value, expected) in [
        ("boolean", "true", "true"),
        ("boolean", "false", "false"),
        ("int", "-2147483648", "-2147483648"),
        ("long", "9223372036854775807", "9223372036854775807"),
        ("long", "5.0", "5"),
        ("long", "5e2", "500"),
        ("float", "0.1", "0.1"),
        ("float", "\"NaN\"", "NaN"),
        ("double", "0.1000000000000000055511151231257827", "0.1"),
        ("double", "1e308", "1e308"),
        ("double", "\"-Infinity\"", "-inf"),
        ("double", "\"Infinity\"", "inf"),
        ("decimal(10,2)", "1.5", "1.50"),
        ("decimal(10,2)", "\"-1.5000\"", "-1.50"),
        ("decimal(10,2)", "12e2", "1200.00"),
        ("decimal(38,0)", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        // 1234 in two bytes, as Kafka Connect's Decimal.
        ("decimal_base64(10,2)", "\"BNI=\"", "12.34"),
        ("decimal_base64(10,2)", "\"/w==\"", "-0.01"),
        ("string", "\"a\\n\\u00e4\"", "a\nä"),
        ("string", "12.30", "12.30"),
        ("string", "true", "true"),
        ("string", "{\"a\": [1]}", "{\"a\": [1]}"),
        ("binary", "\"AP8=\"", "00ff"),
        ("uuid", "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"", "000102030405060708090a0b0c0d0e0f"),
        ("json", "{\"a\" : 1e5}", "{\"a\" : 1e5}"),
        ("json", "\"a\\n\"", "\"a\\n\""),
        ("json", "1.0", "1.0"),
        ("json_text", "\"{\\\"a\\\": 1}\"", "{\"a\": 1}"),
        ("json_text", "{\"a\": 1}", "{\"a\": 1}"),
        ("date", "\"2024-02-29\"", "2024-02-29"),
        ("date", "19782", "2024-02-29"),
        ("date", "-1", "1969-12-31"),
        ("time", "\"23:59:59.999999\"", "23:59:59.999999"),
        ("time_millis", "86399999", "23:59:59.999"),
        ("time_micros", "86399999999", "23:59:59.999999"),
        ("time_nanos", "86399999999000", "23:59:59.999999"),
        ("timestamp", "\"2024-02-29T12:34:56.5\"", "2024-02-29T12:34:56.500"),
        ("timestamp", "\"2024-02-29 12:34:56\"", "2024-02-29T12:34:56"),
        ("timestamptz", "\"2024-02-29T12:34:56Z\"", "2024-02-29T12:34:56Z"),
        ("timestamptz", "\"2024-02-29T12:34:56+02:30\"", "2024-02-29T10:04:56Z"),
        ("timestamp_seconds", "951827696", "2000-02-29T12:34:56"),
        ("timestamp_seconds", "951827696.25", "2000-02-29T12:34:56.250"),
        ("timestamp_millis", "951827696001", "2000-02-29T12:34:56.001"),
        ("timestamp_micros", "951827696000001", "2000-02-29T12:34:56.000001"),
        ("timestamp_nanos", "951827696000001000", "2000-02-29T12:34:56.000001"),
        ("timestamptz_seconds", "-1", "1969-12-31T23:59:59Z"),
        ("timestamptz_millis", "951827696001", "2000-02-29T12:34:56.001Z"),
        ("list<long>", "[1, null, 3]", "[1, , 3]"),
        ("list<long>", "[]", "[]"),
        ("list<list<decimal(4,1)>>", "[[1.5], [], null]", "[[1.5], [], ]"),
        ("map<long>", "{\"a\": 1, \"b\": null}", "{a: 1, b: }"),
        ("map<string, list<date>>", "{\"a\": [\"1970-01-02\"]}", "{a: [1970-01-02]}"),
        ("struct<a: int, b: struct<c: string>>", "{\"b\": {\"c\": \"x\"}, \"a\": 1}", "{a: 1, b: {c: x}}"),
        ("struct<a: int, b: string>", "{}", "{a: , b: }"),
    ] {
        assert_eq!(read(kind, value).as_deref(), Ok(expected), "{value} as {kind}");
    }
}

#[test]
fn what_a_type_does_not_hold_is_refused() {
    for (kind, value) in [
        ("boolean", "1"),
        ("boolean", "\"true\""),
        ("int", "2147483648"),
        ("long", "9223372036854775808"),
        ("long", "1.5"),
        ("long", "\"1\""),
        ("long", "true"),
        ("long", "{}"),
        ("float", "1e39"),
        ("double", "1e309"),
        ("double", "\"1.5\""),
        ("double", "\"inf\""),
        ("decimal(10,2)", "1.234"),
        ("decimal(3,2)", "12.34"),
        ("decimal(10,2)", "\"NaN\""),
        ("decimal(10,2)", "true"),
        ("decimal_base64(3,2)", "\"BNI=\""),
        ("decimal_base64(10,2)", "12.34"),
        ("decimal_base64(10,2)", "\"\""),
        ("binary", "\"secret*\""),
        ("binary", "5"),
        ("uuid", "\"secret\""),
        ("uuid", "5"),
        ("json_text", "\"{secret\""),
        ("date", "\"2023-02-29\""),
        ("date", "\"2024-02-29T00:00:00\""),
        ("date", "2147483647"),
        ("date", "1.5"),
        ("time", "\"24:00:00\""),
        ("time", "1"),
        ("time_millis", "86400000"),
        ("time_millis", "\"12:00:00\""),
        ("time_nanos", "1"),
        ("timestamp", "\"2024-02-29T12:34:56Z\""),
        ("timestamp", "\"2024-02-29T12:34:56.1234567\""),
        ("timestamp", "1"),
        ("timestamptz", "\"2024-02-29T12:34:56\""),
        ("timestamp_micros", "1.5"),
        ("timestamp_nanos", "1"),
        ("timestamp_seconds", "9223372036855"),
        ("timestamp_millis", "\"2024-02-29T12:34:56\""),
        ("list<long>", "5"),
        ("list<long>", "{}"),
        ("list<long>", "[\"secret\"]"),
        ("list<long>", "[[1]]"),
        ("map<long>", "5"),
        ("map<long>", "{\"a\": 1, \"a\": 2}"),
        ("struct<a: int>", "{\"secret\": 1}"),
        ("struct<a: int>", "{\"a\": 1, \"a\": 2}"),
        ("struct<a: int>", "[]"),
    ] {
        assert!(read(kind, value).is_err(), "{value} as {kind}: {:?}", read(kind, value));
    }
}

/// `date -u -d …`, and Arrow's own types.
#[test]
fn types_are_what_arrow_calls_them() {
    use arrow::datatypes::TimeUnit::Microsecond;
    let declared = columns(&[
        ("a", "int"),
        ("b", "binary"),
        ("c", "uuid"),
        ("d", "json"),
        ("e", "timestamptz_millis"),
        ("f", "timestamp"),
        ("g", "time_nanos"),
        ("h", "map<long>"),
        ("i", "float"),
    ]);
    let mut feed = Feed::json(JsonFormat { columns: declared, ..JsonFormat::default() });
    feed.put("", "{}");
    let built = feed.close();
    for (column, expected) in [
        ("a", DataType::Int32),
        ("b", DataType::Binary),
        ("c", DataType::FixedSizeBinary(16)),
        ("d", DataType::Utf8),
        ("e", DataType::Timestamp(Microsecond, Some("+00:00".into()))),
        ("f", DataType::Timestamp(Microsecond, None)),
        ("g", DataType::Time64(Microsecond)),
        ("i", DataType::Float32),
    ] {
        assert_eq!(kind_of(&built, column), expected, "{column}");
    }
    assert!(matches!(kind_of(&built, "h"), DataType::Map(_, false)));
    let extension =
        |name: &str| built.rows.schema().field_with_name(name).unwrap().metadata()["ARROW:extension:name"].clone();
    assert_eq!((extension("c"), extension("d")), ("arrow.uuid".to_owned(), "arrow.json".to_owned()));
}
