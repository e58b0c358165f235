//! The action `offsets`: shows how far a connector has come in each table, and sets that right by hand.
//!
//! Setting and forgetting an offset want the connector to be stopped, which the host sees to. They commit an empty snapshot: it
//! moves the head of the table, so that a task that runs all the same is fenced and takes the new offset up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::TableIdent;
use philotes_sdk::{
    Action, ActionArgument, ActionOutput, Error, Offset, Result, StreamName, StreamPartition, TaskContext,
};
use serde::Deserialize;

use super::{Switch, argument};
use crate::base::Base;
use crate::catalog::{self, Catalog};
use crate::config::Config;
use crate::lineage;
use crate::snapshot::{self, Changes};
use crate::table;
use crate::template::Template;
use crate::token;

pub(super) const NAME: &str = "offsets";

/// What it is and takes.
pub(super) fn action() -> Action {
    let exclusive = |name, doc| ActionArgument { exclusive: true, ..argument(name, doc) };
    Action {
        name: NAME.into(),
        doc: "Shows the offset that each table holds for each stream of the connector; with offset= or reset= changes one, while \
              the connector is stopped."
            .into(),
        arguments: vec![
            argument("stream", "Only this stream, as in public.orders; required to change an offset."),
            argument("partition", "The stream's partition; 0 by default."),
            exclusive("offset", "Set the offset to this JSON: the source goes on after it. Rows may be lost or doubled."),
            exclusive("reset", "true: forget the offset, so that the source begins anew."),
        ],
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    stream: Option<String>,
    partition: Option<String>,
    offset: Option<String>,
    #[serde(default)]
    reset: Switch,
}

/// Does the action.
pub(super) async fn offsets(
    config: &Config,
    context: &TaskContext,
    arguments: serde_json::Value,
) -> Result<ActionOutput> {
    let arguments: Arguments =
        serde_json::from_value(arguments).map_err(|e| Error::config("arguments of offsets").with_source(e))?;
    let template = Template::parse(&config.table).map_err(|e| Error::config(format!("table: {e}")))?;
    let stream: Option<StreamName> = arguments.stream.as_deref().map(str::parse).transpose()?;
    let reset = arguments.reset.on("reset")?;
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
    let tables = match &stream {
        Some(stream) => vec![template.table(stream)?],
        None => super::tables(catalog.as_ref(), template).await?,
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
    let changes =
        Changes { connector, files: &[], empties: false, offsets: &offsets, properties: &HashMap::new(), forget: &[] };
    let (request, attempt) = snapshot::propose(&mut Base::new(loaded), changes).await?;
    if let Some(reason) = super::commit(catalog.as_ref(), table, request, &attempt, connector).await? {
        let changed = format!("table {table} was changed meanwhile and the offset is as it was; try again");
        return Err(Error::unavailable(changed).with_source(reason));
    }
    Ok(ActionOutput::Text(format!(
        "{done} (snapshot {}; it was {})",
        attempt.snapshot_id,
        before.as_deref().unwrap_or("unset")
    )))
}
