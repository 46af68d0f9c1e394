//! Runs in a host's own transaction on PostgreSQL, over a connection of `diesel-async`.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;

use diesel::pg::Pg;
use diesel::{QueryResult, QueryableByName};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager,
};
use runtree_repository::id::RunId;
use runtree_repository::{
    CancelRequest, CreateRun, Created, LeaseRef, Namespace, Outcome, RepositoryError, Run, Write,
};

use super::postgres::{Runs, Session};
use crate::postgres::within::Statement;

/// Runs in a host's own transaction on PostgreSQL, over a connection that is awaited; made by
/// [`postgres_async`](super::postgres_async()).
#[must_use = "it does nothing until it is asked to"]
pub struct AsyncPostgresRuns<'c> {
    runs: Runs<Awaited<'c>>,
}

impl<'c> AsyncPostgresRuns<'c> {
    pub(super) fn new(connection: &'c mut AsyncPgConnection) -> Self {
        Self {
            runs: Runs::new(Awaited(connection)),
        }
    }

    /// Works in this namespace; `default` unless said otherwise.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.runs.namespace = namespace;
        self
    }

    /// Does not tell those who wait for changes. See [the module](super#who-waits-for-changes).
    pub fn without_notifying(mut self) -> Self {
        self.runs.notifies = false;
        self
    }

    /// Makes a run, as [`CreateRuns::create`](runtree_repository::CreateRuns::create) does.
    ///
    /// # Errors
    /// Those of [the module](super#errors).
    ///
    /// # Cancel safety
    /// Dropped, it leaves the run made or not, which the host's transaction can no longer tell, nor whether it can still be used:
    /// it is to be dropped together with the transaction, which undoes it.
    ///
    /// # Durability
    /// The run exists exactly if the transaction is committed, and survives what the host's connection lets a commit survive.
    pub async fn create(&mut self, request: &CreateRun) -> Result<Created, RepositoryError> {
        self.runs.create(request).await
    }

    /// Cancels a run, as [`StopRuns::cancel`](runtree_repository::StopRuns::cancel) does.
    ///
    /// # Errors
    /// Those of [the module](super#errors).
    ///
    /// # Cancel safety
    /// As [`create`](Self::create).
    ///
    /// # Durability
    /// As [`create`](Self::create).
    pub async fn cancel(
        &mut self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        self.runs.cancel(id, request).await
    }

    /// Ends a run for its owner, as [`OwnRuns::end`](runtree_repository::OwnRuns::end) does.
    ///
    /// # Errors
    /// Those of [the module](super#errors).
    ///
    /// # Cancel safety
    /// As [`create`](Self::create).
    ///
    /// # Durability
    /// As [`create`](Self::create). The record of a write that was rejected is kept if the host commits.
    pub async fn end(
        &mut self,
        lease: LeaseRef,
        outcome: &Outcome,
    ) -> Result<Write<Run>, RepositoryError> {
        self.runs.end(lease, outcome).await
    }
}

impl fmt::Debug for AsyncPostgresRuns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncPostgresRuns")
            .field("namespace", &self.runs.namespace)
            .finish_non_exhaustive()
    }
}

struct Awaited<'c>(&'c mut AsyncPgConnection);

impl Session for Awaited<'_> {
    fn depth(&mut self) -> QueryResult<Option<NonZeroU32>> {
        type Manager = <AsyncPgConnection as AsyncConnection>::TransactionManager;
        Manager::transaction_manager_status_mut(self.0).transaction_depth()
    }

    fn batch(&mut self, sql: &str) -> impl Future<Output = QueryResult<()>> + Send {
        self.0.batch_execute(sql)
    }

    fn execute(
        &mut self,
        statement: Statement<'_>,
    ) -> impl Future<Output = QueryResult<usize>> + Send {
        RunQueryDsl::execute(statement, self.0)
    }

    fn rows<R>(
        &mut self,
        statement: Statement<'_>,
    ) -> impl Future<Output = QueryResult<Vec<R>>> + Send
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        RunQueryDsl::load(statement, self.0)
    }
}
