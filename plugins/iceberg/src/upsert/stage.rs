//! Rows that wait for a commit, of which the last change of each key wins.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;
use philotes_sdk::{Error, Result};

use super::marks::{DELETED, Mark, Marks, Operation};
use super::moves::{Before, Moves, Steps};
use super::pending::{Pending, Whence};
use super::unsent::Unsent;
use crate::writer::memory_of;

/// Less memory than this is not worth clearing up.
const MIN_CLEARED_BYTES: usize = 4 << 20;

/// Rows of one state of a table's schema, each key's last change alive.
pub(crate) struct Stage {
    schema: SchemaRef,
    key: Vec<usize>,
    converter: RowConverter,
    /// Deleted rows stay.
    soft: bool,
    parts: Vec<Part>,
    /// Where each key's last change is.
    index: HashTable<Place>,
    hasher: RandomState,
    /// The keys that are followed step by step.
    pub(super) moves: Moves,
    bytes: usize,
    rows: usize,
    dead: usize,
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) part: usize,
    pub(super) row: usize,
}

/// Rows that came together, and what is known of each.
pub(crate) struct Part {
    pub(super) rows: RecordBatch,
    keys: Rows,
    pub(super) states: Vec<State>,
    /// By row, what waits for values of the table.
    pub(super) pending: BTreeMap<usize, Pending>,
    /// Whether the first change of the row's key, since the last commit, was an INSERT.
    inserted: Vec<bool>,
    /// By row, what is a step of a key that is followed.
    steps: Steps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The row is its key's last change, and will be written.
    Live,
    /// The row is its key's last change, and deletes it.
    Gone,
    /// A later change of its key has taken its place.
    Dead,
    /// What becomes of the row is found out when the stage is emptied: its key is followed step by step.
    Followed,
}

impl State {
    /// Whether the row may be written.
    pub(super) fn is_wanted(self) -> bool {
        matches!(self, Self::Live | Self::Followed)
    }
}

/// What a key's last change so far is to its first step.
fn first_of(parts: &[Part], soft: bool, before: Option<Place>) -> Before {
    let Some(before) = before else { return Before::Table };
    let part = &parts[before.part];
    match part.states[before.row] {
        State::Gone => Before::Nothing,
        _ if soft && is_deleted(&part.rows, before.row) => Before::Deleted(before),
        _ => Before::Row(before),
    }
}

/// Whether a row, of a table whose deleted rows stay, is one of these.
pub(super) fn is_deleted(rows: &RecordBatch, row: usize) -> bool {
    let column = rows.column_by_name(DELETED).and_then(|column| column.as_boolean_opt());
    column.is_some_and(|deleted| deleted.is_valid(row) && deleted.value(row))
}

/// Keys that were changed since the last commit, each once.
#[derive(Clone, Debug)]
pub(crate) struct ChangedKeys {
    /// The key's columns.
    pub(super) columns: RecordBatch,
    /// For each key, whether its first change was an INSERT.
    pub(super) inserted: Vec<bool>,
    /// For each key, whether a row of it will be written.
    pub(super) live: Vec<bool>,
}

impl ChangedKeys {
    /// Some of them.
    pub(super) fn only(&self, wanted: &BooleanArray) -> Result<Self> {
        let only = |flags: &[bool]| {
            let wanted = flags.iter().zip(wanted.values()).filter(|(_, wanted)| *wanted);
            wanted.map(|(flag, _)| *flag).collect()
        };
        Ok(Self {
            inserted: only(&self.inserted),
            live: only(&self.live),
            columns: filter_record_batch(&self.columns, wanted).map_err(failed)?,
        })
    }

    /// Those of rows that will be written.
    pub(super) fn written(&self) -> Result<RecordBatch> {
        filter_record_batch(&self.columns, &BooleanArray::from(self.live.clone())).map_err(failed)
    }
}

