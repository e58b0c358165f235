//! Keys to a table's files that the catalog lends for a while.
//!
//! The storage asks for them before every request. They are asked for anew, by loading the table, well before they expire,
//! so that an upload never waits for a commit to bring new ones.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use philotes_sdk::without_secrets;
use tokio::sync::Mutex;

use super::TableAnswer;
use super::http::{Effect, Http};
use crate::catalog::{CatalogError, CatalogErrorKind as Kind, Result};

/// Keys are renewed this long before they expire, or after half their life where that is shorter.
const AHEAD: Duration = Duration::from_secs(300);
/// Where a catalog does not say when keys expire: nobody's STS lends for less.
const LEAST_LIFE: Duration = Duration::from_secs(900);

/// What a catalog says of keys, of one table.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) credential: Arc<AwsCredential>,
    /// `None` where they are no loan.
    pub(super) expires_at: Option<SystemTime>,
}

impl Keys {
    /// The keys in a table's settings.
    pub(super) fn of(said: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let (key_id, secret_key) = said("s3.access-key-id").zip(said("s3.secret-access-key"))?;
        let token = said("s3.session-token");
        let expires_at = said("s3.session-token-expires-at-ms")
            .and_then(|ms| Some(UNIX_EPOCH + Duration::from_millis(ms.parse().ok()?)))
            .or_else(|| token.as_ref().map(|_| SystemTime::now() + LEAST_LIFE));
        Some(Self { credential: Arc::new(AwsCredential { key_id, secret_key, token }), expires_at })
    }
}

struct Lent {
    keys: Keys,
    renew_at: SystemTime,
}

impl Lent {
    fn new(keys: Keys) -> Self {
        let now = SystemTime::now();
        let life = keys.expires_at.map_or(Duration::MAX, |at| at.duration_since(now).unwrap_or_default());
        let renew_at = now.checked_add(life.saturating_sub(AHEAD).max(life / 2));
        Self { renew_at: renew_at.unwrap_or(now + LEAST_LIFE), keys }
    }
}

/// Reckons when keys are to be renewed.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz(keys: Keys) {
    let _ = Lent::new(keys).renew_at;
}

/// The keys to one table's files.
pub(super) struct Lender {
    http: Arc<Http>,
    table_url: String,
    /// One renewal at a time; the others wait for it.
    lent: Mutex<Lent>,
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lender").field("table_url", &without_secrets(&self.table_url)).finish_non_exhaustive()
    }
}

impl Lender {
    pub(super) fn new(http: Arc<Http>, table_url: String, keys: Keys) -> Self {
        Self { http, table_url, lent: Mutex::new(Lent::new(keys)) }
    }

    /// Takes over keys that came with an answer.
    pub(super) async fn take(&self, keys: Keys) {
        *self.lent.lock().await = Lent::new(keys);
    }

    async fn ask(&self) -> Result<Keys> {
        let doing = format!("cannot renew the keys that {} lends", without_secrets(&self.table_url));
        // Only the settings are wanted; servers that know how leave most snapshots out.
        let request = self.http.request(reqwest::Method::GET, &self.table_url).query(&[("snapshots", "refs")]);
        let answer: TableAnswer = self.http.answer(request, Effect::Reads, &doing).await?;
        let settings = answer.settings();
        Keys::of(|key| settings.get(key).cloned())
            .ok_or_else(|| CatalogError::new(Kind::Refused, format!("{doing}: it lends none any more")))
    }
}

#[async_trait]
impl CredentialProvider for Lender {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut lent = self.lent.lock().await;
        if SystemTime::now() >= lent.renew_at {
            match self.ask().await {
                Ok(keys) => *lent = Lent::new(keys),
                Err(error) => {
                    let now = SystemTime::now();
                    let left = lent.keys.expires_at.and_then(|at| at.duration_since(now).ok());
                    let Some(left) = left.filter(|left| !left.is_zero()) else {
                        return Err(object_store::Error::Generic { store: "S3", source: Box::new(error) });
                    };
                    // They are good for a while: not every request until then has to wait for another try.
                    lent.renew_at = now + left / 2;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the keys to a table's files are about to expire"
                    );
                }
            }
        }
        Ok(lent.keys.credential.clone())
    }
}
