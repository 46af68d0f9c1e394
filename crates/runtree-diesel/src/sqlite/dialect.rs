//! What SQLite's error texts mean: Diesel hands on neither the code nor a kind for most of them.

use diesel::result::{DatabaseErrorInformation, Error};
use runtree_repository::{ErrorKind, RepositoryError};

use crate::error;

/// Turns Diesel's error into ours; `doing` continues "failed to".
pub(crate) fn classify(error: Error, doing: &str) -> RepositoryError {
    error::classify(
        error,
        doing,
        |information: &(dyn DatabaseErrorInformation + Send + Sync)| {
            kind_of_text(information.message())
        },
    )
}

/// The texts of `sqlite3_errstr`, which SQLite keeps stable; some come with more after a colon.
const TEXTS: &[(&str, ErrorKind)] = &[
    ("database is locked", ErrorKind::Busy),
    ("database table is locked", ErrorKind::Busy),
    ("database schema is locked", ErrorKind::Busy),
    ("locking protocol", ErrorKind::Busy),
    ("attempt to write a readonly database", ErrorKind::ReadOnly),
    ("disk I/O error", ErrorKind::Unavailable),
    ("database or disk is full", ErrorKind::Unavailable),
    ("out of memory", ErrorKind::Unavailable),
    ("interrupted", ErrorKind::Unavailable),
    ("database disk image is malformed", ErrorKind::Corrupt),
    ("malformed database schema", ErrorKind::Corrupt),
    ("file is not a database", ErrorKind::Configuration),
    ("unable to open database file", ErrorKind::Configuration),
    ("access permission denied", ErrorKind::Configuration),
    ("authorization denied", ErrorKind::Configuration),
    ("unsupported file format", ErrorKind::Configuration),
];

/// Says what kind of failure an error text of SQLite tells of.
pub(super) fn kind_of_text(text: &str) -> ErrorKind {
    TEXTS
        .iter()
        .find(|(start, _)| text.starts_with(start))
        .map_or(ErrorKind::Internal, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use diesel::connection::SimpleConnection as _;
    use diesel::sql_types::BigInt;
    use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};

    use super::*;

    fn connect(path: &Path) -> SqliteConnection {
        SqliteConnection::establish(path.to_str().unwrap()).unwrap()
    }

    fn failure(connection: &mut SqliteConnection, sql: &str) -> ErrorKind {
        let error = classify(connection.batch_execute(sql).unwrap_err(), "test");
        assert!(error.to_string().starts_with("failed to test: "), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        error.kind()
    }

    #[test]
    fn a_database_that_another_connection_holds_is_busy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs.db");
        connect(&path)
            .batch_execute("PRAGMA journal_mode = WAL; CREATE TABLE t (a)")
            .unwrap();
        let (mut one, mut other) = (connect(&path), connect(&path));
        one.batch_execute("BEGIN IMMEDIATE").unwrap();
        assert_eq!(failure(&mut other, "BEGIN IMMEDIATE"), ErrorKind::Busy);
        assert_eq!(
            failure(&mut other, "INSERT INTO t VALUES (1)"),
            ErrorKind::Busy
        );
        // A transaction that has read before others wrote can never write, however long it waits.
        other.batch_execute("BEGIN; SELECT * FROM t").unwrap();
        one.batch_execute("INSERT INTO t VALUES (1); COMMIT")
            .unwrap();
        assert_eq!(
            failure(&mut other, "INSERT INTO t VALUES (2)"),
            ErrorKind::Busy
        );
    }

    #[test]
    fn a_connection_that_may_not_write_is_read_only() {
        let mut connection = connect(Path::new(":memory:"));
        connection
            .batch_execute("CREATE TABLE t (a); PRAGMA query_only = 1")
            .unwrap();
        assert_eq!(
            failure(&mut connection, "INSERT INTO t VALUES (1)"),
            ErrorKind::ReadOnly
        );
    }

    #[test]
    fn a_full_disk_is_unavailable() {
        let mut connection = connect(Path::new(":memory:"));
        connection
            .batch_execute("CREATE TABLE t (a); PRAGMA max_page_count = 4")
            .unwrap();
        assert_eq!(
            failure(&mut connection, "INSERT INTO t VALUES (randomblob(100000))"),
            ErrorKind::Unavailable
        );
    }

    #[test]
    fn a_file_of_another_kind_is_a_wrong_configuration_and_a_damaged_one_is_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs.db");
        fs::write(&path, "no database".repeat(1_000)).unwrap();
        assert_eq!(
            failure(&mut connect(&path), "SELECT * FROM t"),
            ErrorKind::Configuration
        );
        fs::remove_file(&path).unwrap();
        let fill = "CREATE TABLE t (a); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO t SELECT i FROM n";
        connect(&path).batch_execute(fill).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[4_096..].fill(0xff);
        fs::write(&path, bytes).unwrap();
        assert_eq!(
            failure(&mut connect(&path), "SELECT sum(a) FROM t"),
            ErrorKind::Corrupt
        );
    }

    #[test]
    fn a_directory_that_is_missing_is_a_wrong_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/runs.db");
        let error = SqliteConnection::establish(path.to_str().unwrap())
            .err()
            .unwrap()
            .to_string();
        assert_eq!(kind_of_text(&error), ErrorKind::Configuration, "{error}");
    }

    #[test]
    fn a_constraint_that_speaks_up_is_a_defect() {
        let mut connection = connect(Path::new(":memory:"));
        connection
            .batch_execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b CHECK (b > 0), c UNIQUE)")
            .unwrap();
        for sql in [
            "INSERT INTO t VALUES (1, -1, 1)",
            "INSERT INTO t VALUES (1, 1, 1), (2, 1, 1)",
            "this is no statement",
        ] {
            assert_eq!(failure(&mut connection, sql), ErrorKind::Internal, "{sql}");
        }
    }

    #[derive(Debug, QueryableByName)]
    struct Number {
        #[diesel(sql_type = BigInt)]
        #[expect(dead_code, reason = "it cannot be read")]
        number: i64,
    }

    #[test]
    fn a_row_that_cannot_be_read_is_corrupt() {
        let mut connection = connect(Path::new(":memory:"));
        let error = sql_query("SELECT NULL AS number")
            .load::<Number>(&mut connection)
            .unwrap_err();
        assert_eq!(classify(error, "test").kind(), ErrorKind::Corrupt);
    }
}
