//! What every case is given: a fresh store, a handle on it, the clock, and short ways to bring runs into a state.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtree_repository::id::{
    BranchName, CommitId, DirectoryName, IdGenerator, RunId, SessionId, Slug,
};
use runtree_repository::status::Word;
use runtree_repository::time::{ManualClock, Timestamp};
use runtree_repository::{
    CancelMode, CancelRequest, Claim, ClaimOf, Claimed, CleanupClaim, CleanupTask, CreateRun,
    Created, DynRunRepository, ErrorKind, ErrorText, EventKind, EventNumber, HostName, HostPath,
    LeaseRef, LeaseTime, Limit, Namespace, NewRun, Outcome, Owner, PageRequest, Persistence,
    ProcessMark, RepositoryError, Rescue, RetryRun, Run, RunEvent, RunFilter, RunSummary,
    WantedWorktree, WorktreeQuery, WorktreeRecord, WorktreeSite,
};
use tokio::sync::Barrier;

use crate::backend::{Backend, BackendError, ClockSource, Declaration};
use crate::failure::{Checked, Failure, WriteAnswer, ensure_eq, take};

/// The shortest lease there is: for cases that wait until it has expired.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

/// A delay long enough for a slow server to answer a few calls in it.
pub(crate) const BRIEF: Duration = Duration::from_millis(500);

/// A lease that no case outlives.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);

/// The namespace that cases work in.
pub(crate) const NAMESPACE: &str = "default";

/// The machine that owners and worktrees are on unless a case says otherwise.
pub(crate) const HOST: &str = "alpha.example";

const GIT_REPOSITORY: &str = "/srv/checkout/.git";

/// A microsecond that a truncation to milliseconds or a rounding would show.
const START_MICROS: i64 = 1_750_586_399_999_999;

/// A store of a backend whose types the cases do not know.
#[async_trait]
pub(crate) trait AnyStore: Send + Sync {
    async fn open(&self, namespace: &Namespace) -> Result<DynRunRepository, BackendError>;
    async fn write_status(&self, run: RunId, status: &Word) -> Result<(), BackendError>;
}

struct Made<B: Backend> {
    backend: Arc<B>,
    store: B::Store,
    namespace: Namespace,
}

#[async_trait]
impl<B: Backend> AnyStore for Made<B> {
    async fn open(&self, namespace: &Namespace) -> Result<DynRunRepository, BackendError> {
        self.backend.open(&self.store, namespace).await
    }

    async fn write_status(&self, run: RunId, status: &Word) -> Result<(), BackendError> {
        self.backend
            .write_status(&self.store, &self.namespace, run, status)
            .await
    }
}

/// What a case works with.
pub(crate) struct Cx {
    /// A handle on the namespace `default` of a store that was empty when the case began.
    pub(crate) runs: DynRunRepository,
    /// The clock that was passed to the backend; for cases that need it moved.
    pub(crate) clock: ManualClock,
    /// What the backend declared.
    pub(crate) declared: Declaration,
    store: Box<dyn AnyStore>,
    ids: IdGenerator,
}

impl Cx {
    pub(crate) async fn new<B: Backend>(backend: &Arc<B>) -> Checked<Self> {
        let declared = backend.declaration();
        let clock = ManualClock::new(start()?);
        let namespace = Namespace::new(NAMESPACE)?;
        let store = backend.make(clock.clone()).await;
        let store = store.map_err(|e| Failure::new(format!("the backend made no store: {e}")))?;
        let store: Box<dyn AnyStore> = Box::new(Made {
            backend: Arc::clone(backend),
            store,
            namespace,
        });
        Ok(Self {
            runs: open(&*store, NAMESPACE).await?,
            clock,
            declared,
            store,
            ids: IdGenerator::system(),
        })
    }

    /// Opens another handle on the same namespace.
    pub(crate) async fn open_again(&self) -> Checked<DynRunRepository> {
        open(&*self.store, NAMESPACE).await
    }

