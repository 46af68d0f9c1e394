//! A repository that is the memory backend but for one sin.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a sin changes one answer, and every other passes through"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use runtree_repository::id::{IdEnding, Lookup, RunId};
use runtree_repository::status::RunStatus;
use runtree_repository::time::{Clock, ManualClock, Timestamp};
use runtree_repository::{
    AnnotateRuns, Annotation, Because, CancelCause, CancelMode, CancelRequest, Capabilities,
    ChangeMark, Claim, ClaimOf, Claimed, CleanUpWorktrees, CleanupClaim, CleanupLease,
    CleanupOutcome, CleanupRef, CleanupTask, CreateRun, CreateRuns, Created, Durability, Ending,
    ErrorText, EventKind, EventNumber, Explanation, HostName, HostPath, IdempotencyKey, Lease,
    LeaseRef, LeaseTime, Limit, MemoryRepository, NewRun, Outcome, Overdue, OwnRuns, PageRequest,
    Position, ProcessMark, ReadRuns, Renewal, RepositoryError, Rescue, RescueRuns, Rescued,
    RetainRuns, Retention, RetryRun, Run, RunEvent, RunFilter, RunOrder, RunPage, RunRepository,
    RunStatistics, RunSummary, Sharing, StopRuns, WatchRuns, WorktreeQuery, WorktreeRecord, Write,
};

use crate::sins::Sin;
use crate::ways::interpolated;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) type Answer<T> = Result<T, RepositoryError>;

/// A handle on a broken repository.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) sin: Option<Sin>,
    pub(crate) clock: ManualClock,
    pub(crate) inner: MemoryRepository,
    /// The namespace that leaks into the others.
    pub(crate) home: MemoryRepository,
    pub(crate) notes: Arc<Notes>,
}

/// What broken repositories keep beside the tables, shared by the handles of one store.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    keys: Mutex<BTreeMap<IdempotencyKey, RunId>>,
    modes: Mutex<BTreeMap<RunId, CancelMode>>,
    forgotten: Mutex<BTreeSet<RunId>>,
    days: Mutex<u32>,
}

impl Notes {
    fn forget(&self, run: RunId) {
        held(&self.forgotten).insert(run);
    }

    fn remember(&self, run: RunId) {
        held(&self.forgotten).remove(&run);
    }

    /// A day that no call has been made on.
    pub(crate) fn next_day(&self) -> u32 {
        let mut days = held(&self.days);
        *days += 1;
        *days
    }

    fn forgets(&self, run: RunId) -> bool {
        held(&self.forgotten).contains(&run)
    }
}

fn held<T>(notes: &Mutex<T>) -> MutexGuard<'_, T> {
    notes
        .lock()
        .expect("because nobody panics while holding the notes")
}

impl Broken {
    pub(crate) fn is(&self, sin: Sin) -> bool {
        self.sin == Some(sin)
    }

    /// Makes a call at another time than now.
    pub(crate) async fn at<T>(
        &self,
        then: Timestamp,
        call: impl Future<Output = Answer<T>>,
    ) -> Answer<T> {
        let now = self.clock.now();
        self.clock.set(then);
        let answer = call.await;
        self.clock.set(now);
        answer
    }

    /// What a repository with this sin shows of a run.
    fn show(&self, mut run: Run) -> Run {
        let summary = &mut run.summary;
        if self.is(Sin::TruncatesInstants) {
            let millis = summary.available_at.as_unix_millis();
            summary.available_at = Timestamp::from_unix_millis(millis).expect(
                "because it is earlier by less than a millisecond, and no case goes to the edge",
            );
        }
        if self.is(Sin::TurnsTimeBack) {
            summary.updated_at = summary.updated_at.min(self.clock.now());
        }
        if self.is(Sin::WeakensCancels)
            && let Some(cancel) = &mut summary.cancel
            && let Some(mode) = held(&self.notes.modes).get(&summary.id)
        {
            cancel.mode = *mode;
        }
        run
    }

    pub(crate) async fn every_run(&self, order: RunOrder) -> Answer<Vec<RunSummary>> {
        let page = PageRequest {
            limit: Limit::MAX,
            order,
            after: None,
        };
        Ok(self.inner.list(&RunFilter::new(), &page).await?.runs)
    }

