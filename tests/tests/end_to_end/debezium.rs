//! A real Debezium captures the shop while people trade in it and the host is killed: the tables of the lake, replayed, are
//! PostgreSQL's, cell by cell, and hold each event once.

mod upsert;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use philotes_tests::connector::Connector;
use philotes_tests::equal::{as_seen_by, found};
use philotes_tests::host::Host;
use philotes_tests::kafka::Client;
use philotes_tests::readers::{READERS, Reader};
use philotes_tests::replay::{expect_equal, state_of};
use philotes_tests::services::Server;
use philotes_tests::services::debezium::{Debezium, DebeziumOptions, Decimals, Times};
use philotes_tests::services::kafka::Kafka;
use philotes_tests::services::postgres::{Options, Postgres};
use philotes_tests::source_table::SourceTable;
use philotes_tests::sql::Session;
use philotes_tests::{eventually, or_skip, shop};
use serde_json::Value;

use crate::PATIENCE;
use crate::sound::assert_sound;

/// Customers of a round of business.
const CUSTOMERS: u32 = 20;
/// How often the host is killed.
const KILLS: u64 = 5;

/// What an event without a schema does not tell: how decimals' bytes and days are meant, and the types of what may always be null.
const DECLARED: [(&str, &str); 3] = [
    (
        "customers",
        "credit: \"decimal_base64(12,2)\", tags: list<string>, since: date, created_at: timestamptz, profile: string, name: string",
    ),
    ("orders", "id: uuid, total: \"decimal_base64(14,2)\", points: list<int>, note: string, placed_at: timestamptz"),
    ("order_items", "order_id: uuid, unit_price: \"decimal_base64(20,10)\", options: string, weight: double"),
];

