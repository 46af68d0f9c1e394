//! Lists show every run that their filter names, once, in order, page by page.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::time::{TimeRange, Timestamp};
use runtree_repository::{
    Cursor, ErrorKind, Limit, NewRun, Outcome, PageRequest, Position, Run, RunFilter, RunOrder,
    SortKey, SortValue, UserId, WorkflowName,
};

use crate::context::{Cx, completed, distinct, failed, graceful, session, with_attempts};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq, ensure_invalid};

pub(crate) async fn an_empty_store_lists_nothing(cx: Cx) -> Checked {
    let page = cx
        .runs
        .list(&RunFilter::new(), &PageRequest::default())
        .await?;
    ensure_eq!(page.runs, [], "the runs of an empty store");
    ensure_eq!(page.next, None, "the next page of an empty store");
    Ok(())
}

pub(crate) async fn the_youngest_come_first_unless_asked_otherwise(cx: Cx) -> Checked {
    let mut oldest_first = Vec::new();
    for _ in 0..4 {
        oldest_first.push(cx.create(NewRun::new("builder")).await?.id);
        cx.pass(Duration::from_micros(1)).await?;
    }
    ensure_eq!(
        walk(&cx, RunOrder::OLDEST_FIRST, 10).await?,
        oldest_first,
        "the runs, oldest first"
    );
    oldest_first.reverse();
    ensure_eq!(
        cx.ids(&RunFilter::new()).await?,
        oldest_first,
        "the runs in the usual order"
    );
    ensure_eq!(
        walk(&cx, RunOrder::NEWEST_FIRST, 10).await?,
        oldest_first,
        "the runs, youngest first"
    );
    Ok(())
}

