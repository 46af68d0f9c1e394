//! Says what to start, in words that take nothing from the surroundings.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::Stdio;

use crate::child::Child;
use crate::error::{Error, ErrorKind, Result};
use crate::group::{Mark, ProcessGroupIdentity};
use crate::identity::{Pid, ProcessIdentity};
use crate::stop::blocking;

/// Where a group's input comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// Nowhere.
    #[default]
    Null,
    /// This process's own input.
    Inherit,
    /// A pipe, whose other end is [`Child::take_stdin`].
    Pipe,
}

/// Where a group's output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Nowhere.
    #[default]
    Null,
    /// This process's own output.
    Inherit,
    /// A pipe, whose other end is [`Child::take_stdout`] or [`Child::take_stderr`]. Whoever asks for it must read it, or the group stands still when it is full.
    Pipe,
    /// The end of this file, which is made if need be, readable by this account only. Both outputs may go to the same file.
    AppendTo(PathBuf),
}

/// A program to start as the leader of a process group of its own.
///
/// Nothing reaches the program from this process but what is said here: the environment starts empty, the directory is
/// given, and input and outputs are closed unless asked for.
///
/// # Examples
///
/// ```
/// use runtree_process::{Command, Exit, Stop};
///
/// # #[cfg(unix)]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> runtree_process::Result<()> {
/// let mut child = Command::new("sh", "/")
///     .args(["-c", "exit 3"])
///     .env("PATH", "/usr/bin:/bin")
///     .mark("run-42.attempt-1".parse()?)
///     .spawn()
///     .await?;
/// // Record child.identity() here.
/// assert_eq!(child.wait().await?, Exit::Code(3));
/// // Whatever the leader left behind in its group ends too.
/// assert!(child.stop(Stop::default()).await?.is_gone());
/// # Ok(()) }
/// # #[cfg(not(unix))] fn main() {}
/// ```
#[derive(Clone)]
pub struct Command {
    program: OsString,
    directory: PathBuf,
    args: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    mark: Option<Mark>,
}

impl Command {
    /// Starts `program` in `directory`.
    ///
    /// The program is an absolute path, or a bare name that is searched in the `PATH` given to it (see [`env`](Self::env)), or where
    /// none is given in the system's default path. The directory is an absolute path.
    pub fn new(program: impl Into<OsString>, directory: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            directory: directory.into(),
            args: Vec::new(),
            environment: BTreeMap::new(),
            stdin: Input::default(),
            stdout: Output::default(),
            stderr: Output::default(),
            mark: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Sets those of the variables in `from` whose names are allowed.
    ///
    /// ```
    /// # use runtree_process::Command;
    /// // The host decides to hand over its own environment, in part.
    /// let command = Command::new("cargo", "/srv/checkout")
    ///     .env_allowed(["PATH", "HOME"], std::env::vars_os());
    /// ```
    #[must_use]
    pub fn env_allowed<'a>(
        mut self,
        names: impl IntoIterator<Item = &'a str>,
        from: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let names: Vec<&OsStr> = names.into_iter().map(OsStr::new).collect();
        let allowed = from
            .into_iter()
            .filter(|(name, _)| names.contains(&name.as_os_str()));
        self.environment.extend(allowed);
        self
    }

    /// Sets where the input comes from.
    #[must_use]
    pub fn stdin(mut self, input: Input) -> Self {
        self.stdin = input;
        self
    }

    /// Sets where the output goes.
    #[must_use]
    pub fn stdout(mut self, output: Output) -> Self {
        self.stdout = output;
        self
    }

    /// Sets where the error output goes.
    #[must_use]
    pub fn stderr(mut self, output: Output) -> Self {
        self.stderr = output;
        self
    }

    /// Sets the mark that the group's processes carry, by which they are found when their leader is gone.
    #[must_use]
    pub fn mark(mut self, mark: Mark) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Starts the program.
    ///
    /// It needs a runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidCommand`] where the command says something that cannot be; [`ErrorKind::NotStarted`] where the program or the
    /// directory is missing, a log file cannot be opened, or the system refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has started nothing, or ends what it started as a dropped [`Child`] does.
    ///
    /// # Durability
    ///
    /// If this process is killed after the start and before [`Child::identity`] was recorded, the group runs on. [`find_groups`](crate::find_groups) finds
    /// it by a mark that was recorded before.
    pub async fn spawn(&self) -> Result<Child> {
        self.check()?;
        let command = self.clone();
        blocking(move || command.spawn_here()).await
    }

    fn check(&self) -> Result<()> {
        let program = std::path::Path::new(&self.program);
        let bare =
            program.components().count() == 1 && program.file_name() == Some(program.as_os_str());
        let refuse = |what: String| Err(Error::new(ErrorKind::InvalidCommand, what));
        if !program.is_absolute() && !bare {
            return refuse(format!(
                "program is neither absolute nor a bare name: {}",
                program.display()
            ));
        }
        if !self.directory.is_absolute() {
            return refuse(format!(
                "directory is not absolute: {}",
                self.directory.display()
            ));
        }
        let wrong = |name: &&OsString| {
            name.is_empty()
                || name
                    .as_encoded_bytes()
                    .iter()
                    .any(|byte| matches!(byte, b'=' | 0))
        };
        if let Some(name) = self.environment.keys().find(wrong) {
            return refuse(format!(
                "not the name of an environment variable: {}",
                name.display()
            ));
        }
        Ok(())
    }

    fn spawn_here(&self) -> Result<Child> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .current_dir(&self.directory)
            .env_clear()
            .envs(&self.environment)
            .stdin(match self.stdin {
                Input::Null => Stdio::null(),
                Input::Inherit => Stdio::inherit(),
                Input::Pipe => Stdio::piped(),
            })
            .stdout(stdio(&self.stdout)?)
            .stderr(stdio(&self.stderr)?);
        if let Some(mark) = &self.mark {
            command.env(Mark::VARIABLE, mark.as_str());
        }
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn().map_err(|error| {
            // A zero byte in an argument, which no system can pass on.
            let unspeakable = error.kind() == std::io::ErrorKind::InvalidInput;
            let kind = if unspeakable {
                ErrorKind::InvalidCommand
            } else {
                ErrorKind::NotStarted
            };
            let (program, directory) = (self.program.display(), self.directory.display());
            Error::from_io(
                kind,
                format!("cannot start {program} in {directory}"),
                error,
            )
        })?;
        let leader = child
            .id()
            .and_then(Pid::new)
            .expect("a child that was not waited for has a number");
        Child::new(child, leader, || {
            let identity = match ProcessIdentity::of(leader) {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    ProcessIdentity::without_start_time(leader)
                }
                identity => identity?,
            };
            Ok(ProcessGroupIdentity::new(identity, self.mark.clone()))
        })
    }
}

/// Shows no value of the environment: they may be secrets.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("directory", &self.directory)
            .field("args", &self.args)
            .field("environment", &self.environment.keys())
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .field("mark", &self.mark)
            .finish()
    }
}

fn stdio(output: &Output) -> Result<Stdio> {
    Ok(match output {
        Output::Null => Stdio::null(),
        Output::Inherit => Stdio::inherit(),
        Output::Pipe => Stdio::piped(),
        Output::AppendTo(path) => open_log(path)
            .map_err(|error| {
                let what = format!("cannot open log file {}", path.display());
                Error::from_io(ErrorKind::NotStarted, what, error)
            })?
            .into(),
    })
}

fn open_log(path: &PathBuf) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
