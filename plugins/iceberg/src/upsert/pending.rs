//! Rows of the stage that wait for values which only the table has.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::interleave;
use philotes_sdk::{ChangeBatch, Result};

use super::stage::{Stage, State};
use super::unsent::{Cells, failed};
use crate::lookup::Found;

/// What a row waits for.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) cells: Cells,
    /// A row that is deleted, and stays, takes what there is.
    pub(super) deletes: bool,
    pub(super) whence: Whence,
}

/// Which row of which batch it is. Of the batch there are only as many columns and rows as whoever put it there wanted kept.
#[derive(Clone, Debug)]
pub(crate) struct Whence {
    pub(crate) batch: Arc<ChangeBatch>,
    pub(crate) row: usize,
}

/// A row whose values are nowhere.
#[derive(Debug)]
pub(crate) struct Lacking {
    pub(crate) whence: Whence,
    /// The place of the first column that it lacks.
    pub(crate) column: usize,
}

/// What is to be looked up in the table.
pub(crate) struct Wanted {
    /// The columns of the key, each key once.
    pub(crate) keys: RecordBatch,
    /// The places of the columns.
    pub(crate) columns: Vec<usize>,
    by_key: HashMap<Arc<[u8]>, usize>,
}

impl Wanted {
    /// The row that was found under the key.
    fn place(&self, key: Option<&Arc<[u8]>>, found: &Found) -> Option<usize> {
        found.places.get(*self.by_key.get(key?)?).copied().flatten()
    }
}

impl Pending {
    /// The first column whose value was not found. A row that is deleted lacks nothing.
    fn lacks(&self, wanted: &Wanted, found: &Found) -> Option<usize> {
        let lacking = |(_, key): &&(usize, Option<Arc<[u8]>>)| wanted.place(key.as_ref(), found).is_none();
        self.cells.iter().filter(|_| !self.deletes).find(lacking).map(|(column, _)| *column)
    }
}

impl Stage {
    /// What is to be looked up for rows that are still wanted; `None` where nothing is.
    pub(crate) fn wanted(&self) -> Result<Option<Wanted>> {
        let mut by_key: HashMap<Arc<[u8]>, usize> = HashMap::new();
        let mut keys: Vec<Arc<[u8]>> = Vec::new();
        let mut columns = BTreeSet::new();
        let mut any = false;
        for (column, asked) in self.live_pending().flat_map(|pending| &pending.cells) {
            any = true;
            columns.insert(*column);
            if let Some(key) = asked {
                by_key.entry(key.clone()).or_insert_with(|| {
                    keys.push(key.clone());
                    keys.len() - 1
                });
            }
        }
        if !any {
            return Ok(None);
        }
        Ok(Some(Wanted { keys: self.key_columns(&keys)?, columns: columns.into_iter().collect(), by_key }))
    }

    /// The rows that still lack a value where this was found.
    pub(crate) fn lacking(&self, wanted: &Wanted, found: &Found) -> Vec<Lacking> {
        let lacking = |pending: &Pending| {
            let column = pending.lacks(wanted, found)?;
            Some(Lacking { whence: pending.whence.clone(), column })
        };
        self.live_pending().filter_map(lacking).collect()
    }

    /// Gives the rows what was found. Those that still lack a value count as deleted: what came before them in the stage, if
    /// anything, was their deletion.
    pub(crate) fn complete(&mut self, wanted: &Wanted, found: &Found) -> Result<()> {
        for part in self.parts_mut() {
            let mut sources: HashMap<usize, HashMap<usize, usize>> = HashMap::new();
            for (row, pending) in std::mem::take(&mut part.pending) {
                if !part.states[row].is_wanted() {
                    continue;
                }
                if pending.lacks(wanted, found).is_some() {
                    part.states[row] = State::Gone;
                    continue;
                }
                for (column, key) in &pending.cells {
                    if let Some(place) = wanted.place(key.as_ref(), found) {
                        sources.entry(*column).or_default().insert(row, place);
                    }
                }
            }
            let mut columns = part.rows.columns().to_vec();
            for (column, places) in sources {
                let Some(asked) = wanted.columns.iter().position(|asked| *asked == column) else { continue };
                let arrays: [&dyn Array; 2] = [part.rows.column(column).as_ref(), found.rows.column(asked).as_ref()];
                let source = |row: usize| places.get(&row).map_or((0, row), |place| (1, *place));
                let sources: Vec<(usize, usize)> = (0..part.rows.num_rows()).map(source).collect();
                columns[column] = interleave(&arrays, &sources).map_err(failed)?;
            }
            part.rows = RecordBatch::try_new(part.rows.schema(), columns).map_err(failed)?;
        }
        Ok(())
    }
}
