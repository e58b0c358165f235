//! How the rows that a table holds of some keys are removed: by equality deletes.
//!
//! This is the one place that decides it. Whatever else may remove a row (a deletion vector, once an index says where the row is)
//! takes the same keys and gives back the files that the commit adds.
//!
//! The deletes lie under a specification without fields, which makes them global: they reach every row that was committed before,
//! in whatever partition and specification it lies. A row may have moved since, and a delete in its new partition would leave the old
//! one where it was. One file per commit is enough so.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::not;
use arrow::error::ArrowError;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{PartitionSpecRef, Schema, SchemaRef, TableMetadata};
use philotes_sdk::{Error, Result};

use super::key::Key;
use super::known::{FilterBudget, Known};
use super::stage::ChangedKeys;
use crate::base::Base;
use crate::manifests::AddedFile;
use crate::snapshot::Attempt;
use crate::writer::{TableWriter, WriterOptions, WriterTarget};

/// Removes the rows of keys.
#[derive(Debug)]
pub(crate) struct Removal {
    known: Known,
    /// The keys of the commit under way.
    changed: Vec<ChangedKeys>,
    /// Those of them of which the table held nothing.
    new: Vec<ChangedKeys>,
    /// The head that this was true of.
    head: Option<i64>,
}

impl Removal {
    pub(crate) fn new(budget: Arc<FilterBudget>) -> Self {
        Self { known: Known::new(budget), changed: Vec::new(), new: Vec::new(), head: None }
    }

    /// Writes what removes the rows that the table holds of these keys, in the base's state, where it may hold any. All rows that the
    /// commit writes are of these keys, or of those that are `added`, of which nothing is removed.
    ///
    /// # Errors
    /// Unavailable: nothing is left behind, and it can be called again.
    pub(crate) async fn remove(
        &mut self,
        base: &mut Base,
        schema: &SchemaRef,
        options: WriterOptions,
        (changed, added): (Vec<ChangedKeys>, Vec<ChangedKeys>),
    ) -> Result<Vec<AddedFile>> {
        let files = self.remove_held(base, schema, options, &changed).await?;
        self.changed = [changed, added].concat();
        Ok(files)
    }

    /// For each of these keys, whether the table may hold it, as it is in this base.
    pub(crate) async fn may_hold(
        &mut self,
        base: &mut Base,
        schema: &SchemaRef,
        keys: &RecordBatch,
    ) -> Result<Vec<bool>> {
        let key = Key::of(schema).ok_or_else(no_key)?;
        let all = vec![true; keys.num_rows()];
        let keys = [ChangedKeys { columns: keys.clone(), inserted: all.clone(), live: all }];
        let may_hold = self.known.may_hold(base, &key, &keys).await?;
        Ok(may_hold.iter().flat_map(|may_hold| may_hold.values()).collect())
    }

    /// What else is to be removed where the commit goes onto another head than the one it was made for: somebody else may have
    /// committed rows of keys that were new.
    ///
    /// # Errors
    /// As those of [`remove`](Self::remove).
    pub(crate) async fn remove_more(
        &mut self,
        base: &mut Base,
        schema: &SchemaRef,
        options: WriterOptions,
    ) -> Result<Vec<AddedFile>> {
        if self.changed.is_empty() || self.head == base.head().map(|head| head.snapshot_id()) {
            return Ok(Vec::new());
        }
        let new = self.new.clone();
        self.remove_held(base, schema, options, &new).await
    }

    async fn remove_held(
        &mut self,
        base: &mut Base,
        schema: &SchemaRef,
        options: WriterOptions,
        keys: &[ChangedKeys],
    ) -> Result<Vec<AddedFile>> {
        let key = Key::of(schema).ok_or_else(no_key)?;
        let (mut held, mut new) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for (keys, may_hold) in keys.iter().zip(self.known.may_hold(base, &key, keys).await?) {
            held.push(keys.only(&may_hold)?);
            new.push(keys.only(&not(&may_hold).map_err(failed)?)?);
        }
        let files = if held.iter().any(|keys| keys.columns.num_rows() > 0) {
            write(base, schema, &key, options, &held).await?
        } else {
            Vec::new()
        };
        self.new = new;
        self.head = base.head().map(|head| head.snapshot_id());
        Ok(files)
    }

    /// The next commit empties the table.
    pub(crate) fn begin_anew(&mut self) {
        self.known.begin_anew();
    }

    /// Where the commit empties the table, nothing is left to remove of its keys.
    pub(crate) fn remove_nothing(&mut self, changed: Vec<ChangedKeys>) {
        (self.changed, self.new) = (changed, Vec::new());
    }

    /// A commit has succeeded.
    pub(crate) fn landed(&mut self, attempt: &Attempt) -> Result<()> {
        self.new.clear();
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            // Nobody has looked at the table for it: what others committed before it may be unknown.
            return Ok(());
        }
        changed.iter().try_for_each(|keys| self.known.note(&keys.written()?))?;
        self.known.covers(attempt.sequence_number);
        Ok(())
    }
}

fn no_key() -> Error {
    Error::internal("an upsert table without identifier fields")
}

fn failed(error: ArrowError) -> Error {
    Error::internal("keys cannot be chosen").with_source(error)
}

/// The specification of global deletes.
pub(super) fn global_spec(metadata: &TableMetadata) -> Option<&PartitionSpecRef> {
    metadata.partition_specs_iter().find(|spec| spec.fields().is_empty())
}

async fn write(
    base: &Base,
    schema: &SchemaRef,
    key: &Key,
    options: WriterOptions,
    keys: &[ChangedKeys],
) -> Result<Vec<AddedFile>> {
    let missing = || Error::internal("an upsert table without a specification for its deletes");
    let spec = global_spec(&base.metadata).ok_or_else(missing)?;
    let fields = key.places.iter().map(|place| schema.as_struct().fields()[*place].clone());
    let invalid = |e: iceberg::Error| Error::internal("the columns of the key make no schema").with_source(e);
    let of_key = Arc::new(Schema::builder().with_fields(fields).build().map_err(invalid)?);
    let arrow = Arc::new(schema_to_arrow_schema(&of_key).map_err(invalid)?);
    let target = WriterTarget::deletes(&base.metadata, of_key, spec.clone());
    // One file, however large.
    let options = WriterOptions { target_file_bytes: u64::MAX, ..options };
    let mut writer = TableWriter::new(base.files.clone(), target, options)?;
    for keys in keys {
        let keys = RecordBatch::try_new(arrow.clone(), keys.columns.columns().to_vec());
        writer.write(&keys.map_err(|e| Error::internal("keys do not fit their columns").with_source(e))?).await?;
    }
    let files = writer.finish().await?;
    Ok(files.into_iter().map(|file| AddedFile { file, schema: schema.clone(), spec: spec.clone() }).collect())
}
