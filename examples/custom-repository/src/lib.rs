//! A run repository over `redb`, an embedded key-value store: what a stranger writes to bring a store of their own.
//!
//! Each call is one transaction: it reads whole records, changes them by the pure functions of `record`, and writes them back. The
//! store has one writer at a time, so that what a transaction has looked at is still so when it commits. Small and plain on
//! purpose: a claim or a list reads every run of the namespace, and calls work on the thread that polls them.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of the contract and of the store are open, and each such arm is the safe one"
)]

mod error;
mod record;
mod transaction;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redb::{Database, ReadOnlyTable, ReadableDatabase};
use runtree_repository::id::{IdEnding, Lookup, RunId};
use runtree_repository::status::RunStatus;
use runtree_repository::time::{Clock, Timestamp};
use runtree_repository::{
    AnnotateRuns, Annotation, CancelRequest, Capabilities, ChangeMark, Claim, Claimed,
    CleanUpWorktrees, CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask,
    CreateRun, CreateRuns, Created, Durability, Ending, ErrorKind, EventKind, EventNumber,
    Explanation, HostName, HostPath, IdempotencyKey, Lease, LeaseRef, LeaseTime, Limit, Measure,
    Namespace, Outcome, Overdue, OwnRuns, PageRequest, Position, ProcessMark, ReadRuns, Renewal,
    RepositoryError, Rescue, RescueRuns, Rescued, RetainRuns, Retention, RetryRun, Run, RunEvent,
    RunFilter, RunPage, RunRepository, RunStatistics, RunSummary, Sharing, StopRuns, Usage,
    WatchRuns, WorktreeQuery, WorktreeRecord, WorktreeState, Write,
};
use serde_json::json;
use tokio::sync::watch;

use crate::error::{Answer, failed, not_opened};
use crate::record::Record;
use crate::transaction::{RUNS, Records, Writing, number};

/// The most candidates that an ambiguous ending is answered with.
const MAX_CANDIDATES: usize = 10;

/// A run repository in one file, for the threads of one process.
#[derive(Clone, Debug)]
pub struct RedbRepository {
    namespace: Namespace,
    store: Arc<Store>,
}

#[derive(Debug)]
struct Store {
    database: Database,
    clock: Arc<dyn Clock>,
    /// Counts the transactions, from 1.
    changes: watch::Sender<u64>,
}

impl RedbRepository {
    /// Opens or makes a file, and returns a handle on its namespace `default`.
    ///
    /// # Errors
    /// What the store cannot do.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Answer<Self> {
        let database = Database::create(path).map_err(not_opened)?;
        let begun = database.begin_write().map_err(failed)?;
        begun.open_table(RUNS).map_err(failed)?;
        begun.commit().map_err(failed)?;
        Ok(Self {
            namespace: Namespace::new("default")?,
            store: Arc::new(Store {
                database,
                clock,
                changes: watch::Sender::new(1),
            }),
        })
    }

    /// Returns a handle on another namespace of the same file.
    #[must_use]
    pub fn with_namespace(&self, namespace: Namespace) -> Self {
        let store = Arc::clone(&self.store);
        Self { namespace, store }
    }

    /// Overwrites the status of a run, as a newer version of a program that shares the file may: for tests of what becomes of it.
    ///
    /// # Errors
    /// What the store cannot do; [`ErrorKind::InvalidInput`] when there is no such run.
    pub fn overwrite_status(&self, id: RunId, status: RunStatus) -> Answer<()> {
        self.write(|records| {
            let mut record = records.get(id)?.ok_or_else(|| {
                RepositoryError::new(ErrorKind::InvalidInput, format!("there is no run {id}"))
            })?;
            record.run.summary.status = status;
            records.put(&record)
        })
    }

    fn read<A>(
        &self,
        read: impl FnOnce(
            &Records<'_, ReadOnlyTable<(&'static str, [u8; 16]), &'static [u8]>>,
        ) -> Answer<A>,
    ) -> Answer<A> {
        let begun = self.store.database.begin_read().map_err(failed)?;
        read(&Records {
            table: begun.open_table(RUNS).map_err(failed)?,
            namespace: self.namespace.as_str(),
            now: self.store.clock.now(),
        })
    }

    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method alone is not taken for one of every lifetime"
    )]
    fn all(&self) -> Answer<Vec<Record>> {
        self.read(|records| records.all())
    }

    /// One transaction, which is durable when this returns; an error leaves nothing of it.
    fn write<A>(&self, write: impl FnOnce(&mut Writing<'_, '_>) -> Answer<A>) -> Answer<A> {
        let begun = self.store.database.begin_write().map_err(failed)?;
        let mut records = Records {
            table: begun.open_table(RUNS).map_err(failed)?,
            namespace: self.namespace.as_str(),
            // Read by the one writer, so that the order of the stamps is the order of the writes.
            now: self.store.clock.now(),
        };
        let answer = write(&mut records)?;
        drop(records);
        begun.commit().map_err(failed)?;
        self.store.changes.send_modify(|count| *count += 1);
        Ok(answer)
    }

    fn shown(&self, filter: &RunFilter) -> Answer<Vec<Run>> {
        filter.check()?;
        let runs = self.all()?.into_iter().map(|record| record.run);
        Ok(runs.filter(|run| filter.shows(run)).collect())
    }
}

