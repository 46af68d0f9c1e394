//! Which runs a list shows, page by page.

use std::collections::{BTreeMap, BTreeSet};

use runtree_id::{BranchName, OwnerId, SessionId};
use runtree_status::{EndReason, RunStatus};
use runtree_time::{TimeRange, Timestamp};
use serde_json::Value;

use crate::error::{ErrorKind, RepositoryError};
use crate::json;
use crate::lease::Limit;
use crate::order::{Cursor, Position, RunOrder};
use crate::run::{Run, RunSummary};
use crate::text::{HostName, QueueName, Tag, UserId, WorkflowName};

/// The most values that one condition of a filter may name.
pub const MAX_FILTER_VALUES: usize = 100;

/// Which runs to show; all of them until a condition is set. Conditions are joined by "and", the values of one by "or".
///
/// A condition whose set of values is empty is an error, never "no condition": a filter that came out empty by mistake must not
/// show everybody's runs.
///
/// ```
/// use runtree_repository::RunFilter;
/// use runtree_repository::status::RunStatus;
///
/// let filter = RunFilter::new().statuses([RunStatus::Failed, RunStatus::Killed]).tag("nightly".parse()?);
/// assert!(filter.check().is_ok());
/// assert!(RunFilter::new().statuses([]).check().is_err());
/// # Ok::<(), runtree_repository::RepositoryError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RunFilter {
    /// The status is one of these.
    pub statuses: Option<BTreeSet<RunStatus>>,
    /// The reason of the end is one of these; none of a run that has not ended.
    pub end_reasons: Option<BTreeSet<EndReason>>,
    /// The workflow is one of these.
    pub workflows: Option<BTreeSet<WorkflowName>>,
    /// The queue is one of these.
    pub queues: Option<BTreeSet<QueueName>>,
    /// The run is of this session.
    pub session: Option<SessionId>,
    /// The run is this user's.
    pub user: Option<UserId>,
    /// The run's worktree has this branch.
    pub branch: Option<BranchName>,
    /// The run is running, and this is its owner.
    pub owner: Option<OwnerId>,
    /// The run is running, and its owner is on this machine.
    pub owner_host: Option<HostName>,
    /// The run has all of these tags.
    pub tags: Option<BTreeSet<Tag>>,
    /// The metadata has all of these members; with a value, the member has this value.
    pub metadata: Option<BTreeMap<String, Option<Value>>>,
    /// When the run was created.
    pub created: Option<TimeRange>,
    /// When its first attempt began.
    pub started: Option<TimeRange>,
    /// When it ended.
    pub ended: Option<TimeRange>,
}

impl RunFilter {
    /// Sets no condition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows runs whose status is one of these.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = RunStatus>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    /// Shows runs that ended for one of these reasons.
    #[must_use]
    pub fn end_reasons(mut self, reasons: impl IntoIterator<Item = EndReason>) -> Self {
        self.end_reasons = Some(reasons.into_iter().collect());
        self
    }

    /// Shows runs of these workflows.
    #[must_use]
    pub fn workflows(mut self, workflows: impl IntoIterator<Item = WorkflowName>) -> Self {
        self.workflows = Some(workflows.into_iter().collect());
        self
    }

    /// Shows runs of these queues.
    #[must_use]
    pub fn queues(mut self, queues: impl IntoIterator<Item = QueueName>) -> Self {
        self.queues = Some(queues.into_iter().collect());
        self
    }

    /// Shows runs of this session.
    #[must_use]
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// Shows this user's runs.
    #[must_use]
    pub fn user(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// Shows runs whose worktree has this branch.
    #[must_use]
    pub fn branch(mut self, branch: BranchName) -> Self {
        self.branch = Some(branch);
        self
    }

    /// Shows running runs of this owner.
    #[must_use]
    pub fn owner(mut self, owner: OwnerId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Shows running runs whose owner is on this machine.
    #[must_use]
    pub fn owner_host(mut self, host: HostName) -> Self {
        self.owner_host = Some(host);
        self
    }

    /// Shows runs that have this tag, and those of other calls as well.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.get_or_insert_default().insert(tag);
        self
    }

    /// Shows runs whose metadata has this member, whatever its value.
    #[must_use]
    pub fn metadata_key(mut self, key: impl Into<String>) -> Self {
        let members = self.metadata.get_or_insert_default();
        members.insert(key.into(), None);
        self
    }

    /// Shows runs whose metadata has this member with this value. Objects are equal whatever the order of their members; numbers
    /// are equal as they were written: `1` is not `1.0`.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let members = self.metadata.get_or_insert_default();
        members.insert(key.into(), Some(value.into()));
        self
    }

    /// Shows runs created in this range.
    #[must_use]
    pub fn created(mut self, range: TimeRange) -> Self {
        self.created = Some(range);
        self
    }

