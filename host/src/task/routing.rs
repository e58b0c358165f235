//! Which streams a connector takes, and the names they go by at the sink.
//!
//! The source and everything it is told use the source's names; the sink sees only its own. Both directions are here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use philotes_sdk::batch::META_STREAM;
use philotes_sdk::{ChangeBatch, Error, Result, Route, StreamName, StreamPartition};

/// The route of a connector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routing {
    route: Route,
    to_sink: BTreeMap<StreamName, StreamName>,
    to_source: HashMap<StreamName, StreamName>,
}

impl Routing {
    pub(crate) fn new(route: Route, rename: BTreeMap<StreamName, StreamName>) -> Self {
        let to_source = rename.iter().map(|(from, to)| (to.clone(), from.clone())).collect();
        Self { route, to_sink: rename, to_source }
    }

    /// Whether the stream is taken.
    ///
    /// # Errors
    /// Config, when another stream is renamed to this one's name: their offsets would be mixed.
    pub(crate) fn wants(&self, stream: &StreamName) -> Result<bool> {
        if !self.route.wants(stream) {
            return Ok(false);
        }
        match self.to_source.get(stream) {
            Some(other) if other != stream && !self.to_sink.contains_key(stream) => Err(Error::config(format!(
                "route.rename.{other}: {other} is renamed to {stream}, and a stream {stream} exists as well; \
                 allowed: one stream per name"
            ))),
            _ => Ok(true),
        }
    }

    /// The name at the sink.
    pub(crate) fn to_sink(&self, at: &StreamPartition) -> StreamPartition {
        renamed(&self.to_sink, at)
    }

    /// The name at the source.
    pub(crate) fn to_source(&self, at: &StreamPartition) -> StreamPartition {
        match self.to_source.get(&at.stream) {
            Some(stream) => StreamPartition { stream: stream.clone(), partition: at.partition.clone() },
            None => at.clone(),
        }
    }

    fn is_renamed(&self, stream: &StreamName) -> bool {
        self.to_sink.contains_key(stream)
    }
}

fn renamed(names: &BTreeMap<StreamName, StreamName>, at: &StreamPartition) -> StreamPartition {
    match names.get(&at.stream) {
        Some(stream) => StreamPartition { stream: stream.clone(), partition: at.partition.clone() },
        None => at.clone(),
    }
}

/// Gives batches their name at the sink. Keeps one schema per stream, so that its batches go on sharing one.
#[derive(Default)]
pub(crate) struct Renamer {
    schemas: HashMap<StreamName, (SchemaRef, SchemaRef)>,
}

impl Renamer {
    pub(crate) fn rename(&mut self, routing: &Routing, mut batch: ChangeBatch) -> Result<ChangeBatch> {
        if !routing.is_renamed(&batch.at.stream) {
            return Ok(batch);
        }
        let at = routing.to_sink(&batch.at);
        let original = batch.rows.schema();
        let cached =
            self.schemas.get(&batch.at.stream).filter(|(from, _)| Arc::ptr_eq(from, &original) || *from == original);
        let schema = match cached {
            Some((_, to)) => Arc::clone(to),
            None => {
                let mut metadata = original.metadata().clone();
                metadata.insert(META_STREAM.to_owned(), at.stream.to_string());
                let schema = Arc::new(Schema::new_with_metadata(original.fields().clone(), metadata));
                self.schemas.insert(batch.at.stream.clone(), (original, Arc::clone(&schema)));
                schema
            }
        };
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.rows.num_rows()));
        batch.rows = RecordBatch::try_new_with_options(schema, batch.rows.columns().to_vec(), &options)
            .map_err(|error| Error::internal(format!("cannot rename a batch of {}", batch.at)).with_source(error))?;
        batch.at = at;
        Ok(batch)
    }
}
