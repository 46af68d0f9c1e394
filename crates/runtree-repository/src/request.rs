//! What a caller asks for when it creates a run, and how two requests are told apart.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;

use runtree_id::{BranchName, CommitId, DirectoryName, RunId, SessionId};
use runtree_status::RunStatus;
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::annotation::{MAX_TAGS, too_many_tags};
use crate::error::{ErrorKind, RepositoryError};
use crate::facts::{RunFacts, Usage};
use crate::json;
use crate::lease::{Limit, Token};
use crate::run::{Run, RunSummary};
use crate::text::{
    AgentType, ConcurrencyKey, GitRepositoryName, IdempotencyKey, ModelName, QueueName, RunInput,
    SessionName, Tag, UniqueKey, UserId, WorkflowName,
};

/// A run that is wanted: what to execute, with what, and under which keys.
///
/// A builder that remembers the first value that is not allowed; [`check`](Self::check), which every create calls, reports it.
///
/// ```
/// use runtree_repository::NewRun;
///
/// let run = NewRun::new("builder").input("fix the flaky test").idempotency_key("order-17");
/// assert!(run.check().is_ok());
/// assert!(NewRun::new("").check().is_err());
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct NewRun {
    workflow: Option<WorkflowName>,
    input: Option<RunInput>,
    idempotency_key: Option<IdempotencyKey>,
    unique_key: Option<UniqueKey>,
    session_id: Option<SessionId>,
    user: Option<UserId>,
    // What later versions added is left out of the fingerprint while it is not used, so that a request which is repeated across an
    // upgrade stays the same request.
    #[serde(skip_serializing_if = "is_default")]
    queue: QueueName,
    #[serde(skip_serializing_if = "is_default")]
    concurrency: Option<Concurrency>,
    priority: Priority,
    max_attempts: NonZeroU32,
    available_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "is_default")]
    deadline: Option<Timestamp>,
    #[serde(skip_serializing_if = "is_default")]
    tags: BTreeSet<Tag>,
    #[serde(skip_serializing_if = "is_default")]
    facts: RunFacts,
    metadata: Map<String, Value>,
    worktree: WorktreeWish,
    #[serde(skip)]
    first_invalid: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The worktree that a request wishes for, before its base is resolved to a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorktreeWish {
    /// The revision to start from; none means the git repository's `HEAD`.
    pub base: Option<String>,
    /// The branch to create; none means a name made of the workflow and the run id.
    pub branch: Option<BranchName>,
    /// Whether the worktree outlives its run.
    pub persistence: Persistence,
}

/// Whether a worktree outlives its run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a worktree is kept or it is not; there is no third"
)]
pub enum Persistence {
    /// Removed once the run has ended and what is in it is saved.
    #[default]
    Temporary,
    /// Kept when the run ends.
    Persistent,
}

/// Which of several waiting runs goes first: the higher number. Within one priority the older run goes first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Priority(i16);

impl Priority {
    /// Before everything else.
    pub const CRITICAL: Self = Self(200);
    /// Before the ordinary.
    pub const HIGH: Self = Self(100);
    /// The ordinary.
    pub const NORMAL: Self = Self(0);
    /// After the ordinary.
    pub const LOW: Self = Self(-100);
    /// When there is nothing else to do.
    pub const BATCH: Self = Self(-200);

    /// Makes a priority between the named ones.
    pub const fn new(number: i16) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl NewRun {
    /// Wishes for a run of this workflow.
    pub fn new(workflow: impl Into<String>) -> Self {
        let (workflow, first_invalid) = match WorkflowName::new(workflow) {
            Ok(name) => (Some(name), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            workflow,
            input: None,
            idempotency_key: None,
            unique_key: None,
            session_id: None,
            user: None,
            queue: QueueName::default(),
            concurrency: None,
            priority: Priority::NORMAL,
            max_attempts: NonZeroU32::MIN,
            available_at: None,
            deadline: None,
            tags: BTreeSet::new(),
            facts: RunFacts::default(),
            metadata: Map::new(),
            worktree: WorktreeWish::default(),
            first_invalid,
        }
    }

    fn keep<T>(&mut self, value: Result<T, impl fmt::Display>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(error) => {
                self.first_invalid.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }

    /// Gives the run its task.
    #[must_use]
    pub fn input(mut self, input: impl Into<String>) -> Self {
        self.input = self.keep(RunInput::new(input));
        self
    }

    /// Names the request, so that repeating it finds the run that it made instead of making another.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = self.keep(IdempotencyKey::new(key));
        self
    }

    /// Names something that at most one run that has not ended may hold.
    #[must_use]
    pub fn unique_key(mut self, key: impl Into<String>) -> Self {
        self.unique_key = self.keep(UniqueKey::new(key));
        self
    }

    /// Puts the run into a session.
    #[must_use]
    pub fn session(mut self, id: SessionId) -> Self {
        self.session_id = Some(id);
        self
    }

    /// Says whom the run belongs to.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = self.keep(UserId::new(user));
        self
    }

    /// Puts the run into a queue; `default` unless it is named.
    #[must_use]
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        if let Some(name) = self.keep(QueueName::new(name)) {
            self.queue = name;
        }
        self
    }

