//! The iceberg crate's errors as the sdk's: the one place where their kinds are mapped.

use philotes_sdk as sdk;

/// What the iceberg crate (or our storage below it) reports, as the host's error.
pub(crate) fn from_iceberg(doing: impl Into<String>, error: iceberg::Error) -> sdk::Error {
    use iceberg::ErrorKind as K;
    let kind = match error.kind() {
        K::CatalogCommitConflicts => sdk::ErrorKind::Conflict,
        _ if error.retryable() => sdk::ErrorKind::Unavailable,
        K::DataInvalid => sdk::ErrorKind::Data,
        K::FeatureUnsupported | K::PreconditionFailed => sdk::ErrorKind::Config,
        _ => sdk::ErrorKind::Internal,
    };
    sdk::Error::new(kind, doing).with_source(error)
}

/// An error with what lies beneath it: that a request was timed out stands there.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut beneath = error.source();
    while let Some(error) = beneath {
        text = format!("{text}: {error}");
        beneath = error.source();
    }
    text
}
