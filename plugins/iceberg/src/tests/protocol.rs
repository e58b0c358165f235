//! The rules of delivery, one by one, with what made each of them necessary.

use iceberg::{TableRequirement, TableUpdate};
use philotes_sdk::{ErrorKind, Sink};

use super::faulty::Fault;
use super::*;
use crate::lineage;
use crate::snapshot::COMMIT_ID;
use crate::token;

#[tokio::test]
async fn rows_and_their_offset_arrive_in_one_commit() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.faulty().await;
    assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [None]);
    assert_eq!(outcome(&sink.flush().await.unwrap()), outcome(&Flushed::default()));
    let flushed = commit(&mut sink, &[1, 2, 3]).await;
    assert_durable(&flushed, 3);
    assert_eq!((flushed.commits[0].rows, flushed.commits[0].files), (3, 1));
    assert_eq!(lake.ids().await, [1, 2, 3]);

    let metadata = lake.metadata().await;
    let head = lineage::head(&metadata).unwrap();
    let token = token::read(&metadata, "shop", &orders()).unwrap().unwrap();
    assert_eq!(token.offset, offset(3));
    assert_eq!((token.snapshot_id, token.sequence_number), (head.snapshot_id(), 1));
    assert_eq!(head.summary().additional_properties[COMMIT_ID], token.commit_id.to_string());

    // Rule 2: the first snapshot asserts that the branch does not exist. Rule 6: what every commit asserts.
    let requests = catalog.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].id, token.commit_id);
    let expected = [
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch { r#ref: "main".into(), snapshot_id: None },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: 0 },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: 0 },
    ];
    assert_eq!(requests[0].requirements, expected);
    assert!(matches!(requests[0].updates[0], TableUpdate::AddSnapshot { .. }));

    // The next commit asserts the head that this one made.
    assert_durable(&commit(&mut sink, &[4]).await, 4);
    let expected = TableRequirement::RefSnapshotIdMatch { r#ref: "main".into(), snapshot_id: Some(head.snapshot_id()) };
    assert_eq!(catalog.requests()[1].requirements[1], expected);
    assert_ne!(catalog.requests()[1].id, requests[0].id);

    // Nothing was written: nothing is committed.
    assert_eq!(outcome(&sink.flush().await.unwrap()), outcome(&Flushed::default()));
    assert_eq!(catalog.requests().len(), 2);

    // Another start finds the offset.
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap(), [Some(offset(4))]);
}

#[tokio::test]
async fn a_conflict_can_be_our_own_success() {
    let lake = Lake::new();
    for fault in [Fault::AppliedButConflict, Fault::LostReply] {
        let (mut sink, catalog) = lake.faulty().await;
        sink.offsets(&[orders()]).await.unwrap();
        let before = lake.ids_or_none().await;
        catalog.script([fault]);
        let id = before.len() as i64 + 1;
        assert_durable(&commit(&mut sink, &[id]).await, id);
        assert_eq!(catalog.requests().len(), 1);
        assert_eq!(lake.ids().await.len(), before.len() + 1);
        // And it goes on from there.
        assert_durable(&commit(&mut sink, &[id + 1]).await, id + 1);
    }
    assert_eq!(lake.ids().await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_lost_request_is_sent_again_as_a_new_one() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    catalog.script([Fault::Swallowed, Fault::Swallowed]);
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    assert_eq!(lake.ids().await, [1, 2]);
    let ids: std::collections::HashSet<_> = catalog.requests().iter().map(|request| request.id).collect();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn a_request_that_arrives_late_loses_against_the_one_that_was_sent_again() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    // Also as the very first commit, where there is no head to assert.
    for id in [1, 2] {
        catalog.script([Fault::Late]);
        assert_durable(&commit(&mut sink, &[id]).await, id);
        assert_eq!(catalog.deliver().await, [false]);
    }
    assert_eq!(lake.ids().await, [1, 2]);
}

#[tokio::test]
async fn a_request_that_arrives_late_is_found_instead_of_sent_again() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    catalog.script([Fault::Late]);
    *catalog.failing_loads.lock().unwrap() = 1;
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Unavailable);
    // More rows do not get into the payload that was sent.
    sink.write(&row(3)).await.unwrap();
    assert_eq!(catalog.deliver().await, [true]);
    let flushed = sink.flush().await.unwrap();
    assert_durable(&flushed, 3);
    let rows: Vec<_> = flushed.commits.iter().map(|commit| commit.rows).collect();
    assert_eq!(rows, [1, 1]);
    assert_eq!(lake.ids().await, [1, 2, 3]);
}

#[tokio::test]
async fn a_reply_that_does_not_show_the_commit_proves_nothing() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    catalog.script([Fault::NotApplied]);
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    assert_eq!(catalog.requests().len(), 2);
    assert_eq!(lake.ids().await, [1]);
}

