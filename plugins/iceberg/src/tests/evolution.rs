//! Tables that follow their source: what is committed before what, and what is found after a death in between.

use std::collections::HashMap;

use iceberg::spec::{FormatVersion, NestedField, PrimitiveType, Type};
use iceberg::{TableRequirement, TableUpdate};
use philotes_sdk::Tolerance;
use philotes_sdk::batch::{META_COLUMN_NUMBER, META_RELATION, META_SOURCE_TYPE};

use super::faulty::Fault;
use super::tables::{foreign_table, names, optional};
use super::*;

const NUMBERS: &str = "philotes.columns.shop.public.orders";

/// One row: its id, which is column 1, and texts under their numbers and names.
pub(super) fn numbered(schema_id: u64, id: i64, texts: &[(u32, &str, &str)]) -> ChangeBatch {
    let mut batch = row(id);
    let with = |field: Field, number: u32, r#type: &str| {
        let metadata = [(META_COLUMN_NUMBER, number.to_string()), (META_SOURCE_TYPE, r#type.to_owned())];
        field.with_metadata(metadata.map(|(key, value)| (key.to_owned(), value)).into())
    };
    let mut fields: Vec<Field> = batch.rows.schema().fields().iter().map(|field| (**field).clone()).collect();
    let mut columns = batch.rows.columns().to_vec();
    fields[0] = with(fields[0].clone(), 1, "bigint");
    for (at, (number, name, value)) in texts.iter().enumerate() {
        fields.insert(at + 1, with(Field::new(*name, DataType::Utf8, true), *number, "text"));
        columns.insert(at + 1, Arc::new(StringArray::from(vec![*value])));
    }
    let metadata = HashMap::from([(META_RELATION.to_owned(), "5.16384".to_owned())]);
    let schema = Schema::new_with_metadata(fields, metadata);
    batch.rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    batch.schema_id = schema_id;
    batch
}

impl Lake {
    /// What a reader finds, which looks for columns by their field ids: ids with the texts of the current columns.
    async fn by_field(&self, columns: &[&str]) -> Vec<(i64, Vec<Option<String>>)> {
        let metadata = self.metadata().await;
        let schema = metadata.current_schema();
        let id_of = |name: &str| schema.field_id_by_name(name).unwrap().to_string();
        let mut found = Vec::new();
        for batch in self.batches(ORDERS).await {
            let column = |name: &str| {
                let id = id_of(name);
                let fields = batch.schema();
                let index = fields.fields().iter().position(|f| f.metadata()["PARQUET:field_id"] == id)?;
                Some(batch.column(index).clone())
            };
            let ids = column("id").unwrap();
            for (row, id) in ids.as_primitive::<Int64Type>().values().iter().enumerate() {
                let text = |name: &&str| {
                    let column = column(name)?;
                    let column = column.as_string::<i32>();
                    column.is_valid(row).then(|| column.value(row).to_owned())
                };
                found.push((*id, columns.iter().map(text).collect()));
            }
        }
        found.sort();
        found
    }
}

fn row_of(id: i64, texts: &[Option<&str>]) -> (i64, Vec<Option<String>>) {
    (id, texts.iter().map(|text| text.map(str::to_owned)).collect())
}

fn full(drop: bool) -> Lake {
    let mut lake = Lake::new();
    lake.config.evolve = Evolve::Full;
    lake.config.dropped_columns = if drop { DroppedColumns::Drop } else { DroppedColumns::Keep };
    lake
}

fn alters(request: &crate::catalog::CommitRequest) -> bool {
    request.updates.iter().any(|update| matches!(update, TableUpdate::SetCurrentSchema { .. }))
}

fn appends(request: &crate::catalog::CommitRequest) -> bool {
    request.updates.iter().any(|update| matches!(update, TableUpdate::AddSnapshot { .. }))
}

fn tells_numbers(request: &crate::catalog::CommitRequest) -> bool {
    request.updates.iter().any(|update| match update {
        TableUpdate::SetProperties { updates } => updates.contains_key(NUMBERS),
        _ => false,
    })
}

#[tokio::test]
async fn names_are_followed_and_what_came_before_is_committed_first() {
    let lake = full(false);
    let (mut sink, catalog) = lake.announced().await;
    sink.write(&numbered(1, 1, &[(2, "a", "a1"), (3, "b", "b1")])).await.unwrap();
    assert!(catalog.requests().is_empty());
    // Swapped, and a third column.
    sink.write(&numbered(2, 2, &[(2, "b", "a2"), (3, "a", "b2"), (4, "c", "c2")])).await.unwrap();
    let requests = catalog.requests();
    assert_eq!(requests.iter().map(|r| (appends(r), alters(r))).collect::<Vec<_>>(), [(true, false), (false, true)]);
    assert!(requests.iter().all(tells_numbers));
    assert_eq!(lake.ids().await, [1]);
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert!(!tells_numbers(&catalog.requests()[2]), "the table says it already");

    let metadata = lake.metadata().await;
    assert_eq!(names(&metadata), ["id", "b", "a", "c", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
    assert_eq!(metadata.properties()[NUMBERS], r#"{"relation":"5.16384","fields":{"1":1,"2":2,"3":3,"4":7}}"#);
    let expected = [row_of(1, &[Some("b1"), Some("a1"), None]), row_of(2, &[Some("b2"), Some("a2"), Some("c2")])];
    assert_eq!(lake.by_field(&["a", "b", "c"]).await, expected);
    let doc = |name: &str| metadata.current_schema().field_by_name(name).unwrap().doc.clone();
    assert_eq!((doc("id").as_deref(), doc("c").as_deref()), (Some("bigint"), Some("text")));
}

#[tokio::test]
async fn a_dropped_column_goes_and_its_rows_stay() {
    for drop in [false, true] {
        let lake = full(drop);
        let (mut sink, catalog) = lake.announced().await;
        sink.write(&numbered(1, 1, &[(2, "a", "a1"), (3, "b", "b1")])).await.unwrap();
        sink.write(&numbered(2, 2, &[(3, "b", "b2")])).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), 2);
        assert_eq!(lake.by_field(&["b"]).await, [row_of(1, &[Some("b1")]), row_of(2, &[Some("b2")])]);
        let metadata = lake.metadata().await;
        assert_eq!(names(&metadata).contains(&"a".to_owned()), !drop);
        let requests = catalog.requests();
        let dropping = requests.iter().find(|request| alters(request));
        let guarded = dropping.is_some_and(|request| {
            request.requirements.iter().any(|r| matches!(r, TableRequirement::DefaultSortOrderIdMatch { .. }))
        });
        assert_eq!(guarded, drop);
        // The same name again, as another column: the field that stayed goes on, one that was dropped never returns.
        sink.write(&numbered(3, 3, &[(3, "b", "b3"), (4, "a", "new")])).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), 3);
        let first = if drop { None } else { Some("a1") };
        let expected = [row_of(1, &[first]), row_of(2, &[None]), row_of(3, &[Some("new")])];
        assert_eq!(lake.by_field(&["a"]).await, expected, "drop: {drop}");
    }
}

