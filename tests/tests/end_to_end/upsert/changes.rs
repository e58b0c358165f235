//! Changes of every kind, and what becomes of the table and its files with them, as readers see it that know equality deletes.
//! PyIceberg (0.12) does not.

use philotes_tests::connector::Connector;
use philotes_tests::host::{Host, philotes};
use philotes_tests::readers::{Dangling, Reader, Snapshot, Table};
use philotes_tests::sql::Session;
use philotes_tests::{bed_or_skip, postgres_or_skip};
use serde_json::json;

use crate::{PATIENCE, assert_acknowledged, captured_by, pairs_by};

const READERS: [Reader; 2] = [Reader::DuckDb, Reader::Spark];

/// Lets everything arrive.
fn arrive(session: &Session, connector: &Connector) {
    Host::until_idle(connector).unwrap();
    assert_acknowledged(session);
}

/// Lets everything of `t` arrive, and compares the table with its source.
fn equal(session: &Session, connector: &Connector, table: &Table) {
    arrive(session, connector);
    for reader in READERS {
        assert_eq!(pairs_by(reader, table), source(session), "{reader}");
    }
}

/// The pairs (id, v) of `t` itself.
fn source(session: &Session) -> Vec<(i64, i64)> {
    let rows = session.rows("select id, v from t order by 1, 2").unwrap();
    let number = |cell: &Option<String>| cell.as_ref().unwrap().parse().unwrap();
    rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

fn snapshots(table: &Table) -> Vec<Snapshot> {
    Reader::Spark.snapshots(table).unwrap()
}

/// What the last snapshot was, and how many rows its equality deletes have.
fn last(table: &Table) -> (String, u64) {
    let last = snapshots(table).pop().unwrap();
    let deletes = last.summary.get("added-equality-deletes").map_or("0", |deletes| deletes.as_str().unwrap());
    (last.operation, deletes.parse().unwrap())
}

fn was(operation: &str, deletes: u64) -> (String, u64) {
    (operation.to_owned(), deletes)
}

fn every_kind_of_change(session: &Session, connector: &Connector) {
    let table = connector.table("cdc.public_t");
    // Keys are inserted, and there is nothing to remove.
    session
        .batch(
            "insert into t select i, i, 'a' from generate_series(1, 100) i; update t set v = v + 1 where id <= 50; \
             delete from t where id > 90; insert into t values (95, 7, 'again')",
        )
        .unwrap();
    equal(session, connector, &table);
    assert_eq!(last(&table), was("append", 0));

    session
        .batch(
            "update t set v = 1000 + v, who = 'b' where id between 40 and 60; delete from t where id = 1; \
             update t set id = 200 where id = 2; insert into t values (300, 3, null); insert into t values (1, 11, 'back')",
        )
        .unwrap();
    equal(session, connector, &table);
    // 21 that were updated, 1 that came back, 1 whose key was changed.
    assert_eq!(last(&table), was("overwrite", 23));

    session.batch("delete from t where id < 10").unwrap();
    equal(session, connector, &table);
    assert_eq!(last(&table), was("delete", 8));

    session
        .batch("insert into t values (400, 1, null); truncate t; insert into t values (1, 1, null), (400, 2, null)")
        .unwrap();
    equal(session, connector, &table);
    assert_eq!(last(&table), was("overwrite", 0));
    session.batch("update t set v = 5; truncate t").unwrap();
    equal(session, connector, &table);
    session.batch("insert into t values (1, 1, null)").unwrap();
    equal(session, connector, &table);
    assert_eq!(last(&table), was("append", 0));
}

#[test]
fn changes_of_every_kind() {
    let Some(postgres) = postgres_or_skip() else { return };
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("mode: upsert");
    let (session, connector) = captured_by(&postgres, connector);
    every_kind_of_change(&session, &connector);
}

/// The same where rows move between partitions, in a REST catalog and format version 3.
#[test]
fn changes_of_every_kind_in_partitions() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio)
        .unwrap()
        .sink("mode: upsert")
        .sink("format_version: 3")
        .sink("partition_by: [who, \"bucket(4, v)\"]");
    let (session, connector) = captured_by(&bed.postgres, connector);
    every_kind_of_change(&session, &connector);
}

