//! What each kind of answer means, by a registry that says what it is told; and what it is asked.

use philotes_sdk::ErrorKind;
use serde_json::json;

use super::scripted::{Scene, Scripted, avro, error, json_schema, ok};
use super::*;

fn text(schema: &Registered) -> (Language, &str) {
    (schema.language, &schema.text)
}

#[test]
fn a_schema_is_asked_for_once() {
    let server = Scripted::with(&[(7, avro(&json!("long"))), (8, json_schema(&json!({"type": "object"})))]);
    server.tell("/schemas/ids/9", ok(&json!({"schema": "\"int\"", "schemaType": "AVRO", "id": 9, "guid": "x"})));
    let registry = server.client();
    for _ in 0..3 {
        assert_eq!(text(&registry.schema(7).unwrap()), (Language::Avro, r#""long""#));
    }
    assert_eq!(text(&registry.schema(8).unwrap()), (Language::JsonSchema, r#"{"type":"object"}"#));
    assert_eq!(text(&registry.schema(9).unwrap()), (Language::Avro, r#""int""#));
    let asked = server.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[0].starts_with("GET /schemas/ids/7 HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[0].to_ascii_lowercase().contains("accept: application/vnd.schemaregistry.v1+json"), "{asked:?}");
    assert!(!asked[0].to_ascii_lowercase().contains("authorization"), "{asked:?}");
}

#[test]
fn a_path_and_a_user_go_with_every_request() {
    let server = Scripted::start();
    server.tell("/api/ccompat/v7/schemas/ids/4294967295", ok(&avro(&json!("long"))));
    for path in ["/api/ccompat/v7", "/api/ccompat/v7/"] {
        let config = RegistryConfig {
            url: format!("{}{path}", server.url),
            username: Some("Aladdin".into()),
            password: Some("open sesame".into()),
            ..server.config()
        };
        Registry::new(&config, server.handle()).unwrap().schema(u32::MAX).unwrap();
    }
    for request in server.asked() {
        // RFC 7617, section 2.
        let header = "authorization: basic qwxhzgrpbjpvcgvuihnlc2ftzq==";
        assert!(request.to_ascii_lowercase().contains(header), "{request}");
    }
}

#[test]
fn what_is_referred_to_comes_first_and_once() {
    let server = Scripted::start();
    let with = |schema: &str, references: &[(&str, &str, i64)]| {
        let references: Vec<_> = references
            .iter()
            .map(|(name, subject, version)| json!({"name": name, "subject": subject, "version": version}))
            .collect();
        ok(&json!({"schema": schema, "references": references}))
    };
    server.tell("/schemas/ids/1", with("top", &[("a.B", "b", 1), ("a.C", "c/x", 2)]));
    server.tell("/subjects/b/versions/1?deleted=true", with("b", &[("a.D", "d", 3)]));
    server.tell("/subjects/c%2Fx/versions/2?deleted=true", with("c", &[("a.D", "d", 3)]));
    server.tell("/subjects/d/versions/3?deleted=true", with("d", &[]));
    let schema = server.client().schema(1).unwrap();
    let names: Vec<_> = schema.references.iter().map(|referred| (&*referred.name, &*referred.text)).collect();
    assert_eq!(names, [("a.D", "d"), ("a.C", "c"), ("a.B", "b")]);
    assert_eq!(server.asked().len(), 4);

    server.tell("/subjects/d/versions/3?deleted=true", with("d", &[("a.B", "b", 1)]));
    let refused = server.client().schema(1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Data);
    assert!(refused.to_string().contains("refers to itself, by version"), "{refused}");

    server.tell("/subjects/d/versions/3?deleted=true", error(404, 40402, "Version 3 not found."));
    let refused = server.client().schema(1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Data);
    assert!(
        refused.to_string().starts_with(r#"version 3 of subject "d", to which schema 1 refers, does not exist"#),
        "{refused}"
    );

    server.tell("/subjects/d/versions/3?deleted=true", ok(&json_schema(&json!({}))));
    assert_eq!(server.client().schema(1).unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn a_chain_of_references_ends() {
    let server = Scripted::start();
    let refer = |to: usize| ok(&json!({"schema": "x", "references": [{"name": "n", "subject": "s", "version": to}]}));
    server.tell("/schemas/ids/1", refer(0));
    for version in 0..300 {
        server.tell(&format!("/subjects/s/versions/{version}?deleted=true"), refer(version + 1));
    }
    let refused = server.client().schema(1).unwrap_err();
    assert_eq!((refused.kind(), refused.to_string().contains("more than 256")), (ErrorKind::Data, true), "{refused}");
}

#[test]
fn what_refusals_mean() {
    let server = Scripted::start();
    let registry = server.client();
    for (status, code, kind, words) in [
        (404, 40403, ErrorKind::Data, "schema 5 does not exist in the registry at http://127.0.0.1"),
        (404, 404, ErrorKind::Config, "is it a schema registry"),
        (401, 401, ErrorKind::Config, "does not let us in"),
        (403, 40301, ErrorKind::Config, "does not let us in"),
        (429, 429, ErrorKind::Unavailable, "429"),
        (408, 408, ErrorKind::Unavailable, "408"),
        (500, 50001, ErrorKind::Unavailable, "500"),
        (503, 503, ErrorKind::Unavailable, "503"),
        (400, 400, ErrorKind::Config, "400"),
    ] {
        server.tell("/schemas/ids/5", error(status, code, "the\nwhy"));
        // Nothing but an unknown id is remembered.
        let id_5 = if kind == ErrorKind::Data { server.client().schema(5) } else { registry.schema(5) };
        let error = id_5.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}/{code}: {error}");
        assert!(error.to_string().contains(words) && error.to_string().contains("the why"), "{status}/{code}: {error}");
    }
    server.tell("/schemas/ids/5", ok(&avro(&json!("long"))));
    registry.schema(5).unwrap();
}

#[test]
fn an_unknown_id_is_remembered_for_a_while() {
    let server = Scripted::start();
    server.tell("/schemas/ids/5", error(404, 40403, "Schema 5 not found"));
    let registry = server.client();
    let first = registry.schema(5).unwrap_err().to_string();
    for _ in 0..10 {
        let again = registry.schema(5).unwrap_err();
        assert_eq!((again.kind(), again.to_string()), (ErrorKind::Data, first.clone()));
    }
    assert_eq!(server.asked().len(), 1);
    // It runs out.
    for known in registry.known().values_mut() {
        let Known::Nothing { until, .. } = known else { panic!("a schema") };
        *until = Instant::now();
    }
    server.tell("/schemas/ids/5", ok(&avro(&json!("long"))));
    registry.schema(5).unwrap();
}

#[test]
fn what_is_no_registry() {
    let server = Scripted::start();
    let many = "x".repeat(20 << 20);
    for body in ["<html>welcome</html>", "{}", r#"{"schema": 7}"#, "[]", "", &many] {
        server.tell("/schemas/ids/5", Scene(Some(200), body.to_owned()));
        let error = server.client().schema(5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(&server.url), "{error}");
        assert!(!error.to_string().contains("welcome"), "{error}");
    }
    server.tell("/schemas/ids/5", Scene(Some(404), "<html>nothing here</html>".to_owned()));
    assert_eq!(server.client().schema(5).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn protobuf_cannot_be_read() {
    let server = Scripted::with(&[(5, json!({"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"}))]);
    let error = server.client().schema(5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("PROTOBUF") && error.to_string().contains("AVRO and JSON"), "{error}");
}

#[test]
fn a_registry_that_does_not_answer_is_unavailable() {
    let server = Scripted::start();
    server.tell("/schemas/ids/5", Scene(None, String::new()));
    let registry = server.client();
    assert_eq!(registry.schema(5).unwrap_err().kind(), ErrorKind::Unavailable);
    server.tell("/schemas/ids/5", ok(&avro(&json!("long"))));
    registry.schema(5).unwrap();

    // A port that nobody listens at any more.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = RegistryConfig { url: format!("http://{nobody}"), ..server.config() };
    let error = Registry::new(&config, server.handle()).unwrap().schema(5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    // One that takes the request and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let config = RegistryConfig { url, timeout: "500ms".into(), ..server.config() };
    let registry = Registry::new(&config, server.handle()).unwrap();
    assert_eq!(registry.schema(5).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn configurations_that_name_no_registry() {
    let server = Scripted::start();
    let refused = |config: RegistryConfig, words: &str| {
        let error = Registry::new(&config, server.handle()).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    };
    for (url, words) in [
        ("localhost", "not a URL"),
        ("localhost:8081", "not a server"),
        ("ftp://h/", "not a server"),
        ("http://u:s3cr3t@h/", "holds a user or a password"),
        ("http://h/?key=s3cr3t", "query"),
        ("", "not a URL"),
    ] {
        refused(RegistryConfig { url: url.into(), ..server.config() }, words);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let path = file.to_str().unwrap().to_owned();
    refused(RegistryConfig { tls_ca: Some(path.clone()), ..server.config() }, "cannot be read");
    std::fs::write(&file, "nothing").unwrap();
    refused(RegistryConfig { tls_ca: Some(path), ..server.config() }, "no certificates");
}

#[test]
fn the_newest_schema_of_a_subject() {
    let server = Scripted::start();
    let (orders, others) = ("/subjects/orders-value/versions/latest", "/subjects/a%2Fb/versions/latest");
    server.tell(orders, ok(&json!({"subject": "orders-value", "version": 3, "id": 12, "schema": "x"})));
    server.tell(others, error(404, 40401, "Subject not found."));
    let registry = server.client();
    assert_eq!(registry.newest("orders-value").unwrap(), Some(12));
    for _ in 0..5 {
        assert_eq!(registry.newest("a/b").unwrap(), None);
    }
    assert_eq!(server.asked().len(), 2);
    server.tell(orders, error(503, 503, "later"));
    assert_eq!(registry.newest("orders-value").unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn configurations_that_say_what_nobody_reads() {
    let faults = |format: serde_json::Value, url: &str| {
        let config = json!({"bootstrap_servers": "h:1", "topics": ["t"], "format": format, "registry": {"url": url}});
        crate::config::faults(&serde_json::from_value(config).unwrap())
    };
    let url = "https://registry.example.com/apis/ccompat/v7/";
    assert_eq!(faults(json!({"type": "avro", "envelope": "debezium", "unavailable_value": "x"}), url), [""; 0]);
    assert_eq!(faults(json!({"type": "json-schema", "key": ["id"]}), url), [""; 0]);
    for (format, url, words) in [
        (json!({"type": "avro", "envelope": "debezium", "key": ["id"]}), url, "format.key: is only used without"),
        (json!({"type": "json-schema", "unavailable_value": "x"}), url, "format.unavailable_value: is only used with"),
        (json!({"type": "avro"}), "http://u:s3cr3t@h", "registry.url: holds a user or a password"),
        (json!({"type": "avro"}), "registry", "registry.url: not a URL"),
    ] {
        let found = faults(format, url);
        assert!(matches!(&*found, [fault] if fault.contains(words) && !fault.contains("s3cr3t")), "{found:?}");
    }
}

#[test]
fn a_redirect_to_another_server_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let (server, trap) = (Scripted::start(), Scripted::start());
        let there = format!("{}/schemas/ids/5?ticket=s3cr3t", trap.url);
        server.tell("/schemas/ids/5", Scene(Some(status), there));
        let (username, password) = (Some("me".to_owned()), Some("open s3cr3t".into()));
        let config = RegistryConfig { username, password, ..server.config() };
        let error = Registry::new(&config, server.handle()).unwrap().schema(5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let said = error.to_string();
        assert!(said.contains(&format!("redirects to {}/schemas/ids/5?[redacted]", trap.url)), "{said}");
        assert!(said.starts_with("registry.url: ") && !said.contains("s3cr3t"), "{said}");
        assert_eq!(trap.asked(), [""; 0]);
    }
    // On the same server it may have moved.
    let server = Scripted::with(&[(6, avro(&json!("long")))]);
    server.tell("/schemas/ids/5", Scene(Some(308), format!("{}/schemas/ids/6", server.url)));
    server.client().schema(5).unwrap();
}
