//! What retention has taken before it was read is a loud stop with the numbers, and what the table has may go.

use philotes_tests::host::Host;
use philotes_tests::kafka::Client;
use philotes_tests::or_skip;
use philotes_tests::readers::Reader;
use philotes_tests::services::Server;
use philotes_tests::services::kafka::Kafka;

use super::broker::Broker;
use super::{Produced, assert_once, assert_refused, assert_stops, connector_table, filled, produce, wait_for};

#[test]
fn past_the_tables_offset_while_it_is_stopped() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "expired";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 100, 1);
    Host::until_idle(&connector).unwrap();
    produce(&producer, topic, 100..200, 1);
    client.delete_records(topic, 0, 150).unwrap();
    for _ in 0..2 {
        assert_refused(&connector, &[topic, "100", "150", "200", "50 messages"]);
    }
    // The word of an operator is needed to go on.
    let table = connector_table(&connector, topic);
    assert_once(&table, &Produced::in_turn(0..100, 1));
    connector.action(&["sink", "offsets", &format!("stream={topic}"), "partition=0", "reset=true"]).unwrap();
    Host::until_idle(&connector).unwrap();
    let mut expected = Produced::in_turn(0..100, 1);
    (150..200).for_each(|id| expected.add(0, id, id));
    assert_once(&table, &expected);
}

/// The refusal says what an operator has to say to go on behind the gap.
#[test]
fn an_operator_goes_on_behind_the_gap() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "resumed";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 100, 1);
    Host::until_idle(&connector).unwrap();
    produce(&producer, topic, 100..200, 1);
    client.delete_records(topic, 0, 150).unwrap();
    assert_refused(&connector, &[topic, "150"]);
    let table = connector_table(&connector, topic);
    let token = table.properties().unwrap().remove("philotes.offset.shop.resumed.0").unwrap();
    let token: serde_json::Value = serde_json::from_str(&token).unwrap();
    let offset = token["offset"].as_str().map_or_else(|| token["offset"].to_string(), str::to_owned);
    let mut offset: serde_json::Value = serde_json::from_str(&offset).unwrap();
    assert_eq!(offset["offset"], 99);
    offset["offset"] = 179.into();
    let at = [&format!("stream={topic}"), "partition=0", &format!("offset={offset}")];
    connector.action(&["sink", "offsets", at[0], at[1], at[2]]).unwrap();
    Host::until_idle(&connector).unwrap();
    let mut expected = Produced::in_turn(0..100, 1);
    (180..200).for_each(|id| expected.add(0, id, id));
    assert_once(&table, &expected);
}

/// An offset that is changed while the connector runs is either refused, or taken up by it.
#[test]
fn an_offset_is_changed_while_it_runs() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "busy";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 100, 1);
    let table = connector_table(&connector, topic);
    let host = Host::start(&connector, &[]).unwrap();
    wait_for(&host, &table, 100);
    let file = connector.file().unwrap();
    let arguments = ["action", file.to_str().unwrap(), "sink", "offsets", "stream=busy", "reset=true"];
    let said = philotes_tests::host::philotes(&arguments).unwrap();
    produce(&producer, topic, 100..200, 1);
    let rows = if said.code == 0 { 300 } else { 200 };
    wait_for(&host, &table, rows);
    host.terminate().unwrap();
}

#[test]
fn past_what_was_read_while_it_runs() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "overrun";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 100, 1);
    let table = connector_table(&connector, topic);
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for(&host, &table, 100);
    host.signal("STOP");
    // What answers a request that waits may still be read.
    produce(&producer, topic, 100..110, 1);
    std::thread::sleep(std::time::Duration::from_secs(1));
    produce(&producer, topic, 110..200, 1);
    client.delete_records(topic, 0, 150).unwrap();
    host.signal("CONT");
    assert_stops(&mut host, &[topic, "begins at 150", "200"]);
    let last = Reader::DuckDb.number(&table, "select max(_kafka_offset) from t").unwrap();
    assert!(last < 110, "{last}");
    let mut expected = Produced::in_turn(0..100, 1);
    expected.go_on(100..last + 1, 1);
    assert_once(&table, &expected);
}

#[test]
fn of_what_the_table_has() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "tidied";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 100, 1);
    Host::until_idle(&connector).unwrap();
    for before in [50, 100] {
        client.delete_records(topic, 0, before).unwrap();
        Host::until_idle(&connector).unwrap();
    }
    produce(&producer, topic, 100..110, 1);
    client.delete_group(topic).unwrap();
    Host::until_idle(&connector).unwrap();
    assert_once(&connector_table(&connector, topic), &Produced::in_turn(0..110, 1));
}

/// What was never in a table is taken as far as it is left.
#[test]
fn before_the_first_start() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "late";
    let (_, connector) = filled(&client, broker.bootstrap(), topic, 100, 1);
    client.delete_records(topic, 0, 40).unwrap();
    Host::until_idle(&connector).unwrap();
    let mut expected = Produced::default();
    (40..100).for_each(|id| expected.add(0, id, id));
    assert_once(&connector_table(&connector, topic), &expected);
}

/// A broker that has lost messages which the table has is not taken for one that has none yet.
#[test]
fn an_offset_behind_the_end_is_refused() {
    let Some(mut kafka) = or_skip(Kafka::start) else { return };
    let client = Client::new(&kafka.bootstrap()).unwrap();
    let topic = "lost";
    let (producer, connector) = filled(&client, &kafka.bootstrap(), topic, 100, 1);
    Host::until_idle(&connector).unwrap();
    kafka.stop();
    kafka.lose_partition(topic, 0).unwrap();
    kafka.restart().unwrap();
    produce(&producer, topic, 1000..1010, 1);
    assert_eq!(client.bounds(topic, 0).unwrap(), (0, 10));
    assert_refused(&connector, &[topic, "100", "10"]);
    assert_once(&connector_table(&connector, topic), &Produced::in_turn(0..100, 1));
}
