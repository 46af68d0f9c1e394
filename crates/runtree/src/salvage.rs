//! What was saved from worktrees before they went, by run; and how it comes back.

use runtree_id::RunId;
use runtree_worktree::{Reason, RestoreWorktree, Salvage, Worktree};

use crate::coordinator::Coordinator;
use crate::error::{Error, ErrorKind, Result};
use crate::names;

/// What was saved from a worktree of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedWork {
    /// The run.
    pub run: RunId,
    /// What was saved.
    pub salvage: Salvage,
}

impl Coordinator {
    /// Returns what was saved from the worktrees of runs, the oldest first. What somebody else saved is not in it.
    ///
    /// # Errors
    /// What git or the files answer.
    pub async fn saved_work(&self) -> Result<Vec<SavedWork>> {
        let salvages = self
            .inner
            .git(runtree_worktree::Worktrees::salvages)
            .await?;
        let mut saved: Vec<_> = salvages
            .into_iter()
            .filter_map(|salvage| {
                let run = names::key_of(&salvage.ownership)?.run;
                Some(SavedWork { run, salvage })
            })
            .collect();
        saved.sort_by_key(|saved| saved.salvage.saved_at);
        Ok(saved)
    }

    /// Makes a worktree again of what was saved last of a run, as it was: staged, unstaged and untracked.
    ///
    /// The salvage stays. The worktree belongs to the ended run; a later sweep removes it again, and saves what is new in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing was saved of this run; [`ErrorKind::InTheWay`] when its worktree is still there or is
    /// there again.
    pub async fn restore(&self, run: RunId) -> Result<Worktree> {
        let saved = self
            .saved_work()
            .await?
            .into_iter()
            .rev()
            .find(|saved| saved.run == run);
        let Some(SavedWork { salvage, .. }) = saved else {
            let message = format!("nothing was saved from a worktree of the run {run}");
            return Err(Error::new(ErrorKind::NotFound, message).of(run));
        };
        let reason = Reason::new(format!("restored from {run}"))?;
        let restored = self.inner.git(move |worktrees| {
            let request = RestoreWorktree::new(salvage.name.clone(), salvage.ownership.clone());
            let worktree = worktrees.restore(&salvage.reference, &request.reason(reason))?;
            // Nobody works in it under a lease, so people may use it with git's own commands.
            worktrees.unlock(worktree.name(), worktree.ownership())?;
            Ok(worktree)
        });
        restored.await.map_err(|error| error.of(run))
    }
}
