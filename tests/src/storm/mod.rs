//! The storm: three connectors work while everything that they need is killed, paused, spoiled and changed by others. In the
//! end each change that PostgreSQL has committed has to be in its log once, each key's in order; and the tables that are kept
//! equal have to be.
//!
//! Two connectors write logs, one into a REST catalog and S3, with a proxy before each, and marks rows; the other into the
//! embedded catalog and a folder, and deletes them. The third one has upsert tables in the REST catalog, whose rows move between
//! partitions.

mod blow;
mod lake;
mod shop;
mod truth;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::Bed;
use crate::chaos::Mode;
use crate::connector::Connector;
use crate::readers::{Rest, Storage};
use crate::services::Server;
use crate::services::iceberg_rest::IcebergRest;
use crate::services::proxy::Proxy;
use crate::sql::Session;
use blow::{Blow, What};
use lake::Lake;
use shop::Shop;
use truth::Verdict;

/// Tables of each connector.
const TABLES: u32 = 3;

/// What the action `capture` runs.
const CAPTURE: &str = include_str!("../../../plugins/postgres-buffer/sql/capture.sql");

/// What came of a storm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Changes that PostgreSQL has committed.
    pub changes: usize,
    /// Of these, those that are in no log; and rows that are missing or wrong in a table that is kept equal.
    pub lost: usize,
    /// Rows that are in a table and should not be.
    pub doubled: usize,
    /// Keys whose changes have another order.
    pub disordered: usize,
}

impl Outcome {
    /// Whether all is as it has to be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.changes > 0 && self.lost + self.doubled + self.disordered == 0
    }
}

impl Outcome {
    fn count(&mut self, what: &str, verdict: &Verdict) {
        if !verdict.is_good() {
            println!("{what}: {verdict:?}");
        }
        self.lost += verdict.lost.len();
        self.doubled += verdict.doubled.len();
        self.disordered += verdict.disordered.len();
    }
}

struct Storm {
    // Hosts end before their servers.
    lakes: Vec<Lake>,
    catalog_proxy: Proxy,
    storage_proxy: Proxy,
    bed: Bed,
    foreign: i64,
}

/// Lets it storm for so long; prints what happens.
///
/// # Errors
/// When a server or a host does not do what it has to, whatever was delivered.
pub fn run(bed: Bed, duration: Duration, seed: u64) -> Result<Outcome> {
    let dsn = bed.postgres.dsn();
    let mut storm = Storm::over(bed)?;
    let writers: Vec<_> = storm.lakes.iter().zip(1..).map(|(lake, of)| lake.shop.open(&dsn, seed * 10 + of)).collect();
    let (began, mut random) = (Instant::now(), StdRng::seed_from_u64(seed));
    while began.elapsed() < duration {
        let mut blow = Blow::next(&mut random, storm.lakes.len(), TABLES as usize);
        std::thread::sleep(blow.pause);
        let lake = &storm.lakes[blow.lake];
        if lake.shop.mode == Mode::Upsert {
            blow.what = blow.what.of_rows();
        }
        let table = lake.shop.tables().nth(blow.table).context("no such table")?;
        let whose = if blow.what.is_of_server() { String::new() } else { format!("{table}: ") };
        let line = format!("{:7.1} s  {whose}{}", began.elapsed().as_secs_f64(), blow.what);
        println!("{line}");
        storm.strike(&blow, &table).context(line)?;
    }
    drop(writers);
    storm.settle()
}

impl Storm {
    fn over(bed: Bed) -> Result<Self> {
        let (dsn, session) = (bed.postgres.dsn(), bed.postgres.session()?);
        let (catalog_proxy, storage_proxy) = (Proxy::http(bed.rest.port())?, Proxy::http(bed.minio.port())?);
        let storage =
            Storage { endpoint: format!("http://127.0.0.1:{}", storage_proxy.port()), ..Storage::new(&bed.minio) };
        let uri = format!("http://127.0.0.1:{}", catalog_proxy.port());
        let behind = Rest { uri, warehouse: IcebergRest::WAREHOUSE.to_owned(), storage };
        let upsert =
            Connector::rest_at(&dsn, behind.clone())?.sink("mode: upsert").sink("partition_by: [\"bucket(3, v)\"]");
        let direct = Some(Rest::new(&bed.rest, &bed.minio));
        let connectors = [
            (Connector::rest_at(&dsn, behind)?.source("acknowledge: mark"), "rest", Mode::Append, direct.clone()),
            (Connector::new(&dsn)?.source("acknowledge: delete"), "sql", Mode::Append, None),
            (upsert.source("acknowledge: delete"), "upsert", Mode::Upsert, direct),
        ];
        let mut lakes = Vec::new();
        for (connector, name, mode, direct) in connectors {
            let connector = connector
                .named(name)
                .source_id(name)
                .source("poll_interval: 200ms")
                .sink("table: chaos.{table}")
                .sink(&format!("dead_letters: chaos.{name}_letters"))
                .top("errors: {tolerance: dead-letter}")
                .top("commit: {interval: 700ms}")
                .top("retry: {initial: 100ms, max: 2s}");
            if lakes.is_empty() {
                connector.action(&["source", "init"])?;
                session.batch(CAPTURE)?;
                Shop::prepare(&session)?;
            }
            let shop = Shop::new(name, TABLES, mode);
            for table in shop.tables() {
                shop.make(&session, &table, 0)?;
            }
            let mut lake = Lake::new(connector, shop, direct);
            lake.tend()?;
            lakes.push(lake);
        }
        Ok(Self { lakes, catalog_proxy, storage_proxy, bed, foreign: 0 })
    }

