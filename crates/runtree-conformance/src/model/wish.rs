//! The model's half about worktrees of ended runs, and about what is learnt of runs.

use runtree_repository::id::RunId;
use runtree_repository::time::Timestamp;
use runtree_repository::{
    Annotation, Change, CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask,
    EventKind, HostName, HostPath, Owner, Run, Token, Usage, UsageChange, WorktreeKey,
    WorktreeRecord, WorktreeState, Write,
};

use super::world::World;

/// A worktree that somebody wants cleaned up.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    worktree: WorktreeKey,
    wanted_at: Timestamp,
    available_at: Timestamp,
    token: Token,
    tries: u32,
    held: Option<(Owner, Timestamp)>,
}

impl Wish {
    pub(super) fn new(worktree: WorktreeKey, now: Timestamp) -> Self {
        Self {
            worktree,
            wanted_at: now,
            available_at: now,
            token: Token::NONE,
            tries: 0,
            held: None,
        }
    }

    fn of(&self) -> CleanupRef {
        CleanupRef {
            worktree: self.worktree,
            token: self.token,
        }
    }
}

impl World {
    fn worktree(&self, key: WorktreeKey) -> Option<&WorktreeRecord> {
        let record = self.record(key.run)?;
        record.worktrees.iter().find(|worktree| worktree.key == key)
    }

    fn is_at(&self, key: WorktreeKey, host: &HostName, git_repository: &HostPath) -> bool {
        self.worktree(key).is_some_and(|worktree| {
            worktree.site.host == *host && worktree.site.git_repository == *git_repository
        })
    }

    fn wishes(&self) -> impl Iterator<Item = &Wish> {
        self.records.iter().flat_map(|record| &record.wishes)
    }

    fn wish_mut(&mut self, key: WorktreeKey) -> Option<&mut Wish> {
        let wishes = self
            .records
            .iter_mut()
            .flat_map(|record| &mut record.wishes);
        wishes.into_iter().find(|wish| wish.worktree == key)
    }

    pub(super) fn claim_cleanups(&mut self, claim: &CleanupClaim) -> Vec<CleanupTask> {
        let now = self.now;
        let mut due: Vec<(Timestamp, WorktreeKey)> = self
            .wishes()
            .filter(|wish| claim.run.is_none_or(|run| run == wish.worktree.run))
            .filter(|wish| self.is_at(wish.worktree, &claim.host, &claim.git_repository))
            .filter(|wish| wish.available_at <= now)
            .filter(|wish| wish.held.as_ref().is_none_or(|(_, until)| *until <= now))
            .map(|wish| (wish.wanted_at, wish.worktree))
            .collect();
        due.sort();
        due.truncate(claim.limit.get());
        let expires_at = now.saturating_add(claim.lease_time.get());
        let mut tasks = Vec::new();
        for (_, key) in due {
            let Some(worktree) = self.worktree(key).cloned() else {
                continue;
            };
            let Some(wish) = self.wish_mut(key) else {
                continue;
            };
            let tries = wish.tries;
            wish.tries += 1;
            wish.token = wish.token.next();
            wish.held = Some((claim.owner.clone(), expires_at));
            tasks.push(CleanupTask::new(wish.of(), worktree, tries, expires_at));
        }
        tasks
    }

    pub(super) fn cleanup_leases(&self, host: &HostName, git: &HostPath) -> Vec<CleanupLease> {
        let here = self
            .wishes()
            .filter(|wish| self.is_at(wish.worktree, host, git));
        here.filter_map(|wish| {
            let (owner, expires_at) = wish.held.clone()?;
            Some(CleanupLease::new(wish.of(), owner, expires_at))
        })
        .collect()
    }

    pub(super) fn free_cleanups(&mut self, proven_dead: &[CleanupRef]) {
        for dead in proven_dead {
            if let Some(wish) = self.wish_mut(dead.worktree)
                && wish.token == dead.token
            {
                wish.held = None;
            }
        }
    }

    pub(super) fn finish_cleanup(
        &mut self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Write<WorktreeRecord> {
        let (now, key) = (self.now, cleanup.worktree);
        let Some(record) = self.record_mut(key.run) else {
            return Write::NotFound;
        };
        let Some(at) = record.worktrees.iter().position(|it| it.key == key) else {
            return Write::NotFound;
        };
        let mut worktree = record.worktrees.remove(at);
        let is_mine = record
            .wishes
            .iter()
            .any(|wish| wish.worktree == key && wish.token == cleanup.token);
        let (told, is_done) = match outcome {
            CleanupOutcome::Removed { .. } => {
                let is_so = worktree.state == WorktreeState::Removed;
                (EventKind::WorktreeRemoved, is_so)
            }
            CleanupOutcome::Kept { .. } => {
                let is_so = worktree.state == WorktreeState::Kept;
                (EventKind::WorktreeKept, is_so)
            }
            _ => (EventKind::CleanupPostponed, false),
        };
        if !is_mine {
            record.worktrees.insert(at, worktree.clone());
            return if is_done {
                Write::Already(worktree)
            } else {
                record.stale()
            };
        }
        worktree.updated_at = now;
        match outcome {
            CleanupOutcome::Removed { salvage } => {
                worktree.state = WorktreeState::Removed;
                worktree.salvage.clone_from(salvage);
            }
            CleanupOutcome::Kept { reason } => {
                worktree.state = WorktreeState::Kept;
                worktree.reason = Some(reason.clone());
            }
            _ => {}
        }
        record.worktrees.insert(at, worktree.clone());
        if let CleanupOutcome::Postponed { retry_after, .. } = outcome {
            for wish in record.wishes.iter_mut().filter(|wish| wish.worktree == key) {
                wish.available_at = now.saturating_add(*retry_after);
                wish.held = None;
            }
        } else {
            record.wishes.retain(|wish| wish.worktree != key);
        }
        record.tell(told, now);
        Write::Applied(worktree)
    }

    /// Act 14, for those parts of an annotation that sequences draw.
    pub(super) fn annotate(&mut self, id: RunId, annotation: &Annotation) -> Write<Run> {
        let now = self.now;
        let Some(record) = self.record_mut(id) else {
            return Write::NotFound;
        };
        let before = record.run.clone();
        let run = &mut record.run;
        for tag in &annotation.remove_tags {
            run.summary.tags.remove(tag);
        }
        for tag in &annotation.add_tags {
            run.summary.tags.insert(tag.clone());
        }
        for (key, value) in &annotation.metadata {
            match value {
                Some(value) => run.metadata.insert(key.clone(), value.clone()),
                None => run.metadata.remove(key),
            };
        }
        run.summary.usage = match annotation.usage {
            UsageChange::Keep => run.summary.usage,
            UsageChange::Set(usage) => usage,
            UsageChange::Add(more) => sum(&[run.summary.usage, more]),
        };
        if let Change::Set(commit) = &annotation.last_commit {
            run.summary.facts.last_commit = Some(*commit);
        }
        if *run == before {
            return Write::Already(before);
        }
        record.tell(EventKind::Annotated, now);
        Write::Applied(record.run.clone())
    }
}

/// Adds usages up; sequences stay far from the limit.
pub(super) fn sum(usages: &[Usage]) -> Usage {
    let of = |number: fn(&Usage) -> u64| usages.iter().map(number).sum();
    Usage {
        input_tokens: of(|usage| usage.input_tokens),
        output_tokens: of(|usage| usage.output_tokens),
        cost: runtree_repository::Cost::from_micros(of(|usage| usage.cost.micros())),
    }
}