#[async_trait]
impl CreateRuns for RedbRepository {
    async fn create(&self, request: &CreateRun) -> Answer<Created> {
        let wanted = request.run.check()?;
        self.write(|records| records.create(request, wanted))
    }

    async fn create_many(&self, requests: &[CreateRun]) -> Answer<Vec<Created>> {
        CreateRun::check_batch(requests)?;
        let wanted = requests.iter().map(|request| request.run.check());
        let wanted = wanted.collect::<Answer<Vec<_>>>()?;
        self.write(|records| {
            let each = requests.iter().zip(wanted);
            each.map(|(request, wanted)| records.create(request, wanted))
                .collect()
        })
    }

    async fn retry(&self, request: &RetryRun) -> Answer<Write<Created>> {
        self.write(|records| records.retry(request))
    }
}

#[async_trait]
impl ReadRuns for RedbRepository {
    async fn now(&self) -> Answer<Timestamp> {
        Ok(self.store.clock.now())
    }

    async fn get(&self, id: RunId) -> Answer<Option<Run>> {
        self.read(|records| Ok(records.get(id)?.map(|record| record.run)))
    }

    async fn get_by_key(&self, key: &IdempotencyKey) -> Answer<Option<Run>> {
        let mut runs = self.all()?.into_iter().map(|record| record.run);
        Ok(runs.find(|run| run.idempotency_key.as_ref() == Some(key)))
    }

    async fn find(&self, ending: &IdEnding) -> Answer<Lookup<RunSummary>> {
        let runs = self.all()?.into_iter().map(|record| record.run);
        let matching = runs
            .filter(|run| ending.matches(&run.id))
            .map(|run| run.summary);
        let mut found: Vec<RunSummary> = matching.take(MAX_CANDIDATES).collect();
        Ok(match (found.pop(), found.is_empty()) {
            (None, _) => Lookup::NotFound,
            (Some(run), true) => Lookup::Found(run),
            (Some(run), false) => {
                found.push(run);
                Lookup::Ambiguous(found)
            }
        })
    }

    async fn list(&self, filter: &RunFilter, page: &PageRequest) -> Answer<RunPage> {
        let after = page.position()?;
        let places = self.shown(filter)?.into_iter().map(|run| {
            let place = Position::of(page.order.by, &run);
            (place, run.summary)
        });
        let mut places: Vec<_> = places
            .filter(|(place, _)| after.is_none_or(|after| page.order.compare(after, place).is_lt()))
            .collect();
        places.sort_by(|(one, _), (other, _)| page.order.compare(one, other));
        let runs = places.into_iter().map(|(_, run)| run);
        // One more than the page may have tells whether there is another page.
        Ok(RunPage::of(runs.take(page.limit.get() + 1).collect(), page))
    }

