//! The thread that owns the group's protocol and the messages.
//!
//! It serves librdkafka's events whatever happens, so that the group never takes this member for dead while the sink is slow. While
//! there is no room for more rows, messages wait in their queue, which is bounded, and librdkafka stops fetching.
//!
//! A partition's life: *assigned* by the group, *announced* to the host, *begun* at the offset that the host resumed it with; then
//! read, until it is *revoked*: what was not handed over of it is dropped, the host flushes what it has, and only then is the
//! group told that the next member may have it. A partition that was *lost* may have another owner already: that is fencing.

mod group;
mod intake;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use philotes_sdk::{Error, ErrorKind, Result, StreamName, StreamPartition, TaskContext, failpoint};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::client::{self, Consumer, TopicPartition};
use crate::cluster;
use crate::config::{MetadataColumn, Settings};
use crate::decode::TopicDecoder;
use crate::handover::{Handover, Request};
use crate::native::{self, Messages, PartitionKey, TopicIds};
use crate::offset::Lineage;
use crate::partition::Partition;
use crate::verify::{Identity, Verify};

/// How long the thread waits for messages, or for room, before it looks at everything else.
const LOOK: Duration = Duration::from_millis(20);
/// How many events are served at a time.
const EVENTS: usize = 16;
/// How much longer a batch waits that ends in a DELETE: the INSERT of a changed key follows at once, and belongs into it.
const INSERT_WAIT: Duration = Duration::from_millis(200);
/// How often the group is told how far the table reaches, and the metrics how far it is behind.
const TELL: Duration = Duration::from_secs(1);
/// The smallest share of memory for rows.
const LEAST_ROOM: usize = 2 << 20;

/// A topic that is read.
struct Topic {
    decoder: TopicDecoder,
    identity: Arc<Identity>,
}

/// The reader of one instance.
pub(crate) struct Reader {
    context: TaskContext,
    settings: Arc<Settings>,
    cluster: String,
    consumer: Arc<Consumer>,
    handover: Arc<Handover>,
    messages: Arc<Messages>,
    verify: Verify,
    ids: TopicIds,
    topics: Vec<Topic>,
    partitions: Vec<Partition>,
    /// Where the partitions are in `partitions`, as far as messages of them have come.
    keys: HashMap<PartitionKey, usize>,
    /// What the topics were when partitions of them were assigned.
    lineages: HashMap<String, Lineage>,
    /// Assigned by the group, and not begun yet.
    assigned: Option<Vec<TopicPartition>>,
    /// Revoked by the group, and not flushed yet.
    revoked: Option<Vec<TopicPartition>>,
    /// The group has assigned something, though it may be nothing.
    joined: bool,
    room: usize,
    wants_headers: bool,
    told: Instant,
    decoders: DecoderMaker,
}

/// Makes the decoder of a topic.
pub(crate) type DecoderMaker = Box<dyn Fn(&str, StreamName) -> Result<TopicDecoder> + Send>;

impl Reader {
    pub(crate) fn new(
        context: TaskContext,
        settings: Arc<Settings>,
        cluster: String,
        consumer: Arc<Consumer>,
        handover: Arc<Handover>,
        decoders: DecoderMaker,
    ) -> Result<Self> {
        let max_memory = context.info().max_memory;
        let rest = max_memory.saturating_sub(client::fetched_bytes(max_memory));
        Ok(Self {
            room: usize::try_from(rest).unwrap_or(usize::MAX).max(LEAST_ROOM),
            wants_headers: settings.config.metadata_columns.contains(&MetadataColumn::Headers),
            messages: Arc::new(Messages::new(&consumer)?),
            verify: Verify::new(&consumer)?,
            ids: TopicIds::new(&consumer)?,
            context,
            settings,
            cluster,
            consumer,
            handover,
            topics: Vec::new(),
            partitions: Vec::new(),
            keys: HashMap::new(),
            lineages: HashMap::new(),
            assigned: None,
            revoked: None,
            joined: false,
            told: Instant::now(),
            decoders,
        })
    }

    /// Reads until it is asked to stop, or fails; then leaves the group.
    pub(crate) fn run(mut self) {
        let _ends = Ends(Arc::clone(&self.handover));
        let failed = self.read().map_err(|error| self.handover.fail(error)).is_err();
        self.leave(failed);
    }

    fn read(&mut self) -> Result<()> {
        let mut patience = Duration::ZERO;
        loop {
            for request in self.handover.requests(patience) {
                match request {
                    Request::Begin(starts) => self.begin(&starts)?,
                    Request::LetGo => self.let_go()?,
                    Request::Durable(at, offset) => self.durable(&at, offset),
                    Request::Stop => return Ok(()),
                }
            }
            patience = Duration::ZERO;
            self.serve_events()?;
            self.serve_group()?;
            self.hand_over(Duration::ZERO)?;
            self.close_due()?;
            if self.told.elapsed() >= TELL {
                self.tell(CommitMode::Async);
            }
            self.handover.set_drained(self.drained());
            if self.has_room()? {
                self.take_in(if self.verify.is_empty() { LOOK } else { Duration::from_millis(2) })?;
            } else if !self.verify.is_empty() {
                self.hand_over(LOOK)?;
            } else {
                // For the host to take some, or to ask for something.
                patience = LOOK;
            }
        }
    }

    /// Hands over what is proved by now.
    fn hand_over(&mut self, patience: Duration) -> Result<()> {
        for batch in self.verify.proved(patience)? {
            failpoint!("kafka.proved", |message| Error::unavailable(message));
            self.handover.batch(batch);
        }
        Ok(())
    }

