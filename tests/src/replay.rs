//! The log of changes, replayed: what a table of changes says that its source table must hold now, cell by cell.
//!
//! Both sides are brought into the form of `readers/protocol.py`: the source's by SQL in PostgreSQL ([`SourceTable`]), so that
//! no code is shared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::readers::Rows;
use crate::source_table::{SourceTable, key_of};

/// A table's rows by key; the cells in the order of the table's columns.
pub type State = BTreeMap<Vec<String>, Vec<Value>>;

/// A change as a table of changes has it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The row's key.
    pub key: Vec<String>,
    /// Where in PostgreSQL's log it stands.
    pub position: u64,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub operation: String,
    /// The cells, in the order of the source table's columns.
    pub cells: Vec<Value>,
}

/// The changes that a reader found, each key's in the order of their positions.
///
/// # Errors
/// When a row has no position, or two rows of one key have the same.
pub fn changes(log: Rows, table: &SourceTable) -> Result<Vec<Change>> {
    let places: Vec<usize> = table.names().map(|name| log.index(name)).collect::<Result<_>>()?;
    let (lsn, operation) = (log.index("_cdc_lsn")?, log.index("_cdc_operation")?);
    let key_places = table.key_places()?;
    let change = |mut row: Vec<Value>| {
        let position = position(&row[lsn])?;
        let operation = row[operation].as_str().context("no operation")?.to_owned();
        let cells: Vec<Value> = places.iter().map(|place| row[*place].take()).collect();
        Ok(Change { key: key_of(&cells, &key_places)?, position, operation, cells })
    };
    let mut changes: Vec<Change> = log.rows.into_iter().map(change).collect::<Result<_>>()?;
    changes.sort_by(|a, b| (&a.key, a.position).cmp(&(&b.key, b.position)));
    for pair in changes.windows(2) {
        if !pair[0].key.is_empty() && pair[0].key == pair[1].key && pair[0].position == pair[1].position {
            bail!("two changes of key {:?} at the same position", pair[0].key);
        }
    }
    Ok(changes)
}

/// What changes say that the table holds: each key's last one, without the deleted.
///
/// # Errors
/// When an operation is none that a row has.
pub fn state_of(changes: impl IntoIterator<Item = Change>) -> Result<State> {
    let mut state = State::new();
    for Change { key, operation, cells, .. } in changes {
        match operation.as_str() {
            "INSERT" | "UPDATE" => state.insert(key, cells),
            "DELETE" => state.remove(&key),
            other => bail!("an operation {other:?}"),
        };
    }
    Ok(state)
}

/// A PostgreSQL position `X/Y`, as a number.
///
/// # Errors
/// When it is none.
pub fn position(lsn: &Value) -> Result<u64> {
    let parse = |text: &str| {
        let (high, low) = text.split_once('/')?;
        Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
    };
    lsn.as_str().and_then(parse).with_context(|| format!("{lsn} is no position in PostgreSQL's log"))
}

/// Where two states of a table differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Vec<String>,
    /// What is different there.
    pub what: What,
}

/// What is different in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was not found.
    Missing,
    /// It was found and should not have been.
    TooMuch,
    /// A cell.
    Cell {
        /// Its column.
        column: String,
        /// What PostgreSQL has.
        expected: Value,
        /// What a reader found.
        found: Value,
    },
}

