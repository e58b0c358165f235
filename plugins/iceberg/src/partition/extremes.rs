//! Values at the edges of their types, as PostgreSQL has them: infinity (the source gives the first and the last number of the type
//! but one), 4714 BC, the year 5874897, and floats that are no numbers. What is expected is from the specification, the calendar
//! worked out apart in days of 400 years, the buckets from PyIceberg.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Float64Array, TimestampMicrosecondArray};
use arrow::datatypes::{Date32Type, Int32Type};
use iceberg::spec::{Literal, NestedField, PartitionSpec, PrimitiveType, Schema, Struct, Transform, Type};
use philotes_sdk::ErrorKind;

use super::transform::apply;
use super::{PartitionKey, Partitioner, bind, parse, partition_path};

const INFINITY: i64 = i64::MAX;
const MINUS_INFINITY: i64 = -i64::MAX;
const LAST_DAY: i32 = i32::MAX;
const FIRST_DAY: i32 = -i32::MAX;
/// 4714-11-24 BC, the first that PostgreSQL has.
const FIRST_OF_POSTGRESQL: i32 = -2_440_588;
/// 5874897-12-31, the last.
const LAST_OF_POSTGRESQL: i32 = 2_145_042_905;

fn numbers(transform: Transform, column: &ArrayRef) -> Vec<i32> {
    let found = apply(transform, column).unwrap();
    assert_eq!(found.null_count(), 0);
    match transform {
        Transform::Day => found.as_primitive::<Date32Type>().values().to_vec(),
        _ => found.as_primitive::<Int32Type>().values().to_vec(),
    }
}

#[test]
fn timestamps_at_the_ends() {
    for zone in [None, Some("+00:00")] {
        let column = TimestampMicrosecondArray::from(vec![INFINITY, MINUS_INFINITY]).with_timezone_opt(zone);
        let column: ArrayRef = Arc::new(column);
        // 294247-01-10 and 290309-12-21 BC.
        assert_eq!(numbers(Transform::Year, &column), [292_277, -292_278]);
        assert_eq!(numbers(Transform::Month, &column), [3_507_324, -3_507_325]);
        assert_eq!(numbers(Transform::Day, &column), [106_751_991, -106_751_992]);
        assert_eq!(numbers(Transform::Bucket(16), &column), [15, 2]);
        // An hour is an int: the value has none.
        assert_eq!(apply(Transform::Hour, &column).unwrap_err().kind(), ErrorKind::Data);
        let hours = [i64::from(i32::MAX) * 3_600_000_000 + 3_599_999_999, i64::from(i32::MIN) * 3_600_000_000];
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(hours.to_vec()).with_timezone_opt(zone));
        assert_eq!(numbers(Transform::Hour, &column), [i32::MAX, i32::MIN]);
        assert_eq!(numbers(Transform::Bucket(16), &column), [15, 1]);
    }
}

#[test]
fn dates_at_the_ends() {
    let days = vec![LAST_DAY, FIRST_DAY, FIRST_OF_POSTGRESQL, LAST_OF_POSTGRESQL];
    let column: ArrayRef = Arc::new(Date32Array::from(days.clone()));
    assert_eq!(numbers(Transform::Year, &column), [5_879_610, -5_879_611, -6_683, 5_872_927]);
    assert_eq!(numbers(Transform::Month, &column), [70_555_326, -70_555_327, -80_186, 70_475_135]);
    assert_eq!(numbers(Transform::Day, &column), days);
    assert_eq!(numbers(Transform::Bucket(16), &column)[..3], [14, 5, 13]);
}

fn schema() -> Schema {
    let of = |id, name: &str, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
    let fields = [
        of(1, "d", PrimitiveType::Date),
        of(2, "ts", PrimitiveType::Timestamp),
        of(3, "tz", PrimitiveType::Timestamptz),
        of(4, "f", PrimitiveType::Double),
    ];
    Schema::builder().with_fields(fields).build().unwrap()
}

fn spec(entry: &str) -> PartitionSpec {
    bind(&parse(&[entry.to_owned()]).unwrap(), &schema()).unwrap().bind(schema()).unwrap()
}

#[test]
fn paths_at_the_ends() {
    for (entry, value, path) in [
        ("d", Literal::int(LAST_DAY), "d=5881580-07-11"),
        ("d", Literal::int(FIRST_DAY), "d=-5877641-06-24"),
        ("d", Literal::int(FIRST_OF_POSTGRESQL), "d=-4713-11-24"),
        ("day(d)", Literal::int(LAST_OF_POSTGRESQL), "d_day=5874897-12-31"),
        ("month(d)", Literal::int(-80_186), "d_month=-4713-11"),
        ("year(d)", Literal::int(-5_879_611), "d_year=-5877641"),
        ("ts", Literal::long(INFINITY), "ts=294247-01-10T04%3A00%3A54.775807"),
        ("tz", Literal::long(MINUS_INFINITY), "tz=-290308-12-21T19%3A59%3A05.224193%2B00%3A00"),
        ("hour(ts)", Literal::int(i32::MIN), "ts_hour=-243014-03-24-16"),
        ("year(ts)", Literal::int(292_277), "ts_year=294247"),
        ("f", Literal::double(f64::NAN), "f=NaN"),
        ("f", Literal::double(f64::NEG_INFINITY), "f=-inf"),
        ("f", Literal::double(-0.0), "f=-0"),
    ] {
        let spec = spec(entry);
        let found = partition_path(&spec, &spec.partition_type(&schema()).unwrap(), &Struct::from_iter([Some(value)]));
        assert_eq!(found, path, "{entry}");
    }
}

/// To a reader a file's partition value stands for its rows' own: -0 and 0 are two, and every NaN is NaN.
#[test]
fn floats_are_told_apart_as_they_are_read() {
    let key = |value| PartitionKey::from(Struct::from_iter([Some(Literal::double(value))]));
    assert_ne!(key(0.0), key(-0.0));
    assert_eq!(key(f64::NAN), key(-f64::NAN));
    assert_ne!(key(f64::NAN), PartitionKey::from(Struct::from_iter([None::<Literal>])));
    assert_eq!(HashSet::from([key(0.0), key(-0.0), key(0.0), key(1.0)]).len(), 3);

    let values = vec![Some(0.0), Some(-0.0), None, Some(f64::NAN), Some(0.0), Some(-f64::NAN), Some(f64::INFINITY)];
    let floats: ArrayRef = Arc::new(Float64Array::from(values));
    let arrow = Arc::new(iceberg::arrow::schema_to_arrow_schema(&schema()).unwrap());
    let columns = arrow.fields().iter().map(|field| match field.name().as_str() {
        "f" => floats.clone(),
        _ => arrow::array::new_null_array(field.data_type(), floats.len()),
    });
    let batch = arrow::array::RecordBatch::try_new(arrow.clone(), columns.collect()).unwrap();
    let mut rows: HashMap<PartitionKey, usize> = HashMap::new();
    for (partition, part) in Partitioner::new(&spec("f"), &schema()).unwrap().split(&batch).unwrap() {
        *rows.entry(PartitionKey::from(partition)).or_default() += part.num_rows();
    }
    let mut counts: Vec<usize> = rows.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 1, 2, 2]);
}
