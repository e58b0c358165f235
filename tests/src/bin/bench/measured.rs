//! What a run cost: time, CPU and memory of the host alone, from `/proc`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::readers::Reader;
use philotes_tests::services::stat_fields;

/// How often the host's memory is looked at.
const INTERVAL: Duration = Duration::from_millis(20);
/// The kernel's clock ticks per second, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Rows and what moving them took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) rows: u64,
    pub(crate) elapsed: Duration,
    /// User and system, in seconds; zero where it was not measured.
    pub(crate) cpu_seconds: f64,
    /// In KiB; zero where it was not measured.
    pub(crate) peak_rss_kib: u64,
}

impl Measured {
    #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
    pub(crate) fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.elapsed.as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
    pub(crate) fn rows_per_cpu_second(&self) -> f64 {
        self.rows as f64 / self.cpu_seconds
    }

    pub(crate) fn header() {
        println!("{:40}{:>10}{:>9}{:>10}{:>14}{:>10}", "", "rows", "s", "rows/s", "rows/CPU-s", "RSS MiB");
    }

    pub(crate) fn print(&self, what: &str) {
        let cpu = if self.cpu_seconds > 0.0 { format!("{:.0}", self.rows_per_cpu_second()) } else { String::new() };
        let rss = if self.peak_rss_kib > 0 { (self.peak_rss_kib / 1024).to_string() } else { String::new() };
        println!(
            "{what:40}{:>10}{:>9.2}{:>10.0}{cpu:>14}{rss:>10}",
            self.rows,
            self.elapsed.as_secs_f64(),
            self.rows_per_second(),
        );
    }
}

/// The CPU time of a process so far, in seconds; of a zombie as well.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let fields = stat_fields(pid)?;
    let ticks = |index: usize| fields[index].parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// The same with that of its children that have ended.
pub(crate) fn cpu_seconds_of_all(pid: u32) -> Option<f64> {
    let fields = stat_fields(pid)?;
    let ticks = |index: usize| fields[index].parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)?) / TICKS_PER_SECOND)
}

/// The most memory that a process has had, in KiB.
pub(crate) fn peak_rss_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

/// Runs a connector until it is idle.
pub(crate) fn until_idle(connector: &Connector, rows: u64) -> Result<Measured> {
    let started = Instant::now();
    let mut host = Host::start(connector, &["--until-idle"])?;
    let pid = host.pid();
    let mut measured = Measured { rows, ..Measured::default() };
    // Nobody waits for the process before its times are read: until then they stay.
    while stat_fields(pid).is_some_and(|fields| fields[0] != "Z") {
        measured.peak_rss_kib = peak_rss_kib(pid).unwrap_or_default().max(measured.peak_rss_kib);
        std::thread::sleep(INTERVAL);
    }
    measured.elapsed = started.elapsed();
    measured.cpu_seconds = cpu_seconds(pid).context("the host's CPU time is gone")?;
    let code = host.wait(Duration::from_secs(5))?;
    if code != 0 {
        bail!("the host ended with {code}: {}", host.log_tail());
    }
    Ok(measured)
}

/// Runs a connector until it is idle; the times between its commits, in milliseconds.
pub(crate) fn commit_times(connector: &Connector) -> Result<Vec<f64>> {
    let mut host = Host::start(connector, &["--until-idle", "--log-format", "json"])?;
    let code = host.wait(Duration::from_secs(1800))?;
    if code != 0 {
        bail!("the host ended with {code}: {}", host.log_tail());
    }
    let mut at = Vec::new();
    for line in host.log().lines().filter(|line| line.contains("\"committed\"")) {
        let line: serde_json::Value = serde_json::from_str(line)?;
        at.push(milliseconds(line["timestamp"].as_str().context("a line without a timestamp")?)?);
    }
    if at.len() < 3 {
        bail!("{} commits in the host's log: {}", at.len(), host.log_tail());
    }
    Ok(at.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

/// Milliseconds within the day of an RFC 3339 time in UTC, `2026-01-24T10:00:00.123456Z`.
fn milliseconds(time: &str) -> Result<f64> {
    let clock = time.split_once('T').and_then(|(_, clock)| clock.strip_suffix('Z'));
    let parts: Option<Vec<f64>> = clock.map(|clock| clock.split(':').filter_map(|part| part.parse().ok()).collect());
    match parts.as_deref() {
        Some([hours, minutes, seconds]) => Ok(((hours * 60.0 + minutes) * 60.0 + seconds) * 1000.0),
        _ => bail!("{time:?} is no time"),
    }
}

/// From the start of the host to the commit of the rows that wait, in milliseconds, as the table's snapshot says.
pub(crate) fn first_commit(connector: &Connector) -> Result<f64> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut host = Host::start(connector, &["--until-idle"])?;
    let code = host.wait(Duration::from_secs(60))?;
    if code != 0 {
        bail!("the host ended with {code}: {}", host.log_tail());
    }
    let snapshots = Reader::PyIceberg.snapshots(&connector.table("cdc.public_orders"))?;
    let last = snapshots.last().context("no snapshot")?;
    Ok(last.timestamp_ms - started.as_secs_f64() * 1000.0)
}

/// The median; NaN of nothing.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
