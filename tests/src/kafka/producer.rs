//! Messages into topics: millions of them in a moment, or a few in a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::util::Timeout;

/// How long anything may take.
const PATIENCE: Timeout = Timeout::After(Duration::from_secs(60));

/// A message to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// Its key, if any.
    pub key: Option<&'a [u8]>,
    /// Its value; a tombstone without.
    pub value: Option<&'a [u8]>,
    /// Names and values.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// In milliseconds since 1970 UTC; when it is sent, without.
    pub timestamp_millis: Option<i64>,
}

impl<'a> Record<'a> {
    /// A message of this value only.
    #[must_use]
    pub fn of(value: &'a [u8]) -> Self {
        Self { value: Some(value), ..Self::default() }
    }
}

/// Sends messages. What was sent is there after [`flush`](Producer::flush).
pub struct Producer {
    producer: BaseProducer<Failures>,
    failures: Failures,
    sent: AtomicU64,
}

/// Counts what was not delivered.
#[derive(Clone, Default)]
struct Failures(Arc<AtomicU64>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        // What an abort takes back was meant to go.
        let is_purged = |error: &KafkaError| {
            matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
        };
        if result.as_ref().is_err_and(|(error, _)| !is_purged(error)) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Producer {
    pub(super) fn new(config: &ClientConfig) -> Result<Self> {
        let failures = Failures::default();
        let producer = BaseProducer::from_config_and_context(config, failures.clone())?;
        Ok(Self { producer, failures, sent: AtomicU64::new(0) })
    }

    /// Sends a message; waits where the queue is full.
    ///
    /// # Errors
    /// When librdkafka does not take it.
    pub fn send(&self, topic: &str, partition: i32, record: &Record<'_>) -> Result<()> {
        let mut base = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
        (base.key, base.payload, base.timestamp) = (record.key, record.value, record.timestamp_millis);
        if !record.headers.is_empty() {
            let all = OwnedHeaders::new_with_capacity(record.headers.len());
            base.headers =
                Some(record.headers.iter().fold(all, |all, (key, value)| all.insert(Header { key, value: *value })));
        }
        while let Err((error, again)) = self.producer.send(base) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            base = again;
            self.producer.poll(Duration::from_millis(10));
        }
        // What is delivered is reported by polling only.
        if self.sent.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Sends one value to partition 0 and waits until it is there.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn send_one(&self, topic: &str, value: &[u8]) -> Result<()> {
        self.send(topic, 0, &Record::of(value))?;
        self.flush()
    }

    /// Waits until everything is delivered.
    ///
    /// # Errors
    /// When something was not.
    pub fn flush(&self) -> Result<()> {
        self.producer.flush(PATIENCE)?;
        let failures = self.failures.0.load(Ordering::Relaxed);
        ensure!(failures == 0, "{failures} messages were not delivered");
        Ok(())
    }

    pub(super) fn init_transactions(&self) -> Result<()> {
        Ok(self.producer.init_transactions(PATIENCE)?)
    }

    /// Begins a transaction, of a producer that was made for them.
    ///
    /// # Errors
    /// The broker's; the same holds for the two below.
    pub fn begin(&self) -> Result<()> {
        Ok(self.producer.begin_transaction()?)
    }

    /// Commits it.
    ///
    /// # Errors
    /// The broker's.
    pub fn commit(&self) -> Result<()> {
        self.flush()?;
        Ok(self.producer.commit_transaction(PATIENCE)?)
    }

    /// Aborts it. What it sent is in the topic all the same, and readers of what is committed do not see it.
    ///
    /// # Errors
    /// The broker's.
    pub fn abort(&self) -> Result<()> {
        self.flush()?;
        Ok(self.producer.abort_transaction(PATIENCE)?)
    }
}
