//! The sink's configuration and what its structure cannot say.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::catalog::sql;
use crate::partition;
use crate::template::Template;

/// Where the tables are and how they are written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The catalog that knows the tables.
    pub catalog: CatalogConfig,
    /// The name of a stream's table: a template with {schema}, {table} and {stream}; dots in the template separate
    /// namespaces.
    #[serde(default = "default_table")]
    pub table: String,
    /// What the tables hold.
    #[serde(default)]
    pub mode: Mode,
    /// Partition fields of tables that are created: `day(_cdc_timestamp) as date`, `bucket(16, id)`, `region`.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// The Iceberg format of tables that are created: 2.
    #[serde(default = "default_format_version")]
    pub format_version: u8,
    /// Which snapshots the sink's own commits expire; none without it.
    #[serde(default)]
    pub snapshots: Option<Snapshots>,
    /// The size at which a data file is complete: a number of bytes, or with a unit as in 128MiB.
    #[serde(default = "default_target_file_size")]
    pub target_file_size: String,
}

/// A kind of catalog and where it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CatalogConfig {
    /// The embedded catalog: the JDBC catalog's tables in a SQLite file.
    Sql(SqlCatalogConfig),
}

/// The embedded catalog: the JDBC catalog's tables in a SQLite file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlCatalogConfig {
    /// The SQLite file: sqlite:///path/catalog.db. It is created with the folders above it.
    pub uri: String,
    /// The folder below which the tables lie: file:///path/warehouse.
    pub warehouse: String,
    /// The catalog's name in the file, which can hold several.
    #[serde(default = "default_name")]
    pub name: String,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The change log: one row per change.
    #[default]
    Append,
}

/// A snapshot expires with a commit once it is neither among the last `keep` nor younger than `older_than`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshots {
    /// How many snapshots of the table's history stay at least.
    #[serde(default = "default_keep")]
    pub keep: u32,
    /// How old a snapshot must be to expire, as in 24h, 90m, 30s or 7d; any age without it.
    #[serde(default)]
    pub older_than: Option<String>,
}

/// [`Snapshots`], understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// How many snapshots stay at least, at least one.
    pub(crate) keep: usize,
    /// Younger ones stay as well.
    pub(crate) older_than: Duration,
}

fn default_table() -> String {
    "cdc.{schema}_{table}".to_owned()
}

fn default_format_version() -> u8 {
    2
}

fn default_target_file_size() -> String {
    "128MiB".to_owned()
}

fn default_name() -> String {
    "philotes".to_owned()
}

fn default_keep() -> u32 {
    100
}

/// Data files below this size cost more to open than to read.
const MIN_FILE_BYTES: u64 = 64 << 10;
/// Data files above this size cannot be read in parallel well, and a writer holds a file's last row group in memory.
const MAX_FILE_BYTES: u64 = 16 << 30;

impl Config {
    /// Every fault, each beginning with the path of its key.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let CatalogConfig::Sql(catalog) = &self.catalog;
        if let Err(message) = sql::database_path(&catalog.uri) {
            faults.push(format!("catalog.uri: {message}"));
        }
        if let Err(message) = sql::warehouse_path(&catalog.warehouse) {
            faults.push(format!("catalog.warehouse: {message}"));
        }
        if catalog.name.is_empty() || catalog.name.chars().count() > 255 {
            faults.push("catalog.name: must have 1 to 255 characters".to_owned());
        }
        if let Err(message) = Template::parse(&self.table) {
            faults.push(format!("table: {message}"));
        }
        if let Err(error) = partition::parse(&self.partition_by) {
            faults.push(with_key("partition_by", error.message()));
        }
        if self.format_version != 2 {
            faults.push(format!("format_version: {} is not allowed; allowed is 2", self.format_version));
        }
        if let Err(message) = self.retention() {
            faults.push(message);
        }
        if let Err(message) = self.target_file_bytes() {
            faults.push(message);
        }
        faults
    }

    /// The target size of a data file in bytes.
    pub(crate) fn target_file_bytes(&self) -> Result<u64, String> {
        let found = &self.target_file_size;
        let bytes = parse_bytes(found).ok_or_else(|| {
            format!(
                "target_file_size: {found:?} is no size; expected bytes, or KiB, MiB, GiB, KB, MB, GB, as in 128MiB"
            )
        })?;
        if !(MIN_FILE_BYTES..=MAX_FILE_BYTES).contains(&bytes) {
            return Err(format!("target_file_size: {found} is not allowed; allowed is 64KiB to 16GiB"));
        }
        Ok(bytes)
    }

    /// Which snapshots expire, if any do.
    pub(crate) fn retention(&self) -> Result<Option<Retention>, String> {
        let Some(snapshots) = &self.snapshots else { return Ok(None) };
        if snapshots.keep == 0 {
            return Err("snapshots.keep: 0 is not allowed; the current snapshot always stays: 1 or more".to_owned());
        }
        let older_than = match &snapshots.older_than {
            None => Duration::ZERO,
            Some(text) => parse_duration(text).ok_or_else(|| {
                format!(
                    "snapshots.older_than: {text:?} is no duration; expected a number with ms, s, m, h or d, as in 24h"
                )
            })?,
        };
        Ok(Some(Retention { keep: snapshots.keep as usize, older_than }))
    }
}

/// A fault with its key's path, where the message does not begin with it already.
fn with_key(key: &str, message: &str) -> String {
    if message.starts_with(key) { message.to_owned() } else { format!("{key}: {message}") }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}
