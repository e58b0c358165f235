//! Each message is in its table once, whenever the host is killed. `make kafka` does it with 5,000,000 messages, eight partitions
//! and a hundred topics.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::{Client, Record};
use philotes_tests::or_skip;
use philotes_tests::readers::READERS;
use philotes_tests::services::kafka::{Kafka, Options};
use rand::Rng;

use super::{Produced, SOON, found_by, message, of_group};

/// Messages, topics of the second test, and kills of `make test`.
const SMALL: [i64; 3] = [200_000, 10, 3];
const PARTITIONS: i32 = 8;

fn sizes() -> [i64; 3] {
    std::env::var("PHILOTES_KAFKA").map_or(SMALL, |sizes| {
        let sizes: Vec<i64> = sizes.split_whitespace().map(|size| size.parse().unwrap()).collect();
        sizes.try_into().expect("messages, topics and kills")
    })
}

#[test]
fn into_one_table_with_kills() {
    let [messages, _, kills] = sizes();
    each_once(&["events".to_owned()], 1, messages, kills);
}

#[test]
fn two_tasks_into_a_table_for_each_topic_with_kills() {
    let [messages, topics, kills] = sizes();
    let topics: Vec<String> = (0..topics).map(|number| format!("events_{number}")).collect();
    each_once(&topics, 2, messages, kills);
}

fn each_once(topics: &[String], tasks: u32, messages: i64, kills: i64) {
    let Some(kafka) = or_skip(|| Kafka::start_with(&Options { heap_megabytes: 512, ..Options::default() })) else {
        return;
    };
    let client = Client::new(&kafka.bootstrap()).unwrap();
    for topic in topics {
        client.create_topic(topic, PARTITIONS).unwrap();
    }
    let connector = of_group(Connector::kafka(&kafka.bootstrap()).unwrap(), "events")
        .source("topics_regex: \"events.*\"")
        .source(SOON)
        .top(&format!("tasks: {tasks}"));
    let mut expected: BTreeMap<&str, Produced> = BTreeMap::new();
    let producer = client.producer().unwrap();
    let mut random = rand::rng();
    let start = Instant::now();
    for round in 0..=kills {
        let ids = messages * round / (kills + 1)..messages * (round + 1) / (kills + 1);
        let mut host = (round < kills).then(|| Host::start(&connector, &[]).unwrap());
        for id in ids {
            // In turn over the topics, and in each of them over its partitions.
            let (turn, topic) = (id / topics.len() as i64, &topics[usize::try_from(id).unwrap() % topics.len()]);
            let partition = super::turn(turn, PARTITIONS);
            producer.send(topic, partition, &Record::of(&message(id))).unwrap();
            let produced = expected.entry(topic).or_default();
            let offset = produced.0.get(&partition).map_or(0, |share| share.last + 1);
            produced.add(partition, offset, id);
        }
        producer.flush().unwrap();
        if let Some(host) = &mut host {
            std::thread::sleep(Duration::from_millis(random.random_range(1500..5000)));
            assert!(host.is_running().unwrap(), "before kill {round}: {}", host.log_tail());
        }
        host.into_iter().for_each(Host::kill9);
    }
    Host::until_idle(&connector).unwrap();
    let streamed = start.elapsed().as_secs_f32();

    for (topic, produced) in &expected {
        for reader in READERS {
            let found = found_by(reader, &connector.table(&format!("cdc.{topic}"))).unwrap();
            assert_eq!(&found, produced, "{reader}: {topic}");
        }
    }
    let rows: i64 = expected.values().map(Produced::rows).sum();
    assert_eq!(rows, messages);
    let line = format!(
        "kafka: {rows} messages, each once in {} tables, with {kills} kills in {streamed:.0} s\n",
        expected.len()
    );
    // Past the harness, which shows what a test prints only where the test fails.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
