//! JSON whose objects keep the order in which they were written: columns are to stand in the order of a schema's properties.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Object(Vec<(String, Self)>),
    Array(Vec<Self>),
    String(String),
    Bool(bool),
    Integer(i64),
    /// What no schema says anything with: other numbers.
    Number,
    Null,
}

impl Node {
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Self::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn members(&self, name: &str) -> &[(String, Self)] {
        match self.get(name) {
            Some(Self::Object(members)) => members,
            _ => &[],
        }
    }

    pub(super) fn elements(&self, name: &str) -> Option<&[Self]> {
        match self.get(name) {
            Some(Self::Array(elements)) => Some(elements),
            _ => None,
        }
    }

    /// What a JSON pointer (RFC 6901) points to.
    pub(super) fn at(&self, pointer: &str) -> Option<&Self> {
        let mut parts = pointer.split('/');
        if parts.next() != Some("") {
            return None;
        }
        parts.try_fold(self, |node, part| match node {
            Self::Object(_) => node.get(&part.replace("~1", "/").replace("~0", "~")),
            Self::Array(elements) => elements.get(part.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The first object in it, itself included, whose member of this name is this text.
    pub(super) fn find(&self, name: &str, text: &str) -> Option<&Self> {
        match self {
            Self::Object(_) if self.text(name) == Some(text) => Some(self),
            Self::Object(members) => members.iter().find_map(|(_, value)| value.find(name, text)),
            Self::Array(elements) => elements.iter().find_map(|element| element.find(name, text)),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Node, E> {
        Ok(Node::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(i64::try_from(number).map_or(Node::Number, Node::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::String(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Node, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = array.next_element()? {
            elements.push(element);
        }
        Ok(Node::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = object.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}
