//! What a caller is told: worktrees, listings, inspections, removals, salvages, recoveries.

use std::{
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use runtree_id::{BranchName, CommitId, DirectoryName};
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{LockHolder, Ownership, SalvageRef};

/// A worktree of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worktree {
    pub(crate) name: DirectoryName,
    pub(crate) path: PathBuf,
    pub(crate) branch: Option<BranchName>,
    pub(crate) base: CommitId,
    pub(crate) ownership: Ownership,
    pub(crate) persistent: bool,
    pub(crate) created: Timestamp,
}

impl Worktree {
    /// Returns its name: that of its directory and of its registration.
    #[must_use]
    pub fn name(&self) -> &DirectoryName {
        &self.name
    }

    /// Returns where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the branch it was made with, none when it was made detached.
    #[must_use]
    pub fn branch(&self) -> Option<&BranchName> {
        self.branch.as_ref()
    }

    /// Returns the commit it was made at.
    #[must_use]
    pub fn base(&self) -> &CommitId {
        &self.base
    }

    /// Returns the token it was made under.
    #[must_use]
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Tells whether it was added as one to keep.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Returns when it was made.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.created
    }
}

/// A path inside a worktree as git writes it: bytes, relative, with `/` between its parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoPath(Vec<u8>);

impl RepoPath {
    /// Takes the bytes as they are.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path for the file system.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.0))
    }

    /// Returns the path of `name` below this one.
    pub(crate) fn join(&self, name: &[u8]) -> Self {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }
}

/// The reversible text form: `%XX` for the percent sign, control characters and what is not UTF-8.
impl From<RepoPath> for String {
    fn from(path: RepoPath) -> Self {
        let mut text = Self::new();
        for chunk in path.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                if char == '%' || char.is_ascii_control() {
                    text.push_str(&format!("%{:02X}", u32::from(char)));
                } else {
                    text.push(char);
                }
            }
            for byte in chunk.invalid() {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        text
    }
}

impl TryFrom<String> for RepoPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            if byte != b'%' {
                bytes.push(byte);
                rest = tail;
                continue;
            }
            let digits = tail
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or_else(|| format!("bad escape in path {text:?}"))?;
            bytes.push(digits);
            rest = &tail[2..];
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(self.clone()))
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from(self.clone()))
    }
}

/// What a worktree's HEAD names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Head {
    /// A branch (its full name, as a foreign worktree's need not be one we would make) and the commit it points to, if it has one yet.
    Branch {
        /// The full name of the reference.
        reference: String,
        /// The commit it points to; none on a branch without a commit.
        commit: Option<CommitId>,
    },
    /// A commit.
    Detached(CommitId),
    /// Nothing that could be read.
    Unreadable,
}

/// Whose a worktree is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Whose {
    /// The main worktree of the git repository (or the bare repository itself).
    Main,
    /// Ours, made under this token.
    Ours {
        /// The token.
        ownership: Ownership,
        /// Whether its making was finished.
        ready: bool,
    },
    /// Somebody else's.
    Foreign,
    /// It carries a token of ours that cannot be read.
    Unknown,
}

/// One line of git's list of worktrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedWorktree {
    pub(crate) id: Option<String>,
    pub(crate) path: PathBuf,
    pub(crate) head: Head,
    pub(crate) bare: bool,
    pub(crate) locked: Option<String>,
    pub(crate) prunable: Option<String>,
    pub(crate) corrupt: Option<String>,
    pub(crate) whose: Whose,
}

impl ListedWorktree {
    /// Returns the name of its registration; none for the main worktree.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns where its files are, or should be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what its HEAD names.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Tells whether this is a bare repository in the place of a main worktree.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// Returns the reason of its lock, if it is locked; the reason may be empty.
    #[must_use]
    pub fn locked(&self) -> Option<&str> {
        self.locked.as_deref()
    }

    /// Returns why git would prune it, if it would.
    #[must_use]
    pub fn prunable(&self) -> Option<&str> {
        self.prunable.as_deref()
    }

    /// Returns what is broken about its registration; git's own list hides such entries.
    #[must_use]
    pub fn corrupt(&self) -> Option<&str> {
        self.corrupt.as_deref()
    }

    /// Returns whose it is.
    #[must_use]
    pub fn whose(&self) -> &Whose {
        &self.whose
    }
}

/// The answer of one look: clean, dirty, or not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe<T> {
    /// There is nothing.
    Clean,
    /// There is something.
    Dirty(T),
    /// The look failed, for this reason; it counts as dirty wherever something might be lost.
    Unknown(String),
}

