//! `make bench`: how fast the host moves a full buffer into Iceberg tables, beside what the machine can do at all.
//!
//! Every number comes from one run of this program on one machine, so the ratios mean something and the absolutes only a
//! little. Options (`make bench BENCH="--processed 5000000"`):
//!
//! - none: `--buffer`, then `--upsert` and `--kafka`
//! - `--buffer`: both ways of acknowledging, all rows wanted and one in ten, the roofline, the ratios; `ROWS` rows (1,000,000)
//! - `--processed N`: the same rows behind N processed ones; a poll must not cost more
//! - `--backlog N`: N rows instead of `ROWS`; a poll must not cost more, memory must not grow
//! - `--commits N`: N commits of ten rows; the last hundred beside the first hundred; `--commits N rest`: through a REST catalog
//!   into S3
//! - `--fan-out N`: N streams of wide rows with large values under several limits of memory, and the host's peak RSS beside
//!   each; `--fan-out N rest`: through a REST catalog into S3; `LIMITS` are the limits in MiB (64 128 256)
//! - `--upsert`: `ROWS` rows (1,000,000) into a log and into a table that is kept equal to its source, inserts and updates; then what
//!   reading costs after `COMMITS` commits (200) of 5,000 updates each, as it is and after Spark has compacted the table, beside a
//!   log of as many rows; `--upsert write` and `--upsert read`: one of them alone
//! - `--kafka`: a topic of `MESSAGES` messages (5,000,000) into a table, beside the Iceberg project's own Kafka Connect sink;
//!   `--kafka philotes` and `--kafka connect`: one of them alone
//! - `--cold-start`: from the start of the process to a commit on an existing table

mod buffer;
mod fan_out;
mod kafka;
mod measured;
mod roofline;
mod upsert;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use philotes_tests::connector::Connector;
use philotes_tests::interrupt;
use philotes_tests::readers::Reader;
use philotes_tests::services::iceberg_rest::IcebergRest;
use philotes_tests::services::minio::Minio;
use philotes_tests::services::postgres::{Options, Postgres};

use buffer::Wanted;
use kafka::Who;
use measured::Measured;

fn main() -> ExitCode {
    interrupt::run("bench", || {
        run(&std::env::args().skip(1).collect::<Vec<_>>())?;
        Ok(ExitCode::SUCCESS)
    })
}

fn run(arguments: &[String]) -> Result<()> {
    let rows = match std::env::var("ROWS") {
        Ok(rows) => rows.parse().context("ROWS is a number of rows")?,
        Err(_) => 1_000_000,
    };
    let number = |text: &String| text.parse::<u64>().with_context(|| format!("{text:?} is no number"));
    match arguments {
        [] => {
            throughput(rows)?;
            println!();
            upsert::write(&server()?, rows)?;
            println!();
            upsert::read(&server()?, rows, commits_of_updates()?)?;
            println!();
            kafka::run(messages()?, Who::Both)
        }
        [option] if option == "--buffer" => throughput(rows),
        [option, n] if option == "--processed" => beside_processed(rows, number(n)?),
        [option, n] if option == "--backlog" => backlog(rows, number(n)?),
        [option, n] if option == "--commits" => commits(number(n)?, Connector::new),
        [option, n, catalog] if option == "--commits" && catalog == "rest" => {
            let minio = Minio::start()?;
            let rest = IcebergRest::start(&minio)?;
            commits(number(n)?, |dsn| Connector::rest(dsn, &rest, &minio))
        }
        [option, n] if option == "--fan-out" => fan_out::run(&server()?, number(n)?, &limits()?, Connector::new),
        [option, n, catalog] if option == "--fan-out" && catalog == "rest" => {
            let minio = Minio::start()?;
            let rest = IcebergRest::start(&minio)?;
            fan_out::run(&server()?, number(n)?, &limits()?, |dsn| Connector::rest(dsn, &rest, &minio))
        }
        [option] if option == "--upsert" => {
            upsert::write(&server()?, rows)?;
            println!();
            upsert::read(&server()?, rows, commits_of_updates()?)
        }
        [option, what] if option == "--upsert" && what == "write" => upsert::write(&server()?, rows),
        [option, what] if option == "--upsert" && what == "read" => {
            upsert::read(&server()?, rows, commits_of_updates()?)
        }
        [option] if option == "--kafka" => kafka::run(messages()?, Who::Both),
        [option, who] if option == "--kafka" && who == "philotes" => kafka::run(messages()?, Who::Philotes),
        [option, who] if option == "--kafka" && who == "connect" => kafka::run(messages()?, Who::Connect),
        [option] if option == "--cold-start" => cold_start(),
        _ => bail!(
            "bench [--buffer | --processed N | --backlog N | --commits N [rest] | --fan-out N [rest] | --upsert [write | read] | --kafka [philotes | connect] | --cold-start]"
        ),
    }
}

