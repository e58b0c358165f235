//! Sets of sequence numbers, as a table's property holds those that were replayed: `1-3,7`.

use std::fmt;
use std::str::FromStr;

use iceberg::spec::TableMetadata;
use philotes_sdk::{Error, Result};

/// Sequence numbers as ranges, ascending, neither touching nor empty; both ends belong to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

/// The property of a stream's table that holds which of its letters a connector has replayed.
pub(crate) fn property(connector: &str) -> String {
    format!("philotes.replayed.{connector}")
}

impl Ranges {
    /// Those that were replayed into a table.
    ///
    /// # Errors
    /// Config: the property holds something else.
    pub(crate) fn replayed(metadata: &TableMetadata, connector: &str) -> Result<Self> {
        let name = property(connector);
        let Some(value) = metadata.properties().get(&name) else { return Ok(Self::default()) };
        value.parse().map_err(|()| Error::config(format!("table property {name} is no set of numbers such as 1-3,7")))
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|(first, last)| other.0.iter().any(|(start, end)| first <= end && start <= last))
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        Self::merged(self.0.iter().chain(&other.0).copied().collect())
    }

    fn merged(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(open) if first <= open.1.saturating_add(1) => open.1 = open.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

impl FromIterator<u64> for Ranges {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        Self::merged(numbers.into_iter().map(|number| (number, number)).collect())
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromStr for Ranges {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| ());
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (number(first)?, number(last)?);
            if first <= last { Ok((first, last)) } else { Err(()) }
        };
        Ok(Self::merged(text.split(',').map(range).collect::<Result<_, ()>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_merged_and_written() {
        for (text, written) in
            [("7", "7"), ("1-3", "1-3"), ("5,1-3,4", "1-5"), ("9, 2-3,11", "2-3,9,11"), ("1-9,3", "1-9")]
        {
            assert_eq!(text.parse::<Ranges>().unwrap().to_string(), written, "{text}");
        }
        for text in ["", "a", "3-1", "-1", "1-", "1,,2"] {
            assert!(text.parse::<Ranges>().is_err(), "{text}");
        }
        let some: Ranges = [3, 1, 2, 9].into_iter().collect();
        assert_eq!(some.to_string(), "1-3,9");
        assert!(some.contains(2) && some.contains(9) && !some.contains(4));
        let more: Ranges = [4, 8].into_iter().collect();
        assert!(!some.overlaps(&more) && some.overlaps(&[9].into_iter().collect()));
        assert_eq!(some.union(&more).to_string(), "1-4,8-9");
    }
}
