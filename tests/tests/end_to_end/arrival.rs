//! What is in PostgreSQL is in the tables, cell by cell, and the tables are what the Iceberg specification says.

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{READERS, Reader};
use philotes_tests::replay::{changes, expect_equal, state_of};
use philotes_tests::source_table::SourceTable;
use serde_json::json;

use crate::sound::assert_sound;
use crate::{PATIENCE, captured, wait_for_rows};

#[test]
fn one_row_arrives() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("insert into t values (1, 42, 'somebody')").unwrap();
    Host::until_idle(&connector).unwrap();

    let rows = Reader::PyIceberg.rows(&connector.table("cdc.public_t")).unwrap();
    assert_eq!(rows.rows.len(), 1);
    let cell = |name: &str| rows.column(name).unwrap()[0].clone();
    assert_eq!(cell("id"), json!("1"));
    assert_eq!(cell("v"), json!("42"));
    assert_eq!(cell("who"), json!("somebody"));
    assert_eq!(cell("_cdc_operation"), json!("INSERT"));
}

#[test]
fn exact_numbers_and_times_at_their_limits() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session
        .batch(
            "create table limits (id bigint primary key, small smallint, whole integer, big bigint, oid oid, \
             exact numeric(38, 10), cents numeric(18, 2), free numeric, single real, double double precision, flag boolean, \
             txt text, fixed char(5), day date, clock time, local timestamp, moment timestamptz, tag uuid, bytes bytea, \
             doc json, words text[], amounts numeric(10, 3)[], address inet, span interval)",
        )
        .unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap();
    connector.capture(&["public.limits"]).unwrap();
    session
        .batch(
            "insert into limits values
             (9223372036854775807, 32767, 2147483647, 9223372036854775807, 4294967295,
              1234567890123456789012345678.0123456789, 9007199254740993.01, 0.1000000000000000055511151231257827021181583404541015625,
              0.1, 0.1, true, 'ü€𝄞', 'ab', '0001-01-01', '23:59:59.999999', '1969-12-31 23:59:59.999999',
              '9999-12-31 23:59:59.999999+00', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '\\x00ff', '{\"a\": 1.10}',
              array['a,b', null, '\"', ''], array[0.001, -9999999.999], '10.0.0.1', '1 day 02:03:04'),
             (-9223372036854775808, -32768, -2147483648, -9223372036854775808, 0,
              -9999999999999999999999999999.9999999999, -0.01, -7, 3.4028235e38, 1.7976931348623157e308, false, '', '', '1970-01-01',
              '00:00:00', '2262-04-12 00:00:00.000001', '1582-10-15 00:00:00+00', '00000000-0000-0000-0000-000000000000', '',
              'null', '{}', '{}', '::1', '-1 mon'),
             (0, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
              null, null, null, null, null)",
        )
        .unwrap();
    Host::until_idle(&connector).unwrap();

    let table = connector.table("cdc.public_limits");
    let source = SourceTable::read(&session, "limits").unwrap();
    let expected = source.state(&session).unwrap();
    for reader in READERS {
        let found = state_of(changes(reader.rows(&table).unwrap(), &source).unwrap()).unwrap();
        expect_equal(&source, &expected, &found).unwrap_or_else(|e| panic!("as {reader} sees it: {e}"));
    }
    let schema = Reader::PyIceberg.schema(&table).unwrap();
    let types: Vec<(&str, &str)> = schema.iter().map(|c| (c.name.as_str(), c.kind.as_str())).collect();
    let expected = [
        ("id", "long"),
        ("small", "int"),
        ("whole", "int"),
        ("big", "long"),
        ("oid", "long"),
        ("exact", "decimal(38, 10)"),
        ("cents", "decimal(18, 2)"),
        ("free", "string"),
        ("single", "float"),
        ("double", "double"),
        ("flag", "boolean"),
        ("txt", "string"),
        ("fixed", "string"),
        ("day", "date"),
        ("clock", "time"),
        ("local", "timestamp"),
        ("moment", "timestamptz"),
        ("tag", "uuid"),
        ("bytes", "binary"),
        ("doc", "string"),
        ("words", "list<string>"),
        ("amounts", "list<decimal(10, 3)>"),
        ("address", "string"),
        ("span", "string"),
        ("_cdc_operation", "string"),
        ("_cdc_timestamp", "timestamptz"),
        ("_cdc_lsn", "string"),
    ];
    assert_eq!(types, expected);
    assert_sound(&table);
}

