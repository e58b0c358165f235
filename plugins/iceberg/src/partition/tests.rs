use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Int32Array, Int64Array,
    LargeBinaryArray, RecordBatch, StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Fields, Int32Type, Int64Type, Schema as ArrowSchema, TimeUnit,
};
use iceberg::spec::{Literal, NestedField, PartitionSpec, PrimitiveLiteral, PrimitiveType, Struct};
use philotes_sdk::ErrorKind;

use super::transform::{apply, civil, hash};
use super::*;

fn strings(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|&e| e.to_owned()).collect()
}

fn parsed(entry: &str) -> PartitionField {
    parse(&strings(&[entry])).unwrap().remove(0)
}

fn config_error<T: fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

fn schema() -> Schema {
    use PrimitiveType::{
        Binary, Boolean, Date, Decimal, Double, Int, Long, String, Time, Timestamp, Timestamptz, Uuid,
    };
    let fields = [
        ("id", Int),
        ("big", Long),
        ("price", Decimal { precision: 9, scale: 2 }),
        ("day", Date),
        ("clock", Time),
        ("at", Timestamp),
        ("atz", Timestamptz),
        ("name", String),
        ("key", Uuid),
        ("raw", Binary),
        ("flag", Boolean),
        ("ratio", Double),
    ];
    let mut fields: Vec<_> = fields
        .into_iter()
        .enumerate()
        .map(|(i, (name, r#type))| NestedField::optional(i as i32 + 1, name, Type::Primitive(r#type)).into())
        .collect();
    let inner = iceberg::spec::StructType::new(vec![NestedField::optional(21, "city", Type::Primitive(String)).into()]);
    fields.push(NestedField::optional(20, "address", Type::Struct(inner)).into());
    let element = NestedField::list_element(31, Type::Primitive(Int), false).into();
    fields.push(NestedField::optional(30, "tags", Type::List(iceberg::spec::ListType::new(element))).into());
    Schema::builder().with_fields(fields).build().unwrap()
}

fn spec(entries: &[&str]) -> PartitionSpec {
    bind(&parse(&strings(entries)).unwrap(), &schema()).unwrap().bind(schema()).unwrap()
}

#[test]
fn every_transform_is_read_and_printed_back() {
    let cases = [
        ("day(_cdc_timestamp) as date", Transform::Day, "_cdc_timestamp", "date"),
        ("bucket(16, id)", Transform::Bucket(16), "id", "id_bucket"),
        ("truncate(10, name)", Transform::Truncate(10), "name", "name_trunc"),
        ("x", Transform::Identity, "x", "x"),
        ("year(at)", Transform::Year, "at", "at_year"),
        ("month(at)", Transform::Month, "at", "at_month"),
        ("hour(address.since)", Transform::Hour, "address.since", "address.since_hour"),
        ("void(x)", Transform::Void, "x", "x_null"),
        ("day as d", Transform::Identity, "day", "d"),
        ("\"my \"\"col\"\"\" as \"as\"", Transform::Identity, "my \"col\"", "as"),
    ];
    for (entry, transform, column, name) in cases {
        let field = parsed(entry);
        assert_eq!((field.transform, &*field.column, &*field.name), (transform, column, name), "{entry}");
        assert_eq!(field.to_string(), entry);
    }
    let identity = PartitionField { transform: Transform::Identity, column: "x".into(), name: "x".into() };
    assert_eq!(parsed("identity(x)"), identity);
    assert_eq!(parsed(" DAY ( at )  AS  d "), parsed("day(at) as d"));
    assert_eq!(parsed("bucket( 2147483647 ,id)").transform, Transform::Bucket(2_147_483_647));
}

#[test]
fn what_does_not_read_is_refused_with_what_is_allowed() {
    let cases = [
        ("", "found the end where a column or a transform must stand"),
        ("week(at)", "no transform \"week\""),
        ("day(at", "found the end where \")\" must stand"),
        ("day()", "found \")\" where a column must stand"),
        ("day(at) date", "found \"date\" where \"as name\" or the end must stand"),
        ("day(at) as", "found the end where a name must stand"),
        ("day(at) as d x", "found \"x\" where the end must stand"),
        ("day(a, b)", "found \", b)\" where \")\" must stand"),
        ("bucket(id)", "the number of buckets is \"id\", it must be 1 to 2147483647"),
        ("bucket(0, id)", "the number of buckets is \"0\""),
        ("bucket(2147483648, id)", "the number of buckets is \"2147483648\""),
        ("bucket(16)", "found \")\" where \",\" and a column must stand"),
        ("truncate(-1, name)", "the width is \"-1\""),
        ("\"open", "a quote is not closed"),
        ("\"\"", "found \"\\\"\\\"\" where a column or a transform must stand"),
    ];
    for (entry, what) in cases {
        let message = config_error(parse(&strings(&[entry])));
        assert!(message.starts_with(&format!("partition_by: {entry:?}: {what}")), "{message}");
        assert!(message.contains("allowed are column, identity(column), bucket(buckets, column)"), "{message}");
    }
    let twice = config_error(parse(&strings(&["day(at) as d", "id as D"])));
    assert!(twice.contains("\"id as D\"") && twice.contains("\"day(at) as d\""), "{twice}");
}

#[test]
fn a_specification_is_bound_to_columns_that_take_it() {
    let fields = parse(&strings(&["day(atz) as date", "bucket(4, key)", "address.city", "void(flag)"])).unwrap();
    let unbound = bind(&fields, &schema()).unwrap();
    let bound: Vec<_> = unbound.fields().iter().map(|f| (f.source_id, f.name.as_str(), f.transform)).collect();
    assert_eq!(
        bound,
        [
            (7, "date", Transform::Day),
            (9, "key_bucket", Transform::Bucket(4)),
            (21, "address.city", Transform::Identity),
            (11, "flag_null", Transform::Void)
        ]
    );
    assert!(bind(&[], &schema()).unwrap().fields().is_empty());
}

#[test]
fn a_specification_that_does_not_fit_is_refused() {
    let cases = [
        ("day(nowhere)", "no column \"nowhere\"; the columns are id, big, price"),
        ("day(name)", "day does not apply to column \"name\" of type string; allowed are date, timestamp, timestamptz"),
        ("hour(day)", "hour does not apply to column \"day\" of type date; allowed are timestamp, timestamptz"),
        ("truncate(3, key)", "does not apply to column \"key\" of type uuid; allowed are int, long, decimal, string"),
        ("bucket(3, ratio)", "does not apply to column \"ratio\" of type double"),
        ("tags", "identity does not apply to column \"tags\" of type list<int>"),
        ("address", "of type struct<city: string>"),
        ("tags.element", "lies in a list or a map"),
        ("day(at) as name", "conflicts with schema field"),
    ];
    for (entry, what) in cases {
        let message = config_error(bind(&[parsed(entry)], &schema()));
        assert!(message.starts_with("partition_by") && message.contains(what), "{entry}: {message}");
    }
    let both = parse(&strings(&["day(at)", "hour(at)"])).unwrap();
    assert!(config_error(bind(&both, &schema())).contains("redundant"));
}

fn buckets(column: &ArrayRef) -> i32 {
    // With the highest count the bucket is the hash without its sign bit.
    apply(Transform::Bucket(i32::MAX.unsigned_abs()), column).unwrap().as_primitive::<Int32Type>().value(0)
}

/// The values of appendix B of the specification, and one negative value of which only the sign bit is cut.
#[test]
fn hashes_are_those_of_the_specification() {
    let positive = |hash: i32| (hash & i32::MAX) % i32::MAX;
    let decimal = |v| Arc::new(Decimal128Array::from(vec![v]).with_precision_and_scale(9, 2).unwrap()) as ArrayRef;
    let uuid: [u8; 16] = *uuid::Uuid::parse_str("f79c3e09-677c-4bbd-a479-3f349cb785e7").unwrap().as_bytes();
    let fixed = |bytes: &[u8]| Arc::new(FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap()) as ArrayRef;
    // 2017-11-16T22:31:08
    let instant = 1_510_871_468_000_000;
    let cases: [(&str, ArrayRef, i32); 15] = [
        ("int", Arc::new(Int32Array::from(vec![34])), 2_017_239_379),
        ("long", Arc::new(Int64Array::from(vec![34])), 2_017_239_379),
        ("decimal", decimal(1420), -500_754_589),
        ("date", Arc::new(Date32Array::from(vec![17_486])), -653_330_422),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![81_068_000_000])), -662_762_989),
        ("timestamp", Arc::new(TimestampMicrosecondArray::from(vec![instant])), -2_047_944_441),
        ("timestamp + 1", Arc::new(TimestampMicrosecondArray::from(vec![instant + 1])), -1_207_196_810),
        (
            "timestamptz",
            Arc::new(TimestampMicrosecondArray::from(vec![instant]).with_timezone("+00:00")),
            -2_047_944_441,
        ),
        ("timestamp_ns", Arc::new(TimestampNanosecondArray::from(vec![instant * 1000])), -2_047_944_441),
        ("timestamp_ns + 1", Arc::new(TimestampNanosecondArray::from(vec![instant * 1000 + 1])), -2_047_944_441),
        ("string", Arc::new(StringArray::from(vec!["iceberg"])), 1_210_000_089),
        ("uuid", fixed(&uuid), 1_488_055_340),
        ("fixed", fixed(&[0, 1, 2, 3]), -188_683_207),
        ("binary", Arc::new(LargeBinaryArray::from_vec(vec![&[0, 1, 2, 3]])), -188_683_207),
        ("true as int", Arc::new(Int32Array::from(vec![1])), 1_392_991_556),
    ];
    for (name, column, expected) in cases {
        assert_eq!(buckets(&column), positive(expected), "{name}");
    }
    assert_eq!(hash("iceberg".as_bytes()), 1_210_000_089);
    assert_eq!(hash(b""), 0);
}

