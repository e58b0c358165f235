//! A schema registry as far as serializers and deserializers ask it: schemas by id, subjects with versions. It checks no
//! compatibility, keeps everything in memory, and fails when it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::scripted::{Reply, Request, Scripted};

/// A running registry. Dropping it stops it.
#[derive(Debug)]
pub struct Registry {
    server: Scripted,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// User and password, as HTTP's basic authentication sends them.
    credentials: Option<String>,
    /// What every request is answered with.
    failure: Option<u16>,
    /// The schema of id n is the one before n: ids begin with 1.
    schemas: Vec<Schema>,
    /// The ids of a subject's versions, of which the first is 1.
    subjects: BTreeMap<String, Vec<usize>>,
    /// Method and path of all requests.
    requests: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Schema {
    /// AVRO, JSON or PROTOBUF.
    kind: String,
    text: String,
    references: Value,
}

impl Registry {
    /// An empty registry that answers everybody.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn start() -> Result<Self> {
        Self::start_as(State::default())
    }

    /// An empty registry that answers this user only.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_for(user: &str, password: &str) -> Result<Self> {
        let credentials = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Self::start_as(State { credentials: Some(credentials), ..State::default() })
    }

    fn start_as(state: State) -> Result<Self> {
        let state = Arc::new(Mutex::new(state));
        let server = Scripted::start({
            let state = Arc::clone(&state);
            move |request| lock(&state).answer(request)
        })?;
        Ok(Self { server, state })
    }

    /// The port of 127.0.0.1 that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Registers a schema (AVRO or JSON) for a subject; its id.
    pub fn register(&self, subject: &str, kind: &str, text: &str) -> usize {
        let schema = Schema { kind: kind.to_owned(), text: text.to_owned(), references: json!([]) };
        lock(&self.state).register(subject, &schema)
    }

    /// Answers every request with this status from now on; with `None` as it should.
    pub fn fail(&self, status: Option<u16>) {
        lock(&self.state).failure = status;
    }

    /// How many requests there were whose method and path begin like this: `GET /schemas/ids/1`.
    #[must_use]
    pub fn requests(&self, start: &str) -> usize {
        lock(&self.state).requests.iter().filter(|request| request.starts_with(start)).count()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        self.requests.push(format!("{} {}", request.method, request.path));
        if let Some(status) = self.failure {
            return error(status, 50_001, "told to fail");
        }
        if self.credentials.as_deref().is_some_and(|wanted| request.header("authorization") != Some(wanted)) {
            return error(401, 40_101, "Unauthorized");
        }
        let path = request.path.split('?').next().unwrap_or_default();
        let parts: Vec<String> = path.split('/').skip(1).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (request.method.as_str(), &parts[..]) {
            ("POST", ["subjects", subject, "versions"]) => match schema_of(&request.body) {
                Some(schema) => (200, json!({"id": self.register(subject, &schema)}).to_string()),
                None => error(422, 42_201, "Invalid schema"),
            },
            ("POST", ["subjects", subject]) => self.look_up(subject, &request.body),
            ("GET", ["schemas", "ids", id]) => match id.parse().ok().and_then(|id| self.schema(id)) {
                Some(schema) => (200, described(schema, json!({}))),
                None => error(404, 40_403, "Schema not found"),
            },
            ("GET", ["subjects", subject, "versions", version]) => self.version(subject, version),
            _ => error(404, 404, "HTTP 404 Not Found"),
        }
    }

    fn register(&mut self, subject: &str, schema: &Schema) -> usize {
        let at = self.schemas.iter().position(|other| other == schema).unwrap_or_else(|| {
            self.schemas.push(schema.clone());
            self.schemas.len() - 1
        });
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&(at + 1)) {
            versions.push(at + 1);
        }
        at + 1
    }

    fn schema(&self, id: usize) -> Option<&Schema> {
        self.schemas.get(id.checked_sub(1)?)
    }

    fn look_up(&self, subject: &str, body: &str) -> Reply {
        let Some(versions) = self.subjects.get(subject) else { return error(404, 40_401, "Subject not found") };
        let wanted = schema_of(body);
        match versions.iter().position(|id| self.schema(*id) == wanted.as_ref()) {
            Some(at) => self.version(subject, &(at + 1).to_string()),
            None => error(404, 40_403, "Schema not found"),
        }
    }

    fn version(&self, subject: &str, version: &str) -> Reply {
        let Some(versions) = self.subjects.get(subject) else { return error(404, 40_401, "Subject not found") };
        let number = if version == "latest" { versions.len() } else { version.parse().unwrap_or_default() };
        let id = number.checked_sub(1).and_then(|at| versions.get(at));
        match id.and_then(|id| Some((id, self.schema(*id)?))) {
            Some((id, schema)) => (200, described(schema, json!({"subject": subject, "version": number, "id": id}))),
            None => error(404, 40_402, "Version not found"),
        }
    }
}

