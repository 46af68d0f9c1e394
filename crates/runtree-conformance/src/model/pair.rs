//! A backend and the model side by side: each step is made on both, and whatever they answer must be the same.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::num::NonZeroU32;

use runtree_repository::id::RunId;
use runtree_repository::time::{ManualClock, Timestamp};
use runtree_repository::{
    Actor, Annotation, CancelRequest, Claim, ClaimOf, CleanupClaim, CleanupOutcome, CleanupRef,
    Cost, CreateRun, Created, DynRunRepository, Ending, ErrorText, EventNumber, LeaseRef, Limit,
    NewRun, Outcome, Overdue, PageRequest, Persistence, Priority, Reason, Renewal, Rescue,
    Retention, RetryRun, Run, RunFilter, RunOrder, SalvageRef, Token, UsageChange, WaitingRuns,
    WorktreeQuery, WorktreeSite, Write,
};

use super::look::{self, Shows};
use super::names;
use super::step::{
    ClaimDraft, CleanedUp, CleanupDraft, Draft, IdPick, LeasePick, NoteDraft, RescueDraft,
    RetryDraft, RunPick, Said, Step, StopDraft, Wanted, When,
};
use super::timeless::Timeless;
use super::world::{Record, World};
use crate::backend::ClockSource;
use crate::context::{self, LONG, SHORT};
use crate::failure::{Checked, Failure};

/// After how many steps everything that can be seen is compared, beside at the end.
const LOOK_AROUND_EVERY: usize = 12;

/// The number of a run that nobody ever asks for.
const NOBODYS: u64 = 1 << 40;

/// How often each answer was given.
pub(super) type Tally = BTreeMap<String, u64>;

/// A backend and the model.
pub(super) struct Pair {
    world: World,
    source: ClockSource,
    /// The clock of a backend whose clock is passed to it.
    clock: ManualClock,
    runs: DynRunRepository,
    /// Another handle on the same namespace: what one writes the other reads.
    again: DynRunRepository,
    asked: Vec<CreateRun>,
    retried: Vec<RetryRun>,
    known: Vec<RunId>,
    leases: Vec<LeaseRef>,
    cleanups: Vec<CleanupRef>,
    fresh_ids: u64,
    pub(super) tally: Tally,
}

impl Pair {
    pub(super) fn new(
        source: ClockSource,
        clock: ManualClock,
        [runs, again]: [DynRunRepository; 2],
    ) -> Checked<Self> {
        use runtree_repository::time::Clock;
        let now = match source {
            ClockSource::Passed => clock.now(),
            ClockSource::Server => context::start()?,
        };
        Ok(Self {
            world: World::new(now),
            source,
            clock,
            runs,
            again,
            asked: Vec::new(),
            retried: Vec::new(),
            known: Vec::new(),
            leases: Vec::new(),
            cleanups: Vec::new(),
            fresh_ids: 0,
            tally: Tally::new(),
        })
    }

    pub(super) async fn run(&mut self, steps: &[Step]) -> Checked {
        for (number, step) in (1..).zip(steps) {
            let made = async {
                self.make(step).await?;
                if number % LOOK_AROUND_EVERY == 0 {
                    self.look_around().await?;
                }
                Ok::<_, Failure>(())
            };
            made.await
                .map_err(|failure| failure.after(&format!("step {number}, {step:?}")))?;
        }
        let looked = self.look_around().await;
        looked.map_err(|failure| failure.after("the last step"))
    }

