//! The action `orphans`: it finds what no metadata reaches, and never takes a live file, whoever was paused or comes late.

use chrono::Utc;
use iceberg::TableUpdate;
use iceberg::spec::{StatisticsFile, TableMetadata};
use philotes_sdk::{ActionOutput, ErrorKind, Result, Sink};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::actions::orphans::Search;
use crate::lineage;
use crate::storage::S3Access;
use crate::tests::faulty::Fault;
use crate::tests::unsent::files;

/// In the name of a file that a writer gives.
const ID: &str = "0193a1c2-5b7e-7c3a-9f00-0a1b2c3d4e5f";
/// As Spark names a data file.
const STRAY: &str = "data/00000-7-0193a1c2-5b7e-7c3a-9f00-0a1b2c3d4e5f-00001.parquet";

async fn orphans(lake: &Lake, arguments: serde_json::Value) -> Result<Vec<String>> {
    match IcebergSink::act(lake.config.clone(), Lake::context(), "orphans", arguments).await? {
        ActionOutput::Rows { columns, rows } => {
            assert_eq!(columns[..4], ["table", "file", "bytes", "modified"]);
            assert!(rows.iter().all(|row| row[0] == ORDERS && row[2].parse::<u64>().is_ok()), "{rows:?}");
            let goes = rows.into_iter().filter(|row| row[4] == "yes");
            Ok(goes.map(|row| row[1].strip_prefix("file://").unwrap().to_owned()).collect())
        }
        other => panic!("{other:?}"),
    }
}

async fn listed(lake: &Lake) -> Vec<String> {
    orphans(lake, json!({"older_than": "0s"})).await.unwrap()
}

async fn removed(lake: &Lake) -> Vec<String> {
    orphans(lake, json!({"older_than": "0s", "remove": "true"})).await.unwrap()
}

/// What stays whatever is said, and why.
async fn kept(lake: &Lake, remove: bool) -> Vec<(String, String)> {
    let arguments = json!({"older_than": "0s", "remove": remove.to_string()});
    match IcebergSink::act(lake.config.clone(), Lake::context(), "orphans", arguments).await.unwrap() {
        ActionOutput::Rows { columns, rows } => {
            assert_eq!(columns[4], if remove { "removed" } else { "removable" });
            let kept = rows.into_iter().filter(|row| row[4] != "yes");
            kept.map(|row| (row[1].strip_prefix("file://").unwrap().to_owned(), row[4].clone())).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn on_disk(lake: &Lake) -> Vec<String> {
    files(&lake.folder.path().join("warehouse"))
}

/// A file that nothing knows, in one of the table's folders.
async fn stray(lake: &Lake, name: &str) -> String {
    let location = lake.metadata().await.location().strip_prefix("file://").unwrap().to_owned();
    let path = format!("{location}/{name}");
    std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    std::fs::write(&path, "stray").unwrap();
    path
}

/// Removes what there is, through this catalog.
async fn remove_from(catalog: &Arc<FaultyCatalog>) -> Result<Vec<String>> {
    let search =
        Search { catalog: catalog.clone(), connector: "shop", dead_letters: ident("cdc.dead_letters"), remove: true };
    let removed = search.run(vec![ident(ORDERS)], Utc::now()).await?;
    Ok(removed
        .into_iter()
        .filter(|(_, orphan)| orphan.kept.is_none())
        .map(|(_, orphan)| orphan.file.location)
        .collect())
}

/// A task that dies after it has sent a commit of this row, which never arrives: three files that nothing reaches.
async fn crash(lake: &Lake, id: i64) {
    let (mut sink, catalog) = lake.announced().await;
    catalog.script([Fault::Late]);
    *catalog.failing_loads.lock().unwrap() = 1;
    assert_failed(&commit(&mut sink, &[id]).await, ErrorKind::Unavailable);
}

#[tokio::test]
async fn orphans_are_listed_and_removed_and_live_files_are_not() {
    let lake = Lake::new();
    assert_eq!(orphans(&lake, json!({})).await.unwrap_err().kind(), ErrorKind::Config);
    let (mut sink, catalog) = lake.announced().await;
    for id in 1..=3 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    assert!(listed(&lake).await.is_empty());
    assert!(removed(&lake).await.is_empty());
    assert_eq!(lake.metadata().await.snapshots().len(), 3, "no fence where there is nothing to remove");

    crash(&lake, 4).await;
    let statistics = stray(&lake, "metadata/of-a-snapshot.stats").await;
    let metadata = lake.metadata().await;
    let file = StatisticsFile {
        snapshot_id: lineage::head(&metadata).unwrap().snapshot_id(),
        statistics_path: format!("file:{statistics}"),
        file_size_in_bytes: 5,
        file_footer_size_in_bytes: 1,
        key_metadata: None,
        blob_metadata: Vec::new(),
    };
    foreign::apply(&catalog.inner, vec![TableUpdate::SetStatistics { statistics: file }]).await;
    for kept in ["metadata/version-hint.text", "data/_SUCCESS", "data/.x.crc", "elsewhere/x"] {
        stray(&lake, kept).await;
    }
    let known = stray(&lake, &format!("data/_day=1/{ID}.parquet")).await;
    let before = on_disk(&lake);
    let found = listed(&lake).await;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.contains(&known));
    assert!(orphans(&lake, json!({"remove": true})).await.unwrap().is_empty(), "they are younger than three days");
    assert!(orphans(&lake, json!({"older_than": "1h"})).await.unwrap().is_empty());
    assert_eq!(orphans(&lake, json!({"older_than": "0s", "stream": "public.orders"})).await.unwrap(), found);
    assert_eq!(orphans(&lake, json!({"older_than": "0s", "table": ORDERS})).await.unwrap(), found);
    assert_eq!(on_disk(&lake), before);
    assert_eq!(lake.metadata().await.snapshots().len(), 3);

    assert_eq!(removed(&lake).await, found);
    assert!(listed(&lake).await.is_empty());
    let left = on_disk(&lake);
    let gone: Vec<_> = before.iter().filter(|file| !left.contains(file)).cloned().collect();
    assert_eq!(gone, found);
    assert_eq!(lake.ids().await, [1, 2, 3]);
    let metadata = lake.metadata().await;
    let fence = lineage::head(&metadata).unwrap().summary().additional_properties["philotes.commit-id"].clone();
    assert_eq!(metadata.properties()["philotes.orphans"], fence);
    assert_eq!(metadata.snapshots().len(), 4);

    // The task that ran meanwhile starts over once.
    assert_failed(&commit(&mut sink, &[4]).await, ErrorKind::Fenced);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[4]).await, 4);
    assert_eq!(lake.ids().await, [1, 2, 3, 4]);
}

