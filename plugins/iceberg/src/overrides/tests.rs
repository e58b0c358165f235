use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int64Array, ListArray, RecordBatch, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::util::display::array_value_to_string;
use philotes_sdk::batch::{META_KEY, UNCHANGED, UTC};
use philotes_sdk::{ChangeBatch, ErrorKind, StreamName};

use super::*;

fn overrides(json: serde_json::Value) -> Result<Overrides, Vec<String>> {
    Overrides::parse(&serde_json::from_value(json).unwrap())
}

/// What is said of the columns of `public.t`.
fn columns(json: &serde_json::Value) -> Overrides {
    overrides(serde_json::json!({ "public.t": json })).unwrap()
}

fn of(overrides: &Overrides) -> &Columns {
    overrides.of(&StreamName::new(["public", "t"]).unwrap()).unwrap()
}

/// What the column becomes as this type; the error's text where it does not.
fn convert(array: ArrayRef, uuid: bool, to: &str) -> Result<ArrayRef, String> {
    let metadata: HashMap<String, String> =
        if uuid { [("ARROW:extension:name".into(), "arrow.uuid".into())].into() } else { HashMap::new() };
    let field = Field::new("c", array.data_type().clone(), true).with_metadata(metadata);
    let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
    let said = columns(&serde_json::json!({"c": {"type": to}}));
    let conversion = Conversion::new(Some(of(&said)), &rows.schema());
    let converted = conversion.and_then(|conversion| conversion.apply(&rows));
    converted.map(|rows| rows.column(0).clone()).map_err(|error| {
        assert_eq!(error.kind(), ErrorKind::Data);
        error.to_string()
    })
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Which value the text becomes, as Arrow prints it.
fn read(text: &str, to: &str) -> Option<String> {
    convert(texts(&[text]), false, to).ok().map(|array| array_value_to_string(&array, 0).unwrap())
}

/// Texts and the values that PostgreSQL 15 reads in them, in UTC, as Arrow prints these.
#[test]
fn texts_are_read_as_postgresql_reads_them() {
    for (to, text, expected) in [
        ("boolean", " Yes ", "true"),
        ("boolean", "of", "false"),
        ("boolean", "0", "false"),
        ("int", "-2147483648", "-2147483648"),
        ("long", " +9223372036854775807", "9223372036854775807"),
        ("double", "1e-310", "1e-310"),
        ("double", "-Infinity", "-inf"),
        ("double", "nan", "NaN"),
        ("float", "0.1", "0.1"),
        ("decimal(5,2)", "-999.99", "-999.99"),
        ("decimal(5,2)", "1.50000", "1.50"),
        ("decimal(38,0)", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ("decimal(10,2)", "1.5e3", "1500.00"),
        ("decimal(10,2)", ".5", "0.50"),
        ("decimal(10,2)", "0e99", "0.00"),
        ("date", "2024-02-29", "2024-02-29"),
        ("date", "1970-01-01", "1970-01-01"),
        ("time", "23:59:59.999999", "23:59:59.999999"),
        ("time", "04:05", "04:05:00"),
        ("timestamp", "2026-01-24 10:00:00.5", "2026-01-24T10:00:00.500"),
        ("timestamp", "1969-12-31T23:59:59.999999", "1969-12-31T23:59:59.999999"),
        ("timestamptz", "2026-01-24 10:00:00+02", "2026-01-24T08:00:00Z"),
        ("timestamptz", "2026-01-24T10:00:00Z", "2026-01-24T10:00:00Z"),
        ("timestamptz", "2026-01-24 10:00:00-05:30", "2026-01-24T15:30:00Z"),
        ("timestamptz", "1900-01-01 00:00:00+00:19:32", "1899-12-31T23:40:28Z"),
        ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"),
        ("binary", "\\xDEADbeef", "deadbeef"),
        ("binary", "a\\\\b\\000\\377", "615c6200ff"),
        ("json", "{\"a\": 1.0}", "{\"a\": 1.0}"),
    ] {
        assert_eq!(read(text, to).as_deref(), Some(expected), "{text:?} as {to}");
    }
    // What Arrow does not print: select (date '0044-03-15 BC' - date '1970-01-01'), and of the last date that it has.
    for (text, days) in [("0044-03-15 BC", -735_160), ("0001-12-31 BC", -719_163), ("5874897-12-31", 2_145_042_905)] {
        let array = convert(texts(&[text]), false, "date").unwrap();
        assert_eq!(array.as_primitive::<arrow::datatypes::Date32Type>().value(0), days, "{text}");
    }
}

#[test]
fn what_does_not_survive_is_refused_and_never_told() {
    for (to, text) in [
        ("boolean", "2"),
        ("boolean", "o"),
        ("int", "2147483648"),
        ("int", "1.0"),
        ("long", "9223372036854775808"),
        ("long", ""),
        ("double", "1e400"),
        ("double", "1e-400"),
        ("float", "1e39"),
        ("decimal(5,2)", "1000.00"),
        ("decimal(5,2)", "0.001"),
        ("decimal(5,2)", "NaN"),
        ("decimal(5,2)", "1e99999999999999999999"),
        ("decimal(5,2)", "."),
        ("date", "2023-02-29"),
        ("date", "0000-01-01"),
        ("date", "24-01-01"),
        ("time", "24:00:00"),
        ("time", "00:00:00.0000001"),
        ("time", "10:00:00+02"),
        ("timestamp", "2026-01-24 10:00:00+02"),
        ("timestamp", "294247-01-10 04:00:54.775807"),
        ("time", "infinity"),
        ("timestamptz", "2026-01-24 10:00:00"),
        ("timestamptz", "2026-01-24"),
        ("timestamptz", "300000-01-01 00:00:00Z"),
        ("uuid", "a0eebc99"),
        ("binary", "\\xabc"),
        ("binary", "\\x+1"),
        ("binary", "a\\b"),
    ] {
        let error = convert(texts(&[text]), false, to).expect_err(text);
        assert!(error.starts_with("column \"c\": 1 row has a value"), "{text:?} as {to}: {error}");
        assert!(text.is_empty() || text == "." || text == "2" || text == "o" || !error.contains(text), "{error}");
    }
    let error = convert(texts(&["1", "x", "y"]), false, "int").unwrap_err();
    assert!(error.starts_with("column \"c\": 2 rows have a value that is not exactly a int"), "{error}");
}

/// Values and the texts that PostgreSQL 15 casts them to, with TimeZone = UTC.
#[test]
fn values_are_printed_as_postgresql_prints_them() {
    let stamps = || TimestampMicrosecondArray::from(vec![1_769_248_800_500_000, -62_135_596_800_000_001]);
    let cases: Vec<(ArrayRef, &[&str])> = vec![
        (Arc::new(BooleanArray::from(vec![true, false])), &["true", "false"]),
        (Arc::new(Int16Array::from(vec![-32768])), &["-32768"]),
        (
            Arc::new(Float64Array::from(vec![
                0.1,
                1e15,
                123_456_789_012_345.0,
                1e-5,
                0.0001,
                -0.0,
                f64::NAN,
                f64::NEG_INFINITY,
                1.5e300,
                123_456_789_012_345_680.0,
            ])),
            &[
                "0.1",
                "1e+15",
                "123456789012345",
                "1e-05",
                "0.0001",
                "-0",
                "NaN",
                "-Infinity",
                "1.5e+300",
                "1.2345678901234568e+17",
            ],
        ),
        (
            Arc::new(Float32Array::from(vec![100_000.0, 1_000_000.0, 0.1, 1_234_567.0])),
            &["100000", "1e+06", "0.1", "1.234567e+06"],
        ),
        (
            Arc::new(Decimal128Array::from(vec![1250, -5, 0]).with_precision_and_scale(10, 2).unwrap()),
            &["12.50", "-0.05", "0.00"],
        ),
        (Arc::new(Date32Array::from(vec![0, -719_163, 2_932_897])), &["1970-01-01", "0001-12-31 BC", "10000-01-01"]),
        (Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_120_000])), &["00:00:00", "23:59:59.12"]),
        (Arc::new(stamps()), &["2026-01-24 10:00:00.5", "0001-12-31 23:59:59.999999 BC"]),
        (Arc::new(stamps().with_timezone(UTC)), &["2026-01-24 10:00:00.5+00", "0001-12-31 23:59:59.999999+00 BC"]),
        (Arc::new(BinaryArray::from_vec(vec![b"\x00\xff", b""])), &["\\x00ff", "\\x"]),
    ];
    for (array, expected) in cases {
        let kind = array.data_type().clone();
        let printed = convert(array, false, "string").unwrap();
        let printed: Vec<_> = printed.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        assert_eq!(printed, expected, "{kind}");
    }
    let bytes = [0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11];
    let uuid = FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap();
    let printed = convert(Arc::new(uuid), true, "string").unwrap();
    assert_eq!(printed.as_string::<i32>().value(0), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
}

