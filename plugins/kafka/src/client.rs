//! librdkafka's client: how it is set up, and what it calls back with.
//!
//! The group protocol is run by hand: librdkafka says what is assigned and revoked, the reader answers when the table is ready for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use philotes_sdk::{Error, ErrorKind, Result, TaskInfo};
use rdkafka::TopicPartitionList;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use crate::config::{IsolationLevel, PasswordConfig, SaslConfig, Settings, TlsMode};
use crate::oauth::Tokens;

pub(crate) type Consumer = BaseConsumer<Context>;

/// How long a request to a broker may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// A partition by its topic's name and its number.
pub(crate) type TopicPartition = (String, i32);

/// What the group has decided; it waits for the answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rebalance {
    Assign(Vec<TopicPartition>),
    Revoke {
        partitions: Vec<TopicPartition>,
        /// Others may have them already: the group has given this member up.
        lost: bool,
    },
}

/// What librdkafka calls back.
pub(crate) struct Context {
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// The client is closing: whatever is revoked goes at once.
    closing: AtomicBool,
    /// What went wrong last, which says more than the time-out that follows from it.
    trouble: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// Why there is no token, if that is so.
    no_token: Mutex<Option<(ErrorKind, String)>>,
    tokens: Option<Tokens>,
}

impl Context {
    fn new(tokens: Option<Tokens>) -> Self {
        Self {
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
            trouble: Mutex::default(),
            no_token: Mutex::default(),
            tokens,
        }
    }

    /// What the group has decided since the last call.
    pub(crate) fn next_rebalance(&self) -> Option<Rebalance> {
        lock(&self.rebalances).pop_front()
    }

    /// From now on whatever is revoked goes at once.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// What went wrong last, and was not asked for before.
    pub(crate) fn take_trouble(&self) -> Option<(RDKafkaErrorCode, String)> {
        lock(&self.trouble).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code().filter(|code| *code != RDKafkaErrorCode::PartitionEOF) else {
            return;
        };
        // The broker's refusal of a certificate comes as a broken connection.
        let code = if reason.contains("SSL") && reason.contains("alert") { RDKafkaErrorCode::SSL } else { code };
        let mut trouble = lock(&self.trouble);
        // That all brokers are down follows from something that was said before.
        let follows = code == RDKafkaErrorCode::AllBrokersDown && trouble.is_some();
        if !follows && !trouble.as_ref().is_some_and(|(code, _)| shuts_out(*code)) {
            *trouble = Some((code, reason.to_owned()));
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        let Some(tokens) = &self.tokens else { return Err("the connector has no sasl.mechanism: oauthbearer".into()) };
        let fetched = tokens.fetch();
        *lock(&self.no_token) = fetched.as_ref().err().map(|error| (error.kind(), error.to_string()));
        fetched.map_err(Into::into)
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &Consumer, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assigns = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            // Without an answer the client would never be closed.
            let answered = if assigns {
                consumer.incremental_assign(&TopicPartitionList::new())
            } else {
                consumer.incremental_unassign(partitions)
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "leaving the group");
            }
            return;
        }
        let elements = partitions.elements();
        let partitions = elements.iter().map(|each| (each.topic().to_owned(), each.partition())).collect();
        lock(&self.rebalances).push_back(if assigns {
            Rebalance::Assign(partitions)
        } else {
            Rebalance::Revoke { partitions, lost: consumer.assignment_lost() }
        });
    }
}

/// How much librdkafka may hold, in bytes, of what the task's source may.
pub(crate) fn fetched_bytes(max_memory: u64) -> u64 {
    (max_memory / 2).clamp(2 << 20, 1 << 30)
}

/// What librdkafka calls the files that keys of ours name.
const KEYS: [(&str, &str); 3] =
    [("ssl.ca.location", "tls_ca"), ("ssl.certificate.location", "tls_certificate"), ("ssl.key.location", "tls_key")];