    async fn create_after_a_look(&self, request: &CreateRun) -> Answer<Created> {
        let Some(key) = request.run.check()?.idempotency_key else {
            return self.inner.create(request).await;
        };
        let found = held(&self.notes.keys).get(&key).copied();
        if let Some(id) = found {
            let existing = self.inner.get(id).await?;
            return Ok(Created::Existing(
                existing.expect("the index names runs that exist"),
            ));
        }
        tokio::task::yield_now().await;
        let own_key = format!("{key} {}", request.id);
        let request = CreateRun {
            run: request.run.clone().idempotency_key(own_key),
            ..request.clone()
        };
        held(&self.notes.keys).insert(key, request.id);
        self.inner.create(&request).await
    }

    async fn claim_after_a_look(&self, claim: &Claim) -> Answer<Vec<Claimed>> {
        let ClaimOf::Run(id) = claim.of else {
            return self.inner.claim(claim).await;
        };
        let seen = self.inner.get(id).await?;
        tokio::task::yield_now().await;
        let claimed = self.inner.claim(claim).await?;
        let now = self.inner.get(id).await?;
        match (seen, now) {
            (Some(seen), Some(now)) if claimed.is_empty() && seen.status == RunStatus::Pending => {
                let lease = LeaseRef {
                    run: id,
                    token: now.token,
                };
                let expires_at = self.clock.now().saturating_add(claim.lease_time.get());
                Ok(vec![Claimed::new(lease, expires_at, now, None)])
            }
            _ => Ok(claimed),
        }
    }

    async fn claim_youngest(&self, claim: &Claim) -> Answer<Vec<Claimed>> {
        let mut claimed = Vec::new();
        for run in self.every_run(RunOrder::NEWEST_FIRST).await? {
            if claimed.len() < claim.limit.get() {
                let one = Claim {
                    of: ClaimOf::Run(run.id),
                    ..claim.clone()
                };
                claimed.extend(self.inner.claim(&one).await?);
            }
        }
        Ok(claimed)
    }

    async fn end_after_a_look(&self, lease: LeaseRef, outcome: &Outcome) -> Answer<Write<Run>> {
        let seen = self.inner.get(lease.run).await?;
        tokio::task::yield_now().await;
        let held =
            seen.is_some_and(|run| run.status == RunStatus::Running && run.token == lease.token);
        match self.inner.end(lease, outcome).await? {
            Write::Already(run) if held => Ok(Write::Applied(run)),
            Write::Stale { .. } if held => {
                let run = self.inner.get(lease.run).await?;
                Ok(run.map_or(Write::NotFound, Write::Applied))
            }
            other => Ok(other),
        }
    }

    async fn end_in_two_transactions(
        &self,
        lease: LeaseRef,
        outcome: &Outcome,
    ) -> Answer<Write<Run>> {
        let is_running = self
            .inner
            .get(lease.run)
            .await?
            .is_some_and(|run| !run.has_ended());
        if is_running {
            self.notes.forget(lease.run);
        }
        let answer = self.inner.end(lease, outcome).await?;
        tokio::task::yield_now().await;
        if is_running {
            self.notes.remember(lease.run);
        }
        Ok(answer)
    }

    /// The lease that whoever holds the run now would show.
    async fn lease_of_now(&self, run: RunId) -> Answer<Option<LeaseRef>> {
        let run = self.inner.get(run).await?;
        Ok(run.map(|run| LeaseRef {
            run: run.id,
            token: run.token,
        }))
    }

    async fn list_in_own_way(&self, filter: &RunFilter, page: &PageRequest) -> Answer<RunPage> {
        let after = page.position()?;
        let is_after = |run: &RunSummary, after: &Position| {
            let of = Position::of(page.order.by, run);
            let follows = page.order.compare(after, &of).is_lt();
            match self.sin {
                Some(Sin::SkipsEqualInstants) => follows && after.value != of.value,
                Some(Sin::RepeatsAtThePageBorder) => follows || *after == of,
                _ => follows,
            }
        };
        let shows = |run: &Run| {
            let end = filter.created.and_then(|range| range.end());
            filter.shows(run) || self.is(Sin::IncludesTheEndOfRanges) && end == Some(run.created_at)
        };
        let mut runs = Vec::new();
        for run in self.every_run_in_own_order(page.order).await? {
            let whole = self.inner.get(run.id).await?;
            if whole.is_some_and(|whole| shows(&whole))
                && after.is_none_or(|after| is_after(&run, after))
            {
                runs.push(run);
            }
        }
        runs.truncate(page.limit.get() + 1);
        Ok(RunPage::of(runs, page))
    }
}

