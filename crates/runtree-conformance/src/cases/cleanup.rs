//! The wish to clean up is made with the ending and lasts until somebody has done it.

use std::collections::BTreeSet;
use std::time::Duration;

use runtree_repository::status::RunStatus;
use runtree_repository::{
    ClaimOf, Claimed, CleanupClaim, CleanupOutcome, CleanupRef, CleanupTask, ErrorText, EventKind,
    HostName, HostPath, LeaseTime, Limit, NewRun, Outcome, Persistence, Reason, SalvageRef, Token,
    WorktreeKey, WorktreeQuery, WorktreeState,
};
use serde_json::json;

use crate::context::{
    BRIEF, Cx, HOST, SHORT, completed, distinct, failed, failed_for_now, forced, graceful, only,
    site, together, with_attempts,
};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn a_completion_wants_a_cleanup(cx: Cx) -> Checked {
    let claimed = ended(&cx).await?;
    let before = cx.runs.now().await?;
    let task = cx.cleanup(claimed.lease.run).await?;
    let key = WorktreeKey {
        run: claimed.lease.run,
        planned_by: claimed.lease.token,
    };
    ensure_eq!(task.cleanup.worktree, key, "the worktree of the clean-up");
    ensure_eq!(task.tries, 0, "the tries before the first");
    ensure!(
        task.expires_at > before,
        "a clean-up taken after {before} ends at {}",
        task.expires_at
    );
    ensure_eq!(
        task.worktree.state,
        WorktreeState::Ready,
        "the state of the worktree"
    );
    ensure_eq!(
        cx.worktrees(key.run).await?,
        [task.worktree],
        "the record that the task carries"
    );
    let kinds = cx.kinds(key.run).await?;
    ensure_eq!(
        kinds[kinds.len() - 2..],
        [EventKind::Completed, EventKind::CleanupWanted],
        "the end of the history"
    );
    Ok(())
}

pub(crate) async fn a_failure_wants_a_cleanup(cx: Cx) -> Checked {
    for attempts in [1, 9] {
        let claimed = cx
            .running_with_worktree(with_attempts(attempts)?, Persistence::Temporary)
            .await?;
        cx.runs
            .end(claimed.lease, &failed("no"))
            .await?
            .applied("a failure")?;
        ensure_wanted(&cx, &claimed, RunStatus::Failed).await?;
    }
    Ok(())
}

