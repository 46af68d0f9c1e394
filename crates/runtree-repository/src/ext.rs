//! Conveniences over every run repository, which nobody implements.

use std::future::Future;
use std::time::Duration;

use runtree_id::RunId;

use crate::change::ChangeMark;
use crate::error::RepositoryError;
use crate::event::{EventNumber, RunEvent};
use crate::lease::Limit;
use crate::query::{PageRequest, RunFilter};
use crate::repository::RunRepository;
use crate::run::{Run, RunSummary};

/// How long to rely on being told of a change before looking anyway.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
        Follower {
            runs: self,
            id,
            after,
            read: Vec::new().into_iter(),
        }
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

/// Hands out the events of one run in order, each once, and waits for those to come.
///
/// On every backend: what tells of changes is only a hint, what is read counts.
#[derive(Debug)]
pub struct Follower<'r, R: ?Sized> {
    runs: &'r R,
    id: RunId,
    after: EventNumber,
    read: std::vec::IntoIter<RunEvent>,
}

impl<R: RunRepository + ?Sized> Follower<'_, R> {
    /// Returns the next event, and waits for it; none once the run has ended and everything was handed out, or when there is no
    /// such run.
    ///
    /// What is written after the end, such as how the clean-up went, is handed out by whoever follows again from the last number.
    ///
    /// # Errors
    /// What the store cannot do; asking again goes on where it stopped.
    ///
    /// # Cancel safety
    /// A call that is dropped has handed out nothing, and loses nothing.
    pub async fn next(&mut self) -> Result<Option<RunEvent>, RepositoryError> {
        let mut seen = ChangeMark::START;
        loop {
            if let Some(event) = self.read.next() {
                self.after = event.number;
                return Ok(Some(event));
            }
            seen = self.runs.changed(seen, Duration::ZERO).await?;
            // Asked before the events are: an end that is seen has its event before it.
            let run = self.runs.get(self.id).await?;
            let events = self.runs.events(self.id, self.after, Limit::MAX).await?;
            if events.is_empty() {
                if run.is_none_or(|run| run.has_ended()) {
                    return Ok(None);
                }
                self.runs.changed(seen, LOOK_EVERY).await?;
            }
            self.read = events.into_iter();
        }
    }

    /// Returns the number of the last event that was handed out.
    pub fn position(&self) -> EventNumber {
        self.after
    }
}
