//! What the Iceberg specification says of a table, whatever the table holds, and what readers rely on to skip files.

use philotes_tests::readers::{Reader, Table};

/// Asserts it of a table in which the sink has appended and nobody else.
pub(crate) fn assert_sound(table: &Table) {
    assert_field_ids(table);
    assert_places(table);
    assert_lineage(table);
    let faults = table.file_faults().unwrap();
    assert!(faults.is_empty(), "{}: {faults:#?}", table.name);
}

/// Every column of every data file carries the field id that the schema gives it, lists' elements included.
fn assert_field_ids(table: &Table) {
    let expected = table.field_ids().unwrap();
    assert!(expected.values().all(|id| *id > 0), "{expected:?}");
    let files = table.parquet_field_ids().unwrap();
    assert!(!files.is_empty());
    for (file, found) in files {
        assert_eq!(found, expected, "{}: {file}", table.name);
    }
}

/// The files lie below the table's location, each in one place.
fn assert_places(table: &Table) {
    let location = table.location().unwrap();
    let metadata = table.metadata_location().unwrap();
    assert!(metadata.starts_with(&format!("{location}/metadata/")), "{metadata} is not below {location}");
    let mut paths: Vec<String> = Reader::PyIceberg.files(table).unwrap().into_iter().map(|file| file.path).collect();
    for path in &paths {
        assert!(path.starts_with(&format!("{location}/data/")), "{path} is not below {location}");
    }
    let count = paths.len();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), count, "{}: a file is there twice", table.name);
}

/// Each snapshot's parent is the one before it, and neither sequence numbers nor times go back.
fn assert_lineage(table: &Table) {
    let snapshots = Reader::PyIceberg.snapshots(table).unwrap();
    let first = snapshots.first().unwrap();
    assert!(first.parent.is_none() && first.sequence > 0, "{first:?}");
    for pair in snapshots.windows(2) {
        let in_order = pair[0].sequence < pair[1].sequence && pair[0].timestamp_ms <= pair[1].timestamp_ms;
        assert!(in_order && pair[1].parent.as_ref() == Some(&pair[0].id), "{}: {pair:#?}", table.name);
    }
}
