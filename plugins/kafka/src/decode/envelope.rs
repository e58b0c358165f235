//! What Kafka Connect's JSON converter wraps a value in: {"schema": …, "payload": …}.

use philotes_sdk::json::{Entry, Scanner, Value};

use super::Refusal;

/// A schema in its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SchemaText<'a> {
    /// The one that was before.
    Known,
    Other(&'a str),
    /// None: null.
    Null,
}

/// A message's value or key, unwrapped.
pub(super) struct Unwrapped<'a> {
    pub(super) schema: SchemaText<'a>,
    /// The payload's text.
    pub(super) payload: &'a str,
}

/// Unwraps a text; `None` where it is nothing of this kind, and has to be read as what it is from its begin. `known` is the schema that was
/// before: it is compared, not read.
pub(super) fn unwrap<'a>(text: &'a str, known: &str) -> Result<Option<Unwrapped<'a>>, Refusal> {
    let mut scanner = Scanner::new(text);
    if !matches!(scanner.next_byte(), None | Some(b'{')) {
        return Ok(None);
    }
    scanner.open(b'{')?;
    let (mut schema, mut payload) = (None, None);
    let mut expected: &[u8] = b"\"schema\":";
    while let Some(entry) = scanner.entry(expected)? {
        let is_schema = match &entry {
            Entry::Expected => expected == b"\"schema\":",
            Entry::Other(key) if key == "schema" => true,
            Entry::Other(key) if key == "payload" => false,
            Entry::Other(_) => return Ok(None),
        };
        let twice = if is_schema {
            let text = if scanner.pass(known) { SchemaText::Known } else { schema_text(&mut scanner)? };
            schema.replace(text).is_some()
        } else {
            payload.replace(scanner.raw()?).is_some()
        };
        if twice {
            return Err(Refusal::new("`schema` or `payload` twice"));
        }
        expected = b"\"payload\":";
    }
    scanner.end()?;
    Ok(match (schema, payload) {
        (Some(schema), Some(payload)) => Some(Unwrapped { schema, payload }),
        _ => None,
    })
}

fn schema_text<'a>(scanner: &mut Scanner<'a>) -> Result<SchemaText<'a>, Refusal> {
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
        let unwrapped = |text| unwrap(text, known).map(|found| found.map(|found| (found.schema, found.payload)));
        for (text, expected) in [
            (r#"{"schema":{"type":"string"},"payload":"x"}"#, Some((SchemaText::Known, "\"x\""))),
            (
                r#" {"payload" : [1] , "schema" : {"type":"int32"} } "#,
                Some((SchemaText::Other(r#"{"type":"int32"}"#), "[1]")),
            ),
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
