//! The five stored words of a run's status, open to the words of newer versions.

use crate::open_set::open_set;

open_set! {
    what = "a run status";
    /// Names a status's word as a literal, so that a statement of SQL can be put together from it while it is compiled.
    ///
    /// A status that does not exist is an error of the compiler.
    ///
    /// # Examples
    ///
    /// ```
    /// use runtree_status::{RunStatus, status_word};
    ///
    /// const CLAIMABLE: &str = concat!("status = '", status_word!(Pending), "'");
    /// assert_eq!(CLAIMABLE, "status = 'pending'");
    /// assert_eq!(status_word!(Running), RunStatus::Running.as_str());
    /// ```
    words = status_word;
    /// Says where a run stands, in the word that is stored.
    ///
    /// Everything else one is tempted to make a status is a column of its own: when the run
    /// becomes due, the wish to cancel it, why it ended, who holds its lease. What people
    /// see is computed from all of them by [`phase`](crate::phase).
    ///
    /// Ordered as declared here, for listings; unknown words come last, by their bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use runtree_status::RunStatus;
    ///
    /// const CLAIMABLE: &str = RunStatus::Pending.as_str();
    /// assert_eq!(CLAIMABLE, "pending");
    ///
    /// // What is stored is read tolerantly, what a person types is not.
    /// let stored = RunStatus::from_stored("paused_by_operator")?;
    /// assert_eq!(stored.as_str(), "paused_by_operator");
    /// assert!("paused_by_operator".parse::<RunStatus>().is_err());
    /// # Ok::<(), runtree_status::WordError>(())
    /// ```
    pub enum RunStatus {
        /// The run waits to be claimed. A claim moves it on, or a cancel before it starts.
        Pending = "pending",
        /// One owner holds the run under a lease. Its owner moves it on; when the owner is
        /// lost, a rescue does.
        Running = "running",
        /// The run did what it was asked. Nothing moves it on.
        Completed = "completed",
        /// The run ended without doing it; the [end reason](crate::EndReason) says why.
        /// Nothing moves it on: a retry is a new run.
        Failed = "failed",
        /// The run was ended by a wish to stop it. Nothing moves it on.
        Killed = "killed",
    }
    otherwise {
        /// A word of a newer version. It is read, listed and kept, and allows no event: such
        /// a run is never claimed, rescued, cleaned up or overwritten.
        Unknown(UnknownStatus),
    }
}

impl RunStatus {
    /// Returns what the word alone says about whether the run has ended; `None` for an
    /// unknown word, of which nothing is known.
    ///
    /// **Whether a run has ended is read from its `ended_at`, never from this.** The two
    /// agree for known words; only `ended_at` also speaks for the unknown ones.
    #[must_use]
    pub const fn is_ended(&self) -> Option<bool> {
        match self {
            Self::Pending | Self::Running => Some(false),
            Self::Completed | Self::Failed | Self::Killed => Some(true),
            Self::Unknown(_) => None,
        }
    }
}
