//! Names of partition fields in manifests. Avro has names of letters, digits and `_` alone; a partition field may be called
//! anything. Readers find partition values by field id, so that a name in a manifest can be another one.
//!
//! As in Java's writer each character that Avro has no name for is written as `_x` and its number. Letters beyond ASCII are
//! written so too: Java's Avro takes them, others do not.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use bytes::Bytes;
use iceberg::spec::{PartitionSpec, Schema};
use philotes_sdk::{Error, Result};
use serde_json::Value;

/// Whether Avro has such a name.
fn is_plain(name: &str) -> bool {
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

/// The specification as a manifest is to name it.
pub(super) fn for_manifest(spec: &PartitionSpec, schema: &Schema) -> Result<PartitionSpec> {
    if spec.fields().iter().all(|field| is_plain(&field.name)) {
        return Ok(spec.clone());
    }
    let fields = spec.fields().iter().map(|field| (i64::from(field.field_id), field.name.as_str()));
    let names = distinct(fields, |name| schema.field_by_name(name).is_some());
    let failed = |e| Error::internal("a partition specification cannot be named for Avro").with_source(e);
    let mut json = serde_json::to_value(spec).map_err(failed)?;
    rename(json.get_mut("fields"), "field-id", &names);
    serde_json::from_value(json).map_err(failed)
}

fn rename(fields: Option<&mut Value>, id: &str, names: &HashMap<i64, String>) {
    for field in fields.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = field.get(id).and_then(Value::as_i64).and_then(|id| names.get(&id)) {
            field["name"] = Value::from(name.as_str());
        }
    }
}

/// The manifest as the crate can read it: where others have written one with names that Avro does not have, or that differ
/// between its schema and its partition specification, both are given the same.
pub(super) fn readable(file: &Bytes) -> Result<Bytes> {
    let fault = || Error::data("it is no Avro file");
    let header = Header::parse(file).ok_or_else(fault)?;
    let parse =
        |key: &str| header.entries.iter().find(|(k, _)| k == key).and_then(|(_, v)| serde_json::from_slice(v).ok());
    let (Some(mut spec), Some(mut schema)) = (parse("partition-spec"), parse("avro.schema")) else {
        return Ok(file.clone());
    };
    let Value::Array(fields) = &spec else { return Ok(file.clone()) };
    let named: Vec<(i64, String)> = fields
        .iter()
        .filter_map(|field| Some((field.get("field-id")?.as_i64()?, field.get("name")?.as_str()?.to_owned())))
        .collect();
    if named.iter().all(|(_, name)| is_plain(name)) {
        return Ok(file.clone());
    }
    let columns: Option<Value> = parse("schema");
    let taken = |name: &str| columns.as_ref().is_some_and(|columns| has_column(columns, name));
    let names = distinct(named.iter().map(|(id, name)| (*id, name.as_str())), taken);
    rename(Some(&mut spec), "field-id", &names);
    let partition = record_field(&mut schema, "data_file")
        .and_then(|file| file.get_mut("type"))
        .and_then(|file| record_field(file, "partition"))
        .and_then(|partition| partition.get_mut("type"));
    rename(partition.and_then(|partition| partition.get_mut("fields")), "field-id", &names);
    Ok(header.with([("partition-spec", &spec), ("avro.schema", &schema)]))
}

fn has_column(schema: &Value, name: &str) -> bool {
    let fields = schema.get("fields").and_then(Value::as_array);
    fields.into_iter().flatten().any(|field| field.get("name").and_then(Value::as_str) == Some(name))
}

/// A field of an Avro record.
fn record_field<'a>(record: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    record
        .get_mut("fields")?
        .as_array_mut()?
        .iter_mut()
        .find(|field| field.get("name").and_then(Value::as_str) == Some(name))
}

const MAGIC: &[u8] = b"Obj\x01";

