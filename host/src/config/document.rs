//! From a file's text to a tree of values, variables expanded.
//!
//! `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}` are expanded after parsing and in scalars only, so that what
//! a variable holds can never change the structure. `$${` is a plain `${`. What came from an expansion is text until the
//! schema says otherwise, and it is never printed: it may be a secret.

use philotes_sdk::without_secrets;
use serde_json::Number;

use super::fault::{Faults, below};

/// A value of a connector file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text {
        text: String,
        /// It came from the environment or a file: coerced to the type the schema asks for, and kept out of faults.
        expanded: bool,
    },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for a fault: the value where it is short and no secret, else its type.
    pub(crate) fn describe(&self, secret: bool) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) if !secret => format!("{value}"),
            Self::Number(value) if !secret => format!("the number {value}"),
            // A URL at a key that wants none may hold a password all the same.
            Self::Text { text, expanded: false } if !secret && text.len() <= 80 && text.contains("://") => {
                format!("{:?}", without_secrets(text))
            }
            Self::Text { text, expanded: false } if !secret && text.len() <= 80 => format!("{text:?}"),
            Self::Bool(_) => "a boolean".to_owned(),
            Self::Number(_) => "a number".to_owned(),
            Self::Text { expanded: true, .. } => "what a variable holds".to_owned(),
            Self::Text { .. } => "a text".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// Where `${…}` looks things up; a test brings its own.
pub trait Variables {
    /// The environment variable, if it is set.
    fn env(&self, name: &str) -> Option<String>;
    /// The content of a file.
    fn file(&self, path: &str) -> std::io::Result<String>;
}

/// The process's environment and the file system.
pub struct Process;

impl Variables for Process {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// Reads the one document of a file; `None` where it cannot be read at all.
pub(crate) fn read(text: &str, variables: &dyn Variables, faults: &mut Faults) -> Option<Node> {
    const ALLOWED: &str = "one YAML document with name, source and sink";
    let before = faults.len();
    let mut documents = serde_yaml::Deserializer::from_str(text).map(serde::Deserialize::deserialize);
    let first: serde_yaml::Value = match documents.next() {
        None | Some(Ok(serde_yaml::Value::Null)) => {
            faults.add("", "the file is empty", ALLOWED);
            return None;
        }
        Some(Ok(value)) => value,
        Some(Err(error)) => {
            faults.add("", format!("broken YAML: {}", located(&error)), ALLOWED);
            return None;
        }
    };
    match documents.next() {
        None => {}
        Some(Err(error)) => {
            faults.add("", format!("broken YAML: {}", located(&error)), ALLOWED);
            return None;
        }
        Some(Ok(_)) => {
            faults.add("", "several YAML documents", "one document per file");
            return None;
        }
    }
    let mut first = first;
    if let Err(error) = first.apply_merge() {
        faults.add("", format!("broken YAML: {error}"), ALLOWED);
        return None;
    }
    let node = convert(first, "", variables, faults);
    if !matches!(node, Node::Map(_)) {
        faults.add("", format!("found {}", node.describe(false)), "a map with name, source and sink");
        return None;
    }
    (faults.len() == before).then_some(node)
}

/// The error with its line and column, which its text does not always carry.
fn located(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(at) if !text.contains("line ") => format!("{text} at line {} column {}", at.line(), at.column()),
        _ => text,
    }
}

fn convert(value: serde_yaml::Value, path: &str, variables: &dyn Variables, faults: &mut Faults) -> Node {
    use serde_yaml::Value;
    match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(value),
        Value::Number(number) => {
            let json = number
                .as_u64()
                .map(Number::from)
                .or_else(|| number.as_i64().map(Number::from))
                .or_else(|| number.as_f64().and_then(Number::from_f64));
            json.map_or_else(
                || {
                    faults.add(path, format!("the number {number}"), "a finite number");
                    Node::Null
                },
                Node::Number,
            )
        }
        Value::String(text) => expand(&text, path, variables, faults),
        Value::Sequence(items) => Node::List(
            items
                .into_iter()
                .enumerate()
                .map(|(index, item)| convert(item, &format!("{path}[{index}]"), variables, faults))
                .collect(),
        ),
        Value::Mapping(entries) => {
            let mut map = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let Value::String(key) = key else {
                    faults.add(path, "a key that is no text", "keys that are text; quote this one");
                    continue;
                };
                let node = convert(value, &below(path, &key), variables, faults);
                map.push((key, node));
            }
            Node::Map(map)
        }
        Value::Tagged(tagged) => {
            faults.add(path, format!("the YAML tag {}", tagged.tag), "values without tags");
            Node::Null
        }
    }
}

fn expand(text: &str, path: &str, variables: &dyn Variables, faults: &mut Faults) -> Node {
    let mut result = String::new();
    let mut expanded = false;
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            result.push_str(&rest[..start - 1]);
            result.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        result.push_str(&rest[..start]);
        let Some(end) = rest[start..].find('}') else {
            faults.add(path, "a ${ without its }", ALLOWED_VARIABLES);
            return Node::Null;
        };
        let Some(value) = look_up(&rest[start + 2..start + end], path, variables, faults) else { return Node::Null };
        result.push_str(&value);
        expanded = true;
        rest = &rest[start + end + 1..];
    }
    result.push_str(rest);
    Node::Text { text: result, expanded }
}

