//! Loaded plugins behind the sdk's traits, so that the suites can drive what the host drives.
//!
//! An instance's calls block; they run where they are called, as on the host's threads.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use philotes_host::plugin::{Connector, Kind, Registry, Services, SinkInstance, SourceInstance};
use philotes_sdk::{
    ChangeBatch, Error, Flushed, Offset, Plan, Poll, Result, Sink, Source, StreamDescription, StreamOffset,
    StreamPartition, TaskContext,
};
use philotes_tests::target;
use serde_json::Value;

/// A connector of the libraries beside the host.
pub(crate) fn connector(kind: Kind, name: &str) -> Result<Arc<dyn Connector>> {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| Registry::discover(&[target::profile_dir()]));
    registry.connector(kind, name).ok_or_else(|| Error::config(format!("{name} was not built")))
}

fn services(context: &TaskContext) -> Services {
    Services { span: tracing::Span::none(), connector: context.info().connector.clone(), status: None }
}

/// A source of this name, loaded.
macro_rules! loaded_source {
    ($source:ident, $name:literal) => {
        pub(crate) struct $source(Box<dyn SourceInstance>);

        #[async_trait]
        impl Source for $source {
            const NAME: &'static str = $name;
            const DOC: &'static str = "the loaded source";
            type Config = Value;

            async fn open(config: Value, context: TaskContext) -> Result<Self> {
                let connector = connector(Kind::Source, Self::NAME)?;
                connector.open_source(&config.to_string(), context.info(), services(&context)).map(Self)
            }

            async fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<Poll> {
                self.0.poll(timeout, max_bytes)
            }

            async fn resume(&mut self, at: &StreamPartition, offset: Option<&Offset>) -> Result<()> {
                self.0.resume(at, offset)
            }

            async fn commit(&mut self, offsets: &[StreamOffset]) -> Result<()> {
                self.0.commit(offsets)
            }

            async fn close(self, timeout: Duration) -> Result<()> {
                self.0.close(timeout)
            }

            async fn streams(config: Value, context: TaskContext) -> Result<Vec<StreamDescription>> {
                connector(Kind::Source, Self::NAME)?.streams(&config.to_string(), context.info())
            }
        }
    };
}

loaded_source!(LoadedSource, "postgres-buffer");
loaded_source!(LoadedKafka, "kafka");

/// `iceberg`, loaded.
pub(crate) struct LoadedSink(Box<dyn SinkInstance>);

#[async_trait]
impl Sink for LoadedSink {
    const NAME: &'static str = "iceberg";
    const DOC: &'static str = "the loaded sink";
    type Config = Value;

    async fn open(config: Value, context: TaskContext) -> Result<Self> {
        let connector = connector(Kind::Sink, Self::NAME)?;
        connector.open_sink(&config.to_string(), context.info(), services(&context)).map(Self)
    }

    async fn offsets(&mut self, at: &[StreamPartition]) -> Result<Vec<Option<Offset>>> {
        self.0.offsets(at)
    }

    async fn revoke(&mut self, at: &[StreamPartition]) -> Result<()> {
        self.0.revoke(at)
    }

    async fn write(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.0.write(batch)
    }

    async fn flush(&mut self) -> Result<Flushed> {
        self.0.flush()
    }

    fn buffered_bytes(&self) -> usize {
        self.0.buffered_bytes()
    }

    async fn close(self, timeout: Duration) -> Result<()> {
        self.0.close(timeout)
    }

    async fn plan(config: Value, context: TaskContext, at: &StreamPartition, schema: SchemaRef) -> Result<Plan> {
        connector(Kind::Sink, Self::NAME)?.plan(&config.to_string(), context.info(), at, &schema)
    }
}
