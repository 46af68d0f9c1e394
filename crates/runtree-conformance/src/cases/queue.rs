//! Queues: a claim takes from those that it names, and from no other.

use std::collections::BTreeSet;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::{
    ClaimOf, Limit, MAX_FILTER_VALUES, NewRun, Priority, QueueName, WaitingRuns, WorkflowName,
};

use crate::cases::create::TEXT;
use crate::context::{Cx, distinct, only, together};
use crate::failure::{Checked, ensure_eq};

pub(crate) async fn a_claim_of_queues_takes_only_theirs(cx: Cx) -> Checked {
    let mut ids = Vec::new();
    // What a pattern or a careless comparison would take for the same.
    for queue in ["a_b", "axb", "A_B", "a_b ", "%", TEXT] {
        ids.push(cx.create(NewRun::new("builder").queue(queue)).await?.id);
    }
    ensure_eq!(
        taken(&cx, of(&["nobody's"], &[])?).await?,
        BTreeSet::new(),
        "of a queue without runs"
    );
    ensure_eq!(
        taken(&cx, of(&["%"], &[])?).await?,
        BTreeSet::from([ids[4]]),
        "of `%`"
    );
    ensure_eq!(
        taken(&cx, of(&["a_b", TEXT], &[])?).await?,
        BTreeSet::from([ids[0], ids[5]]),
        "of two queues"
    );
    ensure_eq!(
        taken(&cx, of(&["a_b"], &[])?).await?,
        BTreeSet::new(),
        "of an empty queue"
    );
    ensure_eq!(
        taken(&cx, WaitingRuns::ANY).await?,
        BTreeSet::from([ids[1], ids[2], ids[3]]),
        "what is left"
    );
    Ok(())
}

pub(crate) async fn a_claim_of_queues_and_workflows_takes_what_is_of_both(cx: Cx) -> Checked {
    let mut ids = Vec::new();
    for queue in ["fast", "slow"] {
        for workflow in ["builder", "review"] {
            ids.push(cx.create(NewRun::new(workflow).queue(queue)).await?.id);
        }
    }
    ensure_eq!(
        taken(&cx, of(&["slow"], &["review"])?).await?,
        BTreeSet::from([ids[3]]),
        "of one queue and one workflow"
    );
    ensure_eq!(
        taken(&cx, of(&["fast", "slow"], &["builder"])?).await?,
        BTreeSet::from([ids[0], ids[2]]),
        "of two queues and one workflow"
    );
    ensure_eq!(
        taken(&cx, of(&["slow"], &["builder", "review"])?).await?,
        BTreeSet::new(),
        "of a queue that is empty by now"
    );
    ensure_eq!(
        taken(&cx, of(&[], &["review"])?).await?,
        BTreeSet::from([ids[1]]),
        "of a workflow"
    );
    Ok(())
}

pub(crate) async fn across_queues_the_highest_priority_goes_first_then_the_oldest(
    cx: Cx,
) -> Checked {
    let mut expected = Vec::new();
    for (queue, priority) in [
        ("b", 0),
        ("a", 0),
        ("c", 200),
        ("a", -5),
        ("b", 7),
        ("a", 7),
        ("c", 0),
        ("b", -5),
    ] {
        let run = NewRun::new("builder")
            .queue(queue)
            .priority(Priority::new(priority));
        let run = cx.create(run).await?;
        cx.pass(Duration::from_micros(1)).await?;
        if queue != "c" {
            expected.push((std::cmp::Reverse(priority), run.created_at, run.id));
        }
    }
    expected.sort();
    for (priority, _, id) in expected {
        let mut claim = cx.claim_of(ClaimOf::Waiting(of(&["a", "b"], &[])?))?;
        claim.limit = Limit::ONE;
        let claimed = only(cx.runs.claim(&claim).await?, "a claim of two queues")?;
        ensure_eq!(
            claimed.run.id,
            id,
            "the next run, of the priority {}",
            priority.0
        );
    }
    ensure_eq!(
        taken(&cx, of(&["a", "b"], &[])?).await?,
        BTreeSet::new(),
        "what is left of the two queues"
    );
    Ok(())
}

pub(crate) async fn a_run_that_names_no_queue_waits_in_the_default_one(cx: Cx) -> Checked {
    let silent = cx.create(NewRun::new("builder")).await?;
    let named = cx.create(NewRun::new("builder").queue("default")).await?;
    cx.create(NewRun::new("builder").queue("Default")).await?;
    ensure_eq!(
        silent.queue,
        QueueName::default(),
        "the queue of a run that names none"
    );
    let mut waiting = WaitingRuns::ANY;
    waiting = waiting.queues([QueueName::default()]);
    ensure_eq!(
        taken(&cx, waiting).await?,
        BTreeSet::from([silent.id, named.id]),
        "the runs of the default queue"
    );
    Ok(())
}

