//! The host as a process: started, watched and ended as an operator does it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::connector::Connector;
use crate::services::signal;
use crate::{eventually, target};

/// A `philotes run` under way. Dropping it kills it.
#[derive(Debug)]
pub struct Host {
    child: Child,
    log: PathBuf,
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// The standard output of a command that must succeed.
    ///
    /// # Errors
    /// When the exit code is not 0; the message is what the command said.
    pub fn success(self) -> Result<String> {
        if self.code != 0 {
            bail!("exit code {}: {}{}", self.code, self.stderr, self.stdout);
        }
        Ok(self.stdout)
    }
}

/// Runs a command of the host to its end.
///
/// # Errors
/// When it cannot be started.
pub fn philotes(arguments: &[&str]) -> Result<Finished> {
    philotes_in(&[], arguments)
}

/// The same, with these variables in its environment.
///
/// # Errors
/// When it cannot be started.
pub fn philotes_in(environment: &[(&str, String)], arguments: &[&str]) -> Result<Finished> {
    let output = command(target::philotes())
        .envs(environment.iter().cloned())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(missing)?;
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("PHILOTES_PLUGIN_PATH").env_remove("RUST_LOG");
    command
}

fn missing() -> String {
    format!("cannot run {}; `make build` makes it", target::philotes().display())
}

impl Host {
    /// Starts `philotes run` on a connector's file; its log goes to a new file in the connector's folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(connector: &Connector, arguments: &[&str]) -> Result<Self> {
        let file = connector.file()?;
        let log = (1..)
            .map(|number| connector.dir().join(format!("host-{number}.log")))
            .find(|log| !log.exists())
            .context("no name for a log")?;
        Self::start_in(&[], &file, &log, arguments)
    }

    /// Starts `philotes run` on a file or folder with these variables in its environment, logging to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_in(environment: &[(&str, String)], file: &Path, log: &Path, arguments: &[&str]) -> Result<Self> {
        let stderr = File::create(log)?;
        // Ends with the thread that started it, whatever becomes of that; the process is the host itself.
        let child = command("setpriv")
            .arg("--pdeathsig=TERM")
            .arg("--")
            .arg(target::philotes())
            .envs(environment.iter().cloned())
            .arg("run")
            .args(arguments)
            .arg(file)
            .stdin(Stdio::null())
            .stdout(stderr.try_clone()?)
            .stderr(stderr)
            .spawn()
            .with_context(missing)?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Runs a connector until it is idle; an error unless it ends with 0.
    ///
    /// # Errors
    /// When it fails or takes more than five minutes; the message holds the end of its log.
    pub fn until_idle(connector: &Connector) -> Result<()> {
        let mut host = Self::start(connector, &["--until-idle"])?;
        let code = host.wait(Duration::from_secs(300))?;
        if code != 0 {
            bail!("philotes run --until-idle ended with {code}: {}", host.log_tail());
        }
        Ok(())
    }

    /// Waits for its end; the exit code, -1 after a signal.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self, patience: Duration) -> Result<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code().unwrap_or(-1));
            }
            if Instant::now() > deadline {
                bail!("the host did not end within {patience:?}: {}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Asks it to stop and waits; an error unless it ends with 0.
    ///
    /// # Errors
    /// When it ends with another code or not in time.
    pub fn terminate(mut self) -> Result<()> {
        self.signal("TERM");
        let code = self.wait(Duration::from_secs(60))?;
        if code != 0 {
            bail!("the host ended with {code} after SIGTERM: {}", self.log_tail());
        }
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill9(mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Waits until a line of its log holds all these words, in any case.
    ///
    /// # Errors
    /// When none does in time, or it ends before; the message holds the end of the log.
    pub fn wait_for_log(&mut self, words: &[&str], patience: Duration) -> Result<String> {
        let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        let mut found = None;
        eventually(patience, || {
            let running = self.is_running()?;
            found = self
                .log()
                .lines()
                .find(|line| words.iter().all(|word| line.to_lowercase().contains(word)))
                .map(str::to_owned);
            Ok(found.is_some() || !running)
        })?;
        found.with_context(|| format!("no line with {words:?} in the host's log: {}", self.log_tail()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
