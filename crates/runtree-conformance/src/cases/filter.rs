//! A filter shows what its meaning says, alone and together with others, in lists and in counts.

use std::collections::{BTreeMap, BTreeSet};

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::{
    Annotation, Limit, MAX_FILTER_VALUES, MAX_JSON_DEPTH, NewRun, PageRequest, Persistence,
    QueueName, Run, RunFilter, RunOrder, SortKey, Tag, WorkflowName,
};
use serde_json::{Value, json};

use crate::cases::create::TEXT;
use crate::context::{Cx, completed, failed, graceful, only};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq, ensure_invalid};
use crate::generated::{self, Dice};

pub(crate) async fn generated_filters_show_what_their_meaning_says(cx: Cx) -> Checked {
    let mut dice = Dice::new(4);
    let mut all = generated::runs(&cx, &mut dice, 300).await?;
    all.sort_by_key(|run| std::cmp::Reverse((run.created_at, run.id)));
    let (mut shown_some, mut hid_some) = (0, 0);
    for _ in 0..200 {
        let filter = generated::filter(&mut dice, &all)?;
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
        let count = u64::try_from(expected.len()).unwrap_or(u64::MAX);
        ensure_eq!(
            cx.runs.count(&filter).await?,
            count,
            "how many {filter:?} shows"
        );
        shown_some += u32::from(!expected.is_empty());
        hid_some += u32::from(expected.len() < all.len());
    }
    ensure!(
        shown_some > 100 && hid_some > 150,
        "the filters must tell runs apart: {shown_some} of 200 showed some, {hid_some} hid some"
    );
    Ok(())
}

pub(crate) async fn a_filter_holds_in_every_order_and_on_every_page(cx: Cx) -> Checked {
    let mut dice = Dice::new(5);
    let all = generated::runs(&cx, &mut dice, 80).await?;
    for by in SortKey::ALL {
        for order in [RunOrder::ascending(*by), RunOrder::descending(*by)] {
            let filter = generated::filter(&mut dice, &all)?;
            let expected = all.iter().filter(|run| filter.shows(run)).map(|run| run.id);
            let mut page = PageRequest {
                limit: Limit::new(3)?,
                order,
                after: None,
            };
            let mut seen = Vec::new();
            loop {
                let answer = cx.runs.list(&filter, &page).await?;
                seen.extend(answer.runs.iter().map(|run| run.id));
                ensure!(
                    seen.len() <= all.len(),
                    "the pages of {order} must come to an end"
                );
                page.after = match answer.next {
                    Some(next) => Some(next),
                    None => break,
                };
            }
            let seen = crate::context::distinct(seen, "the runs of all pages")?;
            ensure_eq!(
                seen,
                expected.collect(),
                "the runs of {filter:?} in the order {order}"
            );
        }
    }
    Ok(())
}

pub(crate) async fn queues_end_reasons_and_branches_are_what_they_are(cx: Cx) -> Checked {
    let slow = cx.create(NewRun::new("builder").queue("slow")).await?;
    let default = cx.ended(NewRun::new("builder"), &completed()).await?;
    let failed = cx
        .ended(NewRun::new("builder").queue("Slow"), &failed("no"))
        .await?;
    let cancelled = cx.create(NewRun::new("builder").queue("fast")).await?;
    cx.runs
        .cancel(cancelled.id, &graceful())
        .await?
        .applied("a cancel")?;
    let tree = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let branch = |run: &Run| {
        run.worktree
            .as_ref()
            .map(|worktree| worktree.branch.clone())
    };
    let mut filter = RunFilter::new();
    filter.branch = branch(&tree);
    ensure_shows(&cx, filter.clone(), &[tree.id]).await?;
    ensure_shows(&cx, filter.clone().queues(["default".parse()?]), &[tree.id]).await?;
    ensure_shows(&cx, filter.queues(["slow".parse()?]), &[]).await?;
    let other = "other".parse();
    let other = other.map_err(|_| crate::failure::Failure::new("`other` is a branch"))?;
    ensure_shows(&cx, RunFilter::new().branch(other), &[]).await?;
    ensure_shows(&cx, RunFilter::new().queues(["slow".parse()?]), &[slow.id]).await?;
    let both = ["Slow".parse()?, "fast".parse()?];
    ensure_shows(
        &cx,
        RunFilter::new().queues(both),
        &[failed.id, cancelled.id],
    )
    .await?;
    let reasons = |reasons: &[EndReason]| RunFilter::new().end_reasons(reasons.iter().copied());
    ensure_shows(&cx, reasons(&[EndReason::Succeeded]), &[default.id]).await?;
    ensure_shows(
        &cx,
        reasons(&[EndReason::CancelledBeforeStart]),
        &[cancelled.id],
    )
    .await?;
    ensure_shows(&cx, reasons(&[EndReason::Killed, EndReason::Lost]), &[]).await?;
    let ended = [default.id, failed.id, cancelled.id];
    ensure_shows(&cx, reasons(EndReason::KNOWN), &ended).await?;
    let host_reason = EndReason::from_stored("budget_spent");
    let host_reason = host_reason.map_err(|e| crate::failure::Failure::new(e.to_string()))?;
    ensure_shows(&cx, reasons(&[host_reason, EndReason::Error]), &[failed.id]).await
}

