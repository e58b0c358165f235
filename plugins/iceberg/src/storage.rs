//! Files of tables: Iceberg's `Storage` over `object_store`, so that every place files can live in is reached through
//! one interface.
//!
//! A location is what stands in the table's metadata; what follows `file://` is the path itself, taken literally:
//! nothing is percent-decoded, as PyIceberg, DuckDB and Java's Hadoop reader take it as well. Writers escape what is
//! unusual in names before they make a location of it.
//!
//! A source may delete its rows once they are committed, so a commit has to survive a power failure and not only the death
//! of the process. Object stores promise that for every file. Local files are synced to disk all at once, by the
//! catalog before it commits what names them ([`LocalFiles::sync`]): one by one it would take several times as long.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig,
    StorageFactory,
};
use iceberg::{Error, ErrorKind, Result};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use serde::{Deserialize, Serialize};

/// Files up to this size are put in one request, larger ones in parts of it. S3 wants parts of 5 MiB at least.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file under way at a time.
const PARTS_UNDER_WAY: usize = 4;

/// Files synced to disk at a time: the file system writes its journal once for those that wait together.
const SYNCS_AT_ONCE: usize = 16;

/// Files on this machine, whose locations begin with `file://`.
#[derive(Clone, Debug)]
pub(crate) struct LocalFiles {
    pub(crate) io: FileIO,
    written: Written,
    /// Whoever syncs waits for the one before, which may have files of both in hand. Holds the folders that are known to
    /// be on disk.
    syncing: Arc<tokio::sync::Mutex<HashSet<PathBuf>>>,
}

impl LocalFiles {
    pub(crate) fn new() -> Self {
        let written = Written::default();
        let io = FileIOBuilder::new(Arc::new(Backend::Local(written.clone()))).build();
        Self { io, written, syncing: Arc::default() }
    }

    /// Syncs to disk what was written until now, the folders that were made for it included.
    ///
    /// # Errors
    /// The files may be damaged: the operating system forgets after the first failure what it could not write.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let mut durable = self.syncing.lock().await;
        let files = std::mem::take(&mut *self.written.files());
        let mut folders = HashSet::new();
        for file in &files {
            // The folder that holds the file, and while a folder is new, the one that holds it.
            for folder in file.ancestors().skip(1) {
                let is_new = !durable.contains(folder);
                if !folders.insert(folder.to_owned()) || !is_new {
                    break;
                }
            }
        }
        sync_all(files).await?;
        sync_all(folders.iter().cloned().collect()).await?;
        durable.extend(folders);
        Ok(())
    }
}

/// Syncs files or folders that still exist.
async fn sync_all(paths: Vec<PathBuf>) -> io::Result<()> {
    let mut syncs: Vec<BoxFuture<'static, _>> = Vec::with_capacity(paths.len());
    for path in paths {
        syncs.push(Box::pin(async move {
            let sync = move || match File::open(&path) {
                // Deleted since, as the metadata of a commit that lost; or a folder far above, which was not made by
                // whoever may not look into it.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                    Ok(())
                }
                Err(error) => Err(error),
                Ok(file) => file.sync_all(),
            };
            tokio::task::spawn_blocking(sync).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        }));
    }
    futures::stream::iter(syncs).buffer_unordered(SYNCS_AT_ONCE).try_collect().await
}

/// Local files that were written and not synced to disk yet.
#[derive(Clone, Debug, Default)]
struct Written(Arc<Mutex<Vec<PathBuf>>>);

impl Written {
    fn files(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where files live; knows how a location becomes a path in an object store.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Backend {
    /// This machine's file system.
    Local(#[serde(skip)] Written),
}

impl Backend {
    fn store(&self) -> Arc<dyn ObjectStore> {
        match self {
            Self::Local(_) => Arc::new(LocalFileSystem::new()),
        }
    }

    fn path(&self, location: &str) -> Result<Path> {
        let path = match self {
            // Java writes `file:/path` and others bare paths.
            Self::Local(_) => {
                location.strip_prefix("file://").or_else(|| location.strip_prefix("file:")).unwrap_or(location)
            }
        };
        if !path.starts_with('/') {
            return Err(Error::new(ErrorKind::DataInvalid, format!("{location:?} is no location of a local file")));
        }
        Path::parse(path).map_err(|e| {
            Error::new(ErrorKind::DataInvalid, format!("{location:?} is no location of a file")).with_source(e)
        })
    }

    /// Notes that a file was written.
    fn written(&self, path: &Path) {
        match self {
            Self::Local(written) => written.files().push(FilePath::new("/").join(path.as_ref())),
        }
    }
}

#[typetag::serde(name = "philotes-object-store")]
impl StorageFactory for Backend {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(ObjectStorage::from(self.clone())))
    }
}

/// Iceberg's storage over an object store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Backend", into = "Backend")]
struct ObjectStorage {
    backend: Backend,
    store: Arc<dyn ObjectStore>,
}

impl From<Backend> for ObjectStorage {
    fn from(backend: Backend) -> Self {
        Self { store: backend.store(), backend }
    }
}

impl From<ObjectStorage> for Backend {
    fn from(storage: ObjectStorage) -> Self {
        storage.backend
    }
}

/// What an object store reports, as Iceberg's error: `retryable` where trying again can help.
fn failed(doing: &str, location: &str, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let retryable = match &error {
        E::Generic { .. } => true,
        E::NotFound { .. }
        | E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::AlreadyExists { .. }
        | E::PermissionDenied { .. }
        | E::Unauthenticated { .. }
        | E::UnknownConfigurationKey { .. } => false,
        _ => true,
    };
    let kind = if retryable { ErrorKind::Unexpected } else { ErrorKind::DataInvalid };
    Error::new(kind, format!("cannot {doing} {location}")).with_retryable(retryable).with_source(error)
}

#[async_trait]
#[typetag::serde(name = "philotes-object-store")]
impl Storage for ObjectStorage {
    async fn exists(&self, location: &str) -> Result<bool> {
        match self.store.head(&self.backend.path(location)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed("look for", location, error)),
        }
    }

