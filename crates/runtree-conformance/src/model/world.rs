//! The naive model: a list of runs, and each act of the transition table written out over it, as slowly and plainly as can be.

use std::collections::BTreeSet;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, Event, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CancelCause, CancelIntent, CancelMode, CancelRequest, Claim, ClaimOf, Claimed, ConflictOver,
    CreateRun, Created, Ending, EventKind, EventNumber, Fingerprint, HostPath, Lease, LeaseRef,
    Outcome, Overdue, Persistence, ProcessMark, Renewal, Rescue, Rescued, Retention, RetryRun, Run,
    RunEvent, RunFacts, RunSummary, Token, Usage, WorktreeKey, WorktreeRecord, WorktreeSite,
    WorktreeState, Write,
};

use super::wish::Wish;
use crate::failure::Checked;

/// All that one namespace holds, and what time it is.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) records: Vec<Record>,
}

/// One run and what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) run: Run,
    fingerprint: Fingerprint,
    heartbeat_at: Timestamp,
    child: Option<ProcessMark>,
    pub(super) worktrees: Vec<WorktreeRecord>,
    pub(super) wishes: Vec<Wish>,
    /// What happened; with a rejected write, what was tried.
    history: Vec<(RunEvent, &'static str)>,
}

impl World {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            records: Vec::new(),
        }
    }

    pub(super) fn record(&self, id: RunId) -> Option<&Record> {
        self.records.iter().find(|record| record.run.id == id)
    }

    pub(super) fn record_mut(&mut self, id: RunId) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.run.id == id)
    }

    /// Act 1: the idempotency key decides, then the id, then the unique key among runs that have not ended.
    pub(super) fn create(&mut self, request: &CreateRun) -> Checked<Created> {
        let wanted = request.run.check()?;
        let key = |record: &&Record| {
            wanted.idempotency_key.is_some() && record.run.idempotency_key == wanted.idempotency_key
        };
        let found = [
            (ConflictOver::IdempotencyKey, self.records.iter().find(key)),
            (ConflictOver::Id, self.record(request.id)),
        ];
        for (over, record) in found {
            let Some(record) = record else { continue };
            let existing = record.run.clone();
            return Ok(if record.fingerprint == wanted.fingerprint {
                Created::Existing(existing)
            } else {
                Created::Conflict { over, existing }
            });
        }
        if let Some(holder) = self.holder(wanted.unique_key.as_ref()) {
            let over = ConflictOver::UniqueKey;
            let existing = holder.run.clone();
            return Ok(Created::Conflict { over, existing });
        }
        let now = self.now;
        let run = Run {
            summary: RunSummary {
                id: request.id,
                workflow: wanted.workflow,
                status: RunStatus::Pending,
                end_reason: None,
                queue: wanted.queue,
                priority: wanted.priority,
                idempotency_key: wanted.idempotency_key,
                unique_key: wanted.unique_key,
                concurrency: wanted.concurrency,
                session_id: wanted.session_id,
                user: wanted.user,
                attempts: 0,
                max_attempts: wanted.max_attempts,
                token: Token::NONE,
                owner: None,
                lease_expires_at: None,
                cancel: None,
                worktree: request.worktree.clone(),
                retry_of: None,
                tags: wanted.tags,
                facts: wanted.facts,
                usage: Usage::default(),
                available_at: wanted.available_at.unwrap_or(now),
                deadline: wanted.deadline,
                created_at: now,
                updated_at: now,
                started_at: None,
                ended_at: None,
            },
            input: wanted.input,
            result: None,
            error: None,
            metadata: wanted.metadata,
            file_changes: Vec::new(),
        };
        self.add(run.clone(), wanted.fingerprint);
        Ok(Created::New(run))
    }

    fn add(&mut self, run: Run, fingerprint: Fingerprint) {
        let mut record = Record {
            run,
            fingerprint,
            heartbeat_at: self.now,
            child: None,
            worktrees: Vec::new(),
            wishes: Vec::new(),
            history: Vec::new(),
        };
        record.tell(EventKind::Created, self.now);
        self.records.push(record);
    }

    fn holder(&self, key: Option<&runtree_repository::UniqueKey>) -> Option<&Record> {
        let key = key?;
        self.records
            .iter()
            .find(|record| record.run.unique_key.as_ref() == Some(key) && !record.run.has_ended())
    }

    /// Act 2: the highest priority, then the oldest, then the smallest id; as long as its key has room.
    pub(super) fn claim(&mut self, claim: &Claim) -> Checked<Vec<Claimed>> {
        let now = self.now;
        let mut waiting: Vec<&Run> = self
            .records
            .iter()
            .map(|record| &record.run)
            .filter(|run| {
                run.status == RunStatus::Pending
                    && run.cancel.is_none()
                    && run.available_at <= now
                    && is_meant(&claim.of, run)
                    && (run.worktree.is_none() || claim.site.is_some())
            })
            .collect();
        waiting.sort_by_key(|run| (-i32::from(run.priority.get()), run.created_at, run.id));
        let waiting: Vec<RunId> = waiting.into_iter().map(|run| run.id).collect();
        let mut claimed = Vec::new();
        for id in waiting {
            if claimed.len() == claim.limit.get() {
                break;
            }
            if !self.has_room(id) {
                continue;
            }
            if let Some(record) = self.record_mut(id) {
                claimed.push(record.claim(claim, now)?);
            }
        }
        Ok(claimed)
    }

    /// Fewer runs with its concurrency key hold a live lease than the run's own limit says.
    fn has_room(&self, id: RunId) -> bool {
        let limit = self
            .record(id)
            .and_then(|record| record.run.concurrency.as_ref());
        limit.is_none_or(|limit| {
            let used = self.users_of_key(id).len();
            u64::try_from(used).is_ok_and(|used| used < u64::from(limit.limit.get()))
        })
    }

    /// The other runs with the run's concurrency key whose leases are alive.
    pub(super) fn users_of_key(&self, id: RunId) -> BTreeSet<RunId> {
        let Some(wanted) = self
            .record(id)
            .and_then(|record| record.run.concurrency.as_ref())
        else {
            return BTreeSet::new();
        };
        self.records
            .iter()
            .filter(|record| record.run.id != id && record.is_alive(self.now))
            .filter(|record| {
                let used = record.run.concurrency.as_ref();
                used.is_some_and(|used| used.key == wanted.key)
            })
            .map(|record| record.run.id)
            .collect()
    }

    /// Act 3.
    pub(super) fn renew(&mut self, leases: &[LeaseRef], time: Duration) -> Vec<Renewal> {
        let now = self.now;
        let renew = |lease: &LeaseRef| {
            let Some(record) = self.record_mut(lease.run) else {
                return Renewal::Lost;
            };
            if !record.is_owned_under(lease.token) || !record.is_alive(now) {
                record.reject(lease.token, Event::Renew.as_str(), now);
                return Renewal::Lost;
            }
            let expires_at = now.saturating_add(time);
            record.heartbeat_at = now;
            record.run.summary.lease_expires_at = Some(expires_at);
            Renewal::Renewed {
                expires_at,
                cancel: record.run.cancel.clone(),
            }
        };
        leases.iter().map(renew).collect()
    }

    /// What an owner writes, if it is the owner; what it tries otherwise is an event.
    fn owned<T>(
        &mut self,
        lease: LeaseRef,
        what: &'static str,
        write: impl FnOnce(&mut Record, Timestamp) -> Option<Write<T>>,
    ) -> Write<T> {
        let now = self.now;
        let Some(record) = self.record_mut(lease.run) else {
            return Write::NotFound;
        };
        if record.is_owned_under(lease.token)
            && let Some(answer) = write(record, now)
        {
            return answer;
        }
        record.reject(lease.token, what, now);
        record.stale()
    }

    pub(super) fn record_child(&mut self, lease: LeaseRef, child: &ProcessMark) -> Write<()> {
        self.owned(lease, "record_child", |record, _| {
            record.child = Some(child.clone());
            Some(Write::Applied(()))
        })
    }

    pub(super) fn worktree_ready(&mut self, lease: LeaseRef) -> Write<WorktreeRecord> {
        self.owned(lease, "worktree_ready", |record, now| {
            let held = record
                .worktrees
                .iter_mut()
                .find(|worktree| worktree.held_by == lease.token)?;
            if held.state == WorktreeState::Ready {
                return Some(Write::Already(held.clone()));
            }
            if held.state != WorktreeState::Adding {
                return None;
            }
            held.state = WorktreeState::Ready;
            held.updated_at = now;
            let held = held.clone();
            record.tell(EventKind::WorktreeReady, now);
            Some(Write::Applied(held))
        })
    }

    /// Acts 4, 5 and 8.
    pub(super) fn end(&mut self, ending: &Ending) -> Write<Run> {
        let Ending { lease, outcome } = ending;
        if let Some(record) = self.record(lease.run)
            && record.run.token == lease.token
            && record.ended_as(outcome)
        {
            return Write::Already(record.run.clone());
        }
        let event = match outcome {
            Outcome::Completed { .. } => Event::Complete,
            Outcome::Failed { .. } => Event::Fail,
            _ => Event::AcknowledgeCancel,
        };
        self.owned(*lease, event.as_str(), |record, now| {
            if event == Event::Complete && !record.is_alive(now) {
                return None;
            }
            record.end(outcome, now);
            Some(Write::Applied(record.run.clone()))
        })
    }

    /// Act 11.
    pub(super) fn release(&mut self, lease: LeaseRef) -> Write<Run> {
        self.owned(lease, Event::Release.as_str(), |record, now| {
            if record.run.cancel.is_some() {
                record.stop(Event::AcknowledgeCancel, now);
            } else {
                record.run.summary.attempts -= 1;
                record.wait(Event::Release, now);
                record.tell(EventKind::Released, now);
            }
            Some(Write::Applied(record.run.clone()))
        })
    }

    /// Acts 6 and 7.
    pub(super) fn cancel(&mut self, id: RunId, request: &CancelRequest) -> Write<Run> {
        let now = self.now;
        let Some(record) = self.record_mut(id) else {
            return Write::NotFound;
        };
        if record.run.has_ended() {
            return Write::Already(record.run.clone());
        }
        if record.run.status == RunStatus::Pending {
            record.run.summary.cancel = Some(CancelIntent::of(request, now));
            record.finish(Event::CancelBeforeStart, None, now);
            return Write::Applied(record.run.clone());
        }
        let wish = CancelIntent::of(request, now);
        let intent = match record.run.cancel.clone() {
            None => wish,
            Some(old) if old.mode == CancelMode::Graceful && wish.mode == CancelMode::Forced => {
                let mut stronger = old;
                stronger.mode = CancelMode::Forced;
                stronger.deadline = wish.deadline.or(stronger.deadline);
                stronger.reason = wish.reason.or(stronger.reason);
                stronger.by = wish.by.or(stronger.by);
                stronger
            }
            Some(_) => return Write::Already(record.run.clone()),
        };
        record.run.summary.cancel = Some(intent);
        record.tell(EventKind::CancelRequested, now);
        Write::Applied(record.run.clone())
    }

    /// Acts 6 and 9.
    pub(super) fn force_kill(&mut self, id: RunId, request: &CancelRequest) -> Write<Run> {
        let now = self.now;
        let Some(record) = self.record_mut(id) else {
            return Write::NotFound;
        };
        if record.run.has_ended() {
            return Write::Already(record.run.clone());
        }
        if record.run.status == RunStatus::Pending {
            return self.cancel(id, request);
        }
        let wish = CancelIntent::of(request, now);
        record.run.summary.cancel.get_or_insert(wish);
        record.run.summary.token = record.run.token.next();
        record.finish(Event::ForceKill, None, now);
        Write::Applied(record.run.clone())
    }

    /// The leases of running runs, alive or not.
    pub(super) fn leases(&self) -> Vec<Lease> {
        let lease = |record: &Record| {
            Some(Lease::new(
                record.lease(),
                record.run.owner.clone()?,
                record.child.clone(),
                record.heartbeat_at,
                record.run.lease_expires_at?,
            ))
        };
        self.records.iter().filter_map(lease).collect()
    }

    /// Act 10.
    pub(super) fn rescue(&mut self, rescue: &Rescue) -> Vec<Rescued> {
        let now = self.now;
        let is_running = |record: &&Record| record.run.status == RunStatus::Running;
        let running: Vec<&Record> = self.records.iter().filter(is_running).collect();
        let mut chosen: Vec<LeaseRef> = running
            .iter()
            .map(|record| record.lease())
            .filter(|lease| rescue.proven_dead.contains(lease))
            .collect();
        let mut expired: Vec<(Option<Timestamp>, RunId, LeaseRef)> = running
            .iter()
            .filter(|record| !record.is_alive(now) && !rescue.spare.contains(&record.run.id))
            .map(|record| (record.run.lease_expires_at, record.run.id, record.lease()))
            .filter(|(_, _, lease)| !chosen.contains(lease))
            .collect();
        expired.sort();
        expired.truncate(rescue.limit.get());
        chosen.extend(expired.into_iter().map(|(_, _, lease)| lease));
        let mut rescued = Vec::new();
        for lease in chosen {
            if let Some(record) = self.record_mut(lease.run) {
                record.rescue(now);
                rescued.push(Rescued::new(lease, record.run.summary.clone()));
            }
        }
        rescued
    }

    /// Act 12.
    pub(super) fn time_out(&mut self, overdue: &Overdue) -> Vec<RunSummary> {
        let now = self.now;
        let mut late: Vec<(Timestamp, RunId)> = self
            .records
            .iter()
            .filter(|record| !record.run.has_ended() && record.is_to_be_timed_out(now))
            .filter_map(|record| Some((record.run.deadline?, record.run.id)))
            .filter(|(deadline, _)| *deadline <= now)
            .collect();
        late.sort();
        late.truncate(overdue.limit.get());
        let mut changed = Vec::new();
        for (_, id) in late {
            if let Some(record) = self.record_mut(id) {
                record.time_out(overdue.grace, now);
                changed.push(record.run.summary.clone());
            }
        }
        changed
    }

    /// Act 13.
    pub(super) fn retry(&mut self, request: &RetryRun) -> Write<Created> {
        let now = self.now;
        let Some(ended) = self.record(request.of).cloned() else {
            return Write::NotFound;
        };
        if !ended.run.has_ended() {
            return ended.stale();
        }
        if let Some(other) = self.record(request.id) {
            let existing = other.run.clone();
            return if existing.retry_of == Some(request.of) {
                Write::Already(Created::Existing(existing))
            } else {
                let over = ConflictOver::Id;
                Write::Applied(Created::Conflict { over, existing })
            };
        }
        if let Some(holder) = self.holder(ended.run.unique_key.as_ref()) {
            let over = ConflictOver::UniqueKey;
            let existing = holder.run.clone();
            return Write::Applied(Created::Conflict { over, existing });
        }
        if let Some(record) = self.record_mut(request.of) {
            record.tell(EventKind::Retried, now);
        }
        let run = again(&ended.run, request, now);
        self.add(run.clone(), ended.fingerprint);
        Write::Applied(Created::New(run))
    }

    /// Retention: the longest ended first, and none with a worktree that is still there or to be cleaned up.
    pub(super) fn delete_ended(&mut self, retention: &Retention) -> Vec<RunId> {
        let mut old: Vec<(Timestamp, RunId)> = self
            .records
            .iter()
            .filter(|record| {
                record.wishes.is_empty()
                    && record
                        .worktrees
                        .iter()
                        .all(|worktree| worktree.state == WorktreeState::Removed)
            })
            .filter_map(|record| Some((record.run.ended_at?, record.run.id)))
            .filter(|(ended_at, _)| *ended_at < retention.ended_before)
            .collect();
        old.sort();
        old.truncate(retention.limit.get());
        let old: Vec<RunId> = old.into_iter().map(|(_, id)| id).collect();
        self.records.retain(|record| !old.contains(&record.run.id));
        old
    }
}

