//! The format `json-schema`: JSON in Confluent's wire format, whose columns' types a JSON Schema of the registry tells.

mod described;
mod node;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use philotes_sdk::json::Scanner;

use super::batch::{Change, Layout, Lsn, OpenBatch, Operation};
use super::column::ColumnSpec;
use super::debezium::DebeziumRows;
use super::fill::fill;
use super::kind::{Kind, Member};
use super::logical::Dialect;
use super::registered::{Failure, Layouts, Schemas};
use super::topic::{Topic, check_key};
use super::{Appended, Refusal, json_value, message_micros, row_key, utf8, wire};
use crate::config::{DebeziumFormat, Envelope, RegisteredFormat};
use crate::message::Message;
use crate::registry::{Language, Registered, Registry};

/// Decodes the messages of a topic.
pub(super) struct JsonSchemaRows {
    schemas: Schemas<Written>,
    layouts: Layouts,
    /// The columns that identify rows, where no envelope says it.
    key: Arc<[String]>,
    /// With the envelope `debezium`.
    events: Option<DebeziumRows>,
}

/// What the values of a schema are.
#[derive(Debug)]
struct Written {
    columns: Vec<ColumnSpec>,
    /// They are objects, whose members are the columns.
    object: bool,
}

impl JsonSchemaRows {
    pub(super) fn new(
        topic: &mut Topic,
        registry: Arc<Registry>,
        format: &RegisteredFormat,
    ) -> philotes_sdk::Result<Self> {
        let debezium =
            || DebeziumFormat { unavailable_value: format.unavailable_value.clone(), ..DebeziumFormat::default() };
        let events = match format.envelope {
            Envelope::None => None,
            Envelope::Debezium => Some(DebeziumRows::new(topic, &debezium())?),
        };
        Ok(Self {
            schemas: Schemas::new(registry, Language::JsonSchema),
            layouts: Layouts::default(),
            key: format.key.clone().into(),
            events,
        })
    }

    pub(super) fn append(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Failure> {
        let Some(value) = message.value else { return self.append_nothing(topic, batch, message) };
        let (id, value) = wire::split(value)?;
        let text = utf8(value)?;
        if text.trim_ascii() == "null" {
            return self.append_nothing(topic, batch, message);
        }
        let Self { schemas, layouts, key, events } = self;
        if let Some(events) = events {
            let written = schemas.get(id, Written::events)?;
            return Ok(events.append_registered(
                topic,
                batch,
                message,
                (text, unwired(message.key)),
                |topic, key| layouts.get(topic, id, &written.columns, key),
            )?);
        }
        let written = schemas.get(id, Written::rows)?;
        let layout = layouts.get(topic, id, &written.columns, key)?;
        if !topic.begin(batch, &layout, false) {
            return Ok(Appended::CloseFirst);
        }
        written.append(text, batch)?;
        check_key(batch)?;
        end(topic, batch, message, Operation::Insert, text.len())
    }

    /// A message without a value.
    fn append_nothing(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Failure> {
        if self.events.is_some() {
            return Ok(Appended::Skipped);
        }
        let unwired = Message { key: unwired(message.key), ..*message };
        let key = row_key::of_tombstone(&unwired, &self.key)?;
        let layout = self.layout_of_nothing(topic, message)?.ok_or(Refusal::new(
            "a message without a value before any with one: nothing says what types the key columns have",
        ))?;
        if !topic.begin(batch, &layout, false) {
            return Ok(Appended::CloseFirst);
        }
        row_key::append(batch, key)?;
        check_key(batch)?;
        end(topic, batch, message, Operation::Delete, key.len())
    }

    /// The row of a message without a value is one of the layout that rows had before, or have by the registry, or of the key's own.
    fn layout_of_nothing(&mut self, topic: &mut Topic, message: &Message<'_>) -> Result<Option<Arc<Layout>>, Failure> {
        if let Some(layout) = self.layouts.last() {
            return Ok(Some(Arc::clone(layout)));
        }
        if let Some(id) = self.schemas.newest(message.topic)? {
            let written = self.schemas.get(id, Written::rows)?;
            return Ok(Some(self.layouts.get(topic, id, &written.columns, &self.key)?));
        }
        let Some((id, _)) = message.key.and_then(wire::split_key) else { return Ok(None) };
        let written = self.schemas.get(id, Written::rows)?;
        let mut columns = written.columns.clone();
        match (&mut *columns, &*self.key) {
            ([column], [name]) if !written.object => column.name.clone_from(name),
            _ => columns.retain(|column| self.key.contains(&column.name)),
        }
        Ok(Some(self.layouts.get(topic, id, &columns, &self.key)?))
    }
}

/// The text of a key, which has its schema's id before it where it has one.
fn unwired(key: Option<&[u8]>) -> Option<&[u8]> {
    key.map(|key| wire::split_key(key).map_or(key, |(_, text)| text))
}

impl Written {
    /// Rows without an envelope, and keys.
    fn rows(registered: &Registered) -> Result<Self, String> {
        Ok(match described::parse(registered, Dialect::Connect)? {
            Kind::Struct(members) => Self { columns: columns(members), object: true },
            kind => Self { columns: vec![ColumnSpec::told("value", kind, None)], object: false },
        })
    }

    /// The rows in Debezium's change events. What is no change event has no columns: whether that may be, the events say.
    fn events(registered: &Registered) -> Result<Self, String> {
        let Kind::Struct(members) = described::parse(registered, Dialect::Debezium)? else {
            return Err("it is no change event of Debezium: an object of op, before, after and source".to_owned());
        };
        let row = |name: &str| {
            members.iter().find_map(|member| match &member.kind {
                Kind::Struct(columns) if member.name == name => Some(columns.clone()),
                _ => None,
            })
        };
        let columns = row("after").or_else(|| row("before")).map(columns).unwrap_or_default();
        Ok(Self { columns, object: true })
    }

    fn append(&self, text: &str, batch: &mut OpenBatch) -> Result<(), Refusal> {
        if !self.object {
            let mut scanner = Scanner::new(text);
            let value = scanner.value()?;
            scanner.end()?;
            return json_value::append(&mut batch.columns[0].values, value);
        }
        let mut scanner = Scanner::enter(text, b'{').map_err(|_| Refusal::new("the value is no JSON object"))?;
        fill(batch, &mut scanner, None, |_, member, _| {
            Err(Refusal::new("a member that the schema has not").of(member))
        })?;
        Ok(scanner.end()?)
    }
}

fn columns(members: Vec<Member>) -> Vec<ColumnSpec> {
    members.into_iter().map(|member| ColumnSpec::told(&member.name, member.kind, member.source_type)).collect()
}

fn end(
    topic: &mut Topic,
    batch: &mut OpenBatch,
    message: &Message<'_>,
    operation: Operation,
    bytes: usize,
) -> Result<Appended, Failure> {
    let change = Change { operation, micros: message_micros(message), lsn: Lsn::Offset, bytes };
    topic.end_row(batch, message, &change)?;
    Ok(Appended::Rows)
}
