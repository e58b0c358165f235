//! Dead letters: the second table is reached exactly once, and what was rejected can be replayed.

use arrow::array::{Array, AsArray, StringArray, Time64MicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use philotes_sdk::dead_letter::{self, DeadLetter};
use philotes_sdk::{ActionOutput, Tolerance};
use serde_json::json;

use super::faulty::Fault;
use super::*;
use crate::dead_letters::{self, read_intent};

const LETTERS: &str = "cdc.dead_letters";
const DAY: i64 = 86_400_000_000;

fn tolerant() -> TaskContext {
    let info = TaskInfo { connector: "shop".into(), tasks: 1, tolerance: Tolerance::DeadLetter, ..TaskInfo::default() };
    TaskContext::detached(info)
}

async fn sink(lake: &Lake) -> (IcebergSink, Arc<FaultyCatalog>) {
    let catalog = Arc::new(FaultyCatalog::new(lake.catalog().await));
    let mut sink = IcebergSink::new(&lake.config, tolerant(), catalog.clone()).unwrap();
    sink.offsets(&[orders()]).await.unwrap();
    (sink, catalog)
}

/// Rows with a time of day: 24:00 cannot be written. The offset is the last id.
fn timed(ids: &[i64], bad: &[i64]) -> ChangeBatch {
    let mut batch = rows(orders(), ids, None);
    let times = ids.iter().map(|id| if bad.contains(id) { DAY } else { 0 });
    let mut fields: Vec<Field> = batch.rows.schema().fields().iter().map(|field| (**field).clone()).collect();
    fields.insert(1, Field::new("t", DataType::Time64(TimeUnit::Microsecond), true));
    let mut columns = batch.rows.columns().to_vec();
    columns.insert(1, Arc::new(Time64MicrosecondArray::from_iter_values(times)));
    batch.rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    batch.schema_id = 7;
    batch
}

/// The same rows, but the ids as text, which the table cannot take once it has numbers.
fn as_text(ids: &[i64]) -> ChangeBatch {
    let mut batch = rows(orders(), ids, None);
    let mut fields: Vec<Field> = batch.rows.schema().fields().iter().map(|field| (**field).clone()).collect();
    fields[0] = Field::new("id", DataType::Utf8, true);
    let mut columns = batch.rows.columns().to_vec();
    columns[0] = Arc::new(ids.iter().map(|id| Some(id.to_string())).collect::<StringArray>());
    batch.rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    batch.schema_id = 8;
    batch
}

/// A batch that a source made of what it could not decode.
fn of_source(ids: &[i64]) -> ChangeBatch {
    let letter = |id: &i64| DeadLetter {
        position: Some(id.to_string()),
        kind: ErrorKind::Data,
        message: format!("row {id} is no row"),
        record: format!("{{\"id\":{id}}}"),
        timestamp_micros: Some(1),
    };
    let letters: Vec<DeadLetter> = ids.iter().map(letter).collect();
    ChangeBatch {
        rows: dead_letter::to_rows(&orders().stream, &letters).unwrap(),
        dead_letters: true,
        schema_id: 0,
        ..row(*ids.last().unwrap())
    }
}

/// (sequence, origin, position, record) of every letter in its table, by sequence.
async fn letters(lake: &Lake) -> Vec<(i64, String, Option<String>, String)> {
    if !lake.catalog().await.table_exists(&ident(LETTERS)).await.unwrap() {
        return Vec::new();
    }
    let mut letters = Vec::new();
    for batch in lake.batches(LETTERS).await {
        let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (origins, positions, records) = (text("origin"), text("position"), text("record"));
        let sequences = batch.column_by_name("sequence").unwrap().as_primitive::<Int64Type>();
        letters.extend((0..batch.num_rows()).map(|row| {
            let position = positions.is_valid(row).then(|| positions.value(row).to_owned());
            (sequences.value(row), origins.value(row).to_owned(), position, records.value(row).to_owned())
        }));
    }
    letters.sort();
    letters
}

async fn sequences(lake: &Lake) -> Vec<i64> {
    letters(lake).await.into_iter().map(|(sequence, ..)| sequence).collect()
}

async fn act(lake: &Lake, action: &str, arguments: serde_json::Value) -> Vec<Vec<String>> {
    let output = IcebergSink::act(lake.config.clone(), tolerant(), action, arguments).await.unwrap();
    let ActionOutput::Rows { columns, rows } = output else { panic!("rows") };
    assert!(rows.iter().all(|row| row.len() == columns.len()));
    rows
}

async fn replay(lake: &Lake) -> Vec<Vec<String>> {
    act(lake, "replay", json!({"stream": "public.orders"})).await
}

#[tokio::test]
async fn only_bad_rows_become_letters_with_what_they_were() {
    let lake = Lake::new();
    let (mut sink, _) = sink(&lake).await;
    sink.write(&timed(&[1, 2, 3, 4, 5], &[2, 5])).await.unwrap();
    assert!(sink.buffered_bytes() > 0);
    let flushed = sink.flush().await.unwrap();
    assert_durable(&flushed, 5);
    assert_eq!((flushed.commits[0].rows, &flushed.dead_letters), (3, &vec![(orders(), 2)]));
    assert_eq!(lake.ids().await, [1, 3, 4]);

    let batch = lake.batches(LETTERS).await.remove(0);
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    let expected = "connector table table_uuid stream partition offset sequence origin position kind message record arrow \
                    _cdc_timestamp failed_at";
    assert_eq!(names.join(" "), expected);
    let cell = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().value(0).to_owned();
    assert_eq!(
        cell("connector") + " " + &cell("table") + " " + &cell("stream"),
        "shop cdc.public_orders public.orders"
    );
    assert_eq!(cell("table_uuid"), lake.metadata().await.uuid().to_string());
    assert_eq!(
        (cell("partition"), cell("offset"), cell("origin")),
        ("0".into(), "{\"batch\":5}".into(), "sink".into())
    );
    assert_eq!(cell("kind"), "data");
    let message = cell("message");
    assert!(message.contains("\"t\"") && message.contains("23:59:59"), "{message}");
    let record: serde_json::Value = serde_json::from_str(&cell("record")).unwrap();
    assert_eq!((&record["id"], &record["_cdc_operation"]), (&json!(2), &json!("INSERT")));
    let times =
        batch.column_by_name("_cdc_timestamp").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(times.value(0), 1_769_212_800_000_000);
    assert_eq!(sequences(&lake).await, [1, 2]);
}

#[tokio::test]
async fn without_tolerance_they_are_errors_and_nothing_is_written() {
    let lake = Lake::new();
    let (mut sink, _) = lake.announced().await;
    assert_eq!(sink.write(&timed(&[1, 2], &[2])).await.unwrap_err().kind(), ErrorKind::Data);
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    assert_eq!(sink.write(&as_text(&[2])).await.unwrap_err().kind(), ErrorKind::Data);
    assert!(letters(&lake).await.is_empty());
}

#[tokio::test]
async fn an_incompatible_schema_sends_all_its_rows_and_a_bad_partition_value_only_its_own() {
    let mut lake = Lake::new();
    lake.config.partition_by = vec!["day(_cdc_timestamp)".into()];
    let (mut sink, _) = sink(&lake).await;
    sink.write(&row(1)).await.unwrap();
    sink.write(&as_text(&[2, 3])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 3);
    assert_eq!((lake.ids().await, sequences(&lake).await), (vec![1], vec![1, 2]));
    let message = act(&lake, "dead_letters", json!({})).await[0][6].clone();
    assert!(message.contains("\"id\"") && message.contains("long") && message.contains("string"), "{message}");
}

#[tokio::test]
async fn letters_of_the_source_alone_make_a_table_that_grows_later() {
    let lake = Lake::new();
    let (mut sink, _) = sink(&lake).await;
    sink.write(&of_source(&[1, 2])).await.unwrap();
    let flushed = sink.flush().await.unwrap();
    assert_durable(&flushed, 2);
    assert_eq!((flushed.commits[0].rows, &flushed.dead_letters), (0, &vec![(orders(), 2)]));
    let found = letters(&lake).await;
    assert_eq!(found[1], (2, "source".into(), Some("2".into()), "{\"id\":2}".into()));
    // Its offset is known, and rows go on.
    let (mut sink, _) = self::sink(&lake).await;
    assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(2))]);
    assert_durable(&commit(&mut sink, &[3]).await, 3);
    sink.write(&of_source(&[4])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 4);
    assert_eq!((lake.ids().await, sequences(&lake).await), (vec![3], vec![1, 2, 3]));
}

