//! Splits batches by partition. Transforms run over whole columns and a value is made once per partition of a batch,
//! not once per row; a batch that lies in one partition, as most do, is passed on untouched.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{partition, take, take_record_batch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::row::{RowConverter, SortField};
use iceberg::spec::{
    Literal, NestedFieldRef, PartitionSpec, PrimitiveLiteral, Schema, Struct, StructType, Transform, Type,
};
use philotes_sdk::{Error, Result};

use super::{alike_bytes, transform};
use crate::schema::type_name;

/// Splits projected batches of one table by one of its partition specifications.
#[derive(Debug)]
pub(crate) struct Partitioner {
    fields: Vec<Field>,
    partition_type: StructType,
}

#[derive(Debug)]
struct Field {
    name: String,
    transform: Transform,
    /// Where the column stands: its place in the batch, then in each struct on the way.
    place: Vec<usize>,
}

impl Partitioner {
    /// A partitioner of batches in this schema.
    ///
    /// # Errors
    /// Config: a transform that this version does not know or that nothing can be divided by, a column that the schema no longer has.
    pub(crate) fn new(spec: &PartitionSpec, schema: &Schema) -> Result<Self> {
        let mut fields = Vec::with_capacity(spec.fields().len());
        for field in spec.fields() {
            if field.transform == Transform::Unknown {
                return Err(Error::config(format!(
                    "the table's partition field {:?} has a transform that is not known here; allowed are identity, \
                     bucket, truncate, year, month, day, hour, void",
                    field.name
                )));
            }
            // The specification's numbers are Java's ints; the crate takes any that is not negative.
            if let Transform::Bucket(number) | Transform::Truncate(number) = field.transform
                && !(1..=i32::MAX.unsigned_abs()).contains(&number)
            {
                return Err(Error::config(format!(
                    "the table's partition field {:?} has the transform {}; its number has to be 1 to {}: replace the field in \
                     the table, or write to another table",
                    field.name,
                    field.transform,
                    i32::MAX
                )));
            }
            let place = place_of(schema.as_struct().fields(), field.source_id).ok_or_else(|| {
                Error::config(format!("the table's partition field {:?} has lost its column", field.name))
            })?;
            fields.push(Field { name: field.name.clone(), transform: field.transform, place });
        }
        let sources = spec.fields().iter().map(|field| (field.transform, field.source_id));
        if let Some((one, other)) = alike_bytes(sources, schema) {
            return Err(Error::config(format!(
                "the table's partition fields {:?} and {:?} are both bytes of one length (a uuid has 16); allowed is one such field",
                fields[one].name, fields[other].name
            )));
        }
        let partition_type = spec.partition_type(schema).map_err(|e| {
            Error::config("the table's partition specification does not fit its columns").with_source(e)
        })?;
        Ok(Self { fields, partition_type })
    }

    /// The type of a partition: one field per field of the specification.
    pub(crate) fn partition_type(&self) -> &StructType {
        &self.partition_type
    }

    /// The rows by partition, in the order in which the partitions first appear; within one, in the batch's order.
    ///
    /// # Errors
    /// Data: a value that has no partition.
    pub(crate) fn split(&self, batch: &RecordBatch) -> Result<Vec<(Struct, RecordBatch)>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        if self.fields.is_empty() {
            return Ok(vec![(Struct::empty(), batch.clone())]);
        }
        let values = self.fields.iter().map(|field| field.values(batch)).collect::<Result<Vec<_>>>()?;
        let runs = partition(&values).map_err(failed)?.ranges();
        if let [_] = runs[..] {
            return Ok(vec![(self.partition(&values, 0)?, batch.clone())]);
        }
        let groups = group(&values, runs)?;
        groups.into_iter().map(|runs| Ok((self.partition(&values, runs[0].start)?, gather(batch, &runs)?))).collect()
    }

    fn partition(&self, values: &[ArrayRef], row: usize) -> Result<Struct> {
        self.partition_type
            .fields()
            .iter()
            .zip(values)
            .map(|(field, values)| literal(&field.field_type, values, row))
            .collect()
    }
}

