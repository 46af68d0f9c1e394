//! The history of a run: what was done to it, in order, rejected writes included.

use std::fmt;

use runtree_status::Word;
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ErrorKind, RepositoryError};
use crate::lease::Token;

/// The place of an event among its run's events: 1, 2, 3 and so on, without a gap.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventNumber(u32);

impl EventNumber {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// Takes a stored number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What happened.
        ///
        /// The set is open: a kind that a newer version wrote is read and shown as its word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $name,)*
            /// A kind of a newer version.
            Other(Word),
        }

        impl EventKind {
            /// Every kind that this version knows.
            pub const KNOWN: &[Self] = &[$(Self::$name,)*];

            /// Returns the word that is stored.
            pub const fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $word,)*
                    Self::Other(word) => word.as_str(),
                }
            }
        }
    };
}

event_kinds! {
    /// The run was created.
    Created = "created",
    /// An owner claimed it.
    Claimed = "claimed",
    /// Its worktree is checked out.
    WorktreeReady = "worktree_ready",
    /// Its work is done.
    Completed = "completed",
    /// It failed for good.
    Failed = "failed",
    /// An attempt failed, another follows.
    RetryPlanned = "retry_planned",
    /// Somebody wants it to stop.
    CancelRequested = "cancel_requested",
    /// It was stopped because somebody wanted it to.
    Killed = "killed",
    /// Its deadline passed, and it was asked to stop.
    DeadlinePassed = "deadline_passed",
    /// Facts, usage, tags or metadata were changed.
    Annotated = "annotated",
    /// A new run was made from it.
    Retried = "retried",
    /// Its owner gave it back without counting the attempt.
    Released = "released",
    /// Its owner was dead or silent, and it was taken away from it.
    Rescued = "rescued",
    /// A write was rejected: it came from an owner that no longer owns the run.
    Rejected = "rejected",
    /// Its worktree is to be cleaned up.
    CleanupWanted = "cleanup_wanted",
    /// Its worktree is gone.
    WorktreeRemoved = "worktree_removed",
    /// Its worktree stays.
    WorktreeKept = "worktree_kept",
    /// A try to clean up did not work.
    CleanupPostponed = "cleanup_postponed",
}

impl EventKind {
    /// Reads a stored word; one that this version does not know is kept as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a text that is no word.
    pub fn from_stored(text: &str) -> Result<Self, RepositoryError> {
        if let Some(kind) = Self::KNOWN.iter().find(|kind| kind.as_str() == text) {
            return Ok(*kind);
        }
        Word::new(text).map(Self::Other).map_err(|error| {
            RepositoryError::new(ErrorKind::Corrupt, "a stored event kind is not a word")
                .with_source(error)
        })
    }
}

impl Serialize for EventKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Reads as [`from_stored`](EventKind::from_stored) does.
impl<'de> Deserialize<'de> for EventKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::from_stored(&word).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that happened to a run.
///
/// # What the details say
/// People read them, and so do programs that follow a run; the public suite holds every backend to those of the first rows.
///
/// | kind | detail |
/// |---|---|
/// | `claimed` | `{"attempt": 1, "owner": "..", "host": ".."}`: which attempt it is, and who makes it |
/// | `completed`, `failed`, `killed` | `{"reason": ".."}`: the word of the end reason |
/// | `rescued` | `{"to": ".."}`: the word of the status that it was taken to |
/// | `retried` | `{"run": ".."}`: the new run |
/// | `rejected` | `{"event": ".."}`: what was tried, as the transition table calls it |
/// | `worktree_removed` | `{"salvage": ".."}`: the ref of what was saved, or null |
/// | `worktree_kept` | `{"reason": ".."}`: why a clean-up left it; none where it was wanted to stay |
/// | `cleanup_postponed` | `{"error": ".."}` |
/// | `cancel_requested` | `{"mode": "..", "by": ".."}`: who, or null |
/// | `retry_planned` | `{"available_at": ".."}`: the instant of the next attempt |
///
/// The others have none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Its place among the run's events.
    pub number: EventNumber,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// The token that the run had then, or that the rejected write showed.
    pub token: Token,
    /// More: an end reason, an error, who asked. [What they say](Self#what-the-details-say) depends on the kind.
    pub detail: Option<Value>,
}
