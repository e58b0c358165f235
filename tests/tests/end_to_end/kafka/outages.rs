//! The broker goes away and comes back; what the host tells of its lag meanwhile.

use std::time::Duration;

use philotes_tests::admin::Admin;
use philotes_tests::host::Host;
use philotes_tests::kafka::{Client, Record};
use philotes_tests::services::Server;
use philotes_tests::services::kafka::Kafka;
use philotes_tests::{eventually, or_skip};

use super::broker::Broker;
use super::{Produced, assert_once, connector_table, filled, message, produce, wait_for};
use crate::PATIENCE;

#[test]
fn the_broker_is_killed_for_ten_seconds() {
    let Some(mut kafka) = or_skip(Kafka::start) else { return };
    let client = Client::new(&kafka.bootstrap()).unwrap();
    let topic = "events";
    let (producer, connector) = filled(&client, &kafka.bootstrap(), topic, 10_000, 2);
    let table = connector_table(&connector, topic);
    let mut host = Host::start(&connector, &["--listen", "127.0.0.1:0"]).unwrap();
    let admin = Admin::of(&mut host, PATIENCE).unwrap();
    wait_for(&host, &table, 10_000);
    produce(&producer, topic, 10_000..20_000, 2);
    kafka.kill9();
    host.wait_for_log(&["unavailable"], PATIENCE).unwrap();
    let told = admin.wait_for("unavailable", PATIENCE, |status| status.to_string().contains("unavailable")).unwrap();
    assert!(told.to_string().contains("broker"), "{told}");
    std::thread::sleep(Duration::from_secs(10));
    assert!(host.is_running().unwrap(), "{}", host.log_tail());
    kafka.restart().unwrap();
    produce(&producer, topic, 20_000..30_000, 2);
    wait_for(&host, &table, 30_000);
    host.terminate().unwrap();
    assert_once(&table, &Produced::in_turn(0..30_000, 2));
}

/// A host that is started before its broker waits for it.
#[test]
fn the_broker_is_not_there_yet() {
    let Some(mut kafka) = or_skip(Kafka::start) else { return };
    let client = Client::new(&kafka.bootstrap()).unwrap();
    let (_producer, connector) = filled(&client, &kafka.bootstrap(), "events", 10, 1);
    kafka.stop();
    let mut host = Host::start(&connector, &[]).unwrap();
    host.wait_for_log(&["unavailable"], PATIENCE).unwrap();
    kafka.restart().unwrap();
    wait_for(&host, &connector_table(&connector, "events"), 10);
    host.terminate().unwrap();
}

/// How far the table is behind is told by partition: what was produced while nothing could be committed, and nothing later.
#[test]
fn lag_is_told_by_partition() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "lagging";
    let (producer, connector) = filled(&client, broker.bootstrap(), topic, 10, 2);
    let connector = connector.top("commit: {interval: 4s}");
    let mut host = Host::start(&connector, &["--listen", "127.0.0.1:0"]).unwrap();
    let admin = Admin::of(&mut host, PATIENCE).unwrap();
    let lags = |wanted: [f64; 2]| {
        let mut found = Vec::new();
        let is_told = eventually(PATIENCE, || {
            found = lags_of(&admin.get("/metrics")?.1, topic);
            Ok(found == wanted)
        });
        assert!(is_told.unwrap(), "{found:?} instead of {wanted:?}");
    };
    lags([0.0, 0.0]);
    // All in partition 1.
    for id in 0..30 {
        producer.send(topic, 1, &Record::of(&message(id))).unwrap();
    }
    producer.flush().unwrap();
    lags([0.0, 30.0]);
    lags([0.0, 0.0]);
    let status = admin.connector().unwrap().to_string();
    assert!(status.contains("lag") && status.contains(topic), "{status}");
    host.terminate().unwrap();
}

/// What /metrics says of a stream's partitions, in their order.
fn lags_of(metrics: &str, stream: &str) -> Vec<f64> {
    let mut lags: Vec<(&str, f64)> = metrics
        .lines()
        .filter(|line| line.starts_with("philotes_lag_records{") && line.contains(&format!("stream=\"{stream}\"")))
        .filter_map(|line| {
            let partition = line.split("partition=\"").nth(1)?.split('"').next()?;
            Some((partition, line.rsplit(' ').next()?.parse().ok()?))
        })
        .collect();
    lags.sort_by_key(|(partition, _)| *partition);
    lags.into_iter().map(|(_, lag)| lag).collect()
}
