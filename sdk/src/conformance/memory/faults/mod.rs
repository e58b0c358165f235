//! Each clause of the contract broken on purpose: the suites must say which.
//!
//! A fault wraps the instance in memory, which keeps the contract, and breaks one thing.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::conformance::Violations;

mod sink;
mod source;

/// The name of a store that nobody has used.
fn fresh_store() -> String {
    static STORES: AtomicU32 = AtomicU32::new(0);
    format!("conformance-{}", STORES.fetch_add(1, Ordering::Relaxed))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

fn assert_violated<T: std::fmt::Debug>(outcome: Result<T, Violations>, clause: &str) {
    let violations = outcome.expect_err("the suite found nothing");
    assert!(violations.0.iter().any(|violation| violation.clause == clause), "expected {clause:?}, but\n{violations}");
    assert!(violations.to_string().contains(clause));
    assert!(violations.0.iter().all(|violation| !violation.scenario.is_empty() && !violation.found.is_empty()));
}
