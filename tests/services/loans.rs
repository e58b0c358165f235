//! S3 where keys that are lent end early: MinIO lends for a quarter of an hour at least, which is too long for a test. What
//! stands in front of it lets nobody in whose session token it has seen for longer than a loan lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::minio::Minio;
use super::proxy::{Guard, Proxy, header};

/// MinIO behind a door that loans do not open for long.
#[derive(Debug)]
pub struct Loans {
    proxy: Proxy,
    life: Duration,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The session tokens, and when each came first.
    tokens: HashMap<String, Instant>,
    refused: u32,
}

impl Loans {
    /// In front of this MinIO.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn new(minio: &Minio, life: Duration) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let guard = Arc::clone(&seen);
        let guard = Guard(Box::new(move |head| {
            let token = header(head, "x-amz-security-token")?;
            let mut seen = guard.lock().unwrap_or_else(PoisonError::into_inner);
            let since = *seen.tokens.entry(token.to_owned()).or_insert_with(Instant::now);
            if since.elapsed() <= life {
                return None;
            }
            seen.refused += 1;
            let body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
            let body = if head.starts_with("HEAD ") { "" } else { body };
            let length = body.len();
            Some(format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into())
        }));
        Ok(Self { proxy: Proxy::guarded(minio.port(), guard)?, life, seen })
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy.port())
    }

    /// How long a loan opens the door.
    #[must_use]
    pub fn life(&self) -> Duration {
        self.life
    }

    /// How many loans came by, and how many requests were refused because theirs had ended.
    #[must_use]
    pub fn seen(&self) -> (usize, u32) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.tokens.len(), seen.refused)
    }
}
