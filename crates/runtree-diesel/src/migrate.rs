//! What both databases share about migrations: the steps, as text for people who apply them themselves, and what may be done with a
//! schema that was found.
//!
//! A schema carries three numbers: its version, the oldest version of this library's schema that may read it, and the oldest that may
//! write it. Every step is recorded in `runtree_schema_info`, a name that no host's own migrations use, with these numbers; the row
//! with the highest version speaks for the schema.

use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use runtree_repository::{ErrorKind, RepositoryError};

/// One step of the schema, for people who apply such steps themselves.
///
/// A repository applies the missing steps when it is opened. Where it may not, because the schema is changed by hand or by the
/// tools of the host, `SqliteRepository::migrations` and `PostgresRepository::migrations` answer the steps, and the builder's
/// `without_migrating` opens a database that has them all. Each text is meant to be applied whole, in one transaction.
///
#[cfg_attr(feature = "sqlite", doc = "```")]
#[cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
/// use runtree_diesel::SqliteRepository;
///
/// for step in SqliteRepository::migrations() {
///     println!("-- {} {}\n{}", step.version(), step.name(), step.up());
/// }
/// ```
#[derive(Debug)]
pub struct Migration {
    /// The version of the schema after this step.
    pub(crate) version: i64,
    /// What the step is for, in one word or two.
    pub(crate) name: &'static str,
    /// The oldest schema version whose software can read the result.
    pub(crate) min_reader: i64,
    /// The oldest schema version whose software can write the result.
    pub(crate) min_writer: i64,
    /// The statements that bring the schema from the version before to this one.
    pub(crate) sql: &'static str,
    /// The statements that bring it back.
    pub(crate) down: &'static str,
    /// How this database keeps the record of its steps.
    pub(crate) records: &'static Records,
}

/// How a database keeps the record of its steps.
#[derive(Debug)]
pub(crate) struct Records {
    /// Makes the table of steps unless it is there.
    pub(crate) table: &'static str,
    /// The present instant, as the table of steps stores it.
    pub(crate) now: &'static str,
}

impl Migration {
    /// Returns the version of the schema after this step.
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// Returns what the step is for, in one word or two.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the statements that apply this step after the one before, and record it.
    pub fn up(&self) -> String {
        let Self {
            version,
            name,
            min_reader,
            min_writer,
            ..
        } = self;
        format!(
            "{};\n\n{}\n\nINSERT INTO runtree_schema_info (version, name, min_reader, min_writer, applied_at)\n    \
             VALUES ({version}, '{name}', {min_reader}, {min_writer}, {});\n",
            self.records.table.trim(),
            self.sql.trim(),
            self.records.now
        )
    }

    /// Returns the statements that take this step back while it is the last one, and its record. What only this step has a place
    /// for is lost.
    pub fn down(&self) -> String {
        format!(
            "{}\n\nDELETE FROM runtree_schema_info WHERE version = {};\n",
            self.down.trim(),
            self.version
        )
    }
}

/// The schema that was found in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub(crate) struct SchemaInfo {
    #[diesel(sql_type = BigInt)]
    pub(crate) version: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) min_reader: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) min_writer: i64,
}

/// Reads the row that speaks for the schema.
pub(crate) const FIND_SCHEMA: &str =
    "SELECT version, min_reader, min_writer FROM runtree_schema_info ORDER BY version DESC LIMIT 1";

/// What may be done with a schema that was found.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Apply these steps, perhaps none, then read and write.
    Migrate(&'static [Migration]),
    /// Read only: a newer version changed what a writer must know. The error says so to those who write.
    ReadOnly(String),
}

