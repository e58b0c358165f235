//! Mode upsert: whatever comes, and whatever becomes of commits, the table holds one row per key, the last one.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{ListBuilder, StringArray, StringBuilder};
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Operation};
use philotes_sdk::Tolerance;
use philotes_sdk::batch::{META_KEY, unchanged_field};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::faulty::Fault;
use super::*;
use crate::config::{Deletes, Truncate};
use crate::lineage;
use crate::manifests::{self, AddedFile};
use crate::snapshot::{Changes, propose};

/// A change: the operation, the key, and the row's value; [`UNSENT`] is one that was not sent. MOVED is the INSERT of the same change
/// as the DELETE before it, and `@7` says which change of the source it is.
pub(super) type Change = (&'static str, i64, &'static str);

pub(super) const UNSENT: &str = "?";

pub(super) fn upserting() -> Lake {
    let mut lake = Lake::new();
    lake.config.mode = Mode::Upsert;
    lake
}

/// A batch of changes of the stream `orders`, whose key is `id`.
pub(super) fn changes(changes: &[(&str, i64, &str)], to: i64) -> ChangeBatch {
    let ids: Vec<i64> = changes.iter().map(|(_, id, _)| *id).collect();
    let batch = rows(orders(), &ids, Some(""));
    let schema = batch.rows.schema().as_ref().clone();
    let schema = schema.with_metadata([(META_KEY.to_owned(), "[\"id\"]".to_owned())].into());
    let mut columns = batch.rows.columns().to_vec();
    columns[0] = Arc::new(changes.iter().map(|(op, id, _)| (*op != "TRUNCATE").then_some(*id)).collect::<Int64Array>());
    let notes = changes.iter().map(|(_, _, note)| (*note != UNSENT).then_some(*note));
    columns[1] = Arc::new(notes.collect::<StringArray>());
    let operation = |op: &&str| op.split('@').next().unwrap().replace("MOVED", "INSERT");
    columns[2] = Arc::new(StringArray::from_iter_values(changes.iter().map(|(op, _, _)| operation(op))));
    let mut lsns: Vec<String> = Vec::new();
    for (row, (op, _, _)) in changes.iter().enumerate() {
        lsns.push(match op.split_once('@') {
            Some((_, change)) => format!("0/{change}"),
            None if *op == "MOVED" => lsns[row - 1].clone(),
            None => format!("1/{:X}", 1000 * to + i64::try_from(row).unwrap()),
        });
    }
    columns[4] = Arc::new(StringArray::from(lsns));
    let mut fields = schema.fields().to_vec();
    let unsent = changes.iter().any(|(_, _, note)| *note == UNSENT);
    if unsent {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for (_, _, note) in changes {
            if *note == UNSENT {
                lists.values().append_value("note");
            }
            lists.append(*note == UNSENT);
        }
        fields.push(Arc::new(unchanged_field()));
        columns.push(Arc::new(lists.finish()));
    }
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    ChangeBatch { rows, schema_id: 1 + u64::from(unsent), offset: offset(to), ..batch }
}

/// A snapshot's rows, and how many deletes it has added.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    rows: BTreeMap<i64, String>,
    operation: Operation,
    deletes: usize,
}

impl Lake {
    /// What a reader that knows equality deletes finds, in a table that holds no key twice.
    async fn current(&self) -> Found {
        let (rows, operation, deletes) = self.bag().await;
        let unique: BTreeMap<i64, String> = rows.iter().cloned().collect();
        assert_eq!(unique.len(), rows.len(), "two rows of one key: {rows:?}");
        Found { rows: unique, operation, deletes }
    }

