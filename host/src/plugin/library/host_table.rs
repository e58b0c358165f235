//! The host's callbacks: what a plugin may call, from any of its threads.
//!
//! None of them blocks, and none lets a panic out: it would end the process.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::ffi::FFI_ArrowSchema;
use metrics::Label;
use philotes_sdk::abi::{self, ABI_MAJOR, ABI_MINOR, CAPABILITIES, Sized32, Text, import_schema, read_partition};
use philotes_sdk::{Error, LAG_RECORDS, Result, StreamDescription};
use tracing::Level;

use crate::logging::format::plugin::TARGET;
use crate::plugin::Services;

/// The longest text of an event that is logged whole, in bytes.
const MAX_LOG_BYTES: usize = 64 << 10;
const MAX_ITEMS: usize = 1 << 20;
const MAX_BYTES: usize = 256 << 20;

/// What one instance, or one call of a connector's function, is given.
pub(super) struct HostTable {
    table: abi::Host,
    services: Services,
    cancelled: AtomicBool,
    complained: AtomicBool,
}

// SAFETY: the raw table is never written after it was made, and its context points to this very struct, whose other
// fields may be used from every thread.
unsafe impl Send for HostTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}

impl HostTable {
    pub(super) fn new(services: Services) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let mut table = abi::Host::zeroed();
            table.abi_major = ABI_MAJOR;
            table.abi_minor = ABI_MINOR;
            table.capabilities = CAPABILITIES.iter().fold(0, |bits, (bit, _)| bits | 1 << bit);
            table.context = this.as_ptr().cast_mut().cast::<c_void>();
            table.log = Some(log);
            table.log_enabled = Some(log_enabled);
            table.metric = Some(metric);
            table.emit = Some(emit);
            table.emit_stream = Some(emit_stream);
            table.is_cancelled = Some(is_cancelled);
            table.get_extension = Some(get_extension);
            Self { table, services, cancelled: AtomicBool::new(false), complained: AtomicBool::new(false) }
        })
    }

    /// For a call that belongs to no running instance.
    pub(super) fn for_call(connector: &str) -> Arc<Self> {
        Self::new(Services { span: tracing::Span::current(), connector: connector.to_owned(), status: None })
    }

    /// The table to lend; valid as long as this lives.
    pub(super) fn as_ptr(&self) -> *const abi::Host {
        &raw const self.table
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

/// Where the outputs of one call go.
#[derive(Default)]
pub(super) struct Slot(Mutex<Outputs>);

#[derive(Default)]
struct Outputs {
    items: Vec<String>,
    streams: Vec<StreamDescription>,
    bytes: usize,
    fault: Option<Error>,
}

impl Slot {
    pub(super) fn as_ptr(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// What was emitted.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](philotes_sdk::ErrorKind::Internal) where an item was no UTF-8, or there were too many.
    pub(super) fn items(self) -> Result<Vec<String>> {
        let outputs = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        outputs.fault.map_or(Ok(outputs.items), Err)
    }

    /// The one item that a call must emit.
    pub(super) fn one(self, call: &str) -> Result<String> {
        let mut items = self.items()?;
        match (items.pop(), items.len()) {
            (Some(item), 0) => Ok(item),
            (_, more) => Err(Error::internal(format!(
                "{call} emitted {} items instead of one",
                if more > 0 { more + 1 } else { 0 }
            ))),
        }
    }

    pub(super) fn streams(self) -> Result<Vec<StreamDescription>> {
        let outputs = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        outputs.fault.map_or(Ok(outputs.streams), Err)
    }

    fn add(&self, bytes: usize, add: impl FnOnce(&mut Outputs) -> Result<()>) {
        let mut outputs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if outputs.fault.is_some() {
            return;
        }
        outputs.bytes += bytes;
        let full = outputs.items.len() + outputs.streams.len() >= MAX_ITEMS || outputs.bytes > MAX_BYTES;
        let outcome = if full {
            Err(Error::internal(format!("more than {MAX_ITEMS} items or {} MiB were emitted", MAX_BYTES >> 20)))
        } else {
            add(&mut outputs)
        };
        outputs.fault = outcome.err();
    }
}

/// At most so much of a text of an event as is logged.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_LOG_BYTES {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(MAX_LOG_BYTES);
    Cow::Owned(format!("{}… ({} bytes more)", &text[..end], text.len() - end))
}

/// # Safety
/// `host` is a table of a [`HostTable`] that lives.
unsafe fn side<'a>(host: *const abi::Host) -> Option<&'a HostTable> {
    // SAFETY: the caller warrants the table, whose context points to its `HostTable`.
    unsafe { host.as_ref().and_then(|table| table.context.cast::<HostTable>().as_ref()) }
}

fn contained<R: Default>(callback: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_default()
}

unsafe extern "C" fn log(host: *const abi::Host, level: u32, target: Text, message: Text, fields: Text) {
    contained(|| {
        // SAFETY: plugins pass the table that they were given, which lives until their instance is destroyed, and lend
        // the texts.
        let (side, target, message, fields) = unsafe { (side(host), target.lossy(), message.lossy(), fields.lossy()) };
        let Some(side) = side else { return };
        let (target, message) = (cut(&target), cut(&message));
        let fields = if fields.len() > MAX_LOG_BYTES {
            // The start of an object is none.
            serde_json::json!({ "fields": cut(&fields) }).to_string().into()
        } else {
            fields
        };
        let fields = (!fields.is_empty()).then_some(&*fields);
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET, parent: &side.services.span, $level, plugin_target = &*target, fields, "{message}"
                )
            };
        }
        match level {
            abi::LOG_ERROR => event!(Level::ERROR),
            abi::LOG_INFO => event!(Level::INFO),
            abi::LOG_DEBUG => event!(Level::DEBUG),
            abi::LOG_TRACE => event!(Level::TRACE),
            // An unknown level is a mistake that somebody should see.
            _ => event!(Level::WARN),
        }
    });
}

