//! Linux: `/proc` for looking, pidfds for signalling one process and no other.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal, test_kill_process};

use super::unix::{raw, rustix_signals};
use super::{Namespaces, Signal, Stat};
use crate::identity::Pid;

/// Most bytes of a process's environment that are searched; the kernel's usual limit for arguments and environment together.
const ENVIRONMENT_MAX: u64 = 6 * 1024 * 1024;

pub(crate) fn machine_id() -> Option<String> {
    fs::read_to_string("/etc/machine-id").ok()
}

pub(crate) fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

/// Answers this process's namespaces, or nothing where `/proc` is missing or shows another pid namespace than ours.
pub(crate) fn namespaces() -> Namespaces {
    let shown = fs::read_link("/proc/self").ok();
    let own = Pid::current().to_string();
    if shown.as_deref().and_then(|link| link.to_str()) != Some(own.as_str()) {
        return Namespaces::default();
    }
    let number = |name| {
        let metadata = fs::metadata(format!("/proc/self/ns/{name}"));
        metadata
            .ok()
            .and_then(|metadata| NonZeroU64::new(metadata.ino()))
    };
    Namespaces {
        pid: number("pid"),
        // Kernels before 5.6 have one time for all.
        time: number("time").or(NonZeroU64::new(1)),
    }
}

/// Looks at the process with this number; nothing is the proof that there is none.
pub(crate) fn stat(pid: Pid) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(bytes) => parse_stat(&bytes).map(Some).ok_or_else(|| {
            io::Error::new(
                ErrorKind::InvalidData,
                format!("/proc/{pid}/stat is not understood"),
            )
        }),
        Err(error) if is_gone(&error) => {
            // `/proc` may hide other accounts' processes (hidepid); the kernel itself does not.
            match test_kill_process(raw(pid)) {
                Err(Errno::SRCH) => Ok(None),
                Ok(()) | Err(_) => Err(io::Error::new(
                    ErrorKind::PermissionDenied,
                    format!("process {pid} is hidden from this account"),
                )),
            }
        }
        Err(error) => Err(error),
    }
}

/// Looks at every process that `/proc` shows to this account.
pub(crate) fn all_processes() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<Pid>().ok()) else {
            continue;
        };
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(bytes) => found.extend(parse_stat(&bytes)),
            Err(error) if is_gone(&error) || error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Looks at every process in the group, and at its leader even if that went over to another group.
pub(crate) fn members(group: Pid) -> io::Result<Vec<Stat>> {
    let mut members = all_processes()?;
    members.retain(|stat| stat.group == Some(group) || stat.pid == group);
    Ok(members)
}

/// Tells whether the process was started with exactly this variable in its environment.
pub(crate) fn has_variable(pid: Pid, name: &str, value: &str) -> bool {
    let mut environment = Vec::new();
    let read = fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRONMENT_MAX).read_to_end(&mut environment));
    let wanted = format!("{name}={value}");
    read.is_ok()
        && environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
}