    /// Makes a step on both.
    async fn make(&mut self, step: &Step) -> Checked {
        if self.source == ClockSource::Server {
            // The server's clock goes on by itself; how far, nothing depends on.
            self.world.now = self.world.now.saturating_add(SHORT);
        }
        match step {
            Step::Create(drafts) => self.create(drafts).await,
            Step::Repeat(of) => self.repeat(*of).await,
            Step::Claim(draft) => self.claim(draft).await,
            Step::Renew(of, time) => {
                let leases: Vec<LeaseRef> = of
                    .iter()
                    .map(|of| self.lease(*of))
                    .collect::<Checked<_>>()?;
                let time = names::lease_time(*time, self.source)?;
                let expected = self.world.renew(&leases, time.get());
                let seen = self.runs.renew(&leases, time).await?;
                for renewal in &expected {
                    let renewed = matches!(renewal, Renewal::Renewed { .. });
                    self.count("renew", if renewed { "renewed" } else { "lost" });
                }
                self.agree("the renewals", seen, expected)
            }
            Step::RecordChild(of) => {
                let (lease, child) = (self.lease(*of)?, names::process(77)?);
                let expected = self.world.record_child(lease, &child);
                let seen = self.runs.record_child(lease, &child).await?;
                self.write("record_child", seen, expected)
            }
            Step::WorktreeReady(of) => {
                let lease = self.lease(*of)?;
                let expected = self.world.worktree_ready(lease);
                let seen = self.runs.worktree_ready(lease).await?;
                self.write("worktree_ready", seen, expected)
            }
            Step::End(endings) => self.end(endings).await,
            Step::Release(of) => {
                let lease = self.lease(*of)?;
                let expected = self.world.release(lease);
                let seen = self.runs.release(lease).await?;
                self.write("release", seen, expected)
            }
            Step::Cancel(of, stop) => {
                let (id, request) = (self.id(*of)?, cancel_request(stop)?);
                let expected = self.world.cancel(id, &request);
                let seen = self.runs.cancel(id, &request).await?;
                self.write("cancel", seen, expected)
            }
            Step::ForceKill(of, stop) => {
                let (id, request) = (self.id(*of)?, cancel_request(stop)?);
                let expected = self.world.force_kill(id, &request);
                let seen = self.runs.force_kill(id, &request).await?;
                self.write("force_kill", seen, expected)
            }
            Step::Rescue(draft) => self.rescue(draft).await,
            Step::TimeOut(limit, grace) => {
                let overdue = Overdue {
                    limit: names::limit(*limit)?,
                    grace: names::duration(*grace),
                };
                let expected = self.world.time_out(&overdue);
                let seen = self.runs.time_out(&overdue).await?;
                for run in &expected {
                    self.count("time_out", run.status.as_str());
                }
                self.agree("the runs whose deadline had passed", seen, expected)
            }
            Step::Retry(draft) => self.retry(draft).await,
            Step::Annotate(of, note) => self.annotate(*of, note).await,
            Step::ClaimCleanups(draft) => self.claim_cleanups(draft).await,
            Step::FreeCleanups(of) => {
                let dead: Vec<CleanupRef> = of.iter().filter_map(|of| self.cleanup(*of)).collect();
                self.world.free_cleanups(&dead);
                self.runs.free_cleanups(&dead).await?;
                Ok(())
            }
            Step::FinishCleanup(of, how) => self.finish_cleanup(*of, *how).await,
            Step::DeleteEnded(before, limit) => {
                let retention = Retention {
                    ended_before: match (self.at(*before)?, self.source) {
                        (Some(at), _) => at,
                        (None, ClockSource::Passed) => self.world.now,
                        // What time it is there the model does not know.
                        (None, ClockSource::Server) => Timestamp::UNIX_EPOCH,
                    },
                    limit: names::limit(*limit)?,
                };
                let expected = self.world.delete_ended(&retention);
                let seen = self.runs.delete_ended(&retention).await?;
                for _ in &expected {
                    self.count("delete_ended", "deleted");
                }
                self.agree("the runs that were deleted", seen, expected)
            }
            Step::Look(filter, order, limit) => {
                let (filter, shows) = look::filter(filter, &self.world)?;
                self.look(&filter, &shows, *order, names::limit(*limit)?)
                    .await
            }
            Step::Pass(span) => {
                self.clock.advance(names::duration(*span));
                self.world.now = self.world.now.saturating_add(names::duration(*span));
                Ok(())
            }
        }
    }