/// A client that names the connector's group, and has not joined it yet; it need not.
pub(crate) fn connect(settings: &Settings, info: &TaskInfo) -> Result<Arc<Consumer>> {
    let config = configure(settings, info)?;
    let tokens = match &settings.config.sasl {
        Some(SaslConfig::Oauthbearer(oauth)) => Some(Tokens::new(oauth)?),
        _ => None,
    };
    let consumer = Consumer::from_config_and_context(&config, Context::new(tokens)).map_err(|error| match error {
        KafkaError::ClientConfig(_, reason, name, value) => {
            // It quotes the value, and each of the properties may be a secret.
            let reason = if value.is_empty() { reason } else { reason.replace(&value, "…") };
            Error::config(format!("properties.{name}: {reason}"))
        }
        // Also for want of files, as when it makes its threads' pipes.
        KafkaError::ClientCreation(reason) if philotes_sdk::is_out_of_files() => {
            Error::unavailable(format!("librdkafka cannot be set up: {reason}"))
        }
        KafkaError::ClientCreation(reason) => {
            let key = KEYS.iter().find(|(name, _)| reason.contains(name)).map_or("properties", |(_, key)| key);
            Error::config(format!("{key}: {reason}"))
        }
        error => Error::config("librdkafka refuses its configuration").with_source(error),
    })?;
    Ok(Arc::new(consumer))
}

fn configure(settings: &Settings, info: &TaskInfo) -> Result<ClientConfig> {
    let config = &settings.config;
    let fetched = fetched_bytes(info.max_memory);
    // Set by name: an operator's `properties` come first and cannot name what is guaranteed here.
    let mut set: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in DEFAULTS {
        set.insert(name, (*value).to_owned());
    }
    set.extend(config.properties.iter().map(|(name, value)| (name.as_str(), value.expose().to_owned())));
    set.insert("bootstrap.servers", config.bootstrap_servers.clone());
    set.insert("group.id", settings.group(&info.connector));
    set.insert("client.id", format!("philotes-{}-{}", info.connector, info.task));
    // What no offset leads to is an error and never a jump; where to begin is decided when a partition is resumed.
    set.insert("auto.offset.reset", "error".to_owned());
    set.insert("enable.auto.commit", "false".to_owned());
    set.insert("enable.auto.offset.store", "false".to_owned());
    set.insert("enable.partition.eof", "true".to_owned());
    set.insert("partition.assignment.strategy", "cooperative-sticky".to_owned());
    let isolation = match config.isolation_level {
        IsolationLevel::ReadCommitted => "read_committed",
        IsolationLevel::ReadUncommitted => "read_uncommitted",
    };
    set.insert("isolation.level", isolation.to_owned());
    // Half of it may wait in the queue while a fetch brings the other half.
    set.insert("queued.max.messages.kbytes", (fetched / 2 / 1024).to_string());
    let largest = (fetched / 2).clamp(1 << 20, 64 << 20);
    set.entry("fetch.max.bytes").or_insert_with(|| largest.to_string());
    set.entry("fetch.message.max.bytes").or_insert_with(|| (largest.min(1 << 20)).to_string());
    let plain = config.tls == TlsMode::Disable;
    let protocol = match (plain, config.sasl.is_some()) {
        (true, false) => "plaintext",
        (true, true) => "sasl_plaintext",
        (false, false) => "ssl",
        (false, true) => "sasl_ssl",
    };
    set.insert("security.protocol", protocol.to_owned());
    if !plain {
        set.insert("enable.ssl.certificate.verification", (config.tls == TlsMode::VerifyFull).to_string());
        let verify = if config.tls == TlsMode::VerifyFull { "https" } else { "none" };
        set.insert("ssl.endpoint.identification.algorithm", verify.to_owned());
        let files = [&config.tls_ca, &config.tls_certificate, &config.tls_key];
        for ((name, key), file) in KEYS.into_iter().zip(files) {
            let Some(file) = file else { continue };
            std::fs::metadata(file).map_err(|error| {
                Error::new(ErrorKind::of_io(&error), format!("{key}: {file} cannot be read")).with_source(error)
            })?;
            set.insert(name, file.clone());
        }
        if let Some(password) = &config.tls_key_password {
            set.insert("ssl.key.password", password.expose().to_owned());
        }
    }
    let (mechanism, password) = match &config.sasl {
        None => (None, None),
        Some(SaslConfig::Plain(password)) => (Some("PLAIN"), Some(password)),
        Some(SaslConfig::ScramSha256(password)) => (Some("SCRAM-SHA-256"), Some(password)),
        Some(SaslConfig::ScramSha512(password)) => (Some("SCRAM-SHA-512"), Some(password)),
        Some(SaslConfig::Oauthbearer(_)) => (Some("OAUTHBEARER"), None),
    };
    if let Some(mechanism) = mechanism {
        set.insert("sasl.mechanism", mechanism.to_owned());
    }
    if let Some(PasswordConfig { username, password }) = password {
        set.insert("sasl.username", username.clone());
        set.insert("sasl.password", password.expose().to_owned());
    }
    let mut client = ClientConfig::new();
    for (name, value) in set {
        client.set(name, value);
    }
    client.set_log_level(RDKafkaLogLevel::Info);
    Ok(client)
}

