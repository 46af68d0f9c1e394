//! Systems where nothing about foreign processes is proven: every answer is "unknown".

use std::io;

use super::{Namespaces, Signal, Stat};
use crate::identity::Pid;

pub(crate) fn machine_id() -> Option<String> {
    None
}

pub(crate) fn boot_id() -> Option<String> {
    None
}

pub(crate) fn namespaces() -> Namespaces {
    Namespaces::default()
}

pub(crate) fn stat(_: Pid) -> io::Result<Option<Stat>> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn all_processes() -> io::Result<Vec<Stat>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sees no more of a group than its leader, and that only as a child of this process.
#[cfg(unix)]
pub(crate) fn members(group: Pid) -> io::Result<Vec<Stat>> {
    let ended = super::peek_exit(group)?.is_some();
    Ok(vec![Stat {
        pid: group,
        group: Some(group),
        ended,
        started: 0,
    }])
}

#[cfg(not(unix))]
pub(crate) fn members(_: Pid) -> io::Result<Vec<Stat>> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn has_variable(_: Pid, _: &str, _: &str) -> bool {
    false
}

pub(crate) fn signal_process(_: Stat, _: Signal) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
pub(crate) fn node_name() -> String {
    String::new()
}

#[cfg(not(unix))]
pub(crate) fn group_exists(_: Pid) -> bool {
    true
}
