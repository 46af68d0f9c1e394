//! The handle that a service holds: it alone knows both the run repository and the worktrees.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtree_id::{IdEnding, IdGenerator, Lookup, RunId};
use runtree_process::ProcessIdentity;
use runtree_repository::{
    DynRunRepository, EventNumber, HostName, HostPath, LeaseTime, Limit, Owner, PageRequest,
    ProcessMark, Run, RunEvent, RunFilter, RunPage, RunRepository, RunSummary, WorktreeSite,
};
use runtree_worktree::{LockHolder, WorktreeError, Worktrees};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::heartbeat;
use crate::owner::{Identity, OwnedRuns};
use crate::recover::Recovery;

/// Starts runs, keeps them owned while they live, kills them when asked, ends each exactly once, and cleans up after them.
///
/// A cheap handle: clones share one identity. Many coordinators, in one process or on many machines, may work on the same run
/// repository and the same git repository.
///
/// # Cancel safety
///
/// Every future may be dropped at any await. What it had begun is then finished or undone by [`recover`](Self::recover), here or
/// in another process.
#[derive(Clone)]
pub struct Coordinator {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) runs: DynRunRepository,
    pub(crate) worktrees: Worktrees,
    pub(crate) ids: IdGenerator,
    pub(crate) me: Identity,
    pub(crate) owned: OwnedRuns,
    pub(crate) recovery: Recovery,
    /// Tells the workers of this process that there is something to take.
    pub(crate) submitted: Notify,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator")
            .field("me", &self.inner.me)
            .field("runs", &self.inner.runs)
            .finish_non_exhaustive()
    }
}

/// Puts a coordinator together; both stores are required.
#[derive(Debug, Default)]
#[must_use]
pub struct CoordinatorBuilder {
    runs: Option<DynRunRepository>,
    worktrees: Option<Worktrees>,
    ids: Option<IdGenerator>,
    lease_time: LeaseTime,
}

impl CoordinatorBuilder {
    /// Keeps the records of runs here.
    pub fn runs(mut self, runs: impl RunRepository) -> Self {
        self.runs = Some(Arc::new(runs));
        self
    }

    /// Keeps the records of runs here, in a repository whose backend was chosen at run time.
    pub fn shared_runs(mut self, runs: DynRunRepository) -> Self {
        self.runs = Some(runs);
        self
    }

    /// Makes the worktrees here.
    pub fn worktrees(mut self, worktrees: Worktrees) -> Self {
        self.worktrees = Some(worktrees);
        self
    }

    /// Draws ids from here instead of from the machine's clock and the operating system's entropy.
    pub fn ids(mut self, ids: IdGenerator) -> Self {
        self.ids = Some(ids);
        self
    }

    /// Sets for how long a run stays owned without a sign of life; one minute by default. Leases are renewed three times as often.
    pub fn lease_time(mut self, time: LeaseTime) -> Self {
        self.lease_time = time;
        self
    }

    /// Builds the coordinator, and first finishes or undoes what a crash left: see [`Coordinator::recovery`].
    ///
    /// The leases of its runs are renewed on the tokio runtime that this is called on, for as long as that runs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a store is missing; [`ErrorKind::GitRepository`] when no worktree can be added to the git
    /// repository, because it is bare, has no commit or may not be written to, or its root may not; else what the stores answer.
    pub async fn build(self) -> Result<Coordinator> {
        let missing = |what| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the builder has no {what}"),
            )
        };
        let runs = self.runs.ok_or_else(|| missing("run repository"))?;
        let worktrees = self.worktrees.ok_or_else(|| missing("worktrees"))?;
        // Told now, and not by the first run that fails.
        git(&worktrees, Worktrees::check).await?;
        let ids = self.ids.unwrap_or_else(IdGenerator::system);
        let process = ProcessIdentity::current();
        let host = HostName::new(process.host().name())?;
        let owner = Owner {
            id: ids
                .owner_id()
                .map_err(|e| Error::new(ErrorKind::Internal, e.to_string()).with_source(e))?,
            host: host.clone(),
            process: ProcessMark::new(process.to_string())?,
        };
        let site = WorktreeSite {
            host,
            git_repository: HostPath::from_path(worktrees.main_path())?,
            root: HostPath::from_path(worktrees.root())?,
        };
        let me = Identity {
            owner,
            site,
            lease_time: self.lease_time,
        };
        let worktrees = worktrees.with_holder(LockHolder::new(process.to_string())?);
        let inner = Inner {
            runs,
            worktrees,
            ids,
            me,
            owned: OwnedRuns::default(),
            recovery: Recovery::default(),
            submitted: Notify::new(),
        };
        Coordinator::recovered(inner).await
    }
}

