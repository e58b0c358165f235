//! Which streams there are: their names, and for `philotes plan` what they look like.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use philotes_sdk::{ErrorKind, Result, StreamDescription, StreamName, StreamPartition, TaskContext};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{self, REQUEST, failed};
use crate::cluster;
use crate::config::Settings;
use crate::decode::{Appended, OpenBatch, TopicDecoder};
use crate::message::{Header, Message};
use crate::native::TopicIds;
use crate::reader::DecoderMaker;

/// Messages per stream.
const SAMPLE: u64 = 1_000;
/// How long a stream is sampled at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// The stream of a topic: its name's parts are what dots separate, so that `shop.public.orders` has a schema and a table.
pub(crate) fn stream_of(topic: &str) -> Result<StreamName> {
    StreamName::new(topic.split('.'))
}

/// Every wanted stream that has messages, by name. Blocks.
pub(crate) fn sample(
    settings: &Arc<Settings>,
    context: &TaskContext,
    decoders: &DecoderMaker,
) -> Result<Vec<StreamDescription>> {
    let consumer = client::connect(settings, context.info())?;
    let cluster = client::cluster_id(&consumer, settings)?;
    let route = &context.info().route;
    let names = topics(&consumer, settings)?;
    let ids = TopicIds::new(&consumer)?;
    cluster::lineages(&ids, &cluster, names.iter().map(String::as_str))?;
    let mut described = Vec::new();
    if names.is_empty() {
        tracing::warn!("no topic of the cluster matches topics_regex");
    }
    for topic in names {
        let stream = stream_of(&topic)?;
        if !route.wants(&stream) {
            continue;
        }
        let mut sample = Sample {
            consumer: &consumer,
            decoder: decoders(&topic, stream.clone())?,
            tolerates: context.info().tolerance.dead_letters(),
            described: None,
        };
        let sampled = sample.read(&topic)?;
        if let Some((partition, schema)) = sample.described {
            let at = StreamPartition { stream, partition: partition.to_string() };
            let inferred = schema.fields().iter().any(|field| {
                field.metadata().get(philotes_sdk::batch::META_INFERRED).is_some_and(|inferred| inferred == "true")
            });
            described.push(StreamDescription { at, schema, sampled_rows: inferred.then_some(sampled) });
        } else {
            tracing::warn!(
                topic,
                "no message of this topic could be read, so that nothing is known of its columns: is it empty?"
            );
        }
    }
    Ok(described)
}

/// The names of the topics that the configuration means.
fn topics(consumer: &client::Consumer, settings: &Settings) -> Result<Vec<String>> {
    let Some(regex) = &settings.config.topics_regex else { return Ok(settings.config.topics.clone()) };
    let all = consumer.client().fetch_metadata(None, REQUEST).map_err(|e| failed("cannot ask for topics", e))?;
    let names = all.topics().iter().map(|topic| topic.name()).filter(|name| !name.starts_with("__"));
    crate::regex::matching(regex, names)
}

/// One topic's sample.
struct Sample<'a> {
    consumer: &'a client::Consumer,
    decoder: TopicDecoder,
    tolerates: bool,
    described: Option<(i32, arrow::datatypes::SchemaRef)>,
}

impl Sample<'_> {
    /// Reads messages; how many made rows.
    fn read(&mut self, topic: &str) -> Result<u64> {
        let doing = |error| failed("cannot sample a topic", error).context(topic);
        let metadata = self.consumer.client().fetch_metadata(Some(topic), REQUEST).map_err(doing)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let mut left: HashSet<i32> = found.iter().flat_map(|found| found.partitions()).map(|p| p.id()).collect();
        let mut list = TopicPartitionList::new();
        for partition in &left {
            list.add_partition_offset(topic, *partition, Offset::Beginning).map_err(doing)?;
        }
        self.consumer.assign(&list).map_err(doing)?;
        let (deadline, mut rows, mut seen) = (Instant::now() + PATIENCE, 0, 0);
        while seen < SAMPLE && !left.is_empty() && Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
                Some(Err(error)) => return Err(doing(error)),
                Some(Ok(message)) => {
                    seen += 1;
                    rows += u64::from(self.take(topic, &message)?);
                }
            }
        }
        let _ = self.consumer.unassign();
        Ok(rows)
    }

    fn take(&mut self, topic: &str, message: &rdkafka::message::BorrowedMessage<'_>) -> Result<bool> {
        let headers: Vec<Header<'_>> = message
            .headers()
            .iter()
            .flat_map(|headers| headers.iter())
            .map(|header| Header { name: header.key, value: header.value })
            .collect();
        let message = Message {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_millis: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: &headers,
        };
        let mut batch = OpenBatch::default();
        match self.decoder.append(&mut batch, &message) {
            Ok(Appended::Rows) => {}
            Ok(Appended::Skipped | Appended::CloseFirst) => return Ok(false),
            // It would become a dead letter.
            Err(error) if error.kind() == ErrorKind::Data && self.tolerates => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Some(built) = self.decoder.close(&mut batch)? {
            self.described = Some((message.partition, built.rows.schema()));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_dots_separate_the_streams_parts() {
        for topic in ["orders", "shop.public.orders", "a..b", ".a", "a.", "_a-b.c"] {
            let stream = stream_of(topic).unwrap();
            assert_eq!(stream.parts().join("."), topic);
        }
        assert_eq!(stream_of("shop.public.orders").unwrap().to_string(), "shop.public.orders");
    }
}