#[test]
fn the_shop_is_replayed_from_events_with_schemas() {
    let options = DebeziumOptions {
        partitions: 3,
        // Topics of their own, without rows.
        settings: [("provide.transaction.metadata", "true"), ("heartbeat.interval.ms", "500")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..DebeziumOptions::default()
    };
    replayed(&options, |connector| {
        connector.source("topics_regex: \"(__debezium-heartbeat.)?dbz.*\"").source("format: {type: debezium-json}")
    });
}

#[test]
fn the_shop_is_replayed_from_events_without_schemas() {
    replayed(&DebeziumOptions { schemas: false, ..DebeziumOptions::default() }, |connector| {
        let format = |(table, columns)| format!("dbz.public.{table}: {{type: debezium-json, columns: {{{columns}}}}}");
        connector
            .source("topics: [dbz.public.customers, dbz.public.orders, dbz.public.order_items]")
            .source(&format!("formats: {{{}}}", DECLARED.map(format).join(", ")))
    });
}

/// Decimals as texts, times as Kafka Connect's own types.
#[test]
fn the_shop_is_replayed_from_events_with_decimals_as_text() {
    let options = DebeziumOptions {
        schemas: false,
        decimals: Decimals::String,
        times: Times::Connect,
        partitions: 2,
        ..DebeziumOptions::default()
    };
    replayed(&options, |connector| {
        let texts = DECLARED.map(|(table, columns)| (table, columns.replace("decimal_base64", "decimal")));
        let format = |(table, columns)| format!("dbz.public.{table}: {{type: debezium-json, columns: {{{columns}}}}}");
        connector
            .source("topics: [dbz.public.customers, dbz.public.orders, dbz.public.order_items]")
            .source(&format!("formats: {{{}}}", texts.map(format).join(", ")))
    });
}

fn replayed(options: &DebeziumOptions, reads: impl FnOnce(Connector) -> Connector) {
    let started = || {
        let postgres = Postgres::start(Options { logical: true, ..Options::default() })?;
        Ok((postgres, Kafka::start()?))
    };
    let Some((postgres, kafka)) = or_skip(started) else { return };
    let session = postgres.session().unwrap();
    shop::create(&session).unwrap();
    // What is there before.
    shop::trade(&session, 0, CUSTOMERS).unwrap();
    let options = DebeziumOptions { tables: shop::TABLES.map(str::to_owned).into(), ..options.clone() };
    let Some(mut debezium) = or_skip(|| Debezium::start(&postgres, "postgres", &kafka, &options)) else { return };
    let connector = reads(Connector::kafka(&kafka.bootstrap()).unwrap())
        // A killed host's partitions are another's after two seconds.
        .source("properties: {session.timeout.ms: \"2000\", heartbeat.interval.ms: \"300\", topic.metadata.refresh.interval.ms: \"500\"}")
        .sink_without("table")
        .sink("table: \"cdc.{schema}_{table}\"");

    let closed = AtomicBool::new(false);
    let (shop, is_closed) = (&postgres, &closed);
    std::thread::scope(|scope| {
        let writers = [1, 2].map(|first| scope.spawn(move || trade(shop, first, is_closed)));
        for kill in 0..KILLS {
            let host = Host::start(&connector, &[]).unwrap();
            std::thread::sleep(Duration::from_millis(3500 + 700 * kill));
            host.kill9();
        }
        closed.store(true, Ordering::Relaxed);
        let rounds: u32 = writers.map(|writer| writer.join().unwrap()).iter().sum();
        eprintln!("{rounds} rounds of business");
    });
    wait_until_captured(&session);
    debezium.connect().expect_sound().unwrap();
    // While it beats, nothing is idle.
    debezium.stop();
    Host::until_idle(&connector).unwrap();

    let client = Client::new(&kafka.bootstrap()).unwrap();
    for name in shop::TABLES {
        let table = connector.table(&format!("cdc.dbz_{}", name.replace('.', "_")));
        let source = SourceTable::read(&session, name).unwrap();
        let events = events(&client, &debezium.topic(name), options.schemas);
        let expected = source.state(&session).unwrap();
        for reader in READERS {
            let changes = found(&source, reader, &table).unwrap();
            let mut counts = BTreeMap::new();
            changes.iter().for_each(|change| *counts.entry(change.operation.clone()).or_insert(0) += 1);
            assert_eq!(counts, events, "{name}, as {reader} sees it");
            let state = state_of(changes).unwrap();
            let (expected, state) = (as_seen_by(reader, &source, &expected), as_seen_by(reader, &source, &state));
            expect_equal(&source, &expected, &state).unwrap_or_else(|e| panic!("as {reader} sees it: {e:#}"));
        }
        assert!(events["DELETE"] > 0 && events["UPDATE"] > 0, "{events:?}");
        // Kills that find no work prove nothing.
        let snapshots = Reader::PyIceberg.snapshots(&table).unwrap().len();
        assert!(snapshots > usize::try_from(KILLS).unwrap(), "{name} has but {snapshots} snapshots");
        assert_sound(&table);
    }
}

/// Rounds `first`, `first + 2` and so on, until the shop closes; how many they were.
fn trade(postgres: &Postgres, first: u32, closed: &AtomicBool) -> u32 {
    let session = postgres.session().unwrap();
    let start = Instant::now();
    let mut rounds = 0;
    while !closed.load(Ordering::Relaxed) && start.elapsed() < 2 * PATIENCE {
        shop::trade(&session, first + 2 * rounds, CUSTOMERS).unwrap();
        rounds += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    rounds
}

/// Waits until everything up to now is in Kafka: Debezium confirms to its slot what Kafka has.
fn wait_until_captured(session: &Session) {
    let end = session.one("select pg_current_wal_lsn()").unwrap();
    // It confirms when something comes: here events that are no rows.
    let mark = "select pg_logical_emit_message(true, 'mark', '')";
    let confirmed = format!("select count(*) from pg_replication_slots where confirmed_flush_lsn >= '{end}'");
    let arrived = eventually(PATIENCE, || {
        session.batch(mark)?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(session.number(&confirmed)? == 1)
    });
    assert!(arrived.unwrap(), "the slot does not come to {end}");
}

/// How many events of each operation lie in a topic.
fn events(client: &Client, topic: &str, schemas: bool) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in client.read(topic).unwrap() {
        let Some(value) = message.value else { continue };
        let mut event: Value = serde_json::from_slice(&value).unwrap();
        let event = if schemas { event["payload"].take() } else { event };
        let operation = match event["op"].as_str() {
            Some("c" | "r") => "INSERT",
            Some("u") => "UPDATE",
            Some("d") => "DELETE",
            other => panic!("an operation {other:?}"),
        };
        *counts.entry(operation.to_owned()).or_insert(0) += 1;
    }
    counts
}
