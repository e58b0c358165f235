//! Tables whose source changes, tables that others made, and columns of which the connector says something.

use std::time::Duration;

use philotes_tests::connector::Connector;
use philotes_tests::host::{Host, philotes};
use philotes_tests::readers::{READERS, READERS_WITH_SPARK, Reader, Table};
use philotes_tests::sql::Session;
use philotes_tests::{bed_or_skip, postgres_or_skip};
use rand::Rng;
use serde_json::{Value, json};

use crate::{PATIENCE, assert_acknowledged, captured, captured_by};

/// Asserts that both readers find the rows of PostgreSQL's own table, of which nothing was ever changed but by ALTER TABLE:
/// then the change log is the table.
fn assert_same_rows(readers: &[Reader], session: &Session, table: &Table, columns: &str) {
    let sql = format!("select {columns} from t order by id");
    let texts: Vec<String> = columns.split(", ").map(|column| format!("{column}::text")).collect();
    let expected = session.rows(&format!("select {} from t order by t.id", texts.join(", "))).unwrap();
    let expected: Vec<Vec<Value>> =
        expected.into_iter().map(|row| row.into_iter().map(|cell| json!(cell)).collect()).collect();
    assert!(!expected.is_empty());
    for reader in readers {
        assert_eq!(reader.query(table, &sql).unwrap().rows, expected, "{reader}");
    }
}

fn names(table: &Table) -> Vec<String> {
    let schema = Reader::PyIceberg.schema(table).unwrap();
    schema.into_iter().map(|column| column.name).filter(|name| !name.starts_with("_cdc_")).collect()
}

/// Each step with rows before and after it.
const STEPS: [&str; 8] = [
    "alter table t rename v to amount",
    "alter table t add note text",
    // Names that are swapped.
    "alter table t rename who to x; alter table t rename note to who; alter table t rename x to note",
    "alter table t drop note",
    "alter table t alter amount type bigint",
    // The same name, another column of another type.
    "alter table t drop who; alter table t add who integer",
    "alter table t rename amount to v; alter table t add amount numeric(5,2)",
    "comment on column t.v is 'what it cost'",
];

fn insert(session: &Session, step: usize, rows: usize) {
    let text = |name: &str| {
        let sql = format!(
            "select coalesce(string_agg(case when attname = 'id' then 'i' when atttypid = 'text'::regtype then \
             quote_literal('{name} ') || ' || i' else 'i % 7' end, ', ' order by attnum), '') from pg_attribute \
             where attrelid = 't'::regclass and attnum > 0 and not attisdropped"
        );
        session.one(&sql).unwrap()
    };
    let (from, to) = (step * rows + 1, (step + 1) * rows);
    let values = text(&format!("step {step}"));
    session.batch(&format!("insert into t select {values} from generate_series({from}, {to}) i")).unwrap();
}

/// The same through Java's own catalog, and read by Spark as well.
#[test]
fn the_table_follows_its_source_in_a_rest_catalog() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    let (session, connector) = captured_by(&bed.postgres, connector);
    let connector = connector.source("batch_rows: 50").sink("evolve: full").sink("dropped_columns: drop");
    for (step, change) in STEPS.iter().enumerate() {
        insert(&session, step, 20);
        session.batch(change).unwrap();
    }
    insert(&session, STEPS.len(), 20);
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);
    let table = connector.table("cdc.public_t");
    assert_eq!(names(&table), ["id", "v", "who", "amount"]);
    assert_same_rows(&READERS_WITH_SPARK, &session, &table, "id, v, who, amount");
}

/// Renames, swaps, drops and additions, while the host is killed again and again: both readers find what PostgreSQL has.
#[test]
fn the_table_follows_its_source_whenever_the_host_is_killed() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let connector = connector
        .source("batch_rows: 50")
        .sink("evolve: full")
        .sink("dropped_columns: drop")
        .top("commit: {interval: 50ms}");
    let mut random = rand::rng();
    for (step, change) in STEPS.iter().enumerate() {
        insert(&session, step, 200);
        session.batch(change).unwrap();
        // Half of the steps come while the host is away.
        if step % 2 == 1 {
            let host = Host::start(&connector, &[]).unwrap();
            std::thread::sleep(Duration::from_millis(random.random_range(50..900)));
            assert!(!host.log().contains("FAILED"), "before kill {step}: {}", host.log_tail());
            host.kill9();
        }
    }
    insert(&session, STEPS.len(), 200);
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);
    let table = connector.table("cdc.public_t");
    assert_eq!(names(&table), ["id", "v", "who", "amount"]);
    assert_same_rows(&READERS, &session, &table, "id, v, who, amount");
    let types: Vec<String> = Reader::PyIceberg.schema(&table).unwrap().into_iter().map(|c| c.kind).collect();
    assert_eq!(types[..4], ["long", "long", "int", "decimal(5, 2)"]);
}

