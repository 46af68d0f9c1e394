//! A retry is a new run, and the ended one stays as it ended.

use std::num::NonZeroU32;
use std::time::Duration;

use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::{
    Annotation, Change, ConflictOver, Cost, Created, DiffStatistics, EventKind, FileChange, NewRun,
    Persistence, Priority, RetryRun, Run, RunFilter, Token, Usage, Write,
};
use serde_json::json;

use crate::cases::end::ensure_unchanged;
use crate::context::{
    Cx, LONG, again_while_busy, commit, completed, failed, failed_for_now, forced, graceful, only,
    session, together, with_attempts,
};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq, take};

pub(crate) async fn an_ended_run_is_tried_again_whatever_its_end(cx: Cx) -> Checked {
    let mut ended = vec![
        cx.ended(NewRun::new("builder"), &completed()).await?,
        cx.ended(NewRun::new("builder"), &failed("no")).await?,
    ];
    let waiting = cx.create(NewRun::new("builder")).await?;
    let killed = cx.runs.cancel(waiting.id, &graceful()).await?;
    ended.push(killed.applied("a cancel")?);
    let running = cx.running(NewRun::new("builder")).await?;
    let killed = cx.runs.force_kill(running.lease.run, &forced()).await?;
    ended.push(killed.applied("a forced kill")?);
    let silent = cx.running(NewRun::new("builder")).await?;
    let lost = only(cx.rescue_dead(silent.lease).await?, "a rescue")?.run;
    ended.push(cx.get(lost.id).await?);
    let reasons: Vec<_> = ended.iter().map(|run| run.end_reason).collect();
    ensure_eq!(
        reasons,
        [
            Some(EndReason::Succeeded),
            Some(EndReason::Error),
            Some(EndReason::CancelledBeforeStart),
            Some(EndReason::Killed),
            Some(EndReason::Lost),
        ],
        "the ends"
    );
    for ended in ended {
        let history = cx.kinds(ended.id).await?;
        let request = cx.retry_of(ended.id)?;
        let run = applied(&cx, &request).await?;
        ensure_eq!(run.id, request.id, "the new run");
        ensure_eq!(run.retry_of, Some(ended.id), "what it tries again");
        ensure_eq!(
            (run.status, run.ended_at),
            (RunStatus::Pending, None),
            "where it stands"
        );
        ensure_eq!(
            cx.get(run.id).await?,
            run,
            "what is read is what the retry answered"
        );
        ensure_eq!(cx.kinds(run.id).await?, [EventKind::Created], "its history");

        ensure_unchanged(&cx, &ended, "a retry").await?;
        let mut expected = history;
        expected.push(EventKind::Retried);
        ensure_eq!(
            cx.kinds(ended.id).await?,
            expected,
            "the history of the ended run"
        );
        let told = cx
            .events(ended.id)
            .await?
            .pop()
            .map(|event| (event.token, event.detail));
        ensure_eq!(
            told,
            Some((ended.token, Some(json!({"run": run.id})))),
            "the token and the detail of its last event"
        );
        ensure_eq!(
            cx.claim(run.id).await?.run.attempts,
            1,
            "the attempts of the new run"
        );
    }
    Ok(())
}

pub(crate) async fn a_run_that_has_not_ended_is_not_tried_again(cx: Cx) -> Checked {
    let waiting = cx.create(NewRun::new("builder")).await?;
    let running = cx.running(with_attempts(2)?).await?.run;
    let claimed = cx.running(with_attempts(2)?).await?;
    let between = failed_for_now("again", Duration::ZERO);
    let between = cx.runs.end(claimed.lease, &between).await?;
    for run in [waiting, running, between.applied("a failure")?] {
        let request = cx.retry_of(run.id)?;
        let current = cx
            .runs
            .retry(&request)
            .await?
            .stale("a retry of what has not ended")?;
        ensure_eq!(current, run.summary, "the run that the answer shows");
        ensure_eq!(
            cx.runs.get(request.id).await?,
            None,
            "the run of a refused retry"
        );
        ensure_eq!(cx.get(run.id).await?, run, "the run that has not ended");
    }
    Ok(())
}

