//! The streams that would be delivered, for `philotes plan`: reads a sample, claims and acknowledges nothing.

use std::pin::pin;

use futures::StreamExt;
use philotes_sdk::{ErrorKind, Result, StreamDescription, StreamName, StreamPartition, TaskContext};
use tokio_postgres::Client;

use crate::claim;
use crate::config::Settings;
use crate::connect::{Connector, failed};
use crate::copy::Rows;
use crate::decode::{Appended, StreamDecoder};
use crate::describe::Catalog;
use crate::sql::literal;

/// Rows per stream.
const SAMPLE: u64 = 1_000;

/// Every wanted stream with unprocessed rows, by name.
pub(crate) async fn streams(settings: Settings, context: &TaskContext) -> Result<Vec<StreamDescription>> {
    let failed_here = |e| failed("cannot sample the buffer", e);
    let role = format!("philotes {} plan", context.info().connector);
    let session_settings = "SET default_transaction_read_only = on; SET statement_timeout = '10min'; SET jit = off";
    let connector = Connector::new("dsn", &settings.config.dsn, &settings.config)?;
    let client = connector.open(&role, session_settings).await?.spawn(|_| {});
    claim::inspect(&client).await?;
    let catalog = Catalog::new(&settings.config, false)?;
    let names = client
        .query(
            "SELECT DISTINCT schema_name, table_name FROM philotes.cdc_events \
             WHERE source_id = $1 AND processed_at IS NULL ORDER BY 1, 2",
            &[&settings.config.source_id],
        )
        .await
        .map_err(failed_here)?;
    if names.is_empty() {
        say_why_none(&client, &settings.config.source_id).await.map_err(failed_here)?;
    }
    let tolerance = context.info().tolerance;
    let mut described = Vec::new();
    for name in names {
        let (schema, table): (String, String) = (name.get(0), name.get(1));
        let stream = StreamName::new([&*schema, &*table])?;
        if !context.info().route.wants(&stream) {
            continue;
        }
        let mut decoder = StreamDecoder::new(stream.clone(), catalog.is_some(), settings.columns.of(&stream))
            .identified_by(settings.keys.of(&stream));
        let statement = format!(
            "COPY (SELECT id, NULL::int2, schema_name, table_name, operation, lsn, event_time, created_at, key_columns, before_data, \
             after_data, metadata FROM philotes.cdc_events WHERE source_id = {} AND processed_at IS NULL AND schema_name = {} \
             AND table_name = {} ORDER BY id LIMIT {SAMPLE}) TO STDOUT (FORMAT binary)",
            literal(&settings.config.source_id),
            literal(&schema),
            literal(&table)
        );
        let mut copy = pin!(client.copy_out(&statement).await.map_err(failed_here)?);
        let (mut rows, mut sampled) = (Rows::default(), 0);
        while let Some(message) = copy.next().await {
            rows.feed(message.map_err(failed_here)?);
            while let Some(row) = rows.next()? {
                sampled += 1;
                loop {
                    let appended = match decoder.append(&row) {
                        // It would become a dead letter.
                        Err(error) if error.kind() == ErrorKind::Data && tolerance.dead_letters() => {
                            decoder.close()?;
                            break;
                        }
                        appended => appended?,
                    };
                    match appended {
                        Appended::Done => break,
                        Appended::CloseFirst => drop(decoder.close()?),
                        Appended::TypesWanted => {
                            decoder.close()?;
                            let Some(catalog) = &catalog else { break };
                            decoder.tell(&catalog.columns(&schema, &table).await?)?;
                        }
                    }
                }
            }
        }
        described.push(StreamDescription {
            at: StreamPartition::only(stream),
            schema: decoder.schema().0,
            sampled_rows: decoder.inferred().then_some(sampled),
        });
    }
    Ok(described)
}

/// Says which rows wait, where none of this source_id does: it may be another one than was meant.
async fn say_why_none(client: &Client, source_id: &str) -> Result<(), tokio_postgres::Error> {
    // One look into the index for each source_id, however many rows it has.
    let rows = client
        .query(
            "WITH RECURSIVE s(id) AS (SELECT min(source_id) FROM philotes.cdc_events WHERE processed_at IS NULL UNION ALL \
             SELECT (SELECT min(e.source_id) FROM philotes.cdc_events e WHERE e.processed_at IS NULL AND e.source_id > s.id) \
             FROM s WHERE s.id IS NOT NULL) SELECT id FROM s WHERE id IS NOT NULL LIMIT 10",
            &[],
        )
        .await?;
    let others: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    tracing::warn!(
        source_id,
        others = others.join(", "),
        "no row of this source_id waits in the buffer: all are processed, nothing was captured, or it is one of the others"
    );
    Ok(())
}
