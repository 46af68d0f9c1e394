//! Why a run ended, as an open set of words.

use crate::open_set::open_set;
use crate::status::RunStatus;
use crate::word::Word;

open_set! {
    what = "an end reason";
    /// Names an end reason's word as a literal, as [`status_word!`](crate::status_word) does a status's.
    ///
    /// # Examples
    ///
    /// ```
    /// use runtree_status::{EndReason, end_reason_word};
    ///
    /// assert_eq!(end_reason_word!(TimedOut), EndReason::TimedOut.as_str());
    /// ```
    words = end_reason_word;
    /// Says why a run ended.
    ///
    /// The set is open: a host, or a newer version, may end runs for reasons of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use runtree_status::{EndReason, RunStatus};
    ///
    /// assert_eq!(EndReason::TimedOut.as_str(), "timed_out");
    /// assert_eq!(EndReason::TimedOut.status(), Some(RunStatus::Failed));
    /// assert_eq!(EndReason::from_stored("budget_spent")?.status(), None);
    /// # Ok::<(), runtree_status::WordError>(())
    /// ```
    pub enum EndReason {
        /// It did what it was asked.
        Succeeded = "succeeded",
        /// It reported an error and had no attempt left.
        Error = "error",
        /// Its deadline passed.
        TimedOut = "timed_out",
        /// Its owner died or fell silent, and it had no attempt left.
        Lost = "lost",
        /// It was cancelled before anyone had claimed it.
        CancelledBeforeStart = "cancelled_before_start",
        /// It was stopped while it ran.
        Killed = "killed",
    }
    otherwise {
        /// A reason of the host's, or of a newer version.
        Other(OtherReason),
    }
}

impl EndReason {
    /// Returns the status that a run ended for this reason has; `None` for a reason this
    /// version does not know, which goes with any ended status.
    #[must_use]
    pub const fn status(&self) -> Option<RunStatus> {
        match self {
            Self::Succeeded => Some(RunStatus::Completed),
            Self::Error | Self::TimedOut | Self::Lost => Some(RunStatus::Failed),
            Self::CancelledBeforeStart | Self::Killed => Some(RunStatus::Killed),
            Self::Other(_) => None,
        }
    }

    /// Returns the reason that stands for an ending of which only the status was recorded.
    pub(crate) fn implied_by(status: RunStatus) -> Self {
        match status {
            RunStatus::Completed => Self::Succeeded,
            RunStatus::Failed => Self::Error,
            RunStatus::Killed => Self::Killed,
            // The word of a newer version may say more than this version knows, but an
            // unknown status must not turn into a reason that is known.
            RunStatus::Unknown(word) => {
                OtherReason::new(word.word()).map_or(Self::UNSPECIFIED, Self::Other)
            }
            RunStatus::Pending | RunStatus::Running => Self::UNSPECIFIED,
        }
    }

    /// The word for an ending of which nothing was recorded but that it was.
    const UNSPECIFIED: Self = Self::Other(OtherReason(Word::known("unspecified")));
}
