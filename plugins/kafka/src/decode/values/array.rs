//! The Arrow array of a column's values.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, ListArray, MapArray, StringArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;
use philotes_sdk::batch::UTC;

use super::super::kind::Kind;
use super::{Data, Values};

pub(super) fn array(data: Data, kind: &Kind, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let offsets = |ends: Vec<i32>| OffsetBuffer::new(ScalarBuffer::from(ends));
    Ok(match (data, kind) {
        (Data::Booleans(mut values), _) => Arc::new(BooleanArray::new(values.finish(), nulls)),
        (Data::Ints(values), Kind::Int) => Arc::new(Int32Array::try_new(values.into(), nulls)?),
        (Data::Ints(values), _) => Arc::new(Date32Array::try_new(values.into(), nulls)?),
        (Data::Longs(values), Kind::Time(_)) => Arc::new(Time64MicrosecondArray::try_new(values.into(), nulls)?),
        (Data::Longs(values), Kind::Timestamp { zone, .. }) => {
            let array = TimestampMicrosecondArray::try_new(values.into(), nulls)?;
            Arc::new(array.with_timezone_opt(zone.then_some(UTC)))
        }
        (Data::Longs(values), _) => Arc::new(Int64Array::try_new(values.into(), nulls)?),
        (Data::Floats(values), _) => Arc::new(Float32Array::try_new(values.into(), nulls)?),
        (Data::Doubles(values), _) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
        (Data::Decimals(values), _) => {
            Arc::new(Decimal128Array::try_new(values.into(), nulls)?.with_data_type(kind.arrow()))
        }
        (Data::Bytes { ends, bytes }, Kind::Binary) => {
            Arc::new(BinaryArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
        }
        (Data::Bytes { ends, bytes }, _) => {
            Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
        }
        (Data::Uuids(values), _) => Arc::new(FixedSizeBinaryArray::try_new(16, Buffer::from_vec(values), nulls)?),
        (Data::List { ends, mut elements }, _) => {
            let field = elements.kind.element_field();
            Arc::new(ListArray::try_new(field, offsets(ends), elements.finish()?, nulls)?)
        }
        (Data::Map { ends, mut keys, mut values }, _) => {
            let field = Kind::entries_field(&keys.kind, &values.kind);
            let fields = Kind::entry_fields(&keys.kind, &values.kind);
            let entries = StructArray::try_new(fields, vec![keys.finish()?, values.finish()?], None)?;
            Arc::new(MapArray::try_new(field, offsets(ends), entries, nulls, false)?)
        }
        (Data::Struct { mut members, .. }, kind) => {
            let arrays = members.iter_mut().map(Values::finish).collect::<Result<Vec<_>, _>>()?;
            let Kind::Struct(described) = kind else {
                return Err(ArrowError::InvalidArgumentError("a struct is no struct".to_owned()));
            };
            let fields = Kind::member_fields(described);
            Arc::new(StructArray::try_new(fields, arrays, nulls)?)
        }
    })
}
