//! Statistics are of all runs that a filter shows, and what a naive computation says.

use std::collections::BTreeMap;
use std::time::Duration;

use runtree_repository::status::RunStatus;
use runtree_repository::{Annotation, Cost, Measure, NewRun, Run, RunFilter, RunStatistics, Usage};

use crate::context::{Cx, completed, failed_for_now, together, with_attempts};
use crate::failure::{Checked, WriteAnswer, ensure_eq};
use crate::generated::{self, Dice, counts};

pub(crate) async fn of_nothing_everything_is_nothing(cx: Cx) -> Checked {
    let none = RunStatistics::default();
    ensure_eq!(
        cx.runs.statistics(&RunFilter::new()).await?,
        none,
        "of an empty store"
    );
    cx.ended(NewRun::new("builder"), &completed()).await?;
    let nobody = RunFilter::new().user("nobody".parse()?);
    ensure_eq!(
        cx.runs.statistics(&nobody).await?,
        none,
        "of a filter that shows nothing"
    );
    let other = cx.open_namespace("tenant").await?;
    ensure_eq!(
        other.statistics(&RunFilter::new()).await?,
        none,
        "of another namespace"
    );
    Ok(())
}

pub(crate) async fn they_are_what_a_naive_computation_says(cx: Cx) -> Checked {
    let mut dice = Dice::new(7);
    // More than one page may show.
    let all = generated::runs(&cx, &mut dice, 240).await?;
    for n in 0..60 {
        let filter = if n == 0 {
            RunFilter::new()
        } else {
            generated::filter(&mut dice, &all)?
        };
        let shown: Vec<&Run> = all.iter().filter(|run| filter.shows(run)).collect();
        let seen = cx.runs.statistics(&filter).await?;
        ensure_eq!(seen, naive(&shown), "the statistics of {filter:?}");
    }
    Ok(())
}

pub(crate) async fn they_are_of_all_runs_and_not_of_a_page(cx: Cx) -> Checked {
    for _ in 0..3 {
        cx.create_many((0..500).map(|_| NewRun::new("builder")))
            .await?;
    }
    cx.create(NewRun::new("review")).await?;
    let seen = cx.runs.statistics(&RunFilter::new()).await?;
    ensure_eq!(seen.runs, 1_501, "the runs");
    ensure_eq!(
        seen.by_status,
        BTreeMap::from([(RunStatus::Pending, 1_501)]),
        "by status"
    );
    let by_workflow = BTreeMap::from([("builder".parse()?, 1_500), ("review".parse()?, 1)]);
    ensure_eq!(seen.by_workflow, by_workflow, "by workflow");
    Ok(())
}

pub(crate) async fn percentiles_are_values_that_were_there(cx: Cx) -> Checked {
    // The nearest rank of 50, 90 and 99 in a hundred, as microseconds of count, mean, median, p90, p99 and max.
    let expected = [
        (1, [1, 10, 10, 10, 10, 10]),
        (2, [2, 15, 10, 20, 20, 20]),
        (3, [3, 20, 20, 30, 30, 30]),
        (9, [9, 50, 50, 90, 90, 90]),
        (10, [10, 55, 50, 90, 100, 100]),
        (11, [11, 60, 60, 100, 110, 110]),
        (20, [20, 105, 100, 180, 200, 200]),
        (100, [100, 505, 500, 900, 990, 1_000]),
        (101, [101, 510, 510, 910, 1_000, 1_010]),
    ];
    let mut made = 0;
    for (count, parts) in expected {
        while made < count {
            made += 1;
            let run = cx.create(NewRun::new("builder")).await?;
            cx.clock.advance(Duration::from_micros(3));
            let claimed = cx.claim(run.id).await?;
            cx.clock.advance(Duration::from_micros(10 * made));
            cx.runs
                .end(claimed.lease, &completed())
                .await?
                .applied("a completion")?;
        }
        let seen = cx.runs.statistics(&RunFilter::new()).await?;
        ensure_eq!(
            seen.duration,
            Measure::from_micros(parts),
            "the durations of {count} runs"
        );
        let waiting = Measure::from_micros([count, 3, 3, 3, 3, 3]);
        ensure_eq!(seen.waiting, waiting, "how long {count} runs waited");
    }
    // The mean goes to the microsecond below.
    let run = cx.create(NewRun::new("uneven")).await?;
    let claimed = cx.claim(run.id).await?;
    cx.clock.advance(Duration::from_micros(1));
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let seen = cx.runs.statistics(&RunFilter::new()).await?;
    // 51,510 and 1 in 102 parts.
    ensure_eq!(
        seen.duration.mean,
        Duration::from_micros(505),
        "the mean of uneven durations"
    );
    Ok(())
}