pub(crate) async fn a_summary_is_the_summary_of_the_run(cx: Cx) -> Checked {
    cx.running(
        NewRun::new("builder")
            .input("x")
            .user("user-1")
            .metadata("k", 1),
    )
    .await?;
    let failing = cx.running(with_attempts(3)?).await?;
    cx.runs
        .cancel(failing.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    cx.create(NewRun::new("builder")).await?;
    for summary in cx.list(&RunFilter::new()).await? {
        ensure_eq!(
            cx.get(summary.id).await?.summary,
            summary,
            "what the list shows of a run"
        );
    }
    Ok(())
}

pub(crate) async fn each_condition_shows_what_it_names(cx: Cx) -> Checked {
    let all = many_runs(&cx).await?;
    let [first, last] = [
        all.iter().map(|run| run.created_at).min(),
        all.iter().map(|run| run.created_at).max(),
    ];
    let middle = all[all.len() / 2].created_at;
    let ends: Vec<Timestamp> = all.iter().filter_map(|run| run.ended_at).collect();
    let session = session("0190b5c4-7e1a-7b3c-8d4e-5f60718293a4")?;
    let other_session = "0190b5c4-7e1a-7b3c-8d4e-5f60718293a5";
    let filters = [
        RunFilter::new(),
        RunFilter::new().statuses([RunStatus::Pending]),
        RunFilter::new().statuses([RunStatus::Running, RunStatus::Killed]),
        RunFilter::new().statuses(RunStatus::KNOWN.iter().copied()),
        RunFilter::new().workflows([WorkflowName::new("builder")?]),
        RunFilter::new().workflows([WorkflowName::new("builder")?, WorkflowName::new("review")?]),
        RunFilter::new().workflows([WorkflowName::new("build_r")?, WorkflowName::new("build%")?]),
        RunFilter::new().session(session),
        RunFilter::new().session(crate::context::session(other_session)?),
        RunFilter::new().user(UserId::new("user-1")?),
        RunFilter::new().user(UserId::new("User-1")?),
        RunFilter::new().created(TimeRange::all()),
        RunFilter::new().created(TimeRange::since(middle)),
        RunFilter::new().created(TimeRange::before(middle)),
        RunFilter::new().created(TimeRange::through(middle)),
        RunFilter::new().started(TimeRange::since(middle)),
        RunFilter::new().started(TimeRange::all()),
        RunFilter::new().ended(TimeRange::all()),
        RunFilter::new().ended(TimeRange::before(ends[ends.len() / 2])),
        RunFilter::new().ended(TimeRange::since(ends[ends.len() / 2])),
        RunFilter::new()
            .statuses([RunStatus::Completed])
            .workflows([WorkflowName::new("builder")?])
            .user(UserId::new("user-1")?),
        RunFilter::new()
            .session(session)
            .created(TimeRange::since(middle))
            .statuses([RunStatus::Pending, RunStatus::Running]),
    ];
    ensure!(
        first < Some(middle) && Some(middle) < last,
        "the runs must be spread over time"
    );
    for filter in filters {
        let expected: Vec<RunId> = all
            .iter()
            .filter(|run| filter.shows(run))
            .map(|run| run.id)
            .collect();
        ensure_eq!(
            cx.ids(&filter).await?,
            expected,
            "the runs that {filter:?} shows"
        );
        // The filter holds for every page, not only for the first.
        let paged = walk_filtered(&cx, &filter, RunOrder::NEWEST_FIRST, 2).await?;
        ensure_eq!(
            paged,
            expected,
            "the runs that {filter:?} shows, in pages of two"
        );
    }
    Ok(())
}

pub(crate) async fn a_range_begins_with_its_start_and_stops_before_its_end(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    cx.pass(Duration::from_micros(10)).await?;
    let claimed = cx.claim(run.id).await?;
    cx.pass(Duration::from_micros(10)).await?;
    let run = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let (Some(started_at), Some(ended_at)) = (run.started_at, run.ended_at) else {
        return Err(Failure::new("a completed run has started and ended"));
    };
    type Condition = fn(RunFilter, TimeRange) -> RunFilter;
    let conditions: [(Condition, Timestamp); 3] = [
        (RunFilter::created, run.created_at),
        (RunFilter::started, started_at),
        (RunFilter::ended, ended_at),
    ];
    for (condition, at) in conditions {
        let next = at.saturating_add(Duration::from_micros(1));
        let range =
            |start, end| TimeRange::between(start, end).map_err(|e| Failure::new(e.to_string()));
        let before = at.saturating_sub(Duration::from_micros(1));
        for (range, shows) in [
            (range(at, next)?, true),
            (range(before, at)?, false),
            (
                range(next, next.saturating_add(Duration::from_secs(1)))?,
                false,
            ),
            (range(at, at)?, false),
            (TimeRange::since(at), true),
            (TimeRange::since(next), false),
            (TimeRange::before(at), false),
            (TimeRange::before(next), true),
            (TimeRange::through(at), true),
            (range(Timestamp::MIN, Timestamp::MAX)?, true),
        ] {
            let shown = !cx
                .ids(&condition(RunFilter::new(), range))
                .await?
                .is_empty();
            ensure_eq!(
                shown,
                shows,
                "whether the range {range} shows a run at {at}"
            );
        }
    }
    Ok(())
}

pub(crate) async fn a_run_that_has_not_begun_or_ended_is_in_no_such_range(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    ensure_eq!(
        cx.ids(&RunFilter::new().started(TimeRange::all())).await?,
        [],
        "the runs that have begun"
    );
    ensure_eq!(
        cx.ids(&RunFilter::new().ended(TimeRange::all())).await?,
        [],
        "the runs that have ended"
    );
    ensure_eq!(
        cx.ids(&RunFilter::new().created(TimeRange::all())).await?,
        [run.id],
        "the runs that were created"
    );
    Ok(())
}

pub(crate) async fn pages_show_every_run_once(cx: Cx) -> Checked {
    for _ in 0..7 {
        cx.create(NewRun::new("builder")).await?;
        cx.pass(Duration::from_micros(1)).await?;
    }
    ensure_pages(&cx).await
}

pub(crate) async fn pages_show_every_run_of_one_instant_once(cx: Cx) -> Checked {
    // The clock stands still: all share one instant, before it and after it there are others.
    for _ in 0..3 {
        for _ in 0..5 {
            cx.create(NewRun::new("builder")).await?;
        }
        cx.pass(Duration::from_micros(1)).await?;
    }
    ensure_pages(&cx).await
}

pub(crate) async fn the_last_page_says_so_also_when_it_is_full(cx: Cx) -> Checked {
    for _ in 0..4 {
        cx.create(NewRun::new("builder")).await?;
    }
    let mut page = PageRequest {
        limit: Limit::new(2)?,
        ..PageRequest::default()
    };
    let first = cx.runs.list(&RunFilter::new(), &page).await?;
    ensure_eq!(
        (first.runs.len(), first.next.is_some()),
        (2, true),
        "size of the first page, and whether another follows"
    );
    page.after = first.next;
    let last = cx.runs.list(&RunFilter::new(), &page).await?;
    ensure_eq!(
        (last.runs.len(), last.next.is_some()),
        (2, false),
        "size of the last page, and whether another follows"
    );
    Ok(())
}

pub(crate) async fn what_happens_between_pages_hides_nothing_and_repeats_nothing(
    cx: Cx,
) -> Checked {
    let mut before = BTreeSet::new();
    for _ in 0..6 {
        before.insert(cx.create(with_attempts(2)?).await?.id);
        cx.pass(Duration::from_micros(1)).await?;
    }
    for order in [RunOrder::OLDEST_FIRST, RunOrder::NEWEST_FIRST] {
        let mut page = PageRequest {
            limit: Limit::new(2)?,
            order,
            after: None,
        };
        let mut seen = Vec::new();
        loop {
            let answer = cx.runs.list(&RunFilter::new(), &page).await?;
            seen.extend(answer.runs.iter().map(|run| run.id));
            // Everything that changes a run but not its place: a claim, an ending, a release; and a new run.
            for claimed in cx.claim_all().await?.into_iter().take(2) {
                cx.runs.release(claimed.lease).await?.applied("a release")?;
            }
            if answer.next.is_none() {
                break;
            }
            if seen.len() <= 4 {
                cx.create(NewRun::new("builder")).await?;
                cx.pass(Duration::from_micros(1)).await?;
            }
            page.after = answer.next;
        }
        let seen = distinct(seen, "the runs of all pages")?;
        ensure!(
            before.is_subset(&seen),
            "every run that was there from the beginning must be shown: {before:?}, saw {seen:?}"
        );
    }
    Ok(())
}

pub(crate) async fn a_cursor_survives_as_text(cx: Cx) -> Checked {
    for _ in 0..3 {
        cx.create(NewRun::new("builder")).await?;
        cx.pass(Duration::from_micros(1)).await?;
    }
    let mut page = PageRequest {
        limit: Limit::ONE,
        ..PageRequest::default()
    };
    let first = cx.runs.list(&RunFilter::new(), &page).await?;
    let cursor = first
        .next
        .ok_or_else(|| Failure::new("another page follows"))?;
    let text = cursor.to_string();
    let read: Cursor = text.parse()?;
    ensure_eq!(read, cursor, "the cursor that was written as {text}");
    page.after = Some(read);
    let second = cx.runs.list(&RunFilter::new(), &page).await?;
    let all = cx.ids(&RunFilter::new()).await?;
    ensure_eq!(
        second.runs.first().map(|run| run.id),
        all.get(1).copied(),
        "the second run"
    );
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
        let changed = String::from_utf8_lossy(&changed).into_owned();
        ensure!(
            changed.parse::<Cursor>().is_err(),
            "the changed cursor {changed} must be refused"
        );
    }
    Ok(())
}

