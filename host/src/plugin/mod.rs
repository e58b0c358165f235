//! Plugins as the host sees them: connectors that open source and sink instances.
//!
//! Callers never see the C ABI: they hold these traits. `library` implements them over a loaded shared library; tests
//! implement them in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use philotes_sdk::{
    Action, ActionOutput, ChangeBatch, Flushed, Offset, Plan, Poll, Result, StreamDescription, StreamOffset,
    StreamPartition, TaskInfo,
};

use crate::status::TaskStatus;

mod library;
mod registry;

pub use library::{Library, LoadError, Refusal};
pub use registry::{Registry, Shadowed};

/// What a connector is at one end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Delivers change batches.
    Source,
    /// Writes them.
    Sink,
}

impl Kind {
    /// The section of a connector file that describes it.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
        }
    }
}

/// One source or sink of a loaded library. Configurations are JSON texts.
pub trait Connector: Send + Sync {
    /// Source or sink.
    fn kind(&self) -> Kind;
    /// What `plugin:` says in YAML.
    fn name(&self) -> &str;
    /// The plugin's version.
    fn version(&self) -> &str;
    /// One sentence.
    fn doc(&self) -> &str;
    /// The library's file.
    fn library(&self) -> &Path;
    /// The configuration spec: JSON Schema.
    fn config_spec(&self) -> &serde_json::Value;
    /// The actions it offers.
    fn actions(&self) -> &[Action];
    /// Whether a sink keeps dead letters.
    fn takes_dead_letters(&self) -> bool {
        false
    }
    /// The plugin's own check of a configuration: one message per fault, the key path first. Touches no server.
    fn validate(&self, config: &str) -> Result<Vec<String>>;
    /// Tries to reach what the configuration names.
    fn check(&self, config: &str, task: &TaskInfo) -> Result<()>;
    /// How many tasks, at most `max`, the work splits into; 1 for a sink.
    fn tasks(&self, config: &str, max: u32) -> Result<u32>;
    /// Opens a source instance.
    fn open_source(&self, config: &str, task: &TaskInfo, services: Services) -> Result<Box<dyn SourceInstance>>;
    /// Opens a sink instance.
    fn open_sink(&self, config: &str, task: &TaskInfo, services: Services) -> Result<Box<dyn SinkInstance>>;
    /// A source's streams, sampled where need be.
    fn streams(&self, config: &str, task: &TaskInfo) -> Result<Vec<StreamDescription>>;
    /// What a sink would do for a stream.
    fn plan(&self, config: &str, task: &TaskInfo, at: &StreamPartition, schema: &SchemaRef) -> Result<Plan>;
    /// Does an action.
    fn act(&self, config: &str, task: &TaskInfo, action: &str, arguments: &serde_json::Value) -> Result<ActionOutput>;
}

/// A running source: blocking calls, one at a time. Dropping it without `close` lets go of it as it is.
pub trait SourceInstance: Send {
    /// See [`philotes_sdk::Source::poll`].
    fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll>;
    /// See [`philotes_sdk::Source::resume`].
    fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()>;
    /// See [`philotes_sdk::Source::commit`].
    fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()>;
    /// Interrupts a running call from another thread.
    fn canceller(&self) -> Arc<dyn Cancel>;
    /// See [`philotes_sdk::Source::close`].
    fn close(self: Box<Self>, timeout: Duration) -> Result<()>;
}

/// A running sink: blocking calls, one at a time. Dropping it without `close` lets go of it as it is.
pub trait SinkInstance: Send {
    /// See [`philotes_sdk::Sink::offsets`].
    fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>>;
    /// See [`philotes_sdk::Sink::revoke`].
    fn revoke(&mut self, at: &[StreamPartition]) -> Result<()>;
    /// See [`philotes_sdk::Sink::write`].
    fn write(&mut self, batch: &ChangeBatch) -> Result<()>;
    /// See [`philotes_sdk::Sink::flush`].
    fn flush(&mut self) -> Result<Flushed>;
    /// See [`philotes_sdk::Sink::buffered_bytes`].
    fn buffered_bytes(&self) -> usize;
    /// Interrupts a running call from another thread.
    fn canceller(&self) -> Arc<dyn Cancel>;
    /// See [`philotes_sdk::Sink::close`].
    fn close(self: Box<Self>, timeout: Duration) -> Result<()>;
}

/// Cancels an instance: its running and later calls return soon. Idempotent, from any thread, harmless after close.
pub trait Cancel: Send + Sync {
    /// Asks the instance to return.
    fn cancel(&self);
}

/// What the host offers an instance: where its events and metrics go.
#[derive(Clone)]
pub struct Services {
    /// The parent of the instance's events.
    pub span: tracing::Span,
    /// The label `connector` of its metrics.
    pub connector: String,
    /// Where what it says of its lag is shown; none for what belongs to no running task.
    pub status: Option<Arc<TaskStatus>>,
}