/// How many messages a topic has.
fn messages() -> Result<u64> {
    let messages = std::env::var("MESSAGES").unwrap_or_else(|_| "5000000".to_owned());
    messages.parse().context("MESSAGES is a number of messages")
}

/// How many commits of updates there are before a table is read.
fn commits_of_updates() -> Result<u64> {
    let commits = std::env::var("COMMITS").unwrap_or_else(|_| "200".to_owned());
    commits.parse().context("COMMITS is a number of commits")
}

/// The limits of memory, in MiB.
fn limits() -> Result<Vec<u64>> {
    let limits = std::env::var("LIMITS").unwrap_or_else(|_| "64 128 256".to_owned());
    limits.split_whitespace().map(|limit| limit.parse().context("LIMITS are numbers of MiB")).collect()
}

/// A server for a benchmark: it keeps its promises, as in production.
fn server() -> Result<Postgres> {
    Postgres::start(Options::default())
}

fn connector(dsn: &str, acknowledge: &str) -> Result<Connector> {
    Ok(configured(Connector::new(dsn)?, acknowledge))
}

fn configured(connector: Connector, acknowledge: &str) -> Connector {
    connector
        .source(&format!("acknowledge: {acknowledge}"))
        .sink("partition_by: [day(_cdc_timestamp) as date]")
        .top("commit: {interval: 10s, max_rows: 1000000, max_bytes: 128MiB}")
        .top("route: {include: [public.orders]}")
}

/// Runs a connector until it is idle and checks that the table has all rows.
fn drain(connector: &Connector, rows: u64) -> Result<Measured> {
    let measured = measured::until_idle(connector, rows)?;
    let found = Reader::DuckDb.number(&connector.table("cdc.public_orders"), "select count(*) from t")?;
    if u64::try_from(found).ok() != Some(rows) {
        bail!("{rows} rows were to arrive, {found} did");
    }
    Ok(measured)
}

fn throughput(rows: u64) -> Result<()> {
    println!("{rows} rows of eight columns; measured from the start of the host to its end\n");
    let postgres = server()?;
    buffer::database(&postgres, "all_wanted")?.fill(rows, Wanted::All)?;
    buffer::database(&postgres, "one_in_ten")?.fill(rows, Wanted::OneInTen)?;

    Measured::header();
    let all = buffer::open(&postgres, "all_wanted")?;
    let copy = roofline::copy(&all, rows, true)?;
    copy.print("COPY to nowhere, all columns");
    roofline::copy(&all, rows, false)?.print("COPY to nowhere, without metadata");
    let encode = roofline::json_to_parquet(&all, rows)?;
    encode.print("JSON → Arrow → Parquet, one thread");
    drop(all);

    let mut ratios = Vec::new();
    for acknowledge in ["delete", "mark"] {
        for (name, template, wanted) in
            [("all wanted", "all_wanted", rows), ("one in ten wanted", "one_in_ten", rows.div_ceil(10))]
        {
            let dsn = buffer::copy_database(&postgres, template)?;
            let measured = drain(&connector(&dsn, acknowledge)?, wanted)?;
            measured.print(&format!("{acknowledge}, {name}"));
            buffer::drop_copy(&postgres)?;
            if wanted == rows {
                ratios.push((acknowledge, measured));
            }
        }
    }
    println!();
    for (acknowledge, measured) in ratios {
        println!(
            "{acknowledge}: {:.2} of COPY in rows/s, {:.2} of JSON → Arrow → Parquet in rows per CPU-second",
            measured.rows_per_second() / copy.rows_per_second(),
            measured.rows_per_cpu_second() / encode.rows_per_cpu_second(),
        );
    }
    println!("aimed at with delete: 0.60 and 0.50; peak RSS below 256 MiB");
    Ok(())
}

