//! Why a run stands where it stands: everything that holds it is named, and nothing that does not.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::{
    Because, CancelCause, Claim, ClaimOf, Explanation, LeaseTime, Limit, NewRun, Overdue, Priority,
};

use crate::context::{
    Cx, HOST, LONG, SHORT, completed, failed, failed_for_now, forced, graceful, with_attempts,
};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq, take};

pub(crate) async fn an_unknown_run_has_no_explanation(cx: Cx) -> Checked {
    ensure_eq!(
        cx.runs.explain(cx.run_id()?).await?,
        None,
        "why an unknown run stands"
    );
    let run = cx.create(NewRun::new("builder")).await?;
    let other = cx.open_namespace("tenant").await?;
    ensure_eq!(
        other.explain(run.id).await?,
        None,
        "why another namespace's run stands"
    );
    Ok(())
}

pub(crate) async fn it_shows_the_run_and_the_instant_of_the_look(cx: Cx) -> Checked {
    let run = cx
        .create(NewRun::new("builder").tag("t").model("m"))
        .await?;
    let before = cx.runs.now().await?;
    let why = explained(&cx, run.id).await?;
    let after = cx.runs.now().await?;
    ensure_eq!(why.run, run.summary, "the run");
    ensure!(
        before <= why.at && why.at <= after,
        "looked at between {before} and {after}: {}",
        why.at
    );
    ensure_says(&why, &[run.id.to_string(), "pending".to_owned()])
}

pub(crate) async fn a_run_that_can_be_claimed_says_how_many_go_first(cx: Cx) -> Checked {
    let later = cx.runs.now().await?.saturating_add(LONG);
    let ahead = [
        NewRun::new("builder").priority(Priority::HIGH),
        NewRun::new("review"),
        // These do not go first.
        NewRun::new("builder").priority(Priority::LOW),
        NewRun::new("builder")
            .queue("slow")
            .priority(Priority::CRITICAL),
        NewRun::new("builder")
            .available_at(later)
            .priority(Priority::CRITICAL),
    ];
    for run in ahead {
        cx.create(run).await?;
        cx.pass(Duration::from_micros(1)).await?;
    }
    let cancelled = cx
        .create(NewRun::new("builder").priority(Priority::HIGH))
        .await?;
    cx.runs
        .cancel(cancelled.id, &graceful())
        .await?
        .applied("a cancel")?;
    cx.running(NewRun::new("builder").priority(Priority::HIGH))
        .await?;
    let run = cx.create(NewRun::new("builder")).await?;
    cx.pass(Duration::from_micros(1)).await?;
    cx.create(NewRun::new("builder")).await?;
    let why = explained(&cx, run.id).await?;
    ensure_eq!(why.because, [Because::Waiting { ahead: 2 }], "why it waits");
    ensure_says(&why, &["2".to_owned()])?;
    let first = cx
        .create(NewRun::new("builder").priority(Priority::CRITICAL))
        .await?;
    let why = explained(&cx, first.id).await?;
    ensure_eq!(
        why.because,
        [Because::Waiting { ahead: 0 }],
        "why the first waits"
    );
    Ok(())
}

pub(crate) async fn a_run_that_is_not_due_says_when_it_is(cx: Cx) -> Checked {
    let due = cx.runs.now().await?.saturating_add(LONG);
    let run = cx.create(NewRun::new("builder").available_at(due)).await?;
    let why = explained(&cx, run.id).await?;
    ensure_eq!(why.because, [Because::NotDue { at: due }], "why it waits");
    ensure_says(&why, &[due.to_string()])?;
    let claimed = cx.running(with_attempts(2)?).await?;
    let retry = failed_for_now("again", LONG);
    let between = cx
        .runs
        .end(claimed.lease, &retry)
        .await?
        .applied("a failure")?;
    let at = between.available_at;
    let why = explained(&cx, between.id).await?;
    ensure_eq!(
        why.because,
        [Because::NotDue { at }],
        "why it waits between two attempts"
    );
    Ok(())
}

