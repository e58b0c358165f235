//! Exactly once, under fire: the host dies, fails, panics or stalls at a failpoint, a plain one is started after it, and a
//! foreign reader finds each change once, or the rows that the changes come to.

mod rows;
mod shop;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::connector::Connector;
use crate::failpoints::{FAILPOINTS, Failpoint};
use crate::host::Host;
use crate::sql::Session;
use crate::{Bed, eventually};
use shop::Shop;

pub(crate) use shop::marks;

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

/// What the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The log of changes.
    Append,
    /// The rows as they are now.
    Upsert,
}

const BLOWS: [Blow; 4] = [Blow::Abort, Blow::Error, Blow::Panic, Blow::Stall];
const LAKES: [Lake; 2] = [Lake::Sqlite, Lake::Rest];
const ACKNOWLEDGES: [Acknowledge; 2] = [Acknowledge::Mark, Acknowledge::Delete];
const MODES: [Mode; 2] = [Mode::Append, Mode::Upsert];

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
    /// What the table is.
    pub mode: Mode,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { point, blow, lake, acknowledge, mode } = self;
        let words = [format!("{blow:?}"), format!("{lake:?}"), format!("{acknowledge:?}"), format!("{mode:?}")];
        let [blow, lake, acknowledge, mode] = words.map(|word| word.to_lowercase());
        write!(f, "{:<22} {blow:<5} {lake:<6} {acknowledge:<6} {mode:<6}", point.name)
    }
}

/// Every failpoint with everything.
#[must_use]
pub fn full() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in MODES {
        for lake in LAKES {
            for acknowledge in ACKNOWLEDGES {
                for point in &FAILPOINTS {
                    cases.extend(BLOWS.map(|blow| Case { point, blow, lake, acknowledge, mode }));
                }
            }
        }
    }
    cases
}

/// Every pair of a failpoint, a blow, a lake, a way to acknowledge and a mode, in as few cases as there are pairs of the first
/// two.
#[must_use]
pub fn pairwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for (p, point) in FAILPOINTS.iter().enumerate() {
        for (b, blow) in BLOWS.into_iter().enumerate() {
            let (lake, acknowledge) = (LAKES[(p + b) % 2], ACKNOWLEDGES[(p / 2 + b / 2) % 2]);
            cases.push(Case { point, blow, lake, acknowledge, mode: MODES[(p / 4 + b + b / 2) % 2] });
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
            .sink(&format!("mode: {:?}", self.mode).to_lowercase())
            .sink("evolve: full")
            .sink("snapshots: {keep: 2}")
            .top("commit: {interval: 100ms}")
            .top("retry: {initial: 100ms, max: 500ms}")
            .top("errors: {tolerance: dead-letter}")
            .sink(&format!("dead_letters: chaos.{name}_letters"));
        let connector = if self.is_soft() { connector.sink("deletes: soft") } else { connector };
        let table = connector.table(&format!("chaos.{name}"));
        let letters = connector.table(&format!("chaos.{name}_letters"));
        let mut shop = Shop::new(Session::connect(&dsn)?, &name, self.mode, self.is_soft());
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

        shop.expect(&table, &letters)?;
        let left = match self.acknowledge {
            Acknowledge::Mark => shop.waiting()?,
            Acknowledge::Delete => shop.left("")?,
        };
        ensure!(left == 0, "{left} rows are not acknowledged");
        Ok(())
    }

    /// Whether deleted rows stay in the table: in the half of the upsert cases in which the buffer's go.
    fn is_soft(&self) -> bool {
        self.mode == Mode::Upsert && self.acknowledge == Acknowledge::Delete
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
        // Snapshots expire once a minute.
        let soon = self.point.at_start || self.point.name.starts_with("expiry.");
        let before = if soon { "" } else { "1*off->" };
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
            for Case { point, blow, lake, acknowledge, mode } in cases {
                let words = [
                    point.name.to_owned(),
                    format!("{blow:?}"),
                    format!("{lake:?}"),
                    format!("{acknowledge:?}"),
                    format!("{mode:?}"),
                ];
                for (at, one) in words.iter().enumerate() {
                    pairs.extend(words[at + 1..].iter().map(|other| (one.clone(), other.clone())));
                }
            }
            pairs
        };
        assert_eq!(pairs(&pairwise()), pairs(&full()));
        assert_eq!((pairwise().len(), full().len()), (76, 608));
    }
}
