//! Fits batches to their table: columns in the table's order with field ids, the table's exact types, NULL where the
//! batch has no such column. Only lossless conversions happen, and what a type cannot hold is refused rather than
//! written wrongly. The schema itself is never changed here; see [`evolve`](super::evolve()).

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray,
    new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{NestedFieldRef, PrimitiveType, Schema, Type};
use philotes_sdk::{Error, Result};

use super::{check_columns, evolve, map, path, position};

/// One past the last microsecond of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// Maps batches of one schema to one schema of a table.
#[derive(Debug)]
pub(crate) struct Projection {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Whether any of the fields is required.
    requires: bool,
}

/// Where a field of the table comes from.
#[derive(Debug)]
struct Column {
    id: i32,
    name: String,
    required: bool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The batch has no such field.
    Missing,
    Field(usize, Plan),
}

/// How an array of the batch becomes one of the table.
#[derive(Debug)]
enum Plan {
    Primitive { cast: Cast, check: Check },
    Struct(Vec<Column>),
    List(Box<Column>),
    Map { key: Box<Column>, value: Box<Column> },
}

#[derive(Debug)]
enum Cast {
    Keep,
    /// Another spelling of the same zone.
    Zone,
    /// The same scale, a higher precision: the same numbers.
    Precision,
    Convert,
}

/// What Arrow lets through and Iceberg does not.
#[derive(Debug)]
enum Check {
    Nothing,
    /// Arrow does not enforce a decimal's precision.
    Precision,
    /// PostgreSQL knows 24:00, Iceberg does not.
    TimeOfDay,
}

impl Projection {
    /// A projection of batches with the schema `arrow` to a table's schema.
    ///
    /// # Errors
    /// Data: a column that the table lacks or holds with another type, a required column that the batch lacks.
    pub(crate) fn new(table: &Schema, arrow: &ArrowSchema) -> Result<Self> {
        check_columns(arrow)?;
        let columns = columns(table.as_struct().fields(), arrow.fields(), "")?;
        Self::of(table, columns)
    }

    /// The same where it is known which field each column is.
    ///
    /// # Errors
    /// As [`Projection::new`].
    pub(crate) fn onto(table: &Schema, arrow: &ArrowSchema, fields: &[i32]) -> Result<Self> {
        check_columns(arrow)?;
        let (table_fields, incoming) = (table.as_struct().fields(), arrow.fields());
        map::check_names(incoming, "")?;
        let mut sources: Vec<Option<usize>> = vec![None; table_fields.len()];
        for (index, field) in incoming.iter().enumerate() {
            let target = fields.get(index).and_then(|id| table_fields.iter().position(|f| f.id == *id));
            sources[target.ok_or_else(|| unknown(field, ""))?] = Some(index);
        }
        Self::of(table, from_sources(table_fields, incoming, sources, "")?)
    }

    fn of(table: &Schema, columns: Vec<Column>) -> Result<Self> {
        let schema = schema_to_arrow_schema(table)
            .map_err(|e| Error::data("the table's schema cannot be written as Arrow").with_source(e))?;
        let requires = columns.iter().any(Column::requires);
        Ok(Self { schema: Arc::new(schema), columns, requires })
    }

    /// Which column of the table this column of a batch becomes.
    pub(crate) fn place_of(&self, incoming: usize) -> Option<usize> {
        self.columns.iter().position(|column| matches!(column.source, Source::Field(index, _) if index == incoming))
    }

    /// The required fields in which rows have NULL. Values are not looked at, so that those of a column that is still to be
    /// converted may come.
    pub(crate) fn nulls(&self, batch: &RecordBatch) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        if !self.requires {
            return found;
        }
        self.columns.iter().for_each(|column| column.nulls(batch.columns(), None, &mut found));
        found
    }

    /// The same rows as the table's.
    ///
    /// # Errors
    /// Data: NULL in a required column, a number that is too large for its precision, a time of day that is none; the
    /// message names the column and how many rows.
    pub(crate) fn project(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let arrays = self
            .columns
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| column.array(batch.columns(), field, rows, 0))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|e| Error::data("the batch does not fit its table").with_source(e))
    }
}

