//! Rows as both databases project them, and the one way from a row to a record.
//!
//! Every column arrives as one of four neutral types: a 64-bit integer (counts), an instant ([`Moment`]), text, or bytes (ids,
//! hashes). A dialect projects its own types to these with the macros of [`crate::columns`].

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;

use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use runtree_repository::id::{OwnerId, RunId, SessionId};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CancelCause, CancelIntent, CancelMode, CleanupLease, CleanupRef, CleanupTask, Concurrency,
    Cost, DiffStatistics, ErrorKind, EventKind, EventNumber, FileChange, Fingerprint, Lease,
    LeaseRef, Owner, Persistence, Priority, RepositoryError, Run, RunEvent, RunFacts, RunSummary,
    Tag, Token, Usage, WantedWorktree, WorktreeKey, WorktreeRecord, WorktreeSite, WorktreeState,
};
use serde_json::Value;
use uuid::Uuid;

#[cfg(feature = "postgres")]
pub(crate) use crate::columns::reason;
pub(crate) use crate::columns::{
    cleanup_columns, cleanup_lease_columns, event_columns, lease_columns, payload_columns,
    run_columns, status, worktree_columns,
};
use crate::in_order::row_in_order;
use crate::instant::{Micros, Moment};

row_in_order! {
    /// A run as lists show it.
    pub(crate) struct RunRow {
        #[diesel(sql_type = Binary)]
        id: Vec<u8>,
        #[diesel(sql_type = Text)]
        workflow: String,
        #[diesel(sql_type = Text)]
        status: String,
        #[diesel(sql_type = Nullable<Text>)]
        end_reason: Option<String>,
        #[diesel(sql_type = Text)]
        queue: String,
        #[diesel(sql_type = BigInt)]
        priority: i64,
        #[diesel(sql_type = Nullable<Text>)]
        idempotency_key: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        unique_key: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        concurrency_key: Option<String>,
        #[diesel(sql_type = Nullable<BigInt>)]
        concurrency_limit: Option<i64>,
        #[diesel(sql_type = Nullable<Binary>)]
        session_id: Option<Vec<u8>>,
        #[diesel(sql_type = Nullable<Text>)]
        user_id: Option<String>,
        #[diesel(sql_type = BigInt)]
        attempts: i64,
        #[diesel(sql_type = BigInt)]
        max_attempts: i64,
        #[diesel(sql_type = BigInt)]
        token: i64,
        #[diesel(sql_type = Nullable<Binary>)]
        owner_id: Option<Vec<u8>>,
        #[diesel(sql_type = Nullable<Text>)]
        owner_host: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        owner_process: Option<String>,
        #[diesel(sql_type = Nullable<Moment>)]
        lease_expires_at: Option<Micros>,
        #[diesel(sql_type = Nullable<Moment>)]
        cancel_requested_at: Option<Micros>,
        #[diesel(sql_type = Nullable<Text>)]
        cancel_mode: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        cancel_cause: Option<String>,
        #[diesel(sql_type = Nullable<Moment>)]
        cancel_deadline: Option<Micros>,
        #[diesel(sql_type = Nullable<Text>)]
        cancel_reason: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        cancelled_by: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        worktree_name: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        worktree_branch: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        worktree_base: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        worktree_persistence: Option<String>,
        #[diesel(sql_type = Nullable<Binary>)]
        retry_of: Option<Vec<u8>>,
        #[diesel(sql_type = Nullable<Text>)]
        tags: Option<String>,
        #[diesel(embed)]
        facts: FactsRow,
        #[diesel(sql_type = BigInt)]
        input_tokens: i64,
        #[diesel(sql_type = BigInt)]
        output_tokens: i64,
        #[diesel(sql_type = BigInt)]
        cost: i64,
        #[diesel(sql_type = Moment)]
        available_at: Micros,
        #[diesel(sql_type = Nullable<Moment>)]
        deadline_at: Option<Micros>,
        #[diesel(sql_type = Moment)]
        created_at: Micros,
        #[diesel(sql_type = Moment)]
        updated_at: Micros,
        #[diesel(sql_type = Nullable<Moment>)]
        started_at: Option<Micros>,
        #[diesel(sql_type = Nullable<Moment>)]
        ended_at: Option<Micros>,
    }
}

