//! One ending: which outcome an owner may report, what it leads to, and that nothing changes it afterwards.

use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::{
    CancelMode, ClaimOf, ErrorKind, ErrorText, EventKind, LeaseRef, LeaseTime, MAX_JSON_BYTES,
    NewRun, Outcome, Renewal, Rescue, Run, Token,
};
use serde_json::{Value, json};

use crate::context::{
    BRIEF, Cx, LONG, completed, failed, failed_for_now, forced, graceful, only, process, together,
    with_attempts,
};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn a_completion_keeps_the_result_and_frees_the_owner(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let before = cx.runs.now().await?;
    let outcome = Outcome::Completed {
        result: Some(json!({"tests": "green"})),
    };
    let run = cx
        .runs
        .end(claimed.lease, &outcome)
        .await?
        .applied("a completion")?;
    ensure_eq!(run.status, RunStatus::Completed, "the status");
    ensure_eq!(run.end_reason, Some(EndReason::Succeeded), "the end reason");
    ensure_eq!(run.result, Some(json!({"tests": "green"})), "the result");
    ensure_eq!(run.error, None, "the error");
    ensure_eq!(
        (run.owner.clone(), run.lease_expires_at),
        (None, None),
        "owner and lease after the end"
    );
    ensure!(
        run.ended_at.is_some_and(|at| at >= before),
        "a run ended after {before} says {:?}",
        run.ended_at
    );
    ensure_eq!(run.token, claimed.lease.token, "the token after the end");
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the ending answered"
    );
    ensure_eq!(cx.runs.leases(None).await?, [], "the live leases");
    let last = cx.events(run.id).await?.pop();
    let last = last.map(|event| (event.kind, event.detail));
    ensure_eq!(
        last,
        Some((EventKind::Completed, Some(json!({"reason": "succeeded"})))),
        "the last event"
    );
    Ok(())
}

pub(crate) async fn a_failure_keeps_the_error(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let run = cx
        .runs
        .end(claimed.lease, &failed("line 1\nline 2"))
        .await?
        .applied("a failure")?;
    ensure_eq!(run.status, RunStatus::Failed, "the status");
    ensure_eq!(run.end_reason, Some(EndReason::Error), "the end reason");
    ensure_eq!(
        run.error,
        Some(ErrorText::new("line 1\nline 2")?),
        "the error"
    );
    ensure_eq!(run.result, None, "the result");
    ensure!(run.has_ended(), "a failed run has ended");
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the ending answered"
    );
    ensure_eq!(
        cx.kinds(run.id).await?.last(),
        Some(&EventKind::Failed),
        "the last event"
    );
    Ok(())
}

pub(crate) async fn an_owner_may_report_that_it_was_stopped(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(3)?).await?;
    cx.runs
        .cancel(claimed.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    let run = cx
        .runs
        .end(claimed.lease, &Outcome::Killed)
        .await?
        .applied("the report of a stop")?;
    ensure_eq!(
        (run.status, run.end_reason),
        (RunStatus::Killed, Some(EndReason::Killed)),
        "status and reason"
    );
    ensure!(run.cancel.is_some(), "the cancel intent stays with the run");
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the ending answered"
    );
    Ok(())
}

pub(crate) async fn repeating_an_ending_is_answered_by_already(cx: Cx) -> Checked {
    let outcomes = [completed(), failed("no"), Outcome::Killed];
    for outcome in outcomes {
        let claimed = cx.running(NewRun::new("builder")).await?;
        let run = cx
            .runs
            .end(claimed.lease, &outcome)
            .await?
            .applied("an ending")?;
        let history = cx.kinds(run.id).await?;
        let again = cx
            .runs
            .end(claimed.lease, &outcome)
            .await?
            .already("the same ending again")?;
        ensure_eq!(again, run, "the run that a repeated ending answers with");
        ensure_eq!(
            cx.kinds(run.id).await?,
            history,
            "the history after a repeated ending"
        );
    }
    Ok(())
}

pub(crate) async fn a_completion_repeated_after_its_lease_is_answered_by_already(
    cx: Cx,
) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let claimed = cx.claim_for(run.id, BRIEF).await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion in time")?;
    cx.wait_until(claimed.expires_at).await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .already("the same completion after the lease's time")?;
    Ok(())
}

