//! Sorts the rows of a file, as Iceberg compares them: numbers by value, -0 before +0 and NaN above infinity (or below all
//! others, where its sign is set), text and bytes by their bytes. Rows that are equal stay in the order in which they came.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{SortOptions, concat, interleave_record_batch};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use iceberg::spec::{NullOrder, Schema, SortDirection, SortOrder, Transform};
use philotes_sdk::{Error, Result};

use crate::partition::place_of;

/// How the rows of a table's files are sorted.
#[derive(Debug)]
pub(super) struct Sorting {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    /// Where it stands: its place in the batch, then in each struct on the way.
    place: Vec<usize>,
    options: SortOptions,
}

impl Sorting {
    pub(super) fn new(order: &SortOrder, schema: &Schema) -> Result<Self> {
        let column = |field: &iceberg::spec::SortField| {
            let place = place_of(schema.as_struct().fields(), field.source_id);
            match place {
                Some(place) if field.transform == Transform::Identity => Ok(Column {
                    place,
                    options: SortOptions {
                        descending: field.direction == SortDirection::Descending,
                        nulls_first: field.null_order == NullOrder::First,
                    },
                }),
                _ => Err(Error::internal("a sort order that is not one of columns")),
            }
        };
        Ok(Self { columns: order.fields.iter().map(column).collect::<Result<_>>()? })
    }

    /// These rows in their order.
    pub(super) fn sorted(&self, batches: Vec<RecordBatch>) -> Result<Sorted> {
        let keys = self.columns.iter().map(|column| column.of(&batches)).collect::<Result<Vec<_>>>()?;
        let fields = keys.iter().zip(&self.columns);
        let fields = fields.map(|(key, column)| SortField::new_with_options(key.data_type().clone(), column.options));
        let converter = RowConverter::new(fields.collect()).map_err(failed)?;
        let rows = converter.convert_columns(&keys).map_err(failed)?;
        drop(keys);
        let mut order: Vec<usize> = (0..rows.num_rows()).collect();
        // Stable, as what is equal is to stay in its order.
        order.sort_by(|one, other| rows.row(*one).cmp(&rows.row(*other)));
        Ok(Sorted { order, starts: starts(&batches), batches })
    }
}

impl Column {
    fn of(&self, batches: &[RecordBatch]) -> Result<ArrayRef> {
        let leaf = |batch: &RecordBatch| {
            let (first, rest) = self.place.split_first()?;
            let first = batch.column(*first).clone();
            // A projected batch has NULL in every field of a NULL struct.
            Some(rest.iter().fold(first, |column, index| column.as_struct().column(*index).clone()))
        };
        let parts: Option<Vec<ArrayRef>> = batches.iter().map(leaf).collect();
        let parts = parts.ok_or_else(|| Error::internal("a sort field without place"))?;
        let parts: Vec<&dyn arrow::array::Array> = parts.iter().map(AsRef::as_ref).collect();
        concat(&parts).map_err(failed)
    }
}

fn starts(batches: &[RecordBatch]) -> Vec<usize> {
    let mut next = 0;
    let start = |batch: &RecordBatch| {
        let start = next;
        next += batch.num_rows();
        start
    };
    batches.iter().map(start).collect()
}

fn failed(error: ArrowError) -> Error {
    Error::internal("rows cannot be sorted").with_source(error)
}

/// Rows, and the order in which they are to be written.
pub(super) struct Sorted {
    batches: Vec<RecordBatch>,
    /// The number of each batch's first row.
    starts: Vec<usize>,
    order: Vec<usize>,
}

impl Sorted {
    /// The rows in pieces of at most so many.
    pub(super) fn pieces(&self, rows: usize) -> impl Iterator<Item = Result<RecordBatch>> {
        self.order.chunks(rows).map(|piece| {
            let batches: Vec<&RecordBatch> = self.batches.iter().collect();
            let places: Vec<(usize, usize)> = piece.iter().map(|row| self.place(*row)).collect();
            interleave_record_batch(&batches, &places).map_err(failed)
        })
    }

