//! The real host between real sources and foreign readers.
//!
//! `make build` comes first: the host and the plugins are run as they lie in cargo's target folder.

mod abi;
mod altered;
mod arrival;
mod chaos;
mod command_line;
mod control;
mod crashes;
mod debezium;
mod evolution;
mod exclusive;
mod fenced;
mod foreign;
mod kafka;
mod layout;
mod letters;
mod lineage;
mod loaded;
mod matrix;
mod memory;
mod order;
mod orphans;
mod outages;
mod refusals;
mod refused;
mod rest;
mod secrets;
mod services;
mod sound;
mod stalled;
mod told;
mod torture;
mod under_fire;
mod upsert;

use std::time::Duration;

use philotes_tests::connector::Connector;
use philotes_tests::eventually;
use philotes_tests::readers::{Reader, Table};
use philotes_tests::services::postgres::Postgres;
use philotes_tests::sql::Session;

/// How long anything may take that should take a moment: two slow cores run everything at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connector on a captured table `public.t (id bigint primary key, v integer, who text)`.
fn captured(postgres: &Postgres) -> (Session, Connector) {
    captured_by(postgres, Connector::new(&postgres.dsn()).unwrap())
}

/// The same by this connector.
fn captured_by(postgres: &Postgres, connector: Connector) -> (Session, Connector) {
    let session = postgres.session().unwrap();
    session.batch("create table t (id bigint primary key, v integer not null, who text)").unwrap();
    let connector = connector.source("poll_interval: 100ms");
    connector.capture(&["public.t"]).unwrap();
    (session, connector)
}

/// Waits until DuckDB finds this many rows in a table.
fn wait_for_rows(table: &Table, rows: i64) {
    let mut found = -1;
    let arrived = eventually(PATIENCE, || {
        // Until its first commit there is no table.
        found = Reader::DuckDb.number(table, "select count(*) from t").unwrap_or(-1);
        Ok(found >= rows)
    });
    assert!(arrived.unwrap(), "{rows} rows were expected in {}, {found} are there", table.name);
    assert_eq!(found, rows, "{}", table.name);
}

/// The pairs (id, v) of a table of `t`, sorted, as both readers find them.
fn pairs(table: &Table) -> Vec<(i64, i64)> {
    let found = pairs_by(Reader::DuckDb, table);
    assert_eq!(found, pairs_by(Reader::PyIceberg, table), "the readers differ");
    found
}

/// The pairs (id, v) of a table of `t`, sorted, as one reader finds them.
fn pairs_by(reader: Reader, table: &Table) -> Vec<(i64, i64)> {
    let rows = reader.query(table, "select id, v from t order by 1, 2").unwrap();
    let number = |cell: &serde_json::Value| cell.as_str().unwrap().parse().unwrap();
    rows.rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

/// The pairs (id, v) of all changes of `t`, as PostgreSQL's own log has them, in the order of [`pairs`].
fn pairs_of_log(session: &Session) -> Vec<(i64, i64)> {
    let rows = session
        .rows(
            "select doc ->> 'id', doc ->> 'v' from (select coalesce(after_data, before_data)::jsonb as doc \
             from philotes.cdc_events where table_name = 't') e order by (doc ->> 'id')::bigint, (doc ->> 'v')::bigint",
        )
        .unwrap();
    let number = |cell: &Option<String>| cell.as_ref().unwrap().parse().unwrap();
    rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

/// Asserts that every row of the buffer has been acknowledged, within a moment.
fn assert_acknowledged(session: &Session) {
    let waiting = "select count(*) from philotes.cdc_events where processed_at is null";
    let done = eventually(PATIENCE, || Ok(session.number(waiting)? == 0)).unwrap();
    assert!(done, "{} rows are not acknowledged", session.one(waiting).unwrap());
}
