mod flaky;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, LargeBinaryArray, ListArray, RecordBatch, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Int32Type, Schema as ArrowSchema};
use bytes::Bytes;
use iceberg::io::FileIOBuilder;
use iceberg::spec::{
    DataContentType, DataFileFormat, Datum, ListType, Literal, NestedField, PrimitiveType, Schema, StructType, Type,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::Type as ParquetType;
use philotes_sdk::ErrorKind;
use tempfile::TempDir;

use super::*;
use crate::partition;
use flaky::Flaky;

fn primitive(id: i32, name: &str, r#type: PrimitiveType) -> iceberg::spec::NestedFieldRef {
    NestedField::optional(id, name, Type::Primitive(r#type)).into()
}

fn every_type() -> Schema {
    use PrimitiveType::{
        Binary, Boolean, Date, Decimal, Double, Fixed, Float, Int, Long, String, Time, Timestamp, Timestamptz, Uuid,
    };
    let decimal = |precision| Decimal { precision, scale: 2 };
    let place = StructType::new(vec![primitive(21, "ratio", Double), primitive(22, "note", String)]);
    let element = NestedField::list_element(31, Type::Primitive(Float), false).into();
    let key = NestedField::map_key_element(41, Type::Primitive(String)).into();
    let value = NestedField::map_value_element(42, Type::Primitive(Uuid), false).into();
    Schema::builder()
        .with_fields(vec![
            NestedField::required(1, "id", Type::Primitive(Long)).into(),
            primitive(2, "small", Int),
            primitive(3, "flag", Boolean),
            primitive(4, "f", Float),
            primitive(5, "d", Double),
            primitive(6, "d9", decimal(9)),
            primitive(7, "d18", decimal(18)),
            primitive(8, "d38", decimal(38)),
            primitive(9, "day", Date),
            primitive(10, "clock", Time),
            primitive(11, "ts", Timestamp),
            primitive(12, "tstz", Timestamptz),
            primitive(13, "name", String),
            primitive(14, "key", Uuid),
            primitive(15, "raw", Binary),
            primitive(16, "fix", Fixed(3)),
            NestedField::optional(20, "place", Type::Struct(place)).into(),
            NestedField::optional(30, "tags", Type::List(ListType::new(element))).into(),
            NestedField::optional(40, "props", Type::Map(iceberg::spec::MapType::new(key, value))).into(),
        ])
        .build()
        .unwrap()
}

fn arrow_of(schema: &Schema) -> ArrowSchema {
    schema_to_arrow_schema(schema).unwrap()
}

/// Three rows: values, other values, and NULL wherever it may be.
fn every_type_rows(schema: &Schema) -> RecordBatch {
    let arrow = arrow_of(schema);
    let field = |name: &str| arrow.field_with_name(name).unwrap().data_type().clone();
    let decimal = |precision, values: [i128; 2]| -> ArrayRef {
        let values = Decimal128Array::from(vec![Some(values[0]), Some(values[1]), None]);
        Arc::new(values.with_precision_and_scale(precision, 2).unwrap())
    };
    let fixed = |width: i32, values: [Option<&[u8]>; 3]| -> ArrayRef {
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), width).unwrap())
    };
    let DataType::Struct(place) = field("place") else { panic!() };
    let place_columns: Vec<ArrayRef> = vec![
        Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(2.5), None])),
        Arc::new(StringArray::from(vec![Some("x"), None, None])),
    ];
    let valid = NullBuffer::from(vec![true, true, false]);
    let DataType::List(element) = field("tags") else { panic!() };
    let tags = Float32Array::from(vec![Some(1.0), None, Some(f32::NAN)]);
    let DataType::Map(entries, _) = field("props") else { panic!() };
    let DataType::Struct(pair) = entries.data_type().clone() else { panic!() };
    let pairs: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["k"])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[7_u8; 16]].into_iter()).unwrap()),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![-5, 7, 0])),
        Arc::new(Int32Array::from(vec![Some(3), Some(-3), None])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(Float32Array::from(vec![Some(f32::NAN), Some(1.5), None])),
        Arc::new(Float64Array::from(vec![Some(-0.5), Some(f64::INFINITY), None])),
        decimal(9, [-123_456_789, 1]),
        decimal(18, [-1, 123_456_789_012_345_678]),
        decimal(38, [-(10_i128.pow(37)), 10_i128.pow(37)]),
        Arc::new(Date32Array::from(vec![Some(-1), Some(20_477), None])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(0), Some(86_399_999_999), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(1), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(1), None]).with_timezone("+00:00")),
        Arc::new(StringArray::from(vec![Some("a rather long text"), Some("zz"), None])),
        fixed(16, [Some(&[0xff; 16]), Some(&[1; 16]), None]),
        Arc::new(LargeBinaryArray::from_opt_vec(vec![Some(&[0xff; 20]), Some(b"b"), None])),
        fixed(3, [Some(b"abc"), Some(b"abd"), None]),
        Arc::new(StructArray::new(place, place_columns, Some(valid.clone()))),
        Arc::new(ListArray::new(element, OffsetBuffer::from_lengths([2, 1, 0]), Arc::new(tags), Some(valid))),
        Arc::new(arrow::array::MapArray::new(
            entries,
            OffsetBuffer::from_lengths([1, 0, 0]),
            StructArray::new(pair, pairs, None),
            None,
            false,
        )),
    ];
    RecordBatch::try_new(Arc::new(arrow), columns).unwrap()
}