fn columns(table: &[NestedFieldRef], incoming: &Fields, parent: &str) -> Result<Vec<Column>> {
    map::check_names(incoming, parent)?;
    let mut sources: Vec<Option<usize>> = vec![None; table.len()];
    for (index, field) in incoming.iter().enumerate() {
        match position(table.iter().map(|f| f.name.as_str()), field.name(), parent)? {
            Some(target) => sources[target] = Some(index),
            None => return Err(unknown(field, parent)),
        }
    }
    from_sources(table, incoming, sources, parent)
}

fn unknown(field: &Field, parent: &str) -> Error {
    Error::data(format!("column {:?} is not in the table", path(parent, field.name())))
}

/// The fields of the table, where it is known which columns they come from.
fn from_sources(
    table: &[NestedFieldRef],
    incoming: &Fields,
    sources: Vec<Option<usize>>,
    parent: &str,
) -> Result<Vec<Column>> {
    table
        .iter()
        .zip(sources)
        .map(|(field, source)| {
            let at = path(parent, &field.name);
            match source {
                Some(index) => column(field, index, &incoming[index], at),
                None if field.required => {
                    Err(Error::data(format!("column {at:?} is required by the table and missing from the batch")))
                }
                None => Ok(Column { id: field.id, name: at, required: false, source: Source::Missing }),
            }
        })
        .collect()
}

