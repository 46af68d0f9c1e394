//! One SQL statement with its values in PostgreSQL's own types, which each connection prepares once and keeps.
//!
//! `diesel::sql_query` numbers and types values as it should but is prepared anew each time. This says of the same query that it
//! may be kept: every text of this module is a constant.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::pg::data_types::PgTimestamp;
use diesel::query_builder::{AstPass, BoxedSqlQuery, Query, QueryFragment, QueryId, SqlQuery};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{
    self, Array, BigInt, Binary, Nullable, SmallInt, Text, Timestamptz, Untyped,
};
use runtree_repository::time::Timestamp;

use crate::SqlTimestamp;

/// A statement whose text refers to its values as `$1`, `$2` and so on, each as often as it likes.
pub(super) struct Statement<'a>(BoxedSqlQuery<'a, Pg, SqlQuery>);

impl<'a> Statement<'a> {
    pub(super) fn new(sql: &'static str) -> Self {
        Self(diesel::sql_query(sql).into_boxed())
    }

    pub(super) fn text(self, text: &'a str) -> Self {
        Self(self.0.bind::<Text, _>(text))
    }

    pub(super) fn text_or_null(self, text: Option<&'a str>) -> Self {
        Self(self.0.bind::<Nullable<Text>, _>(text))
    }

    pub(super) fn texts_or_null(self, texts: Option<Vec<&'a str>>) -> Self {
        Self(self.0.bind::<Nullable<Array<Text>>, _>(texts))
    }

    pub(super) fn bytes(self, bytes: &'a [u8]) -> Self {
        Self(self.0.bind::<Binary, _>(bytes))
    }

    pub(super) fn small(self, number: i16) -> Self {
        Self(self.0.bind::<SmallInt, _>(number))
    }

    pub(super) fn int(self, number: impl Into<i64>) -> Self {
        Self(self.0.bind::<BigInt, _>(number.into()))
    }

    pub(super) fn int_or_null(self, number: Option<i64>) -> Self {
        Self(self.0.bind::<Nullable<BigInt>, _>(number))
    }

    pub(super) fn ints(self, numbers: Vec<i64>) -> Self {
        Self(self.0.bind::<Array<BigInt>, _>(numbers))
    }

    pub(super) fn id(self, id: &[u8; 16]) -> Self {
        Self(self.0.bind::<sql_types::Uuid, _>(Id(*id)))
    }

    pub(super) fn id_or_null(self, id: Option<&[u8; 16]>) -> Self {
        Self(
            self.0
                .bind::<Nullable<sql_types::Uuid>, _>(id.map(|id| Id(*id))),
        )
    }

    pub(super) fn ids(self, ids: impl IntoIterator<Item = [u8; 16]>) -> Self {
        Self(
            self.0
                .bind::<Array<sql_types::Uuid>, _>(ids.into_iter().map(Id).collect::<Vec<_>>()),
        )
    }

    pub(super) fn instant(self, at: Bound) -> Self {
        Self(self.0.bind::<Timestamptz, _>(at.to_postgres()))
    }

    pub(super) fn bound_or_null(self, at: Option<Bound>) -> Self {
        Self(
            self.0
                .bind::<Nullable<Timestamptz>, _>(at.map(Bound::to_postgres)),
        )
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

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &Pg) -> QueryResult<bool> {
        Ok(true)
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