/// Two's complement in as few bytes as hold the number: checked against the definition, byte by byte.
#[test]
fn decimals_hash_their_shortest_bytes() {
    let numbers = [0_i128, 1, -1, 127, 128, -128, -129, 255, 256, -32_769, i128::from(i64::MAX), -10_i128.pow(37)];
    for number in numbers {
        let shortest = (1..=16).find_map(|length| {
            let bytes = number.to_be_bytes()[16 - length..].to_vec();
            let fill = if bytes[0] & 0x80 != 0 { 0xff } else { 0 };
            let mut whole = [fill; 16];
            whole[16 - length..].copy_from_slice(&bytes);
            (i128::from_be_bytes(whole) == number).then_some(bytes)
        });
        let expected = (hash(&shortest.unwrap()) & i32::MAX) % i32::MAX;
        let column: ArrayRef = Arc::new(Decimal128Array::from(vec![number]).with_precision_and_scale(38, 0).unwrap());
        assert_eq!(buckets(&column), expected, "{number}");
    }
}

#[test]
fn truncation_is_downwards_and_by_code_point() {
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(-1), Some(10), Some(-10), Some(-11), None]));
    let truncated = apply(Transform::Truncate(10), &ints).unwrap();
    let expected = Int32Array::from(vec![Some(0), Some(-10), Some(10), Some(-10), Some(-20), None]);
    assert_eq!(truncated.as_primitive::<Int32Type>(), &expected);

    let longs: ArrayRef = Arc::new(Int64Array::from(vec![1, -1]));
    let truncated = apply(Transform::Truncate(10), &longs).unwrap();
    assert_eq!(truncated.as_primitive::<Int64Type>().values(), &[0, -10]);

    // 10.65 by 50 is 10.50.
    let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![1065, -1, 0]).with_precision_and_scale(9, 2).unwrap());
    let truncated = apply(Transform::Truncate(50), &decimals).unwrap();
    assert_eq!(truncated.data_type(), &DataType::Decimal128(9, 2));
    assert_eq!(truncated.as_primitive::<Decimal128Type>().values(), &[1050, -50, 0]);

    let texts: ArrayRef =
        Arc::new(StringArray::from(vec![Some("iceberg"), Some("日本語だ"), Some("a😀bc"), Some("ab"), None]));
    let truncated = apply(Transform::Truncate(3), &texts).unwrap();
    let expected = StringArray::from(vec![Some("ice"), Some("日本語"), Some("a😀b"), Some("ab"), None]);
    assert_eq!(truncated.as_string::<i32>(), &expected);

    let bytes: ArrayRef = Arc::new(LargeBinaryArray::from_vec(vec![&[1, 2, 3, 4, 5], b""]));
    let truncated = apply(Transform::Truncate(3), &bytes).unwrap();
    assert_eq!(truncated.as_binary::<i64>().value(0), &[1, 2, 3]);
}

