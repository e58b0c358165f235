//! Values out of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use philotes_sdk::json::{Entry, Scanner, Value, token};

use super::Refusal;
use super::kind::{Digits, Kind, Text};
use super::values::{Values, WRONG_TYPE};

const TWICE: Refusal = Refusal::new("an object in it has a member twice");

/// Appends a value as it stands in JSON. After an error the values are to be truncated.
#[inline]
pub(super) fn append(values: &mut Values, value: Value<'_>) -> Result<(), Refusal> {
    match value {
        Value::Null => {
            values.push_null();
            Ok(())
        }
        Value::Number(digits) => values.push_digits(digits),
        Value::String(text) => append_text(values, text, text),
        Value::Escaped(raw) => {
            let text = value.scalar()?.unwrap_or_default();
            append_text(values, &text, raw)
        }
        Value::Bool(truth) => append_boolean(values, truth),
        Value::Nested(text) => append_nested(values, text),
    }
}

fn append_boolean(values: &mut Values, truth: bool) -> Result<(), Refusal> {
    match values.kind() {
        Kind::String(Text::Itself) | Kind::Json => values.push_text(if truth { "true" } else { "false" }),
        _ => values.push_boolean(truth),
    }
}

/// `raw` is the text with its escapes.
#[inline]
fn append_text(values: &mut Values, text: &str, raw: &str) -> Result<(), Refusal> {
    match values.kind() {
        Kind::Binary | Kind::Decimal(_, _, Digits::Bytes) | Kind::String(Text::Bits(_)) => {
            let bytes = STANDARD.decode(text).map_err(|_| Refusal::new("not base64"))?;
            values.push_bytes(&bytes)
        }
        // A JSON string stays one: the column holds JSON, not its text.
        Kind::Json => values.push_text(&format!("\"{raw}\"")),
        _ => values.push_text(text),
    }
}

fn append_nested(values: &mut Values, text: &str) -> Result<(), Refusal> {
    match values.kind() {
        Kind::String(Text::Itself) | Kind::Json => values.push_text(text),
        Kind::JsonText => values.push_text(text),
        Kind::String(Text::VariableScale) => append_variable_scale(values, text),
        Kind::List(_) => append_list(values, text),
        Kind::Map(..) => append_map(values, text),
        Kind::Struct(_) => append_struct(values, text),
        _ => Err(WRONG_TYPE),
    }
}

fn append_list(values: &mut Values, text: &str) -> Result<(), Refusal> {
    let mut scanner = Scanner::enter(text, b'[').map_err(|_| Refusal::new("not an array"))?;
    let elements = values.elements()?;
    while let Some(element) = scanner.element()? {
        append(elements, element)?;
    }
    values.end_list()
}

/// An object, or an array of pairs, as Kafka Connect prints a map whose keys are no strings.
fn append_map(values: &mut Values, text: &str) -> Result<(), Refusal> {
    if text.starts_with('[') {
        return append_pairs(values, text);
    }
    let mut scanner = Scanner::enter(text, b'{').map_err(|_| Refusal::new("not an object"))?;
    let (keys, items) = values.entries()?;
    let start = keys.len();
    while let Some(Entry::Other(key)) = scanner.entry(b"")? {
        keys.push_text(&key)?;
        append(items, scanner.value()?)?;
    }
    if keys.repeats_from(start) {
        return Err(TWICE);
    }
    values.end_map()
}

fn append_pairs(values: &mut Values, text: &str) -> Result<(), Refusal> {
    const NO_PAIR: Refusal = Refusal::new("not an array of pairs of key and value");
    let mut pairs = Scanner::enter(text, b'[')?;
    let (keys, items) = values.entries()?;
    while pairs.another()? {
        pairs.open(b'[').map_err(|_| NO_PAIR)?;
        let key = pairs.element()?.filter(|key| *key != Value::Null).ok_or(NO_PAIR)?;
        append(keys, key)?;
        append(items, pairs.element()?.ok_or(NO_PAIR)?)?;
        if pairs.another()? {
            return Err(NO_PAIR);
        }
    }
    values.end_map()
}

fn append_struct(values: &mut Values, text: &str) -> Result<(), Refusal> {
    let mut scanner = Scanner::enter(text, b'{').map_err(|_| Refusal::new("not an object"))?;
    let len = values.len();
    let (members, tokens) = values.members()?;
    // They come in their order, most often.
    let mut position = 0;
    loop {
        let expected = tokens.get(position).map_or(&[][..], |token| token);
        let Some(entry) = scanner.entry(expected)? else { break };
        if let Entry::Other(key) = entry {
            let key = token(&key);
            let Some(found) = tokens.iter().position(|token| *token == key) else {
                return Err(Refusal::new("a member that the struct has not"));
            };
            position = found;
        }
        let member = &mut members[position];
        if member.len() > len {
            return Err(TWICE);
        }
        append(member, scanner.value()?)?;
        position += 1;
    }
    values.end_struct()
}

/// `{"scale": 3, "value": "base64"}`.
fn append_variable_scale(values: &mut Values, text: &str) -> Result<(), Refusal> {
    const NO_DECIMAL: Refusal = Refusal::new("not a decimal with a scale of its own");
    let mut scanner = Scanner::enter(text, b'{').map_err(|_| NO_DECIMAL)?;
    let (mut scale, mut unscaled) = (None, None);
    while let Some(Entry::Other(key)) = scanner.entry(b"")? {
        match (&*key, scanner.value()?) {
            ("scale", Value::Number(digits)) => scale = digits.parse::<i32>().ok(),
            ("value", Value::String(text)) => unscaled = STANDARD.decode(text).ok(),
            _ => return Err(NO_DECIMAL),
        }
    }
    values.push_variable_scale(&unscaled.ok_or(NO_DECIMAL)?, scale.ok_or(NO_DECIMAL)?)
}