row_in_order! {
    /// What is known of a run's work; nothing when there is no row.
    pub(crate) struct FactsRow {
        #[diesel(sql_type = Nullable<Text>)]
        agent: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        model: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        session_name: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        git_repository: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        first_commit: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        last_commit: Option<String>,
        #[diesel(sql_type = Nullable<BigInt>)]
        diff_files: Option<i64>,
        #[diesel(sql_type = Nullable<BigInt>)]
        diff_added: Option<i64>,
        #[diesel(sql_type = Nullable<BigInt>)]
        diff_removed: Option<i64>,
    }
}

row_in_order! {
    /// The wide texts of a run.
    pub(crate) struct PayloadRow {
        #[diesel(sql_type = Nullable<Text>)]
        input: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        result: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        error: Option<String>,
        #[diesel(sql_type = Text)]
        metadata: String,
        #[diesel(sql_type = Nullable<Text>)]
        file_changes: Option<String>,
    }
}

row_in_order! {
    /// A run, whole.
    pub(crate) struct WholeRunRow {
        #[diesel(embed)]
        run: RunRow,
        #[diesel(embed)]
        payload: PayloadRow,
    }
}

row_in_order! {
    /// A run, whole, and what tells its request from another.
    pub(crate) struct ExistingRunRow {
        #[diesel(embed)]
        run: WholeRunRow,
        #[diesel(sql_type = Binary)]
        fingerprint: Vec<u8>,
    }
}

row_in_order! {
    /// A worktree.
    pub(crate) struct WorktreeRow {
        #[diesel(sql_type = Binary)]
        run_id: Vec<u8>,
        #[diesel(sql_type = BigInt)]
        planned_by: i64,
        #[diesel(sql_type = Text)]
        host: String,
        #[diesel(sql_type = Text)]
        git_repository: String,
        #[diesel(sql_type = Text)]
        root: String,
        #[diesel(sql_type = Text)]
        path: String,
        #[diesel(sql_type = Text)]
        name: String,
        #[diesel(sql_type = Text)]
        branch: String,
        #[diesel(sql_type = Text)]
        base: String,
        #[diesel(sql_type = Text)]
        persistence: String,
        #[diesel(sql_type = Text)]
        state: String,
        #[diesel(sql_type = BigInt)]
        held_by: i64,
        #[diesel(sql_type = Nullable<Text>)]
        salvage: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        reason: Option<String>,
        #[diesel(sql_type = Moment)]
        created_at: Micros,
        #[diesel(sql_type = Moment)]
        updated_at: Micros,
    }
}

row_in_order! {
    /// A live or expired lease of a running run.
    pub(crate) struct LeaseRow {
        #[diesel(sql_type = Binary)]
        id: Vec<u8>,
        #[diesel(sql_type = BigInt)]
        token: i64,
        #[diesel(sql_type = Binary)]
        owner_id: Vec<u8>,
        #[diesel(sql_type = Text)]
        owner_host: String,
        #[diesel(sql_type = Text)]
        owner_process: String,
        #[diesel(sql_type = Nullable<Text>)]
        child_process: Option<String>,
        #[diesel(sql_type = Moment)]
        heartbeat_at: Micros,
        #[diesel(sql_type = Moment)]
        expires_at: Micros,
    }
}

