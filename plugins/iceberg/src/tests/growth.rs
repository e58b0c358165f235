//! What piles up is kept small: manifests, snapshots, files.

use std::collections::HashSet;

use iceberg::TableUpdate;
use iceberg::spec::{SnapshotReference, SnapshotRetention};

use super::*;
use crate::config::Snapshots;
use crate::lineage;

fn keep(keep: u32, older_than: Option<&str>) -> Option<Snapshots> {
    Some(Snapshots { keep, older_than: older_than.map(str::to_owned) })
}

/// Names of the files in the table's metadata folder.
fn metadata_files(metadata: &iceberg::spec::TableMetadata) -> HashSet<String> {
    let folder = format!("{}/metadata", metadata.location().strip_prefix("file://").unwrap());
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn merge_at(lake: &Lake, count: usize) {
    let limit = ("commit.manifest.min-count-to-merge".to_owned(), count.to_string());
    foreign::apply(&*lake.catalog().await, vec![TableUpdate::SetProperties { updates: [limit].into() }]).await;
}

#[tokio::test]
async fn manifests_are_merged_as_they_pile_up() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    merge_at(&lake, 5).await;
    let (mut sink, _) = lake.announced().await;
    let mut counts = Vec::new();
    for id in 2..=20 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
        let mut base = Base::new(lake.load(ORDERS).await);
        counts.push(base.manifests().await.unwrap().len());
    }
    assert!(counts.iter().all(|count| *count <= 5), "{counts:?}");
    assert!(counts.contains(&2), "{counts:?}");
    assert_eq!(lake.ids().await, (1..=20).collect::<Vec<_>>());
    // Each entry still says which commit brought it.
    let mut base = Base::new(lake.load(ORDERS).await);
    let mut brought = HashSet::new();
    for manifest in base.manifests().await.unwrap().iter() {
        for entry in manifest.load_manifest(&base.files).await.unwrap().entries() {
            let snapshot = base.metadata.snapshot_by_id(entry.snapshot_id().unwrap()).unwrap();
            assert_eq!(entry.sequence_number(), Some(snapshot.sequence_number()));
            assert!(brought.insert(snapshot.snapshot_id()));
        }
    }
    assert_eq!(brought.len(), 20);
}

/// What the sink keeps in memory of the manifest list is what the file says.
#[tokio::test]
async fn a_restart_goes_on_with_the_same_manifests() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    for id in 1..=4 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    let before = Base::new(lake.load(ORDERS).await).manifests().await.unwrap();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    let after = Base::new(lake.load(ORDERS).await).manifests().await.unwrap();
    assert_eq!(after[1..], before[..]);
    assert_eq!((after[0].sequence_number, after[0].min_sequence_number), (5, 5));
}

#[tokio::test]
async fn snapshots_expire_after_the_commits_and_their_files_go() {
    let mut lake = Lake::new();
    lake.config.snapshots = keep(3, None);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    merge_at(&lake, 4).await;
    let (mut sink, catalog) = lake.announced().await;
    for id in 2..=30 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    // One request per commit, and one per expiry: a test does not wait a minute between them.
    assert_eq!(catalog.requests().len(), 29 + 27);
    let metadata = lake.metadata().await;
    assert_eq!(metadata.snapshots().len(), 3);
    assert_eq!(lineage::history(&metadata).count(), 3);
    assert_eq!(lake.ids().await, (1..=30).collect::<Vec<_>>());
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap(), [Some(offset(30))]);

    // What is left is what the snapshots use, and nothing else.
    let mut used = HashSet::new();
    let table = lake.load(ORDERS).await;
    for snapshot in metadata.snapshots() {
        used.insert(snapshot.manifest_list().to_owned());
        let list = crate::base::read_manifest_list(&table.files.io, &metadata, snapshot).await.unwrap();
        used.extend(list.into_iter().map(|manifest| manifest.manifest_path));
    }
    let used: HashSet<_> = used.iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
    let found: HashSet<_> = metadata_files(&metadata).into_iter().filter(|name| name.ends_with(".avro")).collect();
    assert_eq!(found, used);
}

