//! A server process that answers HTTP on a port of 127.0.0.1: what MinIO and the Iceberg REST server have in common.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{logs_dir, signal};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server, or a killed one that can be started again on the same port. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Daemon {
    name: &'static str,
    port: u16,
    /// The path that answers 200 once the server serves.
    ready: &'static str,
    log: PathBuf,
    server: Option<Child>,
}

impl Daemon {
    /// A server that is not started yet, with a port and a log of its own.
    pub(super) fn new(name: &'static str, ready: &'static str) -> Result<Self> {
        let port = free_port()?;
        let log = logs_dir()?.join(format!("{name}-{}-{port}.log", std::process::id()));
        Ok(Self { name, port, ready, log, server: None })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Runs this command and waits until the server answers.
    pub(super) fn start(&mut self, command: &Command) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.answers_before(command, deadline)? {
            // The port may be taken for another moment.
            self.stop();
            if Instant::now() > deadline {
                bail!("{} did not start; see {}", self.name, self.log.display());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    fn answers_before(&mut self, command: &Command, deadline: Instant) -> Result<bool> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut server = with_parent_death_signal(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let mut answers = false;
        while !answers && Instant::now() < deadline && matches!(server.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
            answers = status(self.port, self.ready) == Some(200);
        }
        self.server = Some(server);
        Ok(answers)
    }

    /// Stops the server in an orderly way.
    pub(super) fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        signal(server.id(), "TERM");
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

    /// Kills the server as a crash would.
    pub(super) fn kill9(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let _ = server.kill();
        let _ = server.wait();
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The same command, which goes with the thread that starts it, whatever becomes of that. `setpriv` is in every Debian;
/// after it the process is the program itself, under the same id.
fn with_parent_death_signal(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig=TERM", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    wrapped
}

/// A port of 127.0.0.1 that nobody listens on. It lies below those that Linux gives to outgoing connections: while a
/// killed server is down, nobody else comes by its port.
fn free_port() -> Result<u16> {
    const FIRST: u16 = 20_000;
    const PORTS: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at once begin at different places.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..PORTS {
        let number = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from(start.wrapping_add(number) % u32::from(PORTS))?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port from {FIRST} on is free")
}

/// The status of the answer to a GET; `None` where none comes.
pub(super) fn status(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").ok()?;
    // "HTTP/1.1 200"
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    std::str::from_utf8(&answer[9..]).ok()?.parse().ok()
}
