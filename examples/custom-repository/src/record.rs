//! One run with all that belongs to it, as it is stored, and the changes that it goes through: pure, so that the store only reads,
//! changes and writes.

use std::time::Duration;

use runtree_repository::status::{EndReason, Event, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CancelCause, CancelIntent, CancelMode, CancelRequest, Claim, Claimed, EventKind, EventNumber,
    HostPath, Lease, LeaseRef, Outcome, Owner, Persistence, ProcessMark, Renewal, RepositoryError,
    Run, RunEvent, Token, WorktreeKey, WorktreeRecord, WorktreeSite, WorktreeState, Write,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What one key of the store holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) run: Run,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) lease: Option<LeaseRow>,
    pub(crate) worktrees: Vec<WorktreeRecord>,
    pub(crate) cleanups: Vec<CleanupRow>,
    pub(crate) events: Vec<RunEvent>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeaseRow {
    pub(crate) owner: Owner,
    pub(crate) child: Option<ProcessMark>,
    heartbeat_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// A worktree of an ended run that is to be cleaned up.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CleanupRow {
    pub(crate) planned_by: Token,
    pub(crate) wanted_at: Timestamp,
    pub(crate) available_at: Timestamp,
    pub(crate) token: Token,
    pub(crate) tries: u32,
    /// Who works on it, and until when.
    pub(crate) held: Option<(Owner, Timestamp)>,
}

impl Record {
    pub(crate) fn new(run: Run, fingerprint: [u8; 32], now: Timestamp) -> Self {
        let mut record = Self {
            run,
            fingerprint,
            lease: None,
            worktrees: Vec::new(),
            cleanups: Vec::new(),
            events: Vec::new(),
        };
        record.tell(EventKind::Created, now, None);
        record
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub(crate) fn stale<T>(&self) -> Write<T> {
        Write::Stale {
            current: Box::new(self.run.summary.clone()),
        }
    }

    pub(crate) fn lease_ref(&self) -> LeaseRef {
        LeaseRef {
            run: self.run.id,
            token: self.run.token,
        }
    }

    /// The lease as others see it.
    pub(crate) fn lease_view(&self) -> Option<Lease> {
        let lease = self.lease.as_ref()?;
        Some(Lease::new(
            self.lease_ref(),
            lease.owner.clone(),
            lease.child.clone(),
            lease.heartbeat_at,
            lease.expires_at,
        ))
    }

    pub(crate) fn is_held_by(&self, lease: LeaseRef) -> bool {
        self.run.status == RunStatus::Running && self.run.token == lease.token
    }

    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        let lease = self.lease.as_ref();
        lease.is_none_or(|lease| lease.expires_at <= now)
    }

    pub(crate) fn tell(&mut self, kind: EventKind, at: Timestamp, detail: Option<Value>) {
        self.tell_of(self.run.token, kind, at, detail);
    }

    fn tell_of(&mut self, token: Token, kind: EventKind, at: Timestamp, detail: Option<Value>) {
        let last = self.events.last().map_or(0, |event| event.number.get());
        let summary = &mut self.run.summary;
        summary.updated_at = summary.updated_at.max(at).max(summary.created_at);
        self.events.push(RunEvent {
            number: EventNumber::new(last + 1),
            at,
            kind,
            token,
            detail,
        });
    }

    /// Records a write that was refused, once.
    pub(crate) fn reject(&mut self, token: Token, what: &str, at: Timestamp) {
        let detail = Some(json!({ "event": what }));
        let is_repeated = self.events.last().is_some_and(|last| {
            last.kind == EventKind::Rejected && last.token == token && last.detail == detail
        });
        if !is_repeated {
            self.tell_of(token, EventKind::Rejected, at, detail);
        }
    }

    /// Moves the run as the one table says.
    fn moved(&mut self, event: Event) {
        let to = self.run.status.apply(event);
        self.run.summary.status = to.expect("because the guard was checked before");
    }

    fn set_lease(&mut self, lease: Option<LeaseRow>) {
        self.run.summary.owner = lease.as_ref().map(|lease| lease.owner.clone());
        self.run.summary.lease_expires_at = lease.as_ref().map(|lease| lease.expires_at);
        self.lease = lease;
    }

    pub(crate) fn claim(
        &mut self,
        claim: &Claim,
        path: Option<HostPath>,
        now: Timestamp,
    ) -> Claimed {
        self.moved(Event::Claim);
        let (lease, expires_at) = claim.take(&mut self.run.summary, now);
        self.set_lease(Some(LeaseRow {
            owner: claim.owner.clone(),
            child: None,
            heartbeat_at: now,
            expires_at,
        }));
        let (attempt, owner) = (self.run.attempts, &claim.owner);
        let detail = json!({ "attempt": attempt, "owner": owner.id, "host": owner.host });
        self.tell(EventKind::Claimed, now, Some(detail));
        let place = claim.site.as_ref().zip(path);
        let worktree = place.and_then(|(site, path)| self.worktree_on(site, path, now));
        Claimed::new(lease, expires_at, self.run.clone(), worktree)
    }

