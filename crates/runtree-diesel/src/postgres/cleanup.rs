//! Keeps the records of worktrees, and hands the wishes to clean them up out.

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::{
    CleanUpWorktrees, CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask,
    HostName, HostPath, RepositoryError, WorktreeQuery, WorktreeRecord, WorktreeState, Write,
};

use super::{PostgresRepository, micros, sql};
use crate::row::{CleanupLeaseRow, CleanupRow, WorktreeRow};

#[async_trait]
impl CleanUpWorktrees for PostgresRepository {
    async fn worktrees(
        &self,
        query: &WorktreeQuery,
    ) -> Result<Vec<WorktreeRecord>, RepositoryError> {
        let doing = "read records of worktrees";
        let rows: Vec<WorktreeRow> = match query {
            WorktreeQuery::Site {
                host,
                git_repository,
            } => {
                let site = || {
                    self.statement(sql::WORKTREES_OF_SITE)
                        .text(host.as_str())
                        .text(git_repository.as_str())
                };
                self.read(doing, site).await?
            }
            WorktreeQuery::Run(id) => {
                self.read(doing, || {
                    self.statement(sql::WORKTREES_OF_RUN).id(id.as_bytes())
                })
                .await?
            }
            other => return Err(super::unsupported("query", other)),
        };
        rows.into_iter().map(WorktreeRow::decode).collect()
    }

    async fn claim_cleanups(
        &self,
        claim: &CleanupClaim,
    ) -> Result<Vec<CleanupTask>, RepositoryError> {
        let statement = || {
            self.statement(sql::CLAIM_CLEANUPS)
                .text(claim.host.as_str())
                .text(claim.git_repository.as_str())
                .id_or_null(claim.run.as_ref().map(RunId::as_bytes))
                .int(super::count(claim.limit))
                .id(claim.owner.id.as_bytes())
                .text(claim.owner.host.as_str())
                .text(claim.owner.process.as_str())
                .int(micros(claim.lease_time.get()))
        };
        let rows: Vec<CleanupRow> = self.write("claim clean-ups", statement).await?;
        rows.into_iter().map(CleanupRow::decode).collect()
    }

    async fn cleanup_leases(
        &self,
        host: &HostName,
        git_repository: &HostPath,
    ) -> Result<Vec<CleanupLease>, RepositoryError> {
        let statement = || {
            self.statement(sql::CLEANUP_LEASES)
                .text(host.as_str())
                .text(git_repository.as_str())
        };
        let rows: Vec<CleanupLeaseRow> = self.read("read the held clean-ups", statement).await?;
        rows.into_iter().map(CleanupLeaseRow::decode).collect()
    }

    async fn free_cleanups(&self, proven_dead: &[CleanupRef]) -> Result<(), RepositoryError> {
        let statement = || {
            self.statement(sql::FREE_CLEANUPS)
                .ids(proven_dead.iter().map(|dead| *dead.worktree.run.as_bytes()))
                .ints(
                    proven_dead
                        .iter()
                        .map(|dead| i64::from(dead.worktree.planned_by.get())),
                )
                .ints(proven_dead.iter().map(|dead| i64::from(dead.token.get())))
        };
        self.change("free clean-ups", statement).await?;
        Ok(())
    }

    async fn finish_cleanup(
        &self,
        cleanup: CleanupRef,
        outcome: &CleanupOutcome,
    ) -> Result<Write<WorktreeRecord>, RepositoryError> {
        let key = cleanup.worktree;
        let (text, what, retry_after) = match outcome {
            CleanupOutcome::Removed { salvage } => (
                sql::CLEANUP_REMOVED,
                salvage.as_ref().map(AsRef::as_ref),
                None,
            ),
            CleanupOutcome::Kept { reason } => (sql::CLEANUP_KEPT, Some(reason.as_str()), None),
            CleanupOutcome::Postponed { error, retry_after } => (
                sql::CLEANUP_POSTPONED,
                Some(error.as_str()),
                Some(*retry_after),
            ),
            other => return Err(super::unsupported("outcome", other)),
        };
        let statement = || {
            self.statement(text)
                .id(key.run.as_bytes())
                .int(key.planned_by.get())
                .int(cleanup.token.get())
                .text_or_null(what)
                .int_or_null(retry_after.map(micros))
        };
        if let Some(row) = self
            .write::<WorktreeRow>("record a clean-up", statement)
            .await?
            .pop()
        {
            return row.decode().map(Write::Applied);
        }
        let worktrees = self.worktrees(&WorktreeQuery::Run(key.run)).await?;
        let Some(worktree) = worktrees.into_iter().find(|worktree| worktree.key == key) else {
            return Ok(Write::NotFound);
        };
        if is_done(&worktree, outcome) {
            return Ok(Write::Already(worktree));
        }
        let run = self.run(key.run).await?;
        Ok(run.map_or(Write::NotFound, |run| Write::Stale {
            current: Box::new(run.summary),
        }))
    }
}

/// Tells whether an earlier clean-up left things as this outcome wants them.
fn is_done(worktree: &WorktreeRecord, outcome: &CleanupOutcome) -> bool {
    match outcome {
        CleanupOutcome::Removed { .. } => worktree.state == WorktreeState::Removed,
        CleanupOutcome::Kept { .. } => worktree.state == WorktreeState::Kept,
        CleanupOutcome::Postponed { .. } | _ => false,
    }
}
