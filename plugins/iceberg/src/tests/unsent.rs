//! Files of requests that were never sent are removed at once, those of requests that were sent never.

use std::path::Path;

use iceberg::TableUpdate;
use philotes_sdk::{Error, ErrorKind};

use super::*;
use crate::tests::faulty::Fault;

/// The names of all files below a folder, sorted.
pub(super) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path.to_str().unwrap().to_owned()) }
        }
    }
    found.sort();
    found
}

/// How many data files there are, manifests and manifest lists.
fn counts(lake: &Lake) -> (usize, usize, usize) {
    let files = files(&lake.folder.path().join("warehouse"));
    let count = |wanted: fn(&str) -> bool| files.iter().filter(|file| wanted(file)).count();
    (
        count(|file| file.ends_with(".parquet")),
        count(|file| file.contains("-m") && file.ends_with(".avro")),
        count(|file| file.contains("/snap-")),
    )
}

async fn close(sink: IcebergSink) {
    sink.close(std::time::Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn a_proposal_that_fails_midway_leaves_nothing_and_the_payload_goes_with_the_sink() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let set = |value: &str| {
        let updates = [("commit.manifest.min-count-to-merge".to_owned(), value.to_owned())].into();
        vec![TableUpdate::SetProperties { updates }]
    };
    // Found out only once the new files' manifest is written.
    foreign::apply(&catalog.inner, set("many")).await;
    drop(sink);
    let (mut sink, _) = lake.announced().await;
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Config);
    assert_eq!(counts(&lake), (2, 1, 1));
    close(sink).await;
    assert_eq!(counts(&lake), (1, 1, 1));
    assert_eq!(lake.ids().await, [1]);
}

#[tokio::test]
async fn what_never_left_goes_and_what_was_sent_stays() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    assert_eq!(counts(&lake), (1, 1, 1));
    catalog.script([Fault::Unreachable, Fault::Unreachable]);
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Unavailable);
    assert_failed(&sink.flush().await.unwrap(), ErrorKind::Unavailable);
    assert_eq!(counts(&lake), (2, 1, 1));
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(counts(&lake), (2, 2, 2));

    catalog.script([Fault::Unreachable]);
    assert_failed(&commit(&mut sink, &[3]).await, ErrorKind::Unavailable);
    assert_eq!(counts(&lake), (3, 2, 2));
    close(sink).await;
    assert_eq!(counts(&lake), (2, 2, 2));

    // Sent: the request may still arrive, whatever is said of it.
    for fault in [Fault::Unavailable, Fault::Late] {
        let (mut sink, catalog) = lake.announced().await;
        catalog.script([fault]);
        *catalog.failing_loads.lock().unwrap() = 1;
        let failed = commit(&mut sink, &[3]).await;
        assert!(!failed.failed.is_empty());
        let before = counts(&lake);
        close(sink).await;
        assert_eq!(counts(&lake), before);
    }
    assert_eq!(counts(&lake), (4, 4, 4));
    assert_eq!(lake.ids().await, [1, 2]);
}

#[tokio::test]
async fn files_that_were_rolled_before_the_flush_go_with_the_sink() {
    let mut lake = Lake::new();
    lake.config.partition_by = vec!["id".into()];
    // A schema of its own completes what was written before.
    let (mut sink, _) = lake.announced().await;
    sink.write(&row(1)).await.unwrap();
    sink.write(&rows(orders(), &[2], Some("x"))).await.unwrap();
    assert_eq!(counts(&lake), (1, 0, 0));
    close(sink).await;
    assert_eq!(counts(&lake), (0, 0, 0));

    let (mut sink, _) = lake.announced().await;
    let ids: Vec<i64> = (0..100).collect();
    // More than the sink keeps as it came.
    let note = "x".repeat(10_000);
    sink.write(&rows(orders(), &ids, Some(&note))).await.unwrap();
    sink.write(&rows(orders(), &[100], Some(&note))).await.unwrap();
    assert!(counts(&lake).0 >= 30, "{:?}", counts(&lake));
    close(sink).await;
    assert_eq!(counts(&lake), (0, 0, 0));
}

#[tokio::test]
async fn a_close_that_is_cut_short_leaves_files_behind_and_says_nothing_else() -> Result<(), Error> {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    catalog.script([Fault::Unreachable]);
    assert_failed(&commit(&mut sink, &[1]).await, ErrorKind::Unavailable);
    sink.close(std::time::Duration::ZERO).await
}
