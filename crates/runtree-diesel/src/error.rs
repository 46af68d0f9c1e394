//! The one place where a database's error becomes ours.

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error};
use runtree_repository::{ErrorKind, RepositoryError};

/// How one database tells apart what Diesel only knows as "unknown": by the text, because the code is not handed on.
pub(crate) type Dialect = fn(&(dyn DatabaseErrorInformation + Send + Sync)) -> ErrorKind;

/// Turns Diesel's error into ours; `doing` continues "failed to".
pub(crate) fn classify(error: Error, doing: &str, dialect: Dialect) -> RepositoryError {
    let kind = kind_of(&error, dialect);
    RepositoryError::new(kind, format!("failed to {doing}: {error}")).with_source(error)
}

/// Says what kind of failure Diesel's error is.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "Diesel's errors are an open set; what it adds later is treated as the rest"
)]
pub(crate) fn kind_of(error: &Error, dialect: Dialect) -> ErrorKind {
    match error {
        Error::DatabaseError(kind, information) => match kind {
            DatabaseErrorKind::SerializationFailure => ErrorKind::Busy,
            DatabaseErrorKind::ReadOnlyTransaction => ErrorKind::ReadOnly,
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
                ErrorKind::Unavailable
            }
            // The statements avoid what the constraints forbid, so one that speaks up has met data that we did not write.
            DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::UniqueViolation => ErrorKind::Internal,
            _ => dialect(information.as_ref()),
        },
        Error::DeserializationError(_) => ErrorKind::Corrupt,
        Error::BrokenTransactionManager => ErrorKind::Unavailable,
        // What remains is a statement of ours that Diesel cannot build, or a row that we took for certain.
        _ => ErrorKind::Internal,
    }
}
