//! Names a process so that no other process, before or after, here or elsewhere, has the same name.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::sys;
use crate::text::{OrUnknown, canonical, invalid, optional, serde_as_text};

/// The number of a process: positive, and within what every system uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(u32);

impl Pid {
    /// Largest number that a process can have.
    pub const MAX: Self = Self(i32::MAX.unsigned_abs());

    /// Answers the number as a pid, or nothing for zero and for numbers above [`Pid::MAX`].
    pub fn new(number: u32) -> Option<Self> {
        (1..=Self::MAX.0).contains(&number).then_some(Self(number))
    }

    /// Answers this process's own number.
    pub fn current() -> Self {
        Self(std::process::id())
    }

    /// Answers the number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Pid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        canonical("a process id", text)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| invalid("a process id", text))
    }
}

/// Whether a process lives, as far as it can be proven from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there is no fourth answer, and whoever matches must decide about Unknown"
)]
pub enum Liveness {
    /// This very process is there and runs (or could).
    Alive,
    /// Proven: it can never do anything again. It ended, or its number belongs to another process now, or its machine has been restarted.
    ///
    /// A zombie is dead: it does nothing any more and only waits for its parent to take note.
    Dead,
    /// Nothing is proven: it belongs to another host or container, or the system does not tell. Doubt is not death.
    Unknown,
}

/// One process, told apart from every other by host, boot, pid namespace, number and start time.
///
/// The text form is canonical and stable, so it can be stored and compared:
///
/// ```text
/// p1:<host>:<boot id>:<pid namespace>:<time namespace>:<pid>:<start time in ticks since boot>
/// ```
///
/// What the system does not tell is written `-`, and nothing is ever proven about such a process.
///
/// # Examples
///
/// ```
/// use runtree_process::{Liveness, ProcessIdentity};
///
/// let me = ProcessIdentity::current();
/// let stored = me.to_string();
///
/// let read: ProcessIdentity = stored.parse()?;
/// assert_eq!(read, me);
/// # if cfg!(target_os = "linux") {
/// assert_eq!(read.probe(), Liveness::Alive);
/// # }
/// # Ok::<_, runtree_process::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    place: Place,
    pid: Pid,
    started: Option<u64>,
}

impl ProcessIdentity {
    /// Longest text of an identity, in bytes.
    pub const MAX_LEN: usize = 195;

    /// Answers this process.
    pub fn current() -> Self {
        let pid = Pid::current();
        let started = sys::stat(pid).ok().flatten().map(|stat| stat.started);
        Self::at(Place::current(), pid, started)
    }

    /// Answers the process that has the number `pid` now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] where there is none; [`ErrorKind::NotPermitted`], [`ErrorKind::Unsupported`] or
    /// [`ErrorKind::System`] where the system does not tell.
    pub fn of(pid: Pid) -> Result<Self> {
        let stat = sys::stat(pid)
            .map_err(|error| {
                Error::from_io(
                    ErrorKind::System,
                    format!("cannot look at process {pid}"),
                    error,
                )
            })?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no process {pid}")))?;
        Ok(Self::at(Place::current(), pid, Some(stat.started)))
    }

    /// Looks whether the process lives.
    ///
    /// The rules, in order:
    ///
    /// 1. Same boot id, pid namespace and time namespace as this process: the number can be looked up here. No such process, another start time, or a zombie without living threads: dead. Else alive.
    /// 2. Same host, known by its machine id, but another boot id: the machine was restarted since, so dead.
    /// 3. Anything else, and any doubt on the way: unknown.
    pub fn probe(&self) -> Liveness {
        match self.place.seen_from(&Place::current()) {
            View::Here => self.look(),
            View::BeforeRestart => Liveness::Dead,
            View::Elsewhere => Liveness::Unknown,
        }
    }

    /// Answers the host that the process runs or ran on.
    pub fn host(&self) -> &Host {
        &self.place.host
    }

    /// Answers the process's number, in its own pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn at(place: Place, pid: Pid, started: Option<u64>) -> Self {
        Self {
            place,
            pid,
            started,
        }
    }

    /// Names a process that the system does not let be told apart; nothing is ever proven about it.
    pub(crate) fn without_start_time(pid: Pid) -> Self {
        Self::at(Place::current(), pid, None)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn started(&self) -> Option<u64> {
        self.started
    }

    fn look(&self) -> Liveness {
        match (sys::stat(self.pid), self.started) {
            (Ok(None), _) => Liveness::Dead,
            (Ok(Some(stat)), Some(started)) if stat.started != started || stat.ended => {
                Liveness::Dead
            }
            (Ok(Some(_)), Some(_)) => Liveness::Alive,
            (Ok(Some(_)), None) | (Err(_), _) => Liveness::Unknown,
        }
    }

    /// Writes everything after the prefix, which a group's text shares.
    pub(crate) fn fmt_parts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            pid,
            started,
        } = self;
        write!(
            f,
            "{}:{}:{}:{}:{pid}:{}",
            place.host,
            OrUnknown(&place.boot),
            OrUnknown(&place.pid_namespace),
            OrUnknown(&place.time_namespace),
            OrUnknown(started),
        )
    }

    pub(crate) fn from_parts(parts: [&str; 6]) -> Result<Self> {
        let [host, boot, pid_namespace, time_namespace, pid, started] = parts;
        Ok(Self {
            place: Place {
                host: host.parse()?,
                boot: optional("a boot id", boot)?,
                pid_namespace: optional("a namespace's number", pid_namespace)?,
                time_namespace: optional("a namespace's number", time_namespace)?,
            },
            pid: pid.parse()?,
            started: optional("a start time in ticks", started)?,
        })
    }
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("p1:")?;
        self.fmt_parts(f)
    }
}

