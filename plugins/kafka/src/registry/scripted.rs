//! A registry that says what a test tells it.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};

use super::Registry;
use crate::config::RegistryConfig;

/// What is answered to a path; without a status the connection is cut once the request was read.
#[derive(Clone)]
pub(crate) struct Scene(pub(crate) Option<u16>, pub(crate) String);

/// The server: it runs until the process ends.
pub(crate) struct Scripted {
    pub(crate) url: String,
    scenes: Arc<Mutex<HashMap<String, Scene>>>,
    asked: Arc<Mutex<Vec<String>>>,
    runtime: Runtime,
}

impl Scripted {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let scenes = Arc::new(Mutex::new(HashMap::<String, Scene>::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (told, log) = (scenes.clone(), asked.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let Some(request) = read_request(&mut socket) else { continue };
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(request);
                let scene = told.lock().unwrap().get(&path).cloned();
                let Scene(status, body) = scene.unwrap_or_else(|| error(404, 404, "HTTP 404 Not Found"));
                let Some(status) = status else { continue };
                let length = body.len();
                // The body of a redirect is where it leads.
                let location =
                    if (300..400).contains(&status) { format!("location: {body}\r\n") } else { String::new() };
                let head =
                    format!("HTTP/1.1 {status} x\r\n{location}content-length: {length}\r\nconnection: close\r\n\r\n");
                // Whoever asked may have seen enough already.
                let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body.as_bytes()));
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { url, scenes, asked, runtime }
    }

    /// A registry with these schemas, by id.
    pub(crate) fn with(schemas: &[(u32, Value)]) -> Self {
        let server = Self::start();
        for (id, answer) in schemas {
            server.tell(&format!("/schemas/ids/{id}"), Scene(Some(200), answer.to_string()));
        }
        server
    }

    pub(crate) fn tell(&self, path: &str, scene: Scene) {
        self.scenes.lock().unwrap().insert(path.to_owned(), scene);
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn config(&self) -> RegistryConfig {
        RegistryConfig {
            url: self.url.clone(),
            username: None,
            password: None,
            tls_ca: None,
            timeout: "10s".to_owned(),
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    pub(crate) fn client(&self) -> Registry {
        Registry::new(&self.config(), self.handle()).unwrap()
    }
}

/// The answer for a schema in Avro.
pub(crate) fn avro(schema: &Value) -> Value {
    json!({"schema": schema.to_string()})
}

/// The answer for a schema in JSON Schema.
pub(crate) fn json_schema(schema: &Value) -> Value {
    json!({"schema": schema.to_string(), "schemaType": "JSON"})
}

pub(crate) fn ok(answer: &Value) -> Scene {
    Scene(Some(200), answer.to_string())
}

pub(crate) fn error(status: u16, code: u32, message: &str) -> Scene {
    Scene(Some(status), json!({"error_code": code, "message": message}).to_string())
}

/// Head and body of a request.
fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return String::from_utf8(bytes).ok();
            }
        }
        let mut part = [0; 4096];
        let read = socket.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
    }
}
