//! The values that were not sent, such as unchanged TOASTed ones: they are what the row before had.
//!
//! The row before is the key's last change, in the batch or in the stage, or what the table holds. The table is asked when
//! the stage is emptied, and only for rows that are still wanted then. Rows of keys that are followed step by step are
//! left to [`Moves`](super::moves::Moves).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;
use arrow::error::ArrowError;
use philotes_sdk::{Error, Result};

use super::marks::{Marks, Operation};
use super::moves::Steps;
use super::stage::{Place, Stage};

/// Where a cell's value is.
#[derive(Clone, Debug)]
enum Origin {
    /// In a row of the batch.
    Batch(usize),
    /// In a row of the stage.
    Stage(Place),
    /// In the table, under this key. `None`: nowhere, since the row before is deleted.
    Table(Option<Arc<[u8]>>),
}

/// Cells of a row that the table is to be asked for: their columns, and the key under which it may have the row.
pub(super) type Cells = Vec<(usize, Option<Arc<[u8]>>)>;

/// The cells of a batch that were not sent, and where their values are.
#[derive(Debug)]
pub(super) struct Unsent {
    /// By row and column.
    cells: BTreeMap<(usize, usize), Origin>,
}

impl Unsent {
    /// Finds out where the values are. `column_of` gives a column's place by the source's name; `None` where the table does not
    /// have it. `forgets`: what is in the stage was removed by now. `emptied`: what is in the table was.
    pub(super) fn of(
        stage: &Stage,
        rows: &RecordBatch,
        marks: &Marks,
        (forgets, emptied): (bool, bool),
        column_of: impl Fn(&str) -> Option<usize>,
        steps: &Steps,
    ) -> Result<Self> {
        let keys = stage.keys_of(rows)?;
        let mut cells: BTreeMap<(usize, usize), Origin> = BTreeMap::new();
        // The last change of each key in the batch so far; `None` where it deletes it.
        let mut seen: HashMap<&[u8], Option<usize>> = HashMap::new();
        for (row, mark) in marks.rows.iter().enumerate().filter(|(row, _)| !steps.contains_key(row)) {
            let key = keys.row(row).data();
            let staged = if forgets { None } else { stage.last(key) };
            let from = match (seen.get(key), staged) {
                (Some(Some(row)), _) => Origin::Batch(*row),
                (None, Some((place, false))) => Origin::Stage(place),
                (None, None) if !emptied => Origin::Table(Some(key.into())),
                _ => Origin::Table(None),
            };
            // Of a row that will not be written nothing is wanted.
            let names = marks.unsent.get(&row).filter(|_| stage.keeps(mark.operation));
            for column in names.into_iter().flatten().filter_map(|name| column_of(name)) {
                let origin = match &from {
                    Origin::Batch(row) => cells.get(&(*row, column)).unwrap_or(&from).clone(),
                    Origin::Stage(place) => stage.pending(*place, column).map_or(from.clone(), Origin::Table),
                    Origin::Table(_) => from.clone(),
                };
                cells.insert((row, column), origin);
            }
            seen.insert(key, (mark.operation != Operation::Delete).then_some(row));
        }
        Ok(Self { cells })
    }

    /// The rows with the values that the batch and the stage have, and by row what the table is to be asked for.
    pub(super) fn fill(self, stage: &Stage, rows: &RecordBatch) -> Result<(RecordBatch, BTreeMap<usize, Cells>)> {
        let mut filled = rows.columns().to_vec();
        let columns: BTreeSet<usize> = self.cells.keys().map(|(_, column)| *column).collect();
        for column in columns {
            let own = rows.column(column);
            // The batch, and the stage's parts.
            let staged = stage.columns(column);
            let arrays: Vec<&dyn Array> =
                std::iter::once(own).chain(staged).map(|array: &ArrayRef| array.as_ref()).collect();
            let source = |row: usize| match self.cells.get(&(row, column)) {
                Some(Origin::Batch(row)) => (0, *row),
                Some(Origin::Stage(place)) => (1 + place.part, place.row),
                Some(Origin::Table(_)) | None => (0, row),
            };
            let sources: Vec<(usize, usize)> = (0..rows.num_rows()).map(source).collect();
            filled[column] = interleave(&arrays, &sources).map_err(failed)?;
        }
        let mut pending: BTreeMap<usize, Cells> = BTreeMap::new();
        for ((row, column), origin) in self.cells {
            if let Origin::Table(key) = origin {
                pending.entry(row).or_default().push((column, key));
            }
        }
        let filled = RecordBatch::try_new(rows.schema(), filled).map_err(failed)?;
        Ok((filled, pending))
    }
}

pub(super) fn failed(error: ArrowError) -> Error {
    Error::internal("rows cannot be given the values that were not sent").with_source(error)
}