pub(crate) async fn another_ending_of_an_ended_run_is_stale(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let run = cx
        .runs
        .end(claimed.lease, &failed("first"))
        .await?
        .applied("a failure")?;
    let current = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .stale("a completion after a failure")?;
    ensure_eq!(
        current.status,
        RunStatus::Failed,
        "the status that the answer tells"
    );
    ensure_unchanged(&cx, &run, "a completion after a failure").await?;
    ensure_eq!(
        cx.kinds(run.id).await?.last(),
        Some(&EventKind::Rejected),
        "the last event"
    );
    Ok(())
}

pub(crate) async fn an_old_owner_cannot_end_the_run_of_the_new_one(cx: Cx) -> Checked {
    let old = cx.running(with_attempts(3)?).await?;
    only(cx.rescue_dead(old.lease).await?, "a rescue")?;
    let waiting = cx.get(old.lease.run).await?;
    ensure_fenced(&cx, old.lease).await?;
    ensure_unchanged(
        &cx,
        &waiting,
        "an old owner's write while the run waits again",
    )
    .await?;

    let new = cx.claim(old.lease.run).await?;
    ensure_fenced(&cx, old.lease).await?;
    ensure_unchanged(
        &cx,
        &new.run,
        "an old owner's write while the new owner runs",
    )
    .await?;

    let ended = cx
        .runs
        .end(new.lease, &completed())
        .await?
        .applied("the new owner's completion")?;
    ensure_fenced(&cx, old.lease).await?;
    ensure_unchanged(&cx, &ended, "an old owner's write after the end").await?;
    Ok(())
}

pub(crate) async fn a_completion_after_the_lease_expired_is_rejected(cx: Cx) -> Checked {
    let claimed = cx.expired(with_attempts(2)?).await?;
    let current = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .stale("a completion at the instant the lease expires")?;
    ensure_eq!(
        current.status,
        RunStatus::Running,
        "the status that the answer tells"
    );
    let run = cx.get(claimed.lease.run).await?;
    ensure_eq!(
        (run.status, run.ended_at),
        (RunStatus::Running, None),
        "status and end of the run"
    );
    ensure_eq!(run.result, None, "the result");
    ensure_eq!(
        cx.kinds(run.id).await?.last(),
        Some(&EventKind::Rejected),
        "the last event"
    );
    let rescued = only(cx.rescue_expired().await?, "a rescue")?;
    ensure_eq!(
        rescued.lease,
        claimed.lease,
        "the lease that is rescued afterwards"
    );
    Ok(())
}

pub(crate) async fn a_failure_after_the_lease_expired_is_accepted(cx: Cx) -> Checked {
    let claimed = cx.expired(NewRun::new("builder")).await?;
    let run = cx
        .runs
        .end(claimed.lease, &failed("late"))
        .await?
        .applied("a failure nobody has pre-empted")?;
    ensure_eq!(run.status, RunStatus::Failed, "the status");
    let claimed = cx.expired(NewRun::new("builder")).await?;
    let run = cx
        .runs
        .end(claimed.lease, &Outcome::Killed)
        .await?
        .applied("a stop nobody has pre-empted")?;
    ensure_eq!(run.status, RunStatus::Killed, "the status");
    Ok(())
}

pub(crate) async fn a_failure_with_attempts_left_waits_before_the_next(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(2)?).await?;
    let delay = BRIEF;
    let before = cx.runs.now().await?;
    let run = cx
        .runs
        .end(claimed.lease, &failed_for_now("flaky", delay))
        .await?
        .applied("a failure")?;
    ensure_eq!(run.status, RunStatus::Pending, "the status");
    ensure_eq!(
        (run.ended_at, run.end_reason),
        (None, None),
        "end and reason of a run that waits again"
    );
    ensure_eq!(
        run.error,
        Some(ErrorText::new("flaky")?),
        "the error of the last attempt"
    );
    ensure_eq!(
        (run.owner.clone(), run.lease_expires_at),
        (None, None),
        "owner and lease"
    );
    ensure_eq!(run.attempts, 1, "the attempts");
    ensure!(
        run.available_at >= before.saturating_add(delay),
        "a run that waits {delay:?} after {before} may start at {}",
        run.available_at
    );
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the ending answered"
    );
    ensure_eq!(
        cx.kinds(run.id).await?.last(),
        Some(&EventKind::RetryPlanned),
        "the last event"
    );
    ensure!(
        cx.claim_all().await?.is_empty(),
        "a run must not be claimed before its delay is over"
    );

    cx.wait_until(run.available_at).await?;
    let second = only(cx.claim_all().await?, "a claim after the delay")?;
    ensure_eq!(
        (second.run.attempts, second.lease.token),
        (2, claimed.lease.token.next()),
        "attempts and token"
    );
    let ended = cx
        .runs
        .end(second.lease, &completed())
        .await?
        .applied("the second attempt's completion")?;
    ensure_eq!(ended.status, RunStatus::Completed, "the status");
    Ok(())
}

