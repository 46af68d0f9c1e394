//! Many endings in one call: each is what a single one would have been, and a loser holds up nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::{
    Claimed, Ending, ErrorText, EventKind, LeaseRef, Limit, MAX_JSON_BYTES, NewRun, Outcome,
    Persistence, RunSummary, Token, Write,
};
use serde_json::{Value, json};

use crate::cases::end::ensure_unchanged;
use crate::context::{
    Cx, LONG, again_while_busy, completed, failed, failed_for_now, graceful, only, together,
    with_attempts,
};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq, ensure_invalid};

pub(crate) async fn answers_come_in_the_order_of_the_question(cx: Cx) -> Checked {
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(cx.running(with_attempts(9)?).await?.lease);
    }
    cx.runs
        .end(leases[1], &completed())
        .await?
        .applied("an ending before")?;
    only(cx.rescue_dead(leases[2]).await?, "a rescue")?;
    let unknown = LeaseRef {
        run: cx.run_id()?,
        token: Token::new(1),
    };
    let endings = [
        ending(leases[2], completed()),
        ending(leases[3], failed("no")),
        ending(unknown, completed()),
        ending(leases[1], completed()),
        ending(leases[0], completed()),
        ending(leases[1], failed("no")),
    ];
    let answers = cx.runs.end_many(&endings).await?;
    let told: Vec<_> = answers.iter().map(told).collect();
    ensure_eq!(
        told,
        [
            ("stale", Some((leases[2].run, RunStatus::Pending))),
            ("applied", Some((leases[3].run, RunStatus::Failed))),
            ("not found", None),
            ("already", Some((leases[1].run, RunStatus::Completed))),
            ("applied", Some((leases[0].run, RunStatus::Completed))),
            ("stale", Some((leases[1].run, RunStatus::Completed))),
        ],
        "the answers to six endings"
    );
    for answer in answers {
        let (Write::Applied(run) | Write::Already(run)) = answer else {
            continue;
        };
        // A rejection of the same call is written to the history after the answer was made.
        let mut stored = cx.get(run.id).await?.summary;
        ensure!(
            stored.updated_at >= run.updated_at,
            "the last change does not go back"
        );
        stored.updated_at = run.updated_at;
        ensure_eq!(stored, run, "what is read is what the ending answered");
    }
    Ok(())
}

pub(crate) async fn nothing_asked_is_nothing_answered(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    ensure_eq!(cx.runs.end_many(&[]).await?, [], "the answers");
    ensure_unchanged(&cx, &claimed.run, "a call without endings").await
}

pub(crate) async fn of_two_endings_of_one_run_the_first_decides(cx: Cx) -> Checked {
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(cx.running(with_attempts(9)?).await?.lease);
    }
    let [one, two, three, four] = leases[..] else {
        return Err(Failure::new("four runs were claimed"));
    };
    let retry = failed_for_now("again", LONG);
    let endings = [
        ending(one, completed()),
        ending(two, failed("first")),
        ending(three, retry),
        ending(four, Outcome::Killed),
        ending(one, failed("late")),
        ending(two, failed("late")),
        ending(three, completed()),
        ending(four, completed()),
    ];
    let answers = cx.runs.end_many(&endings).await?;
    let told: Vec<_> = answers.iter().map(|answer| told(answer).0).collect();
    ensure_eq!(
        told,
        [
            "applied", "applied", "applied", "applied", "stale", "already", "stale", "stale"
        ],
        "the answers"
    );
    let statuses = [
        (one, RunStatus::Completed),
        (two, RunStatus::Failed),
        (three, RunStatus::Pending),
        (four, RunStatus::Killed),
    ];
    for (lease, status) in statuses {
        ensure_eq!(
            cx.get(lease.run).await?.status,
            status,
            "the status of {}",
            lease.run
        );
    }
    let error = cx.get(two.run).await?.error.map(|error| error.to_string());
    ensure_eq!(error.as_deref(), Some("first"), "the error that counts");
    ensure_eq!(
        cx.kinds(one.run).await?,
        [
            EventKind::Created,
            EventKind::Claimed,
            EventKind::Completed,
            EventKind::Rejected
        ],
        "the history of the first run"
    );
    Ok(())
}