impl Record {
    pub(super) fn lease(&self) -> LeaseRef {
        LeaseRef {
            run: self.run.id,
            token: self.run.token,
        }
    }

    pub(super) fn events(&self) -> Vec<RunEvent> {
        self.history
            .iter()
            .map(|(event, _)| event.clone())
            .collect()
    }

    fn is_owned_under(&self, token: Token) -> bool {
        self.run.status == RunStatus::Running && self.run.token == token
    }

    /// Runs under a lease that has not expired.
    fn is_alive(&self, now: Timestamp) -> bool {
        self.run.status == RunStatus::Running
            && self.run.lease_expires_at.is_some_and(|until| now < until)
    }

    pub(super) fn tell(&mut self, kind: EventKind, now: Timestamp) {
        self.write_down(kind, self.run.token, "", now);
    }

    fn reject(&mut self, token: Token, what: &'static str, now: Timestamp) {
        // The same refusal again says nothing new.
        let said = self.history.last().is_some_and(|(event, tried)| {
            event.kind == EventKind::Rejected && event.token == token && *tried == what
        });
        if !said {
            self.write_down(EventKind::Rejected, token, what, now);
        }
    }

    fn write_down(&mut self, kind: EventKind, token: Token, what: &'static str, now: Timestamp) {
        let last = self
            .history
            .last()
            .map_or(0, |(event, _)| event.number.get());
        let event = RunEvent {
            number: EventNumber::new(last + 1),
            at: now,
            kind,
            token,
            detail: None,
        };
        self.history.push((event, what));
        self.run.summary.updated_at = now;
    }

