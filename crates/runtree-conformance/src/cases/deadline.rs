//! Deadlines: a run that is late is asked to stop, then ended, and whoever wished so before keeps the word.

use std::collections::BTreeSet;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CancelCause, CancelIntent, CancelMode, Claimed, Ending, EventKind, LeaseTime, Limit, NewRun,
    Outcome, Overdue, Persistence, Renewal, Run, RunSummary, WorktreeState,
};

use crate::cases::end::{ensure_fenced, ensure_unchanged};
use crate::context::{
    BRIEF, Cx, LONG, SHORT, again_while_busy, completed, failed, failed_for_now, forced, graceful,
    only, together, with_attempts,
};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn a_waiting_run_that_is_late_fails_at_once(cx: Cx) -> Checked {
    let late = late(&cx).await?;
    let due = cx.create(with_attempts(9)?.deadline(late)).await?;
    let later = cx.runs.now().await?.saturating_add(LONG);
    let scheduled = cx
        .create(NewRun::new("builder").deadline(late).available_at(later))
        .await?;
    let between = cx.running(with_attempts(9)?.deadline(late)).await?;
    let retry = failed_for_now("again", LONG);
    let between = cx
        .runs
        .end(between.lease, &retry)
        .await?
        .applied("a failure")?;
    let changed = time_out(&cx, LONG).await?;
    let expected = BTreeSet::from([due.id, scheduled.id, between.id]);
    ensure_eq!(ids(&changed), expected, "the runs that were changed");
    for summary in changed {
        let run = cx.get(summary.id).await?;
        ensure_eq!(
            run.summary,
            summary,
            "what is read is what the look answered"
        );
        ensure_timed_out(&run)?;
        ensure_eq!(
            cx.kinds(run.id).await?.last(),
            Some(&EventKind::Failed),
            "the last event"
        );
        ensure_eq!(run.cancel, None, "nobody was asked to stop");
    }
    ensure_eq!(
        cx.get(due.id).await?.started_at,
        None,
        "the start of a run that never began"
    );
    ensure_eq!(time_out(&cx, LONG).await?, [], "a second look");
    ensure!(cx.claim_all().await?.is_empty(), "nothing waits any more");
    Ok(())
}

pub(crate) async fn a_run_that_is_not_late_is_left_alone(cx: Cx) -> Checked {
    let late = late(&cx).await?;
    cx.create(NewRun::new("builder")).await?;
    cx.create(NewRun::new("builder").deadline(Timestamp::MAX))
        .await?;
    cx.running(NewRun::new("builder").deadline(Timestamp::MAX))
        .await?;
    let ended = cx
        .ended(NewRun::new("builder").deadline(late), &completed())
        .await?;
    let deadline = cx.runs.now().await?.saturating_add(BRIEF);
    let run = cx.create(NewRun::new("builder").deadline(deadline)).await?;
    ensure_eq!(
        time_out(&cx, Duration::ZERO).await?,
        [],
        "a look before the deadline"
    );
    ensure_unchanged(&cx, &run, "a look before the deadline").await?;
    cx.wait_until(deadline).await?;
    let changed = time_out(&cx, Duration::ZERO).await?;
    ensure_eq!(
        ids(&changed),
        BTreeSet::from([run.id]),
        "a look at the instant of the deadline"
    );
    ensure_eq!(
        cx.get(ended.id).await?,
        ended,
        "a run that had ended before"
    );
    Ok(())
}

