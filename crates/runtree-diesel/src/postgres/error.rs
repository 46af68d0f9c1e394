//! What PostgreSQL's errors mean, told by their words because Diesel does not hand the codes on.

use diesel::result::{DatabaseErrorInformation, Error};
use runtree_repository::{ErrorKind, RepositoryError};

use crate::error::classify;

/// Parts of messages and what they mean. Connections ask for untranslated messages; a server that does not give them is refused.
const WORDS: &[(&str, ErrorKind)] = &[
    ("deadlock detected", ErrorKind::Busy),
    ("could not serialize access", ErrorKind::Busy),
    ("canceling statement due to", ErrorKind::Busy),
    ("terminating connection", ErrorKind::Unavailable),
    ("the database system is", ErrorKind::Unavailable),
    ("too many clients", ErrorKind::Unavailable),
    ("remaining connection slots", ErrorKind::Unavailable),
    ("No space left on device", ErrorKind::Unavailable),
    ("out of memory", ErrorKind::Unavailable),
    ("out of shared memory", ErrorKind::Unavailable),
    ("permission denied", ErrorKind::ReadOnly),
    ("must be owner of", ErrorKind::ReadOnly),
    ("cannot execute", ErrorKind::ReadOnly),
    ("already exists", ErrorKind::Configuration),
    // A step that replaces what a host's own tables refer to.
    ("other objects depend on it", ErrorKind::Configuration),
    (
        "no schema has been selected to create in",
        ErrorKind::Configuration,
    ),
    ("could not read block", ErrorKind::Corrupt),
    ("invalid page", ErrorKind::Corrupt),
    ("does not exist", ErrorKind::Corrupt),
];

/// Turns Diesel's error into ours; `doing` continues "failed to".
pub(crate) fn classified(error: Error, doing: &str) -> RepositoryError {
    classify(error, doing, dialect)
}

fn dialect(information: &(dyn DatabaseErrorInformation + Send + Sync)) -> ErrorKind {
    let message = information.message();
    WORDS
        .iter()
        .find(|(words, _)| message.contains(words))
        .map_or(ErrorKind::Internal, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use diesel::result::DatabaseErrorKind;

    use super::*;

    fn kind(message: &str) -> ErrorKind {
        let error = Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()));
        classified(error, "test").kind()
    }

    #[test]
    fn each_failure_says_what_to_do_next() {
        assert_eq!(kind("deadlock detected"), ErrorKind::Busy);
        assert_eq!(
            kind("canceling statement due to lock timeout"),
            ErrorKind::Busy
        );
        assert_eq!(
            kind("terminating connection due to administrator command"),
            ErrorKind::Unavailable
        );
        assert_eq!(
            kind("permission denied for table runtree_runs"),
            ErrorKind::ReadOnly
        );
        assert_eq!(
            kind("cannot execute INSERT in a read-only transaction"),
            ErrorKind::ReadOnly
        );
        assert_eq!(
            kind("relation \"runtree_runs\" already exists"),
            ErrorKind::Configuration
        );
        assert_eq!(
            kind("relation \"runtree_runs\" does not exist"),
            ErrorKind::Corrupt
        );
        assert_eq!(kind("something new"), ErrorKind::Internal);
    }
}
