//! What the rows of another writer and the configuration say of columns: what was not sent, what is left out, what is read as
//! another type.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::READERS;
use philotes_tests::sql::Session;
use serde_json::json;

use crate::{PATIENCE, assert_acknowledged};

/// A row of the buffer for `public.t`, as a logical decoder writes it.
fn event(session: &Session, operation: &str, before: Option<&str>, after: Option<&str>) {
    let columns = json!([
        {"name": "id", "type": "bigint", "nullable": false},
        {"name": "v", "type": "integer", "nullable": true},
        {"name": "big", "type": "text", "nullable": true},
        {"name": "price", "type": "numeric(5,2)", "nullable": true},
        {"name": "seen", "type": "timestamp without time zone", "nullable": true},
        {"name": "ssn", "type": "text", "nullable": true},
    ]);
    let json = |object: Option<&str>| object.map_or("null".to_owned(), |object| format!("'{object}'"));
    session
        .batch(&format!(
            "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, key_columns, before_data, \
             after_data, metadata, event_time) values ('shop', 'public', 't', '{operation}', '0/1', '[\"id\"]', {}, {}, \
             '{{\"columns\": {columns}}}', now())",
            json(before),
            json(after),
        ))
        .unwrap();
}

/// What an UPDATE or a DELETE leaves out is not NULL unnoticed: it is named, or taken from the row before.
#[test]
fn what_was_not_sent_is_named() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap();
    connector.action(&["source", "init"]).unwrap();
    // The first commit has no such column yet.
    event(&session, "INSERT", None, Some(r#"{"id": 1, "v": 1, "big": "x"}"#));
    Host::until_idle(&connector).unwrap();
    event(&session, "UPDATE", None, Some(r#"{"id": 1, "v": 2, "price": null, "seen": null, "ssn": null}"#));
    let before = r#"{"id": 1, "v": 2, "big": "x", "price": 1.5, "seen": "2024-01-01T00:00:00", "ssn": null}"#;
    event(&session, "UPDATE", Some(before), Some(r#"{"id": 1, "v": 3}"#));
    event(&session, "UPDATE", None, Some(r#"{"id": 1, "v": 4}"#));
    event(&session, "DELETE", Some(r#"{"id": 1}"#), None);
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);
    for reader in READERS {
        let sql = "select _cdc_operation, v, big, price, _cdc_unchanged from t order by v nulls last";
        let rows = reader.query(&connector.table("cdc.public_t"), sql).unwrap().rows;
        let expected = json!([
            ["INSERT", "1", "x", null, null],
            ["UPDATE", "2", null, null, ["big"]],
            ["UPDATE", "3", "x", "1.50", null],
            ["UPDATE", "4", null, null, ["big", "price", "seen", "ssn"]],
            ["DELETE", null, null, null, ["v", "big", "price", "seen", "ssn"]],
        ]);
        assert_eq!(json!(rows), expected, "{reader}");
    }
}

/// `columns` of the source: a numeric NaN survives as text, a timestamp is in UTC, and what is left out is nowhere, not even in a
/// dead letter.
#[test]
fn the_configuration_says_how_columns_are_read() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let connector = Connector::new(&postgres.dsn())
        .unwrap()
        .source("columns: {public.t: {price: {type: text}, seen: {type: timestamptz}, ssn: {drop: true}, big: {type: json}}}")
        .top("errors: {tolerance: dead-letter}");
    connector.action(&["source", "init"]).unwrap();
    let good =
        r#"{"id": 1, "v": 1, "price": "NaN", "seen": "2024-01-01T00:00:00", "ssn": "secret", "big": "{\"a\": 1}"}"#;
    event(&session, "INSERT", None, Some(good));
    event(&session, "INSERT", None, Some(r#"{"id": 2, "v": "many", "ssn": "secret"}"#));
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);
    for reader in READERS {
        let table = connector.table("cdc.public_t");
        let rows = reader.query(&table, "select id, price, seen, big from t").unwrap().rows;
        // Microseconds, as `date -u -d 2024-01-01 +%s` prints the seconds.
        assert_eq!(json!(rows), json!([["1", "NaN", "1704067200000000", "{\"a\": 1}"]]), "{reader}");
        let names: Vec<String> = reader.schema(&table).unwrap().into_iter().map(|column| column.name).collect();
        assert!(!names.contains(&"ssn".to_owned()), "{reader}: {names:?}");
        let letters = reader.query(&connector.table("cdc.dead_letters"), "select message, record from t").unwrap().rows;
        assert_eq!(letters.len(), 1, "{reader}");
        let letter = json!(letters).to_string();
        assert!(letter.contains("column v") && letter.contains("many") && !letter.contains("secret"), "{letter}");
    }
}

/// A column that the configuration misspells would go on: the log says so.
#[test]
fn a_misspelt_column_is_told() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap();
    connector.action(&["source", "init"]).unwrap();
    let wrong = connector.source("columns: {public.t: {ssm: {drop: true}}}");
    event(&session, "INSERT", None, Some(r#"{"id": 1, "v": 1}"#));
    let mut host = Host::start(&wrong, &["--until-idle"]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 0);
    let log = host.log_tail();
    assert!(log.contains("names columns that the stream does not have") && log.contains("ssm"), "{log}");
}