    async fn create(&mut self, drafts: &[Draft]) -> Checked {
        let mut requests = Vec::new();
        for draft in drafts {
            let request = self.request(draft)?;
            self.known.push(request.id);
            self.asked.push(request.clone());
            requests.push(request);
        }
        let seen = match requests.as_slice() {
            [one] => vec![self.runs.create(one).await?],
            many => self.runs.create_many(many).await?,
        };
        let mut expected = Vec::new();
        for request in &requests {
            expected.push(self.world.create(request)?);
        }
        for created in &expected {
            self.count("create", created_word(created));
        }
        self.agree("the runs that were created", seen, expected)
    }

    /// Asks once more for what was asked for before.
    async fn repeat(&mut self, of: RunPick) -> Checked {
        if of.0 % 2 == 1
            && let Some(request) = self.retried.last().cloned()
        {
            return self.retry_as(&request).await;
        }
        let at = usize::from(of.0) % self.asked.len().max(1);
        let Some(request) = self.asked.get(at).cloned() else {
            return Ok(());
        };
        let expected = self.world.create(&request)?;
        let seen = self.runs.create(&request).await?;
        self.count("create", created_word(&expected));
        self.agree("a create that was repeated", seen, expected)
    }

    async fn claim(&mut self, draft: &ClaimDraft) -> Checked {
        let owner = names::owner(draft.owner)?;
        let waiting = WaitingRuns::ANY;
        let of = match &draft.of {
            Wanted::Any => ClaimOf::ANY,
            Wanted::Queue(queue) => ClaimOf::Waiting(waiting.queues([names::queue(*queue)?])),
            Wanted::Workflow(name) => {
                ClaimOf::Waiting(waiting.workflows([names::workflow(*name)?]))
            }
            Wanted::QueueAndWorkflow(queue, name) => {
                let waiting = waiting.queues([names::queue(*queue)?]);
                ClaimOf::Waiting(waiting.workflows([names::workflow(*name)?]))
            }
            Wanted::Run(of) => ClaimOf::Run(self.id(*of)?),
        };
        let site = if draft.site {
            Some(context::site(owner.host.as_str())?)
        } else {
            None
        };
        let claim = Claim {
            owner,
            lease_time: names::lease_time(draft.time, self.source)?,
            limit: names::limit(draft.limit)?,
            of,
            site,
        };
        let expected = self.world.claim(&claim)?;
        let seen = self.runs.claim(&claim).await?;
        for claimed in &expected {
            self.leases.push(claimed.lease);
            self.count(
                "claim",
                if claimed.lease.token == Token::new(1) {
                    "first"
                } else {
                    "again"
                },
            );
        }
        self.agree("the runs that were claimed", seen, expected)
    }

    async fn end(&mut self, endings: &[(LeasePick, Said)]) -> Checked {
        let mut of = Vec::new();
        for (lease, said) in endings {
            let lease = self.lease(*lease)?;
            let outcome = outcome(*said);
            of.push(Ending { lease, outcome });
        }
        let expected: Vec<Write<Run>> = of.iter().map(|ending| self.world.end(ending)).collect();
        for answer in &expected {
            self.count("end", write_word(answer));
        }
        if let [ending] = of.as_slice() {
            let seen = self.runs.end(ending.lease, &ending.outcome).await?;
            return self.agree("the ending", vec![seen], expected);
        }
        let expected = expected
            .into_iter()
            .map(|answer| answer.map(|run| run.summary));
        let seen = self.runs.end_many(&of).await?;
        self.agree("the endings", seen, expected.collect())
    }

