//! The Iceberg project's own Kafka Connect sink in a worker of its own, into a REST catalog whose tables lie in MinIO.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Server;
use super::connect::{Connect, Jvm, Options, Settings};
use super::daemon::Daemon;
use super::iceberg_rest::IcebergRest;
use super::java::classpath;
use super::kafka::Kafka;
use super::minio::Minio;

const JARS: &str = "iceberg-sink";

/// What the sink does.
#[derive(Clone, Debug)]
pub struct IcebergSinkOptions {
    /// The connector's name, which is in its group's name as well.
    pub name: String,
    /// The topic, of JSON objects without schemas.
    pub topic: String,
    /// The table, which is made where it is missing: `cdc.orders`.
    pub table: String,
    /// How many tasks.
    pub tasks: u32,
    /// How often it commits.
    pub interval: Duration,
    /// What Java is given.
    pub jvm: Jvm,
    /// Further settings of the connector: `("consumer.override.max.poll.records", "5000")`.
    pub settings: Vec<(String, String)>,
}

/// A running sink, or a killed one that can be started again. Dropping it stops it.
#[derive(Debug, Serialize, Deserialize)]
pub struct IcebergSink {
    connect: Connect,
}

impl IcebergSink {
    /// Sees to it that Java and the jars are there.
    ///
    /// # Errors
    /// When they are missing and cannot be installed.
    pub fn install() -> Result<()> {
        classpath(JARS).map(drop)
    }

    /// A sink whose tasks run.
    ///
    /// # Errors
    /// When something is missing and cannot be installed, or a task fails, which says its trace.
    pub fn start(kafka: &Kafka, rest: &IcebergRest, minio: &Minio, options: &IcebergSinkOptions) -> Result<Self> {
        let worker = Options {
            jars: JARS.to_owned(),
            jvm: options.jvm.clone(),
            schemas: false,
            // A task looks for a commit to take part in only when its consumer comes back with something or for this. By default that
            // is a minute: in a topic where nothing comes, a commit would time out twice before.
            worker: vec![("offset.flush.interval.ms".to_owned(), "1000".to_owned())],
            name: options.name.clone(),
            connector: settings(rest, minio, options),
        };
        Ok(Self { connect: Connect::start(kafka, worker)? })
    }

    /// The worker.
    #[must_use]
    pub fn connect(&self) -> &Connect {
        &self.connect
    }
}

fn settings(rest: &IcebergRest, minio: &Minio, options: &IcebergSinkOptions) -> Settings {
    let own = json!({
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "tasks.max": options.tasks.to_string(),
        "topics": options.topic,
        "iceberg.tables": options.table,
        "iceberg.tables.auto-create-enabled": "true",
        "iceberg.catalog.type": "rest",
        "iceberg.catalog.uri": rest.uri(),
        "iceberg.catalog.warehouse": IcebergRest::WAREHOUSE,
        "iceberg.catalog.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "iceberg.catalog.s3.endpoint": minio.endpoint(),
        "iceberg.catalog.s3.path-style-access": "true",
        "iceberg.catalog.s3.access-key-id": minio.access_key(),
        "iceberg.catalog.s3.secret-access-key": minio.secret_key(),
        "iceberg.catalog.client.region": Minio::REGION,
        // Another's leftovers are not to be taken for its own.
        "iceberg.control.topic": format!("control-{}", options.name),
        "iceberg.control.commit.interval-ms": options.interval.as_millis().to_string(),
    });
    let mut settings = own.as_object().cloned().unwrap_or_default();
    settings.extend(options.settings.iter().map(|(key, value)| (key.clone(), json!(value))));
    settings
}

impl Server for IcebergSink {
    fn restart(&mut self) -> Result<()> {
        self.connect.restart()
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.connect.daemon()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Client, Record};
    use crate::readers::{Reader, Rest, Table};
    use crate::{eventually, or_skip};

    const PATIENCE: Duration = Duration::from_secs(90);

    #[test]
    fn messages_arrive_in_a_table() {
        let started = || {
            let minio = Minio::start()?;
            Ok((IcebergRest::start(&minio)?, Kafka::start()?, minio))
        };
        let Some((rest, kafka, minio)) = or_skip(started) else { return };
        let options = IcebergSinkOptions {
            name: "sink".to_owned(),
            topic: "numbers".to_owned(),
            table: "cdc.numbers".to_owned(),
            tasks: 1,
            interval: Duration::from_secs(1),
            jvm: Jvm::Small(256),
            settings: Vec::new(),
        };
        let client = Client::new(&kafka.bootstrap()).unwrap();
        client.create_topic("numbers", 1).unwrap();
        let producer = client.producer().unwrap();
        for id in 0..10 {
            let value = format!(r#"{{"id": {id}, "name": "n{id}"}}"#);
            producer.send("numbers", 0, &Record::of(value.as_bytes())).unwrap();
        }
        producer.flush().unwrap();
        let sink = IcebergSink::start(&kafka, &rest, &minio, &options).unwrap();
        let table = Table::rest(&Rest::new(&rest, &minio), "cdc.numbers");
        let arrived = eventually(PATIENCE, || {
            sink.connect().expect_sound()?;
            Ok(Reader::DuckDb.number(&table, "select sum(id) from t").is_ok_and(|sum| sum == 45))
        });
        assert!(arrived.unwrap());
    }
}
