//! The format `debezium-json`: change events of Debezium's connectors for PostgreSQL and MySQL, with or without their schema.

use std::sync::Arc;

use philotes_sdk::Result;
use philotes_sdk::json::Scanner;

use super::batch::{Change, Layout, OpenBatch, Operation};
use super::connect::Layouts;
use super::connect_schema::ConnectSchema;
use super::debezium_event::{self, Event};
use super::debezium_key::{DebeziumKey, MessageKey};
use super::envelope::{Found, SchemaText, unwrap};
use super::fill::{fill, fill_left_out};
use super::json_rows::undeclared;
use super::logical::Dialect;
use super::open_rows::OpenRows;
use super::topic::{Topic, check_key};
use super::type_language::parse_columns;
use super::unavailable::Unavailable;
use super::{Appended, Refusal, row_key};
use crate::config::{DebeziumFormat, Others};
use crate::message::Message;

pub(super) struct DebeziumRows {
    /// The rows of events without a schema.
    open: OpenRows,
    known: Layouts,
    key: DebeziumKey,
    unavailable: Unavailable,
}

impl DebeziumRows {
    pub(super) fn new(topic: &mut Topic, format: &DebeziumFormat) -> Result<Self> {
        let declared = parse_columns(&format.columns).map_err(|faults| undeclared(&faults))?;
        let declared = declared.into_iter().map(|(name, kind, text)| (name, kind.with_infinities(), text)).collect();
        Ok(Self {
            open: OpenRows::new(topic, declared, Others::Infer, Arc::default()),
            known: Layouts::default(),
            key: DebeziumKey::default(),
            unavailable: Unavailable::new(&format.unavailable_value),
        })
    }

    pub(super) fn append(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Refusal> {
        let Some(value) = message.value else { return Ok(Appended::Skipped) };
        let (schema, payload) = match unwrap(value, self.known.last_text())? {
            Found::Wrapped(schema, payload) => (schema, payload),
            Found::Bare(text) => (SchemaText::Null, text),
        };
        if payload == "null" {
            return Ok(Appended::Skipped);
        }
        let Event::Change(event) = debezium_event::read(payload)? else { return Ok(Appended::Skipped) };
        // The key of a TRUNCATE is null whatever the table's key is.
        let key = match event.operation {
            Operation::Truncate => MessageKey { names: self.key.last(), payload: None },
            _ => self.key.read(message)?,
        };
        let layout = match &schema {
            SchemaText::Null => {
                self.open.set_key(topic, &key.names);
                None
            }
            schema => Some(self.known.get(schema, &key.names, |text| layout(topic, text, &key.names))?),
        };
        self.append_change(topic, batch, message, &event, key.payload, layout.as_deref())
    }

    /// The same of an event whose schema is in a registry; `layout` is asked for the one that its rows have with the key columns.
    pub(super) fn append_registered(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
        (payload, key): (&str, Option<&[u8]>),
        layout: impl FnOnce(&mut Topic, &Arc<[String]>) -> Result<Arc<Layout>, Refusal>,
    ) -> Result<Appended, Refusal> {
        let Event::Change(event) = debezium_event::read(payload)? else { return Ok(Appended::Skipped) };
        let key = match event.operation {
            Operation::Truncate => MessageKey { names: self.key.last(), payload: None },
            _ => self.key.read(&Message { key, ..*message })?,
        };
        let layout = layout(topic, &key.names)?;
        self.append_change(topic, batch, message, &event, key.payload, Some(&layout))
    }

    fn append_change(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
        event: &debezium_event::Change<'_>,
        key: Option<&str>,
        layout: Option<&Layout>,
    ) -> Result<Appended, Refusal> {
        let ready = match layout {
            Some(layout) => topic.begin(batch, layout, event.initial_load),
            None => self.open.begin(topic, batch, event.initial_load)?,
        };
        if !ready {
            return Ok(Appended::CloseFirst);
        }
        self.fill_row(topic, batch, event, key)?;
        if layout.is_none() {
            self.open.learn(topic, batch);
        }
        if event.operation != Operation::Truncate {
            self.key.learn();
        }
        let (operation, micros, lsn) = (event.operation, event.micros, event.lsn);
        let bytes = event.after.or(event.before).map_or(0, str::len);
        topic.end_row(batch, message, &Change { operation, micros, lsn, bytes })?;
        Ok(Appended::Rows)
    }

    fn fill_row(
        &mut self,
        topic: &Topic,
        batch: &mut OpenBatch,
        event: &debezium_event::Change<'_>,
        key: Option<&str>,
    ) -> Result<(), Refusal> {
        match event.operation {
            Operation::Truncate => return Ok(()),
            Operation::Insert | Operation::Update => {
                let after = event.after.ok_or(Refusal::new("a change event without `after`"))?;
                self.fill_object(topic, batch, after)?;
                if let (Some(before), false) = (event.before, batch.left_out.is_empty()) {
                    fill_left_out(batch, before, &self.unavailable)?;
                }
            }
            Operation::Delete => match (event.before, key) {
                (Some(before), _) => self.fill_object(topic, batch, before)?,
                (None, Some(key)) => row_key::append_object(batch, key)?,
                (None, None) => return Err(Refusal::new("a DELETE with neither `before` nor a key")),
            },
        }
        check_key(batch)
    }

    fn fill_object(&mut self, topic: &Topic, batch: &mut OpenBatch, text: &str) -> Result<(), Refusal> {
        let mut scanner =
            Scanner::enter(text, b'{').map_err(|_| Refusal::new("its `before` or `after` is no object"))?;
        if batch.open {
            return self.open.fill(topic, batch, &mut scanner, Some(&self.unavailable));
        }
        fill(batch, &mut scanner, Some(&self.unavailable), |_, member, _| {
            Err(Refusal::new("a member that the schema has not").of(member))
        })
    }
}

/// The layout that an envelope's schema says.
fn layout(topic: &mut Topic, text: &str, key: &Arc<[String]>) -> Result<Arc<Layout>, Refusal> {
    let schema = ConnectSchema::parse(text)?;
    let row = schema.field("after").or_else(|| schema.field("before"));
    let row = row.ok_or(Refusal::new("the schema is none of a change event: it has neither `after` nor `before`"))?;
    topic.layout(row.columns(Dialect::Debezium)?, Arc::clone(key))
}
