//! The connections of a repository: one statement on one of them, or the few that must be one transaction.

use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolError, Timeouts};
use diesel::QueryableByName;
use diesel::pg::Pg;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use runtree_repository::{ErrorKind, RepositoryError};

use super::connect::Connector;
use super::error;
use super::statement::Statement;
use super::watch::Watch;

/// What all handles of a repository share.
pub(super) struct Store {
    pub(super) pool: Pool<Connector>,
    pub(super) busy_timeout: Duration,
    pub(super) answer_timeout: Duration,
    pub(super) watch: Watch,
}

/// The answer of a statement that only does something.
#[derive(QueryableByName)]
pub(crate) struct Done {
    #[diesel(sql_type = Bool)]
    #[expect(dead_code, reason = "the answer says nothing but that it came")]
    done: bool,
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Read,
    Write,
}

/// How long a connection may be waited for, while others have them all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// As long as the builder said.
    Usual,
    /// Not at all.
    None,
}

impl Store {
    fn check_writable(&self) -> Result<(), RepositoryError> {
        match self.pool.manager().read_only() {
            Some(why) => Err(RepositoryError::new(ErrorKind::ReadOnly, why)),
            None => Ok(()),
        }
    }

    pub(super) async fn rows<'a, R>(
        &self,
        purpose: Purpose,
        doing: &str,
        statement: &(impl Fn() -> Statement<'a> + Sync),
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        let mut connection = InFlight(Some(self.connection(purpose, Patience::Usual).await?));
        let answer =
            tokio::time::timeout(self.answer_timeout, statement().load(connection.get())).await;
        self.answered(doing, connection, answer)
    }

    pub(super) async fn changes<'a>(
        &self,
        doing: &str,
        statement: &(impl Fn() -> Statement<'a> + Sync),
    ) -> Result<usize, RepositoryError> {
        let mut connection = InFlight(Some(
            self.connection(Purpose::Write, Patience::Usual).await?,
        ));
        let answer =
            tokio::time::timeout(self.answer_timeout, statement().execute(connection.get())).await;
        self.answered(doing, connection, answer)
    }

    /// Takes a connection, for writing only where writing is allowed.
    ///
    /// That is asked again once there is one: a connection that was made meanwhile may have found that the schema has moved on.
    async fn connection(
        &self,
        purpose: Purpose,
        patience: Patience,
    ) -> Result<Object<Connector>, RepositoryError> {
        match purpose {
            Purpose::Read => self.any_connection(patience).await,
            Purpose::Write => {
                self.check_writable()?;
                let connection = self.any_connection(patience).await?;
                self.check_writable()?;
                Ok(connection)
            }
        }
    }

    async fn any_connection(
        &self,
        patience: Patience,
    ) -> Result<Object<Connector>, RepositoryError> {
        let connector = self.pool.manager();
        let timeouts = Timeouts {
            wait: match patience {
                Patience::Usual => None,
                Patience::None => Some(Duration::ZERO),
            },
            ..Timeouts::default()
        };
        // For a place in the pool, and then perhaps for a new connection, whose own wait is shorter.
        let wait = self
            .busy_timeout
            .saturating_add(connector.connect_timeout());
        let busy = || {
            let target = connector.target();
            let message = match patience {
                Patience::Usual => {
                    format!("no connection to {target} became free within {wait:?}")
                }
                Patience::None => format!("no connection to {target} is free"),
            };
            RepositoryError::new(ErrorKind::Busy, message)
        };
        match tokio::time::timeout(wait, self.pool.timeout_get(&timeouts)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Timeout(_))) | Err(_) => Err(busy()),
            Ok(Err(
                error @ (PoolError::Closed
                | PoolError::NoRuntimeSpecified
                | PoolError::PostCreateHook(_)),
            )) => Err(RepositoryError::new(
                ErrorKind::Internal,
                "failed to take a connection from the pool",
            )
            .with_source(error)),
        }
    }

    /// Begins a transaction.
    pub(super) async fn begin<'s>(
        &'s self,
        doing: &'s str,
    ) -> Result<Transaction<'s>, RepositoryError> {
        self.begin_with(Patience::Usual, doing).await
    }

    /// Begins a transaction, waiting so long for a connection.
    pub(super) async fn begin_with<'s>(
        &'s self,
        patience: Patience,
        doing: &'s str,
    ) -> Result<Transaction<'s>, RepositoryError> {
        let mut connection = InFlight(Some(self.connection(Purpose::Write, patience).await?));
        let begin = connection.get().batch_execute("BEGIN");
        let answer = tokio::time::timeout(self.answer_timeout, begin).await;
        self.checked(doing, answer)?;
        Ok(Transaction {
            store: self,
            connection,
            doing,
        })
    }

    fn answered<T>(
        &self,
        doing: &str,
        connection: InFlight,
        answer: Result<diesel::QueryResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, RepositoryError> {
        let answer = self.checked(doing, answer);
        let is_usable = match &answer {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::Unavailable,
        };
        if is_usable {
            connection.give_back();
        }
        answer
    }

    fn checked<T>(
        &self,
        doing: &str,
        answer: Result<diesel::QueryResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, RepositoryError> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error::classified(error, doing)),
            Err(_) => {
                let target = self.pool.manager().target();
                let message = format!(
                    "failed to {doing}: {target} did not answer within {:?}",
                    self.answer_timeout
                );
                Err(RepositoryError::new(ErrorKind::Unavailable, message))
            }
        }
    }
}

/// Statements that are one transaction. Dropped before the commit, its connection is closed, and the server undoes them.
pub(super) struct Transaction<'s> {
    store: &'s Store,
    connection: InFlight,
    doing: &'s str,
}

impl Transaction<'_> {
    /// Does a statement of the transaction.
    pub(super) async fn rows<R>(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        let answer = statement.load(self.connection.get());
        let answer = tokio::time::timeout(self.store.answer_timeout, answer).await;
        self.store.checked(self.doing, answer)
    }

    /// Makes what was done last.
    pub(super) async fn commit(mut self) -> Result<(), RepositoryError> {
        let commit = self.connection.get().batch_execute("COMMIT");
        let answer = tokio::time::timeout(self.store.answer_timeout, commit).await;
        self.store.checked(self.doing, answer)?;
        self.connection.give_back();
        Ok(())
    }
}

/// A connection with a statement under way: dropped before the answer, it is closed instead of given back, because whoever took it
/// next would wait behind that statement.
struct InFlight(Option<Object<Connector>>);

impl InFlight {
    fn get(&mut self) -> &mut AsyncPgConnection {
        self.0
            .as_mut()
            .expect("because it is taken out only by those who consume this")
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}