    /// Lets the run start only while fewer than `limit` runs with this key are running.
    ///
    /// Each run is measured by its own limit. What counts is live leases, looked at by the claim itself: a run whose owner died
    /// holds its place until the lease expires, and no longer.
    #[must_use]
    pub fn concurrency(mut self, key: impl Into<String>, limit: NonZeroU32) -> Self {
        let key = self.keep(ConcurrencyKey::new(key));
        self.concurrency = key.map(|key| Concurrency { key, limit });
        self
    }

    /// Sets which of several waiting runs goes first.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets how many attempts the run has in all; one by default.
    #[must_use]
    pub fn max_attempts(mut self, attempts: NonZeroU32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Lets the run wait until this instant.
    #[must_use]
    pub fn available_at(mut self, at: Timestamp) -> Self {
        self.available_at = Some(at);
        self
    }

    /// Sets until when the run must have ended; after that it is stopped and `failed` with the reason `timed_out`.
    #[must_use]
    pub fn deadline(mut self, at: Timestamp) -> Self {
        self.deadline = Some(at);
        self
    }

    /// Adds a word that the run is found by.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        if let Some(tag) = self.keep(Tag::new(tag)) {
            self.tags.insert(tag);
        }
        self
    }

    /// Says what kind of agent does the work.
    #[must_use]
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.facts.agent = self.keep(AgentType::new(agent));
        self
    }

    /// Says which model the agent uses.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.facts.model = self.keep(ModelName::new(model));
        self
    }

    /// Says what people call the session.
    #[must_use]
    pub fn session_name(mut self, name: impl Into<String>) -> Self {
        self.facts.session_name = self.keep(SessionName::new(name));
        self
    }

    /// Says which git repository the work is about, as the host names it.
    #[must_use]
    pub fn git_repository(mut self, name: impl Into<String>) -> Self {
        self.facts.git_repository = self.keep(GitRepositoryName::new(name));
        self
    }

    /// Adds a value of the host application's own.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the revision that the worktree starts from.
    #[must_use]
    pub fn base(mut self, revision: impl Into<String>) -> Self {
        self.worktree.base = Some(revision.into());
        self
    }

    /// Names the branch that is created for the run.
    #[must_use]
    pub fn branch(mut self, name: &str) -> Self {
        self.worktree.branch = self.keep(name.parse::<BranchName>());
        self
    }

    /// Keeps the worktree when the run ends.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.worktree.persistence = Persistence::Persistent;
        self
    }

    /// Returns what kind of worktree is wished for.
    pub fn worktree_wish(&self) -> &WorktreeWish {
        &self.worktree
    }

    /// Checks every value and hands the request out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the first value that is not allowed.
    pub fn check(&self) -> Result<CheckedRun, RepositoryError> {
        if let Some(why) = &self.first_invalid {
            return Err(RepositoryError::new(ErrorKind::InvalidInput, why.clone()));
        }
        let Some(workflow) = self.workflow.clone() else {
            return Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                "the workflow name is missing",
            ));
        };
        json::check("the metadata", &Value::Object(self.metadata.clone()))?;
        if self.tags.len() > MAX_TAGS {
            return Err(too_many_tags(self.tags.len()));
        }
        Ok(CheckedRun {
            fingerprint: self.fingerprint()?,
            workflow,
            input: self.input.clone(),
            idempotency_key: self.idempotency_key.clone(),
            unique_key: self.unique_key.clone(),
            session_id: self.session_id,
            user: self.user.clone(),
            queue: self.queue.clone(),
            concurrency: self.concurrency.clone(),
            priority: self.priority,
            max_attempts: self.max_attempts,
            available_at: self.available_at,
            deadline: self.deadline,
            tags: self.tags.clone(),
            facts: self.facts.clone(),
            metadata: self.metadata.clone(),
        })
    }

    /// How many bytes the values without a small limit have.
    fn bytes(&self) -> usize {
        let input = self.input.as_ref().map_or(0, |input| input.as_str().len());
        let members = self.metadata.iter();
        members.fold(input, |bytes, (name, value)| {
            bytes.saturating_add(name.len() + json::rough_bytes(value))
        })
    }

    /// The same request has the same fingerprint: everything that was asked for counts, in canonical order.
    fn fingerprint(&self) -> Result<Fingerprint, RepositoryError> {
        let value = serde_json::to_value(self).map_err(|e| {
            RepositoryError::new(ErrorKind::Internal, "the request cannot be written as JSON")
                .with_source(e)
        })?;
        Ok(Fingerprint(Sha256::digest(json::canonical(&value)).into()))
    }
}

