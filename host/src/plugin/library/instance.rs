//! What foreign sources and sinks have in common: an opaque pointer, its host table and its end.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use philotes_sdk::abi::{Close, Create, ErrorText, Notify, Open, Text};
use philotes_sdk::{Error, Result, TaskInfo};

use super::host_table::HostTable;
use crate::plugin::{Cancel, Services};

/// The functions that sources and sinks share.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub(super) create: Create,
    pub(super) open: Open,
    pub(super) cancel: Notify,
    pub(super) close: Close,
    pub(super) destroy: Notify,
}

/// An instance of a plugin; dropping it destroys it.
pub(super) struct ForeignInstance {
    raw: *mut c_void,
    life: Life,
    canceller: Arc<Canceller>,
    // The plugin may call back until `destroy` has returned.
    _host: Arc<HostTable>,
}

// SAFETY: by the ABI an instance may be called from any thread, one call at a time, which `&mut self` warrants; `cancel`
// alone goes another way.
unsafe impl Send for ForeignInstance {}

impl ForeignInstance {
    /// Creates and opens an instance.
    pub(super) fn open(life: Life, config: &str, task: &TaskInfo, services: Services) -> Result<Self> {
        let host = HostTable::new(services);
        let task = task_json(task)?;
        let (mut raw, mut error) = (std::ptr::null_mut(), ErrorText::new());
        // SAFETY: the table lives until after `destroy`; the texts and out pointers are lent for the call.
        let status = unsafe {
            (life.create)(host.as_ptr(), Text::lend(config), Text::lend(&task), &raw mut raw, &raw mut error)
        };
        error.result(status, "create")?;
        if raw.is_null() {
            return Err(Error::internal("create returned no instance"));
        }
        let canceller = Arc::new(Canceller {
            instance: Mutex::new(Some(Pointer(raw))),
            cancel: life.cancel,
            host: Arc::clone(&host),
        });
        let this = Self { raw, life, canceller, _host: host };
        let mut error = ErrorText::new();
        // SAFETY: the instance is alive, and this is the only call into it.
        let status = unsafe { (life.open)(raw, &raw mut error) };
        error.result(status, "open")?;
        Ok(this)
    }

    /// For the calls into it; `&mut` says that there is only one.
    pub(super) fn raw(&mut self) -> *mut c_void {
        self.raw
    }

    /// For `buffered_bytes`, which the trait takes by `&self`; the instance is not `Sync`, so that this is one call at a
    /// time as well.
    pub(super) fn raw_shared(&self) -> *mut c_void {
        self.raw
    }

    pub(super) fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::clone(&self.canceller) as Arc<dyn Cancel>
    }

    pub(super) fn close(self, timeout: Duration) -> Result<()> {
        let mut error = ErrorText::new();
        // SAFETY: the instance is alive, and this is the only call into it.
        let status = unsafe { (self.life.close)(self.raw, millis(timeout), &raw mut error) };
        error.result(status, "close")
    }
}

impl Drop for ForeignInstance {
    fn drop(&mut self) {
        self.canceller.let_go();
        // SAFETY: the instance is alive and this is the last call; no cancel is running or will come.
        unsafe { (self.life.destroy)(self.raw) };
    }
}

struct Pointer(*mut c_void);

// SAFETY: `cancel` may be called from any thread by the ABI, and nothing else is done with it.
unsafe impl Send for Pointer {}

/// Reaches an instance from other threads, for as long as it lives.
struct Canceller {
    instance: Mutex<Option<Pointer>>,
    cancel: Notify,
    host: Arc<HostTable>,
}

impl Canceller {
    fn let_go(&self) {
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Cancel for Canceller {
    fn cancel(&self) {
        let instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Pointer(raw)) = &*instance {
            self.host.cancel();
            // SAFETY: `destroy` waits for this lock, so that the instance is alive; by the ABI cancel returns at once.
            unsafe { (self.cancel)(*raw) };
        }
    }
}

pub(super) fn task_json(task: &TaskInfo) -> Result<String> {
    serde_json::to_string(task).map_err(|e| Error::internal("a task does not serialise").with_source(e))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
