//! Run repositories on SQLite and PostgreSQL: the records of `runtree-repository`, kept by Diesel.
//!
#![cfg_attr(feature = "sqlite", doc = "```")]
#![cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
//! use runtree_diesel::SqliteRepository;
//! use runtree_repository::id::IdGenerator;
//! use runtree_repository::{CreateRun, CreateRuns, NewRun, ReadRuns};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("runs.db");
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let runs = SqliteRepository::open(&path).await?;
//! let request = CreateRun {
//!     id: IdGenerator::system().run_id()?,
//!     run: NewRun::new("builder").input("fix the flaky test"),
//!     worktree: None,
//! };
//! let run = runs.create(&request).await?.into_run()?;
//!
//! // Another process that opens the file sees the same run.
//! let elsewhere = SqliteRepository::open(&path).await?;
//! assert_eq!(elsewhere.get(run.id).await?.as_ref(), Some(&run));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # The main types
//!
//! `SqliteRepository` keeps runs in a file: for one machine, any number of processes, no server. `PostgresRepository` keeps them on
//! a server: for many machines. Both are handles that are cheap to clone, implement
//! [`RunRepository`](runtree_repository::RunRepository), see one [`Namespace`](runtree_repository::Namespace), and bring their schema
//! up to date when they are opened; who does that himself takes the [`Migration`]s as text. [`host`] makes, cancels and ends runs in
//! the transaction of a host's own connection. [`SqlTimestamp`] takes an instant into a host's own tables and back.
//!
//! # What it does not do
//!
//! It does not hand out connections, and does not use or change a host's own tables. Every name that it makes in a database begins
//! with `runtree_`, and it keeps its own record of migrations, so that it can live beside a host's tables.
//!
//! # Guarantees
//!
//! - Both backends pass the public suite in `runtree-conformance`, the same as the one in memory.
//! - What was acknowledged is durable: on SQLite after a flush to the disk, on PostgreSQL as the server is set.
//! - A future that is dropped at any await leaves an operation that is written whole or not at all, and no open transaction.
//! - Acceptance commits and rolls back atomically with the caller's transaction, where the caller asks for it: see [`host`].
//! - Each change of a run is one guarded statement, and it is one transaction with everything that follows from it.
//! - A schema of a newer version is used, only read, or refused, as that version decided; a refusal touches nothing.
//! - No call to SQLite is made on an async worker thread.
//!
//! # Limits
//!
//! A SQLite file has one writer at a time: operations that wait together share a transaction, processes take turns. Network file
//! systems and SQLite before 3.51.3 are refused, because they lose data. File systems in user space are let through; whether one is
//! remote cannot be told. Paths on PostgreSQL and SQLite are text: a worktree below a path that is not UTF-8 cannot be recorded.
//!
//! # Features
//!
//! - `sqlite` (default): `SqliteRepository`, with SQLite compiled in.
//! - `postgres` (default): `PostgresRepository`.
//!
//! # Alternatives
//!
//! `MemoryRepository` of `runtree-repository` for tests. Another database by implementing the traits of `runtree-repository`.

mod columns;
mod error;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod host;
mod in_order;
mod instant;
mod migrate;
mod row;

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use instant::SqlTimestamp;
pub use migrate::Migration;
#[cfg(feature = "postgres")]
pub use postgres::{Notifications, PostgresBuilder, PostgresRepository};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteBuilder, SqliteRepository};
