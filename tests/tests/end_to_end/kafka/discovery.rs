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

/// A topic that is deleted leaves the others of a pattern alone.
#[test]
fn a_topic_that_goes_is_let_go() {
    let Some((broker, client)) = Broker::shared() else { return };
    for topic in ["leaves_1", "leaves_2"] {
        client.create_topic(topic, 1).unwrap();
        produce(&client.producer().unwrap(), topic, 0..100, 1);
    }
    let connector = of_group(Connector::kafka(broker.bootstrap()).unwrap(), "leaves")
        .source("topics_regex: \"leaves_.*\"")
        .source(SOON);
    let mut host = Host::start(&connector, &[]).unwrap();
    for topic in ["leaves_1", "leaves_2"] {
        wait_for(&host, &connector.table(&format!("cdc.{topic}")), 100);
    }
    client.delete_topic("leaves_1").unwrap();
    let table = connector.table("cdc.leaves_2");
    let producer = client.producer().unwrap();
    for part in 1..5 {
        produce(&producer, "leaves_2", part * 100..(part + 1) * 100, 1);
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    wait_for(&host, &table, 500);
    assert!(host.is_running().unwrap(), "{}", host.log_tail());
    host.terminate().unwrap();
    assert_once(&table, &Produced::in_turn(0..500, 1));
    assert_once(&connector.table("cdc.leaves_1"), &Produced::in_turn(0..100, 1));
}

/// What the route leaves out is not read, and what it renames is.
#[test]
fn the_route_chooses_among_topics() {
    let Some((broker, client)) = Broker::shared() else { return };
    for topic in ["routed.a", "routed.b", "routed.c"] {
        client.create_topic(topic, 2).unwrap();
        produce(&client.producer().unwrap(), topic, 0..100, 2);
    }
    let connector = of_group(Connector::kafka(broker.bootstrap()).unwrap(), "routed")
        .source("topics_regex: \"routed\\\\..*\"")
        .top("route: {exclude: [routed.b], rename: {routed.c: other.z}}");
    Host::until_idle(&connector).unwrap();
    for table in ["cdc.routed_a", "cdc.other_z"] {
        assert_once(&connector.table(table), &Produced::in_turn(0..100, 2));
    }
    for table in ["cdc.routed_b", "cdc.routed_c"] {
        assert!(!connector.table(table).exists().unwrap(), "{table}");
    }
}
