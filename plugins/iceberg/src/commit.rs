//! The commit protocol: how a table's rows become durable exactly once, together with how far they reach.
//!
//! What was written is frozen as a *payload*, which never grows, and sent in a *request* with a commit id of its own. When a
//! request conflicts, or its outcome is unknown, the table is loaded and searched for the ids of every attempt made: a
//! conflict can be our own success, reported late. If none succeeded and nobody else wrote our tokens, the payload goes
//! onto the new head in a new request. The files of a payload that was sent are never deleted here: a request
//! that seemed lost may still arrive and make them part of the table. What was written for a request that never left is
//! removed at once.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use iceberg::spec::TableMetadata;
use philotes_sdk::{Committed, Error, ErrorKind, Offset, Result, StreamOffset, StreamPartition, failpoint};

use crate::catalog::{CatalogError, CatalogErrorKind};
use crate::dead_letters::{self, Intent, Letter, Letters, Main, Ranges, read_intent, replayed_property};
use crate::error::chain;
use crate::manifests::AddedFile;
use crate::snapshot::{self, Attempt, Changes};
use crate::storage;
use crate::table::{ROUNDS, Settings, Table};
use crate::upsert;

/// What a commit consists of, frozen until it is resolved.
#[derive(Debug)]
pub(crate) struct Payload {
    files: Vec<AddedFile>,
    /// Whether everything that the table holds is removed.
    empties: bool,
    offsets: BTreeMap<StreamPartition, Option<Offset>>,
    /// Dead letters; their files are part of an attempt, because another task of the connector may take their numbers.
    pub(crate) letters: Letters,
    /// Where they are stored, numbered after the last intent with this number.
    stored: Option<(u64, Intent)>,
    /// Letters whose rows these are.
    replayed: Option<Ranges>,
    /// By how many the rows that share a key with a newer one become more.
    displaced: i64,
    /// Every request that was made with it.
    attempts: Vec<Attempt>,
}

impl Payload {
    fn new(
        files: Vec<AddedFile>,
        offsets: BTreeMap<StreamPartition, Option<Offset>>,
        letters: Letters,
        replayed: Option<Ranges>,
    ) -> Self {
        Self { files, empties: false, offsets, letters, stored: None, replayed, displaced: 0, attempts: Vec::new() }
    }

    /// The same, put in the place of everything that the table holds.
    fn emptying(mut self, empties: bool) -> Self {
        self.empties = empties;
        self
    }

    /// The same, after which so many more rows share a key with a newer one.
    fn displacing(mut self, displaced: i64) -> Self {
        self.displaced = displaced;
        self
    }

    /// Whether rows of this key are in it.
    pub(crate) fn covers(&self, at: &StreamPartition) -> bool {
        self.offsets.contains_key(at)
    }

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

    /// The files with dead letters, unless a request that may still succeed has named them.
    pub(crate) fn unsent_intent(&self) -> Option<&Intent> {
        self.stored.as_ref().filter(|_| self.attempts.is_empty()).map(|(_, intent)| intent)
    }

