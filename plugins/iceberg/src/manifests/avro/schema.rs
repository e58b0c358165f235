//! The schema of an Avro file: what is understood of it, within bounds, and that printed again.
//!
//! Only what says how bytes are read is kept, and the names and ids of fields. Logical types are not: the types that Iceberg gives to
//! fields stand in its own schemas, and the library reads some logical types in another way than the specification.

use std::collections::{HashMap, HashSet};

use philotes_sdk::{Error, Result};
use serde_json::{Value, json};

use super::super::names::is_plain;
use super::bounds::damaged;

/// How deep types may stand in one another. Those of a manifest are eight deep.
const MAX_DEPTH: usize = 32;
/// How many types there may be. A partition field has three.
const MAX_TYPES: usize = 10_000;
/// The longest type of so many bytes each.
const MAX_FIXED: u64 = 1 << 20;

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// Types, each named by its place, behind those that it is made of.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Shape>,
    root: usize,
}

/// How a type's bytes are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(String, usize),
    Enum(String, Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(String, Vec<Field>),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    name: String,
    /// Iceberg's.
    id: Option<i64>,
    pub(super) of: usize,
}

impl Schema {
    /// # Errors
    /// Data: it is no schema, a type is part of itself, or it is beyond a bound.
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let json: Value = serde_json::from_slice(json).map_err(|e| damaged("its schema is no JSON").with_source(e))?;
        let mut parser = Parser { types: Vec::new(), depths: Vec::new(), named: HashMap::new() };
        let root = parser.shape(&json)?;
        Ok(Self { types: parser.types, root })
    }

    pub(super) fn root(&self) -> usize {
        self.root
    }

    pub(super) fn shape(&self, at: usize) -> &Shape {
        &self.types[at]
    }

    /// The schema as JSON, without what says nothing of how bytes are read.
    pub(super) fn print(&self) -> String {
        self.json(self.root(), &mut HashSet::new()).to_string()
    }

    fn json<'a>(&'a self, at: usize, defined: &mut HashSet<&'a str>) -> Value {
        let shape = self.shape(at);
        // A name is defined once.
        if let Shape::Fixed(name, _) | Shape::Enum(name, _) | Shape::Record(name, _) = shape
            && !defined.insert(name)
        {
            return json!(name);
        }
        match shape {
            Shape::Null => json!("null"),
            Shape::Boolean => json!("boolean"),
            Shape::Int => json!("int"),
            Shape::Long => json!("long"),
            Shape::Float => json!("float"),
            Shape::Double => json!("double"),
            Shape::Bytes => json!("bytes"),
            Shape::String => json!("string"),
            Shape::Fixed(name, size) => json!({"type": "fixed", "name": name, "size": size}),
            Shape::Enum(name, symbols) => json!({"type": "enum", "name": name, "symbols": symbols}),
            Shape::Array(element) => json!({"type": "array", "items": self.json(*element, defined)}),
            Shape::Map(value) => json!({"type": "map", "values": self.json(*value, defined)}),
            Shape::Union(branches) => branches.iter().map(|branch| self.json(*branch, defined)).collect(),
            Shape::Record(name, fields) => {
                let mut printed = Vec::with_capacity(fields.len());
                for Field { name, id, of } in fields {
                    let mut field = json!({"name": name, "type": self.json(*of, defined)});
                    if let Some(id) = id {
                        field["field-id"] = json!(id);
                    }
                    printed.push(field);
                }
                let fields = printed;
                json!({"type": "record", "name": name, "fields": fields})
            }
        }
    }
}

struct Parser {
    types: Vec<Shape>,
    /// How deep each of them is.
    depths: Vec<usize>,
    /// The types with names that have been read to their end. One that is not is still being read where its name is met: it would
    /// be part of itself.
    named: HashMap<String, usize>,
}

impl Parser {
    fn add(&mut self, shape: Shape) -> Result<usize> {
        let parts: &mut dyn Iterator<Item = usize> = match &shape {
            Shape::Array(inner) | Shape::Map(inner) => &mut std::iter::once(*inner),
            Shape::Union(branches) => &mut branches.iter().copied(),
            Shape::Record(_, fields) => &mut fields.iter().map(|field| field.of),
            _ => &mut std::iter::empty(),
        };
        let depth = 1 + parts.map(|at| self.depths[at]).max().unwrap_or(0);
        if depth > MAX_DEPTH {
            return Err(Error::data(format!("its schema has types more than {MAX_DEPTH} deep in one another")));
        }
        if self.types.len() >= MAX_TYPES {
            return Err(Error::data(format!("its schema has more than the {MAX_TYPES} types that are allowed")));
        }
        self.types.push(shape);
        self.depths.push(depth);
        Ok(self.types.len() - 1)
    }