#[test]
fn numbers_become_others_only_where_they_are_the_same() {
    let longs = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let doubles = |value: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![value])) };
    let decimals = |value: i128| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(20, 2).unwrap())
    };
    let become_ = |array: ArrayRef, to: &str| {
        convert(array, false, to).ok().map(|array| array_value_to_string(&array, 0).unwrap())
    };
    for (array, to, expected) in [
        (longs(7), "int", Some("7")),
        (longs(1 << 31), "int", None),
        (longs((1 << 53) + 1), "double", None),
        (longs(1 << 53), "double", Some("9007199254740992.0")),
        (longs(i64::MAX), "double", None),
        (longs((1 << 24) + 1), "float", None),
        (longs(-7), "decimal(3,2)", Some("-7.00")),
        (longs(10), "decimal(3,2)", None),
        (longs(7), "boolean", None),
        (longs(7), "timestamp", None),
        (doubles(3.0), "int", Some("3")),
        (doubles(3.5), "long", None),
        (doubles(9.3e18), "long", None),
        (doubles(f64::NAN), "long", None),
        (doubles(0.1), "float", None),
        (doubles(0.5), "float", Some("0.5")),
        (doubles(f64::NAN), "float", Some("NaN")),
        (doubles(0.1), "decimal(4,2)", Some("0.10")),
        (doubles(0.125), "decimal(4,2)", None),
        (doubles(f64::INFINITY), "decimal(4,2)", None),
        (decimals(1200), "int", Some("12")),
        (decimals(1250), "int", None),
        (decimals(1250), "decimal(3,1)", Some("12.5")),
        (decimals(1255), "decimal(3,1)", None),
        (decimals(10), "double", Some("0.1")),
        (decimals(12_345_678_901_234_567_891), "double", None),
    ] {
        let from = format!("{array:?} as {to}");
        assert_eq!(become_(array, to).as_deref(), expected, "{from}");
    }
}