    pub(super) fn stale<T>(&self) -> Write<T> {
        Write::Stale {
            current: Box::new(self.run.summary.clone()),
        }
    }

    fn moved(&mut self, event: Event) {
        let to = self.run.status.apply(event);
        self.run.summary.status = to.expect("because the model asks for what the table allows");
        if self.run.status != RunStatus::Running {
            self.run.summary.owner = None;
            self.run.summary.lease_expires_at = None;
            self.child = None;
        }
    }

    fn claim(&mut self, claim: &Claim, now: Timestamp) -> Checked<Claimed> {
        self.moved(Event::Claim);
        let expires_at = now.saturating_add(claim.lease_time.get());
        let summary = &mut self.run.summary;
        summary.token = summary.token.next();
        summary.attempts += 1;
        summary.started_at = summary.started_at.or(Some(now));
        summary.owner = Some(claim.owner.clone());
        summary.lease_expires_at = Some(expires_at);
        self.heartbeat_at = now;
        self.tell(EventKind::Claimed, now);
        let worktree = match &claim.site {
            Some(site) => self.worktree_on(site, now)?,
            None => None,
        };
        Ok(Claimed::new(
            self.lease(),
            expires_at,
            self.run.clone(),
            worktree,
        ))
    }

    /// The worktree that an earlier attempt left there, or a new one.
    fn worktree_on(
        &mut self,
        site: &WorktreeSite,
        now: Timestamp,
    ) -> Checked<Option<WorktreeRecord>> {
        let token = self.run.token;
        let left = self.worktrees.iter_mut().find(|worktree| {
            worktree.site.host == site.host && worktree.site.git_repository == site.git_repository
        });
        if let Some(left) = left {
            left.held_by = token;
            left.updated_at = now;
            return Ok(Some(left.clone()));
        }
        let Some(wanted) = self.run.worktree.clone() else {
            return Ok(None);
        };
        let path = site.root.as_path().join(wanted.name.as_str());
        let planned = WorktreeRecord {
            key: WorktreeKey {
                run: self.run.id,
                planned_by: token,
            },
            site: site.clone(),
            path: HostPath::from_path(&path)?,
            wanted,
            state: WorktreeState::Adding,
            held_by: token,
            salvage: None,
            reason: None,
            created_at: now,
            updated_at: now,
        };
        self.worktrees.push(planned.clone());
        Ok(Some(planned))
    }