impl Coordinator {
    /// Begins to put a coordinator together.
    pub fn builder() -> CoordinatorBuilder {
        CoordinatorBuilder::default()
    }

    async fn recovered(mut inner: Inner) -> Result<Self> {
        inner.recovery = inner.recover().await?;
        let inner = Arc::new(inner);
        heartbeat::spawn(&inner);
        Ok(Self { inner })
    }

    /// Returns what was found and finished or undone when this coordinator was built.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// Finishes or undoes what a crash left: takes up runs whose owners are dead, finishes or undoes half-made worktrees, cleans up
    /// after ended runs. Safe at any time, beside any other coordinator.
    ///
    /// Building a coordinator does this once. A service that shares its run repository with others calls it again and again, say once
    /// in every lease time: nothing else takes up the runs of owners that die meanwhile.
    ///
    /// # Errors
    /// What the stores answer. What could not be done to one run is in the report and is tried again next time.
    pub async fn recover(&self) -> Result<Recovery> {
        self.inner.recover().await
    }

    /// Returns a run, whole.
    ///
    /// # Errors
    /// What the run repository answers.
    pub async fn get(&self, id: RunId) -> Result<Option<Run>> {
        Ok(self.inner.runs.get(id).await?)
    }

    /// Returns the run whose id ends like this.
    ///
    /// # Errors
    /// What the run repository answers.
    pub async fn find(&self, ending: &IdEnding) -> Result<Lookup<RunSummary>> {
        Ok(self.inner.runs.find(ending).await?)
    }

    /// Returns the first page of runs, the youngest first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a filter without values.
    pub async fn list(&self, filter: RunFilter) -> Result<RunPage> {
        self.list_page(&filter, &PageRequest::default()).await
    }

    /// Returns a page of runs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a filter without values or a cursor of another list.
    pub async fn list_page(&self, filter: &RunFilter, page: &PageRequest) -> Result<RunPage> {
        Ok(self.inner.runs.list(filter, page).await?)
    }

    /// Returns the history of a run, oldest first, after a number.
    ///
    /// # Errors
    /// What the run repository answers.
    pub async fn events(
        &self,
        id: RunId,
        after: EventNumber,
        limit: Limit,
    ) -> Result<Vec<RunEvent>> {
        Ok(self.inner.runs.events(id, after, limit).await?)
    }

    /// Returns the worktrees that this coordinator works on.
    pub fn worktrees(&self) -> &Worktrees {
        &self.inner.worktrees
    }

    /// Returns the run repository that this coordinator works on.
    pub fn runs(&self) -> &DynRunRepository {
        &self.inner.runs
    }
}

impl Inner {
    /// Works on git and files on a thread that may block.
    ///
    /// Once begun the work goes on to its end, even when the caller is dropped.
    pub(crate) async fn git<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Worktrees) -> Result<T, WorktreeError> + Send + 'static,
    ) -> Result<T> {
        git(&self.worktrees, work).await
    }

    /// Writes to the run repository, again and again while it is busy or does not answer, for about five seconds.
    ///
    /// Every write of the run repository may be repeated.
    pub(crate) async fn persist<T, F>(&self, mut write: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, runtree_repository::RepositoryError>>,
    {
        let mut pause = Duration::from_millis(50);
        loop {
            match write().await {
                Err(error) if error.is_retryable() && pause < Duration::from_secs(4) => {
                    tracing::debug!(%error, ?pause, "the run repository is asked again");
                    tokio::time::sleep(pause).await;
                    pause *= 3;
                }
                answer => return Ok(answer?),
            }
        }
    }
}

async fn git<T: Send + 'static>(
    worktrees: &Worktrees,
    work: impl FnOnce(&Worktrees) -> Result<T, WorktreeError> + Send + 'static,
) -> Result<T> {
    let worktrees = worktrees.clone();
    let done = tokio::task::spawn_blocking(move || work(&worktrees)).await;
    let panicked = |error| {
        let message = "the work on git did not come to its end";
        Error::new(ErrorKind::Internal, message).with_source(error)
    };
    Ok(done.map_err(panicked)??)
}
