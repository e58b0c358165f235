//! PostgreSQL goes away and comes back: the host reports it, backs off and goes on.

use std::time::Duration;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::services::Server;

use crate::{PATIENCE, assert_acknowledged, captured, pairs, wait_for_rows};

#[test]
fn postgres_is_killed_for_ten_seconds() {
    let Some(mut postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    session.batch("insert into t select i, 1 from generate_series(1, 1000) i").unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 1000);
    session.batch("insert into t select i, 1 from generate_series(1001, 2000) i").unwrap();
    postgres.kill9();
    host.wait_for_log(&["unavailable"], PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    assert!(host.is_running().unwrap(), "{}", host.log_tail());
    postgres.restart().unwrap();
    let session = postgres.session().unwrap();
    session.batch("insert into t select i, 1 from generate_series(2001, 3000) i").unwrap();
    wait_for_rows(&table, 3000);
    host.terminate().unwrap();
    let expected: Vec<(i64, i64)> = (1..=3000).map(|id| (id, 1)).collect();
    assert_eq!(pairs(&table), expected);
    assert_acknowledged(&session);
}

/// A host that is started before its database waits for it.
#[test]
fn postgres_is_not_there_yet() {
    let Some(mut postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("insert into t values (1, 1)").unwrap();
    drop(session);
    postgres.stop();
    let mut host = Host::start(&connector, &[]).unwrap();
    host.wait_for_log(&["unavailable"], PATIENCE).unwrap();
    postgres.restart().unwrap();
    wait_for_rows(&connector.table("cdc.public_t"), 1);
    host.terminate().unwrap();
}

/// A crash takes rows of asynchronous commits with it, and their ids are given to other rows. But not once such a row is in
/// the table: writing down its batch has flushed it.
#[test]
fn a_row_that_arrived_survives_a_crash_although_its_commit_was_asynchronous() {
    let Some(mut postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    // By itself the server flushes such a commit after this long at the latest.
    session.batch("alter system set wal_writer_delay = '10s'").unwrap();
    session.batch("select pg_reload_conf()").unwrap();
    session.batch("insert into t values (1, 1)").unwrap();
    let host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 1);
    assert_acknowledged(&session);
    // Acknowledging would flush the row as well.
    let holder = postgres.session().unwrap();
    holder.batch("begin; lock table philotes.acknowledged in exclusive mode").unwrap();
    session.batch("set synchronous_commit = off; insert into t values (2, 1)").unwrap();
    wait_for_rows(&table, 2);
    postgres.kill9();
    postgres.restart().unwrap();
    let session = postgres.session().unwrap();
    assert_eq!(session.one("select string_agg(id::text, ',' order by id) from t").unwrap(), "1,2");
    session.batch("insert into t values (3, 1)").unwrap();
    wait_for_rows(&table, 3);
    host.terminate().unwrap();
    assert_eq!(pairs(&table), [(1, 1), (2, 1), (3, 1)]);
    assert_acknowledged(&session);
}

/// A password that is replaced while the connector runs, in the server first and then in the file
/// that it stands in.
#[test]
fn a_password_that_changes_in_its_file_is_read_again() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, _) = captured(&postgres);
    let hba = session.one("show hba_file").unwrap();
    session.batch("create role reader login superuser password 'one'").unwrap();
    session
        .batch(&format!("copy (values ('local all reader scram-sha-256'), ('local all all trust')) to '{hba}'"))
        .unwrap();
    session.batch("select pg_reload_conf()").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "one\n").unwrap();
    let dsn = postgres.dsn().replace("user=postgres", "user=reader");
    let connector = Connector::new(&format!("{dsn} password=${{file:{}}}", secret.display()))
        .unwrap()
        .source("poll_interval: 100ms");
    let table = connector.table("cdc.public_t");
    session.batch("insert into t values (1, 1)").unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 1);

    session.batch("alter role reader password 'two'").unwrap();
    session.batch("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'reader'").unwrap();
    host.wait_for_log(&["28P01", "read again"], PATIENCE).unwrap();
    session.batch("insert into t values (2, 1)").unwrap();
    // A file that cannot be read for a moment is no reason to end either.
    std::fs::remove_file(&secret).unwrap();
    host.wait_for_log(&["cannot be used as they are now"], PATIENCE).unwrap();
    assert!(host.is_running().unwrap(), "{}", host.log_tail());
    std::fs::write(&secret, "two\n").unwrap();
    wait_for_rows(&table, 2);
    let log = host.log();
    assert!(!log.contains("=one") && !log.contains("=two"), "the log tells the password: {log}");
    host.terminate().unwrap();
    assert_eq!(pairs(&table), [(1, 1), (2, 1)]);
}

/// A password that stands in the connector file itself is the operator's to correct.
#[test]
fn a_wrong_password_in_the_connector_file_is_an_error() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, _) = captured(&postgres);
    let hba = session.one("show hba_file").unwrap();
    session.batch("create role reader login superuser password 'one'").unwrap();
    session
        .batch(&format!("copy (values ('local all reader scram-sha-256'), ('local all all trust')) to '{hba}'"))
        .unwrap();
    session.batch("select pg_reload_conf()").unwrap();
    let dsn = postgres.dsn().replace("user=postgres", "user=reader");
    let connector = Connector::new(&format!("{dsn} password=wrong")).unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    assert_ne!(host.wait(PATIENCE).unwrap(), 0);
    assert!(host.log().contains("28P01") && host.log().contains("FAILED"), "{}", host.log_tail());
}

/// A lock on the buffer is no error, so that it would keep everything waiting in silence.
#[test]
fn a_locked_buffer_is_told_with_who_holds_it() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    session.batch("insert into t values (1, 1)").unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 1);
    assert_acknowledged(&session);
    session.batch("insert into t values (2, 1)").unwrap();
    let blocker = postgres.session().unwrap();
    blocker
        .batch("set application_name = 'nightly'; begin; lock table philotes.cdc_events in access exclusive mode")
        .unwrap();
    let pid = blocker.one("select pg_backend_pid()").unwrap();
    let process = format!("server process {pid} (postgres, 'nightly', idle in transaction");
    host.wait_for_log(&["the buffer cannot be read", &process], PATIENCE).unwrap();
    blocker.batch("rollback").unwrap();
    host.wait_for_log(&["the buffer can be read again"], PATIENCE).unwrap();
    wait_for_rows(&table, 2);
    host.terminate().unwrap();
}
