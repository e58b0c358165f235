//! What the source does beside moving data: prepare the buffer, capture tables, let go of a source_id, say how things are.

use philotes_sdk::{Action, ActionArgument, ActionOutput, Error, Result};
use tokio_postgres::Client;

use crate::config::Settings;
use crate::connect::failed;
use crate::sql;

pub(crate) fn list() -> Vec<Action> {
    let action = |name: &str, doc: &str, arguments: Vec<ActionArgument>| Action {
        name: name.to_owned(),
        doc: doc.to_owned(),
        arguments,
    };
    vec![
        action(
            "init",
            "Creates the buffer table and what Connect keeps beside it, or what is missing of it.",
            Vec::new(),
        ),
        action(
            "capture",
            "Installs triggers that write every change of a table to the buffer.",
            vec![
                ActionArgument {
                    name: "table".to_owned(),
                    doc: "The tables as schema.table, separated by commas.".to_owned(),
                    required: true,
                    exclusive: false,
                },
                ActionArgument {
                    name: "comments".to_owned(),
                    doc: "true: each row of the buffer carries the comments of the table's columns as well.".to_owned(),
                    required: false,
                    exclusive: false,
                },
            ],
        ),
        action(
            "release",
            "Lets go of the source_id, so that a connector of another name can take it; stops the task that has it.",
            Vec::new(),
        ),
        action("status", "Says per stream what waits in the buffer and how far it is acknowledged.", Vec::new()),
    ]
}

pub(crate) async fn act(
    client: &Client,
    settings: &Settings,
    action: &str,
    arguments: &serde_json::Value,
) -> Result<ActionOutput> {
    let source_id = &settings.config.source_id;
    match action {
        "init" => init(client).await,
        "capture" => {
            let comments = match arguments["comments"].as_str() {
                None | Some("false") => false,
                Some("true") => true,
                Some(other) => return Err(Error::config(format!("comments: {other:?}; allowed are true and false"))),
            };
            capture(client, source_id, arguments["table"].as_str().unwrap_or_default(), comments).await
        }
        "release" => release(client, source_id).await,
        "status" => status(client, source_id).await,
        _ => Err(Error::config(format!("no action {action:?}; there are init, capture, release, status"))),
    }
}

/// What `init` makes, and how to see that it is there.
const PARTS: &[(&str, &str)] = &[
    ("table philotes.cdc_events", "to_regclass('philotes.cdc_events') IS NOT NULL"),
    (
        "index on (source_id, id) of unprocessed rows",
        "to_regclass('philotes.cdc_events_unprocessed_id_idx') IS NOT NULL",
    ),
    (
        "index on (source_id, created_at) of unprocessed rows",
        "to_regclass('philotes.cdc_events_unprocessed_idx') IS NOT NULL",
    ),
    ("index on (processed_at) of processed rows", "to_regclass('philotes.cdc_events_processed_idx') IS NOT NULL"),
    (
        "trigger on TRUNCATE of the buffer",
        "EXISTS (SELECT FROM pg_trigger WHERE tgname = 'philotes_buffer_truncated' AND tgrelid = to_regclass('philotes.cdc_events'))",
    ),
    ("table philotes.buffer", "to_regclass('philotes.buffer') IS NOT NULL"),
    ("table philotes.connectors", "to_regclass('philotes.connectors') IS NOT NULL"),
    ("table philotes.acknowledged", "to_regclass('philotes.acknowledged') IS NOT NULL"),
    ("table philotes.batches", "to_regclass('philotes.batches') IS NOT NULL"),
];

async fn init(client: &Client) -> Result<ActionOutput> {
    let there = parts(client).await?;
    client.batch_execute(sql::INIT).await.map_err(|e| failed("init", e))?;
    let now = parts(client).await?;
    let rows = PARTS
        .iter()
        .zip(there.into_iter().zip(now))
        .map(|((part, _), (before, after))| {
            let state = match (before, after) {
                (true, _) => "was there",
                (false, true) => "created",
                (false, false) => "missing",
            };
            vec![(*part).to_owned(), state.to_owned()]
        })
        .collect();
    Ok(ActionOutput::Rows { columns: vec!["part".to_owned(), "state".to_owned()], rows })
}

async fn parts(client: &Client) -> Result<Vec<bool>> {
    let query = format!("SELECT {}", PARTS.iter().map(|(_, test)| *test).collect::<Vec<_>>().join(", "));
    let row = client.query_one(&query, &[]).await.map_err(|e| failed("init", e))?;
    Ok((0..PARTS.len()).map(|at| row.get(at)).collect())
}

/// What the triggers do not see, and what they cost; docs/CONNECTORS.md says more.
const CAPTURED: &str = "not captured: rows that were there before; changes while triggers do not fire \
    (session_replication_role = replica, as in subscribers of logical replication and pg_restore --disable-triggers, and \
    ALTER TABLE … DISABLE TRIGGER); TRUNCATE of a single partition, ATTACH and DETACH PARTITION; tables that inherit from this \
    one; values that ALTER TABLE rewrites; DROP TABLE\n\
    cost: every change writes a row more, in the application's own transaction, which fails if that fails; the page \
    on connectors has figures";

