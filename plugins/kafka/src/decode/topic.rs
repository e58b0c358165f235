//! What the formats share: a topic's schemas and their ids, and how a row begins and ends.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use philotes_sdk::batch::{META_KEY, META_STREAM, RESERVED_PREFIX, reserved_fields, unchanged_field};
use philotes_sdk::{Error, Result, StreamName};

use super::batch::{Change, Layout, OpenBatch};
use super::column::ColumnSpec;
use super::{Built, Refusal, kafka_columns};
use crate::config::MetadataColumn;
use crate::message::Message;

/// A topic, whatever its format.
pub(crate) struct Topic {
    stream: StreamName,
    wanted: Vec<MetadataColumn>,
    layouts: u64,
    /// A row left columns out: from then on every batch says which.
    unchanged: bool,
    schemas: Vec<SchemaRef>,
    /// The schema of the last batch, by its layout and whether it says what was left out.
    last: Option<(u64, bool, usize)>,
}

impl Topic {
    pub(super) fn new(stream: StreamName, wanted: &[MetadataColumn]) -> Self {
        Self { stream, wanted: wanted.to_vec(), layouts: 0, unchanged: false, schemas: Vec::new(), last: None }
    }

    pub(crate) fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// The id of a layout that is new.
    pub(crate) fn layout_id(&mut self) -> u64 {
        self.layouts += 1;
        self.layouts
    }

    /// A layout of these columns.
    ///
    /// # Errors
    /// Where a column has a name that is reserved, or two have one.
    pub(crate) fn layout(&mut self, columns: Vec<ColumnSpec>, key: Arc<[String]>) -> Result<Arc<Layout>, Refusal> {
        for (at, column) in columns.iter().enumerate() {
            check_name(&column.name)?;
            if columns[..at].iter().any(|other| other.name == column.name) {
                return Err(Refusal::new("the schema has the member twice").of(&column.name));
            }
        }
        if let Some(missing) = key.iter().find(|name| columns.iter().all(|column| column.name != **name)) {
            return Err(Refusal::new("a key column that the row's schema has not").of(missing));
        }
        Ok(Arc::new(Layout { id: self.layout_id(), columns, key }))
    }

    /// Makes the batch ready for a row of this layout; `false` where it has to be closed first.
    pub(crate) fn begin(&self, batch: &mut OpenBatch, layout: &Layout, initial_load: bool) -> bool {
        if batch.rows() > 0 {
            return batch.layout == layout.id && batch.initial_load == initial_load;
        }
        if batch.layout != layout.id {
            batch.begin(layout);
        }
        batch.initial_load = initial_load;
        true
    }

    /// Ends the row: columns without a value are null, those in `left_out` are named in `_cdc_unchanged`.
    pub(crate) fn end_row(
        &mut self,
        batch: &mut OpenBatch,
        message: &Message<'_>,
        change: &Change<'_>,
    ) -> Result<(), Refusal> {
        self.unchanged |= !batch.left_out.is_empty();
        batch.end_row(message, change, &self.wanted, self.unchanged)
    }

    pub(super) fn close(&mut self, batch: &mut OpenBatch) -> Result<Option<Built>> {
        let rows = batch.rows();
        if rows == 0 {
            return Ok(None);
        }
        let at = self.schema(batch);
        let arrays = batch.finish().map_err(|error| self.mismatch(error))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch_rows = RecordBatch::try_new_with_options(Arc::clone(&self.schemas[at]), arrays, &options)
            .map_err(|error| self.mismatch(error))?;
        Ok(Some(Built { rows: batch_rows, schema_id: at as u64 + 1, initial_load: batch.initial_load }))
    }

    fn mismatch(&self, error: arrow::error::ArrowError) -> Error {
        Error::internal(format!("stream {}: the batch does not match its schema", self.stream)).with_source(error)
    }

    /// Where the batch's schema is among those that the topic had: one that comes back gets the id it had.
    fn schema(&mut self, batch: &OpenBatch) -> usize {
        let unchanged = batch.has_unchanged();
        if let Some((layout, same, at)) = self.last
            && (layout, same) == (batch.layout, unchanged)
        {
            return at;
        }
        let mut fields: Vec<_> = batch.columns.iter().map(|column| column.spec.field()).collect();
        // The reserved columns close the schema.
        fields.extend(kafka_columns::fields(&self.wanted));
        fields.extend(reserved_fields());
        fields.extend(unchanged.then(unchanged_field));
        // A TRUNCATE may be the first that is heard of a topic.
        let known = batch.key.iter().all(|name| batch.index.contains_key(name));
        let key: &[String] = if known { &batch.key } else { &[] };
        let metadata = HashMap::from([
            (META_STREAM.to_owned(), self.stream.to_string()),
            (META_KEY.to_owned(), serde_json::json!(key).to_string()),
        ]);
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let at = self.schemas.iter().position(|known| *known == schema).unwrap_or_else(|| {
            self.schemas.push(schema);
            self.schemas.len() - 1
        });
        self.last = Some((batch.layout, unchanged, at));
        at
    }
}

/// Whether a row's own column may have this name.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Refusal::new("names that begin with _cdc_ are reserved").of(name));
    }
    if kafka_columns::NAMES.contains(&name) {
        return Err(Refusal::new("the name is reserved for what Kafka says of a message").of(name));
    }
    Ok(())
}

/// The key of a row is there, and not null.
pub(crate) fn check_key(batch: &OpenBatch) -> Result<(), Refusal> {
    for name in batch.key.iter() {
        let at = batch.index.get(name).copied();
        if !at.is_some_and(|at| batch.has(at) && !batch.columns[at].values.last_is_null()) {
            return Err(Refusal::new("a key column that is null or missing").of(name));
        }
    }
    Ok(())
}
