//! A catalog server that speaks the Iceberg REST specification.
//!
//! Nothing is repeated here: the host and the commit protocol repeat what is safe, and they know more. What matters is to
//! tell apart what did not happen from what may have: a request that could not be connected did not, an answer that never
//! came, or one that says the server itself is in trouble, may have.

mod http;
mod lend;
mod oauth;
mod redirect;
mod sign;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use iceberg::spec::{FormatVersion, TableMetadata};
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};
use philotes_sdk::{failpoint, without_secrets};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Catalog, CatalogError, CatalogErrorKind as Kind, CommitRequest, LoadedTable, Result, Shown, metadata};
use crate::config::{RestCatalogConfig, StorageConfig};
use crate::manifests::is_true;
use crate::storage::{Files, S3Access, S3Credentials, is_local, s3_parts};
use http::{Effect, Http, body, escape, not_understood};
use lend::{Keys, Lender};
use sign::Signer;

/// Between the parts of a namespace's name, in paths and queries.
const UNIT_SEPARATOR: &str = "\u{1f}";
/// How many answers a listing may take, and how many names it may have: a server may say of each page that another follows.
const MAX_PAGES: usize = 10_000;
const MAX_NAMES: usize = 1_000_000;
/// What requests to S3 are signed for where nobody says a region.
const USUAL_REGION: &str = "us-east-1";

/// A catalog behind HTTP.
pub(crate) struct RestCatalog {
    http: Arc<Http>,
    /// Where the server is, without `/v1`.
    root: String,
    /// `{root}/v1/{prefix}`, without a slash at its end.
    base: String,
    storage: StorageConfig,
    /// What `/v1/config` says of every table; a table's own answer goes before it.
    properties: HashMap<String, String>,
    honours_idempotency_keys: bool,
    /// Files of tables that lie on this machine, where the connector lets them.
    local: Files,
    /// The folder that they may lie below.
    local_root: Option<PathBuf>,
    reached: Mutex<HashMap<TableIdent, Reached>>,
}

/// How a table's files were reached last: while the way to them stays the same, so do the connections.
#[derive(Clone)]
struct Reached {
    files: Files,
    access: S3Access,
    lender: Option<Arc<Lender>>,
    signer: Option<Arc<Signer>>,
}

impl fmt::Debug for RestCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No token, no keys.
        f.debug_struct("RestCatalog").field("base", &without_secrets(&self.base)).finish_non_exhaustive()
    }
}

/// The answer of `/v1/config`.
#[derive(Deserialize)]
struct ServerConfig {
    #[serde(default)]
    defaults: HashMap<String, String>,
    #[serde(default)]
    overrides: HashMap<String, String>,
    #[serde(default, rename = "idempotency-key-lifetime")]
    idempotency_key_lifetime: Option<String>,
}

/// The answer to creating, loading and committing.
#[derive(Deserialize)]
struct TableAnswer {
    metadata: TableMetadata,
    #[serde(default, rename = "metadata-location")]
    metadata_location: Option<String>,
    // A commit is answered with null by some.
    #[serde(default)]
    config: Option<HashMap<String, String>>,
    #[serde(default, rename = "storage-credentials")]
    storage_credentials: Option<Vec<StorageCredential>>,
}

/// Settings for the locations that begin with a prefix.
#[derive(Deserialize)]
struct StorageCredential {
    prefix: String,
    config: HashMap<String, String>,
}

impl TableAnswer {
    /// Reads an answer. What of the table's metadata cannot be read is said in the table's words.
    async fn read(response: reqwest::Response, effect: Effect, doing: &str) -> Result<Self> {
        let json = body(response, effect, doing).await?;
        serde_json::from_slice(&json).map_err(|error| {
            let answer: Option<serde_json::Value> = serde_json::from_slice(&json).ok();
            match answer.and_then(|answer| metadata::unreadable(answer.get("metadata")?)) {
                Some(why) => not_understood(effect, doing, &format!("the table cannot be written to: {why}")),
                None => not_understood(effect, doing, "the answer is not the specification's").with_source(error),
            }
        })
    }

