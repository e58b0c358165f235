//! Exactly once, under fire: the host dies, fails, panics or stalls at a failpoint, a plain one is started after it, and a
//! foreign reader finds each change once.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::connector::Connector;
use crate::failpoints::{FAILPOINTS, Failpoint};
use crate::host::Host;
use crate::readers::{READERS, Reader, Table};
use crate::sql::Session;
use crate::{Bed, eventually};

/// How long a step may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the parts that are written while the host works.
const PAUSE: Duration = Duration::from_millis(150);
/// New ids per part.
const PART: i64 = 10;
/// Cases at a time: they wait more than they work.
const AT_ONCE: usize = 4;

/// What happens at the failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The process is gone, as by kill -9.
    Abort,
    /// The step returns an error that the host recovers from by itself.
    Error,
    /// The plugin (or the host's thread) panics: FAILED, and the process ends.
    Panic,
    /// The step takes seconds, then goes on.
    Stall,
}

/// Where the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lake {
    /// The embedded catalog and a folder.
    Sqlite,
    /// The reference REST server and MinIO.
    Rest,
}

/// What becomes of a row in the buffer once it is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// It is marked.
    Mark,
    /// It is deleted.
    Delete,
}

const BLOWS: [Blow; 4] = [Blow::Abort, Blow::Error, Blow::Panic, Blow::Stall];
const LAKES: [Lake; 2] = [Lake::Sqlite, Lake::Rest];
const ACKNOWLEDGES: [Acknowledge; 2] = [Acknowledge::Mark, Acknowledge::Delete];

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Where it happens.
    pub point: &'static Failpoint,
    /// What happens.
    pub blow: Blow,
    /// Where the table is.
    pub lake: Lake,
    /// What becomes of the buffer's rows.
    pub acknowledge: Acknowledge,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { point, blow, lake, acknowledge } = self;
        let [blow, lake, acknowledge] =
            [format!("{blow:?}"), format!("{lake:?}"), format!("{acknowledge:?}")].map(|word| word.to_lowercase());
        write!(f, "{:<22} {blow:<5} {lake:<6} {acknowledge:<6}", point.name)
    }
}

/// Every failpoint with everything.
#[must_use]
pub fn full() -> Vec<Case> {
    let mut cases = Vec::new();
    for lake in LAKES {
        for acknowledge in ACKNOWLEDGES {
            for point in &FAILPOINTS {
                cases.extend(BLOWS.map(|blow| Case { point, blow, lake, acknowledge }));
            }
        }
    }
    cases
}

/// Every pair of a failpoint, a blow, a lake and a way to acknowledge, in as few cases as there are pairs of the first two.
#[must_use]
pub fn pairwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for (p, point) in FAILPOINTS.iter().enumerate() {
        for (b, blow) in BLOWS.into_iter().enumerate() {
            let (lake, acknowledge) = (LAKES[(p + b) % 2], ACKNOWLEDGES[(p / 2 + b / 2) % 2]);
            cases.push(Case { point, blow, lake, acknowledge });
        }
    }
    cases
}

