//! Every run ends: runs of owners that are gone are taken up, and only those.

use std::collections::BTreeSet;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::{
    EventKind, HostName, LeaseRef, Limit, NewRun, Rescue, Rescued, WorktreeSite,
};
use serde_json::json;

use crate::cases::end::{ensure_fenced, ensure_unchanged};
use crate::context::{
    Cx, HOST, SHORT, completed, distinct, graceful, only, process, site, together, with_attempts,
};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn an_expired_run_with_attempts_left_waits_again(cx: Cx) -> Checked {
    let claimed = cx.expired(with_attempts(2)?).await?;
    let rescued = only(
        cx.rescue_expired().await?,
        "a rescue of the only expired run",
    )?;
    ensure_eq!(rescued.lease, claimed.lease, "the lease that is no more");
    ensure_eq!(rescued.run.status, RunStatus::Pending, "the status");
    ensure_eq!(rescued.run.attempts, 1, "a lost attempt stays counted");
    ensure_eq!(rescued.run.token, claimed.lease.token.next(), "the token");
    ensure_eq!(
        (rescued.run.owner.clone(), rescued.run.lease_expires_at),
        (None, None),
        "owner and lease"
    );
    ensure_eq!(
        cx.get(rescued.run.id).await?.summary,
        rescued.run,
        "what is read is what the rescue answered"
    );
    ensure_eq!(cx.runs.leases(None).await?, [], "the leases");
    let last = cx
        .events(rescued.run.id)
        .await?
        .pop()
        .map(|event| (event.kind, event.detail));
    ensure_eq!(
        last,
        Some((EventKind::Rescued, Some(json!({"to": "pending"})))),
        "the last event"
    );
    ensure!(
        cx.rescue_expired().await?.is_empty(),
        "a run is rescued once"
    );

    let again = only(cx.claim_all().await?, "a claim at once after the rescue")?;
    ensure_eq!(again.run.attempts, 2, "the attempts of the next claim");
    Ok(())
}

pub(crate) async fn an_expired_run_that_is_to_be_spared_is_left_alone(cx: Cx) -> Checked {
    let spared = cx.expired(with_attempts(2)?).await?;
    let other = cx.expired(with_attempts(2)?).await?;
    let rescue = Rescue {
        proven_dead: Vec::new(),
        limit: Limit::ONE,
        spare: vec![spared.lease.run],
    };
    let rescued = only(
        cx.runs.rescue(&rescue).await?,
        "a rescue that spares one of two",
    )?;
    ensure_eq!(rescued.lease, other.lease, "the lease that is no more");
    let run = cx.get(spared.lease.run).await?;
    ensure_eq!(
        (run.status, run.token),
        (RunStatus::Running, spared.lease.token),
        "the spared run"
    );
    Ok(())
}

pub(crate) async fn an_expired_run_without_attempts_left_is_lost(cx: Cx) -> Checked {
    let claimed = cx.expired(NewRun::new("builder")).await?;
    let rescued = only(cx.rescue_expired().await?, "a rescue")?;
    ensure_eq!(
        (rescued.run.status, rescued.run.end_reason),
        (RunStatus::Failed, Some(EndReason::Lost)),
        "status and reason"
    );
    ensure!(rescued.run.has_ended(), "the run has ended");
    let kinds = cx.kinds(claimed.lease.run).await?;
    ensure!(
        kinds.contains(&EventKind::Rescued) && kinds.contains(&EventKind::Failed),
        "rescue and ending are in the history: saw {kinds:?}"
    );
    Ok(())
}

pub(crate) async fn an_expired_run_that_somebody_cancelled_is_killed(cx: Cx) -> Checked {
    let claimed = cx.expired(with_attempts(9)?).await?;
    cx.runs
        .cancel(claimed.lease.run, &graceful())
        .await?
        .applied("a cancel of an expired run")?;
    let rescued = only(cx.rescue_expired().await?, "a rescue")?;
    ensure_eq!(
        (rescued.run.status, rescued.run.end_reason),
        (RunStatus::Killed, Some(EndReason::Killed)),
        "status and reason"
    );
    ensure!(rescued.run.has_ended(), "the run has ended");
    Ok(())
}

