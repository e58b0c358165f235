//! Converts columns to the types that the connector gives them. A value either survives or its row is refused.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryBuilder,
    Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Schema, SchemaRef, Time64MicrosecondType, TimestampMicrosecondType,
};
use philotes_sdk::batch::{META_INFERRED, UTC};
use philotes_sdk::{Error, Result};

use super::cell::{Cell, Kind, Target};
use super::rules::{Columns, Rule};
use super::{print, read, shape};
use crate::schema::{EXTENSION_KEY, UUID_EXTENSION};

/// How shaped batches of one schema are converted.
#[derive(Debug)]
pub(crate) struct Conversion {
    schema: SchemaRef,
    /// Which columns become what.
    columns: Vec<(usize, Target)>,
}

impl Conversion {
    /// What becomes of shaped batches; `rules` is `None` where nothing is said of the stream.
    ///
    /// # Errors
    /// Data: no such conversion exists.
    pub(crate) fn new(rules: Option<&Columns>, schema: &SchemaRef) -> Result<Self> {
        let Some(rules) = rules else { return Ok(Self { schema: schema.clone(), columns: Vec::new() }) };
        let mut columns = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let rule = rules.0.get(shape::original(field)).filter(|_| shape::is_own(field));
            let target = match rule {
                Some(Rule::Keep { target: Some(target), .. }) => *target,
                _ => {
                    fields.push(field.clone());
                    continue;
                }
            };
            if !Kind::of(field).is_some_and(|kind| kind.becomes(target)) {
                return Err(Error::data(format!(
                    "column {:?}: `columns` gives it the type {target}, which {} cannot become",
                    field.name(),
                    field.data_type()
                )));
            }
            if *field.data_type() != target.data_type() {
                columns.push((index, target));
            }
            fields.push(Arc::new(converted(field, target)));
        }
        Ok(Self { schema: Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())), columns })
    }

    /// The schema of converted batches.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows, converted.
    ///
    /// # Errors
    /// Data: a value does not survive; the message names the column and how many rows.
    pub(crate) fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        for (index, target) in &self.columns {
            let field = rows.schema_ref().field(*index);
            columns[*index] = convert(&columns[*index], field, *target)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| Error::internal("a converted batch is none").with_source(e))
    }
}

fn converted(field: &Field, target: Target) -> Field {
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    metadata.retain(|key, _| !key.starts_with("ARROW:extension:") && key != META_INFERRED);
    if target == Target::Uuid {
        metadata.insert(EXTENSION_KEY.to_owned(), UUID_EXTENSION.to_owned());
    }
    Field::new(field.name(), target.data_type(), field.is_nullable()).with_metadata(metadata)
}

