//! Debezium's change events in Avro: which of an envelope's fields is what, and what an event says.

use std::sync::Arc;

use super::bytes::{Bytes, within};
use super::row::Row;
use super::schema::{Record, Shape, Type};
use crate::decode::Refusal;
use crate::decode::batch::{Lsn, Operation};
use crate::decode::logical::Dialect;
use crate::decode::unavailable::Unavailable;

/// What a record of Debezium is.
#[derive(Debug)]
pub(super) enum Debezium {
    Envelope(Envelope),
    /// A heartbeat, the begin or end of a transaction, a change of a schema: no row.
    NoRow,
}

/// The envelope of change events of one table.
#[derive(Debug)]
pub(super) struct Envelope {
    fields: Vec<(Role, String, Arc<Type>)>,
    /// The rows in `before` and `after`.
    pub(super) row: Row,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Before,
    After,
    Operation,
    Source,
    Micros,
    Millis,
    Other,
}

/// What happened to a row.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) operation: Operation,
    /// It was read in the initial snapshot.
    pub(super) initial_load: bool,
    /// The records' bytes.
    pub(super) before: Option<Bytes<'a>>,
    pub(super) after: Option<Bytes<'a>>,
    /// When it happened, in microseconds since 1970.
    pub(super) micros: Option<i64>,
    pub(super) lsn: Lsn<'a>,
}

/// What is known of an event so far.
#[derive(Default)]
struct Found<'a> {
    operation: Option<&'a str>,
    before: Option<Bytes<'a>>,
    after: Option<Bytes<'a>>,
    source: Times,
    lsn: Option<i64>,
    own: Times,
}

/// Zero says that nothing is known.
#[derive(Clone, Copy, Default)]
struct Times {
    micros: Option<i64>,
    millis: Option<i64>,
}

impl Times {
    fn take(&mut self, role: Role, value: Option<i64>) {
        let value = value.filter(|value| *value != 0);
        match role {
            Role::Micros => self.micros = value,
            _ => self.millis = value,
        }
    }

    fn micros(self) -> Option<i64> {
        self.micros.or_else(|| self.millis?.checked_mul(1_000))
    }
}

impl Debezium {
    /// An error says why it is none of Debezium's.
    pub(super) fn new(record: &Record, unavailable: &Unavailable) -> Result<Self, String> {
        let field = |name: &str| record.fields.iter().find(|field| field.name == name);
        if field("op").is_none() {
            return if is_no_row(record) { Ok(Self::NoRow) } else { Err(no_event(record)) };
        }
        let Some(row) = field("after").or_else(|| field("before")) else {
            // A message that was written into PostgreSQL's log.
            return if field("message").is_some() { Ok(Self::NoRow) } else { Err(no_event(record)) };
        };
        let Shape::Record(columns) = &row.of.beneath_null().shape else { return Err(no_event(record)) };
        if field("before").is_some_and(|before| before.of.beneath_null() != row.of.beneath_null()) {
            return Err(format!("\"before\" and \"after\" of {} are not of one type", record.name));
        }
        let row = Row::new(columns, Dialect::Debezium)?.with_unavailable(unavailable);
        let fields = record.fields.iter().map(|field| (role(&field.name), field.name.clone(), field.of.clone()));
        Ok(Self::Envelope(Envelope { fields: fields.collect(), row }))
    }
}

fn no_event(record: &Record) -> String {
    format!("{} is no change event of Debezium: a record of op, before, after and source", record.name)
}

fn is_no_row(record: &Record) -> bool {
    let has = |name: &str| record.fields.iter().any(|field| field.name == name);
    let heartbeat = record.fields.iter().all(|field| matches!(field.name.as_str(), "ts_ms" | "ts_us" | "ts_ns"));
    let transaction = has("status") && has("id");
    let schema_change = has("ddl") && has("databaseName");
    (heartbeat && !record.fields.is_empty()) || transaction || schema_change
}

fn role(name: &str) -> Role {
    match name {
        "before" => Role::Before,
        "after" => Role::After,
        "op" => Role::Operation,
        "source" => Role::Source,
        "ts_us" => Role::Micros,
        "ts_ms" => Role::Millis,
        _ => Role::Other,
    }
}