row_in_order! {
    /// A clean-up that somebody holds.
    pub(crate) struct CleanupLeaseRow {
        #[diesel(sql_type = Binary)]
        id: Vec<u8>,
        #[diesel(sql_type = BigInt)]
        planned_by: i64,
        #[diesel(sql_type = BigInt)]
        token: i64,
        #[diesel(sql_type = Binary)]
        owner_id: Vec<u8>,
        #[diesel(sql_type = Text)]
        owner_host: String,
        #[diesel(sql_type = Text)]
        owner_process: String,
        #[diesel(sql_type = Moment)]
        expires_at: Micros,
    }
}

row_in_order! {
    /// An event of a run.
    pub(crate) struct EventRow {
        #[diesel(sql_type = BigInt)]
        number: i64,
        #[diesel(sql_type = Moment)]
        at: Micros,
        #[diesel(sql_type = Text)]
        kind: String,
        #[diesel(sql_type = BigInt)]
        token: i64,
        #[diesel(sql_type = Nullable<Text>)]
        detail: Option<String>,
    }
}

row_in_order! {
    /// A clean-up as its claimer sees it; `tries` counts the present one.
    pub(crate) struct CleanupRow {
        #[diesel(embed)]
        worktree: WorktreeRow,
        #[diesel(sql_type = BigInt)]
        cleanup_token: i64,
        #[diesel(sql_type = BigInt)]
        tries: i64,
        #[diesel(sql_type = Moment)]
        expires_at: Micros,
    }
}

impl RunRow {
    pub(crate) fn decode(mut self) -> Result<RunSummary, RepositoryError> {
        let id = run_id(&self.id)?;
        let owner = self.owner()?;
        let cancel = self.cancel()?;
        let worktree = self.worktree()?;
        let concurrency = self.concurrency()?;
        let optional_instant =
            |what: &str, at: Option<Micros>| at.map(|at| instant(what, at)).transpose();
        Ok(RunSummary {
            id,
            workflow: parse("workflow name", self.workflow.parse())?,
            status: parse("status", RunStatus::from_stored(&self.status))?,
            end_reason: self
                .end_reason
                .map(|word| parse("end reason", EndReason::from_stored(&word)))
                .transpose()?,
            queue: parse("queue name", self.queue.try_into())?,
            priority: Priority::new(parse("priority", i16::try_from(self.priority))?),
            idempotency_key: text("idempotency key", self.idempotency_key)?,
            unique_key: text("unique key", self.unique_key)?,
            concurrency,
            session_id: self
                .session_id
                .map(|bytes| session_id(&bytes))
                .transpose()?,
            user: text("user id", self.user_id)?,
            attempts: count("number of attempts", self.attempts)?,
            max_attempts: parse(
                "limit of attempts",
                NonZeroU32::try_from(count("limit of attempts", self.max_attempts)?),
            )?,
            token: Token::new(count("token", self.token)?),
            owner,
            lease_expires_at: optional_instant("lease expiry", self.lease_expires_at)?,
            cancel,
            worktree,
            retry_of: self.retry_of.map(|bytes| run_id(&bytes)).transpose()?,
            tags: self
                .tags
                .map(|tags| tag_set(&tags))
                .transpose()?
                .unwrap_or_default(),
            facts: self.facts.decode()?,
            usage: Usage {
                input_tokens: amount("number of input tokens", self.input_tokens)?,
                output_tokens: amount("number of output tokens", self.output_tokens)?,
                cost: Cost::from_micros(amount("cost", self.cost)?),
            },
            available_at: instant("start instant", self.available_at)?,
            deadline: optional_instant("deadline", self.deadline_at)?,
            created_at: instant("creation instant", self.created_at)?,
            updated_at: instant("update instant", self.updated_at)?,
            started_at: optional_instant("start instant", self.started_at)?,
            ended_at: optional_instant("end instant", self.ended_at)?,
        })
    }

    fn owner(&mut self) -> Result<Option<Owner>, RepositoryError> {
        let parts = (
            self.owner_id.take(),
            self.owner_host.take(),
            self.owner_process.take(),
        );
        match parts {
            (Some(id), Some(host), Some(process)) => owner(&id, host, process).map(Some),
            (_, _, _) => Ok(None),
        }
    }

