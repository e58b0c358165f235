//! Writes down which rows a batch holds before the host sees it.
//!
//! The commit is synchronous and on a session that was opened before the rows' snapshot. It flushes the rows' own WAL with
//! it: a row of an asynchronous commit cannot vanish in a crash once its batch is known to anybody.

use std::sync::Arc;

use arrow::array::RecordBatch;
use philotes_sdk::{ChangeBatch, Result, StreamPartition, failpoint};
use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::acknowledge::Ledger;
use crate::claim::Claim;
use crate::connect::failed;
use crate::decode::Overrides;
use crate::letters::{self, Fault};
use crate::ranges::{Range, multirange};
use crate::ready::Ready;

/// Batches in one statement at most.
const TOGETHER: usize = 16;

/// A batch on its way from the reader.
pub(crate) struct Closed {
    pub(crate) at: Arc<StreamPartition>,
    pub(crate) content: Content,
    /// The buffer's ids of its rows, exactly.
    pub(crate) ids: Vec<Range>,
    /// How many rows of the buffer they are.
    pub(crate) buffer_rows: u64,
    /// When the buffer took in the newest of them, in microseconds since 1970; 0 where unknown.
    pub(crate) newest_micros: i64,
    /// What the reader counted it as.
    pub(crate) bytes: usize,
    pub(crate) ends_transaction: bool,
}

/// What a batch consists of.
pub(crate) enum Content {
    Rows {
        rows: RecordBatch,
        schema_id: u64,
    },
    /// Dead letters; the rows themselves are read when they are written down.
    Letters(Vec<Fault>, Arc<Overrides>),
}

/// The registrar's session and what it shares.
pub(crate) struct Registrar {
    pub(crate) client: Arc<Client>,
    pub(crate) claim: Claim,
    pub(crate) ready: Arc<Ready>,
    pub(crate) ledger: Arc<Ledger>,
}

impl Registrar {
    /// Runs until the reader ends.
    pub(crate) async fn run(self, mut closed: mpsc::Receiver<Closed>) -> Result<()> {
        let context = |e| failed("cannot write down a batch", e);
        let Claim { source_id, epoch, .. } = &self.claim;
        let statement = self
            .client
            .prepare(
                "WITH owner AS MATERIALIZED (SELECT FROM philotes.connectors WHERE source_id = $1 AND epoch = $2 AND \
                 epoch_bits = $3 FOR SHARE) INSERT INTO philotes.batches (source_id, epoch, epoch_bits, batch, stream, ids) \
                 SELECT $1, $2, $3, b.batch, b.stream, b.ids::int8multirange \
                 FROM owner, unnest($4::int8[], $5::text[], $6::text[]) AS b (batch, stream, ids)",
            )
            .await
            .map_err(context)?;
        let mut next = 1_i64;
        let mut together = Vec::with_capacity(TOGETHER);
        while closed.recv_many(&mut together, TOGETHER).await > 0 {
            let numbers: Vec<i64> = (next..).take(together.len()).collect();
            let streams: Vec<String> = together.iter().map(|closed| closed.at.stream.to_string()).collect();
            let ids: Vec<String> = together.iter().map(|closed| multirange(&closed.ids)).collect();
            let written = self
                .client
                .execute(&statement, &[&source_id, &epoch.counter, &epoch.bits, &numbers, &streams, &ids])
                .await
                .map_err(context)?;
            if written != numbers.len() as u64 {
                return Err(self.claim.fenced());
            }
            failpoint!("batch.listed", |message| philotes_sdk::Error::unavailable(message));
            for (closed, number) in together.drain(..).zip(numbers) {
                self.hand_out(closed, number).await?;
                next = number + 1;
            }
        }
        Ok(())
    }

    async fn hand_out(&self, closed: Closed, number: i64) -> Result<()> {
        let Closed { at, content, ids, buffer_rows, newest_micros, bytes, ends_transaction } = closed;
        let (rows, schema_id, dead_letters) = match content {
            Content::Rows { rows, schema_id } => (rows, schema_id, false),
            Content::Letters(faults, overrides) => {
                let rows = letters::read(&self.client, &self.claim.source_id, &at.stream, &faults, &overrides).await?;
                (rows, letters::SCHEMA_ID, true)
            }
        };
        let batch = ChangeBatch {
            at: (*at).clone(),
            schema_id,
            rows,
            offset: self.claim.offset(number).to_offset()?,
            ends_transaction,
            initial_load: false,
            dead_letters,
            newest_micros,
        };
        self.ledger.handed_out(&at.stream, number, ids, buffer_rows);
        self.ready.push(batch, bytes);
        Ok(())
    }
}
