//! The second half of a run's life: salvage, removal, and the record of both.

use std::time::Duration;

use runtree_id::RunId;
use runtree_repository::{
    CleanupClaim, CleanupOutcome, CleanupTask, ErrorText, Persistence, Reason, Run, SalvageRef,
    WorktreeQuery, WorktreeRecord, WorktreeState, Write,
};
use runtree_worktree::{KeepReason, Outcome, Removal, RemoveWorktree};

use crate::coordinator::Inner;
use crate::error::{ErrorKind, Result};
use crate::names;
use crate::owner::Identity;
use crate::start::with_sources;

/// The first pause after a clean-up that did not work; it doubles with each try, up to an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// What became of one worktree after its run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CleanedUp {
    /// The worktree as the record knows it now.
    pub worktree: WorktreeRecord,
    /// What was done.
    pub fate: WorktreeFate,
}

/// What a clean-up did about a worktree.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WorktreeFate {
    /// It is gone.
    Removed(Box<Removal>),
    /// It stays: removing it would not be safe.
    Kept(KeepReason),
    /// It stays because it is persistent, and is unlocked for whoever wants it.
    Persistent,
    /// It did not work this time and is tried again.
    Postponed {
        /// What went wrong.
        error: String,
    },
}

impl Inner {
    /// Cleans up after one run that has just ended; what does not work waits for the next recovery.
    pub(crate) async fn clean_up_after(&self, run: &Run) -> Vec<CleanedUp> {
        if !run.has_ended() {
            return Vec::new();
        }
        let mut left = Vec::new();
        let cleaned_up = self.clean_up(Some(run.id), &mut left).await;
        let mut done = cleaned_up.unwrap_or_else(|error| {
            left.push(error.to_string());
            Vec::new()
        });
        match self.unlock_persistent(run).await {
            Ok(persistent) => done.extend(persistent),
            Err(error) => left.push(error.to_string()),
        }
        for error in left {
            tracing::warn!(run = %run.id, error, "the clean-up waits for the next recovery");
        }
        done
    }

    /// Takes the clean-ups that are due on this host, one run's or any, and does them.
    ///
    /// Each is leased, so that no two processes clean up the same worktree. What cannot be done to one is told in `left` and does not
    /// keep the others from being done.
    pub(crate) async fn clean_up(
        &self,
        run: Option<RunId>,
        left: &mut Vec<String>,
    ) -> Result<Vec<CleanedUp>> {
        let claim = CleanupClaim {
            owner: self.me.owner.clone(),
            lease_time: self.me.lease_time,
            limit: Identity::BATCH,
            host: self.me.site.host.clone(),
            git_repository: self.me.site.git_repository.clone(),
            run,
        };
        let mut done = Vec::new();
        for task in self.runs.claim_cleanups(&claim).await? {
            match self.clean_up_one(&task).await {
                Ok(cleaned_up) => done.push(cleaned_up),
                Err(error) => {
                    let path = &task.worktree.path;
                    left.push(format!("the worktree {path} is not cleaned up: {error}"));
                }
            }
        }
        Ok(done)
    }

    async fn clean_up_one(&self, task: &CleanupTask) -> Result<CleanedUp> {
        let (fate, outcome) = match self.remove(&task.worktree).await {
            Ok(removal) => judge(removal, task.tries)?,
            Err(error) => {
                let error = with_sources(&error);
                let outcome = CleanupOutcome::Postponed {
                    error: ErrorText::lossy(&error),
                    retry_after: pause_after(task.tries),
                };
                (WorktreeFate::Postponed { error }, outcome)
            }
        };
        let answer = self
            .persist(|| self.runs.finish_cleanup(task.cleanup, &outcome))
            .await?;
        let worktree = match answer {
            Write::Applied(record) | Write::Already(record) => record,
            // Somebody took it over while we worked; what we did, they find done.
            Write::Stale { .. } | Write::NotFound => task.worktree.clone(),
        };
        Ok(CleanedUp { worktree, fate })
    }

    async fn remove(&self, record: &WorktreeRecord) -> Result<Removal> {
        let request =
            RemoveWorktree::new(record.wanted.name.clone(), names::ownership(record.key)?);
        self.git(move |worktrees| worktrees.remove(&request)).await
    }

    /// Lets people use the persistent worktrees of a run with git's own commands.
    async fn unlock_persistent(&self, run: &Run) -> Result<Vec<CleanedUp>> {
        let mut unlocked = Vec::new();
        for worktree in self.runs.worktrees(&WorktreeQuery::Run(run.id)).await? {
            if worktree.site == self.me.site && is_for_people(&worktree) {
                self.unlock(&worktree).await?;
                let fate = WorktreeFate::Persistent;
                unlocked.push(CleanedUp { worktree, fate });
            }
        }
        Ok(unlocked)
    }

    /// Unlocks the persistent worktrees of this site whose owners did not come to it.
    pub(crate) async fn unlock_kept(&self, left: &mut Vec<String>) -> Result<()> {
        let query = WorktreeQuery::Site {
            host: self.me.site.host.clone(),
            git_repository: self.me.site.git_repository.clone(),
        };
        for worktree in self.runs.worktrees(&query).await? {
            if !is_for_people(&worktree) {
                continue;
            }
            match self.unlock(&worktree).await {
                Ok(()) => {}
                // People may have removed it, which is theirs to do.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let path = &worktree.path;
                    left.push(format!("the worktree {path} is still locked: {error}"));
                }
            }
        }
        Ok(())
    }

    async fn unlock(&self, worktree: &WorktreeRecord) -> Result<()> {
        let name = worktree.wanted.name.clone();
        let ownership = names::ownership(worktree.key)?;
        // What somebody locked by request since stays locked.
        self.git(move |worktrees| worktrees.release(&name, &ownership))
            .await?;
        Ok(())
    }
}

/// Tells whether a worktree was left to people when its run ended.
fn is_for_people(worktree: &WorktreeRecord) -> bool {
    worktree.state == WorktreeState::Kept && worktree.wanted.persistence == Persistence::Persistent
}

/// Says what a removal means for the record.
fn judge(removal: Removal, tries: u32) -> Result<(WorktreeFate, CleanupOutcome)> {
    if let Outcome::Kept(reason) = &removal.outcome {
        let reason = reason.clone();
        let text = reason.to_string();
        if is_passing(&reason) {
            let outcome = CleanupOutcome::Postponed {
                error: ErrorText::lossy(&text),
                retry_after: pause_after(tries),
            };
            return Ok((WorktreeFate::Postponed { error: text }, outcome));
        }
        let outcome = CleanupOutcome::Kept {
            reason: Reason::lossy(&text),
        };
        return Ok((WorktreeFate::Kept(reason), outcome));
    }
    let salvage = match &removal.salvage {
        Some(salvage) => Some(SalvageRef::new(salvage.as_str())?),
        None => None,
    };
    Ok((
        WorktreeFate::Removed(Box::new(removal)),
        CleanupOutcome::Removed { salvage },
    ))
}

/// Tells whether what keeps a worktree is likely to pass by itself.
fn is_passing(reason: &KeepReason) -> bool {
    matches!(
        reason,
        KeepReason::Busy
            | KeepReason::InUse { .. }
            | KeepReason::LockFile(_)
            | KeepReason::Changed(_)
            | KeepReason::SalvageFailed(_)
            | KeepReason::Unknown(_)
            | KeepReason::NotReady
    )
}

fn pause_after(tries: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(tries.min(20)));
    doubled.min(LONGEST_PAUSE)
}
