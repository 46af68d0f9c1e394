//! The records of worktrees, and the durable wishes to clean them up.

use async_trait::async_trait;
use runtree_repository::{
    CleanUpWorktrees, CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask,
    EventKind, HostName, HostPath, RepositoryError, WorktreeKey, WorktreeQuery, WorktreeRecord,
    WorktreeState, Write,
};
use serde_json::{Value as Json, json};

use super::SqliteRepository;
use super::own;
use super::rows::WorktreeKeyRow;
use super::sql::{Transaction, plain};
use super::statement::Value;
use super::worktree::{self, select_worktrees};
use crate::row::{
    CleanupLeaseRow, CleanupRow, WorktreeRow, cleanup_columns, cleanup_lease_columns,
    worktree_columns,
};

pub(super) const OF_SITE: &str = select_worktrees!(
    "INDEXED BY runtree_run_worktrees_site WHERE w.namespace = ?1 AND w.host = ?2 AND w.git_repository = ?3 AND w.state <> 'removed' ORDER BY w.run_id, w.planned_by"
);

pub(super) const DUE: &str = "SELECT c.run_id, c.planned_by FROM runtree_run_cleanup c \
     JOIN runtree_run_worktrees w ON w.namespace = c.namespace AND w.run_id = c.run_id AND w.planned_by = c.planned_by \
     WHERE c.namespace = ?1 AND w.host = ?2 AND w.git_repository = ?3 AND w.state IN ('adding', 'ready') \
         AND c.available_at <= ?4 AND (c.expires_at IS NULL OR c.expires_at <= ?4) AND (?5 IS NULL OR c.run_id = ?5) \
     ORDER BY c.wanted_at, c.run_id, c.planned_by LIMIT ?6 + 0";

pub(super) const HELD: &str = concat!(
    "SELECT ",
    cleanup_lease_columns!(plain, plain, plain),
    " FROM runtree_run_cleanup c JOIN runtree_run_worktrees w",
    " ON w.namespace = c.namespace AND w.run_id = c.run_id AND w.planned_by = c.planned_by",
    " WHERE c.namespace = ?1 AND w.host = ?2 AND w.git_repository = ?3 AND c.expires_at IS NOT NULL",
    " ORDER BY c.run_id, c.planned_by"
);

#[async_trait]
impl CleanUpWorktrees for SqliteRepository {
    async fn worktrees(
        &self,
        query: &WorktreeQuery,
    ) -> Result<Vec<WorktreeRecord>, RepositoryError> {
        let query = query.clone();
        self.read("read the worktrees", move |transaction| {
            worktrees(transaction, &query)
        })
        .await
    }

    async fn claim_cleanups(
        &self,
        claim: &CleanupClaim,
    ) -> Result<Vec<CleanupTask>, RepositoryError> {
        let claim = claim.clone();
        self.write("claim clean-ups", move |transaction| {
            claim_cleanups(transaction, &claim)
        })
        .await
    }

    async fn cleanup_leases(
        &self,
        host: &HostName,
        git_repository: &HostPath,
    ) -> Result<Vec<CleanupLease>, RepositoryError> {
        let (host, git_repository) = (host.clone(), git_repository.clone());
        self.read("read the held clean-ups", move |transaction| {
            let query = transaction
                .here(HELD)
                .bind(host.as_str())
                .bind(git_repository.as_str());
            let rows = transaction.rows::<CleanupLeaseRow>(query)?;
            rows.into_iter().map(CleanupLeaseRow::decode).collect()
        })
        .await
    }

    async fn free_cleanups(&self, proven_dead: &[CleanupRef]) -> Result<(), RepositoryError> {
        const FREE: &str = "UPDATE runtree_run_cleanup \
             SET owner_id = NULL, owner_host = NULL, owner_process = NULL, expires_at = NULL \
             WHERE namespace = ?1 AND run_id = ?2 AND planned_by = ?3 AND token = ?4";
        let proven_dead = proven_dead.to_vec();
        self.write("free clean-ups", move |transaction| {
            for dead in &proven_dead {
                let free = transaction
                    .here(FREE)
                    .bind(dead.worktree.run.as_bytes())
                    .bind(dead.worktree.planned_by.get())
                    .bind(dead.token.get());
                transaction.applies(free)?;
            }
            Ok(())
        })
        .await
    }

