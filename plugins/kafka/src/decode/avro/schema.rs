//! Schemas of Avro: from their JSON to types whose names are resolved.
//!
//! A schema is always the writer's own, so aliases, defaults and orders, which only readers of another schema need, are not read.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::registry::Registered;

/// How deep types may be nested: what is deeper has no columns that anybody could use.
const MOST_LEVELS: usize = 64;
/// How many types there may be, one used twice counted twice.
const MOST_TYPES: usize = 100_000;

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) shape: Shape,
    pub(crate) notes: Notes,
    levels: usize,
    types: usize,
}

/// What its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Arc<[String]>),
    Array(Arc<Type>),
    Map(Arc<Type>),
    Record(Arc<Record>),
    Union(Arc<[Arc<Type>]>),
}

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// With its namespace.
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

/// A field of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) of: Arc<Type>,
    pub(crate) doc: Option<String>,
}

/// What a schema says of a type beside its shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// The name of a record, a fixed or an enum.
    pub(crate) name: Option<String>,
    pub(crate) logical: Option<String>,
    pub(crate) precision: Option<u64>,
    pub(crate) scale: Option<u64>,
    /// The name that Kafka Connect gives a type.
    pub(crate) connect_name: Option<String>,
    pub(crate) connect_parameters: HashMap<String, String>,
}

impl Type {
    fn new(shape: Shape, notes: Notes) -> Result<Self, String> {
        let (mut levels, mut types) = (1, 1_usize);
        let mut count = |inner: &Self| {
            levels = levels.max(1 + inner.levels);
            types = types.saturating_add(inner.types);
        };
        match &shape {
            Shape::Array(inner) | Shape::Map(inner) => count(inner),
            Shape::Record(record) => record.fields.iter().for_each(|field| count(&field.of)),
            Shape::Union(branches) => branches.iter().for_each(|branch| count(branch)),
            _ => {}
        }
        if levels > MOST_LEVELS {
            return Err(format!("types are nested deeper than {MOST_LEVELS} levels"));
        }
        if types > MOST_TYPES {
            return Err(format!("it has more than {MOST_TYPES} types"));
        }
        Ok(Self { shape, notes, levels, types })
    }

    /// The type beneath a union with null; itself, where it is no such union.
    pub(crate) fn beneath_null(&self) -> &Self {
        let Shape::Union(branches) = &self.shape else { return self };
        let mut others = branches.iter().filter(|branch| branch.shape != Shape::Null);
        match (others.next(), others.next()) {
            (Some(only), None) => only,
            _ => self,
        }
    }

    /// Whether a value may take no bytes at all.
    pub(crate) fn may_be_empty(&self) -> bool {
        match &self.shape {
            Shape::Null | Shape::Fixed(0) => true,
            Shape::Record(record) => record.fields.iter().all(|field| field.of.may_be_empty()),
            _ => false,
        }
    }

    /// Whether there are values at all that a column could hold.
    pub(crate) fn has_values(&self) -> bool {
        match &self.shape {
            Shape::Null => false,
            Shape::Record(record) => record.fields.iter().any(|field| field.of.has_values()),
            Shape::Union(branches) => branches.iter().any(|branch| branch.has_values()),
            _ => true,
        }
    }
}

/// The type that a registered schema describes. An error says what is wrong with the schema.
pub(crate) fn parse(schema: &Registered) -> Result<Arc<Type>, String> {
    let mut names = Names::default();
    let json = |text: &str| {
        // A name alone may be registered without quotes.
        serde_json::from_str::<Value>(text)
            .or_else(|error| if PRIMITIVES.contains(&text.trim()) { Ok(text.trim().into()) } else { Err(error) })
            .map_err(|error| format!("it is not JSON: {error}"))
    };
    for referred in &schema.references {
        json(&referred.text)
            .and_then(|text| names.read(&text, ""))
            .map_err(|why| format!("{:?}, to which it refers: {why}", referred.name))?;
    }
    names.read(&json(&schema.text)?, "")
}

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// The named types so far, by their full names; `None` while one is being read.
#[derive(Default)]
struct Names(HashMap<String, Option<Arc<Type>>>);

impl Names {
    fn read(&mut self, schema: &Value, namespace: &str) -> Result<Arc<Type>, String> {
        match schema {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => self.object(object, namespace),
            _ => Err("a type is neither a name nor an object nor an array".to_owned()),
        }
    }

