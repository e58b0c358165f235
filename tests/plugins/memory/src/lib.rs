//! The in-memory source and sink as a shared library, for tests of the host through the real ABI. Not for use.
use philotes_sdk::conformance::{MemorySink, MemorySource};

philotes_sdk::export_plugin! { id: "memory", sources: [MemorySource], sinks: [MemorySink] }
