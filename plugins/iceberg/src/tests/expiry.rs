//! Expiries beside what others do at the same moment.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use iceberg::TableUpdate;
use iceberg::spec::{PartitionStatisticsFile, SnapshotReference, SnapshotRetention, StatisticsFile, TableMetadata};
use philotes_sdk::{ActionOutput, Result, Sink};
use serde_json::json;

use super::faulty::Fault;
use super::*;
use crate::config::Snapshots;
use crate::lineage;

const RECORD: &str = "philotes.expiry.";

/// A sink that keeps one snapshot, beside a catalog that can assert requirements only, with four commits done.
async fn rest(lake: &mut Lake) -> (IcebergSink, Arc<FaultyCatalog>) {
    let (mut sink, _) = lake.announced().await;
    for id in 1..=4 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    lake.config.snapshots = Some(Snapshots { keep: 1, older_than: None });
    let (sink, catalog) = lake.announced().await;
    catalog.requirements_only.store(true, Ordering::Relaxed);
    (sink, catalog)
}

fn tag(snapshot_id: i64) -> SnapshotReference {
    SnapshotReference::new(snapshot_id, SnapshotRetention::Tag { max_ref_age_ms: None })
}

fn set_ref(name: &str, reference: SnapshotReference) -> TableUpdate {
    TableUpdate::SetSnapshotRef { ref_name: name.into(), reference }
}

fn set(name: &str, value: &str) -> TableUpdate {
    TableUpdate::SetProperties { updates: [(name.to_owned(), value.to_owned())].into() }
}

/// The snapshot before the current one, as the table was.
fn second(metadata: &TableMetadata) -> i64 {
    lineage::history(metadata).nth(1).unwrap().snapshot_id()
}

/// The next commit of rows goes through; this happens just before the expiry after it arrives.
fn before_the_expiry(catalog: &FaultyCatalog, updates: Vec<TableUpdate>) {
    let pass = Fault::after(async |_| {});
    catalog.script([pass, Fault::after(async move |inner| foreign::apply(&inner, updates).await)]);
}

fn records(metadata: &TableMetadata) -> Vec<String> {
    metadata.properties().keys().filter(|name| name.starts_with(RECORD)).cloned().collect()
}

fn path(location: &str) -> PathBuf {
    Path::new(location.strip_prefix("file://").unwrap()).to_owned()
}

/// All files that a snapshot needs.
async fn files_of(table: &LoadedTable, snapshot: i64) -> Vec<PathBuf> {
    let snapshot = table.metadata.snapshot_by_id(snapshot).unwrap();
    let list = crate::base::read_manifest_list(&table.files.io, &table.metadata, snapshot).await.unwrap();
    let mut files = vec![path(snapshot.manifest_list())];
    for manifest in list {
        let read = manifest.load_manifest(&table.files.io).await.unwrap();
        files.push(path(&manifest.manifest_path));
        files.extend(read.entries().iter().filter(|entry| entry.is_alive()).map(|entry| path(entry.file_path())));
    }
    files
}

async fn act(lake: &Lake, action: &str, arguments: serde_json::Value) -> Result<ActionOutput> {
    IcebergSink::act(lake.config.clone(), Lake::context(), action, arguments).await
}

async fn remove_orphans(lake: &Lake) -> Result<ActionOutput> {
    act(lake, "orphans", json!({"remove": true, "older_than": "0s"})).await
}

#[tokio::test]
async fn a_tag_made_just_before_an_expiry_is_put_back_with_its_files() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = rest(&mut lake).await;
    let before = lake.load(ORDERS).await;
    let tagged = second(&before.metadata);
    let files = files_of(&before, tagged).await;
    before_the_expiry(&catalog, vec![set_ref("audit", tag(tagged))]);
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    assert_eq!(catalog.unused_faults(), 0);

    let metadata = lake.metadata().await;
    assert_eq!(metadata.snapshot_for_ref("audit").unwrap().snapshot_id(), tagged);
    assert_eq!(records(&metadata), [""; 0]);
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
    // The sink goes on, above what came back.
    assert_durable(&commit(&mut sink, &[6]).await, 6);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[7]).await, 7);
    assert_eq!(lake.ids().await, (1..=7).collect::<Vec<_>>());
    remove_orphans(&lake).await.unwrap();
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
    let metadata = lake.metadata().await;
    let mut numbers: Vec<i64> = metadata.snapshots().map(|snapshot| snapshot.sequence_number()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), metadata.snapshots().len());
    assert_eq!(files_of(&lake.load(ORDERS).await, tagged).await, files);
}

