//! What no column of Iceberg holds: refused by the name of its column, alone, and with the ways out that docs/TYPES.md names.

use std::collections::BTreeMap;

use philotes_tests::connector::Connector;
use philotes_tests::equal::expect_same;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{READERS, READERS_WITH_SPARK};
use philotes_tests::sql::Session;
use serde_json::{Value, json};

use crate::{PATIENCE, assert_acknowledged};

/// A column, its type, and a value of it that is refused.
const REFUSED: [(&str, &str, &str); 9] = [
    ("price", "numeric(10,2)", "NaN"),
    ("prices", "numeric(10,2)[]", "{1,NaN}"),
    ("clock", "time", "24:00:00"),
    ("flat", "integer[]", "{{1,2}}"),
    ("grid", "integer[][]", "{7}"),
    ("local", "timestamp", "294276-12-31 23:59:59.999999"),
    ("moment", "timestamptz", "294276-12-31 23:59:59.999999+00"),
    ("moments", "timestamptz[]", "{NULL,\"294276-12-31 23:59:59.999999+00\"}"),
    ("many", "pair[]", "{\"(1,02:00)\",\"(NaN,24:00)\"}"),
];
/// Ids of rows that are written around them.
const GOOD: [i64; 3] = [-1, 4, 100];

/// A captured table of these columns with a row for each refusal, whose id is its place, among others.
fn write(session: &Session, connector: &Connector, table: &str) {
    let columns: String = REFUSED.iter().map(|(name, kind, _)| format!(", {name} {kind}")).collect();
    session.batch(&format!("create table {table} (id bigint primary key{columns})")).unwrap();
    connector.capture(&[&format!("public.{table}")]).unwrap();
    session.batch(&format!("insert into {table} (id) values ({})", GOOD[0])).unwrap();
    for (place, (name, _, value)) in REFUSED.iter().enumerate() {
        session.batch(&format!("insert into {table} (id, {name}) values ({}, '{value}')", place + 10)).unwrap();
        if place == 4 {
            session
                .batch(&format!(
                    "insert into {table} (id, clock, flat) values ({}, '23:59:59.999999', '{{1}}')",
                    GOOD[1]
                ))
                .unwrap();
        }
    }
    session.batch(&format!("insert into {table} (id, price) values ({}, 1)", GOOD[2])).unwrap();
}

#[test]
fn each_refusal_names_its_column_and_nothing_else_is_lost() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session.batch("create type pair as (one numeric(5,2), at time)").unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap();
    write(&session, &connector, "t");

    // The first of them stops the connector, and nothing is acknowledged that is not in the table.
    let mut host = Host::start(&connector, &[]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    let log = host.log();
    assert!(log.contains("FAILED") && log.contains("public.t") && log.contains("column price"), "{log}");
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is not null").unwrap(), 0);

    let connector = connector.top("errors: {tolerance: dead-letter}");
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);
    for reader in READERS {
        let rows = reader.query(&connector.table("cdc.public_t"), "select id from t order by id").unwrap().rows;
        assert_eq!(json!(rows), json!(GOOD.map(|id| [id.to_string()])), "{reader}");
        let letters = reader.query(&connector.table("cdc.dead_letters"), "select record, message from t").unwrap().rows;
        assert_eq!(letters.len(), REFUSED.len(), "{reader}: {letters:?}");
        let by_id: BTreeMap<i64, &str> = letters
            .iter()
            .map(|letter| {
                let record: Value = serde_json::from_str(letter[0].as_str().unwrap()).unwrap();
                let id = record["after_data"]["id"].as_i64().unwrap();
                (id, letter[1].as_str().unwrap())
            })
            .collect();
        for (place, (name, _, value)) in REFUSED.iter().enumerate() {
            let message = by_id[&(place as i64 + 10)];
            assert!(message.contains(&format!("column {name}")), "{reader}, {name}: {message}");
            assert!(!message.contains(value), "{reader}: a value is told: {message}");
        }
    }
}

