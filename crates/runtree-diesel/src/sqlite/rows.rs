//! Rows that only the statements for SQLite answer.

use diesel::QueryableByName;
use diesel::deserialize::{self, FromSql};
use diesel::row::{Field as _, Row};
use diesel::sql_types::{BigInt, Binary, Bool};
use diesel::sqlite::Sqlite;
use runtree_repository::id::RunId;
use runtree_repository::{LeaseRef, RepositoryError, Token, WorktreeKey};

use crate::row::{WholeRunRow, count, run_id};

/// A row that is read column by column, in the order of its members.
pub(crate) trait InOrder: Sized {
    fn in_order<'r>(columns: &mut Columns<'_, impl Row<'r, Sqlite>>) -> deserialize::Result<Self>;
}

/// The columns of a row that were not read yet.
pub(crate) struct Columns<'c, R> {
    row: &'c R,
    next: usize,
}

impl<'c, R> Columns<'c, R> {
    pub(super) fn of(row: &'c R) -> Self {
        Self { row, next: 0 }
    }

    /// Reads the next column, which has this name.
    pub(crate) fn next<'r, S, T>(&mut self, name: &str) -> deserialize::Result<T>
    where
        R: Row<'r, Sqlite>,
        T: FromSql<S, Sqlite>,
    {
        let place = self.next;
        debug_assert_eq!(
            self.row
                .get(place)
                .as_ref()
                .and_then(|field| field.field_name()),
            Some(name),
            "the columns are in the order of the members"
        );
        self.next += 1;
        self.row.get_value::<S, T, _>(place)
    }
}

/// The id of a run.
#[derive(Debug, QueryableByName)]
pub(super) struct IdRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
}

/// A run that has just ended, and whether it leaves worktrees.
#[derive(Debug, QueryableByName)]
pub(super) struct EndedRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = Bool)]
    pub(super) leaves_worktrees: bool,
}

/// A number of things.
#[derive(Debug, QueryableByName)]
pub(crate) struct NumberRow {
    #[diesel(sql_type = BigInt)]
    pub(crate) number: i64,
}

/// A run and its token.
#[derive(Debug, QueryableByName)]
pub(super) struct LeaseRefRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    token: i64,
}

/// A waiting run that may be claimed, and how many runs use its concurrency key.
#[derive(Debug)]
pub(super) struct CandidateRow {
    pub(super) run: WholeRunRow,
    pub(super) used: i64,
}

/// The key of a worktree.
#[derive(Debug, QueryableByName)]
pub(super) struct WorktreeKeyRow {
    #[diesel(sql_type = Binary)]
    run_id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    planned_by: i64,
}

impl IdRow {
    pub(super) fn decode(self) -> Result<RunId, RepositoryError> {
        run_id(&self.id)
    }
}

impl EndedRow {
    pub(super) fn decode(&self) -> Result<RunId, RepositoryError> {
        run_id(&self.id)
    }
}

impl LeaseRefRow {
    pub(super) fn decode(self) -> Result<LeaseRef, RepositoryError> {
        Ok(LeaseRef {
            run: run_id(&self.id)?,
            token: Token::new(count("token", self.token)?),
        })
    }
}

impl InOrder for CandidateRow {
    fn in_order<'r>(columns: &mut Columns<'_, impl Row<'r, Sqlite>>) -> deserialize::Result<Self> {
        Ok(Self {
            run: WholeRunRow::in_order(columns)?,
            used: columns.next::<BigInt, _>("used")?,
        })
    }
}

impl WorktreeKeyRow {
    pub(super) fn decode(self) -> Result<WorktreeKey, RepositoryError> {
        Ok(WorktreeKey {
            run: run_id(&self.run_id)?,
            planned_by: Token::new(count("planning token", self.planned_by)?),
        })
    }
}
