//! The tables of one namespace, and the guarded writes over them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use runtree_id::{IdEnding, Lookup, RunId};
use runtree_status::{EndReason, Event, RunStatus};
use runtree_time::Timestamp;
use serde_json::json;

use super::row::{LeaseRow, Row};
use crate::annotation::Annotation;
use crate::answer::{ConflictOver, Created, Rescue, Rescued, Retention, Write};
use crate::error::RepositoryError;
use crate::event::{EventKind, EventNumber, RunEvent};
use crate::explanation::{Explanation, Surroundings};
use crate::facts::Usage;
use crate::lease::{
    Claim, ClaimOf, Claimed, Lease, LeaseRef, LeaseTime, Limit, Renewal, WaitingRuns,
};
use crate::order::Position;
use crate::query::{PageRequest, RunFilter, RunPage};
use crate::request::{CheckedRun, CreateRun, Priority, RetryRun};
use crate::run::{Run, RunSummary};
use crate::statistics::{Measure, RunStatistics};
use crate::stop::{CancelRequest, Outcome, Overdue};
use crate::text::{ConcurrencyKey, HostName, HostPath, IdempotencyKey, ProcessMark, WorkflowName};
use crate::worktree::{WorktreeKey, WorktreeRecord, WorktreeSite, WorktreeState};

/// The most candidates that an ambiguous ending is answered with.
const MAX_CANDIDATES: usize = 10;

