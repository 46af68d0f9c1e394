//! Names a process group for the record, finds it again and ends it when its parent is gone.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Liveness, Pid, Place, ProcessIdentity, View, split};
use crate::stop::{self, Look, Stop, Stopped, Watch, blocking};
use crate::sys;
use crate::text::{OrUnknown, invalid, is_word, optional, serde_as_text};

/// A word that a command's processes carry in their environment, by which they are known when their group's leader is gone.
///
/// It should be unique to one start: an attempt's id, say. The host records it *before* the command is
/// started, and then finds what it started even if it crashed before it could record the group (see [`find_groups`]).
///
/// A mark is 1 to 64 ASCII letters, digits, dots, underscores and hyphens; a single hyphen is none.
///
/// # Examples
///
/// ```
/// use runtree_process::Mark;
///
/// let mark: Mark = "run-42.attempt-1".parse()?;
/// assert_eq!(mark.to_string(), "run-42.attempt-1");
/// assert!("a=b".parse::<Mark>().is_err());
/// # Ok::<_, runtree_process::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark(Box<str>);

impl Mark {
    /// The environment variable that carries it.
    pub const VARIABLE: &str = "RUNTREE_MARK";

    /// Longest mark, in bytes.
    pub const MAX_LEN: usize = 64;

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Mark {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if !is_word(text, Self::MAX_LEN) {
            return Err(invalid("a mark", text));
        }
        Ok(Self(text.into()))
    }
}

serde_as_text!(Mark);

/// One process group, as its starter records it: its leader, whose number is the group's, and its mark.
///
/// The text form is that of a [`ProcessIdentity`] with another beginning and the mark (or `-`) at the end:
///
/// ```text
/// g1:<host>:<boot id>:<pid namespace>:<time namespace>:<pid>:<start time in ticks since boot>:<mark>
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessGroupIdentity {
    leader: ProcessIdentity,
    mark: Option<Mark>,
}

impl ProcessGroupIdentity {
    /// Longest text of an identity, in bytes.
    pub const MAX_LEN: usize = ProcessIdentity::MAX_LEN + 1 + Mark::MAX_LEN;

    /// Answers the process that the group was made for.
    pub fn leader(&self) -> &ProcessIdentity {
        &self.leader
    }

    /// Answers the mark that its processes were started with.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    pub(crate) fn new(leader: ProcessIdentity, mark: Option<Mark>) -> Self {
        Self { leader, mark }
    }
}

impl fmt::Display for ProcessGroupIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("g1:")?;
        self.leader.fmt_parts(f)?;
        write!(f, ":{}", OrUnknown(&self.mark))
    }
}

impl FromStr for ProcessGroupIdentity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = split::<8>(text, Self::MAX_LEN).filter(|parts| parts[0] == "g1");
        let [_, rest @ .., mark] =
            parts.ok_or_else(|| invalid("a process group's identity", text))?;
        Ok(Self {
            leader: ProcessIdentity::from_parts(rest)?,
            mark: optional("a mark", mark)?,
        })
    }
}

serde_as_text!(ProcessGroupIdentity);

/// What is left of a process group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Members {
    /// Nothing that lives.
    Gone,
    /// These live and are proven to be of the recorded group. The list is empty where the system hides them from this account.
    Ours(Vec<ProcessIdentity>),
    /// These live in a group of that number, but whether it is the recorded one is not proven: its leader is gone and none carries its mark.
    Unproven(Vec<ProcessIdentity>),
}

/// Answers which processes of the group live, with the proof that [`stop_group`] asks for.
///
/// # Errors
///
/// [`ErrorKind::Elsewhere`] for a group of another host or container; [`ErrorKind::Refused`] for one that is
/// never touched; [`ErrorKind::System`] and its like where the system does not tell.
///
/// # Cancel safety
///
/// It changes nothing and may be dropped at any time.
pub async fn group_members(group: &ProcessGroupIdentity) -> Result<Members> {
    let Some(mut watch) = watch(group)? else {
        return Ok(Members::Gone);
    };
    blocking(move || {
        let place = Place::current();
        let name = |members: Vec<sys::Stat>| {
            let identity = |member: sys::Stat| {
                ProcessIdentity::at(place.clone(), member.pid, Some(member.started))
            };
            members.into_iter().map(identity).collect()
        };
        Ok(match watch.look()? {
            Look::Gone => Members::Gone,
            Look::Ours(members) => Members::Ours(name(members)),
            Look::Unproven(members) => Members::Unproven(name(members)),
        })
    })
    .await
}

