//! Watching: whoever waits for a change is told of it, and whoever waits for nothing is let go.

use std::time::Duration;

use runtree_repository::status::RunStatus;
use runtree_repository::{
    Annotation, ChangeMark, DynRunRepository, LeaseRef, Limit, NewRun, Overdue, Retention,
    RetryRun, RunFilter, RunNews, RunRepositoryExt as _,
};

use crate::context::{Cx, SHORT, completed, failed, graceful, together};
use crate::failure::{Checked, Failure, ensure, ensure_eq};

/// Longer than any backend takes to notice a change, and shorter than a case may last.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn whoever_has_seen_nothing_is_answered_at_once(cx: Cx) -> Checked {
    // A wait without an end: only an answer at once lets the case go on.
    let mark = cx.runs.changed(ChangeMark::START, Duration::MAX).await?;
    ensure!(
        mark != ChangeMark::START,
        "the mark of an empty store is after the start"
    );
    cx.create(NewRun::new("builder")).await?;
    let later = cx.runs.changed(ChangeMark::START, Duration::MAX).await?;
    ensure!(
        later.get() >= mark.get(),
        "a mark does not go back from {mark:?}: saw {later:?}"
    );
    Ok(())
}

pub(crate) async fn a_change_before_the_wait_is_told_at_once(cx: Cx) -> Checked {
    let mark = cx.runs.changed(ChangeMark::START, Duration::ZERO).await?;
    cx.create(NewRun::new("builder")).await?;
    let told = cx.runs.changed(mark, PATIENCE).await?;
    ensure!(
        told.get() > mark.get(),
        "a create after {mark:?} must be told: saw {told:?}"
    );
    Ok(())
}

pub(crate) async fn a_write_of_another_handle_wakes_whoever_waits(cx: Cx) -> Checked {
    let other = cx.open_again().await?;
    let mut mark = cx.runs.changed(ChangeMark::START, Duration::ZERO).await?;
    for _ in 0..3 {
        // What happened so far is settled first, so that only the create is left to tell.
        mark = settled(&cx.runs, mark).await?;
        let request = cx.request(NewRun::new("builder"))?;
        let (waiter, writer) = (cx.runs.clone(), other.clone());
        type Task = std::pin::Pin<Box<dyn Future<Output = Checked<Option<ChangeMark>>> + Send>>;
        let seen = mark;
        let tasks: Vec<Task> = vec![
            Box::pin(async move { Ok(Some(waiter.changed(seen, PATIENCE).await?)) }),
            Box::pin(async move {
                writer.create(&request).await?.into_run()?;
                Ok(None)
            }),
        ];
        let mut told = None;
        for answer in together(tasks).await? {
            told = told.or(answer?);
        }
        let told = told.ok_or_else(|| Failure::new("the waiter answers with a mark"))?;
        ensure!(
            told.get() > mark.get(),
            "a create by another handle after {mark:?} must be told: saw {told:?}"
        );
        mark = told;
    }
    Ok(())
}

pub(crate) async fn the_runs_of_a_filter_are_watched_through_another_handle(cx: Cx) -> Checked {
    let other = cx.open_again().await?;
    let there = cx.create(NewRun::new("builder")).await?.id;
    let mut watcher = other.watch(RunFilter::new().statuses([RunStatus::Pending]));
    let news = watcher.next().await?;
    ensure!(
        matches!(&news, RunNews::Entered(run) if run.id == there),
        "the filter holds {there} from the start: saw {news:?}"
    );
    cx.create(NewRun::new("another")).await?;
    let news = watcher.next().await?;
    ensure!(
        matches!(&news, RunNews::Entered(run) if run.workflow.as_str() == "another"),
        "a run that was created is told: saw {news:?}"
    );
    let annotation = Annotation::new().metadata("step", 1);
    cx.runs.annotate(there, &annotation).await?.accepted();
    let tag = Annotation::new().add_tag("urgent".parse()?);
    cx.runs.annotate(there, &tag).await?.accepted();
    let mut news = watcher.next().await?;
    if matches!(&news, RunNews::Changed(run) if run.tags.is_empty()) {
        news = watcher.next().await?;
    }
    ensure!(
        matches!(&news, RunNews::Changed(run) if run.id == there && run.tags.len() == 1),
        "a run that was changed is told as it is now: saw {news:?}"
    );
    cx.runs.cancel(there, &graceful()).await?.accepted();
    let news = watcher.next().await?;
    ensure_eq!(news, RunNews::Left(there), "an ended run waits no longer");
    Ok(())
}

pub(crate) async fn all_who_wait_are_told(cx: Cx) -> Checked {
    let other = cx.open_again().await?;
    let handles = [cx.runs.clone(), cx.runs.clone(), other.clone(), other];
    let mut tasks = Vec::new();
    for handle in handles {
        let mark = handle.changed(ChangeMark::START, Duration::ZERO).await?;
        let seen = settled(&handle, mark).await?;
        tasks.push(async move {
            handle
                .changed(seen, PATIENCE)
                .await
                .map(|told| (seen, told))
        });
    }
    let waiting = tokio::spawn(together(tasks));
    cx.create(NewRun::new("builder")).await?;
    let answers = waiting
        .await
        .map_err(|e| Failure::new(format!("a waiter: {e}")))?;
    for answer in answers? {
        let (seen, told) = answer?;
        ensure!(
            told.get() > seen.get(),
            "each must be told: {seen:?}, saw {told:?}"
        );
    }
    Ok(())
}

