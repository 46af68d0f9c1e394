//! Many adds at once in one process, beside git's one after another.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use runtree_benches::{Bench, Lap, Phase, Rates, Round};
use runtree_worktree::{BranchPolicy, Worktree};

use crate::fixture::{Fixture, Workers};

/// How many worktrees a round adds.
const ADDS: u64 = 24;

/// How many adds there were, and how many of them failed.
#[derive(Default)]
struct Count {
    adds: AtomicU64,
    failed: AtomicU64,
}

impl Count {
    fn note(&self, failed: usize) {
        let failed = u64::try_from(failed).expect("because it is a few");
        self.adds.fetch_add(ADDS, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (adds, failed) = (&self.adds, &self.failed);
        let [adds, failed] = [adds, failed].map(|count| count.load(Ordering::Relaxed));
        write!(f, "{failed} of {adds}")
    }
}

/// Measures both, and checks that no add failed.
pub(crate) fn run(bench: &Bench, fixture: &Fixture, name: &str) {
    let (git, ours) = (Count::default(), Count::default());
    let phases = [Phase::with_goal("add", 1.0)];
    bench.run_rates(
        Rates::new(name, &phases)
            .side("git, one after another", || {
                one_after_another(fixture, &git)
            })
            .side("runtree, at once", || at_once(fixture, &ours)),
    );
    #[expect(clippy::print_stdout, reason = "it belongs to the table")]
    {
        println!("Failed: git {git}, runtree {ours}.\n");
    }
    assert_eq!(ours.failed.load(Ordering::Relaxed), 0, "adds failed");
    assert_eq!(git.failed.load(Ordering::Relaxed), 0, "git's adds failed");
}

fn names(fixture: &Fixture) -> Vec<String> {
    (0..ADDS).map(|_| fixture.next_name()).collect()
}

fn one_after_another(fixture: &Fixture, count: &Count) -> Round {
    let names = names(fixture);
    fixture.settle();
    let (lap, added) = Lap::of(ADDS, || {
        let added = names
            .iter()
            .filter(|name| fixture.git_add(name, Workers::One));
        added.collect::<Vec<_>>()
    });
    count.note(names.len() - added.len());
    for name in added {
        fixture.git_forget(name);
    }
    vec![Some(lap)]
}

fn at_once(fixture: &Fixture, count: &Count) -> Round {
    let names = names(fixture);
    fixture.settle();
    let (lap, answers) = Lap::of(ADDS, || {
        thread::scope(|scope| {
            let adding: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(|| fixture.add(name)))
                .collect();
            let answers = adding
                .into_iter()
                .map(|add| add.join().expect("an add does not panic"));
            answers.collect::<Vec<_>>()
        })
    });
    let mut added: Vec<Worktree> = Vec::new();
    for answer in answers {
        match answer {
            Ok(worktree) => added.push(worktree),
            Err(error) => {
                #[expect(
                    clippy::print_stderr,
                    reason = "it says why the bench fails in the end"
                )]
                {
                    eprintln!("an add failed: {error}");
                }
            }
        }
    }
    count.note(names.len() - added.len());
    for worktree in added {
        fixture.remove(&worktree, BranchPolicy::DeleteMerged);
    }
    vec![Some(lap)]
}
