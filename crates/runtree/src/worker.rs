//! Queue mode: takes waiting runs, as many at once as it may, and executes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtree_id::RunId;
use runtree_repository::{
    Claim, ClaimOf, Claimed, LeaseRef, Limit, NewRun, QueueName, Run, WaitingRuns, WorkflowName,
    Write,
};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::active::ActiveRun;
use crate::coordinator::{Coordinator, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::Executor;
use crate::recover::end_children;

/// How often a worker looks for runs that others submitted; it hears at once of those submitted in its own process.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sets a worker up.
#[must_use]
pub struct WorkerBuilder {
    coordinator: Coordinator,
    executor: Arc<dyn Executor>,
    concurrency: usize,
    of: WaitingRuns,
}

/// Takes waiting runs and executes them, until it is shut down.
///
/// Dropped without [`shutdown`](Self::shutdown), it stops at once: the processes of its runs are killed, and the runs are taken up when
/// their leases expire.
#[derive(Debug)]
pub struct Worker {
    stop: CancellationToken,
    grace: tokio::sync::watch::Sender<Option<Instant>>,
    task: tokio::task::JoinHandle<Shutdown>,
}

/// What became of the runs that a worker had when it was shut down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Runs that were given back without counting the attempt: they wait for another worker.
    pub released: Vec<RunId>,
    /// Runs that could not be given back: they are taken up when their leases expire.
    pub left: Vec<RunId>,
}

impl Coordinator {
    /// Records a run that some worker will execute: here, in another process, or on another machine.
    ///
    /// The same request again finds the run that it made.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], [`ErrorKind::Conflict`], and what the stores answer.
    ///
    /// # Durability
    /// The run waits once this has answered.
    pub async fn submit(&self, run: NewRun) -> Result<Run> {
        let request = self.inner.prepare(run).await?;
        let created = self
            .inner
            .persist(|| self.inner.runs.create(&request))
            .await?;
        let run = created.into_run()?;
        self.inner.submitted.notify_waiters();
        Ok(run)
    }

    /// Sets up a worker that executes waiting runs.
    pub fn worker(&self, executor: impl Executor) -> WorkerBuilder {
        WorkerBuilder {
            coordinator: self.clone(),
            executor: Arc::new(executor),
            concurrency: 1,
            of: WaitingRuns::ANY,
        }
    }
}

impl WorkerBuilder {
    /// Executes as many runs at once; one by default, and at least one.
    pub fn concurrency(mut self, runs: usize) -> Self {
        self.concurrency = runs.max(1);
        self
    }

    /// Takes only runs of these workflows.
    pub fn workflows(mut self, workflows: impl IntoIterator<Item = WorkflowName>) -> Self {
        self.of = self.of.workflows(workflows);
        self
    }

    /// Takes only runs of these queues.
    pub fn queues(mut self, queues: impl IntoIterator<Item = QueueName>) -> Self {
        self.of = self.of.queues(queues);
        self
    }

    /// Starts the worker on the present tokio runtime.
    pub fn spawn(self) -> Worker {
        let stop = CancellationToken::new();
        let (grace, until) = tokio::sync::watch::channel(None);
        let task = tokio::spawn(self.run(stop.clone(), until));
        Worker { stop, grace, task }
    }

    async fn run(
        self,
        stop: CancellationToken,
        mut until: tokio::sync::watch::Receiver<Option<Instant>>,
    ) -> Shutdown {
        let mut running = Running::default();
        let inner = Arc::clone(&self.coordinator.inner);
        let recover_every = inner.me.lease_time.get();
        let mut recover_at = Instant::now() + recover_every;
        while !stop.is_cancelled() {
            // Listened to before the claim, so that nothing submitted after it goes unheard.
            let submitted = inner.submitted.notified();
            let took = self.take(&mut running).await;
            if Instant::now() >= recover_at {
                if let Err(error) = inner.recover().await {
                    tracing::warn!(%error, "the recovery is tried again later");
                }
                recover_at = Instant::now() + recover_every;
            }
            if took && running.has_room(self.concurrency) {
                continue;
            }
            let has_room = running.has_room(self.concurrency);
            tokio::select! {
                () = stop.cancelled() => {}
                () = submitted, if has_room => {}
                () = tokio::time::sleep(LOOK_EVERY), if has_room => {}
                () = running.next(), if !running.is_empty() => {}
            }
        }
        // None is set when the worker was dropped: then nobody waits either.
        let deadline = *until.borrow_and_update();
        running.shut_down(&inner, deadline).await
    }

