//! The source and the sink in C, through the loader.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use philotes_host::plugin::Kind;
use philotes_sdk::{ActionOutput, ChangeBatch, ErrorKind, Offset, Poll, StreamName, StreamPartition};

use crate::{connector, exported, library, services, task};

fn at() -> StreamPartition {
    StreamPartition::only(StreamName::new(["c", "counter"]).unwrap())
}

/// What a source delivers up to its end, resumed after an offset.
fn deliver(config: &str, offset: Option<&Offset>) -> Vec<ChangeBatch> {
    let dir = tempfile::tempdir().unwrap();
    let source = connector(&library("source.c", &[], dir.path(), "libsource.so"), Kind::Source);
    let mut source = source.open_source(config, &task(), services()).unwrap();
    let Poll::Announce(announced) = source.poll(Duration::ZERO, 1 << 20).unwrap() else { panic!("no announcement") };
    assert_eq!(announced, [at()]);
    source.resume(&at(), offset).unwrap();
    let mut batches = Vec::new();
    while let Poll::Batch(batch) = source.poll(Duration::ZERO, 1 << 20).unwrap() {
        batches.push(batch);
    }
    source.close(Duration::from_secs(1)).unwrap();
    batches
}

fn numbers(batches: &[ChangeBatch], column: &str) -> Vec<i64> {
    let of =
        |batch: &ChangeBatch| batch.rows.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(of).collect()
}

#[test]
fn the_source_delivers_each_row_once_with_its_values() {
    let batches = deliver(r#"{"rows": 250, "batch": 100}"#, None);
    assert_eq!(batches.iter().map(|b| b.rows.num_rows()).collect::<Vec<_>>(), [100, 100, 50]);
    assert!(batches.iter().all(|b| b.at == at() && b.ends_transaction && !b.initial_load));
    assert_eq!(batches[2].offset.as_str(), r#"{"row":250}"#);
    let schema: SchemaRef = batches[0].rows.schema();
    let key = schema.field(0).name().clone();
    assert_eq!(numbers(&batches, &key), (1..=250).collect::<Vec<i64>>());
    let operations = batches[0].rows.column_by_name("_cdc_operation").unwrap().as_string::<i32>();
    assert!((0..operations.len()).all(|row| operations.value(row) == "INSERT"));

    // Batches outlive their instance, and a resumed one goes on after the offset.
    let rest = deliver(r#"{"rows": 250, "batch": 100}"#, Some(&batches[1].offset));
    assert_eq!(numbers(&rest, &key), (201..=250).collect::<Vec<i64>>());
}

#[test]
fn the_source_is_checked_and_described() {
    let dir = tempfile::tempdir().unwrap();
    let path = library("source.c", &[], dir.path(), "libsource.so");
    assert_eq!(exported(&path), ["philotes_plugin_v1"]);
    let source = connector(&path, Kind::Source);
    assert_eq!((source.name(), source.version()), ("c-counter", "0.1.0"));
    assert_eq!(source.config_spec()["required"], serde_json::json!(["rows"]));
    let faults = source.validate(r#"{"rows": -1, "batch": 0}"#).unwrap();
    assert_eq!(faults.len(), 2);
    assert!(faults[0].starts_with("rows: ") && faults[1].starts_with("batch: "), "{faults:?}");
    assert!(source.validate(r#"{"rows": 1}"#).unwrap().is_empty());
    // It has neither `check` nor `tasks`.
    source.check("{}", &task()).unwrap();
    assert_eq!(source.tasks("{}", 4).unwrap(), 1);
    let streams = source.streams(r#"{"rows": 1}"#, &task()).unwrap();
    assert_eq!((streams.len(), &streams[0].at, streams[0].sampled_rows), (1, &at(), None));
    let said = source.act("{}", &task(), "hello", &serde_json::json!({"name": "Jo\"e"})).unwrap();
    assert_eq!(said, ActionOutput::Text("hello, Jo\"e".into()));
    let error = source.open_source("{}", &task(), services()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().starts_with("rows: missing"), "{error}");
    let error = source.plan("{}", &task(), &at(), &streams[0].schema).unwrap_err();
    assert_eq!(error.to_string(), "c-counter cannot plan");
}

#[test]
fn the_sink_makes_rows_and_offset_durable_together() {
    let dir = tempfile::tempdir().unwrap();
    let sink = connector(&library("sink.c", &[], dir.path(), "libsink.so"), Kind::Sink);
    let file = dir.path().join("lines");
    let config = serde_json::json!({"path": file}).to_string();
    let batches = deliver(r#"{"rows": 30, "batch": 10}"#, None);

    let mut open = sink.open_sink(&config, &task(), services()).unwrap();
    assert_eq!(open.offsets(&[at()]).unwrap(), [None]);
    assert!(open.flush().unwrap().durable.is_empty());
    open.write(&batches[0]).unwrap();
    open.write(&batches[1]).unwrap();
    assert!(open.buffered_bytes() > 0);
    let flushed = open.flush().unwrap();
    assert_eq!(flushed.durable.len(), 1);
    assert_eq!((&flushed.durable[0].at, &flushed.durable[0].offset), (&at(), &batches[1].offset));
    assert_eq!(flushed.commits.iter().map(|commit| commit.rows).sum::<u64>(), 20);
    // Written and not flushed: dropped.
    open.write(&batches[2]).unwrap();
    open.close(Duration::from_secs(1)).unwrap();

    let other = StreamPartition::only(StreamName::new(["other"]).unwrap());
    let mut open = sink.open_sink(&config, &task(), services()).unwrap();
    assert_eq!(open.offsets(&[other, at()]).unwrap(), [None, Some(batches[1].offset.clone())]);
    open.write(&batches[2]).unwrap();
    assert_eq!(open.flush().unwrap().durable[0].offset, batches[2].offset);
    assert!(!sink.plan(&config, &task(), &at(), &batches[0].rows.schema()).unwrap().table.is_empty());
}
