//! Which columns identify a table's rows: those of the messages' keys.

use std::sync::Arc;

use philotes_sdk::json::{Entry, Scanner, token};

use super::Refusal;
use super::connect_schema::ConnectSchema;
use super::envelope::{Found, SchemaText, unwrap};
use crate::message::Message;

const NO_KEY: Refusal = Refusal::new("the message's key is no JSON object of key columns");

/// What a message's key says.
pub(super) struct MessageKey<'a> {
    pub(super) names: Arc<[String]>,
    /// The object of their values.
    pub(super) payload: Option<&'a str>,
}

/// What the keys have said so far.
#[derive(Default)]
pub(super) struct DebeziumKey {
    known: Known,
    /// What the key of the message says that is being decoded, where it is something else.
    new: Option<Known>,
}

#[derive(Default)]
struct Known {
    names: Arc<[String]>,
    /// The names as keys of JSON.
    tokens: Vec<Vec<u8>>,
    /// The schema that the names were read from.
    schema: String,
}

impl DebeziumKey {
    /// The key columns as the last message had them.
    pub(super) fn last(&self) -> Arc<[String]> {
        Arc::clone(&self.known.names)
    }

    /// Reads a message's key. [`learn`](Self::learn) has to follow once the message is a row.
    pub(super) fn read<'a>(&mut self, message: &Message<'a>) -> Result<MessageKey<'a>, Refusal> {
        self.new = None;
        let (schema, payload) = match unwrap(message.key.unwrap_or(b"null"), &self.known.schema)? {
            Found::Wrapped(schema, payload) => (schema, payload),
            Found::Bare(text) => (SchemaText::Null, text),
        };
        if payload == "null" {
            // A table without a key never has one.
            if !self.known.names.is_empty() {
                return Err(Refusal::new("the message's key is null, and rows before had one"));
            }
            return Ok(MessageKey { names: self.last(), payload: None });
        }
        match schema {
            SchemaText::Known => {
                let mut scanner = Scanner::new(payload);
                scanner.value()?;
                scanner.end()?;
            }
            SchemaText::Other(schema) => {
                let names = ConnectSchema::parse(schema)?.field_names();
                if names.is_empty() {
                    return Err(Refusal::new("the schema of the message's key is no struct of key columns"));
                }
                self.new = Some(Known::new(names, schema));
            }
            SchemaText::Null if self.has_known_names(payload)? => {}
            SchemaText::Null => self.new = Some(Known::new(names(payload)?, "")),
        }
        let names = self.new.as_ref().map_or_else(|| self.last(), |new| Arc::clone(&new.names));
        Ok(MessageKey { names, payload: Some(payload) })
    }

    /// What the key said is known from now on.
    pub(super) fn learn(&mut self) {
        if let Some(new) = self.new.take() {
            self.known = new;
        }
    }

    /// The names, where the message's key has a schema in a registry. As after [`read`](Self::read), [`learn`](Self::learn) has to follow.
    pub(super) fn told<'n>(&mut self, names: impl Iterator<Item = &'n str> + Clone) -> Arc<[String]> {
        if names.clone().eq(self.known.names.iter().map(String::as_str)) {
            self.new = None;
            return self.last();
        }
        let new = Known::new(names.map(str::to_owned).collect(), "");
        let names = Arc::clone(&new.names);
        self.new = Some(new);
        names
    }

    /// Whether an object's members are those of the last message, which they are most often.
    fn has_known_names(&self, payload: &str) -> Result<bool, Refusal> {
        let mut scanner = Scanner::enter(payload, b'{').map_err(|_| NO_KEY)?;
        for token in &self.known.tokens {
            if scanner.entry(token)? != Some(Entry::Expected) {
                return Ok(false);
            }
            scanner.value()?;
        }
        if self.known.tokens.is_empty() || scanner.entry(b"")?.is_some() {
            return Ok(false);
        }
        scanner.end()?;
        Ok(true)
    }
}

impl Known {
    fn new(names: Vec<String>, schema: &str) -> Self {
        let tokens = names.iter().map(|name| token(name)).collect();
        Self { names: names.into(), tokens, schema: schema.to_owned() }
    }
}

/// The names of an object's members.
fn names(payload: &str) -> Result<Vec<String>, Refusal> {
    let mut scanner = Scanner::enter(payload, b'{')?;
    let mut names = Vec::new();
    while let Some(Entry::Other(name)) = scanner.entry(b"")? {
        names.push(name.into_owned());
        scanner.value()?;
    }
    scanner.end()?;
    if names.is_empty() { Err(NO_KEY) } else { Ok(names) }
}
