//! What Kafka Connect's JSON converter wraps a value in: {"schema": …, "payload": …}.

use philotes_sdk::json::{Entry, Scanner, Value};

use super::{Refusal, utf8};

/// A schema in its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SchemaText<'a> {
    /// The one that was before.
    Known,
    Other(&'a str),
    /// None: null.
    Null,
}

/// A message's value or key.
pub(super) enum Found<'a> {
    /// A schema and the payload's text, whose reader has to see that it ends where it should.
    Wrapped(SchemaText<'a>, &'a str),
    /// Nothing of this kind: it has to be read as what it is from its begin.
    Bare(&'a str),
}

/// Unwraps a text. `known` is the schema that was before: it is compared, not read.
pub(super) fn unwrap<'a>(bytes: &'a [u8], known: &str) -> Result<Found<'a>, Refusal> {
    if let Some(rest) = behind_known(bytes, known) {
        let payload =
            utf8(rest)?.trim_end().strip_suffix('}').ok_or(Refusal::new("its JSON is broken: it ends too early"))?;
        return Ok(Found::Wrapped(SchemaText::Known, payload.trim()));
    }
    let text = utf8(bytes)?;
    let mut scanner = Scanner::new(text);
    if !matches!(scanner.next_byte(), None | Some(b'{')) {
        return Ok(Found::Bare(text));
    }
    scanner.open(b'{')?;
    let (mut schema, mut payload) = (None, None);
    while let Some(entry) = scanner.entry(SCHEMA)? {
        let twice = match &entry {
            Entry::Expected => schema.replace(schema_text(&mut scanner, known)?).is_some(),
            Entry::Other(key) if key == "schema" => schema.replace(schema_text(&mut scanner, known)?).is_some(),
            Entry::Other(key) if key == "payload" => payload.replace(scanner.raw()?).is_some(),
            Entry::Other(_) => return Ok(Found::Bare(text)),
        };
        if twice {
            return Err(Refusal::new("`schema` or `payload` twice"));
        }
    }
    scanner.end()?;
    Ok(match (schema, payload) {
        (Some(schema), Some(payload)) => Found::Wrapped(schema, payload),
        _ => Found::Bare(text),
    })
}

const SCHEMA: &[u8] = b"\"schema\":";

/// What follows a schema that is known and `payload`'s name, written as Kafka Connect does: neither is read.
fn behind_known<'a>(bytes: &'a [u8], known: &str) -> Option<&'a [u8]> {
    if known.is_empty() {
        return None;
    }
    let rest = bytes.strip_prefix(b"{")?.strip_prefix(SCHEMA)?.strip_prefix(known.as_bytes())?;
    rest.strip_prefix(b",\"payload\":")
}

fn schema_text<'a>(scanner: &mut Scanner<'a>, known: &str) -> Result<SchemaText<'a>, Refusal> {
    if scanner.pass(known) {
        return Ok(SchemaText::Known);
    }
    match scanner.value()? {
        Value::Null => Ok(SchemaText::Null),
        Value::Nested(text) => Ok(SchemaText::Other(text)),
        _ => Err(Refusal::new("its `schema` is no schema of Kafka Connect's JSON converter")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_envelopes_are_unwrapped() {
        let known = r#"{"type":"string"}"#;
        let unwrapped = |text: &'static str| {
            unwrap(text.as_bytes(), known).map(|found| match found {
                Found::Wrapped(schema, payload) => Some((schema, payload)),
                Found::Bare(_) => None,
            })
        };
        for (text, expected) in [
            (r#"{"schema":{"type":"string"},"payload":"x"}"#, Some((SchemaText::Known, "\"x\""))),
            (
                r#" {"payload" : [1] , "schema" : {"type":"int32"} } "#,
                Some((SchemaText::Other(r#"{"type":"int32"}"#), "[1]")),
            ),
            (r#"{"schema":{"type":"string"},"payload": {"a":1} } "#, Some((SchemaText::Known, r#"{"a":1}"#))),
            (r#"{"schema":null,"payload":null}"#, Some((SchemaText::Null, "null"))),
            (r#"{"schema":{},"payload":1,"x":1}"#, None),
            (r#"{"payload":1}"#, None),
            (r#"{"id":1}"#, None),
            ("7", None),
        ] {
            assert_eq!(unwrapped(text), Ok(expected), "{text}");
        }
        for broken in [
            "",
            "{",
            r#"{"schema":{"type":"string"},"payload":1"#,
            r#"{"schema":1,"payload":1}"#,
            r#"{"schema":{},"schema":{}}"#,
        ] {
            assert!(unwrapped(broken).is_err(), "{broken}");
        }
    }
}