    /// Takes as many waiting runs as there is room for; answers whether it got any.
    async fn take(&self, running: &mut Running) -> bool {
        let inner = &self.coordinator.inner;
        let room = self.concurrency.saturating_sub(running.tasks.len());
        let Ok(limit) = Limit::new(u64::try_from(room).unwrap_or(u64::MAX).min(1_000)) else {
            return false;
        };
        let claim = Claim {
            owner: inner.me.owner.clone(),
            lease_time: inner.me.lease_time,
            limit,
            of: ClaimOf::Waiting(self.of.clone()),
            site: Some(inner.me.site.clone()),
        };
        let asked_at = Instant::now();
        let claimed = inner.runs.claim(&claim).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "no run could be claimed");
            Vec::new()
        });
        let got_any = !claimed.is_empty();
        for claimed in claimed {
            let lease = claimed.lease;
            let valid_until = asked_at + inner.me.lease_time.get();
            let work = execute(
                self.coordinator.clone(),
                Arc::clone(&self.executor),
                claimed,
                valid_until,
            );
            running.leases.insert(running.tasks.spawn(work).id(), lease);
        }
        got_any
    }
}

impl std::fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("concurrency", &self.concurrency)
            .field("of", &self.of)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Stops the worker in order: it claims nothing more, lets its runs finish until the grace ends, then ends what is left, sees the
    /// processes gone, and gives those runs back without counting the attempt.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the worker's own task has come to a bad end; its runs are taken up when their leases expire.
    ///
    /// # Cancel safety
    /// When the future is dropped, the worker shuts down all the same.
    pub async fn shutdown(mut self, grace: Duration) -> Result<Shutdown> {
        self.grace.send_replace(Some(Instant::now() + grace));
        self.stop.cancel();
        (&mut self.task).await.map_err(|error| {
            Error::new(ErrorKind::Internal, "the worker did not come to its end").with_source(error)
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The runs that a worker executes right now.
#[derive(Debug, Default)]
struct Running {
    tasks: JoinSet<()>,
    leases: BTreeMap<Id, LeaseRef>,
}

impl Running {
    fn has_room(&self, concurrency: usize) -> bool {
        self.tasks.len() < concurrency
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until one of them has come to its end.
    async fn next(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                // The run is taken up when its lease expires.
                tracing::error!(%error, "an executor has panicked");
                error.id()
            }
            None => return,
        };
        self.leases.remove(&id);
    }

    async fn shut_down(mut self, inner: &Inner, deadline: Option<Instant>) -> Shutdown {
        let deadline = deadline.unwrap_or_else(Instant::now);
        while !self.is_empty() && tokio::time::timeout_at(deadline, self.next()).await.is_ok() {}
        // Dropping the work kills its processes; that they are gone is seen below.
        self.tasks.shutdown().await;
        let mut shutdown = Shutdown::default();
        for lease in self.leases.into_values() {
            let list = if give_back(inner, lease).await {
                &mut shutdown.released
            } else {
                &mut shutdown.left
            };
            list.push(lease.run);
        }
        shutdown
    }
}

/// Gives a run back once its processes are seen to be gone.
async fn give_back(inner: &Inner, lease: LeaseRef) -> bool {
    let held = inner.runs.leases(Some(&inner.me.site.host)).await;
    let held = held
        .unwrap_or_default()
        .into_iter()
        .find(|held| held.lease == lease);
    let Some(held) = held else { return false };
    if let Err(error) = end_children(&held).await {
        tracing::warn!(run = %lease.run, error, "the run is not given back");
        return false;
    }
    match inner.persist(|| inner.runs.release(lease)).await {
        Ok(Write::Applied(run) | Write::Already(run)) => {
            // It has ended if somebody wanted it to stop.
            drop(inner.clean_up_after(&run).await);
            true
        }
        Ok(Write::Stale { .. } | Write::NotFound) | Err(_) => false,
    }
}

/// The whole life of one claimed run.
async fn execute(
    coordinator: Coordinator,
    executor: Arc<dyn Executor>,
    claimed: Claimed,
    valid_until: Instant,
) {
    let run = claimed.run.id;
    match coordinator.begin(claimed, valid_until).await {
        Ok(active) => execute_active(executor.as_ref(), active).await,
        Err(error) => tracing::warn!(%run, %error, "the run could not be prepared"),
    }
}

async fn execute_active(executor: &dyn Executor, active: ActiveRun) {
    let run = active.id();
    let Some(outcome) = executor.execute(&active).await else {
        tracing::warn!(%run, "the run was lost");
        return;
    };
    if let Err(error) = active.end(&outcome).await {
        tracing::warn!(%run, %error, "the ending was not accepted");
    }
}
