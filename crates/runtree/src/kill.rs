//! Wishes that a run stops, from anybody and for anybody's run.

use std::time::Duration;

use runtree_id::RunId;
use runtree_repository::{Actor, CancelMode, CancelRequest, Reason, Run, Write};

use crate::coordinator::Coordinator;
use crate::error::{Error, ErrorKind, Result};

/// How a run is to be stopped, and why.
#[derive(Clone, Debug)]
#[must_use]
pub struct Kill {
    mode: CancelMode,
    reason: String,
    by: Option<String>,
    grace: Option<Duration>,
}

/// What a kill came to.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a run waits, runs or has ended")]
pub enum Killed {
    /// The run waited, for its first attempt or another one, and this has ended it.
    WhileWaiting(Run),
    /// The wish is recorded; the owner stops the work and ends the run.
    Requested(Run),
    /// The run had ended before; this is how.
    AlreadyEnded(Run),
}

impl Kill {
    /// Asks the work to stop and gives it time.
    pub fn graceful(reason: impl Into<String>) -> Self {
        Self {
            mode: CancelMode::Graceful,
            reason: reason.into(),
            by: None,
            grace: None,
        }
    }

    /// Asks the owner to end the work at once, without giving it time.
    ///
    /// It is still the owner that does it, when it hears of it; for an owner that does not obey, see
    /// [`StopRuns::force_kill`](runtree_repository::StopRuns::force_kill) of [`Coordinator::runs`].
    pub fn forced(reason: impl Into<String>) -> Self {
        Self {
            mode: CancelMode::Forced,
            ..Self::graceful(reason)
        }
    }

    /// Says who wants it.
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.by = Some(actor.into());
        self
    }

    /// Sets how long the work may take to stop by itself; ten seconds by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    fn request(self) -> Result<CancelRequest> {
        let mut request = CancelRequest::new(self.mode);
        request.reason = Some(Reason::new(self.reason)?);
        request.by = self.by.map(Actor::new).transpose()?;
        request.grace = self.grace;
        Ok(request)
    }
}

impl Killed {
    /// Returns the run.
    pub fn run(&self) -> &Run {
        match self {
            Self::WhileWaiting(run) | Self::Requested(run) | Self::AlreadyEnded(run) => run,
        }
    }
}

impl Coordinator {
    /// Wishes that a run stops. A waiting run ends at once; the owner of a running one hears of it at once in this process, else
    /// with its next renewal.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such run; [`ErrorKind::InvalidInput`] for a reason that is empty or too long, and
    /// for a run whose status this version does not know.
    ///
    /// # Durability
    /// The wish survives a crash of anybody: whoever takes the run up ends it.
    pub async fn kill(&self, id: RunId, kill: Kill) -> Result<Killed> {
        let inner = &self.inner;
        let request = kill.request()?;
        let not_found = || Error::new(ErrorKind::NotFound, format!("there is no run {id}")).of(id);
        let (run, is_news) = match inner.persist(|| inner.runs.cancel(id, &request)).await? {
            Write::Applied(run) => (run, true),
            Write::Already(run) => (run, false),
            Write::Stale { current } => {
                let status = current.status;
                let message = format!(
                    "the run {id} has the status {status}, which this version must not change"
                );
                return Err(Error::new(ErrorKind::InvalidInput, message).of(id));
            }
            Write::NotFound => return Err(not_found()),
        };
        if let Some(intent) = &run.cancel {
            for signals in inner.owned.of_run(id) {
                signals.cancel(intent.clone());
            }
        }
        if !run.has_ended() {
            return Ok(Killed::Requested(run));
        }
        if is_news {
            // An earlier attempt of a run that waited for its next one may have left a worktree.
            drop(inner.clean_up_after(&run).await);
            return Ok(Killed::WhileWaiting(run));
        }
        Ok(Killed::AlreadyEnded(run))
    }
}
