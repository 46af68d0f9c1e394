//! Runs in the host's own transaction: what an application writes and the run that it asks for become visible together, or neither.
//!
//! An application that accepts an order and starts a run for it writes to two places. When they are two transactions, a crash between
//! them leaves an order that nobody works on, or a run for an order that does not exist. Here they are one: the application hands its
//! own connection over, inside of a transaction that it began and will commit.
//!
//! On SQLite, with the tables of runs in the application's own file:
//!
#![cfg_attr(feature = "sqlite", doc = "```")]
#![cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
//! use diesel::connection::SimpleConnection as _;
//! use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, sql_query};
//! use runtree_diesel::{SqliteRepository, host};
//! use runtree_repository::id::IdGenerator;
//! use runtree_repository::{CreateRun, NewRun, ReadRuns as _};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("shop.db");
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! // Whoever works on the runs opens the file as a repository, which makes the tables.
//! let runs = runtime.block_on(SqliteRepository::open(&path))?;
//!
//! let mut connection = SqliteConnection::establish(path.to_str().ok_or("a path that is text")?)?;
//! connection.batch_execute("PRAGMA busy_timeout = 10000; CREATE TABLE orders (article TEXT NOT NULL)")?;
//!
//! let request = CreateRun {
//!     id: IdGenerator::system().run_id()?,
//!     run: NewRun::new("packer").input("one kettle").idempotency_key("order-17"),
//!     worktree: None,
//! };
//! connection.immediate_transaction(|connection| {
//!     sql_query("INSERT INTO orders VALUES ('kettle')").execute(connection)?;
//!     host::sqlite(connection).create(&request)?.into_run()?;
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! })?;
//!
//! assert!(runtime.block_on(runs.get(request.id))?.is_some());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! On PostgreSQL, with a connection of `diesel-async`:
//!
#![cfg_attr(feature = "postgres", doc = "```no_run")]
#![cfg_attr(not(feature = "postgres"), doc = "```ignore")]
//! use diesel::sql_query;
//! use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
//! use runtree_diesel::host;
//! use runtree_repository::CreateRun;
//!
//! # type Error = Box<dyn std::error::Error + Send + Sync>;
//! async fn accept(connection: &mut AsyncPgConnection, request: &CreateRun) -> Result<(), Error> {
//!     connection
//!         .transaction(async |connection| {
//!             sql_query("INSERT INTO orders VALUES ('kettle')").execute(connection).await?;
//!             host::postgres_async(connection).create(request).await?.into_run()?;
//!             Ok(())
//!         })
//!         .await
//! }
//! # drop(accept);
//! ```
//!
//! And with one that waits for its answers: `diesel::PgConnection`, or any other that speaks to PostgreSQL. This crate itself is not
//! linked with `libpq`, which only `PgConnection` needs.
//!
#![cfg_attr(feature = "postgres", doc = "```no_run")]
#![cfg_attr(not(feature = "postgres"), doc = "```ignore")]
//! use diesel::connection::LoadConnection;
//! use diesel::pg::Pg;
//! use diesel::{RunQueryDsl as _, sql_query};
//! use runtree_diesel::host;
//! use runtree_repository::CreateRun;
//!
//! # type Error = Box<dyn std::error::Error + Send + Sync>;
//! fn accept<C>(connection: &mut C, request: &CreateRun) -> Result<(), Error>
//! where
//!     C: LoadConnection<Backend = Pg>, // such as PgConnection
//! {
//!     connection.transaction(|connection| {
//!         sql_query("INSERT INTO orders VALUES ('kettle')").execute(connection)?;
//!         host::postgres(connection).create(request)?.into_run()?;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # What holds
//!
//! - **Acceptance commits and rolls back atomically with the caller's transaction**, the first of the contracts that work of this
//!   kind is measured by. A run, its keys, its history, an intent to cancel, an ending and the wish to clean up after it: all of it
//!   is there exactly if the host's transaction is committed, whatever ends the process, and nobody sees any of it before.
//! - The requests, guards, events and answers are those of the repositories, and so are the statements: an idempotency key that is
//!   taken answers the run that has it, a completion with an old token is rejected. What is rejected leaves its record in the history of the
//!   run if the host commits.
//! - Each call stands in a savepoint of its own. One that answers an error has left nothing behind, and the host's transaction goes
//!   on, after a failed statement too; where the database itself has ended it, the error says so (see [below](#a-file-of-sqlite)).
//! - Nothing is done by a connection that is in no transaction.
//!
//! # What the host sees to
//!
//! - The schema is there: a repository was opened on the database, or the host applied its migrations. On PostgreSQL the tables are found by the
//!   connection's `search_path`; where a repository keeps them in a schema of their own, the host puts that on the path.
//! - What is acknowledged by the host's commit is as durable as the host's connection makes it: `synchronous` on SQLite,
//!   `synchronous_commit` on PostgreSQL.
//! - While its transaction is open, others wait: on SQLite all who write, on PostgreSQL those who want the same run or key. Long work
//!   does not belong into it.
//! - What PostgreSQL refuses for the sake of others (a deadlock, an isolation level above `READ COMMITTED`) and what is locked for too long answers
//!   [`Busy`](ErrorKind::Busy): roll back, and repeat the whole transaction.
//!
//! ## A file of SQLite
//!
//! The tables of runs are in the same file as the host's; a file that is attached is not enough, because in this journal mode SQLite
//! commits to each file by itself. The connection needs a `busy_timeout`: without it, it does not wait for its turn at all. Begin
//! with `immediate_transaction`. A plain `transaction` is a deferred one: it takes its turn to write only with the first write, and when it
//! has read before that and another connection has written since, it is refused at once ([`Busy`](ErrorKind::Busy)), however long the
//! timeout, and only a rollback helps. A deferred transaction whose first step is a call of this module waits as it should.
//!
//! When a write fails because the disk is full or broken, SQLite may take back the whole transaction by itself, the host's own rows
//! too, and not only the savepoint of the call. Each statement after that would commit by itself. The error
//! ([`Unavailable`](ErrorKind::Unavailable)) then names the host's whole transaction: leave it at once with an error, and begin all
//! of it again when there is space. `transaction` of the connection then answers an error of Diesel's, that there is no transaction
//! to roll back, in place of the one that it was left with; the connection is good for the next one.
//!
//! The instants are those of the machine's clock, or of the one given to [`SqliteRuns::clock`].
//!
//! # Who waits for changes
//!
//! Those who wait on a repository ([`changed`](runtree_repository::WatchRuns::changed)) are woken by the host's commit and not
//! earlier. On SQLite the file tells them. On PostgreSQL each call that wrote something sends one notification, which the server
//! delivers with the commit and drops with a rollback; the server commits transactions with a notification one after the other, so a
//! host with thousands of commits a second may prefer `without_notifying`, after which the run is found by those who look again by
//! themselves.
//!
//! # Errors
//!
//! Every method answers:
//!
//! - [`InvalidInput`](ErrorKind::InvalidInput): a value is not allowed; or the connection is in no transaction, or in one that has
//!   failed before.
//! - [`Configuration`](ErrorKind::Configuration): the tables are missing, or lack steps of the schema, which are named.
//! - [`ReadOnly`](ErrorKind::ReadOnly), [`SchemaTooNew`](ErrorKind::SchemaTooNew): a newer version of runtree changed the schema so
//!   that this one must not write, or not even read it; or the connection may not write.
//! - [`Unsupported`](ErrorKind::Unsupported): a SQLite with a known corruption bug.
//! - [`Busy`](ErrorKind::Busy): others are in the way; the whole transaction is to be repeated.
//! - [`Unavailable`](ErrorKind::Unavailable), [`Corrupt`](ErrorKind::Corrupt), [`Internal`](ErrorKind::Internal): as everywhere. On
//!   SQLite the text says when the host's whole transaction is gone.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_async;
#[cfg(feature = "sqlite")]
mod sqlite;