fn beside_processed(rows: u64, processed: u64) -> Result<()> {
    let postgres = server()?;
    let mut found = Vec::new();
    Measured::header();
    for (name, before) in [("empty", 0), ("processed", processed)] {
        let database = buffer::database(&postgres, name)?;
        database.fill_processed(before)?;
        database.fill(rows, Wanted::All)?;
        let measured = drain(&connector(database.dsn(), "mark")?, rows)?;
        measured.print(&format!("mark, behind {before} processed rows"));
        found.push(measured);
    }
    print_change(&found);
    Ok(())
}

fn backlog(rows: u64, backlog: u64) -> Result<()> {
    let postgres = server()?;
    let mut found = Vec::new();
    Measured::header();
    for (name, rows) in [("small", rows), ("large", backlog)] {
        let database = buffer::database(&postgres, name)?;
        database.fill(rows, Wanted::All)?;
        let measured = drain(&connector(database.dsn(), "mark")?, rows)?;
        measured.print(&format!("mark, a backlog of {rows} rows"));
        found.push(measured);
    }
    print_change(&found);
    Ok(())
}

fn print_change(found: &[Measured]) {
    if let [first, second] = found {
        let change = (second.rows_per_second() / first.rows_per_second() - 1.0) * 100.0;
        println!("\n{change:+.1} % in rows/s; allowed: 15 % less");
    }
}

fn commits(commits: u64, into: impl FnOnce(&str) -> Result<Connector>) -> Result<()> {
    let postgres = server()?;
    let database = buffer::database(&postgres, "commits")?;
    database.fill(commits * 10, Wanted::All)?;
    let connector = configured(into(database.dsn())?, "delete")
        .source("batch_rows: 10")
        .sink("snapshots: {keep: 20}")
        .top("commit: {interval: 1h, max_rows: 10}");
    let mut times = measured::commit_times(&connector)?;
    println!("{} commits of ten rows, snapshots kept: 20", times.len() + 1);
    let hundred = times.len().min(100);
    let last = measured::median(&mut times.split_off(times.len() - hundred));
    times.truncate(hundred);
    let first = measured::median(&mut times);
    println!("median of the first {hundred}: {first:.1} ms, of the last: {last:.1} ms");
    println!("ratio {:.2}; allowed: 1.50", last / first);
    Ok(())
}

fn cold_start() -> Result<()> {
    let postgres = server()?;
    let database = buffer::database(&postgres, "cold")?;
    let connector = connector(database.dsn(), "mark")?.top("commit: {interval: 100ms}");
    database.fill(1, Wanted::All)?;
    drain(&connector, 1)?;
    let mut milliseconds = Vec::new();
    for run in 0..5 {
        database.fill(1, Wanted::All)?;
        milliseconds.push(measured::first_commit(&connector)?);
        drain(&connector, run + 2)?;
    }
    println!("from the start of the process to a commit on an existing table, five times, in ms: {milliseconds:.0?}");
    println!("median {:.0} ms; aimed at: below 1000 ms", measured::median(&mut milliseconds));
    Ok(())
}