pub(crate) async fn the_last_attempt_fails_for_good(cx: Cx) -> Checked {
    let first = cx.running(with_attempts(2)?).await?;
    let retry = failed_for_now("again", Duration::ZERO);
    cx.runs
        .end(first.lease, &retry)
        .await?
        .applied("the first failure")?;
    let second = cx.claim(first.lease.run).await?;
    let run = cx
        .runs
        .end(second.lease, &retry)
        .await?
        .applied("the last failure")?;
    ensure_eq!(
        (run.status, run.end_reason),
        (RunStatus::Failed, Some(EndReason::Error)),
        "status and reason"
    );
    ensure!(run.has_ended(), "the run has ended");
    Ok(())
}

pub(crate) async fn a_failure_that_no_attempt_would_mend_is_final(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(9)?).await?;
    let run = cx
        .runs
        .end(claimed.lease, &failed("no such input"))
        .await?
        .applied("a failure")?;
    ensure_eq!(
        (run.status, run.end_reason),
        (RunStatus::Failed, Some(EndReason::Error)),
        "status and reason"
    );
    Ok(())
}

pub(crate) async fn a_failure_while_a_cancel_waits_is_a_kill(cx: Cx) -> Checked {
    for outcome in [
        failed_for_now("interrupted", Duration::ZERO),
        failed("interrupted"),
    ] {
        let claimed = cx.running(with_attempts(9)?).await?;
        cx.runs
            .cancel(claimed.lease.run, &graceful())
            .await?
            .applied("a cancel")?;
        let run = cx
            .runs
            .end(claimed.lease, &outcome)
            .await?
            .applied("a failure")?;
        ensure_eq!(
            (run.status, run.end_reason),
            (RunStatus::Killed, Some(EndReason::Killed)),
            "status and reason"
        );
        ensure_eq!(
            run.error,
            Some(ErrorText::new("interrupted")?),
            "the error is kept"
        );
        ensure!(run.has_ended(), "the run has ended");
    }
    Ok(())
}

pub(crate) async fn a_completion_wins_over_a_waiting_cancel(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    cx.runs
        .cancel(claimed.lease.run, &forced())
        .await?
        .applied("a cancel")?;
    let run = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure_eq!(
        (run.status, run.end_reason),
        (RunStatus::Completed, Some(EndReason::Succeeded)),
        "status and reason"
    );
    ensure!(
        run.cancel
            .as_ref()
            .is_some_and(|cancel| cancel.mode == CancelMode::Forced),
        "the cancel intent stays with the run"
    );
    Ok(())
}

pub(crate) async fn an_ended_run_never_changes(cx: Cx) -> Checked {
    for (n, outcome) in [completed(), failed("no"), Outcome::Killed]
        .iter()
        .enumerate()
    {
        let claimed = cx.running(with_attempts(9)?.input(n.to_string())).await?;
        let run = cx
            .runs
            .end(claimed.lease, outcome)
            .await?
            .applied("an ending")?;
        ensure_final(&cx, claimed.lease, &run).await?;
    }
    let killed = cx.running(with_attempts(9)?).await?;
    let run = cx
        .runs
        .force_kill(killed.lease.run, &forced())
        .await?
        .applied("a forced kill")?;
    ensure_final(&cx, killed.lease, &run).await?;
    ensure_final(
        &cx,
        LeaseRef {
            token: run.token,
            ..killed.lease
        },
        &run,
    )
    .await?;
    let waiting = cx.create(with_attempts(9)?).await?;
    let run = cx
        .runs
        .cancel(waiting.id, &graceful())
        .await?
        .applied("a cancel")?;
    ensure_final(
        &cx,
        LeaseRef {
            run: run.id,
            token: run.token,
        },
        &run,
    )
    .await?;
    Ok(())
}

