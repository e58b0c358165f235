//! Columns of a table as they are now, and how the arrays of a file become theirs.
//!
//! A file is as the table was when it was written. Its columns are found by their ids, nested ones too, so that it does not matter
//! what they were called and where they stood; types that were widened since are widened here; what the file lacks is NULL,
//! or the value that the table gives to rows before the column.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, StructArray, UInt32Array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit,
    TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::error::ArrowError;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{Literal, NestedField, NestedFieldRef, Schema, Type};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use philotes_sdk::{Error, Result};

use super::literal;
use crate::schema::type_name;

/// Columns of a table, in an order of their own.
#[derive(Debug)]
pub(super) struct Columns {
    fields: Vec<NestedFieldRef>,
    schema: SchemaRef,
}

impl Columns {
    /// The top-level columns with these ids.
    pub(super) fn of(schema: &Schema, ids: &[i32]) -> Result<Self> {
        let arrow = schema_to_arrow_schema(schema)
            .map_err(|e| Error::data("the table's schema cannot be read as Arrow").with_source(e))?;
        let all = schema.as_struct().fields();
        let mut fields = Vec::with_capacity(ids.len());
        let mut arrows = Vec::with_capacity(ids.len());
        for id in ids {
            let place = all.iter().position(|field| field.id == *id);
            let place = place.ok_or_else(|| Error::internal(format!("no column of the table has the id {id}")))?;
            fields.push(all[place].clone());
            arrows.push(arrow.fields()[place].clone());
        }
        Ok(Self { fields, schema: Arc::new(ArrowSchema::new(arrows)) })
    }

    /// Their Arrow schema.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn fields(&self) -> &[NestedFieldRef] {
        &self.fields
    }

    /// The columns' arrays, of rows as they stand in a file.
    ///
    /// # Errors
    /// Data: a column that the file has in a type that cannot have become the table's.
    pub(super) fn of_file(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let siblings = Siblings { fields: rows.schema_ref().fields(), arrays: rows.columns(), rows: rows.num_rows() };
        let columns = self.fields.iter().zip(self.schema.fields());
        columns.map(|(field, target)| siblings.array(field, target, &field.name)).collect()
    }

    /// An array of one of the columns, as it stands in a file.
    pub(super) fn array(&self, column: usize, array: &ArrayRef) -> Result<ArrayRef> {
        let field = &self.fields[column];
        fitted(array, field, self.schema.field(column).data_type(), &field.name)
    }
}

/// The Iceberg field that a field of a file is.
pub(super) fn id_of(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// Refuses fields of which it cannot be told what they are.
pub(super) fn check_ids<'a>(fields: impl IntoIterator<Item = &'a FieldRef>, parent: &str) -> Result<()> {
    match fields.into_iter().find(|field| id_of(field).is_none()) {
        Some(field) => Err(Error::data(format!(
            "column {:?} has no field id; allowed are files whose columns all have Iceberg's field ids",
            path(parent, field.name())
        ))),
        None => Ok(()),
    }
}

fn path(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// The fields of a file that stand beside each other.
struct Siblings<'a> {
    fields: &'a Fields,
    arrays: &'a [ArrayRef],
    rows: usize,
}

impl Siblings<'_> {
    /// The array of this field, whichever of them it is.
    fn array(&self, field: &NestedField, target: &Field, at: &str) -> Result<ArrayRef> {
        match self.fields.iter().position(|candidate| id_of(candidate) == Some(field.id)) {
            Some(place) => fitted(&self.arrays[place], field, target.data_type(), at),
            None => missing(field, target.data_type(), self.rows, at),
        }
    }
}

/// What a column is in rows that were written before it was added.
fn missing(field: &NestedField, target: &DataType, rows: usize, at: &str) -> Result<ArrayRef> {
    let Some(default) = &field.initial_default else { return Ok(new_null_array(target, rows)) };
    let one = match default {
        Literal::Primitive(value) => literal::array(value, target),
        _ => None,
    };
    let one = one.ok_or_else(|| {
        Error::data(format!(
            "column {at:?} has a default for rows that lack it, which is not known here; allowed are defaults of primitive types"
        ))
    })?;
    take(&one, &UInt32Array::from(vec![0; rows]), None).map_err(|e| invalid(at, &e))
}

