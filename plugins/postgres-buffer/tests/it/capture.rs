//! When capture's triggers fire, what they keep from nobody, and what becomes of those of earlier
//! versions.

use std::sync::Arc;

use philotes_sdk::ErrorKind;
use serde_json::json;

use crate::driver::{Buffer, Driver, error_of};
use crate::server::Server;

/// Operation and the row after of all events in the buffer's order, of a table whose row is (id,
/// v).
async fn events(buffer: &Buffer) -> String {
    buffer
        .ask(
            "SELECT string_agg(format('%s %s %s', left(operation, 1), coalesce(after_data, before_data) ->> 'id', \
             coalesce(after_data, before_data) ->> 'v'), ', ' ORDER BY id) FROM philotes.cdc_events",
        )
        .await
}

/// Triggers fire in the order of their names: what another AFTER trigger does to the row comes
/// after the row itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_an_after_trigger_changes_again_arrives_in_order() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF TG_OP = 'INSERT' THEN UPDATE t SET v = v + 1 WHERE id = NEW.id;
                ELSIF NEW.v = 10 THEN DELETE FROM t WHERE id = NEW.id; END IF; RETURN NULL; END $$;
             CREATE TRIGGER \"A\" AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION again();
             CREATE TRIGGER \"#\" AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION again()",
        )
        .await;
    buffer.act("capture", json!({"table": "t"})).await.unwrap();
    buffer.sql("INSERT INTO t VALUES (1, 1); UPDATE t SET v = 10").await;
    assert_eq!(events(&buffer).await, "I 1 1, U 1 2, U 1 3, U 1 10, D 1 10");
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.column("_cdc_operation"), ["INSERT", "UPDATE", "UPDATE", "UPDATE", "DELETE"]);
    driver.close().await;
}

/// A foreign key's own triggers are called RI_…: its cascade comes after the row that set it off.
#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_arrives_after_its_cause() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql("CREATE TABLE t (id int PRIMARY KEY, v int REFERENCES t ON UPDATE CASCADE ON DELETE CASCADE)").await;
    buffer.act("capture", json!({"table": "t"})).await.unwrap();
    buffer
        .sql("INSERT INTO t VALUES (1, 1), (2, 1); UPDATE t SET id = 5 WHERE id = 1; DELETE FROM t WHERE id = 5")
        .await;
    assert_eq!(events(&buffer).await, "I 1 1, I 2 1, U 5 1, U 2 5, U 5 5, D 5 5, D 2 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_would_come_first_is_refused_by_name() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer
        .sql(
            "CREATE TABLE t (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER \" b\" BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
             CREATE TRIGGER \" s\" AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION f();
             CREATE TRIGGER \" a\" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        )
        .await;
    let error = error_of(buffer.act("capture", json!({"table": "t"})).await);
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let text = error.to_string();
    assert!(text.contains("trigger \" a\" of table public.t") && text.contains("ALTER TRIGGER"), "{text}");
    buffer.sql("ALTER TRIGGER \" a\" ON t RENAME TO a; INSERT INTO t VALUES (1)").await;
    assert_eq!(buffer.ask("SELECT count(*) FROM philotes.cdc_events").await, "0", "a refusal leaves nothing behind");
    buffer.act("capture", json!({"table": "t"})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_captures_is_captured_by_this_one() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql("CREATE TABLE t (id int PRIMARY KEY, v int); COMMENT ON COLUMN t.v IS 'so'; CREATE TABLE u (id int, v int); CREATE TABLE n (id int)").await;
    buffer.act("capture", json!({"table": "t", "comments": "true"})).await.unwrap();
    buffer.act("capture", json!({"table": "u"})).await.unwrap();
    let older = |table: &str| {
        format!(
            "ALTER TRIGGER \"!philotes_capture_row\" ON {table} RENAME TO philotes_capture_row;
             ALTER TRIGGER \"!philotes_capture_truncate\" ON {table} RENAME TO philotes_capture_truncate;
             CREATE TRIGGER philotes_capture_statement BEFORE INSERT ON {table} FOR EACH STATEMENT
             EXECUTE FUNCTION philotes.capture_statement('shop', '');"
        )
    };
    buffer
        .sql(&format!(
            "CREATE FUNCTION philotes.capture_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'gone'; END $$; {} {}",
            older("t"),
            older("u")
        ))
        .await;
    buffer.act("capture", json!({"table": "n"})).await.unwrap();
    let triggers = "SELECT string_agg(DISTINCT tgname, ' ' ORDER BY tgname) || count(*) FROM pg_trigger WHERE tgrelid IN ('t'::regclass, 'u'::regclass)";
    assert_eq!(buffer.ask(triggers).await, "!philotes_capture_row !philotes_capture_truncate4");
    buffer.sql("INSERT INTO t VALUES (1, 1); INSERT INTO u VALUES (2, 2)").await;
    assert_eq!(events(&buffer).await, "I 1 1, I 2 2");
    let told = "SELECT string_agg(format('%s %s', source_id, metadata #>> '{columns,1,comment}'), ',' ORDER BY id) FROM philotes.cdc_events";
    assert_eq!(buffer.ask(told).await, "shop so,shop ");
}

/// A notification would forbid it, and have all commits wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_captured_transaction_can_be_prepared() {
    let Some(server) = Server::start(&["max_prepared_transactions=2"]) else { return };
    let buffer = Buffer::empty(Arc::new(server)).await;
    buffer.act("init", json!({})).await.unwrap();
    buffer.sql("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    buffer.act("capture", json!({"table": "t"})).await.unwrap();
    buffer.sql("BEGIN; INSERT INTO t VALUES (1, 1); PREPARE TRANSACTION 'x'").await;
    // Nor does one transaction that has met a table first keep another waiting.
    buffer.sql("SET lock_timeout = '1s'; INSERT INTO t VALUES (2, 2)").await;
    buffer.sql("COMMIT PREPARED 'x'").await;
    assert_eq!(
        buffer.ask("SELECT string_agg(after_data ->> 'id', ' ' ORDER BY id) FROM philotes.cdc_events").await,
        "1 2"
    );
}

/// What the action says of what it did.
#[tokio::test(flavor = "multi_thread")]
async fn the_action_says_what_is_not_captured_and_what_it_costs() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    let output = buffer.act("capture", json!({"table": "t"})).await.unwrap();
    let text = format!("{output:?}");
    for said in [
        "not captured: rows that were there before",
        "session_replication_role = replica",
        "TRUNCATE of a single partition",
        "cost: ",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}
