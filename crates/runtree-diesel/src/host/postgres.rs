//! Runs in a host's own transaction on PostgreSQL: one way of doing it, over connections that wait and over those that are awaited.

use std::fmt;
use std::future::{Future, ready};
use std::num::NonZeroU32;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use diesel::connection::{LoadConnection, TransactionManager};
use diesel::pg::Pg;
use diesel::{QueryResult, QueryableByName, RunQueryDsl};
use runtree_repository::id::RunId;
use runtree_repository::{
    CancelRequest, CreateRun, Created, ErrorKind, LeaseRef, Namespace, Outcome, RepositoryError,
    Run, Write,
};

use super::{check_schema, outside};
use crate::migrate::FIND_SCHEMA;
use crate::postgres::within::{
    AskedOfOne, Checked, Done, MAX_CREATES, MAX_TRIES, MIGRATIONS, NOTIFY, PLACE, PlaceRow,
    Statement, adds_nothing, cancelling, classified, contended, default_namespace, getting,
    in_their_way, insertion, is_ended_by, looking, made, not_created, rejecting, unmoved,
};
use crate::row::WholeRunRow;

/// What a notification from a host's transaction says: no repository takes it for its own.
const PAYLOAD: &str = "host";

/// Runs in a host's own transaction on PostgreSQL, over a connection that waits for its answers; made by
/// [`postgres`](super::postgres()).
#[must_use = "it does nothing until it is asked to"]
pub struct PostgresRuns<'c, C> {
    runs: Runs<Waiting<'c, C>>,
}

impl<'c, C: LoadConnection<Backend = Pg>> PostgresRuns<'c, C> {
    pub(super) fn new(connection: &'c mut C) -> Self {
        Self {
            runs: Runs::new(Waiting(connection)),
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
    /// # Durability
    /// The run exists exactly if the transaction is committed, and survives what the host's connection lets a commit survive.
    pub fn create(&mut self, request: &CreateRun) -> Result<Created, RepositoryError> {
        waited_for(self.runs.create(request))
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
        waited_for(self.runs.cancel(id, request))
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
        waited_for(self.runs.end(lease, outcome))
    }
}

impl<C> fmt::Debug for PostgresRuns<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresRuns")
            .field("namespace", &self.runs.namespace)
            .finish_non_exhaustive()
    }
}

/// A connection inside a host's transaction.
pub(super) trait Session: Send {
    /// How many transactions are open, one inside the other, as far as Diesel knows.
    fn depth(&mut self) -> QueryResult<Option<NonZeroU32>>;

    fn batch(&mut self, sql: &str) -> impl Future<Output = QueryResult<()>> + Send;

    fn execute(
        &mut self,
        statement: Statement<'_>,
    ) -> impl Future<Output = QueryResult<usize>> + Send;

    fn rows<R>(
        &mut self,
        statement: Statement<'_>,
    ) -> impl Future<Output = QueryResult<Vec<R>>> + Send
    where
        R: QueryableByName<Pg> + Send + 'static;
}

/// A connection whose every call waits for the answer, so that a future over it is done when it is looked at first.
struct Waiting<'c, C>(&'c mut C);

impl<C: LoadConnection<Backend = Pg>> Session for Waiting<'_, C> {
    fn depth(&mut self) -> QueryResult<Option<NonZeroU32>> {
        C::TransactionManager::transaction_manager_status_mut(self.0).transaction_depth()
    }

    fn batch(&mut self, sql: &str) -> impl Future<Output = QueryResult<()>> + Send {
        ready(self.0.batch_execute(sql))
    }

    fn execute(
        &mut self,
        statement: Statement<'_>,
    ) -> impl Future<Output = QueryResult<usize>> + Send {
        ready(statement.execute(self.0))
    }

    fn rows<R>(
        &mut self,
        statement: Statement<'_>,
    ) -> impl Future<Output = QueryResult<Vec<R>>> + Send
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        ready(statement.load(self.0))
    }
}

/// The answer of a future over [`Waiting`].
fn waited_for<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("because all that it awaits is ready"),
    }
}