    /// The rows, sorted, what the last snapshot did, and how many deletes it has added.
    pub(super) async fn bag(&self) -> (Vec<(i64, String)>, Operation, usize) {
        let mut base = Base::new(self.load(ORDERS).await);
        let head = lineage::head(&base.metadata).unwrap().clone();
        let (mut data, mut deletes) = (Vec::new(), Vec::new());
        for manifest in base.manifests().await.unwrap().iter() {
            for entry in manifests::read(&base.files, manifest).await.unwrap().entries {
                if entry.is_alive() {
                    let to = if entry.content_type() == DataContentType::Data { &mut data } else { &mut deletes };
                    to.push(entry);
                }
            }
        }
        let read = |path: &str| {
            let file = std::fs::File::open(path.strip_prefix("file://").unwrap()).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            reader.map(Result::unwrap).collect::<Vec<RecordBatch>>()
        };
        let ids =
            |batch: &RecordBatch| batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
        // The last deletion of each key.
        let mut deleted: BTreeMap<i64, i64> = BTreeMap::new();
        let mut added = 0;
        for entry in &deletes {
            assert_eq!(entry.data_file().equality_ids(), Some(vec![1]), "deletes by the field id of the key");
            assert!(entry.data_file().partition().fields().is_empty(), "deletes are global");
            let sequence = entry.sequence_number().unwrap();
            for id in read(entry.file_path()).iter().flat_map(ids) {
                added += usize::from(sequence == head.sequence_number());
                let last = deleted.entry(id).or_default();
                *last = sequence.max(*last);
            }
        }
        let mut rows = Vec::new();
        for entry in &data {
            let sequence = entry.sequence_number().unwrap();
            for batch in read(entry.file_path()) {
                let notes = batch.column_by_name("note").unwrap().as_string::<i32>();
                for (row, id) in ids(&batch).into_iter().enumerate() {
                    if deleted.get(&id).is_none_or(|deleted| *deleted <= sequence) {
                        rows.push((id, notes.value(row).to_owned()));
                    }
                }
            }
        }
        rows.sort();
        (rows, head.summary().operation.clone(), added)
    }
}

fn found(rows: &[(i64, &str)], operation: Operation, deletes: usize) -> Found {
    Found { rows: rows.iter().map(|(id, note)| (*id, (*note).to_owned())).collect(), operation, deletes }
}

pub(super) async fn write(sink: &mut IcebergSink, batch: &[Change], to: i64) {
    sink.write(&changes(batch, to)).await.unwrap();
}

pub(super) async fn flush(sink: &mut IcebergSink, to: i64) {
    assert_durable(&sink.flush().await.unwrap(), to);
}

#[tokio::test]
async fn the_last_change_of_a_key_wins_and_only_what_may_be_there_is_deleted() {
    let lake = upserting();
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a"), ("INSERT", 2, "a"), ("UPDATE", 1, "b"), ("DELETE", 2, "a")], 1).await;
    write(&mut sink, &[("INSERT", 3, "a"), ("DELETE", 3, "a"), ("INSERT", 3, "c")], 2).await;
    flush(&mut sink, 2).await;
    assert_eq!(lake.current().await, found(&[(1, "b"), (3, "c")], Operation::Append, 0));

    // 2 was never there, and 5 lies beyond everything that is.
    write(&mut sink, &[("UPDATE", 3, "d"), ("INSERT", 2, "e"), ("INSERT", 5, "e"), ("DELETE", 5, "e")], 3).await;
    flush(&mut sink, 3).await;
    assert_eq!(lake.current().await, found(&[(1, "b"), (2, "e"), (3, "d")], Operation::Overwrite, 1));
    write(&mut sink, &[("DELETE", 1, "")], 4).await;
    flush(&mut sink, 4).await;
    assert_eq!(lake.current().await, found(&[(2, "e"), (3, "d")], Operation::Delete, 1));
    let metadata = lake.metadata().await;
    let summary = &lineage::head(&metadata).unwrap().summary().additional_properties;
    let totals = ["total-records", "total-data-files", "total-delete-files", "total-equality-deletes"];
    assert_eq!(totals.map(|name| summary[name].as_str()), ["4", "2", "2", "2"]);
    let key: Vec<i32> = metadata.current_schema().identifier_field_ids().collect();
    let fields = metadata.current_schema().as_struct().fields();
    assert_eq!((key, fields[0].required, fields[1].required), (vec![1], true, false));
}