#[test]
fn times_become_times_as_utc() {
    let stamps = TimestampMicrosecondArray::from(vec![Some(5), None]);
    let zoned = convert(Arc::new(stamps.clone()), false, "timestamptz").unwrap();
    assert_eq!(zoned.as_ref(), &stamps.clone().with_timezone(UTC) as &dyn Array);
    assert_eq!(convert(zoned, false, "timestamp").unwrap().as_ref(), &stamps as &dyn Array);
    let dates = Date32Array::from(vec![-1, 1]);
    let expected = TimestampMicrosecondArray::from(vec![-86_400_000_000, 86_400_000_000]);
    assert_eq!(convert(Arc::new(dates), false, "timestamp").unwrap().as_ref(), &expected as &dyn Array);
}

/// Infinite dates and timestamps are the far ends of the integers, as docs/TYPES.md has it, and no finite ones are.
#[test]
fn infinities_go_through_every_conversion() {
    let words = || texts(&["infinity", "-Infinity"]);
    let dates = convert(words(), false, "date").unwrap();
    assert_eq!(dates.as_ref(), &Date32Array::from(vec![i32::MAX, -i32::MAX]) as &dyn Array);
    let ends = TimestampMicrosecondArray::from(vec![i64::MAX, -i64::MAX]);
    let zoned = ends.clone().with_timezone(UTC);
    assert_eq!(convert(words(), false, "timestamp").unwrap().as_ref(), &ends as &dyn Array);
    assert_eq!(convert(words(), false, "timestamptz").unwrap().as_ref(), &zoned as &dyn Array);
    assert_eq!(convert(dates.clone(), false, "timestamp").unwrap().as_ref(), &ends as &dyn Array);
    for array in [dates, Arc::new(ends), Arc::new(zoned)] {
        let printed = convert(array, false, "string").unwrap();
        assert_eq!(printed.as_string::<i32>(), &StringArray::from(vec!["infinity", "-infinity"]));
    }
    // 290 000 years are no timestamp, but a date.
    let far = convert(texts(&["300000-01-01"]), false, "date").unwrap();
    assert!(convert(far, false, "timestamp").is_err());
}

