//! The one table of how a run moves; methods, documents, diagrams and tests come from it.

use std::fmt;

use crate::reason::EndReason;
use crate::status::RunStatus;

/// Says what happens to a run.
///
/// Where one act can end in different ways, each way is an event of its own (failing is
/// [`Fail`](Self::Fail), [`FailRetry`](Self::FailRetry) or
/// [`FailCancelled`](Self::FailCancelled)), so that an event and a status always name one
/// outcome. Which of them it is, the guard decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A run is recorded.
    Create,
    /// An owner takes the run.
    Claim,
    /// The owner extends its lease.
    Renew,
    /// The owner reports success.
    Complete,
    /// The owner reports an error and attempts are left.
    FailRetry,
    /// The owner reports an error and no attempt is left.
    Fail,
    /// The owner reports an error while a cancel intent waits.
    FailCancelled,
    /// The run is cancelled before anyone has claimed it.
    CancelBeforeStart,
    /// The wish to stop a running run is recorded.
    RequestCancel,
    /// The owner reports that it stopped as wished.
    AcknowledgeCancel,
    /// A running run is ended without its owner.
    ForceKill,
    /// A run whose owner is lost is put back; attempts are left.
    RescuePending,
    /// A run whose owner is lost is given up; no attempt is left.
    RescueLost,
    /// A run whose owner is lost is ended, because a cancel intent waited.
    RescueKilled,
    /// The owner gives the run back because it shuts down.
    Release,
    /// The deadline of a running run has passed: the wish to stop it is recorded.
    RequestTimeOut,
    /// The deadline has passed and the run is ended for it.
    TimeOut,
    /// A new run is made from an ended one.
    Retry,
    /// Facts, tags or metadata are added.
    Annotate,
}

impl Event {
    /// Every event, in the order of [`TRANSITIONS`].
    pub const ALL: [Self; TRANSITIONS.len()] = {
        let mut all = [Self::Create; TRANSITIONS.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = TRANSITIONS[at].event;
            at += 1;
        }
        all
    };

