//! Reads the rows that were found, and nothing else of their files.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use philotes_sdk::{Error, Result};

use super::columns::Columns;
use super::entries::DataEntry;
use super::input::Inputs;
use super::scan::selection;
use super::{Candidate, FoundAll, READ_AT_ONCE};

/// The rows of these candidates.
pub(super) async fn read(
    inputs: &Inputs<'_>,
    columns: &Columns,
    files: &[DataEntry],
    mut candidates: Vec<Candidate>,
    keys: usize,
) -> Result<FoundAll> {
    candidates.sort_unstable_by_key(|candidate| (candidate.file, candidate.position));
    let mut reads: Vec<BoxFuture<'_, Result<Vec<RecordBatch>>>> = Vec::new();
    for rows in candidates.chunk_by(|one, other| one.file == other.file) {
        reads.push(Box::pin(rows_of(inputs, columns, &files[rows[0].file], rows)));
    }
    let batches: Vec<RecordBatch> = futures::stream::iter(reads).buffered(READ_AT_ONCE).try_concat().await?;
    let mut places = vec![Vec::new(); keys];
    // Files come from the newest to the oldest.
    let mut found: Vec<(usize, &Candidate)> = candidates.iter().enumerate().collect();
    found.sort_by_key(|(_, candidate)| (std::cmp::Reverse(candidate.file), candidate.position));
    found.into_iter().for_each(|(place, candidate)| places[candidate.key].push(place));
    let rows = concat_batches(columns.schema(), &batches);
    let rows = rows.map_err(|e| Error::data("more was found than one batch can hold").with_source(e))?;
    Ok(FoundAll { rows, places })
}

/// Some rows of a file, by their positions.
async fn rows_of(
    inputs: &Inputs<'_>,
    columns: &Columns,
    file: &DataEntry,
    rows: &[Candidate],
) -> Result<Vec<RecordBatch>> {
    let open = inputs.open(&file.file, columns).await?;
    let total = open.row_groups().last().map_or(0, |last| last.end);
    let selection = selection(rows.iter().map(|row| row.position..row.position + 1), total)?;
    let mut pieces = open.read(Some(selection)).await?;
    let (mut batches, mut read) = (Vec::new(), 0);
    while let Some((rows, arrays)) = pieces.next().await? {
        read += rows;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(columns.schema().clone(), arrays, &options);
        // Arrow's own message may quote values.
        batches.push(batch.map_err(|_| {
            Error::data(format!("{} has NULL, or nothing at all, in a column that the table requires", file.file.path))
        })?);
    }
    if read != rows.len() {
        return Err(Error::data(format!("{} has {read} of {} rows that were found in it", file.file.path, rows.len())));
    }
    Ok(batches)
}