pub(crate) async fn a_running_run_that_is_late_is_asked_first(cx: Cx) -> Checked {
    let claimed = running(&cx).await?;
    let before = cx.runs.now().await?;
    let changed = only(time_out(&cx, LONG).await?, "the first look")?;
    let run = cx.get(claimed.lease.run).await?;
    ensure_eq!(
        run.summary,
        changed,
        "what is read is what the look answered"
    );
    ensure_eq!(
        (run.status, run.ended_at),
        (RunStatus::Running, None),
        "the status of a run that was asked to stop, and its end"
    );
    let intent = run
        .cancel
        .clone()
        .ok_or_else(|| Failure::new("the run is asked to stop"))?;
    ensure!(
        intent.requested_at >= before,
        "it was asked now: saw {intent:?}"
    );
    let mut expected = CancelIntent::new(
        CancelMode::Graceful,
        CancelCause::Deadline,
        intent.requested_at,
    );
    expected.deadline = Some(intent.requested_at.saturating_add(LONG));
    ensure_eq!(intent, expected, "the intent");
    let mut unasked = run.clone();
    unasked.summary.cancel = None;
    unasked.summary.updated_at = claimed.run.updated_at;
    ensure_eq!(unasked, claimed.run, "everything else of the run");
    let kinds = cx.kinds(run.id).await?;
    ensure_eq!(
        kinds.last(),
        Some(&EventKind::DeadlinePassed),
        "the last event"
    );
    ensure_eq!(
        time_out(&cx, Duration::ZERO).await?,
        [],
        "a look before its time to stop is over"
    );
    ensure_eq!(
        cx.kinds(run.id).await?,
        kinds,
        "the history after a look that changed nothing"
    );

    let renewal = cx
        .runs
        .renew(&[claimed.lease], LeaseTime::new(LONG)?)
        .await?;
    let told = match only(renewal, "a renewal")? {
        Renewal::Renewed { cancel, .. } => cancel,
        Renewal::Lost => return Err(Failure::new("a run that is asked to stop is not lost")),
    };
    ensure_eq!(told, Some(expected), "the intent that a renewal tells");
    Ok(())
}

pub(crate) async fn a_run_that_does_not_stop_in_time_is_ended_and_fenced(cx: Cx) -> Checked {
    let claimed = running(&cx).await?;
    only(time_out(&cx, SHORT).await?, "the first look")?;
    let intent = cx.get(claimed.lease.run).await?.cancel.clone();
    let until = intent.and_then(|intent| intent.deadline);
    let until = until.ok_or_else(|| Failure::new("it has a time to stop"))?;
    cx.wait_until(until).await?;
    let changed = only(
        time_out(&cx, LONG).await?,
        "the look after its time to stop",
    )?;
    let run = cx.get(claimed.lease.run).await?;
    ensure_eq!(
        run.summary,
        changed,
        "what is read is what the look answered"
    );
    ensure_timed_out(&run)?;
    ensure_eq!(run.token, claimed.lease.token.next(), "the token");
    let cause = run.cancel.as_ref().map(|intent| intent.cause);
    ensure_eq!(
        cause,
        Some(CancelCause::Deadline),
        "the cause that stays on record"
    );
    ensure_eq!(cx.runs.leases(None).await?, [], "the leases");
    ensure_eq!(
        cx.kinds(run.id).await?,
        [
            EventKind::Created,
            EventKind::Claimed,
            EventKind::DeadlinePassed,
            EventKind::Failed
        ],
        "the history"
    );
    ensure_fenced(&cx, claimed.lease).await?;
    ensure_unchanged(&cx, &run, "the owner that was fenced").await?;
    ensure_eq!(
        time_out(&cx, Duration::ZERO).await?,
        [],
        "a look at what has ended"
    );
    Ok(())
}

pub(crate) async fn a_grace_of_nothing_ends_with_the_second_look(cx: Cx) -> Checked {
    let claimed = running(&cx).await?;
    let asked = only(time_out(&cx, Duration::ZERO).await?, "the first look")?;
    ensure_eq!(
        asked.status,
        RunStatus::Running,
        "the status after the first look"
    );
    let ended = only(time_out(&cx, Duration::ZERO).await?, "the second look")?;
    ensure_eq!(ended.id, claimed.lease.run, "the run");
    ensure_timed_out(&cx.get(ended.id).await?)
}

pub(crate) async fn a_grace_beyond_the_end_of_time_ends_there(cx: Cx) -> Checked {
    running(&cx).await?;
    let asked = only(time_out(&cx, Duration::MAX).await?, "the first look")?;
    let until = asked.cancel.and_then(|intent| intent.deadline);
    ensure_eq!(
        until,
        Some(Timestamp::MAX),
        "until when the work may stop by itself"
    );
    Ok(())
}

