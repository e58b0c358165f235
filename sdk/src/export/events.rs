//! A plugin's tracing events and panics, forwarded to the host of the instance they belong to.
//!
//! A plugin has tracing statics of its own, so it needs a subscriber of its own. Which instance an event belongs to is known
//! by its thread: the runtime's threads are marked when they start, the host's thread for the length of each call. Spans
//! are not forwarded; the host's own span stands around every event. A panic is an event as well: the standard library, which a
//! plugin also has for itself, would print lines of its own in the middle of the host's log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::fmt;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use super::host::HostLink;
use crate::abi;

thread_local! {
    static CURRENT: RefCell<Option<Arc<HostLink>>> = const { RefCell::new(None) };
}

/// Marks the thread for good: for a runtime's own threads.
pub(super) fn mark_thread(host: &Arc<HostLink>) {
    // A thread that is being torn down logs nothing more.
    let _ = CURRENT.try_with(|current| current.replace(Some(Arc::clone(host))));
}

/// Marks the thread until the guard is dropped.
pub(super) fn enter(host: &Arc<HostLink>) -> Entered {
    Entered { outer: CURRENT.with(|current| current.replace(Some(Arc::clone(host)))) }
}

pub(super) struct Entered {
    outer: Option<Arc<HostLink>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.outer.take();
        let _ = CURRENT.try_with(|current| current.replace(outer));
    }
}

/// Makes the forwarding subscriber the plugin's default, where there is none yet (a test's), and forwards its panics.
pub(super) fn install(host: &Arc<HostLink>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = tracing::subscriber::set_global_default(Forward);
        let outside = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !forward(panic) {
                // No instance lives. Only tests get here, where the plugin is part of the program.
                outside(panic);
            }
        }));
    });
    let mut links = LINKS.lock().unwrap_or_else(PoisonError::into_inner);
    links.retain(|link| link.strong_count() > 0);
    links.push(Arc::downgrade(host));
}

/// The hosts of all instances: a thread that the plugin started for itself belongs to none of them, and its panic is told to any.
static LINKS: Mutex<Vec<Weak<HostLink>>> = Mutex::new(Vec::new());

/// Sends a panic to the host's log; whether there was a host to send it to.
fn forward(panic: &PanicHookInfo<'_>) -> bool {
    let links = || LINKS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let hosts = current().into_iter().chain(links().into_iter().rev().filter_map(|link| link.upgrade()));
    let backtrace = Backtrace::capture();
    let mut fields = Map::new();
    fields.insert("panic".to_owned(), panic.payload_as_str().unwrap_or("no message").into());
    fields.insert("location".to_owned(), panic.location().map(ToString::to_string).into());
    // The host's threads have no name here: that is in the host's own standard library.
    if let Some(thread) = std::thread::current().name() {
        fields.insert("thread".to_owned(), thread.into());
    }
    if backtrace.status() == BacktraceStatus::Captured {
        fields.insert("backtrace".to_owned(), backtrace.to_string().into());
    }
    let fields = Value::Object(fields).to_string();
    hosts.into_iter().any(|host| host.log(abi::LOG_ERROR, "panic", "panicked", &fields))
}

fn current() -> Option<Arc<HostLink>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => abi::LOG_ERROR,
        Level::WARN => abi::LOG_WARN,
        Level::INFO => abi::LOG_INFO,
        Level::DEBUG => abi::LOG_DEBUG,
        Level::TRACE => abi::LOG_TRACE,
    }
}

struct Forward;

impl Subscriber for Forward {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // The host's filter may change, and differs by instance.
        if metadata.is_event() { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && current().is_some_and(|host| host.log_enabled(number(*metadata.level()), metadata.target()))
    }

    fn event(&self, event: &Event<'_>) {
        let Some(host) = current() else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let json = if fields.others.is_empty() { String::new() } else { Value::Object(fields.others).to_string() };
        host.log(number(*event.metadata().level()), event.metadata().target(), &fields.message, &json);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}
