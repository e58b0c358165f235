//! JSON Schema: what kinds of columns its types are.
//!
//! Nothing is validated: what a schema forbids beyond types is the producers' affair. What has no single type is JSON text.

use super::node::Node;
use crate::decode::kind::{Digits, Kind, Member};
use crate::decode::logical::{self, Dialect};
use crate::registry::Registered;

/// How deep types may be nested.
const MOST_LEVELS: usize = 64;
/// How many types there may be, one used twice counted twice.
const MOST_TYPES: usize = 100_000;

/// What a registered schema describes. An error says what is wrong with it.
pub(super) fn parse(schema: &Registered, dialect: Dialect) -> Result<Kind, String> {
    let json = |text: &str| serde_json::from_str::<Node>(text).map_err(|error| format!("it is not JSON: {error}"));
    let mut documents = vec![(String::new(), json(&schema.text)?)];
    for referred in &schema.references {
        let document = json(&referred.text).map_err(|why| format!("{:?}, to which it refers: {why}", referred.name))?;
        documents.push((referred.name.clone(), document));
    }
    let mut reading = Reading { documents: &documents, dialect, way: Vec::new(), types: 0 };
    reading.kind(Place { document: 0, node: &documents[0].1 })
}

struct Reading<'a> {
    /// The schema, and those that it refers to, by the names that it has for them.
    documents: &'a [(String, Node)],
    dialect: Dialect,
    /// The objects that are being read, the outermost first.
    way: Vec<*const Node>,
    types: usize,
}

/// A type, and the document it stands in.
#[derive(Clone, Copy)]
struct Place<'a> {
    document: usize,
    node: &'a Node,
}

impl<'a> Place<'a> {
    fn of(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }
}

impl<'a> Reading<'a> {
    fn kind(&mut self, place: Place<'a>) -> Result<Kind, String> {
        // What contains itself is as deep as its values are.
        if self.way.contains(&std::ptr::from_ref(place.node)) {
            return Ok(Kind::Json);
        }
        self.types += 1;
        if self.types > MOST_TYPES {
            return Err(format!("it has more than {MOST_TYPES} types"));
        }
        if self.way.len() > MOST_LEVELS {
            return Err(format!("types are nested deeper than {MOST_LEVELS} levels"));
        }
        self.way.push(std::ptr::from_ref(place.node));
        let kind = self.kind_of_one(place);
        self.way.pop();
        kind
    }

    fn kind_of_one(&mut self, place: Place<'a>) -> Result<Kind, String> {
        if let Some(reference) = place.node.text("$ref") {
            let target = self.find(reference, place)?;
            return self.kind(target);
        }
        if let Some(name) = type_name(place.node) {
            return self.kind_of_type(name, place);
        }
        for several in ["oneOf", "anyOf"] {
            if let Some(branches) = place.node.elements(several) {
                return self.one_of(branches, place);
            }
        }
        if let Some(all) = place.node.elements("allOf") {
            return self.all_of(all, place);
        }
        Ok(of_values(place.node).unwrap_or(Kind::Json))
    }

    fn kind_of_type(&mut self, name: &str, place: Place<'a>) -> Result<Kind, String> {
        let node = place.node;
        if let Some(kind) = self.named(name, node)? {
            return Ok(kind);
        }
        let connect = node.text("connect.type");
        Ok(match (name, connect) {
            ("boolean", _) => Kind::Boolean,
            ("integer", Some("int8" | "int16" | "int32")) => Kind::Int,
            ("integer", _) => Kind::Long,
            ("number", Some("float32")) => Kind::Float,
            ("number", _) => Kind::Double,
            ("string", Some("bytes")) => Kind::Binary,
            ("string", _) => of_format(node),
            ("array", _) => match node.get("items") {
                Some(items @ Node::Object(_)) => Kind::List(Box::new(self.kind(place.of(items))?)),
                _ => Kind::Json,
            },
            ("object", _) => self.object(place)?,
            _ => Kind::Json,
        })
    }

