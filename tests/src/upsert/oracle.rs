//! What a snapshot of the lake may hold: the table as it was after some change, and never one before that of the last look.
//!
//! One session writes, so what was committed is a line of changes, and every commit of the sink has to stand at a point of it. A
//! change of a key is one change here: no commit may stand between its two rows.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::replay::{State, differences, expect_none};
use crate::source_table::{SourceTable, key_of};

/// A change of the source table, as a trigger of the test has kept it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Which one it is.
    pub(super) number: i64,
    /// What it did.
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// A row has gone, another has come, or both: the key of the one, the cells of the other.
    Row { gone: Option<Vec<String>>, come: Option<Vec<Value>> },
    /// TRUNCATE.
    All,
}

/// The table after one of its changes.
#[derive(Clone, Debug, Default)]
struct Point {
    /// The number of the change; 0 before all of them.
    number: i64,
    state: State,
    /// The sum of the rows' hashes, which is cheap to keep.
    sum: u128,
}

/// Follows a table from look to look.
#[derive(Debug)]
pub(super) struct Oracle {
    source: SourceTable,
    places: Vec<usize>,
    point: Point,
    ahead: VecDeque<Change>,
}

impl Oracle {
    /// At the beginning, before the first change.
    pub(super) fn new(source: SourceTable) -> Result<Self> {
        Ok(Self { places: source.key_places()?, source, point: Point::default(), ahead: VecDeque::new() })
    }

    /// The table that is looked at.
    pub(super) fn source(&self) -> &SourceTable {
        &self.source
    }

    /// Goes on to the first point at which the table held just these rows; the number of its change. `more` gives the changes
    /// after one with this number, some at a time, none at the end.
    ///
    /// # Errors
    /// When there is no such point, or a key is there twice; or what `more` says.
    pub(super) fn see(&mut self, rows: Vec<Vec<Value>>, more: impl Fn(i64) -> Result<Vec<Change>>) -> Result<i64> {
        let found = self.keyed(rows)?;
        let (before, sum) = (self.point.clone(), sum_of(&found));
        while self.point.sum != sum || self.point.state.len() != found.len() {
            let Some(change) = self.next(&more)? else {
                bail!("{}", self.nearest(&before, &found, more)?);
            };
            self.point.apply(change, &self.places)?;
        }
        expect_none(&differences(&self.source, &self.point.state, &found))?;
        Ok(self.point.number)
    }

    fn keyed(&self, rows: Vec<Vec<Value>>) -> Result<State> {
        let mut state = State::new();
        for cells in rows {
            let key = key_of(&cells, &self.places)?;
            if let Some(other) = state.insert(key.clone(), cells) {
                let one = &state[&key];
                bail!("{}: the key {key:?} is there twice: {other:?} and {one:?}", self.source.name);
            }
        }
        Ok(state)
    }

    fn next(&mut self, more: &impl Fn(i64) -> Result<Vec<Change>>) -> Result<Option<Change>> {
        if self.ahead.is_empty() {
            self.ahead = more(self.point.number)?.into();
        }
        Ok(self.ahead.pop_front())
    }

    /// What differs after the last change whose row was found: most likely the commit was to stand there.
    fn nearest(&self, before: &Point, found: &State, more: impl Fn(i64) -> Result<Vec<Change>>) -> Result<String> {
        let mut last = before.number;
        let end = before.clone().walk(i64::MAX, &self.places, &more, |change| {
            if let What::Row { come: Some(cells), .. } = &change.what
                && found.get(&key_of(cells, &self.places)?) == Some(cells)
            {
                last = change.number;
            }
            Ok(())
        })?;
        let point = before.clone().walk(last, &self.places, &more, |_| Ok(()))?;
        let different = expect_none(&differences(&self.source, &point.state, found)).err();
        Ok(format!(
            "{}: the table never held these {} rows, from its change {} to {}; after {last}, the last one whose row is there, {}",
            self.source.name,
            found.len(),
            before.number,
            end.number,
            different.map(|error| error.to_string()).unwrap_or_default(),
        ))
    }
}

impl Point {
    /// Goes on to this change, or to the last one there is.
    fn walk(
        mut self,
        until: i64,
        places: &[usize],
        more: impl Fn(i64) -> Result<Vec<Change>>,
        mut each: impl FnMut(&Change) -> Result<()>,
    ) -> Result<Self> {
        loop {
            let changes = more(self.number)?;
            if changes.is_empty() {
                return Ok(self);
            }
            for change in changes {
                if change.number > until {
                    return Ok(self);
                }
                each(&change)?;
                self.apply(change, places)?;
            }
        }
    }