    /// Opens a handle on another namespace of the same store.
    pub(crate) async fn open_namespace(&self, namespace: &str) -> Checked<DynRunRepository> {
        open(&*self.store, namespace).await
    }

    /// Closes this case's handle and opens the store again.
    pub(crate) async fn reopen(self) -> Checked<Self> {
        let Self {
            runs,
            clock,
            declared,
            store,
            ids,
        } = self;
        drop(runs);
        Ok(Self {
            runs: open(&*store, NAMESPACE).await?,
            clock,
            declared,
            store,
            ids,
        })
    }

    /// Overwrites the status word of a run as a newer version would.
    pub(crate) async fn write_status(&self, run: RunId, status: &str) -> Checked {
        let word = Word::new(status).map_err(|e| Failure::new(e.to_string()))?;
        let written = self.store.write_status(run, &word).await;
        written.map_err(|e| Failure::new(format!("the backend wrote no foreign word: {e}")))
    }

    /// Waits until the store's clock shows this instant or a later one.
    pub(crate) async fn wait_until(&self, at: Timestamp) -> Checked {
        match self.declared.clock {
            ClockSource::Passed => {
                if self.clock_shows() < at {
                    self.clock.set(at);
                }
            }
            ClockSource::Server => loop {
                let now = self.runs.now().await?;
                if now >= at {
                    break;
                }
                tokio::time::sleep(at.saturating_duration_since(now)).await;
            },
        }
        Ok(())
    }

    /// Lets the store's clock go on by this much.
    pub(crate) async fn pass(&self, time: Duration) -> Checked {
        let now = self.runs.now().await?;
        self.wait_until(now.saturating_add(time)).await
    }

    fn clock_shows(&self) -> Timestamp {
        use runtree_repository::time::Clock;
        self.clock.now()
    }

    pub(crate) fn run_id(&self) -> Checked<RunId> {
        self.ids.run_id().map_err(|e| Failure::new(e.to_string()))
    }

    /// Draws an id whose last 48 bits are these.
    pub(crate) fn run_id_ending(&self, low: [u8; 6]) -> Checked<RunId> {
        let mut bytes = *self.run_id()?.as_bytes();
        let end = bytes.last_chunk_mut::<6>();
        *end.ok_or_else(|| Failure::new("an id has 16 bytes"))? = low;
        RunId::from_bytes(bytes).map_err(|e| Failure::new(e.to_string()))
    }

    /// Draws an owner on a machine.
    pub(crate) fn owner(&self, host: &str) -> Checked<Owner> {
        Ok(Owner {
            id: self
                .ids
                .owner_id()
                .map_err(|e| Failure::new(e.to_string()))?,
            host: HostName::new(host)?,
            process: process("4242")?,
        })
    }

    /// Makes a request for a run that needs no worktree.
    pub(crate) fn request(&self, run: NewRun) -> Checked<CreateRun> {
        Ok(CreateRun {
            id: self.run_id()?,
            run,
            worktree: None,
        })
    }

    /// Makes a request for a run that needs a worktree.
    pub(crate) fn worktree_request(
        &self,
        run: NewRun,
        persistence: Persistence,
    ) -> Checked<CreateRun> {
        let id = self.run_id()?;
        let run = match persistence {
            Persistence::Temporary => run,
            Persistence::Persistent => run.persistent(),
        };
        let slug = Slug::from_text("conformance");
        let base = "0123456789abcdef0123456789abcdef01234567".parse();
        let worktree = WantedWorktree {
            name: DirectoryName::for_run(&slug, id),
            branch: BranchName::for_run(&slug, id),
            base: base.map_err(|_| Failure::new("a commit id has 40 hexadecimal digits"))?,
            persistence,
        };
        Ok(CreateRun {
            id,
            run,
            worktree: Some(worktree),
        })
    }

    /// Creates a run that needs no worktree.
    pub(crate) async fn create(&self, run: NewRun) -> Checked<Run> {
        self.create_new(&self.request(run)?).await
    }

