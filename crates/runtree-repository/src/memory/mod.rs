//! A run repository in memory: for tests and for hosts whose runs need not outlive the process.

mod cleanup;
mod row;
mod tables;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtree_id::{IdEnding, Lookup, RunId};
use runtree_time::{Clock, Timestamp};
use tokio::sync::watch;

use self::tables::Tables;
use crate::annotation::Annotation;
use crate::answer::{Created, Rescue, Rescued, Retention, Write};
use crate::change::ChangeMark;
use crate::error::RepositoryError;
use crate::event::{EventNumber, RunEvent};
use crate::explanation::Explanation;
use crate::lease::{Claim, Claimed, Lease, LeaseRef, LeaseTime, Limit, Renewal};
use crate::query::{PageRequest, RunFilter, RunPage};
use crate::repository::{
    AnnotateRuns, Capabilities, CleanUpWorktrees, CreateRuns, Durability, OwnRuns, ReadRuns,
    RescueRuns, RetainRuns, RunRepository, Sharing, StopRuns, WatchRuns,
};
use crate::request::{CreateRun, RetryRun};
use crate::run::{Run, RunSummary};
use crate::statistics::RunStatistics;
use crate::stop::{CancelRequest, Ending, Outcome, Overdue};
use crate::text::{HostName, HostPath, IdempotencyKey, Namespace, ProcessMark};
use crate::worktree::{
    CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask, WorktreeQuery,
    WorktreeRecord,
};

/// A run repository in memory, shared by its clones.
///
/// It keeps every promise of [`RunRepository`] but durability: what was acknowledged lasts as long as the process.
#[derive(Clone, Debug)]
pub struct MemoryRepository {
    namespace: Namespace,
    store: Arc<Store>,
}

#[derive(Debug)]
struct Store {
    clock: Arc<dyn Clock>,
    namespaces: Mutex<BTreeMap<Namespace, Tables>>,
    /// Counts the transactions, from 1.
    changes: watch::Sender<u64>,
}

impl MemoryRepository {
    /// Makes an empty repository that reads this clock, and a handle on its namespace `default`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let namespace = Namespace::new("default").expect("because the name is within its limits");
        Self {
            namespace,
            store: Arc::new(Store {
                clock,
                namespaces: Mutex::default(),
                changes: watch::Sender::new(1),
            }),
        }
    }

    /// Returns a handle on another namespace of the same repository.
    #[must_use]
    pub fn with_namespace(&self, namespace: Namespace) -> Self {
        Self {
            namespace,
            store: Arc::clone(&self.store),
        }
    }

    /// Works on the tables of this namespace. Each call is one transaction: the lock is held throughout, and what can fail is
    /// checked before the first change.
    fn tables<T>(&self, work: impl FnOnce(&mut Tables, Timestamp) -> T) -> T {
        let mut namespaces = self.lock();
        // Read inside the lock, so that the order of the stamps is the order of the writes.
        let now = self.store.clock.now();
        let tables = namespaces.entry(self.namespace.clone()).or_default();
        let answer = work(tables, now);
        drop(namespaces);
        answer
    }

    /// As [`tables`](Self::tables), for work that writes: whoever watches is told.
    fn write<T>(&self, work: impl FnOnce(&mut Tables, Timestamp) -> T) -> T {
        let answer = self.tables(work);
        self.tell();
        answer
    }

    /// As [`write`](Self::write), for work that answers what it changed: nothing is told when that is nothing.
    fn write_some<T>(&self, work: impl FnOnce(&mut Tables, Timestamp) -> Vec<T>) -> Vec<T> {
        let changed = self.tables(work);
        if !changed.is_empty() {
            self.tell();
        }
        changed
    }

    fn tell(&self) {
        self.store.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Namespace, Tables>> {
        // A panic inside a transaction is a defect; the tables it left are still worth reading.
        self.store
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CreateRuns for MemoryRepository {
    async fn create(&self, request: &CreateRun) -> Result<Created, RepositoryError> {
        let checked = request.run.check()?;
        Ok(self.write(|tables, now| tables.create(request, checked, now)))
    }

    async fn create_many(&self, requests: &[CreateRun]) -> Result<Vec<Created>, RepositoryError> {
        CreateRun::check_batch(requests)?;
        let checked = requests
            .iter()
            .map(|request| Ok((request, request.run.check()?)))
            .collect::<Result<Vec<_>, RepositoryError>>()?;
        Ok(self.write(|tables, now| {
            let created = checked
                .into_iter()
                .map(|(request, checked)| tables.create(request, checked, now));
            created.collect()
        }))
    }

    async fn retry(&self, request: &RetryRun) -> Result<Write<Created>, RepositoryError> {
        Ok(self.write(|tables, now| tables.retry(request, now)))
    }
}

#[async_trait]
impl ReadRuns for MemoryRepository {
    async fn now(&self) -> Result<Timestamp, RepositoryError> {
        Ok(self.store.clock.now())
    }

    async fn get(&self, id: RunId) -> Result<Option<Run>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.get(id)))
    }

    async fn get_by_key(&self, key: &IdempotencyKey) -> Result<Option<Run>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.get_by_key(key)))
    }

    async fn find(&self, ending: &IdEnding) -> Result<Lookup<RunSummary>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.find(ending)))
    }

    async fn list(
        &self,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<RunPage, RepositoryError> {
        filter.check()?;
        let position = page.position()?;
        Ok(self.tables(|tables, _| tables.list(filter, page, position)))
    }

    async fn count(&self, filter: &RunFilter) -> Result<u64, RepositoryError> {
        filter.check()?;
        Ok(self.tables(|tables, _| tables.count(filter)))
    }

    async fn statistics(&self, filter: &RunFilter) -> Result<RunStatistics, RepositoryError> {
        filter.check()?;
        Ok(self.tables(|tables, _| tables.statistics(filter)))
    }

    async fn explain(&self, id: RunId) -> Result<Option<Explanation>, RepositoryError> {
        Ok(self.tables(|tables, now| tables.explain(id, now)))
    }

    async fn events(
        &self,
        id: RunId,
        after: EventNumber,
        limit: Limit,
    ) -> Result<Vec<RunEvent>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.events(id, after, limit)))
    }
}

