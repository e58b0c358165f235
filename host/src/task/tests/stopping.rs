use std::time::Instant;

use philotes_sdk::ErrorKind;

use super::*;
use crate::plugin::Kind;
use crate::status::State;
use crate::testing::{Fault, only, stream};

#[test]
fn a_stop_flushes_commits_and_acknowledges() {
    let world = World::with_rows(35);
    let mut task = task(&world);
    task.until_idle = false;
    task.commit.interval = Duration::from_secs(60);
    let (stop, thread) = start(task);
    world.wait_until("all is written", |state| state.counts.get("sink.write") == Some(&4));
    assert_eq!(world.count("sink.flush"), 0);
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
    world.assert_each_row_once(&[("t", 35)]);
    assert_eq!(world.lock().acknowledged[&stream("t")], 35);
    assert_eq!((world.count("source.close"), world.count("sink.close")), (1, 1));
    assert_eq!(world.lock().cancelled, 0);
}

/// What a sink holds back at a stop is read again, and no failure.
#[test]
fn a_stop_leaves_what_the_sink_holds_back() {
    let world = World::with_rows(35);
    world.lock().holds_back = true;
    let mut task = task(&world);
    task.until_idle = false;
    let (stop, thread) = start(task);
    world.wait_until("whole batches are committed", |state| {
        state.tables.get(&only("t")).is_some_and(|(_, offset)| *offset == 30)
    });
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
    assert_eq!(world.lock().acknowledged[&stream("t")], 30);
}

#[test]
fn a_stop_ends_a_back_off_at_once() {
    let world = World::with_rows(1);
    world.fault("source.open", 1, usize::MAX, Fault::Fail(ErrorKind::Unavailable));
    let mut task = task(&world);
    (task.retry.initial, task.retry.max) = (Duration::from_secs(60), Duration::from_secs(60));
    let status = Arc::clone(&task.status);
    let (stop, thread) = start(task);
    let started = Instant::now();
    while status.snapshot().state != State::Retrying {
        std::thread::yield_now();
    }
    assert!(status.snapshot().next_retry.is_some());
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// A stop while the sink is out of reach: as long as the grace period lets it, it is tried; then the task says what was left.
#[test]
fn a_stop_does_not_wait_longer_than_the_grace_period() {
    let world = World::with_rows(10);
    world.fault("sink.flush", 1, usize::MAX, Fault::Fail(ErrorKind::Unavailable));
    let mut task = task(&world);
    task.until_idle = false;
    task.grace = Duration::from_millis(500);
    let (stop, thread) = start(task);
    world.wait_until("a flush failed", |state| state.counts.contains_key("sink.flush"));
    stop.raise();
    let stopped = Instant::now();
    let failure = thread.join().unwrap().unwrap_err();
    assert!(failure.error.message().contains("not everything was flushed"), "{}", failure.error);
    assert!(stopped.elapsed() < Duration::from_millis(900), "{:?}", stopped.elapsed());
    assert_eq!(world.lock().acknowledged.get(&stream("t")).copied().unwrap_or(0), 0);
    assert!(world.lock().broken.is_empty());
}

#[test]
fn a_stop_while_opening_has_nothing_to_wait_for() {
    for call in ["source.open", "sink.open"] {
        let world = World::with_rows(10);
        world.fault(call, 1, 1, Fault::Hang);
        let mut task = task(&world);
        task.grace = Duration::from_millis(200);
        let (stop, thread) = start(task);
        world.wait_until("it hangs", |state| state.counts.contains_key(call));
        stop.raise();
        assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped, "{call}");
        world.release();
    }
}

/// A call that ignores its canceller is left behind; its replacement works.
#[test]
fn a_wedged_instance_is_replaced() {
    let world = World::with_rows(100);
    world.fault("sink.write", 2, 1, Fault::Hang);
    let mut task = task(&world);
    task.until_idle = false;
    task.grace = Duration::from_millis(300);
    let status = Arc::clone(&task.status);
    let (stop, thread) = start(task);
    world.wait_until("it hangs", |state| state.counts.get("sink.write") == Some(&2));
    let polls = world.count("source.poll");
    world.fault("source.poll", polls + 2, 1, Fault::Fail(ErrorKind::Fenced));
    world.wait_until("all is acknowledged", |state| state.acknowledged.get(&stream("t")) == Some(&100));
    assert_eq!(status.snapshot().wedged, 1);
    assert!(world.lock().cancelled > 0);
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
    world.release();
    world.assert_each_row_once(&[("t", 100)]);
}

