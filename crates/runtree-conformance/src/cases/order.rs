//! Every order shows the whole list, in order, whatever the size of the pages.

use std::collections::BTreeSet;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::time::Timestamp;
use runtree_repository::{
    Annotation, Cost, Cursor, Direction, Limit, NewRun, PageRequest, Persistence, Position,
    Retention, Run, RunFilter, RunOrder, SortKey, SortValue, Usage,
};

use crate::cases::create::TEXT;
use crate::context::{Cx, LONG, completed, distinct, failed, graceful};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq, ensure_invalid};
use crate::generated::{self, Dice};

pub(crate) async fn each_order_pages_through_the_whole_list(cx: Cx) -> Checked {
    let all = generated::runs(&cx, &mut Dice::new(6), 120).await?;
    for order in orders() {
        let expected = sorted(&all, order);
        for limit in [7, 1_000] {
            let seen = walk(&cx, order, limit).await?;
            ensure_eq!(seen, expected, "pages of {limit} in the order {order}");
        }
        let values: BTreeSet<String> = all
            .iter()
            .map(|run| format!("{:?}", order.by.of(run)))
            .collect();
        ensure!(
            values.len() > 1 && (values.len() < all.len() || order.by == SortKey::Created),
            "the runs must have different and equal values of {}",
            order.by.as_str()
        );
    }
    Ok(())
}

pub(crate) async fn pages_of_one_cut_between_equal_and_missing_values(cx: Cx) -> Checked {
    for n in 0..9 {
        let run = NewRun::new(["a", "b"][n % 2]);
        let run = if n % 3 == 0 {
            cx.create_with_worktree(run, Persistence::Temporary).await?
        } else {
            cx.create(run).await?
        };
        if n % 3 == 1 {
            let claimed = cx.claim(run.id).await?;
            let usage = Usage {
                input_tokens: 5,
                output_tokens: 0,
                cost: Cost::from_micros(5),
            };
            cx.runs
                .annotate(run.id, &Annotation::new().set_usage(usage))
                .await?
                .accepted();
            cx.runs
                .end(claimed.lease, &completed())
                .await?
                .applied("a completion")?;
        }
    }
    let mut all = Vec::new();
    for id in cx.ids(&RunFilter::new()).await? {
        all.push(cx.get(id).await?);
    }
    for order in orders() {
        for limit in [1, 2] {
            let seen = walk(&cx, order, limit).await?;
            ensure_eq!(
                seen,
                sorted(&all, order),
                "pages of {limit} in the order {order}"
            );
        }
    }
    Ok(())
}

pub(crate) async fn a_run_without_the_value_comes_before_all_that_have_one(cx: Cx) -> Checked {
    let without = cx.create(NewRun::new("builder")).await?;
    let with = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let claimed = cx.claim(with.id).await?;
    cx.pass(Duration::from_micros(5)).await?;
    cx.runs
        .end(claimed.lease, &failed("no"))
        .await?
        .applied("a failure")?;
    for by in [
        SortKey::Started,
        SortKey::Ended,
        SortKey::Duration,
        SortKey::Branch,
    ] {
        let ascending = walk(&cx, RunOrder::ascending(by), 1).await?;
        ensure_eq!(
            ascending,
            [without.id, with.id],
            "ascending by {}",
            by.as_str()
        );
        let descending = walk(&cx, RunOrder::descending(by), 1).await?;
        ensure_eq!(
            descending,
            [with.id, without.id],
            "descending by {}",
            by.as_str()
        );
    }
    // A run that ended without having begun has an end and no duration.
    cx.pass(Duration::from_micros(1)).await?;
    cx.runs
        .cancel(without.id, &graceful())
        .await?
        .applied("a cancel")?;
    let last = walk(&cx, RunOrder::descending(SortKey::Duration), 1).await?;
    ensure_eq!(last, [with.id, without.id], "descending by duration");
    let last = walk(&cx, RunOrder::descending(SortKey::Ended), 1).await?;
    ensure_eq!(last, [without.id, with.id], "descending by end");
    Ok(())
}

pub(crate) async fn each_instant_and_time_has_its_place(cx: Cx) -> Checked {
    // Each of four runs is first in one of four ways.
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(cx.create(NewRun::new("builder")).await?.id);
        cx.clock.advance(Duration::from_micros(1));
    }
    let mut leases = Vec::new();
    for n in [2, 0, 3, 1] {
        leases.push((n, cx.claim(runs[n]).await?.lease));
        cx.clock.advance(Duration::from_micros(10));
    }
    for n in [1, 3, 0, 2] {
        let lease = leases
            .iter()
            .find(|(of, _)| *of == n)
            .map(|(_, lease)| *lease);
        let lease = lease.ok_or_else(|| Failure::new("each was claimed"))?;
        cx.runs
            .end(lease, &completed())
            .await?
            .applied("a completion")?;
        cx.clock.advance(Duration::from_micros(100));
    }
    for (by, expected) in [
        (SortKey::Created, [0, 1, 2, 3]),
        (SortKey::Started, [2, 0, 3, 1]),
        (SortKey::Ended, [1, 3, 0, 2]),
        (SortKey::Duration, [1, 3, 0, 2]),
    ] {
        let mut expected = expected.map(|n| runs[n]);
        let seen = walk(&cx, RunOrder::ascending(by), 2).await?;
        ensure_eq!(seen, expected, "ascending by {}", by.as_str());
        expected.reverse();
        let seen = walk(&cx, RunOrder::descending(by), 2).await?;
        ensure_eq!(seen, expected, "descending by {}", by.as_str());
    }
    Ok(())
}

