//! The action `replay`: writes letters to their stream's table once the cause is gone.
//!
//! The rows and the set of what was replayed change in one commit that asserts the table's head, so that each letter gets in
//! once, however often it is asked for and whatever became of an earlier answer. The stream's offset is not touched: to a task that
//! runs meanwhile it is a commit of somebody else.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use philotes_sdk::{ActionOutput, Error, Result, StreamName, TaskContext};
use serde::Deserialize;

use super::letter::{self, Origin};
use super::ranges::Ranges;
use super::read::{self, Stored};
use crate::catalog::{self, Catalog};
use crate::config::{Config, Mode};
use crate::table::{Incoming, Settings, Table};
use crate::template::Template;

pub(crate) const REPLAY: &str = "replay";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    stream: String,
    sequence: Option<String>,
}

/// Does `replay`.
pub(crate) async fn replay(
    config: &Config,
    context: &TaskContext,
    arguments: serde_json::Value,
) -> Result<ActionOutput> {
    let Some(catalog) = catalog::open_existing(config).await? else {
        return Err(Error::config("catalog.uri: no catalog is there yet, so that there are no dead letters either"));
    };
    replay_in(config, context, catalog, arguments).await
}

/// Does it in this catalog.
pub(crate) async fn replay_in(
    config: &Config,
    context: &TaskContext,
    catalog: Arc<dyn Catalog>,
    arguments: serde_json::Value,
) -> Result<ActionOutput> {
    let arguments: Arguments =
        serde_json::from_value(arguments).map_err(|e| Error::config("arguments of replay").with_source(e))?;
    if config.mode == Mode::Upsert {
        return Err(Error::config(
            "replay: in mode upsert a letter may be older than what the table holds of its key, or than its deletion; bring the row \
             itself again, by an UPDATE at the source that changes nothing. Allowed is replay in mode append",
        ));
    }
    let stream: StreamName = arguments.stream.parse()?;
    let wanted: Option<Ranges> = match &arguments.sequence {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|()| Error::config(format!("sequence={text}: allowed are numbers, as in 7 or 3-9")))?,
        ),
    };
    let name = Template::parse(&config.table).map_err(|e| Error::config(format!("table: {e}")))?.table(&stream)?;
    let settings = Arc::new(Settings::new(config, context.clone(), catalog)?);
    let mut table = Table::new(name.clone(), settings.clone());
    // Takes over the connector's intent, as every load of a task does.
    table.announce(&[]).await?;
    let Some(uuid) = table.base.as_ref().map(|base| base.metadata.uuid().to_string()) else {
        return Err(Error::config(format!("table {name} does not exist, so that nothing can be replayed into it")));
    };
    let connector = settings.connector();
    let letters =
        read::letters(settings.catalog.as_ref(), &settings.dead_letters, connector, Some(&stream.to_string()), true)
            .await?;
    let done = table.replayed()?;
    let due: Vec<Stored> = letters
        .into_iter()
        .filter(|letter| letter.table_uuid == uuid && !done.contains(letter.sequence))
        .filter(|letter| wanted.as_ref().is_none_or(|wanted| wanted.contains(letter.sequence)))
        .collect();
    let outcome = write(&mut table, &stream, &due).await;
    // What was not committed is nobody's.
    table.abandon().await;
    let columns = ["sequence", "position", "replayed"].map(str::to_owned).to_vec();
    Ok(ActionOutput::Rows { columns, rows: outcome? })
}

/// Writes what can be written, and says of each letter what became of it.
async fn write(table: &mut Table, stream: &StreamName, due: &[Stored]) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    let mut said = |letter: &Stored, what: String| {
        rows.push(vec![letter.sequence.to_string(), letter.position.clone(), what]);
    };
    // Letters with one schema go together.
    let mut groups: Vec<(RecordBatch, Vec<&Stored>)> = Vec::new();
    for letter in due {
        let row = match &letter.arrow {
            // As the connector has columns now: what was dropped or renamed since then too.
            Some(bytes) => letter::from_ipc(bytes).and_then(|row| table.shaped(stream, &row)),
            None if letter.origin == Origin::Source.name() => Err(Error::data(
                "the source could not make a row of it; correct the record and insert it at the source again",
            )),
            None => Err(Error::data("its column `arrow` is NULL")),
        };
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                said(letter, format!("no: {error}"));
                continue;
            }
        };
        match groups.iter_mut().find(|(rows, _)| rows.schema() == row.schema()) {
            Some((rows, letters)) => {
                *rows = concat_batches(&row.schema(), [&*rows, &row])
                    .map_err(|e| Error::internal("letters do not go together").with_source(e))?;
                letters.push(letter);
            }
            None => groups.push((row, vec![letter])),
        }
    }
    let mut written = Vec::new();
    for (schema_id, (rows, letters)) in (0..).zip(&groups) {
        let sifted = table.sift(&Incoming { stream, schema_id, rows, late: true, key: None }).await?;
        let mut good: Vec<u64> = letters.iter().map(|letter| letter.sequence).collect();
        for (row, error) in sifted.bad.iter().rev() {
            good.remove(*row);
            said(letters[*row], format!("no: {error}"));
        }
        if let Some(rows) = &sifted.good {
            table.take_in(rows).await?;
        }
        written.extend(good);
    }
    if !written.is_empty() {
        table.commit_replay(written.iter().copied().collect()).await?;
        for letter in due.iter().filter(|letter| written.contains(&letter.sequence)) {
            said(letter, "yes".to_owned());
        }
    }
    rows.sort_by_key(|row| row[0].parse::<u64>().unwrap_or(0));
    Ok(rows)
}
