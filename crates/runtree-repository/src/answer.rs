//! Answers of guarded writes: losing is an answer, not an error.

use runtree_id::RunId;
use runtree_time::Timestamp;

use crate::error::{ErrorKind, RepositoryError};
use crate::lease::LeaseRef;
use crate::run::{Run, RunSummary};

/// The answer to a create.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a create may have found an existing run, or a conflict"]
#[expect(
    clippy::exhaustive_enums,
    reason = "a caller must tell new from existing from conflicting"
)]
pub enum Created {
    /// The run is new.
    New(Run),
    /// The same request was made before, and this is its run.
    Existing(Run),
    /// Another request holds the key; nothing was written.
    Conflict {
        /// What both want.
        over: ConflictOver,
        /// The run that has it.
        existing: Run,
    },
}

/// What two creates cannot both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConflictOver {
    /// The run id: draw another.
    Id,
    /// The idempotency key: it names another request.
    IdempotencyKey,
    /// The unique key: a run that has not ended holds it.
    UniqueKey,
}

impl ConflictOver {
    /// Returns the words for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::IdempotencyKey => "idempotency key",
            Self::UniqueKey => "unique key",
        }
    }
}

impl Created {
    /// Returns the run of this request, new or existing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another request holds the key.
    pub fn into_run(self) -> Result<Run, RepositoryError> {
        match self {
            Self::New(run) | Self::Existing(run) => Ok(run),
            Self::Conflict { over, existing } => Err(RepositoryError::new(
                ErrorKind::Conflict,
                format!(
                    "the {} belongs to the run {}, which is another request",
                    over.as_str(),
                    existing.id
                ),
            )),
        }
    }
}

/// The answer to a guarded write.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a guarded write may have been rejected"]
#[expect(
    clippy::exhaustive_enums,
    reason = "a caller must treat each of the four answers"
)]
pub enum Write<T> {
    /// The write happened, and is durable.
    Applied(T),
    /// What was wanted was so already; nothing was written.
    Already(T),
    /// The guard did not hold: the run belongs to somebody else, has ended otherwise, or stands at a word that this version
    /// does not know. Nothing of the run was written but the rejection in its history.
    Stale {
        /// The run as it is.
        current: Box<RunSummary>,
    },
    /// There is no such run.
    NotFound,
}

impl<T> Write<T> {
    /// Changes what the answer carries.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Write<U> {
        match self {
            Self::Applied(value) => Write::Applied(change(value)),
            Self::Already(value) => Write::Already(change(value)),
            Self::Stale { current } => Write::Stale { current },
            Self::NotFound => Write::NotFound,
        }
    }

    /// Returns what the answer carries when things are as they were wanted.
    pub fn accepted(self) -> Option<T> {
        match self {
            Self::Applied(value) | Self::Already(value) => Some(value),
            Self::Stale { .. } | Self::NotFound => None,
        }
    }
}

/// Which ended runs are old enough to be deleted.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Those that ended before this instant.
    pub ended_before: Timestamp,
    /// How many at most, those first that ended first.
    pub limit: crate::lease::Limit,
}

/// Which runs to take away from owners that are gone.
#[derive(Clone, Debug, Default)]
pub struct Rescue {
    /// Leases whose owners were proven dead, and whose processes were seen to be gone, as they were observed.
    pub proven_dead: Vec<LeaseRef>,
    /// How many expired leases to take up besides.
    pub limit: crate::lease::Limit,
    /// Runs whose expired leases are left alone, because their old processes may still be at work.
    pub spare: Vec<RunId>,
}

/// A run that was taken away from its owner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rescued {
    /// The lease that is no more.
    pub lease: LeaseRef,
    /// The run as it is now: `pending` again, `failed` with the reason `lost`, or `killed`.
    pub run: RunSummary,
}

impl Rescued {
    /// Makes an answer from its parts, as a backend reads them.
    pub fn new(lease: LeaseRef, run: RunSummary) -> Self {
        Self { lease, run }
    }
}
