//! Rows that only the statements for SQLite answer.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use runtree_repository::id::RunId;
use runtree_repository::{LeaseRef, RepositoryError, Token, WorktreeKey};

use crate::row::{count, run_id};

/// The id of a run.
#[derive(Debug, QueryableByName)]
pub(super) struct IdRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
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
#[derive(Debug, QueryableByName)]
pub(super) struct CandidateRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    attempts: i64,
    #[diesel(sql_type = BigInt)]
    token: i64,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) concurrency_key: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(super) concurrency_limit: Option<i64>,
    #[diesel(sql_type = BigInt)]
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

impl LeaseRefRow {
    pub(super) fn decode(self) -> Result<LeaseRef, RepositoryError> {
        Ok(LeaseRef {
            run: run_id(&self.id)?,
            token: Token::new(count("token", self.token)?),
        })
    }
}

impl CandidateRow {
    /// The lease, and the number of the attempt, that a claim gives.
    pub(super) fn next(&self) -> Result<(LeaseRef, u32), RepositoryError> {
        let lease = LeaseRef {
            run: run_id(&self.id)?,
            token: Token::new(count("token", self.token + 1)?),
        };
        Ok((lease, count("number of attempts", self.attempts + 1)?))
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