#[tokio::test]
async fn a_table_that_cannot_be_made_without_its_columns_is_named() {
    let mut lake = Lake::new();
    lake.config.partition_by = vec!["bucket(4, id)".into()];
    let (mut sink, _) = sink(&lake).await;
    sink.write(&of_source(&[1])).await.unwrap();
    let flushed = sink.flush().await.unwrap();
    assert_failed(&flushed, ErrorKind::Data);
    let message = flushed.failed[0].1.to_string();
    assert!(message.contains("nothing has come for table") && message.contains("\"id\""), "{message}");
}

/// Every request of the two commits, lost, late, or answered wrongly.
#[tokio::test]
async fn whatever_becomes_of_a_request_each_letter_arrives_once() {
    for nth in 0..2 {
        for fault in 0..5 {
            let lake = Lake::new();
            let (mut sink, catalog) = sink(&lake).await;
            sink.write(&timed(&[1], &[])).await.unwrap();
            assert_durable(&sink.flush().await.unwrap(), 1);
            let fault = match fault {
                0 => Fault::AppliedButConflict,
                1 => Fault::LostReply,
                2 => Fault::Swallowed,
                3 => Fault::Late,
                _ => Fault::NotApplied,
            };
            let nothing = || Fault::after(|_| async {});
            catalog.script((0..nth).map(|_| nothing()).chain([fault]));
            sink.write(&timed(&[2, 3], &[3])).await.unwrap();
            assert_durable(&sink.flush().await.unwrap(), 3);
            assert!(catalog.deliver().await.iter().all(|applied| !applied));
            sink.write(&timed(&[4, 5], &[5])).await.unwrap();
            assert_durable(&sink.flush().await.unwrap(), 5);
            assert_eq!((lake.ids().await, sequences(&lake).await), (vec![1, 2, 4], vec![1, 2]), "request {nth}");
        }
    }
}