pub(crate) async fn a_cursor_of_another_order_is_refused(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let page = PageRequest {
        limit: Limit::ONE,
        order: RunOrder::OLDEST_FIRST,
        after: Some(Cursor::new(
            RunOrder::NEWEST_FIRST,
            Position::of(SortKey::Created, &run),
        )),
    };
    match cx.runs.list(&RunFilter::new(), &page).await {
        Err(error) => ensure_eq!(error.kind(), ErrorKind::InvalidInput, "the error"),
        Ok(page) => {
            return Err(Failure::new(format!(
                "a cursor of another order was answered by {page:?}"
            )));
        }
    }
    Ok(())
}

pub(crate) async fn a_cursor_needs_no_run_behind_it(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    for (at, expected) in [
        (
            run.created_at.saturating_add(Duration::from_secs(1)),
            vec![run.id],
        ),
        (
            run.created_at.saturating_sub(Duration::from_secs(1)),
            Vec::new(),
        ),
        (Timestamp::MAX, vec![run.id]),
        (Timestamp::MIN, Vec::new()),
    ] {
        let place = Position {
            value: SortValue::Number(Some(at.as_unix_micros())),
            id: cx.run_id()?,
        };
        let page = PageRequest {
            after: Some(Cursor::new(RunOrder::NEWEST_FIRST, place)),
            ..PageRequest::default()
        };
        let seen: Vec<RunId> = cx
            .runs
            .list(&RunFilter::new(), &page)
            .await?
            .runs
            .iter()
            .map(|run| run.id)
            .collect();
        ensure_eq!(seen, expected, "the runs before {at}");
    }
    Ok(())
}

