//! The records of worktrees and the wishes to clean them up.

use runtree_time::Timestamp;
use serde_json::json;

use super::row::CleanupRow;
use super::tables::{Tables, stale};
use crate::answer::Write;
use crate::event::EventKind;
use crate::lease::Token;
use crate::text::{HostName, HostPath};
use crate::worktree::{
    CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask, WorktreeKey,
    WorktreeQuery, WorktreeRecord, WorktreeState,
};

impl Tables {
    pub(super) fn worktrees(&self, query: &WorktreeQuery) -> Vec<WorktreeRecord> {
        let worktrees = self.rows.values().flat_map(|row| &row.worktrees);
        let wanted = |worktree: &&WorktreeRecord| match query {
            WorktreeQuery::Run(id) => worktree.key.run == *id,
            WorktreeQuery::Site {
                host,
                git_repository,
            } => {
                worktree.state != WorktreeState::Removed
                    && worktree.site.host == *host
                    && worktree.site.git_repository == *git_repository
            }
        };
        worktrees.filter(wanted).cloned().collect()
    }

    pub(super) fn claim_cleanups(
        &mut self,
        claim: &CleanupClaim,
        now: Timestamp,
    ) -> Vec<CleanupTask> {
        let mut due: Vec<(Timestamp, WorktreeKey)> = Vec::new();
        for row in self.rows.values() {
            if claim.run.is_some_and(|id| id != row.run.id) {
                continue;
            }
            for cleanup in &row.cleanups {
                let held = cleanup.held.as_ref();
                let is_free = held.is_none_or(|(_, expires_at)| *expires_at <= now);
                let is_here = row.worktrees.iter().any(|worktree| {
                    worktree.key.planned_by == cleanup.planned_by
                        && worktree.site.host == claim.host
                        && worktree.site.git_repository == claim.git_repository
                });
                if is_free && is_here && cleanup.available_at <= now {
                    let key = WorktreeKey {
                        run: row.run.id,
                        planned_by: cleanup.planned_by,
                    };
                    due.push((cleanup.wanted_at, key));
                }
            }
        }
        due.sort();
        due.truncate(claim.limit.get());
        let tasks = due
            .into_iter()
            .filter_map(|(_, key)| self.claim_cleanup(key, claim, now));
        tasks.collect()
    }

    fn claim_cleanup(
        &mut self,
        key: WorktreeKey,
        claim: &CleanupClaim,
        now: Timestamp,
    ) -> Option<CleanupTask> {
        let row = self.rows.get_mut(&key.run)?;
        let worktree = row
            .worktrees
            .iter()
            .find(|worktree| worktree.key == key)?
            .clone();
        let cleanup = row
            .cleanups
            .iter_mut()
            .find(|cleanup| cleanup.planned_by == key.planned_by)?;
        let tries = cleanup.tries;
        let expires_at = now.saturating_add(claim.lease_time.get());
        cleanup.token = cleanup.token.next();
        cleanup.tries += 1;
        cleanup.held = Some((claim.owner.clone(), expires_at));
        let of = CleanupRef {
            worktree: key,
            token: cleanup.token,
        };
        Some(CleanupTask::new(of, worktree, tries, expires_at))
    }

    pub(super) fn cleanup_leases(
        &self,
        host: &HostName,
        git_repository: &HostPath,
    ) -> Vec<CleanupLease> {
        let mut leases = Vec::new();
        for row in self.rows.values() {
            let is_here = |planned_by: Token| {
                row.worktrees.iter().any(|worktree| {
                    worktree.key.planned_by == planned_by
                        && worktree.site.host == *host
                        && worktree.site.git_repository == *git_repository
                })
            };
            let cleanups = row.cleanups.iter();
            for cleanup in cleanups.filter(|cleanup| is_here(cleanup.planned_by)) {
                let Some((owner, expires_at)) = cleanup.held.clone() else {
                    continue;
                };
                let of = CleanupRef {
                    worktree: WorktreeKey {
                        run: row.run.id,
                        planned_by: cleanup.planned_by,
                    },
                    token: cleanup.token,
                };
                leases.push(CleanupLease::new(of, owner, expires_at));
            }
        }
        leases
    }

    pub(super) fn free_cleanups(&mut self, proven_dead: &[CleanupRef]) {
        for dead in proven_dead {
            let Some(row) = self.rows.get_mut(&dead.worktree.run) else {
                continue;
            };
            let is_observed = |cleanup: &&mut CleanupRow| {
                cleanup.planned_by == dead.worktree.planned_by && cleanup.token == dead.token
            };
            if let Some(cleanup) = row.cleanups.iter_mut().find(is_observed) {
                cleanup.held = None;
            }
        }
    }

    pub(super) fn finish_cleanup(
        &mut self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
        now: Timestamp,
    ) -> Write<WorktreeRecord> {
        let Some(row) = self.rows.get_mut(&cleanup.worktree.run) else {
            return Write::NotFound;
        };
        let key = cleanup.worktree;
        let Some(worktree) = row
            .worktrees
            .iter_mut()
            .find(|worktree| worktree.key == key)
        else {
            return Write::NotFound;
        };
        let at = row
            .cleanups
            .iter()
            .position(|row| row.planned_by == key.planned_by && row.token == cleanup.token);
        let Some(at) = at else {
            return if is_done(worktree, outcome) {
                Write::Already(worktree.clone())
            } else {
                stale(row)
            };
        };
        let event = match outcome {
            CleanupOutcome::Removed { salvage } => {
                worktree.state = WorktreeState::Removed;
                worktree.salvage.clone_from(salvage);
                row.cleanups.remove(at);
                (EventKind::WorktreeRemoved, json!({ "salvage": salvage }))
            }
            CleanupOutcome::Kept { reason } => {
                worktree.state = WorktreeState::Kept;
                worktree.reason = Some(reason.clone());
                row.cleanups.remove(at);
                (EventKind::WorktreeKept, json!({ "reason": reason }))
            }
            CleanupOutcome::Postponed { error, retry_after } => {
                if let Some(cleanup) = row.cleanups.get_mut(at) {
                    cleanup.available_at = now.saturating_add(*retry_after);
                    cleanup.held = None;
                }
                (EventKind::CleanupPostponed, json!({ "error": error }))
            }
        };
        worktree.updated_at = now.max(worktree.updated_at);
        let record = worktree.clone();
        row.record(now, event.0, Some(event.1));
        Write::Applied(record)
    }
}

/// Tells whether an earlier clean-up left things as this outcome wants them.
fn is_done(worktree: &WorktreeRecord, outcome: &CleanupOutcome) -> bool {
    match outcome {
        CleanupOutcome::Removed { .. } => worktree.state == WorktreeState::Removed,
        CleanupOutcome::Kept { .. } => worktree.state == WorktreeState::Kept,
        CleanupOutcome::Postponed { .. } => false,
    }
}
