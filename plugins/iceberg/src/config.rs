//! The sink's configuration and what its structure cannot say.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use iceberg::TableIdent;
use philotes_sdk::{Error, Secret, quantity, without_secrets};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::catalog::sql;
use crate::create::Making;
use crate::format;
pub use crate::overrides::Column;
use crate::overrides::Overrides;
use crate::partition;
use crate::schema::Policy;
use crate::sort;
use crate::template::Template;
use crate::upsert::Rules;

/// Where the tables are and how they are written.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The catalog that knows the tables.
    pub catalog: CatalogConfig,
    /// How S3 is reached where the catalog does not say it; what stands here wins over what the catalog says.
    #[serde(default)]
    pub storage: Option<StorageConfig>,
    /// The name of a stream's table: a template with {schema}, {table} and {stream}; dots in the template separate
    /// namespaces.
    #[serde(default = "default_table")]
    pub table: String,
    /// What the tables hold.
    #[serde(default)]
    pub mode: Mode,
    /// What becomes of a row that is deleted at the source: hard, unless this says otherwise; needs mode: upsert.
    #[serde(default)]
    #[schemars(with = "Deletes")]
    pub deletes: Option<Deletes>,
    /// What becomes of the table when its source is truncated: apply, and with deletes: soft fail, unless this says otherwise;
    /// needs mode: upsert.
    #[serde(default)]
    #[schemars(with = "Truncate")]
    pub truncate: Option<Truncate>,
    /// Partition fields: `day(_cdc_timestamp) as date`, `bucket(16, id)`, `region`. New data of a table that is partitioned
    /// otherwise is partitioned so from then on; without any, tables stay as they are.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// What the rows of each data file are sorted by: `day desc nulls last`, `id`. Without any, they stay as they come.
    #[serde(default)]
    pub sort_by: Vec<String>,
    /// The Iceberg format of tables that are created: 2 or 3.
    #[serde(default = "default_format_version")]
    pub format_version: u8,
    /// Which snapshots the sink's own commits expire; none without it.
    #[serde(default)]
    pub snapshots: Option<Snapshots>,
    /// The table of the records that cannot be written, where the connector tolerates them: namespace.table.
    #[serde(default = "default_dead_letters")]
    pub dead_letters: String,
    /// The size at which a data file is complete: a number of bytes, or with a unit as in 128MiB.
    #[serde(default = "default_target_file_size")]
    pub target_file_size: String,
    /// What may be done to a table so that rows fit: additive, unless this says otherwise.
    #[serde(default)]
    pub evolve: Evolve,
    /// What becomes of a table's column that is gone from the source: keep, unless this says otherwise.
    #[serde(default)]
    pub dropped_columns: DroppedColumns,
    /// What is said of single columns, by stream and column: {public.orders: {note: {type: json}, ssn: {drop: true}}}.
    #[serde(default)]
    pub columns: BTreeMap<String, BTreeMap<String, Column>>,
}

/// A kind of catalog and where it is.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CatalogConfig {
    /// The embedded catalog: the JDBC catalog's tables in a SQLite file.
    Sql(SqlCatalogConfig),
    /// A server that speaks the Iceberg REST specification.
    Rest(RestCatalogConfig),
}

/// The embedded catalog: the JDBC catalog's tables in a SQLite file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlCatalogConfig {
    /// The SQLite file: sqlite:///path/catalog.db. It is created with the folders above it.
    pub uri: String,
    /// What the tables lie below: file:///path/warehouse or s3://bucket/path.
    pub warehouse: String,
    /// The catalog's name in the file, which can hold several.
    #[serde(default = "default_name")]
    pub name: String,
}

