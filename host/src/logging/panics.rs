//! A panic of the host as one event of its log, instead of the lines that the standard library prints.
//!
//! A plugin has a standard library of its own, whose panics its sdk sends to the log (`philotes_sdk::export`).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// From now on panics are logged.
pub(super) fn log() {
    std::panic::set_hook(Box::new(event));
}

fn event(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let location = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        panic = panic.payload_as_str().unwrap_or("no message"),
        location = location.as_deref(),
        thread = thread.name(),
        backtrace = backtrace.as_deref(),
        "panicked"
    );
}
