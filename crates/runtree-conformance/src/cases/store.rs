//! The store itself: what it declares, what other handles see of it, and what outlives them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::time::Timestamp;
use runtree_repository::{
    Annotation, Change, Claim, ClaimOf, Created, Ending, EventKind, Limit, NewRun, Outcome,
    Persistence, Retention, Run, RunFilter, Usage, UserId, Write,
};
use serde_json::json;

use crate::cases::end::ensure_unchanged;
use crate::context::{Cx, completed, forced, graceful, only, with_attempts};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn it_says_of_itself_what_the_backend_declared(cx: Cx) -> Checked {
    ensure_eq!(
        cx.runs.capabilities(),
        cx.declared.capabilities,
        "the capabilities"
    );
    ensure_eq!(
        cx.open_again().await?.capabilities(),
        cx.declared.capabilities,
        "the capabilities of another handle"
    );
    Ok(())
}

pub(crate) async fn handles_see_what_others_wrote(cx: Cx) -> Checked {
    let other = cx.open_again().await?;
    let run = cx.create(with_attempts(2)?.user("user-1")).await?;
    ensure_eq!(
        other.get(run.id).await?.as_ref(),
        Some(&run),
        "the run that the first handle made"
    );
    let claimed = only(
        other.claim(&cx.claim_of(ClaimOf::ANY)?).await?,
        "a claim by the other handle",
    )?;
    ensure_eq!(
        cx.get(run.id).await?,
        claimed.run,
        "the run that the other handle claimed"
    );
    let ended = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("an ending by the first handle")?;
    ensure_eq!(
        other.get(run.id).await?.as_ref(),
        Some(&ended),
        "the run that the first handle ended"
    );
    let third = cx.open_again().await?;
    ensure_eq!(
        third.get(run.id).await?,
        Some(ended),
        "the run that a handle opened later sees"
    );
    Ok(())
}

pub(crate) async fn what_was_acknowledged_outlives_the_handles(cx: Cx) -> Checked {
    let waiting = cx
        .create(
            NewRun::new("builder")
                .idempotency_key("order-17")
                .metadata("k", json!([1, "ä"])),
        )
        .await?;
    let claimed = cx
        .running_with_worktree(with_attempts(2)?, Persistence::Temporary)
        .await?;
    let ended = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let outcome = Outcome::Completed {
        result: Some(json!({"tests": "green"})),
    };
    let ended = cx
        .runs
        .end(ended.lease, &outcome)
        .await?
        .applied("a completion")?;
    let running = cx.get(claimed.lease.run).await?;
    let (worktrees, events) = (
        cx.worktrees(running.id).await?,
        cx.events(running.id).await?,
    );
    let leases = cx.runs.leases(None).await?;

    let cx = cx.reopen().await?;
    for run in [&waiting, &running, &ended] {
        ensure_eq!(
            cx.get(run.id).await?,
            *run,
            "a run after the store was opened again"
        );
    }
    ensure_eq!(cx.worktrees(running.id).await?, worktrees, "the worktrees");
    ensure_eq!(cx.events(running.id).await?, events, "the history");
    ensure_eq!(cx.runs.leases(None).await?, leases, "the leases");
    cx.cleanup(ended.id).await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("the owner's completion")?;
    let again = NewRun::new("builder")
        .idempotency_key("order-17")
        .metadata("k", json!([1, "ä"]));
    let found = cx.runs.create(&cx.request(again)?).await?;
    ensure!(
        matches!(&found, Created::Existing(run) if run.id == waiting.id),
        "the request of before must find its run: saw {found:?}"
    );
    Ok(())
}

