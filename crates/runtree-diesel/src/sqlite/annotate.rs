//! What is learnt of runs: facts, usage, tags and metadata, changed while nobody else writes.

use std::collections::BTreeSet;

use async_trait::async_trait;
use runtree_repository::id::{CommitId, RunId};
use runtree_repository::{
    AnnotateRuns, Annotation, ErrorKind, EventKind, RepositoryError, Run, RunFacts, Tag, Usage,
    Write,
};
use serde_json::Value as Json;

use super::sql::Transaction;
use super::{SqliteRepository, own};

#[async_trait]
impl AnnotateRuns for SqliteRepository {
    async fn annotate(
        &self,
        id: RunId,
        annotation: &Annotation,
    ) -> Result<Write<Run>, RepositoryError> {
        annotation.check()?;
        let annotation = annotation.clone();
        self.write("annotate a run", move |transaction| {
            annotate(transaction, id, &annotation)
        })
        .await
    }
}

/// Reads the run, changes it as records change, and writes what is different: one thread writes, so nothing comes between.
fn annotate(
    transaction: &mut Transaction<'_>,
    id: RunId,
    annotation: &Annotation,
) -> Result<Write<Run>, RepositoryError> {
    let Some(before) = transaction.run(id)? else {
        return Ok(Write::NotFound);
    };
    if !before.status.is_known() {
        return own::current(transaction, id);
    }
    let mut after = before.clone();
    annotation.apply(&mut after)?;
    if after == before {
        return Ok(Write::Already(before));
    }
    if after.usage != before.usage {
        set_usage(transaction, id, &after.usage)?;
    }
    if after.facts != before.facts {
        set_facts(transaction, id, &after.facts)?;
    }
    if after.tags != before.tags {
        remove_tags(transaction, id, before.tags.difference(&after.tags))?;
        let new: BTreeSet<Tag> = after.tags.difference(&before.tags).cloned().collect();
        add_tags(transaction, id, &new)?;
    }
    if after.metadata != before.metadata || after.file_changes != before.file_changes {
        set_payload(transaction, &after)?;
    }
    transaction.record(id, EventKind::Annotated, before.token, None)?;
    Ok(Write::Applied(transaction.written_run(id)?))
}

fn set_usage(
    transaction: &mut Transaction<'_>,
    id: RunId,
    usage: &Usage,
) -> Result<(), RepositoryError> {
    const USAGE: &str = "UPDATE runtree_runs SET input_tokens = ?3, output_tokens = ?4, cost = ?5 WHERE namespace = ?1 AND id = ?2";
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let statement = transaction
        .here(USAGE)
        .bind(id.as_bytes())
        .bind(number(usage.input_tokens))
        .bind(number(usage.output_tokens))
        .bind(number(usage.cost.micros()));
    transaction.execute(statement)?;
    Ok(())
}

/// Writes the facts of a run; without facts it has no row.
pub(super) fn set_facts(
    transaction: &mut Transaction<'_>,
    id: RunId,
    facts: &RunFacts,
) -> Result<(), RepositoryError> {
    const SET: &str = "INSERT OR REPLACE INTO runtree_run_facts (namespace, run_id, agent, model, session_name, git_repository, \
         first_commit, last_commit, diff_files, diff_added, diff_removed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    const FORGET: &str = "DELETE FROM runtree_run_facts WHERE namespace = ?1 AND run_id = ?2";
    let statement = if facts.is_empty() {
        transaction.here(FORGET).bind(id.as_bytes())
    } else {
        let diff = facts.diff;
        transaction
            .here(SET)
            .bind(id.as_bytes())
            .bind(facts.agent.as_ref().map(AsRef::<str>::as_ref))
            .bind(facts.model.as_ref().map(AsRef::<str>::as_ref))
            .bind(facts.session_name.as_ref().map(AsRef::<str>::as_ref))
            .bind(facts.git_repository.as_ref().map(AsRef::<str>::as_ref))
            .bind(facts.first_commit.as_ref().map(CommitId::as_str))
            .bind(facts.last_commit.as_ref().map(CommitId::as_str))
            .bind(diff.map(|diff| i64::from(diff.files)))
            .bind(diff.map(|diff| i64::from(diff.added)))
            .bind(diff.map(|diff| i64::from(diff.removed)))
    };
    transaction.execute(statement)?;
    Ok(())
}

/// Adds tags that the run does not have.
pub(super) fn add_tags(
    transaction: &mut Transaction<'_>,
    id: RunId,
    tags: &BTreeSet<Tag>,
) -> Result<(), RepositoryError> {
    const ADD: &str = "INSERT INTO runtree_run_tags (namespace, run_id, tag) VALUES (?1, ?2, ?3)";
    for tag in tags {
        let add = transaction.here(ADD).bind(id.as_bytes()).bind(tag.as_str());
        transaction.execute(add)?;
    }
    Ok(())
}

fn remove_tags<'t>(
    transaction: &mut Transaction<'_>,
    id: RunId,
    tags: impl Iterator<Item = &'t Tag>,
) -> Result<(), RepositoryError> {
    const REMOVE: &str =
        "DELETE FROM runtree_run_tags WHERE namespace = ?1 AND run_id = ?2 AND tag = ?3";
    for tag in tags {
        let remove = transaction
            .here(REMOVE)
            .bind(id.as_bytes())
            .bind(tag.as_str());
        transaction.execute(remove)?;
    }
    Ok(())
}

fn set_payload(transaction: &mut Transaction<'_>, run: &Run) -> Result<(), RepositoryError> {
    const PAYLOAD: &str = "UPDATE runtree_run_payloads SET metadata = ?3, file_changes = ?4 WHERE namespace = ?1 AND run_id = ?2";
    let files = if run.file_changes.is_empty() {
        None
    } else {
        let files = serde_json::to_string(&run.file_changes).map_err(|error| {
            let message = "the changes of files cannot be written as JSON";
            RepositoryError::new(ErrorKind::Internal, message).with_source(error)
        })?;
        Some(files)
    };
    let statement = transaction
        .here(PAYLOAD)
        .bind(run.id.as_bytes())
        .bind(Json::Object(run.metadata.clone()).to_string())
        .bind(files);
    transaction.execute(statement)?;
    Ok(())
}
