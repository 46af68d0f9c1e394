//! Opening a file: what is refused, how a connection is set up, and how the schema gets there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use runtree_repository::time::Timestamp;
use runtree_repository::{Durability, ErrorKind, RepositoryError};

use super::dialect::{classify, kind_of_text};
use super::file_system;
use super::json;
use super::statement::Statement;
use super::writer::BUSY_WAIT;
use crate::migrate::{self, Migration, Plan, Records, SchemaInfo};

/// The oldest SQLite that does not corrupt a database in WAL mode which several connections write and checkpoint.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// The steps, oldest first.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "runs",
        min_reader: 1,
        min_writer: 1,
        sql: include_str!("../../migrations/sqlite/0001_runs.sql"),
        down: include_str!("../../migrations/sqlite/0001_runs.down.sql"),
        records: &RECORDS,
    },
    Migration {
        version: 2,
        name: "complete",
        min_reader: 2,
        min_writer: 2,
        sql: include_str!("../../migrations/sqlite/0002_complete.sql"),
        down: include_str!("../../migrations/sqlite/0002_complete.down.sql"),
        records: &RECORDS,
    },
];

const RECORDS: Records = Records {
    table: "CREATE TABLE IF NOT EXISTS runtree_schema_info (
    version    INTEGER NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    min_reader INTEGER NOT NULL,
    min_writer INTEGER NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT",
    now: "CAST(strftime('%s', 'now') AS INTEGER) * 1000000",
};

/// What opening needs to know.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) path: PathBuf,
    pub(super) durability: Durability,
    pub(super) patience: Duration,
    pub(super) creates_directories: bool,
    pub(super) migrates: bool,
}

/// A file that was opened.
pub(super) struct Opened {
    /// The path, absolute and without symbolic links.
    pub(super) path: PathBuf,
    pub(super) schema: Schema,
    /// The connection that writes, or why nobody may.
    pub(super) writer: Result<SqliteConnection, String>,
    /// The connections that read.
    pub(super) readers: Vec<SqliteConnection>,
    /// The connection that hears of other processes' changes.
    pub(super) listener: SqliteConnection,
}

/// Opens the file, makes it if it is missing, and brings its schema up to date.
pub(super) fn open(
    settings: &Settings,
    readers: usize,
    now: Timestamp,
) -> Result<Opened, RepositoryError> {
    let path = resolve(settings)?;
    file_system::refuse_network(&path)?;
    file_system::refuse_read_only(&path)?;
    let setup = Setup {
        doing: format!("open the database {}", path.display()),
        settings,
        path: &path,
    };
    let (connection, read_only) = setup.writer(now)?;
    let mode = if read_only.is_none() { "rw" } else { "ro" };
    let readers = (0..readers)
        .map(|_| setup.reader(mode))
        .collect::<Result<_, _>>()?;
    let listener = setup.reader(mode)?;
    let writer = match read_only {
        None => Ok(connection),
        Some(why) => Err(why),
    };
    Ok(Opened {
        schema: Schema {
            store: setup.store().into(),
        },
        path,
        writer,
        readers,
        listener,
    })
}

/// Refuses a SQLite with a known corruption bug.
///
/// # Errors
/// [`ErrorKind::Unsupported`], naming the version.
pub(crate) fn check_version(version: &str) -> Result<(), RepositoryError> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let parsed = match (
        parts.next().flatten(),
        parts.next().flatten(),
        parts.next().flatten(),
    ) {
        (Some(major), Some(minor), Some(patch)) => Some((major, minor, patch)),
        (_, _, _) => None,
    };
    if parsed.is_some_and(|parsed| parsed >= OLDEST_SQLITE) {
        return Ok(());
    }
    let (major, minor, patch) = OLDEST_SQLITE;
    Err(RepositoryError::new(
        ErrorKind::Unsupported,
        format!(
            "this program is linked with SQLite {version}, which can corrupt a database that several connections write; at least \
             {major}.{minor}.{patch} is needed: another crate may hold libsqlite3-sys back"
        ),
    ))
}

