//! Back-off: how long to wait before the next try, and when to give up.

use std::time::{Duration, Instant};

use crate::config::RetryPolicy;

/// A run of failures without success in between.
pub(crate) struct Episode<'a> {
    policy: &'a RetryPolicy,
    began: Option<Instant>,
    attempts: u32,
}

impl<'a> Episode<'a> {
    pub(crate) fn new(policy: &'a RetryPolicy) -> Self {
        Self { policy, began: None, attempts: 0 }
    }

    /// How many failures so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Success: the next failure starts a new episode.
    pub(crate) fn reset(&mut self) {
        self.began = None;
        self.attempts = 0;
    }

    /// Counts a failure and says how long to wait; `None` once the policy's time is over.
    ///
    /// `at_once` skips the wait after the first failure of an episode.
    pub(crate) fn failed(&mut self, at_once: bool) -> Option<Duration> {
        let began = *self.began.get_or_insert_with(Instant::now);
        self.attempts = self.attempts.saturating_add(1);
        if began.elapsed() >= self.policy.elapsed {
            return None;
        }
        match (at_once, self.attempts) {
            (true, 1) => Some(Duration::ZERO),
            (true, attempts) => Some(delay(self.policy.initial, self.policy.max, attempts - 1)),
            (false, attempts) => Some(delay(self.policy.initial, self.policy.max, attempts)),
        }
    }
}

/// Exponential with factor 2, from the second half of each step by chance, so that many tasks do not call in step.
pub(crate) fn delay(initial: Duration, max: Duration, attempt: u32) -> Duration {
    let step = initial.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1))).min(max);
    step.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(elapsed: Duration) -> RetryPolicy {
        RetryPolicy { initial: Duration::from_secs(1), max: Duration::from_secs(30), elapsed }
    }

    #[test]
    fn waits_double_up_to_the_maximum_with_jitter() {
        let policy = policy(Duration::from_secs(600));
        let mut episode = Episode::new(&policy);
        for step in [1, 2, 4, 8, 16, 30, 30] {
            let wait = episode.failed(false).unwrap();
            let step = Duration::from_secs(step);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
        }
        assert_eq!(episode.attempts(), 7);
        episode.reset();
        assert!(episode.failed(false).unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn the_first_of_a_run_of_fences_is_not_waited_for() {
        let policy = policy(Duration::from_secs(600));
        let mut episode = Episode::new(&policy);
        assert_eq!(episode.failed(true), Some(Duration::ZERO));
        assert!(episode.failed(true).unwrap() >= Duration::from_millis(500));
    }

    #[test]
    fn an_episode_ends_after_the_policys_time() {
        let policy = policy(Duration::ZERO);
        assert_eq!(Episode::new(&policy).failed(false), None);
    }
}
