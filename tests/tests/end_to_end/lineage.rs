//! A buffer that was dropped and created again, whose ids begin at 1 once more: refused until the operator says where to go on.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::Reader;
use philotes_tests::sql::Session;

use crate::{PATIENCE, assert_acknowledged, captured, pairs};

#[test]
fn a_recreated_schema_is_refused() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    fill(&session, &connector, 1);
    session.batch("drop schema philotes cascade").unwrap();
    connector.capture(&["public.t"]).unwrap();
    assert_refused_until_reset(&session, &connector);
}

/// Only the buffer's table; what is kept beside it is still there.
#[test]
fn a_recreated_table_is_refused() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    fill(&session, &connector, 1);
    session.batch("drop table philotes.cdc_events cascade").unwrap();
    connector.capture(&["public.t"]).unwrap();
    assert_refused_until_reset(&session, &connector);
}

#[test]
fn another_server_is_refused() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    fill(&session, &connector, 1);
    let Some(other) = postgres_or_skip() else { return };
    let connector = connector.reads_from(&other.dsn());
    let session = other.session().unwrap();
    session.batch("create table t (id bigint primary key, v integer not null, who text)").unwrap();
    connector.capture(&["public.t"]).unwrap();
    assert_refused_until_reset(&session, &connector);
}

/// Ten rows of this version, whose places in the buffer are 1 to 10.
fn insert(session: &Session, version: i64) {
    session
        .batch(&format!("insert into t select {version} * 100 + i, {version} from generate_series(1, 10) i"))
        .unwrap();
    assert_eq!(session.number("select min(id) from philotes.cdc_events").unwrap(), 1);
}

fn fill(session: &Session, connector: &Connector, version: i64) {
    insert(session, version);
    Host::until_idle(connector).unwrap();
    assert_acknowledged(session);
}

fn assert_refused_until_reset(session: &Session, connector: &Connector) {
    let table = connector.table("cdc.public_t");
    let (before, held) = (Reader::PyIceberg.snapshots(&table).unwrap().len(), pairs(&table));
    assert_eq!(held.len(), 10);
    insert(session, 2);
    for _ in 0..2 {
        let mut host = Host::start(connector, &[]).unwrap();
        assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
        let log = host.log();
        let said = log.lines().find(|line| line.contains("FAILED")).unwrap();
        for word in ["of another buffer", "recreated", "action `offsets`"] {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    }
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is null").unwrap(), 10);
    assert_eq!(Reader::PyIceberg.snapshots(&table).unwrap().len(), before);
    assert_eq!(pairs(&table), held);

    let shown = connector.action(&["sink", "offsets"]).unwrap();
    assert!(shown.contains("lineage"), "{shown}");
    connector.action(&["sink", "offsets", "stream=public.t", "reset=true"]).unwrap();
    Host::until_idle(connector).unwrap();
    let added = (1..=10).map(|id| (200 + id, 2));
    assert_eq!(pairs(&table), held.into_iter().chain(added).collect::<Vec<_>>());
    assert_acknowledged(session);
}