/// Read as text, or an array as JSON, each of them arrives.
#[test]
fn the_ways_out_are_ways_out() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session.batch("create type pair as (one numeric(5,2), at time)").unwrap();
    let columns: Vec<String> = REFUSED
        .iter()
        .map(|(name, kind, _)| format!("{name}: {{type: {}}}", if kind.ends_with(']') { "json" } else { "text" }))
        .collect();
    let connector =
        Connector::new(&postgres.dsn()).unwrap().source(&format!("columns: {{public.u: {{{}}}}}", columns.join(", ")));
    write(&session, &connector, "u");
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);
    // Within JSON, times as the buffer spells them.
    let expected = json!({
        "price": "NaN",
        "prices": [1.0, "NaN"],
        "clock": "24:00:00",
        "flat": [[1, 2]],
        "grid": [7],
        "local": "294276-12-31 23:59:59.999999",
        "moment": "294276-12-31 23:59:59.999999+00",
        "moments": [null, "294276-12-31T23:59:59.999999+00:00"],
        "many": [{"one": 1.0, "at": "02:00:00"}, {"one": "NaN", "at": "24:00:00"}],
    });
    for reader in READERS_WITH_SPARK {
        for (place, (name, kind, _)) in REFUSED.iter().enumerate() {
            let sql = format!("select {name} from t where id = {}", place + 10);
            let rows = reader.query(&connector.table("cdc.public_u"), &sql).unwrap().rows;
            let text = rows[0][0].as_str().unwrap();
            let found = if kind.ends_with(']') { serde_json::from_str(text).unwrap() } else { json!(text) };
            assert_eq!(found, expected[*name], "{reader}: {name} is {text}");
        }
    }
}

/// Names that Iceberg reserves, names that begin as the host's own do, and names that differ in case only.
#[test]
fn reserved_names_are_refused_unless_the_configuration_gives_others() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let reserved = [
        "_file",
        "_pos",
        "_deleted",
        "_spec_id",
        "_partition",
        "_row_id",
        "_last_updated_sequence_number",
        "_change_type",
        "_change_ordinal",
        "_commit_snapshot_id",
    ];
    let names = reserved.iter().copied().chain(["_cdc_note", "ID"]);
    for (number, name) in names.enumerate() {
        session.batch(&format!("create table n{number} (id bigint primary key, \"{name}\" text)")).unwrap();
        let connector = Connector::new(&postgres.dsn()).unwrap().source_id(&format!("n{number}"));
        connector.capture(&[&format!("public.n{number}")]).unwrap();
        session.batch(&format!("insert into n{number} values (1, 'here')")).unwrap();
        let mut host = Host::start(&connector, &["--until-idle"]).unwrap();
        assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{name}: {}", host.log_tail());
        assert!(host.log().contains(&format!("public.n{number}")) && host.log().contains(name), "{}", host.log_tail());

        let stream = format!("public.n{number}");
        let table = connector.table(&format!("cdc.public_n{number}"));
        let (connector, found) = if name.starts_with("_cdc_") {
            (connector.source(&format!("columns: {{{stream}: {{{name}: {{drop: true}}}}}}")), "id")
        } else {
            (connector.sink(&format!("columns: {{{stream}: {{{name}: {{name: another}}}}}}")), "another")
        };
        Host::until_idle(&connector).unwrap();
        for reader in READERS {
            let rows = reader.query(&table, &format!("select {found} from t")).unwrap().rows;
            assert_eq!(json!(rows), json!([[if found == "id" { "1" } else { "here" }]]), "{reader}: {name}");
        }
    }
}

/// Columns whose names look reserved and are not.
#[test]
fn names_that_only_look_reserved_arrive() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let names = [
        "file",
        "_filed",
        "_cdc",
        "cdc_operation",
        "_FILENAME",
        "element",
        "list",
        "key",
        "value",
        "_c0",
        "%5F",
        "a.element",
    ];
    let columns: String = names.iter().map(|name| format!(", \"{name}\" text")).collect();
    session.batch(&format!("create table t (id bigint primary key{columns})")).unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap();
    connector.capture(&["public.t"]).unwrap();
    let values: String = names.iter().map(|name| format!(", '{name}'")).collect();
    session.batch(&format!("insert into t values (1{values})")).unwrap();
    Host::until_idle(&connector).unwrap();
    for reader in READERS_WITH_SPARK {
        expect_same(&session, "shop", "public.t", reader, &connector.table("cdc.public_t")).unwrap();
    }
}
