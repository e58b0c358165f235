//! Files of tables: Iceberg's `Storage` over `object_store`, so that every place files can live in is reached through
//! one interface.
//!
//! A location is what stands in the table's metadata; what follows `file://` is the path itself, taken literally:
//! nothing is percent-decoded, as PyIceberg, DuckDB and Java's Hadoop reader take it as well. Writers escape what is
//! unusual in names before they make a location of it.
//!
//! A source may delete its rows once they are committed, so a commit has to survive a power failure and not only the death
//! of the process. Object stores promise that for every file. Local files are synced to disk all at once, by the
//! catalog before it commits what names them ([`Files::sync`]): one by one it would take several times as long.

mod listing;
mod local;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
#[cfg(test)]
use std::sync::MutexGuard;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig,
    StorageFactory,
};
use iceberg::{Error, ErrorKind, Result};
use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart};
use philotes_sdk as sdk;
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::manifests;
pub(crate) use listing::Listed;
pub(crate) use local::Unsynced;
use local::{Local, Written, sync_all};

/// Files up to this size are put in one request, larger ones in parts of it. S3 wants parts of 5 MiB at least.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file under way at a time.
const PARTS_UNDER_WAY: usize = 4;

/// What a request to S3 may take. The client repeats what is safe to repeat, for as long as `S3_RETRIES_TIME`; beyond that the
/// host reports it and backs off.
const S3_CONNECT_TIME: Duration = Duration::from_secs(5);
const S3_REQUEST_TIME: Duration = Duration::from_secs(60);
const S3_RETRIES: usize = 3;
const S3_RETRIES_TIME: Duration = Duration::from_secs(15);

/// The longest file that is read as a whole, unpacked: metadata, manifests and what lists them. Data files are read in parts.
pub(crate) const MAX_WHOLE_BYTES: u64 = 256 << 20;

/// Files removed at a time.
const REMOVALS_AT_ONCE: usize = 16;

/// Files on this machine, whose locations begin with `file://`, or in S3, whose locations begin with `s3://`.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) io: FileIO,
    backend: Backend,
    written: Written,
    /// Whoever syncs waits for the one before, which may have files of both in hand. Holds the folders that are known to
    /// be on disk.
    syncing: Arc<tokio::sync::Mutex<HashSet<PathBuf>>>,
}

impl Files {
    /// Files on this machine, wherever they are.
    pub(crate) fn local() -> Self {
        Self::on_this_machine(Local::default())
    }

    /// Files on this machine below a folder; others are neither read nor written, listed or deleted.
    pub(crate) fn below(root: PathBuf) -> Self {
        Self::on_this_machine(Local::below(root))
    }

    fn on_this_machine(local: Local) -> Self {
        let written = local.written().clone();
        Self::new(Backend::Local(local), written)
    }

    /// Files in S3.
    pub(crate) fn s3(access: S3Access) -> Self {
        Self::new(Backend::S3(S3(Arc::new(Buckets { access, stores: Mutex::default() }))), Written::default())
    }

    fn new(backend: Backend, written: Written) -> Self {
        let io = FileIOBuilder::new(Arc::new(backend.clone())).build();
        Self { io, backend, written, syncing: Arc::default() }
    }

    /// Refuses a location where no files may be.
    pub(crate) async fn allows(&self, location: &str) -> Result<()> {
        self.backend.place(location).map(drop)
    }

    /// Asks whether files below a folder in S3 can be reached. Who may not list them may still write them.
    pub(crate) async fn check(&self, folder: &str) -> Result<()> {
        let (store, prefix) = self.backend.place(folder)?;
        match store.list(Some(&prefix)).next().await {
            Some(Err(error)) if error.to_string().contains("<Code>AccessDenied</Code>") => Ok(()),
            Some(Err(error)) => Err(self.backend.failed("list", folder, error)),
            None | Some(Ok(_)) => Ok(()),
        }
    }

