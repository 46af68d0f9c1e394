//! One run with everything that belongs to it, and the changes that a single run goes through.

use std::time::Duration;

use runtree_status::{EndReason, Event, RunStatus};
use runtree_time::Timestamp;
use serde_json::{Value, json};

use crate::event::{EventKind, EventNumber, RunEvent};
use crate::lease::{Lease, LeaseRef, Owner, Token};
use crate::request::{Fingerprint, Persistence};
use crate::run::Run;
use crate::stop::{CancelCause, CancelIntent, CancelMode, CancelRequest, Outcome};
use crate::text::ProcessMark;
use crate::worktree::{WorktreeRecord, WorktreeSite, WorktreeState};

/// A run, its lease, worktrees, clean-ups and history.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) run: Run,
    pub(super) fingerprint: Fingerprint,
    pub(super) lease: Option<LeaseRow>,
    pub(super) worktrees: Vec<WorktreeRecord>,
    pub(super) cleanups: Vec<CleanupRow>,
    pub(super) events: Vec<RunEvent>,
}

#[derive(Debug)]
pub(super) struct LeaseRow {
    pub(super) owner: Owner,
    pub(super) child: Option<ProcessMark>,
    pub(super) heartbeat_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct CleanupRow {
    pub(super) planned_by: Token,
    pub(super) wanted_at: Timestamp,
    pub(super) available_at: Timestamp,
    pub(super) token: Token,
    pub(super) tries: u32,
    /// Who works on it, and until when.
    pub(super) held: Option<(Owner, Timestamp)>,
}

impl Row {
    pub(super) fn new(run: Run, fingerprint: Fingerprint, now: Timestamp) -> Self {
        let mut row = Self {
            run,
            fingerprint,
            lease: None,
            worktrees: Vec::new(),
            cleanups: Vec::new(),
            events: Vec::new(),
        };
        row.record(now, EventKind::Created, None);
        row
    }

    /// Tells whether this lease guards the run now: it runs, and under this token.
    pub(super) fn is_held_by(&self, lease: LeaseRef) -> bool {
        self.run.status == RunStatus::Running && self.run.token == lease.token
    }

    /// Tells whether the lease has run out; a running run without one has lost it.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.lease
            .as_ref()
            .is_none_or(|lease| lease.expires_at <= now)
    }

    pub(super) fn lease_view(&self) -> Option<Lease> {
        let lease = self.lease.as_ref()?;
        let of = LeaseRef {
            run: self.run.id,
            token: self.run.token,
        };
        let (owner, child) = (lease.owner.clone(), lease.child.clone());
        Some(Lease::new(
            of,
            owner,
            child,
            lease.heartbeat_at,
            lease.expires_at,
        ))
    }

    pub(super) fn record(&mut self, at: Timestamp, kind: EventKind, detail: Option<Value>) {
        self.record_of(self.run.token, at, kind, detail);
    }

    fn record_of(&mut self, token: Token, at: Timestamp, kind: EventKind, detail: Option<Value>) {
        let last = self
            .events
            .last()
            .map_or(EventNumber::START, |event| event.number);
        let number = EventNumber::new(last.get() + 1);
        // A clock may have been set back; a history is not.
        let at = at.max(self.run.summary.updated_at);
        self.events.push(RunEvent {
            number,
            at,
            kind,
            token,
            detail,
        });
        let summary = &mut self.run.summary;
        summary.updated_at = summary.updated_at.max(at).max(summary.created_at);
    }

    /// Records a write that the guard refused; the same refusal again says nothing new.
    pub(super) fn reject(&mut self, token: Token, at: Timestamp, event: &str) {
        let detail = Some(json!({ "event": event }));
        let repeated = self.events.last().is_some_and(|last| {
            last.kind == EventKind::Rejected && last.token == token && last.detail == detail
        });
        if !repeated {
            self.record_of(token, at, EventKind::Rejected, detail);
        }
    }

    /// Moves the run by the one table.
    ///
    /// # Panics
    /// When the table forbids it: every caller has checked the guard.
    pub(super) fn apply(&mut self, event: Event) {
        let to = self.run.status.apply(event);
        self.run.summary.status = to.expect("because the guard was checked before the change");
    }