/// No reader compares deletes of a narrower key with a wider one: the connector waits for a compaction.
#[test]
fn a_key_that_becomes_wider() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session.batch("create table t (id integer primary key, v integer not null)").unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("mode: upsert");
    connector.capture(&["public.t"]).unwrap();
    let table = connector.table("cdc.public_t");
    session.batch("insert into t select i, i from generate_series(1, 9) i").unwrap();
    equal(&session, &connector, &table);
    session.batch("update t set v = 10 where id in (1, 5)").unwrap();
    equal(&session, &connector, &table);
    assert_eq!(last(&table), was("overwrite", 2));
    session
        .batch(
            "update t set v = 20 where id in (2, 5); alter table t alter id type bigint; \
             update t set v = 30 where id in (3, 5); insert into t values (5000000000, 1); delete from t where id = 9",
        )
        .unwrap();
    let mut host = Host::start(&connector, &["--until-idle"]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1);
    assert!(host.log().contains("column \\\"id\\\" of its key becomes wider"), "{}", host.log_tail());
    table.rewrite_as_somebody_else(Dangling::Remove).unwrap();
    // Spark leaves the deletes of the last commit, which apply to nothing any more; the next commit removes them.
    assert_eq!(Reader::Spark.delete_files(&table).unwrap().len(), 1);
    equal(&session, &connector, &table);
    session.batch("update t set v = 40 where id in (1, 4, 5000000000)").unwrap();
    equal(&session, &connector, &table);
    assert_eq!(last(&table), was("overwrite", 3));
    // Those of the two commits after that.
    assert_eq!(Reader::Spark.delete_files(&table).unwrap().len(), 2);
}

/// However keys are ordered and however often the host is started: what was never there is not deleted.
#[test]
fn a_table_that_is_filled_has_no_deletes() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session.batch("create table u (id uuid primary key, v integer not null)").unwrap();
    let connector = Connector::new(&postgres.dsn())
        .unwrap()
        .sink("mode: upsert")
        .source("batch_rows: 500")
        .top("commit: {interval: 1h, max_rows: 1000}");
    connector.capture(&["public.u"]).unwrap();
    let table = connector.table("cdc.public_u");
    for run in 0..3 {
        let insert = format!("insert into u select gen_random_uuid(), {run} from generate_series(1, 3000)");
        session.batch(&insert).unwrap();
        arrive(&session, &connector);
    }
    let made = snapshots(&table);
    assert!(made.len() >= 9, "{}", made.len());
    assert!(made.iter().all(|snapshot| snapshot.operation == "append"), "{made:?}");
    let rows = session.one("select count(*) || ' ' || sum(v) from u").unwrap();
    // With one update there is one delete.
    session.batch("update u set v = v where id = (select min(id::text)::uuid from u)").unwrap();
    arrive(&session, &connector);
    assert_eq!(last(&table), was("overwrite", 1));
    for reader in READERS {
        let found = reader.query(&table, "select concat(count(*), ' ', sum(v)) from t").unwrap();
        assert_eq!(json!(found.rows), json!([[rows]]), "{reader}");
    }
}