/// Everything of one namespace.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) rows: BTreeMap<RunId, Row>,
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
        let run = checked.into_run(request, now);
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

    pub(super) fn retry(&mut self, request: &RetryRun, now: Timestamp) -> Write<Created> {
        let Some(ended) = self.rows.get(&request.of) else {
            return Write::NotFound;
        };
        if !ended.run.has_ended() || !ended.run.status.is_known() {
            return stale(ended);
        }
        let conflict = |over, existing: &Row| {
            let existing = existing.run.clone();
            Write::Applied(Created::Conflict { over, existing })
        };
        if let Some(existing) = self.rows.get(&request.id) {
            return if existing.run.retry_of == Some(request.of) {
                Write::Already(Created::Existing(existing.run.clone()))
            } else {
                conflict(ConflictOver::Id, existing)
            };
        }
        let wanted = &ended.run.unique_key;
        let holds_key = |row: &&Row| row.run.unique_key == *wanted && !row.run.has_ended();
        if wanted.is_some()
            && let Some(holder) = self.rows.values().find(holds_key)
        {
            return conflict(ConflictOver::UniqueKey, holder);
        }
        let fingerprint = ended.fingerprint;
        let run = request.run(&ended.run, now);
        if let Some(ended) = self.rows.get_mut(&request.of) {
            let detail = json!({ "run": request.id });
            ended.record(now, EventKind::Retried, Some(detail));
        }
        let row = Row::new(run.clone(), fingerprint, now);
        self.rows.insert(request.id, row);
        Write::Applied(Created::New(run))
    }

    pub(super) fn annotate(
        &mut self,
        id: RunId,
        annotation: &Annotation,
        now: Timestamp,
    ) -> Result<Write<Run>, RepositoryError> {
        let Some(row) = self.rows.get_mut(&id) else {
            return Ok(Write::NotFound);
        };
        if !row.run.status.is_known() {
            return Ok(stale(row));
        }
        let mut run = row.run.clone();
        annotation.apply(&mut run)?;
        if run == row.run {
            return Ok(Write::Already(run));
        }
        row.run = run;
        row.record(now, EventKind::Annotated, None);
        Ok(Write::Applied(row.run.clone()))
    }

    pub(super) fn delete_ended(&mut self, retention: &Retention) -> Vec<RunId> {
        let may_go = |row: &&Row| {
            let is_gone = |worktree: &WorktreeRecord| worktree.state == WorktreeState::Removed;
            row.run.status.is_known()
                && row.cleanups.is_empty()
                && row.worktrees.iter().all(is_gone)
        };
        let mut old: Vec<(Timestamp, RunId)> = self
            .rows
            .values()
            .filter(may_go)
            .filter_map(|row| Some((row.run.ended_at?, row.run.id)))
            .filter(|(ended_at, _)| *ended_at < retention.ended_before)
            .collect();
        old.sort_unstable();
        old.truncate(retention.limit.get());
        let ids: Vec<RunId> = old.into_iter().map(|(_, id)| id).collect();
        for id in &ids {
            self.rows.remove(id);
        }
        ids
    }

    pub(super) fn get(&self, id: RunId) -> Option<Run> {
        self.rows.get(&id).map(|row| row.run.clone())
    }

    pub(super) fn get_by_key(&self, key: &IdempotencyKey) -> Option<Run> {
        let mut rows = self.rows.values();
        let row = rows.find(|row| row.run.idempotency_key.as_ref() == Some(key))?;
        Some(row.run.clone())
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
        after: Option<&Position>,
    ) -> RunPage {
        let order = page.order;
        let mut runs: Vec<(Position, &RunSummary)> = self
            .shown(filter)
            .map(|run| (Position::of(order.by, run), &run.summary))
            .filter(|(place, _)| after.is_none_or(|after| order.compare(after, place).is_lt()))
            .collect();
        runs.sort_by(|(one, _), (other, _)| order.compare(one, other));
        let runs = runs
            .into_iter()
            .take(page.limit.get() + 1)
            .map(|(_, run)| run.clone())
            .collect();
        RunPage::of(runs, page)
    }

    pub(super) fn count(&self, filter: &RunFilter) -> u64 {
        count(self.shown(filter).count())
    }

    pub(super) fn statistics(&self, filter: &RunFilter) -> RunStatistics {
        let runs: Vec<&Run> = self.shown(filter).collect();
        let mut statistics = RunStatistics {
            runs: count(runs.len()),
            duration: Measure::of(runs.iter().filter_map(|run| run.duration())),
            waiting: Measure::of(runs.iter().filter_map(|run| run.waiting_time())),
            ..RunStatistics::default()
        };
        let mut usage = Usage::default();
        let mut by_workflow: BTreeMap<&WorkflowName, u64> = BTreeMap::new();
        for run in runs {
            *statistics.by_status.entry(run.status).or_default() += 1;
            *by_workflow.entry(&run.workflow).or_default() += 1;
            usage = usage.plus(&run.usage);
        }
        let mut by_workflow: Vec<_> = by_workflow.into_iter().collect();
        by_workflow.sort_by_key(|(name, runs)| (Reverse(*runs), *name));
        by_workflow.truncate(RunStatistics::MAX_WORKFLOWS);
        statistics.by_workflow = by_workflow
            .into_iter()
            .map(|(name, runs)| (name.clone(), runs))
            .collect();
        statistics.input_tokens = usage.input_tokens;
        statistics.output_tokens = usage.output_tokens;
        statistics.cost = usage.cost;
        statistics
    }

    fn shown(&self, filter: &RunFilter) -> impl Iterator<Item = &Run> {
        let runs = self.rows.values().map(|row| &row.run);
        runs.filter(move |run| filter.shows(run))
    }

    pub(super) fn explain(&self, id: RunId, now: Timestamp) -> Option<Explanation> {
        let row = self.rows.get(&id)?;
        let goes_first = |other: &&Row| {
            let (run, other) = (&row.run, &other.run);
            other.status == RunStatus::Pending
                && !other.has_ended()
                && other.cancel.is_none()
                && other.queue == run.queue
                && other.available_at <= now
                && waiting_place(other) < waiting_place(run)
        };
        let seen = Surroundings {
            lease: row.lease_view(),
            holders: self.holders(row, now).map(|row| row.run.id).collect(),
            ahead: count(self.rows.values().filter(goes_first).count()),
        };
        Some(Explanation::new(row.run.summary.clone(), now, &seen))
    }

    /// The other runs with this run's concurrency key that hold a live lease.
    fn holders(&self, row: &Row, now: Timestamp) -> impl Iterator<Item = &Row> {
        let key = row.run.concurrency.as_ref().map(|used| used.key.clone());
        let id = row.run.id;
        self.rows.values().filter(move |other| {
            let other_key = other.run.concurrency.as_ref().map(|used| &used.key);
            key.is_some()
                && other_key == key.as_ref()
                && other.run.id != id
                && other.run.status == RunStatus::Running
                && !other.has_expired(now)
        })
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
        waiting.sort_by_key(|run| waiting_place(run));
        let waiting = self.within_limits(waiting, claim.limit, now);
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

    pub(super) fn time_out(&mut self, overdue: &Overdue, now: Timestamp) -> Vec<RunSummary> {
        let mut passed: Vec<(Timestamp, RunId)> = self
            .rows
            .values()
            .filter(|row| [RunStatus::Pending, RunStatus::Running].contains(&row.run.status))
            .filter(|row| !row.run.has_ended())
            .filter(|row| {
                let cancel = row.run.cancel.as_ref();
                cancel.is_none_or(|cancel| cancel.is_overdue(now))
            })
            .filter_map(|row| Some((row.run.deadline?, row.run.id)))
            .filter(|(deadline, _)| *deadline <= now)
            .collect();
        passed.sort_unstable();
        passed.truncate(overdue.limit.get());
        let mut changed = Vec::with_capacity(passed.len());
        for (_, id) in passed {
            if let Some(row) = self.rows.get_mut(&id)
                && row.time_out(overdue.grace, now)
            {
                changed.push(row.run.summary.clone());
            }
        }
        changed
    }

    pub(super) fn release(&mut self, lease: LeaseRef, now: Timestamp) -> Write<Run> {
        self.guarded(lease, now, Event::Release.as_str(), |row| {
            if row.run.cancel.is_some() {
                let (event, reason) = row.stopped_by(Event::AcknowledgeCancel);
                row.finish(event, reason, now);
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

    /// Takes runs in this order, up to the limit, each only while its concurrency key has room.
    fn within_limits<'a>(
        &self,
        waiting: Vec<&'a Run>,
        limit: Limit,
        now: Timestamp,
    ) -> Vec<&'a Run> {
        let mut used: BTreeMap<&ConcurrencyKey, usize> = BTreeMap::new();
        for row in self.rows.values() {
            if let Some(concurrency) = &row.run.concurrency
                && row.run.status == RunStatus::Running
                && !row.has_expired(now)
            {
                *used.entry(&concurrency.key).or_default() += 1;
            }
        }
        let mut used: BTreeMap<ConcurrencyKey, usize> = used
            .into_iter()
            .map(|(key, count)| (key.clone(), count))
            .collect();
        let has_room = |run: &&Run| {
            let Some(concurrency) = &run.concurrency else {
                return true;
            };
            let used = used.entry(concurrency.key.clone()).or_default();
            let has_room = count(*used) < u64::from(concurrency.limit.get());
            *used += usize::from(has_room);
            has_room
        };
        waiting
            .into_iter()
            .filter(has_room)
            .take(limit.get())
            .collect()
    }
}

/// Where a waiting run stands among the others.
fn waiting_place(run: &RunSummary) -> (Reverse<Priority>, Timestamp, RunId) {
    (Reverse(run.priority), run.created_at, run.id)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn may_claim(run: &Run, claim: &Claim, now: Timestamp) -> bool {
    let is_meant = match &claim.of {
        ClaimOf::Waiting(WaitingRuns { queues, workflows }) => {
            let queues = queues.as_ref();
            let workflows = workflows.as_ref();
            queues.is_none_or(|queues| queues.contains(&run.queue))
                && workflows.is_none_or(|workflows| workflows.contains(&run.workflow))
        }
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
    let (lease, expires_at) = claim.take(&mut row.run.summary, now);
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

pub(super) fn stale<T>(row: &Row) -> Write<T> {
    Write::Stale {
        current: Box::new(row.run.summary.clone()),
    }
}
