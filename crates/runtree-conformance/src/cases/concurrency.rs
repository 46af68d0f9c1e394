//! Concurrency keys: never more runs than may, counted from live leases, and nobody else is held up.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::{
    ClaimOf, Claimed, Ending, LeaseRef, LeaseTime, Limit, NewRun, Outcome, Overdue, Priority,
    Renewal, Run, RunFilter, WaitingRuns,
};

use crate::cases::create::TEXT;
use crate::context::{
    Cx, LONG, SHORT, again_while_busy, completed, distinct, failed, failed_for_now, forced, only,
    together,
};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn a_batch_takes_no_more_than_may_run(cx: Cx) -> Checked {
    let runs = in_order(&cx, (0..5).map(|_| limited("builder", "gpu", 2))).await?;
    ensure_eq!(
        ids(&cx.claim_all().await?)?,
        set(&runs[..2]),
        "the first two of five"
    );
    ensure_eq!(
        ids(&cx.claim_all().await?)?,
        BTreeSet::new(),
        "while two run"
    );
    for run in &runs[2..] {
        let status = cx.get(run.id).await?.status;
        ensure_eq!(
            status,
            RunStatus::Pending,
            "the status of a run that must wait"
        );
    }
    Ok(())
}

pub(crate) async fn every_end_of_an_attempt_frees_its_place(cx: Cx) -> Checked {
    let retry = failed_for_now("again", LONG);
    let ways = 9;
    for way in 0..ways {
        let run = limited("builder", "gpu", 1).max_attempts(NonZeroU32::MAX);
        let claimed = cx.running(run).await?;
        let lease = claimed.lease;
        let next = cx.create(limited("next", "gpu", 1)).await?;
        ensure!(
            is_blocked(&cx, next.id).await?,
            "while the place is taken (way {way})"
        );
        match way {
            0 => drop(
                cx.runs
                    .end(lease, &completed())
                    .await?
                    .applied("a completion")?,
            ),
            1 => drop(
                cx.runs
                    .end(lease, &failed("no"))
                    .await?
                    .applied("a failure")?,
            ),
            2 => drop(
                cx.runs
                    .end(lease, &retry)
                    .await?
                    .applied("a failure for now")?,
            ),
            3 => drop(
                cx.runs
                    .end(lease, &Outcome::Killed)
                    .await?
                    .applied("a stop")?,
            ),
            4 => drop(
                cx.runs
                    .force_kill(lease.run, &forced())
                    .await?
                    .applied("a kill")?,
            ),
            5 => drop(only(cx.rescue_dead(lease).await?, "a rescue")?),
            6 => {
                let outcome = completed();
                let ended = cx.runs.end_many(&[Ending { lease, outcome }]).await?;
                drop(only(ended, "an ending of many")?.applied("it")?);
            }
            7 => drop(cx.runs.release(lease).await?.applied("a release")?),
            _ => time_out(&cx, lease).await?,
        }
        let claimed = cx.claim(next.id).await?;
        cx.runs
            .end(claimed.lease, &completed())
            .await?
            .applied("a completion")?;
        // What waits again is out of the way of the next round.
        cx.runs.cancel(lease.run, &forced()).await?.accepted();
    }
    Ok(())
}

pub(crate) async fn an_expired_holder_frees_its_place_before_it_is_rescued(cx: Cx) -> Checked {
    let first = cx.create(limited("builder", "gpu", 1)).await?;
    let next = cx.create(limited("builder", "gpu", 1)).await?;
    let last = cx.create(limited("builder", "gpu", 1)).await?;
    let claimed = cx.claim_for(first.id, SHORT).await?;
    cx.wait_until(claimed.expires_at).await?;
    let taken = cx.claim(next.id).await?;
    ensure!(is_blocked(&cx, last.id).await?, "the place is taken again");
    cx.rescue_expired().await?;
    ensure!(
        is_blocked(&cx, last.id).await?,
        "a rescue frees no place of another"
    );
    cx.runs
        .end(taken.lease, &completed())
        .await?
        .applied("a completion")?;
    cx.claim(last.id).await?;
    Ok(())
}

pub(crate) async fn a_renewed_holder_keeps_its_place(cx: Cx) -> Checked {
    let first = cx.create(limited("builder", "gpu", 1)).await?;
    let next = cx.create(limited("builder", "gpu", 1)).await?;
    // Long enough to be renewed in time on a busy machine, short enough to be waited for.
    let claimed = cx.claim_for(first.id, Duration::from_secs(1)).await?;
    let renewed = cx
        .runs
        .renew(&[claimed.lease], LeaseTime::new(LONG)?)
        .await?;
    ensure!(
        matches!(renewed[..], [Renewal::Renewed { .. }]),
        "the first lease could be prolonged"
    );
    cx.wait_until(claimed.expires_at).await?;
    ensure!(
        is_blocked(&cx, next.id).await?,
        "the first lease was prolonged"
    );
    Ok(())
}