#[async_trait]
impl CreateRuns for Broken {
    async fn create(&self, request: &CreateRun) -> Answer<Created> {
        match self.sin {
            Some(Sin::LooksBeforeItInserts) => self.create_after_a_look(request).await,
            Some(Sin::SwallowsConflicts) => Ok(match self.inner.create(request).await? {
                Created::Conflict { existing, .. } => Created::Existing(existing),
                other => other,
            }),
            Some(Sin::AcknowledgesWhatItDidNotWrite) => {
                let elsewhere = MemoryRepository::new(Arc::new(self.clock.clone()));
                elsewhere.create(request).await
            }
            Some(Sin::SwallowsErrors) => {
                let harmless = CreateRun {
                    run: NewRun::new("unnamed"),
                    ..request.clone()
                };
                let answer = self.inner.create(request).await;
                if answer.is_ok() {
                    answer
                } else {
                    self.inner.create(&harmless).await
                }
            }
            Some(Sin::TruncatesInstants) => Ok(match self.inner.create(request).await? {
                Created::New(run) => Created::New(self.show(run)),
                other => other,
            }),
            _ => self.inner.create(request).await,
        }
    }

    async fn create_many(&self, requests: &[CreateRun]) -> Answer<Vec<Created>> {
        match self.sin {
            Some(Sin::MakesManyOneByOne) => {
                let mut created = Vec::new();
                for request in requests {
                    created.push(self.inner.create(request).await?);
                }
                Ok(created)
            }
            Some(Sin::AnswersManyInItsOwnOrder) => {
                let mut sorted = requests.to_vec();
                sorted.sort_by_key(|request| request.id);
                self.inner.create_many(&sorted).await
            }
            _ => self.inner.create_many(requests).await,
        }
    }

    async fn retry(&self, request: &RetryRun) -> Answer<Write<Created>> {
        let answer = self.inner.retry(request).await?;
        if !self.is(Sin::KeepsTheKeyInRetries) {
            return Ok(answer);
        }
        let ended = self.inner.get(request.of).await?;
        let key = ended.and_then(|ended| ended.idempotency_key.clone());
        Ok(answer.map(|created| match created {
            Created::New(mut run) => {
                run.summary.idempotency_key = key;
                Created::New(run)
            }
            other => other,
        }))
    }
}

#[async_trait]
impl ReadRuns for Broken {
    async fn now(&self) -> Answer<Timestamp> {
        self.inner.now().await
    }

    async fn get(&self, id: RunId) -> Answer<Option<Run>> {
        let mut found = self.inner.get(id).await?;
        if self.is(Sin::ReadsAcrossNamespaces) && found.is_none() {
            found = self.home.get(id).await?;
        }
        Ok(found.map(|run| self.show(run)))
    }

    async fn get_by_key(&self, key: &IdempotencyKey) -> Answer<Option<Run>> {
        let found = self.inner.get_by_key(key).await?;
        if self.is(Sin::FindsKeysAcrossNamespaces) && found.is_none() {
            return self.home.get_by_key(key).await;
        }
        Ok(found)
    }

    async fn find(&self, ending: &IdEnding) -> Answer<Lookup<RunSummary>> {
        let found = self.inner.find(ending).await?;
        Ok(match found {
            Lookup::Ambiguous(mut runs) if self.is(Sin::GuessesAmongCandidates) => {
                Lookup::Found(runs.remove(0))
            }
            other => other,
        })
    }

    async fn list(&self, filter: &RunFilter, page: &PageRequest) -> Answer<RunPage> {
        match self.sin {
            Some(
                Sin::SkipsEqualInstants
                | Sin::RepeatsAtThePageBorder
                | Sin::IncludesTheEndOfRanges
                | Sin::OrdersMissingValuesLast,
            ) => self.list_in_own_way(filter, page).await,
            Some(Sin::ForgetsTagsInFilters) => {
                let mut without_tags = filter.clone();
                without_tags.tags = None;
                self.inner.list(&without_tags, page).await
            }
            Some(Sin::ShowsEverythingWhenNothingIsNamed) if filter.check().is_err() => {
                self.inner.list(&RunFilter::new(), page).await
            }
            _ => self.inner.list(filter, page).await,
        }
    }

    async fn count(&self, filter: &RunFilter) -> Answer<u64> {
        if self.is(Sin::CountsOnePage) {
            let page = self.inner.list(filter, &PageRequest::default()).await?;
            return Ok(u64::try_from(page.runs.len()).unwrap_or(u64::MAX));
        }
        self.inner.count(filter).await
    }