#[tokio::test]
async fn an_unavailable_catalog_leaves_the_payload_as_it_is() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    catalog.script([Fault::Unavailable, Fault::Unavailable]);
    assert_failed(&commit(&mut sink, &[2, 3]).await, ErrorKind::Unavailable);
    assert_failed(&sink.flush().await.unwrap(), ErrorKind::Unavailable);
    sink.write(&row(4)).await.unwrap();
    let flushed = sink.flush().await.unwrap();
    assert_durable(&flushed, 4);
    let rows: Vec<_> = flushed.commits.iter().map(|commit| commit.rows).collect();
    assert_eq!(rows, [2, 1]);
    assert_eq!(lake.ids().await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn foreign_commits_in_between_are_built_upon() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    catalog.script([Fault::after(|catalog| async move { foreign::append(&catalog).await })]);
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    // Our first snapshot expires below a foreign one: the token's snapshot is gone, the history still leads to it.
    foreign::append(&catalog.inner).await;
    foreign::expire(&catalog.inner).await;
    assert_durable(&commit(&mut sink, &[3]).await, 3);
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap(), [Some(offset(3))]);
    foreign::append(&catalog.inner).await;
    foreign::expire(&catalog.inner).await;
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap(), [Some(offset(3))]);
    assert_eq!(lake.ids().await, [1, 2, 3]);
}

#[tokio::test]
async fn a_second_instance_fences_the_first() {
    let lake = Lake::new();
    let (mut first, _) = lake.announced().await;
    assert_durable(&commit(&mut first, &[1]).await, 1);
    let (mut second, _) = lake.announced().await;
    first.write(&row(2)).await.unwrap();
    assert_durable(&commit(&mut second, &[2]).await, 2);
    assert_failed(&first.flush().await.unwrap(), ErrorKind::Fenced);
    assert_failed(&first.flush().await.unwrap(), ErrorKind::Fenced);
    assert_eq!(lake.ids().await, [1, 2]);
}

#[tokio::test]
async fn two_instances_on_a_new_table_write_each_row_once() {
    let lake = Lake::new();
    let (mut first, _) = lake.announced().await;
    let (mut second, _) = lake.announced().await;
    first.write(&row(1)).await.unwrap();
    second.write(&row(1)).await.unwrap();
    assert_durable(&first.flush().await.unwrap(), 1);
    assert_failed(&second.flush().await.unwrap(), ErrorKind::Fenced);
    // One that comes to create the table when it is there already sees whose it is.
    let (mut third, _) = lake.announced().await;
    assert_durable(&commit(&mut third, &[2]).await, 2);
    assert_eq!(lake.ids().await, [1, 2]);
}

#[tokio::test]
async fn a_table_that_was_created_and_written_meanwhile_fences() {
    let lake = Lake::new();
    let (mut late, _) = lake.announced().await;
    let (mut first, _) = lake.announced().await;
    assert_durable(&commit(&mut first, &[1]).await, 1);
    assert_eq!(late.write(&row(1)).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(lake.ids().await, [1]);
}

/// Base refreshed by announcing a second stream partition: duplicates, were the tokens not compared then.
#[tokio::test]
async fn announcing_another_key_compares_all_of_them() {
    let lake = Lake::new();
    let (mut first, _) = lake.announced().await;
    assert_durable(&commit(&mut first, &[1]).await, 1);
    let (mut second, _) = lake.announced().await;
    assert_durable(&commit(&mut second, &[2]).await, 2);
    first.write(&row(2)).await.unwrap();
    let other = StreamPartition { partition: "1".into(), ..orders() };
    assert_eq!(first.offsets(&[other]).await.unwrap_err().kind(), ErrorKind::Fenced);
}

/// A commit whose outcome is unknown is found when another key of the table is announced before the flush is repeated.
#[tokio::test]
async fn announcing_another_key_resolves_a_pending_commit() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    catalog.script([Fault::LostReply]);
    *catalog.failing_loads.lock().unwrap() = 1;
    assert_failed(&commit(&mut sink, &[1]).await, ErrorKind::Unavailable);
    let other = StreamPartition { partition: "1".into(), ..orders() };
    assert_eq!(sink.offsets(std::slice::from_ref(&other)).await.unwrap(), [None]);
    sink.write(&rows(other.clone(), &[10], None)).await.unwrap();
    let (durable, failed) = outcome(&sink.flush().await.unwrap());
    assert_eq!(failed, []);
    assert_eq!(durable[&orders().to_string()], offset(1).as_str());
    assert_eq!(durable[&other.to_string()], offset(10).as_str());
    assert_eq!(lake.ids().await, [1, 10]);
    // A commit sets only the tokens of what it holds.
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    let both = [orders(), other];
    assert_eq!(lake.sink().await.offsets(&both).await.unwrap(), [Some(offset(2)), Some(offset(10))]);
}

