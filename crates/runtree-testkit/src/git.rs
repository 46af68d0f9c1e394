//! Git repositories made for one test, by the real git program.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// A git repository in a directory of its own, which goes with the value.
///
/// Nothing of the user's or the machine's configuration has a say in it, and its commits are the same on every machine.
#[derive(Debug)]
pub struct GitFixture {
    place: TempDir,
    path: PathBuf,
}

/// How a fixture's repository is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectFormat {
    /// git's default.
    #[default]
    Sha1,
    /// The newer hash function.
    Sha256,
}

impl GitFixture {
    /// Makes a repository with a main worktree on the branch `main` and one commit with a few files.
    ///
    /// # Panics
    ///
    /// Panics with a hint when there is no git program.
    #[must_use]
    pub fn new() -> Self {
        Self::with_format(ObjectFormat::Sha1)
    }

    /// Makes the repository of [`new`](Self::new) with another hash function.
    ///
    /// # Panics
    ///
    /// Panics with a hint when there is no git program.
    #[must_use]
    pub fn with_format(format: ObjectFormat) -> Self {
        let fixture = Self::empty_with_format(format);
        fixture.write("README.md", "hello\n");
        fixture.write("src/main.rs", "fn main() {}\n");
        fixture.write("src/deep/er/leaf.txt", "leaf\n");
        fixture.write(".gitignore", "*.log\n.env\n/target/\n");
        fixture.write("run.sh", "#!/bin/sh\n");
        make_executable(&fixture.path.join("run.sh"));
        std::os::unix::fs::symlink("README.md", fixture.path.join("link"))
            .unwrap_or_else(|error| panic!("cannot make a link in a fixture: {error}"));
        fixture.commit_all("first");
        fixture
    }

    /// Makes a repository without a commit.
    ///
    /// # Panics
    ///
    /// Panics with a hint when there is no git program.
    #[must_use]
    pub fn empty() -> Self {
        Self::empty_with_format(ObjectFormat::Sha1)
    }

    /// Makes a bare repository with one commit.
    ///
    /// # Panics
    ///
    /// Panics with a hint when there is no git program.
    #[must_use]
    pub fn bare() -> Self {
        let origin = Self::new();
        let place = new_place();
        let path = place.path().join("bare.git");
        git(
            place.path(),
            ["clone", "--quiet", "--bare"]
                .map(OsStr::new)
                .into_iter()
                .chain([origin.path().as_os_str(), path.as_os_str()]),
        );
        Self { place, path }
    }

    fn empty_with_format(format: ObjectFormat) -> Self {
        let place = new_place();
        let path = place.path().join("main");
        let format = match format {
            ObjectFormat::Sha1 => "--object-format=sha1",
            ObjectFormat::Sha256 => "--object-format=sha256",
        };
        git(
            place.path(),
            ["init", "--quiet", "--initial-branch=main", format, "main"],
        );
        Self { place, path }
    }

    /// Returns the main worktree, or the bare repository.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory that holds the repository and whatever a test puts beside it.
    #[must_use]
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Runs git in the repository and returns what it wrote, without its last newline.
    ///
    /// # Panics
    ///
    /// Panics when git fails, with what it said.
    #[track_caller]
    pub fn git<I>(&self, arguments: I) -> String
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        git(&self.path, arguments)
    }

    /// Writes a file of the main worktree, and the directories above it.
    ///
    /// # Panics
    ///
    /// Panics when it cannot.
    #[track_caller]
    pub fn write(&self, path: &str, content: &str) {
        write(&self.path, path, content);
    }

    /// Commits everything in the main worktree and returns the commit's id.
    ///
    /// # Panics
    ///
    /// Panics when git fails.
    #[track_caller]
    pub fn commit_all(&self, message: &str) -> String {
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--allow-empty", "-m", message]);
        self.git(["rev-parse", "HEAD"])
    }
}

impl Default for GitFixture {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs git in a directory and returns what it wrote, without its last newline.
///
/// # Panics
///
/// Panics when git fails, with what it said, and with a hint when there is no git program.
#[track_caller]
pub fn git<I>(directory: &Path, arguments: I) -> String
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut command = git_command(directory);
    command.args(arguments);
    let output = run(&mut command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} in {} failed: {errors}",
        directory.display()
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}

/// Runs git in a directory, whatever it answers.
///
/// # Panics
///
/// Panics with a hint when there is no git program.
#[track_caller]
pub fn try_git<I>(directory: &Path, arguments: I) -> Output
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut command = git_command(directory);
    command.args(arguments);
    run(&mut command)
}

/// Prepares a git command that no configuration but the repository's, and no variable of the environment, has a say in.
#[must_use]
pub fn git_command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory);
    for variable in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_COMMON_DIR",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_NAMESPACE",
        "GIT_CEILING_DIRECTORIES",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DEFAULT_HASH",
        "GIT_TRACE",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(variable);
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        // No git may go on in the background, with its directory in a worktree, after the command has ended.
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "gc.auto")
        .env("GIT_CONFIG_VALUE_0", "0")
        .env("GIT_CONFIG_KEY_1", "maintenance.auto")
        .env("GIT_CONFIG_VALUE_1", "false")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Fixture")
        .env("GIT_AUTHOR_EMAIL", "fixture@localhost")
        .env("GIT_AUTHOR_DATE", "2025-01-01T00:00:00Z")
        .env("GIT_COMMITTER_NAME", "Fixture")
        .env("GIT_COMMITTER_EMAIL", "fixture@localhost")
        .env("GIT_COMMITTER_DATE", "2025-01-01T00:00:00Z")
        .env("GIT_EDITOR", "true")
        .env("LC_ALL", "C");
    command
}

/// Writes a file below `directory`, and the directories above it.
///
/// # Panics
///
/// Panics when it cannot.
#[track_caller]
pub fn write(directory: &Path, path: &str, content: &str) {
    let path = directory.join(path);
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&path, content))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|error| panic!("cannot set the mode of {}: {error}", path.display()));
}

fn new_place() -> TempDir {
    TempDir::with_prefix("runtree-git-")
        .unwrap_or_else(|error| panic!("cannot make a directory for a git fixture: {error}"))
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("no git program found: install git (2.40 or newer) to run these tests")
        }
        Err(error) => panic!("cannot run {command:?}: {error}"),
    }
}