    async fn count(&self, filter: &RunFilter) -> Answer<u64> {
        Ok(number(self.shown(filter)?.len()))
    }

    async fn statistics(&self, filter: &RunFilter) -> Answer<RunStatistics> {
        let runs = self.shown(filter)?;
        let mut statistics = RunStatistics::default();
        let mut by_workflow = BTreeMap::new();
        let mut usage = Usage::default();
        for run in &runs {
            *statistics.by_status.entry(run.status).or_default() += 1;
            *by_workflow.entry(run.workflow.clone()).or_insert(0_u64) += 1;
            usage = usage.plus(&run.usage);
        }
        let mut most: Vec<_> = by_workflow.into_iter().collect();
        most.sort_by_key(|(name, runs)| (Reverse(*runs), name.clone()));
        most.truncate(RunStatistics::MAX_WORKFLOWS);
        statistics.by_workflow = most.into_iter().collect();
        statistics.runs = number(runs.len());
        statistics.duration = Measure::of(runs.iter().filter_map(|run| run.duration()));
        statistics.waiting = Measure::of(runs.iter().filter_map(|run| run.waiting_time()));
        statistics.input_tokens = usage.input_tokens;
        statistics.output_tokens = usage.output_tokens;
        statistics.cost = usage.cost;
        Ok(statistics)
    }

    async fn explain(&self, id: RunId) -> Answer<Option<Explanation>> {
        self.read(|records| records.explain(id))
    }

    async fn events(&self, id: RunId, after: EventNumber, limit: Limit) -> Answer<Vec<RunEvent>> {
        let record = self.read(|records| records.get(id))?;
        let events = record.map(|record| record.events).unwrap_or_default();
        let later = events.into_iter().filter(|event| event.number > after);
        Ok(later.take(limit.get()).collect())
    }
}

#[async_trait]
impl OwnRuns for RedbRepository {
    async fn claim(&self, claim: &Claim) -> Answer<Vec<Claimed>> {
        claim.check()?;
        self.write(|records| records.claim(claim))
    }

    async fn renew(&self, leases: &[LeaseRef], time: LeaseTime) -> Answer<Vec<Renewal>> {
        self.write(|records| {
            let mut renewals = Vec::with_capacity(leases.len());
            for lease in leases {
                let renewed = records.change(lease.run, |record, now| {
                    Ok(Write::Applied(record.renew(*lease, time.get(), now)))
                })?;
                renewals.push(renewed.accepted().unwrap_or(Renewal::Lost));
            }
            Ok(renewals)
        })
    }

    async fn record_child(&self, lease: LeaseRef, child: &ProcessMark) -> Answer<Write<()>> {
        self.write(|records| {
            records.owned(lease, "record_child", |record, _| {
                record.lease.as_mut()?.child = Some(child.clone());
                Some(Write::Applied(()))
            })
        })
    }

    async fn worktree_ready(&self, lease: LeaseRef) -> Answer<Write<WorktreeRecord>> {
        self.write(|records| {
            records.owned(lease, "worktree_ready", |record, now| {
                record.worktree_ready(lease, now)
            })
        })
    }

    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Answer<Write<Run>> {
        outcome.check()?;
        self.write(|records| end(records, lease, outcome))
    }

    async fn end_many(&self, endings: &[Ending]) -> Answer<Vec<Write<RunSummary>>> {
        Ending::check_batch(endings)?;
        endings
            .iter()
            .try_for_each(|ending| ending.outcome.check())?;
        self.write(|records| {
            let ended = endings.iter().map(|ending| {
                let ended = end(records, ending.lease, &ending.outcome)?;
                Ok(ended.map(|run| run.summary))
            });
            ended.collect()
        })
    }

    async fn release(&self, lease: LeaseRef) -> Answer<Write<Run>> {
        self.write(|records| {
            records.owned(lease, "release", |record, now| {
                record.release(now);
                Some(Write::Applied(record.run.clone()))
            })
        })
    }
}