/// Java's catalogs refuse to make the last added schema the current one where it was there before.
#[tokio::test]
async fn a_schema_that_the_table_has_had_is_not_added_again() {
    let lake = full(false);
    let (mut sink, catalog) = lake.announced().await;
    for id in 1..=3 {
        let name = if id == 2 { "b" } else { "a" };
        sink.write(&numbered(u64::from(id == 2), id, &[(2, name, "x")])).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), id);
    }
    let requests = catalog.requests();
    let back = requests.iter().rfind(|request| alters(request)).unwrap();
    assert!(matches!(back.updates[..], [TableUpdate::SetCurrentSchema { schema_id: 0 }, ..]), "{:?}", back.updates);
    assert_eq!(lake.by_field(&["a"]).await.len(), 3);
    assert_eq!(lake.metadata().await.schemas_iter().count(), 2);
}

/// The process dies between each two steps of a rename and its rows.
#[tokio::test]
async fn whoever_comes_after_a_death_goes_on_with_the_rename() {
    let before = || numbered(1, 1, &[(2, "a", "a1")]);
    let after = || numbered(2, 2, &[(2, "b", "a2")]);
    // How many commits come about before the process dies: the first rows, the alteration, the rows that need it.
    for survived in 0..=3 {
        let lake = full(true);
        let (mut sink, catalog) = lake.announced().await;
        sink.write(&before()).await.unwrap();
        let faults = (0..3).map(|step| if step < survived { Fault::after(|_| async {}) } else { Fault::Unreachable });
        catalog.script(faults);
        let written = sink.write(&after()).await;
        assert_eq!(written.is_ok(), survived >= 2);
        if written.is_ok() {
            assert_eq!(sink.flush().await.unwrap().failed.is_empty(), survived == 3);
        }
        drop(sink);
        // What the source does: it goes on after the offset that the table has.
        let (mut sink, _) = lake.faulty().await;
        let durable = sink.offsets(&[orders()]).await.unwrap().remove(0);
        let expected = [None, Some(offset(1)), Some(offset(1)), Some(offset(2))];
        assert_eq!(durable, expected[survived], "{survived} commits");
        if durable.is_none() {
            sink.write(&before()).await.unwrap();
        }
        if durable != Some(offset(2)) {
            sink.write(&after()).await.unwrap();
            assert!(sink.flush().await.unwrap().failed.is_empty());
        }
        let expected = [row_of(1, &[Some("a1")]), row_of(2, &[Some("a2")])];
        assert_eq!(lake.by_field(&["b"]).await, expected, "{survived} commits");
        assert!(!names(&*lake.metadata().await).contains(&"a".to_owned()));
    }
}