    /// The kind that a name of Kafka Connect or Debezium stands for: the converter writes it as the title.
    fn named(&self, type_name: &str, node: &Node) -> Result<Option<Kind>, String> {
        let Some(title) = node.text("title") else { return Ok(None) };
        let base = match (node.text("connect.type"), type_name) {
            (Some(base), _) => base,
            (None, "object") => "struct",
            (None, base) => base,
        };
        let kind = logical::kind(
            title,
            base,
            |parameter| node.get("connect.parameters")?.text(parameter).map(ToOwned::to_owned),
            self.dialect,
        )?;
        Ok(kind.map(|kind| match kind {
            // As the converter's `decimal.format` has it.
            Kind::Decimal(precision, scale, _) if type_name == "number" => {
                Kind::Decimal(precision, scale, Digits::Text)
            }
            kind => kind,
        }))
    }

    fn object(&mut self, place: Place<'a>) -> Result<Kind, String> {
        let mut members = self.members(place)?;
        for part in place.node.elements("allOf").unwrap_or_default() {
            match self.kind(place.of(part))? {
                Kind::Struct(more) => add(&mut members, more),
                // Conditions, which say nothing of types.
                _ if part.get("type").is_none() && part.get("$ref").is_none() => {}
                _ => return Ok(Kind::Json),
            }
        }
        if !members.is_empty() {
            return Ok(Kind::Struct(members));
        }
        match place.node.get("additionalProperties") {
            Some(values @ Node::Object(_)) if place.node.get("patternProperties").is_none() => {
                Ok(Kind::Map(Box::new(Kind::STRING), Box::new(self.kind(place.of(values))?)))
            }
            _ => Ok(Kind::Json),
        }
    }

    fn members(&mut self, place: Place<'a>) -> Result<Vec<Member>, String> {
        let mut properties: Vec<&(String, Node)> = place.node.members("properties").iter().collect();
        // Kafka Connect numbers its fields.
        properties.sort_by_key(|(_, property)| match property.get("connect.index") {
            Some(Node::Integer(index)) => *index,
            _ => i64::MAX,
        });
        let mut members = Vec::new();
        for (name, property) in properties {
            let property = place.of(property);
            let kind = self.kind(property).map_err(|why| format!("property {name:?}: {why}"))?;
            let source_type = Some(self.source_type(property)?);
            add(&mut members, vec![Member { name: name.clone(), kind, source_type }]);
        }
        Ok(members)
    }

    /// One of several types: itself, where all but one are null.
    fn one_of(&mut self, branches: &'a [Node], place: Place<'a>) -> Result<Kind, String> {
        let mut others = branches.iter().filter(|branch| !is_null(branch));
        match (others.next(), others.next()) {
            (Some(only), None) => self.kind(place.of(only)),
            _ => Ok(Kind::Json),
        }
    }

    fn all_of(&mut self, all: &'a [Node], place: Place<'a>) -> Result<Kind, String> {
        match all {
            [only] if place.node.get("properties").is_none() => self.kind(place.of(only)),
            _ => self.object(place),
        }
    }