fn target(location: &str, schema: Schema, partition_by: &[&str]) -> WriterTarget {
    let fields: Vec<String> = partition_by.iter().map(|&f| f.to_owned()).collect();
    let spec = partition::bind(&partition::parse(&fields).unwrap(), &schema).unwrap();
    let spec = spec.with_spec_id(3).bind(schema.clone()).unwrap();
    WriterTarget {
        location: location.to_owned(),
        schema: Arc::new(schema),
        spec: Arc::new(spec),
        order: None,
        content: Content::Rows,
    }
}

fn in_folder(folder: &TempDir, schema: Schema, partition_by: &[&str], options: WriterOptions) -> TableWriter {
    let location = format!("file://{}", folder.path().display());
    TableWriter::new(FileIO::new_with_fs(), target(&location, schema, partition_by), options).unwrap()
}

fn on_disk(file: &DataFile) -> Bytes {
    std::fs::read(file.file_path().strip_prefix("file://").unwrap()).unwrap().into()
}

fn read(bytes: Bytes) -> (ParquetMetaData, Vec<RecordBatch>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let metadata = (**builder.metadata()).clone();
    (metadata, builder.build().unwrap().collect::<Result<_, _>>().unwrap())
}

/// A table of numbers and texts, large enough rows for size limits to matter.
fn narrow() -> Schema {
    let fields = vec![primitive(1, "id", PrimitiveType::Int), primitive(2, "text", PrimitiveType::String)];
    Schema::builder().with_fields(fields).build().unwrap()
}

fn narrow_rows(ids: Range<i32>) -> RecordBatch {
    // Not to be compressed away: a multiplicative hash of the number, in hexadecimal.
    let text = |id: i32| format!("{:016x}", (i64::from(id) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()));
    let texts: StringArray = ids.clone().map(|id| Some(text(id))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from_iter_values(ids)), Arc::new(texts)];
    RecordBatch::try_new(Arc::new(arrow_of(&narrow())), columns).unwrap()
}

