//! `philotes plugins`: which sources and sinks there are, and how they are configured.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::action::signature;
use super::{Exit, Plugins, table};
use crate::config::{is_secret, nearest};
use crate::libraries;
use crate::plugin::{Connector, Kind};
use crate::printable::line;
use crate::status::end_name;

pub(super) fn list(plugins: &dyn Plugins, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let rows: Vec<Vec<String>> = plugins
        .all()
        .iter()
        .map(|connector| {
            vec![
                connector.name().to_owned(),
                end_name(connector.kind()).to_owned(),
                connector.version().to_owned(),
                connector.library().display().to_string(),
                connector.doc().to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        writeln!(out, "no plugin was found{}", line(&plugins.searched()))?;
    } else {
        table::print(out, "", &["NAME", "KIND", "VERSION", "LIBRARY", ""], &rows)?;
    }
    Ok(Exit::Done)
}

pub(super) fn describe(name: &str, plugins: &dyn Plugins, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let all = plugins.all();
    let found: Vec<_> = all.iter().filter(|connector| connector.name() == name).collect();
    if found.is_empty() {
        let mut names: Vec<&str> = all.iter().map(|connector| connector.name()).collect();
        names.sort_unstable();
        names.dedup();
        let near = nearest(&names, name).map_or(String::new(), |near| format!(", did you mean {near}?"));
        let names = if names.is_empty() { "none was found".to_owned() } else { names.join(", ") };
        let name = line(name);
        writeln!(out, "{name}: no such plugin{near}; allowed: {names}{}", line(&plugins.searched()))?;
        return Ok(Exit::Config);
    }
    for (index, connector) in found.into_iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        describe_connector(connector.as_ref(), out)?;
    }
    Ok(Exit::Done)
}

pub(super) fn check(library: &Path, out: &mut dyn Write) -> anyhow::Result<Exit> {
    match libraries::open(library) {
        Ok(connectors) => {
            for connector in connectors {
                let (kind, name, version) = (end_name(connector.kind()), connector.name(), connector.version());
                writeln!(out, "{}: OK: {kind} {name} {version}", library.display())?;
            }
            Ok(Exit::Done)
        }
        Err(error) => {
            writeln!(out, "{}", line(&error.to_string()))?;
            Ok(Exit::Config)
        }
    }
}

fn describe_connector(connector: &dyn Connector, out: &mut dyn Write) -> std::io::Result<()> {
    let kind = match connector.kind() {
        Kind::Source => "source",
        Kind::Sink => "sink",
    };
    writeln!(out, "{} ({kind}, {})", connector.name(), connector.version())?;
    writeln!(out, "{}", connector.doc())?;
    let spec = connector.config_spec();
    let rows = keys(spec);
    if !rows.is_empty() {
        writeln!(out, "\nConfiguration:")?;
        table::print(out, "  ", &["key", "type", "", ""], &rows)?;
    }
    if !connector.actions().is_empty() {
        writeln!(out, "\nActions:")?;
        for action in connector.actions() {
            writeln!(out, "  {}: {}", signature(action), action.doc)?;
        }
    }
    Ok(())
}

/// The keys of a configuration spec, nested ones by their path.
fn keys(spec: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    collect(spec, spec, "", 0, &mut rows);
    rows
}

fn collect(spec: &Value, root: &Value, path: &str, depth: usize, rows: &mut Vec<Vec<String>>) {
    // A type that contains itself would never end.
    if depth > 8 {
        return;
    }
    let spec = resolve(spec, root);
    let required: Vec<&str> =
        spec.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, property) in spec.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let target = resolve(property, root);
        let doc = [property, target].into_iter().find_map(|schema| schema.get("description")?.as_str());
        let doc = doc.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let mut marks = Vec::new();
        if required.contains(&name.as_str()) {
            marks.push("required".to_owned());
        }
        let values = [Some(property), property.get("additionalProperties"), property.get("items")];
        if values.into_iter().flatten().any(is_secret) {
            marks.push("secret".to_owned());
        }
        if let Some(default) =
            property.get("default").filter(|default| default.is_string() || default.is_number() || default.is_boolean())
        {
            marks.push(format!("default {}", default.as_str().map_or_else(|| default.to_string(), str::to_owned)));
        }
        let row = vec![path.clone(), kind_of(target, root), marks.join(", "), doc];
        // The branches of a tagged choice share keys.
        if !rows.contains(&row) {
            rows.push(row);
        }
        collect(property, root, &path, depth + 1, rows);
    }
    for keyword in ["oneOf", "anyOf", "allOf"] {
        for branch in spec.get(keyword).and_then(Value::as_array).into_iter().flatten() {
            collect(branch, root, path, depth + 1, rows);
        }
    }
}

fn resolve<'a>(spec: &'a Value, root: &'a Value) -> &'a Value {
    let reference = spec.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
    reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(spec)
}

/// What a key holds, in a word, or the words that are allowed.
fn kind_of(spec: &Value, root: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(constant) = spec.get("const") {
        return word(constant);
    }
    if let Some(values) = spec.get("enum").and_then(Value::as_array) {
        return values.iter().map(word).collect::<Vec<_>>().join(" | ");
    }
    for keyword in ["oneOf", "anyOf"] {
        if let Some(branches) = spec.get(keyword).and_then(Value::as_array) {
            let mut kinds: Vec<String> = branches.iter().map(|branch| kind_of(resolve(branch, root), root)).collect();
            kinds.retain(|kind| kind != "null");
            kinds.dedup();
            return kinds.join(" | ");
        }
    }
    match spec.get("type") {
        Some(Value::String(name)) => match (name.as_str(), spec.get("items")) {
            ("array", Some(items)) => format!("list of {}", kind_of(resolve(items, root), root)),
            ("object", _) => "map".to_owned(),
            _ => name.clone(),
        },
        Some(Value::Array(names)) => {
            names.iter().map(word).filter(|name| name != "null").collect::<Vec<_>>().join(" | ")
        }
        _ => "any".to_owned(),
    }
}