/// Runs cases, several at a time, and prints a line for each; gives back those that failed.
#[must_use]
pub fn run_all(cases: &[Case], bed: &Bed) -> Vec<String> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let dsn = bed.postgres.dsn();
    if let Err(error) = Connector::new(&dsn).and_then(|connector| connector.action(&["source", "init"])) {
        return vec![format!("{error:#}")];
    }
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(number) else { return };
            let began = Instant::now();
            let result = case.run(bed, number);
            let (seconds, word) = (began.elapsed().as_secs_f64(), if result.is_ok() { "ok    " } else { "FAILED" });
            println!("{word} {case} {seconds:4.1} s");
            if let Err(error) = result {
                println!("{error:#}");
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(case.to_string());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Case {
    /// Runs it with a source id and a table of its own.
    fn run(&self, bed: &Bed, number: usize) -> Result<()> {
        let (dsn, name) = (bed.postgres.dsn(), format!("case_{number}"));
        let connector = match self.lake {
            Lake::Sqlite => Connector::new(&dsn)?,
            Lake::Rest => Connector::rest(&dsn, &bed.rest, &bed.minio)?,
        };
        let acknowledge = format!("acknowledge: {:?}", self.acknowledge).to_lowercase();
        let connector = connector
            .source_id(&name)
            .source(&acknowledge)
            .source("poll_interval: 100ms")
            .sink(&format!("table: chaos.{name}"))
            .sink("evolve: full")
            .top("commit: {interval: 100ms}")
            .top("retry: {initial: 100ms, max: 500ms}")
            .top("errors: {tolerance: dead-letter}")
            .sink(&format!("dead_letters: chaos.{name}_letters"));
        let table = connector.table(&format!("chaos.{name}"));
        let letters = connector.table(&format!("chaos.{name}_letters"));
        let mut shop = Shop { session: Session::connect(&dsn)?, source_id: name, parts: 0 };
        shop.write_part()?;
        if self.point.at_start {
            // A table with a token, and rows that it covers which the buffer still has.
            let mut host = start(&connector, "acknowledgement.unsent=1*return(abort)")?;
            ensure!(host.wait(PATIENCE)? == -1, "the first host did not die: {}", host.log_tail());
            ensure!(shop.waiting()? > 0, "the first host has acknowledged");
        }

        let mut host = start(&connector, &self.failpoints())?;
        self.strike(&mut shop, &mut host).with_context(|| host.log_tail())?;
        if matches!(self.blow, Blow::Error | Blow::Stall) {
            host.terminate()?;
        }
        shop.write_part()?;
        Host::until_idle(&connector)?;

        let expected = shop.expected();
        for reader in READERS {
            let found = pairs(reader, &table)?;
            ensure!(found == expected, "{reader}: {}", difference(&found, &expected));
            // The column that was renamed with every part still holds what it was given.
            let lost = format!("select count(*) from t where {} is distinct from id", renamed(shop.parts - 1));
            let lost = reader.number(&table, &lost)?;
            ensure!(lost == 0, "{reader}: {lost} values of the renamed column are lost");
            let (found, expected) = (marks(reader, &letters)?, shop.expected_letters());
            ensure!(found == expected, "{reader}: letters {found:?} instead of {expected:?}");
        }
        let left = match self.acknowledge {
            Acknowledge::Mark => shop.waiting()?,
            Acknowledge::Delete => shop.rows("")?,
        };
        ensure!(left == 0, "{left} rows are not acknowledged");
        Ok(())
    }

    /// What `FAILPOINTS` says. What can wait does so until the second pass, so that the run is under way.
    fn failpoints(&self) -> String {
        let stall = std::env::var("PHILOTES_STALL_MS").unwrap_or_else(|_| "3000".to_owned());
        let blow = match self.blow {
            Blow::Abort => "return(abort)".to_owned(),
            Blow::Error => "return".to_owned(),
            Blow::Panic => "panic".to_owned(),
            Blow::Stall => format!("sleep({stall})"),
        };
        let before = if self.point.at_start { "" } else { "1*off->" };
        format!("{}={before}1*{blow}", self.point.name)
    }

    /// Writes until it happens, and sees to it that it ends as it should.
    fn strike(&self, shop: &mut Shop, host: &mut Host) -> Result<()> {
        let word = format!("failpoint {}", self.point.name);
        let deadline = Instant::now() + PATIENCE;
        while host.is_running()? && !host.log().contains(&word) {
            ensure!(Instant::now() < deadline, "the failpoint was not passed");
            shop.write_part()?;
            std::thread::sleep(PAUSE);
        }
        match self.blow {
            Blow::Abort => ensure!(host.wait(PATIENCE)? == -1, "the host did not die of a signal"),
            Blow::Panic => {
                let code = host.wait(PATIENCE)?;
                ensure!(code == 1 && host.log().contains("FAILED"), "exit code {code}");
            }
            Blow::Error | Blow::Stall => {
                shop.write_part()?;
                // It goes on by itself.
                let done = eventually(PATIENCE, || Ok(shop.waiting()? == 0 || !host.is_running()?))?;
                ensure!(done && host.is_running()?, "the host did not recover");
            }
        }
        ensure!(host.log().contains(&word), "the failpoint was not passed");
        Ok(())
    }
}

fn start(connector: &Connector, failpoints: &str) -> Result<Host> {
    let log = connector.dir().join(format!("host-{}.log", failpoints.split('.').next().unwrap_or_default()));
    let environment = [("FAILPOINTS", failpoints.to_owned()), ("RUST_BACKTRACE", "0".to_owned())];
    Host::start_in(&environment, &connector.file()?, &log, &[])
}

/// Writes events as a writer of the buffer's own does, and knows what they come to.
struct Shop {
    session: Session,
    source_id: String,
    parts: i64,
}

impl Shop {
    /// New rows, an update of each row of the part before, and two rows that become dead letters; a column is renamed first.
    fn write_part(&mut self) -> Result<()> {
        let (from, to) = (self.parts * PART + 1, (self.parts + 1) * PART);
        let (columns, w) = (self.metadata("integer"), renamed(self.parts));
        let source_id = &self.source_id;
        let event = |operation: &str, v: i64, from: i64, to: i64| {
            format!(
                "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, \
                 key_columns, after_data, metadata, event_time) \
                 select '{source_id}', 'public', 't', '{operation}', '0/' || upper(to_hex(i)), 1, '[\"id\"]', \
                 jsonb_build_object('id', i, 'v', {v}, '{w}', i), '{columns}', now() from generate_series({from}, {to}) i;"
            )
        };
        let updates = event("UPDATE", 2, (from - PART).max(1), from - 1);
        self.session.batch(&(event("INSERT", 1, from, to) + &updates + &self.bad_rows()))?;
        self.parts += 1;
        Ok(())
    }

    /// What the rows are described by, as the capture triggers do.
    fn metadata(&self, r#type: &str) -> String {
        format!(
            "{{\"relation\": \"1.16384\", \"columns\": [{{\"name\": \"id\", \"type\": \"bigint\", \"number\": 1}}, \
             {{\"name\": \"v\", \"type\": \"{type}\", \"number\": 2}}, {{\"name\": \"{}\", \"type\": \"bigint\", \"number\": 3}}]}}",
            renamed(self.parts)
        )
    }

    /// A row with a text for a number, which the source cannot decode, and one that says it is a text, which the table cannot
    /// take.
    fn bad_rows(&self) -> String {
        let (source_id, part) = (&self.source_id, self.parts);
        let event = |number: i64, r#type: &str| {
            let metadata = self.metadata(r#type);
            format!(
                "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, key_columns, after_data, \
                 metadata, event_time) values ('{source_id}', 'public', 't', 'INSERT', 'bad {number}.', '[\"id\"]', \
                 '{{\"id\": 0, \"v\": \"many\"}}', '{metadata}', now());"
            )
        };
        event(2 * part, "integer") + &event(2 * part + 1, "text")
    }

    /// The marks of all bad rows, sorted.
    fn expected_letters(&self) -> Vec<i64> {
        (0..2 * self.parts).collect()
    }

    /// Every change that was written: (id, v), sorted.
    fn expected(&self) -> Vec<(i64, i64)> {
        let updated = (self.parts - 1) * PART;
        (1..=self.parts * PART)
            .flat_map(|id| [Some((id, 1)), (id <= updated).then_some((id, 2))].into_iter().flatten())
            .collect()
    }

    /// Rows that are not acknowledged.
    fn waiting(&self) -> Result<i64> {
        self.rows("and processed_at is null")
    }

    fn rows(&self, condition: &str) -> Result<i64> {
        let source_id = &self.source_id;
        self.session
            .number(&format!("select count(*) from philotes.cdc_events where source_id = '{source_id}' {condition}"))
    }
}

/// What the column is called that each part renames.
fn renamed(part: i64) -> &'static str {
    if part % 2 == 0 { "w" } else { "x" }
}