/// A token that names the snapshot would be refused if it stood beside the history.
#[tokio::test]
async fn what_a_token_names_comes_back_under_another_id() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = rest(&mut lake).await;
    let before = lake.load(ORDERS).await;
    let head = lineage::head(&before.metadata).unwrap().snapshot_id();
    let files = files_of(&before, head).await;
    // Another connector's token, which stays at the snapshot that is the current one now.
    let token =
        before.metadata.properties().iter().find(|(name, _)| name.starts_with("philotes.offset.shop.")).unwrap();
    let others = token.0.replace(".shop.", ".other.");
    foreign::apply(&catalog.inner, vec![set(&others, token.1)]).await;
    before_the_expiry(&catalog, vec![set_ref("audit", tag(head))]);
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    let metadata = lake.metadata().await;
    let back = metadata.snapshot_for_ref("audit").unwrap().snapshot_id();
    assert_ne!(back, head);
    assert!(metadata.snapshot_by_id(head).is_none());
    assert_eq!(files_of(&lake.load(ORDERS).await, back).await, files);
    for (connector, at, token) in crate::token::read_everyones(&metadata).unwrap() {
        assert_eq!(lineage::check(&metadata, &token), Ok(()), "{connector} {at}");
    }
}

#[tokio::test]
async fn the_embedded_catalog_refuses_an_expiry_that_others_came_before() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = rest(&mut lake).await;
    catalog.requirements_only.store(false, Ordering::Relaxed);
    let tagged = second(&*lake.metadata().await);
    before_the_expiry(&catalog, vec![set_ref("audit", tag(tagged))]);
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    let metadata = lake.metadata().await;
    let audit = metadata.snapshot_for_ref("audit").unwrap();
    assert_eq!((audit.snapshot_id(), audit.sequence_number()), (tagged, 3));
    // It was planned anew, around the tag.
    assert_eq!(metadata.snapshots().len(), 2);
}

/// The task dies between the request and the look at what it replaced: the record tells whoever comes next.
#[tokio::test]
async fn a_record_outlives_the_task_that_set_it() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = rest(&mut lake).await;
    let before = lake.load(ORDERS).await;
    let tagged = second(&before.metadata);
    let files = files_of(&before, tagged).await;
    let updates = vec![set_ref("audit", tag(tagged)), set_ref("experiment", foreign::branch(tagged))];
    let pass = Fault::after(async |_| {});
    catalog.script([pass, Fault::Late]);
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    drop(sink);
    foreign::apply(&catalog.inner, updates).await;
    assert_eq!(catalog.deliver().await, [true]);
    let metadata = lake.metadata().await;
    assert!(metadata.snapshot_for_ref("audit").is_none());
    assert_eq!(records(&metadata).len(), 1);

    let refused = remove_orphans(&lake).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!("snapshot {tagged} of \"audit\" and snapshot {tagged} of \"experiment\"")),
        "{refused}"
    );
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
    let ActionOutput::Rows { rows, .. } = act(&lake, "expiries", json!({})).await.unwrap() else { panic!() };
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0][2], "waits for somebody");

    // The next task finds it.
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[6]).await, 6);
    let metadata = lake.metadata().await;
    for name in ["audit", "experiment"] {
        assert_eq!(metadata.snapshot_for_ref(name).unwrap().snapshot_id(), tagged);
    }
    assert_eq!(records(&metadata), [""; 0]);
    remove_orphans(&lake).await.unwrap();
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
    assert_eq!(lake.ids().await, (1..=6).collect::<Vec<_>>());
}

#[tokio::test]
async fn gc_switched_off_just_before_an_expiry_keeps_the_files_until_somebody_decides() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = rest(&mut lake).await;
    let before = lake.load(ORDERS).await;
    let lost = second(&before.metadata);
    let files = files_of(&before, lost).await;
    before_the_expiry(&catalog, vec![set("gc.enabled", "FALSE")]);
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    let name = records(&*lake.metadata().await).pop().unwrap();
    foreign::apply(&catalog.inner, vec![set("gc.enabled", "TRUE")]).await;
    // No other expiry comes before the decision.
    assert_durable(&commit(&mut sink, &[6]).await, 6);
    assert_durable(&commit(&mut sink, &[7]).await, 7);
    assert_eq!(lake.metadata().await.snapshots().len(), 3);
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
    let refused = remove_orphans(&lake).await.unwrap_err().to_string();
    assert!(refused.contains("gc.enabled=false had just been set"), "{refused}");

    let id = name.strip_prefix(RECORD).unwrap();
    assert!(act(&lake, "expiries", json!({"release": id})).await.is_err());
    assert!(act(&lake, "expiries", json!({"table": ORDERS, "release": "another"})).await.is_err());
    act(&lake, "expiries", json!({"table": ORDERS, "release": id})).await.unwrap();
    assert_durable(&commit(&mut sink, &[8]).await, 8);
    assert_eq!(lake.metadata().await.snapshots().len(), 1);
    remove_orphans(&lake).await.unwrap();
    assert!(!files[0].exists());
}

