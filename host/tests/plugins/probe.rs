//! A Rust plugin through the loader: everything that it says arrives, and nothing that it does harms the host.

use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use philotes_host::plugin::{Kind, SinkInstance, SourceInstance};
use philotes_sdk::{
    ActionOutput, ChangeBatch, ErrorKind, Offset, Poll, Result, StreamName, StreamOffset, StreamPartition,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::{built, connector, services, task};

fn source(config: &str) -> Result<Box<dyn SourceInstance>> {
    connector(&built("philotes_probe"), Kind::Source).open_source(config, &task(), services())
}

fn sink(config: &str) -> Result<Box<dyn SinkInstance>> {
    connector(&built("philotes_probe"), Kind::Sink).open_sink(config, &task(), services())
}

fn at(partition: &str) -> StreamPartition {
    StreamPartition { stream: StreamName::new(["probe", "rows"]).unwrap(), partition: partition.into() }
}

fn batch() -> ChangeBatch {
    let mut source = source("{}").unwrap();
    source.poll(Duration::ZERO, 1 << 20).unwrap();
    match source.poll(Duration::ZERO, 1 << 20).unwrap() {
        Poll::Batch(batch) => batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_source_says_all_that_a_source_can_say() {
    let mut source = source("{}").unwrap();
    let mut poll = || source.poll(Duration::ZERO, 1 << 20).unwrap();
    assert!(matches!(poll(), Poll::Announce(partitions) if partitions == [at("0"), at("1")]));
    let Poll::Batch(batch) = poll() else { panic!("no batch") };
    assert_eq!((&batch.at, batch.schema_id, batch.offset.as_str()), (&at("0"), 7, "{\"n\":3}"));
    assert_eq!((batch.ends_transaction, batch.initial_load, batch.newest_micros), (true, true, 1_000_000));
    assert_eq!(batch.rows.num_rows(), 3);
    assert!(matches!(poll(), Poll::Idle { caught_up: true }));
    assert!(matches!(poll(), Poll::Revoke(partitions) if partitions == [at("1")]));
    assert!(matches!(poll(), Poll::End));
    let offset = Offset::new("{\"n\":3}").unwrap();
    source.resume(&at("0"), Some(&offset)).unwrap();
    source.resume(&at("1"), None).unwrap();
    source.commit(&[StreamOffset { at: at("0"), offset }]).unwrap();
    source.close(Duration::from_secs(1)).unwrap();
}

#[test]
fn a_sink_says_all_that_a_sink_can_say() {
    let mut sink = sink("{}").unwrap();
    let offsets = sink.offsets(&[at("0"), at("1")]).unwrap();
    assert_eq!(offsets, [Some(Offset::new("\"0\"").unwrap()), None]);
    let batch = batch();
    sink.write(&batch).unwrap();
    sink.write(&batch).unwrap();
    assert!(sink.buffered_bytes() >= 2 * 24);
    let flushed = sink.flush().unwrap();
    assert_eq!(flushed.durable.len(), 2);
    assert_eq!((flushed.commits[0].rows, flushed.commits[0].id.as_str()), (3, "7"));
    let (failed, error) = &flushed.failed[0];
    assert_eq!((failed, error.kind(), error.message()), (&at("1"), ErrorKind::Fenced, "as always"));
    assert_eq!(sink.buffered_bytes(), 0);
    sink.close(Duration::from_secs(1)).unwrap();
}

#[test]
fn connectors_answer_without_an_instance() {
    let library = built("philotes_probe");
    let source = connector(&library, Kind::Source);
    let sink = connector(&library, Kind::Sink);
    assert_eq!(source.actions()[0].arguments[0].name, "name");
    let flags: Vec<_> = source.actions()[0].arguments.iter().map(|each| (each.required, each.exclusive)).collect();
    assert_eq!(flags, [(true, false), (false, true)]);
    assert!(sink.actions().is_empty());
    assert_eq!(source.config_spec()["additionalProperties"], serde_json::json!(false));
    let faults = source.validate(r#"{"fail_in": "validate", "fail_kind": 1}"#).unwrap();
    assert_eq!(faults, ["fail_in: validate fails as asked for"]);
    assert!(source.validate(r#"{"colour": 1}"#).unwrap()[0].contains("unknown field `colour`"));
    assert_eq!(source.tasks("{}", 3).unwrap(), 3);
    let error = source.tasks(r#"{"fail_in": "tasks", "fail_kind": 1}"#, 3).unwrap_err();
    assert_eq!(error.message(), "tasks returned 4; 1 to 3 are allowed");
    let error = sink.check(r#"{"fail_in": "check", "fail_kind": 2}"#, &task()).unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "check fails as asked for"));
    let streams = source.streams("{}", &task()).unwrap();
    assert_eq!((&streams[0].at, streams[0].sampled_rows), (&at("0"), Some(3)));
    let columns = ["n", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"];
    let plan = sink.plan("{}", &task(), &at("0"), &streams[0].schema).unwrap();
    assert_eq!((plan.table.as_str(), plan.notes.as_slice()), ("probe.rows/0", columns.map(str::to_owned).as_slice()));
    let said = source.act("{}", &task(), "greet", &serde_json::json!({"name": "Ada"})).unwrap();
    assert_eq!(said, ActionOutput::Text("hello Ada".into()));
    let error = sink.act("{}", &task(), "greet", &serde_json::json!({})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

/// A configuration that makes a function panic.
fn panics(function: &str) -> String {
    format!(r#"{{"panic_in": "{function}"}}"#)
}

fn assert_panicked(outcome: Result<()>, function: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let expected = format!("{function} panicked: ");
    assert!(error.message().starts_with(&expected) && error.message().contains("as asked for"), "{error}");
}

/// The error says who panicked, later calls say that the instance is poisoned, and the host goes on.
#[test]
fn a_panic_of_a_source_becomes_an_error_and_poisons_its_instance() {
    assert_panicked(source(&panics("open")).map(drop), "open");
    let offset = Offset::new("1").unwrap();
    let durable = [StreamOffset { at: at("0"), offset: offset.clone() }];
    for function in ["poll", "resume", "commit"] {
        let mut source = source(&panics(function)).unwrap();
        let mut call = || match function {
            "poll" => source.poll(Duration::ZERO, 1).map(drop),
            "resume" => source.resume(&at("0"), Some(&offset)),
            _ => source.commit(&durable),
        };
        assert_panicked(call(), function);
        let poisoned = format!("{function} after a panic: the instance is poisoned");
        assert_eq!(call().unwrap_err().message(), poisoned);
        assert!(source.close(Duration::ZERO).unwrap_err().message().contains("poisoned"));
    }
    assert_panicked(source(&panics("close")).unwrap().close(Duration::ZERO), "close");
    // No error can be told; nothing else may happen either.
    drop(source(&panics("drop")).unwrap());
}

#[test]
fn a_panic_of_a_sink_becomes_an_error_and_poisons_its_instance() {
    assert_panicked(sink(&panics("open")).map(drop), "open");
    let batch = batch();
    for function in ["offsets", "write", "flush"] {
        let mut sink = sink(&panics(function)).unwrap();
        let mut call = || match function {
            "offsets" => sink.offsets(&[at("0")]).map(drop),
            "write" => sink.write(&batch),
            _ => sink.flush().map(drop),
        };
        assert_panicked(call(), function);
        assert!(call().unwrap_err().message().contains("poisoned"));
    }
    assert_panicked(sink(&panics("close")).unwrap().close(Duration::ZERO), "close");
    let mut counting = sink(&panics("buffered_bytes")).unwrap();
    assert_eq!(counting.buffered_bytes(), 0);
    assert!(counting.flush().unwrap_err().message().contains("poisoned"));
    drop(sink(&panics("drop")).unwrap());
}

#[test]
fn a_panic_without_an_instance_becomes_an_error() {
    let library = built("philotes_probe");
    let (source, sink) = (connector(&library, Kind::Source), connector(&library, Kind::Sink));
    assert_panicked(source.validate(&panics("validate")).map(drop), "validate");
    assert_panicked(source.check(&panics("check"), &task()), "check");
    assert_panicked(source.tasks(&panics("tasks"), 1).map(drop), "tasks");
    assert_panicked(source.streams(&panics("streams"), &task()).map(drop), "streams");
    assert_panicked(source.act(&panics("act"), &task(), "greet", &serde_json::json!({})).map(drop), "act");
    let schema = batch().rows.schema();
    assert_panicked(sink.plan(&panics("plan"), &task(), &at("0"), &schema).map(drop), "plan");
    // All the same, the library works.
    assert_eq!(source.tasks("{}", 1).unwrap(), 1);
}

#[test]
fn every_kind_of_error_crosses_the_boundary() {
    for number in 1..=7 {
        let mut source = source(&format!(r#"{{"fail_in": "poll", "fail_kind": {number}}}"#)).unwrap();
        let error = source.poll(Duration::ZERO, 1).unwrap_err();
        assert_eq!((error.kind() as u32, error.message()), (number, "poll fails as asked for"));
        // An error is no panic: the instance can be closed.
        source.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_batch_that_was_not_taken_can_be_given_again() {
    let mut sink = sink(r#"{"fail_in": "write", "fail_kind": 2}"#).unwrap();
    let batch = batch();
    assert_eq!(sink.write(&batch).unwrap_err().kind(), ErrorKind::Unavailable);
    sink.write(&batch).unwrap();
    assert_eq!(sink.flush().unwrap().commits[0].rows, 3);
}

#[test]
fn cancel_ends_a_running_call_and_is_harmless_later() {
    let started = Instant::now();
    let mut source = source(r#"{"wait": true}"#).unwrap();
    let cancel = source.canceller();
    let polling = std::thread::spawn(move || {
        let outcome = source.poll(Duration::from_secs(3600), 1);
        (outcome, source)
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!polling.is_finished());
    cancel.cancel();
    cancel.cancel();
    let (outcome, source) = polling.join().unwrap();
    assert!(matches!(outcome.unwrap(), Poll::Idle { caught_up: false }));
    source.close(Duration::from_secs(1)).unwrap();
    cancel.cancel();

    let mut sink = sink(r#"{"wait": true}"#).unwrap();
    sink.canceller().cancel();
    assert_eq!(sink.flush().unwrap_err().message(), "cancelled");
    assert!(started.elapsed() < Duration::from_secs(60));
}

/// One event, as the host's subscriber sees it.
#[derive(Clone, Debug, Default)]
struct Seen {
    level: Option<Level>,
    parent: Option<u64>,
    message: String,
    target: String,
    fields: String,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "plugin_target" => value.clone_into(&mut self.target),
            "fields" => value.clone_into(&mut self.fields),
            _ => {}
        }
    }
}

/// Collects events of INFO and above; each span is a number of its own.
struct Collect;

static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());
static SPANS: Mutex<u64> = Mutex::new(0);

fn seen() -> MutexGuard<'static, Vec<Seen>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscriber for Collect {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        let mut spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
        *spans += 1;
        Id::from_u64(*spans)
    }
    fn event(&self, event: &Event<'_>) {
        let mut one = Seen { level: Some(*event.metadata().level()), ..Seen::default() };
        one.parent = event.parent().map(Id::into_u64);
        event.record(&mut one);
        seen().push(one);
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// From the calling thread and from the runtime's own, each with the span of its instance.
#[test]
fn events_arrive_in_the_hosts_log_with_the_span_of_their_instance() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Collect).unwrap());
    let library = connector(&built("philotes_probe"), Kind::Source);
    let (first, second) = (services(), services());
    let ids = [first.span.id().unwrap().into_u64(), second.span.id().unwrap().into_u64()];
    let mut opened = Vec::new();
    for services in [first, second] {
        opened.push(library.open_source("{}", &task(), services).unwrap());
    }
    opened[1].resume(&at("0"), None).unwrap();
    let events: Vec<Seen> = seen().clone();
    for id in ids {
        let of = |message: &str| {
            let mut found = events.iter().filter(|event| event.parent == Some(id) && event.message == message);
            let one = found.next().unwrap_or_else(|| panic!("no event {message:?} of span {id}: {events:?}")).clone();
            assert!(found.next().is_none());
            one
        };
        let opened = of("opened");
        assert_eq!((opened.level, opened.target.as_str()), (Some(Level::INFO), "philotes_probe"));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&opened.fields).unwrap(),
            serde_json::json!({"answer": 42, "name": "probe"})
        );
        let working = of("working");
        assert_eq!((working.level, working.fields.as_str()), (Some(Level::WARN), r#"{"thread":"worker"}"#));
    }
    let resumed: Vec<_> = events.iter().filter(|e| e.message == "resumed" && e.parent == Some(ids[1])).collect();
    assert_eq!(resumed.len(), 1);
    assert!(events.iter().all(|event| event.message != "too fine for the host"));
}

#[test]
fn metrics_arrive_with_the_connectors_label() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || drop(source("{}").unwrap()));
    let text = handle.render();
    let line = text.lines().find(|line| line.starts_with("philotes_probe_opens_total{")).unwrap();
    assert!(line.contains(r#"connector="shop""#) && line.contains(r#"stream="probe.rows""#), "{line}");
    assert!(line.ends_with(" 1"), "{line}");
}
