//! The keys that are looked for: by their bytes, and by where they lie between the bounds of files.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use iceberg::spec::{DataFile, Datum, PrimitiveType, Schema, Type};
use philotes_sdk::{Error, Result};

use super::columns::Columns;
use super::literal;

/// Keys of one table, numbered as they were given.
pub(super) struct Keys {
    columns: Columns,
    converter: RowConverter,
    numbers: HashMap<Box<[u8]>, usize>,
    /// By column; `None` where bounds say nothing of it.
    orders: Vec<Option<Order>>,
}

/// Between which of the keys a file's bounds lie: for each column a range of places in its order.
#[derive(Clone, Debug)]
pub(super) struct Bounds(Vec<Range<usize>>);

impl Keys {
    /// The keys in these rows, whose columns have these ids.
    pub(super) fn new(schema: &Schema, ids: &[i32], keys: &RecordBatch) -> Result<Self> {
        let columns = Columns::of(schema, ids)?;
        let types: Vec<&DataType> = columns.schema().fields().iter().map(|field| field.data_type()).collect();
        if ids.is_empty() || !keys.columns().iter().map(|column| column.data_type()).eq(types.iter().copied()) {
            return Err(Error::internal(format!("keys of other types than the table's: {types:?}")));
        }
        let converter = converter(&types)?;
        let rows = converter.convert_columns(keys.columns()).map_err(failed)?;
        let mut numbers = HashMap::with_capacity(rows.num_rows());
        for (number, row) in rows.iter().enumerate() {
            if numbers.insert(row.as_ref().into(), number).is_some() {
                return Err(Error::internal("a key was to be looked up twice at once"));
            }
        }
        let orders = columns.fields().iter().zip(keys.columns());
        let orders = orders
            .map(
                |(field, values)| {
                    if is_bounded(&field.field_type, values) { Order::of(values).map(Some) } else { Ok(None) }
                },
            )
            .collect::<Result<_>>()?;
        Ok(Self { columns, converter, numbers, orders })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The key's columns.
    pub(super) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Which of the keys each row has, where it has one of them.
    pub(super) fn numbers(&self, columns: &[ArrayRef]) -> Result<Vec<Option<usize>>> {
        let rows = self.converter.convert_columns(columns).map_err(failed)?;
        Ok(rows.iter().map(|row| self.numbers.get(row.as_ref()).copied()).collect())
    }

    /// What a manifest says of a file.
    pub(super) fn bounds(&self, file: &DataFile) -> Result<Bounds> {
        let fields = self.columns.fields().iter().zip(self.columns.schema().fields());
        let ranges = fields.zip(&self.orders).map(|((field, arrow), order)| {
            let Some(order) = order else { return Ok(0..self.len()) };
            let one = |bound: Option<&Datum>| {
                let bound = bound.and_then(|datum| literal::array(datum.literal(), arrow.data_type()));
                bound.unwrap_or_else(|| new_null_array(arrow.data_type(), 1))
            };
            let (lower, upper) = (file.lower_bounds().get(&field.id), file.upper_bounds().get(&field.id));
            order.ranges(&one(lower), &one(upper)).map(|ranges| ranges.into_iter().next().unwrap_or(0..0))
        });
        ranges.collect::<Result<_>>().map(Bounds)
    }

    /// The bounds of several groups of rows, as `statistics` says them of a column of the key: the lower ones and the upper ones, NULL
    /// where nothing is known, of the table's types.
    pub(super) fn bounds_of_groups(
        &self,
        groups: usize,
        mut statistics: impl FnMut(usize) -> Result<Option<(ArrayRef, ArrayRef)>>,
    ) -> Result<Vec<Bounds>> {
        let mut bounds = vec![Bounds(Vec::with_capacity(self.orders.len())); groups];
        for (column, order) in self.orders.iter().enumerate() {
            let known = match order {
                Some(order) => statistics(column)?.map(|(lower, upper)| order.ranges(&lower, &upper)).transpose()?,
                None => None,
            };
            let ranges = known.unwrap_or_else(|| vec![0..self.len(); groups]);
            bounds.iter_mut().zip(ranges).for_each(|(bounds, range)| bounds.0.push(range));
        }
        Ok(bounds)
    }

    /// Whether a key that is `wanted` may lie within these bounds.
    pub(super) fn any_within(&self, bounds: &Bounds, wanted: impl Fn(usize) -> bool) -> bool {
        let ranges = || bounds.0.iter().zip(&self.orders);
        let narrowest =
            ranges().filter_map(|(range, order)| Some((range, order.as_ref()?))).min_by_key(|(r, _)| r.len());
        let within = |key: usize| {
            ranges().all(|(range, order)| order.as_ref().is_none_or(|order| range.contains(&order.places[key])))
        };
        match narrowest {
            Some((range, order)) => order.sorted[range.clone()].iter().any(|key| wanted(*key) && within(*key)),
            None => (0..self.len()).any(wanted),
        }
    }
}

/// Whether bounds of such a column hold for its values as Arrow orders them. Those of floating point numbers leave NaN out, and
/// of UUIDs there are two orders in use. NULL is in no bounds.
fn is_bounded(r#type: &Type, values: &ArrayRef) -> bool {
    let Type::Primitive(r#type) = r#type else { return false };
    values.null_count() == 0 && !matches!(r#type, PrimitiveType::Float | PrimitiveType::Double | PrimitiveType::Uuid)
}

/// A column's values in their order.
struct Order {
    converter: RowConverter,
    values: Rows,
    /// The keys by their values.
    sorted: Vec<usize>,
    /// For each key, its place among them.
    places: Vec<usize>,
}

impl Order {
    fn of(values: &ArrayRef) -> Result<Self> {
        let converter = converter(&[values.data_type()])?;
        let values = converter.convert_columns(std::slice::from_ref(values)).map_err(failed)?;
        let mut sorted: Vec<usize> = (0..values.num_rows()).collect();
        sorted.sort_unstable_by(|one, other| values.row(*one).cmp(&values.row(*other)));
        let mut places = vec![0; sorted.len()];
        sorted.iter().enumerate().for_each(|(place, key)| places[*key] = place);
        Ok(Self { converter, values, sorted, places })
    }

    /// The places of the keys between each pair of bounds.
    fn ranges(&self, lower: &ArrayRef, upper: &ArrayRef) -> Result<Vec<Range<usize>>> {
        let rows = |bounds: &ArrayRef| self.converter.convert_columns(std::slice::from_ref(bounds)).map_err(failed);
        let (lowers, uppers) = (rows(lower)?, rows(upper)?);
        let range = |(group, (low, high))| {
            let below = |key: &usize| lower.is_valid(group) && self.values.row(*key) < low;
            let not_above = |key: &usize| upper.is_null(group) || self.values.row(*key) <= high;
            let (start, end) = (self.sorted.partition_point(below), self.sorted.partition_point(not_above));
            start..end.max(start)
        };
        Ok(lowers.iter().zip(uppers.iter()).enumerate().map(range).collect())
    }
}

fn converter(types: &[&DataType]) -> Result<RowConverter> {
    RowConverter::new(types.iter().map(|r#type| SortField::new((*r#type).clone())).collect()).map_err(failed)
}

fn failed(error: arrow::error::ArrowError) -> Error {
    Error::internal("keys cannot be compared").with_source(error)
}
