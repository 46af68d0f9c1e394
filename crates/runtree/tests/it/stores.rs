//! A run repository whose process ends just after its n-th write.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use runtree::id::{IdEnding, Lookup};
use runtree::repository::{
    CancelRequest, Capabilities, Claim, Claimed, CleanUpWorktrees, CleanupClaim, CleanupLease,
    CleanupOutcome, CleanupRef, CleanupTask, CreateRun, CreateRuns, Created, EventNumber, HostName,
    HostPath, Lease, LeaseRef, LeaseTime, Limit, Outcome, OwnRuns, PageRequest, ProcessMark,
    ReadRuns, Renewal, RepositoryError, Rescue, RescueRuns, Rescued, RunEvent, RunPage,
    RunRepository, StopRuns, WorktreeQuery, WorktreeRecord, Write,
};
use runtree::time::Timestamp;
use runtree::{Run, RunFilter, RunId, RunSummary, SqliteRepository};

type Answer<T> = Result<T, RepositoryError>;

/// Passes everything on, counts the writes, and ends the process when it has counted enough, as `kill -9` would.
#[derive(Debug)]
pub(crate) struct StopAfterWrite {
    inner: SqliteRepository,
    left: AtomicU32,
}

impl StopAfterWrite {
    pub(crate) fn new(inner: SqliteRepository, writes: u32) -> Self {
        Self {
            inner,
            left: AtomicU32::new(writes),
        }
    }

    /// Is called when a write is durable, and before anybody has heard of it.
    fn written<T>(&self, answer: T) -> T {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
        answer
    }
}

#[async_trait]
impl CreateRuns for StopAfterWrite {
    async fn create(&self, request: &CreateRun) -> Answer<Created> {
        Ok(self.written(self.inner.create(request).await?))
    }
}

#[async_trait]
impl ReadRuns for StopAfterWrite {
    async fn now(&self) -> Answer<Timestamp> {
        self.inner.now().await
    }
    async fn get(&self, id: RunId) -> Answer<Option<Run>> {
        self.inner.get(id).await
    }
    async fn find(&self, ending: &IdEnding) -> Answer<Lookup<RunSummary>> {
        self.inner.find(ending).await
    }
    async fn list(&self, filter: &RunFilter, page: &PageRequest) -> Answer<RunPage> {
        self.inner.list(filter, page).await
    }
    async fn events(&self, id: RunId, after: EventNumber, limit: Limit) -> Answer<Vec<RunEvent>> {
        self.inner.events(id, after, limit).await
    }
}

#[async_trait]
impl OwnRuns for StopAfterWrite {
    async fn claim(&self, claim: &Claim) -> Answer<Vec<Claimed>> {
        Ok(self.written(self.inner.claim(claim).await?))
    }
    async fn renew(&self, leases: &[LeaseRef], lease_time: LeaseTime) -> Answer<Vec<Renewal>> {
        self.inner.renew(leases, lease_time).await
    }
    async fn record_child(&self, lease: LeaseRef, child: &ProcessMark) -> Answer<Write<()>> {
        Ok(self.written(self.inner.record_child(lease, child).await?))
    }
    async fn worktree_ready(&self, lease: LeaseRef) -> Answer<Write<WorktreeRecord>> {
        Ok(self.written(self.inner.worktree_ready(lease).await?))
    }
    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Answer<Write<Run>> {
        Ok(self.written(self.inner.end(lease, outcome).await?))
    }
    async fn release(&self, lease: LeaseRef) -> Answer<Write<Run>> {
        Ok(self.written(self.inner.release(lease).await?))
    }
}

#[async_trait]
impl StopRuns for StopAfterWrite {
    async fn cancel(&self, id: RunId, request: &CancelRequest) -> Answer<Write<Run>> {
        Ok(self.written(self.inner.cancel(id, request).await?))
    }
    async fn force_kill(&self, id: RunId, request: &CancelRequest) -> Answer<Write<Run>> {
        Ok(self.written(self.inner.force_kill(id, request).await?))
    }
}

#[async_trait]
impl RescueRuns for StopAfterWrite {
    async fn leases(&self, host: Option<&HostName>) -> Answer<Vec<Lease>> {
        self.inner.leases(host).await
    }
    async fn rescue(&self, rescue: &Rescue) -> Answer<Vec<Rescued>> {
        // Nothing to rescue is nothing written.
        let rescued = self.inner.rescue(rescue).await?;
        Ok(if rescued.is_empty() {
            rescued
        } else {
            self.written(rescued)
        })
    }
}

#[async_trait]
impl CleanUpWorktrees for StopAfterWrite {
    async fn worktrees(&self, query: &WorktreeQuery) -> Answer<Vec<WorktreeRecord>> {
        self.inner.worktrees(query).await
    }
    async fn claim_cleanups(&self, claim: &CleanupClaim) -> Answer<Vec<CleanupTask>> {
        let tasks = self.inner.claim_cleanups(claim).await?;
        Ok(if tasks.is_empty() {
            tasks
        } else {
            self.written(tasks)
        })
    }
    async fn cleanup_leases(
        &self,
        host: &HostName,
        git_repository: &HostPath,
    ) -> Answer<Vec<CleanupLease>> {
        self.inner.cleanup_leases(host, git_repository).await
    }
    async fn free_cleanups(&self, proven_dead: &[CleanupRef]) -> Answer<()> {
        self.inner.free_cleanups(proven_dead).await?;
        self.written(Ok(()))
    }
    async fn finish_cleanup(
        &self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Answer<Write<WorktreeRecord>> {
        Ok(self.written(self.inner.finish_cleanup(cleanup, outcome).await?))
    }
}

impl RunRepository for StopAfterWrite {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