pub(crate) async fn an_unknown_run_is_not_tried_again(cx: Cx) -> Checked {
    let request = cx.retry_of(cx.run_id()?)?;
    cx.runs
        .retry(&request)
        .await?
        .not_found("a retry of an unknown run")?;
    let ended = cx.ended(NewRun::new("builder"), &completed()).await?;
    let other = cx.open_namespace("tenant").await?;
    let request = cx.retry_of(ended.id)?;
    other
        .retry(&request)
        .await?
        .not_found("a retry from another namespace")?;
    ensure_eq!(
        other.get(request.id).await?,
        None,
        "the run of another namespace"
    );
    ensure_eq!(
        cx.runs.get(request.id).await?,
        None,
        "the run of the own namespace"
    );
    Ok(())
}

pub(crate) async fn repeating_a_retry_finds_its_run(cx: Cx) -> Checked {
    let ended = cx
        .ended(NewRun::new("builder").unique_key("u"), &failed("no"))
        .await?;
    let request = cx.retry_of(ended.id)?;
    let run = applied(&cx, &request).await?;
    let history = cx.kinds(ended.id).await?;
    ensure_eq!(
        already(&cx, &request).await?,
        run,
        "the run that was made before"
    );
    let claimed = cx.claim(run.id).await?;
    ensure_eq!(
        already(&cx, &request).await?,
        claimed.run,
        "the run that runs"
    );
    let run = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure_eq!(already(&cx, &request).await?, run, "the run that has ended");
    ensure_eq!(
        cx.kinds(ended.id).await?,
        history,
        "the history of the ended run"
    );
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 2, "the runs");
    Ok(())
}

pub(crate) async fn what_was_asked_for_is_taken_over_and_what_came_of_it_is_not(cx: Cx) -> Checked {
    let due = cx.runs.now().await?;
    let claimed = cx
        .running(
            with_attempts(3)?
                .input("x")
                .session(session("0190b5c4-7e1a-7b3c-8d4e-5f60718293a4")?)
                .user("user-1")
                .queue("slow")
                .concurrency("gpu", NonZeroU32::MAX)
                .priority(Priority::HIGH)
                .idempotency_key("k")
                .unique_key("u")
                .available_at(due)
                .deadline(due.saturating_add(LONG))
                .tag("nightly")
                .agent("coder")
                .model("model-1")
                .session_name("a session")
                .git_repository("repo")
                .metadata("k", json!({"nested": [1]})),
        )
        .await?;
    let mut annotation = Annotation::new()
        .commits(commit(1)?, commit(2)?)
        .diff(DiffStatistics {
            files: 1,
            added: 2,
            removed: 3,
        })
        .set_usage(Usage {
            input_tokens: 1,
            output_tokens: 2,
            cost: Cost::from_micros(3),
        })
        .add_tag("later".parse()?)
        .metadata("later", true);
    annotation.file_changes = Change::Set(vec![FileChange {
        path: "src/lib.rs".parse()?,
        added: Some(1),
        removed: None,
    }]);
    cx.runs
        .annotate(claimed.lease.run, &annotation)
        .await?
        .applied("an annotation")?;
    let outcome = failed("no");
    let ended = cx
        .runs
        .end(claimed.lease, &outcome)
        .await?
        .applied("a failure")?;
    let request = cx.retry_of(ended.id)?;
    let run = applied(&cx, &request).await?;

    let mut expected = ended.clone();
    (expected.result, expected.error) = (None, None);
    expected.file_changes = Vec::new();
    let summary = &mut expected.summary;
    summary.id = request.id;
    summary.status = RunStatus::Pending;
    (summary.end_reason, summary.ended_at, summary.started_at) = (None, None, None);
    (summary.idempotency_key, summary.deadline) = (None, None);
    (summary.attempts, summary.token) = (0, Token::NONE);
    summary.retry_of = Some(ended.id);
    summary.facts.first_commit = None;
    summary.facts.last_commit = None;
    summary.facts.diff = None;
    summary.usage = Usage::default();
    // Stamped by the store; compared with its clock elsewhere.
    summary.created_at = run.created_at;
    summary.updated_at = run.created_at;
    summary.available_at = run.created_at;
    ensure_eq!(run, expected, "the new run");
    ensure!(
        Some(run.created_at) >= ended.ended_at,
        "it was created after the other had ended: saw {}",
        run.created_at
    );
    Ok(())
}

