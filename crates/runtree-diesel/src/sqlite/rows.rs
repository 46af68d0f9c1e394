//! Rows that only the statements for SQLite answer.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary};
use runtree_repository::id::RunId;
use runtree_repository::{LeaseRef, RepositoryError, Token, WorktreeKey};

use crate::row::{count, run_id};

/// The id of a run.
#[derive(Debug, QueryableByName)]
pub(super) struct IdRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
}

/// A run and its token.
#[derive(Debug, QueryableByName)]
pub(super) struct LeaseRefRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    token: i64,
}

/// What a claim changed in a run.
#[derive(Debug, QueryableByName)]
pub(super) struct ClaimedRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    attempts: i64,
    #[diesel(sql_type = BigInt)]
    token: i64,
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

impl LeaseRefRow {
    pub(super) fn decode(self) -> Result<LeaseRef, RepositoryError> {
        Ok(LeaseRef {
            run: run_id(&self.id)?,
            token: Token::new(count("token", self.token)?),
        })
    }
}

impl ClaimedRow {
    /// The run, the number of the attempt, and the token.
    pub(super) fn decode(self) -> Result<(RunId, u32, Token), RepositoryError> {
        Ok((
            run_id(&self.id)?,
            count("number of attempts", self.attempts)?,
            Token::new(count("token", self.token)?),
        ))
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
