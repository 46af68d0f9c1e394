//! One SQL statement with its values, which Diesel prepares once per connection and keeps.
//!
//! `diesel::sql_query` is prepared anew each time, and what a wrapper says of it is lost where Diesel takes a statement by
//! reference, as it does to execute one. So this is a query of its own. The cache takes the text as the key, so a text must be one
//! of a small number, and one that is put together at run time says so with [`Statement::dynamic`].

use std::borrow::Cow;

use diesel::RunQueryDsl;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Untyped};
use diesel::sqlite::Sqlite;
use runtree_repository::id::RunId;

/// A statement whose text refers to its values as `?1`, `?2` and so on, each as often as it likes.
pub(crate) struct Statement<'a> {
    sql: Cow<'static, str>,
    values: Vec<Value<'a>>,
    is_dynamic: bool,
}

/// A value in one of the three types that the statements use.
pub(super) enum Value<'a> {
    Int(Option<i64>),
    Text(Option<Cow<'a, str>>),
    Bytes(Option<Cow<'a, [u8]>>),
}

impl<'a> Statement<'a> {
    /// A statement with a fixed text.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn new(sql: &'static str) -> Self {
        #[cfg(test)]
        super::plans::saw(sql, std::panic::Location::caller());
        Self::of(Cow::Borrowed(sql), false)
    }

    /// A statement that is no query and has no plan: it begins, ends or divides a transaction.
    pub(super) fn command(sql: &'static str) -> Self {
        Self::of(Cow::Borrowed(sql), false)
    }

    /// A statement with a text that was put together at run time, one of a few hundred.
    pub(super) fn common(sql: String) -> Self {
        Self::of(Cow::Owned(sql), false)
    }

    /// A statement with a text of which there are too many to keep.
    pub(super) fn dynamic(sql: String) -> Self {
        Self::of(Cow::Owned(sql), true)
    }

    fn of(sql: Cow<'static, str>, is_dynamic: bool) -> Self {
        Self {
            sql,
            values: Vec::new(),
            is_dynamic,
        }
    }

    /// Adds the next value.
    pub(super) fn bind(mut self, value: impl Into<Value<'a>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Adds values in order.
    pub(super) fn bind_all(mut self, values: impl IntoIterator<Item = Value<'a>>) -> Self {
        self.values.extend(values);
        self
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

impl<Conn> RunQueryDsl<Conn> for Statement<'_> {}

impl QueryFragment<Sqlite> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        if self.is_dynamic {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql(&self.sql);
        // Diesel writes a question mark into the text for each value that it is given. The text has its own, with numbers, so
        // Diesel's go into a comment at its end.
        out.push_sql(" --");
        for value in &self.values {
            match value {
                Value::Int(number) => out.push_bind_param::<Nullable<BigInt>, _>(number)?,
                Value::Text(text) => out.push_bind_param::<Nullable<Text>, _>(text)?,
                Value::Bytes(bytes) => out.push_bind_param::<Nullable<Binary>, _>(bytes)?,
            }
        }
        Ok(())
    }
}

impl Value<'_> {
    /// A number of things, such as a limit.
    pub(super) fn count(number: usize) -> Self {
        // More than a 64-bit integer holds means no limit.
        Self::Int(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    /// The ids of runs as the text of a JSON array; see `among!`.
    pub(super) fn ids<'i>(ids: impl IntoIterator<Item = &'i RunId>) -> Self {
        let mut array = String::from("[");
        for id in ids {
            let separator = if array.len() == 1 { "\"" } else { ",\"" };
            array.push_str(separator);
            for byte in id.as_bytes() {
                for digit in [byte >> 4, byte & 15] {
                    array.extend(char::from_digit(u32::from(digit), 16));
                }
            }
            array.push('"');
        }
        array.push(']');
        Self::Text(Some(Cow::Owned(array)))
    }

    /// Bytes that the statement keeps.
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(Cow::Owned(bytes)))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(Some(i64::from(number)))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(Cow::Borrowed(text)))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text.map(Cow::Borrowed))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Some(Cow::Owned(text)))
    }
}

impl From<Option<String>> for Value<'_> {
    fn from(text: Option<String>) -> Self {
        Self::Text(text.map(Cow::Owned))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Some(Cow::Borrowed(bytes)))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(Some(Cow::Borrowed(bytes)))
    }
}

impl<'a> From<&'a RunId> for Value<'a> {
    fn from(id: &'a RunId) -> Self {
        id.as_bytes().into()
    }
}

impl<'a> From<Option<&'a [u8]>> for Value<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        Self::Bytes(bytes.map(Cow::Borrowed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use diesel::connection::InstrumentationEvent;
    use diesel::{Connection as _, QueryableByName, SqliteConnection};

    use super::*;

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        a: i64,
    }

    /// A connection that tells which statements it prepares to keep.
    fn connection() -> (SqliteConnection, Arc<Mutex<Vec<String>>>) {
        let mut connection = SqliteConnection::establish(":memory:").unwrap();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&kept);
        connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::CacheQuery { sql, .. } = event {
                told.lock().unwrap().push(sql.to_owned());
            }
        });
        (connection, kept)
    }

    #[test]
    fn a_fixed_statement_is_prepared_once_whether_it_reads_or_writes() {
        let (mut connection, kept) = connection();
        Statement::dynamic("CREATE TABLE t (a, b, c)".to_owned())
            .execute(&mut connection)
            .unwrap();
        for number in 1..=3_i64 {
            let written = Statement::command("INSERT INTO t VALUES (?1, ?2, ?3), (?1, ?2, ?3)")
                .bind(number)
                .bind("text")
                .bind(b"bytes")
                .execute(&mut connection);
            assert_eq!(written, Ok(2));
            let read: Vec<Row> =
                Statement::command("SELECT a FROM t WHERE a = ?1 AND b = ?2 AND c = ?3")
                    .bind(number)
                    .bind("text".to_owned())
                    .bind(b"bytes".as_slice())
                    .load(&mut connection)
                    .unwrap();
            let read: Vec<i64> = read.into_iter().map(|row| row.a).collect();
            assert_eq!(read, [number, number]);
        }
        let kept = kept.lock().unwrap();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept[0].starts_with("INSERT") && kept[1].starts_with("SELECT"));
    }

    #[test]
    fn a_dynamic_statement_is_not_kept() {
        let (mut connection, kept) = connection();
        for _ in 0..2 {
            let read: Row = Statement::dynamic("SELECT ?1 AS a".to_owned())
                .bind(7_i64)
                .get_result(&mut connection)
                .unwrap();
            assert_eq!(read.a, 7);
        }
        assert!(kept.lock().unwrap().is_empty());
    }
}
