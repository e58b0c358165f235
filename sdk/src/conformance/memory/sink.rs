//! The sink in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{MemoryStore, State, actions};
use crate::{
    Action, ActionOutput, ChangeBatch, Committed, Error, Flushed, Offset, Plan, PlannedColumn, Result, Sink,
    StreamOffset, StreamPartition, TaskContext, dead_letter,
};

/// The configuration of [`MemorySink`].
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Name of the process-wide store.
    pub store: String,
}

/// Keeps rows and offsets in a [`MemoryStore`]. Of dead letters it keeps the offset and how many there were.
#[derive(Debug)]
pub struct MemorySink {
    store: Arc<MemoryStore>,
    connector: String,
    /// The offsets of the announced partitions, as this instance read or wrote them: whoever changes them fences it.
    owned: HashMap<StreamPartition, Option<Offset>>,
    pending: Vec<ChangeBatch>,
}

#[async_trait]
impl Sink for MemorySink {
    const NAME: &'static str = "memory";
    const DOC: &'static str = "Keeps rows in memory, for tests.";
    const DEAD_LETTERS: bool = true;
    type Config = MemoryConfig;

    async fn open(config: MemoryConfig, context: TaskContext) -> Result<Self> {
        Ok(Self {
            store: MemoryStore::named(&config.store),
            connector: context.info().connector.clone(),
            owned: HashMap::new(),
            pending: Vec::new(),
        })
    }

    async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        let state = self.store.state();
        in_reach(&state)?;
        let key = |at: &StreamPartition| (self.connector.clone(), at.clone());
        let offsets: Vec<_> = at.iter().map(|at| state.offsets.get(&key(at)).cloned()).collect();
        self.owned.extend(at.iter().cloned().zip(offsets.iter().cloned()));
        Ok(offsets)
    }

    async fn revoke(&mut self, at: &[StreamPartition]) -> Result<()> {
        at.iter().for_each(|at| drop(self.owned.remove(at)));
        Ok(())
    }

    async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        if !self.owned.contains_key(&batch.at) {
            return Err(Error::internal(format!("rows of {} before its offset was asked for", batch.at)));
        }
        if batch.dead_letters {
            dead_letter::check(&batch.rows.schema())?;
            self.pending.push(batch.clone());
            return Ok(());
        }
        let schema = batch.rows.schema();
        let state = self.store.state();
        let written = state.tables.get(&batch.at.stream).into_iter().flatten().map(|rows| rows.schema());
        let same_stream =
            self.pending.iter().filter(|pending| pending.at.stream == batch.at.stream && !pending.dead_letters);
        for known in written.chain(same_stream.map(|pending| pending.rows.schema())) {
            check_types(batch, &schema, &known)?;
        }
        drop(state);
        self.pending.push(batch.clone());
        Ok(())
    }

    async fn flush(&mut self) -> Result<Flushed> {
        let mut state = self.store.state();
        in_reach(&state)?;
        let key = |at: &StreamPartition| (self.connector.clone(), at.clone());
        if let Some(batch) =
            self.pending.iter().find(|batch| state.offsets.get(&key(&batch.at)) != self.owned[&batch.at].as_ref())
        {
            return Err(Error::fenced(format!("{}: another task has committed to it", batch.at)));
        }
        // Under the store's lock: nobody sees rows without their offset.
        let mut flushed = Flushed::default();
        let mut durable: HashMap<StreamPartition, Offset> = HashMap::new();
        for ChangeBatch { at, rows, offset, dead_letters, .. } in self.pending.drain(..) {
            let letters = dead_letters.then_some(rows.num_rows() as u64);
            flushed.commits.push(Committed {
                table: at.stream.to_string(),
                rows: if dead_letters { 0 } else { rows.num_rows() as u64 },
                bytes: rows.get_array_memory_size() as u64,
                ..Committed::default()
            });
            state.offsets.insert((self.connector.clone(), at.clone()), offset.clone());
            self.owned.insert(at.clone(), Some(offset.clone()));
            match letters {
                Some(count) => flushed.dead_letters.push((at.clone(), count)),
                None => state.tables.entry(at.stream.clone()).or_default().push(rows),
            }
            durable.insert(at, offset);
        }
        flushed.durable = durable.into_iter().map(|(at, offset)| StreamOffset { at, offset }).collect();
        Ok(flushed)
    }

    fn buffered_bytes(&self) -> usize {
        self.pending.iter().map(ChangeBatch::bytes).sum()
    }

    async fn close(self, _timeout: Duration) -> Result<()> {
        Ok(())
    }

    async fn plan(
        config: MemoryConfig,
        _context: TaskContext,
        at: &StreamPartition,
        schema: SchemaRef,
    ) -> Result<Plan> {
        let exists = MemoryStore::named(&config.store).state().tables.contains_key(&at.stream);
        let columns = schema.fields().iter().map(|field| PlannedColumn {
            name: field.name().clone(),
            source_type: field.data_type().to_string(),
            target_type: field.data_type().to_string(),
            required: !field.is_nullable(),
            ..PlannedColumn::default()
        });
        Ok(Plan {
            table: at.stream.to_string(),
            change: if exists { "none" } else { "create" }.to_owned(),
            columns: columns.collect(),
            ..Plan::default()
        })
    }

    fn actions() -> Vec<Action> {
        actions::actions()
    }

    async fn act(
        config: MemoryConfig,
        _context: TaskContext,
        action: &str,
        arguments: serde_json::Value,
    ) -> Result<ActionOutput> {
        actions::act(&MemoryStore::named(&config.store), action, &arguments)
    }
}

fn in_reach(state: &State) -> Result<()> {
    if state.out_of_reach { Err(Error::unavailable("the store is out of reach")) } else { Ok(()) }
}

/// A column keeps its type.
fn check_types(batch: &ChangeBatch, schema: &Schema, known: &Schema) -> Result<()> {
    for field in schema.fields() {
        if let Ok(known) = known.field_with_name(field.name())
            && known.data_type() != field.data_type()
        {
            return Err(Error::data(format!(
                "{}, offset {}: column {:?} is {}, in the table it is {}",
                batch.at,
                batch.offset.as_str(),
                field.name(),
                field.data_type(),
                known.data_type()
            )));
        }
    }
    Ok(())
}
