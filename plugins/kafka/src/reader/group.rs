//! The group's protocol, answered by hand: what is assigned is announced first, what is revoked is flushed first.

use std::collections::HashSet;
use std::sync::Arc;

use philotes_sdk::{Error, Result, StreamName, StreamPartition, failpoint};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{Reader, Topic, gauge_lag};
use crate::client::{Rebalance, TopicPartition, failed};
use crate::cluster;
use crate::handover::{Announced, Start};
use crate::partition::Partition;
use crate::streams::stream_of;
use crate::verify::Identity;

impl Reader {
    /// What the group has decided.
    pub(super) fn serve_group(&mut self) -> Result<()> {
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            match rebalance {
                Rebalance::Assign(partitions) => self.assign(partitions)?,
                Rebalance::Revoke { partitions, lost: true } => {
                    let count = partitions.len();
                    self.revoked = Some(partitions);
                    return Err(Error::fenced(format!(
                        "the group has given this member up, and {count} partitions may have other owners"
                    )));
                }
                Rebalance::Revoke { partitions, lost: false } => self.revoke(partitions)?,
            }
        }
        Ok(())
    }

    fn assign(&mut self, partitions: Vec<TopicPartition>) -> Result<()> {
        self.joined = true;
        tracing::info!(partitions = partitions.len(), "the group has assigned partitions");
        let route = &self.context.info().route;
        let wanted: Vec<TopicPartition> = partitions
            .iter()
            .filter(|(topic, _)| stream_of(topic).is_ok_and(|stream| route.wants(&stream)))
            .cloned()
            .collect();
        self.assigned = Some(partitions);
        if wanted.is_empty() {
            return self.begin(&[]);
        }
        let topics = wanted.iter().map(|(topic, _)| topic.as_str());
        self.lineages.extend(cluster::lineages(&self.ids, &self.cluster, topics)?);
        let known = cluster::know(&self.consumer, &self.lineages, &wanted)?;
        failpoint!("kafka.assigned", |message| Error::unavailable(message));
        let mut announced = Vec::with_capacity(known.len());
        for partition in wanted {
            let at = StreamPartition { stream: stream_of(&partition.0)?, partition: partition.1.to_string() };
            let known = known.get(&partition).cloned();
            let known = known.ok_or_else(|| Error::internal(format!("{at}: nothing is known of it")))?;
            announced.push((at, Announced { partition, known }));
        }
        self.handover.announce(announced);
        Ok(())
    }

    /// Begins what was assigned: what was resumed at its start, and nothing of what nobody wants.
    pub(super) fn begin(&mut self, starts: &[Start]) -> Result<()> {
        let Some(assigned) = self.assigned.take() else { return Ok(()) };
        let mut begun = Vec::with_capacity(assigned.len());
        let mut paused = Vec::new();
        for partition in assigned {
            let at = StreamPartition { stream: stream_of(&partition.0)?, partition: partition.1.to_string() };
            self.messages.gather(&partition.0, partition.1)?;
            match starts.iter().find(|start| start.at == at) {
                Some(start) => {
                    let topic = self.topic(&partition.0, &at.stream)?;
                    self.partitions.push(Partition::new(partition.clone(), topic, start));
                    begun.push((partition, Offset::Offset(start.offset)));
                }
                None => {
                    paused.push(partition.clone());
                    begun.push((partition, Offset::End));
                }
            }
        }
        let list = cluster::list(begun.iter().map(|(partition, offset)| (partition, *offset)))?;
        self.consumer.incremental_assign(&list).map_err(|error| failed("cannot begin partitions", error))?;
        if !paused.is_empty() {
            let list = cluster::list(paused.iter().map(|partition| (partition, Offset::Invalid)))?;
            self.consumer.pause(&list).map_err(|error| failed("cannot pause partitions", error))?;
        }
        failpoint!("kafka.begun", |message| Error::unavailable(message));
        Ok(())
    }

    /// Where the topic is in `topics`; it is put there.
    fn topic(&mut self, name: &str, stream: &StreamName) -> Result<usize> {
        let lineage = self.lineages.get(name);
        let lineage = lineage.ok_or_else(|| Error::internal(format!("topic {name} has no lineage")))?;
        if let Some(known) = self.topics.iter().position(|topic| topic.identity.topic == name) {
            let identity = &self.topics[known].identity;
            if identity.lineage == *lineage {
                return Ok(known);
            }
            return Err(identity.made_anew(lineage.topic_id.as_deref()));
        }
        let decoder = (self.decoders)(name, stream.clone())?;
        let identity = Arc::new(Identity { topic: name.to_owned(), lineage: lineage.clone() });
        self.topics.push(Topic { decoder, identity });
        Ok(self.topics.len() - 1)
    }

    fn revoke(&mut self, partitions: Vec<TopicPartition>) -> Result<()> {
        tracing::info!(partitions = partitions.len(), "the group has revoked partitions");
        let revoked: HashSet<&TopicPartition> = partitions.iter().collect();
        let streams: Vec<StreamPartition> = self
            .partitions
            .iter()
            .filter(|partition| revoked.contains(&partition.name))
            .map(|partition| partition.at.clone())
            .collect();
        for partition in self.partitions.iter_mut().filter(|partition| revoked.contains(&partition.name)) {
            // Read again by whoever comes next.
            partition.stop();
        }
        self.verify.forget(&streams);
        self.revoked = Some(partitions);
        if streams.is_empty() || !self.handover.revoke(&streams) {
            return self.let_go();
        }
        Ok(())
    }

    /// The host has flushed what was revoked: the next member may have it.
    pub(super) fn let_go(&mut self) -> Result<()> {
        let Some(revoked) = self.revoked.take() else { return Ok(()) };
        failpoint!("kafka.revoked", |message| Error::unavailable(message));
        self.tell(CommitMode::Async);
        self.keys.clear();
        self.partitions.retain(|partition| {
            let goes = revoked.contains(&partition.name);
            if goes {
                gauge_lag(&self.context, partition, 0);
            }
            !goes
        });
        let list = cluster::list(revoked.iter().map(|partition| (partition, Offset::Invalid)))?;
        self.consumer.incremental_unassign(&list).map_err(|error| failed("cannot let go of partitions", error))
    }

    /// Answers what the group waits for, so that the client can be closed.
    pub(super) fn answer_group(&mut self) {
        let mut unanswered = Vec::new();
        unanswered.extend(self.assigned.take().map(Rebalance::Assign));
        unanswered.extend(self.revoked.take().map(|partitions| Rebalance::Revoke { partitions, lost: false }));
        unanswered.extend(std::iter::from_fn(|| self.consumer.context().next_rebalance()));
        for rebalance in unanswered {
            let answered = match rebalance {
                Rebalance::Assign(_) => self.consumer.incremental_assign(&TopicPartitionList::new()),
                Rebalance::Revoke { partitions, .. } => {
                    let list = cluster::list(partitions.iter().map(|partition| (partition, Offset::Invalid)));
                    self.consumer.incremental_unassign(&list.unwrap_or_default())
                }
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "leaving the group");
            }
        }
    }
}
