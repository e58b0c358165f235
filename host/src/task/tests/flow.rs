use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use philotes_sdk::{ErrorKind, Offset, StreamOffset};

use super::*;
use crate::task::link::{Item, Left, Link, Popped};
use crate::testing::{Fault, only, stream};

#[test]
fn rows_go_from_source_to_table_and_are_acknowledged() {
    let world = World::with_streams(&[("a", 95), ("b", 7)]);
    let task = task(&world);
    let status = Arc::clone(&task.status);
    assert_eq!(finish(task).unwrap(), Done::Finished);
    world.assert_each_row_once(&[("a", 95), ("b", 7)]);
    let state = world.lock();
    assert_eq!(state.acknowledged, BTreeMap::from([(stream("a"), 95), (stream("b"), 7)]));
    let snapshot = status.snapshot();
    assert_eq!(snapshot.streams.len(), 2);
    assert_eq!((snapshot.streams[0].read_rows, snapshot.streams[0].committed_rows), (95, 95));
    assert_eq!(snapshot.streams[0].uncommitted_rows, 0);
}

/// The order of DESIGN §3: announce, offset, resume, and only then the stream's rows; acknowledgement after the flush.
#[test]
fn announcements_are_answered_before_the_next_poll() {
    let world = World::with_rows(10);
    finish(task(&world)).unwrap();
    let state = world.lock();
    let position = |call: &str| state.calls.iter().position(|each| *each == call).unwrap();
    let first_poll = position("source.poll");
    let resume = position("source.resume");
    assert!(first_poll < position("sink.offsets") && position("sink.offsets") < resume);
    assert_eq!(state.calls[first_poll..resume].iter().filter(|call| **call == "source.poll").count(), 1);
    assert!(resume < position("sink.write"));
    assert!(position("sink.flush") < position("source.commit"));
    assert!(position("source.commit") < position("source.close"));
}

#[test]
fn the_end_of_a_source_ends_the_task() {
    let world = World::with_rows(42);
    world.lock().ends = true;
    let mut task = task(&world);
    task.until_idle = false;
    task.commit.interval = Duration::from_secs(60);
    assert_eq!(finish(task).unwrap(), Done::Finished);
    world.assert_each_row_once(&[("t", 42)]);
    assert_eq!(world.lock().acknowledged[&stream("t")], 42);
}

#[test]
fn rows_that_were_not_announced_are_a_bug() {
    for (announcements, expected) in [(0, "without having announced"), (2, "twice")] {
        let world = World::with_rows(10);
        world.lock().announcements = announcements;
        let failure = finish(task(&world)).unwrap_err();
        assert_eq!(failure.error.kind(), ErrorKind::Internal);
        assert!(failure.error.message().contains(expected), "{}", failure.error);
    }
}

#[test]
fn until_idle_takes_what_appears_while_it_drains() {
    let world = World::with_rows(10);
    // Poll 1 announces, 2 is the batch, 3 is idle and drains, 4 would end the run.
    world.lock().appear = vec![(4, stream("t"), 5), (6, stream("late"), 3)];
    assert_eq!(finish(task(&world)).unwrap(), Done::Finished);
    world.assert_each_row_once(&[("t", 15), ("late", 3)]);
    let state = world.lock();
    // One more poll after the last acknowledgement, and it found nothing.
    let last_commit = state.calls.iter().rposition(|call| *call == "source.commit").unwrap();
    let polls = state.calls[last_commit..].iter().filter(|call| **call == "source.poll").count();
    assert_eq!(polls, 1, "{:?}", state.calls);
}

/// A source that is only slow does not end a run until idle.
#[test]
fn until_idle_waits_for_a_source_that_is_not_caught_up() {
    let world = World::with_rows(10);
    world.lock().never_caught_up = true;
    let (_stop, thread) = start(task(&world));
    world.wait_until("rows are committed", |state| state.tables.contains_key(&only("t")));
    world.wait_until("it is polled on", |state| state.counts["source.poll"] > 20);
    assert!(!thread.is_finished());
    world.lock().never_caught_up = false;
    assert_eq!(thread.join().unwrap().unwrap(), Done::Finished);
}

