//! From messages to rows, and what partitions that cannot be read mean.

use std::sync::Arc;
use std::time::Duration;

use philotes_sdk::{Error, ErrorKind, Result};
use rdkafka::Offset;
use rdkafka::error::RDKafkaErrorCode;

use super::{Reader, Topic};
use crate::client;
use crate::cluster;
use crate::decode::Appended;
use crate::message::Message;
use crate::native::{Arrived, PartitionKey, Taken};

/// How many messages are decoded before everything else is looked at.
const AT_ONCE: usize = 1024;

impl Reader {
    /// Decodes what comes out of the queue, some of it.
    pub(super) fn take_in(&mut self, patience: Duration) -> Result<()> {
        let messages = Arc::clone(&self.messages);
        let (_, batch_bytes) = self.handover.sizes();
        let mut last = None;
        let mut patience = patience;
        for _ in 0..AT_ONCE {
            let Some(message) = messages.next(patience) else { break };
            self.take_one(message.look(), &mut last, batch_bytes)?;
            patience = Duration::ZERO;
        }
        Ok(())
    }

    /// `last` is the partition of the message before: most often it is this one's.
    fn take_one(
        &mut self,
        taken: Taken<'_>,
        last: &mut Option<(PartitionKey, usize)>,
        batch_bytes: usize,
    ) -> Result<()> {
        let key = taken.key();
        let index = match *last {
            Some((known, index)) if known == key => index,
            _ => {
                let Some(index) = self.find(taken) else { return Ok(()) };
                *last = Some((key, index));
                index
            }
        };
        match taken.read() {
            Arrived::Message(message) => self.take_message(message, taken, index)?,
            Arrived::End { offset, .. } => {
                let partition = &mut self.partitions[index];
                partition.next = partition.next.max(offset);
                partition.at_end = true;
            }
            Arrived::Failed { topic, partition, code, reason } => {
                return Err(self.unreadable(topic, partition, code, &reason, index));
            }
        }
        let partition = &self.partitions[index];
        let full = batch_bytes > 0 && partition.bytes() >= batch_bytes;
        if full || partition.rows() >= self.settings.config.batch_rows as usize {
            self.close(index)?;
        }
        Ok(())
    }

    /// The partition of a message; none where it was revoked.
    fn find(&mut self, taken: Taken<'_>) -> Option<usize> {
        let known = self.keys.get(&taken.key()).copied();
        let index = known.or_else(|| {
            let (topic, number) = match taken.read() {
                Arrived::Message(message) => (message.topic, message.partition),
                Arrived::End { topic, partition, .. } | Arrived::Failed { topic, partition, .. } => (topic, partition),
            };
            self.partitions.iter().position(|partition| partition.name.0 == topic && partition.name.1 == number)
        })?;
        self.keys.insert(taken.key(), index);
        self.partitions[index].is_read().then_some(index)
    }

    fn take_message(&mut self, message: Message<'_>, taken: Taken<'_>, index: usize) -> Result<()> {
        let headers = if self.wants_headers { taken.headers() } else { Vec::new() };
        let message = Message { headers: &headers, ..message };
        let partition = &mut self.partitions[index];
        if message.offset < partition.next {
            return Ok(());
        }
        let Topic { decoder, identity } = &mut self.topics[partition.topic];
        // Rows and letters are never open at once: what came first is closed by what comes then.
        loop {
            match decoder.append(&mut partition.batch, &message) {
                Ok(Appended::Skipped) => break,
                Ok(Appended::Rows) => {
                    if let Some(letters) = partition.close_letters(&identity.lineage)? {
                        self.verify.push(Arc::clone(identity), letters);
                    }
                    break;
                }
                Ok(Appended::CloseFirst) => {
                    let rows = partition.close_rows(decoder, &identity.lineage)?;
                    let rows = rows.ok_or_else(|| Error::internal("a batch without rows wants to be closed"))?;
                    self.verify.push(Arc::clone(identity), rows);
                }
                Err(error) if error.kind() == ErrorKind::Data && self.context.info().tolerance.dead_letters() => {
                    if let Some(rows) = partition.close_rows(decoder, &identity.lineage)? {
                        self.verify.push(Arc::clone(identity), rows);
                    }
                    partition.keep(&message, &taken.headers(), &error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        partition.took(&message);
        Ok(())
    }

    fn unreadable(&self, topic: &str, partition: i32, code: RDKafkaErrorCode, reason: &str, index: usize) -> Error {
        let at = format!("{topic}/{partition}");
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                let name = &self.partitions[index].name;
                let reach = |edge| {
                    let edges = cluster::edges(&self.consumer, std::slice::from_ref(name), edge);
                    edges.ok().and_then(|edges| edges.get(name).copied())
                };
                let (next, first, end) = (self.partitions[index].next, reach(Offset::Beginning), reach(Offset::End));
                let print = |edge: Option<i64>| edge.map_or_else(|| "(unknown)".to_owned(), |edge| edge.to_string());
                Error::config(format!(
                    "{at}: {reason}. The next message is at offset {next}, and the partition begins at {} and ends at {}: messages are gone by \
                     retention, or it is another partition. Nothing was skipped; to accept it, say where to go on with the sink's action \
                     `offsets`",
                    print(first),
                    print(end)
                ))
            }
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition => Error::unavailable(format!("{at} does not exist any more")),
            code => Error::new(client::kind(code), format!("{at}: {reason}")),
        }
    }
}
