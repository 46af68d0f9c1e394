//! Many processes make ids at once: none repeats, and each process's own ones are in order.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use runtree_id::{IdGenerator, RunId};

use crate::size_from_env;

const PROCESSES: usize = 16;

/// Set for the processes that this test starts, to the number of ids each makes.
const CHILD_IDS: &str = "RUNTREE_TEST_CHILD_IDS";

/// Makes ids and prints them, when it is started for that; by itself it makes none.
#[test]
fn child_of_processes_prints_ids() {
    let count = size_from_env(CHILD_IDS, 0);
    let generator = IdGenerator::system();
    let mut ids: Vec<RunId> = Vec::new();
    for _ in 0..count {
        ids.push(generator.run_id().expect("makes an id"));
    }
    // The harness has not ended its own line yet.
    println!();
    for id in &ids {
        println!("{id}");
    }
    assert_eq!(ids.len(), count);
}

#[test]
fn ids_of_many_processes_never_repeat_and_each_process_keeps_its_order() {
    let ids_each = size_from_env("RUNTREE_TEST_PROCESS_IDS", 500);
    let this = std::env::current_exe().expect("the test binary knows itself");
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(&this)
                .args(["--exact", "processes::child_of_processes_prints_ids"])
                .args(["--nocapture", "--test-threads=1"])
                .env(CHILD_IDS, ids_each.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the test binary starts")
        })
        .collect();
    // The pipes are read one after the other; a child with a full one waits its turn.
    let mut all = HashSet::new();
    for child in children {
        let output = child.wait_with_output().expect("the child ends");
        let text = String::from_utf8(output.stdout).expect("prints text");
        assert!(output.status.success(), "{text}");
        let ids: Vec<RunId> = text
            .lines()
            .filter(|line| line.starts_with("run_"))
            .map(|line| line.parse().expect("prints run ids"))
            .collect();
        assert_eq!(ids.len(), ids_each);
        assert!(ids.is_sorted_by(|a, b| a < b));
        all.extend(ids);
    }
    assert_eq!(all.len(), PROCESSES * ids_each);
}
