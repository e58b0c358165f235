//! An OAuth2 server that grants tokens by client credentials (RFC 6749, section 4.4). Nobody signs them (RFC 7519, section 6):
//! Kafka's own validator for tests takes them so.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::scripted::{Reply, Request, Scripted};

/// The only client.
pub const CLIENT_ID: &str = "philotes";
/// Its secret.
pub const CLIENT_SECRET: &str = "oauth-secret";

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Tokens {
    server: Scripted,
    granted: Arc<AtomicU32>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    /// A server whose tokens live so long.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn start(life: Duration) -> Result<Self> {
        let (granted, asked) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let server = Scripted::start({
            let (granted, asked) = (Arc::clone(&granted), Arc::clone(&asked));
            move |request| {
                asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.body.clone());
                let reply = grant(request, life);
                granted.fetch_add(u32::from(reply.0 == 200), Ordering::SeqCst);
                reply
            }
        })?;
        Ok(Self { server, granted, asked })
    }

    /// The token endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.server.port())
    }

    /// How many tokens were granted.
    #[must_use]
    pub fn granted(&self) -> u32 {
        self.granted.load(Ordering::SeqCst)
    }

    /// The forms of all requests.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The client says who it is in the header, as every server has to allow, or in the form, as some do.
fn grant(request: &Request, life: Duration) -> Reply {
    let basic = format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
    let field = |name: &str, value: &str| request.body.split('&').any(|field| field == format!("{name}={value}"));
    let is_client = request.header("authorization") == Some(&basic)
        || field("client_id", CLIENT_ID) && field("client_secret", CLIENT_SECRET);
    if request.method != "POST" || request.path != "/token" {
        (404, json!({"error": "not_found"}).to_string())
    } else if !is_client {
        (401, json!({"error": "invalid_client"}).to_string())
    } else if !field("grant_type", "client_credentials") {
        (400, json!({"error": "unsupported_grant_type"}).to_string())
    } else {
        let token = token(life);
        (200, json!({"access_token": token, "token_type": "Bearer", "expires_in": life.as_secs()}).to_string())
    }
}

fn token(life: Duration) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub": CLIENT_ID, "iat": now.as_secs(), "exp": (now + life).as_secs()});
    format!("{}.{}.", part(json!({"alg": "none"})), part(claims))
}
