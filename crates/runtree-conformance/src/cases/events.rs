//! The history of a run: complete, in order, without gaps, rejected writes included.

use std::time::Duration;

use runtree_repository::{
    CleanupOutcome, EventKind, EventNumber, Limit, NewRun, Outcome, Persistence, Token,
};
use serde_json::json;

use crate::context::{
    Cx, completed, failed, failed_for_now, graceful, only, process, together, with_attempts,
};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn the_story_of_a_run_is_told_in_order(cx: Cx) -> Checked {
    let first = cx
        .running_with_worktree(with_attempts(3)?, Persistence::Temporary)
        .await?;
    let id = first.lease.run;
    cx.runs
        .end(first.lease, &failed_for_now("flaky", Duration::ZERO))
        .await?
        .applied("a failure")?;
    let second = cx.claim(id).await?;
    cx.runs.release(second.lease).await?.applied("a release")?;
    let third = cx.claim(id).await?;
    only(cx.rescue_dead(third.lease).await?, "a rescue")?;
    cx.runs
        .end(third.lease, &completed())
        .await?
        .stale("a completion after the rescue")?;
    let fourth = cx.claim(id).await?;
    cx.runs.cancel(id, &graceful()).await?.applied("a cancel")?;
    cx.runs
        .end(fourth.lease, &Outcome::Killed)
        .await?
        .applied("the report of a stop")?;
    let task = cx.cleanup(id).await?;
    let outcome = CleanupOutcome::Removed { salvage: None };
    cx.runs
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .applied("a removal")?;

    let kinds = cx.kinds(id).await?;
    let expected = [
        EventKind::Created,
        EventKind::Claimed,
        EventKind::WorktreeReady,
        EventKind::RetryPlanned,
        EventKind::Claimed,
        EventKind::Released,
        EventKind::Claimed,
        EventKind::Rescued,
        EventKind::Rejected,
        EventKind::Claimed,
        EventKind::CancelRequested,
        EventKind::Killed,
        EventKind::CleanupWanted,
        EventKind::WorktreeRemoved,
    ];
    ensure_eq!(kinds, expected, "the history");
    ensure_numbered(&cx, id).await
}

pub(crate) async fn numbers_have_no_gaps_when_writes_race(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(9)?).await?;
    let other = cx.open_again().await?;
    let child = process("7")?;
    let tasks = (0..12).map(|n| {
        let child = child.clone();
        let (runs, lease) = (
            if n % 2 == 0 {
                cx.runs.clone()
            } else {
                other.clone()
            },
            claimed.lease,
        );
        async move {
            match n % 4 {
                0 => runs.cancel(lease.run, &graceful()).await.map(drop),
                1 => runs.end(lease, &failed("no")).await.map(drop),
                2 => runs.record_child(lease, &child).await.map(drop),
                _ => runs.release(lease).await.map(drop),
            }
        }
    });
    for answer in together(tasks.collect()).await? {
        answer?;
    }
    ensure_numbered(&cx, claimed.lease.run).await
}

pub(crate) async fn pages_follow_the_numbers(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(50)?).await?;
    let id = claimed.lease.run;
    cx.runs.release(claimed.lease).await?.applied("a release")?;
    for _ in 0..3 {
        let claimed = cx.claim(id).await?;
        cx.runs.release(claimed.lease).await?.applied("a release")?;
    }
    let all = cx.events(id).await?;
    ensure_eq!(all.len(), 9, "the events");
    let mut after = EventNumber::START;
    let mut seen = Vec::new();
    loop {
        let page = cx.runs.events(id, after, Limit::new(2)?).await?;
        let Some(last) = page.last() else { break };
        ensure!(
            page.len() <= 2 && last.number > after,
            "a page of two after {after:?}: saw {page:?}"
        );
        after = last.number;
        seen.extend(page);
    }
    ensure_eq!(seen, all, "the events in pages of two");
    ensure_eq!(
        cx.runs.events(id, after, Limit::MAX).await?,
        [],
        "the events after the last"
    );
    Ok(())
}

pub(crate) async fn a_rejected_write_says_what_was_tried_under_which_token(cx: Cx) -> Checked {
    let old = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let id = old.lease.run;
    only(cx.rescue_dead(old.lease).await?, "a rescue")?;
    let before = cx.events(id).await?.len();
    cx.runs
        .end(old.lease, &completed())
        .await?
        .stale("an old owner's completion")?;
    cx.runs
        .end(old.lease, &failed("old"))
        .await?
        .stale("an old owner's failure")?;
    cx.runs
        .release(old.lease)
        .await?
        .stale("an old owner's release")?;
    let events = cx.events(id).await?;
    let rejected = &events[before..];
    ensure_eq!(rejected.len(), 3, "the events of three rejected writes");
    let words = [
        json!({"event": "complete"}),
        json!({"event": "fail"}),
        json!({"event": "release"}),
    ];
    for (event, word) in rejected.iter().zip(words) {
        ensure_eq!(event.kind, EventKind::Rejected, "the kind of {event:?}");
        ensure_eq!(
            event.token,
            old.lease.token,
            "the token that the rejected write showed"
        );
        ensure_eq!(event.detail, Some(word), "what was tried");
    }
    Ok(())
}

pub(crate) async fn answers_that_change_nothing_leave_no_event(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let id = claimed.lease.run;
    cx.runs.cancel(id, &graceful()).await?.applied("a cancel")?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let history = cx.kinds(id).await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .already("the same completion")?;
    cx.runs
        .cancel(id, &graceful())
        .await?
        .already("a cancel of an ended run")?;
    ensure!(cx.claim_all().await?.is_empty(), "nothing waits");
    ensure!(cx.rescue_expired().await?.is_empty(), "nothing has expired");
    cx.runs.find(&id.short()).await?;
    ensure_eq!(cx.kinds(id).await?, history, "the history");
    Ok(())
}

pub(crate) async fn an_unknown_run_has_no_history(cx: Cx) -> Checked {
    let id = cx.run_id()?;
    ensure_eq!(cx.events(id).await?, [], "the events of an unknown run");
    Ok(())
}

pub(crate) async fn events_carry_the_token_of_their_time(cx: Cx) -> Checked {
    let first = cx.running(with_attempts(9)?).await?;
    let id = first.lease.run;
    cx.runs.release(first.lease).await?.applied("a release")?;
    let second = cx.claim(id).await?;
    cx.runs
        .end(second.lease, &completed())
        .await?
        .applied("a completion")?;
    let tokens: Vec<Token> = cx
        .events(id)
        .await?
        .iter()
        .map(|event| event.token)
        .collect();
    let (one, two) = (first.lease.token, second.lease.token);
    ensure_eq!(
        tokens,
        [Token::NONE, one, one, two, two],
        "the tokens of created, claimed, released, claimed, completed"
    );
    Ok(())
}

/// Makes sure that the events of a run are numbered 1, 2, 3 and so on.
async fn ensure_numbered(cx: &Cx, id: runtree_repository::id::RunId) -> Checked {
    let events = cx.events(id).await?;
    for (event, number) in events.iter().zip(1..) {
        ensure_eq!(
            event.number,
            EventNumber::new(number),
            "the number of {event:?}"
        );
    }
    Ok(())
}
