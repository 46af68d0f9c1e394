//! A run from start to clean-up, in each of the ways it can go.

use std::fs;

use runtree::id::IdGenerator;
use runtree::process::Exit;
use runtree::repository::{
    CreateRun, CreateRuns, EventKind, EventNumber, Limit, RunRepository, WorktreeQuery,
    WorktreeState,
};
use runtree::status::EndReason;
use runtree::worktree::{Author, CommitRequest, Reason};
use runtree::{ErrorKind, Kill, Killed, NewRun, RunStatus, Supervised, WorktreeFate, Worktrees};
use runtree_diesel::{PostgresRepository, SqliteRepository};
use runtree_testkit::git::git;
use runtree_testkit::postgres::TestPostgres;
use serde_json::json;

use crate::world::{World, coordinator, linked_worktrees};

fn commit(message: &str) -> CommitRequest {
    CommitRequest::new(message, Author::new("A test", "test@localhost").unwrap()).unwrap()
}

#[tokio::test]
async fn completed_work_is_on_its_branch_and_the_worktree_is_gone() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let run = coordinator
        .start(NewRun::new("builder").input("fix the flaky test"))
        .await
        .unwrap();
    assert_eq!(linked_worktrees(world.git.path()), [run.worktree().path()]);
    fs::write(run.worktree().path().join("done.txt"), "done").unwrap();
    let made = run
        .commit(commit("Fix the flaky test"))
        .await
        .unwrap()
        .unwrap();
    let ended = run.complete(json!({"tests": "green"})).await.unwrap();

    assert_eq!(
        (ended.run.status, ended.run.end_reason),
        (RunStatus::Completed, Some(EndReason::Succeeded))
    );
    assert_eq!(ended.run.result, Some(json!({"tests": "green"})));
    assert_eq!(world.branch(&ended.run).as_deref(), Some(made.as_str()));
    assert_eq!(
        git(world.git.path(), ["show", &format!("{made}:done.txt")]),
        "done"
    );
    let fates: Vec<_> = ended
        .cleaned_up
        .iter()
        .map(|cleaned| &cleaned.fate)
        .collect();
    assert!(
        matches!(fates.as_slice(), [WorktreeFate::Removed(removal)] if removal.salvage.is_none()),
        "{fates:?}"
    );
    // The clean-up came after the ending, and is all that has changed since.
    let mut stored = coordinator.get(ended.run.id).await.unwrap().unwrap();
    stored.summary.updated_at = ended.run.updated_at;
    assert_eq!(stored, ended.run);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn what_a_failed_run_left_uncommitted_comes_back_byte_for_byte() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let run = coordinator.start(NewRun::new("builder")).await.unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    fs::write(run.worktree().path().join("half done.bin"), &bytes).unwrap();
    let path = run.worktree().path().to_owned();
    let ended = run.fail("it did not work").await.unwrap();
    assert_eq!(
        (ended.run.status, ended.run.end_reason),
        (RunStatus::Failed, Some(EndReason::Error))
    );
    assert_eq!(
        ended.run.error.as_ref().unwrap().as_str(),
        "it did not work"
    );
    assert!(!path.exists());
    world.assert_nothing_is_left();

    let saved = coordinator.saved_work().await.unwrap();
    assert_eq!(
        saved.iter().map(|saved| saved.run).collect::<Vec<_>>(),
        [ended.run.id]
    );
    let restored = coordinator.restore(ended.run.id).await.unwrap();
    assert_eq!(
        fs::read(restored.path().join("half done.bin")).unwrap(),
        bytes
    );
    let again = coordinator.restore(ended.run.id).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InTheWay, "{again}");
}

#[tokio::test]
async fn a_persistent_worktree_stays_and_belongs_to_people_afterwards() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let run = coordinator
        .start(NewRun::new("notes").persistent())
        .await
        .unwrap();
    let path = run.worktree().path().to_owned();
    let ended = run.complete(json!(null)).await.unwrap();
    let fates: Vec<_> = ended
        .cleaned_up
        .iter()
        .map(|cleaned| &cleaned.fate)
        .collect();
    assert!(
        matches!(fates.as_slice(), [WorktreeFate::Persistent]),
        "{fates:?}"
    );
    assert_eq!(linked_worktrees(world.git.path()), [path.as_path()]);
    // Not locked any more: git's own command removes it.
    git(
        world.git.path(),
        ["worktree", "remove", path.to_str().unwrap()],
    );
    assert!(!path.exists());
}

