//! `--upsert`: what it costs to keep a table equal to its source, beside a log of the same changes: writing it, and reading it
//! once many commits have left their delete files.

use anyhow::{Result, ensure};
use philotes_tests::connector::Connector;
use philotes_tests::readers::{Dangling, Reader, Table, measure_with_spark};
use philotes_tests::services::postgres::Postgres;
use serde_json::json;

use crate::measured::{self, Measured};
use crate::{buffer, configured};

/// How many changes there are for each order of the second run, which is mostly updates.
const CHANGES: u64 = 10;
/// Updates of a commit.
const UPDATES: u64 = 5_000;
const TABLE: &str = "cdc.public_orders";
/// How often a table is read; the time is the median.
const SCANS: usize = 3;
/// DuckDB (1.5.5) compares every row with every key that is deleted; with more comparisons than this it is not asked.
const MAX_COMPARISONS: u64 = 10_000_000_000;
/// Every column is read.
const SCAN: &str = "select count(*), sum(id), sum(customer_id), sum(length(status)), sum(total), sum(quantity), max(placed_at), \
                    sum(length(email)), sum(length(note)) from t";

/// How fast changes are written.
pub(crate) fn write(postgres: &Postgres, rows: u64) -> Result<()> {
    let orders = rows.div_ceil(CHANGES);
    println!("{rows} changes of eight columns; measured from the start of the host to its end\n");
    buffer::database(postgres, "inserts")?.fill_changes(rows, rows)?;
    buffer::database(postgres, "updates")?.fill_changes(rows, orders)?;
    Measured::header();
    let mut ratios = Vec::new();
    for (template, what, live) in
        [("inserts", "inserts".to_owned(), rows), ("updates", format!("{orders} orders, updated"), orders)]
    {
        let [append, upsert] = [("append", rows), ("upsert", live)].map(|(mode, found)| {
            let dsn = buffer::copy_database(postgres, template)?;
            let connector = configured(Connector::new(&dsn)?, "delete").sink(&format!("mode: {mode}"));
            let measured = measured::until_idle(&connector, rows)?;
            measured.print(&format!("{mode}, {what}"));
            expect_rows(&connector.table(TABLE), found)?;
            buffer::drop_copy(postgres)?;
            anyhow::Ok(measured)
        });
        ratios.push((what, append?, upsert?));
    }
    println!();
    for (what, append, upsert) in ratios {
        println!(
            "{what}: {:.2} of append in rows/s, {:.2} in rows per CPU-second",
            upsert.rows_per_second() / append.rows_per_second(),
            upsert.rows_per_cpu_second() / append.rows_per_cpu_second(),
        );
    }
    Ok(())
}

/// What reading costs after commits of updates.
pub(crate) fn read(postgres: &Postgres, rows: u64, commits: u64) -> Result<()> {
    measure_with_spark();
    println!("{rows} rows, then {commits} commits of {UPDATES} updates each, then Spark's rewrite_data_files\n");
    let database = buffer::database(postgres, "log")?;
    database.fill_changes(rows, rows)?;
    let log = configured(Connector::new(database.dsn())?, "delete");
    let database = buffer::database(postgres, "kept")?;
    database.fill_changes(rows, rows)?;
    let kept = configured(Connector::new(database.dsn())?, "delete").sink("mode: upsert");
    Measured::header();
    measured::until_idle(&log, rows)?.print("append, inserts");
    measured::until_idle(&kept, rows)?.print("upsert, inserts");
    let table = kept.table(TABLE);
    let before = Reader::PyIceberg.snapshots(&table)?.len() as u64;
    let base = Scan::of(&log.table(TABLE), rows)?;
    let loaded = Scan::of(&table, rows)?;

    let updates = commits * UPDATES;
    database.fill_updates(updates, rows)?;
    let kept = kept
        .source(&format!("batch_rows: {UPDATES}"))
        .top(&format!("commit: {{interval: 1h, max_rows: {UPDATES}, max_bytes: 1GiB}}"));
    measured::until_idle(&kept, updates)?.print("upsert, updates");
    let made = Reader::PyIceberg.snapshots(&table)?.len() as u64 - before;
    ensure!(made == commits, "{commits} commits were to be made, {made} were");
    let updated = Scan::of(&table, rows)?;
    table.rewrite_as_somebody_else(Dangling::Remove)?;
    let compacted = Scan::of(&table, rows)?;

    println!(
        "\n{:40}{:>6}{:>9}{:>10}{:>10}{:>7}{:>10}{:>7}",
        "every column is read", "files", "deletes", "of rows", "DuckDB s", "ratio", "Spark s", "ratio"
    );
    base.print("append", &base);
    loaded.print("upsert, inserted", &base);
    updated.print(&format!("upsert, after {commits} commits of updates"), &base);
    compacted.print("upsert, compacted", &base);
    Ok(())
}

/// What a table is, and how long it takes to read it.
struct Scan {
    files: usize,
    delete_files: usize,
    deleted: u64,
    /// DuckDB's and Spark's, in seconds; `None` where it was not asked.
    seconds: [Option<f64>; 2],
}

impl Scan {
    /// Reads a table that has so many rows.
    fn of(table: &Table, rows: u64) -> Result<Self> {
        let deletes = Reader::PyIceberg.delete_files(table)?;
        let deleted = deletes.iter().map(|file| file.rows).sum();
        let mut seconds = [None; 2];
        for (reader, seconds) in [Reader::DuckDb, Reader::Spark].into_iter().zip(&mut seconds) {
            if reader == Reader::DuckDb && rows * deleted > MAX_COMPARISONS {
                continue;
            }
            // Right, first of all; and its program is warm then.
            let found = reader.query(table, "select count(*), sum(id) from t")?.rows;
            let expected = [rows, rows * (rows + 1) / 2].map(|number| json!(number.to_string()));
            ensure!(found == [expected], "{reader} finds {found:?} in {}", table.name);
            let times: Result<Vec<f64>> = (0..SCANS).map(|_| reader.seconds(table, SCAN)).collect();
            *seconds = Some(measured::median(&mut times?));
        }
        Ok(Self { files: Reader::PyIceberg.files(table)?.len(), delete_files: deletes.len(), deleted, seconds })
    }

    fn print(&self, what: &str, base: &Self) {
        let cells = self.seconds.iter().zip(&base.seconds).map(|(seconds, base)| match (seconds, base) {
            (Some(seconds), Some(base)) => format!("{seconds:>10.2}{:>7.1}", seconds / base),
            _ => format!("{:>10}{:>7}", "-", ""),
        });
        let cells: String = cells.collect();
        println!("{what:40}{:>6}{:>9}{:>10}{cells}", self.files, self.delete_files, self.deleted);
    }
}

fn expect_rows(table: &Table, rows: u64) -> Result<()> {
    let found = Reader::DuckDb.number(table, "select count(*) from t")?;
    ensure!(u64::try_from(found).ok() == Some(rows), "{rows} rows were to be in the table, {found} are");
    Ok(())
}