unsafe extern "C" fn log_enabled(_: *const abi::Host, level: u32, _: Text) -> u32 {
    contained(|| {
        u32::from(match level {
            abi::LOG_ERROR => tracing::enabled!(target: TARGET, Level::ERROR),
            abi::LOG_INFO => tracing::enabled!(target: TARGET, Level::INFO),
            abi::LOG_DEBUG => tracing::enabled!(target: TARGET, Level::DEBUG),
            abi::LOG_TRACE => tracing::enabled!(target: TARGET, Level::TRACE),
            _ => tracing::enabled!(target: TARGET, Level::WARN),
        })
    })
}

unsafe extern "C" fn metric(host: *const abi::Host, kind: u32, name: Text, value: f64, labels: Text) {
    contained(|| {
        // SAFETY: as in `log`.
        let (side, name, labels) = unsafe { (side(host), name.lossy(), labels.lossy()) };
        let Some(side) = side else { return };
        if let Err(reason) = record(side, kind, &name, value, &labels)
            && !side.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(parent: &side.services.span, metric = &*name, "dropped a plugin's metric: {reason}");
        }
    });
}

fn record(side: &HostTable, kind: u32, name: &str, value: f64, labels: &str) -> Result<(), String> {
    let named = |name: &str| {
        let first = name.chars().next();
        first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !named(name) {
        return Err("its name has other characters than letters, digits and _".into());
    }
    if !value.is_finite() {
        return Err(format!("its value is {value}"));
    }
    let mut all = vec![Label::new("connector", side.services.connector.clone())];
    if !labels.is_empty() {
        let labels: BTreeMap<String, String> =
            serde_json::from_str(labels).map_err(|e| format!("its labels are no JSON object of strings: {e}"))?;
        if let (LAG_RECORDS, abi::METRIC_GAUGE, Some(status)) = (name, kind, &side.services.status)
            && let (Some(stream), Some(partition)) = (labels.get("stream"), labels.get("partition"))
        {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count; a negative one is none"
            )]
            status.lag_records(stream, partition, value.round() as u64);
        }
        for (label, value) in labels {
            if !named(&label) || label == "connector" {
                return Err(format!("it has a label {label:?}"));
            }
            all.push(Label::new(label, value));
        }
    }
    let name = name.to_owned();
    match kind {
        abi::METRIC_COUNTER if value >= 0.0 => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a whole number, not negative"
            )]
            metrics::counter!(name, all).increment(value.round() as u64);
        }
        abi::METRIC_COUNTER => return Err(format!("a counter cannot go down by {value}")),
        abi::METRIC_GAUGE => metrics::gauge!(name, all).set(value),
        abi::METRIC_HISTOGRAM => metrics::histogram!(name, all).record(value),
        other => return Err(format!("its kind is {other}")),
    }
    Ok(())
}

unsafe extern "C" fn emit(_: *const abi::Host, slot: *mut c_void, item: Text) {
    contained(|| {
        // SAFETY: plugins pass the slot of the running call, and lend the text.
        let (slot, item) = unsafe { (slot.cast::<Slot>().as_ref(), item.read("an emitted item")) };
        let Some(slot) = slot else { return };
        slot.add(item.as_ref().map_or(0, |item| item.len()), |outputs| {
            outputs.items.push(item?.to_owned());
            Ok(())
        });
    });
}

unsafe extern "C" fn emit_stream(_: *const abi::Host, slot: *mut c_void, stream: *const abi::Stream) {
    contained(|| {
        // SAFETY: plugins pass the slot of the running call.
        let Some(slot) = (unsafe { slot.cast::<Slot>().as_ref() }) else { return };
        slot.add(0, |outputs| {
            // SAFETY: plugins lend the stream and what it points to.
            outputs.streams.push(unsafe { read_stream(stream) }?);
            Ok(())
        });
    });
}