/// Decides what to do with a schema; `store` names the file or the server for people.
///
/// # Errors
/// [`ErrorKind::SchemaTooNew`] when the schema must not even be read; nothing has been touched then.
pub(crate) fn plan(
    migrations: &'static [Migration],
    found: Option<SchemaInfo>,
    store: &str,
) -> Result<Plan, RepositoryError> {
    let ours = migrations.last().map_or(0, |last| last.version);
    let Some(found) = found else {
        return Ok(Plan::Migrate(migrations));
    };
    let version = found.version;
    if found.min_reader > ours {
        return Err(RepositoryError::new(
            ErrorKind::SchemaTooNew,
            format!(
                "{store} has the schema version {version}, and this version of runtree knows versions up to {ours}; nothing was \
                 touched; use a newer version of runtree for it"
            ),
        ));
    }
    if found.min_writer > ours {
        return Ok(Plan::ReadOnly(format!(
            "{store} has the schema version {version}, which this version of runtree (up to {ours}) may read but not write; use a \
             newer version of runtree to write to it"
        )));
    }
    let missing = migrations
        .iter()
        .position(|step| step.version > version)
        .unwrap_or(migrations.len());
    Ok(Plan::Migrate(migrations.get(missing..).unwrap_or_default()))
}

/// Refuses a schema that lacks steps, for a repository that is to apply none; `store` names the file or the server for people.
///
/// # Errors
/// [`ErrorKind::Configuration`], naming the steps.
pub(crate) fn refuse_missing(missing: &[Migration], store: &str) -> Result<(), RepositoryError> {
    if missing.is_empty() {
        return Ok(());
    }
    let steps: Vec<String> = missing
        .iter()
        .map(|step| format!("{} ({})", step.version, step.name))
        .collect();
    Err(RepositoryError::new(
        ErrorKind::Configuration,
        format!(
            "{store} lacks the schema steps {}, and was opened without migrating; apply what `migrations` of the repository answers",
            steps.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[Migration] = &[step(1), step(2), step(3)];

    const fn step(version: i64) -> Migration {
        Migration {
            version,
            name: "step",
            min_reader: 1,
            min_writer: 1,
            sql: "CREATE TABLE runtree_t (a INTEGER);",
            down: "DROP TABLE runtree_t;",
            records: &Records {
                table: "CREATE TABLE IF NOT EXISTS runtree_schema_info (version INTEGER)",
                now: "now()",
            },
        }
    }

    fn versions(found: Option<SchemaInfo>) -> Vec<i64> {
        match plan(STEPS, found, "the test").unwrap() {
            Plan::Migrate(steps) => steps.iter().map(|step| step.version).collect(),
            Plan::ReadOnly(why) => panic!("{why}"),
        }
    }

    #[test]
    fn only_missing_steps_are_applied() {
        let found = |version| {
            Some(SchemaInfo {
                version,
                min_reader: 1,
                min_writer: 1,
            })
        };
        assert_eq!(versions(None), [1, 2, 3]);
        assert_eq!(versions(found(1)), [2, 3]);
        assert!(versions(found(3)).is_empty());
        assert!(
            versions(found(9)).is_empty(),
            "a newer schema that still admits us"
        );
    }

    #[test]
    fn a_step_is_told_with_its_record() {
        assert_eq!(
            STEPS[1].up(),
            "CREATE TABLE IF NOT EXISTS runtree_schema_info (version INTEGER);\n\nCREATE TABLE runtree_t (a INTEGER);\n\n\
             INSERT INTO runtree_schema_info (version, name, min_reader, min_writer, applied_at)\n    \
             VALUES (2, 'step', 1, 1, now());\n"
        );
        assert_eq!(
            STEPS[1].down(),
            "DROP TABLE runtree_t;\n\nDELETE FROM runtree_schema_info WHERE version = 2;\n"
        );
    }

    #[test]
    fn missing_steps_are_named() {
        assert!(refuse_missing(&[], "the database x").is_ok());
        let error = refuse_missing(&STEPS[1..], "the database x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(
            error
                .to_string()
                .starts_with("the database x lacks the schema steps 2 (step), 3 (step), "),
            "{error}"
        );
    }

    #[test]
    fn a_newer_schema_is_read_or_refused_as_it_says() {
        let found = |min_reader, min_writer| {
            Some(SchemaInfo {
                version: 9,
                min_reader,
                min_writer,
            })
        };
        assert!(matches!(
            plan(STEPS, found(3, 4), "x").unwrap(),
            Plan::ReadOnly(_)
        ));
        let error = plan(STEPS, found(4, 4), "the database /srv/runs.db").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaTooNew);
        assert_eq!(
            error.to_string(),
            "the database /srv/runs.db has the schema version 9, and this version of runtree knows versions up to 3; nothing was \
             touched; use a newer version of runtree for it"
        );
    }
}