/// A request whose every value is allowed, as a backend stores it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckedRun {
    /// Tells this request from another one under the same key.
    pub fingerprint: Fingerprint,
    /// What the run executes.
    pub workflow: WorkflowName,
    /// The task.
    pub input: Option<RunInput>,
    /// What makes two requests the same.
    pub idempotency_key: Option<IdempotencyKey>,
    /// What at most one run that has not ended may hold.
    pub unique_key: Option<UniqueKey>,
    /// The session.
    pub session_id: Option<SessionId>,
    /// Whom it belongs to.
    pub user: Option<UserId>,
    /// Where it waits.
    pub queue: QueueName,
    /// What it uses that only so many runs may use at once.
    pub concurrency: Option<Concurrency>,
    /// Which of several goes first.
    pub priority: Priority,
    /// How many attempts it has.
    pub max_attempts: NonZeroU32,
    /// When it may start; none means at once.
    pub available_at: Option<Timestamp>,
    /// Until when it must have ended.
    pub deadline: Option<Timestamp>,
    /// What it is found by.
    pub tags: BTreeSet<Tag>,
    /// What is known of its work before it begins.
    pub facts: RunFacts,
    /// Values of the host application's own.
    pub metadata: Map<String, Value>,
}

impl CheckedRun {
    /// Returns the run as it is when it was created at this instant, with the id and the worktree of `request`, and nothing of which
    /// has happened to it yet: what a backend stores, and answers with [`Created::New`](crate::Created::New).
    pub fn into_run(self, request: &CreateRun, now: Timestamp) -> Run {
        Run {
            summary: RunSummary {
                id: request.id,
                workflow: self.workflow,
                status: RunStatus::Pending,
                end_reason: None,
                queue: self.queue,
                priority: self.priority,
                idempotency_key: self.idempotency_key,
                unique_key: self.unique_key,
                concurrency: self.concurrency,
                session_id: self.session_id,
                user: self.user,
                attempts: 0,
                max_attempts: self.max_attempts,
                token: Token::NONE,
                owner: None,
                lease_expires_at: None,
                cancel: None,
                worktree: request.worktree.clone(),
                retry_of: None,
                tags: self.tags,
                facts: self.facts,
                usage: Usage::default(),
                available_at: self.available_at.unwrap_or(now),
                deadline: self.deadline,
                created_at: now,
                updated_at: now,
                started_at: None,
                ended_at: None,
            },
            input: self.input,
            result: None,
            error: None,
            metadata: self.metadata,
            file_changes: Vec::new(),
        }
    }
}

/// One create: the id that the caller drew, the request, and the worktree with its base resolved.
///
/// The caller draws the id, so that a create whose answer was lost can be repeated without making a second run.
#[derive(Clone, Debug)]
pub struct CreateRun {
    /// The id of the run if it is new.
    pub id: RunId,
    /// What is wanted.
    pub run: NewRun,
    /// The worktree that it needs; none for a run that needs none.
    pub worktree: Option<WantedWorktree>,
}

impl CreateRun {
    /// Refuses a batch with too many requests, or with more bytes than one call may have. Each request is
    /// [checked](NewRun::check) for itself besides.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the limit.
    pub fn check_batch(requests: &[Self]) -> Result<(), RepositoryError> {
        Limit::check_batch("runs", requests.len())?;
        let bytes = requests.iter().map(|request| request.run.bytes());
        Limit::check_batch_bytes("inputs and metadata", bytes.fold(0, usize::saturating_add))
    }
}

