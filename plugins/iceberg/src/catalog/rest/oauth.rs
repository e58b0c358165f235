//! The bearer token of the requests: a fixed one, or one that an OAuth2 server grants to the client and that is asked for
//! anew before it expires.

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::http::{Effect, lost, read, short, words};
use super::redirect;
use crate::catalog::{CatalogError, CatalogErrorKind as Kind, Result};
use crate::config::{OAuth2Config, RestCatalogConfig};
use philotes_sdk::{Secret, without_secrets};

/// A token is renewed this long before it expires, or after half its life where that is shorter.
const AHEAD: Duration = Duration::from_secs(60);
/// A token that lives longer is taken to live so long.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// The scope that Iceberg's own token endpoint is asked for.
const CATALOG_SCOPE: &str = "catalog";

/// Where tokens come from.
pub(super) enum Tokens {
    None,
    Fixed(Secret),
    Granted(Box<Granted>),
}

pub(super) struct Granted {
    config: OAuth2Config,
    uri: String,
    scope: Option<String>,
    /// One request for a token at a time; the others wait for it.
    grant: Mutex<Option<Grant>>,
}

struct Grant {
    token: String,
    /// `None` where the server does not say how long it lives: until a request is not let in.
    renew_at: Option<Instant>,
}

/// The answer of RFC 6749, section 5.1.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// Seconds: any number, since servers that mean never say as many as they can write.
    #[serde(default)]
    expires_in: Option<f64>,
}

/// An error of RFC 6749, section 5.2.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Tokens {
    /// `tokens_at` is the catalog's own token endpoint, for clients that name no other.
    pub(super) fn new(config: &RestCatalogConfig, tokens_at: &str) -> Self {
        match (&config.oauth2, &config.token) {
            (Some(oauth2), _) => {
                let scope = match (&oauth2.scope, &oauth2.uri) {
                    (None, None) => Some(CATALOG_SCOPE.to_owned()),
                    (scope, _) => scope.clone(),
                };
                Self::Granted(Box::new(Granted {
                    uri: oauth2.uri.clone().unwrap_or_else(|| tokens_at.to_owned()),
                    scope,
                    config: oauth2.clone(),
                    grant: Mutex::new(None),
                }))
            }
            (None, Some(token)) => Self::Fixed(token.clone()),
            (None, None) => Self::None,
        }
    }

    /// The token that is valid now, if requests take one.
    pub(super) async fn current(&self, client: &Client) -> Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.expose().to_owned())),
            Self::Granted(granted) => {
                let is_good = |grant: &Grant| grant.renew_at.is_none_or(|at| Instant::now() < at);
                granted.token(is_good, client).await.map(Some)
            }
        }
    }

    /// Another token than this one, with which a request was not let in.
    pub(super) async fn instead_of(&self, token: &str, client: &Client) -> Result<Option<String>> {
        match self {
            Self::None | Self::Fixed(_) => Ok(None),
            Self::Granted(granted) => granted.token(|grant| grant.token != token, client).await.map(Some),
        }
    }
}

impl Granted {
    /// The token there is where it is good, else a new one.
    async fn token(&self, is_good: impl Fn(&Grant) -> bool, client: &Client) -> Result<String> {
        let mut grant = self.grant.lock().await;
        if let Some(grant) = grant.as_ref().filter(|grant| is_good(grant)) {
            return Ok(grant.token.clone());
        }
        let granted = self.ask(client).await?;
        let token = granted.token.clone();
        *grant = Some(granted);
        Ok(token)
    }

    async fn ask(&self, client: &Client) -> Result<Grant> {
        let doing = format!("catalog.oauth2: cannot get a token from {}", without_secrets(&self.uri));
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.config.client_id.as_str()),
            ("client_secret", self.config.client_secret.expose()),
        ];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        form.extend(self.config.audience.as_deref().map(|audience| ("audience", audience)));
        let asked = Instant::now();
        // Whatever becomes of this, the request that wants the token was not sent.
        let response = client.post(&self.uri).form(&form).send().await;
        let response = response.map_err(|error| lost(error, Effect::Reads, &doing))?;
        let status = response.status();
        if let Some(why) = redirect::refused(&response, "catalog.oauth2.uri") {
            return Err(CatalogError::new(Kind::Refused, format!("{doing}: {status}: {why}")));
        }
        if !status.is_success() {
            let passes = status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
            let kind = if passes { Kind::Unavailable } else { Kind::Refused };
            let text = words(response).await;
            let said = match serde_json::from_str::<Refusal>(&text) {
                Ok(refusal) => format!("{} {}", refusal.error, refusal.error_description),
                Err(_) => text,
            };
            return Err(CatalogError::new(kind, format!("{doing}: {status}, {}", short(&said))));
        }
        read::<Answer>(response, Effect::Reads, &doing).await.map(|answer| answer.granted(asked))
    }
}

impl Answer {
    fn granted(self, asked: Instant) -> Grant {
        let renew_at = self.expires_in.map(|seconds| {
            let life = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST_LIFE).min(LONGEST_LIFE);
            asked + life.saturating_sub(AHEAD).max(life / 2)
        });
        Grant { token: self.access_token, renew_at }
    }
}

/// Reads what a server may answer.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz(input: &[u8]) {
    let _ = serde_json::from_slice::<Answer>(input).map(|answer| answer.granted(Instant::now()).renew_at);
    let _ = serde_json::from_slice::<Refusal>(input).map(|refusal| (refusal.error, refusal.error_description));
}
