//! The host's callbacks as a plugin uses them.

use std::ffi::c_void;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::ffi::FFI_ArrowSchema;

use crate::abi::{self, LentPartitions, Sized32, Text};
use crate::{Error, Host, MetricKind, Result, StreamDescription};

/// The way to the host. It is cut before `destroy` returns; a thread of the plugin that outlives the instance then talks to
/// nobody.
pub(super) struct HostLink {
    table: RwLock<Option<Table>>,
}

struct Table {
    theirs: *const abi::Host,
    functions: abi::Host,
}

// SAFETY: the ABI warrants that the callbacks may be called from every thread with the pointer that came with them; the
// copied table is never written.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl HostLink {
    /// # Safety
    /// `host` is null or a table of the host that stays valid until [`HostLink::cut`].
    pub(super) unsafe fn new(host: *const abi::Host) -> Result<Arc<Self>> {
        if host.is_null() {
            return Err(Error::internal("the host's table is NULL"));
        }
        // SAFETY: not null, and the caller warrants the rest.
        let functions = unsafe { abi::Host::read(host) };
        Ok(Arc::new(Self { table: RwLock::new(Some(Table { theirs: host, functions })) }))
    }

    /// Waits for callbacks under way, which never block, and lets no more through.
    pub(super) fn cut(&self) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn with<R>(&self, call: impl FnOnce(*const abi::Host, &abi::Host) -> Option<R>) -> Option<R> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.as_ref().and_then(|table| call(table.theirs, &table.functions))
    }

    /// Whether the host was there to hear it.
    pub(super) fn log(&self, level: u32, target: &str, message: &str, fields: &str) -> bool {
        let logged = self.with(|theirs, functions| {
            // SAFETY: the table is valid while the lock is held; the texts are lent for the call.
            functions
                .log
                .map(|log| unsafe { log(theirs, level, Text::lend(target), Text::lend(message), Text::lend(fields)) })
        });
        logged.is_some()
    }

    pub(super) fn log_enabled(&self, level: u32, target: &str) -> bool {
        self.with(|theirs, functions| {
            // SAFETY: as in `log`.
            functions.log_enabled.map(|enabled| unsafe { enabled(theirs, level, Text::lend(target)) } != 0)
        })
        .unwrap_or(false)
    }

    /// # Safety
    /// `slot` is the slot of the running call.
    pub(super) unsafe fn emit(&self, slot: *mut c_void, item: &str) {
        self.with(|theirs, functions| {
            // SAFETY: as in `log`, and the caller warrants the slot.
            functions.emit.map(|emit| unsafe { emit(theirs, slot, Text::lend(item)) })
        });
    }

    /// # Safety
    /// `slot` is the slot of the running call.
    pub(super) unsafe fn emit_stream(&self, slot: *mut c_void, stream: StreamDescription) -> Result<()> {
        let mut schema = FFI_ArrowSchema::try_from(stream.schema.as_ref())
            .map_err(|e| Error::internal(format!("the schema of {} cannot be exported", stream.at)).with_source(e))?;
        let at = LentPartitions::new(vec![stream.at]);
        let mut item = abi::Stream::zeroed();
        item.sampled = u32::from(stream.sampled_rows.is_some());
        item.sampled_rows = stream.sampled_rows.unwrap_or(0);
        item.at = at.first();
        item.schema = &raw mut schema;
        self.with(|theirs, functions| {
            // SAFETY: as in `log`; what the item points to lives until the call is over, and what the host moved out of
            // `schema` is not released here.
            functions.emit_stream.map(|emit| unsafe { emit(theirs, slot, &raw const item) })
        });
        Ok(())
    }
}

impl Host for HostLink {
    fn metric(&self, kind: MetricKind, name: &str, value: f64, labels: &[(&str, &str)]) {
        let labels = if labels.is_empty() {
            String::new()
        } else {
            let labels: serde_json::Map<_, _> =
                labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            serde_json::Value::Object(labels).to_string()
        };
        self.with(|theirs, functions| {
            // SAFETY: the table is valid while the lock is held; the texts are lent for the call.
            functions
                .metric
                .map(|metric| unsafe { metric(theirs, kind as u32, Text::lend(name), value, Text::lend(&labels)) })
        });
    }

    fn is_cancelled(&self) -> bool {
        // SAFETY: as in `metric`.
        self.with(|theirs, functions| functions.is_cancelled.map(|cancelled| unsafe { cancelled(theirs) } != 0))
            .unwrap_or(false)
    }
}
