//! Instances that break the ABI: each mistake is an error that says what it is, and none is believed.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::ffi::FFI_ArrowSchema;
use philotes_sdk::abi::{
    self, Batch, ErrorText, LentPartitions, Partition, PollResult, Position, SinkTable, Sized32, SourceTable, Text,
    Validation, export_rows,
};
use philotes_sdk::{ChangeBatch, ErrorKind, Offset, Poll, Result, StreamName, StreamPartition, TaskInfo, Tolerance};

use super::sink::{ForeignSink, SinkFunctions};
use super::source::{ForeignSource, SourceFunctions};
use crate::plugin::{Services, SinkInstance, SourceInstance};

/// An instance is its configuration: the name of the mistake.
struct Bad {
    host: *const abi::Host,
    mistake: String,
    lent: LentPartitions,
    polls: u32,
}

fn at() -> StreamPartition {
    StreamPartition::only(StreamName::new(["a", "b"]).unwrap())
}

unsafe extern "C" fn create(
    host: *const abi::Host,
    config: Text,
    _: Text,
    instance: *mut *mut c_void,
    _: *mut ErrorText,
) -> u32 {
    // SAFETY: the host lends all of it.
    unsafe {
        let mistake = config.get().unwrap().to_owned();
        if mistake != "no-instance" {
            let bad = Bad { host, mistake, lent: LentPartitions::new(vec![at()]), polls: 0 };
            *instance = Box::into_raw(Box::new(bad)).cast();
        }
    }
    abi::OK
}

unsafe extern "C" fn open(_: *mut c_void, _: *mut ErrorText) -> u32 {
    abi::OK
}

unsafe extern "C" fn notify(_: *mut c_void) {}

unsafe extern "C" fn destroy(instance: *mut c_void) {
    // SAFETY: made by `create`.
    drop(unsafe { Box::from_raw(instance.cast::<Bad>()) });
}

unsafe extern "C" fn close(_: *mut c_void, _: u64, _: *mut ErrorText) -> u32 {
    abi::OK
}

fn rows() -> RecordBatch {
    RecordBatch::try_from_iter([
        ("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
        ("t", Arc::new(StringArray::from(vec!["a", "b"]))),
    ])
    .unwrap()
}

fn schema(rows: &RecordBatch) -> FFI_ArrowSchema {
    FFI_ArrowSchema::try_from(rows.schema().as_ref()).unwrap()
}

const NO_UTF8: Text = Text { data: b"\xff\xfe".as_ptr(), length: 2 };

unsafe extern "C" fn poll(
    instance: *mut c_void,
    _: u64,
    _: u64,
    said: *mut PollResult,
    batch: *mut Batch,
    error: *mut ErrorText,
) -> u32 {
    // SAFETY: the host's instance and out structs.
    let (bad, said, batch, error) = unsafe { (&mut *instance.cast::<Bad>(), &mut *said, &mut *batch, &mut *error) };
    bad.polls += 1;
    said.outcome = abi::POLL_BATCH;
    batch.at = bad.lent.first();
    batch.offset = Text::lend("1");
    batch.schema = schema(&rows());
    batch.array = export_rows(&rows());
    match bad.mistake.as_str() {
        "none" => {}
        "unknown-kind" => return 99,
        "silent-error" => return 3,
        "error-no-utf8" => {
            error.length = 1;
            error.message[0] = 0xff;
            return 3;
        }
        "error-too-long" => {
            error.length = u32::MAX;
            return 3;
        }
        "unknown-outcome" => said.outcome = 77,
        "announce-nothing" => said.outcome = abi::POLL_ANNOUNCE,
        "announce-null" => {
            said.outcome = abi::POLL_ANNOUNCE;
            said.partition_count = 3;
        }
        "revoke-too-many" => {
            said.outcome = abi::POLL_REVOKE;
            said.partition_count = u32::MAX;
            said.partitions = bad.lent.as_ptr();
        }
        "no-partition" => batch.at = std::ptr::null(),
        "offset-no-utf8" => batch.offset = NO_UTF8,
        "offset-no-json" => batch.offset = Text::lend("{"),
        "offset-null" => batch.offset = Text { data: std::ptr::null(), length: 5 },
        "offset-long" => batch.offset = Text::lend(const { str_of_zeros() }),
        "no-array" => drop(std::mem::replace(&mut batch.array, abi::FFI_ArrowArray::empty())),
        "no-schema" => drop(std::mem::replace(&mut batch.schema, FFI_ArrowSchema::empty())),
        "counts" => batch.array.length = 3,
        "negative" => batch.array.length = -1,
        "children" => batch.array.n_children = 9,
        "buffers" => {
            // SAFETY: exported just now, with two children.
            unsafe { (**batch.array.children).n_buffers = 5 };
        }
        "other-array" => {
            let other = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
            batch.array = export_rows(&other);
        }
        "swapped" => {
            let swapped = rows().project(&[1, 0]).unwrap();
            batch.array = export_rows(&swapped);
        }
        "text-no-utf8" => {
            let bytes = arrow::array::BinaryArray::from(vec![b"a".as_slice(), b"\xff"]);
            let numbers = Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
            let rows = RecordBatch::try_from_iter([("n", numbers), ("t", Arc::new(bytes) as ArrayRef)]).unwrap();
            batch.array = export_rows(&rows);
        }
        "two-schemas" if bad.polls > 1 => {
            let other = rows().project(&[0]).unwrap();
            batch.schema = schema(&other);
            batch.array = export_rows(&other);
        }
        "two-schemas" => {}
        "letters" => batch.flags = abi::BATCH_DEAD_LETTERS,
        other => panic!("no mistake {other}"),
    }
    abi::OK
}

const fn str_of_zeros() -> &'static str {
    const BYTES: [u8; 1025] = [b'0'; 1025];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
}