    async fn finish_cleanup(
        &self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Result<Write<WorktreeRecord>, RepositoryError> {
        let outcome = outcome.clone();
        self.write("finish a clean-up", move |transaction| {
            finish(transaction, cleanup, &outcome)
        })
        .await
    }
}

fn worktrees(
    transaction: &mut Transaction<'_>,
    query: &WorktreeQuery,
) -> Result<Vec<WorktreeRecord>, RepositoryError> {
    const OF_RUN: &str =
        select_worktrees!("WHERE w.namespace = ?1 AND w.run_id = ?2 ORDER BY w.planned_by");
    let query = match query {
        WorktreeQuery::Site {
            host,
            git_repository,
        } => transaction
            .here(OF_SITE)
            .bind(host.as_str())
            .bind(git_repository.as_str()),
        WorktreeQuery::Run(id) => transaction.here(OF_RUN).bind(id.as_bytes()),
        _ => {
            let message = format!("this store cannot list worktrees by {query:?}");
            return Err(RepositoryError::new(
                runtree_repository::ErrorKind::Internal,
                message,
            ));
        }
    };
    transaction
        .rows::<WorktreeRow>(query)?
        .into_iter()
        .map(WorktreeRow::decode)
        .collect()
}

/// A worktree in a state of a newer version is left alone, whatever wish there is.
fn claim_cleanups(
    transaction: &mut Transaction<'_>,
    claim: &CleanupClaim,
) -> Result<Vec<CleanupTask>, RepositoryError> {
    const TAKE: &str = "UPDATE runtree_run_cleanup \
         SET token = token + 1, tries = tries + 1, owner_id = ?4, owner_host = ?5, owner_process = ?6, expires_at = ?7 \
         WHERE namespace = ?1 AND run_id = ?2 AND planned_by = ?3 AND available_at <= ?8 \
             AND (expires_at IS NULL OR expires_at <= ?8)";
    const TASK: &str = concat!(
        "SELECT ",
        worktree_columns!(plain, plain, plain),
        ", ",
        cleanup_columns!(plain, plain, plain),
        " FROM runtree_run_cleanup c JOIN runtree_run_worktrees w",
        " ON w.namespace = c.namespace AND w.run_id = c.run_id AND w.planned_by = c.planned_by",
        " WHERE c.namespace = ?1 AND c.run_id = ?2 AND c.planned_by = ?3"
    );
    let now = transaction.now();
    let due = transaction
        .here(DUE)
        .bind(claim.host.as_str())
        .bind(claim.git_repository.as_str())
        .bind(now.as_unix_micros())
        .bind(claim.run.as_ref().map(|run| run.as_bytes().as_slice()))
        .bind(Value::count(claim.limit.get()));
    let mut tasks = Vec::new();
    for row in transaction.rows::<WorktreeKeyRow>(due)? {
        let WorktreeKey { run, planned_by } = row.decode()?;
        let take = transaction
            .here(TAKE)
            .bind(run.as_bytes())
            .bind(planned_by.get())
            .bind(claim.owner.id.as_bytes())
            .bind(claim.owner.host.as_str())
            .bind(claim.owner.process.as_str())
            .bind(now.saturating_add(claim.lease_time.get()).as_unix_micros())
            .bind(now.as_unix_micros());
        if transaction.applies(take)? {
            let task = transaction
                .here(TASK)
                .bind(run.as_bytes())
                .bind(planned_by.get());
            tasks.extend(
                transaction
                    .row::<CleanupRow>(task)?
                    .map(CleanupRow::decode)
                    .transpose()?,
            );
        }
    }
    Ok(tasks)
}

fn finish(
    transaction: &mut Transaction<'_>,
    cleanup: CleanupRef,
    outcome: &CleanupOutcome,
) -> Result<Write<WorktreeRecord>, RepositoryError> {
    let key = cleanup.worktree;
    let Some(recorded) = worktree::get(transaction, key)? else {
        return Ok(Write::NotFound);
    };
    let Some((kind, detail)) = apply(transaction, cleanup, outcome)? else {
        return if is_done(&recorded, outcome) {
            Ok(Write::Already(recorded))
        } else {
            own::current(transaction, key.run)
        };
    };
    let token = transaction.written_summary(key.run)?.token;
    transaction.record(key.run, kind, token, Some(&detail))?;
    let record = worktree::get(transaction, key)?;
    record
        .map(Write::Applied)
        .ok_or_else(|| worktree::lost(key.run))
}

/// Writes the outcome if the clean-up's own token still guards it, and answers what to add to the history.
fn apply(
    transaction: &mut Transaction<'_>,
    cleanup: CleanupRef,
    outcome: &CleanupOutcome,
) -> Result<Option<(EventKind, Json)>, RepositoryError> {
    const DONE: &str = "DELETE FROM runtree_run_cleanup WHERE namespace = ?1 AND run_id = ?2 AND planned_by = ?3 AND token = ?4 \
         AND EXISTS (SELECT 1 FROM runtree_run_worktrees w WHERE w.namespace = ?1 AND w.run_id = ?2 AND w.planned_by = ?3 \
             AND w.state IN ('adding', 'ready'))";
    const POSTPONED: &str = "UPDATE runtree_run_cleanup \
         SET available_at = ?5, last_error = ?6, owner_id = NULL, owner_host = NULL, owner_process = NULL, expires_at = NULL \
         WHERE namespace = ?1 AND run_id = ?2 AND planned_by = ?3 AND token = ?4";
    const CHANGED: &str = "UPDATE runtree_run_worktrees SET state = coalesce(?5, state), salvage = coalesce(?6, salvage), \
         reason = coalesce(?7, reason), updated_at = max(?4, updated_at) WHERE namespace = ?1 AND run_id = ?2 AND planned_by = ?3";
    let WorktreeKey { run, planned_by } = cleanup.worktree;
    let now = transaction.now();
    let guarded = |sql| {
        transaction
            .here(sql)
            .bind(run.as_bytes())
            .bind(planned_by.get())
            .bind(cleanup.token.get())
    };
    let (statement, state, salvage, reason, event) = match outcome {
        CleanupOutcome::Removed { salvage } => (
            guarded(DONE),
            Some(WorktreeState::Removed),
            salvage.as_ref(),
            None,
            (EventKind::WorktreeRemoved, json!({ "salvage": salvage })),
        ),
        CleanupOutcome::Kept { reason } => (
            guarded(DONE),
            Some(WorktreeState::Kept),
            None,
            Some(reason),
            (EventKind::WorktreeKept, json!({ "reason": reason })),
        ),
        CleanupOutcome::Postponed { error, retry_after } => (
            guarded(POSTPONED)
                .bind(now.saturating_add(*retry_after).as_unix_micros())
                .bind(error.as_str()),
            None,
            None,
            None,
            (EventKind::CleanupPostponed, json!({ "error": error })),
        ),
        _ => {
            let message = format!("this store cannot record the clean-up outcome {outcome:?}");
            return Err(RepositoryError::new(
                runtree_repository::ErrorKind::Internal,
                message,
            ));
        }
    };
    if !transaction.applies(statement)? {
        return Ok(None);
    }
    let changed = transaction
        .here(CHANGED)
        .bind(run.as_bytes())
        .bind(planned_by.get())
        .bind(now.as_unix_micros())
        .bind(state.as_ref().map(WorktreeState::as_str))
        .bind(salvage.map(AsRef::<str>::as_ref))
        .bind(reason.map(AsRef::<str>::as_ref));
    transaction.execute(changed)?;
    Ok(Some(event))
}

/// Tells whether an earlier clean-up left things as this outcome wants them.
fn is_done(worktree: &WorktreeRecord, outcome: &CleanupOutcome) -> bool {
    match outcome {
        CleanupOutcome::Removed { .. } => worktree.state == WorktreeState::Removed,
        CleanupOutcome::Kept { .. } => worktree.state == WorktreeState::Kept,
        CleanupOutcome::Postponed { .. } | _ => false,
    }
}
