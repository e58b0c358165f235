//! Dead letters: what cannot be decoded or written is in a table of its own, each record once, and can be replayed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use philotes_tests::connector::Connector;
use philotes_tests::host::{Host, philotes};
use philotes_tests::readers::{READERS, Reader, Table};
use philotes_tests::sql::Session;
use philotes_tests::{eventually, postgres_or_skip};
use rand::Rng;
use serde_json::{Value, json};

use crate::command_line::get;
use crate::{PATIENCE, assert_acknowledged, captured, pairs};

const LETTERS: &str = "cdc.dead_letters";

/// Rows of `public.t` as a writer of the buffer's own would put them there. Of ten, one has a text for a number, which cannot
/// be decoded, and one says that its number is a text, which the table cannot take.
fn write_events(session: &Session, from: i64, to: i64) {
    session
        .batch(&format!(
            "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, \
             key_columns, after_data, metadata, event_time) \
             select 'shop', 'public', 't', 'INSERT', 'lsn ' || i, 7, '[\"id\"]', \
             jsonb_build_object('id', i, 'v', case i % 10 when 3 then '\"many\"' when 7 then '\"some\"' else to_jsonb(i) end), \
             jsonb_build_object('columns', jsonb_build_array( \
               jsonb_build_object('name', 'id', 'type', 'bigint', 'nullable', false), \
               jsonb_build_object('name', 'v', 'type', case i % 10 when 7 then 'text' else 'integer' end, 'nullable', false))), \
             '2026-01-24T10:00:00Z' \
             from generate_series({from}, {to}) i"
        ))
        .unwrap();
}

fn good(rows: i64) -> Vec<(i64, i64)> {
    (1..=rows).filter(|id| id % 10 != 3 && id % 10 != 7).map(|id| (id, id)).collect()
}

fn letters(reader: Reader, table: &Table) -> Vec<BTreeMap<String, Value>> {
    let columns =
        ["stream", "partition", "sequence", "origin", "position", "kind", "message", "record", "_cdc_timestamp"];
    let sql = format!("select {} from t order by sequence", columns.map(|name| format!("\"{name}\"")).join(", "));
    let rows = reader.query(table, &sql).unwrap().rows;
    rows.into_iter().map(|row| columns.iter().map(|name| (*name).to_owned()).zip(row).collect()).collect()
}

fn text<'a>(letter: &'a BTreeMap<String, Value>, column: &str) -> &'a str {
    letter[column].as_str().unwrap_or_default()
}

/// The ids of the rows that became letters, and whether each letter says what it should.
fn assert_letters(session: &Session, connector: &Connector, rows: i64) {
    let ids: BTreeMap<String, String> = session
        .rows("select id, lsn from philotes.cdc_events")
        .unwrap()
        .into_iter()
        .filter_map(|row| Some((row[0].clone()?, row[1].clone()?)))
        .collect();
    for reader in READERS {
        let letters = letters(reader, &connector.table(LETTERS));
        let mut found = Vec::new();
        for (number, letter) in letters.iter().enumerate() {
            assert_eq!(text(letter, "sequence"), (number + 1).to_string(), "{reader}");
            assert_eq!(
                (text(letter, "stream"), text(letter, "partition"), text(letter, "kind")),
                ("public.t", "0", "data")
            );
            assert_eq!(text(letter, "_cdc_timestamp"), "1769248800000000", "{reader}: {letter:?}");
            let record: Value = serde_json::from_str(text(letter, "record")).unwrap();
            let id = match text(letter, "origin") {
                "source" => {
                    // The whole row of the buffer, as it was.
                    assert!(text(letter, "message").contains("column v"), "{letter:?}");
                    assert_eq!((&record["after_data"]["v"], &record["transaction_id"]), (&json!("many"), &json!(7)));
                    let id = record["after_data"]["id"].as_i64().unwrap();
                    // Marked rows are still in the buffer.
                    assert_eq!(ids[text(letter, "position")], format!("lsn {id}"));
                    assert_eq!(id % 10, 3);
                    id
                }
                "sink" => {
                    assert!(text(letter, "message").contains("\"v\""), "{letter:?}");
                    let id = record["id"].as_i64().unwrap();
                    assert_eq!(text(letter, "position"), format!("lsn {id}"));
                    assert_eq!(
                        (&record["_cdc_operation"], &record["v"], id % 10),
                        (&json!("INSERT"), &json!("some"), 7)
                    );
                    id
                }
                other => panic!("{other}"),
            };
            found.push(id);
        }
        found.sort_unstable();
        let expected: Vec<i64> = (1..=rows).filter(|id| id % 10 == 3 || id % 10 == 7).collect();
        assert_eq!(found, expected, "{reader}");
    }
}

