//! How fast rows come out, next to a bare COPY of the same rows. Not a pass or fail: it prints figures.
//!
//! `cargo test --workspace --test it -- --ignored --nocapture throughput`, in release to mean anything.

use std::time::{Duration, Instant};

use philotes_sdk::{Poll, Source, StreamOffset};
use serde_json::json;

use crate::driver::Buffer;

/// An order of eight columns, 200 bytes of JSON, with metadata that tells its types.
const ORDERS: &str = r#"INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id,
    key_columns, after_data, metadata, event_time)
    SELECT 'shop', 'public', 'orders', 'INSERT', '0/1558F50', 729, '["id"]', jsonb_build_object('id', i, 'customer', i % 1000,
      'amount', (i % 100000)::numeric(10,2) / 100, 'note', 'some note of a customer ' || i, 'at', now(), 'u', md5(i::text)::uuid,
      'status', 'shipped', 'doc', '{"a":1}'::jsonb), '{"columns": [{"name": "id", "type": "bigint"}, {"name": "customer", "type": "integer"},
      {"name": "amount", "type": "numeric(10,2)"}, {"name": "note", "type": "text"}, {"name": "at", "type": "timestamp with time zone"},
      {"name": "u", "type": "uuid"}, {"name": "status", "type": "text"}, {"name": "doc", "type": "jsonb"}]}', now()
    FROM generate_series(1, $1::int) i"#;

/// Processor time of a process so far, in seconds; it says more than the clock where the machine is shared.
fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Ticks of 10 ms, in user mode and in the kernel.
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and wants the machine for itself"]
async fn throughput() {
    let rows: i32 = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    for mode in ["delete", "mark"] {
        let Some(mut buffer) = Buffer::new().await else { return };
        buffer.keys = json!({"acknowledge": mode});
        buffer.client.execute(ORDERS, &[&rows]).await.unwrap();
        buffer.sql("VACUUM ANALYZE philotes.cdc_events").await;
        buffer.sql("CHECKPOINT").await;
        let rate = |since: Instant| f64::from(rows) / since.elapsed().as_secs_f64();
        let micros = |seconds: f64| seconds * 1e6 / f64::from(rows);
        let own = buffer.ask("SELECT pg_backend_pid()").await;
        for columns in ["*", "id, after_data"] {
            let (begun, spent) = (Instant::now(), cpu(&own));
            let copy = format!("COPY (SELECT {columns} FROM philotes.cdc_events) TO '/dev/null' (FORMAT binary)");
            buffer.sql(&copy).await;
            println!(
                "{mode}: COPY of {columns} to nowhere: {:.0} rows/s, {:.2} µs of the server",
                rate(begun),
                micros(cpu(&own) - spent)
            );
        }
        let (begun, spent) = (Instant::now(), cpu("self"));
        let mut source = buffer.open().await.unwrap();
        let mut backends = Vec::new();
        for role in ["read", "register", "acknowledge"] {
            let query = format!(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'philotes {} {role}' AND datname = current_database()",
                buffer.connector
            );
            backends.push((role, buffer.ask(&query).await));
        }
        let (mut read, mut batches, mut uncommitted) = (0, 0, 0);
        loop {
            match source.poll(Duration::from_secs(1), 32 << 20).await.unwrap() {
                Poll::Announce(streams) => source.resume(&streams[0], None).await.unwrap(),
                Poll::Batch(batch) => {
                    (read, batches, uncommitted) =
                        (read + batch.rows.num_rows(), batches + 1, uncommitted + batch.rows.num_rows());
                    // As a sink that commits now and then.
                    if uncommitted > 200_000 || read == usize::try_from(rows).unwrap() {
                        uncommitted = 0;
                        source.commit(&[StreamOffset { at: batch.at, offset: batch.offset }]).await.unwrap();
                    }
                    if read == usize::try_from(rows).unwrap() {
                        println!("{mode}: {batches} batches read at {:.0} rows/s, acknowledging beside", rate(begun));
                    }
                }
                Poll::Idle { caught_up: true } => break,
                Poll::Idle { caught_up: false } => {}
                other => panic!("{other:?}"),
            }
        }
        println!("{mode}: idle at {:.0} rows/s, {:.2} µs of this process", rate(begun), micros(cpu("self") - spent));
        for (role, pid) in &backends {
            println!("{mode}: {:.2} µs of the server to {role}", micros(cpu(pid)));
        }
        source.close(Duration::from_secs(120)).await.unwrap();
        println!("{mode}: all acknowledged at {:.0} rows/s", rate(begun));
        assert_eq!(buffer.unprocessed().await, "0");
    }
}
