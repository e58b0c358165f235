//! A catalog server that speaks the Iceberg REST specification.
//!
//! Nothing is repeated here: the host and the commit protocol repeat what is safe, and they know more. What matters is to
//! tell apart what did not happen from what may have: a request that could not be connected did not, an answer that never
//! came, or one that says the server itself is in trouble, may have.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use iceberg::spec::{FormatVersion, TableMetadata};
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Catalog, CatalogError, CatalogErrorKind as Kind, CommitRequest, LoadedTable, Result};
use crate::config::{RestCatalogConfig, StorageConfig};
use crate::storage::{Files, S3Access, s3_parts};

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// A server may take long to commit; the outcome of one that takes longer is looked up.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// Between the parts of a namespace's name, in paths and queries.
const UNIT_SEPARATOR: &str = "\u{1f}";
/// What stands in a message of what a server says.
const MOST_OF_A_MESSAGE: usize = 500;

/// A catalog behind HTTP.
pub(crate) struct RestCatalog {
    client: Client,
    /// `{uri}/v1/{prefix}`, without a slash at its end.
    base: String,
    token: Option<String>,
    storage: StorageConfig,
    /// What `/v1/config` says of every table; a table's own answer goes before it.
    properties: HashMap<String, String>,
    honours_idempotency_keys: bool,
    /// The files of the last answer: while the way to them stays the same, so do the connections.
    reached: Mutex<Option<(S3Access, Files)>>,
}

impl fmt::Debug for RestCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No token, no keys.
        f.debug_struct("RestCatalog").field("base", &self.base).finish_non_exhaustive()
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
    // A commit is answered with null by some.
    #[serde(default)]
    config: Option<HashMap<String, String>>,
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

/// The specification's body of an error.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorModel,
}

#[derive(Deserialize)]
struct ErrorModel {
    message: String,
    r#type: String,
}

/// Whether a request changes anything, which decides what a lost answer means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Changes,
}

impl RestCatalog {
    /// Asks the server for its configuration.
    pub(crate) async fn open(config: &RestCatalogConfig, storage: Option<&StorageConfig>) -> Result<Self> {
        // The first of a process stays; whoever installed another has the same in mind.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIME)
            .timeout(REQUEST_TIME)
            .user_agent(concat!("philotes-iceberg/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| CatalogError::new(Kind::Refused, "the HTTP client cannot be set up").with_source(e))?;
        let root = config.uri.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut catalog = Self {
            client,
            base: format!("{root}/v1"),
            token: config.token.clone(),
            storage: storage.cloned().unwrap_or_default(),
            properties: HashMap::new(),
            honours_idempotency_keys: false,
            reached: Mutex::default(),
        };
        let asked = format!("{root}/v1/config");
        let mut request = catalog.request(Method::GET, &asked);
        if let Some(warehouse) = &config.warehouse {
            request = request.query(&[("warehouse", warehouse)]);
        }
        let doing = format!("catalog.uri: cannot ask {asked} for its configuration");
        let server: ServerConfig = match catalog.answer(request, Effect::Reads, &doing).await {
            Err(error) if error.kind() == Kind::NotFound && error.source.is_none() => {
                // Not the specification's answer: there is no catalog at this path.
                let hint = "is there a path before /v1, such as /catalog?";
                return Err(CatalogError::new(Kind::Refused, format!("{error}; {hint}")));
            }
            answer => answer?,
        };
        let mut properties = server.defaults;
        properties.extend(server.overrides);
        let root = properties.get("uri").map_or(root.as_str(), |uri| uri.trim_end_matches('/'));
        catalog.base = match properties.get("prefix") {
            Some(prefix) => format!("{root}/v1/{}", prefix.trim_matches('/')),
            None => format!("{root}/v1"),
        };
        catalog.properties = properties;
        catalog.honours_idempotency_keys = server.idempotency_key_lifetime.is_some();
        Ok(catalog)
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn namespace_url(&self, namespace: &NamespaceIdent) -> String {
        format!("{}/namespaces/{}", self.base, escape(&namespace.join(UNIT_SEPARATOR)))
    }

    fn table_url(&self, table: &TableIdent) -> String {
        format!("{}/tables/{}", self.namespace_url(table.namespace()), escape(table.name()))
    }

    async fn send(&self, request: RequestBuilder, effect: Effect, doing: &str) -> Result<Response> {
        let response = request.send().await.map_err(|error| lost(error, effect, doing))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response, effect, doing).await) }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder, effect: Effect, doing: &str) -> Result<T> {
        let response = self.send(request, effect, doing).await?;
        let body = response.bytes().await.map_err(|error| lost(error, effect, doing))?;
        serde_json::from_slice(&body).map_err(|e| {
            // It was done all the same.
            let kind = if effect == Effect::Changes { Kind::Unknown } else { Kind::Refused };
            CatalogError::new(kind, format!("{doing}: the answer is not the specification's")).with_source(e)
        })
    }

