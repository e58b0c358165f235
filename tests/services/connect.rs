//! Kafka Connect standalone: one worker with one connector, from Maven's jars, its offsets in a temporary folder.
//!
//! Which connector that is, is its caller's matter: [`debezium`](super::debezium), [`iceberg_sink`](super::iceberg_sink).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::daemon::{Daemon, free_port};
use super::java::{classpath, java, java_as};
use super::kafka::Kafka;
use super::{Folder, Life, Server, get, status};

/// How long a connector may take until its tasks run.
const PATIENCE: Duration = Duration::from_secs(90);

/// A connector's own settings.
pub type Settings = Map<String, Value>;

/// What a worker is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Its jars: the dependencies of `JARS.xml` in this folder.
    pub jars: String,
    /// What Java is given.
    pub jvm: Jvm,
    /// Whether the JSON of keys and values has its schema with it: `{"schema": …, "payload": …}`.
    pub schemas: bool,
    /// Further settings of the worker.
    pub worker: Vec<(String, String)>,
    /// The connector's name.
    pub name: String,
    /// The connector's settings, `connector.class` among them.
    pub connector: Settings,
}

/// What Java is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Jvm {
    /// So many MiB of heap, and the flags of a program that is to start soon rather than to run fast.
    Small(u32),
    /// These flags.
    Flags(Vec<String>),
}

/// A running worker, or a killed one that can be started again. Dropping it stops it and removes its offsets.
#[derive(Debug, Serialize, Deserialize)]
pub struct Connect {
    // Stopped before its offsets go.
    daemon: Daemon,
    dir: Folder,
    port: u16,
    classpath: String,
    options: Options,
}

impl Connect {
    /// A new worker whose connector's tasks run.
    ///
    /// # Errors
    /// When Java or the jars are missing and cannot be installed, the worker does not start, which names its log, or a task fails,
    /// which says its trace.
    pub fn start(kafka: &Kafka, options: Options) -> Result<Self> {
        let mut connect = Self {
            classpath: classpath(&options.jars)?,
            daemon: Daemon::new(&options.jars, Life::Tied)?,
            dir: Folder::new("philotes-connect-")?,
            port: free_port()?,
            options,
        };
        connect.write_files(kafka)?;
        connect.restart()?;
        Ok(connect)
    }

    fn write_files(&self, kafka: &Kafka) -> Result<()> {
        let (dir, options) = (&self.dir.0, &self.options);
        let mut properties = format!(
            "bootstrap.servers={}\n\
             listeners=http://127.0.0.1:{}\n\
             offset.storage.file.filename={}\n\
             key.converter=org.apache.kafka.connect.json.JsonConverter\n\
             value.converter=org.apache.kafka.connect.json.JsonConverter\n\
             key.converter.schemas.enable={schemas}\n\
             value.converter.schemas.enable={schemas}\n\
             # All jars say what is in them: nobody has to look through every class.\n\
             plugin.discovery=service_load\n",
            kafka.bootstrap(),
            self.port,
            dir.join("offsets").display(),
            schemas = options.schemas,
        );
        options.worker.iter().for_each(|(key, value)| properties.push_str(&format!("{key}={value}\n")));
        std::fs::write(dir.join("worker.properties"), properties)?;
        let connector = json!({"name": options.name, "config": options.connector});
        std::fs::write(dir.join("connector.json"), connector.to_string())?;
        Ok(())
    }

    /// Waits until all tasks of the connector run.
    ///
    /// # Errors
    /// When one fails, with its trace, or they do not run in time.
    pub fn wait_until_running(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.connector_status();
            if self.expect_no_failure(&status)? {
                return Ok(());
            }
            if !self.daemon.is_alive() {
                bail!("{} has stopped the worker; see {}", self.options.name, self.last_error()?);
            }
            if Instant::now() > deadline {
                let log = self.daemon.log().display();
                bail!("the connector {} does not run, its status is {status}; see {log}", self.options.name);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The name of the log and the last error in it, with what comes after. A worker whose connector's settings are refused ends.
    fn last_error(&self) -> Result<String> {
        let log = self.daemon.log();
        let text = std::fs::read_to_string(log)?;
        let (_, error) = text.rsplit_once(" ERROR ").unwrap_or_default();
        let lines: Vec<&str> = error.lines().take(10).collect();
        Ok(format!("{}: {}", log.display(), lines.join("\n")))
    }

    /// What the worker says of its connector: its state, those of its tasks; null where it says nothing.
    #[must_use]
    pub fn connector_status(&self) -> Value {
        let answer = get(self.port, &format!("/connectors/{}/status", self.options.name));
        answer.and_then(|(code, body)| (code == 200).then(|| serde_json::from_str(&body).ok())?).unwrap_or_default()
    }

    /// An error with the trace of what has failed; otherwise whether everything runs.
    fn expect_no_failure(&self, status: &Value) -> Result<bool> {
        let tasks = status["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
        for part in tasks.iter().chain([&status["connector"]]) {
            if part["state"] == "FAILED" {
                let trace = part["trace"].as_str().unwrap_or_default();
                bail!("a task of {} has failed; see {}: {trace}", self.options.name, self.daemon.log().display());
            }
        }
        Ok(!tasks.is_empty() && tasks.iter().all(|task| task["state"] == "RUNNING"))
    }

    /// Its process.
    ///
    /// # Errors
    /// When there is none.
    pub fn pid(&self) -> Result<u32> {
        self.daemon.pid().context("the worker does not run")
    }

    /// Whether the worker says that its connector or one of its tasks has failed.
    ///
    /// # Errors
    /// When so, with the trace.
    pub fn expect_sound(&self) -> Result<()> {
        self.expect_no_failure(&self.connector_status()).map(drop)
    }
}

impl Server for Connect {
    fn restart(&mut self) -> Result<()> {
        let mut command = match &self.options.jvm {
            Jvm::Small(megabytes) => java(&self.classpath, *megabytes),
            Jvm::Flags(flags) => java_as(&self.classpath, flags),
        };
        let dir = &self.dir.0;
        command
            // What it unpacks goes with the rest.
            .arg(format!("-Djava.io.tmpdir={}", dir.display()))
            .arg("org.apache.kafka.connect.cli.ConnectStandalone")
            .args([dir.join("worker.properties"), dir.join("connector.json")]);
        self.daemon.start(&command, || status(self.port, "/connectors") == Some(200))?;
        self.wait_until_running()
    }

    fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(connector: Settings) -> Options {
        Options {
            jars: "debezium".to_owned(),
            jvm: Jvm::Small(128),
            schemas: false,
            worker: Vec::new(),
            name: "broken".to_owned(),
            connector,
        }
    }

    /// A task that cannot run is told of with its trace.
    #[test]
    fn what_fails_is_told_of() {
        let kafka = match Kafka::start() {
            Ok(kafka) => kafka,
            Err(error) => return crate::skip(&error),
        };
        let settings = json!({
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector", "topic.prefix": "none",
            "database.hostname": "127.0.0.1", "database.port": "1", "database.user": "nobody", "database.password": "no",
            "database.dbname": "none", "errors.max.retries": "0",
        });
        let error = Connect::start(&kafka, options(settings.as_object().cloned().unwrap())).unwrap_err();
        assert!(format!("{error:#}").contains("Connection to 127.0.0.1:1 refused"), "{error:#}");
    }
}
