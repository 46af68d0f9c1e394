//! Runs in a host's own transaction on SQLite: what the writing thread does in a savepoint, done in the host's.

use std::fmt;
use std::num::NonZeroU32;

use diesel::connection::{SimpleConnection, TransactionManager};
use diesel::result::{Error, QueryResult};
use diesel::sqlite::Sqlite;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use runtree_repository::id::RunId;
use runtree_repository::time::{Clock, SystemClock};
use runtree_repository::{
    CancelRequest, CreateRun, Created, ErrorKind, LeaseRef, Namespace, Outcome, RepositoryError,
    Run, Write,
};

use super::{check_schema, outside};
use crate::migrate::{FIND_SCHEMA, SchemaInfo};
use crate::sqlite::within::{
    self, MIGRATIONS, NumberRow, Statement, TextRow, Transaction, check_version, classify,
    default_namespace,
};

/// Runs in a host's own transaction on SQLite; made by [`sqlite`](super::sqlite()).
#[must_use = "it does nothing until it is asked to"]
pub struct SqliteRuns<'c> {
    connection: &'c mut SqliteConnection,
    namespace: Namespace,
    clock: &'c dyn Clock,
    is_checked: bool,
}

/// How SQLite refuses a transaction inside of another.
const IN_ONE: &str = "cannot start a transaction within a transaction";

impl<'c> SqliteRuns<'c> {
    pub(super) fn new(connection: &'c mut SqliteConnection) -> Self {
        Self {
            connection,
            namespace: default_namespace(),
            clock: &SystemClock,
            is_checked: false,
        }
    }

    /// Works in this namespace; `default` unless said otherwise.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Stamps with this clock; the machine's unless said otherwise. It should be the one of the repositories on the file.
    pub fn clock(mut self, clock: &'c dyn Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes a run, as [`CreateRuns::create`](runtree_repository::CreateRuns::create) does.
    ///
    /// # Errors
    /// Those of [the module](super#errors).
    ///
    /// # Durability
    /// The run exists exactly if the transaction is committed, and survives what the host's connection lets a commit survive.
    pub fn create(&mut self, request: &CreateRun) -> Result<Created, RepositoryError> {
        let checked = request.run.check()?;
        self.within("create a run", |transaction| {
            within::create(transaction, request, &checked)
        })
    }

    /// Cancels a run, as [`StopRuns::cancel`](runtree_repository::StopRuns::cancel) does.
    ///
    /// # Errors
    /// Those of [the module](super#errors).
    ///
    /// # Durability
    /// As [`create`](Self::create).
    pub fn cancel(
        &mut self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        self.within("cancel a run", |transaction| {
            within::cancel(transaction, id, request)
        })
    }

    /// Ends a run for its owner, as [`OwnRuns::end`](runtree_repository::OwnRuns::end) does.
    ///
    /// # Errors
    /// Those of [the module](super#errors).
    ///
    /// # Durability
    /// As [`create`](Self::create). The record of a write that was rejected is kept if the host commits.
    pub fn end(
        &mut self,
        lease: LeaseRef,
        outcome: &Outcome,
    ) -> Result<Write<Run>, RepositoryError> {
        outcome.check()?;
        self.within("end a run", |transaction| {
            within::end(transaction, lease, outcome)
        })
    }

    /// Works in a savepoint of the host's transaction.
    fn within<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        self.refuse_outside(doing)?;
        self.batch("SAVEPOINT runtree", doing)?;
        let done = self.prepare(doing).and_then(|()| {
            // Read under the lock, so that the order of the stamps is the order of the writes.
            let now = self.clock.now();
            work(&mut Transaction::new(
                self.connection,
                &self.namespace,
                now,
                doing,
            ))
        });
        let done = done.and_then(|answer| self.batch("RELEASE runtree", doing).map(|()| answer));
        done.map_err(|error| self.take_back(error, doing))
    }

