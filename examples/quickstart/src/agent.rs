//! The work of the five runs: a real child process that changes files and commits in its worktree.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use runtree::id::DirectoryName;
use runtree::worktree::{Author, CommitRequest, Ownership, Worktrees};

use crate::Failure;

/// What a child process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// Changes a file and commits, three times.
    Build,
    /// Writes a review and commits it.
    Review,
    /// Writes notes and commits them.
    Document,
    /// Changes files without committing, and fails.
    Fail,
    /// Commits once, and then never comes to an end.
    Hang,
}

/// The worktree that a child process works in.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// What to do.
    #[arg(long)]
    pub(crate) task: Task,
    /// The worktree's directory.
    #[arg(long)]
    pub(crate) worktree: PathBuf,
    /// The worktree's name.
    #[arg(long)]
    pub(crate) name: DirectoryName,
    /// The token that the worktree was made under.
    #[arg(long, value_parser = |text: &str| Ownership::new(text))]
    pub(crate) ownership: Ownership,
}

/// Each line on standard output is a step that the parent shows.
fn say(step: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{step}")?;
    out.flush()
}

/// So that a person can see five runs work side by side; nothing waits for it.
fn take_a_while() {
    thread::sleep(Duration::from_millis(120));
}

/// Does the work, and fails when the task is to fail.
pub(crate) fn work(place: &Place) -> Result<(), Failure> {
    // A directory named after the run: whatever the git repository holds or ignores, nothing of it is in the way.
    let own = place.worktree.join(place.name.as_str());
    fs::create_dir_all(&own)?;
    let dir = own.as_path();
    match place.task {
        Task::Build => {
            for round in 1..=3 {
                say(&format!("building, round {round} of 3"))?;
                append(dir, "rounds", &format!("round {round}: ok\n"))?;
                take_a_while();
                commit(place, &format!("Build, round {round}"))?;
            }
        }
        Task::Review => {
            say("reviewing")?;
            take_a_while();
            append(dir, "review", "# Review\n\nNothing to object to.\n")?;
            commit(place, "Add the review")?;
        }
        Task::Document => {
            say("writing notes")?;
            take_a_while();
            append(dir, "notes", "What was learned today.\n")?;
            commit(place, "Add today's notes")?;
        }
        Task::Fail => {
            say("mending the flaky test")?;
            append(dir, HALF_DONE_FILE, HALF_DONE)?;
            if dir.join("README.md").is_file() {
                append(dir, "README.md", "\nA change to a file that git knows.\n")?;
            }
            take_a_while();
            say("the test still fails")?;
            return Err("the flaky test still fails".into());
        }
        Task::Hang => {
            append(dir, "refactoring", "Step one is done.\n")?;
            commit(place, "Refactor, step one")?;
            append(dir, "refactoring", "Step two has be")?;
            say(HANGING)?;
            loop {
                thread::park();
            }
        }
    }
    say("done")?;
    Ok(())
}

/// What the failing task leaves uncommitted, and where.
pub(crate) const HALF_DONE_FILE: &str = "half-done";
/// See [`HALF_DONE_FILE`].
pub(crate) const HALF_DONE: &str = "an idea worth keeping\n";

/// The step at which the endless task is killed.
pub(crate) const HANGING: &str = "refactoring without end";

fn append(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let path = dir.join(name);
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn commit(place: &Place, message: &str) -> Result<(), Failure> {
    let worktrees = Worktrees::open(&place.worktree)?;
    // With the run in its message, no two runs ever make the same commit.
    let message = format!("{message}\n\nMade by {}", place.name);
    let author = Author::new("runtree quickstart", "quickstart@localhost")?;
    worktrees.commit(
        &place.name,
        &place.ownership,
        &CommitRequest::new(message, author)?,
    )?;
    Ok(())
}
