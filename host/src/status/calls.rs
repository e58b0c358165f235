//! The calls that the two instances of a session are in, so that one that does not come back is seen.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{end_name, print_time};
use crate::plugin::Kind;

/// Both ends of one session; its threads write, the watcher and the status read.
pub(crate) struct Calls {
    /// A call that takes this long is stalled.
    stalled_after: Duration,
    source: Mutex<Option<Call>>,
    sink: Mutex<Option<Call>>,
}

/// A call under way.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    began: Instant,
    since: DateTime<Utc>,
}

/// A call under way, as /status prints it.
#[derive(Clone, Debug, Serialize)]
pub struct CallSnapshot {
    /// Source or sink.
    pub end: &'static str,
    /// The call: `flush`, `poll`, …
    pub name: &'static str,
    /// When it began.
    pub since: String,
    /// How long it has been running.
    pub running_seconds: f64,
    /// It has been running for `stalled_after` or longer.
    pub stalled: bool,
}

impl Calls {
    pub(crate) fn new(stalled_after: Duration) -> Self {
        Self { stalled_after, source: Mutex::default(), sink: Mutex::default() }
    }

    fn at(&self, end: Kind) -> MutexGuard<'_, Option<Call>> {
        let call = match end {
            Kind::Source => &self.source,
            Kind::Sink => &self.sink,
        };
        call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a call and notes it for as long as it runs; with how long it took if it had stalled.
    pub(crate) fn during<T>(&self, end: Kind, name: &'static str, call: impl FnOnce() -> T) -> (T, Option<Duration>) {
        let began = Instant::now();
        *self.at(end) = Some(Call { name, began, since: Utc::now() });
        let result = call();
        *self.at(end) = None;
        (result, Some(began.elapsed()).filter(|took| *took >= self.stalled_after))
    }

    /// The call that an end is in, and for how long.
    pub(crate) fn running(&self, end: Kind) -> Option<(&'static str, Duration)> {
        (*self.at(end)).map(|call| (call.name, call.began.elapsed()))
    }

    /// The call of an end that has stalled, if it has: its name, when it began, and how long ago.
    pub(crate) fn stalled(&self, end: Kind) -> Option<(&'static str, Instant, Duration)> {
        let call = (*self.at(end))?;
        let running = call.began.elapsed();
        (running >= self.stalled_after).then_some((call.name, call.began, running))
    }

    pub(super) fn snapshot(&self) -> Vec<CallSnapshot> {
        let call = |end| {
            let Call { name, began, since } = (*self.at(end))?;
            let running = began.elapsed();
            Some(CallSnapshot {
                end: end_name(end),
                name,
                since: print_time(since),
                running_seconds: (running.as_secs_f64() * 1000.0).round() / 1000.0,
                stalled: running >= self.stalled_after,
            })
        };
        [Kind::Source, Kind::Sink].into_iter().filter_map(call).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_seen_while_it_runs_and_stalls_after_its_time() {
        let calls = Calls::new(Duration::from_millis(20));
        let ((), late) = calls.during(Kind::Source, "poll", || {
            assert_eq!(
                calls.snapshot().iter().map(|call| (call.end, call.name)).collect::<Vec<_>>(),
                [("source", "poll")]
            );
            assert!(!calls.snapshot()[0].stalled && calls.stalled(Kind::Source).is_none());
        });
        assert!(late.is_none() && calls.snapshot().is_empty());
        let (value, late) = calls.during(Kind::Sink, "flush", || {
            std::thread::sleep(Duration::from_millis(25));
            assert!(calls.snapshot()[0].stalled && calls.snapshot()[0].running_seconds >= 0.02);
            assert_eq!(calls.stalled(Kind::Sink).unwrap().0, "flush");
            7
        });
        assert_eq!(value, 7);
        assert!(late.unwrap() >= Duration::from_millis(25));
    }
}
