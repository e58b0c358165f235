//! Messages that are none leave nothing behind.

use super::*;

const ROW: &str = r#"{"id":2,"s":"a\u00e4\"b","n":-1.5e2,"l":[1,{"x":null}],"d":"2024-02-29","new":true,"grow":1.5,"m":{"k":[1]},"t":[[1],[2]]}"#;

fn json() -> FormatConfig {
    let columns = columns(&[("id", "long"), ("d", "date"), ("m", "map<list<int>>"), ("t", "list<list<int>>")]);
    FormatConfig::Json(JsonFormat { columns, key: vec!["id".into()], ..JsonFormat::default() })
}

fn samples() -> Vec<(FormatConfig, String, String)> {
    let schema = r#"{"type":"struct","fields":[{"type":"int64","field":"id"},{"type":"array","items":{"type":"string"},"field":"l"}]}"#;
    let envelope = format!(
        r#"{{"type":"struct","fields":[{}]}}"#,
        schema.replacen("{\"type\":\"struct\"", "{\"type\":\"struct\",\"field\":\"after\"", 1)
    );
    let event =
        |row: &str| format!(r#"{{"before":null,"after":{row},"source":{{"lsn":5,"ts_ms":7}},"op":"u","ts_ms":1}}"#);
    let wrap = |schema: &str, payload: &str| format!(r#"{{"schema":{schema},"payload":{payload}}}"#);
    let row = r#"{"id":1,"l":["a","__debezium_unavailable_value"]}"#;
    let debezium = || FormatConfig::DebeziumJson(DebeziumFormat::default());
    vec![
        (json(), r#"{"id":1,"grow":5,"s":"x","l":[2]}"#.to_owned(), ROW.to_owned()),
        (FormatConfig::ConnectJson(RowFormat { key: vec!["id".into()] }), wrap(schema, row), wrap(schema, row)),
        (debezium(), wrap(&envelope, &event(row)), wrap(&envelope, &event(row))),
        (debezium(), event(row), event(ROW)),
    ]
}

#[test]
fn every_truncation_is_refused_and_the_batch_stays() {
    for (format, first, sample) in samples() {
        let run = |broken: bool| {
            let mut feed = Feed::new(&format);
            feed.put(r#"{"id":1}"#, &first);
            for end in 0..if broken { sample.len() } else { 0 } {
                if sample.is_char_boundary(end) {
                    feed.refused(r#"{"id":1}"#, &sample[..end]);
                }
            }
            feed.offset = 1_000;
            feed.put(r#"{"id":1}"#, &sample);
            feed.offset = 2_000;
            feed.put(r#"{"id":1}"#, &first);
            let built = feed.close();
            (built.schema_id, built.rows)
        };
        assert_eq!(run(true), run(false), "{sample}");
    }
}

/// Each byte changed for others: whatever becomes of it, it is a row or a Data error, and other rows do not notice.
#[test]
fn no_change_of_a_byte_breaks_the_decoder() {
    for (format, first, sample) in samples() {
        let mut feed = Feed::new(&format);
        feed.put(r#"{"id":1}"#, &first);
        let mut rows = 1;
        for at in 0..sample.len() {
            for byte in [b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', b'0', b'x', 0, 0xff] {
                let mut text = sample.clone().into_bytes();
                text[at] = byte;
                match feed.append(Some(br#"{"id":1}"#), Some(&text)) {
                    Ok(Appended::Rows) => rows += 1,
                    Ok(Appended::Skipped) => {}
                    Ok(Appended::CloseFirst) => {
                        assert_eq!(feed.close().rows.num_rows(), rows);
                        rows = 0;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Data),
                }
                assert_eq!(feed.batches[0].rows(), rows);
            }
        }
        feed.put(r#"{"id":1}"#, &first);
        assert_eq!(feed.close().rows.num_rows(), rows + 1);
    }
}

#[test]
fn a_refused_message_teaches_nothing() {
    let mut feed = Feed::new(&json());
    feed.put("", r#"{"id":1,"a":5}"#);
    // A new column and a wider one, before what is wrong.
    assert!(feed.refused("", r#"{"id":2,"b":1,"a":"text","d":"x"}"#).contains("column d: "));
    assert!(feed.refused("", r#"{"id":2,"c":1,"a":0.5,"a":1}"#).contains("column a: the row has the member twice"));
    assert!(feed.refused("", r#"{"a":0.5}"#).contains("column id: "));
    assert!(feed.refused("", r#"{"id":2} x"#).contains("something follows"));
    assert!(feed.append(None, Some(b"{\"id\":2,\"s\":\"\xff\"}")).unwrap_err().message().contains("not UTF-8"));
    feed.put("", r#"{"id":3,"a":6}"#);
    let built = feed.close();
    assert_eq!(names(&built)[..5], ["d", "id", "m", "t", "a"]);
    assert_eq!((kind_of(&built, "a"), printed(&built, "a")), (DataType::Int64, vec!["5".to_owned(), "6".to_owned()]));
}

/// With a schema that is known the text around the payload is not scanned.
#[test]
fn what_follows_a_payload_is_refused() {
    for (format, first, sample) in samples() {
        let mut feed = Feed::new(&format);
        feed.put(r#"{"id":1}"#, &first);
        for behind in [" x", "}", ",", "]", "\0"] {
            feed.refused(r#"{"id":1}"#, &format!("{sample}{behind}"));
            let inside = sample.strip_suffix('}').unwrap();
            feed.refused(r#"{"id":1}"#, &format!("{inside}{behind}}}"));
        }
        feed.put(r#"{"id":1}"#, &format!(" {sample}\n"));
    }
}

#[test]
fn names_that_are_values_do_not_make_columns_without_end() {
    let mut feed = Feed::json(JsonFormat::default());
    let row = |from: u32, to: u32| {
        let members: Vec<String> = (from..to).map(|n| format!("\"m{n}\":1")).collect();
        format!("{{{}}}", members.join(","))
    };
    feed.put("", &row(0, 1_500));
    assert!(feed.refused("", &row(1_500, 2_001)).contains("more than 2000 columns"));
    feed.put("", &row(1_500, 2_000));
    assert!(feed.refused("", "{\"more\":1}").contains("more than 2000 columns"));
    assert_eq!(feed.close().rows.num_columns(), 2_003);
}

#[test]
fn errors_say_nothing_of_values() {
    let mut feed = Feed::new(&json());
    for text in [
        r#"{"id":"secret"}"#,
        r#"{"id":1,"d":"secret"}"#,
        r#"{"id":1,"t":["secret"]}"#,
        "secret",
        r#"{"id":1} secret"#,
        r#"{"id":1,"m":{"secret":"secret"}}"#,
    ] {
        let reason = feed.refused("", text);
        assert!(!reason.contains("secret"), "{reason}");
    }
}
