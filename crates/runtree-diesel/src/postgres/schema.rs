//! Brings the schema up to date, one step a transaction, however many processes start at once.

use diesel::sql_types::Text;
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use runtree_repository::RepositoryError;

use super::connect::Connector;
use super::error::classified;
use super::statement::Statement;
use super::{MAX_TRIES, is_undone};
use crate::migrate::{FIND_SCHEMA, Migration, Plan, Records, SchemaInfo, plan, refuse_missing};

/// The steps, oldest first.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "runs",
        min_reader: 1,
        min_writer: 1,
        sql: include_str!("../../migrations/postgres/0001_runs.sql"),
        down: include_str!("../../migrations/postgres/0001_runs.down.sql"),
        records: &RECORDS,
    },
    Migration {
        version: 2,
        name: "complete",
        min_reader: 2,
        min_writer: 2,
        sql: include_str!("../../migrations/postgres/0002_complete.sql"),
        down: include_str!("../../migrations/postgres/0002_complete.down.sql"),
        records: &RECORDS,
    },
    Migration {
        version: 3,
        name: "sort_keys",
        min_reader: 2,
        min_writer: 3,
        sql: include_str!("../../migrations/postgres/0003_sort_keys.sql"),
        down: include_str!("../../migrations/postgres/0003_sort_keys.down.sql"),
        records: &RECORDS,
    },
];

const RECORDS: Records = Records {
    table: "CREATE TABLE IF NOT EXISTS runtree_schema_info (
    version    bigint      PRIMARY KEY,
    name       text        NOT NULL,
    min_reader bigint      NOT NULL,
    min_writer bigint      NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)",
    now: "clock_timestamp()",
};

/// The key of the lock that migrations take: the bytes of "runtree\0" as a number.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8247619739013440768)";

/// Not `to_regclass`, which may answer from what this session remembers: reading `pg_class` takes a lock on it, and with the lock
/// comes the news of what other sessions made while this one waited for its turn.
pub(crate) const PLACE: &str = "
    SELECT format('%I', n.nspname) AS place
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'runtree_schema_info' AND c.relkind = 'r' AND pg_table_is_visible(c.oid)";

/// How long a step waits for the tables. Whoever comes after it waits behind it, so this is not long.
const STEP_TIMEOUT: &str = "1min";

#[derive(QueryableByName)]
pub(crate) struct PlaceRow {
    #[diesel(sql_type = Text)]
    place: String,
}

/// A schema that was found: what it says of itself, and in which of the server's schemas it is, as SQL quotes the name.
struct Found {
    info: Option<SchemaInfo>,
    place: String,
}

/// Makes the schema what this version needs, and answers why it may only be read, if so.
///
/// Uses a connection of its own, which is closed with the transaction that stands on it, whenever this is dropped.
pub(super) async fn prepare(
    connector: &Connector,
    schema: Option<&str>,
    migrates: bool,
) -> Result<Option<String>, RepositoryError> {
    let mut connection = connector.connect().await?;
    // Without a lock first: most starts find everything in place, and may lack the right to change it.
    let found = find(&mut connection)
        .await
        .map_err(|e| failed(connector, "read the schema of", e))?;
    let found = found.and_then(|found| found.info);
    match plan(MIGRATIONS, found, connector.target())? {
        Plan::ReadOnly(why) => return Ok(Some(why)),
        Plan::Migrate([]) => return Ok(None),
        Plan::Migrate(missing) if !migrates => {
            return refuse_missing(missing, connector.target()).map(|()| None);
        }
        Plan::Migrate(_) => {}
    }
    let mut tries = 1;
    loop {
        let found = begin(&mut connection)
            .await
            .map_err(|e| failed(connector, "migrate", e))?;
        let info = found.as_ref().and_then(|found| found.info);
        let place = found.map(|found| found.place);
        match plan(MIGRATIONS, info, connector.target())? {
            Plan::ReadOnly(why) => return Ok(Some(why)),
            Plan::Migrate(missing) => match missing.first() {
                None => return Ok(None),
                Some(step) => match apply(&mut connection, schema, place.as_deref(), step)
                    .await
                    .map_err(|e| failed(connector, "migrate", e))
                {
                    Err(error) if is_undone(&error) && tries < MAX_TRIES => {
                        tries += 1;
                        let rollback = connection.batch_execute("ROLLBACK").await;
                        rollback.map_err(|e| failed(connector, "migrate", e))?;
                    }
                    applied => applied?,
                },
            },
        }
    }
}

/// Looks whether a connection that is made later still finds the schema that the repository was opened on, and answers why it may only be
/// read, if so.
pub(super) async fn check(
    connection: &mut AsyncPgConnection,
    target: &str,
) -> Result<Option<String>, RepositoryError> {
    let found: Vec<SchemaInfo> = Statement::new(FIND_SCHEMA)
        .load(connection)
        .await
        .map_err(|e| classified(e, &format!("read the schema of {target}")))?;
    match plan(MIGRATIONS, found.into_iter().next(), target)? {
        Plan::ReadOnly(why) => Ok(Some(why)),
        Plan::Migrate([]) => Ok(None),
        Plan::Migrate(missing) => refuse_missing(missing, target).map(|()| None),
    }
}

fn failed(connector: &Connector, doing: &str, error: diesel::result::Error) -> RepositoryError {
    classified(error, &format!("{doing} {}", connector.target()))
}

async fn find(connection: &mut AsyncPgConnection) -> QueryResult<Option<Found>> {
    let places: Vec<PlaceRow> = Statement::new(PLACE).load(connection).await?;
    let Some(PlaceRow { place }) = places.into_iter().next() else {
        return Ok(None);
    };
    let info: Vec<SchemaInfo> = Statement::new(FIND_SCHEMA).load(connection).await?;
    let info = info.into_iter().next();
    Ok(Some(Found { info, place }))
}

/// Begins a transaction that holds the lock, and reads the schema under it.
async fn begin(connection: &mut AsyncPgConnection) -> QueryResult<Option<Found>> {
    // Others may need longer than a lock is waited for elsewhere: a step can rewrite a table.
    connection
        .batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '5min'; {LOCK};"))
        .await?;
    find(connection).await
}

/// Applies a step in the transaction that has the lock, beside the steps before it, wherever the role's own first schema is.
async fn apply(
    connection: &mut AsyncPgConnection,
    schema: Option<&str>,
    place: Option<&str>,
    step: &Migration,
) -> QueryResult<()> {
    let mut settings = format!("SET LOCAL lock_timeout = '{STEP_TIMEOUT}';");
    if let Some(place) = place {
        settings.push_str(&format!("SET LOCAL search_path = {place};"));
    }
    connection.batch_execute(&settings).await?;
    if let (Some(schema), None) = (schema, place) {
        // Whoever may not make schemas, and so not even say IF NOT EXISTS, may have been given one.
        let make = format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}') THEN CREATE SCHEMA \"{schema}\"; END IF; \
             END $$"
        );
        connection.batch_execute(&make).await?;
    }
    let step = step.up();
    connection.batch_execute(&format!("{step} COMMIT;")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_named_after_the_project() {
        let key = i64::from_be_bytes(*b"runtree\0");
        assert_eq!(LOCK, format!("SELECT pg_advisory_xact_lock({key})"));
    }

    #[test]
    fn steps_are_numbered_without_a_gap() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|step| step.version).collect();
        let expected: Vec<i64> = (1..).take(MIGRATIONS.len()).collect();
        assert_eq!(versions, expected);
        assert!(
            MIGRATIONS
                .iter()
                .all(|step| step.min_reader <= step.version && step.min_writer <= step.version)
        );
    }
}