    fn apply(&mut self, change: Change, places: &[usize]) -> Result<()> {
        ensure!(change.number > self.number, "change {} comes after {}", change.number, self.number);
        self.number = change.number;
        match change.what {
            What::All => (self.state, self.sum) = (State::new(), 0),
            What::Row { gone, come } => {
                if let Some(key) = gone {
                    let Some(cells) = self.state.remove(&key) else {
                        bail!("change {} takes {key:?} away, which is not there", change.number);
                    };
                    self.sum = self.sum.wrapping_sub(hash(&cells));
                }
                if let Some(cells) = come {
                    self.sum = self.sum.wrapping_add(hash(&cells));
                    let key = key_of(&cells, places)?;
                    ensure!(self.state.insert(key, cells).is_none(), "change {} adds a key again", change.number);
                }
            }
        }
        Ok(())
    }
}

fn sum_of(state: &State) -> u128 {
    state.values().fold(0, |sum, cells| sum.wrapping_add(hash(cells)))
}

fn hash(cells: &[Value]) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        cells.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source_table::{Kind, SourceColumn};

    fn oracle() -> Oracle {
        let column = |(name, kind): (&str, &str)| SourceColumn {
            name: name.to_owned(),
            kind: Kind::Scalar(kind.to_owned(), -1),
        };
        let columns = [("id", "int8"), ("v", "text")].map(column).into();
        Oracle::new(SourceTable { name: "t".to_owned(), columns, key: vec!["id".to_owned()] }).unwrap()
    }

    fn row(id: &str, v: &str) -> Vec<Value> {
        vec![json!(id), json!(v)]
    }

    fn change(number: i64, gone: &str, come: Option<(&str, &str)>) -> Change {
        let gone = (!gone.is_empty()).then(|| vec![gone.to_owned()]);
        Change { number, what: What::Row { gone, come: come.map(|(id, v)| row(id, v)) } }
    }

    /// Rows come, one changes, one moves to another key, all go, one comes again and goes.
    fn changes() -> Vec<Change> {
        vec![
            change(1, "", Some(("1", "a"))),
            change(2, "", Some(("2", "b"))),
            // Numbers are left out where a transaction was rolled back.
            change(5, "1", Some(("1", "c"))),
            change(6, "1", Some(("3", "d"))),
            Change { number: 7, what: What::All },
            change(8, "", Some(("1", "e"))),
            change(9, "1", None),
        ]
    }

    /// Two at a time.
    fn more(after: i64) -> Result<Vec<Change>> {
        Ok(changes().into_iter().filter(|change| change.number > after).take(2).collect())
    }

    #[test]
    fn every_point_is_found() {
        let mut oracle = oracle();
        assert_eq!(oracle.see(vec![], more).unwrap(), 0);
        assert_eq!(oracle.see(vec![row("2", "b"), row("1", "a")], more).unwrap(), 2);
        assert_eq!(oracle.see(vec![row("1", "c"), row("2", "b")], more).unwrap(), 5);
        assert_eq!(oracle.see(vec![row("1", "c"), row("2", "b")], more).unwrap(), 5);
        assert_eq!(oracle.see(vec![row("3", "d"), row("2", "b")], more).unwrap(), 6);
        // Empty at first after 7; to be empty again after 9 is no step back.
        assert_eq!(oracle.see(vec![], more).unwrap(), 7);
        assert_eq!(oracle.see(vec![row("1", "e")], more).unwrap(), 8);
        assert_eq!(oracle.see(vec![], more).unwrap(), 9);
    }

    #[test]
    fn each_fault_is_seen() {
        let refused = |seen: Vec<Vec<Vec<Value>>>| {
            let mut oracle = oracle();
            let (last, before) = seen.split_last().unwrap();
            for rows in before {
                oracle.see(rows.clone(), more).unwrap();
            }
            oracle.see(last.clone(), more).unwrap_err().to_string()
        };
        // A commit goes back.
        refused(vec![vec![row("1", "c"), row("2", "b")], vec![row("1", "a"), row("2", "b")]]);
        // A step is left out.
        let said = refused(vec![vec![row("1", "c")]]);
        assert!(said.contains("after 5,") && said.contains("key [\"2\"]: missing"), "{said}");
        // Half of a change of a key: gone there and not yet here, and here and still there.
        refused(vec![vec![row("2", "b")]]);
        let said = refused(vec![vec![row("1", "c"), row("2", "b"), row("3", "d")]]);
        assert!(said.contains("after 6,") && said.contains("key [\"1\"]: too much"), "{said}");
        // What was deleted has come again, beside the row that came later.
        refused(vec![vec![row("2", "b"), row("1", "e")]]);
        let said = refused(vec![vec![row("1", "a"), row("1", "c"), row("2", "b")]]);
        assert!(said.contains("[\"1\"] is there twice"), "{said}");
        // A cell of none of its rows.
        let said = refused(vec![vec![row("1", "c"), row("2", "B")]]);
        assert!(said.contains("expected \"b\", found \"B\""), "{said}");
    }
}
