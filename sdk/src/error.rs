//! The one error of the boundary: its kind says what the host does next.

use std::{fmt, io};

/// What happens next after a failure. The kinds and their numbers are part of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ErrorKind {
    /// The configuration is wrong: stop; the message says which key, what was found and what is allowed.
    Config = 1,
    /// A server or a file is out of reach for now: retry with back-off.
    Unavailable = 2,
    /// A record cannot be written: stop (or dead-letter it); the message names stream, offset, column and reason.
    Data = 3,
    /// Somebody else changed what this operation was based on: reload and apply again.
    Conflict = 4,
    /// The outcome is unknown: look before retrying.
    Unknown = 5,
    /// Another task owns the stream: drop everything uncommitted, reopen, announce again.
    Fenced = 6,
    /// A bug: stop and keep the evidence.
    Internal = 7,
}

impl ErrorKind {
    /// The kind with this number of the ABI, if there is one.
    #[must_use]
    pub fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            1 => Self::Config,
            2 => Self::Unavailable,
            3 => Self::Data,
            4 => Self::Conflict,
            5 => Self::Unknown,
            6 => Self::Fenced,
            7 => Self::Internal,
            _ => return None,
        })
    }

    /// The kind with this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        (1..=7).filter_map(Self::from_u32).find(|kind| kind.name() == name)
    }

    /// The kind's name in lower case, as it stands in logs, status and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Unavailable => "unavailable",
            Self::Data => "data",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
            Self::Fenced => "fenced",
            Self::Internal => "internal",
        }
    }
}

impl ErrorKind {
    /// What follows from an error of the operating system: [`Config`](Self::Config) where a path is wrong or not allowed, which
    /// somebody has to mend, and [`Unavailable`](Self::Unavailable) for the rest, which passes: no more files can be opened, a
    /// disk is full, a quota is used up, a file system is read-only for now, a call was interrupted or took too long.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound
            | Io::PermissionDenied
            | Io::AlreadyExists
            | Io::NotADirectory
            | Io::IsADirectory
            | Io::InvalidInput
            | Io::InvalidFilename
            | Io::InvalidData
            | Io::Unsupported => Self::Config,
            _ => Self::Unavailable,
        }
    }
}

/// Whether the process can open no more files just now. It is the reason of failures that do not say it, such as that of an HTTP
/// client which finds no certificate authorities.
#[must_use]
pub fn is_out_of_files() -> bool {
    // A file that is always there, on Unix.
    cfg!(unix) && std::fs::File::open("/dev/null").is_err_and(|e| ErrorKind::of_io(&e) == ErrorKind::Unavailable)
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure: its kind, a message an operator can act on, and where there is one the error beneath it.
///
/// Kind and message cross the plugin boundary; the source is folded into the message there. Never put a row's values
/// or a secret into the message.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    held_elsewhere: bool,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result with the sdk's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, held_elsewhere: false, message: message.into(), source: None }
    }

    /// [`ErrorKind::Unavailable`], because another task holds what only one may hold: the lock of a source, a slot. It is
    /// nothing that went wrong: the host is a standby, and tries again for as long as it takes, without FAILED.
    pub fn held_elsewhere(message: impl Into<String>) -> Self {
        Self { held_elsewhere: true, ..Self::unavailable(message) }
    }

    /// [`ErrorKind::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::Unknown`].
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unknown, message)
    }

    /// [`ErrorKind::Fenced`].
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, its message preceded by where it happened: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What happens next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Another task holds what this one waits for; see [`Error::held_elsewhere`].
    #[must_use]
    pub fn is_held_elsewhere(&self) -> bool {
        self.held_elsewhere
    }

    /// The message alone, without the errors beneath.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The message and the messages of all errors beneath it, `: ` between them.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut next = self.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

// `source` stays None: Display already prints the whole chain, and a reporter would print it twice.
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_prints_the_chain_once() {
        let error = Error::unavailable("cannot connect").with_source(io::Error::other("refused")).context("source");
        assert_eq!(error.to_string(), "source: cannot connect: refused");
    }

    /// errno's numbers on Linux, from errno(3) and asm-generic/errno.h.
    #[test]
    fn what_passes_by_itself_is_unavailable() {
        for (name, number) in [
            ("EINTR", 4),
            ("EIO", 5),
            ("EAGAIN", 11),
            ("ENOMEM", 12),
            ("EBUSY", 16),
            ("ENFILE", 23),
            ("EMFILE", 24),
            ("ENOSPC", 28),
            ("EROFS", 30),
            ("ECONNRESET", 104),
            ("ENOBUFS", 105),
            ("ETIMEDOUT", 110),
            ("ECONNREFUSED", 111),
            ("EHOSTUNREACH", 113),
            ("ESTALE", 116),
            ("EDQUOT", 122),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(ErrorKind::of_io(&error), ErrorKind::Unavailable, "{name}: {error}");
        }
        for (name, number) in [
            ("EPERM", 1),
            ("ENOENT", 2),
            ("EACCES", 13),
            ("EEXIST", 17),
            ("ENOTDIR", 20),
            ("EISDIR", 21),
            ("EINVAL", 22),
            ("ENAMETOOLONG", 36),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(ErrorKind::of_io(&error), ErrorKind::Config, "{name}: {error}");
        }
    }

    #[test]
    fn every_kind_survives_its_number() {
        for number in 1..=7 {
            assert_eq!(ErrorKind::from_u32(number).map(|kind| kind as u32), Some(number));
        }
        assert_eq!(ErrorKind::from_u32(0), None);
        assert_eq!(ErrorKind::from_u32(8), None);
    }
}