fn ids(batches: &[RecordBatch]) -> Vec<i32> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn a_file_of_every_type_says_what_the_specification_asks() {
    let folder = tempfile::tempdir().unwrap();
    let schema = every_type();
    let mut writer = in_folder(&folder, schema.clone(), &[], WriterOptions::default());
    let rows = every_type_rows(&schema);
    writer.write(&rows).await.unwrap();
    assert_eq!(writer.rows(), 3);
    assert!(writer.buffered_bytes() > 0);
    let files = writer.finish().await.unwrap();
    let [file] = &files[..] else { panic!("{} files", files.len()) };
    let (metadata, batches) = read(on_disk(file));

    let root = metadata.file_metadata().schema();
    let leaf = |name: &str| root.get_fields().iter().find(|f| f.name() == name).unwrap().clone();
    let logical = |name: &str| leaf(name).get_basic_info().logical_type_ref().cloned();
    assert_eq!(logical("key"), Some(LogicalType::Uuid));
    assert_eq!(leaf("key").get_physical_type(), PhysicalType::FIXED_LEN_BYTE_ARRAY);
    assert_eq!(logical("fix"), None);
    let timestamp = |utc| LogicalType::Timestamp { is_adjusted_to_u_t_c: utc, unit: TimeUnit::MICROS };
    assert_eq!(logical("ts"), Some(timestamp(false)));
    assert_eq!(logical("tstz"), Some(timestamp(true)));
    assert_eq!(logical("name"), Some(LogicalType::String));
    assert_eq!(logical("raw"), None);
    assert_eq!(logical("day"), Some(LogicalType::Date));
    assert_eq!(leaf("d9").get_physical_type(), PhysicalType::INT32);
    assert_eq!(leaf("d18").get_physical_type(), PhysicalType::INT64);
    assert_eq!(leaf("d38").get_physical_type(), PhysicalType::FIXED_LEN_BYTE_ARRAY);
    assert_eq!(leaf("id").get_basic_info().repetition(), Repetition::REQUIRED);
    assert_eq!(leaf("tags").get_basic_info().logical_type_ref(), Some(&LogicalType::List));

    let mut found = Vec::new();
    field_ids(root, &mut found);
    let expected: Vec<i32> = (1..=16).chain([20, 21, 22, 30, 31, 40, 41, 42]).collect();
    assert_eq!(found, expected);
    let uuid_in_map = metadata.file_metadata().schema_descr().columns().last().unwrap().clone();
    assert_eq!(uuid_in_map.logical_type_ref(), Some(&LogicalType::Uuid));
    assert!(metadata.file_metadata().key_value_metadata().is_none(), "no Arrow schema beside Parquet's");
    assert!(matches!(metadata.row_group(0).column(0).compression(), Compression::ZSTD(_)));

    for (name, column) in rows.schema().fields().iter().map(|f| f.name().as_str()).zip(rows.columns()) {
        let read = batches[0].column_by_name(name).unwrap();
        if !column.data_type().is_nested() {
            let read = arrow::compute::cast(read, column.data_type()).unwrap();
            assert_eq!(&read, column, "{name}");
        }
        assert_eq!(read.null_count(), column.null_count(), "{name}");
    }
}

fn field_ids(node: &ParquetType, into: &mut Vec<i32>) {
    for field in node.get_fields() {
        if field.get_basic_info().has_id() {
            into.push(field.get_basic_info().id());
        } else {
            assert!(matches!(field.name(), "list" | "key_value"), "{} has no field id", field.name());
        }
        if field.is_group() {
            field_ids(field, into);
        }
    }
}

