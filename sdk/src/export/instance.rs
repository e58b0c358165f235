//! What the instances of sources and sinks have in common: a runtime, a state, and the containment of panics.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::Plugin;
use super::events;
use super::host::HostLink;
use crate::abi::{self, ErrorText, OK, Text};
use crate::{Error, Result, TaskContext, TaskInfo};

/// How long a runtime's threads get to leave what they are at; they are abandoned after it.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// One instance: created with a configuration `C`, opened to become a `T`.
pub(super) struct Instance<C, T> {
    host: Arc<HostLink>,
    context: TaskContext,
    runtime: Runtime,
    // Poisoned by a panic of the plugin, and then never entered again.
    state: Mutex<State<C, T>>,
}

/// Where an instance is in its life.
pub(super) enum State<C, T> {
    Created(C),
    Open(T),
    Closed,
}

impl<C, T> State<C, T> {
    pub(super) fn opened(&mut self) -> Result<&mut T> {
        match self {
            Self::Open(open) => Ok(open),
            Self::Created(_) => Err(Error::internal("the instance is not open yet")),
            Self::Closed => Err(Error::internal("the instance is closed")),
        }
    }

    /// The configuration, to open with; the instance counts as closed unless [`State::Open`] is put back.
    pub(super) fn take_config(&mut self) -> Result<C> {
        match std::mem::replace(self, Self::Closed) {
            Self::Created(config) => Ok(config),
            other => {
                *self = other;
                Err(Error::internal("open was called twice"))
            }
        }
    }

    pub(super) fn take_open(&mut self) -> Option<T> {
        match std::mem::replace(self, Self::Closed) {
            Self::Open(open) => Some(open),
            Self::Created(_) | Self::Closed => None,
        }
    }
}

/// What a call works with.
pub(super) struct Scope<'a> {
    pub(super) host: &'a Arc<HostLink>,
    pub(super) context: &'a TaskContext,
    pub(super) runtime: &'a Runtime,
}

impl<C: DeserializeOwned, T> Instance<C, T> {
    /// Makes an instance and hands it to the host.
    ///
    /// # Safety
    /// The arguments are those of the ABI's `create`.
    pub(super) unsafe fn create<P: Plugin>(
        name: &str,
        host: *const abi::Host,
        config: Text,
        task: Text,
        instance: *mut *mut c_void,
        error: *mut ErrorText,
    ) -> u32 {
        let make = || {
            // SAFETY: the caller warrants the arguments; the link is cut in `destroy`.
            let (host, config, task) = unsafe { (HostLink::new(host)?, parse(config, name)?, parse_task(task)?) };
            events::install(&host);
            let runtime = runtime::<P>(name, &host)?;
            let context = TaskContext::new(task, host.clone());
            let made = Self { host, context, runtime, state: Mutex::new(State::Created(config)) };
            // SAFETY: the caller lends room for a pointer.
            unsafe { instance.write(Box::into_raw(Box::new(made)).cast()) };
            Ok(())
        };
        // SAFETY: the caller warrants the error.
        unsafe { contained("create", error, make) }
    }
}

impl<C, T> Instance<C, T> {
    /// Runs one call into the instance.
    ///
    /// # Safety
    /// `instance` was made by [`Instance::create`] with these types and is not destroyed; `error` is the ABI's.
    pub(super) unsafe fn call(
        instance: *mut c_void,
        call: &str,
        error: *mut ErrorText,
        run: impl FnOnce(&mut State<C, T>, &Scope<'_>) -> Result<()>,
    ) -> u32 {
        let run = || {
            // SAFETY: the caller warrants the pointer.
            let this = unsafe { instance.cast::<Self>().as_ref() }
                .ok_or_else(|| Error::internal(format!("{call} of no instance")))?;
            let _entered = events::enter(&this.host);
            let mut state = match this.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::internal(format!("{call} was called while another call was running")));
                }
                Err(TryLockError::Poisoned(_)) => {
                    return Err(Error::internal(format!("{call} after a panic: the instance is poisoned")));
                }
            };
            run(&mut state, &Scope { host: &this.host, context: &this.context, runtime: &this.runtime })
        };
        // SAFETY: the caller warrants the error.
        unsafe { contained(call, error, run) }
    }

    /// Wakes a running call; may come at any time.
    ///
    /// # Safety
    /// As [`Instance::call`].
    pub(super) unsafe fn cancel(instance: *mut c_void) {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the caller warrants the pointer; the context may be used from every thread.
            if let Some(this) = unsafe { instance.cast::<Self>().as_ref() } {
                this.context.cancel();
            }
        }));
    }

    /// Ends the instance. After a panic its state is leaked: nobody knows what dropping it would do.
    ///
    /// # Safety
    /// As [`Instance::call`]; the instance is not used again.
    pub(super) unsafe fn destroy(instance: *mut c_void) {
        if instance.is_null() {
            return;
        }
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: made by `create`, and the caller gives it up.
            let this = *unsafe { Box::from_raw(instance.cast::<Self>()) };
            let Self { host, context, runtime, state } = this;
            let cut = Cut(Arc::clone(&host));
            {
                let _entered = events::enter(&host);
                context.cancel();
                if state.is_poisoned() {
                    std::mem::forget(state);
                } else {
                    // Timers and connections deregister with the runtime that they were made on.
                    let _runtime = runtime.enter();
                    drop(state.into_inner().unwrap_or_else(PoisonError::into_inner));
                }
            }
            runtime.shutdown_timeout(SHUTDOWN);
            drop(cut);
        }));
    }
}