pub(crate) async fn an_owner_is_found_by_what_it_runs_now(cx: Cx) -> Checked {
    let mine = cx.running(NewRun::new("builder")).await?;
    let other = cx.create(NewRun::new("builder")).await?;
    let mut claim = cx.claim_of(runtree_repository::ClaimOf::Run(other.id))?;
    claim.owner = cx.owner("beta.example")?;
    let other = only(cx.runs.claim(&claim).await?, "a claim on another machine")?;
    let owners = [&mine, &other].map(|claimed| claimed.run.owner.clone());
    let [Some(my_owner), Some(its_owner)] = owners else {
        return Err(crate::failure::Failure::new("a claimed run has an owner"));
    };
    let (my_id, its_id) = (mine.lease.run, other.lease.run);
    ensure_shows(&cx, RunFilter::new().owner(my_owner.id), &[my_id]).await?;
    ensure_shows(&cx, RunFilter::new().owner(its_owner.id), &[its_id]).await?;
    ensure_shows(
        &cx,
        RunFilter::new().owner_host("beta.example".parse()?),
        &[its_id],
    )
    .await?;
    ensure_shows(
        &cx,
        RunFilter::new().owner_host("Beta.example".parse()?),
        &[],
    )
    .await?;
    let neither = RunFilter::new()
        .owner(my_owner.id)
        .owner_host("beta.example".parse()?);
    ensure_shows(&cx, neither, &[]).await?;
    cx.runs
        .end(mine.lease, &completed())
        .await?
        .applied("a completion")?;
    cx.runs.release(other.lease).await?.applied("a release")?;
    ensure_shows(&cx, RunFilter::new().owner(my_owner.id), &[]).await?;
    ensure_shows(
        &cx,
        RunFilter::new().owner_host("beta.example".parse()?),
        &[],
    )
    .await
}

pub(crate) async fn all_tags_of_a_filter_must_be_there(cx: Cx) -> Checked {
    let both = cx
        .create(NewRun::new("builder").tag("a_b").tag(TEXT))
        .await?
        .id;
    let one = cx
        .create(NewRun::new("builder").tag("a_b").tag("axb"))
        .await?
        .id;
    let other = cx
        .create(NewRun::new("builder").tag("A_B").tag("a_b "))
        .await?
        .id;
    cx.create(NewRun::new("builder")).await?;
    let of = |tags: &[&str]| -> Checked<RunFilter> {
        tags.iter()
            .try_fold(RunFilter::new(), |filter, tag| Ok(filter.tag(tag.parse()?)))
    };
    ensure_shows(&cx, of(&["a_b"])?, &[both, one]).await?;
    ensure_shows(&cx, of(&["a_b", TEXT])?, &[both]).await?;
    ensure_shows(&cx, of(&["a_b", "axb"])?, &[one]).await?;
    ensure_shows(&cx, of(&["A_B"])?, &[other]).await?;
    ensure_shows(&cx, of(&["a_b", "nobody's"])?, &[]).await?;
    ensure_shows(&cx, of(&["%"])?, &[]).await?;
    ensure_shows(&cx, of(&["a"])?, &[]).await?;
    let change = Annotation::new()
        .remove_tag("a_b".parse()?)
        .add_tag("%".parse()?);
    cx.runs
        .annotate(one, &change)
        .await?
        .applied("an annotation")?;
    ensure_shows(&cx, of(&["a_b"])?, &[both]).await?;
    ensure_shows(&cx, of(&["%", "axb"])?, &[one]).await
}

