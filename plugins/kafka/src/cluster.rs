//! Questions to the brokers about partitions: how far they reach, and what the group has committed.

use std::collections::{BTreeSet, HashMap};

use philotes_sdk::{Error, Result};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::begin::Known;
use crate::client::{Consumer, REQUEST, TopicPartition, failed};
use crate::native::{Described, TopicIds};
use crate::offset::{GroupMark, Lineage};

/// Whether any broker answers.
pub(crate) fn answers(consumer: &Consumer, topic: Option<&str>) -> Result<()> {
    let answer = consumer.client().fetch_metadata(topic, REQUEST);
    answer.map(drop).map_err(|error| failed("no broker answers", error))
}

/// The lineages of these topics.
///
/// # Errors
/// Unavailable where a topic does not exist; Config where it may not be looked at.
pub(crate) fn lineages<'a>(
    ids: &TopicIds,
    cluster: &str,
    topics: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, Lineage>> {
    let topics: BTreeSet<&str> = topics.collect();
    if topics.is_empty() {
        return Ok(HashMap::new());
    }
    let mut described = ids.now(topics.iter().copied())?;
    let lineage = |topic: &str| {
        let topic_id = topic_id(topic, described.remove(topic))?;
        Ok((topic.to_owned(), Lineage { cluster: cluster.to_owned(), topic_id }))
    };
    topics.into_iter().map(lineage).collect()
}

/// The id of a topic that is needed.
pub(crate) fn topic_id(topic: &str, described: Option<Described>) -> Result<Option<String>> {
    match described {
        Some(Described::Id(id)) => Ok(id),
        Some(Described::Missing) => Err(Error::unavailable(format!("topic {topic} does not exist"))),
        Some(Described::Forbidden) => {
            Err(Error::config(format!("topic {topic}: the brokers do not let this client describe it")))
        }
        Some(Described::Unclear(reason)) => Err(Error::unavailable(format!("topic {topic}: {reason}"))),
        None => Err(Error::unavailable(format!("topic {topic}: the brokers say nothing of it"))),
    }
}

/// What the cluster says of these partitions, which are of topics with these lineages.
pub(crate) fn know(
    consumer: &Consumer,
    lineages: &HashMap<String, Lineage>,
    partitions: &[TopicPartition],
) -> Result<HashMap<TopicPartition, Known>> {
    let first = edges(consumer, partitions, Offset::Beginning)?;
    let end = edges(consumer, partitions, Offset::End)?;
    let mut committed = committed(consumer, partitions)?;
    partitions
        .iter()
        .map(|partition| {
            let lineage = lineages
                .get(&partition.0)
                .ok_or_else(|| Error::internal(format!("topic {} has no lineage", partition.0)))?
                .clone();
            let committed = committed
                .remove(partition)
                .and_then(|(offset, metadata)| Some((offset, GroupMark::read(&metadata, &lineage)?)));
            let edge = |edges: &HashMap<TopicPartition, i64>| {
                edges.get(partition).copied().ok_or_else(|| {
                    Error::unavailable(format!(
                        "{}/{}: the brokers do not say how far it reaches",
                        partition.0, partition.1
                    ))
                })
            };
            Ok((partition.clone(), Known { first: edge(&first)?, end: edge(&end)?, committed, lineage }))
        })
        .collect()
}

/// Where partitions begin (`Offset::Beginning`) or end (`Offset::End`) now; a request to each leader.
pub(crate) fn edges(
    consumer: &Consumer,
    partitions: &[TopicPartition],
    edge: Offset,
) -> Result<HashMap<TopicPartition, i64>> {
    if partitions.is_empty() {
        return Ok(HashMap::new());
    }
    let doing = "cannot ask how far partitions reach";
    let asked = list(partitions.iter().map(|partition| (partition, edge)))?;
    // The request for times takes these two edges as special times.
    let answered = consumer.offsets_for_times(asked, REQUEST).map_err(|error| failed(doing, error))?;
    let mut edges = HashMap::with_capacity(partitions.len());
    for element in answered.elements() {
        element
            .error()
            .map_err(|error| failed(doing, error).context(format!("{}/{}", element.topic(), element.partition())))?;
        if let Offset::Offset(offset) = element.offset() {
            edges.insert((element.topic().to_owned(), element.partition()), offset);
        }
    }
    Ok(edges)
}

