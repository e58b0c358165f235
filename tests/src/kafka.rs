//! Kafka as a test's other hand: topics made and changed, messages produced, offsets looked at and moved.
//!
//! Blocking, as [`Session`](crate::sql::Session) is.

mod confluent;
mod producer;
mod reader;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::{Builder, Runtime};

use crate::eventually;
pub use confluent::Confluent;
pub use producer::{Producer, Record};
pub use reader::Stored;

/// How long the broker may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of one broker.
pub struct Client {
    config: ClientConfig,
    admin: AdminClient<DefaultClientContext>,
    runtime: Runtime,
}

impl Client {
    /// A client that needs no password: `127.0.0.1:PORT`.
    ///
    /// # Errors
    /// When librdkafka does not want to.
    pub fn new(bootstrap: &str) -> Result<Self> {
        Self::with(bootstrap, &[])
    }

    /// The same with settings of librdkafka.
    ///
    /// # Errors
    /// When librdkafka does not take one.
    pub fn with(bootstrap: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { admin: config.create()?, config, runtime })
    }

    /// Makes a topic and waits until it can be written to.
    ///
    /// # Errors
    /// The broker's; the same holds for everything below.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    /// The same with settings of the topic: `("retention.ms", "1000")`.
    ///
    /// # Errors
    /// The broker's.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let done = self.runtime.block_on(self.admin.create_topics([&topic], &options()))?;
        each(done.into_iter().map(|result| result.map(drop)), || format!("cannot create topic {name}"))?;
        self.wait_for(name, Some(partitions))
    }

    /// Deletes a topic and waits until nobody knows it any more.
    ///
    /// # Errors
    /// The broker's.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let done = self.runtime.block_on(self.admin.delete_topics(&[name], &options()))?;
        each(done.into_iter().map(|result| result.map(drop)), || format!("cannot delete topic {name}"))?;
        self.wait_for(name, None)
    }

    /// Gives a topic more partitions: so many in all.
    ///
    /// # Errors
    /// The broker's.
    pub fn add_partitions(&self, topic: &str, partitions: i32) -> Result<()> {
        let wanted = NewPartitions::new(topic, usize::try_from(partitions)?);
        let done = self.runtime.block_on(self.admin.create_partitions([&wanted], &options()))?;
        each(done.into_iter().map(|result| result.map(drop)), || format!("cannot add partitions to {topic}"))?;
        self.wait_for(topic, Some(partitions))
    }

    /// Deletes the records of a partition before an offset, as retention would.
    ///
    /// # Errors
    /// The broker's.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let list = one(topic, partition, Offset::Offset(before))?;
        let done = self.runtime.block_on(self.admin.delete_records(&list, &options()))?;
        for element in done.elements() {
            element.error().with_context(|| format!("cannot delete records of {topic}-{partition}"))?;
        }
        Ok(())
    }

    /// Deletes a group that has no members.
    ///
    /// # Errors
    /// The broker's.
    pub fn delete_group(&self, group: &str) -> Result<()> {
        let done = self.runtime.block_on(self.admin.delete_groups(&[group], &options()))?;
        each(done.into_iter().map(|result| result.map(drop)), || format!("cannot delete group {group}"))
    }

    /// Sets what a group that has no members has committed.
    ///
    /// # Errors
    /// The broker's.
    pub fn set_committed(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        self.consumer(group)?.commit(&list, CommitMode::Sync).with_context(|| format!("cannot commit for {group}"))
    }

    /// What a group has committed for a partition.
    ///
    /// # Errors
    /// The broker's.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Result<Option<i64>> {
        let list = one(topic, partition, Offset::Invalid)?;
        let found = self.consumer(group)?.committed_offsets(list, PATIENCE)?;
        Ok(match found.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        })
    }

    /// How many members a group has; nothing where the broker does not know it.
    ///
    /// # Errors
    /// The broker's.
    pub fn members(&self, group: &str) -> Result<usize> {
        let groups = self.admin.inner().fetch_group_list(Some(group), PATIENCE)?;
        Ok(groups.groups().iter().filter(|found| found.name() == group).map(|found| found.members().len()).sum())
    }

    /// A partition's first offset and the one after its last; markers of transactions count.
    ///
    /// # Errors
    /// The broker's.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        Ok(self.consumer("bounds")?.fetch_watermarks(topic, partition, PATIENCE)?)
    }

    /// A producer that loses and doubles nothing.
    ///
    /// # Errors
    /// When librdkafka does not want to.
    pub fn producer(&self) -> Result<Producer> {
        self.producer_with(&[])
    }

    /// The same with settings of librdkafka: `("compression.type", "zstd")`.
    ///
    /// # Errors
    /// When librdkafka does not take one.
    pub fn producer_with(&self, settings: &[(&str, &str)]) -> Result<Producer> {
        let mut config = self.config.clone();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.kbytes", "131072");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        Producer::new(&config)
    }

    /// A producer whose messages come in transactions.
    ///
    /// # Errors
    /// The broker's.
    pub fn transactional(&self, id: &str) -> Result<Producer> {
        let producer = self.producer_with(&[("transactional.id", id)])?;
        producer.init_transactions()?;
        Ok(producer)
    }

    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.config.clone();
        config.set("group.id", group).set("enable.auto.commit", "false");
        Ok(config.create()?)
    }

    /// Waits until the broker tells that a topic has so many partitions, each with a leader, or is not there.
    fn wait_for(&self, topic: &str, partitions: Option<i32>) -> Result<()> {
        // A consumer: it does not make a topic by asking for it.
        let consumer = self.consumer("topics")?;
        let done = eventually(PATIENCE, || {
            let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
            let found = metadata.topics().first().filter(|found| found.error().is_none());
            let count = found.map(|found| found.partitions().iter().filter(|one| one.leader() >= 0).count());
            Ok(count.unwrap_or(0) == usize::try_from(partitions.unwrap_or(0))?)
        })?;
        if !done {
            bail!("topic {topic} does not come to {partitions:?} partitions");
        }
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

fn one(topic: &str, partition: i32, offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, offset)?;
    Ok(list)
}

/// What was asked for one by one.
fn each(
    results: impl Iterator<Item = Result<(), (String, RDKafkaErrorCode)>>,
    what: impl Fn() -> String,
) -> Result<()> {
    for result in results {
        if let Err((_, code)) = result {
            bail!("{}: {code}", what());
        }
    }
    Ok(())
}
