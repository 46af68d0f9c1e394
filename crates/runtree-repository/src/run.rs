//! The record of a run, narrow for lists and whole for one.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::time::Duration;

use runtree_id::{RunId, SessionId};
use runtree_status::{EndReason, Phase, PhaseInput, RunStatus, phase};
use runtree_time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::facts::{FileChange, RunFacts, Usage};
use crate::lease::{Owner, Token};
use crate::request::{Concurrency, Priority, WantedWorktree};
use crate::stop::CancelIntent;
use crate::text::{
    ErrorText, IdempotencyKey, QueueName, RunInput, Tag, UniqueKey, UserId, WorkflowName,
};

/// What lists show of a run: everything but the wide texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run's own id.
    pub id: RunId,
    /// What it executes.
    pub workflow: WorkflowName,
    /// Where it stands. A word of a newer version is kept as it is.
    pub status: RunStatus,
    /// Why it ended, once it has.
    pub end_reason: Option<EndReason>,
    /// Where it waits.
    pub queue: QueueName,
    /// Which of several waiting runs goes first.
    pub priority: Priority,
    /// What makes two requests the same.
    pub idempotency_key: Option<IdempotencyKey>,
    /// What at most one run that has not ended may hold.
    pub unique_key: Option<UniqueKey>,
    /// What it uses that only so many runs may use at once.
    pub concurrency: Option<Concurrency>,
    /// The session.
    pub session_id: Option<SessionId>,
    /// Whom it belongs to.
    pub user: Option<UserId>,
    /// How many attempts it has had.
    pub attempts: u32,
    /// How many it may have.
    pub max_attempts: NonZeroU32,
    /// The number that guards every write of an owner.
    pub token: Token,
    /// Who runs it, while it runs.
    pub owner: Option<Owner>,
    /// When the owner's lease ends, while it runs.
    pub lease_expires_at: Option<Timestamp>,
    /// Somebody wants it to stop.
    pub cancel: Option<CancelIntent>,
    /// The worktree that it needs.
    pub worktree: Option<WantedWorktree>,
    /// The ended run that it tries again.
    pub retry_of: Option<RunId>,
    /// What it is found by.
    pub tags: BTreeSet<Tag>,
    /// What is known of its work.
    pub facts: RunFacts,
    /// What it used up.
    pub usage: Usage,
    /// When it may start.
    pub available_at: Timestamp,
    /// Until when it must have ended.
    pub deadline: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the record or its history last changed; never before `created_at`, never going back.
    pub updated_at: Timestamp,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended. A run has ended exactly when this is set, whatever its status word says.
    pub ended_at: Option<Timestamp>,
}

impl RunSummary {
    /// Computes what people see.
    pub fn phase(&self, now: Timestamp) -> Phase {
        phase(&PhaseInput {
            status: self.status,
            is_due: self.available_at <= now,
            is_cancel_requested: self.cancel.is_some(),
            has_ended: self.ended_at.is_some(),
            end_reason: self.end_reason,
        })
    }

    /// Returns the time from the start of the first attempt to the end, by the clock that stamped both.
    pub fn duration(&self) -> Option<Duration> {
        Some(self.ended_at?.saturating_duration_since(self.started_at?))
    }

    /// Returns the time from the instant that the run could start at to its first start.
    ///
    /// None while it has not started, and for a run that waited again: when it could start first is not kept.
    pub fn waiting_time(&self) -> Option<Duration> {
        let since = self.available_at.max(self.created_at);
        let started_at = self.started_at.filter(|started_at| *started_at >= since)?;
        Some(started_at.saturating_duration_since(since))
    }

    /// Tells whether the run has ended.
    pub fn has_ended(&self) -> bool {
        self.ended_at.is_some()
    }
}

/// One run, whole: its summary, which it derefs to, and the wide texts.
///
/// What is serialized is read back as it was: every record of this crate can be kept as JSON by a backend. A status, an end reason, a
/// kind of event or a state of a worktree that this version does not know stays as it is; another unknown word, and a text beyond its
/// limits, is refused. A field that a newer version wrote is passed over, so that a record that is read and written loses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What lists show.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The task.
    pub input: Option<RunInput>,
    /// What came of it. Left out of JSON where there is none: null is a result too.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub result: Option<Value>,
    /// What went wrong, last.
    pub error: Option<ErrorText>,
    /// Values of the host application's own.
    pub metadata: Map<String, Value>,
    /// How much of each file was changed.
    pub file_changes: Vec<FileChange>,
}

/// Reads a value that is there, null among others.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Deref for Run {
    type Target = RunSummary;
    fn deref(&self) -> &RunSummary {
        &self.summary
    }
}
