//! Many processes make ids at once: none repeats, and each process's own ones are in order.

use std::io::{BufRead, BufReader, BufWriter, Write};
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
    let mut out = BufWriter::new(std::io::stdout().lock());
    // The harness has not ended its own line yet.
    writeln!(out).expect("is read");
    for id in &ids {
        writeln!(out, "{id}").expect("is read");
    }
    out.flush().expect("is read");
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
    // Sixteen bytes an id, and sorting in place: sixteen million ids take a quarter of a GiB.
    let mut all: Vec<RunId> = Vec::with_capacity(PROCESSES * ids_each);
    // All make their ids at once, before they print; a child with a full pipe waits its turn.
    for mut child in children {
        let before = all.len();
        let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        for line in lines.map(|line| line.expect("prints text")) {
            if line.starts_with("run_") {
                all.push(line.parse().expect("prints run ids"));
            }
        }
        assert!(child.wait().expect("the child ends").success());
        assert_eq!(all.len() - before, ids_each);
        assert!(all[before..].is_sorted_by(|a, b| a < b));
    }
    all.sort_unstable();
    let repeated = all.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(repeated, None, "among {} ids", all.len());
}
