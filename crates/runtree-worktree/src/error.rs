//! The crate's one error type, sorted by what the caller does next.

use std::{error::Error as StdError, fmt, io, path::Path};

/// What went wrong, sorted by what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The path is in no git repository. Fix the path.
    NotARepository,
    /// The git repository belongs to another user and is not trusted. Fix its owner, or list it in git's `safe.directory`.
    Untrusted,
    /// The git repository has no main worktree. Open a repository that is not bare.
    Bare,
    /// The git repository has no commit yet. Make a first commit.
    NoCommit,
    /// The git repository keeps its references or objects in a form this crate cannot read (reftable). Give up, or convert it.
    UnsupportedFormat,
    /// The revision names no commit. Fix the revision.
    RevisionNotFound,
    /// The root for worktrees is in a place where their files would be lost or tracked. Choose another root.
    UnsafeRoot,
    /// A file or directory may not be written. Fix its permissions.
    ReadOnly,
    /// A branch of that name exists. Choose another name, or ask for the existing branch.
    BranchExists,
    /// No branch has that name. Fix the name, or ask for a new branch.
    BranchNotFound,
    /// The branch is checked out, or reserved by a rebase or bisect, in another worktree. Choose another branch, or wait.
    BranchCheckedOut,
    /// The branch no longer points where it did. Read it again and decide anew.
    BranchMoved,
    /// Something exists where the worktree should go. Choose another name.
    PathExists,
    /// A worktree of that name is registered. Choose another name.
    NameTaken,
    /// An earlier operation on that name was cut short. Call `recover`, then retry.
    Unfinished,
    /// No worktree of ours has that name. Give up, or fix the name.
    NotFound,
    /// The worktree was made under another ownership. Leave it alone.
    NotOurs,
    /// The worktree is locked; the message names by whom and why. Leave it locked, or take the lock off first.
    Locked,
    /// Another operation works on it right now. Retry later.
    Busy,
    /// The caller's interrupt was triggered and everything begun was undone. Retry when wanted.
    Interrupted,
    /// The step observer stopped the operation and everything begun was undone. Retry when wanted.
    Stopped,
    /// No salvage has that name. Fix the name.
    SalvageNotFound,
    /// The salvage cannot be read back, or was changed since. Tell a person; nothing was removed.
    SalvageCorrupt,
    /// The worktree holds unresolved conflicts or an operation in progress. Finish that first.
    Conflicted,
    /// A git repository lies inside the worktree, so its files cannot be committed here. Move it, or ignore it.
    NestedRepository,
    /// A value does not have the form it must have. Fix the input.
    InvalidInput,
    /// One of our own files does not have the form we wrote. Tell a person; nothing was removed.
    Corrupt,
    /// The file system refused. Look at the source; retry when it is mended.
    Io,
    /// Reading or writing git's data failed. Look at the source; retry when it is mended.
    Git,
}

/// Why an operation failed: its [`ErrorKind`], a sentence fragment, and the cause.
pub struct WorktreeError(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What every call here answers.
pub type Result<T, E = WorktreeError> = std::result::Result<T, E>;

impl WorktreeError {
    /// Returns what the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
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

    /// Tells that `action` failed on `path`.
    pub(crate) fn io(action: &str, path: &Path, source: io::Error) -> Self {
        let kind = if refuses_writing(&source) {
            ErrorKind::ReadOnly
        } else {
            ErrorKind::Io
        };
        Self::new(kind, format!("cannot {action} {}", path.display())).with_source(source)
    }

    /// Tells that `action` failed inside git's data.
    pub(crate) fn git(
        action: impl fmt::Display,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let kind = if chain_has_permission_error(source.as_ref()) {
            ErrorKind::ReadOnly
        } else {
            ErrorKind::Git
        };
        Self::new(kind, format!("cannot {action}")).with_source(source)
    }
}

fn refuses_writing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn chain_has_permission_error(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && refuses_writing(io)
        {
            return true;
        }
        next = error.source();
    }
    false
}

impl fmt::Debug for WorktreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorktreeError")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for WorktreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for WorktreeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}
