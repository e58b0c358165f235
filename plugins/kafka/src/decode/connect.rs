//! The format `connect-json`: {"schema": …, "payload": …}, a row whose types the schema tells.

use std::sync::Arc;

use philotes_sdk::json::Scanner;

use super::batch::{Change, Layout, Lsn, OpenBatch, Operation};
use super::connect_schema::ConnectSchema;
use super::envelope::{Found, SchemaText, unwrap};
use super::fill::fill;
use super::logical::Dialect;
use super::topic::{Topic, check_key};
use super::{Appended, Refusal, message_micros, row_key};
use crate::message::Message;

const NO_ENVELOPE: Refusal = Refusal::new(
    "not what Kafka Connect's JSON converter writes with schemas.enable=true: an object of `schema` and `payload`",
);

pub(super) struct ConnectRows {
    key: Arc<[String]>,
    known: Layouts,
    /// Those of the keys' own schemas, for tombstones before the first row.
    keys: Layouts,
}

/// The layouts of schemas, by their text: schemas repeat byte by byte.
#[derive(Default)]
pub(super) struct Layouts {
    known: Vec<(String, Arc<Layout>)>,
    /// The last one used.
    last: usize,
}

impl Layouts {
    /// As many as a topic's partitions have in use at once, and many more.
    const MOST: usize = 64;

    /// The text of the schema used last.
    pub(super) fn last_text(&self) -> &str {
        self.known.get(self.last).map_or("", |(text, _)| text)
    }

    fn last(&self) -> Option<&Arc<Layout>> {
        self.known.get(self.last).map(|(_, layout)| layout)
    }

    /// The layout of a schema with this key; `make` makes it where it is new.
    pub(super) fn get(
        &mut self,
        schema: &SchemaText<'_>,
        key: &Arc<[String]>,
        make: impl FnOnce(&str) -> Result<Arc<Layout>, Refusal>,
    ) -> Result<Arc<Layout>, Refusal> {
        if let (SchemaText::Known, Some((_, layout))) = (schema, self.known.get(self.last))
            && layout.key == *key
        {
            return Ok(Arc::clone(layout));
        }
        let text = match schema {
            SchemaText::Other(text) => *text,
            SchemaText::Known => self.last_text(),
            SchemaText::Null => return Err(NO_ENVELOPE),
        };
        if let Some(at) = self.known.iter().position(|(known, layout)| known == text && layout.key == *key) {
            self.last = at;
        } else {
            let (text, layout) = (text.to_owned(), make(text)?);
            if self.known.len() == Self::MOST {
                self.known.remove(0);
            }
            self.last = self.known.len();
            self.known.push((text, layout));
        }
        Ok(Arc::clone(&self.known[self.last].1))
    }
}

impl ConnectRows {
    pub(super) fn new(key: &[String]) -> Self {
        Self { key: key.to_vec().into(), known: Layouts::default(), keys: Layouts::default() }
    }

    pub(super) fn append(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Refusal> {
        let Some(value) = message.value else { return self.append_tombstone(topic, batch, message) };
        let Found::Wrapped(schema, payload) = unwrap(value, self.known.last_text())? else { return Err(NO_ENVELOPE) };
        if payload == "null" {
            return self.append_tombstone(topic, batch, message);
        }
        let layout = self.known.get(&schema, &self.key, |text| {
            let columns = ConnectSchema::parse(text)?.columns(Dialect::Connect)?;
            topic.layout(columns, Arc::clone(&self.key))
        })?;
        if !topic.begin(batch, &layout, false) {
            return Ok(Appended::CloseFirst);
        }
        let mut scanner = Scanner::enter(payload, b'{').map_err(|_| Refusal::new("the payload is no object"))?;
        fill(batch, &mut scanner, None, |_, member, _| {
            Err(Refusal::new("a member that the schema has not").of(member))
        })?;
        scanner.end()?;
        check_key(batch)?;
        Self::end(topic, batch, message, Operation::Insert, payload.len())
    }

    fn append_tombstone(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Refusal> {
        let key = row_key::of_tombstone(message, &self.key)?;
        let (schema, key) = match unwrap(key.as_bytes(), self.keys.last_text()) {
            Ok(Found::Wrapped(schema, payload)) => (schema, payload),
            // It may be plain text.
            Ok(Found::Bare(_)) | Err(_) => (SchemaText::Null, key),
        };
        // Its row is one of the schema that rows had before, or of the key's own.
        let layout = match self.known.last() {
            Some(layout) => Arc::clone(layout),
            None if schema == SchemaText::Null => {
                return Err(Refusal::new("a message without a value before any with one, whose key has no schema"));
            }
            None => self.keys.get(&schema, &self.key, |text| {
                let columns = ConnectSchema::parse(text)?.columns(Dialect::Connect)?;
                topic.layout(columns, Arc::clone(&self.key))
            })?,
        };
        if !topic.begin(batch, &layout, false) {
            return Ok(Appended::CloseFirst);
        }
        row_key::append(batch, key)?;
        check_key(batch)?;
        Self::end(topic, batch, message, Operation::Delete, key.len())
    }

    fn end(
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
        operation: Operation,
        bytes: usize,
    ) -> Result<Appended, Refusal> {
        let change = Change { operation, micros: message_micros(message), lsn: Lsn::Offset, bytes };
        topic.end_row(batch, message, &change)?;
        Ok(Appended::Rows)
    }
}
