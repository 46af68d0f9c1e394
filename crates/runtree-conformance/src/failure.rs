//! How a case says that a backend broke a promise, and where in the suite that was noticed.

use std::error::Error;
use std::fmt;
use std::panic::Location;

use runtree_repository::{ErrorKind, RepositoryError, RunSummary, Write};

/// Why a case failed: the promise that was broken, what was seen instead, and the line of the suite that noticed.
#[derive(Clone, Debug)]
pub struct Failure {
    message: String,
    at: &'static Location<'static>,
}

/// What a case answers.
pub(crate) type Checked<T = ()> = Result<T, Failure>;

impl Failure {
    #[track_caller]
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at: Location::caller(),
        }
    }

    /// Says after what it was noticed.
    pub(crate) fn after(mut self, what: &str) -> Self {
        self.message = format!("after {what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (noticed at {})", self.message, self.at)
    }
}

impl Error for Failure {}

impl From<RepositoryError> for Failure {
    #[track_caller]
    fn from(error: RepositoryError) -> Self {
        Self::new(format!("the repository answered with an error: {error:?}"))
    }
}

/// Ends the case unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::failure::Failure::new(format!($($why)+)));
        }
    };
}

/// Ends the case unless what was seen is what was expected.
macro_rules! ensure_eq {
    ($seen:expr, $expected:expr, $($why:tt)+) => {
        // A match, because what it looks at lives until its end.
        match (&$seen, &$expected) {
            (seen, expected) => {
                if *seen != *expected {
                    return Err($crate::failure::Failure::new(format!(
                        "{}: expected {expected:?}, saw {seen:?}",
                        format_args!($($why)+),
                    )));
                }
            }
        }
    };
}

/// Takes what a pattern binds, or ends the case.
macro_rules! take {
    ($seen:expr, $pattern:pat => $taken:expr, $($why:tt)+) => {
        match $seen {
            $pattern => $taken,
            seen => {
                return Err($crate::failure::Failure::new(format!(
                    "{}: saw {seen:?}",
                    format_args!($($why)+),
                )));
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq, take};

/// Makes sure that a call was refused because of its input.
#[track_caller]
pub(crate) fn ensure_invalid<T: fmt::Debug>(
    answer: Result<T, RepositoryError>,
    what: &str,
) -> Checked {
    match answer {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        Err(error) => Err(Failure::new(format!(
            "{what} must be refused as invalid input: saw {error:?}"
        ))),
        Ok(answer) => Err(Failure::new(format!("{what} was answered by {answer:?}"))),
    }
}

/// Says which of the four answers a guarded write must have.
pub(crate) trait WriteAnswer<T> {
    /// The write happened.
    fn applied(self, what: &str) -> Checked<T>;
    /// Things were so already.
    fn already(self, what: &str) -> Checked<T>;
    /// The guard did not hold.
    fn stale(self, what: &str) -> Checked<RunSummary>;
    /// There is no such run.
    fn not_found(self, what: &str) -> Checked;
}

impl<T: fmt::Debug> WriteAnswer<T> for Write<T> {
    #[track_caller]
    fn applied(self, what: &str) -> Checked<T> {
        take!(self, Write::Applied(value) => Ok(value), "{what} must be applied")
    }

    #[track_caller]
    fn already(self, what: &str) -> Checked<T> {
        take!(self, Write::Already(value) => Ok(value), "{what} must be answered by Already")
    }

    #[track_caller]
    fn stale(self, what: &str) -> Checked<RunSummary> {
        take!(self, Write::Stale { current } => Ok(*current), "{what} must be answered by Stale")
    }

    #[track_caller]
    fn not_found(self, what: &str) -> Checked {
        take!(self, Write::NotFound => Ok(()), "{what} must be answered by NotFound")
    }
}
