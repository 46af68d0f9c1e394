//! Ends a process group and looks until it is gone, signalling nothing that is not proven to be of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::child::Held;
use crate::error::{Error, ErrorKind, Result};
use crate::group::{Mark, ProcessGroupIdentity};
use crate::identity::Pid;
use crate::sys::{self, Signal, Stat};

/// How long a group is asked, and how long it is waited for after it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    grace: Option<Duration>,
    give_up_after: Duration,
}

impl Stop {
    /// Asks with `SIGTERM`, and ends with `SIGKILL` whatever is left after `grace`.
    pub fn graceful(grace: Duration) -> Self {
        Self {
            grace: Some(grace),
            ..Self::forced()
        }
    }

    /// Ends with `SIGKILL` at once.
    pub fn forced() -> Self {
        Self {
            grace: None,
            give_up_after: Duration::from_secs(10),
        }
    }

    /// Changes how long a group that got `SIGKILL` is waited for; 10 seconds if not told.
    ///
    /// A process in an uninterruptible system call (a hanging network disk) outlives `SIGKILL` until the call returns.
    #[must_use]
    pub fn give_up_after(mut self, patience: Duration) -> Self {
        self.give_up_after = patience;
        self
    }
}

/// Graceful, with ten seconds.
impl Default for Stop {
    fn default() -> Self {
        Self::graceful(Duration::from_secs(10))
    }
}

/// What was seen when a group was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// Nothing of it lived when it was first looked at; no signal was sent.
    AlreadyGone,
    /// It was asked, and all of it ended before `SIGKILL` was sent.
    ExitedInGrace,
    /// It got `SIGKILL`, and all of it was seen to be gone.
    Killed,
    /// These live on, although they were told and waited for: they hang in the kernel, or belong to another account. An empty list means that the system shows that there are some and not which.
    ///
    /// Keep away from what they use, and try again later.
    StillThere(Vec<Pid>),
    /// These are in a group of that number, but it is not proven to be the recorded one; they were not signalled (any more).
    ///
    /// Keep away from what they may use, and tell a person.
    Unproven(Vec<Pid>),
}

impl Stopped {
    /// Tells whether the whole group was seen to be gone.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::AlreadyGone | Self::ExitedInGrace | Self::Killed => true,
            Self::StillThere(_) | Self::Unproven(_) => false,
        }
    }
}

/// Pauses between looks: short first, for most groups end at once, then longer, for each look reads all of `/proc`.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Pauses before the readings of `/proc` that make up one look. Most looks end with the first.
///
/// A reading takes time. A process may fork one that the reading has passed already and end before the
/// reading comes to it; so it takes two readings in a row that find nothing alive to believe it. And a group that is just ending
/// may lose the process that proved it between being read and being asked again; so it takes
/// several to call it unproven.
const CONFIRMING_PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(16),
    Duration::from_millis(64),
];