/// A server that speaks the Iceberg REST specification.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestCatalogConfig {
    /// Where the server is, without the `/v1` of its paths: http://localhost:8181/catalog.
    pub uri: String,
    /// The warehouse's name at the server, where it has several.
    #[serde(default)]
    #[schemars(with = "String")]
    pub warehouse: Option<String>,
    /// A bearer token that goes with every request.
    #[serde(default)]
    #[schemars(with = "Secret")]
    pub token: Option<Secret>,
    /// An OAuth2 server that grants the bearer token instead.
    #[serde(default)]
    #[schemars(with = "OAuth2Config")]
    pub oauth2: Option<OAuth2Config>,
    /// Headers that go with every request, such as those of a proxy in front of the server.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// How long the answer to a request may take: 500ms, 60s. The outcome of a commit that takes longer is unknown, and looked up.
    #[serde(default = "default_timeout")]
    pub timeout: String,
    /// The folder of this machine that tables may lie below, such as /srv/warehouse, where the catalog puts them into file:///
    /// locations. Without it, tables on this machine are refused.
    #[serde(default)]
    #[schemars(with = "String")]
    pub local_root: Option<String>,
}

/// OAuth2's client credentials, RFC 6749, section 4.4.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2Config {
    /// The token endpoint: https://idp.example.com/realms/lake/protocol/openid-connect/token; without it, the catalog's own,
    /// /v1/oauth/tokens.
    #[serde(default)]
    #[schemars(with = "String")]
    pub uri: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Secret,
    /// The scope to ask for; the catalog's own endpoint is asked for `catalog` where none is given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub scope: Option<String>,
    /// The audience to ask for, where the server wants one.
    #[serde(default)]
    #[schemars(with = "String")]
    pub audience: Option<String>,
}

