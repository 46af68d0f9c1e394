//! Takes the instants out of answers, to compare those of a backend whose clock is its server's.

use std::time::Duration;

use runtree_repository::time::Timestamp;
use runtree_repository::{
    CancelIntent, Claimed, CleanupLease, CleanupTask, Created, Lease, Measure, Renewal, Rescued,
    Run, RunEvent, RunStatistics, RunSummary, WorktreeRecord, Write,
};

/// An answer that holds instants which the store stamped.
pub(super) trait Timeless {
    /// Makes every one of them the same; those that are not there stay away.
    fn forget_instants(&mut self);
}

fn forget(at: &mut Timestamp) {
    *at = Timestamp::UNIX_EPOCH;
}

impl Timeless for () {
    fn forget_instants(&mut self) {}
}

impl Timeless for u64 {
    fn forget_instants(&mut self) {}
}

impl Timeless for runtree_repository::id::RunId {
    fn forget_instants(&mut self) {}
}

impl<T: Timeless> Timeless for Vec<T> {
    fn forget_instants(&mut self) {
        self.iter_mut().for_each(T::forget_instants);
    }
}

impl<T: Timeless> Timeless for Option<T> {
    fn forget_instants(&mut self) {
        self.iter_mut().for_each(T::forget_instants);
    }
}

impl Timeless for Timestamp {
    fn forget_instants(&mut self) {
        forget(self);
    }
}

impl Timeless for CancelIntent {
    fn forget_instants(&mut self) {
        forget(&mut self.requested_at);
        self.deadline.forget_instants();
    }
}

impl Timeless for RunSummary {
    fn forget_instants(&mut self) {
        // The run's own deadline is the caller's, and stays.
        forget(&mut self.available_at);
        forget(&mut self.created_at);
        forget(&mut self.updated_at);
        self.lease_expires_at.forget_instants();
        self.started_at.forget_instants();
        self.ended_at.forget_instants();
        self.cancel.forget_instants();
    }
}

impl Timeless for Run {
    fn forget_instants(&mut self) {
        self.summary.forget_instants();
    }
}

impl Timeless for Created {
    fn forget_instants(&mut self) {
        match self {
            Self::New(run) | Self::Existing(run) | Self::Conflict { existing: run, .. } => {
                run.forget_instants();
            }
        }
    }
}

impl<T: Timeless> Timeless for Write<T> {
    fn forget_instants(&mut self) {
        match self {
            Self::Applied(value) | Self::Already(value) => value.forget_instants(),
            Self::Stale { current } => current.forget_instants(),
            Self::NotFound => {}
        }
    }
}

impl Timeless for Claimed {
    fn forget_instants(&mut self) {
        forget(&mut self.expires_at);
        self.run.forget_instants();
        self.worktree.forget_instants();
    }
}

impl Timeless for Renewal {
    fn forget_instants(&mut self) {
        match self {
            Self::Renewed { expires_at, cancel } => {
                forget(expires_at);
                cancel.forget_instants();
            }
            Self::Lost => {}
        }
    }
}

impl Timeless for Lease {
    fn forget_instants(&mut self) {
        forget(&mut self.heartbeat_at);
        forget(&mut self.expires_at);
    }
}

impl Timeless for WorktreeRecord {
    fn forget_instants(&mut self) {
        forget(&mut self.created_at);
        forget(&mut self.updated_at);
    }
}

impl Timeless for CleanupTask {
    fn forget_instants(&mut self) {
        forget(&mut self.expires_at);
        self.worktree.forget_instants();
    }
}

impl Timeless for CleanupLease {
    fn forget_instants(&mut self) {
        forget(&mut self.expires_at);
    }
}

impl Timeless for Rescued {
    fn forget_instants(&mut self) {
        self.run.forget_instants();
    }
}

impl Timeless for RunEvent {
    fn forget_instants(&mut self) {
        forget(&mut self.at);
    }
}

impl Timeless for RunStatistics {
    fn forget_instants(&mut self) {
        for measure in [&mut self.duration, &mut self.waiting] {
            let Measure {
                mean,
                median,
                p90,
                p99,
                max,
                ..
            } = measure;
            for time in [mean, median, p90, p99, max] {
                *time = Duration::ZERO;
            }
        }
    }
}
