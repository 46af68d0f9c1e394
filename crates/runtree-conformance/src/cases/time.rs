//! One time line: instants keep their microseconds and never run backwards, whatever the clock does.

use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::time::{Clock, Timestamp};
use runtree_repository::{
    Annotation, Because, CancelRequest, CleanupOutcome, ErrorText, LeaseTime, Limit, NewRun,
    Outcome, Overdue, Persistence, Renewal, RetryRun, RunFilter,
};

use crate::context::{
    BRIEF, Cx, LONG, completed, failed, failed_for_now, graceful, only, start, with_attempts,
};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq, take};

pub(crate) async fn instants_keep_their_microseconds(cx: Cx) -> Checked {
    let micros = [
        0,
        -1,
        1,
        999_999,
        1_750_586_399_999_999,
        -62_135_596_800_000_000,
        253_402_300_799_999_999,
    ];
    for micros in micros {
        let at = Timestamp::from_unix_micros(micros)
            .map_err(|e| crate::failure::Failure::new(e.to_string()))?;
        let run = cx.create(NewRun::new("builder").available_at(at)).await?;
        ensure_eq!(run.available_at, at, "when the run may start");
        ensure_eq!(
            cx.get(run.id).await?.available_at,
            at,
            "when the stored run may start"
        );
    }
    Ok(())
}

pub(crate) async fn a_run_that_was_due_long_ago_is_claimed_and_one_due_at_the_end_of_time_is_not(
    cx: Cx,
) -> Checked {
    let past = cx
        .create(NewRun::new("builder").available_at(Timestamp::MIN))
        .await?;
    cx.create(NewRun::new("builder").available_at(Timestamp::MAX))
        .await?;
    let claimed = only(cx.claim_all().await?, "a claim of what is due")?;
    ensure_eq!(claimed.run.id, past.id, "the run that is due");
    Ok(())
}

pub(crate) async fn what_waits_again_is_due_at_once(cx: Cx) -> Checked {
    let released = cx.running(with_attempts(2)?).await?;
    cx.clock.advance(Duration::from_micros(7));
    let run = cx
        .runs
        .release(released.lease)
        .await?
        .applied("a release")?;
    let now = cx.clock.now();
    ensure_eq!(
        (run.available_at, run.updated_at),
        (now, now),
        "the instants of a release"
    );
    let claimed = cx.claim(run.id).await?;
    cx.clock.advance(Duration::from_micros(7));
    let run = only(cx.rescue_dead(claimed.lease).await?, "a rescue")?.run;
    let now = cx.clock.now();
    ensure_eq!(
        (run.available_at, run.updated_at),
        (now, now),
        "the instants of a rescue"
    );
    Ok(())
}

pub(crate) async fn a_cleanup_ends_when_its_lease_does(cx: Cx) -> Checked {
    let id = completed_with_worktree(&cx).await?;
    let first = cx.cleanup(id).await?;
    let expires_at = cx.clock.now().saturating_add(LONG);
    ensure_eq!(
        first.expires_at,
        expires_at,
        "when the lease of the clean-up ends"
    );
    cx.clock
        .set(expires_at.saturating_sub(Duration::from_micros(1)));
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "a clean-up must not be taken a microsecond before its lease ends"
    );
    cx.clock.set(expires_at);
    ensure_eq!(
        cx.cleanup(id).await?.tries,
        1,
        "the tries before the second"
    );
    Ok(())
}

pub(crate) async fn a_delay_beyond_the_end_of_time_ends_there(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(2)?).await?;
    let outcome = failed_for_now("never again", Duration::MAX);
    let run = cx
        .runs
        .end(claimed.lease, &outcome)
        .await?
        .applied("a failure")?;
    ensure_eq!(
        run.available_at,
        Timestamp::MAX,
        "when the run may start again"
    );
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the ending answered"
    );

    let claimed = cx.running(NewRun::new("builder")).await?;
    let patient = CancelRequest {
        grace: Some(Duration::MAX),
        ..graceful()
    };
    let run = cx
        .runs
        .cancel(claimed.lease.run, &patient)
        .await?
        .applied("a cancel")?;
    let deadline = run.cancel.as_ref().and_then(|cancel| cancel.deadline);
    ensure_eq!(
        deadline,
        Some(Timestamp::MAX),
        "the deadline of a cancel without end"
    );
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the cancel answered"
    );

    let id = completed_with_worktree(&cx).await?;
    let task = cx.cleanup(id).await?;
    let outcome = CleanupOutcome::Postponed {
        error: ErrorText::lossy("never again"),
        retry_after: Duration::MAX,
    };
    cx.runs
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .applied("a postponement")?;
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "a clean-up that waits for ever must not be taken"
    );
    Ok(())
}