#[tokio::test]
async fn the_metrics_are_those_of_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let schema = every_type();
    let mut writer = in_folder(&folder, schema.clone(), &[], WriterOptions::default());
    writer.write(&every_type_rows(&schema)).await.unwrap();
    let file = writer.finish().await.unwrap().remove(0);

    assert_eq!((file.content_type(), file.file_format()), (DataContentType::Data, DataFileFormat::Parquet));
    assert_eq!((file.record_count(), file.sort_order_id()), (3, Some(0)));
    assert_eq!(file.file_size_in_bytes(), on_disk(&file).len() as u64);
    assert_eq!(file.split_offsets(), Some(&[4_i64][..]), "the first row group begins after the magic");
    let leaves: HashSet<i32> = (1..=16).chain([21, 22, 31, 41, 42]).collect();
    assert_eq!(file.column_sizes().keys().copied().collect::<HashSet<_>>(), leaves);
    assert!(file.column_sizes().values().all(|size| *size > 0));
    assert!((1..=16).chain([21, 22]).all(|id| file.value_counts()[&id] == 3));
    assert_eq!(file.null_value_counts()[&1], 0);
    assert!((2..=16).all(|id| file.null_value_counts()[&id] == 1));
    assert_eq!((file.null_value_counts()[&21], file.null_value_counts()[&22]), (1, 2));
    // An empty or missing list or map still takes one place in Parquet.
    assert_eq!((file.value_counts()[&31], file.value_counts()[&41]), (4, 3));
    let nans: Vec<_> = [4, 5, 21].map(|id| file.nan_value_counts().get(&id).copied()).into();
    assert_eq!(nans, [Some(1), Some(0), Some(1)]);
    assert_eq!(file.nan_value_counts().len(), 3);

    let decimal = |unscaled: i128, precision| {
        let r#type = PrimitiveType::Decimal { precision, scale: 2 };
        Datum::try_from_bytes(&unscaled.to_be_bytes(), r#type).unwrap()
    };
    let fixed = |bytes: &[u8]| Datum::try_from_bytes(bytes, PrimitiveType::Fixed(3)).unwrap();
    let bounds = [
        (1, Datum::long(-5), Some(Datum::long(7))),
        (2, Datum::int(-3), Some(Datum::int(3))),
        (3, Datum::bool(false), Some(Datum::bool(true))),
        (4, Datum::float(1.5), Some(Datum::float(1.5))),
        (5, Datum::double(-0.5), Some(Datum::double(f64::INFINITY))),
        (6, decimal(-123_456_789, 9), Some(decimal(1, 9))),
        (7, decimal(-1, 18), Some(decimal(123_456_789_012_345_678, 18))),
        (8, decimal(-(10_i128.pow(37)), 38), Some(decimal(10_i128.pow(37), 38))),
        (9, Datum::date(-1), Some(Datum::date(20_477))),
        (10, Datum::time_micros(0).unwrap(), Some(Datum::time_micros(86_399_999_999).unwrap())),
        (11, Datum::timestamp_micros(-1), Some(Datum::timestamp_micros(1))),
        (12, Datum::timestamptz_micros(-1), Some(Datum::timestamptz_micros(1))),
        (13, Datum::string("a rather long te"), Some(Datum::string("zz"))),
        // Twenty times ff: nothing of sixteen bytes is above.
        (15, Datum::binary(*b"b"), None),
        (16, fixed(b"abc"), Some(fixed(b"abd"))),
        (21, Datum::double(2.5), Some(Datum::double(2.5))),
        (22, Datum::string("x"), Some(Datum::string("x"))),
    ];
    for (id, lower, upper) in &bounds {
        assert_eq!(file.lower_bounds().get(id), Some(lower), "lower bound of {id}");
        assert_eq!(file.upper_bounds().get(id), upper.as_ref(), "upper bound of {id}");
    }
    assert_eq!(file.lower_bounds().len(), bounds.len(), "lists and maps have none");
    assert_eq!(file.upper_bounds().len(), bounds.len() - 1);
    // 01… and ff…: not all readers have the first before the second.
    assert!(!file.lower_bounds().contains_key(&14) && !file.upper_bounds().contains_key(&14));
}