    async fn statistics(&self, filter: &RunFilter) -> Answer<RunStatistics> {
        let statistics = self.inner.statistics(filter).await?;
        match self.sin {
            Some(Sin::MeasuresOnePage) => self.statistics_of_a_page(filter).await,
            Some(Sin::InterpolatesPercentiles) => Ok(interpolated(statistics)),
            _ => Ok(statistics),
        }
    }

    async fn explain(&self, id: RunId) -> Answer<Option<Explanation>> {
        let explained = self.inner.explain(id).await?;
        Ok(explained.map(|mut explanation| {
            if self.is(Sin::ExplainsAwayLimits) {
                let limited = |because: &Because| matches!(because, Because::LimitReached { .. });
                if explanation.because.iter().any(limited) {
                    explanation.because = vec![Because::Waiting { ahead: 0 }];
                }
            }
            explanation
        }))
    }

    async fn events(&self, id: RunId, after: EventNumber, limit: Limit) -> Answer<Vec<RunEvent>> {
        let mut events = self.inner.events(id, after, limit).await?;
        if self.is(Sin::ForgetsRejections) {
            events.retain(|event| event.kind != EventKind::Rejected);
        }
        if self.is(Sin::TellsNoRetries) {
            events.retain(|event| event.kind != EventKind::Retried);
        }
        Ok(events)
    }
}

#[async_trait]
impl OwnRuns for Broken {
    async fn claim(&self, claim: &Claim) -> Answer<Vec<Claimed>> {
        match self.sin {
            Some(Sin::ClaimsInTwoSteps) => self.claim_after_a_look(claim).await,
            Some(Sin::ClaimsTheYoungestFirst) => self.claim_youngest(claim).await,
            Some(Sin::IgnoresConcurrencyLimits) => self.claim_without_limits(claim).await,
            Some(Sin::CountsHoldersBeforeItClaims) => self.claim_after_a_count(claim).await,
            Some(Sin::LooksNoFurtherThanItsLimit) => self.claim_at_the_head(claim).await,
            Some(Sin::ClaimsFromAnyQueue) => {
                let mut any = claim.clone();
                if let ClaimOf::Waiting(waiting) = &mut any.of {
                    waiting.queues = None;
                }
                self.inner.claim(&any).await
            }
            Some(Sin::ClaimsWhatIsNotDue) => {
                let tomorrow = self.clock.now().saturating_add(DAY);
                self.at(tomorrow, self.inner.claim(claim)).await
            }
            Some(Sin::ForgetsTheWorktree) => {
                let mut claimed = self.inner.claim(claim).await?;
                claimed
                    .iter_mut()
                    .for_each(|claimed| claimed.worktree = None);
                Ok(claimed)
            }
            _ => self.inner.claim(claim).await,
        }
    }

    async fn renew(&self, leases: &[LeaseRef], lease_time: LeaseTime) -> Answer<Vec<Renewal>> {
        match self.sin {
            Some(Sin::ForgetsTheCancelInRenewals) => {
                let answers = self.inner.renew(leases, lease_time).await?;
                let forget = |renewal| match renewal {
                    Renewal::Renewed { expires_at, .. } => Renewal::Renewed {
                        expires_at,
                        cancel: None,
                    },
                    Renewal::Lost => Renewal::Lost,
                };
                Ok(answers.into_iter().map(forget).collect())
            }
            Some(Sin::RenewsExpiredLeases) => {
                let yesterday = self.clock.now().saturating_sub(DAY);
                self.at(yesterday, self.inner.renew(leases, lease_time))
                    .await
            }
            Some(Sin::AnswersRenewalsInItsOwnOrder) => {
                let mut sorted = leases.to_vec();
                sorted.sort();
                self.inner.renew(&sorted, lease_time).await
            }
            _ => self.inner.renew(leases, lease_time).await,
        }
    }

    async fn record_child(&self, lease: LeaseRef, child: &ProcessMark) -> Answer<Write<()>> {
        self.inner.record_child(lease, child).await
    }

