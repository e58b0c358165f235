//! The structural check of a plugin's section against its configuration spec.
//!
//! The spec is JSON Schema in a fixed subset, what schemars writes for serde types: type, properties, required,
//! additionalProperties, items, enum, const, minimum, maximum, tagged oneOf, anyOf, allOf, $ref into $defs, writeOnly
//! (a secret, never printed). An object is closed unless additionalProperties opens it. The rest of JSON Schema is left
//! to the plugin's own check, which knows what the values mean.

use std::cell::Cell;

use serde_json::{Map, Value, json};

use super::document::Node;
use super::fault::{Faults, below, nearest, unknown_key};

/// Checks `node` and turns it into the JSON that the plugin gets, scalars that came from variables coerced.
pub(crate) fn check(node: &Node, spec: &Value, path: &str, faults: &mut Faults) -> Value {
    let mut checker =
        Checker { root: spec, faults, levels: Cell::new(0), work: Cell::new(0), endless: Cell::new(false) };
    let json = checker.value(node, spec, path, false);
    if checker.endless.get() {
        let allowed = "a plugin whose configuration spec ends; this one's is the plugin's fault";
        faults.add(path, "cannot be checked", allowed);
    }
    json
}

/// How many schemas may lead to one another, and how many may be looked at in all: a plugin's spec may go in circles, or double at
/// each step.
const MAX_LEVELS: usize = 256;
const MAX_WORK: usize = 1_000_000;

struct Checker<'a> {
    /// Where `$ref` leads.
    root: &'a Value,
    faults: &'a mut Faults,
    levels: Cell<usize>,
    work: Cell<usize>,
    /// Either bound was met.
    endless: Cell<bool>,
}

impl<'a> Checker<'a> {
    /// Whether one schema more may be looked at, until [`leave`](Self::leave).
    fn enter(&self) -> bool {
        self.levels.set(self.levels.get() + 1);
        self.work.set(self.work.get() + 1);
        let goes_on = self.levels.get() <= MAX_LEVELS && self.work.get() <= MAX_WORK;
        self.endless.set(self.endless.get() || !goes_on);
        goes_on
    }

    fn leave(&self) {
        self.levels.set(self.levels.get() - 1);
    }

    fn value(&mut self, node: &Node, schema: &'a Value, path: &str, secret: bool) -> Value {
        let value = if self.enter() { self.value_within(node, schema, path, secret) } else { Value::Null };
        self.leave();
        value
    }

