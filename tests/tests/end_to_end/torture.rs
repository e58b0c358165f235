//! A column of every type that PostgreSQL has: what each reader finds is what PostgreSQL holds, cell by cell.

use std::io::Write;
use std::time::Instant;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{Column, READERS, READERS_WITH_SPARK, Reader, Table};
use philotes_tests::source_table::SourceTable;
use philotes_tests::torture::{COLUMNS, Documented, Expected, TIMES, Torture, iceberg_type, prepare};

use crate::sound::assert_sound;

const ROWS: usize = 600;
const ROWS_OF_TIMES: usize = 100;
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
        let start = Instant::now();
        let expected = torture.expected(&session).unwrap();
        say(&format!("{}: expected after {:.1} s", torture.name, start.elapsed().as_secs_f32()));
        for reader in *readers {
            let start = Instant::now();
            let cells: usize = expected.iter().map(|part| compare(part, *reader, &table)).sum();
            let (name, seconds) = (torture.name, start.elapsed().as_secs_f32());
            say(&format!("{name}, {reader}: {cells} cells equal ({seconds:.1} s)"));
        }
    }
}

fn compare(part: &Expected, reader: Reader, table: &Table) -> usize {
    let start = Instant::now();
    let found = part.found(reader, table).unwrap();
    say(&format!("{reader}: found after {:.1} s", start.elapsed().as_secs_f32()));
    part.compare(reader, &found).unwrap_or_else(|e| panic!("as {reader} sees it: {e:#}"))
}

/// Past the harness, which shows what a test prints only where the test fails.
fn say(line: &str) {
    std::io::stderr().write_all(format!("torture: {line}\n").as_bytes()).unwrap();
}
