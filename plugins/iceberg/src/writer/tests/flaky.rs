//! A storage that fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use iceberg::io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory};
use serde::{Deserialize, Serialize};

/// A storage in memory that fails as often as it is told to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Flaky {
    files: iceberg::io::MemoryStorage,
    /// How many of the next calls fail.
    #[serde(skip)]
    pub(super) failing: Arc<AtomicU32>,
    #[serde(skip)]
    /// Chunks that were written, or tried to be.
    pub(super) chunks: Arc<AtomicU32>,
    #[serde(skip)]
    /// Above zero: nothing works, and nothing will.
    pub(super) permanent: Arc<AtomicU32>,
}

impl Flaky {
    fn fails(&self) -> iceberg::Result<()> {
        if self.permanent.load(SeqCst) > 0 {
            return Err(iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "permission denied"));
        }
        match self.failing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(iceberg::Error::new(iceberg::ErrorKind::Unexpected, "out of reach").with_retryable(true)),
            Err(_) => Ok(()),
        }
    }
}

struct FlakyWrite {
    storage: Flaky,
    to: Box<dyn FileWrite>,
}

#[async_trait]
impl FileWrite for FlakyWrite {
    async fn write(&mut self, bytes: Bytes) -> iceberg::Result<()> {
        self.storage.chunks.fetch_add(1, SeqCst);
        self.storage.fails()?;
        self.to.write(bytes).await
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        self.storage.fails()?;
        self.to.close().await
    }
}

#[async_trait]
#[typetag::serde(name = "flaky-test-storage")]
impl Storage for Flaky {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        self.files.exists(path).await
    }
    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        self.files.metadata(path).await
    }
    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        self.files.read(path).await
    }
    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        self.files.reader(path).await
    }
    async fn write(&self, path: &str, bytes: Bytes) -> iceberg::Result<()> {
        self.files.write(path, bytes).await
    }
    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        self.fails()?;
        Ok(Box::new(FlakyWrite { storage: self.clone(), to: self.files.writer(path).await? }))
    }
    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        self.files.delete(path).await
    }
    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        self.files.delete_prefix(path).await
    }
    async fn delete_stream(&self, paths: BoxStream<'static, String>) -> iceberg::Result<()> {
        self.files.delete_stream(paths).await
    }
    fn new_input(&self, path: &str) -> iceberg::Result<InputFile> {
        self.files.new_input(path)
    }
    fn new_output(&self, path: &str) -> iceberg::Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

#[typetag::serde(name = "flaky-test-factory")]
impl StorageFactory for Flaky {
    fn build(&self, _: &StorageConfig) -> iceberg::Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}