    /// Creates a run that needs a worktree.
    pub(crate) async fn create_with_worktree(
        &self,
        run: NewRun,
        persistence: Persistence,
    ) -> Checked<Run> {
        self.create_new(&self.worktree_request(run, persistence)?)
            .await
    }

    /// Creates a run that must be new.
    pub(crate) async fn create_new(&self, request: &CreateRun) -> Checked<Run> {
        let created = self.runs.create(request).await?;
        take!(created, Created::New(run) => Ok(run), "the request {} must make a new run", request.id)
    }

    /// Makes requests for runs that need no worktree.
    pub(crate) fn requests(
        &self,
        runs: impl IntoIterator<Item = NewRun>,
    ) -> Checked<Vec<CreateRun>> {
        runs.into_iter().map(|run| self.request(run)).collect()
    }

    /// Creates runs that must all be new, in one call.
    pub(crate) async fn create_many(
        &self,
        runs: impl IntoIterator<Item = NewRun>,
    ) -> Checked<Vec<Run>> {
        self.create_all(&self.requests(runs)?).await
    }

    /// Creates the runs of these requests in one call; all must be new.
    pub(crate) async fn create_all(&self, requests: &[CreateRun]) -> Checked<Vec<Run>> {
        let created = self.runs.create_many(requests).await?;
        ensure_eq!(
            created.len(),
            requests.len(),
            "the answers to a create of many"
        );
        let mut runs = Vec::new();
        for created in created {
            runs.push(take!(created, Created::New(run) => run, "each of the runs must be new"));
        }
        Ok(runs)
    }

    /// Wishes to try an ended run again, at once and without a worktree.
    pub(crate) fn retry_of(&self, of: RunId) -> Checked<RetryRun> {
        Ok(RetryRun {
            of,
            id: self.run_id()?,
            worktree: None,
            available_at: None,
            deadline: None,
        })
    }

    /// Creates a run, claims it and ends it.
    pub(crate) async fn ended(&self, run: NewRun, outcome: &Outcome) -> Checked<Run> {
        let claimed = self.running(run).await?;
        let ended = self.runs.end(claimed.lease, outcome).await?;
        ended.applied("an ending")
    }

    /// Wishes to claim, on the usual machine and under a lease that lasts.
    pub(crate) fn claim_of(&self, of: ClaimOf) -> Checked<Claim> {
        Ok(Claim {
            owner: self.owner(HOST)?,
            lease_time: LeaseTime::new(LONG)?,
            limit: Limit::MAX,
            of,
            site: Some(site(HOST)?),
        })
    }

    /// Claims a run, which must be to be had.
    pub(crate) async fn claim(&self, id: RunId) -> Checked<Claimed> {
        self.claim_for(id, LONG).await
    }

    /// Claims a run under a lease of this time.
    pub(crate) async fn claim_for(&self, id: RunId, lease_time: Duration) -> Checked<Claimed> {
        let mut claim = self.claim_of(ClaimOf::Run(id))?;
        claim.lease_time = LeaseTime::new(lease_time)?;
        only(
            self.runs.claim(&claim).await?,
            "a claim of one run that waits",
        )
    }

    /// Claims everything that is to be had.
    pub(crate) async fn claim_all(&self) -> Checked<Vec<Claimed>> {
        Ok(self.runs.claim(&self.claim_of(ClaimOf::ANY)?).await?)
    }

    /// Creates a run and claims it.
    pub(crate) async fn running(&self, run: NewRun) -> Checked<Claimed> {
        let run = self.create(run).await?;
        self.claim(run.id).await
    }

    /// Creates a run and claims it, then waits until the lease has expired.
    pub(crate) async fn expired(&self, run: NewRun) -> Checked<Claimed> {
        let run = self.create(run).await?;
        let claimed = self.claim_for(run.id, SHORT).await?;
        self.wait_until(claimed.expires_at).await?;
        Ok(claimed)
    }

