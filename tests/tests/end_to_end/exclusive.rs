//! Two hosts on one connector: one works, the other waits and says why; nothing is doubled, not even by a paused one.

use std::time::{Duration, Instant};

use philotes_tests::admin::Admin;
use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::sql::Session;

use crate::{PATIENCE, assert_acknowledged, captured, pairs, wait_for_rows};

fn insert(session: &Session, from: i64, to: i64) {
    session.batch(&format!("insert into t select i, 1 from generate_series({from}, {to}) i")).unwrap();
}

fn assert_rows(connector: &Connector, rows: i64) {
    let expected: Vec<(i64, i64)> = (1..=rows).map(|id| (id, 1)).collect();
    assert_eq!(pairs(&connector.table("cdc.public_t")), expected);
}

#[test]
fn the_second_host_waits_and_takes_over() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    insert(&session, 1, 100);
    let first = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 100);
    let mut second = Host::start(&connector, &[]).unwrap();
    let line = second.wait_for_log(&["in use by another", "waiting"], PATIENCE).unwrap();
    assert!(line.contains("WARN") || line.contains("INFO") || line.contains("ERROR"), "{line}");
    insert(&session, 101, 200);
    wait_for_rows(&table, 200);
    first.terminate().unwrap();
    insert(&session, 201, 300);
    wait_for_rows(&table, 300);
    second.terminate().unwrap();
    assert_rows(&connector, 300);
    assert_acknowledged(&session);
}

/// However short `retry.elapsed` is, a standby does not fail; it is ready, and says who holds the source.
#[test]
fn a_standby_never_fails() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let connector = connector.top("retry: {initial: 100ms, max: 200ms, elapsed: 1s}").top("restart: {policy: never}");
    let table = connector.table("cdc.public_t");
    insert(&session, 1, 100);
    let first = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 100);
    let mut second = Host::start(&connector, &["--listen", "127.0.0.1:0"]).unwrap();
    let standby = Admin::of(&mut second, PATIENCE).unwrap();
    let status = standby.wait_for("standby", PATIENCE, |shop| shop["state"] == "standby").unwrap();
    let error = &status["tasks"][0]["last_error"];
    assert!(error["message"].as_str().unwrap().contains("in use by another task"), "{status}");
    assert!(status["lag_seconds"].is_null(), "{status}");
    assert_eq!(standby.get("/readyz").unwrap().0, 200);
    let metric = r#"philotes_connector_state{connector="shop",state="standby"}"#;
    assert_eq!(standby.metric(metric).unwrap(), Some(1.0));

    // Much longer than `retry.elapsed`.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(standby.connector().unwrap()["state"], "standby");
    assert!(!second.log().contains("FAILED") && !second.log().contains("WARN"), "{}", second.log_tail());

    first.terminate().unwrap();
    insert(&session, 101, 200);
    wait_for_rows(&table, 200);
    assert_eq!(standby.connector().unwrap()["state"], "running");
    second.terminate().unwrap();
    assert_rows(&connector, 200);
    assert_acknowledged(&session);
}

/// Nothing waits: the lag is 0, though the source looks at its buffer only now and then.
#[test]
fn a_quiet_source_has_no_lag() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    insert(&session, 1, 100);
    let mut host = Host::start(&connector, &["--listen", "127.0.0.1:0"]).unwrap();
    let admin = Admin::of(&mut host, PATIENCE).unwrap();
    wait_for_rows(&connector.table("cdc.public_t"), 100);
    admin.wait_for("all is durable", PATIENCE, |shop| shop["lag_seconds"] == 0.0).unwrap();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(10) {
        let status = admin.connector().unwrap();
        assert_eq!(status["lag_seconds"], 0.0, "after {:?}: {status}", since.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    host.terminate().unwrap();
}

/// Both are started at once, on a full buffer.
#[test]
fn both_at_once() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let connector = connector.source("batch_rows: 100");
    insert(&session, 1, 5000);
    let hosts = [Host::start(&connector, &[]).unwrap(), Host::start(&connector, &[]).unwrap()];
    wait_for_rows(&connector.table("cdc.public_t"), 5000);
    for host in hosts {
        host.terminate().unwrap();
    }
    assert_rows(&connector, 5000);
    assert_acknowledged(&session);
}

/// The first is paused and loses its sessions, the second takes over, the first wakes up: it is fenced and doubles nothing.
#[test]
fn a_paused_host_undoes_nothing() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    insert(&session, 1, 100);
    let first = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 100);
    // Rows that it may have read and not yet committed.
    insert(&session, 101, 200);
    first.signal("STOP");
    session
        .batch("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'")
        .unwrap();
    let second = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 200);
    first.signal("CONT");
    insert(&session, 201, 300);
    wait_for_rows(&table, 300);
    std::thread::sleep(Duration::from_secs(2));
    insert(&session, 301, 400);
    wait_for_rows(&table, 400);
    first.terminate().unwrap();
    second.terminate().unwrap();
    assert_rows(&connector, 400);
    assert_acknowledged(&session);
}
