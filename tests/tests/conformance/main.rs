//! The sdk's conformance suites over the real plugins as the host loads them: shared libraries, through the C ABI, with a
//! real PostgreSQL and tables that somebody else reads.
//!
//! The plugins' own tests run the same suites in process. `make build` comes first: the libraries are loaded as they lie in
//! cargo's target folder.

mod buffer;
mod kafka;
mod lake;
mod loaded;

/// The runtime that drives a suite. Servers are started and stopped outside of it: they block.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}
