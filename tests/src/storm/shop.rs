//! What is written while the storm lasts: tables that change under overlapping transactions, rows of the buffer that nobody
//! can write, and what PostgreSQL itself keeps of all that was committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::truth::Change;
use crate::chaos::Mode;
use crate::sql::Session;

/// Writers per shop.
const WRITERS: u64 = 3;
/// Keys per table: few, so that transactions meet.
const KEYS: i64 = 200;
/// What the audit calls a record that cannot be written.
const LETTER: &str = "LETTER";
/// One change in so many removes all rows of a table that is kept equal. In a log that would be a row without a key.
const TRUNCATES: u32 = 300;
/// How long a writer waits before it tries a server again.
const AWAY: Duration = Duration::from_millis(200);

/// The tables of one connector: `NAME_0`, `NAME_1`, …
#[derive(Clone, Debug)]
pub(super) struct Shop {
    /// The connector's source id; the tables' names begin with it.
    pub(super) name: String,
    tables: u32,
    /// What the lake has of them.
    pub(super) mode: Mode,
}

/// What does not know of Philotes: each change as a row, written by a trigger in the transaction of the change. The number is
/// drawn while the row is locked, so that a key's changes have theirs in the order of their commits.
const AUDIT: &str = "
    create sequence change;
    create table audit (n bigserial primary key, stream text not null, id bigint not null, operation text not null,
        v bigint not null);
    create index on audit (stream);
    create function audit() returns trigger language plpgsql as $$
    begin
        if tg_op = 'INSERT' then
            insert into audit (stream, id, operation, v) values (tg_table_name, new.id, 'INSERT', new.v);
        elsif tg_op = 'DELETE' then
            insert into audit (stream, id, operation, v) values (tg_table_name, old.id, 'DELETE', old.v);
        elsif old.id = new.id then
            insert into audit (stream, id, operation, v) values (tg_table_name, new.id, 'UPDATE', new.v);
        else
            insert into audit (stream, id, operation, v) values (tg_table_name, old.id, 'DELETE', old.v),
                (tg_table_name, new.id, 'INSERT', new.v);
        end if;
        return null;
    end $$";

impl Shop {
    pub(super) fn new(name: &str, tables: u32, mode: Mode) -> Self {
        Self { name: name.to_owned(), tables, mode }
    }

    /// What all shops of a server share, once.
    pub(super) fn prepare(session: &Session) -> Result<()> {
        session.batch(AUDIT)
    }

    /// The names of the tables, without their schema.
    pub(super) fn tables(&self) -> impl Iterator<Item = String> + use<'_> {
        (0..self.tables).map(|number| format!("{}_{number}", self.name))
    }

    /// Makes a table, captured, in place of the one that is there; it has so many columns that the first one had not.
    ///
    /// Nothing tells of a DROP: a log keeps what was there before, and so would a table that is to be equal. So the rows of that
    /// one are removed first, as whoever drops such a table has to.
    pub(super) fn make(&self, session: &Session, table: &str, more: u32) -> Result<()> {
        let more: String = (1..=more).map(|n| format!(", more_{n} text default repeat('more ', {n})")).collect();
        let (name, mut empty) = (&self.name, String::new());
        if self.mode == Mode::Upsert && !session.one(&format!("select to_regclass('{table}')"))?.is_empty() {
            empty = format!("truncate {table};");
        }
        session.batch(&format!(
            "begin; set local lock_timeout = '20s'; {empty} drop table if exists {table}; \
             create table {table} (id bigint primary key, v bigint not null, who text{more}); \
             create trigger audit after insert or update or delete on {table} for each row execute function audit(); \
             select philotes.capture('public.{table}', '{name}'); commit"
        ))
    }

    /// Starts the writers; what they do follows from the seed, when they do it does not.
    pub(super) fn open(&self, dsn: &str, seed: u64) -> Writers {
        let over = Arc::new(AtomicBool::new(false));
        let threads = (0..WRITERS)
            .map(|number| {
                let writer = Writer {
                    shop: self.clone(),
                    dsn: dsn.to_owned(),
                    random: StdRng::seed_from_u64(seed.wrapping_mul(WRITERS).wrapping_add(number)),
                    over: Arc::clone(&over),
                    number,
                };
                std::thread::spawn(move || writer.write())
            })
            .collect();
        Writers { over, threads }
    }

    /// Every committed change of a table, each key's in the order of its commits.
    pub(super) fn changes(session: &Session, table: &str) -> Result<Vec<Change>> {
        session
            .rows(&format!(
                "select id, operation, v from audit where stream = '{table}' and operation <> '{LETTER}' order by n"
            ))?
            .into_iter()
            .map(|row| match <[Option<String>; 3]>::try_from(row) {
                Ok([Some(id), Some(operation), Some(v)]) => Ok((id.parse()?, operation, v.parse()?)),
                _ => anyhow::bail!("a change of {table} makes no sense"),
            })
            .collect()
    }
}

impl Shop {
    /// The marks of all records that have to become dead letters, sorted.
    pub(super) fn letters(&self, session: &Session) -> Result<Vec<i64>> {
        let tables: Vec<String> = self.tables().map(|table| format!("'{table}'")).collect();
        let rows = session.rows(&format!(
            "select id from audit where operation = '{LETTER}' and stream in ({}) order by id",
            tables.join(", ")
        ))?;
        let mark = |cell: &Option<String>| cell.as_ref().and_then(|mark| mark.parse().ok());
        rows.iter().map(|row| row.first().and_then(mark).context("a mark that is no number")).collect()
    }