#[test]
fn times_before_1970_fall_into_the_period_that_holds_them() {
    // 2017-12-01T10:12:55.038194, 1969-12-31T23:59:59.999999, 1969-01-01T00:00:00, 0001-01-01T00:00:00, null
    let micros =
        vec![Some(1_512_123_175_038_194), Some(-1), Some(-31_536_000_000_000), Some(-62_135_596_800_000_000), None];
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(micros));
    let of = |transform| apply(transform, &at).unwrap();
    let ints = |v: [i32; 4]| Int32Array::from(v.into_iter().map(Some).chain([None]).collect::<Vec<_>>());
    assert_eq!(of(Transform::Year).as_primitive::<Int32Type>(), &ints([47, -1, -1, -1969]));
    assert_eq!(of(Transform::Month).as_primitive::<Int32Type>(), &ints([575, -1, -12, -23_628]));
    assert_eq!(of(Transform::Hour).as_primitive::<Int32Type>(), &ints([420_034, -1, -8_760, -17_259_888]));
    let days = of(Transform::Day);
    assert_eq!(days.data_type(), &DataType::Date32, "a partition of days is a date");
    assert_eq!(days.as_primitive::<Date32Type>().values()[..4], [17_501, -1, -365, -719_162]);
    assert!(days.is_null(4));
    let dates: ArrayRef = Arc::new(Date32Array::from(vec![17_501, -1]));
    assert_eq!(apply(Transform::Month, &dates).unwrap().as_primitive::<Int32Type>().values(), &[575, -1]);
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1]));
    assert_eq!(apply(Transform::Hour, &nanos).unwrap().as_primitive::<Int32Type>().values(), &[-1]);
}

