//! The key of a row that is gone, where the message's own key is all that is said of it: that of a tombstone, or of Debezium's DELETE
//! whose table tells nothing of the row before. The other columns were not sent.

use philotes_sdk::json::{Entry, Scanner, Value};

use super::batch::OpenBatch;
use super::{Refusal, utf8};
use crate::message::Message;

/// The key's text, where a message without a value deletes a row.
pub(super) fn of_tombstone<'a>(message: &Message<'a>, key: &[String]) -> Result<&'a str, Refusal> {
    if key.is_empty() {
        return Err(Refusal::new(
            "a message without a value, which deletes the row of its key; the format's `key` does not say which columns that are",
        ));
    }
    let bytes = message.key.ok_or(Refusal::new("a message with neither a value nor a key"))?;
    utf8(bytes)
}

/// Appends the key columns: an object with their names, or a lone value where there is one of them, in JSON or as plain text.
pub(super) fn append(batch: &mut OpenBatch, text: &str) -> Result<(), Refusal> {
    if text.trim_start().starts_with('{') {
        return append_object(batch, text);
    }
    let key = std::sync::Arc::clone(&batch.key);
    let [name] = &*key else {
        return Err(Refusal::new("the message's key is no JSON object with the key columns"));
    };
    let mut scanner = Scanner::new(text);
    let value = scanner.value().and_then(|value| scanner.end().map(|()| value)).unwrap_or(Value::String(text));
    append_member(batch, name, value)?;
    batch.leave_out_the_rest();
    Ok(())
}

/// Appends the key columns of an object; what else it has does not matter.
pub(super) fn append_object(batch: &mut OpenBatch, text: &str) -> Result<(), Refusal> {
    let mut scanner = Scanner::enter(text, b'{')?;
    while let Some(Entry::Other(name)) = scanner.entry(b"")? {
        let value = scanner.value()?;
        if batch.key.iter().any(|key| *key == name) {
            append_member(batch, &name, value)?;
        }
    }
    scanner.end()?;
    batch.leave_out_the_rest();
    Ok(())
}

fn append_member(batch: &mut OpenBatch, name: &str, value: Value<'_>) -> Result<(), Refusal> {
    match batch.index.get(name).copied() {
        Some(at) => batch.append(at, value),
        None => batch.append_new(name, value),
    }
}
