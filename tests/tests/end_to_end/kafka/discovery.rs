//! Partitions and topics that are made while a connector runs.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::Record;

use super::broker::Broker;
use super::{Produced, SOON, assert_once, filled, message, of_group, produce, wait_for};

#[test]
fn new_partitions_are_picked_up() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "growing";
    let (_, connector) = filled(&client, broker.bootstrap(), topic, 100, 1);
    let connector = connector.source(SOON);
    let table = connector.table("cdc.growing");
    let host = Host::start(&connector, &[]).unwrap();
    wait_for(&host, &table, 100);
    let mut expected = Produced::in_turn(0..100, 1);
    client.add_partitions(topic, 3).unwrap();
    // The old one does not know them yet.
    let producer = client.producer().unwrap();
    for partition in 1..3 {
        for offset in 0..10 {
            let id = i64::from(partition) * 1000 + offset;
            producer.send(topic, partition, &Record::of(&message(id))).unwrap();
            expected.add(partition, offset, id);
        }
    }
    producer.flush().unwrap();
    wait_for(&host, &table, 120);
    host.terminate().unwrap();
    assert_once(&table, &expected);
}

#[test]
fn new_topics_are_picked_up() {
    let Some((broker, client)) = Broker::shared() else { return };
    client.create_topic("new_1", 1).unwrap();
    client.create_topic("renew_1", 1).unwrap();
    let producer = client.producer().unwrap();
    for topic in ["new_1", "renew_1"] {
        produce(&producer, topic, 0..100, 1);
    }
    let connector = of_group(Connector::kafka(broker.bootstrap()).unwrap(), "new")
        // The whole name has to match.
        .source("topics_regex: \"new_[0-9]\"")
        .source(SOON);
    let host = Host::start(&connector, &[]).unwrap();
    wait_for(&host, &connector.table("cdc.new_1"), 100);
    client.create_topic("new_2", 2).unwrap();
    client.create_topic("new_23", 1).unwrap();
    produce(&producer, "new_2", 0..100, 2);
    produce(&producer, "new_23", 0..100, 1);
    wait_for(&host, &connector.table("cdc.new_2"), 100);
    host.terminate().unwrap();
    assert_once(&connector.table("cdc.new_2"), &Produced::in_turn(0..100, 2));
    for other in ["cdc.renew_1", "cdc.new_23"] {
        assert!(!connector.table(other).exists().unwrap(), "{other}");
    }
}