    /// Puts the run back among those that wait.
    fn wait(&mut self, event: Event, until: Timestamp) {
        self.moved(event);
        self.run.summary.available_at = until;
    }

    /// Ends the run for good; what becomes of its worktrees is decided in the same breath.
    fn finish(&mut self, event: Event, reason: Option<EndReason>, now: Timestamp) {
        self.moved(event);
        self.run.summary.end_reason = reason.or(event.transition().end_reason);
        self.run.summary.ended_at = Some(now);
        let kind = match self.run.status {
            RunStatus::Completed => EventKind::Completed,
            RunStatus::Killed => EventKind::Killed,
            _ => EventKind::Failed,
        };
        self.tell(kind, now);
        for at in 0..self.worktrees.len() {
            let Some(worktree) = self.worktrees.get_mut(at) else {
                continue;
            };
            if worktree.wanted.persistence == Persistence::Persistent {
                worktree.state = WorktreeState::Kept;
                worktree.updated_at = now;
                self.tell(EventKind::WorktreeKept, now);
            } else {
                self.wishes.push(Wish::new(worktree.key, now));
                self.tell(EventKind::CleanupWanted, now);
            }
        }
    }

    /// Ends a run that was asked to stop: for its deadline if that asked, else by this event.
    fn stop(&mut self, event: Event, now: Timestamp) {
        match self.cause() {
            CancelCause::Deadline => self.finish(Event::TimeOut, None, now),
            CancelCause::Request => self.finish(event, Some(EndReason::Killed), now),
        }
    }

