//! `lock` against itself, against plain git and against removal: one gets it, all hear why, nothing is replaced.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Barrier,
    thread,
};

use runtree_testkit::git;
use runtree_worktree::{
    ErrorKind, KeepReason, Liveness, LockHolder, Onward, Operation, Outcome, Reason, Result, Step,
    StepObserver, Worktrees,
};

use crate::{
    child,
    support::{House, assert_removed, builder, directory, owner, removal},
};

fn reason(text: &str) -> Reason {
    Reason::new(text).unwrap()
}

/// A house with one worktree that nobody has locked.
fn house_with(name: &str) -> House {
    let house = House::new();
    house.add(name);
    assert!(
        house
            .worktrees
            .unlock(&directory(name), &owner(name))
            .unwrap()
    );
    house
}

fn lock(worktrees: &Worktrees, name: &str, why: &str) -> Result<()> {
    worktrees.lock(&directory(name), &owner(name), &reason(why))
}

fn unlock(worktrees: &Worktrees, name: &str) -> Result<bool> {
    worktrees.unlock(&directory(name), &owner(name))
}

fn path_of(house: &House, name: &str) -> PathBuf {
    house.worktrees.root().join(name)
}

fn admin_of(house: &House, name: &str) -> PathBuf {
    house.fixture.path().join(".git/worktrees").join(name)
}

fn text_of(house: &House, name: &str) -> Option<String> {
    let list = house.worktrees.list().unwrap();
    let listed = list.iter().find(|listed| listed.id() == Some(name));
    listed.unwrap().locked().map(str::to_owned)
}

#[test]
fn a_locked_worktree_is_kept_by_git_and_by_us_until_it_is_unlocked() {
    let house = house_with("held");
    lock(&house.worktrees, "held", "needed for the audit").unwrap();
    let text = "runtree: held/1 locked by test: needed for the audit".to_owned();
    assert_eq!(text_of(&house, "held"), Some(text.clone()));
    house.check_agreement();

    let path = path_of(&house, "held");
    let path = path.to_str().unwrap();
    let refused = git::try_git(house.fixture.path(), ["worktree", "remove", path]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&text), "{said}");
    let kept = Outcome::Kept(KeepReason::Locked(text));
    let plan = house.worktrees.plan_remove(&removal("held")).unwrap();
    assert_eq!(plan.outcome, kept);
    assert_eq!(house.remove("held").outcome, kept);
    house.check_agreement();

    assert!(unlock(&house.worktrees, "held").unwrap());
    assert!(!unlock(&house.worktrees, "held").unwrap());
    assert_eq!(text_of(&house, "held"), None);
    assert_removed(&house.remove("held"));
    house.check_agreement();
}

#[test]
fn a_lock_that_is_there_stays_and_is_named() {
    let house = House::new();
    let path = house.add("work").path().to_str().unwrap().to_owned();
    let refused = |why: &str| {
        let error = lock(&house.worktrees, "work", "mine").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        house.check_agreement();
    };
    // The one it was made with, another's, one without a reason, one of several lines, and our own.
    refused("runtree: work/1 held by test");
    assert!(unlock(&house.worktrees, "work").unwrap());
    for (arguments, why) in [
        (["--reason", "a person's"].as_slice(), "a person's"),
        (&[], "without a reason"),
        (&["--reason", "two\nlines \u{3000}"], "two\nlines \u{3000}"),
        (&["--reason", "  indented \n"], "locked: indented"),
    ] {
        house.git(&[&["worktree", "lock"], arguments, &[path.as_str()]].concat());
        let before = fs::read(admin_of(&house, "work").join("locked")).unwrap();
        refused(why);
        assert!(!unlock(&house.worktrees, "work").unwrap());
        let after = fs::read(admin_of(&house, "work").join("locked")).unwrap();
        assert_eq!(before, after);
        house.git(&["worktree", "unlock", &path]);
    }
    lock(&house.worktrees, "work", "first").unwrap();
    refused("runtree: work/1 locked by test: first");
    house.git(&["worktree", "unlock", &path]);
    lock(&house.worktrees, "work", "second").unwrap();
    house.check_agreement();
}