/// What makes the sink flush: the same rows, one limit at a time.
#[test]
fn commits_by_rows_bytes_buffer_and_interval() {
    let flushes = |change: &dyn Fn(&mut Task), buffered: usize| {
        let world = World::with_rows(100);
        world.lock().buffered_per_batch = buffered;
        let mut task = task(&world);
        task.commit = CommitPolicy { interval: Duration::from_secs(60), max_rows: 1000, max_bytes: 1 << 20 };
        change(&mut task);
        finish(task).unwrap();
        world.assert_each_row_once(&[("t", 100)]);
        world.count("sink.flush")
    };
    assert_eq!(flushes(&|_| {}, 0), 1);
    assert_eq!(flushes(&|task| task.commit.max_rows = 20, 0), 5);
    assert_eq!(flushes(&|task| task.commit.max_bytes = 1, 0), 10);
    assert_eq!(flushes(&|task| task.memory.sink = 2000, 1000), 5);

    let world = World::with_rows(10);
    let mut task = task(&world);
    task.until_idle = false;
    task.commit.interval = Duration::from_millis(50);
    let started = Instant::now();
    let (stop, thread) = start(task);
    world.wait_until("the interval is over", |state| state.tables.contains_key(&only("t")));
    assert!(started.elapsed() >= Duration::from_millis(50));
    world.wait_until("it is acknowledged", |state| state.acknowledged.get(&stream("t")) == Some(&10));
    stop.raise();
    thread.join().unwrap().unwrap();
}

/// A sink that does not take rows stops the polling: what is read is bounded.
#[test]
fn a_slow_sink_holds_the_source_back() {
    let world = World::with_rows(10_000);
    world.fault("sink.write", 3, 1, Fault::Hang);
    let mut task = task(&world);
    let batch_bytes = 200;
    task.memory.queue = 5 * batch_bytes;
    let (_stop, thread) = start(task);
    world.wait_until("the sink hangs", |state| state.counts.get("sink.write") == Some(&3));
    thread::sleep(Duration::from_millis(100));
    // One announcement, three batches at the sink, some in the queue, one waiting for room.
    let polls = world.count("source.poll");
    assert!(polls < 30, "{polls} polls while the sink was stuck");
    world.release();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Finished);
    world.assert_each_row_once(&[("t", 10_000)]);
}

#[test]
fn excluded_streams_are_not_resumed_and_renamed_ones_keep_their_offsets() {
    let world = World::with_streams(&[("a", 25), ("b", 5), ("secret", 5)]);
    let mut task = task(&world);
    let route = Route { include: Vec::new(), exclude: vec!["*.secret".to_owned()] };
    task.routing = Routing::new(route, BTreeMap::from([(stream("a"), stream("z")), (stream("b"), stream("a"))]));
    world.fault("sink.flush", 2, 1, Fault::Fail(ErrorKind::Fenced));
    task.commit.max_rows = 10;
    assert_eq!(finish(task).unwrap(), Done::Finished);
    world.assert_each_row_once(&[("z", 25), ("a", 5), ("secret", 0)]);
    let state = world.lock();
    assert_eq!(state.acknowledged, BTreeMap::from([(stream("a"), 25), (stream("b"), 5)]));
    assert!(state.printed_streams.iter().all(|stream| stream == "public.z" || stream == "public.a"));
}

#[test]
fn a_stream_with_the_name_of_a_renamed_one_is_refused() {
    let world = World::with_streams(&[("a", 5), ("b", 5)]);
    let mut task = task(&world);
    task.routing = Routing::new(Route::default(), BTreeMap::from([(stream("a"), stream("b"))]));
    let failure = finish(task).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Config);
    assert!(failure.error.message().contains("public.a is renamed to public.b"), "{}", failure.error);
}

#[test]
fn a_revoked_partition_is_flushed_and_let_go() {
    let world = World::with_rows(30);
    let mut task = task(&world);
    task.until_idle = false;
    task.commit.interval = Duration::from_secs(60);
    let (stop, thread) = start(task);
    world.wait_until("all is written", |state| state.counts.get("sink.write") == Some(&3));
    world.lock().revoke = Some(stream("t"));
    // The source announces it anew, as if it came back from another task.
    world.wait_until("it is announced again", |state| state.counts.get("source.resume") == Some(&2));
    world.assert_each_row_once(&[("t", 30)]);
    assert_eq!(world.lock().acknowledged[&stream("t")], 30);
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
}

