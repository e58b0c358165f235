//! Keys that are followed step by step, because a row has changed its key to one of them or away from it.
//!
//! A DEFERRABLE key may be held twice until its transaction ends: `SET id = id + 1`, or two rows that change places.
//! Each such change comes as the DELETE of the old key and the INSERT of the new one, so a DELETE may name a key that
//! another row has moved to just before. One row that moves twice sends the same changes. They are told apart by the
//! rows that the key has had:
//!
//! - A row that moves to a key that is held is put *beside* the row there, in the table too, where a commit falls
//!   between the two changes. The table then holds the key twice, as its source did, and says so in a property.
//! - A DELETE removes the row that it describes, else the one that has been at the key for longest.
//! - A move that is not newer than the row at its key is a repetition, and takes that row's place.
//!
//! The model `moves` in tests/model has the counterexample of each part. Other keys are not followed: of them the
//! last change wins, and nothing is looked up.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::row::Rows;

use super::marks::{Marks, Operation};
use super::pending::Whence;
use super::stage::Place;

/// What a step does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Takes the place of the key's newest row.
    Put,
    Delete,
    /// Comes from the key of the step before, which has deleted it there. `beside`: a row that is here stays.
    MoveIn {
        beside: bool,
    },
    /// Nothing: it lacks a value, and has become a dead letter.
    Refused,
}

/// A change of a key that is followed.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) act: Act,
    /// The places of the columns whose values were not sent.
    pub(super) unsent: Vec<usize>,
    /// Which row it is, where values were not sent.
    pub(super) whence: Option<Whence>,
}

impl Step {
    /// Memory that it holds beside its row, which is one of `rows` of its batch.
    pub(super) fn bytes(&self, rows: usize) -> usize {
        let batch = self.whence.as_ref().map_or(0, |whence| whence.batch.bytes() / rows.max(1));
        2 * size_of::<Self>() + self.unsent.len() * size_of::<usize>() + batch
    }
}

/// The steps among the rows of a batch, by row.
pub(super) type Steps = BTreeMap<usize, Step>;

/// Which rows of a batch are steps of keys that are followed: those that already are, as `follows` says, and those that a
/// row of the batch moves to or from.
pub(super) fn steps(
    keys: &Rows,
    marks: &Marks,
    follows: impl Fn(&[u8]) -> bool,
    column_of: impl Fn(&str) -> Option<usize>,
    whence: impl Fn(usize) -> Whence,
) -> Steps {
    let key = |row: usize| keys.row(row).data();
    let moves_in = |row: usize| row > 0 && marks.rows[row].moved && key(row - 1) != key(row);
    let mut followed: HashSet<&[u8]> = HashSet::new();
    let mut steps = Steps::new();
    for (row, mark) in marks.rows.iter().enumerate() {
        let leaves = row + 1 < marks.rows.len() && moves_in(row + 1);
        if !(leaves || moves_in(row) || followed.contains(key(row)) || follows(key(row))) {
            continue;
        }
        followed.insert(key(row));
        let act = match mark.operation {
            Operation::Delete => Act::Delete,
            _ if moves_in(row) => Act::MoveIn { beside: mark.one_change },
            _ => Act::Put,
        };
        let names = marks.unsent.get(&row);
        let unsent: Vec<usize> = names.into_iter().flatten().filter_map(|name| column_of(name)).collect();
        let whence = (!unsent.is_empty()).then(|| whence(row));
        steps.insert(row, Step { act, unsent, whence });
    }
    steps
}

/// What came before the first step of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// What the table holds.
    Table,
    /// A row in the stage.
    Row(Place),
    /// A row in the stage that was deleted, and stays.
    Deleted(Place),
    /// Its deletion.
    Nothing,
}

/// A step with its place.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) step: Step,
    pub(super) key: usize,
    pub(super) place: Place,
}

/// The keys that are followed, and their steps in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    numbers: HashMap<Box<[u8]>, usize>,
    pub(super) before: Vec<Before>,
    pub(super) steps: Vec<Placed>,
}

impl Moves {
    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty()
    }

    pub(super) fn follows(&self, key: &[u8]) -> bool {
        self.numbers.contains_key(key)
    }

    pub(super) fn begin(&mut self, key: &[u8], before: Before) {
        self.numbers.insert(key.into(), self.before.len());
        self.before.push(before);
    }

    pub(super) fn push(&mut self, key: &[u8], place: Place, step: Step) {
        if let Some(key) = self.numbers.get(key).copied() {
            self.steps.push(Placed { step, key, place });
        }
    }

    /// Goes along with rows that have other places now.
    pub(super) fn follow(&mut self, moved: &HashMap<Place, Place>) {
        let places = self.steps.iter_mut().map(|placed| &mut placed.place);
        let before = self.before.iter_mut().filter_map(|before| match before {
            Before::Row(place) | Before::Deleted(place) => Some(place),
            Before::Table | Before::Nothing => None,
        });
        for place in places.chain(before) {
            if let Some(now) = moved.get(place) {
                *place = *now;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The keys' bytes, by their numbers.
    pub(super) fn keys(&self) -> Vec<&[u8]> {
        let mut keys: Vec<&[u8]> = vec![&[]; self.numbers.len()];
        self.numbers.iter().for_each(|(key, number)| keys[*number] = key);
        keys
    }

    /// For each key, whether it matters which row the table holds of it, if it may hold one: a row moves to it, or a value
    /// that was not sent is to come from it.
    pub(super) fn matters(&self, may_hold: &[bool]) -> Vec<bool> {
        let mut matters = vec![false; self.before.len()];
        for (at, placed) in self.steps.iter().enumerate() {
            let moves_in = matches!(placed.step.act, Act::MoveIn { .. });
            let lacks = !placed.step.unsent.is_empty();
            matters[placed.key] |= moves_in || lacks;
            if let Some(from) = at.checked_sub(1).map(|from| self.steps[from].key).filter(|_| moves_in) {
                matters[from] |= lacks || may_hold[placed.key];
            }
        }
        matters.iter().zip(may_hold).map(|(matters, may_hold)| *matters && *may_hold).collect()
    }
}