/// A user's documents in a table's folders stay, wherever those are and whatever leads there.
#[tokio::test]
async fn what_is_not_icebergs_is_never_removed() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let mut documents = Vec::new();
    for name in ["data/thesis.docx", "data/orders.parquet", "metadata/notes.json", "metadata/v3.metadata.json"] {
        documents.push(stray(&lake, name).await);
    }
    // Named as a writer would name them, but elsewhere: in the folder of a property, and behind a link.
    let own = lake.folder.path().join("home");
    std::fs::create_dir_all(own.join("linked")).unwrap();
    let elsewhere = [format!("00000-7-{ID}-00001.parquet"), format!("linked/{ID}.parquet"), "cv.pdf".to_owned()]
        .map(|name| own.join(name).display().to_string());
    for file in &elsewhere {
        std::fs::write(file, "mine").unwrap();
    }
    let location = lake.metadata().await.location().strip_prefix("file://").unwrap().to_owned();
    std::os::unix::fs::symlink(own.join("linked"), format!("{location}/data/link")).unwrap();
    let path = ("write.data.path".to_owned(), format!("file://{}", own.display()));
    foreign::apply(&catalog.inner, vec![TableUpdate::SetProperties { updates: [path].into() }]).await;

    let goes = stray(&lake, STRAY).await;
    let mut expected: Vec<(String, &str)> =
        documents.iter().map(|file| (file.clone(), "no: its name is none that Iceberg's writers give")).collect();
    let behind_the_link = format!("{location}/data/link/{ID}.parquet");
    let outside = elsewhere.iter().chain([&behind_the_link]);
    expected.extend(outside.map(|file| (file.clone(), "no: it lies outside of the table's location")));
    expected.sort();
    let expected: Vec<_> = expected.into_iter().map(|(file, why)| (file, why.to_owned())).collect();
    let as_set = |mut kept: Vec<(String, String)>| {
        kept.sort();
        kept
    };
    assert_eq!(listed(&lake).await, [goes.as_str()]);
    assert_eq!(as_set(kept(&lake, false).await), expected);
    assert_eq!(removed(&lake).await, [goes.as_str()]);
    assert!(!on_disk(&lake).contains(&goes));
    assert_eq!(as_set(kept(&lake, true).await), expected, "no fence, and nothing to remove");
    for file in documents.iter().chain(&elsewhere) {
        assert!(std::path::Path::new(file).exists(), "{file} is gone");
    }
    assert_eq!(lake.metadata().await.snapshots().len(), 2, "a fence for the one that went");
    assert_eq!(lake.ids().await, [1]);
}

