//! A wish to stop: recorded once, never lost, never weakened, and enforced without the owner where it must be.

use std::time::Duration;

use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::{
    Actor, CancelMode, CancelRequest, EventKind, LeaseRef, NewRun, Reason, RunFilter,
};

use crate::cases::end::{ensure_fenced, ensure_unchanged};
use crate::context::{Cx, completed, failed_for_now, forced, graceful, together, with_attempts};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn a_waiting_run_ends_at_once(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let request = wish(CancelMode::Graceful)?;
    let ended = cx
        .runs
        .cancel(run.id, &request)
        .await?
        .applied("a cancel of a waiting run")?;
    ensure_eq!(ended.status, RunStatus::Killed, "the status");
    ensure_eq!(
        ended.end_reason,
        Some(EndReason::CancelledBeforeStart),
        "the end reason"
    );
    ensure!(
        ended.ended_at.is_some_and(|at| at >= run.created_at),
        "the run has ended, saw {:?}",
        ended.ended_at
    );
    ensure_eq!(
        (ended.started_at, ended.attempts),
        (None, 0),
        "start and attempts"
    );
    let cancel = ended.cancel.clone();
    ensure_eq!(
        cancel.map(|cancel| (cancel.reason, cancel.by)),
        Some((request.reason, request.by)),
        "why and by whom"
    );
    ensure_eq!(
        cx.get(run.id).await?,
        ended,
        "what is read is what the cancel answered"
    );
    ensure_eq!(
        cx.kinds(run.id).await?,
        [EventKind::Created, EventKind::Killed],
        "the history"
    );
    Ok(())
}

pub(crate) async fn a_scheduled_run_ends_at_once(cx: Cx) -> Checked {
    let due = cx
        .runs
        .now()
        .await?
        .saturating_add(Duration::from_secs(86_400));
    let run = cx.create(NewRun::new("builder").available_at(due)).await?;
    let ended = cx
        .runs
        .cancel(run.id, &graceful())
        .await?
        .applied("a cancel of a scheduled run")?;
    ensure_eq!(
        ended.end_reason,
        Some(EndReason::CancelledBeforeStart),
        "the end reason"
    );
    Ok(())
}

pub(crate) async fn a_run_that_waits_for_a_retry_ends_at_once(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(5)?).await?;
    let retry = failed_for_now("again", Duration::from_secs(3_600));
    cx.runs
        .end(claimed.lease, &retry)
        .await?
        .applied("a failure")?;
    let ended = cx
        .runs
        .cancel(claimed.lease.run, &graceful())
        .await?
        .applied("a cancel between two attempts")?;
    ensure_eq!(ended.status, RunStatus::Killed, "the status");
    ensure!(ended.has_ended(), "the run has ended");
    ensure_eq!(
        ended.started_at,
        claimed.run.started_at,
        "the start of the first attempt"
    );
    Ok(())
}

pub(crate) async fn a_running_run_is_asked_not_ended(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let request = wish(CancelMode::Graceful)?;
    let before = cx.runs.now().await?;
    let run = cx
        .runs
        .cancel(claimed.lease.run, &request)
        .await?
        .applied("a cancel of a running run")?;
    ensure_eq!(
        (run.status, run.ended_at),
        (RunStatus::Running, None),
        "status and end"
    );
    ensure_eq!(run.token, claimed.lease.token, "the token");
    ensure_eq!(run.owner, claimed.run.owner, "the owner");
    let cancel = run
        .cancel
        .clone()
        .ok_or_else(|| crate::failure::Failure::new("the intent must be stored"))?;
    ensure_eq!(
        (cancel.mode, &cancel.reason, &cancel.by),
        (request.mode, &request.reason, &request.by),
        "what was asked"
    );
    ensure!(
        cancel.requested_at >= before,
        "the intent was asked for after {before}, saw {}",
        cancel.requested_at
    );
    let deadline = cancel
        .requested_at
        .saturating_add(Duration::from_millis(1_500));
    ensure_eq!(cancel.deadline, Some(deadline), "the deadline");
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the cancel answered"
    );
    ensure_eq!(
        cx.kinds(run.id).await?.last(),
        Some(&EventKind::CancelRequested),
        "the last event"
    );
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("the owner still ends the run")?;
    Ok(())
}

pub(crate) async fn asking_again_changes_nothing(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let first = cx
        .runs
        .cancel(claimed.lease.run, &wish(CancelMode::Graceful)?)
        .await?
        .applied("a cancel")?;
    cx.pass(Duration::from_millis(2)).await?;
    let other = CancelRequest {
        by: Some(Actor::new("somebody else")?),
        grace: Some(Duration::from_secs(60)),
        ..graceful()
    };
    let again = cx
        .runs
        .cancel(claimed.lease.run, &other)
        .await?
        .already("a second cancel")?;
    ensure_eq!(
        again.cancel,
        first.cancel,
        "the intent after a second cancel"
    );
    ensure_unchanged(&cx, &first, "a second cancel").await?;
    let asked = cx.kinds(claimed.lease.run).await?;
    let asked = asked
        .iter()
        .filter(|kind| **kind == EventKind::CancelRequested)
        .count();
    ensure_eq!(asked, 1, "cancels in the history");
    Ok(())
}

