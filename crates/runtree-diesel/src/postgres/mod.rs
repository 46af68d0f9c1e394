//! A run repository on PostgreSQL, for many machines.

mod annotate;
mod claim;
mod cleanup;
mod connect;
mod create;
mod error;
mod list;
mod own;
#[cfg(test)]
mod plans;
mod read;
mod rescue;
mod schema;
mod sql;
mod statement;
mod stop;
mod store;
mod tls;
mod watch;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Pool;
use diesel::QueryableByName;
use diesel::pg::Pg;
use runtree_repository::id::{IdGenerator, RunId};
use runtree_repository::{
    Capabilities, Durability, ErrorKind, Limit, Namespace, RepositoryError, RunRepository, Sharing,
};

use serde_json::Value;
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use self::connect::Connector;
use self::statement::Statement;
use self::store::{Done, Purpose, Store, Transaction};
use self::tls::{Dial, Over};
pub use self::watch::Notifications;
use self::watch::Watch;
use crate::migrate::Migration;

/// What a host's own transaction needs as well.
pub(crate) mod within {
    pub(crate) use super::create::{
        Checked, MAX_TRIES as MAX_CREATES, contended as not_created, in_their_way, insertion,
        looking, made,
    };
    pub(crate) use super::error::classified;
    pub(crate) use super::own::{AskedOfOne, is_ended_by, rejecting};
    pub(crate) use super::read::getting;
    pub(crate) use super::schema::{MIGRATIONS, PLACE, PlaceRow};
    pub(crate) use super::statement::Statement;
    pub(crate) use super::stop::{adds_nothing, cancelling, unmoved};
    pub(crate) use super::store::Done;
    pub(crate) use super::watch::NOTIFY;
    pub(crate) use super::{MAX_TRIES, contended, default_namespace};
}

/// How often a write that PostgreSQL undid because of others is done again.
pub(crate) const MAX_TRIES: u32 = 5;

