//! Old runs go when they are told to, whole, and never with anything that is still to be done.

use std::collections::BTreeSet;
use std::time::Duration;

use runtree_repository::id::{Lookup, RunId};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    Annotation, CleanupOutcome, Created, ErrorText, Limit, NewRun, Persistence, Reason, Retention,
    Run, RunFilter,
};

use crate::context::{
    Cx, again_while_busy, completed, distinct, failed, graceful, together, with_attempts,
};
use crate::failure::{Checked, Failure, WriteAnswer, ensure_eq, take};

pub(crate) async fn what_ended_before_the_instant_goes_and_nothing_else(cx: Cx) -> Checked {
    let mut ended = Vec::new();
    for _ in 0..3 {
        ended.push(cx.ended(NewRun::new("builder"), &completed()).await?);
        cx.pass(Duration::from_micros(1)).await?;
    }
    let waiting = cx.create(NewRun::new("builder")).await?;
    let running = cx.running(NewRun::new("builder")).await?;
    ensure_eq!(
        delete(&cx, at(&ended[0])?).await?,
        [],
        "what ended before the first end"
    );
    // The instant itself is not before it.
    ensure_eq!(
        delete(&cx, at(&ended[1])?).await?,
        [ended[0].id],
        "before the second end"
    );
    let left = [ended[1].id, ended[2].id, waiting.id, running.lease.run];
    ensure_eq!(
        left_ids(&cx).await?,
        BTreeSet::from(left),
        "the runs that are left"
    );
    let all: BTreeSet<RunId> = delete(&cx, Timestamp::MAX).await?.into_iter().collect();
    ensure_eq!(
        all,
        BTreeSet::from([ended[1].id, ended[2].id]),
        "before the end of time"
    );
    ensure_eq!(delete(&cx, Timestamp::MAX).await?, [], "what is left to go");
    ensure_eq!(
        left_ids(&cx).await?,
        BTreeSet::from([waiting.id, running.lease.run]),
        "what has not ended"
    );
    Ok(())
}

pub(crate) async fn whatever_way_a_run_ended_it_goes(cx: Cx) -> Checked {
    let mut expected = BTreeSet::new();
    expected.insert(cx.ended(NewRun::new("builder"), &failed("no")).await?.id);
    let waiting = cx.create(NewRun::new("builder")).await?;
    cx.runs
        .cancel(waiting.id, &graceful())
        .await?
        .applied("a cancel")?;
    expected.insert(waiting.id);
    let lost = cx.running(NewRun::new("builder")).await?;
    cx.rescue_dead(lost.lease).await?;
    expected.insert(lost.lease.run);
    let gone: BTreeSet<RunId> = delete(&cx, Timestamp::MAX).await?.into_iter().collect();
    ensure_eq!(gone, expected, "the runs that went");
    Ok(())
}

pub(crate) async fn the_first_ended_go_first_up_to_the_limit(cx: Cx) -> Checked {
    let mut claimed = Vec::new();
    for _ in 0..5 {
        claimed.push(cx.running(NewRun::new("builder")).await?);
        cx.pass(Duration::from_micros(1)).await?;
    }
    // Not in the order in which they were created.
    let mut expected = Vec::new();
    for n in [3, 0, 4, 1, 2] {
        let lease = claimed[n].lease;
        cx.runs
            .end(lease, &completed())
            .await?
            .applied("a completion")?;
        expected.push(lease.run);
        cx.pass(Duration::from_micros(1)).await?;
    }
    let retention = Retention {
        ended_before: Timestamp::MAX,
        limit: Limit::new(2)?,
    };
    for next in expected.chunks(2) {
        let gone: BTreeSet<RunId> = cx
            .runs
            .delete_ended(&retention)
            .await?
            .into_iter()
            .collect();
        ensure_eq!(gone, next.iter().copied().collect(), "the next two");
    }
    ensure_eq!(
        cx.runs.delete_ended(&retention).await?,
        [],
        "what is left to go"
    );
    Ok(())
}

