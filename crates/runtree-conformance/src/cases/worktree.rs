//! The record of a run's worktree: planned with the claim, handed on with the run, never forgotten.

use std::time::Duration;

use runtree_repository::id::DirectoryName;
use runtree_repository::{
    ClaimOf, Claimed, EventKind, HostPath, NewRun, Persistence, WorktreeKey, WorktreeQuery,
    WorktreeSite, WorktreeState,
};

use crate::context::{Cx, HOST, completed, failed_for_now, only, site, with_attempts};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq, ensure_invalid};

pub(crate) async fn a_claim_plans_the_worktree(cx: Cx) -> Checked {
    let run = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    ensure_eq!(
        cx.worktrees(run.id).await?,
        [],
        "the worktrees of a run that waits"
    );
    let claimed = cx.claim(run.id).await?;
    let worktree = claimed
        .worktree
        .clone()
        .ok_or_else(|| Failure::new("the claim must plan a worktree"))?;
    let wanted = run
        .worktree
        .clone()
        .ok_or_else(|| Failure::new("the run wants a worktree"))?;
    let site = site(HOST)?;
    ensure_eq!(
        worktree.key,
        WorktreeKey {
            run: run.id,
            planned_by: claimed.lease.token
        },
        "the key"
    );
    ensure_eq!(worktree.path, site.path_of(&wanted.name)?, "the path");
    ensure_eq!(worktree.site, site, "the site");
    ensure_eq!(
        worktree.wanted,
        wanted,
        "name, branch, base and persistence"
    );
    ensure_eq!(worktree.state, WorktreeState::Adding, "the state");
    ensure_eq!(worktree.held_by, claimed.lease.token, "who holds it");
    ensure_eq!(
        (worktree.salvage.clone(), worktree.reason.clone()),
        (None, None),
        "salvage and reason"
    );
    ensure_eq!(
        cx.worktrees(run.id).await?,
        [worktree],
        "what is read is what the claim answered"
    );
    Ok(())
}

pub(crate) async fn a_worktree_becomes_ready_once(cx: Cx) -> Checked {
    let run = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let claimed = cx.claim(run.id).await?;
    let ready = cx
        .runs
        .worktree_ready(claimed.lease)
        .await?
        .applied("the report of a checkout")?;
    ensure_eq!(ready.state, WorktreeState::Ready, "the state");
    ensure_eq!(
        cx.worktrees(run.id).await?,
        std::slice::from_ref(&ready),
        "what is read is what was answered"
    );
    let again = cx
        .runs
        .worktree_ready(claimed.lease)
        .await?
        .already("the same report again")?;
    ensure_eq!(
        again,
        ready,
        "the record that a repeated report answers with"
    );
    let kinds = cx.kinds(run.id).await?;
    ensure_eq!(
        kinds,
        [
            EventKind::Created,
            EventKind::Claimed,
            EventKind::WorktreeReady
        ],
        "the history"
    );
    Ok(())
}

pub(crate) async fn a_run_without_a_worktree_has_none_to_report(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    cx.runs
        .worktree_ready(claimed.lease)
        .await?
        .stale("the report of a checkout that was not wanted")?;
    ensure_eq!(cx.worktrees(claimed.lease.run).await?, [], "the worktrees");
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure!(
        cx.cleanups(claimed.lease.run).await?.is_empty(),
        "a run without a worktree wants no clean-up"
    );
    Ok(())
}

pub(crate) async fn the_next_attempt_on_the_site_gets_the_worktree(cx: Cx) -> Checked {
    let first = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let planned = first
        .worktree
        .clone()
        .ok_or_else(|| Failure::new("the claim must plan a worktree"))?;
    let id = first.lease.run;

    let retry = failed_for_now("again", Duration::ZERO);
    cx.runs
        .end(first.lease, &retry)
        .await?
        .applied("a failure")?;
    let second = cx.claim(id).await?;
    ensure_handed_on(&cx, &second, planned.key, WorktreeState::Ready).await?;
    cx.runs
        .worktree_ready(second.lease)
        .await?
        .already("the report of a worktree that was handed on")?;

    cx.runs.release(second.lease).await?.applied("a release")?;
    let third = cx.claim(id).await?;
    ensure_handed_on(&cx, &third, planned.key, WorktreeState::Ready).await?;

    only(cx.rescue_dead(third.lease).await?, "a rescue")?;
    let fourth = cx.claim(id).await?;
    ensure_handed_on(&cx, &fourth, planned.key, WorktreeState::Ready).await?;
    cx.runs
        .worktree_ready(third.lease)
        .await?
        .stale("a report of the owner before")?;
    Ok(())
}

