//! What every Unix has: groups, signals to them, and looking at a child's end without taking it away.

use std::io;

use rustix::io::Errno;
use rustix::process::{
    self, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};

use super::Signal;
use crate::child::Exit;
use crate::identity::Pid;

pub(crate) fn node_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Signals every member of a group at once. The caller knows that the number is taken, and by whom.
pub(crate) fn signal_group(group: Pid, signal: Signal) -> io::Result<()> {
    for signal in rustix_signals(signal) {
        match kill_process_group(raw(group), *signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Tells whether any process, be it a zombie or hidden from us, is in the group.
pub(crate) fn group_exists(group: Pid) -> bool {
    test_kill_process_group(raw(group)) != Err(Errno::SRCH)
}

/// Looks whether a child of ours has ended, and leaves it as a zombie if so.
///
/// As long as the zombie is there, the kernel gives its number to no process and no group.
pub(crate) fn peek_exit(child: Pid) -> io::Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let Some(status) = waitid(WaitId::Pid(raw(child)), options)? else {
        return Ok(None);
    };
    let exit = status
        .exit_status()
        .map(Exit::Code)
        .or_else(|| status.terminating_signal().map(Exit::Signal));
    Ok(exit)
}

pub(super) fn raw(pid: Pid) -> process::Pid {
    i32::try_from(pid.get())
        .ok()
        .and_then(process::Pid::from_raw)
        .expect("a Pid is positive and fits an i32")
}

pub(super) fn rustix_signals(signal: Signal) -> &'static [process::Signal] {
    match signal {
        // A stopped process does not see SIGTERM before it is continued.
        Signal::Terminate => &[process::Signal::TERM, process::Signal::CONT],
        Signal::Kill => &[process::Signal::KILL],
    }
}
