//! What the steps of the keys that are followed come to, with what the table holds of these keys.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::TimestampMicrosecondType;
use philotes_sdk::batch::{LSN, RESERVED_PREFIX, TIMESTAMP};
use philotes_sdk::{Error, Result};

use super::moves::{Act, Before, Placed};
use super::pending::Lacking;
use super::stage::{ChangedKeys, Place, Stage, State, is_deleted};
use super::unsent::failed;

/// What a table holds of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeldRows {
    /// One row, or none: it was not looked for, because it does not matter.
    Unknown,
    /// These rows, by their places among those that were found, from the oldest to the newest.
    Known(Vec<usize>),
}

/// What the keys that are followed come to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Keys of which all rows that the table holds are removed.
    pub(crate) removed: Vec<ChangedKeys>,
    /// Keys of which rows are written, and none is removed.
    pub(crate) added: Vec<ChangedKeys>,
    /// The rows that are written.
    pub(crate) rows: VecDeque<RecordBatch>,
    /// By how many the rows that share a key with a newer one become more.
    pub(crate) displaced: i64,
    /// Rows that lack a value; nothing of them is written.
    pub(crate) lacking: Vec<Lacking>,
    /// Where they are.
    refused: Vec<Place>,
}

/// How many rows share their keys with newer ones.
fn displaced(keys: &[Rows]) -> i64 {
    let displaced = |rows: &Rows| i64::try_from(rows.live.len().saturating_sub(1)).unwrap_or(i64::MAX);
    keys.iter().map(displaced).sum()
}

/// A row, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Row {
    /// The table's, if it holds one.
    Unknown,
    /// One that was found in the table.
    Table(usize),
    Stage(Place),
}

/// The rows of a key.
#[derive(Clone, Debug, Default)]
struct Rows {
    live: Vec<Row>,
    /// The last row that was deleted, where such rows stay.
    deleted: Option<Row>,
}

struct Follow<'a> {
    stage: &'a Stage,
    found: &'a RecordBatch,
    soft: bool,
    /// By row and column: whose value a cell has that was not sent.
    cells: HashMap<(Place, usize), Row>,
    keys: Vec<Rows>,
}

impl Stage {
    /// Follows the steps. `found` are the rows that were found in the table, with all of its columns; `held` says which of them
    /// are of each key that is followed.
    pub(crate) fn outcome(&self, found: &RecordBatch, held: &[HeldRows]) -> Result<Outcome> {
        if self.moves.is_empty() {
            return Ok(Outcome::default());
        }
        let mut follow = Follow { stage: self, found, soft: self.is_soft(), cells: HashMap::new(), keys: Vec::new() };
        let in_table: Vec<Rows> = held.iter().map(|held| follow.in_table(held)).collect();
        let mut outcome = Outcome { displaced: -displaced(&in_table), ..Outcome::default() };
        follow.keys = in_table;
        for (key, before) in self.moves.before.iter().enumerate() {
            follow.begin(key, *before);
        }
        let mut removed = None;
        for placed in &self.moves.steps {
            removed = follow.step(placed, removed, &mut outcome);
        }
        outcome.displaced += displaced(&follow.keys);
        follow.write(held, &mut outcome)?;
        Ok(outcome)
    }

    /// Rows that lack a value have become letters; they are not met again.
    pub(crate) fn refuse_lacking(&mut self, outcome: &Outcome) {
        let refused = self.moves.steps.iter_mut().filter(|placed| outcome.refused.contains(&placed.place));
        refused.for_each(|placed| placed.step.act = Act::Refused);
    }
}