/// A run repository on PostgreSQL 15 or newer.
///
/// Clones share one pool of connections. A connection that breaks is replaced; the call that it broke under answers
/// [`Unavailable`](ErrorKind::Unavailable), unless it only read, in which case it is done again.
///
/// Almost every write is one statement; the few that need a lock first are a transaction on a connection that is closed when the call
/// is dropped. So a call that is dropped has happened wholly, or will, or not at all. Leases and every instant are stamped with the
/// server's clock.
///
/// Changes are told to other processes by `NOTIFY`, after the write and not with it, at most every fifty milliseconds; they are heard
/// by one more connection, which is made when somebody waits for a change first. See [`notifications`](Self::notifications).
///
/// # Waiting
///
/// A call waits for what others hold, a row or the turn of claims of runs with concurrency keys, for the time limit of the builder. Then it
/// answers [`Busy`](ErrorKind::Busy): nothing was written, and the same call may be made again. A process that is paused within a transaction
/// of several statements holds others up for half of that limit, at least one second and at most five; then the server ends its
/// session and undoes the transaction. Once it goes on, a claim takes its turn again, and other calls answer
/// [`Unavailable`](ErrorKind::Unavailable).
///
/// # Upgrades and downgrades
///
/// Connecting brings the schema up to date, one step a transaction. A step waits at most a minute for its tables; while it waits and
/// works, other programs wait behind it, or answer that the store is busy. Leases do not expire by that.
///
/// Every new connection looks whether the schema still admits this version: where a newer one has changed what a writer must know,
/// nothing is written any more. Connections that are open do not look. So, before an upgrade whose step excludes older writers (as the
/// second excludes those of version 1), stop the programs of the older version, or restart them after it.
///
/// To go back: stop every program of the newer version, apply [`down`](Migration::down) of the last step in one transaction, and
/// start the older version. What only that step has a place for is lost, so make a copy of the database first. Programs of the newer
/// version that are still connected fail, and a restarted one would upgrade again.
///
/// # Limits
///
/// There is no TLS but what [`PostgresBuilder::tls`] is given. Without it, `sslmode=prefer`, the default of URLs, means plain text, and
/// a URL that demands TLS is refused. A pooler between must keep the settings of a session and its prepared statements.
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
    migrates: bool,
    tls: Option<Arc<dyn Dial>>,
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

    /// Reaches the server over this TLS, as the URL's `sslmode` says: never for `disable`, where the server has it for `prefer`, and only
    /// so for `require`. That goes for every connection, the one that hears notifications too.
    ///
    /// Any connector of the crate `tokio-postgres`, version 0.7, will do; runtree brings none. PostgreSQL has no TLS on Unix sockets.
    ///
    /// # Verification
    ///
    /// Which certificates are good is the connector's matter, whatever the mode, so that `verify-ca` and `verify-full` are refused in URLs.
    /// To have what libpq calls `verify-full`, say `sslmode=require`, take a connector that verifies the chain up to an authority that
    /// you trust and the host's name, and name the host in the URL as the certificate does (`hostaddr` may say where it is). A
    /// connector gets no name to verify where a URL has `hostaddr` alone, and then there is no connection. `prefer`, the default of URLs,
    /// is no protection: whoever sits between answers that there is no TLS. Where the server has TLS, though, a certificate that the connector
    /// refuses ends in an error in every mode, and not in plain text.
    ///
    /// # Examples
    ///
    /// With rustls, through the crate `tokio-postgres-rustls`, as `verify-full`: rustls verifies the chain and the name.
    ///
    /// ```ignore
    /// use rustls::pki_types::{CertificateDer, pem::PemObject};
    /// use rustls::{ClientConfig, RootCertStore};
    /// use tokio_postgres_rustls::MakeRustlsConnect;
    ///
    /// let mut roots = RootCertStore::empty();
    /// roots.add(CertificateDer::from_pem_file("/etc/runtree/authority.pem")?)?;
    /// let config = ClientConfig::builder()
    ///     .with_root_certificates(roots)
    ///     .with_no_client_auth();
    /// let runs = PostgresRepository::builder("postgres://runtree:secret@db.example/runs?sslmode=require")
    ///     .tls(MakeRustlsConnect::new(config))
    ///     .connect()
    ///     .await?;
    /// ```
    pub fn tls<T>(mut self, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.tls = Some(Arc::new(Over(tls)));
        self
    }

    /// Changes no schema: connecting refuses a database that lacks steps of [`PostgresRepository::migrations`], for people who apply
    /// them with their own tools.
    pub fn without_migrating(mut self) -> Self {
        self.migrates = false;
        self
    }

    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when the server does not answer in time; [`Busy`](ErrorKind::Busy) when a step of the
    /// schema did not get its tables;
    /// [`Configuration`](ErrorKind::Configuration) for a URL that cannot be read or demands TLS that was not given, a
    /// server without the TLS that is demanded or with a certificate that is refused, a wrong password, a database that
    /// is missing, tables of another program; [`Unsupported`](ErrorKind::Unsupported) for a server that is too old, whose encoding
    /// is not UTF-8, or that translates its messages where the role may not set `lc_messages`; [`ReadOnly`](ErrorKind::ReadOnly) when tables are missing and the role may not make them;
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
            migrates,
            tls,
        } = self;
        let schema = schema.as_deref();
        if let Some(name) = schema {
            check_schema_name(name)?;
        }
        let connector = Connector::new(&url, schema, tls, connect_timeout, busy_timeout)?;
        if let Some(why) = schema::prepare(&connector, schema, migrates).await? {
            connector.set_read_only(why);
        }
        let origin = IdGenerator::system().owner_id().map_err(|e| {
            RepositoryError::new(ErrorKind::Internal, "failed to draw an id").with_source(e)
        })?;
        let watch = Watch::new(origin.to_string(), connector.clone());
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
            watch,
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
            namespace: default_namespace(),
            schema: None,
            max_connections: NonZeroU32::new(10).expect("because ten is not zero"),
            connect_timeout: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            migrates: true,
            tls: None,
        }
    }

    /// Returns the steps of the schema, oldest first, for people who apply them with their own tools.
    pub fn migrations() -> &'static [Migration] {
        schema::MIGRATIONS
    }

    /// Tells whether changes of other processes are heard of by notifications.
    pub fn notifications(&self) -> Notifications {
        self.store.watch.notifications()
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
        self.begin_statement(sql.to_owned())
    }

    /// As [`statement`](Self::statement), for a text that was put together.
    fn begin_statement(&self, sql: String) -> Statement<'_> {
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
        match self.store.rows(Purpose::Read, doing, &statement).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.store.rows(Purpose::Read, doing, &statement).await
            }
            answer => answer,
        }
    }

    /// Writes and reads what the statement returns; what PostgreSQL itself undid is done again. Whoever watches is told when there is
    /// anything.
    async fn write<'a, R>(
        &self,
        doing: &str,
        statement: impl Fn() -> Statement<'a> + Send + Sync,
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        self.write_if(doing, statement, |rows| !rows.is_empty())
            .await
    }

    /// As [`write`](Self::write), for a write that is no news.
    async fn write_quietly<'a, R>(
        &self,
        doing: &str,
        statement: impl Fn() -> Statement<'a> + Send + Sync,
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        self.write_if(doing, statement, |_| false).await
    }

    async fn write_if<'a, R>(
        &self,
        doing: &str,
        statement: impl Fn() -> Statement<'a> + Send + Sync,
        is_news: impl FnOnce(&[R]) -> bool + Send,
    ) -> Result<Vec<R>, RepositoryError>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        let mut tries = 1;
        let rows = loop {
            match self.store.rows(Purpose::Write, doing, &statement).await {
                Err(error) if is_undone(&error) && tries < MAX_TRIES => tries += 1,
                answer => break self.hinted(answer)?,
            }
        };
        if is_news(&rows) {
            self.wrote();
        }
        Ok(rows)
    }

    /// Writes, and answers how many rows changed.
    async fn change<'a>(
        &self,
        doing: &str,
        statement: impl Fn() -> Statement<'a> + Send + Sync,
    ) -> Result<usize, RepositoryError> {
        let mut tries = 1;
        let changed = loop {
            match self.store.changes(doing, &statement).await {
                Err(error) if is_undone(&error) && tries < MAX_TRIES => tries += 1,
                answer => break self.hinted(answer)?,
            }
        };
        if changed > 0 {
            self.wrote();
        }
        Ok(changed)
    }

    /// Makes a transaction last; answers whether it did, as far as anybody knows.
    async fn commit(&self, transaction: Transaction<'_>) -> Result<(), RepositoryError> {
        self.hinted(transaction.commit().await)
    }

    /// Tells those who watch where the answer of a write was lost: they look, and see whether it happened.
    fn hinted<T>(&self, answer: Result<T, RepositoryError>) -> Result<T, RepositoryError> {
        if let Err(error) = &answer
            && error.kind() == ErrorKind::Unavailable
        {
            self.wrote();
        }
        answer
    }

    /// Tells those who watch, here and elsewhere, that something was written.
    fn wrote(&self) {
        self.store.watch.wrote(&self.store);
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

pub(crate) fn default_namespace() -> Namespace {
    Namespace::new("default").expect("because the name is within its limits")
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

pub(crate) fn contended(run: RunId) -> RepositoryError {
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

/// Writes JSON with the members of objects in their order, whatever order the host's build of `serde_json` keeps them in: equal values
/// have equal texts, which is how they are compared here.
fn canonical(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    value.to_string()
}
