//! Tests that need a process of their own: started from this very program, which runs one ignored test in it.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

use rustix::process::geteuid;

/// What a child is told, in one variable: the meaning is the test's.
const VARIABLE: &str = "RUNTREE_TEST_CHILD";

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

/// Prepares a run of the ignored test `name` in a process of its own.
pub(crate) fn command(name: &str, told: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            name,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(VARIABLE, told);
    command
}

/// What this process was told; empty when nobody started it as a child.
#[expect(
    clippy::disallowed_methods,
    reason = "a test program's way to tell its child what to do"
)]
pub(crate) fn told() -> String {
    std::env::var(VARIABLE).unwrap_or_default()
}

/// Runs an ignored test as a user without privileges, whom permissions bind.
#[track_caller]
pub(crate) fn run_as_nobody(name: &str) {
    let mut command = command(name, "");
    if geteuid().is_root() {
        // The test program may lie where nobody may look.
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("test");
        // Copied by another process: a descriptor open for writing here would be inherited by whatever other tests start, and the copy
        // could not be run.
        let copied = Command::new("cp")
            .args([std::env::current_exe().unwrap(), program.clone()])
            .status()
            .unwrap();
        assert!(copied.success());
        set_mode_below(place.path(), 0o755);
        let mut unprivileged = Command::new(&program);
        unprivileged
            .args(command.get_args())
            .env("HOME", "/nonexistent")
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY);
        assert_ran(&unprivileged.output().unwrap());
        return;
    }
    assert_ran(&command.output().unwrap());
}

/// Checks that the child ran its one test, and that it passed.
#[track_caller]
pub(crate) fn assert_ran(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Sets the mode of a directory and of every directory and file below it.
pub(crate) fn set_mode_below(place: &Path, mode: u32) {
    let meta = fs::symlink_metadata(place).unwrap();
    if meta.is_symlink() {
        return;
    }
    let set = |mode| fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
    set(mode | 0o700);
    if meta.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            set_mode_below(&entry.unwrap().path(), mode);
        }
    }
    set(mode);
}