/// What the sink holds back of a revoked partition must not be committed behind its new owner's back.
#[test]
fn a_revoked_partition_with_rows_held_back_is_given_up() {
    let world = World::with_rows(25);
    world.lock().holds_back = true;
    let mut task = task(&world);
    task.until_idle = false;
    task.commit.interval = Duration::from_secs(60);
    let (stop, thread) = start(task);
    world.wait_until("all is written", |state| state.counts.get("sink.write") == Some(&3));
    world.lock().revoke = Some(stream("t"));
    world.wait_until("both ends are reopened", |state| state.counts.get("sink.open") == Some(&2));
    assert_eq!(world.lock().tables[&only("t")].1, 20);
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
    world.assert_each_row_once(&[("t", 20)]);
}

fn batch() -> philotes_sdk::ChangeBatch {
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    philotes_sdk::ChangeBatch {
        at: only("t"),
        schema_id: 1,
        rows: RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1]))]).unwrap(),
        offset: Offset::new("1").unwrap(),
        ends_transaction: false,
        initial_load: false,
        dead_letters: false,
        newest_micros: 0,
    }
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let link = Arc::new(Link::new(100));
    let pusher = Arc::clone(&link);
    let source = thread::spawn(move || {
        for bytes in [40, 60, 30, 100, 500, 1, 99, 100] {
            pusher.push(batch(), bytes, &mut |_| Ok(())).unwrap();
        }
        pusher.finish();
    });
    let mut popped = 0;
    loop {
        thread::sleep(Duration::from_millis(2));
        // One batch that is larger than the queue goes through alone.
        assert!(link.bytes() <= 100 || link.bytes() == 500);
        match link.pop(None) {
            Popped::Item(Item::Batch(..)) => popped += 1,
            Popped::Finished => break,
            other => panic!("{other:?}"),
        }
    }
    source.join().unwrap();
    assert_eq!((popped, link.most_bytes(), link.bytes()), (8, 500, 0));
}

/// A source that waits for room is told meanwhile what became durable.
#[test]
fn durable_offsets_pass_a_full_queue() {
    let link = Arc::new(Link::new(10));
    let pusher = Arc::clone(&link);
    let source = thread::spawn(move || {
        let mut committed = Vec::new();
        for _ in 0..2 {
            let result = pusher.push(batch(), 10, &mut |offsets| {
                committed.extend_from_slice(offsets);
                Ok(())
            });
            if !committed.is_empty() {
                assert!(matches!(result, Err(Left::Closed)));
            }
        }
        committed
    });
    while link.bytes() == 0 {
        thread::yield_now();
    }
    let durable = |offset: &str| vec![StreamOffset { at: only("t"), offset: Offset::new(offset).unwrap() }];
    link.durable(durable("1"));
    link.durable(durable("2"));
    thread::sleep(Duration::from_millis(50));
    link.close();
    let committed = source.join().unwrap();
    // The later one replaces the earlier one unless it was taken already.
    assert_eq!(committed.last().unwrap().offset.as_str(), "2");
}

/// A source that says only now and then that it has nothing more, and looks slow in between, does not lag.
#[test]
fn the_lag_of_a_quiet_source_stays_0() {
    let world = World::with_rows(10);
    let mut task = task(&world);
    task.until_idle = false;
    let status = Arc::clone(&task.status);
    let (stop, thread) = start(task);
    world.wait_until("all is acknowledged", |state| state.acknowledged.get(&stream("t")) == Some(&10));
    while status.snapshot().streams[0].lag_seconds != Some(0.0) {
        thread::yield_now();
    }
    // From now on it is only slow.
    world.lock().never_caught_up = true;
    let polls = world.count("source.poll");
    while world.count("source.poll") < polls + 50 {
        assert_eq!(status.snapshot().streams[0].lag_seconds, Some(0.0));
        assert!(status.snapshot().caught_up);
    }
    stop.raise();
    assert_eq!(thread.join().unwrap().unwrap(), Done::Stopped);
}