impl Envelope {
    /// Reads over an event; `None` where it is no row.
    pub(super) fn read<'a>(&'a self, bytes: &mut Bytes<'a>) -> Result<Option<Event<'a>>, Refusal> {
        let mut found = Found::default();
        for (role, name, of) in &self.fields {
            found.field(*role, of, bytes).map_err(|why| within(name, why))?;
        }
        found.event()
    }
}

impl<'a> Found<'a> {
    fn field(&mut self, role: Role, of: &'a Type, bytes: &mut Bytes<'a>) -> Result<(), Refusal> {
        match role {
            Role::Before => self.before = record(of, bytes)?,
            Role::After => self.after = record(of, bytes)?,
            Role::Operation => self.operation = text(of, bytes)?,
            Role::Micros | Role::Millis => self.own.take(role, number(of, bytes)?),
            Role::Source => return self.source(of, bytes),
            Role::Other => bytes.skip(of)?,
        }
        Ok(())
    }

    fn source(&mut self, of: &'a Type, bytes: &mut Bytes<'a>) -> Result<(), Refusal> {
        let Some(of) = present(of, bytes)? else { return Ok(()) };
        let Shape::Record(source) = &of.shape else { return bytes.skip(of) };
        for field in &source.fields {
            let read = match role(&field.name) {
                role @ (Role::Micros | Role::Millis) => {
                    number(&field.of, bytes).map(|value| self.source.take(role, value))
                }
                _ if field.name == "lsn" => number(&field.of, bytes).map(|value| self.lsn = value),
                _ => bytes.skip(&field.of),
            };
            read.map_err(|why| within(&field.name, why))?;
        }
        Ok(())
    }

    fn event(self) -> Result<Option<Event<'a>>, Refusal> {
        let (operation, initial_load) = match self.operation {
            Some("c") => (Operation::Insert, false),
            Some("r") => (Operation::Insert, true),
            Some("u") => (Operation::Update, false),
            Some("d") => (Operation::Delete, false),
            Some("t") => (Operation::Truncate, false),
            Some("m") => return Ok(None),
            _ => return Err(Refusal::new("its `op` is none of c, r, u, d, t and m")),
        };
        let lsn = self.lsn.and_then(|lsn| u64::try_from(lsn).ok());
        Ok(Some(Event {
            operation,
            initial_load,
            before: self.before,
            after: self.after,
            micros: self.source.micros().or(self.own.micros()),
            lsn: lsn.map_or(Lsn::Offset, Lsn::Postgres),
        }))
    }
}

/// The type of the value that comes next; `None` where it is null.
fn present<'a>(of: &'a Type, bytes: &mut Bytes<'_>) -> Result<Option<&'a Type>, Refusal> {
    let Shape::Union(branches) = &of.shape else { return Ok(Some(of)) };
    let branch = &branches[bytes.index(branches.len(), "branch")?];
    Ok(if branch.shape == Shape::Null { None } else { Some(branch) })
}

/// Reads over a record, and gives its bytes.
fn record<'a>(of: &Type, bytes: &mut Bytes<'a>) -> Result<Option<Bytes<'a>>, Refusal> {
    let Some(of) = present(of, bytes)? else { return Ok(None) };
    let begin = *bytes;
    bytes.skip(of)?;
    let length = begin.0.len() - bytes.0.len();
    Ok(Some(Bytes::new(&begin.0[..length])))
}

fn text<'a>(of: &'a Type, bytes: &mut Bytes<'a>) -> Result<Option<&'a str>, Refusal> {
    let Some(of) = present(of, bytes)? else { return Ok(None) };
    match &of.shape {
        Shape::String => bytes.text().map(Some),
        Shape::Enum(symbols) => bytes.index(symbols.len(), "symbol").map(|index| Some(symbols[index].as_str())),
        _ => bytes.skip(of).map(|()| None),
    }
}

fn number(of: &Type, bytes: &mut Bytes<'_>) -> Result<Option<i64>, Refusal> {
    let Some(of) = present(of, bytes)? else { return Ok(None) };
    match &of.shape {
        Shape::Long | Shape::Int => bytes.long().map(Some),
        _ => bytes.skip(of).map(|()| None),
    }
}