#[test]
fn the_calendar_agrees_with_chrono_and_reaches_beyond_it() {
    use chrono::Datelike;
    let mut days = -800_000;
    while days < 3_000_000 {
        let date = chrono::NaiveDate::from_epoch_days(days).unwrap();
        assert_eq!(civil(days), (date.year(), date.month() as i32, date.day() as i32), "{days}");
        days += 13;
    }
    // The last day of microseconds in an i64 is 294247-01-10.
    assert_eq!(civil(106_751_991), (294_247, 1, 10));
    let beyond: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]));
    let error = apply(Transform::Hour, &beyond).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("beyond the hours"), "{error}");
}

fn date(days: i32) -> Option<Literal> {
    Some(Literal::Primitive(PrimitiveLiteral::Int(days)))
}

fn partition_by(entries: &[&str], columns: &[(&str, ArrayRef)]) -> Vec<(Struct, RecordBatch)> {
    let arrow = iceberg::arrow::schema_to_arrow_schema(&schema()).unwrap();
    let rows = columns[0].1.len();
    let arrays = arrow.fields().iter().map(|field| {
        let given = columns.iter().find(|(name, _)| name == field.name());
        given.map_or_else(|| arrow::array::new_null_array(field.data_type(), rows), |(_, array)| array.clone())
    });
    let batch = RecordBatch::try_new(Arc::new(arrow.clone()), arrays.collect()).unwrap();
    Partitioner::new(&spec(entries), &schema()).unwrap().split(&batch).unwrap()
}

