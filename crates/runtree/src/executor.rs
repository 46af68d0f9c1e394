//! What a worker does with a run: any work of the host's own, or a program.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use runtree_process::{Input, Output};
use runtree_repository::{ErrorText, Outcome};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::active::{ActiveRun, Supervised};
use crate::start::with_sources;

/// Does the work of runs that a [`Worker`](crate::Worker) has claimed.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Does the work of one run in its worktree, and says how it went; none when the run was [lost](ActiveRun::lost), after which
    /// neither its record nor its worktree is touched.
    ///
    /// # Cancel safety
    /// Dropped when a worker's grace is over. Every process that was started with [`ActiveRun::spawn`] is then ended.
    async fn execute(&self, run: &ActiveRun) -> Option<Outcome>;
}

/// Runs a program for each run, as the leader of a process group of its own, in the run's worktree.
///
/// The program reads the run's input from its standard input; `RUNTREE_RUN` and `RUNTREE_WORKFLOW` in its environment name the run. It
/// inherits nothing else. Exit code 0 completes the run; everything else fails it, and it is tried again while attempts are left.
#[derive(Clone, Debug)]
#[must_use]
pub struct CommandExecutor {
    program: OsString,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    logs: Option<PathBuf>,
}

/// How long a failed attempt waits for the next one; it doubles with each, up to an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

impl CommandExecutor {
    /// Runs this program: an absolute path, or a bare name that is searched in the `PATH` given to it.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            environment: Vec::new(),
            logs: None,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Appends what it prints to `<run id>.log` in this directory, which must exist; without one it goes nowhere.
    pub fn logs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.logs = Some(directory.into());
        self
    }

    async fn supervise(&self, run: &ActiveRun) -> crate::Result<Supervised> {
        let output = match &self.logs {
            Some(directory) => Output::AppendTo(directory.join(format!("{}.log", run.id()))),
            None => Output::Null,
        };
        let mut command = run
            .command(&self.program)
            .args(self.args.clone())
            .env("RUNTREE_RUN", run.id().to_string())
            .env("RUNTREE_WORKFLOW", run.run().workflow.as_str())
            .stdin(Input::Pipe)
            .stdout(output.clone())
            .stderr(output);
        for (name, value) in &self.environment {
            command = command.env(name, value);
        }
        let mut child = run.spawn(command).await?;
        let stdin = child.take_stdin();
        let input = run.run().input.clone();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A program may end without having read its input, which is its own affair.
                drop(stdin.write_all(input.as_str().as_bytes()).await);
            }
        };
        let (supervised, ()) = tokio::join!(run.supervise(&mut child), feed);
        supervised
    }
}

#[async_trait]
impl Executor for CommandExecutor {
    async fn execute(&self, run: &ActiveRun) -> Option<Outcome> {
        let failed = |error: &str, retry_after| {
            let error = ErrorText::lossy(error);
            Some(Outcome::Failed { error, retry_after })
        };
        match self.supervise(run).await {
            Ok(Supervised::Exited(exit)) if exit.is_success() => {
                let result = Some(json!({ "exit": exit.to_string() }));
                Some(Outcome::Completed { result })
            }
            Ok(Supervised::Exited(exit)) => {
                failed(&exit.to_string(), Some(pause_after(run.run().attempts)))
            }
            Ok(Supervised::Stopped) => Some(Outcome::Killed),
            Ok(Supervised::Lost) => None,
            // Another attempt does not make a program that cannot be started.
            Err(error) => failed(&with_sources(&error), None),
        }
    }
}

fn pause_after(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(20);
    let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings));
    pause.min(LONGEST_PAUSE)
}
