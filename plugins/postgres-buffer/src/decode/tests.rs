use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type};
use arrow::util::display::array_value_to_string;
use philotes_sdk::{ChangeBatch, ErrorKind};

use super::*;

fn decoder() -> StreamDecoder {
    StreamDecoder::new(StreamName::new(["public", "orders"]).unwrap(), false, Arc::default())
}

fn row<'a>(
    id: i64,
    operation: &'a str,
    before: Option<&'a str>,
    after: Option<&'a str>,
    metadata: Option<&'a str>,
) -> Row<'a> {
    Row {
        id,
        place: None,
        known: false,
        schema: b"public",
        table: b"orders",
        operation: Some(operation.as_bytes()),
        lsn: Some(b"0/16"),
        event_time: None,
        created_at: Some(1_000 + id),
        key_columns: Some(b"[\"id\"]"),
        before: before.map(str::as_bytes),
        after: after.map(str::as_bytes),
        metadata: metadata.map(str::as_bytes),
    }
}

/// Metadata that tells these columns.
fn told(columns: &[(&str, &str)]) -> String {
    let columns: Vec<_> =
        columns.iter().map(|(name, kind)| serde_json::json!({"name": name, "type": kind, "nullable": true})).collect();
    serde_json::json!({"columns": columns}).to_string()
}

/// A column of the batch, printed; `-` for null.
fn printed(built: &Built, column: &str) -> Vec<String> {
    let array = built.rows.column_by_name(column).unwrap_or_else(|| panic!("no column {column}"));
    (0..array.len())
        .map(|at| if array.is_null(at) { "-".to_owned() } else { array_value_to_string(array, at).unwrap() })
        .collect()
}

/// The batch so far.
fn close(decoder: &mut StreamDecoder) -> Built {
    decoder.close().unwrap().unwrap()
}

fn kind(built: &Built, column: &str) -> DataType {
    built.rows.schema().field_with_name(column).unwrap().data_type().clone()
}

#[test]
fn every_type_lands_as_told() {
    let metadata = told(&[
        ("id", "bigint"),
        ("small", "smallint"),
        ("r", "real"),
        ("d", "double precision"),
        ("n", "numeric(20,4)"),
        ("any", "numeric"),
        ("b", "boolean"),
        ("t", "text"),
        ("day", "date"),
        ("clock", "time without time zone"),
        ("ts", "timestamp without time zone"),
        ("tz", "timestamp with time zone"),
        ("u", "uuid"),
        ("j", "jsonb"),
        ("raw", "bytea"),
        ("list", "numeric(5,1)[]"),
        ("mood", "public.mood"),
    ]);
    let full = r#"{"id": 9223372036854775807, "small": -32768, "r": 1.5, "d": "NaN", "n": 1234567890123456.7891, "any": 1.50,
        "b": true, "t": "ä\"\u0001", "day": "2024-02-29", "clock": "01:02:03.5", "ts": "2024-02-29T01:02:03",
        "tz": "2024-02-29T01:02:03+01:00", "u": "00010203-0405-0607-0809-0a0b0c0d0e0f", "j": {"a": [1, "]"]},
        "raw": "\\x00ff", "list": [1.5, null, -2], "mood": "ok"}"#;
    let mut decoder = decoder();
    assert_eq!(decoder.append(&row(1, "INSERT", None, Some(full), Some(&metadata))).unwrap(), Appended::Done);
    assert_eq!(decoder.append(&row(2, "INSERT", None, Some("{\"id\": 2}"), Some(&metadata))).unwrap(), Appended::Done);
    let built = decoder.close().unwrap().unwrap();
    for (column, expected) in [
        ("id", "9223372036854775807"),
        ("small", "-32768"),
        ("r", "1.5"),
        ("d", "NaN"),
        ("n", "1234567890123456.7891"),
        ("any", "1.50"),
        ("b", "true"),
        ("t", "ä\"\u{1}"),
        ("day", "2024-02-29"),
        ("clock", "01:02:03.500"),
        ("ts", "2024-02-29T01:02:03"),
        ("tz", "2024-02-29T00:02:03Z"),
        ("u", "000102030405060708090a0b0c0d0e0f"),
        ("j", r#"{"a": [1, "]"]}"#),
        ("raw", "00ff"),
        ("list", "[1.5, , -2.0]"),
        ("mood", "ok"),
    ] {
        let second = if column == "id" { "2" } else { "-" };
        assert_eq!(printed(&built, column), [expected, second], "{column}");
    }
    let schema = built.rows.schema();
    assert_eq!(schema.metadata()["philotes.stream"], "public.orders");
    assert_eq!(ChangeBatch::key_columns(&schema).unwrap(), ["id"]);
    assert_eq!(schema.field_with_name("u").unwrap().metadata()["ARROW:extension:name"], "arrow.uuid");
    assert_eq!(schema.field_with_name("n").unwrap().metadata()["philotes.source_type"], "numeric(20,4)");
    let last: Vec<_> = schema.fields().iter().rev().take(3).map(|field| field.name().as_str()).collect();
    assert_eq!(last, ["_cdc_lsn", "_cdc_timestamp", "_cdc_operation"]);
    assert_eq!(built.ids, [(1, 2)]);
    assert_eq!((built.newest_micros, built.buffer_rows), (1_002, 2));
    // created_at stands in for a missing event_time.
    assert_eq!(printed(&built, "_cdc_timestamp"), ["1970-01-01T00:00:00.001001Z", "1970-01-01T00:00:00.001002Z"]);
}