    /// Syncs to disk what was written until now, the folders that were made for it included. S3 promises it by itself.
    ///
    /// # Errors
    /// Those that could not be tried just now are tried again by the next call; the others may be damaged.
    pub(crate) async fn sync(&self) -> std::result::Result<(), Unsynced> {
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
        let synced = match sync_all(files.clone()).await {
            Ok(()) => sync_all(folders.iter().cloned().collect()).await,
            Err(error) => Err(error),
        };
        match &synced {
            Ok(()) => durable.extend(folders),
            Err(Unsynced::NotTried(_)) => self.written.files().extend(files),
            Err(Unsynced::Failed(_)) => {}
        }
        synced
    }

    /// What was written and not synced yet.
    #[cfg(test)]
    fn written(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.written.files()
    }
}

/// Says of a file that it is longer than one may be that is read as a whole.
pub(crate) fn too_long(what: &str) -> String {
    let most = MAX_WHOLE_BYTES >> 20;
    format!(
        "{what} more than the {most} MiB that metadata may take; expire snapshots, or rewrite manifests into smaller ones"
    )
}

/// Removes files that nothing names and nothing ever will; the worst that failing does is to leave them.
pub(crate) async fn discard(files: &FileIO, locations: impl IntoIterator<Item = String>) {
    let mut removals: Vec<BoxFuture<'_, ()>> = Vec::new();
    for location in locations {
        removals.push(Box::pin(async move {
            if let Err(error) = files.delete(&location).await {
                tracing::debug!(location, %error, "a file that nothing needs stays");
            }
        }));
    }
    futures::stream::iter(removals).buffer_unordered(REMOVALS_AT_ONCE).collect::<()>().await;
}

/// How S3 is reached.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct S3Access {
    /// `http://host:port` or `https://…`; AWS where it is not given.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) credentials: S3Credentials,
    /// The bucket stands in the path and not in the host's name.
    pub(crate) path_style: bool,
    /// Nothing is to be deleted: the catalog can bring back a dropped table, and does the deleting itself.
    pub(crate) keeps_files: bool,
}

/// What lets requests to S3 in.
#[derive(Clone, Default)]
pub(crate) enum S3Credentials {
    /// What the environment says: `AWS_*`, instance metadata.
    #[default]
    Environment,
    Keys(Arc<AwsCredential>),
    /// Keys that change; whoever provides them is asked before every request.
    Provided(AwsCredentialProvider),
    /// No keys: requests are signed on their way.
    Signed(Arc<dyn HttpConnector>),
}