/// Ends a group that this process did not start, or no longer holds, and sees it gone.
///
/// This is what recovery calls for the group in a dead owner's record. It signals only what is proven to
/// be the recorded group. The proof rests on one rule of the kernel: *a number is given to a new process or group only
/// when no process, not even a zombie, has it as its own or as its group's.* So the group of that number is the recorded one
///
/// - while its leader is there with the recorded start time, or
/// - while a process in it carries the recorded [`Mark`], or
/// - while a process in it is there that an earlier look of the same call proved to be of it.
///
/// If the leader's number belongs to a process with another start time, the group had ended before: it is gone. If none
/// of this holds, the answer is [`Stopped::Unproven`] and nothing was signalled.
///
/// Each process is signalled through a pidfd, which is checked after it was taken, so that a number given away meanwhile
/// hits nobody. `SIGTERM` reaches each process once, also one that is forked during the grace.
///
/// # Errors
///
/// As [`group_members`].
///
/// # Cancel safety
///
/// Dropped, it stops signalling; the group may be anywhere between untouched and gone. Call it again.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use runtree_process::{ProcessGroupIdentity, Stop, Stopped, stop_group};
///
/// # async fn recover(recorded: &str) -> runtree_process::Result<()> {
/// let group: ProcessGroupIdentity = recorded.parse()?;
/// let stopped = stop_group(&group, Stop::graceful(Duration::from_secs(5))).await?;
/// if stopped.is_gone() {
///     // Only now may anyone else use its worktree.
/// }
/// # Ok(()) }
/// ```
pub async fn stop_group(group: &ProcessGroupIdentity, how: Stop) -> Result<Stopped> {
    match watch(group)? {
        Some(watch) => stop::run(watch, how).await,
        None => Ok(Stopped::AlreadyGone),
    }
}

/// Finds the groups on this host whose processes carry `mark`, however they came to be.
///
/// It closes two gaps of a recorded group: a crash after the start and before the record, and descendants that went into a group
/// or session of their own. It sees processes of this account only, and not those that cleaned their environment.
/// This process's own group is not among the answers, and neither is one whose living leader does not carry the mark: that is somebody else's, with a guest.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] where the system does not tell; [`ErrorKind::System`] where it fails.
///
/// # Cancel safety
///
/// It changes nothing and may be dropped at any time.
pub async fn find_groups(mark: &Mark) -> Result<Vec<ProcessGroupIdentity>> {
    let mark = mark.clone();
    blocking(move || {
        let own_group = own_group()?;
        let processes = sys::all_processes()
            .map_err(|error| Error::from_io(ErrorKind::System, "cannot list processes", error))?;
        let marked = |member: &sys::Stat| {
            !member.ended && sys::has_variable(member.pid, Mark::VARIABLE, mark.as_str())
        };
        let mut groups: Vec<_> = processes
            .iter()
            .filter(|member| marked(member))
            .filter_map(|member| member.group)
            .collect();
        groups.retain(|group| own_group != Some(*group));
        groups.sort_unstable();
        groups.dedup();
        let place = Place::current();
        let identity = |group| {
            let leader = processes.iter().find(|process| process.pid == group);
            let foreign = leader.is_some_and(|leader| !leader.ended && !marked(leader));
            let started = leader.map(|leader| leader.started);
            (!foreign).then(|| {
                let leader = ProcessIdentity::at(place.clone(), group, started);
                ProcessGroupIdentity::new(leader, Some(mark.clone()))
            })
        };
        Ok(groups.into_iter().filter_map(identity).collect())
    })
    .await
}

/// Checks that the group may be looked at and touched from here; nothing means that it is gone for certain.
fn watch(group: &ProcessGroupIdentity) -> Result<Option<Watch>> {
    let leader = group.leader();
    match leader.place().seen_from(&Place::current()) {
        View::BeforeRestart => return Ok(None),
        View::Elsewhere => {
            return Err(Error::new(
                ErrorKind::Elsewhere,
                format!("process group {group} is not of this host and pid namespace"),
            ));
        }
        View::Here => {}
    }
    let pid = leader.pid();
    if pid.get() <= 1 || pid == Pid::current() || own_group()? == Some(pid) {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("process group {pid} is never signalled"),
        ));
    }
    // The cheap way out: without a mark, a dead leader's number without any process in it needs no scan.
    if leader.probe() == Liveness::Dead && !sys::group_exists(pid) {
        return Ok(None);
    }
    Ok(Some(Watch::of_recorded(group.clone())))
}

/// Answers the group of this process; nothing where it lies outside of our pid namespace, so that no number here names it.
fn own_group() -> Result<Option<Pid>> {
    let own = sys::stat(Pid::current())
        .map_err(|error| Error::from_io(ErrorKind::System, "cannot look at this process", error))?;
    Ok(own.and_then(|own| own.group))
}
