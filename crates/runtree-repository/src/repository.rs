//! What a store of runs promises: narrow traits, and their sum.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use runtree_id::{IdEnding, Lookup, RunId};
use runtree_time::Timestamp;

use crate::answer::{Created, Rescue, Rescued, Write};
use crate::error::RepositoryError;
use crate::event::{EventNumber, RunEvent};
use crate::lease::{Claim, Claimed, Lease, LeaseRef, LeaseTime, Limit, Renewal};
use crate::query::{PageRequest, RunFilter, RunPage};
use crate::request::CreateRun;
use crate::run::{Run, RunSummary};
use crate::stop::{CancelRequest, Outcome};
use crate::text::{HostName, HostPath, ProcessMark};
use crate::worktree::{
    CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask, WorktreeQuery,
    WorktreeRecord,
};

/// Makes runs.
#[async_trait]
pub trait CreateRuns: Send + Sync {
    /// Makes a run, or finds the one that the same request made before.
    ///
    /// Decided by unique indexes, in this order: the idempotency key, the id, the unique key among runs that have not ended. The
    /// same id with the same request is the same create, repeated. Never by a look before the insert.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a value beyond its limits, before anything is written; else what the
    /// store cannot do.
    ///
    /// # Durability
    /// The run exists once this has answered. When the answer is lost, repeat the call with the same id.
    async fn create(&self, request: &CreateRun) -> Result<Created, RepositoryError>;
}

/// Reads runs.
#[async_trait]
pub trait ReadRuns: Send + Sync {
    /// Returns the instant that this store would stamp a write with.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn now(&self) -> Result<Timestamp, RepositoryError>;

    /// Returns a run, whole.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn get(&self, id: RunId) -> Result<Option<Run>, RepositoryError>;

    /// Returns the run whose id ends like this.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn find(&self, ending: &IdEnding) -> Result<Lookup<RunSummary>, RepositoryError>;

    /// Returns a page of runs.
    ///
    /// Pages follow the creation instant and the id, so runs that end or begin meanwhile neither hide others nor show twice.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a filter without values or a cursor of another list.
    async fn list(
        &self,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<RunPage, RepositoryError>;

    /// Returns the events of a run after a number, oldest first; none for a run that does not exist.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn events(
        &self,
        id: RunId,
        after: EventNumber,
        limit: Limit,
    ) -> Result<Vec<RunEvent>, RepositoryError>;
}

/// What owners do. Every write but the claim shows the token that the claim gave out.
#[async_trait]
pub trait OwnRuns: Send + Sync {
    /// Takes waiting runs, each for this owner alone.
    ///
    /// A run's worktree record is planned in the same transaction, or the one that an earlier attempt left on the same site is
    /// handed on. A claim of one run that is not to be had is answered by an empty list.
    ///
    /// # Errors
    /// What the store cannot do.
    ///
    /// # Durability
    /// When the answer is lost, the runs are owned until the lease expires; they are then rescued.
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, RepositoryError>;

    /// Prolongs leases and tells which runs somebody wants to stop; answers in the order of the question.
    ///
    /// A lease that has expired is lost, even if nobody has taken the run up yet.
    ///
    /// # Errors
    /// What the store cannot do; the leases then run on until they expire.
    async fn renew(
        &self,
        leases: &[LeaseRef],
        lease_time: LeaseTime,
    ) -> Result<Vec<Renewal>, RepositoryError>;

    /// Records the process group that works for the owner, so that whoever takes the run up can end it first.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn record_child(
        &self,
        lease: LeaseRef,
        child: &ProcessMark,
    ) -> Result<Write<()>, RepositoryError>;

    /// Records that the worktree is checked out.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn worktree_ready(
        &self,
        lease: LeaseRef,
    ) -> Result<Write<WorktreeRecord>, RepositoryError>;

    /// Ends the attempt. In the same transaction a worktree that is not persistent is marked for clean-up when the run ends for good.
    ///
    /// `Completed` is refused once the lease has expired. Repeating an outcome that ended the run answers `Already`; repeating a
    /// failure after which the run waits for another attempt answers `Stale` with the waiting run.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a result beyond the limits.
    ///
    /// # Durability
    /// The ending, and the wish to clean up, exist once this has answered.
    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Result<Write<Run>, RepositoryError>;

    /// Gives the run back without counting the attempt; a run that somebody wants to stop is `killed`.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn release(&self, lease: LeaseRef) -> Result<Write<Run>, RepositoryError>;
}