    fn cancel(&mut self) -> Result<Option<CancelIntent>, RepositoryError> {
        let (Some(at), Some(mode)) = (self.cancel_requested_at, &self.cancel_mode) else {
            return Ok(None);
        };
        let cause = self.cancel_cause.as_deref();
        let cause = cause.map(cancel_cause).transpose()?.unwrap_or_default();
        let requested_at = instant("cancel instant", at)?;
        let mut intent = CancelIntent::new(cancel_mode(mode)?, cause, requested_at);
        let deadline = self.cancel_deadline;
        intent.deadline = deadline
            .map(|at| instant("cancel deadline", at))
            .transpose()?;
        intent.reason = text("cancel reason", self.cancel_reason.take())?;
        intent.by = text("canceller", self.cancelled_by.take())?;
        Ok(Some(intent))
    }

    fn worktree(&self) -> Result<Option<WantedWorktree>, RepositoryError> {
        let parts = (
            &self.worktree_name,
            &self.worktree_branch,
            &self.worktree_base,
            &self.worktree_persistence,
        );
        match parts {
            (Some(name), Some(branch), Some(base), Some(kept)) => {
                wanted(name, branch, base, kept).map(Some)
            }
            (_, _, _, _) => Ok(None),
        }
    }

    fn concurrency(&mut self) -> Result<Option<Concurrency>, RepositoryError> {
        let (Some(key), Some(limit)) = (self.concurrency_key.take(), self.concurrency_limit) else {
            return Ok(None);
        };
        let limit = count("concurrency limit", limit)?;
        Ok(Some(Concurrency {
            key: parse("concurrency key", key.try_into())?,
            limit: parse("concurrency limit", NonZeroU32::try_from(limit))?,
        }))
    }
}

impl FactsRow {
    fn decode(self) -> Result<RunFacts, RepositoryError> {
        let commit = |what: &str, commit: Option<String>| {
            let commit = commit.map(|commit| parse(what, commit.parse()));
            commit.transpose()
        };
        let mut facts = RunFacts::default();
        facts.agent = text("kind of agent", self.agent)?;
        facts.model = text("model", self.model)?;
        facts.session_name = text("session name", self.session_name)?;
        facts.git_repository = text("name of a git repository", self.git_repository)?;
        facts.first_commit = commit("first commit", self.first_commit)?;
        facts.last_commit = commit("last commit", self.last_commit)?;
        if let (Some(files), Some(added), Some(removed)) =
            (self.diff_files, self.diff_added, self.diff_removed)
        {
            facts.diff = Some(DiffStatistics {
                files: count("number of files", files)?,
                added: count("number of added lines", added)?,
                removed: count("number of removed lines", removed)?,
            });
        }
        Ok(facts)
    }
}

impl WholeRunRow {
    /// The concurrency key and how many runs it lets run at once.
    #[cfg(feature = "sqlite")]
    pub(crate) fn concurrency(&self) -> Option<(&str, i64)> {
        let key = self.run.concurrency_key.as_deref();
        key.zip(self.run.concurrency_limit)
    }

