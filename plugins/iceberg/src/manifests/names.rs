//! Partition fields in manifests, where the crate and Avro have no words for them. Avro has names of letters, digits and `_` alone,
//! while a partition field may be called anything; readers find partition values by field id, so that a name in Avro's schema
//! can be another one. A UUID is 16 bytes there, which the crate does not write, and a type with a name is defined once.
//!
//! As in Java's writer each character that Avro has no name for is written as `_x` and its number. Letters beyond ASCII are
//! written so too: Java's Avro takes them, others do not.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use iceberg::spec::{Literal, PartitionSpec, PrimitiveLiteral, PrimitiveType, SchemaRef, Struct};
use philotes_sdk::{Error, Result};
use serde_json::{Value, json};

use super::avro::{Header, NO_FILE};

/// How many fields a partition specification may have.
const MAX_FIELDS: usize = 1_000;

/// Whether Avro has such a name.
pub(super) fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A name that Avro has, as Java makes it.
fn plain(name: &str) -> String {
    let mut made = String::with_capacity(name.len() + 8);
    for (index, unit) in name.encode_utf16().enumerate() {
        match u8::try_from(unit) {
            Ok(b) if b.is_ascii_digit() && index == 0 => {
                made.push('_');
                made.push(char::from(b));
            }
            Ok(b) if b.is_ascii_alphanumeric() || b == b'_' => made.push(char::from(b)),
            // Writing to a String cannot fail.
            _ => drop(write!(made, "_x{unit:X}")),
        }
    }
    made
}

/// A name for each of these fields that none of the others and no column has; names that Avro has stay.
fn distinct<'a>(
    fields: impl Iterator<Item = (i64, &'a str)> + Clone,
    taken: impl Fn(&str) -> bool,
) -> HashMap<i64, String> {
    let mut used: HashSet<String> =
        fields.clone().map(|(_, name)| name.to_owned()).filter(|name| is_plain(name)).collect();
    let mut names = HashMap::new();
    for (id, name) in fields {
        if is_plain(name) {
            names.insert(id, name.to_owned());
            continue;
        }
        let mut made = plain(name);
        while used.contains(&made) || taken(&made) {
            made = format!("{made}_{id}");
        }
        used.insert(made.clone());
        names.insert(id, made);
    }
    names
}

/// How a manifest of one partition specification is written: by the crate in words that it and Avro have, and then in those that
/// the specification wants.
pub(super) struct Wording {
    /// What the crate is to be told.
    pub(super) schema: SchemaRef,
    pub(super) spec: PartitionSpec,
    /// What the manifest is to say instead, where it differs.
    truth: Option<(Value, Value)>,
}

impl Wording {
    pub(super) fn of(spec: &PartitionSpec, schema: &SchemaRef) -> Result<Self> {
        let mut told = serde_json::to_value(schema).map_err(failed)?;
        let mut named = serde_json::to_value(spec).map_err(failed)?;
        let truth = (told.clone(), named.get("fields").cloned().unwrap_or_default());
        let fields = || spec.fields().iter().map(|field| (i64::from(field.field_id), field.name.as_str()));
        let odd = fields().any(|(_, name)| !is_plain(name)) || has_fixed(spec, schema);
        if !odd {
            return Ok(Self { schema: schema.clone(), spec: spec.clone(), truth: None });
        }
        let names = distinct(fields(), |name| schema.field_by_name(name).is_some());
        rename(named.get_mut("fields"), &names);
        fixed_for_uuids(&mut told, &uuid_fields(&truth.1, &truth.0));
        let schema = Arc::new(serde_json::from_value(told).map_err(failed)?);
        let spec = serde_json::from_value(named).map_err(failed)?;
        Ok(Self { schema, spec, truth: Some(truth) })
    }

    /// Whether the crate's manifest is to be corrected.
    pub(super) fn is_odd(&self) -> bool {
        self.truth.is_some()
    }

    /// Whether a partition value is a UUID.
    pub(super) fn has_uuids(&self) -> bool {
        self.truth.as_ref().is_some_and(|(schema, spec)| !uuid_fields(spec, schema).is_empty())
    }

    /// A partition in the words that the crate is told: it has no UUIDs in manifests, but their bytes.
    pub(super) fn partition(&self, partition: &Struct) -> Struct {
        let value = |literal: &Literal| match literal {
            Literal::Primitive(PrimitiveLiteral::UInt128(uuid)) => {
                Literal::Primitive(PrimitiveLiteral::Binary(uuid.to_be_bytes().to_vec()))
            }
            other => other.clone(),
        };
        partition.iter().map(|literal| literal.map(value)).collect()
    }

