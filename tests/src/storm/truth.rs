//! What was found in a table against what was committed in PostgreSQL.

use std::collections::HashMap;

use anyhow::Result;

use crate::replay::{Difference, What};

/// One change: key, operation, and a number that no other change of the table was given; a DELETE has the last one's.
pub(super) type Change = (i64, String, i64);

/// What is wrong with a table.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Changes that were committed and are not there.
    pub(super) lost: Vec<Change>,
    /// Changes that are there more often than once, or were never committed.
    pub(super) doubled: Vec<Change>,
    /// Keys whose changes have another order.
    pub(super) disordered: Vec<i64>,
}

impl Verdict {
    pub(super) fn is_good(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.disordered.is_empty()
    }
}

/// Compares changes, each key's in order.
pub(super) fn compare(expected: &[Change], found: &[Change]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut left: HashMap<&Change, usize> = HashMap::new();
    for change in expected {
        *left.entry(change).or_default() += 1;
    }
    for change in found {
        match left.get_mut(change) {
            Some(count) if *count > 0 => *count -= 1,
            _ => verdict.doubled.push(change.clone()),
        }
    }
    verdict.lost = expected.iter().filter(|change| left.get(change).is_some_and(|count| *count > 0)).cloned().collect();
    if verdict.is_good() {
        let (expected, found) = (by_key(expected), by_key(found));
        verdict.disordered = expected.iter().filter(|(id, of)| found.get(id) != Some(of)).map(|(id, _)| *id).collect();
        verdict.disordered.sort_unstable();
    }
    verdict
}

/// Differences of a table that has to be equal: a row that is missing or another one is lost, one too much is doubled.
pub(super) fn of_rows(differences: &[Difference]) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for Difference { key, what, .. } in differences {
        let change = (key.concat().parse()?, what.to_string(), 0);
        match what {
            What::TooMuch => verdict.doubled.push(change),
            What::Missing => verdict.lost.push(change),
            // A row counts once, however many of its cells are wrong.
            What::Cell { .. } if verdict.lost.last().is_some_and(|last| last.0 == change.0) => {}
            What::Cell { .. } => verdict.lost.push(change),
        }
    }
    Ok(verdict)
}

fn by_key(changes: &[Change]) -> HashMap<i64, Vec<&Change>> {
    let mut keys: HashMap<i64, Vec<&Change>> = HashMap::new();
    for change in changes {
        keys.entry(change.0).or_default().push(change);
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_fault_of_rows_is_seen_once() {
        let cell = |column: &str| What::Cell { column: column.to_owned(), expected: json!("1"), found: json!(null) };
        let of = |key: &str, what| Difference { table: "t".to_owned(), key: vec![key.to_owned()], what };
        let differences = [
            of("1", cell("v")),
            of("1", cell("who")),
            of("2", What::Missing),
            of("3", cell("v")),
            of("4", What::TooMuch),
        ];
        let verdict = of_rows(&differences).unwrap();
        let ids = |changes: &[Change]| changes.iter().map(|change| change.0).collect::<Vec<_>>();
        assert_eq!((ids(&verdict.lost), ids(&verdict.doubled)), (vec![1, 2, 3], vec![4]));
        assert!(of_rows(&[]).unwrap().is_good());
    }

    fn changes(of: &[(i64, &str, i64)]) -> Vec<Change> {
        of.iter().map(|(id, operation, v)| (*id, (*operation).to_owned(), *v)).collect()
    }

    #[test]
    fn each_fault_is_seen() {
        let expected = changes(&[(1, "INSERT", 1), (2, "INSERT", 2), (1, "UPDATE", 3), (1, "DELETE", 3)]);
        assert!(compare(&expected, &expected).is_good());
        // Keys do not wait for each other.
        let other = changes(&[(2, "INSERT", 2), (1, "INSERT", 1), (1, "UPDATE", 3), (1, "DELETE", 3)]);
        assert!(compare(&expected, &other).is_good());
        let lost = compare(&expected, &expected[1..]);
        assert_eq!((lost.lost, lost.doubled), (changes(&[(1, "INSERT", 1)]), vec![]));
        let twice = [&expected[..], &expected[..1]].concat();
        assert_eq!(compare(&expected, &twice).doubled, changes(&[(1, "INSERT", 1)]));
        let strange = [&expected[..], &changes(&[(9, "INSERT", 9)])].concat();
        assert_eq!(compare(&expected, &strange).doubled, changes(&[(9, "INSERT", 9)]));
        let swapped = changes(&[(1, "INSERT", 1), (2, "INSERT", 2), (1, "DELETE", 3), (1, "UPDATE", 3)]);
        assert_eq!(compare(&expected, &swapped).disordered, [1]);
    }
}
