//! The test bed itself: what the tests believe of broker and client.

use std::time::Instant;

use rdkafka::Message;
use serde_json::json;

use super::*;
use crate::services::kafka::security::{PASSWORD, Security, USER};
use crate::services::kafka::{Kafka, Options};
use crate::services::registry::Registry;

#[test]
fn topics_records_groups_and_transactions() {
    let Some(kafka) = crate::or_skip(Kafka::start) else { return };
    let client = Client::new(&kafka.bootstrap()).unwrap();
    client.create_topic("orders", 2).unwrap();
    let producer = client.producer().unwrap();
    let began = Instant::now();
    for number in 0..200_000 {
        let value = [b'x'; 200];
        let key = [b'k'];
        let record = Record {
            key: Some(&key),
            headers: if number == 0 { &[("h", Some(b"1")), ("h", None)] } else { &[] },
            timestamp_millis: Some(1000),
            ..Record::of(&value)
        };
        producer.send("orders", number % 2, &record).unwrap();
    }
    producer.flush().unwrap();
    println!("200,000 messages in {:.1} s", began.elapsed().as_secs_f32());
    assert_eq!(client.bounds("orders", 0).unwrap(), (0, 100_000));
    client.delete_records("orders", 1, 7).unwrap();
    assert_eq!(client.bounds("orders", 1).unwrap(), (7, 100_000));

    client.add_partitions("orders", 3).unwrap();
    let transactional = client.transactional("t").unwrap();
    for round in 0..2 {
        transactional.begin().unwrap();
        transactional.send("orders", 2, &Record::of(b"{}")).unwrap();
        if round == 0 { transactional.abort() } else { transactional.commit() }.unwrap();
    }
    // Two messages and a marker for each transaction.
    assert!(eventually(PATIENCE, || Ok(client.bounds("orders", 2)? == (0, 4))).unwrap());

    assert_eq!(client.committed("g", "orders", 0).unwrap(), None);
    client.set_committed("g", "orders", &[(0, 5), (1, 9)]).unwrap();
    assert_eq!(client.committed("g", "orders", 1).unwrap(), Some(9));
    assert_eq!(client.members("g").unwrap(), 0);
    client.delete_group("g").unwrap();
    assert_eq!(client.committed("g", "orders", 1).unwrap(), None);

    client.delete_topic("orders").unwrap();
    client.create_topic_with("orders", 1, &[("retention.ms", "1000")]).unwrap();
    assert_eq!(client.bounds("orders", 0).unwrap(), (0, 0));
}

#[test]
fn every_listener_lets_in_who_may_and_nobody_else() {
    let Some(kafka) = crate::or_skip(|| Kafka::start_with(&Options { secured: true, ..Options::default() })) else {
        return;
    };
    let security = kafka.security().unwrap();
    let plain = Client::new(&kafka.bootstrap()).unwrap();
    plain.create_topic("orders", 1).unwrap();
    let (authority, stranger) = (security.certificate("authority"), security.certificate("stranger"));
    let (certificate, key) = (security.certificate("client"), security.client_key(true));
    let tls = [("security.protocol", "ssl"), ("ssl.ca.location", &authority)];
    let mutual = [
        ("security.protocol", "ssl"),
        ("ssl.ca.location", &authority),
        ("ssl.certificate.location", &certificate),
        ("ssl.key.location", &key),
        ("ssl.key.password", PASSWORD),
    ];
    let (tls_at, mutual_at) = (at(security.tls_port()), at(security.mutual_port()));
    assert!(reaches(&tls_at, &tls) && reaches(&mutual_at, &mutual));
    assert!(!reaches(&tls_at, &[("security.protocol", "ssl"), ("ssl.ca.location", &stranger)]));
    assert!(!reaches(&tls_at.replace("127.0.0.1", "localhost"), &tls), "a wrong name");
    assert!(!reaches(&mutual_at, &tls), "without a certificate");

    for (mechanism, password, is_let_in) in [
        ("PLAIN", PASSWORD, true),
        ("PLAIN", "wrong", false),
        ("SCRAM-SHA-256", PASSWORD, true),
        ("SCRAM-SHA-256", "wrong", false),
        ("SCRAM-SHA-512", PASSWORD, true),
    ] {
        let password = [("sasl.mechanism", mechanism), ("sasl.username", USER), ("sasl.password", password)];
        assert_eq!(reaches_by_sasl(security, &authority, &password), is_let_in, "{password:?}");
    }
    let token = [
        ("sasl.mechanism", "OAUTHBEARER"),
        ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
        ("sasl.oauthbearer.config", "principal=philotes"),
    ];
    assert!(reaches_by_sasl(security, &authority, &token));
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// On both listeners with SASL alike.
fn reaches_by_sasl(security: &Security, authority: &str, settings: &[(&str, &str)]) -> bool {
    let over = |protocol| [&[("security.protocol", protocol), ("ssl.ca.location", authority)], settings].concat();
    let found = reaches(&at(security.sasl_port()), &over("sasl_ssl"));
    assert_eq!(found, reaches(&at(security.sasl_open_port()), &over("sasl_plaintext")));
    found
}

fn reaches(bootstrap: &str, settings: &[(&str, &str)]) -> bool {
    let client = Client::with(bootstrap, settings).unwrap();
    let consumer = client.consumer("g").unwrap();
    // Tokens come by events, which are served by polling.
    consumer.poll(Duration::from_millis(100));
    consumer.fetch_metadata(Some("orders"), Duration::from_secs(3)).is_ok_and(|metadata| metadata.topics().len() == 1)
}

#[test]
fn confluent_writes_what_its_wire_format_is() {
    let Some(kafka) = crate::or_skip(Kafka::start) else { return };
    let client = Client::new(&kafka.bootstrap()).unwrap();
    client.create_topic("orders", 1).unwrap();
    let registry = Registry::start_for("me", "secret").unwrap();
    let schema = json!({"type": "record", "name": "r", "fields": [
        {"name": "id", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ]});
    let value = json!({"id": 1, "at": {"$timestamp": "1970-01-01T01:00:01+01:00"}});
    let avro = Confluent::avro(&kafka.bootstrap(), &registry, "orders", &schema).by("me", "secret");
    assert_eq!(avro.produce(&[value]).unwrap(), [json!({"id": "1", "at": "1000000"})]);
    let schema = json!({"type": "object", "title": "r", "properties": {"id": {"type": "integer"}}});
    let json = Confluent::json(&kafka.bootstrap(), &registry, "orders", &schema).by("me", "secret");
    json.produce_keyed(&[json!({"key": "k", "value": {"id": 2}}), json!({"key": "k", "value": null})]).unwrap();

    let consumer = client.consumer("g").unwrap();
    consumer.assign(&one("orders", 0, Offset::Beginning).unwrap()).unwrap();
    let next = || {
        let message = consumer.poll(PATIENCE).unwrap().unwrap().detach();
        (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec))
    };
    // Zigzag of 1 is 2, of 1,000,000 the bytes of 2,000,000 in sevens.
    assert_eq!(next(), (None, Some(vec![0, 0, 0, 0, 1, 2, 0x80, 0x89, 0x7a])));
    assert_eq!(next(), (Some(b"k".to_vec()), Some(b"\0\0\0\0\x02{\"id\":2}".to_vec())));
    assert_eq!(next(), (Some(b"k".to_vec()), None));
    assert_eq!(registry.requests("POST /subjects/orders-value"), 2);
}
