//! Bytes that are not what the schema says: a refusal each time, never a panic, and no memory for what is not there.

use serde_json::json;

use super::*;

fn everything() -> Value {
    json!({"type": "record", "name": "r", "fields": [
        {"name": "b", "type": "boolean"},
        {"name": "i", "type": "int"},
        {"name": "s", "type": ["null", "string"]},
        {"name": "e", "type": {"type": "enum", "name": "e", "symbols": ["A", "B"]}},
        {"name": "f", "type": {"type": "fixed", "name": "f", "size": 3}},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "u", "type": ["int", "string"]},
        {"name": "l", "type": {"type": "array", "items": {"type": "record", "name": "p", "fields": [
            {"name": "x", "type": "double"}, {"name": "y", "type": ["null", "float"]}]}}},
        {"name": "m", "type": {"type": "map", "values": {"type": "array", "items": "string"}}}]})
}

/// One value of it, written by hand.
fn bytes() -> Vec<u8> {
    let mut bytes = vec![1, 2, 2, 4, b'h', b'i', 2, 7, 8, 9, 4, 0x04, 0xd2, 2, 2, b'z', 2];
    bytes.extend(1.5_f64.to_le_bytes());
    bytes.push(2);
    bytes.extend(0.5_f32.to_le_bytes());
    bytes.extend([0, 2, 2, b'k', 2, 2, b'v', 0, 0]);
    bytes
}

const PRINTED: &str = "{b: true, i: 1, s: hi, e: B, f: 070809, d: 12.34, u: {int: null, string: z}, \
                       l: [{x: 1.5, y: 0.5}], m: {k: [v]}}";

#[test]
fn a_value_that_breaks_off_leaves_nothing() {
    let plan = plan(&everything());
    let mut values = Values::new(&plan.kind);
    append(&plan, &bytes(), &mut values).unwrap();
    for length in 0..bytes().len() {
        append(&plan, &bytes()[..length], &mut values).unwrap_err();
        assert_eq!(values.len(), 1);
    }
    append(&plan, &bytes(), &mut values).unwrap();
    assert_eq!(printed(&values.finish().unwrap()), [PRINTED, PRINTED]);
}

#[test]
fn any_byte_may_be_another_one() {
    let plan = plan(&everything());
    let of = parse(&everything()).unwrap();
    let mut values = Values::new(&plan.kind);
    let mut taken = 0;
    for index in 0..bytes().len() {
        for byte in 0..=255 {
            let mut changed = bytes();
            changed[index] = byte;
            let before = values.len();
            let mut rest = Bytes::new(&changed);
            let appended = plan.append(&mut rest, &mut values);
            let mut skipped = Bytes::new(&changed);
            let skip = skipped.skip(&of);
            match appended {
                // Whatever is read is also read over, and both end at the same place.
                Ok(()) => {
                    skip.unwrap();
                    assert_eq!(rest.0.len(), skipped.0.len());
                    taken += 1;
                }
                Err(_) => values.truncate(before),
            }
        }
    }
    assert_eq!(values.len(), taken);
    assert_eq!(printed(&values.finish().unwrap()).len(), taken);
}

#[test]
fn what_is_refused() {
    let long = |value: i64| {
        let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
        let mut bytes = Vec::new();
        while zigzag >= 0x80 {
            bytes.push((zigzag & 0x7f) as u8 | 0x80);
            zigzag >>= 7;
        }
        bytes.push(zigzag as u8);
        bytes
    };
    let array = json!({"type": "array", "items": "long"});
    let nulls = json!({"type": "array", "items": "null"});
    let nested = json!({"type": "array", "items": nulls});
    let nested_nulls = [long(3), long(60_000), long(0), long(60_000), long(0), long(0), long(0)].concat();
    let map = json!({"type": "map", "values": "int"});
    let union = json!(["null", "long"]);
    let several = json!(["null", "long", "string"]);
    let of_enum = json!({"type": "enum", "name": "e", "symbols": ["A", "B"]});
    for (schema, bytes, words) in [
        (&array, long(1 << 60), "more items than the value has bytes"),
        (&nulls, long(1 << 60), "more items than the value has bytes"),
        (&map, long(1 << 60), "more items than the value has bytes"),
        (&nulls, [long(60_000), long(60_000), long(0)].concat(), "more items than the value has bytes"),
        (&nested, nested_nulls, "more items than the value has bytes"),
        (&array, [long(-1), long(i64::MAX), long(0)].concat(), "ends before it should"),
        (&array, [long(-1), long(-1), long(0)].concat(), "ends before it should"),
        (&array, long(i64::MIN), "ends before it should"),
        (&json!("string"), long(1 << 60), "ends before it should"),
        (&json!("bytes"), long(i64::MAX), "ends before it should"),
        (&json!("bytes"), long(-1), "a length below zero"),
        (&json!("string"), vec![4, 0xc3, 0x28], "not UTF-8"),
        (&map, vec![2, 2, 0xff, 0, 0], "not UTF-8"),
        (&union, vec![4], "branch 2 of 2"),
        (&union, vec![1], "branch -1 of 2"),
        (&several, vec![6], "branch 3 of 3"),
        (&of_enum, vec![4], "symbol 2 of 2"),
        (&of_enum, vec![1], "symbol -1 of 2"),
        (&json!("boolean"), vec![2], "neither 0 nor 1"),
        (&json!("int"), long(1 << 31), "more than 32 bits"),
        (&json!("long"), vec![0xff; 10], "more than 64 bits"),
        (&json!("long"), vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "more than 64 bits"),
        (&json!("long"), vec![0x80; 9], "ends before it should"),
    ] {
        let refusal = read(schema, &[&bytes]).unwrap_err();
        assert!(refusal.reason.contains(words), "{schema} {bytes:?}: {}", refusal.reason);
        // Reading over refuses the same.
        let refusal = Bytes::new(&bytes).skip(&parse(schema).unwrap()).unwrap_err();
        assert!(refusal.reason.contains(words), "{schema} {bytes:?}: {}", refusal.reason);
    }
}

#[test]
fn a_refusal_names_the_column() {
    let schema = json!({"type": "record", "name": "r", "fields": [
        {"name": "a", "type": {"type": "record", "name": "s", "fields": [{"name": "b", "type": ["null", "boolean"]}]}}]});
    let refusal = read(&schema, &[&[2, 7]]).unwrap_err();
    assert_eq!(refusal.column.as_deref(), Some("a.b"));
}
