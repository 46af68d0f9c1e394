//! The main job of runtree in one program: five runs at once on a real git repository, watched, killed, listed and cleaned up.
//!
//! Its exit status is 0 only if what it set out to show is true, checked against the git repository and the database.
#![expect(
    clippy::print_stderr,
    reason = "a program that tells people what went wrong"
)]

mod agent;
mod check;
mod demo;
mod runs;
mod show;

use std::error::Error;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use runtree::id::IdGenerator;
use runtree::repository::RunSummary;
use runtree::{
    Coordinator, RunFilter, RunId, SessionId, SqliteRepository, Sweep, TimeRange, Timestamp,
    Worktrees,
};

use crate::show::say;

/// What any step of this program may fail with.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Shows what runtree does: five runs at once on a git repository, each with its own record, branch and worktree.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Arguments {
    /// The git repository to show it on; without it, a small one is made in a temporary place.
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// What the runs execute as their child processes.
    #[command(hide = true)]
    Agent(agent::Place),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.role {
        Some(Role::Agent(place)) => agent::work(&place),
        None => show_all(arguments.repo),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {}", show::with_sources(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn show_all(repo: Option<PathBuf>) -> Result<(), Failure> {
    let is_demo = repo.is_none();
    let repo = match repo {
        Some(path) => path,
        None => demo::make()?,
    };
    // Opened first: a path that will not do is told before anything is made.
    let worktrees = Worktrees::open(&repo)?;
    worktrees.check()?;
    let root = worktrees.root().to_owned();
    let records = records_of(&root)?;
    let database = records.join("runs.db");
    say!("git repository   {}", repo.display());
    say!("worktrees        {}", worktrees.root().display());
    say!("run repository   {} (SQLite)", database.display());

    let shown = show_on(&repo, worktrees, &database, is_demo).await;
    if shown.is_ok() {
        // A service keeps its records; these were only to show.
        std::fs::remove_dir_all(&records)?;
    } else {
        eprintln!(
            "quickstart: the records stay in {}; started again on the same git repository, this program recovers what is left",
            records.display()
        );
    }
    shown
}

/// Where the records of the runs on one git repository are: in the same place each time, so that what a crash leaves is recovered by
/// the next start.
fn records_of(root: &Path) -> Result<PathBuf, Failure> {
    let mut hasher = std::hash::DefaultHasher::new();
    root.hash(&mut hasher);
    #[expect(
        clippy::disallowed_methods,
        reason = "a program decides where its files go"
    )]
    let place = std::env::temp_dir();
    let records = place.join(format!("runtree-quickstart-{:016x}", hasher.finish()));
    match std::fs::DirBuilder::new().mode(0o700).create(&records) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        Ok(()) | Err(_) => Ok(records),
    }
}

async fn show_on(
    repo: &Path,
    worktrees: Worktrees,
    database: &Path,
    is_demo: bool,
) -> Result<(), Failure> {
    let root = worktrees.root().to_owned();
    let if_new = |path: PathBuf| (!path.exists()).then_some(path);
    let (new_root, new_corner) = (if_new(root.clone()), if_new(demo::corner(repo)?));
    let coordinator = Coordinator::builder()
        .runs(SqliteRepository::open(database).await?)
        .worktrees(worktrees)
        .build()
        .await?;
    show::recovery(coordinator.recovery());
    // What an earlier crash had left is finished or undone by now; from here on everything must stay as it is.
    let before = demo::look(repo, &root)?;
    // The runs of this start, whatever else is on record.
    let session = SessionId::from_uuid(*IdGenerator::system().run_id()?.as_uuid())?;
    let began = coordinator.runs().now().await?;
    runs::five_at_once(&coordinator, session).await?;
    let ended = coordinator.runs().now().await?;

    let listed = list_twice(&coordinator, session, began, ended).await?;
    restore(&coordinator, check::the_one(&listed, runs::FLAKY)?.id).await?;
    sweep(&coordinator).await?;
    show::heading("The five runs");
    show::table(&coordinator, &listed).await?;
    drop(coordinator);

    let mut left = check::everything(repo, database, session, &before).await?;
    (left.root, left.corner) = (new_root, new_corner);
    show::heading("Checked against the git repository and the database: all of it is true");
    show::how_to_remove(repo, &left, is_demo);
    Ok(())
}

/// Lists the runs by the same range twice: written with an offset, and with `Z`.
async fn list_twice(
    coordinator: &Coordinator,
    session: SessionId,
    began: Timestamp,
    ended: Timestamp,
) -> Result<Vec<RunSummary>, Failure> {
    show::heading("Listed by a time range, with an offset and with Z");
    let after = ended.saturating_add(Duration::from_micros(1));
    let mut answers = Vec::new();
    for write in [show::in_cairo, show::in_utc] {
        let (start, end) = (write(began), write(after));
        let range = TimeRange::parse(&start, &end)?;
        let page = coordinator
            .list(RunFilter::new().session(session).started(range))
            .await?;
        say!("from {start} to {end}: {} runs", page.runs.len());
        answers.push(page.runs);
    }
    let listed = answers.pop().unwrap_or_default();
    if answers.pop().as_ref() != Some(&listed) {
        return Err("the same range, written differently, listed different runs".into());
    }
    Ok(listed)
}

/// Shows what was saved of the failed run, and brings it back.
async fn restore(coordinator: &Coordinator, run: RunId) -> Result<(), Failure> {
    show::heading("Saved from the failed run before its worktree went, and restored");
    for saved in coordinator.saved_work().await? {
        if saved.run == run {
            say!("{}", saved.salvage.reference);
            for file in &saved.salvage.files {
                say!("  {:?} {}", file.dirt, file.path);
            }
        }
    }
    let worktree = coordinator.restore(run).await?;
    say!("restored to {}", worktree.path().display());
    let own = worktree.path().join(worktree.name().as_str());
    let half_done = std::fs::read_to_string(own.join(agent::HALF_DONE_FILE))?;
    if half_done != agent::HALF_DONE {
        return Err("what was restored is not what the failed run left".into());
    }
    Ok(())
}

/// Sweeps twice: a dry run, and a real one that must do just what the dry run said.
async fn sweep(coordinator: &Coordinator) -> Result<(), Failure> {
    show::heading("Sweep, dry run");
    let planned = coordinator.sweep(Sweep::of_any_age().dry_run()).await?;
    show::sweep(&planned);
    show::heading("Sweep");
    let done = coordinator.sweep(Sweep::of_any_age()).await?;
    show::sweep(&done);
    let paths = |report: &runtree::SweepReport| -> Vec<PathBuf> {
        report
            .removed()
            .map(|(entry, _)| entry.path.clone())
            .collect()
    };
    if paths(&planned) != paths(&done) || paths(&done).len() != 1 {
        return Err("the sweep did not do just what its dry run said".into());
    }
    Ok(())
}
