//! Renews the leases of owned runs by itself, however long their work takes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use runtree_repository::{ErrorKind, LeaseRef, Renewal, RepositoryError};
use tokio::time::Instant;

use crate::coordinator::Inner;
use crate::owner::{Identity, Signals};

/// After an error the renewal is tried again this soon.
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// Renews what the coordinator owns until the coordinator is dropped.
pub(crate) fn spawn(inner: &Arc<Inner>) {
    let weak = Arc::downgrade(inner);
    let period = inner.me.lease_time.get() / 3;
    drop(tokio::spawn(run(weak, period)));
}

async fn run(inner: Weak<Inner>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        // No handle is left: nobody can own a run any more.
        let Some(inner) = inner.upgrade() else { return };
        while !renew_all(&inner).await {
            tokio::time::sleep(AFTER_ERROR.min(period)).await;
        }
    }
}

/// Renews every lease; answers whether the run repository could be asked.
async fn renew_all(inner: &Inner) -> bool {
    let mut asked = true;
    for batch in inner.owned.all().chunks(Identity::BATCH.get()) {
        asked &= renew(inner, batch).await;
    }
    asked
}

async fn renew(inner: &Inner, batch: &[(LeaseRef, Arc<Signals>)]) -> bool {
    let leases: Vec<LeaseRef> = batch.iter().map(|(lease, _)| *lease).collect();
    // The lease counts from before the question: the answer may have taken long.
    let asked_at = Instant::now();
    let lease_time = inner.me.lease_time;
    // An answer that does not come is as bad as an error: the leases run on meanwhile.
    let patience = lease_time.get() / 3;
    let answer = tokio::time::timeout(patience, inner.runs.renew(&leases, lease_time)).await;
    let answer = answer.unwrap_or_else(|_| {
        let message = format!("no answer within {patience:?}");
        Err(RepositoryError::new(ErrorKind::Unavailable, message))
    });
    match answer {
        Ok(answers) => {
            for ((lease, signals), answer) in batch.iter().zip(answers) {
                match answer {
                    Renewal::Renewed { cancel, .. } => {
                        signals.renewed(asked_at + lease_time.get());
                        cancel.into_iter().for_each(|intent| signals.cancel(intent));
                    }
                    Renewal::Lost => {
                        tracing::warn!(run = %lease.run, token = %lease.token, "the run is lost");
                        signals.lose();
                    }
                }
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, leases = leases.len(), "the leases could not be renewed");
            // A lease that cannot be renewed in time is lost, whoever may have it by then.
            let now = Instant::now();
            let overdue = batch.iter().filter(|(_, signals)| signals.is_overdue(now));
            overdue.for_each(|(_, signals)| signals.lose());
            false
        }
    }
}
