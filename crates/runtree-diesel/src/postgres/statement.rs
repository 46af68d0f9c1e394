//! One SQL statement with its values in PostgreSQL's own types, which each connection prepares once and keeps.
//!
//! `diesel::sql_query` numbers and types values as it should but is prepared anew each time. This says of the same query that it
//! may be kept: there is a bounded number of texts.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::pg::data_types::PgTimestamp;
use diesel::query_builder::{AstPass, BoxedSqlQuery, Query, QueryFragment, QueryId, SqlQuery};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{self, Array, BigInt, Binary, Bool, Nullable, Text, Timestamptz, Untyped};
use runtree_repository::time::Timestamp;

use crate::SqlTimestamp;

/// A statement whose text refers to its values as `$1`, `$2` and so on, each as often as it likes.
pub(crate) struct Statement<'a> {
    query: BoxedSqlQuery<'a, Pg, SqlQuery>,
    is_kept: bool,
}

impl<'a> Statement<'a> {
    pub(crate) fn new(sql: impl Into<String>) -> Self {
        Self {
            query: diesel::sql_query(sql).into_boxed(),
            is_kept: true,
        }
    }

    /// Says whether a connection keeps it prepared; else it is prepared for this time.
    pub(super) fn kept_if(self, is_kept: bool) -> Self {
        Self { is_kept, ..self }
    }

    fn bind<T, V>(self, value: V) -> Self
    where
        Pg: sql_types::HasSqlType<T>,
        V: ToSql<T, Pg> + Send + 'a,
        T: Send + 'a,
    {
        Self {
            query: self.query.bind::<T, V>(value),
            ..self
        }
    }

    pub(crate) fn text(self, text: &'a str) -> Self {
        self.bind::<Text, _>(text)
    }

    pub(super) fn text_or_null(self, text: Option<&'a str>) -> Self {
        self.bind::<Nullable<Text>, _>(text)
    }

    pub(super) fn texts(self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        self.bind::<Array<Text>, _>(texts.into_iter().collect::<Vec<_>>())
    }

    pub(super) fn texts_or_null(self, texts: Option<Vec<&'a str>>) -> Self {
        self.bind::<Nullable<Array<Text>>, _>(texts)
    }

    /// An array with a place for each, empty or not.
    pub(super) fn texts_or_nulls(self, texts: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        self.bind::<Array<Nullable<Text>>, _>(texts.into_iter().collect::<Vec<_>>())
    }

    pub(super) fn bytes(self, bytes: impl IntoIterator<Item = &'a [u8]>) -> Self {
        self.bind::<Array<Binary>, _>(bytes.into_iter().collect::<Vec<_>>())
    }

    pub(super) fn bool(self, value: bool) -> Self {
        self.bind::<Bool, _>(value)
    }

    pub(super) fn int(self, number: impl Into<i64>) -> Self {
        self.bind::<BigInt, _>(number.into())
    }

    pub(super) fn int_or_null(self, number: Option<i64>) -> Self {
        self.bind::<Nullable<BigInt>, _>(number)
    }

    pub(super) fn ints(self, numbers: impl IntoIterator<Item = i64>) -> Self {
        self.bind::<Array<BigInt>, _>(numbers.into_iter().collect::<Vec<_>>())
    }

    pub(super) fn ints_or_nulls(self, numbers: impl IntoIterator<Item = Option<i64>>) -> Self {
        self.bind::<Array<Nullable<BigInt>>, _>(numbers.into_iter().collect::<Vec<_>>())
    }

    pub(super) fn id(self, id: &[u8; 16]) -> Self {
        self.bind::<sql_types::Uuid, _>(Id(*id))
    }

    pub(super) fn id_or_null(self, id: Option<&[u8; 16]>) -> Self {
        self.bind::<Nullable<sql_types::Uuid>, _>(id.map(|id| Id(*id)))
    }

    pub(super) fn ids(self, ids: impl IntoIterator<Item = [u8; 16]>) -> Self {
        self.bind::<Array<sql_types::Uuid>, _>(ids.into_iter().map(Id).collect::<Vec<_>>())
    }

    pub(super) fn ids_or_nulls(self, ids: impl IntoIterator<Item = Option<[u8; 16]>>) -> Self {
        let ids: Vec<_> = ids.into_iter().map(|id| id.map(Id)).collect();
        self.bind::<Array<Nullable<sql_types::Uuid>>, _>(ids)
    }

    pub(super) fn instant(self, at: Bound) -> Self {
        self.bind::<Timestamptz, _>(at.to_postgres())
    }

    pub(super) fn instant_or_null(self, at: Option<Timestamp>) -> Self {
        self.bind::<Nullable<Timestamptz>, _>(at.map(SqlTimestamp))
    }

    pub(super) fn instants_or_nulls(
        self,
        instants: impl IntoIterator<Item = Option<Timestamp>>,
    ) -> Self {
        let instants: Vec<_> = instants
            .into_iter()
            .map(|at| at.map(SqlTimestamp))
            .collect();
        self.bind::<Array<Nullable<Timestamptz>>, _>(instants)
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    // The cache then takes the text itself as the key.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

// For connections that are not asynchronous, which only a host brings.
impl<Conn> diesel::RunQueryDsl<Conn> for Statement<'_> {}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.query.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &Pg) -> QueryResult<bool> {
        Ok(self.is_kept)
    }
}

/// A bound of a range of instants, so that a range without an end still has one text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    Earliest,
    At(Timestamp),
    Latest,
}

impl Bound {
    fn to_postgres(self) -> PgTimestamp {
        match self {
            Self::Earliest => PgTimestamp(i64::MIN), // what PostgreSQL writes as -infinity
            Self::At(at) => SqlTimestamp(at).into(),
            Self::Latest => PgTimestamp(i64::MAX), // infinity
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Id([u8; 16]);

impl ToSql<sql_types::Uuid, Pg> for Id {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        std::io::Write::write_all(out, &self.0)?;
        Ok(IsNull::No)
    }
}