pub(crate) async fn a_worktree_that_is_half_made_is_handed_on_as_it_is(cx: Cx) -> Checked {
    let run = cx
        .create_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let first = cx.claim(run.id).await?;
    cx.runs.release(first.lease).await?.applied("a release")?;
    let second = cx.claim(run.id).await?;
    let key = WorktreeKey {
        run: run.id,
        planned_by: first.lease.token,
    };
    ensure_handed_on(&cx, &second, key, WorktreeState::Adding).await?;
    let ready = cx
        .runs
        .worktree_ready(second.lease)
        .await?
        .applied("the second owner's report")?;
    ensure_eq!(
        (ready.key, ready.held_by),
        (key, second.lease.token),
        "the worktree that is ready"
    );
    Ok(())
}

pub(crate) async fn another_site_gets_a_worktree_of_its_own(cx: Cx) -> Checked {
    let first = cx
        .running_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let id = first.lease.run;
    cx.runs.release(first.lease).await?.applied("a release")?;
    let elsewhere = [
        site("beta.example")?,
        WorktreeSite {
            git_repository: HostPath::new("/srv/other/.git")?,
            ..site(HOST)?
        },
    ];
    for site in elsewhere {
        let claimed = claim_on(&cx, &first, site.clone()).await?;
        let worktree = claimed
            .worktree
            .clone()
            .ok_or_else(|| Failure::new("the claim must plan a worktree"))?;
        ensure_eq!(
            worktree.key.planned_by,
            claimed.lease.token,
            "who planned the worktree of {site:?}"
        );
        ensure_eq!(
            (worktree.site, worktree.state),
            (site, WorktreeState::Adding),
            "site and state"
        );
        cx.runs.release(claimed.lease).await?.applied("a release")?;
    }
    let all = cx.worktrees(id).await?;
    ensure_eq!(all.len(), 3, "the worktrees of the run");
    ensure!(
        all.is_sorted_by_key(|worktree| worktree.key.planned_by),
        "they are ordered by who planned them: saw {all:?}"
    );

    let back = claim_on(&cx, &first, site(HOST)?).await?;
    ensure_eq!(
        back.worktree.map(|worktree| worktree.key.planned_by),
        Some(first.lease.token),
        "the worktree that was left on the first site"
    );
    Ok(())
}

pub(crate) async fn a_checkout_is_reported_for_the_worktree_of_the_claim(cx: Cx) -> Checked {
    let run = cx
        .create_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let first = cx.claim(run.id).await?;
    cx.runs.release(first.lease).await?.applied("a release")?;
    let elsewhere = claim_on(&cx, &first, site("beta.example")?).await?;
    cx.runs
        .release(elsewhere.lease)
        .await?
        .applied("a release")?;
    // Back on the first site: the worktree of the claim is not the one that was planned last.
    let back = claim_on(&cx, &first, site(HOST)?).await?;
    let ready = cx
        .runs
        .worktree_ready(back.lease)
        .await?
        .applied("the report of a checkout")?;
    ensure_eq!(
        ready.key.planned_by,
        first.lease.token,
        "the worktree that is ready"
    );
    let states: Vec<_> = cx
        .worktrees(run.id)
        .await?
        .iter()
        .map(|worktree| worktree.state)
        .collect();
    ensure_eq!(
        states,
        [WorktreeState::Ready, WorktreeState::Adding],
        "the states of both worktrees"
    );
    Ok(())
}

pub(crate) async fn a_site_shows_its_own_worktrees_and_no_others(cx: Cx) -> Checked {
    let mut here = Vec::new();
    for _ in 0..3 {
        here.push(
            cx.running_with_worktree(NewRun::new("builder"), Persistence::Temporary)
                .await?
                .lease
                .run,
        );
    }
    here.sort();
    let run = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let mut claim = cx.claim_of(ClaimOf::Run(run.id))?;
    claim.site = Some(site("beta.example")?);
    only(cx.runs.claim(&claim).await?, "a claim on another machine")?;

    let of = |site: WorktreeSite| WorktreeQuery::Site {
        host: site.host,
        git_repository: site.git_repository,
    };
    let seen = cx.runs.worktrees(&of(site(HOST)?)).await?;
    ensure_eq!(
        seen.iter()
            .map(|worktree| worktree.key.run)
            .collect::<Vec<_>>(),
        here,
        "the worktrees of this machine, by run"
    );
    let there = only(
        cx.runs.worktrees(&of(site("beta.example")?)).await?,
        "the worktrees of the other machine",
    )?;
    ensure_eq!(
        there.key.run,
        run.id,
        "the run of the other machine's worktree"
    );
    let other = WorktreeSite {
        git_repository: HostPath::new("/srv/other/.git")?,
        ..site(HOST)?
    };
    ensure_eq!(
        cx.runs.worktrees(&of(other)).await?,
        [],
        "the worktrees of another git repository"
    );
    // Where the directory is below does not matter: records found by another root would look like orphans.
    let root = WorktreeSite {
        root: HostPath::new("/elsewhere")?,
        ..site(HOST)?
    };
    ensure_eq!(
        cx.runs.worktrees(&of(root)).await?.len(),
        3,
        "the worktrees when the root has moved"
    );
    Ok(())
}

