//! Keys that are DEFERRABLE: rows move to keys that others still hold. The table ends up as PostgreSQL's, in one commit
//! and in one per row, while the host is killed.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::Reader;
use philotes_tests::sql::Session;
use serde_json::json;

use crate::assert_acknowledged;

/// How often the host is killed in the run with a commit per row.
const KILLS: u32 = 6;

/// Each a transaction of its own.
const TRANSACTIONS: [&str; 8] = [
    "update pos set id = id + 1",
    "update pos set id = case id when 3 then 5 else 3 end where id in (3, 5)",
    "update pos set id = 41 - id where id between 2 and 39",
    // Over a row that stays, onto one that goes, and onto one that comes.
    "begin; update pos set id = 7 where id = 6; update pos set id = 100 where id = 7 and v = (select max(v) from pos where id = 7); commit",
    "begin; update pos set id = 9 where id = 8; delete from pos where id = 9 and v = (select min(v) from pos where id = 9); commit",
    "begin; update pos set id = 11 where id = 10; update pos set v = v + 1000; delete from pos where id > 15 and v % 7 = 0; \
     update pos set id = 10 where id = 11 and v = (select max(v) from pos where id = 11); commit",
    "update pos set id = id - 1 where id < 30",
    // One row, twice.
    "begin; update pos set id = 200 where id = 100; update pos set id = 201 where id = 200; commit",
];

fn source(session: &Session) -> serde_json::Value {
    let rows = session.rows("select id::text, v::text from pos order by pos.id").unwrap();
    json!(rows)
}

#[test]
fn in_one_commit() {
    moved(usize::MAX, 0);
}

#[test]
fn in_a_commit_per_row_and_under_kills() {
    moved(1, KILLS);
}

fn moved(batch_rows: usize, kills: u32) {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session
        .batch("create table pos (id bigint primary key deferrable initially deferred, v integer not null)")
        .unwrap();
    let mut connector = Connector::new(&postgres.dsn()).unwrap().sink("mode: upsert");
    if batch_rows == 1 {
        connector = connector.source("batch_rows: 1").top("commit: {interval: 1h, max_rows: 1}");
    }
    connector.capture(&["public.pos"]).unwrap();
    // Rows stand in the heap in no order, so that keys are held twice for long.
    session.batch("insert into pos select i, i from generate_series(1, 40) i order by i * 17 % 41").unwrap();
    for transaction in TRANSACTIONS {
        session.batch(transaction).unwrap();
    }
    for kill in 0..kills {
        let mut host = Host::start(&connector, &[]).unwrap();
        let before = session.one("select count(*) from philotes.cdc_events where processed_at is null").unwrap();
        let unprocessed: u32 = before.parse().unwrap();
        let some = format!(
            "select count(*) < {} from philotes.cdc_events where processed_at is null",
            unprocessed.saturating_sub(10 + kill)
        );
        let moved_on = philotes_tests::eventually(crate::PATIENCE, || Ok(session.one(&some)? == "t")).unwrap();
        assert!(moved_on && host.is_running().unwrap(), "kill {kill}: {}", host.log_tail());
        host.kill9();
    }
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);
    let table = connector.table("cdc.public_pos");
    for reader in [Reader::DuckDb, Reader::Spark] {
        let found = reader.query(&table, "select id, v from t order by id").unwrap().rows;
        assert_eq!(json!(found), source(&session), "{reader}");
    }
}
