//! The sdk's JSON scanner, held against serde_json, and its numbers, times, names and quantities.

use philotes_sdk::json::time::{self, Zone};
use philotes_sdk::json::{MAX_DEPTH, Scanner, Value, scalar};
use philotes_sdk::{Offset, StreamName, glob, quantity};

/// One value and the end: a text is JSON for the scanner where it is for serde_json.
pub(crate) fn scanner(text: &str) {
    let mut scanner = Scanner::new(text);
    let value = scanner.value().and_then(|value| scanner.end().map(|()| value));
    let valid = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    // What is passed over may be half a surrogate pair there, and as deep as it likes.
    let open = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let lenient = text.contains("\\u") || open > MAX_DEPTH;
    assert!(value.is_ok() == valid || (valid && lenient), "{text:?}: {value:?}, and {valid} by serde_json");
    match value {
        Ok(Value::Nested(nested)) => walk(nested, 0),
        Ok(value) => drop(value.scalar().expect("what the scanner gave has valid escapes")),
        Err(_) => {}
    }
}

fn walk(text: &str, depth: usize) {
    if depth == 64 {
        return;
    }
    let object = text.starts_with('{');
    let mut scanner = Scanner::enter(text, if object { b'{' } else { b'[' }).expect("it was open");
    loop {
        let more = if object {
            scanner.entry(b"\"a\":").expect("its keys were passed before").is_some()
        } else {
            scanner.another().expect("its elements were passed before")
        };
        if !more {
            break;
        }
        if let Value::Nested(nested) = scanner.value().expect("its values were passed before") {
            walk(nested, depth + 1);
        }
    }
    scanner.end().expect("its end was seen before");
}

/// Numbers, times and uuids out of texts.
pub(crate) fn values(text: &str) {
    for (precision, scale) in [(38, 0), (38, 38), (9, 2), (1, 0)] {
        if let Ok(unscaled) = scalar::decimal(text, precision, scale) {
            assert!(unscaled.unsigned_abs() < 10_u128.pow(precision.into()));
        }
    }
    let _ = (scalar::integer(text), scalar::float(text, true), scalar::float(text, false), scalar::uuid(text));
    let _ = (scalar::places(text), scalar::survives_double(text));
    let _ = (time::date(text), time::time(text), time::timestamp_text(text));
    for zone in [Zone::With, Zone::Without, Zone::Utc] {
        let _ = time::timestamp(text, zone);
    }
}

/// Names of streams, patterns, durations and sizes, offsets.
pub(crate) fn names(text: &str) {
    if let Ok(name) = text.parse::<StreamName>() {
        assert_eq!(name.to_string().parse::<StreamName>().ok(), Some(name));
    }
    let _ = (quantity::duration(text), quantity::size(text), Offset::new(text));
    let (pattern, name) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let _ = glob(pattern, name);
}
