//! Runs programs in the workspace, shows what they print, and reads along where asked.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::summary::Tally;
use crate::{Failure, Result, environment};

/// Starts programs at the root of the workspace, with some variables set for all of them.
#[derive(Clone, Debug)]
pub struct Shell {
    root: PathBuf,
    variables: Vec<(OsString, OsString)>,
}

impl Shell {
    /// Makes a shell at the root of the workspace that this program was built from.
    #[must_use]
    pub fn of_workspace() -> Self {
        Self {
            root: environment::workspace_root().to_owned(),
            variables: Vec::new(),
        }
    }

    /// Answers the root of the workspace.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Sets a variable for every program started from now on.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Makes a command of this cargo.
    #[must_use]
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(environment::cargo());
        command.args(arguments);
        command
    }

    /// Makes a command of a program.
    #[must_use]
    pub fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command
            .current_dir(&self.root)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Runs a command to its end, its output shown as it comes.
///
/// # Errors
///
/// When it cannot be started or does not succeed; the message is the command line.
pub fn run(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| started(command, &error))?;
    ended(command, status)
}

/// Runs a command to its end and answers what it printed on its standard output.
///
/// # Errors
///
/// When it cannot be started or does not succeed; the message is the command line.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| started(command, &error))?;
    ended(command, output.status)?;
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(format!("{} printed no UTF-8", line(command))))
}

/// Answers whether a command can be run and succeeds, showing nothing.
pub fn succeeds(command: &mut Command) -> bool {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a test runner to its end, its output shown as it comes, and adds up what it says of its tests.
///
/// The counts are answered also where tests failed, beside the verdict.
pub fn run_tests(command: &mut Command, tally: &mut Tally) -> Result {
    run_tests_to(command, tally, io::stdout(), io::stderr())
}

fn run_tests_to(
    command: &mut Command,
    tally: &mut Tally,
    to_stdout: impl Write,
    to_stderr: impl Write + Send,
) -> Result {
    if io::stderr().is_terminal() {
        // The runner sees a pipe, though a person reads at its end.
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| started(command, &error))?;
    let stdout = child.stdout.take().expect("standard output is piped");
    let stderr = child.stderr.take().expect("standard error is piped");
    let shared = Mutex::new(tally);
    let copied = thread::scope(|scope| {
        let other = scope.spawn(|| copy(stderr, to_stderr, &shared));
        let one = copy(stdout, to_stdout, &shared);
        one.and(other.join().expect("copying does not panic"))
    });
    let status = child.wait().map_err(|error| started(command, &error))?;
    copied.map_err(|error| Failure::new(format!("{}: {error}", line(command))))?;
    ended(command, status)
}

/// Copies lines from a program to a stream of ours, counting on the way.
fn copy(from: impl Read, mut to: impl Write, tally: &Mutex<&mut Tally>) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes)? > 0 {
        // Whoever closed our output still gets an honest exit status.
        to.write_all(&bytes).and_then(|()| to.flush()).ok();
        tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read_line(&String::from_utf8_lossy(&bytes));
        bytes.clear();
    }
    Ok(())
}

fn started(command: &Command, error: &io::Error) -> Failure {
    Failure::new(format!("cannot run {}: {error}", line(command)))
}

fn ended(command: &Command, status: ExitStatus) -> Result {
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("{} ({status})", line(command))))
    }
}

/// Writes a command as a person would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    let words: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    format!("`{}`", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_its_arguments() {
        let shell = Shell::of_workspace();
        let failure = run(shell.command("sh").args(["-c", "exit 3"])).expect_err("it exits with 3");
        assert_eq!(failure.to_string(), "`sh -c exit 3` (exit status: 3)");
        let failure = run(&mut shell.command("runtree-no-such-program"));
        assert!(failure.is_err());
    }

    #[test]
    fn counts_are_kept_when_the_tests_fail() {
        let script = "echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored'; exit 101";
        let mut tally = Tally::default();
        // Not to our own output, where whoever counts these tests would read it.
        let verdict = run_tests_to(
            Shell::of_workspace().command("sh").args(["-c", script]),
            &mut tally,
            io::sink(),
            io::sink(),
        );
        assert!(verdict.is_err());
        assert_eq!((tally.passed(), tally.failed()), (2, 1));
    }

    #[test]
    fn variables_reach_the_programs() {
        let shell = Shell::of_workspace().with("XTASK_SAMPLE", "seen");
        let printed = read(shell.command("sh").args(["-c", "echo $XTASK_SAMPLE"]));
        assert_eq!(printed.as_deref(), Ok("seen\n"));
    }
}
