//! The source: what the host calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use philotes_sdk::{
    Error, Offset, Poll, Result, Source, StreamDescription, StreamOffset, StreamPartition, TaskContext,
};
use rdkafka::consumer::Consumer as _;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::begin::{Begin, Known, begin};
use crate::client::{self, Consumer, failed};
use crate::cluster;
use crate::config::{self, Config, FormatConfig, Settings};
use crate::decode::TopicDecoder;
use crate::handover::{Announced, Handover, Request, Said, Start};
use crate::native::TopicIds;
use crate::offset::TableOffset;
use crate::reader::{DecoderMaker, Reader};
use crate::regex;
use crate::registry::Registry;
use crate::streams::{self, stream_of};

/// Delivers the messages of topics, one stream per topic.
pub struct KafkaSource {
    settings: Arc<Settings>,
    handover: Arc<Handover>,
    /// Let go of before the reader ends, so that the reader leaves the group.
    consumer: Option<Arc<Consumer>>,
    reader: Option<JoinHandle<()>>,
    /// What the last poll said that the next one answers.
    unanswered: Option<Unanswered>,
}

/// What the host does between two polls.
enum Unanswered {
    Announced(Vec<Start>),
    Revoked,
}

#[async_trait]
impl Source for KafkaSource {
    const NAME: &'static str = "kafka";
    const DOC: &'static str = "Kafka topics, by JSON, Avro, JSON Schema, Debezium or as bytes.";
    type Config = Config;

    fn validate(config: &Config) -> Vec<String> {
        config::faults(config)
    }

    async fn check(config: Config, context: TaskContext) -> Result<()> {
        let settings = Arc::new(Settings::new(config)?);
        let check = move || {
            let decoders = decoders(&settings)?;
            let consumer = client::connect(&settings, context.info())?;
            let cluster = client::cluster_id(&consumer, &settings)?;
            for topic in &settings.config.topics {
                let ids = TopicIds::new(&consumer)?;
                cluster::lineages(&ids, &cluster, std::iter::once(topic.as_str())).map_err(|e| e.context("topics"))?;
                decoders(topic, stream_of(topic)?)?;
            }
            Ok(())
        };
        blocking(check).await
    }

    fn tasks(_: &Config, max: u32) -> u32 {
        // A task without a partition waits for one.
        max
    }

    async fn open(config: Config, context: TaskContext) -> Result<Self> {
        let settings = Arc::new(Settings::new(config)?);
        let opened = {
            let settings = Arc::clone(&settings);
            blocking(move || open(&settings, &context)).await?
        };
        let (handover, consumer, reader) = opened;
        Ok(Self { settings, handover, consumer: Some(consumer), reader: Some(reader), unanswered: None })
    }

    async fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll> {
        match self.unanswered.take() {
            Some(Unanswered::Announced(starts)) => self.handover.request(Request::Begin(starts)),
            Some(Unanswered::Revoked) => self.handover.request(Request::LetGo),
            None => {}
        }
        match self.handover.next(timeout, max_bytes).await? {
            Some(Said::Batch(batch)) => Ok(Poll::Batch(*batch)),
            Some(Said::Announce(partitions)) => {
                self.unanswered = Some(Unanswered::Announced(Vec::with_capacity(partitions.len())));
                Ok(Poll::Announce(partitions))
            }
            Some(Said::Revoke(partitions)) => {
                self.unanswered = Some(Unanswered::Revoked);
                Ok(Poll::Revoke(partitions))
            }
            None => Ok(Poll::Idle { caught_up: self.caught_up()? }),
        }
    }