    fn cause(&self) -> CancelCause {
        let cancel = self.run.cancel.as_ref();
        cancel.map_or(CancelCause::Request, |cancel| cancel.cause)
    }

    fn end(&mut self, outcome: &Outcome, now: Timestamp) {
        match outcome {
            Outcome::Completed { result } => {
                self.run.result.clone_from(result);
                self.finish(Event::Complete, None, now);
            }
            Outcome::Failed { error, retry_after } => {
                self.run.error = Some(error.clone());
                let has_attempts = self.run.attempts < self.run.max_attempts.get();
                if self.run.cancel.is_some() {
                    self.stop(Event::FailCancelled, now);
                } else if let Some(delay) = retry_after.filter(|_| has_attempts) {
                    self.wait(Event::FailRetry, now.saturating_add(delay));
                    self.tell(EventKind::RetryPlanned, now);
                } else {
                    self.finish(Event::Fail, None, now);
                }
            }
            _ => self.stop(Event::AcknowledgeCancel, now),
        }
    }

    /// Tells whether the run has ended as this outcome would have ended it.
    fn ended_as(&self, outcome: &Outcome) -> bool {
        let stopped = match self.cause() {
            CancelCause::Deadline => RunStatus::Failed,
            CancelCause::Request => RunStatus::Killed,
        };
        let status = match outcome {
            Outcome::Completed { .. } => RunStatus::Completed,
            Outcome::Failed { .. } if self.run.cancel.is_none() => RunStatus::Failed,
            _ => stopped,
        };
        self.run.has_ended() && self.run.status == status
    }