/// What a body registers or looks for.
fn schema_of(body: &str) -> Option<Schema> {
    let body: Value = serde_json::from_str(body).ok()?;
    let references = body.get("references").filter(|references| !references.is_null());
    Some(Schema {
        kind: body["schemaType"].as_str().unwrap_or("AVRO").to_owned(),
        text: body["schema"].as_str()?.to_owned(),
        references: references.cloned().unwrap_or_else(|| json!([])),
    })
}

/// A schema as it is answered: what it is only where that is not Avro.
fn described(schema: &Schema, mut answer: Value) -> String {
    answer["schema"] = json!(schema.text);
    if schema.kind != "AVRO" {
        answer["schemaType"] = json!(schema.kind);
    }
    if schema.references != json!([]) {
        answer["references"] = schema.references.clone();
    }
    answer.to_string()
}

fn error(status: u16, code: u32, message: &str) -> Reply {
    (status, json!({"error_code": code, "message": message}).to_string())
}

/// A part of a path without its percent encoding.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let code = (*first == b'%').then(|| std::str::from_utf8(others.get(..2)?).ok()).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    fn ask(port: u16, request: &str, headers: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let length = body.len();
        write!(stream, "{request} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn schemas_are_registered_once_and_found_again() {
        let registry = Registry::start().unwrap();
        let port = registry.port();
        let string = r#"{"schema": "\"string\""}"#;
        let first = ask(port, "POST /subjects/a%2Fb-value/versions?normalize=False", "", string);
        assert_eq!(first, (200, json!({"id": 1})));
        assert_eq!(ask(port, "POST /subjects/other/versions", "", string).1, json!({"id": 1}));
        assert_eq!(registry.register("a/b-value", "JSON", "{}"), 2);
        let latest = json!({"subject": "a/b-value", "version": 2, "id": 2, "schema": "{}", "schemaType": "JSON"});
        assert_eq!(ask(port, "GET /subjects/a%2fb-value/versions/latest", "", ""), (200, latest));
        let found = json!({"subject": "a/b-value", "version": 1, "id": 1, "schema": "\"string\""});
        assert_eq!(ask(port, "POST /subjects/a%2Fb-value", "", string), (200, found));
        assert_eq!(ask(port, "GET /schemas/ids/1", "", ""), (200, json!({"schema": "\"string\""})));
        assert_eq!(ask(port, "GET /schemas/ids/3", "", "").0, 404);
        assert_eq!((registry.requests("GET /schemas/ids/1"), registry.requests("GET /schemas")), (1, 2));
        registry.fail(Some(503));
        assert_eq!(ask(port, "GET /schemas/ids/1", "", "").0, 503);
    }

    #[test]
    fn only_who_has_the_password_is_answered() {
        let registry = Registry::start_for("me", "secret").unwrap();
        assert_eq!(ask(registry.port(), "GET /schemas/ids/1", "", "").0, 401);
        // `printf me:secret | base64`
        let header = "Authorization: Basic bWU6c2VjcmV0\r\n";
        assert_eq!(ask(registry.port(), "GET /schemas/ids/1", header, "").0, 404);
    }
}