impl RestCatalogConfig {
    /// The headers, as requests take them.
    pub(crate) fn header_map(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: HeaderName =
                name.parse().map_err(|_| format!("catalog.headers: {name:?} is no header's name"))?;
            let mut value: HeaderValue = value
                .expose()
                .parse()
                .map_err(|_| format!("catalog.headers.{name}: its value has characters that headers cannot hold"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// How long the answer to a request may take.
    pub(crate) fn request_time(&self) -> Result<Duration, String> {
        let found = &self.timeout;
        quantity::duration(found).filter(|time| !time.is_zero()).ok_or_else(|| {
            format!(
                "catalog.timeout: {found:?} is no duration; expected a number above 0 with ms, s, m, h or d, as in 60s"
            )
        })
    }

    /// The folder that tables on this machine may lie below.
    pub(crate) fn local_root(&self) -> Result<Option<&Path>, String> {
        let Some(root) = self.local_root.as_deref() else { return Ok(None) };
        let odd = |part: &str| part == "." || part == "..";
        match root.strip_prefix("file://").unwrap_or(root) {
            path if path.starts_with('/') && !path.split('/').any(odd) => Ok(Some(Path::new(path))),
            _ => Err(format!(
                "catalog.local_root: {root:?} is no folder of this machine; expected an absolute path without `.` and `..`, as in \
                 /srv/warehouse"
            )),
        }
    }

    fn faults(&self, faults: &mut Vec<String>) {
        let header = "as in catalog.headers: {authorization: \"Basic …\"}";
        faults.extend(server_fault("catalog.uri", &self.uri, "http://host:port/path or https://…", header, false));
        if let Some(uri) = self.oauth2.as_ref().and_then(|oauth2| oauth2.uri.as_deref()) {
            let allowed = "http://host:port/path or https://…";
            faults.extend(server_fault("catalog.oauth2.uri", uri, allowed, "in client_id and client_secret", true));
        }
        faults.extend(self.local_root().err());
        let headers = self.header_map();
        let authorization = headers.as_ref().is_ok_and(|headers| headers.contains_key(AUTHORIZATION));
        let ways = [
            ("catalog.token", self.token.is_some()),
            ("catalog.oauth2", self.oauth2.is_some()),
            ("catalog.headers.authorization", authorization),
        ];
        let ways: Vec<&str> = ways.into_iter().filter(|(_, used)| *used).map(|(key, _)| key).collect();
        if let [first, second, ..] = ways[..] {
            faults.push(format!("{second}: excludes {first}; allowed is one of them"));
        }
        faults.extend(headers.err());
        faults.extend(self.request_time().err());
    }
}

/// How S3, or a server that speaks as S3 does, is reached.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// The server: http://localhost:9000, or host:port, which use_ssl speaks of; AWS where it is not given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub endpoint: Option<String>,
    /// Access key; without keys here or from the catalog, the AWS_ variables and the machine's role are used.
    #[serde(default)]
    #[schemars(with = "String")]
    pub access_key: Option<String>,
    /// Secret key; goes with access_key.
    #[serde(default)]
    #[schemars(with = "Secret")]
    pub secret_key: Option<Secret>,
    /// Region, us-east-1 where nobody says one.
    #[serde(default)]
    #[schemars(with = "String")]
    pub region: Option<String>,
    /// Whether the bucket stands in the path, as MinIO wants it; it does where an endpoint is given, unless this says otherwise.
    #[serde(default)]
    #[schemars(with = "bool")]
    pub path_style: Option<bool>,
    /// Whether an endpoint without a scheme is spoken to by TLS.
    #[serde(default)]
    pub use_ssl: bool,
}

impl StorageConfig {
    /// The endpoint with its scheme.
    pub(crate) fn endpoint_url(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref()?.trim_end_matches('/');
        let scheme = if self.use_ssl { "https" } else { "http" };
        Some(if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") })
    }

    fn faults(&self, faults: &mut Vec<String>) {
        if let Some(url) = self.endpoint_url() {
            let allowed = "host:port, http://… or https://…";
            faults.extend(server_fault("storage.endpoint", &url, allowed, "in access_key and secret_key", false));
        }
        match (&self.access_key, &self.secret_key) {
            (Some(_), None) => faults.push("storage.secret_key: goes with storage.access_key".to_owned()),
            (None, Some(_)) => faults.push("storage.access_key: goes with storage.secret_key".to_owned()),
            _ => {}
        }
    }
}

/// What is wrong with the URL of a server. A password in one would be told by whatever names the server, here and in the
/// programs on the way; so would a token in its query, which only a token endpoint may have.
fn server_fault(key: &str, url: &str, allowed: &str, secrets: &str, may_have_query: bool) -> Option<String> {
    let shown = without_secrets(url);
    match url::Url::parse(url) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {}
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            return Some(format!("{key}: {shown:?} holds a user or a password; expected them {secrets}"));
        }
        Ok(url) if url.fragment().is_some() || url.query().is_some() && !may_have_query => {
            return Some(format!("{key}: {shown:?} has a query or a fragment; expected {allowed}"));
        }
        Ok(_) => return None,
        Err(_) => {}
    }
    Some(format!("{key}: {shown:?} is no server; expected {allowed}"))
}

/// What a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The change log: one row per change.
    #[default]
    Append,
    /// The rows as they are now: one per key.
    Upsert,
}

/// What becomes of a row that is deleted at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Deletes {
    /// It is deleted.
    #[default]
    Hard,
    /// It stays, with _cdc_deleted = true.
    Soft,
}

/// What becomes of a table when its source is truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Truncate {
    /// All its rows are removed.
    Apply,
    /// They stay.
    Ignore,
    /// The connector stops.
    Fail,
}

/// What may be done to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Evolve {
    /// Nothing: rows that do not fit cannot be written.
    None,
    /// Columns are added, widened, and made optional.
    #[default]
    Additive,
    /// Columns are also renamed, put in the source's order, given its comments, and dropped as dropped_columns says.
    Full,
}

/// What becomes of a column that is gone from the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DroppedColumns {
    /// It stays, and is NULL from then on.
    #[default]
    Keep,
    /// It is dropped from the table's schema; needs evolve: full.
    Drop,
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