    async fn rescue(&mut self, draft: &RescueDraft) -> Checked {
        let rescue = Rescue {
            proven_dead: draft
                .dead
                .iter()
                .map(|of| self.lease(*of))
                .collect::<Checked<_>>()?,
            limit: names::limit(draft.limit)?,
            spare: draft
                .spare
                .iter()
                .map(|of| self.id(*of))
                .collect::<Checked<_>>()?,
        };
        let mut expected = self.world.rescue(&rescue);
        let mut seen = self.runs.rescue(&rescue).await?;
        for rescued in &expected {
            self.count("rescue", rescued.run.status.as_str());
        }
        // In which order is not promised.
        expected.sort_by_key(|rescued| rescued.lease);
        seen.sort_by_key(|rescued| rescued.lease);
        self.agree("the runs that were rescued", seen, expected)
    }

    async fn retry(&mut self, draft: &RetryDraft) -> Checked {
        let id = self.new_id(draft.id)?;
        let request = RetryRun {
            of: self.id(draft.of)?,
            id,
            worktree: names::worktree(draft.needs, id)?,
            available_at: self.at(draft.available)?,
            deadline: self.at(draft.deadline)?,
        };
        self.known.push(id);
        self.retried.push(request.clone());
        self.retry_as(&request).await
    }

    async fn retry_as(&mut self, request: &RetryRun) -> Checked {
        let expected = self.world.retry(request);
        let seen = self.runs.retry(request).await?;
        if let Write::Applied(created) = &expected {
            self.count("retry into", created_word(created));
        }
        self.write("retry", seen, expected)
    }

    async fn annotate(&mut self, of: RunPick, note: &NoteDraft) -> Checked {
        let id = self.id(of)?;
        let annotation = annotation(note)?;
        if annotation == Annotation::new() {
            return Ok(());
        }
        let expected = self.world.annotate(id, &annotation);
        let seen = self.runs.annotate(id, &annotation).await?;
        self.write("annotate", seen, expected)
    }

    async fn claim_cleanups(&mut self, draft: &CleanupDraft) -> Checked {
        let owner = names::owner(draft.owner)?;
        let site = context::site(owner.host.as_str())?;
        let claim = CleanupClaim {
            owner,
            lease_time: names::lease_time(draft.time, self.source)?,
            limit: names::limit(draft.limit)?,
            host: site.host,
            git_repository: site.git_repository,
            run: draft.run.map(|of| self.id(of)).transpose()?,
        };
        let expected = self.world.claim_cleanups(&claim);
        let seen = self.runs.claim_cleanups(&claim).await?;
        for task in &expected {
            self.cleanups.push(task.cleanup);
            self.count(
                "claim_cleanups",
                if task.tries == 0 { "first" } else { "again" },
            );
        }
        self.agree("the clean-ups that were claimed", seen, expected)
    }

    async fn finish_cleanup(&mut self, of: u8, how: CleanedUp) -> Checked {
        let Some(cleanup) = self.cleanup(of) else {
            return Ok(());
        };
        let outcome = match how {
            CleanedUp::Removed(salvaged) => CleanupOutcome::Removed {
                salvage: salvaged
                    .then(|| SalvageRef::new("refs/salvage/1"))
                    .transpose()?,
            },
            CleanedUp::Kept => CleanupOutcome::Kept {
                reason: Reason::new("not safe")?,
            },
            CleanedUp::Postponed(span) => CleanupOutcome::Postponed {
                error: ErrorText::new("in use")?,
                retry_after: names::duration(span),
            },
        };
        let expected = self.world.finish_cleanup(cleanup, &outcome);
        let seen = self.runs.finish_cleanup(cleanup, &outcome).await?;
        self.write("finish_cleanup", seen, expected)
    }

