//! Tenants in one store neither see nor touch each other's runs.

use runtree_repository::id::Lookup;
use runtree_repository::{
    ClaimOf, CleanupOutcome, Created, EventNumber, LeaseTime, Limit, NewRun, Outcome, PageRequest,
    Persistence, Renewal, Rescue, RunFilter, WorktreeQuery,
};

use crate::context::{
    Cx, HOST, LONG, completed, forced, graceful, only, process, site, with_attempts,
};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq, take};

const OTHER: &str = "tenant 'ä'";

pub(crate) async fn reads_see_only_their_own(cx: Cx) -> Checked {
    let claimed = cx
        .running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let id = claimed.lease.run;
    let other = cx.open_namespace(OTHER).await?;
    ensure_eq!(
        other.get(id).await?,
        None,
        "another namespace's run by its id"
    );
    ensure_eq!(
        other.find(&id.short()).await?,
        Lookup::NotFound,
        "another namespace's run by its ending"
    );
    let page = other
        .list(&RunFilter::new(), &PageRequest::default())
        .await?;
    ensure_eq!(page.runs, [], "another namespace's runs in a list");
    ensure_eq!(
        other.events(id, EventNumber::START, Limit::MAX).await?,
        [],
        "another namespace's history"
    );
    ensure_eq!(other.leases(None).await?, [], "another namespace's leases");
    ensure_eq!(
        other.worktrees(&WorktreeQuery::Run(id)).await?,
        [],
        "another namespace's worktrees by run"
    );
    let site = site(HOST)?;
    let query = WorktreeQuery::Site {
        host: site.host,
        git_repository: site.git_repository,
    };
    ensure_eq!(
        other.worktrees(&query).await?,
        [],
        "another namespace's worktrees by site"
    );
    ensure_eq!(
        cx.runs.worktrees(&query).await?.len(),
        1,
        "the worktrees of the own namespace"
    );
    Ok(())
}

pub(crate) async fn owners_touch_only_their_own(cx: Cx) -> Checked {
    let waiting = cx.create(NewRun::new("builder")).await?;
    let claimed = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let lease = claimed.lease;
    let before = cx.get(lease.run).await?;
    let history = cx.kinds(lease.run).await?;
    let other = cx.open_namespace(OTHER).await?;

    ensure!(
        other.claim(&cx.claim_of(ClaimOf::ANY)?).await?.is_empty(),
        "another namespace's runs must not be claimed"
    );
    ensure!(
        other
            .claim(&cx.claim_of(ClaimOf::Run(waiting.id))?)
            .await?
            .is_empty(),
        "nor by id"
    );
    ensure_eq!(
        other.renew(&[lease], LeaseTime::new(LONG)?).await?,
        [Renewal::Lost],
        "a renewal from another namespace"
    );
    other
        .record_child(lease, &process("7")?)
        .await?
        .not_found("a child from another namespace")?;
    other
        .worktree_ready(lease)
        .await?
        .not_found("a worktree from another namespace")?;
    other
        .end(lease, &completed())
        .await?
        .not_found("an ending from another namespace")?;
    other
        .end(lease, &Outcome::Killed)
        .await?
        .not_found("a stop from another namespace")?;
    other
        .release(lease)
        .await?
        .not_found("a release from another namespace")?;
    other
        .cancel(lease.run, &graceful())
        .await?
        .not_found("a cancel from another namespace")?;
    other
        .force_kill(lease.run, &forced())
        .await?
        .not_found("a forced kill from another namespace")?;
    let rescue = Rescue {
        proven_dead: vec![lease],
        limit: Limit::MAX,
        spare: Vec::new(),
    };
    ensure!(
        other.rescue(&rescue).await?.is_empty(),
        "another namespace's runs must not be rescued"
    );
    ensure_eq!(cx.get(lease.run).await?, before, "the run");
    ensure_eq!(cx.kinds(lease.run).await?, history, "the history");

    cx.runs
        .end(lease, &completed())
        .await?
        .applied("the owner's completion")?;
    ensure!(
        other.claim_cleanups(&cx.cleanup_claim()?).await?.is_empty(),
        "another namespace's clean-ups must not be taken"
    );
    let task = cx.cleanup(lease.run).await?;
    let (host, git_repository) = (task.worktree.site.host, task.worktree.site.git_repository);
    let leases = other.cleanup_leases(&host, &git_repository).await?;
    ensure_eq!(leases, [], "another namespace's clean-ups that are held");
    other.free_cleanups(&[task.cleanup]).await?;
    ensure!(
        cx.cleanups(lease.run).await?.is_empty(),
        "a proof from another namespace must free nothing"
    );
    let outcome = CleanupOutcome::Removed { salvage: None };
    other
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .not_found("an outcome from another namespace")?;
    cx.runs
        .finish_cleanup(task.cleanup, &outcome)
        .await?
        .applied("the outcome")?;
    Ok(())
}

pub(crate) async fn expired_runs_are_rescued_only_at_home(cx: Cx) -> Checked {
    let claimed = cx.expired(with_attempts(9)?).await?;
    let other = cx.open_namespace(OTHER).await?;
    let rescue = Rescue {
        proven_dead: Vec::new(),
        limit: Limit::MAX,
        spare: Vec::new(),
    };
    ensure!(
        other.rescue(&rescue).await?.is_empty(),
        "another namespace's expired runs must not be rescued"
    );
    let rescued = only(cx.rescue_expired().await?, "a rescue at home")?;
    ensure_eq!(rescued.lease, claimed.lease, "the lease that was rescued");
    Ok(())
}

pub(crate) async fn keys_and_ids_are_free_in_another_namespace(cx: Cx) -> Checked {
    let request = cx.request(
        NewRun::new("builder")
            .idempotency_key("order-17")
            .unique_key("branch main"),
    )?;
    cx.create_new(&request).await?;
    let other = cx.open_namespace(OTHER).await?;
    let created = other.create(&request).await?;
    take!(created, Created::New(run) => drop(run), "the same create in another namespace");
    // Each has a history and an ending of its own.
    let claimed = cx.claim(request.id).await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let there = other.get(request.id).await?;
    ensure!(
        there.is_some_and(|run| !run.has_ended()),
        "the run of the other namespace must go on"
    );
    ensure_eq!(
        other
            .events(request.id, EventNumber::START, Limit::MAX)
            .await?
            .len(),
        1,
        "the other run's events"
    );
    Ok(())
}