/// The catalog keeps no old metadata, or does not say where it is: then nothing tells what was dropped.
#[tokio::test]
async fn what_cannot_be_seen_keeps_its_files() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = rest(&mut lake).await;
    let before = lake.load(ORDERS).await;
    let files = files_of(&before, second(&before.metadata)).await;
    let pass = Fault::after(async |_| {});
    catalog.script([pass, Fault::LostReply]);
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    let metadata = lake.metadata().await;
    assert_eq!(records(&metadata).len(), 1);
    for entry in metadata.metadata_log() {
        let _ = std::fs::remove_file(path(&entry.metadata_file));
    }
    assert_durable(&commit(&mut sink, &[6]).await, 6);
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
    let refused = remove_orphans(&lake).await.unwrap_err().to_string();
    assert!(refused.contains("is gone"), "{refused}");
    assert_eq!(lake.ids().await, (1..=6).collect::<Vec<_>>());
}

/// A record that was harmless is cleared by the next commit, and the files go although the reply was lost.
#[tokio::test]
async fn an_expiry_whose_reply_was_lost_is_finished_later() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = rest(&mut lake).await;
    let before = lake.load(ORDERS).await;
    let list = path(before.metadata.snapshot_by_id(second(&before.metadata)).unwrap().manifest_list());
    let pass = Fault::after(async |_| {});
    catalog.script([pass, Fault::LostReply]);
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    assert_eq!(lake.metadata().await.snapshots().len(), 1);
    assert!(list.exists());
    for id in 6..=8 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    assert!(!list.exists());
    // Only the last one's is left, until the next commit.
    assert_eq!(records(&*lake.metadata().await).len(), 1);
    remove_orphans(&lake).await.unwrap();
    assert_eq!(lake.ids().await, (1..=8).collect::<Vec<_>>());
}

#[tokio::test]
async fn statistics_go_with_their_snapshots() {
    let mut lake = Lake::new();
    let (_, catalog) = rest(&mut lake).await;
    let metadata = lake.metadata().await;
    let (old, head) = (second(&metadata), lineage::head(&metadata).unwrap().snapshot_id());
    let made = |snapshot_id: i64, name: &str| {
        let location = format!("{}/metadata/{name}", metadata.location());
        std::fs::write(path(&location), "puffin").unwrap();
        (snapshot_id, location)
    };
    let mut updates = Vec::new();
    for (snapshot_id, statistics_path) in [made(old, "old.stats"), made(head, "head.stats")] {
        let statistics = StatisticsFile {
            snapshot_id,
            statistics_path,
            file_size_in_bytes: 6,
            file_footer_size_in_bytes: 6,
            key_metadata: None,
            blob_metadata: Vec::new(),
        };
        updates.push(TableUpdate::SetStatistics { statistics });
    }
    let (snapshot_id, statistics_path) = made(old, "old.partitions.parquet");
    let partition_statistics = PartitionStatisticsFile { snapshot_id, statistics_path, file_size_in_bytes: 6 };
    updates.push(TableUpdate::SetPartitionStatistics { partition_statistics });
    foreign::apply(&catalog.inner, updates).await;
    lake.config.snapshots = Some(Snapshots { keep: 2, older_than: None });
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    let after = lake.metadata().await;
    assert!(after.snapshot_by_id(old).is_none() && after.snapshot_by_id(head).is_some());
    assert!(after.statistics_for_snapshot(old).is_none() && after.partition_statistics_for_snapshot(old).is_none());
    assert!(after.statistics_for_snapshot(head).is_some());
    let there = |name: &str| path(&format!("{}/metadata/{name}", metadata.location())).exists();
    assert_eq!([there("old.stats"), there("old.partitions.parquet"), there("head.stats")], [false, false, true]);
}

/// The table's own retention, which Java's expiry goes by.
#[tokio::test]
async fn the_tables_own_retention_is_kept() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = rest(&mut lake).await;
    foreign::apply(&catalog.inner, vec![set("history.expire.min-snapshots-to-keep", "3")]).await;
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    assert_eq!(lake.metadata().await.snapshots().len(), 3);
    foreign::apply(&catalog.inner, vec![set("history.expire.max-snapshot-age-ms", "86400000")]).await;
    assert_durable(&commit(&mut sink, &[6]).await, 6);
    assert_eq!(lake.metadata().await.snapshots().len(), 4);
}
