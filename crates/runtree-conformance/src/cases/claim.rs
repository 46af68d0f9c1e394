//! One owner: which runs a claim takes, in which order, and that nobody else gets them.

use std::collections::BTreeSet;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::{
    ClaimOf, Claimed, CreateRun, EventKind, LeaseTime, Limit, MAX_FILTER_VALUES, NewRun,
    Persistence, Priority, QueueName, RunFilter, Token, WaitingRuns, WorkflowName,
};
use serde_json::json;

use crate::context::{
    BRIEF, Cx, HOST, completed, distinct, failed_for_now, graceful, only, together, with_attempts,
};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq, ensure_invalid};

pub(crate) async fn a_claim_gives_the_run_to_its_owner(cx: Cx) -> Checked {
    let run = cx
        .create(NewRun::new("builder").input("x").metadata("k", 1))
        .await?;
    let mut claim = cx.claim_of(ClaimOf::ANY)?;
    claim.lease_time = LeaseTime::new(Duration::from_millis(60_001))?;
    let before = cx.runs.now().await?;
    let claimed = only(cx.runs.claim(&claim).await?, "a claim of the only run")?;
    let after = cx.runs.now().await?;

    ensure_eq!(claimed.lease.run, run.id, "the run of the lease");
    ensure_eq!(claimed.lease.token, Token::NONE.next(), "the first token");
    ensure_eq!(
        claimed.run.token,
        claimed.lease.token,
        "the token of the run"
    );
    ensure_eq!(claimed.run.status, RunStatus::Running, "the status");
    ensure_eq!(claimed.run.attempts, 1, "the attempts");
    ensure_eq!(claimed.run.owner, Some(claim.owner), "the owner");
    ensure_eq!(
        claimed.run.lease_expires_at,
        Some(claimed.expires_at),
        "when the lease ends"
    );
    ensure_eq!(
        claimed.worktree,
        None,
        "the worktree of a run that needs none"
    );
    let lease_time = claim.lease_time.get();
    ensure!(
        before.saturating_add(lease_time) <= claimed.expires_at
            && claimed.expires_at <= after.saturating_add(lease_time),
        "a lease of {lease_time:?} taken between {before} and {after} ends at {}",
        claimed.expires_at
    );
    ensure!(
        claimed
            .run
            .started_at
            .is_some_and(|at| before <= at && at <= after),
        "a run started between {before} and {after} says {:?}",
        claimed.run.started_at
    );
    ensure_eq!(claimed.run.input, run.input, "the input of the claimed run");
    ensure_eq!(
        cx.get(run.id).await?,
        claimed.run,
        "what is read is what the claim answered"
    );
    let events = cx.events(run.id).await?;
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
    ensure_eq!(
        kinds,
        [EventKind::Created, EventKind::Claimed],
        "the history"
    );
    ensure_eq!(
        events.last().map(|event| event.token),
        Some(claimed.lease.token),
        "the token of the claim's event"
    );
    Ok(())
}

pub(crate) async fn the_highest_priority_goes_first_then_the_oldest(cx: Cx) -> Checked {
    let mut created = Vec::new();
    for priority in [0, 200, -200, 100, 0, 200, -1] {
        let run = cx
            .create(NewRun::new("builder").priority(Priority::new(priority)))
            .await?;
        created.push(run);
        cx.pass(Duration::from_micros(1)).await?;
    }
    created.sort_by_key(|run| (std::cmp::Reverse(run.priority), run.created_at));
    for expected in created {
        let mut claim = cx.claim_of(ClaimOf::ANY)?;
        claim.limit = Limit::ONE;
        let claimed = only(cx.runs.claim(&claim).await?, "a claim of one run")?;
        ensure_eq!(
            claimed.run.id,
            expected.id,
            "the next run, of the priority {}",
            expected.priority.get()
        );
    }
    ensure_eq!(
        claimed_ids(&cx.claim_all().await?),
        [],
        "what is left to claim"
    );
    Ok(())
}

pub(crate) async fn runs_of_one_instant_go_in_the_order_of_their_ids(cx: Cx) -> Checked {
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(cx.run_id()?);
    }
    for id in ids.iter().rev() {
        let request = CreateRun {
            id: *id,
            run: NewRun::new("builder"),
            worktree: None,
        };
        cx.create_new(&request).await?;
    }
    for id in ids {
        let mut claim = cx.claim_of(ClaimOf::ANY)?;
        claim.limit = Limit::ONE;
        let claimed = only(cx.runs.claim(&claim).await?, "a claim of one run")?;
        ensure_eq!(claimed.run.id, id, "the next run of the same instant");
    }
    Ok(())
}

