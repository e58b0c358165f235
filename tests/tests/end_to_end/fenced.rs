//! A host is stopped between upload and commit, another one takes over and commits, the first is continued: it finds itself
//! fenced, waits for the lock, and nothing is doubled.

use std::path::Path;
use std::time::{Duration, Instant};

use philotes_tests::admin::Admin;
use philotes_tests::connector::Connector;
use philotes_tests::host::Host;
use philotes_tests::services::minio::Minio;
use philotes_tests::sql::Session;
use philotes_tests::{bed_or_skip, eventually, postgres_or_skip};

use crate::{PATIENCE, assert_acknowledged, captured, captured_by, pairs, wait_for_rows};

/// How long the first host stalls at its failpoint. The clock goes on while it is stopped.
const STALL: Duration = Duration::from_secs(10);

fn insert(session: &Session, from: i64, to: i64) {
    session.batch(&format!("insert into t select i, 1 from generate_series({from}, {to}) i")).unwrap();
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.display().to_string());
            }
        }
    }
    files
}

/// `stored` lists the files of the warehouse; one that holds `mark` is stored just before the failpoint.
fn stopped_between_upload_and_commit(
    session: &Session,
    connector: &Connector,
    (failpoint, mark): (&str, &str),
    stored: impl Fn() -> Vec<String>,
) {
    let table = connector.table("cdc.public_t");
    let marked = || stored().iter().filter(|file| file.contains(mark)).count();
    insert(session, 1, 100);
    let stall = format!("{failpoint}=1*off->1*sleep({})", STALL.as_millis());
    let mut first = Host::start_in(
        &[("FAILPOINTS", stall)],
        &connector.file().unwrap(),
        &connector.dir().join("first.log"),
        &["--listen", "127.0.0.1:0"],
    )
    .unwrap();
    let admin = Admin::of(&mut first, PATIENCE).unwrap();
    wait_for_rows(&table, 100);

    let committed = marked();
    insert(session, 101, 200);
    assert!(eventually(PATIENCE, || Ok(marked() > committed)).unwrap(), "{}", first.log_tail());
    first.signal("STOP");
    let stopped = Instant::now();
    // As a failover would, or a time-out of TCP: the server lets go of the stopped host's sessions, and so of its lock.
    session
        .batch(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and \
             backend_type = 'client backend'",
        )
        .unwrap();
    let mut second = Host::start(connector, &[]).unwrap();
    wait_for_rows(&table, 200);

    std::thread::sleep((STALL + Duration::from_secs(1)).saturating_sub(stopped.elapsed()));
    first.signal("CONT");
    first.wait_for_log(&["fenced", "reopening"], PATIENCE).unwrap();
    assert!(first.log().contains(&format!("failpoint {failpoint}: stalled")), "{}", first.log_tail());
    let status = admin.wait_for("fenced", PATIENCE, |shop| shop["tasks"][0]["fences"] == 1).unwrap();
    assert_eq!(status["committed_rows"], 100, "{status}");
    let metric = r#"philotes_errors_total{connector="shop",kind="fenced"}"#;
    assert_eq!(admin.metric(metric).unwrap(), Some(1.0));
    first.wait_for_log(&["in use by another", "waiting"], PATIENCE).unwrap();

    insert(session, 201, 300);
    wait_for_rows(&table, 300);
    assert!(second.is_running().unwrap() && !second.log().contains("fenced"), "{}", second.log_tail());
    second.terminate().unwrap();
    insert(session, 301, 400);
    wait_for_rows(&table, 400);
    first.terminate().unwrap();
    let expected: Vec<(i64, i64)> = (1..=400).map(|id| (id, 1)).collect();
    assert_eq!(pairs(&table), expected);
    assert_acknowledged(session);
}

#[test]
fn after_the_data_file_was_stored() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let warehouse = connector.dir().join("warehouse");
    let point = ("file.stored", ".parquet");
    stopped_between_upload_and_commit(&session, &connector, point, || files(&warehouse));
}

#[test]
fn after_the_manifests_were_stored() {
    let Some(postgres) = postgres_or_skip() else { return };
    let (session, connector) = captured(&postgres);
    let warehouse = connector.dir().join("warehouse");
    let point = ("commit.proposed", "/snap-");
    stopped_between_upload_and_commit(&session, &connector, point, || files(&warehouse));
}

#[test]
fn after_the_manifests_were_stored_in_s3() {
    let Some(bed) = bed_or_skip() else { return };
    let connector = Connector::rest(&bed.postgres.dsn(), &bed.rest, &bed.minio).unwrap();
    let (session, connector) = captured_by(&bed.postgres, connector);
    let objects = |minio: &Minio| minio.objects().unwrap();
    let point = ("commit.proposed", "/snap-");
    stopped_between_upload_and_commit(&session, &connector, point, || objects(&bed.minio));
}
