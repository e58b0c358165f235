//! The function table of a source.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::ffi::FFI_ArrowSchema;

use super::Plugin;
use super::instance::{Instance, State};
use crate::abi::{
    self, Batch, ErrorText, LentPartitions, Partition, PollResult, Position, Sized32, SourceTable, Text, export_rows,
    read_partition, read_positions,
};
use crate::{ChangeBatch, Error, Offset, Poll, Result, Source, StreamName, StreamPartition};

type SourceOf<S> = Instance<<S as Source>::Config, Open<S>>;

/// An open source, and what the host was lent by the last poll.
struct Open<S> {
    source: S,
    described: HashMap<StreamName, HashMap<u64, SchemaRef>>,
    partitions: LentPartitions,
    offset: Option<Offset>,
}

pub(super) fn table<P: Plugin, S: Source>() -> SourceTable {
    SourceTable {
        struct_size: SourceTable::SIZE,
        reserved: 0,
        create: Some(create::<P, S>),
        open: Some(open::<S>),
        poll: Some(poll::<S>),
        resume: Some(resume::<S>),
        commit: Some(commit::<S>),
        cancel: Some(cancel::<S>),
        close: Some(close::<S>),
        destroy: Some(destroy::<S>),
    }
}

unsafe extern "C" fn create<P: Plugin, S: Source>(
    host: *const abi::Host,
    config: Text,
    task: Text,
    instance: *mut *mut c_void,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with the ABI's arguments.
    unsafe { SourceOf::<S>::create::<P>(S::NAME, host, config, task, instance, error) }
}

unsafe extern "C" fn open<S: Source>(instance: *mut c_void, error: *mut ErrorText) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made.
    unsafe {
        SourceOf::<S>::call(instance, "open", error, |state, scope| {
            let source = scope.runtime.block_on(S::open(state.take_config()?, scope.context.clone()))?;
            *state = State::Open(Open {
                source,
                described: HashMap::new(),
                partitions: LentPartitions::default(),
                offset: None,
            });
            Ok(())
        })
    }
}

unsafe extern "C" fn poll<S: Source>(
    instance: *mut c_void,
    timeout_ms: u64,
    max_bytes: u64,
    result: *mut PollResult,
    batch: *mut Batch,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made, and lends both out structs.
    unsafe {
        SourceOf::<S>::call(instance, "poll", error, |state, scope| {
            let open = state.opened()?;
            let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
            let polled = scope.runtime.block_on(open.source.poll(Duration::from_millis(timeout_ms), max_bytes))?;
            let mut said = PollResult::zeroed();
            match polled {
                Poll::Batch(rows) => {
                    said.outcome = abi::POLL_BATCH;
                    open.lend_batch(rows)?.write_to(batch);
                }
                Poll::Idle { caught_up } => {
                    said.outcome = abi::POLL_IDLE;
                    said.caught_up = u32::from(caught_up);
                }
                Poll::End => said.outcome = abi::POLL_END,
                Poll::Announce(at) => open.lend_partitions(abi::POLL_ANNOUNCE, at, &mut said)?,
                Poll::Revoke(at) => open.lend_partitions(abi::POLL_REVOKE, at, &mut said)?,
            }
            said.write_to(result);
            Ok(())
        })
    }
}

impl<S: Source> Open<S> {
    fn lend_partitions(&mut self, outcome: u32, at: Vec<StreamPartition>, said: &mut PollResult) -> Result<()> {
        if at.is_empty() {
            return Err(Error::internal(format!("{} announced or revoked nothing", S::NAME)));
        }
        self.partitions = LentPartitions::new(at);
        said.outcome = outcome;
        said.partition_count = self.partitions.count();
        said.partitions = self.partitions.as_ptr();
        Ok(())
    }

    fn lend_batch(&mut self, batch: ChangeBatch) -> Result<Batch> {
        let mut lent = Batch::zeroed();
        let schema = batch.rows.schema();
        let described = self.described.entry(batch.at.stream.clone()).or_default();
        match described.get(&batch.schema_id) {
            // The host would read the columns by the schema that it knows.
            Some(known) if !Arc::ptr_eq(known, &schema) && **known != *schema => {
                return Err(Error::internal(format!(
                    "{} used schema id {} of stream {} for two schemas",
                    S::NAME,
                    batch.schema_id,
                    batch.at.stream
                )));
            }
            Some(_) => {}
            None => {
                lent.schema = FFI_ArrowSchema::try_from(schema.as_ref()).map_err(|e| {
                    Error::internal(format!("the schema of {} cannot be exported", batch.at.stream)).with_source(e)
                })?;
                described.insert(batch.schema_id, schema);
            }
        }
        if batch.ends_transaction {
            lent.flags |= abi::BATCH_ENDS_TRANSACTION;
        }
        if batch.initial_load {
            lent.flags |= abi::BATCH_INITIAL_LOAD;
        }
        if batch.dead_letters {
            lent.flags |= abi::BATCH_DEAD_LETTERS;
        }
        lent.schema_id = batch.schema_id;
        lent.array = export_rows(&batch.rows);
        lent.bytes = batch.bytes() as u64;
        lent.newest_micros = batch.newest_micros;
        self.partitions = LentPartitions::new(vec![batch.at]);
        lent.at = self.partitions.first();
        lent.offset = Text::lend(self.offset.insert(batch.offset).as_str());
        Ok(lent)
    }
}

unsafe extern "C" fn resume<S: Source>(
    instance: *mut c_void,
    at: *const Partition,
    offset: *const Text,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made, and lends the rest.
    unsafe {
        SourceOf::<S>::call(instance, "resume", error, |state, scope| {
            let open = state.opened()?;
            let at = read_partition(at)?;
            let offset = offset.as_ref().map(|offset| Offset::new(offset.read("an offset")?)).transpose()?;
            scope.runtime.block_on(open.source.resume(&at, offset.as_ref()))
        })
    }
}

unsafe extern "C" fn commit<S: Source>(
    instance: *mut c_void,
    positions: *const *const Position,
    count: u32,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made, and lends the positions.
    unsafe {
        SourceOf::<S>::call(instance, "commit", error, |state, scope| {
            let open = state.opened()?;
            let offsets = read_positions(positions, count)?;
            scope.runtime.block_on(open.source.commit(&offsets))
        })
    }
}

unsafe extern "C" fn cancel<S: Source>(instance: *mut c_void) {
    // SAFETY: the host calls with an instance that `create` of this table made.
    unsafe { SourceOf::<S>::cancel(instance) }
}

unsafe extern "C" fn close<S: Source>(instance: *mut c_void, timeout_ms: u64, error: *mut ErrorText) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made.
    unsafe {
        SourceOf::<S>::call(instance, "close", error, |state, scope| match state.take_open() {
            Some(open) => scope.runtime.block_on(open.source.close(Duration::from_millis(timeout_ms))),
            None => Ok(()),
        })
    }
}

unsafe extern "C" fn destroy<S: Source>(instance: *mut c_void) {
    // SAFETY: the host calls with an instance that `create` of this table made, for the last time.
    unsafe { SourceOf::<S>::destroy(instance) }
}
