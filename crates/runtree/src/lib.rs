//! Durable runs in isolated git worktrees: records, processes, worktrees and branches under one handle.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use runtree::{Coordinator, NewRun, RunFilter, SqliteRepository, Sweep, TimeRange, Worktrees};
//! use serde_json::json;
//!
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let coordinator = Coordinator::builder()
//!     .runs(SqliteRepository::open("runs.db").await?)
//!     .worktrees(Worktrees::open("/srv/checkout")?)
//!     .build()
//!     .await?;
//!
//! let run = coordinator.start(NewRun::new("builder").input("fix the flaky test")).await?;
//! std::fs::write(run.worktree().path().join("notes.txt"), "done")?;
//! run.complete(json!({"tests": "green"})).await?;
//!
//! let day = TimeRange::parse("2025-06-22T00:00:00Z", "2025-06-23")?;
//! for run in coordinator.list(RunFilter::new().started(day)).await?.runs {
//!     println!("{} {}", run.id, run.status);
//! }
//! coordinator.sweep(Sweep::older_than(Duration::from_hours(48)).dry_run()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The main types
//!
//! A `Coordinator` joins a [`RunRepository`](repository::RunRepository), which keeps the records, with the `Worktrees` of one git
//! repository. It starts an `ActiveRun`, which its owner ends with `complete`, `fail` or `killed`; a `Kill` asks anybody's run
//! to stop; a `Worker` executes runs that were submitted; a `Sweep` looks at every worktree; `recover` finishes or undoes what a crash left. Everything else is in the modules
//! named after the rooms: [`status`], [`time`], [`id`], [`repository`], [`process`] and `worktree`.
//!
//! # What it does not do
//!
//! It does not schedule, merge or push, runs no hooks, and reads neither environment nor configuration files of its own. It does
//! not sandbox: a run's child process can write wherever its user can.
//!
//! # Guarantees
//!
//! Each step of a run is durable before the next begins: record, claim, branch, directory, registration, checkout, mark; then
//! ending with the wish to clean up, salvage, removal, mark. Stopped at any of them, by whatever, the run waits, is taken up or ended,
//! and its worktree finished, undone or saved. Execution is at least once, with at most one accepted outcome per attempt.
//!
//! # Limits
//!
//! One coordinator works on one git repository; any number of them share a run repository. A host that is gone leaves its
//! worktrees where they are until it is back.
//!
//! # Features
//!
//! - `sqlite` (default): `SqliteRepository`, with SQLite built in.
//! - `postgres`: `PostgresRepository`, without libpq.
//! - `worktree` (default): the coordinator, and everything of git.
//!
//! # Alternatives
//!
//! A job queue runs jobs that need no files of their own; a container runs jobs that need another system; `git worktree` in a shell
//! script serves one person at a time.

// The first page is code too, and must compile.
#[cfg(all(doctest, feature = "sqlite", feature = "worktree"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(feature = "worktree")]
mod active;
#[cfg(feature = "worktree")]
mod clean_up;
#[cfg(feature = "worktree")]
mod coordinator;
#[cfg(feature = "worktree")]
mod error;
#[cfg(feature = "worktree")]
mod executor;
#[cfg(feature = "worktree")]
mod heartbeat;
#[cfg(feature = "worktree")]
mod kill;
#[cfg(feature = "worktree")]
mod names;
#[cfg(feature = "worktree")]
mod owner;
#[cfg(feature = "worktree")]
mod recover;
#[cfg(feature = "worktree")]
mod salvage;
#[cfg(feature = "worktree")]
mod start;
#[cfg(feature = "worktree")]
mod sweep;
#[cfg(feature = "worktree")]
mod worker;

#[cfg(feature = "worktree")]
pub use {
    active::{ActiveRun, EndedRun, Supervised},
    clean_up::{CleanedUp, WorktreeFate},
    coordinator::{Coordinator, CoordinatorBuilder},
    error::{Error, ErrorKind, Result},
    executor::{CommandExecutor, Executor},
    kill::{Kill, Killed},
    recover::Recovery,
    salvage::SavedWork,
    sweep::{Keep, Sweep, SweepEntry, SweepMode, SweepReport, Verdict},
    worker::{Shutdown, Worker, WorkerBuilder},
};

// The rooms, for everything that has no place in the first program.
pub use runtree_id as id;
pub use runtree_process as process;
pub use runtree_repository as repository;
pub use runtree_status as status;
pub use runtree_time as time;
#[cfg(feature = "worktree")]
pub use runtree_worktree as worktree;

// What the first program needs.
#[cfg(feature = "postgres")]
pub use runtree_diesel::PostgresRepository;
#[cfg(feature = "sqlite")]
pub use runtree_diesel::SqliteRepository;
pub use runtree_id::{RunId, SessionId};
pub use runtree_repository::{MemoryRepository, NewRun, Run, RunFilter, RunSummary};
pub use runtree_status::RunStatus;
pub use runtree_time::{TimeRange, Timestamp};
#[cfg(feature = "worktree")]
pub use runtree_worktree::Worktrees;
