//! The function table of a sink.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};

use super::Plugin;
use super::instance::{Instance, State};
use crate::abi::{
    self, Batch, ErrorText, FlushItem, Partition, SinkTable, Sized32, Text, Validation, has_schema, import_rows,
    import_schema, read_partition, read_partitions, share,
};
use crate::{ChangeBatch, Error, Offset, Result, Sink, StreamName};

type SinkOf<S> = Instance<<S as Sink>::Config, Open<S>>;

/// An open sink, and the schemas that the host has described to it.
struct Open<S> {
    sink: S,
    described: HashMap<StreamName, HashMap<u64, SchemaRef>>,
}

pub(super) fn table<P: Plugin, S: Sink>() -> SinkTable {
    SinkTable {
        struct_size: SinkTable::SIZE,
        reserved: 0,
        create: Some(create::<P, S>),
        open: Some(open::<S>),
        offsets: Some(offsets::<S>),
        write: Some(write::<S>),
        flush: Some(flush::<S>),
        buffered_bytes: Some(buffered_bytes::<S>),
        cancel: Some(cancel::<S>),
        close: Some(close::<S>),
        destroy: Some(destroy::<S>),
        revoke: Some(revoke::<S>),
    }
}

unsafe extern "C" fn create<P: Plugin, S: Sink>(
    host: *const abi::Host,
    config: Text,
    task: Text,
    instance: *mut *mut c_void,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with the ABI's arguments.
    unsafe { SinkOf::<S>::create::<P>(S::NAME, host, config, task, instance, error) }
}

unsafe extern "C" fn open<S: Sink>(instance: *mut c_void, error: *mut ErrorText) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made.
    unsafe {
        SinkOf::<S>::call(instance, "open", error, |state, scope| {
            let sink = scope.runtime.block_on(S::open(state.take_config()?, scope.context.clone()))?;
            *state = State::Open(Open { sink, described: HashMap::new() });
            Ok(())
        })
    }
}

unsafe extern "C" fn offsets<S: Sink>(
    instance: *mut c_void,
    at: *const *const Partition,
    count: u32,
    slot: *mut c_void,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made, and lends the rest.
    unsafe {
        SinkOf::<S>::call(instance, "offsets", error, |state, scope| {
            let open = state.opened()?;
            let at = read_partitions(at, count)?;
            let offsets = scope.runtime.block_on(open.sink.offsets(&at))?;
            for offset in &offsets {
                scope.host.emit(slot, offset.as_ref().map_or("", Offset::as_str));
            }
            Ok(())
        })
    }
}

unsafe extern "C" fn revoke<S: Sink>(
    instance: *mut c_void,
    at: *const *const Partition,
    count: u32,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made, and lends the rest.
    unsafe {
        SinkOf::<S>::call(instance, "revoke", error, |state, scope| {
            let open = state.opened()?;
            let at = read_partitions(at, count)?;
            scope.runtime.block_on(open.sink.revoke(&at))
        })
    }
}

unsafe extern "C" fn write<S: Sink>(instance: *mut c_void, batch: *mut Batch, error: *mut ErrorText) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made, and lends the batch.
    unsafe {
        SinkOf::<S>::call(instance, "write", error, |state, scope| {
            let open = state.opened()?;
            let rows = open.borrow_batch(batch)?;
            scope.runtime.block_on(open.sink.write(&rows))?;
            // Taken: the caller finds both released.
            drop((&raw mut (*batch).array).replace(FFI_ArrowArray::empty()));
            drop((&raw mut (*batch).schema).replace(FFI_ArrowSchema::empty()));
            Ok(())
        })
    }
}