#[tokio::test]
async fn bounds_of_text_and_bytes_hold_for_every_row() {
    let fields = vec![primitive(1, "s", PrimitiveType::String), primitive(2, "b", PrimitiveType::Binary)];
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let mut state = 7_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let alphabet = ['a', 'z', '\u{7f}', 'ü', '\u{7ff}', '日', '\u{d7ff}', '\u{e000}', '\u{ffff}', '😀', char::MAX];
    for _ in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        // Small alphabets at times, so that whole rows consist of the highest code point.
        let first = next(alphabet.len() as u64);
        let choices = 1 + next(alphabet.len() as u64 - first);
        let texts: Vec<String> =
            (0..20).map(|_| (0..next(40)).map(|_| alphabet[(first + next(choices)) as usize]).collect()).collect();
        let bytes: Vec<Vec<u8>> = (0..20).map(|_| (0..next(80)).map(|_| 0xfe + next(2) as u8).collect()).collect();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from_iter_values(&texts)), Arc::new(LargeBinaryArray::from_iter_values(&bytes))];
        let rows = RecordBatch::try_new(Arc::new(arrow_of(&schema)), columns).unwrap();
        let mut writer = in_folder(&folder, schema.clone(), &[], WriterOptions::default());
        writer.write(&rows).await.unwrap();
        let file = writer.finish().await.unwrap().remove(0);
        let bound = |bounds: &HashMap<i32, Datum>, id| bounds.get(&id).map(|b| b.to_bytes().unwrap().into_vec());
        let texts: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
        for (id, values) in [(1, texts), (2, bytes)] {
            let lower = bound(file.lower_bounds(), id).expect("there is always something below");
            assert!(values.iter().all(|value| lower <= *value));
            if let Some(upper) = bound(file.upper_bounds(), id) {
                assert!(values.iter().all(|value| *value <= upper), "{id}: {values:?} above {upper:?}");
                let length = if id == 1 { str::from_utf8(&upper).unwrap().chars().count() } else { upper.len() };
                assert!(length <= 16);
            } else {
                let longest = if id == 1 { "\u{10ffff}".repeat(16).into_bytes() } else { vec![0xff; 16] };
                assert!(values.iter().any(|value| value.starts_with(&longest)), "only where nothing is above");
            }
        }
    }
}

#[tokio::test]
async fn files_roll_at_their_target_size_within_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let options = WriterOptions { target_file_bytes: 1 << 20, row_group_bytes: 256 << 10, ..WriterOptions::default() };
    let mut writer = in_folder(&folder, narrow(), &[], options);
    writer.write(&narrow_rows(0..300_000)).await.unwrap();
    let files = writer.finish().await.unwrap();
    assert!(files.len() >= 3, "{} files", files.len());
    let mut found = Vec::new();
    for file in &files {
        let (metadata, batches) = read(on_disk(file));
        assert!(file.file_size_in_bytes() < 2 << 20, "{}", file.file_size_in_bytes());
        let offsets: Vec<i64> = metadata
            .row_groups()
            .iter()
            .map(|g| g.column(0).dictionary_page_offset().unwrap_or(i64::MAX).min(g.column(0).data_page_offset()))
            .collect();
        assert_eq!(file.split_offsets(), Some(&offsets[..]));
        assert!(offsets.is_sorted());
        let in_file = ids(&batches);
        assert_eq!(file.record_count(), in_file.len() as u64);
        assert_eq!(file.lower_bounds()[&1], Datum::int(in_file[0]));
        assert_eq!(file.upper_bounds()[&1], Datum::int(*in_file.last().unwrap()), "over all row groups");
        found.extend(in_file);
    }
    assert!(files[0].split_offsets().unwrap().len() > 1);
    assert!(found.into_iter().eq(0..300_000), "every row once and in order");
    assert_eq!(writer.rows(), 0);
    assert!(writer.finish().await.unwrap().is_empty(), "what was handed out is not handed out again");
}

