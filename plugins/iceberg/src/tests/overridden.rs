//! Columns that the connector leaves out, names and types.

use std::collections::HashMap;

use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
use philotes_sdk::dead_letter::{self, DeadLetter};
use philotes_sdk::{ActionOutput, Tolerance};
use serde_json::json;

use super::*;
use crate::dead_letters;

const LETTERS: &str = "cdc.dead_letters";

fn lake(columns: &serde_json::Value) -> Lake {
    let mut lake = Lake::new();
    lake.config.columns = serde_json::from_value(json!({ "public.orders": columns })).unwrap();
    lake
}

async fn tolerant(lake: &Lake) -> IcebergSink {
    let info = TaskInfo { tolerance: Tolerance::DeadLetter, ..Lake::context().info().clone() };
    let mut sink = IcebergSink::new(&lake.config, TaskContext::detached(info), lake.catalog().await).unwrap();
    sink.offsets(&[orders()]).await.unwrap();
    sink
}

/// Rows with texts in columns of these names.
fn texts(names: &[&str], values: &[&[&str]]) -> ChangeBatch {
    let ids: Vec<i64> = (1..).take(values.len()).collect();
    let mut batch = rows(orders(), &ids, None);
    let schema = batch.rows.schema();
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| (**field).clone()).collect();
    let mut columns = batch.rows.columns().to_vec();
    for (at, name) in names.iter().enumerate() {
        fields.insert(at + 1, Field::new(*name, DataType::Utf8, true));
        let column: StringArray = values.iter().map(|row| Some(row[at])).collect();
        columns.insert(at + 1, Arc::new(column));
    }
    let key = HashMap::from([("philotes.key".to_owned(), json!([names[0]]).to_string())]);
    batch.rows = RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, key)), columns).unwrap();
    batch
}

async fn types(lake: &Lake) -> Vec<(String, String)> {
    let metadata = lake.metadata().await;
    let fields = metadata.current_schema().as_struct().fields();
    fields.iter().map(|field| (field.name.clone(), field.field_type.to_string())).collect()
}

/// Everything that stands in the table's files, as text.
async fn everything(lake: &Lake, table: &str) -> String {
    format!("{:?}", lake.batches(table).await)
}

