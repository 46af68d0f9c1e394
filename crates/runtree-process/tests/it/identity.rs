//! Identities: their text, and what a look at them proves.

use proptest::prelude::*;
use runtree_process::{
    ErrorKind, Host, Liveness, Mark, Pid, ProcessGroupIdentity, ProcessIdentity,
};

use crate::{sh, until};

const BOOT: &str = "5e1fa11c-0000-4000-8000-00000000c0de";

/// Answers the identity with one of its parts (counted from zero, with the prefix) replaced.
fn with_part(identity: &ProcessIdentity, at: usize, part: &str) -> ProcessIdentity {
    let text = identity.to_string();
    let mut parts: Vec<&str> = text.split(':').collect();
    parts[at] = part;
    parts.join(":").parse().expect("still an identity")
}

fn start_time(identity: &ProcessIdentity) -> u64 {
    let text = identity.to_string();
    text.rsplit(':')
        .next()
        .and_then(|part| part.parse().ok())
        .expect("Linux tells")
}

#[test]
fn this_process_and_the_first_one_are_alive() {
    let me = ProcessIdentity::current();
    assert_eq!(me.probe(), Liveness::Alive);
    assert_eq!(me.pid(), Pid::current());
    assert_eq!(me.host(), &Host::current());
    assert_eq!(
        ProcessIdentity::of(Pid::current()).expect("it is there"),
        me
    );
    let first = ProcessIdentity::of(Pid::new(1).expect("positive")).expect("there is always one");
    assert_eq!(first.probe(), Liveness::Alive);
}

#[test]
fn the_same_number_with_another_start_time_is_another_process() {
    let me = ProcessIdentity::current();
    let before_me = with_part(&me, 6, &(start_time(&me) - 1).to_string());
    assert_eq!(before_me.probe(), Liveness::Dead);
}

#[test]
fn doubt_is_not_death() {
    let me = ProcessIdentity::current();
    let other_boot = with_part(&me, 2, BOOT);
    for unknown in [
        with_part(&me, 2, "-"),
        with_part(&me, 3, "-"),
        with_part(&me, 3, "1"),
        with_part(&me, 4, "-"),
        with_part(&me, 6, "-"),
        with_part(&other_boot, 1, "elsewhere"),
        with_part(&other_boot, 1, "elsewhere+0000000000000001"),
        with_part(&other_boot, 1, me.host().name()),
    ] {
        assert_eq!(unknown.probe(), Liveness::Unknown, "{unknown}");
    }
}

#[test]
fn another_pid_namespace_is_not_looked_up_here() {
    let me = ProcessIdentity::current();
    let no_such_number = with_part(&me, 5, &Pid::MAX.to_string());
    assert_eq!(no_such_number.probe(), Liveness::Dead);
    assert_eq!(
        with_part(&no_such_number, 3, "1").probe(),
        Liveness::Unknown
    );
}

#[test]
fn a_restart_of_a_machine_with_a_machine_id_ends_all_its_processes() {
    let me = ProcessIdentity::current();
    let before = with_part(&me, 2, BOOT);
    let expected = if me.host().to_string().contains('+') {
        Liveness::Dead
    } else {
        Liveness::Unknown
    };
    assert_eq!(before.probe(), expected);
}

#[tokio::test]
async fn a_zombie_is_dead_and_so_is_what_was_waited_for() {
    let mut zombie = std::process::Command::new("true")
        .spawn()
        .expect("it starts");
    let identity =
        ProcessIdentity::of(Pid::new(zombie.id()).expect("positive")).expect("not waited for");
    // Nobody waits for it yet, so it can only be running or a zombie.
    until("the zombie is seen", || async {
        identity.probe() == Liveness::Dead
    })
    .await;
    assert_eq!(
        ProcessIdentity::of(identity.pid()).expect("a zombie is there"),
        identity
    );
    zombie.wait().expect("it can be waited for");
    assert_eq!(identity.probe(), Liveness::Dead);
}

#[tokio::test]
async fn a_number_nobody_has_is_not_found() {
    let error = ProcessIdentity::of(Pid::MAX).expect_err("Linux gives no such number");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!("there is no process {}", Pid::MAX)
    );
}

#[tokio::test]
async fn a_process_with_a_hostile_name_is_read_like_any_other() {
    let name = "x) Z 1 1 1 (y\n) R";
    let directory = tempfile::tempdir().expect("a directory can be made");
    let program = directory.path().join(name);
    std::fs::copy("/bin/sleep", &program).expect("sleep can be copied");
    let mut child = runtree_process::Command::new(program, "/")
        .arg("300")
        .spawn()
        .await
        .expect("it starts");
    let shown = std::fs::read_to_string(format!("/proc/{}/comm", child.identity().leader().pid()));
    assert!(shown.expect("it runs").starts_with("x) Z 1 1 1 (y"));
    assert_eq!(child.identity().leader().probe(), Liveness::Alive);
    assert!(
        child
            .stop(runtree_process::Stop::default())
            .await
            .expect("it stops")
            .is_gone()
    );
    assert_eq!(child.identity().leader().probe(), Liveness::Dead);
}