#[test]
fn each_bad_row_is_a_letter_once_whenever_the_host_is_killed() {
    bad_rows_and_kills(2);
}

#[test]
fn each_bad_row_is_a_letter_once_in_format_3_too() {
    bad_rows_and_kills(3);
}

fn bad_rows_and_kills(version: u8) {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let connector = connector
        .source("batch_rows: 200")
        .sink(&format!("format_version: {version}"))
        .sink("partition_by: [day(_cdc_timestamp) as date]")
        .top("commit: {interval: 50ms}")
        .top("errors: {tolerance: dead-letter}");
    let mut random = rand::rng();
    let (part, kills) = (1000, 8);
    for kill in 0..kills {
        write_events(&session, kill * part + 1, (kill + 1) * part);
        let host = Host::start(&connector, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(100..1500)));
        assert!(!host.log().contains("FAILED"), "before kill {kill}: {}", host.log_tail());
        host.kill9();
    }
    write_events(&session, kills * part + 1, (kills + 1) * part);
    Host::until_idle(&connector).unwrap();

    let rows = (kills + 1) * part;
    assert_eq!(pairs(&connector.table("cdc.public_t")), good(rows));
    assert_letters(&session, &connector, rows);
    assert_acknowledged(&session);
    let version_of = |table: &str| connector.table(table).layout().unwrap().version;
    assert_eq!((version_of("cdc.public_t"), version_of(LETTERS)), (version, 2));
}

/// Without tolerance the first bad row stops the connector, and with it the connector goes on from there.
#[test]
fn only_where_it_is_tolerated() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    write_events(&session, 1, 20);
    let mut host = Host::start(&connector, &[]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    assert!(host.log().contains("column v") && host.log().contains("FAILED"), "{}", host.log_tail());
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is not null").unwrap(), 0);
    assert!(!connector.table(LETTERS).exists().unwrap());

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let connector = connector.top("errors: {tolerance: dead-letter}");
    let mut host = Host::start(&connector, &["--listen", &free]).unwrap();
    assert_acknowledged(&session);
    assert_eq!(pairs(&connector.table("cdc.public_t")), good(20));
    assert_letters(&session, &connector, 20);
    let line = host.wait_for_log(&["WARN", "cannot be decoded", "public.t"], PATIENCE).unwrap();
    assert!(line.contains("column v"), "{line}");
    host.wait_for_log(&["WARN", "cannot be written", "public.t", "string"], PATIENCE).unwrap();
    let counted = "philotes_dead_letters_total{connector=\"shop\",stream=\"public.t\"} 4";
    assert!(eventually(PATIENCE, || Ok(get(&free, "/metrics")?.1.contains(counted))).unwrap());
    let status: Value = serde_json::from_str(&get(&free, "/status").unwrap().1).unwrap();
    assert_eq!(status["connectors"][0]["tasks"][0]["streams"][0]["dead_letters"], json!(4), "{status}");
    host.terminate().unwrap();

    let shown = connector.action(&["sink", "dead_letters", "stream=public.t", "limit=3"]).unwrap();
    assert_eq!(shown.lines().filter(|line| line.contains("public.t")).count(), 3, "{shown}");
    assert!(shown.contains("insert it again") && shown.contains("lsn 17"), "{shown}");
}