pub(crate) async fn a_batch_takes_the_first_in_order(cx: Cx) -> Checked {
    let mut ordinary = Vec::new();
    for _ in 0..3 {
        ordinary.push(cx.create(NewRun::new("builder")).await?.id);
        cx.pass(Duration::from_micros(1)).await?;
    }
    let urgent = cx
        .create(NewRun::new("builder").priority(Priority::HIGH))
        .await?
        .id;
    let mut claim = cx.claim_of(ClaimOf::ANY)?;
    claim.limit = Limit::new(2)?;
    let first: BTreeSet<RunId> = claimed_ids(&cx.runs.claim(&claim).await?)
        .into_iter()
        .collect();
    ensure_eq!(
        first,
        BTreeSet::from([urgent, ordinary[0]]),
        "the first two in order"
    );
    let rest: BTreeSet<RunId> = claimed_ids(&cx.runs.claim(&claim).await?)
        .into_iter()
        .collect();
    ensure_eq!(
        rest,
        BTreeSet::from([ordinary[1], ordinary[2]]),
        "the next two in order"
    );
    Ok(())
}

pub(crate) async fn a_claim_takes_at_most_its_limit(cx: Cx) -> Checked {
    for _ in 0..5 {
        cx.create(NewRun::new("builder")).await?;
    }
    let mut claim = cx.claim_of(ClaimOf::ANY)?;
    claim.limit = Limit::new(3)?;
    ensure_eq!(
        cx.runs.claim(&claim).await?.len(),
        3,
        "runs taken by a claim of three of five"
    );
    ensure_eq!(
        cx.runs.claim(&claim).await?.len(),
        2,
        "runs taken by a claim of three of two"
    );
    ensure_eq!(
        cx.runs.claim(&claim).await?.len(),
        0,
        "runs taken by a claim when none wait"
    );
    Ok(())
}

pub(crate) async fn a_run_that_is_not_due_is_not_claimed(cx: Cx) -> Checked {
    let due = cx.runs.now().await?.saturating_add(BRIEF);
    let run = cx.create(NewRun::new("builder").available_at(due)).await?;
    ensure_eq!(
        claimed_ids(&cx.claim_all().await?),
        [],
        "what is claimed before it is due"
    );
    let by_id = cx.runs.claim(&cx.claim_of(ClaimOf::Run(run.id))?).await?;
    ensure_eq!(
        claimed_ids(&by_id),
        [],
        "what is claimed by its id before it is due"
    );
    cx.wait_until(due).await?;
    ensure_eq!(
        claimed_ids(&cx.claim_all().await?),
        [run.id],
        "what is claimed at the instant it is due"
    );
    Ok(())
}

pub(crate) async fn a_run_that_somebody_cancelled_is_not_claimed(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    cx.runs
        .cancel(run.id, &graceful())
        .await?
        .applied("a cancel")?;
    ensure_eq!(
        claimed_ids(&cx.claim_all().await?),
        [],
        "what is claimed after a cancel"
    );
    Ok(())
}

pub(crate) async fn a_run_that_runs_or_has_ended_is_not_claimed(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(5)?).await?;
    ensure_eq!(
        claimed_ids(&cx.claim_all().await?),
        [],
        "what is claimed beside a running run"
    );
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure_eq!(
        claimed_ids(&cx.claim_all().await?),
        [],
        "what is claimed after the run has ended"
    );
    let by_id = cx
        .runs
        .claim(&cx.claim_of(ClaimOf::Run(claimed.lease.run))?)
        .await?;
    ensure_eq!(
        claimed_ids(&by_id),
        [],
        "what is claimed by the id of an ended run"
    );
    ensure_eq!(
        cx.get(claimed.lease.run).await?.attempts,
        1,
        "the attempts of the ended run"
    );
    Ok(())
}

pub(crate) async fn an_expired_run_is_not_claimed_before_it_is_rescued(cx: Cx) -> Checked {
    let claimed = cx.expired(with_attempts(5)?).await?;
    ensure_eq!(
        claimed_ids(&cx.claim_all().await?),
        [],
        "what is claimed while the run is not rescued"
    );
    ensure_eq!(
        cx.get(claimed.lease.run).await?.token,
        claimed.lease.token,
        "the token"
    );
    Ok(())
}