    /// Returns the event's row of the table.
    #[must_use]
    pub const fn transition(self) -> &'static Transition {
        // The rows stand in the order of the enum; the assertion below checks it while compiling.
        &TRANSITIONS[self as usize]
    }

    /// Returns the event's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Complete => "complete",
            Self::FailRetry => "fail_retry",
            Self::Fail => "fail",
            Self::FailCancelled => "fail_cancelled",
            Self::CancelBeforeStart => "cancel_before_start",
            Self::RequestCancel => "request_cancel",
            Self::AcknowledgeCancel => "acknowledge_cancel",
            Self::ForceKill => "force_kill",
            Self::RescuePending => "rescue_pending",
            Self::RescueLost => "rescue_lost",
            Self::RescueKilled => "rescue_killed",
            Self::Release => "release",
            Self::RequestTimeOut => "request_time_out",
            Self::TimeOut => "time_out",
            Self::Retry => "retry",
            Self::Annotate => "annotate",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Holds one row of [`TRANSITIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The number of the act; the outcomes of one act share it.
    pub number: u8,
    /// What happens.
    pub event: Event,
    /// The statuses it may happen in; empty when there is no run yet.
    pub from: &'static [RunStatus],
    /// Where it leads; `None` when the status stays as it is.
    pub to: Option<RunStatus>,
    /// The end reason it leaves unless the caller names one; `Some` exactly for the events
    /// that end a run.
    pub end_reason: Option<EndReason>,
    /// What else must hold, checked in the same statement that writes.
    pub guard: &'static str,
    /// What else it does.
    pub effect: &'static str,
}

/// How a run moves: every event once, with where it is allowed and where it leads.
///
/// An unknown status is in no row: it allows nothing.
pub const TRANSITIONS: &[Transition] = {
    use RunStatus::{Completed, Failed, Killed, Pending, Running};
    &[
        Transition {
            number: 1,
            event: Event::Create,
            from: &[],
            to: Some(Pending),
            end_reason: None,
            guard: "id unused; idempotency key unused; unique key not held by a run that has not ended",
            effect: "answers created, existing (the same request) or a conflict (another request)",
        },
        Transition {
            number: 2,
            event: Event::Claim,
            from: &[Pending],
            to: Some(Running),
            end_reason: None,
            guard: "due, and no cancel intent; checked where runs are chosen and again where they are written",
            effect: "token + 1, attempt + 1, owner, lease expiry, the first started_at",
        },
        Transition {
            number: 3,
            event: Event::Renew,
            from: &[Running],
            to: None,
            end_reason: None,
            guard: "token, and lease not expired",
            effect: "new lease expiry; the reply carries the cancel intent",
        },
        Transition {
            number: 4,
            event: Event::Complete,
            from: &[Running],
            to: Some(Completed),
            end_reason: Some(EndReason::Succeeded),
            guard: "token, and lease not expired",
            effect: "wins over a waiting cancel intent",
        },
        Transition {
            number: 5,
            event: Event::FailRetry,
            from: &[Running],
            to: Some(Pending),
            end_reason: None,
            guard: "token, attempts left, no cancel intent",
            effect: "the back-off goes into available_at",
        },
        Transition {
            number: 5,
            event: Event::Fail,
            from: &[Running],
            to: Some(Failed),
            end_reason: Some(EndReason::Error),
            guard: "token, no attempt left, no cancel intent",
            effect: "",
        },
        Transition {
            number: 5,
            event: Event::FailCancelled,
            from: &[Running],
            to: Some(Killed),
            end_reason: Some(EndReason::Killed),
            guard: "token, and a cancel intent",
            effect: "",
        },
        Transition {
            number: 6,
            event: Event::CancelBeforeStart,
            from: &[Pending],
            to: Some(Killed),
            end_reason: Some(EndReason::CancelledBeforeStart),
            guard: "",
            effect: "",
        },
        Transition {
            number: 7,
            event: Event::RequestCancel,
            from: &[Running],
            to: None,
            end_reason: None,
            guard: "",
            effect: "records the intent; repeatable; graceful may become forced, never back",
        },
        Transition {
            number: 8,
            event: Event::AcknowledgeCancel,
            from: &[Running],
            to: Some(Killed),
            end_reason: Some(EndReason::Killed),
            guard: "token",
            effect: "",
        },
        Transition {
            number: 9,
            event: Event::ForceKill,
            from: &[Running],
            to: Some(Killed),
            end_reason: Some(EndReason::Killed),
            guard: "no token needed",
            effect: "token + 1: the old owner is fenced",
        },
        Transition {
            number: 10,
            event: Event::RescuePending,
            from: &[Running],
            to: Some(Pending),
            end_reason: None,
            guard: "the observed token; lease expired or owner proven dead; attempts left, no cancel intent",
            effect: "in small batches",
        },
        Transition {
            number: 10,
            event: Event::RescueLost,
            from: &[Running],
            to: Some(Failed),
            end_reason: Some(EndReason::Lost),
            guard: "the observed token; lease expired or owner proven dead; no attempt left, no cancel intent",
            effect: "in small batches",
        },
        Transition {
            number: 10,
            event: Event::RescueKilled,
            from: &[Running],
            to: Some(Killed),
            end_reason: Some(EndReason::Killed),
            guard: "the observed token; lease expired or owner proven dead; a cancel intent",
            effect: "in small batches",
        },
        Transition {
            number: 11,
            event: Event::Release,
            from: &[Running],
            to: Some(Pending),
            end_reason: None,
            guard: "token, no cancel intent",
            effect: "the attempt is not counted; with a cancel intent the owner acknowledges it instead",
        },
        Transition {
            number: 12,
            event: Event::RequestTimeOut,
            from: &[Running],
            to: None,
            end_reason: None,
            guard: "deadline < now",
            effect: "records a cancel intent whose reason is the deadline",
        },
        Transition {
            number: 12,
            event: Event::TimeOut,
            from: &[Pending, Running],
            to: Some(Failed),
            end_reason: Some(EndReason::TimedOut),
            guard: "deadline < now; when running, that intent was recorded first and its own deadline has passed or the owner stopped",
            effect: "when running, token + 1: the old owner is fenced",
        },
        Transition {
            number: 13,
            event: Event::Retry,
            from: &[Completed, Failed, Killed],
            to: None,
            end_reason: None,
            guard: "",
            effect: "a new run whose retry_of names this one; this one stays as it ended",
        },
        Transition {
            number: 14,
            event: Event::Annotate,
            from: &[Pending, Running, Completed, Failed, Killed],
            to: None,
            end_reason: None,
            guard: "",
            effect: "worktree facts, metadata, tags, usage; allowed after the end",
        },
    ]
};

impl RunStatus {
    /// Returns the status an event leads to.
    ///
    /// This is the pure half of a transition. The other half, the guard, is checked by the
    /// statement that writes: a caller that is allowed here may still lose there.
    ///
    /// # Errors
    ///
    /// [`TransitionError`] when the event is not allowed in this status. Its kind tells
    /// whether the status already is where the event would lead.
    ///
    /// # Examples
    ///
    /// ```
    /// use runtree_status::{Event, RunStatus, TransitionErrorKind};
    ///
    /// assert_eq!(RunStatus::Pending.apply(Event::Claim), Ok(RunStatus::Running));
    ///
    /// let refused = RunStatus::Completed.apply(Event::ForceKill).unwrap_err();
    /// assert_eq!(refused.kind(), TransitionErrorKind::Invalid);
    /// let again = RunStatus::Killed.apply(Event::ForceKill).unwrap_err();
    /// assert_eq!(again.kind(), TransitionErrorKind::NoOp);
    /// ```
    pub fn apply(self, event: Event) -> Result<Self, TransitionError> {
        let transition = event.transition();
        if transition.from.contains(&self) {
            return Ok(transition.to.unwrap_or(self));
        }
        let kind = if transition.to == Some(self) {
            TransitionErrorKind::NoOp
        } else {
            TransitionErrorKind::Invalid
        };
        Err(TransitionError {
            kind,
            status: self,
            event,
        })
    }
}

