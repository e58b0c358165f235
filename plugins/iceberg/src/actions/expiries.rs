//! The action `expiries`: what expiries have left to be decided, and the decision that files may go.

use iceberg::{TableIdent, TableRequirement, TableUpdate};
use philotes_sdk::{Action, ActionOutput, Error, Result, TaskContext};
use serde::Deserialize;
use uuid::Uuid;

use super::argument;
use crate::catalog::{self, Catalog, CatalogErrorKind, CommitRequest};
use crate::config::Config;
use crate::expire::{self, Verdict};
use crate::template::Template;

pub(super) const NAME: &str = "expiries";

/// What it is and takes.
pub(super) fn action() -> Action {
    Action {
        name: NAME.into(),
        doc: "Lists expiries of snapshots that have come upon a tag, a branch or gc.enabled=false set at the same moment, so that their \
              files are kept; with release=ID says that the files may go."
            .into(),
        arguments: vec![
            argument("table", "Only this table, as in cdc.public_orders."),
            argument("release", "The expiry whose files are not wanted any more; the action orphans removes them. Needs table."),
        ],
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    table: Option<String>,
    release: Option<String>,
}

/// Does the action.
pub(super) async fn expiries(
    config: &Config,
    _context: &TaskContext,
    arguments: serde_json::Value,
) -> Result<ActionOutput> {
    let Arguments { table, release } =
        serde_json::from_value(arguments).map_err(|e| Error::config("arguments of expiries").with_source(e))?;
    let template = Template::parse(&config.table).map_err(|e| Error::config(format!("table: {e}")))?;
    let Some(catalog) = catalog::open_existing(config).await? else {
        return Err(Error::config("catalog.uri: no catalog is there yet"));
    };
    let named = |text: &String| {
        TableIdent::from_strs(text.split('.')).map_err(|e| {
            Error::config(format!("table={text}: no table's name, as in cdc.public_orders")).with_source(e)
        })
    };
    let table = table.as_ref().map(named).transpose()?;
    match (table, release) {
        (Some(table), Some(id)) => let_go(catalog.as_ref(), &table, &id).await,
        (None, Some(_)) => Err(Error::config("release=: table= says in which table")),
        (Some(table), None) => shown(catalog.as_ref(), vec![table]).await,
        (None, None) => {
            let mut tables = super::tables(catalog.as_ref(), &template).await?;
            let letters = config.dead_letters_table().map_err(Error::config)?;
            if !tables.contains(&letters) {
                tables.push(letters);
            }
            shown(catalog.as_ref(), tables).await
        }
    }
}

async fn shown(catalog: &dyn Catalog, tables: Vec<TableIdent>) -> Result<ActionOutput> {
    let mut rows = Vec::new();
    for table in tables {
        let loaded = match catalog.load_table(&table).await {
            Ok(loaded) => loaded,
            Err(error) if error.kind() == CatalogErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        for found in expire::found(&loaded).await? {
            let state = match &found.verdict {
                Verdict::Harmless(_) => "its files go with the next expiry, or as orphans",
                Verdict::Forbidden { .. } | Verdict::Unseen(_) => "waits for somebody",
            };
            rows.push(vec![table.to_string(), found.id().to_owned(), state.to_owned(), found.to_string()]);
        }
    }
    rows.sort();
    let columns = ["table", "expiry", "state", "what happened"].map(str::to_owned).to_vec();
    Ok(ActionOutput::Rows { columns, rows })
}

/// Clears a record, by somebody's word.
async fn let_go(catalog: &dyn Catalog, table: &TableIdent, id: &str) -> Result<ActionOutput> {
    let loaded = catalog.load_table(table).await?;
    let Some(found) = expire::found(&loaded).await?.into_iter().find(|found| found.id() == id) else {
        return Err(Error::config(format!(
            "release={id}: table {table} has no such expiry; without release= they are listed"
        )));
    };
    let request = CommitRequest {
        id: Uuid::new_v4(),
        requirements: vec![TableRequirement::UuidMatch { uuid: loaded.metadata.uuid() }],
        updates: vec![TableUpdate::RemoveProperties { removals: vec![found.name.clone()] }],
        planned_on: None,
    };
    if let Err(error) = catalog.commit_table(table, request).await {
        let now = catalog.load_table(table).await?;
        if now.metadata.properties().contains_key(&found.name) {
            return Err(error.into());
        }
    }
    Ok(ActionOutput::Text(format!(
        "table {table}: expiry {id} is decided: what nothing reaches is an orphan now, which the action orphans lists and removes"
    )))
}