pub(crate) async fn a_run_whose_key_is_used_up_says_by_whom(cx: Cx) -> Checked {
    let limited = |limit| {
        NewRun::new("builder").concurrency("gpu", NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN))
    };
    let mut holders = BTreeSet::new();
    for _ in 0..2 {
        holders.insert(cx.running(limited(2)).await?.lease.run);
    }
    // Of the same key and not in its way: one that waits, one that has ended, one whose lease has expired, another key's.
    let silent = cx.create(limited(9)).await?;
    let silent = cx.claim_for(silent.id, SHORT).await?;
    cx.ended(limited(9), &completed()).await?;
    cx.running(NewRun::new("builder").concurrency("cpu", NonZeroU32::MIN))
        .await?;
    cx.create(limited(2)).await?;
    cx.wait_until(silent.expires_at).await?;
    let run = cx.create(limited(2)).await?;
    let why = explained(&cx, run.id).await?;
    let [because] = why.because.as_slice() else {
        return Err(Failure::new(format!(
            "one thing holds it: saw {:?}",
            why.because
        )));
    };
    let (concurrency, named) = take!(
        because,
        Because::LimitReached { concurrency, holders } => (concurrency, holders),
        "its key is used up"
    );
    ensure_eq!(
        Some(concurrency),
        run.concurrency.as_ref(),
        "the key and the limit"
    );
    let named: BTreeSet<RunId> = named.iter().copied().collect();
    ensure_eq!(named, holders, "the runs that use it");
    let mut words: Vec<String> = holders.iter().map(ToString::to_string).collect();
    words.extend(["gpu".to_owned(), "2".to_owned()]);
    ensure_says(&why, &words)?;
    let wide = cx.create(limited(3)).await?;
    let waits = matches!(
        explained(&cx, wide.id).await?.because[..],
        [Because::Waiting { .. }]
    );
    ensure!(waits, "a run that may be the third is not held up");

    // One holder among the running, seen by itself, is no reason.
    let holder = holders
        .first()
        .copied()
        .ok_or_else(|| Failure::new("two hold it"))?;
    let owned = matches!(
        explained(&cx, holder).await?.because[..],
        [Because::Owned { .. }]
    );
    ensure!(owned, "a run that runs is held by its owner alone");
    Ok(())
}

pub(crate) async fn a_limit_of_more_than_are_named_is_still_a_limit(cx: Cx) -> Checked {
    let limit = NonZeroU32::new(105).unwrap_or(NonZeroU32::MIN);
    let limited = || NewRun::new("builder").concurrency("gpu", limit);
    for _ in 0..limit.get() {
        cx.create(limited()).await?;
    }
    let claim = Claim {
        limit: Limit::MAX,
        ..cx.claim_of(ClaimOf::ANY)?
    };
    ensure_eq!(cx.runs.claim(&claim).await?.len(), 105, "the runs that run");
    let blocked = cx.create(limited()).await?;
    let why = explained(&cx, blocked.id).await?;
    let [Because::LimitReached { holders, .. }] = why.because.as_slice() else {
        return Err(Failure::new(format!("a used-up limit reads: {why}")));
    };
    ensure_eq!(holders.len(), 100, "the holders that are named");
    Ok(())
}

pub(crate) async fn a_run_that_runs_says_who_works_on_it(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let id = claimed.lease.run;
    cx.pass(Duration::from_millis(1)).await?;
    cx.runs
        .renew(&[claimed.lease], LeaseTime::new(LONG)?)
        .await?;
    let lease = cx
        .runs
        .leases(None)
        .await?
        .pop()
        .ok_or_else(|| Failure::new("it has a lease"))?;
    let why = explained(&cx, id).await?;
    let expected = Because::Owned {
        owner: lease.owner.clone(),
        heartbeat_at: lease.heartbeat_at,
        expires_at: lease.expires_at,
    };
    ensure_eq!(why.because, [expected], "who works on it");
    let words = [
        lease.owner.id.to_string(),
        HOST.to_owned(),
        lease.expires_at.to_string(),
    ];
    ensure_says(&why, &words)
}

pub(crate) async fn a_run_whose_lease_expired_says_since_when(cx: Cx) -> Checked {
    let claimed = cx.expired(NewRun::new("builder")).await?;
    let why = explained(&cx, claimed.lease.run).await?;
    let [
        Because::LeaseExpired {
            owner, expires_at, ..
        },
    ] = why.because.as_slice()
    else {
        return Err(Failure::new(format!(
            "its lease expired: saw {:?}",
            why.because
        )));
    };
    ensure_eq!(Some(owner), claimed.run.owner.as_ref(), "the owner");
    ensure_eq!(*expires_at, claimed.expires_at, "when the lease ended");
    ensure_says(
        &why,
        &[
            owner.id.to_string(),
            expires_at.to_string(),
            "rescue".to_owned(),
        ],
    )
}

pub(crate) async fn an_ended_run_says_when_and_why(cx: Cx) -> Checked {
    let ended = cx.ended(NewRun::new("builder"), &failed("no")).await?;
    let waiting = cx.create(NewRun::new("builder")).await?;
    let killed = cx
        .runs
        .cancel(waiting.id, &forced())
        .await?
        .applied("a cancel")?;
    for (run, reason) in [
        (ended, EndReason::Error),
        (killed, EndReason::CancelledBeforeStart),
    ] {
        let at = run
            .ended_at
            .ok_or_else(|| Failure::new("the run has ended"))?;
        let why = explained(&cx, run.id).await?;
        ensure_eq!(
            why.because,
            [Because::Ended {
                at,
                reason: Some(reason)
            }],
            "how it ended"
        );
        ensure_says(&why, &[at.to_string(), reason.to_string()])?;
    }
    Ok(())
}

