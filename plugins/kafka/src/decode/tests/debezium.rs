use super::*;

/// As the tutorial's table `customers`: the value's schema with its rows, its source and the times.
fn schema(fields: &serde_json::Value) -> String {
    let row = |name| serde_json::json!({"type": "struct", "fields": fields, "optional": true, "name": "shop.public.customers.Value", "field": name});
    serde_json::json!({"type": "struct", "optional": false, "name": "shop.public.customers.Envelope", "version": 2, "fields": [
        row("before"), row("after"),
        {"type": "struct", "fields": [{"type": "string", "optional": false, "field": "version"}], "optional": false,
            "name": "io.debezium.connector.postgresql.Source", "field": "source"},
        {"type": "string", "optional": false, "field": "op"},
        {"type": "int64", "optional": true, "field": "ts_ms"}
    ]})
    .to_string()
}

fn customers() -> String {
    schema(&serde_json::json!([
        {"type": "int32", "optional": false, "default": 0, "field": "id"},
        {"type": "string", "optional": true, "field": "name"},
        {"type": "string", "optional": true, "parameters": {"__debezium.source.column.type": "TEXT"}, "field": "big"}
    ]))
}

/// An event's payload; `before` and `after` in JSON.
fn event(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"version":"3.0.0.Final","connector":"postgresql","name":"shop","ts_ms":1700000001000,
        "snapshot":"false","db":"shop","sequence":"[null,\"1\"]","ts_us":1700000001000456,"ts_ns":1700000001000456000,"schema":"public",
        "table":"customers","txId":555,"lsn":97500059720,"xmin":null}},"transaction":null,"op":"{op}","ts_ms":1700000002000,"ts_us":1700000002000001}}"#
    )
}

