//! This process as an owner of runs, and which runs it owns right now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtree_id::RunId;
use runtree_repository::{CancelIntent, LeaseRef, LeaseTime, Limit, Owner, WorktreeSite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What an owner is told about a run it owns.
#[derive(Debug)]
pub(crate) struct Signals {
    cancel: watch::Sender<Option<CancelIntent>>,
    lost: CancellationToken,
    /// Until when the lease holds by this process's own monotonic clock.
    valid_until: Mutex<Instant>,
}

impl Signals {
    fn new(valid_until: Instant) -> Self {
        Self {
            cancel: watch::Sender::new(None),
            lost: CancellationToken::new(),
            valid_until: Mutex::new(valid_until),
        }
    }

    /// Notes that the lease holds until then.
    pub(crate) fn renewed(&self, valid_until: Instant) {
        *self
            .valid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = valid_until;
    }

    /// Tells whether the lease has run out by this process's own clock.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        *self
            .valid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            <= now
    }

    /// Tells that somebody wants the run to stop; a weaker wish than the one known changes nothing.
    pub(crate) fn cancel(&self, intent: CancelIntent) {
        self.cancel.send_if_modified(|known| {
            let is_news = known.as_ref().is_none_or(|known| known.mode < intent.mode);
            if is_news {
                *known = Some(intent);
            }
            is_news
        });
    }

    /// Tells that the run is no longer ours.
    pub(crate) fn lose(&self) {
        self.lost.cancel();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    pub(crate) fn watch_cancel(&self) -> watch::Receiver<Option<CancelIntent>> {
        self.cancel.subscribe()
    }
}

/// The runs that this coordinator owns, by lease.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnedRuns(Arc<Mutex<BTreeMap<LeaseRef, Arc<Signals>>>>);

impl OwnedRuns {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<LeaseRef, Arc<Signals>>> {
        // The map is whole between any two statements, so a panic elsewhere has not harmed it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews this lease from now on, until the answer is dropped.
    pub(crate) fn hold(&self, lease: LeaseRef, valid_until: Instant) -> Held {
        let signals = Arc::new(Signals::new(valid_until));
        self.lock().insert(lease, Arc::clone(&signals));
        Held {
            lease,
            signals,
            owned: self.clone(),
        }
    }

    pub(crate) fn all(&self) -> Vec<(LeaseRef, Arc<Signals>)> {
        let owned = self.lock();
        owned
            .iter()
            .map(|(lease, signals)| (*lease, Arc::clone(signals)))
            .collect()
    }

    /// Tells the owner of this run, if it is here.
    pub(crate) fn of_run(&self, run: RunId) -> Vec<Arc<Signals>> {
        let owned = self.lock();
        let of_run = owned.iter().filter(|(lease, _)| lease.run == run);
        of_run.map(|(_, signals)| Arc::clone(signals)).collect()
    }
}

/// A lease that is renewed for as long as this lives.
///
/// Dropped without an ending, it is no longer renewed: the run is taken up when the lease expires.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) lease: LeaseRef,
    pub(crate) signals: Arc<Signals>,
    owned: OwnedRuns,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.owned.lock().remove(&self.lease);
    }
}

/// Who this coordinator is towards the run repository, and where its worktrees are.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) owner: Owner,
    pub(crate) site: WorktreeSite,
    pub(crate) lease_time: LeaseTime,
}

impl Identity {
    /// How many leases one call renews, and how many clean-ups one call takes.
    pub(crate) const BATCH: Limit = Limit::MAX;
}