    /// What the name in `$ref` stands for.
    fn find(&self, reference: &str, from: Place<'a>) -> Result<Place<'a>, String> {
        let not_there = || format!("it refers to {reference:?}, which is neither in it nor among its references");
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let documents: &'a [(String, Node)] = self.documents;
        let start = if document.is_empty() {
            Place { document: from.document, node: &documents[from.document].1 }
        } else {
            self.document(document, from).ok_or_else(not_there)?
        };
        let node = match percent_decoded(fragment).as_deref() {
            Some("") => Some(start.node),
            Some(pointer) if pointer.starts_with('/') => start.node.at(pointer),
            Some(anchor) => {
                start.node.find("$anchor", anchor).or_else(|| start.node.find("$id", &format!("#{anchor}")))
            }
            None => None,
        };
        node.map(|node| start.of(node)).ok_or_else(not_there)
    }

    /// A document by the name under which it was registered, or by its own id, as it stands there or relative to the id of the
    /// document that names it.
    fn document(&self, name: &str, from: Place<'a>) -> Option<Place<'a>> {
        let documents: &'a [(String, Node)] = self.documents;
        let own = documents[from.document].1.text("$id").and_then(|id| reqwest::Url::parse(id).ok());
        let absolute = own.and_then(|id| id.join(name).ok()).map(String::from);
        let names = [Some(name.to_owned()), absolute];
        names.iter().flatten().find_map(|name| {
            let by_name = documents.iter().position(|(registered, _)| registered == name);
            if let Some(document) = by_name {
                return Some(Place { document, node: &documents[document].1 });
            }
            documents.iter().enumerate().find_map(|(document, (_, root))| {
                let node = root.find("$id", name).or_else(|| root.find("$id", &format!("{name}#")))?;
                Some(Place { document, node })
            })
        })
    }

    /// The type beneath references and unions with null.
    fn followed(&self, mut place: Place<'a>) -> Result<Place<'a>, String> {
        for _ in 0..MOST_LEVELS {
            let inner = if let Some(reference) = place.node.text("$ref") {
                self.find(reference, place)?
            } else if let Some(branches) = place.node.elements("oneOf").or_else(|| place.node.elements("anyOf")) {
                let mut others = branches.iter().filter(|branch| !is_null(branch));
                match (others.next(), others.next()) {
                    (Some(only), None) => place.of(only),
                    _ => return Ok(place),
                }
            } else {
                return Ok(place);
            };
            place = inner;
        }
        Ok(place)
    }

    /// The name of a column's type, the most telling one.
    fn source_type(&self, place: Place<'a>) -> Result<String, String> {
        let node = self.followed(place)?.node;
        let told =
            node.get("connect.parameters").and_then(|parameters| parameters.text("__debezium.source.column.type"));
        let connect = node.text("connect.type");
        let title = node.text("title").filter(|_| connect.is_some() || node.get("connect.version").is_some());
        let format = node.text("format").filter(|_| type_name(node) == Some("string"));
        let name = told.or(title).or(connect).or(format).or_else(|| type_name(node));
        Ok(name.unwrap_or("any").to_owned())
    }
}

/// Adds members, a later one of a name in the place of the earlier one.
fn add(members: &mut Vec<Member>, more: Vec<Member>) {
    for member in more {
        match members.iter_mut().find(|known| known.name == member.name) {
            Some(known) => *known = member,
            None => members.push(member),
        }
    }
}

/// The one type beside null that a schema names, or that its other words presume.
fn type_name(node: &Node) -> Option<&str> {
    match node.get("type") {
        Some(Node::String(name)) => Some(name),
        Some(Node::Array(names)) => {
            let mut others = names.iter().filter_map(|name| match name {
                Node::String(name) if name != "null" => Some(name.as_str()),
                _ => None,
            });
            match (others.next(), others.next(), others.next()) {
                (Some(only), None, _) => Some(only),
                (Some("integer"), Some("number"), None) | (Some("number"), Some("integer"), None) => Some("number"),
                _ => None,
            }
        }
        _ if node.get("properties").is_some() => Some("object"),
        _ if node.get("items").is_some() => Some("array"),
        _ => None,
    }
}

fn is_null(node: &Node) -> bool {
    let nothing = |value: &Node| *value == Node::Null;
    node.text("type") == Some("null")
        || node.get("const").is_some_and(nothing)
        || node.elements("enum").is_some_and(|values| values.iter().all(nothing))
}

/// The kind of values that are listed, where they are of one type.
fn of_values(node: &Node) -> Option<Kind> {
    let single = node.get("const").map(std::slice::from_ref);
    let values: Vec<&Node> =
        single.or_else(|| node.elements("enum"))?.iter().filter(|value| **value != Node::Null).collect();
    let all = |is: fn(&Node) -> bool| !values.is_empty() && values.iter().all(|value| is(value));
    if all(|value| matches!(value, Node::String(_))) {
        Some(Kind::STRING)
    } else if all(|value| matches!(value, Node::Integer(_))) {
        Some(Kind::Long)
    } else if all(|value| matches!(value, Node::Bool(_))) {
        Some(Kind::Boolean)
    } else {
        None
    }
}

fn of_format(node: &Node) -> Kind {
    if node.text("contentEncoding") == Some("base64") {
        return Kind::Binary;
    }
    match node.text("format") {
        Some("date") => Kind::DATE,
        Some("time") => Kind::Time(None),
        Some("date-time") => Kind::timestamp(true, None),
        Some("uuid") => Kind::Uuid,
        _ => Kind::STRING,
    }
}

/// RFC 3986, section 2.1.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(bytes).ok()
}
