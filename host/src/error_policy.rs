//! From the kind of an error to what the host does next: the one place that decides.

use philotes_sdk::ErrorKind;

use crate::plugin::Kind;

/// What follows an error of a plugin's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Call again with the same arguments, after a back-off: the instance kept what it had.
    RetryCall,
    /// Drop what is uncommitted, close both ends, reopen both after a back-off, start again from announce.
    Reopen,
    /// As `Reopen`, the first time without waiting: another task took over, or the table moved.
    ReopenAtOnce,
    /// Retrying cannot help: FAILED.
    Fail,
}

/// The reaction to an error of an open instance. (An `open` that fails is never `RetryCall`: there is no instance.)
#[must_use]
pub fn reaction(end: Kind, kind: ErrorKind) -> Reaction {
    match (end, kind) {
        // Conflict and Unknown are the sink's to resolve: it looks at the table first when it is called again.
        (Kind::Sink, ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Unknown) => Reaction::RetryCall,
        // Any error ends a source instance; opening it again is its way to reload, to look and to reconnect.
        (Kind::Source, ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Unknown) => Reaction::Reopen,
        (_, ErrorKind::Fenced) => Reaction::ReopenAtOnce,
        (_, ErrorKind::Config | ErrorKind::Data | ErrorKind::Internal) => Reaction::Fail,
    }
}

/// What an operator can do about it, for the log line of a FAILED task.
#[must_use]
pub fn hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Config => {
            "nothing after the last commit was acknowledged; correct what the message names and start again, \
             `philotes action FILE` lists what can be done about it"
        }
        ErrorKind::Data => "a record cannot be written as it is; nothing after the last commit was acknowledged",
        ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Unknown => {
            "retries are exhausted; it goes on from the last commit once the server answers"
        }
        ErrorKind::Fenced => "another host runs this connector; stop one of the two",
        ErrorKind::Internal => "a bug; keep this log and report it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_at_each_end() {
        use ErrorKind::{Config, Conflict, Data, Fenced, Internal, Unavailable, Unknown};
        for (kind, source, sink) in [
            (Config, Reaction::Fail, Reaction::Fail),
            (Unavailable, Reaction::Reopen, Reaction::RetryCall),
            (Data, Reaction::Fail, Reaction::Fail),
            (Conflict, Reaction::Reopen, Reaction::RetryCall),
            (Unknown, Reaction::Reopen, Reaction::RetryCall),
            (Fenced, Reaction::ReopenAtOnce, Reaction::ReopenAtOnce),
            (Internal, Reaction::Fail, Reaction::Fail),
        ] {
            assert_eq!(reaction(Kind::Source, kind), source, "{kind}");
            assert_eq!(reaction(Kind::Sink, kind), sink, "{kind}");
        }
    }
}