    /// Takes the savepoint back after an error, and says when the whole transaction is gone with it.
    ///
    /// After some failures, such as a full disk, SQLite itself takes the whole transaction back and each later statement is one by
    /// itself. Diesel notices when the rollback to the savepoint fails in turn.
    fn take_back(&mut self, error: RepositoryError, doing: &str) -> RepositoryError {
        let Err(failure) = self.batch("ROLLBACK TO runtree; RELEASE runtree", doing) else {
            return error;
        };
        tracing::debug!(error = %failure, "there was no savepoint to roll back to");
        let then = if self.depth().is_ok_and(|depth| depth.is_none()) {
            "SQLite has taken the host's whole transaction back, and what is written now commits by itself: leave the transaction \
             at once, and begin all of it again"
        } else {
            "what was done could not be taken back: roll the host's whole transaction back, and begin all of it again"
        };
        RepositoryError::new(error.kind(), format!("{error}; {then}")).with_source(error)
    }

    /// Takes the write lock before anything is read, and looks at the schema once.
    fn prepare(&mut self, doing: &'static str) -> Result<(), RepositoryError> {
        // Changes nothing. A transaction that was begun as a deferred one and has read nothing yet waits here for its turn; once it
        // has read, it would be refused without a wait.
        // In the host's own file: one that is attached commits by itself.
        const LOCK: &str = "UPDATE main.runtree_schema_info SET version = version WHERE false";
        if self.is_checked {
            return Ok(());
        }
        if let Err(error) = self.batch(LOCK, doing) {
            return match self.has_tables(doing) {
                Ok(false) => check_schema(MIGRATIONS, None),
                Ok(true) | Err(_) => Err(error),
            };
        }
        let version: TextRow = self.row("SELECT sqlite_version() AS text", doing)?;
        check_version(&version.text)?;
        let found: SchemaInfo = self.row(FIND_SCHEMA, doing)?;
        check_schema(MIGRATIONS, Some(found))?;
        self.is_checked = true;
        Ok(())
    }

    /// Refuses a connection without a transaction, on which each statement would be one by itself.
    fn refuse_outside(&mut self, doing: &str) -> Result<(), RepositoryError> {
        match self.depth().map_err(|error| classify(error, doing))? {
            Some(_) => self.refuse_taken_back(doing),
            None => Err(outside(doing)),
        }
    }

    /// How many transactions Diesel believes the connection to be in, one inside of the other.
    fn depth(&mut self) -> QueryResult<Option<NonZeroU32>> {
        type Manager = <SqliteConnection as Connection>::TransactionManager;
        Manager::transaction_manager_status_mut(self.connection).transaction_depth()
    }

    /// Refuses a transaction that SQLite has taken back by itself after a failure, of which Diesel need not know.
    ///
    /// SQLite tells by the refusal of a second transaction, which changes nothing. It would tell by a setting that cannot be made inside of
    /// a transaction as well, but prepares every statement of the connection anew after each setting. An instrumentation of the
    /// host's sees the refused `BEGIN`.
    fn refuse_taken_back(&mut self, doing: &str) -> Result<(), RepositoryError> {
        match self.connection.batch_execute("BEGIN") {
            Err(Error::DatabaseError(_, information)) if information.message() == IN_ONE => Ok(()),
            Err(error) => Err(classify(error, doing)),
            Ok(()) => {
                self.batch("ROLLBACK", doing)?;
                Err(RepositoryError::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "failed to {doing}: SQLite has taken the connection's transaction back after a failure; end it and begin \
                         again"
                    ),
                ))
            }
        }
    }

    fn has_tables(&mut self, doing: &str) -> Result<bool, RepositoryError> {
        const TABLES: &str = "SELECT count(*) AS number FROM main.sqlite_master \
             WHERE type = 'table' AND name = 'runtree_schema_info'";
        Ok(self.row::<NumberRow>(TABLES, doing)?.number > 0)
    }

    fn row<R>(&mut self, sql: &'static str, doing: &str) -> Result<R, RepositoryError>
    where
        R: QueryableByName<Sqlite> + 'static,
    {
        Statement::new(sql)
            .get_result(self.connection)
            .map_err(|error| classify(error, doing))
    }

    fn batch(&mut self, sql: &str, doing: &str) -> Result<(), RepositoryError> {
        self.connection
            .batch_execute(sql)
            .map_err(|error| classify(error, doing))
    }
}

impl fmt::Debug for SqliteRuns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteRuns")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}