impl Difference {
    /// The column, unless it is the whole row.
    #[must_use]
    pub fn column(&self) -> Option<&str> {
        match &self.what {
            What::Cell { column, .. } => Some(column),
            What::Missing | What::TooMuch => None,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.column().is_some() { "," } else { ":" };
        write!(f, "{}, key {:?}{between} {}", self.table, self.key, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::TooMuch => f.write_str("too much"),
            Self::Cell { column, expected, found } => {
                write!(f, "column {column:?}: expected {}, found {}", short(expected), short(found))
            }
        }
    }
}

/// A cell as an assertion shows it: long ones only in part.
fn short(cell: &Value) -> String {
    let text = cell.to_string();
    if text.len() <= 300 {
        text
    } else {
        format!("{}… ({} bytes)", text.chars().take(300).collect::<String>(), text.len())
    }
}

/// All differences between what PostgreSQL holds in a table and what was found.
#[must_use]
pub fn differences(table: &SourceTable, expected: &State, found: &State) -> Vec<Difference> {
    let at = |key: &Vec<String>, what| Difference { table: table.name.clone(), key: key.clone(), what };
    let mut all = Vec::new();
    for (key, cells) in expected {
        let Some(others) = found.get(key) else {
            all.push(at(key, What::Missing));
            continue;
        };
        for ((column, expected), found) in table.names().zip(cells).zip(others) {
            if expected != found {
                let (expected, found) = (expected.clone(), found.clone());
                all.push(at(key, What::Cell { column: column.to_owned(), expected, found }));
            }
        }
    }
    all.extend(found.keys().filter(|key| !expected.contains_key(*key)).map(|key| at(key, What::TooMuch)));
    all
}

/// Fails where two states of a table differ.
///
/// # Errors
/// Says how many differences there are, and the first of each column.
pub fn expect_equal(table: &SourceTable, expected: &State, found: &State) -> Result<()> {
    expect_none(&differences(table, expected, found))
}

/// Fails where there are differences.
///
/// # Errors
/// Says how many they are, and the first of each column.
pub fn expect_none(all: &[Difference]) -> Result<()> {
    let mut columns = BTreeSet::new();
    let first: Vec<String> = all.iter().filter(|one| columns.insert(one.column())).map(Difference::to_string).collect();
    ensure!(all.is_empty(), "{} differences, among them\n{}", all.len(), first.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_table::{Kind, SourceColumn};
    use serde_json::json;

    fn log(rows: &[(&str, &str, &str, Option<&str>)]) -> Rows {
        Rows {
            columns: ["id", "_cdc_operation", "_cdc_lsn", "v"].map(str::to_owned).into(),
            rows: rows.iter().map(|(id, op, lsn, v)| vec![json!(id), json!(op), json!(lsn), json!(v)]).collect(),
        }
    }

    fn table() -> SourceTable {
        let column = |(name, kind): (&str, &str)| SourceColumn {
            name: name.to_owned(),
            kind: Kind::Scalar(kind.to_owned(), -1),
        };
        let columns = [("id", "int4"), ("v", "text")].map(column).into();
        SourceTable { name: "t".to_owned(), columns, key: vec!["id".to_owned()] }
    }

    #[test]
    fn the_last_change_of_a_key_wins() {
        let rows = log(&[
            ("1", "UPDATE", "0/10", Some("later")),
            ("1", "INSERT", "0/9", Some("1")),
            ("2", "INSERT", "0/A", None),
            ("2", "DELETE", "1/0", None),
        ]);
        let state = state_of(changes(rows, &table()).unwrap()).unwrap();
        let key = vec!["1".to_owned()];
        let expected = State::from([(key.clone(), vec![json!("1"), json!("later")])]);
        assert_eq!(differences(&table(), &expected, &state), []);
        let whats = |expected: &State, found: &State| {
            differences(&table(), expected, found).into_iter().map(|d| d.what).collect::<Vec<_>>()
        };
        assert_eq!(whats(&State::new(), &state), [What::TooMuch]);
        assert_eq!(whats(&expected, &State::new()), [What::Missing]);
        let other = State::from([(key, vec![json!("1"), json!("late")])]);
        let said = expect_equal(&table(), &other, &state).unwrap_err().to_string();
        assert!(said.contains("t, key [\"1\"], column \"v\": expected \"late\", found \"later\""), "{said}");
    }

    #[test]
    fn a_doubled_change_is_seen() {
        let rows = log(&[("1", "INSERT", "0/9", None), ("1", "INSERT", "0/9", None)]);
        assert!(changes(rows, &table()).is_err());
    }
}
