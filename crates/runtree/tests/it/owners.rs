//! Owners that fall silent, die, or are told from elsewhere.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use runtree::process::{Members, ProcessGroupIdentity};
use runtree::repository::{HostName, Owner, ProcessMark, RescueRuns};
use runtree::status::EndReason;
use runtree::{ErrorKind, Kill, NewRun, RunStatus, SqliteRepository, Supervised, Timestamp};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::world::{
    World, all_runs, assert_git_is_content, coordinator, linked_worktrees, this_host,
};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_kill_from_another_coordinator_is_heard_with_a_renewal() {
    let world = World::new();
    let owner = world.coordinator_with_lease(SHORT).await;
    let other = world.coordinator().await;
    let run = owner.start(NewRun::new("endless")).await.unwrap();
    let command = run
        .command("sleep")
        .arg("1000")
        .env("PATH", "/usr/bin:/bin");
    let mut child = run.spawn(command).await.unwrap();
    other
        .kill(run.id(), Kill::forced("from elsewhere"))
        .await
        .unwrap();
    assert_eq!(
        run.supervise(&mut child).await.unwrap(),
        Supervised::Stopped
    );
    let ended = run.killed().await.unwrap();
    assert_eq!(ended.run.status, RunStatus::Killed);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_lease_is_renewed_however_long_the_work_takes() {
    let world = World::new();
    let owner = world.coordinator_with_lease(SHORT).await;
    let other = world.coordinator().await;
    let run = owner.start(NewRun::new("slow")).await.unwrap();
    let lease = |leases: Vec<runtree::repository::Lease>| leases.into_iter().next().unwrap();
    let first = lease(world.runs.leases(Some(&this_host())).await.unwrap()).expires_at;
    // Until the lease that the claim gave out is long over.
    while lease(world.runs.leases(None).await.unwrap()).expires_at < first.saturating_add(SHORT * 3)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(other.recover().await.unwrap().rescued.is_empty());
    }
    assert_eq!(
        run.complete(json!(null)).await.unwrap().run.status,
        RunStatus::Completed
    );
}

#[tokio::test]
async fn an_owner_that_lost_its_run_learns_it_and_can_no_longer_write() {
    let world = World::new();
    let owner = world.coordinator_with_lease(SHORT).await;
    let run = owner.start(NewRun::new("builder")).await.unwrap();
    fs::write(run.worktree().path().join("mine.txt"), "mine").unwrap();
    let request = runtree::repository::CancelRequest::new(runtree::repository::CancelMode::Forced);
    let fenced = owner.runs().force_kill(run.id(), &request).await.unwrap();
    assert!(fenced.accepted().is_some());
    run.lost().await;
    let late = run.complete(json!(null)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Lost, "{late}");
    // Whoever recovers cleans up, and what the old owner had written is saved.
    let recovery = owner.recover().await.unwrap();
    assert_eq!(recovery.cleaned_up.len(), 1, "{recovery:?}");
    let saved = owner.saved_work().await.unwrap();
    assert!(saved.iter().any(|saved| {
        saved
            .salvage
            .files
            .iter()
            .any(|file| file.path.to_string() == "mine.txt")
    }));
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn an_owner_of_another_host_is_not_taken_for_dead() {
    use runtree::id::IdGenerator;
    use runtree::repository::{Claim, ClaimOf, CreateRun, CreateRuns, LeaseTime, Limit, OwnRuns};

    let world = World::new();
    let ids = IdGenerator::system();
    let id = ids.run_id().unwrap();
    let create = CreateRun {
        id,
        run: NewRun::new("far away"),
        worktree: None,
    };
    world
        .runs
        .create(&create)
        .await
        .unwrap()
        .into_run()
        .unwrap();
    let far = HostName::new("far-away").unwrap();
    let owner = Owner {
        id: ids.owner_id().unwrap(),
        host: far,
        process: ProcessMark::new("p1:far-away:-:-:-:1:1").unwrap(),
    };
    let claim = Claim {
        owner,
        lease_time: LeaseTime::default(),
        limit: Limit::ONE,
        of: ClaimOf::Run(id),
        site: None,
    };
    assert_eq!(world.runs.claim(&claim).await.unwrap().len(), 1);
    let coordinator = world.coordinator().await;
    assert!(
        coordinator.recovery().is_empty(),
        "{:?}",
        coordinator.recovery()
    );
    assert_eq!(
        coordinator.get(id).await.unwrap().unwrap().status,
        RunStatus::Running
    );
}

const ROLE: &str = "RUNTREE_TEST_OWNER_OF";

/// The parent kills an owner that has a child of its own; both roles are this test.
#[tokio::test]
async fn the_run_of_a_killed_process_is_taken_up_at_once_and_its_work_is_saved() {
    #[expect(
        clippy::disallowed_methods,
        reason = "tells the two roles of this test apart"
    )]
    if let Some(place) = std::env::var_os(ROLE) {
        own_until_killed(Path::new(&place)).await;
    }
    let world = World::new();
    let mut owner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "owners::the_run_of_a_killed_process_is_taken_up_at_once_and_its_work_is_saved",
            "--nocapture",
        ])
        .env(ROLE, world.git.place())
        .env("RUNTREE_TEST_REPO", world.git.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let group: ProcessGroupIdentity = loop {
        let line = lines
            .next_line()
            .await
            .unwrap()
            .expect("the owner says when it has started its child");
        if let Some((_, group)) = line.split_once("child ") {
            break group.parse().unwrap();
        }
    };
    owner.start_kill().unwrap();
    assert_eq!(owner.wait().await.unwrap().signal(), Some(9));

    let runs = SqliteRepository::open(&world.git.place().join("runs.db"))
        .await
        .unwrap();
    let coordinator = coordinator(world.git.path(), runs).await;
    let recovery = coordinator.recovery();
    assert_eq!(
        (recovery.rescued.len(), recovery.cleaned_up.len()),
        (1, 1),
        "{recovery:?}"
    );
    assert_eq!(
        runtree::process::group_members(&group).await.unwrap(),
        Members::Gone
    );
    let runs = all_runs(&coordinator).await;
    let ends: Vec<_> = runs
        .iter()
        .map(|run| (run.status, run.end_reason))
        .collect();
    assert_eq!(ends, [(RunStatus::Failed, Some(EndReason::Lost))]);
    let restored = coordinator.restore(runs[0].id).await.unwrap();
    assert_eq!(
        fs::read_to_string(restored.path().join("work.txt")).unwrap(),
        "hours of it"
    );
    assert_eq!(linked_worktrees(world.git.path()).len(), 1);
    assert_git_is_content(world.git.path());
}