#[test]
fn a_wedged_flush_does_not_outlive_the_grace_period() {
    let world = World::with_rows(10);
    world.fault("sink.flush", 1, 1, Fault::Hang);
    let mut task = task(&world);
    task.until_idle = false;
    task.grace = Duration::from_millis(300);
    let status = Arc::clone(&task.status);
    let (stop, thread) = start(task);
    world.wait_until("it hangs", |state| state.counts.contains_key("sink.flush"));
    stop.raise();
    let stopped = Instant::now();
    assert!(thread.join().unwrap().is_err());
    assert!(stopped.elapsed() < Duration::from_millis(800), "{:?}", stopped.elapsed());
    assert_eq!(status.snapshot().wedged, 1);
    world.release();
}

#[test]
fn a_stalled_call_is_in_the_status_until_it_returns() {
    let world = World::with_rows(10);
    world.fault("sink.flush", 1, 1, Fault::Hang);
    let mut task = task(&world);
    task.stalled_after = Duration::from_millis(500);
    let status = Arc::clone(&task.status);
    let (_, thread) = start(task);
    world.wait_until("it hangs", |state| state.counts.contains_key("sink.flush"));
    let calls = || status.snapshot().calls.into_iter().filter(|call| call.end == "sink");
    assert!(calls().all(|call| call.name == "flush"));
    while !calls().any(|call| call.stalled) {
        std::thread::yield_now();
    }
    world.release();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Finished);
    assert!(status.snapshot().calls.is_empty());
    world.assert_each_row_once(&[("t", 10)]);
}

/// An instance that does not close is stalled as one that does not answer; what was committed is done all the same.
#[test]
fn a_close_that_hangs_is_stalled_and_fails_nothing() {
    for call in ["source.close", "sink.close"] {
        let world = World::with_rows(10);
        world.fault(call, 1, 1, Fault::Hang);
        let mut task = task(&world);
        task.until_idle = false;
        (task.grace, task.stalled_after) = (Duration::from_millis(1500), Duration::from_millis(200));
        let status = Arc::clone(&task.status);
        let (stop, thread) = start(task);
        world.wait_until("all is acknowledged", |state| state.acknowledged.get(&stream("t")) == Some(&10));
        stop.raise();
        let stopped = Instant::now();
        while !status.snapshot().calls.iter().any(|each| each.name == "close" && each.stalled) {
            assert!(stopped.elapsed() < Duration::from_secs(10), "{call}: never seen");
            std::thread::yield_now();
        }
        assert_eq!(status.snapshot().calls[0].end, &call[..call.len() - ".close".len()]);
        assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped, "{call}");
        assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
        assert_eq!(status.snapshot().wedged, 1, "{call}");
        assert!(world.lock().cancelled > 0, "{call}");
        world.release();
        world.assert_each_row_once(&[("t", 10)]);
    }
}

/// Without a stop as well: a run until idle ends.
#[test]
fn a_close_that_hangs_does_not_keep_a_run_from_its_end() {
    for call in ["source.close", "sink.close"] {
        let world = World::with_rows(10);
        world.fault(call, 1, 1, Fault::Hang);
        let mut task = task(&world);
        task.grace = Duration::from_millis(200);
        let status = Arc::clone(&task.status);
        assert_eq!(finish(task).unwrap(), Done::Finished, "{call}");
        assert_eq!(status.snapshot().wedged, 1, "{call}");
        world.release();
        world.assert_each_row_once(&[("t", 10)]);
    }
}

/// A source that does not return is the source's failure, though the sink is what cannot flush.
#[test]
fn a_wedged_source_is_not_called_the_sink() {
    let world = World::with_rows(10);
    world.fault("source.poll", 3, 1, Fault::Hang);
    let mut task = task(&world);
    task.until_idle = false;
    task.grace = Duration::from_millis(500);
    let (stop, thread) = start(task);
    world.wait_until("it hangs", |state| state.counts.get("source.poll") == Some(&3));
    stop.raise();
    let failure = thread.join().unwrap().unwrap_err();
    assert_eq!(failure.end, Kind::Source);
    let message = failure.error.message();
    assert!(
        message.starts_with("poll has not returned for") && message.contains("not everything was flushed"),
        "{message}"
    );
    world.release();

    let world = World::with_rows(10);
    world.fault("sink.flush", 1, 1, Fault::Hang);
    let mut task = self::task(&world);
    task.until_idle = false;
    task.grace = Duration::from_millis(500);
    let (stop, thread) = start(task);
    world.wait_until("it hangs", |state| state.counts.contains_key("sink.flush"));
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap_err().end, Kind::Sink);
    world.release();
}
