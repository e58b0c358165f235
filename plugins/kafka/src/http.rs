//! HTTP clients of the schema registry and the token endpoint.

use std::time::Duration;

use philotes_sdk::{Error, ErrorKind, Result, is_out_of_files, without_secrets};
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode};

/// Redirects followed one after another.
const MOST_REDIRECTS: usize = 5;

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
        .redirect(redirects())
        .user_agent(concat!("philotes-kafka/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca {
        let fault = |why: &str| format!("{key}: {file} {why}");
        let pem = std::fs::read(file)
            .map_err(|e| Error::new(ErrorKind::of_io(&e), fault("cannot be read")).with_source(e))?;
        let authorities = Certificate::from_pem_bundle(&pem)
            .map_err(|e| Error::config(fault("holds no certificates in PEM")).with_source(e))?;
        if authorities.is_empty() {
            return Err(Error::config(fault("holds no certificates in PEM")));
        }
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|e| {
        let kind = if is_out_of_files() { ErrorKind::Unavailable } else { ErrorKind::Config };
        Error::new(kind, "the HTTP client cannot be set up").with_source(e)
    })
}

/// Follows a redirect to the same scheme, host and port that repeats the request as it is. What goes with a request, and what the
/// token endpoint finds in its body, is meant for one server.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let repeats = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let same = attempt.previous().last().is_some_and(|from| from.origin() == attempt.url().origin());
        if repeats && same && attempt.previous().len() <= MOST_REDIRECTS { attempt.follow() } else { attempt.stop() }
    })
}

/// The error of an answer that redirects to where it was not followed.
pub(crate) fn redirected(answer: &Response, key: &str) -> Option<Error> {
    let status = answer.status();
    if !status.is_redirection() {
        return None;
    }
    let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
    let to = answer.url().join(location).map_or_else(|_| location.to_owned(), |url| url.to_string());
    let to = without_secrets(&to);
    Some(Error::config(format!(
        "{key}: the server answers {status} and redirects to {to}, which is not followed, because passwords and secrets are for the \
         configured server only; if that one is to be asked, name it in {key}"
    )))
}