pub(crate) async fn the_idempotency_key_stays_with_the_first_run(cx: Cx) -> Checked {
    let request = cx.request(NewRun::new("builder").idempotency_key("k"))?;
    cx.create_new(&request).await?;
    let claimed = cx.claim(request.id).await?;
    let ended = cx
        .runs
        .end(claimed.lease, &failed("no"))
        .await?
        .applied("a failure")?;
    let run = applied(&cx, &cx.retry_of(ended.id)?).await?;
    ensure_eq!(
        run.idempotency_key,
        None,
        "the idempotency key of the new run"
    );
    let found = cx.runs.get_by_key(&"k".parse()?).await?;
    ensure_eq!(
        found.map(|run| run.id),
        Some(ended.id),
        "the run of the key"
    );
    let again = cx.request(NewRun::new("builder").idempotency_key("k"))?;
    let again = cx.runs.create(&again).await?.into_run()?;
    ensure_eq!(again.id, ended.id, "the run that the same request finds");
    Ok(())
}

pub(crate) async fn a_unique_key_in_other_hands_is_a_conflict(cx: Cx) -> Checked {
    let ended = cx
        .ended(NewRun::new("builder").unique_key("u"), &failed("no"))
        .await?;
    let history = cx.kinds(ended.id).await?;
    let holder = cx.create(NewRun::new("other").unique_key("u")).await?;
    let request = cx.retry_of(ended.id)?;
    conflict(&cx, &request, ConflictOver::UniqueKey, &holder).await?;
    ensure_eq!(
        cx.runs.get(request.id).await?,
        None,
        "the run of a conflict"
    );
    ensure_eq!(
        cx.kinds(ended.id).await?,
        history,
        "the history of the ended run"
    );

    // Free again, the same retry makes its run, which now holds the key.
    cx.runs
        .cancel(holder.id, &graceful())
        .await?
        .applied("a cancel")?;
    let run = applied(&cx, &request).await?;
    ensure_eq!(
        run.unique_key.as_ref().map(AsRef::as_ref),
        Some("u"),
        "the unique key"
    );
    let late = cx.request(NewRun::new("late").unique_key("u"))?;
    let over = take!(
        cx.runs.create(&late).await?,
        Created::Conflict { over, existing } => (over, existing.id),
        "a create under the key of a retry"
    );
    ensure_eq!(over, (ConflictOver::UniqueKey, run.id), "what it is over");
    Ok(())
}

pub(crate) async fn an_id_of_another_run_is_a_conflict(cx: Cx) -> Checked {
    let ended = cx.ended(NewRun::new("builder"), &failed("no")).await?;
    let other = cx.create(NewRun::new("builder")).await?;
    let mut request = cx.retry_of(ended.id)?;
    for existing in [&other, &ended] {
        request.id = existing.id;
        conflict(&cx, &request, ConflictOver::Id, existing).await?;
    }
    // The run of another's retry is another run as well.
    let second = cx.ended(NewRun::new("builder"), &failed("no")).await?;
    let run = applied(&cx, &cx.retry_of(second.id)?).await?;
    request.id = run.id;
    conflict(&cx, &request, ConflictOver::Id, &run).await?;
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 4, "the runs");
    Ok(())
}

pub(crate) async fn a_retry_may_wait_and_have_a_deadline_and_a_worktree(cx: Cx) -> Checked {
    let first = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    cx.runs
        .end(first.lease, &failed("no"))
        .await?
        .applied("a failure")?;
    let later = cx.runs.now().await?.saturating_add(LONG);
    let wanted = cx.worktree_request(NewRun::new("builder"), Persistence::Persistent)?;
    let request = RetryRun {
        of: first.lease.run,
        id: wanted.id,
        worktree: wanted.worktree.clone(),
        available_at: Some(later),
        deadline: Some(later.saturating_add(LONG)),
    };
    let run = applied(&cx, &request).await?;
    ensure_eq!(
        (run.available_at, run.deadline),
        (later, request.deadline),
        "when it may start, and until when it must have ended"
    );
    ensure_eq!(run.worktree, wanted.worktree, "the worktree that it needs");
    ensure_eq!(
        cx.worktrees(run.id).await?,
        [],
        "the worktrees before the first claim"
    );
    ensure!(
        cx.claim_all().await?.is_empty(),
        "a retry that is not due is not claimed"
    );

    let now = RetryRun {
        id: cx.run_id()?,
        available_at: None,
        ..request
    };
    let run = applied(&cx, &now).await?;
    let claimed = cx.claim(run.id).await?;
    let planned = claimed
        .worktree
        .map(|worktree| (worktree.key.run, worktree.wanted));
    ensure_eq!(
        planned,
        wanted.worktree.map(|wanted| (run.id, wanted)),
        "the worktree that the claim plans"
    );
    Ok(())
}

