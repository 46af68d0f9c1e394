//! Children: waiting, stopping and what is left when their handle goes.

use std::time::Duration;

use runtree_process::{Command, Exit, Input, Liveness, Members, Stop, Stopped, group_members};

use crate::{PATIENCE, sh, started, until};

const SIGKILL: Exit = Exit::Signal(9);
const SIGTERM: Exit = Exit::Signal(15);

/// A grace that no test sees the end of.
fn long() -> Stop {
    Stop::graceful(PATIENCE)
}

/// A grace that is meant to run out.
fn short() -> Stop {
    Stop::graceful(Duration::from_millis(50))
}

/// A script that ends with code 7 when it is asked to, and starts no other process meanwhile: a shell
/// that is asked between a fork and an exec loses the request.
fn obedient(first: &str) -> Command {
    sh(&format!(
        "trap 'exit 7' TERM; echo ready; {first} read -r line"
    ))
    .stdin(Input::Pipe)
}

async fn is_gone(child: &runtree_process::Child) -> bool {
    group_members(child.identity())
        .await
        .expect("it can be looked at")
        == Members::Gone
}

#[tokio::test]
async fn a_group_that_obeys_exits_in_grace_in_its_own_way() {
    let mut child = started(obedient("")).await;
    assert_eq!(
        child.stop(long()).await.expect("it stops"),
        Stopped::ExitedInGrace
    );
    assert_eq!(child.wait().await.expect("it ended"), Exit::Code(7));
    assert!(is_gone(&child).await);
    assert_eq!(
        child.stop(Stop::default()).await.expect("again"),
        Stopped::AlreadyGone
    );
}

#[tokio::test]
async fn a_group_that_ignores_the_request_is_killed_after_the_grace() {
    let mut child = started(sh("trap '' TERM; echo ready; while :; do sleep 300; done")).await;
    assert_eq!(
        child.stop(short()).await.expect("it stops"),
        Stopped::Killed
    );
    assert_eq!(child.wait().await.expect("it ended"), SIGKILL);
    assert!(is_gone(&child).await);
}

#[tokio::test]
async fn a_forced_stop_does_not_ask() {
    let mut child = started(obedient("")).await;
    assert_eq!(
        child.stop(Stop::forced()).await.expect("it stops"),
        Stopped::Killed
    );
    assert_eq!(child.wait().await.expect("it ended"), SIGKILL);
}

#[tokio::test]
async fn grandchildren_that_outlive_their_leader_are_seen_and_ended() {
    let script = "(trap '' TERM; echo ready; exec sleep 300) & exit 0";
    let mut child = started(sh(script)).await;
    assert_eq!(child.wait().await.expect("the leader ends"), Exit::Code(0));
    let members = group_members(child.identity())
        .await
        .expect("it can be looked at");
    let Members::Ours(living) = members else {
        panic!("{members:?}")
    };
    assert_eq!(living.len(), 1);
    assert_ne!(&living[0], child.identity().leader());
    assert_eq!(living[0].probe(), Liveness::Alive);
    assert_eq!(
        child.stop(short()).await.expect("it stops"),
        Stopped::Killed
    );
    assert_eq!(living[0].probe(), Liveness::Dead);
    assert_eq!(
        child.wait().await.expect("the leader's own end stays"),
        Exit::Code(0)
    );
}

#[tokio::test]
async fn a_stopped_process_is_woken_to_hear_the_request() {
    let mut child = started(obedient("kill -STOP $$;")).await;
    let stat = format!("/proc/{}/stat", child.identity().leader().pid());
    until("the leader stopped itself", || async {
        std::fs::read_to_string(&stat).is_ok_and(|line| line.contains(") T "))
    })
    .await;
    assert_eq!(
        child.stop(long()).await.expect("it stops"),
        Stopped::ExitedInGrace
    );
    assert_eq!(child.wait().await.expect("it ended"), Exit::Code(7));
}