async fn own_until_killed(place: &Path) {
    #[expect(clippy::disallowed_methods, reason = "the other half of the role")]
    let repo = std::env::var_os("RUNTREE_TEST_REPO").unwrap();
    let runs = SqliteRepository::open(&place.join("runs.db"))
        .await
        .unwrap();
    let coordinator = coordinator(Path::new(&repo), runs).await;
    let run = coordinator.start(NewRun::new("builder")).await.unwrap();
    fs::write(run.worktree().path().join("work.txt"), "hours of it").unwrap();
    let command = run
        .command("sleep")
        .arg("1000")
        .env("PATH", "/usr/bin:/bin");
    let mut child = run.spawn(command).await.unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "child {}", child.identity()).unwrap();
    out.flush().unwrap();
    child.wait().await.unwrap();
    unreachable!("the parent kills this process long before");
}

/// A run with a second attempt, whose first owner stopped caring just after this step.
async fn abandoned(world: &World, request: NewRun) -> (runtree::RunId, std::path::PathBuf) {
    let careless = world.coordinator_with_lease(SHORT).await;
    let run = careless.start(request).await.unwrap();
    let (id, path) = (run.id(), run.worktree().path().to_owned());
    drop(run);
    (id, path)
}

/// Recovers until this run is no longer running, which is when its lease has expired.
async fn recover_until_taken_up(coordinator: &runtree::Coordinator, id: runtree::RunId) {
    while coordinator.get(id).await.unwrap().unwrap().status == RunStatus::Running {
        coordinator.recover().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn twice() -> NewRun {
    NewRun::new("builder")
        .idempotency_key("order-17")
        .max_attempts(std::num::NonZeroU32::new(2).unwrap())
}

#[tokio::test]
async fn the_next_attempt_goes_on_in_the_worktree_of_the_last_one() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let (id, path) = abandoned(&world, twice()).await;
    fs::write(path.join("begun.txt"), "begun").unwrap();
    recover_until_taken_up(&coordinator, id).await;
    let run = coordinator.start(twice()).await.unwrap();
    assert_eq!((run.id(), run.run().attempts), (id, 2));
    assert_eq!(run.worktree().path(), path);
    assert_eq!(fs::read_to_string(path.join("begun.txt")).unwrap(), "begun");
    run.complete(json!(null)).await.unwrap();
    world.assert_nothing_is_left();
}

/// Passes everything on but the news that a worktree is ready, which its owner is too dead to tell.
#[tokio::test]
async fn a_worktree_that_was_finished_but_not_told_of_is_gone_on_with() {
    use runtree::repository::{Claim, ClaimOf, CreateRun, CreateRuns, LeaseTime, Limit, OwnRuns};
    use runtree::worktree::{AddWorktree, Checkout, Ownership};

    let world = World::new();
    let coordinator = world.coordinator().await;
    // A record and a plan of an owner whose lease is very short, and the worktree that it made; it never said so.
    let model = coordinator.start(NewRun::new("builder")).await.unwrap();
    let mut wanted = model.run().worktree.clone().unwrap();
    let ids = runtree::id::IdGenerator::system();
    let id = ids.run_id().unwrap();
    wanted.name = format!("untold-{id}").parse().unwrap();
    wanted.branch = "untold".parse().unwrap();
    let create = CreateRun {
        id,
        run: twice(),
        worktree: Some(wanted.clone()),
    };
    world
        .runs
        .create(&create)
        .await
        .unwrap()
        .into_run()
        .unwrap();
    let lease = world.runs.leases(None).await.unwrap().pop().unwrap();
    let query = runtree::repository::WorktreeQuery::Run(model.id());
    let site = coordinator
        .runs()
        .worktrees(&query)
        .await
        .unwrap()
        .pop()
        .unwrap()
        .site;
    let lease_time = LeaseTime::new(Duration::from_millis(100)).unwrap();
    let claim = Claim {
        owner: lease.owner,
        lease_time,
        limit: Limit::ONE,
        of: ClaimOf::Run(id),
        site: Some(site),
    };
    let claimed = world.runs.claim(&claim).await.unwrap().pop().unwrap();
    let ownership = Ownership::new(format!("{id}/{}", claimed.lease.token)).unwrap();
    let request = AddWorktree::new(
        wanted.name,
        Checkout::NewBranch(wanted.branch),
        wanted.base,
        ownership,
    );
    let made = coordinator.worktrees().add(&request).unwrap();

    recover_until_taken_up(&coordinator, id).await;
    let run = coordinator.start(twice()).await.unwrap();
    assert_eq!((run.id(), run.worktree().path()), (id, made.path()));
    run.complete(json!(null)).await.unwrap();
    model.complete(json!(null)).await.unwrap();
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_persistent_worktree_of_an_owner_that_fell_silent_belongs_to_people_too() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let (id, path) = abandoned(&world, NewRun::new("notes").persistent()).await;
    recover_until_taken_up(&coordinator, id).await;
    coordinator.recover().await.unwrap();
    // Not locked any more: git's own command removes it.
    runtree_testkit::git::git(
        world.git.path(),
        ["worktree", "remove", path.to_str().unwrap()],
    );
    assert!(coordinator.recover().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_kill_of_a_run_that_waits_for_another_attempt_ends_it_and_cleans_up() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let (id, path) = abandoned(&world, twice()).await;
    recover_until_taken_up(&coordinator, id).await;
    assert!(path.exists());
    let killed = coordinator
        .kill(id, Kill::graceful("enough"))
        .await
        .unwrap();
    assert!(
        matches!(killed, runtree::Killed::WhileWaiting(_)),
        "{killed:?}"
    );
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_run_whose_processes_cannot_be_told_is_not_taken_up() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let careless = world.coordinator_with_lease(SHORT).await;
    let run = careless.start(twice()).await.unwrap();
    let unreadable = ProcessMark::new("written by a newer version").unwrap();
    let recorded = careless
        .runs()
        .record_child(run.lease(), &unreadable)
        .await
        .unwrap();
    assert!(recorded.accepted().is_some());
    let id = run.id();
    drop(run);
    let mut left = Vec::new();
    while left.is_empty() {
        left = coordinator.recover().await.unwrap().left;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(left[0].contains(&id.to_string()), "{left:?}");
    assert_eq!(
        coordinator.get(id).await.unwrap().unwrap().status,
        RunStatus::Running
    );
}

#[tokio::test]
async fn one_worktree_that_must_stay_keeps_nobody_from_work() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let run = coordinator.start(NewRun::new("builder")).await.unwrap();
    let path = run.worktree().path().to_str().unwrap().to_owned();
    let git =
        |arguments: &[&str]| runtree_testkit::git::git(world.git.path(), arguments.iter().copied());
    git(&["worktree", "unlock", &path]);
    git(&["worktree", "lock", "--reason", &"mine! ".repeat(500), &path]);
    let ended = run.complete(json!(null)).await.unwrap();
    assert!(
        matches!(ended.cleaned_up[0].fate, runtree::WorktreeFate::Kept(_)),
        "{:?}",
        ended.cleaned_up
    );
    let another = world.coordinator().await;
    assert!(
        another.recovery().left.is_empty(),
        "{:?}",
        another.recovery()
    );
    assert!(Path::new(&path).exists());
}

#[tokio::test]
async fn a_run_whose_deadline_passes_is_stopped_and_says_that_it_timed_out() {
    let world = World::new();
    let owner = world.coordinator_with_lease(SHORT).await;
    let other = world.coordinator().await;
    let deadline = Timestamp::UNIX_EPOCH;
    let run = owner
        .start(NewRun::new("late").deadline(deadline))
        .await
        .unwrap();
    let command = run
        .command("sleep")
        .arg("1000")
        .env("PATH", "/usr/bin:/bin");
    let mut child = run.spawn(command).await.unwrap();
    let recovery = other.recover().await.unwrap();
    assert_eq!(recovery.overdue.len(), 1);
    assert_eq!(recovery.overdue[0].id, run.id());
    assert_eq!(
        run.supervise(&mut child).await.unwrap(),
        Supervised::Stopped
    );
    let ended = run.killed().await.unwrap();
    assert_eq!(ended.run.status, RunStatus::Failed);
    assert_eq!(ended.run.end_reason, Some(EndReason::TimedOut));
    world.assert_nothing_is_left();
}
