//! The one session that changes the tables: few keys are changed often, the others now and then.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::tables::{CONTENT, Column, Keyed, region};
use crate::sql::Session;

/// How many rows a statement changes at most.
const STATEMENT: [usize; 8] = [1, 1, 2, 10, 50, 150, 300, 500];
/// How often each table is truncated.
const TRUNCATES: i64 = 3;
/// How many changes may wait in the buffer: what lies further ahead than that is written when nothing is killed any more.
const AHEAD: i64 = 50_000;
/// How many statements are run between two looks at how many there are.
const AT_ONCE: usize = 5;
/// How long it waits where it is ahead.
const PAUSE: Duration = Duration::from_millis(20);

/// A writer at work.
pub(super) struct Writer {
    thread: JoinHandle<Result<()>>,
    written: Arc<AtomicI64>,
    allowed: Arc<AtomicI64>,
    /// Held while a statement runs.
    calm: Arc<Mutex<bool>>,
}

impl Writer {
    /// Writes until the first of these tables has had so many changes; the others get fewer.
    pub(super) fn start(dsn: &str, tables: &[Keyed], keys: i64, changes: i64, seed: u64) -> Result<Self> {
        let session = Session::connect(dsn)?;
        let (written, allowed) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(i64::MAX)));
        let calm = Arc::new(Mutex::new(false));
        let tables = tables.to_vec();
        let thread = std::thread::spawn({
            let (written, allowed, calm) = (Arc::clone(&written), Arc::clone(&allowed), Arc::clone(&calm));
            move || {
                session.batch("set synchronous_commit = off")?;
                let mut statements = Statements { random: StdRng::seed_from_u64(seed), keys };
                let mut truncated = 0;
                let look = || -> Result<i64> {
                    let done = tables[0].last_change(&session)?;
                    written.store(done, Ordering::Relaxed);
                    Ok(done)
                };
                loop {
                    let done = look()?;
                    if done >= changes {
                        return Ok(());
                    }
                    for number in 0..AT_ONCE {
                        let calm = calm.lock().unwrap_or_else(PoisonError::into_inner);
                        if number == 0 && !*calm && done * (TRUNCATES + 1) / changes > truncated {
                            truncated += 1;
                            tables.iter().try_for_each(|table| session.batch(&statements.truncate(table)))?;
                        }
                        // Now and then a statement is for one of the others.
                        let other = statements.random.random_range(1..tables.len() * 6);
                        let table = tables.get(other).unwrap_or(&tables[0]);
                        session.batch(&statements.next(table, *calm))?;
                    }
                    while look()? > allowed.load(Ordering::Relaxed) || waiting(&session)? > AHEAD {
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        });
        Ok(Self { thread, written, allowed, calm })
    }

    /// How many changes the first table has had.
    pub(super) fn written(&self) -> i64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lets it write until the first table has had so many changes.
    pub(super) fn allow(&self, changes: i64) {
        self.allowed.store(changes, Ordering::Relaxed);
    }

    /// Whether it deletes nothing from now on, but for what changes of keys take away.
    pub(super) fn calm(&self, calm: bool) {
        *self.calm.lock().unwrap_or_else(PoisonError::into_inner) = calm;
    }

    /// Whether it has written all.
    pub(super) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it has.
    pub(super) fn finish(self) -> Result<()> {
        self.thread.join().map_err(|_| anyhow!("the writer panicked"))?
    }
}

/// How many changes wait in the buffer.
fn waiting(session: &Session) -> Result<i64> {
    session.number("select count(*) from philotes.cdc_events where processed_at is null")
}

/// Fills a table: the keys of one slot in so many, so that each part lies among the others.
pub(super) fn fill(table: &Keyed, keys: i64, part: i64, parts: i64) -> String {
    let slots: Vec<i64> = (part..keys).step_by(usize::try_from(parts).unwrap_or(1)).collect();
    insert(table, &slots)
}

/// Makes one statement after the other.
struct Statements {
    random: StdRng,
    keys: i64,
}

impl Statements {
    /// A transaction.
    fn next(&mut self, table: &Keyed, calm: bool) -> String {
        let slots = self.slots();
        let kind = self.random.random_range(0..100);
        if calm {
            return match kind {
                0..30 => insert(table, &slots),
                30..40 => self.change_keys(table, &slots),
                40..50 => update(table, &slots, true),
                _ => update(table, &slots, false),
            };
        }
        match kind {
            0..43 => update(table, &slots, false),
            43..53 => update(table, &slots, true),
            53..70 => insert(table, &slots),
            70..80 => delete(table, &slots),
            80..88 => self.change_keys(table, &slots),
            // More than one change of a row in a transaction, and in a commit.
            88..91 => [update(table, &slots, true), update(table, &slots, false)].join("; "),
            91..94 => [delete(table, &slots), insert(table, &slots)].join("; "),
            94..97 => [insert(table, &slots), self.change_keys(table, &slots), insert(table, &slots)].join("; "),
            97..99 => [insert(table, &slots), delete(table, &slots)].join("; "),
            _ => format!("begin; {}; {}; rollback", update(table, &slots, false), delete(table, &slots)),
        }
    }

    /// A TRUNCATE among other changes of its transaction, and rows again.
    fn truncate(&mut self, table: &Keyed) -> String {
        let (before, after) = (self.slots(), self.slots());
        let half: Vec<i64> = (0..self.keys).step_by(2).collect();
        let all = [update(table, &before, false), format!("truncate {}", table.name), insert(table, &half)];
        [all.join("; "), delete(table, &after)].join("; ")
    }

    /// Some slots, each once; mostly the first ones.
    fn slots(&mut self) -> Vec<i64> {
        let wanted = STATEMENT.choose(&mut self.random).copied().unwrap_or(1);
        let power = if self.random.random_bool(0.3) { 1 } else { 4 };
        let mut slots = BTreeSet::new();
        for _ in 0..wanted {
            slots.insert(self.slot(power));
        }
        slots.into_iter().collect()
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "there are few slots")]
    fn slot(&mut self, power: i32) -> i64 {
        let share: f64 = self.random.random();
        (share.powi(power) * self.keys as f64) as i64
    }

    /// Gives some rows the keys of others that are not there.
    fn change_keys(&mut self, table: &Keyed, slots: &[i64]) -> String {
        let to: BTreeSet<i64> = slots.iter().map(|_| self.slot(1)).collect();
        let key_of = |column: &Column| column.value.replace("slot", "to_slot");
        let set: Vec<String> = table.key.iter().map(|column| format!("{} = {}", column.name, key_of(column))).collect();
        let taken: Vec<String> =
            table.key.iter().map(|column| format!("o.{} = {}", column.name, key_of(column))).collect();
        format!(
            "update {name} t set {}, {} from (select *, nextval('change') as number from unnest({}, {}) as n (slot, to_slot)) n \
             where {} and to_slot is not null and not exists (select from {name} o where {})",
            set.join(", "),
            content(),
            array(slots),
            array(&to.into_iter().collect::<Vec<_>>()),
            of_slot(table),
            taken.join(" and "),
            name = table.name,
        )
    }
}

