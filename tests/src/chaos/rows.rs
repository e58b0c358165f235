//! What happens to the rows of an upsert table in the chaos, and what they come to.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::PART;
use crate::readers::{Reader, Table};

/// What a moved row's key is raised by.
const AWAY: i64 = 1_000_000;

/// A row without its key.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    v: i64,
    /// The column that is renamed with every part.
    renamed: i64,
    /// The column that is not always sent.
    big: Option<String>,
    /// It was deleted, where deleted rows stay.
    gone: bool,
}

/// The rows as the events so far make them.
pub(super) struct Rows {
    rows: BTreeMap<i64, Row>,
    /// Deleted rows stay.
    soft: bool,
}

/// A row of the buffer to be.
pub(super) struct Event {
    pub(super) operation: &'static str,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// One part's changes as they are made.
struct Changes<'a> {
    rows: &'a mut BTreeMap<i64, Row>,
    soft: bool,
    /// What the renamed column is called in this part.
    renamed: &'a str,
    events: Vec<Event>,
}

impl Rows {
    pub(super) fn new(soft: bool) -> Self {
        Self { rows: BTreeMap::new(), soft }
    }

    /// New rows and changes of those of the parts before, with everything that can happen to a key; now and then nothing is left
    /// of what was there.
    pub(super) fn change(&mut self, part: i64, renamed: &str) -> Vec<Event> {
        let mut changes = Changes { rows: &mut self.rows, soft: self.soft, renamed, events: Vec::new() };
        // A TRUNCATE and rows that stay exclude each other.
        if part % 5 == 1 && !self.soft {
            changes.truncate();
        }
        let new = part * PART + 1..=(part + 1) * PART;
        for id in new.clone() {
            changes.insert(id, 1, Some(&format!("as inserted in part {part}")));
        }
        for id in new.clone().filter(|id| id % 5 == 4) {
            // Most probably in one commit with its INSERT.
            changes.update(id, 2, None);
            changes.update(id, 3, None);
        }
        for id in new.filter(|id| id % 5 == 3) {
            changes.delete(id);
            changes.insert(id, 4, Some("again"));
        }
        changes.insert(-part, 5, Some("for a moment"));
        changes.delete(-part);
        for id in (part - 1) * PART + 1..=part * PART {
            changes.update(id, 6, (id % 2 == 0).then_some(part));
            match id % 10 {
                1 | 6 => changes.delete(id),
                2 => changes.give_key(id, id + AWAY),
                // To the key that the row before it has just had.
                7 => changes.give_key(id, id - 1),
                _ => {}
            }
        }
        for id in (part - 2) * PART + 1..=(part - 1) * PART {
            changes.update(id + AWAY, 7, Some(part));
            if id % 10 == 1 && !changes.is_there(id) && id > 0 {
                changes.insert(id, 8, None);
            }
        }
        changes.events
    }

    /// Keys that are there in the end of a part: nothing else happens to the one in it, the other one was changed in it.
    pub(super) fn keys_of(part: i64) -> [i64; 2] {
        [part * PART + 5, part * PART + 4]
    }

    /// Fails where a reader finds anything else; the renamed column has this name now.
    pub(super) fn expect(&self, reader: Reader, table: &Table, renamed: &str) -> Result<()> {
        let gone = if self.soft { "_cdc_deleted" } else { "false" };
        let sql = format!("select id, v, {renamed}, big, {gone} from t order by id, v");
        let number = |cell: &Value| cell.as_str()?.parse::<i64>().ok();
        let row = |row: &Vec<Value>| {
            let [id, v, renamed, big, gone] = &row[..] else { return None };
            let (v, renamed, gone) = (number(v)?, number(renamed)?, gone.as_str()?.parse().ok()?);
            Some((number(id)?, Row { v, renamed, big: big.as_str().map(str::to_owned), gone }))
        };
        let rows = reader.query(table, &sql)?.rows;
        let found = rows.iter().map(|cells| row(cells).with_context(|| format!("{cells:?} is no row")));
        let found: Vec<(i64, Row)> = found.collect::<Result<_>>()?;
        let expected: Vec<(i64, Row)> = self.rows.clone().into_iter().collect();
        let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
        let others: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
        let (rows, wanted) = (found.len(), expected.len());
        ensure!(found == expected, "{rows} rows of {wanted}; missing: {missing:?}, instead: {others:?}");
        Ok(())
    }
}

impl Changes<'_> {
    fn event(&mut self, operation: &'static str, before: Option<Value>, after: Option<Value>) {
        self.events.push(Event { operation, before, after });
    }

    fn truncate(&mut self) {
        self.rows.clear();
        self.event("TRUNCATE", None, None);
    }

    fn is_there(&self, id: i64) -> bool {
        self.rows.get(&id).is_some_and(|row| !row.gone)
    }

    /// An INSERT has every column: what it does not name is NULL.
    fn insert(&mut self, id: i64, v: i64, big: Option<&str>) {
        let mut row = json!({"id": id, "v": v, self.renamed: id});
        if let Some(big) = big {
            row["big"] = json!(big);
        }
        self.rows.insert(id, Row { v, renamed: id, big: big.map(str::to_owned), gone: false });
        self.event("INSERT", None, Some(row));
    }

    /// An UPDATE that sends `big` never, and the renamed column where it is changed.
    fn update(&mut self, id: i64, v: i64, renamed: Option<i64>) {
        let Some(row) = self.rows.get_mut(&id).filter(|row| !row.gone) else { return };
        let mut after = json!({"id": id, "v": v});
        row.v = v;
        if let Some(value) = renamed {
            row.renamed = value;
            after[self.renamed] = json!(value);
        }
        self.event("UPDATE", None, Some(after));
    }

    /// A DELETE of which the key alone is told.
    fn delete(&mut self, id: i64) {
        if self.is_there(id) {
            self.remove(id);
            self.event("DELETE", Some(json!({"id": id})), None);
        }
    }

    fn remove(&mut self, id: i64) {
        if !self.soft {
            self.rows.remove(&id);
        } else if let Some(row) = self.rows.get_mut(&id) {
            row.gone = true;
        }
    }

    /// Only the row before has what does not change but the key.
    fn give_key(&mut self, id: i64, other: i64) {
        let Some(row) = self.rows.get(&id).filter(|row| !row.gone).cloned() else { return };
        let before = json!({"id": id, "v": row.v, self.renamed: row.renamed, "big": row.big});
        self.remove(id);
        self.rows.insert(other, row);
        self.event("UPDATE", Some(before), Some(json!({"id": other})));
    }
}