#[tokio::test]
async fn what_is_dropped_reaches_nothing_and_what_cannot_be_converted_is_a_letter() {
    let lake = lake(&json!({
        "ssn": {"drop": true},
        "_file": {"name": "path"},
        "n": {"type": "decimal(5,2)"},
        "at": {"type": "timestamptz", "name": "happened"},
    }));
    let mut sink = tolerant(&lake).await;
    let batch = texts(
        &["_file", "ssn", "n", "at"],
        &[
            &["f1", "secret", "1.5", "2026-01-24 10:00:00+02"],
            &["f2", "secret", "1.555", "2026-01-24 10:00:00+02"],
            &["f3", "secret", "2", "2026-01-24 10:00:00"],
            &["f4", "secret", "-999.99", "2026-01-24T10:00:00Z"],
        ],
    );
    sink.write(&batch).await.unwrap();
    let letter = DeadLetter {
        position: Some("5".into()),
        kind: ErrorKind::Data,
        message: "row 5 is no row".into(),
        record: json!({"id": 5, "after_data": {"ssn": "secret", "n": "x"}}).to_string(),
        timestamp_micros: None,
    };
    let rows = dead_letter::to_rows(&orders().stream, &[letter]).unwrap();
    sink.write(&ChangeBatch { rows, dead_letters: true, ..row(5) }).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 5);
    assert_eq!(lake.ids().await, [1, 4]);
    let found = types(&lake).await;
    let expected = [("id", "long"), ("path", "string"), ("n", "decimal(5, 2)"), ("happened", "timestamptz")];
    assert_eq!(found[..4], expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    let (rows, letters) = (everything(&lake, ORDERS).await, everything(&lake, LETTERS).await);
    assert!(rows.contains("f1") && !rows.contains("f2"), "{rows}");
    let batch = &lake.batches(ORDERS).await[0];
    let cents = batch.column_by_name("n").unwrap().as_primitive::<Decimal128Type>();
    assert_eq!(cents.values(), &[150, -99_999]);
    let happened = batch.column_by_name("happened").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(happened.values(), &[1_769_241_600_000_000, 1_769_248_800_000_000]);
    assert!(!rows.contains("secret"));
    assert!(letters.contains("f2") && letters.contains("row 5 is no row"), "{letters}");
    assert!(!letters.contains("secret") && !letters.contains("ssn"), "{letters}");
    assert!(
        letters.contains(r#"column \"n\": 1 row"#) && letters.contains(r#"column \"happened\": 1 row"#),
        "{letters}"
    );
}

#[tokio::test]
async fn letters_are_replayed_as_the_connector_has_columns_now() {
    let mut lake = lake(&json!({"n": {"type": "int", "name": "number"}}));
    let mut sink = tolerant(&lake).await;
    sink.write(&texts(&["n", "ssn"], &[&["1", "secret"], &["x", "secret"]])).await.unwrap();
    // No table could have this column.
    let unnamed = ChangeBatch { schema_id: 9, offset: offset(3), ..texts(&["_pos"], &[&["p"]]) };
    sink.write(&unnamed).await.unwrap();
    assert_durable(&sink.flush().await.unwrap(), 3);
    assert_eq!(lake.ids().await, [1]);
    assert!(everything(&lake, LETTERS).await.contains("columns: {<stream>: {_pos: {name"));
    drop(sink);

    lake.config.columns = serde_json::from_value(json!({"public.orders": {
        "n": {"type": "string", "name": "word"}, "ssn": {"drop": true}, "_pos": {"name": "position"}
    }}))
    .unwrap();
    let info = TaskInfo { tolerance: Tolerance::DeadLetter, ..Lake::context().info().clone() };
    let context = TaskContext::detached(info);
    let arguments = json!({"stream": "public.orders"});
    let output = dead_letters::replay_in(&lake.config, &context, lake.catalog().await, arguments).await.unwrap();
    let ActionOutput::Rows { rows, .. } = output else { panic!("{output:?}") };
    assert_eq!(rows.iter().map(|row| row[2].as_str()).collect::<Vec<_>>(), ["yes", "yes"]);
    let found = types(&lake).await;
    for (name, kind) in [("number", "int"), ("word", "string"), ("position", "string")] {
        assert!(found.contains(&(name.to_owned(), kind.to_owned())), "{found:?}");
    }
    let rows = lake.batches(ORDERS).await;
    let words: Vec<String> = rows
        .iter()
        .filter_map(|batch| batch.column_by_name("word"))
        .flat_map(|column| column.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(words, ["x"]);
}

#[tokio::test]
async fn without_tolerance_the_error_names_the_column_and_no_value() {
    let lake = lake(&json!({"n": {"type": "int"}}));
    let (mut sink, _) = lake.announced().await;
    let error = sink.write(&texts(&["n"], &[&["secret"]])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let said = error.to_string();
    assert!(said.contains("public.orders") && said.contains("\"n\"") && said.contains("int"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn plan_tells_what_the_connector_says_of_columns() {
    let lake = lake(&json!({
        "ssn": {"drop": true}, "_file": {"name": "path"}, "n": {"type": "int"}, "gone": {"type": "int"},
    }));
    let batch = texts(&["_file", "ssn", "n"], &[&["f", "s", "1"]]);
    let plan = IcebergSink::plan(lake.config.clone(), Lake::context(), &orders(), batch.rows.schema()).await.unwrap();
    let columns: Vec<_> = plan.columns.iter().map(|c| (c.name.as_str(), c.target_type.as_str())).collect();
    assert_eq!(columns[..3], [("id", "long"), ("path", "string"), ("n", "int")]);
    for note in [
        "columns: ssn is dropped",
        "columns: _file is named path",
        "columns: n is written as int",
        "columns: the stream has no column gone",
    ] {
        assert!(plan.notes.contains(&note.to_owned()), "{note}: {:?}", plan.notes);
    }
}
