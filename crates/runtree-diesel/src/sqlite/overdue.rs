//! Runs whose deadline has passed: those that wait end, those that run are asked to stop, and end when they do not.

use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::Event;
use runtree_repository::{
    CancelCause, CancelMode, EventKind, Overdue, RepositoryError, RunSummary,
};

use super::end::{Ending, end_run};
use super::rows::IdRow;
use super::sql::Transaction;
use super::statement::Value;
use crate::row::status;

/// ?2 is now, ?3 the cause of an intent that deadlines made.
pub(super) const PASSED: &str = concat!(
    "SELECT r.id FROM runtree_runs r INDEXED BY runtree_runs_deadline \
     WHERE r.namespace = ?1 AND r.deadline_at <= ?2 AND r.ended_at IS NULL AND r.status IN (",
    status!(Pending),
    ", ",
    status!(Running),
    ") AND (r.cancel_requested_at IS NULL OR (r.cancel_cause = ?3 AND r.cancel_deadline <= ?2)) \
     ORDER BY r.deadline_at, r.id LIMIT ?4 + 0"
);

pub(super) fn time_out(
    transaction: &mut Transaction<'_>,
    overdue: &Overdue,
) -> Result<Vec<RunSummary>, RepositoryError> {
    let query = transaction
        .here(PASSED)
        .bind(transaction.now().as_unix_micros())
        .bind(CancelCause::Deadline.as_str())
        .bind(Value::count(overdue.limit.get()));
    let mut changed = Vec::new();
    for row in transaction.rows::<IdRow>(query)? {
        let id = row.decode()?;
        if end(transaction, id)? || ask(transaction, id, overdue.grace)? {
            changed.push(transaction.written_summary(id)?);
        }
    }
    Ok(changed)
}

/// Ends a run that waits, or that was asked to stop and has had its time; the owner of the latter is fenced.
fn end(transaction: &mut Transaction<'_>, id: RunId) -> Result<bool, RepositoryError> {
    const WAITING: &str = end_run!(
        "",
        concat!("status = ", status!(Pending), " AND deadline_at <= ?5")
    );
    const RUNNING: &str = end_run!(
        ", token = token + 1",
        concat!(
            "status = ",
            status!(Running),
            " AND deadline_at <= ?5 AND cancel_cause = ?6 AND cancel_deadline <= ?5"
        )
    );
    let ending = Ending::of(Event::TimeOut)?;
    let waiting = ending.statement(transaction, WAITING, &id);
    let is_done = transaction.applies(waiting)? || {
        let cause = CancelCause::Deadline.as_str();
        let running = ending.statement(transaction, RUNNING, &id).bind(cause);
        transaction.applies(running)?
    };
    if is_done {
        let token = transaction.written_summary(id)?.token;
        ending.follow_up(transaction, id, token)?;
    }
    Ok(is_done)
}

/// Asks a running run to stop.
fn ask(
    transaction: &mut Transaction<'_>,
    id: RunId,
    grace: Duration,
) -> Result<bool, RepositoryError> {
    const ASKED: &str = concat!(
        "UPDATE runtree_runs SET cancel_requested_at = ?3, cancel_mode = ?4, cancel_cause = ?5, cancel_deadline = ?6, \
         updated_at = max(?3, updated_at) WHERE namespace = ?1 AND id = ?2 AND status = ",
        status!(Running),
        " AND ended_at IS NULL AND cancel_requested_at IS NULL AND deadline_at <= ?3"
    );
    let now = transaction.now();
    let statement = transaction
        .here(ASKED)
        .bind(id.as_bytes())
        .bind(now.as_unix_micros())
        .bind(CancelMode::Graceful.as_str())
        .bind(CancelCause::Deadline.as_str())
        .bind(now.saturating_add(grace).as_unix_micros());
    let is_done = transaction.applies(statement)?;
    if is_done {
        let token = transaction.written_summary(id)?.token;
        transaction.record(id, EventKind::DeadlinePassed, token, None)?;
    }
    Ok(is_done)
}
