//! Who owns a source_id, and what `resume` accepts.

use std::collections::HashMap;
use std::time::Duration;

use philotes_postgres_buffer::PostgresBuffer;
use philotes_sdk::{ErrorKind, Offset, Poll, Source, StreamName, StreamPartition};
use serde_json::json;

use crate::driver::{Buffer, Driver, error_of, insert};

fn orders() -> StreamPartition {
    StreamPartition::only(StreamName::new(["public", "orders"]).unwrap())
}

/// A table that holds this offset for the orders.
fn table(offset: &Offset) -> HashMap<StreamPartition, Offset> {
    [(orders(), offset.clone())].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_task_waits_and_says_for_whom() {
    let Some(buffer) = Buffer::new().await else { return };
    let first = buffer.open().await.unwrap();
    let error = error_of(buffer.open().await);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(
        text.contains("\"shop\" is in use by another task") && text.contains("philotes shop acknowledge"),
        "{text}"
    );
    first.close(Duration::from_secs(1)).await.unwrap();
    buffer.open().await.unwrap().close(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_epoch_moved_is_fenced_and_writes_nothing() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql(&insert(1..101)).await;
    let mut paused = Driver::open(&buffer).await;
    paused.drain().await.unwrap();
    // Another task claims, as after a failover in which the lock was lost.
    buffer.sql("UPDATE philotes.connectors SET epoch = epoch + 1, epoch_bits = 7").await;
    paused.commit().await;
    buffer.sql(&insert(101..201)).await;
    let error = loop {
        // Batches read before may still come out; they were written down under the old epoch.
        if let Err(error) = paused.drain().await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert!(error_of(paused.source.resume(&orders(), None).await).kind() == ErrorKind::Fenced);
    assert_eq!(buffer.unprocessed().await, "200", "nothing was acknowledged");
    assert_eq!(buffer.ask("SELECT count(*) FROM philotes.batches").await, "1", "no list was touched, none added");
    drop(paused);
    let mut next = Driver::open(&buffer).await;
    next.drain().await.unwrap();
    assert_eq!(next.ids(), (1..201).collect::<Vec<_>>());
    next.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_task_notices_that_it_was_fenced() {
    let Some(buffer) = Buffer::new().await else { return };
    let mut idle = Driver::open(&buffer).await;
    idle.drain().await.unwrap();
    buffer.act("release", json!({})).await.unwrap();
    assert_eq!(error_of(idle.drain().await).kind(), ErrorKind::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_id_belongs_to_one_connector_until_it_is_released() {
    let Some(mut buffer) = Buffer::new().await else { return };
    buffer.open().await.unwrap().close(Duration::from_secs(1)).await.unwrap();
    buffer.connector = "other".into();
    let error = error_of(buffer.open().await);
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("belongs to the connector \"shop\"") && error.to_string().contains("release"),
        "{error}"
    );
    buffer.act("release", json!({})).await.unwrap();
    buffer.open().await.unwrap().close(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_replays_the_acknowledgement_and_never_the_data() {
    for mode in ["mark", "delete"] {
        let Some(mut buffer) = Buffer::new().await else { return };
        buffer.keys["acknowledge"] = json!(mode);
        buffer.keys["batch_rows"] = json!(10);
        buffer.sql(&insert(1..101)).await;
        let mut first = Driver::open(&buffer).await;
        first.drain().await.unwrap();
        assert_eq!(first.batches.len(), 10);
        // The sink commits six batches and the process dies before it can say so.
        let reached = first.batches[5].offset.clone();
        drop(first);
        let mut second = Driver::with_table(&buffer, table(&reached)).await;
        second.drain().await.unwrap();
        assert_eq!(second.ids(), (61..101).collect::<Vec<_>>(), "{mode}");
        assert_eq!(buffer.unprocessed().await, "40");
        // Again, before anything of the second open is durable: the stored offset is accepted as often as need be.
        drop(second);
        let mut third = Driver::with_table(&buffer, table(&reached)).await;
        third.drain().await.unwrap();
        assert_eq!(third.ids(), (61..101).collect::<Vec<_>>());
        third.acknowledge(&buffer).await;
        assert_eq!(buffer.unprocessed().await, "0");
        third.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_landed_late_is_still_known() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql(&insert(1..11)).await;
    let mut first = Driver::open(&buffer).await;
    first.drain().await.unwrap();
    let in_flight = first.batches[0].offset.clone();
    drop(first);
    // A second open reads the same rows; its table does not show the first one's commit yet.
    let mut second = Driver::open(&buffer).await;
    second.drain().await.unwrap();
    assert_eq!(second.ids(), (1..11).collect::<Vec<_>>());
    drop(second);
    // Now it does.
    let mut third = Driver::with_table(&buffer, table(&in_flight)).await;
    third.drain().await.unwrap();
    assert!(third.ids().is_empty());
    assert_eq!(buffer.unprocessed().await, "0");
    third.close().await;
}

/// Opens with what the table holds and answers the announcement; the error of that.
async fn resume_error(buffer: &Buffer, offset: Option<&Offset>) -> philotes_sdk::Error {
    let mut source: PostgresBuffer = buffer.open().await.unwrap();
    match source.poll(Duration::from_secs(10), 1 << 20).await.unwrap() {
        Poll::Announce(streams) => assert_eq!(streams, [orders()]),
        other => panic!("{other:?}"),
    }
    let error = error_of(source.resume(&orders(), offset).await);
    source.close(Duration::from_secs(1)).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("public.orders"), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_refuses_what_would_lose_rows() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql(&insert(1..11)).await;
    let mut first = Driver::open(&buffer).await;
    first.drain().await.unwrap();
    first.acknowledge(&buffer).await;
    buffer.sql(&insert(11..21)).await;
    first.drain().await.unwrap();
    let stored = first.close().await[&orders()].clone();

    let none = resume_error(&buffer, None).await;
    assert!(none.to_string().contains("acknowledged and will not come again"), "{none}");
    assert!(none.to_string().contains("`offsets`"), "{none}");
    let edit = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = serde_json::from_str(stored.as_str()).unwrap();
        change(&mut json);
        Offset::from_value(&json).unwrap()
    };
    let unknown = resume_error(&buffer, Some(&edit(&|json| json["batch"] = json!(99)))).await;
    assert!(unknown.to_string().contains("does not know the sink's offset"), "{unknown}");
    let clone = edit(&|json| json["epoch"] = json!("1.0000000000000001"));
    let clone = resume_error(&buffer, Some(&clone)).await;
    assert!(clone.to_string().contains("does not know the sink's offset"), "{clone}");
    let elsewhere = resume_error(&buffer, Some(&edit(&|json| json["lineage"] = json!("1/2")))).await;
    assert!(elsewhere.to_string().contains("another buffer"), "{elsewhere}");
    let foreign = resume_error(&buffer, Some(&Offset::new("{\"topic\": 1}").unwrap())).await;
    assert!(foreign.to_string().contains("not one of a postgres-buffer source"), "{foreign}");
    assert_eq!(buffer.unprocessed().await, "10", "no refusal acknowledged anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_buffer_is_another_one() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql(&insert(1..11)).await;
    let mut first = Driver::open(&buffer).await;
    first.drain().await.unwrap();
    first.acknowledge(&buffer).await;
    let stored = first.close().await[&orders()].clone();
    let create = "CREATE TABLE copy (LIKE philotes.cdc_events INCLUDING ALL); DROP TABLE philotes.cdc_events CASCADE; \
        ALTER TABLE copy RENAME TO cdc_events; ALTER TABLE cdc_events SET SCHEMA philotes; CREATE SEQUENCE philotes.ids; \
        ALTER TABLE philotes.cdc_events ALTER id SET DEFAULT nextval('philotes.ids'); ALTER SEQUENCE philotes.ids OWNED BY philotes.cdc_events.id";
    buffer.sql(create).await;
    let error = error_of(buffer.open().await);
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("created anew") && error.to_string().contains("init"), "{error}");
    buffer.act("init", json!({})).await.unwrap();
    buffer.sql(&insert(1..11)).await;
    let error = resume_error(&buffer, Some(&stored)).await;
    assert!(error.to_string().contains("another buffer"), "{error}");
    // With the sink's offset reset, the new buffer is read from its start.
    let mut second = Driver::open(&buffer).await;
    second.drain().await.unwrap();
    assert_eq!(second.ids(), (1..11).collect::<Vec<_>>());
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_buffer_fences_and_its_lists_touch_no_new_row() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql(&insert(1..11)).await;
    let mut first = Driver::open(&buffer).await;
    first.drain().await.unwrap();
    let landed = first.batches[0].offset.clone();
    buffer.sql("TRUNCATE philotes.cdc_events RESTART IDENTITY").await;
    buffer.sql(&insert(101..111)).await;
    assert_eq!(error_of(first.drain().await).kind(), ErrorKind::Fenced);
    drop(first);
    // The table holds a batch whose list named the ids that new rows have now.
    let mut second = Driver::with_table(&buffer, table(&landed)).await;
    second.drain().await.unwrap();
    assert_eq!(second.ids(), (101..111).collect::<Vec<_>>());
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_of_another_open_is_a_bug() {
    let Some(buffer) = Buffer::new().await else { return };
    buffer.sql(&insert(1..11)).await;
    let mut first = Driver::open(&buffer).await;
    first.drain().await.unwrap();
    let offset = philotes_sdk::StreamOffset { at: orders(), offset: first.batches[0].offset.clone() };
    first.close().await;
    let mut second = buffer.open().await.unwrap();
    assert_eq!(error_of(second.commit(&[offset]).await).kind(), ErrorKind::Internal);
}
