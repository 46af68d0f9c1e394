//! Queue mode: submitted runs, and the workers that execute them.

use std::fs;
use std::num::NonZeroU32;
use std::time::Duration;

use runtree::status::EndReason;
use runtree::{CommandExecutor, Coordinator, Kill, NewRun, Run, RunId, RunStatus};

use crate::world::World;

/// A script of the shell, which reads the run's input from its standard input.
fn script(text: &str) -> CommandExecutor {
    CommandExecutor::new("sh")
        .arg("-c")
        .arg(text)
        .env("PATH", "/usr/bin:/bin")
}

async fn until(coordinator: &Coordinator, id: RunId, is_so: impl Fn(&Run) -> bool) -> Run {
    loop {
        let run = coordinator.get(id).await.unwrap().unwrap();
        if is_so(&run) {
            return run;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn submitted_runs_are_executed_each_with_its_input_in_its_own_worktree() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let executor = script("cat > input; printf %s $RUNTREE_RUN > id").logs(world.git.place());
    let mut ids = Vec::new();
    for number in 0..3 {
        let request = NewRun::new("builder").input(format!("task {number}"));
        ids.push(coordinator.submit(request).await.unwrap().id);
    }
    let worker = coordinator.worker(executor).concurrency(2).spawn();
    // Submitted while the worker is at work.
    ids.push(
        coordinator
            .submit(NewRun::new("builder").input("task 3"))
            .await
            .unwrap()
            .id,
    );
    for id in &ids {
        let run = until(&coordinator, *id, |run| run.has_ended()).await;
        assert_eq!(run.status, RunStatus::Completed, "{run:?}");
    }
    // Lets the last clean-up finish.
    let shutdown = worker.shutdown(Duration::from_secs(10)).await.unwrap();
    assert!(
        shutdown.released.is_empty() && shutdown.left.is_empty(),
        "{shutdown:?}"
    );
    for (number, id) in ids.iter().enumerate() {
        let restored = coordinator.restore(*id).await.unwrap();
        let read = |name: &str| fs::read_to_string(restored.path().join(name)).unwrap();
        let expected = (format!("task {number}"), id.to_string());
        assert_eq!((read("input"), read("id")), expected);
        assert!(world.git.place().join(format!("{id}.log")).exists());
    }
}

#[tokio::test]
async fn a_failed_attempt_is_followed_by_another_while_attempts_are_left() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let worker = coordinator.worker(script("exit 3")).spawn();
    let request = NewRun::new("builder").max_attempts(NonZeroU32::new(2).unwrap());
    let id = coordinator.submit(request).await.unwrap().id;
    let run = until(&coordinator, id, |run| run.has_ended()).await;
    assert_eq!(
        (run.status, run.end_reason),
        (RunStatus::Failed, Some(EndReason::Error))
    );
    assert_eq!(run.attempts, 2);
    assert_eq!(run.error.unwrap().as_str(), "exit code 3");
    worker.shutdown(Duration::from_secs(10)).await.unwrap();
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_the_run_and_says_so() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let worker = coordinator
        .worker(CommandExecutor::new("/no/such/program"))
        .spawn();
    let id = coordinator.submit(NewRun::new("builder")).await.unwrap().id;
    let run = until(&coordinator, id, |run| run.has_ended()).await;
    assert_eq!(run.status, RunStatus::Failed);
    assert!(
        run.error
            .as_ref()
            .unwrap()
            .as_str()
            .contains("/no/such/program"),
        "{:?}",
        run.error
    );
    worker.shutdown(Duration::from_secs(10)).await.unwrap();
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_worker_obeys_a_kill() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let worker = coordinator
        .worker(script("sleep 1000 & sleep 1000"))
        .spawn();
    let id = coordinator.submit(NewRun::new("endless")).await.unwrap().id;
    until(&coordinator, id, |run| run.status == RunStatus::Running).await;
    coordinator
        .kill(id, Kill::graceful("enough"))
        .await
        .unwrap();
    let run = until(&coordinator, id, |run| run.has_ended()).await;
    assert_eq!(
        (run.status, run.end_reason),
        (RunStatus::Killed, Some(EndReason::Killed))
    );
    worker.shutdown(Duration::from_secs(10)).await.unwrap();
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_shutdown_gives_back_what_does_not_finish_and_the_next_worker_goes_on() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    // The first attempt never ends; the second one finds what the first had begun.
    let executor = || script("if [ -e begun ]; then rm begun; exit 0; fi; touch begun; sleep 1000");
    let worker = coordinator.worker(executor()).spawn();
    let id = coordinator.submit(NewRun::new("builder")).await.unwrap().id;
    let begun = loop {
        let started = until(&coordinator, id, |run| run.status == RunStatus::Running).await;
        let name = started.worktree.as_ref().unwrap().name.clone();
        let path = coordinator
            .worktrees()
            .root()
            .join(name.as_str())
            .join("begun");
        if path.exists() {
            break path;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let shutdown = worker.shutdown(Duration::from_millis(100)).await.unwrap();
    assert_eq!(shutdown.released, [id]);
    let waiting = coordinator.get(id).await.unwrap().unwrap();
    assert_eq!((waiting.status, waiting.attempts), (RunStatus::Pending, 0));
    assert!(begun.exists());

    let next = coordinator.worker(executor()).concurrency(5).spawn();
    let run = until(&coordinator, id, |run| run.has_ended()).await;
    assert_eq!(run.status, RunStatus::Completed, "{run:?}");
    next.shutdown(Duration::from_secs(10)).await.unwrap();
    world.assert_nothing_is_left();
}