fn column(table: &NestedFieldRef, index: usize, incoming: &Field, at: String) -> Result<Column> {
    let plan = match (&*table.field_type, incoming.data_type()) {
        (Type::Struct(fields), DataType::Struct(new)) => Plan::Struct(columns(fields.fields(), new, &at)?),
        (Type::List(list), DataType::List(element)) => {
            let element = column(&list.element_field, 0, element, path(&at, "element"))?;
            Plan::List(Box::new(element))
        }
        (Type::Map(entries), DataType::Map(new, _)) => {
            let (key, value) = map::map_entries(new, &at)?;
            let key = Box::new(column(&entries.key_field, 0, key, path(&at, "key"))?);
            let value = Box::new(column(&entries.value_field, 1, value, path(&at, "value"))?);
            Plan::Map { key, value }
        }
        (Type::Primitive(primitive), _) if evolve::fits(primitive, incoming) => Plan::Primitive {
            cast: cast(primitive, incoming.data_type()),
            check: match primitive {
                PrimitiveType::Decimal { .. } => Check::Precision,
                PrimitiveType::Time => Check::TimeOfDay,
                _ => Check::Nothing,
            },
        },
        (r#type, _) => return Err(evolve::incompatible(r#type, incoming, &at)),
    };
    Ok(Column { id: table.id, name: at, required: table.required, source: Source::Field(index, plan) })
}

fn cast(table: &PrimitiveType, incoming: &DataType) -> Cast {
    match (table, incoming) {
        (PrimitiveType::Timestamptz, _) => Cast::Zone,
        (PrimitiveType::Decimal { scale, .. }, DataType::Decimal128(_, same))
            if i64::from(*scale) == i64::from(*same) =>
        {
            Cast::Precision
        }
        (PrimitiveType::Int, DataType::Int32)
        | (PrimitiveType::Long, DataType::Int64)
        | (PrimitiveType::Float, DataType::Float32)
        | (PrimitiveType::Double, DataType::Float64)
        | (PrimitiveType::String, DataType::Utf8)
        | (PrimitiveType::Binary, DataType::LargeBinary) => Cast::Keep,
        (
            PrimitiveType::Int
            | PrimitiveType::Long
            | PrimitiveType::Double
            | PrimitiveType::String
            | PrimitiveType::Binary
            | PrimitiveType::Decimal { .. },
            _,
        ) => Cast::Convert,
        _ => Cast::Keep,
    }
}

impl Column {
    /// Whether the field is required, or one that lies in it. A map's key always is, and is never NULL.
    fn requires(&self) -> bool {
        self.required
            || match &self.source {
                Source::Missing | Source::Field(_, Plan::Primitive { .. }) => false,
                Source::Field(_, Plan::Struct(columns)) => columns.iter().any(Self::requires),
                Source::Field(_, Plan::List(element)) => element.requires(),
                Source::Field(_, Plan::Map { value, .. }) => value.requires(),
            }
    }

    /// Adds the required fields in which rows have NULL that lie in something that is not NULL.
    fn nulls(&self, siblings: &[ArrayRef], parent: Option<&NullBuffer>, found: &mut BTreeSet<i32>) {
        let Source::Field(index, plan) = &self.source else { return };
        let array = &siblings[*index];
        let together = NullBuffer::union(parent, array.nulls());
        let count = |nulls: Option<&NullBuffer>| nulls.map_or(0, NullBuffer::null_count);
        if self.required && count(together.as_ref()) > count(parent) {
            found.insert(self.id);
        }
        match plan {
            Plan::Primitive { .. } => {}
            Plan::Struct(columns) => {
                let fields = array.as_struct().columns();
                columns.iter().for_each(|column| column.nulls(fields, together.as_ref(), found));
            }
            Plan::List(element) => {
                let list = array.as_list::<i32>();
                let range = span(list.offsets());
                element.nulls(&[list.values().slice(range.start, range.len())], None, found);
            }
            Plan::Map { value, .. } => {
                let map = array.as_map();
                let range = span(map.offsets());
                let entries = map.entries().slice(range.start, range.len());
                value.nulls(entries.columns(), None, found);
            }
        }
    }

    /// The field's array, made from the arrays beside it. `hidden` rows are NULL because what they lie in is NULL.
    fn array(&self, siblings: &[ArrayRef], field: &FieldRef, rows: usize, hidden: usize) -> Result<ArrayRef> {
        match &self.source {
            Source::Missing => Ok(new_null_array(field.data_type(), rows)),
            Source::Field(index, plan) => self.apply(plan, &siblings[*index], field.data_type(), hidden),
        }
    }

    fn apply(&self, plan: &Plan, array: &ArrayRef, target: &DataType, hidden: usize) -> Result<ArrayRef> {
        if self.required && array.null_count() > hidden {
            return Err(self.fault(
                array.null_count() - hidden,
                "NULL, and the column is required by the table, as an identifier field or by `evolve: none`",
            ));
        }
        match (plan, target) {
            (Plan::Primitive { cast, check }, _) => self.primitive(cast, check, array, target),
            (Plan::Struct(columns), DataType::Struct(fields)) => self.structure(columns, array.as_struct(), fields),
            (Plan::List(element), DataType::List(field)) => {
                let list = array.as_list::<i32>();
                let (values, range) = (list.values(), span(list.offsets()));
                // Values outside the offsets belong to nobody: they must not be judged.
                let used = [values.slice(range.start, range.len())];
                let values = element.array(&used, field, range.len(), 0)?;
                let offsets = rebase(list.offsets(), range.start);
                let list = ListArray::try_new(field.clone(), offsets, values, list.nulls().cloned());
                Ok(Arc::new(list.map_err(|e| self.invalid(&e))?))
            }
            (Plan::Map { key, value }, DataType::Map(field, sorted)) => {
                let map = array.as_map();
                let DataType::Struct(fields) = field.data_type() else { return Err(self.mismatch(target)) };
                let range = span(map.offsets());
                let entries = map.entries().slice(range.start, range.len());
                let keys = key.array(entries.columns(), &fields[0], entries.len(), 0)?;
                let values = value.array(entries.columns(), &fields[1], entries.len(), 0)?;
                let entries = StructArray::try_new(fields.clone(), vec![keys, values], None);
                let entries = entries.map_err(|e| self.invalid(&e))?;
                let offsets = rebase(map.offsets(), range.start);
                let map = MapArray::try_new(field.clone(), offsets, entries, map.nulls().cloned(), *sorted);
                Ok(Arc::new(map.map_err(|e| self.invalid(&e))?))
            }
            _ => Err(self.mismatch(target)),
        }
    }

    fn structure(&self, columns: &[Column], array: &StructArray, fields: &Fields) -> Result<ArrayRef> {
        // Under a NULL struct its fields hold anything; as NULLs they are judged by nobody and no bound sees them.
        let masked: Vec<ArrayRef> = match array.nulls() {
            Some(nulls) if nulls.null_count() > 0 => array
                .columns()
                .iter()
                .map(|child| {
                    let mask = arrow::array::BooleanArray::new(!nulls.inner(), None);
                    arrow::compute::nullif(child, &mask).map_err(|e| self.invalid(&e))
                })
                .collect::<Result<_>>()?,
            _ => array.columns().to_vec(),
        };
        let children = columns
            .iter()
            .zip(fields)
            .map(|(column, field)| column.array(&masked, field, array.len(), array.null_count()))
            .collect::<Result<Vec<_>>>()?;
        let array = if fields.is_empty() {
            StructArray::new_empty_fields(array.len(), array.nulls().cloned())
        } else {
            StructArray::try_new(fields.clone(), children, array.nulls().cloned()).map_err(|e| self.invalid(&e))?
        };
        Ok(Arc::new(array))
    }

    fn primitive(&self, cast: &Cast, check: &Check, array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
        let array = match cast {
            Cast::Keep => array.clone(),
            Cast::Zone => {
                let DataType::Timestamp(_, zone) = target else { return Err(self.mismatch(target)) };
                let array = array.as_primitive::<TimestampMicrosecondType>().clone();
                Arc::new(array.with_timezone_opt(zone.clone())) as ArrayRef
            }
            Cast::Precision => {
                self.check_precision(array.as_primitive(), array.data_type())?;
                let DataType::Decimal128(precision, scale) = target else { return Err(self.mismatch(target)) };
                let array = array.as_primitive::<Decimal128Type>().clone();
                return Ok(Arc::new(array.with_precision_and_scale(*precision, *scale).map_err(|e| self.invalid(&e))?));
            }
            Cast::Convert => {
                // Not `safe`: a value that does not fit must be an error, where `safe` makes it NULL.
                let options = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(array, target, &options).map_err(|e| self.invalid(&e))?
            }
        };
        match check {
            Check::Nothing => {}
            Check::Precision => self.check_precision(array.as_primitive(), target)?,
            Check::TimeOfDay => {
                let times = array.as_primitive::<Time64MicrosecondType>();
                let wrong = times.iter().flatten().filter(|micros| !(0..DAY_MICROS).contains(micros)).count();
                if wrong > 0 {
                    return Err(self.fault(wrong, "a time that is not within 00:00:00 and 23:59:59.999999"));
                }
            }
        }
        Ok(array)
    }

    fn check_precision(&self, array: &Decimal128Array, r#type: &DataType) -> Result<()> {
        let DataType::Decimal128(precision, _) = r#type else { return Err(self.mismatch(r#type)) };
        let limit = 10_i128.pow(u32::from(*precision));
        let wrong = array.iter().flatten().filter(|value| !(-limit < *value && *value < limit)).count();
        if wrong > 0 {
            return Err(self.fault(wrong, &format!("a number with more than the {precision} digits of its type")));
        }
        Ok(())
    }

    fn fault(&self, rows: usize, what: &str) -> Error {
        let rows = if rows == 1 { "1 row has".to_owned() } else { format!("{rows} rows have") };
        Error::data(format!("column {:?}: {rows} {what}", self.name))
    }

    // Arrow's own messages quote values, which do not belong into an error: only the column is told.
    fn invalid(&self, error: &arrow::error::ArrowError) -> Error {
        let what = match error {
            arrow::error::ArrowError::CastError(_) | arrow::error::ArrowError::ArithmeticOverflow(_) => {
                "a value does not fit the table's type"
            }
            arrow::error::ArrowError::InvalidArgumentError(_) => "the array is not valid for the table's type",
            _ => "the value cannot be written as the table's type",
        };
        Error::data(format!("column {:?}: {what}", self.name))
    }

    fn mismatch(&self, target: &DataType) -> Error {
        Error::internal(format!("column {:?}: planned for another type than {target}", self.name))
    }
}

/// The range of values that a list's offsets use.
fn span(offsets: &[i32]) -> Range<usize> {
    let bound = |offset: Option<&i32>| offset.and_then(|o| usize::try_from(*o).ok()).unwrap_or(0);
    bound(offsets.first())..bound(offsets.last())
}

fn rebase(offsets: &arrow::buffer::OffsetBuffer<i32>, start: usize) -> arrow::buffer::OffsetBuffer<i32> {
    if start == 0 {
        return offsets.clone();
    }
    arrow::buffer::OffsetBuffer::from_lengths(offsets.lengths())
}
