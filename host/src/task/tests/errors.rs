use philotes_sdk::ErrorKind::{self, Config, Conflict, Data, Fenced, Internal, Unavailable, Unknown};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::plugin::Kind;
use crate::status::State;
use crate::testing::{Fault, stream};

const RETRYABLE: [ErrorKind; 3] = [Unavailable, Conflict, Unknown];
const FINAL: [ErrorKind; 3] = [Config, Data, Internal];

/// One failure of a call; how often the source was opened when all was done.
fn opens_after(call: &'static str, fault: Fault) -> usize {
    let world = World::with_rows(100);
    world.fault(call, 1, 1, fault);
    assert_eq!(finish(task(&world)).unwrap_or_else(|f| panic!("{call} {fault:?}: {f:?}")), Done::Finished);
    world.assert_each_row_once(&[("t", 100)]);
    assert_eq!(world.lock().acknowledged[&stream("t")], 100, "{call} {fault:?}");
    assert_eq!(world.count("source.open"), world.count("source.close") + usize::from(call == "source.open"));
    world.count("source.open")
}

#[test]
fn a_call_of_the_sink_is_repeated_without_reopening() {
    for kind in RETRYABLE {
        for call in ["sink.offsets", "sink.write", "sink.flush"] {
            assert_eq!(opens_after(call, Fault::Fail(kind)), 1, "{call} {kind}");
        }
        // What was committed without our knowing it is not committed again.
        assert_eq!(opens_after("sink.flush", Fault::LoseReply(kind)), 1, "{kind}");
    }
}

#[test]
fn both_ends_are_reopened() {
    for kind in [Unavailable, Conflict, Unknown, Fenced] {
        for call in ["source.poll", "source.resume", "source.commit", "source.open"] {
            assert_eq!(opens_after(call, Fault::Fail(kind)), 2, "{call} {kind}");
        }
        assert_eq!(opens_after("sink.open", Fault::Fail(kind)), 2, "{kind}");
    }
    for call in ["sink.offsets", "sink.write", "sink.flush"] {
        assert_eq!(opens_after(call, Fault::Fail(Fenced)), 2, "{call}");
    }
    assert_eq!(opens_after("sink.flush", Fault::LoseReply(Fenced)), 2);
}

#[test]
fn a_recovered_task_shows_its_last_error_and_no_attempts() {
    for call in ["source.poll", "sink.write"] {
        let world = World::with_rows(100);
        world.fault(call, 2, 2, Fault::Fail(Unavailable));
        let task = task(&world);
        let status = Arc::clone(&task.status);
        assert_eq!(finish(task).unwrap(), Done::Finished);
        let snapshot = status.snapshot();
        assert_eq!((snapshot.attempts, snapshot.next_retry), (0, None), "{call}");
        assert_eq!(snapshot.last_error.unwrap().kind, "unavailable");
    }
}

#[test]
fn a_failed_close_is_no_failure() {
    for call in ["source.close", "sink.close"] {
        let world = World::with_rows(10);
        world.fault(call, 1, 1, Fault::Fail(Unavailable));
        assert_eq!(finish(task(&world)).unwrap(), Done::Finished);
    }
}

#[test]
fn what_retrying_cannot_help_ends_the_task() {
    for kind in FINAL {
        for call in [
            "source.open",
            "source.poll",
            "source.resume",
            "source.commit",
            "sink.open",
            "sink.offsets",
            "sink.write",
            "sink.flush",
        ] {
            let world = World::with_rows(100);
            world.fault(call, 1, 1, Fault::Fail(kind));
            let failure = finish(task(&world)).unwrap_err();
            let end = if call.starts_with("source") { Kind::Source } else { Kind::Sink };
            assert_eq!((failure.end, failure.error.kind(), failure.exhausted), (end, kind, false), "{call}");
            assert!(failure.error.message().contains(call), "{}", failure.error);
            assert!(world.lock().broken.is_empty());
        }
    }
}

#[test]
fn retries_end_with_the_last_error() {
    for call in ["source.open", "source.poll", "sink.open", "sink.offsets", "sink.write", "sink.flush"] {
        let world = World::with_rows(100);
        world.fault(call, 1, usize::MAX, Fault::Fail(Unavailable));
        let mut task = task(&world);
        task.retry.elapsed = Duration::from_millis(40);
        let status = Arc::clone(&task.status);
        let failure = finish(task).unwrap_err();
        assert!(failure.exhausted, "{call}");
        assert!(failure.error.message().contains(call), "{}", failure.error);
        assert!(world.count(call) > 2, "{call}: {}", world.count(call));
        let last_error = status.snapshot().last_error.unwrap();
        assert_eq!(last_error.kind, "unavailable");
        assert!(last_error.message.contains(call));
    }
}