/// Whatever a task has written before the fence, it does not commit afterwards.
#[tokio::test]
async fn a_paused_task_is_fenced_and_its_late_request_fails() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    drop(sink);

    // Its request comes late.
    let (mut late, catalog) = lake.announced().await;
    catalog.script([Fault::Late]);
    *catalog.failing_loads.lock().unwrap() = 1;
    assert_failed(&commit(&mut late, &[2]).await, ErrorKind::Unavailable);
    // It has sent nothing yet.
    let (mut unsent, other) = lake.announced().await;
    other.script([Fault::Unreachable]);
    assert_failed(&commit(&mut unsent, &[2]).await, ErrorKind::Unavailable);
    // It has completed files and alters the table next.
    let (mut alters, _) = lake.announced().await;
    alters.write(&row(2)).await.unwrap();
    // Its request arrives, and it does not know.
    let (mut unknowing, third) = lake.announced().await;

    assert_eq!(removed(&lake).await.len(), 4);
    assert_eq!(catalog.deliver().await, [false]);
    assert_failed(&late.flush().await.unwrap(), ErrorKind::Fenced);
    assert_failed(&unsent.flush().await.unwrap(), ErrorKind::Fenced);
    assert_eq!(alters.write(&rows(orders(), &[3], Some("x"))).await.unwrap_err().kind(), ErrorKind::Fenced);
    for sink in [late, unsent, alters] {
        sink.close(std::time::Duration::from_secs(10)).await.unwrap();
    }
    assert_failed(&commit(&mut unknowing, &[2]).await, ErrorKind::Fenced);
    assert_eq!(third.requests().len(), 1);

    let (mut landed, catalog) = lake.announced().await;
    catalog.script([Fault::LostReply]);
    *catalog.failing_loads.lock().unwrap() = 1;
    assert_failed(&commit(&mut landed, &[2]).await, ErrorKind::Unavailable);
    stray(&lake, STRAY).await;
    removed(&lake).await;
    assert_failed(&landed.flush().await.unwrap(), ErrorKind::Fenced);
    let (mut sink, _) = lake.faulty().await;
    assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(2))]);
    assert_durable(&commit(&mut sink, &[3]).await, 3);
    assert_eq!(lake.ids().await, [1, 2, 3]);
    assert_eq!(lake.rows(ORDERS).await.len(), 3);
}

#[tokio::test]
async fn a_table_without_a_snapshot_is_fenced_by_its_first() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    sink.write(&row(1)).await.unwrap();
    let stray = stray(&lake, STRAY).await;
    assert!(listed(&lake).await.is_empty(), "it holds no offset of the connector");
    let arguments = json!({"older_than": "0s", "table": ORDERS, "remove": "true"});
    assert_eq!(orphans(&lake, arguments.clone()).await.unwrap(), [stray]);
    assert_eq!(lake.metadata().await.snapshots().len(), 1);
    assert_failed(&sink.flush().await.unwrap(), ErrorKind::Fenced);
    sink.close(std::time::Duration::from_secs(10)).await.unwrap();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    // The fenced task's data file went with it; what its request named stays for the next time.
    assert_eq!(orphans(&lake, arguments).await.unwrap().len(), 3);
    assert_eq!(lake.ids().await, [1]);
}

/// Whatever becomes of the fence's commit, files go only once it is known to stand.
#[tokio::test]
async fn nothing_is_removed_without_the_fence() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let remove = || remove_from(&catalog);
    for faults in [
        vec![Fault::AppliedButConflict],
        vec![Fault::LostReply],
        vec![Fault::Swallowed],
        vec![Fault::NotApplied, Fault::Late],
        vec![Fault::after(|catalog| async move { foreign::append(&catalog).await })],
    ] {
        let stray = stray(&lake, STRAY).await;
        catalog.script(faults);
        let gone = remove().await.unwrap();
        assert!(gone.iter().any(|file| file.ends_with(&stray)), "{gone:?}");
        assert_eq!(catalog.unused_faults(), 0);
        assert!(!on_disk(&lake).contains(&stray));
        assert_eq!(lake.ids().await, [1]);
    }
    assert_eq!(catalog.deliver().await, [false]);

    let stray = stray(&lake, STRAY).await;
    catalog.script([Fault::Unavailable]);
    assert_eq!(remove().await.unwrap_err().kind(), ErrorKind::Unavailable);
    catalog.script((0..8).map(|_| Fault::after(|catalog| async move { foreign::append(&catalog).await })));
    let error = remove().await.unwrap_err();
    assert!(error.to_string().contains("changed by others all the time"), "{error}");
    // Its answer is lost, and so is the look.
    catalog.script([Fault::LostReply]);
    let failing = catalog.clone();
    catalog.script([Fault::after(move |_| async move { *failing.failing_loads.lock().unwrap() = 1 })]);
    catalog.script([Fault::Swallowed]);
    *catalog.failing_loads.lock().unwrap() = 1;
    assert_eq!(remove().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(on_disk(&lake).contains(&stray));
    assert_eq!(lake.ids().await, [1]);
}

