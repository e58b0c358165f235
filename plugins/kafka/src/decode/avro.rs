//! The format `avro`: Avro in Confluent's wire format, each message by the schema that its writer had.
//!
//! The bytes become columns in one pass, without a tree of values. This is done here and not by arrow-avro, which is made for files
//! of one's own: a message that breaks off there takes the rows before it along, and branches of unions, symbols, UTF-8 and counts are
//! believed or checked too late. Schemas of readers, and so defaults and aliases, are not known: a table's columns follow its writers'.

mod bytes;
mod event;
mod meaning;
mod placeholder;
mod plan;
mod row;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::batch::{Change, Layout, Lsn, OpenBatch, Operation};
use super::column::ColumnSpec;
use super::debezium_key::DebeziumKey;
use super::logical::Dialect;
use super::registered::{Failure, Layouts, Schemas};
use super::topic::{Topic, check_key};
use super::unavailable::Unavailable;
use super::{Appended, Refusal, message_micros, row_key, wire};
use crate::config::{Envelope as EnvelopeConfig, RegisteredFormat};
use crate::message::Message;
use crate::registry::{Language, Registered, Registry};
use bytes::Bytes;
use event::{Debezium, Envelope, Event};
use plan::Plan;
use row::Row;
use schema::{Shape, Type};

/// Decodes the messages of a topic.
pub(super) struct AvroRows {
    schemas: Schemas<Written>,
    keys: Schemas<Written>,
    layouts: Layouts,
    /// The columns that identify rows, where no envelope says it.
    key: Arc<[String]>,
    /// Those that the keys of Debezium's messages have named.
    debezium_key: DebeziumKey,
    envelope: EnvelopeConfig,
    unavailable: Unavailable,
}

/// What the values of a schema are.
#[derive(Debug)]
struct Written {
    id: u32,
    of: Arc<Type>,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    Record(Row),
    /// What is no record is one column.
    Value(Plan, Vec<ColumnSpec>),
    Debezium(Debezium),
}

impl AvroRows {
    pub(super) fn new(registry: Arc<Registry>, format: &RegisteredFormat) -> Self {
        Self {
            schemas: Schemas::new(Arc::clone(&registry), Language::Avro),
            keys: Schemas::new(registry, Language::Avro),
            layouts: Layouts::default(),
            key: format.key.clone().into(),
            debezium_key: DebeziumKey::default(),
            envelope: format.envelope,
            unavailable: Unavailable::new(&format.unavailable_value),
        }
    }

