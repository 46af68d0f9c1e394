//! Recovery: groups whose parent is dead, known from their record alone.

use std::io::{BufRead as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use runtree_process::{
    Child, Command, ErrorKind, Liveness, Mark, Members, Pid, ProcessGroupIdentity, ProcessIdentity,
    Stop, Stopped, find_groups, group_members, stop_group,
};

use crate::{PATIENCE, sh, started, until};

fn long() -> Stop {
    Stop::graceful(PATIENCE)
}

/// A mark that no other test of this or another run has.
fn mark(test: &str) -> Mark {
    format!("{test}.{}", std::process::id())
        .parse()
        .expect("a mark")
}

/// Signals one process behind the crate's back.
fn kill(signal: &str, pid: Pid) {
    let status = std::process::Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// Ends the leader alone and waits until its number is free.
async fn lose_leader(child: Child) -> ProcessGroupIdentity {
    let group = child.detach();
    let leader = group.leader().pid();
    kill("-KILL", leader);
    until("the leader was waited for", || async {
        ProcessIdentity::of(leader).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    })
    .await;
    group
}

async fn living(group: &ProcessGroupIdentity) -> Vec<ProcessIdentity> {
    match group_members(group).await.expect("it can be looked at") {
        Members::Gone => Vec::new(),
        Members::Ours(living) | Members::Unproven(living) => living,
        other => panic!("{other:?}"),
    }
}

fn altered(
    group: &ProcessGroupIdentity,
    at: usize,
    change: impl FnOnce(&str) -> String,
) -> ProcessGroupIdentity {
    let text = group.to_string();
    let mut parts: Vec<String> = text.split(':').map(str::to_owned).collect();
    parts[at] = change(&parts[at]);
    parts.join(":").parse().expect("still an identity")
}

/// Not a test of its own: the owner that the next test kills. It does nothing unless it is told to.
#[test]
#[ignore = "run by a_group_outlives_its_killed_owner_until_recovery_ends_it"]
fn an_owner_that_waits_to_be_killed() {
    let mut input = std::io::stdin().lines().map_while(Result::ok);
    if input.next().as_deref() != Some("start") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be built").block_on(async {
        let child = started(sh("sleep 300 & echo ready; exec sleep 300")).await;
        println!(
            "\nowner={}\ngroup={}",
            ProcessIdentity::current(),
            child.identity()
        );
        std::io::stdout().flush().expect("the test listens");
        assert_eq!(input.next(), None, "the test never says more");
    });
}