/// What both kinds of connection do.
pub(super) struct Runs<S> {
    session: S,
    pub(super) namespace: Namespace,
    pub(super) notifies: bool,
    is_checked: bool,
}

impl<S: Session> Runs<S> {
    pub(super) fn new(session: S) -> Self {
        Self {
            session,
            namespace: default_namespace(),
            notifies: true,
            is_checked: false,
        }
    }

    pub(super) async fn create(&mut self, request: &CreateRun) -> Result<Created, RepositoryError> {
        let checked = Checked::new(request)?;
        let call = Call::new("create a run");
        self.begin(&call).await?;
        let answer = self.make(&call, &checked).await;
        let is_news = matches!(answer, Ok(Created::New(_)));
        self.close(&call, is_news, answer).await
    }

    pub(super) async fn cancel(
        &mut self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        let call = Call::new("cancel a run");
        self.begin(&call).await?;
        let answer = self.stop(&call, id, request).await;
        self.close(&call, is_written(&answer), answer).await
    }

    pub(super) async fn end(
        &mut self,
        lease: LeaseRef,
        outcome: &Outcome,
    ) -> Result<Write<Run>, RepositoryError> {
        let asked = AskedOfOne::new(outcome)?;
        let call = Call::new("end a run");
        self.begin(&call).await?;
        let answer = self.settle(&call, lease, outcome, &asked).await;
        self.close(&call, is_written(&answer), answer).await
    }

    async fn make(
        &mut self,
        call: &Call,
        checked: &Checked<'_>,
    ) -> Result<Created, RepositoryError> {
        let namespace = &self.namespace.clone();
        for _ in 0..MAX_CREATES {
            let rows = self.rows(call, insertion(namespace, &[checked])).await?;
            if let Some((_, run)) = made(rows)?.pop_first() {
                return Ok(Created::New(checked.made(run)));
            }
            let requests = [(0, checked)];
            let rows = self.rows(call, looking(namespace, &requests, &[])).await?;
            if let Some((_, answer)) = in_their_way(&requests, rows)?.pop() {
                return Ok(answer);
            }
            // The run that held the unique key has ended since, or its create was undone.
        }
        Err(not_created(checked.request.id))
    }

    async fn stop(
        &mut self,
        call: &Call,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        let namespace = &self.namespace.clone();
        for _ in 0..MAX_TRIES {
            let rows: Vec<WholeRunRow> =
                self.rows(call, cancelling(namespace, &id, request)).await?;
            if let Some(row) = rows.into_iter().next() {
                return row.decode().map(Write::Applied);
            }
            let run = self.run(call, id).await?;
            if let Some(answer) = unmoved(run, |run| adds_nothing(request, run)) {
                return Ok(answer);
            }
            // Somebody claimed the run between the snapshot and the lock.
        }
        Err(contended(id))
    }

    async fn settle(
        &mut self,
        call: &Call,
        lease: LeaseRef,
        outcome: &Outcome,
        asked: &AskedOfOne<'_>,
    ) -> Result<Write<Run>, RepositoryError> {
        let namespace = &self.namespace.clone();
        let rows: Vec<WholeRunRow> = self.rows(call, asked.statement(namespace, lease)).await?;
        if let Some(row) = rows.into_iter().next() {
            return row.decode().map(Write::Applied);
        }
        let Some(run) = self.run(call, lease.run).await? else {
            return Ok(Write::NotFound);
        };
        if run.token == lease.token && is_ended_by(&run, outcome) {
            return Ok(Write::Already(run));
        }
        let reject = rejecting(namespace, lease, asked.event.as_str());
        let rejected = self.session.execute(reject).await;
        rejected.map_err(|error| call.failed(error))?;
        Ok(Write::Stale {
            current: Box::new(run.summary),
        })
    }

    async fn run(&mut self, call: &Call, id: RunId) -> Result<Option<Run>, RepositoryError> {
        let namespace = self.namespace.clone();
        let rows: Vec<WholeRunRow> = self.rows(call, getting(&namespace, &id)).await?;
        rows.into_iter().next().map(WholeRunRow::decode).transpose()
    }

