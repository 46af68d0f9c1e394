//! The facade's one error: what failed, of which run, and what its caller does next.

use std::error::Error as StdError;
use std::fmt;

use runtree_id::RunId;
use runtree_repository::RepositoryError;
use runtree_worktree::WorktreeError;

/// Why a call of the coordinator failed.
///
/// Opaque but for its [`kind`](Self::kind) and the [`run`](Self::run) it speaks of; what caused it is kept as
/// [`source`](StdError::source).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    run: Option<RunId>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of failure it was; each says what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value is not allowed: a name, a revision, a time range. Nothing was begun. Fix the input.
    InvalidInput,
    /// Another request holds the key. Nothing was begun. Use another key, or ask for the run that exists.
    Conflict,
    /// The request was made before and its run is owned, has ended, or is not due yet. Look at [`Error::run`].
    AlreadyStarted,
    /// There is no such run, salvage or worktree. Fix the id.
    NotFound,
    /// The run is no longer this owner's: its lease expired, it was killed by force, or it ended. Stop its work, and touch neither
    /// its record nor its worktree again.
    Lost,
    /// The git repository cannot be used as it is: not a repository, bare, without a commit, read-only. Mend it as the message
    /// says.
    GitRepository,
    /// A branch, directory or registration stands in the way. Choose another name, or remove it.
    InTheWay,
    /// An operation on a worktree failed. The run's record has the reason; what was begun was undone or is undone by
    /// [`Coordinator::recover`](crate::Coordinator::recover). Look at the source.
    Worktree,
    /// A child process could not be started or ended. Look at the source.
    Process,
    /// The run repository is busy or does not answer. Retry with back-off; a start only with an idempotency key, which finds the run
    /// that the first call may have made.
    Unavailable,
    /// The run repository cannot be used as it is: its file, server, schema or permissions. Mend it as the message says.
    RunRepository,
    /// A defect: of this crate, or of stored data. Tell a person.
    Internal,
}

/// What every call here answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            run: None,
            source: None,
        }))
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn of(mut self, run: RunId) -> Self {
        self.0.run.get_or_insert(run);
        self
    }

    /// Returns what kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the run that it speaks of.
    pub fn run(&self) -> Option<RunId> {
        self.0.run
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("run", &self.0.run)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref();
        source.map(|source| source as &(dyn StdError + 'static))
    }
}

/// Takes an error of the run repository over, with its own words.
impl From<RepositoryError> for Error {
    fn from(error: RepositoryError) -> Self {
        use runtree_repository::ErrorKind as Store;
        let kind = match error.kind() {
            Store::InvalidInput => ErrorKind::InvalidInput,
            Store::Conflict => ErrorKind::Conflict,
            Store::Busy | Store::Unavailable => ErrorKind::Unavailable,
            Store::ReadOnly | Store::SchemaTooNew | Store::Configuration | Store::Unsupported => {
                ErrorKind::RunRepository
            }
            Store::Corrupt | Store::Internal | _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

/// Takes an error of the worktrees over, with its own words.
impl From<WorktreeError> for Error {
    fn from(error: WorktreeError) -> Self {
        use runtree_worktree::ErrorKind as Tree;
        let kind = match error.kind() {
            Tree::InvalidInput | Tree::RevisionNotFound | Tree::UnsafeRoot => {
                ErrorKind::InvalidInput
            }
            Tree::NotARepository
            | Tree::Untrusted
            | Tree::Bare
            | Tree::NoCommit
            | Tree::UnsupportedFormat
            | Tree::ReadOnly => ErrorKind::GitRepository,
            Tree::BranchExists | Tree::BranchCheckedOut | Tree::PathExists | Tree::NameTaken => {
                ErrorKind::InTheWay
            }
            Tree::NotFound | Tree::BranchNotFound | Tree::SalvageNotFound => ErrorKind::NotFound,
            Tree::BranchMoved
            | Tree::Unfinished
            | Tree::NotOurs
            | Tree::Locked
            | Tree::Busy
            | Tree::Interrupted
            | Tree::Stopped
            | Tree::SalvageCorrupt
            | Tree::Conflicted
            | Tree::NestedRepository
            | Tree::Corrupt
            | Tree::Io
            | Tree::Git
            | _ => ErrorKind::Worktree,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}
