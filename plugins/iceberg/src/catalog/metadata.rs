//! Table metadata as others wrote it: what in it cannot be read, said in a table's words, and what would be lost if it were
//! written again.
//!
//! The crate reads metadata all or not at all, and keeps only what it knows. Where this sink writes the metadata itself, a
//! part that it would leave out is a reason not to touch the table.

use std::collections::HashMap;

use iceberg::spec::{TableMetadata, Transform, Type};
use serde_json::Value;

/// What columns can be.
const TYPES: &str = "boolean, int, long, float, double, decimal, date, time, timestamp, timestamptz, timestamp_ns, timestamptz_ns, \
    string, uuid, fixed, binary, struct, list, map";

/// What partition and sort fields can be.
const TRANSFORMS: &str = "identity, bucket, truncate, year, month, day, hour, void";

/// Why metadata cannot be read, where that can be told: `column "doc" is of type variant, …`.
pub(super) fn unreadable(metadata: &Value) -> Option<String> {
    let version = metadata.get("format-version").and_then(Value::as_u64)?;
    if !(1..=3).contains(&version) {
        return Some(format!("it has format version {version}; allowed are 2 and 3"));
    }
    let current = metadata.get("current-schema-id").and_then(Value::as_i64);
    let id = |schema: &Value| schema.get("schema-id").and_then(Value::as_i64);
    let mut schemas: Vec<&Value> = metadata.get("schemas")?.as_array()?.iter().collect();
    schemas.sort_by_key(|schema| id(schema) != current);
    let column = schemas.into_iter().find_map(|schema| {
        let (column, r#type) = unknown_type(schema, "")?;
        let whose = if id(schema) == current { "" } else { " of an earlier schema" };
        Some(format!("column {column:?}{whose} is of type {type}, which is not known here; allowed are {TYPES}"))
    });
    column.or_else(|| unknown_transform(metadata))
}

/// The first field of a partition specification or a sort order that cannot be read.
fn unknown_transform(metadata: &Value) -> Option<String> {
    let lists = [("partition-specs", "partition field"), ("sort-orders", "sort field")];
    lists.into_iter().find_map(|(list, what)| {
        let fields = metadata.get(list)?.as_array()?.iter().filter_map(|of| of.get("fields")?.as_array()).flatten();
        fields.into_iter().find_map(|field| {
            let name = field.get("name").and_then(Value::as_str).map(|name| format!(" {name:?}")).unwrap_or_default();
            let transform = field.get("transform").cloned().unwrap_or_default();
            if field.get("source-id").is_none() {
                return Some(format!("{what}{name} is over several columns; allowed are those over one"));
            }
            let known = serde_json::from_value::<Transform>(transform.clone()).is_ok();
            let text = transform.as_str().unwrap_or("?");
            (!known).then(|| {
                format!("{what}{name} has the transform {text}, which is not known here; allowed are {TRANSFORMS}")
            })
        })
    })
}

/// The first column of a type that the crate does not read, and the type's name.
fn unknown_type(r#type: &Value, path: &str) -> Option<(String, String)> {
    let Some(nested) = r#type.as_object() else {
        let known = serde_json::from_value::<Type>(r#type.clone()).is_ok();
        return (!known).then(|| (path.to_owned(), r#type.as_str().unwrap_or("?").to_owned()));
    };
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match nested.get("type").and_then(Value::as_str) {
        Some("struct") => {
            let fields = nested.get("fields").and_then(Value::as_array);
            fields.into_iter().flatten().find_map(|field| {
                unknown_type(field.get("type")?, &below(field.get("name").and_then(Value::as_str).unwrap_or("?")))
            })
        }
        Some("list") => unknown_type(nested.get("element")?, &below("element")),
        Some("map") => unknown_type(nested.get("key")?, &below("key"))
            .or_else(|| unknown_type(nested.get("value")?, &below("value"))),
        other => Some((path.to_owned(), other.unwrap_or("?").to_owned())),
    }
}

/// The first part of the metadata that is not in it any more once it has been read and written: `schemas[0].fields[2].x`.
///
/// # Errors
/// It cannot be written at all.
pub(super) fn lost(before: &Value, read: &TableMetadata) -> serde_json::Result<Option<String>> {
    Ok(missing(before, &serde_json::to_value(read)?, ""))
}

fn missing(before: &Value, after: &Value, path: &str) -> Option<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match after.get(key) {
                // Defaults of columns are values, which the crate reads or refuses.
                Some(_) if matches!(key.as_str(), "initial-default" | "write-default") => None,
                Some(after) => missing(value, after, &path),
                None if says_nothing(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(before), Value::Array(after)) => {
            let list = path;
            // Some of these lists have as many elements as the table has commits.
            let numbered = number_of(list).map(|number| {
                let numbered = after.iter().filter_map(|value| Some((value.get(number)?.to_string(), value)));
                (number, numbered.collect::<HashMap<_, _>>())
            });
            before.iter().enumerate().find_map(|(index, value)| {
                let path = format!("{list}[{index}]");
                let counterpart = match &numbered {
                    Some((number, after)) => value.get(number).and_then(|id| after.get(&id.to_string())).copied(),
                    // A set, of numbers.
                    None if list.ends_with(".identifier-field-ids") => after.iter().find(|other| same(value, other)),
                    None if before.len() == after.len() => after.get(index),
                    None => None,
                };
                match counterpart {
                    Some(after) => missing(value, after, &path),
                    None => Some(path),
                }
            })
        }
        (before, after) => (!same(before, after) && !says_nothing(before)).then(|| path.to_owned()),
    }
}

/// What may be left out: null, nothing, and the number that stands for no snapshot.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Number(number) => number.as_i64() == Some(-1),
        _ => false,
    }
}

