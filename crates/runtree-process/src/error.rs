//! One opaque error, whose kind tells the caller what to do next.

use std::error::Error as StdError;
use std::fmt;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A text is not the canonical form of what it should name. Fix the input; if it was stored, tell a person, for the store is damaged.
    InvalidText,
    /// A command cannot be started as written. Fix the command.
    InvalidCommand,
    /// The system did not start the program, or did not open one of its files. Look at the source: fix the path or the permissions, or try again later where resources ran out.
    NotStarted,
    /// There is no such process. Take it for dead.
    NotFound,
    /// The process or group belongs to another host, container or unknown place. Leave it to that place, or wait until its lease has run out.
    Elsewhere,
    /// The identity names something that is never signalled: the first process, this process or its own group. Tell a person, for the store is damaged.
    Refused,
    /// The system does not let this account look or signal. Tell a person: run as the account that started the group.
    NotPermitted,
    /// This system cannot do it at all (no `/proc`, no pidfd, not Linux). Wait until the lease has run out.
    Unsupported,
    /// The system failed in a way that says nothing about the process. Try again; nothing is proven.
    System,
}

/// An operation on a process that did not do what it says.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Answers what the caller can do next.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// Keeps `source` and reads the kind from it, where it is one that says more than `otherwise`.
    pub(crate) fn from_io(
        otherwise: ErrorKind,
        what: impl Into<String>,
        source: std::io::Error,
    ) -> Self {
        let denied = source.kind() == std::io::ErrorKind::PermissionDenied;
        let kind = if source.kind() == std::io::ErrorKind::Unsupported {
            ErrorKind::Unsupported
        } else if denied && otherwise == ErrorKind::System {
            ErrorKind::NotPermitted
        } else {
            otherwise
        };
        Self {
            kind,
            what: what.into(),
            source: Some(Box::new(source)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
