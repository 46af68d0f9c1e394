//! What every test here starts from: a git repository, a run repository, and questions that git itself answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtree::repository::{HostName, LeaseTime, PageRequest, RunRepository};
use runtree::time::SystemClock;
use runtree::{Coordinator, MemoryRepository, RunFilter, RunSummary, Worktrees};
use runtree_testkit::git::{GitFixture, git};

/// A git repository and a run repository in memory.
pub(crate) struct World {
    pub(crate) git: GitFixture,
    pub(crate) runs: MemoryRepository,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            git: GitFixture::new(),
            runs: MemoryRepository::new(Arc::new(SystemClock)),
        }
    }

    /// One more coordinator on both repositories.
    pub(crate) async fn coordinator(&self) -> Coordinator {
        coordinator(self.git.path(), self.runs.clone()).await
    }

    /// One more coordinator, whose leases last just so long.
    pub(crate) async fn coordinator_with_lease(&self, time: Duration) -> Coordinator {
        Coordinator::builder()
            .runs(self.runs.clone())
            .worktrees(Worktrees::open(self.git.path()).unwrap())
            .lease_time(LeaseTime::new(time).unwrap())
            .build()
            .await
            .unwrap()
    }

    /// What git says of the run's branch; none when there is no such branch.
    pub(crate) fn branch(&self, run: &RunSummary) -> Option<String> {
        let branch = &run.worktree.as_ref().unwrap().branch;
        let found = git(
            self.git.path(),
            ["for-each-ref", "--format=%(objectname)", branch.full_ref()],
        );
        Some(found.trim().to_owned()).filter(|commit| !commit.is_empty())
    }

    /// Fails unless git finds nothing but the main worktree, and nothing to prune or to complain of.
    pub(crate) fn assert_nothing_is_left(&self) {
        assert_eq!(linked_worktrees(self.git.path()), Vec::<PathBuf>::new());
        assert_git_is_content(self.git.path());
        assert_eq!(
            directories_in(&root(self.git.path())),
            Vec::<PathBuf>::new()
        );
    }
}

pub(crate) async fn coordinator(git: &Path, runs: impl RunRepository) -> Coordinator {
    let worktrees = Worktrees::open(git).unwrap();
    let builder = Coordinator::builder().runs(runs).worktrees(worktrees);
    builder.build().await.unwrap()
}

pub(crate) fn root(git: &Path) -> PathBuf {
    Worktrees::open(git).unwrap().root().to_owned()
}

/// The linked worktrees that git knows of.
pub(crate) fn linked_worktrees(path: &Path) -> Vec<PathBuf> {
    let listed = git(path, ["worktree", "list", "--porcelain"]);
    let paths = listed
        .lines()
        .filter_map(|line| line.strip_prefix("worktree "));
    paths.skip(1).map(PathBuf::from).collect()
}

pub(crate) fn assert_git_is_content(path: &Path) {
    assert_eq!(
        git(path, ["worktree", "prune", "--dry-run", "--verbose"]),
        ""
    );
    // Objects that a crash left unreferenced are no damage; anything else is.
    let complaints = git(path, ["fsck", "--full", "--strict", "--no-dangling"]);
    assert_eq!(complaints, "");
}

/// Everything in a directory, hidden entries included; nothing when there is no such directory.
pub(crate) fn directories_in(path: &Path) -> Vec<PathBuf> {
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    }
}

/// Every run, the youngest first.
pub(crate) async fn all_runs(coordinator: &Coordinator) -> Vec<RunSummary> {
    let page = coordinator
        .list_page(&RunFilter::new(), &PageRequest::default())
        .await;
    page.unwrap().runs
}

/// This machine, as the coordinator names it.
pub(crate) fn this_host() -> HostName {
    HostName::new(runtree::process::Host::current().name()).unwrap()
}
