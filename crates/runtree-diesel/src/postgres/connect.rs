//! Connections: how one is made, what it is set to, and what its failures mean.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use runtree_repository::{ErrorKind, RepositoryError};
use tokio_postgres::config::{Config, Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use super::statement::Statement;
use super::tls::{Dial, Messages, Over};
use super::{error, schema};

#[derive(QueryableByName)]
struct Language {
    #[diesel(sql_type = Text)]
    name: String,
}

/// The oldest server that the statements are written for.
const OLDEST_SERVER: u32 = 15;

/// How long a peer that stopped answering on the network keeps a connection.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);

/// What every connection of a repository has in common.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    target: String,
    settings: String,
    connect_timeout: Duration,
    dial: Arc<dyn Dial>,
    /// Why nothing may be written, once that is known.
    read_only: Arc<OnceLock<String>>,
}

impl Connector {
    /// Reads the URL, without connecting. `tls` is the host's, if it gave any.
    pub(super) fn new(
        url: &str,
        schema: Option<&str>,
        tls: Option<Arc<dyn Dial>>,
        connect_timeout: Duration,
        busy_timeout: Duration,
    ) -> Result<Self, RepositoryError> {
        let mut config = parse(url, tls.is_some())?;
        config.connect_timeout(connect_timeout);
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(NETWORK_TIMEOUT);
        }
        config.keepalives_idle(NETWORK_TIMEOUT);
        if config.get_application_name().is_none() {
            config.application_name("runtree");
        }
        let target = target(&config);
        Ok(Self {
            config,
            target,
            settings: settings(schema, busy_timeout),
            connect_timeout,
            dial: tls.unwrap_or_else(|| Arc::new(Over(NoTls))),
            read_only: Arc::default(),
        })
    }

    /// Says why nothing may be written from now on; the first reason stays.
    pub(super) fn set_read_only(&self, why: String) {
        self.read_only.get_or_init(|| why);
    }

    /// Why nothing may be written.
    pub(super) fn read_only(&self) -> Option<String> {
        self.read_only.get().cloned()
    }

    /// Names the server and the database for people, without the password.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Connects for listening: the driver's own two halves, set up as every other connection.
    pub(super) async fn listen(&self) -> Result<(Client, Messages), RepositoryError> {
        let connecting = self.dial.listen(&self.config);
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| self.refused(error)),
            Err(_) => Err(RepositoryError::new(
                ErrorKind::Unavailable,
                format!("{} did not answer", self.target),
            )),
        }
    }

    /// What the URL says, and what every connection has beside that.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The statements that set a connection up.
    pub(super) fn settings(&self) -> &str {
        &self.settings
    }

    /// How long connecting may take.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Connects and sets the connection up.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when nobody answers in time, [`ErrorKind::Configuration`] when the server refuses, and
    /// [`ErrorKind::Unsupported`] when it is not one that keeps the promises.
    pub(super) async fn connect(&self) -> Result<AsyncPgConnection, RepositoryError> {
        match tokio::time::timeout(self.connect_timeout, self.connect_unbounded()).await {
            Ok(connected) => connected,
            Err(_) => Err(RepositoryError::new(
                ErrorKind::Unavailable,
                format!(
                    "{} did not answer within {:?}",
                    self.target, self.connect_timeout
                ),
            )),
        }
    }

    async fn connect_unbounded(&self) -> Result<AsyncPgConnection, RepositoryError> {
        let mut connection = self.dial.establish(self).await?;
        // As many texts as there are statements; the default limit must not push one out.
        connection.set_prepared_statement_cache_size(diesel::connection::CacheSize::Unbounded);
        connection
            .batch_execute(&self.settings)
            .await
            .map_err(|failure| error::classified(failure, &self.setting_up()))?;
        self.check_language(&mut connection).await?;
        Ok(connection)
    }

    fn setting_up(&self) -> String {
        format!("set up a connection to {}", self.target)
    }

    /// What it means that a connection was lost before it was set up.
    pub(super) fn not_set_up(&self, failure: diesel::ConnectionError) -> RepositoryError {
        let message = format!("failed to {}", self.setting_up());
        RepositoryError::new(ErrorKind::Unavailable, message).with_source(failure)
    }

    /// Refuses a server that tells its errors in another language: they could not be told apart, since Diesel hands their texts on and
    /// not their codes.
    async fn check_language(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<(), RepositoryError> {
        let doing = || format!("ask for the language of {}", self.target);
        let asked = Statement::new("SELECT current_setting('lc_messages') AS name");
        let found: Vec<Language> = asked
            .load(connection)
            .await
            .map_err(|failure| error::classified(failure, &doing()))?;
        let name = found.into_iter().next().map(|language| language.name);
        let name = name.unwrap_or_default();
        if is_english(&name) {
            return Ok(());
        }
        // A server without translations has only its own language, whatever the name says.
        let provoked = connection.batch_execute("SELECT 1 / 0").await;
        if provoked.is_err_and(|failure| failure.to_string().contains("division by zero")) {
            return Ok(());
        }
        Err(RepositoryError::new(
            ErrorKind::Unsupported,
            format!(
                "{} tells its errors in the language of {name:?}, and the role may not choose another; let an administrator say ALTER \
                 ROLE .. SET lc_messages = 'C'",
                self.target
            ),
        ))
    }

    /// Refuses servers on which the statements mean something else; all from the parameters that the server tells at the start.
    pub(super) fn check_server<'a>(
        &self,
        parameter: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<(), RepositoryError> {
        let refuse = |why: String| {
            Err(RepositoryError::new(
                ErrorKind::Unsupported,
                format!("{} {why}", self.target),
            ))
        };
        let version = parameter("server_version").unwrap_or_default();
        let major = version
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST_SERVER) {
            return refuse(format!(
                "runs PostgreSQL {version:?}; version {OLDEST_SERVER} or newer is needed"
            ));
        }
        match parameter("server_encoding") {
            Some("UTF8") | None => Ok(()),
            Some(encoding) => refuse(format!(
                "stores text as {encoding}; only UTF8 holds every text"
            )),
        }
    }

    /// What it means that no connection came about.
    pub(super) fn refused(&self, failure: tokio_postgres::Error) -> RepositoryError {
        let target = &self.target;
        let (kind, message) = match failure.as_db_error() {
            Some(answer) => {
                let why = answer.message();
                match *answer.code() {
                    SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (
                        ErrorKind::Configuration,
                        format!("{target} refused the user or the password: {why}"),
                    ),
                    SqlState::INVALID_CATALOG_NAME => (
                        ErrorKind::Configuration,
                        format!("the database of {target} does not exist: {why}"),
                    ),
                    SqlState::TOO_MANY_CONNECTIONS | SqlState::CANNOT_CONNECT_NOW => (
                        ErrorKind::Unavailable,
                        format!("{target} takes no connections now: {why}"),
                    ),
                    _ => (
                        ErrorKind::Configuration,
                        format!("{target} refused the connection: {why}"),
                    ),
                }
            }
            // The driver keeps its kinds to itself; what failed on the way to the server has an I/O error as its source.
            None if is_io(&failure) => (
                ErrorKind::Unavailable,
                format!("{target} cannot be reached"),
            ),
            None => (
                ErrorKind::Configuration,
                format!("no connection to {target}: {}", with_causes(&failure)),
            ),
        };
        RepositoryError::new(kind, message).with_source(failure)
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// The pool's way to make connections; one that is closed or stands in a broken transaction is not handed out again.
impl Manager for Connector {
    type Type = AsyncPgConnection;
    type Error = RepositoryError;

    async fn create(&self) -> Result<AsyncPgConnection, RepositoryError> {
        let mut connection = self.connect().await?;
        // A newer version may have changed the schema since the repository was opened.
        if let Some(why) = schema::check(&mut connection, &self.target).await? {
            self.set_read_only(why);
        }
        Ok(connection)
    }

    async fn recycle(
        &self,
        connection: &mut AsyncPgConnection,
        _: &Metrics,
    ) -> RecycleResult<RepositoryError> {
        if connection.is_broken() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}

fn parse(url: &str, has_tls: bool) -> Result<Config, RepositoryError> {
    let refuse = |message: &str| Err(RepositoryError::new(ErrorKind::Configuration, message));
    const NO_TLS: &str = "the PostgreSQL URL asks for TLS, and the builder was given none; nothing was sent in plain text; give it \
                          with PostgresBuilder::tls, or reach the server through a Unix socket or a tunnel and say sslmode=disable";
    const VERIFY: &str = "the PostgreSQL URL asks for a verified certificate, which is up to the TLS that the builder was given; let \
                          that one verify, and say sslmode=require";
    if url.contains("sslmode=verify") {
        return refuse(if has_tls { VERIFY } else { NO_TLS });
    }
    // The parser's own words may quote a part of the password; and a password with an unescaped @ makes a part of it a host.
    let is_plain = |host: &Host| !matches!(host, Host::Tcp(name) if name.contains('@'));
    let config = url
        .parse::<Config>()
        .ok()
        .filter(|config| config.get_hosts().iter().all(is_plain));
    let Some(config) = config else {
        return refuse(
            "the PostgreSQL URL cannot be read; it has the form postgres://user:password@host:port/database, with special \
             characters of the password percent-encoded",
        );
    };
    match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => Ok(config),
        // The modes are an open set, and each but those two asks for TLS.
        SslMode::Require | _ if has_tls => Ok(config),
        SslMode::Require | _ => refuse(NO_TLS),
    }
}

fn target(config: &Config) -> String {
    let port = |at: usize| {
        config
            .get_ports()
            .get(at)
            .or(config.get_ports().first())
            .copied()
            .unwrap_or(5432)
    };
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(directory) => directory.display().to_string(),
        })
        .collect();
    let database = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or("(unnamed)");
    format!(
        "the database {database} on {}",
        if hosts.is_empty() {
            "(no host)".to_owned()
        } else {
            hosts.join(", ")
        }
    )
}