pub(crate) async fn a_lease_that_has_not_expired_is_left_alone(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(9)?).await?;
    ensure!(
        cx.rescue_expired().await?.is_empty(),
        "a live lease must not be rescued"
    );
    ensure_eq!(cx.get(claimed.lease.run).await?, claimed.run, "the run");
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("the owner's completion")?;
    Ok(())
}

pub(crate) async fn waiting_and_ended_runs_are_left_alone(cx: Cx) -> Checked {
    let waiting = cx.create(with_attempts(9)?).await?;
    let claimed = cx.running(with_attempts(9)?).await?;
    let ended = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let rescue = Rescue {
        proven_dead: vec![
            LeaseRef {
                run: waiting.id,
                token: waiting.token,
            },
            claimed.lease,
            LeaseRef {
                run: cx.run_id()?,
                token: claimed.lease.token,
            },
        ],
        limit: Limit::MAX,
        spare: Vec::new(),
    };
    ensure!(
        cx.runs.rescue(&rescue).await?.is_empty(),
        "only running runs are rescued"
    );
    ensure_unchanged(&cx, &waiting, "a rescue").await?;
    ensure_unchanged(&cx, &ended, "a rescue").await
}

pub(crate) async fn a_proven_death_needs_no_waiting(cx: Cx) -> Checked {
    let dead = cx.running(with_attempts(2)?).await?;
    let alive = cx.running(with_attempts(2)?).await?;
    let rescued = only(
        cx.rescue_dead(dead.lease).await?,
        "a rescue of a proven death",
    )?;
    ensure_eq!(rescued.lease, dead.lease, "the lease that is no more");
    ensure_eq!(rescued.run.status, RunStatus::Pending, "the status");
    ensure_eq!(
        cx.get(alive.lease.run).await?,
        alive.run,
        "the run of the owner that lives"
    );
    ensure_fenced(&cx, dead.lease).await
}

pub(crate) async fn a_proof_about_an_earlier_owner_is_worth_nothing(cx: Cx) -> Checked {
    let old = cx.running(with_attempts(9)?).await?;
    cx.runs.release(old.lease).await?.applied("a release")?;
    let new = cx.claim(old.lease.run).await?;
    ensure!(
        cx.rescue_dead(old.lease).await?.is_empty(),
        "the token that was observed is not the token of now"
    );
    ensure_eq!(
        cx.get(new.lease.run).await?,
        new.run,
        "the run of the new owner"
    );
    cx.runs
        .end(new.lease, &completed())
        .await?
        .applied("the new owner's completion")?;
    Ok(())
}

pub(crate) async fn the_oldest_expiry_goes_first_up_to_the_limit(cx: Cx) -> Checked {
    let mut expiries = Vec::new();
    for extra in [30, 10, 20, 0] {
        let run = cx.create(with_attempts(2)?).await?;
        let claimed = cx
            .claim_for(
                run.id,
                SHORT.saturating_add(Duration::from_millis(extra * 10)),
            )
            .await?;
        expiries.push((claimed.expires_at, run.id));
    }
    expiries.sort();
    let (last, _) = expiries[3];
    cx.wait_until(last).await?;
    for expected in expiries.chunks(2) {
        let rescue = Rescue {
            proven_dead: Vec::new(),
            limit: Limit::new(2)?,
            spare: Vec::new(),
        };
        let rescued: BTreeSet<RunId> = cx
            .runs
            .rescue(&rescue)
            .await?
            .iter()
            .map(|rescued| rescued.run.id)
            .collect();
        ensure_eq!(
            rescued,
            expected.iter().map(|(_, id)| *id).collect(),
            "the two oldest expiries"
        );
    }
    ensure!(
        cx.rescue_expired().await?.is_empty(),
        "nothing is left to rescue"
    );
    Ok(())
}