/// What the group has committed, with its metadata.
fn committed(consumer: &Consumer, partitions: &[TopicPartition]) -> Result<HashMap<TopicPartition, (i64, String)>> {
    if partitions.is_empty() {
        return Ok(HashMap::new());
    }
    let asked = list(partitions.iter().map(|partition| (partition, Offset::Invalid)))?;
    let answered = consumer
        .committed_offsets(asked, REQUEST)
        .map_err(|error| failed("cannot ask for the group's offsets", error))?;
    let mut committed = HashMap::new();
    for element in answered.elements() {
        // Taken for none, it would let a partition begin anew.
        element.error().map_err(|error| {
            failed("cannot ask for the group's offset", error).context(format!(
                "{}/{}",
                element.topic(),
                element.partition()
            ))
        })?;
        if let Offset::Offset(offset) = element.offset() {
            let partition = (element.topic().to_owned(), element.partition());
            committed.insert(partition, (offset, element.metadata().to_owned()));
        }
    }
    Ok(committed)
}

/// Writes down in the group where a partition begins that no table knows: at its end as it is now. A later start begins there as
/// well, though nothing may be in the table by then. The other partitions of the topic get their start at the same moment, so that one
/// that is added later is told by having none: all that is in it is new.
pub(crate) fn begin_at_end(consumer: &Consumer, partition: &TopicPartition, known: &Known) -> Result<i64> {
    let topic = &partition.0;
    let metadata = consumer
        .client()
        .fetch_metadata(Some(topic), REQUEST)
        .map_err(|error| failed("cannot ask for a topic's partitions", error).context(topic))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let siblings: Vec<TopicPartition> =
        found.iter().flat_map(|topic| topic.partitions()).map(|sibling| (topic.clone(), sibling.id())).collect();
    let marked = committed(consumer, &siblings)?;
    if marked.values().any(|(_, metadata)| GroupMark::read(metadata, &known.lineage).is_some()) {
        return Ok(known.first);
    }
    let ends = edges(consumer, &siblings, Offset::End)?;
    let mark = GroupMark::new(&known.lineage, None);
    commit(consumer, ends.iter().map(|(partition, end)| (partition, *end, &mark)), CommitMode::Sync)?;
    // Read back: an answer to all of them may hide that one was not taken.
    let written = committed(consumer, std::slice::from_ref(partition))?.remove(partition);
    match (ends.get(partition), written) {
        (Some(end), Some((offset, _))) if offset == *end => Ok(offset),
        _ => Err(Error::unavailable(format!(
            "{topic}/{}: the group has not kept where the partition is begun",
            partition.1
        ))),
    }
}

/// Commits offsets of the group.
pub(crate) fn commit<'a>(
    consumer: &Consumer,
    offsets: impl Iterator<Item = (&'a TopicPartition, i64, &'a GroupMark)>,
    mode: CommitMode,
) -> Result<()> {
    let doing = "cannot tell the group how far the table reaches";
    let mut committed = TopicPartitionList::new();
    for ((topic, partition), offset, mark) in offsets {
        let mut element = committed.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(offset)).map_err(|error| failed(doing, error))?;
        element.set_metadata(mark.write()?);
    }
    if committed.count() == 0 {
        return Ok(());
    }
    consumer.commit(&committed, mode).map_err(|error| failed(doing, error))
}

/// A list for librdkafka.
pub(crate) fn list<'a>(partitions: impl Iterator<Item = (&'a TopicPartition, Offset)>) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in partitions {
        list.add_partition_offset(topic, *partition, offset)
            .map_err(|error| Error::internal(format!("{topic}/{partition}: no offset")).with_source(error))?;
    }
    Ok(list)
}
