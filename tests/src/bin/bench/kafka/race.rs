//! Those who move the topic into a table, one after the other, and what it cost them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::readers::{Reader, Rest, Table};
use philotes_tests::services;
use philotes_tests::services::iceberg_sink::{IcebergSink, IcebergSinkOptions};
use serde_json::{Value, json};

use super::messages::{COLUMNS, TOPIC};
use super::{Bed, Options};
use crate::measured::{Measured, cpu_seconds_of_all, peak_rss_kib};

/// How often the catalog is asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(180);

/// What moving all messages took.
pub(super) struct Run {
    pub(super) measured: Measured,
    /// Commits that had rows.
    commits: usize,
    /// Rows per second between the first commit and the last; without a second commit there is none.
    between: Option<f64>,
}

impl Run {
    pub(super) fn print(&self, what: &str) {
        self.measured.print(what);
        let between =
            self.between.map_or_else(String::new, |rows| format!(", from the first to the last {rows:.0} rows/s"));
        println!("    {} commits{between}", self.commits);
    }

    #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52")]
    pub(super) fn mib(&self) -> f64 {
        self.measured.peak_rss_kib as f64 / 1024.0
    }
}

/// The host with the Kafka source.
pub(super) fn host(bed: &Bed, messages: u64, memory: &str, options: &Options) -> Result<Run> {
    let (group, table) = (format!("philotes_{memory}"), format!("cdc.philotes_{memory}"));
    let columns = COLUMNS.map(|(name, kind)| format!("{name}: \"{kind}\"")).join(", ");
    let connector = Connector::kafka_rest(&bed.kafka.bootstrap(), &bed.rest, &bed.minio)?
        .source(&format!("topics: [{TOPIC}]"))
        .source(&format!("format: {{type: json, columns: {{{columns}}}}}"))
        .sink_without("table")
        .source(&format!("group: {group}"))
        .sink(&format!("table: {table}"))
        .top(&format!("max_memory: {memory}"))
        .sink("partition_by: []")
        // Only time is a reason to commit, as it is for the other.
        .top(&format!("commit: {{interval: {}s, max_rows: 1000000000, max_bytes: 64GiB}}", options.interval.as_secs()));
    let connector = options.source.iter().fold(connector, |connector, line| connector.source(line));
    let started = Instant::now();
    let mut host = Host::start(&connector, &[])?;
    let pid = host.pid();
    let run = watch(bed, &table, messages, started, pid, || {
        if host.is_running()? { Ok(()) } else { bail!("the host has ended: {}", host.log_tail()) }
    })
    .with_context(|| format!("the host's log ends with {}", host.log_tail()))?;
    host.terminate()?;
    expect_all(bed, &table, messages)?;
    Ok(run)
}

/// The Iceberg project's Kafka Connect sink.
pub(super) fn connect(bed: &Bed, messages: u64, tasks: u32, options: &Options) -> Result<Run> {
    let name = format!("connect_{tasks}");
    let table = format!("cdc.{name}");
    let fields: Vec<Value> = COLUMNS.iter().map(|(name, kind)| json!([name, kind, false])).collect();
    reader(bed, &table).create_as_somebody_else(None, &fields)?;
    let written_as = [("codec", "zstd"), ("level", "1")]
        .map(|(key, value)| (format!("iceberg.tables.write-props.write.parquet.compression-{key}"), value.to_owned()));
    let sink = IcebergSinkOptions {
        name,
        topic: TOPIC.to_owned(),
        table: table.clone(),
        tasks,
        interval: options.interval,
        jvm: options.jvm.clone(),
        settings: written_as.into_iter().chain(options.settings.iter().cloned()).collect(),
    };
    IcebergSink::install()?;
    let started = Instant::now();
    let sink = IcebergSink::start(&bed.kafka, &bed.rest, &bed.minio, &sink)?;
    let pid = sink.connect().pid()?;
    let run = watch(bed, &table, messages, started, pid, || sink.connect().expect_sound())?;
    drop(sink);
    expect_all(bed, &table, messages)?;
    Ok(run)
}

/// Waits until a table has all rows. The process may not end before.
fn watch(
    bed: &Bed,
    table: &str,
    rows: u64,
    started: Instant,
    pid: u32,
    mut expect_sound: impl FnMut() -> Result<()>,
) -> Result<Run> {
    let (mut found, mut last) = (0, Instant::now());
    loop {
        expect_sound()?;
        let snapshots = snapshots(bed, table)?;
        let total = snapshots.last().map_or(0, |(_, total)| *total);
        if total >= rows {
            let elapsed = started.elapsed();
            let cpu_seconds = cpu_seconds_of_all(pid).context("the process's CPU time is gone")?;
            let peak_rss_kib = peak_rss_kib(pid).context("the process's memory is gone")?;
            let measured = Measured { rows, elapsed, cpu_seconds, peak_rss_kib };
            return Ok(Run { measured, commits: snapshots.len(), between: between(&snapshots) });
        }
        if total > found {
            (found, last) = (total, Instant::now());
        }
        if last.elapsed() > PATIENCE {
            bail!("{table}: {found} rows of {rows} are there, and no more have come for {PATIENCE:?}");
        }
        std::thread::sleep(INTERVAL);
    }
}

/// When each snapshot that added rows was made, in milliseconds, and how many rows there were then.
fn snapshots(bed: &Bed, table: &str) -> Result<Vec<(f64, u64)>> {
    let path = format!("/v1/namespaces/{}", table.replace('.', "/tables/"));
    let (code, body) = services::get(bed.rest.port(), &path).context("the catalog does not answer")?;
    if code == 404 {
        return Ok(Vec::new());
    }
    let mut answer: Value = serde_json::from_str(&body).with_context(|| format!("the catalog says {code}: {body}"))?;
    let snapshots = answer["metadata"]["snapshots"].take();
    let total = |snapshot: &Value| {
        let summary = &snapshot["summary"];
        summary.get("added-records")?;
        Some((snapshot["timestamp-ms"].as_f64()?, summary["total-records"].as_str()?.parse().ok()?))
    };
    let mut found: Vec<(f64, u64)> = snapshots.as_array().into_iter().flatten().filter_map(total).collect();
    found.sort_by_key(|(_, total)| *total);
    Ok(found)
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
fn between(snapshots: &[(f64, u64)]) -> Option<f64> {
    let (first, last) = (snapshots.first()?, snapshots.last()?);
    (first.0 < last.0).then(|| (last.1 - first.1) as f64 / (last.0 - first.0) * 1000.0)
}

/// Each message is in the table once.
fn expect_all(bed: &Bed, table: &str, messages: u64) -> Result<()> {
    let table = reader(bed, table);
    for what in ["count(*)", "count(distinct id)", "max(id) + 1"] {
        let found = Reader::DuckDb.number(&table, &format!("select {what} from t"))?;
        if u64::try_from(found).ok() != Some(messages) {
            bail!("{}: {what} is {found}, not {messages}", table.name);
        }
    }
    Ok(())
}

fn reader(bed: &Bed, table: &str) -> Table {
    Table::rest(&Rest::new(&bed.rest, &bed.minio), table)
}