    async fn exists(&self, url: &str, doing: &str) -> Result<bool> {
        match self.send(self.request(Method::HEAD, url), Effect::Reads, doing).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn loaded(&self, answer: TableAnswer) -> Result<LoadedTable> {
        let location = answer.metadata.location();
        if s3_parts(location).is_none() {
            return Err(CatalogError::new(
                Kind::Refused,
                format!("the catalog put the table at {location:?}; allowed is s3://bucket/path"),
            ));
        }
        let access = self.access(&answer.config.unwrap_or_default());
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let files = match &*reached {
            Some((last, files)) if *last == access => files.clone(),
            _ => Files::s3(access.clone()),
        };
        *reached = Some((access, files.clone()));
        Ok(LoadedTable { files: files.io, metadata: Arc::new(answer.metadata) })
    }

    /// How the files of a table are reached: as the connector says, else as the catalog says of the table or of all.
    fn access(&self, table: &HashMap<String, String>) -> S3Access {
        let said = |key: &str| table.get(key).or_else(|| self.properties.get(key)).cloned();
        let mut access = S3Access::configured(&self.storage);
        access.region = access.region.or_else(|| said("s3.region")).or_else(|| said("client.region"));
        if access.endpoint.is_none() {
            access.endpoint = said("s3.endpoint");
            access.path_style =
                self.storage.path_style.or_else(|| said("s3.path-style-access")?.parse().ok()).unwrap_or(false);
        }
        if access.keys.is_none() {
            access.keys = said("s3.access-key-id").zip(said("s3.secret-access-key"));
            access.session_token = said("s3.session-token");
        }
        access
    }
}

#[async_trait]
impl Catalog for RestCatalog {
    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let body = json!({"namespace": namespace, "properties": {}});
        let request = self.request(Method::POST, &format!("{}/namespaces", self.base)).json(&body);
        match self.send(request, Effect::Changes, &format!("cannot create namespace {namespace}")).await {
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
        let mut found: Vec<NamespaceIdent> = Vec::new();
        let mut parents: Vec<Option<NamespaceIdent>> = vec![None];
        while let Some(parent) = parents.pop() {
            let mut page: Option<String> = None;
            loop {
                let mut query: Vec<(&str, String)> = Vec::new();
                query.extend(parent.as_ref().map(|parent| ("parent", parent.join(UNIT_SEPARATOR))));
                query.extend(page.map(|token| ("pageToken", token)));
                let request = self.request(Method::GET, &url).query(&query);
                let answer: Namespaces = self.answer(request, Effect::Reads, "cannot list namespaces").await?;
                for parts in answer.namespaces {
                    // Some servers list what lies deeper as well.
                    if let Ok(namespace) = NamespaceIdent::from_vec(parts)
                        && !found.contains(&namespace)
                    {
                        parents.push(Some(namespace.clone()));
                        found.push(namespace);
                    }
                }
                page = answer.next.filter(|token| !token.is_empty());
                if page.is_none() {
                    break;
                }
            }
        }
        found.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        Ok(found)
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let url = format!("{}/tables", self.namespace_url(namespace));
        let mut found = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let request = self.request(Method::GET, &url).query(&page.map(|token| [("pageToken", token)]));
            let doing = format!("cannot list the tables of {namespace}");
            let answer: Tables = self.answer(request, Effect::Reads, &doing).await?;
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
        let request = self.request(Method::POST, &format!("{}/tables", self.namespace_url(namespace))).json(&body);
        match self.answer(request, Effect::Changes, &doing).await {
            Ok(answer) => self.loaded(answer),
            Err(error) if error.kind() == Kind::Conflict => Err(CatalogError { kind: Kind::AlreadyExists, ..error }),
            Err(error) => Err(error),
        }
    }

    async fn table_exists(&self, table: &TableIdent) -> Result<bool> {
        self.exists(&self.table_url(table), &format!("cannot look for table {table}")).await
    }

    async fn load_table(&self, table: &TableIdent) -> Result<LoadedTable> {
        let request = self.request(Method::GET, &self.table_url(table));
        self.loaded(self.answer(request, Effect::Reads, &format!("cannot load table {table}")).await?)
    }

    async fn commit_table(&self, table: &TableIdent, request: CommitRequest) -> Result<LoadedTable> {
        let CommitRequest { id, requirements, updates } = &request;
        let mut post = self.request(Method::POST, &self.table_url(table)).json(&Commit {
            identifier: table,
            requirements,
            updates,
        });
        if self.honours_idempotency_keys {
            post = post.header("Idempotency-Key", id.to_string());
        }
        self.loaded(self.answer(post, Effect::Changes, &format!("cannot commit to table {table}")).await?)
    }
}

/// A request without an answer.
fn lost(error: reqwest::Error, effect: Effect, doing: &str) -> CatalogError {
    let kind = if effect == Effect::Reads || error.is_connect() || error.is_builder() {
        Kind::Unavailable
    } else {
        Kind::Unknown
    };
    CatalogError::new(kind, doing).with_source(error)
}

/// What an answer means that is no success. Servers name the same thing differently, so the status decides.
async fn refused(response: Response, effect: Effect, doing: &str) -> CatalogError {
    let status = response.status();
    let kind = match status {
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::CONFLICT => Kind::Conflict,
        StatusCode::TOO_MANY_REQUESTS => Kind::Unavailable,
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => match effect {
            Effect::Reads => Kind::Unavailable,
            Effect::Changes => Kind::Unknown,
        },
        _ => Kind::Refused,
    };
    let text = response.text().await.unwrap_or_default();
    match serde_json::from_str::<ErrorBody>(&text) {
        Ok(ErrorBody { error: ErrorModel { message, r#type } }) => CatalogError::new(
            kind,
            format!("{doing}: {status}"),
        )
        .with_source(format!("{}: {}", r#type, short(&message))),
        Err(_) if text.trim().is_empty() => CatalogError::new(kind, format!("{doing}: {status}")),
        Err(_) => CatalogError::new(kind, format!("{doing}: {status}, {}", short(&text))),
    }
}

/// The beginning of a server's words, on one line.
fn short(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MOST_OF_A_MESSAGE).collect()
}

/// A name as one part of a path.
fn escape(name: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'~');
    percent_encoding::utf8_percent_encode(name, KEPT).to_string()
}

#[cfg(test)]
mod tests;