fn wrapped(schema: &str, payload: &str) -> String {
    format!(r#"{{"schema":{schema},"payload":{payload}}}"#)
}

fn key(id: u32) -> String {
    let schema = r#"{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false,"name":"shop.public.customers.Key"}"#;
    wrapped(schema, &format!(r#"{{"id":{id}}}"#))
}

const NO_ROW: [&str; 4] = [
    r#"{"ts_ms":1700000000000}"#,
    r#"{"status":"END","id":"571:53195832","ts_ms":1486500577125,"event_count":2,"data_collections":[]}"#,
    r#"{"source":{"version":"3.0"},"ts_ms":1,"databaseName":"inventory","ddl":"ALTER TABLE t"}"#,
    r#"{"op":"m","ts_ms":1,"source":{},"message":{"prefix":"p","content":"eA=="}}"#,
];

#[test]
fn events_with_their_schema_become_rows() {
    let mut feed = Feed::debezium();
    let schema = customers();
    feed.put(&key(1), &wrapped(&schema, &event("c", "null", r#"{"id":1,"name":"a","big":"b"}"#)));
    feed.put(&key(1), &wrapped(&schema, &event("u", "null", r#"{"id":1,"name":"c","big":"b"}"#)));
    feed.put(&key(1), &wrapped(&schema, &event("d", r#"{"id":1,"name":null,"big":null}"#, "null")));
    assert_eq!(feed.tombstone(&key(1)).unwrap(), Appended::Skipped);
    feed.put(&key(2), &wrapped(&schema, &event("d", "null", "null")));
    feed.put("", &wrapped(&schema, &event("t", "null", "null")));
    for text in NO_ROW {
        assert_eq!(feed.append(Some(b"{\"x\":1}"), Some(text.as_bytes())).unwrap(), Appended::Skipped, "{text}");
    }
    feed.put(&key(3), &wrapped(&schema, &event("c", "null", r#"{"id":3,"name":"z","big":null}"#)));
    let built = feed.close();
    for (column, expected) in [
        ("id", ["1", "1", "1", "2", "-", "3"]),
        ("name", ["a", "c", "-", "-", "-", "z"]),
        ("_cdc_operation", ["INSERT", "UPDATE", "DELETE", "DELETE", "TRUNCATE", "INSERT"]),
        ("_cdc_timestamp", ["2023-11-14T22:13:21.000456Z"; 6]),
        // 97500059720 is 0x16B374D848.
        ("_cdc_lsn", ["16/B374D848"; 6]),
        // Of the second DELETE nothing but the key was sent.
        ("_cdc_unchanged", ["-", "-", "-", "[name, big]", "-", "-"]),
    ] {
        assert_eq!(printed(&built, column), expected, "{column}");
    }
    assert_eq!(key_of(&built), ["id"]);
    assert_eq!(kind_of(&built, "id"), DataType::Int32);
    let schema = built.rows.schema();
    assert_eq!(schema.field_with_name("big").unwrap().metadata()["philotes.source_type"], "TEXT");
    assert!(!built.initial_load);
}

#[test]
fn events_without_schema_become_the_same_rows() {
    let mut feed = Feed::new(&FormatConfig::DebeziumJson(DebeziumFormat {
        columns: columns(&[("id", "int"), ("at", "timestamp_micros"), ("doc", "json_text")]),
        ..DebeziumFormat::default()
    }));
    let after = r#"{"id":1,"name":"a","at":9223372036825200000,"doc":"{\"a\": 1}"}"#;
    feed.put(r#"{"id":1}"#, &event("c", "null", after));
    feed.put(r#"{"id":1}"#, &event("d", "null", "null"));
    assert_eq!(feed.tombstone(r#"{"id":1}"#).unwrap(), Appended::Skipped);
    feed.put("", &event("t", "null", "null"));
    feed.put(r#"{"id":2}"#, &event("u", r#"{"id":2}"#, r#"{"id":2,"name":"b","n":1.5}"#));
    let built = feed.close();
    for (column, expected) in [
        ("id", ["1", "1", "-", "2"]),
        ("name", ["a", "-", "-", "b"]),
        ("n", ["-", "-", "-", "1.5"]),
        ("doc", ["{\"a\": 1}", "-", "-", "-"]),
        ("_cdc_operation", ["INSERT", "DELETE", "TRUNCATE", "UPDATE"]),
        ("_cdc_lsn", ["16/B374D848"; 4]),
        ("_cdc_unchanged", ["-", "[at, doc, name]", "-", "-"]),
    ] {
        assert_eq!(printed(&built, column), expected, "{column}");
    }
    assert_eq!(key_of(&built), ["id"]);
    let at = built.rows.column_by_name("at").unwrap();
    let at = arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(at);
    assert_eq!(at.value(0), i64::MAX, "PostgreSQL's infinity");
}

#[test]
fn rows_of_the_snapshot_have_batches_of_their_own() {
    for wrap in [|payload: String| wrapped(&customers(), &payload), |payload| payload] {
        let mut feed = Feed::debezium();
        feed.put(r#"{"id":1}"#, &wrap(event("r", "null", r#"{"id":1,"name":"a","big":"b"}"#)));
        let next = wrap(event("c", "null", r#"{"id":2,"name":"a","big":"b"}"#));
        assert_eq!(feed.append(Some(br#"{"id":2}"#), Some(next.as_bytes())).unwrap(), Appended::CloseFirst);
        let snapshot = feed.close();
        assert!(snapshot.initial_load);
        assert_eq!(printed(&snapshot, "_cdc_operation"), ["INSERT"]);
        feed.put(r#"{"id":2}"#, &next);
        let changes = feed.close();
        assert!(!changes.initial_load && changes.schema_id == snapshot.schema_id);
    }
}

const PLACEHOLDER: &str = "\"__debezium_unavailable_value\"";

#[test]
fn what_was_not_sent_is_named_or_taken_from_before() {
    let schema = customers();
    for wrap in [|schema: &str, payload: String| wrapped(schema, &payload), |_: &str, payload| payload] {
        let mut feed = Feed::debezium();
        let absent = format!(r#"{{"id":1,"name":"c","big":{PLACEHOLDER}}}"#);
        feed.put(&key(1), &wrap(&schema, event("c", "null", r#"{"id":1,"name":"a","big":"b"}"#)));
        feed.put(&key(1), &wrap(&schema, event("u", "null", &absent)));
        // REPLICA IDENTITY FULL.
        feed.put(&key(1), &wrap(&schema, event("u", r#"{"id":1,"name":"a","big":"b"}"#, &absent)));
        // REPLICA IDENTITY DEFAULT, the key changed.
        feed.put(&key(1), &wrap(&schema, event("u", r#"{"id":1,"name":null,"big":null}"#, &absent)));
        assert!(
            feed.refused(&key(1), &wrap(&schema, event("u", "null", &absent.replace("\"c\"", "[")))).contains("broken")
        );
        let built = feed.close();
        assert_eq!(printed(&built, "big"), ["b", "-", "b", "-"]);
        assert_eq!(printed(&built, "_cdc_unchanged"), ["-", "[big]", "-", "[big]"]);
        feed.put(&key(1), &wrap(&schema, event("c", "null", r#"{"id":1,"name":"a","big":"b"}"#)));
        assert_eq!(printed(&feed.close(), "_cdc_unchanged"), ["-"], "it stays a column of the stream");
    }
    // Nothing was known of the column so far.
    let mut feed = Feed::debezium();
    feed.put(r#"{"id":1}"#, &event("u", "null", &format!(r#"{{"id":1,"big":{PLACEHOLDER},"tags":[{PLACEHOLDER}]}}"#)));
    feed.put(r#"{"id":1}"#, &event("u", "null", r#"{"id":1,"big":"x","tags":["y"]}"#));
    let built = feed.close();
    assert_eq!(printed(&built, "big"), ["-", "x"]);
    assert_eq!(printed(&built, "tags"), ["-", "[\"y\"]"]);
    assert_eq!(printed(&built, "_cdc_unchanged"), ["[big, tags]", "-"]);
    // Without a schema bytes are texts.
    feed.put(r#"{"id":1}"#, &event("c", "null", r#"{"id":1,"raw":"AQI="}"#));
    feed.put(r#"{"id":1}"#, &event("u", "null", r#"{"id":1,"raw":"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="}"#));
    let built = feed.close();
    assert_eq!(printed(&built, "raw"), ["AQI=", "-"]);
    assert_eq!(printed(&built, "_cdc_unchanged"), ["-", "[raw]"]);
}

#[test]
fn the_placeholder_may_be_another() {
    let format = DebeziumFormat { unavailable_value: "?".to_owned(), ..DebeziumFormat::default() };
    let mut feed = Feed::new(&FormatConfig::DebeziumJson(format));
    feed.put(r#"{"id":1}"#, &event("u", "null", &format!(r#"{{"id":1,"a":"?","b":{PLACEHOLDER}}}"#)));
    let built = feed.close();
    assert_eq!(printed(&built, "_cdc_unchanged"), ["[a]"]);
    assert_eq!(printed(&built, "b"), ["__debezium_unavailable_value"]);
}

#[test]
fn keys_come_from_the_messages_keys() {
    let mut feed = Feed::debezium();
    // No key: a table without one.
    feed.put("", &event("c", "null", r#"{"id":1,"b":2}"#));
    assert_eq!(
        feed.append(Some(b"{\"id\":1}"), Some(event("c", "null", r#"{"id":1,"b":2}"#).as_bytes())).unwrap(),
        Appended::CloseFirst
    );
    let keyless = feed.close();
    assert!(key_of(&keyless).is_empty());
    feed.put(r#"{"id":1}"#, &event("c", "null", r#"{"id":1,"b":2}"#));
    for (key, reason) in [
        ("", "null, and rows before had one"),
        ("null", "null, and rows before had one"),
        ("7", "no JSON object of key columns"),
        ("{}", "no JSON object of key columns"),
        ("{", "broken"),
    ] {
        let found = feed.refused(key, &event("c", "null", r#"{"id":1,"b":2}"#));
        assert!(found.contains(reason), "{key}: {found}");
    }
    assert!(
        feed.refused(r#"{"id":1}"#, &event("c", "null", r#"{"b":2}"#))
            .contains("column id: a key column that is null or missing")
    );
    // What a refused message says of the key is forgotten.
    assert_eq!(
        feed.append(Some(b"{\"x\":1}"), Some(event("c", "null", "[]").as_bytes())).unwrap(),
        Appended::CloseFirst
    );
    feed.close();
    assert!(feed.refused(r#"{"x":1}"#, &event("c", "null", r#"{"id":1}"#)).contains("column x: "));
    feed.put(r#"{"id":1}"#, &event("c", "null", r#"{"id":1,"b":2}"#));
    let other = event("c", "null", r#"{"id":1,"b":2}"#);
    assert_eq!(feed.append(Some(b"{\"b\":2,\"id\":1}"), Some(other.as_bytes())).unwrap(), Appended::CloseFirst);
    assert_eq!(key_of(&feed.close()), ["id"]);
    feed.put(r#"{"b":2,"id":1}"#, &other);
    assert_eq!(key_of(&feed.close()), ["b", "id"]);
}

#[test]
fn a_position_is_the_offset_where_the_source_has_none() {
    let mut feed = Feed::debezium();
    let mysql = r#"{"before":null,"after":{"id":1},"source":{"connector":"mysql","ts_ms":1700000001000,"file":"binlog.3","pos":484},"op":"c","ts_ms":5}"#;
    feed.put(r#"{"id":1}"#, mysql);
    feed.put(r#"{"id":1}"#, &mysql.replace("\"pos\":484", "\"lsn\":\"0/1A\""));
    let built = feed.close();
    assert_eq!(printed(&built, "_cdc_lsn"), ["shop.orders-0@7", "0/1A"]);
    assert_eq!(printed(&built, "_cdc_timestamp"), ["2023-11-14T22:13:21Z"; 2]);
}

#[test]
fn what_is_no_event_is_refused() {
    let mut feed = Feed::debezium();
    let schema = customers();
    for (text, reason) in [
        ("7".to_owned(), "not a change event"),
        (r#"{"id":1}"#.to_owned(), "not a change event"),
        (event("x", "null", "{}"), "`op`"),
        (event("c", "{}", "null"), "without `after`"),
        (wrapped(&schema, "7"), "not a change event"),
        (
            wrapped(r#"{"type":"struct","fields":[{"type":"int32","field":"id"}]}"#, &event("c", "null", "{}")),
            "neither `after` nor `before`",
        ),
        (wrapped(&schema, &event("c", "null", r#"{"id":1,"x":1}"#)), "column x: a member that the schema has not"),
        (wrapped(&schema, &event("c", "null", r#"{"id":1,"id":1}"#)), "column id: the row has the member twice"),
        (event("d", "null", "null"), "neither `before` nor a key"),
    ] {
        let found = feed.refused("", &text);
        assert!(found.contains(reason), "{text}: {found}");
    }
    assert_eq!(feed.append(None, Some(wrapped(&schema, "null").as_bytes())).unwrap(), Appended::Skipped);
}