fn id_values(batch: &RecordBatch) -> Vec<i32> {
    batch.column(0).as_primitive::<Int32Type>().values().to_vec()
}

#[test]
fn rows_are_split_by_partition_and_keep_their_order() {
    let day = 86_400_000_000;
    let at = TimestampMicrosecondArray::from(vec![Some(0), Some(day), Some(1), None, Some(day + 1), None, Some(-1)]);
    let ids = Int32Array::from_iter_values(0..7);
    let groups = partition_by(&["day(at)"], &[("id", Arc::new(ids)), ("at", Arc::new(at))]);
    let found: Vec<_> = groups.iter().map(|(partition, batch)| (partition[0].clone(), id_values(batch))).collect();
    assert_eq!(found, [(date(0), vec![0, 2]), (date(1), vec![1, 4]), (None, vec![3, 5]), (date(-1), vec![6])]);
}

#[test]
fn a_batch_of_one_partition_is_passed_on() {
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..1000));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values((0..1000).map(|i| i * 1000)));
    let groups = partition_by(&["day(at)", "void(flag)"], &[("id", ids.clone()), ("at", at)]);
    assert_eq!(groups.len(), 1);
    assert!(Arc::ptr_eq(groups[0].1.column(0), &ids), "not even a copy of the reference");
    assert_eq!(groups[0].0, Struct::from_iter([date(0), None]));
    assert!(partition_by(&[], &[("id", ids)])[0].0.fields().is_empty());
    assert!(partition_by(&["id"], &[("id", Arc::new(Int32Array::from(Vec::<i32>::new())))]).is_empty());
}