#[test]
fn a_maker_that_releases_its_worktree_takes_no_other_lock_off() {
    let house = House::new();
    house.add("work");
    let release = || {
        house
            .worktrees
            .release(&directory("work"), &owner("work"))
            .unwrap()
    };
    assert!(release());
    assert!(!release());
    lock(&house.worktrees, "work", "in use").unwrap();
    assert!(!release());
    assert!(text_of(&house, "work").is_some());
}

#[test]
fn every_reason_is_listed_by_git_as_by_us() {
    let house = house_with("work");
    let long = "x".repeat(200);
    for text in [
        "",
        " both ",
        "wide\u{3000}",
        "\"quoted\" \\ ä 鳥",
        ": held by ",
        &long,
    ] {
        lock(&house.worktrees, "work", text).unwrap();
        house.check_agreement();
        assert!(unlock(&house.worktrees, "work").unwrap(), "{text:?}");
    }
    for text in ["two\nlines", "bell\u{7}", "\r", "\u{85}"] {
        let error = Reason::new(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
    }
}

#[test]
fn what_is_gone_or_foreign_is_not_locked() {
    let house = house_with("ours");
    let theirs = path_of(&house, "theirs");
    house.git(&[
        "worktree",
        "add",
        "-q",
        "-b",
        "theirs",
        theirs.to_str().unwrap(),
    ]);
    let kind = |name: &str, token: &str| {
        let locked = house
            .worktrees
            .lock(&directory(name), &owner(token), &Reason::none());
        locked.unwrap_err().kind()
    };
    assert_eq!(kind("never", "never"), ErrorKind::NotFound);
    assert_eq!(kind("theirs", "theirs"), ErrorKind::NotFound);
    assert_eq!(kind("ours", "another"), ErrorKind::NotOurs);
    assert_removed(&house.remove("ours"));
    assert_eq!(kind("ours", "ours"), ErrorKind::NotFound);
    house.check_agreement();
}

/// Tries to lock and to unlock a worktree at every step of its removal.
#[derive(Debug)]
struct LockMeanwhile(Worktrees);

impl StepObserver for LockMeanwhile {
    fn reached(&self, operation: Operation, step: Step) -> Onward {
        assert_eq!(operation, Operation::Remove);
        // It waits for a removal that may yet leave the worktree.
        if step == Step::Salvaged {
            return Onward::Continue;
        }
        let gone = [Step::Unregistered, Step::BranchSettled, Step::Finished];
        let expected = if gone.contains(&step) {
            ErrorKind::NotFound
        } else {
            ErrorKind::Busy
        };
        let error = lock(&self.0, "going", "wait").unwrap_err();
        assert_eq!(error.kind(), expected, "{step:?}: {error}");
        let error = unlock(&self.0, "going").unwrap_err();
        assert_eq!(error.kind(), expected, "{step:?}: {error}");
        Onward::Continue
    }
}

#[test]
fn a_worktree_that_is_being_removed_is_neither_locked_nor_unlocked() {
    let house = house_with("going");
    let observed = builder(house.fixture.path())
        .observer(std::sync::Arc::new(LockMeanwhile(house.worktrees.clone())))
        .open()
        .unwrap();
    assert_removed(&observed.remove(&removal("going")).unwrap());
    house.check_agreement();
}

#[test]
fn what_a_removal_that_died_left_is_recovered_before_it_is_locked() {
    let house = house_with("work");
    let journal = admin_of(&house, "work").join("runtree/removing");
    fs::write(&journal, "").unwrap();
    for error in [
        lock(&house.worktrees, "work", "").unwrap_err(),
        unlock(&house.worktrees, "work").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unfinished, "{error}");
    }
    assert!(!admin_of(&house, "work").join("locked").exists());
}

