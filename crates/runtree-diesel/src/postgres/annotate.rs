//! Adds to runs what is learnt of them, and deletes those that nobody needs any more.

use async_trait::async_trait;
use diesel::QueryableByName;
use diesel::sql_types::Binary;
use runtree_repository::id::{CommitId, RunId};
use runtree_repository::{
    AnnotateRuns, Annotation, Change, FileChange, MAX_JSON_BYTES, MAX_TAGS, RepositoryError,
    RetainRuns, Retention, Run, Tag, UsageChange, Write,
};
use serde_json::{Map, Value};

use super::statement::{Bound, Statement};
use super::{MAX_TRIES, PostgresRepository, canonical, sql};
use crate::row::{WholeRunRow, parse, run_id};

/// How often an annotation is tried while others change the run, before it takes the run's row for itself.
const TRIES_WITHOUT_LOCK: u32 = 2;

#[derive(QueryableByName)]
struct DeletedRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
}

/// An annotation as its statement takes it.
struct Written<'a> {
    annotation: &'a Annotation,
    facts: String,
    metadata: String,
    file_changes: Option<String>,
    /// Input tokens, output tokens, cost.
    usage: [Option<i64>; 3],
    is_added: bool,
}

impl<'a> Written<'a> {
    fn new(annotation: &'a Annotation) -> Result<Self, RepositoryError> {
        let (usage, is_added) = match &annotation.usage {
            UsageChange::Keep => (None, false),
            UsageChange::Set(usage) => (Some(usage), false),
            UsageChange::Add(usage) => (Some(usage), true),
        };
        let number = |number: u64| parse("number of the usage", i64::try_from(number));
        let usage = match usage {
            None => [None; 3],
            Some(usage) => [
                Some(number(usage.input_tokens)?),
                Some(number(usage.output_tokens)?),
                Some(number(usage.cost.micros())?),
            ],
        };
        Ok(Self {
            annotation,
            facts: Value::Object(facts(annotation)).to_string(),
            metadata: canonical(&Value::Object(annotation.new_metadata().collect())),
            file_changes: file_changes(&annotation.file_changes)?,
            usage,
            is_added,
        })
    }

    fn statement<'s>(&'s self, repository: &'s PostgresRepository, id: &RunId) -> Statement<'s> {
        let [input_tokens, output_tokens, cost] = self.usage;
        repository
            .statement(sql::ANNOTATE)
            .id(id.as_bytes())
            .text(&self.facts)
            .text(&self.metadata)
            .texts(self.annotation.removed_metadata())
            .bool(!self.annotation.file_changes.is_keep())
            .text_or_null(self.file_changes.as_deref())
            .texts(self.annotation.add_tags.iter().map(Tag::as_str))
            .texts(self.annotation.remove_tags.iter().map(Tag::as_str))
            .int_or_null(input_tokens)
            .int_or_null(output_tokens)
            .int_or_null(cost)
            .bool(self.is_added)
            .int(i64::try_from(MAX_TAGS).unwrap_or(i64::MAX))
            .int(i64::try_from(MAX_JSON_BYTES).unwrap_or(i64::MAX))
    }
}

/// The facts that change; null where one becomes unknown.
fn facts(annotation: &Annotation) -> Map<String, Value> {
    let mut facts = Map::new();
    set(&mut facts, "agent", &annotation.agent, |value| {
        value.as_str().into()
    });
    set(&mut facts, "model", &annotation.model, |value| {
        value.as_str().into()
    });
    set(
        &mut facts,
        "session_name",
        &annotation.session_name,
        |value| value.as_str().into(),
    );
    set(
        &mut facts,
        "git_repository",
        &annotation.git_repository,
        |value| value.as_str().into(),
    );
    let commit = |commit: &CommitId| commit.as_str().into();
    set(&mut facts, "first_commit", &annotation.first_commit, commit);
    set(&mut facts, "last_commit", &annotation.last_commit, commit);
    set(&mut facts, "diff_files", &annotation.diff, |diff| {
        diff.files.into()
    });
    set(&mut facts, "diff_added", &annotation.diff, |diff| {
        diff.added.into()
    });
    set(&mut facts, "diff_removed", &annotation.diff, |diff| {
        diff.removed.into()
    });
    facts
}

fn set<T>(
    facts: &mut Map<String, Value>,
    name: &str,
    change: &Change<T>,
    value: impl FnOnce(&T) -> Value,
) {
    if !change.is_keep() {
        let value = change.new_value().map_or(Value::Null, value);
        facts.insert(name.to_owned(), value);
    }
}

/// The counts of files as they are stored; none at all are stored as nothing.
fn file_changes(change: &Change<Vec<FileChange>>) -> Result<Option<String>, RepositoryError> {
    let files = change.new_value().filter(|files| !files.is_empty());
    files
        .map(|files| parse("changes of files", serde_json::to_string(files)))
        .transpose()
}

#[async_trait]
impl AnnotateRuns for PostgresRepository {
    async fn annotate(
        &self,
        id: RunId,
        annotation: &Annotation,
    ) -> Result<Write<Run>, RepositoryError> {
        annotation.check()?;
        let written = Written::new(annotation)?;
        for tried in 0..MAX_TRIES {
            let rows = if tried < TRIES_WITHOUT_LOCK {
                let statement = || written.statement(self, &id);
                self.write("annotate a run", statement).await?
            } else {
                self.annotate_locked(id, &written).await?
            };
            if let Some(row) = rows.into_iter().next() {
                let row: WholeRunRow = row;
                return row.decode().map(Write::Applied);
            }
            let Some(run) = self.run(id).await? else {
                return Ok(Write::NotFound);
            };
            if !run.status.is_known() {
                return Ok(Write::Stale {
                    current: Box::new(run.summary),
                });
            }
            let mut wanted = run.clone();
            annotation.apply(&mut wanted)?;
            if wanted == run {
                return Ok(Write::Already(run));
            }
            // Somebody changed the run between the snapshot and the lock.
        }
        Err(super::contended(id))
    }
}

impl PostgresRepository {
    /// Annotates a run that others keep changing: whoever has its row sees it as it is.
    async fn annotate_locked(
        &self,
        id: RunId,
        written: &Written<'_>,
    ) -> Result<Vec<WholeRunRow>, RepositoryError> {
        let mut transaction = self.store.begin("annotate a run").await?;
        let lock = self.statement(sql::LOCK_RUN).id(id.as_bytes());
        transaction.rows::<super::Done>(lock).await?;
        let rows = transaction.rows(written.statement(self, &id)).await?;
        self.commit(transaction).await?;
        self.wrote();
        Ok(rows)
    }
}

#[async_trait]
impl RetainRuns for PostgresRepository {
    async fn delete_ended(&self, retention: &Retention) -> Result<Vec<RunId>, RepositoryError> {
        let statement = || {
            self.statement(sql::DELETE_ENDED)
                .instant(Bound::At(retention.ended_before))
                .int(super::count(retention.limit))
        };
        let rows: Vec<DeletedRow> = self.write("delete ended runs", statement).await?;
        rows.into_iter().map(|row| run_id(&row.id)).collect()
    }
}