    /// Hands on the worktree that an earlier attempt left there, or plans one.
    fn worktree_on(
        &mut self,
        site: &WorktreeSite,
        path: HostPath,
        now: Timestamp,
    ) -> Option<WorktreeRecord> {
        let token = self.run.token;
        let is_left = |worktree: &&mut WorktreeRecord| {
            [WorktreeState::Adding, WorktreeState::Ready].contains(&worktree.state)
                && worktree.site.host == site.host
                && worktree.site.git_repository == site.git_repository
        };
        if let Some(left) = self.worktrees.iter_mut().rev().find(is_left) {
            left.held_by = token;
            left.updated_at = now.max(left.updated_at);
            return Some(left.clone());
        }
        let planned = WorktreeRecord {
            key: WorktreeKey {
                run: self.run.id,
                planned_by: token,
            },
            site: site.clone(),
            path,
            wanted: self.run.worktree.clone()?,
            state: WorktreeState::Adding,
            held_by: token,
            salvage: None,
            reason: None,
            created_at: now,
            updated_at: now,
        };
        self.worktrees.push(planned.clone());
        Some(planned)
    }

    pub(crate) fn renew(&mut self, lease: LeaseRef, time: Duration, now: Timestamp) -> Renewal {
        if !self.is_held_by(lease) || self.has_expired(now) {
            self.reject(lease.token, Event::Renew.as_str(), now);
            return Renewal::Lost;
        }
        let expires_at = now.saturating_add(time);
        if let Some(held) = &mut self.lease {
            held.heartbeat_at = now;
            held.expires_at = expires_at;
        }
        self.run.summary.lease_expires_at = Some(expires_at);
        Renewal::Renewed {
            expires_at,
            cancel: self.run.cancel.clone(),
        }
    }

    pub(crate) fn worktree_ready(
        &mut self,
        lease: LeaseRef,
        now: Timestamp,
    ) -> Option<Write<WorktreeRecord>> {
        let is_held = |worktree: &&mut WorktreeRecord| worktree.held_by == lease.token;
        let worktree = self.worktrees.iter_mut().rev().find(is_held)?;
        if worktree.state == WorktreeState::Ready {
            return Some(Write::Already(worktree.clone()));
        }
        if worktree.state != WorktreeState::Adding {
            return None;
        }
        worktree.state = WorktreeState::Ready;
        worktree.updated_at = now.max(worktree.updated_at);
        let ready = worktree.clone();
        self.tell(EventKind::WorktreeReady, now, None);
        Some(Write::Applied(ready))
    }

    /// Lets the run wait for another attempt.
    fn wait(&mut self, event: Event, available_at: Timestamp) {
        self.moved(event);
        self.run.summary.available_at = available_at;
        self.set_lease(None);
    }

    /// Ends the run, and wishes its worktrees cleaned up in the same write.
    fn finish(&mut self, event: Event, reason: EndReason, now: Timestamp) {
        self.moved(event);
        self.set_lease(None);
        let summary = &mut self.run.summary;
        let earliest = summary.started_at.unwrap_or(summary.created_at);
        summary.end_reason = Some(reason);
        summary.ended_at = Some(now.max(earliest));
        let kind = if summary.status == RunStatus::Completed {
            EventKind::Completed
        } else if summary.status == RunStatus::Killed {
            EventKind::Killed
        } else {
            EventKind::Failed
        };
        self.tell(kind, now, Some(json!({ "reason": reason.as_str() })));
        let mut told = Vec::new();
        for worktree in &mut self.worktrees {
            if ![WorktreeState::Adding, WorktreeState::Ready].contains(&worktree.state) {
                continue;
            }
            if worktree.wanted.persistence == Persistence::Persistent {
                worktree.state = WorktreeState::Kept;
                worktree.updated_at = now.max(worktree.updated_at);
                told.push(EventKind::WorktreeKept);
                continue;
            }
            told.push(EventKind::CleanupWanted);
            self.cleanups.push(CleanupRow {
                planned_by: worktree.key.planned_by,
                wanted_at: now,
                available_at: now,
                token: Token::NONE,
                tries: 0,
                held: None,
            });
        }
        for kind in told {
            self.tell(kind, now, None);
        }
    }

    fn cause(&self) -> CancelCause {
        let cancel = self.run.cancel.as_ref();
        cancel.map(|cancel| cancel.cause).unwrap_or_default()
    }

    /// Ends a run that was asked to stop: by this event, or for its deadline.
    fn stop(&mut self, event: Event, now: Timestamp) {
        let cause = self.cause();
        let event = match cause {
            CancelCause::Request => event,
            CancelCause::Deadline => Event::TimeOut,
        };
        self.finish(event, cause.end_reason(), now);
    }