pub(crate) async fn a_retry_is_tried_again_like_any_run(cx: Cx) -> Checked {
    let ended = cx
        .ended(NewRun::new("builder").input("x"), &failed("no"))
        .await?;
    let second = applied(&cx, &cx.retry_of(ended.id)?).await?;
    let other = applied(&cx, &cx.retry_of(ended.id)?).await?;
    ensure!(
        second.id != other.id,
        "two retries of one run make two runs"
    );
    let claimed = cx.claim(second.id).await?;
    cx.runs
        .end(claimed.lease, &failed("no"))
        .await?
        .applied("a failure")?;
    let third = applied(&cx, &cx.retry_of(second.id)?).await?;
    ensure_eq!(
        third.retry_of,
        Some(second.id),
        "what the third run tries again"
    );
    ensure_eq!(third.input, ended.input, "the input of the third run");
    Ok(())
}

pub(crate) async fn concurrent_retries_of_one_id_make_one_run(cx: Cx) -> Checked {
    let ended = cx
        .ended(NewRun::new("builder").unique_key("u"), &failed("no"))
        .await?;
    let request = cx.retry_of(ended.id)?;
    let other = cx.open_again().await?;
    let tasks = (0..8).map(|n| {
        let runs = if n % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        let request = request.clone();
        async move { again_while_busy(|| runs.retry(&request)).await }
    });
    let mut new = 0;
    for answer in together(tasks.collect()).await? {
        match answer? {
            Write::Applied(Created::New(run)) => {
                ensure_eq!(run.id, request.id, "the new run");
                new += 1;
            }
            Write::Already(Created::Existing(run)) => {
                ensure_eq!(run.id, request.id, "the run that was made before");
            }
            answer @ (Write::Applied(_)
            | Write::Already(_)
            | Write::Stale { .. }
            | Write::NotFound) => {
                return Err(Failure::new(format!("a retry was answered by {answer:?}")));
            }
        }
    }
    ensure_eq!(new, 1, "answers that say the run is new");
    let told = cx.kinds(ended.id).await?;
    let told = told
        .iter()
        .filter(|kind| **kind == EventKind::Retried)
        .count();
    ensure_eq!(told, 1, "how often the history of the ended run tells it");
    Ok(())
}

pub(crate) async fn a_word_of_a_newer_version_is_not_tried_again(cx: Cx) -> Checked {
    let ended = cx.ended(NewRun::new("builder"), &failed("no")).await?;
    cx.write_status(ended.id, "archived").await?;
    let before = cx.get(ended.id).await?;
    let request = cx.retry_of(ended.id)?;
    cx.runs
        .retry(&request)
        .await?
        .stale("a retry of an unknown status")?;
    ensure_eq!(cx.get(ended.id).await?, before, "the run");
    ensure_eq!(
        cx.runs.get(request.id).await?,
        None,
        "the run of a refused retry"
    );
    Ok(())
}

async fn applied(cx: &Cx, request: &RetryRun) -> Checked<Run> {
    let answer = cx.runs.retry(request).await?.applied("a retry")?;
    take!(answer, Created::New(run) => Ok(run), "a retry must make a new run")
}

async fn already(cx: &Cx, request: &RetryRun) -> Checked<Run> {
    let answer = cx
        .runs
        .retry(request)
        .await?
        .already("the same retry again")?;
    take!(answer, Created::Existing(run) => Ok(run), "a retry must find its run")
}

async fn conflict(cx: &Cx, request: &RetryRun, over: ConflictOver, with: &Run) -> Checked {
    let answer = cx.runs.retry(request).await?.applied("a retry")?;
    let told = take!(
        answer,
        Created::Conflict { over, existing } => (over, existing),
        "a retry that another run stands in the way of"
    );
    ensure_eq!(
        told,
        (over, with.clone()),
        "what it is over, and with which run"
    );
    Ok(())
}
