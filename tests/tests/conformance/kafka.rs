//! The source suite over topics of a real broker.

use std::ops::Range;

use async_trait::async_trait;
use philotes_sdk::conformance::{KEYS, SourceFixture, check_source, source_clause};
use philotes_sdk::{Error, Result, Source, StreamName};
use philotes_tests::kafka::{Client, Record};
use philotes_tests::or_skip;
use philotes_tests::services::kafka::Kafka;
use serde_json::{Value, json};

use crate::loaded::LoadedKafka;
use crate::runtime;

/// Partitions of each topic, so that two instances can share them out.
const PARTITIONS: i32 = 4;

struct Topics {
    kafka: Kafka,
    client: Client,
    /// Each scenario has topics and a group of its own.
    scenario: u32,
    added: [bool; 2],
}

impl Topics {
    fn topic(&self, index: usize) -> String {
        format!("conformance-{}.{}", self.scenario, ["first", "second"][index])
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: anyhow::Error) -> Error {
    Error::internal(format!("{error:#}"))
}

#[async_trait]
impl SourceFixture for Topics {
    type Source = LoadedKafka;
    const SHARES: bool = true;

    async fn reset(&mut self) -> Result<()> {
        self.scenario += 1;
        self.added = [false; 2];
        tokio::task::block_in_place(|| {
            (0..2).try_for_each(|index| self.client.create_topic(&self.topic(index), PARTITIONS)).map_err(failed)
        })
    }

    fn config(&self) -> Value {
        json!({
            "bootstrap_servers": self.kafka.bootstrap(),
            "topics_regex": format!("conformance-{}[.].*", self.scenario),
            "group": format!("conformance-{}", self.scenario),
            "batch_rows": 8,
            "batch_wait": "10ms",
            "format": {"type": "json", "key": ["k"]},
            "properties": {"session.timeout.ms": "6000"},
        })
    }

    fn stream(&self, index: usize) -> StreamName {
        StreamName::new(self.topic(index).split('.')).expect("two parts")
    }

    async fn put(&mut self, stream: usize, numbers: Range<i64>) -> Result<()> {
        tokio::task::block_in_place(|| {
            let producer = self.client.producer()?;
            for number in numbers {
                let mut row = json!({"k": number % KEYS, "n": number});
                if self.added[stream] {
                    row["added"] = "new".into();
                }
                let partition = i32::try_from(number % KEYS)? % PARTITIONS;
                producer.send(&self.topic(stream), partition, &Record::of(row.to_string().as_bytes()))?;
            }
            producer.flush()
        })
        .map_err(failed)
    }

    async fn unacknowledged(&mut self) -> Result<Option<u64>> {
        // Messages stay where they are.
        Ok(None)
    }

    async fn add_column(&mut self, stream: usize) -> Result<bool> {
        self.added[stream] = true;
        Ok(true)
    }
}

#[test]
fn the_loaded_kafka_source() {
    let Some(kafka) = or_skip(Kafka::start) else { return };
    let client = Client::new(&kafka.bootstrap()).expect("a client");
    let mut topics = Topics { kafka, client, scenario: 0, added: [false; 2] };
    match runtime().block_on(check_source(&mut topics)) {
        // Two instances at once are what a group is for.
        Ok(unchecked) => assert_eq!(unchecked, [source_clause::ACKNOWLEDGED, source_clause::ONE_INSTANCE]),
        Err(violations) => panic!("{violations}"),
    }
    assert_eq!(LoadedKafka::NAME, "kafka");
}
