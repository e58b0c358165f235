//! Mode upsert: a table that holds the rows of its source as they are now, one per key.
//!
//! Rows wait in a [`Stage`], where the last change of each key wins, until the table is committed. Then the rows that are left go
//! into data files, and [`Removal`] sees to it that what the table holds of their keys, and of the keys that are gone, is
//! removed in the same commit. A commit so consists of one stage and nothing else: a second one would hold keys of the first, and
//! rows and deletes of one commit do not see each other.
//!
//! [`Marks`] are what is told of each row beside its values; `unsent` finds the values that were not sent, `pending` those of them
//! that only the table has. Keys that rows move to and from are followed step by step: `moves` are the steps, `outcome` is what
//! they come to. Nothing here talks to the catalog.

mod adopt;
mod key;
mod known;
mod marks;
mod moves;
mod outcome;
mod pending;
mod removal;
mod rules;
mod stage;
mod unsent;

use std::collections::VecDeque;

use arrow::array::RecordBatch;

pub(crate) use adopt::{MODE, adoption, check_mode, displaced, displaced_property};
pub(crate) use key::{Key, identified, of_batch};
pub(crate) use known::FilterBudget;
pub(crate) use marks::{Marks, Operation, schema_without_unchanged, with_deleted, without_unchanged};
pub(crate) use outcome::{HeldRows, Outcome};
pub(crate) use pending::{Lacking, Whence};
pub(crate) use removal::Removal;
pub(crate) use rules::Rules;
pub(crate) use stage::{Part, Stage};

/// What a task keeps of an upsert table beside what it keeps of any.
#[derive(Debug)]
pub(crate) struct Upsert {
    pub(crate) removal: Removal,
    /// The source was truncated since the last commit: nothing of what the table holds stays.
    pub(crate) truncated: bool,
    /// Rows that have left the stage and are in no file yet.
    pub(crate) moving: VecDeque<RecordBatch>,
    /// By how many the rows that share a key with a newer one become more, with the next commit.
    pub(crate) displaced: i64,
}

impl Upsert {
    pub(crate) fn new(removal: Removal) -> Self {
        Self { removal, truncated: false, moving: VecDeque::new(), displaced: 0 }
    }
}