#[tokio::test]
async fn what_cannot_be_told_from_orphans_is_refused() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    for id in 1..=3 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    stray(&lake, STRAY).await;
    let before = on_disk(&lake).len();
    let refused = async |arguments: serde_json::Value| {
        let error = orphans(&lake, arguments).await.unwrap_err();
        (error.kind(), format!("{error:#}"))
    };
    let remove = || json!({"older_than": "0s", "remove": "true"});
    let set = |name: &str, value: &str| {
        vec![TableUpdate::SetProperties { updates: [(name.to_owned(), value.to_owned())].into() }]
    };
    for (arguments, word) in [
        (json!({"stream": "public.orders", "table": ORDERS}), "only one"),
        (json!({"older_than": "3 weeks"}), "older_than"),
        (json!({"older_than": "99999999999d"}), "too long"),
        (json!({"remove": "perhaps"}), "true and false"),
        (json!({"table": "cdc.none"}), "cdc.none"),
        (json!({"tabel": ORDERS}), "arguments"),
    ] {
        let (kind, text) = refused(arguments.clone()).await;
        assert!(kind == ErrorKind::Config && text.contains(word), "{arguments}: {text}");
    }

    foreign::apply(&catalog.inner, set("gc.enabled", "false")).await;
    assert_eq!(listed(&lake).await.len(), 1);
    assert!(refused(remove()).await.1.contains("gc.enabled"));
    foreign::apply(&catalog.inner, set("gc.enabled", "true")).await;

    // A folder of one's own is searched as well; one that is another's too is not.
    let own = lake.folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join(format!("{ID}.parquet")), "stray").unwrap();
    foreign::apply(&catalog.inner, set("write.data.path", &format!("file:{}", own.display()))).await;
    assert_eq!((listed(&lake).await.len(), kept(&lake, false).await.len()), (1, 1));
    let (mut other, _) = lake.faulty().await;
    other.offsets(&[stream("items")]).await.unwrap();
    other.write(&rows(stream("items"), &[1], None)).await.unwrap();
    let shared = lake.load("cdc.public_items").await.metadata.location().to_owned();
    foreign::apply(&catalog.inner, set("write.data.path", &format!("{shared}/data/x"))).await;
    assert!(refused(json!({"older_than": "0s"})).await.1.contains("cdc.public_items"));
    foreign::apply(&catalog.inner, set("write.data.path", &format!("file:{}", own.display()))).await;

    foreign::roll_back(&catalog.inner).await;
    assert_eq!(listed(&lake).await.len(), 1);
    assert!(refused(remove()).await.1.contains("rolled back"));

    let metadata = lake.metadata().await;
    let list = lineage::head(&metadata).unwrap().manifest_list().to_owned();
    foreign::add_snapshot(&catalog.inner, &metadata, None, &list, std::collections::HashMap::new()).await;
    assert_eq!(listed(&lake).await.len(), 1, "what came before is still shown");
    foreign::expire(&catalog.inner).await;
    // Where the metadata file is read here, it shows all; another catalog may hide what came before.
    assert!(listed(&lake).await.len() > 1);
    assert!(refused(remove()).await.1.contains("replaced"));
    assert!(remove_from(&catalog).await.unwrap_err().to_string().contains("its history begins"));
    assert!(on_disk(&lake).len() >= before);
}

/// A table that is renamed keeps its folder, and a new one of its name may be given the same.
#[tokio::test]
async fn a_folder_that_two_tables_lie_in_is_left_alone() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    stray(&lake, STRAY).await;
    let before = on_disk(&lake);
    let loaded = catalog.inner.load_table(&ident(ORDERS)).await.unwrap();
    let location = loaded.metadata_location.unwrap();
    let database = rusqlite::Connection::open(lake.folder.path().join("catalog.db")).unwrap();
    database
        .execute(
            "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location) \
             SELECT catalog_name, table_namespace, 'other', ?1 FROM iceberg_tables WHERE table_name = 'public_orders'",
            [location],
        )
        .unwrap();
    for remove in ["false", "true"] {
        let arguments = json!({"table": ORDERS, "older_than": "0s", "remove": remove});
        let error = orphans(&lake, arguments).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("cdc.other's as well"), "{error}");
    }
    assert_eq!(on_disk(&lake), before);
}