pub(crate) async fn who_waits_again_counts_as_nobody_who_waited(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(3)?).await?;
    let seen = cx.runs.statistics(&RunFilter::new()).await?;
    ensure_eq!(
        (seen.waiting.count, seen.duration.count),
        (1, 0),
        "waited and took"
    );
    cx.pass(Duration::from_millis(2)).await?;
    let retry = failed_for_now("again", Duration::ZERO);
    cx.runs
        .end(claimed.lease, &retry)
        .await?
        .applied("a failure")?;
    let again = cx.claim(claimed.lease.run).await?;
    let seen = cx.runs.statistics(&RunFilter::new()).await?;
    ensure_eq!(
        seen.waiting,
        Measure::default(),
        "how long runs waited that waited again"
    );
    cx.runs
        .end(again.lease, &completed())
        .await?
        .applied("a completion")?;
    let seen = cx.runs.statistics(&RunFilter::new()).await?;
    ensure_eq!(
        (seen.waiting.count, seen.duration.count),
        (0, 1),
        "waited and took at last"
    );
    let run = cx.get(again.lease.run).await?;
    ensure_eq!(
        Some(seen.duration.max),
        run.duration(),
        "how long it took from its first start"
    );
    Ok(())
}

pub(crate) async fn sums_beyond_every_integer_stay_at_the_limit(cx: Cx) -> Checked {
    // So many that their sum does not fit into 64 bits.
    let mut ids = Vec::new();
    for count in [1_000, 30] {
        let runs = cx
            .create_many((0..count).map(|_| NewRun::new("builder")))
            .await?;
        ids.extend(runs.into_iter().map(|run| run.id));
    }
    let most = Usage {
        input_tokens: Usage::MAX,
        output_tokens: Usage::MAX,
        cost: Cost::from_micros(Usage::MAX),
    };
    let tasks = ids.chunks(70).map(|ids| {
        let (runs, ids) = (cx.runs.clone(), ids.to_vec());
        async move {
            for id in ids {
                runs.annotate(id, &Annotation::new().set_usage(most))
                    .await?
                    .accepted();
            }
            Checked::Ok(())
        }
    });
    for answer in together(tasks.collect()).await? {
        answer?;
    }
    let seen = cx.runs.statistics(&RunFilter::new()).await?;
    ensure_eq!(
        (seen.runs, seen.usage()),
        (1_030, most),
        "the runs and the sum of what they used"
    );
    Ok(())
}

pub(crate) async fn the_workflows_with_the_most_runs_are_counted(cx: Cx) -> Checked {
    let many = RunStatistics::MAX_WORKFLOWS + 7;
    let names = (0..many).map(|n| format!("w{n:03}"));
    // The last ten by name have two runs each, so that names alone do not decide.
    let twice = (many - 10..many).map(|n| format!("w{n:03}"));
    cx.create_many(names.chain(twice.clone()).map(NewRun::new))
        .await?;
    let seen = cx.runs.statistics(&RunFilter::new()).await?;
    ensure_eq!(
        seen.by_workflow.len(),
        RunStatistics::MAX_WORKFLOWS,
        "the workflows that are counted"
    );
    for name in twice {
        let count = seen.by_workflow.get(&name.parse()?).copied();
        ensure_eq!(count, Some(2), "the runs of {name}");
    }
    let total = u64::try_from(many + 10).unwrap_or(u64::MAX);
    ensure_eq!(
        seen.runs,
        total,
        "all runs, also of workflows that are not counted one by one"
    );
    Ok(())
}

pub(crate) async fn a_word_of_a_newer_version_is_counted_under_itself(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    cx.create(NewRun::new("builder")).await?;
    cx.write_status(run.id, "paused_by_operator").await?;
    let status = cx.get(run.id).await?.status;
    let seen = cx.runs.statistics(&RunFilter::new()).await?;
    let expected = BTreeMap::from([(status, 1), (RunStatus::Pending, 1)]);
    ensure_eq!(seen.by_status, expected, "the runs by status");
    Ok(())
}

fn naive(runs: &[&Run]) -> RunStatistics {
    let mut usage = Usage::default();
    for run in runs {
        usage = usage.plus(&run.usage);
    }
    let mut naive = RunStatistics::default();
    naive.runs = u64::try_from(runs.len()).unwrap_or(u64::MAX);
    naive.by_status = counts(runs.iter().map(|run| run.status));
    naive.by_workflow = counts(runs.iter().map(|run| run.workflow.clone()));
    naive.duration = Measure::of(runs.iter().filter_map(|run| run.duration()));
    naive.waiting = Measure::of(runs.iter().filter_map(|run| run.waiting_time()));
    naive.input_tokens = usage.input_tokens;
    naive.output_tokens = usage.output_tokens;
    naive.cost = usage.cost;
    naive
}
