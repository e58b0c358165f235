//! Names of streams and their partitions, and offsets in them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The name of a stream as an array of parts: `[public, orders]`, `[topic]`.
///
/// Printed with dots between the parts; a part that is empty or holds a dot, a quote, white space or a control
/// character is printed in double quotes, a quote in it doubled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamName(Vec<String>);

impl StreamName {
    /// A name of these parts; there must be at least one.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) when there is no part.
    pub fn new<P: Into<String>>(parts: impl IntoIterator<Item = P>) -> Result<Self> {
        let parts: Vec<String> = parts.into_iter().map(Into::into).collect();
        if parts.is_empty() {
            return Err(Error::data("a stream's name needs at least one part"));
        }
        Ok(Self(parts))
    }

    /// The parts, at least one.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            if needs_quotes(part) {
                write!(f, "\"{}\"", part.replace('"', "\"\""))?;
            } else {
                f.write_str(part)?;
            }
        }
        Ok(())
    }
}

/// Reads a name as it is printed; what [`Display`](fmt::Display) would have quoted must be quoted.
impl FromStr for StreamName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fault = || {
            Error::config(format!(
                "{text:?} is no stream name; expected parts with dots between, as in public.orders, a part with dots, quotes or white space in double quotes"
            ))
        };
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let mut part = String::new();
            if let Some(quoted) = rest.strip_prefix('"') {
                rest = quoted;
                loop {
                    let (inside, after) = rest.split_once('"').ok_or_else(fault)?;
                    part.push_str(inside);
                    rest = after;
                    // A doubled quote stands for one, a single one ends the part.
                    let Some(after) = rest.strip_prefix('"') else { break };
                    part.push('"');
                    rest = after;
                }
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                part.push_str(&rest[..end]);
                if needs_quotes(&part) {
                    return Err(fault());
                }
                rest = &rest[end..];
            }
            parts.push(part);
            if rest.is_empty() {
                return Self::new(parts);
            }
            rest = rest.strip_prefix('.').ok_or_else(fault)?;
        }
    }
}

fn needs_quotes(part: &str) -> bool {
    part.is_empty() || part.chars().any(|c| c == '.' || c == '"' || c.is_whitespace() || c.is_control())
}

/// One ordered part of a stream. The partition is `"0"` where a stream has only one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamPartition {
    /// The stream.
    pub stream: StreamName,
    /// The partition, as the source names it.
    pub partition: String,
}

impl StreamPartition {
    /// The only partition (`"0"`) of a stream that has no others.
    #[must_use]
    pub fn only(stream: StreamName) -> Self {
        Self { stream, partition: "0".to_owned() }
    }
}

impl fmt::Display for StreamPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.partition)
    }
}

/// A source's mark in one partition of a stream: UTF-8 JSON of at most [`Offset::MAX_BYTES`] that only the source
/// reads; a later one replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(String);

impl Offset {
    /// The longest offset, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 1024;

    /// An offset from its JSON text.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) when the text is no JSON or too long.
    pub fn new(json: impl Into<String>) -> Result<Self> {
        let json = json.into();
        if json.len() > Self::MAX_BYTES {
            return Err(Error::data(format!(
                "an offset of {} bytes; at most {} are allowed",
                json.len(),
                Self::MAX_BYTES
            )));
        }
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&json) {
            return Err(Error::data("an offset must be JSON").with_source(error));
        }
        Ok(Self(json))
    }

    /// The offset of a value that serialises to JSON.
    ///
    /// # Errors
    /// As [`Offset::new`], and when the value does not serialise.
    pub fn from_value(value: &impl Serialize) -> Result<Self> {
        let json =
            serde_json::to_string(value).map_err(|e| Error::internal("an offset does not serialise").with_source(e))?;
        Self::new(json)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An offset together with what it is an offset of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOffset {
    /// Where.
    #[serde(flatten)]
    pub at: StreamPartition,
    /// How far.
    pub offset: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_print_with_dots_and_quotes_where_needed() {
        let name = StreamName::new(["public", "order items", "a.b", "q\"q", ""]).unwrap();
        assert_eq!(name.to_string(), r#"public."order items"."a.b"."q""q"."""#);
        assert!(StreamName::new(Vec::<String>::new()).is_err());
    }

    #[test]
    fn names_are_read_as_they_are_printed() {
        for parts in [&["public", "orders"][..], &["a"], &["order items", "a.b", "q\"q", ""], &["\"", "\"\"", "größe"]]
        {
            let name = StreamName::new(parts.iter().copied()).unwrap();
            assert_eq!(name.to_string().parse::<StreamName>().unwrap(), name);
        }
        for text in ["", ".", "a.", ".a", "a b", "a\"b", "\"a", "\"a\"b", "\"a\".", "a\nb"] {
            assert!(text.parse::<StreamName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn offsets_are_short_json() {
        assert!(Offset::new("{\"a\":1}").is_ok());
        assert!(Offset::new("{").is_err());
        assert!(Offset::new(format!("\"{}\"", "x".repeat(1023))).is_err());
        assert!(Offset::new(format!("\"{}\"", "x".repeat(1022))).is_ok());
    }
}
