use std::collections::HashMap;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Datum};

use super::*;

/// No key that is in the table is ever said not to be there, and few others are said to be.
#[test]
fn a_filter_forgets_nothing_until_it_gives_up() {
    let budget = Arc::new(FilterBudget::new(64 << 10));
    let mut filter = Filter::new(budget.clone());
    let key = |number: u64| hash(&number.to_be_bytes());
    let wrong = |filter: &Filter| (1_000_000..1_010_000).filter(|number| filter.holds(key(*number))).count();
    let mut count = 0;
    while filter.add(key(count)) {
        count += 1;
        if count == 1000 {
            assert!(matches!(filter.hashes, Hashes::Exact(_)));
            assert_eq!(wrong(&filter), 0);
        }
        assert!(budget.taken() <= 64 << 10);
    }
    // Eight bits a key, in all of the memory; a few were taken for others.
    assert!((64 << 10..66_500).contains(&count), "{count}");
    assert!(matches!(filter.hashes, Hashes::Bloom(_)));
    assert!((0..count).all(|number| filter.holds(key(number))));
    let wrong = wrong(&filter);
    assert!(wrong < 500, "{wrong} of 10,000");
    // What is there need not be taken in.
    assert!(filter.add(key(5)));
    drop(filter);
    assert_eq!(budget.taken(), 0);
}

#[test]
fn filters_share_their_memory() {
    let budget = Arc::new(FilterBudget::new(4 << 10));
    let fill = |filter: &mut Filter| (0..u64::MAX).take_while(|number| filter.add(hash(&number.to_be_bytes()))).count();
    let (mut one, mut other) = (Filter::new(budget.clone()), Filter::new(budget));
    assert!(fill(&mut one) >= 2000);
    assert_eq!(fill(&mut other), 0);
    drop(one);
    assert!(fill(&mut other) >= 2000);
}

fn within(bounds: &Bounds, column: &ArrayRef) -> Vec<bool> {
    let mut within = vec![true; column.len()];
    bounds.keep(column, &mut within).unwrap();
    within
}

fn file(lower: Option<Datum>, upper: Option<Datum>) -> DataFile {
    let bound = |datum: Option<Datum>| datum.map(|datum| (7, datum)).into_iter().collect::<HashMap<_, _>>();
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path("f.parquet".into())
        .file_format(DataFileFormat::Parquet)
        .record_count(1)
        .file_size_in_bytes(1)
        .partition_spec_id(0)
        .lower_bounds(bound(lower))
        .upper_bounds(bound(upper))
        .build()
        .unwrap()
}

#[test]
fn bounds_are_widened_by_values_and_files() {
    let ids = |ids: &[i64]| Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
    let mut bounds = Bounds::Nothing;
    assert_eq!(within(&bounds, &ids(&[0])), [false]);
    bounds.take_in(&ids(&[5, -3])).unwrap();
    assert_eq!(within(&bounds, &ids(&[-4, -3, 0, 5, 6])), [false, true, true, true, false]);
    // What was written when the column was narrower.
    bounds.take_in_file(&file(Some(Datum::int(-7)), Some(Datum::int(9))), 7, &DataType::Int64).unwrap();
    assert_eq!(within(&bounds, &ids(&[-8, -7, 9, 10])), [false, true, true, false]);
    // Nothing is known of the file.
    bounds.take_in_file(&file(Some(Datum::long(0)), None), 7, &DataType::Int64).unwrap();
    assert_eq!(within(&bounds, &ids(&[i64::MIN, i64::MAX])), [true, true]);

    let texts = |texts: &[&str]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
    let mut bounds = Bounds::Nothing;
    bounds.take_in_file(&file(Some(Datum::string("b")), Some(Datum::string("d"))), 7, &DataType::Utf8).unwrap();
    assert_eq!(within(&bounds, &texts(&["a", "b", "cccc", "d", "da", "é"])), [false, true, true, true, false, false]);
    // Of a uuid's bounds nobody knows how they were compared.
    let mut bounds = Bounds::Nothing;
    let uuid = || Some(Datum::uuid(uuid::Uuid::nil()));
    bounds.take_in_file(&file(uuid(), uuid()), 7, &DataType::FixedSizeBinary(16)).unwrap();
    assert_eq!(bounds, Bounds::Anything);
}