    pub(super) fn append(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Failure> {
        let Some(value) = message.value else { return self.append_nothing(topic, batch, message) };
        let (id, value) = wire::split(value)?;
        let written = self.written(id)?;
        let mut bytes = Bytes::new(value);
        match &written.rows {
            Rows::Value(plan, columns) => {
                let layout = self.layouts.get(topic, id, columns, &self.key)?;
                if !topic.begin(batch, &layout, false) {
                    return Ok(Appended::CloseFirst);
                }
                plan.append(&mut bytes, &mut batch.columns[0].values)?;
                end(topic, batch, message, bytes, value.len())
            }
            Rows::Record(row) => {
                if !written.of.enter(&mut bytes)? {
                    bytes.end()?;
                    return self.append_nothing(topic, batch, message);
                }
                let layout = self.layouts.get(topic, id, &row.columns, &self.key)?;
                if !topic.begin(batch, &layout, false) {
                    return Ok(Appended::CloseFirst);
                }
                row.append(&mut bytes, batch)?;
                end(topic, batch, message, bytes, value.len())
            }
            Rows::Debezium(Debezium::NoRow) => Ok(Appended::Skipped),
            Rows::Debezium(Debezium::Envelope(envelope)) => {
                if !written.of.enter(&mut bytes)? {
                    return Ok(Appended::Skipped);
                }
                let event = envelope.read(&mut bytes)?;
                bytes.end()?;
                let Some(event) = event else { return Ok(Appended::Skipped) };
                self.append_event(topic, batch, message, id, envelope, &event)
            }
        }
    }

    fn written(&mut self, id: u32) -> Result<Arc<Written>, Failure> {
        let (envelope, unavailable) = (self.envelope, &self.unavailable);
        self.schemas.get(id, |registered| match envelope {
            EnvelopeConfig::None => Written::rows(registered),
            EnvelopeConfig::Debezium => Written::events(registered, unavailable),
        })
    }

    /// A message without a value.
    fn append_nothing(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
    ) -> Result<Appended, Failure> {
        if self.envelope == EnvelopeConfig::Debezium {
            return Ok(Appended::Skipped);
        }
        let key = match message.key.and_then(wire::split_key) {
            Some((id, key)) if !self.key.is_empty() => Key::Avro(self.keys.get(id, Written::rows)?, Bytes::new(key)),
            _ => Key::Text(row_key::of_tombstone(message, &self.key)?),
        };
        let layout = self.layout_of_nothing(topic, message.topic, &key)?.ok_or(Refusal::new(
            "a message without a value before any with one: nothing says what types the key columns have",
        ))?;
        if !topic.begin(batch, &layout, false) {
            return Ok(Appended::CloseFirst);
        }
        match key {
            Key::Avro(written, key) => written.append_key(key, batch)?,
            Key::Text(key) => row_key::append(batch, key)?,
            Key::None => {}
        }
        check_key(batch)?;
        let bytes = message.key.map_or(0, <[u8]>::len);
        let change = Change { operation: Operation::Delete, micros: message_micros(message), lsn: Lsn::Offset, bytes };
        topic.end_row(batch, message, &change)?;
        Ok(Appended::Rows)
    }

    /// The row of a message without a value is one of the layout that rows had before, or have by the registry, or of the key's own.
    fn layout_of_nothing(
        &mut self,
        topic: &mut Topic,
        name: &str,
        key: &Key<'_>,
    ) -> Result<Option<Arc<Layout>>, Failure> {
        if let Some(layout) = self.layouts.last() {
            return Ok(Some(Arc::clone(layout)));
        }
        if let Some(id) = self.schemas.newest(name)? {
            let written = self.written(id)?;
            if let Rows::Record(row) = &written.rows {
                return Ok(Some(self.layouts.get(topic, id, &row.columns, &self.key)?));
            }
        }
        let Key::Avro(written, _) = key else { return Ok(None) };
        match &**written {
            Written { id, rows: Rows::Record(row), .. } => {
                let columns: Vec<_> =
                    row.columns.iter().filter(|column| self.key.contains(&column.name)).cloned().collect();
                Ok(Some(self.layouts.get(topic, *id, &columns, &self.key)?))
            }
            Written { id, rows: Rows::Value(plan, _), .. } if self.key.len() == 1 => {
                let column = ColumnSpec::told(&self.key[0], plan.kind.clone(), None);
                Ok(Some(self.layouts.get(topic, *id, &[column], &self.key)?))
            }
            _ => Ok(None),
        }
    }

    fn append_event(
        &mut self,
        topic: &mut Topic,
        batch: &mut OpenBatch,
        message: &Message<'_>,
        id: u32,
        envelope: &Envelope,
        event: &Event<'_>,
    ) -> Result<Appended, Failure> {
        let row = &envelope.row;
        // The key of a TRUNCATE is null whatever the table's key is.
        let (names, key) = match event.operation {
            Operation::Truncate => (self.debezium_key.last(), Key::None),
            _ => self.event_key(message)?,
        };
        let layout = self.layouts.get(topic, id, &row.columns, &names)?;
        if !topic.begin(batch, &layout, event.initial_load) {
            return Ok(Appended::CloseFirst);
        }
        match event.operation {
            Operation::Truncate => {}
            Operation::Insert | Operation::Update => {
                let mut after = event.after.ok_or(Refusal::new("a change event without `after`"))?;
                row.append(&mut after, batch)?;
                if let (Some(mut before), false) = (event.before, batch.left_out.is_empty()) {
                    row.append_left_out(&mut before, batch)?;
                }
                check_key(batch)?;
            }
            Operation::Delete => {
                match (event.before, key) {
                    (Some(mut before), _) => row.append(&mut before, batch)?,
                    (None, Key::Avro(written, key)) => written.append_key(key, batch)?,
                    (None, Key::Text(key)) => row_key::append_object(batch, key)?,
                    (None, Key::None) => return Err(Refusal::new("a DELETE with neither `before` nor a key").into()),
                }
                check_key(batch)?;
            }
        }
        if event.operation != Operation::Truncate {
            self.debezium_key.learn();
        }
        let Event { operation, micros, lsn, .. } = *event;
        let bytes = event.after.or(event.before).map_or(0, |record| record.0.len());
        topic.end_row(batch, message, &Change { operation, micros, lsn, bytes })?;
        Ok(Appended::Rows)
    }

    /// The key columns that a message's key names, and the key.
    fn event_key<'a>(&mut self, message: &Message<'a>) -> Result<(Arc<[String]>, Key<'a>), Failure> {
        let Some((id, key)) = message.key.and_then(wire::split_key) else {
            let key = self.debezium_key.read(message)?;
            return Ok((key.names, key.payload.map_or(Key::None, Key::Text)));
        };
        let written = self.keys.get(id, Written::rows)?;
        let Rows::Record(row) = &written.rows else {
            return Err(Refusal::new("the message's key is no record of key columns").into());
        };
        let names = row.columns.iter().map(|column| column.name.as_str());
        let names = self.debezium_key.told(names);
        Ok((names, Key::Avro(written, Bytes::new(key))))
    }
}

