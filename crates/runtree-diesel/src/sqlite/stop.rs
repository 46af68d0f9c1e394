//! Stopping runs without their owners' tokens.

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::status::{Event, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CancelIntent, CancelMode, CancelRequest, EventKind, RepositoryError, Run, StopRuns, Write,
};
use serde_json::json;

use super::SqliteRepository;
use super::end::{Ending, end_run};
use super::own;
use super::sql::Transaction;
use super::statement::Statement;
use crate::row::status;

#[async_trait]
impl StopRuns for SqliteRepository {
    async fn cancel(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        let request = request.clone();
        self.write("cancel a run", move |transaction| {
            cancel(transaction, id, &request)
        })
        .await
    }

    async fn force_kill(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        let request = request.clone();
        self.write("kill a run", move |transaction| {
            let is_done = cancel_waiting(transaction, id, &request)?
                || kill_running(transaction, id, &request)?;
            answer(transaction, id, is_done)
        })
        .await
    }
}

/// Ends a run that waits, or asks one that runs to stop.
pub(crate) fn cancel(
    transaction: &mut Transaction<'_>,
    id: RunId,
    request: &CancelRequest,
) -> Result<Write<Run>, RepositoryError> {
    let is_done =
        cancel_waiting(transaction, id, request)? || cancel_running(transaction, id, request)?;
    answer(transaction, id, is_done)
}

/// Ends a run that waits.
fn cancel_waiting(
    transaction: &mut Transaction<'_>,
    id: RunId,
    request: &CancelRequest,
) -> Result<bool, RepositoryError> {
    const CANCELLED: &str = end_run!(
        ", cancel_requested_at = ?6, cancel_mode = ?7, cancel_deadline = ?8, cancel_reason = ?9, cancelled_by = ?10",
        concat!("status = ", status!(Pending))
    );
    end_without_owner(
        transaction,
        id,
        request,
        Event::CancelBeforeStart,
        CANCELLED,
    )
}

/// Ends a run that runs and fences its owner; an intent that was recorded before stays as it is.
fn kill_running(
    transaction: &mut Transaction<'_>,
    id: RunId,
    request: &CancelRequest,
) -> Result<bool, RepositoryError> {
    const KILLED: &str = end_run!(
        ", token = token + 1, cancel_requested_at = coalesce(cancel_requested_at, ?6), \
         cancel_mode = CASE WHEN cancel_requested_at IS NULL THEN ?7 ELSE cancel_mode END, \
         cancel_deadline = CASE WHEN cancel_requested_at IS NULL THEN ?8 ELSE cancel_deadline END, \
         cancel_reason = CASE WHEN cancel_requested_at IS NULL THEN ?9 ELSE cancel_reason END, \
         cancelled_by = CASE WHEN cancel_requested_at IS NULL THEN ?10 ELSE cancelled_by END",
        concat!("status = ", status!(Running))
    );
    end_without_owner(transaction, id, request, Event::ForceKill, KILLED)
}

fn end_without_owner(
    transaction: &mut Transaction<'_>,
    id: RunId,
    request: &CancelRequest,
    event: Event,
    sql: &'static str,
) -> Result<bool, RepositoryError> {
    let ending = Ending::of(event)?;
    let intent = CancelIntent::of(request, transaction.now());
    let statement = bind_intent(ending.statement(transaction, sql, &id), &intent);
    let is_done = transaction.applies(statement)?;
    if is_done {
        let token = transaction.written_summary(id)?.token;
        ending.follow_up(transaction, id, token)?;
    }
    Ok(is_done)
}

/// Records that somebody wants a running run to stop, or that it is to stop at once after all.
fn cancel_running(
    transaction: &mut Transaction<'_>,
    id: RunId,
    request: &CancelRequest,
) -> Result<bool, RepositoryError> {
    const NEW: &str = concat!(
        "UPDATE runtree_runs SET cancel_requested_at = ?3, cancel_mode = ?4, cancel_cause = NULL, cancel_deadline = ?5, cancel_reason = ?6, \
         cancelled_by = ?7, updated_at = max(?3, updated_at) \
         WHERE namespace = ?1 AND id = ?2 AND status = ",
        status!(Running),
        " AND ended_at IS NULL AND cancel_requested_at IS NULL"
    );
    const FORCED: &str = concat!(
        "UPDATE runtree_runs SET cancel_mode = ?4, cancel_deadline = coalesce(?5, cancel_deadline), \
         cancel_reason = coalesce(?6, cancel_reason), cancelled_by = coalesce(?7, cancelled_by), updated_at = max(?3, updated_at) \
         WHERE namespace = ?1 AND id = ?2 AND status = ",
        status!(Running),
        " AND ended_at IS NULL AND cancel_mode = 'graceful'"
    );
    let intent = CancelIntent::of(request, transaction.now());
    let mut is_done = transaction.applies(bind_intent(
        transaction.here(NEW).bind(id.as_bytes()),
        &intent,
    ))?;
    if !is_done && request.mode == CancelMode::Forced {
        is_done = transaction.applies(bind_intent(
            transaction.here(FORCED).bind(id.as_bytes()),
            &intent,
        ))?;
    }
    if is_done {
        let run = transaction.written_summary(id)?;
        let intent = run
            .cancel
            .as_ref()
            .map(|intent| json!({ "mode": intent.mode.as_str(), "by": intent.by }));
        transaction.record(id, EventKind::CancelRequested, run.token, intent.as_ref())?;
    }
    Ok(is_done)
}

fn bind_intent<'v>(statement: Statement<'v>, intent: &'v CancelIntent) -> Statement<'v> {
    statement
        .bind(intent.requested_at.as_unix_micros())
        .bind(intent.mode.as_str())
        .bind(intent.deadline.map(Timestamp::as_unix_micros))
        .bind(intent.reason.as_ref().map(AsRef::<str>::as_ref))
        .bind(intent.by.as_ref().map(AsRef::<str>::as_ref))
}

fn answer(
    transaction: &mut Transaction<'_>,
    id: RunId,
    is_done: bool,
) -> Result<Write<Run>, RepositoryError> {
    let Some(run) = transaction.run(id)? else {
        return Ok(Write::NotFound);
    };
    if is_done {
        Ok(Write::Applied(run))
    } else if run.has_ended() || run.status == RunStatus::Running {
        Ok(Write::Already(run))
    } else {
        own::current(transaction, id)
    }
}