/// The main commit stands, the append does not: the next start completes it, also one that tolerates nothing, and the
/// next flush does.
#[tokio::test]
async fn whoever_adopts_an_intent_completes_it() {
    for restarted in [false, true] {
        let mut lake = Lake::new();
        let (mut sink, catalog) = sink(&lake).await;
        sink.write(&timed(&[1], &[])).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), 1);
        catalog.script([Fault::after(|_| async {}), Fault::Unavailable]);
        sink.write(&timed(&[2, 3], &[3])).await.unwrap();
        let flushed = sink.flush().await.unwrap();
        let (durable, failed) = outcome(&flushed);
        assert_eq!((durable.len(), failed), (1, vec![ErrorKind::Unavailable]));
        let metadata = lake.metadata().await;
        let intent = read_intent(&metadata, "shop").unwrap().unwrap();
        assert_eq!((intent.number, intent.from, intent.upto, intent.files.len()), (1, 0, 1, 1));
        assert!(letters(&lake).await.is_empty());
        // Their files are no orphans, although their own table does not know them; and there none is removed.
        let of_letters = json!({"table": LETTERS, "older_than": "0s"});
        let listed = act(&lake, "orphans", of_letters).await;
        assert!(listed.iter().all(|row| row[1].contains("/metadata/")), "{listed:?}");
        let remove = json!({"table": LETTERS, "older_than": "0s", "remove": "true"});
        let refused = IcebergSink::act(lake.config.clone(), tolerant(), "orphans", remove).await.unwrap_err();
        assert!(refused.to_string().contains("listed only"), "{refused}");
        if restarted {
            drop(sink);
            // It would keep its own letters elsewhere.
            lake.config.dead_letters = "cdc.others".into();
            let mut sink = lake.sink().await;
            assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(3))]);
        } else {
            assert_eq!(outcome(&sink.flush().await.unwrap()), outcome(&Flushed::default()));
        }
        assert_eq!(sequences(&lake).await, [1]);
    }
}

