use super::*;

#[test]
fn an_object_is_a_row() {
    let mut feed = Feed::json(JsonFormat {
        columns: columns(&[("id", "long"), ("amount", "decimal(10,2)"), ("late", "boolean")]),
        ..JsonFormat::default()
    });
    feed.put("", r#"{"id": 1, "amount": 12.3, "note": "a\u0062"}"#);
    feed.put("k", r#" {"note":null,"amount":"0.50","id":2} "#);
    feed.put("k", "{}");
    let built = feed.close();
    // What is declared comes first, and is there even if no message has it.
    assert_eq!(names(&built), ["amount", "id", "late", "note", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
    for (column, expected) in [
        ("id", ["1", "2", "-"]),
        ("amount", ["12.30", "0.50", "-"]),
        ("late", ["-", "-", "-"]),
        ("note", ["ab", "-", "-"]),
        ("_cdc_operation", ["INSERT", "INSERT", "INSERT"]),
        ("_cdc_timestamp", ["2023-11-14T22:13:20.123Z", "2023-11-14T22:13:20.123Z", "2023-11-14T22:13:20.123Z"]),
        ("_cdc_lsn", ["shop.orders-0@7", "shop.orders-0@8", "shop.orders-0@9"]),
    ] {
        assert_eq!(printed(&built, column), expected, "{column}");
    }
    let schema = built.rows.schema();
    assert_eq!(schema.metadata()["philotes.stream"], "\"shop.orders\"");
    assert_eq!(schema.metadata()["philotes.key"], "[]");
    assert_eq!(schema.field_with_name("amount").unwrap().metadata()["philotes.source_type"], "decimal(10,2)");
    assert_eq!(schema.field_with_name("note").unwrap().metadata()["philotes.inferred"], "true");
    assert!(!built.initial_load);
    assert!(feed.decoder.close(&mut feed.batches[0]).unwrap().is_none(), "nothing is left");
}

#[test]
fn types_are_inferred_and_widen() {
    let mut feed = Feed::json(JsonFormat::default());
    feed.put(
        "",
        r#"{"id":1,"f":1.50,"n":0.1234567890123456789,"b":true,"s":"x","j":[1, 2],"mix":1,"grow":7,"nil":null}"#,
    );
    feed.put("", r#"{"id":2,"f":2,"n":5,"b":null,"s":"y","j":{"k":1},"mix":"a","grow":0.5,"late":"z"}"#);
    let built = feed.close();
    for (column, kind, expected) in [
        ("id", DataType::Int64, ["1", "2"]),
        ("f", DataType::Float64, ["1.5", "2.0"]),
        // A double would lose digits.
        ("n", DataType::Decimal128(38, 19), ["0.1234567890123456789", "5.0000000000000000000"]),
        ("b", DataType::Boolean, ["true", "-"]),
        ("s", DataType::Utf8, ["x", "y"]),
        ("j", DataType::Utf8, ["[1, 2]", "{\"k\":1}"]),
        ("mix", DataType::Utf8, ["1", "a"]),
        ("grow", DataType::Float64, ["7.0", "0.5"]),
        ("late", DataType::Utf8, ["-", "z"]),
    ] {
        assert_eq!(
            (kind_of(&built, column), printed(&built, column)),
            (kind, expected.map(String::from).to_vec()),
            "{column}"
        );
    }
    assert!(built.rows.column_by_name("nil").is_none());
    assert_eq!(built.rows.schema().field_with_name("j").unwrap().metadata()["ARROW:extension:name"], "arrow.json");
    // What was learnt stays, and a schema that comes back has its id.
    feed.put("", r#"{"id":3}"#);
    let next = feed.close();
    assert_eq!((kind_of(&next, "grow"), next.schema_id), (DataType::Float64, built.schema_id));
    feed.put("", r#"{"id":0.5}"#);
    let wider = feed.close();
    assert_eq!((kind_of(&wider, "id"), wider.schema_id), (DataType::Float64, built.schema_id + 1));
}

#[test]
fn partitions_share_what_is_known() {
    let mut feed = Feed::json(JsonFormat::default());
    feed.put("", r#"{"a":1,"n":9007199254740993}"#);
    feed.partition = 1;
    feed.put("", r#"{"a":2,"b":"x","n":0.25}"#);
    feed.partition = 0;
    feed.put("", r#"{"c":true,"a":3}"#);
    let first = feed.close();
    feed.partition = 1;
    feed.put("", r#"{"b":"y"}"#);
    let second = feed.close();
    assert_eq!(names(&first)[..4], ["a", "n", "b", "c"]);
    assert_eq!(printed(&first, "b"), ["-", "-"]);
    // A double does not hold what the other partition had, so that both are decimals.
    assert_eq!(printed(&first, "n"), ["9007199254740993", "-"]);
    assert_eq!(names(&first), names(&second));
    assert_eq!(printed(&second, "n"), ["0.25", "-"]);
    assert_eq!(printed(&second, "c"), ["-", "-"]);
    assert_eq!(printed(&second, "_cdc_lsn"), ["shop.orders-1@8", "shop.orders-1@10"]);
}

#[test]
fn a_wider_type_of_another_partition_is_taken_over() {
    let mut feed = Feed::json(JsonFormat::default());
    feed.put("", r#"{"n":5,"m":9007199254740993}"#);
    feed.partition = 1;
    feed.put("", r#"{"n":0.5,"m":0.5}"#);
    feed.partition = 0;
    feed.put("", "{}");
    let first = feed.close();
    assert_eq!((kind_of(&first, "n"), kind_of(&first, "m")), (DataType::Float64, DataType::Decimal128(38, 0)));
    feed.partition = 1;
    feed.put("", "{}");
    let second = feed.close();
    assert_eq!((kind_of(&second, "n"), kind_of(&second, "m")), (DataType::Float64, DataType::Decimal128(38, 1)));
}

#[test]
fn others_are_dropped_or_refused() {
    let format = |others| JsonFormat { columns: columns(&[("id", "int")]), others, ..JsonFormat::default() };
    let mut dropping = Feed::json(format(Others::Drop));
    dropping.put("", r#"{"x":[{"y":"}"}],"id":1,"_cdc_lsn":5}"#);
    assert_eq!(names(&dropping.close())[0], "id");
    let mut refusing = Feed::json(format(Others::Refuse));
    refusing.put("", r#"{"id":1}"#);
    assert_eq!(
        refusing.refused("", r#"{"id":1,"x":null}"#),
        ", column x: a member that `columns` does not name, and `others` says refuse"
    );
}

#[test]
fn reserved_names_are_refused() {
    let mut feed = Feed::json(JsonFormat::default());
    for name in [
        "_cdc_operation",
        "_cdc_new",
        "_kafka_key",
        "_kafka_headers",
        "_kafka_timestamp",
        "_kafka_topic",
        "_kafka_partition",
        "_kafka_offset",
    ] {
        let reason = feed.refused("", &format!(r#"{{"id":1,"{name}":null}}"#));
        assert!(reason.starts_with(&format!(", column {name}: ")) && reason.contains("reserved"), "{reason}");
    }
    feed.put("", r#"{"_kafka_other":1}"#);
}

#[test]
fn tombstones_delete_the_row_of_their_key() {
    let format = JsonFormat { columns: columns(&[("id", "long")]), key: vec!["id".into()], ..JsonFormat::default() };
    let mut feed = Feed::json(format);
    feed.put("1", r#"{"id":1,"v":"x"}"#);
    for key in [r#"{"id":2,"more":true}"#, "3", " {\"id\": 4}"] {
        assert_eq!(feed.tombstone(key).unwrap(), Appended::Rows);
    }
    for key in ["x", "{}", r#"{"id":null}"#, "null", "[5]", "{\"id\":5", "5 6"] {
        assert_eq!(feed.tombstone(key).unwrap_err().kind(), ErrorKind::Data, "{key}");
    }
    assert!(feed.append(None, None).unwrap_err().message().ends_with("neither a value nor a key"));
    assert_eq!(feed.refused("1", r#"{"v":1}"#), ", column id: a key column that is null or missing");
    assert_eq!(feed.refused("1", r#"{"id":null}"#), ", column id: a key column that is null or missing");
    let built = feed.close();
    assert_eq!(key_of(&built), ["id"]);
    assert_eq!(printed(&built, "id"), ["1", "2", "3", "4"]);
    assert_eq!(printed(&built, "v"), ["x", "-", "-", "-"]);
    assert_eq!(printed(&built, "_cdc_unchanged"), ["-", "[v]", "[v]", "[v]"]);
    assert_eq!(printed(&built, "_cdc_operation"), ["INSERT", "DELETE", "DELETE", "DELETE"]);
}

#[test]
fn plain_texts_are_keys_where_there_is_one_column() {
    let format =
        |key: &[&str]| JsonFormat { key: key.iter().map(|key| (*key).to_owned()).collect(), ..JsonFormat::default() };
    let mut feed = Feed::json(format(&["code"]));
    for key in ["plain text", "\"quoted\"", "{\"code\":\"object\"}"] {
        assert_eq!(feed.tombstone(key).unwrap(), Appended::Rows);
    }
    assert_eq!(printed(&feed.close(), "code"), ["plain text", "quoted", "object"]);
    let mut feed = Feed::json(format(&["a", "b"]));
    assert!(feed.tombstone("x").unwrap_err().message().contains("no JSON object with the key columns"));
    assert_eq!(feed.tombstone(r#"{"b":1,"a":2}"#).unwrap(), Appended::Rows);
    assert_eq!(key_of(&feed.close()), ["a", "b"]);
    let mut keyless = Feed::json(JsonFormat::default());
    assert!(keyless.tombstone("1").unwrap_err().message().contains("`key`"));
}

#[test]
fn what_kafka_says_is_there_on_request() {
    let all = [
        MetadataColumn::Key,
        MetadataColumn::Headers,
        MetadataColumn::Timestamp,
        MetadataColumn::Topic,
        MetadataColumn::Partition,
        MetadataColumn::Offset,
    ];
    let mut feed = Feed::with(&FormatConfig::Json(JsonFormat::default()), &all);
    feed.put("ab", "{}");
    let headers = [Header { name: "h", value: Some(b"\x00\xff") }, Header { name: "h", value: None }];
    let message = Message {
        topic: "shop.orders",
        partition: 0,
        offset: 70,
        timestamp_millis: None,
        key: None,
        value: Some(b"{\"v\":1}"),
        headers: &headers,
    };
    assert_eq!(feed.decoder.append(&mut feed.batches[0], &message).unwrap(), Appended::Rows);
    assert!(feed.decoder.append(&mut feed.batches[0], &Message { value: Some(b"{"), ..message }).is_err());
    let built = feed.close();
    assert_eq!(
        names(&built),
        [
            "v",
            "_kafka_key",
            "_kafka_headers",
            "_kafka_timestamp",
            "_kafka_topic",
            "_kafka_partition",
            "_kafka_offset",
            "_cdc_operation",
            "_cdc_timestamp",
            "_cdc_lsn"
        ]
    );
    for (column, expected) in [
        ("_kafka_key", ["6162", "-"]),
        ("_kafka_headers", ["-", "[{key: h, value: 00ff}, {key: h, value: }]"]),
        ("_kafka_timestamp", ["2023-11-14T22:13:20.123Z", "-"]),
        ("_cdc_timestamp", ["2023-11-14T22:13:20.123Z", "-"]),
        ("_kafka_topic", ["shop.orders", "shop.orders"]),
        ("_kafka_partition", ["0", "0"]),
        ("_kafka_offset", ["7", "70"]),
    ] {
        assert_eq!(printed(&built, column), expected, "{column}");
    }
    let nullable = |name: &str| built.rows.schema().field_with_name(name).unwrap().is_nullable();
    assert!(nullable("_kafka_key") && nullable("_kafka_headers") && nullable("_kafka_timestamp"));
    assert!(!nullable("_kafka_topic") && !nullable("_kafka_partition") && !nullable("_kafka_offset"));
}

#[test]
fn raw_bytes_are_not_looked_into() {
    let mut feed = Feed::new(&FormatConfig::Raw(crate::config::RawFormat {}));
    feed.append(None, Some(b"\xff{")).unwrap();
    feed.append(Some(b"k"), None).unwrap();
    let built = feed.close();
    assert_eq!(names(&built), ["value", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
    assert_eq!(printed(&built, "value"), ["ff7b", "-"]);
    assert_eq!(printed(&built, "_cdc_operation"), ["INSERT", "INSERT"]);
}
