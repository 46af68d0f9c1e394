//! The durable steps of each operation by name, and the hook that lets a test stop at any of them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::error::{ErrorKind, Result, WorktreeError};

/// An operation of more than one durable step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Making a worktree.
    Add,
    /// Making a worktree again from a salvage.
    Restore,
    /// Saving and removing a worktree.
    Remove,
}

/// A durable step; the observer hears of it just after it became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// The intent, with the ownership, is in the staging directory.
    Intent,
    /// The branch exists.
    Branch,
    /// The worktree's directory exists and holds its `.git` file.
    Directory,
    /// The administrative directory is complete in staging.
    Admin,
    /// The administrative directory is in place: git sees the worktree, locked.
    Registered,
    /// The files are checked out and the index is written.
    CheckedOut,
    /// The salvaged state is written over the checkout.
    Filled,
    /// The mark that the worktree is whole is written.
    Ready,
    /// What no surviving reference holds is saved, read back and named by a reference.
    Salvaged,
    /// The intent to remove is recorded in the administrative directory.
    Journalled,
    /// The worktree's directory was renamed to the trash.
    Trashed,
    /// The trash was found to hold just what was salvaged; from here on it is deleted.
    Rescanned,
    /// The files are gone.
    Deleted,
    /// The registration was moved out of git's sight.
    Unregistered,
    /// The branch was deleted, or kept by policy.
    BranchSettled,
    /// The last trace of the registration is gone.
    Finished,
}

impl Operation {
    /// Lists the operation's steps in order.
    #[must_use]
    pub fn steps(self) -> &'static [Step] {
        match self {
            Self::Add => &[
                Step::Intent,
                Step::Branch,
                Step::Directory,
                Step::Admin,
                Step::Registered,
                Step::CheckedOut,
                Step::Ready,
            ],
            Self::Restore => &[
                Step::Intent,
                Step::Branch,
                Step::Directory,
                Step::Admin,
                Step::Registered,
                Step::CheckedOut,
                Step::Filled,
                Step::Ready,
            ],
            Self::Remove => &[
                Step::Salvaged,
                Step::Journalled,
                Step::Trashed,
                Step::Rescanned,
                Step::Deleted,
                Step::Unregistered,
                Step::BranchSettled,
                Step::Finished,
            ],
        }
    }
}

/// What the observer wants done after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Onward {
    /// Go on.
    Continue,
    /// Fail here, as an error of the file system would.
    Fail,
}

/// Hears of each durable step; for tests that stop at one.
pub trait StepObserver: fmt::Debug + Send + Sync {
    /// Is called just after `step` of `operation` became durable.
    fn reached(&self, operation: Operation, step: Step) -> Onward;
}

/// A wish to stop early that can be made from another thread; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Makes an interrupt that is not triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the operations that were handed this interrupt to stop and undo what they began.
    pub fn trigger(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Tells whether [`trigger`](Self::trigger) was called.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_triggered() {
            return Err(WorktreeError::new(
                ErrorKind::Interrupted,
                "interrupted by the caller",
            ));
        }
        Ok(())
    }
}

/// Tells an optional observer of one operation's steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journey<'a> {
    pub(crate) operation: Operation,
    pub(crate) observer: Option<&'a dyn StepObserver>,
}

impl Journey<'_> {
    pub(crate) fn reached(&self, step: Step) -> Result<()> {
        let Some(observer) = self.observer else {
            return Ok(());
        };
        match observer.reached(self.operation, step) {
            Onward::Continue => Ok(()),
            Onward::Fail => Err(WorktreeError::new(
                ErrorKind::Stopped,
                format!(
                    "stopped by the observer after {:?} of {:?}",
                    step, self.operation
                ),
            )),
        }
    }
}