fn default_dead_letters() -> String {
    "cdc.dead_letters".to_owned()
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

fn default_timeout() -> String {
    "60s".to_owned()
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
        match &self.catalog {
            CatalogConfig::Sql(catalog) => {
                if let Err(message) = sql::database_path(&catalog.uri) {
                    faults.push(format!("catalog.uri: {message}"));
                }
                match sql::Warehouse::parse(&catalog.warehouse) {
                    Err(message) => faults.push(format!("catalog.warehouse: {message}")),
                    Ok(sql::Warehouse::Folder(_)) if self.storage.is_some() => faults.push(
                        "storage: is for a warehouse in S3; catalog.warehouse names a folder of this machine"
                            .to_owned(),
                    ),
                    Ok(_) => {}
                }
                if catalog.name.is_empty() || catalog.name.chars().count() > 255 {
                    faults.push("catalog.name: must have 1 to 255 characters".to_owned());
                }
            }
            CatalogConfig::Rest(catalog) => catalog.faults(&mut faults),
        }
        if let Some(storage) = &self.storage {
            storage.faults(&mut faults);
        }
        if let Err(message) = Template::parse(&self.table) {
            faults.push(format!("table: {message}"));
        }
        if let Err(error) = partition::parse(&self.partition_by) {
            faults.push(with_key("partition_by", error.message()));
        }
        if let Err(error) = sort::parse(&self.sort_by) {
            faults.push(error.message().to_owned());
        }
        if let Err(message) = self.dead_letters_table() {
            faults.push(message);
        }
        if let Err(message) = format::version(self.format_version) {
            faults.push(message);
        }
        if let Err(message) = self.retention() {
            faults.push(message);
        }
        if let Err(message) = self.target_file_bytes() {
            faults.push(message);
        }
        if self.dropped_columns == DroppedColumns::Drop && self.evolve != Evolve::Full {
            faults.push("dropped_columns: drop needs evolve: full; allowed is keep without it".to_owned());
        }
        if let Err(messages) = Overrides::parse(&self.columns) {
            faults.extend(messages);
        }
        if let Err(messages) = Rules::parse(self) {
            faults.extend(messages);
        }
        faults
    }

    /// How tables are made, and what their layout is to be.
    ///
    /// # Errors
    /// Config: a key that does not read.
    pub(crate) fn making(&self) -> Result<Making, Error> {
        Ok(Making {
            format_version: format::version(self.format_version).map_err(Error::config)?,
            partition_by: partition::parse(&self.partition_by)?,
            sort_by: sort::parse(&self.sort_by)?,
        })
    }

    /// What may be done to tables.
    pub(crate) fn policy(&self) -> Policy {
        match self.evolve {
            Evolve::None => Policy::None,
            Evolve::Additive => Policy::Additive,
            Evolve::Full => Policy::Full { drop: self.dropped_columns == DroppedColumns::Drop },
        }
    }

    /// What is said of columns.
    pub(crate) fn overrides(&self) -> Result<Overrides, String> {
        Overrides::parse(&self.columns).map_err(|faults| faults.join("; "))
    }

    /// How changes are applied, in mode upsert.
    pub(crate) fn rules(&self) -> Result<Option<Rules>, String> {
        Rules::parse(self).map_err(|faults| faults.join("; "))
    }

    /// The table of dead letters.
    pub(crate) fn dead_letters_table(&self) -> Result<TableIdent, String> {
        let found = &self.dead_letters;
        let fault = || format!("dead_letters: {found:?} is no table; expected namespace.table, as in cdc.dead_letters");
        let levels: Vec<&str> = found.split('.').collect();
        let sound = |level: &&str| {
            !level.is_empty()
                && level.chars().count() <= 255
                && !level.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '{' | '}'))
        };
        if levels.len() < 2 || !levels.iter().all(sound) {
            return Err(fault());
        }
        TableIdent::from_strs(levels).map_err(|_| fault())
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
            Some(text) => quantity::duration(text).ok_or_else(|| {
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