pub(crate) async fn a_kill_wants_a_cleanup(cx: Cx) -> Checked {
    let reported = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    cx.runs
        .end(reported.lease, &Outcome::Killed)
        .await?
        .applied("the report of a stop")?;
    ensure_wanted(&cx, &reported, RunStatus::Killed).await?;

    let interrupted = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    cx.runs
        .cancel(interrupted.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    let retry = failed_for_now("interrupted", Duration::ZERO);
    cx.runs
        .end(interrupted.lease, &retry)
        .await?
        .applied("a failure while a cancel waits")?;
    ensure_wanted(&cx, &interrupted, RunStatus::Killed).await
}

pub(crate) async fn a_forced_kill_wants_a_cleanup(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    cx.runs
        .force_kill(claimed.lease.run, &forced())
        .await?
        .applied("a forced kill")?;
    ensure_wanted(&cx, &claimed, RunStatus::Killed).await
}

pub(crate) async fn a_release_while_a_cancel_waits_wants_a_cleanup(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    cx.runs
        .cancel(claimed.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    cx.runs.release(claimed.lease).await?.applied("a release")?;
    ensure_wanted(&cx, &claimed, RunStatus::Killed).await
}

pub(crate) async fn a_rescue_that_ends_the_run_wants_a_cleanup(cx: Cx) -> Checked {
    let lost = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    only(
        cx.rescue_dead(lost.lease).await?,
        "a rescue of the last attempt",
    )?;
    ensure_wanted(&cx, &lost, RunStatus::Failed).await?;

    let cancelled = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    cx.runs
        .cancel(cancelled.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    only(
        cx.rescue_dead(cancelled.lease).await?,
        "a rescue of a run that somebody cancelled",
    )?;
    ensure_wanted(&cx, &cancelled, RunStatus::Killed).await
}

pub(crate) async fn a_cancel_between_two_attempts_wants_a_cleanup(cx: Cx) -> Checked {
    for forcibly in [false, true] {
        let claimed = cx
            .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
            .await?;
        let id = claimed.lease.run;
        let retry = failed_for_now("again", Duration::from_secs(3_600));
        cx.runs
            .end(claimed.lease, &retry)
            .await?
            .applied("a failure")?;
        let answer = if forcibly {
            cx.runs.force_kill(id, &forced()).await?
        } else {
            cx.runs.cancel(id, &graceful()).await?
        };
        answer.applied("a cancel between two attempts")?;
        ensure_wanted(&cx, &claimed, RunStatus::Killed).await?;
    }
    Ok(())
}

pub(crate) async fn a_worktree_that_is_half_made_is_cleaned_up_too(cx: Cx) -> Checked {
    let run = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let claimed = cx.claim(run.id).await?;
    cx.runs
        .end(claimed.lease, &failed("no space left"))
        .await?
        .applied("a failure before the checkout")?;
    let task = cx.cleanup(run.id).await?;
    ensure_eq!(
        task.worktree.state,
        WorktreeState::Adding,
        "the state of the worktree"
    );
    Ok(())
}

pub(crate) async fn a_run_that_goes_on_keeps_its_worktree(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let id = claimed.lease.run;
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "the worktree of a running run must not be cleaned up"
    );
    let retry = failed_for_now("again", Duration::ZERO);
    cx.runs
        .end(claimed.lease, &retry)
        .await?
        .applied("a failure")?;
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "the worktree of a run that waits for a retry must not be cleaned up"
    );
    let second = cx.claim(id).await?;
    only(cx.rescue_dead(second.lease).await?, "a rescue")?;
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "the worktree of a rescued run must not be cleaned up"
    );
    let third = cx.claim(id).await?;
    cx.runs.cancel(id, &graceful()).await?.applied("a cancel")?;
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "the worktree of a run that is asked to stop must not be cleaned up"
    );
    cx.runs
        .end(third.lease, &Outcome::Killed)
        .await?
        .applied("the report of a stop")?;
    cx.cleanup(id).await?;
    Ok(())
}

pub(crate) async fn a_persistent_worktree_is_kept(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Persistent)
        .await?;
    let id = claimed.lease.run;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "a persistent worktree must not be cleaned up"
    );
    let worktree = only(cx.worktrees(id).await?, "the worktrees of the run")?;
    ensure_eq!(
        worktree.state,
        WorktreeState::Kept,
        "the state of the worktree"
    );
    ensure_eq!(
        cx.kinds(id).await?.last(),
        Some(&EventKind::WorktreeKept),
        "the last event"
    );
    let site = site(HOST)?;
    let query = WorktreeQuery::Site {
        host: site.host,
        git_repository: site.git_repository,
    };
    ensure_eq!(
        cx.runs.worktrees(&query).await?,
        [worktree],
        "a kept worktree is still one of its site"
    );
    Ok(())
}

pub(crate) async fn each_site_cleans_up_its_own_worktree(cx: Cx) -> Checked {
    let here = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let id = here.lease.run;
    cx.runs.release(here.lease).await?.applied("a release")?;
    let mut claim = cx.claim_of(ClaimOf::Run(id))?;
    claim.site = Some(site("beta.example")?);
    let there = only(cx.runs.claim(&claim).await?, "a claim on another machine")?;
    cx.runs
        .end(there.lease, &completed())
        .await?
        .applied("a completion")?;

    let nowhere = [
        CleanupClaim {
            host: HostName::new("gamma.example")?,
            ..cx.cleanup_claim()?
        },
        CleanupClaim {
            git_repository: HostPath::new("/srv/other/.git")?,
            ..cx.cleanup_claim()?
        },
    ];
    for claim in nowhere {
        ensure!(
            cx.runs.claim_cleanups(&claim).await?.is_empty(),
            "{claim:?} must take nothing"
        );
    }
    let beta = CleanupClaim {
        host: HostName::new("beta.example")?,
        ..cx.cleanup_claim()?
    };
    let task = only(
        cx.runs.claim_cleanups(&beta).await?,
        "a claim on the other machine",
    )?;
    ensure_eq!(
        task.cleanup.worktree.planned_by,
        there.lease.token,
        "the other machine's worktree"
    );
    let task = only(
        cx.runs.claim_cleanups(&cx.cleanup_claim()?).await?,
        "a claim on this machine",
    )?;
    ensure_eq!(
        task.cleanup.worktree.planned_by,
        here.lease.token,
        "this machine's worktree"
    );
    Ok(())
}