pub(crate) async fn members_of_metadata_are_found_by_name_and_by_value(cx: Cx) -> Checked {
    let with = |value: Value| NewRun::new("builder").metadata("k", value);
    let nothing = cx.create(NewRun::new("builder")).await?.id;
    let null = cx.create(with(json!(null))).await?.id;
    let number = cx.create(with(json!(1))).await?.id;
    let text = cx.create(with(json!("1"))).await?.id;
    let yes = cx.create(with(json!(true))).await?.id;
    let list = cx.create(with(json!([1, 2]))).await?.id;
    let object = cx
        .create(with(json!({"a": 1, "b": {"c": [null], "d": TEXT}})))
        .await?
        .id;
    let name = RunFilter::new().metadata_key("k");
    ensure_shows(&cx, name, &[null, number, text, yes, list, object]).await?;
    ensure_shows(&cx, RunFilter::new().metadata_key("K"), &[]).await?;
    ensure_shows(&cx, RunFilter::new().metadata_key("a"), &[]).await?;
    for (value, expected) in [
        (json!(null), vec![null]),
        (json!(1), vec![number]),
        (json!("1"), vec![text]),
        (json!(true), vec![yes]),
        (json!("true"), vec![]),
        (json!("null"), vec![]),
        (json!([1, 2]), vec![list]),
        (json!([2, 1]), vec![]),
        (json!([1]), vec![]),
        (json!({"b": {"d": TEXT, "c": [null]}, "a": 1}), vec![object]),
        (json!({"a": 1}), vec![]),
        (json!(0), vec![]),
        (json!(""), vec![]),
    ] {
        ensure_shows(&cx, RunFilter::new().metadata("k", value), &expected).await?;
    }
    let note = Annotation::new().remove_metadata("k").metadata("j", 1);
    cx.runs
        .annotate(number, &note)
        .await?
        .applied("an annotation")?;
    ensure_shows(&cx, RunFilter::new().metadata("k", 1), &[]).await?;
    ensure_shows(&cx, RunFilter::new().metadata_key("j"), &[number]).await?;
    let both = RunFilter::new().metadata_key("j").metadata_key("k");
    ensure_shows(&cx, both, &[]).await?;
    ensure!(
        cx.get(nothing).await?.metadata.is_empty(),
        "one run has no metadata"
    );
    Ok(())
}

pub(crate) async fn a_number_is_not_its_other_spelling(cx: Cx) -> Checked {
    let with = |value: Value| NewRun::new("builder").metadata("k", value);
    let whole = cx.create(with(json!(1))).await?.id;
    let fraction = cx.create(with(json!(1.0))).await?.id;
    let most = cx.create(with(json!(u64::MAX))).await?.id;
    ensure_shows(&cx, RunFilter::new().metadata("k", 1), &[whole]).await?;
    ensure_shows(&cx, RunFilter::new().metadata("k", 1.0), &[fraction]).await?;
    ensure_shows(&cx, RunFilter::new().metadata("k", u64::MAX), &[most]).await?;
    ensure_shows(&cx, RunFilter::new().metadata("k", u64::MAX - 1), &[]).await
}

pub(crate) async fn names_of_members_are_no_paths_and_no_patterns(cx: Cx) -> Checked {
    let keys = [
        "", "a.b", "$.a", "it's", "a\"b", "a\\b", "[0]", "%", TEXT, "a?b", "{}",
    ];
    let mut ids = BTreeMap::new();
    for key in keys {
        let run = NewRun::new("builder").metadata(key, key);
        ids.insert(key, cx.create(run).await?.id);
    }
    let nested = json!({"b": "a.b", "0": 1});
    cx.create(NewRun::new("builder").metadata("a", nested))
        .await?;
    for (key, id) in ids {
        ensure_shows(&cx, RunFilter::new().metadata_key(key), &[id]).await?;
        ensure_shows(&cx, RunFilter::new().metadata(key, key), &[id]).await?;
        ensure_shows(&cx, RunFilter::new().metadata(key, "other"), &[]).await?;
    }
    Ok(())
}

