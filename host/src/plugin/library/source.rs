//! A source of a loaded library.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::ffi::FFI_ArrowArray;
use philotes_sdk::abi::{
    self, Batch, ErrorText, LentPartitions, LentPositions, PollResult, Sized32, SourceTable, Text, Validation,
    has_schema, import_rows, import_schema, read_partition, read_partitions,
};
use philotes_sdk::{
    ChangeBatch, Error, Offset, Poll, Result, StreamName, StreamOffset, StreamPartition, TaskInfo, Tolerance,
    dead_letter,
};

use super::instance::{ForeignInstance, Life, millis};
use crate::plugin::{Cancel, Services, SourceInstance};

/// The functions of a source, all there.
#[derive(Clone, Copy)]
pub(super) struct SourceFunctions {
    life: Life,
    poll: Poller,
    resume: Resumer,
    commit: Committer,
}

type Poller = unsafe extern "C" fn(*mut std::ffi::c_void, u64, u64, *mut PollResult, *mut Batch, *mut ErrorText) -> u32;
type Resumer = unsafe extern "C" fn(*mut std::ffi::c_void, *const abi::Partition, *const Text, *mut ErrorText) -> u32;
type Committer = unsafe extern "C" fn(*mut std::ffi::c_void, *const *const abi::Position, u32, *mut ErrorText) -> u32;

impl SourceFunctions {
    /// The functions of a table, or `None` where one is missing.
    pub(super) fn new(table: &SourceTable) -> Option<Self> {
        Some(Self {
            life: Life {
                create: table.create?,
                open: table.open?,
                cancel: table.cancel?,
                close: table.close?,
                destroy: table.destroy?,
            },
            poll: table.poll?,
            resume: table.resume?,
            commit: table.commit?,
        })
    }
}

/// An open source of a plugin.
pub(super) struct ForeignSource {
    instance: ForeignInstance,
    functions: SourceFunctions,
    validation: Validation,
    tolerance: Tolerance,
    described: HashMap<StreamName, HashMap<u64, SchemaRef>>,
}

impl ForeignSource {
    pub(super) fn open(
        functions: SourceFunctions,
        validation: Validation,
        config: &str,
        task: &TaskInfo,
        services: Services,
    ) -> Result<Self> {
        let instance = ForeignInstance::open(functions.life, config, task, services)?;
        Ok(Self { instance, functions, validation, tolerance: task.tolerance, described: HashMap::new() })
    }

    /// Takes over what the plugin put into a batch.
    fn take_batch(&mut self, mut batch: Batch) -> Result<ChangeBatch> {
        // SAFETY: the plugin lends these until the next call into it.
        let (at, offset) = unsafe { (read_partition(batch.at)?, batch.offset.read("an offset")?) };
        let wrong = |e: Error| Error::internal(format!("a batch of {at}: {e}"));
        let offset = Offset::new(offset).map_err(wrong)?;
        let described = self.described.entry(at.stream.clone()).or_default();
        let known = described.get(&batch.schema_id).cloned();
        let schema = if has_schema(&batch.schema) {
            // SAFETY: the plugin filled it by the C Data Interface.
            let schema = unsafe { import_schema(&batch.schema) }.map_err(wrong)?;
            match known {
                Some(known) if known == schema => known,
                Some(_) => {
                    return Err(wrong(Error::internal(format!("schema id {} came with two schemas", batch.schema_id))));
                }
                None => {
                    described.insert(batch.schema_id, Arc::clone(&schema));
                    schema
                }
            }
        } else {
            known.ok_or_else(|| {
                wrong(Error::internal(format!("schema id {} came without its schema", batch.schema_id)))
            })?
        };
        let dead_letters = batch.flags & abi::BATCH_DEAD_LETTERS != 0;
        if dead_letters {
            if !self.tolerance.dead_letters() {
                return Err(wrong(Error::internal("dead letters, which the connector does not tolerate")));
            }
            dead_letter::check(&schema).map_err(wrong)?;
        }
        let array = std::mem::replace(&mut batch.array, FFI_ArrowArray::empty());
        // SAFETY: the plugin filled it by the C Data Interface.
        let rows = unsafe { import_rows(array, &schema, self.validation) }.map_err(wrong)?;
        Ok(ChangeBatch {
            at,
            schema_id: batch.schema_id,
            rows,
            offset,
            ends_transaction: batch.flags & abi::BATCH_ENDS_TRANSACTION != 0,
            initial_load: batch.flags & abi::BATCH_INITIAL_LOAD != 0,
            dead_letters,
            newest_micros: batch.newest_micros,
        })
    }
}

impl SourceInstance for ForeignSource {
    fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll> {
        // Whatever the plugin leaves in `batch` is released when it is dropped.
        let (mut said, mut batch, mut error) = (PollResult::zeroed(), Batch::zeroed(), ErrorText::new());
        // SAFETY: the only call into the instance, with out structs that live through it.
        let status = unsafe {
            (self.functions.poll)(
                self.instance.raw(),
                millis(timeout),
                max_bytes as u64,
                &raw mut said,
                &raw mut batch,
                &raw mut error,
            )
        };
        error.result(status, "poll")?;
        // SAFETY: the plugin lends the partitions until the next call into it.
        let partitions = || unsafe { read_partitions(said.partitions, said.partition_count) };
        match said.outcome {
            abi::POLL_BATCH => self.take_batch(batch).map(Poll::Batch),
            abi::POLL_IDLE => Ok(Poll::Idle { caught_up: said.caught_up != 0 }),
            abi::POLL_END => Ok(Poll::End),
            abi::POLL_ANNOUNCE | abi::POLL_REVOKE if said.partition_count == 0 => {
                Err(Error::internal("poll announced or revoked nothing"))
            }
            abi::POLL_ANNOUNCE => partitions().map(Poll::Announce),
            abi::POLL_REVOKE => partitions().map(Poll::Revoke),
            other => Err(Error::internal(format!("poll returned the unknown outcome {other}"))),
        }
    }

    fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
        let at = LentPartitions::new(vec![at.clone()]);
        let offset = offset.map(|offset| Text::lend(offset.as_str()));
        let offset = offset.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let mut error = ErrorText::new();
        // SAFETY: the only call into the instance; partition and offset live through it.
        let status = unsafe { (self.functions.resume)(self.instance.raw(), at.first(), offset, &raw mut error) };
        error.result(status, "resume")
    }

    fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
        let positions = LentPositions::new(offsets);
        let mut error = ErrorText::new();
        // SAFETY: the only call into the instance; the positions live through it.
        let status = unsafe {
            (self.functions.commit)(self.instance.raw(), positions.as_ptr(), positions.count(), &raw mut error)
        };
        error.result(status, "commit")
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        self.instance.canceller()
    }

    fn close(self: Box<Self>, timeout: Duration) -> Result<()> {
        self.instance.close(timeout)
    }
}
