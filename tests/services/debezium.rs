//! Debezium's PostgreSQL connector in a Kafka Connect worker of its own: `pgoutput`, the publication made by itself.

use std::fmt;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Server;
use super::connect::{Connect, Jvm, Options, Settings};
use super::daemon::Daemon;
use super::kafka::Kafka;
use super::postgres::Postgres;

/// How decimals are written (`decimal.handling.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decimals {
    /// The unscaled number's bytes, in base64; the scale stands in the schema.
    #[default]
    Precise,
    /// A text.
    String,
    /// A number, rounded.
    Double,
}

/// How times are written (`time.precision.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// As exact as the column.
    #[default]
    Adaptive,
    /// As Kafka Connect's own types: milliseconds.
    Connect,
}

/// What is captured, and how it is written.
#[derive(Clone, Debug)]
pub struct DebeziumOptions {
    /// Whether each event has its schema with it.
    pub schemas: bool,
    /// How decimals are written.
    pub decimals: Decimals,
    /// How times are written.
    pub times: Times,
    /// The first part of the topics' names.
    pub prefix: String,
    /// The tables, by schema and name; all where there are none.
    pub tables: Vec<String>,
    /// How many partitions each topic has.
    pub partitions: u32,
    /// Further settings of the connector: `("heartbeat.interval.ms", "1000")`.
    pub settings: Vec<(String, String)>,
}

impl Default for DebeziumOptions {
    fn default() -> Self {
        Self {
            schemas: true,
            decimals: Decimals::default(),
            times: Times::default(),
            prefix: "dbz".to_owned(),
            tables: Vec::new(),
            partitions: 1,
            settings: Vec::new(),
        }
    }
}

impl fmt::Display for Decimals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Precise => "precise",
            Self::String => "string",
            Self::Double => "double",
        })
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adaptive => "adaptive",
            Self::Connect => "connect",
        })
    }
}

/// A running connector, or a killed one that can be started again. Dropping it stops it; its slot stays in PostgreSQL.
#[derive(Debug, Serialize, Deserialize)]
pub struct Debezium {
    connect: Connect,
    prefix: String,
}

impl Debezium {
    /// Captures a database of a server that was started as `logical`: first what its tables hold, then what changes in them.
    /// It runs when this returns; the topics come with their first rows.
    ///
    /// # Errors
    /// When something is missing and cannot be installed, or the connector fails, which says its trace.
    pub fn start(postgres: &Postgres, database: &str, kafka: &Kafka, options: &DebeziumOptions) -> Result<Self> {
        let port = postgres.port().context("the PostgreSQL was not started as `logical`")?;
        let worker = Options {
            jars: "debezium".to_owned(),
            jvm: Jvm::Small(256),
            schemas: options.schemas,
            // After a crash it repeats what it has written since.
            worker: vec![("offset.flush.interval.ms".to_owned(), "1000".to_owned())],
            name: options.prefix.clone(),
            connector: settings(port, database, options),
        };
        Ok(Self { connect: Connect::start(kafka, worker)?, prefix: options.prefix.clone() })
    }

    /// The topic of a table: `public.orders`.
    #[must_use]
    pub fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.prefix)
    }

    /// The worker.
    #[must_use]
    pub fn connect(&self) -> &Connect {
        &self.connect
    }
}

fn settings(port: u16, database: &str, options: &DebeziumOptions) -> Settings {
    let own = json!({
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": "127.0.0.1",
        "database.port": port.to_string(),
        "database.user": "postgres",
        // It wants one; the server asks for none.
        "database.password": "none",
        "database.dbname": database,
        "topic.prefix": options.prefix,
        "table.include.list": options.tables.join(","),
        "plugin.name": "pgoutput",
        "slot.name": format!("{}_slot", options.prefix),
        "publication.name": format!("{}_publication", options.prefix),
        "publication.autocreate.mode": "filtered",
        "decimal.handling.mode": options.decimals.to_string(),
        "time.precision.mode": options.times.to_string(),
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": options.partitions.to_string(),
        // Half a second is a long time for a test.
        "poll.interval.ms": "50",
    });
    let mut settings = own.as_object().cloned().unwrap_or_default();
    settings.retain(|_, value| value.as_str() != Some(""));
    settings.extend(options.settings.iter().map(|(key, value)| (key.clone(), json!(value))));
    settings
}

impl Server for Debezium {
    fn restart(&mut self) -> Result<()> {
        self.connect.restart()
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.connect.daemon()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::kafka::Client;
    use crate::services::postgres;
    use crate::{eventually, or_skip};

    /// Two Javas start, and PostgreSQL may take the killed one for alive for a while.
    const PATIENCE: Duration = Duration::from_secs(180);

    fn values(kafka: &Kafka, topic: &str) -> Vec<Value> {
        let messages = Client::new(&kafka.bootstrap()).unwrap().read(topic).unwrap_or_default();
        messages.iter().filter_map(|message| serde_json::from_slice(message.value.as_deref()?).ok()).collect()
    }

    #[test]
    fn a_row_arrives_in_a_topic_and_a_crash_stops_nothing_for_good() {
        let started = || {
            let postgres = Postgres::start(postgres::Options { logical: true, ..postgres::Options::default() })?;
            let session = postgres.session()?;
            session.batch("create table t (id bigint primary key, n numeric(6, 2)); insert into t values (1, 1.25)")?;
            let kafka = Kafka::start()?;
            let options = DebeziumOptions { partitions: 3, ..DebeziumOptions::default() };
            let debezium = Debezium::start(&postgres, "postgres", &kafka, &options)?;
            Ok((postgres, kafka, debezium))
        };
        let Some((postgres, kafka, mut debezium)) = or_skip(started) else { return };
        let session = postgres.session().unwrap();
        let topic = debezium.topic("public.t");
        let arrives = |id: i64, operations: &[&str]| {
            let is_one = |event: &Value| operations.iter().any(|operation| event["payload"]["op"] == *operation);
            let is_it = |event: &Value| event["payload"]["after"]["id"] == id && is_one(event);
            eventually(PATIENCE, || Ok(values(&kafka, &topic).iter().any(is_it))).unwrap()
        };
        assert!(arrives(1, &["r"]));
        session.batch("insert into t values (2, 2.50)").unwrap();
        assert!(arrives(2, &["c"]));
        debezium.kill9();
        session.batch("insert into t values (3, -2.50)").unwrap();
        debezium.restart().unwrap();
        // Killed before it has noted where it was, it begins with the tables again.
        assert!(arrives(3, &["c", "r"]));
        // -250, in two's complement.
        let last = values(&kafka, &topic).into_iter().find(|event| event["payload"]["after"]["id"] == 3).unwrap();
        assert_eq!(last["payload"]["after"]["n"], "/wY=");
        debezium.connect().expect_sound().unwrap();
    }
}
