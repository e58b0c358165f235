//! The commands that an operator types: faults are found before anything runs, and nothing is written by looking.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use philotes_tests::connector::Connector;
use philotes_tests::host::{Finished, Host, philotes};
use philotes_tests::{eventually, postgres_or_skip, target};

use crate::{PATIENCE, captured, wait_for_rows};

/// A DSN that no server answers on.
const NOWHERE: &str = "host=/nonexistent user=nobody dbname=nothing";

fn validate(file: &Path, options: &[&str]) -> Finished {
    let mut arguments = vec!["validate"];
    arguments.extend(options);
    arguments.push(file.to_str().unwrap());
    philotes(&arguments).unwrap()
}

/// Exit code 2, and of what is printed exactly one line per fault that names the file and holds these words.
fn assert_fault(what: &str, finished: &Finished, file: &Path, words: &[&str]) {
    assert_eq!(finished.code, 2, "{what}: {finished:?}");
    let printed = format!("{}{}", finished.stdout, finished.stderr);
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains(file.to_str().unwrap())).collect();
    assert_eq!(lines.len(), 1, "{what}: {printed}");
    for word in words {
        assert!(lines[0].contains(word), "{what}: no {word:?} in: {}", lines[0]);
    }
}

/// What is wrong, how the good file is changed into it, and what the line must say: the key's path, what is allowed.
const FAULTS: [(&str, &str, &str, &[&str]); 10] = [
    (
        "an unknown key",
        "  source_id: shop\n",
        "  source_id: shop\n  poll_intervall: 1s\n",
        &["source.poll_intervall", "poll_interval"],
    ),
    ("an unknown key of the connector", "commit:", "comit:", &["comit", "commit"]),
    (
        "a wrong type",
        "commit: {interval: 300ms}",
        "commit: {interval: 300ms, max_rows: many}",
        &["commit.max_rows", "many"],
    ),
    (
        "a value that is not allowed",
        "  source_id: shop\n",
        "  source_id: shop\n  acknowledge: forget\n",
        &["source.acknowledge", "mark", "delete"],
    ),
    ("a missing plugin", "plugin: iceberg", "plugin: icebreg", &["sink.plugin", "icebreg", "iceberg"]),
    (
        "a bad partition transform",
        "  catalog:",
        "  partition_by: [weekly(_cdc_timestamp)]\n  catalog:",
        &["sink.partition_by", "weekly", "day"],
    ),
    (
        "a transform with a bad argument",
        "  catalog:",
        "  partition_by: ['bucket(0, id)']\n  catalog:",
        &["sink.partition_by", "bucket"],
    ),
    (
        "an unset variable",
        "source_id: shop",
        "source_id: ${env:PHILOTES_TEST_UNSET}",
        &["source.source_id", "PHILOTES_TEST_UNSET"],
    ),
    ("a required key that is not there", "  source_id: shop\n", "", &["source.source_id"]),
    ("a name that is not allowed", "name: shop", "name: My Shop", &["name", "a-z"]),
];

#[test]
fn faults_of_a_file() {
    let connector = Connector::new(NOWHERE).unwrap();
    let file = connector.file().unwrap();
    let good = validate(&file, &[]);
    assert_eq!(good.code, 0, "{good:?}");
    for (what, from, to, words) in FAULTS {
        let yaml = connector.yaml();
        assert!(yaml.contains(from), "{what}: {yaml}");
        std::fs::write(&file, yaml.replacen(from, to, 1)).unwrap();
        assert_fault(what, &validate(&file, &[]), &file, words);
    }
    std::fs::write(&file, "name: [shop\nsource: {").unwrap();
    assert_fault("broken YAML", &validate(&file, &[]), &file, &["line"]);
    std::fs::write(&file, "").unwrap();
    assert_fault("an empty file", &validate(&file, &[]), &file, &["empty"]);
    let absent = connector.dir().join("absent.yaml");
    assert_fault("no file", &validate(&absent, &[]), &absent, &[]);
    // `run` finds them too, before it starts anything.
    std::fs::write(&file, connector.yaml().replace("plugin: iceberg", "plugin: icebreg")).unwrap();
    let run = philotes(&["run", file.to_str().unwrap()]).unwrap();
    assert_fault("run", &run, &file, &["sink.plugin"]);
}

#[test]
fn two_faults_are_two_lines() {
    let connector = Connector::new(NOWHERE).unwrap().source("acknowledge: forget").sink("format_version: 7");
    let file = connector.file().unwrap();
    let finished = validate(&file, &[]);
    assert_eq!(finished.code, 2, "{finished:?}");
    let printed = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(printed.lines().filter(|line| line.contains(file.to_str().unwrap())).count(), 2, "{printed}");
}

#[test]
fn two_streams_into_one_table() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("create schema other; create table other.t (id bigint primary key)").unwrap();
    connector.capture(&["other.t"]).unwrap();
    session.batch("insert into t values (1, 1); insert into other.t values (1)").unwrap();
    let connector = connector.sink("table: cdc.{table}");
    let file = connector.file().unwrap();
    let found = validate(&file, &["--connect"]);
    assert_fault("two streams into one table", &found, &file, &["sink.table", "public.t", "other.t"]);

    // Nobody has to validate: a running host refuses as well.
    let mut host = Host::start(&connector, &["--until-idle"]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1, "{}", host.log_tail());
    assert!(host.log().contains("cdc.t"), "{}", host.log_tail());
}