pub(crate) async fn a_claim_of_one_run_takes_no_other(cx: Cx) -> Checked {
    let first = cx
        .create(NewRun::new("builder").priority(Priority::CRITICAL))
        .await?;
    let wanted = cx.create(NewRun::new("builder")).await?;
    let claimed = cx.claim(wanted.id).await?;
    ensure_eq!(claimed.run.id, wanted.id, "the run that was claimed");
    ensure_eq!(
        cx.get(first.id).await?.status,
        RunStatus::Pending,
        "the status of the other run"
    );
    let again = cx
        .runs
        .claim(&cx.claim_of(ClaimOf::Run(wanted.id))?)
        .await?;
    ensure_eq!(
        claimed_ids(&again),
        [],
        "what a second claim of the run takes"
    );
    Ok(())
}

pub(crate) async fn a_claim_of_an_unknown_run_takes_nothing(cx: Cx) -> Checked {
    cx.create(NewRun::new("builder")).await?;
    let claim = cx.claim_of(ClaimOf::Run(cx.run_id()?))?;
    ensure_eq!(
        claimed_ids(&cx.runs.claim(&claim).await?),
        [],
        "what a claim of an unknown run takes"
    );
    Ok(())
}

pub(crate) async fn a_claim_of_workflows_takes_only_theirs(cx: Cx) -> Checked {
    let builder = cx.create(NewRun::new("builder")).await?.id;
    let review = cx.create(NewRun::new("review")).await?.id;
    let other = cx
        .create(NewRun::new("Builder").priority(Priority::CRITICAL))
        .await?
        .id;
    let of = |names: &[&str]| -> Checked<ClaimOf> {
        let names = names.iter().map(|name| WorkflowName::new(*name));
        let names: Vec<WorkflowName> = names.collect::<Result<_, _>>()?;
        Ok(ClaimOf::Waiting(WaitingRuns::ANY.workflows(names)))
    };
    let none = cx.runs.claim(&cx.claim_of(of(&["nobody's"])?)?).await?;
    ensure_eq!(
        claimed_ids(&none),
        [],
        "what a claim of a workflow without runs takes"
    );
    let both = cx
        .runs
        .claim(&cx.claim_of(of(&["builder", "review"])?)?)
        .await?;
    let both: BTreeSet<RunId> = claimed_ids(&both).into_iter().collect();
    ensure_eq!(
        both,
        BTreeSet::from([builder, review]),
        "what a claim of two workflows takes"
    );
    ensure_eq!(claimed_ids(&cx.claim_all().await?), [other], "what is left");
    Ok(())
}

pub(crate) async fn a_claim_of_no_workflows_takes_nothing(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let many = (0..=MAX_FILTER_VALUES).map(|n| WorkflowName::new(format!("w{n}")));
    for waiting in [
        WaitingRuns::ANY.workflows([]),
        WaitingRuns::ANY.queues([]),
        WaitingRuns::ANY
            .queues([QueueName::default()])
            .workflows([]),
        WaitingRuns::ANY.workflows(many.collect::<Result<Vec<_>, _>>()?),
    ] {
        let claim = cx.claim_of(ClaimOf::Waiting(waiting))?;
        ensure_invalid(
            cx.runs.claim(&claim).await,
            &format!("the claim of {:?}", claim.of),
        )?;
    }
    ensure_eq!(
        cx.get(run.id).await?.status,
        RunStatus::Pending,
        "the status"
    );
    Ok(())
}

pub(crate) async fn without_a_site_only_runs_without_a_worktree_are_claimed(cx: Cx) -> Checked {
    let with = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let without = cx.create(NewRun::new("builder")).await?;
    let mut claim = cx.claim_of(ClaimOf::ANY)?;
    claim.site = None;
    ensure_eq!(
        claimed_ids(&cx.runs.claim(&claim).await?),
        [without.id],
        "what a claim without a site takes"
    );
    claim.of = ClaimOf::Run(with.id);
    ensure_eq!(
        claimed_ids(&cx.runs.claim(&claim).await?),
        [],
        "what it takes by id"
    );
    ensure_eq!(
        claimed_ids(&cx.claim_all().await?),
        [with.id],
        "what a claim with a site takes"
    );
    Ok(())
}

pub(crate) async fn a_run_starts_once(cx: Cx) -> Checked {
    let first = cx.running(with_attempts(2)?).await?;
    let retry = failed_for_now("try again", Duration::ZERO);
    cx.pass(Duration::from_millis(2)).await?;
    cx.runs
        .end(first.lease, &retry)
        .await?
        .applied("a failure")?;
    let second = cx.claim(first.lease.run).await?;
    ensure_eq!(
        second.run.started_at,
        first.run.started_at,
        "the start of the first attempt"
    );
    ensure_eq!(second.run.attempts, 2, "the attempts");
    Ok(())
}

