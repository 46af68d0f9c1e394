//! The facade takes a store of one's own as it takes any other: a run in a worktree of its own, whose records are in that store.

use std::error::Error;
use std::sync::Arc;

use custom_repository::RedbRepository;
use runtree::time::SystemClock;
use runtree::{Coordinator, NewRun, RunFilter, RunStatus, WorktreeFate, Worktrees};
use runtree_repository::{EventKind, EventNumber, Limit, ReadRuns};
use runtree_testkit::git::{GitFixture, git};
use serde_json::json;

#[tokio::test]
async fn a_coordinator_works_on_a_store_of_ones_own() -> Result<(), Box<dyn Error>> {
    let (git_repository, directory) = (GitFixture::new(), tempfile::tempdir()?);
    let file = directory.path().join("runs.redb");
    let runs = RedbRepository::open(&file, Arc::new(SystemClock))?;
    let coordinator = Coordinator::builder()
        .runs(runs.clone())
        .worktrees(Worktrees::open(git_repository.path())?)
        .build()
        .await?;

    let run = coordinator
        .start(NewRun::new("builder").input("fix the flaky test"))
        .await?;
    let (id, place) = (run.id(), run.worktree().path().to_owned());
    std::fs::write(place.join("notes.txt"), "half done")?;
    let ended = run.complete(json!({ "tests": "green" })).await?;
    assert_eq!(ended.run.status, RunStatus::Completed);
    assert!(!place.exists(), "{}", place.display());

    // What was not committed is saved, and the store knows where.
    let mut fates = ended.cleaned_up.iter().map(|cleaned| &cleaned.fate);
    let is_saved = fates
        .any(|fate| matches!(fate, WorktreeFate::Removed(removal) if removal.salvage.is_some()));
    assert!(is_saved, "{:?}", ended.cleaned_up);
    let stored = runs.get(id).await?.ok_or("the run is stored")?;
    assert_eq!(stored.result, Some(json!({ "tests": "green" })));
    let events = runs.events(id, EventNumber::START, Limit::MAX).await?;
    let last = events.last().map(|event| event.kind);
    assert_eq!(last, Some(EventKind::WorktreeRemoved), "{events:?}");
    let listed = git(git_repository.path(), ["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), 1, "{listed}");

    // Whoever opens the store again finds it; one process at a time has it open.
    assert_eq!(coordinator.list(RunFilter::new()).await?.runs.len(), 1);
    drop((coordinator, runs));
    let again = RedbRepository::open(&file, Arc::new(SystemClock))?;
    assert!(again.get(id).await?.is_some_and(|run| run.has_ended()));
    Ok(())
}