fn convert(array: &ArrayRef, field: &Field, target: Target) -> Result<ArrayRef> {
    let lost = |rows: usize| {
        let rows = if rows == 1 { "1 row has".to_owned() } else { format!("{rows} rows have") };
        let zone = if target == Target::Timestamptz { ", with a zone" } else { "" };
        Error::data(format!(
            "column {:?}: {rows} a value that is not exactly a {target}{zone}, as which `columns` has it written",
            field.name()
        ))
    };
    let cells = Cells { array, kind: Kind::of(field) };
    let converted: ArrayRef = match target {
        Target::Boolean => Arc::new(BooleanArray::from(cells.all(to_boolean).map_err(lost)?)),
        Target::Int => Arc::new(Int32Array::from(
            cells.all(|cell| to_int(cell).and_then(|value| i32::try_from(value).ok())).map_err(lost)?,
        )),
        Target::Long => Arc::new(Int64Array::from(cells.all(to_int).map_err(lost)?)),
        Target::Float => Arc::new(Float32Array::from(cells.all(to_real).map_err(lost)?)),
        Target::Double => Arc::new(Float64Array::from(cells.all(to_float).map_err(lost)?)),
        Target::Decimal { precision, scale } => {
            let values = cells.all(|cell| to_decimal(cell, precision, scale)).map_err(lost)?;
            let array = Decimal128Array::from(values).with_precision_and_scale(precision, scale);
            Arc::new(array.map_err(|e| Error::internal("a decimal that is none").with_source(e))?)
        }
        Target::Date => Arc::new(Date32Array::from(cells.all(to_date).map_err(lost)?)),
        Target::Time => Arc::new(Time64MicrosecondArray::from(cells.all(to_time).map_err(lost)?)),
        Target::Timestamp => Arc::new(TimestampMicrosecondArray::from(cells.all(to_timestamp).map_err(lost)?)),
        Target::Timestamptz => {
            Arc::new(TimestampMicrosecondArray::from(cells.all(to_timestamptz).map_err(lost)?).with_timezone(UTC))
        }
        Target::String => Arc::new(StringArray::from(cells.all(|cell| Some(print::text(cell))).map_err(lost)?)),
        Target::Uuid => {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(array.len(), 16);
            for value in cells.all(to_uuid).map_err(lost)? {
                match value {
                    Some(value) => builder
                        .append_value(value)
                        .map_err(|e| Error::internal("a uuid of another length").with_source(e))?,
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        Target::Binary => Arc::new(cells.all(to_bytes).map_err(lost)?.into_iter().collect::<BinaryArray>()),
    };
    Ok(converted)
}

/// The values of a column.
struct Cells<'a> {
    array: &'a ArrayRef,
    kind: Option<Kind>,
}

impl Cells<'_> {
    /// What they all become, or how many of them do not survive.
    fn all<T>(&self, become_: impl Fn(Cell<'_>) -> Option<T>) -> std::result::Result<Vec<Option<T>>, usize> {
        let mut lost = 0;
        let mut values = Vec::with_capacity(self.array.len());
        for row in 0..self.array.len() {
            let value = if self.array.is_valid(row) { Some(self.cell(row).and_then(&become_)) } else { None };
            lost += usize::from(matches!(value, Some(None)));
            values.push(value.flatten());
        }
        if lost == 0 { Ok(values) } else { Err(lost) }
    }

    fn cell(&self, row: usize) -> Option<Cell<'_>> {
        let array = self.array;
        Some(match array.data_type() {
            DataType::Boolean => Cell::Boolean(array.as_boolean().value(row)),
            DataType::Int8 => Cell::Int(i64::from(array.as_primitive::<Int8Type>().value(row))),
            DataType::Int16 => Cell::Int(i64::from(array.as_primitive::<Int16Type>().value(row))),
            DataType::Int32 => Cell::Int(i64::from(array.as_primitive::<Int32Type>().value(row))),
            DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::Float32 => Cell::Real(array.as_primitive::<Float32Type>().value(row)),
            DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Decimal128(_, scale) => {
                Cell::Decimal { value: array.as_primitive::<Decimal128Type>().value(row), scale: *scale }
            }
            DataType::Date32 => Cell::Date(array.as_primitive::<Date32Type>().value(row)),
            DataType::Time64(_) => Cell::Time(array.as_primitive::<Time64MicrosecondType>().value(row)),
            DataType::Timestamp(_, zone) => {
                let value = array.as_primitive::<TimestampMicrosecondType>().value(row);
                if zone.is_some() { Cell::Timestamptz(value) } else { Cell::Timestamp(value) }
            }
            DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(row)),
            DataType::FixedSizeBinary(_) if self.kind == Some(Kind::Uuid) => {
                Cell::Uuid(array.as_fixed_size_binary().value(row))
            }
            DataType::FixedSizeBinary(_) => Cell::Bytes(array.as_fixed_size_binary().value(row)),
            DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row)),
            DataType::LargeBinary => Cell::Bytes(array.as_binary::<i64>().value(row)),
            _ => return None,
        })
    }
}

fn to_boolean(cell: Cell<'_>) -> Option<bool> {
    match cell {
        Cell::Boolean(value) => Some(value),
        Cell::Text(text) => read::boolean(text),
        _ => None,
    }
}