impl<T> Probe<T> {
    /// Tells whether the look succeeded and found nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Clean)
    }
}

/// How a file differs from what git holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Dirt {
    /// The index differs from HEAD.
    Staged,
    /// The file differs from the index.
    Modified,
    /// The file is in the index and not on disk.
    Deleted,
    /// The file is not in the index, and not ignored.
    Untracked,
    /// The file is not in the index, and ignored.
    Ignored,
    /// The index holds more than one side of it.
    Conflicted,
    /// The file is marked skip-worktree, is there, and differs from the index.
    SkipWorktree,
    /// The file is marked assume-unchanged, and differs from the index.
    AssumeUnchanged,
    /// The file was only announced to the index (`git add -N`).
    IntentToAdd,
}

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirtyFile {
    /// Where it is.
    pub path: RepoPath,
    /// How it differs.
    pub dirt: Dirt,
}

/// An operation that was begun in a worktree and not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InProgress {
    /// `git merge`.
    Merge,
    /// `git rebase`.
    Rebase,
    /// `git am`.
    ApplyMailbox,
    /// `git cherry-pick`.
    CherryPick,
    /// `git revert`.
    Revert,
    /// `git bisect`.
    Bisect,
    /// A sequence of picks or reverts.
    Sequencer,
}

/// Everything in a worktree that removing it would touch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Where its files are.
    pub path: PathBuf,
    /// What its HEAD names.
    pub head: Head,
    /// The files that differ, ordered by path; one file may appear with more than one kind.
    pub files: Probe<Vec<DirtyFile>>,
    /// The operations begun and not finished.
    pub in_progress: Probe<Vec<InProgress>>,
    /// Repositories, worktrees and initialised submodules inside, ignored or not.
    pub nested: Probe<Vec<RepoPath>>,
    /// Commits that only this worktree holds: by a detached HEAD, a reflog entry, a private reference or an operation in progress.
    pub only_here: Probe<Vec<CommitId>>,
    /// Lock files of git that some process holds or left behind.
    pub lock_files: Probe<Vec<String>>,
}

impl Inspection {
    /// Tells whether every look succeeded and found nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.files.is_clean()
            && self.in_progress.is_clean()
            && self.nested.is_clean()
            && self.only_here.is_clean()
            && self.lock_files.is_clean()
    }
}

/// Why a worktree was left where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepReason {
    /// It carries no token of ours.
    Foreign,
    /// It was made under another token.
    OwnedByOther(Ownership),
    /// It was added as one to keep.
    Persistent,
    /// Its making was not finished; `recover` deals with it.
    NotReady,
    /// It is locked, by somebody else or by [`lock`](crate::Worktrees::lock).
    Locked(String),
    /// Its directory is missing, and it cannot be told whether it is on a disk that is not mounted.
    DirectoryMissing,
    /// The directory or the registration is not the one we made.
    IdentityChanged,
    /// The `.git` file and the registration do not name each other.
    LinkMismatch,
    /// The path is one that is never removed: the main worktree, a forbidden place, a mount point.
    ProtectedPath(PathBuf),
    /// A file system is mounted inside.
    MountInside(PathBuf),
    /// A repository, worktree or initialised submodule lies inside.
    NestedRepository(RepoPath),
    /// An operation is in progress.
    InProgress(InProgress),
    /// The index holds unresolved conflicts.
    Conflicted(RepoPath),
    /// A lock file of git is there.
    LockFile(String),
    /// A process has its directory inside.
    InUse {
        /// The process.
        process_id: u32,
    },
    /// Another operation works on it.
    Busy,
    /// A file can neither be saved nor passed over: a socket, a pipe, a device, a name git refuses.
    CannotSave(RepoPath),
    /// A look at it failed, so what it holds is not known.
    Unknown(String),
    /// Saving failed.
    SalvageFailed(String),
    /// Something changed between the salvage and the removal; everything was put back.
    Changed(RepoPath),
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it was not made by runtree"),
            Self::OwnedByOther(owner) => write!(f, "it was made under {owner}"),
            Self::Persistent => f.write_str("it is persistent"),
            Self::NotReady => f.write_str("its making was not finished"),
            Self::Locked(reason) => write!(f, "it is locked: {reason}"),
            Self::DirectoryMissing => f.write_str("its directory is missing"),
            Self::IdentityChanged => f.write_str("its directory is not the one that was made"),
            Self::LinkMismatch => {
                f.write_str("its .git file and its registration do not name each other")
            }
            Self::ProtectedPath(path) => {
                write!(f, "{} must never be removed", path.display())
            }
            Self::MountInside(path) => {
                write!(f, "a file system is mounted at {}", path.display())
            }
            Self::NestedRepository(path) => write!(f, "a git repository lies at {path}"),
            Self::InProgress(operation) => write!(f, "a {operation:?} is in progress"),
            Self::Conflicted(path) => write!(f, "{path} has unresolved conflicts"),
            Self::LockFile(name) => write!(f, "git's lock file {name} is there"),
            Self::InUse { process_id } => write!(f, "process {process_id} works in it"),
            Self::Busy => f.write_str("another operation works on it"),
            Self::CannotSave(path) => write!(f, "{path} cannot be saved"),
            Self::Unknown(why) => write!(f, "its state could not be read: {why}"),
            Self::SalvageFailed(why) => write!(f, "its state could not be saved: {why}"),
            Self::Changed(path) => write!(f, "{path} changed meanwhile"),
        }
    }
}

