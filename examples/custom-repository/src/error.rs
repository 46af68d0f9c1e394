//! The one place that says what an error of the store means to a caller.

use runtree_repository::{ErrorKind, RepositoryError};

pub(crate) type Answer<T> = Result<T, RepositoryError>;

/// The store cannot be opened.
pub(crate) fn not_opened(error: redb::DatabaseError) -> RepositoryError {
    let kind = match &error {
        redb::DatabaseError::DatabaseAlreadyOpen => ErrorKind::Busy,
        redb::DatabaseError::UpgradeRequired(_) => ErrorKind::Unsupported,
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(_)) => ErrorKind::Corrupt,
        _ => ErrorKind::Configuration,
    };
    RepositoryError::new(kind, "the store cannot be opened").with_source(error)
}

/// A call on the open store failed.
pub(crate) fn failed(error: impl Into<redb::Error>) -> RepositoryError {
    let error = error.into();
    let kind = match &error {
        redb::Error::Corrupted(_) => ErrorKind::Corrupt,
        redb::Error::Io(_) | redb::Error::PreviousIo => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    RepositoryError::new(kind, "the store did not do what was asked").with_source(error)
}

/// A record is not what was written.
pub(crate) fn corrupt(error: serde_json::Error) -> RepositoryError {
    RepositoryError::new(ErrorKind::Corrupt, "a stored record cannot be read").with_source(error)
}