    fn rescue(&mut self, now: Timestamp) {
        self.run.summary.token = self.run.token.next();
        self.tell(EventKind::Rescued, now);
        if self.run.cancel.is_some() {
            self.stop(Event::RescueKilled, now);
        } else if self.run.attempts < self.run.max_attempts.get() {
            self.wait(Event::RescuePending, now);
        } else {
            self.finish(Event::RescueLost, None, now);
        }
    }

    /// Nobody has asked the run to stop, or its deadline has and the time for that is over.
    fn is_to_be_timed_out(&self, now: Timestamp) -> bool {
        let cancel = self.run.cancel.as_ref();
        cancel.is_none_or(|cancel| {
            cancel.cause == CancelCause::Deadline
                && cancel.deadline.is_some_and(|until| until <= now)
        })
    }

    fn time_out(&mut self, grace: Duration, now: Timestamp) {
        let is_running = self.run.status == RunStatus::Running;
        if is_running && self.run.cancel.is_none() {
            let mut intent = CancelIntent::new(CancelMode::Graceful, CancelCause::Deadline, now);
            intent.deadline = Some(now.saturating_add(grace));
            self.run.summary.cancel = Some(intent);
            self.tell(EventKind::DeadlinePassed, now);
            return;
        }
        if is_running {
            self.run.summary.token = self.run.token.next();
        }
        self.finish(Event::TimeOut, None, now);
    }
}

fn is_meant(of: &ClaimOf, run: &Run) -> bool {
    match of {
        ClaimOf::Run(id) => run.id == *id,
        ClaimOf::Waiting(waiting) => {
            let queues = waiting.queues.as_ref();
            let workflows = waiting.workflows.as_ref();
            queues.is_none_or(|queues| queues.contains(&run.queue))
                && workflows.is_none_or(|workflows| workflows.contains(&run.workflow))
        }
        _ => false,
    }
}

/// The run that a retry makes: what was asked for, without what was learnt, under no idempotency key.
fn again(ended: &Run, request: &RetryRun, now: Timestamp) -> Run {
    let mut run = ended.clone();
    run.result = None;
    run.error = None;
    run.file_changes = Vec::new();
    let summary = &mut run.summary;
    summary.id = request.id;
    summary.status = RunStatus::Pending;
    summary.end_reason = None;
    summary.idempotency_key = None;
    summary.attempts = 0;
    summary.token = Token::NONE;
    summary.cancel = None;
    summary.worktree = request.worktree.clone();
    summary.retry_of = Some(request.of);
    let facts: &mut RunFacts = &mut summary.facts;
    facts.first_commit = None;
    facts.last_commit = None;
    facts.diff = None;
    summary.usage = Usage::default();
    summary.available_at = request.available_at.unwrap_or(now);
    summary.deadline = request.deadline;
    summary.created_at = now;
    summary.updated_at = now;
    summary.started_at = None;
    summary.ended_at = None;
    run
}