/// What a removal does to a branch, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BranchFate {
    /// There was none.
    None,
    /// It goes: surviving references hold its commits.
    Deleted(BranchName),
    /// It stays: its commits are on no surviving reference.
    KeptUnmerged(BranchName),
    /// It stays: the request says so.
    KeptByPolicy(BranchName),
    /// It stays: we did not make it, or it is checked out elsewhere, or it moved meanwhile.
    KeptForeign(BranchName),
    /// It was gone already.
    AlreadyGone(BranchName),
}

/// What a removal came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A plan: it would be removed.
    WouldRemove,
    /// It was removed.
    Removed,
    /// It was left as it is, for this reason.
    Kept(KeepReason),
    /// It is gone already: no registration has that name.
    AlreadyGone,
}

/// The report of a removal, and of the plan of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removal {
    /// The worktree's name.
    pub name: DirectoryName,
    /// Where its files are or were; none when nothing of that name is registered.
    pub path: Option<PathBuf>,
    /// What it came to.
    pub outcome: Outcome,
    /// The files that are saved, ordered by path.
    pub saved: Vec<DirtyFile>,
    /// The commits that are saved: those no surviving reference holds.
    pub saved_commits: Vec<CommitId>,
    /// Ignored files and directories that go without being saved, because the request lists them.
    pub disposed: Vec<RepoPath>,
    /// The reference under which everything was saved; none when nothing needs saving, and in a plan.
    pub salvage: Option<SalvageRef>,
    /// What becomes of the branch.
    pub branch: BranchFate,
}

impl Removal {
    /// Tells whether the worktree is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self.outcome {
            Outcome::Removed | Outcome::AlreadyGone => true,
            Outcome::WouldRemove | Outcome::Kept(_) => false,
        }
    }
}

/// What was saved from a worktree before it went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvage {
    /// The reference that holds it.
    pub reference: SalvageRef,
    /// The commit it points to.
    pub commit: CommitId,
    /// The worktree's name.
    pub name: DirectoryName,
    /// The token it was made under.
    pub ownership: Ownership,
    /// When it was saved.
    pub saved_at: Timestamp,
    /// What HEAD pointed to.
    pub head: CommitId,
    /// The branch that was checked out.
    pub branch: Option<BranchName>,
    /// The files saved, ordered by path.
    pub files: Vec<DirtyFile>,
    /// The commits that nothing else held.
    pub commits: Vec<CommitId>,
    /// The operations that were in progress.
    pub in_progress: Vec<InProgress>,
}

/// Whether the process that held a lock still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It lives.
    Alive,
    /// It is proven dead.
    Dead,
    /// It cannot be told; counts as alive.
    Unknown,
}

/// What a recovery did about one thing it found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// The making was undone: branch, registration and directory are gone.
    AddUndone,
    /// The removal was finished.
    RemovalFinished,
    /// The removal was called off and the worktree is back as it was.
    RemovalUndone,
    /// It was left as it is, for this reason.
    Kept(KeepReason),
}

/// One thing a crash left, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The worktree's name.
    pub name: String,
    /// The token it was made under; none when it could not be read.
    pub ownership: Option<Ownership>,
    /// Who held it.
    pub holder: Option<LockHolder>,
    /// What was done.
    pub recovery: Recovery,
    /// The reference under which something was saved on the way.
    pub salvage: Option<SalvageRef>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn path_text_is_reversible(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let path = RepoPath::from_bytes(bytes);
            let text = String::from(path.clone());
            prop_assert!(!text.chars().any(|char| char.is_ascii_control()));
            prop_assert_eq!(RepoPath::try_from(text).unwrap(), path);
        }
    }
}