#[test]
fn what_a_locker_that_died_left_is_in_nobodys_way() {
    let house = house_with("work");
    let path = path_of(&house, "work");
    house.git(&[
        "worktree",
        "lock",
        "--reason",
        "git's",
        path.to_str().unwrap(),
    ]);
    // A second name of a lock, and a torn one.
    let left = admin_of(&house, "work").join("runtree/locking");
    fs::hard_link(admin_of(&house, "work").join("locked"), &left).unwrap();
    assert_eq!(
        lock(&house.worktrees, "work", "").unwrap_err().kind(),
        ErrorKind::Locked
    );
    assert_eq!(text_of(&house, "work"), Some("git's".to_owned()));
    house.git(&["worktree", "unlock", path.to_str().unwrap()]);
    fs::write(&left, "runtree: wor").unwrap();
    assert!(recovered_nothing(&house));
    lock(&house.worktrees, "work", "whole").unwrap();
    assert!(!left.exists());
    house.check_agreement();
}

fn recovered_nothing(house: &House) -> bool {
    let recovered = house.worktrees.recover(&|_| Liveness::Dead).unwrap();
    recovered.is_empty()
}

#[test]
fn a_lock_outlives_its_maker_and_is_nothing_to_recover() {
    let house = house_with("work");
    let told = house.fixture.path().to_str().unwrap();
    let died = child::command("lock::dying_child", told).output().unwrap();
    assert!(!died.status.success());
    let text = Some("runtree: work/1 locked by test: to outlive me".to_owned());
    assert_eq!(text_of(&house, "work"), text);
    assert!(recovered_nothing(&house));
    assert_eq!(text_of(&house, "work"), text);
    house.check_agreement();
}

/// Locks, and dies at once.
#[test]
#[ignore = "started by a_lock_outlives_its_maker_and_is_nothing_to_recover"]
fn dying_child() {
    let worktrees = builder(Path::new(&child::told())).open().unwrap();
    lock(&worktrees, "work", "to outlive me").unwrap();
    std::process::abort();
}

const PROCESSES: usize = 12;

#[test]
fn of_twelve_processes_one_locks_and_the_others_hear_by_whom() {
    let house = house_with("work");
    let children: Vec<_> = (0..PROCESSES)
        .map(|number| {
            let told = format!("{number} {}", house.fixture.path().display());
            let mut child = child::command("lock::locking_child", &told)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("is ready") {
                line.clear();
                assert_ne!(said.read_line(&mut line).unwrap(), 0);
            }
            (child, said)
        })
        .collect();
    let mut answers = Vec::new();
    let waiting: Vec<_> = children
        .into_iter()
        .map(|(mut child, said)| {
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
            (child, said)
        })
        .collect();
    for (mut child, said) in waiting {
        let lines: Vec<_> = said.lines().map(|line| line.unwrap()).collect();
        assert!(child.wait().unwrap().success(), "{lines:?}");
        let answer = lines.iter().find_map(|line| line.split_once("answer: "));
        answers.push(answer.unwrap().1.to_owned());
    }
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| *answer == "locked");
    let text = text_of(&house, "work").unwrap();
    assert_eq!((won.len(), lost.len()), (1, PROCESSES - 1), "{answers:?}");
    for answer in lost {
        assert_eq!(
            *answer,
            format!("Locked: the worktree work is locked: {text}")
        );
    }
    house.check_agreement();
}

/// One of the processes; see the test above.
#[test]
#[ignore = "started by of_twelve_processes_one_locks_and_the_others_hear_by_whom"]
fn locking_child() {
    let told = child::told();
    let (number, path) = told.split_once(' ').unwrap();
    let holder = LockHolder::new(format!("process {number}")).unwrap();
    let worktrees = builder(Path::new(path)).holder(holder).open().unwrap();
    println!("is ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match lock(&worktrees, "work", "a race") {
        Ok(()) => println!("answer: locked"),
        Err(error) => println!("answer: {:?}: {error}", error.kind()),
    }
}

const THREADS: usize = 24;
const ROUNDS: usize = 20;

/// How many looks at the list one side waits longer per round.
const LOOKS: usize = 20;

/// What one of the racers came to: whether it is git, and what the one that did not lock was told.
type Raced = (bool, std::result::Result<(), String>);