/// Two hosts that fence each other for ever are not a stall either.
#[test]
fn fences_without_end_are_exhausted_too() {
    let world = World::with_rows(100);
    world.fault("sink.flush", 1, usize::MAX, Fault::Fail(Fenced));
    let mut task = task(&world);
    task.retry.elapsed = Duration::from_millis(40);
    let failure = finish(task).unwrap_err();
    assert_eq!((failure.error.kind(), failure.exhausted), (Fenced, true));
}

/// Both halves of a flush count: what is durable is acknowledged, what failed is flushed again.
#[test]
fn a_flush_that_half_failed() {
    for kind in RETRYABLE {
        let world = World::with_streams(&[("a", 20), ("b", 20)]);
        world.lock().flush_fails.insert(stream("b"), (kind, 2));
        assert_eq!(finish(task(&world)).unwrap(), Done::Finished);
        world.assert_each_row_once(&[("a", 20), ("b", 20)]);
        assert_eq!(world.count("sink.open"), 1);
    }
    let world = World::with_streams(&[("a", 20), ("b", 20)]);
    world.lock().flush_fails.insert(stream("b"), (Data, 1));
    // All in one flush: the source is polled until it is idle, and only then drained.
    let mut task = task(&world);
    task.commit.interval = Duration::from_secs(60);
    let failure = finish(task).unwrap_err();
    assert_eq!(failure.error.kind(), Data);
    assert!(failure.error.message().starts_with("public.b/0: "), "{}", failure.error);
    let state = world.lock();
    assert_eq!(state.tables[&crate::testing::only("a")].1, 20);
    assert!(!state.tables.contains_key(&crate::testing::only("b")));
}

/// While one table is out of reach, what the others committed reaches the source.
#[test]
fn durable_offsets_are_acknowledged_while_a_flush_is_repeated() {
    let world = World::with_streams(&[("a", 20), ("b", 20)]);
    world.lock().flush_fails.insert(stream("b"), (Unavailable, usize::MAX));
    let mut task = task(&world);
    task.commit.interval = Duration::from_secs(60);
    let (stop, thread) = start(task);
    world.wait_until("a is acknowledged", |state| state.acknowledged.get(&stream("a")) == Some(&20));
    world.lock().flush_fails.clear();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Finished);
    drop(stop);
    world.assert_each_row_once(&[("a", 20), ("b", 20)]);
}

#[test]
fn an_offset_that_was_not_given_is_not_passed_on() {
    let world = World::with_rows(20);
    world.lock().invents = Some(1000);
    let failure = finish(task(&world)).unwrap_err();
    assert_eq!((failure.end, failure.error.kind()), (Kind::Sink, Internal));
    assert_eq!(world.lock().acknowledged.get(&stream("t")).copied().unwrap_or(0), 0);
}

#[test]
fn rows_that_a_flush_leaves_behind_are_not_forgotten() {
    let world = World::with_rows(25);
    world.lock().holds_back = true;
    let failure = finish(task(&world)).unwrap_err();
    assert_eq!(failure.error.kind(), Internal);
    assert!(failure.error.message().contains("left 5 rows behind"), "{}", failure.error);
}

/// Whatever fails and whenever: each row arrives once, in order, and only what is durable is acknowledged.
#[test]
fn random_failures_lose_and_double_nothing() {
    const CALLS: [&str; 9] = [
        "source.open",
        "source.poll",
        "source.resume",
        "source.commit",
        "source.close",
        "sink.open",
        "sink.offsets",
        "sink.write",
        "sink.flush",
    ];
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let streams = [("a", 150), ("b", 70)];
        let world = World::with_streams(&streams);
        world.lock().write_takes = Duration::from_micros(200);
        for _ in 0..random.random_range(1..12) {
            let call = CALLS[random.random_range(0..CALLS.len())];
            let kind = [Unavailable, Conflict, Unknown, Fenced][random.random_range(0..4)];
            let lose_reply = call != "source.poll" && random.random_bool(0.5);
            let fault = if lose_reply { Fault::LoseReply(kind) } else { Fault::Fail(kind) };
            world.fault(call, random.random_range(1..12), random.random_range(1..3), fault);
        }
        for table in ["a", "b"] {
            if random.random_bool(0.3) {
                world.lock().flush_fails.insert(stream(table), (Unavailable, 2));
            }
        }
        let mut task = task(&world);
        task.memory.queue = random.random_range(1..2000);
        task.commit.max_rows = random.random_range(1..60);
        task.commit.interval = Duration::from_millis(random.random_range(1..10));
        assert_eq!(finish(task).unwrap_or_else(|f| panic!("seed {seed}: {f:?}")), Done::Finished, "seed {seed}");
        world.assert_each_row_once(&streams);
        assert_eq!(world.lock().acknowledged[&stream("a")], 150, "seed {seed}");
    }
}

