//! A fork repeats no id of ours, leaves no child waiting, and what it repeats is seen.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtree_id::{IdGenerator, PredictableEntropy};
use runtree_peers::Maker;
use runtree_peers::fork::{self, Plan};
use runtree_time::{ManualClock, Timestamp};

const PLAN: Plan = Plan {
    ids: 100,
    rounds: 2,
    threads: 0,
    patience: Duration::from_secs(60),
};

/// The program forks by itself: here, other tests are at work in other threads.
#[test]
fn no_id_of_ours_is_made_on_both_sides_of_a_fork_and_no_child_hangs() {
    let run = Command::new(env!("CARGO_BIN_EXE_fork"))
        .output()
        .expect("the program starts");
    let table = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{table}{run:?}");
    assert!(
        table.contains("\n| runtree | 0 | 0 | 0 | 0 | no |\n"),
        "{table}"
    );
}

#[test]
fn a_generator_that_a_fork_copies_is_found_out() {
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let generator = IdGenerator::new(Arc::new(clock), Arc::new(PredictableEntropy::new(7)));
    let copied = Maker::new("copied", move || {
        let id = generator.run_id().expect("the clock has a second to spare");
        id.as_uuid().as_u128()
    });
    let outcome = fork::run(&copied, &PLAN).expect("the system forks");
    let all = PLAN.ids * PLAN.rounds;
    assert_eq!((outcome.ids, outcome.duplicates), (all, all));
    assert_eq!(outcome.random_duplicates, all);
}

#[test]
fn a_child_that_waits_for_ever_counts_as_hung() {
    let parent = std::process::id();
    let made = AtomicU32::new(0);
    let waiting = Maker::new("waiting", move || {
        while std::process::id() != parent {
            std::thread::park();
        }
        made.fetch_add(1, Ordering::Relaxed).into()
    });
    let plan = Plan {
        patience: Duration::from_secs(1),
        ..PLAN
    };
    let outcome = fork::run(&waiting, &plan).expect("the system forks");
    assert_eq!(outcome.hung, 1);
    assert_eq!(outcome.ids, 0);
}