    async fn metadata(&self, location: &str) -> Result<FileMetadata> {
        let head = self.store.head(&self.backend.path(location)?).await;
        Ok(FileMetadata { size: head.map_err(|e| failed("look at", location, e))?.size })
    }

    async fn read(&self, location: &str) -> Result<Bytes> {
        let got = self.store.get(&self.backend.path(location)?).await.map_err(|e| failed("read", location, e))?;
        got.bytes().await.map_err(|e| failed("read", location, e))
    }

    async fn reader(&self, location: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(ObjectReader {
            store: self.store.clone(),
            path: self.backend.path(location)?,
            location: location.to_owned(),
        }))
    }

    async fn write(&self, location: &str, bytes: Bytes) -> Result<()> {
        let path = self.backend.path(location)?;
        self.store.put(&path, bytes.into()).await.map_err(|e| failed("write", location, e))?;
        self.backend.written(&path);
        Ok(())
    }

    async fn writer(&self, location: &str) -> Result<Box<dyn FileWrite>> {
        Ok(Box::new(ObjectWriter {
            backend: self.backend.clone(),
            store: self.store.clone(),
            path: self.backend.path(location)?,
            location: location.to_owned(),
            upload: Upload::Gathering { chunks: Vec::new(), bytes: 0 },
        }))
    }

    async fn delete(&self, location: &str) -> Result<()> {
        match self.store.delete(&self.backend.path(location)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", location, error)),
        }
    }

    async fn delete_prefix(&self, location: &str) -> Result<()> {
        let prefix = self.backend.path(location)?;
        let mut listed = self.store.list(Some(&prefix));
        while let Some(object) = listed.next().await {
            let object = object.map_err(|e| failed("list", location, e))?;
            self.store.delete(&object.location).await.map_err(|e| failed("delete below", location, e))?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut locations: BoxStream<'static, String>) -> Result<()> {
        while let Some(location) = locations.next().await {
            self.delete(&location).await?;
        }
        Ok(())
    }

    fn new_input(&self, location: &str) -> Result<InputFile> {
        self.backend.path(location)?;
        Ok(InputFile::new(Arc::new(self.clone()), location.to_owned()))
    }

    fn new_output(&self, location: &str) -> Result<OutputFile> {
        self.backend.path(location)?;
        Ok(OutputFile::new(Arc::new(self.clone()), location.to_owned()))
    }
}

struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    location: String,
}

#[async_trait]
impl FileRead for ObjectReader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.path, range).await.map_err(|e| failed("read", &self.location, e))
    }
}

/// A file being written: visible only once closed, gone when dropped before.
struct ObjectWriter {
    backend: Backend,
    store: Arc<dyn ObjectStore>,
    path: Path,
    location: String,
    upload: Upload,
}

enum Upload {
    /// Small so far: one request at the end will do.
    Gathering { chunks: Vec<Bytes>, bytes: usize },
    /// Large: parts are on their way.
    Parts(WriteMultipart),
    /// Finished, or failed for good.
    Closed,
}

