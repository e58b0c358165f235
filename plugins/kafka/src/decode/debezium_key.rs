//! Which columns identify a table's rows: those of the messages' keys.

use std::sync::Arc;

use philotes_sdk::json::{Entry, Scanner, token};

use super::connect_schema::ConnectSchema;
use super::envelope::{SchemaText, unwrap};
use super::{Refusal, utf8};
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
    names: Arc<[String]>,
    /// The names as keys of JSON.
    tokens: Vec<Vec<u8>>,
    /// The schema that the names were read from.
    schema: String,
}

impl DebeziumKey {
    /// The key columns as the last message had them.
    pub(super) fn last(&self) -> Arc<[String]> {
        Arc::clone(&self.names)
    }

    pub(super) fn read<'a>(&mut self, message: &Message<'a>) -> Result<MessageKey<'a>, Refusal> {
        let text = utf8(message.key.unwrap_or(b"null"))?;
        let unwrapped = unwrap(text, &self.schema)?;
        let (schema, payload) = unwrapped.map_or((SchemaText::Null, text), |found| (found.schema, found.payload));
        if payload == "null" {
            // A table without a key never has one.
            if !self.names.is_empty() {
                return Err(Refusal::new("the message's key is null, and rows before had one"));
            }
            return Ok(MessageKey { names: self.last(), payload: None });
        }
        match schema {
            SchemaText::Known => {}
            SchemaText::Other(schema) => {
                let names = ConnectSchema::parse(schema)?.field_names();
                if names.is_empty() {
                    return Err(Refusal::new("the schema of the message's key is no struct of key columns"));
                }
                self.set(names);
                schema.clone_into(&mut self.schema);
            }
            SchemaText::Null => self.read_names(payload)?,
        }
        Ok(MessageKey { names: self.last(), payload: Some(payload) })
    }

    /// Takes the names of an object's members, which are those of the last message, most often.
    fn read_names(&mut self, payload: &str) -> Result<(), Refusal> {
        let mut scanner = Scanner::enter(payload, b'{').map_err(|_| NO_KEY)?;
        let mut known = 0;
        while let Some(entry) = scanner.entry(self.tokens.get(known).map_or(&[][..], |token| token))? {
            if entry != Entry::Expected {
                return self.read_other_names(payload);
            }
            scanner.value()?;
            known += 1;
        }
        scanner.end()?;
        if known == self.tokens.len() && known > 0 { Ok(()) } else { self.read_other_names(payload) }
    }

    fn read_other_names(&mut self, payload: &str) -> Result<(), Refusal> {
        let mut scanner = Scanner::enter(payload, b'{')?;
        let mut names = Vec::new();
        while let Some(Entry::Other(name)) = scanner.entry(b"")? {
            names.push(name.into_owned());
            scanner.value()?;
        }
        scanner.end()?;
        if names.is_empty() {
            return Err(NO_KEY);
        }
        self.set(names);
        self.schema.clear();
        Ok(())
    }

    fn set(&mut self, names: Vec<String>) {
        if *self.names != names[..] {
            self.tokens = names.iter().map(|name| token(name)).collect();
            self.names = names.into();
        }
    }
}
