//! The commit protocol: how a table's rows become durable exactly once, together with how far they reach.
//!
//! What was written is frozen as a *payload*, which never grows, and sent in a *request* with a commit id of its own. When a
//! request conflicts, or its outcome is unknown, the table is loaded and searched for the ids of every attempt made: a
//! conflict can be our own success, reported late. If none succeeded and nobody else wrote our tokens, the payload goes
//! onto the new head in a new request. The files of a payload that was sent are never deleted here: a request
//! that seemed lost may still arrive and make them part of the table. What was written for a request that never left is
//! removed at once.

use std::collections::BTreeMap;
use std::time::Instant;

use iceberg::spec::TableMetadata;
use philotes_sdk::{Committed, Error, Offset, Result, StreamOffset, StreamPartition, failpoint};

use crate::catalog::{CatalogError, CatalogErrorKind};
use crate::manifests::AddedFile;
use crate::snapshot::{self, Attempt, Changes};
use crate::storage;
use crate::table::{ROUNDS, Table};

/// What a commit consists of, frozen until it is resolved.
#[derive(Debug)]
pub(crate) struct Payload {
    files: Vec<AddedFile>,
    offsets: BTreeMap<StreamPartition, Option<Offset>>,
    /// Every request that was made with it.
    attempts: Vec<Attempt>,
}

impl Payload {
    /// The attempt that is part of the table, if one is.
    pub(crate) fn succeeded_in(&self, metadata: &TableMetadata, connector: &str) -> Result<Option<Attempt>> {
        for attempt in &self.attempts {
            if attempt.succeeded_in(metadata, connector)? {
                return Ok(Some(attempt.clone()));
            }
        }
        Ok(None)
    }

    /// The files, unless a request that may still succeed has named them.
    pub(crate) fn into_unsent_files(self) -> Vec<AddedFile> {
        if self.attempts.is_empty() { self.files } else { Vec::new() }
    }

    /// The payload, made durable by this attempt.
    pub(crate) fn landed(self, attempt: Attempt) -> Landed {
        Landed {
            rows: self.files.iter().map(|added| added.file.record_count()).sum(),
            bytes: self.files.iter().map(|added| added.file.file_size_in_bytes()).sum(),
            files: self.files.len() as u64,
            offsets: self.offsets,
            attempt,
        }
    }
}

/// A payload that is part of the table.
#[derive(Debug)]
pub(crate) struct Landed {
    rows: u64,
    bytes: u64,
    files: u64,
    offsets: BTreeMap<StreamPartition, Option<Offset>>,
    attempt: Attempt,
}

/// What flushing a table achieved.
#[derive(Debug, Default)]
pub(crate) struct TableFlushed {
    pub(crate) durable: Vec<StreamOffset>,
    pub(crate) commits: Vec<Committed>,
    pub(crate) failed: Vec<(StreamPartition, Error)>,
}

impl Table {
    /// Makes durable what was written to the table.
    pub(crate) async fn flush(&mut self) -> TableFlushed {
        let outcome = self.commit_all().await;
        let mut flushed = TableFlushed::default();
        let mut durable: BTreeMap<StreamPartition, Offset> = BTreeMap::new();
        for landed in std::mem::take(&mut self.landed) {
            let Landed { rows, bytes, files, offsets, attempt } = landed;
            durable.extend(offsets.into_iter().filter_map(|(at, offset)| Some((at, offset?))));
            let id = attempt.snapshot_id.to_string();
            flushed.commits.push(Committed { table: self.name.to_string(), rows, bytes, files, id });
            if let Some(base) = &self.base {
                self.cleaner.clean(&base.files, &base.metadata, &attempt.expired).await;
            }
        }
        flushed.durable = durable.into_iter().map(|(at, offset)| StreamOffset { at, offset }).collect();
        if let Err(error) = outcome {
            flushed.failed = self.undurable(&error);
        }
        flushed
    }

    /// An error for each key whose rows are not durable.
    fn undurable(&self, error: &Error) -> Vec<(StreamPartition, Error)> {
        let frozen = self.payload.iter().flat_map(|payload| payload.offsets.keys());
        let mut keys: Vec<_> = frozen.chain(self.offsets.keys()).cloned().collect();
        keys.sort();
        keys.dedup();
        if keys.is_empty() {
            // The last commit succeeded and showed that it was the last: the table's keys are lost to it all the same.
            keys.extend(self.owned.keys().cloned());
        }
        keys.into_iter().map(|at| (at, Error::new(error.kind(), error.to_string()))).collect()
    }

