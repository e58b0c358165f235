//! The parts of Debezium's change events, in their texts.

use philotes_sdk::json::{Entry, Scanner, Value, token};

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

/// A member that means something, of an event or of its source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Op,
    Before,
    After,
    Source,
    Micros,
    Millis,
    /// When it happened, finer than is kept.
    Nanos,
    Lsn,
    Status,
    Id,
    /// What else is said of a transaction.
    OfTransaction,
    Ddl,
    DatabaseName,
    Other,
}

impl Member {
    fn of(key: &str) -> Self {
        match key {
            "op" => Self::Op,
            "before" => Self::Before,
            "after" => Self::After,
            "source" => Self::Source,
            "ts_us" => Self::Micros,
            "ts_ms" => Self::Millis,
            "ts_ns" => Self::Nanos,
            "lsn" => Self::Lsn,
            "status" => Self::Status,
            "id" => Self::Id,
            "event_count" | "data_collections" => Self::OfTransaction,
            "ddl" => Self::Ddl,
            "databaseName" => Self::DatabaseName,
            _ => Self::Other,
        }
    }
}

/// The members of the last object and their names as keys of JSON: the next one has the same in the same order.
#[derive(Default)]
struct Order(Vec<(Vec<u8>, Member)>);

impl Order {
    /// As many members as are remembered.
    const MOST: usize = 64;

    /// Calls with each member of an object and its value.
    fn walk<'a>(&mut self, text: &'a str, mut take: impl FnMut(Member, Value<'a>)) -> Result<(), Refusal> {
        let mut scanner = Scanner::enter(text, b'{').map_err(|_| NO_EVENT)?;
        let mut position = 0;
        loop {
            let (expected, member) =
                self.0.get(position).map_or((&[][..], Member::Other), |(token, member)| (token, *member));
            let Some(entry) = scanner.entry(expected)? else { break };
            let member = match entry {
                Entry::Expected => member,
                Entry::Other(key) => {
                    self.0.truncate(position);
                    if position < Self::MOST {
                        self.0.push((token(&key), Member::of(&key)));
                    }
                    Member::of(&key)
                }
            };
            take(member, scanner.value()?);
            position += 1;
        }
        scanner.end()?;
        Ok(())
    }
}

/// Reads events.
#[derive(Default)]
pub(super) struct EventReader {
    event: Order,
    source: Order,
}

/// What an event's object has.
#[derive(Default)]
struct Members<'a> {
    op: Option<&'a str>,
    before: Option<&'a str>,
    after: Option<&'a str>,
    source: Option<&'a str>,
    times: Times,
    /// BEGIN or END.
    status: bool,
    id: bool,
    ddl: bool,
    database: bool,
    /// How many there are, how many say when, and how many belong to what is said of a transaction.
    count: usize,
    of_time: usize,
    of_transaction: usize,
}

/// `ts_us` and `ts_ms`; zero says that nothing is known.
#[derive(Default)]
struct Times {
    micros: Option<i64>,
    millis: Option<i64>,
}

impl Times {
    fn take(&mut self, member: Member, value: Value<'_>) {
        let number = match value {
            Value::Number(digits) => digits.parse().ok().filter(|number| *number != 0),
            _ => None,
        };
        match member {
            Member::Micros => self.micros = number,
            Member::Millis => self.millis = number,
            _ => {}
        }
    }

    fn micros(&self) -> Option<i64> {
        self.micros.or_else(|| self.millis?.checked_mul(1_000))
    }
}

