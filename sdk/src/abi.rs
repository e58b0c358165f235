//! The C ABI: `include/philotes_plugin.h` mirrored in Rust, field for field.
//!
//! The header is the source of truth and says what each field means, who owns it and for how long; here stands only what
//! Rust adds. Neither side of the boundary is implemented here: plugins do that in `export`, the host in its `plugin`
//! module, and both move data with the safe parts below.

use std::ffi::c_void;
use std::mem::MaybeUninit;

pub use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};

mod data;
mod flush;
mod lent;
mod text;

pub use data::{Validation, export_rows, has_schema, import_rows, import_schema, share};
pub use flush::FlushItem;
pub use lent::{LentPartitions, LentPositions, read_partition, read_partitions, read_positions};
pub use text::{ErrorText, Text};

/// The name of the one exported symbol.
pub const SYMBOL: &str = "philotes_plugin_v1";
/// The first field of a descriptor.
pub const MAGIC: u64 = 0x5345_544F_4C49_4850;
/// The major version of this ABI.
pub const ABI_MAJOR: u32 = 0;
/// The minor version of this ABI.
pub const ABI_MINOR: u32 = 1;
/// The width of a pointer.
pub const POINTER_BITS: u32 = usize::BITS;

/// The status of a call that succeeded.
pub const OK: u32 = 0;
/// [`ErrorText::flags`]: another task holds what the instance needs.
pub const ERROR_HELD_ELSEWHERE: u32 = 1;
/// [`Connector::kind`] of a source.
pub const KIND_SOURCE: u32 = 1;
/// [`Connector::kind`] of a sink.
pub const KIND_SINK: u32 = 2;
/// [`PollResult::outcome`]: a batch.
pub const POLL_BATCH: u32 = 1;
/// [`PollResult::outcome`]: nothing arrived.
pub const POLL_IDLE: u32 = 2;
/// [`PollResult::outcome`]: drained for good.
pub const POLL_END: u32 = 3;
/// [`PollResult::outcome`]: partitions are announced.
pub const POLL_ANNOUNCE: u32 = 4;
/// [`PollResult::outcome`]: partitions go to another task.
pub const POLL_REVOKE: u32 = 5;
/// [`Batch::flags`]: the last row ends a transaction.
pub const BATCH_ENDS_TRANSACTION: u32 = 1;
/// [`Argument::flags`]: the action cannot do without it.
pub const ARGUMENT_REQUIRED: u32 = 1;
/// [`Argument::flags`]: it may be given only while the connector is stopped.
pub const ARGUMENT_EXCLUSIVE: u32 = 2;
/// [`Batch::flags`]: the rows belong to the initial load.
pub const BATCH_INITIAL_LOAD: u32 = 2;
/// [`Batch::flags`]: the rows are dead letters.
pub const BATCH_DEAD_LETTERS: u32 = 4;
/// [`Connector::flags`]: the sink keeps dead letters.
pub const CONNECTOR_DEAD_LETTERS: u64 = 1;
/// Level of an event: error.
pub const LOG_ERROR: u32 = 1;
/// Level of an event: warning.
pub const LOG_WARN: u32 = 2;
/// Level of an event: information.
pub const LOG_INFO: u32 = 3;
/// Level of an event: for debugging.
pub const LOG_DEBUG: u32 = 4;
/// Level of an event: everything.
pub const LOG_TRACE: u32 = 5;
/// Kind of a metric: counter.
pub const METRIC_COUNTER: u32 = 1;
/// Kind of a metric: gauge.
pub const METRIC_GAUGE: u32 = 2;
/// Kind of a metric: histogram.
pub const METRIC_HISTOGRAM: u32 = 3;
/// The host's capabilities by number and name.
pub const CAPABILITIES: [(u32, &str); 2] = [(0, "events"), (1, "metrics")];

/// The start of [`Plugin::sdk`] of plugins built with this crate, which validates what it exports.
pub const SDK_PREFIX: &str = "philotes-sdk/";