impl FromStr for ProcessIdentity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = split::<7>(text, Self::MAX_LEN).filter(|parts| parts[0] == "p1");
        let [_, rest @ ..] = parts.ok_or_else(|| invalid("a process identity", text))?;
        Self::from_parts(rest)
    }
}

serde_as_text!(ProcessIdentity);

/// Splits a text of exactly `N` parts, if it is no longer than `max_len` bytes.
pub(crate) fn split<const N: usize>(text: &str, max_len: usize) -> Option<[&str; N]> {
    if text.len() > max_len {
        return None;
    }
    text.split(':').collect::<Vec<_>>().try_into().ok()
}

/// Where a process's number and start time mean what they say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    host: Host,
    boot: Option<BootId>,
    pid_namespace: Option<NonZeroU64>,
    // Start times are shifted by the reader's time namespace.
    time_namespace: Option<NonZeroU64>,
}

/// How one place is seen from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Numbers of the one can be looked up in the other.
    Here,
    /// The same machine before its last restart: all its processes are gone.
    BeforeRestart,
    /// Nothing can be said from here.
    Elsewhere,
}

impl Place {
    pub(crate) fn current() -> Self {
        let namespaces = sys::namespaces();
        Self {
            host: Host::current(),
            boot: sys::boot_id().and_then(|text| text.trim().parse().ok()),
            pid_namespace: namespaces.pid,
            time_namespace: namespaces.time,
        }
    }

    pub(crate) fn seen_from(&self, here: &Self) -> View {
        let (Some(boot), Some(boot_here)) = (&self.boot, &here.boot) else {
            return View::Elsewhere;
        };
        if boot != boot_here {
            // Another boot of what? Only a machine id says that it is not another machine of that name.
            let same_machine = self.host == here.host && self.host.has_machine_id();
            return if same_machine {
                View::BeforeRestart
            } else {
                View::Elsewhere
            };
        }
        // One kernel. Its namespaces' numbers decide, not the name, which containers and people change.
        // A number that was freed and given to a new namespace does no harm: the old one's processes are
        // all gone, and the look-up says so, for no later process has their number and start time.
        let known = self.pid_namespace.is_some() && self.time_namespace.is_some();
        let same =
            self.pid_namespace == here.pid_namespace && self.time_namespace == here.time_namespace;
        if known && same {
            View::Here
        } else {
            View::Elsewhere
        }
    }
}

/// The kernel's random name for the time between two restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BootId(Box<str>);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BootId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_uuid = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if !is_uuid {
            return Err(invalid("a boot id", text));
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "5e1fa11c-0000-4000-8000-00000000c0de";
    const OTHER_BOOT: &str = "00000000-0000-4000-8000-00000000c0de";

    fn place(host: &str, boot: &str, pid_namespace: &str) -> Place {
        ProcessIdentity::from_parts([host, boot, pid_namespace, "7", "9", "9"])
            .expect("the test's own text")
            .place
    }

    #[test]
    fn a_place_is_here_only_with_the_same_boot_and_namespaces() {
        let here = place("a+0000000000000001", BOOT, "5");
        for (there, expected) in [
            (place("a+0000000000000001", BOOT, "5"), View::Here),
            // A renamed host is the same kernel still.
            (place("b", BOOT, "5"), View::Here),
            (place("a+0000000000000001", BOOT, "6"), View::Elsewhere),
            (place("a+0000000000000001", BOOT, "-"), View::Elsewhere),
            (place("a+0000000000000001", "-", "5"), View::Elsewhere),
            (
                place("a+0000000000000001", OTHER_BOOT, "6"),
                View::BeforeRestart,
            ),
            (
                place("a+0000000000000002", OTHER_BOOT, "5"),
                View::Elsewhere,
            ),
            (
                place("b+0000000000000001", OTHER_BOOT, "5"),
                View::Elsewhere,
            ),
        ] {
            assert_eq!(there.seen_from(&here), expected, "{there:?}");
        }
    }

    #[test]
    fn another_boot_proves_nothing_without_a_machine_id() {
        let here = place("db-0", BOOT, "5");
        assert_eq!(
            place("db-0", OTHER_BOOT, "5").seen_from(&here),
            View::Elsewhere
        );
    }

    #[test]
    fn places_that_know_nothing_are_not_the_same() {
        let nowhere = place("a", "-", "-");
        assert_eq!(nowhere.seen_from(&nowhere), View::Elsewhere);
        let boot_only = place("a", BOOT, "-");
        assert_eq!(boot_only.seen_from(&boot_only), View::Elsewhere);
    }
}