#[async_trait]
impl FileWrite for ObjectWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if let Upload::Gathering { chunks, bytes } = &mut self.upload {
            *bytes += chunk.len();
            chunks.push(chunk);
            if *bytes <= PART_BYTES {
                return Ok(());
            }
            let gathered = std::mem::take(chunks);
            let started = self.store.put_multipart(&self.path).await;
            let upload = started.map_err(|e| failed("write", &self.location, e))?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            gathered.into_iter().for_each(|chunk| parts.put(chunk));
            self.upload = Upload::Parts(parts);
            return Ok(());
        }
        match &mut self.upload {
            Upload::Parts(parts) => {
                let ready = parts.wait_for_capacity(PARTS_UNDER_WAY).await;
                ready.map_err(|e| failed("write", &self.location, e))?;
                parts.put(chunk);
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Unexpected, format!("{} is closed", self.location))),
        }
    }

    async fn close(&mut self) -> Result<()> {
        let result = match std::mem::replace(&mut self.upload, Upload::Closed) {
            Upload::Gathering { chunks, .. } => self.store.put(&self.path, PutPayload::from_iter(chunks)).await,
            Upload::Parts(parts) => parts.finish().await,
            Upload::Closed => {
                return Err(Error::new(ErrorKind::Unexpected, format!("{} is closed", self.location)));
            }
        };
        result.map_err(|e| failed("write", &self.location, e))?;
        self.backend.written(&self.path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(folder: &tempfile::TempDir, name: &str) -> String {
        format!("file://{}/{name}", folder.path().display())
    }

    #[tokio::test]
    async fn names_are_literal_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["a b.avro", "date=2026-01-24/x.parquet", "100%25/100%.avro", "größe/日本.avro", "q%3Fx%23y+z&.avro"]
        {
            let location = location(&folder, name);
            let files = LocalFiles::new().io;
            files.new_output(&location).unwrap().write("hello".into()).await.unwrap();
            assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), b"hello", "{name}");
            assert_eq!(files.new_input(&location).unwrap().read().await.unwrap(), "hello");
            files.delete(&location).await.unwrap();
            assert!(!files.exists(&location).await.unwrap());
            files.delete(&location).await.unwrap();
        }
    }

    #[tokio::test]
    async fn large_files_go_in_parts_and_appear_when_closed() {
        let folder = tempfile::tempdir().unwrap();
        let location = location(&folder, "large");
        let files = LocalFiles::new().io;
        let mut writer = files.new_output(&location).unwrap().writer().await.unwrap();
        let chunk: Bytes = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>().into();
        for _ in 0..7 {
            writer.write(chunk.clone()).await.unwrap();
        }
        assert!(!files.exists(&location).await.unwrap());
        writer.close().await.unwrap();
        let read = files.new_input(&location).unwrap().read().await.unwrap();
        assert_eq!(read.len(), 21_000_000);
        assert!(read.chunks(3_000_000).all(|part| part == chunk));
        let reader = files.new_input(&location).unwrap().reader().await.unwrap();
        assert_eq!(reader.read(3_000_000..3_000_010).await.unwrap(), chunk.slice(0..10));
        assert!(writer.close().await.is_err());
    }

    #[tokio::test]
    async fn a_dropped_writer_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFiles::new().io;
        let mut writer = files.new_output(location(&folder, "gone")).unwrap().writer().await.unwrap();
        for _ in 0..10 {
            writer.write(vec![7; 3_000_000].into()).await.unwrap();
        }
        drop(writer);
        for _ in 0..100 {
            if std::fs::read_dir(folder.path()).unwrap().next().is_none() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("files are left: {:?}", std::fs::read_dir(folder.path()).unwrap().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn errors_say_whether_trying_again_helps() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFiles::new().io;
        let missing = files.new_input(location(&folder, "missing")).unwrap().read().await.unwrap_err();
        assert!(!missing.retryable());
        std::fs::write(folder.path().join("file"), "").unwrap();
        let below_a_file =
            files.new_output(location(&folder, "file/below")).unwrap().write("x".into()).await.unwrap_err();
        assert!(below_a_file.retryable());
        assert!(files.new_output("s3://bucket/key").is_err());
        assert!(files.new_output("file:///a/../b").is_err());
    }

    #[tokio::test]
    async fn what_was_written_is_synced_once_and_what_is_gone_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFiles::new();
        for name in ["new/folder/a", "new/b", "new/folder/gone"] {
            files.io.new_output(location(&folder, name)).unwrap().write("x".into()).await.unwrap();
        }
        let mut writer = files.io.new_output(location(&folder, "new/c")).unwrap().writer().await.unwrap();
        writer.write("x".into()).await.unwrap();
        assert_eq!(files.written.files().len(), 3);
        writer.close().await.unwrap();
        assert_eq!(files.written.files().len(), 4);
        files.io.delete(location(&folder, "new/folder/gone")).await.unwrap();
        files.sync().await.unwrap();
        assert!(files.written.files().is_empty());
        let synced = files.syncing.lock().await.clone();
        for name in ["new/folder", "new", ""] {
            let path = folder.path().join(name);
            assert!(synced.iter().any(|synced| *synced == path), "{name:?} in {synced:?}");
        }
    }

    #[test]
    fn storages_serialise_without_secrets_or_state() {
        let storage: Box<dyn Storage> = Box::new(ObjectStorage::from(Backend::Local(Written::default())));
        let json = serde_json::to_string(&storage).unwrap();
        assert!(json.contains("philotes-object-store"), "{json}");
        let back: Box<dyn Storage> = serde_json::from_str(&json).unwrap();
        assert!(back.new_input("file:///x").is_ok());
    }
}