    /// The payload, made durable by this attempt.
    pub(crate) fn landed(self, attempt: Attempt) -> Landed {
        let data = self.files.iter().filter(|added| !added.is_deletes());
        Landed {
            rows: data.map(|added| added.file.record_count()).sum(),
            bytes: self.files.iter().map(|added| added.file.file_size_in_bytes()).sum(),
            files: self.files.len() as u64,
            letters: counted(self.letters.all()),
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
    letters: BTreeMap<StreamPartition, u64>,
    offsets: BTreeMap<StreamPartition, Option<Offset>>,
    attempt: Attempt,
}

fn counted(letters: &[Letter]) -> BTreeMap<StreamPartition, u64> {
    let mut counts = BTreeMap::new();
    for letter in letters {
        *counts.entry(letter.at.clone()).or_default() += 1;
    }
    counts
}

/// What flushing a table achieved.
#[derive(Debug, Default)]
pub(crate) struct TableFlushed {
    pub(crate) durable: Vec<StreamOffset>,
    pub(crate) commits: Vec<Committed>,
    pub(crate) letters: Vec<(StreamPartition, u64)>,
    pub(crate) failed: Vec<(StreamPartition, Error)>,
}

impl Table {
    /// Makes durable what was written to the table.
    pub(crate) async fn flush(&mut self) -> TableFlushed {
        let outcome = self.commit_all().await;
        let mut flushed = self.settle_landed().await;
        if let Err(error) = outcome {
            flushed.failed = self.undurable(&error);
        }
        flushed
    }

    /// What the commits that succeeded achieved; expires snapshots if it is time.
    async fn settle_landed(&mut self) -> TableFlushed {
        let mut flushed = TableFlushed::default();
        let mut durable: BTreeMap<StreamPartition, Offset> = BTreeMap::new();
        for landed in std::mem::take(&mut self.landed) {
            let Landed { rows, bytes, files, letters, offsets, attempt } = landed;
            flushed.letters.extend(letters);
            durable.extend(offsets.into_iter().filter_map(|(at, offset)| Some((at, offset?))));
            let id = attempt.snapshot_id.to_string();
            flushed.commits.push(Committed { table: self.name.to_string(), rows, bytes, files, id });
        }
        if let Some(base) = self.base.as_ref().filter(|_| !flushed.commits.is_empty()) {
            let Settings { catalog, retention, .. } = &*self.settings;
            let metadata = base.metadata.clone();
            self.expiry.tend(catalog.as_ref(), &self.name, self.settings.connector(), *retention, &metadata).await;
        }
        flushed.durable = durable.into_iter().map(|(at, offset)| StreamOffset { at, offset }).collect();
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

    /// Commits what was written; what succeeded is in `landed`.
    pub(crate) async fn commit_all(&mut self) -> Result<()> {
        // What was frozen before is resolved as it is; only then what came after it is frozen.
        self.resolve().await?;
        self.freeze().await?;
        self.resolve().await?;
        self.complete_intent().await
    }

    /// Commits rows of letters that were taken in, together with what they were.
    ///
    /// # Errors
    /// Conflict: somebody else has replayed some of them meanwhile. After any error it may have happened all the same.
    pub(crate) async fn commit_replay(&mut self, replayed: Ranges) -> Result<()> {
        self.roll().await?;
        let files = std::mem::take(&mut self.complete);
        self.payload = Some(Payload::new(files, BTreeMap::new(), Letters::default(), Some(replayed)));
        self.resolve().await?;
        self.settle_landed().await;
        Ok(())
    }

    /// Freezes what was written as the next payload.
    async fn freeze(&mut self) -> Result<()> {
        self.roll().await?;
        if self.payload.is_none() && !self.offsets.is_empty() {
            if !self.letters.is_empty() {
                self.create_bare().await?;
            }
            let payload = Payload::new(
                std::mem::take(&mut self.complete),
                std::mem::take(&mut self.offsets),
                std::mem::take(&mut self.letters),
                None,
            );
            let empties = self.upsert.as_mut().is_some_and(|upsert| std::mem::take(&mut upsert.truncated));
            let displaced = self.upsert.as_mut().map_or(0, |upsert| std::mem::take(&mut upsert.displaced));
            self.payload = Some(payload.emptying(empties).displacing(displaced));
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

    /// Stores the payload's letters, unless they are stored with the numbers that follow on this base.
    async fn store_letters(&mut self) -> Result<()> {
        let (Some(base), Some(payload)) = (&self.base, &mut self.payload) else { return Ok(()) };
        if payload.letters.is_empty() {
            return Ok(());
        }
        let last = read_intent(&base.metadata, self.settings.connector())?;
        let after = last.as_ref().map_or(0, |intent| intent.number);
        if payload.stored.as_ref().is_some_and(|(stored_after, _)| *stored_after == after) {
            return Ok(());
        }
        if let Some(intent) = payload.unsent_intent() {
            dead_letters::remove(&self.settings, intent).await;
        }
        payload.stored = None;
        let main = Main { name: &self.name, uuid: base.metadata.uuid() };
        let intent = dead_letters::store(&self.settings, main, last.as_ref(), payload.letters.all()).await?;
        payload.stored = Some((after, intent));
        Ok(())
    }

    /// What the payload's commit sets beside tokens.
    fn properties_of_payload(&self) -> Result<HashMap<String, String>> {
        let (connector, mut properties) = (self.settings.connector(), HashMap::new());
        let Some(payload) = &self.payload else { return Ok(properties) };
        if let Some((_, intent)) = &payload.stored {
            properties.extend([intent.property(connector)?]);
        }
        if let Some(replayed) = &payload.replayed {
            let before = self.replayed()?;
            if before.overlaps(replayed) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "table {}: some of these letters were replayed meanwhile; look at them and try again",
                        self.name
                    ),
                ));
            }
            properties.insert(replayed_property(connector), before.union(replayed).to_string());
        }
        properties.extend(self.numbers_to_tell()?);
        if let Some(base) = &self.base {
            let before = upsert::displaced(&base.metadata, connector)?;
            let kept = if payload.empties { 0 } else { before };
            let after = kept.saturating_add_signed(payload.displaced);
            if after != before {
                properties.insert(upsert::displaced_property(connector), after.to_string());
            }
        }
        Ok(properties)
    }

    /// Adds to the payload what else is to be removed on this base.
    async fn remove_more(&mut self) -> Result<()> {
        let (Some(upsert), Some(base), Some(payload)) = (&mut self.upsert, &mut self.base, &mut self.payload) else {
            return Ok(());
        };
        if payload.empties {
            return Ok(());
        }
        // Its keys are of one schema, that of its files.
        let Some(schema) = payload.files.first().map(|added| added.schema.clone()) else { return Ok(()) };
        payload.files.extend(upsert.removal.remove_more(base, &schema, self.settings.writer).await?);
        Ok(())
    }

    /// Sends the payload once. Without an error it has succeeded, or the outcome must be looked up, because of what is given back.
    async fn attempt(&mut self) -> Result<Option<CatalogError>> {
        // Before anything is added to this base, the last intent on it; then the next one can be made.
        self.complete_intent().await?;
        self.store_letters().await?;
        let properties = self.properties_of_payload()?;
        self.remove_more().await?;
        let (Some(base), Some(payload)) = (&mut self.base, &mut self.payload) else {
            return Err(Error::internal("a payload for a table that does not exist"));
        };
        let began = Instant::now();
        snapshot::check_schemas(&self.name.to_string(), &base.metadata, &payload.files)?;
        let changes = Changes {
            connector: &self.settings.context.info().connector,
            files: &payload.files,
            empties: payload.empties,
            offsets: &payload.offsets,
            properties: &properties,
            forget: &self.expiry.done(),
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
                if error.kind() == CatalogErrorKind::Refused && self.was_upgraded().await? {
                    return Ok(Some(error));
                }
                Err(error.into())
            }
        }
    }

    /// Whether somebody has moved the table to another format meanwhile, which takes other snapshots and leaves the head as it
    /// is.
    async fn was_upgraded(&mut self) -> Result<bool> {
        let version = |table: &Self| table.base.as_ref().map(|base| base.metadata.format_version());
        let before = version(self);
        self.reload().await?;
        Ok(version(self) != before)
    }
}