pub(crate) async fn a_claim_may_name_as_many_as_a_condition_may(cx: Cx) -> Checked {
    let last = format!("name-{}", MAX_FILTER_VALUES - 1);
    let run = cx.create(NewRun::new(&last).queue(&last)).await?;
    let names: Vec<String> = (0..MAX_FILTER_VALUES)
        .map(|n| format!("name-{n}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ensure_eq!(
        taken(&cx, of(&names, &names)?).await?,
        BTreeSet::from([run.id]),
        "of a hundred queues and a hundred workflows"
    );
    Ok(())
}

pub(crate) async fn a_claim_of_one_run_asks_for_no_queue(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder").queue("slow")).await?;
    ensure_eq!(
        cx.claim(run.id).await?.run.queue.as_str(),
        "slow",
        "the queue of the claimed run"
    );
    Ok(())
}

pub(crate) async fn a_run_that_waits_again_waits_in_its_queue(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder").queue("slow")).await?;
    let run = cx.runs.release(claimed.lease).await?;
    let status = run
        .accepted()
        .map(|run| (run.status, run.queue.to_string()));
    ensure_eq!(
        status,
        Some((RunStatus::Pending, "slow".to_owned())),
        "status and queue"
    );
    ensure_eq!(
        taken(&cx, of(&["default"], &[])?).await?,
        BTreeSet::new(),
        "of another queue"
    );
    let own = taken(&cx, of(&["slow"], &[])?).await?;
    ensure_eq!(own, BTreeSet::from([claimed.lease.run]), "of its queue");
    Ok(())
}

pub(crate) async fn concurrent_claimers_of_overlapping_queues_share_nothing(cx: Cx) -> Checked {
    let queues = ["a", "b", "c"];
    let runs = (0..60).map(|n| NewRun::new("builder").queue(queues[n % 3]));
    let all = cx.create_many(runs).await?;
    let other = cx.open_again().await?;
    let mut tasks = Vec::new();
    for n in 0..6 {
        let wanted = [queues[n % 3], queues[(n + 1) % 3]];
        let mut claim = cx.claim_of(ClaimOf::Waiting(of(&wanted, &[])?))?;
        claim.limit = Limit::new(4)?;
        let runs = if n % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        tasks.push(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = runs.claim(&claim).await?;
                if claimed.is_empty() {
                    return Ok::<_, runtree_repository::RepositoryError>((wanted, mine));
                }
                mine.extend(claimed);
            }
        });
    }
    let mut seen = Vec::new();
    for answer in together(tasks).await? {
        let (wanted, mine) = answer?;
        for claimed in mine {
            let queue = claimed.run.queue.to_string();
            ensure_eq!(
                wanted.contains(&queue.as_str()),
                true,
                "whether {queue} was asked for"
            );
            seen.push(claimed.lease.run);
        }
    }
    // An empty answer while others hold locks is allowed, so what is left is claimed here.
    seen.extend(
        cx.claim_all()
            .await?
            .iter()
            .map(|claimed| claimed.lease.run),
    );
    let all: BTreeSet<RunId> = all.iter().map(|run| run.id).collect();
    ensure_eq!(
        distinct(seen, "the runs that were claimed")?,
        all,
        "the runs that were claimed"
    );
    Ok(())
}

fn of(queues: &[&str], workflows: &[&str]) -> Checked<WaitingRuns> {
    let mut waiting = WaitingRuns::ANY;
    if !queues.is_empty() {
        let names = queues.iter().map(|name| QueueName::new(*name));
        waiting = waiting.queues(names.collect::<Result<Vec<_>, _>>()?);
    }
    if !workflows.is_empty() {
        let names = workflows.iter().map(|name| WorkflowName::new(*name));
        waiting = waiting.workflows(names.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(waiting)
}

async fn taken(cx: &Cx, waiting: WaitingRuns) -> Checked<BTreeSet<RunId>> {
    let claimed = cx
        .runs
        .claim(&cx.claim_of(ClaimOf::Waiting(waiting))?)
        .await?;
    distinct(
        claimed.iter().map(|claimed| claimed.lease.run).collect(),
        "the runs of one claim",
    )
}
