//! What a caller asks for: requests and their options.

use std::collections::BTreeSet;

use runtree_id::{BranchName, CommitId, DirectoryName};
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    names::{Ownership, Reason},
    report::RepoPath,
    steps::Interrupt,
};

/// What a new worktree has checked out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checkout {
    /// A branch that does not exist yet, made at the base commit.
    NewBranch(BranchName),
    /// A branch that exists and is checked out nowhere; it must point to the base commit.
    Existing(BranchName),
    /// No branch: the base commit itself.
    Detached,
}

/// A request for a new worktree.
///
/// # Examples
///
/// ```
/// # use runtree_worktree::{AddWorktree, Checkout, Ownership, Reason};
/// # use runtree_id::{BranchName, CommitId, DirectoryName};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let base = "0123456789012345678901234567890123456789".parse::<CommitId>()?;
/// let request = AddWorktree::new(
///     "fix-login".parse::<DirectoryName>()?,
///     Checkout::NewBranch("runtree/fix-login".parse::<BranchName>()?),
///     base,
///     Ownership::new("run_1/1")?,
/// )
/// .reason(Reason::new("builder")?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AddWorktree {
    pub(crate) name: DirectoryName,
    pub(crate) checkout: Checkout,
    pub(crate) base: CommitId,
    pub(crate) ownership: Ownership,
    pub(crate) reason: Reason,
    pub(crate) persistent: bool,
    pub(crate) interrupt: Interrupt,
}

impl AddWorktree {
    /// Asks for the worktree `name` at `base`, owned by `ownership`.
    pub fn new(
        name: DirectoryName,
        checkout: Checkout,
        base: CommitId,
        ownership: Ownership,
    ) -> Self {
        Self {
            name,
            checkout,
            base,
            ownership,
            reason: Reason::none(),
            persistent: false,
            interrupt: Interrupt::new(),
        }
    }

    /// States why the worktree exists; people see it beside git's lock.
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// Marks the worktree as one to keep: `remove` refuses it until [`RemoveWorktree::persistent`] is asked for too.
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Lets `interrupt` stop the operation early.
    pub fn interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }
}

/// What becomes of the branch when its worktree goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BranchPolicy {
    /// Delete the branch if all of this holds, else keep it:
    ///
    /// - we made it, and nobody deleted, renamed or made it anew since;
    /// - it is checked out nowhere;
    /// - others hold its commits. While it never moved from the commit it was made at, any other branch, remote-tracking branch or tag
    ///   counts. Once it moved, only a remote-tracking branch, a tag, or the branch that the main worktree has checked out does.
    ///
    /// The stash, prefetched references and salvages never count.
    #[default]
    DeleteMerged,
    /// Keep the branch.
    Keep,
}

/// What to do about a merge, rebase, cherry-pick, revert, bisect or unresolved conflict in a worktree that should go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InProgressPolicy {
    /// Keep the worktree.
    #[default]
    Keep,
    /// Save the operation's state with everything else, and go on.
    Salvage,
}

/// Names of ignored files and directories that may go without being saved.
///
/// An entry without a slash (`target`) names a file or directory at any depth; one with a slash (`web/dist`) a path from the
/// worktree's top. Only what git ignores is ever taken for disposable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Disposable(BTreeSet<String>);

impl Disposable {
    /// Makes the empty list: everything is saved.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes a list of names and paths.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an empty entry, an absolute one, and one with an empty, `.` or `..` component.
    pub fn new<I>(entries: I) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut list = BTreeSet::new();
        for entry in entries {
            let entry: String = entry.into();
            let path = entry.strip_suffix('/').unwrap_or(&entry);
            if path
                .split('/')
                .any(|part| matches!(part, "" | "." | ".." | ".git"))
            {
                return Err(WorktreeError::new(
                    ErrorKind::InvalidInput,
                    format!("not a name or relative path of disposable files: {entry:?}"),
                ));
            }
            list.insert(path.to_owned());
        }
        Ok(Self(list))
    }

    /// Tells whether the ignored file or directory at `path` is on the list.
    #[must_use]
    pub fn covers(&self, path: &RepoPath) -> bool {
        let Ok(path) = std::str::from_utf8(path.as_bytes()) else {
            return false;
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        self.0.contains(name) || self.0.contains(path)
    }
}

/// A request to save and remove a worktree, or to plan that.
#[derive(Clone, Debug)]
#[must_use]
pub struct RemoveWorktree {
    pub(crate) name: DirectoryName,
    pub(crate) ownership: Ownership,
    pub(crate) branch: BranchPolicy,
    pub(crate) in_progress: InProgressPolicy,
    pub(crate) disposable: Disposable,
    pub(crate) persistent: bool,
}

