//! How a run, its worktree and its branch are named after each other.

use runtree_id::{BranchName, DirectoryName, RunId, Slug};
use runtree_process::Mark;
use runtree_repository::{LeaseRef, Token, WorkflowName, WorktreeKey};
use runtree_worktree::Ownership;

use crate::error::{Error, ErrorKind, Result};

/// Names the directory of a run's worktree, which is also the name of its registration in git.
pub(crate) fn directory(workflow: &WorkflowName, run: RunId) -> DirectoryName {
    DirectoryName::for_run(&Slug::from_text(workflow.as_str()), run)
}

/// Names the branch of a run that asked for none.
pub(crate) fn branch(workflow: &WorkflowName, run: RunId) -> BranchName {
    BranchName::for_run(&Slug::from_text(workflow.as_str()), run)
}

/// The token under which a worktree is made: `<run id>/<number of the claim that planned it>`.
///
/// It is in the worktree's registration and in its salvage, so that both lead back to the record.
pub(crate) fn ownership(key: WorktreeKey) -> Result<Ownership> {
    Ok(Ownership::new(format!("{}/{}", key.run, key.planned_by))?)
}

/// Marks the processes of an attempt: `<run id>.<token>`.
pub(crate) fn mark(lease: LeaseRef) -> Result<Mark> {
    let mark = format!("{}.{}", lease.run, lease.token).parse();
    mark.map_err(|e: runtree_process::Error| {
        Error::new(ErrorKind::Internal, e.to_string()).with_source(e)
    })
}

/// Reads a token that [`ownership`] wrote; none for any other.
pub(crate) fn key_of(ownership: &Ownership) -> Option<WorktreeKey> {
    let (run, number) = ownership.as_str().split_once('/')?;
    let key = WorktreeKey {
        run: run.parse().ok()?,
        planned_by: Token::new(number.parse().ok()?),
    };
    // One spelling only: what reads back otherwise is not ours.
    (format!("{}/{}", key.run, key.planned_by) == ownership.as_str()).then_some(key)
}
