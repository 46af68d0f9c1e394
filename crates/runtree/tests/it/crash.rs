//! A run whose process ends just after each of its durable steps: always finished or undone, never a byte lost.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use runtree::repository::{WorktreeQuery, WorktreeState};
use runtree::worktree::{Onward, Operation, Step, StepObserver};
use runtree::{Coordinator, NewRun, RunStatus, SqliteRepository, Worktrees};
use runtree_testkit::git::GitFixture;
use serde_json::json;

use crate::stores::StopAfterWrite;
use crate::world::{all_runs, assert_git_is_content, directories_in, linked_worktrees, root};

/// After which step the child ends: `step <number in the life>` or `write <number>`.
const STOP: &str = "RUNTREE_TEST_STOP_AFTER";
const REPO: &str = "RUNTREE_TEST_REPO";
const DATABASE: &str = "RUNTREE_TEST_DATABASE";
const WORK: &str = "what must not be lost\n";

#[derive(Debug)]
struct StopAfterStep(Operation, Step);

impl StepObserver for StopAfterStep {
    fn reached(&self, operation: Operation, step: Step) -> Onward {
        if (operation, step) == (self.0, self.1) {
            std::process::abort();
        }
        Onward::Continue
    }
}

/// The steps of git and files in a run's life.
fn steps() -> Vec<(Operation, Step)> {
    let of = |operation: Operation| operation.steps().iter().map(move |step| (operation, *step));
    of(Operation::Add).chain(of(Operation::Remove)).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "tells the two roles of these tests apart"
)]
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The child: a whole life, until it is stopped.
async fn live(stop: &str) {
    let (repo, database) = (given(REPO).unwrap(), given(DATABASE).unwrap());
    let runs = SqliteRepository::open(Path::new(&database)).await.unwrap();
    let (kind, number) = stop.split_once(' ').unwrap();
    let number: usize = number.parse().unwrap();
    let builder = Coordinator::builder();
    let builder = if kind == "step" {
        let (operation, step) = steps()[number];
        let worktrees = Worktrees::builder(repo).observer(Arc::new(StopAfterStep(operation, step)));
        builder.runs(runs).worktrees(worktrees.open().unwrap())
    } else {
        let runs = StopAfterWrite::new(runs, u32::try_from(number).unwrap());
        builder.runs(runs).worktrees(Worktrees::open(repo).unwrap())
    };
    let coordinator = builder.build().await.unwrap();
    let run = coordinator.start(NewRun::new("builder")).await.unwrap();
    fs::write(run.worktree().path().join("work.txt"), WORK).unwrap();
    // Told outside of everything that could be lost.
    fs::write(format!("{database}.worked"), "").unwrap();
    run.complete(json!(null)).await.unwrap();
}

/// Lives a life in a child process that ends after this step, and then looks at what is left. Answers whether it was stopped.
async fn stop_and_recover(test: &str, stop: &str) -> bool {
    let fixture = GitFixture::new();
    let database = fixture.place().join("runs.db");
    let refs_before = fixture.git(["for-each-ref"]);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(STOP, stop)
        .env(REPO, fixture.path())
        .env(DATABASE, &database)
        .output()
        .unwrap()
        .status;
    assert!(
        status.success() || status.signal() == Some(6),
        "{stop}: {status}"
    );
    let worked = fixture.place().join("runs.db.worked").exists();

    let runs = SqliteRepository::open(&database).await.unwrap();
    let coordinator = crate::world::coordinator(fixture.path(), runs).await;
    let recovery = coordinator.recovery();
    assert!(recovery.left.is_empty(), "{stop}: {recovery:?}");
    let runs = all_runs(&coordinator).await;
    assert_eq!(runs.len(), 1, "{stop}");
    let run = &runs[0];
    // A run that nobody claimed waits; every other one has ended.
    assert_eq!(
        run.has_ended(),
        run.status != RunStatus::Pending,
        "{stop}: {run:?}"
    );
    let records = coordinator
        .runs()
        .worktrees(&WorktreeQuery::Run(run.id))
        .await
        .unwrap();
    for record in &records {
        assert_eq!(record.state, WorktreeState::Removed, "{stop}: {recovery:?}");
    }
    assert_eq!(linked_worktrees(fixture.path()), [] as [&Path; 0], "{stop}");
    assert_eq!(
        directories_in(&root(fixture.path())),
        [] as [&Path; 0],
        "{stop}"
    );
    assert_git_is_content(fixture.path());
    let refs = fixture.git(["for-each-ref"]);
    let added: Vec<_> = refs
        .lines()
        .filter(|line| !refs_before.contains(line))
        .collect();
    if worked {
        let [salvage] = added.as_slice() else {
            panic!("{stop}: {added:?}")
        };
        assert!(
            salvage.contains("refs/runtree/salvage/"),
            "{stop}: {added:?}"
        );
        let restored = coordinator.restore(run.id).await.unwrap();
        assert_eq!(
            fs::read_to_string(restored.path().join("work.txt")).unwrap(),
            WORK,
            "{stop}"
        );
    } else {
        assert_eq!(added, [] as [&str; 0], "{stop}");
    }
    // Recovered once, there is nothing left to recover.
    assert!(coordinator.recover().await.unwrap().is_empty(), "{stop}");
    status.signal().is_some()
}

#[tokio::test]
async fn a_run_stopped_after_any_step_of_git_is_finished_or_undone() {
    if let Some(stop) = given(STOP) {
        return live(&stop).await;
    }
    let test = "crash::a_run_stopped_after_any_step_of_git_is_finished_or_undone";
    for number in 0..steps().len() {
        let stop = format!("step {number}");
        let was_stopped = stop_and_recover(test, &stop).await;
        assert!(was_stopped, "the life never came to {:?}", steps()[number]);
    }
}

#[tokio::test]
async fn a_run_stopped_after_any_write_of_its_record_is_finished_or_undone() {
    if let Some(stop) = given(STOP) {
        return live(&stop).await;
    }
    let test = "crash::a_run_stopped_after_any_write_of_its_record_is_finished_or_undone";
    let mut writes = 0;
    // Until the life has no more writes to stop after.
    while stop_and_recover(test, &format!("write {}", writes + 1)).await {
        writes += 1;
    }
    assert_eq!(
        writes, 6,
        "create, claim, worktree ready, end, clean-up claimed, clean-up done"
    );
}