#[tokio::test]
async fn following_survives_lost_replies() {
    for fault in [Fault::LostReply, Fault::AppliedButConflict, Fault::Swallowed] {
        let lake = full(true);
        let (mut sink, catalog) = lake.announced().await;
        sink.write(&numbered(1, 1, &[(2, "a", "a1"), (3, "b", "b1")])).await.unwrap();
        catalog.script([Fault::LostReply, fault]);
        sink.write(&numbered(2, 2, &[(2, "b", "a2")])).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), 2);
        assert_eq!(lake.by_field(&["b"]).await, [row_of(1, &[Some("a1")]), row_of(2, &[Some("a2")])]);
        assert_eq!(names(&*lake.metadata().await), ["id", "b", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
    }
}

/// Two tasks of one connector alter the same table at the same moment: both find in the end what both needed.
#[tokio::test]
async fn two_tasks_that_alter_the_table_at_once_converge() {
    let lake = full(true);
    let (mut first, catalog) = lake.announced().await;
    first.write(&numbered(1, 1, &[(2, "a", "a1"), (3, "b", "b1")])).await.unwrap();
    assert_durable(&first.flush().await.unwrap(), 1);
    let other = StreamPartition { partition: "1".into(), ..orders() };
    let (mut second, _) = lake.faulty().await;
    second.offsets(std::slice::from_ref(&other)).await.unwrap();
    let theirs = ChangeBatch { at: other, ..numbered(2, 2, &[(2, "b", "a2"), (4, "c", "c2")]) };
    let (done, mut back) = tokio::sync::mpsc::channel(1);
    catalog.script([Fault::after(move |_| async move {
        second.write(&theirs).await.unwrap();
        assert!(second.flush().await.unwrap().failed.is_empty());
        done.send(second).await.unwrap();
    })]);
    first.write(&numbered(2, 3, &[(2, "b", "a3"), (4, "c", "c3")])).await.unwrap();
    assert_eq!(catalog.unused_faults(), 0);
    assert!(first.flush().await.unwrap().failed.is_empty());
    let mut second = back.recv().await.unwrap();
    let more = numbered(2, 4, &[(2, "b", "a4"), (4, "c", "c4")]);
    second.write(&ChangeBatch { at: StreamPartition { partition: "1".into(), ..orders() }, ..more }).await.unwrap();
    assert!(second.flush().await.unwrap().failed.is_empty());
    assert_eq!(names(&*lake.metadata().await), ["id", "b", "c", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"]);
    let expected = [
        row_of(1, &[Some("a1"), None]),
        row_of(2, &[Some("a2"), Some("c2")]),
        row_of(3, &[Some("a3"), Some("c3")]),
        row_of(4, &[Some("a4"), Some("c4")]),
    ];
    assert_eq!(lake.by_field(&["b", "c"]).await, expected);
}

#[tokio::test]
async fn what_partitions_the_table_is_not_dropped() {
    let mut lake = full(true);
    lake.config.partition_by = vec!["a".into()];
    let (mut sink, _) = lake.announced().await;
    sink.write(&numbered(1, 1, &[(2, "a", "a1")])).await.unwrap();
    sink.write(&numbered(2, 2, &[])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(lake.by_field(&["a"]).await, [row_of(1, &[Some("a1")]), row_of(2, &[None])]);
}

/// What the configuration says by name has to follow a rename by hand; until then the rows wait.
#[tokio::test]
async fn a_rename_of_what_partitions_the_table_is_followed_in_the_configuration() {
    let mut lake = full(true);
    lake.config.partition_by = vec!["a".into()];
    let (mut sink, _) = lake.announced().await;
    sink.write(&numbered(1, 1, &[(2, "a", "a1")])).await.unwrap();
    let error = sink.write(&numbered(2, 2, &[(2, "b", "a2")])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("partition_by") && error.to_string().contains("\"a\""), "{error}");
    lake.config.partition_by = vec!["b as a".into()];
    let (mut sink, _) = lake.faulty().await;
    assert_eq!(sink.offsets(&[orders()]).await.unwrap(), [Some(offset(1))]);
    sink.write(&numbered(2, 2, &[(2, "b", "a2")])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(lake.by_field(&["b"]).await, [row_of(1, &[Some("a1")]), row_of(2, &[Some("a2")])]);
    assert_eq!(lake.metadata().await.partition_specs_iter().count(), 1);
}

#[tokio::test]
async fn numbers_come_with_the_first_rows_and_never_alone() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    for (schema, id) in [(1, 1), (1, 2), (2, 3), (2, 4)] {
        let texts: &[_] = if schema == 1 { &[(2, "a", "x")] } else { &[(2, "b", "x")] };
        sink.write(&numbered(schema, id, texts)).await.unwrap();
        assert_durable(&sink.flush().await.unwrap(), id);
    }
    let told: Vec<_> = catalog.requests().iter().map(|r| (tells_numbers(r), appends(r), alters(r))).collect();
    let expected =
        [(true, true, false), (false, true, false), (true, false, true), (false, true, false), (false, true, false)];
    assert_eq!(told, expected);
    // Another name is another column without `evolve: full`.
    assert_eq!(lake.by_field(&["a", "b"]).await[2], row_of(3, &[None, Some("x")]));
    // Another table under the same name: matched by name, and its numbers mean what they mean there.
    let mut batch = numbered(3, 5, &[(2, "a", "y")]);
    let relation = HashMap::from([(META_RELATION.to_owned(), "5.20000".to_owned())]);
    let schema = Schema::new_with_metadata(batch.rows.schema().fields().clone(), relation);
    batch.rows = RecordBatch::try_new(Arc::new(schema), batch.rows.columns().to_vec()).unwrap();
    sink.write(&batch).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 5);
    assert_eq!(lake.by_field(&["a"]).await[4], row_of(5, &[Some("y")]));
    let metadata = lake.metadata().await;
    let a = metadata.current_schema().field_id_by_name("a").unwrap();
    assert_eq!(metadata.properties()[NUMBERS], format!(r#"{{"relation":"5.20000","fields":{{"1":1,"2":{a}}}}}"#));
}

#[tokio::test]
async fn a_property_that_is_none_is_named() {
    let lake = Lake::new();
    let (mut sink, catalog) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let wrong = [(NUMBERS.to_owned(), "{}".to_owned())].into();
    foreign::apply(&catalog.inner, vec![TableUpdate::SetProperties { updates: wrong }]).await;
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&numbered(1, 2, &[])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(NUMBERS), "{error}");
}

/// A letter from before a rename goes where its columns are now, and renames nothing back.
#[tokio::test]
async fn a_letter_that_comes_late_finds_its_columns_under_their_new_names() {
    let mut lake = full(false);
    let info = TaskInfo { tolerance: Tolerance::DeadLetter, ..Lake::context().info().clone() };
    let context = || TaskContext::detached(info.clone());
    let (mut sink, _) = lake.announced().await;
    sink.write(&numbered(1, 1, &[(2, "a", "a1")])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 1);
    lake.config.evolve = Evolve::None;
    let mut sink = IcebergSink::new(&lake.config, context(), lake.catalog().await).unwrap();
    sink.offsets(&[orders()]).await.unwrap();
    sink.write(&numbered(2, 2, &[(2, "a", "a2"), (3, "c", "c2")])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 2);
    assert_eq!(lake.ids().await, [1]);
    lake.config.evolve = Evolve::Full;
    let (mut sink, _) = lake.announced().await;
    sink.write(&numbered(3, 3, &[(2, "b", "a3")])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 3);

    let arguments = serde_json::json!({"stream": "public.orders"});
    let replayed = crate::dead_letters::replay_in(&lake.config, &context(), lake.catalog().await, arguments).await;
    let philotes_sdk::ActionOutput::Rows { rows, .. } = replayed.unwrap() else { panic!("rows") };
    assert_eq!(rows.iter().map(|row| row[2].as_str()).collect::<Vec<_>>(), ["yes"]);
    let expected =
        [row_of(1, &[Some("a1"), None]), row_of(2, &[Some("a2"), Some("c2")]), row_of(3, &[Some("a3"), None])];
    assert_eq!(lake.by_field(&["b", "c"]).await, expected);
    assert!(!names(&*lake.metadata().await).contains(&"a".to_owned()));
}

fn required(id: i32, name: &str, r#type: PrimitiveType) -> NestedField {
    NestedField::required(id, name, Type::Primitive(r#type))
}

#[tokio::test]
async fn a_required_column_becomes_optional_before_the_rows_that_lack_it() {
    let lake = Lake::new();
    let fields = vec![
        required(1, "note", PrimitiveType::String),
        required(2, "id", PrimitiveType::Long),
        required(3, "theirs", PrimitiveType::Int),
        required(4, "_cdc_lsn", PrimitiveType::String),
    ];
    foreign_table(&lake, fields, FormatVersion::V2).await;
    let (mut sink, catalog) = lake.announced().await;
    // It lacks `theirs`, and `_cdc_lsn` is NULL.
    assert_durable_after(&mut sink, &rows(orders(), &[1], Some("x")), 1).await;
    let alterations = catalog.requests().iter().filter(|request| alters(request)).count();
    assert_eq!(alterations, 2, "one for what the schema shows, one for what the rows show");
    let metadata = lake.metadata().await;
    let required = |name: &str| metadata.current_schema().field_by_name(name).unwrap().required;
    assert_eq!(["note", "id", "theirs", "_cdc_lsn"].map(required), [true, true, false, false]);
    assert_eq!(names(&metadata)[..4], ["note", "id", "theirs", "_cdc_lsn"]);
    assert_eq!(lake.rows(ORDERS).await, [(1, Some("x".to_owned()))]);
}

async fn assert_durable_after(sink: &mut IcebergSink, batch: &ChangeBatch, id: i64) {
    sink.write(batch).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), id);
}

#[tokio::test]
async fn identifier_fields_stay_required_and_their_rows_are_refused_one_by_one() {
    let lake = Lake::new();
    foreign_table(&lake, vec![required(1, "id", PrimitiveType::Long)], FormatVersion::V2).await;
    let metadata = lake.metadata().await;
    let schema = iceberg::spec::Schema::builder()
        .with_fields(metadata.current_schema().as_struct().fields().to_vec())
        .with_identifier_field_ids([1])
        .build()
        .unwrap();
    let catalog = lake.catalog().await;
    let updates = vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
    foreign::apply(&catalog, updates).await;
    let mut batch = rows(orders(), &[1, 2, 3], None);
    let mut columns = batch.rows.columns().to_vec();
    columns[0] = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    batch.rows = RecordBatch::try_new(batch.rows.schema(), columns).unwrap();
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("\"id\": 1 row has NULL"), "{error}");

    let info = TaskInfo { tolerance: Tolerance::DeadLetter, ..Lake::context().info().clone() };
    let mut sink = IcebergSink::new(&lake.config, TaskContext::detached(info), catalog).unwrap();
    sink.offsets(&[orders()]).await.unwrap();
    assert_durable_after(&mut sink, &batch, 3).await;
    assert_eq!(lake.ids().await, [1, 3]);
    assert!(lake.metadata().await.current_schema().field_by_name("id").unwrap().required);
}

#[tokio::test]
async fn where_nothing_may_change_nothing_does() {
    let mut lake = Lake::new();
    lake.config.evolve = Evolve::None;
    let (mut sink, catalog) = lake.announced().await;
    // It is made.
    assert_durable(&commit(&mut sink, &[1]).await, 1);
    let error = sink.write(&rows(orders(), &[2], Some("new"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let said = error.to_string();
    assert!(said.contains("public.orders") && said.contains("\"note\"") && said.contains("evolve: none"), "{said}");
    assert_durable(&commit(&mut sink, &[3]).await, 3);
    assert!(!catalog.requests().iter().any(alters));
    // Nor its layout.
    lake.config.partition_by = vec!["id".into()];
    let (mut sink, _) = lake.announced().await;
    assert_durable(&commit(&mut sink, &[4]).await, 4);
    assert_eq!(lake.metadata().await.partition_specs_iter().count(), 1);
    assert_eq!(lake.ids().await, [1, 3, 4]);
}

#[tokio::test]
async fn plan_tells_what_would_change_and_changes_nothing() {
    let lake = full(true);
    let (mut sink, _) = lake.announced().await;
    sink.write(&numbered(1, 1, &[(2, "a", "a1"), (3, "b", "b1")])).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 1);
    let before = lake.load(ORDERS).await.metadata_location;
    let next = numbered(2, 2, &[(2, "b", "a2"), (4, "c", "c2")]);
    let schema = next.rows.schema();
    let plan = async |config: Config| IcebergSink::plan(config, Lake::context(), &orders(), schema.clone()).await;
    let found = plan(lake.config.clone()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.change, "alter");
    let changes: Vec<_> = found.columns.iter().map(|c| (c.name.as_str(), c.change.as_str())).collect();
    assert_eq!(changes[..3], [("id", ""), ("b", "renamed from a"), ("c", "add")]);
    assert!(found.notes.contains(&"drop b: string".to_owned()), "{:?}", found.notes);
    let additive = plan(Config { evolve: Evolve::Additive, ..lake.config.clone() }).await.unwrap();
    assert!(additive.notes.iter().any(|note| note.contains("\"a\" is called \"b\"")), "{:?}", additive.notes);
    let none = plan(Config { evolve: Evolve::None, ..lake.config.clone() }).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Data);
    assert_eq!(lake.load(ORDERS).await.metadata_location, before);
}

#[tokio::test]
async fn an_optional_foreign_column_is_left_alone() {
    let lake = full(true);
    let fields = vec![optional(1, "id", PrimitiveType::Long), optional(2, "theirs", PrimitiveType::String)];
    foreign_table(&lake, fields, FormatVersion::V2).await;
    let (mut sink, _) = lake.announced().await;
    assert_durable_after(&mut sink, &numbered(1, 1, &[]), 1).await;
    assert_durable_after(&mut sink, &numbered(2, 2, &[(2, "a", "x")]), 2).await;
    let found = names(&*lake.metadata().await);
    assert_eq!(found, ["id", "a", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn", "theirs"]);
}