    async fn worktree_ready(&self, lease: LeaseRef) -> Answer<Write<WorktreeRecord>> {
        self.inner.worktree_ready(lease).await
    }

    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Answer<Write<Run>> {
        match self.sin {
            Some(Sin::LosesUpdates) => self.end_after_a_look(lease, outcome).await,
            Some(Sin::WantsCleanupsLater) => self.end_in_two_transactions(lease, outcome).await,
            Some(Sin::CompletesAfterExpiry) => {
                let yesterday = self.clock.now().saturating_sub(DAY);
                self.at(yesterday, self.inner.end(lease, outcome)).await
            }
            Some(Sin::AcceptsStaleEndings) => match self.lease_of_now(lease.run).await? {
                Some(now) => self.inner.end(now, outcome).await,
                None => Ok(Write::NotFound),
            },
            Some(Sin::KillsLateRuns) => {
                let seen = self.inner.get(lease.run).await?;
                let cause = seen.and_then(|run| run.cancel.as_ref().map(|cancel| cancel.cause));
                if cause == Some(CancelCause::Deadline) && matches!(outcome, Outcome::Killed) {
                    let request = CancelRequest::new(CancelMode::Forced);
                    return self.inner.force_kill(lease.run, &request).await;
                }
                self.inner.end(lease, outcome).await
            }
            Some(Sin::EndsTwice) => Ok(match self.inner.end(lease, outcome).await? {
                Write::Already(run) => Write::Applied(run),
                other => other,
            }),
            Some(Sin::RetriesCancelledRuns) => {
                let is_asked = |run: &Run| run.cancel.is_some();
                let ignores = self
                    .inner
                    .get(lease.run)
                    .await?
                    .is_some_and(|run| is_asked(&run));
                let answer = self.inner.end(lease, outcome).await?;
                Ok(answer.map(|mut run| {
                    if ignores && matches!(outcome, Outcome::Failed { .. }) {
                        run.summary.status = RunStatus::Pending;
                    }
                    run
                }))
            }
            _ => Ok(self
                .inner
                .end(lease, outcome)
                .await?
                .map(|run| self.show(run))),
        }
    }

    async fn end_many(&self, endings: &[Ending]) -> Answer<Vec<Write<RunSummary>>> {
        if self.is(Sin::EndsManyOneByOne) {
            let mut answers = Vec::new();
            for ending in endings {
                answers.extend(self.inner.end_many(std::slice::from_ref(ending)).await?);
                tokio::task::yield_now().await;
            }
            return Ok(answers);
        }
        let mut answers = self.inner.end_many(endings).await?;
        if self.is(Sin::StopsAtTheFirstLoser) {
            let lost = answers
                .iter()
                .position(|answer| matches!(answer, Write::Stale { .. }));
            answers.truncate(lost.map_or(answers.len(), |at| at + 1));
        }
        Ok(answers)
    }

    async fn release(&self, lease: LeaseRef) -> Answer<Write<Run>> {
        if self.is(Sin::CountsReleases) {
            let answer = self.inner.release(lease).await?;
            return Ok(answer.map(|mut run| {
                run.summary.attempts += 1;
                run
            }));
        }
        self.inner.release(lease).await
    }
}

#[async_trait]
impl StopRuns for Broken {
    async fn cancel(&self, id: RunId, request: &CancelRequest) -> Answer<Write<Run>> {
        if self.is(Sin::CancelsAcrossNamespaces) && self.inner.get(id).await?.is_none() {
            return self.home.cancel(id, request).await;
        }
        held(&self.notes.modes).insert(id, request.mode);
        let answer = self.inner.cancel(id, request).await?;
        Ok(answer.map(|run| self.show(run)))
    }

    async fn force_kill(&self, id: RunId, request: &CancelRequest) -> Answer<Write<Run>> {
        match self.sin {
            Some(Sin::ForgetsCleanupsOfKilledRuns) => self.notes.forget(id),
            Some(Sin::KillsWithoutFencing) => {
                let answer = self.inner.cancel(id, request).await?;
                return match self.lease_of_now(id).await? {
                    Some(lease) if matches!(answer, Write::Applied(_)) => {
                        let outcome = Outcome::Failed {
                            error: ErrorText::lossy("killed"),
                            retry_after: None,
                        };
                        self.inner.end(lease, &outcome).await
                    }
                    _ => Ok(answer),
                };
            }
            _ => {}
        }
        self.inner.force_kill(id, request).await
    }
}

#[async_trait]
impl RescueRuns for Broken {
    async fn leases(&self, host: Option<&HostName>) -> Answer<Vec<Lease>> {
        self.inner.leases(host).await
    }

    async fn rescue(&self, rescue: &Rescue) -> Answer<Vec<Rescued>> {
        match self.sin {
            Some(Sin::RescuesTheNextOwner) => {
                let mut proven_dead = Vec::new();
                for lease in &rescue.proven_dead {
                    proven_dead.extend(self.lease_of_now(lease.run).await?);
                }
                self.inner
                    .rescue(&Rescue {
                        proven_dead,
                        limit: rescue.limit,
                        spare: Vec::new(),
                    })
                    .await
            }
            Some(Sin::RescuesTheLiving) => {
                let tomorrow = self.clock.now().saturating_add(DAY);
                self.at(tomorrow, self.inner.rescue(rescue)).await
            }
            _ => self.inner.rescue(rescue).await,
        }
    }

