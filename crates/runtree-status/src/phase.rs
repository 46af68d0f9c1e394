//! What people see of a run, computed in one place from what is stored.

use std::fmt;

use crate::reason::EndReason;
use crate::status::RunStatus;
use crate::word::Word;

/// Holds what [`phase`] looks at: five facts of a stored run.
///
/// It has no default and may gain fields: a new fact must make every caller answer, because
/// a fact left out would decide silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseInput {
    /// The stored status.
    pub status: RunStatus,
    /// Whether `available_at` is not after now.
    pub is_due: bool,
    /// Whether a cancel intent is recorded.
    pub is_cancel_requested: bool,
    /// Whether `ended_at` is set. This, not the status, says that a run has ended.
    pub has_ended: bool,
    /// The stored end reason.
    pub end_reason: Option<EndReason>,
}

/// Says how a run appears to people. Computed by [`phase`], never stored.
///
/// # Examples
///
/// ```
/// use runtree_status::{Phase, PhaseInput, RunStatus, phase};
///
/// let stored = PhaseInput {
///     status: RunStatus::Pending,
///     is_due: false,
///     is_cancel_requested: false,
///     has_ended: false,
///     end_reason: None,
/// };
/// assert_eq!(phase(&stored), Phase::Scheduled);
/// assert_eq!(phase(&PhaseInput { is_due: true, ..stored }), Phase::Queued);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It waits for its time: delayed, or backing off before another attempt.
    Scheduled,
    /// It is due and waits for an owner.
    Queued,
    /// An owner works on it.
    Running,
    /// It is wanted to stop and has not yet.
    Cancelling,
    /// It has ended.
    Ended(EndReason),
    /// Its status says nothing this version can act on; the word is shown as it is stored.
    Unknown(Word),
}

impl Phase {
    /// Returns the phase's name, without the word of its ending.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Ended(_) => "ended",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Writes the name, and in brackets the end reason or the unknown word.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduled | Self::Queued | Self::Running | Self::Cancelling => f.pad(self.name()),
            Self::Ended(reason) => f.pad(&format!("ended ({reason})")),
            Self::Unknown(word) => f.pad(&format!("unknown ({word})")),
        }
    }
}

/// Computes what people see of a run.
///
/// `ended_at` decides first. An ended run without a reason shows the one its status implies,
/// an unknown status as it is, and `unspecified` where the word would say what nobody recorded.
/// A run that has not ended although its status is an ending, which no transition makes,
/// shows its word as unknown rather than a guess.
#[must_use]
pub fn phase(run: &PhaseInput) -> Phase {
    if run.has_ended {
        let reason = run.end_reason;
        return Phase::Ended(reason.unwrap_or_else(|| EndReason::implied_by(run.status)));
    }
    match run.status {
        RunStatus::Pending | RunStatus::Running if run.is_cancel_requested => Phase::Cancelling,
        RunStatus::Pending if run.is_due => Phase::Queued,
        RunStatus::Pending => Phase::Scheduled,
        RunStatus::Running => Phase::Running,
        RunStatus::Completed | RunStatus::Failed | RunStatus::Killed | RunStatus::Unknown(_) => {
            Phase::Unknown(run.status.to_word())
        }
    }
}
