//! Making runs: the insert decides, and what stands in its way is read afterwards.

use async_trait::async_trait;
use runtree_repository::{
    CheckedRun, ConflictOver, CreateRun, CreateRuns, Created, EventKind, RepositoryError, Token,
    WantedWorktree,
};
use serde_json::Value;

use super::SqliteRepository;
use super::sql::{Transaction, plain, select_whole_runs};
use super::statement::Statement;
use crate::row::{ExistingRunRow, payload_columns, persistence_word, run_columns, status};

#[async_trait]
impl CreateRuns for SqliteRepository {
    async fn create(&self, request: &CreateRun) -> Result<Created, RepositoryError> {
        let (checked, request) = (request.run.check()?, request.clone());
        self.write("create a run", move |transaction| {
            create(transaction, &request, &checked)
        })
        .await
    }
}

const RUN: &str = concat!(
    "INSERT INTO runtree_runs (namespace, id, workflow, status, priority, idempotency_key, unique_key, session_id, \
     user_id, fingerprint, max_attempts, worktree_name, worktree_branch, worktree_base, worktree_persistence, available_at, \
     created_at, updated_at) \
     VALUES (?1, ?2, ?3, ",
    status!(Pending),
    ", ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?16) ON CONFLICT DO NOTHING"
);

const PAYLOAD: &str =
    "INSERT INTO runtree_run_payloads (namespace, run_id, input, metadata) VALUES (?1, ?2, ?3, ?4)";

fn create(
    transaction: &mut Transaction<'_>,
    request: &CreateRun,
    checked: &CheckedRun,
) -> Result<Created, RepositoryError> {
    let now = transaction.now();
    let worktree = request.worktree.as_ref();
    let run = transaction
        .here(RUN)
        .bind(request.id.as_bytes())
        .bind(checked.workflow.as_str())
        .bind(i64::from(checked.priority.get()))
        .bind(checked.idempotency_key.as_ref().map(AsRef::<str>::as_ref))
        .bind(checked.unique_key.as_ref().map(AsRef::<str>::as_ref))
        .bind(
            checked
                .session_id
                .as_ref()
                .map(|id| id.as_uuid().as_bytes().as_slice()),
        )
        .bind(checked.user.as_ref().map(AsRef::<str>::as_ref))
        .bind(checked.fingerprint.as_bytes())
        .bind(checked.max_attempts.get())
        .bind(worktree.map(|worktree| worktree.name.as_str()))
        .bind(worktree.map(|worktree| worktree.branch.as_str()))
        .bind(worktree.map(|worktree| worktree.base.as_str()))
        .bind(worktree.map(|worktree: &WantedWorktree| persistence_word(worktree.persistence)))
        .bind(checked.available_at.unwrap_or(now).as_unix_micros())
        .bind(now.as_unix_micros());
    if !transaction.applies(run)? {
        return existing(transaction, request, checked);
    }
    let payload = transaction
        .here(PAYLOAD)
        .bind(request.id.as_bytes())
        .bind(checked.input.as_ref().map(AsRef::<str>::as_ref))
        .bind(Value::Object(checked.metadata.clone()).to_string());
    transaction.execute(payload)?;
    transaction.record(request.id, EventKind::Created, Token::NONE, None)?;
    Ok(Created::New(transaction.written_run(request.id)?))
}

pub(super) const BY_KEY: &str = select_whole_runs!(
    ", r.fingerprint",
    "WHERE r.namespace = ?1 AND r.idempotency_key = ?2"
);
pub(super) const BY_ID: &str =
    select_whole_runs!(", r.fingerprint", "WHERE r.namespace = ?1 AND r.id = ?2");
pub(super) const BY_UNIQUE_KEY: &str = select_whole_runs!(
    ", r.fingerprint",
    "WHERE r.namespace = ?1 AND r.unique_key = ?2 AND r.ended_at IS NULL"
);

/// Reads what stood in the way of the insert.
fn existing(
    transaction: &mut Transaction<'_>,
    request: &CreateRun,
    checked: &CheckedRun,
) -> Result<Created, RepositoryError> {
    let by_key = checked
        .idempotency_key
        .as_ref()
        .map(|key| transaction.here(BY_KEY).bind(key.as_str()));
    let by_id = Some(transaction.here(BY_ID).bind(request.id.as_bytes()));
    let by_unique_key = checked
        .unique_key
        .as_ref()
        .map(|key| transaction.here(BY_UNIQUE_KEY).bind(key.as_str()));
    let places: [(ConflictOver, Option<Statement<'_>>); 3] = [
        (ConflictOver::IdempotencyKey, by_key),
        (ConflictOver::Id, by_id),
        (ConflictOver::UniqueKey, by_unique_key),
    ];
    for (over, query) in places {
        let Some(row) = query
            .map(|query| transaction.row::<ExistingRunRow>(query))
            .transpose()?
            .flatten()
        else {
            continue;
        };
        let (existing, fingerprint) = row.decode()?;
        let is_same = over != ConflictOver::UniqueKey && fingerprint == checked.fingerprint;
        return Ok(if is_same {
            Created::Existing(existing)
        } else {
            Created::Conflict { over, existing }
        });
    }
    Err(RepositoryError::new(
        runtree_repository::ErrorKind::Internal,
        format!(
            "the run {} was not inserted, and nothing stands in its way",
            request.id
        ),
    ))
}