pub(crate) async fn a_claim_may_name_one_run_and_has_a_limit(cx: Cx) -> Checked {
    let mut ended_runs = Vec::new();
    for _ in 0..4 {
        ended_runs.push(ended(&cx).await?.lease.run);
        cx.pass(Duration::from_micros(1)).await?;
    }
    let named = cx.cleanup(ended_runs[2]).await?;
    ensure_eq!(
        named.cleanup.worktree.run,
        ended_runs[2],
        "the run that was named"
    );
    ensure!(
        cx.cleanups(cx.run_id()?).await?.is_empty(),
        "an unknown run has no clean-up"
    );
    let two = CleanupClaim {
        limit: Limit::new(2)?,
        ..cx.cleanup_claim()?
    };
    let taken: BTreeSet<_> = cx
        .runs
        .claim_cleanups(&two)
        .await?
        .iter()
        .map(|task| task.cleanup.worktree.run)
        .collect();
    ensure_eq!(
        taken,
        BTreeSet::from([ended_runs[0], ended_runs[1]]),
        "the two oldest wishes"
    );
    let last = only(cx.runs.claim_cleanups(&two).await?, "what is left")?;
    ensure_eq!(last.cleanup.worktree.run, ended_runs[3], "the last wish");
    Ok(())
}

pub(crate) async fn a_cleanup_has_one_owner_until_its_lease_expires(cx: Cx) -> Checked {
    let claimed = ended(&cx).await?;
    let id = claimed.lease.run;
    let short = CleanupClaim {
        lease_time: LeaseTime::new(SHORT)?,
        ..cx.cleanup_claim()?
    };
    let first = only(
        cx.runs.claim_cleanups(&short).await?,
        "a claim of the clean-up",
    )?;
    cx.wait_until(first.expires_at).await?;
    let second = cx.cleanup(id).await?;
    ensure!(
        second.cleanup.token > first.cleanup.token,
        "the token grows: saw {} after {}",
        second.cleanup.token,
        first.cleanup.token
    );
    ensure_eq!(second.tries, 1, "the tries before the second");
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "a clean-up that somebody does must not be taken"
    );
    for outcome in outcomes()? {
        cx.runs
            .finish_cleanup(first.cleanup, &outcome)
            .await?
            .stale("the outcome of a clean-up that was taken over")?;
    }
    ensure_eq!(cx.worktrees(id).await?, [second.worktree], "the record");
    cx.runs
        .finish_cleanup(second.cleanup, &removed(None))
        .await?
        .applied("the outcome of the second try")?;
    Ok(())
}

pub(crate) async fn a_late_cleanup_counts_while_nobody_took_it_over(cx: Cx) -> Checked {
    ended(&cx).await?;
    let short = CleanupClaim {
        lease_time: LeaseTime::new(SHORT)?,
        ..cx.cleanup_claim()?
    };
    let task = only(
        cx.runs.claim_cleanups(&short).await?,
        "a claim of the clean-up",
    )?;
    cx.wait_until(task.expires_at).await?;
    let record = cx
        .runs
        .finish_cleanup(task.cleanup, &removed(None))
        .await?
        .applied("a late outcome")?;
    ensure_eq!(record.state, WorktreeState::Removed, "the state");
    ensure!(
        cx.runs.claim_cleanups(&short).await?.is_empty(),
        "what is done must not be taken again"
    );
    Ok(())
}

pub(crate) async fn a_removed_worktree_is_gone_from_its_site_and_kept_in_the_record(
    cx: Cx,
) -> Checked {
    let claimed = ended(&cx).await?;
    let id = claimed.lease.run;
    let task = cx.cleanup(id).await?;
    let salvage = SalvageRef::new("refs/runtree/salvage/1")?;
    let outcome = removed(Some(salvage.clone()));
    let record = cx
        .runs
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .applied("a removal")?;
    ensure_eq!(
        (record.state, record.salvage.clone()),
        (WorktreeState::Removed, Some(salvage)),
        "state and salvage"
    );
    ensure_eq!(
        cx.worktrees(id).await?,
        [record],
        "what is read is what the outcome answered"
    );
    let site = site(HOST)?;
    let query = WorktreeQuery::Site {
        host: site.host,
        git_repository: site.git_repository,
    };
    ensure_eq!(
        cx.runs.worktrees(&query).await?,
        [],
        "the worktrees of the site"
    );
    let last = cx
        .events(id)
        .await?
        .pop()
        .map(|event| (event.kind, event.detail));
    let detail = json!({"salvage": "refs/runtree/salvage/1"});
    ensure_eq!(
        last,
        Some((EventKind::WorktreeRemoved, Some(detail))),
        "the last event"
    );
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "what is done must not be taken again"
    );
    Ok(())
}