/// Two tasks of one connector write different partitions of a stream: their letters share the numbers.
#[tokio::test]
async fn another_task_takes_the_numbers_first() {
    let lake = Lake::new();
    let other = StreamPartition { partition: "1".into(), ..orders() };
    let (mut first, _) = sink(&lake).await;
    let (mut second, _) = sink(&lake).await;
    second.offsets(std::slice::from_ref(&other)).await.unwrap();
    assert_durable(&commit(&mut first, &[1]).await, 1);
    first.write(&timed(&[2, 3], &[3])).await.unwrap();
    // It knows a state of the table without the first one's intent, and sends its letters with the same number.
    let mut theirs = timed(&[4, 5, 6], &[5, 6]);
    theirs.at = other.clone();
    let mut second = {
        drop(second);
        let (mut second, _) = sink_of(&lake, &other).await;
        second.write(&theirs).await.unwrap();
        second
    };
    assert_durable(&first.flush().await.unwrap(), 3);
    let flushed = second.flush().await.unwrap();
    assert_eq!(outcome(&flushed).1, []);
    first.write(&timed(&[7], &[7])).await.unwrap();
    assert_durable(&first.flush().await.unwrap(), 7);
    assert_eq!((lake.ids().await, sequences(&lake).await), (vec![1, 2, 4], vec![1, 2, 3, 4]));
    let records: Vec<String> = letters(&lake).await.into_iter().map(|(.., record)| record).collect();
    for (record, id) in records.iter().zip([3, 5, 6, 7]) {
        assert!(record.contains(&format!("\"id\":{id},")), "{records:?}");
    }
}

async fn sink_of(lake: &Lake, at: &StreamPartition) -> (IcebergSink, Arc<FaultyCatalog>) {
    let catalog = Arc::new(FaultyCatalog::new(lake.catalog().await));
    let mut sink = IcebergSink::new(&lake.config, tolerant(), catalog.clone()).unwrap();
    sink.offsets(std::slice::from_ref(at)).await.unwrap();
    (sink, catalog)
}

#[tokio::test]
async fn a_table_of_letters_that_was_dropped_is_made_again() {
    let lake = Lake::new();
    let (mut sink, catalog) = sink(&lake).await;
    sink.write(&timed(&[1, 2], &[2])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 2);
    foreign::drop_named(lake.folder.path(), "dead_letters");
    // A start is not held up by letters that were dealt with.
    let (mut sink, _) = {
        drop((sink, catalog));
        self::sink(&lake).await
    };
    sink.write(&timed(&[3, 4], &[4])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 4);
    assert_eq!((lake.ids().await, sequences(&lake).await), (vec![1, 3], vec![2]));
}

#[tokio::test]
async fn a_stream_cannot_be_written_to_the_table_of_letters() {
    let lake = Lake::new();
    let (mut sink, _) = lake.faulty().await;
    let at = StreamPartition::only(StreamName::new(["dead", "letters"]).unwrap());
    let error = sink.offsets(&[at]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("dead_letters"), "{error}");
}

#[tokio::test]
async fn files_of_letters_that_nobody_was_told_of_are_removed() {
    let lake = Lake::new();
    let (mut sink, _) = sink(&lake).await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    sink.write(&timed(&[2], &[2])).await.unwrap();
    let files = || {
        let table = lake.folder.path().join("warehouse/cdc");
        let mut files = 0;
        for entry in std::fs::read_dir(table).unwrap().map(Result::unwrap) {
            let data = entry.path().join("data");
            if entry.file_name().to_string_lossy().starts_with("dead_letters") && data.is_dir() {
                files += std::fs::read_dir(data).unwrap().count();
            }
        }
        files
    };
    // The manifests cannot be written after the letters were.
    let metadata = lake.metadata().await.location().strip_prefix("file://").unwrap().to_owned() + "/metadata";
    let aside = metadata.clone() + "-aside";
    std::fs::rename(&metadata, &aside).unwrap();
    std::fs::write(&metadata, "in the way").unwrap();
    assert_eq!(outcome(&sink.flush().await.unwrap()).1.len(), 1);
    assert_eq!(files(), 1);
    std::fs::remove_file(&metadata).unwrap();
    std::fs::rename(&aside, &metadata).unwrap();
    sink.close(std::time::Duration::from_secs(5)).await.unwrap();
    assert_eq!(files(), 0);
}

