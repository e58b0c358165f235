//! Sets of ids as merged ranges: exact, and small where ids are dense.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Ids from the first to the second, both within.
pub(crate) type Range = (i64, i64);

/// Appends an id to ascending ranges.
pub(crate) fn push(ranges: &mut Vec<Range>, id: i64) {
    match ranges.last_mut() {
        Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
        _ => ranges.push((id, id)),
    }
}

/// The ranges as the text of an int8multirange.
pub(crate) fn multirange(ranges: &[Range]) -> String {
    let mut text = String::with_capacity(2 + ranges.len() * 16);
    text.push('{');
    for (index, (first, last)) in ranges.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}[{first},{last}]");
    }
    text.push('}');
    text
}

/// A set of ids.
#[derive(Debug, Default)]
pub(crate) struct RangeSet {
    /// First to last, both within; neighbours are merged.
    ranges: BTreeMap<i64, i64>,
}

impl RangeSet {
    /// How many ranges it is made of.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.run(id).is_some()
    }

    /// The range that holds the id.
    pub(crate) fn run(&self, id: i64) -> Option<Range> {
        let (first, last) = self.ranges.range(..=id).next_back()?;
        (*last >= id).then_some((*first, *last))
    }

    /// Whether any id of the range is in the set.
    pub(crate) fn intersects(&self, (first, last): Range) -> bool {
        self.ranges.range(..=last).next_back().is_some_and(|(_, end)| *end >= first)
    }

    pub(crate) fn insert(&mut self, (mut first, mut last): Range) {
        while let Some((start, end)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            let (start, end) = (*start, *end);
            if end.saturating_add(1) < first {
                break;
            }
            first = first.min(start);
            last = last.max(end);
            self.ranges.remove(&start);
        }
        self.ranges.insert(first, last);
    }

    pub(crate) fn remove(&mut self, (first, last): Range) {
        while let Some((start, end)) = self.ranges.range(..=last).next_back() {
            let (start, end) = (*start, *end);
            if end < first {
                break;
            }
            self.ranges.remove(&start);
            if end > last {
                self.ranges.insert(last + 1, end);
            }
            if start < first {
                self.ranges.insert(start, first - 1);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_plain_set() {
        // A fixed walk over small ids: every insert and remove compared with a set of single ids.
        let (mut set, mut plain) = (RangeSet::default(), BTreeSet::new());
        let mut state = 12345_u64;
        for _ in 0..5_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let first = i64::try_from((state >> 33) % 60).unwrap();
            let last = first + i64::try_from((state >> 45) % 8).unwrap();
            if state & (1 << 60) == 0 {
                set.insert((first, last));
                plain.extend(first..=last);
            } else {
                set.remove((first, last));
                plain.retain(|id| !(first..=last).contains(id));
            }
            let flat: Vec<i64> = set.iter().flat_map(|(a, b)| a..=b).collect();
            assert_eq!(flat, plain.iter().copied().collect::<Vec<_>>());
            let ranges: Vec<Range> = set.iter().collect();
            assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "neighbours must be merged: {ranges:?}");
            assert_eq!(set.contains(first), plain.contains(&first));
            assert_eq!(set.intersects((first, last)), (first..=last).any(|id| plain.contains(&id)));
        }
    }

    #[test]
    fn texts_of_multiranges() {
        let mut ranges = Vec::new();
        for id in [1, 2, 3, 7, 9, 10] {
            push(&mut ranges, id);
        }
        assert_eq!(multirange(&ranges), "{[1,3],[7,7],[9,10]}");
        assert_eq!(multirange(&[]), "{}");
    }
}
