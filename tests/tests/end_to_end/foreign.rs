//! Others write into the same tables: PyIceberg, and Spark with Java's own JdbcCatalog.

use std::collections::BTreeMap;

use philotes_tests::chaos::compiled_in;
use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::readers::{READERS_WITH_SPARK, Reader, Rest, Table};
use philotes_tests::services::minio::Minio;
use philotes_tests::services::nessie::Nessie;
use philotes_tests::{or_skip, postgres_or_skip, skip};
use serde_json::json;

use crate::{PATIENCE, assert_acknowledged, captured, captured_by, pairs, pairs_by, pairs_of_log, wait_for_rows};

/// A row that is none of ours.
pub(crate) fn append(table: &Table, writer: Reader, id: i64) {
    let row = json!({
        "id": id, "v": 0, "who": writer.to_string(),
        "_cdc_operation": "INSERT", "_cdc_timestamp": 1_700_000_000_123_456_i64, "_cdc_lsn": "0/0",
    });
    table.append_as_somebody_else(writer, &[row]).unwrap();
}

/// A host that runs goes on after every foreign commit: its own changes are there once each, and the foreign rows too.
#[test]
fn others_append_to_the_table_between_our_commits() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    let change = |from: i64, to: i64| {
        session
            .batch(&format!(
                "insert into t select i, 1, 'ours' from generate_series({from}, {to}) i; \
                 update t set v = 2 where id = {from}; delete from t where id = {to}"
            ))
            .unwrap();
    };
    change(1, 10);
    let host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 12);
    append(&table, Reader::PyIceberg, 1001);
    change(11, 20);
    wait_for_rows(&table, 25);
    append(&table, Reader::Spark, 1002);
    change(21, 30);
    wait_for_rows(&table, 38);
    host.terminate().unwrap();
    // And with nothing remembered.
    change(31, 40);
    Host::until_idle(&connector).unwrap();

    let mut expected = pairs_of_log(&session);
    assert_eq!(expected.len(), 48);
    expected.extend([(1001, 0), (1002, 0)]);
    for reader in READERS_WITH_SPARK {
        assert_eq!(pairs_by(reader, &table), expected, "as {reader} sees it");
        let foreign =
            reader.query(&table, "select id, who, _cdc_timestamp from t where id > 1000 order by id").unwrap();
        let time = "1700000000123456";
        assert_eq!(
            foreign.rows,
            [["1001", "PyIceberg", time], ["1002", "Spark", time]].map(|row| row.map(|c| json!(c)))
        );
    }
    assert_acknowledged(&session);

    let parents = |reader: Reader| -> BTreeMap<String, Option<String>> {
        reader.snapshots(&table).unwrap().into_iter().map(|snapshot| (snapshot.id, snapshot.parent)).collect()
    };
    let found = parents(Reader::Spark);
    assert_eq!(found, parents(Reader::PyIceberg));
    assert_eq!(found.values().filter(|parent| parent.is_none()).count(), 1, "{found:?}");
}

/// The embedded catalog's answer is lost: of a commit that succeeded, then of one that failed, since somebody else had moved
/// the table. `rest.rs` has the same for a REST catalog.
#[test]
fn answers_of_the_embedded_catalog_are_lost() {
    if let Err(error) = compiled_in() {
        return skip(&error);
    }
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    let insert = |id: i64| session.batch(&format!("insert into t values ({id}, 1, 'ours')")).unwrap();
    let environment = [("FAILPOINTS", "commit.answered=1*off->2*return".to_owned())];
    let log = connector.dir().join("host.log");
    let host = Host::start_in(&environment, &connector.file().unwrap(), &log, &[]).unwrap();
    let lost = || host.log().matches("failpoint commit.answered: an error").count();
    insert(1);
    wait_for_rows(&table, 1);
    assert_eq!(lost(), 0);
    insert(2);
    wait_for_rows(&table, 2);
    assert_acknowledged(&session);
    assert_eq!(lost(), 1);
    append(&table, Reader::PyIceberg, 1001);
    insert(3);
    wait_for_rows(&table, 4);
    assert_acknowledged(&session);
    assert_eq!(lost(), 2);
    insert(4);
    wait_for_rows(&table, 5);
    host.terminate().unwrap();
    assert_eq!(pairs(&table), [(1, 1), (2, 1), (3, 1), (4, 1), (1001, 0)]);
    assert_acknowledged(&session);
}

/// Nessie shows the current snapshot alone, without a parent, so that an append by others looks as a replaced table does.
/// Whoever knows better can say where to go on.
#[test]
fn others_append_where_the_catalog_shows_no_history() {
    let Some(postgres) = postgres_or_skip() else { return };
    let servers = or_skip(|| {
        let minio = Minio::start()?;
        Ok((Nessie::start(&minio)?, minio))
    });
    let Some((nessie, minio)) = servers else { return };
    let rest = Rest::at(&nessie.uri(), "lake", &minio);
    let (session, connector) = captured_by(&postgres, Connector::rest_at(&postgres.dsn(), rest).unwrap());
    let table = connector.table("cdc.public_t");
    let insert = |from: i64, to: i64| {
        session.batch(&format!("insert into t select i, 1, 'ours' from generate_series({from}, {to}) i")).unwrap();
    };
    insert(1, 10);
    let mut host = Host::start(&connector, &[]).unwrap();
    wait_for_rows(&table, 10);
    assert_acknowledged(&session);
    append(&table, Reader::PyIceberg, 1001);
    insert(11, 20);
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    assert!(host.log().contains("it was rolled back or replaced"), "{}", host.log_tail());
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is null").unwrap(), 10);
    wait_for_rows(&table, 11);

    let refused = connector.action(&["sink", "orphans", "older_than=0s", "remove=true"]).unwrap_err().to_string();
    assert!(refused.contains("hides others that may be in use"), "{refused}");
    let shown = connector.action(&["sink", "offsets"]).unwrap();
    let line = shown.lines().find(|line| line.contains("public.t ")).unwrap();
    let from = line.find('{').unwrap();
    let offset = &line[from..=line.rfind('}').unwrap()];
    connector.action(&["sink", "offsets", "stream=public.t", &format!("offset={offset}")]).unwrap();
    Host::until_idle(&connector).unwrap();
    let mut expected = pairs_of_log(&session);
    assert_eq!(expected.len(), 20);
    expected.push((1001, 0));
    assert_eq!(pairs(&table), expected);
    assert_acknowledged(&session);
}

/// What Spark cannot do is an error here, not a value that looks like one.
#[test]
fn spark_refuses_what_spark_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let table = |name: &str, kind: &str| {
        let table = Table::new(&dir.path().join("catalog.db"), name);
        let fields = [json!(["id", "long", true]), json!(["v", kind, false])];
        table.create_as_somebody_else(Some(&dir.path().join("warehouse")), &fields).unwrap();
        table
    };
    let times = table("cdc.times", "time");
    let error = Reader::Spark.rows(&times).unwrap_err().to_string();
    assert!(error.contains("time"), "{error}");

    let texts = table("cdc.texts", "string");
    texts.append_as_somebody_else(Reader::Spark, &[json!({"id": 1, "v": "a"})]).unwrap();
    assert!(texts.append_as_somebody_else(Reader::Spark, &[json!({"v": "b"})]).is_err(), "id is required");
    for reader in READERS_WITH_SPARK {
        assert_eq!(reader.rows(&texts).unwrap().rows, [[json!("1"), json!("a")]], "{reader}");
        let names: Vec<String> = reader.schema(&texts).unwrap().into_iter().map(|column| column.name).collect();
        assert_eq!(names, ["id", "v"], "{reader}");
    }
}