/// # Safety
/// `stream` is null or a stream of the ABI, lent for the call.
unsafe fn read_stream(stream: *const abi::Stream) -> Result<StreamDescription> {
    if stream.is_null() {
        return Err(Error::internal("a stream is NULL"));
    }
    // SAFETY: not null, and the caller warrants the rest; the schema is moved out, as the ABI says.
    unsafe {
        let stream = abi::Stream::read(stream);
        let at = read_partition(stream.at)?;
        if stream.schema.is_null() {
            return Err(Error::internal(format!("stream {at} has no schema")));
        }
        let schema = stream.schema.replace(FFI_ArrowSchema::empty());
        let schema = import_schema(&schema).map_err(|e| e.context(format!("stream {at}")))?;
        Ok(StreamDescription { at, schema, sampled_rows: (stream.sampled != 0).then_some(stream.sampled_rows) })
    }
}

unsafe extern "C" fn is_cancelled(host: *const abi::Host) -> u32 {
    // SAFETY: as in `log`.
    contained(|| unsafe { side(host) }.map_or(0, |side| u32::from(side.cancelled.load(Ordering::Acquire))))
}

unsafe extern "C" fn get_extension(_: *const abi::Host, _: Text) -> *const c_void {
    std::ptr::null()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Arc<HostTable> {
        HostTable::for_call("shop")
    }

    #[test]
    fn outputs_are_checked_and_bounded() {
        let (table, slot) = (table(), Slot::default());
        // SAFETY: the slot lives, the texts are there.
        unsafe {
            emit(table.as_ptr(), slot.as_ptr(), Text::lend("one"));
            emit(table.as_ptr(), slot.as_ptr(), Text::EMPTY);
        }
        assert_eq!(slot.items().unwrap(), ["one", ""]);

        let slot = Slot::default();
        // SAFETY: as above.
        unsafe { emit(table.as_ptr(), slot.as_ptr(), Text { data: b"\xff".as_ptr(), length: 1 }) };
        assert_eq!(slot.items().unwrap_err().message(), "an emitted item is no valid UTF-8");

        let slot = Slot::default();
        for _ in 0..=MAX_ITEMS {
            // SAFETY: as above.
            unsafe { emit(table.as_ptr(), slot.as_ptr(), Text::EMPTY) };
        }
        assert!(slot.items().unwrap_err().message().contains("more than"));
    }

    #[test]
    fn exactly_one_item_is_wanted_where_one_is_wanted() {
        let table = table();
        for (count, expected) in [(0, "emitted 0 items"), (2, "emitted 2 items"), (3, "emitted 3 items")] {
            let slot = Slot::default();
            for _ in 0..count {
                // SAFETY: the slot lives.
                unsafe { emit(table.as_ptr(), slot.as_ptr(), Text::EMPTY) };
            }
            assert!(slot.one("plan").unwrap_err().message().contains(expected));
        }
    }

    #[test]
    fn metrics_that_prometheus_would_choke_on_are_dropped() {
        let table = table();
        for (kind, name, value, labels, expected) in [
            (1, "philotes_rows_total", 1.0, "", None),
            (2, "philotes_lag_seconds", -1.5, r#"{"stream": "a"}"#, None),
            (3, "philotes_flush_seconds", 0.5, "", None),
            (1, "philotes rows", 1.0, "", Some("other characters")),
            (1, "", 1.0, "", Some("other characters")),
            (2, "philotes_lag_seconds", f64::NAN, "", Some("value is NaN")),
            (1, "philotes_rows_total", -1.0, "", Some("cannot go down")),
            (9, "philotes_rows_total", 1.0, "", Some("kind is 9")),
            (1, "philotes_rows_total", 1.0, "[]", Some("no JSON object")),
            (1, "philotes_rows_total", 1.0, r#"{"connector": "x"}"#, Some("label \"connector\"")),
        ] {
            match (record(&table, kind, name, value, labels), expected) {
                (Ok(()), None) => {}
                (Err(reason), Some(expected)) => assert!(reason.contains(expected), "{reason}"),
                (outcome, _) => panic!("{name} {value} {labels}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_long_text_of_an_event_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = format!("x{}", "ä".repeat(MAX_LOG_BYTES / 2));
        assert_eq!(cut(&long), format!("x{}… (2 bytes more)", "ä".repeat(MAX_LOG_BYTES / 2 - 1)));
    }

    #[test]
    fn streams_without_a_schema_are_refused() {
        let (table, slot) = (table(), Slot::default());
        // SAFETY: null is refused before it is read.
        unsafe { emit_stream(table.as_ptr(), slot.as_ptr(), std::ptr::null()) };
        assert_eq!(slot.streams().unwrap_err().message(), "a stream is NULL");
    }
}