const ALLOWED_VARIABLES: &str = "${env:NAME}, ${env:NAME:-default}, ${file:/path}, or $${ for a plain ${";

fn look_up(reference: &str, path: &str, variables: &dyn Variables, faults: &mut Faults) -> Option<String> {
    if let Some(reference) = reference.strip_prefix("env:") {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        // As in a shell, :- stands in for an empty variable as well.
        let value = variables.env(name).filter(|value| !value.is_empty() || default.is_none());
        return value.or_else(|| default.map(str::to_owned)).or_else(|| {
            faults.add(
                path,
                format!("environment variable {name} is not set"),
                format!("set {name}, or give a default: ${{env:{name}:-default}}"),
            );
            None
        });
    }
    if let Some(file) = reference.strip_prefix("file:") {
        return match variables.file(file) {
            // An editor or `echo` ends the file with a line feed that is no part of the secret.
            Ok(text) => Some(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)),
            Err(error) => {
                faults.add(path, format!("cannot read {file}: {error}"), "a readable file of UTF-8 text");
                None
            }
        };
    }
    let scheme = reference.split(':').next().unwrap_or_default();
    faults.add(path, format!("unknown variable ${{{scheme}…}}"), ALLOWED_VARIABLES);
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    struct Fixed;

    impl Variables for Fixed {
        fn env(&self, name: &str) -> Option<String> {
            match name {
                "HOST" => Some("db".to_owned()),
                "EMPTY" => Some(String::new()),
                "TRICK" => Some("a: {b: c}".to_owned()),
                _ => None,
            }
        }

        fn file(&self, path: &str) -> std::io::Result<String> {
            if path == "/secret" { Ok("s3cret\n".to_owned()) } else { Err(std::io::ErrorKind::NotFound.into()) }
        }
    }

    fn parse(text: &str) -> (Option<Node>, Vec<String>) {
        let mut faults = Faults::new(Path::new("f.yaml"));
        let node = read(text, &Fixed, &mut faults);
        (node, faults.into_list().iter().map(ToString::to_string).collect())
    }

    fn expanded(text: &str) -> Node {
        Node::Text { text: text.to_owned(), expanded: true }
    }

    #[test]
    fn variables_are_expanded_in_scalars_after_parsing() {
        let (node, faults) = parse(
            "a: x ${env:HOST} y\nb: ${env:NONE:-fall back}\nc: ${file:/secret}\nd: ${env:TRICK}\ne: $${env:HOST}\n\
             f: '${env:EMPTY:-e}'\ng: '${env:EMPTY}'\n",
        );
        assert!(faults.is_empty(), "{faults:?}");
        let Some(Node::Map(entries)) = node else { panic!("{node:?}") };
        let values: Vec<Node> = entries.into_iter().map(|(_, node)| node).collect();
        assert_eq!(
            values,
            [
                expanded("x db y"),
                expanded("fall back"),
                expanded("s3cret"),
                expanded("a: {b: c}"),
                Node::Text { text: "${env:HOST}".into(), expanded: false },
                expanded("e"),
                expanded(""),
            ]
        );
    }

    #[test]
    fn what_cannot_be_expanded_is_a_fault_with_its_path() {
        let (node, faults) = parse("a: {b: ['${env:NONE}', '${file:/none}', '${vault:x}', '${env:X']}");
        assert_eq!(node, None);
        assert_eq!(faults.len(), 4);
        assert!(faults[0].starts_with("f.yaml: a.b[0]: environment variable NONE is not set; allowed: set NONE"));
        assert!(faults[1].starts_with("f.yaml: a.b[1]: cannot read /none"));
        assert!(faults[2].starts_with("f.yaml: a.b[2]: unknown variable ${vault…}"));
        assert!(faults[3].starts_with("f.yaml: a.b[3]: a ${ without its }"));
    }

    #[test]
    fn broken_files() {
        for (text, expected) in [
            ("", "f.yaml: the file is empty"),
            ("# only a comment\n", "f.yaml: the file is empty"),
            ("a: 1\n---\nb: 2\n", "f.yaml: several YAML documents"),
            ("- a\n", "f.yaml: found a list; allowed: a map"),
            ("a: 1\na: 2\n", "f.yaml: broken YAML: duplicate entry with key \"a\""),
            ("a: !tag 1\n", "f.yaml: a: the YAML tag !tag"),
            ("1: a\n", "f.yaml: a key that is no text"),
            ("a: .inf\n", "f.yaml: a: the number .inf; allowed: a finite number"),
        ] {
            let (_, faults) = parse(text);
            assert_eq!(faults.len(), 1, "{text:?}: {faults:?}");
            assert!(faults[0].starts_with(expected), "{text:?}: {faults:?}");
        }
        let (_, faults) = parse("a:\n  - b\n c: [\n");
        assert!(faults[0].contains("line 3 column"), "{faults:?}");
    }
}