    /// The batch of a row, and its number there.
    fn place(&self, row: usize) -> (usize, usize) {
        // Empty batches have the start of the one after them.
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        (batch, row - self.starts[batch])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
    use iceberg::spec::{NestedField, PrimitiveType, StructType, Type};

    use super::*;

    fn schema() -> Schema {
        let of = |id, name: &str, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
        let inner = StructType::new(vec![of(4, "t", PrimitiveType::String)]);
        let fields = [
            of(1, "id", PrimitiveType::Long),
            of(2, "f", PrimitiveType::Double),
            Arc::new(NestedField::optional(3, "s", Type::Struct(inner))),
        ];
        Schema::builder().with_fields(fields).build().unwrap()
    }

    fn batch(ids: &[i64], floats: &[Option<f64>], texts: &[Option<&str>]) -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let inner = StructArray::from(vec![(Arc::new(Field::new("t", DataType::Utf8, true)), texts)]);
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef, true),
            ("f", Arc::new(Float64Array::from(floats.to_vec())), true),
            ("s", Arc::new(inner), true),
        ])
        .unwrap()
    }

    fn field(source_id: i32, direction: SortDirection, null_order: NullOrder) -> iceberg::spec::SortField {
        iceberg::spec::SortField { source_id, transform: Transform::Identity, direction, null_order }
    }

    fn ids(fields: Vec<iceberg::spec::SortField>, batches: Vec<RecordBatch>) -> Vec<i64> {
        let order = SortOrder { order_id: 1, fields };
        let sorted = Sorting::new(&order, &schema()).unwrap().sorted(batches).unwrap();
        let pieces: Vec<RecordBatch> = sorted.pieces(2).map(Result::unwrap).collect();
        assert!(pieces.iter().all(|piece| piece.num_rows() <= 2));
        pieces.iter().flat_map(|piece| piece.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    /// The specification: -NaN < -Infinity < -value < -0 < 0 < value < Infinity < NaN.
    #[test]
    fn floats_are_in_the_specifications_order() {
        let ordered = [-f64::NAN, f64::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f64::INFINITY, f64::NAN];
        let (front, back): (Vec<i64>, Vec<i64>) = ((0..4).rev().collect(), (4..8).rev().collect());
        let of = |ids: &[i64]| {
            let floats: Vec<_> = ids.iter().map(|id| Some(ordered[usize::try_from(*id).unwrap()])).collect();
            batch(ids, &floats, &vec![None; ids.len()])
        };
        let null = batch(&[8], &[None], &[None]);
        let batches = || vec![of(&back), null.clone(), of(&[]), of(&front)];
        let floats = of(&front).column(1).as_primitive::<Float64Type>().value(3);
        assert!(floats.is_nan() && floats.is_sign_negative());
        let rising = (0..8).collect::<Vec<i64>>();
        let falling = (0..8).rev().collect::<Vec<i64>>();
        let with = |first: &[i64], rest: &[i64]| [first, rest].concat();
        let (asc, desc) = (SortDirection::Ascending, SortDirection::Descending);
        assert_eq!(ids(vec![field(2, asc, NullOrder::First)], batches()), with(&[8], &rising));
        assert_eq!(ids(vec![field(2, asc, NullOrder::Last)], batches()), with(&rising, &[8]));
        assert_eq!(ids(vec![field(2, desc, NullOrder::Last)], batches()), with(&falling, &[8]));
        assert_eq!(ids(vec![field(2, desc, NullOrder::First)], batches()), with(&[8], &falling));
    }

    /// By bytes U+FF5E comes before U+1F600; in UTF-16 it would come after it.
    #[test]
    fn text_is_compared_by_its_bytes_and_equal_rows_keep_their_order() {
        let texts = [Some("b"), Some("\u{1f600}"), Some("a"), None, Some("\u{ff5e}"), Some("B"), Some("a"), Some("")];
        let rows = batch(&[0, 1, 2, 3, 4, 5, 6, 7], &[None; 8], &texts);
        let order = vec![field(4, SortDirection::Ascending, NullOrder::First)];
        assert_eq!(ids(order, vec![rows.clone()]), [3, 7, 5, 2, 6, 0, 4, 1]);
        let order = vec![
            field(4, SortDirection::Descending, NullOrder::Last),
            field(1, SortDirection::Descending, NullOrder::Last),
        ];
        assert_eq!(ids(order, vec![rows]), [1, 4, 0, 6, 2, 5, 7, 3]);
    }
}
