//! How a run ends or waits again, whoever moves it: the statements and what follows them in the same transaction.

use std::collections::BTreeMap;

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, Event, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CancelCause, Ending as OwnerEnding, ErrorKind, ErrorText, EventKind, LeaseRef, Outcome,
    RepositoryError, Run, RunSummary, Token, Write,
};
use serde_json::{Value as Json, json};

use super::rows::EndedRow;
use super::sql::{Transaction, among, plain, run_joins, select_runs, tags};
use super::statement::{Statement, Value};
use super::{own, worktree};
use crate::row::{RunRow, run_columns, status};

/// Ends a run for good: ?3 is the status, ?4 the reason, ?5 now. More changes and the guard follow. Where it is not only the run ?2,
/// what to begin with and which runs stand around the changes.
macro_rules! end_run {
    ($changes:literal, $guard:expr) => {
        end_run!("UPDATE", $changes, "= ?2", $guard)
    };
    ($update:literal, $changes:literal, $which:expr, $guard:expr) => {
        concat!(
            $update, " runtree_runs SET status = ?3, end_reason = ?4, ended_at = max(?5, coalesce(started_at, created_at)), ",
            "updated_at = max(?5, updated_at)", $changes, " WHERE namespace = ?1 AND id ", $which, " AND ended_at IS NULL AND ", $guard
        )
    };
}
pub(super) use end_run;

/// Lets a run wait again: ?3 is when it may start, ?4 now. More changes and the guard follow.
macro_rules! wait_again {
    ($changes:literal, $guard:expr) => {
        concat!(
            "UPDATE runtree_runs SET status = ",
            status!(Pending),
            ", available_at = ?3, updated_at = max(?4, updated_at)",
            $changes,
            " WHERE namespace = ?1 AND id = ?2 AND ended_at IS NULL AND ",
            $guard
        )
    };
}
pub(super) use wait_again;

/// Part of a guard: the run stops for this cause.
macro_rules! stop_cause {
    ($cause:literal) => {
        concat!("coalesce(cancel_cause, 'request') = ", $cause)
    };
}
pub(super) use stop_cause;

/// How a run ends that stops because it was asked to, for either cause: by this event when somebody asked, else by its deadline.
pub(super) const fn stops(event: Event) -> [(CancelCause, Event); 2] {
    [
        (CancelCause::Request, event),
        (CancelCause::Deadline, Event::TimeOut),
    ]
}

/// What the transition table says of an event that ends runs.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub(super) status: RunStatus,
    pub(super) reason: EndReason,
}

impl Ending {
    /// # Errors
    /// [`ErrorKind::Internal`] for an event that ends nothing.
    pub(super) fn of(event: Event) -> Result<Self, RepositoryError> {
        let transition = event.transition();
        match (transition.to, transition.end_reason) {
            (Some(status), Some(reason)) => Ok(Self { status, reason }),
            (_, _) => Err(RepositoryError::new(
                ErrorKind::Internal,
                format!("the event {event} ends no run"),
            )),
        }
    }

    /// The first five values of [`end_run`].
    pub(super) fn statement<'v>(
        &'v self,
        transaction: &Transaction<'v>,
        sql: &'static str,
        which: impl Into<Value<'v>>,
    ) -> Statement<'v> {
        transaction
            .here(sql)
            .bind(which)
            .bind(self.status.as_str())
            .bind(self.reason.as_str())
            .bind(transaction.now().as_unix_micros())
    }

    /// Does what follows the statement: the lease goes, the history grows, the worktrees are kept or marked for clean-up.
    pub(super) fn follow_up(
        self,
        transaction: &mut Transaction<'_>,
        id: RunId,
        token: Token,
    ) -> Result<(), RepositoryError> {
        drop_lease(transaction, id)?;
        transaction.record_stamped(id, self.kind(), token, Some(&self.detail()))?;
        worktree::leave(transaction, id, token)
    }

    /// The event that the history of the run grows by.
    fn kind(&self) -> EventKind {
        match self.status {
            RunStatus::Completed => EventKind::Completed,
            RunStatus::Killed => EventKind::Killed,
            RunStatus::Failed
            | RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Unknown(_)
            | _ => EventKind::Failed,
        }
    }

    fn detail(&self) -> Json {
        json!({ "reason": self.reason.as_str() })
    }
}

/// What an ending does, continuing "failed to".
pub(super) const DOING: &str = "end a run";

