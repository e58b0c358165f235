//! The parsers of messages, schemas and answers, for tests/fuzz.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use philotes_sdk::{ErrorKind, Offset, StreamName};

use crate::config::{FormatConfig, MetadataColumn};
use crate::decode::{Appended, OpenBatch, TopicDecoder, parse_type};
use crate::message::{Header, Message};
use crate::offset::{GroupMark, Lineage, TableOffset};
use crate::registry::{Language, Registry};
use crate::{oauth, regex, registry};

const TOPIC: &str = "t";

/// Formats without a registry.
const FORMATS: [&str; 6] = [
    r#"{"type": "json"}"#,
    r#"{"type": "json", "columns": {"a": "long", "b": "decimal(18,2)", "c": "timestamptz", "d": "list<struct<x: date, y: map<double>>>",
        "e": "uuid", "f": "binary", "g": "time_millis", "h": "json"}}"#,
    r#"{"type": "json", "key": ["a"], "others": "drop", "columns": {"a": "string", "b": "json_text", "c": "decimal_base64(9,3)"}}"#,
    r#"{"type": "connect-json"}"#,
    r#"{"type": "debezium-json"}"#,
    r#"{"type": "raw"}"#,
];

/// Formats with one, by the language of its schemas.
const REGISTERED: [(Language, &str); 6] = [
    (Language::Avro, r#"{"type": "avro"}"#),
    (Language::Avro, r#"{"type": "avro", "key": ["a"]}"#),
    (Language::Avro, r#"{"type": "avro", "envelope": "debezium"}"#),
    (Language::JsonSchema, r#"{"type": "json-schema"}"#),
    (Language::JsonSchema, r#"{"type": "json-schema", "key": ["a"]}"#),
    (Language::JsonSchema, r#"{"type": "json-schema", "envelope": "debezium"}"#),
];

/// Messages of one topic: the first byte says of which format, then keys and values, each up to a NUL.
pub fn messages(input: &[u8]) {
    let Some((format, rest)) = input.split_first() else { return };
    let mut parts = rest.split(|byte| *byte == 0).map(|part| Some(part).filter(|part| !part.is_empty()));
    let pairs = std::iter::from_fn(|| Some((parts.next()?, parts.next().flatten())));
    decode(FORMATS[usize::from(*format) % FORMATS.len()], None, pairs);
}

/// Messages by a schema of a registry: the first byte says of which format, two bytes how long the schema is, which follows; then
/// keys and values, each behind a byte that says how long it is.
pub fn registered(input: &[u8]) {
    static REGISTRY: LazyLock<(tokio::runtime::Runtime, Arc<Registry>)> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let config = serde_json::from_str(r#"{"url": "http://127.0.0.1:9"}"#).expect("a configuration");
        let registry = Registry::new(&config, runtime.handle().clone()).expect("a client");
        (runtime, Arc::new(registry))
    });
    let Some(([format, length @ ..], rest)) = input.split_first_chunk::<3>() else { return };
    let Some((schema, mut rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else { return };
    let Ok(schema) = std::str::from_utf8(schema) else { return };
    let (language, format) = REGISTERED[usize::from(*format) % REGISTERED.len()];
    REGISTRY.1.knows_only(1, language, schema, &format!("{TOPIC}-value"));
    let mut messages = Vec::new();
    while let Some((length, after)) = rest.split_first() {
        let (message, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        // With the schema's id in front, as clients write it.
        messages.push(Some([&[0, 0, 0, 0, 1], message].concat()).filter(|_| !message.is_empty()));
    }
    let pairs = messages.chunks(2).map(|pair| (pair[0].as_deref(), pair.get(1).and_then(Option::as_deref)));
    decode(format, Some(&REGISTRY.1), pairs);
}

fn decode<'a>(
    format: &str,
    registry: Option<&Arc<Registry>>,
    messages: impl Iterator<Item = (Option<&'a [u8]>, Option<&'a [u8]>)>,
) {
    let format: FormatConfig = serde_json::from_str(format).expect("a format");
    let stream = StreamName::new([TOPIC]).expect("a name");
    let columns = [MetadataColumn::Key, MetadataColumn::Headers];
    let mut decoder = TopicDecoder::new(stream, &format, &columns, registry).expect("a decoder");
    let mut batch = OpenBatch::default();
    for (offset, (key, value)) in (0..).zip(messages) {
        let headers = [Header { name: "h", value: key }];
        let message = Message {
            topic: TOPIC,
            partition: 0,
            offset,
            timestamp_millis: Some(1_700_000_000_123),
            key,
            value,
            headers: &headers,
        };
        let mut appended = decoder.append(&mut batch, &message);
        if matches!(appended, Ok(Appended::CloseFirst)) {
            decoder.close(&mut batch).expect("the rows that were taken make a batch");
            appended = decoder.append(&mut batch, &message);
            assert!(!matches!(appended, Ok(Appended::CloseFirst)), "a row fits an empty batch");
        }
        if let Err(error) = appended {
            assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        }
    }
    decoder.close(&mut batch).expect("the rows make a batch");
}

/// Types of the configuration, offsets, marks of consumer groups, tokens, answers of a registry, its address.
pub fn texts(input: &str) {
    let _ = parse_type(input);
    if let Ok(offset) = Offset::new(input)
        && let Ok(offset) = TableOffset::read(&offset)
    {
        let _ = offset.write();
    }
    let _ = GroupMark::read(input, &Lineage { cluster: "c".to_owned(), topic_id: None });
    let _ = oauth::granted(input.as_bytes(), SystemTime::UNIX_EPOCH);
    let _ = oauth::subject(input);
    let _ = registry::server(input);
    registry::parse_answer(input.as_bytes());
    let _ = regex::fault(input);
}
