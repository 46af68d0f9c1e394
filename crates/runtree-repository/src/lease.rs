//! Who owns a running run, for how long, and the number that guards every write of an owner.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use runtree_id::{OwnerId, RunId};
use runtree_status::RunStatus;
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, RepositoryError};
use crate::query::MAX_FILTER_VALUES;
use crate::run::{Run, RunSummary};
use crate::stop::CancelIntent;
use crate::text::{HostName, ProcessMark, QueueName, WorkflowName};
use crate::worktree::{WorktreeRecord, WorktreeSite};

/// The fencing number of a run: it grows with every claim and never goes back.
///
/// A write that carries a smaller one comes from an owner that has lost the run, and is rejected.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Token(u32);

impl Token {
    /// The token of a run that was never claimed.
    pub const NONE: Self = Self(0);

    /// Takes a stored number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the token of the next owner.
    ///
    /// # Panics
    /// After four thousand million claims of one run.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("because a run is not claimed four thousand million times"),
        )
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The process that runs a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Unlike any other owner, also of the same process.
    pub id: OwnerId,
    /// The machine that it is on.
    pub host: HostName,
    /// The process, so that others on the same machine can prove its death.
    pub process: ProcessMark,
}

/// What an owner shows with every write: which run, and under which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseRef {
    /// The run.
    pub run: RunId,
    /// The token that the claim gave out.
    pub token: Token,
}

/// A live lease, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// The run and the token.
    pub lease: LeaseRef,
    /// Who holds it.
    pub owner: Owner,
    /// The process group that works for the owner, if it has started one.
    pub child: Option<ProcessMark>,
    /// When the owner was last heard of.
    pub heartbeat_at: Timestamp,
    /// When it ends unless it is renewed.
    pub expires_at: Timestamp,
}

impl Lease {
    /// Makes a lease from its parts, as a backend reads them.
    pub fn new(
        lease: LeaseRef,
        owner: Owner,
        child: Option<ProcessMark>,
        heartbeat_at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            lease,
            owner,
            child,
            heartbeat_at,
            expires_at,
        }
    }
}

/// How long a lease lasts before it must be renewed: from 100 milliseconds to one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseTime(Duration);

impl LeaseTime {
    /// Checks the time and keeps it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] outside the limits.
    pub fn new(time: Duration) -> Result<Self, RepositoryError> {
        if (Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&time) {
            Ok(Self(time))
        } else {
            Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!("the lease time {time:?} is not between 100 ms and one day"),
            ))
        }
    }

    /// Returns the time.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for LeaseTime {
    /// One minute: long enough for a database that is restarted, short enough to notice a dead machine.
    fn default() -> Self {
        Self(Duration::from_secs(60))
    }
}

/// How many entries a call may take or answer: from 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(u16);

impl Limit {
    /// One.
    pub const ONE: Self = Self(1);
    /// The most that is allowed.
    pub const MAX: Self = Self(1_000);

    /// Checks the number and keeps it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] outside the limits.
    pub fn new(number: u64) -> Result<Self, RepositoryError> {
        match u16::try_from(number) {
            Ok(number) if (1..=Self::MAX.0).contains(&number) => Ok(Self(number)),
            _ => Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!("the limit {number} is not between 1 and {}", Self::MAX.0),
            )),
        }
    }

    /// Refuses a batch of more than [`MAX`](Self::MAX) entries.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming what there is too much of.
    pub fn check_batch(what: &str, entries: usize) -> Result<(), RepositoryError> {
        if entries > Self::MAX.get() {
            return Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!(
                    "the call holds {entries} {what}, at most {} are allowed",
                    Self::MAX.get()
                ),
            ));
        }
        Ok(())
    }

    /// The most bytes that the values of one batch may have together: 16 MiB. Inputs and metadata count in a batch of runs, results
    /// and error texts in one of endings.
    pub const MAX_BATCH_BYTES: usize = 16_777_216;

    /// Refuses a batch whose values have more than [`MAX_BATCH_BYTES`](Self::MAX_BATCH_BYTES) together.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming what there is too much of.
    pub(crate) fn check_batch_bytes(what: &str, bytes: usize) -> Result<(), RepositoryError> {
        if bytes > Self::MAX_BATCH_BYTES {
            return Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!(
                    "the {what} of one call have {bytes} bytes together, at most {} are allowed; make several calls",
                    Self::MAX_BATCH_BYTES
                ),
            ));
        }
        Ok(())
    }

    /// Returns the number.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

/// A wish to own waiting runs.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks.
    pub owner: Owner,
    /// For how long, until the first renewal.
    pub lease_time: LeaseTime,
    /// How many runs at most.
    pub limit: Limit,
    /// Which runs.
    pub of: ClaimOf,
    /// Where worktrees of the claimed runs would be; none claims only runs that need no worktree.
    pub site: Option<WorktreeSite>,
}

