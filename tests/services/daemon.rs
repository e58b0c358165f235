//! A server's process: started until it answers, stopped or killed by its id, found again by another program.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Life, children, is_alive, is_root, logs_dir, signal, stat_fields};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server, or a killed one that can be started again. Dropping it stops it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Daemon {
    name: String,
    life: Life,
    /// Who it runs as where this is root; root itself where that is empty.
    user: String,
    /// What makes it end in an orderly way.
    stop_signal: String,
    log: PathBuf,
    server: Option<Process>,
}

/// A process, which is not mistaken for another that got its id later.
#[derive(Debug, Serialize, Deserialize)]
struct Process {
    pid: u32,
    /// In clock ticks since the machine's start.
    started: String,
    /// There where it is a child of this process, which then has to reap it.
    #[serde(skip)]
    child: Option<Child>,
}

impl Daemon {
    /// A server that is not started yet, with a log of its own.
    pub(super) fn new(name: &str, life: Life) -> Result<Self> {
        static DAEMONS: AtomicU32 = AtomicU32::new(0);
        let number = DAEMONS.fetch_add(1, Ordering::Relaxed);
        let log = logs_dir()?.join(format!("{name}-{}-{number}.log", std::process::id()));
        let (name, stop_signal) = (name.to_owned(), "TERM".to_owned());
        Ok(Self { name, life, user: String::new(), stop_signal, log, server: None })
    }

    pub(super) fn run_by(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    pub(super) fn stopped_by(mut self, signal: &str) -> Self {
        signal.clone_into(&mut self.stop_signal);
        self
    }

    /// Runs this command and waits until the server answers.
    pub(super) fn start(&mut self, command: &Command, answers: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.spawn(command)?;
            while self.is_alive() && Instant::now() < deadline {
                if answers() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            // After a crash its port or memory may be taken for another moment.
            self.stop();
            if Instant::now() > deadline {
                bail!("{} did not start; see {}", self.name, self.log.display());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn spawn(&mut self, command: &Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut options = as_user(&self.user);
        if self.life == Life::Tied {
            options.push(format!("--pdeathsig={}", self.stop_signal));
        }
        let mut wrapped = through_setpriv(&options, command);
        if self.life == Life::Detached {
            // A Ctrl-C in the terminal is not meant for it.
            wrapped.process_group(0);
        }
        let child = wrapped
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        // Nobody else has reaped it yet, so it has a start time even when it has ended.
        let started = start_time(child.id()).unwrap_or_default();
        self.server = Some(Process { pid: child.id(), started, child: Some(child) });
        Ok(())
    }

    /// Stops the server in an orderly way.
    pub(super) fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        server.signal(&self.stop_signal);
        let deadline = Instant::now() + PATIENCE;
        while server.is_alive() {
            if Instant::now() > deadline {
                server.signal("KILL");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server and its children as a crash would.
    pub(super) fn kill9(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let children = if server.is_alive() { children(server.pid) } else { Vec::new() };
        server.signal("KILL");
        while server.is_alive() {
            std::thread::sleep(Duration::from_millis(10));
        }
        for child in &children {
            signal(*child, "KILL");
        }
        while children.iter().any(|child| is_alive(*child)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn is_alive(&mut self) -> bool {
        self.server.as_mut().is_some_and(Process::is_alive)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.pid)
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Process {
    fn is_alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => is_alive(self.pid) && start_time(self.pid).as_ref() == Some(&self.started),
        }
    }

    fn signal(&mut self, name: &str) {
        if self.is_alive() {
            signal(self.pid, name);
        }
    }
}

fn start_time(pid: u32) -> Option<String> {
    // The 22nd field of all.
    stat_fields(pid).map(|fields| fields[19].clone())
}

/// The options with which `setpriv` runs a program as this user: none where this is not root.
pub(super) fn as_user(user: &str) -> Vec<String> {
    if user.is_empty() || !is_root() {
        return Vec::new();
    }
    vec![format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]
}

/// The same command, run by `setpriv`. That is in every Debian; after it the process is the program itself, under the same
/// id.
pub(super) fn through_setpriv(options: &[String], command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(options).arg("--").arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

/// A port of 127.0.0.1 that nobody listens on. It lies below those that Linux gives to outgoing connections: while a
/// killed server is down, nobody else comes by its port.
pub(super) fn free_port() -> Result<u16> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that got the id of a server that was started before it.
    #[test]
    fn a_recycled_id_is_left_alone() {
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        let mut daemon = Daemon::new("recycled", Life::Detached).unwrap();
        daemon.server = Some(Process { pid: stranger.id(), started: "1".to_owned(), child: None });
        assert!(!daemon.is_alive());
        daemon.kill9();
        daemon.server = Some(Process { pid: stranger.id(), started: "1".to_owned(), child: None });
        daemon.stop();
        assert!(is_alive(stranger.id()));
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
