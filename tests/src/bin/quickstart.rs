//! `make quickstart`: a shop in a private PostgreSQL, its changes in Iceberg tables while they happen, and a comparison of
//! both as foreign readers see it.
//!
//! Starts everything it needs and stops it again, also after a failure or Ctrl-C. The tables stay under
//! `target/quickstart` until the next run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use philotes_tests::host::{Host, philotes_in};
use philotes_tests::readers::{self, Reader, Table};
use philotes_tests::services::postgres::{Options, Postgres};
use philotes_tests::sql::Session;
use philotes_tests::{interrupt, services, shop, target};
use serde_json::Value;

/// Customers of a round; each brings about seven changes of rows.
const CUSTOMERS: u32 = 1000;
/// How many rows the shop changes at least.
const CHANGES: u64 = 100_000;
/// How long the rest may take to arrive once the shop has closed.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    interrupt::run("quickstart", || {
        let equal = run()?;
        if equal {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("quickstart: the tables are not what PostgreSQL has");
        Ok(ExitCode::FAILURE)
    })
}

fn run() -> Result<bool> {
    step("PyIceberg and DuckDB, to read the tables as others do (installed once, below target/)");
    services::install(&["initdb:postgresql", "ensurepip:python3-venv"])?;
    readers::install()?;

    step("A private PostgreSQL: data and socket in a temporary folder, no port");
    let postgres = Postgres::start(Options::default())?;
    let session = postgres.session()?;
    let lake = empty_lake()?;
    // The connector is the file that the repository ships; its variables say where.
    let file = target::repository().join("connectors/quickstart.yaml");
    let environment = [("PHILOTES_BUFFER_DSN", postgres.dsn()), ("PHILOTES_LAKE", lake.display().to_string())];

    step("A small shop: customers, orders, order_items; triggers write each change into the buffer");
    shop::create(&session)?;
    act(&file, &environment, &["source", "init"])?;
    for table in shop::TABLES {
        act(&file, &environment, &["source", "capture", &format!("table={table}")])?;
    }

    step(&format!("philotes run {}", shown(&file)));
    let mut host = Host::start_in(&environment, &file, &lake.join("host.log"), &[])?;
    open_shop(&postgres, &session, &mut host)?;
    host.terminate()?;

    let mut equal = true;
    for name in shop::TABLES {
        equal &= compare(&session, &lake, name)?;
    }
    orders_by_status(&lake)?;
    look_further(&lake)?;
    Ok(equal)
}

fn step(what: &str) {
    println!("\n• {what}");
}

/// An empty folder for catalog, warehouse and log.
fn empty_lake() -> Result<PathBuf> {
    let lake = target::root().join("quickstart");
    if lake.exists() {
        std::fs::remove_dir_all(&lake).with_context(|| format!("cannot empty {}", lake.display()))?;
    }
    std::fs::create_dir_all(&lake).with_context(|| format!("cannot make {}", lake.display()))?;
    Ok(std::fs::canonicalize(&lake)?)
}

/// A path as somebody in the repository's folder types it.
fn shown(path: &Path) -> String {
    let repository = std::fs::canonicalize(target::repository()).unwrap_or_default();
    path.strip_prefix(&repository).unwrap_or(path).display().to_string()
}

fn act(file: &Path, environment: &[(&str, String)], action: &[&str]) -> Result<()> {
    println!("  philotes action {} {}", shown(file), action.join(" "));
    let mut arguments = vec!["action", file.to_str().context("a path that is no text")?];
    arguments.extend(action);
    philotes_in(environment, &arguments)?.success()?;
    Ok(())
}

/// Changes rows while the host runs, then waits until everything has arrived.
fn open_shop(postgres: &Postgres, session: &Session, host: &mut Host) -> Result<()> {
    let started = Instant::now();
    let dsn = postgres.dsn();
    let business = std::thread::spawn(move || -> Result<u64> {
        let session = Session::connect(&dsn)?;
        let (mut changes, mut round) = (0, 0);
        while changes < CHANGES {
            changes += shop::trade(&session, round, CUSTOMERS)?;
            round += 1;
        }
        Ok(changes)
    });
    let mut closed: Option<Instant> = None;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let open = !business.is_finished();
        let counts = session.rows("select count(*), count(processed_at) from philotes.cdc_events")?;
        let count = |column: usize| counts.first().and_then(|row| row[column].clone()).unwrap_or_default();
        println!(
            "  {:>3} s: {:>7} rows changed, {:>7} of them in Iceberg",
            started.elapsed().as_secs(),
            count(0),
            count(1)
        );
        if !open && count(0) == count(1) {
            break;
        }
        if !host.is_running()? {
            bail!("the host ended: {}", host.log_tail());
        }
        let since = *closed.get_or_insert_with(Instant::now);
        if open {
            closed = None;
        } else if since.elapsed() > PATIENCE {
            bail!("not everything arrived within {PATIENCE:?}: {}", host.log_tail());
        }
    }
    let changes = business.join().map_err(|_| anyhow::anyhow!("the shop's thread panicked"))??;
    println!(
        "  the shop changed {changes} rows; all arrived within {:.0} s of opening",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What is compared of a table as it is now: in PostgreSQL's words, and in DuckDB's where they differ.
fn facts(table: &str) -> &'static [(&'static str, &'static str)] {
    match table {
        "public.customers" => &[
            ("count(*)", "count(*)"),
            ("sum(credit)", "sum(credit)"),
            ("sum(cardinality(tags))", "sum(len(tags))"),
            ("count(profile)", "count(profile)"),
        ],
        "public.orders" => &[
            ("count(*)", "count(*)"),
            ("sum(total)", "sum(total)"),
            ("sum(points[1])", "sum(points[1])"),
            ("sum(extract(minute from placed_at))", "sum(extract(minute from placed_at::timestamp))"),
        ],
        _ => &[
            ("count(*)", "count(*)"),
            ("sum(unit_price)", "sum(unit_price)"),
            ("sum(quantity)", "sum(quantity)"),
            ("count(weight)", "count(weight)"),
        ],
    }
}

