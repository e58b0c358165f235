//! What the machine can do: the parts of the work without a connector.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use philotes_tests::services::kafka::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::messages::{self, PARTITIONS, TOPIC};
use crate::measured::{Measured, cpu_seconds};
use crate::roofline::encode;

const PATIENCE: Duration = Duration::from_secs(60);

/// The topic consumed by librdkafka, its messages thrown away.
pub(super) fn consume(kafka: &Kafka, rows: u64) -> Result<Measured> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", "roofline")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    }
    let own = std::process::id();
    let cpu = cpu_seconds(own).context("no CPU time")?;
    let started = Instant::now();
    consumer.assign(&partitions)?;
    for _ in 0..rows {
        consumer.poll(PATIENCE).context("the topic does not come to its end")??;
    }
    let elapsed = started.elapsed();
    let cpu_seconds = cpu_seconds(own).context("no CPU time")? - cpu;
    Ok(Measured { rows, elapsed, cpu_seconds, peak_rss_kib: 0 })
}

/// The JSON of that many messages decoded by arrow-json and written as Parquet to nowhere, on one thread.
pub(super) fn json_to_parquet(rows: u64) -> Result<Measured> {
    let (mut json, mut message) = (String::new(), String::new());
    for id in 0..rows {
        messages::write(id, &mut message)?;
        json.push_str(&message);
        json.push('\n');
    }
    let fields = messages::COLUMNS.map(|(name, kind)| Ok(Field::new(name, arrow_type(kind)?, true)));
    let fields: Vec<Field> = fields.into_iter().collect::<Result<_>>()?;
    encode(json.as_bytes(), &Arc::new(Schema::new(fields)), rows)
}

fn arrow_type(kind: &str) -> Result<DataType> {
    Ok(match kind {
        "long" => DataType::Int64,
        "string" => DataType::Utf8,
        "decimal(12,2)" => DataType::Decimal128(12, 2),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        _ => bail!("no Arrow type for {kind}"),
    })
}
