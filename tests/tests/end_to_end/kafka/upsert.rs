//! Topics whose keys say which row a message is of, into tables that are kept equal: the last message of each key, however they
//! are spread over partitions, tasks and starts.

use std::collections::BTreeMap;
use std::time::Duration;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::{Client, Producer, Record};
use philotes_tests::or_skip;
use philotes_tests::readers::{READERS, Reader, Table};
use philotes_tests::services::kafka::Kafka;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::broker::Broker;
use super::{SOON, assert_refused, connector, of_group, turn};

const PARTITIONS: i32 = 4;
const KEYS: i64 = 1500;
const MESSAGES: i64 = 4000;
const KILLS: u64 = 4;

/// What PostgreSQL's connector writes for a value that it was not given.
const UNSENT: &str = "__debezium_unavailable_value";

/// Plain JSON with tombstones in a compacted topic; hosts of two tasks each come, are killed, and share the partitions for a while.
#[test]
fn the_last_message_of_each_key_of_a_compacted_topic() {
    let Some(kafka) = or_skip(Kafka::start) else { return };
    let client = Client::new(&kafka.bootstrap()).unwrap();
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "500"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "60000"),
    ];
    client.create_topic_with("latest", PARTITIONS, &compacted).unwrap();
    let connector = of_group(Connector::kafka(&kafka.bootstrap()).unwrap(), "latest")
        .source("topics: [latest]")
        .source("format: {type: json, key: [id], columns: {id: long, v: long, note: string}}")
        .source(SOON)
        .sink("mode: upsert")
        .top("tasks: 2");
    let (producer, mut random) = (client.producer().unwrap(), StdRng::seed_from_u64(7));
    let mut expected = BTreeMap::new();
    let mut hosts: Vec<Host> = Vec::new();
    for kill in 0..=KILLS {
        if kill < KILLS {
            hosts.push(Host::start(&connector, &[]).unwrap());
        }
        produce(&producer, &mut random, &mut expected);
        std::thread::sleep(Duration::from_millis(1500 + 500 * kill));
        // In every other round one goes on beside the next one.
        if kill % 2 == 1 {
            hosts.drain(..).for_each(Host::kill9);
        }
    }
    hosts.drain(..).for_each(Host::kill9);
    Host::until_idle(&connector).unwrap();

    let expected: Vec<(i64, i64)> = expected.into_iter().collect();
    let table = connector.table("cdc.latest");
    for reader in [Reader::DuckDb, Reader::Spark] {
        let found = pairs(reader, &table, "select id, v from t order by id, v");
        let wrong: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
        let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
        assert!(found == expected, "{reader}: {wrong:?} instead of {missing:?}, {} of {}", found.len(), expected.len());
    }
    // Kills that find no work prove nothing.
    let snapshots = Reader::PyIceberg.snapshots(&table).unwrap().len();
    assert!(snapshots > 2 * usize::try_from(KILLS).unwrap(), "{snapshots} snapshots");
}

/// Values and tombstones of keys, some of which come up often; each key is of one partition.
fn produce(producer: &Producer, random: &mut StdRng, expected: &mut BTreeMap<i64, i64>) {
    for _ in 0..MESSAGES {
        let often = random.random_range(1..=KEYS);
        let id = random.random_range(0..often);
        let v = random.random_range(0..i64::MAX);
        // A key is an object, or its only value.
        let key = if v % 2 == 0 { json!({"id": id}).to_string() } else { id.to_string() };
        let value = json!({"id": id, "v": v, "note": format!("{v} of {id}")}).to_string();
        let is_gone = random.random_ratio(1, 6);
        let record =
            Record { key: Some(key.as_bytes()), value: (!is_gone).then_some(value.as_bytes()), ..Record::default() };
        producer.send("latest", turn(id, PARTITIONS), &record).unwrap();
        if is_gone {
            expected.remove(&id);
        } else {
            expected.insert(id, v);
        }
    }
    producer.flush().unwrap();
}

fn pairs(reader: Reader, table: &Table, sql: &str) -> Vec<(i64, i64)> {
    let rows = reader.query(table, sql).unwrap().rows;
    let number = |cell: &Value| cell.as_str().unwrap().parse().unwrap();
    rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

/// A topic of Debezium's events, as they are sent here.
struct Events<'a> {
    producer: Producer,
    topic: &'a str,
}

impl<'a> Events<'a> {
    fn new(client: &Client, topic: &'a str, partitions: i32) -> Self {
        client.create_topic(topic, partitions).unwrap();
        Self { producer: client.producer().unwrap(), topic }
    }