pub(crate) async fn a_worktree_that_must_stay_says_why(cx: Cx) -> Checked {
    let claimed = ended(&cx).await?;
    let id = claimed.lease.run;
    let task = cx.cleanup(id).await?;
    let reason = Reason::new("a process works in it")?;
    let outcome = CleanupOutcome::Kept {
        reason: reason.clone(),
    };
    let record = cx
        .runs
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .applied("a refusal to remove")?;
    ensure_eq!(
        (record.state, record.reason.clone()),
        (WorktreeState::Kept, Some(reason)),
        "state and reason"
    );
    ensure_eq!(
        cx.worktrees(id).await?,
        [record],
        "what is read is what the outcome answered"
    );
    ensure_eq!(
        cx.kinds(id).await?.last(),
        Some(&EventKind::WorktreeKept),
        "the last event"
    );
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "what is kept must not be taken again"
    );
    Ok(())
}

pub(crate) async fn a_cleanup_that_did_not_work_waits_before_the_next_try(cx: Cx) -> Checked {
    let claimed = ended(&cx).await?;
    let id = claimed.lease.run;
    let delay = BRIEF;
    for tries in 0..2 {
        let task = cx.cleanup(id).await?;
        ensure_eq!(task.tries, tries, "the tries before this one");
        let outcome = CleanupOutcome::Postponed {
            error: ErrorText::lossy("device busy"),
            retry_after: delay,
        };
        let record = cx
            .runs
            .finish_cleanup(task.cleanup, &outcome)
            .await?
            .applied("a postponement")?;
        let after = cx.runs.now().await?;
        ensure_eq!(
            record.state,
            WorktreeState::Ready,
            "the state of the worktree"
        );
        ensure!(
            cx.cleanups(id).await?.is_empty(),
            "a clean-up that waits must not be taken"
        );
        ensure_eq!(
            cx.kinds(id).await?.last(),
            Some(&EventKind::CleanupPostponed),
            "the last event"
        );
        cx.wait_until(after.saturating_add(delay)).await?;
    }
    Ok(())
}

pub(crate) async fn a_finished_cleanup_is_answered_by_already(cx: Cx) -> Checked {
    let kept = CleanupOutcome::Kept {
        reason: Reason::new("doubt")?,
    };
    for (outcome, other) in [(removed(None), kept.clone()), (kept, removed(None))] {
        let claimed = ended(&cx).await?;
        let id = claimed.lease.run;
        let task = cx.cleanup(id).await?;
        let record = cx
            .runs
            .finish_cleanup(task.cleanup, &outcome)
            .await?
            .applied("an outcome")?;
        let history = cx.kinds(id).await?;
        let again = cx
            .runs
            .finish_cleanup(task.cleanup, &outcome)
            .await?
            .already("the same outcome again")?;
        ensure_eq!(
            again,
            record,
            "the record that a repeated outcome answers with"
        );
        cx.runs
            .finish_cleanup(task.cleanup, &other)
            .await?
            .stale("another outcome")?;
        let postponed = CleanupOutcome::Postponed {
            error: ErrorText::lossy("late"),
            retry_after: Duration::ZERO,
        };
        cx.runs
            .finish_cleanup(task.cleanup, &postponed)
            .await?
            .stale("a postponement of what is done")?;
        ensure_eq!(cx.worktrees(id).await?, [record], "the record");
        ensure_eq!(cx.kinds(id).await?, history, "the history");
    }
    Ok(())
}

