//! How a history ends: every run is brought to its end, and what the store then shows is gathered for the checker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtree_repository::id::{IdGenerator, RunId};
use runtree_repository::status::RunStatus;
use runtree_repository::{
    ClaimOf, CleanupClaim, DynRunRepository, EventNumber, LeaseTime, Limit, Outcome, Overdue,
    PageRequest, Persistence, Rescue, RunFilter, RunSummary,
};
use runtree_testkit::history::{
    Answer, Call, EndedBy, FinalEvent, FinalRun, Instants, Recorder, monotonic_nanos,
};

use super::worker::{answer_of, claim, claim_answer, held, owner, site};

/// Rescues, times out, claims and completes until every run has ended, and records that too.
pub(crate) async fn finish(runs: &DynRunRepository, recorder: &Recorder) {
    let deadline = monotonic_nanos() + 120_000_000_000;
    let open = RunFilter::new().statuses([RunStatus::Pending, RunStatus::Running]);
    loop {
        let rescue = Rescue {
            limit: Limit::MAX,
            ..Rescue::default()
        };
        let proven_dead = Vec::new();
        let called = recorder.call(Call::Rescue { proven_dead });
        let rescued = runs.rescue(&rescue).await.unwrap();
        let taken = rescued.iter().map(|rescued| held(rescued.lease)).collect();
        recorder.answer(called, Answer::Rescued { held: taken });
        let called = recorder.call(Call::TimeOut);
        let overdue = Overdue {
            limit: Limit::MAX,
            grace: Duration::ZERO,
        };
        let timed_out = runs.time_out(&overdue).await.unwrap();
        let timed_out = timed_out.iter().map(|run| run.id).collect();
        recorder.answer(called, Answer::TimedOut { runs: timed_out });
        let claim = claim(ClaimOf::ANY);
        let called = recorder.call(Call::Claim {
            owner: claim.owner.id.to_string(),
            lease: claim.lease_time.get(),
        });
        let claimed = runs.claim(&claim).await;
        recorder.answer(called, claim_answer(&claimed));
        for claimed in claimed.unwrap() {
            let (held, outcome) = (held(claimed.lease), EndedBy::Completed);
            let called = recorder.call(Call::End { held, outcome });
            let completed = Outcome::Completed { result: None };
            let ended = runs.end(claimed.lease, &completed).await;
            recorder.answer(called, answer_of(ended));
        }
        let left = runs.count(&open).await.unwrap();
        if left == 0 {
            return;
        }
        assert!(monotonic_nanos() < deadline, "{left} runs never end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads everything that the store shows.
pub(crate) async fn stored(runs: &DynRunRepository) -> Vec<FinalRun> {
    let cleanups = wanted_cleanups(runs).await;
    let mut stored = Vec::new();
    let mut page = PageRequest {
        limit: Limit::MAX,
        ..PageRequest::default()
    };
    loop {
        let found = runs.list(&RunFilter::new(), &page).await.unwrap();
        let mut reading = Vec::new();
        for summary in found.runs {
            let wanted = cleanups.get(&summary.id).copied().unwrap_or_default();
            reading.push(tokio::spawn(stored_run(runs.clone(), summary, wanted)));
        }
        for read in reading {
            stored.push(read.await.unwrap());
        }
        match found.next {
            Some(next) => page.after = Some(next),
            None => return stored,
        }
    }
}

/// Takes all clean-ups, which are then nobody else's; how many each run has.
async fn wanted_cleanups(runs: &DynRunRepository) -> BTreeMap<RunId, usize> {
    let mut wanted: BTreeMap<RunId, usize> = BTreeMap::new();
    let here = site();
    let claim = CleanupClaim {
        owner: owner(),
        lease_time: LeaseTime::new(Duration::from_secs(86_400)).unwrap(),
        limit: Limit::MAX,
        host: here.host,
        git_repository: here.git_repository,
        run: None,
    };
    loop {
        let tasks = runs.claim_cleanups(&claim).await.unwrap();
        if tasks.is_empty() {
            return wanted;
        }
        for task in tasks {
            *wanted.entry(task.worktree.key.run).or_default() += 1;
        }
    }
}

async fn stored_run(runs: DynRunRepository, summary: RunSummary, cleanups: usize) -> FinalRun {
    assert!(cleanups <= 1, "{} is to be cleaned up twice", summary.id);
    let whole = runs.get(summary.id).await.unwrap().unwrap();
    let mut events = Vec::new();
    let mut after = EventNumber::START;
    loop {
        let more = runs.events(summary.id, after, Limit::MAX).await.unwrap();
        let Some(last) = more.last() else {
            break;
        };
        after = last.number;
        events.extend(more);
    }
    let events = events.into_iter().map(|event| {
        let detail = |name: &str| {
            let detail = event.detail.as_ref()?.get(name)?;
            Some(detail.as_str()?.to_owned())
        };
        FinalEvent {
            number: event.number.get(),
            at: event.at.as_unix_micros(),
            kind: event.kind.to_string(),
            token: event.token.get(),
            owner: detail("owner"),
            retried_as: detail("run").map(|run| run.parse().unwrap()),
        }
    });
    let micros = |at: runtree_repository::time::Timestamp| at.as_unix_micros();
    FinalRun {
        id: summary.id,
        status: summary.status.to_string(),
        has_ended: summary.has_ended(),
        token: summary.token.get(),
        idempotency_key: summary
            .idempotency_key
            .as_ref()
            .map(|key| key.as_str().to_owned()),
        retry_of: summary.retry_of,
        needs_worktree: summary
            .worktree
            .as_ref()
            .is_some_and(|wanted| wanted.persistence == Persistence::Temporary),
        is_cleanup_wanted: cleanups > 0,
        instants: Instants {
            created: micros(summary.created_at),
            started: summary.started_at.map(micros),
            ended: summary.ended_at.map(micros),
            updated: micros(whole.updated_at),
        },
        metadata: whole.metadata.keys().cloned().collect::<BTreeSet<_>>(),
        events: events.collect(),
    }
}

/// An id of a run that nobody has.
pub(super) fn new_run_id() -> RunId {
    IdGenerator::system().run_id().unwrap()
}