#[test]
fn a_conversion_that_does_not_exist_names_both_types() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)])]);
    let error = convert(Arc::new(list), false, "string").unwrap_err();
    assert!(error.contains("\"c\"") && error.contains("type string") && error.contains("List"), "{error}");
    let error = convert(Arc::new(Date32Array::from(vec![1])), false, "time").unwrap_err();
    assert!(error.contains("type time") && error.contains("Date32"), "{error}");
}

#[test]
fn every_conversion_that_is_offered_exists() {
    let sample = |kind| -> (ArrayRef, &str) {
        match kind {
            0 => (Arc::new(BooleanArray::from(vec![true])), "boolean"),
            1 => (Arc::new(Int64Array::from(vec![1])), "long"),
            2 => (Arc::new(Float64Array::from(vec![1.0])), "double"),
            3 => (Arc::new(Decimal128Array::from(vec![100]).with_precision_and_scale(5, 2).unwrap()), "decimal(5,2)"),
            4 => (Arc::new(Date32Array::from(vec![1])), "date"),
            5 => (Arc::new(Time64MicrosecondArray::from(vec![1])), "time"),
            6 => (Arc::new(TimestampMicrosecondArray::from(vec![1])), "timestamp"),
            7 => (Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone(UTC)), "timestamptz"),
            _ => (Arc::new(BinaryArray::from_vec(vec![b"x"])), "binary"),
        }
    };
    let targets =
        ["boolean", "int", "long", "float", "double", "decimal(5,2)", "date", "time", "timestamp", "timestamptz"];
    let mut found = BTreeMap::new();
    for kind in 0..9 {
        let (array, name) = sample(kind);
        let becomes = targets.iter().chain(&["string", "uuid", "binary"]);
        let becomes: Vec<&str> = becomes.filter(|to| convert(array.clone(), false, to).is_ok()).copied().collect();
        found.insert(name, becomes);
    }
    let numbers = vec!["int", "long", "float", "double", "decimal(5,2)", "string"];
    let expected: BTreeMap<&str, Vec<&str>> = [
        ("boolean", vec!["boolean", "string"]),
        ("long", numbers.clone()),
        ("double", numbers.clone()),
        ("decimal(5,2)", numbers),
        ("date", vec!["date", "timestamp", "string"]),
        ("time", vec!["time", "string"]),
        ("timestamp", vec!["timestamp", "timestamptz", "string"]),
        ("timestamptz", vec!["timestamp", "timestamptz", "string"]),
        ("binary", vec!["string", "binary"]),
    ]
    .into();
    assert_eq!(found, expected);
}

#[test]
fn a_shaped_batch_has_no_trace_of_what_is_dropped_and_shapes_as_itself() {
    let said = columns(&serde_json::json!({
        "ssn": {"drop": true}, "_file": {"name": "ssn"}, "id": {"name": "key"}, "n": {"type": "long"}, "none": {"drop": true},
    }));
    let list = Field::new(UNCHANGED, DataType::new_list(DataType::Utf8, true), true);
    let fields = vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("ssn", DataType::Utf8, true),
        Field::new("_file", DataType::Utf8, true),
        Field::new("n", DataType::Utf8, true),
        list,
    ];
    let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    builder.append_value([Some("ssn"), Some("_file"), Some("n")]);
    builder.append_null();
    let key = [(META_KEY.to_owned(), "[\"id\",\"ssn\"]".to_owned())].into();
    let rows = RecordBatch::try_new(
        Arc::new(Schema::new_with_metadata(fields, key)),
        vec![
            texts(&["1", "2"]),
            texts(&["secret", "secret"]),
            texts(&["a", "b"]),
            texts(&["3", "x"]),
            Arc::new(builder.finish()),
        ],
    )
    .unwrap();
    let columns = of(&said);
    assert_eq!(columns.unknown(&rows.schema()), ["none"]);
    let shaped = columns.shape(&rows).unwrap();
    let names = |rows: &RecordBatch| rows.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names(&shaped), ["key", "ssn", "n", UNCHANGED]);
    assert_eq!(shaped.column(1).as_string::<i32>().value(0), "a");
    assert_eq!(ChangeBatch::key_columns(&shaped.schema()).unwrap(), ["key"]);
    let unchanged = shaped.column(3).as_list::<i32>();
    assert_eq!(unchanged.value(0).as_string::<i32>(), &StringArray::from(vec!["ssn", "n"]));
    assert!(unchanged.is_null(1));
    assert_eq!(columns.shape(&shaped).unwrap(), shaped);
    let conversion = Conversion::new(Some(columns), &shaped.schema()).unwrap();
    assert_eq!(conversion.schema().field(2).data_type(), &DataType::Int64);
    assert!(conversion.apply(&shaped).is_err());
    assert_eq!(conversion.apply(&shaped.slice(0, 1)).unwrap().column(2).len(), 1);
}

