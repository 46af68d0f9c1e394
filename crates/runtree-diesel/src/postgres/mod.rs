//! A run repository on PostgreSQL, for many machines.

mod cleanup;
mod connect;
mod create;
mod error;
mod own;
mod read;
mod rescue;
mod schema;
mod sql;
mod statement;
mod stop;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolError};
use diesel::QueryableByName;
use diesel::pg::Pg;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use runtree_repository::id::RunId;
use runtree_repository::{
    Capabilities, Durability, ErrorKind, Limit, Namespace, RepositoryError, RunRepository, Sharing,
};

use self::connect::Connector;
use self::statement::Statement;

/// How often a write that PostgreSQL undid because of others is done again.
const MAX_TRIES: u32 = 5;

/// A run repository on PostgreSQL 15 or newer.
///
/// Clones share one pool of connections. A connection that breaks is replaced; the call that it broke under answers
/// [`Unavailable`](ErrorKind::Unavailable), unless it only read, in which case it is done again.
///
/// Every write is one statement, so there is no transaction that a dropped future could leave open: a call that is dropped has
/// happened wholly, or will, or not at all. Leases and every instant are stamped with the server's clock.
///
/// # Limits
///
/// There is no TLS yet. `sslmode=prefer`, the default of URLs, means plain text here; a URL that demands TLS is refused. A pooler
/// between must keep the settings of a session and its prepared statements.
///
/// # Examples
///
/// ```no_run
/// use runtree_diesel::PostgresRepository;
/// # async fn open() -> Result<(), runtree_repository::RepositoryError> {
/// let runs = PostgresRepository::connect("postgres://runtree:secret@db.example/runs?sslmode=disable").await?;
/// # let _ = runs;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresRepository {
    namespace: Namespace,
    store: Arc<Store>,
}

struct Store {
    pool: Pool<Connector>,
    busy_timeout: Duration,
    answer_timeout: Duration,
    /// Why nothing may be written.
    read_only: Option<String>,
}

/// How to reach a [`PostgresRepository`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct PostgresBuilder {
    url: String,
    namespace: Namespace,
    schema: Option<String>,
    max_connections: NonZeroU32,
    connect_timeout: Duration,
    busy_timeout: Duration,
    answer_timeout: Duration,
}

impl PostgresBuilder {
    /// Works in this namespace; `default` unless said otherwise.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Keeps the tables in this schema, which is made if it is missing, instead of the role's first one.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// Opens at most this many connections at once; ten unless said otherwise.
    pub fn max_connections(mut self, connections: NonZeroU32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Waits this long for the server to take a connection; ten seconds unless said otherwise.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Waits this long for what others hold: a connection of the pool, a row; ten seconds unless said otherwise.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Waits this long for the answer to a statement before the connection is given up; one minute unless said otherwise.
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when the server does not answer in time;
    /// [`Configuration`](ErrorKind::Configuration) for a URL that cannot be read or demands TLS, a wrong password, a database that
    /// is missing, tables of another program; [`Unsupported`](ErrorKind::Unsupported) for a server that is too old or whose encoding
    /// is not UTF-8; [`ReadOnly`](ErrorKind::ReadOnly) when tables are missing and the role may not make them;
    /// [`SchemaTooNew`](ErrorKind::SchemaTooNew) for the schema of a newer version, which is not touched.
    ///
    /// # Cancel safety
    /// Dropping it leaves the schema at the last complete step.
    pub async fn connect(self) -> Result<PostgresRepository, RepositoryError> {
        let Self {
            url,
            namespace,
            schema,
            max_connections,
            connect_timeout,
            busy_timeout,
            answer_timeout,
        } = self;
        let schema = schema.as_deref();
        if let Some(name) = schema {
            check_schema_name(name)?;
        }
        let connector = Connector::new(&url, schema, connect_timeout, busy_timeout)?;
        let read_only = schema::prepare(&connector, schema).await?;
        let max_size = usize::try_from(max_connections.get()).unwrap_or(usize::MAX);
        let pool = Pool::builder(connector)
            .max_size(max_size)
            .build()
            .map_err(|e| {
                RepositoryError::new(ErrorKind::Internal, "failed to make a pool of connections")
                    .with_source(e)
            })?;
        let store = Store {
            pool,
            busy_timeout,
            answer_timeout,
            read_only,
        };
        Ok(PostgresRepository {
            namespace,
            store: Arc::new(store),
        })
    }
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it holds the password.
        f.debug_struct("PostgresBuilder")
            .field("namespace", &self.namespace)
            .field("schema", &self.schema)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

impl PostgresRepository {
    /// Connects with the default options: see [`PostgresBuilder::connect`].
    ///
    /// # Errors
    /// As [`PostgresBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self, RepositoryError> {
        Self::builder(url).connect().await
    }

    /// Begins to say how to reach a repository.
    pub fn builder(url: impl Into<String>) -> PostgresBuilder {
        PostgresBuilder {
            url: url.into(),
            namespace: Namespace::new("default").expect("because the name is within its limits"),
            schema: None,
            max_connections: NonZeroU32::new(10).expect("because ten is not zero"),
            connect_timeout: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
        }
    }

    /// Returns a handle on another namespace, over the same connections.
    #[must_use]
    pub fn with_namespace(&self, namespace: Namespace) -> Self {
        Self {
            namespace,
            store: Arc::clone(&self.store),
        }
    }

    /// Begins a statement whose `$1` is the namespace.
    fn statement(&self, sql: &'static str) -> Statement<'_> {
        Statement::new(sql).text(self.namespace.as_str())
    }

    /// Reads; a read that a broken connection swallowed is done once more.
    async fn read<'a, R>(
        &self,
        doing: &str,
        statement: impl Fn() -> Statement<'a> + Send + Sync,
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        match self.store.rows(doing, &statement).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.store.rows(doing, &statement).await
            }
            answer => answer,
        }
    }

    /// Writes and reads what the statement returns; what PostgreSQL itself undid is done again.
    async fn write<'a, R>(
        &self,
        doing: &str,
        statement: impl Fn() -> Statement<'a> + Send + Sync,
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        self.store.check_writable()?;
        let mut tries = 1;
        loop {
            match self.store.rows(doing, &statement).await {
                Err(error) if is_undone(&error) && tries < MAX_TRIES => tries += 1,
                answer => return answer,
            }
        }
    }

    /// Writes, and answers how many rows changed.
    async fn change<'a>(
        &self,
        doing: &str,
        statement: impl Fn() -> Statement<'a> + Send + Sync,
    ) -> Result<usize, RepositoryError> {
        self.store.check_writable()?;
        let mut tries = 1;
        loop {
            match self.store.changes(doing, &statement).await {
                Err(error) if is_undone(&error) && tries < MAX_TRIES => tries += 1,
                answer => return answer,
            }
        }
    }
}

