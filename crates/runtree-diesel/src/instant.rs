//! A timestamp as a column holds it, for a host's own tables as for ours.

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::{BigInt, SqlType};
use runtree_repository::time::Timestamp;

/// Holds a [`Timestamp`] on its way into a column or out of it, with every microsecond.
///
/// On PostgreSQL the column is a `timestamptz`: what the server counts in is microseconds too, so nothing is rounded, and the
/// session's time zone plays no part. On SQLite it is an `INTEGER` of unix microseconds, best in a `STRICT` table: one stray text in
/// the column would compare greater than every number.
///
/// # Errors
///
/// Reading fails with a deserialization error of Diesel's that names the value: `infinity` and `-infinity`, and instants outside of
/// the years 1 to 9999, which other writers may have stored. The row is as it was; correct it, or read it as text.
///
/// # Examples
///
#[cfg_attr(feature = "sqlite", doc = "```")]
#[cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
/// use diesel::{Connection, RunQueryDsl, connection::SimpleConnection, prelude::*};
/// use runtree_diesel::SqlTimestamp;
///
/// diesel::table! { visits { id -> BigInt, at -> BigInt, } }
///
/// let mut connection = SqliteConnection::establish(":memory:")?;
/// connection.batch_execute("CREATE TABLE visits (id INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT")?;
///
/// let at = SqlTimestamp("2025-06-22T12:00:00.000001+02:00".parse()?);
/// diesel::insert_into(visits::table).values(visits::at.eq(at)).execute(&mut connection)?;
/// assert_eq!(visits::table.select(visits::at).first::<SqlTimestamp>(&mut connection)?, at);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = BigInt)]
#[cfg_attr(feature = "postgres", diesel(sql_type = diesel::sql_types::Timestamptz))]
pub struct SqlTimestamp(pub Timestamp);

/// The type of an instant's column in our own rows, whichever of the two it is in the database.
#[derive(SqlType)]
pub(crate) struct Moment;

/// What a column of the type [`Moment`] holds, in microseconds since 1970: what others stored may be no [`Timestamp`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Micros(pub(crate) i64);

#[cfg(feature = "sqlite")]
mod sqlite {
    use diesel::serialize::IsNull;
    use diesel::sqlite::Sqlite;

    use super::*;

    impl ToSql<BigInt, Sqlite> for SqlTimestamp {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            out.set_value(self.0.as_unix_micros());
            Ok(IsNull::No)
        }
    }

    impl FromSql<BigInt, Sqlite> for SqlTimestamp {
        fn from_sql(
            value: <Sqlite as diesel::backend::Backend>::RawValue<'_>,
        ) -> deserialize::Result<Self> {
            let micros = <i64 as FromSql<BigInt, Sqlite>>::from_sql(value)?;
            Ok(Self(Timestamp::from_unix_micros(micros)?))
        }
    }

    impl FromSql<Moment, Sqlite> for Micros {
        fn from_sql(
            value: <Sqlite as diesel::backend::Backend>::RawValue<'_>,
        ) -> deserialize::Result<Self> {
            <i64 as FromSql<BigInt, Sqlite>>::from_sql(value).map(Self)
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use diesel::pg::data_types::PgTimestamp;
    use diesel::pg::{Pg, PgValue};
    use diesel::sql_types::Timestamptz;

    use super::*;

    /// Microseconds from 1970 to 2000, where PostgreSQL counts from.
    const EPOCH_MICROS: i64 = 946_684_800_000_000;

    impl From<SqlTimestamp> for PgTimestamp {
        fn from(at: SqlTimestamp) -> Self {
            Self(at.0.as_unix_micros() - EPOCH_MICROS)
        }
    }

    impl ToSql<Timestamptz, Pg> for SqlTimestamp {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
            ToSql::<Timestamptz, Pg>::to_sql(&PgTimestamp::from(*self), &mut out.reborrow())
        }
    }

    impl FromSql<Timestamptz, Pg> for SqlTimestamp {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            let PgTimestamp(micros) = FromSql::<Timestamptz, Pg>::from_sql(value)?;
            // The ends of the integer are how PostgreSQL writes infinities.
            match micros {
                i64::MIN => Err("-infinity is no instant".into()),
                i64::MAX => Err("infinity is no instant".into()),
                _ => Ok(Self(Timestamp::from_unix_micros(
                    micros.saturating_add(EPOCH_MICROS),
                )?)),
            }
        }
    }

    impl FromSql<Moment, Pg> for Micros {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            let PgTimestamp(micros) = FromSql::<Timestamptz, Pg>::from_sql(value)?;
            // The infinities, the ends of the integer, stay further away than any instant of ours.
            Ok(Self(micros.saturating_add(EPOCH_MICROS)))
        }
    }
}
