//! Conveniences over every run repository, which nobody implements.

use std::future::Future;
use std::time::Duration;

use runtree_id::RunId;

use crate::change::ChangeMark;
use crate::error::RepositoryError;
use crate::event::EventNumber;
use crate::lease::Limit;
use crate::query::{PageRequest, RunFilter};
use crate::repository::RunRepository;
use crate::run::{Run, RunSummary};
use crate::subscription::{Follower, LOOK_EVERY, Watcher};

/// What every run repository can do by what it promises already.
pub trait RunRepositoryExt: RunRepository {
    /// Waits until a run has ended, at most for `patience`; answers the run as it was seen last, or none when there is no such run.
    ///
    /// Whether it ended in time, [`has_ended`](RunSummary::has_ended) tells.
    ///
    /// # Errors
    /// What the store cannot do.
    ///
    /// # Cancel safety
    /// It only reads, so it can be dropped at any time.
    fn wait_for_end(
        &self,
        id: RunId,
        patience: Duration,
    ) -> impl Future<Output = Result<Option<Run>, RepositoryError>> + Send {
        async move {
            // None of a patience that no clock of ours reaches the end of.
            let until = tokio::time::Instant::now().checked_add(patience);
            let mut seen = ChangeMark::START;
            loop {
                // The mark is taken before the look, so that a change in between is not missed.
                seen = self.changed(seen, Duration::ZERO).await?;
                let run = self.get(id).await?;
                let left = until.map_or(LOOK_EVERY, |until| {
                    until.saturating_duration_since(tokio::time::Instant::now())
                });
                if left.is_zero() || run.as_ref().is_none_or(|run| run.has_ended()) {
                    return Ok(run);
                }
                self.changed(seen, left.min(LOOK_EVERY)).await?;
            }
        }
    }

    /// Follows the history of a run from an event on: what was written before and what is written from now on.
    fn follow(&self, id: RunId, after: EventNumber) -> Follower<'_, Self> {
        Follower::new(self, id, after)
    }

    /// Watches the runs of a filter: which it holds now, and from now on which come, change and go.
    ///
    /// What comes and goes is found by reading all of the filter again when something has changed, so a filter should name few
    /// runs: those that have not ended, those of a user or of the last hour.
    fn watch(&self, filter: RunFilter) -> Watcher<'_, Self> {
        Watcher::new(self, filter)
    }

    /// Reads all runs of a filter, page by page, the youngest first.
    ///
    /// Runs that are created meanwhile are not shown; everything else is shown once.
    ///
    /// # Errors
    /// As [`list`](crate::ReadRuns::list).
    fn list_all(
        &self,
        filter: &RunFilter,
    ) -> impl Future<Output = Result<Vec<RunSummary>, RepositoryError>> + Send {
        async move {
            let mut page = PageRequest {
                limit: Limit::MAX,
                ..PageRequest::default()
            };
            let mut runs = Vec::new();
            loop {
                let read = self.list(filter, &page).await?;
                runs.extend(read.runs);
                if read.next.is_none() {
                    return Ok(runs);
                }
                page.after = read.next;
            }
        }
    }
}

impl<R: RunRepository + ?Sized> RunRepositoryExt for R {}