pub(crate) async fn a_token_only_grows(cx: Cx) -> Checked {
    let run = cx.create(with_attempts(50)?).await?;
    let mut last = run.token;
    for step in 0..9 {
        let claimed = cx.claim(run.id).await?;
        ensure!(
            claimed.lease.token > last,
            "the token of claim {step} must be above {last}, saw {}",
            claimed.lease.token
        );
        last = claimed.lease.token;
        match step % 3 {
            0 => cx
                .runs
                .release(claimed.lease)
                .await?
                .applied("a release")
                .map(drop)?,
            1 => {
                let retry = failed_for_now("again", Duration::ZERO);
                cx.runs
                    .end(claimed.lease, &retry)
                    .await?
                    .applied("a failure")
                    .map(drop)?;
            }
            _ => drop(only(cx.rescue_dead(claimed.lease).await?, "a rescue")?),
        }
        let now = cx.get(run.id).await?.token;
        ensure!(
            now >= last,
            "the token must not go back from {last}, saw {now}"
        );
        last = now;
    }
    Ok(())
}

pub(crate) async fn concurrent_claimers_never_share_a_run(cx: Cx) -> Checked {
    for _ in 0..40 {
        cx.create(NewRun::new("builder")).await?;
    }
    let all: BTreeSet<RunId> = cx.ids(&RunFilter::new()).await?.into_iter().collect();
    let other = cx.open_again().await?;
    let mut tasks = Vec::new();
    for n in 0..8 {
        let runs = if n % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        let mut claim = cx.claim_of(ClaimOf::ANY)?;
        claim.limit = Limit::new(3)?;
        tasks.push(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = runs.claim(&claim).await?;
                if claimed.is_empty() {
                    return Ok::<_, runtree_repository::RepositoryError>((claim.owner, mine));
                }
                mine.extend(claimed);
            }
        });
    }
    let mut taken = Vec::new();
    for answer in together(tasks).await? {
        let (owner, mine) = answer?;
        for claimed in mine {
            ensure_eq!(
                claimed.run.owner.as_ref(),
                Some(&owner),
                "the owner of a run that was claimed"
            );
            ensure_eq!(
                cx.get(claimed.lease.run).await?.owner.as_ref(),
                Some(&owner),
                "the owner that is stored"
            );
            taken.push(claimed.lease.run);
        }
    }
    // An empty answer while others hold locks is allowed, so what is left is claimed here.
    taken.extend(claimed_ids(&cx.claim_all().await?));
    ensure_eq!(
        distinct(taken, "the runs that were claimed")?,
        all,
        "the runs that were claimed"
    );
    Ok(())
}

pub(crate) async fn concurrent_claims_of_one_run_have_one_winner(cx: Cx) -> Checked {
    for _ in 0..5 {
        let run = cx.create(NewRun::new("builder")).await?;
        let other = cx.open_again().await?;
        let mut tasks = Vec::new();
        for n in 0..8 {
            let runs = if n % 2 == 0 {
                cx.runs.clone()
            } else {
                other.clone()
            };
            let claim = cx.claim_of(ClaimOf::Run(run.id))?;
            tasks.push(async move { runs.claim(&claim).await });
        }
        let mut winners = Vec::new();
        for answer in together(tasks).await? {
            winners.extend(answer?);
        }
        let winner = only(winners, "eight claims of one run")?;
        ensure_eq!(
            cx.get(run.id).await?.owner,
            winner.run.owner,
            "the owner that is stored"
        );
        ensure_eq!(winner.run.attempts, 1, "the attempts");
    }
    Ok(())
}

pub(crate) async fn a_claim_says_who_and_where_in_the_history(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let events = cx.events(claimed.lease.run).await?;
    let detail = events.last().and_then(|event| event.detail.clone());
    let owner = claimed.run.owner.as_ref().map(|owner| owner.id.to_string());
    ensure_eq!(
        detail,
        Some(json!({"attempt": 1, "owner": owner, "host": HOST})),
        "the detail of the claim"
    );
    Ok(())
}

fn claimed_ids(claimed: &[Claimed]) -> Vec<RunId> {
    claimed.iter().map(|claimed| claimed.lease.run).collect()
}