#[tokio::test]
async fn a_truncate_empties_the_table_and_what_follows_it_is_new() {
    for layout in [vec![], vec!["note".to_owned()]] {
        let mut lake = upserting();
        lake.config.partition_by = layout;
        let (mut sink, _) = lake.announced().await;
        write(&mut sink, &[("INSERT", 1, "a"), ("INSERT", 2, "b")], 1).await;
        flush(&mut sink, 1).await;
        write(&mut sink, &[("UPDATE", 1, "c")], 2).await;
        flush(&mut sink, 2).await;
        write(&mut sink, &[("UPDATE", 2, "x"), ("TRUNCATE", 0, ""), ("INSERT", 2, "d")], 3).await;
        flush(&mut sink, 3).await;
        assert_eq!(lake.current().await, found(&[(2, "d")], Operation::Overwrite, 0));
        let metadata = lake.metadata().await;
        let summary = &lineage::head(&metadata).unwrap().summary().additional_properties;
        for (name, value) in [
            ("deleted-data-files", if lake.config.partition_by.is_empty() { "2" } else { "3" }),
            ("deleted-records", "3"),
            ("removed-delete-files", "1"),
            ("removed-equality-deletes", "1"),
            ("total-records", "1"),
            ("total-delete-files", "0"),
        ] {
            assert_eq!(summary[name], value, "{name}");
        }
        write(&mut sink, &[("TRUNCATE", 0, "")], 4).await;
        flush(&mut sink, 4).await;
        assert_eq!(lake.current().await, found(&[], Operation::Overwrite, 0));
        write(&mut sink, &[("INSERT", 2, "e")], 5).await;
        flush(&mut sink, 5).await;
        assert_eq!(lake.current().await, found(&[(2, "e")], Operation::Append, 0));
    }
}

#[tokio::test]
async fn a_truncate_is_ignored_or_stops_where_that_is_said() {
    let mut lake = upserting();
    lake.config.truncate = Some(Truncate::Ignore);
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a"), ("TRUNCATE", 0, ""), ("INSERT", 2, "b")], 1).await;
    flush(&mut sink, 1).await;
    assert_eq!(lake.current().await, found(&[(1, "a"), (2, "b")], Operation::Append, 0));
    lake.config.truncate = Some(Truncate::Fail);
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&changes(&[("TRUNCATE", 0, "")], 2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("truncate: stream public.orders, offset {\"batch\":2}") && text.contains("apply"), "{text}");
}

/// What rows of other partitions came before a TRUNCATE nobody knows.
#[tokio::test]
async fn a_truncate_in_one_of_several_partitions_is_refused() {
    let lake = upserting();
    let (mut sink, _) = lake.faulty().await;
    let other = StreamPartition { partition: "1".into(), ..orders() };
    sink.offsets(&[orders(), other.clone()]).await.unwrap();
    let error = sink.write(&changes(&[("TRUNCATE", 0, "")], 1)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("other partitions (1)"), "{error}");
    sink.write(&ChangeBatch { at: other, ..changes(&[("INSERT", 1, "a")], 2) }).await.unwrap();
    sink.flush().await.unwrap();
    // Another task, which owns one partition only, learns of the others from the table.
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&changes(&[("TRUNCATE", 0, "")], 1)).await.unwrap_err();
    assert!(error.to_string().contains("other partitions (1)"), "{error}");
}

#[tokio::test]
async fn deleted_rows_stay_where_that_is_said() {
    let mut lake = upserting();
    lake.config.deletes = Some(Deletes::Soft);
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a"), ("INSERT", 2, "b"), ("INSERT", 3, "c"), ("DELETE", 3, "c")], 1).await;
    flush(&mut sink, 1).await;
    write(&mut sink, &[("DELETE", 1, "a"), ("INSERT", 3, "d")], 2).await;
    flush(&mut sink, 2).await;
    assert_eq!(lake.current().await, found(&[(1, "a"), (2, "b"), (3, "d")], Operation::Overwrite, 2));
    let batches = lake.data_batches().await;
    let last = batches.last().unwrap();
    let deleted = last.column_by_name("_cdc_deleted").unwrap().as_boolean();
    assert_eq!(deleted.iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
}

#[tokio::test]
async fn tables_of_another_kind_are_refused() {
    // A log of changes.
    let mut lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    lake.config.mode = Mode::Upsert;
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&changes(&[("INSERT", 2, "a")], 2)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("no identifier fields"), "{error}");
    // And the other way round.
    let mut lake = upserting();
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a")], 1).await;
    flush(&mut sink, 1).await;
    lake.config.mode = Mode::Append;
    let (mut sink, _) = lake.faulty().await;
    let error = sink.offsets(&[orders()]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("made by mode upsert"), "{error}");
    // Another key than the rows are told apart by.
    lake.config.mode = Mode::Upsert;
    let (mut sink, _) = lake.announced().await;
    let batch = changes(&[("INSERT", 2, "a")], 2);
    let schema = batch.rows.schema().as_ref().clone();
    let schema = schema.with_metadata([(META_KEY.to_owned(), "[\"note\"]".to_owned())].into());
    let rows = RecordBatch::try_new(Arc::new(schema), batch.rows.columns().to_vec()).unwrap();
    let error = sink.write(&ChangeBatch { rows, schema_id: 9, ..batch }).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.kind() == ErrorKind::Config && text.contains("identifier fields id") && text.contains("is note"),
        "{text}"
    );
}