    fn send(&self, partition: i32, op: &str, id: &str, row: &Value) {
        let (before, after) = if op == "d" { (row, &Value::Null) } else { (&Value::Null, row) };
        let event = json!({"op": op, "before": before, "after": after, "source": {"ts_ms": 1}, "ts_ms": 1}).to_string();
        let key = json!({"id": id}).to_string();
        let record = Record { key: (op != "t").then_some(key.as_bytes()), ..Record::of(event.as_bytes()) };
        self.producer.send(self.topic, partition, &record).unwrap();
        self.producer.flush().unwrap();
    }

    fn connector(&self, bootstrap: &str) -> Connector {
        connector(bootstrap, self.topic)
            .source_without("metadata_columns")
            .source("format: {type: debezium-json, columns: {id: string, v: long, body: string}}")
            .sink("mode: upsert")
    }

    /// What is in the table: (id, v, body), sorted.
    fn found(&self, connector: &Connector) -> Value {
        let sql = "select id, v, body from t order by id, v";
        json!(Reader::DuckDb.query(&connector.table(&format!("cdc.{}", self.topic)), sql).unwrap().rows)
    }
}

/// Between the partitions of a topic nothing says which rows were there before.
#[test]
fn no_truncate_from_several_partitions() {
    let Some((broker, client)) = Broker::shared() else { return };
    let events = Events::new(&client, "truncated_over_three", 3);
    for (partition, id) in (0..3).zip(["a", "b", "c"]) {
        events.send(partition, "c", id, &json!({"id": id, "v": partition, "body": null}));
    }
    let connector = events.connector(broker.bootstrap());
    Host::until_idle(&connector).unwrap();
    let all = json!([["a", "0", null], ["b", "1", null], ["c", "2", null]]);
    assert_eq!(events.found(&connector), all);
    events.send(1, "t", "", &Value::Null);
    events.send(1, "c", "d", &json!({"id": "d", "v": 3, "body": null}));
    assert_refused(&connector, &[events.topic, "partition", "truncate: ignore", "config"]);
    assert_eq!(events.found(&connector), all);
    // A dead letter would leave rows that are gone.
    let connector = connector.top("errors: {tolerance: dead-letter}");
    assert_refused(&connector, &[events.topic, "partition"]);

    let connector = connector.top("errors: {tolerance: none}").sink("truncate: ignore");
    Host::until_idle(&connector).unwrap();
    assert_eq!(
        events.found(&connector),
        json!([["a", "0", null], ["b", "1", null], ["c", "2", null], ["d", "3", null]])
    );
}

#[test]
fn a_truncate_from_one_partition() {
    let Some((broker, client)) = Broker::shared() else { return };
    let events = Events::new(&client, "truncated", 1);
    let connector = events.connector(broker.bootstrap());
    events.send(0, "t", "", &Value::Null);
    events.send(0, "c", "a", &json!({"id": "a", "v": 1, "body": null}));
    Host::until_idle(&connector).unwrap();
    events.send(0, "c", "b", &json!({"id": "b", "v": 2, "body": null}));
    events.send(0, "t", "", &Value::Null);
    events.send(0, "c", "a", &json!({"id": "a", "v": 3, "body": null}));
    Host::until_idle(&connector).unwrap();
    assert_eq!(events.found(&connector), json!([["a", "3", null]]));
    events.send(0, "t", "", &Value::Null);
    let connector = connector.sink("truncate: fail");
    assert_refused(&connector, &[events.topic, "truncate"]);
    assert_eq!(events.found(&connector), json!([["a", "3", null]]));
    let connector = connector.sink_without("truncate");
    Host::until_idle(&connector).unwrap();
    assert_eq!(events.found(&connector), json!([]));
}