/// Runs all racers of a round at once.
fn run_race(racer: impl Fn(usize, &Barrier) -> Raced + Sync) -> Vec<Raced> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (racer, start) = (&racer, &start);
                scope.spawn(move || racer(number, start))
            })
            .collect();
        let raced = threads.into_iter().map(|thread| thread.join().unwrap());
        raced.collect()
    })
}

fn won(raced: &[Raced], is_git: bool) -> usize {
    let won = |(git, outcome): &&Raced| *git == is_git && outcome.is_ok();
    raced.iter().filter(won).count()
}

#[test]
fn of_many_threads_one_locks_and_the_others_hear_by_whom() {
    let house = house_with("work");
    for round in 0..ROUNDS {
        let raced = run_race(|number, start| lock_at_start(&house, number, start, 0));
        let text = text_of(&house, "work").unwrap();
        assert_eq!(won(&raced, false), 1, "round {round}: {raced:?}");
        for (number, (_, outcome)) in raced.iter().enumerate() {
            match outcome {
                Ok(()) => assert!(text.contains(&format!(" by thread {number}: "))),
                Err(told) => assert!(told.ends_with(&text), "round {round}: {told}"),
            }
        }
        assert!(unlock(&house.worktrees, "work").unwrap());
    }
    house.check_agreement();
}

#[test]
fn beside_plain_git_at_most_one_of_us_locks_and_no_lock_of_git_is_replaced() {
    let house = house_with("work");
    let path = path_of(&house, "work");
    let mut all_won = (0, 0);
    for round in 0..ROUNDS {
        // In the first round git comes long after us, in the middle both come at once, in the last round we come after git.
        let (ours_later, git_later) = (
            round.saturating_sub(ROUNDS / 2) * LOOKS,
            (ROUNDS / 2).saturating_sub(round) * LOOKS,
        );
        let raced = run_race(|number, start| {
            if number.is_multiple_of(2) {
                git_lock_at_start(&house, &path, start, git_later)
            } else {
                lock_at_start(&house, number, start, ours_later)
            }
        });
        let text = text_of(&house, "work").unwrap();
        let (ours, git) = (won(&raced, false), won(&raced, true));
        assert!(ours <= 1, "round {round}: {raced:?}");
        assert!(ours + git >= 1, "round {round}: {raced:?}");
        // Where git locked too, it looked before we came and wrote after us, or we would not have: its text stands.
        assert_eq!(
            text.starts_with("runtree: "),
            git == 0,
            "round {round}: {text} {raced:?}"
        );
        for (is_git, lost) in &raced {
            let Err(told) = lost else { continue };
            let expected = if *is_git {
                "is already locked"
            } else {
                "Locked: "
            };
            assert!(told.contains(expected), "round {round}: {told}");
        }
        all_won = (all_won.0 + ours, all_won.1 + git);
        house.check_agreement();
        house.git(&["worktree", "unlock", path.to_str().unwrap()]);
    }
    // Neither side had it to itself, or there was no race.
    assert!(all_won.0 > 0 && all_won.1 > 0, "{all_won:?}");
    assert_removed(&house.remove("work"));
    house.check_agreement();
}

/// Locks with plain git, after some looks at the list, in a process that is there before anybody begins.
fn git_lock_at_start(house: &House, path: &Path, start: &Barrier, looks: usize) -> Raced {
    let mut child = Command::new("sh")
        .current_dir(house.fixture.path())
        .args([
            "-c",
            "read go; exec git worktree lock --reason \"git's\" \"$0\"",
        ])
        .arg(path)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = child.stdin.take().unwrap();
    start.wait();
    for _ in 0..looks {
        house.worktrees.list().unwrap();
    }
    told.write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (true, output.status.success().then_some(()).ok_or(said))
}

/// Locks with us, after some looks at the list.
fn lock_at_start(house: &House, number: usize, start: &Barrier, looks: usize) -> Raced {
    let holder = LockHolder::new(format!("thread {number}")).unwrap();
    let worktrees = house.worktrees.with_holder(holder);
    start.wait();
    for _ in 0..looks {
        worktrees.list().unwrap();
    }
    let locked = lock(&worktrees, "work", "ours");
    let told = locked.map_err(|error| format!("{:?}: {error}", error.kind()));
    (false, told)
}
