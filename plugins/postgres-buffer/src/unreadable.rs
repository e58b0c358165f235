//! Rows that the server cannot send: bytes that are no text in the client's encoding, values whose
//! text is too long.
//!
//! A COPY ends at such a row with an error that does not name it. It is the first that was not
//! received; to be sure, since an older row may have been committed meanwhile, it is read once
//! more, alone.

use philotes_sdk::{Error, ErrorKind, Result};

use crate::connect::{Session, failed};
use crate::seen::Seen;

/// Candidates that are looked at together.
const TOGETHER: i64 = 1_000;

const CANDIDATES: &str = "SELECT id FROM philotes.cdc_events WHERE source_id = ANY (ARRAY[$1::text]) AND id > $2 \
    AND processed_at IS NULL ORDER BY source_id, id LIMIT $3";
const NAMES: &str = "SELECT schema_name, table_name, \
    CASE WHEN isfinite(created_at) THEN (extract(epoch FROM created_at) * 1000000)::int8 END \
    FROM philotes.cdc_events WHERE id = $1";
const ALONE: &str =
    "SELECT operation, lsn, key_columns, before_data, after_data, metadata FROM philotes.cdc_events WHERE id = $1";

/// A row that cannot be sent, and why.
pub(crate) struct Unreadable {
    pub(crate) id: i64,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) created_at: Option<i64>,
    pub(crate) error: Error,
}

/// Whether an error may be about one row alone.
pub(crate) fn about_a_row(error: &tokio_postgres::Error) -> bool {
    // Not in the encoding, no such character, a text of more than a gigabyte (\"out of memory\"),
    // memory of the server.
    error.code().is_some_and(|code| ["22021", "22P05", "54000", "53200"].contains(&code.code()))
}

/// The row at which a COPY ended with `error` after `last` was received; `None` where that row can
/// be sent alone.
pub(crate) async fn find(
    session: &mut Session,
    source_id: &str,
    seen: &Seen,
    last: Option<i64>,
) -> Result<Option<Unreadable>> {
    let context = |e| failed("cannot look for a row that the server cannot send", e);
    let client = std::sync::Arc::clone(&session.client);
    let mut after = last.unwrap_or(i64::MIN);
    let id = loop {
        let rows = session.drive(client.query(CANDIDATES, &[&source_id, &after, &TOGETHER])).await?.map_err(context)?;
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let Some(newest) = ids.last() else { return Ok(None) };
        if let Some(id) = ids.iter().copied().find(|id| !seen.contains(*id)) {
            break id;
        }
        after = *newest;
    };
    let row = match session.drive(client.query_one(NAMES, &[&id])).await? {
        Ok(row) => row,
        Err(error) if about_a_row(&error) => {
            return Err(Error::data(format!(
                "buffer id {id}: {}; its names cannot be read, so that it belongs to no stream: correct or delete the row",
                failed("the server cannot send the row", error).message()
            )));
        }
        Err(error) => return Err(context(error)),
    };
    match session.drive(client.query(ALONE, &[&id])).await? {
        Ok(_) => Ok(None),
        Err(error) if about_a_row(&error) => {
            let (schema, table) = (row.get(0), row.get(1));
            let error = Error::new(ErrorKind::Data, failed("the server cannot send the row", error).message());
            Ok(Some(Unreadable { id, schema, table, created_at: row.get(2), error }))
        }
        Err(error) => Err(context(error)),
    }
}
