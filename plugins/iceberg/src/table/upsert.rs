//! How changes get into a table of mode upsert: what was not sent is found, the last change of each key waits in the stage, and
//! with the commit goes what removes the rows that the table holds of these keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{Schema, SchemaRef};
use philotes_sdk::{ChangeBatch, Error, ErrorKind, Result, StreamName, StreamPartition};

use super::fit::Incoming;
use super::letters::letters_of;
use super::{ROUNDS, Table};
use crate::base::Base;
use crate::config::Truncate;
use crate::dead_letters::Sifted;
use crate::lookup::{self, FoundAll};
use crate::overrides;
use crate::schema::{Change, What};
use crate::token;
use crate::upsert::{
    self, HeldRows, Lacking, Marks, Operation, Outcome, Part, Stage, Upsert, Whence, without_unchanged,
};

impl Table {
    /// Takes changes in.
    pub(super) async fn write_changes(&mut self, batch: &ChangeBatch) -> Result<()> {
        if self.is_settling() {
            // What a flush has begun to write is one commit, and nothing joins it.
            self.commit_before_altering().await?;
        }
        let settings = self.settings.clone();
        let Some(rules) = &settings.rules else { return Err(Error::internal("changes for a table of rows")) };
        let (soft, truncate) = (rules.soft, rules.truncate);
        let told = |e: Error| e.context(format!("{}, offset {}", batch.at, batch.offset.as_str()));
        let mut marks = Marks::of(&batch.rows).map_err(told)?;
        let mut other_partitions = Vec::new();
        if marks.last_truncate().is_some() || marks.any_moved() {
            other_partitions = self.other_partitions(&batch.at)?;
        }
        if !other_partitions.is_empty() {
            marks = marks.of_several_partitions();
        }
        let mut rows = self.shaped(&batch.at.stream, &batch.rows)?;
        let truncated = marks.last_truncate().filter(|_| truncate == Truncate::Apply);
        if marks.last_truncate().is_some() {
            self.check_truncate(batch, truncate, &other_partitions)?;
            let from = truncated.map_or(0, |last| last + 1);
            let kept = (from..rows.num_rows()).filter(|row| marks.rows[*row].operation != Operation::Truncate);
            let kept: Vec<usize> = kept.collect();
            marks = marks.only(&kept);
            rows = taken(&rows, &kept)?;
        }
        if rows.num_rows() == 0 && ChangeBatch::key_columns(batch.rows.schema_ref())?.is_empty() {
            // A TRUNCATE from a source that does not know the table's columns yet.
            self.create_bare().await?;
            if truncated.is_some() {
                self.empty();
            }
            return Ok(());
        }
        let shaped = ChangeBatch { rows, ..batch.clone() };
        let mut rows = without_unchanged(&shaped.rows);
        let key = upsert::of_batch(&batch.at.stream, batch.rows.schema_ref(), rows.schema_ref())?;
        if soft {
            rows = marks.with_deleted(&rows)?;
        }
        let (stream, schema_id) = (&batch.at.stream, batch.schema_id);
        let incoming = Incoming { stream, schema_id, rows: &rows, late: false, key: Some(&key) };
        let Sifted { good, bad } = self.sifted(&shaped, &incoming).await?;
        let letters = letters_of(&shaped, &bad)?;

        let part = match good {
            Some(good) if good.num_rows() > 0 => {
                let refused: BTreeSet<usize> = bad.iter().map(|(row, _)| *row).collect();
                let kept: Vec<usize> = (0..rows.num_rows()).filter(|row| !refused.contains(row)).collect();
                Some(self.part(&shaped, rows.schema_ref(), good, (&marks, &kept), truncated.is_some())?)
            }
            _ => None,
        };
        if truncated.is_some() {
            self.empty();
        }
        if let (Some(part), Some(stage)) = (part, self.open.as_mut().and_then(|open| open.stage.as_mut())) {
            stage.push(part)?;
        }
        self.set_aside(&shaped, &bad, letters);
        Ok(())
    }

    /// Makes fitted rows ready for the stage. Those that were `kept` of the batch have come with this schema; `truncated`: they follow a
    /// TRUNCATE that is not in the stage yet.
    fn part(
        &self,
        batch: &ChangeBatch,
        schema: &ArrowSchema,
        rows: RecordBatch,
        (marks, kept): (&Marks, &[usize]),
        truncated: bool,
    ) -> Result<Part> {
        let (Some(upsert), Some(open)) = (&self.upsert, &self.open) else {
            return Err(Error::internal("changes for a table that is not ready for them"));
        };
        let (Some(stage), Some(projection)) = (&open.stage, open.projections.get(&batch.schema_id)) else {
            return Err(Error::internal("changes of a schema that was not prepared"));
        };
        let place_of = |name: &str| {
            let mut fields = schema.fields().iter();
            projection.place_of(fields.position(|field| overrides::original(field) == name)?)
        };
        // The rows themselves are kept where they may become letters.
        let tolerant = self.settings.context.info().tolerance.dead_letters();
        let told = if tolerant { batch.rows.clone() } else { RecordBatch::new_empty(batch.rows.schema()) };
        let told = Arc::new(ChangeBatch { rows: told, ..batch.clone() });
        let whence = |row: usize| Whence { batch: told.clone(), row: kept[row] };
        let emptied = truncated || upsert.truncated;
        let follow_all = !emptied && self.displaced()? > 0;
        stage.part(rows, (&marks.only(kept), follow_all), (truncated, emptied), place_of, whence)
    }