pub(crate) async fn a_condition_names_at_most_so_many_values(cx: Cx) -> Checked {
    let last = format!("n{}", MAX_FILTER_VALUES - 1);
    let run = (0..64).fold(NewRun::new(&last).queue(&last), |run, n| {
        run.tag(format!("n{n}"))
    });
    let run = (0..MAX_FILTER_VALUES).fold(run, |run, n| run.metadata(format!("n{n}"), n));
    let run = cx.create(run).await?;
    let names = |count: usize| (0..count).map(|n| format!("n{n}"));
    let most = MAX_FILTER_VALUES;
    let workflows = |count| {
        names(count)
            .map(WorkflowName::new)
            .collect::<Result<Vec<_>, _>>()
    };
    let queues = |count| {
        names(count)
            .map(QueueName::new)
            .collect::<Result<Vec<_>, _>>()
    };
    let full = RunFilter::new()
        .workflows(workflows(most)?)
        .queues(queues(most)?);
    let full = names(64).try_fold(full, |filter, tag| Checked::Ok(filter.tag(tag.parse()?)))?;
    let full = (0..most).fold(full, |filter, n| filter.metadata(format!("n{n}"), n));
    ensure_shows(&cx, full, &[run.id]).await?;
    let tags: BTreeSet<Tag> = names(most + 1).map(Tag::new).collect::<Result<_, _>>()?;
    let mut too_many_tags = RunFilter::new();
    too_many_tags.tags = Some(tags);
    let deep = (0..=MAX_JSON_DEPTH).fold(json!(1), |deep, _| json!([deep]));
    for filter in [
        RunFilter::new().workflows(workflows(most + 1)?),
        RunFilter::new().queues(queues(most + 1)?),
        too_many_tags,
        names(most + 1).fold(RunFilter::new(), RunFilter::metadata_key),
        RunFilter::new().metadata("k", deep),
        RunFilter::new().metadata("k", "a\0b"),
        RunFilter::new().metadata_key("a\0b"),
    ] {
        let page = PageRequest::default();
        ensure_invalid(
            cx.runs.list(&filter, &page).await,
            "a list beyond the limits",
        )?;
        ensure_invalid(cx.runs.count(&filter).await, "a count beyond the limits")?;
        ensure_invalid(
            cx.runs.statistics(&filter).await,
            "statistics beyond the limits",
        )?;
    }
    Ok(())
}

pub(crate) async fn a_count_is_of_the_whole_list(cx: Cx) -> Checked {
    ensure_eq!(
        cx.runs.count(&RunFilter::new()).await?,
        0,
        "the runs of an empty store"
    );
    cx.create_many((0..70).map(|n| NewRun::new(if n < 60 { "builder" } else { "review" })))
        .await?;
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 70, "all runs");
    let builders = RunFilter::new().workflows(["builder".parse()?]);
    ensure_eq!(
        cx.runs.count(&builders).await?,
        60,
        "the runs of one workflow"
    );
    let waiting = builders.statuses([RunStatus::Completed]);
    ensure_eq!(cx.runs.count(&waiting).await?, 0, "the completed ones");
    let other = cx.open_namespace("tenant").await?;
    ensure_eq!(
        other.count(&RunFilter::new()).await?,
        0,
        "the runs of another namespace"
    );
    Ok(())
}

async fn ensure_shows(cx: &Cx, filter: RunFilter, expected: &[RunId]) -> Checked {
    let shown: BTreeSet<RunId> = cx.ids(&filter).await?.into_iter().collect();
    let expected: BTreeSet<RunId> = expected.iter().copied().collect();
    ensure_eq!(shown, expected, "the runs that {filter:?} shows");
    let count = u64::try_from(expected.len()).unwrap_or(u64::MAX);
    ensure_eq!(
        cx.runs.count(&filter).await?,
        count,
        "how many {filter:?} shows"
    );
    Ok(())
}
