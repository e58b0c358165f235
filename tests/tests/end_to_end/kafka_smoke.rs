//! The thinnest run.
use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::{Client, Record};
use philotes_tests::readers::Reader;
use philotes_tests::services::kafka::Kafka;

#[test]
fn thin() {
    let Some(kafka) = philotes_tests::or_skip(Kafka::start) else { return };
    let client = Client::new(&kafka.bootstrap()).unwrap();
    client.create_topic("orders", 4).unwrap();
    let producer = client.producer().unwrap();
    for number in 0..100_000 {
        let value = format!("{{\"id\":{number}}}");
        producer.send("orders", number % 4, &Record::of(value.as_bytes())).unwrap();
    }
    producer.flush().unwrap();
    let connector = Connector::kafka(&kafka.bootstrap()).unwrap().source("topics: [orders]");
    for _ in 0..2 {
        let t = std::time::Instant::now();
        Host::until_idle(&connector).unwrap();
        println!("took {:?}", t.elapsed());
        let table = connector.table("cdc.orders");
        println!("{}", Reader::DuckDb.number(&table, "select count(*) from t").unwrap());
        println!(
            "{}",
            Reader::PyIceberg
                .number(&table, "select count(distinct (_kafka_partition, _kafka_offset)) from t")
                .unwrap_or(-1)
        );
        println!("{:?}", client.committed("philotes-shop", "orders", 0));
    }
    println!("{}", std::fs::read_to_string(connector.dir().join("host-1.log")).unwrap());
    println!("{}", std::fs::read_to_string(connector.dir().join("host-2.log")).unwrap());
}
