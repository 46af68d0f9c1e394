//! Brings the schema up to date, one step a transaction, however many processes start at once.

use diesel::sql_types::Bool;
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use runtree_repository::RepositoryError;

use super::connect::Connector;
use super::error::classified;
use super::statement::Statement;
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
pub(crate) const HAS_INFO: &str = "
    SELECT EXISTS (
        SELECT FROM pg_class c
        WHERE c.relname = 'runtree_schema_info' AND c.relkind = 'r' AND pg_table_is_visible(c.oid)) AS is_there";

#[derive(QueryableByName)]
pub(crate) struct HasInfo {
    #[diesel(sql_type = Bool)]
    pub(crate) is_there: bool,
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
    match plan(MIGRATIONS, found, connector.target())? {
        Plan::ReadOnly(why) => return Ok(Some(why)),
        Plan::Migrate([]) => return Ok(None),
        Plan::Migrate(missing) if !migrates => {
            return refuse_missing(missing, connector.target()).map(|()| None);
        }
        Plan::Migrate(_) => {}
    }
    loop {
        let begun = begin(&mut connection)
            .await
            .map_err(|e| failed(connector, "migrate", e))?;
        match plan(MIGRATIONS, begun, connector.target())? {
            Plan::ReadOnly(why) => return Ok(Some(why)),
            Plan::Migrate(missing) => match missing.first() {
                None => return Ok(None),
                Some(step) => apply(&mut connection, schema, step)
                    .await
                    .map_err(|e| failed(connector, "migrate", e))?,
            },
        }
    }
}

fn failed(connector: &Connector, doing: &str, error: diesel::result::Error) -> RepositoryError {
    classified(error, &format!("{doing} {}", connector.target()))
}

async fn find(connection: &mut AsyncPgConnection) -> QueryResult<Option<SchemaInfo>> {
    let is_there: HasInfo = Statement::new(HAS_INFO).get_result(connection).await?;
    if !is_there.is_there {
        return Ok(None);
    }
    let found: Vec<SchemaInfo> = Statement::new(FIND_SCHEMA).load(connection).await?;
    Ok(found.into_iter().next())
}

/// Begins a transaction that holds the lock, and reads the schema under it.
async fn begin(connection: &mut AsyncPgConnection) -> QueryResult<Option<SchemaInfo>> {
    // Others may need longer than a lock is waited for elsewhere: a step can rewrite a table.
    connection
        .batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '5min'; {LOCK};"))
        .await?;
    find(connection).await
}

async fn apply(
    connection: &mut AsyncPgConnection,
    schema: Option<&str>,
    step: &Migration,
) -> QueryResult<()> {
    if let Some(schema) = schema {
        connection
            .batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))
            .await?;
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