/// A struct of the ABI that starts with its size and may be longer or shorter on the other side.
///
/// # Safety
/// The type is `repr(C)`, its first field is `struct_size: u32`, and all its bytes may be zero.
pub unsafe trait Sized32: Sized {
    /// `size_of` this side's version of it.
    const SIZE: u32;

    /// A zeroed one that knows its size.
    #[must_use]
    fn zeroed() -> Self {
        let mut value = MaybeUninit::<Self>::zeroed();
        // SAFETY: the trait's implementer warrants that zero bytes are a valid value and that the first four bytes are
        // the size.
        unsafe {
            value.as_mut_ptr().cast::<u32>().write(Self::SIZE);
            value.assume_init()
        }
    }

    /// A copy of what `theirs` points to: as many whole words as both sides know, the rest zero. The copy keeps the other
    /// side's `struct_size`.
    ///
    /// # Safety
    /// `theirs` points to such a struct of the other side, whose `struct_size` bytes are readable.
    #[must_use]
    unsafe fn read(theirs: *const Self) -> Self {
        let mut mine = MaybeUninit::<Self>::zeroed();
        // SAFETY: the caller warrants that `struct_size` bytes are readable; `mine` holds SIZE bytes; zero bytes are valid.
        unsafe {
            let size = known::<Self>(theirs);
            std::ptr::copy_nonoverlapping(theirs.cast::<u8>(), mine.as_mut_ptr().cast::<u8>(), size);
            mine.assume_init()
        }
    }

    /// Moves a value into an out struct of the other side: as many whole words as both sides know, except `struct_size`.
    ///
    /// # Safety
    /// `theirs` points to such a struct of the other side, whose `struct_size` bytes are writable.
    unsafe fn write_to(self, theirs: *mut Self) {
        let mine = std::mem::ManuallyDrop::new(self);
        // SAFETY: the caller warrants that `struct_size` bytes are writable; only bytes after the first field are copied,
        // at most SIZE in all. `mine` is not dropped, so that what it owns has moved.
        unsafe {
            let size = known::<Self>(theirs);
            std::ptr::copy_nonoverlapping(
                (&raw const *mine).cast::<u8>().add(4),
                theirs.cast::<u8>().add(4),
                size.saturating_sub(4),
            );
        }
    }
}

/// How many bytes of a struct both sides know: whole words, so that no pointer is ever cut in half.
///
/// # Safety
/// `theirs` points to a struct that starts with its size.
unsafe fn known<T: Sized32>(theirs: *const T) -> usize {
    // SAFETY: the caller warrants it.
    (unsafe { theirs.cast::<u32>().read() }.min(T::SIZE) & !7) as usize
}

macro_rules! sized {
    ($($name:ident),* $(,)?) => { $(
        // SAFETY: repr(C), `struct_size: u32` first; numbers, pointers, optional functions and Arrow structs may be zero.
        #[allow(clippy::cast_possible_truncation, reason = "the structs are a few hundred bytes long")]
        unsafe impl Sized32 for $name {
            const SIZE: u32 = size_of::<$name>() as u32;
        }
    )* };
}
sized!(
    ErrorText,
    Partition,
    Position,
    Batch,
    PollResult,
    Stream,
    Host,
    SourceTable,
    SinkTable,
    Argument,
    Action,
    Connector,
    Capability
);

/// `philotes_partition`: one ordered part of a stream.
#[repr(C)]
#[derive(Debug)]
pub struct Partition {
    /// Size of the struct.
    pub struct_size: u32,
    /// At least 1.
    pub part_count: u32,
    /// The stream's name.
    pub parts: *const Text,
    /// The partition.
    pub partition: Text,
}

/// `philotes_position`: a partition and how far.
#[repr(C)]
#[derive(Debug)]
pub struct Position {
    /// Size of the struct.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Where.
    pub at: *const Partition,
    /// How far.
    pub offset: Text,
}

