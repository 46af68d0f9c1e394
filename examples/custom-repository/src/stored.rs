//! Reads records back from JSON: the store writes what the records serialize to, and this names what it expects to find.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use runtree_repository::id::{CommitId, RunId, SessionId};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    Actor, AgentType, CancelCause, CancelIntent, CancelMode, Concurrency, DiffStatistics,
    ErrorText, EventKind, EventNumber, FileChange, GitRepositoryName, HostPath, IdempotencyKey,
    ModelName, Owner, Priority, QueueName, Reason, Run, RunEvent, RunFacts, RunInput, RunSummary,
    SalvageRef, SessionName, Tag, Token, UniqueKey, Usage, UserId, WantedWorktree, WorkflowName,
    WorktreeKey, WorktreeRecord, WorktreeSite, WorktreeState,
};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct StoredRun {
    id: RunId,
    workflow: WorkflowName,
    status: RunStatus,
    end_reason: Option<EndReason>,
    queue: QueueName,
    priority: Priority,
    idempotency_key: Option<IdempotencyKey>,
    unique_key: Option<UniqueKey>,
    concurrency: Option<Concurrency>,
    session_id: Option<SessionId>,
    user: Option<UserId>,
    attempts: u32,
    max_attempts: NonZeroU32,
    token: Token,
    owner: Option<Owner>,
    lease_expires_at: Option<Timestamp>,
    cancel: Option<StoredCancel>,
    worktree: Option<WantedWorktree>,
    retry_of: Option<RunId>,
    tags: BTreeSet<Tag>,
    facts: StoredFacts,
    usage: Usage,
    available_at: Timestamp,
    deadline: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    input: Option<RunInput>,
    result: Option<Value>,
    error: Option<ErrorText>,
    metadata: Map<String, Value>,
    file_changes: Vec<FileChange>,
}

#[derive(Deserialize)]
struct StoredCancel {
    mode: CancelMode,
    cause: CancelCause,
    requested_at: Timestamp,
    deadline: Option<Timestamp>,
    reason: Option<Reason>,
    by: Option<Actor>,
}

#[derive(Deserialize)]
struct StoredFacts {
    agent: Option<AgentType>,
    model: Option<ModelName>,
    session_name: Option<SessionName>,
    git_repository: Option<GitRepositoryName>,
    first_commit: Option<CommitId>,
    last_commit: Option<CommitId>,
    diff: Option<DiffStatistics>,
}

#[derive(Deserialize)]
struct StoredWorktree {
    key: StoredKey,
    site: WorktreeSite,
    path: HostPath,
    wanted: WantedWorktree,
    state: String,
    held_by: Token,
    salvage: Option<SalvageRef>,
    reason: Option<Reason>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Deserialize)]
struct StoredKey {
    run: RunId,
    planned_by: Token,
}

#[derive(Deserialize)]
struct StoredEvent {
    number: u32,
    at: Timestamp,
    kind: String,
    token: Token,
    detail: Option<Value>,
}

pub(crate) fn run<'de, D: Deserializer<'de>>(from: D) -> Result<Run, D::Error> {
    let stored = StoredRun::deserialize(from)?;
    let mut facts = RunFacts::default();
    facts.agent = stored.facts.agent;
    facts.model = stored.facts.model;
    facts.session_name = stored.facts.session_name;
    facts.git_repository = stored.facts.git_repository;
    facts.first_commit = stored.facts.first_commit;
    facts.last_commit = stored.facts.last_commit;
    facts.diff = stored.facts.diff;
    let cancel = stored.cancel.map(|stored| {
        let mut cancel = CancelIntent::new(stored.mode, stored.cause, stored.requested_at);
        cancel.deadline = stored.deadline;
        cancel.reason = stored.reason;
        cancel.by = stored.by;
        cancel
    });
    Ok(Run {
        summary: RunSummary {
            id: stored.id,
            workflow: stored.workflow,
            status: stored.status,
            end_reason: stored.end_reason,
            queue: stored.queue,
            priority: stored.priority,
            idempotency_key: stored.idempotency_key,
            unique_key: stored.unique_key,
            concurrency: stored.concurrency,
            session_id: stored.session_id,
            user: stored.user,
            attempts: stored.attempts,
            max_attempts: stored.max_attempts,
            token: stored.token,
            owner: stored.owner,
            lease_expires_at: stored.lease_expires_at,
            cancel,
            worktree: stored.worktree,
            retry_of: stored.retry_of,
            tags: stored.tags,
            facts,
            usage: stored.usage,
            available_at: stored.available_at,
            deadline: stored.deadline,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            started_at: stored.started_at,
            ended_at: stored.ended_at,
        },
        input: stored.input,
        result: stored.result,
        error: stored.error,
        metadata: stored.metadata,
        file_changes: stored.file_changes,
    })
}

pub(crate) fn worktrees<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<WorktreeRecord>, D::Error> {
    let stored = Vec::<StoredWorktree>::deserialize(from)?;
    let worktrees = stored.into_iter().map(|stored| {
        Ok(WorktreeRecord {
            key: WorktreeKey {
                run: stored.key.run,
                planned_by: stored.key.planned_by,
            },
            site: stored.site,
            path: stored.path,
            wanted: stored.wanted,
            state: WorktreeState::from_stored(&stored.state).map_err(D::Error::custom)?,
            held_by: stored.held_by,
            salvage: stored.salvage,
            reason: stored.reason,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        })
    });
    worktrees.collect()
}

pub(crate) fn events<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RunEvent>, D::Error> {
    let stored = Vec::<StoredEvent>::deserialize(from)?;
    let events = stored.into_iter().map(|stored| {
        Ok(RunEvent {
            number: EventNumber::new(stored.number),
            at: stored.at,
            kind: EventKind::from_stored(&stored.kind).map_err(D::Error::custom)?,
            token: stored.token,
            detail: stored.detail,
        })
    });
    events.collect()
}