#[tokio::test]
async fn keys_that_cannot_be_are_refused() {
    let lake = upserting();
    let (mut sink, _) = lake.announced().await;
    // No key.
    let error = sink.write(&rows(orders(), &[1], None)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("no key"), "{error}");
    // NULL in it.
    let mut batch = changes(&[("INSERT", 1, "a")], 1);
    let mut columns = batch.rows.columns().to_vec();
    columns[0] = Arc::new(Int64Array::from(vec![None]));
    batch.rows = RecordBatch::try_new(batch.rows.schema(), columns).unwrap();
    let error = sink.write(&batch).await.unwrap_err();
    let text = error.to_string();
    assert!(error.kind() == ErrorKind::Data && text.contains("column \"id\"") && text.contains("identifier"), "{text}");
    // A float.
    let fields = vec![Field::new("f", DataType::Float64, true), reserved_fields()[0].clone()];
    let schema = Schema::new(fields).with_metadata([(META_KEY.to_owned(), "[\"f\"]".to_owned())].into());
    let columns: Vec<ArrayRef> =
        vec![Arc::new(arrow::array::Float64Array::from(vec![1.0])), Arc::new(StringArray::from(vec!["INSERT"]))];
    let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let at = stream("floats");
    sink.offsets(std::slice::from_ref(&at)).await.unwrap();
    let error = sink.write(&ChangeBatch { at, rows, ..batch }).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.kind() == ErrorKind::Config && text.contains("column \"f\" of type double cannot identify"),
        "{text}"
    );
}

/// A commit that is made for one head and goes onto another removes what has come in between.
#[tokio::test]
async fn rows_of_another_task_that_come_in_between_are_removed() {
    let lake = upserting();
    let (mut sink, catalog) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a")], 1).await;
    flush(&mut sink, 1).await;
    // The same connector's task that owns the other partition: the key has moved from there to here.
    let (mut other, _) = lake.faulty().await;
    let at = StreamPartition { partition: "1".into(), ..orders() };
    other.offsets(std::slice::from_ref(&at)).await.unwrap();
    other.write(&ChangeBatch { at, ..changes(&[("INSERT", 7, "old")], 7) }).await.unwrap();
    let other = tokio::sync::Mutex::new(other);
    catalog.script([Fault::after(move |_| async move {
        other.lock().await.flush().await.unwrap();
    })]);
    write(&mut sink, &[("INSERT", 7, "new")], 2).await;
    flush(&mut sink, 2).await;
    assert_eq!(catalog.unused_faults(), 0);
    assert_eq!(lake.current().await, found(&[(1, "a"), (7, "new")], Operation::Overwrite, 1));
}

#[tokio::test]
async fn a_value_that_was_not_sent_and_is_nowhere_is_an_error_or_a_letter() {
    let lake = upserting();
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a"), ("INSERT", 2, "b")], 1).await;
    flush(&mut sink, 1).await;
    // That of a row that is deleted in the end is wanted by nobody.
    write(&mut sink, &[("UPDATE", 9, UNSENT), ("DELETE", 9, ""), ("UPDATE", 1, UNSENT)], 2).await;
    flush(&mut sink, 2).await;
    assert_eq!(lake.current().await.rows, found(&[(1, "a"), (2, "b")], Operation::Append, 0).rows);
    write(&mut sink, &[("DELETE", 2, "b"), ("UPDATE", 2, UNSENT)], 3).await;
    let flushed = sink.flush().await.unwrap();
    assert_failed(&flushed, ErrorKind::Data);
    let text = flushed.failed[0].1.to_string();
    assert!(text.contains("\"note\"") && text.contains("offset {\"batch\":3}, row 1"), "{text}");
    // And it stays one: the row is not forgotten over it.
    assert_failed(&sink.flush().await.unwrap(), ErrorKind::Data);

    let info = TaskInfo { tolerance: Tolerance::DeadLetter, ..Lake::context().info().clone() };
    let catalog = lake.catalog().await;
    let mut sink = IcebergSink::new(&lake.config, TaskContext::detached(info), catalog).unwrap();
    assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(2))]);
    write(&mut sink, &[("DELETE", 2, "b"), ("UPDATE", 2, UNSENT), ("UPDATE", 7, UNSENT), ("UPDATE", 1, "c")], 3).await;
    let flushed = sink.flush().await.unwrap();
    assert_durable(&flushed, 3);
    assert_eq!(flushed.dead_letters, [(orders(), 2)]);
    assert_eq!(lake.current().await.rows, found(&[(1, "c")], Operation::Append, 0).rows);
}