    /// Changes every row of a table to what it is, so that all come once more.
    pub(super) fn touch(session: &Session, table: &str) -> Result<()> {
        session.batch(&format!("update {table} set v = v"))
    }

    /// A last change of each table, so that every stream is looked at once more.
    pub(super) fn close(&self, session: &Session) -> Result<()> {
        for table in self.tables() {
            session.batch(&format!("insert into {table} (id, v) values ({KEYS} + 100, nextval('change'))"))?;
        }
        Ok(())
    }
}

/// The writers of a shop.
pub(super) struct Writers {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Writer {
    shop: Shop,
    dsn: String,
    random: StdRng,
    over: Arc<AtomicBool>,
    number: u64,
}

impl Writer {
    /// Transaction upon transaction. An error is a server that is away, a deadlock, or a table that is being made anew: what
    /// of it was committed, the audit knows.
    fn write(mut self) {
        let mut session = None;
        while !self.over.load(Ordering::Relaxed) {
            let outcome = match &session {
                Some(session) => self.transact(session),
                None => Session::connect(&self.dsn).map(|new| session = Some(new)),
            };
            if outcome.is_err() {
                let kept = session.take().filter(|session| session.batch("rollback").is_ok());
                session = kept;
                std::thread::sleep(AWAY);
            }
        }
    }

    /// One transaction: mostly short, sometimes seconds long; one in five is rolled back, some in part.
    fn transact(&mut self, session: &Session) -> Result<()> {
        let long = self.random.random_ratio(1, 12);
        let changes = self.random.random_range(1..=if long { 12 } else { 5 });
        let tables: Vec<String> = self.shop.tables().collect();
        session.batch("begin; set local lock_timeout = '5s'")?;
        for number in 0..changes {
            let table = &tables[self.random.random_range(0..tables.len())];
            let statement = self.change(table);
            if self.random.random_ratio(1, 25) {
                self.write_bad_record(session, table)?;
            }
            if self.random.random_ratio(1, 10) {
                session.batch(&format!("savepoint part; {statement}; rollback to savepoint part"))?;
            } else {
                session.batch(&statement)?;
            }
            if long && number + 1 < changes && !self.over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(self.random.random_range(50..600)));
            }
        }
        session.batch(if self.random.random_ratio(1, 5) { "rollback" } else { "commit" })?;
        std::thread::sleep(Duration::from_millis(self.random.random_range(20..120)));
        Ok(())
    }

    /// A record that the source cannot decode, or one that no table can take: a day has no 24:00:00 in Iceberg. Its key is that
    /// of a good row, to which nothing may happen.
    fn write_bad_record(&mut self, session: &Session, table: &str) -> Result<()> {
        let (name, id) = (&self.shop.name, self.random.random_range(1..=KEYS));
        let (value, kind) = if self.random.random() { ("many", "integer") } else { ("24:00:00", "time") };
        session.batch(&format!(
            "with mark as (insert into audit (stream, id, operation, v) values ('{table}', nextval('change'), '{LETTER}', 0) \
             returning id) \
             insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, key_columns, after_data, \
             metadata, event_time) select '{name}', 'public', '{table}', 'INSERT', 'bad ' || id || '.', '[\"id\"]', \
             '{{\"id\": {id}, \"bad_{kind}\": \"{value}\"}}', '{{\"columns\": [{{\"name\": \"id\", \"type\": \"bigint\"}}, \
             {{\"name\": \"bad_{kind}\", \"type\": \"{kind}\"}}]}}', now() from mark"
        ))
    }

    fn change(&mut self, table: &str) -> String {
        if self.shop.mode == Mode::Upsert && self.random.random_ratio(1, TRUNCATES) {
            return format!("truncate {table}");
        }
        let (id, number) = (self.random.random_range(1..=KEYS), self.number);
        match self.random.random_range(0..20) {
            0..12 => format!(
                "insert into {table} (id, v, who) values ({id}, nextval('change'), 'writer {number}') \
                 on conflict (id) do update set v = excluded.v, who = excluded.who"
            ),
            12..15 => format!("update {table} set v = nextval('change') where id between {id} and {id} + 3"),
            // While Spark writes rows anew, Java forgets the deletes of a commit that has no rows, if another one comes after it.
            15..19 if self.shop.mode == Mode::Upsert => format!(
                "insert into {table} (id, v) values ({KEYS} + 50 + {number}, nextval('change')) \
                 on conflict (id) do update set v = excluded.v; delete from {table} where id = {id}"
            ),
            15..19 => format!("delete from {table} where id = {id}"),
            _ => {
                let other = self.random.random_range(1..=KEYS);
                format!(
                    "update {table} set id = {other}, v = nextval('change') where id = {id} and {id} <> {other} \
                     and not exists (select from {table} where id = {other})"
                )
            }
        }
    }
}

/// How many changes were committed.
pub(super) fn committed(session: &Session) -> Result<i64> {
    session.number("select count(*) from audit").context("cannot count the changes")
}