fn fitted(array: &ArrayRef, field: &NestedField, target: &DataType, at: &str) -> Result<ArrayRef> {
    match (&*field.field_type, array.data_type(), target) {
        (Type::Struct(inner), DataType::Struct(from), DataType::Struct(targets)) => {
            check_ids(from, at)?;
            let array = array.as_struct();
            let siblings = Siblings { fields: from, arrays: array.columns(), rows: array.len() };
            let children = inner.fields().iter().zip(targets);
            let children = children
                .map(|(field, target)| siblings.array(field, target, &path(at, &field.name)))
                .collect::<Result<Vec<_>>>()?;
            if targets.is_empty() {
                return Ok(Arc::new(StructArray::new_empty_fields(array.len(), array.nulls().cloned())));
            }
            let array = StructArray::try_new(targets.clone(), children, array.nulls().cloned());
            Ok(Arc::new(array.map_err(|e| invalid(at, &e))?))
        }
        (Type::List(list), DataType::List(from), DataType::List(target)) => {
            let values = nested(array.as_list::<i32>().values(), from, &list.element_field, target, at)?;
            let array = array.as_list::<i32>();
            let array = ListArray::try_new(target.clone(), array.offsets().clone(), values, array.nulls().cloned());
            Ok(Arc::new(array.map_err(|e| invalid(at, &e))?))
        }
        (Type::Map(map), DataType::Map(entries, _), DataType::Map(target, sorted)) => {
            let (DataType::Struct(from), DataType::Struct(targets)) = (entries.data_type(), target.data_type()) else {
                return Err(mismatch(array, field, at));
            };
            let array = array.as_map();
            let keys = nested(array.keys(), &from[0], &map.key_field, &targets[0], at)?;
            let values = nested(array.values(), &from[1], &map.value_field, &targets[1], at)?;
            let entries =
                StructArray::try_new(targets.clone(), vec![keys, values], None).map_err(|e| invalid(at, &e))?;
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            let array = MapArray::try_new(target.clone(), offsets, entries, nulls, *sorted);
            Ok(Arc::new(array.map_err(|e| invalid(at, &e))?))
        }
        (Type::Primitive(_), _, _) => {
            converted(array, target).ok_or_else(|| mismatch(array, field, at))?.map_err(|e| invalid(at, &e))
        }
        _ => Err(mismatch(array, field, at)),
    }
}

/// The elements of a list, or the keys or values of a map: each has one place and an id.
fn nested(array: &ArrayRef, from: &FieldRef, field: &NestedField, target: &Field, at: &str) -> Result<ArrayRef> {
    check_ids([from], at)?;
    let at = path(at, &field.name);
    if id_of(from) != Some(field.id) {
        return Err(Error::data(format!("column {at:?} has another field's id in the file; allowed is {}", field.id)));
    }
    fitted(array, field, target.data_type(), &at)
}

/// The array in a type that its own may have been widened to; `None` where it may not.
fn converted(array: &ArrayRef, target: &DataType) -> Option<Result<ArrayRef, ArrowError>> {
    Some(match (array.data_type(), target) {
        (one, other) if one == other => Ok(array.clone()),
        (DataType::Decimal128(less, scale), DataType::Decimal128(precision, same))
            if less <= precision && scale == same =>
        {
            let array = array.as_primitive::<Decimal128Type>().clone();
            array.with_precision_and_scale(*precision, *scale).map(|array| Arc::new(array) as ArrayRef)
        }
        // Another spelling of the same zone: Parquet only knows UTC and none.
        (DataType::Timestamp(TimeUnit::Microsecond, from), DataType::Timestamp(TimeUnit::Microsecond, zone))
            if from.is_some() == zone.is_some() =>
        {
            let array = array.as_primitive::<TimestampMicrosecondType>().clone();
            Ok(Arc::new(array.with_timezone_opt(zone.clone())))
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, from), DataType::Timestamp(TimeUnit::Nanosecond, zone))
            if from.is_some() == zone.is_some() =>
        {
            let array = array.as_primitive::<TimestampNanosecondType>().clone();
            Ok(Arc::new(array.with_timezone_opt(zone.clone())))
        }
        (DataType::Int32, DataType::Int64)
        | (DataType::Float32, DataType::Float64)
        | (DataType::Binary, DataType::LargeBinary)
        | (DataType::Date32, DataType::Timestamp(_, None)) => {
            cast_with_options(array, target, &CastOptions { safe: false, ..CastOptions::default() })
        }
        _ => return None,
    })
}

fn mismatch(array: &ArrayRef, field: &NestedField, at: &str) -> Error {
    Error::data(format!(
        "column {at:?} has the type {} in the file; allowed are the table's {} and what it was widened from",
        array.data_type(),
        type_name(&field.field_type)
    ))
}

// Arrow's own messages quote values, which do not belong into an error.
fn invalid(at: &str, error: &ArrowError) -> Error {
    let what = match error {
        ArrowError::CastError(_) | ArrowError::ArithmeticOverflow(_) => "a value that does not fit the table's type",
        _ => "values that the table's type does not allow",
    };
    Error::data(format!("column {at:?} has {what}"))
}