    async fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
        let table = offset.map(TableOffset::read).transpose().map_err(|error| error.context(at))?;
        let announced = self.handover.announced(at);
        let announced = announced.ok_or_else(|| Error::internal(format!("{at} was not announced")))?;
        let offset = self.start(at, &announced, table.as_ref())?;
        let start = Start { at: at.clone(), offset, table: table.map(|table| table.offset) };
        match &mut self.unanswered {
            Some(Unanswered::Announced(starts)) => starts.push(start),
            _ => return Err(Error::internal(format!("{at} is resumed without an announcement"))),
        }
        Ok(())
    }

    async fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
        for StreamOffset { at, offset } in offsets {
            let offset = TableOffset::read(offset).map_err(|error| error.context(at))?;
            self.handover.request(Request::Durable(at.clone(), offset.offset));
        }
        Ok(())
    }

    async fn close(mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let reader = self.reader.take();
        drop(self);
        let Some(reader) = reader else { return Ok(()) };
        while !reader.is_finished() {
            if Instant::now() >= deadline {
                return Err(Error::unavailable("the brokers do not let the member leave its group in time"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn streams(config: Config, context: TaskContext) -> Result<Vec<StreamDescription>> {
        let settings = Arc::new(Settings::new(config)?);
        blocking(move || streams::sample(&settings, &context, &decoders(&settings)?)).await
    }
}

impl KafkaSource {
    /// Where to begin a partition.
    fn start(&self, at: &StreamPartition, announced: &Announced, table: Option<&TableOffset>) -> Result<i64> {
        let reset = self.settings.config.auto_offset_reset;
        let Announced { partition, known } = announced;
        let consumer = self.consumer.as_ref().ok_or_else(|| Error::internal("the client is closed"))?;
        let begun = match begin(at, known, table, reset) {
            // The end may have moved since it was asked for.
            Err(_) if table.is_some() => {
                let lineages = [(partition.0.clone(), known.lineage.clone())].into();
                let known = cluster::know(consumer, &lineages, std::slice::from_ref(partition))?;
                let known: &Known =
                    known.get(partition).ok_or_else(|| Error::internal(format!("{at}: nothing is known of it")))?;
                begin(at, known, table, reset)?
            }
            begun => begun?,
        };
        match begun {
            Begin::At(offset) => Ok(offset),
            Begin::Anew(offset) => {
                tracing::warn!(
                    stream = %at.stream, partition = at.partition, offset,
                    "the table knows nothing of this partition, though rows of it were committed before: it is read anew, as \
                     auto_offset_reset: earliest says"
                );
                Ok(offset)
            }
            Begin::End => cluster::begin_at_end(consumer, partition, known),
        }
    }

    /// Whether everything there was when this is asked has been handed over.
    fn caught_up(&self) -> Result<bool> {
        let (Some(drained), Some(consumer)) = (self.handover.drained(), &self.consumer) else { return Ok(false) };
        let partitions: Vec<_> = drained.iter().map(|(partition, _)| partition.clone()).collect();
        match cluster::edges(consumer, &partitions, rdkafka::Offset::End) {
            Ok(ends) => Ok(drained.iter().all(|(partition, next)| ends.get(partition).is_some_and(|end| end <= next))),
            Err(error) if error.kind() == philotes_sdk::ErrorKind::Unavailable => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.consumer = None;
        self.handover.request(Request::Stop);
    }
}

/// Runs what blocks on a thread that may be blocked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal("a blocking call panicked").with_source(error)))
}

/// Joins the group and starts the reader.
fn open(settings: &Arc<Settings>, context: &TaskContext) -> Result<(Arc<Handover>, Arc<Consumer>, JoinHandle<()>)> {
    let consumer = client::connect(settings, context.info())?;
    let cluster = client::cluster_id(&consumer, settings)?;
    let config = &settings.config;
    let route = &context.info().route;
    let wanted = |topic: &&String| stream_of(topic).is_ok_and(|stream| route.wants(&stream));
    let topics: Vec<String> = match &config.topics_regex {
        Some(regex) => vec![regex::whole(regex)],
        None => config.topics.iter().filter(wanted).cloned().collect(),
    };
    if topics.is_empty() {
        return Err(Error::config("route: takes none of the source's topics"));
    }
    if config.topics_regex.is_none() {
        // A name that is not there would never be heard of.
        cluster::lineages(&TopicIds::new(&consumer)?, &cluster, topics.iter().map(String::as_str))?;
    }
    let handover = Arc::new(Handover::default());
    let reader = Reader::new(
        context.clone(),
        Arc::clone(settings),
        cluster,
        Arc::clone(&consumer),
        Arc::clone(&handover),
        decoders(settings)?,
    )?;
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&names).map_err(|error| failed("cannot subscribe", error))?;
    // A thread of the runtime, so that what it logs is known to be this instance's.
    let thread = tokio::task::spawn_blocking(move || reader.run());
    Ok((handover, consumer, thread))
}

/// What makes the decoders of a source's topics.
fn decoders(settings: &Arc<Settings>) -> Result<DecoderMaker> {
    let settings = Arc::clone(settings);
    let registry = settings.config.registry.as_ref().map(|registry| Registry::new(registry, Handle::current()));
    let registry = registry.transpose()?.map(Arc::new);
    Ok(Box::new(move |topic, stream| {
        let format: &FormatConfig = settings.format(topic)?;
        TopicDecoder::new(stream, format, &settings.config.metadata_columns, registry.as_ref())
    }))
}