#[tokio::test]
async fn a_group_outlives_its_killed_owner_until_recovery_ends_it() {
    let mut owner =
        std::process::Command::new(std::env::current_exe().expect("a test knows its program"))
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("recovery::an_owner_that_waits_to_be_killed")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test program runs");
    writeln!(owner.stdin.as_mut().expect("piped"), "start").expect("the owner listens");
    let mut said = std::io::BufReader::new(owner.stdout.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    let mut value = |name: &str| {
        said.find_map(|line| line.strip_prefix(name).map(str::to_owned))
            .expect(name)
    };
    let identity: ProcessIdentity = value("owner=").parse().expect("canonical");
    let group: ProcessGroupIdentity = value("group=").parse().expect("canonical");
    assert_eq!(identity.probe(), Liveness::Alive);

    owner.kill().expect("a child can be killed");
    // Dead already, before anybody waited for it.
    until("the owner's death is seen", || async {
        identity.probe() == Liveness::Dead
    })
    .await;
    owner.wait().expect("it can be waited for");
    assert_eq!(identity.probe(), Liveness::Dead);

    let orphans = living(&group).await;
    assert_eq!(orphans.len(), 2, "the group does not end with its owner");
    assert_eq!(
        stop_group(&group, long()).await.expect("it stops"),
        Stopped::ExitedInGrace
    );
    assert!(
        orphans
            .iter()
            .all(|orphan| orphan.probe() == Liveness::Dead)
    );
    assert_eq!(
        stop_group(&group, long()).await.expect("again"),
        Stopped::AlreadyGone
    );
}

#[tokio::test]
async fn what_a_lost_leader_left_is_proven_by_its_mark_and_ended() {
    let child = started(sh("sleep 300 & echo ready; wait").mark(mark("lost"))).await;
    let group = lose_leader(child).await;
    let members = group_members(&group).await.expect("it can be looked at");
    assert!(
        matches!(&members, Members::Ours(living) if living.len() == 1),
        "{members:?}"
    );
    assert_eq!(
        stop_group(&group, long()).await.expect("it stops"),
        Stopped::ExitedInGrace
    );
    assert_eq!(living(&group).await, []);
}

#[tokio::test]
async fn what_a_lost_leader_left_without_a_mark_is_not_signalled() {
    let child = started(sh("sleep 300 & echo ready; wait")).await;
    let group = lose_leader(child).await;
    let left = living(&group).await;
    let pids: Vec<_> = left.iter().map(ProcessIdentity::pid).collect();
    assert_eq!(pids.len(), 1);
    for how in [long(), Stop::forced()] {
        assert_eq!(
            stop_group(&group, how).await.expect("it looks"),
            Stopped::Unproven(pids.clone())
        );
    }
    // Another group's mark is no better than none.
    let other_mark = altered(&group, 7, |_| "other".to_owned());
    assert_eq!(
        stop_group(&other_mark, long()).await.expect("it looks"),
        Stopped::Unproven(pids.clone())
    );
    assert_eq!(left[0].probe(), Liveness::Alive);
    kill("-KILL", left[0].pid());
    until("the end is seen", || async {
        living(&group).await.is_empty()
    })
    .await;
    assert_eq!(
        stop_group(&group, long()).await.expect("it looks"),
        Stopped::AlreadyGone
    );
}

#[tokio::test]
async fn a_member_that_cleaned_its_environment_is_known_by_its_company() {
    // The marked one obeys and is gone when the grace ends; the unmarked one ignores the request.
    let script = "(trap '' TERM; exec env -i sleep 300) & sleep 300 & echo ready; wait";
    let group = lose_leader(started(sh(script).mark(mark("company"))).await).await;
    until("the environment was cleaned", || async {
        let clean = |member: &ProcessIdentity| {
            std::fs::read(format!("/proc/{}/environ", member.pid()))
                .is_ok_and(|bytes| bytes.is_empty())
        };
        living(&group)
            .await
            .iter()
            .filter(|member| clean(member))
            .count()
            == 1
    })
    .await;
    let both = living(&group).await;
    assert_eq!(both.len(), 2);
    let short = Stop::graceful(Duration::from_millis(200));
    assert_eq!(
        stop_group(&group, short).await.expect("it stops"),
        Stopped::Killed
    );
    assert!(both.iter().all(|member| member.probe() == Liveness::Dead));
}

#[tokio::test]
async fn a_number_that_was_given_to_another_process_is_not_signalled() {
    let mut child = started(sh("echo ready; exec sleep 300").mark(mark("reused"))).await;
    // The record is of an earlier process of that number; even with the same mark it is not this one.
    let earlier = altered(child.identity(), 6, |started| {
        (started.parse::<u64>().expect("Linux tells") - 1).to_string()
    });
    assert_eq!(earlier.leader().probe(), Liveness::Dead);
    for how in [long(), Stop::forced()] {
        assert_eq!(
            stop_group(&earlier, how).await.expect("it looks"),
            Stopped::AlreadyGone
        );
    }
    assert_eq!(
        group_members(&earlier).await.expect("it looks"),
        Members::Gone
    );
    assert_eq!(child.identity().leader().probe(), Liveness::Alive);
    assert!(child.stop(long()).await.expect("it stops").is_gone());
}

#[tokio::test]
async fn a_record_of_another_place_is_left_to_that_place() {
    let mut child = started(sh("echo ready; exec sleep 300")).await;
    for (at, part) in [(3, "1"), (3, "-"), (2, "-"), (4, "1")] {
        let elsewhere = altered(child.identity(), at, |_| part.to_owned());
        let error = stop_group(&elsewhere, Stop::forced())
            .await
            .expect_err("not here");
        assert_eq!(error.kind(), ErrorKind::Elsewhere);
        assert_eq!(
            group_members(&elsewhere)
                .await
                .expect_err("not here")
                .kind(),
            ErrorKind::Elsewhere
        );
    }
    assert_eq!(child.identity().leader().probe(), Liveness::Alive);
    assert!(child.stop(long()).await.expect("it stops").is_gone());
}

#[tokio::test]
async fn a_record_from_before_a_restart_is_of_a_group_that_is_gone() {
    let mut child = started(sh("echo ready; exec sleep 300")).await;
    let before = altered(child.identity(), 2, |_| {
        "00000000-0000-4000-8000-000000000000".to_owned()
    });
    let with_machine = altered(&before, 1, |host| {
        if host.contains('+') {
            host.to_owned()
        } else {
            format!("{host}+0000000000000001")
        }
    });
    match stop_group(&with_machine, Stop::forced()).await {
        Ok(stopped) => assert_eq!(stopped, Stopped::AlreadyGone),
        // A host without a machine id cannot tell a restart from another host.
        Err(error) => assert!(
            error.kind() == ErrorKind::Elsewhere
                && with_machine.leader().host() != child.identity().leader().host()
        ),
    }
    assert_eq!(child.identity().leader().probe(), Liveness::Alive);
    assert!(child.stop(long()).await.expect("it stops").is_gone());
}

#[tokio::test]
async fn the_first_process_this_one_and_its_group_are_never_signalled() {
    let mut child = started(sh("echo ready; exec sleep 300")).await;
    let own_group = std::fs::read_to_string("/proc/self/stat").expect("it is there");
    let own_group = own_group
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.split(' ').nth(2))
        .expect("field 5")
        .to_owned();
    let mut never = vec!["1".to_owned(), std::process::id().to_string()];
    // Zero where the group was made outside of this pid namespace and has no number in it.
    never.extend(Some(own_group).filter(|group| group != "0"));
    for pid in never {
        let number: u32 = pid.parse().expect("a number");
        let identity = ProcessIdentity::of(Pid::new(number).expect("positive"));
        let started = identity.map_or_else(
            |_| "-".to_owned(),
            |identity| {
                identity
                    .to_string()
                    .rsplit(':')
                    .next()
                    .expect("it has parts")
                    .to_owned()
            },
        );
        let group = altered(child.identity(), 5, |_| pid);
        let group = altered(&group, 6, |_| started);
        let error = stop_group(&group, Stop::forced()).await.expect_err("never");
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(
            group_members(&group).await.expect_err("never").kind(),
            ErrorKind::Refused
        );
    }
    assert!(child.stop(long()).await.expect("it stops").is_gone());
}