    /// Nothing of what was committed, or waits, stays.
    fn empty(&mut self) {
        if let Some(stage) = self.open.as_mut().and_then(|open| open.stage.as_mut()) {
            stage.clear();
        }
        if let Some(upsert) = &mut self.upsert {
            upsert.truncated = true;
            upsert.displaced = 0;
            upsert.removal.begin_anew();
        }
    }

    /// Fits changes to the table; those that cannot be written are apart, where the connector tolerates that.
    async fn sifted(&mut self, batch: &ChangeBatch, incoming: &Incoming<'_>) -> Result<Sifted> {
        match self.fit_and_place(batch, incoming).await {
            Ok(rows) => Ok(Sifted { good: Some(rows), bad: Vec::new() }),
            Err(error) if error.kind() == ErrorKind::Data && self.settings.context.info().tolerance.dead_letters() => {
                self.sift(incoming).await
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a commit is under way that a flush has begun.
    fn is_settling(&self) -> bool {
        let moving = self.upsert.as_ref().is_some_and(|upsert| !upsert.moving.is_empty());
        self.payload.is_some() || !self.complete.is_empty() || moving
    }

    /// Fits rows to the table, and sees to it that each has a place in a file.
    async fn fit_and_place(&mut self, batch: &ChangeBatch, incoming: &Incoming<'_>) -> Result<RecordBatch> {
        let rows = self.fit(batch, incoming).await?;
        if let Some(open) = &self.open {
            open.writer
                .accepts(&rows)
                .map_err(|e| e.context(format!("{}, offset {}", batch.at, batch.offset.as_str())))?;
        }
        Ok(rows)
    }

    /// Gives rows of the stage the values that only the table has; those that lack one become letters, where the connector tolerates
    /// that.
    async fn complete(&mut self) -> Result<()> {
        let tolerant = self.settings.context.info().tolerance.dead_letters();
        for _ in 0..ROUNDS {
            let (Some(open), Some(base)) = (&mut self.open, &mut self.base) else { return Ok(()) };
            let Some(stage) = &mut open.stage else { return Ok(()) };
            let Some(wanted) = stage.wanted()? else { return Ok(()) };
            let schema = open.schema.clone();
            let fields = schema.as_struct().fields();
            let ids = |places: &[usize]| places.iter().map(|place| fields[*place].id).collect::<Vec<i32>>();
            match lookup::find(base, &ids(stage.key()), &wanted.keys, &ids(&wanted.columns)).await {
                Ok(found) => {
                    let lacking = stage.lacking(&wanted, &found);
                    check_lacking(&lacking, &schema, tolerant)?;
                    stage.complete(&wanted, &found)?;
                    return self.set_lacking_aside(lacking, &schema);
                }
                Err(error) if error.kind() == ErrorKind::Data && self.has_moved_on().await? => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.altered_all_the_time())
    }

    /// Makes letters of rows that lack a value.
    fn set_lacking_aside(&mut self, lacking: Vec<Lacking>, schema: &Schema) -> Result<()> {
        for lacking in lacking {
            let Whence { batch, row } = &lacking.whence;
            let bad = [(*row, lacking_error(&lacking, schema))];
            let letters = letters_of(batch, &bad)?;
            self.set_aside(batch, &bad, letters);
        }
        Ok(())
    }

    /// How many of the table's rows share their keys with newer ones.
    fn displaced(&self) -> Result<u64> {
        match &self.base {
            Some(base) => upsert::displaced(&base.metadata, self.settings.connector()),
            None => Ok(0),
        }
    }

    /// What the keys that are followed step by step come to; those of their rows that lack a value become letters, where the
    /// connector tolerates that.
    async fn follow(&mut self) -> Result<Outcome> {
        let tolerant = self.settings.context.info().tolerance.dead_letters();
        for _ in 0..ROUNDS {
            let any_displaced = self.displaced()? > 0;
            let (Some(upsert), Some(open), Some(base)) = (&mut self.upsert, &mut self.open, &mut self.base) else {
                return Ok(Outcome::default());
            };
            let Some(stage) = &mut open.stage else { return Ok(Outcome::default()) };
            let Some(keys) = stage.followed()? else { return Ok(Outcome::default()) };
            match held(upsert, stage, base, &open.schema, &keys, any_displaced).await {
                Ok((found, held)) => {
                    let schema = open.schema.clone();
                    let mut outcome = stage.outcome(&found, &held)?;
                    check_lacking(&outcome.lacking, &schema, tolerant)?;
                    stage.refuse_lacking(&outcome);
                    self.set_lacking_aside(std::mem::take(&mut outcome.lacking), &schema)?;
                    return Ok(outcome);
                }
                Err(error) if error.kind() == ErrorKind::Data && self.has_moved_on().await? => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.altered_all_the_time())
    }

    /// Whether somebody else has committed to the table since it was loaded, so that files which it had then may be gone.
    async fn has_moved_on(&mut self) -> Result<bool> {
        let head = |table: &Self| table.base.as_ref().and_then(|base| base.head().map(|head| head.snapshot_id()));
        let before = head(self);
        self.reload().await?;
        Ok(head(self) != before)
    }

    /// The other partitions of a stream, as far as this task or the table knows of them, or may not know.
    fn other_partitions(&self, at: &StreamPartition) -> Result<Vec<String>> {
        let known = match &self.base {
            Some(base) => token::read_all(&base.metadata, self.settings.connector())?,
            None => BTreeMap::new(),
        };
        let others = self.owned.keys().chain(known.keys());
        let others = others.filter(|other| other.stream == at.stream && other.partition != at.partition);
        let mut others: BTreeSet<String> = others.map(|other| other.partition.clone()).collect();
        if others.is_empty() && self.settings.context.info().tasks > 1 {
            // They may be another task's, and have no rows yet.
            others.insert("those of other tasks".to_owned());
        }
        Ok(others.into_iter().collect())
    }

    /// Refuses a TRUNCATE that is not to be applied or ignored, or of which nobody knows what comes before it.
    fn check_truncate(&mut self, batch: &ChangeBatch, truncate: Truncate, others: &[String]) -> Result<()> {
        let StreamPartition { stream, partition } = &batch.at;
        match truncate {
            Truncate::Fail => Err(Error::config(format!(
                "truncate: stream {stream}, offset {}: the source was truncated, and `truncate` says fail; allowed are apply (without \
                 deletes: soft) and ignore",
                batch.offset.as_str()
            ))),
            Truncate::Ignore => {
                if self.said.insert(format!("{stream} TRUNCATE")) {
                    tracing::warn!(%stream, table = %self.name, "the source was truncated; `truncate: ignore` lets the table's rows stay");
                }
                Ok(())
            }
            Truncate::Apply => {
                if others.is_empty() {
                    tracing::warn!(%stream, table = %self.name, "the source was truncated: the table's rows are removed");
                    return Ok(());
                }
                Err(Error::config(format!(
                    "truncate: stream {stream}, partition {partition}, offset {}: the source was truncated, and nothing tells which rows \
                     of the stream's other partitions ({}) came before that; allowed are `truncate: ignore`, or a topic of one partition",
                    batch.offset.as_str(),
                    others.join(", ")
                )))
            }
        }
    }

    /// Moves the rows that are to be written from the stage to the writer, and adds what removes the rows that they replace.
    ///
    /// # Errors
    /// Unavailable: nothing is lost, and it can be called again.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.complete().await?;
        let mut outcome = self.follow().await?;
        self.remove_replaced(&mut outcome).await?;
        let (Some(upsert), Some(open)) = (&mut self.upsert, &mut self.open) else { return Ok(()) };
        if let Some(stage) = open.stage.as_mut().filter(|stage| !stage.is_empty()) {
            upsert.moving = stage.take()?;
            upsert.moving.append(&mut outcome.rows);
            upsert.displaced += outcome.displaced;
        }
        while let Some(rows) = upsert.moving.front() {
            open.writer.write(rows).await?;
            upsert.moving.pop_front();
        }
        Ok(())
    }

    /// Refuses to widen a column by which the table deletes: readers do not bring what is in delete files to the column's new type.
    pub(super) async fn check_widened_key(&mut self, changes: &[Change]) -> Result<()> {
        let Some(base) = &mut self.base else { return Ok(()) };
        let metadata = base.metadata.clone();
        let schema = metadata.current_schema();
        let is_of_key = |change: &&Change| {
            let field = schema.field_id_by_name(&change.column);
            matches!(change.what, What::Widen { .. })
                && field.is_some_and(|id| schema.identifier_field_ids().any(|key| key == id))
        };
        let Some(change) = changes.iter().find(is_of_key) else { return Ok(()) };
        if !base.has_deletes().await? {
            return Ok(());
        }
        Err(Error::config(format!(
            "table {}: column {:?} of its key becomes wider at the source ({change}), and the table has equality deletes of the narrower \
             type, which readers cannot compare with the wider one. Nothing was acknowledged. Let a compaction apply and remove them \
             while the connector is stopped (Spark: rewrite_data_files with rewrite-all and remove-dangling-deletes), then start it again",
            self.name, change.column
        )))
    }

    /// Adds to the commit what removes the rows that those of the stage replace.
    async fn remove_replaced(&mut self, outcome: &mut Outcome) -> Result<()> {
        let options = self.settings.writer;
        for _ in 0..ROUNDS {
            let (Some(upsert), Some(open), Some(base)) = (&mut self.upsert, &mut self.open, &mut self.base) else {
                return Ok(());
            };
            let Some(stage) = open.stage.as_ref().filter(|stage| !stage.is_empty()) else { return Ok(()) };
            let (removed, added) = (outcome.removed.clone(), outcome.added.clone());
            let changed = [stage.changed()?, removed].concat();
            if upsert.truncated {
                upsert.removal.remove_nothing([changed, added].concat());
                return Ok(());
            }
            match upsert.removal.remove(base, &open.schema, options, (changed, added)).await {
                Ok(files) => {
                    self.complete.extend(files);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Data && self.has_moved_on().await? => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.altered_all_the_time())
    }

    /// Makes the table one of mode upsert, whose rows these fields identify: by a commit of its own, where it is none yet. Whether it
    /// has altered it.
    pub(super) async fn identify(&mut self, stream: &StreamName, key: &[i32]) -> Result<bool> {
        let mut altered = false;
        for _ in 0..ROUNDS {
            let Some(base) = &mut self.base else { return Err(Error::internal("a table without metadata")) };
            let Some(request) = upsert::adoption(&self.name, stream, base, key).await? else { return Ok(altered) };
            self.alter(request).await?;
            altered = true;
        }
        Err(self.altered_all_the_time())
    }
}

/// What the table holds of the keys that are followed, as far as it matters: the rows that were found, with all columns, and
/// by key which of them are its.
async fn held(
    upsert: &mut Upsert,
    stage: &Stage,
    base: &mut Base,
    schema: &SchemaRef,
    keys: &RecordBatch,
    any_displaced: bool,
) -> Result<(RecordBatch, Vec<HeldRows>)> {
    let nothing = RecordBatch::new_empty(stage.schema().clone());
    if upsert.truncated {
        return Ok((nothing, vec![HeldRows::Known(Vec::new()); keys.num_rows()]));
    }
    let may_hold = upsert.removal.may_hold(base, schema, keys).await?;
    let matters = if any_displaced { may_hold.clone() } else { stage.matters(&may_hold) };
    let unknown = |may_hold: &bool| if *may_hold { HeldRows::Unknown } else { HeldRows::Known(Vec::new()) };
    let mut held: Vec<HeldRows> = may_hold.iter().map(unknown).collect();
    if !matters.contains(&true) {
        return Ok((nothing, held));
    }
    let wanted = filter_record_batch(keys, &BooleanArray::from(matters.clone())).map_err(failed)?;
    let fields = schema.as_struct().fields();
    let key: Vec<i32> = stage.key().iter().map(|place| fields[*place].id).collect();
    let columns: Vec<i32> = fields.iter().map(|field| field.id).collect();
    let FoundAll { rows, places } = if any_displaced {
        lookup::find_all(base, &key, &wanted, &columns).await?
    } else {
        lookup::find(base, &key, &wanted, &columns).await?.into()
    };
    let found = held.iter_mut().zip(&matters).filter(|(_, matters)| **matters);
    found.zip(places).for_each(|((held, _), places)| *held = HeldRows::Known(places));
    Ok((rows, held))
}

/// Refuses rows that lack a value, where the connector does not tolerate that.
fn check_lacking(lacking: &[Lacking], schema: &Schema, tolerant: bool) -> Result<()> {
    match lacking.first() {
        Some(first) if !tolerant => {
            let Whence { batch, row } = &first.whence;
            let at = format!("{}, offset {}, row {row}", batch.at, batch.offset.as_str());
            Err(lacking_error(first, schema).context(at))
        }
        _ => Ok(()),
    }
}

fn lacking_error(lacking: &Lacking, schema: &Schema) -> Error {
    Error::data(format!(
        "column {:?}: its value was not sent with this change of the row, and the table holds no such row to take it from",
        schema.as_struct().fields()[lacking.column].name
    ))
}

fn taken(rows: &RecordBatch, kept: &[usize]) -> Result<RecordBatch> {
    let kept: UInt32Array = kept.iter().map(|row| u32::try_from(*row).ok()).collect();
    take_record_batch(rows, &kept).map_err(failed)
}

fn failed(error: arrow::error::ArrowError) -> Error {
    Error::internal("rows cannot be chosen from a batch").with_source(error)
}
