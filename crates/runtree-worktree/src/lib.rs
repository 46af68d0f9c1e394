//! The life of a git worktree: added whole, listed, locked, salvaged, removed, restored.
//!
//! ```
//! use runtree_worktree::{AddWorktree, Checkout, Ownership, RemoveWorktree, Worktrees};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let fixture = runtree_testkit::git::GitFixture::new();
//! # let checkout = fixture.path();
//! let worktrees = Worktrees::open(checkout)?;
//! let owner = Ownership::new("run_1/1")?;
//!
//! // A branch, a directory and a registration: all of them, or none.
//! let worktree = worktrees.add(&AddWorktree::new(
//!     "fix-login".parse()?,
//!     Checkout::NewBranch("runtree/fix-login".parse()?),
//!     worktrees.resolve("HEAD")?,
//!     owner.clone(),
//! ))?;
//! std::fs::write(worktree.path().join("notes"), "not committed")?;
//!
//! // What nothing else holds is saved before anything goes.
//! let removal = worktrees.remove(&RemoveWorktree::new(worktree.name().clone(), owner))?;
//! assert!(removal.is_gone());
//! let salvage = worktrees.salvage(&removal.salvage.expect("there was a file to save"))?;
//! assert_eq!(salvage.files[0].path.to_string(), "notes");
//! # Ok(())
//! # }
//! ```
//!
//! # Main types
//!
//! - [`Worktrees`]: the handle on one git repository; all calls are its methods. They block, so an asynchronous caller keeps them off
//!   its workers.
//! - [`AddWorktree`], [`RemoveWorktree`], [`RestoreWorktree`], [`CommitRequest`]: what is asked for. A worktree is made under an
//!   [`Ownership`], an opaque token, and goes only under the same one.
//! - [`Worktree`], [`ListedWorktree`], [`Inspection`], [`Removal`], [`Salvage`], [`Recovered`]: what is answered. That a worktree is kept,
//!   with a [`KeepReason`], is an answer and no error.
//! - [`StepObserver`]: hears of every durable step, so that a test can stop at each.
//!
//! How a salvage is stored is told in [`mod@format`].
//!
//! # What it does not do
//!
//! It starts no git program (a filter that the repository configures is started as git does), fetches nothing, runs no hooks, signs
//! nothing, updates no submodules, and knows neither runs nor an asynchronous runtime. It adds no worktrees to bare repositories, reads no
//! reftable, and makes no sparse checkouts. It never prunes: only its own registrations go.
//!
//! # Guarantees
//!
//! - No git process sees a half-registered worktree of ours. A crash at any step is finished or undone by [`Worktrees::recover`], and
//!   branch, registration and directory go together.
//! - Nothing is removed that we did not make: token, both directories' identities and the links between them must agree. The main
//!   worktree, locked, foreign, nested, busy and doubtful ones stay, and the report says why.
//! - Before a worktree goes, everything in it that a surviving reference does not hold is saved, synced to the disk and read back:
//!   modified, staged, untracked, ignored, conflicted and hidden files, commits that only a detached HEAD, a reflog or a private
//!   reference holds, and on request operations in progress. What changes in between calls the removal off.
//! - A plan and the removal it foretells are one report type, from one look.
//! - A lock is never replaced by one of ours, and of many callers of [`Worktrees::lock`] one gets it. Plain git looks and then writes, so
//!   its `git worktree lock` may write over a lock that came in between.
//! - Shared configuration, hooks, the stash and other worktrees are not written to.
//!
//! # Limits
//!
//! - Unix only: identities, links and locks rest on its file systems.
//! - Locks (`flock`) hold between the processes of one machine. On a network file system two machines exclude each other only as far as it
//!   passes such locks on.
//! - A process that keeps a file of the worktree open can write to it until its last byte is deleted; one whose directory lies inside, where the system tells, keeps
//!   the worktree.
//! - Owners, times, extended attributes and hard links of files are not saved.
//! - A new worktree does not take over another one's `config.worktree`.
//!
//! # Features
//!
//! None.
//!
//! # Alternatives
//!
//! `git worktree`, where a person watches and one process at a time runs. `gix` has the same operations without locks on adding, without
//! salvage and without recovery; this crate uses its objects, references, index, checkout and filters.

mod branch;
mod checkout;
mod commit;
mod error;
mod files;
pub mod format;
mod inspect;
mod layout;
mod lock;
mod making;
mod names;
mod record;
mod recover;
mod refs;
mod registry;
mod remove;
mod report;
mod repository;
mod request;
mod restore;
mod salvage;
mod scan;
mod snapshot;
mod state;
mod steps;
mod tree;

pub use error::{ErrorKind, Result, WorktreeError};
pub use names::{LockHolder, Ownership, Reason, SalvageRef};
pub use report::{
    BranchFate, Dirt, DirtyFile, Head, InProgress, Inspection, KeepReason, ListedWorktree,
    Liveness, Outcome, Probe, Recovered, Recovery, Removal, RepoPath, Salvage, Whose, Worktree,
};
pub use repository::{ConfigScope, Worktrees, WorktreesBuilder};
pub use request::{
    AddWorktree, Author, BranchPolicy, Checkout, CommitRequest, Disposable, InProgressPolicy,
    RemoveWorktree, RestoreBranch, RestoreWorktree,
};
pub use steps::{Interrupt, Onward, Operation, Step, StepObserver};
