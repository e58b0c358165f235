//! Random objects, as serde_json prints them, on two partitions, with broken ones in between: every value is in its row.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1_000_i64..1_000).prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        (-100_000_i32..100_000).prop_map(|n| (f64::from(n) / 64.0).into()),
        "\\PC{0,8}".prop_map(Into::into),
    ];
    prop_oneof![
        4 => leaf.clone(),
        1 => prop::collection::vec(leaf.clone(), 0..3).prop_map(Into::into),
        1 => prop::collection::hash_map("[a-c]", leaf, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
    ]
}

type Row = HashMap<String, Value>;

/// A partition, the row, and where its text is broken off.
fn message() -> impl Strategy<Value = (usize, Row, Option<prop::sample::Index>)> {
    let row = prop::collection::hash_map("[a-f]", value(), 0..6);
    (0..2_usize, row, prop::option::weighted(0.2, any::<prop::sample::Index>()))
}

/// Whether what a column shows is the value.
fn shows(value: Option<&Value>, shown: &str, text: bool) -> bool {
    match value {
        None | Some(Value::Null) => shown == "-",
        Some(Value::String(string)) => shown == string,
        Some(Value::Bool(truth)) => shown.parse() == Ok(*truth),
        Some(Value::Number(number)) if number.is_f64() => shown.parse::<f64>().ok() == number.as_f64(),
        Some(Value::Number(number)) if text => {
            // A number that was a double first may have its digits printed as one.
            shown == number.to_string() || shown.parse::<f64>().ok() == number.as_f64()
        }
        Some(Value::Number(number)) => {
            let whole = shown.split_once('.').map_or(shown, |(whole, fraction)| {
                if fraction.trim_end_matches('0').is_empty() { whole } else { shown }
            });
            whole == number.to_string() || (shown.contains('e') && shown.parse::<f64>().ok() == number.as_f64())
        }
        // As text: a value is equal to a text only where it is one.
        Some(nested) => format!("{nested}") == shown,
    }
}

proptest! {
    #[test]
    fn every_value_is_in_its_row(messages in prop::collection::vec(message(), 1..30)) {
        let mut feed = Feed::json(JsonFormat::default());
        let mut rows: [Vec<&Row>; 2] = [Vec::new(), Vec::new()];
        for (partition, row, broken) in &messages {
            feed.partition = *partition;
            let text = serde_json::to_string(row).unwrap();
            if let Some(broken) = broken {
                let end = (0..=broken.index(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap();
                feed.refused("", &text[..end]);
                continue;
            }
            feed.put("", &text);
            rows[*partition].push(row);
        }
        for (partition, rows) in rows.iter().enumerate() {
            let Some(built) = feed.decoder.close(&mut feed.batches[partition]).unwrap() else {
                prop_assert!(rows.is_empty());
                continue;
            };
            prop_assert_eq!(built.rows.num_rows(), rows.len());
            for name in ["a", "b", "c", "d", "e", "f"] {
                if built.rows.column_by_name(name).is_none() {
                    prop_assert!(rows.iter().all(|row| row.get(name).is_none_or(Value::is_null)), "{}", name);
                    continue;
                }
                let text = kind_of(&built, name) == DataType::Utf8;
                for (row, shown) in rows.iter().zip(printed(&built, name)) {
                    let value = row.get(name);
                    // A text may be what stands for null here.
                    prop_assert!(shows(value, &shown, text), "{} {:?} is {}", name, value, shown);
                }
            }
        }
    }
}