/// What everybody may ask for, without a token.
#[async_trait]
pub trait StopRuns: Send + Sync {
    /// Wishes that a run stops.
    ///
    /// A waiting run ends at once, with the reason `cancelled_before_start`. A running one gets a cancel intent, which its owner
    /// hears with its next renewal; a graceful intent may become forced, never the other way round. An ended one answers
    /// `Already`. A status that this version does not know answers `Stale` and is left alone.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn cancel(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError>;

    /// Ends a run without its owner, which is fenced: for owners that do not obey and cannot be proven dead.
    ///
    /// The owner's process may still be running; it learns with its next write.
    /// An intent that was recorded before stays as it is; without one, the request is recorded as given.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn force_kill(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError>;
}

/// Takes runs away from owners that are gone.
#[async_trait]
pub trait RescueRuns: Send + Sync {
    /// Returns the live and expired leases of running runs, all of them: of one machine, or of all.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn leases(&self, host: Option<&HostName>) -> Result<Vec<Lease>, RepositoryError>;

    /// Takes up runs whose leases have expired or whose owners were proven dead, if they still hold the observed token; expired
    /// ones that are to be spared are left alone.
    ///
    /// Each waits again when attempts are left, is `killed` when somebody wanted it to stop, else `failed` with the reason `lost`.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn rescue(&self, rescue: &Rescue) -> Result<Vec<Rescued>, RepositoryError>;
}

/// Keeps the records of worktrees and the durable wishes to clean them up.
#[async_trait]
pub trait CleanUpWorktrees: Send + Sync {
    /// Returns records of worktrees, all that the query names.
    ///
    /// # Errors
    /// What the store cannot do. An error is never an empty list.
    async fn worktrees(
        &self,
        query: &WorktreeQuery,
    ) -> Result<Vec<WorktreeRecord>, RepositoryError>;

    /// Takes clean-ups that are due, each for this owner alone until its own lease expires.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn claim_cleanups(
        &self,
        claim: &CleanupClaim,
    ) -> Result<Vec<CleanupTask>, RepositoryError>;

    /// Returns the clean-ups of this machine and git repository that somebody holds, expired or not, all of them.
    ///
    /// # Errors
    /// What the store cannot do. An error is never an empty list.
    async fn cleanup_leases(
        &self,
        host: &HostName,
        git_repository: &HostPath,
    ) -> Result<Vec<CleanupLease>, RepositoryError>;

    /// Lets go of clean-ups whose holders were proven dead, as they were observed; one that has another token by now is left alone.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn free_cleanups(&self, proven_dead: &[CleanupRef]) -> Result<(), RepositoryError>;

    /// Records how a clean-up went. `Removed` and `Kept` end it; `Postponed` lets it wait.
    ///
    /// `Stale` when the clean-up's own lease was taken over or is done.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn finish_cleanup(
        &self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Result<Write<WorktreeRecord>, RepositoryError>;
}

/// What a backend can and cannot do, beyond what all must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How long what was acknowledged lasts.
    pub durability: Durability,
    /// Who may work on the same store at the same time.
    pub sharing: Sharing,
}

impl Capabilities {
    /// Declares what a backend can do.
    pub const fn new(durability: Durability, sharing: Sharing) -> Self {
        Self {
            durability,
            sharing,
        }
    }
}

/// How long what was acknowledged lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// As long as the process.
    Process,
    /// Through a crash of the process, not through a power cut.
    Normal,
    /// Through a power cut.
    Full,
}

/// Who may work on the same store at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Sharing {
    /// The threads of one process.
    Process,
    /// The processes of one machine.
    Machine,
    /// Many machines.
    Network,
}

/// A store of runs: all that the coordinator needs.
///
/// Every method can be dropped at any await: what it writes is written whole or not at all.
pub trait RunRepository:
    CreateRuns + ReadRuns + OwnRuns + StopRuns + RescueRuns + CleanUpWorktrees + Debug + 'static
{
    /// Declares what this backend can and cannot do.
    fn capabilities(&self) -> Capabilities;
}

/// A run repository whose backend is chosen at run time.
pub type DynRunRepository = Arc<dyn RunRepository>;
