//! Deleting runs that ended long ago.

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::{RepositoryError, RetainRuns, Retention};

use super::SqliteRepository;
use super::rows::IdRow;
use super::sql::Transaction;
use super::statement::Value;
use crate::row::status;

#[async_trait]
impl RetainRuns for SqliteRepository {
    async fn delete_ended(&self, retention: &Retention) -> Result<Vec<RunId>, RepositoryError> {
        let retention = *retention;
        self.write("delete ended runs", move |transaction| {
            delete_ended(transaction, &retention)
        })
        .await
    }
}

/// A status of a newer version is left alone, and a worktree whose state is a word of one may still be in place.
pub(super) const OLD: &str = concat!(
    "SELECT r.id FROM runtree_runs r INDEXED BY runtree_runs_by_ended \
     WHERE r.namespace = ?1 AND r.order_ended < ?2 AND r.order_ended > -9223372036854775808 AND r.status IN (",
    status!(Completed),
    ", ",
    status!(Failed),
    ", ",
    status!(Killed),
    ") AND NOT EXISTS (SELECT 1 FROM runtree_run_cleanup c WHERE c.namespace = ?1 AND c.run_id = r.id) \
         AND NOT EXISTS (SELECT 1 FROM runtree_run_worktrees w WHERE w.namespace = ?1 AND w.run_id = r.id AND w.state <> 'removed') \
     ORDER BY r.order_ended, r.id LIMIT ?3 + 0"
);

fn delete_ended(
    transaction: &mut Transaction<'_>,
    retention: &Retention,
) -> Result<Vec<RunId>, RepositoryError> {
    const WORKTREES: &str =
        "DELETE FROM runtree_run_worktrees WHERE namespace = ?1 AND run_id = ?2";
    // Payload, lease, events, facts and tags go with the run.
    const RUN: &str = "DELETE FROM runtree_runs WHERE namespace = ?1 AND id = ?2";
    let query = transaction
        .here(OLD)
        .bind(retention.ended_before.as_unix_micros())
        .bind(Value::count(retention.limit.get()));
    let mut deleted = Vec::new();
    for row in transaction.rows::<IdRow>(query)? {
        let id = row.decode()?;
        for sql in [WORKTREES, RUN] {
            transaction.execute(transaction.here(sql).bind(id.as_bytes()))?;
        }
        deleted.push(id);
    }
    Ok(deleted)
}