#[tokio::test]
async fn young_snapshots_and_tagged_ones_do_not_expire() {
    let mut lake = Lake::new();
    lake.config.snapshots = keep(1, Some("1h"));
    let (mut sink, catalog) = lake.announced().await;
    for id in 1..=4 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    assert_eq!(lake.metadata().await.snapshots().len(), 4);

    let metadata = lake.metadata().await;
    let tagged = lineage::history(&metadata).nth(1).unwrap().clone();
    let retention = SnapshotRetention::Tag { max_ref_age_ms: None };
    let reference = SnapshotReference::new(tagged.snapshot_id(), retention);
    foreign::apply(&catalog.inner, vec![TableUpdate::SetSnapshotRef { ref_name: "audit".into(), reference }]).await;
    lake.config.snapshots = keep(1, None);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    assert_durable(&commit(&mut sink, &[6]).await, 6);
    let metadata = lake.metadata().await;
    assert_eq!(metadata.snapshots().len(), 2);
    assert_eq!(metadata.snapshot_for_ref("audit").unwrap().snapshot_id(), tagged.snapshot_id());
    let table = lake.load(ORDERS).await;
    let list = crate::base::read_manifest_list(&table.files.io, &metadata, &tagged).await.unwrap();
    for manifest in list {
        assert!(table.files.io.exists(&manifest.manifest_path).await.unwrap());
    }
}

#[tokio::test]
async fn what_must_not_be_collected_is_not() {
    let mut lake = Lake::new();
    lake.config.snapshots = keep(1, None);
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let off = [("gc.enabled".to_owned(), "false".to_owned())].into();
    foreign::apply(&catalog.inner, vec![TableUpdate::SetProperties { updates: off }]).await;
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    assert_durable(&commit(&mut sink, &[3]).await, 3);
    assert_eq!(lake.metadata().await.snapshots().len(), 3);
}

#[tokio::test]
async fn totals_go_on_from_commit_to_commit_and_end_where_a_program_writes_none() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    let summary = async || {
        let metadata = lake.metadata().await;
        lineage::head(&metadata).unwrap().summary().additional_properties.clone()
    };
    assert_durable(&commit(&mut sink, &[1, 2]).await, 2);
    assert_durable(&commit(&mut sink, &[3]).await, 3);
    let found = summary().await;
    for (name, value) in [
        ("added-data-files", "1"),
        ("added-records", "1"),
        ("changed-partition-count", "1"),
        ("total-data-files", "2"),
        ("total-records", "3"),
        ("total-delete-files", "0"),
        ("total-position-deletes", "0"),
        ("total-equality-deletes", "0"),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    let sizes: u64 =
        std::fs::read_dir(lake.metadata().await.location().strip_prefix("file://").unwrap().to_owned() + "/data")
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
    assert_eq!(found["total-files-size"], sizes.to_string());
    foreign::append(&catalog.inner).await;
    assert_durable(&commit(&mut sink, &[4]).await, 4);
    let found = summary().await;
    assert_eq!(found["added-records"], "1");
    assert!(!found.contains_key("total-records"));
}

/// A week of commits every ten seconds, as another program has left them. Loops over snapshots within loops over snapshots would take
/// minutes here; the time that is allowed only says that it ends.
#[tokio::test]
async fn a_start_on_a_table_of_many_snapshots_ends() {
    let mut lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let table = lake.load(ORDERS).await;
    let location = table.metadata_location.unwrap();
    let path = location.strip_prefix("file://").unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let first = json["snapshots"][0].clone();
    let (begin, count) = (first["timestamp-ms"].as_i64().unwrap(), 60_480);
    let mut parent = first["snapshot-id"].as_i64().unwrap();
    for number in 2..=count {
        let mut snapshot = first.clone();
        snapshot["snapshot-id"] = (1_000_000 + number).into();
        snapshot["parent-snapshot-id"] = parent.into();
        snapshot["sequence-number"] = number.into();
        snapshot["timestamp-ms"] = (begin + number - count).into();
        parent = 1_000_000 + number;
        let logged = serde_json::json!({"snapshot-id": parent, "timestamp-ms": begin + number - count});
        json["snapshots"].as_array_mut().unwrap().push(snapshot);
        json["snapshot-log"].as_array_mut().unwrap().push(logged);
    }
    json["snapshots"][0]["timestamp-ms"] = (begin - count).into();
    json["snapshot-log"][0]["timestamp-ms"] = (begin - count).into();
    json["current-snapshot-id"] = parent.into();
    json["refs"]["main"]["snapshot-id"] = parent.into();
    json["last-sequence-number"] = count.into();
    std::fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();

    lake.config.snapshots = keep(100, None);
    let began = std::time::Instant::now();
    let all = async {
        let (mut sink, _) = lake.announced().await;
        assert_durable(&commit(&mut sink, &[2]).await, 2);
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), all).await.unwrap();
    println!("a start and a commit on {count} snapshots took {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(lake.metadata().await.snapshots().len(), 60_481 - 1000);
}
