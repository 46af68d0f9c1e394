//! A run that this process owns: its worktree, its signals, and its one ending.

use std::ffi::OsString;
use std::future::pending;

use runtree_id::RunId;
use runtree_process::{Child, Command, Exit, Stop};
use runtree_repository::{
    CancelIntent, CancelMode, ErrorText, LeaseRef, Outcome, ProcessMark, Run, RunSummary, Write,
};
use runtree_worktree::{CommitRequest, Worktree};
use serde_json::Value;

use crate::clean_up::CleanedUp;
use crate::coordinator::Coordinator;
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::owner::Held;

/// A run that this process owns.
///
/// Its lease is renewed by itself. Whoever does its work watches [`cancelled`](Self::cancelled) and [`lost`](Self::lost), or lets
/// [`supervise`](Self::supervise) do both for a child process, and ends it with [`complete`](Self::complete),
/// [`fail`](Self::fail) or [`killed`](Self::killed).
///
/// Dropped without an ending, the run stays as it is until its lease expires; then whoever recovers takes it up. Its worktree
/// stays untouched until then.
#[derive(Debug)]
pub struct ActiveRun {
    coordinator: Coordinator,
    held: Held,
    run: Run,
    worktree: Worktree,
}

/// How a child process came to its end under supervision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Supervised {
    /// It exited by itself.
    Exited(Exit),
    /// Somebody wanted the run to stop, and the whole process group was stopped: end the run with [`ActiveRun::killed`].
    Stopped,
    /// The run is no longer ours, and the whole process group was stopped: touch neither record nor worktree again.
    Lost,
}

/// A run after its ending.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndedRun {
    /// The record.
    pub run: Run,
    /// What became of its worktrees; empty when somebody else took the clean-up or it waits for the next recovery.
    pub cleaned_up: Vec<CleanedUp>,
}

impl ActiveRun {
    pub(crate) fn new(coordinator: Coordinator, held: Held, run: Run, worktree: Worktree) -> Self {
        Self {
            coordinator,
            held,
            run,
            worktree,
        }
    }

    /// Returns the run's id.
    pub fn id(&self) -> RunId {
        self.run.id
    }

    /// Returns the record as it was when the run was claimed.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Returns the worktree to work in.
    pub fn worktree(&self) -> &Worktree {
        &self.worktree
    }

    /// Returns what guards this owner's writes.
    pub fn lease(&self) -> LeaseRef {
        self.held.lease
    }

