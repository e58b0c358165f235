//! Large messages, and many of them, under little memory.

use philotes_tests::host::Host;
use philotes_tests::kafka::Record;
use philotes_tests::readers::READERS;

use super::broker::Broker;
use super::{connector, connector_table};

/// Each is larger than what may be fetched at once by rights, and all of them are many times the memory.
#[test]
fn large_messages_under_little_memory() {
    let Some((broker, client)) = Broker::shared() else { return };
    let topic = "large";
    client.create_topic_with(topic, 2, &[("max.message.bytes", "10000000")]).unwrap();
    let producer = client.producer_with(&[("message.max.bytes", "10000000"), ("compression.type", "zstd")]).unwrap();
    let bytes = 3_000_000;
    for id in 0..40 {
        let value = format!("{{\"id\":{id},\"text\":\"{}\"}}", "x".repeat(bytes));
        producer.send(topic, id % 2, &Record::of(value.as_bytes())).unwrap();
    }
    producer.flush().unwrap();
    let connector = connector(broker.bootstrap(), topic).top("max_memory: 16MiB");
    Host::until_idle(&connector).unwrap();
    for reader in READERS {
        let table = connector_table(&connector, topic);
        let sql = "select count(distinct id) * 1000000000 + sum(length(text)) from t";
        assert_eq!(reader.number(&table, sql).unwrap(), 40_000_000_000 + 40 * bytes as i64, "{reader}");
    }
}