pub(crate) async fn graceful_becomes_forced_and_never_back(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let id = claimed.lease.run;
    let first = cx
        .runs
        .cancel(id, &wish(CancelMode::Graceful)?)
        .await?
        .applied("a graceful cancel")?;
    cx.pass(Duration::from_millis(2)).await?;
    let upgraded = cx
        .runs
        .cancel(id, &forced())
        .await?
        .applied("a forced cancel after a graceful one")?;
    let (old, new) = (first.cancel.clone(), upgraded.cancel.clone());
    ensure_eq!(
        new.as_ref().map(|cancel| cancel.mode),
        Some(CancelMode::Forced),
        "the mode"
    );
    let kept = |cancel: Option<runtree_repository::CancelIntent>| {
        cancel.map(|cancel| {
            (
                cancel.requested_at,
                cancel.deadline,
                cancel.reason,
                cancel.by,
            )
        })
    };
    ensure_eq!(
        kept(new.clone()),
        kept(old),
        "what the forced cancel did not say anew"
    );
    ensure_eq!(upgraded.status, RunStatus::Running, "the status");
    ensure_eq!(
        cx.get(id).await?,
        upgraded,
        "what is read is what the cancel answered"
    );

    let back = cx
        .runs
        .cancel(id, &wish(CancelMode::Graceful)?)
        .await?
        .already("a graceful cancel after a forced one")?;
    ensure_eq!(back.cancel, new, "the intent after a graceful cancel");
    cx.runs
        .cancel(id, &forced())
        .await?
        .already("a second forced cancel")?;
    ensure_eq!(cx.get(id).await?.cancel, new, "the intent that is stored");
    Ok(())
}

pub(crate) async fn a_forced_cancel_may_say_anew_why_and_until_when(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let id = claimed.lease.run;
    let first = cx
        .runs
        .cancel(id, &wish(CancelMode::Graceful)?)
        .await?
        .applied("a graceful cancel")?;
    let request = CancelRequest {
        mode: CancelMode::Forced,
        reason: Some(Reason::new("it did not stop")?),
        by: None,
        grace: Some(Duration::ZERO),
    };
    let run = cx
        .runs
        .cancel(id, &request)
        .await?
        .applied("a forced cancel")?;
    let (old, new) = (first.cancel.clone(), run.cancel.clone());
    ensure_eq!(
        new.as_ref().and_then(|cancel| cancel.reason.clone()),
        request.reason,
        "why"
    );
    ensure_eq!(
        new.as_ref().and_then(|cancel| cancel.by.clone()),
        old.as_ref().and_then(|cancel| cancel.by.clone()),
        "by whom"
    );
    ensure!(
        new.as_ref().and_then(|cancel| cancel.deadline)
            < old.as_ref().and_then(|cancel| cancel.deadline),
        "the deadline is the new one: saw {new:?} after {old:?}"
    );
    Ok(())
}

pub(crate) async fn an_ended_run_is_left_as_it_is(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let run = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let history = cx.kinds(run.id).await?;
    for request in [graceful(), forced()] {
        let answer = cx
            .runs
            .cancel(run.id, &request)
            .await?
            .already("a cancel of an ended run")?;
        ensure_eq!(
            answer.cancel,
            None,
            "the intent of a run that ended without one"
        );
        cx.runs
            .force_kill(run.id, &request)
            .await?
            .already("a forced kill of an ended run")?;
    }
    ensure_eq!(cx.get(run.id).await?, run, "the run");
    ensure_eq!(cx.kinds(run.id).await?, history, "the history");
    Ok(())
}

pub(crate) async fn an_unknown_run_is_not_found(cx: Cx) -> Checked {
    let id = cx.run_id()?;
    cx.runs
        .cancel(id, &graceful())
        .await?
        .not_found("a cancel of an unknown run")?;
    cx.runs
        .force_kill(id, &forced())
        .await?
        .not_found("a forced kill of an unknown run")?;
    ensure_eq!(cx.ids(&RunFilter::new()).await?, [], "the runs");
    Ok(())
}

pub(crate) async fn a_forced_kill_fences_the_owner(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(9)?).await?;
    let id = claimed.lease.run;
    let run = cx
        .runs
        .force_kill(id, &wish(CancelMode::Graceful)?)
        .await?
        .applied("a forced kill")?;
    ensure_eq!(
        (run.status, run.end_reason),
        (RunStatus::Killed, Some(EndReason::Killed)),
        "status and reason"
    );
    ensure!(run.has_ended(), "the run has ended");
    ensure_eq!(run.token, claimed.lease.token.next(), "the token");
    ensure_eq!(
        (run.owner.clone(), run.lease_expires_at),
        (None, None),
        "owner and lease"
    );
    let by = run.cancel.as_ref().and_then(|cancel| cancel.by.clone());
    ensure_eq!(by, Some(Actor::new("user-1")?), "who killed the run");
    ensure_eq!(
        cx.get(id).await?,
        run,
        "what is read is what the kill answered"
    );
    ensure_eq!(
        cx.kinds(id).await?.last(),
        Some(&EventKind::Killed),
        "the last event"
    );
    ensure_eq!(cx.runs.leases(None).await?, [], "the live leases");
    ensure_fenced(&cx, claimed.lease).await?;
    ensure_unchanged(&cx, &run, "the fenced owner's writes").await
}

