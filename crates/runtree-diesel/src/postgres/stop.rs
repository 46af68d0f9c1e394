//! Stops runs: what everybody may ask for, without a token.

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::{CancelMode, CancelRequest, RepositoryError, Run, StopRuns, Write};

use super::{MAX_TRIES, PostgresRepository, micros, sql};
use crate::row::WholeRunRow;

#[async_trait]
impl StopRuns for PostgresRepository {
    async fn cancel(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        self.stop(sql::CANCEL, "cancel a run", id, request, |run| {
            run.cancel.as_ref().is_some_and(|intent| {
                // Nothing to add: a graceful intent may become forced, never the other way round.
                !(intent.mode == CancelMode::Graceful && request.mode == CancelMode::Forced)
            })
        })
        .await
    }

    async fn force_kill(
        &self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        self.stop(sql::FORCE_KILL, "kill a run", id, request, |_| false)
            .await
    }
}

impl PostgresRepository {
    /// Stops a run that waits or runs. `is_wanted_already` tells of a running run whether the request adds nothing.
    async fn stop(
        &self,
        text: &'static str,
        doing: &str,
        id: RunId,
        request: &CancelRequest,
        is_wanted_already: impl Fn(&Run) -> bool + Send + Sync,
    ) -> Result<Write<Run>, RepositoryError> {
        let statement = || {
            self.statement(text)
                .id(id.as_bytes())
                .text(request.mode.as_str())
                .int_or_null(request.grace.map(micros))
                .text_or_null(request.reason.as_ref().map(AsRef::as_ref))
                .text_or_null(request.by.as_ref().map(AsRef::as_ref))
        };
        for _ in 0..MAX_TRIES {
            if let Some(row) = self.write::<WholeRunRow>(doing, statement).await?.pop() {
                return row.decode().map(Write::Applied);
            }
            let Some(run) = self.run(id).await? else {
                return Ok(Write::NotFound);
            };
            if run.has_ended() {
                return Ok(Write::Already(run));
            }
            if run.status == RunStatus::Running && is_wanted_already(&run) {
                return Ok(Write::Already(run));
            }
            // Named positively: a word of a newer version must not be touched.
            if ![RunStatus::Pending, RunStatus::Running].contains(&run.status) {
                return Ok(Write::Stale {
                    current: Box::new(run.summary),
                });
            }
            // Somebody claimed or took up the run between the snapshot and the lock.
        }
        Err(super::contended(id))
    }
}