fn pairs(reader: Reader, table: &Table) -> Result<Vec<(i64, i64)>> {
    let rows = reader.query(table, "select id, v from t order by 1, 2")?;
    let number = |cell: &serde_json::Value| cell.as_str().and_then(|cell| cell.parse().ok());
    let pair = |row: &Vec<serde_json::Value>| Some((number(row.first()?)?, number(row.get(1)?)?));
    rows.rows.iter().map(|row| pair(row).with_context(|| format!("{row:?} is no change"))).collect()
}

/// What the records of dead letters are marked with, sorted: each holds its LSN.
pub(crate) fn marks(reader: Reader, table: &Table) -> Result<Vec<i64>> {
    let rows = reader.query(table, "select record from t")?.rows;
    let mark = |record: &str| record.split_once("bad ")?.1.split_once('.')?.0.parse().ok();
    let mut marks = rows
        .iter()
        .map(|row| row.first().and_then(|cell| mark(cell.as_str()?)).with_context(|| format!("{row:?} has no mark")))
        .collect::<Result<Vec<i64>>>()?;
    marks.sort_unstable();
    Ok(marks)
}

fn difference(found: &[(i64, i64)], expected: &[(i64, i64)]) -> String {
    let lost: Vec<_> = expected.iter().filter(|pair| !found.contains(pair)).collect();
    let mut doubled: Vec<_> = found.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    doubled.dedup();
    format!("{} changes of {}; lost: {lost:?}, doubled: {doubled:?}", found.len(), expected.len())
}

/// Says how to get failpoints where host and plugins were built without.
///
/// # Errors
/// Where they were.
pub fn compiled_in() -> Result<()> {
    if !cfg!(feature = "failpoints") {
        bail!("built without failpoints; `make build` builds with them");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pairwise_has_every_pair() {
        let pairs = |cases: &[Case]| {
            let mut pairs = BTreeSet::new();
            for Case { point, blow, lake, acknowledge } in cases {
                let words =
                    [point.name.to_owned(), format!("{blow:?}"), format!("{lake:?}"), format!("{acknowledge:?}")];
                for (at, one) in words.iter().enumerate() {
                    pairs.extend(words[at + 1..].iter().map(|other| (one.clone(), other.clone())));
                }
            }
            pairs
        };
        assert_eq!(pairs(&pairwise()), pairs(&full()));
        assert_eq!((pairwise().len(), full().len()), (64, 256));
    }
}
