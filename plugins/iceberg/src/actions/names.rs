//! The names that Iceberg's writers give their files: nothing else is ever taken for an orphan that may be removed.
//!
//! Each has a UUID in it, but for the manifests that Flink keeps until a checkpoint completes, which have the job's id. So a
//! name is nobody else's by chance. Hadoop's `v7.metadata.json` has none and is left alone: a Hadoop catalog finds the
//! current metadata by that number, whatever another catalog says of the table.

use std::sync::LazyLock;

use regex_lite::Regex;

const UUID: &str = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
/// The id of a query of Trino or Presto: when it began, its number, and the coordinator's letters.
const QUERY: &str = "[0-9]{8}_[0-9]{6}_[0-9]{5}_[0-9a-z]{5}";
const DATA: &str = r"\.(?:parquet|avro|orc)";

/// One pattern a kind of file, `U` for a UUID, `Q` for a query's id and `D` for the end of a data file's name.
const PATTERNS: [&str; 14] = [
    // Data files, and deletes of rows.
    // This sink: id, seconds since 1970.
    r"U-[0-9]+(?:-deletes)?\.parquet",
    // Java's OutputFileFactory, by which Spark, Flink, Hive and Kafka Connect's sink name them (partition, task, operation,
    // count; an operation is a UUID with something before or behind it at some), and its deletion vectors; iceberg-go as well.
    r"[0-9]{5,}-[0-9]+-(?:[0-9A-Za-z_-]*[_-])?U(?:-[0-9A-Za-z_-]+)?-[0-9]{5,}(?:-deletes)?(?:D|\.puffin)",
    // PyIceberg, and Spark long ago: partition, task, write.
    r"[0-9]{5,}-[0-9]+-UD",
    // Trino and Presto, and Trino's deletion vectors.
    r"(?:dv-)?Q-U(?:D|\.puffin)",
    // DuckDB, and Trino long ago.
    r"U(?:-deletes)?(?:D|\.puffin)",
    // iceberg-rust: a prefix, which its users make a UUID, a count and a suffix.
    r"(?:[0-9A-Za-z_]+-)?U-[0-9]{5,}(?:-[0-9A-Za-z_]+)?D",
    // Manifests.
    // Everybody: the commit's id and a count.
    r"U-m[0-9]+\.avro",
    // Spark, when it rewrites manifests and when it imports a table.
    r"optimized-m-U\.avro",
    r"stage-[0-9]+-task-[0-9]+-manifest-U\.avro",
    // Flink, between checkpoints: job, operator, subtask, attempt, checkpoint, count.
    r"[0-9a-f]{32}-[0-9A-Za-z_-]+-[0-9]{5,}-[0-9]+-[0-9]+-[0-9]{5,}\.avro",
    // Lists of manifests; DuckDB counts no attempts.
    r"snap-[0-9]+-(?:[0-9]+-)?U\.avro",
    // Metadata: its version, where the catalog counts, and either place for the compression.
    r"(?:[0-9]{5,}-)?U(?:\.gz)?\.metadata\.json(?:\.gz)?",
    // Statistics of Spark's and Trino's ANALYZE.
    r"(?:[0-9]+|Q)-U\.stats",
    // Statistics of partitions.
    r"partition-stats-[0-9]+-UD",
];

static NAMES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let patterns = PATTERNS.join("|").replace('U', UUID).replace('Q', QUERY).replace('D', DATA);
    // A constant that a test compiles; without it nothing would be removed.
    Regex::new(&format!("^(?:{patterns})$")).ok()
});