/// The header of an Avro file, and what comes after its entries: the mark between blocks, and the blocks.
struct Header<'a> {
    entries: Vec<(String, &'a [u8])>,
    rest: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(file: &'a [u8]) -> Option<Self> {
        let mut rest = file.strip_prefix(MAGIC)?;
        let mut entries = Vec::new();
        loop {
            let mut count = long(&mut rest)?;
            if count == 0 {
                return Some(Self { entries, rest });
            }
            if count < 0 {
                // The size of the entries in bytes, for those who skip them.
                long(&mut rest)?;
                count = count.checked_neg()?;
            }
            for _ in 0..count {
                let key = std::str::from_utf8(bytes(&mut rest)?).ok()?.to_owned();
                entries.push((key, bytes(&mut rest)?));
            }
        }
    }

    /// The file with other values for these entries.
    fn with<const N: usize>(&self, other: [(&str, &Value); N]) -> Bytes {
        let mut file = MAGIC.to_vec();
        put_long(&mut file, self.entries.len());
        for (key, value) in &self.entries {
            put_bytes(&mut file, key.as_bytes());
            match other.iter().find(|(name, _)| name == key) {
                Some((_, value)) => put_bytes(&mut file, value.to_string().as_bytes()),
                None => put_bytes(&mut file, value),
            }
        }
        put_long(&mut file, 0);
        file.extend_from_slice(self.rest);
        file.into()
    }
}

/// A number in Avro's encoding: seven bits a byte, the lowest first, the sign in the lowest bit of all.
fn long(rest: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(long(rest)?).ok()?;
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(value)
}

fn put_long(file: &mut Vec<u8>, value: usize) {
    let mut value = (value as u64) << 1;
    while value >= 0x80 {
        file.extend_from_slice(&(value | 0x80).to_le_bytes()[..1]);
        value >>= 7;
    }
    file.extend_from_slice(&value.to_le_bytes()[..1]);
}

fn put_bytes(file: &mut Vec<u8>, value: &[u8]) {
    put_long(file, value.len());
    file.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
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

    /// The bytes are the Avro specification's: 1 is 0x02, 64 is 0x80 0x01, -1 is 0x01.
    #[test]
    fn a_header_is_read_and_written() {
        let long_value = "x".repeat(64);
        let mut file = b"Obj\x01\x01\x88\x01\x02a".to_vec();
        file.extend(b"\x80\x01");
        file.extend(long_value.as_bytes());
        file.extend(b"\x02\x02b\x041y\x00MARKERMARKERMARKblocks");
        let header = Header::parse(&file).unwrap();
        assert_eq!(header.entries, [("a".to_owned(), long_value.as_bytes()), ("b".to_owned(), &b"1y"[..])]);
        assert_eq!(header.rest, b"MARKERMARKERMARKblocks");
        let again = header.with([("b", &Value::from(7))]);
        assert!(again.starts_with(b"Obj\x01\x04\x02a\x80\x01x"));
        assert!(again.ends_with(b"x\x02b\x027\x00MARKERMARKERMARKblocks"));
        assert!(Header::parse(b"PAR1").is_none() && Header::parse(&file[..9]).is_none());
    }

    /// A manifest as Java writes it, read by its field ids.
    #[test]
    fn a_manifest_with_other_names_is_made_readable() {
        let schema = r#"{"type":"record","name":"manifest_entry","fields":[{"name":"data_file","type":{"type":"record","name":"r2",
            "fields":[{"name":"partition","type":{"type":"record","name":"r102","fields":[
                {"name":"a_x20b","type":["null","int"],"default":null,"field-id":1000},
                {"name":"é","type":["null","int"],"default":null,"field-id":1001}]},"field-id":102}]},"field-id":2}]}"#;
        let spec = r#"[{"name":"a b","field-id":1000,"source-id":1,"transform":"identity"},
                       {"name":"é","field-id":1001,"source-id":2,"transform":"identity"}]"#;
        let mut file = MAGIC.to_vec();
        put_long(&mut file, 2);
        for (key, value) in [("avro.schema", schema), ("partition-spec", spec)] {
            put_bytes(&mut file, key.as_bytes());
            put_bytes(&mut file, value.as_bytes());
        }
        put_long(&mut file, 0);
        file.extend(b"rest");
        let read = readable(&file.into()).unwrap();
        let header = Header::parse(&read).unwrap();
        for (_, value) in &header.entries {
            let text = std::str::from_utf8(value).unwrap();
            assert!(text.contains("\"a_x20b\"") && text.contains("\"_xE9\"") && !text.contains('é'), "{text}");
        }
        assert_eq!(header.rest, b"rest");
    }
}
