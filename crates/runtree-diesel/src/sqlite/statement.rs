//! One SQL statement with its values, which Diesel prepares once per connection and keeps.
//!
//! `diesel::sql_query` is prepared anew each time. This says of the same query that it may be kept. The cache takes the text as the
//! key, so a text must be one of a small number, and one that is put together at run time says so with [`Statement::dynamic`].

use std::borrow::Cow;

use diesel::RunQueryDsl;
use diesel::query_builder::{AstPass, BoxedSqlQuery, Query, QueryFragment, QueryId, SqlQuery};
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Untyped};
use diesel::sqlite::Sqlite;

/// A statement whose text refers to its values as `?1`, `?2` and so on, each as often as it likes.
pub(crate) struct Statement<'a> {
    query: BoxedSqlQuery<'a, Sqlite, SqlQuery>,
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
        Self {
            query: diesel::sql_query(sql).into_boxed(),
            is_dynamic: false,
        }
    }

    /// A statement with a text that was put together at run time, one of a few hundred.
    pub(super) fn common(sql: String) -> Self {
        Self {
            query: diesel::sql_query(sql).into_boxed(),
            is_dynamic: false,
        }
    }

    /// A statement with a text of which there are too many to keep.
    pub(super) fn dynamic(sql: String) -> Self {
        Self {
            query: diesel::sql_query(sql).into_boxed(),
            is_dynamic: true,
        }
    }

    /// Adds the next value.
    pub(super) fn bind(self, value: impl Into<Value<'a>>) -> Self {
        let query = match value.into() {
            Value::Int(number) => self.query.bind::<Nullable<BigInt>, _>(number),
            Value::Text(text) => self.query.bind::<Nullable<Text>, _>(text),
            Value::Bytes(bytes) => self.query.bind::<Nullable<Binary>, _>(bytes),
        };
        Self { query, ..self }
    }

    /// Adds values in order.
    pub(super) fn bind_all(self, values: impl IntoIterator<Item = Value<'a>>) -> Self {
        values.into_iter().fold(self, Self::bind)
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
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        self.query.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &Sqlite) -> QueryResult<bool> {
        Ok(!self.is_dynamic)
    }
}

impl Value<'_> {
    /// A number of things, such as a limit.
    pub(super) fn count(number: usize) -> Self {
        // More than a 64-bit integer holds means no limit.
        Self::Int(Some(i64::try_from(number).unwrap_or(i64::MAX)))
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

impl<'a> From<Option<&'a [u8]>> for Value<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        Self::Bytes(bytes.map(Cow::Borrowed))
    }
}
