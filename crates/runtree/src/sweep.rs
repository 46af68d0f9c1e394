//! Looks at every worktree of the git repository, removes what no run needs, and says why the rest stays.

use std::path::PathBuf;
use std::time::Duration;

use runtree_id::{DirectoryName, RunId};
use runtree_repository::{Persistence, Run, WorktreeQuery, WorktreeRecord, WorktreeState};
use runtree_time::Timestamp;
use runtree_worktree::{ListedWorktree, Outcome, Ownership, Removal, RemoveWorktree, Whose};

use crate::clean_up::WorktreeFate;
use crate::coordinator::{Coordinator, Inner};
use crate::error::Result;
use crate::names;

/// Which worktrees a sweep may remove.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Sweep {
    age: Duration,
    mode: SweepMode,
}

/// Whether a sweep acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a sweep acts or it does not")]
pub enum SweepMode {
    /// It says what it would do.
    DryRun,
    /// It does it.
    Real,
}

/// What a sweep found, and what it did about it; a dry run and a real one give the same report.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SweepReport {
    /// Whether it acted.
    pub mode: SweepMode,
    /// Every worktree that was looked at, in git's order.
    pub entries: Vec<SweepEntry>,
}

/// One worktree that a sweep looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SweepEntry {
    /// Where it is.
    pub path: PathBuf,
    /// The run it was made for, when it is ours.
    pub run: Option<RunId>,
    /// What was decided.
    pub verdict: Verdict,
}

/// What a sweep decided about a worktree.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It goes, or would; what is in it and in no surviving ref is saved first.
    Remove(Box<Removal>),
    /// It stays.
    Keep(Keep),
}

/// Why a sweep left a worktree where it is. Doubt means keep.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// It is the main worktree.
    Main,
    /// It was not made by runtree.
    Foreign,
    /// It carries a token of ours that leads to no record.
    NoRecord,
    /// Its run has not ended, or stands at a word that this version does not know.
    Active,
    /// It is persistent.
    Persistent,
    /// It is younger than the sweep's age.
    Young {
        /// Its age.
        age: Duration,
    },
    /// Somebody else cleans it up right now, or its next try is not due.
    CleanupPending,
    /// An earlier clean-up decided to keep it, for this reason.
    KeptBefore(String),
    /// Removing it would not be safe.
    Unsafe(runtree_worktree::KeepReason),
    /// It went away meanwhile.
    Gone,
    /// Something failed; it is tried again by the next sweep.
    Failed(String),
}

impl Sweep {
    /// Removes worktrees of runs that ended at least this long ago.
    pub const fn older_than(age: Duration) -> Self {
        Self {
            age,
            mode: SweepMode::Real,
        }
    }

    /// Removes worktrees of ended runs whenever they ended.
    pub const fn of_any_age() -> Self {
        Self::older_than(Duration::ZERO)
    }

    /// Only says what would be done.
    pub const fn dry_run(mut self) -> Self {
        self.mode = SweepMode::DryRun;
        self
    }
}

impl Default for Sweep {
    /// 48 hours.
    fn default() -> Self {
        Self::older_than(Duration::from_secs(48 * 3_600))
    }
}

impl SweepReport {
    /// Returns the worktrees that went, or would go.
    pub fn removed(&self) -> impl Iterator<Item = (&SweepEntry, &Removal)> {
        self.entries
            .iter()
            .filter_map(|entry| match &entry.verdict {
                Verdict::Remove(removal) => Some((entry, removal.as_ref())),
                Verdict::Keep(_) => None,
            })
    }
}

impl Coordinator {
    /// Looks at every worktree of the git repository and removes those that no run needs.
    ///
    /// Main, foreign, active, persistent, young and doubtful ones stay, and the report says why.
    ///
    /// A dry run looks at the same things in the same way and acts on none. It cannot know what changes until the real run: a
    /// clean-up that somebody else holds by then, or that waits for its next try, is [`Keep::CleanupPending`] there.
    ///
    /// # Errors
    /// What the stores answer before anything was removed. What fails at one worktree is in the report.
    pub async fn sweep(&self, sweep: Sweep) -> Result<SweepReport> {
        let listed = self.inner.git(runtree_worktree::Worktrees::list).await?;
        let now = self.inner.runs.now().await?;
        let mut entries = Vec::with_capacity(listed.len());
        for worktree in listed {
            entries.push(self.inner.sweep_one(&worktree, sweep, now).await);
        }
        Ok(SweepReport {
            mode: sweep.mode,
            entries,
        })
    }
}

