//! A table that lost its rows behind the host's back: FAILED with the reason and the way out, nothing acknowledged.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{Reader, Table};
use philotes_tests::sql::Session;

use crate::{PATIENCE, captured, pairs, wait_for_rows};

/// What somebody else does to the table.
type Harm = fn(&Table);

fn drop_table(table: &Table) {
    table.drop_as_somebody_else().unwrap();
}

fn roll_back(table: &Table) {
    let snapshots = Reader::PyIceberg.snapshots(table).unwrap();
    table.roll_back_as_somebody_else(&snapshots[0].id).unwrap();
}

#[test]
fn dropped_while_running() {
    while_running(drop_table);
}

#[test]
fn rolled_back_while_running() {
    while_running(roll_back);
}

/// The way out that the refusal names: the source forgets the stream, and what it still has goes into a new table.
#[test]
fn dropped_while_stopped() {
    while_stopped(drop_table, |session, connector| {
        session.batch("delete from philotes.acknowledged where source_id = 'shop' and stream = 'public.t'").unwrap();
        Host::until_idle(connector).unwrap();
        assert_eq!(pairs(&connector.table("cdc.public_t")), [(3, 1)]);
    });
}

/// The same, and the sink forgets its offset.
#[test]
fn rolled_back_while_stopped() {
    while_stopped(roll_back, |session, connector| {
        connector.action(&["sink", "offsets", "stream=public.t", "reset=true"]).unwrap();
        session.batch("delete from philotes.acknowledged where source_id = 'shop' and stream = 'public.t'").unwrap();
        Host::until_idle(connector).unwrap();
        assert_eq!(pairs(&connector.table("cdc.public_t")), [(1, 1), (3, 1)]);
    });
}

fn while_running(harm: Harm) {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let mut host = Host::start(&connector, &[]).unwrap();
    let table = two_commits(&session, &connector);
    harm(&table);
    session.batch("insert into t values (3, 1)").unwrap();
    assert_failed(&mut host, &session);
}

fn while_stopped(harm: Harm, way_out: fn(&Session, &Connector)) {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let host = Host::start(&connector, &[]).unwrap();
    let table = two_commits(&session, &connector);
    host.terminate().unwrap();
    harm(&table);
    session.batch("insert into t values (3, 1)").unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    assert_failed(&mut host, &session);
    way_out(&session, &connector);
    crate::assert_acknowledged(&session);
}

/// Rows 1 and 2, each in a commit of its own.
fn two_commits(session: &Session, connector: &Connector) -> Table {
    let table = connector.table("cdc.public_t");
    for row in 1..=2 {
        session.batch(&format!("insert into t values ({row}, 1)")).unwrap();
        wait_for_rows(&table, row);
    }
    crate::assert_acknowledged(session);
    table
}

/// The only connector failed, so the host ends with 1; the log says why and what to do, and row 3 waits in the buffer.
fn assert_failed(host: &mut Host, session: &Session) {
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    let log = host.log();
    let failed: Vec<&str> = log.lines().filter(|line| line.contains("FAILED")).collect();
    assert!(!failed.is_empty(), "{log}");
    let said = failed.join("\n");
    assert!(said.contains("public_t") || said.contains("public.t"), "which table? {said}");
    assert!(said.contains("action") || said.contains("restart"), "what to do? {said}");
    let waiting = "select count(*) from philotes.cdc_events where processed_at is null";
    assert_eq!(session.number(waiting).unwrap(), 1, "row 3 was acknowledged");
}