#[tokio::test]
async fn a_kept_worktree_that_somebody_locked_by_request_stays_locked() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let run = coordinator
        .start(NewRun::new("notes").persistent())
        .await
        .unwrap();
    let worktree = run.worktree().clone();
    run.complete(json!(null)).await.unwrap();
    let worktrees = Worktrees::open(world.git.path()).unwrap();
    let why = Reason::new("under review").unwrap();
    worktrees
        .lock(worktree.name(), worktree.ownership(), &why)
        .unwrap();
    assert!(coordinator.recover().await.unwrap().left.is_empty());
    let list = worktrees.list().unwrap();
    let locked = list[1].locked().unwrap();
    assert!(locked.ends_with("under review"), "{locked}");
}

#[tokio::test]
async fn a_kill_ends_the_whole_process_group_and_then_the_run() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let run = coordinator.start(NewRun::new("endless")).await.unwrap();
    let command = run
        .command("sh")
        .args(["-c", "sleep 1000 & sleep 1000"])
        .env("PATH", "/usr/bin:/bin");
    let mut child = run.spawn(command).await.unwrap();
    let group = child.identity().clone();
    let killed = coordinator
        .kill(run.id(), Kill::graceful("enough").by("a test"))
        .await
        .unwrap();
    assert!(matches!(killed, Killed::Requested(_)), "{killed:?}");
    assert_eq!(
        run.supervise(&mut child).await.unwrap(),
        Supervised::Stopped
    );
    let members = runtree::process::group_members(&group).await.unwrap();
    assert_eq!(members, runtree::process::Members::Gone);
    let ended = run.killed().await.unwrap();
    assert_eq!(
        (ended.run.status, ended.run.end_reason),
        (RunStatus::Killed, Some(EndReason::Killed))
    );
    let intent = ended.run.cancel.clone().unwrap();
    assert_eq!(intent.reason.unwrap().as_str(), "enough");
    assert_eq!(intent.by.unwrap().as_str(), "a test");
    let again = coordinator
        .kill(ended.run.id, Kill::forced("again"))
        .await
        .unwrap();
    assert!(matches!(again, Killed::AlreadyEnded(_)), "{again:?}");
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn the_same_request_finds_its_run_and_another_one_under_its_key_is_a_conflict() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let request = || {
        NewRun::new("builder")
            .input("x")
            .idempotency_key("order-17")
    };
    let run = coordinator.start(request()).await.unwrap();
    let again = coordinator.start(request()).await.unwrap_err();
    assert_eq!(
        (again.kind(), again.run()),
        (ErrorKind::AlreadyStarted, Some(run.id())),
        "{again}"
    );
    let other = coordinator.start(request().input("y")).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict, "{other}");
    assert_eq!(linked_worktrees(world.git.path()).len(), 1);
    let ended = run.complete(json!(1)).await.unwrap();
    let late = coordinator.start(request()).await.unwrap_err();
    assert_eq!(
        (late.kind(), late.run()),
        (ErrorKind::AlreadyStarted, Some(ended.run.id)),
        "{late}"
    );
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_goes_on_with_the_run_it_made() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let request = || NewRun::new("builder").idempotency_key("order-17");
    // A run that waits: its starter died after the first step.
    let first = coordinator.start(request()).await.unwrap();
    let mut lost: CreateRun = CreateRun {
        id: IdGenerator::system().run_id().unwrap(),
        run: NewRun::new("builder").idempotency_key("order-18"),
        worktree: first.run().worktree.clone(),
    };
    let wanted = lost.worktree.as_mut().unwrap();
    wanted.name = format!("lost-{}", lost.id).parse().unwrap();
    wanted.branch = "lost/branch".parse().unwrap();
    let made = world.runs.create(&lost).await.unwrap().into_run().unwrap();

    let run = coordinator
        .start(NewRun::new("builder").idempotency_key("order-18"))
        .await
        .unwrap();
    assert_eq!(run.id(), made.id);
    assert_eq!(run.worktree().branch().unwrap().as_str(), "lost/branch");
    run.complete(json!(null)).await.unwrap();
    first.complete(json!(null)).await.unwrap();
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn what_prevents_a_start_is_told_and_recorded_and_leaves_nothing() {
    let world = World::new();
    world.git.git(["branch", "taken"]);
    let before = world.git.git(["for-each-ref"]);
    let coordinator = world.coordinator().await;
    let error = coordinator
        .start(NewRun::new("builder").branch("taken"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InTheWay, "{error}");
    assert!(error.to_string().contains("taken"), "{error}");
    let run = coordinator
        .get(error.run().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(run.status, RunStatus::Failed);
    assert!(
        run.error.as_ref().unwrap().as_str().contains("taken"),
        "{:?}",
        run.error
    );
    assert_eq!(world.git.git(["for-each-ref"]), before);
    world.assert_nothing_is_left();

    for bad in [
        NewRun::new(""),
        NewRun::new("builder").branch("a..b"),
        NewRun::new("builder").base("no-such-revision"),
    ] {
        let error = coordinator.start(bad).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.run()),
            (ErrorKind::InvalidInput, None),
            "{error}"
        );
    }
    assert_eq!(crate::world::all_runs(&coordinator).await.len(), 1);
}

