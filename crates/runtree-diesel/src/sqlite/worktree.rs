//! Reading worktree records inside a transaction, and what the end of a run leaves to do about them.

use runtree_repository::id::RunId;
use runtree_repository::{
    ErrorKind, EventKind, Persistence, RepositoryError, Token, WorktreeKey, WorktreeRecord,
};

use super::sql::{Transaction, plain};
use crate::row::{WorktreeRow, worktree_columns};

/// Every column of a worktree; a condition follows.
macro_rules! select_worktrees {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            worktree_columns!(plain, plain, plain),
            " FROM runtree_run_worktrees w ",
            $condition
        )
    };
}
pub(super) use select_worktrees;

/// Reads one record.
pub(super) fn get(
    transaction: &mut Transaction<'_>,
    key: WorktreeKey,
) -> Result<Option<WorktreeRecord>, RepositoryError> {
    const SQL: &str =
        select_worktrees!("WHERE w.namespace = ?1 AND w.run_id = ?2 AND w.planned_by = ?3");
    let query = transaction
        .here(SQL)
        .bind(key.run.as_bytes())
        .bind(key.planned_by.get());
    transaction
        .row::<WorktreeRow>(query)?
        .map(WorktreeRow::decode)
        .transpose()
}

/// Reads the record that the claim with this token holds.
pub(super) fn held_by(
    transaction: &mut Transaction<'_>,
    run: RunId,
    token: Token,
) -> Result<Option<WorktreeRecord>, RepositoryError> {
    const SQL: &str = select_worktrees!(
        "WHERE w.namespace = ?1 AND w.run_id = ?2 AND w.held_by = ?3 ORDER BY w.planned_by DESC LIMIT 1"
    );
    let query = transaction.here(SQL).bind(run.as_bytes()).bind(token.get());
    transaction
        .row::<WorktreeRow>(query)?
        .map(WorktreeRow::decode)
        .transpose()
}

/// Keeps the persistent worktrees of a run that has just ended, and wishes for the clean-up of the others.
pub(super) fn leave(
    transaction: &mut Transaction<'_>,
    run: RunId,
    token: Token,
) -> Result<(), RepositoryError> {
    const LEFT: &str = select_worktrees!(
        "WHERE w.namespace = ?1 AND w.run_id = ?2 AND w.state IN ('adding', 'ready') ORDER BY w.planned_by"
    );
    const KEEP: &str = "UPDATE runtree_run_worktrees SET state = 'kept', updated_at = max(?4, updated_at) \
         WHERE namespace = ?1 AND run_id = ?2 AND planned_by = ?3 AND state IN ('adding', 'ready')";
    const CLEAN_UP: &str = "INSERT INTO runtree_run_cleanup (namespace, run_id, planned_by, wanted_at, available_at) \
         VALUES (?1, ?2, ?3, ?4, ?4)";
    let now = transaction.now().as_unix_micros();
    for row in transaction.rows::<WorktreeRow>(transaction.here(LEFT).bind(run.as_bytes()))? {
        let left = row.decode()?;
        let (sql, kind) = match left.wanted.persistence {
            Persistence::Persistent => (KEEP, EventKind::WorktreeKept),
            Persistence::Temporary => (CLEAN_UP, EventKind::CleanupWanted),
        };
        transaction.execute(
            transaction
                .here(sql)
                .bind(run.as_bytes())
                .bind(left.key.planned_by.get())
                .bind(now),
        )?;
        transaction.record_stamped(run, kind, token, None)?;
    }
    Ok(())
}

/// The error of a record that cannot be read back.
pub(super) fn lost(run: RunId) -> RepositoryError {
    RepositoryError::new(
        ErrorKind::Corrupt,
        format!("a worktree of the run {run} cannot be read back in the transaction that wrote it"),
    )
}