    /// Reads a type behind those that it is made of. JSON that is nested deeper than 128 levels was refused before.
    fn shape(&mut self, json: &Value) -> Result<usize> {
        let object = match json {
            Value::String(name) => return self.by_name(name),
            Value::Array(branches) => {
                let branches: Result<Vec<usize>> = branches.iter().map(|branch| self.shape(branch)).collect();
                return self.add(Shape::Union(branches?));
            }
            Value::Object(object) => object,
            _ => return Err(damaged("a type of its schema is none")),
        };
        let member = |name: &str| object.get(name).ok_or_else(|| damaged("a type of its schema lacks a part"));
        let Value::String(kind) = member("type")? else { return self.shape(member("type")?) };
        match kind.as_str() {
            "array" => {
                let element = self.shape(member("items")?)?;
                self.add(Shape::Array(element))
            }
            "map" => {
                let value = self.shape(member("values")?)?;
                self.add(Shape::Map(value))
            }
            "fixed" => {
                let size = member("size")?.as_u64().filter(|size| *size <= MAX_FIXED);
                let size = size.and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| damaged("a fixed type of its schema has no size, or more than a MiB"))?;
                self.add_named(member("name")?, |name| Shape::Fixed(name, size))
            }
            "enum" => {
                let symbols = member("symbols")?.as_array().into_iter().flatten();
                let symbols: Vec<String> = symbols.filter_map(|s| s.as_str().map(str::to_owned)).collect();
                self.add_named(member("name")?, |name| Shape::Enum(name, symbols))
            }
            "record" => {
                let mut fields = Vec::new();
                for field in member("fields")?.as_array().into_iter().flatten() {
                    let name = field.get("name").and_then(Value::as_str);
                    let name = name.ok_or_else(|| damaged("a field of its schema has no name"))?;
                    let of = field.get("type").ok_or_else(|| damaged("a field of its schema has no type"))?;
                    let id = field.get("field-id").and_then(Value::as_i64);
                    fields.push(Field { name: name.to_owned(), id, of: self.shape(of)? });
                }
                self.add_named(member("name")?, |name| Shape::Record(name, fields))
            }
            name => self.by_name(name),
        }
    }

    fn by_name(&mut self, name: &str) -> Result<usize> {
        let shape = match name {
            "null" => Shape::Null,
            "boolean" => Shape::Boolean,
            "int" => Shape::Int,
            "long" => Shape::Long,
            "float" => Shape::Float,
            "double" => Shape::Double,
            "bytes" => Shape::Bytes,
            "string" => Shape::String,
            name => {
                let known = self.named.get(plain(name)).copied();
                return known.ok_or_else(|| {
                    damaged("a type of its schema has no definition before it is used, or is part of itself")
                });
            }
        };
        self.add(shape)
    }

    /// Adds a type that has a name, of which namespaces are left away: no two may differ in them alone.
    fn add_named(&mut self, name: &Value, shape: impl FnOnce(String) -> Shape) -> Result<usize> {
        let name = plain(name.as_str().unwrap_or_default()).to_owned();
        // The library does not take other names: it panics.
        if !is_plain(&name) {
            return Err(damaged("a name of its schema is none that Avro has"));
        }
        let at = self.add(shape(name.clone()))?;
        if PRIMITIVES.contains(&name.as_str()) || self.named.insert(name, at).is_some() {
            return Err(damaged("a name of its schema is defined twice"));
        }
        Ok(at)
    }
}

/// A name without its namespace.
fn plain(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        Schema::parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_understood_is_printed() {
        for (schema, printed) in [
            (r#"{"type": "string"}"#, r#""string""#),
            (
                r#"{"type":"record","name":"a.r","fields":[{"name":"x","field-id":1,"type":["null",{"type":"fixed","name":"f","size":16,
                    "logicalType":"uuid"}],"default":null},{"name":"y","type":"a.f"},{"name":"z","type":{"type":"array","items":
                    {"type":"long","logicalType":"timestamp-micros"},"element-id":2}}]}"#,
                r#"{"fields":[{"field-id":1,"name":"x","type":["null",{"name":"f","size":16,"type":"fixed"}]},{"name":"y","type":"f"},{"name":"z","type":{"items":"long","type":"array"}}],"name":"r","type":"record"}"#,
            ),
            (
                r#"{"type":"map","values":{"type":"enum","name":"e","symbols":["A"]}}"#,
                r#"{"type":"map","values":{"name":"e","symbols":["A"],"type":"enum"}}"#,
            ),
        ] {
            let parsed = Schema::parse(schema.as_bytes()).unwrap();
            assert_eq!(parsed.print(), printed);
            assert_eq!(Schema::parse(printed.as_bytes()).unwrap().print(), printed);
        }
    }

    #[test]
    fn schemas_without_an_end_are_refused() {
        let within = |of: &str| format!(r#"{{"type":"record","name":"r","fields":[{{"name":"f","type":{of}}}]}}"#);
        for of in [r#""r""#, r#"["null","r"]"#, r#"{"type":"array","items":"r"}"#, r#""unknown""#] {
            assert!(refused(&within(of)).contains("part of itself"), "{of}");
        }
        let nested = |depth| format!("{}\"int\"{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Schema::parse(nested(31).as_bytes()).is_ok());
        assert!(refused(&nested(32)).contains("more than 32 deep"));
        assert!(refused(&nested(100_000)).contains("no JSON"));
        // Not deep as a text, but each record is one of the one before.
        let record = |at: usize| {
            let of = if at == 0 { "int".to_owned() } else { format!("r{}", at - 1) };
            format!(r#"{{"type":"record","name":"r{at}","fields":[{{"name":"a","type":"{of}"}}]}}"#)
        };
        let chain: Vec<String> = (0..40).map(record).collect();
        assert!(refused(&format!("[{}]", chain.join(","))).contains("more than 32 deep"));
        assert!(refused(&format!("[{}]", vec!["\"int\""; 10_001].join(","))).contains("more than the 10000 types"));
        assert!(refused(r#"{"type":"fixed","name":"f","size":500000000}"#).contains("more than a MiB"));
        let twice = r#"[{"type":"fixed","name":"a.f","size":1},{"type":"fixed","name":"b.f","size":2}]"#;
        assert!(refused(twice).contains("defined twice"));
        // The library panicked.
        for name in ["decimal_\u{7f}_2", "", "9", "a b"] {
            let named = json!({"type": "fixed", "name": name, "size": 1}).to_string();
            assert!(refused(&named).contains("none that Avro has"), "{name}");
        }
    }
}
