//! Format version 3, and tables that cannot be written to.

use std::path::PathBuf;

use iceberg::spec::{FormatVersion, ManifestFile, PrimitiveType};
use philotes_sdk::{ErrorKind, Sink};
use serde_json::{Value, json};

use super::tables::{foreign_table, optional};
use super::*;
use crate::manifests;

fn third() -> Lake {
    let mut lake = Lake::new();
    lake.config.format_version = 3;
    lake
}

/// The id of the first row of each live data file, with the number of its rows.
async fn row_ids(lake: &Lake) -> BTreeMap<String, (i64, u64)> {
    let mut base = Base::new(lake.load(ORDERS).await);
    let mut found = BTreeMap::new();
    for manifest in base.manifests().await.unwrap().iter() {
        for entry in manifests::read(&base.files, manifest).await.unwrap().entries {
            let file = &entry.data_file;
            found.insert(file.file_path().to_owned(), (file.first_row_id().unwrap(), file.record_count()));
        }
    }
    found
}

async fn manifests_of(lake: &Lake) -> Arc<Vec<ManifestFile>> {
    Base::new(lake.load(ORDERS).await).manifests().await.unwrap()
}

/// Lets manifests be merged from so many on.
async fn merge_at(lake: &Lake, count: usize) {
    let updates = [("commit.manifest.min-count-to-merge".to_owned(), count.to_string())].into();
    foreign::apply(&*lake.catalog().await, vec![iceberg::TableUpdate::SetProperties { updates }]).await;
}

#[tokio::test]
async fn rows_keep_their_ids_while_manifests_are_merged() {
    let lake = third();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    merge_at(&lake, 4).await;
    assert_eq!(lake.metadata().await.format_version(), FormatVersion::V3);
    let mut known = row_ids(&lake).await;
    let (mut next, mut fewest) = (1, usize::MAX);
    for id in 2..=12 {
        // Also with nothing remembered of the manifests.
        if id % 5 == 0 {
            sink = lake.announced().await.0;
        }
        sink.write(&rows(orders(), &vec![id; usize::try_from(id).unwrap()], None)).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), id);
        let metadata = lake.metadata().await;
        let head = crate::lineage::head(&metadata).unwrap().clone();
        // The specification: a snapshot's first id is the table's next one before it; the next one is after what it gave.
        let (first, added) = head.row_range().unwrap();
        assert_eq!(first, next);
        assert!(added >= id.unsigned_abs());
        next = metadata.next_row_id();
        assert_eq!(next, first + added);
        let now = row_ids(&lake).await;
        for (file, ids) in &known {
            assert_eq!(now[file], *ids, "after commit {id}");
        }
        known = now;
        fewest = fewest.min(manifests_of(&lake).await.len());
    }
    assert_eq!(fewest, 2, "manifests were merged");
    let mut ranges: Vec<_> = known.values().copied().collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        assert!(pair[0].0 + i64::try_from(pair[0].1).unwrap() <= pair[1].0, "{ranges:?}");
    }
    assert_eq!(ranges.iter().map(|(_, rows)| rows).sum::<u64>(), (1..=12).sum::<u64>());
    assert!(ranges.last().unwrap().0 < i64::try_from(next).unwrap());
}

/// What is kept in memory of the manifest list is what the file says, row ids included.
#[tokio::test]
async fn a_restart_goes_on_with_the_same_row_ids() {
    let lake = third();
    let (mut sink, _) = lake.announced().await;
    for id in 1..=3 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    let before = manifests_of(&lake).await;
    assert_eq!(before.iter().map(|m| m.first_row_id).collect::<Vec<_>>(), [Some(2), Some(1), Some(0)]);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[4]).await, 4);
    assert_eq!(manifests_of(&lake).await[1..], before[..]);
}

/// The manifests of a time before version 3 have no row ids; the first commit after it gives them some.
#[tokio::test]
async fn a_table_that_was_upgraded_gets_row_ids() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    for id in 1..=3 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    let upgrade = iceberg::TableUpdate::UpgradeFormatVersion { format_version: FormatVersion::V3 };
    foreign::apply(&*lake.catalog().await, vec![upgrade]).await;
    assert_durable(&commit(&mut sink, &[4]).await, 4);
    let known = row_ids(&lake).await;
    assert_eq!(known.len(), 4);
    merge_at(&lake, 2).await;
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    assert_durable(&commit(&mut sink, &[6]).await, 6);
    let now = row_ids(&lake).await;
    assert!(known.iter().all(|(file, ids)| now[file] == *ids), "{known:?} {now:?}");
    assert_eq!(lake.ids().await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_foreign_table_of_version_3_is_written_to() {
    let lake = Lake::new();
    foreign_table(&lake, vec![optional(1, "id", PrimitiveType::Long)], FormatVersion::V3).await;
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1, 2]).await, 2);
    assert_eq!(lake.ids().await, [1, 2]);
    assert_eq!(lake.metadata().await.next_row_id(), 2);
}

