//! Names of streams and their partitions, and offsets in them.

use std::fmt;

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
            let quoted =
                part.is_empty() || part.chars().any(|c| c == '.' || c == '"' || c.is_whitespace() || c.is_control());
            if quoted {
                write!(f, "\"{}\"", part.replace('"', "\"\""))?;
            } else {
                f.write_str(part)?;
            }
        }
        Ok(())
    }
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
    fn offsets_are_short_json() {
        assert!(Offset::new("{\"a\":1}").is_ok());
        assert!(Offset::new("{").is_err());
        assert!(Offset::new(format!("\"{}\"", "x".repeat(1023))).is_err());
        assert!(Offset::new(format!("\"{}\"", "x".repeat(1022))).is_ok());
    }
}
