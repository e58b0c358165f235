//! The bytes of what Debezium sends in the place of a value that it was not sent itself.
//!
//! Its forms are those of [`Unavailable`]; here they are compared as they were written, before a value is read.

use philotes_sdk::json::token;

use super::plan::{Choice, Plan, Read};
use crate::decode::unavailable::Unavailable;

/// The values of a type that stand for one that was not sent, as they are written: none is the begin of another value.
pub(super) fn forms(plan: &Plan, unavailable: &Unavailable) -> Vec<Vec<u8>> {
    let text = unavailable.text();
    // As a key of JSON with its colon, and as a text of JSON.
    let key = String::from_utf8_lossy(&token(text)).into_owned();
    let map = format!("{{{key}{}}}", key.trim_end_matches(':'));
    let values = match &plan.read {
        Read::Text => vec![counted(text.as_bytes()), counted(map.as_bytes())],
        Read::Bytes => vec![counted(text.as_bytes())],
        Read::List { item, .. } => {
            let lists = match &item.read {
                Read::Text => vec![vec![counted(text.as_bytes())], vec![counted(unavailable.uuid().as_bytes())]],
                Read::Bytes => vec![vec![counted(text.as_bytes())]],
                Read::Int | Read::Long => vec![text.bytes().map(|byte| long(byte.cast_signed().into())).collect()],
                _ => Vec::new(),
            };
            lists.iter().map(|items| list(items, &branch(item))).collect()
        }
        Read::Map(value) if matches!(value.read, Read::Text) => {
            let text = counted(text.as_bytes());
            vec![[long(1), text.clone(), branch(value), text, long(0)].concat()]
        }
        _ => Vec::new(),
    };
    let branch = branch(plan);
    values.into_iter().map(|value| [branch.clone(), value].concat()).collect()
}

/// What comes before a value that is not null.
fn branch(plan: &Plan) -> Vec<u8> {
    let Some(Choice { null, branches }) = &plan.union else { return Vec::new() };
    let there = (0..*branches).find(|branch| Some(*branch) != *null).unwrap_or_default();
    long(i64::try_from(there).unwrap_or_default())
}

/// An array in one block, as Java's encoder writes it.
fn list(items: &[Vec<u8>], before: &[u8]) -> Vec<u8> {
    let mut bytes = long(i64::try_from(items.len()).unwrap_or_default());
    for item in items {
        bytes.extend_from_slice(before);
        bytes.extend_from_slice(item);
    }
    bytes.push(0);
    bytes
}

/// Bytes and their length.
fn counted(bytes: &[u8]) -> Vec<u8> {
    [long(i64::try_from(bytes.len()).unwrap_or_default()), bytes.to_vec()].concat()
}

fn long(value: i64) -> Vec<u8> {
    let mut zigzag = (value << 1 ^ value >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    loop {
        let [low, ..] = zigzag.to_le_bytes();
        zigzag >>= 7;
        if zigzag == 0 {
            bytes.push(low & 0x7f);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