    fn loaded(self, files: Files) -> LoadedTable {
        LoadedTable { metadata: Arc::new(self.metadata), metadata_location: self.metadata_location, files }
    }

    /// What is said of the table's files; what is said of their location goes before what is said of the table.
    fn settings(&self) -> HashMap<String, String> {
        let mut settings = self.config.clone().unwrap_or_default();
        let location = self.metadata.location();
        let nearest = self
            .storage_credentials
            .iter()
            .flatten()
            .filter(|of| location.starts_with(&of.prefix))
            .max_by_key(|of| of.prefix.len());
        settings.extend(nearest.into_iter().flat_map(|of| of.config.clone()));
        settings
    }
}

/// Reads whatever a server may answer.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz(input: &[u8]) -> Option<TableMetadata> {
    http::fuzz(input);
    oauth::fuzz(input);
    sign::fuzz(input);
    let _ = serde_json::from_slice::<ServerConfig>(input).map(|answer| answer.defaults.len());
    let _ = serde_json::from_slice::<Namespaces>(input).map(|answer| answer.namespaces.len());
    let _ = serde_json::from_slice::<Tables>(input).map(|answer| answer.identifiers.len());
    let answer: TableAnswer = serde_json::from_slice(input).ok()?;
    let settings = answer.settings();
    let _ = Keys::of(|key| settings.get(key).cloned()).map(lend::fuzz);
    Some(answer.metadata)
}