impl EventReader {
    /// Reads the object of an event.
    pub(super) fn read<'a>(&mut self, text: &'a str) -> Result<Event<'a>, Refusal> {
        let mut members = Members::default();
        self.event.walk(text, |member, value| members.take(member, value))?;
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
        let (source_micros, lsn) = members.source.map_or(Ok((None, Lsn::Offset)), |source| self.read_source(source))?;
        let micros = source_micros.or(members.times.micros());
        let (before, after) = (members.before, members.after);
        Ok(Event::Change(Change { operation, initial_load, before, after, micros, lsn }))
    }

    /// When it happened at the source, and at which position.
    fn read_source<'a>(&mut self, text: &'a str) -> Result<(Option<i64>, Lsn<'a>), Refusal> {
        let (mut times, mut lsn) = (Times::default(), Lsn::Offset);
        self.source.walk(text, |member, value| match (member, value) {
            (Member::Lsn, Value::Number(digits)) => lsn = digits.parse().map_or(Lsn::Offset, Lsn::Postgres),
            (Member::Lsn, Value::String(text)) => lsn = Lsn::Text(text),
            (Member::Micros | Member::Millis, value) => times.take(member, value),
            _ => {}
        })?;
        Ok((times.micros(), lsn))
    }
}

impl<'a> Members<'a> {
    fn take(&mut self, member: Member, value: Value<'a>) {
        let object = if let Value::Nested(text) = value { Some(text) } else { None };
        self.count += 1;
        match member {
            Member::Op => self.op = if let Value::String(op) = value { Some(op) } else { None },
            Member::Before => self.before = object,
            Member::After => self.after = object,
            Member::Source => self.source = object,
            Member::Micros | Member::Millis | Member::Nanos => {
                self.of_time += 1;
                self.times.take(member, value);
            }
            Member::Status => self.status = matches!(value, Value::String("BEGIN" | "END")),
            Member::Id => self.id = true,
            Member::OfTransaction => self.of_transaction += 1,
            Member::Ddl => self.ddl = true,
            Member::DatabaseName => self.database = true,
            Member::Lsn | Member::Other => {}
        }
    }

    /// By what it says, and by nothing else that it says: topics may have any name, and rows any columns.
    fn without_op(&self) -> Result<Event<'a>, Refusal> {
        let heartbeat = self.count > 0 && self.count == self.of_time;
        let transaction = self.status && self.id && self.count == 2 + self.of_time + self.of_transaction;
        let schema_change = self.ddl && self.database && self.source.is_some();
        if heartbeat || transaction || schema_change { Ok(Event::Other) } else { Err(NO_EVENT) }
    }
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
            assert!(matches!(EventReader::default().read(text), Ok(Event::Other)), "{text}");
        }
        for text in [
            "{}",
            r#"{"id":1,"name":"x"}"#,
            r#"{"id":1,"status":"x"}"#,
            r#"{"id":1,"status":"END","name":"x"}"#,
            r#"{"ddl":1,"databaseName":2}"#,
            r#"{"op":"x"}"#,
            r#"{"op":1}"#,
            "[1]",
            r#"{"before":null,"after":{}}"#,
        ] {
            assert!(EventReader::default().read(text).is_err(), "{text}");
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
            let mut reader = EventReader::default();
            let Ok(Event::Change(change)) = reader.read(text) else { panic!("{text}") };
            assert_eq!(change.micros, micros, "{text}");
        }
    }

    #[test]
    fn members_may_come_in_any_order() {
        let mut reader = EventReader::default();
        for text in [
            r#"{"op":"c","after":{"a":1},"source":{"lsn":5,"ts_ms":7}}"#,
            r#"{"op":"c","after":{"a":1},"source":{"lsn":5,"ts_ms":7}}"#,
            r#"{"source":{"ts_ms":7,"x":null,"lsn":5},"x":1,"op":"c","after":{"a":1}}"#,
            r#"{"source":{"lsn":5,"ts_ms":7,"x":null},"op":"c","x":1,"after":{"a":1}}"#,
            r#"{"op":"c","source":{"ts_ms":7,"lsn":5},"after":{"a":1}}"#,
        ] {
            let Ok(Event::Change(change)) = reader.read(text) else { panic!("{text}") };
            let lsn = matches!(change.lsn, Lsn::Postgres(5));
            assert_eq!(
                (change.operation, change.after, change.micros, lsn),
                (Operation::Insert, Some(r#"{"a":1}"#), Some(7_000), true)
            );
        }
        assert!(matches!(reader.read(r#"{"ts_ms":1}"#), Ok(Event::Other)));
    }
}