pub(crate) async fn a_run_that_was_not_claimed_has_no_ending(cx: Cx) -> Checked {
    let run = cx.create(with_attempts(2)?).await?;
    for token in [Token::NONE, Token::new(1)] {
        let lease = LeaseRef { run: run.id, token };
        for outcome in [completed(), failed("no"), Outcome::Killed] {
            cx.runs
                .end(lease, &outcome)
                .await?
                .stale("an ending of a run that waits")?;
        }
    }
    ensure_unchanged(&cx, &run, "an ending without a claim").await?;
    Ok(())
}

pub(crate) async fn an_ending_of_an_unknown_run_is_not_found(cx: Cx) -> Checked {
    let lease = unknown(&cx)?;
    for outcome in [completed(), failed("no"), Outcome::Killed] {
        cx.runs
            .end(lease, &outcome)
            .await?
            .not_found("an ending of an unknown run")?;
    }
    cx.runs
        .release(lease)
        .await?
        .not_found("a release of an unknown run")?;
    cx.runs
        .record_child(lease, &process("7")?)
        .await?
        .not_found("a child of an unknown run")?;
    cx.runs
        .worktree_ready(lease)
        .await?
        .not_found("a worktree of an unknown run")?;
    ensure_eq!(
        cx.events(lease.run).await?,
        [],
        "the history of an unknown run"
    );
    Ok(())
}

pub(crate) async fn a_result_beyond_the_limits_writes_nothing(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    for result in [Value::from("x".repeat(MAX_JSON_BYTES)), json!({"a": "\0"})] {
        let outcome = Outcome::Completed {
            result: Some(result),
        };
        match cx.runs.end(claimed.lease, &outcome).await {
            Err(error) => ensure_eq!(error.kind(), ErrorKind::InvalidInput, "the error"),
            Ok(_) => return Err(Failure::new("a result beyond the limits must be refused")),
        }
        ensure_unchanged(&cx, &claimed.run, "a refused result").await?;
    }
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion after a refused one")?;
    Ok(())
}

pub(crate) async fn concurrent_endings_have_one_winner(cx: Cx) -> Checked {
    for _ in 0..5 {
        let claimed = cx.running(with_attempts(9)?).await?;
        let other = cx.open_again().await?;
        let mut tasks = Vec::new();
        for n in 0..8 {
            let (runs, lease) = (
                if n % 2 == 0 {
                    cx.runs.clone()
                } else {
                    other.clone()
                },
                claimed.lease,
            );
            let outcome = match n % 3 {
                0 => Outcome::Completed {
                    result: Some(json!(n)),
                },
                1 => failed(&n.to_string()),
                _ => Outcome::Killed,
            };
            tasks.push(async move { runs.end(lease, &outcome).await });
        }
        ensure_one_winner(&cx, claimed.lease.run, together(tasks).await?).await?;
    }
    Ok(())
}

pub(crate) async fn an_ending_and_a_forced_kill_have_one_winner(cx: Cx) -> Checked {
    for _ in 0..5 {
        let claimed = cx.running(NewRun::new("builder")).await?;
        let other = cx.open_again().await?;
        let mut tasks = Vec::new();
        for n in 0..6 {
            let (runs, lease) = (
                if n % 2 == 0 {
                    cx.runs.clone()
                } else {
                    other.clone()
                },
                claimed.lease,
            );
            tasks.push(async move {
                match n % 3 {
                    0 => runs.end(lease, &completed()).await,
                    1 => runs.force_kill(lease.run, &forced()).await,
                    _ => runs.end(lease, &failed("no")).await,
                }
            });
        }
        ensure_one_winner(&cx, claimed.lease.run, together(tasks).await?).await?;
    }
    Ok(())
}

/// Makes sure that one of the writes that raced was applied, and that it is the one that is stored.
async fn ensure_one_winner(
    cx: &Cx,
    run: RunId,
    answers: Vec<Result<runtree_repository::Write<Run>, runtree_repository::RepositoryError>>,
) -> Checked {
    let mut applied = Vec::new();
    for answer in answers {
        match answer? {
            runtree_repository::Write::Applied(run) => applied.push(run),
            runtree_repository::Write::Already(_) | runtree_repository::Write::Stale { .. } => {}
            runtree_repository::Write::NotFound => {
                return Err(Failure::new("a run that exists was not found"));
            }
        }
    }
    let winner = only(applied, "endings that race")?;
    let stored = cx.get(run).await?;
    ensure_eq!(
        (
            stored.status,
            stored.end_reason,
            stored.ended_at,
            &stored.result,
            &stored.error
        ),
        (
            winner.status,
            winner.end_reason,
            winner.ended_at,
            &winner.result,
            &winner.error
        ),
        "the ending that is stored is the one that was acknowledged"
    );
    let endings = [EventKind::Completed, EventKind::Failed, EventKind::Killed];
    let kinds = cx.kinds(run).await?;
    let count = kinds.iter().filter(|kind| endings.contains(kind)).count();
    ensure_eq!(count, 1, "endings in the history {kinds:?}");
    Ok(())
}