impl Field {
    fn values(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let (first, rest) =
            self.place.split_first().ok_or_else(|| Error::internal("a partition field without place"))?;
        // A projected batch has NULL in every field of a NULL struct, so its validity needs no second look.
        let column =
            rest.iter().fold(batch.column(*first).clone(), |column, index| column.as_struct().column(*index).clone());
        transform::apply(self.transform, &column).map_err(|e| e.context(format!("partition field {:?}", self.name)))
    }
}

/// The runs of equal partitions, gathered by partition.
fn group(values: &[ArrayRef], runs: Vec<Range<usize>>) -> Result<Vec<Vec<Range<usize>>>> {
    let starts: UInt64Array = runs.iter().map(|run| run.start as u64).collect();
    let firsts = values.iter().map(|v| take(v, &starts, None).map_err(failed)).collect::<Result<Vec<_>>>()?;
    let sorts = firsts.iter().map(|v| SortField::new(v.data_type().clone())).collect();
    let rows = RowConverter::new(sorts).and_then(|converter| converter.convert_columns(&firsts)).map_err(failed)?;
    let mut seen = HashMap::new();
    let mut groups: Vec<Vec<Range<usize>>> = Vec::new();
    for (run, key) in runs.into_iter().zip(rows.iter()) {
        let index = *seen.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[index].push(run);
    }
    Ok(groups)
}

fn gather(batch: &RecordBatch, runs: &[Range<usize>]) -> Result<RecordBatch> {
    if let [run] = runs {
        return Ok(batch.slice(run.start, run.len()));
    }
    let rows: UInt64Array = runs.iter().cloned().flatten().map(|row| row as u64).collect();
    take_record_batch(batch, &rows).map_err(failed)
}

fn failed(error: arrow::error::ArrowError) -> Error {
    Error::internal("a batch cannot be split by partition").with_source(error)
}

/// Where a column stands: its place among the fields, then in each struct on the way.
pub(crate) fn place_of(fields: &[NestedFieldRef], id: i32) -> Option<Vec<usize>> {
    fields.iter().enumerate().find_map(|(index, field)| {
        if field.id == id {
            return Some(vec![index]);
        }
        let Type::Struct(inner) = &*field.field_type else { return None };
        let mut place = place_of(inner.fields(), id)?;
        place.insert(0, index);
        Some(place)
    })
}

/// The value at `row` as Iceberg's; `None` is NULL.
fn literal(r#type: &Type, values: &ArrayRef, row: usize) -> Result<Option<Literal>> {
    if values.is_null(row) {
        return Ok(None);
    }
    let long = |value| Literal::Primitive(PrimitiveLiteral::Long(value));
    let uuid = matches!(r#type, Type::Primitive(iceberg::spec::PrimitiveType::Uuid));
    Ok(Some(match values.data_type() {
        DataType::Boolean => Literal::bool(values.as_boolean().value(row)),
        DataType::Int32 => Literal::int(values.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => long(values.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => Literal::float(values.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Literal::double(values.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => {
            Literal::Primitive(PrimitiveLiteral::Int128(values.as_primitive::<Decimal128Type>().value(row)))
        }
        DataType::Date32 => Literal::Primitive(PrimitiveLiteral::Int(values.as_primitive::<Date32Type>().value(row))),
        DataType::Time64(TimeUnit::Microsecond) => long(values.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            long(values.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            long(values.as_primitive::<TimestampNanosecondType>().value(row))
        }
        DataType::Utf8 => Literal::string(values.as_string::<i32>().value(row)),
        DataType::LargeBinary => binary(values.as_binary::<i64>().value(row)),
        DataType::FixedSizeBinary(_) => {
            let bytes = values.as_fixed_size_binary().value(row);
            match <[u8; 16]>::try_from(bytes) {
                Ok(bytes) if uuid => Literal::Primitive(PrimitiveLiteral::UInt128(u128::from_be_bytes(bytes))),
                _ => binary(bytes),
            }
        }
        other => {
            return Err(Error::internal(format!("no partition value of type {} from {other}", type_name(r#type))));
        }
    }))
}

fn binary(bytes: &[u8]) -> Literal {
    Literal::Primitive(PrimitiveLiteral::Binary(bytes.to_vec()))
}
