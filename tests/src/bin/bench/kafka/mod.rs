//! `--kafka`: a topic of JSON messages into an Iceberg table, by the host and by the Iceberg project's own Kafka Connect sink, beside
//! what the machine can do at all.
//!
//! All of them read the same topic of the same broker, and the two write through the same catalog into the same storage, with the same
//! codec and interval between commits. A row counts from when it stands in a committed snapshot.

mod messages;
mod race;
mod roofline;

use std::time::Duration;

use anyhow::{Context, Result};
use philotes_tests::services::connect::Jvm;
use philotes_tests::services::iceberg_rest::IcebergRest;
use philotes_tests::services::kafka::Kafka;
use philotes_tests::services::minio::Minio;

use crate::measured::Measured;
use race::Run;

/// The servers.
struct Bed {
    kafka: Kafka,
    rest: IcebergRest,
    minio: Minio,
}

/// Who moves the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Both,
    Philotes,
    Connect,
}

/// Measures everything with this many messages.
pub(crate) fn run(messages: u64, who: Who) -> Result<()> {
    let options = Options::read()?;
    let minio = Minio::start()?;
    let bed = Bed { kafka: Kafka::start()?, rest: IcebergRest::start(&minio)?, minio };
    messages::fill(&bed.kafka, messages)?;
    println!(
        "{messages} messages of {} bytes of JSON in {} partitions ({}); commits every {} s, zstd",
        messages::BYTES,
        messages::PARTITIONS,
        messages::CODEC,
        options.interval.as_secs(),
    );
    println!("measured from the start of the process until all rows are in committed snapshots\n");

    Measured::header();
    roofline::consume(&bed.kafka, messages)?.print("librdkafka to nowhere");
    let encode = roofline::json_to_parquet(messages.min(1_000_000))?;
    encode.print("JSON → Arrow → Parquet, one thread");
    let mut ours = Vec::new();
    if who != Who::Connect {
        for memory in &options.memory {
            let run = race::host(&bed, messages, memory, &options)?;
            run.print(&format!("philotes, max_memory: {memory}"));
            ours.push(run);
        }
    }
    let mut others = Vec::new();
    if who != Who::Philotes {
        for tasks in [1, 2] {
            let run = race::connect(&bed, messages, tasks, &options)?;
            run.print(&format!("Iceberg's Kafka Connect sink, tasks: {tasks}"));
            others.push(run);
        }
    }
    if who == Who::Both {
        for (run, memory) in ours.iter().zip(&options.memory) {
            print_ratios(memory, run, &others);
        }
        println!("aimed at: 10, 2 and 0.10");
    }
    Ok(())
}

/// Against the better of the others, in each respect.
fn print_ratios(memory: &str, ours: &Run, others: &[Run]) {
    let best = |of: &dyn Fn(&Run) -> f64| others.iter().map(of).fold(f64::NAN, f64::max);
    let cpu = best(&|run| run.measured.rows_per_cpu_second());
    let speed = best(&|run| run.measured.rows_per_second());
    let rss = -best(&|run| -run.mib());
    println!(
        "\nmax_memory {memory}, beside the better of the other's runs: {:.1} times its rows per CPU-second, {:.1} times its rows/s, \
         {:.2} of its peak RSS",
        ours.measured.rows_per_cpu_second() / cpu,
        ours.measured.rows_per_second() / speed,
        ours.mib() / rss,
    );
}

/// What may be changed by variables: to find out what makes the other one fast.
struct Options {
    /// `COMMIT`, in seconds.
    interval: Duration,
    /// `MEMORY`: the limits of the host's memory.
    memory: Vec<String>,
    /// `SOURCE`: a further line of the host's source: `batch_wait: 50ms`.
    source: Option<String>,
    /// `CONNECT_JAVA`: the flags of its Java.
    jvm: Jvm,
    /// `CONNECT_SETTINGS`: `key=value` words, settings of the connector.
    settings: Vec<(String, String)>,
}

impl Options {
    fn read() -> Result<Self> {
        let words = |name: &str, default: &str| {
            let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
            text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let setting = |word: &String| {
            let (key, value) = word.split_once('=').with_context(|| format!("{word:?} is no key=value"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        let seconds = words("COMMIT", "10").concat().parse().context("COMMIT is a number of seconds")?;
        Ok(Self {
            interval: Duration::from_secs(seconds),
            source: std::env::var("SOURCE").ok(),
            memory: words("MEMORY", "32MiB 64MiB 256MiB"),
            jvm: Jvm::Flags(words("CONNECT_JAVA", JAVA)),
            settings: words("CONNECT_SETTINGS", SETTINGS).iter().map(setting).collect::<Result<_>>()?,
        })
    }
}

/// What made the sink fastest.
const JAVA: &str = "-Xmx2g -XX:+UseParallelGC";
/// The same.
const SETTINGS: &str = "";