/// What is set unless the operator says otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    // New topics and partitions are found within half a minute.
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("allow.auto.create.topics", "false"),
    ("socket.keepalive.enable", "true"),
    // A cold broker that is down should not keep a connector waiting for long once it is back.
    ("reconnect.backoff.max.ms", "2000"),
    ("queued.min.messages", "1000000"),
    // How long nothing is fetched once the queue was full: by default a second, in which a small queue is empty for most of the time.
    ("fetch.queue.backoff.ms", "5"),
    ("check.crcs", "true"),
];

/// Asks for the cluster's id, which is also how it shows that the cluster is in reach.
pub(crate) fn cluster_id(consumer: &Consumer, settings: &Settings) -> Result<String> {
    let deadline = Instant::now() + REQUEST;
    loop {
        // Serves what is wanted for getting in, such as a token.
        let _ = consumer.poll(Duration::ZERO);
        if let Some(id) = consumer.client().fetch_cluster_id(Duration::from_millis(250)) {
            return Ok(id);
        }
        let _ = consumer.poll(Duration::ZERO);
        let refused = lock(&consumer.context().trouble).as_ref().is_some_and(|(code, _)| shuts_out(*code));
        if refused || Instant::now() >= deadline {
            return Err(out_of_reach(consumer, settings));
        }
    }
}

/// The brokers do not answer: why, as far as that is known.
fn out_of_reach(consumer: &Consumer, settings: &Settings) -> Error {
    let context = consumer.context();
    if let Some((kind, reason)) = lock(&context.no_token).take() {
        return Error::new(kind, reason);
    }
    let servers = &settings.config.bootstrap_servers;
    match context.take_trouble() {
        Some((code, reason)) => {
            Error::new(kind(code), format!("bootstrap_servers: {servers} is out of reach: {reason}"))
        }
        None => {
            Error::unavailable(format!("bootstrap_servers: {servers} is out of reach: nobody has answered in time"))
        }
    }
}

/// Codes that no waiting heals.
fn shuts_out(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    match code {
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => true,
        // Said of a connection that was let in before.
        Code::IllegalSASLState => false,
        code => is_about_getting_in(code),
    }
}

/// Codes of a client that is not let in, which may have been let in before: opened again, it hears whether it still is.
pub(crate) fn is_about_getting_in(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
    )
}

/// What an error code means for the host.
pub(crate) fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    if shuts_out(code) {
        return ErrorKind::Config;
    }
    match code {
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnknownMemberId => {
            ErrorKind::Fenced
        }
        _ => ErrorKind::Unavailable,
    }
}

/// An error of a request.
pub(crate) fn failed(doing: &str, error: KafkaError) -> Error {
    let kind = error.rdkafka_error_code().map_or(ErrorKind::Unavailable, kind);
    Error::new(kind, doing.to_owned()).with_source(error)
}