pub(crate) async fn a_call_that_is_dropped_writes_all_or_nothing(cx: Cx) -> Checked {
    // Each call is dropped after so many looks at it, then made again: the second must find one of two worlds.
    for looks in 0..6 {
        let run = with_attempts(2)?.user(format!("user-{looks}"));
        let request = cx.worktree_request(run, Persistence::Temporary)?;
        drop_after(looks, cx.runs.create(&request)).await;
        let created = cx.runs.create(&request).await?;
        ensure!(
            !matches!(created, Created::Conflict { .. }),
            "a create that was dropped must not stand in its own way: saw {created:?}"
        );
        ensure_eq!(
            cx.kinds(request.id).await?,
            [EventKind::Created],
            "the history after a dropped create"
        );
        let user = RunFilter::new().user(UserId::new(format!("user-{looks}"))?);
        ensure_eq!(
            cx.ids(&user).await?,
            [request.id],
            "the runs after a dropped create"
        );

        let claim = cx.claim_of(ClaimOf::Run(request.id))?;
        drop_after(looks, cx.runs.claim(&claim)).await;
        let running = claimed_at_last(&cx, &claim).await?;
        ensure_eq!(
            (running.status, running.attempts),
            (RunStatus::Running, 1),
            "status and attempts after a dropped claim"
        );
        let worktree = only(
            cx.worktrees(request.id).await?,
            "the worktrees after a dropped claim",
        )?;
        ensure_eq!(worktree.held_by, running.token, "who holds the worktree");

        let lease = runtree_repository::LeaseRef {
            run: request.id,
            token: running.token,
        };
        drop_after(looks, cx.runs.end(lease, &completed())).await;
        let answer = cx.runs.end(lease, &completed()).await?;
        ensure!(
            answer.accepted().is_some(),
            "an ending that was dropped must not stand in its own way"
        );
        ensure_ended_whole(&cx, request.id).await?;
    }
    Ok(())
}

pub(crate) async fn a_call_of_many_that_is_dropped_writes_all_or_nothing(cx: Cx) -> Checked {
    for looks in 0..8 {
        let requests = cx.requests((0..5).map(|_| NewRun::new("builder")))?;
        drop_after(looks, cx.runs.create_many(&requests)).await;
        let created = cx.runs.create_many(&requests).await?;
        let new = |created: &&Created| matches!(created, Created::New(_));
        let new = created.iter().filter(new).count();
        ensure!(
            new == 0 || new == 5,
            "a create of five that was dropped made {} of them",
            5 - new
        );
        let mut endings = Vec::new();
        for request in &requests {
            ensure_eq!(
                cx.kinds(request.id).await?,
                [EventKind::Created],
                "the history after a dropped create of many"
            );
            let lease = cx.claim(request.id).await?.lease;
            let outcome = completed();
            endings.push(Ending { lease, outcome });
        }
        drop_after(looks, cx.runs.end_many(&endings)).await;
        let answers = cx.runs.end_many(&endings).await?;
        let applied = |answer: &&Write<_>| matches!(answer, Write::Applied(_));
        let applied = answers.iter().filter(applied).count();
        ensure!(
            applied == 0 || applied == 5,
            "a call with five endings that was dropped ended {} of them",
            5 - applied
        );
        for answer in answers {
            let run = answer.accepted();
            let status = run.map(|run| (run.status, run.has_ended()));
            ensure_eq!(
                status,
                Some((RunStatus::Completed, true)),
                "the status after a dropped call with endings"
            );
        }
    }
    Ok(())
}

pub(crate) async fn an_annotation_that_is_dropped_is_written_whole_or_not_at_all(
    cx: Cx,
) -> Checked {
    for looks in 0..8 {
        let run = cx.create(NewRun::new("builder")).await?;
        let usage = Usage {
            input_tokens: 1,
            ..Usage::default()
        };
        let mut annotation = Annotation::new()
            .add_usage(usage)
            .add_tag("t".parse()?)
            .metadata("k", 1);
        annotation.model = Change::Set("m".parse()?);
        drop_after(looks, cx.runs.annotate(run.id, &annotation)).await;
        let run = cx.get(run.id).await?;
        let written = [
            run.usage == usage,
            run.tags.len() == 1,
            run.metadata.len() == 1,
            run.facts.model.is_some(),
        ];
        ensure!(
            written == [false; 4] || written == [true; 4],
            "a dropped annotation was written in part: usage, tags, metadata, facts {written:?}"
        );
    }
    Ok(())
}

pub(crate) async fn a_deletion_that_is_dropped_takes_runs_whole_or_not_at_all(cx: Cx) -> Checked {
    for looks in 0..8 {
        let run = with_attempts(1)?.tag("t").metadata("k", 1);
        let run = cx.ended(run, &completed()).await?;
        let retention = Retention {
            ended_before: Timestamp::MAX,
            limit: Limit::MAX,
        };
        drop_after(looks, cx.runs.delete_ended(&retention)).await;
        if cx.runs.get(run.id).await?.is_some() {
            cx.runs.delete_ended(&retention).await?;
        }
        ensure_eq!(cx.runs.get(run.id).await?, None, "the run");
        ensure_eq!(cx.events(run.id).await?, [], "its history");
        let tagged = RunFilter::new().tag("t".parse()?);
        ensure_eq!(cx.ids(&tagged).await?, [], "the runs of its tag");
    }
    Ok(())
}

