//! A private PostgreSQL: data and Unix socket in a temporary folder with a short path, and no TCP port unless one is wanted.
//!
//! PostgreSQL refuses to run as root: there it runs as the user `postgres` of Debian's package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::daemon::{Daemon, as_user, free_port, through_setpriv};
use super::{Folder, Life, Server, install, is_root, run};
use crate::sql::Session;

const USER: &str = "postgres";

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Commits reach the disk. What tests of delivery need: without it a killed server may lose what it has promised.
    pub fsync: bool,
    /// How long it lives.
    pub life: Life,
    /// It writes a log that can be decoded (`wal_level=logical`), and listens on a TCP port of 127.0.0.1 as well: who decodes it is
    /// often a Java program, which knows no Unix sockets.
    pub logical: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { fsync: true, life: Life::Tied, logical: false }
    }
}

/// A running server, or a killed one that can be started again. Dropping it stops it and removes its data.
#[derive(Debug, Serialize, Deserialize)]
pub struct Postgres {
    // Stopped before its data goes.
    daemon: Daemon,
    dir: Folder,
    fsync: bool,
    port: Option<u16>,
}

impl Postgres {
    /// A new empty server that answers.
    ///
    /// # Errors
    /// When PostgreSQL is missing and cannot be installed, or does not start; the message names its log.
    pub fn start(options: Options) -> Result<Self> {
        install(&["initdb:postgresql"])?;
        // INT ends sessions too; TERM would wait for them.
        let daemon = Daemon::new("postgres", options.life)?.run_by(USER).stopped_by("INT");
        let port = options.logical.then(free_port).transpose()?;
        let mut postgres = Self { daemon, dir: Folder::new("ph")?, fsync: options.fsync, port };
        postgres.init()?;
        postgres.restart()?;
        Ok(postgres)
    }

    fn init(&self) -> Result<()> {
        let dir = &self.dir.0;
        if is_root() {
            run(Command::new("chown").arg(format!("{USER}:")).arg(dir))?;
        }
        let mut command = Command::new(program("initdb")?);
        command
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(self.data())
            .current_dir(dir);
        run(&mut through_setpriv(&as_user(USER), &command))?;
        Ok(())
    }

    /// How to connect, as `key=value` words.
    #[must_use]
    pub fn dsn(&self) -> String {
        // The socket's name holds the port.
        let port = self.port.map(|port| format!(" port={port}")).unwrap_or_default();
        format!("host={}{port} user=postgres dbname=postgres", self.dir.0.display())
    }

    /// The port of 127.0.0.1 that it listens on, where it was started for that.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// A session.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn session(&self) -> Result<Session> {
        Session::connect(&self.dsn())
    }

    /// Runs `psql` with these arguments; gives back what it printed.
    ///
    /// # Errors
    /// When psql fails; the message is what it said.
    pub fn psql(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(program("psql")?)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.dsn()])
            .args(arguments))
    }

    /// Runs `pgbench` with these options.
    ///
    /// # Errors
    /// When it is missing or fails; the message is what it said.
    pub fn pgbench(&self, options: &[&str]) -> Result<String> {
        run(Command::new(program("pgbench")?).args(options).arg(self.dsn()))
    }

    /// The server's own log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }

    fn data(&self) -> PathBuf {
        self.dir.0.join("data")
    }
}

impl Server for Postgres {
    fn restart(&mut self) -> Result<()> {
        let fsync = if self.fsync { "on" } else { "off" };
        let mut command = Command::new(program("postgres")?);
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(&self.dir.0)
            .args(["-c", "max_connections=60", "-c", "timezone=UTC"])
            .args(["-c", &format!("fsync={fsync}"), "-c", &format!("full_page_writes={fsync}")])
            .args(["-c", "max_wal_size=4GB", "-c", "shared_buffers=256MB"])
            .current_dir(&self.dir.0);
        match self.port {
            None => command.args(["-c", "listen_addresses="]),
            Some(port) => {
                command.args(["-c", "wal_level=logical", "-c", "listen_addresses=127.0.0.1", "-p", &port.to_string()])
            }
        };
        let dsn = self.dsn();
        self.daemon.start(&command, || Session::connect(&dsn).is_ok())
    }

    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// A program of PostgreSQL: from the PATH, or the newest of Debian's folders.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's psql on the PATH is a wrapper, which is fine; the server's programs are only in their own folder.
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin").join(name)))
        })
        .filter(|(_, program)| program.exists())
        .collect();
    debian.sort();
    debian
        .pop()
        .map(|(_, program)| program)
        .or_else(|| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|program| program.exists()))
        .with_context(|| format!("PostgreSQL's {name} is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::is_alive;

    #[test]
    fn survives_a_crash_and_leaves_nothing() {
        let mut postgres = Postgres::start(Options::default()).unwrap();
        let dir = postgres.dir.0.clone();
        postgres.session().unwrap().batch("create table kept (a int); insert into kept values (7)").unwrap();
        postgres.kill9();
        assert!(postgres.session().is_err());
        postgres.restart().unwrap();
        assert_eq!(postgres.session().unwrap().one("select a from kept").unwrap(), "7");
        assert_eq!(postgres.psql(&["-c", "select a + 1 from kept"]).unwrap(), "8\n");
        let pid = postgres.daemon.pid().unwrap();
        drop(postgres);
        assert!(!is_alive(pid) && !dir.exists());
    }
}
