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
use arrow::compute::filter_record_batch;
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
    /// The head that the files of the commit under way were made for.
    made_for: Option<i64>,
}

impl Removal {
    pub(crate) fn new(budget: Arc<FilterBudget>) -> Self {
        Self { known: Known::new(budget), made_for: None }
    }

    /// Writes what removes the rows that the table holds of these keys, in the base's state, where it may hold any. All rows that the
    /// commit writes are of these keys.
    ///
    /// # Errors
    /// Unavailable: nothing is left behind, and it can be called again.
    pub(crate) async fn remove(
        &mut self,
        base: &mut Base,
        schema: &SchemaRef,
        options: WriterOptions,
        changed: &[ChangedKeys],
    ) -> Result<Vec<AddedFile>> {
        let key = Key::of(schema).ok_or_else(|| Error::internal("an upsert table without identifier fields"))?;
        self.made_for = base.head().map(|head| head.snapshot_id());
        let may_hold = self.known.may_hold(base, &key, changed).await?;
        let held = changed.iter().zip(&may_hold).map(|(keys, held)| filter_record_batch(&keys.columns, held));
        let held = held.collect::<Result<Vec<_>, _>>();
        let held = held.map_err(|e| Error::internal("keys cannot be chosen").with_source(e))?;
        let files = if held.iter().any(|keys| keys.num_rows() > 0) {
            write(base, schema, &key, options, &held).await?
        } else {
            Vec::new()
        };
        changed.iter().try_for_each(|keys| self.known.note(&keys.columns))?;
        Ok(files)
    }

    /// The table is emptied by the next commit: nothing of it is left to remove.
    pub(crate) fn begin_anew(&mut self) {
        self.known.begin_anew();
    }

    /// The same where the commit empties the table, which leaves nothing to remove.
    pub(crate) fn remove_nothing(&mut self, changed: &[ChangedKeys]) -> Result<()> {
        changed.iter().try_for_each(|keys| self.known.note(&keys.columns))
    }

    /// A commit has succeeded.
    pub(crate) fn landed(&mut self, attempt: &Attempt) {
        // On another head there may be files in between, which are looked at with the next commit.
        if attempt.emptied || attempt.parent == self.made_for {
            self.known.covers(attempt.sequence_number);
        }
    }
}

/// The specification of global deletes.
pub(crate) fn global_spec(metadata: &TableMetadata) -> Option<&PartitionSpecRef> {
    metadata.partition_specs_iter().find(|spec| spec.fields().is_empty())
}

async fn write(
    base: &Base,
    schema: &SchemaRef,
    key: &Key,
    options: WriterOptions,
    keys: &[RecordBatch],
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
        let keys = RecordBatch::try_new(arrow.clone(), keys.columns().to_vec());
        writer.write(&keys.map_err(|e| Error::internal("keys do not fit their columns").with_source(e))?).await?;
    }
    let files = writer.finish().await?;
    Ok(files.into_iter().map(|file| AddedFile { file, schema: schema.clone(), spec: spec.clone() }).collect())
}
