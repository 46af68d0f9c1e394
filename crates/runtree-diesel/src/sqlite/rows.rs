//! Rows that only the statements for SQLite answer.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Bool};
use runtree_repository::id::RunId;
use runtree_repository::{LeaseRef, RepositoryError, Token, WorktreeKey};

use crate::in_order::row_in_order;
use crate::row::{WholeRunRow, count, run_id};

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

row_in_order! {
    /// A waiting run that may be claimed, and how many runs use its concurrency key.
    pub(super) struct CandidateRow {
        #[diesel(embed)]
        pub(super) run: WholeRunRow,
        #[diesel(sql_type = BigInt)]
        pub(super) used: i64,
    }
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

impl WorktreeKeyRow {
    pub(super) fn decode(self) -> Result<WorktreeKey, RepositoryError> {
        Ok(WorktreeKey {
            run: run_id(&self.run_id)?,
            planned_by: Token::new(count("planning token", self.planned_by)?),
        })
    }
}