impl PartialEq for S3Credentials {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Environment, Self::Environment) => true,
            (Self::Keys(one), Self::Keys(other)) => one == other,
            (Self::Provided(one), Self::Provided(other)) => Arc::ptr_eq(one, other),
            (Self::Signed(one), Self::Signed(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for S3Credentials {}

/// Connects without following redirects. A client would send what lets a request in (a session's token, the answer of a signer)
/// to whatever server an answer names, with a signature that is not for it.
#[derive(Debug)]
pub(crate) struct Direct;

impl HttpConnector for Direct {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let said = |key: ClientConfigKey| options.get_config_value(&key);
        let time = |key, usual| said(key).and_then(|text| sdk::quantity::duration(&text)).unwrap_or(usual);
        let http_allowed = said(ClientConfigKey::AllowHttp).is_some_and(|allowed| allowed == "true");
        let client = reqwest::Client::builder()
            .user_agent(concat!("philotes-iceberg/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(time(ClientConfigKey::ConnectTimeout, S3_CONNECT_TIME))
            .timeout(time(ClientConfigKey::Timeout, S3_REQUEST_TIME))
            .redirect(Policy::none())
            .https_only(!http_allowed)
            // As the storage's own client: HTTP/2 is slower, and what is compressed on the way has another length.
            .http1_only()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(HttpClient::new(client))
    }
}

/// A connector that several stores share.
#[derive(Debug)]
struct SharedConnector(Arc<dyn HttpConnector>);

impl HttpConnector for SharedConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        self.0.connect(options)
    }
}

impl fmt::Debug for S3Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Access")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl S3Access {
    /// As the connector says it.
    pub(crate) fn configured(storage: &config::StorageConfig) -> Self {
        let endpoint = storage.endpoint_url();
        let keys = storage.access_key.clone().zip(storage.secret_key.clone());
        Self {
            path_style: storage.path_style.unwrap_or(endpoint.is_some()),
            keeps_files: false,
            endpoint,
            region: storage.region.clone(),
            credentials: keys.map_or(S3Credentials::Environment, |(key_id, secret_key)| {
                let secret_key = secret_key.expose().to_owned();
                S3Credentials::Keys(Arc::new(AwsCredential { key_id, secret_key, token: None }))
            }),
        }
    }

    fn bucket(&self, bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        let builder = match &self.credentials {
            S3Credentials::Environment => AmazonS3Builder::from_env(),
            S3Credentials::Keys(keys) => {
                let builder = AmazonS3Builder::new()
                    .with_access_key_id(keys.key_id.as_str())
                    .with_secret_access_key(keys.secret_key.as_str());
                match &keys.token {
                    Some(token) => builder.with_token(token.as_str()),
                    None => builder,
                }
            }
            S3Credentials::Provided(provider) => AmazonS3Builder::new().with_credentials(provider.clone()),
            // Deleting several objects in one request has their names in its body, which signers do not see.
            S3Credentials::Signed(_) => AmazonS3Builder::new().with_skip_signature(true).with_disable_bulk_delete(true),
        };
        let mut builder = match &self.credentials {
            S3Credentials::Signed(connector) => builder.with_http_connector(SharedConnector(connector.clone())),
            _ => builder.with_http_connector(Direct),
        };
        if let Some(region) = &self.region {
            builder = builder.with_region(region.as_str());
        }
        if let Some(endpoint) = &self.endpoint {
            let endpoint = endpoint.trim_end_matches('/');
            builder = match (self.path_style, endpoint.split_once("://")) {
                // The client wants the whole host, with the bucket in front.
                (false, Some((scheme, host))) => builder.with_endpoint(format!("{scheme}://{bucket}.{host}")),
                _ => builder.with_endpoint(endpoint),
            };
        }
        choose_crypto();
        let store = builder
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(!self.path_style)
            .with_client_options(
                ClientOptions::new()
                    .with_connect_timeout(S3_CONNECT_TIME)
                    .with_timeout(S3_REQUEST_TIME)
                    .with_allow_http(self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))),
            )
            .with_retry(RetryConfig {
                max_retries: S3_RETRIES,
                retry_timeout: S3_RETRIES_TIME,
                ..RetryConfig::default()
            })
            .build()?;
        Ok(Arc::new(store))
    }
}

