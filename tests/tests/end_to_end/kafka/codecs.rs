//! Messages are read however they were compressed, and their metadata becomes columns.

use philotes_tests::host::Host;
use philotes_tests::kafka::Record;
use philotes_tests::readers::READERS;
use serde_json::json;

use super::broker::Broker;
use super::{Produced, assert_once, connector, connector_table, produce};

#[test]
fn every_codec_is_read() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "codecs";
    client.create_topic(topic, 1).unwrap();
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (number, codec) in codecs.iter().enumerate() {
        let producer = client.producer_with(&[("compression.type", codec)]).unwrap();
        let first = number as i64 * 1000;
        produce(&producer, topic, first..first + 1000, 1);
    }
    let connector = connector(broker.bootstrap(), topic);
    Host::until_idle(&connector).unwrap();
    assert_once(&connector_table(&connector, topic), &Produced::in_turn(0..5000, 1));
}

/// Key, headers and what Kafka itself says of a message; the topic's name with a dot is a stream of two parts.
#[test]
fn what_kafka_says_of_a_message_is_in_columns() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "shop.orders";
    client.create_topic(topic, 2).unwrap();
    let producer = client.producer().unwrap();
    let record = Record {
        key: Some(b"\x00k"),
        headers: &[("trace", Some(b"a1")), ("trace", None), ("n", Some(b""))],
        timestamp_millis: Some(1_700_000_000_123),
        ..Record::of(b"{\"id\":1}")
    };
    producer.send(topic, 1, &record).unwrap();
    producer
        .send(topic, 1, &Record { timestamp_millis: Some(1_700_000_000_124), ..Record::of(b"{\"id\":2}") })
        .unwrap();
    producer.flush().unwrap();
    let connector = philotes_tests::connector::Connector::kafka(broker.bootstrap())
        .unwrap()
        .source("topics: [shop.orders]")
        .source("metadata_columns: [key, headers, timestamp, topic, partition, offset]");
    Host::until_idle(&connector).unwrap();
    let sql = "select id, _kafka_key, _kafka_headers, _kafka_timestamp, _kafka_topic, _kafka_partition, _kafka_offset, \
               _cdc_operation, _cdc_lsn, _cdc_timestamp from t order by id";
    for reader in READERS {
        let rows = reader.query(&connector.table("cdc.shop_orders"), sql).unwrap().rows;
        let header = |key: &str, value: serde_json::Value| json!({"key": key, "value": value});
        let headers = json!([header("trace", json!("6131")), header("trace", json!(null)), header("n", json!(""))]);
        let micros = ["1700000000123000", "1700000000124000"];
        let first =
            json!(["1", "006b", headers, micros[0], "shop.orders", "1", "0", "INSERT", "shop.orders-1@0", micros[0]]);
        assert_eq!(json!(rows[0]), first, "{reader}");
        let lsn = "shop.orders-1@1";
        let second = json!(["2", null, rows[1][2], micros[1], "shop.orders", "1", "1", "INSERT", lsn, micros[1]]);
        assert_eq!(json!(rows[1]), second, "{reader}");
        // No headers are an empty list, or none.
        assert!([json!(null), json!([])].contains(&rows[1][2]), "{reader}: {rows:?}");
    }
}
