//! Servers that tests, quickstart and bench start for themselves: private folders, no fixed port, stopped by process id.
//!
//! What is not here: anything that knows Philotes. A service knows how to install, start, stop, kill and reach itself.

pub mod connect;
mod daemon;
pub mod debezium;
pub mod iceberg_rest;
pub mod iceberg_sink;
pub(crate) mod java;
pub mod kafka;
pub mod loans;
pub mod minio;
pub mod nessie;
pub mod postgres;
pub mod proxy;
pub mod registry;
mod scripted;
pub mod tokens;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use daemon::Daemon;
use serde::{Deserialize, Serialize};

/// How long a server lives, unless it is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// As long as the thread that starts it, whatever becomes of that.
    #[default]
    Tied,
    /// On, also when this program has ended. The server's value is to be serialised for the program that stops it, and then
    /// to be forgotten: dropping it stops the server here as well.
    Detached,
}

/// What all servers have in common: a process that can be started again after it was stopped or killed.
pub trait Server {
    /// Starts the server on the data that is there, where it was before, and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer in time; the message names its log.
    fn restart(&mut self) -> Result<()>;

    /// Its process.
    fn daemon(&mut self) -> &mut Daemon;

    /// Stops the server in an orderly way; its data stays.
    fn stop(&mut self) {
        self.daemon().stop();
    }

    /// Kills the server, and what it has started, as a crash would.
    fn kill9(&mut self) {
        self.daemon().kill9();
    }

    /// Whether it runs.
    fn is_alive(&mut self) -> bool {
        self.daemon().is_alive()
    }
}

/// A folder of a server's own. Dropping it removes it.
#[derive(Debug, Serialize, Deserialize)]
struct Folder(PathBuf);

impl Folder {
    fn new(prefix: &str) -> Result<Self> {
        // A PostgreSQL socket's path may have 107 bytes at most, so never below a folder that the caller chooses.
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in("/tmp").context("cannot make a folder in /tmp")?;
        Ok(Self(dir.keep()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Installs Debian packages whose command is missing: `COMMAND:PACKAGE` pairs.
///
/// # Errors
/// When a package cannot be installed.
pub fn install(pairs: &[&str]) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/debian.sh");
    let status = Command::new("sh").arg(&script).args(pairs).status().context("cannot run sh")?;
    if !status.success() {
        bail!("cannot install {}", pairs.join(" "));
    }
    Ok(())
}

/// The Python of a virtual environment in this folder that holds these pinned packages; made where it is missing or out of
/// date.
///
/// # Errors
/// When Python or the packages cannot be installed.
pub fn venv(dir: &Path, requirements: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    // Several test processes may come here at once.
    let lock = File::create(dir.join("lock"))?;
    lock.lock()?;
    let (venv, stamp) = (dir.join("venv"), dir.join("installed.txt"));
    let wanted = std::fs::read_to_string(requirements)?;
    let python = venv.join("bin/python");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && python.exists() {
        return Ok(python);
    }
    install(&["ensurepip:python3-venv"])?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements))?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

/// Runs a command to its end; what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        // Maven writes its errors to the standard output.
        bail!("{command:?}: {}{printed}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// Where a service puts what is not Debian's, made if it is not there.
fn installed_dir() -> Result<PathBuf> {
    let dir = crate::target::root().join("services");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Held while something is installed: several tests may come for it at once, in this process and in others.
fn lock() -> Result<File> {
    let lock = File::create(installed_dir()?.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Sends a signal by name (`TERM`, `KILL`) to one process. A process that is gone already is fine.
pub fn signal(pid: u32, name: &str) {
    // The shell's own `kill`: a bare machine has no other.
    let _ = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid} 2>/dev/null")).status();
}

/// Whether the process exists and is no zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// The processes whose parent this is.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|child| stat_fields(*child).is_some_and(|fields| fields[1] == pid.to_string()))
        .collect()
}

/// The fields of `/proc/PID/stat` from the third (the state) on: the second may hold spaces.
#[must_use]
pub fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    (fields.len() > 20).then_some(fields)
}

/// The folder under which a service keeps its logs, made if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn logs_dir() -> Result<PathBuf> {
    let dir = crate::target::root().join("services-logs");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Status and body of the answer to a GET on a port of 127.0.0.1; `None` where none comes.
#[must_use]
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    // To 1.0 nobody answers in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The status of the answer to a GET on a port of 127.0.0.1; `None` where none comes.
fn status(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").ok()?;
    // "HTTP/1.1 200"
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    std::str::from_utf8(&answer[9..]).ok()?.parse().ok()
}