pub(crate) async fn an_unknown_cleanup_is_not_found_or_stale(cx: Cx) -> Checked {
    let claimed = ended(&cx).await?;
    let unknown_run = WorktreeKey {
        run: cx.run_id()?,
        planned_by: Token::new(1),
    };
    let unknown_worktree = WorktreeKey {
        run: claimed.lease.run,
        planned_by: Token::new(77),
    };
    let known = WorktreeKey {
        run: claimed.lease.run,
        planned_by: claimed.lease.token,
    };
    for outcome in outcomes()? {
        for worktree in [unknown_run, unknown_worktree] {
            let cleanup = CleanupRef {
                worktree,
                token: Token::new(1),
            };
            cx.runs
                .finish_cleanup(cleanup, &outcome)
                .await?
                .not_found("the outcome for an unknown worktree")?;
        }
        for token in [Token::NONE.next(), Token::new(9)] {
            let cleanup = CleanupRef {
                worktree: known,
                token,
            };
            cx.runs
                .finish_cleanup(cleanup, &outcome)
                .await?
                .stale("the outcome of a clean-up that nobody claimed")?;
        }
    }
    cx.cleanup(claimed.lease.run).await?;
    Ok(())
}

pub(crate) async fn a_worktree_of_a_live_run_cannot_be_finished(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let worktree = WorktreeKey {
        run: claimed.lease.run,
        planned_by: claimed.lease.token,
    };
    for outcome in outcomes()? {
        for token in [Token::NONE, claimed.lease.token] {
            let cleanup = CleanupRef { worktree, token };
            cx.runs
                .finish_cleanup(cleanup, &outcome)
                .await?
                .stale("the outcome of a clean-up that is not wanted")?;
        }
    }
    let record = only(
        cx.worktrees(claimed.lease.run).await?,
        "the worktrees of the run",
    )?;
    ensure_eq!(record.state, WorktreeState::Ready, "the state");
    Ok(())
}

pub(crate) async fn concurrent_cleaners_never_share_a_worktree(cx: Cx) -> Checked {
    let mut all = BTreeSet::new();
    for _ in 0..12 {
        all.insert(ended(&cx).await?.lease.run);
    }
    let other = cx.open_again().await?;
    let mut tasks = Vec::new();
    for n in 0..6 {
        let runs = if n % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        let claim = CleanupClaim {
            limit: Limit::new(3)?,
            ..cx.cleanup_claim()?
        };
        tasks.push(async move { runs.claim_cleanups(&claim).await });
    }
    let mut taken: Vec<CleanupTask> = Vec::new();
    for answer in together(tasks).await? {
        taken.extend(answer?);
    }
    // A cleaner may pass over what another one holds; what is left is taken here.
    taken.extend(cx.runs.claim_cleanups(&cx.cleanup_claim()?).await?);
    let runs = taken.iter().map(|task| task.cleanup.worktree.run).collect();
    ensure_eq!(
        distinct(runs, "the clean-ups that were taken")?,
        all,
        "the clean-ups that were taken"
    );
    Ok(())
}

/// A run that had a worktree and is completed.
async fn ended(cx: &Cx) -> Checked<Claimed> {
    let claimed = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    Ok(claimed)
}

/// Makes sure that the run has ended so, and that a clean-up of its worktree is wanted, once.
async fn ensure_wanted(cx: &Cx, claimed: &Claimed, status: RunStatus) -> Checked {
    let id = claimed.lease.run;
    ensure_eq!(cx.get(id).await?.status, status, "the status");
    let wanted = cx.kinds(id).await?;
    let wanted = wanted
        .iter()
        .filter(|kind| **kind == EventKind::CleanupWanted)
        .count();
    ensure_eq!(
        wanted,
        1,
        "wishes to clean up in the history of a {status:?} run"
    );
    let task = cx.cleanup(id).await?;
    let planned = claimed.worktree.as_ref().map(|worktree| worktree.key);
    ensure_eq!(
        Some(task.cleanup.worktree),
        planned,
        "the worktree of the clean-up"
    );
    Ok(())
}

fn removed(salvage: Option<SalvageRef>) -> CleanupOutcome {
    CleanupOutcome::Removed { salvage }
}

fn outcomes() -> Checked<Vec<CleanupOutcome>> {
    Ok(vec![
        removed(None),
        CleanupOutcome::Kept {
            reason: Reason::new("doubt").map_err(Failure::from)?,
        },
        CleanupOutcome::Postponed {
            error: ErrorText::lossy("busy"),
            retry_after: Duration::ZERO,
        },
    ])
}