    /// Compares a list, its count and its statistics.
    async fn look(
        &mut self,
        filter: &RunFilter,
        shows: &Shows,
        order: RunOrder,
        limit: Limit,
    ) -> Checked {
        let expected = self.world.pages(shows, order, limit);
        let mut page = PageRequest {
            limit,
            order,
            after: None,
        };
        let mut seen = Vec::new();
        // One page more than there should be, so that a list without an end shows too.
        while seen.len() <= expected.len() {
            let read = self.again.list(filter, &page).await?;
            seen.push(read.runs);
            page.after = read.next;
            if page.after.is_none() {
                break;
            }
        }
        self.count(
            "list",
            if expected.len() > 1 {
                "several pages"
            } else {
                "one page"
            },
        );
        let what = format!("the pages of {filter:?} in the order `{order}`");
        self.agree(&what, seen, expected)?;
        let count = u64::try_from(self.world.shown(shows).len()).unwrap_or(u64::MAX);
        self.agree(
            "the count of that list",
            self.again.count(filter).await?,
            count,
        )?;
        let statistics = self.world.statistics(shows);
        let seen = self.again.statistics(filter).await?;
        self.agree("the statistics of that list", seen, statistics)
    }

    /// Compares everything that can be seen, through the other handle.
    async fn look_around(&mut self) -> Checked {
        let all: Shows = Box::new(|_| true);
        self.look(&RunFilter::new(), &all, RunOrder::NEWEST_FIRST, Limit::MAX)
            .await?;
        let mut ids = self.known.clone();
        ids.sort();
        ids.dedup();
        for id in ids {
            self.look_at(id).await?;
        }
        for (key, run) in self.world.by_key() {
            let seen = self.again.get_by_key(key).await?;
            self.agree("the run of a key", seen, Some(run.clone()))?;
        }
        let mut seen = self.again.leases(None).await?;
        let mut leases = self.world.leases();
        seen.sort_by_key(|lease| lease.lease);
        leases.sort_by_key(|lease| lease.lease);
        self.agree("the leases", seen, leases)?;
        for host in 0..2 {
            let WorktreeSite {
                host,
                git_repository,
                ..
            } = context::site(names::host(host)?.as_str())?;
            let mut seen = self.again.cleanup_leases(&host, &git_repository).await?;
            let mut leases = self.world.cleanup_leases(&host, &git_repository);
            seen.sort_by_key(|lease| lease.cleanup.worktree);
            leases.sort_by_key(|lease| lease.cleanup.worktree);
            self.agree("the clean-ups that are held", seen, leases)?;
        }
        Ok(())
    }

    async fn look_at(&self, id: RunId) -> Checked {
        let record = self.world.record(id);
        let run = record.map(|record| record.run.clone());
        self.agree("the run", self.again.get(id).await?, run)?;
        let mut seen = self
            .again
            .events(id, EventNumber::START, Limit::MAX)
            .await?;
        // The detail is for people.
        seen.iter_mut().for_each(|event| event.detail = None);
        let events = record.map(Record::events).unwrap_or_default();
        self.agree(&format!("the events of {id}"), seen, events)?;
        let mut seen = self.again.worktrees(&WorktreeQuery::Run(id)).await?;
        let mut worktrees = record
            .map(|record| record.worktrees.clone())
            .unwrap_or_default();
        seen.sort_by_key(|worktree| worktree.key);
        worktrees.sort_by_key(|worktree| worktree.key);
        self.agree("the worktrees of the run", seen, worktrees)?;
        let seen = self.again.explain(id).await?;
        let expected = self.world.explain(id);
        if self.source == ClockSource::Passed {
            return same("the explanation", &seen, &expected);
        }
        let words = |because: &runtree_repository::Because| {
            let text = format!("{because:?}");
            text.split([' ', '{']).next().unwrap_or_default().to_owned()
        };
        let reasons = |explanation: Option<runtree_repository::Explanation>| {
            explanation.map(|it| it.because.iter().map(words).collect::<Vec<_>>())
        };
        same("the explanation", &reasons(seen), &reasons(expected))
    }

