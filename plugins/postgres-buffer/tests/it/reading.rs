//! Plans of the server, the shape of the buffer, retention.

use std::time::Duration;

use philotes_postgres_buffer::PostgresBuffer;
use philotes_sdk::{ErrorKind, Poll, Source, Tolerance, dead_letter};
use serde_json::json;

use crate::driver::{Buffer, Driver, error_of, insert, insert_into};

#[tokio::test(flavor = "multi_thread")]
async fn polls_and_acknowledgements_go_by_index() {
    let Some(buffer) = Buffer::new().await else { return };
    // Processed rows lie before the unprocessed ones, and the statistics know nothing of it.
    buffer.sql(&insert(0..20_000)).await;
    buffer.sql("ANALYZE philotes.cdc_events; UPDATE philotes.cdc_events SET processed_at = now()").await;
    buffer.sql(&insert(20_000..20_050)).await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    let mut late = driver.ids();
    late.dedup();
    assert_eq!(late.len(), 50);
    driver.acknowledge(&buffer).await;
    driver.close().await;
    // The sessions are gone, and with that their counts are visible.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let by_index = buffer
        .ask("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'cdc_events_unprocessed_id_idx'")
        .await;
    assert_ne!(by_index, "0");
    let fetched =
        buffer.ask("SELECT idx_tup_fetch FROM pg_stat_user_indexes WHERE indexrelname = 'cdc_events_pkey'").await;
    assert!(fetched.parse::<i64>().unwrap() < 1_000, "the primary key waded through {fetched} rows");
    let sequential = buffer.ask("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'cdc_events'").await;
    // The tests' own UPDATE and ANALYZE read the table, once each.
    assert!(sequential.parse::<i64>().unwrap() <= 60_100, "{sequential} rows were read sequentially");
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_into_many_gaps_reads_the_gaps_only() {
    let Some(buffer) = Buffer::new().await else { return };
    // Every twentieth id was rolled back or is late: as many gaps between rows that were emitted and not acknowledged.
    buffer.sql(&insert(0..40_000)).await;
    buffer.sql("DELETE FROM philotes.cdc_events WHERE id % 20 = 0").await;
    buffer.sql("ANALYZE philotes.cdc_events").await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.ids().len(), 38_000);
    let query = buffer
        .ask("SELECT query FROM pg_stat_activity WHERE application_name = 'philotes shop read' AND datname = current_database() AND query LIKE 'COPY%'")
        .await;
    let snapshot =
        query.strip_prefix("COPY (").and_then(|query| query.strip_suffix(") TO STDOUT (FORMAT binary)")).unwrap();
    buffer.sql("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET jit = off").await;
    let plan: Vec<String> = buffer
        .client
        .query(&format!("EXPLAIN (ANALYZE, BUFFERS) {snapshot}"), &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan using cdc_events_unprocessed_id_idx"), "{plan}");
    assert!(plan.contains("Index Cond: ((source_id = ANY") && plan.contains("(id <= probe.last)"), "{plan}");
    assert!(!plan.contains("Sort") && !plan.contains("Rows Removed"), "{plan}");
    let hit = plan.split("shared hit=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    // An index descent per gap: each some three or four pages.
    assert!(hit.parse::<u64>().unwrap() < 12_000, "{plan}");
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_index_it_still_reads() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql("DROP INDEX philotes.cdc_events_unprocessed_id_idx").await;
    buffer.sql(&insert(0..100)).await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.ids(), (0..100).collect::<Vec<_>>());
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffer_that_is_not_as_it_must_be_is_refused() {
    let Some(buffer) = Buffer::new().await else { return };
    let refused = async |expected: &str| {
        for error in
            [error_of(buffer.open().await), error_of(PostgresBuffer::check(buffer.config(), buffer.context()).await)]
        {
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(error.to_string().starts_with("dsn: ") && error.to_string().contains(expected), "{error}");
        }
    };
    buffer.sql("ALTER SEQUENCE philotes.cdc_events_id_seq CACHE 32").await;
    refused("CACHE 32").await;
    buffer.act("init", json!({})).await.unwrap();
    PostgresBuffer::check(buffer.config(), buffer.context()).await.unwrap();
    buffer.sql("DROP TABLE philotes.connectors").await;
    refused("philotes.connectors").await;
    buffer.sql("DROP TABLE philotes.cdc_events").await;
    refused("philotes.cdc_events").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_out_of_reach_and_wrong_passwords() {
    let Some(mut buffer) = Buffer::new().await else { return };
    let refused = async |buffer: &Buffer, kind| {
        let error = error_of(PostgresBuffer::check(buffer.config(), buffer.context()).await);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    };
    buffer.keys["dsn"] = json!("postgresql://u:hunter2@127.0.0.1:1/d?connect_timeout=2");
    refused(&buffer, ErrorKind::Unavailable).await;
    buffer.keys["dsn"] =
        json!(format!("host={} user=nobody password=hunter2 dbname=postgres", buffer.server.folder().display()));
    refused(&buffer, ErrorKind::Config).await;
    buffer.keys["dsn"] = json!(format!("host={} user=postgres dbname=hunter", buffer.server.folder().display()));
    refused(&buffer, ErrorKind::Config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_rows_go_after_their_retention() {
    let Some(mut buffer) = Buffer::new().await else { return };
    buffer.sql(&insert(0..12_000)).await;
    buffer.sql("UPDATE philotes.cdc_events SET processed_at = now() - interval '2 days' WHERE id <= 11000").await;
    buffer.sql("UPDATE philotes.cdc_events SET processed_at = now() WHERE id > 11000 AND id <= 11500").await;
    buffer.keys["retention"] = json!("1d");
    let driver = Driver::open(&buffer).await;
    for _ in 0..100 {
        if buffer.ask("SELECT count(*) FROM philotes.cdc_events").await == "1000" {
            driver.close().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} rows are left", buffer.ask("SELECT count(*) FROM philotes.cdc_events").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_decoded_is_named() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql(&insert(1..5)).await;
    buffer
        .sql(
            "INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, after_data, metadata) VALUES \
             ('shop', 'public', 'orders', 'INSERT', '{\"id\": \"hunter2\"}', '{\"columns\": [{\"name\": \"id\", \"type\": \"bigint\"}]}')",
        )
        .await;
    let mut driver = Driver::open(&buffer).await;
    let error = error_of(driver.drain().await);
    assert_eq!(error.kind(), ErrorKind::Data);
    let text = error.to_string();
    assert!(text.contains("public.orders") && text.contains("buffer id 5") && text.contains("column id"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

/// Whatever is wrong with a row, it travels whole, in order with the others, and is acknowledged as they are.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_decoded_are_dead_letters_where_they_are_tolerated() {
    let Some(mut buffer) = Buffer::new().await else { return };
    buffer.tolerance = Tolerance::DeadLetter;
    buffer.keys["batch_rows"] = json!(3);
    let columns = r#"{"columns": [{"name": "id", "type": "bigint"}, {"name": "v", "type": "text"}]}"#;
    let bad = |after: &str, key: &str, metadata: &str| {
        format!(
            "INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns, \
             after_data, metadata, event_time) VALUES ('shop', 'public', 'orders', 'INSERT', '0/7', 7, '{key}', {after}, \
             '{metadata}', '2026-01-24T10:00:00Z');"
        )
    };
    let text = r#"'{"id": "hunter2", "v": [1.50, "ä"]}'"#;
    // Between good rows whose metadata the server need not send again; the first snapshot is a short one.
    buffer.sql(&insert(0..4)).await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    buffer
        .sql(
            &[
                insert(4..6),
                bad(text, r#"["id"]"#, columns),
                insert(6..7),
                bad("NULL", r#"["id"]"#, columns),
                bad(text, r#"{"id": 1}"#, columns),
                bad(text, r#"["id"]"#, r#"{"columns": 5}"#),
                bad(text, r#"["id"]"#, r#"{"columns": [{"name": "_cdc_x", "type": "text"}]}"#),
                insert(7..9),
            ]
            .concat(),
        )
        .await;
    driver.drain().await.unwrap();
    let letters: Vec<_> = driver.batches.iter().filter(|batch| batch.dead_letters).cloned().collect();
    driver.batches.retain(|batch| !batch.dead_letters);
    assert_eq!(driver.ids(), (0..9).collect::<Vec<_>>());
    assert!(letters.len() >= 2, "three rows per batch");
    let letters: Vec<_> = letters.iter().flat_map(|batch| dead_letter::from_rows(&batch.rows).unwrap()).collect();
    let reasons = ["column id: ", "without after_data", "key_columns", "metadata.columns", "column _cdc_x"];
    assert_eq!(letters.len(), reasons.len());
    for (letter, reason) in letters.iter().zip(reasons) {
        assert!(letter.message.contains(reason) && letter.message.contains("public.orders"), "{letter:?}");
        assert!(!letter.message.contains("hunter2") && letter.kind == ErrorKind::Data, "{letter:?}");
        assert_eq!(letter.timestamp_micros, Some(1_769_248_800_000_000));
        let row = "SELECT row_to_json(e) FROM philotes.cdc_events e WHERE id = ";
        let position = letter.position.as_deref().unwrap();
        assert_eq!(letter.record, buffer.ask(&format!("{row}{position}")).await);
    }
    // Numbers keep their digits.
    assert!(letters[0].record.contains("[1.50, \"ä\"]"), "{}", letters[0].record);
    driver.acknowledge(&buffer).await;
    assert_eq!(buffer.unprocessed().await, "0");
    // What `plan` samples leaves them out.
    buffer.sql(&(bad(text, r#"["id"]"#, columns) + &insert(9..10))).await;
    let streams = PostgresBuffer::streams(buffer.config(), buffer.context()).await.unwrap();
    assert_eq!(streams[0].schema.fields().len(), 5);
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_meets_its_limit_goes_on() {
    let Some(buffer) = Buffer::new().await else { return };
    // The first snapshot ends after 10,000 rows; the next ones go by its pace.
    buffer.sql(&insert(0..60_000)).await;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.ids(), (0..60_000).collect::<Vec<_>>());
    let idle = driver.source.poll(Duration::from_millis(10), 1 << 20).await.unwrap();
    assert!(matches!(idle, Poll::Idle { .. }), "{idle:?}");
    driver.close().await;
}

/// A row whose bytes are no text in the client's encoding, which a database of the encoding
/// SQL_ASCII takes in.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_server_cannot_send_is_named_or_becomes_a_dead_letter() {
    let Some(mut buffer) = Buffer::new().await else { return };
    let database = format!("{}_ascii", buffer.database);
    buffer
        .sql(&format!("CREATE DATABASE {database} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"))
        .await;
    buffer.client = buffer.server.connect(&database).await;
    buffer.database = database;
    buffer.act("init", json!({})).await.unwrap();
    // Neither the first nor the last, twice, and in a stream of its own.
    let broken = |table: &str, id: i64| {
        insert_into(table, "shop", id..id + 1).replace("'x' || n", "convert_from('\\xff'::bytea, 'SQL_ASCII')")
    };
    buffer.sql(&insert(1..4)).await;
    buffer.sql(&broken("orders", 4)).await;
    buffer.sql(&insert(5..7)).await;
    buffer.sql(&broken("orders", 7)).await;
    buffer.sql(&broken("others", 8)).await;
    buffer.sql(&insert(9..10)).await;

    let mut driver = Driver::open(&buffer).await;
    let error = error_of(driver.drain().await);
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    let text = error.to_string();
    assert!(text.contains("stream public.orders, buffer id 4: ") && text.contains("22021"), "{text}");
    drop(driver);

    buffer.tolerance = Tolerance::DeadLetter;
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    let (letters, rows): (Vec<_>, Vec<_>) = driver.batches.drain(..).partition(|batch| batch.dead_letters);
    let ids: Vec<String> = rows.iter().flat_map(|batch| crate::driver::printed(batch, "id")).collect();
    assert_eq!(ids, ["1", "2", "3", "5", "6", "9"]);
    let of =
        |name: &str| -> Vec<String> { letters.iter().flat_map(|batch| crate::driver::printed(batch, name)).collect() };
    let mut positions = of("position");
    positions.sort();
    assert_eq!(positions, ["4", "7", "8"]);
    assert!(of("record").iter().all(|record| record.contains("\"operation\":\"INSERT\"")), "{:?}", of("record"));
    driver.batches = rows;
    driver.acknowledge(&buffer).await;
    assert_eq!(buffer.unprocessed().await, "0");
    driver.close().await;
}

/// `connect_timeout` covers what comes after the TCP connection, too: a server that accepts and
/// says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_does_not_hold_open_for_ever() {
    let Some(mut buffer) = Buffer::new().await else { return };
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let hold = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(silent.accept().await.unwrap());
        }
    });
    buffer.keys["dsn"] = json!(format!("host=127.0.0.1 port={port} user=postgres dbname=x connect_timeout=1"));
    for tls in ["disable", "prefer"] {
        buffer.keys["tls"] = json!(tls);
        let opened = tokio::time::timeout(Duration::from_secs(30), buffer.open()).await;
        let error = error_of(opened.expect("open does not end"));
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("connect_timeout"), "{error}");
    }
    hold.abort();
}