/// Stops the watched group.
pub(crate) async fn run(mut watch: Watch, how: Stop) -> Result<Stopped> {
    let mut sent = None;
    let mut left = Vec::new();
    let ask = how.grace.map(|grace| (Signal::Terminate, grace));
    for (signal, time) in ask.into_iter().chain([(Signal::Kill, how.give_up_after)]) {
        // A time too long to be added is no limit.
        let deadline = Instant::now().checked_add(time);
        let mut pause = FIRST_PAUSE;
        loop {
            let look;
            (watch, look) = blocking(move || {
                let look = watch.look()?;
                if let Look::Ours(living) = &look {
                    watch.signal(living, signal)?;
                }
                Ok((watch, look))
            })
            .await?;
            match look {
                Look::Gone => return Ok(gone_after(sent)),
                Look::Unproven(living) => return Ok(Stopped::Unproven(pids(&living))),
                Look::Ours(living) => {
                    if !living.is_empty() {
                        sent = Some(signal);
                    }
                    left = living;
                }
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                break;
            }
            let next = now + pause;
            tokio::time::sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    Ok(Stopped::StillThere(pids(&left)))
}

fn gone_after(sent: Option<Signal>) -> Stopped {
    match sent {
        None => Stopped::AlreadyGone,
        Some(Signal::Terminate) => Stopped::ExitedInGrace,
        Some(Signal::Kill) => Stopped::Killed,
    }
}

fn pids(members: &[Stat]) -> Vec<Pid> {
    members.iter().map(|member| member.pid).collect()
}

/// What one look at a group finds.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nothing that lives.
    Gone,
    /// These live, and are of the recorded group.
    Ours(Vec<Stat>),
    /// These live in a group of that number.
    Unproven(Vec<Stat>),
}

/// Looks at a group again and again, remembering what was proven.
#[derive(Debug)]
pub(crate) struct Watch {
    group: ProcessGroupIdentity,
    /// The leader is a child of this process that was not waited for: its number cannot be given away.
    held: Option<Arc<Held>>,
    /// Processes, by number and start time, that an earlier look proved to be of the group.
    known: HashSet<(Pid, u64)>,
    /// Processes that were asked to end already.
    asked: HashSet<(Pid, u64)>,
    group_asked: bool,
}

impl Watch {
    /// Watches the group of a child of this process that is not waited for as long as the watch is used.
    pub(crate) fn of_held_child(group: ProcessGroupIdentity, held: Arc<Held>) -> Self {
        Self {
            held: Some(held),
            ..Self::of_recorded(group)
        }
    }

    /// Watches a group that is known from its record only.
    pub(crate) fn of_recorded(group: ProcessGroupIdentity) -> Self {
        Self {
            group,
            held: None,
            known: HashSet::new(),
            asked: HashSet::new(),
            group_asked: false,
        }
    }

    fn number(&self) -> Pid {
        self.group.leader().pid()
    }

    /// Looks, which may take a tenth of a second where there is doubt.
    pub(crate) fn look(&mut self) -> Result<Look> {
        let mut doubtful = Vec::new();
        let mut empty_readings = 0;
        for pause in CONFIRMING_PAUSES {
            std::thread::sleep(pause);
            let members = sys::members(self.number()).map_err(|error| {
                let what = format!("cannot look at process group {}", self.number());
                Error::from_io(ErrorKind::System, what, error)
            })?;
            if self.number_was_given_away(&members) {
                return Ok(Look::Gone);
            }
            if members.is_empty() {
                // The kernel knows at once and for all accounts.
                let hidden = sys::group_exists(self.number());
                return Ok(if hidden {
                    Look::Ours(members)
                } else {
                    Look::Gone
                });
            }
            let proven = self.is_proven(&members);
            if proven {
                self.known = members.iter().map(key).collect();
            }
            let mut living = members;
            living.retain(|member| !member.ended);
            if proven && !living.is_empty() {
                return Ok(Look::Ours(living));
            }
            if !living.is_empty() {
                empty_readings = 0;
                doubtful = living;
                continue;
            }
            empty_readings += 1;
            if empty_readings == 2 {
                return Ok(Look::Gone);
            }
        }
        Ok(Look::Unproven(doubtful))
    }

    /// Signals those found by the last look.
    pub(crate) fn signal(&mut self, living: &[Stat], signal: Signal) -> Result<()> {
        let number = self.number();
        if let Some(held) = self.held.as_ref().filter(|_| !living.is_empty()) {
            // All at once, so that nobody forks away from it. Asked once: a second SIGTERM means
            // "hurry" to many programs.
            if signal == Signal::Kill || !self.group_asked {
                self.group_asked = true;
                tolerate_permission(held.signal(signal), number)?;
            }
        }
        for member in living {
            // A leader that went over to another group is not reached through its own.
            let reached = self.held.is_some() && member.group == Some(number);
            if reached || (signal == Signal::Terminate && !self.asked.insert(key(member))) {
                continue;
            }
            tolerate_permission(sys::signal_process(*member, signal), member.pid)?;
        }
        Ok(())
    }

    /// Tells whether a process with another start time has the number, which is so only when the whole group was gone before.
    fn number_was_given_away(&self, members: &[Stat]) -> bool {
        let recorded = self.group.leader().started();
        self.held.is_none()
            && members.iter().any(|member| {
                member.pid == self.number()
                    && recorded.is_some_and(|recorded| recorded != member.started)
            })
    }

    /// Tells whether all of `members` are of the recorded group, by the rule in [`stop_group`](crate::stop_group).
    fn is_proven(&self, members: &[Stat]) -> bool {
        self.held.is_some()
            || members
                .iter()
                .any(|member| self.is_witness(member) && self.is_still_there(member))
    }

    fn is_witness(&self, member: &Stat) -> bool {
        let leader = self.group.leader();
        let is_leader = member.pid == leader.pid() && Some(member.started) == leader.started();
        let carries = |mark: &Mark| sys::has_variable(member.pid, Mark::VARIABLE, mark.as_str());
        is_leader || self.known.contains(&key(member)) || self.group.mark().is_some_and(carries)
    }

    /// Looks again at one that was found: it held the number for as long as the look took.
    fn is_still_there(&self, member: &Stat) -> bool {
        matches!(sys::stat(member.pid), Ok(Some(now))
            if now.started == member.started
                && (now.group == Some(self.number()) || now.pid == self.number()))
    }
}

fn key(member: &Stat) -> (Pid, u64) {
    (member.pid, member.started)
}

/// A member of another account cannot be signalled, and must not keep the others from it; it is reported as still there.
fn tolerate_permission(sent: std::io::Result<()>, pid: Pid) -> Result<()> {
    match sent {
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
            let what = format!("cannot signal process {pid}");
            Err(Error::from_io(ErrorKind::System, what, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs what waits for the system away from the threads that run futures.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::new(
                ErrorKind::System,
                "the runtime is shutting down",
            )),
        },
    }
}