/// `philotes_batch`: rows of one partition and the offset that covers them.
#[repr(C)]
#[derive(Debug)]
pub struct Batch {
    /// Size of the struct.
    pub struct_size: u32,
    /// [`BATCH_ENDS_TRANSACTION`], [`BATCH_INITIAL_LOAD`], [`BATCH_DEAD_LETTERS`].
    pub flags: u32,
    /// Whose rows these are.
    pub at: *const Partition,
    /// Covers these rows and all before them.
    pub offset: Text,
    /// Names the schema within the stream.
    pub schema_id: u64,
    /// The schema, where it is new.
    pub schema: FFI_ArrowSchema,
    /// The rows, a struct array.
    pub array: FFI_ArrowArray,
    /// Roughly what they hold in memory.
    pub bytes: u64,
    /// When the source's server took the newest row in.
    pub newest_micros: i64,
}

/// `philotes_poll`: what a poll brought beside the batch.
#[repr(C)]
#[derive(Debug)]
pub struct PollResult {
    /// Size of the struct.
    pub struct_size: u32,
    /// One of the `POLL_` constants.
    pub outcome: u32,
    /// Not 0: everything available was delivered.
    pub caught_up: u32,
    /// How many partitions.
    pub partition_count: u32,
    /// Announced or revoked partitions.
    pub partitions: *const *const Partition,
}

/// `philotes_stream`: a stream that a source would deliver.
#[repr(C)]
#[derive(Debug)]
pub struct Stream {
    /// Size of the struct.
    pub struct_size: u32,
    /// Not 0: the schema was inferred from rows.
    pub sampled: u32,
    /// From how many.
    pub sampled_rows: u64,
    /// Any one of its partitions.
    pub at: *const Partition,
    /// Its schema; the host moves it out.
    pub schema: *mut FFI_ArrowSchema,
}

/// `philotes_host`: the host's callbacks.
#[repr(C)]
#[derive(Debug)]
pub struct Host {
    /// Size of the struct.
    pub struct_size: u32,
    /// The host's major version.
    pub abi_major: u32,
    /// The host's minor version.
    pub abi_minor: u32,
    /// 0.
    pub reserved: u32,
    /// Bits, see [`CAPABILITIES`].
    pub capabilities: u64,
    /// The host's own.
    pub context: *mut c_void,
    /// An event.
    pub log: Option<unsafe extern "C" fn(*const Host, u32, Text, Text, Text)>,
    /// Whether an event would be written.
    pub log_enabled: Option<unsafe extern "C" fn(*const Host, u32, Text) -> u32>,
    /// A metric.
    pub metric: Option<unsafe extern "C" fn(*const Host, u32, Text, f64, Text)>,
    /// An item of output.
    pub emit: Option<unsafe extern "C" fn(*const Host, *mut c_void, Text)>,
    /// A stream as output.
    pub emit_stream: Option<unsafe extern "C" fn(*const Host, *mut c_void, *const Stream)>,
    /// Whether the instance is to stop.
    pub is_cancelled: Option<unsafe extern "C" fn(*const Host) -> u32>,
    /// A table for what comes later.
    pub get_extension: Option<unsafe extern "C" fn(*const Host, Text) -> *const c_void>,
}

/// `create` of sources and sinks.
pub type Create = unsafe extern "C" fn(*const Host, Text, Text, *mut *mut c_void, *mut ErrorText) -> u32;
/// `open` of sources and sinks.
pub type Open = unsafe extern "C" fn(*mut c_void, *mut ErrorText) -> u32;
/// `cancel` and `destroy` of sources and sinks.
pub type Notify = unsafe extern "C" fn(*mut c_void);
/// `close` of sources and sinks.
pub type Close = unsafe extern "C" fn(*mut c_void, u64, *mut ErrorText) -> u32;

/// `philotes_source`: the functions of source instances.
#[repr(C)]
#[derive(Debug)]
pub struct SourceTable {
    /// Size of the struct.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Makes an instance.
    pub create: Option<Create>,
    /// Connects.
    pub open: Option<Open>,
    /// Waits for the next thing to say.
    pub poll: Option<unsafe extern "C" fn(*mut c_void, u64, u64, *mut PollResult, *mut Batch, *mut ErrorText) -> u32>,
    /// Answers an announcement.
    pub resume: Option<unsafe extern "C" fn(*mut c_void, *const Partition, *const Text, *mut ErrorText) -> u32>,
    /// Durable offsets.
    pub commit: Option<unsafe extern "C" fn(*mut c_void, *const *const Position, u32, *mut ErrorText) -> u32>,
    /// Calls are to return soon.
    pub cancel: Option<Notify>,
    /// Lets go.
    pub close: Option<Close>,
    /// Frees.
    pub destroy: Option<Notify>,
}

