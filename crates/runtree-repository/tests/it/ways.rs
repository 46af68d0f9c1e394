//! The longer ways of sinning against what is asked of many runs at once, of what is learnt of them, and of their end.

use std::time::Duration;

use runtree_repository::id::{IdGenerator, RunId};
use runtree_repository::status::RunStatus;
use runtree_repository::time::Clock;
use runtree_repository::{
    AnnotateRuns, Annotation, Claim, ClaimOf, Claimed, CleanUpWorktrees, CleanupClaim,
    CleanupOutcome, Direction, ErrorText, LeaseRef, LeaseTime, Limit, Measure, Outcome, Overdue,
    OwnRuns, Owner, PageRequest, ProcessMark, ReadRuns, RescueRuns, Run, RunFilter, RunOrder,
    RunStatistics, RunSummary, SortValue, UsageChange, WorktreeQuery, Write,
};

use crate::broken::{Answer, Broken, DAY};
use crate::sins::Sin;

impl Broken {
    /// Claims one run after the other, each on a day when the leases of those before have long expired.
    pub(crate) async fn claim_without_limits(&self, claim: &Claim) -> Answer<Vec<Claimed>> {
        let mut claimed = Vec::new();
        while claimed.len() < claim.limit.get() {
            let one = Claim {
                limit: Limit::ONE,
                ..claim.clone()
            };
            let day = self.clock.now().saturating_add(DAY * self.notes.next_day());
            let next = self.at(day, self.inner.claim(&one)).await?;
            if next.is_empty() {
                break;
            }
            claimed.extend(next);
        }
        Ok(claimed)
    }

    /// Counts what runs, and lets others count before it claims; as if every limit were three.
    pub(crate) async fn claim_after_a_count(&self, claim: &Claim) -> Answer<Vec<Claimed>> {
        let running = RunFilter::new().statuses([RunStatus::Running]);
        let running = usize::try_from(self.inner.count(&running).await?).unwrap_or(usize::MAX);
        tokio::task::yield_now().await;
        let free = 3_usize.saturating_sub(running).min(claim.limit.get());
        let Ok(limit) = Limit::new(u64::try_from(free).unwrap_or(0)) else {
            return Ok(Vec::new());
        };
        let claim = Claim {
            limit,
            ..claim.clone()
        };
        self.claim_without_limits(&claim).await
    }

    /// Claims those of the first waiting runs that may run.
    pub(crate) async fn claim_at_the_head(&self, claim: &Claim) -> Answer<Vec<Claimed>> {
        if matches!(claim.of, ClaimOf::Run(_)) {
            return self.inner.claim(claim).await;
        }
        let mut waiting = self.every_run(RunOrder::OLDEST_FIRST).await?;
        waiting.retain(|run| run.status == RunStatus::Pending);
        waiting.sort_by_key(|run| std::cmp::Reverse(run.priority));
        let mut claimed = Vec::new();
        for run in waiting.into_iter().take(claim.limit.get()) {
            let one = Claim {
                of: ClaimOf::Run(run.id),
                ..claim.clone()
            };
            claimed.extend(self.inner.claim(&one).await?);
        }
        Ok(claimed)
    }

    /// Every run in an order, with those that have no value where the sin puts them.
    pub(crate) async fn every_run_in_own_order(&self, order: RunOrder) -> Answer<Vec<RunSummary>> {
        let mut runs = self.every_run(order).await?;
        if self.is(Sin::OrdersMissingValuesLast) {
            let is_missing = |run: &RunSummary| order.by.of(run) == SortValue::Number(None);
            runs.sort_by_key(|run| match order.direction {
                Direction::Ascending => is_missing(run),
                Direction::Descending => !is_missing(run),
            });
        }
        Ok(runs)
    }

    pub(crate) async fn statistics_of_a_page(&self, filter: &RunFilter) -> Answer<RunStatistics> {
        let page = PageRequest {
            limit: Limit::MAX,
            ..PageRequest::default()
        };
        let page = self.inner.list(filter, &page).await?;
        let mut statistics = self.inner.statistics(filter).await?;
        statistics.runs = u64::try_from(page.runs.len()).unwrap_or(u64::MAX);
        Ok(statistics)
    }

    /// Reads the usage, lets others go on, and writes what it read and its own addition.
    pub(crate) async fn annotate_after_a_look(
        &self,
        id: RunId,
        annotation: &Annotation,
    ) -> Answer<Write<Run>> {
        let mut annotation = annotation.clone();
        if let UsageChange::Add(more) = annotation.usage
            && let Some(seen) = self.inner.get(id).await?
        {
            annotation.usage = UsageChange::Set(seen.usage.plus(&more));
        }
        tokio::task::yield_now().await;
        self.inner.annotate(id, &annotation).await
    }

    /// Removes every member of the metadata that the annotation does not name.
    pub(crate) async fn annotate_from_scratch(
        &self,
        id: RunId,
        annotation: &Annotation,
    ) -> Answer<Write<Run>> {
        let mut annotation = annotation.clone();
        let seen = self.inner.get(id).await?;
        for key in seen.iter().flat_map(|run| run.metadata.keys()) {
            annotation.metadata.entry(key.clone()).or_insert(None);
        }
        self.inner.annotate(id, &annotation).await
    }

    /// Ends runs whose time to stop is over as if their owners had done it.
    pub(crate) async fn time_out_under_the_old_token(
        &self,
        overdue: &Overdue,
    ) -> Answer<Vec<RunSummary>> {
        let now = self.clock.now();
        let mut changed = Vec::new();
        for run in self.every_run(RunOrder::OLDEST_FIRST).await? {
            let is_late = run
                .cancel
                .as_ref()
                .is_some_and(|cancel| cancel.is_overdue(now));
            if run.status == RunStatus::Running && is_late {
                let lease = LeaseRef {
                    run: run.id,
                    token: run.token,
                };
                let outcome = Outcome::Failed {
                    error: ErrorText::lossy("too late"),
                    retry_after: None,
                };
                let ended = self.inner.end(lease, &outcome).await?.accepted();
                changed.extend(ended.map(|run| run.summary));
            }
        }
        changed.extend(self.inner.time_out(overdue).await?);
        Ok(changed)
    }

    /// Says of every worktree that waits to be cleaned up that it is gone.
    pub(crate) async fn forget_cleanups(&self) -> Answer<()> {
        for run in self.every_run(RunOrder::OLDEST_FIRST).await? {
            for worktree in self.inner.worktrees(&WorktreeQuery::Run(run.id)).await? {
                let owner = Owner {
                    id: IdGenerator::system()
                        .owner_id()
                        .expect("the system has entropy"),
                    host: worktree.site.host.clone(),
                    process: ProcessMark::new("boot-1/1/1")?,
                };
                let claim = CleanupClaim {
                    owner,
                    lease_time: LeaseTime::new(Duration::from_secs(1))?,
                    limit: Limit::MAX,
                    host: worktree.site.host,
                    git_repository: worktree.site.git_repository,
                    run: Some(run.id),
                };
                for task in self.inner.claim_cleanups(&claim).await? {
                    let gone = CleanupOutcome::Removed { salvage: None };
                    let done = self.inner.finish_cleanup(task.cleanup, &gone).await?;
                    done.accepted();
                }
            }
        }
        Ok(())
    }
}

/// Puts the median between two values, where no run was.
pub(crate) fn interpolated(mut statistics: RunStatistics) -> RunStatistics {
    let Measure { count, mean, .. } = statistics.duration;
    if count.is_multiple_of(2) {
        statistics.duration.median = mean;
    }
    statistics
}
