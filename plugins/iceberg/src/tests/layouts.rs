//! Tables whose partitioning or sort order becomes another one.

use arrow::compute::concat_batches;
use iceberg::spec::{FormatVersion, NullOrder, PrimitiveType, SortDirection, Transform};
use iceberg::{TableIdent, TableUpdate};
use philotes_sdk::{ErrorKind, Sink};

use super::faulty::Fault;
use super::tables::{foreign_table, optional};
use super::*;
use crate::config::Evolve;
use crate::manifests;
use crate::table::{Settings, Table};

fn partitioned(lake: &mut Lake, entries: &[&str]) {
    lake.config.partition_by = entries.iter().map(|entry| (*entry).to_owned()).collect();
}

/// Rows with a column `date`.
fn dated(ids: &[i64]) -> ChangeBatch {
    let batch = rows(orders(), ids, Some("2026-01-24"));
    let schema = batch.rows.schema();
    let called = schema.fields().iter().map(|field| {
        if field.name() == "note" { Arc::new(field.as_ref().clone().with_name("date")) } else { field.clone() }
    });
    let schema = Schema::new(called.collect::<Vec<_>>());
    let rows = RecordBatch::try_new(Arc::new(schema), batch.rows.columns().to_vec()).unwrap();
    ChangeBatch { rows, ..batch }
}

fn sorted(lake: &mut Lake, entries: &[&str]) {
    lake.config.sort_by = entries.iter().map(|entry| (*entry).to_owned()).collect();
}

/// Name and field id of each field of the default partitioning.
async fn fields(lake: &Lake) -> Vec<(String, i32)> {
    let metadata = lake.metadata().await;
    metadata.default_partition_spec().fields().iter().map(|field| (field.name.clone(), field.field_id)).collect()
}

/// The specification of each live data file's manifest, and the file's sort order, by the order of commits.
async fn layouts(lake: &Lake) -> Vec<(i32, Option<i32>)> {
    let mut base = Base::new(lake.load(ORDERS).await);
    let mut found = Vec::new();
    for manifest in base.manifests().await.unwrap().iter() {
        for entry in manifests::read(&base.files, manifest).await.unwrap().entries {
            found.push((entry.sequence_number(), manifest.partition_spec_id, entry.data_file.sort_order_id()));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, spec, order)| (spec, order)).collect()
}

#[tokio::test]
async fn new_data_follows_another_partitioning_and_what_is_there_stays() {
    let mut lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1, 2]).await, 2);

    partitioned(&mut lake, &["bucket(4, id)"]);
    let (mut sink, catalog) = lake.announced().await;
    assert_eq!(catalog.requests().len(), 1, "at the announcement, in one commit");
    assert_eq!(fields(&lake).await, [("id_bucket".to_owned(), 1000)]);
    assert_durable(&commit(&mut sink, &[3]).await, 3);
    assert_eq!(layouts(&lake).await, [(0, Some(0)), (1, Some(0))]);

    // Nothing more to do at the next start.
    let (_, catalog) = lake.announced().await;
    assert!(catalog.requests().is_empty());

    // Another one, that has the first one's field; then the first again, and its fields keep their ids.
    partitioned(&mut lake, &["day(_cdc_timestamp) as date", "bucket(4, id)"]);
    let (mut sink, _) = lake.announced().await;
    assert_eq!(fields(&lake).await, [("date".to_owned(), 1001), ("id_bucket".to_owned(), 1000)]);
    assert_durable(&commit(&mut sink, &[4]).await, 4);
    partitioned(&mut lake, &["bucket(4, id)"]);
    let (mut sink, _) = lake.announced().await;
    assert_eq!(lake.metadata().await.default_partition_spec_id(), 1);
    assert_durable(&commit(&mut sink, &[5]).await, 5);
    // A field under another name is the same field.
    partitioned(&mut lake, &["day(_cdc_timestamp) as at"]);
    let (mut sink, _) = lake.announced().await;
    assert_eq!(fields(&lake).await, [("at".to_owned(), 1001)]);
    assert_durable(&commit(&mut sink, &[6]).await, 6);

    // Without any the table stays as it is.
    partitioned(&mut lake, &[]);
    let (mut sink, catalog) = lake.announced().await;
    assert!(catalog.requests().is_empty());
    assert_durable(&commit(&mut sink, &[7]).await, 7);
    let specs: Vec<i32> = layouts(&lake).await.into_iter().map(|(spec, _)| spec).collect();
    assert_eq!(specs, [0, 1, 2, 1, 3, 3]);
    assert_eq!(lake.ids().await, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_name_that_stood_for_something_else_is_refused() {
    let mut lake = Lake::new();
    partitioned(&mut lake, &["bucket(4, id)"]);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    partitioned(&mut lake, &["bucket(8, id)"]);
    let (mut sink, _) = lake.faulty().await;
    let error = sink.offsets(&[orders()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("table cdc.public_orders: partition_by: \"bucket(8, id)\""), "{text}");
    assert!(
        text.contains("has stood for bucket(4, id) before") && text.contains("allowed is any other name"),
        "{text}"
    );
    partitioned(&mut lake, &["bucket(8, id) as b8"]);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[2]).await, 2);
    assert_eq!(fields(&lake).await, [("b8".to_owned(), 1001)]);
}

