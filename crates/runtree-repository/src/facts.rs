//! What is known of a run's work beside where it stands: who does it, what it changed in git, what it cost.

use std::fmt;

use runtree_id::CommitId;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, RepositoryError};
use crate::text::{AgentType, ChangedPath, GitRepositoryName, ModelName, SessionName};

/// What lists show of a run's work. Everything may be unknown; what is known is told by [`Annotation`](crate::Annotation).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunFacts {
    /// What kind of agent does the work.
    pub agent: Option<AgentType>,
    /// The model that the agent uses.
    pub model: Option<ModelName>,
    /// What people call the session.
    pub session_name: Option<SessionName>,
    /// The git repository that the work is about, as the host names it.
    pub git_repository: Option<GitRepositoryName>,
    /// The commit that the work began at.
    pub first_commit: Option<CommitId>,
    /// The commit that the work ended at.
    pub last_commit: Option<CommitId>,
    /// How much lies between the two.
    pub diff: Option<DiffStatistics>,
}

impl RunFacts {
    /// Tells whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How much a change changes, as `git diff --shortstat` counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DiffStatistics {
    /// How many files differ.
    pub files: u32,
    /// How many lines were added.
    pub added: u32,
    /// How many lines were removed.
    pub removed: u32,
}

/// How much of one file was changed, as `git diff --numstat` counts it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileChange {
    /// The file, from the top of the working tree.
    pub path: ChangedPath,
    /// How many lines were added; none for a binary file.
    pub added: Option<u32>,
    /// How many lines were removed; none for a binary file.
    pub removed: Option<u32>,
}

/// The most files of which a run keeps single counts.
pub const MAX_FILE_CHANGES: usize = 10_000;

/// The most bytes that the paths of all these files may have together: 4 MiB.
pub const MAX_FILE_CHANGES_BYTES: usize = 4_194_304;

/// What a run used up.
///
/// Each number is at most `2^53 - 1`, so that every reader of JSON keeps it whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens that a model read.
    pub input_tokens: u64,
    /// Tokens that a model wrote.
    pub output_tokens: u64,
    /// What it cost.
    pub cost: Cost,
}

impl Usage {
    /// The largest value of each number.
    pub const MAX: u64 = (1 << 53) - 1;

    /// Returns the tokens of both kinds.
    pub const fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// Refuses numbers beyond the limit.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the number.
    pub fn check(&self) -> Result<(), RepositoryError> {
        let numbers = [
            ("input tokens", self.input_tokens),
            ("output tokens", self.output_tokens),
            ("cost", self.cost.micros()),
        ];
        match numbers.into_iter().find(|(_, number)| *number > Self::MAX) {
            Some((what, number)) => Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!("the {what} are {number}, at most {} are allowed", Self::MAX),
            )),
            None => Ok(()),
        }
    }

    /// Adds two usages; a sum beyond the limit stays at the limit.
    #[must_use]
    pub fn plus(&self, more: &Self) -> Self {
        let add = |one: u64, other: u64| one.saturating_add(other).min(Self::MAX);
        Self {
            input_tokens: add(self.input_tokens, more.input_tokens),
            output_tokens: add(self.output_tokens, more.output_tokens),
            cost: Cost::from_micros(add(self.cost.micros(), more.cost.micros())),
        }
    }
}

/// An amount of money in millionths of the host's unit, such as micro-dollars. The unit is the host's own, one for a namespace.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cost(u64);

impl Cost {
    /// Takes millionths of the unit.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the millionths of the unit.
    pub const fn micros(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_has_limits_and_sums_stay_within_them() {
        let most = Usage {
            input_tokens: Usage::MAX,
            output_tokens: 1,
            cost: Cost::from_micros(1_500_000),
        };
        assert!(most.check().is_ok());
        let sum = most.plus(&most);
        assert_eq!((sum.input_tokens, sum.output_tokens), (Usage::MAX, 2));
        assert_eq!(sum.cost.to_string(), "3.000000");
        let beyond = Usage {
            output_tokens: Usage::MAX + 1,
            ..most
        };
        let error = beyond.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("output tokens"), "{error}");
    }
}