/// One retry: a new run made from an ended one, which stays as it ended.
///
/// The new run has the same workflow, input, keys, queue, priority, attempts, tags, metadata and facts, but for the idempotency key,
/// which names the first request, for the commits and the counts of the first run's work, and for the deadline. Its
/// [`retry_of`](crate::RunSummary::retry_of) names the ended run.
#[derive(Clone, Debug)]
pub struct RetryRun {
    /// The ended run.
    pub of: RunId,
    /// The id of the new run.
    pub id: RunId,
    /// The worktree that the new run needs; none for a run that needs none.
    pub worktree: Option<WantedWorktree>,
    /// When it may start; none means at once.
    pub available_at: Option<Timestamp>,
    /// Until when it must have ended.
    pub deadline: Option<Timestamp>,
}

impl RetryRun {
    /// Returns the new run as it is when it was made of this ended one at this instant: what a backend stores.
    pub fn run(&self, ended: &Run, now: Timestamp) -> Run {
        let facts = RunFacts {
            first_commit: None,
            last_commit: None,
            diff: None,
            ..ended.facts.clone()
        };
        Run {
            summary: RunSummary {
                id: self.id,
                status: RunStatus::Pending,
                end_reason: None,
                idempotency_key: None,
                attempts: 0,
                token: Token::NONE,
                owner: None,
                lease_expires_at: None,
                cancel: None,
                worktree: self.worktree.clone(),
                retry_of: Some(self.of),
                facts,
                usage: Usage::default(),
                available_at: self.available_at.unwrap_or(now),
                deadline: self.deadline,
                created_at: now,
                updated_at: now,
                started_at: None,
                ended_at: None,
                ..ended.summary.clone()
            },
            input: ended.input.clone(),
            result: None,
            error: None,
            metadata: ended.metadata.clone(),
            file_changes: Vec::new(),
        }
    }
}

/// Something that a run uses, and how many runs may use it at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Concurrency {
    /// What is used.
    pub key: ConcurrencyKey,
    /// How many runs with this key may run, this one included.
    pub limit: NonZeroU32,
}

/// The worktree that a run needs, with its base resolved, so that every attempt starts from the same commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedWorktree {
    /// The name of its directory below the root, and of its registration in git.
    pub name: DirectoryName,
    /// The branch to create.
    pub branch: BranchName,
    /// The commit that the branch starts at.
    pub base: CommitId,
    /// Whether it outlives the run.
    pub persistence: Persistence,
}

/// The SHA-256 of a request in canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Takes a stored fingerprint.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_allowed_is_reported() {
        let error = NewRun::new("builder")
            .user("")
            .idempotency_key("a\nb")
            .check()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "the user id is empty");
        assert!(NewRun::new("builder").branch("a..b").check().is_err());
    }

    #[test]
    fn a_request_keeps_its_fingerprint_across_versions() {
        let run = NewRun::new("builder").input("x").idempotency_key("k");
        let fingerprint = run.check().unwrap().fingerprint;
        assert_eq!(
            format!("{fingerprint:?}"),
            "60d2197ac98ccee1dec77de27f79b8636c9a4712640387550ea7805951f75954"
        );
        for other in [
            run.clone().queue("slow"),
            run.clone().tag("a"),
            run.clone().model("m"),
            run.clone().concurrency("k", NonZeroU32::MIN),
            run.clone().deadline(Timestamp::MAX),
        ] {
            assert_ne!(other.check().unwrap().fingerprint, fingerprint);
        }
        assert_eq!(
            run.queue("default").check().unwrap().fingerprint,
            fingerprint
        );
    }

    #[test]
    fn a_fingerprint_tells_requests_apart_and_ignores_the_order_of_metadata() {
        let of = |run: NewRun| run.check().unwrap().fingerprint;
        let plain = || NewRun::new("builder").input("x");
        assert_eq!(of(plain()), of(plain()));
        assert_ne!(of(plain()), of(NewRun::new("builder").input("y")));
        assert_ne!(of(plain()), of(plain().persistent()));
        assert_ne!(of(plain()), of(plain().base("main")));
        assert_eq!(
            of(plain().metadata("a", 1).metadata("b", 2)),
            of(plain().metadata("b", 2).metadata("a", 1)),
        );
    }
}
