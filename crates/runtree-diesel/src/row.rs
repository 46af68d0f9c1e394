//! Rows as both databases project them, and the one way from a row to a record.
//!
//! Every column arrives as one of three neutral types: a 64-bit integer (counts, instants in microseconds), text, or bytes (ids,
//! hashes). A dialect projects its own types to these with [`run_columns`] and its sisters, which take three of the dialect's own
//! macros: `$id` shows an id as 16 bytes, `$instant` an instant as microseconds, `$int` any other number as a 64-bit integer.
//! Text columns are text on both; the dialect stores JSON as text.

use std::fmt;
use std::num::NonZeroU32;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use runtree_repository::id::{OwnerId, RunId, SessionId};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CancelIntent, CancelMode, CleanupLease, CleanupRef, CleanupTask, ErrorKind, EventKind,
    EventNumber, Fingerprint, Lease, LeaseRef, Owner, Persistence, Priority, RepositoryError, Run,
    RunEvent, RunSummary, Token, WantedWorktree, WorktreeKey, WorktreeRecord, WorktreeSite,
    WorktreeState,
};
use serde_json::Value;
use uuid::Uuid;

/// A status as SQL writes it; its word comes from the transition table's crate.
macro_rules! status {
    ($status:ident) => {
        concat!("'", runtree_repository::status::status_word!($status), "'")
    };
}

/// An end reason as SQL writes it; SQLite is given them as values.
#[cfg(feature = "postgres")]
macro_rules! reason {
    ($reason:ident) => {
        concat!(
            "'",
            runtree_repository::status::end_reason_word!($reason),
            "'"
        )
    };
}

/// The columns of [`RunRow`], of the run `r` and its lease `l` (`LEFT JOIN`).
macro_rules! run_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $id!("r.id"),
            " AS id, r.workflow, r.status, r.end_reason, ",
            $int!("r.priority"),
            " AS priority, ",
            "r.idempotency_key, r.unique_key, ",
            $id!("r.session_id"),
            " AS session_id, r.user_id, ",
            $int!("r.attempts"),
            " AS attempts, ",
            $int!("r.max_attempts"),
            " AS max_attempts, ",
            $int!("r.token"),
            " AS token, ",
            $id!("l.owner_id"),
            " AS owner_id, l.owner_host, l.owner_process, ",
            $instant!("l.expires_at"),
            " AS lease_expires_at, ",
            $instant!("r.cancel_requested_at"),
            " AS cancel_requested_at, r.cancel_mode, ",
            $instant!("r.cancel_deadline"),
            " AS cancel_deadline, r.cancel_reason, r.cancelled_by, ",
            "r.worktree_name, r.worktree_branch, r.worktree_base, r.worktree_persistence, ",
            $instant!("r.available_at"),
            " AS available_at, ",
            $instant!("r.created_at"),
            " AS created_at, ",
            $instant!("r.updated_at"),
            " AS updated_at, ",
            $instant!("r.started_at"),
            " AS started_at, ",
            $instant!("r.ended_at"),
            " AS ended_at"
        )
    };
}

/// The columns of [`PayloadRow`], of the payload `p`; they follow [`run_columns`].
macro_rules! payload_columns {
    () => {
        "p.input, p.result, p.error, p.metadata"
    };
}

/// The columns of [`WorktreeRow`], of the worktree `w`.
macro_rules! worktree_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $id!("w.run_id"),
            " AS run_id, ",
            $int!("w.planned_by"),
            " AS planned_by, w.host, w.git_repository, w.root, w.path, ",
            "w.name, w.branch, w.base, w.persistence, w.state, ",
            $int!("w.held_by"),
            " AS held_by, w.salvage, w.reason, ",
            $instant!("w.created_at"),
            " AS created_at, ",
            $instant!("w.updated_at"),
            " AS updated_at"
        )
    };
}

/// The columns of [`LeaseRow`], of the run `r` and its lease `l`.
macro_rules! lease_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $id!("r.id"),
            " AS id, ",
            $int!("r.token"),
            " AS token, ",
            $id!("l.owner_id"),
            " AS owner_id, l.owner_host, ",
            "l.owner_process, l.child_process, ",
            $instant!("l.heartbeat_at"),
            " AS heartbeat_at, ",
            $instant!("l.expires_at"),
            " AS expires_at"
        )
    };
}

/// The columns of [`EventRow`], of the event `e`.
macro_rules! event_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $int!("e.number"),
            " AS number, ",
            $instant!("e.at"),
            " AS at, e.kind, ",
            $int!("e.token"),
            " AS token, e.detail"
        )
    };
}

/// The columns of [`CleanupRow`] besides those of the worktree `w`, of the clean-up `c`.
macro_rules! cleanup_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $int!("c.token"),
            " AS cleanup_token, ",
            $int!("c.tries"),
            " AS tries, ",
            $instant!("c.expires_at"),
            " AS expires_at"
        )
    };
}

/// The columns of [`CleanupLeaseRow`], of the clean-up `c`.
macro_rules! cleanup_lease_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $id!("c.run_id"),
            " AS id, ",
            $int!("c.planned_by"),
            " AS planned_by, ",
            $int!("c.token"),
            " AS token, ",
            $id!("c.owner_id"),
            " AS owner_id, c.owner_host, c.owner_process, ",
            $instant!("c.expires_at"),
            " AS expires_at"
        )
    };
}

#[cfg(feature = "postgres")]
pub(crate) use reason;
pub(crate) use {
    cleanup_columns, cleanup_lease_columns, event_columns, lease_columns, payload_columns,
    run_columns, status, worktree_columns,
};