    /// Creates a run that needs a worktree, claims it, and reports the worktree as checked out.
    pub(crate) async fn running_with_worktree(
        &self,
        run: NewRun,
        persistence: Persistence,
    ) -> Checked<Claimed> {
        let run = self.create_with_worktree(run, persistence).await?;
        let claimed = self.claim(run.id).await?;
        let ready = self.runs.worktree_ready(claimed.lease).await?;
        ensure_eq!(
            ready.accepted().is_some(),
            true,
            "an owner reports its worktree as checked out"
        );
        Ok(claimed)
    }

    /// Reads a run that must exist.
    pub(crate) async fn get(&self, id: RunId) -> Checked<Run> {
        let run = self.runs.get(id).await?;
        run.ok_or_else(|| Failure::new(format!("the run {id} must exist")))
    }

    /// Reads the whole history of a run.
    pub(crate) async fn events(&self, id: RunId) -> Checked<Vec<RunEvent>> {
        Ok(self.runs.events(id, EventNumber::START, Limit::MAX).await?)
    }

    /// Reads what happened to a run, in order.
    pub(crate) async fn kinds(&self, id: RunId) -> Checked<Vec<EventKind>> {
        let events = self.events(id).await?;
        Ok(events.iter().map(|event| event.kind).collect())
    }

    /// Lists every run that a filter shows, in one page.
    pub(crate) async fn list(&self, filter: &RunFilter) -> Checked<Vec<RunSummary>> {
        let page = PageRequest {
            limit: Limit::MAX,
            ..PageRequest::default()
        };
        Ok(self.runs.list(filter, &page).await?.runs)
    }

    /// Lists the ids of the runs that a filter shows.
    pub(crate) async fn ids(&self, filter: &RunFilter) -> Checked<Vec<RunId>> {
        Ok(self.list(filter).await?.iter().map(|run| run.id).collect())
    }

    /// Reads every worktree that a run ever had.
    pub(crate) async fn worktrees(&self, run: RunId) -> Checked<Vec<WorktreeRecord>> {
        Ok(self.runs.worktrees(&WorktreeQuery::Run(run)).await?)
    }

    /// Wishes to clean up on the usual machine.
    pub(crate) fn cleanup_claim(&self) -> Checked<CleanupClaim> {
        let site = site(HOST)?;
        Ok(CleanupClaim {
            owner: self.owner(HOST)?,
            lease_time: LeaseTime::new(LONG)?,
            limit: Limit::MAX,
            host: site.host,
            git_repository: site.git_repository,
            run: None,
        })
    }

    /// Takes the clean-ups of one run that are due.
    pub(crate) async fn cleanups(&self, run: RunId) -> Checked<Vec<CleanupTask>> {
        let claim = CleanupClaim {
            run: Some(run),
            ..self.cleanup_claim()?
        };
        Ok(self.runs.claim_cleanups(&claim).await?)
    }

    /// Takes the one clean-up of a run, which must be due.
    pub(crate) async fn cleanup(&self, run: RunId) -> Checked<CleanupTask> {
        only(self.cleanups(run).await?, "a claim of the run's clean-up")
    }

    /// Takes up everything that has expired.
    pub(crate) async fn rescue_expired(&self) -> Checked<Vec<runtree_repository::Rescued>> {
        let rescue = Rescue {
            proven_dead: Vec::new(),
            limit: Limit::MAX,
            spare: Vec::new(),
        };
        Ok(self.runs.rescue(&rescue).await?)
    }

    /// Takes up the run of an owner that was proven dead.
    pub(crate) async fn rescue_dead(
        &self,
        lease: LeaseRef,
    ) -> Checked<Vec<runtree_repository::Rescued>> {
        let rescue = Rescue {
            proven_dead: vec![lease],
            limit: Limit::MAX,
            spare: Vec::new(),
        };
        Ok(self.runs.rescue(&rescue).await?)
    }
}

async fn open(store: &dyn AnyStore, namespace: &str) -> Checked<DynRunRepository> {
    let opened = store.open(&Namespace::new(namespace)?).await;
    opened.map_err(|e| Failure::new(format!("the backend opened no handle on {namespace}: {e}")))
}