pub(crate) async fn the_order_of_a_life_is_the_order_of_its_instants(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    cx.pass(Duration::from_micros(1)).await?;
    let claimed = cx.claim(run.id).await?;
    cx.pass(Duration::from_micros(1)).await?;
    let asked = cx
        .runs
        .cancel(run.id, &graceful())
        .await?
        .applied("a cancel")?;
    cx.pass(Duration::from_micros(1)).await?;
    let ended = cx
        .runs
        .end(claimed.lease, &Outcome::Killed)
        .await?
        .applied("the report of a stop")?;
    let life = [
        Some(ended.created_at),
        ended.started_at,
        ended.cancel.as_ref().map(|cancel| cancel.requested_at),
        ended.ended_at,
    ];
    ensure!(
        life.is_sorted_by(|one, next| one < next) && life[0].is_some(),
        "created, started, asked and ended: saw {life:?}"
    );
    let changes = [
        run.updated_at,
        claimed.run.updated_at,
        asked.updated_at,
        ended.updated_at,
    ];
    ensure!(
        changes.is_sorted_by(|one, next| one < next),
        "every change moves the instant of the last change: saw {changes:?}"
    );
    let events: Vec<Timestamp> = cx
        .events(run.id)
        .await?
        .iter()
        .map(|event| event.at)
        .collect();
    ensure!(
        events.is_sorted(),
        "the instants of the history: saw {events:?}"
    );
    Ok(())
}

pub(crate) async fn everything_is_stamped_with_the_clock_that_was_passed(cx: Cx) -> Checked {
    let now = start()?;
    ensure_eq!(cx.clock.now(), now, "the clock that was passed");
    ensure_eq!(
        cx.runs.now().await?,
        now,
        "the instant that the store would stamp a write with"
    );
    let run = cx.create(NewRun::new("builder")).await?;
    ensure_eq!(
        (run.created_at, run.available_at, run.updated_at),
        (now, now, now),
        "the instants of a new run"
    );
    cx.clock.advance(Duration::from_micros(7));
    let claimed = cx.claim(run.id).await?;
    let now = cx.clock.now();
    ensure_eq!(
        (claimed.run.started_at, claimed.run.updated_at),
        (Some(now), now),
        "the instants of a claim"
    );
    ensure_eq!(
        claimed.expires_at,
        now.saturating_add(LONG),
        "when the lease ends"
    );
    cx.clock.advance(Duration::from_micros(7));
    let now = cx.clock.now();
    let renewal = only(
        cx.runs
            .renew(&[claimed.lease], LeaseTime::new(LONG)?)
            .await?,
        "a renewal",
    )?;
    let expires_at =
        take!(renewal, Renewal::Renewed { expires_at, .. } => expires_at, "a renewal in time");
    ensure_eq!(
        expires_at,
        now.saturating_add(LONG),
        "when the renewed lease ends"
    );
    let run = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure_eq!(
        (run.ended_at, run.updated_at),
        (Some(now), now),
        "the instants of an ending"
    );
    let last = cx.events(run.id).await?.pop().map(|event| event.at);
    ensure_eq!(last, Some(now), "the instant of the last event");
    Ok(())
}

pub(crate) async fn a_lease_ends_at_its_instant_and_not_before(cx: Cx) -> Checked {
    for (earlier, accepted) in [(1, true), (0, false)] {
        let claimed = cx.running(with_attempts(2)?).await?;
        cx.clock.set(
            claimed
                .expires_at
                .saturating_sub(Duration::from_micros(earlier)),
        );
        ensure_eq!(
            cx.rescue_expired().await?.is_empty(),
            accepted,
            "whether nothing is rescued {earlier} microseconds before the end"
        );
        let again = cx.running(with_attempts(2)?).await?;
        cx.clock.set(
            again
                .expires_at
                .saturating_sub(Duration::from_micros(earlier)),
        );
        let answer = cx.runs.end(again.lease, &completed()).await?;
        ensure_eq!(
            answer.accepted().is_some(),
            accepted,
            "whether a completion is accepted {earlier} microseconds before the end"
        );
        for run in cx.ids(&RunFilter::new()).await? {
            cx.runs.force_kill(run, &graceful()).await?.accepted();
        }
    }
    Ok(())
}

