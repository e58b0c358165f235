//! Write plugins for Philotes Connect.
//!
//! A plugin is a shared library with sources and sinks. Implement [`Source`] or [`Sink`], whose documentation is the
//! delivery contract, and name them in [`export_plugin!`].
#![deny(missing_docs)]

#[allow(unsafe_code, reason = "the C ABI; every block says why it holds")]
pub mod abi;
mod action;
pub mod batch;
mod context;
mod error;
#[allow(unsafe_code, reason = "the plugin's side of the C ABI; every block says why it holds")]
pub mod export;
mod sink;
mod source;
mod stream;

pub use action::{Action, ActionArgument, ActionOutput};
pub use batch::{ChangeBatch, StreamDescription};
pub use context::{Host, MetricKind, Route, TaskContext, TaskInfo, glob};
pub use error::{Error, ErrorKind, Result};
pub use sink::{Committed, Flushed, Plan, PlannedColumn, Sink};
pub use source::{Poll, Source};
pub use stream::{Offset, StreamName, StreamOffset, StreamPartition};