/// Without `evolve: full` the old column stays and the new name is a column of its own.
#[test]
fn a_rename_is_a_new_column_where_names_are_not_followed() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("insert into t values (1, 10, 'a'); alter table t rename who to name").unwrap();
    session.batch("insert into t values (2, 20, 'b')").unwrap();
    Host::until_idle(&connector).unwrap();
    let table = connector.table("cdc.public_t");
    assert_eq!(names(&table), ["id", "v", "who", "name"]);
    for reader in READERS {
        let rows = reader.query(&table, "select id, who, name from t order by id").unwrap().rows;
        assert_eq!(rows, [[json!("1"), json!("a"), json!(null)], [json!("2"), json!(null), json!("b")]], "{reader}");
    }

    session.batch("alter table t rename name to title").unwrap();
    session.batch("insert into t values (3, 30, 'c')").unwrap();
    let connector = connector.sink("evolve: full");
    let said = philotes(&["plan", connector.file().unwrap().to_str().unwrap()]).unwrap().success().unwrap();
    assert!(said.contains("renamed from name"), "{said}");
    assert_eq!(names(&table), ["id", "v", "who", "name"]);
    Host::until_idle(&connector).unwrap();
    for reader in READERS {
        let rows = reader.query(&table, "select id, who, title from t where id > 1 order by id").unwrap().rows;
        let expected = [[json!("2"), json!(null), json!("b")], [json!("3"), json!(null), json!("c")]];
        assert_eq!(rows, expected, "{reader}");
    }
}

/// PyIceberg made the table: columns in another order, required ones, some of its own, and a struct.
#[test]
fn a_table_that_somebody_else_made_is_filled_and_changed_no_more_than_it_must() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session
        .batch("create type place as (city text, zip text); alter table t add place place; delete from philotes.cdc_events")
        .unwrap();
    let table = connector.table("cdc.public_t");
    let place = json!({"type": "struct", "fields": [
        {"id": 21, "name": "zip", "type": "string", "required": true},
        {"id": 22, "name": "city", "type": "string", "required": true},
        {"id": 23, "name": "country", "type": "string", "required": false},
    ]});
    let fields = [
        json!(["theirs", "string", true]),
        json!(["place", place, false]),
        json!(["v", "long", true]),
        json!(["who", "string", true]),
        json!(["ID", "long", true]),
    ];
    table.create_as_somebody_else(Some(&connector.dir().join("warehouse")), &fields).unwrap();
    session.batch("insert into t values (1, 10, 'a', ('Paris', '75001'))").unwrap();
    // Asked for nothing, nothing is done.
    let strict = connector.sink("evolve: none");
    let said = philotes(&["plan", strict.file().unwrap().to_str().unwrap()]).unwrap();
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("evolve: none"), "{said}");
    let connector = strict.sink_without("evolve");
    Host::until_idle(&connector).unwrap();
    session.batch("insert into t values (2, 20, null, ('Rome', null)), (3, 30, 'c', null)").unwrap();
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);

    let schema = Reader::PyIceberg.schema(&table).unwrap();
    let found: Vec<(&str, bool)> = schema.iter().map(|column| (column.name.as_str(), column.required)).collect();
    let expected = [("theirs", false), ("place", false), ("v", true), ("who", false), ("ID", true)];
    assert_eq!(found[..5], expected);
    assert!(schema[1].kind.contains("zip: optional string") && schema[1].kind.contains("city: required"), "{schema:?}");
    for reader in READERS {
        let sql = "select ID, v, who, theirs, place.city, place.zip, place.country from t order by ID";
        let rows = reader.query(&table, sql).unwrap().rows;
        let expected = [
            json!(["1", "10", "a", null, "Paris", "75001", null]),
            json!(["2", "20", null, null, "Rome", null, null]),
            json!(["3", "30", "c", null, null, null, null]),
        ];
        assert_eq!(json!(rows), json!(expected), "{reader}");
    }
}

