//! Taking runs away from owners that are gone.

use std::collections::BTreeSet;

use async_trait::async_trait;
use runtree_repository::status::{Event, RunStatus};
use runtree_repository::{
    CancelCause, EventKind, HostName, Lease, LeaseRef, Overdue, RepositoryError, Rescue,
    RescueRuns, Rescued, RunSummary, Token,
};
use serde_json::json;

use super::SqliteRepository;
use super::end::{Ending, drop_lease, end_run, stop_cause, stops, wait_again};
use super::overdue;
use super::rows::LeaseRefRow;
use super::sql::{Transaction, plain};
use super::statement::Value;
use crate::row::{LeaseRow, lease_columns, status};

pub(super) const LEASES: &str = concat!(
    "SELECT ",
    lease_columns!(plain, plain, plain),
    " FROM runtree_runs r INDEXED BY runtree_runs_running",
    " JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id",
    " WHERE r.namespace = ?1 AND r.status = ",
    status!(Running),
    " AND (?2 IS NULL OR l.owner_host = ?2) ORDER BY r.id"
);

pub(super) const EXPIRED: &str = concat!(
    "SELECT r.id, r.token FROM runtree_runs r INDEXED BY runtree_runs_running \
     LEFT JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id \
     WHERE r.namespace = ?1 AND r.status = ",
    status!(Running),
    " AND r.ended_at IS NULL AND (l.expires_at IS NULL OR l.expires_at <= ?2) \
     ORDER BY l.expires_at, r.id LIMIT ?3 + 0"
);

#[async_trait]
impl RescueRuns for SqliteRepository {
    async fn leases(&self, host: Option<&HostName>) -> Result<Vec<Lease>, RepositoryError> {
        let host = host.cloned();
        self.read("read the leases", move |transaction| {
            let query = transaction
                .here(LEASES)
                .bind(host.as_ref().map(AsRef::<str>::as_ref));
            transaction
                .rows::<LeaseRow>(query)?
                .into_iter()
                .map(LeaseRow::decode)
                .collect()
        })
        .await
    }

    async fn rescue(&self, rescue: &Rescue) -> Result<Vec<Rescued>, RepositoryError> {
        let rescue = rescue.clone();
        self.write("rescue runs", move |transaction| {
            rescue_runs(transaction, &rescue)
        })
        .await
    }

    async fn time_out(&self, overdue: &Overdue) -> Result<Vec<RunSummary>, RepositoryError> {
        let overdue = overdue.clone();
        self.write("look at deadlines", move |transaction| {
            overdue::time_out(transaction, &overdue)
        })
        .await
    }
}

/// Why a run may be taken away; part of the guard.
#[derive(Clone, Copy)]
enum Proof {
    /// The owner was proven dead.
    Dead,
    /// The lease has expired, or there is none.
    Expired,
}

fn rescue_runs(
    transaction: &mut Transaction<'_>,
    rescue: &Rescue,
) -> Result<Vec<Rescued>, RepositoryError> {
    let mut rescued = Vec::new();
    let dead: BTreeSet<LeaseRef> = rescue.proven_dead.iter().copied().collect();
    for lease in dead {
        rescued.extend(rescue_run(transaction, lease, Proof::Dead)?);
    }
    // What was rescued just now runs no more, so the limit counts others; as many more as may have to be spared.
    let limit = rescue.limit.get();
    let query = transaction
        .here(EXPIRED)
        .bind(transaction.now().as_unix_micros())
        .bind(Value::count(limit.saturating_add(rescue.spare.len())));
    let mut expired = Vec::new();
    for row in transaction.rows::<LeaseRefRow>(query)? {
        let lease = row.decode()?;
        if !rescue.spare.contains(&lease.run) {
            expired.push(lease);
        }
    }
    for lease in expired.into_iter().take(limit) {
        rescued.extend(rescue_run(transaction, lease, Proof::Expired)?);
    }
    Ok(rescued)
}

/// Takes one run away if it still runs under the observed token.
fn rescue_run(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    proof: Proof,
) -> Result<Option<Rescued>, RepositoryError> {
    const KILLED: &str = end_run!(
        ", token = token + 1",
        concat!(
            "status = ",
            status!(Running),
            " AND token = ?6 AND cancel_requested_at IS NOT NULL AND (?7 OR NOT EXISTS (SELECT 1 \
             FROM runtree_run_leases l WHERE l.namespace = ?1 AND l.run_id = ?2 AND l.expires_at > ?5)) AND ",
            stop_cause!("?8")
        )
    );
    const WAITING: &str = wait_again!(
        ", token = token + 1",
        concat!(
            "status = ",
            status!(Running),
            " AND token = ?5 AND cancel_requested_at IS NULL AND attempts < max_attempts AND (?6 OR NOT EXISTS \
             (SELECT 1 FROM runtree_run_leases l WHERE l.namespace = ?1 AND l.run_id = ?2 AND l.expires_at > ?4))"
        )
    );
    const LOST: &str = end_run!(
        ", token = token + 1",
        concat!(
            "status = ",
            status!(Running),
            " AND token = ?6 AND cancel_requested_at IS NULL AND (?7 OR NOT EXISTS (SELECT 1 \
             FROM runtree_run_leases l WHERE l.namespace = ?1 AND l.run_id = ?2 AND l.expires_at > ?5))"
        )
    );
    let mut is_done = false;
    for (cause, event) in stops(Event::RescueKilled) {
        is_done = is_done || give_up(transaction, lease, proof, event, KILLED, Some(cause))?;
    }
    let is_done = is_done
        || wait(transaction, lease, proof, WAITING)?
        || give_up(transaction, lease, proof, Event::RescueLost, LOST, None)?;
    if is_done {
        Ok(Some(Rescued::new(
            lease,
            transaction.written_summary(lease.run)?,
        )))
    } else {
        Ok(None)
    }
}

fn give_up(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    proof: Proof,
    event: Event,
    sql: &'static str,
    cause: Option<CancelCause>,
) -> Result<bool, RepositoryError> {
    let ending = Ending::of(event)?;
    let statement = ending
        .statement(transaction, sql, &lease.run)
        .bind(lease.token.get())
        .bind(proof.is_enough())
        .bind_all(cause.map(|cause| cause.as_str().into()));
    let is_done = transaction.applies(statement)?;
    if is_done {
        let token = record(transaction, lease, ending.status)?;
        ending.follow_up(transaction, lease.run, token)?;
    }
    Ok(is_done)
}

fn wait(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    proof: Proof,
    sql: &'static str,
) -> Result<bool, RepositoryError> {
    let now = transaction.now().as_unix_micros();
    let statement = transaction
        .here(sql)
        .bind(lease.run.as_bytes())
        .bind(now)
        .bind(now)
        .bind(lease.token.get())
        .bind(proof.is_enough());
    let is_done = transaction.applies(statement)?;
    if is_done {
        record(transaction, lease, RunStatus::Pending)?;
        drop_lease(transaction, lease.run)?;
    }
    Ok(is_done)
}

/// Adds the rescue to the history, under the token that fences the old owner.
fn record(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    to: RunStatus,
) -> Result<Token, RepositoryError> {
    let token = lease.token.next();
    transaction.record(
        lease.run,
        EventKind::Rescued,
        token,
        Some(&json!({ "to": to.as_str() })),
    )?;
    Ok(token)
}

impl Proof {
    /// As the guards ask: whether the lease need not have expired.
    fn is_enough(self) -> i64 {
        match self {
            Self::Dead => 1,
            Self::Expired => 0,
        }
    }
}