/// A commit without rows says nothing of what others have committed before it.
#[tokio::test]
async fn rows_of_another_task_before_a_commit_without_rows_are_removed() {
    let mut lake = upserting();
    lake.config.truncate = Some(Truncate::Ignore);
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a"), ("INSERT", 9, "a")], 1).await;
    flush(&mut sink, 1).await;
    let (mut other, _) = lake.faulty().await;
    let at = StreamPartition { partition: "1".into(), ..orders() };
    other.offsets(std::slice::from_ref(&at)).await.unwrap();
    other.write(&ChangeBatch { at, ..changes(&[("INSERT", 5, "old")], 7) }).await.unwrap();
    other.flush().await.unwrap();
    write(&mut sink, &[("TRUNCATE", 0, "")], 2).await;
    flush(&mut sink, 2).await;
    write(&mut sink, &[("INSERT", 5, "new")], 3).await;
    flush(&mut sink, 3).await;
    assert_eq!(lake.current().await.rows, found(&[(1, "a"), (5, "new"), (9, "a")], Operation::Append, 0).rows);
}

/// A changed key takes along what was not sent, also where the change comes a second time; between partitions nobody knows whose
/// row a DELETE was.
#[tokio::test]
async fn a_changed_key_takes_what_was_not_sent_along() {
    let lake = upserting();
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a"), ("INSERT", 2, "b")], 1).await;
    flush(&mut sink, 1).await;
    let pair = [("DELETE@7", 1, ""), ("MOVED@7", 3, UNSENT)];
    write(&mut sink, &pair, 2).await;
    flush(&mut sink, 2).await;
    assert_eq!(lake.current().await.rows, found(&[(2, "b"), (3, "a")], Operation::Append, 0).rows);
    write(&mut sink, &[pair, pair].concat(), 3).await;
    flush(&mut sink, 3).await;
    write(&mut sink, &pair, 4).await;
    write(&mut sink, &pair, 5).await;
    flush(&mut sink, 5).await;
    assert_eq!(lake.current().await.rows, found(&[(2, "b"), (3, "a")], Operation::Append, 0).rows);

    let (mut sink, _) = lake.faulty().await;
    let other = StreamPartition { partition: "1".into(), ..orders() };
    sink.offsets(&[orders(), other]).await.unwrap();
    write(&mut sink, &[("DELETE", 2, ""), ("INSERT", 4, UNSENT)], 6).await;
    let flushed = sink.flush().await.unwrap();
    assert!(flushed.failed.iter().any(|(_, error)| error.kind() == ErrorKind::Data), "{:?}", flushed.failed);
}

/// Somebody compacts the table and removes what was there before, while values are to be read back from it.
#[tokio::test]
async fn values_are_read_from_the_table_as_it_has_become() {
    let lake = upserting();
    let (mut sink, _) = lake.announced().await;
    write(&mut sink, &[("INSERT", 1, "a"), ("INSERT", 2, "b")], 1).await;
    flush(&mut sink, 1).await;
    write(&mut sink, &[("UPDATE", 1, UNSENT), ("INSERT", 0, "c")], 2).await;

    let mut base = Base::new(lake.load(ORDERS).await);
    let listed = base.manifests().await.unwrap();
    let entry = manifests::read(&base.files, &listed[0]).await.unwrap().entries.remove(0);
    let (old, new) = (entry.file_path().to_owned(), entry.file_path().replace(".parquet", "-compacted.parquet"));
    let on_disk = |location: &str| location.strip_prefix("file://").unwrap().to_owned();
    std::fs::rename(on_disk(&old), on_disk(&new)).unwrap();
    let file = DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(new)
        .file_format(DataFileFormat::Parquet)
        .record_count(2)
        .file_size_in_bytes(entry.data_file().file_size_in_bytes())
        .partition_spec_id(0)
        .build()
        .unwrap();
    let schema = base.metadata.current_schema().clone();
    let added = [AddedFile { file, schema, spec: base.metadata.default_partition_spec().clone() }];
    let (offsets, properties) = (BTreeMap::new(), [].into());
    let changes = Changes {
        connector: "another",
        files: &added,
        empties: true,
        offsets: &offsets,
        properties: &properties,
        forget: &[],
    };
    let (request, _) = propose(&mut base, changes).await.unwrap();
    lake.catalog().await.commit_table(&ident(ORDERS), request).await.unwrap();

    flush(&mut sink, 2).await;
    assert_eq!(lake.current().await, found(&[(0, "c"), (1, "a"), (2, "b")], Operation::Overwrite, 1));
}