    pub(crate) fn decode(self) -> Result<Run, RepositoryError> {
        let Self { run, payload } = self;
        let metadata = match json("metadata", &payload.metadata)? {
            Value::Object(members) => members,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                return Err(corrupt("the stored metadata is not an object"));
            }
        };
        Ok(Run {
            summary: run.decode()?,
            input: text("input", payload.input)?,
            result: payload
                .result
                .map(|text| json("result", &text))
                .transpose()?,
            error: text("error text", payload.error)?,
            metadata,
            file_changes: payload
                .file_changes
                .map(|text| parse("changes of files", file_changes(&text)))
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

impl ExistingRunRow {
    pub(crate) fn decode(self) -> Result<(Run, Fingerprint), RepositoryError> {
        let fingerprint = parse("fingerprint", self.fingerprint.as_slice().try_into())?;
        Ok((self.run.decode()?, Fingerprint::from_bytes(fingerprint)))
    }
}

impl WorktreeRow {
    pub(crate) fn decode(self) -> Result<WorktreeRecord, RepositoryError> {
        Ok(WorktreeRecord {
            key: WorktreeKey {
                run: run_id(&self.run_id)?,
                planned_by: Token::new(count("planning token", self.planned_by)?),
            },
            site: WorktreeSite {
                host: parse("host name", self.host.parse())?,
                git_repository: parse("git repository", self.git_repository.parse())?,
                root: parse("root of worktrees", self.root.parse())?,
            },
            path: parse("worktree path", self.path.parse())?,
            wanted: wanted(&self.name, &self.branch, &self.base, &self.persistence)?,
            state: WorktreeState::from_stored(&self.state)?,
            held_by: Token::new(count("holding token", self.held_by)?),
            salvage: text("salvage ref", self.salvage)?,
            reason: text("reason", self.reason)?,
            created_at: instant("creation instant", self.created_at)?,
            updated_at: instant("update instant", self.updated_at)?,
        })
    }
}

impl LeaseRow {
    pub(crate) fn decode(self) -> Result<Lease, RepositoryError> {
        Ok(Lease::new(
            LeaseRef {
                run: run_id(&self.id)?,
                token: Token::new(count("token", self.token)?),
            },
            owner(&self.owner_id, self.owner_host, self.owner_process)?,
            text("child process", self.child_process)?,
            instant("heartbeat instant", self.heartbeat_at)?,
            instant("lease expiry", self.expires_at)?,
        ))
    }
}

impl CleanupLeaseRow {
    pub(crate) fn decode(self) -> Result<CleanupLease, RepositoryError> {
        let worktree = WorktreeKey {
            run: run_id(&self.id)?,
            planned_by: Token::new(count("token of a plan", self.planned_by)?),
        };
        let token = Token::new(count("clean-up token", self.token)?);
        Ok(CleanupLease::new(
            CleanupRef { worktree, token },
            owner(&self.owner_id, self.owner_host, self.owner_process)?,
            instant("lease expiry", self.expires_at)?,
        ))
    }
}

impl EventRow {
    pub(crate) fn decode(self) -> Result<RunEvent, RepositoryError> {
        Ok(RunEvent {
            number: EventNumber::new(count("event number", self.number)?),
            at: instant("event instant", self.at)?,
            kind: EventKind::from_stored(&self.kind)?,
            token: Token::new(count("token", self.token)?),
            detail: self
                .detail
                .map(|text| json("event detail", &text))
                .transpose()?,
        })
    }
}

impl CleanupRow {
    pub(crate) fn decode(self) -> Result<CleanupTask, RepositoryError> {
        let worktree = self.worktree.decode()?;
        let cleanup = CleanupRef {
            worktree: worktree.key,
            token: Token::new(count("clean-up token", self.cleanup_token)?),
        };
        let tries_before = count("number of tries", self.tries)?.saturating_sub(1);
        Ok(CleanupTask::new(
            cleanup,
            worktree,
            tries_before,
            instant("lease expiry", self.expires_at)?,
        ))
    }
}

/// Reads a stored run id.
pub(crate) fn run_id(bytes: &[u8]) -> Result<RunId, RepositoryError> {
    parse("run id", RunId::from_bytes(sixteen("run id", bytes)?))
}

/// Reads a stored instant.
pub(crate) fn instant(what: &str, Micros(micros): Micros) -> Result<Timestamp, RepositoryError> {
    parse(what, Timestamp::from_unix_micros(micros))
}

/// Reads a stored number that fits 32 bits.
pub(crate) fn count(what: &str, number: i64) -> Result<u32, RepositoryError> {
    parse(what, u32::try_from(number))
}

/// Reads a stored number that is never negative.
pub(crate) fn amount(what: &str, number: i64) -> Result<u64, RepositoryError> {
    parse(what, u64::try_from(number))
}

/// The word that is stored for a worktree that outlives its run, or does not.
pub(crate) const fn persistence_word(persistence: Persistence) -> &'static str {
    match persistence {
        Persistence::Temporary => "temporary",
        Persistence::Persistent => "persistent",
    }
}

fn persistence(word: &str) -> Result<Persistence, RepositoryError> {
    [Persistence::Temporary, Persistence::Persistent]
        .into_iter()
        .find(|known| persistence_word(*known) == word)
        .ok_or_else(|| {
            corrupt(format!(
                "the stored persistence is neither temporary nor persistent but {word:?}"
            ))
        })
}

fn cancel_mode(word: &str) -> Result<CancelMode, RepositoryError> {
    [CancelMode::Graceful, CancelMode::Forced]
        .into_iter()
        .find(|known| known.as_str() == word)
        .ok_or_else(|| {
            corrupt(format!(
                "the stored cancel mode is neither graceful nor forced but {word:?}"
            ))
        })
}

fn cancel_cause(word: &str) -> Result<CancelCause, RepositoryError> {
    [CancelCause::Request, CancelCause::Deadline]
        .into_iter()
        .find(|known| known.as_str() == word)
        .ok_or_else(|| {
            corrupt(format!(
                "the stored cancel cause is neither request nor deadline but {word:?}"
            ))
        })
}

fn tag_set(tags: &str) -> Result<BTreeSet<Tag>, RepositoryError> {
    let tags: Vec<String> = parse("array of tags", serde_json::from_str(tags))?;
    tags.into_iter()
        .map(|tag| parse("tag", tag.try_into()))
        .collect()
}

fn file_changes(changes: &str) -> Result<Vec<FileChange>, serde_json::Error> {
    serde_json::from_str(changes)
}

fn wanted(
    name: &str,
    branch: &str,
    base: &str,
    kept: &str,
) -> Result<WantedWorktree, RepositoryError> {
    Ok(WantedWorktree {
        name: parse("directory name", name.parse())?,
        branch: parse("branch name", branch.parse())?,
        base: parse("base commit", base.parse())?,
        persistence: persistence(kept)?,
    })
}

fn owner(id: &[u8], host: String, process: String) -> Result<Owner, RepositoryError> {
    Ok(Owner {
        id: parse("owner id", OwnerId::from_bytes(sixteen("owner id", id)?))?,
        host: parse("owner's host", host.try_into())?,
        process: parse("owner's process", process.try_into())?,
    })
}

fn session_id(bytes: &[u8]) -> Result<SessionId, RepositoryError> {
    parse(
        "session id",
        SessionId::from_uuid(Uuid::from_bytes(sixteen("session id", bytes)?)),
    )
}

fn sixteen(what: &str, bytes: &[u8]) -> Result<[u8; 16], RepositoryError> {
    parse(what, bytes.try_into())
}

fn text<T: TryFrom<String, Error = RepositoryError>>(
    what: &str,
    text: Option<String>,
) -> Result<Option<T>, RepositoryError> {
    text.map(|text| parse(what, T::try_from(text))).transpose()
}

fn json(what: &str, text: &str) -> Result<Value, RepositoryError> {
    parse(what, serde_json::from_str(text))
}

/// Tells that what is stored cannot be read back.
pub(crate) fn parse<T, E: std::error::Error + Send + Sync + 'static>(
    what: &str,
    result: Result<T, E>,
) -> Result<T, RepositoryError> {
    result.map_err(|error| {
        corrupt(format!("the stored {what} is not what was written")).with_source(error)
    })
}

fn corrupt(message: impl fmt::Display) -> RepositoryError {
    RepositoryError::new(ErrorKind::Corrupt, message.to_string())
}
