//! What a test does to a store that it reaches only as a plugin's: the source's and the sink's actions.
//!
//! A library that was loaded has stores of its own, apart from those of the process that loaded it.

use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

use super::MemoryStore;
use crate::{Action, ActionArgument, ActionOutput, Error, Result, StreamName, StreamPartition};

/// Every argument is text, as the command line gives it.
pub(super) fn actions() -> Vec<Action> {
    let action = |name: &str, doc: &str, arguments: &[&str]| Action {
        name: name.to_owned(),
        doc: doc.to_owned(),
        arguments: arguments
            .iter()
            .map(|name| ActionArgument {
                name: (*name).to_owned(),
                doc: "See its name.".into(),
                required: true,
                exclusive: false,
            })
            .collect(),
    };
    vec![
        action("put", "Puts rows numbered from..to into a stream.", &["stream", "partitions", "from", "to"]),
        action("add-column", "Rows of a stream have one more column from now on.", &["stream"]),
        action("unacknowledged", "How many rows no acknowledgement has covered.", &[]),
        action("rows", "What was written to a stream's table.", &["stream"]),
        action(
            "offset",
            "The offset that was written with it; none is no text.",
            &["connector", "stream", "partition"],
        ),
        action("outage", "Puts the store out of reach (true) or back (false).", &["out_of_reach"]),
    ]
}

pub(super) fn act(store: &Arc<MemoryStore>, action: &str, arguments: &Value) -> Result<ActionOutput> {
    let text = |name: &str| {
        arguments[name].as_str().ok_or_else(|| Error::config(format!("{action}: the argument {name} is missing")))
    };
    let number = |name: &str| -> Result<i64> {
        text(name)?.parse().map_err(|_| Error::config(format!("{action}: {name} must be a number")))
    };
    let stream = || StreamName::new(text("stream")?.split('.'));
    Ok(match action {
        "put" => {
            let partitions = u32::try_from(number("partitions")?).unwrap_or(1);
            store.put(&stream()?, partitions, number("from")?..number("to")?);
            ActionOutput::Text(String::new())
        }
        "add-column" => {
            store.add_column(&stream()?);
            ActionOutput::Text(String::new())
        }
        "unacknowledged" => ActionOutput::Text(store.unacknowledged().to_string()),
        "rows" => rows(store, &stream()?)?,
        "offset" => {
            let at = StreamPartition { stream: stream()?, partition: text("partition")?.to_owned() };
            let offset = store.offset(text("connector")?, &at);
            ActionOutput::Text(offset.map(|offset| offset.as_str().to_owned()).unwrap_or_default())
        }
        "outage" => {
            store.set_out_of_reach(text("out_of_reach")? == "true");
            ActionOutput::Text(String::new())
        }
        _ => return Err(Error::config(format!("no action {action:?}"))),
    })
}

/// One cell per row: a JSON object of what its columns print, so that batches of different schemas fit and a null is none.
fn rows(store: &Arc<MemoryStore>, stream: &StreamName) -> Result<ActionOutput> {
    let wrong = |e| Error::internal("a row does not print").with_source(e);
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for batch in store.table(stream) {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let mut cells = Map::new();
            for (field, column) in
                schema.fields().iter().zip(batch.columns()).filter(|(_, column)| column.is_valid(row))
            {
                let value = ArrayFormatter::try_new(column, &options).map_err(wrong)?.value(row).to_string();
                cells.insert(field.name().clone(), value.into());
            }
            rows.push(vec![Value::Object(cells).to_string()]);
        }
    }
    Ok(ActionOutput::Rows { columns: vec!["row".into()], rows })
}