    async fn time_out(&self, overdue: &Overdue) -> Answer<Vec<RunSummary>> {
        match self.sin {
            Some(Sin::EndsLateRunsUnasked) => {
                let at_once = Overdue {
                    grace: Duration::ZERO,
                    ..overdue.clone()
                };
                let mut changed = self.inner.time_out(&at_once).await?;
                for run in self.inner.time_out(&at_once).await? {
                    changed.retain(|other| other.id != run.id);
                    changed.push(run);
                }
                Ok(changed)
            }
            Some(Sin::TimesOutWithoutFencing) => self.time_out_under_the_old_token(overdue).await,
            _ => self.inner.time_out(overdue).await,
        }
    }
}

#[async_trait]
impl AnnotateRuns for Broken {
    async fn annotate(&self, id: RunId, annotation: &Annotation) -> Answer<Write<Run>> {
        match self.sin {
            Some(Sin::LosesConcurrentAnnotations) => {
                self.annotate_after_a_look(id, annotation).await
            }
            Some(Sin::ReplacesMetadata) => self.annotate_from_scratch(id, annotation).await,
            Some(Sin::AnnotatesTwice) => Ok(match self.inner.annotate(id, annotation).await? {
                Write::Already(run) => Write::Applied(run),
                other => other,
            }),
            _ => self.inner.annotate(id, annotation).await,
        }
    }
}

#[async_trait]
impl RetainRuns for Broken {
    async fn delete_ended(&self, retention: &Retention) -> Answer<Vec<RunId>> {
        match self.sin {
            Some(Sin::DeletesWhatIsToBeCleanedUp) => self.forget_cleanups().await?,
            Some(Sin::DeletesAcrossNamespaces) => {
                let mut gone = self.inner.delete_ended(retention).await?;
                gone.extend(self.home.delete_ended(retention).await?);
                return Ok(gone);
            }
            _ => {}
        }
        self.inner.delete_ended(retention).await
    }
}

#[async_trait]
impl WatchRuns for Broken {
    async fn changed(&self, seen: ChangeMark, wait: Duration) -> Answer<ChangeMark> {
        if self.is(Sin::NeverWakesWhoWaits) && seen != ChangeMark::START {
            return Ok(seen);
        }
        self.inner.changed(seen, wait).await
    }
}

#[async_trait]
impl CleanUpWorktrees for Broken {
    async fn worktrees(&self, query: &WorktreeQuery) -> Answer<Vec<WorktreeRecord>> {
        self.inner.worktrees(query).await
    }

    async fn claim_cleanups(&self, claim: &CleanupClaim) -> Answer<Vec<CleanupTask>> {
        let mut tasks = self.inner.claim_cleanups(claim).await?;
        tasks.retain(|task| !self.notes.forgets(task.cleanup.worktree.run));
        Ok(tasks)
    }

    async fn cleanup_leases(
        &self,
        host: &HostName,
        git_repository: &HostPath,
    ) -> Answer<Vec<CleanupLease>> {
        self.inner.cleanup_leases(host, git_repository).await
    }

    async fn free_cleanups(&self, proven_dead: &[CleanupRef]) -> Answer<()> {
        if !self.is(Sin::FreesTheNextHolder) {
            return self.inner.free_cleanups(proven_dead).await;
        }
        for dead in proven_dead {
            let worktrees = self
                .inner
                .worktrees(&WorktreeQuery::Run(dead.worktree.run))
                .await?;
            for site in worktrees.into_iter().map(|worktree| worktree.site) {
                let held = self
                    .inner
                    .cleanup_leases(&site.host, &site.git_repository)
                    .await?;
                let held: Vec<_> = held.iter().map(|held| held.cleanup).collect();
                self.inner.free_cleanups(&held).await?;
            }
        }
        Ok(())
    }

    async fn finish_cleanup(
        &self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Answer<Write<WorktreeRecord>> {
        self.inner.finish_cleanup(cleanup, outcome).await
    }
}

impl RunRepository for Broken {
    fn capabilities(&self) -> Capabilities {
        if self.is(Sin::DeclaresTooMuch) {
            return Capabilities::new(Durability::Full, Sharing::Process);
        }
        self.inner.capabilities()
    }
}