impl fmt::Debug for PostgresRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresRepository")
            .field("namespace", &self.namespace)
            .field("target", &self.store.pool.manager().target())
            .finish_non_exhaustive()
    }
}

impl RunRepository for PostgresRepository {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Full, Sharing::Network)
    }
}

impl Store {
    fn check_writable(&self) -> Result<(), RepositoryError> {
        match &self.read_only {
            Some(why) => Err(RepositoryError::new(ErrorKind::ReadOnly, why.clone())),
            None => Ok(()),
        }
    }

    async fn rows<'a, R>(
        &self,
        doing: &str,
        statement: &(impl Fn() -> Statement<'a> + Sync),
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        let mut connection = InFlight(Some(self.connection().await?));
        let answer =
            tokio::time::timeout(self.answer_timeout, statement().load(connection.get())).await;
        self.answered(doing, connection, answer)
    }

    async fn changes<'a>(
        &self,
        doing: &str,
        statement: &(impl Fn() -> Statement<'a> + Sync),
    ) -> Result<usize, RepositoryError> {
        let mut connection = InFlight(Some(self.connection().await?));
        let answer =
            tokio::time::timeout(self.answer_timeout, statement().execute(connection.get())).await;
        self.answered(doing, connection, answer)
    }

    async fn connection(&self) -> Result<Object<Connector>, RepositoryError> {
        let connector = self.pool.manager();
        // For a place in the pool, and then perhaps for a new connection, whose own wait is shorter.
        let wait = self
            .busy_timeout
            .saturating_add(connector.connect_timeout());
        let busy = || {
            let message = format!(
                "no connection to {} became free within {wait:?}",
                connector.target()
            );
            RepositoryError::new(ErrorKind::Busy, message)
        };
        match tokio::time::timeout(wait, self.pool.get()).await {
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

    fn answered<T>(
        &self,
        doing: &str,
        connection: InFlight,
        answer: Result<diesel::QueryResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, RepositoryError> {
        match answer {
            Ok(Ok(answer)) => {
                connection.give_back();
                Ok(answer)
            }
            Ok(Err(error)) => {
                let error = error::classified(error, doing);
                if error.kind() != ErrorKind::Unavailable {
                    connection.give_back();
                }
                Err(error)
            }
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

/// Tells whether PostgreSQL undid a statement for the sake of others, at once; a wait that was too long is the caller's to repeat.
fn is_undone(error: &RepositoryError) -> bool {
    let message = error.to_string();
    error.kind() == ErrorKind::Busy
        && (message.contains("deadlock detected") || message.contains("could not serialize"))
}

/// A name that needs no escaping, and that PostgreSQL does not cut.
fn check_schema_name(name: &str) -> Result<(), RepositoryError> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if (1..=63).contains(&name.len()) && name.chars().all(is_plain) && !name.starts_with("pg_") {
        return Ok(());
    }
    Err(RepositoryError::new(
        ErrorKind::InvalidInput,
        format!(
            "the schema name {name:?} is not 1 to 63 characters of a-z, 0-9 and underscore, without pg_ at its beginning"
        ),
    ))
}

/// The microseconds of a duration, as far as PostgreSQL adds them to any instant of ours without overflow; the sum stops at the
/// last instant there is.
fn micros(duration: Duration) -> i64 {
    const TEN_THOUSAND_YEARS: i64 = 10_000 * 366 * 86_400 * 1_000_000;
    i64::try_from(duration.as_micros())
        .unwrap_or(i64::MAX)
        .min(TEN_THOUSAND_YEARS)
}

fn count(limit: Limit) -> i64 {
    i64::try_from(limit.get()).unwrap_or(i64::MAX)
}

fn no_row(what: &str) -> RepositoryError {
    RepositoryError::new(
        ErrorKind::Internal,
        format!("PostgreSQL answered without {what}"),
    )
}

fn contended(run: RunId) -> RepositoryError {
    let message =
        format!("failed to change the run {run}: others changed it in between {MAX_TRIES} times");
    RepositoryError::new(ErrorKind::Busy, message)
}

/// A variant of an open set of the contract that was added after this backend was written.
fn unsupported(what: &str, value: &impl fmt::Debug) -> RepositoryError {
    RepositoryError::new(
        ErrorKind::Unsupported,
        format!("this backend does not know the {what} {value:?}"),
    )
}