/// Random changes, commits that fail in every way, and starts in between.
#[tokio::test]
async fn whatever_becomes_of_commits_the_table_is_equal() {
    for seed in 0..30 {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut lake = upserting();
    if seed % 3 == 1 {
        lake.config.partition_by = vec!["note".into()];
    }
    if seed % 3 == 2 {
        lake.config.format_version = 3;
    }
    let notes = ["a", "b", "c", "d"];
    let (mut running, mut committed) = (BTreeMap::new(), BTreeMap::new());
    let mut pending = Vec::<Vec<Change>>::new();
    let (mut sink, mut catalog) = lake.announced().await;
    let mut to = 0;
    let mut told = Vec::new();
    for _ in 0..random.random_range(20..60) {
        let mut batch: Vec<Change> = Vec::new();
        for _ in 0..random.random_range(1..8) {
            let (id, note) = (random.random_range(0..12), notes[random.random_range(0..4)]);
            let held: Vec<i64> = running.keys().copied().collect();
            let before = batch.len();
            match random.random_range(0..40) {
                0 => batch.push(("TRUNCATE", 0, "")),
                1..12 => batch.push(("DELETE", id, note)),
                12..22 => batch.push(("INSERT", id, note)),
                22..32 if !held.is_empty() => batch.push(("UPDATE", held[random.random_range(0..held.len())], UNSENT)),
                32..36 if !held.is_empty() && !held.contains(&id) => {
                    // The key of a row is changed, and the value is left out.
                    batch.extend([("DELETE", held[random.random_range(0..held.len())], note), ("MOVED", id, UNSENT)]);
                }
                _ => batch.push(("UPDATE", id, note)),
            }
            apply(&mut running, &batch[before..]);
        }
        to += 1;
        sink.write(&changes(&batch, to)).await.unwrap();
        pending.push(batch);
        if random.random_ratio(1, 2) {
            continue;
        }
        let faults: Vec<Fault> = (0..random.random_range(0..3))
            .map(|_| match random.random_range(0..5) {
                0 => Fault::AppliedButConflict,
                1 => Fault::LostReply,
                2 => Fault::Swallowed,
                3 => Fault::Unavailable,
                _ => Fault::NotApplied,
            })
            .collect();
        catalog.script(faults);
        let mut flushed = sink.flush().await.unwrap();
        while !flushed.failed.is_empty() {
            assert_eq!(flushed.failed[0].1.kind(), ErrorKind::Unavailable, "{:?}", flushed.failed);
            flushed = sink.flush().await.unwrap();
        }
        for batch in std::mem::take(&mut pending) {
            apply(&mut committed, &batch);
        }
        let current = lake.current().await;
        assert_eq!(current.rows, committed, "seed {seed}, offset {to}");
        told.push(current.deletes);
        if random.random_ratio(1, 6) {
            (sink, catalog) = lake.faulty().await;
            assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(to))]);
        }
    }
    // Somewhere something was deleted, or the test says nothing.
    assert!(told.iter().any(|deletes| *deletes > 0) || told.len() < 4, "seed {seed}: {told:?}");
    let locations: BTreeSet<String> = lake.metadata().await.snapshots().map(|s| s.manifest_list().to_owned()).collect();
    assert!(locations.len() >= told.len());
}

fn apply(rows: &mut BTreeMap<i64, String>, batch: &[Change]) {
    let mut deleted = None;
    for (operation, id, note) in batch {
        match *operation {
            "TRUNCATE" => rows.clear(),
            "DELETE" => deleted = rows.remove(id),
            "MOVED" if *note == UNSENT => drop(rows.insert(*id, deleted.clone().unwrap())),
            _ if *note == UNSENT => assert!(rows.contains_key(id)),
            _ => drop(rows.insert(*id, (*note).to_owned())),
        }
    }
}