#[tokio::test]
async fn a_recorded_group_is_read_back_as_it_was() {
    let command = sh("exec sleep 300").mark("m.1".parse().expect("a mark"));
    let child = command.spawn().await.expect("it starts");
    let json = serde_json::to_string(child.identity()).expect("it is text");
    assert_eq!(json, format!("\"{}\"", child.identity()));
    let read: ProcessGroupIdentity = serde_json::from_str(&json).expect("it was written so");
    assert_eq!(&read, child.identity());
    assert_eq!(read.mark().map(Mark::to_string).as_deref(), Some("m.1"));
    serde_json::from_str::<ProcessIdentity>(&json).expect_err("a group is not a process");
}

#[test]
fn texts_that_are_not_canonical_are_refused() {
    let good = format!("p1:h+00000000000000ff:{BOOT}:4026531836:1:7:0");
    let read: ProcessIdentity = good.parse().expect("canonical");
    assert_eq!(read.to_string(), good);
    for (from, to) in [
        ("p1:", "p2:"),
        ("p1:", "P1:"),
        ("p1:", " p1:"),
        ("p1:", "g1:"),
        (":h+", ":+"),
        (":h+", ":-+"),
        (":h+", ":h h+"),
        ("00ff", "00fF"),
        ("+00000000000000ff", "+ff"),
        ("+00000000000000ff", "+"),
        ("5e1fa11c", "5e1fa11C"),
        ("5e1fa11c-", "5e1fa11c"),
        (":4026531836", ":04026531836"),
        (":4026531836", ":+4026531836"),
        (":4026531836", ":0"),
        (":1:7", ":1:0"),
        (":1:7", ":1:07"),
        (":1:7", ":1:-"),
        (":1:7", ":1:2147483648"),
        (":7:0", ":7:-0"),
        (":7:0", ":7:18446744073709551616"),
        (":7:0", ":7"),
        (":7:0", ":7:0:"),
        (":7:0", ":7:0\n"),
        (":7:0", ":7:٣"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        let error = bad.parse::<ProcessIdentity>().expect_err(&bad);
        assert_eq!(error.kind(), ErrorKind::InvalidText, "{bad}");
    }
}

fn host() -> impl Strategy<Value = String> {
    (
        "[A-Za-z0-9._][A-Za-z0-9._-]{0,63}",
        proptest::option::of("[0-9a-f]{16}"),
    )
        .prop_map(|(name, machine)| match machine {
            Some(machine) => format!("{name}+{machine}"),
            None => name,
        })
}

fn or_unknown<T: ToString>(value: impl Strategy<Value = T>) -> impl Strategy<Value = String> {
    proptest::option::of(value)
        .prop_map(|value| value.map_or_else(|| "-".to_owned(), |value| value.to_string()))
}

fn parts() -> impl Strategy<Value = String> {
    let boot = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
    (
        host(),
        or_unknown(boot),
        or_unknown(1_u64..),
        or_unknown(1_u64..),
        1..=Pid::MAX.get(),
        or_unknown(any::<u64>()),
    )
        .prop_map(|(host, boot, pids, times, pid, started)| {
            format!("{host}:{boot}:{pids}:{times}:{pid}:{started}")
        })
}

proptest! {
    #[test]
    fn every_identity_is_read_and_written_alike(parts in parts(), mark in or_unknown("[A-Za-z0-9._][A-Za-z0-9._-]{0,63}")) {
        let process = format!("p1:{parts}");
        prop_assert!(process.len() <= ProcessIdentity::MAX_LEN);
        let read: ProcessIdentity = process.parse().expect("canonical");
        prop_assert_eq!(read.to_string(), process);
        let group = format!("g1:{parts}:{mark}");
        prop_assert!(group.len() <= ProcessGroupIdentity::MAX_LEN);
        let read: ProcessGroupIdentity = group.parse().expect("canonical");
        prop_assert_eq!(read.to_string(), group);
    }

    #[test]
    fn one_changed_byte_is_refused_or_says_something_else(parts in parts(), at: prop::sample::Index, byte in 0_u8..128) {
        let text = format!("p1:{parts}");
        let mut changed = text.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        let changed = String::from_utf8(changed).expect("ASCII");
        if let Ok(read) = changed.parse::<ProcessIdentity>() {
            prop_assert_eq!(read.to_string(), changed);
        }
    }

    #[test]
    fn any_text_is_refused_or_canonical(text: String) {
        if let Ok(host) = text.parse::<Host>() {
            prop_assert_eq!(host.to_string(), text.as_str());
        }
        if let Ok(mark) = text.parse::<Mark>() {
            prop_assert_eq!(mark.to_string(), text.as_str());
        }
        prop_assert!(text.parse::<ProcessIdentity>().is_err());
        prop_assert!(text.parse::<ProcessGroupIdentity>().is_err());
    }
}

#[test]
fn the_longest_identity_is_within_its_limit() {
    let most = u64::MAX;
    let host = format!("{}+{}", "h".repeat(64), "f".repeat(16));
    let parts = format!("{host}:{BOOT}:{most}:{most}:{}:{most}", Pid::MAX);
    let process = format!("p1:{parts}");
    assert_eq!(
        process
            .parse::<ProcessIdentity>()
            .expect("canonical")
            .to_string(),
        process
    );
    let group = format!("g1:{parts}:{}", "m".repeat(Mark::MAX_LEN));
    assert_eq!(
        group
            .parse::<ProcessGroupIdentity>()
            .expect("canonical")
            .to_string(),
        group
    );
}