/// A run as an ending answers with it.
pub(crate) trait Shown: Sized {
    /// Reads a run that was written just before.
    fn one(transaction: &mut Transaction<'_>, id: RunId) -> Result<Self, RepositoryError>;

    /// Reads runs that were written just before.
    fn many(
        transaction: &mut Transaction<'_>,
        ids: &[RunId],
    ) -> Result<Vec<(RunId, Self)>, RepositoryError>;
}

impl Shown for RunSummary {
    fn one(transaction: &mut Transaction<'_>, id: RunId) -> Result<Self, RepositoryError> {
        transaction.written_summary(id)
    }

    fn many(
        transaction: &mut Transaction<'_>,
        ids: &[RunId],
    ) -> Result<Vec<(RunId, Self)>, RepositoryError> {
        const READ: &str = select_runs!(concat!("WHERE r.namespace = ?1 AND r.id ", among!()));
        let rows = transaction.rows::<RunRow>(transaction.here(READ).bind(Value::ids(ids)))?;
        rows.into_iter()
            .map(|row| row.decode().map(|run| (run.id, run)))
            .collect()
    }
}

impl Shown for Run {
    fn one(transaction: &mut Transaction<'_>, id: RunId) -> Result<Self, RepositoryError> {
        transaction.written_run(id)
    }