pub(crate) async fn texts_are_ordered_by_their_bytes(cx: Cx) -> Checked {
    let names = [
        "_",
        "A",
        "B",
        "Z",
        "a",
        "a b",
        "a-b",
        "ab",
        "b",
        "~",
        "ä",
        "é",
        "\u{ffff}",
        "\u{1f600}",
        TEXT,
    ];
    let mut expected: Vec<&str> = names.to_vec();
    expected.sort_unstable();
    // Created in another order than either.
    for n in 0..names.len() {
        cx.create(NewRun::new(names[(n * 7) % names.len()])).await?;
    }
    for (order, reverse) in [
        (RunOrder::ascending(SortKey::Workflow), false),
        (RunOrder::descending(SortKey::Workflow), true),
    ] {
        let mut expected = expected.clone();
        if reverse {
            expected.reverse();
        }
        let mut seen = Vec::new();
        for id in walk(&cx, order, 2).await? {
            seen.push(cx.get(id).await?.workflow.to_string());
        }
        ensure_eq!(seen, expected, "the workflows in the order {order}");
    }
    Ok(())
}

pub(crate) async fn the_largest_numbers_have_their_place(cx: Cx) -> Checked {
    let mut expected = Vec::new();
    for tokens in [0, 1, Usage::MAX - 1, Usage::MAX] {
        let run = cx.create(NewRun::new("builder")).await?;
        let usage = Usage {
            input_tokens: tokens,
            output_tokens: tokens,
            cost: Cost::from_micros(tokens),
        };
        cx.runs
            .annotate(run.id, &Annotation::new().set_usage(usage))
            .await?
            .accepted();
        expected.push(run.id);
    }
    for by in [SortKey::Cost, SortKey::Tokens] {
        let seen = walk(&cx, RunOrder::ascending(by), 1).await?;
        ensure_eq!(seen, expected, "ascending by {}", by.as_str());
    }
    Ok(())
}