impl<S: Sink> Open<S> {
    /// Imports a batch that stays the caller's: its array becomes a share of the same rows.
    ///
    /// # Safety
    /// `batch` is the ABI's.
    unsafe fn borrow_batch(&mut self, batch: *mut Batch) -> Result<ChangeBatch> {
        if batch.is_null() {
            return Err(Error::internal("a batch is NULL"));
        }
        // SAFETY: not null, and the caller warrants the rest; the copy releases nothing.
        let lent = ManuallyDrop::new(unsafe { Batch::read(batch) });
        if lent.struct_size < Batch::SIZE {
            return Err(Error::internal(format!("a batch of {} bytes; it has {}", lent.struct_size, Batch::SIZE)));
        }
        // SAFETY: the caller warrants what the batch points to.
        let (at, offset) = unsafe { (read_partition(lent.at)?, Offset::new(lent.offset.read("an offset")?)?) };
        let described = self.described.entry(at.stream.clone()).or_default();
        let known = described.get(&lent.schema_id).cloned();
        let schema = if has_schema(&lent.schema) {
            // SAFETY: the caller warrants the schema.
            let schema = unsafe { import_schema(&lent.schema) }?;
            if known.is_some_and(|known| known != schema) {
                return Err(Error::internal(format!(
                    "schema id {} of {} came with two schemas",
                    lent.schema_id, at.stream
                )));
            }
            described.insert(lent.schema_id, Arc::clone(&schema));
            schema
        } else {
            known.ok_or_else(|| {
                Error::internal(format!("schema id {} of {} came without its schema", lent.schema_id, at.stream))
            })?
        };
        if lent.array.release.is_none() {
            return Err(Error::internal(format!("a batch of {at} without rows")));
        }
        // SAFETY: the array is not released, and the caller lends it; the host has validated the rows.
        let rows = unsafe { import_rows(share(&raw mut (*batch).array), &schema, Validation::Shape) }?;
        Ok(ChangeBatch {
            at,
            schema_id: lent.schema_id,
            rows,
            offset,
            ends_transaction: lent.flags & abi::BATCH_ENDS_TRANSACTION != 0,
            initial_load: lent.flags & abi::BATCH_INITIAL_LOAD != 0,
            dead_letters: lent.flags & abi::BATCH_DEAD_LETTERS != 0,
            newest_micros: lent.newest_micros,
        })
    }
}

unsafe extern "C" fn flush<S: Sink>(instance: *mut c_void, slot: *mut c_void, error: *mut ErrorText) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made, and lends the slot.
    unsafe {
        SinkOf::<S>::call(instance, "flush", error, |state, scope| {
            let flushed = scope.runtime.block_on(state.opened()?.sink.flush())?;
            for item in FlushItem::of(flushed) {
                let json = serde_json::to_string(&item)
                    .map_err(|e| Error::unknown("a flush's outcome does not serialise").with_source(e))?;
                scope.host.emit(slot, &json);
            }
            Ok(())
        })
    }
}

unsafe extern "C" fn buffered_bytes<S: Sink>(instance: *mut c_void) -> u64 {
    let mut bytes = 0;
    // SAFETY: the host calls with an instance that `create` of this table made. A failure says nothing: whatever is wrong,
    // the next call reports it.
    let _ = unsafe {
        SinkOf::<S>::call(instance, "buffered_bytes", std::ptr::null_mut(), |state, _| {
            bytes = state.opened()?.sink.buffered_bytes() as u64;
            Ok(())
        })
    };
    bytes
}

unsafe extern "C" fn cancel<S: Sink>(instance: *mut c_void) {
    // SAFETY: the host calls with an instance that `create` of this table made.
    unsafe { SinkOf::<S>::cancel(instance) }
}

unsafe extern "C" fn close<S: Sink>(instance: *mut c_void, timeout_ms: u64, error: *mut ErrorText) -> u32 {
    // SAFETY: the host calls with an instance that `create` of this table made.
    unsafe {
        SinkOf::<S>::call(instance, "close", error, |state, scope| match state.take_open() {
            Some(open) => scope.runtime.block_on(open.sink.close(Duration::from_millis(timeout_ms))),
            None => Ok(()),
        })
    }
}

unsafe extern "C" fn destroy<S: Sink>(instance: *mut c_void) {
    // SAFETY: the host calls with an instance that `create` of this table made, for the last time.
    unsafe { SinkOf::<S>::destroy(instance) }
}