impl Claim {
    /// Changes a waiting run as this claim does that takes it at this instant, and returns the lease and when it expires: what a
    /// backend stores, once it has checked that the run may be claimed, and answers with. It stores nothing itself.
    ///
    /// # Panics
    /// As [`Token::next`].
    pub fn take(&self, run: &mut RunSummary, now: Timestamp) -> (LeaseRef, Timestamp) {
        let expires_at = now.saturating_add(self.lease_time.get());
        run.status = RunStatus::Running;
        run.token = run.token.next();
        run.attempts = run.attempts.saturating_add(1);
        run.owner = Some(self.owner.clone());
        run.lease_expires_at = Some(expires_at);
        run.started_at.get_or_insert(now);
        run.updated_at = run.updated_at.max(now);
        let lease = LeaseRef {
            run: run.id,
            token: run.token,
        };
        (lease, expires_at)
    }
}

/// Which waiting runs a claim may take. One whose deadline has passed may be taken until somebody
/// [looks at deadlines](crate::RescueRuns::time_out). Never one that is not due, that somebody wants to cancel, or whose status is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimOf {
    /// Those that wait, highest priority first, oldest first within a priority, whatever the queue.
    Waiting(WaitingRuns),
    /// This one.
    Run(RunId),
}

impl ClaimOf {
    /// Any that waits.
    pub const ANY: Self = Self::Waiting(WaitingRuns::ANY);
}

/// Which of the waiting runs are meant: all, until a condition is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingRuns {
    /// Only those of these queues.
    pub queues: Option<BTreeSet<QueueName>>,
    /// Only those of these workflows.
    pub workflows: Option<BTreeSet<WorkflowName>>,
}

impl WaitingRuns {
    /// All of them.
    pub const ANY: Self = Self {
        queues: None,
        workflows: None,
    };

    /// Only those of these queues.
    #[must_use]
    pub fn queues(mut self, queues: impl IntoIterator<Item = QueueName>) -> Self {
        self.queues = Some(queues.into_iter().collect());
        self
    }

    /// Only those of these workflows.
    #[must_use]
    pub fn workflows(mut self, workflows: impl IntoIterator<Item = WorkflowName>) -> Self {
        self.workflows = Some(workflows.into_iter().collect());
        self
    }
}

impl Claim {
    /// Refuses conditions without values or with too many, and a site that has no room for the name of a worktree.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the condition or the site.
    pub fn check(&self) -> Result<(), RepositoryError> {
        if let Some(site) = &self.site {
            site.check()?;
        }
        let ClaimOf::Waiting(waiting) = &self.of else {
            return Ok(());
        };
        for (what, count) in [
            ("queue", waiting.queues.as_ref().map(BTreeSet::len)),
            ("workflow", waiting.workflows.as_ref().map(BTreeSet::len)),
        ] {
            if let Some(count) = count
                && !(1..=MAX_FILTER_VALUES).contains(&count)
            {
                return Err(RepositoryError::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "the claim names {count} times a {what}, not from 1 to {MAX_FILTER_VALUES} times"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A run that now belongs to the claimer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claimed {
    /// What the owner shows with every write.
    pub lease: LeaseRef,
    /// When the lease ends unless it is renewed.
    pub expires_at: Timestamp,
    /// The run as it is now.
    pub run: Run,
    /// Its worktree: planned just now, or left by an earlier attempt on this site.
    pub worktree: Option<WorktreeRecord>,
}

impl Claimed {
    /// Makes an answer from its parts, as a backend reads them.
    pub fn new(
        lease: LeaseRef,
        expires_at: Timestamp,
        run: Run,
        worktree: Option<WorktreeRecord>,
    ) -> Self {
        Self {
            lease,
            expires_at,
            run,
            worktree,
        }
    }
}

/// The answer to the renewal of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "an owner must treat every answer: either it still owns the run or it does not"
)]
pub enum Renewal {
    /// The lease goes on.
    Renewed {
        /// When it ends unless it is renewed again.
        expires_at: Timestamp,
        /// Somebody wants the run to stop.
        cancel: Option<CancelIntent>,
    },
    /// The run is no longer this owner's. Stop its work, and touch neither record nor worktree again.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_lease_times_have_bounds() {
        assert!(Limit::new(0).is_err());
        assert!(Limit::new(1_001).is_err());
        assert_eq!(Limit::new(1_000).unwrap(), Limit::MAX);
        assert!(LeaseTime::new(Duration::from_millis(99)).is_err());
        assert!(LeaseTime::new(Duration::from_millis(100)).is_ok());
        assert!(LeaseTime::new(Duration::from_secs(86_401)).is_err());
    }
}
