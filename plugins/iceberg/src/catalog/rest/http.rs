//! Requests to the server and what its answers mean.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::oauth::Tokens;
use super::redirect;
use crate::catalog::{CatalogError, CatalogErrorKind as Kind, Result};
use crate::config::RestCatalogConfig;
use crate::storage::choose_crypto;

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// What stands in a message of what a server says.
const MOST_OF_A_MESSAGE: usize = 500;

/// The longest answer: a table's metadata with a hundred thousand snapshots is shorter.
const MAX_ANSWER: usize = 256 << 20;
/// What is read of the answer that refuses a request.
const MAX_REFUSAL: usize = 64 << 10;

/// Whether a request changes anything, which decides what a lost answer means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Changes,
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

/// The client with what goes with every request.
pub(super) struct Http {
    client: Client,
    tokens: Tokens,
}

impl Http {
    pub(super) fn new(config: &RestCatalogConfig, headers: HeaderMap, tokens_at: &str) -> Result<Self> {
        choose_crypto();
        let request_time = config.request_time().map_err(|message| CatalogError::new(Kind::Refused, message))?;
        let client = Client::builder()
            .connect_timeout(CONNECT_TIME)
            .timeout(request_time)
            .user_agent(concat!("philotes-iceberg/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::policy())
            .build()
            .map_err(|e| {
                let kind = if philotes_sdk::is_out_of_files() { Kind::Unavailable } else { Kind::Refused };
                CatalogError::new(kind, "the HTTP client cannot be set up").with_source(e)
            })?;
        Ok(Self { tokens: Tokens::new(config, tokens_at), client })
    }

    pub(super) fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request with the token that is valid now. The answer is a success.
    pub(super) async fn send(&self, request: RequestBuilder, effect: Effect, doing: &str) -> Result<Response> {
        let again = request.try_clone();
        let token = self.tokens.current(&self.client).await.map_err(CatalogError::unsent)?;
        let response = self.send_with(request, token.as_deref(), effect, doing).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let (Some(again), Some(token)) = (again, token)
            && let Some(token) = self.tokens.instead_of(&token, &self.client).await?
        {
            // Who is not let in has changed nothing, so this is safe for changes as well.
            let response = self.send_with(again, Some(&token), effect, doing).await.map_err(CatalogError::sent)?;
            return success(response, effect, doing).await;
        }
        success(response, effect, doing).await
    }

    async fn send_with(
        &self,
        request: RequestBuilder,
        token: Option<&str>,
        effect: Effect,
        doing: &str,
    ) -> Result<Response> {
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.map_err(|error| lost(error, effect, doing))
    }

    /// Sends a request and reads its answer.
    pub(super) async fn answer<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        effect: Effect,
        doing: &str,
    ) -> Result<T> {
        let response = self.send(request, effect, doing).await?;
        read(response, effect, doing).await
    }
}

async fn success(response: Response, effect: Effect, doing: &str) -> Result<Response> {
    if response.status().is_success() { Ok(response) } else { Err(refused(response, effect, doing).await) }
}

/// The body of a success.
pub(super) async fn read<T: DeserializeOwned>(response: Response, effect: Effect, doing: &str) -> Result<T> {
    let body = body(response, effect, doing).await?;
    serde_json::from_slice(&body)
        .map_err(|e| not_understood(effect, doing, "the answer is not the specification's").with_source(e))
}

/// The bytes of a success.
pub(super) async fn body(mut response: Response, effect: Effect, doing: &str) -> Result<Bytes> {
    let body = up_to(&mut response, MAX_ANSWER).await.map_err(|error| lost(error, effect, doing))?;
    if body.len() > MAX_ANSWER {
        let why = format!(
            "the answer is longer than the {} MiB that are allowed; expire snapshots, where it is a table",
            MAX_ANSWER >> 20
        );
        return Err(not_understood(effect, doing, &why));
    }
    Ok(body.into())
}

/// An answer, or as much of it as shows that it is longer than this.
async fn up_to(response: &mut Response, most: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() <= most
        && let Some(part) = response.chunk().await?
    {
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// What a server says with a refusal: the beginning of it, nothing where it does not come.
pub(super) async fn words(mut response: Response) -> String {
    let mut body = up_to(&mut response, MAX_REFUSAL).await.unwrap_or_default();
    body.truncate(MAX_REFUSAL);
    String::from_utf8_lossy(&body).into_owned()
}

/// A success that cannot be read.
pub(super) fn not_understood(effect: Effect, doing: &str, why: &str) -> CatalogError {
    // It was done all the same.
    let kind = if effect == Effect::Changes { Kind::Unknown } else { Kind::Refused };
    CatalogError::new(kind, format!("{doing}: {why}"))
}

/// A request without an answer.
pub(super) fn lost(error: reqwest::Error, effect: Effect, doing: &str) -> CatalogError {
    let unsent = error.is_connect() || error.is_builder();
    let kind = if effect == Effect::Reads || unsent { Kind::Unavailable } else { Kind::Unknown };
    // Its address may hold a secret, and `doing` says what it was.
    let lost = CatalogError::new(kind, doing).with_source(error.without_url());
    if unsent { lost.unsent() } else { lost }
}

/// What an answer means that is no success. Servers name the same thing differently, so the status decides.
async fn refused(response: Response, effect: Effect, doing: &str) -> CatalogError {
    let status = response.status();
    if let Some(why) = redirect::refused(&response, "catalog.uri") {
        return CatalogError::new(Kind::Refused, format!("{doing}: {status}: {why}"));
    }
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
    let text = words(response).await;
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

/// Reads what a server may say with a refusal.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz(input: &[u8]) {
    if let Ok(ErrorBody { error }) = serde_json::from_slice(input) {
        let _ = (error.r#type, short(&error.message));
    }
}

/// The beginning of a server's words, on one line.
pub(super) fn short(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MOST_OF_A_MESSAGE).collect()
}

/// The header that says which ways to a table's files the client knows, best first.
pub(super) fn delegation() -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static("x-iceberg-access-delegation"),
        HeaderValue::from_static("vended-credentials,remote-signing"),
    )
}

/// A name as one part of a path.
pub(super) fn escape(name: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'~');
    percent_encoding::utf8_percent_encode(name, KEPT).to_string()
}