    async fn commit_all(&mut self) -> Result<()> {
        // What was frozen before is resolved as it is; only then what came after it is frozen.
        self.resolve().await?;
        self.freeze().await?;
        self.resolve().await
    }

    /// Freezes what was written as the next payload.
    async fn freeze(&mut self) -> Result<()> {
        self.roll().await?;
        if self.payload.is_none() && !self.offsets.is_empty() {
            self.payload = Some(Payload {
                files: std::mem::take(&mut self.complete),
                offsets: std::mem::take(&mut self.offsets),
                attempts: Vec::new(),
            });
        }
        Ok(())
    }

    /// Commits the payload, if there is one.
    async fn resolve(&mut self) -> Result<()> {
        let mut last = None;
        for _ in 0..ROUNDS {
            let Some(payload) = &self.payload else { return Ok(()) };
            if !payload.attempts.is_empty() {
                // An attempt was made and not seen to succeed: look before sending again.
                self.reload().await?;
                if self.payload.is_none() {
                    return Ok(());
                }
            }
            last = self.attempt().await?.or(last);
        }
        if self.payload.is_none() {
            return Ok(());
        }
        let error = Error::unavailable(format!("table {}: none of {ROUNDS} commits in a row came about", self.name));
        Err(match last {
            Some(last) => error.with_source(last),
            None => error,
        })
    }

    /// Sends the payload once. Without an error it has succeeded, or the outcome must be looked up, because of what is given back.
    async fn attempt(&mut self) -> Result<Option<CatalogError>> {
        let (Some(base), Some(payload)) = (&mut self.base, &mut self.payload) else {
            return Err(Error::internal("a payload for a table that does not exist"));
        };
        let began = Instant::now();
        snapshot::check_schemas(&self.name.to_string(), &base.metadata, &payload.files)?;
        let changes = Changes {
            connector: &self.settings.context.info().connector,
            files: &payload.files,
            offsets: &payload.offsets,
            retention: self.settings.retention,
        };
        let (request, attempt) = snapshot::propose(base, changes).await?;
        let proposed: Result<()> = async {
            failpoint!("commit.proposed", |message| Error::unavailable(message));
            Ok(())
        }
        .await;
        if let Err(error) = proposed {
            storage::discard(&base.files, attempt.locations).await;
            return Err(error);
        }
        // Noted before it is sent: whatever happens now, this request may succeed.
        payload.attempts.push(attempt.clone());
        let context = &self.settings.context;
        let answer = self.settings.catalog.commit_table(&self.name, request).await;
        failpoint!("commit.answered", |message| Error::unknown(message));
        match answer {
            Ok(loaded) if attempt.succeeded_in(&loaded.metadata, &context.info().connector)? => {
                let table = self.name.to_string();
                let labels = [("table", table.as_str())];
                context.observe("philotes_iceberg_commit_seconds", began.elapsed().as_secs_f64(), &labels);
                self.adopt(loaded)?;
                Ok(None)
            }
            // A reply that does not show the commit proves nothing: a catalog may replay an older one.
            Ok(_) => Ok(None),
            Err(error) if error.calls_for_a_look() => {
                let (table, commit) = (&self.name, attempt.commit_id);
                match error.kind() {
                    CatalogErrorKind::Unknown => {
                        let (error, took_s) = (chain(&error), began.elapsed().as_secs_f64());
                        tracing::warn!(%table, %commit, took_s, error, "the commit's outcome is unknown, looking for it");
                    }
                    _ => tracing::debug!(%table, %commit, %error, "looking for the commit"),
                }
                context.count("philotes_iceberg_conflicts_total", 1, &[("table", &self.name.to_string())]);
                Ok(Some(error))
            }
            Err(error) => {
                if error.never_left() {
                    // As if it had not been made: what was written for it goes, and it keeps no file of the payload from going.
                    payload.attempts.pop();
                    storage::discard(&base.files, attempt.locations).await;
                }
                Err(error.into())
            }
        }
    }
}

/// An error with what lies beneath it: that a request was timed out stands there.
fn chain(error: &CatalogError) -> String {
    let mut text = error.to_string();
    let mut beneath = std::error::Error::source(error);
    while let Some(error) = beneath {
        text = format!("{text}: {error}");
        beneath = error.source();
    }
    text
}