use runtree_repository::{ErrorKind, RepositoryError};

#[cfg(feature = "postgres")]
pub use self::postgres::PostgresRuns;
#[cfg(feature = "postgres")]
pub use self::postgres_async::AsyncPostgresRuns;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteRuns;
use crate::migrate::{Migration, Plan, SchemaInfo, plan};

/// Works with runs in the transaction that this connection to SQLite is in.
///
/// See [the module](self) for what holds, and for how the transaction should be begun.
#[cfg(feature = "sqlite")]
pub fn sqlite(connection: &mut diesel::SqliteConnection) -> SqliteRuns<'_> {
    SqliteRuns::new(connection)
}

/// Works with runs in the transaction that this connection to PostgreSQL is in: `diesel::PgConnection`, or another one that waits for
/// its answers.
///
/// See [the module](self) for what holds.
#[cfg(feature = "postgres")]
pub fn postgres<C>(connection: &mut C) -> PostgresRuns<'_, C>
where
    C: diesel::connection::LoadConnection<Backend = diesel::pg::Pg>,
{
    PostgresRuns::new(connection)
}

/// Works with runs in the transaction that this connection to PostgreSQL is in, for connections of `diesel-async`.
///
/// See [the module](self) for what holds.
#[cfg(feature = "postgres")]
pub fn postgres_async(connection: &mut diesel_async::AsyncPgConnection) -> AsyncPostgresRuns<'_> {
    AsyncPostgresRuns::new(connection)
}

/// How errors name the database: the connection is the host's, who knows where it leads.
const STORE: &str = "the database of the host's connection";

/// Refuses a schema that is not there, lacks steps, or is too new to be written.
fn check_schema(
    migrations: &'static [Migration],
    found: Option<SchemaInfo>,
) -> Result<(), RepositoryError> {
    let missing = match plan(migrations, found, STORE)? {
        Plan::ReadOnly(why) => return Err(RepositoryError::new(ErrorKind::ReadOnly, why)),
        Plan::Migrate([]) => return Ok(()),
        Plan::Migrate(missing) => missing,
    };
    let steps: Vec<String> = missing
        .iter()
        .map(|step| format!("{} ({})", step.version(), step.name()))
        .collect();
    Err(RepositoryError::new(
        ErrorKind::Configuration,
        format!(
            "{STORE} lacks the schema steps {}; open a repository on it, which applies them, or apply what `migrations` of the \
             repository answers; where the tables are in another schema, put that on the connection's search path",
            steps.join(", ")
        ),
    ))
}

/// The error of a connection that is in no transaction.
fn outside(doing: &str) -> RepositoryError {
    RepositoryError::new(
        ErrorKind::InvalidInput,
        format!(
            "failed to {doing}: the host's connection is in no transaction, and nothing was written; call this inside of \
             `transaction` of the connection"
        ),
    )
}