/// What is not sent is carried forward, and deleted rows stay.
#[test]
fn unsent_values_and_soft_deletes() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("mode: upsert").sink("deletes: soft");
    connector.action(&["source", "init"]).unwrap();
    let columns = json!([
        {"name": "id", "type": "bigint", "nullable": false},
        {"name": "v", "type": "integer", "nullable": true},
        {"name": "big", "type": "text", "nullable": true},
    ]);
    let event = |operation: &str, before: &str, after: &str| {
        let json = |object: &str| if object.is_empty() { "null".to_owned() } else { format!("'{object}'") };
        session
            .batch(&format!(
                "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, key_columns, \
                 before_data, after_data, metadata, event_time) values ('shop', 'public', 't', '{operation}', '0/1', \
                 '[\"id\"]', {}, {}, '{{\"columns\": {columns}}}', now())",
                json(before),
                json(after)
            ))
            .unwrap();
    };
    for id in 1..=4 {
        event("INSERT", "", &format!(r#"{{"id": {id}, "v": 0, "big": "big {id}"}}"#));
    }
    arrive(&session, &connector);
    event("UPDATE", "", r#"{"id": 1, "v": 1}"#);
    event("UPDATE", r#"{"id": 2}"#, r#"{"id": 22, "v": 2}"#);
    event("UPDATE", "", r#"{"id": 22, "v": 3}"#);
    event("DELETE", r#"{"id": 3, "v": 0, "big": "big 3"}"#, "");
    arrive(&session, &connector);
    event("UPDATE", "", r#"{"id": 1, "v": 4}"#);
    event("INSERT", "", r#"{"id": 3, "v": 5, "big": "again"}"#);
    arrive(&session, &connector);
    for reader in READERS {
        let table = connector.table("cdc.public_t");
        let sql = "select id, v, big, _cdc_deleted from t where id <> 2 order by id";
        let expected = json!([
            ["1", "4", "big 1", "false"],
            ["3", "5", "again", "false"],
            ["4", "0", "big 4", "false"],
            ["22", "3", "big 2", "false"],
        ]);
        assert_eq!(json!(reader.query(&table, sql).unwrap().rows), expected, "{reader}");
        let sql = "select id, big, _cdc_deleted, _cdc_operation from t where _cdc_deleted";
        let expected = json!([["2", "big 2", "true", "DELETE"]]);
        assert_eq!(json!(reader.query(&table, sql).unwrap().rows), expected, "{reader}");
    }
}

/// Snapshots expire and manifests are merged as in append tables, and nothing is left behind: not what a TRUNCATE has removed either.
#[test]
fn snapshots_expire_with_their_deletes() {
    let Some(postgres) = postgres_or_skip() else { return };
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("mode: upsert").sink("snapshots: {keep: 2}");
    let (session, connector) = captured_by(&postgres, connector);
    let table = connector.table("cdc.public_t");
    session.batch("insert into t select i, i, 'a' from generate_series(1, 20) i").unwrap();
    arrive(&session, &connector);
    table.set_property_as_somebody_else("commit.manifest.min-count-to-merge", "3").unwrap();
    for run in 0..5 {
        session.batch(&format!("update t set v = {run} where id % 5 = {run}; delete from t where id = {run}")).unwrap();
        arrive(&session, &connector);
    }
    equal(&session, &connector, &table);
    let unreached = || {
        // Spark leaves hidden checksums behind.
        let found = table.unreached().unwrap();
        found.into_iter().filter(|name| !name.starts_with('.')).collect::<Vec<_>>()
    };
    assert_eq!(unreached(), Vec::<String>::new());
    assert_eq!(snapshots(&table).len(), 2);
    for run in 0..4 {
        session.batch(&format!("truncate t; insert into t values ({run}, {run}, null)")).unwrap();
        arrive(&session, &connector);
    }
    equal(&session, &connector, &table);
    assert_eq!(unreached(), Vec::<String>::new());
    // That of the last commit, and those of the one before, which are still to be read there.
    let files =
        std::fs::read_dir(table.location().unwrap().trim_start_matches("file://").to_owned() + "/data").unwrap();
    assert_eq!(files.count(), 2);
}

/// A plan says what the table would be, and what the connector would refuse.
#[test]
fn plans_and_refusals() {
    let Some(postgres) = postgres_or_skip() else { return };
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("mode: upsert");
    let (session, connector) = captured_by(&postgres, connector);
    session.batch("create table nokey (a integer, b integer)").unwrap();
    connector.capture(&["public.nokey"]).unwrap();
    session.batch("insert into t values (1, 1, 'a')").unwrap();
    let plan = |connector: &Connector| {
        let file = connector.file().unwrap();
        let planned = philotes(&["plan", file.to_str().unwrap()]).unwrap();
        (planned.code, planned.stdout + &planned.stderr)
    };
    let (code, text) = plan(&connector);
    assert!(code == 0 && text.contains("mode upsert: one row per id"), "{code} {text}");
    session.batch("insert into nokey values (1, 1)").unwrap();
    let (_, text) = plan(&connector);
    assert!(text.contains("stream public.nokey has no key"), "{text}");
    let mut host = Host::start(&connector, &["--until-idle"]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1);
    assert!(host.log().contains("stream public.nokey has no key"), "{}", host.log_tail());

    // With a key it goes on, and a change of it is one of the row's.
    let keyed = connector.source("key: {public.nokey: [a]}");
    arrive(&session, &keyed);
    session.batch("update nokey set a = 2, b = 3").unwrap();
    arrive(&session, &keyed);
    for reader in READERS {
        let rows = reader.query(&keyed.table("cdc.public_nokey"), "select a, b from t").unwrap().rows;
        assert_eq!(json!(rows), json!([["2", "3"]]), "{reader}");
    }
    // An append table stays one.
    let appending = keyed.sink_without("mode");
    session.batch("insert into t values (2, 1, 'a')").unwrap();
    let (_, text) = plan(&appending);
    assert!(text.contains("was made by mode upsert"), "{text}");
    let mut host = Host::start(&appending, &["--until-idle"]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1);
    assert!(host.log().contains("was made by mode upsert"), "{}", host.log_tail());
}
