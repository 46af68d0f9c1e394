//! Who holds a clean-up is shown to all, and a dead holder is not waited for.

use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::{
    CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, ErrorText, HostName, HostPath,
    LeaseTime, NewRun, Persistence, Token,
};

use crate::context::{Cx, HOST, LONG, SHORT, completed, only, site};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq};

pub(crate) async fn a_cleanup_that_somebody_holds_is_shown_with_its_holder(cx: Cx) -> Checked {
    let id = ended(&cx).await?;
    ensure_eq!(
        leases(&cx).await?,
        [],
        "the clean-ups that are held before the first claim"
    );
    let claim = CleanupClaim {
        lease_time: LeaseTime::new(SHORT)?,
        ..cx.cleanup_claim()?
    };
    let task = only(
        cx.runs.claim_cleanups(&claim).await?,
        "a claim of the clean-up",
    )?;
    let expected = CleanupLease::new(task.cleanup, claim.owner, task.expires_at);
    ensure_eq!(
        leases(&cx).await?,
        std::slice::from_ref(&expected),
        "the clean-ups that are held"
    );
    cx.wait_until(task.expires_at).await?;
    ensure_eq!(
        leases(&cx).await?,
        [expected],
        "one whose time is over is still shown"
    );

    let again = cx.cleanup(id).await?;
    let shown = only(
        leases(&cx).await?,
        "the clean-ups that are held after a second claim",
    )?;
    ensure_eq!(
        shown.cleanup,
        again.cleanup,
        "the token is that of the second claim"
    );
    let outcome = CleanupOutcome::Removed { salvage: None };
    cx.runs
        .finish_cleanup(again.cleanup, &outcome)
        .await?
        .applied("a removal")?;
    ensure_eq!(
        leases(&cx).await?,
        [],
        "the clean-ups that are held after the removal"
    );
    Ok(())
}

pub(crate) async fn cleanups_of_another_place_are_not_shown(cx: Cx) -> Checked {
    let id = ended(&cx).await?;
    cx.cleanup(id).await?;
    let here = site(HOST)?;
    let beta = HostName::new("beta.example")?;
    let elsewhere = HostPath::new("/srv/other/.git")?;
    ensure_eq!(
        cx.runs.cleanup_leases(&beta, &here.git_repository).await?,
        [],
        "the clean-ups of another machine"
    );
    ensure_eq!(
        cx.runs.cleanup_leases(&here.host, &elsewhere).await?,
        [],
        "the clean-ups of another git repository"
    );
    ensure_eq!(leases(&cx).await?.len(), 1, "the clean-ups of this place");
    Ok(())
}

pub(crate) async fn a_proven_death_needs_no_waiting(cx: Cx) -> Checked {
    let id = ended(&cx).await?;
    let dead = cx.cleanup(id).await?;
    let alive = cx.cleanup(ended(&cx).await?).await?;
    cx.runs.free_cleanups(&[dead.cleanup]).await?;
    let shown = only(leases(&cx).await?, "the clean-ups that are still held")?;
    ensure_eq!(
        shown.cleanup,
        alive.cleanup,
        "the clean-up of the holder that lives"
    );
    let taken = only(
        cx.runs.claim_cleanups(&cx.cleanup_claim()?).await?,
        "a claim at once after the proof",
    )?;
    ensure_eq!(
        taken.cleanup.worktree,
        dead.cleanup.worktree,
        "the worktree of the clean-up"
    );
    ensure!(
        taken.cleanup.token > dead.cleanup.token,
        "the token grows: saw {} after {}",
        taken.cleanup.token,
        dead.cleanup.token
    );
    ensure_eq!(taken.tries, 1, "the try of the dead holder stays counted");
    let outcome = CleanupOutcome::Removed { salvage: None };
    cx.runs
        .finish_cleanup(dead.cleanup, &outcome)
        .await?
        .stale("the outcome of the holder that was dead")?;
    cx.runs
        .finish_cleanup(taken.cleanup, &outcome)
        .await?
        .applied("the outcome of the new holder")?;
    Ok(())
}

pub(crate) async fn a_proof_about_an_earlier_holder_is_worth_nothing(cx: Cx) -> Checked {
    let id = ended(&cx).await?;
    let old = cx.cleanup(id).await?;
    cx.runs.free_cleanups(&[old.cleanup]).await?;
    let new = cx.cleanup(id).await?;
    cx.runs.free_cleanups(&[old.cleanup]).await?;
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "the token that was observed is not the token of now"
    );
    let shown = only(leases(&cx).await?, "the clean-ups that are held")?;
    ensure_eq!(
        (shown.cleanup, shown.expires_at),
        (new.cleanup, new.expires_at),
        "the hold of the new holder"
    );
    Ok(())
}

pub(crate) async fn a_proof_about_nobody_changes_nothing(cx: Cx) -> Checked {
    cx.runs.free_cleanups(&[]).await?;
    let id = ended(&cx).await?;
    let task = cx.cleanup(id).await?;
    let postponed = CleanupOutcome::Postponed {
        error: ErrorText::lossy("busy"),
        retry_after: LONG,
    };
    cx.runs
        .finish_cleanup(task.cleanup, &postponed)
        .await?
        .applied("a postponement")?;
    ensure_eq!(
        leases(&cx).await?,
        [],
        "the clean-ups that are held while one waits"
    );

    let done = ended(&cx).await?;
    let finished = cx.cleanup(done).await?;
    let removed = CleanupOutcome::Removed { salvage: None };
    let record = cx
        .runs
        .finish_cleanup(finished.cleanup, &removed)
        .await?
        .applied("a removal")?;

    let mut unknown = task.cleanup;
    unknown.worktree.run = cx.run_id()?;
    let future = CleanupRef {
        token: Token::new(77),
        ..task.cleanup
    };
    let before = cx.events(id).await?;
    cx.runs
        .free_cleanups(&[task.cleanup, finished.cleanup, unknown, future])
        .await?;
    cx.pass(Duration::from_millis(1)).await?;
    ensure!(
        cx.cleanups(id).await?.is_empty(),
        "a clean-up that waits goes on waiting"
    );
    ensure!(
        cx.cleanups(done).await?.is_empty(),
        "what is done must not be taken again"
    );
    ensure_eq!(
        cx.worktrees(done).await?,
        [record],
        "the record of what is done"
    );
    ensure_eq!(cx.events(id).await?, before, "the history");
    Ok(())
}

/// The clean-ups that somebody holds at the usual site.
async fn leases(cx: &Cx) -> Checked<Vec<CleanupLease>> {
    let site = site(HOST)?;
    Ok(cx
        .runs
        .cleanup_leases(&site.host, &site.git_repository)
        .await?)
}

/// A run that had a worktree and is completed.
async fn ended(cx: &Cx) -> Checked<RunId> {
    let run = NewRun::new("builder");
    let claimed = cx
        .running_with_worktree(run, Persistence::Temporary)
        .await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    Ok(claimed.lease.run)
}
