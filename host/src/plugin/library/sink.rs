//! A sink of a loaded library.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use arrow::ffi::FFI_ArrowSchema;
use philotes_sdk::abi::{self, Batch, ErrorText, FlushItem, LentPartitions, SinkTable, Sized32, Text, export_rows};
use philotes_sdk::{ChangeBatch, Error, Flushed, Offset, Result, StreamName, StreamPartition, TaskInfo};

use super::host_table::Slot;
use super::instance::{ForeignInstance, Life};
use crate::plugin::{Cancel, Services, SinkInstance};

/// The functions of a sink, all there.
#[derive(Clone, Copy)]
pub(super) struct SinkFunctions {
    life: Life,
    offsets: unsafe extern "C" fn(*mut c_void, *const *const abi::Partition, u32, *mut c_void, *mut ErrorText) -> u32,
    write: unsafe extern "C" fn(*mut c_void, *mut Batch, *mut ErrorText) -> u32,
    flush: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut ErrorText) -> u32,
    buffered_bytes: unsafe extern "C" fn(*mut c_void) -> u64,
    revoke: Option<unsafe extern "C" fn(*mut c_void, *const *const abi::Partition, u32, *mut ErrorText) -> u32>,
}

impl SinkFunctions {
    /// The functions of a table, or `None` where one is missing.
    pub(super) fn new(table: &SinkTable) -> Option<Self> {
        Some(Self {
            life: Life {
                create: table.create?,
                open: table.open?,
                cancel: table.cancel?,
                close: table.close?,
                destroy: table.destroy?,
            },
            offsets: table.offsets?,
            write: table.write?,
            flush: table.flush?,
            buffered_bytes: table.buffered_bytes?,
            revoke: table.revoke,
        })
    }
}

/// An open sink of a plugin.
pub(super) struct ForeignSink {
    instance: ForeignInstance,
    functions: SinkFunctions,
    described: HashMap<StreamName, HashSet<u64>>,
    /// What a flush that failed had achieved before; told with the next one that succeeds.
    achieved: Flushed,
}

impl ForeignSink {
    pub(super) fn open(functions: SinkFunctions, config: &str, task: &TaskInfo, services: Services) -> Result<Self> {
        let instance = ForeignInstance::open(functions.life, config, task, services)?;
        Ok(Self { instance, functions, described: HashMap::new(), achieved: Flushed::default() })
    }
}

impl SinkInstance for ForeignSink {
    fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        let lent = LentPartitions::new(at.to_vec());
        let (slot, mut error) = (Slot::default(), ErrorText::new());
        // SAFETY: the only call into the instance; partitions and slot live through it.
        let status = unsafe {
            (self.functions.offsets)(self.instance.raw(), lent.as_ptr(), lent.count(), slot.as_ptr(), &raw mut error)
        };
        error.result(status, "offsets")?;
        let items = slot.items()?;
        if items.len() != at.len() {
            return Err(Error::internal(format!("offsets emitted {} items for {} partitions", items.len(), at.len())));
        }
        let offset = |(item, at): (String, &StreamPartition)| match item.as_str() {
            "" => Ok(None),
            _ => Offset::new(item).map(Some).map_err(|e| Error::internal(format!("the offset of {at}: {e}"))),
        };
        items.into_iter().zip(at).map(offset).collect()
    }

    fn revoke(&mut self, at: &[StreamPartition]) -> Result<()> {
        let Some(revoke) = self.functions.revoke else {
            return Err(Error::fenced("partitions go to another task, and the sink lets go only of all it has"));
        };
        let (lent, mut error) = (LentPartitions::new(at.to_vec()), ErrorText::new());
        // SAFETY: the only call into the instance; the partitions live through it.
        let status = unsafe { revoke(self.instance.raw(), lent.as_ptr(), lent.count(), &raw mut error) };
        error.result(status, "revoke")
    }

    fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        let at = LentPartitions::new(vec![batch.at.clone()]);
        let described = self.described.get(&batch.at.stream).is_some_and(|ids| ids.contains(&batch.schema_id));
        // What the sink does not take is released when `lent` is dropped; it shares its rows with `batch`.
        let mut lent = Batch::zeroed();
        if !described {
            lent.schema = FFI_ArrowSchema::try_from(batch.rows.schema_ref().as_ref()).map_err(|e| {
                Error::internal(format!("the schema of {} cannot be exported", batch.at.stream)).with_source(e)
            })?;
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
        lent.at = at.first();
        lent.offset = Text::lend(batch.offset.as_str());
        lent.schema_id = batch.schema_id;
        lent.array = export_rows(&batch.rows);
        lent.bytes = batch.bytes() as u64;
        lent.newest_micros = batch.newest_micros;
        let mut error = ErrorText::new();
        // SAFETY: the only call into the instance; the batch and what it points to live through it.
        let status = unsafe { (self.functions.write)(self.instance.raw(), &raw mut lent, &raw mut error) };
        error.result(status, "write")?;
        if !described {
            self.described.entry(batch.at.stream.clone()).or_default().insert(batch.schema_id);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<Flushed> {
        let (slot, mut error) = (Slot::default(), ErrorText::new());
        // SAFETY: the only call into the instance; the slot lives through it.
        let status = unsafe { (self.functions.flush)(self.instance.raw(), slot.as_ptr(), &raw mut error) };
        let outcome = error.result(status, "flush");
        // What was emitted before an error is durable all the same.
        for item in slot.items()? {
            FlushItem::add(&item, &mut self.achieved)?;
        }
        outcome?;
        Ok(std::mem::take(&mut self.achieved))
    }

    fn buffered_bytes(&self) -> usize {
        // SAFETY: the only call into the instance: it is not `Sync`, so that no `&mut` call runs beside this one.
        let bytes = unsafe { (self.functions.buffered_bytes)(self.instance.raw_shared()) };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        self.instance.canceller()
    }

    fn close(self: Box<Self>, timeout: Duration) -> Result<()> {
        self.instance.close(timeout)
    }
}