    /// The manifest that the crate has written, in the specification's words.
    pub(super) fn corrected(&self, file: Bytes) -> Result<Bytes> {
        let Some((schema, spec)) = &self.truth else { return Ok(file) };
        let fault = || Error::internal("a manifest was written that does not read");
        let header = Header::parse(&file).ok_or_else(fault)?;
        let mut avro = header.json("avro.schema").ok_or_else(fault)?;
        let uuids: Vec<i64> = uuid_fields(spec, schema).into_iter().map(|(field, _)| field).collect();
        let mut used = HashSet::new();
        for field in partition_fields(&mut avro).into_iter().flatten() {
            let id = field.get("field-id").and_then(Value::as_i64).unwrap_or_default();
            for of in kinds(field).filter(|of| of.get("type").and_then(Value::as_str) == Some("fixed")) {
                if uuids.contains(&id) {
                    *of = json!({"type": "fixed", "name": "uuid_fixed", "size": 16, "logicalType": "uuid"});
                }
                // A name is defined once.
                let name = of.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                if !used.insert(name.clone()) {
                    of["name"] = Value::from(format!("{name}_{id}"));
                }
            }
        }
        Ok(header.with([("schema", schema), ("partition-spec", spec), ("avro.schema", &avro)]))
    }
}

fn failed(error: serde_json::Error) -> Error {
    Error::internal("a partition specification cannot be put in Avro's words").with_source(error)
}

/// Whether a partition value is of a type that has a definition of its own in Avro, with a name.
fn has_fixed(spec: &PartitionSpec, schema: &SchemaRef) -> bool {
    spec.fields().iter().any(|field| {
        let column = schema.field_by_id(field.source_id).map(|column| &*column.field_type);
        let value = column.and_then(|column| field.transform.result_type(column).ok());
        let named = |kind: &PrimitiveType| {
            matches!(kind, PrimitiveType::Uuid | PrimitiveType::Fixed(_) | PrimitiveType::Decimal { .. })
        };
        value.is_some_and(|value| value.as_primitive_type().is_some_and(named))
    })
}

/// The partition fields whose values are UUIDs, with the ids of their columns.
fn uuid_fields(spec: &Value, schema: &Value) -> Vec<(i64, i64)> {
    let fields = spec.as_array().into_iter().flatten();
    let uuid = |field: &Value| {
        let keeps = matches!(field.get("transform")?.as_str()?, "identity" | "void");
        let (id, source) = (field.get("field-id")?.as_i64()?, field.get("source-id")?.as_i64()?);
        (keeps && column_type(schema, source)?.as_str() == Some("uuid")).then_some((id, source))
    };
    fields.filter_map(uuid).collect()
}

/// The type of a column, of the top level or in a struct.
fn column_type(of: &Value, id: i64) -> Option<&Value> {
    of.get("fields")?.as_array()?.iter().find_map(|field| {
        if field.get("id").and_then(Value::as_i64) == Some(id) {
            field.get("type")
        } else {
            column_type(field.get("type")?, id)
        }
    })
}

/// Has the schema say of these columns that they are 16 bytes.
fn fixed_for_uuids(of: &mut Value, uuids: &[(i64, i64)]) {
    for field in of.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
        let id = field.get("id").and_then(Value::as_i64);
        if uuids.iter().any(|(_, column)| Some(*column) == id) {
            field["type"] = Value::from("fixed[16]");
        } else if let Some(inner) = field.get_mut("type") {
            fixed_for_uuids(inner, uuids);
        }
    }
}

fn rename(fields: Option<&mut Value>, names: &HashMap<i64, String>) {
    for field in fields.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = field.get("field-id").and_then(Value::as_i64).and_then(|id| names.get(&id)) {
            field["name"] = Value::from(name.as_str());
        }
    }
}

/// The manifest as the crate can read it, whoever wrote it: with names that Avro has, the same in its schema and its partition
/// specification, and with bytes for UUIDs among the partition values.
pub(crate) fn readable(file: &Bytes) -> Result<Bytes> {
    let header = Header::parse(file).ok_or_else(|| Error::data(NO_FILE))?;
    let json = |name: &str| header.json(name);
    let (Some(mut spec), Some(mut schema), Some(mut avro)) =
        (json("partition-spec"), json("schema"), json("avro.schema"))
    else {
        return Ok(file.clone());
    };
    let named: Vec<(i64, String)> = spec
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|field| Some((field.get("field-id")?.as_i64()?, field.get("name")?.as_str()?.to_owned())))
        .collect();
    if named.len() > MAX_FIELDS {
        return Err(Error::data(format!(
            "its partition specification has more than the {MAX_FIELDS} fields that are allowed"
        )));
    }
    let uuids = uuid_fields(&spec, &schema);
    if uuids.is_empty() && named.iter().all(|(_, name)| is_plain(name)) {
        return Ok(file.clone());
    }
    let names = distinct(named.iter().map(|(id, name)| (*id, name.as_str())), |name| has_column(&schema, name));
    rename(Some(&mut spec), &names);
    fixed_for_uuids(&mut schema, &uuids);
    for field in partition_fields(&mut avro).into_iter().flatten() {
        for of in kinds(field).filter_map(Value::as_object_mut) {
            of.retain(|key, value| key != "logicalType" || value != "uuid");
        }
    }
    rename(partition_record(&mut avro).and_then(|record| record.get_mut("fields")), &names);
    Ok(header.with([("schema", &schema), ("partition-spec", &spec), ("avro.schema", &avro)]))
}