#[async_trait]
impl OwnRuns for MemoryRepository {
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, RepositoryError> {
        claim.check()?;
        let claimed = self.tables(|tables, now| tables.claim(claim, now))?;
        if !claimed.is_empty() {
            self.tell();
        }
        Ok(claimed)
    }

    async fn renew(
        &self,
        leases: &[LeaseRef],
        lease_time: LeaseTime,
    ) -> Result<Vec<Renewal>, RepositoryError> {
        Ok(self.tables(|tables, now| {
            let renewed = leases
                .iter()
                .map(|lease| tables.renew(*lease, lease_time, now));
            renewed.collect()
        }))
    }

    async fn record_child(
        &self,
        lease: LeaseRef,
        child: &ProcessMark,
    ) -> Result<Write<()>, RepositoryError> {
        Ok(self.write(|tables, now| tables.record_child(lease, child, now)))
    }

    async fn worktree_ready(
        &self,
        lease: LeaseRef,
    ) -> Result<Write<WorktreeRecord>, RepositoryError> {
        Ok(self.write(|tables, now| tables.worktree_ready(lease, now)))
    }

    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Result<Write<Run>, RepositoryError> {
        outcome.check()?;
        Ok(self.write(|tables, now| tables.end(lease, outcome, now)))
    }

    async fn end_many(
        &self,
        endings: &[Ending],
    ) -> Result<Vec<Write<RunSummary>>, RepositoryError> {
        Ending::check_batch(endings)?;
        Ok(self.write(|tables, now| {
            let end = |ending: &Ending| {
                let ended = tables.end(ending.lease, &ending.outcome, now);
                ended.map(|run| run.summary)
            };
            endings.iter().map(end).collect()
        }))
    }

    async fn release(&self, lease: LeaseRef) -> Result<Write<Run>, RepositoryError> {
        Ok(self.write(|tables, now| tables.release(lease, now)))
    }
}

#[async_trait]
impl StopRuns for MemoryRepository {
    async fn cancel(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        Ok(self.write(|tables, now| tables.cancel(id, request, now)))
    }

    async fn force_kill(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        Ok(self.write(|tables, now| tables.force_kill(id, request, now)))
    }
}

#[async_trait]
impl RescueRuns for MemoryRepository {
    async fn leases(&self, host: Option<&HostName>) -> Result<Vec<Lease>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.leases(host)))
    }

    async fn rescue(&self, rescue: &Rescue) -> Result<Vec<Rescued>, RepositoryError> {
        Ok(self.write_some(|tables, now| tables.rescue(rescue, now)))
    }

    async fn time_out(&self, overdue: &Overdue) -> Result<Vec<RunSummary>, RepositoryError> {
        Ok(self.write_some(|tables, now| tables.time_out(overdue, now)))
    }
}

#[async_trait]
impl AnnotateRuns for MemoryRepository {
    async fn annotate(
        &self,
        id: RunId,
        annotation: &Annotation,
    ) -> Result<Write<Run>, RepositoryError> {
        annotation.check()?;
        self.write(|tables, now| tables.annotate(id, annotation, now))
    }
}

#[async_trait]
impl RetainRuns for MemoryRepository {
    async fn delete_ended(&self, retention: &Retention) -> Result<Vec<RunId>, RepositoryError> {
        Ok(self.write_some(|tables, _| tables.delete_ended(retention)))
    }
}

#[async_trait]
impl WatchRuns for MemoryRepository {
    async fn changed(
        &self,
        seen: ChangeMark,
        wait: Duration,
    ) -> Result<ChangeMark, RepositoryError> {
        let mut changes = self.store.changes.subscribe();
        let news = changes.wait_for(|count| *count > seen.get());
        let told = match tokio::time::timeout(wait, news).await {
            Ok(told) => told.map_or(seen.get(), |count| *count),
            Err(_) => seen.get(),
        };
        Ok(ChangeMark::new(told))
    }
}

#[async_trait]
impl CleanUpWorktrees for MemoryRepository {
    async fn worktrees(
        &self,
        query: &WorktreeQuery,
    ) -> Result<Vec<WorktreeRecord>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.worktrees(query)))
    }

    async fn claim_cleanups(
        &self,
        claim: &CleanupClaim,
    ) -> Result<Vec<CleanupTask>, RepositoryError> {
        Ok(self.write_some(|tables, now| tables.claim_cleanups(claim, now)))
    }

    async fn cleanup_leases(
        &self,
        host: &HostName,
        git_repository: &HostPath,
    ) -> Result<Vec<CleanupLease>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.cleanup_leases(host, git_repository)))
    }

    async fn free_cleanups(&self, proven_dead: &[CleanupRef]) -> Result<(), RepositoryError> {
        self.write(|tables, _| tables.free_cleanups(proven_dead));
        Ok(())
    }

    async fn finish_cleanup(
        &self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Result<Write<WorktreeRecord>, RepositoryError> {
        Ok(self.write(|tables, now| tables.finish_cleanup(cleanup, outcome, now)))
    }
}

impl RunRepository for MemoryRepository {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Process, Sharing::Process)
    }
}
