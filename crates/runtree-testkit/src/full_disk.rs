//! Disks that are full without a disk: a limit on the size of files, which needs no rights, and a small file system, which does.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Makes a command that may be told by [`limit_files`] that there is no space.
///
/// The system sends a signal when a file would grow beyond the limit, which ends a program that does not ignore it. A program cannot
/// be made to ignore it from the outside but by one that ignores it already: `sh` here.
pub fn that_survives_full_disks(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(program);
    command
}

/// Lets no file of this process grow beyond so many bytes, or any as far as the disk goes, from now on.
///
/// Only for a process that was started by [`that_survives_full_disks`]: another one is ended by the system at its next write.
///
/// # Panics
/// When the system refuses.
pub fn limit_files(bytes: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    let limit = Rlimit {
        current: bytes.or(maximum),
        maximum,
    };
    setrlimit(Resource::Fsize, limit).expect("a process may lower and raise its own soft limit");
}

/// Makes a command that runs with a file system of so many KiB in memory mounted on a directory, seen by it and its children alone.
///
/// # Panics
/// When a file system cannot be mounted here; the message says what is missing.
pub fn on_a_small_file_system(directory: &Path, kib: u64, program: impl AsRef<OsStr>) -> Command {
    let options = namespace_options().unwrap_or_else(|| {
        panic!(
            "no file system can be mounted here: run as root, or allow user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1); util-linux must be installed for `unshare`"
        )
    });
    let mut command = Command::new("unshare");
    command
        .args(options)
        .args([
            "--",
            "sh",
            "-c",
            "mount -t tmpfs -o \"size=$1k,mode=0777\" none \"$2\" && shift 2 && exec \"$@\"",
            "sh",
        ])
        .arg(kib.to_string())
        .arg(directory)
        .arg(program);
    command
}

/// What `unshare` is asked for: a mount namespace, inside of a user namespace where root's rights are not there.
fn namespace_options() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["--mount"], &["--mount", "--user", "--map-root-user"]];
    WAYS.into_iter().find(|options| {
        let tried = Command::new("unshare")
            .args(*options)
            .args(["--", "mount", "-t", "tmpfs", "none", "/tmp"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    })
}