    fn session(&self) -> Result<Session> {
        self.bed.postgres.session()
    }

    fn strike(&mut self, blow: &Blow, table: &str) -> Result<()> {
        for lake in &mut self.lakes {
            lake.tend()?;
        }
        let session = self.session()?;
        if matches!(blow.what, What::TakeAway | What::BeginAnew) {
            // These wait for something to come to its end.
            self.catalog_proxy.clear()?;
            self.storage_proxy.clear()?;
        }
        let lake = &mut self.lakes[blow.lake];
        match &blow.what {
            What::KillHost => lake.kill_host(),
            What::StopHost => lake.stop_host(),
            What::SecondHost { together, kill_first } => lake.second_host(*together, *kill_first),
            What::PauseHost { paused, kill_first } => lake.pause_host(&session, *paused, *kill_first),
            What::KillPostgres { away } => kill(&mut self.bed.postgres, *away),
            What::KillStorage { away } => kill(&mut self.bed.minio, *away),
            What::KillCatalog { away } => kill(&mut self.bed.rest, *away),
            What::SpoilCatalog(rule) => self.catalog_proxy.set(rule.clone()),
            What::SpoilStorage(rule) => self.storage_proxy.set(rule.clone()),
            What::TakeAway => lake.take_away(&session, table),
            What::BeginAnew => lake.begin_anew(&session, table),
            What::Append => {
                self.foreign -= 1;
                perhaps(lake.append(table, self.foreign));
                Ok(())
            }
            What::Compact => {
                perhaps(lake.compact(table));
                Ok(())
            }
            What::Expire => {
                perhaps(lake.expire(table));
                Ok(())
            }
            What::RemoveOrphans => {
                perhaps(lake.remove_orphans(table).map(drop));
                Ok(())
            }
            What::MakeTable { more } => {
                perhaps(lake.shop.make(&session, table, *more));
                Ok(())
            }
        }
    }

    /// Has everything delivered that is left, and judges.
    fn settle(mut self) -> Result<Outcome> {
        self.catalog_proxy.clear()?;
        self.storage_proxy.clear()?;
        let session = self.session()?;
        let struck = (self.catalog_proxy.struck(), self.storage_proxy.struck());
        println!("spoiled on the way: {} requests to the catalog, {} to the storage", struck.0, struck.1);
        let mut outcome = Outcome { changes: usize::try_from(shop::committed(&session)?)?, ..Outcome::default() };
        for lake in &mut self.lakes {
            lake.tend()?;
            lake.finish(&session).with_context(|| lake.log_tail())?;
            let mut orphans = 0;
            for table in lake.shop.tables() {
                let removed = lake.settle_orphans(&table)?;
                orphans += removed;
                // Judged after that: what is live has to have stayed.
                outcome.count(&table, &lake.judge(&session, &table)?);
            }
            let letters = lake.judge_letters(&session)?;
            outcome.count(&format!("dead letters of {}", lake.shop.name), &letters);
            println!("{}: {orphans} orphan files of attempts that failed, listed and removed", lake.shop.name);
        }
        Ok(outcome)
    }
}

/// What others do may not come about: they give up where the table changes under them, as an operator does who waits for a lock.
fn perhaps(done: Result<()>) {
    if let Err(error) = done {
        println!("           it did not come about: {}", first_line(&format!("{error:#}")));
    }
}

fn kill(server: &mut dyn Server, away: Duration) -> Result<()> {
    server.kill9();
    std::thread::sleep(away);
    server.restart()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