/// A column of `partition_by` may come with the first rows; one that does not come is refused before they are written.
#[tokio::test]
async fn columns_that_come_with_the_rows_are_waited_for() {
    let mut lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    partitioned(&mut lake, &["note"]);
    let (mut sink, catalog) = lake.announced().await;
    assert!(catalog.requests().is_empty());
    let error = sink.write(&row(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("no column \"note\""), "{error}");
    sink.write(&rows(orders(), &[2], Some("new"))).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(fields(&lake).await, [("note".to_owned(), 1000)]);
    // Rows without it are partitioned by it as well.
    assert_durable(&commit(&mut sink, &[3]).await, 3);
    assert_eq!(lake.rows(ORDERS).await, [(1, None), (2, Some("new".to_owned())), (3, None)]);
    assert_eq!(layouts(&lake).await, [(0, Some(0)), (1, Some(0)), (1, Some(0))]);
}

#[tokio::test]
async fn lost_replies_and_others_that_do_the_same_come_to_one_layout() {
    for fault in [Fault::LostReply, Fault::AppliedButConflict, Fault::Swallowed] {
        let mut lake = Lake::new();
        let (mut sink, _) = lake.announced().await;
        assert_durable(&commit(&mut sink, &[1]).await, 1);
        partitioned(&mut lake, &["bucket(4, id)"]);
        sorted(&mut lake, &["id desc"]);
        let (mut sink, catalog) = lake.faulty().await;
        catalog.script([fault]);
        sink.offsets(&[orders()]).await.unwrap();
        assert_durable(&commit(&mut sink, &[2]).await, 2);
        let metadata = lake.metadata().await;
        assert_eq!((metadata.partition_specs_iter().len(), metadata.sort_orders_iter().len()), (2, 2));
        assert_eq!(layouts(&lake).await, [(0, Some(0)), (1, Some(1))]);
    }
}

/// Two tasks with other rows of the same table, both of which find it as it was.
#[tokio::test]
async fn two_tasks_at_once_converge() {
    let mut lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    partitioned(&mut lake, &["bucket(4, id)"]);
    let other = StreamPartition { partition: "1".into(), ..orders() };
    let (first, second) = (lake.faulty().await.0, lake.faulty().await.0);
    let (mut first, mut second) = (first, second);
    let (keys, others) = ([orders()], [other.clone()]);
    let (one, two) = tokio::join!(first.offsets(&keys), second.offsets(&others));
    assert_eq!((one.unwrap(), two.unwrap()), (vec![Some(offset(1))], vec![None]));
    assert_eq!(lake.metadata().await.partition_specs_iter().len(), 2);
    assert_durable(&commit(&mut first, &[2]).await, 2);
    second.write(&rows(other, &[3], None)).await.unwrap();
    assert!(second.flush().await.unwrap().failed.is_empty());
    assert_eq!(lake.ids().await, [1, 2, 3]);
}

#[tokio::test]
async fn manifests_of_different_partitionings_are_merged_apart() {
    let mut lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let updates = [("commit.manifest.min-count-to-merge".to_owned(), "2".to_owned())].into();
    foreign::apply(&*lake.catalog().await, vec![TableUpdate::SetProperties { updates }]).await;
    for (buckets, ids) in [(3, 2..=5), (5, 6..=9)] {
        partitioned(&mut lake, &[format!("bucket({buckets}, id) as b{buckets}").as_str()]);
        let (mut sink, _) = lake.announced().await;
        for id in ids {
            assert_durable(&commit(&mut sink, &[id]).await, id);
        }
    }
    let mut base = Base::new(lake.load(ORDERS).await);
    let mut specs: Vec<_> = base.manifests().await.unwrap().iter().map(|m| m.partition_spec_id).collect();
    specs.dedup();
    assert_eq!(specs, [2, 1, 0]);
    assert_eq!(layouts(&lake).await.iter().map(|(spec, _)| *spec).collect::<Vec<_>>(), [0, 1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(lake.ids().await, (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn where_nothing_may_be_altered_the_layout_stays() {
    let mut lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    partitioned(&mut lake, &["bucket(4, id)"]);
    sorted(&mut lake, &["id desc"]);
    let catalog = Arc::new(FaultyCatalog::new(lake.catalog().await));
    lake.config.evolve = Evolve::None;
    let settings = Settings::new(&lake.config, Lake::context(), catalog.clone()).unwrap();
    let mut table = Table::new(TableIdent::from_strs(["cdc", "public_orders"]).unwrap(), Arc::new(settings));
    table.announce(&[orders()]).await.unwrap();
    table.write(&row(2)).await.unwrap();
    assert!(table.flush().await.failed.is_empty());
    assert_eq!(catalog.requests().len(), 1, "the rows' own");
    assert_eq!(layouts(&lake).await, [(0, Some(0)), (0, Some(0))]);
}

/// Names that Avro does not have; merged, and read again.
#[tokio::test]
async fn odd_names_of_partition_fields_are_written_merged_and_read() {
    let mut lake = Lake::new();
    partitioned(&mut lake, &["id as \"a b\"", "bucket(4, id) as \"Ü.😎\"", "truncate(10, id) as \"a_x20b\""]);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let updates = [("commit.manifest.min-count-to-merge".to_owned(), "2".to_owned())].into();
    foreign::apply(&*lake.catalog().await, vec![TableUpdate::SetProperties { updates }]).await;
    let (mut sink, _) = lake.announced().await;
    for id in 2..=4 {
        assert_durable(&commit(&mut sink, &[id]).await, id);
    }
    let mut base = Base::new(lake.load(ORDERS).await);
    let mut values = BTreeMap::new();
    for manifest in base.manifests().await.unwrap().iter() {
        for entry in manifests::read(&base.files, manifest).await.unwrap().entries {
            let path = entry.file_path().to_owned();
            assert!(
                path.contains("/data/a+b=") && path.contains("/%C3%9C.%F0%9F%98%8E=") && path.contains("/a_x20b=0/"),
                "{path}"
            );
            let partition: Vec<_> = entry.data_file.partition().iter().map(|value| value.cloned()).collect();
            values.insert(entry.sequence_number(), partition[0].clone().unwrap());
        }
    }
    assert_eq!(values.into_values().collect::<Vec<_>>(), [1, 2, 3, 4].map(iceberg::spec::Literal::long));
}

#[tokio::test]
async fn rows_of_a_file_are_sorted_and_the_file_says_so() {
    let mut lake = Lake::new();
    sorted(&mut lake, &["note nulls last", "id desc"]);
    let (mut sink, _) = lake.announced().await;
    for (ids, note) in [([1, 5, 3], "b"), ([9, 7, 8], "a"), ([2, 6, 4], "b")] {
        sink.write(&rows(orders(), &ids, Some(note))).await.unwrap();
    }
    assert_durable(&sink.flush().await.unwrap(), 4);
    let batches = lake.batches(ORDERS).await;
    let all = concat_batches(&batches[0].schema(), &batches).unwrap();
    let ids = all.column_by_name("id").unwrap().as_primitive::<Int64Type>();
    assert_eq!(ids.values()[..], [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    let metadata = lake.metadata().await;
    let order = metadata.default_sort_order();
    let found: Vec<_> = order.fields.iter().map(|f| (f.source_id, f.transform, f.direction, f.null_order)).collect();
    let (asc, desc) = (SortDirection::Ascending, SortDirection::Descending);
    assert_eq!(
        found,
        [(2, Transform::Identity, asc, NullOrder::Last), (1, Transform::Identity, desc, NullOrder::Last)]
    );
    assert_eq!(layouts(&lake).await, [(0, Some(1))]);
    // Without `sort_by` the rows stay as they come, whatever the table's order is.
    sorted(&mut lake, &[]);
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[12, 11]).await, 11);
    assert_eq!(catalog.requests().len(), 1);
    assert_eq!(layouts(&lake).await, [(0, Some(1)), (0, Some(0))]);
    // Another order is one more, and the first one again is the first one.
    for (entry, id, order) in [("id", 21, 2), ("note nulls last", 22, 3), ("id", 23, 2)] {
        sorted(&mut lake, &[entry]);
        let (mut sink, _) = lake.announced().await;
        assert_eq!(lake.metadata().await.default_sort_order().order_id, order);
        assert_durable(&commit(&mut sink, &[id]).await, id);
        assert_eq!(layouts(&lake).await.last().unwrap().1, Some(i32::try_from(order).unwrap()));
    }
}

#[tokio::test]
async fn a_column_without_an_order_is_refused_before_anything_is_written() {
    let mut lake = Lake::new();
    sorted(&mut lake, &["nothing"]);
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&row(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("sort_by: \"nothing\": no column \"nothing\"; the columns to sort by are id, _cdc"),
        "{error}"
    );
    assert!(lake.catalog().await.list_namespaces().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_plan_shows_what_would_change_and_changes_nothing() {
    let mut lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let before = lake.load(ORDERS).await.metadata_location;
    partitioned(&mut lake, &["bucket(4, id)"]);
    sorted(&mut lake, &["id desc"]);
    let plan = IcebergSink::plan(lake.config.clone(), Lake::context(), &orders(), row(1).rows.schema()).await.unwrap();
    assert_eq!((plan.change.as_str(), &plan.partition_by[..]), ("alter", &["bucket(4, id)".to_owned()][..]));
    let notes = plan.notes.join("\n");
    assert!(notes.contains("the table is not partitioned; partition_by says bucket(4, id)"), "{notes}");
    assert!(notes.contains("the table is not sorted; sort_by says id desc"), "{notes}");
    assert_eq!(lake.load(ORDERS).await.metadata_location, before);
}

/// Rows beyond the memory for them become files of their own, each sorted.
#[tokio::test]
async fn a_file_ends_early_where_memory_is_full() {
    let mut lake = Lake::new();
    sorted(&mut lake, &["id"]);
    partitioned(&mut lake, &["truncate(1000000, id) as million"]);
    let mut context = Lake::context().info().clone();
    // The least that a writer takes is 8 MiB, half of which is for rows.
    context.max_memory = 1;
    let context = TaskContext::detached(context);
    let mut sink = IcebergSink::open(lake.config.clone(), context).await.unwrap();
    sink.offsets(&[orders()]).await.unwrap();
    let mut written = 0_i64;
    for round in 0..12 {
        let ids: Vec<i64> = (0..20_000).rev().map(|id| id * 100 % 1_999_993 + round).collect();
        written += 20_000;
        sink.write(&rows(orders(), &ids, Some("a note of some length"))).await.unwrap();
        assert!(sink.buffered_bytes() < 16 << 20, "{}", sink.buffered_bytes());
    }
    assert!(sink.flush().await.unwrap().failed.is_empty());
    let mut base = Base::new(lake.load(ORDERS).await);
    let mut files = 0;
    for manifest in base.manifests().await.unwrap().iter() {
        files += manifests::read(&base.files, manifest).await.unwrap().entries.len();
    }
    assert!(files > 2, "{files}");
    let batches = lake.batches(ORDERS).await;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(i64::try_from(rows).unwrap(), written);
    // A batch of the reader lies within one file.
    for batch in &batches {
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        assert!(ids.values().is_sorted());
        assert_eq!(ids.value(0) / 1_000_000, ids.value(ids.len() - 1) / 1_000_000);
    }
}

#[tokio::test]
async fn a_table_of_others_gets_the_order_before_its_rows() {
    let mut lake = Lake::new();
    sorted(&mut lake, &["id"]);
    let field = optional(1, "id", PrimitiveType::Long);
    foreign_table(&lake, vec![field], FormatVersion::V2).await;
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[2, 1]).await, 1);
    assert_eq!(layouts(&lake).await, [(0, Some(1))]);
}

/// The README's own example beside a column `date`: Iceberg lets no other field have a column's name.
#[tokio::test]
async fn a_partition_field_gets_a_free_name_where_a_column_has_its_own() {
    let mut lake = Lake::new();
    partitioned(&mut lake, &["day(_cdc_timestamp) as date", "bucket(4, id) as note"]);
    let planned = IcebergSink::plan(lake.config.clone(), Lake::context(), &orders(), dated(&[1]).rows.schema()).await;
    let planned = planned.unwrap();
    assert_eq!(planned.partition_by, ["day(_cdc_timestamp)", "bucket(4, id) as note"]);
    let told = "partition_by: the partition field of \"day(_cdc_timestamp) as date\" is called \"_cdc_timestamp_day\": \"date\" is a column";
    assert!(planned.notes.iter().any(|note| note == told), "{:?}", planned.notes);

    for id in 1..=2 {
        let (mut sink, _) = lake.announced().await;
        sink.write(&dated(&[id])).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), id);
        // A start finds the layout as configured.
        assert_eq!(lake.metadata().await.partition_specs_iter().len(), 1);
    }
    assert_eq!(fields(&lake).await, [("_cdc_timestamp_day".to_owned(), 1000), ("note".to_owned(), 1001)]);
    assert_eq!(lake.ids().await, [1, 2]);
}

/// The column comes when the partition field is there already: then it is the column that needs another name.
#[tokio::test]
async fn a_column_that_is_called_as_a_partition_field_is_refused_with_the_way_out() {
    let mut lake = Lake::new();
    partitioned(&mut lake, &["day(_cdc_timestamp) as date"]);
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let error = sink.write(&dated(&[2])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let way_out = "`columns: {STREAM: {date: {name: date_}}}`";
    assert!(
        error.to_string().contains("column \"date\" cannot be added") && error.to_string().contains(way_out),
        "{error}"
    );
    let planned = IcebergSink::plan(lake.config.clone(), Lake::context(), &orders(), dated(&[2]).rows.schema()).await;
    assert!(planned.unwrap().notes.iter().any(|note| note.contains(way_out)));

    let name = crate::overrides::Column { name: Some("date_".into()), ..Default::default() };
    lake.config.columns = [("public.orders".to_owned(), [("date".to_owned(), name)].into())].into();
    let (mut sink, _) = lake.announced().await;
    sink.write(&dated(&[2])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(lake.ids().await, [1, 2]);
}

/// A program whose clock was an hour ahead has committed; catalogs refuse what lies over a minute before it.
#[tokio::test]
async fn a_clock_that_was_ahead_does_not_stop_changes_of_the_table() {
    let mut lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let metadata = lake.metadata().await;
    let head = metadata.current_snapshot().unwrap();
    let ahead = iceberg::spec::Snapshot::builder()
        .with_snapshot_id(77)
        .with_parent_snapshot_id(Some(head.snapshot_id()))
        .with_sequence_number(metadata.last_sequence_number() + 1)
        .with_timestamp_ms(metadata.last_updated_ms() + 3_600_000)
        .with_manifest_list(head.manifest_list())
        .with_summary(head.summary().clone())
        .with_schema_id(0)
        .build();
    let set = TableUpdate::SetSnapshotRef { ref_name: "main".into(), reference: foreign::branch(77) };
    foreign::apply(&catalog.inner, vec![TableUpdate::AddSnapshot { snapshot: ahead }, set]).await;
    // A change of the schema, one of the layout, an expiry.
    partitioned(&mut lake, &["bucket(4, id)"]);
    lake.config.snapshots = Some(crate::config::Snapshots { keep: 1, older_than: None });
    let (mut sink, _) = lake.announced().await;
    sink.write(&dated(&[2])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(lake.ids().await, [1, 2]);
    let metadata = lake.metadata().await;
    assert!(metadata.current_schema().field_by_name("date").is_some());
    assert_eq!(fields(&lake).await[0].0, "id_bucket");
    assert!(metadata.last_updated_ms() >= lake.metadata().await.history().last().unwrap().timestamp_ms());
}
