//! The quickstart's shop through every kind of catalog and storage: what each reader finds is what PostgreSQL holds, cell by
//! cell, and the tables are what the Iceberg specification says.

use std::io::Write;
use std::time::Instant;

use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::readers::{READERS, READERS_WITH_SPARK, Reader, Rest, Table};
use philotes_tests::replay::{State, changes, expect_equal, state_of};
use philotes_tests::services::minio::Minio;
use philotes_tests::services::nessie::{Access, Nessie};
use philotes_tests::services::postgres::Postgres;
use philotes_tests::source_table::SourceTable;
use philotes_tests::sql::{Row, Session};
use philotes_tests::{bed_or_skip, eventually, or_skip, postgres_or_skip, shop};

use crate::PATIENCE;
use crate::sound::assert_sound;

#[test]
fn sqlite_and_a_folder() {
    let Some(postgres) = postgres_or_skip() else { return };
    shop_through("sqlite + file", &postgres, Connector::new(&postgres.dsn()).unwrap(), &READERS);
}

#[test]
fn sqlite_and_a_folder_in_format_3() {
    let Some(postgres) = postgres_or_skip() else { return };
    let connector = Connector::new(&postgres.dsn()).unwrap().sink("format_version: 3");
    shop_through("sqlite + file, format 3", &postgres, connector, &READERS_WITH_SPARK);
}

#[test]
fn sqlite_and_minio() {
    let Some(postgres) = postgres_or_skip() else { return };
    let Some(minio) = or_skip(Minio::start) else { return };
    shop_through("sqlite + MinIO", &postgres, Connector::in_s3(&postgres.dsn(), &minio).unwrap(), &READERS);
}

#[test]
fn reference_rest_and_minio() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    shop_through("reference REST + MinIO", &bed.postgres, connector, &READERS_WITH_SPARK);
}

#[test]
fn reference_rest_and_minio_in_format_3() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap().sink("format_version: 3");
    shop_through("reference REST + MinIO, format 3", &bed.postgres, connector, &READERS_WITH_SPARK);
}

#[test]
fn nessie_and_minio() {
    nessie("Nessie + MinIO", Access::OwnKeys);
}

#[test]
fn nessie_that_signs_and_minio() {
    nessie("Nessie that signs + MinIO", Access::Signing);
}

#[test]
fn nessie_that_lends_and_minio() {
    nessie("Nessie that lends keys + MinIO", Access::Role { seconds: 900 });
}

fn nessie(lake: &str, access: Access) {
    let Some(postgres) = postgres_or_skip() else { return };
    let servers = or_skip(|| {
        let minio = Minio::start()?;
        Ok((Nessie::start_with(access, &minio)?, minio))
    });
    let Some((nessie, minio)) = servers else { return };
    let rest = Rest::at(&nessie.uri(), "lake", &minio);
    let connector = Connector::rest_at(&postgres.dsn(), rest).unwrap();
    let connector = if access == Access::OwnKeys { connector } else { connector.without_keys() };
    shop_through(lake, &postgres, connector, &READERS);
}

/// Writes the shop through this connector and compares what these readers find.
fn shop_through(lake: &str, postgres: &Postgres, connector: Connector, readers: &[Reader]) {
    let session = postgres.session().unwrap();
    // The log then has times with offsets of three and a half hours.
    session.batch("set timezone = 'America/St_Johns'").unwrap();
    shop::create(&session).unwrap();
    let connector = connector.source("poll_interval: 100ms").sink("partition_by: [day(_cdc_timestamp) as date]");
    connector.capture(&shop::TABLES).unwrap();

    // Some of it while the host runs, some before a second start.
    shop::trade(&session, 0, 500).unwrap();
    let host = Host::start(&connector, &[]).unwrap();
    shop::trade(&session, 1, 500).unwrap();
    let committed = |name: &str| Reader::PyIceberg.snapshots(&table_of(&connector, name)).is_ok_and(|s| !s.is_empty());
    assert!(eventually(PATIENCE, || Ok(shop::TABLES.into_iter().all(committed))).unwrap(), "{}", host.log_tail());
    host.terminate().unwrap();
    shop::trade(&session, 2, 500).unwrap();
    Host::until_idle(&connector).unwrap();
    assert_eq!(session.number("select count(*) from philotes.cdc_events where processed_at is null").unwrap(), 0);

    let sources: Vec<Source> = shop::TABLES.iter().map(|name| Source::of(&session, &connector, name)).collect();
    for source in &sources {
        assert_sound(&source.table);
        assert_eq!(source.table.partitions().unwrap(), ["day(_cdc_timestamp) as date"]);
        // Not by the snapshots: Nessie shows the current one alone.
        let files = Reader::PyIceberg.files(&source.table).unwrap();
        assert!(files.iter().any(|file| file.sequence != files[0].sequence), "{}: one commit only", source.name);
    }
    for reader in readers {
        let start = Instant::now();
        let rows: usize = sources.iter().map(|source| source.assert_found_by(*reader)).sum();
        let (tables, seconds) = (sources.len(), start.elapsed().as_secs_f32());
        let line = format!("matrix: {lake}, {reader}: {tables} tables, {rows} rows equal ({seconds:.1} s)\n");
        // Past the harness, which shows what a test prints only where the test fails.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

/// Where the changes of a table of the shop are.
fn table_of(connector: &Connector, name: &str) -> Table {
    connector.table(&format!("cdc.{}", name.replace('.', "_")))
}

/// A table of the shop, as PostgreSQL has it.
struct Source {
    name: &'static str,
    /// Where its changes are.
    table: Table,
    source: SourceTable,
    state: State,
    /// How many changes of each kind there were.
    operations: Vec<Row>,
}

impl Source {
    fn of(session: &Session, connector: &Connector, name: &'static str) -> Self {
        let source = SourceTable::read(session, name).unwrap();
        let state = source.state(session).unwrap();
        assert!(state.len() > 1000, "{name}: the shop is empty");
        let short = name.trim_start_matches("public.");
        let operations = session
            .rows(&format!(
                "select operation, count(*) from philotes.cdc_events where table_name = '{short}' group by 1 order by 1"
            ))
            .unwrap();
        Self { name, table: table_of(connector, name), source, state, operations }
    }

    /// Compares every cell, the number of changes, and the files that the reader takes for live with PyIceberg's; gives back
    /// how many rows there are.
    fn assert_found_by(&self, reader: Reader) -> usize {
        let log = reader.rows(&self.table).unwrap();
        let rows = log.rows.len();
        let found = state_of(changes(log, &self.source).unwrap()).unwrap();
        expect_equal(&self.source, &self.state, &found).unwrap_or_else(|e| panic!("as {reader} sees it: {e}"));

        let operations = "select _cdc_operation, count(*) from t group by 1 order by 1";
        let found = reader.query(&self.table, operations).unwrap().rows;
        let found: Vec<Row> =
            found.iter().map(|row| row.iter().map(|cell| cell.as_str().map(str::to_owned)).collect()).collect();
        assert_eq!(found, self.operations, "{}: changes by operation as {reader} sees them", self.name);

        let files = |reader: Reader| {
            let files = reader.files(&self.table).unwrap().into_iter();
            let mut files: Vec<(String, u64)> = files.map(|file| (file.path, file.rows)).collect();
            files.sort();
            files
        };
        assert_eq!(files(reader), files(Reader::PyIceberg), "{}: files as {reader} sees them", self.name);
        rows
    }
}
