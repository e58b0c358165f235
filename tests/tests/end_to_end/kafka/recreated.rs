//! A topic that was deleted and made again under its name is another topic: its offsets mean something else.

use philotes_tests::host::Host;

use super::broker::Broker;
use super::{Produced, SOON, assert_once, assert_refused, assert_stops, connector_table, filled, produce, wait_for};

#[test]
fn while_it_is_stopped() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "again";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 10, 1);
    Host::until_idle(&connector).unwrap();
    drop(producer);
    client.delete_topic(topic).unwrap();
    client.create_topic(topic, 1).unwrap();
    // More than before: an offset alone would tell nothing.
    produce(&client.producer().unwrap(), topic, 0..20, 1);
    assert_refused(&connector, &[topic, "id", "made anew"]);
    let table = connector_table(&connector, topic);
    assert_once(&table, &Produced::in_turn(0..10, 1));

    connector.action(&["sink", "offsets", &format!("stream={topic}"), "reset=true"]).unwrap();
    Host::until_idle(&connector).unwrap();
    assert_eq!(philotes_tests::readers::Reader::DuckDb.number(&table, "select count(*) from t").unwrap(), 30);
}

#[test]
fn while_it_runs() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "again_and_again";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 10, 1);
    let connector = connector.source(SOON);
    let table = connector_table(&connector, topic);
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for(&host, &table, 10);
    drop(producer);
    client.delete_topic(topic).unwrap();
    client.create_topic(topic, 1).unwrap();
    produce(&client.producer().unwrap(), topic, 0..20, 1);
    assert_stops(&mut host, &[topic]);
    // A slow machine fetches from the new topic while it is empty still.
    let told = ["made anew", "it is another partition"].iter().any(|words| host.log().contains(words));
    assert!(told, "{}", host.log_tail());
    assert_once(&table, &Produced::in_turn(0..10, 1));
}

/// Nothing is missed in between: the reader, which slept, goes on at the old offset, and finds messages there.
#[test]
fn while_it_sleeps() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "again_overnight";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 10, 1);
    let connector = connector.source("properties: {session.timeout.ms: \"30000\"}");
    let table = connector_table(&connector, topic);
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for(&host, &table, 10);
    host.signal("STOP");
    drop(producer);
    client.delete_topic(topic).unwrap();
    client.create_topic(topic, 1).unwrap();
    produce(&client.producer().unwrap(), topic, 0..20, 1);
    host.signal("CONT");
    assert_stops(&mut host, &[topic, "id", "made anew"]);
    assert_once(&table, &Produced::in_turn(0..10, 1));
}