pub(crate) async fn a_run_that_is_to_stop_says_so_before_who_works_on_it(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let cancelled = cx
        .runs
        .cancel(claimed.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    let cancel = cancelled
        .cancel
        .clone()
        .ok_or_else(|| Failure::new("a wish is recorded"))?;
    let why = explained(&cx, claimed.lease.run).await?;
    let [first, Because::Owned { .. }] = why.because.as_slice() else {
        return Err(Failure::new(format!(
            "a wish and an owner: saw {:?}",
            why.because
        )));
    };
    ensure_says(
        &why,
        &["graceful".to_owned(), cancel.requested_at.to_string()],
    )?;
    ensure_eq!(*first, Because::CancelRequested { cancel }, "the wish");
    Ok(())
}

pub(crate) async fn a_run_that_is_late_says_since_when(cx: Cx) -> Checked {
    let at = cx.runs.now().await?.saturating_sub(Duration::from_secs(1));
    let waiting = cx.create(NewRun::new("builder").deadline(at)).await?;
    let why = explained(&cx, waiting.id).await?;
    ensure_eq!(
        why.because,
        [
            Because::DeadlinePassed { at },
            Because::Waiting { ahead: 0 }
        ],
        "why a late run waits"
    );
    ensure_says(&why, &[at.to_string(), "deadline".to_owned()])?;
    cx.claim(waiting.id).await?;
    let overdue = Overdue {
        limit: Limit::MAX,
        grace: LONG,
    };
    cx.runs.time_out(&overdue).await?;
    let why = explained(&cx, waiting.id).await?;
    let [
        Because::DeadlinePassed { at: seen },
        Because::CancelRequested { cancel },
        Because::Owned { .. },
    ] = why.because.as_slice()
    else {
        return Err(Failure::new(format!(
            "late, asked and owned: saw {:?}",
            why.because
        )));
    };
    ensure_eq!(
        (*seen, cancel.cause),
        (at, CancelCause::Deadline),
        "the instant and the cause"
    );
    let asked = cx
        .running(NewRun::new("builder").deadline(at))
        .await?
        .lease
        .run;
    cx.runs
        .cancel(asked, &graceful())
        .await?
        .applied("a cancel")?;
    let why = explained(&cx, asked).await?;
    let [Because::CancelRequested { cancel }, Because::Owned { .. }] = why.because.as_slice()
    else {
        return Err(Failure::new(format!(
            "asked by somebody, and late: saw {:?}",
            why.because
        )));
    };
    ensure_eq!(cancel.cause, CancelCause::Request, "the cause");
    let in_time = cx
        .create(NewRun::new("builder").deadline(at.saturating_add(LONG)))
        .await?;
    let why = explained(&cx, in_time.id).await?;
    ensure_eq!(
        why.because,
        [Because::Waiting { ahead: 0 }],
        "why a run in time waits"
    );
    Ok(())
}

pub(crate) async fn all_that_holds_a_waiting_run_is_named(cx: Cx) -> Checked {
    let limited = || NewRun::new("builder").concurrency("gpu", NonZeroU32::MIN);
    let holder = cx.running(limited()).await?;
    let now = cx.runs.now().await?;
    let late = now.saturating_sub(Duration::from_secs(1));
    let due = now.saturating_add(LONG);
    let run = cx
        .create(limited().available_at(due).deadline(late))
        .await?;
    let concurrency = run
        .concurrency
        .clone()
        .ok_or_else(|| Failure::new("it has a key"))?;
    let expected = [
        Because::DeadlinePassed { at: late },
        Because::NotDue { at: due },
        Because::LimitReached {
            concurrency,
            holders: vec![holder.lease.run],
        },
    ];
    ensure_eq!(
        explained(&cx, run.id).await?.because,
        expected,
        "all that holds it"
    );
    Ok(())
}

pub(crate) async fn a_word_of_a_newer_version_is_named(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    cx.write_status(run.id, "paused_by_operator").await?;
    let why = explained(&cx, run.id).await?;
    let status = RunStatus::from_stored("paused_by_operator");
    let status = status.map_err(|e| Failure::new(e.to_string()))?;
    ensure_eq!(
        why.because,
        [Because::UnknownStatus { status }],
        "why nothing happens"
    );
    ensure_says(&why, &["paused_by_operator".to_owned()])
}

async fn explained(cx: &Cx, id: RunId) -> Checked<Explanation> {
    let why = cx.runs.explain(id).await?;
    why.ok_or_else(|| Failure::new(format!("the run {id} must be explained")))
}

/// Makes sure that the line for people names the essentials.
fn ensure_says(why: &Explanation, words: &[String]) -> Checked {
    let text = why.to_string();
    for word in words {
        ensure!(text.contains(word), "the text must name `{word}`: {text}");
    }
    ensure!(!text.contains('\n'), "the text is one line: {text}");
    Ok(())
}
