//! Which ids this task has dealt with, and where unseen ones can still lie.
//!
//! Every snapshot must look everywhere but at what was seen: an id that was never seen may belong to a transaction that
//! commits late. Looking only into the gaps between seen ids keeps that cheap: it costs what is unseen, and skips both the
//! emitted rows that wait for their acknowledgement and the index's dead entries of those acknowledged.

use std::fmt::Write as _;

use crate::ranges::{Range, RangeSet};

/// Beyond this many ranges the ids of rows that nobody wants are no longer remembered, but read again by each snapshot.
const MAX_RANGES: usize = 2_000_000;

/// Two gaps become one probe with a bitmap where at most this many seen ids lie between them ...
const MAX_SEEN_BETWEEN: i64 = 16;
/// ... and the gap is at most this wide: one bit per id is cheaper than an index descent.
const MAX_GAP_IN_BITMAP: i64 = 512;

/// What was emitted or is not wanted, in this open.
#[derive(Default)]
pub(crate) struct Seen {
    /// All of it.
    all: RangeSet,
    /// The part of it that still lies unprocessed in the buffer.
    unprocessed: RangeSet,
}

/// A span of ids to read, and which of them to leave out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) span: Range,
    /// Seen ids within, one bit each from the span's first id on, lowest bit first; empty where there are none.
    pub(crate) seen: Vec<u8>,
}

impl Seen {
    /// Rows that were handed out.
    pub(crate) fn emitted(&mut self, ranges: &[Range]) {
        for range in ranges {
            self.all.insert(*range);
            self.unprocessed.insert(*range);
        }
    }

    /// Rows that nobody wants and that stay as they are. False where there are too many of them to remember.
    pub(crate) fn unwanted(&mut self, ranges: &[Range]) -> bool {
        if self.all.len() > MAX_RANGES {
            return false;
        }
        self.emitted(ranges);
        true
    }

    /// Rows whose acknowledgement has committed, before the next snapshot begins.
    ///
    /// They are forgotten once nothing around them is unprocessed any more, and not before: a run of ids stays one range
    /// however its streams are acknowledged, and snapshots keep skipping the index entries it leaves behind.
    pub(crate) fn acknowledged(&mut self, ranges: &[Range]) {
        for range in ranges {
            self.unprocessed.remove(*range);
        }
        for (first, last) in ranges {
            let mut id = *first;
            while id <= *last {
                let Some(run) = self.all.run(id) else { break };
                if !self.unprocessed.intersects(run) {
                    self.all.remove(run);
                }
                id = run.1 + 1;
            }
        }
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.all.contains(id)
    }

    /// Everything unseen, ascending.
    pub(crate) fn probes(&self) -> Vec<Probe> {
        let mut probes: Vec<Probe> = Vec::new();
        let mut next = i64::MIN;
        for (first, last) in self.all.iter() {
            if next < first {
                add(&mut probes, (next, first - 1));
            }
            next = last + 1;
        }
        add(&mut probes, (next, i64::MAX));
        probes
    }
}

fn add(probes: &mut Vec<Probe>, gap: Range) {
    let width = gap.1.checked_sub(gap.0);
    if let (Some(probe), Some(width)) = (probes.last_mut(), width)
        && gap.0 - probe.span.1 - 1 <= MAX_SEEN_BETWEEN
        && width < MAX_GAP_IN_BITMAP
        && let Some(before) = probe.span.1.checked_sub(probe.span.0)
        && (!probe.seen.is_empty() || before < MAX_GAP_IN_BITMAP)
    {
        for id in probe.span.1 + 1..gap.0 {
            #[expect(
                clippy::cast_sign_loss,
                clippy::cast_possible_truncation,
                reason = "within the span, whose width is small"
            )]
            let bit = (id - probe.span.0) as usize;
            probe.seen.resize(bit / 8 + 1, 0);
            probe.seen[bit / 8] |= 1 << (bit % 8);
        }
        probe.span.1 = gap.1;
        // get_bit refuses what lies beyond the bitmap, so that it covers the whole span.
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "as above")]
        probe.seen.resize((gap.1 - probe.span.0) as usize / 8 + 1, 0);
        return;
    }
    probes.push(Probe { span: gap, seen: Vec::new() });
}

impl Probe {
    /// The bitmap as a literal of bytea's hexadecimal form.
    pub(crate) fn bitmap(&self) -> String {
        let mut text = String::with_capacity(2 + self.seen.len() * 2);
        text.push_str("\\x");
        for byte in &self.seen {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every id that the probes would read, of those up to `max`.
    fn unseen(seen: &Seen, max: i64) -> Vec<i64> {
        let mut ids = Vec::new();
        for probe in seen.probes() {
            for id in probe.span.0.max(0)..=probe.span.1.min(max) {
                let bit = id.wrapping_sub(probe.span.0);
                let hidden = !probe.seen.is_empty() && {
                    let bit = usize::try_from(bit).unwrap();
                    probe.seen[bit / 8] & (1 << (bit % 8)) != 0
                };
                if !hidden {
                    ids.push(id);
                }
            }
        }
        ids
    }

    #[test]
    fn probes_read_exactly_what_was_not_seen() {
        for step in [1, 2, 3, 10, 700] {
            let mut seen = Seen::default();
            let emitted: Vec<i64> = (100..160).map(|n| n * step).collect();
            for id in &emitted {
                seen.emitted(&[(*id, *id)]);
            }
            let max = 200 * step;
            let expected: Vec<i64> = (0..=max).filter(|id| !emitted.contains(id)).collect();
            assert_eq!(unseen(&seen, max), expected, "step {step}");
        }
    }

    #[test]
    fn dense_ids_need_two_probes_and_sparse_ones_a_bitmap() {
        let mut seen = Seen::default();
        seen.emitted(&[(1, 1_000_000)]);
        assert_eq!(seen.probes().len(), 2);
        let mut seen = Seen::default();
        for id in 0..100_000 {
            seen.emitted(&[(id * 2, id * 2)]);
        }
        let probes = seen.probes();
        assert_eq!(probes.len(), 3, "before, between, after");
        assert_eq!(probes[1].seen.len(), 25_000);
    }

    #[test]
    fn acknowledged_runs_are_forgotten_as_a_whole() {
        let mut seen = Seen::default();
        seen.emitted(&[(1, 10)]);
        assert!(seen.unwanted(&[(20, 20)]));
        seen.acknowledged(&[(3, 5)]);
        assert!(seen.contains(4), "its run still holds unprocessed ids");
        seen.acknowledged(&[(1, 2), (6, 10)]);
        assert!(!seen.contains(4));
        assert!(seen.contains(20), "kept rows stay seen");
    }
}