fn has_column(schema: &Value, name: &str) -> bool {
    let fields = schema.get("fields").and_then(Value::as_array);
    fields.into_iter().flatten().any(|field| field.get("name").and_then(Value::as_str) == Some(name))
}

/// The record of partition values in a manifest's Avro schema.
fn partition_record(avro: &mut Value) -> Option<&mut Value> {
    record_field(record_field(avro, "data_file")?.get_mut("type")?, "partition")?.get_mut("type")
}

fn partition_fields(avro: &mut Value) -> Option<&mut Vec<Value>> {
    partition_record(avro)?.get_mut("fields")?.as_array_mut()
}

/// A field of an Avro record.
fn record_field<'a>(record: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    record
        .get_mut("fields")?
        .as_array_mut()?
        .iter_mut()
        .find(|field| field.get("name").and_then(Value::as_str) == Some(name))
}

/// What a field's value can be: the members of its union, or its type.
fn kinds(field: &mut Value) -> impl Iterator<Item = &mut Value> {
    let (union, one) = match field.get_mut("type") {
        Some(Value::Array(union)) => (Some(union), None),
        one => (None, one),
    };
    union.into_iter().flatten().chain(one)
}

#[cfg(test)]
mod tests {
    use super::super::avro::{MAGIC, put_bytes, put_long};
    use super::*;

    /// What `AvroSchemaUtil.makeCompatibleName` of Java gives, for ASCII and beyond the letters.
    #[test]
    fn names_are_those_of_java() {
        for (name, made) in [
            ("a b", "a_x20b"),
            ("9x", "_9x"),
            ("a.b", "a_x2Eb"),
            ("\"q\"", "_x22q_x22"),
            ("😎", "_xD83D_xDE0E"),
            ("a😎", "a_xD83D_xDE0E"),
            ("A-1", "A_x2D1"),
        ] {
            assert_eq!(plain(name), made);
            assert!(is_plain(made) && !is_plain(name), "{name}");
        }
        assert_eq!(plain("é"), "_xE9");
        assert!(is_plain("_a1") && !is_plain(""));
    }

    #[test]
    fn no_two_fields_get_one_name() {
        let fields = [(1000, "a b"), (1001, "a_x20b"), (1002, "c d"), (1003, "plain")];
        let names = distinct(fields.into_iter(), |name| name == "c_x20d");
        assert_eq!(names[&1000], "a_x20b_1000");
        assert_eq!(names[&1001], "a_x20b");
        assert_eq!(names[&1002], "c_x20d_1002");
        assert_eq!(names[&1003], "plain");
    }

    /// A manifest as Java writes it, read by its field ids.
    #[test]
    fn a_manifest_with_other_names_is_made_readable() {
        let schema = r#"{"type":"record","name":"manifest_entry","fields":[{"name":"data_file","type":{"type":"record","name":"r2",
            "fields":[{"name":"partition","type":{"type":"record","name":"r102","fields":[
                {"name":"a_x20b","type":["null","int"],"default":null,"field-id":1000},
                {"name":"é","type":["null",{"type":"fixed","name":"uuid_fixed","size":16,"logicalType":"uuid"}],"default":null,
                 "field-id":1001}]},"field-id":102}]},"field-id":2}]}"#;
        let spec = r#"[{"name":"a b","field-id":1000,"source-id":1,"transform":"identity"},
                       {"name":"é","field-id":1001,"source-id":2,"transform":"identity"}]"#;
        let mut file = MAGIC.to_vec();
        let columns = r#"{"type":"struct","schema-id":0,"fields":[{"id":1,"name":"a b","required":false,"type":"int"},
            {"id":2,"name":"é","required":false,"type":"uuid"}]}"#;
        put_long(&mut file, 3);
        for (key, value) in [("avro.schema", schema), ("partition-spec", spec), ("schema", columns)] {
            put_bytes(&mut file, key.as_bytes());
            put_bytes(&mut file, value.as_bytes());
        }
        put_long(&mut file, 0);
        file.extend(b"rest");
        let read = readable(&file.into()).unwrap();
        let header = Header::parse(&read).unwrap();
        for key in ["avro.schema", "partition-spec"] {
            let text = header.json(key).unwrap().to_string();
            assert!(text.contains("\"a_x20b\"") && text.contains("\"_xE9\"") && !text.contains('é'), "{text}");
        }
        assert!(!header.json("avro.schema").unwrap().to_string().contains("logicalType"));
        assert_eq!(header.json("schema").unwrap()["fields"][1]["type"], "fixed[16]");
        assert_eq!(header.rest, b"rest");
    }
}