pub(crate) async fn proven_deaths_do_not_use_up_the_limit(cx: Cx) -> Checked {
    let expired = cx.expired(with_attempts(2)?).await?;
    let dead = cx.running(with_attempts(2)?).await?;
    let rescue = Rescue {
        proven_dead: vec![dead.lease],
        limit: Limit::ONE,
        spare: Vec::new(),
    };
    let rescued: BTreeSet<RunId> = cx
        .runs
        .rescue(&rescue)
        .await?
        .iter()
        .map(|rescued| rescued.run.id)
        .collect();
    ensure_eq!(
        rescued,
        BTreeSet::from([dead.lease.run, expired.lease.run]),
        "the runs that were rescued"
    );
    Ok(())
}

pub(crate) async fn a_run_that_is_both_dead_and_expired_is_rescued_once(cx: Cx) -> Checked {
    let expired = cx.expired(with_attempts(9)?).await?;
    let rescue = Rescue {
        proven_dead: vec![expired.lease, expired.lease],
        limit: Limit::MAX,
        spare: Vec::new(),
    };
    let rescued = only(
        cx.runs.rescue(&rescue).await?,
        "a rescue of one run for two reasons",
    )?;
    ensure_eq!(rescued.run.token, expired.lease.token.next(), "the token");
    let kinds = cx.kinds(expired.lease.run).await?;
    ensure_eq!(
        kinds
            .iter()
            .filter(|kind| **kind == EventKind::Rescued)
            .count(),
        1,
        "rescues in the history"
    );
    Ok(())
}

pub(crate) async fn concurrent_rescuers_rescue_each_run_once(cx: Cx) -> Checked {
    let mut leases = Vec::new();
    for _ in 0..12 {
        leases.push(cx.expired(with_attempts(9)?).await?.lease);
    }
    let other = cx.open_again().await?;
    let tasks = (0..6).map(|n| {
        let runs = if n % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        let rescue = Rescue {
            proven_dead: leases.clone(),
            limit: Limit::MAX,
            spare: Vec::new(),
        };
        async move { runs.rescue(&rescue).await }
    });
    let mut rescued: Vec<LeaseRef> = Vec::new();
    for answer in together(tasks.collect()).await? {
        rescued.extend(answer?.iter().map(|rescued: &Rescued| rescued.lease));
    }
    // A rescuer may pass over what another one holds; what is left is taken here.
    rescued.extend(
        cx.rescue_expired()
            .await?
            .iter()
            .map(|rescued| rescued.lease),
    );
    ensure_eq!(
        distinct(rescued, "the leases that were rescued")?,
        leases.iter().copied().collect(),
        "the leases that were rescued"
    );
    for lease in leases {
        ensure_eq!(
            cx.get(lease.run).await?.token,
            lease.token.next(),
            "the token after one rescue"
        );
    }
    Ok(())
}

pub(crate) async fn a_rescue_and_a_completion_agree(cx: Cx) -> Checked {
    for _ in 0..5 {
        let claimed = cx.running(with_attempts(9)?).await?;
        let (owner, rescuer) = (cx.runs.clone(), cx.open_again().await?);
        let lease = claimed.lease;
        let completing = async move {
            owner
                .end(lease, &completed())
                .await
                .map(|answer| usize::from(answer.accepted().is_some()))
        };
        let rescuing = async move {
            let rescue = Rescue {
                proven_dead: vec![lease],
                limit: Limit::ONE,
                spare: Vec::new(),
            };
            rescuer
                .rescue(&rescue)
                .await
                .map(|rescued| rescued.len() * 2)
        };
        type Task = std::pin::Pin<
            Box<dyn Future<Output = Result<usize, runtree_repository::RepositoryError>> + Send>,
        >;
        let tasks: Vec<Task> = vec![Box::pin(completing), Box::pin(rescuing)];
        let winner: usize = together(tasks)
            .await?
            .into_iter()
            .sum::<Result<usize, _>>()?;
        let stored = cx.get(lease.run).await?.status;
        match winner {
            1 => ensure_eq!(
                stored,
                RunStatus::Completed,
                "the status when the completion won"
            ),
            2 => ensure_eq!(stored, RunStatus::Pending, "the status when the rescue won"),
            _ => ensure!(
                false,
                "exactly one of a completion and a rescue must win: saw {winner}, {stored:?}"
            ),
        }
        // Whatever waits again must not disturb the next round.
        cx.runs.cancel(lease.run, &graceful()).await?.accepted();
    }
    Ok(())
}