fn to_int(cell: Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Int(value) => Some(value),
        Cell::Real(value) => whole(f64::from(value)),
        Cell::Float(value) => whole(value),
        Cell::Decimal { value, scale } => {
            let unit = 10_i128.checked_pow(u32::from(scale.unsigned_abs()))?;
            i64::try_from(value / unit).ok().filter(|_| value % unit == 0)
        }
        Cell::Text(text) => read::int(text),
        _ => None,
    }
}

fn whole(value: f64) -> Option<i64> {
    // A cast saturates, and NaN becomes 0: neither comes back as what it was.
    let whole = value as i128;
    i64::try_from(whole).ok().filter(|_| whole as f64 == value)
}

fn to_float(cell: Cell<'_>) -> Option<f64> {
    match cell {
        Cell::Int(value) => Some(value as f64).filter(|float| *float as i128 == i128::from(value)),
        Cell::Real(value) => Some(f64::from(value)),
        Cell::Float(value) => Some(value),
        Cell::Decimal { value, scale } => {
            let float: f64 = print::decimal(value, scale).parse().ok()?;
            (read::decimal(&format!("{float:e}"), 38, scale) == Some(value)).then_some(float)
        }
        Cell::Text(text) => read::float(text),
        _ => None,
    }
}

fn to_real(cell: Cell<'_>) -> Option<f32> {
    match cell {
        Cell::Int(value) => Some(value as f32).filter(|float| *float as i128 == i128::from(value)),
        Cell::Real(value) => Some(value),
        Cell::Float(value) => Some(value as f32).filter(|real| f64::from(*real) == value || value.is_nan()),
        Cell::Decimal { value, scale } => {
            let real: f32 = print::decimal(value, scale).parse().ok()?;
            (read::decimal(&format!("{real:e}"), 38, scale) == Some(value)).then_some(real)
        }
        Cell::Text(text) => read::real(text),
        _ => None,
    }
}

fn to_decimal(cell: Cell<'_>, precision: u8, scale: i8) -> Option<i128> {
    match cell {
        Cell::Int(value) => read::decimal(&value.to_string(), precision, scale),
        // By its shortest digits, which are the ones that it is printed with.
        Cell::Real(value) => read::decimal(&format!("{value:e}"), precision, scale),
        Cell::Float(value) => read::decimal(&format!("{value:e}"), precision, scale),
        Cell::Decimal { value, scale: from } => read::decimal(&print::decimal(value, from), precision, scale),
        Cell::Text(text) => read::decimal(text, precision, scale),
        _ => None,
    }
}

fn to_date(cell: Cell<'_>) -> Option<i32> {
    match cell {
        Cell::Date(value) => Some(value),
        Cell::Text(text) => read::date(text),
        _ => None,
    }
}

fn to_time(cell: Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Time(value) => Some(value),
        Cell::Text(text) => read::time(text),
        _ => None,
    }
}

fn to_timestamp(cell: Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Timestamp(value) | Cell::Timestamptz(value) => Some(value),
        Cell::Date(days) => read::midnight(days),
        Cell::Text(text) => read::timestamp(text),
        _ => None,
    }
}

fn to_timestamptz(cell: Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Timestamp(value) | Cell::Timestamptz(value) => Some(value),
        Cell::Text(text) => read::timestamptz(text),
        _ => None,
    }
}

fn to_uuid(cell: Cell<'_>) -> Option<[u8; 16]> {
    match cell {
        Cell::Uuid(bytes) => bytes.try_into().ok(),
        Cell::Text(text) => read::uuid(text),
        _ => None,
    }
}

fn to_bytes(cell: Cell<'_>) -> Option<Vec<u8>> {
    match cell {
        Cell::Bytes(bytes) => Some(bytes.to_vec()),
        Cell::Text(text) => read::bytes(text),
        _ => None,
    }
}