    /// Whether more messages may be decoded. Rows that are in no batch yet are closed where they are what takes the room.
    fn has_room(&mut self) -> Result<bool> {
        let (handed_over, _) = self.handover.sizes();
        let open: usize = self.partitions.iter().map(Partition::bytes).sum();
        let waiting = handed_over + self.verify.bytes();
        if open > self.room / 2
            && let Some(largest) = (0..self.partitions.len()).max_by_key(|index| self.partitions[*index].bytes())
        {
            self.close(largest)?;
        }
        Ok(waiting + open < self.room)
    }

    fn durable(&mut self, at: &StreamPartition, offset: i64) {
        if let Some(partition) = self.partitions.iter_mut().find(|partition| partition.at == *at) {
            partition.durable(offset);
        }
    }

    /// Lets librdkafka call back, and looks at what has gone wrong.
    fn serve_events(&mut self) -> Result<()> {
        for _ in 0..EVENTS {
            match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Ok(_)) => return Err(Error::internal("a message came out of the consumer's own queue")),
                Some(Err(error)) => self.trouble(&error)?,
            }
        }
        Ok(())
    }

    fn trouble(&mut self, error: &KafkaError) -> Result<()> {
        let said = self.consumer.context().take_trouble();
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let reason = said.map_or_else(|| error.to_string(), |(_, reason)| reason);
        match code {
            // librdkafka connects again by itself; what counts is whether anybody answers.
            RDKafkaErrorCode::AllBrokersDown => cluster::answers(&self.consumer, self.any_topic())
                .map_err(|_| Error::unavailable(format!("all brokers are down: {reason}"))),
            RDKafkaErrorCode::PollExceeded => {
                Err(Error::fenced(format!("the group has given this member up: {reason}")))
            }
            code if client::is_about_getting_in(code) => Err(Error::unavailable(reason)),
            _ => {
                let kind = client::kind(code);
                if kind == ErrorKind::Unavailable && !is_final(code) {
                    // librdkafka's own log has it as well.
                    tracing::debug!(code = %code, "{reason}");
                    return Ok(());
                }
                Err(Error::new(kind, reason))
            }
        }
    }

    /// A topic to ask the brokers about.
    fn any_topic(&self) -> Option<&str> {
        let read = self.partitions.first().map(|partition| &partition.name.0);
        read.or(self.settings.config.topics.first()).map(String::as_str)
    }

    fn close(&mut self, index: usize) -> Result<()> {
        let partition = &mut self.partitions[index];
        let Topic { decoder, identity } = &mut self.topics[partition.topic];
        if let Some(batch) = partition.close(decoder, &identity.lineage)? {
            self.verify.push(Arc::clone(identity), batch);
        }
        Ok(())
    }

    /// Closes what has waited for others long enough.
    fn close_due(&mut self) -> Result<()> {
        for index in 0..self.partitions.len() {
            let Partition { opened, batch, .. } = &self.partitions[index];
            let more = if batch.ends_in_delete() { INSERT_WAIT } else { Duration::ZERO };
            if opened.is_some_and(|opened| opened.elapsed() >= self.settings.batch_wait + more) {
                self.close(index)?;
            }
        }
        Ok(())
    }

    /// How far everything is handed over, if there is nothing else under way.
    fn drained(&self) -> Option<Vec<(TopicPartition, i64)>> {
        let settled = self.joined
            && self.assigned.is_none()
            && self.revoked.is_none()
            && self.verify.is_empty()
            && self.handover.is_empty()
            && self.partitions.iter().all(|partition| partition.at_end && partition.rows() == 0);
        settled.then(|| self.partitions.iter().map(|partition| (partition.name.clone(), partition.next)).collect())
    }

    /// Tells the group how far the table reaches, and the metrics how far it is behind.
    fn tell(&mut self, mode: CommitMode) {
        self.told = Instant::now();
        let mut news = Vec::new();
        for partition in &mut self.partitions {
            if let Some(end) = native::known_end(&self.consumer, &partition.name.0, partition.name.1) {
                gauge_lag(&self.context, partition, partition.lag(end));
            }
            let lineage = &self.topics[partition.topic].identity.lineage;
            if let Some((offset, mark)) = partition.news(lineage) {
                news.push((partition.name.clone(), offset, mark));
            }
        }
        let offsets = news.iter().map(|(partition, offset, mark)| (partition, *offset, mark));
        if let Err(error) = cluster::commit(&self.consumer, offsets, mode) {
            // For people's tools only: the next one makes up for it.
            tracing::debug!(%error, "the group was not told how far the table reaches");
        }
    }

    /// Leaves the group. Where something has failed, the brokers may be what failed, and the group is not told anything more.
    fn leave(mut self, failed: bool) {
        let consumer = Arc::clone(&self.consumer);
        for request in self.handover.requests(Duration::ZERO) {
            if let Request::Durable(at, offset) = request {
                self.durable(&at, offset);
            }
        }
        if !failed {
            self.tell(CommitMode::Sync);
        }
        consumer.context().close();
        self.answer_group();
        drop(self);
        // The last owner leaves the group.
        drop(consumer);
    }
}

/// Lets the host know where the thread ends by a panic.
struct Ends(Arc<Handover>);

impl Drop for Ends {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::internal("the reader's thread panicked"));
        }
    }
}

/// The gauge that the host shows beside the partition.
fn gauge_lag(context: &TaskContext, partition: &Partition, lag: i64) {
    #[expect(clippy::cast_precision_loss, reason = "a metric's value is a double in Prometheus as well")]
    let lag = lag as f64;
    let labels = [("stream", &*partition.at.stream.to_string()), ("partition", &*partition.at.partition)];
    context.gauge(philotes_sdk::LAG_RECORDS, lag, &labels);
}

/// Errors that librdkafka does not get over by itself.
fn is_final(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::Fatal
    )
}
