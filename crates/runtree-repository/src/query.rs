//! Which runs a list shows, in which order, page by page.

use std::collections::BTreeSet;
use std::fmt;

use runtree_id::{RunId, SessionId};
use runtree_status::RunStatus;
use runtree_time::{TimeRange, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{ErrorKind, RepositoryError};
use crate::lease::Limit;
use crate::run::RunSummary;
use crate::text::{UserId, WorkflowName};

/// Which runs to list; all of them until a condition is set. Conditions are joined by "and".
///
/// A condition whose set of values is empty is an error, never "no condition": a filter that came out empty by mistake must not
/// show everybody's runs.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    statuses: Option<BTreeSet<RunStatus>>,
    workflows: Option<BTreeSet<WorkflowName>>,
    session: Option<SessionId>,
    user: Option<UserId>,
    created: Option<TimeRange>,
    started: Option<TimeRange>,
    ended: Option<TimeRange>,
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

    /// Shows runs of these workflows.
    #[must_use]
    pub fn workflows(mut self, workflows: impl IntoIterator<Item = WorkflowName>) -> Self {
        self.workflows = Some(workflows.into_iter().collect());
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

    /// Returns the statuses to show.
    pub fn wanted_statuses(&self) -> Option<&BTreeSet<RunStatus>> {
        self.statuses.as_ref()
    }

    /// Returns the workflows to show.
    pub fn wanted_workflows(&self) -> Option<&BTreeSet<WorkflowName>> {
        self.workflows.as_ref()
    }

    /// Returns the session to show.
    pub fn wanted_session(&self) -> Option<SessionId> {
        self.session
    }

    /// Returns the user whose runs to show.
    pub fn wanted_user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Returns when the runs to show were created.
    pub fn wanted_created(&self) -> Option<TimeRange> {
        self.created
    }

    /// Returns when the runs to show began.
    pub fn wanted_started(&self) -> Option<TimeRange> {
        self.started
    }

    /// Returns when the runs to show ended.
    pub fn wanted_ended(&self) -> Option<TimeRange> {
        self.ended
    }

    /// Refuses conditions that nothing can meet because they have no values.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the condition.
    pub fn check(&self) -> Result<(), RepositoryError> {
        let refuse = |what| {
            Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!("the filter names no {what}"),
            ))
        };
        if self.statuses.as_ref().is_some_and(BTreeSet::is_empty) {
            return refuse("status");
        }
        if self.workflows.as_ref().is_some_and(BTreeSet::is_empty) {
            return refuse("workflow");
        }
        Ok(())
    }

    /// Tells whether the list shows this run: the meaning that every backend's query has.
    pub fn shows(&self, run: &RunSummary) -> bool {
        let within = |range: Option<TimeRange>, at: Option<Timestamp>| match range {
            Some(range) => at.is_some_and(|at| range.contains(at)),
            None => true,
        };
        self.statuses
            .as_ref()
            .is_none_or(|statuses| statuses.contains(&run.status))
            && self
                .workflows
                .as_ref()
                .is_none_or(|workflows| workflows.contains(&run.workflow))
            && self
                .session
                .is_none_or(|session| run.session_id == Some(session))
            && self
                .user
                .as_ref()
                .is_none_or(|user| run.user.as_ref() == Some(user))
            && within(self.created, Some(run.created_at))
            && within(self.started, run.started_at)
            && within(self.ended, run.ended_at)
    }
}

/// In which order runs are listed; runs of the same instant follow the order of their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunOrder {
    /// The youngest first.
    #[default]
    NewestFirst,
    /// The oldest first.
    OldestFirst,
}

impl RunOrder {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NewestFirst => "newest",
            Self::OldestFirst => "oldest",
        }
    }
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
    pub fn position(&self) -> Result<Option<Position>, RepositoryError> {
        match &self.after {
            Some(cursor) if cursor.order != self.order => Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!(
                    "the cursor is of a list in the order {}, not {}",
                    cursor.order.as_str(),
                    self.order.as_str()
                ),
            )),
            Some(cursor) => Ok(Some(cursor.position)),
            None => Ok(None),
        }
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
            .map(|last| Cursor::new(page.order, Position::of(last)));
        Self { runs, next }
    }
}

/// A place between two runs of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When the run before it was created.
    pub created_at: Timestamp,
    /// The run before it.
    pub id: RunId,
}

impl Position {
    /// Returns the place just after this run.
    pub fn of(run: &RunSummary) -> Self {
        Self {
            created_at: run.created_at,
            id: run.id,
        }
    }
}

/// Where a page ended, as a text to hand out and take back: opaque, with a version and a check sum.
///
/// The check sum finds damage and guesses; it is no secret. A cursor gives no rights: a list shows what its filter allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    order: RunOrder,
    position: Position,
}

impl Cursor {
    const VERSION: &str = "c1";

    /// Marks a place in a list of this order.
    pub const fn new(order: RunOrder, position: Position) -> Self {
        Self { order, position }
    }

    fn body(&self) -> String {
        let Position { created_at, id } = self.position;
        format!(
            "{}.{}.{}.{id}",
            Self::VERSION,
            self.order.as_str(),
            created_at.as_unix_micros()
        )
    }

    fn check_sum(body: &str) -> String {
        Sha256::digest(body)
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn parse_body(body: &str) -> Option<Self> {
        let mut parts = body.split('.');
        let (version, order, micros, id) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != Self::VERSION || parts.next().is_some() {
            return None;
        }
        let order = [RunOrder::NewestFirst, RunOrder::OldestFirst]
            .into_iter()
            .find(|known| known.as_str() == order)?;
        let created_at = Timestamp::from_unix_micros(micros.parse().ok()?).ok()?;
        let cursor = Self::new(
            order,
            Position {
                created_at,
                id: id.parse().ok()?,
            },
        );
        (cursor.body() == body).then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        write!(f, "{body}.{}", Self::check_sum(&body))
    }
}

impl std::str::FromStr for Cursor {
    type Err = RepositoryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.rsplit_once('.')
            .filter(|(body, sum)| Self::check_sum(body) == *sum)
            .and_then(|(body, _)| Self::parse_body(body))
            .ok_or_else(|| {
                RepositoryError::new(
                    ErrorKind::InvalidInput,
                    "the cursor was not made by this version, or was changed",
                )
            })
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
