//! Bounds at the edges of types, as the specification has them: NaN is in no bound, -0 is below 0.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Float32Array, Float64Array, RecordBatch, TimestampMicrosecondArray};
use iceberg::spec::{DataFile, NestedField, PrimitiveType, Schema, Type};
use tempfile::TempDir;

use super::{Content, TableWriter, WriterOptions, WriterTarget};
use crate::storage::Files;

const UTC: &str = "+00:00";

fn schema() -> Schema {
    let of = |id, name: &str, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
    let inner = iceberg::spec::StructType::new(vec![of(7, "d", PrimitiveType::Date)]);
    let fields = [
        // The name is a path to another column, too.
        of(1, "s.d", PrimitiveType::Double),
        of(2, "f", PrimitiveType::Float),
        of(3, "day", PrimitiveType::Date),
        of(4, "ts", PrimitiveType::Timestamp),
        of(5, "tz", PrimitiveType::Timestamptz),
        Arc::new(NestedField::optional(6, "s2", Type::Struct(inner))),
    ];
    Schema::builder().with_fields(fields).build().unwrap()
}

async fn written(floats: &[f64], days: &[i32], micros: &[i64]) -> DataFile {
    let folder = TempDir::new().unwrap();
    let schema = schema();
    let spec = iceberg::spec::PartitionSpec::unpartition_spec();
    let location = format!("file://{}", folder.path().display());
    let arrow = Arc::new(iceberg::arrow::schema_to_arrow_schema(&schema).unwrap());
    let target =
        WriterTarget { location, schema: Arc::new(schema), spec: Arc::new(spec), order: None, content: Content::Rows };
    let mut writer = TableWriter::new(Files::local().io, target, WriterOptions::default()).unwrap();
    let dates: ArrayRef = Arc::new(Date32Array::from(days.to_vec()));
    let arrow::datatypes::DataType::Struct(inner) = arrow.field(5).data_type() else { panic!("a struct") };
    let nested = arrow::array::StructArray::new(inner.clone(), vec![dates.clone()], None);
    #[allow(clippy::cast_possible_truncation)]
    let narrow: Vec<f32> = floats.iter().map(|float| *float as f32).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Float64Array::from(floats.to_vec())),
        Arc::new(Float32Array::from(narrow)),
        dates,
        Arc::new(TimestampMicrosecondArray::from(micros.to_vec())),
        Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone(UTC)),
        Arc::new(nested),
    ];
    writer.write(&RecordBatch::try_new(arrow, columns).unwrap()).await.unwrap();
    writer.finish().await.unwrap().remove(0)
}

/// The bounds of a column, as they stand in a manifest.
fn bounds(file: &DataFile, id: i32) -> Option<(Vec<u8>, Vec<u8>)> {
    let bytes = |datum: &iceberg::spec::Datum| datum.to_bytes().unwrap().to_vec();
    Some((bytes(file.lower_bounds().get(&id)?), bytes(file.upper_bounds().get(&id)?)))
}

#[tokio::test]
async fn floats_have_the_specifications_bounds() {
    for (floats, expected) in [
        (vec![0.0, -0.0, f64::NAN], Some((-0.0, 0.0))),
        (vec![1.0, f64::NAN, -f64::NAN, -2.0], Some((-2.0, 1.0))),
        (vec![f64::NEG_INFINITY, f64::INFINITY], Some((f64::NEG_INFINITY, f64::INFINITY))),
        (vec![f64::NAN, f64::NAN], None),
    ] {
        let nans = floats.iter().filter(|float| float.is_nan()).count() as u64;
        let (days, micros) = (vec![0; floats.len()], vec![0; floats.len()]);
        let file = written(&floats, &days, &micros).await;
        let double = expected.map(|(low, high): (f64, f64)| (low.to_le_bytes().to_vec(), high.to_le_bytes().to_vec()));
        assert_eq!(bounds(&file, 1), double, "{floats:?}");
        #[allow(clippy::cast_possible_truncation)]
        let float =
            expected.map(|(low, high)| ((low as f32).to_le_bytes().to_vec(), (high as f32).to_le_bytes().to_vec()));
        assert_eq!(bounds(&file, 2), float, "{floats:?}");
        assert_eq!((file.nan_value_counts()[&1], file.nan_value_counts()[&2]), (nans, nans));
    }
    // A zero of either sign alone: the bounds hold, if loosely.
    for zero in [0.0_f64, -0.0] {
        let (low, high) = bounds(&written(&[zero], &[0], &[0]).await, 1).unwrap();
        let (low, high) = (f64::from_le_bytes(low.try_into().unwrap()), f64::from_le_bytes(high.try_into().unwrap()));
        assert!(low.total_cmp(&zero).is_le() && high.total_cmp(&zero).is_ge(), "{zero:?}: {low:?} {high:?}");
    }
}

#[tokio::test]
async fn dates_and_timestamps_have_bounds_to_their_ends() {
    let (days, micros) = ([i32::MAX, -i32::MAX, -2_440_588], [i64::MAX, -i64::MAX, 0]);
    let file = written(&[0.0; 3], &days, &micros).await;
    let expected = ((-i32::MAX).to_le_bytes().to_vec(), i32::MAX.to_le_bytes().to_vec());
    assert_eq!((bounds(&file, 3), bounds(&file, 7)), (Some(expected.clone()), Some(expected)));
    let expected = ((-i64::MAX).to_le_bytes().to_vec(), i64::MAX.to_le_bytes().to_vec());
    assert_eq!((bounds(&file, 4), bounds(&file, 5)), (Some(expected.clone()), Some(expected)));
    // Every leaf has its own counts, whatever its name.
    assert_eq!(file.value_counts().len(), 6);
}
