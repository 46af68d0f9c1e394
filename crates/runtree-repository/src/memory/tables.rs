//! The tables of one namespace, and the guarded writes over them.

use std::collections::BTreeMap;

use runtree_id::{IdEnding, Lookup, RunId};
use runtree_status::{EndReason, Event, RunStatus};
use runtree_time::Timestamp;
use serde_json::json;

use super::row::{LeaseRow, Row};
use crate::answer::{ConflictOver, Created, Rescue, Rescued, Write};
use crate::error::RepositoryError;
use crate::event::{EventKind, EventNumber, RunEvent};
use crate::lease::{Claim, ClaimOf, Claimed, Lease, LeaseRef, LeaseTime, Limit, Renewal, Token};
use crate::query::{PageRequest, Position, RunFilter, RunOrder, RunPage};
use crate::request::{CheckedRun, CreateRun};
use crate::run::{Run, RunSummary};
use crate::stop::{CancelRequest, Outcome};
use crate::text::{HostName, HostPath, ProcessMark};
use crate::worktree::{
    CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask, WorktreeKey,
    WorktreeQuery, WorktreeRecord, WorktreeSite, WorktreeState,
};

/// The most candidates that an ambiguous ending is answered with.
const MAX_CANDIDATES: usize = 10;

/// Everything of one namespace.
#[derive(Debug, Default)]
pub(super) struct Tables {
    rows: BTreeMap<RunId, Row>,
}

impl Tables {
    pub(super) fn create(
        &mut self,
        request: &CreateRun,
        checked: CheckedRun,
        now: Timestamp,
    ) -> Created {
        if let Some((over, row)) = self.existing(request.id, &checked) {
            let existing = row.run.clone();
            let same = row.fingerprint == checked.fingerprint && over != ConflictOver::UniqueKey;
            return if same {
                Created::Existing(existing)
            } else {
                Created::Conflict { over, existing }
            };
        }
        let fingerprint = checked.fingerprint;
        let run = new_run(request, checked, now);
        let row = Row::new(run.clone(), fingerprint, now);
        self.rows.insert(request.id, row);
        Created::New(run)
    }

    /// Finds what stands in the way of a create, in the order that every backend keeps.
    fn existing(&self, id: RunId, checked: &CheckedRun) -> Option<(ConflictOver, &Row)> {
        let by_idempotency_key = self.rows.values().find(|row| {
            checked.idempotency_key.is_some() && row.run.idempotency_key == checked.idempotency_key
        });
        let by_unique_key = self.rows.values().find(|row| {
            checked.unique_key.is_some()
                && row.run.unique_key == checked.unique_key
                && !row.run.has_ended()
        });
        by_idempotency_key
            .map(|row| (ConflictOver::IdempotencyKey, row))
            .or_else(|| self.rows.get(&id).map(|row| (ConflictOver::Id, row)))
            .or_else(|| by_unique_key.map(|row| (ConflictOver::UniqueKey, row)))
    }

    pub(super) fn get(&self, id: RunId) -> Option<Run> {
        self.rows.get(&id).map(|row| row.run.clone())
    }

    pub(super) fn find(&self, ending: &IdEnding) -> Lookup<RunSummary> {
        let matching = self.rows.values().filter(|row| ending.matches(&row.run.id));
        let mut found: Vec<_> = matching
            .map(|row| row.run.summary.clone())
            .take(MAX_CANDIDATES)
            .collect();
        match found.len() {
            0 => Lookup::NotFound,
            1 => Lookup::Found(found.remove(0)),
            _ => Lookup::Ambiguous(found),
        }
    }

    pub(super) fn list(
        &self,
        filter: &RunFilter,
        page: &PageRequest,
        after: Option<Position>,
    ) -> RunPage {
        let mut runs: Vec<_> = self
            .rows
            .values()
            .map(|row| &row.run.summary)
            .filter(|run| filter.shows(run))
            .collect();
        runs.sort_by_key(|run| Position::of(run));
        if page.order == RunOrder::NewestFirst {
            runs.reverse();
        }
        let is_after = |run: &&&RunSummary| match (after, page.order) {
            (None, _) => true,
            (Some(after), RunOrder::OldestFirst) => Position::of(run) > after,
            (Some(after), RunOrder::NewestFirst) => Position::of(run) < after,
        };
        let runs = runs
            .iter()
            .filter(is_after)
            .take(page.limit.get() + 1)
            .map(|run| (*run).clone())
            .collect();
        RunPage::of(runs, page)
    }

