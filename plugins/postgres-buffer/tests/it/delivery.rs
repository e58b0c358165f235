//! Every row once, in order, whatever the order of commits.

use std::time::Duration;

use philotes_sdk::{ErrorKind, Poll, Route, Source};
use serde_json::json;

use crate::driver::{Buffer, Driver, error_of, insert, insert_into};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_commit_late_are_neither_lost_nor_doubled() {
    for mode in ["mark", "delete"] {
        let Some(mut buffer) = Buffer::new().await else { return };
        buffer.keys["acknowledge"] = json!(mode);
        let mut driver = Driver::open(&buffer).await;
        let (early, rolled_back) =
            (buffer.server.connect(&buffer.database).await, buffer.server.connect(&buffer.database).await);
        // `early` takes the lowest ids and commits last, another transaction never does, a third is done at once.
        early.batch_execute(&format!("BEGIN; {}", insert(1..11))).await.unwrap();
        rolled_back.batch_execute(&format!("BEGIN; {}", insert(1000..1010))).await.unwrap();
        buffer.sql(&insert(11..21)).await;
        driver.drain().await.unwrap();
        assert_eq!(driver.ids(), (11..21).collect::<Vec<_>>());
        rolled_back.batch_execute("ROLLBACK").await.unwrap();
        driver.acknowledge(&buffer).await;
        driver.drain().await.unwrap();
        early.batch_execute("COMMIT").await.unwrap();
        buffer.sql(&insert(21..31)).await;
        driver.drain().await.unwrap();
        driver.acknowledge(&buffer).await;
        driver.drain().await.unwrap();
        let expected: Vec<i64> = (11..21).chain(1..11).chain(21..31).collect();
        assert_eq!(driver.ids(), expected, "{mode}");
        assert_eq!(buffer.unprocessed().await, "0");
        let left = if mode == "mark" { "30" } else { "0" };
        assert_eq!(buffer.ask("SELECT count(*) FROM philotes.cdc_events").await, left);
        driver.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_fill_gaps_while_everything_else_waits_for_its_acknowledgement() {
    let Some(buffer) = Buffer::new().await else { return };
    let mut driver = Driver::open(&buffer).await;
    let mut late = Vec::new();
    for n in 0..5 {
        let transaction = buffer.server.connect(&buffer.database).await;
        transaction.batch_execute(&format!("BEGIN; {}", insert(n * 100..n * 100 + 2))).await.unwrap();
        buffer.sql(&insert(n * 100 + 2..n * 100 + 20)).await;
        late.push(transaction);
    }
    driver.drain().await.unwrap();
    assert_eq!(driver.ids().len(), 90);
    // Nothing is acknowledged: each late row lies between emitted ones.
    for transaction in late.iter().rev() {
        transaction.batch_execute("COMMIT").await.unwrap();
        driver.drain().await.unwrap();
    }
    let tail: Vec<i64> = driver.ids()[90..].to_vec();
    assert_eq!(tail, [400, 401, 300, 301, 200, 201, 100, 101, 0, 1]);
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_is_written_down_before_it_is_handed_out() {
    let Some(mut buffer) = Buffer::new().await else { return };
    buffer.keys["batch_rows"] = json!(100);
    buffer.sql(&insert(1..1001)).await;
    buffer.sql("DELETE FROM philotes.cdc_events WHERE id % 7 = 0").await;
    let mut source = buffer.open().await.unwrap();
    let mut seen = 0;
    while seen < 858 {
        match source.poll(Duration::from_secs(5), 1 << 20).await.unwrap() {
            Poll::Announce(streams) => source.resume(&streams[0], None).await.unwrap(),
            Poll::Batch(batch) => {
                let offset: serde_json::Value = serde_json::from_str(batch.offset.as_str()).unwrap();
                let number = offset["batch"].as_i64().unwrap();
                // Another session sees the list, and its ids are the rows' and no others.
                let listed = buffer
                    .ask(&format!(
                        "SELECT string_agg(n::text, ',' ORDER BY n) FROM philotes.batches, unnest(ids) r, \
                         generate_series(lower(r), upper(r) - 1) n WHERE batch = {number} AND stream = 'public.orders'"
                    ))
                    .await;
                // In this buffer a row's id is the order's id.
                assert_eq!(listed, crate::driver::printed(&batch, "id").join(","));
                assert!(batch.rows.num_rows() <= 100);
                seen += batch.rows.num_rows();
            }
            other => panic!("{other:?} after {seen} rows"),
        }
    }
    source.close(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_ids_of_several_sources_in_one_buffer() {
    let Some(buffer) = Buffer::new().await else { return };
    let mut driver = Driver::open(&buffer).await;
    let mut expected = Vec::new();
    for round in 0..5 {
        for n in 0..100 {
            let id = round * 100 + n;
            buffer.sql(&format!("{}{}", insert(id..id + 1), insert_into("orders", "other", id..id + 1))).await;
            expected.push(id);
        }
        driver.drain().await.unwrap();
        if round == 2 {
            driver.acknowledge(&buffer).await;
        }
    }
    assert_eq!(driver.ids(), expected);
    driver.acknowledge(&buffer).await;
    assert_eq!(buffer.unprocessed().await, "500", "the other source's rows stay");
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_announced_together_and_keep_their_order() {
    let Some(mut buffer) = Buffer::new().await else { return };
    buffer.keys["batch_rows"] = json!(7);
    for n in 0..100 {
        buffer
            .sql(&format!("{}{}", insert_into("orders", "shop", n..n + 1), insert_into("items", "shop", n..n + 1)))
            .await;
    }
    let mut driver = Driver::open(&buffer).await;
    match driver.source.poll(Duration::from_secs(5), 1 << 20).await.unwrap() {
        Poll::Announce(streams) => {
            assert_eq!(streams.len(), 2, "{streams:?}");
            // Until each is resumed there is nothing to deliver.
            let idle = driver.source.poll(Duration::from_millis(300), 1 << 20).await.unwrap();
            assert!(matches!(idle, Poll::Idle { caught_up: false }), "{idle:?}");
            for at in streams {
                driver.source.resume(&at, None).await.unwrap();
            }
        }
        other => panic!("{other:?}"),
    }
    driver.drain().await.unwrap();
    assert_eq!(driver.ids_of("orders"), (0..100).collect::<Vec<_>>());
    assert_eq!(driver.ids_of("items"), (0..100).collect::<Vec<_>>());
    // A stream that appears later is announced then.
    buffer.sql(&insert_into("late", "shop", 0..3)).await;
    driver.drain().await.unwrap();
    assert_eq!(driver.ids_of("late"), [0, 1, 2]);
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_route_leaves_out_is_kept_or_acknowledged() {
    for mode in ["keep", "acknowledge"] {
        let Some(mut buffer) = Buffer::new().await else { return };
        buffer.keys["unrouted"] = json!(mode);
        buffer.route = Route { include: vec!["public.orders".into()], exclude: Vec::new() };
        for n in 0..20 {
            buffer.sql(&format!("{}{}", insert(n..n + 1), insert_into("noise", "shop", n * 9..n * 9 + 9))).await;
        }
        let mut driver = Driver::open(&buffer).await;
        driver.drain().await.unwrap();
        assert_eq!(driver.ids(), (0..20).collect::<Vec<_>>());
        driver.acknowledge(&buffer).await;
        buffer.sql(&insert(20..25)).await;
        driver.drain().await.unwrap();
        driver.acknowledge(&buffer).await;
        assert_eq!(driver.ids(), (0..25).collect::<Vec<_>>());
        let kept = if mode == "keep" { "180" } else { "0" };
        driver.close().await;
        assert_eq!(buffer.unprocessed().await, kept, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_wakes_an_idle_source() {
    let Some(mut buffer) = Buffer::new().await else { return };
    buffer.keys["poll_interval"] = json!("1h");
    let mut driver = Driver::open(&buffer).await;
    driver.drain().await.unwrap();
    // The first idle poll asks for a snapshot; from here on only time or a notification brings one.
    let idle = driver.source.poll(Duration::from_millis(300), 1 << 20).await.unwrap();
    assert!(matches!(idle, Poll::Idle { .. }), "{idle:?}");
    buffer.sql(&format!("{} NOTIFY philotes_cdc_events, 'shop'", insert(1..2))).await;
    let poll = driver.source.poll(Duration::from_secs(20), 1 << 20).await.unwrap();
    assert!(matches!(poll, Poll::Announce(_)), "{poll:?}");
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_ends_the_instance() {
    let Some(buffer) = Buffer::new().await else { return };
    for role in ["read", "register", "acknowledge"] {
        let mut driver = Driver::open(&buffer).await;
        driver.drain().await.unwrap();
        buffer
            .sql(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'philotes shop {role}' \
                 AND datname = current_database()"
            ))
            .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let error = error_of(driver.drain().await);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{role}: {error}");
        // Every later call says so as well.
        assert_eq!(error_of(driver.drain().await).kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_memory_slows_down_but_does_not_stop() {
    let Some(mut buffer) = Buffer::new().await else { return };
    buffer.keys["batch_rows"] = json!(1000);
    buffer.sql(&insert(0..20_000)).await;
    let info = philotes_sdk::TaskInfo { connector: "shop".into(), max_memory: 64 << 10, ..Default::default() };
    let context = philotes_sdk::TaskContext::detached(info);
    let source = philotes_postgres_buffer::PostgresBuffer::open(buffer.config(), context).await.unwrap();
    let mut driver = Driver { source, durable: Default::default(), pending: Default::default(), batches: Vec::new() };
    driver.drain().await.unwrap();
    assert_eq!(driver.ids(), (0..20_000).collect::<Vec<_>>());
    assert!(driver.batches.len() > 50, "{} batches", driver.batches.len());
    driver.close().await;
}