/// What TLS computes with, for every HTTP client of this library. The first choice of a process stays; whoever made another has
/// the same in mind.
pub(crate) fn choose_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The buckets that locations have named so far.
#[derive(Clone, Debug, Default)]
struct S3(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    access: S3Access,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Buckets {
    fn store(&self, bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(bucket) {
            return Ok(store.clone());
        }
        let store = self.access.bucket(bucket)?;
        stores.insert(bucket.to_owned(), store.clone());
        Ok(store)
    }
}

/// Where files live. What it holds is not serialised: nobody sends a storage anywhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Backend {
    /// This machine's file system.
    Local(#[serde(skip)] Local),
    S3(#[serde(skip)] S3),
}

/// A location, as an object store and a path in it.
type Place = (Arc<dyn ObjectStore>, Path);

impl Backend {
    /// Finds the object store and the path of a location.
    fn place(&self, location: &str) -> Result<Place> {
        let invalid = |what: &str| Error::new(ErrorKind::DataInvalid, format!("{location:?} is no location of {what}"));
        match self {
            Self::Local(local) => {
                let path = local_path(location).ok_or_else(|| invalid("a local file"))?;
                local.allow(FilePath::new(path))?;
                let path = Path::parse(path).map_err(|e| invalid("a file").with_source(e))?;
                Ok((Arc::new(LocalFileSystem::new()), path))
            }
            Self::S3(buckets) => {
                let (bucket, key) = s3_parts(location).ok_or_else(|| invalid("an object in S3"))?;
                let path = Path::parse(key).map_err(|e| invalid("an object in S3").with_source(e))?;
                let store = buckets.0.store(bucket).map_err(|e| {
                    let passes = sdk::is_out_of_files();
                    let kind = if passes { ErrorKind::Unexpected } else { ErrorKind::DataInvalid };
                    Error::new(kind, format!("bucket {bucket:?} cannot be reached as configured"))
                        .with_retryable(passes)
                        .with_source(e)
                })?;
                Ok((store, path))
            }
        }
    }

    /// What an object store reports, as Iceberg's error: `retryable` where trying again can help. Whom keys that change do not let
    /// in, they may let in the next time.
    fn failed(&self, doing: &str, location: &str, error: object_store::Error) -> Error {
        use object_store::Error as E;
        let retryable = match &error {
            E::Generic { .. } => true,
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                matches!(self, Self::S3(buckets) if matches!(buckets.0.access.credentials, S3Credentials::Provided(_)))
            }
            E::NotFound { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::AlreadyExists { .. }
            | E::UnknownConfigurationKey { .. } => false,
            _ => true,
        };
        let kind = if retryable { ErrorKind::Unexpected } else { ErrorKind::DataInvalid };
        let by = match self {
            Self::S3(buckets) if buckets.0.access.credentials == S3Credentials::Environment => {
                " with the environment's keys, since neither storage.access_key nor the catalog says any"
            }
            _ => "",
        };
        Error::new(kind, format!("cannot {doing} {location}{by}")).with_retryable(retryable).with_source(error)
    }

    fn keeps_files(&self) -> bool {
        matches!(self, Self::S3(buckets) if buckets.0.access.keeps_files)
    }

    /// Notes that a file was written.
    fn written(&self, path: &Path) {
        if let Self::Local(local) = self {
            local.written().files().push(FilePath::new("/").join(path.as_ref()));
        }
    }
}

/// The path of a location on this machine; Java writes `file:/path` and others bare paths.
fn local_path(location: &str) -> Option<&str> {
    let path = location.strip_prefix("file://").or_else(|| location.strip_prefix("file:")).unwrap_or(location);
    path.starts_with('/').then_some(path)
}

/// A location, spelt as all that mean the same are: Hadoop's writers say s3a and s3n, Java `file:/path`, others a bare path.
pub(crate) fn normalised(location: &str) -> String {
    let location = location.trim_end_matches('/');
    match (s3_parts(location), local_path(location)) {
        (Some((bucket, key)), _) => format!("s3://{bucket}/{key}"),
        (None, Some(path)) => format!("file://{path}"),
        (None, None) => location.to_owned(),
    }
}

/// Whether a location is one of this machine.
pub(crate) fn is_local(location: &str) -> bool {
    local_path(location).is_some()
}

/// Bucket and key of an S3 location; Hadoop's writers call the scheme s3a and s3n.
pub(crate) fn s3_parts(location: &str) -> Option<(&str, &str)> {
    let rest = ["s3://", "s3a://", "s3n://"].iter().find_map(|scheme| location.strip_prefix(scheme))?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    (!bucket.is_empty()).then_some((bucket, key))
}

#[typetag::serde(name = "philotes-object-store")]
impl StorageFactory for Backend {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "philotes-object-store")]
impl Storage for Backend {
    async fn exists(&self, location: &str) -> Result<bool> {
        let (store, path) = self.place(location)?;
        match store.head(&path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed("look for", location, error)),
        }
    }

    async fn metadata(&self, location: &str) -> Result<FileMetadata> {
        let (store, path) = self.place(location)?;
        Ok(FileMetadata { size: store.head(&path).await.map_err(|e| self.failed("look at", location, e))?.size })
    }

    async fn read(&self, location: &str) -> Result<Bytes> {
        let (store, path) = self.place(location)?;
        let got = store.get(&path).await.map_err(|e| self.failed("read", location, e))?;
        if got.meta.size > MAX_WHOLE_BYTES {
            let why = format!("cannot read {location}: {}", too_long(&format!("it has {} bytes,", got.meta.size)));
            return Err(Error::new(ErrorKind::DataInvalid, why));
        }
        let bytes = got.bytes().await.map_err(|e| self.failed("read", location, e))?;
        if !bytes.starts_with(manifests::MAGIC) {
            return Ok(bytes);
        }
        // Here, so that nobody reads another one: the crate's own scan reads manifests, too.
        manifests::bounded(&bytes, manifests::Content::Manifest)
            .map_err(|e| Error::new(ErrorKind::DataInvalid, format!("cannot read {location}")).with_source(e))
    }

    async fn reader(&self, location: &str) -> Result<Box<dyn FileRead>> {
        let (store, path) = self.place(location)?;
        Ok(Box::new(ObjectReader { backend: self.clone(), store, path, location: location.to_owned() }))
    }

    async fn write(&self, location: &str, bytes: Bytes) -> Result<()> {
        let (store, path) = self.place(location)?;
        store.put(&path, bytes.into()).await.map_err(|e| self.failed("write", location, e))?;
        self.written(&path);
        Ok(())
    }

    async fn writer(&self, location: &str) -> Result<Box<dyn FileWrite>> {
        let (store, path) = self.place(location)?;
        Ok(Box::new(ObjectWriter {
            backend: self.clone(),
            store,
            path,
            location: location.to_owned(),
            upload: Upload::Gathering { chunks: Vec::new(), bytes: 0 },
        }))
    }

    async fn delete(&self, location: &str) -> Result<()> {
        let (store, path) = self.place(location)?;
        if self.keeps_files() {
            return Ok(());
        }
        match store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", location, error)),
        }
    }

    async fn delete_prefix(&self, location: &str) -> Result<()> {
        let (store, prefix) = self.place(location)?;
        if self.keeps_files() {
            return Ok(());
        }
        let mut listed = store.list(Some(&prefix));
        while let Some(object) = listed.next().await {
            let object = object.map_err(|e| self.failed("list", location, e))?;
            store.delete(&object.location).await.map_err(|e| self.failed("delete below", location, e))?;
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
        self.place(location)?;
        Ok(InputFile::new(Arc::new(self.clone()), location.to_owned()))
    }

    fn new_output(&self, location: &str) -> Result<OutputFile> {
        self.place(location)?;
        Ok(OutputFile::new(Arc::new(self.clone()), location.to_owned()))
    }
}

