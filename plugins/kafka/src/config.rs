//! The configuration an operator writes.

use std::collections::BTreeMap;
use std::time::Duration;

use philotes_sdk::quantity::duration;
use philotes_sdk::{Error, Result, Secret, glob};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::parse_columns;
use crate::{regex, registry};

/// The source's keys in a connector file.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The brokers to begin with: host:port, with commas between.
    pub bootstrap_servers: String,
    /// The topics to read, by name; or `topics_regex`.
    #[serde(default)]
    pub topics: Vec<String>,
    /// A regular expression that the whole name of a topic has to match; topics that are made later are picked up.
    #[serde(default)]
    #[schemars(with = "String")]
    pub topics_regex: Option<String>,
    /// The consumer group, which shares the partitions out among tasks and hosts: philotes-{connector}, unless this says otherwise.
    #[serde(default)]
    #[schemars(with = "String")]
    pub group: Option<String>,
    /// Where a partition is begun that the table knows nothing of: earliest, latest, or none, which stops the connector.
    #[serde(default)]
    pub auto_offset_reset: AutoOffsetReset,
    /// Which messages of transactions are read: read_committed leaves out those that were aborted or are still open.
    #[serde(default)]
    pub isolation_level: IsolationLevel,
    /// What the messages are: JSON objects, unless this or `formats` says otherwise.
    #[serde(default)]
    pub format: FormatConfig,
    /// What the messages of single topics are, by name or by a pattern with * and ?: {payments: {type: avro}}. A name wins over patterns.
    #[serde(default)]
    pub formats: BTreeMap<String, FormatConfig>,
    /// What Kafka says of each message, as the columns _kafka_key, _kafka_headers, _kafka_timestamp, _kafka_topic,
    /// _kafka_partition and _kafka_offset.
    #[serde(default)]
    pub metadata_columns: Vec<MetadataColumn>,
    /// The schema registry of the formats avro and json-schema.
    #[serde(default)]
    #[schemars(with = "RegistryConfig")]
    pub registry: Option<RegistryConfig>,
    /// TLS to the brokers: verify-full checks their certificates and names, require only encrypts.
    #[serde(default)]
    pub tls: TlsMode,
    /// File of the certificate authorities to trust with verify-full, PEM; the system's where it is not given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub tls_ca: Option<String>,
    /// File of the client's own certificate, PEM, where brokers ask for one.
    #[serde(default)]
    #[schemars(with = "String")]
    pub tls_certificate: Option<String>,
    /// File of that certificate's private key, PEM.
    #[serde(default)]
    #[schemars(with = "String")]
    pub tls_key: Option<String>,
    /// The private key's password.
    #[serde(default)]
    #[schemars(with = "Secret")]
    pub tls_key_password: Option<Secret>,
    /// How the client authenticates itself.
    #[serde(default)]
    #[schemars(with = "SaslConfig")]
    pub sasl: Option<SaslConfig>,
    /// Rows of a batch at most, 1 to 1048576.
    #[serde(default = "default_batch_rows")]
    pub batch_rows: u32,
    /// How long rows may wait for others of their partition before they go on, 0ms to 1m.
    #[serde(default = "default_batch_wait")]
    pub batch_wait: String,
    /// Further settings of librdkafka, by their own names: {session.timeout.ms: "10000", client.rack: eu-1}.
    #[serde(default)]
    pub properties: BTreeMap<String, Secret>,
}