pub(crate) async fn an_owner_that_obeys_leaves_a_run_that_timed_out(cx: Cx) -> Checked {
    let retry = failed_for_now("interrupted", Duration::ZERO);
    for outcome in [Outcome::Killed, failed("interrupted"), retry] {
        for in_many in [false, true] {
            let claimed = asked(&cx).await?;
            let lease = claimed.lease;
            if in_many {
                let outcome = outcome.clone();
                let ended = cx.runs.end_many(&[Ending { lease, outcome }]).await?;
                only(ended, "one ending of many")?.applied("an ending")?;
            } else {
                cx.runs.end(lease, &outcome).await?.applied("an ending")?;
            }
            let run = cx.get(lease.run).await?;
            ensure_timed_out(&run)?;
            ensure_eq!(run.token, lease.token, "the token: nobody had to be fenced");
            cx.runs
                .end(lease, &outcome)
                .await?
                .already("the same ending again")?;
        }
    }
    Ok(())
}

pub(crate) async fn a_release_or_a_rescue_of_a_late_run_times_it_out(cx: Cx) -> Checked {
    let claimed = asked(&cx).await?;
    let run = cx.runs.release(claimed.lease).await?.applied("a release")?;
    ensure_timed_out(&run)?;
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the release answered"
    );

    let claimed = asked(&cx).await?;
    let rescued = only(
        cx.rescue_dead(claimed.lease).await?,
        "a rescue of a dead owner's run",
    )?;
    ensure_timed_out(&cx.get(rescued.run.id).await?)?;

    let run = cx
        .create(with_attempts(9)?.deadline(late(&cx).await?))
        .await?;
    let claimed = cx.claim_for(run.id, SHORT).await?;
    only(time_out(&cx, LONG).await?, "a look")?;
    cx.wait_until(claimed.expires_at).await?;
    let rescued = only(cx.rescue_expired().await?, "a rescue of an expired run")?;
    ensure_eq!(rescued.run.id, run.id, "the run that was rescued");
    ensure_timed_out(&cx.get(run.id).await?)
}

pub(crate) async fn a_completion_wins_over_a_deadline(cx: Cx) -> Checked {
    let claimed = asked(&cx).await?;
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
    ensure_eq!(
        time_out(&cx, Duration::ZERO).await?,
        [],
        "a look after the completion"
    );
    Ok(())
}

pub(crate) async fn a_wish_that_came_before_the_deadline_keeps_its_word(cx: Cx) -> Checked {
    for request in [graceful(), forced()] {
        let claimed = running(&cx).await?;
        cx.runs
            .cancel(claimed.lease.run, &request)
            .await?
            .applied("a cancel")?;
        let before = cx.get(claimed.lease.run).await?;
        for _ in 0..2 {
            ensure_eq!(
                time_out(&cx, Duration::ZERO).await?,
                [],
                "a look at a cancelled run"
            );
        }
        ensure_eq!(cx.get(claimed.lease.run).await?, before, "the run");
        let cause = before.cancel.as_ref().map(|intent| intent.cause);
        ensure_eq!(cause, Some(CancelCause::Request), "the cause");
        let run = cx
            .runs
            .end(claimed.lease, &Outcome::Killed)
            .await?
            .applied("a stop")?;
        ensure_eq!(
            (run.status, run.end_reason),
            (RunStatus::Killed, Some(EndReason::Killed)),
            "status and reason of a run that somebody stopped"
        );
    }
    Ok(())
}

