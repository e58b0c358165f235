//! The configuration an operator writes, and the settings it resolves to.

use std::time::Duration;

use philotes_sdk::quantity::duration;
use philotes_sdk::{Error, Result, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::{Columns, ColumnsConfig};
use crate::dsn::Dsn;
use crate::key::{KeyConfig, Keys};

/// The source's keys in a connector file.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Connection string of the database that holds the buffer, postgresql://… or key=value. Connect directly or
    /// through a pooler in session mode: transaction pooling breaks the locks.
    pub dsn: Secret,
    /// Which rows of the buffer: the value of their column `source_id`.
    pub source_id: String,
    /// What becomes of a row that is in the table: mark sets processed_at, delete removes the row.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// Connection string of the source database, whose catalog then says the types of columns that the events do not.
    #[serde(default)]
    #[schemars(with = "Secret")]
    pub types_from: Option<Secret>,
    /// Rows of a batch at most, 1 to 1048576.
    #[serde(default = "default_batch_rows")]
    pub batch_rows: u32,
    /// How columns are read, and which are left out: {public.orders: {note: {type: json}, ssn: {drop: true}}}.
    #[serde(default)]
    pub columns: ColumnsConfig,
    /// The columns that identify a row, in place of the buffer's key_columns: {public.events: [tenant, id]}.
    #[serde(default)]
    pub key: KeyConfig,
    /// How often to look for rows where no notification comes, 10ms to 1h.
    #[serde(default = "default_poll_interval")]
    pub poll_interval: String,
    /// How long marked rows stay, such as 7d; never keeps them for ever.
    #[serde(default = "default_retention")]
    pub retention: String,
    /// What becomes of rows whose stream the route does not take: keep leaves them, acknowledge treats them as done.
    #[serde(default)]
    pub unrouted: Unrouted,
    /// TLS: verify-full checks the server's certificate and name, require and prefer only encrypt. Without it, the connection
    /// string's sslmode counts, else prefer; where both say something, the stricter.
    #[serde(default)]
    #[schemars(with = "TlsMode")]
    pub tls: Option<TlsMode>,
    /// File of the certificate authorities to trust with verify-full, PEM; the system's where it is not given.
    #[serde(default)]
    #[schemars(with = "String")]
    pub tls_ca: Option<String>,
}

// The variants have no documentation of their own: the configuration spec knows `enum`, and schemars would write `oneOf`.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Acknowledge {
    #[default]
    Mark,
    Delete,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Unrouted {
    #[default]
    Keep,
    Acknowledge,
}

// From the least strict to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum TlsMode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyFull,
}

fn default_batch_rows() -> u32 {
    16_384
}

fn default_poll_interval() -> String {
    "1s".to_owned()
}

fn default_retention() -> String {
    "7d".to_owned()
}

/// A configuration whose texts have been read.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) columns: Columns,
    pub(crate) keys: Keys,
    pub(crate) poll_interval: Duration,
    /// `None` keeps marked rows for ever.
    pub(crate) retention: Option<Duration>,
}

impl Settings {
    /// Reads the texts of a configuration.
    pub(crate) fn new(config: Config) -> Result<Self> {
        let faults = faults(&config);
        if !faults.is_empty() {
            return Err(Error::config(faults.join("; ")));
        }
        let poll_interval = duration(&config.poll_interval).unwrap_or(Duration::from_secs(1));
        let retention = if config.retention == "never" { None } else { duration(&config.retention) };
        let columns = Columns::new(&config.columns).map_err(|faults| Error::config(faults.join("; ")))?;
        let keys = Keys::new(&config.key).map_err(|faults| Error::config(faults.join("; ")))?;
        Ok(Self { config, columns, keys, poll_interval, retention })
    }
}

/// What is wrong with a configuration: one message per fault, its key first.
pub(crate) fn faults(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let dsns = [Some(("dsn", &config.dsn)), config.types_from.as_ref().map(|dsn| ("types_from", dsn))];
    let mut verifies = config.tls == Some(TlsMode::VerifyFull);
    for (key, text) in dsns.into_iter().flatten() {
        match Dsn::parse(text.expose()) {
            Ok(dsn) => verifies |= dsn.tls(config.tls) == TlsMode::VerifyFull,
            Err(fault) => faults.push(format!("{key}: {fault}")),
        }
    }
    if config.source_id.is_empty() {
        faults.push("source_id: empty; give the value of the buffer's column source_id".to_owned());
    }
    if !(1..=1_048_576).contains(&config.batch_rows) {
        faults.push(format!("batch_rows: {}; allowed: 1 to 1048576", config.batch_rows));
    }
    match duration(&config.poll_interval) {
        Some(interval) if (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&interval) => {}
        _ => {
            faults.push(format!("poll_interval: {:?}; allowed: 10ms to 1h, such as 500ms or 1s", config.poll_interval));
        }
    }
    if config.retention != "never" && duration(&config.retention).is_none() {
        faults.push(format!("retention: {:?}; allowed: a duration such as 12h or 7d, or never", config.retention));
    }
    if config.tls_ca.is_some() && !verifies {
        faults.push(
            "tls_ca: is only used with tls: verify-full, or sslmode=verify-full in the connection string".to_owned(),
        );
    }
    faults.extend(Columns::new(&config.columns).err().unwrap_or_default());
    faults.extend(Keys::new(&config.key).err().unwrap_or_default());
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &serde_json::Value) -> Config {
        let mut object = serde_json::json!({"dsn": "postgresql://u:secret@h/d", "source_id": "shop"});
        object.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn each_fault_names_its_key() {
        for (json, key) in [
            (serde_json::json!({"dsn": "host=h port=secret"}), "dsn:"),
            (serde_json::json!({"types_from": "nonsense=secret"}), "types_from:"),
            (serde_json::json!({"source_id": ""}), "source_id:"),
            (serde_json::json!({"batch_rows": 0}), "batch_rows:"),
            (serde_json::json!({"poll_interval": "1ms"}), "poll_interval:"),
            (serde_json::json!({"retention": "soon"}), "retention:"),
            (serde_json::json!({"tls_ca": "/ca.pem"}), "tls_ca:"),
            (serde_json::json!({"key": {"public.t": []}}), "key.public.t:"),
            (serde_json::json!({"key": {"t": ["id"]}}), "key.t:"),
            (serde_json::json!({"key": {"public.t": ["id", "id"]}}), "key.public.t:"),
        ] {
            let faults = faults(&config(&json));
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with(key), "{faults:?}");
            assert!(!faults[0].contains("secret"), "{faults:?}");
        }
        assert!(faults(&config(&serde_json::json!({"retention": "never"}))).is_empty());
    }

    #[test]
    fn the_spec_stays_in_the_subset() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        assert_eq!(schema["properties"]["dsn"]["writeOnly"], true);
        assert_eq!(schema["properties"]["types_from"]["writeOnly"], true);
        assert_eq!(schema["properties"]["types_from"]["type"], "string");
        assert_eq!(schema["properties"]["acknowledge"]["enum"], serde_json::json!(["mark", "delete"]));
        assert_eq!(schema["properties"]["acknowledge"]["default"], "mark");
        assert!(schema.get("$defs").is_none(), "{schema:#}");
    }
}
