//! Table names from a template: which table a stream lands in.

use iceberg::{NamespaceIdent, TableIdent};
use philotes_sdk::{Error, Result, StreamName};

/// A table's name as a template: dots in the template itself separate namespaces and the table, dots in what is put
/// in never do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// One per level, the table last.
    levels: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// All parts of the stream's name but the last, joined with `_`.
    Schema,
    /// The last part of the stream's name.
    Table,
    /// All parts of the stream's name, joined with `_`.
    Stream,
}

const ALLOWED: &str = "expected namespace.table with {schema}, {table} or {stream}, as in cdc.{schema}_{table}";

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let levels = text.split('.').map(pieces).collect::<Result<Vec<_>, String>>()?;
        if levels.len() < 2 {
            return Err(format!("{text:?} names no namespace; {ALLOWED}"));
        }
        Ok(Self { levels })
    }

    /// The table of a stream.
    ///
    /// # Errors
    /// A Data error when the stream's name cannot be put into the template.
    pub(crate) fn table(&self, stream: &StreamName) -> Result<TableIdent> {
        let fault = |reason: &str| {
            Error::data(format!(
                "stream {stream}: {reason}; rename the stream in the connector's route, or set `table`"
            ))
        };
        let parts = stream.parts();
        let mut names = Vec::with_capacity(self.levels.len());
        for (index, level) in self.levels.iter().enumerate() {
            let mut name = String::new();
            for piece in level {
                match piece {
                    Piece::Text(text) => name.push_str(text),
                    Piece::Schema if parts.len() < 2 => {
                        return Err(fault(
                            "its name has one part, so that {schema} in the table's name stands for nothing",
                        ));
                    }
                    Piece::Schema => name.push_str(&parts[..parts.len() - 1].join("_")),
                    Piece::Table => name.push_str(&parts[parts.len() - 1]),
                    Piece::Stream => name.push_str(&parts.join("_")),
                }
            }
            let is_namespace = index + 1 < self.levels.len();
            if name.is_empty() || name.chars().count() > 255 {
                return Err(fault("a part of the table's name would be empty or longer than 255 characters"));
            }
            if name.chars().any(char::is_control) {
                return Err(fault("the table's name would hold a control character"));
            }
            if is_namespace && name.contains('.') {
                return Err(fault("a namespace would hold a dot, which would make two of it"));
            }
            names.push(name);
        }
        // `levels` has two entries at least.
        let table = names.pop().unwrap_or_default();
        let namespace = NamespaceIdent::from_vec(names)
            .map_err(|e| Error::internal("a table's name without a namespace").with_source(e))?;
        Ok(TableIdent::new(namespace, table))
    }

    /// The namespace of all tables, where it is one and the same.
    pub(crate) fn namespace(&self) -> Option<NamespaceIdent> {
        let levels = &self.levels[..self.levels.len() - 1];
        let texts = levels.iter().map(|level| match level.as_slice() {
            [Piece::Text(text)] => Some(text.clone()),
            _ => None,
        });
        NamespaceIdent::from_vec(texts.collect::<Option<Vec<_>>>()?).ok()
    }
}

fn pieces(level: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = level;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("a {{ is not closed; {ALLOWED}"))?;
            pieces.push(match name {
                "schema" => Piece::Schema,
                "table" => Piece::Table,
                "stream" => Piece::Stream,
                other => return Err(format!("{{{other}}} is not known; {ALLOWED}")),
            });
            rest = after;
        } else {
            let end = rest.find('{').unwrap_or(rest.len());
            let text = &rest[..end];
            if text.contains('}') || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(format!("{text:?} cannot be part of a name; {ALLOWED}"));
            }
            pieces.push(Piece::Text(text.to_owned()));
            rest = &rest[end..];
        }
    }
    if pieces.is_empty() {
        return Err(format!("a part between dots is empty; {ALLOWED}"));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use philotes_sdk::ErrorKind;

    use super::*;

    fn table(template: &str, parts: &[&str]) -> Result<String> {
        let stream = StreamName::new(parts.iter().copied()).unwrap();
        Template::parse(template).unwrap().table(&stream).map(|table| table.to_string())
    }

    #[test]
    fn streams_become_names() {
        assert_eq!(table("cdc.{schema}_{table}", &["public", "orders"]).unwrap(), "cdc.public_orders");
        assert_eq!(table("lake.{schema}.{table}", &["public", "orders"]).unwrap(), "lake.public.orders");
        assert_eq!(table("cdc.{stream}", &["topic"]).unwrap(), "cdc.topic");
        assert_eq!(table("cdc.{stream}", &["db", "public", "orders"]).unwrap(), "cdc.db_public_orders");
        assert_eq!(table("cdc.{table}", &["public", "a.b"]).unwrap(), "cdc.a.b");
        let template = Template::parse("cdc.{table}").unwrap();
        assert_eq!(template.table(&StreamName::new(["public", "a.b"]).unwrap()).unwrap().name(), "a.b");
    }

    #[test]
    fn names_that_cannot_be_are_data_errors() {
        for (template, parts) in [
            ("cdc.{schema}_{table}", &["topic"][..]),
            ("{schema}.{table}", &["a.b", "c"][..]),
            ("cdc.{table}", &["public", ""][..]),
            ("cdc.{table}", &["public", "a\nb"][..]),
        ] {
            assert_eq!(table(template, parts).unwrap_err().kind(), ErrorKind::Data, "{template} {parts:?}");
        }
    }

    #[test]
    fn bad_templates_are_refused() {
        for text in ["orders", "", "cdc.", ".x", "cdc.{tabel}", "cdc.{table", "cdc.a}b", "cdc.a b"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_namespace_is_known_beforehand() {
        assert_eq!(Template::parse("a.b.{table}").unwrap().namespace().unwrap().to_string(), "a.b");
        assert_eq!(Template::parse("{schema}.{table}").unwrap().namespace(), None);
    }
}
