//! Why a run stands where it stands, for people who wonder why nothing happens.

use std::fmt;

use runtree_id::RunId;
use runtree_status::{EndReason, RunStatus};
use runtree_time::Timestamp;
use serde::Serialize;

use crate::lease::{Lease, Owner};
use crate::request::Concurrency;
use crate::run::RunSummary;
use crate::stop::{CancelCause, CancelIntent};

/// Why a run stands where it stands, as the store saw it at one instant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The run.
    pub run: RunSummary,
    /// The store's clock when it looked.
    pub at: Timestamp,
    /// What holds it there: all that applies, what weighs most first. Never empty.
    pub because: Vec<Because>,
}

impl Explanation {
    /// Makes an explanation from its parts, as a backend reads them.
    pub fn new(run: RunSummary, at: Timestamp, seen: &Surroundings) -> Self {
        let because = because(&run, at, seen);
        Self { run, at, because }
    }
}

/// What a backend reads beside the run, in the same snapshot.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The lease of the run, if it runs.
    pub lease: Option<Lease>,
    /// All other runs with the same concurrency key that hold a live lease, by id.
    pub holders: Vec<RunId>,
    /// How many due runs of the same queue go first.
    pub ahead: u64,
}

/// One thing that holds a run where it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Because {
    /// It has ended. A retry is a new run.
    Ended {
        /// When.
        at: Timestamp,
        /// Why.
        reason: Option<EndReason>,
    },
    /// Its status is a word of a newer version, which this version never touches. Use the newer version.
    UnknownStatus {
        /// The word.
        status: RunStatus,
    },
    /// It is not due yet.
    NotDue {
        /// When it is.
        at: Timestamp,
    },
    /// As many runs as may use its concurrency key at once are running.
    LimitReached {
        /// The key and how many may.
        concurrency: Concurrency,
        /// Which runs use it: the first hundred by id.
        holders: Vec<RunId>,
    },
    /// It could be claimed at once, but other due runs go first, or no worker asks for runs of its queue and workflow.
    Waiting {
        /// How many due runs of its queue go first.
        ahead: u64,
    },
    /// Its deadline has passed, and nobody has asked it to stop before; the next look at deadlines ends it, or asks it to stop when
    /// it runs.
    DeadlinePassed {
        /// When it passed.
        at: Timestamp,
    },
    /// Somebody, or its deadline, wants it to stop; its owner hears of it with its next renewal.
    CancelRequested {
        /// The wish.
        cancel: CancelIntent,
    },
    /// Its owner works on it, or says so: the lease is alive.
    Owned {
        /// Who.
        owner: Owner,
        /// When it was last heard of.
        heartbeat_at: Timestamp,
        /// When its lease ends unless it is renewed.
        expires_at: Timestamp,
    },
    /// Its owner was not heard of in time. The next rescue takes the run up.
    LeaseExpired {
        /// Who it was.
        owner: Owner,
        /// When it was last heard of.
        heartbeat_at: Timestamp,
        /// When the lease ended.
        expires_at: Timestamp,
    },
    /// It runs and has no lease: what a newer version or a person may have left. The next rescue takes the run up.
    LeaseMissing,
}

/// The most holders of a concurrency key that an explanation names.
const MAX_HOLDERS: usize = 100;

fn because(run: &RunSummary, at: Timestamp, seen: &Surroundings) -> Vec<Because> {
    if let Some(ended_at) = run.ended_at {
        return vec![Because::Ended {
            at: ended_at,
            reason: run.end_reason,
        }];
    }
    let mut because = Vec::new();
    // Who asked for it to stop said so; that its deadline passed as well changes nothing any more.
    let is_asked = run
        .cancel
        .as_ref()
        .is_some_and(|cancel| cancel.cause == CancelCause::Request);
    let deadline = run.deadline.filter(|deadline| *deadline <= at && !is_asked);
    because.extend(deadline.map(|at| Because::DeadlinePassed { at }));
    let cancel = run.cancel.clone();
    because.extend(cancel.map(|cancel| Because::CancelRequested { cancel }));
    if run.status == RunStatus::Pending {
        because.extend(waiting(run, at, seen));
    } else if run.status == RunStatus::Running {
        because.push(running(at, seen));
    } else {
        because.push(Because::UnknownStatus { status: run.status });
    }
    because
}

fn waiting(run: &RunSummary, at: Timestamp, seen: &Surroundings) -> Vec<Because> {
    let mut because = Vec::new();
    if run.available_at > at {
        because.push(Because::NotDue {
            at: run.available_at,
        });
    }
    if let Some(concurrency) = &run.concurrency {
        let used = u64::try_from(seen.holders.len()).unwrap_or(u64::MAX);
        if used >= u64::from(concurrency.limit.get()) {
            because.push(Because::LimitReached {
                concurrency: concurrency.clone(),
                holders: seen.holders.iter().copied().take(MAX_HOLDERS).collect(),
            });
        }
    }
    if because.is_empty() {
        because.push(Because::Waiting { ahead: seen.ahead });
    }
    because
}

fn running(at: Timestamp, seen: &Surroundings) -> Because {
    match seen.lease.clone() {
        None => Because::LeaseMissing,
        Some(lease) if lease.expires_at > at => Because::Owned {
            owner: lease.owner,
            heartbeat_at: lease.heartbeat_at,
            expires_at: lease.expires_at,
        },
        Some(lease) => Because::LeaseExpired {
            owner: lease.owner,
            heartbeat_at: lease.heartbeat_at,
            expires_at: lease.expires_at,
        },
    }
}

impl fmt::Display for Explanation {
    /// Writes one line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: ", self.run.id, self.run.status)?;
        for (number, because) in self.because.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            because.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { at, reason } => {
                write!(f, "it ended at {at}")?;
                reason.map_or(Ok(()), |reason| write!(f, " ({reason})"))
            }
            Self::UnknownStatus { status } => {
                write!(
                    f,
                    "`{status}` is a word of a newer version, which this one leaves alone"
                )
            }
            Self::NotDue { at } => write!(f, "it is not due before {at}"),
            Self::LimitReached {
                concurrency,
                holders,
            } => {
                let (key, limit) = (&concurrency.key, concurrency.limit);
                write!(
                    f,
                    "{limit} may run with the concurrency key `{key}`, and these do:"
                )?;
                holders.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::Waiting { ahead } => write!(
                f,
                "it can be claimed; {ahead} due runs of its queue go first"
            ),
            Self::DeadlinePassed { at } => write!(f, "its deadline passed at {at}"),
            Self::CancelRequested { cancel } => write!(
                f,
                "it was asked to stop at {} ({})",
                cancel.requested_at,
                cancel.mode.as_str()
            ),
            Self::Owned {
                owner,
                heartbeat_at,
                expires_at,
            } => write!(
                f,
                "{} on {} works on it, last heard of at {heartbeat_at}, lease until {expires_at}",
                owner.id, owner.host
            ),
            Self::LeaseExpired {
                owner,
                heartbeat_at,
                expires_at,
            } => write!(
                f,
                "{} on {} was last heard of at {heartbeat_at}, its lease ended at {expires_at}, and the next rescue takes the run up",
                owner.id, owner.host
            ),
            Self::LeaseMissing => f.write_str("it has no lease, and the next rescue takes it up"),
        }
    }
}
