//! `--fan-out`: many streams of wide rows with large values, each row of another stream than the one before, into a task with
//! little memory.

use anyhow::{Context, Result, bail};
use philotes_tests::connector::Connector;
use philotes_tests::readers::Reader;
use philotes_tests::services::postgres::Postgres;

use crate::buffer::{self, Database};
use crate::measured::{self, Measured};

/// Rows per stream.
const ROWS: u64 = 8;
/// One row in this many has a large value.
const ONE_IN: u64 = 4;
/// Columns of each stream, `id` and the large value among them.
const COLUMNS: u64 = 100;
/// Tables whose rows a foreign reader reads as well.
const READ: usize = 8;

/// Runs it under each limit, in MiB.
pub(crate) fn run(
    postgres: &Postgres,
    streams: u64,
    limits: &[u64],
    into: impl Fn(&str) -> Result<Connector>,
) -> Result<()> {
    let rows = streams * ROWS;
    println!("{streams} streams, {rows} rows of {COLUMNS} columns, one in {ONE_IN} with a value of 1 MiB\n");
    let empty = buffer::database(postgres, "at_rest")?;
    let full = buffer::database(postgres, "fan_out")?;
    fill(&full, rows, streams)?;
    drop(full);

    Measured::header();
    measured::until_idle(&into(empty.dsn())?, 0)?.print("at rest: nothing to do");
    for limit in limits {
        let dsn = buffer::copy_database(postgres, "fan_out")?;
        let connector = into(&dsn)?
            .source("acknowledge: delete")
            // Only memory is a reason to commit.
            .top("commit: {interval: 1h, max_rows: 1000000000, max_bytes: 64GiB}")
            .top(&format!("max_memory: {limit}MiB"));
        let measured = measured::until_idle(&connector, rows)?;
        measured.print(&format!("max_memory: {limit}MiB"));
        check(&connector, streams)?;
        buffer::drop_copy(postgres)?;
    }
    Ok(())
}

/// Fills the buffer, streams in turn.
fn fill(database: &Database, rows: u64, streams: u64) -> Result<()> {
    let columns: Vec<String> = (0..COLUMNS)
        .map(|column| {
            let (name, kind) = match column {
                0 => ("id".to_owned(), "bigint"),
                1 => ("large".to_owned(), "text"),
                _ => (
                    format!("c{column}"),
                    ["text", "bigint", "numeric(14,2)", "timestamp with time zone"][column as usize % 4],
                ),
            };
            format!(r#"{{"name": "{name}", "type": "{kind}", "nullable": true}}"#)
        })
        .collect();
    let last = COLUMNS - 1;
    let session = database.session();
    session.batch("set synchronous_commit = off")?;
    // Random, so that nothing shrinks it to nothing.
    session.batch(
        "create temporary table large as select string_agg(encode(sha512(random()::text::bytea), 'base64'), '') as value \
         from generate_series(1, 12500)",
    )?;
    session
        .batch(&format!(
            "insert into philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, \
             key_columns, after_data, metadata, event_time) \
             select 'shop', 'public', 't' || i % {streams}, 'INSERT', '0/' || upper(to_hex(i)), i, '[\"id\"]', \
             jsonb_build_object('id', i, 'large', case when (i / {streams}) % {ONE_IN} = i % {ONE_IN} \
               then left(i || translate(value, E'\\n', ''), 1048576) end) || \
             (select jsonb_object_agg('c' || n, case n % 4 when 0 then to_jsonb(md5(n || ' ' || i)) when 1 then to_jsonb(n * i) \
               when 2 then to_jsonb((n * i % 1000000)::numeric(14, 2)) else to_jsonb(timestamptz '2026-01-01' + n * i * interval '1 ms') end) \
               from generate_series(2, {last}) n), \
             '{{\"columns\": [{}]}}', now() + i * interval '1 microsecond' \
             from generate_series(0::bigint, {} - 1) i, large",
            columns.join(", "),
            rows,
        ))
        .context("cannot fill the buffer")?;
    session.batch("vacuum analyze philotes.cdc_events")?;
    session.batch("checkpoint")
}

/// Every table has its rows: all by the totals of their snapshots, some by reading them.
fn check(connector: &Connector, streams: u64) -> Result<()> {
    let mut snapshots = 0;
    for stream in 0..streams {
        let table = connector.table(&format!("cdc.public_t{stream}"));
        let history = Reader::PyIceberg.snapshots(&table)?;
        let total = history.last().and_then(|last| last.summary["total-records"].as_str()?.parse::<u64>().ok());
        if total != Some(ROWS) {
            bail!("{}: {total:?} records, not {ROWS}", table.name);
        }
        snapshots += history.len();
    }
    for stream in (0..streams).step_by((streams as usize / READ).max(1)) {
        let table = connector.table(&format!("cdc.public_t{stream}"));
        let sql = "select count(distinct id) * 100000000 + sum(coalesce(length(large), 0)) from t";
        let found = Reader::DuckDb.number(&table, sql)?;
        let expected = (ROWS * 100_000_000 + ROWS / ONE_IN * (1 << 20)).cast_signed();
        if found != expected {
            bail!("{}: {found} by ids and lengths, not {expected}", table.name);
        }
    }
    println!("    each table has its {ROWS} rows, in {snapshots} snapshots altogether");
    Ok(())
}