/// What each connection is set to, whatever the server, the role or the database have as their defaults.
fn settings(schema: Option<&str>, busy_timeout: Duration) -> String {
    let lock_timeout = busy_timeout.as_millis().clamp(1, 2_147_483_647);
    // Less than others wait for what a paused process holds in a transaction of several statements: the turn of claims.
    let idle_timeout = (busy_timeout.as_millis() / 2).clamp(1_000, 5_000);
    let search_path = schema
        .map(|schema| format!("SET search_path = \"{schema}\";"))
        .unwrap_or_default();
    format!(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SET lock_timeout = {lock_timeout};
        SET idle_in_transaction_session_timeout = {idle_timeout};
        -- One plan for each statement: from row to row by index. A plan made for the rows that the planner guesses (a tenth of the
        -- table, where the limit is a value; none, where the statistics are from a quiet hour) reads whole tables instead.
        SET plan_cache_mode = force_generic_plan;
        SET enable_seqscan = off;
        SET enable_hashjoin = off;
        SET enable_mergejoin = off;
        -- Nor in the order of the table, in which two statements over the same runs would lock them crosswise.
        SET enable_bitmapscan = off;
        SET jit = off;
        {search_path}
        -- What is acknowledged must last; a level above the local disk is left as it is.
        SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
        -- Failures are told apart by their text; where the role may not choose the language, the server's is looked at.
        SELECT set_config('lc_messages', 'C', false) WHERE has_parameter_privilege('lc_messages', 'SET');"
    )
}