#[test]
fn every_row_lands_once_and_where_its_transform_says() {
    // A small generator, so that the test needs no seed: the rows are the same each time.
    let mut state = 42_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..50 {
        let rows = 1 + next(200) as i32;
        let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..rows));
        let bigs: ArrayRef =
            Arc::new(Int64Array::from_iter((0..rows).map(|_| (next(5) > 0).then(|| next(40) as i64 - 20))));
        let names: ArrayRef =
            Arc::new(StringArray::from_iter((0..rows).map(|_| (next(5) > 0).then(|| format!("n{}", next(12))))));
        let groups = partition_by(
            &["truncate(10, big)", "bucket(3, name)"],
            &[("id", ids), ("big", bigs.clone()), ("name", names.clone())],
        );
        let bigs = bigs.as_primitive::<Int64Type>();
        let names = names.as_string::<i32>();
        let mut seen = vec![false; rows as usize];
        for (index, (partition, batch)) in groups.iter().enumerate() {
            assert!(groups[..index].iter().all(|(other, _)| other != partition), "a partition comes once");
            let found = id_values(batch);
            assert!(found.is_sorted(), "the batch's order holds");
            for row in found {
                let row = row as usize;
                assert!(!std::mem::replace(&mut seen[row], true));
                let big = bigs.is_valid(row).then(|| Literal::long(bigs.value(row).div_euclid(10) * 10));
                let hashed = |name: &str| (hash(name.as_bytes()) & i32::MAX) % 3;
                let bucket = names.is_valid(row).then(|| Literal::int(hashed(names.value(row))));
                assert_eq!(partition, &Struct::from_iter([big, bucket]));
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}

#[test]
fn nested_columns_partition_too() {
    let city: ArrayRef = Arc::new(StringArray::from(vec![Some("Ulm"), None]));
    let field =
        Field::new("city", DataType::Utf8, true).with_metadata([("PARQUET:field_id".into(), "21".into())].into());
    let address = StructArray::new(Fields::from(vec![field]), vec![city], None);
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let groups = partition_by(&["address.city"], &[("id", ids), ("address", Arc::new(address))]);
    assert_eq!(groups[0].0[0], Some(Literal::string("Ulm")));
    assert_eq!(groups[1].0[0], None);
}

#[test]
fn a_field_of_every_type_gives_its_literal() {
    let uuid = uuid::Uuid::parse_str("f79c3e09-677c-4bbd-a479-3f349cb785e7").unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("price", Arc::new(Decimal128Array::from(vec![-1]).with_precision_and_scale(9, 2).unwrap())),
        ("clock", Arc::new(Time64MicrosecondArray::from(vec![1]))),
        ("atz", Arc::new(TimestampMicrosecondArray::from(vec![-1]).with_timezone("+00:00"))),
        ("key", Arc::new(FixedSizeBinaryArray::try_from_iter([uuid.as_bytes()].into_iter()).unwrap())),
        ("raw", Arc::new(LargeBinaryArray::from_vec(vec![&[0xfb, 0xff, 0x00, 0x01]]))),
        ("name", Arc::new(StringArray::from(vec!["a b/ü*"]))),
        ("flag", Arc::new(arrow::array::BooleanArray::from(vec![true]))),
        ("ratio", Arc::new(arrow::array::Float64Array::from(vec![0.5]))),
        ("big", Arc::new(Int64Array::from(vec![-7]))),
        ("day", Arc::new(Date32Array::from(vec![20_477]))),
    ];
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let (partition, _) = partition_by(&names, &columns).remove(0);
    let primitive = |p| Some(Literal::Primitive(p));
    let expected = Struct::from_iter([
        primitive(PrimitiveLiteral::Int128(-1)),
        primitive(PrimitiveLiteral::Long(1)),
        primitive(PrimitiveLiteral::Long(-1)),
        primitive(PrimitiveLiteral::UInt128(uuid.as_u128())),
        primitive(PrimitiveLiteral::Binary(vec![0xfb, 0xff, 0x00, 0x01])),
        Some(Literal::string("a b/ü*")),
        Some(Literal::bool(true)),
        Some(Literal::double(0.5)),
        Some(Literal::long(-7)),
        date(20_477),
    ]);
    assert_eq!(partition, expected);
    let spec = spec(&names);
    let path = partition_path(&spec, &spec.partition_type(&schema()).unwrap(), &partition);
    assert_eq!(
        path,
        "price=-0.01/clock=00%3A00%3A00.000001/atz=1969-12-31T23%3A59%3A59.999999%2B00%3A00/\
         key=f79c3e09-677c-4bbd-a479-3f349cb785e7/raw=%2B%2F8AAQ%3D%3D/name=a+b%2F%C3%BC%2A/flag=true/ratio=0.5/\
         big=-7/day=2026-01-24"
    );
}

#[test]
fn rows_of_every_type_are_told_apart() {
    let arrow = iceberg::arrow::schema_to_arrow_schema(&schema()).unwrap();
    for field in arrow.fields().iter().filter(|field| !field.data_type().is_nested()) {
        let digits: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(0), Some(1), None]));
        let values = match field.data_type() {
            DataType::FixedSizeBinary(16) => {
                let bytes = [Some([1; 16]), None, Some([0; 16]), Some([1; 16]), None];
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.into_iter(), 16).unwrap())
            }
            DataType::LargeBinary | DataType::Date32 | DataType::Time64(_) => {
                let through =
                    if *field.data_type() == DataType::LargeBinary { DataType::Utf8 } else { DataType::Int32 };
                let through = if matches!(field.data_type(), DataType::Time64(_)) { DataType::Int64 } else { through };
                let through = arrow::compute::cast(&digits, &through).unwrap();
                arrow::compute::cast(&through, field.data_type()).unwrap()
            }
            other => arrow::compute::cast(&digits, other).unwrap(),
        };
        let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..5));
        let name = field.name().as_str();
        // The column that tells the rows is the one to partition by for one of the types.
        let columns: Vec<(&str, ArrayRef)> =
            if name == "id" { vec![("id", values)] } else { vec![("id", ids), (name, values)] };
        let groups = partition_by(&[name], &columns);
        let sizes: Vec<usize> = groups.iter().map(|(_, rows)| rows.num_rows()).collect();
        assert_eq!(sizes, [2, 2, 1], "{name}");
        assert_eq!(groups[1].0[0], None, "{name}");
        if name != "id" {
            let found: Vec<_> = groups.iter().map(|(_, rows)| id_values(rows)).collect();
            assert_eq!(found, [vec![0, 3], vec![1, 4], vec![2]], "{name}");
        }
    }
}

