//! Redirects: what goes with a request (the token, `catalog.headers`, a client's secret in its body) is meant for one server.

use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};

use philotes_sdk::without_secrets;

/// Redirects followed one after another.
const MOST: usize = 5;

/// Follows a redirect to the same scheme, host and port that repeats the request as it is. The others (301, 302, 303) would
/// make a GET of a POST, and its answer look like a commit's.
pub(super) fn policy() -> Policy {
    Policy::custom(|attempt| {
        let repeats = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let same = attempt.previous().last().is_some_and(|from| from.origin() == attempt.url().origin());
        if repeats && same && attempt.previous().len() <= MOST { attempt.follow() } else { attempt.stop() }
    })
}

/// Where an answer redirects to that was not followed, and what to do about it.
pub(super) fn refused(response: &Response, key: &str) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
    let to = response.url().join(location).map_or_else(|_| location.to_owned(), |url: Url| url.to_string());
    Some(format!(
        "it redirects to {}, which is not followed, because tokens, headers and secrets are for the configured server only; if that \
         one is to be asked, name it in {key}",
        without_secrets(&to)
    ))
}
