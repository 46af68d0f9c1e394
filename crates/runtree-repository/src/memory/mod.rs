//! A run repository in memory: for tests and for hosts whose runs need not outlive the process.

mod row;
mod tables;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use runtree_id::{IdEnding, Lookup, RunId};
use runtree_time::{Clock, Timestamp};

use self::tables::Tables;
use crate::answer::{Created, Rescue, Rescued, Write};
use crate::error::RepositoryError;
use crate::event::{EventNumber, RunEvent};
use crate::lease::{Claim, Claimed, Lease, LeaseRef, LeaseTime, Limit, Renewal};
use crate::query::{PageRequest, RunFilter, RunPage};
use crate::repository::{
    Capabilities, CleanUpWorktrees, CreateRuns, Durability, OwnRuns, ReadRuns, RescueRuns,
    RunRepository, Sharing, StopRuns,
};
use crate::request::CreateRun;
use crate::run::{Run, RunSummary};
use crate::stop::{CancelRequest, Outcome};
use crate::text::{HostName, HostPath, Namespace, ProcessMark};
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
        work(tables, now)
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
        Ok(self.tables(|tables, now| tables.create(request, checked, now)))
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
        self.tables(|tables, now| tables.claim(claim, now))
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
        Ok(self.tables(|tables, now| tables.record_child(lease, child, now)))
    }

    async fn worktree_ready(
        &self,
        lease: LeaseRef,
    ) -> Result<Write<WorktreeRecord>, RepositoryError> {
        Ok(self.tables(|tables, now| tables.worktree_ready(lease, now)))
    }

    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Result<Write<Run>, RepositoryError> {
        outcome.check()?;
        Ok(self.tables(|tables, now| tables.end(lease, outcome, now)))
    }

    async fn release(&self, lease: LeaseRef) -> Result<Write<Run>, RepositoryError> {
        Ok(self.tables(|tables, now| tables.release(lease, now)))
    }
}

#[async_trait]
impl StopRuns for MemoryRepository {
    async fn cancel(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        Ok(self.tables(|tables, now| tables.cancel(id, request, now)))
    }

    async fn force_kill(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        Ok(self.tables(|tables, now| tables.force_kill(id, request, now)))
    }
}

#[async_trait]
impl RescueRuns for MemoryRepository {
    async fn leases(&self, host: Option<&HostName>) -> Result<Vec<Lease>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.leases(host)))
    }

    async fn rescue(&self, rescue: &Rescue) -> Result<Vec<Rescued>, RepositoryError> {
        Ok(self.tables(|tables, now| tables.rescue(rescue, now)))
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
        Ok(self.tables(|tables, now| tables.claim_cleanups(claim, now)))
    }

    async fn cleanup_leases(
        &self,
        host: &HostName,
        git_repository: &HostPath,
    ) -> Result<Vec<CleanupLease>, RepositoryError> {
        Ok(self.tables(|tables, _| tables.cleanup_leases(host, git_repository)))
    }

    async fn free_cleanups(&self, proven_dead: &[CleanupRef]) -> Result<(), RepositoryError> {
        self.tables(|tables, _| tables.free_cleanups(proven_dead));
        Ok(())
    }

    async fn finish_cleanup(
        &self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Result<Write<WorktreeRecord>, RepositoryError> {
        Ok(self.tables(|tables, now| tables.finish_cleanup(cleanup, outcome, now)))
    }
}

impl RunRepository for MemoryRepository {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Process, Sharing::Process)
    }
}