    /// Tells whether the run ended as this outcome would end it.
    pub(crate) fn ended_as(&self, outcome: &Outcome) -> bool {
        let is_asked = self.run.cancel.is_some();
        let reason = match outcome {
            Outcome::Failed { .. } | Outcome::Killed if is_asked => self.cause().end_reason(),
            _ => outcome.end_reason(),
        };
        self.run.has_ended() && Some(self.run.status) == reason.status()
    }

    pub(crate) fn end(&mut self, outcome: &Outcome, now: Timestamp) {
        match outcome {
            Outcome::Completed { result } => {
                self.run.result.clone_from(result);
                self.finish(Event::Complete, EndReason::Succeeded, now);
            }
            Outcome::Failed { error, retry_after } => {
                self.run.error = Some(error.clone());
                let has_attempts = self.run.attempts < self.run.max_attempts.get();
                if self.run.cancel.is_some() {
                    self.stop(Event::FailCancelled, now);
                } else if let Some(delay) = retry_after.filter(|_| has_attempts) {
                    self.wait(Event::FailRetry, now.saturating_add(delay));
                    let detail = json!({ "available_at": self.run.available_at });
                    self.tell(EventKind::RetryPlanned, now, Some(detail));
                } else {
                    self.finish(Event::Fail, EndReason::Error, now);
                }
            }
            _ => self.stop(Event::AcknowledgeCancel, now),
        }
    }

    pub(crate) fn release(&mut self, now: Timestamp) {
        if self.run.cancel.is_some() {
            return self.stop(Event::AcknowledgeCancel, now);
        }
        self.run.summary.attempts = self.run.attempts.saturating_sub(1);
        self.wait(Event::Release, now);
        self.tell(EventKind::Released, now, None);
    }

    /// Wishes that the run stops; answers whether that is news.
    pub(crate) fn cancel(&mut self, request: &CancelRequest, now: Timestamp) -> bool {
        let wish = CancelIntent::of(request, now);
        if self.run.status == RunStatus::Pending {
            self.run.summary.cancel = Some(wish);
            self.finish(
                Event::CancelBeforeStart,
                EndReason::CancelledBeforeStart,
                now,
            );
            return true;
        }
        let intent = match self.run.cancel.clone() {
            None => wish,
            Some(mut old) if old.mode < wish.mode => {
                old.mode = wish.mode;
                old.deadline = wish.deadline.or(old.deadline);
                old.reason = wish.reason.or(old.reason);
                old.by = wish.by.or(old.by);
                old
            }
            Some(_) => return false,
        };
        let detail = json!({ "mode": intent.mode.as_str(), "by": intent.by });
        self.run.summary.cancel = Some(intent);
        self.tell(EventKind::CancelRequested, now, Some(detail));
        true
    }

    pub(crate) fn force_kill(&mut self, request: &CancelRequest, now: Timestamp) -> bool {
        if self.run.status == RunStatus::Pending {
            return self.cancel(request, now);
        }
        let wish = CancelIntent::of(request, now);
        self.run.summary.cancel.get_or_insert(wish);
        self.run.summary.token = self.run.token.next();
        self.finish(Event::ForceKill, EndReason::Killed, now);
        true
    }

    /// Takes the run away from its owner, whose token is old from now on.
    pub(crate) fn rescue(&mut self, now: Timestamp) {
        self.run.summary.token = self.run.token.next();
        let (event, to) = if self.run.cancel.is_some() {
            (Event::RescueKilled, self.cause().end_reason().status())
        } else if self.run.attempts < self.run.max_attempts.get() {
            (Event::RescuePending, Some(RunStatus::Pending))
        } else {
            (Event::RescueLost, Some(RunStatus::Failed))
        };
        let detail = to.map(|to| json!({ "to": to.as_str() }));
        self.tell(EventKind::Rescued, now, detail);
        if event == Event::RescueKilled {
            self.stop(event, now);
        } else if event == Event::RescuePending {
            self.wait(event, now);
        } else {
            self.finish(event, EndReason::Lost, now);
        }
    }

    /// Asks a late run to stop, or ends it for its deadline.
    pub(crate) fn time_out(&mut self, grace: Duration, now: Timestamp) {
        if self.run.status == RunStatus::Running {
            if self.run.cancel.is_none() {
                let (mode, cause) = (CancelMode::Graceful, CancelCause::Deadline);
                let mut intent = CancelIntent::new(mode, cause, now);
                intent.deadline = Some(now.saturating_add(grace));
                self.run.summary.cancel = Some(intent);
                return self.tell(EventKind::DeadlinePassed, now, None);
            }
            self.run.summary.token = self.run.token.next();
        }
        self.finish(Event::TimeOut, EndReason::TimedOut, now);
    }

    /// Where its worktree would be; none when it needs none or the claimer has no place for it.
    pub(crate) fn path_on(
        &self,
        site: Option<&WorktreeSite>,
    ) -> Result<Option<HostPath>, RepositoryError> {
        let wanted = self.run.worktree.as_ref().zip(site);
        let path = wanted.map(|(wanted, site)| site.path_of(&wanted.name));
        path.transpose()
    }
}