/// The token stands in the very commit that brought the rows: it names the snapshot that is the head.
#[test]
fn the_token_comes_with_the_rows() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("insert into t select i, i from generate_series(1, 10) i").unwrap();
    Host::until_idle(&connector).unwrap();

    let table = connector.table("cdc.public_t");
    let properties = table.properties().unwrap();
    let token = properties.get("philotes.offset.shop.public.t.0").unwrap_or_else(|| panic!("no token: {properties:?}"));
    let snapshots = Reader::PyIceberg.snapshots(&table).unwrap();
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    assert!(token.contains(&snapshots[0].id), "{token} does not name {}", snapshots[0].id);
}

/// A table that somebody else made with a required column, and that may not be altered: a NULL for it is refused, nothing is written
/// or acknowledged.
#[test]
fn a_null_never_lands_in_a_required_column() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    session.batch("create table t (id bigint primary key, v integer, who text)").unwrap();
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("evolve: none");
    connector.capture(&["public.t"]).unwrap();
    let table = connector.table("cdc.public_t");
    let fields = [
        json!(["id", "long", true]),
        json!(["v", "int", true]),
        json!(["who", "string", false]),
        json!(["_cdc_operation", "string", false]),
        json!(["_cdc_timestamp", "timestamptz", false]),
        json!(["_cdc_lsn", "string", false]),
    ];
    table.create_as_somebody_else(Some(&connector.dir().join("warehouse")), &fields).unwrap();

    session.batch("insert into t values (1, 1, 'fine')").unwrap();
    Host::until_idle(&connector).unwrap();
    wait_for_rows(&table, 1);

    session.batch("insert into t values (2, null, 'not fine')").unwrap();
    let mut host = Host::start(&connector, &["--until-idle"]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    let log = host.log();
    assert!(log.contains("\"v\"") || log.contains("column v") || log.contains(" v "), "the column is not named: {log}");
    assert!(!log.contains("not fine"), "a row's value is in the log: {log}");
    wait_for_rows(&table, 1);
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is null").unwrap(), 1);
}

#[test]
fn columns_that_appear_are_added() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("insert into t values (1, 1, 'old')").unwrap();
    let mut host = Host::start(&connector, &[]).unwrap();
    let table = connector.table("cdc.public_t");
    wait_for_rows(&table, 1);
    session.batch("alter table t add column price numeric(10, 2); insert into t values (2, 2, 'new', 12.34)").unwrap();
    wait_for_rows(&table, 2);
    host.wait_for_log(&["warn", "price"], PATIENCE).unwrap();
    host.terminate().unwrap();
    for reader in READERS {
        let rows = reader.query(&table, "select price from t order by id").unwrap();
        assert_eq!(rows.rows, [[json!(null)], [json!("12.34")]], "{reader}");
    }
}

/// The route's streams arrive, the others stay in the buffer.
#[test]
fn only_wanted_streams_arrive() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("create table secret (id bigint primary key)").unwrap();
    connector.capture(&["public.secret"]).unwrap();
    session.batch("insert into t values (1, 1); insert into secret select generate_series(1, 5)").unwrap();
    let connector = connector.top("route: {include: [public.*], exclude: [public.secret]}");
    Host::until_idle(&connector).unwrap();
    wait_for_rows(&connector.table("cdc.public_t"), 1);
    assert!(!connector.table("cdc.public_secret").exists().unwrap());
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is null").unwrap(), 5);
}