pub(crate) async fn every_kind_of_change_is_told(cx: Cx) -> Checked {
    let mut mark = cx.runs.changed(ChangeMark::START, Duration::ZERO).await?;
    let past = cx.runs.now().await?.saturating_sub(Duration::from_secs(1));
    for step in 0..11 {
        mark = settled(&cx.runs, mark).await?;
        let what = change(&cx, step, past).await?;
        let told = cx.runs.changed(mark, PATIENCE).await?;
        ensure!(
            told.get() > mark.get(),
            "{what} after {mark:?} must be told: saw {told:?}"
        );
        mark = told;
    }
    Ok(())
}

pub(crate) async fn a_wait_without_a_change_comes_to_an_end(cx: Cx) -> Checked {
    cx.create(NewRun::new("builder")).await?;
    let mut mark = cx.runs.changed(ChangeMark::START, Duration::ZERO).await?;
    for wait in [Duration::ZERO, Duration::ZERO, SHORT] {
        let told = cx.runs.changed(mark, wait).await?;
        ensure!(
            told.get() >= mark.get(),
            "a mark does not go back from {mark:?}: saw {told:?}"
        );
        mark = told;
    }
    Ok(())
}

pub(crate) async fn a_mark_never_goes_back(cx: Cx) -> Checked {
    let other = cx.open_again().await?;
    let mut mark = ChangeMark::START;
    for n in 0..20 {
        let handle = if n % 2 == 0 { &cx.runs } else { &other };
        handle
            .create(&cx.request(NewRun::new("builder"))?)
            .await?
            .into_run()?;
        let told = cx.runs.changed(mark, Duration::ZERO).await?;
        ensure!(
            told.get() >= mark.get(),
            "a mark does not go back from {mark:?}: saw {told:?}"
        );
        mark = told;
    }
    // Who has seen more than there is, as after a restart, waits its time and no longer.
    let ahead = ChangeMark::new(mark.get() + 1_000_000);
    let told = cx.runs.changed(ahead, SHORT).await?;
    ensure_eq!(told, ahead, "the mark of whoever is ahead");
    Ok(())
}

pub(crate) async fn a_wait_that_is_dropped_leaves_the_others_alone(cx: Cx) -> Checked {
    let mark = cx.runs.changed(ChangeMark::START, Duration::ZERO).await?;
    let mark = settled(&cx.runs, mark).await?;
    for _ in 0..3 {
        let waiter = cx.runs.clone();
        let waiting = tokio::spawn(async move { waiter.changed(mark, PATIENCE).await });
        tokio::task::yield_now().await;
        waiting.abort();
        let ended = waiting.await;
        ensure!(
            ended.is_err() || ended.is_ok_and(|told| told.is_ok()),
            "a wait is dropped or told"
        );
    }
    cx.create(NewRun::new("builder")).await?;
    let told = cx.runs.changed(mark, PATIENCE).await?;
    ensure!(
        told.get() > mark.get(),
        "a change after dropped waits: saw {told:?}"
    );
    Ok(())
}

/// Waits until nothing more is told of what happened before.
async fn settled(runs: &DynRunRepository, mark: ChangeMark) -> Checked<ChangeMark> {
    let mut mark = mark;
    loop {
        let told = runs.changed(mark, Duration::ZERO).await?;
        if told == mark {
            return Ok(mark);
        }
        mark = told;
    }
}

/// Makes the change of this step, and says what it was. Each builds on those before.
async fn change(
    cx: &Cx,
    step: u32,
    past: runtree_repository::time::Timestamp,
) -> Checked<&'static str> {
    let runs = &cx.runs;
    let newest = cx.list(&RunFilter::new()).await?;
    let newest = newest.first();
    let lease = newest.map(|run| LeaseRef {
        run: run.id,
        token: run.token,
    });
    let lease = || lease.ok_or_else(|| Failure::new("a step before made a run"));
    Ok(match step {
        0 => {
            runs.create_many(&cx.requests([NewRun::new("builder")])?)
                .await?;
            "a create of many"
        }
        1 => {
            cx.claim(lease()?.run).await?;
            "a claim"
        }
        2 => {
            runs.annotate(lease()?.run, &Annotation::new().metadata("k", 1))
                .await?
                .accepted();
            "an annotation"
        }
        3 => {
            runs.cancel(lease()?.run, &graceful()).await?.accepted();
            "a cancel"
        }
        4 => {
            runs.release(lease()?).await?.accepted();
            "a release"
        }
        5 => {
            let ended = lease()?.run;
            let request = RetryRun {
                deadline: Some(past),
                ..cx.retry_of(ended)?
            };
            runs.retry(&request).await?.accepted();
            "a retry"
        }
        6 => {
            runs.time_out(&Overdue {
                limit: Limit::MAX,
                grace: SHORT,
            })
            .await?;
            "a deadline"
        }
        7 => {
            let limit = Limit::MAX;
            let ended_before = runtree_repository::time::Timestamp::MAX;
            runs.delete_ended(&Retention {
                ended_before,
                limit,
            })
            .await?;
            "a deletion"
        }
        8 => {
            let claimed = cx.running(NewRun::new("builder")).await?;
            runs.end(claimed.lease, &completed()).await?.accepted();
            "an ending"
        }
        9 => {
            let claimed = cx.running(NewRun::new("builder")).await?;
            let ending = runtree_repository::Ending {
                lease: claimed.lease,
                outcome: failed("no"),
            };
            runs.end_many(&[ending]).await?;
            "an ending of many"
        }
        _ => {
            let claimed = cx.running(NewRun::new("builder")).await?;
            cx.rescue_dead(claimed.lease).await?;
            "a rescue"
        }
    })
}
