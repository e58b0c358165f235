//! Ids of the buffer are handed out before commit, so a lower one can appear later. It must neither be skipped nor overtake.

use std::collections::BTreeMap;
use std::time::Duration;

use philotes_tests::host::Host;
use philotes_tests::readers::{Reader, Table};
use philotes_tests::{eventually, postgres_or_skip};
use rand::Rng;

use crate::{PATIENCE, assert_acknowledged, captured, pairs, wait_for_rows};

/// What happens between the commits of B and A.
#[derive(Clone, Copy, PartialEq)]
enum Meanwhile {
    /// B's rows are acknowledged.
    Acknowledged,
    /// The same, and the host is started anew.
    Restarted,
    /// B's rows are in the table, and their acknowledgement is held up.
    Unacknowledged,
}

#[test]
fn late_commit_with_mark() {
    late_commit("mark", Meanwhile::Acknowledged);
}

#[test]
fn late_commit_with_delete() {
    late_commit("delete", Meanwhile::Acknowledged);
}

#[test]
fn late_commit_after_a_restart_with_mark() {
    late_commit("mark", Meanwhile::Restarted);
}

#[test]
fn late_commit_after_a_restart_with_delete() {
    late_commit("delete", Meanwhile::Restarted);
}

#[test]
fn late_commit_before_the_acknowledgement_with_mark() {
    late_commit("mark", Meanwhile::Unacknowledged);
}

#[test]
fn late_commit_before_the_acknowledgement_with_delete() {
    late_commit("delete", Meanwhile::Unacknowledged);
}

/// A takes ids first and commits last, B comes in between, C takes ids in between and rolls back.
fn late_commit(acknowledge: &str, meanwhile: Meanwhile) {
    let Some(postgres) = postgres_or_skip() else { return };
    let (b, connector) = captured(&postgres);
    let connector = connector.source(&format!("acknowledge: {acknowledge}")).sink("partition_by: []");
    let table = connector.table("cdc.public_t");
    let (a, c) = (postgres.session().unwrap(), postgres.session().unwrap());
    a.batch("begin").unwrap();
    a.batch("insert into t values (1, 1, 'late')").unwrap();
    c.batch("begin").unwrap();
    c.batch("insert into t values (9, 1, 'never')").unwrap();
    b.batch("insert into t values (2, 1, 'between')").unwrap();
    b.batch("update t set v = 2 where id = 2").unwrap();
    let blocker = postgres.session().unwrap();
    if meanwhile == Meanwhile::Unacknowledged {
        blocker.batch("begin").unwrap();
        blocker.batch("select id from philotes.cdc_events for update").unwrap();
    }

    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 2);
    if meanwhile != Meanwhile::Unacknowledged {
        assert_acknowledged(&b);
    }
    if meanwhile == Meanwhile::Restarted {
        host.terminate().unwrap();
        host = Host::start(&connector, &[]).unwrap();
    }
    c.batch("rollback").unwrap();
    a.batch("insert into t values (3, 1, 'late')").unwrap();
    a.batch("commit").unwrap();
    b.batch("update t set v = 2 where id = 1").unwrap();
    wait_for_rows(&table, 5);
    if meanwhile == Meanwhile::Unacknowledged {
        blocker.batch("rollback").unwrap();
    }
    assert_acknowledged(&b);
    host.terminate().unwrap();

    assert_eq!(pairs(&table), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]);
    assert_order_per_key(&table);
    assert_acknowledged(&b);
}

/// Many writers with open transactions of all lengths and rollbacks; each key counts its own changes.
#[test]
fn many_writers() {
    for acknowledge in ["mark", "delete"] {
        let Some(postgres) = postgres_or_skip() else { return };
        let (session, connector) = captured(&postgres);
        let connector = connector.source(&format!("acknowledge: {acknowledge}")).sink("partition_by: []");
        session.batch("insert into t select i, 1 from generate_series(1, 40) i").unwrap();
        let host = Host::start(&connector, &[]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| write_at_random(&postgres.dsn()));
            }
        });
        // A restart in the middle of what is left.
        host.terminate().unwrap();
        Host::until_idle(&connector).unwrap();

        let versions = session.rows("select id, v from t order by 1").unwrap();
        let number = |cell: &Option<String>| cell.as_ref().unwrap().parse::<i64>().unwrap();
        let expected: Vec<(i64, i64)> =
            versions.iter().flat_map(|row| (1..=number(&row[1])).map(|v| (number(&row[0]), v))).collect();
        assert!(expected.len() > 300, "the writers wrote little: {}", expected.len());
        let table = connector.table("cdc.public_t");
        assert_eq!(pairs(&table), expected, "{acknowledge}: each change exactly once");
        assert_order_per_key(&table);
        assert_acknowledged(&session);
    }
}

fn write_at_random(dsn: &str) {
    let session = philotes_tests::sql::Session::connect(dsn).unwrap();
    let mut random = rand::rng();
    for _ in 0..30 {
        session.batch("begin").unwrap();
        // Ascending keys, so that no two transactions wait for each other.
        let first = random.random_range(1..=30);
        for id in (first..=40).step_by(7) {
            session.batch(&format!("update t set v = v + 1 where id = {id}")).unwrap();
            std::thread::sleep(Duration::from_millis(random.random_range(0..15)));
        }
        session.batch(if random.random_bool(0.2) { "rollback" } else { "commit" }).unwrap();
    }
}

/// In the order in which the files were committed, and within a file, each key's versions ascend; so do their positions.
fn assert_order_per_key(table: &Table) {
    let log = table.rows_in_order().unwrap();
    let column = |name: &str| log.index(name).unwrap();
    let (id, v, lsn) = (column("id"), column("v"), column("_cdc_lsn"));
    let mut last: BTreeMap<String, (i64, u64)> = BTreeMap::new();
    for row in &log.rows {
        let key = row[id].as_str().unwrap().to_owned();
        let now = (row[v].as_str().unwrap().parse().unwrap(), philotes_tests::replay::position(&row[lsn]).unwrap());
        if let Some(before) = last.insert(key.clone(), now) {
            assert!(before.0 < now.0 && before.1 < now.1, "key {key}: {now:?} comes after {before:?}");
        }
    }
    assert!(!last.is_empty());
}

/// A batch is handed on only once `philotes.batches` says which rows it holds: while nobody can write there, nothing arrives.
#[test]
fn no_batch_before_its_list_is_committed() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    session.batch("insert into t values (1, 1)").unwrap();
    let host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 1);
    assert_acknowledged(&session);

    let blocker = postgres.session().unwrap();
    blocker.batch("begin").unwrap();
    blocker.batch("lock table philotes.batches in share mode").unwrap();
    session.batch("insert into t values (2, 1)").unwrap();
    let waiting = "select count(*) from pg_locks where relation = 'philotes.batches'::regclass and not granted";
    assert!(eventually(PATIENCE, || Ok(session.number(waiting)? > 0)).unwrap(), "the host does not write its list");
    // Several commit intervals.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(Reader::DuckDb.number(&table, "select count(*) from t").unwrap(), 1);
    blocker.batch("commit").unwrap();
    wait_for_rows(&table, 2);
    host.terminate().unwrap();
}