impl RemoveWorktree {
    /// Asks for the worktree `name` to go, if it was made under `ownership`.
    pub fn new(name: DirectoryName, ownership: Ownership) -> Self {
        Self {
            name,
            ownership,
            branch: BranchPolicy::default(),
            in_progress: InProgressPolicy::default(),
            disposable: Disposable::none(),
            persistent: false,
        }
    }

    /// States what becomes of the branch.
    pub fn branch(mut self, policy: BranchPolicy) -> Self {
        self.branch = policy;
        self
    }

    /// States what to do about an operation in progress.
    pub fn in_progress(mut self, policy: InProgressPolicy) -> Self {
        self.in_progress = policy;
        self
    }

    /// Lists the ignored files that need not be saved.
    pub fn disposable(mut self, disposable: Disposable) -> Self {
        self.disposable = disposable;
        self
    }

    /// Removes the worktree even though it was added as persistent.
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }
}

/// Which branch a restored worktree has checked out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreBranch {
    /// As it was: the same branch if it had one (made again if it is gone), else detached.
    #[default]
    AsItWas,
    /// A new branch at the saved HEAD.
    New(BranchName),
    /// No branch.
    Detached,
}

/// A request to make a worktree again from a salvage.
#[derive(Clone, Debug)]
#[must_use]
pub struct RestoreWorktree {
    pub(crate) name: DirectoryName,
    pub(crate) branch: RestoreBranch,
    pub(crate) ownership: Ownership,
    pub(crate) reason: Reason,
    pub(crate) persistent: bool,
    pub(crate) interrupt: Interrupt,
}

impl RestoreWorktree {
    /// Asks for the saved state to become the worktree `name`, owned by `ownership`.
    pub fn new(name: DirectoryName, ownership: Ownership) -> Self {
        Self {
            name,
            branch: RestoreBranch::default(),
            ownership,
            reason: Reason::none(),
            persistent: false,
            interrupt: Interrupt::new(),
        }
    }

    /// States which branch is checked out.
    pub fn branch(mut self, branch: RestoreBranch) -> Self {
        self.branch = branch;
        self
    }

    /// States why the worktree exists.
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// Marks the worktree as one to keep.
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Lets `interrupt` stop the operation early.
    pub fn interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }
}

/// Who made a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    name: String,
    email: String,
}

impl Author {
    /// Takes a name and an address as git writes them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when either is empty or holds `<`, `>` or a control character.
    pub fn new(name: impl Into<String>, email: impl Into<String>) -> Result<Self> {
        let author = Self {
            name: name.into(),
            email: email.into(),
        };
        for text in [&author.name, &author.email] {
            if text.trim().is_empty()
                || text.contains(['<', '>'])
                || text.chars().any(char::is_control)
            {
                return Err(WorktreeError::new(
                    ErrorKind::InvalidInput,
                    format!("not a name or address for a commit: {text:?}"),
                ));
            }
        }
        Ok(author)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address.
    #[must_use]
    pub fn email(&self) -> &str {
        &self.email
    }
}

/// A request to commit everything in a worktree that git does not ignore.
#[derive(Clone, Debug)]
#[must_use]
pub struct CommitRequest {
    pub(crate) message: String,
    pub(crate) author: Author,
    pub(crate) time: Option<Timestamp>,
}

impl CommitRequest {
    /// Asks for a commit with `message` by `author`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the message is blank or holds a NUL.
    pub fn new(message: impl Into<String>, author: Author) -> Result<Self> {
        let message = message.into();
        if message.trim().is_empty() || message.contains('\0') {
            return Err(WorktreeError::new(
                ErrorKind::InvalidInput,
                format!("not a commit message: {message:?}"),
            ));
        }
        Ok(Self {
            message,
            author,
            time: None,
        })
    }

    /// Dates the commit; by default it is the clock's present instant.
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disposable_matches_names_anywhere_and_paths_from_the_top() {
        let list = Disposable::new(["target/", "web/dist"]).unwrap();
        for (path, covered) in [
            ("target", true),
            ("crates/a/target", true),
            ("targets", false),
            ("web/dist", true),
            ("app/web/dist", false),
            ("dist", false),
        ] {
            assert_eq!(list.covers(&RepoPath::from_bytes(path)), covered, "{path}");
        }
        for bad in ["", "/", "/abs", "a//b", "..", "a/../b", ".git"] {
            assert!(Disposable::new([bad]).is_err(), "{bad:?}");
        }
    }
}