pub(crate) async fn a_cursor_of_any_other_order_is_refused(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    for of in orders() {
        let cursor = Cursor::new(of, Position::of(of.by, &run));
        let text = cursor.to_string();
        ensure_eq!(
            text.parse::<Cursor>()?,
            cursor,
            "the cursor that was written as {text}"
        );
        for order in orders() {
            let page = PageRequest {
                limit: Limit::ONE,
                order,
                after: Some(cursor.clone()),
            };
            let answer = cx.runs.list(&RunFilter::new(), &page).await;
            if of == order {
                ensure_eq!(answer?.runs, [], "the runs after the only one");
            } else {
                ensure_invalid(answer, &format!("a cursor of the order {of} in {order}"))?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn a_page_begins_where_a_deleted_run_was(cx: Cx) -> Checked {
    for order in orders() {
        let mut all = Vec::new();
        for n in 0..4 {
            all.push(cx.ended(NewRun::new(format!("w{n}")), &completed()).await?);
            cx.pass(Duration::from_micros(1)).await?;
        }
        let all = sorted(&all, order);
        let mut page = PageRequest {
            limit: Limit::new(2)?,
            order,
            after: None,
        };
        let first = cx.runs.list(&RunFilter::new(), &page).await?;
        let seen: Vec<RunId> = first.runs.iter().map(|run| run.id).collect();
        ensure_eq!(seen, all[..2], "the first page in the order {order}");
        let retention = Retention {
            ended_before: Timestamp::MAX,
            limit: Limit::MAX,
        };
        cx.runs.delete_ended(&retention).await?;
        let behind = cx.create(NewRun::new("w9")).await?;
        page.after = first.next;
        let rest = cx.runs.list(&RunFilter::new(), &page).await?;
        let expected = page
            .position()?
            .is_some_and(|at| order.compare(at, &Position::of(order.by, &behind)).is_lt());
        let seen: Vec<RunId> = rest.runs.iter().map(|run| run.id).collect();
        let expected = if expected {
            vec![behind.id]
        } else {
            Vec::new()
        };
        ensure_eq!(seen, expected, "the next page in the order {order}");
        cx.runs
            .cancel(behind.id, &graceful())
            .await?
            .applied("a cancel")?;
        cx.runs.delete_ended(&retention).await?;
    }
    Ok(())
}

pub(crate) async fn pages_stay_exact_while_runs_are_created(cx: Cx) -> Checked {
    for order in [
        RunOrder::OLDEST_FIRST,
        RunOrder::NEWEST_FIRST,
        RunOrder::ascending(SortKey::Workflow),
        RunOrder::descending(SortKey::Workflow),
    ] {
        let mut before = Vec::new();
        for n in 0..12 {
            before.push(cx.create(NewRun::new(format!("w{}", n % 5))).await?);
            cx.pass(Duration::from_micros(1)).await?;
        }
        let mut known = Vec::new();
        for id in cx.ids(&RunFilter::new()).await? {
            known.push(cx.get(id).await?);
        }
        let expected = sorted(&known, order);
        let mut page = PageRequest {
            limit: Limit::new(4)?,
            order,
            after: None,
        };
        let mut seen = Vec::new();
        for n in 0.. {
            let answer = cx.runs.list(&RunFilter::new(), &page).await?;
            seen.extend(answer.runs.iter().map(|run| run.id));
            // Before, within and after what was shown; and a run that ends meanwhile.
            if n < 6 {
                for workflow in ["a", "w2", "z"] {
                    cx.create(NewRun::new(workflow)).await?;
                }
                cx.ended(NewRun::new("w3"), &completed()).await?;
            }
            page.after = match answer.next {
                Some(next) => Some(next),
                None => break,
            };
        }
        let seen = distinct_in_order(seen)?;
        let known: BTreeSet<RunId> = known.iter().map(|run| run.id).collect();
        let seen: Vec<RunId> = seen.into_iter().filter(|id| known.contains(id)).collect();
        ensure_eq!(
            seen,
            expected,
            "the runs that were there from the beginning, in {order}"
        );
    }
    Ok(())
}

pub(crate) async fn a_place_beyond_every_run_is_a_place(cx: Cx) -> Checked {
    let run = cx.ended(NewRun::new("builder"), &completed()).await?;
    for order in orders() {
        let values = if order.by.is_text() {
            [
                SortValue::Text(String::new()),
                SortValue::Text("\u{10ffff}".repeat(32)),
            ]
        } else {
            [SortValue::Number(None), SortValue::Number(Some(i64::MAX))]
        };
        for (value, is_first) in values.into_iter().zip([true, false]) {
            // The smallest and the greatest id there are, so that the id decides nothing.
            let id = if is_first { edge(0)? } else { edge(0xff)? };
            let is_ascending = order.direction == Direction::Ascending;
            let after = Some(Cursor::new(order, Position { value, id }));
            let page = PageRequest {
                limit: Limit::ONE,
                order,
                after,
            };
            let seen = cx.runs.list(&RunFilter::new(), &page).await?.runs;
            let expected = if is_first == is_ascending {
                vec![run.id]
            } else {
                Vec::new()
            };
            let seen: Vec<RunId> = seen.iter().map(|run| run.id).collect();
            ensure_eq!(seen, expected, "the runs after {:?}", page.after);
        }
    }
    ensure!(run.has_ended(), "the run has every value: {LONG:?}");
    Ok(())
}

fn orders() -> impl Iterator<Item = RunOrder> {
    SortKey::ALL
        .iter()
        .flat_map(|by| [RunOrder::ascending(*by), RunOrder::descending(*by)])
}

/// The least or the greatest id.
fn edge(byte: u8) -> Checked<RunId> {
    let mut bytes = [byte; 16];
    bytes[6] = 0x70 | (byte & 0x0f);
    bytes[8] = 0x80 | (byte & 0x3f);
    if byte == 0xff {
        // The latest instant that an id can tell of.
        bytes[..6].copy_from_slice(&[0xe6, 0x77, 0xd2, 0x1f, 0xdb, 0xff]);
    }
    RunId::from_bytes(bytes).map_err(|e| Failure::new(e.to_string()))
}

/// The naive list: every run, sorted.
fn sorted(runs: &[Run], order: RunOrder) -> Vec<RunId> {
    let mut places: Vec<Position> = runs.iter().map(|run| Position::of(order.by, run)).collect();
    places.sort_by(|one, other| order.compare(one, other));
    places.into_iter().map(|place| place.id).collect()
}

async fn walk(cx: &Cx, order: RunOrder, limit: u64) -> Checked<Vec<RunId>> {
    let mut page = PageRequest {
        limit: Limit::new(limit)?,
        order,
        after: None,
    };
    let mut seen = Vec::new();
    loop {
        let answer = cx.runs.list(&RunFilter::new(), &page).await?;
        ensure!(
            answer.runs.len() <= page.limit.get(),
            "a page of {limit} has more runs"
        );
        ensure!(
            seen.len() < 2_000,
            "the pages of {order} must come to an end"
        );
        seen.extend(answer.runs.iter().map(|run| run.id));
        match answer.next {
            Some(next) => page.after = Some(next),
            None => return Ok(seen),
        }
    }
}

fn distinct_in_order(ids: Vec<RunId>) -> Checked<Vec<RunId>> {
    distinct(ids.clone(), "the runs of all pages")?;
    Ok(ids)
}