fn end(records: &mut Writing<'_, '_>, lease: LeaseRef, outcome: &Outcome) -> Answer<Write<Run>> {
    if let Some(record) = records.get(lease.run)?
        && record.run.token == lease.token
        && record.ended_as(outcome)
    {
        return Ok(Write::Already(record.run));
    }
    let (what, needs_lease) = match outcome {
        Outcome::Completed { .. } => ("complete", true),
        Outcome::Failed { .. } => ("fail", false),
        _ => ("acknowledge_cancel", false),
    };
    records.owned(lease, what, |record, now| {
        if needs_lease && record.has_expired(now) {
            return None;
        }
        record.end(outcome, now);
        Some(Write::Applied(record.run.clone()))
    })
}

#[async_trait]
impl StopRuns for RedbRepository {
    async fn cancel(&self, id: RunId, request: &CancelRequest) -> Answer<Write<Run>> {
        self.write(|records| {
            records.change(id, |record, now| {
                Ok(stop(record, |record| record.cancel(request, now)))
            })
        })
    }

    async fn force_kill(&self, id: RunId, request: &CancelRequest) -> Answer<Write<Run>> {
        self.write(|records| {
            records.change(id, |record, now| {
                Ok(stop(record, |record| record.force_kill(request, now)))
            })
        })
    }
}

fn stop(record: &mut Record, stop: impl FnOnce(&mut Record) -> bool) -> Write<Run> {
    if record.run.has_ended() {
        return Write::Already(record.run.clone());
    }
    if !record.run.status.is_known() {
        return record.stale();
    }
    if stop(record) {
        Write::Applied(record.run.clone())
    } else {
        Write::Already(record.run.clone())
    }
}

#[async_trait]
impl RescueRuns for RedbRepository {
    async fn leases(&self, host: Option<&HostName>) -> Answer<Vec<Lease>> {
        let records = self.all()?;
        let leases = records.iter().filter_map(Record::lease_view);
        Ok(leases
            .filter(|lease| host.is_none_or(|host| lease.owner.host == *host))
            .collect())
    }

    async fn rescue(&self, rescue: &Rescue) -> Answer<Vec<Rescued>> {
        self.write(|records| records.rescue(rescue))
    }

    async fn time_out(&self, overdue: &Overdue) -> Answer<Vec<RunSummary>> {
        self.write(|records| records.time_out(overdue))
    }
}

#[async_trait]
impl AnnotateRuns for RedbRepository {
    async fn annotate(&self, id: RunId, annotation: &Annotation) -> Answer<Write<Run>> {
        annotation.check()?;
        self.write(|records| {
            records.change(id, |record, now| {
                if !record.run.status.is_known() {
                    return Ok(record.stale());
                }
                let before = record.run.clone();
                annotation.apply(&mut record.run)?;
                if record.run == before {
                    return Ok(Write::Already(before));
                }
                record.tell(EventKind::Annotated, now, None);
                Ok(Write::Applied(record.run.clone()))
            })
        })
    }
}

#[async_trait]
impl RetainRuns for RedbRepository {
    async fn delete_ended(&self, retention: &Retention) -> Answer<Vec<RunId>> {
        self.write(|records| records.delete_ended(retention))
    }
}

#[async_trait]
impl WatchRuns for RedbRepository {
    async fn changed(&self, seen: ChangeMark, wait: Duration) -> Answer<ChangeMark> {
        let mut changes = self.store.changes.subscribe();
        let news = changes.wait_for(|count| *count > seen.get());
        Ok(match tokio::time::timeout(wait, news).await {
            Ok(Ok(count)) => ChangeMark::new(*count),
            Ok(Err(_)) | Err(_) => seen,
        })
    }
}

#[async_trait]
impl CleanUpWorktrees for RedbRepository {
    async fn worktrees(&self, query: &WorktreeQuery) -> Answer<Vec<WorktreeRecord>> {
        let records = self.all()?;
        let worktrees = records.into_iter().flat_map(|record| record.worktrees);
        let is_meant = |worktree: &WorktreeRecord| match query {
            WorktreeQuery::Run(id) => worktree.key.run == *id,
            WorktreeQuery::Site {
                host,
                git_repository,
            } => {
                worktree.state != WorktreeState::Removed
                    && worktree.site.host == *host
                    && worktree.site.git_repository == *git_repository
            }
            _ => false,
        };
        Ok(worktrees.filter(is_meant).collect())
    }

