//! The configuration an operator writes.

use std::collections::BTreeMap;
use std::time::Duration;

use philotes_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The source's keys in a connector file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
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
    #[schemars(with = "String", extend("writeOnly" = true))]
    pub tls_key_password: Option<String>,
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
    pub properties: BTreeMap<String, String>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisteredFormat {
    /// What the rows are wrapped in: nothing, or Debezium's change events.
    #[serde(default)]
    pub envelope: Envelope,
    /// The members that identify a row, where there is no envelope. A message without a value is then a DELETE of the row that the
    /// message's key names.
    #[serde(default)]
    pub key: Vec<String>,
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
#[derive(Clone, Debug, Deserialize, JsonSchema)]
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
    #[schemars(with = "String", extend("writeOnly" = true))]
    pub password: Option<String>,
    /// File of the certificate authorities to trust, PEM; the system's where it is not given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub tls_ca: Option<String>,
    /// How long an answer may take: 500ms to 5m.
    #[serde(default = "default_registry_timeout")]
    pub timeout: String,
}

/// How the client authenticates itself.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordConfig {
    /// The user's name.
    pub username: String,
    /// The user's password.
    #[schemars(extend("writeOnly" = true))]
    pub password: String,
}

/// OAuth2's client credentials, RFC 6749, section 4.4.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthbearerConfig {
    /// The token endpoint: https://idp.example.com/realms/kafka/protocol/openid-connect/token.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    #[schemars(extend("writeOnly" = true))]
    pub client_secret: String,
    /// The scope to ask for.
    #[serde(default)]
    #[schemars(with = "String")]
    pub scope: Option<String>,
    /// Extensions that go with the token to the broker (RFC 7628): {logicalCluster: lkc-1}.
    #[serde(default)]
    pub extensions: BTreeMap<String, String>,
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
