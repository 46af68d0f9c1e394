//! Says why a run stands where it stands: the run and its surroundings, read in one snapshot.

use runtree_repository::id::RunId;
use runtree_repository::{Explanation, RepositoryError, RunSummary, Surroundings};

use super::rows::{IdRow, NumberRow};
use super::sql::{Transaction, plain};
use crate::row::{LeaseRow, amount, lease_columns, status};

/// The lease of a run, whatever its status.
pub(super) const LEASE: &str = concat!(
    "SELECT ",
    lease_columns!(plain, plain, plain),
    " FROM runtree_runs r JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id",
    " WHERE r.namespace = ?1 AND r.id = ?2"
);

/// The other runs with a concurrency key that hold a live lease: ?3 is the run itself, ?4 now.
pub(super) const HOLDERS: &str = concat!(
    "SELECT r.id FROM runtree_runs r INDEXED BY runtree_runs_concurrency \
     JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id \
     WHERE r.namespace = ?1 AND r.concurrency_key = ?2 AND r.status = ",
    status!(Running),
    " AND r.id <> ?3 AND l.expires_at > ?4 ORDER BY r.id"
);

/// How many due runs of the queue ?2 go before the priority ?3, the creation instant ?4 and the run ?5; ?6 is now.
pub(super) const AHEAD: &str = concat!(
    "SELECT count(*) AS number FROM runtree_runs r INDEXED BY runtree_runs_queue \
     WHERE r.namespace = ?1 AND r.queue = ?2 AND r.status = ",
    status!(Pending),
    " AND r.ended_at IS NULL AND r.cancel_requested_at IS NULL AND r.priority >= ?3 \
     AND (r.priority > ?3 OR (r.created_at, r.id) < (?4, ?5)) AND r.available_at <= ?6"
);

pub(super) fn explain(
    transaction: &mut Transaction<'_>,
    id: RunId,
) -> Result<Option<Explanation>, RepositoryError> {
    let Some(run) = transaction.summary(id)? else {
        return Ok(None);
    };
    let lease = transaction.row::<LeaseRow>(transaction.here(LEASE).bind(id.as_bytes()))?;
    let seen = Surroundings {
        lease: lease.map(LeaseRow::decode).transpose()?,
        holders: holders(transaction, &run)?,
        ahead: ahead(transaction, &run)?,
    };
    Ok(Some(Explanation::new(run, transaction.now(), &seen)))
}

fn holders(
    transaction: &mut Transaction<'_>,
    run: &RunSummary,
) -> Result<Vec<RunId>, RepositoryError> {
    let Some(used) = &run.concurrency else {
        return Ok(Vec::new());
    };
    let query = transaction
        .here(HOLDERS)
        .bind(used.key.as_str())
        .bind(run.id.as_bytes())
        .bind(transaction.now().as_unix_micros());
    let rows = transaction.rows::<IdRow>(query)?;
    rows.into_iter().map(IdRow::decode).collect()
}

fn ahead(transaction: &mut Transaction<'_>, run: &RunSummary) -> Result<u64, RepositoryError> {
    let query = transaction
        .here(AHEAD)
        .bind(run.queue.as_str())
        .bind(i64::from(run.priority.get()))
        .bind(run.created_at.as_unix_micros())
        .bind(run.id.as_bytes())
        .bind(transaction.now().as_unix_micros());
    let row = transaction.row::<NumberRow>(query)?;
    amount("number of runs", row.map_or(0, |row| row.number))
}