/// Makes sure that nothing an owner can do works under a token that is old, whatever the run does meanwhile.
pub(crate) async fn ensure_fenced(cx: &Cx, old: LeaseRef) -> Checked {
    let renewal = only(
        cx.runs.renew(&[old], LeaseTime::new(LONG)?).await?,
        "a renewal",
    )?;
    ensure_eq!(renewal, Renewal::Lost, "an old owner's renewal");
    let retry = failed_for_now("old", Duration::ZERO);
    for outcome in [completed(), failed("old"), retry, Outcome::Killed] {
        cx.runs
            .end(old, &outcome)
            .await?
            .stale("an old owner's ending")?;
    }
    cx.runs
        .release(old)
        .await?
        .stale("an old owner's release")?;
    cx.runs
        .record_child(old, &process("7")?)
        .await?
        .stale("an old owner's child")?;
    cx.runs
        .worktree_ready(old)
        .await?
        .stale("an old owner's worktree")?;
    ensure!(
        cx.rescue_dead(old).await?.is_empty(),
        "a rescue of an old token must take nothing"
    );
    Ok(())
}

/// Makes sure that no call changes a run that has ended.
async fn ensure_final(cx: &Cx, lease: LeaseRef, run: &Run) -> Checked {
    let retry = failed_for_now("late", Duration::ZERO);
    for outcome in [completed(), failed("late"), retry, Outcome::Killed] {
        // Whether it is the same ending again is another case's matter; it must not be applied.
        let answer = cx.runs.end(lease, &outcome).await?;
        ensure!(
            !matches!(answer, runtree_repository::Write::Applied(_)),
            "{outcome:?} of an ended run must not be applied"
        );
    }
    cx.runs
        .release(lease)
        .await?
        .stale("a release of an ended run")?;
    cx.runs
        .record_child(lease, &process("7")?)
        .await?
        .stale("a child of an ended run")?;
    cx.runs
        .worktree_ready(lease)
        .await?
        .stale("a worktree of an ended run")?;
    for request in [graceful(), forced()] {
        cx.runs
            .cancel(run.id, &request)
            .await?
            .already("a cancel of an ended run")?;
        cx.runs
            .force_kill(run.id, &request)
            .await?
            .already("a forced kill of an ended run")?;
    }
    let claim = cx.claim_of(ClaimOf::Run(run.id))?;
    ensure!(
        cx.runs.claim(&claim).await?.is_empty(),
        "an ended run must not be claimed"
    );
    let rescue = Rescue {
        proven_dead: vec![
            lease,
            LeaseRef {
                token: run.token,
                ..lease
            },
        ],
        limit: runtree_repository::Limit::MAX,
        spare: Vec::new(),
    };
    ensure!(
        cx.runs.rescue(&rescue).await?.is_empty(),
        "an ended run must not be rescued"
    );
    let renewal = only(
        cx.runs.renew(&[lease], LeaseTime::new(LONG)?).await?,
        "a renewal",
    )?;
    ensure_eq!(renewal, Renewal::Lost, "a renewal of an ended run");
    ensure_unchanged(cx, run, "every call on a run that has ended").await
}

/// Makes sure that a run is stored as it was, but for the instant of the last change: a rejection is written to its history.
pub(crate) async fn ensure_unchanged(cx: &Cx, run: &Run, by: &str) -> Checked {
    let mut stored = cx.get(run.id).await?;
    ensure!(
        stored.updated_at >= run.updated_at,
        "the instant of the last change must not go back"
    );
    stored.summary.updated_at = run.updated_at;
    ensure_eq!(stored, *run, "the run after {by}");
    Ok(())
}

fn unknown(cx: &Cx) -> Checked<LeaseRef> {
    Ok(LeaseRef {
        run: cx.run_id()?,
        token: Token::new(1),
    })
}