    fn named(&self, name: &str, namespace: &str) -> Result<Arc<Type>, String> {
        if let Some(shape) = primitive(name) {
            return Type::new(shape, Notes::default()).map(Arc::new);
        }
        let full = full_name(name, namespace);
        match self.0.get(&full).or_else(|| self.0.get(name)) {
            Some(Some(known)) => Ok(known.clone()),
            Some(None) => {
                Err(format!("the type {full:?} contains itself; what is nested without an end has no columns"))
            }
            None => Err(format!("the type {full:?} is not defined")),
        }
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<Arc<Type>, String> {
        let branches = branches.iter().map(|branch| self.read(branch, namespace)).collect::<Result<Vec<_>, _>>()?;
        if branches.is_empty() {
            return Err("a union has no branches".to_owned());
        }
        if branches.iter().any(|branch| matches!(branch.shape, Shape::Union(_))) {
            return Err("a union stands directly in a union".to_owned());
        }
        Type::new(Shape::Union(branches.into()), Notes::default()).map(Arc::new)
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<Arc<Type>, String> {
        let notes = notes(object);
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // Some writers wrap a type once more, and write its notes outside.
            Some(inner) => {
                let inner = self.read(inner, namespace)?;
                let plain = inner.notes == Notes::default();
                return if plain { Type::new(inner.shape.clone(), notes).map(Arc::new) } else { Ok(inner) };
            }
            None => return Err("a type has no \"type\"".to_owned()),
        };
        if let Some(shape) = primitive(kind) {
            return Type::new(shape, notes).map(Arc::new);
        }
        let shape = match kind {
            "array" => Shape::Array(self.read(member(object, "items")?, namespace)?),
            "map" => Shape::Map(self.read(member(object, "values")?, namespace)?),
            "record" | "error" | "enum" | "fixed" => return self.define(kind, object, notes, namespace),
            name => return self.named(name, namespace),
        };
        Type::new(shape, notes).map(Arc::new)
    }

    /// A type that has a name of its own.
    fn define(
        &mut self,
        kind: &str,
        object: &Map<String, Value>,
        mut notes: Notes,
        namespace: &str,
    ) -> Result<Arc<Type>, String> {
        let name = member(object, "name")?.as_str().ok_or("a type's \"name\" is no string")?;
        let told = object.get("namespace").and_then(Value::as_str);
        let name = full_name(name, told.unwrap_or(namespace));
        let before = self.0.insert(name.clone(), None);
        let within = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let shape = match kind {
            "fixed" => {
                let size = member(object, "size")?.as_u64().and_then(|size| u32::try_from(size).ok());
                Shape::Fixed(size.ok_or_else(|| format!("the size of {name:?} is no length"))? as usize)
            }
            "enum" => Shape::Enum(symbols(object).ok_or_else(|| format!("{name:?} has no list of symbols"))?),
            _ => {
                let fields =
                    member(object, "fields")?.as_array().ok_or_else(|| format!("{name:?} has no list of fields"))?;
                let fields = fields.iter().map(|field| self.field(field, &within)).collect::<Result<Vec<_>, _>>();
                Shape::Record(Arc::new(record(&name, fields.map_err(|why| format!("{name}: {why}"))?)?))
            }
        };
        notes.name = Some(name.clone());
        let defined = Arc::new(Type::new(shape, notes)?);
        // Some writers spell a type out wherever they use it.
        if before.is_some_and(|before| before.as_ref() != Some(&defined)) {
            return Err(format!("the type {name:?} is defined twice"));
        }
        self.0.insert(name, Some(defined.clone()));
        Ok(defined)
    }

    fn field(&mut self, field: &Value, namespace: &str) -> Result<Field, String> {
        let Value::Object(field) = field else { return Err("a field is no object".to_owned()) };
        let name = member(field, "name")?.as_str().ok_or("a field's \"name\" is no string")?.to_owned();
        let of = self.read(member(field, "type")?, namespace).map_err(|why| format!("field {name:?}: {why}"))?;
        Ok(Field { name, of, doc: text(field, "doc").filter(|doc| !doc.is_empty()) })
    }
}

fn record(name: &str, fields: Vec<Field>) -> Result<Record, String> {
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = fields.iter().find(|field| !seen.insert(field.name.as_str())) {
        return Err(format!("{name}: the field {:?} stands there twice", twice.name));
    }
    Ok(Record { name: name.to_owned(), fields })
}

fn primitive(name: &str) -> Option<Shape> {
    Some(match name {
        "null" => Shape::Null,
        "boolean" => Shape::Boolean,
        "int" => Shape::Int,
        "long" => Shape::Long,
        "float" => Shape::Float,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "string" => Shape::String,
        _ => return None,
    })
}

/// A name with a dot is a full one already.
fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.trim_start_matches('.').to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a Value, String> {
    object.get(name).ok_or_else(|| format!("a type or a field has no {name:?}"))
}

fn text(object: &Map<String, Value>, name: &str) -> Option<String> {
    object.get(name).and_then(Value::as_str).map(ToOwned::to_owned)
}

fn symbols(object: &Map<String, Value>) -> Option<Arc<[String]>> {
    object.get("symbols")?.as_array()?.iter().map(|symbol| symbol.as_str().map(ToOwned::to_owned)).collect()
}

fn notes(object: &Map<String, Value>) -> Notes {
    let parameters = object.get("connect.parameters").and_then(Value::as_object);
    Notes {
        name: None,
        logical: text(object, "logicalType"),
        precision: object.get("precision").and_then(Value::as_u64),
        scale: object.get("scale").and_then(Value::as_u64),
        connect_name: text(object, "connect.name"),
        connect_parameters: parameters
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
    }
}
