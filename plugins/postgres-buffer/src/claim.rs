//! Taking possession of a source_id: the advisory lock, the owner, the epoch, the buffer's identity.

use std::time::{Duration, Instant};

use philotes_sdk::{Error, Result};
use tokio_postgres::Client;

use crate::connect::failed;
use crate::offset::{BufferOffset, Epoch};

/// How long `open` waits for the lock before it lets the host report and back off.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_TRY: Duration = Duration::from_millis(200);

/// What this task holds: every later write is conditional on it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) source_id: String,
    pub(crate) epoch: Epoch,
    pub(crate) lineage: String,
    /// The index that polls read by is there.
    pub(crate) indexed: bool,
}

impl Claim {
    /// The offset of a batch of this epoch.
    pub(crate) fn offset(&self, batch: i64) -> BufferOffset {
        BufferOffset { lineage: self.lineage.clone(), epoch: self.epoch, batch }
    }

    /// The error of a write that found another epoch.
    pub(crate) fn fenced(&self) -> Error {
        Error::fenced(format!(
            "source_id {:?}: another task has claimed it, it was released, or the buffer was truncated",
            self.source_id
        ))
    }
}

/// Checks the buffer: it is there, complete, on a primary, and its ids are handed out one by one.
pub(crate) async fn inspect(client: &Client) -> Result<Inspected> {
    let context = |e| failed("cannot inspect the buffer", e);
    let row = client
        .query_one(
            "SELECT pg_is_in_recovery(), to_regclass('philotes.cdc_events')::oid, to_regclass('philotes.connectors')::oid, \
             to_regclass('philotes.buffer')::oid, current_database()::text",
            &[],
        )
        .await
        .map_err(context)?;
    let database: String = row.get(4);
    if row.get::<_, bool>(0) {
        return Err(Error::unavailable("dsn: this server is a standby; the buffer is read from the primary only"));
    }
    let missing = |what: &str| {
        Error::config(format!(
            "dsn: database {database:?} has no {what}; the source's action `init` creates what is missing"
        ))
    };
    let Some(relation) = row.get::<_, Option<u32>>(1) else { return Err(missing("buffer table philotes.cdc_events")) };
    if row.get::<_, Option<u32>>(2).is_none() || row.get::<_, Option<u32>>(3).is_none() {
        return Err(missing("tables philotes.connectors and philotes.buffer"));
    }
    let row = client
        .query_one(
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
             (SELECT identity::text FROM philotes.buffer WHERE relation = $1), \
             (SELECT s.seqcache FROM pg_sequence s WHERE s.seqrelid = pg_get_serial_sequence('philotes.cdc_events', 'id')::regclass), \
             EXISTS (SELECT FROM pg_index i WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NOT NULL AND \
             pg_get_expr(i.indpred, i.indrelid) = '(processed_at IS NULL)' AND \
             (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) = ARRAY['source_id', 'id'])",
            &[&relation],
        )
        .await
        .map_err(context)?;
    let system: String = row.get(0);
    let Some(identity) = row.get::<_, Option<String>>(1) else {
        return Err(Error::config(
            "dsn: philotes.cdc_events was created anew; run the source's action `init`, which gives it an identity of its own",
        ));
    };
    if let Some(cache) = row.get::<_, Option<i64>>(2).filter(|cache| *cache != 1) {
        return Err(Error::config(format!(
            "dsn: the sequence of philotes.cdc_events.id has CACHE {cache}, allowed is 1; the source's action `init` sets it"
        )));
    }
    Ok(Inspected { lineage: format!("{system}/{identity}"), indexed: row.get(3) })
}

/// What [`inspect`] found.
pub(crate) struct Inspected {
    pub(crate) lineage: String,
    pub(crate) indexed: bool,
}

/// Takes the lock of the source_id for as long as the session lives, or says who has it.
pub(crate) async fn lock(client: &Client, source_id: &str) -> Result<()> {
    let context = |e| failed("cannot take the lock of the source_id", e);
    let key = format!("philotes.source/{source_id}");
    let deadline = Instant::now() + LOCK_WAIT;
    let mut said = false;
    loop {
        let row = client
            .query_one("SELECT pg_try_advisory_lock(hashtextextended($1, 0)), pg_backend_pid()", &[&key])
            .await
            .map_err(context)?;
        if row.get::<_, bool>(0) {
            // The lock belongs to a server process. Behind a transaction pooler the next statement may go to another.
            let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(context)?.get(0);
            if pid != row.get::<_, i32>(1) {
                return Err(Error::config(
                    "dsn: a pooler in transaction mode stands before the server; connect directly or in session mode",
                ));
            }
            return Ok(());
        }
        let holder = client
            .query_opt(
                "SELECT l.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'local') FROM pg_locks l \
                 LEFT JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND \
                 l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND \
                 (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended($1, 0)",
                &[&key],
            )
            .await
            .map_err(context)?;
        let holder = holder.map_or_else(
            || "who just let go".to_owned(),
            |row| {
                let (pid, application, address): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
                format!("server process {pid}, {application:?} from {address}")
            },
        );
        if !said {
            // The host says so once, for as long as it stands by; this comes again at each try.
            tracing::debug!(source_id, holder, "source_id is in use by another task; waiting for it");
            said = true;
        }
        if Instant::now() >= deadline {
            return Err(Error::held_elsewhere(format!(
                "source_id {source_id:?} is in use by another task ({holder}); waiting"
            )));
        }
        tokio::time::sleep(LOCK_TRY).await;
    }
}

/// Raises the epoch: whoever claimed before is fenced from here on.
pub(crate) async fn claim(client: &Client, source_id: &str, connector: &str, inspected: Inspected) -> Result<Claim> {
    let context = |e| failed("cannot claim the source_id", e);
    let bits: i64 = rand::random();
    let row = client
        .query_opt(
            "INSERT INTO philotes.connectors AS c (source_id, connector, epoch, epoch_bits) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (source_id) DO UPDATE SET connector = $2, epoch = c.epoch + 1, epoch_bits = $3, claimed_at = now() \
             WHERE c.connector IS NULL OR c.connector = $2 RETURNING c.epoch",
            &[&source_id, &connector, &bits],
        )
        .await
        .map_err(context)?;
    let Some(row) = row else {
        let owner = client
            .query_opt("SELECT connector FROM philotes.connectors WHERE source_id = $1", &[&source_id])
            .await
            .map_err(context)?
            .and_then(|row| row.get::<_, Option<String>>(0))
            .unwrap_or_default();
        return Err(Error::config(format!(
            "source_id: {source_id:?} belongs to the connector {owner:?}, not to {connector:?}; the source's action `release` lets go of it"
        )));
    };
    let epoch = Epoch { counter: row.get(0), bits };
    let Inspected { lineage, indexed } = inspected;
    Ok(Claim { source_id: source_id.to_owned(), epoch, lineage, indexed })
}