pub(crate) async fn a_clock_that_steps_back_does_not_turn_a_run_back(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let id = claimed.lease.run;
    let before = cx.get(id).await?;
    cx.clock.step_back(Duration::from_secs(600));
    let asked = cx.runs.cancel(id, &graceful()).await?.applied("a cancel")?;
    ensure!(
        asked.updated_at >= before.updated_at,
        "the instant of the last change went back from {} to {}",
        before.updated_at,
        asked.updated_at
    );
    let ended = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure!(
        ended.updated_at >= before.updated_at,
        "the instant of the last change went back from {} to {}",
        before.updated_at,
        ended.updated_at
    );
    ensure!(
        ended.ended_at >= ended.started_at,
        "the run started at {:?} and ended at {:?}",
        ended.started_at,
        ended.ended_at
    );
    ensure_eq!(
        ended.duration(),
        Some(Duration::ZERO),
        "the duration by a clock that stepped back"
    );
    let worktree = only(cx.worktrees(id).await?, "the worktrees")?;
    ensure!(
        worktree.updated_at >= worktree.created_at,
        "the worktree changed at {} and was planned at {}",
        worktree.updated_at,
        worktree.created_at
    );
    ensure_eq!(
        cx.get(id).await?,
        ended,
        "what is read is what the ending answered"
    );
    Ok(())
}

pub(crate) async fn a_clock_that_steps_back_does_not_end_a_run_before_it_was_made(
    cx: Cx,
) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    cx.clock.step_back(Duration::from_secs(600));
    let ended = cx
        .runs
        .cancel(run.id, &graceful())
        .await?
        .applied("a cancel")?;
    ensure!(
        ended.ended_at >= Some(run.created_at),
        "the run was created at {} and ended at {:?}",
        run.created_at,
        ended.ended_at
    );
    ensure!(
        ended.updated_at >= run.created_at,
        "the run was created at {} and last changed at {}",
        run.created_at,
        ended.updated_at
    );
    Ok(())
}

pub(crate) async fn a_clock_that_steps_back_does_not_lose_a_waiting_run(cx: Cx) -> Checked {
    let run = cx.create(with_attempts(3)?).await?;
    cx.clock.step_back(Duration::from_secs(600));
    ensure!(
        cx.claim_all().await?.is_empty(),
        "a run is not due before its instant"
    );
    cx.clock.advance(Duration::from_secs(600));
    let claimed = cx.claim(run.id).await?;
    cx.clock.step_back(Duration::from_secs(600));
    let renewal = only(
        cx.runs
            .renew(&[claimed.lease], LeaseTime::new(LONG)?)
            .await?,
        "a renewal",
    )?;
    take!(renewal, Renewal::Renewed { .. } => (), "a renewal after the clock stepped back");
    let failed = cx
        .runs
        .end(claimed.lease, &failed("no"))
        .await?
        .applied("a failure")?;
    ensure!(
        failed.ended_at >= failed.started_at,
        "the run started at {:?} and ended at {:?}",
        failed.started_at,
        failed.ended_at
    );
    Ok(())
}

async fn completed_with_worktree(cx: &Cx) -> Checked<RunId> {
    let run = NewRun::new("builder");
    let claimed = cx
        .running_with_worktree(run, Persistence::Temporary)
        .await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    Ok(claimed.lease.run)
}

pub(crate) async fn deadlines_keep_their_microseconds(cx: Cx) -> Checked {
    for at in [
        Timestamp::MIN,
        Timestamp::MAX,
        start()?.saturating_add(Duration::from_micros(1)),
    ] {
        let run = cx.create(NewRun::new("builder").deadline(at)).await?;
        ensure_eq!(run.deadline, Some(at), "the deadline");
        ensure_eq!(
            cx.get(run.id).await?.deadline,
            Some(at),
            "the stored deadline"
        );
        let cancelled = cx
            .runs
            .cancel(run.id, &graceful())
            .await?
            .applied("a cancel")?;
        let request = RetryRun {
            deadline: Some(at),
            ..cx.retry_of(cancelled.id)?
        };
        cx.runs.retry(&request).await?.accepted();
        ensure_eq!(
            cx.get(request.id).await?.deadline,
            Some(at),
            "the deadline of a retry"
        );
    }
    Ok(())
}

