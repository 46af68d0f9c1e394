//! Subscriptions: the history of one run as it is written, and the runs of a filter as they come, change and go.
//!
//! They work on every backend: what tells of changes is only a hint, what is read counts.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use runtree_id::RunId;
use runtree_time::Timestamp;
use tokio::time::Instant;

use crate::change::ChangeMark;
use crate::error::RepositoryError;
use crate::event::{EventNumber, RunEvent};
use crate::ext::RunRepositoryExt as _;
use crate::lease::Limit;
use crate::query::RunFilter;
use crate::repository::RunRepository;
use crate::run::RunSummary;

/// How long to rely on being told of a change before looking anyway.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long to wait between two looks at a filter, so that a busy store is not read all the time.
const LOOK_APART: Duration = Duration::from_millis(50);

/// Hands out the events of one run in order, each once, and waits for those to come.
#[derive(Debug)]
pub struct Follower<'r, R: ?Sized> {
    runs: &'r R,
    id: RunId,
    after: EventNumber,
    read: std::vec::IntoIter<RunEvent>,
}

impl<'r, R: RunRepository + ?Sized> Follower<'r, R> {
    pub(crate) fn new(runs: &'r R, id: RunId, after: EventNumber) -> Self {
        Self {
            runs,
            id,
            after,
            read: Vec::new().into_iter(),
        }
    }

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

/// What happened to the runs of a filter, as a [`Watcher`] saw it.
#[derive(Clone, Debug, PartialEq)]
pub enum RunNews {
    /// The filter holds this run now, and did not before.
    Entered(Box<RunSummary>),
    /// The run has changed, perhaps more than once, and the filter still holds it.
    Changed(Box<RunSummary>),
    /// The filter holds the run no longer: it is another one's now, such as an ended run where waiting ones are watched, or was
    /// deleted.
    Left(RunId),
}

/// Hands out what happens to the runs of a filter, and waits for what is to come.
///
/// It tells how the runs stand, not each step on their way: of two changes between two looks the second is told. Renewals of a
/// lease are no news. [`Follower`] tells each step of one run.
///
/// What lists do not show, such as metadata, is noticed by the instant of a run's last change. While the store's clock stands behind that, it
/// is noticed by the run's history instead, which each look reads for each such run; when the clock has stepped back between two looks, such
/// a run is told as changed once, whether it was or not. A clock that steps back and forward again between two looks hides what was
/// changed in between and lists do not show.
#[derive(Debug)]
pub struct Watcher<'r, R: ?Sized> {
    runs: &'r R,
    filter: RunFilter,
    known: HashMap<RunId, Known>,
    news: VecDeque<RunNews>,
    seen: ChangeMark,
    next_look: Option<Instant>,
}

/// What was handed out of a run, or is about to be.
#[derive(Debug)]
struct Known {
    /// But for its lease.
    summary: RunSummary,
    /// The last event, while a change need not show in the summary.
    position: Option<EventNumber>,
}

impl Known {
    /// Whether the history has gone on since, for all that is known.
    fn has_moved(&self, position: Option<EventNumber>) -> bool {
        position.is_some_and(|position| self.position.is_none_or(|before| before < position))
    }
}

impl<'r, R: RunRepository + ?Sized> Watcher<'r, R> {
    pub(crate) fn new(runs: &'r R, filter: RunFilter) -> Self {
        Self {
            runs,
            filter,
            known: HashMap::new(),
            news: VecDeque::new(),
            seen: ChangeMark::START,
            next_look: None,
        }
    }

    /// Returns the next news, and waits for it. First come the runs that the filter holds already, the oldest first.
    ///
    /// # Errors
    /// As [`list`](crate::ReadRuns::list); asking again goes on where it stopped.
    ///
    /// # Cancel safety
    /// A call that is dropped has handed out nothing, and loses nothing.
    pub async fn next(&mut self) -> Result<RunNews, RepositoryError> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            if let Some(next_look) = self.next_look {
                tokio::time::sleep_until(next_look).await;
            }
            // The mark is taken before the look, so that a change in between is not missed.
            let seen = self.runs.changed(self.seen, Duration::ZERO).await?;
            let now = self.runs.now().await?;
            let found = self.runs.list_all(&self.filter).await?;
            let positions = self.positions(&found, now).await?;
            self.compare(found, &positions, now);
            self.next_look = Some(Instant::now() + LOOK_APART);
            if self.news.is_empty() {
                self.runs.changed(seen, LOOK_EVERY).await?;
            }
            self.seen = seen;
        }
    }

    /// Reads where the histories stand of the runs that may have changed, since they were looked at, without another stamp.
    async fn positions(
        &self,
        found: &[RunSummary],
        now: Timestamp,
    ) -> Result<HashMap<RunId, EventNumber>, RepositoryError> {
        let mut positions = HashMap::new();
        for run in found {
            let known = self.known.get(&run.id).and_then(|known| known.position);
            if is_ahead(run, now) || known.is_some() {
                let mut position = known.unwrap_or(EventNumber::START);
                loop {
                    let events = self.runs.events(run.id, position, Limit::MAX).await?;
                    match events.last() {
                        Some(last) => position = last.number,
                        None => break,
                    }
                }
                positions.insert(run.id, position);
            }
        }
        Ok(positions)
    }

    /// Compares what the filter holds, the youngest first, with what it held.
    fn compare(
        &mut self,
        found: Vec<RunSummary>,
        positions: &HashMap<RunId, EventNumber>,
        now: Timestamp,
    ) {
        let mut gone = std::mem::take(&mut self.known);
        for run in found.into_iter().rev() {
            let position = positions.get(&run.id).copied();
            let mut summary = run.clone();
            summary.lease_expires_at = None;
            let known = Known {
                // Once the clock is past it, the next change has another stamp.
                position: position.filter(|_| is_ahead(&run, now)),
                summary,
            };
            let news = match gone.remove(&run.id) {
                None => Some(RunNews::Entered(Box::new(run))),
                Some(before) if before.summary == known.summary && !before.has_moved(position) => {
                    None
                }
                Some(_) => Some(RunNews::Changed(Box::new(run))),
            };
            self.news.extend(news);
            self.known.insert(known.summary.id, known);
        }
        let mut gone: Vec<RunId> = gone.into_keys().collect();
        gone.sort_unstable();
        self.news.extend(gone.into_iter().map(RunNews::Left));
    }
}

/// Whether the next change of a run may be stamped as its last one was.
fn is_ahead(run: &RunSummary, now: Timestamp) -> bool {
    run.updated_at >= now
}
