//! The only place that asks the operating system, so that the rest says what it means and no more.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::*;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::*;

use std::num::NonZeroU64;

use crate::identity::Pid;

/// What one look at a process tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: Pid,
    /// The process group, or nothing where it cannot be said (it is being taken apart, or led from outside).
    pub(crate) group: Option<Pid>,
    /// No thread of it will ever run again; it may still be there as a zombie.
    pub(crate) ended: bool,
    /// Ticks since boot.
    pub(crate) started: u64,
}

/// The namespaces that give a number and a start time their meaning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Namespaces {
    pub(crate) pid: Option<NonZeroU64>,
    pub(crate) time: Option<NonZeroU64>,
}

/// The signals this crate sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Please end (`SIGTERM`), and wake up to do so (`SIGCONT`).
    Terminate,
    /// End (`SIGKILL`).
    Kill,
}
