//! Mode upsert: the table holds what its source holds.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{Reader, Snapshot, Table};
use philotes_tests::services::postgres::Postgres;
use philotes_tests::sql::Session;

use super::{assert_acknowledged, captured_by, pairs_by};

/// Those that read equality deletes.
const READERS: [Reader; 2] = [Reader::DuckDb, Reader::Spark];

fn upserting(postgres: &Postgres) -> (Session, Connector, Table) {
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("mode: upsert");
    let (session, connector) = captured_by(postgres, connector);
    let table = connector.table("cdc.public_t");
    (session, connector, table)
}

/// Lets everything arrive, and compares the table with its source.
fn arrive(session: &Session, connector: &Connector, table: &Table) {
    Host::until_idle(connector).unwrap();
    assert_acknowledged(session);
    let rows = session.rows("select id, v from t order by 1, 2").unwrap();
    let number = |cell: &Option<String>| cell.as_ref().unwrap().parse().unwrap();
    let expected: Vec<(i64, i64)> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
    for reader in READERS {
        assert_eq!(pairs_by(reader, table), expected, "{reader}");
    }
}

fn last_snapshot(table: &Table) -> Snapshot {
    Reader::Spark.snapshots(table).unwrap().pop().unwrap()
}

fn added_deletes(table: &Table) -> Option<String> {
    last_snapshot(table).summary.get("added-equality-deletes").map(|deletes| deletes.as_str().unwrap().to_owned())
}

#[test]
fn every_kind_of_change() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector, table) = upserting(&postgres);
    // Keys are inserted, and the first commit has nothing to remove.
    session
        .batch(
            "insert into t select i, i, 'a' from generate_series(1, 100) i; update t set v = v + 1 where id <= 50; \
         delete from t where id > 90; insert into t values (95, 7, 'again')",
        )
        .unwrap();
    arrive(&session, &connector, &table);
    assert_eq!((last_snapshot(&table).operation.as_str(), added_deletes(&table)), ("append", None));

    session
        .batch(
            "update t set v = 1000 + v where id between 40 and 60; delete from t where id = 1; \
         update t set id = 200 where id = 2; insert into t values (300, 3, null); insert into t values (1, 11, 'back')",
        )
        .unwrap();
    arrive(&session, &connector, &table);
    // 21 that were updated, 1 that came back, 2 that went.
    assert_eq!((last_snapshot(&table).operation.as_str(), added_deletes(&table).as_deref()), ("overwrite", Some("23")));

    session.batch("delete from t where id < 10").unwrap();
    arrive(&session, &connector, &table);
    assert_eq!((last_snapshot(&table).operation.as_str(), added_deletes(&table).as_deref()), ("delete", Some("8")));

    session
        .batch("insert into t values (400, 1, null); truncate t; insert into t values (1, 1, null), (400, 2, null)")
        .unwrap();
    arrive(&session, &connector, &table);
    assert_eq!((last_snapshot(&table).operation.as_str(), added_deletes(&table)), ("overwrite", None));
    session.batch("update t set v = 5; truncate t").unwrap();
    arrive(&session, &connector, &table);
    session.batch("insert into t values (1, 1, null)").unwrap();
    arrive(&session, &connector, &table);
    assert_eq!((last_snapshot(&table).operation.as_str(), added_deletes(&table)), ("append", None));
}
