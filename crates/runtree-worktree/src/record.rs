//! What we write beside a registration: whose the worktree is, and what is being done with it.

use std::{
    ffi::OsStr,
    hash::{BuildHasher, RandomState},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use runtree_id::{BranchName, CommitId, DirectoryName};
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files::{self, Identity},
    layout::Ours,
    names::{LockHolder, Ownership, Reason, SalvageRef},
    report::{RepoPath, Worktree},
    request::{BranchPolicy, Disposable},
};

/// The ownership token of a worktree, with everything needed to undo a half-made one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) format: u32,
    pub(crate) name: DirectoryName,
    path: RepoPath,
    pub(crate) ownership: Ownership,
    pub(crate) holder: LockHolder,
    pub(crate) reason: Reason,
    pub(crate) persistent: bool,
    pub(crate) base: CommitId,
    pub(crate) branch: Option<BranchName>,
    /// Whether the branch is one that we make; `branch_made` tells that we did.
    pub(crate) makes_branch: bool,
    pub(crate) branch_made: bool,
    pub(crate) created: Timestamp,
    /// What no other making has, so that what this one made is known for its own.
    pub(crate) nonce: String,
    /// The worktree's directory, once it exists.
    pub(crate) directory: Option<Identity>,
    /// The administrative directory.
    pub(crate) admin: Option<Identity>,
    /// The salvage whose state is being restored.
    pub(crate) restores: Option<CommitId>,
}

/// The one format there is.
const FORMAT: u32 = 1;

/// What stands between ownership and holder in the lock a worktree is made with.
const MADE: &str = " held by ";

/// What stands there in a lock that was asked for.
const REQUESTED: &str = " locked by ";

impl Owner {
    pub(crate) fn new(worktree: Worktree, holder: LockHolder, reason: Reason) -> Self {
        Self {
            format: FORMAT,
            path: path_to_record(&worktree.path),
            name: worktree.name,
            ownership: worktree.ownership,
            holder,
            reason,
            persistent: worktree.persistent,
            base: worktree.base,
            branch: worktree.branch,
            makes_branch: false,
            branch_made: false,
            created: worktree.created,
            nonce: new_nonce(),
            directory: None,
            admin: None,
            restores: None,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        path_from_record(&self.path)
    }

    pub(crate) fn worktree(&self) -> Worktree {
        Worktree {
            name: self.name.clone(),
            path: self.path(),
            branch: self.branch.clone(),
            base: self.base,
            ownership: self.ownership.clone(),
            persistent: self.persistent,
            created: self.created,
        }
    }

    /// The text of git's `locked` file from the making of the worktree on; it does not keep us from removing it.
    pub(crate) fn lock_text(&self) -> String {
        self.lock_line(MADE, &self.holder, &self.reason)
    }

    /// The text of git's `locked` file when the worktree was locked by request, against us as well.
    pub(crate) fn requested_lock_text(&self, holder: &LockHolder, reason: &Reason) -> String {
        self.lock_line(REQUESTED, holder, reason)
    }

    fn lock_line(&self, how: &str, holder: &LockHolder, reason: &Reason) -> String {
        let mut text = format!("{}{}{how}{holder}", lock_prefix(), self.ownership);
        if !reason.as_str().is_empty() {
            text.push_str(": ");
            text.push_str(reason.as_str());
        }
        text
    }

    /// Tells whether git's lock with this text is the one from the making, for this ownership.
    pub(crate) fn made_lock(&self, text: &str) -> bool {
        self.is_lock(text, MADE)
    }

    /// Tells whether git's lock with this text was requested of us, for this ownership.
    pub(crate) fn requested_lock(&self, text: &str) -> bool {
        self.is_lock(text, REQUESTED)
    }

    fn is_lock(&self, text: &str, how: &str) -> bool {
        text.strip_prefix(&lock_prefix())
            .and_then(|rest| rest.strip_prefix(self.ownership.as_str()))
            .is_some_and(|rest| rest.starts_with(how))
    }

    /// The message in the reflog of a branch that we make, by which it is known for ours.
    pub(crate) fn branch_message(&self) -> String {
        format!("runtree: made for {} ({})", self.ownership, self.nonce)
    }

    /// Reads the token in an administrative directory; none if there is none.
    pub(crate) fn read(ours: &Ours) -> Result<Option<Self>> {
        let owner: Option<Self> = read(&ours.owner())?;
        match owner {
            Some(owner) if owner.format != FORMAT => Err(WorktreeError::new(
                ErrorKind::Corrupt,
                format!(
                    "unknown format {} of {}",
                    owner.format,
                    ours.owner().display()
                ),
            )),
            owner => Ok(owner),
        }
    }

    pub(crate) fn write(&self, ours: &Ours) -> Result<()> {
        write(&ours.owner(), self)
    }
}

/// Draws a number that is not drawn twice: the standard library seeds its hashers from the system's randomness, and never two alike.
fn new_nonce() -> String {
    let draw = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", draw(), draw())
}

fn lock_prefix() -> String {
    "runtree: ".to_owned()
}

/// The journal of a removal, written before anything is moved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Removing {
    /// Who removes it.
    pub(crate) holder: LockHolder,
    pub(crate) salvage: Option<SavedAs>,
    /// What the worktree held when it was saved; the trash must hold the same.
    pub(crate) fingerprint: String,
    /// The ignored files that may go unsaved.
    pub(crate) disposable: Disposable,
    pub(crate) delete_merged_branch: bool,
}

/// Which salvage holds what a worktree held.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedAs {
    pub(crate) reference: SalvageRef,
    pub(crate) commit: CommitId,
    /// Whether this removal made it, and did not find it as an earlier one had left it.
    pub(crate) made: bool,
}

impl Removing {
    pub(crate) fn read(ours: &Ours) -> Result<Option<Self>> {
        read(&ours.removing())
    }

    pub(crate) fn write(&self, ours: &Ours) -> Result<()> {
        write(&ours.removing(), self)
    }

    pub(crate) fn branch_policy(&self) -> BranchPolicy {
        if self.delete_merged_branch {
            BranchPolicy::DeleteMerged
        } else {
            BranchPolicy::Keep
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes =
        files::read_optional(path).map_err(|error| WorktreeError::io("read", path, error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        WorktreeError::new(
            ErrorKind::Corrupt,
            format!("{} does not hold what we wrote", path.display()),
        )
        .with_source(error)
    })
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| {
        WorktreeError::new(
            ErrorKind::Corrupt,
            format!("cannot encode {}", path.display()),
        )
        .with_source(error)
    })?;
    bytes.push(b'\n');
    files::replace(path, &bytes)
}

fn path_to_record(path: &Path) -> RepoPath {
    RepoPath::from_bytes(path.as_os_str().as_bytes())
}

fn path_from_record(path: &RepoPath) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.as_bytes()))
}