#[tokio::test]
async fn a_rollback_is_refused_and_the_way_out_is_named() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    foreign::roll_back(&catalog.inner).await;
    // While it runs, at the next start, and after more was written to the table.
    let flushed = commit(&mut sink, &[3]).await;
    assert_failed(&flushed, ErrorKind::Config);
    foreign::append(&catalog.inner).await;
    let refusal = lake.sink().await.offsets(&[orders()]).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Config);
    for part in ["cdc.public_orders", "public.orders", "rolled back", "offsets", "stream=public.orders"] {
        assert!(refusal.to_string().contains(part), "{refusal}");
    }
    foreign::expire(&catalog.inner).await;
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_replaced_table_is_refused() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let metadata = lake.metadata().await;
    let list = lineage::head(&metadata).unwrap().manifest_list().to_owned();
    foreign::replace(&catalog.inner).await;
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap_err().kind(), ErrorKind::Config);
    let metadata = lake.metadata().await;
    foreign::add_snapshot(&catalog.inner, &metadata, None, &list, Default::default()).await;
    assert_eq!(lake.sink().await.offsets(&[orders()]).await.unwrap_err().kind(), ErrorKind::Config);
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Config);
}

#[tokio::test]
async fn a_dropped_table_stops_and_a_new_one_of_its_name_too() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let old = lake.metadata().await.location().to_owned();
    foreign::drop_table(lake.folder.path());
    let flushed = commit(&mut sink, &[2]).await;
    assert_failed(&flushed, ErrorKind::Config);
    assert!(flushed.failed[0].1.to_string().contains("dropped"), "{}", flushed.failed[0].1);
    // Created again by another instance: another table, in a folder of its own.
    let (mut other, _) = lake.announced().await;
    assert_durable(&commit(&mut other, &[5]).await, 5);
    assert_ne!(lake.metadata().await.location(), old);
    let flushed = sink.flush().await.unwrap();
    assert_failed(&flushed, ErrorKind::Config);
    assert!(flushed.failed[0].1.to_string().contains("created again"), "{}", flushed.failed[0].1);
    assert_eq!(lake.ids().await, [5]);
}

/// The files of a payload that was sent stay, whatever becomes of the sink: the request may still arrive.
#[tokio::test]
async fn files_that_were_sent_are_never_deleted_and_others_are() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    catalog.script([Fault::Late]);
    *catalog.failing_loads.lock().unwrap() = 1;
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Unavailable);
    sink.write(&row(3)).await.unwrap();
    sink.close(std::time::Duration::from_secs(5)).await.unwrap();
    let (mut next, _) = lake.faulty().await;
    assert_eq!(next.offsets(&[orders()]).await.unwrap(), [Some(offset(1))]);
    // The next instance has read its offset when the request arrives after all: it is fenced and loses nothing.
    assert_eq!(catalog.deliver().await, [true]);
    assert_failed(&commit(&mut next, &[2]).await, ErrorKind::Fenced);
    assert_eq!(lake.ids().await, [1, 2]);
    let data = lake.metadata().await.location().strip_prefix("file://").unwrap().to_owned() + "/data";
    assert_eq!(std::fs::read_dir(data).unwrap().count(), 3);
}

#[tokio::test]
async fn a_busy_table_is_unavailable_in_the_end_and_goes_on_later() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    catalog.script((0..8).map(|_| Fault::after(|catalog| async move { foreign::append(&catalog).await })));
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Unavailable);
    assert_eq!(catalog.unused_faults(), 0);
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(lake.ids().await, [1, 2]);
}

#[tokio::test]
async fn a_clock_that_was_ahead_does_not_stop_the_table() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let metadata = lake.metadata().await;
    let head = lineage::head(&metadata).unwrap();
    let ahead = crate::snapshot::now_ms() + 3_600_000;
    let snapshot = iceberg::spec::Snapshot::builder()
        .with_snapshot_id(7)
        .with_parent_snapshot_id(Some(head.snapshot_id()))
        .with_sequence_number(2)
        .with_timestamp_ms(ahead)
        .with_manifest_list(head.manifest_list())
        .with_summary(head.summary().clone())
        .build();
    let set = TableUpdate::SetSnapshotRef { ref_name: "main".into(), reference: foreign::branch(7) };
    foreign::apply(&catalog.inner, vec![TableUpdate::AddSnapshot { snapshot }, set]).await;
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    assert_eq!(lineage::head(&*lake.metadata().await).unwrap().timestamp_ms(), ahead);
}

#[tokio::test]
async fn tokens_have_a_limit() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let full = (0..300).map(|n| (format!("philotes.offset.other.s.{n}"), "x".repeat(1000))).collect();
    foreign::apply(&catalog.inner, vec![TableUpdate::SetProperties { updates: full }]).await;
    let (mut sink, _) = lake.announced().await;
    assert_failed(&commit(&mut sink, &[2]).await, ErrorKind::Config);
}

impl Lake {
    async fn ids_or_none(&self) -> Vec<i64> {
        if self.catalog().await.table_exists(&ident(ORDERS)).await.unwrap() { self.ids().await } else { Vec::new() }
    }
}
