//! Transactions of producers: what was aborted is not there, and their markers, which take offsets, are in nobody's way.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::{Producer, Record};
use philotes_tests::readers::READERS;
use serde_json::{Value, json};

use super::broker::Broker;
use super::{connector, connector_table, message};

fn transaction(producer: &Producer, topic: &str, ids: std::ops::Range<i64>, is_committed: bool) {
    producer.begin().unwrap();
    for id in ids {
        producer.send(topic, 0, &Record::of(&message(id))).unwrap();
    }
    if is_committed { producer.commit() } else { producer.abort() }.unwrap();
}

fn ids(connector: &Connector, topic: &str) -> Vec<i64> {
    let [first, second] = READERS.map(|reader| {
        let rows = reader.query(&connector_table(connector, topic), "select id from t order by 1").unwrap().rows;
        rows.iter().map(|row| row[0].as_str().unwrap().parse().unwrap()).collect::<Vec<i64>>()
    });
    assert_eq!(first, second, "the readers differ");
    first
}

#[test]
fn what_was_aborted_is_not_there() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "aborted";
    client.create_topic(topic, 1).unwrap();
    let producer = client.transactional(topic).unwrap();
    for (number, is_committed) in [true, false, true, false].into_iter().enumerate() {
        let first = number as i64 * 10;
        transaction(&producer, topic, first..first + 10, is_committed);
    }
    let committed = connector(broker.bootstrap(), topic);
    Host::until_idle(&committed).unwrap();
    assert_eq!(ids(&committed, topic), (0..10).chain(20..30).collect::<Vec<i64>>());

    let all = connector(broker.bootstrap(), topic)
        .named("all")
        .source_without("group")
        .source("group: aborted_all")
        .source("isolation_level: read_uncommitted");
    Host::until_idle(&all).unwrap();
    assert_eq!(ids(&all, topic), (0..40).collect::<Vec<i64>>());
}

/// Markers at a partition's end are neither waited for nor missed when retention has taken them.
#[test]
fn markers_are_in_nobodys_way() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "markers";
    client.create_topic(topic, 1).unwrap();
    let producer = client.transactional(topic).unwrap();
    transaction(&producer, topic, 0..10, true);
    let connector = connector(broker.bootstrap(), topic);
    Host::until_idle(&connector).unwrap();
    assert_eq!(ids(&connector, topic), (0..10).collect::<Vec<i64>>());
    let lsn: Value =
        json!(READERS[1].query(&connector_table(&connector, topic), "select max(_cdc_lsn) from t").unwrap().rows);
    assert_eq!(lsn, json!([["markers-0@9"]]));

    // The marker and what was aborted behind it are all that is behind the table's offset.
    transaction(&producer, topic, 10..15, false);
    Host::until_idle(&connector).unwrap();
    let (_, end) = client.bounds(topic, 0).unwrap();
    assert_eq!(end, 17);
    client.delete_records(topic, 0, end).unwrap();
    assert_eq!(client.bounds(topic, 0).unwrap(), (end, end));
    Host::until_idle(&connector).unwrap();
    transaction(&producer, topic, 15..20, true);
    Host::until_idle(&connector).unwrap();
    assert_eq!(ids(&connector, topic), (0..10).chain(15..20).collect::<Vec<i64>>());
}

/// What is behind an open transaction waits for its end, as Kafka has it, and is not lost.
#[test]
fn an_open_transaction_holds_back_what_is_behind_it() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "open";
    client.create_topic(topic, 1).unwrap();
    let (open, other) = (client.transactional("open_1").unwrap(), client.transactional("open_2").unwrap());
    transaction(&other, topic, 0..5, true);
    open.begin().unwrap();
    open.send(topic, 0, &Record::of(&message(5))).unwrap();
    open.flush().unwrap();
    transaction(&other, topic, 6..10, true);
    let connector = connector(broker.bootstrap(), topic);
    Host::until_idle(&connector).unwrap();
    assert_eq!(ids(&connector, topic), (0..5).collect::<Vec<i64>>());
    open.commit().unwrap();
    Host::until_idle(&connector).unwrap();
    assert_eq!(ids(&connector, topic), (0..10).collect::<Vec<i64>>());
}
