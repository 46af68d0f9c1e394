//! A run repository whose process ends just after its n-th write.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runtree::id::{IdEnding, Lookup};
use runtree::repository::{
    AnnotateRuns, Annotation, CancelRequest, Capabilities, ChangeMark, Claim, Claimed,
    CleanUpWorktrees, CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask,
    CreateRun, CreateRuns, Created, Ending, EventNumber, Explanation, HostName, HostPath,
    IdempotencyKey, Lease, LeaseRef, LeaseTime, Limit, Outcome, Overdue, OwnRuns, PageRequest,
    ProcessMark, ReadRuns, Renewal, RepositoryError, Rescue, RescueRuns, Rescued, RetainRuns,
    Retention, RetryRun, RunEvent, RunPage, RunRepository, RunStatistics, StopRuns, WatchRuns,
    WorktreeQuery, WorktreeRecord, Write,
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

    /// As [`written`](Self::written); nothing found is nothing written.
    fn written_some<T>(&self, answer: Vec<T>) -> Vec<T> {
        if answer.is_empty() {
            answer
        } else {
            self.written(answer)
        }
    }
}

#[async_trait]
impl CreateRuns for StopAfterWrite {
    async fn create(&self, request: &CreateRun) -> Answer<Created> {
        Ok(self.written(self.inner.create(request).await?))
    }
    async fn create_many(&self, requests: &[CreateRun]) -> Answer<Vec<Created>> {
        Ok(self.written(self.inner.create_many(requests).await?))
    }
    async fn retry(&self, request: &RetryRun) -> Answer<Write<Created>> {
        Ok(self.written(self.inner.retry(request).await?))
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
    async fn get_by_key(&self, key: &IdempotencyKey) -> Answer<Option<Run>> {
        self.inner.get_by_key(key).await
    }
    async fn count(&self, filter: &RunFilter) -> Answer<u64> {
        self.inner.count(filter).await
    }
    async fn statistics(&self, filter: &RunFilter) -> Answer<RunStatistics> {
        self.inner.statistics(filter).await
    }
    async fn explain(&self, id: RunId) -> Answer<Option<Explanation>> {
        self.inner.explain(id).await
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
    async fn end_many(&self, endings: &[Ending]) -> Answer<Vec<Write<RunSummary>>> {
        Ok(self.written(self.inner.end_many(endings).await?))
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
        Ok(self.written_some(self.inner.rescue(rescue).await?))
    }
    async fn time_out(&self, overdue: &Overdue) -> Answer<Vec<RunSummary>> {
        Ok(self.written_some(self.inner.time_out(overdue).await?))
    }
}

#[async_trait]
impl AnnotateRuns for StopAfterWrite {
    async fn annotate(&self, id: RunId, annotation: &Annotation) -> Answer<Write<Run>> {
        Ok(self.written(self.inner.annotate(id, annotation).await?))
    }
}

#[async_trait]
impl RetainRuns for StopAfterWrite {
    async fn delete_ended(&self, retention: &Retention) -> Answer<Vec<RunId>> {
        Ok(self.written_some(self.inner.delete_ended(retention).await?))
    }
}

#[async_trait]
impl WatchRuns for StopAfterWrite {
    async fn changed(&self, seen: ChangeMark, wait: Duration) -> Answer<ChangeMark> {
        self.inner.changed(seen, wait).await
    }
}

#[async_trait]
impl CleanUpWorktrees for StopAfterWrite {
    async fn worktrees(&self, query: &WorktreeQuery) -> Answer<Vec<WorktreeRecord>> {
        self.inner.worktrees(query).await
    }
    async fn claim_cleanups(&self, claim: &CleanupClaim) -> Answer<Vec<CleanupTask>> {
        Ok(self.written_some(self.inner.claim_cleanups(claim).await?))
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
