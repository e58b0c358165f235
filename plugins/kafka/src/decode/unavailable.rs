//! What Debezium sends in the place of a value that it was not sent itself: PostgreSQL leaves unchanged TOASTed values out.
//!
//! The placeholder is a text. Depending on the column it comes as itself, as its bytes, as an array of the one or the other, as an array
//! of its bytes' numbers, as a map from itself to itself, or as an array of the uuid that its MD5 makes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use philotes_sdk::json::{Value, token};

use super::column::Column;
use super::kind::Kind;

/// The placeholder in each of its forms.
pub(crate) struct Unavailable {
    text: String,
    base64: String,
    /// Arrays and maps, without white space.
    nested: Vec<String>,
    /// The map as a text that holds JSON, as it stands between quotes.
    escaped: String,
}

impl Unavailable {
    pub(crate) fn new(text: &str) -> Self {
        // In quotes, and as a key.
        let key = String::from_utf8_lossy(&token(text)).into_owned();
        let quoted = key.trim_end_matches(':');
        let base64 = STANDARD.encode(text);
        let numbers: Vec<String> = text.bytes().map(|byte| byte.cast_signed().to_string()).collect();
        let map = format!("{{{key}{quoted}}}");
        let nested = vec![
            format!("[{quoted}]"),
            format!("[\"{base64}\"]"),
            format!("[{}]", numbers.join(",")),
            map.clone(),
            format!("[\"{}\"]", uuid(text)),
        ];
        let escaped = map.replace('\\', "\\\\").replace('"', "\\\"");
        Self { text: text.to_owned(), base64, nested, escaped }
    }

    /// The placeholder itself.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The uuid that stands for it in an array of uuids, in text.
    pub(crate) fn uuid(&self) -> String {
        uuid(&self.text)
    }

    /// Whether a value of a column stands for one that was not sent. In a column whose type is inferred, bytes are texts.
    #[inline]
    pub(super) fn is_in(&self, column: &Column, value: Value<'_>) -> bool {
        self.is(if column.spec.inferred { &Kind::Json } else { &column.spec.kind }, value)
    }

    /// The same by the column's kind.
    #[inline]
    pub(super) fn is(&self, kind: &Kind, value: Value<'_>) -> bool {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
            Value::String(text) => text == self.text || (text == self.base64 && *kind != Kind::STRING),
            Value::Escaped(raw) => raw == self.escaped,
            Value::Nested(text) => self.is_nested(text),
        }
    }

    fn is_nested(&self, text: &str) -> bool {
        let compact = || text.bytes().filter(|byte| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
        self.nested.iter().any(|form| compact().eq(form.bytes()))
    }
}

/// Java's `UUID.nameUUIDFromBytes`: version 3 of RFC 4122 without a name space.
fn uuid_bytes(text: &str) -> [u8; 16] {
    let mut bytes: [u8; 16] = Md5::digest(text).into();
    bytes[6] = bytes[6] & 0x0f | 0x30;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

fn uuid(text: &str) -> String {
    let mut uuid = String::with_capacity(36);
    for (at, byte) in uuid_bytes(text).iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            uuid.push('-');
        }
        uuid.push_str(&format!("{byte:02x}"));
    }
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forms as UnchangedToastedPlaceholder of Debezium 3 makes them; the uuid from `md5sum`.
    #[test]
    fn each_form_is_known() {
        let unavailable = Unavailable::new("__debezium_unavailable_value");
        let list = Kind::List(Box::new(Kind::Long));
        for (kind, value) in [
            (Kind::STRING, Value::String("__debezium_unavailable_value")),
            (Kind::Binary, Value::String("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")),
            (list.clone(), Value::Nested("[\"__debezium_unavailable_value\"]")),
            (list.clone(), Value::Nested("[ \"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\" ]")),
            (
                list.clone(),
                Value::Nested(
                    "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]",
                ),
            ),
            (Kind::JsonText, Value::Nested("{\"__debezium_unavailable_value\": \"__debezium_unavailable_value\"}")),
            (Kind::JsonText, Value::Escaped(r#"{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}"#)),
        ] {
            assert!(unavailable.is(&kind, value), "{value:?}");
        }
        // As `md5sum` prints it, with the version and the variant of RFC 4122 put in.
        let uuids = "[\"b68a35a7-17ad-35b3-af2a-ae46edb4545a\"]";
        assert!(unavailable.is(&list, Value::Nested(uuids)));
        for (kind, value) in [
            (Kind::STRING, Value::String("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")),
            (Kind::STRING, Value::Null),
            (list.clone(), Value::Nested("[]")),
            (list, Value::Nested("[95]")),
        ] {
            assert!(!unavailable.is(&kind, value), "{value:?}");
        }
    }
}