    pub(super) fn set_lease(&mut self, lease: Option<LeaseRow>) {
        let summary = &mut self.run.summary;
        summary.owner = lease.as_ref().map(|lease| lease.owner.clone());
        summary.lease_expires_at = lease.as_ref().map(|lease| lease.expires_at);
        self.lease = lease;
    }

    /// Lets the run wait for its next attempt.
    pub(super) fn wait(&mut self, event: Event, available_at: Timestamp) {
        self.apply(event);
        self.run.summary.available_at = available_at;
        self.set_lease(None);
    }

    /// Ends the run for good, and marks its worktrees for what follows.
    pub(super) fn finish(&mut self, event: Event, reason: EndReason, now: Timestamp) {
        self.apply(event);
        let summary = &mut self.run.summary;
        let earliest = summary.started_at.unwrap_or(summary.created_at);
        summary.end_reason = Some(reason);
        summary.ended_at = Some(now.max(earliest));
        self.set_lease(None);
        let kind = if self.run.status == RunStatus::Completed {
            EventKind::Completed
        } else if self.run.status == RunStatus::Killed {
            EventKind::Killed
        } else {
            EventKind::Failed
        };
        self.record(now, kind, Some(json!({ "reason": reason.as_str() })));
        self.leave_worktrees(now);
    }

    fn leave_worktrees(&mut self, now: Timestamp) {
        let mut events = Vec::new();
        for worktree in &mut self.worktrees {
            match worktree.state {
                WorktreeState::Adding | WorktreeState::Ready => {}
                WorktreeState::Kept | WorktreeState::Removed | WorktreeState::Other(_) => continue,
            }
            if worktree.wanted.persistence == Persistence::Persistent {
                worktree.state = WorktreeState::Kept;
                worktree.updated_at = now.max(worktree.updated_at);
                events.push(EventKind::WorktreeKept);
            } else {
                self.cleanups.push(CleanupRow {
                    planned_by: worktree.key.planned_by,
                    wanted_at: now,
                    available_at: now,
                    token: Token::NONE,
                    tries: 0,
                    held: None,
                });
                events.push(EventKind::CleanupWanted);
            }
        }
        for kind in events {
            self.record(now, kind, None);
        }
    }

    /// Applies an owner's outcome; the guard has been checked.
    pub(super) fn end(&mut self, outcome: &Outcome, now: Timestamp) {
        match outcome {
            Outcome::Completed { result } => {
                self.run.result.clone_from(result);
                self.finish(Event::Complete, outcome.end_reason(), now);
            }
            Outcome::Failed { error, retry_after } => {
                self.run.error = Some(error.clone());
                let attempts_left = self.run.attempts < self.run.max_attempts.get();
                match retry_after {
                    _ if self.run.cancel.is_some() => {
                        let (event, reason) = self.stopped_by(Event::FailCancelled);
                        self.finish(event, reason, now);
                    }
                    Some(delay) if attempts_left => {
                        self.wait(Event::FailRetry, now.saturating_add(*delay));
                        let detail = json!({ "available_at": self.run.available_at });
                        self.record(now, EventKind::RetryPlanned, Some(detail));
                    }
                    Some(_) | None => self.finish(Event::Fail, outcome.end_reason(), now),
                }
            }
            Outcome::Killed => {
                let (event, reason) = self.stopped_by(Event::AcknowledgeCancel);
                self.finish(event, reason, now);
            }
        }
    }

    /// How a run ends that stops because it was asked to: by this event, or by its deadline when that was the cause.
    pub(super) fn stopped_by(&self, event: Event) -> (Event, EndReason) {
        let cause = self.run.cancel.as_ref().map(|cancel| cancel.cause);
        match cause.unwrap_or_default() {
            CancelCause::Request => (event, EndReason::Killed),
            CancelCause::Deadline => (Event::TimeOut, EndReason::TimedOut),
        }
    }

    /// The status that an outcome leads to when it ends the run for good.
    pub(super) fn ended_by(&self, outcome: &Outcome) -> bool {
        let status = match outcome {
            Outcome::Completed { .. } => RunStatus::Completed,
            Outcome::Failed { .. } if self.run.cancel.is_none() => RunStatus::Failed,
            Outcome::Failed { .. } | Outcome::Killed => {
                let (_, reason) = self.stopped_by(Event::Fail);
                reason
                    .status()
                    .expect("because a known reason says its status")
            }
        };
        self.run.has_ended() && self.run.status == status
    }