unsafe extern "C" fn resume(_: *mut c_void, _: *const Partition, _: *const Text, _: *mut ErrorText) -> u32 {
    abi::OK
}

unsafe extern "C" fn commit(_: *mut c_void, _: *const *const Position, _: u32, _: *mut ErrorText) -> u32 {
    abi::OK
}

unsafe extern "C" fn offsets(
    instance: *mut c_void,
    _: *const *const Partition,
    _: u32,
    slot: *mut c_void,
    _: *mut ErrorText,
) -> u32 {
    // SAFETY: the host's instance, slot and table.
    unsafe {
        let bad = &*instance.cast::<Bad>();
        let emit = |item: Text| (*bad.host).emit.unwrap()(bad.host, slot, item);
        match bad.mistake.as_str() {
            "too-many" => (0..3).for_each(|_| emit(Text::EMPTY)),
            "no-utf8" => emit(NO_UTF8),
            "no-json" => emit(Text::lend("nothing")),
            "too-few" => {}
            _ => emit(Text::lend("1")),
        }
    }
    abi::OK
}

unsafe extern "C" fn write(_: *mut c_void, _: *mut Batch, _: *mut ErrorText) -> u32 {
    abi::OK
}

unsafe extern "C" fn flush(instance: *mut c_void, slot: *mut c_void, _: *mut ErrorText) -> u32 {
    // SAFETY: the host's instance, slot and table.
    unsafe {
        let bad = &mut *instance.cast::<Bad>();
        let emit = |item: &str| (*bad.host).emit.unwrap()(bad.host, slot, Text::lend(item));
        bad.polls += 1;
        match bad.mistake.as_str() {
            "no-item" => emit("{}"),
            "half" if bad.polls == 1 => {
                emit(r#"{"durable": {"stream": ["a", "b"], "partition": "0", "offset": "1"}}"#);
                return ErrorKind::Unavailable as u32;
            }
            _ => emit(r#"{"durable": {"stream": ["c"], "partition": "0", "offset": "2"}}"#),
        }
    }
    abi::OK
}

unsafe extern "C" fn buffered_bytes(_: *mut c_void) -> u64 {
    u64::MAX
}

fn services() -> Services {
    Services { span: tracing::Span::none(), connector: "shop".into(), status: None }
}

fn source(mistake: &str) -> Result<ForeignSource> {
    source_of(mistake, &TaskInfo::default())
}

fn source_of(mistake: &str, task: &TaskInfo) -> Result<ForeignSource> {
    let table = SourceTable {
        struct_size: SourceTable::SIZE,
        reserved: 0,
        create: Some(create),
        open: Some(open),
        poll: Some(poll),
        resume: Some(resume),
        commit: Some(commit),
        cancel: Some(notify),
        close: Some(close),
        destroy: Some(destroy),
    };
    let functions = SourceFunctions::new(&table).unwrap();
    ForeignSource::open(functions, Validation::Full, mistake, task, services())
}

fn sink(mistake: &str) -> ForeignSink {
    let table = SinkTable {
        struct_size: SinkTable::SIZE,
        reserved: 0,
        create: Some(create),
        open: Some(open),
        offsets: Some(offsets),
        write: Some(write),
        flush: Some(flush),
        buffered_bytes: Some(buffered_bytes),
        cancel: Some(notify),
        close: Some(close),
        destroy: Some(destroy),
        revoke: None,
    };
    let functions = SinkFunctions::new(&table).unwrap();
    ForeignSink::open(functions, mistake, &TaskInfo::default(), services()).unwrap()
}

#[test]
fn every_mistake_of_a_source_is_an_error_that_names_it() {
    let good = source("none").unwrap().poll(Duration::ZERO, 1).unwrap();
    assert!(matches!(good, Poll::Batch(batch) if batch.rows == rows()));
    for (mistake, kind, expected) in [
        ("unknown-kind", ErrorKind::Internal, "poll returned the unknown error kind 99"),
        ("silent-error", ErrorKind::Data, "poll failed without a message"),
        ("error-no-utf8", ErrorKind::Data, "poll failed with a message that is no valid UTF-8"),
        ("error-too-long", ErrorKind::Data, "poll failed with a message of impossible length"),
        ("unknown-outcome", ErrorKind::Internal, "poll returned the unknown outcome 77"),
        ("announce-nothing", ErrorKind::Internal, "poll announced or revoked nothing"),
        ("announce-null", ErrorKind::Internal, "an array of 3 partitions is NULL or too long"),
        ("revoke-too-many", ErrorKind::Internal, "an array of 4294967295 partitions is NULL or too long"),
        ("no-partition", ErrorKind::Internal, "a partition is NULL"),
        ("offset-no-utf8", ErrorKind::Internal, "an offset is no valid UTF-8"),
        ("offset-null", ErrorKind::Internal, "an offset is no valid UTF-8"),
        ("offset-no-json", ErrorKind::Internal, "a batch of a.b/0: an offset must be JSON"),
        ("offset-long", ErrorKind::Internal, "a batch of a.b/0: an offset of 1025 bytes; at most 1024 are allowed"),
        ("no-array", ErrorKind::Internal, "a batch of a.b/0: a batch has no array, or a released one"),
        ("no-schema", ErrorKind::Internal, "a batch of a.b/0: schema id 0 came without its schema"),
        ("counts", ErrorKind::Internal, "at least 3 are needed"),
        ("negative", ErrorKind::Internal, "impossible length -1"),
        ("children", ErrorKind::Internal, "9 children instead of 2"),
        ("buffers", ErrorKind::Internal, "column \"n\" (Int64): 5 buffers instead of 2"),
        ("other-array", ErrorKind::Internal, "1 children instead of 2"),
        ("swapped", ErrorKind::Internal, "column \"n\" (Int64): 3 buffers instead of 2"),
        ("text-no-utf8", ErrorKind::Internal, "a batch does not match its schema"),
        ("letters", ErrorKind::Internal, "dead letters, which the connector does not tolerate"),
    ] {
        let error = source(mistake).unwrap().poll(Duration::ZERO, 1).unwrap_err();
        assert_eq!(error.kind(), kind, "{mistake}: {error}");
        assert!(error.to_string().contains(expected), "{mistake}: {error}");
    }
    let error = source("no-instance").err().unwrap();
    assert_eq!(error.message(), "create returned no instance");
    let tolerant = TaskInfo { tolerance: Tolerance::DeadLetter, ..TaskInfo::default() };
    let error = source_of("letters", &tolerant).unwrap().poll(Duration::ZERO, 1).unwrap_err();
    assert!(error.to_string().contains("dead letters has the columns n, t"), "{error}");
    let mut source = source("two-schemas").unwrap();
    source.poll(Duration::ZERO, 1).unwrap();
    let error = source.poll(Duration::ZERO, 1).unwrap_err();
    assert_eq!(error.message(), "a batch of a.b/0: schema id 0 came with two schemas");
}

#[test]
fn every_mistake_of_a_sink_is_an_error_that_names_it() {
    assert_eq!(sink("none").offsets(&[at()]).unwrap(), [Some(Offset::new("1").unwrap())]);
    for (mistake, expected) in [
        ("too-many", "offsets emitted 3 items for 1 partitions"),
        ("too-few", "offsets emitted 0 items for 1 partitions"),
        ("no-utf8", "an emitted item is no valid UTF-8"),
        ("no-json", "the offset of a.b/0: an offset must be JSON"),
    ] {
        let error = sink(mistake).offsets(&[at()]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains(expected), "{mistake}: {error}");
    }
    let error = sink("no-item").flush().unwrap_err();
    assert!(error.to_string().contains("no durable offset, commit, count of dead letters or failure"), "{error}");
}

/// What became durable before a flush failed is told with the next flush that succeeds.
#[test]
fn a_flush_that_fails_halfway_loses_nothing_that_is_durable() {
    let mut sink = sink("half");
    let batch = ChangeBatch {
        at: at(),
        schema_id: 0,
        rows: rows(),
        offset: Offset::new("1").unwrap(),
        ends_transaction: false,
        initial_load: false,
        dead_letters: false,
        newest_micros: 0,
    };
    sink.write(&batch).unwrap();
    assert_eq!(sink.buffered_bytes(), usize::MAX);
    assert_eq!(sink.flush().unwrap_err().kind(), ErrorKind::Unavailable);
    let durable: Vec<_> = sink.flush().unwrap().durable.into_iter().map(|d| d.at.stream.to_string()).collect();
    assert_eq!(durable, ["a.b", "c"]);
    assert_eq!(sink.flush().unwrap().durable.len(), 1);
    assert!(Box::new(sink).close(Duration::ZERO).is_ok());
}
