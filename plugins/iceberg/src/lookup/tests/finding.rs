//! What is found where nothing was deleted, and what is read for it.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Int32Array, LargeBinaryArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int64Type};
use iceberg::spec::{DataContentType, Datum};

use super::*;
use crate::writer::WriterOptions;

#[tokio::test]
async fn an_empty_table_finds_nothing() {
    let notes = Notes::new(FormatVersion::V2);
    let found = find(&mut notes.0.base(), &[ID], &rows([("id", longs(&[1, 2]))]), &[NOTE, ID]).await.unwrap();
    assert_eq!(found.places, [None, None]);
    let types: Vec<_> =
        found.rows.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
    assert_eq!(types, [("note".into(), DataType::Utf8), ("id".into(), DataType::Int64)]);
    assert_eq!(notes.found(&[]).await, "");
}

#[tokio::test]
async fn the_newest_row_of_each_key_is_found() {
    let mut notes = Notes::new(FormatVersion::V2);
    notes.upsert(&[(1, "a"), (2, "b"), (3, "c")]).await;
    notes.upsert(&[(2, "B"), (5, "e")]).await;
    notes.upsert(&[(4, "d"), (1, "A")]).await;
    assert_eq!(notes.found(&[5, 1, 9, 3, 2, 4, -1]).await, "e A - c B d -");

    let key = rows([("id", longs(&[9, 3, 5]))]);
    let found = find(&mut notes.0.base(), &[ID], &key, &[ID, NOTE]).await.unwrap();
    let (three, five) = (found.places[1].unwrap(), found.places[2].unwrap());
    let ids = found.rows.column(0).as_primitive::<Int64Type>();
    assert_eq!((found.places[0], ids.value(three), ids.value(five), ids.len()), (None, 3, 5, 2));
    // Whether they are there at all.
    let found = find(&mut notes.0.base(), &[ID], &key, &[]).await.unwrap();
    assert_eq!((found.rows.num_rows(), found.rows.num_columns(), found.places[0]), (2, 0, None));
    assert!(found.places[1].is_some() && found.places[2].is_some());
}

