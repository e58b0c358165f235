//! Where partitions are begun that the table knows nothing of, and that nothing else than the table decides where it does.

use philotes_tests::eventually;
use philotes_tests::host::Host;
use philotes_tests::kafka::Record;
use philotes_tests::readers::{READERS, Reader};

use super::broker::Broker;
use super::{Produced, SOON, assert_once, assert_refused, connector_table, filled, message, produce, wait_for};
use crate::PATIENCE;

/// With `latest` what was there before is left out, and nothing that comes after: not when the host dies before its first
/// commit, and not what is in a partition that is added later.
#[test]
fn latest_begins_at_the_end_and_stays_there() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "latest";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 100, 2);
    let connector = connector.source("auto_offset_reset: latest").source(SOON);
    let host = Host::start(&connector, &[]).unwrap();
    let begun = || Ok(client.committed(topic, topic, 0)?.is_some() && client.committed(topic, topic, 1)?.is_some());
    assert!(eventually(PATIENCE, begun).unwrap(), "{}", host.log_tail());
    host.kill9();
    let table = connector_table(&connector, topic);
    assert!(!table.exists().unwrap());

    produce(&producer, topic, 100..120, 2);
    Host::until_idle(&connector).unwrap();
    let mut expected = Produced::default();
    for id in 100..120 {
        expected.add(super::turn(id, 2), id / 2, id);
    }
    assert_once(&table, &expected);

    client.add_partitions(topic, 3).unwrap();
    // The old one does not know it yet.
    let producer = client.producer().unwrap();
    producer.send(topic, 2, &Record::of(&message(7))).unwrap();
    producer.flush().unwrap();
    Host::until_idle(&connector).unwrap();
    expected.add(2, 0, 7);
    assert_once(&table, &expected);
}

#[test]
fn none_stops_and_names_what_it_does_not_know() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "unknown";
    let (_, connector) = filled(&client, broker.bootstrap(), topic, 10, 1);
    let none = connector.source("auto_offset_reset: none");
    assert_refused(&none, &[topic, "auto_offset_reset", "none", "earliest"]);
    assert!(!connector_table(&none, topic).exists().unwrap());
}

/// The group's offsets are for people's tools: set, or gone with the group, they change nothing.
#[test]
fn the_groups_offsets_decide_nothing() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "asides";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 100, 2);
    let table = connector_table(&connector, topic);
    Host::until_idle(&connector).unwrap();
    let told = || Ok(client.committed(topic, topic, 0)? == Some(50) && client.committed(topic, topic, 1)? == Some(50));
    assert!(eventually(PATIENCE, told).unwrap(), "the group was not told how far the table reaches");

    // Back, beyond what will be there, and gone.
    client.set_committed(topic, topic, &[(0, 0), (1, 10)]).unwrap();
    Host::until_idle(&connector).unwrap();
    assert_once(&table, &Produced::in_turn(0..100, 2));
    produce(&producer, topic, 100..200, 2);
    client.set_committed(topic, topic, &[(0, 100), (1, 100)]).unwrap();
    Host::until_idle(&connector).unwrap();
    assert_once(&table, &Produced::in_turn(0..200, 2));
    produce(&producer, topic, 200..300, 2);
    client.delete_group(topic).unwrap();
    Host::until_idle(&connector).unwrap();
    assert_once(&table, &Produced::in_turn(0..300, 2));
}

/// A table that somebody dropped is filled again with what is left.
#[test]
fn a_dropped_table_is_filled_again() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "dropped";
    let (_, connector) = filled(&client, broker.bootstrap(), topic, 100, 2);
    let table = connector_table(&connector, topic);
    Host::until_idle(&connector).unwrap();
    table.drop_as_somebody_else().unwrap();
    Host::until_idle(&connector).unwrap();
    assert_once(&table, &Produced::in_turn(0..100, 2));
}

/// An empty topic is no reason to wait, and its first messages are no reason to stop.
#[test]
fn an_empty_topic_is_idle() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "empty";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 0, 2);
    Host::until_idle(&connector).unwrap();
    let host = Host::start(&connector, &[]).unwrap();
    produce(&producer, topic, 0..10, 2);
    let table = connector_table(&connector, topic);
    wait_for(&host, &table, 10);
    host.terminate().unwrap();
    for reader in READERS {
        assert_eq!(reader.number(&table, "select sum(id) from t").unwrap(), 45, "{reader}");
    }
    assert_eq!(Reader::DuckDb.number(&table, "select count(distinct _cdc_lsn) from t").unwrap(), 10);
}