/// Tells that an event is not allowed in a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} ({event}, {status})", self.kind.describe())]
pub struct TransitionError {
    kind: TransitionErrorKind,
    status: RunStatus,
    event: Event,
}

impl TransitionError {
    /// Returns whether the event would have changed anything.
    #[must_use]
    pub const fn kind(&self) -> TransitionErrorKind {
        self.kind
    }

    /// Returns the status the run was in.
    #[must_use]
    pub const fn status(&self) -> RunStatus {
        self.status
    }

    /// Returns the event that was refused.
    #[must_use]
    pub const fn event(&self) -> Event {
        self.event
    }
}

/// Says why an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransitionErrorKind {
    /// The status already is where the event would lead. Treat a repeated ending as done;
    /// whether it was this caller's doing, the fencing token tells, not the status. A claim is
    /// never repeated: a run that already runs is somebody else's.
    NoOp,
    /// The event is not allowed in this status. Read the run again and give up the event.
    Invalid,
}

impl TransitionErrorKind {
    const fn describe(self) -> &'static str {
        match self {
            Self::NoOp => "the run already is where the event leads",
            Self::Invalid => "the event is not allowed in this status",
        }
    }
}

const _: () = {
    let mut at = 0;
    while at < TRANSITIONS.len() {
        assert!(
            TRANSITIONS[at].event as usize == at,
            "the rows stand in the order of the events"
        );
        at += 1;
    }
    assert!(
        Event::Annotate as usize + 1 == TRANSITIONS.len(),
        "every event has a row"
    );
};
