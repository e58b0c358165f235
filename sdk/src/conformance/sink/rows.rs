//! The batches that the suite writes.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

use super::LandedRow;
use crate::batch::{META_KEY, META_SOURCE_TYPE, META_STREAM, UTC, reserved_fields};
use crate::{StreamName, StreamPartition};

/// Stream 0 or 1.
pub(super) fn stream(index: usize) -> StreamName {
    let table = if index == 0 { "first" } else { "second" };
    // A name of two parts is none of zero parts.
    StreamName::new(["conformance", table]).unwrap_or_else(|_| unreachable!())
}

pub(super) fn partition(index: usize, partition: &str) -> StreamPartition {
    StreamPartition { stream: stream(index), partition: partition.to_owned() }
}

/// Rows with these ids, all of one schema.
pub(super) struct Rows {
    ids: Range<i64>,
    with_added_column: bool,
}

impl Rows {
    pub(super) fn plain(ids: Range<i64>) -> Self {
        Self { ids, with_added_column: false }
    }

    /// Their schema has the column `added`.
    pub(super) fn with_added_column(ids: Range<i64>) -> Self {
        Self { ids, with_added_column: true }
    }

    pub(super) fn schema_id(&self) -> u64 {
        if self.with_added_column { 2 } else { 1 }
    }

    /// The rows as they must land. Every third note and every other added value is null.
    pub(super) fn landed(&self) -> Vec<LandedRow> {
        let added = |id: i64| (self.with_added_column && id % 2 == 0).then_some(id * 10);
        let note = |id: i64| (id % 3 != 0).then(|| format!("note {id}, größer"));
        self.ids.clone().map(|id| LandedRow { id, note: note(id), added: added(id) }).collect()
    }

    pub(super) fn batch(&self, at: &StreamPartition) -> Result<RecordBatch, ArrowError> {
        let rows = self.landed();
        let typed = |field: Field, name: &str| field.with_metadata([(META_SOURCE_TYPE.into(), name.into())].into());
        let mut fields = vec![
            typed(Field::new("id", DataType::Int64, false), "bigint"),
            typed(Field::new("note", DataType::Utf8, true), "text"),
        ];
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| Some(row.id)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.note.as_deref()).collect::<StringArray>()),
        ];
        if self.with_added_column {
            fields.push(typed(Field::new("added", DataType::Int64, true), "bigint"));
            columns.push(Arc::new(rows.iter().map(|row| row.added).collect::<Int64Array>()));
        }
        fields.extend(reserved_fields());
        let times = rows.iter().map(|row| Some(1_769_212_800_000_000 + row.id)).collect::<TimestampMicrosecondArray>();
        columns.push(Arc::new(rows.iter().map(|_| Some("INSERT")).collect::<StringArray>()));
        columns.push(Arc::new(times.with_timezone(UTC)));
        columns.push(Arc::new(StringArray::new_null(rows.len())));
        let metadata = [(META_STREAM.to_owned(), at.stream.to_string()), (META_KEY.to_owned(), r#"["id"]"#.to_owned())];
        RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata.into())), columns)
    }
}
