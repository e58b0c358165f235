//! How far one partition has come, and how far it is behind.
//!
//! The lag is decided from two things: what the source says it has handed over, and what of it is durable.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// How long the source's word counts that it has handed over all there was. A source that looks less often, or whose server does not
/// answer, knows no better than that, so that the lag becomes the age of its word.
const WORD_COUNTS: Duration = Duration::from_secs(120);

/// What a source has said of all its streams since it was opened.
#[derive(Clone, Copy, Default)]
pub(super) struct Heard {
    /// When it last said that it had handed over everything there was; microseconds since 1970, zero for never.
    pub(super) caught_up_micros: i64,
    /// It has handed over nothing since.
    pub(super) idle: bool,
    /// The newest row that it handed over, of whichever stream.
    pub(super) newest_micros: i64,
}

#[derive(Clone, Default)]
pub(super) struct StreamProgress {
    pub(super) read_rows: u64,
    pub(super) committed_rows: u64,
    pub(super) uncommitted_rows: u64,
    pub(super) dead_letters: u64,
    pub(super) last_commit: Option<DateTime<Utc>>,
    /// As the source says it.
    pub(super) lag_records: Option<u64>,
    /// Another task has it.
    pub(super) revoked: bool,
    /// What was read and is not durable, the oldest first: rows, and when the source's server took the newest of them in.
    waiting: VecDeque<(u64, i64)>,
    /// Of the oldest rows that were dropped with a session and have to be read again.
    dropped_micros: Option<i64>,
    /// Everything of the partition up to this instant is durable; zero where unknown.
    complete_micros: i64,
}

impl StreamProgress {
    pub(super) fn read(&mut self, rows: u64, newest_micros: i64) {
        self.revoked = false;
        self.dropped_micros = None;
        self.read_rows += rows;
        self.uncommitted_rows += rows;
        if rows > 0 {
            self.waiting.push_back((rows, newest_micros));
        }
    }

    pub(super) fn committed(&mut self, rows: u64, newest_micros: i64, now: DateTime<Utc>) {
        self.committed_rows += rows;
        self.uncommitted_rows = self.uncommitted_rows.saturating_sub(rows);
        self.complete_micros = self.complete_micros.max(newest_micros);
        self.last_commit = Some(now);
        let mut rows = rows;
        while let Some((waiting, _)) = self.waiting.front_mut() {
            if *waiting > rows {
                *waiting -= rows;
                break;
            }
            rows -= *waiting;
            self.waiting.pop_front();
        }
    }

    /// A new session: what is not durable will be read again, and the source says anew what it has handed over.
    pub(super) fn drop_uncommitted(&mut self, heard: Heard) {
        match self.waiting.front() {
            Some((_, micros)) => self.dropped_micros = self.dropped_micros.or(Some(*micros)),
            None if self.dropped_micros.is_none() => self.complete_micros = self.complete_until(heard),
            None => {}
        }
        self.uncommitted_rows = 0;
        self.waiting.clear();
    }

    /// The source has handed over everything there was: what was dropped and did not come again turned out to be durable.
    pub(super) fn caught_up(&mut self) {
        self.dropped_micros = None;
    }

    pub(super) fn revoke(&mut self) {
        self.revoked = true;
        self.lag_records = None;
        self.dropped_micros = None;
    }

    /// How old the oldest change is that is not durable, as far as that is known: see docs/MONITORING.md.
    pub(super) fn lag(&self, heard: Heard, now: DateTime<Utc>) -> Option<f64> {
        if self.revoked {
            return None;
        }
        let age = |micros: i64| {
            let since = DateTime::from_timestamp_micros(micros).filter(|_| micros > 0)?;
            Some((now - since).as_seconds_f64().max(0.0))
        };
        if let Some(micros) = self.waiting.front().map(|(_, micros)| *micros).or(self.dropped_micros) {
            return age(micros).or_else(|| age(self.complete_micros));
        }
        let said = age(heard.caught_up_micros);
        if heard.idle && said.is_some_and(|said| said < WORD_COUNTS.as_secs_f64()) {
            return Some(0.0);
        }
        age(self.complete_until(heard))
    }