#[test]
fn paths_read_as_people_expect() {
    let path = |entry: &str, value: Option<i32>| {
        let spec = spec(&[entry]);
        let value = value.map(Literal::int);
        partition_path(&spec, &spec.partition_type(&schema()).unwrap(), &Struct::from_iter([value]))
    };
    assert_eq!(path("day(at) as date", Some(20_477)), "date=2026-01-24");
    assert_eq!(path("year(at)", Some(47)), "at_year=2017");
    assert_eq!(path("month(at)", Some(-1)), "at_month=1969-12");
    assert_eq!(path("hour(at)", Some(-1)), "at_hour=1969-12-31-23");
    assert_eq!(path("bucket(16, id)", Some(3)), "id_bucket=3");
    assert_eq!(path("id as \"a b\"", None), "a+b=null");
    assert_eq!(path("void(id)", None), "", "nothing but void is no partitioning");
    let spec = spec(&["name"]);
    let long = Struct::from_iter([Some(Literal::string("ü".repeat(1000)))]);
    let path = partition_path(&spec, &spec.partition_type(&schema()).unwrap(), &long);
    assert_eq!(path, format!("name={}", "%C3%BC".repeat(21)), "within what file systems take");
}

#[test]
fn a_specification_of_a_later_version_is_refused() {
    let fields = r#"{"spec-id":0,"fields":[{"source-id":1,"field-id":1000,"name":"n","transform":"unknown"}]}"#;
    let spec: PartitionSpec = serde_json::from_str(fields).unwrap();
    assert!(config_error(Partitioner::new(&spec, &schema())).contains("not known here"));
}

#[test]
fn the_arrow_types_are_those_of_the_projection() {
    let arrow: ArrowSchema = iceberg::arrow::schema_to_arrow_schema(&schema()).unwrap();
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    assert_eq!(arrow.field_with_name("atz").unwrap().data_type(), &utc);
    assert_eq!(arrow.field_with_name("raw").unwrap().data_type(), &DataType::LargeBinary);
}

#[test]
fn two_fields_of_the_same_bytes_are_refused() {
    let uuid = |id, name: &str| Arc::new(NestedField::optional(id, name, Type::Primitive(PrimitiveType::Uuid)));
    let schema = Schema::builder().with_fields([uuid(1, "a"), uuid(2, "b")]).build().unwrap();
    let bound = |entries: &[&str]| {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        bind(&parse(&entries).unwrap(), &schema)
    };
    let text = config_error(bound(&["a", "b"]));
    assert!(text.contains("\"a\" and \"b\"") && text.contains("allowed is bucket(N, column)"), "{text}");
    assert!(bound(&["a", "bucket(4, b)"]).is_ok());
}

/// As others may have written it: nothing can be divided by zero, and the specification's numbers are Java's ints.
#[test]
fn numbers_that_nothing_can_be_divided_by_are_refused() {
    for (transform, column) in
        [("bucket[0]", 1), ("truncate[0]", 2), ("bucket[2147483648]", 8), ("truncate[4294967295]", 8)]
    {
        let spec: PartitionSpec = serde_json::from_value(serde_json::json!({"spec-id": 0, "fields": [
            {"name": "p", "transform": transform, "source-id": column, "field-id": 1000}]}))
        .unwrap();
        let text = config_error(Partitioner::new(&spec, &schema()));
        assert!(
            text.contains(&format!("\"p\" has the transform {transform}; its number has to be 1 to 2147483647")),
            "{text}"
        );
    }
}