    /// Resolves when somebody wants the run to stop; at once when somebody did already.
    ///
    /// A kill in this process is heard at once, one of another process with the next renewal.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn cancelled(&self) -> CancelIntent {
        let mut watch = self.held.signals.watch_cancel();
        // The sender lives in `self`, so waiting cannot fail before this future is gone.
        match watch
            .wait_for(Option::is_some)
            .await
            .map(|intent| intent.clone())
        {
            Ok(Some(intent)) => intent,
            Ok(None) | Err(_) => pending().await,
        }
    }

    /// Resolves when the run is no longer this process's: stop its work, and touch neither record nor worktree again.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn lost(&self) {
        self.held.signals.lost().await;
    }

    /// Begins a command that works in the worktree, with an empty environment and no input.
    pub fn command(&self, program: impl Into<OsString>) -> Command {
        Command::new(program, self.worktree.path())
    }

    /// Starts a child process and records its process group, so that whoever takes the run up can end it first.
    ///
    /// The command carries the attempt's mark, so that the child is found even after a crash between start and record.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] when it cannot be started; [`ErrorKind::Lost`] when the run is no longer ours: the child was
    /// stopped.
    ///
    /// # Cancel safety
    /// When the future is dropped, the child is killed.
    pub async fn spawn(&self, command: Command) -> Result<Child> {
        let command = command.mark(names::mark(self.lease())?);
        let spawned = command.spawn().await;
        let mut child = spawned.map_err(|e| process_error(self.id(), e))?;
        if let Err(error) = self.record_child(&child).await {
            // Whoever has the run now must not find somebody else's child in its worktree.
            child
                .stop(Stop::forced())
                .await
                .map_err(|e| process_error(self.id(), e))?;
            return Err(error);
        }
        Ok(child)
    }

    async fn record_child(&self, child: &Child) -> Result<()> {
        let inner = &self.coordinator.inner;
        let mark = ProcessMark::new(child.identity().to_string())?;
        let answer = inner
            .persist(|| inner.runs.record_child(self.lease(), &mark))
            .await?;
        match answer {
            Write::Applied(()) | Write::Already(()) => Ok(()),
            Write::Stale { current } => Err(lost(&current)),
            Write::NotFound => Err(gone(self.id())),
        }
    }

    /// Waits until a child process exits, or stops it when the run should stop or is lost; then ends what is left of its group.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] when the child can be neither waited for nor stopped, or its group does not go away: nobody else
    /// may use the worktree then, and the run should not be ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn supervise(&self, child: &mut Child) -> Result<Supervised> {
        let failed = |error| process_error(self.id(), error);
        let (mut how, mut done) = tokio::select! {
            exit = child.wait() => (Stop::default(), Supervised::Exited(exit.map_err(failed)?)),
            intent = self.cancelled() => (self.stop_for(&intent).await, Supervised::Stopped),
            () = self.lost() => (Stop::forced(), Supervised::Lost),
        };
        // Whoever stops it may be overtaken: by a stronger wish, or by the loss of the run.
        let mut is_forced = done == Supervised::Lost;
        let stopped = loop {
            tokio::select! {
                stopped = child.stop(how) => break stopped.map_err(failed)?,
                () = self.lost(), if done != Supervised::Lost => done = Supervised::Lost,
                () = self.forced(), if !is_forced => {}
            }
            how = Stop::forced();
            is_forced = true;
        };
        if stopped.is_gone() {
            return Ok(done);
        }
        let message = format!(
            "the processes of the run {} do not go away: {stopped:?}",
            self.id()
        );
        Err(Error::new(ErrorKind::Process, message).of(self.id()))
    }

    /// Resolves when somebody wants the work to end at once.
    async fn forced(&self) {
        let mut watch = self.held.signals.watch_cancel();
        let is_forced = |intent: &Option<CancelIntent>| {
            intent
                .as_ref()
                .is_some_and(|intent| intent.mode == CancelMode::Forced)
        };
        if watch.wait_for(is_forced).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Gives the work what is left of its grace, by the clock that set the deadline.
    async fn stop_for(&self, intent: &CancelIntent) -> Stop {
        match (intent.mode, intent.deadline) {
            (CancelMode::Forced, _) => Stop::forced(),
            (CancelMode::Graceful, None) => Stop::default(),
            (CancelMode::Graceful, Some(deadline)) => {
                // A store that does not answer must not keep the work from being stopped.
                let now = self.coordinator.inner.runs.now().await;
                let now = now.unwrap_or(intent.requested_at);
                Stop::graceful(deadline.saturating_duration_since(now))
            }
        }
    }

    /// Commits everything in the worktree that git does not ignore, on its branch; none when nothing changed.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] when the run is no longer ours; else what git or the files answer.
    pub async fn commit(&self, request: CommitRequest) -> Result<Option<runtree_id::CommitId>> {
        if self.held.signals.is_lost() {
            return Err(lost(&self.run));
        }
        let worktree = self.worktree.clone();
        let committed = self.coordinator.inner.git(move |worktrees| {
            worktrees.commit(worktree.name(), worktree.ownership(), &request)
        });
        committed.await.map_err(|error| error.of(self.id()))
    }

    /// Ends the run: its work is done.
    ///
    /// In this order: the ending is recorded, with the wish to clean up in the same transaction; what the worktree holds and no
    /// surviving ref does is saved; the worktree is removed.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] when the run is no longer ours, nothing was changed; [`ErrorKind::Unavailable`] when the ending could
    /// not be recorded: the lease runs out and the run is taken up. A clean-up that fails is no error: it waits and is tried
    /// again.
    ///
    /// # Cancel safety
    /// When the future is dropped, the ending is recorded or not, and the clean-up is done by the next recovery.
    pub async fn complete(self, result: impl Into<Value>) -> Result<EndedRun> {
        let result = Some(result.into());
        self.end(&Outcome::Completed { result }).await
    }

    /// Ends the run: it failed and is not tried again.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub async fn fail(self, error: &str) -> Result<EndedRun> {
        let error = ErrorText::lossy(error);
        let retry_after = None;
        self.end(&Outcome::Failed { error, retry_after }).await
    }

    /// Ends the run: its work was stopped because somebody wanted it to.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub async fn killed(self) -> Result<EndedRun> {
        self.end(&Outcome::Killed).await
    }

    /// Ends the attempt with any outcome.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub async fn end(self, outcome: &Outcome) -> Result<EndedRun> {
        let inner = &self.coordinator.inner;
        let answer = inner
            .persist(|| inner.runs.end(self.lease(), outcome))
            .await?;
        let run = match answer {
            Write::Applied(run) | Write::Already(run) => run,
            Write::Stale { current } => return Err(lost(&current)),
            Write::NotFound => return Err(gone(self.id())),
        };
        // The lease is no more: nothing to renew while the worktree goes.
        drop(self.held);
        let cleaned_up = inner.clean_up_after(&run).await;
        Ok(EndedRun { run, cleaned_up })
    }
}

fn lost(current: &RunSummary) -> Error {
    let message = format!(
        "the run {} is no longer ours: it is {} under the token {}",
        current.id, current.status, current.token
    );
    Error::new(ErrorKind::Lost, message).of(current.id)
}

fn gone(run: RunId) -> Error {
    Error::new(
        ErrorKind::Lost,
        format!("the run {run} is gone from the run repository"),
    )
    .of(run)
}

fn process_error(run: RunId, error: runtree_process::Error) -> Error {
    Error::new(ErrorKind::Process, error.to_string())
        .with_source(error)
        .of(run)
}
