//! The one error of every run repository, and what its caller does next.

use std::error::Error;
use std::fmt;

/// Why a run repository could not answer.
///
/// Opaque but for its [`kind`](Self::kind); the backend's own error is kept as [`source`](Error::source).
/// A guarded write that loses is not an error: see [`Write`](crate::Write).
pub struct RepositoryError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What kind of failure it was; each says what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value is not allowed. Nothing was written. Fix the input.
    InvalidInput,
    /// The request contradicts an earlier one: the same key with another content. Nothing was written. Use another key, or ask for
    /// the run that exists.
    Conflict,
    /// Others hold what is needed for longer than the time limit. Whether a write happened is known: it did not. Retry.
    Busy,
    /// The store does not answer. Whether the last write happened is not known; every write can be repeated safely. Retry with
    /// back-off, and tell a person when it lasts.
    Unavailable,
    /// The store may only be read: permissions, a read-only file system, or a schema that this version must not write. Fix the
    /// permissions or use a newer version.
    ReadOnly,
    /// The store was written by a newer version whose schema this one cannot read. Nothing was touched. Use a newer version.
    SchemaTooNew,
    /// The store is missing or is not what it should be: no such file or server, another program's database, a wrong password. Fix
    /// the configuration.
    Configuration,
    /// The environment cannot keep the promises: a SQLite with a known corruption bug, a network file system. Change the
    /// environment as the message says.
    Unsupported,
    /// Stored data is not what was written. Stop and tell a person.
    Corrupt,
    /// A defect of the backend. Tell its authors.
    Internal,
}

impl RepositoryError {
    /// Makes an error of a kind; the message is a lower-case fragment that names the thing and the value.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns what kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Tells whether the same call may succeed later without a change.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Busy | ErrorKind::Unavailable => true,
            ErrorKind::InvalidInput
            | ErrorKind::Conflict
            | ErrorKind::ReadOnly
            | ErrorKind::SchemaTooNew
            | ErrorKind::Configuration
            | ErrorKind::Unsupported
            | ErrorKind::Corrupt
            | ErrorKind::Internal => false,
        }
    }
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for RepositoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}