pub(crate) async fn paths_of_every_script_survive(cx: Cx) -> Checked {
    let run = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let mut claim = cx.claim_of(ClaimOf::Run(run.id))?;
    claim.site = Some(WorktreeSite {
        root: HostPath::new("/srv/wörk 'trees' \"%_\\/日本")?,
        git_repository: HostPath::new("/srv/chéckout 🦀/.git")?,
        ..site("hôst.example")?
    });
    let claimed = only(cx.runs.claim(&claim).await?, "a claim")?;
    ensure_eq!(
        claimed.worktree.as_ref().map(|worktree| &worktree.site),
        claim.site.as_ref(),
        "the site"
    );
    ensure_eq!(
        cx.worktrees(run.id).await?,
        claimed.worktree.into_iter().collect::<Vec<_>>(),
        "what is read is what the claim answered"
    );
    Ok(())
}

pub(crate) async fn a_root_without_room_for_a_name_is_refused_with_nothing_claimed(
    cx: Cx,
) -> Checked {
    let most = HostPath::MAX_BYTES - DirectoryName::MAX_BYTES;
    let root = |bytes: usize| HostPath::new(format!("/{}", "x".repeat(bytes - "/".len())));
    let run = cx
        .create_with_worktree(with_attempts(9)?, Persistence::Temporary)
        .await?;
    let first = cx.claim(run.id).await?;
    cx.runs.release(first.lease).await?.applied("a release")?;
    let before = cx.get(run.id).await?;
    // Whether the run has a worktree there already or not, and whether it needs one at all.
    let other = cx
        .create_with_worktree(NewRun::new("builder"), Persistence::Temporary)
        .await?;
    let without = cx.create(NewRun::new("builder")).await?;
    for id in [run.id, other.id, without.id] {
        let mut claim = cx.claim_of(ClaimOf::Run(id))?;
        claim.site = Some(WorktreeSite {
            root: root(most)?,
            ..site(HOST)?
        });
        ensure_invalid(cx.runs.claim(&claim).await, "a root without room")?;
    }
    ensure!(cx.get(run.id).await? == before, "the run is as it was");
    let longest = WorktreeSite {
        root: root(most - "/".len())?,
        ..site(HOST)?
    };
    let mut claim = cx.claim_of(ClaimOf::Run(other.id))?;
    claim.site = Some(longest);
    only(
        cx.runs.claim(&claim).await?,
        "a claim with the longest root",
    )?;
    Ok(())
}

async fn claim_on(cx: &Cx, of: &Claimed, site: WorktreeSite) -> Checked<Claimed> {
    let mut claim = cx.claim_of(ClaimOf::Run(of.lease.run))?;
    claim.owner = cx.owner(site.host.as_str())?;
    claim.site = Some(site);
    only(cx.runs.claim(&claim).await?, "a claim of a run that waits")
}

/// Makes sure that a claim got this worktree, in this state, and holds it now.
async fn ensure_handed_on(
    cx: &Cx,
    claimed: &Claimed,
    key: WorktreeKey,
    state: WorktreeState,
) -> Checked {
    let worktree = claimed
        .worktree
        .clone()
        .ok_or_else(|| Failure::new("the claim must answer with the worktree"))?;
    ensure_eq!(
        (worktree.key, worktree.state),
        (key, state),
        "the worktree that is handed on"
    );
    ensure_eq!(worktree.held_by, claimed.lease.token, "who holds it");
    let stored = only(cx.worktrees(key.run).await?, "the worktrees of the run")?;
    ensure_eq!(stored, worktree, "what is read is what the claim answered");
    Ok(())
}
