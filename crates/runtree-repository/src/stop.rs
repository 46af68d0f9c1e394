//! How a run ends: by its owner's outcome, or because somebody wants it to stop.

use std::time::Duration;

use runtree_status::EndReason;
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RepositoryError;
use crate::json;
use crate::lease::{LeaseRef, Limit};
use crate::text::{Actor, ErrorText, Reason};

/// What an owner says of its attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The work is done. Accepted only while the lease has not expired; wins over a cancel intent that still waits.
    Completed {
        /// What came of it.
        result: Option<Value>,
    },
    /// The attempt failed.
    ///
    /// The run waits again when `retry_after` is given, attempts are left and nobody wants it to stop; it is `killed` when somebody
    /// wants it to stop; else it is `failed`.
    Failed {
        /// What went wrong.
        error: ErrorText,
        /// How long to wait before the next attempt; none for an error that another attempt would not mend.
        retry_after: Option<Duration>,
    },
    /// The work was stopped because somebody wanted it to.
    Killed,
}

impl Outcome {
    /// Refuses values beyond the limits.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the result is too large or too deep.
    pub fn check(&self) -> Result<(), RepositoryError> {
        match self {
            Self::Completed {
                result: Some(result),
            } => json::check("the result", result),
            Self::Completed { result: None } | Self::Failed { .. } | Self::Killed => Ok(()),
        }
    }

    /// Returns the reason that is recorded when this outcome ends the run without a cancel intent.
    pub const fn end_reason(&self) -> EndReason {
        match self {
            Self::Completed { .. } => EndReason::Succeeded,
            Self::Failed { .. } => EndReason::Error,
            Self::Killed => EndReason::Killed,
        }
    }
}

/// One ending: the lease that the owner shows, and the outcome.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Which run, and under which token.
    pub lease: LeaseRef,
    /// What came of the attempt.
    pub outcome: Outcome,
}

impl Ending {
    /// Refuses a batch with too many endings, with values beyond the limits, or with more bytes than one call may have.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), naming the value and the limit.
    pub fn check_batch(endings: &[Self]) -> Result<(), RepositoryError> {
        Limit::check_batch("endings", endings.len())?;
        let mut bytes = 0_usize;
        for ending in endings {
            ending.outcome.check()?;
            bytes = bytes.saturating_add(match &ending.outcome {
                Outcome::Completed { result } => result.as_ref().map_or(0, json::rough_bytes),
                Outcome::Failed { error, .. } => error.as_str().len(),
                Outcome::Killed => 0,
            });
        }
        Limit::check_batch_bytes("results and error texts", bytes)
    }
}

/// What to do with runs whose deadline has passed.
#[derive(Clone, Debug)]
pub struct Overdue {
    /// How many runs at most, those first whose deadline passed first.
    pub limit: Limit,
    /// How long the work of a running run has to stop by itself before the run is ended without its owner.
    pub grace: Duration,
}

/// How a run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "the owner must treat each mode")]
pub enum CancelMode {
    /// The work is asked to stop and given time.
    Graceful,
    /// The work is ended at once. A graceful intent may become forced, never the other way round.
    Forced,
}

impl CancelMode {
    /// Returns the word that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Graceful => "graceful",
            Self::Forced => "forced",
        }
    }
}

/// What made somebody, or something, want a run to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "the cause decides how the run ends, so each must be treated"
)]
pub enum CancelCause {
    /// Somebody asked for it; the run ends as `killed`.
    #[default]
    Request,
    /// Its deadline passed; the run ends as `failed` with the reason `timed_out`.
    Deadline,
}

impl CancelCause {
    /// Returns the word that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Deadline => "deadline",
        }
    }

    /// Returns how a run ends that stops for this cause.
    pub const fn end_reason(self) -> EndReason {
        match self {
            Self::Request => EndReason::Killed,
            Self::Deadline => EndReason::TimedOut,
        }
    }
}

/// A wish that a run stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// How.
    pub mode: CancelMode,
    /// Why.
    pub reason: Option<Reason>,
    /// Who wants it.
    pub by: Option<Actor>,
    /// How long the work may take to stop by itself.
    pub grace: Option<Duration>,
}

impl CancelRequest {
    /// Wishes that the run stops, in this mode.
    pub const fn new(mode: CancelMode) -> Self {
        Self {
            mode,
            reason: None,
            by: None,
            grace: None,
        }
    }
}

/// A recorded wish that a run stops; never a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CancelIntent {
    /// How.
    pub mode: CancelMode,
    /// For what cause. A request that comes before the deadline passes stays the cause.
    pub cause: CancelCause,
    /// When it was asked for first.
    pub requested_at: Timestamp,
    /// Until when the work may stop by itself.
    pub deadline: Option<Timestamp>,
    /// Why.
    pub reason: Option<Reason>,
    /// Who wanted it.
    pub by: Option<Actor>,
}

impl CancelIntent {
    /// Makes an intent from its parts, as a backend reads them.
    pub const fn new(mode: CancelMode, cause: CancelCause, requested_at: Timestamp) -> Self {
        Self {
            mode,
            cause,
            requested_at,
            deadline: None,
            reason: None,
            by: None,
        }
    }

    /// Tells whether the run was asked to stop for its deadline, and its time for that is over.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.cause == CancelCause::Deadline && self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Records a request.
    pub fn of(request: &CancelRequest, now: Timestamp) -> Self {
        Self {
            mode: request.mode,
            cause: CancelCause::Request,
            requested_at: now,
            deadline: request.grace.map(|grace| now.saturating_add(grace)),
            reason: request.reason.clone(),
            by: request.by.clone(),
        }
    }
}