pub(crate) async fn an_unknown_status_is_read_and_listed_word_for_word(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    cx.write_status(run.id, "paused_by_operator").await?;
    let read = cx.get(run.id).await?;
    ensure_eq!(read.status.as_str(), "paused_by_operator", "the status");
    ensure_eq!(cx.ids(&RunFilter::new()).await?, [run.id], "the runs");
    ensure_eq!(
        cx.ids(&RunFilter::new().statuses([read.status])).await?,
        [run.id],
        "the runs of the unknown status"
    );
    ensure_eq!(
        cx.ids(&RunFilter::new().statuses(RunStatus::KNOWN.iter().copied()))
            .await?,
        [],
        "the runs of the known ones"
    );
    let found = cx.runs.find(&run.id.short()).await?.found();
    ensure_eq!(
        found.map(|run| run.status),
        Some(read.status),
        "the status of the run that is found"
    );
    Ok(())
}

pub(crate) async fn a_waiting_run_of_an_unknown_status_is_left_alone(cx: Cx) -> Checked {
    let run = cx.create(with_attempts(9)?).await?;
    cx.write_status(run.id, "paused_by_operator").await?;
    let before = cx.get(run.id).await?;
    ensure!(
        cx.claim_all().await?.is_empty(),
        "a run of an unknown status must not be claimed"
    );
    ensure!(
        cx.runs
            .claim(&cx.claim_of(ClaimOf::Run(run.id))?)
            .await?
            .is_empty(),
        "nor by id"
    );
    cx.runs
        .cancel(run.id, &graceful())
        .await?
        .stale("a cancel of an unknown status")?;
    cx.runs
        .force_kill(run.id, &forced())
        .await?
        .stale("a forced kill of an unknown status")?;
    ensure_eq!(cx.get(run.id).await?, before, "the run");
    ensure_eq!(cx.kinds(run.id).await?, [EventKind::Created], "the history");
    Ok(())
}

pub(crate) async fn a_running_run_of_an_unknown_status_is_left_alone(cx: Cx) -> Checked {
    let run = cx
        .create_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let claimed = cx.claim_for(run.id, crate::context::SHORT).await?;
    cx.write_status(run.id, "suspended").await?;
    cx.wait_until(claimed.expires_at).await?;
    let before = cx.get(run.id).await?;
    ensure!(
        cx.rescue_expired().await?.is_empty(),
        "a run of an unknown status must not be rescued"
    );
    ensure!(
        cx.rescue_dead(claimed.lease).await?.is_empty(),
        "nor when its owner is dead"
    );
    crate::cases::end::ensure_fenced(&cx, claimed.lease).await?;
    cx.runs
        .cancel(run.id, &forced())
        .await?
        .stale("a cancel of an unknown status")?;
    cx.runs
        .force_kill(run.id, &forced())
        .await?
        .stale("a forced kill of an unknown status")?;
    ensure!(
        cx.cleanups(run.id).await?.is_empty(),
        "its worktree must not be cleaned up"
    );
    ensure_unchanged(&cx, &before, "every call on a run of an unknown status").await
}

/// Looks at a call so many times, letting others go on in between, and drops it unless it is done.
async fn drop_after<T>(looks: usize, call: impl Future<Output = T>) {
    let mut call = pin!(call);
    for _ in 0..looks {
        let look = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let is_done = look.is_ready();
        drop(look);
        if is_done {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Claims a run that a dropped claim may still be about to take: while a server ends what was dropped, others pass the run over.
async fn claimed_at_last(cx: &Cx, claim: &Claim) -> Checked<Run> {
    loop {
        cx.runs.claim(claim).await?;
        if let [run] = cx
            .list(&RunFilter::new().statuses([RunStatus::Running]))
            .await?
            .as_slice()
        {
            return cx.get(run.id).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Makes sure that a run has ended once, with everything that belongs to an ending.
async fn ensure_ended_whole(cx: &Cx, id: RunId) -> Checked {
    let run = cx.get(id).await?;
    ensure_eq!(
        (run.status, run.has_ended()),
        (RunStatus::Completed, true),
        "the status after a dropped ending"
    );
    ensure_eq!(
        (run.owner.clone(), run.lease_expires_at),
        (None, None),
        "owner and lease after a dropped ending"
    );
    let kinds = cx.kinds(id).await?;
    let expected = [
        EventKind::Created,
        EventKind::Claimed,
        EventKind::Completed,
        EventKind::CleanupWanted,
    ];
    ensure_eq!(kinds, expected, "the history after a dropped ending");
    cx.cleanup(id).await?;
    Ok(())
}