/// The source loses its session while the sink is committing; what the commit then finds out is what is reported.
#[test]
fn fenced_outranks_what_was_heard_before() {
    let world = World::with_rows(100);
    world.fault("sink.flush", 1, 1, Fault::HangAndFail(Fenced));
    let mut task = task(&world);
    task.until_idle = false;
    let status = Arc::clone(&task.status);
    let (stop, thread) = start(task);
    world.wait_until("it hangs", |state| state.counts.contains_key("sink.flush"));
    let polls = world.count("source.poll");
    world.fault("source.poll", polls + 1, 1, Fault::Fail(Unavailable));
    world.wait_until("the source has failed", |state| state.counts["source.poll"] > polls);
    world.release();
    world.wait_until("all is acknowledged", |state| state.acknowledged.get(&stream("t")) == Some(&100));
    let snapshot = status.snapshot();
    assert_eq!((snapshot.fences, snapshot.last_error.unwrap().kind), (1, "fenced"));
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
    world.assert_each_row_once(&[("t", 100)]);
}

/// A host that finds the source held by another waits for as long as it takes, whatever `retry.elapsed` is, and takes over.
#[test]
fn a_standby_waits_as_long_as_it_takes() {
    let world = World::with_rows(20);
    world.fault("source.open", 1, 30, Fault::Held);
    let mut task = task(&world);
    task.until_idle = false;
    // Any failure would be the last.
    task.retry.elapsed = Duration::ZERO;
    let status = Arc::clone(&task.status);
    let (stop, thread) = start(task);
    world.wait_until("it stands by", |state| state.counts.get("source.open") == Some(&10));
    let mut seen = Vec::new();
    while world.count("source.open") < 25 {
        seen.push(status.snapshot().state);
    }
    seen.dedup();
    assert_eq!(seen, [State::Standby]);
    let snapshot = status.snapshot();
    assert_eq!((snapshot.attempts, snapshot.restarts, snapshot.next_retry), (0, 0, None));
    let last = snapshot.last_error.unwrap();
    assert_eq!((last.kind, last.end, last.message.as_str()), ("unavailable", "source", "host b has it"));
    world.wait_until("it takes over", |state| state.acknowledged.get(&stream("t")) == Some(&20));
    assert_eq!(status.snapshot().state, State::Running);
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
    world.assert_each_row_once(&[("t", 20)]);
}

/// A fenced host becomes a standby, and does not call the other one's work its own lag.
#[test]
fn who_was_fenced_stands_by() {
    let world = World::with_rows(20);
    world.fault("source.open", 2, usize::MAX, Fault::Held);
    let mut task = task(&world);
    task.until_idle = false;
    let status = Arc::clone(&task.status);
    let (stop, thread) = start(task);
    world.wait_until("it works", |state| state.acknowledged.get(&stream("t")) == Some(&20));
    let polls = world.count("source.poll");
    world.fault("source.poll", polls + 2, 1, Fault::Fail(Fenced));
    while status.snapshot().state != State::Standby {
        std::thread::yield_now();
    }
    assert_eq!(status.snapshot().streams[0].lag_seconds, None);
    assert_eq!(status.snapshot().fences, 1);
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
}

/// A run until idle is to end: there a source that is held elsewhere is one that is out of reach.
#[test]
fn a_run_until_idle_does_not_stand_by() {
    let world = World::with_rows(1);
    world.fault("source.open", 1, usize::MAX, Fault::Held);
    let mut task = task(&world);
    task.retry.elapsed = Duration::from_millis(20);
    let failure = finish(task).unwrap_err();
    assert!(failure.exhausted && failure.error.is_held_elsewhere(), "{failure:?}");
}

/// A batch that breaks the contract stops the task before any sink sees it.
#[test]
fn a_batch_that_breaks_the_contract_is_refused() {
    let world = World::with_rows(10);
    world.lock().operation = Some("UPSERT");
    let failure = finish(task(&world)).unwrap_err();
    assert_eq!((failure.end, failure.error.kind()), (Kind::Source, Internal));
    let message = failure.error.message();
    assert!(message.starts_with("a batch of public.t/0 breaks the contract of change batches"), "{message}");
    assert!(
        message.ends_with("row 0 of 10 has the _cdc_operation \"UPSERT\"; allowed: INSERT, UPDATE, DELETE, TRUNCATE"),
        "{message}"
    );
    assert_eq!(world.count("sink.write"), 0);
}
