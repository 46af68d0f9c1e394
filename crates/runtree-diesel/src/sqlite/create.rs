//! Making runs: the insert decides, and what stands in its way is read afterwards.

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CheckedRun, ConflictOver, CreateRun, CreateRuns, Created, EventKind, RepositoryError, RetryRun,
    Run, Token, WantedWorktree, Write,
};
use serde_json::{Value, json};

use super::sql::{Transaction, plain, run_joins, select_whole_runs, tags};
use super::statement::Statement;
use super::{SqliteRepository, annotate, own};
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

    async fn create_many(&self, requests: &[CreateRun]) -> Result<Vec<Created>, RepositoryError> {
        CreateRun::check_batch(requests)?;
        let checked = requests
            .iter()
            .map(|request| Ok((request.clone(), request.run.check()?)))
            .collect::<Result<Vec<_>, RepositoryError>>()?;
        if checked.is_empty() {
            return Ok(Vec::new());
        }
        self.write("create runs", move |transaction| {
            checked
                .iter()
                .map(|(request, checked)| create(transaction, request, checked))
                .collect()
        })
        .await
    }

    async fn retry(&self, request: &RetryRun) -> Result<Write<Created>, RepositoryError> {
        let request = request.clone();
        self.write("retry a run", move |transaction| {
            retry(transaction, &request)
        })
        .await
    }
}

const RUN: &str = concat!(
    "INSERT INTO runtree_runs (namespace, id, workflow, status, queue, priority, idempotency_key, unique_key, concurrency_key, \
     concurrency_limit, session_id, user_id, fingerprint, max_attempts, worktree_name, worktree_branch, worktree_base, \
     worktree_persistence, available_at, deadline_at, created_at, updated_at) \
     VALUES (?1, ?2, ?3, ",
    status!(Pending),
    ", ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?20) ON CONFLICT DO NOTHING"
);

const PAYLOAD: &str =
    "INSERT INTO runtree_run_payloads (namespace, run_id, input, metadata) VALUES (?1, ?2, ?3, ?4)";

pub(crate) fn create(
    transaction: &mut Transaction<'_>,
    request: &CreateRun,
    checked: &CheckedRun,
) -> Result<Created, RepositoryError> {
    let run = insertion(transaction, request, checked);
    if !transaction.applies(run)? {
        return existing(transaction, request, checked);
    }
    let payload = transaction
        .here(PAYLOAD)
        .bind(request.id.as_bytes())
        .bind(checked.input.as_ref().map(AsRef::<str>::as_ref))
        .bind(Value::Object(checked.metadata.clone()).to_string());
    transaction.execute(payload)?;
    annotate::add_tags(transaction, request.id, &checked.tags)?;
    if !checked.facts.is_empty() {
        annotate::set_facts(transaction, request.id, &checked.facts)?;
    }
    record_created(transaction, request.id)?;
    let run = checked.clone().into_run(request, transaction.now());
    Ok(Created::New(run))
}

/// Begins the history of a run that was inserted just before.
fn record_created(transaction: &mut Transaction<'_>, id: RunId) -> Result<(), RepositoryError> {
    const FIRST: &str = "INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token) VALUES (?1, ?2, 1, ?3, ?4, ?5)";
    let event = transaction
        .here(FIRST)
        .bind(id.as_bytes())
        .bind(transaction.now().as_unix_micros())
        .bind(EventKind::Created.as_str())
        .bind(Token::NONE.get());
    transaction.execute(event)?;
    Ok(())
}

fn insertion<'v>(
    transaction: &Transaction<'v>,
    request: &'v CreateRun,
    checked: &'v CheckedRun,
) -> Statement<'v> {
    let now = transaction.now();
    let worktree = request.worktree.as_ref();
    let concurrency = checked.concurrency.as_ref();
    let session = checked.session_id.as_ref();
    let statement = transaction
        .here(RUN)
        .bind(request.id.as_bytes())
        .bind(checked.workflow.as_str())
        .bind(checked.queue.as_str())
        .bind(i64::from(checked.priority.get()))
        .bind(checked.idempotency_key.as_ref().map(AsRef::<str>::as_ref))
        .bind(checked.unique_key.as_ref().map(AsRef::<str>::as_ref))
        .bind(concurrency.map(|used| used.key.as_str()))
        .bind(concurrency.map(|used| i64::from(used.limit.get())))
        .bind(session.map(|id| id.as_uuid().as_bytes().as_slice()))
        .bind(checked.user.as_ref().map(AsRef::<str>::as_ref))
        .bind(checked.fingerprint.as_bytes())
        .bind(checked.max_attempts.get());
    bind_worktree(statement, worktree)
        .bind(checked.available_at.unwrap_or(now).as_unix_micros())
        .bind(checked.deadline.map(Timestamp::as_unix_micros))
        .bind(now.as_unix_micros())
}