    fn agree<T: Debug + Timeless>(&self, what: &str, mut seen: T, mut expected: T) -> Checked {
        if self.source == ClockSource::Server {
            seen.forget_instants();
            expected.forget_instants();
        }
        same(what, &seen, &expected)
    }

    fn write<T: Debug + Timeless>(
        &mut self,
        act: &str,
        seen: Write<T>,
        expected: Write<T>,
    ) -> Checked {
        self.count(act, write_word(&expected));
        self.agree(&format!("the answer to {act}"), seen, expected)
    }

    fn count(&mut self, act: &str, answer: &str) {
        *self.tally.entry(format!("{act}: {answer}")).or_default() += 1;
    }

    fn id(&self, of: RunPick) -> Checked<RunId> {
        let there: Vec<RunId> = self
            .world
            .records
            .iter()
            .map(|record| record.run.id)
            .collect();
        let from = if of.0.is_multiple_of(8) {
            &self.known
        } else {
            &there
        };
        let at = usize::from(of.0) % from.len().max(1);
        match from.get(at) {
            Some(id) => Ok(*id),
            None => names::run_id(NOBODYS, self.source),
        }
    }

    fn new_id(&mut self, of: IdPick) -> Checked<RunId> {
        match of {
            IdPick::Of(of) => self.id(of),
            IdPick::Fresh => {
                self.fresh_ids += 1;
                names::run_id(self.fresh_ids, self.source)
            }
        }
    }

    fn lease(&self, of: LeasePick) -> Checked<LeaseRef> {
        let held: Vec<LeaseRef> = self
            .world
            .leases()
            .iter()
            .map(|lease| lease.lease)
            .collect();
        let (from, number) = match of {
            LeasePick::Held(number) if !held.is_empty() => (&held, number),
            LeasePick::Held(number) | LeasePick::Any(number) => (&self.leases, number),
        };
        let at = usize::from(number) % from.len().max(1);
        match from.get(at) {
            Some(lease) => Ok(*lease),
            None => Ok(LeaseRef {
                run: self.id(RunPick(number))?,
                token: Token::new(1),
            }),
        }
    }

    /// A clean-up that was given out once; the young ones come first.
    fn cleanup(&self, of: u8) -> Option<CleanupRef> {
        let at = usize::from(of) % self.cleanups.len().max(1);
        self.cleanups.iter().rev().nth(at).copied()
    }

    fn at(&self, when: When) -> Checked<Option<Timestamp>> {
        let year = |year: &str| {
            let text = format!("{year}-01-01T00:00:00Z");
            text.parse::<Timestamp>()
                .map_err(|e| Failure::new(e.to_string()))
        };
        let now = self.world.now;
        Ok(match (when, self.source) {
            (When::Unset, _) => None,
            (When::Past, ClockSource::Passed) => Some(now.saturating_sub(LONG)),
            (When::Late, ClockSource::Passed) => Some(now.saturating_add(LONG)),
            (When::Soon, ClockSource::Passed) => Some(now.saturating_add(SHORT)),
            (When::Past, ClockSource::Server) => Some(year("2000")?),
            (When::Soon | When::Late, ClockSource::Server) => Some(year("9000")?),
        })
    }

    fn request(&mut self, draft: &Draft) -> Checked<CreateRun> {
        let id = self.new_id(draft.id)?;
        let mut run = NewRun::new(names::workflow(draft.workflow)?)
            .queue(names::queue(draft.queue)?)
            .priority(Priority::new(draft.priority))
            .max_attempts(names::count(draft.attempts)?);
        if let Some(key) = draft.idempotency_key {
            run = run.idempotency_key(format!("key-{key}"));
        }
        if let Some(key) = draft.unique_key {
            run = run.unique_key(format!("unique-{key}"));
        }
        if let Some((key, limit)) = draft.concurrency {
            let limit = NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
            run = run.concurrency(format!("slot-{key}"), limit);
        }
        for tag in &draft.tags {
            run = run.tag(names::tag(*tag)?);
        }
        if let Some(user) = draft.user {
            run = run.user(names::user(user)?);
        }
        if let Some((key, value)) = draft.metadata {
            run = run.metadata(names::member(key), value);
        }
        if let Some(at) = self.at(draft.available)? {
            run = run.available_at(at);
        }
        if let Some(at) = self.at(draft.deadline)? {
            run = run.deadline(at);
        }
        let worktree = names::worktree(draft.needs, id)?;
        if worktree
            .as_ref()
            .is_some_and(|it| it.persistence == Persistence::Persistent)
        {
            run = run.persistent();
        }
        Ok(CreateRun { id, run, worktree })
    }
}