// The variants of enums have no documentation of their own: the configuration spec knows `enum`, and schemars would write `oneOf`.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum AutoOffsetReset {
    #[default]
    Earliest,
    Latest,
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum IsolationLevel {
    #[default]
    ReadCommitted,
    ReadUncommitted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum MetadataColumn {
    Key,
    Headers,
    Timestamp,
    Topic,
    Partition,
    Offset,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum TlsMode {
    #[default]
    Disable,
    Require,
    VerifyFull,
}

/// What the messages of a topic are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FormatConfig {
    /// JSON objects: a message is a row, its members are the columns.
    Json(JsonFormat),
    /// JSON of Kafka Connect's converter with its schema: {"schema": …, "payload": …}.
    ConnectJson(RowFormat),
    /// Debezium's change events as JSON, with or without their schema.
    DebeziumJson(DebeziumFormat),
    /// Avro in Confluent's wire format, with a schema registry.
    Avro(RegisteredFormat),
    /// JSON Schema in Confluent's wire format, with a schema registry.
    JsonSchema(RegisteredFormat),
    /// Nothing that is looked into: the column `value` holds the bytes.
    Raw(RawFormat),
}

impl Default for FormatConfig {
    fn default() -> Self {
        Self::Json(JsonFormat::default())
    }
}

/// JSON objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonFormat {
    /// The columns and their types: {id: long, amount: "decimal(18,2)", at: timestamp_millis, tags: "list<string>"}.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// What becomes of members that `columns` does not name: their types are inferred, they are left out, or the message is refused.
    #[serde(default)]
    pub others: Others,
    /// The members that identify a row. A message without a value is then a DELETE of the row that the message's key names.
    #[serde(default)]
    pub key: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Others {
    #[default]
    Infer,
    Drop,
    Refuse,
}

/// A message is a row whose types its schema tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowFormat {
    /// The members that identify a row. A message without a value is then a DELETE of the row that the message's key names.
    #[serde(default)]
    pub key: Vec<String>,
}

/// Debezium's change events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DebeziumFormat {
    /// The types of columns where events have no schema, as in the format json; what is not named is inferred.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// What stands for a value that PostgreSQL did not send, because it is large and did not change: Debezium's own
    /// unavailable.value.placeholder.
    #[serde(default = "default_unavailable_value")]
    pub unavailable_value: String,
}

impl Default for DebeziumFormat {
    fn default() -> Self {
        Self { columns: BTreeMap::new(), unavailable_value: default_unavailable_value() }
    }
}

/// Messages that name their schema in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisteredFormat {
    /// What the rows are wrapped in: nothing, or Debezium's change events.
    #[serde(default)]
    pub envelope: Envelope,
    /// The members that identify a row, where there is no envelope. A message without a value is then a DELETE of the row that the
    /// message's key names.
    #[serde(default)]
    pub key: Vec<String>,
    /// What stands in Debezium's change events for a value that PostgreSQL did not send, because it is large and did not change:
    /// Debezium's own unavailable.value.placeholder.
    #[serde(default = "default_unavailable_value")]
    pub unavailable_value: String,
}

impl Default for RegisteredFormat {
    fn default() -> Self {
        Self { envelope: Envelope::default(), key: Vec::new(), unavailable_value: default_unavailable_value() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Envelope {
    #[default]
    None,
    Debezium,
}

/// Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFormat {}

/// A schema registry.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Where it is: http://localhost:8081.
    pub url: String,
    /// The user of HTTP's basic authentication.
    #[serde(default)]
    #[schemars(with = "String")]
    pub username: Option<String>,
    /// The password of HTTP's basic authentication.
    #[serde(default)]
    #[schemars(with = "Secret")]
    pub password: Option<Secret>,
    /// File of the certificate authorities to trust, PEM; the system's where it is not given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub tls_ca: Option<String>,
    /// How long an answer may take: 500ms to 5m.
    #[serde(default = "default_registry_timeout")]
    pub timeout: String,
}

/// How the client authenticates itself.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(tag = "mechanism", rename_all = "kebab-case")]
pub enum SaslConfig {
    /// A user name and a password, in the clear: only with TLS.
    Plain(PasswordConfig),
    /// Challenge and response over SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256(PasswordConfig),
    /// Challenge and response over SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512(PasswordConfig),
    /// Bearer tokens that an OAuth2 server grants.
    Oauthbearer(OauthbearerConfig),
}

/// Who the client is.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordConfig {
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: Secret,
}

/// OAuth2's client credentials, RFC 6749, section 4.4.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthbearerConfig {
    /// The token endpoint: https://idp.example.com/realms/kafka/protocol/openid-connect/token.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Secret,
    /// The scope to ask for.
    #[serde(default)]
    #[schemars(with = "String")]
    pub scope: Option<String>,
    /// File of the certificate authorities of the token endpoint to trust, PEM; the system's where it is not given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub tls_ca: Option<String>,
}

fn default_batch_rows() -> u32 {
    16_384
}

fn default_batch_wait() -> String {
    "100ms".to_owned()
}

pub(crate) fn default_unavailable_value() -> String {
    "__debezium_unavailable_value".to_owned()
}

fn default_registry_timeout() -> String {
    "10s".to_owned()
}

