//! A flag that is raised once and that sleepers notice: shutdown of the host, abort of a session.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Raised once, never lowered. Clones share the flag.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// When it was raised.
    since: Mutex<Option<Instant>>,
    raised: Condvar,
}

impl Stop {
    /// Raises the flag; the first time counts.
    pub fn raise(&self) {
        let mut since = self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now);
        self.0.raised.notify_all();
    }

    /// When it was raised, if it was.
    pub fn since(&self) -> Option<Instant> {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.since().is_some()
    }

    /// Sleeps for this long, or until the flag is raised; whether it is.
    pub fn sleep(&self, duration: Duration) -> bool {
        let since = self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, _) = self
            .0
            .raised
            .wait_timeout_while(since, duration, |since| since.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_wakes_when_the_flag_is_raised() {
        let stop = Stop::default();
        assert!(!stop.sleep(Duration::from_millis(1)));
        let raiser = stop.clone();
        let sleeper = std::thread::spawn(move || {
            let started = Instant::now();
            (stop.sleep(Duration::from_secs(60)), started.elapsed())
        });
        raiser.raise();
        let (raised, slept) = sleeper.join().unwrap();
        assert!(raised && slept < Duration::from_secs(10));
        let first = raiser.since();
        raiser.raise();
        assert_eq!(raiser.since(), first);
    }
}