/// `philotes_sink`: the functions of sink instances.
#[repr(C)]
#[derive(Debug)]
pub struct SinkTable {
    /// Size of the struct.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Makes an instance.
    pub create: Option<Create>,
    /// Connects.
    pub open: Option<Open>,
    /// Durable offsets.
    pub offsets:
        Option<unsafe extern "C" fn(*mut c_void, *const *const Partition, u32, *mut c_void, *mut ErrorText) -> u32>,
    /// Takes a batch in.
    pub write: Option<unsafe extern "C" fn(*mut c_void, *mut Batch, *mut ErrorText) -> u32>,
    /// Makes durable what was written.
    pub flush: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, *mut ErrorText) -> u32>,
    /// Held and not yet flushed.
    pub buffered_bytes: Option<unsafe extern "C" fn(*mut c_void) -> u64>,
    /// Calls are to return soon.
    pub cancel: Option<Notify>,
    /// Lets go.
    pub close: Option<Close>,
    /// Frees.
    pub destroy: Option<Notify>,
    /// Partitions that go to another task; optional.
    pub revoke: Option<unsafe extern "C" fn(*mut c_void, *const *const Partition, u32, *mut ErrorText) -> u32>,
}

/// `philotes_argument`: one argument of an action.
#[repr(C)]
#[derive(Debug)]
pub struct Argument {
    /// Size of the struct.
    pub struct_size: u32,
    /// [`ARGUMENT_REQUIRED`], [`ARGUMENT_EXCLUSIVE`].
    pub flags: u32,
    /// Its name.
    pub name: Text,
    /// One sentence.
    pub doc: Text,
}

/// `philotes_action`: what a connector can do beside moving data.
#[repr(C)]
#[derive(Debug)]
pub struct Action {
    /// Size of the struct.
    pub struct_size: u32,
    /// How many arguments.
    pub argument_count: u32,
    /// Its name.
    pub name: Text,
    /// One sentence.
    pub doc: Text,
    /// The arguments.
    pub arguments: *const *const Argument,
}

/// `validate` of a connector.
pub type Validate = unsafe extern "C" fn(*const Host, Text, *mut c_void, *mut ErrorText) -> u32;
/// `check` of a connector.
pub type Check = unsafe extern "C" fn(*const Host, Text, Text, *mut ErrorText) -> u32;
/// `tasks` of a source.
pub type Tasks = unsafe extern "C" fn(*const Host, Text, u32, *mut u32, *mut ErrorText) -> u32;
/// `streams` of a source.
pub type Streams = unsafe extern "C" fn(*const Host, Text, Text, *mut c_void, *mut ErrorText) -> u32;
/// `plan` of a sink.
pub type PlanFor = unsafe extern "C" fn(
    *const Host,
    Text,
    Text,
    *const Partition,
    *const FFI_ArrowSchema,
    *mut c_void,
    *mut ErrorText,
) -> u32;
/// `act` of a connector.
pub type Act = unsafe extern "C" fn(*const Host, Text, Text, Text, Text, *mut c_void, *mut ErrorText) -> u32;