/// What librdkafka is told by other keys or by what this source guarantees; each with what to use instead.
const SETTLED: &[(&str, &str)] = &[
    ("bootstrap.servers", "bootstrap_servers"),
    ("metadata.broker.list", "bootstrap_servers"),
    ("group.id", "group"),
    ("auto.offset.reset", "auto_offset_reset"),
    ("isolation.level", "isolation_level"),
    ("security.protocol", "tls and sasl"),
    ("enable.ssl.certificate.verification", "tls"),
    ("ssl.ca.location", "tls_ca"),
    ("ssl.certificate.location", "tls_certificate"),
    ("ssl.key.location", "tls_key"),
    ("ssl.key.password", "tls_key_password"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.username", "sasl.username"),
    ("sasl.password", "sasl.password"),
    ("sasl.oauthbearer.config", "sasl"),
    ("sasl.oauthbearer.method", "sasl"),
    ("enable.auto.commit", "nothing: the table's commit decides"),
    ("enable.auto.offset.store", "nothing: the table's commit decides"),
    ("enable.partition.eof", "nothing: the source needs it"),
    ("partition.assignment.strategy", "nothing: cooperative-sticky is what the source keeps its promises with"),
    ("group.protocol", "nothing: cooperative-sticky is what the source keeps its promises with"),
    ("queued.max.messages.kbytes", "max_memory"),
    ("statistics.interval.ms", "nothing: /metrics and /status have the lag"),
    ("plugin.library.paths", "nothing: the source loads no libraries"),
];

/// A configuration whose texts have been read.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) batch_wait: Duration,
}

impl Settings {
    /// Reads the texts of a configuration.
    pub(crate) fn new(config: Config) -> Result<Self> {
        let faults = faults(&config);
        if !faults.is_empty() {
            return Err(Error::config(faults.join("; ")));
        }
        let batch_wait = duration(&config.batch_wait).unwrap_or_default();
        Ok(Self { config, batch_wait })
    }

    /// The consumer group of a connector.
    pub(crate) fn group(&self, connector: &str) -> String {
        self.config.group.clone().unwrap_or_else(|| format!("philotes-{connector}"))
    }

    /// The format of a topic: by its name, else by the one pattern that fits.
    ///
    /// # Errors
    /// Config where several patterns fit.
    pub(crate) fn format(&self, topic: &str) -> Result<&FormatConfig> {
        if let Some(format) = self.config.formats.get(topic) {
            return Ok(format);
        }
        let mut fitting = self.config.formats.iter().filter(|(pattern, _)| glob(pattern, topic));
        match (fitting.next(), fitting.next()) {
            (None, _) => Ok(&self.config.format),
            (Some((_, format)), None) => Ok(format),
            (Some((one, _)), Some((other, _))) => Err(Error::config(format!(
                "formats: topic {topic} fits {one:?} and {other:?}; allowed is one pattern, or the topic's own name"
            ))),
        }
    }
}