/// A column becomes text. Its rows are rejected until the table's column is; then each is replayed once, while the connector
/// runs, and what the source could not decode is corrected in the buffer.
#[test]
fn letters_are_replayed_once_their_cause_is_gone() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let connector = connector.top("errors: {tolerance: dead-letter}");
    session.batch("insert into t values (1, 10), (2, 20)").unwrap();
    Host::until_idle(&connector).unwrap();
    session.batch("alter table t alter v type text using 'v' || v; update t set who = 'me'").unwrap();
    connector.capture(&["public.t"]).unwrap();
    session.batch("insert into t values (3, 'v30')").unwrap();
    let host = Host::start(&connector, &[]).unwrap();
    assert_acknowledged(&session);
    let table = connector.table("cdc.public_t");
    let count = |table: &Table, condition: &str| {
        Reader::DuckDb.number(table, &format!("select count(*) from t where {condition}")).unwrap()
    };
    let letters = connector.table(LETTERS);
    let rejected = count(&letters, "origin = 'sink' and message like '%\"v\"%string%'");
    assert!(rejected > 0 && count(&table, "true") == 2, "{rejected} letters");
    let said = connector.action(&["sink", "replay", "stream=public.t"]).unwrap();
    assert!(said.contains("no: ") && !said.contains("yes"), "{said}");

    table.drop_column_as_somebody_else("v").unwrap();
    let said = connector.action(&["sink", "replay", "stream=public.t", "sequence=1"]).unwrap();
    assert!(said.contains("yes") && !said.contains("no: "), "{said}");
    for _ in 0..2 {
        let said = connector.action(&["sink", "replay", "stream=public.t"]).unwrap();
        assert!(!said.contains("no: "), "{said}");
    }
    let shown = connector.action(&["sink", "dead_letters"]).unwrap();
    assert!(shown.contains("yes") && !shown.contains(" no "), "{shown}");
    // The connector has not noticed, and what comes now is written.
    session.batch("insert into t values (4, 'v40')").unwrap();
    assert_acknowledged(&session);
    host.terminate().unwrap();
    for reader in READERS {
        let rows = reader.query(&table, "select id, v from t where v is not null order by id, v").unwrap().rows;
        assert_eq!(rows.len() as i64, rejected + 1, "{reader}: {rows:?}");
        assert!(rows.contains(&vec![json!("3"), json!("v30")]) && rows.contains(&vec![json!("4"), json!("v40")]));
        assert_eq!(reader.number(&table, "select count(*) from t").unwrap(), rejected + 3, "{reader}");
    }
    assert_eq!(count(&letters, "true"), rejected);

    // As the connector reference says.
    write_events(&session, 13, 13);
    Host::until_idle(&connector).unwrap();
    let record = Reader::DuckDb.query(&letters, "select record from t where origin = 'source'").unwrap().rows;
    let record = record[0][0].as_str().unwrap().replace("integer", "text").replace('\'', "''");
    let columns = "source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns, before_data, after_data, \
                   metadata, event_time";
    session
        .batch(&format!(
            "insert into philotes.cdc_events ({columns}) \
             select {columns} from json_populate_record(null::philotes.cdc_events, '{record}')"
        ))
        .unwrap();
    Host::until_idle(&connector).unwrap();
    assert_eq!(count(&table, "id = 13 and v = 'many'"), 1);
}

#[test]
fn a_wrong_table_of_letters_is_a_fault() {
    let connector = Connector::new("host=localhost").unwrap();
    let connector = connector.top("errors: {tolerance: dead-letter}").sink("dead_letters: letters");
    let said = philotes(&["validate", connector.file().unwrap().to_str().unwrap()]).unwrap();
    assert_eq!(said.code, 2, "{}", said.stdout);
    assert!(said.stdout.contains("sink.dead_letters") && said.stdout.contains("namespace.table"), "{}", said.stdout);
}
