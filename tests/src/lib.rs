//! The real host against real servers, seen through foreign readers.
//!
//! Here is what the end-to-end tests, the quickstart and the bench share: servers, readers, the host's process, the shop.
//! Nothing here links the host or a plugin: they are run as an operator runs them.

pub mod admin;
pub mod chaos;
pub mod connector;
pub mod equal;
pub mod failpoints;
pub mod host;
pub mod interrupt;
pub mod kafka;
pub mod readers;
pub mod replay;
#[path = "../services/mod.rs"]
pub mod services;
pub mod shop;
pub mod source_table;
pub mod sql;
pub mod storm;
pub mod target;
pub mod torture;
pub mod upsert;

use std::time::{Duration, Instant};

use anyhow::Result;

use services::iceberg_rest::IcebergRest;
use services::minio::Minio;
use services::postgres::{Options, Postgres};

/// A PostgreSQL for a test. `None` where none can be had and this is not CI: the skip is printed and counted in
/// `target/skipped.txt`, which `make test` shows.
///
/// # Panics
/// In CI (`CI=true`) where none can be had, and everywhere when an installed one does not start.
#[must_use]
pub fn postgres_or_skip() -> Option<Postgres> {
    if let Err(error) = services::install(&["initdb:postgresql"]) {
        skip(&error);
        return None;
    }
    #[expect(clippy::panic, reason = "a test cannot go on")]
    Some(Postgres::start(Options::default()).unwrap_or_else(|error| panic!("{error:#}")))
}

/// The servers of a connector into a REST catalog.
#[derive(Debug)]
pub struct Bed {
    /// The source.
    pub postgres: Postgres,
    /// The catalog.
    pub rest: IcebergRest,
    /// Where its tables lie.
    pub minio: Minio,
}

impl Bed {
    /// All of them, new and empty.
    ///
    /// # Errors
    /// When one cannot be had or does not start.
    pub fn start() -> Result<Self> {
        let minio = Minio::start()?;
        Ok(Self { postgres: Postgres::start(Options::default())?, rest: IcebergRest::start(&minio)?, minio })
    }
}

/// The servers for a test, or a skip as in [`postgres_or_skip`] where one of them cannot be had.
///
/// # Panics
/// In CI (`CI=true`) where one cannot be had.
#[must_use]
pub fn bed_or_skip() -> Option<Bed> {
    let postgres = postgres_or_skip()?;
    let start = || -> Result<Bed> {
        let minio = Minio::start()?;
        Ok(Bed { rest: IcebergRest::start(&minio)?, minio, postgres })
    };
    or_skip(start)
}

/// What starts, or a skip as in [`postgres_or_skip`].
///
/// # Panics
/// In CI (`CI=true`) where it does not start.
pub fn or_skip<T>(start: impl FnOnce() -> Result<T>) -> Option<T> {
    start().inspect_err(skip).ok()
}

/// Notes that a test was skipped for want of a server.
///
/// # Panics
/// In CI: nothing is skipped there.
pub fn skip(reason: &anyhow::Error) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI: {reason:#}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED {test}: {reason:#}");
    use std::io::Write;
    if let Ok(mut file) = std::fs::File::options().create(true).append(true).open(target::root().join("skipped.txt")) {
        let _ = writeln!(file, "{test}: {reason:#}");
    }
}

/// Asks until the answer is yes; false when the time is over.
///
/// # Errors
/// The question's own.
pub fn eventually(patience: Duration, mut question: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        if question()? {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