fn outcome(said: Said) -> Outcome {
    match said {
        Said::Completed(result) => Outcome::Completed {
            result: result.map(serde_json::Value::from),
        },
        Said::Failed(retry_after) => Outcome::Failed {
            error: ErrorText::lossy("it failed"),
            retry_after: retry_after.map(names::duration),
        },
        Said::Killed => Outcome::Killed,
    }
}

fn cancel_request(stop: &StopDraft) -> Checked<CancelRequest> {
    let reason = stop
        .reason
        .map(|number| Reason::new(format!("reason {number}")));
    let by = stop.by.map(|number| Actor::new(format!("actor-{number}")));
    Ok(CancelRequest {
        mode: stop.mode,
        reason: reason.transpose()?,
        by: by.transpose()?,
        grace: stop.grace.map(names::duration),
    })
}

fn annotation(note: &NoteDraft) -> Checked<Annotation> {
    let mut annotation = Annotation::new();
    if let Some(tag) = note.add {
        annotation = annotation.add_tag(names::tag(tag)?);
    }
    if let Some(tag) = note.remove {
        annotation = annotation.remove_tag(names::tag(tag)?);
    }
    match note.member {
        Some((key, Some(value))) => annotation = annotation.metadata(names::member(key), value),
        Some((key, None)) => annotation = annotation.remove_metadata(names::member(key)),
        None => {}
    }
    if let Some((is_more, number)) = note.usage {
        let usage = runtree_repository::Usage {
            input_tokens: u64::from(number),
            output_tokens: u64::from(number) * 3,
            cost: Cost::from_micros(u64::from(number) * 5),
        };
        annotation.usage = if is_more {
            UsageChange::Add(usage)
        } else {
            UsageChange::Set(usage)
        };
    }
    if note.commits {
        annotation.last_commit = runtree_repository::Change::Set(names::commit(2)?);
    }
    Ok(annotation)
}

fn created_word(created: &Created) -> &'static str {
    match created {
        Created::New(_) => "new",
        Created::Existing(_) => "existing",
        Created::Conflict { over, .. } => over.as_str(),
    }
}

fn write_word<T>(write: &Write<T>) -> &'static str {
    match write {
        Write::Applied(_) => "applied",
        Write::Already(_) => "already",
        Write::Stale { .. } => "stale",
        Write::NotFound => "not found",
    }
}

/// Compares what both show of themselves, and names the lines that differ.
fn same(what: &str, seen: &impl Debug, expected: &impl Debug) -> Checked {
    const MOST: usize = 12;
    if format!("{seen:?}") == format!("{expected:?}") {
        return Ok(());
    }
    let (seen, expected) = (format!("{seen:#?}"), format!("{expected:#?}"));
    let pairs = expected.lines().zip(seen.lines());
    let differing = pairs.filter(|(expected, seen)| expected != seen).take(MOST);
    let lines = differing.map(|(expected, seen)| {
        format!(
            "\n  expected {}\n  saw      {}",
            expected.trim(),
            seen.trim()
        )
    });
    let lines: String = lines.collect();
    let (long, short) = (expected.lines().count(), seen.lines().count());
    Err(Failure::new(format!(
        "{what} must be what the model says ({long} lines expected, {short} seen):{lines}"
    )))
}