/// Rows go into a table that nobody may alter as long as they fit; what is told beside the row itself is left out.
#[test]
fn nothing_is_altered_where_nothing_may() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    let fields = [json!(["id", "long", true]), json!(["v", "long", false]), json!(["who", "string", true])];
    table.create_as_somebody_else(Some(&connector.dir().join("warehouse")), &fields).unwrap();
    let before = Reader::PyIceberg.schema(&table).unwrap();
    let dropped = "_cdc_operation: {drop: true}, _cdc_timestamp: {drop: true}, _cdc_lsn: {drop: true}";
    let connector =
        connector.sink("evolve: none").sink(&format!("columns: {{public.t: {{{dropped}, absent: {{type: int}}}}}}"));
    session.batch("insert into t values (1, 10, 'a'), (2, 20, 'b')").unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    host.wait_for_log(&["WARN", "`columns` names a column", "absent", "public.t"], PATIENCE).unwrap();
    assert_acknowledged(&session);
    assert_same_rows(&READERS, &session, &table, "id, v, who");
    // Not even to make room for NULL.
    session.batch("insert into t values (3, 30, null)").unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    assert!(host.log().contains("1 row has NULL") && host.log().contains("evolve: none"), "{}", host.log_tail());
    assert_eq!(Reader::PyIceberg.schema(&table).unwrap(), before);
}

/// What does not fit a table of somebody else's is refused with both types, and the table stays as it was.
#[test]
fn a_table_that_somebody_else_made_is_not_bent() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let table = connector.table("cdc.public_t");
    let fields = [json!(["id", "long", true]), json!(["v", "date", false])];
    table.create_as_somebody_else(Some(&connector.dir().join("warehouse")), &fields).unwrap();
    session.batch("insert into t values (1, 10, 'a')").unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    for words in ["public.t", "the table has date, the batch int"] {
        assert!(host.log().contains(words), "{words}: {}", host.log_tail());
    }
    assert_eq!(names(&table), ["id", "v"]);
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is not null").unwrap(), 0);
}

/// A column that no table can have, one that must not leave, and one of another type.
#[test]
fn columns_are_left_out_named_and_converted() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("alter table t rename who to _file; alter table t add ssn text; alter table t add at text").unwrap();
    session
        .batch(
            "insert into t values (1, 10, 'f1', 'secret', '2026-01-24 10:00:00+02'), (2, 20, 'f2', 'secret', 'never'), \
             (3, 30, 'f3', 'secret', null)",
        )
        .unwrap();
    let columns = "{public.t: {_file: {name: path}, ssn: {drop: true}, at: {type: timestamptz}, v: {type: string}}}";
    let connector = connector.sink(&format!("columns: {columns}")).top("errors: {tolerance: dead-letter}");
    let said = philotes(&["plan", connector.file().unwrap().to_str().unwrap()]).unwrap().success().unwrap();
    assert!(said.contains("ssn is dropped") && said.contains("timestamptz"), "{said}");
    Host::until_idle(&connector).unwrap();
    assert_acknowledged(&session);
    let table = connector.table("cdc.public_t");
    assert_eq!(names(&table), ["id", "v", "path", "at"]);
    for reader in READERS {
        let rows = reader.query(&table, "select id, v, path, \"at\" from t order by id").unwrap().rows;
        let expected = [json!(["1", "10", "f1", "1769241600000000"]), json!(["3", "30", "f3", null])];
        assert_eq!(json!(rows), json!(expected), "{reader}");
        let letters = reader.rows(&connector.table("cdc.dead_letters")).unwrap();
        assert_eq!(letters.rows.len(), 1, "{reader}");
        let all = format!("{:?}", letters.rows);
        assert!(all.contains("f2") && !all.contains("secret"), "{reader}: {all}");
    }
}

#[test]
fn wrong_keys_are_faults() {
    let connector = Connector::new("host=localhost").unwrap();
    let wrong = [
        ("evolve: some", "sink.evolve", "additive"),
        ("dropped_columns: drop", "sink.dropped_columns", "evolve: full"),
        ("columns: {public.t: {a: {type: varchar}}}", "sink.columns.public.t.a.type", "timestamptz"),
        ("columns: {public.t: {a: {typ: int}}}", "typ", "type"),
        ("columns: {public.t: {a: {drop: maybe}}}", "drop", "true or false"),
    ];
    for (line, key, allowed) in wrong {
        let connector = Connector::new("host=localhost").unwrap().sink(line);
        let said = philotes(&["validate", connector.file().unwrap().to_str().unwrap()]).unwrap();
        assert_eq!(said.code, 2, "{line}: {}", said.stdout);
        assert!(said.stdout.contains(key) && said.stdout.contains(allowed), "{line}: {}", said.stdout);
    }
    let sound = connector.sink("evolve: full").sink("dropped_columns: drop");
    let sound = sound.sink("columns: {public.t: {a: {type: \"decimal(10,2)\", name: b}, ssn: {drop: true}}}");
    let said = philotes(&["validate", sound.file().unwrap().to_str().unwrap()]).unwrap();
    assert_eq!(said.code, 0, "{}", said.stdout);
}
