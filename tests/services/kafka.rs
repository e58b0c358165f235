//! One Kafka broker that is its own controller (KRaft), its topics in a temporary folder.

pub mod security;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::daemon::{Daemon, free_port};
use super::java::{classpath, java};
use super::{Folder, Life, Server, run};
use security::Security;

/// Sixteen bytes in base64, as Kafka wants them.
const CLUSTER: &str = "cGhpbG90ZXMtY29ubmVjdA";

/// How a broker is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long it lives.
    pub life: Life,
    /// Its heap. What is produced lies in the system's cache, so that little is enough for a few million messages.
    pub heap_megabytes: u32,
    /// Whether it listens with TLS and SASL as well.
    pub secured: bool,
    /// Further lines of its properties: `log.retention.check.interval.ms=200`.
    pub properties: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { life: Life::Tied, heap_megabytes: 256, secured: false, properties: Vec::new() }
    }
}

impl Options {
    /// The same with this property: `log.retention.check.interval.ms=200`.
    #[must_use]
    pub fn property(mut self, line: &str) -> Self {
        self.properties.push(line.to_owned());
        self
    }
}

/// A running broker, or a killed one that can be started again. Dropping it stops it and removes its data.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kafka {
    // Stopped before its data goes.
    daemon: Daemon,
    dir: Folder,
    port: u16,
    heap_megabytes: u32,
    security: Option<Security>,
    classpath: String,
}

impl Kafka {
    /// A new broker that answers, without topics; anybody may do anything.
    ///
    /// # Errors
    /// When Java or Kafka is missing and cannot be installed, or it does not start; the message names its log.
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// The same for another life.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_for(life: Life) -> Result<Self> {
        Self::start_with(&Options { life, ..Options::default() })
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(options: &Options) -> Result<Self> {
        let dir = Folder::new("philotes-kafka-")?;
        let mut kafka = Self {
            classpath: classpath("kafka")?,
            daemon: Daemon::new("kafka", options.life)?,
            security: options.secured.then(|| Security::new(&dir.0)).transpose()?,
            dir,
            port: free_port()?,
            heap_megabytes: options.heap_megabytes,
        };
        kafka.format(&options.properties)?;
        kafka.restart()?;
        Ok(kafka)
    }

    fn format(&self, further: &[String]) -> Result<()> {
        let (port, controller) = (self.port, free_port()?);
        let listeners = self.security.as_ref().map(Security::listeners).unwrap_or_default();
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{}\n\
             controller.listener.names=CONTROLLER\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             log.dirs={}\n\
             # Of one broker, and small.\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             share.coordinator.state.topic.num.partitions=1\n\
             log.cleaner.dedupe.buffer.size=4194304\n\
             # Nobody joins a group of these tests late, and who is gone may be missed soon.\n\
             group.initial.rebalance.delay.ms=0\n\
             group.min.session.timeout.ms=1000\n\
             {}{}\n",
            listeners.addresses,
            listeners.protocols,
            self.dir.0.join("data").display(),
            listeners.properties,
            further.join("\n"),
        );
        let file = self.dir.0.join("server.properties");
        std::fs::write(&file, properties)?;
        run(java(&self.classpath, 128)
            .args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, "--config"])
            .arg(&file)
            .args(listeners.users))?;
        Ok(())
    }

    /// The port of 127.0.0.1 that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients begin: `127.0.0.1:PORT`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Loses what a partition holds, as a disk would that was put in anew. Only while it does not run.
    ///
    /// # Errors
    /// When there is no such partition.
    pub fn lose_partition(&self, topic: &str, partition: i32) -> Result<()> {
        let data = self.dir.0.join("data");
        for file in std::fs::read_dir(data.join(format!("{topic}-{partition}")))? {
            let file = file?.path();
            // The topic's id stays: it is the same topic.
            if file.file_name().is_some_and(|name| name != "partition.metadata") {
                std::fs::remove_file(file)?;
            }
        }
        // It would remember how far the partition reached.
        for checkpoint in
            ["recovery-point-offset-checkpoint", "replication-offset-checkpoint", "log-start-offset-checkpoint"]
        {
            let checkpoint = data.join(checkpoint);
            if checkpoint.exists() {
                std::fs::remove_file(checkpoint)?;
            }
        }
        Ok(())
    }

    /// Its other listeners, where it was started secured.
    #[must_use]
    pub fn security(&self) -> Option<&Security> {
        self.security.as_ref()
    }
}

impl Server for Kafka {
    fn restart(&mut self) -> Result<()> {
        let mut command = java(&self.classpath, self.heap_megabytes);
        command
            // What it unpacks goes with the rest.
            .arg(format!("-Djava.io.tmpdir={}", self.dir.0.display()))
            .arg("kafka.Kafka")
            .arg(self.dir.0.join("server.properties"));
        self.daemon.start(&command, || answers(self.port).is_some())
    }

    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// Asks which versions of which requests the broker knows; nothing unless it answers without an error.
fn answers(port: u16) -> Option<()> {
    // Length, ApiVersions, version 0, an id, no client's name.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(&REQUEST).ok()?;
    // Length, the id, an error's code.
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).ok()?;
    (answer[4..] == [0, 0, 0, 7, 0, 0]).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::is_alive;

    #[test]
    fn survives_a_crash_and_leaves_nothing() {
        let mut kafka = match Kafka::start() {
            Ok(kafka) => kafka,
            Err(error) => return crate::skip(&error),
        };
        let (port, dir) = (kafka.port, kafka.dir.0.clone());
        kafka.kill9();
        assert!(answers(port).is_none());
        kafka.restart().unwrap();
        kafka.stop();
        assert!(answers(port).is_none());
        kafka.restart().unwrap();
        assert!(answers(port).is_some());
        let pid = kafka.daemon.pid().unwrap();
        drop(kafka);
        assert!(!is_alive(pid) && !dir.exists());
    }
}