#[test]
fn records_lose_what_is_dropped_and_nothing_else() {
    let record = r#"{ "id" : 1.00000000000000000001, "after_data": {"ssn":"1","a":[{"ssn":[1,{"x":"}"}]}, "ssn"],"b":"\"ssn\""},
        "text": "{\"ssn\": \"2\", \"c\": 1}", "ssn":null, "draft": "[x" }"#;
    let expected = r#"{ "id" : 1.00000000000000000001, "after_data": {"a":[{}, "ssn"],"b":"\"ssn\""},
        "text": "{ \"c\": 1}", "draft": "[x" }"#;
    assert_eq!(without(record, &["ssn"]), expected);
    assert_eq!(without(r#"{"s\u0073n":1}"#, &["ssn"]), "{}");
    assert_eq!(without(r#"{"a":{},"b":[]}"#, &["ssn"]), r#"{"a":{},"b":[]}"#);
    // A message of Kafka whose value is broken or no text.
    let record =
        r#"{"value": "{\"ssn\": \"2\", ", "key_base64": "c3Nu", "headers": [{"value_base64": null}], "b": "{x"}"#;
    let scrubbed: serde_json::Value = serde_json::from_str(&without(record, &["ssn"])).unwrap();
    for withheld in [&scrubbed["value"], &scrubbed["key_base64"], &scrubbed["headers"][0]["value_base64"]] {
        assert!(withheld.as_str().unwrap().contains("withheld"), "{scrubbed}");
    }
    assert_eq!(scrubbed["b"], "{x");
    for record in ["ssn=1", "{\"ssn\":1", "", "{\"a\":1}}"] {
        assert!(
            !without(record, &["ssn"]).contains("ssn=1") && without(record, &["ssn"]).contains("withheld"),
            "{record}"
        );
    }
}

#[test]
fn faults_name_their_keys() {
    for (given, expected) in [
        (
            serde_json::json!({"public.orders": {"note": {"type": "varchar"}}}),
            "columns.public.orders.note.type: \"varchar\" is not allowed; allowed are boolean, int, ",
        ),
        (serde_json::json!({"public.t": {"a": {"type": "decimal(39,2)"}}}), "columns.public.t.a.type: "),
        (serde_json::json!({"public.t": {"a": {"type": "decimal(3,4)"}}}), "columns.public.t.a.type: "),
        (serde_json::json!({"public.t": {"a": {}}}), "columns.public.t.a: says nothing"),
        (serde_json::json!({"public.t": {"a": {"drop": true, "name": "b"}}}), "columns.public.t.a.drop: excludes"),
        (
            serde_json::json!({"public.t": {"a": {"name": "_file"}}}),
            "columns.public.t.a.name: \"_file\" is not allowed",
        ),
        (serde_json::json!({"public.t": {"a": {"name": "_cdc_x"}}}), "columns.public.t.a.name: \"_cdc_x\" is not"),
        (serde_json::json!({"public.t": {"a": {"name": ""}}}), "columns.public.t.a.name: \"\" is not allowed"),
        (
            serde_json::json!({"public.t": {"a": {"name": "X"}, "b": {"name": "x"}}}),
            "columns.public.t.b.name: \"x\" is given",
        ),
        (serde_json::json!({"public.t": {"_cdc_lsn": {"type": "long"}}}), "columns.public.t._cdc_lsn: "),
        (serde_json::json!({"a b": {"a": {"drop": true}}}), "columns.a b: \"a b\" is no stream name"),
        (
            serde_json::json!({"public.t": {"a": {"drop": true}}, "\"public\".t": {"a": {"drop": true}}}),
            "columns.public.t: the stream stands there twice",
        ),
    ] {
        let faults = overrides(given.clone()).expect_err(&given.to_string());
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with(expected), "{faults:?}");
    }
    overrides(serde_json::json!({"public.t": {"_cdc_lsn": {"drop": true}, "a": {"type": "decimal( 10, 2 )"}}}))
        .unwrap();
}
