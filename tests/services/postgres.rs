//! A private PostgreSQL: data and Unix socket in a temporary folder with a short path, no TCP port.
//!
//! PostgreSQL refuses to run as root: there it runs as the user `postgres` of Debian's package.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{children, install, is_alive, logs_dir, signal};
use crate::sql::Session;

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Commits reach the disk. What tests of delivery need: without it a killed server may lose what it has promised.
    pub fsync: bool,
    /// The server outlives the process that started it.
    pub detached: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { fsync: true, detached: false }
    }
}

/// A running server, or a killed one that can be started again. Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    log: PathBuf,
    options: Options,
    server: Option<Child>,
}

/// What is needed to find a detached server again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Detached {
    /// The postmaster.
    pub pid: u32,
    /// Its folder.
    pub dir: PathBuf,
    /// How to connect.
    pub dsn: String,
}

impl Postgres {
    /// A new empty server that answers.
    ///
    /// # Errors
    /// When PostgreSQL is missing and cannot be installed, or does not start; the message names its log.
    pub fn start(options: Options) -> Result<Self> {
        install(&["initdb:postgresql"])?;
        // A socket's path may have 107 bytes at most, so never below a folder that the caller chooses.
        let dir =
            tempfile::Builder::new().prefix("ph").tempdir_in("/tmp").context("cannot make a folder in /tmp")?.keep();
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let log = logs_dir()?.join(format!("postgres-{}-{number}.log", std::process::id()));
        let mut postgres = Self { dir, log, options, server: None };
        postgres.init()?;
        postgres.restart()?;
        Ok(postgres)
    }

    fn init(&self) -> Result<()> {
        if is_root() {
            let status = Command::new("chown").arg("postgres:").arg(&self.dir).status().context("cannot run chown")?;
            if !status.success() {
                bail!("cannot give {} to the user postgres", self.dir.display());
            }
        }
        let output = as_server_user(&program("initdb")?)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(self.data())
            .current_dir(&self.dir)
            .output()
            .context("cannot run initdb")?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Starts the server on the data that is there, and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer in time; the message names its log.
    pub fn restart(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.spawn()?;
            if self.answers_before(deadline) {
                return Ok(());
            }
            // After a kill -9 the children of the dead server may hold its memory for another moment.
            self.stop();
            if Instant::now() > deadline {
                bail!("PostgreSQL did not start; see {}", self.log.display());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = as_server_user(&program("postgres")?);
        if !self.options.detached {
            // Goes with the thread that started it, whatever becomes of that.
            command = with_parent_death_signal(&command);
        }
        let (fsync, level) = if self.options.fsync { ("on", "on") } else { ("off", "off") };
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(&self.dir)
            .args(["-c", "listen_addresses=", "-c", "max_connections=60", "-c", "timezone=UTC"])
            .args(["-c", &format!("fsync={fsync}"), "-c", &format!("full_page_writes={level}")])
            .args(["-c", "max_wal_size=4GB", "-c", "shared_buffers=256MB"])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if self.options.detached {
            use std::os::unix::process::CommandExt;
            // A Ctrl-C in the terminal is not meant for it.
            command.process_group(0);
        }
        self.server = Some(command.spawn().context("cannot run postgres")?);
        Ok(())
    }

    fn answers_before(&mut self, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if Session::connect(&self.dsn()).is_ok() {
                return true;
            }
            match self.server.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => std::thread::sleep(Duration::from_millis(50)),
                _ => return false,
            }
        }
        false
    }

    /// Stops the server in an orderly way: sessions are ended, what is committed is kept.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        signal(server.id(), "INT");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !matches!(server.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = server.kill();
        let _ = server.wait();
    }

    /// Kills the server and its sessions as a crash would.
    pub fn kill9(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let children = children(server.id());
        signal(server.id(), "KILL");
        let _ = server.wait();
        for child in &children {
            signal(*child, "KILL");
        }
        while children.iter().any(|child| is_alive(*child)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How to connect, as `key=value` words.
    #[must_use]
    pub fn dsn(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.dir.display())
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
        let output = Command::new(program("psql")?)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.dsn()])
            .args(arguments)
            .output()
            .context("cannot run psql")?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The server's own log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Lets the server go on by itself; [`Detached::stop`] ends it.
    #[must_use]
    pub fn detach(mut self) -> Detached {
        let pid = self.server.take().map_or(0, |server| server.id());
        let detached = Detached { pid, dir: std::mem::take(&mut self.dir), dsn: String::new() };
        Detached { dsn: format!("host={} user=postgres dbname=postgres", detached.dir.display()), ..detached }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        if !self.dir.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

impl Detached {
    /// Stops the server and removes its data, if the process is still that server.
    pub fn stop(&self) {
        let is_ours = std::fs::read(format!("/proc/{}/cmdline", self.pid))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*self.dir.to_string_lossy()));
        if is_ours {
            signal(self.pid, "INT");
            let deadline = Instant::now() + PATIENCE;
            while is_alive(self.pid) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
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

/// `setpriv` is in every Debian; after it the process is the program itself, under the same id.
fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

fn with_parent_death_signal(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.arg("--pdeathsig=INT");
    wrapped.args(command.get_args());
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_crash_and_leaves_nothing() {
        let mut postgres = Postgres::start(Options::default()).unwrap();
        let dir = postgres.dir.clone();
        postgres.session().unwrap().batch("create table kept (a int); insert into kept values (7)").unwrap();
        postgres.kill9();
        assert!(postgres.session().is_err());
        postgres.restart().unwrap();
        assert_eq!(postgres.session().unwrap().one("select a from kept").unwrap(), "7");
        assert_eq!(postgres.psql(&["-c", "select a + 1 from kept"]).unwrap(), "8\n");
        let pid = postgres.server.as_ref().unwrap().id();
        drop(postgres);
        assert!(!is_alive(pid) && !dir.exists());
    }
}
