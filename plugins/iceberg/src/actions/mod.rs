//! What the sink offers beside moving data.

mod expiries;
mod names;
mod offsets;
pub(crate) mod orphans;

use iceberg::TableIdent;
use philotes_sdk::{Action, ActionArgument, ActionOutput, Error, Result, TaskContext};
use serde::Deserialize;

use crate::catalog::{Catalog, CommitRequest};
use crate::config::Config;
use crate::dead_letters;
use crate::fence;
use crate::snapshot::Attempt;
use crate::template::Template;

/// What there is.
pub(crate) fn list() -> Vec<Action> {
    [vec![offsets::action(), orphans::action(), expiries::action()], dead_letters::list()].concat()
}

/// Does one of them.
pub(crate) async fn act(
    config: &Config,
    context: &TaskContext,
    action: &str,
    arguments: serde_json::Value,
) -> Result<ActionOutput> {
    match action {
        offsets::NAME => offsets::offsets(config, context, arguments).await,
        expiries::NAME => expiries::expiries(config, context, arguments).await,
        orphans::NAME => orphans::orphans(config, context, arguments).await,
        dead_letters::DEAD_LETTERS => dead_letters::show(config, context, arguments).await,
        dead_letters::REPLAY => dead_letters::replay(config, context, arguments).await,
        other => {
            let known: Vec<String> = list().into_iter().map(|action| action.name).collect();
            Err(Error::config(format!("no action {other:?}; allowed: {}", known.join(", "))))
        }
    }
}

fn argument(name: &str, doc: &str) -> ActionArgument {
    ActionArgument { name: name.into(), doc: doc.into(), required: false, exclusive: false }
}

/// Yes or no. The command line gives texts.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Switch {
    #[default]
    Off,
    Bool(bool),
    Text(String),
}

impl Switch {
    fn on(self, name: &str) -> Result<bool> {
        match self {
            Self::Off => Ok(false),
            Self::Bool(on) => Ok(on),
            Self::Text(text) => {
                text.parse().map_err(|_| Error::config(format!("{name}={text}: allowed are true and false")))
            }
        }
    }
}

/// The tables that the connector can have written to: all in the namespaces that its template reaches.
async fn tables(catalog: &dyn Catalog, template: &Template) -> Result<Vec<TableIdent>> {
    let namespaces = match template.namespace() {
        Some(namespace) => vec![namespace],
        None => catalog.list_namespaces().await?,
    };
    let mut tables = Vec::new();
    for namespace in namespaces {
        tables.extend(catalog.list_tables(&namespace).await?);
    }
    Ok(tables)
}

/// Sends a commit that moves no rows, and looks what became of it where that is not said. `None` where it is part of the table;
/// else why it is not.
async fn commit(
    catalog: &dyn Catalog,
    table: &TableIdent,
    request: CommitRequest,
    attempt: &Attempt,
    connector: &str,
) -> Result<Option<Error>> {
    let id = request.id;
    let outcome = match catalog.commit_table(table, request).await {
        Ok(loaded) if attempt.succeeded_in(&loaded.metadata, connector)? => return Ok(None),
        Err(error) if !error.calls_for_a_look() => return Err(error.into()),
        outcome => outcome,
    };
    let now = catalog.load_table(table).await?.metadata;
    if attempt.succeeded_in(&now, connector)? || fence::is_set(&now, id) {
        return Ok(None);
    }
    let missing = Error::unavailable("the catalog's answer does not show the commit");
    Ok(Some(outcome.map_or_else(Error::from, |_| missing)))
}
