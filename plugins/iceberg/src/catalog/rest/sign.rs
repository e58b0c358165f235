//! Requests to S3 that the catalog signs, one by one: it lends no keys at all.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use philotes_sdk::without_secrets;
use reqwest::Method;
use reqwest::header::{HOST, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::http::{Effect, Http};
use crate::catalog::CatalogErrorKind as Kind;
use crate::storage::Direct;

/// Signs requests to one table's files.
#[derive(Clone)]
pub(super) struct Signer {
    http: Arc<Http>,
    url: String,
    region: String,
}

#[derive(Serialize)]
struct Question<'a> {
    region: &'a str,
    method: &'a str,
    uri: String,
    headers: BTreeMap<&'a str, Vec<&'a str>>,
}

#[derive(Deserialize)]
struct Answer {
    uri: String,
    headers: BTreeMap<String, Vec<String>>,
}

/// Reads what a server may answer.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz(input: &[u8]) {
    let _ = serde_json::from_slice::<Answer>(input).map(|answer| (answer.uri, answer.headers.len()));
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("url", &without_secrets(&self.url)).finish_non_exhaustive()
    }
}

impl Signer {
    pub(super) fn new(http: Arc<Http>, url: String, region: String) -> Self {
        Self { http, url, region }
    }

    /// Whether it asks this server for requests in this region.
    pub(super) fn is_at(&self, url: &str, region: &str) -> bool {
        self.url == url && self.region == region
    }

    async fn sign(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let Self { http, url, region } = self;
        let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in request.headers() {
            let value = value.to_str().map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
            headers.entry(name.as_str()).or_default().push(value);
        }
        let method = request.method().as_str();
        let question = Question { region, method, uri: request.uri().to_string(), headers };
        let doing = format!("cannot have a request to S3 signed by {}", without_secrets(url));
        let answer = http.answer(http.request(Method::POST, url).json(&question), Effect::Reads, &doing).await;
        let Answer { uri, headers } = answer.map_err(|error| {
            // What was not signed was not sent.
            let passes = error.kind() == Kind::Unavailable;
            HttpError::new(if passes { HttpErrorKind::Connect } else { HttpErrorKind::Unknown }, error)
        })?;
        *request.uri_mut() = uri.parse().map_err(|e| HttpError::new(HttpErrorKind::Decode, e))?;
        for (name, values) in headers {
            let name: HeaderName = name.parse().map_err(|e| HttpError::new(HttpErrorKind::Decode, e))?;
            // It follows from the address.
            if name == HOST {
                continue;
            }
            request.headers_mut().remove(&name);
            for value in values {
                let value: HeaderValue = value.parse().map_err(|e| HttpError::new(HttpErrorKind::Decode, e))?;
                let appended = request.headers_mut().try_append(name.clone(), value);
                appended.map_err(|e| HttpError::new(HttpErrorKind::Decode, e))?;
            }
        }
        Ok(())
    }
}

impl HttpConnector for Signer {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = Direct.connect(options)?;
        Ok(HttpClient::new(Signing { signer: self.clone(), inner }))
    }
}

/// Sends what was signed.
#[derive(Debug)]
struct Signing {
    signer: Signer,
    inner: HttpClient,
}

#[async_trait]
impl HttpService for Signing {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.signer.sign(&mut request).await?;
        self.inner.execute(request).await
    }
}
