//! Bearer tokens for SASL's OAUTHBEARER, by OAuth2's client credentials (RFC 6749, section 4.4).
//!
//! librdkafka asks for a token when the client starts and when most of the last one's life is over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use philotes_sdk::{Error, Result};
use rdkafka::client::OAuthToken;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::config::OauthbearerConfig;
use crate::http;

/// How long the token endpoint may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a token is taken to live whose endpoint does not say it.
const UNSAID: Duration = Duration::from_secs(300);
/// A token that lives longer is taken to live so long.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// The longest answer of a token endpoint.
const MAX_ANSWER: usize = 1 << 20;
/// What stands in a message of what a server says.
const MOST_OF_A_MESSAGE: usize = 200;

/// Fetches tokens.
pub(crate) struct Tokens {
    client: Client,
    config: OauthbearerConfig,
    runtime: Handle,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds: any number, since endpoints that mean never say as many as they can write.
    expires_in: Option<f64>,
}

#[derive(Default, Deserialize)]
struct Claims {
    sub: Option<String>,
}

impl Tokens {
    /// To be called on the plugin's runtime.
    pub(crate) fn new(config: &OauthbearerConfig) -> Result<Self> {
        let client = http::client(PATIENCE, config.tls_ca.as_deref(), "sasl.tls_ca")?;
        Ok(Self { client, config: config.clone(), runtime: Handle::current() })
    }

    /// A new token. Blocks the thread, which librdkafka calls back on.
    pub(crate) fn fetch(&self) -> Result<OAuthToken> {
        let (client, config) = (self.client.clone(), self.config.clone());
        let (sender, receiver) = std::sync::mpsc::channel();
        self.runtime.spawn(async move {
            let _ = sender.send(grant(&client, &config).await);
        });
        receiver
            .recv_timeout(PATIENCE * 2)
            .unwrap_or_else(|_| Err(Error::unavailable("the token endpoint does not answer")))
    }
}

async fn grant(client: &Client, config: &OauthbearerConfig) -> Result<OAuthToken> {
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(config.scope.as_deref().map(|scope| ("scope", scope)));
    let lost = |error: reqwest::Error| {
        Error::unavailable("sasl.token_url: no token could be fetched").with_source(error.without_url())
    };
    let asked = SystemTime::now();
    let mut answer = client
        .post(&config.token_url)
        .basic_auth(&config.client_id, Some(config.client_secret.expose()))
        .form(&form)
        .send()
        .await
        .map_err(lost)?;
    if let Some(error) = http::redirected(&answer, "sasl.token_url") {
        return Err(error);
    }
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(lost)? {
        if body.len() + part.len() > MAX_ANSWER {
            return Err(Error::config(format!(
                "sasl.token_url: the token endpoint answers {status} with more than {} KiB, which is no token",
                MAX_ANSWER >> 10
            )));
        }
        body.extend_from_slice(&part);
    }
    if !status.is_success() {
        let said: String = String::from_utf8_lossy(&body).chars().take(MOST_OF_A_MESSAGE).collect();
        let message = format!("sasl.token_url: the token endpoint answers {status}: {said}");
        let refused = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
        return Err(if refused { Error::config(message) } else { Error::unavailable(message) });
    }
    granted(&body, asked)
        .map(|(token, lifetime_ms)| OAuthToken {
            principal_name: subject(&token).unwrap_or_else(|| config.client_id.clone()),
            token,
            lifetime_ms,
        })
        .ok_or_else(|| Error::config("sasl.token_url: the answer is no token response of OAuth2"))
}

/// The token of an answer to what was asked then, and when it ends, in milliseconds since 1970.
pub(crate) fn granted(answer: &[u8], asked: SystemTime) -> Option<(String, i64)> {
    let granted: Granted = serde_json::from_slice(answer).ok()?;
    let life = granted.expires_in.map_or(UNSAID, |seconds| {
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST_LIFE).min(LONGEST_LIFE)
    });
    let ends = asked.checked_add(life)?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some((granted.access_token, i64::try_from(ends.as_millis()).unwrap_or(i64::MAX)))
}

/// Whose token it is, where it says so: RFC 7519's `sub`.
pub(crate) fn subject(token: &str) -> Option<String> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok()?.sub.filter(|sub| !sub.is_empty() && !sub.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6749, section 5.1: seconds, of which nobody says how many there may be.
    #[test]
    fn a_token_lives_as_long_as_is_said_up_to_a_year() {
        let asked = UNIX_EPOCH + Duration::from_secs(1_000);
        let ends = |expires_in: &str| {
            granted(format!(r#"{{"access_token": "t", "expires_in": {expires_in}}}"#).as_bytes(), asked)
                .map(|(_, ms)| ms)
        };
        for (said, seconds) in [
            ("60", 60),
            ("0", 0),
            ("-5", 0),
            ("null", 300),
            ("31536001", 31_536_000),
            ("18446744073709551615", 31_536_000),
            ("18446744073709551616", 31_536_000),
            ("1e308", 31_536_000),
        ] {
            assert_eq!(ends(said), Some((1_000 + seconds) * 1_000), "{said}");
        }
        assert_eq!(ends("\"60\""), None);
    }

    #[test]
    fn a_redirect_to_another_server_is_not_followed() {
        use crate::registry::scripted::{Scene, Scripted};
        for status in [302, 307, 308] {
            let (server, trap) = (Scripted::start(), Scripted::start());
            server.tell("/token", Scene(Some(status), format!("{}/token?ticket=s3cr3t", trap.url)));
            let config = OauthbearerConfig {
                token_url: format!("{}/token", server.url),
                client_id: "philotes".into(),
                client_secret: "client-s3cr3t".into(),
                scope: None,
                tls_ca: None,
            };
            let _runtime = server.handle().enter();
            let error = Tokens::new(&config).unwrap().fetch().err().unwrap();
            assert_eq!(error.kind(), philotes_sdk::ErrorKind::Config, "{error}");
            let said = error.to_string();
            assert!(
                said.starts_with("sasl.token_url: ") && said.contains(&trap.url) && !said.contains("s3cr3t"),
                "{said}"
            );
            assert_eq!((server.asked().len(), trap.asked().len()), (1, 0));
        }
    }

    #[test]
    fn a_tokens_subject_is_read_where_there_is_one() {
        // RFC 7519, section 3.1, with a sub.
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"iss":"joe","sub":"service"}"#);
        assert_eq!(subject(&format!("e30.{payload}.x")).as_deref(), Some("service"));
        for token in ["", "opaque", "a.b.c", "e30.e30.", "e30.!!.x"] {
            assert_eq!(subject(token), None, "{token}");
        }
    }
}
