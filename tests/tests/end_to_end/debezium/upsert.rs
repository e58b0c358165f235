//! What a real Debezium captures, into tables that are kept equal: from its snapshot on, while values are not sent, keys change,
//! and host and Debezium are killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use philotes_tests::connector::Connector;
use philotes_tests::equal::expect_current;
use philotes_tests::host::Host;
use philotes_tests::kafka::Client;
use philotes_tests::readers::Reader;
use philotes_tests::services::Server;
use philotes_tests::services::debezium::{Debezium, DebeziumOptions};
use philotes_tests::services::kafka::Kafka;
use philotes_tests::services::postgres::{Options, Postgres};
use philotes_tests::sql::Session;
use philotes_tests::{eventually, or_skip, shop};

use super::{trade, wait_until_captured};
use crate::PATIENCE;

/// Customers of the shop, and documents, before anybody captures.
const BEFORE: u32 = 120;
/// How often the host is killed.
const KILLS: u64 = 4;

/// Documents whose bodies PostgreSQL stores apart, and does not log where they do not change.
///
/// Debezium may say everything twice that it has said in the second before it was killed. Where a document is gone by then, nobody
/// knows its body any more: so those of kind 0 are never deleted, and only theirs is not sent at times.
const DOCUMENTS: &str = "
    create table documents (id uuid primary key, kind integer not null, title text not null, body text, n integer not null);
    alter table documents alter body set storage external;
    create function body(n integer) returns text return repeat('body ' || n || ' ', 400)";

#[test]
fn what_debezium_captures_is_kept_equal() {
    let started = || {
        let postgres = Postgres::start(Options { logical: true, ..Options::default() })?;
        Ok((postgres, Kafka::start()?))
    };
    let Some((postgres, kafka)) = or_skip(started) else { return };
    let session = postgres.session().unwrap();
    session.batch(DOCUMENTS).unwrap();
    shop::create(&session).unwrap();
    // Far from the rounds that come later.
    shop::trade(&session, 1000, BEFORE).unwrap();
    write_documents(&session, 0, i32::try_from(BEFORE).unwrap());
    let tables: Vec<&str> = shop::TABLES.into_iter().chain(["public.documents"]).collect();
    let options = DebeziumOptions {
        tables: tables.iter().copied().map(str::to_owned).collect(),
        partitions: 3,
        ..DebeziumOptions::default()
    };
    let Some(mut debezium) = or_skip(|| Debezium::start(&postgres, "postgres", &kafka, &options)) else { return };
    let connector = Connector::kafka(&kafka.bootstrap())
        .unwrap()
        .source("properties: {session.timeout.ms: \"2000\", heartbeat.interval.ms: \"300\", topic.metadata.refresh.interval.ms: \"500\"}")
        .source("topics_regex: \"dbz.*\"")
        .source("format: {type: debezium-json}")
        .sink_without("table")
        .sink("table: \"cdc.{schema}_{table}\"")
        .sink("mode: upsert")
        .top("commit: {interval: 100ms, max_rows: 40}");
    let table = |name: &str| connector.table(&format!("cdc.dbz_{}", name.replace('.', "_")));
    let assert_equal = |reader: Reader| {
        for name in &tables {
            expect_current(&session, name, reader, &table(name)).unwrap_or_else(|error| panic!("{error:#}"));
        }
    };

    // The initial load, in several commits, has nothing to delete.
    wait_for_snapshot(&session, &Client::new(&kafka.bootstrap()).unwrap(), &debezium, &tables);
    Host::until_idle(&connector).unwrap();
    assert_equal(Reader::DuckDb);
    for name in &tables {
        assert!(Reader::PyIceberg.snapshots(&table(name)).unwrap().len() > 1, "{name} came in one commit");
        let deletes = Reader::PyIceberg.delete_files(&table(name)).unwrap();
        assert!(deletes.is_empty(), "{name}: {deletes:?}");
    }

    let closed = AtomicBool::new(false);
    let (server, is_closed) = (&postgres, &closed);
    std::thread::scope(|scope| {
        let writers = [1, 2].map(|first| scope.spawn(move || trade(server, first, is_closed)));
        let author = scope.spawn(move || change_documents(server, is_closed));
        for kill in 0..KILLS {
            let host = Host::start(&connector, &[]).unwrap();
            std::thread::sleep(Duration::from_millis(3500 + 700 * kill));
            if kill % 2 == 1 {
                debezium.kill9();
                debezium.restart().unwrap();
            }
            host.kill9();
        }
        closed.store(true, Ordering::Relaxed);
        let rounds: u32 = writers.map(|writer| writer.join().unwrap()).iter().sum();
        eprintln!("{rounds} rounds of business, {} of documents", author.join().unwrap());
    });
    wait_until_captured(&session);
    debezium.connect().expect_sound().unwrap();
    debezium.stop();
    Host::until_idle(&connector).unwrap();

    assert_equal(Reader::DuckDb);
    assert_equal(Reader::Spark);
    for name in &tables {
        assert!(!Reader::PyIceberg.delete_files(&table(name)).unwrap().is_empty(), "{name}: nothing was deleted");
    }
}

/// Waits until Debezium has written as many events as there are rows.
fn wait_for_snapshot(session: &Session, client: &Client, debezium: &Debezium, tables: &[&str]) {
    for name in tables {
        let rows = usize::try_from(session.number(&format!("select count(*) from {name}")).unwrap()).unwrap();
        let mut events = 0;
        let done = eventually(PATIENCE, || {
            events = client.read(&debezium.topic(name)).map_or(0, |events| events.len());
            Ok(events >= rows)
        });
        assert!(done.unwrap() && events == rows, "{name}: {events} events of {rows} rows");
    }
}

fn write_documents(session: &Session, first: i32, count: i32) {
    session
        .batch(&format!(
            "insert into documents select md5(i::text)::uuid, i % 3, 'document ' || i, body(i), 0 \
             from generate_series({first}, {first} + {count} - 1) i"
        ))
        .unwrap();
}

/// Rounds until it is closed; how many they were.
fn change_documents(postgres: &Postgres, closed: &AtomicBool) -> i32 {
    let session = postgres.session().unwrap();
    let start = Instant::now();
    let mut round = 0;
    while !closed.load(Ordering::Relaxed) && start.elapsed() < 2 * PATIENCE {
        round += 1;
        write_documents(&session, i32::try_from(BEFORE).unwrap() + 10 * round, 10);
        for statement in [
            // The body is not sent; after it has changed in the round before, or long ago.
            format!("update documents set n = n + 1 where kind = 0 and n % 2 = {round} % 2"),
            format!("update documents set body = body({round}), n = n + 1 where kind = 0 and n % 3 = {round} % 3"),
            "update documents set n = n + 1, title = 'again ' || n where kind = 0 and n % 5 = 0".to_owned(),
            format!("update documents set body = null where kind = 0 and n % 7 = {round} % 7"),
            format!("delete from documents where kind = 1 and n % 4 = {round} % 4"),
            format!(
                "insert into documents select md5(i::text)::uuid, 1, 'again', body({round}), {round} \
                 from generate_series(1, 40, 3) i on conflict (id) do update set n = documents.n + 1, body = excluded.body"
            ),
            // The key changes, and what is large with it.
            format!(
                "update documents set id = md5(id::text)::uuid, body = body({round}), n = n + 1 where kind = 2 and left(md5(id::text || {round}), 1) < '4'"
            ),
        ] {
            session.batch(&statement).unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    round
}