pub(crate) async fn a_deadline_passes_at_its_instant_and_not_before(cx: Cx) -> Checked {
    let deadline = cx.clock.now().saturating_add(LONG);
    let run = cx.create(NewRun::new("builder").deadline(deadline)).await?;
    let claimed = cx
        .running(NewRun::new("builder").deadline(deadline))
        .await?;
    let look = |grace| Overdue {
        limit: Limit::MAX,
        grace,
    };
    cx.clock
        .set(deadline.saturating_sub(Duration::from_micros(1)));
    let early = cx.runs.time_out(&look(BRIEF)).await?;
    ensure_eq!(early, [], "a look a microsecond before the deadline");
    cx.clock.set(deadline);
    ensure_eq!(
        cx.runs.time_out(&look(BRIEF)).await?.len(),
        2,
        "the late runs at the deadline"
    );
    ensure_eq!(
        cx.get(run.id).await?.ended_at,
        Some(deadline),
        "when the waiting run ended"
    );
    let until = deadline.saturating_add(BRIEF);
    cx.clock.set(until.saturating_sub(Duration::from_micros(1)));
    let early = cx.runs.time_out(&look(BRIEF)).await?;
    ensure_eq!(
        early,
        [],
        "a look a microsecond before its time to stop is over"
    );
    cx.clock.set(until);
    ensure_eq!(
        cx.runs.time_out(&look(BRIEF)).await?.len(),
        1,
        "the late runs at that instant"
    );
    let ended = cx.get(claimed.lease.run).await?.ended_at;
    ensure_eq!(ended, Some(until), "when the running run was ended");
    Ok(())
}

pub(crate) async fn a_place_is_free_at_the_instant_that_its_lease_ends(cx: Cx) -> Checked {
    let limited = || NewRun::new("builder").concurrency("gpu", std::num::NonZeroU32::MIN);
    let holder = cx.running(limited()).await?;
    let next = cx.create(limited()).await?;
    cx.clock
        .set(holder.expires_at.saturating_sub(Duration::from_micros(1)));
    let claim = cx.claim_of(runtree_repository::ClaimOf::ANY)?;
    ensure!(
        cx.runs.claim(&claim).await?.is_empty(),
        "a place must not be taken a microsecond before its lease ends"
    );
    let why = cx.runs.explain(next.id).await?.map(|why| why.because);
    let holders = vec![holder.lease.run];
    let concurrency = next.concurrency.clone();
    let limit = concurrency.map(|concurrency| Because::LimitReached {
        concurrency,
        holders,
    });
    ensure_eq!(
        why,
        limit.map(|limit| vec![limit]),
        "why the next run waits"
    );
    cx.clock.set(holder.expires_at);
    let why = cx.runs.explain(next.id).await?.map(|why| why.because);
    ensure_eq!(
        why,
        Some(vec![Because::Waiting { ahead: 0 }]),
        "why it waits at that instant"
    );
    ensure_eq!(
        only(cx.runs.claim(&claim).await?, "a claim")?.run.id,
        next.id,
        "the next run"
    );
    Ok(())
}

pub(crate) async fn a_clock_that_steps_back_does_not_turn_what_is_learnt_back(cx: Cx) -> Checked {
    let before = cx.clock.now();
    cx.clock.advance(Duration::from_secs(60));
    let waiting = cx.create(NewRun::new("builder").deadline(before)).await?;
    let claimed = cx.running(NewRun::new("builder").deadline(before)).await?;
    let ended = cx.ended(NewRun::new("builder"), &completed()).await?;
    cx.clock.set(before);
    for run in [&waiting, &claimed.run, &ended] {
        let note = Annotation::new().metadata("k", 1);
        let after = cx
            .runs
            .annotate(run.id, &note)
            .await?
            .applied("an annotation")?;
        ensure_eq!(
            after.updated_at,
            run.updated_at,
            "the last change of {}",
            run.id
        );
    }
    let look = Overdue {
        limit: Limit::MAX,
        grace: Duration::ZERO,
    };
    ensure_eq!(cx.runs.time_out(&look).await?.len(), 2, "the late runs");
    ensure_eq!(
        cx.runs.time_out(&look).await?.len(),
        1,
        "the late runs that do not stop"
    );
    for run in [&waiting, &claimed.run] {
        let after = cx.get(run.id).await?;
        ensure_eq!(
            after.updated_at,
            run.updated_at,
            "the last change of {}",
            run.id
        );
        ensure_eq!(
            after.ended_at,
            Some(run.created_at),
            "the end of {}",
            run.id
        );
    }
    let retry = cx.retry_of(ended.id)?;
    cx.runs.retry(&retry).await?.accepted();
    ensure_eq!(
        cx.get(ended.id).await?.updated_at,
        ended.updated_at,
        "the last change of the ended"
    );
    let new = cx.get(retry.id).await?;
    ensure_eq!(
        (new.created_at, new.updated_at),
        (before, before),
        "the instants of the retry"
    );
    Ok(())
}