pub(crate) async fn a_wish_that_comes_after_the_deadline_does_not_change_its_cause(
    cx: Cx,
) -> Checked {
    let claimed = asked(&cx).await?;
    let id = claimed.lease.run;
    cx.runs
        .cancel(id, &graceful())
        .await?
        .already("a graceful cancel of a late run")?;
    let run = cx
        .runs
        .cancel(id, &forced())
        .await?
        .applied("a forced cancel of a late run")?;
    let intent = run.cancel.clone().map(|intent| (intent.mode, intent.cause));
    ensure_eq!(
        intent,
        Some((CancelMode::Forced, CancelCause::Deadline)),
        "mode and cause"
    );
    let run = cx
        .runs
        .end(claimed.lease, &Outcome::Killed)
        .await?
        .applied("a stop")?;
    ensure_timed_out(&run)?;

    let claimed = asked(&cx).await?;
    let run = cx
        .runs
        .force_kill(claimed.lease.run, &forced())
        .await?
        .applied("a forced kill")?;
    ensure_eq!(
        (run.status, run.end_reason),
        (RunStatus::Killed, Some(EndReason::Killed)),
        "status and reason of a late run that somebody killed"
    );
    Ok(())
}

pub(crate) async fn the_earliest_deadline_goes_first_up_to_the_limit(cx: Cx) -> Checked {
    let now = cx.runs.now().await?;
    let mut expected = Vec::new();
    for seconds in [3_u64, 9, 1, 7, 5] {
        let at = now.saturating_sub(Duration::from_secs(seconds));
        let run = cx.create(NewRun::new("builder").deadline(at)).await?;
        expected.push((at, run.id));
        if seconds == 7 {
            cx.claim(run.id).await?;
        }
    }
    // One that somebody asked to stop has no part in it, and takes no place.
    let at = now.saturating_sub(LONG);
    let stopped = cx.running(NewRun::new("builder").deadline(at)).await?;
    cx.runs
        .cancel(stopped.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    expected.sort();
    let overdue = Overdue {
        limit: Limit::new(2)?,
        grace: LONG,
    };
    for next in expected.chunks(2) {
        let changed = cx.runs.time_out(&overdue).await?;
        let next: BTreeSet<RunId> = next.iter().map(|(_, id)| *id).collect();
        ensure_eq!(ids(&changed), next, "the next two");
    }
    ensure_eq!(
        cx.runs.time_out(&overdue).await?,
        [],
        "a look when all were seen to"
    );
    Ok(())
}

pub(crate) async fn an_ending_by_deadline_wants_a_cleanup(cx: Cx) -> Checked {
    let late = late(&cx).await?;
    for persistence in [Persistence::Temporary, Persistence::Persistent] {
        let run = with_attempts(9)?.deadline(late);
        let fenced = cx.running_with_worktree(run.clone(), persistence).await?;
        only(time_out(&cx, Duration::ZERO).await?, "the first look")?;
        only(time_out(&cx, Duration::ZERO).await?, "the second look")?;
        let obeyed = cx.running_with_worktree(run.clone(), persistence).await?;
        only(time_out(&cx, LONG).await?, "a look")?;
        cx.runs
            .end(obeyed.lease, &Outcome::Killed)
            .await?
            .applied("a stop")?;
        let waiting = cx.running_with_worktree(run, persistence).await?;
        cx.runs.release(waiting.lease).await?.applied("a release")?;
        only(time_out(&cx, LONG).await?, "a look at a run that waits")?;
        for claimed in [fenced, obeyed, waiting] {
            let id = claimed.lease.run;
            ensure_timed_out(&cx.get(id).await?)?;
            let wanted = match persistence {
                Persistence::Temporary => (1, WorktreeState::Ready, EventKind::CleanupWanted),
                Persistence::Persistent => (0, WorktreeState::Kept, EventKind::WorktreeKept),
            };
            let seen = (
                cx.cleanups(id).await?.len(),
                only(cx.worktrees(id).await?, "the worktrees")?.state,
                cx.kinds(id).await?.pop().unwrap_or(EventKind::Created),
            );
            ensure_eq!(seen, wanted, "clean-ups, worktree and last event");
        }
    }
    Ok(())
}

pub(crate) async fn concurrent_looks_change_each_run_once(cx: Cx) -> Checked {
    let late = late(&cx).await?;
    let runs = (0..20).map(|_| NewRun::new("builder").deadline(late));
    let runs = cx.create_many(runs).await?;
    for run in runs.iter().take(10) {
        cx.claim(run.id).await?;
    }
    let other = cx.open_again().await?;
    let tasks = (0..6).map(|n| {
        let handle = if n % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        let overdue = Overdue {
            limit: Limit::MAX,
            grace: LONG,
        };
        async move { again_while_busy(|| handle.time_out(&overdue)).await }
    });
    let mut seen = Vec::new();
    for answer in together(tasks.collect()).await? {
        seen.extend(answer?.into_iter().map(|run| run.id));
    }
    // A look that passes over what others hold is allowed, so what is left is seen to here.
    seen.extend(ids(&time_out(&cx, LONG).await?));
    let seen = crate::context::distinct(seen, "the runs that were changed")?;
    ensure_eq!(seen.len(), 20, "the runs that were changed");
    for run in runs {
        let kinds = cx.kinds(run.id).await?;
        let looks = [EventKind::DeadlinePassed, EventKind::Failed];
        let looks = kinds.iter().filter(|kind| looks.contains(kind)).count();
        ensure_eq!(looks, 1, "what the history tells of the looks: {kinds:?}");
    }
    Ok(())
}

pub(crate) async fn another_namespaces_runs_are_left_alone(cx: Cx) -> Checked {
    let run = cx
        .create(NewRun::new("builder").deadline(late(&cx).await?))
        .await?;
    let other = cx.open_namespace("tenant").await?;
    let overdue = Overdue {
        limit: Limit::MAX,
        grace: Duration::ZERO,
    };
    ensure_eq!(
        other.time_out(&overdue).await?,
        [],
        "a look from another namespace"
    );
    ensure_eq!(cx.get(run.id).await?, run, "the run");
    Ok(())
}

pub(crate) async fn a_word_of_a_newer_version_is_left_alone(cx: Cx) -> Checked {
    let waiting = cx
        .create(NewRun::new("builder").deadline(late(&cx).await?))
        .await?;
    let claimed = running(&cx).await?;
    for id in [waiting.id, claimed.lease.run] {
        cx.write_status(id, "suspended").await?;
        let before = cx.get(id).await?;
        for _ in 0..2 {
            ensure_eq!(
                ids_of_all(&cx).await?.contains(&id),
                false,
                "whether a look changed it"
            );
        }
        ensure_unchanged(&cx, &before, "a look at an unknown status").await?;
    }
    Ok(())
}

async fn ids_of_all(cx: &Cx) -> Checked<BTreeSet<RunId>> {
    Ok(ids(&time_out(cx, Duration::ZERO).await?))
}

/// An instant that has passed.
async fn late(cx: &Cx) -> Checked<Timestamp> {
    Ok(cx.runs.now().await?.saturating_sub(Duration::from_secs(1)))
}

/// A running run whose deadline has passed.
async fn running(cx: &Cx) -> Checked<Claimed> {
    cx.running(with_attempts(9)?.deadline(late(cx).await?))
        .await
}

/// A running run that was asked to stop because its deadline has passed.
async fn asked(cx: &Cx) -> Checked<Claimed> {
    let claimed = running(cx).await?;
    let asked = only(time_out(cx, LONG).await?, "a look at the only late run")?;
    ensure_eq!(
        asked.id,
        claimed.lease.run,
        "the run that was asked to stop"
    );
    Ok(claimed)
}

async fn time_out(cx: &Cx, grace: Duration) -> Checked<Vec<RunSummary>> {
    let overdue = Overdue {
        limit: Limit::MAX,
        grace,
    };
    Ok(cx.runs.time_out(&overdue).await?)
}

fn ids(runs: &[RunSummary]) -> BTreeSet<RunId> {
    runs.iter().map(|run| run.id).collect()
}

fn ensure_timed_out(run: &Run) -> Checked {
    ensure_eq!(
        (run.status, run.end_reason),
        (RunStatus::Failed, Some(EndReason::TimedOut)),
        "status and reason of {}",
        run.id
    );
    ensure!(run.has_ended(), "the run has ended");
    ensure_eq!(
        (&run.owner, run.lease_expires_at),
        (&None, None),
        "owner and lease"
    );
    Ok(())
}