pub(crate) async fn many_endings_are_like_single_ones(cx: Cx) -> Checked {
    let outcomes = [
        completed(),
        Outcome::Completed {
            result: Some(json!({"tests": "green"})),
        },
        Outcome::Completed {
            result: Some(Value::Null),
        },
        failed("no"),
        failed_for_now("again", Duration::from_secs(60)),
        Outcome::Killed,
    ];
    let mut pairs = Vec::new();
    for outcome in outcomes {
        for persistence in [Persistence::Temporary, Persistence::Persistent] {
            for is_asked in [false, true] {
                let alone = prepared(&cx, persistence, is_asked).await?;
                let among = prepared(&cx, persistence, is_asked).await?;
                pairs.push((alone, among, outcome.clone()));
            }
        }
    }
    let endings: Vec<Ending> = pairs
        .iter()
        .map(|(_, among, outcome)| ending(among.lease, outcome.clone()))
        .collect();
    let answers = cx.runs.end_many(&endings).await?;
    for ((alone, among, outcome), answer) in pairs.into_iter().zip(answers) {
        let alone = cx
            .runs
            .end(alone.lease, &outcome)
            .await?
            .applied("an ending alone")?;
        let answered = answer.applied("an ending among many")?;
        let stored = cx.get(among.lease.run).await?;
        ensure_eq!(
            stored.summary,
            answered,
            "what is read is what the ending answered"
        );
        ensure_eq!(
            (stored.status, stored.end_reason, stored.has_ended()),
            (alone.status, alone.end_reason, alone.has_ended()),
            "status and reason after {outcome:?}"
        );
        ensure_eq!(
            (
                &stored.result,
                &stored.error,
                &stored.owner,
                stored.lease_expires_at
            ),
            (&alone.result, &alone.error, &None, None),
            "result, error, owner and lease after {outcome:?}"
        );
        let waits =
            |run: &RunSummary| (!run.has_ended()).then(|| run.available_at > run.created_at);
        ensure_eq!(
            waits(&stored),
            waits(&alone),
            "whether it waits before the next attempt"
        );
        let told = |events: Vec<runtree_repository::RunEvent>| -> Vec<_> {
            let details = |event: &runtree_repository::RunEvent| {
                let plans =
                    event.kind == EventKind::RetryPlanned || event.kind == EventKind::Claimed;
                event.detail.clone().filter(|_| !plans)
            };
            events
                .iter()
                .map(|event| (event.kind, event.token, details(event)))
                .collect()
        };
        ensure_eq!(
            told(cx.events(stored.id).await?),
            told(cx.events(alone.id).await?),
            "the history after {outcome:?}"
        );
        ensure_eq!(
            cx.cleanups(stored.id).await?.len(),
            cx.cleanups(alone.id).await?.len(),
            "the clean-ups that are wanted after {outcome:?}"
        );
        let state = |worktrees: Vec<runtree_repository::WorktreeRecord>| {
            worktrees.first().map(|worktree| worktree.state)
        };
        ensure_eq!(
            state(cx.worktrees(stored.id).await?),
            state(cx.worktrees(alone.id).await?),
            "the worktree after {outcome:?}"
        );
    }
    Ok(())
}

pub(crate) async fn an_ending_after_the_lease_expired_is_judged_for_itself(cx: Cx) -> Checked {
    let late = cx.expired(NewRun::new("builder")).await?;
    let failing = cx.expired(NewRun::new("builder")).await?;
    let alive = cx.running(NewRun::new("builder")).await?;
    let answers = cx
        .runs
        .end_many(&[
            ending(late.lease, completed()),
            ending(failing.lease, failed("no")),
            ending(alive.lease, completed()),
        ])
        .await?;
    let told: Vec<_> = answers.iter().map(|answer| told(answer).0).collect();
    ensure_eq!(told, ["stale", "applied", "applied"], "the answers");
    ensure_eq!(
        cx.kinds(late.lease.run).await?.last(),
        Some(&EventKind::Rejected),
        "the last event of the run that was completed too late"
    );
    ensure_eq!(
        cx.get(late.lease.run).await?.status,
        RunStatus::Running,
        "its status"
    );
    Ok(())
}

pub(crate) async fn an_invalid_result_refuses_the_whole_call(cx: Cx) -> Checked {
    let one = cx.running(NewRun::new("builder")).await?;
    let two = cx.running(NewRun::new("builder")).await?;
    let deep = (0..=runtree_repository::MAX_JSON_DEPTH).fold(json!(1), |deep, _| json!([deep]));
    for result in [json!("a\0b"), deep] {
        let outcome = Outcome::Completed {
            result: Some(result),
        };
        let endings = [ending(one.lease, completed()), ending(two.lease, outcome)];
        ensure_invalid(
            cx.runs.end_many(&endings).await,
            "a call with an invalid result",
        )?;
    }
    ensure_unchanged(&cx, &one.run, "a refused call").await?;
    ensure_eq!(
        cx.kinds(one.lease.run).await?,
        [EventKind::Created, EventKind::Claimed],
        "the history"
    );
    Ok(())
}

pub(crate) async fn more_than_the_limit_is_refused_with_nothing_written(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let mut endings = vec![ending(claimed.lease, completed()); Limit::MAX.get() + 1];
    ensure_invalid(cx.runs.end_many(&endings).await, "more than the limit")?;
    ensure_unchanged(&cx, &claimed.run, "a refused call").await?;
    endings.pop();
    let answers = cx.runs.end_many(&endings).await?;
    let told: Vec<_> = answers.iter().map(|answer| told(answer).0).collect();
    ensure_eq!(told.len(), 1_000, "the answers to a full call");
    ensure!(
        told[0] == "applied" && told[1..].iter().all(|told| *told == "already"),
        "the first of a thousand equal endings is applied, and the others find it so"
    );
    Ok(())
}