#[tokio::test]
async fn a_detached_group_runs_on_and_is_ended_by_its_record() {
    let group = started(sh("trap '' TERM; echo ready; while :; do sleep 300; done"))
        .await
        .detach();
    assert_eq!(group.leader().probe(), Liveness::Alive);
    let short = Stop::graceful(Duration::from_millis(50));
    assert_eq!(
        stop_group(&group, short).await.expect("it stops"),
        Stopped::Killed
    );
    assert_eq!(
        group_members(&group).await.expect("it looks"),
        Members::Gone
    );
}

#[tokio::test]
async fn what_was_started_but_not_recorded_is_found_by_its_mark() {
    let mark = mark("unrecorded");
    assert_eq!(find_groups(&mark).await.expect("it looks"), []);
    // One descendant goes into a session of its own, out of the group's reach.
    let child =
        started(sh("setsid sleep 300 & echo ready; exec sleep 300").mark(mark.clone())).await;
    let recorded = child.detach();
    until("both groups are found", || async {
        find_groups(&mark).await.expect("it looks").len() == 2
    })
    .await;
    let found = find_groups(&mark).await.expect("it looks");
    assert!(found.contains(&recorded), "{found:?} has {recorded}");
    for group in &found {
        assert_eq!(
            stop_group(group, long()).await.expect("it stops"),
            Stopped::ExitedInGrace
        );
    }
    assert_eq!(find_groups(&mark).await.expect("it looks"), []);
}

#[tokio::test]
async fn a_group_is_found_by_its_mark_after_its_leader() {
    let mark = mark("leaderless");
    let recorded =
        lose_leader(started(sh("sleep 300 & echo ready; wait").mark(mark.clone())).await).await;
    let found = find_groups(&mark).await.expect("it looks");
    let [group] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(group.leader().pid(), recorded.leader().pid());
    assert_eq!(
        stop_group(group, long()).await.expect("it stops"),
        Stopped::ExitedInGrace
    );
    assert_eq!(living(&recorded).await, []);
}

#[tokio::test]
async fn somebody_elses_group_with_a_marked_guest_is_not_found() {
    let mark = mark("guest");
    let script = format!("RUNTREE_MARK={mark} sleep 300 & echo ready; wait");
    let mut host: Child = started(sh(&script)).await;
    until("the guest is there", || async {
        living(host.identity()).await.iter().any(|member| {
            std::fs::read(format!("/proc/{}/environ", member.pid()))
                .is_ok_and(|bytes| bytes.windows(12).any(|window| window == b"RUNTREE_MARK"))
        })
    })
    .await;
    assert_eq!(find_groups(&mark).await.expect("it looks"), []);
    assert!(host.stop(long()).await.expect("it stops").is_gone());
}

#[tokio::test]
async fn two_recoveries_at_once_do_each_other_no_harm() {
    let command: Command = sh("sleep 300 & sleep 300 & echo ready; exec sleep 300");
    let group = started(command).await.detach();
    let (one, two) = tokio::join!(
        stop_group(&group, long()),
        stop_group(&group, Stop::forced())
    );
    assert!(one.expect("it stops").is_gone());
    assert!(two.expect("it stops").is_gone());
    assert_eq!(living(&group).await, []);
}