/// The number that tells the elements of a list with this name apart: the crate keeps some in no order.
fn number_of(list: &str) -> Option<&'static str> {
    match list {
        "schemas" => Some("schema-id"),
        "partition-specs" => Some("spec-id"),
        "sort-orders" => Some("order-id"),
        "snapshots" | "statistics" | "partition-statistics" => Some("snapshot-id"),
        "encryption-keys" => Some("key-id"),
        _ => None,
    }
}

/// Texts may be spelt with other spaces, as in `decimal(9, 2)`, a location with a slash at its end, a UUID in capitals.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::String(one), Value::String(other)) => {
            let spelt = |text: &str| text.split_whitespace().collect::<String>().trim_end_matches('/').to_lowercase();
            one == other || spelt(one) == spelt(other)
        }
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Metadata as Java writes it.
    fn metadata(version: u8, r#type: &Value) -> Value {
        json!({
            "format-version": version,
            "table-uuid": "9C12D441-03FE-4693-9A96-A0705DDF69C1",
            "location": "file:///w/t/",
            "last-sequence-number": 2,
            "last-updated-ms": 1_700_000_000_001_i64,
            "last-column-id": 3,
            "current-schema-id": 1,
            "schemas": [
                {"type": "struct", "schema-id": 1, "identifier-field-ids": [1], "fields": [
                    {"id": 1, "name": "id", "required": true, "type": "long", "doc": "the key"},
                    {"id": 2, "name": "price", "required": false, "type": "decimal(9, 2)"},
                    {"id": 3, "name": "doc", "required": false, "type": r#type}]},
                {"type": "struct", "schema-id": 0, "fields": [{"id": 1, "name": "id", "required": true, "type": "long"}]}],
            "default-spec-id": 0,
            "partition-specs": [{"spec-id": 0, "fields": [
                {"name": "b", "transform": "bucket[16]", "source-id": 1, "field-id": 1000}]}],
            "last-partition-id": 1000,
            "default-sort-order-id": 3,
            "sort-orders": [
                {"order-id": 3, "fields": [{"transform": "identity", "source-id": 1, "direction": "asc", "null-order": "nulls-first"}]},
                {"order-id": 0, "fields": []}],
            "properties": {"owner": "root"},
            "current-snapshot-id": 22,
            "next-row-id": 9,
            "refs": {"main": {"snapshot-id": 22, "type": "branch"}, "old": {"snapshot-id": 21, "type": "tag", "max-ref-age-ms": 5}},
            "snapshots": [
                {"sequence-number": 1, "snapshot-id": 21, "timestamp-ms": 1_700_000_000_000_i64, "schema-id": 0, "first-row-id": 0,
                 "added-rows": 4, "summary": {"operation": "append", "spark.app.id": "x"}, "manifest-list": "file:///w/t/a.avro"},
                {"sequence-number": 2, "snapshot-id": 22, "parent-snapshot-id": 21, "timestamp-ms": 1_700_000_000_001_i64,
                 "schema-id": 1, "first-row-id": 4, "added-rows": 5, "summary": {"operation": "delete"},
                 "manifest-list": "file:///w/t/b.avro"}],
            "statistics": [], "partition-statistics": [],
            "snapshot-log": [{"timestamp-ms": 1_700_000_000_000_i64, "snapshot-id": 21}, {"timestamp-ms": 1_700_000_000_001_i64, "snapshot-id": 22}],
            "metadata-log": [{"timestamp-ms": 1_700_000_000_000_i64, "metadata-file": "file:///w/t/00000-a.metadata.json"}]
        })
    }

    fn lost_of(metadata: &Value) -> Option<String> {
        let text = serde_json::to_vec(metadata).unwrap();
        lost(metadata, &serde_json::from_slice(&text).unwrap()).unwrap()
    }

    #[test]
    fn what_java_writes_is_kept() {
        assert_eq!(lost_of(&metadata(3, &json!("timestamp_ns"))), None);
        let mut second =
            metadata(2, &json!({"type": "list", "element-id": 4, "element": "string", "element-required": false}));
        // Tables without these parts have no row ids.
        second.as_object_mut().unwrap().remove("next-row-id");
        for snapshot in second["snapshots"].as_array_mut().unwrap() {
            snapshot.as_object_mut().unwrap().retain(|key, _| key != "first-row-id" && key != "added-rows");
        }
        assert_eq!(lost_of(&second), None);
        second["current-snapshot-id"] = json!(-1);
        second["refs"] = json!({});
        second["snapshots"] = json!([]);
        second["snapshot-log"] = json!([]);
        assert_eq!(lost_of(&second), None);
    }

    /// The crate keeps them in no order.
    #[test]
    fn identifier_fields_are_a_set() {
        let of = |ids: Value| {
            let mut metadata = metadata(3, &json!("string"));
            metadata["schemas"][0]["identifier-field-ids"] = ids;
            metadata["schemas"][0]["fields"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|f| f["required"] = json!(true));
            metadata
        };
        let read: TableMetadata = serde_json::from_value(of(json!([1, 2, 3]))).unwrap();
        for ids in [json!([1, 2, 3]), json!([3, 1, 2]), json!([2, 3, 1])] {
            assert_eq!(lost(&of(ids), &read).unwrap(), None);
        }
        let fewer: TableMetadata = serde_json::from_value(of(json!([2, 1]))).unwrap();
        assert_eq!(lost(&of(json!([1, 3])), &fewer).unwrap().unwrap(), "schemas[0].identifier-field-ids[1]");
    }

    #[test]
    fn what_would_be_lost_is_named() {
        let with = |change: fn(&mut Value)| {
            let mut changed = metadata(3, &json!("string"));
            change(&mut changed);
            lost_of(&changed)
        };
        assert_eq!(with(|m| m["x-foreign"] = json!({"a": 1})), Some("x-foreign".into()));
        assert_eq!(
            with(|m| m["schemas"][0]["fields"][1]["collation"] = json!("de")),
            Some("schemas[0].fields[1].collation".into())
        );
        assert_eq!(with(|m| m["snapshots"][1]["extra"] = json!(1)), Some("snapshots[1].extra".into()));
        assert_eq!(with(|m| m["refs"]["old"]["note"] = json!("x")), Some("refs.old.note".into()));
        assert_eq!(
            with(|m| m["sort-orders"][0]["fields"][0]["note"] = json!("x")),
            Some("sort-orders[0].fields[0].note".into())
        );
    }

    #[test]
    fn a_type_that_cannot_be_read_is_named_with_its_column() {
        for (r#type, column, name) in [
            (json!("variant"), "doc", "variant"),
            (json!("unknown"), "doc", "unknown"),
            (json!("geometry"), "doc", "geometry"),
            (json!("geography(srid:4326, spherical)"), "doc", "geography(srid:4326, spherical)"),
            (
                json!({"type": "list", "element-id": 4, "element": "variant", "element-required": false}),
                "doc.element",
                "variant",
            ),
            (
                json!({"type": "map", "key-id": 4, "key": "string", "value-id": 5, "value-required": false, "value":
                    {"type": "struct", "fields": [{"id": 6, "name": "at", "required": false, "type": "geometry(srid:1)"}]}}),
                "doc.value.at",
                "geometry(srid:1)",
            ),
        ] {
            let metadata = metadata(3, &r#type);
            assert!(serde_json::from_value::<TableMetadata>(metadata.clone()).is_err(), "{type}");
            let why = unreadable(&metadata).unwrap();
            assert!(
                why.starts_with(&format!(
                    "column {column:?} is of type {name}, which is not known here; allowed are boolean"
                )),
                "{why}"
            );
        }
        let mut earlier = metadata(3, &json!("string"));
        earlier["schemas"][1]["fields"][0]["type"] = json!("variant");
        assert!(unreadable(&earlier).unwrap().starts_with("column \"id\" of an earlier schema is of type variant"));
        assert_eq!(unreadable(&metadata(4, &json!("string"))).unwrap(), "it has format version 4; allowed are 2 and 3");
        assert_eq!(unreadable(&metadata(3, &json!("string"))), None);
    }

    #[test]
    fn a_transform_that_cannot_be_read_is_named_with_its_field() {
        let mut unknown = metadata(3, &json!("string"));
        unknown["partition-specs"][0]["fields"][0]["transform"] = json!("zorder[2]");
        assert!(serde_json::from_value::<TableMetadata>(unknown.clone()).is_err());
        let why = unreadable(&unknown).unwrap();
        assert!(
            why.starts_with("partition field \"b\" has the transform zorder[2], which is not known here; allowed are"),
            "{why}"
        );
        let mut several = metadata(3, &json!("string"));
        let field = several["sort-orders"][0]["fields"][0].as_object_mut().unwrap();
        field.remove("source-id");
        field.insert("source-ids".into(), json!([1, 2]));
        assert!(serde_json::from_value::<TableMetadata>(several.clone()).is_err());
        assert_eq!(unreadable(&several).unwrap(), "sort field is over several columns; allowed are those over one");
    }
}