#[tokio::test]
async fn columns_of_values_of_their_own_lose_their_dictionary_in_the_next_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = in_folder(&folder, narrow(), &[], WriterOptions::default());
    let (mut dictionaries, mut found) = (Vec::new(), Vec::new());
    for file in 0..2 {
        // A page of the dictionary has room for a third of these numbers.
        let numbers = file * 800_000..(file + 1) * 800_000;
        let words: StringArray = numbers.clone().map(|id| Some(["even", "odd"][(id % 2) as usize])).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from_iter_values(numbers)), Arc::new(words)];
        writer.write(&RecordBatch::try_new(Arc::new(arrow_of(&narrow())), columns).unwrap()).await.unwrap();
        let files = writer.finish().await.unwrap();
        let (metadata, batches) = read(on_disk(&files[0]));
        let columns = metadata.row_group(0).columns();
        dictionaries.push(columns.iter().map(|column| column.dictionary_page_offset().is_some()).collect::<Vec<_>>());
        found.extend(ids(&batches));
    }
    assert!(dictionaries[0].iter().all(|has| *has), "{dictionaries:?}");
    assert!(!dictionaries[1][0] && dictionaries[1][1], "{dictionaries:?}");
    assert!(found.into_iter().eq(0..1_600_000));
}

#[tokio::test]
async fn every_partition_has_its_own_file_and_path() {
    let folder = tempfile::tempdir().unwrap();
    let options = WriterOptions { max_open_files: 2, ..WriterOptions::default() };
    let mut writer = in_folder(&folder, narrow(), &["truncate(10, id) as tens"], options);
    writer.write(&narrow_rows(0..25)).await.unwrap();
    writer.write(&narrow_rows(28..32)).await.unwrap();
    let files = writer.finish().await.unwrap();
    let mut found: Vec<(Option<Literal>, Vec<i32>)> =
        files.iter().map(|file| (file.partition()[0].clone(), ids(&read(on_disk(file)).1))).collect();
    found.sort_by_key(|(_, ids)| ids[0]);
    let tens = |n: i32| Some(Literal::int(n));
    assert_eq!(
        found,
        [
            (tens(0), (0..10).collect()),
            (tens(10), (10..20).collect()),
            (tens(20), (20..25).chain(28..30).collect()),
            (tens(30), (30..32).collect())
        ]
    );
    for file in &files {
        let value = ids(&read(on_disk(file)).1)[0] / 10 * 10;
        let rest = file.file_path().strip_prefix(&format!("file://{}/data/tens={value}/", folder.path().display()));
        let name = rest.unwrap_or_else(|| panic!("{}", file.file_path())).strip_suffix(".parquet").unwrap();
        let (uuid, seconds) = name.rsplit_once('-').unwrap();
        Uuid::parse_str(uuid).unwrap();
        assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000);
        let json = format!("{file:?}");
        assert!(json.contains("partition_spec_id: 3"), "{json}");
    }
}

#[tokio::test]
async fn names_in_a_path_are_literal_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let fields = vec![primitive(1, "id", PrimitiveType::Int), primitive(2, "text", PrimitiveType::String)];
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let mut writer = in_folder(&folder, schema.clone(), &["text"], WriterOptions::default());
    let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![1])), Arc::new(StringArray::from(vec!["a/b %ü"]))];
    writer.write(&RecordBatch::try_new(Arc::new(arrow_of(&schema)), columns).unwrap()).await.unwrap();
    let files = writer.finish().await.unwrap();
    assert!(files[0].file_path().contains("/data/text=a%2Fb+%25%C3%BC/"), "{}", files[0].file_path());
    assert_eq!(ids(&read(on_disk(&files[0])).1), [1]);
}