    fn value_within(&mut self, node: &Node, schema: &'a Value, path: &str, secret: bool) -> Value {
        let secret = secret || is_secret(schema);
        let schema = self.resolve(schema);
        let secret = secret || is_secret(schema);
        for keyword in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(keyword).and_then(Value::as_array) {
                return self.alternatives(node, branches, path, secret);
            }
        }
        let allowed = allowed_scalars(schema);
        if !allowed.is_empty() {
            return self.one_of_scalars(node, &allowed, path, secret);
        }
        match self.fitting_type(node, schema) {
            None => plain(node),
            Some("object") => self.object(node, schema, path, secret),
            Some("array") => self.array(node, schema, path, secret),
            Some(_) => self.scalar(node, schema, path, secret),
        }
    }

    /// Follows `$ref` to the end. Where keys stand beside the `$ref`, an object's parts are gathered later.
    fn resolve(&self, mut schema: &'a Value) -> &'a Value {
        // A spec whose references go in a circle is the plugin's bug; the limit only keeps us from spinning.
        for _ in 0..16 {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
            if schema.get("properties").is_some() {
                break;
            }
            match reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    /// Which of the schema's types is meant: the one the value has if it is allowed, else the first. `None`: any value.
    fn fitting_type(&self, node: &Node, schema: &'a Value) -> Option<&'a str> {
        let types = types(schema);
        if types.is_empty() {
            let object = ["properties", "$ref", "allOf"].iter().any(|key| schema.get(*key).is_some());
            return object.then_some("object");
        }
        types.iter().find(|name| has_type(node, name)).or_else(|| types.iter().find(|name| **name != "null")).copied()
    }

    fn object(&mut self, node: &Node, schema: &'a Value, path: &str, secret: bool) -> Value {
        let Node::Map(entries) = node else {
            if matches!(node, Node::Null) && types(schema).contains(&"null") {
                return Value::Null;
            }
            return self.wrong(node, "a map", path, secret);
        };
        let mut parts = ObjectParts::default();
        self.gather(schema, &mut parts, 0);
        let mut result = Map::new();
        for (key, value) in entries {
            let path = below(path, key);
            if let Some((_, property)) = parts.properties.iter().find(|(name, _)| name == key) {
                let json = self.value(value, property, &path, secret);
                result.insert(key.clone(), json);
            } else if let Some(open) = parts.additional {
                let json = self.value(value, open, &path, secret);
                result.insert(key.clone(), json);
            } else {
                let known: Vec<&str> = parts.properties.iter().map(|(name, _)| *name).collect();
                self.faults.add(path, unknown_key(&known, key), known.join(", "));
            }
        }
        for name in parts.required {
            if !entries.iter().any(|(key, _)| key == name) {
                let what = parts.properties.iter().find(|(property, _)| *property == name);
                let allowed = what.map_or_else(|| "a value".to_owned(), |(_, property)| self.describe(property));
                self.faults.add(below(path, name), "missing", allowed);
            }
        }
        Value::Object(result)
    }

    /// An object's properties, from the schema itself and from what `$ref` and `allOf` add to it.
    fn gather(&self, schema: &'a Value, parts: &mut ObjectParts<'a>, depth: usize) {
        self.work.set(self.work.get() + 1);
        let endless = self.work.get() > MAX_WORK;
        self.endless.set(self.endless.get() || endless);
        if depth > 16 || endless {
            return;
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            parts.properties.extend(properties.iter().map(|(name, property)| (name.as_str(), property)));
        }
        if let Some(required) = schema.get("required").and_then(Value::as_array) {
            parts.required.extend(required.iter().filter_map(Value::as_str));
        }
        if let Some(open) = schema.get("additionalProperties").filter(|open| **open != Value::Bool(false)) {
            parts.additional = Some(open);
        }
        let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
        if let Some(target) = reference.and_then(|pointer| self.root.pointer(pointer)) {
            self.gather(target, parts, depth + 1);
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.gather(part, parts, depth + 1);
        }
    }

    fn array(&mut self, node: &Node, schema: &'a Value, path: &str, secret: bool) -> Value {
        let Node::List(items) = node else {
            return self.wrong(node, "a list", path, secret);
        };
        let item_schema = schema.get("items");
        Value::Array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| match item_schema {
                    Some(schema) => self.value(item, schema, &format!("{path}[{index}]"), secret),
                    None => plain(item),
                })
                .collect(),
        )
    }

    fn scalar(&mut self, node: &Node, schema: &'a Value, path: &str, secret: bool) -> Value {
        let types = types(schema);
        for name in &types {
            if let Some(json) = coerced(node, name) {
                return self.within_bounds(json, node, schema, path, secret);
            }
        }
        let allowed = self.describe(schema);
        self.wrong(node, &allowed, path, secret)
    }

    fn within_bounds(&mut self, json: Value, node: &Node, schema: &Value, path: &str, secret: bool) -> Value {
        let Some(number) = json.as_f64() else { return json };
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let too_low = bound("minimum").is_some_and(|minimum| number < minimum);
        let too_high = bound("maximum").is_some_and(|maximum| number > maximum);
        if too_low || too_high {
            let allowed = self.describe(schema);
            return self.wrong(node, &allowed, path, secret);
        }
        json
    }

    fn one_of_scalars(&mut self, node: &Node, allowed: &[&Value], path: &str, secret: bool) -> Value {
        for name in ["string", "integer", "number", "boolean", "null"] {
            if let Some(json) = coerced(node, name)
                && allowed.contains(&&json)
            {
                return json;
            }
        }
        let words: Vec<String> = allowed.iter().map(|value| word(value)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let near = match node {
            Node::Text { text, expanded: false } if !secret => nearest(&words, text),
            _ => None,
        };
        let mut found = format!("found {}", node.describe(secret));
        if let Some(near) = near {
            found.push_str(&format!(", did you mean {near}?"));
        }
        self.faults.add(path, found, words.join(", "));
        Value::Null
    }

    /// `oneOf` and `anyOf`: by a tag where the branches have one, by value where all are constants, else the first that
    /// fits.
    fn alternatives(&mut self, node: &Node, branches: &'a [Value], path: &str, secret: bool) -> Value {
        let nullable = branches.iter().any(|branch| types(branch) == ["null"]);
        if nullable && matches!(node, Node::Null) {
            return Value::Null;
        }
        let branches: Vec<&'a Value> =
            branches.iter().filter(|branch| types(branch) != ["null"]).map(|branch| self.resolve(branch)).collect();
        if let [only] = branches[..] {
            return self.value(node, only, path, secret);
        }
        let constants: Vec<Vec<&Value>> = branches.iter().map(|branch| allowed_scalars(branch)).collect();
        if constants.iter().all(|values| !values.is_empty()) {
            return self.one_of_scalars(node, &constants.concat(), path, secret);
        }
        if let Some(tag) = tag_of(&branches) {
            return self.tagged(node, &branches, tag, path, secret);
        }
        for branch in &branches {
            let before = self.faults.len();
            let json = self.value(node, branch, path, secret);
            if self.faults.len() == before {
                return json;
            }
            self.faults.truncate(before);
        }
        // None fits: the faults of the one branch of the value's own type say most.
        let mut same_type =
            branches.iter().filter(|branch| self.fitting_type(node, branch).is_some_and(|name| has_type(node, name)));
        if let (Some(branch), None) = (same_type.next(), same_type.next()) {
            return self.value(node, branch, path, secret);
        }
        let allowed: Vec<String> = branches.iter().map(|branch| self.describe(branch)).collect();
        self.wrong(node, &allowed.join(" or "), path, secret)
    }

    fn tagged(&mut self, node: &Node, branches: &[&'a Value], tag: &str, path: &str, secret: bool) -> Value {
        let Node::Map(entries) = node else {
            return self.wrong(node, &format!("a map with {tag}"), path, secret);
        };
        let constant = |branch: &&'a Value| branch.pointer(&format!("/properties/{tag}/const"));
        let tags: Vec<&Value> = branches.iter().filter_map(constant).collect();
        let tag_path = below(path, tag);
        let Some((_, value)) = entries.iter().find(|(key, _)| key == tag) else {
            let words: Vec<String> = tags.iter().map(|value| word(value)).collect();
            self.faults.add(tag_path, "missing", words.join(", "));
            return Value::Null;
        };
        let before = self.faults.len();
        let chosen = self.one_of_scalars(value, &tags, &tag_path, secret);
        if self.faults.len() > before {
            return Value::Null;
        }
        let branch = branches.iter().find(|branch| constant(branch) == Some(&chosen));
        branch.map_or(Value::Null, |branch| self.value(node, branch, path, secret))
    }

    fn wrong(&mut self, node: &Node, allowed: &str, path: &str, secret: bool) -> Value {
        let mut allowed = allowed.to_owned();
        if allowed == "a text" && matches!(node, Node::Number(_) | Node::Bool(_)) {
            allowed.push_str("; put it in quotes");
        }
        self.faults.add(path, format!("found {}", node.describe(secret)), allowed);
        Value::Null
    }

    /// What a schema allows, in a few words.
    fn describe(&self, schema: &'a Value) -> String {
        let text = if self.enter() { self.describe_within(schema) } else { String::new() };
        self.leave();
        text
    }

    fn describe_within(&self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        let constants = allowed_scalars(schema);
        if !constants.is_empty() {
            return constants.iter().map(|value| word(value)).collect::<Vec<_>>().join(", ");
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(keyword).and_then(Value::as_array) {
                let resolved: Vec<&Value> = branches.iter().map(|branch| self.resolve(branch)).collect();
                if let Some(tag) = tag_of(&resolved) {
                    let words: Vec<String> = resolved
                        .iter()
                        .filter_map(|branch| branch.pointer(&format!("/properties/{tag}/const")))
                        .map(word)
                        .collect();
                    return format!("a map with {tag}: {}", words.join(" or "));
                }
                let mut words: Vec<String> = branches
                    .iter()
                    .filter(|branch| types(branch) != ["null"])
                    .map(|branch| self.describe(branch))
                    .collect();
                words.dedup();
                return words.join(", ");
            }
        }
        let names = types(schema);
        let words: Vec<&str> = names
            .iter()
            .filter(|name| **name != "null")
            .map(|name| match *name {
                "string" => "a text",
                "integer" => "a whole number",
                "number" => "a number",
                "boolean" => "true or false",
                "array" => "a list",
                _ => "a map",
            })
            .collect();
        let mut text = if words.is_empty() { "a value".to_owned() } else { words.join(" or ") };
        match (schema.get("minimum"), schema.get("maximum")) {
            (Some(minimum), Some(maximum)) => text.push_str(&format!(" from {minimum} to {maximum}")),
            (Some(minimum), None) => text.push_str(&format!(" from {minimum} on")),
            (None, Some(maximum)) => text.push_str(&format!(" up to {maximum}")),
            (None, None) => {}
        }
        text
    }
}

#[derive(Default)]
struct ObjectParts<'a> {
    properties: Vec<(&'a str, &'a Value)>,
    required: Vec<&'a str>,
    /// The schema of keys that are not named; `None` where there may be none.
    additional: Option<&'a Value>,
}

/// Whether what it describes is a secret.
pub(crate) fn is_secret(schema: &Value) -> bool {
    schema.get("writeOnly") == Some(&Value::Bool(true))
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn allowed_scalars(schema: &Value) -> Vec<&Value> {
    match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
        (Some(constant), _) => vec![constant],
        (None, Some(values)) => values.iter().collect(),
        (None, None) => Vec::new(),
    }
}

/// The property that is a constant in every branch.
fn tag_of<'a>(branches: &[&'a Value]) -> Option<&'a str> {
    let candidates = branches.first()?.get("properties")?.as_object()?;
    let is_tag = |name: &str| branches.iter().all(|b| b.pointer(&format!("/properties/{name}/const")).is_some());
    candidates.keys().map(String::as_str).find(|name| is_tag(name))
}

