//! Single values of Iceberg as Arrow has them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array,
    Int64Array, LargeBinaryArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use iceberg::spec::PrimitiveLiteral;

/// An array of this value alone. It may be of a type that has been widened to the array's since; `None` where it is of another.
pub(crate) fn array(literal: &PrimitiveLiteral, r#type: &DataType) -> Option<ArrayRef> {
    use PrimitiveLiteral as L;
    Some(match (r#type, literal) {
        (DataType::Boolean, L::Boolean(value)) => Arc::new(BooleanArray::from(vec![*value])),
        (DataType::Int32, L::Int(value)) => Arc::new(Int32Array::from(vec![*value])),
        (DataType::Int64, L::Int(value)) => Arc::new(Int64Array::from(vec![i64::from(*value)])),
        (DataType::Int64, L::Long(value)) => Arc::new(Int64Array::from(vec![*value])),
        (DataType::Float32, L::Float(value)) => Arc::new(Float32Array::from(vec![value.0])),
        (DataType::Float64, L::Float(value)) => Arc::new(Float64Array::from(vec![f64::from(value.0)])),
        (DataType::Float64, L::Double(value)) => Arc::new(Float64Array::from(vec![value.0])),
        (DataType::Date32, L::Int(value)) => Arc::new(Date32Array::from(vec![*value])),
        (DataType::Time64(TimeUnit::Microsecond), L::Long(value)) => {
            Arc::new(Time64MicrosecondArray::from(vec![*value]))
        }
        (DataType::Timestamp(TimeUnit::Microsecond, zone), L::Long(value)) => {
            Arc::new(TimestampMicrosecondArray::from(vec![*value]).with_timezone_opt(zone.clone()))
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), L::Long(value)) => {
            Arc::new(TimestampNanosecondArray::from(vec![*value]).with_timezone_opt(zone.clone()))
        }
        (DataType::Utf8, L::String(value)) => Arc::new(StringArray::from(vec![value.as_str()])),
        (DataType::LargeBinary, L::Binary(value)) => Arc::new(LargeBinaryArray::from(vec![value.as_slice()])),
        (DataType::FixedSizeBinary(_), L::Binary(value)) => fixed(value, r#type)?,
        (DataType::FixedSizeBinary(_), L::UInt128(value)) => fixed(&value.to_be_bytes(), r#type)?,
        (DataType::Decimal128(precision, scale), L::Int128(value)) => {
            Arc::new(Decimal128Array::from(vec![*value]).with_precision_and_scale(*precision, *scale).ok()?)
        }
        _ => return None,
    })
}

fn fixed(bytes: &[u8], r#type: &DataType) -> Option<ArrayRef> {
    let array = FixedSizeBinaryArray::try_from_iter(std::iter::once(bytes)).ok()?;
    let array: ArrayRef = Arc::new(array);
    (array.data_type() == r#type).then_some(array)
}