#[tokio::test]
async fn letters_are_shown_and_replayed_once_their_cause_is_gone() {
    let lake = Lake::new();
    let (mut sink, _) = sink(&lake).await;
    assert!(act(&lake, "dead_letters", json!({})).await.is_empty());
    sink.write(&row(1)).await.unwrap();
    sink.write(&as_text(&[2, 3])).await.unwrap();
    sink.write(&of_source(&[4])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 4);
    let states = || async {
        let shown = act(&lake, "dead_letters", json!({"stream": "public.orders"})).await;
        shown.iter().map(|row| format!("{} {}", row[3], row[7])).collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["1 no", "2 no", "3 insert it again"]);
    assert_eq!(act(&lake, "dead_letters", json!({"limit": "1"})).await[0][3], "3");
    assert!(act(&lake, "dead_letters", json!({"stream": "public.others"})).await.is_empty());

    // The cause is still there: they are left as they are, and the table too.
    let said = replay(&lake).await;
    assert!(
        said.iter().all(|row| row[2].starts_with("no: ")) && said[2][2].contains("insert it at the source"),
        "{said:?}"
    );
    let head = head(&lake).await;
    // The column goes, and comes back as text.
    let catalog = lake.catalog().await;
    foreign::drop_column(&catalog, "id").await;
    let said = act(&lake, "replay", json!({"stream": "public.orders", "sequence": "2"})).await;
    assert_eq!(said, [["2", "", "yes"]]);
    assert_ne!(self::head(&lake).await, head);
    let said = replay(&lake).await;
    assert_eq!(said.iter().map(|row| format!("{} {}", row[0], &row[2][..2])).collect::<Vec<_>>(), ["1 ye", "3 no"]);
    assert_eq!(replay(&lake).await.len(), 1);
    assert_eq!(states().await, ["1 yes", "2 yes", "3 insert it again"]);
    let batches = lake.batches(ORDERS).await;
    let texts: Vec<String> = batches
        .iter()
        .filter_map(|batch| batch.column_by_name("id").and_then(|ids| ids.as_string_opt::<i32>().cloned()))
        .flat_map(|ids| ids.iter().flatten().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(texts, ["3", "2"]);
    // The task that was running goes on: its offset is as it was.
    sink.write(&as_text(&[6])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 6);
    assert_eq!(states().await.len(), 3);
}

/// Whatever becomes of its request, and if it is asked for twice at once, each letter gets in once.
#[tokio::test]
async fn a_replay_that_is_repeated_or_races_writes_each_row_once() {
    for fault in 0..6 {
        let lake = Lake::new();
        let (mut sink, catalog) = sink(&lake).await;
        sink.write(&row(1)).await.unwrap();
        sink.write(&as_text(&[2, 3])).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), 3);
        let sql = lake.catalog().await;
        foreign::drop_column(&sql, "id").await;
        let arguments = || json!({"stream": "public.orders"});
        let (config, other) = (lake.config.clone(), arguments());
        let race = Fault::after(move |catalog| async move {
            let output = dead_letters::replay_in(&config, &tolerant(), catalog, other).await.unwrap();
            assert!(matches!(output, ActionOutput::Rows { rows, .. } if rows.len() == 2));
        });
        let nothing = Fault::after(|_| async {});
        // The first request adds the column.
        let fault = match fault {
            0 => Fault::AppliedButConflict,
            1 => Fault::LostReply,
            2 => Fault::Swallowed,
            3 => Fault::Late,
            4 => Fault::NotApplied,
            _ => race,
        };
        let raced = matches!(fault, Fault::After(_));
        catalog.script([nothing, fault]);
        let outcome = dead_letters::replay_in(&lake.config, &tolerant(), catalog.clone(), arguments()).await;
        assert_eq!(
            outcome.as_ref().err().map(|error| error.kind()),
            raced.then_some(ErrorKind::Conflict),
            "{outcome:?}"
        );
        assert!(catalog.deliver().await.iter().all(|applied| !applied));
        assert!(replay(&lake).await.is_empty());
        let rows: usize = lake.batches(ORDERS).await.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 3);
        let metadata = lake.metadata().await;
        assert_eq!(metadata.properties()["philotes.replayed.shop"], "1-2");
    }
}

async fn head(lake: &Lake) -> i64 {
    let metadata = lake.metadata().await;
    crate::lineage::head(&metadata).unwrap().snapshot_id()
}