/// Whether a location ends in a name that one of Iceberg's writers gives.
pub(super) fn is_a_writers(location: &str) -> bool {
    let name = location.rsplit('/').next().unwrap_or(location);
    NAMES.as_ref().is_some_and(|names| names.is_match(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0193a1c2-5b7e-7c3a-9f00-0a1b2c3d4e5f";

    #[test]
    fn names_of_icebergs_writers() {
        for (writer, name) in [
            ("this sink, data", "{}-1764558822.parquet"),
            ("this sink, equality deletes", "{}-1764558822-deletes.parquet"),
            ("this sink, a manifest", "{}-m0.avro"),
            ("this sink, a list", "snap-3051729675574597004-0-{}.avro"),
            ("this sink, metadata", "00012-{}.metadata.json"),
            ("Spark, data", "00000-7-{}-00001.parquet"),
            ("Spark, ORC", "00003-1204-{}-0-00012.orc"),
            ("Spark, position deletes", "00199-4-{}-00001-deletes.parquet"),
            ("Spark, a deletion vector", "00000-4-{}-00001-deletes.puffin"),
            ("Spark, rewritten manifests", "optimized-m-{}.avro"),
            ("Spark, an imported table", "stage-3-task-17-manifest-{}.avro"),
            ("Spark, statistics", "3051729675574597004-{}.stats"),
            ("Spark, statistics of partitions", "partition-stats-3051729675574597004-{}.parquet"),
            ("Flink, data", "00001-0-{}-00042.avro"),
            (
                "Flink, a manifest",
                "3f2a90b1c4d5e6f708192a3b4c5d6e7f-cbc357ccb763df2852fee8c4fc7d55f2-00003-0-12-00001.avro",
            ),
            ("Hive, data", "00000-0-hive_20260101120000_{}-job_1764558822_0001-00001.parquet"),
            ("Kafka Connect's sink, data", "00001-1764558822123-{}-00001.parquet"),
            ("PyIceberg, data", "00000-3-{}.parquet"),
            ("PyIceberg, a list", "snap-3051729675574597004-1-{}.avro"),
            ("Trino, data", "20260101_123456_00042_x7k2p-{}.parquet"),
            ("Trino, a deletion vector", "dv-20260101_123456_00042_x7k2p-{}.puffin"),
            ("Trino, statistics", "20260101_123456_00042_x7k2p-{}.stats"),
            ("DuckDB, data", "{}.parquet"),
            ("DuckDB, deletes", "{}-deletes.parquet"),
            ("DuckDB, a deletion vector", "{}-deletes.puffin"),
            ("DuckDB, a list", "snap-3051729675574597004-{}.avro"),
            ("iceberg-rust, data", "{}-00000.parquet"),
            ("iceberg-rust, data with more", "worker1-{}-00003-sorted.parquet"),
            ("Java, compressed metadata", "00012-{}.gz.metadata.json"),
            ("Java long ago, compressed metadata", "00012-{}.metadata.json.gz"),
            ("Lakekeeper long ago, metadata", "{}.gz.metadata.json"),
        ] {
            let name = name.replace("{}", ID);
            assert!(is_a_writers(&format!("s3://lake/t/data/_day=1/{name}")), "{writer}: {name}");
            assert!(is_a_writers(&name), "{writer}: {name}");
        }
    }

    #[test]
    fn names_of_others() {
        for name in [
            "report.pdf",
            "orders.parquet",
            "part-00000-{}-c000.snappy.parquet",
            "report-{}.parquet",
            "{}.pdf",
            "{}",
            "{}.parquet.bak",
            "{}.json",
            "v7.metadata.json",
            "v7.gz.metadata.json",
            "version-hint.text",
            "backup of {}-1764558822.parquet",
            "00000-7-orders-00001.parquet",
            "00000-7-00001.parquet",
            "snap-1-0.avro",
            "m0.avro",
            "x{}-m0.avro",
            "00012.metadata.json",
            "partition-stats-1.parquet",
            "0193A1C2-5B7E-7C3A-9F00-0A1B2C3D4E5F.parquet.txt",
            "",
        ] {
            let name = name.replace("{}", ID);
            assert!(!is_a_writers(&format!("file:///t/data/{name}")), "{name}");
        }
        // Only the name counts, not the folders.
        assert!(!is_a_writers(&format!("file:///t/data/{ID}.parquet/thesis.docx")));
    }
}
