//! A started group, held so that its number means it for as long as anybody may signal it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use crate::error::{Error, ErrorKind, Result};
use crate::group::ProcessGroupIdentity;
use crate::identity::Pid;
use crate::stop::{self, Stop, Stopped, Watch};
use crate::sys::{self, Signal};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a process ends in one of these two ways"
)]
pub enum Exit {
    /// It ended itself with this code; zero means success.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
}

impl Exit {
    /// Tells whether it ended itself and meant success.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

/// A process group that this process started and holds.
///
/// Its leader is not taken off the kernel's list, even after it ended, until [`stop`](Self::stop) has seen the whole group gone.
/// So the group's number stays its own, and signals can hit nobody else.
///
/// Dropping it sends `SIGKILL` to the whole group and does not wait. To leave the group running, [`detach`](Self::detach).
#[derive(Debug)]
pub struct Child {
    identity: ProcessGroupIdentity,
    held: Arc<Held>,
    exit: Option<Exit>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Child {
    /// Answers what to record, so that any process of this host can find and end the group later.
    pub fn identity(&self) -> &ProcessGroupIdentity {
        &self.identity
    }

    /// Takes the writing end of the leader's input, where [`Input::Pipe`](crate::Input::Pipe) was asked for.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Takes the reading end of the group's output, where [`Output::Pipe`](crate::Output::Pipe) was asked for.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// Takes the reading end of the group's error output, where [`Output::Pipe`](crate::Output::Pipe) was asked for.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.stderr.take()
    }

    /// Waits until the leader has ended. Others of its group may live on: [`stop`](Self::stop) ends them.
    ///
    /// The leader's input stays open if it was not taken.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where the leader's end cannot be learned, as when this process ignores `SIGCHLD`.
    ///
    /// # Cancel safety
    ///
    /// It changes nothing, may be dropped at any time, and answers the same after the end.
    pub async fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let exit = self.held.exit().await.map_err(|error| {
            let what = format!("cannot learn how process {} ended", self.held.leader);
            Error::from_io(ErrorKind::System, what, error)
        })?;
        self.exit = Some(exit);
        Ok(exit)
    }

    /// Ends the whole group and sees it gone: asks, waits for the grace, tells, waits until nothing of it lives.
    ///
    /// Afterwards [`wait`](Self::wait) answers at once how the leader ended. A process that went into a group or session
    /// of its own is not of the group any more; [`find_groups`](crate::find_groups) finds it by its mark.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] and its like where the system does not tell or does not do; nothing is proven then.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it stops signalling; the group may be anywhere between untouched and gone, and is still held. Call it again:
    /// it asks again and gives the whole grace again.
    pub async fn stop(&mut self, how: Stop) -> Result<Stopped> {
        if self.held.is_released() {
            return Ok(Stopped::AlreadyGone);
        }
        let watch = Watch::of_held_child(self.identity.clone(), Arc::clone(&self.held));
        let stopped = stop::run(watch, how).await?;
        if stopped.is_gone() {
            self.wait().await?;
            self.held.release();
        }
        Ok(stopped)
    }

    /// Lets the group run on without this handle and answers what it is known by.
    ///
    /// Its leader, when it ends, is still taken off the kernel's list by the runtime.
    pub fn detach(self) -> ProcessGroupIdentity {
        self.held.lock().kill_on_drop = false;
        self.identity.clone()
    }

    pub(crate) fn new(
        mut child: tokio::process::Child,
        leader: Pid,
        identity: impl FnOnce() -> Result<ProcessGroupIdentity>,
    ) -> Result<Self> {
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // Held first: if the identity cannot be made, the drop ends what was started.
        let held = Arc::new(Held {
            leader,
            state: Mutex::new(State {
                child,
                released: false,
                kill_on_drop: true,
            }),
        });
        Ok(Self {
            identity: identity()?,
            held,
            exit: None,
            stdin,
            stdout,
            stderr,
        })
    }
}

/// The leader as a child of this process, not waited for, so that its number stays its own.
///
/// Whoever signals the group by its number does it through here, and holds this while doing so. A signal
/// and the release exclude each other.
#[derive(Debug)]
pub(crate) struct Held {
    leader: Pid,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    child: tokio::process::Child,
    released: bool,
    kill_on_drop: bool,
}

impl Held {
    /// Signals the whole group at once, unless its number was given back.
    pub(crate) fn signal(&self, signal: Signal) -> std::io::Result<()> {
        let mut state = self.lock();
        if state.released {
            return Ok(());
        }
        state.signal(self.leader, signal)
    }

    pub(crate) fn is_released(&self) -> bool {
        self.lock().released
    }

    /// Gives the number back to the kernel, now that nothing of the group lives.
    fn release(&self) {
        let mut state = self.lock();
        // On systems where the group cannot be seen, what may be left of it goes now.
        if cfg!(all(unix, not(target_os = "linux"))) {
            state.signal(self.leader, Signal::Kill).ok();
        }
        state.released = matches!(state.child.try_wait(), Ok(Some(_)));
    }

    #[cfg(unix)]
    async fn exit(&self) -> std::io::Result<Exit> {
        use tokio::signal::unix::{SignalKind, signal};

        // Listening before looking: an end between the two is not missed.
        let mut some_child_ended = signal(SignalKind::child())?;
        loop {
            if let Some(exit) = sys::peek_exit(self.leader)? {
                return Ok(exit);
            }
            some_child_ended.recv().await;
        }
    }

    #[cfg(not(unix))]
    async fn exit(&self) -> std::io::Result<Exit> {
        loop {
            if let Some(status) = self.lock().child.try_wait()? {
                return Ok(Exit::Code(status.code().unwrap_or(-1)));
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    #[cfg(unix)]
    fn signal(&mut self, leader: Pid, signal: Signal) -> std::io::Result<()> {
        sys::signal_group(leader, signal)
    }

    /// Without groups there is one signal, to one process.
    #[cfg(not(unix))]
    fn signal(&mut self, _: Pid, _: Signal) -> std::io::Result<()> {
        self.child.start_kill()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let leader = self.leader;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.kill_on_drop && !state.released {
            // Nobody is left to be told if it fails; recovery finds the group by its record.
            state.signal(leader, Signal::Kill).ok();
        }
    }
}