pub(crate) async fn each_run_is_measured_by_its_own_limit(cx: Cx) -> Checked {
    let runs = in_order(
        &cx,
        [3, 1, 3, 2, 4, 3].map(|limit| limited("builder", "gpu", limit)),
    )
    .await?;
    // In order: one runs; 1 is too few; two run; 2 is too few; three run; 3 is too few.
    let expected = set(&[runs[0].clone(), runs[2].clone(), runs[4].clone()]);
    ensure_eq!(
        ids(&cx.claim_all().await?)?,
        expected,
        "one batch of runs with limits of their own"
    );
    let wide = cx.create(limited("builder", "gpu", 5)).await?;
    ensure!(
        is_blocked(&cx, runs[3].id).await?,
        "two may run, and three do"
    );
    cx.claim(wide.id).await?;
    Ok(())
}

pub(crate) async fn other_keys_and_runs_without_one_are_not_held_up(cx: Cx) -> Checked {
    let taken = cx.create(limited("builder", "gpu", 1)).await?;
    cx.claim(taken.id).await?;
    let blocked = cx.create(limited("builder", "gpu", 1)).await?;
    let mut free = vec![cx.create(NewRun::new("builder")).await?];
    for key in ["gpu ", "GPU", "gp%", "gp_", TEXT] {
        free.push(cx.create(limited("builder", key, 1)).await?);
    }
    ensure_eq!(
        ids(&cx.claim_all().await?)?,
        set(&free),
        "all but those of the same key"
    );
    ensure!(is_blocked(&cx, blocked.id).await?, "that one waits");
    Ok(())
}

pub(crate) async fn runs_that_must_wait_do_not_hold_up_those_behind_them(cx: Cx) -> Checked {
    let first = cx.create(limited("builder", "gpu", 1)).await?;
    cx.claim(first.id).await?;
    // More of them than any look-ahead that is a small multiple of the limit.
    let blocked = (0..300).map(|_| limited("builder", "gpu", 1).priority(Priority::CRITICAL));
    cx.create_many(blocked).await?;
    let behind = in_order(&cx, (0..2).map(|_| NewRun::new("builder"))).await?;
    let other = cx
        .create(limited("builder", "cpu", 1).priority(Priority::LOW))
        .await?;
    let mut claim = cx.claim_of(ClaimOf::ANY)?;
    claim.limit = Limit::ONE;
    for expected in [&behind[0], &behind[1], &other] {
        let claimed = only(
            cx.runs.claim(&claim).await?,
            "a claim behind 300 that must wait",
        )?;
        ensure_eq!(claimed.lease.run, expected.id, "the next run that may");
    }
    ensure_eq!(
        ids(&cx.runs.claim(&claim).await?)?,
        BTreeSet::new(),
        "what is left"
    );
    Ok(())
}

pub(crate) async fn a_claim_of_one_run_keeps_to_the_limit(cx: Cx) -> Checked {
    let runs = in_order(&cx, (0..3).map(|_| limited("builder", "gpu", 2))).await?;
    cx.claim(runs[0].id).await?;
    cx.claim(runs[1].id).await?;
    ensure!(
        is_blocked(&cx, runs[2].id).await?,
        "two may run, and two do"
    );
    Ok(())
}

pub(crate) async fn a_limit_holds_across_queues_and_workflows_not_across_namespaces(
    cx: Cx,
) -> Checked {
    let first = cx
        .create(limited("builder", "gpu", 1).queue("fast"))
        .await?;
    let next = cx.create(limited("review", "gpu", 1).queue("slow")).await?;
    cx.claim(first.id).await?;
    let slow = WaitingRuns::ANY.queues(["slow".parse()?]);
    let claim = cx.claim_of(ClaimOf::Waiting(slow))?;
    ensure_eq!(
        ids(&cx.runs.claim(&claim).await?)?,
        BTreeSet::new(),
        "of another queue"
    );
    ensure!(is_blocked(&cx, next.id).await?, "by its id");
    let other = cx.open_namespace("tenant").await?;
    let request = cx.request(limited("builder", "gpu", 1))?;
    other.create(&request).await?.into_run()?;
    let claimed = other.claim(&cx.claim_of(ClaimOf::ANY)?).await?;
    ensure_eq!(
        ids(&claimed)?,
        BTreeSet::from([request.id]),
        "of another namespace, where nothing runs"
    );
    Ok(())
}

pub(crate) async fn a_limit_beyond_any_count_never_holds_up(cx: Cx) -> Checked {
    let runs = (0..5).map(|_| limited("builder", "gpu", u32::MAX));
    let runs = cx.create_many(runs).await?;
    ensure_eq!(
        ids(&cx.claim_all().await?)?,
        set(&runs),
        "the runs that may all run"
    );
    Ok(())
}