    fn many(
        transaction: &mut Transaction<'_>,
        ids: &[RunId],
    ) -> Result<Vec<(RunId, Self)>, RepositoryError> {
        transaction.runs(ids)
    }
}

/// Applies an owner's outcome.
pub(crate) fn end<T: Shown>(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    outcome: &Outcome,
) -> Result<Write<T>, RepositoryError> {
    match settle(transaction, lease, outcome)? {
        Write::Applied(()) => T::one(transaction, lease.run).map(Write::Applied),
        Write::Already(()) => T::one(transaction, lease.run).map(Write::Already),
        Write::Stale { current } => Ok(Write::Stale { current }),
        Write::NotFound => Ok(Write::NotFound),
    }
}

/// Applies owners' outcomes in their order.
///
/// Runs that are completed under the same token, which is what most endings are, are ended together: one statement for each step
/// instead of one for each step of each run. A run that is named twice has its endings one after the other; those of other runs do
/// not depend on it.
pub(super) fn end_many<T: Shown>(
    transaction: &mut Transaction<'_>,
    endings: &[OwnerEnding],
) -> Result<Vec<Write<T>>, RepositoryError> {
    let mut times: BTreeMap<RunId, usize> = BTreeMap::new();
    for ending in endings {
        *times.entry(ending.lease.run).or_default() += 1;
    }
    let mut alike: BTreeMap<Token, BTreeMap<RunId, &Outcome>> = BTreeMap::new();
    for OwnerEnding { lease, outcome } in endings {
        if matches!(outcome, Outcome::Completed { .. }) && times.get(&lease.run) == Some(&1) {
            alike
                .entry(lease.token)
                .or_default()
                .insert(lease.run, outcome);
        }
    }
    let mut completed = BTreeMap::new();
    for (token, outcomes) in alike {
        if outcomes.len() > 1 {
            completed.extend(complete_all(transaction, token, &outcomes)?);
        }
    }
    let mut answers = Vec::with_capacity(endings.len());
    for OwnerEnding { lease, outcome } in endings {
        // What is not among them was refused, or is to be ended alone.
        answers.push(match completed.remove(&lease.run) {
            Some(run) => Write::Applied(run),
            None => end(transaction, *lease, outcome)?,
        });
    }
    Ok(answers)
}

/// Completes these runs where this is the token of their owner, and answers with those that it completed.
fn complete_all<T: Shown>(
    transaction: &mut Transaction<'_>,
    token: Token,
    outcomes: &BTreeMap<RunId, &Outcome>,
) -> Result<Vec<(RunId, T)>, RepositoryError> {
    const COMPLETED: &str = concat!(
        end_run!(
            "UPDATE OR FAIL",
            "",
            among!(),
            concat!(
                "status = ",
                status!(Running),
                " AND token = ?6 AND EXISTS (SELECT 1 FROM runtree_run_leases l \
                 WHERE l.namespace = ?1 AND l.run_id = runtree_runs.id AND l.expires_at > ?5)"
            )
        ),
        " RETURNING id, EXISTS (SELECT 1 FROM runtree_run_worktrees w \
         WHERE w.namespace = ?1 AND w.run_id = runtree_runs.id) AS leaves_worktrees"
    );
    const LEASES: &str = concat!(
        "DELETE FROM runtree_run_leases WHERE namespace = ?1 AND run_id ",
        among!()
    );
    let ending = Ending::of(Event::Complete)?;
    let statement = ending
        .statement(transaction, COMPLETED, Value::ids(outcomes.keys()))
        .bind(token.get());
    let ended: Vec<EndedRow> = transaction.changed(statement)?;
    let ids = ended
        .iter()
        .map(EndedRow::decode)
        .collect::<Result<Vec<_>, _>>()?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    transaction.execute(transaction.here(LEASES).bind(Value::ids(&ids)))?;
    transaction.record_all(&ids, ending.kind(), token, &ending.detail())?;
    for (id, ended) in ids.iter().zip(&ended) {
        if ended.leaves_worktrees {
            worktree::leave(transaction, *id, token)?;
        }
    }
    for id in &ids {
        if let Some(outcome) = outcomes.get(id) {
            put_result(transaction, *id, outcome)?;
        }
    }
    T::many(transaction, &ids)
}

fn settle(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    outcome: &Outcome,
) -> Result<Write<()>, RepositoryError> {
    let id = lease.run;
    let (event, is_done) = match outcome {
        Outcome::Completed { .. } => {
            let is_done = complete(transaction, lease)?;
            if is_done {
                put_result(transaction, id, outcome)?;
            }
            (Event::Complete, is_done)
        }
        Outcome::Failed { error, retry_after } => {
            let retry_at = retry_after.map(|delay| transaction.now().saturating_add(delay));
            (Event::Fail, fail(transaction, lease, error, retry_at)?)
        }
        Outcome::Killed | _ => {
            const KILLED: &str = end_run!(
                "",
                concat!(
                    "status = ",
                    status!(Running),
                    " AND token = ?6 AND ",
                    stop_cause!("?7")
                )
            );
            let event = Event::AcknowledgeCancel;
            (event, end_stopped(transaction, lease, event, KILLED)?)
        }
    };
    if is_done {
        return Ok(Write::Applied(()));
    }
    match transaction.summary(id)? {
        Some(run) if run.token == lease.token && has_ended_so(&run, outcome) => {
            Ok(Write::Already(()))
        }
        Some(_) | None => own::stale(transaction, lease, event.as_str()),
    }
}

/// Stores the result of a run that was completed, if it has one.
fn put_result(
    transaction: &mut Transaction<'_>,
    id: RunId,
    outcome: &Outcome,
) -> Result<(), RepositoryError> {
    const RESULT: &str =
        "UPDATE runtree_run_payloads SET result = ?3 WHERE namespace = ?1 AND run_id = ?2";
    if let Outcome::Completed {
        result: Some(result),
    } = outcome
    {
        let statement = transaction.here(RESULT).bind(id.as_bytes());
        transaction.execute(statement.bind(result.to_string()))?;
    }
    Ok(())
}

/// Gives a run back, or ends it when it was asked to stop.
pub(super) fn release(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
) -> Result<Write<Run>, RepositoryError> {
    const RELEASED: &str = wait_again!(
        ", attempts = max(attempts - 1, 0)",
        concat!(
            "status = ",
            status!(Running),
            " AND token = ?5 AND cancel_requested_at IS NULL"
        )
    );
    let id = lease.run;
    if end_stopped(transaction, lease, Event::AcknowledgeCancel, STOPPED)? {
        return Ok(Write::Applied(transaction.written_run(id)?));
    }
    if wait(transaction, lease, RELEASED, transaction.now())? {
        transaction.record_stamped(id, EventKind::Released, lease.token, None)?;
        return Ok(Write::Applied(transaction.written_run(id)?));
    }
    own::stale(transaction, lease, Event::Release.as_str())
}

/// Ends a run that was asked to stop, under its owner's token.
const STOPPED: &str = end_run!(
    "",
    concat!(
        "status = ",
        status!(Running),
        " AND token = ?6 AND cancel_requested_at IS NOT NULL AND ",
        stop_cause!("?7")
    )
);

/// Takes the lease away.
pub(super) fn drop_lease(
    transaction: &mut Transaction<'_>,
    id: RunId,
) -> Result<(), RepositoryError> {
    const SQL: &str = "DELETE FROM runtree_run_leases WHERE namespace = ?1 AND run_id = ?2";
    transaction.execute(transaction.here(SQL).bind(id.as_bytes()))?;
    Ok(())
}

fn complete(transaction: &mut Transaction<'_>, lease: LeaseRef) -> Result<bool, RepositoryError> {
    const COMPLETED: &str = end_run!(
        "",
        concat!(
            "status = ",
            status!(Running),
            " AND token = ?6 AND EXISTS (SELECT 1 FROM runtree_run_leases l \
             WHERE l.namespace = ?1 AND l.run_id = ?2 AND l.expires_at > ?5)"
        )
    );
    end_by(transaction, lease, Event::Complete, COMPLETED)
}

/// Ends a failed attempt: as it was asked to stop when it was, waiting again when there is another attempt, else `failed`.
fn fail(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    error: &ErrorText,
    retry_at: Option<Timestamp>,
) -> Result<bool, RepositoryError> {
    const RETRIED: &str = wait_again!(
        "",
        concat!(
            "status = ",
            status!(Running),
            " AND token = ?5 AND cancel_requested_at IS NULL AND attempts < max_attempts"
        )
    );
    const FAILED: &str = end_run!(
        "",
        concat!(
            "status = ",
            status!(Running),
            " AND token = ?6 AND cancel_requested_at IS NULL"
        )
    );
    let is_done = end_stopped(transaction, lease, Event::FailCancelled, STOPPED)?
        || match retry_at {
            Some(at) if wait(transaction, lease, RETRIED, at)? => {
                let detail = json!({ "available_at": at });
                transaction.record_stamped(
                    lease.run,
                    EventKind::RetryPlanned,
                    lease.token,
                    Some(&detail),
                )?;
                true
            }
            Some(_) | None => end_by(transaction, lease, Event::Fail, FAILED)?,
        };
    if is_done {
        const ERROR: &str =
            "UPDATE runtree_run_payloads SET error = ?3 WHERE namespace = ?1 AND run_id = ?2";
        transaction.execute(
            transaction
                .here(ERROR)
                .bind(lease.run.as_bytes())
                .bind(error.as_str()),
        )?;
    }
    Ok(is_done)
}

/// As [`end_by`], for a run that was asked to stop: the guard asks for the cause as ?7, and the cause says how the run ends.
fn end_stopped(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    event: Event,
    sql: &'static str,
) -> Result<bool, RepositoryError> {
    for (cause, event) in stops(event) {
        let ending = Ending::of(event)?;
        let statement = ending
            .statement(transaction, sql, &lease.run)
            .bind(lease.token.get())
            .bind(cause.as_str());
        if transaction.applies(statement)? {
            ending.follow_up(transaction, lease.run, lease.token)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Executes a statement of [`end_run`] whose guard asks for the owner's token as ?6, and what follows.
fn end_by(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    event: Event,
    sql: &'static str,
) -> Result<bool, RepositoryError> {
    let ending = Ending::of(event)?;
    let statement = ending
        .statement(transaction, sql, &lease.run)
        .bind(lease.token.get());
    let is_done = transaction.applies(statement)?;
    if is_done {
        ending.follow_up(transaction, lease.run, lease.token)?;
    }
    Ok(is_done)
}

/// Executes a statement of [`wait_again`] whose guard asks for the owner's token as ?5; the lease goes.
fn wait(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    sql: &'static str,
    at: Timestamp,
) -> Result<bool, RepositoryError> {
    let statement = transaction
        .here(sql)
        .bind(lease.run.as_bytes())
        .bind(at.as_unix_micros())
        .bind(transaction.now().as_unix_micros())
        .bind(lease.token.get());
    let is_done = transaction.applies(statement)?;
    if is_done {
        drop_lease(transaction, lease.run)?;
    }
    Ok(is_done)
}

/// Tells whether the run ended as this outcome would have ended it.
fn has_ended_so(run: &RunSummary, outcome: &Outcome) -> bool {
    let cause = run.cancel.as_ref().map(|cancel| cancel.cause);
    let status = match outcome {
        Outcome::Completed { .. } => Some(RunStatus::Completed),
        Outcome::Failed { .. } if cause.is_none() => Some(RunStatus::Failed),
        Outcome::Failed { .. } | Outcome::Killed | _ => {
            cause.unwrap_or_default().end_reason().status()
        }
    };
    run.has_ended() && Some(run.status) == status
}