fn array(slots: &[i64]) -> String {
    let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
    format!("'{{{}}}'::bigint[]", slots.join(","))
}

/// The slots, each with the number of its change.
fn numbered(slots: &[i64]) -> String {
    format!("(select slot, nextval('change') as number from unnest({}) slot) n", array(slots))
}

fn of_slot(table: &Keyed) -> String {
    let equal: Vec<String> = table.key.iter().map(|column| format!("t.{} = {}", column.name, column.value)).collect();
    equal.join(" and ")
}

fn content() -> String {
    let set: Vec<String> = CONTENT.iter().map(|column| format!("{} = {}", column.name, column.value)).collect();
    set.join(", ")
}

fn insert(table: &Keyed, slots: &[i64]) -> String {
    let columns = || table.key.iter().chain(&CONTENT);
    format!(
        "insert into {} (region, {}) select {}, {} from {} on conflict do nothing",
        table.name,
        columns().map(|column| column.name).collect::<Vec<_>>().join(", "),
        region("slot"),
        columns().map(|column| column.value).collect::<Vec<_>>().join(", "),
        numbered(slots),
    )
}

/// Changes rows where they are, or moves them to other partitions as well.
fn update(table: &Keyed, slots: &[i64], moves: bool) -> String {
    let moved = if moves { format!("region = {}, ", region("number")) } else { String::new() };
    format!("update {} t set {moved}{} from {} where {}", table.name, content(), numbered(slots), of_slot(table))
}

fn delete(table: &Keyed, slots: &[i64]) -> String {
    format!("delete from {} t using unnest({}) slot where {}", table.name, array(slots), of_slot(table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_table::SourceTable;
    use crate::upsert::oracle::Oracle;
    use crate::upsert::tables::{BY_ID, BY_UUID, KV};

    /// PostgreSQL's own table, read while it is written, is what the trigger's log comes to; all kinds of changes are in it.
    #[test]
    fn the_log_of_changes_comes_to_the_table() {
        let Some(postgres) = crate::postgres_or_skip() else { return };
        let session = postgres.session().unwrap();
        // The buffer, which stays empty.
        session.batch(include_str!("../../../plugins/postgres-buffer/sql/init.sql")).unwrap();
        session.batch("create sequence change").unwrap();
        let tables = [KV, BY_ID, BY_UUID];
        let mut oracles = Vec::new();
        for table in &tables {
            table.make(&session).unwrap();
            table.audit(&session).unwrap();
            session.batch(&fill(table, 1000, 0, 2)).unwrap();
            oracles.push(Oracle::new(SourceTable::read(&session, table.name).unwrap()).unwrap());
        }
        let writer = Writer::start(&postgres.dsn(), &tables, 1000, 20_000, 1).unwrap();
        let mut done = false;
        while !done {
            done = writer.is_done();
            for (table, oracle) in tables.iter().zip(&mut oracles) {
                let source = oracle.source().clone();
                let rows = source.rows(&session).unwrap();
                oracle.see(rows, |number| table.changes_after(&session, &source, number)).unwrap();
            }
        }
        writer.finish().unwrap();
        let count = |kind: &str| -> i64 {
            let of = |table: &Keyed| {
                let same: Vec<String> =
                    table.key.iter().map(|column| format!("(gone).{0} = (come).{0}", column.name)).collect();
                let kind = kind.replace("SAME", &same.join(" and "));
                session.number(&format!("select count(*) from audit_{} where {kind}", table.name)).unwrap()
            };
            tables.iter().map(of).sum()
        };
        assert_eq!(count("gone is null and come is null"), TRUNCATES * 3);
        for kind in [
            "(gone).v is null and (come).v is not null",
            "(gone).v is not null and (come).v is null",
            "(gone).region is distinct from (come).region and SAME",
            "(gone).v is not null and (come).v is not null and not (SAME)",
        ] {
            assert!(count(kind) >= 200, "{} times {kind}", count(kind));
        }
    }
}
