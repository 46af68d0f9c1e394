//! Instants through both databases and back: every microsecond is kept, and the order is the same on both sides.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails its test by panicking"
)]

use proptest::prelude::*;
use runtree_repository::time::Timestamp;

/// Some instants of one table, the edges of the range and of days more often than their share.
fn any_instants() -> impl Strategy<Value = Vec<Timestamp>> {
    let (first, last) = (
        Timestamp::MIN.as_unix_micros(),
        Timestamp::MAX.as_unix_micros(),
    );
    let day = 86_400_000_000;
    // PostgreSQL counts from 2000, SQLite's and our numbers from 1970: on both sides of each the sign changes.
    let origins = [first, 0, 946_684_800_000_000, last];
    let one = prop_oneof![
        4 => first..=last,
        2 => (first / day..=last / day, -3_i64..=3).prop_map(move |(days, near)| days * day + near),
        2 => (prop::sample::select(origins.to_vec()), -3_i64..=3).prop_map(|(origin, near)| origin + near),
    ]
    .prop_filter_map("in range", |micros| Timestamp::from_unix_micros(micros).ok());
    prop::collection::vec(one, 1..60)
}

/// What a database must answer: the instants as they were, and in order.
fn check(
    stored: &[Timestamp],
    read: &[Timestamp],
    ordered: &[Timestamp],
) -> Result<(), TestCaseError> {
    prop_assert_eq!(read, stored);
    let mut expected = stored.to_vec();
    expected.sort();
    prop_assert_eq!(ordered, &expected[..]);
    Ok(())
}

/// An error of Diesel's reader with what it came from; Diesel itself names the column.
fn told(error: &diesel::result::Error) -> String {
    assert!(
        matches!(error, diesel::result::Error::DeserializationError(_)),
        "{error}"
    );
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use diesel::connection::SimpleConnection as _;
    use diesel::prelude::*;
    use runtree_diesel::SqlTimestamp;

    use super::*;

    diesel::table! { instants { id -> BigInt, at -> BigInt, } }

    fn table() -> SqliteConnection {
        let mut connection = SqliteConnection::establish(":memory:").unwrap();
        connection
            .batch_execute(
                "CREATE TABLE instants (id INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT",
            )
            .unwrap();
        connection
    }

    fn round_trip(stored: &[Timestamp]) -> Result<(), TestCaseError> {
        let mut connection = table();
        for at in stored {
            let row = instants::at.eq(SqlTimestamp(*at));
            diesel::insert_into(instants::table)
                .values(row)
                .execute(&mut connection)
                .unwrap();
        }
        let rows = instants::table.select(instants::at);
        let read: Vec<SqlTimestamp> = rows.order(instants::id).load(&mut connection).unwrap();
        let ordered: Vec<SqlTimestamp> = rows.order(instants::at).load(&mut connection).unwrap();
        let plain =
            |values: Vec<SqlTimestamp>| values.into_iter().map(|at| at.0).collect::<Vec<_>>();
        check(stored, &plain(read), &plain(ordered))
    }

    proptest! {
        #[test]
        fn sqlite_keeps_every_microsecond_and_the_order(stored in any_instants()) {
            round_trip(&stored)?;
        }
    }

    #[test]
    fn a_number_that_is_no_instant_is_an_error_of_the_reader() {
        let mut connection = table();
        connection
            .batch_execute("INSERT INTO instants (at) VALUES (9223372036854775807)")
            .unwrap();
        let read = instants::table
            .select(instants::at)
            .first::<SqlTimestamp>(&mut connection);
        let error = read.unwrap_err();
        let told = told(&error);
        assert!(told.contains("9223372036854775807"), "{told}");
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use diesel::sql_types::Text;
    use diesel::{ExpressionMethods as _, QueryDsl as _};
    use diesel_async::{
        AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _,
    };
    use runtree_diesel::SqlTimestamp;
    use runtree_testkit::postgres::TestPostgres;

    use super::*;

    diesel::table! { instants { id -> BigInt, at -> Timestamptz, } }

    /// A table that goes with the connection, in a session whose time zone is far from UTC.
    async fn table(url: &str) -> AsyncPgConnection {
        let mut connection = AsyncPgConnection::establish(url).await.unwrap();
        connection
            .batch_execute(
                "SET TIME ZONE 'Asia/Kathmandu';
                 CREATE TEMPORARY TABLE instants (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL)",
            )
            .await
            .unwrap();
        connection
    }

    async fn round_trip(
        connection: &mut AsyncPgConnection,
        stored: &[Timestamp],
    ) -> Result<(), TestCaseError> {
        connection
            .batch_execute("TRUNCATE instants RESTART IDENTITY")
            .await
            .unwrap();
        let rows: Vec<_> = stored
            .iter()
            .map(|at| instants::at.eq(SqlTimestamp(*at)))
            .collect();
        diesel::insert_into(instants::table)
            .values(&rows)
            .execute(connection)
            .await
            .unwrap();
        let read: Vec<SqlTimestamp> = instants::table
            .select(instants::at)
            .order(instants::id)
            .load(connection)
            .await
            .unwrap();
        let ordered: Vec<SqlTimestamp> = instants::table
            .select(instants::at)
            .order(instants::at)
            .load(connection)
            .await
            .unwrap();
        let plain =
            |values: Vec<SqlTimestamp>| values.into_iter().map(|at| at.0).collect::<Vec<_>>();
        check(stored, &plain(read), &plain(ordered))?;

        // What the server itself takes them for.
        let written = r#"to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#;
        let texts: Vec<String> = instants::table
            .select(diesel::dsl::sql::<Text>(written))
            .order(instants::id)
            .load(connection)
            .await
            .unwrap();
        let expected: Vec<String> = stored.iter().map(Timestamp::to_string).collect();
        prop_assert_eq!(texts, expected);
        Ok(())
    }

    #[test]
    fn postgresql_keeps_every_microsecond_and_the_order() {
        let url = TestPostgres::get().fresh_database();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut connection = runtime.block_on(table(&url));
        let connection = std::cell::RefCell::new(&mut connection);
        proptest!(|(stored in any_instants())| {
            runtime.block_on(round_trip(&mut connection.borrow_mut(), &stored))?;
        });
    }

    #[tokio::test]
    async fn an_infinity_and_an_instant_out_of_range_are_errors_of_the_reader() {
        let mut connection = table(&TestPostgres::get().fresh_database()).await;
        for (value, named) in [
            ("infinity", "infinity"),
            ("-infinity", "-infinity"),
            ("10000-01-01 00:00:00+00", "253402300800000000"),
            ("0001-12-31 23:59:59.999999+00 BC", "-62135596800000001"),
        ] {
            let sql = format!("TRUNCATE instants; INSERT INTO instants (at) VALUES ('{value}')");
            connection.batch_execute(&sql).await.unwrap();
            let read = instants::table
                .select(instants::at)
                .first::<SqlTimestamp>(&mut connection);
            let error = read.await.unwrap_err();
            let told = told(&error);
            assert!(told.contains(named), "{value}: {told}");
        }
    }
}