/// Refuses a listing of so many pages and names that it may have no end.
fn ends(pages: &mut usize, names: usize, doing: &str) -> Result<()> {
    *pages += 1;
    if *pages > MAX_PAGES || names > MAX_NAMES {
        let why = format!("the server's list has no end: more than {MAX_PAGES} pages or {MAX_NAMES} names");
        return Err(not_understood(Effect::Reads, doing, &why));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Namespaces {
    namespaces: Vec<Vec<String>>,
    #[serde(default, rename = "next-page-token")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Tables {
    identifiers: Vec<TableIdent>,
    #[serde(default, rename = "next-page-token")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Commit<'a> {
    identifier: &'a TableIdent,
    requirements: &'a [TableRequirement],
    updates: &'a [TableUpdate],
}

impl RestCatalog {
    /// Asks the server for its configuration.
    pub(crate) async fn open(config: &RestCatalogConfig, storage: Option<&StorageConfig>) -> Result<Self> {
        let root = config.uri.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut headers = config.header_map().map_err(|message| CatalogError::new(Kind::Refused, message))?;
        if storage.is_none_or(|storage| storage.access_key.is_none()) {
            let (name, value) = http::delegation();
            headers.entry(name).or_insert(value);
        }
        let refused = |message| CatalogError::new(Kind::Refused, message);
        let local_root = config.local_root().map_err(refused)?.map(Path::to_owned);
        let mut catalog = Self {
            http: Arc::new(Http::new(config, headers, &format!("{root}/v1/oauth/tokens"))?),
            base: format!("{root}/v1"),
            root,
            storage: storage.cloned().unwrap_or_default(),
            properties: HashMap::new(),
            honours_idempotency_keys: false,
            local: local_root.clone().map_or_else(Files::local, Files::below),
            local_root,
            reached: Mutex::default(),
        };
        let asked = format!("{}/v1/config", catalog.root);
        let mut request = catalog.http.request(Method::GET, &asked);
        if let Some(warehouse) = &config.warehouse {
            request = request.query(&[("warehouse", warehouse)]);
        }
        let doing = format!("catalog.uri: cannot ask {} for its configuration", without_secrets(&asked));
        let server: ServerConfig = match catalog.http.answer(request, Effect::Reads, &doing).await {
            Err(error) if error.kind() == Kind::NotFound && error.source.is_none() => {
                // Not the specification's answer: there is no catalog at this path.
                let hint = "is there a path before /v1, such as /catalog?";
                return Err(CatalogError::new(Kind::Refused, format!("{error}; {hint}")));
            }
            answer => answer?,
        };
        let mut properties = server.defaults;
        properties.extend(server.overrides);
        if let Some(uri) = properties.get("uri") {
            catalog.root = uri.trim_end_matches('/').to_owned();
        }
        catalog.base = match properties.get("prefix") {
            Some(prefix) => format!("{}/v1/{}", catalog.root, prefix.trim_matches('/')),
            None => format!("{}/v1", catalog.root),
        };
        // The specification has it beside the properties, Lakekeeper among them.
        let honours = server.idempotency_key_lifetime.is_some() || properties.contains_key("idempotency-key-lifetime");
        catalog.properties = properties;
        catalog.honours_idempotency_keys = honours;
        Ok(catalog)
    }

    fn namespace_url(&self, namespace: &NamespaceIdent) -> String {
        format!("{}/namespaces/{}", self.base, escape(&namespace.join(UNIT_SEPARATOR)))
    }

    fn table_url(&self, table: &TableIdent) -> String {
        format!("{}/tables/{}", self.namespace_url(table.namespace()), escape(table.name()))
    }

    async fn exists(&self, url: &str, doing: &str) -> Result<bool> {
        match self.http.send(self.http.request(Method::HEAD, url), Effect::Reads, doing).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn loaded(&self, table: &TableIdent, answer: TableAnswer) -> Result<LoadedTable> {
        let files = self.files(table, &answer).await?;
        Ok(answer.loaded(files))
    }

    fn reached(&self) -> MutexGuard<'_, HashMap<TableIdent, Reached>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files of a table, where it lies and as it is said how they are reached.
    async fn files(&self, table: &TableIdent, answer: &TableAnswer) -> Result<Files> {
        let location = answer.metadata.location();
        if is_local(location) {
            if self.local_root.is_none() {
                return Err(CatalogError::new(
                    Kind::Refused,
                    format!(
                        "the catalog put table {table} at {location:?}, on this machine, where tables are allowed only below the folder \
                         that catalog.local_root names; it names none"
                    ),
                ));
            }
            let check = self.local.allows(location).await;
            check.map_err(|e| CatalogError::new(Kind::Refused, format!("table {table}")).with_source(e))?;
            return Ok(self.local.clone());
        }
        if s3_parts(location).is_none() {
            return Err(CatalogError::new(
                Kind::Refused,
                format!("the catalog put the table at {location:?}; allowed are s3://bucket/path and file:///path"),
            ));
        }
        let last = self.reached().get(table).cloned();
        let (access, lender, signer) = self.access(table, &answer.settings(), last.as_ref()).await;
        let files = match last {
            Some(last) if last.access == access => last.files,
            _ => Files::s3(access.clone()),
        };
        self.reached().insert(table.clone(), Reached { files: files.clone(), access, lender, signer });
        Ok(files)
    }

    /// How the files of a table are reached: as the connector says, else as the catalog says of the table or of all.
    async fn access(
        &self,
        table: &TableIdent,
        settings: &HashMap<String, String>,
        last: Option<&Reached>,
    ) -> (S3Access, Option<Arc<Lender>>, Option<Arc<Signer>>) {
        let said = |key: &str| settings.get(key).or_else(|| self.properties.get(key)).cloned();
        let mut access = S3Access::configured(&self.storage);
        access.keeps_files = said("s3.delete-enabled").is_some_and(|enabled| !is_true(&enabled));
        access.region = access.region.or_else(|| said("s3.region")).or_else(|| said("client.region"));
        if access.endpoint.is_none() {
            access.endpoint = said("s3.endpoint");
            access.path_style = self
                .storage
                .path_style
                .or_else(|| said("s3.path-style-access").map(|on| is_true(&on)))
                .unwrap_or(false);
        }
        if access.credentials != S3Credentials::Environment {
            return (access, None, None);
        }
        if let Some(keys) = Keys::of(said) {
            if keys.expires_at.is_none() {
                access.credentials = S3Credentials::Keys(keys.credential);
                return (access, None, None);
            }
            let lender = match last.and_then(|last| last.lender.clone()) {
                Some(lender) => {
                    lender.take(keys).await;
                    lender
                }
                None => Arc::new(Lender::new(self.http.clone(), self.table_url(table), keys)),
            };
            access.credentials = S3Credentials::Provided(lender.clone());
            return (access, Some(lender), None);
        }
        if said("s3.remote-signing-enabled").is_some_and(|enabled| is_true(&enabled)) {
            let url = self.signing_url(said);
            let region = access.region.clone().unwrap_or_else(|| USUAL_REGION.to_owned());
            let signer = last.and_then(|last| last.signer.clone()).filter(|signer| signer.is_at(&url, &region));
            let signer = signer.unwrap_or_else(|| Arc::new(Signer::new(self.http.clone(), url, region)));
            access.credentials = S3Credentials::Signed(signer.clone());
            return (access, None, Some(signer));
        }
        (access, None, None)
    }

    /// Where requests to S3 are signed.
    fn signing_url(&self, said: impl Fn(&str) -> Option<String>) -> String {
        let either = |key: &str| said(&format!("s3.{key}")).or_else(|| said(key));
        let endpoint = either("signer.endpoint").unwrap_or_else(|| "v1/aws/s3/sign".to_owned());
        if endpoint.contains("://") {
            return endpoint;
        }
        let uri = either("signer.uri").unwrap_or_else(|| self.root.clone());
        format!("{}/{}", uri.trim_end_matches('/'), endpoint.trim_start_matches('/'))
    }
}

#[async_trait]
impl Catalog for RestCatalog {
    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let body = json!({"namespace": namespace, "properties": {}});
        let request = self.http.request(Method::POST, &format!("{}/namespaces", self.base)).json(&body);
        match self.http.send(request, Effect::Changes, &format!("cannot create namespace {namespace}")).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Kind::Conflict => Err(CatalogError { kind: Kind::AlreadyExists, ..error }),
            Err(error) => Err(error),
        }
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        self.exists(&self.namespace_url(namespace), &format!("cannot look for namespace {namespace}")).await
    }

    async fn list_namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        let url = format!("{}/namespaces", self.base);
        let mut found: HashSet<NamespaceIdent> = HashSet::new();
        let mut parents: Vec<Option<NamespaceIdent>> = vec![None];
        let mut pages = 0;
        while let Some(parent) = parents.pop() {
            let mut page: Option<String> = None;
            loop {
                let mut query: Vec<(&str, String)> = Vec::new();
                query.extend(parent.as_ref().map(|parent| ("parent", parent.join(UNIT_SEPARATOR))));
                query.extend(page.map(|token| ("pageToken", token)));
                let request = self.http.request(Method::GET, &url).query(&query);
                let answer: Namespaces = self.http.answer(request, Effect::Reads, "cannot list namespaces").await?;
                ends(&mut pages, found.len(), "cannot list namespaces")?;
                for parts in answer.namespaces {
                    // Some servers list what lies deeper as well.
                    if let Ok(namespace) = NamespaceIdent::from_vec(parts)
                        && found.insert(namespace.clone())
                    {
                        parents.push(Some(namespace));
                    }
                }
                page = answer.next.filter(|token| !token.is_empty());
                if page.is_none() {
                    break;
                }
            }
        }
        let mut found: Vec<NamespaceIdent> = found.into_iter().collect();
        found.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        Ok(found)
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let url = format!("{}/tables", self.namespace_url(namespace));
        let mut found = Vec::new();
        let mut page: Option<String> = None;
        let mut pages = 0;
        loop {
            let request = self.http.request(Method::GET, &url).query(&page.map(|token| [("pageToken", token)]));
            let doing = format!("cannot list the tables of {namespace}");
            let answer: Tables = self.http.answer(request, Effect::Reads, &doing).await?;
            ends(&mut pages, found.len(), &doing)?;
            found.extend(answer.identifiers);
            page = answer.next.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(found);
            }
        }
    }

    async fn create_table(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<LoadedTable> {
        let TableCreation { name, location, schema, partition_spec, sort_order, mut properties, format_version } =
            creation;
        let version = match format_version {
            FormatVersion::V1 => "1",
            FormatVersion::V2 => "2",
            FormatVersion::V3 => "3",
        };
        properties.insert("format-version".to_owned(), version.to_owned());
        let table = TableIdent::new(namespace.clone(), name.clone());
        // Bound, because Java's servers do not read a spec without ids.
        let bound = partition_spec.map(|spec| spec.with_spec_id(0).bind(schema.clone())).transpose();
        let partition_spec = bound
            .map_err(|e| CatalogError::new(Kind::Refused, format!("cannot create table {table}")).with_source(e))?;
        let mut body = json!({"name": name, "schema": schema, "stage-create": false, "properties": properties});
        for (key, value) in [
            ("location", location.map(|location| json!(location))),
            ("partition-spec", partition_spec.map(|spec| json!(spec))),
            ("write-order", sort_order.map(|order| json!(order))),
        ] {
            if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
                body.insert(key.to_owned(), value);
            }
        }
        let doing = format!("cannot create table {table}");
        let request = self.http.request(Method::POST, &format!("{}/tables", self.namespace_url(namespace))).json(&body);
        match self.http.send(request, Effect::Changes, &doing).await {
            Ok(response) => self.loaded(&table, TableAnswer::read(response, Effect::Changes, &doing).await?).await,
            Err(error) if error.kind() == Kind::Conflict => Err(CatalogError { kind: Kind::AlreadyExists, ..error }),
            Err(error) => Err(error),
        }
    }

    async fn table_exists(&self, table: &TableIdent) -> Result<bool> {
        self.exists(&self.table_url(table), &format!("cannot look for table {table}")).await
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        let request = self.http.request(Method::GET, &self.table_url(table));
        let doing = format!("cannot load table {table}");
        let response = self.http.send(request, Effect::Reads, &doing).await?;
        self.loaded(table, TableAnswer::read(response, Effect::Reads, &doing).await?).await
    }

    async fn commit_table(&self, table: &TableIdent, request: CommitRequest) -> Result<LoadedTable> {
        let CommitRequest { id, requirements, updates, planned_on: _ } = &request;
        let mut post = self.http.request(Method::POST, &self.table_url(table)).json(&Commit {
            identifier: table,
            requirements,
            updates,
        });
        if self.honours_idempotency_keys {
            post = post.header("Idempotency-Key", id.to_string());
        }
        // What the commit names has to be on disk before it; object stores promise it by themselves.
        self.local.sync().await.map_err(CatalogError::unsynced)?;
        let doing = format!("cannot commit to table {table}");
        let response = self.http.send(post, Effect::Changes, &doing).await?;
        failpoint!("commit.sent", |message| CatalogError::new(Kind::Unknown, message));
        let answer = TableAnswer::read(response, Effect::Changes, &doing).await?;
        // The way to the files stays: not every server says it again with a commit.
        let last = self.reached().get(table).map(|last| last.files.clone());
        match last {
            Some(files) => Ok(answer.loaded(files)),
            None => self.loaded(table, answer).await,
        }
    }

    /// Nessie has branches of all tables, and shows of each table the current snapshot on one of them.
    fn shown(&self) -> Shown {
        let of_nessie = self.properties.keys().any(|name| name.starts_with("nessie."));
        if of_nessie { Shown::Current } else { Shown::History }
    }
}

#[cfg(test)]
mod tests;
