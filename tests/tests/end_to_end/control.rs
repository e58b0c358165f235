//! What an operator does by hand: `init` and `capture` with psql, `status`, `release`, `offsets`.

use philotes_tests::connector::Connector;
use philotes_tests::host::{Host, philotes};
use philotes_tests::readers::Reader;
use philotes_tests::{postgres_or_skip, target};

use crate::{PATIENCE, assert_acknowledged, captured, pairs, wait_for_rows};

/// The files that the actions run are plain SQL, and may be run again.
#[test]
fn buffer_and_capture_by_psql() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session.batch("create table t (id bigint primary key, v integer not null)").unwrap();
    let sql = target::repository().join("plugins/postgres-buffer/sql");
    for _ in 0..2 {
        for file in ["init.sql", "capture.sql"] {
            postgres.psql(&["-f", sql.join(file).to_str().unwrap()]).unwrap();
        }
        postgres.psql(&["-c", "select philotes.capture('public.t', 'shop')"]).unwrap();
    }
    session.batch("insert into t values (1, 1)").unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap();
    Host::until_idle(&connector).unwrap();
    assert_eq!(pairs(&connector.table("cdc.public_t")), [(1, 1)]);
}

#[test]
fn status_says_what_waits() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("insert into t select i, 1 from generate_series(1, 4321) i").unwrap();
    let said = connector.action(&["source", "status"]).unwrap();
    assert!(said.contains("public.t") && said.contains("4321"), "{said}");
    Host::until_idle(&connector).unwrap();
    let said = connector.action(&["source", "status"]).unwrap();
    assert!(!said.contains("4321") && said.contains("shop"), "{said}");
    let list = connector.action(&[]).unwrap();
    for action in ["init", "capture", "release", "status", "offsets", "orphans"] {
        assert!(list.contains(action), "no {action} in: {list}");
    }
}

/// A source_id belongs to one connector until it is released.
#[test]
fn another_connector_waits_for_the_release() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("insert into t values (1, 1)").unwrap();
    Host::until_idle(&connector).unwrap();
    session.batch("create table u (id bigint primary key, v integer not null)").unwrap();
    connector.capture(&["public.u"]).unwrap();
    session.batch("insert into u values (5, 5)").unwrap();

    let other = Connector::new(&postgres.dsn()).unwrap().named("other").top("route: {include: [public.u]}");
    let mut host = Host::start(&other, &["--until-idle"]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    assert!(host.log().contains("release"), "{}", host.log_tail());

    connector.action(&["source", "release"]).unwrap();
    Host::until_idle(&other).unwrap();
    assert_eq!(pairs(&other.table("cdc.public_u")), [(5, 5)]);
}

/// `offsets` shows what the table holds at any time, and sets it while the connector is stopped.
#[test]
fn offsets_are_shown_and_set() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    session.batch("insert into t values (1, 1)").unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 1);
    assert_acknowledged(&session);

    let shown = connector.action(&["sink", "offsets"]).unwrap();
    assert!(shown.contains("public.t") && shown.contains("epoch"), "{shown}");
    let token = table.properties().unwrap().remove("philotes.offset.shop.public.t.0").unwrap();
    let token: serde_json::Value = serde_json::from_str(&token).unwrap();
    let offset = match &token["offset"] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let file = connector.file().unwrap();
    for change in ["reset=true", &format!("offset={offset}")] {
        let arguments = ["action", file.to_str().unwrap(), "sink", "offsets", "stream=public.t", change];
        let refused = philotes(&arguments).unwrap();
        assert_eq!(refused.code, 1, "{refused:?}");
        for word in ["wants the connector to be stopped", "in use by another task", "nothing was changed"] {
            assert!(refused.stdout.contains(word), "no {word:?} in {refused:?}");
        }
    }
    assert_eq!(connector.action(&["sink", "offsets"]).unwrap(), shown);
    assert_eq!(Reader::PyIceberg.snapshots(&table).unwrap().len(), 1);
    assert!(host.is_running().unwrap() && !host.log().contains("fenced"), "{}", host.log_tail());
    host.terminate().unwrap();

    connector.action(&["sink", "offsets", "stream=public.t", &format!("offset={offset}")]).unwrap();
    let snapshots = Reader::PyIceberg.snapshots(&table).unwrap();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    wait_for_rows(&table, 1);
    session.batch("insert into t values (2, 1)").unwrap();
    Host::until_idle(&connector).unwrap();
    assert_eq!(pairs(&table), [(1, 1), (2, 1)]);
    assert_acknowledged(&session);
}
