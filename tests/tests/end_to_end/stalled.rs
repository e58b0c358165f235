//! Nothing fails or waits in silence: retries, restarts and calls that do not come back are in the status, the metrics and the log.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use philotes_tests::Bed;
use philotes_tests::admin::Admin;
use philotes_tests::bed_or_skip;
use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::readers::Rest;
use philotes_tests::services::iceberg_rest::IcebergRest;
use philotes_tests::services::proxy::{Fault, Proxy, Rule};
use philotes_tests::sql::Session;
use serde_json::Value;

use crate::{PATIENCE, assert_acknowledged, captured_by, pairs, wait_for_rows};

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// A connector whose requests to the catalog go through a proxy.
fn behind_a_proxy(bed: &Bed) -> (Proxy, Session, Connector) {
    let proxy = Proxy::http(bed.rest.port()).unwrap();
    let rest = Rest::at(&format!("http://127.0.0.1:{}", proxy.port()), IcebergRest::WAREHOUSE, &bed.minio);
    let (session, connector) = captured_by(&bed.postgres, Connector::rest_at(&bed.postgres.dsn(), rest).unwrap());
    (proxy, session, connector)
}

fn insert(session: &Session, from: i64, to: i64) {
    session.batch(&format!("insert into t select i, 1 from generate_series({from}, {to}) i")).unwrap();
}

fn assert_each_row_once(connector: &Connector, rows: i64) {
    let expected: Vec<(i64, i64)> = (1..=rows).map(|id| (id, 1)).collect();
    assert_eq!(pairs(&connector.table("cdc.public_t")), expected);
}

/// The reply to a commit that has happened comes after half a minute: long before that it is in the status, has ended in a
/// time-out, and was looked for and found.
#[test]
fn a_stalled_commit_is_loud_and_ends_by_itself() {
    let Some(bed) = bed_or_skip() else { return };
    let (proxy, session, connector) = behind_a_proxy(&bed);
    let connector = connector.catalog("timeout: 6s").top("stalled_after: 1s");
    insert(&session, 1, 100);
    let mut host = Host::start(&connector, &LISTEN).unwrap();
    let admin = Admin::of(&mut host, PATIENCE).unwrap();
    wait_for_rows(&connector.table("cdc.public_t"), 100);

    let late = Duration::from_secs(30);
    proxy.set(Rule::new(Fault::Delay(late)).on("POST", "/tables/public_t").times(1)).unwrap();
    let began = Instant::now();
    insert(&session, 101, 200);
    let status = admin.wait_for("stalled", Duration::from_secs(6), |shop| shop["stalled"] == true).unwrap();
    let call = status["tasks"][0]["calls"].as_array().unwrap().iter().find(|call| call["end"] == "sink").unwrap();
    assert_eq!((&call["name"], &call["stalled"]), (&Value::from("flush"), &Value::from(true)), "{status}");
    assert!(call["running_seconds"].as_f64().unwrap() >= 1.0, "{call}");
    assert_eq!(admin.get("/readyz").unwrap(), (503, "shop: stalled\n".to_owned()));
    // Starting the process again would not help.
    assert_eq!(admin.get("/healthz").unwrap().0, 200);
    let running = r#"philotes_call_running_seconds{connector="shop",task="0",end="sink"}"#;
    assert!(admin.metric(running).unwrap().unwrap() >= 1.0);
    let line = host.wait_for_log(&["stalled", "flush", "waiting for a call"], PATIENCE).unwrap();
    assert!(line.contains("WARN"), "{line}");
    let stalled = r#"philotes_stalled_calls_total{connector="shop",end="sink"}"#;
    // On a slow machine the commit before was one as well.
    assert!(admin.metric(stalled).unwrap() >= Some(1.0));

    let line = host.wait_for_log(&["outcome is unknown", "looking for it"], PATIENCE).unwrap();
    assert!(line.contains("WARN") && line.contains("timed out"), "{line}");
    let wanted = |shop: &Value| shop["stalled"] == false && shop["committed_rows"] == 200;
    let status = admin.wait_for("recovered", PATIENCE, wanted).unwrap();
    assert!(began.elapsed() < late, "it was the reply that ended it");
    assert_eq!(status["state"], "running");
    assert_eq!(admin.get("/readyz").unwrap().0, 200);
    host.wait_for_log(&["the stalled call has returned"], PATIENCE).unwrap();

    insert(&session, 201, 300);
    wait_for_rows(&connector.table("cdc.public_t"), 300);
    host.terminate().unwrap();
    assert_each_row_once(&connector, 300);
    assert_acknowledged(&session);
}