/// Cuts the link even when dropping the plugin's state panics.
struct Cut(Arc<HostLink>);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Runs one call of a connector's own function, which has no instance: a runtime for the length of the call.
///
/// # Safety
/// `host` and `error` are the ABI's.
pub(super) unsafe fn once<P: Plugin>(
    name: &str,
    call: &str,
    host: *const abi::Host,
    error: *mut ErrorText,
    run: impl FnOnce(&Arc<HostLink>, &Runtime) -> Result<()>,
) -> u32 {
    let run = || {
        // SAFETY: the caller warrants the host; the link is cut before the call returns, whatever happens.
        let host = unsafe { HostLink::new(host) }?;
        let _cut = Cut(Arc::clone(&host));
        events::install(&host);
        let _entered = events::enter(&host);
        let runtime = runtime::<P>(name, &host)?;
        let outcome = run(&host, &runtime);
        runtime.shutdown_timeout(SHUTDOWN);
        outcome
    };
    // SAFETY: the caller warrants the error.
    unsafe { contained(call, error, run) }
}

/// Turns an error and a panic into a status and a text.
///
/// # Safety
/// `error` is null or the ABI's.
unsafe fn contained(call: &str, error: *mut ErrorText, run: impl FnOnce() -> Result<()>) -> u32 {
    let outcome = catch_unwind(AssertUnwindSafe(|| match run() {
        Ok(()) => OK,
        // SAFETY: the caller warrants the error.
        Err(failure) => unsafe { ErrorText::fill(error, &failure) },
    }));
    outcome.unwrap_or_else(|payload| {
        let failure = Error::internal(format!("{call} panicked: {}", reason(&*payload)));
        // SAFETY: as above.
        unsafe { ErrorText::fill(error, &failure) }
    })
}

fn reason(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn runtime<P: Plugin>(name: &str, host: &Arc<HostLink>) -> Result<Runtime> {
    let host = Arc::clone(host);
    Builder::new_multi_thread()
        .worker_threads(P::WORKER_THREADS.max(1))
        .thread_name(name)
        .on_thread_start(move || events::mark_thread(&host))
        .enable_all()
        .build()
        .map_err(|e| Error::unavailable("the plugin's runtime cannot start").with_source(e))
}

/// # Safety
/// `config` is borrowed text.
pub(super) unsafe fn parse<C: DeserializeOwned>(config: Text, name: &str) -> Result<C> {
    // SAFETY: the caller warrants the text.
    let text = unsafe { config.read("the configuration") }?;
    // By way of a value: an error of serde then names no line of a text that nobody wrote.
    serde_json::from_str(text)
        .and_then(serde_json::from_value::<C>)
        .map_err(|e| Error::config(format!("{name}: {}", without_value(&e.to_string()))))
}

/// # Safety
/// `task` is borrowed text.
pub(super) unsafe fn parse_task(task: Text) -> Result<TaskInfo> {
    // SAFETY: the caller warrants the text.
    let text = unsafe { task.read("the task") }?;
    serde_json::from_str(text).map_err(|e| Error::internal("the task's JSON is not understood").with_source(e))
}

/// Serde quotes the string it did not expect, which may be a secret: `invalid type: string "…", expected u16`.
fn without_value(message: &str) -> String {
    match (message.find("string \""), message.rfind("\", expected")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}{}", &message[..start + "string".len()], &message[end + 1..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_configuration_quote_no_value() {
        #[derive(serde::Deserialize, Debug)]
        struct Config {
            #[expect(dead_code, reason = "only its parsing counts")]
            port: u16,
        }
        // SAFETY: a literal.
        let error = unsafe { parse::<Config>(Text::lend(r#"{"port": "s3cr\"et"}"#), "shop") }.unwrap_err();
        assert_eq!(error.message(), "shop: invalid type: string, expected u16");
        // SAFETY: a literal.
        let error = unsafe { parse::<Config>(Text::lend("{}"), "shop") }.unwrap_err();
        assert_eq!(error.message(), "shop: missing field `port`");
    }
}