/// Prints a table as PostgreSQL has it beside what both readers find; whether they are equal.
fn compare(session: &Session, lake: &Path, name: &str) -> Result<bool> {
    let table = iceberg_table(lake, name);
    println!("\n{name} → {}", table.name);
    println!("  {:46}{:>22}{:>22}{:>22}", "", "PostgreSQL", "PyIceberg", "DuckDB");
    let mut equal = true;
    let mut line = |what: &str, expected: &str, found: [&str; 2]| {
        let same = found.iter().all(|found| *found == expected);
        equal &= same;
        println!("  {what:46}{expected:>22}{:>22}{:>22}{}", found[0], found[1], if same { "" } else { "  differs" });
    };

    let short = name.trim_start_matches("public.");
    for operation in ["INSERT", "UPDATE", "DELETE"] {
        let changes = "select count(*) from philotes.cdc_events";
        let expected = session.one(&format!("{changes} where table_name = '{short}' and operation = '{operation}'"))?;
        let [py, duck] = ask_both(&table, &format!("select count(*) from t where _cdc_operation = '{operation}'"))?;
        line(&format!("changes: {operation}"), &expected, [&py[0], &duck[0]]);
    }

    let facts = facts(name);
    let theirs: Vec<&str> = facts.iter().map(|fact| fact.0).collect();
    let expected = session.rows(&format!("select {} from {name}", theirs.join(", ")))?.pop().context("no sums")?;
    let ours: Vec<&str> = facts.iter().map(|fact| fact.1).collect();
    let [py, duck] = ask_both(&table, &format!("select {} from ({})", ours.join(", "), table_now(name)))?;
    for (index, (fact, _)) in facts.iter().enumerate() {
        let expected = expected[index].clone().unwrap_or_default();
        line(&format!("rows now: {fact}"), &expected, [&py[index], &duck[index]]);
    }

    let count = |what: &str, py: usize, duck: usize| println!("  {what:46}{:>22}{py:>22}{duck:>22}", "");
    count("snapshots", Reader::PyIceberg.snapshots(&table)?.len(), Reader::DuckDb.snapshots(&table)?.len());
    count("data files", Reader::PyIceberg.files(&table)?.len(), Reader::DuckDb.files(&table)?.len());
    Ok(equal)
}

fn iceberg_table(lake: &Path, name: &str) -> Table {
    Table::new(&lake.join("catalog.db"), &format!("cdc.{}", name.replace('.', "_")))
}

/// The first row of a query, from PyIceberg and from DuckDB.
fn ask_both(table: &Table, sql: &str) -> Result<[Vec<String>; 2]> {
    let ask = |reader: Reader| -> Result<Vec<String>> {
        let row = reader.query(table, sql)?.rows.into_iter().next().context("no row")?;
        Ok(row.iter().map(|cell| cell.as_str().unwrap_or_default().to_owned()).collect())
    };
    Ok([ask(Reader::PyIceberg)?, ask(Reader::DuckDb)?])
}

/// The log of changes, replayed: each key's last change, unless it is a DELETE. In DuckDB's SQL.
fn table_now(name: &str) -> String {
    let key = shop::key(name).join(", ");
    format!(
        "select * from (select * from t qualify row_number() over (partition by {key} order by \
         ('0x' || split_part(_cdc_lsn, '/', 1))::ubigint desc, ('0x' || split_part(_cdc_lsn, '/', 2))::ubigint desc) = 1) \
         where _cdc_operation <> 'DELETE'"
    )
}

/// One small question to one table, as an analyst would ask it.
fn orders_by_status(lake: &Path) -> Result<()> {
    let sql = format!(
        "select status, count(*) as orders, sum(total) as total from ({}) group by status order by status",
        table_now("public.orders")
    );
    let found = Reader::DuckDb.query(&iceberg_table(lake, "public.orders"), &sql)?;
    println!("\nOrders by status, asked of DuckDB\n  {:12}{:>12}{:>24}", "status", "orders", "total");
    for row in found.rows {
        let cell = |index: usize| row.get(index).and_then(Value::as_str).unwrap_or("null").to_owned();
        println!("  {:12}{:>12}{:>24}", cell(0), cell(1), cell(2));
    }
    Ok(())
}

/// How to go on: lines that can be pasted as they are.
fn look_further(lake: &Path) -> Result<()> {
    let python = target::root().join("readers/venv/bin/python");
    let metadata = iceberg_table(lake, "public.orders").metadata_location()?;
    println!(
        "\nThe tables stay in {lake}; look further with

{python} - <<'END'
import duckdb
from duckdb_extensions import import_extension
for extension in (\"avro\", \"iceberg\"):
    import_extension(extension)
    duckdb.load_extension(extension)
print(duckdb.sql(\"from iceberg_scan('{metadata}') limit 5\"))
END

{python} - <<'END'
from pyiceberg.catalog.sql import SqlCatalog
catalog = SqlCatalog(\"philotes\", uri=\"sqlite:///{lake}/catalog.db\")
for row in catalog.load_table(\"cdc.public_orders\").scan(limit=5).to_arrow().to_pylist():
    print(row)
END

The host's log: {lake}/host.log",
        lake = lake.display(),
        python = python.display(),
    );
    Ok(())
}