pub(crate) async fn a_condition_without_values_is_refused(cx: Cx) -> Checked {
    cx.create(NewRun::new("builder")).await?;
    for filter in [
        RunFilter::new().statuses([]),
        RunFilter::new().workflows([]),
        RunFilter::new().end_reasons([]),
        RunFilter::new().queues([]),
        without_tags(),
        without_metadata(),
        RunFilter::new()
            .workflows([WorkflowName::new("builder")?])
            .queues([]),
    ] {
        let what = format!("{filter:?}");
        let page = PageRequest::default();
        ensure_invalid(cx.runs.list(&filter, &page).await, &what)?;
        ensure_invalid(cx.runs.count(&filter).await, &what)?;
        ensure_invalid(cx.runs.statistics(&filter).await, &what)?;
    }
    Ok(())
}

fn without_tags() -> RunFilter {
    let mut filter = RunFilter::new();
    filter.tags = Some(BTreeSet::new());
    filter
}

fn without_metadata() -> RunFilter {
    let mut filter = RunFilter::new();
    filter.metadata = Some(BTreeMap::new());
    filter
}

/// Walks all pages in both orders, with several limits, and compares them with the whole list.
async fn ensure_pages(cx: &Cx) -> Checked {
    let whole = cx.list(&RunFilter::new()).await?;
    let is_sorted =
        whole.is_sorted_by(|one, next| (one.created_at, one.id) > (next.created_at, next.id));
    ensure!(
        is_sorted,
        "the list goes by instant and id, youngest first: saw {whole:?}"
    );
    let whole: Vec<RunId> = whole.iter().map(|run| run.id).collect();
    distinct(whole.clone(), "the whole list")?;
    let mut turned = whole.clone();
    turned.reverse();
    for limit in [1, 2, 3, 5, 100] {
        ensure_eq!(
            walk(cx, RunOrder::NEWEST_FIRST, limit).await?,
            whole,
            "pages of {limit}, youngest first"
        );
        ensure_eq!(
            walk(cx, RunOrder::OLDEST_FIRST, limit).await?,
            turned,
            "pages of {limit}, oldest first"
        );
    }
    Ok(())
}

async fn walk(cx: &Cx, order: RunOrder, limit: u64) -> Checked<Vec<RunId>> {
    walk_filtered(cx, &RunFilter::new(), order, limit).await
}

async fn walk_filtered(
    cx: &Cx,
    filter: &RunFilter,
    order: RunOrder,
    limit: u64,
) -> Checked<Vec<RunId>> {
    let mut page = PageRequest {
        limit: Limit::new(limit)?,
        order,
        after: None,
    };
    let mut seen = Vec::new();
    loop {
        let answer = cx.runs.list(filter, &page).await?;
        ensure!(
            answer.runs.len() <= page.limit.get(),
            "a page of {limit} has {} runs",
            answer.runs.len()
        );
        ensure!(seen.len() < 1_000, "the pages must come to an end");
        seen.extend(answer.runs.iter().map(|run| run.id));
        match answer.next {
            Some(next) => page.after = Some(next),
            None => return Ok(seen),
        }
    }
}

/// Runs of every kind that the interface can bring about, youngest first.
async fn many_runs(cx: &Cx) -> Checked<Vec<Run>> {
    let session = session("0190b5c4-7e1a-7b3c-8d4e-5f60718293a4")?;
    let mut all = Vec::new();
    for n in 0_u32..16 {
        let mut run = NewRun::new(["builder", "review", "refactor"][n as usize % 3]);
        if n % 2 == 0 {
            run = run.user("user-1");
        }
        if n % 3 == 1 {
            run = run.session(session);
        }
        let id = cx.create(run).await?.id;
        cx.pass(Duration::from_micros(3)).await?;
        let outcome = match n % 5 {
            0 => None,
            1 => {
                cx.claim(id).await?;
                None
            }
            2 => Some(completed()),
            3 => Some(failed("no")),
            _ => Some(Outcome::Killed),
        };
        if let Some(outcome) = outcome {
            let claimed = cx.claim(id).await?;
            cx.pass(Duration::from_micros(3)).await?;
            cx.runs
                .end(claimed.lease, &outcome)
                .await?
                .applied("an ending")?;
        }
        all.push(cx.get(id).await?);
        cx.pass(Duration::from_micros(3)).await?;
    }
    all.reverse();
    Ok(all)
}