async fn capture(client: &Client, source_id: &str, tables: &str, comments: bool) -> Result<ActionOutput> {
    let context = |e| failed("capture", e);
    let tables: Vec<&str> = tables.split(',').map(str::trim).filter(|table| !table.is_empty()).collect();
    if tables.is_empty() {
        return Err(Error::config("table: name at least one table, as schema.table"));
    }
    if !parts(client).await?[0] {
        return Err(Error::config("dsn: the database has no buffer yet; run the source's action `init` first"));
    }
    let mut found = Vec::with_capacity(tables.len());
    for table in &tables {
        // A name without a schema is looked up as the operator's other sessions do.
        client.batch_execute("RESET search_path").await.map_err(context)?;
        let relation = client
            .query_one("SELECT pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid", &[table])
            .await
            .map_err(context)?;
        client.batch_execute(sql::SEARCH_PATH).await.map_err(context)?;
        let relation: Option<u32> = relation.get(0);
        let row = client
            .query_opt(
                "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.oid = $1 AND c.relkind IN ('r', 'p')",
                &[&relation],
            )
            .await
            .map_err(context)?;
        let Some(row) = row else {
            return Err(Error::config(format!(
                "table: {table:?} is no table of this database; allowed: schema.table, quoted as in SQL"
            )));
        };
        let schema: String = row.get(0);
        if ["philotes", "pg_catalog", "information_schema"].contains(&&*schema) {
            return Err(Error::config(format!(
                "table: {table:?} is a table of the server or of capture itself; allowed: tables of other schemas"
            )));
        }
        found.push(relation);
    }
    client.batch_execute(sql::CAPTURE).await.map_err(context)?;
    for relation in &found {
        client
            .execute("SELECT philotes.capture($1::oid::regclass, $2, $3)", &[relation, &source_id, &comments])
            .await
            .map_err(context)?;
    }
    Ok(ActionOutput::Text(format!(
        "changes of {} are captured as source_id {source_id:?}\n{CAPTURED}",
        tables.join(", ")
    )))
}

async fn release(client: &Client, source_id: &str) -> Result<ActionOutput> {
    let bits: i64 = rand::random();
    let row = client
        .query_opt(
            "UPDATE philotes.connectors c SET connector = NULL, epoch = c.epoch + 1, epoch_bits = $2 \
             FROM philotes.connectors old WHERE c.source_id = $1 AND old.source_id = c.source_id RETURNING old.connector",
            &[&source_id, &bits],
        )
        .await
        .map_err(|e| failed("release", e))?;
    Ok(ActionOutput::Text(match row.map(|row| row.get::<_, Option<String>>(0)) {
        Some(Some(connector)) => format!("source_id {source_id:?} no longer belongs to the connector {connector:?}"),
        Some(None) | None => format!("source_id {source_id:?} belongs to no connector"),
    }))
}

async fn status(client: &Client, source_id: &str) -> Result<ActionOutput> {
    let rows = client
        .query(
            "WITH waiting AS (SELECT schema_name, table_name, count(*) AS rows, min(created_at) AS oldest \
               FROM philotes.cdc_events WHERE source_id = $1 AND processed_at IS NULL GROUP BY 1, 2), \
             named AS (SELECT CASE WHEN schema_name ~ '[.\"[:space:][:cntrl:]]' OR schema_name = '' \
                 THEN '\"' || replace(schema_name, '\"', '\"\"') || '\"' ELSE schema_name END || '.' || \
               CASE WHEN table_name ~ '[.\"[:space:][:cntrl:]]' OR table_name = '' \
                 THEN '\"' || replace(table_name, '\"', '\"\"') || '\"' ELSE table_name END AS stream, rows, oldest FROM waiting), \
             listed AS (SELECT stream, count(*) AS batches FROM philotes.batches WHERE source_id = $1 GROUP BY 1), \
             acked AS (SELECT stream, epoch || '.' || batch AS at FROM philotes.acknowledged WHERE source_id = $1) \
             SELECT stream, coalesce(rows, 0)::text, coalesce(oldest::text, '-'), coalesce(batches, 0)::text, coalesce(at, '-') \
             FROM named FULL JOIN listed USING (stream) FULL JOIN acked USING (stream) ORDER BY stream",
            &[&source_id],
        )
        .await
        .map_err(|e| failed("status", e))?;
    let owner = client
        .query_opt(
            "SELECT coalesce(connector, '-'), epoch::text, claimed_at::text FROM philotes.connectors WHERE source_id = $1",
            &[&source_id],
        )
        .await
        .map_err(|e| failed("status", e))?;
    let (connector, epoch, since): (String, String, String) =
        owner.map_or_else(|| ("-".into(), "-".into(), "-".into()), |row| (row.get(0), row.get(1), row.get(2)));
    let columns =
        ["stream", "unprocessed", "oldest", "batches_listed", "acknowledged", "connector", "epoch", "claimed_at"];
    let mut cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells: Vec<String> = (0..5).map(|at| row.get(at)).collect();
            cells.extend([connector.clone(), epoch.clone(), since.clone()]);
            cells
        })
        .collect();
    if cells.is_empty() {
        let mut none = vec!["(none)".to_owned(), "0".to_owned(), "-".to_owned(), "0".to_owned(), "-".to_owned()];
        none.extend([connector, epoch, since]);
        cells.push(none);
    }
    Ok(ActionOutput::Rows { columns: columns.map(str::to_owned).to_vec(), rows: cells })
}