pub(crate) async fn concurrent_claimers_never_exceed_a_limit(cx: Cx) -> Checked {
    const MAY: u32 = 3;
    let runs = cx
        .create_many((0..24).map(|_| limited("builder", "gpu", MAY)))
        .await?;
    let other = cx.open_again().await?;
    for round in 0..5_usize {
        let mut tasks = Vec::new();
        for n in 0..8_usize {
            let handle = if n % 2 == 0 {
                cx.runs.clone()
            } else {
                other.clone()
            };
            // Some ask for whatever waits, the others for one run each.
            let of = if n < 4 {
                ClaimOf::ANY
            } else {
                ClaimOf::Run(runs[(round * 5 + n * 3) % runs.len()].id)
            };
            let mut claim = cx.claim_of(of)?;
            claim.limit = Limit::new(2)?;
            tasks.push(async move { again_while_busy(|| handle.claim(&claim)).await });
        }
        let mut held = Vec::new();
        for answer in together(tasks).await? {
            held.extend(answer?);
        }
        ensure!(
            held.len() <= 3,
            "three may run, and {} claims were granted",
            held.len()
        );
        // An empty answer while others hold locks is allowed; with nobody in the way, all places are taken.
        held.extend(cx.claim_all().await?);
        ensure_eq!(held.len(), 3, "the runs that run when everybody has asked");
        ensure_eq!(
            running(&cx).await?,
            ids(&held)?,
            "the runs that are seen to run"
        );
        for claimed in held {
            cx.runs.release(claimed.lease).await?.applied("a release")?;
        }
    }
    Ok(())
}

pub(crate) async fn a_place_that_is_freed_while_others_ask_is_given_once(cx: Cx) -> Checked {
    cx.create_many((0..20).map(|_| limited("builder", "gpu", 2)))
        .await?;
    let other = cx.open_again().await?;
    let mut done = Vec::new();
    let mut held = cx.claim_all().await?;
    while !held.is_empty() {
        let freed: Vec<LeaseRef> = held.iter().map(|claimed| claimed.lease).collect();
        let mut tasks = Vec::new();
        for n in 0..6 {
            let handle = if n % 2 == 0 {
                cx.runs.clone()
            } else {
                other.clone()
            };
            let claim = cx.claim_of(ClaimOf::ANY)?;
            let freed = freed.clone();
            tasks.push(async move {
                let done = completed();
                if let Some(lease) = freed.get(n) {
                    let ended = again_while_busy(|| handle.end(*lease, &done)).await?;
                    ended.accepted();
                }
                again_while_busy(|| handle.claim(&claim)).await
            });
        }
        let mut next = Vec::new();
        for answer in together(tasks).await? {
            next.extend(answer?);
        }
        ensure!(
            next.len() <= 2,
            "two may run, and {} claims were granted",
            next.len()
        );
        done.extend(freed.iter().map(|lease| lease.run));
        next.extend(cx.claim_all().await?);
        ensure!(next.len() <= 2, "two may run, and {} do", next.len());
        held = next;
    }
    ensure_eq!(
        distinct(done, "the runs that ran")?.len(),
        20,
        "the runs that ran"
    );
    Ok(())
}

/// A run that uses something which only so many may use.
fn limited(workflow: &str, key: &str, limit: u32) -> NewRun {
    let limit = NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
    NewRun::new(workflow).concurrency(key, limit)
}

/// Creates runs one after the other, each younger than the last.
async fn in_order(cx: &Cx, runs: impl IntoIterator<Item = NewRun>) -> Checked<Vec<Run>> {
    let mut created = Vec::new();
    for run in runs {
        created.push(cx.create(run).await?);
        cx.pass(Duration::from_micros(1)).await?;
    }
    Ok(created)
}

async fn is_blocked(cx: &Cx, id: RunId) -> Checked<bool> {
    let by_id = cx.runs.claim(&cx.claim_of(ClaimOf::Run(id))?).await?;
    Ok(by_id.is_empty() && cx.get(id).await?.status == RunStatus::Pending)
}

/// Ends a running run for its deadline, which it gets by way of a retry: the limit must not mind how a run ends.
async fn time_out(cx: &Cx, lease: LeaseRef) -> Checked {
    cx.runs
        .end(lease, &completed())
        .await?
        .applied("a completion")?;
    let past = cx.runs.now().await?.saturating_sub(Duration::from_secs(1));
    let holder = cx
        .create(limited("builder", "gpu", 1).deadline(past))
        .await?;
    cx.claim(holder.id).await?;
    let overdue = Overdue {
        limit: Limit::MAX,
        grace: Duration::ZERO,
    };
    for _ in 0..2 {
        let changed = cx.runs.time_out(&overdue).await?;
        ensure_eq!(
            changed.len(),
            1,
            "the runs that a look at deadlines changes"
        );
    }
    if cx.get(holder.id).await?.has_ended() {
        Ok(())
    } else {
        Err(Failure::new(
            "a run is ended for its deadline by the second look",
        ))
    }
}

async fn running(cx: &Cx) -> Checked<BTreeSet<RunId>> {
    let running = RunFilter::new().statuses([RunStatus::Running]);
    Ok(cx.ids(&running).await?.into_iter().collect())
}

fn ids(claimed: &[Claimed]) -> Checked<BTreeSet<RunId>> {
    let ids = claimed.iter().map(|claimed| claimed.lease.run).collect();
    distinct(ids, "the runs that were claimed")
}

fn set(runs: &[Run]) -> BTreeSet<RunId> {
    runs.iter().map(|run| run.id).collect()
}