/// A run as lists show it.
#[derive(Debug, QueryableByName)]
pub(crate) struct RunRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = Text)]
    workflow: String,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    end_reason: Option<String>,
    #[diesel(sql_type = BigInt)]
    priority: i64,
    #[diesel(sql_type = Nullable<Text>)]
    idempotency_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    unique_key: Option<String>,
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
    #[diesel(sql_type = Nullable<BigInt>)]
    lease_expires_at: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    cancel_requested_at: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    cancel_mode: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    cancel_deadline: Option<i64>,
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
    #[diesel(sql_type = BigInt)]
    available_at: i64,
    #[diesel(sql_type = BigInt)]
    created_at: i64,
    #[diesel(sql_type = BigInt)]
    updated_at: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    started_at: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    ended_at: Option<i64>,
}

/// The wide texts of a run.
#[derive(Debug, QueryableByName)]
pub(crate) struct PayloadRow {
    #[diesel(sql_type = Nullable<Text>)]
    input: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    result: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    error: Option<String>,
    #[diesel(sql_type = Text)]
    metadata: String,
}

/// A run, whole.
#[derive(Debug, QueryableByName)]
pub(crate) struct WholeRunRow {
    #[diesel(embed)]
    run: RunRow,
    #[diesel(embed)]
    payload: PayloadRow,
}

/// A run, whole, and what tells its request from another.
#[derive(Debug, QueryableByName)]
pub(crate) struct ExistingRunRow {
    #[diesel(embed)]
    run: WholeRunRow,
    #[diesel(sql_type = Binary)]
    fingerprint: Vec<u8>,
}

/// A worktree.
#[derive(Debug, QueryableByName)]
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
    #[diesel(sql_type = BigInt)]
    created_at: i64,
    #[diesel(sql_type = BigInt)]
    updated_at: i64,
}

/// A live or expired lease of a running run.
#[derive(Debug, QueryableByName)]
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
    #[diesel(sql_type = BigInt)]
    heartbeat_at: i64,
    #[diesel(sql_type = BigInt)]
    expires_at: i64,
}

/// A clean-up that somebody holds.
#[derive(Debug, QueryableByName)]
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
    #[diesel(sql_type = BigInt)]
    expires_at: i64,
}

/// An event of a run.
#[derive(Debug, QueryableByName)]
pub(crate) struct EventRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = BigInt)]
    token: i64,
    #[diesel(sql_type = Nullable<Text>)]
    detail: Option<String>,
}

/// A clean-up as its claimer sees it; `tries` counts the present one.
#[derive(Debug, QueryableByName)]
pub(crate) struct CleanupRow {
    #[diesel(embed)]
    worktree: WorktreeRow,
    #[diesel(sql_type = BigInt)]
    cleanup_token: i64,
    #[diesel(sql_type = BigInt)]
    tries: i64,
    #[diesel(sql_type = BigInt)]
    expires_at: i64,
}

impl RunRow {
    pub(crate) fn decode(self) -> Result<RunSummary, RepositoryError> {
        let id = run_id(&self.id)?;
        let owner = match (self.owner_id, self.owner_host, self.owner_process) {
            (Some(id), Some(host), Some(process)) => Some(owner(&id, host, process)?),
            (_, _, _) => None,
        };
        let cancel = match (self.cancel_requested_at, self.cancel_mode) {
            (Some(at), Some(mode)) => Some(CancelIntent::new(
                cancel_mode(&mode)?,
                instant("cancel instant", at)?,
                self.cancel_deadline
                    .map(|at| instant("cancel deadline", at))
                    .transpose()?,
                text("cancel reason", self.cancel_reason)?,
                text("canceller", self.cancelled_by)?,
            )),
            (_, _) => None,
        };
        let worktree = match (
            self.worktree_name,
            self.worktree_branch,
            self.worktree_base,
            self.worktree_persistence,
        ) {
            (Some(name), Some(branch), Some(base), Some(kept)) => {
                Some(wanted(&name, &branch, &base, &kept)?)
            }
            (_, _, _, _) => None,
        };
        Ok(RunSummary {
            id,
            workflow: parse("workflow name", self.workflow.parse())?,
            status: parse("status", RunStatus::from_stored(&self.status))?,
            end_reason: self
                .end_reason
                .map(|word| parse("end reason", EndReason::from_stored(&word)))
                .transpose()?,
            priority: Priority::new(parse("priority", i16::try_from(self.priority))?),
            idempotency_key: text("idempotency key", self.idempotency_key)?,
            unique_key: text("unique key", self.unique_key)?,
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
            lease_expires_at: self
                .lease_expires_at
                .map(|at| instant("lease expiry", at))
                .transpose()?,
            cancel,
            worktree,
            available_at: instant("start instant", self.available_at)?,
            created_at: instant("creation instant", self.created_at)?,
            updated_at: instant("update instant", self.updated_at)?,
            started_at: self
                .started_at
                .map(|at| instant("start instant", at))
                .transpose()?,
            ended_at: self
                .ended_at
                .map(|at| instant("end instant", at))
                .transpose()?,
        })
    }
}

impl WholeRunRow {
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
pub(crate) fn instant(what: &str, micros: i64) -> Result<Timestamp, RepositoryError> {
    parse(what, Timestamp::from_unix_micros(micros))
}

/// Reads a stored number that fits 32 bits.
pub(crate) fn count(what: &str, number: i64) -> Result<u32, RepositoryError> {
    parse(what, u32::try_from(number))
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

fn parse<T, E: std::error::Error + Send + Sync + 'static>(
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
