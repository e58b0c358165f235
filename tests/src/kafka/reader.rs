//! A topic as librdkafka finds it, read from its beginning to its end outside of any group.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::{Client, PATIENCE};

/// A message as it lies in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key's bytes.
    pub key: Option<Vec<u8>>,
    /// Its value's bytes; a tombstone has none.
    pub value: Option<Vec<u8>>,
}

impl Client {
    /// All messages that a topic holds at this moment, each partition's in its order.
    ///
    /// # Errors
    /// When there is no such topic, or the broker does not answer.
    pub fn read(&self, topic: &str) -> Result<Vec<Stored>> {
        let mut config = self.config.clone();
        config
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            // After a transaction's last message comes another that nobody is given.
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create()?;
        let mut ends = ends(&consumer, topic)?;
        let mut wanted = TopicPartitionList::new();
        for partition in ends.keys() {
            wanted.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&wanted)?;
        let mut messages = Vec::new();
        while !ends.is_empty() {
            let polled = consumer.poll(PATIENCE).with_context(|| format!("{topic} does not come to its end"))?;
            let message = match polled {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(partition)) => {
                    ends.remove(&partition);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let (partition, offset) = (message.partition(), message.offset());
            let Some(end) = ends.get(&partition).copied() else { continue };
            if offset < end {
                let (key, value) = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec));
                messages.push(Stored { partition, offset, key, value });
            }
            if offset + 1 >= end {
                ends.remove(&partition);
            }
        }
        messages.sort_by_key(|message| (message.partition, message.offset));
        Ok(messages)
    }
}

/// The offset after the last message of each partition that has one.
fn ends(consumer: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().first().filter(|found| found.error().is_none());
    let mut ends = BTreeMap::new();
    for partition in found.with_context(|| format!("there is no topic {topic}"))?.partitions() {
        let (begin, end) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE)?;
        if begin < end {
            ends.insert(partition.id(), end);
        }
    }
    Ok(ends)
}
