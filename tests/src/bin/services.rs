//! `services up` starts the servers that a developer works with and prints their environment; `services down` stops exactly
//! those.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use philotes_tests::services::is_alive;
use philotes_tests::services::postgres::{Detached, Options, Postgres};
use philotes_tests::target;

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("up") => up(),
        Some("down") => down(),
        _ => Err(anyhow::anyhow!("services up | services down")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("services: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn state_file() -> PathBuf {
    target::root().join("services.json")
}

fn running() -> Option<Detached> {
    serde_json::from_str(&std::fs::read_to_string(state_file()).ok()?).ok()
}

fn up() -> Result<()> {
    let postgres = match running() {
        Some(postgres) if is_alive(postgres.pid) => postgres,
        _ => {
            let postgres = Postgres::start(Options { detached: true, ..Options::default() })?.detach();
            let state = serde_json::to_string(&postgres)?;
            if let Err(error) = std::fs::write(state_file(), state) {
                postgres.stop();
                bail!("cannot write {}: {error}", state_file().display());
            }
            postgres
        }
    };
    println!("export PHILOTES_BUFFER_DSN='{}'", postgres.dsn);
    println!("export PHILOTES_LAKE='{}'", target::root().join("lake").display());
    Ok(())
}

fn down() -> Result<()> {
    if let Some(postgres) = running() {
        postgres.stop();
        std::fs::remove_file(state_file()).context("cannot forget the services")?;
    }
    Ok(())
}