/// The instant that a passed clock shows when a case begins.
pub(crate) fn start() -> Checked<Timestamp> {
    Timestamp::from_unix_micros(START_MICROS).map_err(|e| Failure::new(e.to_string()))
}

/// The usual site of a machine.
pub(crate) fn site(host: &str) -> Checked<WorktreeSite> {
    Ok(WorktreeSite {
        host: HostName::new(host)?,
        git_repository: HostPath::new(GIT_REPOSITORY)?,
        root: HostPath::new("/srv/worktrees")?,
    })
}

/// A process that an owner is, or that works for one.
pub(crate) fn process(pid: &str) -> Checked<ProcessMark> {
    Ok(ProcessMark::new(format!("boot-1/{pid}/100"))?)
}

pub(crate) fn session(text: &str) -> Checked<SessionId> {
    text.parse()
        .map_err(|_| Failure::new(format!("{text} must be a session id")))
}

/// A run that may be tried this many times.
pub(crate) fn with_attempts(attempts: u32) -> Checked<NewRun> {
    let attempts = std::num::NonZeroU32::new(attempts);
    let attempts = attempts.ok_or_else(|| Failure::new("a run has an attempt"))?;
    Ok(NewRun::new("builder").max_attempts(attempts))
}

/// A commit that is told from others by its number.
pub(crate) fn commit(number: u32) -> Checked<CommitId> {
    let commit = format!("{number:040x}").parse();
    commit.map_err(|_| Failure::new("a commit id has 40 hexadecimal digits"))
}

pub(crate) fn completed() -> Outcome {
    Outcome::Completed { result: None }
}

/// A failure that another attempt would not mend.
pub(crate) fn failed(error: &str) -> Outcome {
    Outcome::Failed {
        error: ErrorText::lossy(error),
        retry_after: None,
    }
}

/// A failure that another attempt may mend.
pub(crate) fn failed_for_now(error: &str, retry_after: Duration) -> Outcome {
    Outcome::Failed {
        error: ErrorText::lossy(error),
        retry_after: Some(retry_after),
    }
}

pub(crate) const fn graceful() -> CancelRequest {
    CancelRequest::new(CancelMode::Graceful)
}

pub(crate) const fn forced() -> CancelRequest {
    CancelRequest::new(CancelMode::Forced)
}

/// Takes the one entry of an answer.
#[track_caller]
pub(crate) fn only<T: std::fmt::Debug>(answer: Vec<T>, what: &str) -> Checked<T> {
    let mut answer = answer;
    match (answer.pop(), answer.is_empty()) {
        (Some(entry), true) => Ok(entry),
        (last, _) => Err(Failure::new(format!(
            "{what} must have one answer: saw {answer:?} and {last:?}"
        ))),
    }
}

/// Runs tasks at once, all of them started before any goes on, and answers in their order.
pub(crate) async fn together<T: Send + 'static>(
    tasks: Vec<impl Future<Output = T> + Send + 'static>,
) -> Checked<Vec<T>> {
    let start = Arc::new(Barrier::new(tasks.len()));
    let tasks: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                task.await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(
            task.await
                .map_err(|e| Failure::new(format!("a task ended without an answer: {e}")))?,
        );
    }
    Ok(answers)
}

/// Makes a call again for as long as the store says that others were in its way, and that nothing was written.
pub(crate) async fn again_while_busy<T, F: Future<Output = Result<T, RepositoryError>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, RepositoryError> {
    loop {
        match call().await {
            Err(error) if error.kind() == ErrorKind::Busy => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

/// Makes sure that no entry shows twice, and answers the entries in order.
pub(crate) fn distinct<T: Ord + std::fmt::Debug>(
    entries: Vec<T>,
    what: &str,
) -> Checked<BTreeSet<T>> {
    let count = entries.len();
    let set: BTreeSet<T> = entries.into_iter().collect();
    ensure_eq!(
        set.len(),
        count,
        "{what}: number of different entries among {set:?}"
    );
    Ok(set)
}
