//! TLS against a server with a certificate of our own.

use std::process::Command;
use std::sync::Arc;

use philotes_postgres_buffer::PostgresBuffer;
use philotes_sdk::{ErrorKind, Source};
use serde_json::json;

use crate::driver::{Buffer, error_of};
use crate::server::{Server, run};

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_does_what_it_says() {
    let keys = tempfile::Builder::new().prefix("pb").tempdir_in("/tmp").unwrap();
    let file = |name: &str| keys.path().join(name).display().to_string();
    run(Command::new("openssl").args([
        "req",
        "-new",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-keyout",
        &file("key"),
        "-out",
        &file("certificate"),
    ]));
    run(Command::new("chmod").args(["755", &keys.path().display().to_string()]));
    run(Command::new("sh").args(["-c", &format!("chmod 600 {0} && (chown postgres {0} || true)", file("key"))]));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = [
        "listen_addresses=localhost".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", file("certificate")),
        format!("ssl_key_file={}", file("key")),
    ];
    let port_setting = format!("port={port}");
    let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    settings.push(&port_setting);
    let Some(server) = Server::start_on(&settings, port) else { return };
    let mut buffer = Buffer::empty(Arc::new(server)).await;
    buffer.keys["dsn"] = json!(format!("host=localhost port={port} user=postgres dbname={}", buffer.database));
    buffer.act("init", json!({})).await.unwrap();
    let encrypted = "SELECT bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'philotes%'";
    for (mode, expected) in [("disable", "false"), ("prefer", "true"), ("require", "true")] {
        buffer.keys["tls"] = json!(mode);
        let source = buffer.open().await.unwrap();
        assert_eq!(buffer.ask(encrypted).await, expected, "{mode}");
        source.close(std::time::Duration::from_secs(1)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    // The connection string's word counts, and the stricter of it and `tls`.
    let plain = buffer.keys["dsn"].as_str().unwrap().to_owned();
    for (mode, sslmode, expected) in [
        (None, "disable", "false"),
        (None, "prefer", "true"),
        (None, "require", "true"),
        (Some("disable"), "require", "true"),
        (Some("prefer"), "disable", "true"),
        (Some("disable"), "disable", "false"),
    ] {
        match mode {
            Some(mode) => buffer.keys["tls"] = json!(mode),
            None => drop(buffer.keys.as_object_mut().unwrap().remove("tls")),
        }
        buffer.keys["dsn"] = json!(format!("{plain} sslmode={sslmode}"));
        let source = buffer.open().await.unwrap();
        assert_eq!(buffer.ask(encrypted).await, expected, "{mode:?} {sslmode}");
        source.close(std::time::Duration::from_secs(1)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let check = async |buffer: &Buffer| PostgresBuffer::check(buffer.config(), buffer.context()).await;
    buffer.keys["dsn"] = json!(format!("{plain} sslmode=verify-full"));
    buffer.keys.as_object_mut().unwrap().remove("tls");
    let error = error_of(check(&buffer).await);
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    buffer.keys["tls_ca"] = json!(file("certificate"));
    check(&buffer).await.unwrap();
    buffer.keys.as_object_mut().unwrap().remove("tls_ca");
    buffer.keys["dsn"] = json!(plain);
    buffer.keys["tls"] = json!("verify-full");
    let error = error_of(check(&buffer).await);
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    buffer.keys["tls_ca"] = json!(file("certificate"));
    check(&buffer).await.unwrap();
    // The name counts.
    buffer.keys["dsn"] = json!(format!("host=127.0.0.1 port={port} user=postgres dbname={}", buffer.database));
    error_of(check(&buffer).await);
    for (ca, reason) in [(file("none"), "tls_ca"), (file("key"), "tls_ca")] {
        buffer.keys["tls_ca"] = json!(ca);
        let error = error_of(check(&buffer).await);
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(reason), "{error}");
    }
}

/// A server that speaks no TLS is not spoken to in the clear where the connection string forbids it.
#[tokio::test(flavor = "multi_thread")]
async fn require_in_a_connection_string_is_not_overruled() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port_setting = format!("port={port}");
    let Some(server) = Server::start_on(&["listen_addresses=127.0.0.1", &port_setting], port) else { return };
    let mut buffer = Buffer::empty(Arc::new(server)).await;
    let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname={}", buffer.database);
    buffer.keys["dsn"] = json!(dsn);
    buffer.act("init", json!({})).await.unwrap();
    PostgresBuffer::check(buffer.config(), buffer.context()).await.unwrap();
    for sslmode in ["require", "verify-full"] {
        for tls in [None, Some("prefer"), Some("disable")] {
            buffer.keys["dsn"] = json!(format!("{dsn} sslmode={sslmode}"));
            match tls {
                Some(mode) => buffer.keys["tls"] = json!(mode),
                None => drop(buffer.keys.as_object_mut().unwrap().remove("tls")),
            }
            let error = error_of(PostgresBuffer::check(buffer.config(), buffer.context()).await);
            assert!(error.to_string().contains("TLS"), "{sslmode} {tls:?}: {error}");
        }
    }
}
