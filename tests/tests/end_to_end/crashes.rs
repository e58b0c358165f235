//! The host is killed at any moment and started again: each row is in the table once.

use std::time::Duration;

use philotes_tests::host::Host;
use philotes_tests::readers::{READERS, Table};
use philotes_tests::sql::Session;
use philotes_tests::{eventually, postgres_or_skip};
use rand::Rng;

use crate::{PATIENCE, assert_acknowledged, captured, pairs, wait_for_rows};

const KILLS: i64 = 10;

#[test]
fn kill_9_ten_times_with_mark() {
    kill_ten_times("mark", 200_000);
}

#[test]
fn kill_9_ten_times_with_delete() {
    kill_ten_times("delete", 200_000);
}

fn kill_ten_times(acknowledge: &str, rows: i64) {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let connector = connector
        .source(&format!("acknowledge: {acknowledge}"))
        .source("batch_rows: 1000")
        .top("commit: {interval: 50ms}");
    let mut random = rand::rng();
    // One part per kill and a last one, so that every kill meets a host that has work.
    let part = rows / (KILLS + 1);
    let mut from = 1;
    for kill in 0..KILLS {
        write_events(&session, from, from + part - 1);
        from += part;
        let host = Host::start(&connector, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(20..1200)));
        assert!(!host.log().contains("FAILED"), "before kill {kill}: {}", host.log_tail());
        host.kill9();
    }
    write_events(&session, from, rows);
    Host::until_idle(&connector).unwrap();

    assert_each_once(&connector.table("cdc.public_t"), rows);
    assert_acknowledged(&session);
}

/// Rows 1.. of `public.t` as a writer of the buffer's own would put them there: much faster than capture.
fn write_events(session: &Session, from: i64, to: i64) {
    session
        .batch(&format!(
            "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, \
             key_columns, after_data, metadata, event_time) \
             select 'shop', 'public', 't', 'INSERT', '0/' || upper(to_hex(i)), 1, '[\"id\"]', \
             jsonb_build_object('id', i, 'v', i % 1000, 'who', 'row ' || i), \
             '{{\"columns\": [{{\"name\": \"id\", \"type\": \"bigint\", \"nullable\": false}}, \
               {{\"name\": \"v\", \"type\": \"integer\", \"nullable\": false}}, \
               {{\"name\": \"who\", \"type\": \"text\", \"nullable\": true}}]}}', now() \
             from generate_series({from}, {to}) i"
        ))
        .unwrap();
}

fn assert_each_once(table: &Table, rows: i64) {
    let sum = rows * (rows + 1) / 2;
    for reader in READERS {
        let found = reader
            .query(table, "select count(*), count(distinct id), min(id), max(id), sum(id)::bigint from t")
            .unwrap();
        let expected = [rows, rows, 1, rows, sum].map(|n| serde_json::json!(n.to_string()));
        assert_eq!(found.rows, [expected], "{reader}: rows, distinct, first, last, sum");
    }
}

/// Killed between the commit to the table and its acknowledgement: only the token says that the rows are there.
#[test]
fn killed_before_the_acknowledgement() {
    for acknowledge in ["mark", "delete"] {
        let Some(postgres) = postgres_or_skip() else { return };
        let (session, connector) = captured(&postgres);
        let connector = connector.source(&format!("acknowledge: {acknowledge}"));
        let table = connector.table("cdc.public_t");
        session.batch("insert into t select i, 1 from generate_series(1, 100) i").unwrap();
        // Reading is free, marking and deleting have to wait.
        let blocker = postgres.session().unwrap();
        blocker.batch("begin").unwrap();
        blocker.batch("select id from philotes.cdc_events for update").unwrap();
        let host = Host::start(&connector, &[]).unwrap();
        wait_for_rows(&table, 100);
        let waiting = "select count(*) from pg_locks where not granted";
        assert!(eventually(PATIENCE, || Ok(session.number(waiting)? > 0)).unwrap(), "nothing is acknowledged");
        host.kill9();
        session.batch("select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'").unwrap();
        blocker.batch("rollback").unwrap();
        assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is null").unwrap(), 100);

        session.batch("insert into t values (101, 1)").unwrap();
        Host::until_idle(&connector).unwrap();
        let expected: Vec<(i64, i64)> = (1..=101).map(|id| (id, 1)).collect();
        assert_eq!(pairs(&table), expected, "{acknowledge}");
        assert_acknowledged(&session);
    }
}

/// SIGTERM commits what has been read, however far the next commit is, and ends with 0.
#[test]
fn terminated_in_an_orderly_way() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let connector = connector.top("commit: {interval: 1h}");
    session.batch("insert into t select i, 1 from generate_series(1, 1000) i").unwrap();
    let host = Host::start(&connector, &[]).unwrap();
    let read = "select coalesce(sum(upper(r) - lower(r)), 0) from philotes.batches, unnest(ids) r";
    assert!(eventually(PATIENCE, || Ok(session.number(read)? == 1000)).unwrap(), "{}", host.log_tail());
    std::thread::sleep(Duration::from_millis(500));
    assert!(!connector.table("cdc.public_t").exists().unwrap() || pairs(&connector.table("cdc.public_t")).is_empty());
    host.terminate().unwrap();
    wait_for_rows(&connector.table("cdc.public_t"), 1000);
    assert_acknowledged(&session);
}