/// Signals the process that has this number *and* this start time, and no other.
///
/// The pidfd is taken first and checked then: if the number was given away in between, the check fails, and
/// if it is given away afterwards, the pidfd still means the process that ended, and nobody is signalled.
pub(crate) fn signal_process(member: Stat, signal: Signal) -> io::Result<()> {
    let pidfd = match pidfd_open(raw(member.pid), PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(()),
        Err(Errno::NOSYS) => return Err(ErrorKind::Unsupported.into()),
        Err(errno) => return Err(errno.into()),
    };
    if stat(member.pid)?.is_none_or(|now| now.started != member.started) {
        return Ok(());
    }
    for signal in rustix_signals(signal) {
        match pidfd_send_signal(&pidfd, *signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// `ENOENT` from looking a number up, `ESRCH` from reading after the process went.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Reads one line of `/proc/<pid>/stat`, described in `proc_pid_stat(5)`.
///
/// The second field is the program's name in parentheses. A program chooses its name, so it may hold
/// spaces, parentheses, line ends and what looks like further fields; only the *last* closing parenthesis ends it,
/// because nothing after it has one.
pub(crate) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|byte| *byte == b'(')?;
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&bytes[..open])
        .ok()?
        .strip_suffix(' ')?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    // The first of these is field 3.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let threads: i64 = field(20)?.parse().ok()?;
    let ended = match field(3)? {
        // A main thread that ended leaves a zombie while its other threads work on.
        "Z" => threads <= 1,
        "X" | "x" => true,
        _ => false,
    };
    Some(Stat {
        pid: pid.parse().ok()?,
        group: field(5)?
            .parse::<i64>()
            .ok()
            .map(|group| u32::try_from(group).ok().and_then(Pid::new))?,
        ended,
        started: field(22)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(pid: u32, comm: &[u8], state: &str, group: i64, threads: u32, started: u64) -> Vec<u8> {
        let mut line = format!("{pid} (").into_bytes();
        line.extend(comm);
        line.extend(
            format!(
                ") {state} 1 {group} 1 0 -1 4194304 5 0 0 0 1 2 0 0 20 0 {threads} 0 {started} 1000 \
                 10 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            )
            .into_bytes(),
        );
        line
    }

    #[test]
    fn a_name_cannot_pretend_to_be_fields() {
        for comm in [
            &b"sh"[..],
            b"",
            b"a b",
            b") Z 1 1 1",
            b"((((",
            b"))))",
            b"x) R 1 2 3 4 5 6\n7 (y",
            b"\xff\xfe)(",
        ] {
            let stat =
                parse_stat(&line(42, comm, "S", 40, 1, 777)).expect("a line of the kernel's form");
            let expected = Stat {
                pid: Pid::new(42).expect("positive"),
                group: Pid::new(40),
                ended: false,
                started: 777,
            };
            assert_eq!(stat, expected, "{}", String::from_utf8_lossy(comm));
        }
    }

    #[test]
    fn a_zombie_has_ended_unless_other_threads_work_on() {
        let ended = |state, threads| {
            parse_stat(&line(42, b"x", state, 42, threads, 1)).map(|stat| stat.ended)
        };
        assert_eq!(ended("Z", 1), Some(true));
        assert_eq!(ended("Z", 2), Some(false));
        assert_eq!(ended("X", 1), Some(true));
        for living in ["R", "S", "D", "T", "t", "I"] {
            assert_eq!(ended(living, 1), Some(false), "{living}");
        }
    }

    #[test]
    fn a_group_that_cannot_be_said_is_not_a_number() {
        for group in [-1, 0] {
            let stat =
                parse_stat(&line(42, b"x", "S", group, 1, 1)).expect("a line of the kernel's form");
            assert_eq!(stat.group, None);
        }
    }

    proptest! {
        #[test]
        fn any_name_and_any_numbers_are_read_back(
            pid in 1..=Pid::MAX.get(),
            comm in proptest::collection::vec(1_u8.., 0..=64),
            group in 1..=i64::from(Pid::MAX.get()),
            started: u64,
        ) {
            let stat = parse_stat(&line(pid, &comm, "R", group, 3, started)).expect("a line of the kernel's form");
            prop_assert_eq!(stat.pid.get(), pid);
            prop_assert_eq!(stat.group.map(|group| i64::from(group.get())), Some(group));
            prop_assert_eq!(stat.started, started);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let again = parse_stat(&bytes);
            prop_assert_eq!(parse_stat(&bytes), again);
        }

        #[test]
        fn a_line_that_was_cut_short_is_refused(cut in 0_usize..70) {
            let whole = line(42, b"x", "R", 42, 1, 777);
            let until_start_time = whole.windows(3).position(|three| three == b"777").expect("it is there");
            prop_assume!(cut < until_start_time);
            prop_assert_eq!(parse_stat(&whole[..cut]), None);
        }
    }
}
