//! The actions an operator calls.

use std::sync::Arc;

use philotes_sdk::{ActionOutput, ErrorKind};
use serde_json::json;

use crate::driver::{Buffer, Driver, error_of, insert};
use crate::server::Server;

fn rows(output: ActionOutput) -> Vec<Vec<String>> {
    match output {
        ActionOutput::Rows { rows, columns } => {
            assert!(rows.iter().all(|row| row.len() == columns.len()));
            rows
        }
        ActionOutput::Text(text) => panic!("{text}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn init_says_what_it_did_and_may_run_again() {
    let Some(server) = Server::shared() else { return };
    let buffer = Buffer::empty(Arc::clone(&server)).await;
    let first = rows(buffer.act("init", json!({})).await.unwrap());
    assert!(first.len() > 5 && first.iter().all(|row| row[1] == "created"), "{first:?}");
    buffer.sql(&insert(0..3)).await;
    buffer.sql("DROP INDEX philotes.cdc_events_unprocessed_id_idx").await;
    let identity = buffer.ask("SELECT identity FROM philotes.buffer").await;
    let second = rows(buffer.act("init", json!({})).await.unwrap());
    let created: Vec<_> = second.iter().filter(|row| row[1] == "created").collect();
    assert_eq!(created.len(), 1, "{second:?}");
    assert!(created[0][0].contains("(source_id, id)"));
    assert_eq!(buffer.ask("SELECT identity FROM philotes.buffer").await, identity);
    assert_eq!(buffer.unprocessed().await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn capture_refuses_what_it_cannot_capture() {
    let Some(server) = Server::shared() else { return };
    let buffer = Buffer::empty(server).await;
    buffer.sql("CREATE TABLE t (id int); CREATE VIEW v AS SELECT 1").await;
    let error = error_of(buffer.act("capture", json!({"table": "public.t"})).await);
    assert!(error.to_string().contains("init"), "{error}");
    buffer.act("init", json!({})).await.unwrap();
    for table in ["public.nothing", "public.v", " , "] {
        let error = error_of(buffer.act("capture", json!({"table": table})).await);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().starts_with("table: "), "{error}");
    }
    // Twice is as once.
    for _ in 0..2 {
        buffer.act("capture", json!({"table": "public.t"})).await.unwrap();
    }
    buffer.sql("INSERT INTO t VALUES (1)").await;
    assert_eq!(buffer.unprocessed().await, "1");
    buffer.sql("SELECT philotes.uncapture('t'); INSERT INTO t VALUES (2)").await;
    assert_eq!(buffer.unprocessed().await, "1");
    assert_eq!(error_of(buffer.act("dance", json!({})).await).kind(), ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_waits() {
    let Some(buffer) = Buffer::new().await else { return };
    let empty = rows(buffer.act("status", json!({})).await.unwrap());
    assert_eq!(empty[0][..2], ["(none)", "0"]);
    buffer.sql(&insert(0..10)).await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    let read = rows(buffer.act("status", json!({})).await.unwrap());
    assert_eq!(
        (read.len(), &read[0][0], &read[0][1], &read[0][3], &read[0][4]),
        (1, &"public.orders".into(), &"10".into(), &"1".into(), &"-".into())
    );
    driver.acknowledge(&buffer).await;
    let done = rows(buffer.act("status", json!({})).await.unwrap());
    assert_eq!(
        (&done[0][1], &done[0][3], &done[0][4], &done[0][5]),
        (&"0".into(), &"0".into(), &"1.1".into(), &"shop".into())
    );
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sql_files_are_plain_sql() {
    let Some(server) = Server::shared() else { return };
    let buffer = Buffer::empty(server).await;
    for file in ["init.sql", "capture.sql"] {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/");
        let psql = std::process::Command::new("psql")
            .args(["-q", "-v", "ON_ERROR_STOP=1", "-f", &format!("{path}{file}"), &buffer.server.dsn(&buffer.database)])
            .output()
            .unwrap();
        assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    }
    buffer.sql("CREATE TABLE t (id int); SELECT philotes.capture('t', 'shop'); INSERT INTO t VALUES (7)").await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.ids(), [7]);
    driver.close().await;
}