    /// Shows runs whose first attempt began in this range.
    #[must_use]
    pub fn started(mut self, range: TimeRange) -> Self {
        self.started = Some(range);
        self
    }

    /// Shows runs that ended in this range.
    #[must_use]
    pub fn ended(mut self, range: TimeRange) -> Self {
        self.ended = Some(range);
        self
    }

    /// Refuses conditions without values, with too many, and values beyond the limits.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the condition.
    pub fn check(&self) -> Result<(), RepositoryError> {
        let counts = [
            ("status", self.statuses.as_ref().map(BTreeSet::len)),
            ("end reason", self.end_reasons.as_ref().map(BTreeSet::len)),
            ("workflow", self.workflows.as_ref().map(BTreeSet::len)),
            ("queue", self.queues.as_ref().map(BTreeSet::len)),
            ("tag", self.tags.as_ref().map(BTreeSet::len)),
            ("metadata", self.metadata.as_ref().map(BTreeMap::len)),
        ];
        for (what, count) in counts {
            match count {
                Some(0) => return Err(refused(format!("the filter names no {what}"))),
                Some(count) if count > MAX_FILTER_VALUES => {
                    return Err(refused(format!(
                        "the filter names {count} times a {what}, at most {MAX_FILTER_VALUES} are allowed"
                    )));
                }
                Some(_) | None => {}
            }
        }
        for (key, value) in self.metadata.iter().flatten() {
            json::check("the name of a metadata member", &Value::from(key.as_str()))?;
            json::check("the metadata value", value.as_ref().unwrap_or(&Value::Null))?;
        }
        Ok(())
    }

    /// Tells whether the list shows this run: the meaning that every backend's query has.
    pub fn shows(&self, run: &Run) -> bool {
        let within = |range: Option<TimeRange>, at: Option<Timestamp>| match range {
            Some(range) => at.is_some_and(|at| range.contains(at)),
            None => true,
        };
        let owner = run.owner.as_ref();
        let branch = run.worktree.as_ref().map(|worktree| &worktree.branch);
        is_one_of(self.statuses.as_ref(), Some(&run.status))
            && is_one_of(self.end_reasons.as_ref(), run.end_reason.as_ref())
            && is_one_of(self.workflows.as_ref(), Some(&run.workflow))
            && is_one_of(self.queues.as_ref(), Some(&run.queue))
            && is(self.session.as_ref(), run.session_id.as_ref())
            && is(self.user.as_ref(), run.user.as_ref())
            && is(self.branch.as_ref(), branch)
            && is(self.owner.as_ref(), owner.map(|owner| &owner.id))
            && is(self.owner_host.as_ref(), owner.map(|owner| &owner.host))
            && self.tags.iter().flatten().all(|tag| run.tags.contains(tag))
            && self.metadata.iter().flatten().all(|(key, wanted)| {
                let found = run.metadata.get(key);
                found.is_some_and(|found| wanted.as_ref().is_none_or(|wanted| wanted == found))
            })
            && within(self.created, Some(run.created_at))
            && within(self.started, run.started_at)
            && within(self.ended, run.ended_at)
    }
}

fn is_one_of<T: Ord>(wanted: Option<&BTreeSet<T>>, found: Option<&T>) -> bool {
    wanted.is_none_or(|wanted| found.is_some_and(|found| wanted.contains(found)))
}

fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
    wanted.is_none_or(|wanted| found == Some(wanted))
}

fn refused(why: String) -> RepositoryError {
    RepositoryError::new(ErrorKind::InvalidInput, why)
}

/// One page of a list: how many runs, in which order, and after which one.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// How many runs at most.
    pub limit: Limit,
    /// In which order.
    pub order: RunOrder,
    /// Where the last page ended; none for the first page.
    pub after: Option<Cursor>,
}

impl PageRequest {
    /// Returns the place after which this page begins.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the cursor comes from a list in another order.
    pub fn position(&self) -> Result<Option<&Position>, RepositoryError> {
        let after = self.after.as_ref();
        after
            .map(|cursor| cursor.position_in(self.order))
            .transpose()
    }
}

/// A page of runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Where the next page begins; none when this was the last one.
    pub next: Option<Cursor>,
}

impl RunPage {
    /// Makes a page of at most `limit` runs from one run more than the page may have, as a backend reads them.
    pub fn of(mut runs: Vec<RunSummary>, page: &PageRequest) -> Self {
        let more = runs.len() > page.limit.get();
        runs.truncate(page.limit.get());
        let next = runs
            .last()
            .filter(|_| more)
            .map(|last| Cursor::new(page.order, Position::of(page.order.by, last)));
        Self { runs, next }
    }
}
