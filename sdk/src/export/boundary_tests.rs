//! The shims as a host sees them that is not ours: short tables, calls at the wrong time, callbacks after the end.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Plugin, sink, source};
use crate::abi::{self, Batch, ErrorText, LentPartitions, PollResult, SinkTable, Sized32, SourceTable, Text};
use crate::{
    ChangeBatch, Error, Flushed, Offset, Plan, Poll, Result, Sink, Source, StreamDescription, StreamName, StreamOffset,
    StreamPartition, TaskContext,
};

struct Tested;

impl Plugin for Tested {
    const ID: &'static str = "tested";
    const VERSION: &'static str = "1.2.3";
}

#[derive(Deserialize, JsonSchema)]
struct Config {
    /// What poll and write do.
    mode: String,
}

struct Waiting {
    context: TaskContext,
    mode: String,
    polls: u64,
}

#[async_trait]
impl Source for Waiting {
    const NAME: &'static str = "waiting";
    const DOC: &'static str = "Waits.";
    type Config = Config;

    async fn open(config: Config, context: TaskContext) -> Result<Self> {
        tracing::info!("opened");
        if config.mode == "linger" {
            tokio::task::spawn_blocking(|| {
                std::thread::sleep(Duration::from_millis(1500));
                tracing::info!("lingering");
            });
        }
        Ok(Self { context, mode: config.mode, polls: 0 })
    }
    async fn poll(&mut self, _: Duration, _: usize) -> Result<Poll> {
        if self.mode == "wait" {
            self.context.cancelled().await;
            return Ok(Poll::End);
        }
        self.polls += 1;
        let name = if self.mode == "two-schemas" && self.polls > 1 { "m" } else { "n" };
        let rows = RecordBatch::try_from_iter([(name, Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let offset = Offset::from_value(&self.polls)?;
        let at = at();
        Ok(Poll::Batch(ChangeBatch {
            at,
            schema_id: 1,
            rows,
            offset,
            ends_transaction: false,
            initial_load: false,
            dead_letters: false,
            newest_micros: 0,
        }))
    }
    async fn resume(&mut self, _: &StreamPartition, _: Option<&Offset>) -> Result<()> {
        Ok(())
    }
    async fn commit(&mut self, _: &[StreamOffset]) -> Result<()> {
        Ok(())
    }
    async fn close(self, _: Duration) -> Result<()> {
        Ok(())
    }
    async fn streams(_: Config, _: TaskContext) -> Result<Vec<StreamDescription>> {
        Ok(Vec::new())
    }
}

struct Refusing {
    refuse: u32,
    written: usize,
}

#[async_trait]
impl Sink for Refusing {
    const NAME: &'static str = "refusing";
    const DOC: &'static str = "Refuses the first batch.";
    type Config = Config;

    async fn open(_: Config, _: TaskContext) -> Result<Self> {
        Ok(Self { refuse: 1, written: 0 })
    }
    async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        Ok(vec![None; at.len()])
    }
    async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        if self.refuse > 0 {
            self.refuse -= 1;
            return Err(Error::unavailable("not now"));
        }
        self.written += batch.rows.num_rows();
        Ok(())
    }
    async fn flush(&mut self) -> Result<Flushed> {
        Ok(Flushed::default())
    }
    fn buffered_bytes(&self) -> usize {
        self.written
    }
    async fn close(self, _: Duration) -> Result<()> {
        Ok(())
    }
    async fn plan(_: Config, _: TaskContext, _: &StreamPartition, _: SchemaRef) -> Result<Plan> {
        Ok(Plan::default())
    }
}

fn at() -> StreamPartition {
    StreamPartition::only(StreamName::new(["a", "b"]).unwrap())
}

/// A host that only listens.
struct Ear {
    table: abi::Host,
    heard: Box<Mutex<Vec<String>>>,
}

impl Ear {
    fn new() -> Self {
        unsafe extern "C" fn log(host: *const abi::Host, _: u32, _: Text, message: Text, _: Text) {
            // SAFETY: the context is the ear's list, which outlives the instances of a test.
            unsafe {
                let heard = &*(*host).context.cast::<Mutex<Vec<String>>>();
                heard.lock().unwrap().push(message.get().unwrap().to_owned());
            }
        }
        unsafe extern "C" fn log_enabled(_: *const abi::Host, _: u32, target: Text) -> u32 {
            // SAFETY: lent for the call.
            u32::from(unsafe { target.get() }.unwrap().contains("boundary_tests"))
        }
        let heard = Box::new(Mutex::new(Vec::new()));
        let mut table = abi::Host::zeroed();
        table.context = std::ptr::from_ref(&*heard).cast_mut().cast::<c_void>();
        table.log = Some(log);
        table.log_enabled = Some(log_enabled);
        Self { table, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

const TASK: &str = r#"{"connector":"c","task":0,"tasks":1,"max_memory":1,"route":{"include":[],"exclude":[]}}"#;

fn source_table() -> &'static SourceTable {
    // SAFETY: made by `source`, static.
    unsafe { &*source::<Tested, Waiting>().source }
}

fn sink_table() -> &'static SinkTable {
    // SAFETY: made by `sink`, static.
    unsafe { &*sink::<Tested, Refusing>().sink }
}

fn create(create: abi::Create, host: &abi::Host, mode: &str) -> *mut c_void {
    let config = format!(r#"{{"mode":"{mode}"}}"#);
    let (mut instance, mut error) = (std::ptr::null_mut(), ErrorText::new());
    // SAFETY: everything lent lives through the call, and the host until the end of the test.
    let status = unsafe { create(host, Text::lend(&config), Text::lend(TASK), &raw mut instance, &raw mut error) };
    error.result(status, "create").unwrap();
    instance
}

fn open(open: abi::Open, instance: *mut c_void) -> Result<()> {
    let mut error = ErrorText::new();
    // SAFETY: the instance lives.
    let status = unsafe { open(instance, &raw mut error) };
    error.result(status, "open")
}

fn poll(table: &SourceTable, instance: *mut c_void) -> Result<(PollResult, Batch)> {
    let (mut said, mut batch, mut error) = (PollResult::zeroed(), Batch::zeroed(), ErrorText::new());
    // SAFETY: the instance lives, and the out structs live through the call.
    let status = unsafe { table.poll.unwrap()(instance, 0, 1024, &raw mut said, &raw mut batch, &raw mut error) };
    error.result(status, "poll").map(|()| (said, batch))
}

fn destroy(destroy: abi::Notify, instance: *mut c_void) {
    // SAFETY: the instance lives, and is not used again.
    unsafe { destroy(instance) };
}

#[test]
fn a_host_table_may_end_after_any_field() {
    let table = source_table();
    for size in (0..=abi::Host::SIZE).step_by(4).skip(1) {
        let mut ear = Ear::new();
        ear.table.struct_size = size;
        let instance = create(table.create.unwrap(), &ear.table, "");
        open(table.open.unwrap(), instance).unwrap();
        assert_eq!(poll(table, instance).unwrap().0.outcome, abi::POLL_BATCH);
        destroy(table.destroy.unwrap(), instance);
        // Events need both callbacks.
        let complete = std::mem::offset_of!(abi::Host, metric) <= size as usize;
        assert_eq!(!ear.heard().is_empty(), complete, "{size}");
    }
}

#[test]
fn calls_at_the_wrong_time_are_errors() {
    let (table, ear) = (source_table(), Ear::new());
    let instance = create(table.create.unwrap(), &ear.table, "");
    assert_eq!(poll(table, instance).unwrap_err().message(), "the instance is not open yet");
    open(table.open.unwrap(), instance).unwrap();
    assert_eq!(open(table.open.unwrap(), instance).unwrap_err().message(), "open was called twice");
    assert!(poll(table, instance).is_ok(), "the second open did not close it");
    let mut error = ErrorText::new();
    // SAFETY: the instance lives.
    let status = unsafe { table.close.unwrap()(instance, 10, &raw mut error) };
    error.result(status, "close").unwrap();
    assert_eq!(poll(table, instance).unwrap_err().message(), "the instance is closed");
    assert_eq!(poll(table, std::ptr::null_mut()).unwrap_err().message(), "poll of no instance");
    destroy(table.destroy.unwrap(), instance);
    destroy(table.destroy.unwrap(), std::ptr::null_mut());
}

#[test]
fn a_second_call_at_the_same_time_is_an_error_and_cancel_is_none() {
    struct Shared(*mut c_void);
    // SAFETY: the shims take calls from any thread.
    unsafe impl Send for Shared {}
    let (table, ear) = (source_table(), Ear::new());
    let instance = create(table.create.unwrap(), &ear.table, "wait");
    open(table.open.unwrap(), instance).unwrap();
    let shared = Shared(instance);
    let waiting = std::thread::spawn(move || {
        let shared = shared;
        poll(table, shared.0).map(|(said, _)| said.outcome)
    });
    let mut message = String::new();
    // The other thread may not have entered yet; it cannot be left before the cancel below.
    for _ in 0..500 {
        let mut error = ErrorText::new();
        // SAFETY: the instance lives.
        let status = unsafe { table.commit.unwrap()(instance, std::ptr::null(), 0, &raw mut error) };
        if let Err(refused) = error.result(status, "commit") {
            refused.message().clone_into(&mut message);
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(message, "commit was called while another call was running");
    // SAFETY: the instance lives.
    unsafe { table.cancel.unwrap()(instance) };
    assert_eq!(waiting.join().unwrap().unwrap(), abi::POLL_END);
    destroy(table.destroy.unwrap(), instance);
}

#[test]
fn the_schema_comes_once_and_its_id_is_not_given_to_another() {
    let (table, ear) = (source_table(), Ear::new());
    let instance = create(table.create.unwrap(), &ear.table, "");
    open(table.open.unwrap(), instance).unwrap();
    assert!(abi::has_schema(&poll(table, instance).unwrap().1.schema));
    assert!(!abi::has_schema(&poll(table, instance).unwrap().1.schema));
    destroy(table.destroy.unwrap(), instance);

    let instance = create(table.create.unwrap(), &ear.table, "two-schemas");
    open(table.open.unwrap(), instance).unwrap();
    poll(table, instance).unwrap();
    let message = poll(table, instance).unwrap_err().to_string();
    assert_eq!(message, "waiting used schema id 1 of stream a.b for two schemas");
    destroy(table.destroy.unwrap(), instance);
}

#[test]
fn events_reach_their_own_host_and_none_after_the_end() {
    let table = source_table();
    let (one, other) = (Ear::new(), Ear::new());
    let first = create(table.create.unwrap(), &one.table, "linger");
    let second = create(table.create.unwrap(), &other.table, "");
    open(table.open.unwrap(), first).unwrap();
    assert_eq!((one.heard().len(), other.heard().len()), (1, 0));
    open(table.open.unwrap(), second).unwrap();
    assert_eq!((one.heard().len(), other.heard().len()), (1, 1));
    destroy(table.destroy.unwrap(), second);
    // Its thread goes on longer than destroy waits.
    destroy(table.destroy.unwrap(), first);
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(one.heard(), ["opened"]);
}

#[test]
fn a_batch_that_is_refused_stays_the_callers_and_one_that_is_taken_does_not() {
    let (table, ear) = (sink_table(), Ear::new());
    let instance = create(table.create.unwrap(), &ear.table, "");
    open(table.open.unwrap(), instance).unwrap();
    let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
    let held = Arc::downgrade(rows.column(0));
    let partitions = LentPartitions::new(vec![at()]);
    let mut batch = Batch::zeroed();
    batch.at = partitions.first();
    batch.offset = Text::lend("1");
    batch.schema = FFI_ArrowSchema::try_from(rows.schema().as_ref()).unwrap();
    batch.array = abi::export_rows(&rows);
    drop(rows);

    let write = |batch: &mut Batch| {
        let mut error = ErrorText::new();
        // SAFETY: the instance lives, and the batch with all it points to lives through the call.
        let status = unsafe { table.write.unwrap()(instance, batch, &raw mut error) };
        error.result(status, "write")
    };
    assert_eq!(write(&mut batch).unwrap_err().message(), "not now");
    assert!(batch.array.release.is_some() && abi::has_schema(&batch.schema));
    write(&mut batch).unwrap();
    assert!(batch.array.release.is_none() && !abi::has_schema(&batch.schema));
    // SAFETY: the instance lives.
    assert_eq!(unsafe { table.buffered_bytes.unwrap()(instance) }, 2);
    assert!(held.upgrade().is_none(), "the sink kept nothing, and nothing else holds the rows");

    // Without rows, without a schema, without a known one.
    assert_eq!(write(&mut batch).unwrap_err().message(), "a batch of a.b/0 without rows");
    batch.schema_id = 2;
    assert_eq!(write(&mut batch).unwrap_err().message(), "schema id 2 of a.b came without its schema");
    batch.struct_size = 16;
    assert!(write(&mut batch).unwrap_err().message().contains("a batch of 16 bytes"));
    destroy(table.destroy.unwrap(), instance);
    drop(std::mem::replace(&mut batch.array, FFI_ArrowArray::empty()));
}

#[test]
fn a_configuration_that_does_not_parse_is_a_config_error_of_create() {
    let (table, ear) = (source_table(), Ear::new());
    let (mut instance, mut error) = (std::ptr::null_mut(), ErrorText::new());
    // SAFETY: everything lent lives through the call.
    let status = unsafe {
        table.create.unwrap()(
            &raw const ear.table,
            Text::lend("{}"),
            Text::lend(TASK),
            &raw mut instance,
            &raw mut error,
        )
    };
    let refused = error.result(status, "create").unwrap_err();
    assert_eq!(refused.kind(), crate::ErrorKind::Config);
    assert_eq!(refused.message(), "waiting: missing field `mode`");
    assert!(instance.is_null());
}