pub(crate) async fn leases_are_those_of_running_runs(cx: Cx) -> Checked {
    cx.create(NewRun::new("builder")).await?;
    let ended = cx.running(NewRun::new("builder")).await?;
    cx.runs
        .end(ended.lease, &completed())
        .await?
        .applied("a completion")?;
    let expired = cx.expired(NewRun::new("builder")).await?;
    let live = cx.running(NewRun::new("builder")).await?;
    let leases = cx.runs.leases(None).await?;
    let seen: BTreeSet<LeaseRef> = distinct(
        leases.iter().map(|lease| lease.lease).collect(),
        "the leases",
    )?;
    // An expired lease is shown until the run is rescued: it is what a rescuer looks for.
    let expected: BTreeSet<LeaseRef> = [expired.lease, live.lease].into();
    ensure_eq!(seen, expected, "the leases, live and expired");
    for claimed in [&expired, &live] {
        let lease = leases.iter().find(|lease| lease.lease == claimed.lease);
        ensure_eq!(
            lease.map(|lease| Some(lease.owner.clone())),
            Some(claimed.run.owner.clone()),
            "the owner of the lease"
        );
        ensure_eq!(
            lease.map(|lease| lease.expires_at),
            Some(claimed.expires_at),
            "when the lease ends"
        );
        ensure_eq!(
            lease.and_then(|lease| lease.child.clone()),
            None,
            "the child of an owner that started none"
        );
    }
    Ok(())
}

pub(crate) async fn leases_of_a_machine_are_only_its_own(cx: Cx) -> Checked {
    let here = cx.running(NewRun::new("builder")).await?;
    let run = cx.create(NewRun::new("builder")).await?;
    let mut claim = cx.claim_of(runtree_repository::ClaimOf::Run(run.id))?;
    claim.owner = cx.owner("beta.example")?;
    let site: WorktreeSite = site("beta.example")?;
    claim.site = Some(site);
    let there = only(cx.runs.claim(&claim).await?, "a claim on another machine")?;
    let of = |host: &str| -> Checked<HostName> { Ok(HostName::new(host)?) };
    for (host, expected) in [
        (HOST, vec![here.lease]),
        ("beta.example", vec![there.lease]),
        ("gamma.example", Vec::new()),
    ] {
        let seen = cx.runs.leases(Some(&of(host)?)).await?;
        let seen: Vec<LeaseRef> = seen.iter().map(|lease| lease.lease).collect();
        ensure_eq!(seen, expected, "the leases of the machine {host}");
    }
    Ok(())
}

pub(crate) async fn a_child_is_shown_with_its_lease(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(9)?).await?;
    for child in [process("7")?, process("8")?] {
        cx.runs
            .record_child(claimed.lease, &child)
            .await?
            .accepted();
        let lease = only(cx.runs.leases(None).await?, "the leases")?;
        ensure_eq!(lease.child, Some(child), "the child that was recorded last");
    }
    cx.runs.release(claimed.lease).await?.applied("a release")?;
    let next = cx.claim(claimed.lease.run).await?;
    let lease = only(cx.runs.leases(None).await?, "the leases")?;
    ensure_eq!(
        (lease.lease, lease.child),
        (next.lease, None),
        "the lease of the next owner, who has started no child"
    );
    Ok(())
}

pub(crate) async fn a_child_may_be_recorded_after_the_lease_expired(cx: Cx) -> Checked {
    let claimed = cx.expired(NewRun::new("builder")).await?;
    cx.runs
        .record_child(claimed.lease, &process("7")?)
        .await?
        .applied("a child under an expired lease")?;
    let lease = only(cx.runs.leases(None).await?, "the leases")?;
    ensure_eq!(
        lease.child,
        Some(process("7")?),
        "the child, so that whoever takes the run up can end it"
    );
    Ok(())
}