/// `philotes_connector`: one source or sink.
#[repr(C)]
#[derive(Debug)]
pub struct Connector {
    /// Size of the struct.
    pub struct_size: u32,
    /// [`KIND_SOURCE`] or [`KIND_SINK`].
    pub kind: u32,
    /// What `plugin:` says.
    pub name: Text,
    /// For people.
    pub version: Text,
    /// One sentence.
    pub doc: Text,
    /// JSON Schema.
    pub config_spec: Text,
    /// A source's functions.
    pub source: *const SourceTable,
    /// A sink's functions.
    pub sink: *const SinkTable,
    /// The actions; from here on all is optional.
    pub actions: *const *const Action,
    /// How many.
    pub action_count: u32,
    /// 0.
    pub reserved: u32,
    /// Checks a configuration.
    pub validate: Option<Validate>,
    /// Tries to reach what it names.
    pub check: Option<Check>,
    /// How many tasks.
    pub tasks: Option<Tasks>,
    /// A source's streams.
    pub streams: Option<Streams>,
    /// What a sink would do.
    pub plan: Option<PlanFor>,
    /// Does an action.
    pub act: Option<Act>,
    /// [`CONNECTOR_DEAD_LETTERS`].
    pub flags: u64,
}

/// `philotes_capability`: what a plugin needs of its host.
#[repr(C)]
#[derive(Debug)]
pub struct Capability {
    /// Size of the struct.
    pub struct_size: u32,
    /// Its number.
    pub bit: u32,
    /// Its name.
    pub name: Text,
}

/// `philotes_plugin`: the descriptor.
#[repr(C)]
#[derive(Debug)]
pub struct Plugin {
    /// [`MAGIC`].
    pub magic: u64,
    /// Size of the struct.
    pub struct_size: u32,
    /// [`ABI_MAJOR`].
    pub abi_major: u32,
    /// [`ABI_MINOR`].
    pub abi_minor: u32,
    /// [`POINTER_BITS`].
    pub pointer_bits: u32,
    /// The plugin's name.
    pub id: Text,
    /// Its version.
    pub version: Text,
    /// What it was built with.
    pub sdk: Text,
    /// What it was compiled for.
    pub target: Text,
    /// Its connectors.
    pub connectors: *const *const Connector,
    /// How many.
    pub connector_count: u32,
    /// How many.
    pub required_capability_count: u32,
    /// What it needs of its host.
    pub required_capabilities: *const *const Capability,
}

/// The type of the one exported symbol.
pub type PluginFunction = unsafe extern "C" fn() -> *const Plugin;

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> PollResult {
        PollResult {
            struct_size: PollResult::SIZE,
            outcome: POLL_ANNOUNCE,
            caught_up: 1,
            partition_count: 2,
            partitions: std::ptr::dangling(),
        }
    }

    /// What an older peer does not know reads as zero, whatever lies behind its struct.
    #[test]
    fn a_struct_that_ends_early_reads_as_zero_from_there_on() {
        for size in 0..=PollResult::SIZE {
            let mut theirs = result();
            theirs.struct_size = size;
            // SAFETY: the struct is whole; it only says that it is shorter.
            let mine = unsafe { PollResult::read(&raw const theirs) };
            assert_eq!(mine.outcome != 0, size >= 8, "{size}");
            assert_eq!(mine.partition_count == 2, size >= 16, "{size}");
            assert_eq!(!mine.partitions.is_null(), size >= 24, "{size}");
        }
    }

    /// Nothing is written beyond the end that the other side states, and its size stays its own.
    #[test]
    fn an_out_struct_that_ends_early_is_not_overrun() {
        for size in 0..=PollResult::SIZE {
            let mut theirs = PollResult::zeroed();
            theirs.struct_size = size;
            // SAFETY: the struct is whole; it only says that it is shorter.
            unsafe { result().write_to(&raw mut theirs) };
            assert_eq!(theirs.struct_size, size);
            // SAFETY: the struct is whole, and all its bytes were written.
            let bytes: [u8; size_of::<PollResult>()] = unsafe { std::mem::transmute_copy(&theirs) };
            assert!(bytes[size as usize..].iter().all(|byte| *byte == 0), "{size}");
        }
    }

    /// A newer peer's struct is longer; its end is not ours to read.
    #[test]
    fn a_struct_that_ends_late_reads_as_far_as_it_is_known() {
        let mut theirs = result();
        theirs.struct_size = PollResult::SIZE + 800;
        // SAFETY: no more than the struct itself is read.
        let mine = unsafe { PollResult::read(&raw const theirs) };
        assert_eq!((mine.outcome, mine.partition_count), (POLL_ANNOUNCE, 2));
    }
}