#[test]
fn an_unreachable_server_is_a_fault_with_connect() {
    let secret = "hunter2hunter2";
    let connector = Connector::new(&format!("{NOWHERE} password={secret}")).unwrap();
    let file = connector.file().unwrap();
    assert_eq!(validate(&file, &[]).code, 0);
    let found = validate(&file, &["--connect"]);
    assert_fault("unreachable", &found, &file, &["source.dsn"]);
    assert!(!format!("{}{}", found.stdout, found.stderr).contains(secret), "{found:?}");
}

#[test]
fn plan_prints_and_writes_nothing() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let connector = connector.sink("partition_by: [day(_cdc_timestamp) as date]");
    session.batch("insert into t values (1, 1, 'x')").unwrap();
    let dump =
        || postgres.psql(&["-c", "select * from philotes.cdc_events; select * from philotes.connectors"]).unwrap();
    let before = dump();
    let file = connector.file().unwrap();
    let printed = philotes(&["plan", file.to_str().unwrap()]).unwrap().success().unwrap();
    for word in ["cdc.public_t", "who", "text", "string", "bigint", "long", "day(_cdc_timestamp) as date"] {
        assert!(printed.contains(word), "no {word:?} in: {printed}");
    }
    assert_eq!(dump(), before);
    let left: Vec<_> = std::fs::read_dir(connector.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["shop.yaml"], "plan wrote something");

    // Another source_id than that of the rows: nothing to plan, and why.
    let other = connector.source_id("other");
    let said = philotes(&["plan", other.file().unwrap().to_str().unwrap()]).unwrap();
    assert!(said.stdout.contains("0 streams\n  no streams: postgres-buffer finds none now"), "{said:?}");
    assert!(said.stderr.contains("no row of this source_id waits in the buffer"), "{said:?}");
    assert!(said.stderr.contains("source_id=\"other\"") && said.stderr.contains("others=\""), "{said:?}");
}

#[test]
fn every_connector_that_we_ship_is_valid() {
    let dir = target::repository().join("connectors");
    let mut found = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "yaml") && !file.ends_with("compose.yaml") {
            let finished = validate(&file, &[]);
            assert_eq!(finished.code, 0, "{}: {finished:?}", file.display());
            found += 1;
        }
    }
    assert!(found > 0);
}

#[test]
fn plugins_describe_themselves() {
    let list = philotes(&["plugins", "list"]).unwrap().success().unwrap();
    assert!(list.contains("postgres-buffer") && list.contains("iceberg"), "{list}");
    let described = philotes(&["plugins", "describe", "postgres-buffer"]).unwrap().success().unwrap();
    assert!(described.contains("acknowledge") && described.contains("capture"), "{described}");
    for plugin in ["postgres_buffer", "iceberg"] {
        let library = target::profile_dir().join(format!("libphilotes_{plugin}.so"));
        let checked = philotes(&["plugins", "check", library.to_str().unwrap()]).unwrap();
        assert_eq!(checked.code, 0, "{checked:?}");
    }
    assert_eq!(philotes(&["plugins", "describe", "nothing"]).unwrap().code, 2);
}

/// One HTTP request: status and body.
pub(crate) fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

#[test]
fn health_status_and_metrics() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    session.batch("insert into t select i, 1 from generate_series(1, 7) i").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = free.to_string();
    assert_eq!(philotes(&["health", &address]).unwrap().code, 1);
    let host = Host::start(&connector, &["--listen", &address, "--log-format", "json"]).unwrap();
    wait_for_rows(&connector.table("cdc.public_t"), 7);
    assert!(eventually(PATIENCE, || Ok(get(&address, "/readyz")?.0 == 200)).unwrap());
    assert_eq!(get(&address, "/healthz").unwrap().0, 200);
    assert_eq!(philotes(&["health", &address]).unwrap().code, 0);
    let (code, body) = get(&address, "/status").unwrap();
    assert_eq!(code, 200);
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    let text = status.to_string();
    assert!(text.contains("\"shop\"") && text.contains("public.t"), "{text}");
    assert!(!text.contains(&postgres.dsn()), "the DSN is a secret: {text}");
    let (code, metrics) = get(&address, "/metrics").unwrap();
    assert_eq!(code, 200);
    let ours: Vec<&str> = metrics.lines().filter(|line| line.starts_with("philotes_")).collect();
    assert!(ours.iter().any(|line| line.contains("connector=\"shop\"")), "{metrics}");
    assert_eq!(get(&address, "/nothing").unwrap().0, 404);
    for line in host.log().lines().filter(|line| !line.is_empty()) {
        let _: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    }
    host.terminate().unwrap();
    assert_eq!(philotes(&["health", &address]).unwrap().code, 1);
}