/// Tells whether messages of this locale are PostgreSQL's own; the Englishes have no translation.
fn is_english(lc_messages: &str) -> bool {
    let language = lc_messages.split(['_', '.', '@']).next();
    matches!(language, Some("" | "C" | "POSIX" | "en" | "English"))
}

/// Tells whether the network failed, or nobody answered.
fn is_io(failure: &tokio_postgres::Error) -> bool {
    causes(failure)
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map_or_else(|| failure.is_closed(), |error| !is_about_content(error))
}

/// Tells whether an error only looks as one of the network: TLS libraries clothe their own so, above all a certificate that they
/// refuse.
fn is_about_content(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput];
    error.raw_os_error().is_none() && kinds.contains(&error.kind())
}

/// A failure with why, for the driver's own words say only what it was doing.
fn with_causes(failure: &tokio_postgres::Error) -> String {
    causes(failure).fold(failure.to_string(), |text, cause| {
        format!("{text}: {cause}")
    })
}

fn causes(
    failure: &tokio_postgres::Error,
) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(failure), |error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(url: &str, tls: Option<Arc<dyn Dial>>) -> Result<Connector, RepositoryError> {
        let second = Duration::from_secs(1);
        Connector::new(url, None, tls, second, second)
    }

    fn refused(url: &str) -> String {
        refused_over(url, None)
    }

    fn refused_over(url: &str, tls: Option<Arc<dyn Dial>>) -> String {
        let error = connector(url, tls).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        format!("{error} {error:?}")
    }

    #[test]
    fn a_url_that_demands_tls_is_refused_rather_than_served_in_plain_text() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let error = refused(&format!("postgres://u:secret@h/db?sslmode={mode}"));
            assert!(error.contains("asks for TLS"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_url_that_demands_tls_is_taken_with_tls_and_verification_left_to_that() {
        let tls = || Some(Arc::new(Over(NoTls)) as Arc<dyn Dial>);
        for mode in ["disable", "prefer", "require"] {
            connector(&format!("postgres://u:secret@h/db?sslmode={mode}"), tls()).unwrap();
        }
        for mode in ["verify-ca", "verify-full"] {
            let error = refused_over(&format!("postgres://u:secret@h/db?sslmode={mode}"), tls());
            assert!(error.contains("verified certificate"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn only_another_language_is_doubted() {
        for name in [
            "",
            "C",
            "C.UTF-8",
            "POSIX",
            "en_US.UTF-8",
            "en_GB",
            "English_United States.1252",
        ] {
            assert!(is_english(name), "{name}");
        }
        for name in ["de_DE.UTF-8", "fr", "ca_ES@valencia", "Calabrian", "enm"] {
            assert!(!is_english(name), "{name}");
        }
    }

    #[test]
    fn no_text_shows_the_password() {
        let connector = connector("postgres://u:secret@h:7/db", None).unwrap();
        assert_eq!(connector.target(), "the database db on h:7");
        assert!(!format!("{connector:?}").contains("secret"));
        for unescaped in ["postgres://u:hun@ter2@h/db", "postgres://u:hun@ter2:x@h/db"] {
            let error = refused(unescaped);
            assert!(!error.contains("hun") && !error.contains("ter2"), "{error}");
        }
    }
}