/// What is wrong with a configuration: one message per fault, its key first.
pub(crate) fn faults(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    if config.bootstrap_servers.split(',').any(|server| server.trim().is_empty()) {
        faults.push("bootstrap_servers: allowed are host:port, with commas between".to_owned());
    }
    match (&config.topics[..], &config.topics_regex) {
        ([], None) => faults.push("topics: missing; allowed is a list of topics, or topics_regex".to_owned()),
        ([_, ..], Some(_)) => faults.push("topics_regex: excludes topics; allowed is one of them".to_owned()),
        (topics, None) => faults.extend(topics.iter().filter(|topic| !is_topic(topic)).map(|topic| {
            format!("topics: {topic:?} is no topic's name; allowed are 1 to 249 of letters, digits, '.', '_' and '-'")
        })),
        ([], Some(regex)) if regex.is_empty() || regex == "^" => {
            faults.push("topics_regex: empty; allowed is a regular expression such as shop\\..*".to_owned());
        }
        ([], Some(regex)) => faults.extend(regex::fault(regex).map(|reason| {
            format!("topics_regex: {regex:?}: {reason}; allowed is a regular expression such as shop\\..*")
        })),
    }
    if config.group.as_ref().is_some_and(String::is_empty) {
        faults.push("group: empty; allowed is a name".to_owned());
    }
    let registered = |format: &FormatConfig| matches!(format, FormatConfig::Avro(_) | FormatConfig::JsonSchema(_));
    if config.registry.is_none() && std::iter::once(&config.format).chain(config.formats.values()).any(registered) {
        faults.push("registry: missing; the formats avro and json-schema want {url: http://host:8081}".to_owned());
    }
    faults.extend(config.format.faults("format"));
    for (topics, format) in &config.formats {
        faults.extend(format.faults(&format!("formats.{topics}")));
    }
    if let Some(registry) = &config.registry {
        faults.extend(registry.faults());
    }
    if config.tls == TlsMode::Disable {
        let given = [
            ("tls_ca", config.tls_ca.is_some()),
            ("tls_certificate", config.tls_certificate.is_some()),
            ("tls_key", config.tls_key.is_some()),
            ("tls_key_password", config.tls_key_password.is_some()),
        ];
        faults.extend(
            given
                .iter()
                .filter(|(_, given)| *given)
                .map(|(key, _)| format!("{key}: is only used with tls: verify-full or require")),
        );
    }
    if config.tls == TlsMode::Require && config.tls_ca.is_some() {
        faults.push("tls_ca: is only used with tls: verify-full, which checks certificates".to_owned());
    }
    if config.tls_certificate.is_some() != config.tls_key.is_some() {
        faults.push("tls_certificate: goes together with tls_key".to_owned());
    }
    if let Some(SaslConfig::Oauthbearer(oauth)) = &config.sasl {
        match reqwest::Url::parse(&oauth.token_url) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => faults.push(
                "sasl.token_url: holds a user or a password; expected them in sasl.client_id and sasl.client_secret"
                    .to_owned(),
            ),
            Ok(url) if matches!(url.scheme(), "http" | "https") => {}
            _ => faults.push("sasl.token_url: allowed is a URL that begins with https:// or http://".to_owned()),
        }
    }
    if !(1..=1_048_576).contains(&config.batch_rows) {
        faults.push(format!("batch_rows: {}; allowed: 1 to 1048576", config.batch_rows));
    }
    if duration(&config.batch_wait).is_none_or(|wait| wait > Duration::from_secs(60)) {
        faults.push(format!("batch_wait: {:?}; allowed: 0ms to 1m, such as 100ms or 1s", config.batch_wait));
    }
    let mut columns = config.metadata_columns.clone();
    columns.sort_by_key(|column| *column as u8);
    if columns.windows(2).any(|pair| pair[0] == pair[1]) {
        faults.push("metadata_columns: names one twice".to_owned());
    }
    for name in config.properties.keys() {
        if let Some((_, instead)) = SETTLED.iter().find(|(settled, _)| settled == name) {
            faults.push(format!("properties.{name}: is not set here; use {instead}"));
        }
    }
    faults
}

impl FormatConfig {
    /// What is wrong with the columns that are declared.
    fn faults(&self, path: &str) -> Vec<String> {
        let columns = match self {
            Self::Json(json) => &json.columns,
            Self::DebeziumJson(debezium) => &debezium.columns,
            Self::Avro(registered) | Self::JsonSchema(registered) => return registered.faults(path),
            Self::ConnectJson(_) | Self::Raw(_) => return Vec::new(),
        };
        let faults = parse_columns(columns).err().unwrap_or_default();
        faults.into_iter().map(|(column, fault)| format!("{path}.columns.{column}: {fault}")).collect()
    }
}

impl RegisteredFormat {
    fn faults(&self, path: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if self.envelope == Envelope::Debezium && !self.key.is_empty() {
            faults
                .push(format!("{path}.key: is only used without an envelope; the messages' keys say it with debezium"));
        }
        if self.envelope == Envelope::None && self.unavailable_value != default_unavailable_value() {
            faults.push(format!("{path}.unavailable_value: is only used with envelope: debezium"));
        }
        faults
    }
}

impl RegistryConfig {
    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = registry::server(&self.url).err().map(|e| e.to_string()).into_iter().collect();
        if self.username.is_some() != self.password.is_some() {
            faults.push("registry.username: goes together with registry.password".to_owned());
        }
        if self
            .timeout()
            .is_none_or(|timeout| !(Duration::from_millis(500)..=Duration::from_secs(300)).contains(&timeout))
        {
            faults.push(format!("registry.timeout: {:?}; allowed: 500ms to 5m", self.timeout));
        }
        faults
    }

    /// How long an answer may take.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        duration(&self.timeout)
    }
}

fn is_topic(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
