//! An owner that shuts down gives its runs back, and nothing is counted against them.

use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::{EventKind, NewRun, Persistence, WorktreeState};

use crate::context::{Cx, graceful, only, with_attempts};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn a_release_does_not_count_the_attempt(cx: Cx) -> Checked {
    let first = cx.running(NewRun::new("builder")).await?;
    let run = cx.runs.release(first.lease).await?.applied("a release")?;
    ensure_eq!(run.status, RunStatus::Pending, "the status");
    ensure_eq!(run.attempts, 0, "the attempts");
    ensure_eq!(
        (run.owner.clone(), run.lease_expires_at),
        (None, None),
        "owner and lease"
    );
    ensure_eq!(
        (run.ended_at, run.error.clone()),
        (None, None),
        "end and error"
    );
    ensure_eq!(
        cx.get(run.id).await?,
        run,
        "what is read is what the release answered"
    );
    ensure_eq!(cx.runs.leases(None).await?, [], "the live leases");
    ensure_eq!(
        cx.kinds(run.id).await?.last(),
        Some(&EventKind::Released),
        "the last event"
    );

    let second = only(cx.claim_all().await?, "a claim at once after the release")?;
    ensure_eq!(second.run.attempts, 1, "the attempts of the next claim");
    ensure!(
        second.lease.token > first.lease.token,
        "the token grows: saw {} after {}",
        second.lease.token,
        first.lease.token
    );
    Ok(())
}

pub(crate) async fn a_release_while_a_cancel_waits_is_a_kill(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(9)?).await?;
    cx.runs
        .cancel(claimed.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    let run = cx.runs.release(claimed.lease).await?.applied("a release")?;
    ensure_eq!(
        (run.status, run.end_reason),
        (RunStatus::Killed, Some(EndReason::Killed)),
        "status and reason"
    );
    ensure!(run.has_ended(), "the run has ended");
    ensure_eq!(
        cx.kinds(run.id).await?.last(),
        Some(&EventKind::Killed),
        "the last event"
    );
    Ok(())
}

pub(crate) async fn a_release_under_an_expired_lease_is_accepted(cx: Cx) -> Checked {
    let claimed = cx.expired(NewRun::new("builder")).await?;
    let run = cx
        .runs
        .release(claimed.lease)
        .await?
        .applied("a release nobody has pre-empted")?;
    ensure_eq!(
        (run.status, run.attempts),
        (RunStatus::Pending, 0),
        "status and attempts"
    );
    Ok(())
}

pub(crate) async fn a_release_is_not_repeated_on_the_next_owner(cx: Cx) -> Checked {
    let first = cx.running(NewRun::new("builder")).await?;
    cx.runs.release(first.lease).await?.applied("a release")?;
    cx.runs
        .release(first.lease)
        .await?
        .stale("a second release")?;
    let second = cx.claim(first.lease.run).await?;
    cx.runs
        .release(first.lease)
        .await?
        .stale("a release by the owner before")?;
    ensure_eq!(
        cx.get(second.lease.run).await?.owner,
        second.run.owner,
        "the owner"
    );
    Ok(())
}

pub(crate) async fn a_release_keeps_the_worktree_with_the_run(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    cx.runs.release(claimed.lease).await?.applied("a release")?;
    let worktree = only(
        cx.worktrees(claimed.lease.run).await?,
        "the worktrees of the run",
    )?;
    ensure_eq!(
        worktree.state,
        WorktreeState::Ready,
        "the state of the worktree"
    );
    ensure!(
        cx.cleanups(claimed.lease.run).await?.is_empty(),
        "the worktree of a run that waits again must not be cleaned up"
    );
    Ok(())
}
