//! Holds everything that was shown against the git repository and the database, opened anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use runtree::repository::{CleanUpWorktrees, RescueRuns};
use runtree::repository::{Lease, PageRequest, ReadRuns, RunSummary, WorktreeQuery, WorktreeState};
use runtree::status::EndReason;
use runtree::{RunFilter, RunStatus, SessionId, SqliteRepository, Worktrees};

use crate::Failure;
use crate::demo::{self, Look};
use crate::runs::{FLAKY, NOTES, REFACTORING};

/// What the program leaves in the git repository on purpose.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) branches: Vec<String>,
    pub(crate) salvages: Vec<String>,
    pub(crate) worktrees: Vec<PathBuf>,
    /// The root of the worktrees, if it was not there before.
    pub(crate) root: Option<PathBuf>,
    /// runtree's own corner of the git repository, if it was not there before.
    pub(crate) corner: Option<PathBuf>,
}

/// Fails with what should have been true.
fn holds(is_true: bool, what: &str) -> Result<(), Failure> {
    if is_true {
        Ok(())
    } else {
        Err(format!("this should be true and is not: {what}").into())
    }
}

/// Returns the one run of a workflow.
pub(crate) fn the_one<'a>(
    runs: &'a [RunSummary],
    workflow: &str,
) -> Result<&'a RunSummary, Failure> {
    let mut of_workflow = runs.iter().filter(|run| run.workflow.as_str() == workflow);
    match (of_workflow.next(), of_workflow.next()) {
        (Some(run), None) => Ok(run),
        _ => Err(format!("there is not one run of {workflow}").into()),
    }
}

/// Checks it all, and answers what is left on purpose.
pub(crate) async fn everything(
    repo: &Path,
    database: &Path,
    session: SessionId,
    before: &Look,
) -> Result<Left, Failure> {
    let records = SqliteRepository::open(database).await?;
    let runs = records
        .list(&RunFilter::new().session(session), &PageRequest::default())
        .await?
        .runs;
    check_runs(&runs)?;
    let leases = records.leases(None).await?;
    let is_ours = |lease: &Lease| runs.iter().any(|run| run.id == lease.lease.run);
    holds(!leases.iter().any(is_ours), "no run is owned any more")?;
    let worktrees = Worktrees::open(repo)?;
    let after = demo::look(repo, worktrees.root())?;
    let added = after.added_since(before)?;
    for run in &runs {
        check_worktree(&records, &worktrees, run).await?;
        check_branch(&after, run)?;
    }
    let (branches, salvages) = sort_refs(&added.refs, &runs)?;
    let persistent = the_one(&runs, NOTES)?.worktree.as_ref();
    let kept = persistent.map(|wanted| worktrees.root().join(wanted.name.as_str()));
    let only_kept = |paths: &[PathBuf]| paths.iter().eq(kept.iter());
    holds(
        only_kept(&added.worktrees),
        "git knows the persistent worktree, and no other one more than before",
    )?;
    holds(
        only_kept(&added.in_root),
        "no directory is left but the persistent worktree",
    )?;
    Ok(Left {
        branches,
        salvages,
        worktrees: added.worktrees,
        root: None,
        corner: None,
    })
}

fn check_runs(runs: &[RunSummary]) -> Result<(), Failure> {
    let ids: BTreeSet<_> = runs.iter().map(|run| run.id).collect();
    holds(runs.len() == 5 && ids.len() == 5, "there are five runs")?;
    let branches: BTreeSet<_> = runs
        .iter()
        .filter_map(|run| Some(run.worktree.as_ref()?.branch.as_str()))
        .collect();
    holds(branches.len() == 5, "each run has a branch of its own")?;
    for run in runs {
        let (status, reason) = match run.workflow.as_str() {
            FLAKY => (RunStatus::Failed, EndReason::Error),
            REFACTORING => (RunStatus::Killed, EndReason::Killed),
            _ => (RunStatus::Completed, EndReason::Succeeded),
        };
        let what = format!(
            "the run of {} is {status} because of {reason}",
            run.workflow
        );
        holds(
            run.status == status && run.end_reason == Some(reason) && run.has_ended(),
            &what,
        )?;
    }
    let first_end = runs.iter().filter_map(|run| run.ended_at).min();
    let last_start = runs.iter().filter_map(|run| run.started_at).max();
    holds(last_start < first_end, "all five ran at the same time")
}

async fn check_worktree(
    records: &SqliteRepository,
    worktrees: &Worktrees,
    run: &RunSummary,
) -> Result<(), Failure> {
    let known = records.worktrees(&WorktreeQuery::Run(run.id)).await?;
    let [worktree] = known.as_slice() else {
        return Err(format!("the run {} has not had one worktree", run.id).into());
    };
    let is_persistent = run.workflow.as_str() == NOTES;
    let expected = if is_persistent {
        WorktreeState::Kept
    } else {
        WorktreeState::Removed
    };
    holds(
        worktree.state == expected,
        &format!("the worktree of {} is {}", run.workflow, expected.as_str()),
    )?;
    holds(
        worktree.path.as_path().exists() == is_persistent,
        &format!("the directory of {} is as the record says", run.workflow),
    )?;
    let must_save = [FLAKY, REFACTORING].contains(&run.workflow.as_str());
    holds(
        worktree.salvage.is_some() == must_save,
        &format!("what {} left uncommitted was saved", run.workflow),
    )?;
    let Some(reference) = &worktree.salvage else {
        return Ok(());
    };
    let saved = worktrees
        .salvages()?
        .into_iter()
        .find(|saved| saved.reference.as_str() == reference.as_str());
    holds(
        saved.is_some_and(|saved| !saved.files.is_empty()),
        "the salvage holds the files",
    )
}

/// Work that was committed is on the run's branch; a branch without a commit of its own is gone.
fn check_branch(after: &Look, run: &RunSummary) -> Result<(), Failure> {
    let Some(wanted) = &run.worktree else {
        return Err(format!("the run {} wanted no worktree", run.id).into());
    };
    let has_commits = run.workflow.as_str() != FLAKY;
    let at = after.refs.get(wanted.branch.full_ref());
    holds(
        at.is_some() == has_commits,
        &format!("the branch of {} is there if it has commits", run.workflow),
    )?;
    let moved = at.is_none_or(|at| !at.contains(wanted.base.as_str()));
    holds(
        moved,
        &format!("the branch of {} holds its commits", run.workflow),
    )
}

fn sort_refs(added: &[String], runs: &[RunSummary]) -> Result<(Vec<String>, Vec<String>), Failure> {
    let (mut branches, mut salvages) = (Vec::new(), Vec::new());
    for name in added {
        let branch = name.strip_prefix("refs/heads/");
        let is_of_run = runs.iter().any(|run| name.ends_with(&run.id.to_string()));
        match branch {
            Some(branch) if is_of_run => branches.push(branch.to_owned()),
            None if name.starts_with("refs/runtree/salvage/") => salvages.push(name.clone()),
            _ => return Err(format!("the ref {name} was added, and by none of the runs").into()),
        }
    }
    Ok((branches, salvages))
}