impl Follow<'_> {
    /// What came before a key's first step in the stage has taken the place of what the table holds.
    fn begin(&mut self, key: usize, before: Before) {
        let row = |place: Place| {
            let is_there = self.stage.parts()[place.part].states[place.row] != State::Gone;
            is_there.then_some(Row::Stage(place))
        };
        let rows = match before {
            Before::Table => return,
            Before::Row(place) => Rows { live: row(place).into_iter().collect(), deleted: None },
            Before::Deleted(place) => Rows { live: Vec::new(), deleted: row(place) },
            Before::Nothing => Rows::default(),
        };
        self.keys[key] = rows;
    }

    fn in_table(&self, held: &HeldRows) -> Rows {
        match held {
            HeldRows::Unknown => Rows { live: vec![Row::Unknown], deleted: None },
            HeldRows::Known(places) => {
                let is_deleted = |place: &usize| self.soft && is_deleted(self.found, *place);
                let (deleted, live): (Vec<usize>, Vec<usize>) = places.iter().partition(|place| is_deleted(place));
                let mut live: Vec<Row> = live.into_iter().map(Row::Table).collect();
                self.sort(&mut live);
                Rows { live, deleted: deleted.last().copied().map(Row::Table) }
            }
        }
    }

    /// Brings rows into the order in which they were written, if they say it; files need not have it.
    fn sort(&self, rows: &mut [Row]) {
        let positions: Option<Vec<Position>> = rows.iter().map(|row| self.position(*row)).collect();
        let Some(positions) = positions else { return };
        if positions.iter().all(|position| position.lsn.is_some()) {
            rows.sort_by_key(|row| self.position(*row).and_then(|position| position.lsn));
        } else if positions.iter().all(|position| position.micros.is_some()) {
            rows.sort_by_key(|row| self.position(*row).and_then(|position| position.micros));
        }
    }

    /// Takes a step. `before`: the row that the step before it has deleted. Gives back the one that this has deleted.
    fn step(&mut self, placed: &Placed, before: Option<Row>, outcome: &mut Outcome) -> Option<Row> {
        let Placed { step, key, place } = placed;
        let row = Row::Stage(*place);
        match step.act {
            Act::Delete => {
                let removed = self.described(placed).map(|at| self.keys[*key].live.remove(at));
                if self.soft && self.keys[*key].live.is_empty() {
                    if let Some(from) = removed {
                        self.take_values(*place, &step.unsent, from);
                    }
                    self.keys[*key].deleted = Some(row);
                }
                return removed;
            }
            Act::Put => {
                let last = self.keys[*key].live.last().copied();
                if self.complete(placed, last, outcome) {
                    self.keys[*key].live.pop();
                    self.keys[*key].live.push(row);
                }
            }
            Act::Refused => {}
            Act::MoveIn { beside } => {
                let here = self.keys[*key].live.last().copied();
                let moves = here.is_none_or(|here| beside && self.is_newer(row, here, before.is_some()));
                let from = if moves { before.or(here) } else { here };
                if self.complete(placed, from, outcome) {
                    if !moves {
                        self.keys[*key].live.pop();
                    }
                    self.keys[*key].live.push(row);
                }
            }
        }
        None
    }

    /// Which of the key's rows a DELETE removes: the first that it describes, else the first.
    fn described(&self, placed: &Placed) -> Option<usize> {
        let live = &self.keys[placed.key].live;
        if live.len() < 2 {
            return (!live.is_empty()).then_some(0);
        }
        let fields = self.stage.schema().fields().iter().enumerate();
        let told = fields.filter(|(column, field)| {
            !field.name().starts_with(RESERVED_PREFIX)
                && !self.stage.key().contains(column)
                && !placed.step.unsent.contains(column)
        });
        let told: Vec<usize> = told.map(|(column, _)| column).collect();
        let row = Row::Stage(placed.place);
        let same = |other: &Row| told.iter().all(|column| self.is_equal(row, *other, *column));
        Some(live.iter().position(|other| !told.is_empty() && same(other)).unwrap_or(0))
    }

    fn is_equal(&self, one: Row, other: Row, column: usize) -> bool {
        let cell = |row| self.cell(row, column).map(|(array, at)| array.slice(at, 1));
        cell(one).is_some_and(|one| cell(other).is_some_and(|other| one == other))
    }

    /// Whether a row that moves to a key is newer than the one there. Where neither says when it was written, it is if there was a
    /// row that moved.
    fn is_newer(&self, row: Row, here: Row, has_moved: bool) -> bool {
        let (Some(row), Some(here)) = (self.position(row), self.position(here)) else { return has_moved };
        match (row.lsn.zip(here.lsn), row.micros.zip(here.micros)) {
            (Some((row, here)), _) => row > here,
            (None, Some((row, here))) if row != here => row > here,
            _ => has_moved,
        }
    }

    /// Where and when a row was written, as far as it says.
    fn position(&self, row: Row) -> Option<Position> {
        let column = |name| self.stage.schema().index_of(name).ok().and_then(|column| self.cell(row, column));
        let text = |(array, at): (&ArrayRef, usize)| {
            let texts = array.as_string_opt::<i32>().filter(|texts| texts.is_valid(at));
            texts.and_then(|texts| lsn(texts.value(at)))
        };
        let micros = |(array, at): (&ArrayRef, usize)| {
            let times = array.as_primitive_opt::<TimestampMicrosecondType>().filter(|times| times.is_valid(at));
            times.map(|times| times.value(at))
        };
        if matches!(row, Row::Unknown) {
            return None;
        }
        Some(Position { lsn: column(LSN).and_then(text), micros: column(TIMESTAMP).and_then(micros) })
    }

    /// Gives a row the values that were not sent; `false` where there are none, and nothing becomes of it.
    fn complete(&mut self, placed: &Placed, from: Option<Row>, outcome: &mut Outcome) -> bool {
        match (from, placed.step.unsent.first(), &placed.step.whence) {
            (Some(from), ..) => self.take_values(placed.place, &placed.step.unsent, from),
            (None, Some(column), Some(whence)) => {
                outcome.lacking.push(Lacking { whence: whence.clone(), column: *column });
                outcome.refused.push(placed.place);
                return false;
            }
            (None, ..) => {}
        }
        true
    }

    fn take_values(&mut self, place: Place, columns: &[usize], from: Row) {
        for column in columns {
            let source = match from {
                Row::Stage(place) => self.cells.get(&(place, *column)).copied().unwrap_or(from),
                Row::Unknown | Row::Table(_) => from,
            };
            self.cells.insert((place, *column), source);
        }
    }

    /// A cell: its array, and its row in it.
    fn cell(&self, row: Row, column: usize) -> Option<(&ArrayRef, usize)> {
        let own = match row {
            Row::Stage(place) => self.cells.get(&(place, column)).copied().unwrap_or(row),
            Row::Unknown | Row::Table(_) => row,
        };
        match own {
            Row::Unknown => None,
            Row::Table(at) => Some((self.found.column(column), at)),
            Row::Stage(Place { part, row }) => Some((self.stage.parts()[part].rows.column(column), row)),
        }
    }

    /// Says what is removed and what is written.
    fn write(&self, held: &[HeldRows], outcome: &mut Outcome) -> Result<()> {
        let (mut removed, mut added, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (key, (after, held)) in self.keys.iter().zip(held).enumerate() {
            let staying: Vec<Row> = match after.live.as_slice() {
                [] => after.deleted.into_iter().collect(),
                live => live.to_vec(),
            };
            let kept = staying.iter().filter(|row| !matches!(row, Row::Stage(_))).count();
            let removes = match held {
                HeldRows::Unknown => kept == 0,
                HeldRows::Known(held) => kept < held.len(),
            };
            let written: Vec<Row> = staying.into_iter().filter(|row| removes || matches!(row, Row::Stage(_))).collect();
            if removes {
                removed.push((key, !written.is_empty()));
            } else if !written.is_empty() {
                added.push((key, true));
            }
            rows.extend(written);
        }
        outcome.removed.extend(self.changed(&removed)?);
        outcome.added.extend(self.changed(&added)?);
        rows.sort_unstable();
        if !rows.is_empty() {
            outcome.rows.push_back(self.rows(&rows)?);
        }
        Ok(())
    }

    fn changed(&self, keys: &[(usize, bool)]) -> Result<Option<ChangedKeys>> {
        if keys.is_empty() {
            return Ok(None);
        }
        let all = self.stage.moves.keys();
        let bytes: Vec<Arc<[u8]>> = keys.iter().map(|(key, _)| all[*key].into()).collect();
        let live = keys.iter().map(|(_, live)| *live).collect();
        Ok(Some(ChangedKeys { columns: self.stage.key_columns(&bytes)?, inserted: vec![false; keys.len()], live }))
    }

    fn rows(&self, rows: &[Row]) -> Result<RecordBatch> {
        let schema = self.stage.schema();
        let column = |column: usize| {
            let staged = self.stage.parts().iter().map(|part| part.rows.column(column));
            let arrays: Vec<&dyn Array> =
                std::iter::once(self.found.column(column)).chain(staged).map(|a| a.as_ref()).collect();
            let sources = rows.iter().map(|row| {
                let own = match row {
                    Row::Stage(place) => self.cells.get(&(*place, column)).unwrap_or(row),
                    Row::Unknown | Row::Table(_) => row,
                };
                match own {
                    Row::Unknown => Err(Error::internal("a row of the table that was not looked up")),
                    Row::Table(at) => Ok((0, *at)),
                    Row::Stage(place) => Ok((1 + place.part, place.row)),
                }
            });
            interleave(&arrays, &sources.collect::<Result<Vec<_>>>()?).map_err(failed)
        };
        let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(schema.clone(), columns).map_err(failed)
    }
}

#[derive(Clone, Copy, Debug)]
struct Position {
    lsn: Option<u64>,
    micros: Option<i64>,
}

/// PostgreSQL's position in its log, such as `16/B374D848`.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(part(high)? << 32 | part(low)?)
}
