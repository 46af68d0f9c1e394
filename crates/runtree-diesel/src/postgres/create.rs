//! Makes runs: the insert decides, and only the loser looks why.

use async_trait::async_trait;
use runtree_repository::{
    ConflictOver, CreateRun, CreateRuns, Created, ErrorKind, RepositoryError,
};
use serde_json::Value;

use super::statement::Bound;
use super::{PostgresRepository, sql};
use crate::row::{ExistingRunRow, WholeRunRow, persistence_word};

/// How often a create starts again because what stood in its way was gone when it looked.
const MAX_TRIES: u32 = 10;

#[async_trait]
impl CreateRuns for PostgresRepository {
    async fn create(&self, request: &CreateRun) -> Result<Created, RepositoryError> {
        let run = &request.run.check()?;
        let id = request.id.as_bytes();
        let wanted = request.worktree.as_ref();
        let metadata = &Value::Object(run.metadata.clone()).to_string();
        let idempotency_key = run.idempotency_key.as_ref().map(AsRef::as_ref);
        let unique_key = run.unique_key.as_ref().map(AsRef::as_ref);
        let insert = || {
            self.statement(sql::CREATE)
                .id(id)
                .text(run.workflow.as_str())
                .small(run.priority.get())
                .text_or_null(idempotency_key)
                .text_or_null(unique_key)
                .id_or_null(
                    run.session_id
                        .as_ref()
                        .map(|session| session.as_uuid().as_bytes()),
                )
                .text_or_null(run.user.as_ref().map(AsRef::as_ref))
                .bytes(run.fingerprint.as_bytes())
                .int(run.max_attempts.get())
                .text_or_null(wanted.map(|wanted| wanted.name.as_str()))
                .text_or_null(wanted.map(|wanted| wanted.branch.as_str()))
                .text_or_null(wanted.map(|wanted| wanted.base.as_str()))
                .text_or_null(wanted.map(|wanted| persistence_word(wanted.persistence)))
                .bound_or_null(run.available_at.map(Bound::At))
                .text_or_null(run.input.as_ref().map(AsRef::as_ref))
                .text(metadata)
        };
        let look = || {
            self.statement(sql::EXISTING)
                .id(id)
                .text_or_null(idempotency_key)
                .text_or_null(unique_key)
        };
        for _ in 0..MAX_TRIES {
            if let Some(new) = self
                .write::<WholeRunRow>("create a run", insert)
                .await?
                .pop()
            {
                return Ok(Created::New(new.decode()?));
            }
            let Some(row) = self
                .read::<ExistingRunRow>("find the run of a request", look)
                .await?
                .pop()
            else {
                // The run that held the unique key has ended since, or its create was undone.
                continue;
            };
            let (existing, fingerprint) = row.decode()?;
            let over = if run.idempotency_key.is_some()
                && existing.idempotency_key == run.idempotency_key
            {
                ConflictOver::IdempotencyKey
            } else if existing.id == request.id {
                ConflictOver::Id
            } else {
                ConflictOver::UniqueKey
            };
            let is_same = fingerprint == run.fingerprint && over != ConflictOver::UniqueKey;
            return Ok(if is_same {
                Created::Existing(existing)
            } else {
                Created::Conflict { over, existing }
            });
        }
        Err(RepositoryError::new(
            ErrorKind::Busy,
            format!(
                "failed to create the run {}: others took and gave back its keys {MAX_TRIES} times",
                request.id
            ),
        ))
    }
}