pub(crate) async fn more_bytes_than_the_limit_are_refused_with_nothing_written(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    // With the quotes as long as a value may be.
    let result = Value::from("x".repeat(MAX_JSON_BYTES - 2));
    let outcome = Outcome::Completed {
        result: Some(result),
    };
    let mut endings = vec![ending(claimed.lease, outcome); Limit::MAX_BATCH_BYTES / MAX_JSON_BYTES];
    endings.push(ending(
        claimed.lease,
        failed(&"x".repeat(ErrorText::MAX_BYTES)),
    ));
    ensure_invalid(
        cx.runs.end_many(&endings).await,
        "more bytes than the limit",
    )?;
    ensure_unchanged(&cx, &claimed.run, "a refused call").await?;
    endings.pop();
    let answers = cx.runs.end_many(&endings).await?;
    ensure_eq!(told(&answers[0]).0, "applied", "the first of a full call");
    Ok(())
}

pub(crate) async fn many_different_runs_end_in_one_call(cx: Cx) -> Checked {
    cx.create_many((0..500).map(|n| NewRun::new(format!("w{}", n % 7))))
        .await?;
    let claimed = cx.claim_all().await?;
    ensure_eq!(claimed.len(), 500, "the runs of one claim");
    let of = |n: usize, claimed: &Claimed| {
        let outcome = if n.is_multiple_of(3) {
            failed(&format!("error {n}"))
        } else {
            Outcome::Completed {
                result: Some(json!(n)),
            }
        };
        ending(claimed.lease, outcome)
    };
    let endings: Vec<Ending> = claimed
        .iter()
        .enumerate()
        .map(|(n, claimed)| of(n, claimed))
        .collect();
    let answers = cx.runs.end_many(&endings).await?;
    ensure_eq!(answers.len(), 500, "the answers");
    for (n, (answer, claimed)) in answers.into_iter().zip(claimed).enumerate() {
        let run = answer.applied("an ending")?;
        let run = cx.get(run.id).await?;
        let result = run.result.clone();
        let error = run.error.as_ref().map(ToString::to_string);
        let expected = if n.is_multiple_of(3) {
            (
                claimed.lease.run,
                Some(EndReason::Error),
                None,
                Some(format!("error {n}")),
            )
        } else {
            (
                claimed.lease.run,
                Some(EndReason::Succeeded),
                Some(json!(n)),
                None,
            )
        };
        ensure_eq!(
            (run.id, run.end_reason, result, error),
            expected,
            "the run of ending {n}"
        );
    }
    Ok(())
}

pub(crate) async fn concurrent_calls_have_one_winner_for_each_run(cx: Cx) -> Checked {
    cx.create_many((0..20).map(|_| NewRun::new("builder")))
        .await?;
    let leases: Vec<LeaseRef> = cx
        .claim_all()
        .await?
        .iter()
        .map(|claimed| claimed.lease)
        .collect();
    let other = cx.open_again().await?;
    let mut tasks = Vec::new();
    for n in 0..6 {
        let outcome = if n % 2 == 0 {
            completed()
        } else {
            failed("no")
        };
        let mut endings: Vec<Ending> = leases
            .iter()
            .map(|lease| ending(*lease, outcome.clone()))
            .collect();
        // Not all in one order: whoever waits for another's run holds one that the other waits for.
        if n % 3 == 0 {
            endings.reverse();
        }
        let runs = if n < 3 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        tasks.push(async move { again_while_busy(|| runs.end_many(&endings)).await });
    }
    let mut winners: BTreeMap<RunId, RunStatus> = BTreeMap::new();
    for answer in together(tasks).await? {
        for answer in answer? {
            if let Write::Applied(run) = answer {
                let before = winners.insert(run.id, run.status);
                ensure_eq!(before, None, "an earlier winner of {}", run.id);
            }
        }
    }
    ensure_eq!(winners.len(), leases.len(), "the runs that somebody ended");
    for (id, status) in winners {
        ensure_eq!(cx.get(id).await?.status, status, "the status of {id}");
    }
    Ok(())
}

fn ending(lease: LeaseRef, outcome: Outcome) -> Ending {
    Ending { lease, outcome }
}

fn told(answer: &Write<RunSummary>) -> (&'static str, Option<(RunId, RunStatus)>) {
    let of = |run: &RunSummary| Some((run.id, run.status));
    match answer {
        Write::Applied(run) => ("applied", of(run)),
        Write::Already(run) => ("already", of(run)),
        Write::Stale { current } => ("stale", of(current)),
        Write::NotFound => ("not found", None),
    }
}

/// A running run with a worktree, that somebody has asked to stop or not.
async fn prepared(cx: &Cx, persistence: Persistence, is_asked: bool) -> Checked<Claimed> {
    let claimed = cx
        .running_with_worktree(with_attempts(9)?, persistence)
        .await?;
    if is_asked {
        cx.runs
            .cancel(claimed.lease.run, &graceful())
            .await?
            .applied("a cancel")?;
    }
    Ok(claimed)
}