/// What was not sent is what it was, wherever that stands: in the commit or in the table.
#[test]
fn what_was_not_sent_stays() {
    let Some((broker, client)) = Broker::shared() else { return };
    let events = Events::new(&client, "unsent", 1);
    let connector = events.connector(broker.bootstrap());
    let row = |id: &str, v: i64, body: &str| json!({"id": id, "v": v, "body": body});
    events.send(0, "r", "a", &row("a", 1, "body of a"));
    events.send(0, "r", "b", &row("b", 1, "body of b"));
    events.send(0, "r", "c", &row("c", 1, "body of c"));
    Host::until_idle(&connector).unwrap();
    // In the table, in the commit, in the commit after the table's; NULL, and another one's after a new beginning.
    events.send(0, "u", "a", &row("a", 2, UNSENT));
    events.send(0, "c", "d", &row("d", 2, "body of d"));
    events.send(0, "u", "d", &row("d", 3, UNSENT));
    events.send(0, "u", "b", &row("b", 2, "body of b, second"));
    events.send(0, "u", "b", &row("b", 3, UNSENT));
    events.send(0, "u", "b", &row("b", 4, UNSENT));
    events.send(0, "d", "c", &row("c", 0, ""));
    events.send(0, "c", "c", &json!({"id": "c", "v": 2, "body": null}));
    events.send(0, "u", "c", &row("c", 3, UNSENT));
    Host::until_idle(&connector).unwrap();
    let expected =
        json!([["a", "2", "body of a"], ["b", "4", "body of b, second"], ["c", "3", null], ["d", "3", "body of d"]]);
    assert_eq!(events.found(&connector), expected);
    // Once more what came before a row has gone, as from a connector that was killed.
    events.send(0, "d", "a", &row("a", 0, ""));
    Host::until_idle(&connector).unwrap();
    events.send(0, "u", "a", &row("a", 2, UNSENT));
    events.send(0, "d", "a", &row("a", 0, ""));
    Host::until_idle(&connector).unwrap();
    assert_eq!(events.found(&connector)[0][0], "b");
}

/// A changed key comes as the DELETE of the old one and the INSERT of the new one. Where both are sure to stand behind each other,
/// the value stays the row's; over several partitions nothing says whose DELETE it is.
#[test]
fn a_changed_key_takes_what_was_not_sent_along() {
    let Some((broker, client)) = Broker::shared() else { return };
    let row = |id: &str, v: i64, body: &str| json!({"id": id, "v": v, "body": body});
    for (topic, partitions) in [("moved", 1), ("moved_between_partitions", 2)] {
        let events = Events::new(&client, topic, partitions);
        let connector = events.connector(broker.bootstrap());
        events.send(0, "c", "a", &row("a", 1, "body of a"));
        events.send(partitions - 1, "c", "b", &row("b", 1, "body of b"));
        Host::until_idle(&connector).unwrap();
        // The new key belongs to the partition in which another row goes just before.
        events.send(0, "d", "a", &row("a", 0, ""));
        if partitions > 1 {
            events.send(1, "d", "b", &row("b", 0, ""));
        }
        events.send(0, "c", "c", &row("c", 2, UNSENT));
        if partitions > 1 {
            assert_refused(&connector, &[topic, "body"]);
            continue;
        }
        Host::until_idle(&connector).unwrap();
        let expected = json!([["b", "1", "body of b"], ["c", "2", "body of a"]]);
        assert_eq!(events.found(&connector), expected);
        // A connector that was killed says it once more; the row has its new key by now.
        events.send(0, "d", "a", &row("a", 0, ""));
        events.send(0, "c", "c", &row("c", 2, UNSENT));
        Host::until_idle(&connector).unwrap();
        assert_eq!(events.found(&connector), expected);
    }
}

/// A row that cannot be completed is refused as a whole, never written with NULL; the others arrive.
#[test]
fn what_was_not_sent_and_is_nowhere_is_refused() {
    let Some((broker, client)) = Broker::shared() else { return };
    let events = Events::new(&client, "unsent_nowhere", 1);
    let connector = events.connector(broker.bootstrap()).sink("dead_letters: cdc.unsent_nowhere_letters");
    events.send(0, "c", "a", &json!({"id": "a", "v": 1, "body": "body of a"}));
    events.send(0, "u", "b", &json!({"id": "b", "v": 2, "body": UNSENT}));
    events.send(0, "c", "c", &json!({"id": "c", "v": 3, "body": null}));
    assert_refused(&connector, &[events.topic, "body", "1"]);
    let connector = connector.top("errors: {tolerance: dead-letter}");
    Host::until_idle(&connector).unwrap();
    assert_eq!(events.found(&connector), json!([["a", "1", "body of a"], ["c", "3", null]]));
    for reader in READERS {
        let letters = connector.table("cdc.unsent_nowhere_letters");
        let letters = reader.query(&letters, "select stream, message from t").unwrap().rows;
        assert_eq!(letters.len(), 1, "{reader}: {letters:?}");
        assert!(letters[0][1].as_str().unwrap().contains("body"), "{reader}: {letters:?}");
    }
}
