//! A column of every type that PostgreSQL has: what each reader finds is what PostgreSQL holds, cell by cell.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Instant;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{Column, READERS, READERS_WITH_SPARK, Reader, Table};
use philotes_tests::source_table::SourceTable;
use philotes_tests::sql::Session;
use philotes_tests::torture::{COLUMNS, Documented, Expected, TIMES, Torture, iceberg_type, prepare};

use crate::sound::assert_sound;

const ROWS: usize = 10_000;
const ROWS_OF_TIMES: usize = 1_000;
const SEED: f64 = 0.15;

#[test]
fn every_type_survives() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    // What the session says must not matter.
    session
        .batch(
            "set timezone = 'America/St_Johns'; set datestyle = 'German, DMY'; set intervalstyle = 'iso_8601'; \
             set extra_float_digits = 0; set bytea_output = 'escape'",
        )
        .unwrap();
    prepare(&session, SEED).unwrap();
    let tables = [
        (Torture::create(&session, "torture", COLUMNS, ROWS).unwrap(), &READERS_WITH_SPARK[..]),
        (Torture::create(&session, "torture_times", TIMES, ROWS_OF_TIMES).unwrap(), &READERS[..]),
    ];
    let connector = Connector::new(&postgres.dsn()).unwrap().source("poll_interval: 100ms");
    connector.capture(&["public.torture", "public.torture_times"]).unwrap();
    let start = Instant::now();
    for (table, _) in &tables {
        table.insert(&session).unwrap();
    }
    say(&format!("inserted in {:.1} s", start.elapsed().as_secs_f32()));
    let host = Host::start(&connector, &[]).unwrap();
    for (table, _) in &tables {
        table.change(&session).unwrap();
    }
    say(&format!("changed after {:.1} s", start.elapsed().as_secs_f32()));
    host.terminate().unwrap();
    Host::until_idle(&connector).unwrap();
    say(&format!("committed after {:.1} s", start.elapsed().as_secs_f32()));
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is null").unwrap(), 0);

    let documented = Documented::read(&session).unwrap();
    for (torture, readers) in &tables {
        let table = connector.table(&format!("cdc.public_{}", torture.name));
        assert_sound(&table);
        let source = SourceTable::read(&session, torture.name).unwrap();
        let schema = Reader::PyIceberg.schema(&table).unwrap();
        let ours: Vec<&Column> = schema.iter().filter(|column| !column.name.starts_with("_cdc_")).collect();
        let names: Vec<&str> = ours.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, source.names().collect::<Vec<_>>());
        for (found, column) in ours.iter().zip(&source.columns) {
            let expected = iceberg_type(&column.kind, &documented);
            assert_eq!(found.kind, expected, "{}: {}", torture.name, column.name);
        }
        let expected = torture.expected(&session).unwrap();
        for reader in *readers {
            let start = Instant::now();
            let cells: usize = expected.iter().map(|part| compare(part, *reader, &table)).sum();
            let (name, seconds) = (torture.name, start.elapsed().as_secs_f32());
            say(&format!("{name}, {reader}: {cells} cells equal ({seconds:.1} s)"));
        }
    }
    let (torture, readers) = &tables[0];
    let table = connector.table("cdc.public_torture");
    readers.iter().for_each(|reader| assert_faults_are_seen(&session, torture, *reader, &table));
}

/// That nothing differed means something only if a wrong digit, a shifted hour and a lost microsecond are found: here PostgreSQL
/// has them, unnoticed by the capture.
fn assert_faults_are_seen(session: &Session, torture: &Torture, reader: Reader, table: &Table) {
    let faults = [
        ("numeric(38,10)", "0.0000000001"),
        ("timestamptz", "interval '1 hour'"),
        ("timestamp", "interval '1 microsecond'"),
    ];
    session.batch("set session_replication_role = replica").unwrap();
    let mut planted = Vec::new();
    for (column, fault) in faults {
        let key = session
            .one(&format!(
                "update torture set \"{column}\" = \"{column}\" + {fault} where id = (select id from torture where id > 100 \
                 and \"{column}\" is not null and \"{column}\"::text <> '0.0000000000' limit 1) returning id"
            ))
            .unwrap();
        planted.push((key, column, fault));
    }
    let expected = torture.expected_of(session, &faults.map(|(column, _)| column)).unwrap();
    let differences = expected.differences(reader, &expected.found(reader, table).unwrap()).unwrap();
    let seen: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(seen.len(), planted.len(), "{reader}: {seen:?}");
    for (key, column, fault) in planted {
        let line = format!("public.torture, key [\"{key}\"], column \"{column}\": expected ");
        assert!(seen.iter().any(|seen| seen.starts_with(&line)), "{reader}: {line}: {seen:?}");
        session.batch(&format!("update torture set \"{column}\" = \"{column}\" - {fault} where id = {key}")).unwrap();
    }
}

/// The document, PostgreSQL's catalog and the torture table know the same types.
#[test]
fn every_type_is_documented_and_has_a_column() {
    let Some(postgres) = postgres_or_skip() else { return };
    let session = postgres.session().unwrap();
    let all = session
        .rows(
            "select typname from pg_type where typtype in ('b', 'r', 'm') and typnamespace = 'pg_catalog'::regnamespace \
             and (typcategory <> 'A' or left(typname, 1) <> '_')",
        )
        .unwrap();
    let all: BTreeSet<String> = all.into_iter().flatten().flatten().collect();
    let documented = Documented::read(&session).unwrap();
    let missing: Vec<&String> = all.iter().filter(|name| !documented.knows(name)).collect();
    assert!(missing.is_empty(), "docs/TYPES.md does not tell of {missing:?}");

    prepare(&session, SEED).unwrap();
    for (name, columns) in [("torture", COLUMNS), ("torture_times", TIMES)] {
        Torture::create(&session, name, columns, 0).unwrap();
    }
    let there = session
        .rows("select distinct typname from pg_attribute a join pg_type t on atttypid = t.oid where attrelid::regclass::text like 'torture%'")
        .unwrap();
    let there: BTreeSet<String> = there.into_iter().flatten().flatten().collect();
    let wanted = documented.types().map(str::to_owned).chain(all).collect::<BTreeSet<_>>();
    assert_eq!(wanted.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new(), "no column has these types");
}

fn compare(part: &Expected, reader: Reader, table: &Table) -> usize {
    let found = part.found(reader, table).unwrap();
    part.compare(reader, &found).unwrap_or_else(|e| panic!("as {reader} sees it: {e:#}"))
}

/// Past the harness, which shows what a test prints only where the test fails.
fn say(line: &str) {
    std::io::stderr().write_all(format!("torture: {line}\n").as_bytes()).unwrap();
}
