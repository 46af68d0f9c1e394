//! Finishes or undoes what a crash left; the same steps as the normal way, started from what is found.

use std::time::Duration;

use runtree_process::{Liveness, ProcessGroupIdentity, ProcessIdentity, Stop};
use runtree_repository::{Lease, Limit, Overdue, Owner, Rescue, Rescued, RunSummary};
use runtree_worktree::{LockHolder, Recovered};

use crate::clean_up::CleanedUp;
use crate::coordinator::Inner;
use crate::error::Result;
use crate::names;

/// How long the work of a run has to stop by itself once the run's deadline has passed.
const DEADLINE_GRACE: Duration = Duration::from_secs(30);

/// What a recovery found, and what became of it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Runs that were taken away from owners that are dead or silent.
    pub rescued: Vec<Rescued>,
    /// Runs whose deadline has passed: asked to stop, or ended for it.
    pub overdue: Vec<RunSummary>,
    /// Worktrees whose making or removal was cut short.
    pub worktrees: Vec<Recovered>,
    /// Worktrees of ended runs.
    pub cleaned_up: Vec<CleanedUp>,
    /// What could not be done this time, and why; it is tried again by the next recovery.
    pub left: Vec<String>,
}

impl Recovery {
    /// Tells whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        self.rescued.is_empty()
            && self.overdue.is_empty()
            && self.worktrees.is_empty()
            && self.cleaned_up.is_empty()
            && self.left.is_empty()
    }
}

impl Inner {
    /// Recovers: first the processes, then the worktrees, then the records. A run of this host is taken up only when its processes
    /// are gone and what they had half made is finished or undone, so that the next owner finds neither.
    pub(crate) async fn recover(&self) -> Result<Recovery> {
        let mut recovery = Recovery::default();
        let rescue = self.end_orphans(&mut recovery.left).await?;
        recovery.worktrees = self.git(|worktrees| worktrees.recover(&probe)).await?;
        recovery.rescued = self.persist(|| self.runs.rescue(&rescue)).await?;
        let overdue = Overdue {
            limit: Limit::MAX,
            grace: DEADLINE_GRACE,
        };
        recovery.overdue = self.persist(|| self.runs.time_out(&overdue)).await?;
        self.free_dead_cleanups().await?;
        recovery.cleaned_up = self.clean_up(None, &mut recovery.left).await?;
        self.unlock_kept(&mut recovery.left).await?;
        if !recovery.is_empty() {
            tracing::info!(
                rescued = recovery.rescued.len(),
                overdue = recovery.overdue.len(),
                worktrees = recovery.worktrees.len(),
                cleaned_up = recovery.cleaned_up.len(),
                left = recovery.left.len(),
                "recovered"
            );
        }
        Ok(recovery)
    }

    /// Lets go of the clean-ups that were begun by processes of this host that are dead.
    async fn free_dead_cleanups(&self) -> Result<()> {
        let site = &self.me.site;
        let leases = self
            .runs
            .cleanup_leases(&site.host, &site.git_repository)
            .await?;
        let dead = leases.iter().filter(|lease| is_dead(&lease.owner));
        let dead: Vec<_> = dead.map(|lease| lease.cleanup).collect();
        if !dead.is_empty() {
            self.persist(|| self.runs.free_cleanups(&dead)).await?;
        }
        Ok(())
    }

    /// Ends the processes that dead or silent owners of this host left, and says which runs may be taken up: those of owners proven
    /// dead, and any expired one but those whose processes are not seen to be gone.
    async fn end_orphans(&self, left: &mut Vec<String>) -> Result<Rescue> {
        let now = self.runs.now().await?;
        let mut rescue = Rescue {
            limit: Limit::MAX,
            ..Rescue::default()
        };
        for lease in self.runs.leases(Some(&self.me.site.host)).await? {
            let is_dead = is_dead(&lease.owner);
            if !is_dead && lease.expires_at > now {
                continue;
            }
            match end_children(&lease).await {
                Ok(()) if is_dead => rescue.proven_dead.push(lease.lease),
                Ok(()) => {}
                Err(why) => {
                    rescue.spare.push(lease.lease.run);
                    left.push(why);
                }
            }
        }
        Ok(rescue)
    }
}

fn is_dead(owner: &Owner) -> bool {
    let process = owner.process.as_str().parse::<ProcessIdentity>();
    process.is_ok_and(|process| process.probe() == Liveness::Dead)
}

/// Ends the process groups that worked for an owner, recorded or only marked, and sees them gone.
pub(crate) async fn end_children(lease: &Lease) -> Result<(), String> {
    let run = lease.lease.run;
    let untold = |error: &dyn std::fmt::Display| {
        format!("the processes of the run {run} cannot be told: {error}")
    };
    let mark = names::mark(lease.lease).map_err(|error| untold(&error))?;
    // A system that cannot be searched for marks still knows the recorded group.
    let mut groups = match runtree_process::find_groups(&mark).await {
        Err(error) if error.kind() != runtree_process::ErrorKind::Unsupported => {
            return Err(untold(&error));
        }
        found => found.unwrap_or_default(),
    };
    if let Some(child) = &lease.child {
        let group: ProcessGroupIdentity = child
            .as_str()
            .parse()
            .map_err(|error: runtree_process::Error| untold(&error))?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    for group in groups {
        match runtree_process::stop_group(&group, Stop::forced()).await {
            Ok(stopped) if stopped.is_gone() => {}
            Ok(stopped) => {
                return Err(format!(
                    "the processes of the run {run} do not go away: {stopped:?}"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "the processes of the run {run} cannot be ended: {error}"
                ));
            }
        }
    }
    Ok(())
}

/// Tells whether the holder of a worktree's lock is proven dead.
pub(crate) fn probe(holder: &LockHolder) -> runtree_worktree::Liveness {
    match holder
        .as_str()
        .parse::<ProcessIdentity>()
        .map(|process| process.probe())
    {
        Ok(Liveness::Alive) => runtree_worktree::Liveness::Alive,
        Ok(Liveness::Dead) => runtree_worktree::Liveness::Dead,
        Ok(Liveness::Unknown) | Err(_) => runtree_worktree::Liveness::Unknown,
    }
}
