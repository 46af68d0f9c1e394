//! Stops runs: what everybody may ask for, without a token.

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::{
    CancelMode, CancelRequest, Namespace, RepositoryError, Run, StopRuns, Write,
};

use super::statement::Statement;
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
            adds_nothing(request, run)
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
        let statement = || stopping(&self.namespace, text, &id, request);
        for _ in 0..MAX_TRIES {
            if let Some(row) = self.write::<WholeRunRow>(doing, statement).await?.pop() {
                return row.decode().map(Write::Applied);
            }
            if let Some(answer) = unmoved(self.run(id).await?, &is_wanted_already) {
                return Ok(answer);
            }
            // Somebody claimed or took up the run between the snapshot and the lock.
        }
        Err(super::contended(id))
    }
}

/// Begins to cancel a run.
pub(crate) fn cancelling<'s>(
    namespace: &'s Namespace,
    id: &RunId,
    request: &'s CancelRequest,
) -> Statement<'s> {
    stopping(namespace, sql::CANCEL, id, request)
}

fn stopping<'s>(
    namespace: &'s Namespace,
    text: &'static str,
    id: &RunId,
    request: &'s CancelRequest,
) -> Statement<'s> {
    Statement::new(text)
        .text(namespace.as_str())
        .id(id.as_bytes())
        .text(request.mode.as_str())
        .int_or_null(request.grace.map(micros))
        .text_or_null(request.reason.as_ref().map(AsRef::as_ref))
        .text_or_null(request.by.as_ref().map(AsRef::as_ref))
}

/// Tells of a running run whether a request to cancel it was made before.
pub(crate) fn adds_nothing(request: &CancelRequest, run: &Run) -> bool {
    run.cancel.as_ref().is_some_and(|intent| {
        // A graceful intent may become forced, never the other way round.
        !(intent.mode == CancelMode::Graceful && request.mode == CancelMode::Forced)
    })
}

/// Answers a stop that moved nothing; `None` when it should have, and may the next time.
pub(crate) fn unmoved(
    run: Option<Run>,
    is_wanted_already: impl Fn(&Run) -> bool,
) -> Option<Write<Run>> {
    let Some(run) = run else {
        return Some(Write::NotFound);
    };
    if run.has_ended() || (run.status == RunStatus::Running && is_wanted_already(&run)) {
        return Some(Write::Already(run));
    }
    // Named positively: a word of a newer version must not be touched.
    let is_open = [RunStatus::Pending, RunStatus::Running].contains(&run.status);
    (!is_open).then(|| Write::Stale {
        current: Box::new(run.summary),
    })
}
