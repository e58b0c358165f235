//! Columns come, become wider, are renamed and go while rows stream and the host is killed: what is in the lake is what is in
//! PostgreSQL. `make evolution` does it with 50 columns, 200,000 rows and five kills.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use philotes_tests::connector::Connector;
use philotes_tests::equal::expect_same;
use philotes_tests::host::Host;
use philotes_tests::postgres_or_skip;
use philotes_tests::readers::{READERS, Reader};
use philotes_tests::sql::Session;
use philotes_tests::torture::prepare;

/// Columns, rows and kills of `make test`.
const SMALL: [i64; 3] = [10, 10_000, 2];
/// Rows of an INSERT.
const BATCH: i64 = 100;
const WRITERS: i64 = 2;

/// A type, how its values are drawn, and the type that it becomes.
const TYPES: [(&str, &str, &str); 8] = [
    ("smallint", "draw.whole(-32768, 32767)", "integer"),
    ("integer", "draw.whole(-2147483648, 2147483647)", "bigint"),
    ("real", "draw.float(-30, 38)", "double precision"),
    ("numeric(10,2)", "draw.exact(10, 2)", "numeric(19,2)"),
    ("character varying(20)", "draw.text(20)", "text"),
    ("integer[]", "array[draw.whole(-9, 9), null]", "bigint[]"),
    ("numeric(5,5)", "draw.exact(5, 5)", "numeric(38,5)"),
    ("real[]", "array[draw.float(-30, 38)]", "double precision[]"),
];

/// What is done to the table, in this order: at each step one column comes, the one before becomes wider, the one before that is
/// renamed, and of those before every third goes.
fn alterations(columns: i64) -> Vec<String> {
    let mut all = Vec::new();
    for step in 0..columns + 3 {
        let column = |back: i64| usize::try_from(step - back).ok().filter(|number| *number < columns as usize);
        if let Some(number) = column(0) {
            let (kind, draw, _) = TYPES[number % TYPES.len()];
            // A default only from now on: the rows that are there are not changed by it.
            all.push(format!("add c{number} {kind}, alter c{number} set default ({draw})::{kind}"));
        }
        if let Some(number) = column(1) {
            let (.., wider) = TYPES[number % TYPES.len()];
            all.push(format!("alter c{number} type {wider}"));
        }
        if let Some(number) = column(2) {
            all.push(format!("rename c{number} to \"column {number}\""));
        }
        if let Some(number) = column(3).filter(|number| number % 3 == 0) {
            all.push(format!("drop \"column {number}\""));
        }
    }
    all
}

/// Inserts rows, and changes and deletes some of those that are there.
fn write(dsn: String, writer: i64, rows: i64, written: Arc<AtomicI64>) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let session = Session::connect(&dsn)?;
        for first in (writer * rows..(writer + 1) * rows).step_by(BATCH as usize) {
            session.batch(&format!(
                "insert into t (id, v) select i, i from generate_series({first}, {}) i; \
                 update t set v = v + 1 where id in (select {first} - i * 37 from generate_series(1, 10) i); \
                 delete from t where id = {first} - 333",
                first + BATCH - 1
            ))?;
            written.fetch_add(BATCH, Ordering::Relaxed);
        }
        Ok(())
    })
}

#[test]
fn the_lake_follows_a_table_that_is_altered_under_load() {
    let Some(postgres) = postgres_or_skip() else { return };
    let sizes = std::env::var("PHILOTES_EVOLUTION").ok();
    let [columns, rows, kills] = sizes.map_or(SMALL, |sizes| {
        let sizes: Vec<i64> = sizes.split_whitespace().map(|size| size.parse().unwrap()).collect();
        sizes.try_into().expect("columns, rows and kills")
    });
    let session = postgres.session().unwrap();
    prepare(&session, 0.5).unwrap();
    session.batch("create table t (id bigint primary key, v bigint not null)").unwrap();
    let connector = Connector::new(&postgres.dsn())
        .unwrap()
        .source("poll_interval: 100ms")
        .sink("evolve: full")
        .sink("dropped_columns: drop")
        .top("commit: {interval: 200ms}");
    connector.capture(&["public.t"]).unwrap();

    let start = Instant::now();
    let written = Arc::new(AtomicI64::new(0));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| write(postgres.dsn(), writer, rows / WRITERS, Arc::clone(&written))).collect();
    let mut host = Host::start(&connector, &[]).unwrap();
    let alterations = alterations(columns);
    let mut killed = 0;
    for (number, alteration) in alterations.iter().enumerate() {
        let due = |of: i64| rows * of / alterations.len() as i64;
        while written.load(Ordering::Relaxed) < due(number as i64) && !writers.iter().any(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if (number as i64 + 1) * (kills + 1) / (alterations.len() as i64) > killed && killed < kills {
            killed += 1;
            assert!(host.is_running().unwrap(), "{}", host.log_tail());
            host.kill9();
            host = Host::start(&connector, &[]).unwrap();
        }
        session.batch(&format!("alter table t {alteration}")).unwrap();
    }
    for writer in writers {
        writer.join().unwrap().unwrap();
    }
    // The last of them is seen with a row that comes after it.
    session.batch("insert into t (id, v) values (-1, -1)").unwrap();
    assert!(host.is_running().unwrap(), "{}", host.log_tail());
    host.kill9();
    Host::until_idle(&connector).unwrap();
    let streamed = start.elapsed().as_secs_f32();

    let table = connector.table("cdc.public_t");
    expect_columns(&session, &connector).unwrap();
    for reader in READERS {
        let changes = expect_same(&session, "shop", "public.t", reader, &table).unwrap();
        let line = format!(
            "under fire, {reader}: {changes} changes equal after {} alterations and {killed} kills in {streamed:.0} s\n",
            alterations.len()
        );
        // Past the harness, which shows what a test prints only where the test fails.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

/// The lake's table has the source's columns, in its order, and no others.
fn expect_columns(session: &Session, connector: &Connector) -> Result<()> {
    let source = philotes_tests::source_table::SourceTable::read(session, "public.t")?;
    let columns = Reader::PyIceberg.schema(&connector.table("cdc.public_t"))?;
    let names: Vec<&str> =
        columns.iter().map(|column| column.name.as_str()).filter(|name| !name.starts_with("_cdc_")).collect();
    ensure!(names == source.names().collect::<Vec<_>>(), "the columns are {names:?}");
    Ok(())
}