#[tokio::test]
async fn keys_have_every_type_that_can_be_compared() {
    let of = PrimitiveType::Fixed(3);
    let decimal = PrimitiveType::Decimal { precision: 20, scale: 2 };
    let micros = |zone: Option<&str>| {
        let values = TimestampMicrosecondArray::from(vec![-1, 0, i64::MAX]);
        Arc::new(values.with_timezone_opt(zone.map(Arc::from))) as ArrayRef
    };
    let long = |letter: &str| letter.repeat(40);
    let fixed = |values: [&[u8]; 3]| Arc::new(FixedSizeBinaryArray::try_from_iter(values.iter()).unwrap()) as ArrayRef;
    let sixteen = |first: u8| [&[first][..], &[7; 15]].concat();
    let numbers = Decimal128Array::from(vec![-(10_i128.pow(19)), 0, 10_i128.pow(19)]);
    let columns: [(PrimitiveType, ArrayRef); 12] = [
        (PrimitiveType::Int, Arc::new(Int32Array::from(vec![i32::MIN, 0, i32::MAX]))),
        (PrimitiveType::Long, longs(&[i64::MIN, 0, i64::MAX])),
        (decimal, Arc::new(numbers.with_precision_and_scale(20, 2).unwrap())),
        (PrimitiveType::Date, Arc::new(Date32Array::from(vec![-1, 0, 20_000]))),
        (PrimitiveType::Time, Arc::new(Time64MicrosecondArray::from(vec![0, 1, 86_399_999_999]))),
        (PrimitiveType::Timestamp, micros(None)),
        (PrimitiveType::Timestamptz, micros(Some("+00:00"))),
        // Bounds are cut to 16 letters, or bytes.
        (PrimitiveType::String, texts(&[long("a"), long("ä"), long("😀")])),
        (PrimitiveType::Binary, Arc::new(LargeBinaryArray::from_iter_values([long("a"), long("b"), long("c")]))),
        (of, fixed([b"abc", b"abd", b"\xff\xff\xff"])),
        (PrimitiveType::Uuid, fixed([&sixteen(0), &sixteen(0x7f), &sixteen(0xff)])),
        (PrimitiveType::Boolean, Arc::new(BooleanArray::from(vec![false, true, true]))),
    ];
    for (r#type, values) in columns {
        let fields = [column(1, "k", r#type.clone()), column(2, "n", PrimitiveType::Long)];
        let mut rig = Rig::new(schema(fields), nothing(), FormatVersion::V2);
        for row in [1, 0, 2] {
            let (value, number) = (values.slice(row, 1), longs(&[i64::try_from(row).unwrap()]));
            let data = rig.data(&rows([("k", value), ("n", number)])).await;
            rig.commit(data, vec![], &[]).await;
        }
        let keys = if r#type == PrimitiveType::Boolean { values.slice(0, 2) } else { values };
        let found = find(&mut rig.base(), &[1], &rows([("k", keys.clone())]), &[2, 1]).await.unwrap();
        let numbers = found.rows.column(0).as_primitive::<Int64Type>();
        for (key, place) in found.places.iter().enumerate() {
            let place = place.unwrap_or_else(|| panic!("{type}: key {key} was not found"));
            let expected = if r#type == PrimitiveType::Boolean && key == 1 { 2 } else { i64::try_from(key).unwrap() };
            assert_eq!(numbers.value(place), expected, "{type}");
            assert_eq!(&found.rows.column(1).slice(place, 1), &keys.slice(key, 1), "{type}");
        }
    }
}

#[tokio::test]
async fn all_columns_of_a_key_count() {
    let fields = ["tenant", "id"].into_iter().zip(1..).map(|(name, id)| column(id, name, PrimitiveType::Long));
    let fields = fields.chain([column(3, "note", PrimitiveType::String)]);
    let mut rig = Rig::new(schema(fields), nothing(), FormatVersion::V2);
    for (tenants, ids, notes) in
        [([1, 1], [1, 2], ["a", "b"]), ([2, 2], [1, 2], ["c", "d"]), ([1, 3], [3, 1], ["e", "f"])]
    {
        let data = rig.data(&rows([("tenant", longs(&tenants)), ("id", longs(&ids)), ("note", texts(&notes))])).await;
        rig.commit(data, vec![], &[]).await;
    }
    // The columns in another order than the table's.
    let keys = rows([("id", longs(&[2, 2, 1, 3, 3])), ("tenant", longs(&[1, 2, 3, 1, 2]))]);
    let found = find(&mut rig.base(), &[2, 1], &keys, &[3]).await.unwrap();
    let notes = found.rows.column(0).as_string::<i32>();
    let found: Vec<_> = found.places.iter().map(|place| place.map(|row| notes.value(row))).collect();
    assert_eq!(found, [Some("b"), Some("d"), Some("f"), Some("e"), None]);

    // Each column of a key lies within its bounds, and no key within all of them.
    let data =
        rig.data(&rows([("tenant", longs(&[4, 6])), ("id", longs(&[14, 16])), ("note", texts(&["x", "y"]))])).await;
    rig.commit(data.clone(), vec![], &[]).await;
    rig.lose(&data[0].file);
    let keys = rows([("tenant", longs(&[5, 1])), ("id", longs(&[1, 15]))]);
    let found = find(&mut rig.base(), &[1, 2], &keys, &[3]).await.unwrap();
    assert_eq!(found.places, [None, None]);
    let keys = rows([("tenant", longs(&[5])), ("id", longs(&[15]))]);
    assert!(find(&mut rig.base(), &[1, 2], &keys, &[3]).await.is_err());
}

#[tokio::test]
async fn a_key_that_was_found_is_not_looked_for_in_older_files() {
    let mut notes = Notes::new(FormatVersion::V2);
    let mut files = Vec::new();
    for round in 0..30 {
        files.extend(notes.upsert(&[(1, &format!("one{round}")), (100, &format!("hundred{round}"))]).await);
    }
    // Some are read ahead, eight at a time.
    files[..20].iter().for_each(|file| notes.0.lose(&file.file));
    // Nor are their manifests.
    for sequence in 1..=10 {
        std::fs::remove_file(notes.0.folder.path().join(format!("metadata/{sequence}-0.avro"))).unwrap();
    }
    assert_eq!(notes.found(&[100, 1]).await, "hundred29 one29");
    // A key that is in none is looked for in all.
    assert!(notes.find(&[100, 50]).await.is_err());
}

#[tokio::test]
async fn nor_in_older_files_of_one_manifest() {
    let mut notes = Notes::new(FormatVersion::V2);
    let mut files = Vec::new();
    for sequence in 1..=30 {
        let file = notes.data(&[(1, &format!("one{sequence}")), (100, "x")]).await.remove(0);
        files.push(Waiting { sequence, ..file });
        notes.0.commit(vec![], vec![], &[]).await;
    }
    // As after manifests were merged.
    notes.0.commit(files.clone(), vec![], &[]).await;
    files[..20].iter().for_each(|file| notes.0.lose(&file.file));
    assert_eq!(notes.found(&[1, 100]).await, "one30 x");
    assert!(notes.find(&[1, 50]).await.is_err());
}

/// Java up to Iceberg 1.10 compares the halves of a UUID as signed numbers, and so it writes bounds.
#[tokio::test]
async fn bounds_of_uuids_are_not_trusted() {
    let uuids = [0x01_u8, 0xff].map(|first| uuid::Uuid::from_bytes([first; 16]));
    let values = FixedSizeBinaryArray::try_from_iter(uuids.iter().map(|uuid| uuid.as_bytes())).unwrap();
    let values: ArrayRef = Arc::new(values);
    let mut rig = Rig::new(schema([column(1, "k", PrimitiveType::Uuid)]), nothing(), FormatVersion::V2);
    let data = rig.data(&rows([("k", values.clone())])).await.remove(0);
    let mut builder = rig::described(&data.file, DataContentType::Data, &data.spec, Struct::empty());
    let [upper, lower] = uuids.map(|uuid| HashMap::from([(1, Datum::uuid(uuid))]));
    let file = builder.lower_bounds(lower).upper_bounds(upper).build().unwrap();
    rig.commit(vec![Waiting { file, ..data }], vec![], &[]).await;
    let found = find(&mut rig.base(), &[1], &rows([("k", values)]), &[1]).await.unwrap();
    assert_eq!(found.places, [Some(0), Some(1)]);
}

#[tokio::test]
async fn files_are_not_read_whose_bounds_have_no_key_between_them() {
    let mut notes = Notes::new(FormatVersion::V2);
    let low = notes.data(&[(1, "a"), (10, "b")]).await;
    let high = notes.data(&[(100, "c"), (110, "d")]).await;
    notes.0.commit([low.clone(), high.clone()].concat(), vec![], &[]).await;
    let deletes = notes.deletes(&[105]).await;
    notes.0.commit(vec![], vec![deletes.clone()], &[]).await;
    for lost in [&high[0], &deletes] {
        notes.0.lose(&lost.file);
    }
    assert_eq!(notes.found(&[10, 1, 50, 99, 111]).await, "b a - - -");
    assert!(notes.find(&[100]).await.is_err());
}

#[tokio::test]
async fn bounds_of_text_are_cut_and_still_hold() {
    let fields = [column(1, "k", PrimitiveType::String), column(2, "note", PrimitiveType::String)];
    let mut rig = Rig::new(schema(fields), nothing(), FormatVersion::V2);
    let same = "the same sixteen letters, and ";
    let keys = [format!("{same}a"), format!("{same}m"), format!("{same}z")];
    let data = rig.data(&rows([("k", texts(&keys[1..2])), ("note", texts(&["m"]))])).await;
    let (lower, upper) = (&data[0].file.lower_bounds()[&1], &data[0].file.upper_bounds()[&1]);
    assert_eq!((lower.to_string(), upper.to_string()), ("\"the same sixteen\"".into(), "\"the same sixteeo\"".into()));
    rig.commit(data, vec![], &[]).await;
    let found = find(&mut rig.base(), &[1], &rows([("k", texts(&keys))]), &[2]).await.unwrap();
    assert_eq!(found.places, [None, Some(0), None]);
}

#[tokio::test]
async fn of_a_large_file_only_those_row_groups_are_read_that_may_hold_a_key() {
    let mut notes = Notes::new(FormatVersion::V2);
    // Text that does not compress well, in several row groups of one file; every third id.
    let text = |id: i64| (0..20).fold(String::new(), |text, n| text + &format!("{:016x}", scrambled(id * 20 + n)));
    let texts: BTreeMap<i64, String> = (0..20_000).map(|n| (n * 3, text(n * 3))).collect();
    let all: Vec<(i64, &String)> = texts.iter().map(|(id, text)| (*id, text)).collect();
    let options = WriterOptions { row_group_bytes: 512 << 10, ..WriterOptions::default() };
    let files = notes.0.data_with(&Notes::of(&all), options).await;
    let [file] = &files[..] else { panic!("one file") };
    let groups = file.file.split_offsets().unwrap().to_vec();
    assert!(file.file.file_size_in_bytes() > 2 << 20 && groups.len() > 4, "{groups:?}");
    notes.0.commit(files.clone(), vec![], &[]).await;
    let wanted: Vec<i64> = (0..3530).rev().map(|n| n * 17).collect();
    for (id, found) in wanted.iter().zip(notes.find(&wanted).await.unwrap()) {
        assert_eq!(found.as_ref(), texts.get(id), "{id}");
    }

    // All but the last one are destroyed.
    let path = file.file.file_path().strip_prefix("file://").unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4..usize::try_from(*groups.last().unwrap()).unwrap()].fill(0);
    std::fs::write(path, bytes).unwrap();
    let wanted = [59_997, 59_996, 59_994, 59_991];
    let found = notes.find(&wanted).await.unwrap();
    assert_eq!(found, [Some(text(59_997)), None, Some(text(59_994)), Some(text(59_991))]);
    assert!(notes.find(&[59_997, 3]).await.is_err());
}

/// Another number for each, in no order: the last steps of splitmix64.
fn scrambled(number: i64) -> u64 {
    let mixed = number.unsigned_abs().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