#[tokio::test]
async fn nothing_in_nothing_out() {
    fn moves_between_threads<T: Send>() {}
    moves_between_threads::<TableWriter>();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = in_folder(&folder, narrow(), &["id"], WriterOptions::default());
    writer.write(&narrow_rows(0..0)).await.unwrap();
    assert!(writer.finish().await.unwrap().is_empty());
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    let other = RecordBatch::try_from_iter([("id", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert_eq!(writer.write(&other).await.unwrap_err().kind(), ErrorKind::Internal);
    writer.write(&narrow_rows(0..1)).await.expect("a batch refused as a whole breaks nothing");
    let bad = WriterOptions { zstd_level: 99, ..WriterOptions::default() };
    let refused = TableWriter::new(FileIO::new_with_fs(), target("file:///x", narrow(), &[]), bad).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_dropped_writer_removes_what_it_stored() {
    let folder = tempfile::tempdir().unwrap();
    let options = WriterOptions { target_file_bytes: 200_000, ..WriterOptions::default() };
    let mut writer = in_folder(&folder, narrow(), &[], options);
    writer.write(&narrow_rows(0..100_000)).await.unwrap();
    writer.write(&narrow_rows(0..1)).await.unwrap();
    let data = folder.path().join("data");
    assert!(std::fs::read_dir(&data).unwrap().count() > 0, "rolled files are stored before the next rows");
    drop(writer);
    for _ in 0..200 {
        if std::fs::read_dir(&data).unwrap().next().is_none() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("files are left");
}

fn on_flaky(options: WriterOptions) -> (Flaky, FileIO, TableWriter) {
    let storage = Flaky::default();
    let files = FileIOBuilder::new(Arc::new(storage.clone())).build();
    let writer = TableWriter::new(files.clone(), target("memory:///t", narrow(), &[]), options).unwrap();
    (storage, files, writer)
}

/// The files hold these rows, each once; a file that was sent again may have changed its place.
async fn assert_ids(files: &FileIO, stored: &[DataFile], expected: Range<i32>) {
    let mut found = Vec::new();
    for file in stored {
        found.extend(ids(&read(files.new_input(file.file_path()).unwrap().read().await.unwrap()).1));
    }
    found.sort_unstable();
    assert!(found.iter().copied().eq(expected.clone()), "{} rows instead of {expected:?}", found.len());
}

#[tokio::test]
async fn a_small_file_is_sent_again_until_it_arrives() {
    let (storage, files, mut writer) = on_flaky(WriterOptions::default());
    writer.write(&narrow_rows(0..1000)).await.unwrap();
    // The opening, the sending and the completing fail in turn.
    for failures in [1, 1, 1] {
        storage.failing.store(failures, SeqCst);
        assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let stored = writer.finish().await.unwrap();
    assert_ids(&files, &stored, 0..1000).await;

    storage.permanent.store(1, SeqCst);
    writer.write(&narrow_rows(0..1)).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "what does not pass by itself is not waited for: {error}");
}

#[tokio::test]
async fn a_batch_is_not_taken_while_storage_is_out_of_reach() {
    let options = WriterOptions { target_file_bytes: 200_000, ..WriterOptions::default() };
    let (storage, files, mut writer) = on_flaky(options);
    writer.write(&narrow_rows(0..50_000)).await.unwrap();
    storage.failing.store(1, SeqCst);
    let error = writer.write(&narrow_rows(50_000..50_010)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(writer.rows(), 50_000);
    writer.write(&narrow_rows(50_000..50_010)).await.unwrap();
    let stored = writer.finish().await.unwrap();
    assert_ids(&files, &stored, 0..50_010).await;
}

#[tokio::test]
async fn what_memory_has_no_room_for_leaves_early() {
    let options = WriterOptions { max_buffer_bytes: 1 << 20, ..WriterOptions::default() };
    let (storage, files, mut writer) = on_flaky(options);
    for start in (0..400_000).step_by(20_000) {
        writer.write(&narrow_rows(start..start + 20_000)).await.unwrap();
    }
    assert!(storage.chunks.load(SeqCst) > 3, "parts have left");
    let stored = writer.finish().await.unwrap();
    assert_eq!(stored.len(), 1, "it is one file all the same");
    assert_ids(&files, &stored, 0..400_000).await;

    // An upload that breaks takes its rows along: nothing may be committed any more.
    for start in (0..200_000).step_by(20_000) {
        writer.write(&narrow_rows(start..start + 20_000)).await.unwrap();
    }
    storage.failing.store(1, SeqCst);
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(writer.write(&narrow_rows(0..1)).await.unwrap_err().kind(), ErrorKind::Fenced);
}
