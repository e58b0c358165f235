//! HTTP clients of the schema registry and the token endpoint.

use std::time::Duration;

use philotes_sdk::{Error, Result};
use reqwest::{Certificate, Client};

/// A client whose answers may take so long. `ca` is a file of certificate authorities, which the key `key` names.
///
/// # Errors
/// Config where the file cannot be read or is no PEM.
pub(crate) fn client(patience: Duration, ca: Option<&str>, key: &str) -> Result<Client> {
    // A second choice is refused and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .timeout(patience)
        .connect_timeout(patience.min(Duration::from_secs(5)))
        .user_agent(concat!("philotes-kafka/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca {
        let fault = |why: &str| format!("{key}: {file} {why}");
        let pem = std::fs::read(file).map_err(|e| Error::config(fault("cannot be read")).with_source(e))?;
        let authorities = Certificate::from_pem_bundle(&pem)
            .map_err(|e| Error::config(fault("holds no certificates in PEM")).with_source(e))?;
        if authorities.is_empty() {
            return Err(Error::config(fault("holds no certificates in PEM")));
        }
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|e| Error::config("the HTTP client cannot be set up").with_source(e))
}
