//! Processes that are killed, servers that crash, disks that are full and clocks that step, while others work on the same store.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails its test by panicking"
)]

mod clocks;
mod disks;
mod kills;
mod locks;
mod server_clocks;
mod servers;

use std::process::Child;
use std::time::Duration;

use runtree_testkit::history::monotonic_nanos;

use crate::histories::{Job, Scene};

/// Waits until something is true that the work of others makes true.
fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = monotonic_nanos() + 60_000_000_000;
    while !is_true() {
        assert!(monotonic_nanos() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Processes at work until they are told to stop.
struct Workers {
    all: Vec<(Job, Child)>,
}

impl Workers {
    fn start(scene: &mut Scene, count: u64) -> Self {
        let all = (0..count).map(|_| start_one(scene)).collect();
        let mut workers = Self { all };
        workers.wait_for_more(1);
        workers
    }

    /// Waits until each has recorded so many bytes more.
    fn wait_for_more(&mut self, bytes: u64) {
        for (job, child) in &mut self.all {
            let wanted = job.recorded() + bytes;
            wait_until(&job.history.display().to_string(), || {
                assert_eq!(child.try_wait().unwrap(), None, "{}", job.log());
                job.recorded() >= wanted
            });
        }
    }

    /// Kills one in the middle of its work and starts another in its place.
    fn kill(&mut self, at: usize, after_bytes: u64, scene: &mut Scene) {
        let (job, child) = &mut self.all[at];
        let wanted = job.recorded() + after_bytes;
        wait_until("a process works", || {
            assert_eq!(child.try_wait().unwrap(), None, "{}", job.log());
            job.recorded() >= wanted
        });
        child.kill().unwrap();
        child.wait().unwrap();
        self.all[at] = start_one(scene);
    }
}

fn start_one(scene: &mut Scene) -> (Job, Child) {
    let job = scene.next_job(u64::MAX);
    let child = job.spawn();
    (job, child)
}