pub(crate) async fn a_run_whose_worktree_is_still_there_stays(cx: Cx) -> Checked {
    let wanted = ended_with(&cx, Persistence::Temporary).await?;
    ended_with(&cx, Persistence::Persistent).await?;
    let kept = ended_with(&cx, Persistence::Temporary).await?;
    let task = cx.cleanup(kept).await?;
    let outcome = CleanupOutcome::Kept {
        reason: Reason::lossy("it holds work"),
    };
    cx.runs
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .applied("a worktree that stays")?;
    ensure_eq!(
        delete(&cx, Timestamp::MAX).await?,
        [],
        "with a clean-up wanted or a worktree kept"
    );
    let task = cx.cleanup(wanted).await?;
    ensure_eq!(
        delete(&cx, Timestamp::MAX).await?,
        [],
        "while somebody cleans up"
    );
    let outcome = CleanupOutcome::Postponed {
        error: ErrorText::lossy("busy"),
        retry_after: Duration::ZERO,
    };
    cx.runs
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .applied("a clean-up that must wait")?;
    ensure_eq!(
        delete(&cx, Timestamp::MAX).await?,
        [],
        "while the clean-up waits"
    );
    let task = cx.cleanup(wanted).await?;
    let outcome = CleanupOutcome::Removed { salvage: None };
    cx.runs
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .applied("a removal")?;
    ensure_eq!(
        delete(&cx, Timestamp::MAX).await?,
        [wanted],
        "once its worktree is gone"
    );
    ensure_eq!(
        cx.runs.count(&RunFilter::new()).await?,
        2,
        "the runs that are left"
    );
    ensure_eq!(
        cx.worktrees(wanted).await?,
        [],
        "the records of its worktrees"
    );
    Ok(())
}

pub(crate) async fn runs_that_must_stay_take_no_place_of_the_limit(cx: Cx) -> Checked {
    for _ in 0..3 {
        ended_with(&cx, Persistence::Persistent).await?;
        cx.pass(Duration::from_micros(1)).await?;
    }
    let ended = cx.ended(NewRun::new("builder"), &completed()).await?;
    let retention = Retention {
        ended_before: Timestamp::MAX,
        limit: Limit::ONE,
    };
    ensure_eq!(
        cx.runs.delete_ended(&retention).await?,
        [ended.id],
        "what may go"
    );
    Ok(())
}

pub(crate) async fn nothing_of_a_deleted_run_is_left(cx: Cx) -> Checked {
    let request = cx.worktree_request(
        with_attempts(2)?
            .idempotency_key("k")
            .unique_key("u")
            .tag("t")
            .model("m")
            .metadata("k", 1),
        Persistence::Temporary,
    )?;
    cx.create_new(&request).await?;
    let claimed = cx.claim(request.id).await?;
    cx.runs
        .annotate(request.id, &Annotation::new().add_tag("u".parse()?))
        .await?
        .accepted();
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let task = cx.cleanup(request.id).await?;
    let removed = CleanupOutcome::Removed { salvage: None };
    cx.runs
        .finish_cleanup(task.cleanup, &removed)
        .await?
        .applied("a removal")?;
    ensure_eq!(
        delete(&cx, Timestamp::MAX).await?,
        [request.id],
        "what went"
    );

    let id = request.id;
    ensure_eq!(cx.runs.get(id).await?, None, "the run by its id");
    ensure_eq!(
        cx.runs.get_by_key(&"k".parse()?).await?,
        None,
        "the run by its key"
    );
    ensure_eq!(
        cx.runs.find(&id.short()).await?,
        Lookup::NotFound,
        "the run by its ending"
    );
    ensure_eq!(cx.runs.explain(id).await?, None, "its explanation");
    ensure_eq!(cx.events(id).await?, [], "its history");
    ensure_eq!(cx.worktrees(id).await?, [], "its worktrees");
    ensure_eq!(cx.ids(&RunFilter::new()).await?, [], "the runs of a list");
    ensure_eq!(
        cx.ids(&RunFilter::new().tag("t".parse()?)).await?,
        [],
        "the runs of its tag"
    );
    ensure_eq!(
        cx.runs.statistics(&RunFilter::new()).await?.runs,
        0,
        "the runs of the statistics"
    );
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .not_found("an ending")?;
    cx.runs
        .cancel(id, &graceful())
        .await?
        .not_found("a cancel")?;
    cx.runs
        .annotate(id, &Annotation::new().metadata("k", 1))
        .await?
        .not_found("an annotation")?;
    cx.runs
        .retry(&cx.retry_of(id)?)
        .await?
        .not_found("a retry")?;
    cx.runs
        .finish_cleanup(task.cleanup, &removed)
        .await?
        .not_found("a clean-up")?;

    // The same request makes a run again, with nothing of the one before.
    let again = take!(
        cx.runs.create(&request).await?,
        Created::New(run) => run,
        "the id, the idempotency key and the unique key are free"
    );
    let tags: Vec<&str> = again.tags.iter().map(AsRef::as_ref).collect();
    ensure_eq!(tags, ["t"], "its tags");
    ensure_eq!(cx.get(id).await?, again, "what is read of it");
    ensure_eq!(cx.events(id).await?.len(), 1, "the events of its history");
    Ok(())
}