pub(crate) async fn a_forced_kill_of_a_waiting_run_is_a_cancel_before_start(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let ended = cx
        .runs
        .force_kill(run.id, &forced())
        .await?
        .applied("a forced kill of a waiting run")?;
    ensure_eq!(
        (ended.status, ended.end_reason),
        (RunStatus::Killed, Some(EndReason::CancelledBeforeStart)),
        "status and reason"
    );
    Ok(())
}

pub(crate) async fn a_forced_kill_keeps_the_first_wish(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let id = claimed.lease.run;
    let asked = cx
        .runs
        .cancel(id, &wish(CancelMode::Graceful)?)
        .await?
        .applied("a cancel")?;
    let other = CancelRequest {
        by: Some(Actor::new("somebody else")?),
        ..forced()
    };
    let killed = cx
        .runs
        .force_kill(id, &other)
        .await?
        .applied("a forced kill")?;
    let who = |run: &runtree_repository::Run| {
        run.cancel.as_ref().map(|cancel| {
            (
                cancel.mode,
                cancel.requested_at,
                cancel.by.clone(),
                cancel.reason.clone(),
            )
        })
    };
    ensure_eq!(
        who(&killed),
        who(&asked),
        "who asked first, how, when and why"
    );
    Ok(())
}

pub(crate) async fn a_forced_kill_without_a_wish_records_its_own(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let request = wish(CancelMode::Graceful)?;
    let killed = cx
        .runs
        .force_kill(claimed.lease.run, &request)
        .await?
        .applied("a forced kill")?;
    let recorded = killed.cancel.as_ref();
    ensure_eq!(
        recorded.map(|cancel| (cancel.mode, cancel.by.clone(), cancel.reason.clone())),
        Some((request.mode, request.by.clone(), request.reason.clone())),
        "the request as it was given"
    );
    Ok(())
}

pub(crate) async fn a_forced_kill_works_when_the_lease_has_expired(cx: Cx) -> Checked {
    let claimed = cx.expired(with_attempts(9)?).await?;
    let run = cx
        .runs
        .force_kill(claimed.lease.run, &forced())
        .await?
        .applied("a forced kill after the lease")?;
    ensure_eq!(run.status, RunStatus::Killed, "the status");
    ensure!(
        cx.rescue_expired().await?.is_empty(),
        "nothing is left to rescue"
    );
    Ok(())
}

pub(crate) async fn a_cancel_and_a_claim_of_a_waiting_run_agree(cx: Cx) -> Checked {
    for _ in 0..10 {
        let run = cx.create(NewRun::new("builder")).await?;
        let (claimer, canceller) = (cx.runs.clone(), cx.open_again().await?);
        let claim = cx.claim_of(runtree_repository::ClaimOf::Run(run.id))?;
        let id = run.id;
        let claiming = async move { claimer.claim(&claim).await.map(|claimed| claimed.len()) };
        let cancelling = async move { canceller.cancel(id, &graceful()).await.map(|_| 0) };
        type Task = std::pin::Pin<
            Box<dyn Future<Output = Result<usize, runtree_repository::RepositoryError>> + Send>,
        >;
        let tasks: Vec<Task> = vec![Box::pin(claiming), Box::pin(cancelling)];
        let answers = together(tasks).await?;
        let claimed: usize = answers.into_iter().sum::<Result<usize, _>>()?;
        let stored = cx.get(id).await?;
        ensure!(
            stored.cancel.is_some(),
            "a cancel that races with a claim must not be lost: saw {stored:?}"
        );
        let expected = if claimed == 1 {
            RunStatus::Running
        } else {
            RunStatus::Killed
        };
        ensure_eq!(
            stored.status,
            expected,
            "the status after a claim of {claimed} runs and a cancel"
        );
        ensure_eq!(
            stored.has_ended(),
            claimed == 0,
            "whether the run has ended"
        );
        if claimed == 1 {
            let lease = LeaseRef {
                run: id,
                token: stored.token,
            };
            cx.runs
                .end(lease, &completed())
                .await?
                .applied("the owner's completion")?;
        }
    }
    Ok(())
}

fn wish(mode: CancelMode) -> Checked<CancelRequest> {
    Ok(CancelRequest {
        mode,
        reason: Some(Reason::new("the user pressed stop\ntwice")?),
        by: Some(Actor::new("user-1")?),
        grace: Some(Duration::from_millis(1_500)),
    })
}
