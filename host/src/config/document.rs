//! From a file's text to a tree of values, variables expanded.
//!
//! `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}` are expanded after parsing and in scalars only, so that what
//! a variable holds can never change the structure. `$${` is a plain `${`. What came from an expansion is text until the
//! schema says otherwise, and it is never printed: it may be a secret.

use std::io::Read;
use std::path::Path;

use philotes_sdk::without_secrets;
use serde_json::Number;

use super::bounded::{self, MAX_BYTES};
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
        file_text(Path::new(path))
    }
}

/// The text of a file, which may be one without an end.
pub(crate) fn file_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MAX_BYTES {
        return Err(std::io::Error::other(format!("it has more than {} KiB", MAX_BYTES >> 10)));
    }
    Ok(text)
}

/// Reads the one document of a file; `None` where it cannot be read at all.
pub(crate) fn read(text: &str, variables: &dyn Variables, faults: &mut Faults) -> Option<Node> {
    const ALLOWED: &str = "one YAML document with name, source and sink";
    let before = faults.len();
    if let Err((found, allowed)) = bounded::check(text) {
        faults.add("", found, allowed);
        return None;
    }
    let mut documents = serde_yaml::Deserializer::from_str(text).map(bounded::read);
    let first = match documents.next() {
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
    let node = Conversion { variables, left: MAX_BYTES, faults }.node(first, "");
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

/// From YAML's values to nodes.
struct Conversion<'a> {
    variables: &'a dyn Variables,
    /// How many bytes more variables may bring in.
    left: usize,
    faults: &'a mut Faults,
}

impl Conversion<'_> {
    fn node(&mut self, value: serde_yaml::Value, path: &str) -> Node {
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
                        self.faults.add(path, format!("the number {number}"), "a finite number");
                        Node::Null
                    },
                    Node::Number,
                )
            }
            Value::String(text) => self.expanded(&text, path),
            Value::Sequence(items) => Node::List(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| self.node(item, &format!("{path}[{index}]")))
                    .collect(),
            ),
            Value::Mapping(entries) => {
                let mut map = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let Value::String(key) = key else {
                        self.faults.add(path, "a key that is no text", "keys that are text; quote this one");
                        continue;
                    };
                    let node = self.node(value, &below(path, &key));
                    map.push((key, node));
                }
                Node::Map(map)
            }
            Value::Tagged(tagged) => {
                self.faults.add(path, format!("the YAML tag {}", tagged.tag), "values without tags");
                Node::Null
            }
        }
    }

    fn expanded(&mut self, text: &str, path: &str) -> Node {
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
                self.faults.add(path, "a ${ without its }", ALLOWED_VARIABLES);
                return Node::Null;
            };
            let reference = &rest[start + 2..start + end];
            let Some(value) = look_up(reference, path, self.variables, self.faults) else { return Node::Null };
            let Some(left) = self.left.checked_sub(value.len()) else {
                let allowed = format!("variables with up to {} KiB in all", MAX_BYTES >> 10);
                self.faults.add(path, "more than variables may hold together", allowed);
                return Node::Null;
            };
            self.left = left;
            result.push_str(&value);
            expanded = true;
            rest = &rest[start + end + 1..];
        }
        result.push_str(rest);
        Node::Text { text: result, expanded }
    }
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
    /// A stranger's file is refused at once, whatever it says: the library took thirty seconds for the first of these, and the
    /// memory of the machine for the last.
    #[test]
    fn files_that_make_much_of_little_are_refused() {
        let begun = std::time::Instant::now();
        let laughs: String =
            (1..9).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(50))).collect();
        for (text, expected) in [
            ("[".repeat(100_000), "f.yaml: more than 256 brackets are open at once; allowed: brackets that are closed"),
            ("{a: ".repeat(100_000), "f.yaml: more than 256 brackets are open at once"),
            (format!("a: {}{}", "[".repeat(200), "]".repeat(200)), "lists and maps more than 32 deep in one another"),
            ("- ".repeat(100_000), "lists and maps more than 32 deep in one another"),
            ("? ".repeat(100_000), "f.yaml: broken YAML: "),
            (format!("a: {}", "!x ".repeat(100_000)), "f.yaml: broken YAML: "),
            ("a: 1\n".repeat(400_000), "f.yaml: 2000000 bytes; allowed: a file of up to 1024 KiB"),
            (format!("a: [{}]", "1,".repeat(200_000)), "more than 100000 values"),
            (format!("a0: &a0 [x]\n{laughs}"), "repetition limit exceeded"),
            (
                format!("a: &a [{}]\nb: [{}]", "1,".repeat(1000), "*a,".repeat(1000)),
                "more than 100000 values, those of aliases",
            ),
            (format!("? {}\n: 1", "k".repeat(1025)), "a key of 1025 bytes, where 1024 are allowed"),
        ] {
            let (node, faults) = parse(&text);
            assert_eq!(node, None);
            assert!(faults[0].starts_with("f.yaml: ") && faults[0].contains(expected), "{}: {faults:?}", &text[..20]);
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "it ends, but only after {:?}", begun.elapsed());
        let ordinary = format!("a: {}1{}\nb: &b {{x: 1}}\nc: {{<<: *b, y: 2}}\n", "[".repeat(31), "]".repeat(31));
        let (node, faults) = parse(&ordinary);
        assert!(node.is_some() && faults.is_empty(), "{faults:?}");
    }

    #[test]
    fn variables_bring_in_no_more_than_a_file() {
        struct Long;
        impl Variables for Long {
            fn env(&self, _: &str) -> Option<String> {
                Some("x".repeat(400 << 10))
            }

            fn file(&self, _: &str) -> std::io::Result<String> {
                file_text(Path::new("/dev/zero"))
            }
        }
        let mut faults = Faults::new(Path::new("f.yaml"));
        assert_eq!(read("a: ${env:A}\nb: ${env:A}\nc: ['${env:A}']\nd: ${file:/dev/zero}", &Long, &mut faults), None);
        let faults: Vec<String> = faults.into_list().iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "f.yaml: c[0]: more than variables may hold together; allowed: variables with up to 1024 KiB in all",
                "f.yaml: d: cannot read /dev/zero: it has more than 1024 KiB; allowed: a readable file of UTF-8 text",
            ]
        );
    }
}
