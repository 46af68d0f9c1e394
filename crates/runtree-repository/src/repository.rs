//! What a store of runs promises: narrow traits, and their sum.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtree_id::{IdEnding, Lookup, RunId};
use runtree_time::Timestamp;

use crate::annotation::Annotation;
use crate::answer::{Created, Rescue, Rescued, Retention, Write};
use crate::change::ChangeMark;
use crate::error::RepositoryError;
use crate::event::{EventNumber, RunEvent};
use crate::explanation::Explanation;
use crate::lease::{Claim, Claimed, Lease, LeaseRef, LeaseTime, Limit, Renewal};
use crate::query::{PageRequest, RunFilter, RunPage};
use crate::request::{CreateRun, RetryRun};
use crate::run::{Run, RunSummary};
use crate::statistics::RunStatistics;
use crate::stop::{CancelRequest, Ending, Outcome, Overdue};
use crate::text::{HostName, HostPath, IdempotencyKey, ProcessMark};
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

    /// Makes runs in one transaction, in this order; answers in the order of the question.
    ///
    /// A conflict is the answer to its request alone, and the others are made all the same. Two requests of one call that want the
    /// same key are decided as if one had been made after the other.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`InvalidInput`](crate::ErrorKind::InvalidInput) for more than [`Limit::MAX`] requests,
    /// or more than [`Limit::MAX_BATCH_BYTES`] of inputs and metadata; then none was made.
    ///
    /// # Durability
    /// As [`create`](Self::create): repeat the call with the same ids.
    async fn create_many(&self, requests: &[CreateRun]) -> Result<Vec<Created>, RepositoryError>;

    /// Makes a new run from an ended one, which stays as it ended.
    ///
    /// `Stale` while the run has not ended or stands at a word that this version does not know; `Already` with the run that the same
    /// retry made before. What the new run takes over, [`RetryRun`] says. The unique key may be in somebody else's hands by now, and
    /// the id may belong to another run: then the answer is `Applied` with [`Created::Conflict`], and nothing was written.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn retry(&self, request: &RetryRun) -> Result<Write<Created>, RepositoryError>;
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

    /// Returns the run that was made under this idempotency key, whole.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn get_by_key(&self, key: &IdempotencyKey) -> Result<Option<Run>, RepositoryError>;

    /// Returns the run whose id ends like this.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn find(&self, ending: &IdEnding) -> Result<Lookup<RunSummary>, RepositoryError>;

    /// Returns a page of runs.
    ///
    /// Pages follow the value that the list is ordered by and the id. By the creation instant, runs that begin or end meanwhile
    /// neither hide others nor show twice.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a filter without values or a cursor of another list.
    async fn list(
        &self,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<RunPage, RepositoryError>;

    /// Counts the runs of a filter.
    ///
    /// It looks at every run that the filter shows: ask for it when somebody wants to know it, not with every page.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    async fn count(&self, filter: &RunFilter) -> Result<u64, RepositoryError>;

    /// Measures the runs of a filter.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    async fn statistics(&self, filter: &RunFilter) -> Result<RunStatistics, RepositoryError>;

    /// Says why a run stands where it stands; none for a run that does not exist.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn explain(&self, id: RunId) -> Result<Option<Explanation>, RepositoryError>;

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
    /// What the store cannot do. [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where others wrote to a run's row what cannot be read: a
    /// store claims nothing then, or leaves that run owned until its lease expires and answers the others.
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

    /// Ends attempts in one transaction, each as [`end`](Self::end) would; answers in the order of the question.
    ///
    /// An ending that loses is the answer to it alone. Of two endings of one run in one call the first decides.
    ///
    /// # Errors
    /// As [`end`](Self::end), and [`InvalidInput`](crate::ErrorKind::InvalidInput) for more than [`Limit::MAX`] endings, or more
    /// than [`Limit::MAX_BATCH_BYTES`] of results and error texts; then nothing was written.
    async fn end_many(&self, endings: &[Ending])
    -> Result<Vec<Write<RunSummary>>, RepositoryError>;

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
    /// An intent that was recorded before stays as it is; without one, the request is recorded as given. Even when that intent is of
    /// the deadline, the run ends as `killed`: somebody did not wait for the time that it was given.
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
    /// Each waits again when attempts are left, is `killed` when somebody wanted it to stop, else `failed` with the reason `lost`;
    /// one that somebody wanted to stop for its deadline is `failed` with the reason `timed_out`. Its history says so under the new
    /// token: an event `rescued` whose detail names the status that it was taken to, `{"to": "pending"}`, and, when that is an
    /// ending, the event of the ending.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn rescue(&self, rescue: &Rescue) -> Result<Vec<Rescued>, RepositoryError>;

    /// Looks at runs whose deadline has passed, and answers those that it changed, as they are now.
    ///
    /// A waiting one is `failed` with the reason `timed_out`. A running one is first asked to stop, gracefully, with a cancel intent
    /// whose cause is the deadline; when its time for that is over too it is `failed` with the reason `timed_out`, and its owner is
    /// fenced. One that somebody asked to stop before is left to that wish.
    ///
    /// # Errors
    /// What the store cannot do.
    async fn time_out(&self, overdue: &Overdue) -> Result<Vec<RunSummary>, RepositoryError>;
}

/// Adds to runs what is learnt of them.
#[async_trait]
pub trait AnnotateRuns: Send + Sync {
    /// Changes facts, usage, tags and metadata of a run, also after its end; what is not named stays.
    ///
    /// Needs no token: who reports on a run may be another program than its owner. `Already` when everything was so;
    /// `Stale` for a status that this version does not know.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an annotation that changes nothing or is beyond the limits, and when the
    /// run would have too many tags or too much metadata; the run is unchanged then.
    async fn annotate(
        &self,
        id: RunId,
        annotation: &Annotation,
    ) -> Result<Write<Run>, RepositoryError>;
}

/// Deletes what nobody needs any more.
#[async_trait]
pub trait RetainRuns: Send + Sync {
    /// Deletes runs that ended long ago, with their events, tags and records of removed worktrees; answers which.
    ///
    /// Never one whose clean-up is still wanted, whose worktree is still in place, or whose status is a word that this version does
    /// not know. Call it again until it answers none.
    ///
    /// # Errors
    /// What the store cannot do; then none was deleted.
    async fn delete_ended(&self, retention: &Retention) -> Result<Vec<RunId>, RepositoryError>;
}

/// Tells when it is worth looking again.
#[async_trait]
pub trait WatchRuns: Send + Sync {
    /// Waits until something in the store may have changed since `seen`, at the latest until `wait` is over.
    ///
    /// It is a hint: it may come without a change, and a change of another process may be told late. Who must not miss anything
    /// looks again when the wait is over, whether it was told or not. A write of the same process is told at once.
    ///
    /// # Errors
    /// What the store cannot do. A backend that only loses its way to be told falls back to looking regularly.
    async fn changed(
        &self,
        seen: ChangeMark,
        wait: Duration,
    ) -> Result<ChangeMark, RepositoryError>;
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
    CreateRuns
    + ReadRuns
    + OwnRuns
    + StopRuns
    + RescueRuns
    + AnnotateRuns
    + CleanUpWorktrees
    + RetainRuns
    + WatchRuns
    + Debug
    + 'static
{
    /// Declares what this backend can and cannot do.
    fn capabilities(&self) -> Capabilities;
}

/// A run repository whose backend is chosen at run time.
pub type DynRunRepository = Arc<dyn RunRepository>;
