//! Worktrees: added, checked and removed by runtree beside the git program, in memory and on the disk.

mod at_once;
mod fixture;
mod same;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use runtree_benches::{Bench, Group, Options};
use runtree_worktree::BranchPolicy;

use crate::fixture::{FILES, Fixture, Workers};

/// How much must be free where files are kept in memory.
const FREE_BYTES: u64 = 1 << 30;

/// Where worktrees are made.
struct Place {
    name: &'static str,
    directory: PathBuf,
    /// Which share of git's time an add of many files should take at most.
    goal: f64,
    /// Whether what a side wrote can still be on its way when the next one begins.
    is_disk: bool,
}

fn main() {
    let bench = Bench::new(Options::from_args());
    let memory = Place {
        name: "tmpfs",
        directory: PathBuf::from("/dev/shm"),
        goal: 0.6,
        is_disk: false,
    };
    let disk = Place {
        name: "disk",
        directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        goal: 1.0,
        is_disk: true,
    };
    if has_room(&memory.directory) {
        run(&bench, &memory);
    } else if NAMES.iter().any(|name| bench.wants(&memory.group(name))) {
        let free = FREE_BYTES >> 30;
        #[expect(
            clippy::print_stdout,
            reason = "who reads the tables must know why some are missing"
        )]
        {
            println!("worktrees/tmpfs is left out: there is no /dev/shm with {free} GiB free");
        }
    }
    run(&bench, &disk);
}

fn has_room(directory: &Path) -> bool {
    rustix::fs::statvfs(directory)
        .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= FREE_BYTES)
}

const ADD_MANY: &str = "add, 4,850 files";
const REMOVE_MANY: &str = "remove, 4,850 files";
const CHECK_MANY: &str = "check, 4,850 files";
const ADD_FEW: &str = "add, 50 files";
const AT_ONCE: &str = "24 adds, 50 files";

/// What is measured in each place: the first three with many files, the others with few.
const NAMES: [&str; 5] = [ADD_MANY, REMOVE_MANY, CHECK_MANY, ADD_FEW, AT_ONCE];

impl Place {
    fn group(&self, name: &str) -> String {
        format!("worktrees/{}/{name}", self.name)
    }
}

/// Measures what is asked for in one place.
fn run(bench: &Bench, place: &Place) {
    let wants = |name: &&str| bench.wants(&place.group(name));
    let (many, few) = NAMES.split_at(3);
    let is_settled = place.is_disk && bench.options().is_measured;
    let fixture = |count| {
        let fixture = Fixture::new(&place.directory, count, is_settled);
        same::check(&fixture);
        fixture
    };
    if many.iter().any(wants) {
        let fixture = fixture(bench.options().pick(FILES, 150));
        // An add takes tenths of a second: samples are few, and each is one add.
        let bench = sampled(bench, 15);
        add(&bench, &fixture, &place.group(ADD_MANY), place.goal);
        remove(&bench, &fixture, &place.group(REMOVE_MANY));
        check(&sampled(&bench, 51), &fixture, &place.group(CHECK_MANY));
        fixture.check_left_nothing();
    }
    if few.iter().any(wants) {
        let fixture = fixture(bench.options().pick(50, 8));
        add(&sampled(bench, 101), &fixture, &place.group(ADD_FEW), 0.4);
        if wants(&AT_ONCE) {
            at_once::run(bench, &fixture, &place.group(AT_ONCE));
        }
        fixture.check_left_nothing();
    }
}

/// The same run with so many samples a side.
fn sampled(bench: &Bench, samples: usize) -> Bench {
    let mut options = bench.options().clone();
    options.samples = options.pick(samples, 1);
    Bench::new(options)
}

/// Adds a worktree with a new branch.
fn add(bench: &Bench, fixture: &Fixture, name: &str, goal: f64) {
    let by_git = |workers| {
        move |repeats| {
            let mut spent = Duration::ZERO;
            for _ in 0..repeats {
                let name = fixture.next_name();
                fixture.settle();
                let start = Instant::now();
                let is_added = fixture.git_add(&name, workers);
                spent += start.elapsed();
                assert!(is_added, "git adds no worktree");
                fixture.git_forget(&name);
            }
            spent
        }
    };
    bench.run(
        Group::new(name)
            .timed_reference("git", by_git(Workers::One))
            .timed_reference("git, checkout.workers=0", by_git(Workers::EachCore))
            .timed("runtree", Some(goal), |repeats| {
                let mut spent = Duration::ZERO;
                for _ in 0..repeats {
                    let name = fixture.next_name();
                    fixture.settle();
                    let start = Instant::now();
                    let worktree = fixture.add(&name);
                    spent += start.elapsed();
                    let worktree = worktree.expect("a worktree can be added");
                    fixture.remove(&worktree, BranchPolicy::DeleteMerged);
                }
                spent
            }),
    );
}

/// Removes a worktree in which nothing changed, and keeps its branch.
fn remove(bench: &Bench, fixture: &Fixture, name: &str) {
    bench.run(
        Group::new(name)
            .timed_reference("git", |repeats| {
                let mut spent = Duration::ZERO;
                for _ in 0..repeats {
                    let name = fixture.next_name();
                    assert!(
                        fixture.git_add(&name, Workers::EachCore),
                        "git adds no worktree"
                    );
                    fixture.settle();
                    let start = Instant::now();
                    fixture.git_remove(&name);
                    spent += start.elapsed();
                    fixture.git_drop_branch(&Fixture::git_branch(&name));
                }
                spent
            })
            .timed("runtree", None, |repeats| {
                let mut spent = Duration::ZERO;
                for _ in 0..repeats {
                    let name = fixture.next_name();
                    let worktree = fixture.add(&name).expect("a worktree can be added");
                    fixture.settle();
                    let start = Instant::now();
                    fixture.remove(&worktree, BranchPolicy::Keep);
                    spent += start.elapsed();
                    fixture.git_drop_branch(&Fixture::our_branch(&name));
                }
                spent
            }),
    );
}

/// Looks whether a worktree may go: both sides in the same one.
fn check(bench: &Bench, fixture: &Fixture, name: &str) {
    if !bench.wants(name) {
        return;
    }
    let worktree = fixture
        .add(&fixture.next_name())
        .expect("a worktree can be added");
    // While files are as young as the index, to the second, their bytes are read at every look. git writes the index anew then, and one
    // that is written in a later second ends that.
    let young = bench
        .options()
        .pick(Duration::from_millis(2_100), Duration::ZERO);
    let start = Instant::now();
    loop {
        fixture.git_status(worktree.path());
        if start.elapsed() >= young {
            break;
        }
    }
    bench.run(
        Group::new(name)
            .reference("git status", || fixture.git_status(worktree.path()))
            .goal("runtree", 1.0, || fixture.plan(&worktree)),
    );
    fixture.remove(&worktree, BranchPolicy::DeleteMerged);
}