#[tokio::test]
async fn an_end_by_a_signal_is_told_as_such() {
    let mut child = sh("kill -9 $$").spawn().await.expect("it starts");
    assert_eq!(child.wait().await.expect("it ends"), SIGKILL);
    assert_eq!(child.wait().await.expect("told again"), SIGKILL);
    assert_eq!(SIGKILL.to_string(), "signal 9");
    assert!(!SIGKILL.is_success());
}

#[tokio::test]
async fn nothing_is_signalled_where_everything_ended_by_itself() {
    let mut child = sh("exit 0").spawn().await.expect("it starts");
    assert!(child.wait().await.expect("it ends").is_success());
    assert_eq!(
        child.stop(Stop::default()).await.expect("nothing to do"),
        Stopped::AlreadyGone
    );
}

#[tokio::test]
async fn a_wait_that_was_dropped_takes_nothing_away() {
    let mut child = started(sh("echo ready; exec sleep 300")).await;
    tokio::time::timeout(Duration::from_millis(1), child.wait())
        .await
        .expect_err("it still runs");
    assert_eq!(
        child.stop(long()).await.expect("it stops"),
        Stopped::ExitedInGrace
    );
    assert_eq!(child.wait().await.expect("it ended"), SIGTERM);
}

#[tokio::test]
async fn a_stop_that_was_dropped_can_be_called_again() {
    let mut child = started(sh("trap '' TERM; echo ready; while :; do sleep 300; done")).await;
    let cut_short = tokio::time::timeout(Duration::from_millis(20), child.stop(long()));
    cut_short.await.expect_err("the grace is longer");
    assert_eq!(child.identity().leader().probe(), Liveness::Alive);
    assert_eq!(
        child.stop(short()).await.expect("it stops"),
        Stopped::Killed
    );
}

#[tokio::test]
async fn a_dropped_handle_takes_the_whole_group_with_it() {
    let child = started(sh("trap '' TERM; sleep 300 & echo ready; wait; sleep 300")).await;
    let group = child.identity().clone();
    let Members::Ours(living) = group_members(&group).await.expect("it can be looked at") else {
        panic!("it lives");
    };
    assert_eq!(living.len(), 2);
    drop(child);
    until("the group is gone", || async {
        group_members(&group).await.expect("it can be looked at") == Members::Gone
    })
    .await;
    assert!(living.iter().all(|member| member.probe() == Liveness::Dead));
}

#[tokio::test]
async fn a_zombie_in_the_group_does_not_count() {
    // The second sleep never waits for the first, which is its child and stays as a zombie.
    let mut child = started(sh("sleep 0 & echo ready; exec sleep 300")).await;
    until("only the leader lives", || async {
        let members = group_members(child.identity())
            .await
            .expect("it can be looked at");
        matches!(members, Members::Ours(living) if living == [child.identity().leader().clone()])
    })
    .await;
    assert_eq!(
        child.stop(long()).await.expect("it stops"),
        Stopped::ExitedInGrace
    );
}

#[tokio::test]
async fn a_group_that_keeps_forking_does_not_run_away() {
    let script = "trap '' TERM; echo ready; while :; do (:) & done";
    let mut child = started(sh(script)).await;
    assert_eq!(
        child.stop(short()).await.expect("it stops"),
        Stopped::Killed
    );
    assert!(is_gone(&child).await);
}

#[tokio::test]
async fn what_was_not_seen_to_end_is_listed() {
    let mut child = started(sh("echo ready; exec sleep 300")).await;
    let leader = child.identity().leader().pid();
    let impatient = Stop::forced().give_up_after(Duration::ZERO);
    let stopped = child.stop(impatient).await.expect("it is told");
    assert_eq!(stopped, Stopped::StillThere(vec![leader]));
    assert!(!stopped.is_gone());
    assert!(
        child
            .stop(Stop::forced())
            .await
            .expect("it stops")
            .is_gone()
    );
}
