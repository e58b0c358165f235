//! Random values of random schemas, written by apache-avro.

use apache_avro::types::Value as Avro;
use apache_avro::{Schema, to_avro_datum};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A schema, the values that may be written with it, and how those are printed.
type Written = (Value, BoxedStrategy<(Avro, String)>);

fn leaves() -> Vec<Written> {
    let of = |kind: &str, logical: &str| json!({"type": kind, "logicalType": logical});
    vec![
        (json!("boolean"), any::<bool>().prop_map(|v| (Avro::Boolean(v), v.to_string())).boxed()),
        (json!("int"), any::<i32>().prop_map(|v| (Avro::Int(v), v.to_string())).boxed()),
        (json!("long"), any::<i64>().prop_map(|v| (Avro::Long(v), v.to_string())).boxed()),
        (
            json!("double"),
            (-1_000_000..1_000_000)
                .prop_map(|v| {
                    let v = f64::from(v) / 64.0;
                    (Avro::Double(v), format!("{v:?}"))
                })
                .boxed(),
        ),
        (
            json!("float"),
            (-1000_i16..1000)
                .prop_map(|v| {
                    let v = f32::from(v) / 8.0;
                    (Avro::Float(v), format!("{v:?}"))
                })
                .boxed(),
        ),
        (json!("string"), "[a-zé€🦀]{0,12}".prop_map(|v| (Avro::String(v.clone()), v)).boxed()),
        (
            json!("bytes"),
            prop::collection::vec(any::<u8>(), 0..8)
                .prop_map(|v| {
                    let hex = v.iter().map(|byte| format!("{byte:02x}")).collect();
                    (Avro::Bytes(v), hex)
                })
                .boxed(),
        ),
        (
            of("int", "date"),
            (-700_000..2_900_000)
                .prop_map(|v: i32| {
                    let days = arrow::temporal_conversions::date32_to_datetime(v).unwrap();
                    (Avro::Date(v), days.date().to_string())
                })
                .boxed(),
        ),
        (
            of("string", "uuid"),
            any::<u128>().prop_map(|v| (Avro::Uuid(apache_avro::Uuid::from_u128(v)), format!("{v:032x}"))).boxed(),
        ),
    ]
}

/// A number that makes names unlike.
fn wrap(inner: Written, how: u8, name: usize) -> Written {
    let (schema, values) = inner;
    match how {
        0 => (
            json!({"type": "array", "items": schema}),
            prop::collection::vec(values, 0..4)
                .prop_map(|items| {
                    let (items, texts): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                    (Avro::Array(items), format!("[{}]", texts.join(", ")))
                })
                .boxed(),
        ),
        1 => (
            json!({"type": "map", "values": schema}),
            prop::option::of(("[a-z]{1,4}", values))
                .prop_map(|entry| {
                    let text = entry.iter().map(|(key, (_, text))| format!("{key}: {text}")).collect::<String>();
                    let entries = entry.into_iter().map(|(key, (value, _))| (key, value)).collect();
                    (Avro::Map(entries), format!("{{{text}}}"))
                })
                .boxed(),
        ),
        2 if schema.is_array() => (schema, values),
        2 => (
            json!(["null", schema]),
            prop::option::of(values)
                .prop_map(|value| match value {
                    Some((value, text)) => (Avro::Union(1, Box::new(value)), text),
                    None => (Avro::Union(0, Box::new(Avro::Null)), "null".to_owned()),
                })
                .boxed(),
        ),
        _ => (
            json!({"type": "record", "name": format!("r{name}"), "fields": [
                {"name": "before", "type": "int"}, {"name": "x", "type": schema}, {"name": "after", "type": "string"}]}),
            (any::<i32>(), values, "[a-z]{0,3}")
                .prop_map(|(before, (value, text), after)| {
                    let printed = format!("{{before: {before}, x: {text}, after: {after}}}");
                    let fields = vec![
                        ("before".to_owned(), Avro::Int(before)),
                        ("x".to_owned(), value),
                        ("after".to_owned(), Avro::String(after)),
                    ];
                    (Avro::Record(fields), printed)
                })
                .boxed(),
        ),
    }
}

fn written() -> impl Strategy<Value = (Value, Vec<(Avro, String)>)> {
    let leaf = (0..leaves().len()).prop_map(|index| leaves().remove(index));
    (leaf, prop::collection::vec(0..4_u8, 0..5)).prop_flat_map(|(leaf, wraps)| {
        let (schema, values) = wraps.into_iter().enumerate().fold(leaf, |inner, (name, how)| wrap(inner, how, name));
        (Just(schema), prop::collection::vec(values, 1..6))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_another_writer_wrote((schema, rows) in written()) {
        let writer = Schema::parse(&schema).unwrap();
        let datums: Vec<Vec<u8>> = rows.iter().map(|(value, _)| to_avro_datum(&writer, value.clone()).unwrap()).collect();
        let slices: Vec<&[u8]> = datums.iter().map(Vec::as_slice).collect();
        let expected: Vec<&str> = rows.iter().map(|(_, text)| text.as_str()).collect();
        prop_assert_eq!(printed(&read(&schema, &slices).unwrap()), expected);
        // Cut off anywhere, it is refused.
        for (row, _) in datums.iter().zip(0..2) {
            for length in 0..row.len() {
                let part: &[u8] = &row[..length];
                prop_assert!(read(&schema, &[part]).is_err());
            }
        }
    }
}