fn has_type(node: &Node, name: &str) -> bool {
    match name {
        "object" => matches!(node, Node::Map(_)),
        "array" => matches!(node, Node::List(_)),
        _ => coerced(node, name).is_some(),
    }
}

/// The scalar as this JSON type, if it is one. Only text that came from a variable is reinterpreted.
fn coerced(node: &Node, name: &str) -> Option<Value> {
    match (node, name) {
        (Node::Null, "null") => Some(Value::Null),
        (Node::Bool(value), "boolean") => Some(json!(value)),
        (Node::Number(number), "number") => Some(Value::Number(number.clone())),
        (Node::Number(number), "integer") if !number.is_f64() => Some(Value::Number(number.clone())),
        (Node::Text { text, .. }, "string") => Some(json!(text)),
        (Node::Text { text, expanded: true }, "boolean") => text.trim().parse::<bool>().ok().map(|value| json!(value)),
        (Node::Text { text, expanded: true }, "integer") => {
            let text = text.trim();
            text.parse::<u64>().map(|v| json!(v)).or_else(|_| text.parse::<i64>().map(|v| json!(v))).ok()
        }
        (Node::Text { text, expanded: true }, "number") => {
            text.trim().parse::<f64>().ok().filter(|value| value.is_finite()).map(|value| json!(value))
        }
        _ => None,
    }
}

/// The node as it stands, where the schema allows anything.
fn plain(node: &Node) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Bool(value) => json!(value),
        Node::Number(number) => Value::Number(number.clone()),
        Node::Text { text, .. } => json!(text),
        Node::List(items) => Value::Array(items.iter().map(plain).collect()),
        Node::Map(entries) => Value::Object(entries.iter().map(|(key, value)| (key.clone(), plain(value))).collect()),
    }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