#[tokio::test]
async fn an_unreadable_manifest_stops_it() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let stray = stray(&lake, STRAY).await;
    let manifest = on_disk(&lake).into_iter().find(|file| file.ends_with("-m0.avro")).unwrap();
    let content = std::fs::read(&manifest).unwrap();
    for harm in [&content[..content.len() / 2], b""] {
        std::fs::write(&manifest, harm).unwrap();
        let error = orphans(&lake, json!({"older_than": "0s", "remove": "true"})).await.unwrap_err();
        assert!(format!("{error}").contains("cannot be seen which files are in use"), "{error}");
        assert!(on_disk(&lake).contains(&stray));
    }
    std::fs::remove_file(&manifest).unwrap();
    assert!(orphans(&lake, json!({"older_than": "0s"})).await.is_err());
    std::fs::write(&manifest, content).unwrap();
    assert_eq!(removed(&lake).await, [stray]);
    assert_eq!(lake.ids().await, [1]);
}

#[tokio::test]
async fn what_a_catalog_does_not_show_is_not_taken_for_an_orphan() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let stray = stray(&lake, STRAY).await;
    let refused = async || remove_from(&catalog).await.unwrap_err().to_string();

    catalog.veil(|loaded| LoadedTable { metadata_location: None, ..loaded });
    assert!(refused().await.contains("which file its metadata is in"));
    let keeping = Files::s3(S3Access { keeps_files: true, ..S3Access::default() });
    catalog.veil(move |loaded| LoadedTable { files: keeping.clone(), ..loaded });
    assert!(refused().await.contains("s3.delete-enabled"));
    // Another table of the same name comes between listing and removing.
    let mut loads = 0;
    catalog.veil(move |loaded| {
        loads += 1;
        if loads < 4 {
            return loaded;
        }
        let builder = TableMetadata::clone(&loaded.metadata).into_builder(None).assign_uuid(Uuid::nil());
        LoadedTable { metadata: Arc::new(builder.build().unwrap().metadata), ..loaded }
    });
    assert!(refused().await.contains("was replaced meanwhile"));
    assert!(on_disk(&lake).contains(&stray));
    assert_eq!(lake.metadata().await.snapshots().len(), 1);
}

#[tokio::test]
async fn snapshots_that_expire_while_they_are_read_do_no_harm() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let old = lake.load(ORDERS).await;
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    foreign::expire(&catalog.inner).await;
    let list = lineage::head(&old.metadata).unwrap().manifest_list().strip_prefix("file://").unwrap().to_owned();
    std::fs::remove_file(&list).unwrap();
    let stray = stray(&lake, STRAY).await;

    // It changes with each look, and can never be read.
    let mut looks = 0;
    let shown = old.clone();
    catalog.veil(move |_| {
        looks += 1;
        LoadedTable { metadata_location: Some(format!("file:///{looks}")), ..shown.clone() }
    });
    let error = remove_from(&catalog).await.unwrap_err();
    assert!(error.to_string().contains("changes faster than it can be read"), "{error}");
    assert!(on_disk(&lake).contains(&stray));
    // Twice it is shown as it was.
    let mut looks = 0;
    catalog.veil(move |loaded| {
        looks += 1;
        if looks < 3 { old.clone() } else { loaded }
    });
    assert_eq!(remove_from(&catalog).await.unwrap(), [format!("file://{stray}")]);
    assert_eq!(lake.ids().await, [1, 2]);
}

#[tokio::test]
async fn what_cannot_be_removed_is_reported_and_the_rest_goes() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let goes = stray(&lake, &format!("data/00000-1-{ID}-00001.parquet")).await;
    let stays = stray(&lake, &format!("data/00000-2-{ID}-00001.parquet")).await;
    let folder = stays.clone();
    catalog.script([Fault::after(move |_| async move {
        std::fs::remove_file(&folder).unwrap();
        std::fs::create_dir_all(format!("{folder}/not-empty")).unwrap();
    })]);
    let error = remove_from(&catalog).await.unwrap_err();
    assert!(error.to_string().contains("1 orphan files were removed, others could not be"), "{error}");
    assert!(!on_disk(&lake).contains(&goes));
    assert_eq!(lake.ids().await, [1]);
}