#[tokio::test]
async fn many_runs_at_once_have_each_their_own_place() {
    let world = World::new();
    let one = world.coordinator().await;
    let other = world.coordinator().await;
    let starts = (0..12).map(|number| {
        let coordinator = if number % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        tokio::spawn(async move { coordinator.start(NewRun::new("same name")).await.unwrap() })
    });
    let mut runs = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        runs.push(start.await.unwrap());
    }
    let mut paths: Vec<_> = runs
        .iter()
        .map(|run| run.worktree().path().to_owned())
        .collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 12);
    let mut listed = linked_worktrees(world.git.path());
    listed.sort();
    assert_eq!(listed, paths);
    for run in runs {
        run.complete(json!(null)).await.unwrap();
    }
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn the_history_tells_the_life_in_order() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let run = coordinator.start(NewRun::new("builder")).await.unwrap();
    let id = run.id();
    run.complete(json!(null)).await.unwrap();
    let events = coordinator
        .events(id, EventNumber::START, Limit::MAX)
        .await
        .unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Created,
            EventKind::Claimed,
            EventKind::WorktreeReady,
            EventKind::Completed,
            EventKind::CleanupWanted,
            EventKind::WorktreeRemoved,
        ]
    );
    let worktrees = coordinator
        .runs()
        .worktrees(&WorktreeQuery::Run(id))
        .await
        .unwrap();
    let states: Vec<_> = worktrees.iter().map(|worktree| worktree.state).collect();
    assert_eq!(states, [WorktreeState::Removed]);
}

/// One life on each durable store: the coordinator needs nothing of a backend but the contract.
async fn lives_on(world: &World, runs: impl RunRepository) {
    let coordinator = coordinator(world.git.path(), runs).await;
    let run = coordinator
        .start(NewRun::new("builder").input("x"))
        .await
        .unwrap();
    let command = run
        .command("sh")
        .args(["-c", "echo work > work.txt"])
        .env("PATH", "/usr/bin:/bin");
    let mut child = run.spawn(command).await.unwrap();
    let supervised = run.supervise(&mut child).await.unwrap();
    assert_eq!(supervised, Supervised::Exited(Exit::Code(0)));
    let ended = run.complete(json!({"tests": "green"})).await.unwrap();
    let run = coordinator.get(ended.run.id).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Completed);
    assert_eq!(run.result, Some(json!({"tests": "green"})));
    assert_eq!(coordinator.saved_work().await.unwrap().len(), 1);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_life_on_sqlite() {
    let world = World::new();
    let runs = SqliteRepository::open(world.git.place().join("runs.db")).await;
    lives_on(&world, runs.unwrap()).await;
}

#[tokio::test]
async fn a_life_on_postgresql() {
    let database = TestPostgres::get().fresh_database();
    let runs = PostgresRepository::connect(&database).await;
    lives_on(&World::new(), runs.unwrap()).await;
}

/// Everything also works on a runtime with a single thread that also runs the timers, which `tokio::test` is; and on many.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_life_on_many_threads() {
    let world = World::new();
    lives_on(&world, world.runs.clone()).await;
}
