//! The Kafka source between a real broker and foreign readers.
//!
//! Every message is told apart by its partition and its offset, which the connectors here keep as columns.

mod bad_messages;
mod broker;
mod codecs;
mod discovery;
mod exactly_once;
mod groups;
mod outages;
mod plan;
mod recreated;
mod registered;
mod retention;
mod security;
mod sizes;
mod starts;
mod strikes;
mod transactions;
mod upsert;

use std::collections::BTreeMap;

use philotes_tests::connector::Connector;
use philotes_tests::eventually;
use philotes_tests::host::Host;
use philotes_tests::kafka::{Client, Producer, Record};
use philotes_tests::readers::{READERS, Reader, Table};
use serde_json::Value;

use crate::PATIENCE;

/// What every message of [`message`] has.
const BYTES: usize = 200;

/// A message of 200 bytes that says which it is.
fn message(id: i64) -> Vec<u8> {
    let mut message = format!("{{\"id\":{id},\"v\":{},\"pad\":\"", id % 1000).into_bytes();
    message.resize(BYTES - 2, b'x');
    message.extend_from_slice(b"\"}");
    message
}

/// What was produced, by partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Produced(BTreeMap<i32, Share>);

/// The messages of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    rows: i64,
    first: i64,
    last: i64,
    ids: i64,
    values: i64,
}

impl Produced {
    /// A message with this id got this offset.
    fn add(&mut self, partition: i32, offset: i64, id: i64) {
        let share =
            self.0.entry(partition).or_insert(Share { rows: 0, first: offset, last: offset, ids: 0, values: 0 });
        share.rows += 1;
        share.last = offset;
        share.ids += id;
        share.values += id % 1000;
    }

    /// Messages one behind the other from offset 0 on: ids in turn over the partitions.
    fn in_turn(ids: std::ops::Range<i64>, partitions: i32) -> Self {
        let mut produced = Self::default();
        produced.go_on(ids, partitions);
        produced
    }

    fn go_on(&mut self, ids: std::ops::Range<i64>, partitions: i32) {
        for id in ids {
            let partition = turn(id, partitions);
            let offset = self.0.get(&partition).map_or(0, |share| share.last + 1);
            self.add(partition, offset, id);
        }
    }

    fn rows(&self) -> i64 {
        self.0.values().map(|share| share.rows).sum()
    }
}

fn turn(id: i64, partitions: i32) -> i32 {
    i32::try_from(id % i64::from(partitions)).unwrap()
}

/// Produces ids in turn over the partitions.
fn produce(producer: &Producer, topic: &str, ids: std::ops::Range<i64>, partitions: i32) {
    for id in ids {
        producer.send(topic, turn(id, partitions), &Record::of(&message(id))).unwrap();
    }
    producer.flush().unwrap();
}

/// What a reader finds in a table of [`message`]s. Each offset of a partition has to be there once; where its messages lie one
/// behind the other, this is the set of offsets.
fn found_by(reader: Reader, table: &Table) -> anyhow::Result<Produced> {
    let sql = "select _kafka_partition, count(*), count(distinct _kafka_offset), min(_kafka_offset), max(_kafka_offset), \
               sum(id), sum(v) from t group by 1 order by 1";
    let rows = reader.query(table, sql)?.rows;
    let number = |cell: &Value| cell.as_str().and_then(|cell| cell.parse::<i64>().ok()).unwrap_or(i64::MIN);
    let mut found = Produced::default();
    for row in rows {
        let [partition, rows, distinct, first, last, ids, values] = &row.iter().map(number).collect::<Vec<_>>()[..]
        else {
            anyhow::bail!("{row:?}");
        };
        anyhow::ensure!(rows == distinct, "{reader}: {rows} rows of partition {partition} have {distinct} offsets");
        let share = Share { rows: *rows, first: *first, last: *last, ids: *ids, values: *values };
        found.0.insert(i32::try_from(*partition)?, share);
    }
    Ok(found)
}

/// Asserts that each message is in the table once, as both readers see it.
fn assert_once(table: &Table, produced: &Produced) {
    for reader in READERS {
        assert_eq!(&found_by(reader, table).unwrap(), produced, "{reader}: {}", table.name);
    }
}

/// A connector whose rows say where they come from.
fn connector(bootstrap: &str, topic: &str) -> Connector {
    of_group(Connector::kafka(bootstrap).unwrap(), topic).source(&format!("topics: [{topic}]"))
}

/// What every connector here has. Connectors that share a broker share no group.
fn of_group(connector: Connector, group: &str) -> Connector {
    connector
        .source(&format!("group: {group}"))
        .source("metadata_columns: [partition, offset]")
        .top("retry: {initial: 200ms, max: 1s}")
}

/// Librdkafka's settings where members are killed, stopped and missed soon.
const SOON: &str = "properties: {session.timeout.ms: \"2000\", heartbeat.interval.ms: \"300\", \
                    topic.metadata.refresh.interval.ms: \"1000\"}";

fn connector_table(connector: &Connector, topic: &str) -> Table {
    connector.table(&format!("cdc.{topic}"))
}

/// A topic of this many partitions with ids 0 to `rows`, and a connector that reads it.
fn filled(client: &Client, bootstrap: &str, topic: &str, rows: i64, partitions: i32) -> (Producer, Connector) {
    client.create_topic(topic, partitions).unwrap();
    let producer = client.producer().unwrap();
    produce(&producer, topic, 0..rows, partitions);
    (producer, connector(bootstrap, topic))
}

/// Asserts that the connector stops with exit code 1, and that its log names all this.
fn assert_stops(host: &mut Host, words: &[&str]) {
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    let log = host.log();
    let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "no line with {words:?}: {}", host.log_tail());
}

/// A host on a connector that has to stop, and is started here.
fn assert_refused(connector: &Connector, words: &[&str]) {
    let mut host = Host::start(connector, &["--until-idle"]).unwrap();
    assert_stops(&mut host, words);
}

/// Waits until a host has brought this many rows into a table.
fn wait_for(host: &Host, table: &Table, rows: i64) {
    let mut found = -1;
    let arrived = eventually(PATIENCE, || {
        // Until its first commit there is no table.
        found = Reader::DuckDb.number(table, "select count(*) from t").unwrap_or(-1);
        Ok(found >= rows)
    });
    assert!(arrived.unwrap() && found == rows, "{found} rows of {rows} in {}: {}", table.name, host.log_tail());
}
