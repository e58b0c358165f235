//! The action `offsets`: shows how far a connector has come in each table, and sets that right by hand.
//!
//! Setting and forgetting an offset commit an empty snapshot: it moves the head of the table, so that a task that is
//! running is fenced and takes the new offset up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::TableIdent;
use philotes_sdk::{
    Action, ActionArgument, ActionOutput, Error, Offset, Result, StreamName, StreamPartition, TaskContext,
};
use serde::Deserialize;

use crate::base::Base;
use crate::catalog::{self, Catalog};
use crate::config::Config;
use crate::lineage;
use crate::snapshot::{self, Changes};
use crate::table;
use crate::template::Template;
use crate::token;

pub(crate) const OFFSETS: &str = "offsets";

/// What the sink offers.
pub(crate) fn list() -> Vec<Action> {
    let argument = |name: &str, doc: &str| ActionArgument { name: name.into(), doc: doc.into(), required: false };
    vec![Action {
        name: OFFSETS.into(),
        doc: "Shows the offset that each table holds for each stream of the connector; with offset= or reset= changes one, \
              which makes a running task start over from it."
            .into(),
        arguments: vec![
            argument("stream", "Only this stream, as in public.orders; required to change an offset."),
            argument("partition", "The stream's partition; 0 by default."),
            argument("offset", "Set the offset to this JSON: the source goes on after it. Rows may be lost or doubled."),
            argument("reset", "true: forget the offset, so that the source begins anew."),
        ],
    }]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    stream: Option<String>,
    partition: Option<String>,
    offset: Option<String>,
    #[serde(default)]
    reset: Reset,
}

/// The command line gives texts.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Reset {
    #[default]
    No,
    Bool(bool),
    Text(String),
}

/// Does the action.
pub(crate) async fn offsets(
    config: &Config,
    context: &TaskContext,
    arguments: serde_json::Value,
) -> Result<ActionOutput> {
    let arguments: Arguments =
        serde_json::from_value(arguments).map_err(|e| Error::config("arguments of offsets").with_source(e))?;
    let template = Template::parse(&config.table).map_err(|e| Error::config(format!("table: {e}")))?;
    let stream: Option<StreamName> = arguments.stream.as_deref().map(str::parse).transpose()?;
    let reset = match arguments.reset {
        Reset::No | Reset::Bool(false) => false,
        Reset::Bool(true) => true,
        Reset::Text(text) => {
            text.parse().map_err(|_| Error::config(format!("reset={text}: allowed are true and false")))?
        }
    };
    let change = match (arguments.offset, reset) {
        (None, false) => None,
        (Some(_), true) => return Err(Error::config("offset= and reset=true: only one of them is allowed")),
        (None, true) => Some(None),
        (Some(offset), false) => {
            Some(Some(Offset::new(offset).map_err(|e| Error::config("offset=: not an offset").with_source(e))?))
        }
    };
    let Some(catalog) = catalog::open_existing(config).await? else {
        return Err(Error::config("catalog.uri: no catalog is there yet, so that there are no offsets either"));
    };
    let connector = &context.info().connector;
    match (change, stream) {
        (None, stream) => show(catalog, &template, connector, stream).await,
        (Some(_), None) => Err(Error::config("stream= is required to change an offset")),
        (Some(offset), Some(stream)) => {
            let at = StreamPartition { stream, partition: arguments.partition.unwrap_or_else(|| "0".into()) };
            let table = template.table(&at.stream)?;
            change_offset(catalog, &table, connector, at, offset).await
        }
    }
}

async fn show(
    catalog: Arc<dyn Catalog>,
    template: &Template,
    connector: &str,
    stream: Option<StreamName>,
) -> Result<ActionOutput> {
    let tables = match (&stream, template.namespace()) {
        (Some(stream), _) => vec![template.table(stream)?],
        (None, Some(namespace)) => catalog.list_tables(&namespace).await?,
        (None, None) => {
            let mut tables = Vec::new();
            for namespace in catalog.list_namespaces().await? {
                tables.extend(catalog.list_tables(&namespace).await?);
            }
            tables
        }
    };
    let mut rows = Vec::new();
    for table in tables {
        let metadata = catalog.load_table(&table).await?.metadata;
        for (at, token) in token::read_all(&metadata, connector)? {
            if stream.as_ref().is_some_and(|wanted| *wanted != at.stream) {
                continue;
            }
            let state = lineage::check(&metadata, &token).err().unwrap_or_else(|| "ok".into());
            rows.push(vec![
                table.to_string(),
                at.stream.to_string(),
                at.partition,
                token.offset.as_str().to_owned(),
                token.snapshot_id.to_string(),
                state,
            ]);
        }
    }
    let columns = ["table", "stream", "partition", "offset", "snapshot", "state"].map(str::to_owned).to_vec();
    Ok(ActionOutput::Rows { columns, rows })
}

async fn change_offset(
    catalog: Arc<dyn Catalog>,
    table: &TableIdent,
    connector: &str,
    at: StreamPartition,
    offset: Option<Offset>,
) -> Result<ActionOutput> {
    let loaded = catalog.load_table(table).await?;
    table::check_format(table, &loaded.metadata)?;
    let before = loaded.metadata.properties().get(&token::property(connector, &at)).cloned();
    if offset.is_none() && before.is_none() {
        return Ok(ActionOutput::Text(format!("table {table} holds no offset of {at}: nothing to forget")));
    }
    let done = match &offset {
        Some(offset) => format!("table {table}: the offset of {at} is {} now", offset.as_str()),
        None => format!("table {table}: the offset of {at} is forgotten"),
    };
    let offsets = BTreeMap::from([(at, offset)]);
    let changes = Changes { connector, files: &[], offsets: &offsets, properties: &HashMap::new(), retention: None };
    let (request, attempt) = snapshot::propose(&mut Base::new(loaded), changes).await?;
    match catalog.commit_table(table, request).await {
        Ok(loaded) if attempt.succeeded_in(&loaded.metadata, connector)? => {}
        Err(error) if !error.calls_for_a_look() => return Err(error.into()),
        outcome => {
            let now = catalog.load_table(table).await?.metadata;
            if !attempt.succeeded_in(&now, connector)? {
                let changed = Error::unavailable(format!(
                    "table {table} was changed meanwhile and the offset is as it was; stop the connector or try again"
                ));
                return Err(match outcome {
                    Err(error) => changed.with_source(error),
                    Ok(_) => changed,
                });
            }
        }
    }
    Ok(ActionOutput::Text(format!(
        "{done} (snapshot {}; it was {})",
        attempt.snapshot_id,
        before.as_deref().unwrap_or("unset")
    )))
}