struct ObjectReader {
    backend: Backend,
    store: Arc<dyn ObjectStore>,
    path: Path,
    location: String,
}

#[async_trait]
impl FileRead for ObjectReader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.path, range).await.map_err(|e| self.backend.failed("read", &self.location, e))
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
            let upload = started.map_err(|e| self.backend.failed("write", &self.location, e))?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            gathered.into_iter().for_each(|chunk| parts.put(chunk));
            self.upload = Upload::Parts(parts);
            return Ok(());
        }
        match &mut self.upload {
            Upload::Parts(parts) => {
                let ready = parts.wait_for_capacity(PARTS_UNDER_WAY).await;
                ready.map_err(|e| self.backend.failed("write", &self.location, e))?;
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
        result.map_err(|e| self.backend.failed("write", &self.location, e))?;
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
            let files = Files::local().io;
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
        let files = Files::local().io;
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
        let files = Files::local().io;
        let mut writer = files.new_output(location(&folder, "gone")).unwrap().writer().await.unwrap();
        for _ in 0..10 {
            writer.write(vec![7; 3_000_000].into()).await.unwrap();
        }
        drop(writer);
        for _ in 0..100 {
            if std::fs::read_dir(folder.path()).unwrap().next().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("files are left: {:?}", std::fs::read_dir(folder.path()).unwrap().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn errors_say_whether_trying_again_helps() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::local().io;
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
        let files = Files::local();
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
        let storage: Box<dyn Storage> = Box::new(Backend::Local(Local::default()));
        let json = serde_json::to_string(&storage).unwrap();
        assert!(json.contains("philotes-object-store"), "{json}");
        let back: Box<dyn Storage> = serde_json::from_str(&json).unwrap();
        assert!(back.new_input("file:///x").is_ok());
    }
}