pub(crate) async fn a_retry_outlives_the_run_that_it_tries_again(cx: Cx) -> Checked {
    let ended = cx
        .ended(NewRun::new("builder").input("x"), &failed("no"))
        .await?;
    let request = cx.retry_of(ended.id)?;
    let retried = cx.runs.retry(&request).await?.applied("a retry")?;
    ensure_eq!(retried.into_run()?.id, request.id, "the new run");
    let before = cx.get(request.id).await?;
    ensure_eq!(
        delete(&cx, Timestamp::MAX).await?,
        [ended.id],
        "the run that had ended"
    );
    ensure_eq!(
        cx.get(request.id).await?,
        before,
        "the run that tries it again"
    );
    cx.claim(request.id).await?;
    Ok(())
}

pub(crate) async fn another_namespaces_runs_stay(cx: Cx) -> Checked {
    let ended = cx.ended(NewRun::new("builder"), &completed()).await?;
    let other = cx.open_namespace("tenant").await?;
    let retention = Retention {
        ended_before: Timestamp::MAX,
        limit: Limit::MAX,
    };
    ensure_eq!(
        other.delete_ended(&retention).await?,
        [],
        "what another namespace deletes"
    );
    let request = cx.request(NewRun::new("builder"))?;
    other.create(&request).await?.into_run()?;
    other
        .cancel(request.id, &graceful())
        .await?
        .applied("a cancel")?;
    ensure_eq!(
        delete(&cx, Timestamp::MAX).await?,
        [ended.id],
        "what the own namespace deletes"
    );
    let stays = other.get(request.id).await?.map(|run| run.id);
    ensure_eq!(stays, Some(request.id), "the run of the other namespace");
    Ok(())
}

pub(crate) async fn a_word_of_a_newer_version_is_not_deleted(cx: Cx) -> Checked {
    let ended = cx.ended(NewRun::new("builder"), &completed()).await?;
    cx.write_status(ended.id, "archived").await?;
    let before = cx.get(ended.id).await?;
    ensure_eq!(delete(&cx, Timestamp::MAX).await?, [], "what went");
    ensure_eq!(cx.get(ended.id).await?, before, "the run");
    Ok(())
}

pub(crate) async fn concurrent_deletions_take_each_run_once(cx: Cx) -> Checked {
    cx.create_many((0..40).map(|_| NewRun::new("builder")))
        .await?;
    for claimed in cx.claim_all().await? {
        cx.runs
            .end(claimed.lease, &completed())
            .await?
            .applied("a completion")?;
    }
    let other = cx.open_again().await?;
    let mut tasks = Vec::new();
    for n in 0..4 {
        let handle = if n % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        let retention = Retention {
            ended_before: Timestamp::MAX,
            limit: Limit::new(7)?,
        };
        tasks.push(async move {
            let mut mine = Vec::new();
            loop {
                let gone = again_while_busy(|| handle.delete_ended(&retention)).await?;
                if gone.is_empty() {
                    return Ok::<_, runtree_repository::RepositoryError>(mine);
                }
                mine.extend(gone);
            }
        });
    }
    let mut gone = Vec::new();
    for answer in together(tasks).await? {
        gone.extend(answer?);
    }
    gone.extend(delete(&cx, Timestamp::MAX).await?);
    ensure_eq!(
        distinct(gone, "the runs that went")?.len(),
        40,
        "the runs that went"
    );
    ensure_eq!(
        cx.ids(&RunFilter::new()).await?,
        [],
        "the runs that are left"
    );
    Ok(())
}

async fn delete(cx: &Cx, ended_before: Timestamp) -> Checked<Vec<RunId>> {
    let retention = Retention {
        ended_before,
        limit: Limit::MAX,
    };
    Ok(cx.runs.delete_ended(&retention).await?)
}

fn at(run: &Run) -> Checked<Timestamp> {
    run.ended_at
        .ok_or_else(|| Failure::new("the run has ended"))
}

async fn left_ids(cx: &Cx) -> Checked<BTreeSet<RunId>> {
    Ok(cx.ids(&RunFilter::new()).await?.into_iter().collect())
}

async fn ended_with(cx: &Cx, persistence: Persistence) -> Checked<RunId> {
    let claimed = cx
        .running_with_worktree(NewRun::new("builder"), persistence)
        .await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    Ok(claimed.lease.run)
}