impl Inner {
    async fn sweep_one(&self, listed: &ListedWorktree, sweep: Sweep, now: Timestamp) -> SweepEntry {
        let ownership = match listed.whose() {
            Whose::Ours { ownership, .. } => Some(ownership),
            Whose::Main | Whose::Foreign | Whose::Unknown => None,
            _ => None,
        };
        let key = ownership.and_then(names::key_of);
        let decided = match (listed.whose(), ownership, listed.id()) {
            (Whose::Main, _, _) => Ok(Verdict::Keep(Keep::Main)),
            (_, Some(ownership), Some(id)) => self.sweep_ours(id, ownership, sweep, now).await,
            (Whose::Unknown, _, _) => Ok(Verdict::Keep(Keep::NoRecord)),
            _ => Ok(Verdict::Keep(Keep::Foreign)),
        };
        SweepEntry {
            path: listed.path().to_owned(),
            run: key.map(|key| key.run),
            verdict: decided.unwrap_or_else(|error| Verdict::Keep(Keep::Failed(error.to_string()))),
        }
    }

    async fn sweep_ours(
        &self,
        id: &str,
        ownership: &Ownership,
        sweep: Sweep,
        now: Timestamp,
    ) -> Result<Verdict> {
        let Some(key) = names::key_of(ownership) else {
            return Ok(Verdict::Keep(Keep::NoRecord));
        };
        let Some(run) = self.runs.get(key.run).await? else {
            return Ok(Verdict::Keep(Keep::NoRecord));
        };
        let records = self.runs.worktrees(&WorktreeQuery::Run(key.run)).await?;
        let Some(record) = records.into_iter().find(|record| record.key == key) else {
            return Ok(Verdict::Keep(Keep::NoRecord));
        };
        let Ok(name) = id.parse::<DirectoryName>() else {
            return Ok(Verdict::Keep(Keep::NoRecord));
        };
        let (wanted, owned_as) = (name.clone(), ownership.clone());
        let worktree = self
            .git(move |worktrees| worktrees.get(&wanted, &owned_as))
            .await?;
        if let Some(keep) = must_keep(&run, &record, worktree.created(), sweep.age, now) {
            return Ok(Verdict::Keep(keep));
        }
        let removal = RemoveWorktree::new(name, ownership.clone());
        match sweep.mode {
            SweepMode::DryRun => {
                let plan = self
                    .git(move |worktrees| worktrees.plan_remove(&removal))
                    .await?;
                Ok(verdict(plan))
            }
            SweepMode::Real if record.state == WorktreeState::Removed => {
                // Restored from a salvage: the record of the first removal stands, nobody waits for this one.
                Ok(verdict(
                    self.git(move |worktrees| worktrees.remove(&removal))
                        .await?,
                ))
            }
            SweepMode::Real => {
                let mut left = Vec::new();
                let done = self.clean_up(Some(key.run), &mut left).await?.into_iter();
                let fate = done
                    .map(|done| (done.worktree.key, done.fate))
                    .find(|(of, _)| *of == key);
                Ok(match fate {
                    Some((_, fate)) => verdict_of(fate),
                    None if left.is_empty() => Verdict::Keep(Keep::CleanupPending),
                    None => Verdict::Keep(Keep::Failed(left.join("; "))),
                })
            }
        }
    }
}

/// Says why a worktree must stay before anybody looks into it.
fn must_keep(
    run: &Run,
    record: &WorktreeRecord,
    created: Timestamp,
    least_age: Duration,
    now: Timestamp,
) -> Option<Keep> {
    let Some(ended_at) = run.ended_at.filter(|_| run.status.is_known()) else {
        return Some(Keep::Active);
    };
    if record.wanted.persistence == Persistence::Persistent {
        return Some(Keep::Persistent);
    }
    if record.state == WorktreeState::Kept {
        let reason = record.reason.as_ref().map(ToString::to_string);
        return Some(Keep::KeptBefore(reason.unwrap_or_default()));
    }
    // A worktree that was restored after the run is as old as the restoring.
    let age = now.saturating_duration_since(ended_at.max(created));
    (age < least_age).then_some(Keep::Young { age })
}

fn verdict(removal: Removal) -> Verdict {
    match &removal.outcome {
        Outcome::WouldRemove | Outcome::Removed => Verdict::Remove(Box::new(removal)),
        Outcome::Kept(reason) => Verdict::Keep(Keep::Unsafe(reason.clone())),
        Outcome::AlreadyGone | _ => Verdict::Keep(Keep::Gone),
    }
}

fn verdict_of(fate: WorktreeFate) -> Verdict {
    match fate {
        WorktreeFate::Removed(removal) => verdict(*removal),
        WorktreeFate::Kept(reason) => Verdict::Keep(Keep::Unsafe(reason)),
        WorktreeFate::Persistent => Verdict::Keep(Keep::Persistent),
        WorktreeFate::Postponed { error } => Verdict::Keep(Keep::Failed(error)),
    }
}