#[test]
fn what_does_not_fit_is_named_and_never_changed() {
    for (kind, value, reason) in [
        ("integer", "2147483648", "beyond what the type holds"),
        ("bigint", "1.5", "not a whole number"),
        ("real", "1e39", "beyond what the type holds"),
        ("numeric(10,2)", "123456789.00", "more digits than"),
        ("numeric(10,2)", "1.234", "after the point"),
        ("numeric(10,2)", "\"NaN\"", "not a finite number"),
        ("date", "\"Infinity\"", "not a date"),
        ("timestamp with time zone", "\"294276-01-01T00:00:00+00:00\"", "64 bits of microseconds"),
        ("time without time zone", "\"24:00:00\"", "`columns`"),
        ("uuid", "\"secret\"", "not a uuid"),
        ("bytea", "\"\\\\secret\"", "escape form"),
        ("boolean", "\"secret\"", "not true or false"),
        ("integer", "{\"secret\": 1}", "not a value of the type"),
        ("integer[]", "[[1],[2]]", "more dimensions than"),
        ("integer[]", "5", "not an array"),
        ("integer[]", "[[1],[2]]", "read as json"),
    ] {
        let metadata = told(&[("id", "integer"), ("c", kind)]);
        let object = format!("{{\"c\": {value}, \"id\": 1}}");
        let mut decoder = decoder();
        let good = row(6, "INSERT", None, Some("{\"id\": 1}"), Some(&metadata));
        assert_eq!(decoder.append(&good).unwrap(), Appended::Done);
        let error = decoder.append(&row(7, "INSERT", None, Some(&object), Some(&metadata))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        let text = error.to_string();
        assert!(text.contains("public.orders") && text.contains("buffer id 7") && text.contains("column c"), "{text}");
        assert!(text.contains(reason) && !text.contains("secret"), "{kind} {value}: {text}");
        // The rows before it are whole.
        let built = decoder.close().unwrap().unwrap();
        assert_eq!((built.rows.num_rows(), built.ids), (1, vec![(6, 6)]));
    }
}

#[test]
fn a_changed_key_is_two_rows() {
    let metadata = told(&[("id", "integer"), ("v", "text")]);
    let mut decoder = decoder();
    let mut append = |id, operation, before, after| {
        assert_eq!(decoder.append(&row(id, operation, before, after, Some(&metadata))).unwrap(), Appended::Done);
    };
    append(1, "UPDATE", Some(r#"{"id": 1, "v": "a"}"#), Some(r#"{"id": 1, "v": "b"}"#));
    append(2, "UPDATE", Some(r#"{"id": 1, "v": "b"}"#), Some(r#"{"id": 2, "v": "c"}"#));
    append(3, "UPDATE", None, Some(r#"{"id": 2, "v": "d"}"#));
    append(4, "DELETE", Some(r#"{"id": 2}"#), None);
    append(9, "TRUNCATE", None, None);
    let built = decoder.close().unwrap().unwrap();
    assert_eq!(printed(&built, "_cdc_operation"), ["UPDATE", "DELETE", "INSERT", "UPDATE", "DELETE", "TRUNCATE"]);
    assert_eq!(printed(&built, "id"), ["1", "1", "2", "2", "2", "-"]);
    assert_eq!(printed(&built, "v"), ["b", "b", "c", "d", "-", "-"]);
    assert_eq!((built.buffer_rows, built.ids), (5, vec![(1, 4), (9, 9)]));
}

#[test]
fn a_delete_may_carry_its_key_in_the_metadata() {
    let metadata = r#"{"columns": [{"name": "id", "type": "integer"}], "key": {"id": 5}}"#;
    let mut decoder = decoder();
    assert_eq!(decoder.append(&row(1, "DELETE", None, None, Some(metadata))).unwrap(), Appended::Done);
    assert_eq!(printed(&decoder.close().unwrap().unwrap(), "id"), ["5"]);
    // Another row's metadata is not this row's.
    let error = decoder.append(&row(2, "DELETE", None, None, None)).unwrap_err();
    assert!(error.to_string().contains("neither before_data nor metadata.key"));
}

#[test]
fn schemas_grow_widen_and_come_back() {
    let mut decoder = decoder();
    let one = told(&[("id", "integer")]);
    let two = told(&[("id", "integer"), ("v", "text")]);
    let wide = told(&[("id", "bigint"), ("v", "text")]);
    let other = told(&[("id", "bigint"), ("v", "date")]);
    let mut ids = Vec::new();
    decoder.append(&row(1, "INSERT", None, Some(r#"{"id": 1}"#), Some(&one))).unwrap();
    // A column more goes into the same batch: the rows before it have no value there.
    assert_eq!(
        decoder.append(&row(2, "INSERT", None, Some(r#"{"id": 2, "v": "x"}"#), Some(&two))).unwrap(),
        Appended::Done
    );
    // A wider type needs a batch of its own.
    let widened = row(3, "INSERT", None, Some(r#"{"id": 3000000000, "v": "y"}"#), Some(&wide));
    assert_eq!(decoder.append(&widened).unwrap(), Appended::CloseFirst);
    let built = close(&mut decoder);
    assert_eq!((printed(&built, "v"), kind(&built, "id")), (vec!["-".to_owned(), "x".to_owned()], DataType::Int32));
    ids.push(built.schema_id);
    assert_eq!(decoder.append(&widened).unwrap(), Appended::Done);
    // A row of the narrow type that commits late does not narrow it again.
    assert_eq!(
        decoder.append(&row(4, "INSERT", None, Some(r#"{"id": 4, "v": "z"}"#), Some(&two))).unwrap(),
        Appended::Done
    );
    let retyped = row(5, "INSERT", None, Some(r#"{"id": 5, "v": "2024-01-01"}"#), Some(&other));
    assert_eq!(decoder.append(&retyped).unwrap(), Appended::CloseFirst);
    let built = close(&mut decoder);
    assert_eq!(kind(&built, "id"), DataType::Int64);
    ids.push(built.schema_id);
    assert_eq!(decoder.append(&retyped).unwrap(), Appended::Done);
    ids.push(close(&mut decoder).schema_id);
    assert_eq!(decoder.append(&widened).unwrap(), Appended::Done);
    ids.push(close(&mut decoder).schema_id);
    assert_eq!(ids, [1, 2, 3, 2]);
}

#[test]
fn another_key_closes_the_batch() {
    let mut decoder = decoder();
    decoder.append(&row(1, "INSERT", None, Some(r#"{"id": 1}"#), None)).unwrap();
    let mut keyless = row(2, "INSERT", None, Some(r#"{"id": 2}"#), None);
    keyless.key_columns = None;
    assert_eq!(decoder.append(&keyless).unwrap(), Appended::CloseFirst);
    decoder.close().unwrap();
    assert_eq!(decoder.append(&keyless).unwrap(), Appended::Done);
    let schema = decoder.close().unwrap().unwrap().rows.schema();
    assert!(ChangeBatch::key_columns(&schema).unwrap().is_empty());
}

#[test]
fn a_key_of_the_configuration_splits_changes_and_wants_to_be_seen() {
    let key: Arc<[String]> = ["a".to_owned(), "b".to_owned()].into();
    let mut decoder = decoder().identified_by(Some(key));
    let (one, two) = (r#"{"id": 1, "a": 1, "b": "x"}"#, r#"{"id": 1, "a": 2, "b": "x"}"#);
    for (id, before, after) in [(1, one, one), (2, one, two)] {
        let mut row = row(id, "UPDATE", Some(before), Some(after), None);
        row.key_columns = (id == 1).then_some(b"[]");
        assert_eq!(decoder.append(&row).unwrap(), Appended::Done);
    }
    for (operation, before, after) in [
        ("INSERT", None, Some(r#"{"id": 1, "a": 1}"#)),
        ("UPDATE", Some(r#"{"id": 1, "a": 1}"#), Some(one)),
        ("UPDATE", None, Some(one)),
        ("DELETE", Some(r#"{"id": 1, "a": 1}"#), None),
    ] {
        let error = decoder.append(&row(3, operation, before, after, None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        let column = if before.is_none() && operation == "UPDATE" { "column a" } else { "column b" };
        assert!(error.to_string().contains(column) && error.to_string().contains("REPLICA IDENTITY FULL"), "{error}");
    }
    let built = close(&mut decoder);
    assert_eq!(printed(&built, "_cdc_operation"), ["UPDATE", "DELETE", "INSERT"]);
    assert_eq!(printed(&built, "a"), ["1", "1", "2"]);
    assert_eq!(ChangeBatch::key_columns(&built.rows.schema()).unwrap(), ["a", "b"]);
}

#[test]
fn types_are_inferred_where_nobody_tells_them() {
    let mut decoder = decoder();
    for (id, object) in [
        (
            1,
            r#"{"id": 1, "f": 1.50, "n": 0.1234567890123456789, "b": true, "s": "x", "j": [1], "mix": 1, "grow": 7, "nil": null}"#,
        ),
        (2, r#"{"id": 2, "f": 2, "n": 5, "b": null, "s": "y", "j": {"k": 1}, "mix": "a", "grow": 0.5}"#),
    ] {
        assert_eq!(decoder.append(&row(id, "INSERT", None, Some(object), None)).unwrap(), Appended::Done);
    }
    let built = decoder.close().unwrap().unwrap();
    for (column, expected, values) in [
        ("id", DataType::Int64, ["1", "2"]),
        ("f", DataType::Float64, ["1.5", "2.0"]),
        // A double would lose digits.
        ("n", DataType::Decimal128(38, 19), ["0.1234567890123456789", "5.0000000000000000000"]),
        ("b", DataType::Boolean, ["true", "-"]),
        ("s", DataType::Utf8, ["x", "y"]),
        ("j", DataType::Utf8, ["[1]", "{\"k\": 1}"]),
        ("mix", DataType::Utf8, ["1", "a"]),
        ("grow", DataType::Float64, ["7.0", "0.5"]),
    ] {
        assert_eq!(kind(&built, column), expected, "{column}");
        assert_eq!(printed(&built, column), values, "{column}");
    }
    assert!(built.rows.column_by_name("nil").is_none());
    let schema = built.rows.schema();
    assert_eq!(schema.field_with_name("id").unwrap().metadata()["philotes.inferred"], "true");
    assert_eq!(schema.field_with_name("j").unwrap().metadata()["ARROW:extension:name"], "arrow.json");
}

#[test]
fn a_catalog_is_asked_once_per_unknown_column() {
    let mut decoder = StreamDecoder::new(StreamName::new(["public", "orders"]).unwrap(), true, Arc::default());
    let object = r#"{"id": 1, "amount": 12.30}"#;
    let unknown = row(1, "INSERT", None, Some(object), None);
    assert_eq!(decoder.append(&unknown).unwrap(), Appended::TypesWanted);
    assert!(decoder.close().unwrap().is_none());
    let column =
        |name: &str, kind: &str| ToldColumn { name: name.into(), type_name: kind.into(), ..ToldColumn::default() };
    decoder.tell(&[column("id", "integer"), column("amount", "numeric(10,2)")]).unwrap();
    assert_eq!(decoder.append(&unknown).unwrap(), Appended::Done);
    let more = row(2, "INSERT", None, Some(r#"{"id": 1, "extra": 5}"#), None);
    assert_eq!(decoder.append(&more).unwrap(), Appended::TypesWanted);
    let built = decoder.close().unwrap().unwrap();
    assert_eq!(built.rows.column_by_name("amount").unwrap().as_primitive::<Decimal128Type>().value(0), 1230);
    decoder.tell(&[column("id", "integer")]).unwrap();
    assert_eq!(decoder.append(&more).unwrap(), Appended::Done, "in vain: inferred now");
    let built = decoder.close().unwrap().unwrap();
    assert_eq!(built.rows.column_by_name("extra").unwrap().as_primitive::<Int64Type>().value(0), 5);
    assert_eq!(built.rows.column_by_name("id").unwrap().as_primitive::<Int32Type>().value(0), 1);
    assert!(built.rows.column_by_name("amount").unwrap().is_null(0));
}

#[test]
fn broken_rows_are_refused() {
    for (operation, after, metadata, key, reason) in [
        ("INSERT", None, None, "[]", "without after_data"),
        ("MERGE", Some("{}"), None, "[]", "operation"),
        ("INSERT", Some("{\"a\": 1, \"a\": 2}"), None, "[]", "twice"),
        ("INSERT", Some("{\"_cdc_lsn\": 1}"), None, "[]", "reserved"),
        ("INSERT", Some("[1]"), None, "[]", "JSON is broken"),
        ("INSERT", Some("{}"), Some("{\"columns\": [1]}"), "[]", "metadata.columns"),
        ("INSERT", Some("{}"), None, "{}", "key_columns"),
    ] {
        let mut row = row(1, operation, None, after, metadata);
        row.key_columns = Some(key.as_bytes());
        let error = decoder().append(&row).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn doubles_keep_every_bit() {
    let metadata = told(&[("id", "integer"), ("d", "double precision")]);
    let mut decoder = decoder();
    let object = r#"{"d": 0.1000000000000000055511151231257827, "id": 1}"#;
    decoder.append(&row(1, "INSERT", None, Some(object), Some(&metadata))).unwrap();
    let built = decoder.close().unwrap().unwrap();
    assert_eq!(built.rows.column_by_name("d").unwrap().as_primitive::<Float64Type>().value(0), 0.1);
}

#[test]
fn what_is_known_is_taken_up_again_after_other_rows() {
    let mut decoder = decoder();
    assert_eq!(decoder.know(), None);
    let (text, date) = (told(&[("id", "integer"), ("v", "text")]), told(&[("id", "integer"), ("v", "date")]));
    decoder.append(&row(1, "INSERT", None, Some(r#"{"id": 1, "v": "a"}"#), Some(&text))).unwrap();
    decoder.close().unwrap();
    assert_eq!(decoder.know(), Some((Some(&*text), Some("[\"id\"]"))));
    // A row that is as known sends neither metadata nor key.
    let mut known = row(2, "INSERT", None, Some(r#"{"id": 2, "v": "b"}"#), None);
    (known.known, known.key_columns) = (true, None);
    assert_eq!(decoder.append(&known).unwrap(), Appended::Done);
    // Another one in between has other types and no key.
    let mut other = row(3, "INSERT", None, Some(r#"{"id": 3, "v": "2024-01-01"}"#), Some(&date));
    other.key_columns = None;
    assert_eq!(decoder.append(&other).unwrap(), Appended::CloseFirst);
    let first = decoder.close().unwrap().unwrap();
    assert_eq!(ChangeBatch::key_columns(&first.rows.schema()).unwrap(), ["id"]);
    assert_eq!(decoder.append(&other).unwrap(), Appended::Done);
    (known.id, known.after) = (4, Some(&br#"{"id": 4, "v": "c"}"#[..]));
    assert_eq!(decoder.append(&known).unwrap(), Appended::CloseFirst);
    let second = decoder.close().unwrap().unwrap();
    assert!(ChangeBatch::key_columns(&second.rows.schema()).unwrap().is_empty());
    assert_eq!(decoder.append(&known).unwrap(), Appended::Done);
    let third = decoder.close().unwrap().unwrap();
    assert_eq!((kind(&second, "v"), kind(&third, "v")), (DataType::Date32, DataType::Utf8));
    assert_eq!((third.schema_id, printed(&third, "v")), (first.schema_id, vec!["c".to_owned()]));
}

/// Metadata of a source that numbers its columns: name, type, number.
fn numbered(relation: &str, columns: &[(&str, &str, i32)]) -> String {
    let columns: Vec<_> = columns
        .iter()
        .map(|(name, kind, number)| serde_json::json!({"name": name, "type": kind, "number": number}))
        .collect();
    serde_json::json!({"relation": relation, "columns": columns}).to_string()
}

#[test]
fn numbered_columns_are_all_there_are() {
    let mut decoder = decoder();
    let one = numbered("5.7", &[("id", "integer", 1), ("a", "text", 2), ("n", "integer", 3)]);
    let two = numbered("5.7", &[("id", "integer", 1), ("b", "text", 2), ("n", "bigint", 3)]);
    let three = numbered("5.7", &[("id", "integer", 1), ("n", "integer", 3)]);
    let four = numbered("5.8", &[("id", "integer", 1), ("n", "integer", 3)]);
    let mut fields = Vec::new();
    for (id, metadata) in [(1, &one), (2, &two), (3, &three), (4, &four)] {
        let row = row(id, "INSERT", None, Some(r#"{"id": 1, "n": 5}"#), Some(metadata));
        if id > 1 {
            assert_eq!(decoder.append(&row).unwrap(), Appended::CloseFirst, "row {id}");
            fields.push(described(&decoder.close().unwrap().unwrap()));
        }
        assert_eq!(decoder.append(&row).unwrap(), Appended::Done);
    }
    fields.push(described(&decoder.close().unwrap().unwrap()));
    assert_eq!(
        fields,
        [
            "5.7: id 1 Int32, a 2 Utf8, n 3 Int32",
            "5.7: id 1 Int32, b 2 Utf8, n 3 Int64",
            // As wide as it was.
            "5.7: id 1 Int32, n 3 Int64",
            "5.8: id 1 Int32, n 3 Int32",
        ]
    );
}

fn described(built: &Built) -> String {
    let schema = built.rows.schema();
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .filter(|field| !field.name().starts_with("_cdc_"))
        .map(|field| format!("{} {} {}", field.name(), field.metadata()["philotes.number"], field.data_type()))
        .collect();
    format!("{}: {}", schema.metadata()["philotes.relation"], columns.join(", "))
}

#[test]
fn what_a_row_leaves_out_is_named_or_taken_from_before() {
    let mut decoder = decoder();
    let metadata = told(&[("id", "integer"), ("big", "text"), ("n", "integer")]);
    for (id, operation, before, after) in [
        (1, "INSERT", None, Some(r#"{"id": 1, "big": "x", "n": 1}"#)),
        (2, "UPDATE", None, Some(r#"{"id": 1, "n": 2}"#)),
        (3, "UPDATE", Some(r#"{"id": 1, "big": "x"}"#), Some(r#"{"id": 1}"#)),
        // The key changes: a DELETE of what is told of the row before, and an INSERT that lacks what the UPDATE did not send.
        (4, "UPDATE", Some(r#"{"id": 1}"#), Some(r#"{"id": 2, "n": null}"#)),
        (5, "DELETE", Some(r#"{"id": 2, "n": null}"#), None),
        (6, "DELETE", Some(r#"{"id": 2, "n": 1, "big": null}"#), None),
        (7, "INSERT", None, Some(r#"{"id": 3}"#)),
        (8, "TRUNCATE", None, None),
    ] {
        assert_eq!(decoder.append(&row(id, operation, before, after, Some(&metadata))).unwrap(), Appended::Done);
    }
    let built = close(&mut decoder);
    let unsent = ["-", "[big]", "[n]", "[big, n]", "[big]", "[big]", "-", "-", "-"];
    assert_eq!(printed(&built, "_cdc_unchanged"), unsent);
    assert_eq!(printed(&built, "big"), ["x", "-", "x", "-", "-", "-", "-", "-", "-"]);
    assert_eq!(printed(&built, "n"), ["1", "2", "-", "-", "-", "-", "1", "-", "-"]);
    // It stays a column of the stream.
    let row = row(9, "INSERT", None, Some(r#"{"id": 4}"#), Some(&metadata));
    assert_eq!(decoder.append(&row).unwrap(), Appended::Done);
    assert_eq!(printed(&close(&mut decoder), "_cdc_unchanged"), ["-"]);
}

#[test]
fn a_delete_of_which_only_the_key_is_told_names_the_rest() {
    let mut decoder = decoder();
    let columns = told(&[("id", "integer"), ("big", "text"), ("n", "integer")]);
    let metadata = format!(r#"{{"key": {{"id": 1}}, {}"#, &columns[1..]);
    let appended = decoder.append(&row(1, "DELETE", None, None, Some(&metadata))).unwrap();
    assert_eq!(appended, Appended::Done);
    let built = close(&mut decoder);
    assert_eq!((printed(&built, "id"), printed(&built, "_cdc_unchanged")), (vec!["1".into()], vec!["[big, n]".into()]));
}

#[test]
fn a_column_that_is_no_longer_told_is_not_left_out() {
    let mut decoder = decoder();
    let (both, one) = (told(&[("id", "integer"), ("gone", "text")]), told(&[("id", "integer")]));
    for (id, metadata, object) in [(1, &both, r#"{"id": 1, "gone": "x"}"#), (2, &one, r#"{"id": 1}"#)] {
        let row = row(id, "UPDATE", None, Some(object), Some(metadata));
        assert_eq!(decoder.append(&row).unwrap(), Appended::Done);
    }
    let built = close(&mut decoder);
    assert_eq!(printed(&built, "gone"), ["x", "-"]);
    assert!(built.rows.column_by_name("_cdc_unchanged").is_none());
}

#[test]
fn composite_types_are_structs_and_dimensions_lists() {
    let metadata = serde_json::json!({"columns": [
        {"name": "id", "type": "integer"},
        {"name": "a", "type": "public.address", "fields": [
            {"name": "street", "type": "text"},
            {"name": "at", "type": "public.point2", "fields": [{"name": "x", "type": "real"}, {"name": "tags", "type": "text[]"}]},
        ]},
        {"name": "many", "type": "public.pair[]", "fields": [{"name": "n", "type": "numeric(5,2)"}, {"name": "j", "type": "json", "text": true}]},
        {"name": "grid", "type": "integer[]", "dimensions": 2},
    ]})
    .to_string();
    let full = r#"{"id": 1, "a": {"street": "x", "at": {"x": "-0", "tags": ["t", null]}}, "grid": [[1, 2], [3, null]],
        "many": [{"n": 1.5, "j": "{\"b\" : 1e5}"}, null]}"#;
    let sparse = r#"{"id": 2, "a": {"at": null, "street": null}, "many": [], "grid": []}"#;
    let mut decoder = decoder();
    for (id, object) in [(1, full), (2, sparse), (3, r#"{"id": 3}"#)] {
        assert_eq!(decoder.append(&row(id, "INSERT", None, Some(object), Some(&metadata))).unwrap(), Appended::Done);
    }
    let refused = |value: &str| {
        let object = format!(r#"{{"id": 4, "a": {value}}}"#);
        let mut decoder = StreamDecoder::new(StreamName::new(["public", "orders"]).unwrap(), false, Arc::default());
        decoder.append(&row(4, "INSERT", None, Some(&object), Some(&metadata))).unwrap_err().to_string()
    };
    for value in
        ["5", "[1]", r#"{"street": "secret", "street": "y"}"#, r#"{"secret": 1}"#, r#"{"at": {"x": "secret"}}"#]
    {
        let error = refused(value);
        assert!(error.contains("column a:") && !error.contains("secret"), "{error}");
    }
    let built = close(&mut decoder);
    assert_eq!(printed(&built, "a"), ["{street: x, at: {x: -0.0, tags: [t, ]}}", "{street: , at: }", "-"]);
    assert_eq!(printed(&built, "many"), [r#"[{n: 1.50, j: {"b" : 1e5}}, ]"#, "[]", "-"]);
    assert_eq!(printed(&built, "grid"), ["[[1, 2], [3, ]]", "[]", "-"]);
}

#[test]
fn the_configuration_overrides_what_is_told() {
    let known = |name: &str| Override::Type(ColumnType::known(name).unwrap(), name.to_owned());
    let overrides = Overrides::from([
        ("ssn".to_owned(), Override::Drop),
        ("_cdc_own".to_owned(), Override::Drop),
        ("note".to_owned(), known("json")),
        ("at".to_owned(), known("timestamptz")),
        ("price".to_owned(), known("text")),
        ("untold".to_owned(), known("timestamptz")),
    ]);
    let stream = StreamName::new(["public", "orders"]).unwrap();
    let mut decoder = StreamDecoder::new(stream, false, Arc::new(overrides));
    let metadata = told(&[
        ("id", "integer"),
        ("ssn", "text"),
        ("_cdc_own", "text"),
        ("note", "text"),
        ("at", "timestamp without time zone"),
        ("price", "numeric(5,2)"),
    ]);
    let object = r#"{"id": 1, "ssn": "secret", "_cdc_own": 1, "note": "{\"a\": 1}", "at": "2024-01-01T00:00:00", "price": "NaN",
        "untold": "2024-01-01T00:00:00+01:00"}"#;
    assert_eq!(decoder.append(&row(1, "INSERT", None, Some(object), Some(&metadata))).unwrap(), Appended::Done);
    let built = close(&mut decoder);
    for (column, expected) in
        [("note", r#"{"a": 1}"#), ("at", "2024-01-01T00:00:00Z"), ("price", "NaN"), ("untold", "2023-12-31T23:00:00Z")]
    {
        assert_eq!(printed(&built, column), [expected], "{column}");
    }
    let names: Vec<_> = built.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "note", "at", "price", "untold", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
}

/// Each of these is one row's dead letter: what was there before and comes after it is kept.
#[test]
fn rows_that_tell_too_much_are_refused() {
    let many: Vec<String> = (0..=4096).map(|n| format!("c{n}")).collect();
    let columns: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "integer")).collect();
    let row_of_many =
        format!("{{{}}}", many.iter().map(|name| format!("\"{name}\": 1")).collect::<Vec<_>>().join(", "));
    let long = "_".repeat(12_000);
    let nested =
        serde_json::json!({"columns": [{"name": "a", "type": "public.c", "fields": [{"name": "b", "type": long}]}]});
    for (metadata, after, refusal) in [
        (Some(told(&[("a", &long)])), "{\"a\": [1]}", "column a: the name of its type is longer than the 1024 bytes"),
        (Some(nested.to_string()), "{\"a\": {}}", "column a: the name of its type is longer than the 1024 bytes"),
        (Some(told(&columns)), "{}", "column c4096: a column beyond the 4096 that a stream may have"),
        (None, &row_of_many, "column c4095: a column beyond the 4096 that a stream may have"),
    ] {
        let mut decoder = decoder();
        decoder.append(&row(1, "INSERT", None, Some("{\"id\": 1}"), Some("{}"))).unwrap();
        close(&mut decoder);
        let refused =
            decoder.append(&row(2, "INSERT", None, Some(after), metadata.as_deref().or(Some("{}")))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Data);
        assert!(refused.message().starts_with(&format!("stream public.orders, buffer id 2, {refusal}")), "{refused}");
        decoder.close().unwrap();
        let next = row(3, "INSERT", None, Some("{\"id\": 2, \"new\": 3}"), Some("{}"));
        assert_eq!(decoder.append(&next).unwrap(), Appended::Done);
        let built = close(&mut decoder);
        assert_eq!((printed(&built, "id"), printed(&built, "new")), (vec!["2".to_owned()], vec!["3".to_owned()]));
        assert!(built.rows.num_columns() < 10, "of the refused row no column is left");
    }
    let names = serde_json::json!(many).to_string();
    let refused =
        decoder().append(&Row { key_columns: Some(names.as_bytes()), ..row(3, "INSERT", None, Some("{}"), None) });
    assert!(refused.unwrap_err().message().contains("key_columns has more than the 4096 names"));
}
