//! What the answers of a registry mean.

use std::fmt;

use philotes_sdk::{Error, ErrorKind, Result};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Language;

const MOST_BYTES: usize = 16 << 20;
/// Of a server's words in a message.
const MOST_CHARACTERS: usize = 500;
/// The registry's numbers for a subject, a version and a schema that it has not.
const NOT_FOUND: std::ops::RangeInclusive<u32> = 40401..=40403;

/// A schema.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// Only where a subject's version was asked for.
    pub(super) id: Option<u32>,
    pub(super) schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    pub(super) references: Vec<Reference>,
}

/// Which schema another one refers to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: i64,
}

#[derive(Deserialize)]
struct Refusal {
    error_code: u32,
    #[serde(default)]
    message: String,
}

impl Answer {
    pub(super) fn language(&self, what: &str) -> Result<Language> {
        match self.schema_type.as_deref() {
            None | Some("AVRO") => Ok(Language::Avro),
            Some("JSON") => Ok(Language::JsonSchema),
            Some(other) => Err(Error::data(format!(
                "{what} of the registry is written in {other:?}; AVRO and JSON are what can be read"
            ))),
        }
    }
}

impl Reference {
    /// Whatever it is called there.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        self.subject == other.subject && self.version == other.version
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} of subject {:?}", self.version, self.subject)
    }
}

/// Reads what came of a request to the registry at `url` for `what`.
pub(super) async fn read(sent: reqwest::Result<Response>, url: &str, what: &str) -> Result<Answer> {
    let response = sent.map_err(|error| lost(error, url))?;
    if let Some(error) = crate::http::redirected(&response, "registry.url") {
        return Err(error);
    }
    let status = response.status();
    let body = body(response, url).await?;
    if status.is_success() {
        return parsed(&body).ok_or_else(|| {
            Error::config(format!("registry.url: what {url} answers is not the answer of a schema registry ({status})"))
        });
    }
    let refusal = parsed::<Refusal>(&body);
    let words = refusal.as_ref().map(|refusal| format!(": {}", short(&refusal.message))).unwrap_or_default();
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(Error::config(format!(
                "registry: {url} does not let us in ({status}{words}); `username` and `password` say who asks"
            )));
        }
        StatusCode::NOT_FOUND if refusal.is_some_and(|refusal| NOT_FOUND.contains(&refusal.error_code)) => {
            return Err(Error::data(format!("{what} does not exist in the registry at {url}{words}")));
        }
        StatusCode::NOT_FOUND => {
            return Err(Error::config(format!(
                "registry.url: {url} does not know the path of a schema ({status}{words}); is it a schema registry, and is the \
                 path complete?"
            )));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ErrorKind::Unavailable,
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::Config,
    };
    Err(Error::new(kind, format!("the registry at {url} answers {status} when asked for {what}{words}")))
}

/// An answer's body, up to a limit.
async fn body(mut response: Response, url: &str) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| lost(error, url))? {
        if body.len() + part.len() > MOST_BYTES {
            return Err(Error::config(format!(
                "registry.url: {url} answers with more than {} MiB, which is no schema",
                MOST_BYTES >> 20
            )));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// Reads what a registry may answer.
#[cfg(feature = "fuzz")]
pub(super) fn parse(body: &[u8]) {
    let _ = parsed::<Answer>(body).map(|answer| answer.language("it"));
    let _ = parsed::<Refusal>(body).map(|refusal| short(&refusal.message));
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// A request without an answer.
fn lost(error: reqwest::Error, url: &str) -> Error {
    Error::unavailable(format!("the registry at {url} does not answer")).with_source(error.without_url())
}

/// The beginning of a server's words, on one line.
fn short(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MOST_CHARACTERS).collect()
}
