//! Starts, watches and stops a process group, and proves that an owner is dead.
//!
//! ```
//! use std::time::Duration;
//! use runtree_process::{Command, Liveness, Output, ProcessIdentity, Stop, Stopped};
//!
//! # #[cfg(target_os = "linux")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> runtree_process::Result<()> {
//! // The owner of a run writes down who it is ...
//! let owner = ProcessIdentity::current().to_string();
//! // ... and what it started.
//! let mut child = Command::new("sleep", "/")
//!     .arg("1000")
//!     .env("PATH", "/usr/bin:/bin")
//!     .mark("run-42.attempt-1".parse()?)
//!     .spawn()
//!     .await?;
//! let group = child.identity().to_string();
//!
//! // Anyone on this host can tell later whether the owner is dead,
//! assert_eq!(owner.parse::<ProcessIdentity>()?.probe(), Liveness::Alive);
//! // and the owner itself ends the group and sees it gone.
//! let stopped = child.stop(Stop::graceful(Duration::from_secs(5))).await?;
//! assert_eq!(stopped, Stopped::ExitedInGrace);
//! # assert!(group.starts_with("g1:"));
//! # Ok(()) }
//! # #[cfg(not(target_os = "linux"))] fn main() {}
//! ```
//!
//! # Main types
//!
//! - [`ProcessIdentity`] names one process for ever; [`ProcessIdentity::probe`] answers [`Liveness`]. [`Host`] is the part of it that says which machine.
//! - [`Command`] starts a program as the leader of a group of its own and gives a [`Child`], which waits and stops.
//! - [`ProcessGroupIdentity`] is what is recorded of a child. After the death of its parent [`stop_group`] ends it, [`group_members`] looks at it, and [`find_groups`] finds what was started but not recorded, by its [`Mark`].
//! - [`Stop`] says how patiently, [`Stopped`] what was seen.
//!
//! # Guarantees
//!
//! - A process is called dead only on proof; every doubt is [`Liveness::Unknown`].
//! - Nothing is signalled whose identity is not proven at that moment, though numbers are used again. Number 1, this process and its own group are never signalled.
//! - "Gone" means that nothing of the group lives: it was looked for after the last signal and was not there. Zombies do not live.
//! - No answer claims more than was seen: what outlives `SIGKILL` is listed.
//!
//! # What it does not do
//!
//! - It does not confine. A process that goes into a session of its own leaves the group; it is found by its mark unless it cleaned its environment. Against hostile programs use a container or a control group.
//! - It does not restart, limit time or keep logs: that is the caller's.
//! - It reads no environment variable and no current directory.
//!
//! # Limits
//!
//! - Proofs need Linux with `/proc` and, for [`stop_group`], pidfds (Linux 5.3). Elsewhere on Unix groups are started and stopped by their parent, which sees no more of them than their leader; on Windows [`Child::stop`] is unsupported, and a dropped [`Child`] ends its own process alone. Neither is exercised by tests.
//! - A process in another pid namespace (another container) is [`Liveness::Unknown`] even on the same machine: its number means nothing here.
//! - Virtual machines that were resumed from one snapshot share their boot id; a process of one may seem dead to the other. Restart them instead.
//! - Where `/proc` hides other accounts' processes, a group's members that changed their account are not seen while a zombie of it is there too.
//!
//! # Alternatives
//!
//! Why not `process-wrap` or `command-group`? They start groups well, but wait for direct children only, so that they do not see a grandchild
//! end, and they signal a group's number after its leader was waited for, when it may mean another group. Holding the leader and looking at
//! `/proc` is what this crate adds, and with that nothing is left for a wrapper but `process_group(0)`.
//!
//! Why not `PR_SET_PDEATHSIG`, so that children die with their parent? It acts when the parent's *thread* ends, reaches no grandchild, and is lost when the
//! child changes its credentials. A run's owner may also want to leave its child running over its own restart.

mod child;
mod command;
mod error;
mod group;
mod host;
mod identity;
mod stop;
mod sys;
mod text;

pub use child::{Child, Exit};
pub use command::{Command, Input, Output};
pub use error::{Error, ErrorKind, Result};
pub use group::{Mark, Members, ProcessGroupIdentity, find_groups, group_members, stop_group};
pub use host::Host;
pub use identity::{Liveness, Pid, ProcessIdentity};
pub use stop::{Stop, Stopped};