/// Makes the path absolute, so that the host may change its directory between the opening of two connections.
fn resolve(settings: &Settings) -> Result<PathBuf, RepositoryError> {
    let path = &settings.path;
    let refuse = |why: String| RepositoryError::new(ErrorKind::Configuration, why);
    let Some(name) = path.file_name().filter(|_| path.as_os_str() != ":memory:") else {
        return Err(refuse(format!(
            "the database path {path:?} names no file; for runs in memory there is MemoryRepository"
        )));
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    if settings.creates_directories {
        std::fs::create_dir_all(directory).map_err(|error| {
            refuse(format!(
                "the directory {} cannot be created",
                directory.display()
            ))
            .with_source(error)
        })?;
    }
    let directory = directory.canonicalize().map_err(|error| {
        let message = format!(
            "the directory {} of the database cannot be used; it must exist, or be created with create_directories",
            directory.display()
        );
        refuse(message).with_source(error)
    })?;
    let path = directory.join(name);
    // Only ever asked about, never opened: closing a second descriptor of the file would drop SQLite's own locks on it.
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => Err(refuse(format!(
            "the database {} is not a file",
            path.display()
        ))),
        Ok(_) => path.canonicalize().map_err(|error| {
            refuse(format!("the database {} cannot be used", path.display())).with_source(error)
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(path),
        Err(error) => Err(
            refuse(format!("the database {} cannot be used", path.display())).with_source(error),
        ),
    }
}

/// Notices that another process has changed the schema of an open file. Clones name the same file.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    store: Arc<str>,
}

impl Schema {
    /// Refuses to write to a schema of which this version does not know what a writer must know.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] or [`ErrorKind::SchemaTooNew`] when a newer version changed it,
    /// [`ErrorKind::Configuration`] when steps were taken back.
    pub(super) fn check_writer(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(), RepositoryError> {
        match self.plan(connection)? {
            Plan::Migrate(missing) => migrate::refuse_missing(missing, &self.store),
            Plan::ReadOnly(why) => Err(RepositoryError::new(ErrorKind::ReadOnly, why)),
        }
    }

    /// Refuses to read a schema of which this version does not know what a reader must know.
    ///
    /// # Errors
    /// As for a writer, but for a schema that may be read.
    pub(super) fn check_reader(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(), RepositoryError> {
        match self.plan(connection)? {
            Plan::Migrate(missing) => migrate::refuse_missing(missing, &self.store),
            Plan::ReadOnly(_) => Ok(()),
        }
    }

    /// Asks the row that speaks for the schema, in the transaction that it is to hold for: one look-up by its key.
    fn plan(&self, connection: &mut SqliteConnection) -> Result<Plan, RepositoryError> {
        let found: Vec<SchemaInfo> = Statement::new(migrate::FIND_SCHEMA)
            .load(connection)
            .map_err(|error| classify(error, "look at the schema"))?;
        migrate::plan(MIGRATIONS, found.into_iter().next(), &self.store)
    }
}

/// One opening: what its steps share.
struct Setup<'s> {
    /// Continues "failed to", for errors.
    doing: String,
    settings: &'s Settings,
    path: &'s Path,
}

impl Setup<'_> {
    /// Opens one connection; the waiting time comes first, because every later command may have to wait.
    fn connect(&self, mode: &str) -> Result<SqliteConnection, RepositoryError> {
        let mut connection =
            SqliteConnection::establish(&uri(self.path, mode)).map_err(|error| {
                let text = error.to_string();
                RepositoryError::new(
                    kind_of_text(&text),
                    format!("failed to {}: {text}", self.doing),
                )
                .with_source(error)
            })?;
        self.batch(
            &mut connection,
            &format!(
                "PRAGMA busy_timeout = {}",
                self.settings.patience.as_millis()
            ),
        )?;
        Ok(connection)
    }

    /// Opens the connection that writes; answers why it may not write when the schema says so.
    ///
    /// SQLite does not wait its turn to switch to the write-ahead log when another process switches at the same time: it answers
    /// at once that the database is locked. So the waiting is done here, each time from the start.
    fn writer(
        &self,
        now: Timestamp,
    ) -> Result<(SqliteConnection, Option<String>), RepositoryError> {
        let began = Instant::now();
        loop {
            // Who is not to migrate is not to make a file either.
            let mode = if self.settings.migrates { "rwc" } else { "rw" };
            let mut connection = self.connect(mode)?;
            let short_wait = format!("PRAGMA busy_timeout = {}", BUSY_WAIT.as_millis());
            self.batch(&mut connection, &short_wait)?;
            match self.prepare(&mut connection, now) {
                Ok(read_only) => return Ok((connection, read_only)),
                Err(error)
                    if error.kind() == ErrorKind::Busy
                        && began.elapsed() < self.settings.patience =>
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn reader(&self, mode: &str) -> Result<SqliteConnection, RepositoryError> {
        let mut connection = self.connect(mode)?;
        self.batch(&mut connection, "PRAGMA mmap_size = 0")?;
        self.batch(&mut connection, "PRAGMA query_only = 1")?;
        json::register(&mut connection).map_err(|error| classify(error, &self.doing))?;
        Ok(connection)
    }

    fn prepare(
        &self,
        connection: &mut SqliteConnection,
        now: Timestamp,
    ) -> Result<Option<String>, RepositoryError> {
        check_version(&self.text(connection, "SELECT sqlite_version() AS text")?)?;
        // Nothing is written before the schema has been looked at: a newer one must not be touched, not even its journal mode.
        let is_complete = match self.plan(connection)? {
            Plan::ReadOnly(why) => return Ok(Some(why)),
            Plan::Migrate(missing) if !self.settings.migrates => {
                migrate::refuse_missing(missing, &self.store())?;
                true
            }
            Plan::Migrate(missing) => missing.is_empty(),
        };
        self.batch(connection, "PRAGMA journal_mode = WAL")?;
        let journal = self.text(
            connection,
            "SELECT journal_mode AS text FROM pragma_journal_mode",
        )?;
        if journal != "wal" {
            let message = format!(
                "failed to {}: its journal mode stays {journal:?}, a write-ahead log is needed",
                self.doing
            );
            return Err(RepositoryError::new(ErrorKind::ReadOnly, message));
        }
        let synchronous = if self.settings.durability == Durability::Normal {
            "NORMAL"
        } else {
            "FULL"
        };
        self.batch(connection, &format!("PRAGMA synchronous = {synchronous}"))?;
        self.batch(connection, "PRAGMA foreign_keys = 1")?;
        self.batch(connection, "PRAGMA mmap_size = 0")?;
        if is_complete {
            // The lock of those who write is not needed to find nothing to do, and may be hard to get.
            return Ok(None);
        }
        self.migrate(connection, now)
    }

    /// Applies missing steps, each in a transaction of its own that holds the write lock from the start, so that of several
    /// processes that start at once one does the work and the others find it done.
    fn migrate(
        &self,
        connection: &mut SqliteConnection,
        now: Timestamp,
    ) -> Result<Option<String>, RepositoryError> {
        loop {
            self.batch(connection, "BEGIN IMMEDIATE")?;
            let step = self.migrate_one(connection, now);
            self.batch(connection, if step.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
            match step? {
                Step::Applied => {}
                Step::Done => return Ok(None),
                Step::ReadOnly(why) => return Ok(Some(why)),
            }
        }
    }

    fn migrate_one(
        &self,
        connection: &mut SqliteConnection,
        now: Timestamp,
    ) -> Result<Step, RepositoryError> {
        let steps = match self.plan(connection)? {
            Plan::Migrate(steps) => steps,
            Plan::ReadOnly(why) => return Ok(Step::ReadOnly(why)),
        };
        let Some(step) = steps.first() else {
            return Ok(Step::Done);
        };
        self.batch(connection, step.records.table)?;
        self.batch(connection, step.sql)?;
        let done = Statement::new(
            "INSERT INTO runtree_schema_info (version, name, min_reader, min_writer, applied_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(step.version)
        .bind(step.name)
        .bind(step.min_reader)
        .bind(step.min_writer)
        .bind(now.as_unix_micros());
        done.execute(connection)
            .map_err(|error| classify(error, &self.doing))?;
        Ok(Step::Applied)
    }

    fn plan(&self, connection: &mut SqliteConnection) -> Result<Plan, RepositoryError> {
        let tables = "SELECT name AS text FROM sqlite_master WHERE type = 'table' AND name = 'runtree_schema_info'";
        let tables: Vec<TextRow> = Statement::new(tables)
            .load(connection)
            .map_err(|error| classify(error, &self.doing))?;
        let found: Vec<SchemaInfo> = if tables.is_empty() {
            Vec::new()
        } else {
            Statement::new(migrate::FIND_SCHEMA)
                .load(connection)
                .map_err(|error| classify(error, &self.doing))?
        };
        migrate::plan(MIGRATIONS, found.into_iter().next(), &self.store())
    }

    /// Names the file for people.
    fn store(&self) -> String {
        format!("the database {}", self.path.display())
    }

    fn text(
        &self,
        connection: &mut SqliteConnection,
        sql: &'static str,
    ) -> Result<String, RepositoryError> {
        let row: TextRow = Statement::new(sql)
            .get_result(connection)
            .map_err(|error| classify(error, &self.doing))?;
        Ok(row.text)
    }

    fn batch(&self, connection: &mut SqliteConnection, sql: &str) -> Result<(), RepositoryError> {
        connection
            .batch_execute(sql)
            .map_err(|error| classify(error, &self.doing))
    }
}

enum Step {
    Applied,
    Done,
    ReadOnly(String),
}

#[derive(QueryableByName)]
pub(crate) struct TextRow {
    #[diesel(sql_type = Text)]
    pub(crate) text: String,
}

/// Writes a path as SQLite's URI, so that no character of it means anything else.
fn uri(path: &Path, mode: &str) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?mode=");
    uri.push_str(mode);
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_with_the_corruption_bug_is_refused_by_name() {
        for version in ["3.51.3", "3.52.0", "4.0.0", "3.51.10"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
        for version in ["3.51.2", "3.9.9", "2.99.99", "", "3.51", "3.x.9"] {
            let error = check_version(version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(
                error.to_string().contains(&format!("SQLite {version},")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_path_keeps_its_meaning_in_a_uri() {
        assert_eq!(
            uri(Path::new("/a b/100%?x#y.db"), "rwc"),
            "file:/a%20b/100%25%3Fx%23y.db?mode=rwc"
        );
    }
}