/// Nobody listens where the catalog was. Retries, their end in FAILED, and the restarts are seen; once the catalog is back, so
/// are the rows.
#[test]
fn an_exhausted_retry_is_failed_and_restarted() {
    let Some(bed) = bed_or_skip() else { return };
    let (proxy, session, connector) = behind_a_proxy(&bed);
    let connector = connector
        .top("retry: {initial: 200ms, max: 500ms, elapsed: 3s}")
        .top("restart: {initial: 4s, max: 6s, attempts: 10}");
    insert(&session, 1, 100);
    let mut host = Host::start(&connector, &LISTEN).unwrap();
    let admin = Admin::of(&mut host, PATIENCE).unwrap();
    wait_for_rows(&connector.table("cdc.public_t"), 100);

    proxy.set(Rule::new(Fault::Refuse)).unwrap();
    insert(&session, 101, 200);
    let again = |shop: &Value| shop["state"] == "retrying" && shop["tasks"][0]["attempts"].as_u64() >= Some(2);
    let status = admin.wait_for("retrying", PATIENCE, again).unwrap();
    let task = &status["tasks"][0];
    assert!(task["next_retry"].as_str().unwrap().ends_with('Z'), "{task}");
    let error = &task["last_error"];
    assert_eq!((&error["end"], &error["kind"]), (&Value::from("sink"), &Value::from("unavailable")), "{error}");
    assert!(!error["message"].as_str().unwrap().is_empty() && error["at"].as_str().unwrap().ends_with('Z'), "{error}");
    let metric = |name: &str| admin.metric(name).unwrap().unwrap_or(f64::NAN);
    assert!(metric(r#"philotes_retry_attempts{connector="shop",task="0"}"#) >= 2.0);
    assert!(metric(r#"philotes_retries_total{connector="shop",kind="unavailable"}"#) >= 2.0);
    assert!(metric(r#"philotes_next_retry_timestamp_seconds{connector="shop",task="0"}"#) > 1e9);
    assert_eq!(admin.get("/healthz").unwrap().0, 200);

    let status = admin.wait_for("failed", PATIENCE, |shop| shop["tasks"][0]["next_restart"].is_string()).unwrap();
    let wait = metric(r#"philotes_next_restart_timestamp_seconds{connector="shop",task="0"}"#)
        - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((0.0..=4.0).contains(&wait), "the first wait is {wait} s");
    let task = &status["tasks"][0];
    assert_eq!((&status["state"], &task["restarts"]), (&Value::from("failed"), &Value::from(1)), "{status}");
    assert_eq!(task["next_retry"], Value::Null);
    assert_eq!(admin.get("/healthz").unwrap(), (503, "shop: failed\n".to_owned()));
    assert_eq!(metric(r#"philotes_connector_state{connector="shop",state="failed"}"#), 1.0);
    assert_eq!(metric(r#"philotes_connector_state{connector="shop",state="running"}"#), 0.0);
    assert_eq!(metric(r#"philotes_restarts_total{connector="shop"}"#), 1.0);
    let line = host.wait_for_log(&["ERROR", "FAILED", "retries are exhausted"], PATIENCE).unwrap();
    assert!(line.contains("unavailable"), "{line}");

    // It is started again, finds nobody, and fails again.
    admin.wait_for("failed again", PATIENCE, |shop| shop["tasks"][0]["restarts"] == 2).unwrap();
    proxy.clear().unwrap();
    let status = admin.wait_for("running", PATIENCE, |shop| shop["committed_rows"] == 200).unwrap();
    let task = &status["tasks"][0];
    assert_eq!((&status["state"], &task["next_restart"]), (&Value::from("running"), &Value::Null), "{status}");
    admin.wait_for("no attempts", PATIENCE, |shop| shop["tasks"][0]["attempts"] == 0).unwrap();
    assert_eq!(admin.get("/healthz").unwrap().0, 200);
    assert_eq!(metric(r#"philotes_connector_state{connector="shop",state="running"}"#), 1.0);
    host.terminate().unwrap();

    // Where nothing is to be restarted, the process says so by its exit code.
    proxy.set(Rule::new(Fault::Refuse)).unwrap();
    let connector = connector.top("restart: {policy: never}");
    let mut host = Host::start(&connector, &[]).unwrap();
    assert_eq!(host.wait(PATIENCE).unwrap(), 1);
    proxy.clear().unwrap();
    assert_each_row_once(&connector, 200);
    assert_acknowledged(&session);
}
