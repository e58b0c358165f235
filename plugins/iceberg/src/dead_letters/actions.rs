//! The action `dead_letters`: shows what could not be written, and whether it was replayed.

use std::collections::HashMap;

use philotes_sdk::{Action, ActionArgument, ActionOutput, Error, Result, StreamName, TaskContext};
use serde::Deserialize;

use super::letter::Origin;
use super::ranges::Ranges;
use super::read;
use super::replay::REPLAY;
use crate::catalog::{self, Catalog, CatalogErrorKind};
use crate::config::Config;
use crate::template::Template;

pub(crate) const DEAD_LETTERS: &str = "dead_letters";
/// Letters that are shown where nobody says how many.
const LIMIT: usize = 100;

/// What the sink offers for dead letters.
pub(crate) fn list() -> Vec<Action> {
    let argument = |name: &str, doc: &str, required| ActionArgument {
        name: name.into(),
        doc: doc.into(),
        required,
        exclusive: false,
    };
    vec![
        Action {
            name: DEAD_LETTERS.into(),
            doc: "Shows the records that could not be written, why, and whether they were replayed.".into(),
            arguments: vec![
                argument("stream", "Only this stream, as in public.orders.", false),
                argument("limit", "The last so many of each stream; 100 by default.", false),
            ],
        },
        Action {
            name: REPLAY.into(),
            doc: "Writes dead letters of a stream to its table once their cause is gone, each once, however often it is asked; \
                  the connector may run meanwhile."
                .into(),
            arguments: vec![
                argument("stream", "The stream, as in public.orders.", true),
                argument("sequence", "Only these numbers, as in 7 or 3-9; without it all that were not replayed yet.", false),
            ],
        },
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    stream: Option<String>,
    limit: Option<String>,
}

/// Does `dead_letters`.
pub(crate) async fn show(config: &Config, context: &TaskContext, arguments: serde_json::Value) -> Result<ActionOutput> {
    let arguments: Arguments =
        serde_json::from_value(arguments).map_err(|e| Error::config("arguments of dead_letters").with_source(e))?;
    let stream: Option<StreamName> = arguments.stream.as_deref().map(str::parse).transpose()?;
    let limit = match &arguments.limit {
        None => LIMIT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or_else(|| Error::config(format!("limit={text}: allowed is a whole number from 1 on")))?,
    };
    let columns = ["table", "stream", "partition", "sequence", "position", "kind", "message", "replayed", "record"];
    let columns = columns.map(str::to_owned).to_vec();
    let Some(catalog) = catalog::open_existing(config).await? else {
        return Ok(ActionOutput::Rows { columns, rows: Vec::new() });
    };
    let (name, connector) = (config.dead_letters_table().map_err(Error::config)?, &context.info().connector);
    let stream = stream.map(|stream| stream.to_string());
    let letters = read::letters(catalog.as_ref(), &name, connector, stream.as_deref(), false).await?;
    let template = Template::parse(&config.table).map_err(|e| Error::config(format!("table: {e}")))?;
    let mut replayed: HashMap<String, Option<Ranges>> = HashMap::new();
    let mut rows = Vec::new();
    for of_stream in letters.chunk_by(|one, other| one.stream == other.stream) {
        for letter in &of_stream[of_stream.len().saturating_sub(limit)..] {
            let uuid = &letter.table_uuid;
            if !replayed.contains_key(uuid) {
                let ranges = ranges_of(catalog.as_ref(), connector, &template, &letter.stream, uuid).await?;
                replayed.insert(uuid.clone(), ranges);
            }
            let state = match &replayed[uuid] {
                _ if letter.origin == Origin::Source.name() => "insert it again",
                None => "its table is gone",
                Some(ranges) if ranges.contains(letter.sequence) => "yes",
                Some(_) => "no",
            };
            rows.push(vec![
                letter.table.clone(),
                letter.stream.clone(),
                letter.partition.clone(),
                letter.sequence.to_string(),
                letter.position.clone(),
                letter.kind.clone(),
                letter.message.clone(),
                state.to_owned(),
                letter.record.clone(),
            ]);
        }
    }
    Ok(ActionOutput::Rows { columns, rows })
}

/// What was replayed into a stream's table; `None` where that is gone or another one.
async fn ranges_of(
    catalog: &dyn Catalog,
    connector: &str,
    template: &Template,
    stream: &str,
    uuid: &str,
) -> Result<Option<Ranges>> {
    let name = template.table(&stream.parse()?)?;
    match catalog.load_table(&name).await {
        Ok(loaded) if loaded.metadata.uuid().to_string() == uuid => {
            Ranges::replayed(&loaded.metadata, connector).map(Some)
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == CatalogErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
