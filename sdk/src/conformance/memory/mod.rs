//! A source and a sink in memory, both named `memory`: the smallest that keep the contract.
//!
//! Their systems are [`MemoryStore`]s, named and shared by the whole process, so that a reopened or a second instance finds
//! what the first one left. They die with the process; offsets that a store wrote are understood by a later
//! process's store of that name once it holds as many rows again.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use tokio::sync::Notify;

use super::KEYS;
use crate::{Offset, StreamName, StreamPartition};

mod actions;
#[cfg(test)]
mod faults;
mod sink;
mod source;

pub use sink::{MemoryConfig, MemorySink};
pub use source::{MemorySource, MemorySourceConfig};

/// The stores of this process.
static STORES: Mutex<BTreeMap<String, Arc<MemoryStore>>> = Mutex::new(BTreeMap::new());

/// The system behind [`MemorySource`] and [`MemorySink`]: logs that a source reads, tables that a sink writes.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    /// Rows arrived.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<StreamPartition, Log>,
    /// Streams whose rows have the column `added` from now on.
    widened: HashMap<StreamName, bool>,
    /// How often a source has claimed the store.
    epoch: u64,
    tables: BTreeMap<StreamName, Vec<RecordBatch>>,
    /// By connector and partition.
    offsets: HashMap<(String, StreamPartition), Offset>,
    out_of_reach: bool,
}

/// The rows of a partition, and how many of them were acknowledged.
#[derive(Debug, Default)]
struct Log {
    rows: Vec<Row>,
    acknowledged: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    id: i64,
    number: i64,
    /// It has the column `added`.
    widened: bool,
}

impl MemoryStore {
    /// The process's store of this name, created where it is missing.
    #[must_use]
    pub fn named(name: &str) -> Arc<Self> {
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        stores.entry(name.to_owned()).or_default().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one row per number into the stream's partitions, by key: `number` modulo [`KEYS`].
    pub fn put(&self, stream: &StreamName, partitions: u32, numbers: Range<i64>) {
        let mut state = self.state();
        let widened = state.widened.get(stream).copied().unwrap_or_default();
        for number in numbers {
            let id = number.rem_euclid(KEYS);
            let partition = (id % i64::from(partitions.max(1))).to_string();
            let at = StreamPartition { stream: stream.clone(), partition };
            state.logs.entry(at).or_default().rows.push(Row { id, number, widened });
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Rows of this stream have the column `added` from now on.
    pub fn add_column(&self, stream: &StreamName) {
        self.state().widened.insert(stream.clone(), true);
    }

    /// How many rows no acknowledgement has covered.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.state().logs.values().map(|log| (log.rows.len() - log.acknowledged) as u64).sum()
    }

    /// What the sink wrote to a stream's table, in order.
    #[must_use]
    pub fn table(&self, stream: &StreamName) -> Vec<RecordBatch> {
        self.state().tables.get(stream).cloned().unwrap_or_default()
    }

    /// The offset that the sink holds for a connector's partition.
    #[must_use]
    pub fn offset(&self, connector: &str, at: &StreamPartition) -> Option<Offset> {
        self.state().offsets.get(&(connector.to_owned(), at.clone())).cloned()
    }

    /// Puts the store out of the reach of sources and sinks, or back.
    pub fn set_out_of_reach(&self, out_of_reach: bool) {
        self.state().out_of_reach = out_of_reach;
    }
}