    async fn claim_cleanups(&self, claim: &CleanupClaim) -> Answer<Vec<CleanupTask>> {
        self.write(|records| records.claim_cleanups(claim))
    }

    async fn cleanup_leases(&self, host: &HostName, git: &HostPath) -> Answer<Vec<CleanupLease>> {
        let mut leases = Vec::new();
        for record in self.all()? {
            for cleanup in &record.cleanups {
                let mut worktrees = record.worktrees.iter();
                let worktree = worktrees.find(|it| it.key.planned_by == cleanup.planned_by);
                let Some((worktree, (owner, until))) = worktree.zip(cleanup.held.clone()) else {
                    continue;
                };
                if worktree.site.host == *host && worktree.site.git_repository == *git {
                    let of = CleanupRef {
                        worktree: worktree.key,
                        token: cleanup.token,
                    };
                    leases.push(CleanupLease::new(of, owner, until));
                }
            }
        }
        Ok(leases)
    }

    async fn free_cleanups(&self, proven_dead: &[CleanupRef]) -> Answer<()> {
        self.write(|records| {
            for dead in proven_dead {
                let freed = records.change(dead.worktree.run, |record, _| {
                    for cleanup in &mut record.cleanups {
                        if cleanup.planned_by == dead.worktree.planned_by
                            && cleanup.token == dead.token
                        {
                            cleanup.held = None;
                        }
                    }
                    Ok(Write::Applied(()))
                })?;
                // A run that is gone has no clean-up to be freed.
                let _ = freed;
            }
            Ok(())
        })
    }

    async fn finish_cleanup(
        &self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Answer<Write<WorktreeRecord>> {
        self.write(|records| {
            records.change(cleanup.worktree.run, |record, now| {
                Ok(finish_cleanup(record, cleanup, outcome, now))
            })
        })
    }
}

fn finish_cleanup(
    record: &mut Record,
    of: CleanupRef,
    outcome: &CleanupOutcome,
    now: Timestamp,
) -> Write<WorktreeRecord> {
    let mut worktrees = record.worktrees.iter_mut();
    let Some(worktree) = worktrees.find(|worktree| worktree.key == of.worktree) else {
        return Write::NotFound;
    };
    let mut cleanups = record.cleanups.iter();
    let at =
        cleanups.position(|it| it.planned_by == of.worktree.planned_by && it.token == of.token);
    let Some(at) = at else {
        let done = match outcome {
            CleanupOutcome::Removed { .. } => Some(WorktreeState::Removed),
            CleanupOutcome::Kept { .. } => Some(WorktreeState::Kept),
            _ => None,
        };
        return if done == Some(worktree.state) {
            Write::Already(worktree.clone())
        } else {
            record.stale()
        };
    };
    let mut cleanup = record.cleanups.remove(at);
    let (kind, detail) = match outcome {
        CleanupOutcome::Removed { salvage } => {
            worktree.state = WorktreeState::Removed;
            worktree.salvage.clone_from(salvage);
            (EventKind::WorktreeRemoved, json!({ "salvage": salvage }))
        }
        CleanupOutcome::Kept { reason } => {
            worktree.state = WorktreeState::Kept;
            worktree.reason = Some(reason.clone());
            (EventKind::WorktreeKept, json!({ "reason": reason }))
        }
        CleanupOutcome::Postponed { error, retry_after } => {
            cleanup.available_at = now.saturating_add(*retry_after);
            cleanup.held = None;
            record.cleanups.insert(at, cleanup);
            (EventKind::CleanupPostponed, json!({ "error": error }))
        }
        // What a newer version of the contract adds, this backend does not do.
        _ => return record.stale(),
    };
    worktree.updated_at = now.max(worktree.updated_at);
    let worktree = worktree.clone();
    record.tell(kind, now, Some(detail));
    Write::Applied(worktree)
}

impl RunRepository for RedbRepository {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Full, Sharing::Process)
    }
}
