//! What a connector file says in secret stands nowhere but there: not in faults, plans, actions, errors, logs at any level, or
//! the status, whatever goes wrong.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use philotes_tests::host::{Host, philotes};
use philotes_tests::{eventually, postgres_or_skip};
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::command_line::get;

/// What is looked for. Letters only, so that no escape changes it.
const MARK: &str = "HunterTwoXyzzy";
/// The same as a number, where a text is wanted.
const NUMBER: u64 = 7_316_582_904_417;

/// A catalog that is in trouble, and a registry, and a token endpoint.
fn in_trouble(status: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut socket = socket;
            let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
            let mut request = [0; 16 << 10];
            let _ = socket.read(&mut request);
            let body = r#"{"error": {"message": "no", "type": "x", "code": 1}}"#;
            let _ = write!(
                socket,
                "HTTP/1.1 {status} x\r\nlocation: http://me:{MARK}@127.0.0.1:1/there?t={MARK}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}

fn assert_silent(what: &str, said: &str) {
    // As in HTTP's basic authentication, whose user is told.
    let basic = BASE64_STANDARD.encode(format!("me:{MARK}"));
    for secret in [MARK, basic.as_str(), &NUMBER.to_string()] {
        if let Some(at) = said.find(secret) {
            let from = (0..=at.saturating_sub(400)).rev().find(|from| said.is_char_boundary(*from)).unwrap_or(0);
            panic!("{what} tells {secret}: {}", &said[from..at + secret.len()]);
        }
    }
}

/// The keys that a plugin's specification calls secret.
fn secret_keys(plugin: &str) -> Vec<String> {
    let described = philotes(&["plugins", "describe", plugin]).unwrap().success().unwrap();
    let row = |line: &str| {
        let cells: Vec<String> = line.trim().split("  ").filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
        let marks = cells.get(2)?.trim().split(", ").any(|mark| mark == "secret");
        marks.then(|| cells[0].clone())
    };
    described.lines().filter_map(row).collect()
}

/// Whether a connector's section has a secret at this key.
fn is_marked(section: &Value, key: &str) -> bool {
    key.split('.')
        .try_fold(section, |value, part| value.get(part))
        .is_some_and(|value| value.to_string().contains(MARK))
}

struct Case {
    name: String,
    file: PathBuf,
    connector: Value,
}

impl Case {
    fn new(dir: &Path, name: &str, source: &Value, sink: &Value) -> Self {
        let connector =
            json!({"name": name, "source": source, "sink": sink, "retry": {"initial": "50ms", "max": "100ms"}});
        let file = dir.join(format!("{name}.yaml"));
        std::fs::write(&file, connector.to_string()).unwrap();
        Self { name: name.to_owned(), file, connector }
    }

    /// Runs a command of the host on it.
    fn told(&self, arguments: &[&str]) {
        let all: Vec<&str> =
            arguments.iter().map(|word| if *word == "FILE" { self.file.to_str().unwrap() } else { word }).collect();
        for level in [&[][..], &["--log-level", "trace"]] {
            let done = philotes(&[&all[..], level].concat()).unwrap();
            assert_silent(&format!("{}: {all:?}", self.name), &format!("{}{}", done.stdout, done.stderr));
        }
    }

    fn told_by_commands(&self) {
        self.told(&["validate", "FILE"]);
        self.told(&["validate", "--connect", "FILE"]);
        self.told(&["plan", "FILE"]);
        self.told(&["action", "FILE", "sink", "offsets"]);
        self.told(&["action", "FILE", "sink", "orphans"]);
    }

    /// Runs it for a while, and looks at everything that it says meanwhile.
    fn told_by_a_run(&self, format: &str) {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let log = self.file.with_extension(format!("{format}.log"));
        let arguments = ["--listen", &address, "--log-format", format, "--log-level", "trace"];
        let mut host = Host::start_in(&[], &self.file, &log, &arguments).unwrap();
        let what = format!("{}: run {format}", self.name);
        let mut looked = false;
        let _ = eventually(Duration::from_secs(2), || {
            for path in ["/status", "/metrics", "/readyz"] {
                if let Ok((_, body)) = get(&address, path) {
                    looked = true;
                    assert_silent(&format!("{what} {path}"), &body);
                }
            }
            Ok(!host.is_running()?)
        });
        if host.is_running().unwrap() {
            assert!(looked, "{what}: nobody answered: {}", host.log_tail());
            host.signal("TERM");
            host.wait(PATIENCE).unwrap();
        }
        let said = host.log();
        assert!(!said.is_empty(), "{what}");
        assert_silent(&what, &said);
    }
}

fn cases(dir: &Path, dsn: &str) -> Vec<Case> {
    let (busy, closed, elsewhere) = (in_trouble(503), in_trouble(401), in_trouble(307));
    let local = json!({"plugin": "iceberg", "catalog": {"type": "sql",
        "uri": format!("sqlite://{}/catalog.db", dir.display()), "warehouse": format!("file://{}/w", dir.display())}});
    let rest = |uri: &str, keys: Value| {
        let mut catalog = json!({"type": "rest", "uri": uri, "headers": {"X-Api-Key": MARK}});
        catalog.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        json!({"plugin": "iceberg", "catalog": catalog,
            "storage": {"endpoint": "http://127.0.0.1:1", "access_key": "me", "secret_key": MARK}})
    };
    let oauth2 = |uri: &str| json!({"oauth2": {"client_id": "me", "client_secret": MARK, "uri": uri}});
    let postgres = json!({"plugin": "postgres-buffer", "source_id": "shop",
        "dsn": format!("{dsn} password={MARK}"), "types_from": format!("{dsn} password={MARK}")});
    let nowhere = json!({"plugin": "postgres-buffer", "source_id": "shop",
        "dsn": format!("postgresql://me:{MARK}@127.0.0.1:1/d?sslmode=require"), "types_from": format!("host=127.0.0.1 port=1 password={MARK}")});
    let kafka = |keys: Value| {
        let mut source = json!({"plugin": "kafka", "bootstrap_servers": "127.0.0.1:1", "topics": ["t"]});
        source.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        source
    };
    let registry = |url: &str| json!({"url": url, "username": "me", "password": MARK});
    let plain = json!({"mechanism": "plain", "username": "me", "password": MARK});
    let bearer =
        |url: &str| json!({"mechanism": "oauthbearer", "token_url": url, "client_id": "me", "client_secret": MARK});
    let case = |name: &str, source: &Value, sink: &Value| Case::new(dir, name, source, sink);
    vec![
        case("runs", &postgres, &local),
        case("nobody-there", &nowhere, &local),
        case("token-busy", &postgres, &rest(&busy, json!({"token": MARK}))),
        case("token-refused", &postgres, &rest(&closed, json!({"token": MARK}))),
        case("token-redirected", &postgres, &rest(&elsewhere, json!({"token": MARK}))),
        case("oauth-busy", &postgres, &rest(&busy, oauth2(&busy))),
        case("oauth-refused", &postgres, &rest(&busy, oauth2(&format!("{closed}/token?key={MARK}")))),
        case("oauth-redirected", &postgres, &rest(&busy, oauth2(&elsewhere))),
        case("sasl", &kafka(json!({"sasl": plain, "registry": registry(&busy), "format": {"type": "avro"}})), &local),
        case("sasl-bearer", &kafka(json!({"sasl": bearer(&closed)})), &local),
        case("sasl-redirected", &kafka(json!({"sasl": bearer(&format!("{elsewhere}/?key={MARK}"))})), &local),
        case("a-property", &kafka(json!({"properties": {"sasl.oauthbearer.client.secret": MARK}})), &local),
        case("a-bad-property", &kafka(json!({"properties": {"session.timeout.ms": MARK}})), &local),
        case("an-unknown-property", &kafka(json!({"properties": {"no.such": MARK}})), &local),
        case(
            "a-key",
            &kafka(
                json!({"tls": "require", "tls_certificate": "/dev/null", "tls_key": "/dev/null", "tls_key_password": MARK}),
            ),
            &local,
        ),
        // Passwords where they do not belong, and in texts that cannot be read.
        case("url-catalog", &postgres, &rest(&format!("http://me:{MARK}@127.0.0.1:1/c"), json!({}))),
        case("url-mistyped", &postgres, &rest(&format!("htp:/me:{MARK}@127.0.0.1:1/c"), json!({}))),
        case("url-oauth", &postgres, &rest(&busy, oauth2(&format!("http://me:{MARK}@127.0.0.1:1/c")))),
        case("url-registry", &kafka(json!({"registry": registry(&format!("http://me:{MARK}@127.0.0.1:1"))})), &local),
        case("url-bearer", &kafka(json!({"sasl": bearer(&format!("http://me:{MARK}@127.0.0.1:1"))})), &local),
        case("url-at-a-number", &kafka(json!({"batch_rows": format!("http://me:{MARK}@h")})), &local),
        case(
            "dsn-mistyped",
            &json!({"plugin": "postgres-buffer", "source_id": "shop", "dsn": format!("postgresql://me:{MARK}@h:port/d"),
            "types_from": format!("host=h pasword={MARK}")}),
            &local,
        ),
        case(
            "numbers",
            &json!({"plugin": "postgres-buffer", "source_id": "shop", "dsn": NUMBER, "types_from": [NUMBER]}),
            &rest(&busy, json!({"token": NUMBER, "headers": {"X-Api-Key": NUMBER}})),
        ),
    ]
}

#[test]
fn no_output_holds_a_secret() {
    let Some(postgres) = postgres_or_skip() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cases = cases(dir.path(), &postgres.dsn());
    // A secret that a plugin gets anew is tried here as well.
    for (plugin, end) in [("postgres-buffer", "source"), ("kafka", "source"), ("iceberg", "sink")] {
        let keys = secret_keys(plugin);
        assert!(!keys.is_empty(), "{plugin}");
        for key in keys {
            let tried = |case: &&Case| case.connector[end]["plugin"] == plugin && is_marked(&case.connector[end], &key);
            assert!(cases.iter().any(|case| tried(&case)), "{plugin}: {key} is tried by no case");
        }
    }
    let runs = &cases[0];
    runs.told(&["action", "FILE", "source", "init"]);
    for case in &cases {
        case.told_by_commands();
    }
    for (index, case) in cases.iter().enumerate() {
        case.told_by_a_run(if index % 2 == 0 { "text" } else { "json" });
    }
}