    pub(super) fn events(&self, id: RunId, after: EventNumber, limit: Limit) -> Vec<RunEvent> {
        let events = self.rows.get(&id).map(|row| row.events.as_slice());
        let events = events.unwrap_or_default().iter();
        events
            .filter(|event| event.number > after)
            .take(limit.get())
            .cloned()
            .collect()
    }

    pub(super) fn claim(
        &mut self,
        claim: &Claim,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, RepositoryError> {
        let mut waiting: Vec<_> = self
            .rows
            .values()
            .map(|row| &row.run)
            .filter(|run| may_claim(run, claim, now))
            .collect();
        waiting.sort_by_key(|run| (std::cmp::Reverse(run.priority), Position::of(run)));
        waiting.truncate(claim.limit.get());
        // What can fail comes before the first change.
        let chosen = waiting
            .into_iter()
            .map(|run| Ok((run.id, planned_path(run, claim.site.as_ref())?)))
            .collect::<Result<Vec<_>, RepositoryError>>()?;
        let mut claimed = Vec::with_capacity(chosen.len());
        for (id, path) in chosen {
            if let Some(row) = self.rows.get_mut(&id) {
                claimed.push(claim_row(row, path, claim, now));
            }
        }
        Ok(claimed)
    }

    pub(super) fn renew(
        &mut self,
        lease: LeaseRef,
        lease_time: LeaseTime,
        now: Timestamp,
    ) -> Renewal {
        let Some(row) = self.rows.get_mut(&lease.run) else {
            return Renewal::Lost;
        };
        if !row.is_held_by(lease) || row.has_expired(now) {
            row.reject(lease.token, now, Event::Renew.as_str());
            return Renewal::Lost;
        }
        let expires_at = now.saturating_add(lease_time.get());
        if let Some(held) = &mut row.lease {
            held.heartbeat_at = now;
            held.expires_at = expires_at;
        }
        row.run.summary.lease_expires_at = Some(expires_at);
        Renewal::Renewed {
            expires_at,
            cancel: row.run.cancel.clone(),
        }
    }

    /// Does an owner's write if its lease guards the run.
    fn guarded<T>(
        &mut self,
        lease: LeaseRef,
        now: Timestamp,
        event: &str,
        write: impl FnOnce(&mut Row) -> Option<Write<T>>,
    ) -> Write<T> {
        let Some(row) = self.rows.get_mut(&lease.run) else {
            return Write::NotFound;
        };
        let done = if row.is_held_by(lease) {
            write(row)
        } else {
            None
        };
        done.unwrap_or_else(|| {
            row.reject(lease.token, now, event);
            stale(row)
        })
    }

    pub(super) fn record_child(
        &mut self,
        lease: LeaseRef,
        child: &ProcessMark,
        now: Timestamp,
    ) -> Write<()> {
        self.guarded(lease, now, "record_child", |row| {
            let held = row.lease.as_mut()?;
            held.child = Some(child.clone());
            Some(Write::Applied(()))
        })
    }

    pub(super) fn worktree_ready(
        &mut self,
        lease: LeaseRef,
        now: Timestamp,
    ) -> Write<WorktreeRecord> {
        self.guarded(lease, now, "worktree_ready", |row| {
            let held = |worktree: &&mut WorktreeRecord| worktree.held_by == lease.token;
            let worktree = row.worktrees.iter_mut().rev().find(held)?;
            match worktree.state {
                WorktreeState::Ready => return Some(Write::Already(worktree.clone())),
                WorktreeState::Adding => {}
                WorktreeState::Kept | WorktreeState::Removed | WorktreeState::Other(_) => {
                    return None;
                }
            }
            worktree.state = WorktreeState::Ready;
            worktree.updated_at = now.max(worktree.updated_at);
            let ready = worktree.clone();
            row.record(now, EventKind::WorktreeReady, None);
            Some(Write::Applied(ready))
        })
    }

    pub(super) fn end(&mut self, lease: LeaseRef, outcome: &Outcome, now: Timestamp) -> Write<Run> {
        if let Some(row) = self.rows.get(&lease.run)
            && row.run.token == lease.token
            && row.ended_by(outcome)
        {
            return Write::Already(row.run.clone());
        }
        let (event, needs_lease) = match outcome {
            Outcome::Completed { .. } => (Event::Complete, true),
            Outcome::Failed { .. } => (Event::Fail, false),
            Outcome::Killed => (Event::AcknowledgeCancel, false),
        };
        self.guarded(lease, now, event.as_str(), |row| {
            if needs_lease && row.has_expired(now) {
                return None;
            }
            row.end(outcome, now);
            Some(Write::Applied(row.run.clone()))
        })
    }

    pub(super) fn release(&mut self, lease: LeaseRef, now: Timestamp) -> Write<Run> {
        self.guarded(lease, now, Event::Release.as_str(), |row| {
            if row.run.cancel.is_some() {
                row.finish(Event::AcknowledgeCancel, EndReason::Killed, now);
            } else {
                row.run.summary.attempts = row.run.attempts.saturating_sub(1);
                row.wait(Event::Release, now);
                row.record(now, EventKind::Released, None);
            }
            Some(Write::Applied(row.run.clone()))
        })
    }

    pub(super) fn cancel(
        &mut self,
        id: RunId,
        request: &CancelRequest,
        now: Timestamp,
    ) -> Write<Run> {
        self.stop(id, |row| {
            if row.run.status == RunStatus::Pending {
                row.cancel_before_start(request, now);
                true
            } else {
                row.request_cancel(request, now)
            }
        })
    }

    pub(super) fn force_kill(
        &mut self,
        id: RunId,
        request: &CancelRequest,
        now: Timestamp,
    ) -> Write<Run> {
        self.stop(id, |row| {
            if row.run.status == RunStatus::Pending {
                row.cancel_before_start(request, now);
            } else {
                let intent = crate::stop::CancelIntent::of(request, now);
                row.run.summary.cancel.get_or_insert(intent);
                row.run.summary.token = row.run.token.next();
                row.finish(Event::ForceKill, EndReason::Killed, now);
            }
            true
        })
    }

    /// Stops a run that waits or runs; `stop` answers whether it changed anything.
    fn stop(&mut self, id: RunId, stop: impl FnOnce(&mut Row) -> bool) -> Write<Run> {
        let Some(row) = self.rows.get_mut(&id) else {
            return Write::NotFound;
        };
        if row.run.has_ended() {
            return Write::Already(row.run.clone());
        }
        // Named positively: a word of a newer version must not be touched.
        if ![RunStatus::Pending, RunStatus::Running].contains(&row.run.status) {
            return stale(row);
        }
        if stop(row) {
            Write::Applied(row.run.clone())
        } else {
            Write::Already(row.run.clone())
        }
    }

    pub(super) fn leases(&self, host: Option<&HostName>) -> Vec<Lease> {
        let running = self
            .rows
            .values()
            .filter(|row| row.run.status == RunStatus::Running);
        running
            .filter_map(Row::lease_view)
            .filter(|lease| host.is_none_or(|host| lease.owner.host == *host))
            .collect()
    }

    pub(super) fn rescue(&mut self, rescue: &Rescue, now: Timestamp) -> Vec<Rescued> {
        let running = || {
            self.rows
                .values()
                .filter(|row| row.run.status == RunStatus::Running)
        };
        let lease_of = |row: &Row| LeaseRef {
            run: row.run.id,
            token: row.run.token,
        };
        let mut chosen: Vec<LeaseRef> = running()
            .map(lease_of)
            .filter(|lease| rescue.proven_dead.contains(lease))
            .collect();
        let mut expired: Vec<_> = running().filter(|row| row.has_expired(now)).collect();
        expired.sort_by_key(|row| (row.run.lease_expires_at, row.run.id));
        let expired = expired
            .into_iter()
            .map(lease_of)
            .filter(|lease| !chosen.contains(lease) && !rescue.spare.contains(&lease.run))
            .take(rescue.limit.get())
            .collect::<Vec<_>>();
        chosen.extend(expired);
        let mut rescued = Vec::with_capacity(chosen.len());
        for lease in chosen {
            if let Some(row) = self.rows.get_mut(&lease.run) {
                row.rescue(now);
                rescued.push(Rescued::new(lease, row.run.summary.clone()));
            }
        }
        rescued
    }

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
            let is_observed = |cleanup: &&mut super::row::CleanupRow| {
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

fn new_run(request: &CreateRun, checked: CheckedRun, now: Timestamp) -> Run {
    Run {
        summary: RunSummary {
            id: request.id,
            workflow: checked.workflow,
            status: RunStatus::Pending,
            end_reason: None,
            priority: checked.priority,
            idempotency_key: checked.idempotency_key,
            unique_key: checked.unique_key,
            session_id: checked.session_id,
            user: checked.user,
            attempts: 0,
            max_attempts: checked.max_attempts,
            token: Token::NONE,
            owner: None,
            lease_expires_at: None,
            cancel: None,
            worktree: request.worktree.clone(),
            available_at: checked.available_at.unwrap_or(now),
            created_at: now,
            updated_at: now,
            started_at: None,
            ended_at: None,
        },
        input: checked.input,
        result: None,
        error: None,
        metadata: checked.metadata,
    }
}

fn may_claim(run: &Run, claim: &Claim, now: Timestamp) -> bool {
    let is_meant = match &claim.of {
        ClaimOf::Any => true,
        ClaimOf::Workflows(workflows) => workflows.contains(&run.workflow),
        ClaimOf::Run(id) => run.id == *id,
    };
    is_meant
        && run.status == RunStatus::Pending
        && !run.has_ended()
        && run.cancel.is_none()
        && run.available_at <= now
        && (run.worktree.is_none() || claim.site.is_some())
}

fn planned_path(
    run: &Run,
    site: Option<&WorktreeSite>,
) -> Result<Option<HostPath>, RepositoryError> {
    match (&run.worktree, site) {
        (Some(wanted), Some(site)) => site.path_of(&wanted.name).map(Some),
        (None, _) | (_, None) => Ok(None),
    }
}

fn claim_row(row: &mut Row, path: Option<HostPath>, claim: &Claim, now: Timestamp) -> Claimed {
    row.apply(Event::Claim);
    let summary = &mut row.run.summary;
    summary.token = summary.token.next();
    summary.attempts = summary.attempts.saturating_add(1);
    summary.started_at.get_or_insert(now);
    let expires_at = now.saturating_add(claim.lease_time.get());
    row.set_lease(Some(LeaseRow {
        owner: claim.owner.clone(),
        child: None,
        heartbeat_at: now,
        expires_at,
    }));
    let detail =
        json!({ "attempt": row.run.attempts, "owner": claim.owner.id, "host": claim.owner.host });
    row.record(now, EventKind::Claimed, Some(detail));
    let worktree =
        claim.site.as_ref().zip(path).and_then(|(site, path)| {
            row.plan_worktree(site, |row| plan(row, site, path, now), now)
        });
    let lease = LeaseRef {
        run: row.run.id,
        token: row.run.token,
    };
    Claimed::new(lease, expires_at, row.run.clone(), worktree)
}

fn plan(row: &Row, site: &WorktreeSite, path: HostPath, now: Timestamp) -> Option<WorktreeRecord> {
    Some(WorktreeRecord {
        key: WorktreeKey {
            run: row.run.id,
            planned_by: row.run.token,
        },
        site: site.clone(),
        path,
        wanted: row.run.worktree.clone()?,
        state: WorktreeState::Adding,
        held_by: row.run.token,
        salvage: None,
        reason: None,
        created_at: now,
        updated_at: now,
    })
}

fn stale<T>(row: &Row) -> Write<T> {
    Write::Stale {
        current: Box::new(row.run.summary.clone()),
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