#[tokio::test]
async fn snapshots_of_version_3_expire() {
    let mut lake = third();
    lake.config.snapshots = Some(crate::config::Snapshots { keep: 2, older_than: None });
    let (mut sink, _) = lake.announced().await;
    for id in 1..=6 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    assert_eq!(lake.metadata().await.snapshots().count(), 2);
    assert_eq!(lake.ids().await, [1, 2, 3, 4, 5, 6]);
    let next = lake.announced().await.0.offsets(&[orders()]).await.unwrap();
    assert_eq!(next, [Some(offset(6))]);
}

/// The file with the metadata of the only table, as others may change it.
async fn rewrite(lake: &Lake, change: impl FnOnce(&mut Value)) {
    let location = lake.load(ORDERS).await.metadata_location.unwrap();
    let path = PathBuf::from(location.strip_prefix("file://").unwrap());
    let mut metadata: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut metadata);
    std::fs::write(path, metadata.to_string()).unwrap();
}

#[tokio::test]
async fn what_cannot_be_carried_through_a_commit_stops_the_connector() {
    let add_column = |metadata: &mut Value, kind: &str| {
        let fields = metadata["schemas"][0]["fields"].as_array_mut().unwrap();
        fields.push(json!({"id": 99, "name": "doc", "required": false, "type": kind}));
    };
    type Change<'a> = Box<dyn Fn(&mut Value) + 'a>;
    let cases: [(Change<'_>, &str); 6] = [
        (
            Box::new(|m| add_column(m, "variant")),
            "column \"doc\" is of type variant, which is not known here; allowed are",
        ),
        (Box::new(|m| add_column(m, "geometry(srid:0)")), "column \"doc\" is of type geometry(srid:0)"),
        (Box::new(|m| m["x-of-others"] = json!({"a": 1})), "would be lost with the next commit, x-of-others"),
        (
            Box::new(|m| {
                m["encryption-keys"] =
                    json!([{"key-id": "k", "encrypted-key-metadata": "AA==", "encrypted-by-id": "x"}]);
            }),
            "is encrypted (it has encryption keys)",
        ),
        (Box::new(|m| m["properties"]["encryption.key-id"] = json!("k")), "is encrypted (it has the property"),
        (Box::new(|m| m["format-version"] = json!(4)), "has format version 4; allowed are 2 and 3"),
    ];
    for (change, why) in cases {
        let lake = third();
        let (mut sink, _) = lake.announced().await;
        assert_durable(&commit(&mut sink, &[1]).await, 1);
        rewrite(&lake, change).await;
        let (mut sink, _) = lake.faulty().await;
        let error = sink.offsets(&[orders()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("cdc.public_orders") && error.to_string().contains(why), "{error}");
    }
}

/// As Java writes it where `write.metadata.compression-codec` says so.
#[tokio::test]
async fn compressed_metadata_is_read() {
    let lake = third();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let updates = [("write.metadata.compression-codec".to_owned(), "gzip".to_owned())].into();
    foreign::apply(&*lake.catalog().await, vec![iceberg::TableUpdate::SetProperties { updates }]).await;
    let (mut sink, _) = lake.announced().await;
    assert!(lake.load(ORDERS).await.metadata_location.unwrap().ends_with(".gz.metadata.json"));
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    assert_eq!(lake.ids().await, [1, 2]);
}

/// A source's timestamps have microseconds. Columns of nanoseconds that it does not have are NULL.
#[tokio::test]
async fn columns_of_nanoseconds_are_left_alone() {
    let nanos = PrimitiveType::TimestamptzNs;
    let lake = Lake::new();
    let fields = vec![optional(1, "id", PrimitiveType::Long), optional(2, "at", nanos.clone())];
    foreign_table(&lake, fields, FormatVersion::V3).await;
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    assert!(lake.batches(ORDERS).await[0].column_by_name("at").unwrap().is_null(0));

    let lake = Lake::new();
    let fields = vec![optional(1, "id", PrimitiveType::Long), optional(2, "_cdc_timestamp", nanos)];
    foreign_table(&lake, fields, FormatVersion::V3).await;
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&row(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let text = error.to_string();
    assert!(
        text.contains("timestamptz_ns") && text.contains("timestamptz") && text.contains("_cdc_timestamp"),
        "{text}"
    );
}
