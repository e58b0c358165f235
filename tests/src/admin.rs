//! What a running host serves on `--listen`: its health, its status, its metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::eventually;
use crate::host::Host;

/// The admin server of a host that was started with `--listen 127.0.0.1:0`.
#[derive(Debug)]
pub struct Admin {
    address: String,
}

impl Admin {
    /// Finds out where the host listens.
    ///
    /// # Errors
    /// When its log does not say so in time.
    pub fn of(host: &mut Host, patience: Duration) -> Result<Self> {
        let line = host.wait_for_log(&["listening", "127.0.0.1:"], patience)?;
        let port: String =
            line.rsplit("127.0.0.1:").next().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        Ok(Self { address: format!("127.0.0.1:{port}") })
    }

    /// Status code and body of a path.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        Ok((code, body.to_owned()))
    }

    /// The status of the first connector.
    ///
    /// # Errors
    /// When nobody answers, or not in JSON.
    pub fn connector(&self) -> Result<Value> {
        let mut status: Value = serde_json::from_str(&self.get("/status")?.1)?;
        Ok(status["connectors"][0].take())
    }

    /// Waits until the status of the first connector is as wanted, and gives it.
    ///
    /// # Errors
    /// When it is not in time; the message holds the last one.
    pub fn wait_for(&self, what: &str, patience: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let found = eventually(patience, || {
            last = self.connector()?;
            Ok(wanted(&last))
        })?;
        if !found {
            bail!("{what}: not within {patience:?}; the status is {last}");
        }
        Ok(last)
    }

    /// The value of the metric whose name and labels are these, as /metrics prints them; `None` where it is not there.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn metric(&self, name: &str) -> Result<Option<f64>> {
        let (_, metrics) = self.get("/metrics")?;
        Ok(metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()))
    }
}
