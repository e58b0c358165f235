//! Tables that are kept equal to their source: one session changes few keys very often, the hosts are killed, Spark compacts, and
//! whatever a foreign reader finds meanwhile has to be the source table as it was after some change.

mod oracle;
mod side;
mod tables;
mod writer;

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::connector::Connector;
use crate::readers::{Dangling, Reader};
use crate::services::postgres::Postgres;
use crate::sql::Session;
use side::Side;
use tables::{BY_ID, BY_UUID, KV};
use writer::Writer;

/// In how many parts, and so commits, the tables are filled.
const PARTS: i64 = 5;
/// One look in so many is Spark's, which takes its time.
const SPARK: u32 = 12;
/// In how many of its snapshots each table is looked at in the end.
const SNAPSHOTS: usize = 40;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Keys that a row may have.
    pub keys: i64,
    /// Changes of the largest table; the others have a tenth of that.
    pub changes: i64,
    /// How often a host is killed.
    pub kills: i64,
    /// How often Spark compacts the tables.
    pub compactions: i64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Changes that PostgreSQL has committed.
    pub changes: i64,
    /// How often a host was killed.
    pub kills: i64,
    /// How often DuckDB looked at a table.
    pub duckdb: u32,
    /// How often Spark did.
    pub spark: u32,
    /// How often Spark compacted the tables of one host.
    pub compactions: i64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changes, kills, duckdb, spark, compactions } = self;
        write!(
            f,
            "{changes} changes, {kills} kills, {} looks ({duckdb} by DuckDB, {spark} by Spark), equal at each; compacted {compactions} \
             times",
            duckdb + spark
        )
    }
}

/// Runs it with tables of this version of Iceberg's format.
///
/// # Errors
/// Where a table is not what it has to be, or a host or a server does not do what it has to.
pub fn run(postgres: &Postgres, version: u8, sizes: &Sizes, seed: u64) -> Result<Outcome> {
    let (dsn, session) = (postgres.dsn(), postgres.session()?);
    session.batch("create sequence change")?;
    let connector = |name: &str| -> Result<Connector> {
        let connector = Connector::new(&dsn)?
            .named(name)
            .source_id(name)
            .source("poll_interval: 100ms")
            .source("batch_rows: 2000")
            .sink("mode: upsert")
            .sink(&format!("format_version: {version}"));
        Ok(connector)
    };
    let partitioned = connector("partitioned")?.sink("partition_by: [region, day(_cdc_timestamp) as date]");
    let mut workload = Workload {
        sides: vec![
            Side::new(&session, partitioned, &[KV])?,
            Side::new(&session, connector("flat")?, &[BY_ID, BY_UUID])?,
        ],
        session,
        random: StdRng::seed_from_u64(seed),
        outcome: Outcome::default(),
    };
    match workload.work(&dsn, sizes, seed) {
        Ok(()) => Ok(workload.outcome),
        Err(error) => {
            let logs: Vec<String> = workload.sides.iter().map(Side::log_tail).collect();
            bail!("{error:#}\nso far {:?}; the hosts said\n{}", workload.outcome, logs.join("\n"))
        }
    }
}

/// What happens while the writer writes.
#[derive(Clone, Copy)]
enum Blow {
    Kill,
    Compact,
}

struct Workload {
    // Hosts end before their server.
    sides: Vec<Side>,
    session: Session,
    random: StdRng,
    outcome: Outcome,
}

impl Workload {
    fn work(&mut self, dsn: &str, sizes: &Sizes, seed: u64) -> Result<()> {
        self.fill(sizes.keys).context("while the tables are filled")?;
        let writer = Writer::start(dsn, &[KV, BY_ID, BY_UUID], sizes.keys, sizes.changes, seed)?;
        self.fire(&writer, sizes)?;
        writer.finish()?;
        self.settle()
    }

    /// Fills the tables, part by part: nothing is there that would have to be deleted, and nothing is.
    fn fill(&mut self, keys: i64) -> Result<()> {
        for side in &mut self.sides {
            side.start()?;
            for part in 0..PARTS {
                side.fill(&self.session, keys, part, PARTS)?;
            }
            side.expect_no_deletes(PARTS)?;
            for reader in [Reader::DuckDb, Reader::Spark] {
                side.look_at_all(&self.session, reader)?;
            }
        }
        Ok(())
    }

    /// Kills, compacts and looks while the writer writes.
    fn fire(&mut self, writer: &Writer, sizes: &Sizes) -> Result<()> {
        let mut blows: Vec<Blow> = (0..sizes.kills).map(|_| Blow::Kill).collect();
        blows.extend((0..sizes.compactions).map(|_| Blow::Compact));
        blows.shuffle(&mut self.random);
        let parts = 2 * (blows.len() as i64 + 1);
        let mut struck = 0;
        while !writer.is_done() || !blows.is_empty() {
            // Not much more is written than until the next blow falls, so that it falls while there is something to do.
            writer.allow(sizes.changes * (2 * struck + 3) / parts);
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..500)));
            let side = self.random.random_range(0..self.sides.len());
            let due = writer.is_done() || writer.written() >= sizes.changes * 2 * (struck + 1) / parts;
            match if due { blows.pop() } else { None } {
                None => self.look(side)?,
                Some(blow) => {
                    struck += 1;
                    match blow {
                        Blow::Kill => self.kill(side)?,
                        Blow::Compact => self.compact(writer)?,
                    }
                }
            }
        }
        Ok(())
    }

    fn look(&mut self, side: usize) -> Result<()> {
        let reader = if self.random.random_ratio(1, SPARK) { Reader::Spark } else { Reader::DuckDb };
        let side = &mut self.sides[side];
        side.expect_running()?;
        side.look(&self.session, &mut self.random, reader)
    }

    /// Kills a host, now and then looks at what it has left, and starts another.
    fn kill(&mut self, side: usize) -> Result<()> {
        let side = &mut self.sides[side];
        side.kill()?;
        self.outcome.kills += 1;
        if self.random.random_bool(0.3) {
            side.look_at_all(&self.session, Reader::DuckDb)?;
            side.look_at_all(&self.session, Reader::Spark)?;
        }
        side.start()
    }

    /// Has Spark compact the tables: in turn while their host is away, and while it goes on.
    fn compact(&mut self, writer: &Writer) -> Result<()> {
        let stopped = self.outcome.compactions % 2 == 0;
        for side in &mut self.sides {
            if stopped {
                side.kill()?;
                side.compact(Dangling::Remove)?;
            } else {
                // Java loses a commit of deletes alone that falls into its rewrite, where another commit follows it in time.
                writer.calm(true);
                side.arrived(&self.session)?;
                side.compact(Dangling::Keep)?;
                side.expect_running()?;
            }
            side.look_at_all(&self.session, Reader::DuckDb)?;
            if stopped {
                side.start()?;
            } else {
                writer.calm(false);
            }
        }
        self.outcome.compactions += 1;
        Ok(())
    }

    /// Has delivered what is left: now each table is its source table, and its snapshots were.
    fn settle(&mut self) -> Result<()> {
        for side in &mut self.sides {
            side.finish()?;
            side.expect_current(&self.session)?;
            side.look_back(&self.session, SNAPSHOTS)?;
            self.outcome.changes += side.changes(&self.session)?;
            for looks in side.looks() {
                self.outcome.duckdb += looks.duckdb;
                self.outcome.spark += looks.spark;
            }
        }
        let Outcome { changes, duckdb, spark, .. } = self.outcome;
        ensure!(changes > 0 && duckdb > 0 && spark > 0, "nothing was done");
        Ok(())
    }
}
