//! The parts of Debezium's change events, in their texts.

use philotes_sdk::json::{Entry, Scanner, Value};

use super::Refusal;
use super::batch::{Lsn, Operation};

/// A message that Debezium sends.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Change(Change<'a>),
    /// A heartbeat, the begin or end of a transaction, a change of a schema, a logical decoding message: no row.
    Other,
}

/// What happened to a row.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) operation: Operation,
    /// It was read in the initial snapshot.
    pub(super) initial_load: bool,
    pub(super) before: Option<&'a str>,
    pub(super) after: Option<&'a str>,
    /// When it happened, in microseconds since 1970.
    pub(super) micros: Option<i64>,
    pub(super) lsn: Lsn<'a>,
}

const NO_EVENT: Refusal = Refusal::new(
    "not a change event of Debezium: an object of `op`, `before`, `after` and `source`, with or without its schema around it",
);

/// What an event's object has.
#[derive(Default)]
struct Members<'a> {
    op: Option<&'a str>,
    before: Option<&'a str>,
    after: Option<&'a str>,
    source: Option<&'a str>,
    times: Times,
    status: bool,
    id: bool,
    ddl: bool,
    database: bool,
    /// How many there are, and how many say when.
    count: usize,
    of_time: usize,
}

/// `ts_us` and `ts_ms`; zero says that nothing is known.
#[derive(Default)]
struct Times {
    micros: Option<i64>,
    millis: Option<i64>,
}

impl Times {
    /// Whether the member is one of them; finer ones are left alone.
    fn take(&mut self, key: &str, value: Value<'_>) -> bool {
        if !key.starts_with("ts_") {
            return false;
        }
        let number = match value {
            Value::Number(digits) => digits.parse().ok().filter(|number| *number != 0),
            _ => None,
        };
        match key {
            "ts_us" => self.micros = number,
            "ts_ms" => self.millis = number,
            "ts_ns" => {}
            _ => return false,
        }
        true
    }

    fn micros(&self) -> Option<i64> {
        self.micros.or_else(|| self.millis?.checked_mul(1_000))
    }
}

/// Reads the object of an event.
pub(super) fn read(text: &str) -> Result<Event<'_>, Refusal> {
    let members = members(text)?;
    let Some(op) = members.op else { return members.without_op() };
    let (operation, initial_load) = match op {
        "c" => (Operation::Insert, false),
        "r" => (Operation::Insert, true),
        "u" => (Operation::Update, false),
        "d" => (Operation::Delete, false),
        "t" => (Operation::Truncate, false),
        "m" => return Ok(Event::Other),
        _ => return Err(Refusal::new("its `op` is none of c, r, u, d, t and m")),
    };
    let (source_micros, lsn) = members.source.map_or(Ok((None, Lsn::Offset)), source)?;
    let micros = source_micros.or(members.times.micros());
    let (before, after) = (members.before, members.after);
    Ok(Event::Change(Change { operation, initial_load, before, after, micros, lsn }))
}

fn members(text: &str) -> Result<Members<'_>, Refusal> {
    let mut scanner = Scanner::enter(text, b'{').map_err(|_| NO_EVENT)?;
    let mut members = Members::default();
    while let Some(Entry::Other(key)) = scanner.entry(b"")? {
        let value = scanner.value()?;
        let object = if let Value::Nested(text) = value { Some(text) } else { None };
        match &*key {
            "before" => members.before = object,
            "after" => members.after = object,
            "source" => members.source = object,
            "op" => members.op = if let Value::String(op) = value { Some(op) } else { None },
            "status" => members.status = true,
            "id" => members.id = true,
            "ddl" => members.ddl = true,
            "databaseName" => members.database = true,
            key => members.of_time += usize::from(members.times.take(key, value)),
        }
        members.count += 1;
    }
    scanner.end()?;
    Ok(members)
}

impl<'a> Members<'a> {
    /// By what it says: topics may have any name.
    fn without_op(&self) -> Result<Event<'a>, Refusal> {
        let heartbeat = self.count > 0 && self.count == self.of_time;
        let transaction = self.status && self.id;
        let schema_change = self.ddl && self.database;
        if heartbeat || transaction || schema_change { Ok(Event::Other) } else { Err(NO_EVENT) }
    }
}

/// When it happened at the source, and at which position.
fn source(text: &str) -> Result<(Option<i64>, Lsn<'_>), Refusal> {
    let mut scanner = Scanner::enter(text, b'{').map_err(|_| NO_EVENT)?;
    let (mut times, mut lsn) = (Times::default(), Lsn::Offset);
    while let Some(Entry::Other(key)) = scanner.entry(b"")? {
        let value = scanner.value()?;
        match (&*key, value) {
            ("lsn", Value::Number(digits)) => lsn = digits.parse().map_or(Lsn::Offset, Lsn::Postgres),
            ("lsn", Value::String(text)) => lsn = Lsn::Text(text),
            (key, value) => drop(times.take(key, value)),
        }
    }
    Ok((times.micros(), lsn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_row_is_told_by_its_content() {
        for text in [
            r#"{"ts_ms":1700000000000}"#,
            r#"{"ts_ms":1,"ts_us":1,"ts_ns":1}"#,
            r#"{"status":"BEGIN","id":"571:53195829","ts_ms":1486500577125,"event_count":null,"data_collections":null}"#,
            r#"{"source":{"version":"3.0"},"ts_ms":1,"databaseName":"inventory","schemaName":null,"ddl":"ALTER TABLE …","tableChanges":[]}"#,
            r#"{"op":"m","ts_ms":1,"source":{},"message":{"prefix":"p","content":"eA=="}}"#,
        ] {
            assert!(matches!(read(text), Ok(Event::Other)), "{text}");
        }
        for text in
            ["{}", r#"{"id":1,"name":"x"}"#, r#"{"op":"x"}"#, r#"{"op":1}"#, "[1]", r#"{"before":null,"after":{}}"#]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_change_happened_when_its_source_says() {
        for (text, micros) in [
            (r#"{"op":"c","source":{"ts_ms":5,"ts_us":5001},"ts_ms":9}"#, Some(5_001)),
            (r#"{"op":"c","source":{"ts_ms":5},"ts_ms":9}"#, Some(5_000)),
            (r#"{"op":"c","source":{"ts_ms":0},"ts_ms":9}"#, Some(9_000)),
            (r#"{"op":"c"}"#, None),
        ] {
            let Ok(Event::Change(change)) = read(text) else { panic!("{text}") };
            assert_eq!(change.micros, micros, "{text}");
        }
    }
}