/// A message's key.
enum Key<'a> {
    None,
    Avro(Arc<Written>, Bytes<'a>),
    /// Plain text, or JSON.
    Text(&'a str),
}

impl Written {
    /// Rows without an envelope, and keys.
    fn rows(registered: &Registered) -> Result<Self, String> {
        let of = schema::parse(registered)?;
        let rows = match &of.beneath_null().shape {
            Shape::Record(record) => Rows::Record(Row::new(record, Dialect::Connect)?),
            _ => {
                let plan = Plan::new(&of, Dialect::Connect)?;
                let source_type = Some(plan::source_type(&of).to_owned());
                let column = ColumnSpec::told("value", plan.kind.clone(), source_type);
                Rows::Value(plan, vec![column])
            }
        };
        Ok(Self { id: registered.id, of, rows })
    }

    /// Debezium's change events.
    fn events(registered: &Registered, unavailable: &Unavailable) -> Result<Self, String> {
        let of = schema::parse(registered)?;
        let Shape::Record(record) = &of.beneath_null().shape else {
            return Err("it is no change event of Debezium: a record of op, before, after and source".to_owned());
        };
        let rows = Rows::Debezium(Debezium::new(record, unavailable)?);
        Ok(Self { id: registered.id, of, rows })
    }

    /// Appends the columns that a message's key says of a row that is gone; the others were not sent.
    fn append_key(&self, mut bytes: Bytes<'_>, batch: &mut OpenBatch) -> Result<(), Refusal> {
        match &self.rows {
            Rows::Record(row) => {
                if self.of.enter(&mut bytes)? {
                    row.append_key(&mut bytes, batch)?;
                }
            }
            Rows::Value(plan, _) => {
                let key = Arc::clone(&batch.key);
                let [name] = &*key else {
                    return Err(Refusal::new("the message's key is no record with the key columns"));
                };
                row::append_key_value(plan, name, &mut bytes, batch)?;
            }
            Rows::Debezium(_) => return Err(Refusal::new("the message's key is no record with the key columns")),
        }
        batch.leave_out_the_rest();
        bytes.end()
    }
}

/// Ends a row that a message without an envelope is.
fn end(
    topic: &mut Topic,
    batch: &mut OpenBatch,
    message: &Message<'_>,
    rest: Bytes<'_>,
    bytes: usize,
) -> Result<Appended, Failure> {
    rest.end()?;
    check_key(batch)?;
    let change = Change { operation: Operation::Insert, micros: message_micros(message), lsn: Lsn::Offset, bytes };
    topic.end_row(batch, message, &change)?;
    Ok(Appended::Rows)
}