impl Stage {
    /// A stage for rows of this schema; `key` are the places of the key's columns.
    pub(crate) fn new(schema: &SchemaRef, key: &[usize], soft: bool) -> Result<Self> {
        let fields = key.iter().map(|place| SortField::new(schema.field(*place).data_type().clone())).collect();
        Ok(Self {
            schema: schema.clone(),
            key: key.to_vec(),
            converter: RowConverter::new(fields).map_err(failed)?,
            soft,
            parts: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            moves: Moves::default(),
            bytes: 0,
            rows: 0,
            dead: 0,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether the row of such a change is written.
    pub(super) fn keeps(&self, operation: Operation) -> bool {
        self.soft || operation != Operation::Delete
    }

    /// Whether deleted rows stay.
    pub(super) fn is_soft(&self) -> bool {
        self.soft
    }

    /// The keys that are followed step by step, each once; `None` where there are none.
    pub(crate) fn followed(&self) -> Result<Option<RecordBatch>> {
        if self.moves.is_empty() {
            return Ok(None);
        }
        let keys: Vec<Arc<[u8]>> = self.moves.keys().into_iter().map(Arc::from).collect();
        self.key_columns(&keys).map(Some)
    }

    /// For each of them, whether it matters which rows the table holds of it.
    pub(crate) fn matters(&self, may_hold: &[bool]) -> Vec<bool> {
        self.moves.matters(may_hold)
    }

    /// The stage's columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The places of the key's columns.
    pub(crate) fn key(&self) -> &[usize] {
        &self.key
    }

    /// The bytes that tell these rows' keys apart.
    pub(super) fn keys_of(&self, rows: &RecordBatch) -> Result<Rows> {
        let columns: Vec<_> = self.key.iter().map(|place| rows.column(*place).clone()).collect();
        self.converter.convert_columns(&columns).map_err(failed)
    }

    /// Memory that the rows hold, and as much again, which it takes to write them.
    pub(crate) fn buffered_bytes(&self) -> usize {
        2 * self.bytes
    }

    /// Makes rows ready to be pushed; what can fail of it is done. `follow_all`: all keys are followed step by step. `whence` says
    /// which row of the source's batch one is. For the others see [`Unsent::of`].
    pub(crate) fn part(
        &self,
        rows: RecordBatch,
        (marks, follow_all): (&Marks, bool),
        gone: (bool, bool),
        column_of: impl Fn(&str) -> Option<usize>,
        whence: impl Fn(usize) -> Whence,
    ) -> Result<Part> {
        let (mut rows, mut pending) = (rows, BTreeMap::new());
        let mut steps = Steps::new();
        if follow_all || marks.any_moved() || (!gone.0 && !self.moves.is_empty()) {
            let keys = self.keys_of(&rows)?;
            let follows = |key: &[u8]| follow_all || (!gone.0 && self.moves.follows(key));
            steps = super::moves::steps(&keys, marks, follows, &column_of, &whence);
        }
        if !marks.unsent.is_empty() {
            let (filled, cells) = Unsent::of(self, &rows, marks, gone, column_of, &steps)?.fill(self, &rows)?;
            rows = filled;
            let waits = |(row, cells): (usize, _)| {
                let deletes = marks.rows[row].operation == Operation::Delete;
                (row, Pending { cells, deletes, whence: whence(row) })
            };
            pending = cells.into_iter().map(waits).collect();
        }
        let state = |mark: &Mark| if self.keeps(mark.operation) { State::Live } else { State::Gone };
        Ok(Part {
            states: marks.rows.iter().map(state).collect(),
            inserted: marks.rows.iter().map(|mark| mark.operation == Operation::Insert).collect(),
            keys: self.keys_of(&rows)?,
            pending,
            steps,
            rows,
        })
    }

    /// Takes rows in, each in its key's place.
    pub(crate) fn push(&mut self, part: Part) -> Result<()> {
        self.bytes += part.bytes();
        self.parts.push(part);
        self.enter(self.parts.len() - 1);
        if self.bytes > MIN_CLEARED_BYTES && self.dead * 2 > self.rows { self.clear_up() } else { Ok(()) }
    }

    /// Enters the rows of a part into the index.
    fn enter(&mut self, number: usize) {
        let Self { parts, index, hasher, moves, soft, .. } = self;
        self.rows += parts[number].states.len();
        let mut steps = std::mem::take(&mut parts[number].steps);
        for row in 0..parts[number].states.len() {
            let key = parts[number].keys.row(row).data();
            let hash = hasher.hash_one(key);
            let same = |place: &Place| parts[place.part].keys.row(place.row).data() == key;
            let place = Place { part: number, row };
            let before = index.find_mut(hash, same).map(|entry| std::mem::replace(entry, place));
            if before.is_none() {
                index.insert_unique(hash, place, |place| hasher.hash_one(parts[place.part].keys.row(place.row).data()));
            }
            let Some(step) = steps.remove(&row) else {
                if let Some(before) = before {
                    let inserted = parts[before.part].inserted[before.row];
                    parts[before.part].states[before.row] = State::Dead;
                    parts[number].inserted[row] = inserted;
                    self.dead += 1;
                }
                continue;
            };
            let begins = !moves.follows(key);
            if begins {
                moves.begin(key, first_of(parts, *soft, before));
            }
            moves.push(key, place, step);
            if let Some(before) = before.filter(|_| begins) {
                let state = &mut parts[before.part].states[before.row];
                *state = if *state == State::Gone { State::Dead } else { State::Followed };
                self.dead += usize::from(*state == State::Dead);
            }
            parts[number].states[row] = State::Followed;
        }
    }

    /// Lets go of everything: the table is emptied, and what came before that is nothing any more.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.index.clear();
        self.moves.clear();
        (self.bytes, self.rows, self.dead) = (0, 0, 0);
    }

    /// Lets go of the rows that others have taken the place of.
    fn clear_up(&mut self) -> Result<()> {
        let parts =
            self.parts.iter().map(|part| part.only(|state| state != State::Dead)).collect::<Result<Vec<_>>>()?;
        let rows = concat_batches(&self.schema, &parts).map_err(failed)?;
        let kept = |part: &Part| {
            let alive = part.states.iter().zip(&part.inserted).filter(|(state, _)| **state != State::Dead);
            alive.map(|(state, inserted)| (*state, *inserted)).collect::<Vec<_>>()
        };
        let (states, inserted) = self.parts.iter().flat_map(kept).unzip();
        let (mut pending, mut next) = (BTreeMap::new(), 0);
        for part in &self.parts {
            for row in (0..part.states.len()).filter(|row| part.states[*row] != State::Dead) {
                pending.extend(part.pending.get(&row).map(|waits| (next, waits.clone())));
                next += 1;
            }
        }
        let places = self.parts.iter().enumerate().flat_map(|(part, rows)| {
            let alive = (0..rows.states.len()).filter(|row| rows.states[*row] != State::Dead);
            alive.map(move |row| Place { part, row })
        });
        let moved = places.enumerate().map(|(row, place)| (place, Place { part: 0, row })).collect();
        let part = Part { keys: self.keys_of(&rows)?, rows, states, pending, inserted, steps: Steps::new() };
        let mut moves = std::mem::take(&mut self.moves);
        moves.follow(&moved);
        self.clear();
        self.moves = moves;
        self.bytes = part.bytes();
        self.rows = part.states.len();
        self.parts.push(part);
        let Self { parts, index, hasher, .. } = self;
        let key = |place: &Place| parts[place.part].keys.row(place.row).data();
        for row in 0..parts[0].states.len() {
            let place = Place { part: 0, row };
            let hash = hasher.hash_one(key(&place));
            // Of a key that is followed there are several rows.
            match index.find_mut(hash, |other| key(other) == key(&place)) {
                Some(entry) => *entry = place,
                None => drop(index.insert_unique(hash, place, |place| hasher.hash_one(key(place)))),
            }
        }
        Ok(())
    }

    /// Where the last change of a key is, and whether it deletes it.
    pub(super) fn last(&self, key: &[u8]) -> Option<(Place, bool)> {
        let same = |place: &Place| self.parts[place.part].keys.row(place.row).data() == key;
        let place = *self.index.find(self.hasher.hash_one(key), same)?;
        Some((place, self.parts[place.part].states[place.row] == State::Gone))
    }

    /// A column of each of the parts.
    pub(super) fn columns(&self, column: usize) -> impl Iterator<Item = &ArrayRef> {
        self.parts.iter().map(move |part| part.rows.column(column))
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(super) fn parts_mut(&mut self) -> &mut [Part] {
        &mut self.parts
    }

    /// The key under which the table may have a cell's value, where it is the table that has it.
    pub(super) fn pending(&self, place: Place, column: usize) -> Option<Option<Arc<[u8]>>> {
        let pending = self.parts[place.part].pending.get(&place.row)?;
        pending.cells.iter().find(|(waiting, _)| *waiting == column).map(|(_, keys)| keys.clone())
    }

    /// What waits for values of the table and is still wanted.
    pub(super) fn live_pending(&self) -> impl Iterator<Item = &Pending> {
        self.parts.iter().flat_map(|part| {
            let live = part.pending.iter().filter(|(row, _)| part.states[**row].is_wanted());
            live.map(|(_, pending)| pending)
        })
    }

    /// The columns of these keys.
    pub(super) fn key_columns(&self, keys: &[Arc<[u8]>]) -> Result<RecordBatch> {
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(keys.iter().map(|key| parser.parse(key))).map_err(failed)?;
        let schema = Arc::new(self.schema.project(&self.key).map_err(failed)?);
        RecordBatch::try_new(schema, columns).map_err(failed)
    }

    /// The keys that were changed, but those that are followed step by step.
    pub(crate) fn changed(&self) -> Result<Vec<ChangedKeys>> {
        let changed = |part: &Part| {
            let all = ChangedKeys {
                columns: part.rows.project(&self.key).map_err(failed)?,
                inserted: part.inserted.clone(),
                live: part.states.iter().map(|state| *state == State::Live).collect(),
            };
            all.only(&part.states.iter().map(|state| Some(matches!(state, State::Live | State::Gone))).collect())
        };
        self.parts.iter().map(changed).collect()
    }

    /// The rows that are to be written, in the order in which they came; the stage is empty afterwards.
    pub(crate) fn take(&mut self) -> Result<VecDeque<RecordBatch>> {
        let live = self.parts.iter().map(|part| part.only(|state| state == State::Live));
        let live = live.filter(|rows| rows.as_ref().map_or(true, |rows| rows.num_rows() > 0)).collect::<Result<_>>()?;
        self.clear();
        Ok(live)
    }
}

impl Part {
    fn only(&self, wanted: impl Fn(State) -> bool) -> Result<RecordBatch> {
        if self.states.iter().all(|state| wanted(*state)) {
            return Ok(self.rows.clone());
        }
        let wanted: BooleanArray = self.states.iter().map(|state| Some(wanted(*state))).collect();
        filter_record_batch(&self.rows, &wanted).map_err(failed)
    }

    fn bytes(&self) -> usize {
        let kept: usize =
            self.pending.values().map(|pending| pending.whence.batch.bytes() / self.rows.num_rows()).sum();
        let followed: usize = self.steps.values().map(|step| step.bytes(self.rows.num_rows())).sum();
        memory_of(&self.rows) + self.keys.size() + self.states.len() * (2 + 2 * size_of::<Place>()) + kept + followed
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("rows", &self.rows).field("dead", &self.dead).finish_non_exhaustive()
    }
}

fn failed(error: ArrowError) -> Error {
    Error::internal("rows cannot be told apart by their key").with_source(error)
}