    /// Everything up to this instant is durable, where nothing waits: the source hands over what is older first. (Where it does not,
    /// it counts what waits of each partition.)
    fn complete_until(&self, heard: Heard) -> i64 {
        let handed_over = if self.lag_records.unwrap_or(0) == 0 { heard.newest_micros } else { 0 };
        self.complete_micros.max(heard.caught_up_micros).max(handed_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn micros(seconds: i64) -> i64 {
        at(seconds).timestamp_micros()
    }

    fn idle(seconds: i64) -> Heard {
        Heard { caught_up_micros: micros(seconds), idle: true, newest_micros: 0 }
    }

    /// A change per hour, each durable ten seconds later, and a source that says now and then that it has nothing: the lag is the age
    /// of what waits, and 0 where nothing does, never the age of the last change.
    #[test]
    fn a_quiet_source_lags_only_while_something_waits() {
        let mut progress = StreamProgress::default();
        let mut heard = idle(0);
        for hour in 1..4 {
            let arrived = hour * 3600;
            heard.caught_up_micros = micros(arrived - 1);
            assert_eq!(progress.lag(heard, at(arrived - 1)), Some(0.0));
            assert_eq!(progress.lag(heard, at(arrived)), Some(0.0), "between two words of the source");
            progress.read(1, micros(arrived));
            heard.idle = false;
            assert_eq!(progress.lag(heard, at(arrived + 1)), Some(1.0));
            (heard.idle, heard.caught_up_micros) = (true, micros(arrived + 1));
            assert_eq!(progress.lag(heard, at(arrived + 9)), Some(9.0), "it waits for its commit");
            progress.committed(1, micros(arrived), at(arrived + 10));
            assert_eq!(progress.lag(heard, at(arrived + 10)), Some(0.0));
        }
    }

    /// With a backlog the lag is the age of the oldest batch that is not durable, or of the newest row that is.
    #[test]
    fn a_busy_source_lags_by_what_is_not_durable() {
        let mut progress = StreamProgress::default();
        let mut heard = Heard::default();
        for (rows, seconds) in [(10, 100), (20, 200), (30, 300)] {
            progress.read(rows, micros(seconds));
            heard.newest_micros = micros(seconds);
        }
        assert_eq!(progress.lag(heard, at(1000)), Some(900.0));
        progress.committed(30, micros(200), at(1000));
        assert_eq!((progress.uncommitted_rows, progress.lag(heard, at(1000))), (30, Some(700.0)));
        progress.committed(30, micros(300), at(1001));
        assert_eq!(progress.lag(heard, at(1001)), Some(701.0), "more may follow");
        // Another stream of the source has come further.
        heard.newest_micros = micros(900);
        assert_eq!(progress.lag(heard, at(1001)), Some(101.0));
        // Unless the source counts what waits of this one.
        progress.lag_records = Some(7);
        assert_eq!(progress.lag(heard, at(1001)), Some(701.0));
    }

    #[test]
    fn a_word_that_is_not_repeated_grows_old() {
        let progress = StreamProgress::default();
        assert_eq!(progress.lag(idle(0), at(119)), Some(0.0));
        assert_eq!(progress.lag(idle(0), at(121)), Some(121.0));
        assert_eq!(progress.lag(Heard::default(), at(5)), None, "nothing is known");
    }

    /// A session that is dropped does not make the lag smaller, nor does what turned out to be durable keep it.
    #[test]
    fn what_is_read_again_goes_on_waiting() {
        let mut progress = StreamProgress::default();
        progress.read(5, micros(10));
        progress.drop_uncommitted(Heard::default());
        assert_eq!((progress.uncommitted_rows, progress.lag(Heard::default(), at(30))), (0, Some(20.0)));
        progress.drop_uncommitted(Heard::default());
        assert_eq!(progress.lag(Heard::default(), at(30)), Some(20.0));
        progress.read(5, micros(10));
        assert_eq!(progress.lag(Heard::default(), at(30)), Some(20.0));
        progress.drop_uncommitted(Heard::default());
        progress.caught_up();
        assert_eq!(progress.lag(idle(31), at(31)), Some(0.0));

        // Nothing waited: while the source cannot be opened, its last word grows old.
        progress.drop_uncommitted(idle(31));
        assert_eq!(progress.lag(Heard::default(), at(36)), Some(5.0));
    }

    #[test]
    fn clocks_that_differ_and_times_that_are_unknown() {
        let mut progress = StreamProgress::default();
        progress.read(1, micros(100));
        assert_eq!(progress.lag(Heard::default(), at(90)), Some(0.0), "the source's clock is ahead");
        let mut progress = StreamProgress::default();
        progress.read(1, 0);
        assert_eq!(progress.lag(Heard::default(), at(90)), None);
        progress.committed(1, 0, at(91));
        assert_eq!(progress.lag(idle(91), at(91)), Some(0.0));
        progress.revoke();
        assert_eq!(progress.lag(idle(91), at(91)), None);
    }
}