    pub(super) fn cancel_before_start(&mut self, request: &CancelRequest, now: Timestamp) {
        self.run.summary.cancel = Some(CancelIntent::of(request, now));
        self.finish(
            Event::CancelBeforeStart,
            EndReason::CancelledBeforeStart,
            now,
        );
    }

    /// Records that somebody wants the running run to stop; answers whether that is news.
    pub(super) fn request_cancel(&mut self, request: &CancelRequest, now: Timestamp) -> bool {
        let new = CancelIntent::of(request, now);
        let intent = match self.run.summary.cancel.take() {
            None => new,
            Some(old) if old.mode < request.mode => CancelIntent {
                cause: old.cause,
                requested_at: old.requested_at,
                deadline: new.deadline.or(old.deadline),
                reason: new.reason.or(old.reason),
                by: new.by.or(old.by),
                mode: new.mode,
            },
            Some(old) => {
                self.run.summary.cancel = Some(old);
                return false;
            }
        };
        let detail = json!({ "mode": intent.mode.as_str(), "by": intent.by });
        self.run.summary.cancel = Some(intent);
        self.record(now, EventKind::CancelRequested, Some(detail));
        true
    }

    /// Ends the run for its deadline, or asks it to stop; answers whether it changed.
    pub(super) fn time_out(&mut self, grace: Duration, now: Timestamp) -> bool {
        if self.run.status == RunStatus::Pending {
            self.finish(Event::TimeOut, EndReason::TimedOut, now);
            return true;
        }
        match &self.run.cancel {
            None => {
                let cause = CancelCause::Deadline;
                let mut intent = CancelIntent::new(CancelMode::Graceful, cause, now);
                intent.deadline = Some(now.saturating_add(grace));
                self.run.summary.cancel = Some(intent);
                self.record(now, EventKind::DeadlinePassed, None);
                true
            }
            Some(intent) if intent.is_overdue(now) => {
                self.run.summary.token = self.run.token.next();
                self.finish(Event::TimeOut, EndReason::TimedOut, now);
                true
            }
            Some(_) => false,
        }
    }

    /// Takes the run away from its owner, whose token is old from now on.
    pub(super) fn rescue(&mut self, now: Timestamp) {
        self.run.summary.token = self.run.token.next();
        let (event, reason) = if self.run.cancel.is_some() {
            let (event, reason) = self.stopped_by(Event::RescueKilled);
            (event, Some(reason))
        } else if self.run.attempts < self.run.max_attempts.get() {
            (Event::RescuePending, None)
        } else {
            (Event::RescueLost, Some(EndReason::Lost))
        };
        let to = event
            .transition()
            .to
            .expect("because every rescue leads to a status");
        self.record(now, EventKind::Rescued, Some(json!({ "to": to.as_str() })));
        match reason {
            Some(reason) => self.finish(event, reason, now),
            None => self.wait(event, now),
        }
    }

    /// Hands on the worktree that an earlier attempt left on this site, or plans one.
    pub(super) fn plan_worktree(
        &mut self,
        site: &WorktreeSite,
        plan: impl FnOnce(&Row) -> Option<WorktreeRecord>,
        now: Timestamp,
    ) -> Option<WorktreeRecord> {
        let token = self.run.token;
        let left = self
            .worktrees
            .iter_mut()
            .rev()
            .find(|worktree| is_left_on(worktree, site));
        if let Some(worktree) = left {
            worktree.held_by = token;
            worktree.updated_at = now.max(worktree.updated_at);
            if worktree.state == WorktreeState::Kept {
                worktree.state = WorktreeState::Ready;
            }
            return Some(worktree.clone());
        }
        let planned = plan(self)?;
        self.worktrees.push(planned.clone());
        Some(planned)
    }
}

fn is_left_on(worktree: &WorktreeRecord, site: &WorktreeSite) -> bool {
    let usable = match worktree.state {
        WorktreeState::Adding | WorktreeState::Ready | WorktreeState::Kept => true,
        WorktreeState::Removed | WorktreeState::Other(_) => false,
    };
    usable && worktree.site.host == site.host && worktree.site.git_repository == site.git_repository
}