    async fn rows<R>(
        &mut self,
        call: &Call,
        statement: Statement<'_>,
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        let rows = self.session.rows(statement).await;
        rows.map_err(|error| call.failed(error))
    }

    /// Begins a savepoint, which PostgreSQL does only inside of a transaction that has not failed, and looks at the schema once.
    ///
    /// The savepoint is not one of Diesel's: a future that is dropped here leaves Diesel's count of transactions as it was, so that
    /// the host's commit is still a commit.
    async fn begin(&mut self, call: &Call) -> Result<(), RepositoryError> {
        let depth = self.session.depth();
        if depth.map_err(|error| call.failed(error))?.is_none() {
            return Err(outside(call.doing));
        }
        if let Err(error) = self.session.batch("SAVEPOINT runtree").await {
            return Err(call.not_begun(error));
        }
        if !self.is_checked {
            if let Err(error) = self.check_schema(call).await {
                return self.close(call, false, Err(error)).await;
            }
            self.is_checked = true;
        }
        Ok(())
    }

    async fn check_schema(&mut self, call: &Call) -> Result<(), RepositoryError> {
        // By itself first: the missing table is told from another failure only after that one has been taken back.
        match self.session.rows(Statement::new(FIND_SCHEMA)).await {
            Ok(found) => check_schema(MIGRATIONS, found.into_iter().next()),
            Err(error) => {
                let error = call.failed(error);
                let back = self.session.batch("ROLLBACK TO SAVEPOINT runtree").await;
                back.map_err(|error| call.failed(error))?;
                let places: Vec<PlaceRow> = self.rows(call, Statement::new(PLACE)).await?;
                if !places.is_empty() {
                    return Err(error);
                }
                check_schema(MIGRATIONS, None)
            }
        }
    }

    /// Keeps what was done, or takes it back, so that the host's transaction goes on as if it had not been tried.
    async fn close<T>(
        &mut self,
        call: &Call,
        is_news: bool,
        answer: Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        let answer = match answer {
            Ok(answer) => self.keep(call, is_news).await.map(|()| answer),
            Err(error) => Err(error),
        };
        if answer.is_err() {
            let back = "ROLLBACK TO SAVEPOINT runtree; RELEASE SAVEPOINT runtree";
            if let Err(error) = self.session.batch(back).await {
                // The connection is gone, and the transaction with it.
                tracing::debug!(%error, "a savepoint could not be rolled back to");
            }
        }
        answer
    }

    async fn keep(&mut self, call: &Call, is_news: bool) -> Result<(), RepositoryError> {
        if is_news && self.notifies {
            let notify = Statement::new(NOTIFY).text(PAYLOAD);
            self.rows::<Done>(call, notify).await?;
        }
        let released = self.session.batch("RELEASE SAVEPOINT runtree").await;
        released.map_err(|error| call.failed(error))
    }
}

/// Tells whether a guarded write left anything behind; what was rejected left its record.
fn is_written(answer: &Result<Write<Run>, RepositoryError>) -> bool {
    match answer {
        Ok(Write::Applied(_) | Write::Stale { .. }) => true,
        Ok(Write::Already(_) | Write::NotFound) | Err(_) => false,
    }
}

/// What is being done, for errors.
struct Call {
    /// Continues "failed to".
    doing: &'static str,
}

impl Call {
    const fn new(doing: &'static str) -> Self {
        Self { doing }
    }

    fn failed(&self, error: diesel::result::Error) -> RepositoryError {
        classified(error, self.doing)
    }

    /// The error of a savepoint that the server refused although Diesel counts a transaction: unless the connection is at fault, the
    /// transaction has failed before, or was ended behind Diesel's back.
    fn not_begun(&self, error: diesel::result::Error) -> RepositoryError {
        let error = self.failed(error);
        if error.kind() != ErrorKind::Internal {
            return error;
        }
        let message = format!(
            "failed to {}: the connection's transaction has failed before, or is over; roll it back and begin again",
            self.doing
        );
        RepositoryError::new(ErrorKind::InvalidInput, message).with_source(error)
    }
}
