//! What is told of the rows of a batch beside their values: what each of them does, and which of its values were not sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use philotes_sdk::batch::{LSN, OPERATION, TIMESTAMP, UNCHANGED};
use philotes_sdk::{Error, Result};

/// The column of deleted rows that stay.
pub(super) const DELETED: &str = "_cdc_deleted";

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// What is told of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) operation: Operation,
    /// The row before it, which it directly follows, is its DELETE under another key.
    pub(crate) moved: bool,
    /// Both are of one change, by what the source says of them, and not just neighbours.
    pub(crate) one_change: bool,
}

/// What is told of the rows of a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) rows: Vec<Mark>,
    /// By row: the columns whose values were not sent, by the source's names.
    pub(crate) unsent: BTreeMap<usize, Vec<String>>,
}

impl Marks {
    /// Reads the marks of a batch as the source gave it.
    ///
    /// # Errors
    /// Data: a batch without operations, or with others than the four.
    pub(crate) fn of(batch: &RecordBatch) -> Result<Self> {
        let operations = batch.column_by_name(OPERATION).and_then(|column| column.as_string_opt::<i32>());
        let operations = operations.ok_or_else(|| {
            Error::data(format!("column {OPERATION}: it must be there and hold texts for mode upsert"))
        })?;
        // Where a change comes from: both rows of a changed key have the same.
        let sources: Vec<_> = [TIMESTAMP, LSN].iter().filter_map(|name| batch.column_by_name(name)).collect();
        let mut rows: Vec<Mark> = Vec::with_capacity(batch.num_rows());
        for row in 0..operations.len() {
            let operation = match operations.is_valid(row).then(|| operations.value(row)) {
                Some("INSERT") => Operation::Insert,
                Some("UPDATE") => Operation::Update,
                Some("DELETE") => Operation::Delete,
                Some("TRUNCATE") => Operation::Truncate,
                _ => {
                    return Err(Error::data(format!(
                        "column {OPERATION}, row {row}: it is none of INSERT, UPDATE, DELETE, TRUNCATE"
                    )));
                }
            };
            let follows = rows.last().is_some_and(|before| before.operation == Operation::Delete);
            let moved = follows && operation == Operation::Insert;
            let one_change = moved && sources.iter().all(|column| column.slice(row - 1, 1) == column.slice(row, 1));
            rows.push(Mark { operation, moved, one_change });
        }
        Ok(Self { rows, unsent: unsent(batch)? })
    }

    /// The same for a stream of several partitions: what follows a DELETE there need not belong to it.
    pub(crate) fn of_several_partitions(mut self) -> Self {
        self.rows.iter_mut().for_each(|mark| mark.moved &= mark.one_change);
        self
    }

    /// Whether a row has changed its key.
    pub(crate) fn any_moved(&self) -> bool {
        self.rows.iter().any(|mark| mark.moved)
    }

    /// The last row that empties the table.
    pub(crate) fn last_truncate(&self) -> Option<usize> {
        self.rows.iter().rposition(|mark| mark.operation == Operation::Truncate)
    }

    /// The marks of some of the rows, in their order.
    pub(crate) fn only(&self, kept: &[usize]) -> Self {
        let mark = |(at, row): (usize, &usize)| {
            let mark = self.rows[*row];
            let follows = at.checked_sub(1).is_some_and(|before| kept[before] + 1 == *row);
            Mark { moved: mark.moved && follows, ..mark }
        };
        let unsent = |(at, row): (usize, &usize)| Some((at, self.unsent.get(row)?.clone()));
        Self {
            rows: kept.iter().enumerate().map(mark).collect(),
            unsent: kept.iter().enumerate().filter_map(unsent).collect(),
        }
    }

    /// Rows with a column that says of each whether it is deleted.
    pub(crate) fn with_deleted(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let deleted: BooleanArray = self.rows.iter().map(|mark| Some(mark.operation == Operation::Delete)).collect();
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(deleted));
        RecordBatch::try_new(Arc::new(with_deleted(rows.schema_ref())), columns)
            .map_err(|e| Error::internal("a column cannot be added to a batch").with_source(e))
    }
}

/// A schema with the column of deleted rows that stay.
pub(crate) fn with_deleted(schema: &Schema) -> Schema {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(DELETED, DataType::Boolean, true)));
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

/// A schema without the column that says what was not sent.
pub(crate) fn schema_without_unchanged(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().filter(|field| field.name() != UNCHANGED).cloned();
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

/// By row, the columns that `_cdc_unchanged` names.
fn unsent(batch: &RecordBatch) -> Result<BTreeMap<usize, Vec<String>>> {
    let mut unsent = BTreeMap::new();
    let Some(column) = batch.column_by_name(UNCHANGED) else { return Ok(unsent) };
    let other = || Error::data(format!("column {UNCHANGED}: it must be a list of utf8, not {}", column.data_type()));
    let lists = column.as_list_opt::<i32>().ok_or_else(other)?;
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        let names = lists.value(row);
        let names = names.as_string_opt::<i32>().ok_or_else(other)?;
        let names: Vec<String> = names.iter().flatten().map(str::to_owned).collect();
        if !names.is_empty() {
            unsent.insert(row, names);
        }
    }
    Ok(unsent)
}

/// The rows without the column that says what was not sent.
pub(crate) fn without_unchanged(rows: &RecordBatch) -> RecordBatch {
    let mut rows = rows.clone();
    if let Ok(index) = rows.schema().index_of(UNCHANGED) {
        rows.remove_column(index);
    }
    rows
}