/// Four values: name, branch, base and persistence.
fn bind_worktree<'v>(
    statement: Statement<'v>,
    worktree: Option<&'v WantedWorktree>,
) -> Statement<'v> {
    statement
        .bind(worktree.map(|worktree| worktree.name.as_str()))
        .bind(worktree.map(|worktree| worktree.branch.as_str()))
        .bind(worktree.map(|worktree| worktree.base.as_str()))
        .bind(worktree.map(|worktree| persistence_word(worktree.persistence)))
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

/// Makes a run of an ended one.
fn retry(
    transaction: &mut Transaction<'_>,
    request: &RetryRun,
) -> Result<Write<Created>, RepositoryError> {
    let Some(ended) = transaction.summary(request.of)? else {
        return Ok(Write::NotFound);
    };
    if !ended.has_ended() || !ended.status.is_known() {
        return own::current(transaction, request.of);
    }
    if let Some(existing) = transaction.run(request.id)? {
        return Ok(if existing.retry_of == Some(request.of) {
            Write::Already(Created::Existing(existing))
        } else {
            conflict(ConflictOver::Id, existing)
        });
    }
    if let Some(key) = &ended.unique_key {
        let holder = transaction.here(BY_UNIQUE_KEY).bind(key.as_str());
        if let Some(row) = transaction.row::<ExistingRunRow>(holder)? {
            let (holder, _) = row.decode()?;
            return Ok(conflict(ConflictOver::UniqueKey, holder));
        }
    }
    copy(transaction, request)?;
    let detail = json!({ "run": request.id });
    transaction.record(request.of, EventKind::Retried, ended.token, Some(&detail))?;
    record_created(transaction, request.id)?;
    let run = transaction.written_run(request.id)?;
    Ok(Write::Applied(Created::New(run)))
}

fn conflict(over: ConflictOver, existing: Run) -> Write<Created> {
    Write::Applied(Created::Conflict { over, existing })
}

/// Inserts what the new run takes over from the ended one. Nothing stands in its way any more.
fn copy(transaction: &mut Transaction<'_>, request: &RetryRun) -> Result<(), RepositoryError> {
    const RUN: &str = concat!(
        "INSERT INTO runtree_runs (namespace, id, workflow, status, queue, priority, unique_key, concurrency_key, \
         concurrency_limit, session_id, user_id, fingerprint, max_attempts, worktree_name, worktree_branch, worktree_base, \
         worktree_persistence, retry_of, available_at, deadline_at, created_at, updated_at) \
         SELECT namespace, ?3, workflow, ",
        status!(Pending),
        ", queue, priority, unique_key, concurrency_key, concurrency_limit, session_id, user_id, fingerprint, max_attempts, \
         ?4, ?5, ?6, ?7, id, ?8, ?9, ?10, ?10 FROM runtree_runs WHERE namespace = ?1 AND id = ?2"
    );
    const PAYLOAD: &str = "INSERT INTO runtree_run_payloads (namespace, run_id, input, metadata) \
         SELECT namespace, ?3, input, metadata FROM runtree_run_payloads WHERE namespace = ?1 AND run_id = ?2";
    const TAGS: &str = "INSERT INTO runtree_run_tags (namespace, run_id, tag) \
         SELECT namespace, ?3, tag FROM runtree_run_tags WHERE namespace = ?1 AND run_id = ?2";
    const FACTS: &str = "INSERT INTO runtree_run_facts (namespace, run_id, agent, model, session_name, git_repository) \
         SELECT namespace, ?3, agent, model, session_name, git_repository FROM runtree_run_facts \
         WHERE namespace = ?1 AND run_id = ?2 AND coalesce(agent, model, session_name, git_repository) IS NOT NULL";
    let now = transaction.now();
    let run = transaction
        .here(RUN)
        .bind(request.of.as_bytes())
        .bind(request.id.as_bytes());
    let run = bind_worktree(run, request.worktree.as_ref())
        .bind(request.available_at.unwrap_or(now).as_unix_micros())
        .bind(request.deadline.map(Timestamp::as_unix_micros))
        .bind(now.as_unix_micros());
    transaction.execute(run)?;
    for sql in [PAYLOAD, TAGS, FACTS] {
        let part = transaction
            .here(sql)
            .bind(request.of.as_bytes())
            .bind(request.id.as_bytes());
        transaction.execute(part)?;
    }
    Ok(())
}
