//! What the record knows of a run's worktree, and the durable wish to clean it up.

use std::time::Duration;

use runtree_id::{DirectoryName, RunId};
use runtree_status::Word;
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, RepositoryError};
use crate::lease::{LeaseTime, Limit, Owner, Token};
use crate::request::WantedWorktree;
use crate::text::{ErrorText, HostName, HostPath, Reason, SalvageRef};

/// Where worktrees are made: on which machine, of which git repository, below which directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorktreeSite {
    /// The machine.
    pub host: HostName,
    /// The common directory of the git repository.
    pub git_repository: HostPath,
    /// The directory that the worktrees' directories are in.
    pub root: HostPath,
}

impl WorktreeSite {
    /// Refuses a root that leaves no room for the longest name of a worktree: names are not known before a claim, and a claim must
    /// not plan a path that nobody can read back.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the length and the limit.
    pub fn check(&self) -> Result<(), RepositoryError> {
        const MOST: usize = HostPath::MAX_BYTES - DirectoryName::MAX_BYTES;
        let root = self.root.as_str();
        let bytes = root.len() + usize::from(!root.ends_with('/'));
        if bytes > MOST {
            return Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!(
                    "the root of worktrees has {bytes} bytes with its slash, which leaves no room for a name; at most {MOST} are allowed"
                ),
            ));
        }
        Ok(())
    }

    /// Returns where a worktree of this name is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the path is too long.
    pub fn path_of(&self, name: &DirectoryName) -> Result<HostPath, RepositoryError> {
        HostPath::from_path(&self.root.as_path().join(name.as_str()))
    }
}

/// Names one worktree among all that a run ever had: the token under which it was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorktreeKey {
    /// The run.
    pub run: RunId,
    /// The token of the claim that planned it.
    pub planned_by: Token,
}

/// Where a worktree stands, as far as the record knows.
///
/// The set is open: a state that a newer version wrote is read, shown and kept as its word, and no clean-up touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum WorktreeState {
    /// Planned; it may exist in part.
    Adding,
    /// Checked out.
    Ready,
    /// Left in place after the run: it is persistent, or removing it was refused.
    Kept,
    /// Gone; what was in it and in no surviving ref is under the salvage ref.
    Removed,
    /// A state of a newer version.
    Other(Word),
}

impl WorktreeState {
    /// Every state that this version knows.
    pub const KNOWN: &[Self] = &[Self::Adding, Self::Ready, Self::Kept, Self::Removed];

    /// Returns the word that is stored.
    pub const fn as_str(&self) -> &str {
        match self {
            Self::Adding => "adding",
            Self::Ready => "ready",
            Self::Kept => "kept",
            Self::Removed => "removed",
            Self::Other(word) => word.as_str(),
        }
    }

    /// Reads a stored word; one that this version does not know is kept as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a text that is no word.
    pub fn from_stored(text: &str) -> Result<Self, RepositoryError> {
        if let Some(state) = Self::KNOWN.iter().find(|state| state.as_str() == text) {
            return Ok(*state);
        }
        Word::new(text).map(Self::Other).map_err(|error| {
            RepositoryError::new(ErrorKind::Corrupt, "a stored worktree state is not a word")
                .with_source(error)
        })
    }
}

impl Serialize for WorktreeState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Reads as [`from_stored`](WorktreeState::from_stored) does.
impl<'de> Deserialize<'de> for WorktreeState {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::from_stored(&word).map_err(serde::de::Error::custom)
    }
}

/// What the record knows of one worktree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorktreeRecord {
    /// Which one.
    pub key: WorktreeKey,
    /// Where it is made.
    pub site: WorktreeSite,
    /// Its directory.
    pub path: HostPath,
    /// Its name, branch, base and persistence.
    pub wanted: WantedWorktree,
    /// Where it stands.
    pub state: WorktreeState,
    /// The token of the claim that holds it now.
    pub held_by: Token,
    /// What was saved from it.
    pub salvage: Option<SalvageRef>,
    /// Why it was kept.
    pub reason: Option<Reason>,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When this record last changed.
    pub updated_at: Timestamp,
}

/// Which worktrees to list. All of them: a list that stops early would make the rest look like orphans.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorktreeQuery {
    /// Those of this machine and git repository that are not removed.
    Site {
        /// The machine.
        host: HostName,
        /// The git repository.
        git_repository: HostPath,
    },
    /// All that this run ever had.
    Run(RunId),
}

/// A wish to clean up worktrees of ended runs.
#[derive(Clone, Debug)]
pub struct CleanupClaim {
    /// Who asks.
    pub owner: Owner,
    /// For how long.
    pub lease_time: LeaseTime,
    /// How many at most.
    pub limit: Limit,
    /// The machine whose worktrees it can reach.
    pub host: HostName,
    /// The git repository.
    pub git_repository: HostPath,
    /// Only this run's; none takes any that is due.
    pub run: Option<RunId>,
}

/// What the one who cleans up shows with every write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CleanupRef {
    /// Which worktree.
    pub worktree: WorktreeKey,
    /// The token of this clean-up's own lease.
    pub token: Token,
}

/// A clean-up that now belongs to the claimer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CleanupTask {
    /// What to show with every write.
    pub cleanup: CleanupRef,
    /// The worktree as the record knows it.
    pub worktree: WorktreeRecord,
    /// How many tries there were before this one.
    pub tries: u32,
    /// When the lease ends.
    pub expires_at: Timestamp,
}

impl CleanupTask {
    /// Makes a task from its parts, as a backend reads them.
    pub fn new(
        cleanup: CleanupRef,
        worktree: WorktreeRecord,
        tries: u32,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            cleanup,
            worktree,
            tries,
            expires_at,
        }
    }
}

/// A clean-up that somebody holds, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CleanupLease {
    /// Which clean-up, and under which token.
    pub cleanup: CleanupRef,
    /// Who holds it.
    pub owner: Owner,
    /// When the hold ends by itself.
    pub expires_at: Timestamp,
}

impl CleanupLease {
    /// Makes a lease from its parts, as a backend reads them.
    pub fn new(cleanup: CleanupRef, owner: Owner, expires_at: Timestamp) -> Self {
        Self {
            cleanup,
            owner,
            expires_at,
        }
    }
}

/// How a clean-up went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CleanupOutcome {
    /// The worktree is gone.
    Removed {
        /// What was saved from it; none when there was nothing to save.
        salvage: Option<SalvageRef>,
    },
    /// The worktree stays: removing it would not be safe.
    Kept {
        /// Why.
        reason: Reason,
    },
    /// It did not work this time.
    Postponed {
        /// What went wrong.
        error: ErrorText,
        /// How long to wait before the next try.
        retry_after: Duration,
    },
}
