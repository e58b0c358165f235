//! How the C library's allocator, which the host and its plugins share, is set up.
//!
//! By default every thread that finds the others busy gets a heap of its own, eight per core, and what was freed in one is of no use to
//! another. A task has a handful of threads that hand buffers to each other, so that most of it was memory that nobody used: a fifth
//! of the process, where a Kafka source fed an Iceberg sink.

#![allow(unsafe_code)]

/// Heaps that threads share. With one, source and sink wait for each other.
const HEAPS: i32 = 2;

/// Has the threads that are started from now on share few heaps.
pub(crate) fn share_heaps() {
    // SAFETY: sets a number that glibc reads when a thread first allocates; an unknown parameter is refused.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
}
