//! Messages as Confluent's own Python client writes them, with a schema registry: `confluent/produce.py`.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::services::registry::Registry;
use crate::{services, target};

/// Where such messages go, and what they are.
#[derive(Clone, Debug)]
pub struct Confluent {
    request: Value,
}

impl Confluent {
    /// Avro with this schema.
    #[must_use]
    pub fn avro(bootstrap: &str, registry: &Registry, topic: &str, schema: &Value) -> Self {
        Self::of("avro", bootstrap, registry, topic, schema)
    }

    /// JSON with this JSON Schema.
    #[must_use]
    pub fn json(bootstrap: &str, registry: &Registry, topic: &str, schema: &Value) -> Self {
        Self::of("json-schema", bootstrap, registry, topic, schema)
    }

    fn of(format: &str, bootstrap: &str, registry: &Registry, topic: &str, schema: &Value) -> Self {
        let url = registry.url();
        let request = json!({
            "bootstrap": bootstrap, "registry": url, "topic": topic, "format": format, "schema": schema,
        });
        Self { request }
    }

    /// The same with a schema for keys.
    #[must_use]
    pub fn keyed(mut self, schema: &Value) -> Self {
        self.request["key_schema"] = schema.clone();
        self
    }

    /// The same with the password of the registry.
    #[must_use]
    pub fn by(mut self, username: &str, password: &str) -> Self {
        self.request["username"] = json!(username);
        self.request["password"] = json!(password);
        self
    }

    /// Produces values without keys; the cells that they are, as readers print them. `confluent/produce.py` says how to write
    /// what JSON cannot.
    ///
    /// # Errors
    /// When Python or the client cannot be had, or what they say.
    pub fn produce(&self, values: &[Value]) -> Result<Vec<Value>> {
        let messages: Vec<Value> = values.iter().map(|value| json!({ "value": value })).collect();
        self.produce_keyed(&messages)
    }

    /// Produces messages: `{"key": …, "value": …}`.
    ///
    /// # Errors
    /// As [`produce`](Self::produce).
    pub fn produce_keyed(&self, messages: &[Value]) -> Result<Vec<Value>> {
        let folder = target::repository().join("tests/confluent");
        let python = services::venv(&target::root().join("services/confluent"), &folder.join("requirements.txt"))?;
        let mut request = self.request.clone();
        request["messages"] = json!(messages);
        // Without a cache of its modules beside them.
        let mut child = Command::new(python)
            .arg("-B")
            .arg(folder.join("produce.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no pipe")?.write_all(request.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "produce.py: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
