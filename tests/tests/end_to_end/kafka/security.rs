//! TLS and SASL against a broker that wants them: who may come in does, and who may not is told why.

use std::time::Duration;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::kafka::Client;
use philotes_tests::or_skip;
use philotes_tests::services::kafka::security::{PASSWORD, Security, USER};
use philotes_tests::services::kafka::{Kafka, Options};
use philotes_tests::services::tokens::{CLIENT_ID, CLIENT_SECRET, Tokens};

use super::{Produced, assert_once, assert_stops, connector, connector_table, produce, wait_for};
use crate::PATIENCE;

/// A broker with a topic of ten messages. It is small: the connectors of a test share it one after the other.
fn secured() -> Option<Kafka> {
    let kafka = or_skip(|| Kafka::start_with(&Options { secured: true, ..Options::default() }))?;
    let client = Client::new(&kafka.bootstrap()).unwrap();
    client.create_topic("secret", 1).unwrap();
    produce(&client.producer().unwrap(), "secret", 0..10, 1);
    Some(kafka)
}

fn at(port: u16) -> Connector {
    connector(&format!("127.0.0.1:{port}"), "secret")
}

fn assert_reads(connector: &Connector) {
    Host::until_idle(connector).unwrap();
    assert_once(&connector_table(connector, "secret"), &Produced::in_turn(0..10, 1));
}

/// The connector ends with 1 at once, says all this, and not the password.
fn assert_shut_out(connector: &Connector, words: &[&str]) {
    let mut host = Host::start(connector, &[]).unwrap();
    assert_stops(&mut host, words);
    let log = host.log();
    for secret in [PASSWORD, CLIENT_SECRET, "wrong-secret"] {
        assert!(!log.contains(secret), "{secret}: {}", host.log_tail());
    }
}

#[test]
fn tls_with_and_without_a_client_certificate() {
    let Some(kafka) = secured() else { return };
    let security = kafka.security().unwrap();
    let ca = |name: &str| format!("tls_ca: \"{}\"", security.certificate(name));
    let verified = |port: u16| at(port).source("tls: verify-full").source(&ca("authority"));
    assert_reads(&verified(security.tls_port()));
    assert_reads(&at(security.tls_port()).source("tls: require"));
    let certificate = format!("tls_certificate: \"{}\"", security.certificate("client"));
    let key = |encrypted| format!("tls_key: \"{}\"", security.client_key(encrypted));
    let mutual = || verified(security.mutual_port()).source(&certificate);
    assert_reads(&mutual().source(&key(false)));
    assert_reads(&mutual().source(&key(true)).source(&format!("tls_key_password: {PASSWORD}")));

    assert_shut_out(&at(security.tls_port()).source("tls: verify-full").source(&ca("stranger")), &["certificate"]);
    // The certificate is for 127.0.0.1 only.
    let wrong_name = verified(security.tls_port()).reads_from(&format!("localhost:{}", security.tls_port()));
    assert_shut_out(&wrong_name, &["certificate"]);
    assert_shut_out(&verified(security.mutual_port()), &["certificate"]);
    assert_shut_out(&mutual().source(&key(true)).source("tls_key_password: wrong-secret"), &["tls_key"]);
}

#[test]
fn passwords_by_every_mechanism() {
    let Some(kafka) = secured() else { return };
    let security = kafka.security().unwrap();
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        for tls in [true, false] {
            let connector = |password: &str| {
                let sasl = format!("sasl: {{mechanism: {mechanism}, username: {USER}, password: {password}}}");
                with_sasl(security, tls, &sasl)
            };
            assert_reads(&connector(PASSWORD));
            if tls {
                assert_shut_out(&connector("wrong-secret"), &["sasl", "uthentication"]);
            }
        }
    }
}

fn with_sasl(security: &Security, tls: bool, sasl: &str) -> Connector {
    if !tls {
        return at(security.sasl_open_port()).source(sasl);
    }
    let ca = format!("tls_ca: \"{}\"", security.certificate("authority"));
    at(security.sasl_port()).source(sasl).source("tls: verify-full").source(&ca)
}

#[test]
fn tokens_are_fetched_and_fetched_again() {
    let Some(kafka) = secured() else { return };
    let security = kafka.security().unwrap();
    // librdkafka looks once a second whether four fifths of a token's life are over, and a session with the broker ends with it.
    const LIFE: Duration = Duration::from_secs(12);
    let tokens = Tokens::start(LIFE).unwrap();
    let connector = |secret: &str, url: &str| {
        let sasl = format!(
            "sasl: {{mechanism: oauthbearer, token_url: \"{url}\", client_id: {CLIENT_ID}, client_secret: {secret}, scope: kafka}}"
        );
        with_sasl(security, true, &sasl)
    };
    let good = connector(CLIENT_SECRET, &tokens.url());
    assert_reads(&good);
    assert!(tokens.granted() > 0);
    assert!(tokens.asked().iter().all(|form| form.contains("scope=kafka")), "{:?}", tokens.asked());

    let before = tokens.granted();
    let mut host = Host::start(&good, &[]).unwrap();
    host.wait_for_log(&["assigned partitions"], PATIENCE).unwrap();
    let at_first = tokens.granted();
    assert!(at_first > before);
    // With the first token alone it would be shut out by then.
    std::thread::sleep(LIFE + Duration::from_secs(3));
    assert!(tokens.granted() > at_first && host.is_running().unwrap(), "{}", host.log_tail());
    let client = Client::new(&kafka.bootstrap()).unwrap();
    produce(&client.producer().unwrap(), "secret", 10..20, 1);
    wait_for(&host, &connector_table(&good, "secret"), 20);
    host.terminate().unwrap();

    assert_shut_out(&connector("wrong-secret", &tokens.url()), &["token"]);
    // Nobody is there: that may change.
    let patient = connector(CLIENT_SECRET, "http://127.0.0.1:9/token");
    let mut waiting = Host::start(&patient, &[]).unwrap();
    waiting.wait_for_log(&["unavailable", "token"], PATIENCE).unwrap();
    waiting.kill9();
}
