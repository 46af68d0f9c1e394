//! Makes runs: the insert decides, and only the loser looks why.

use std::collections::BTreeMap;

use async_trait::async_trait;
use diesel::sql_types::{BigInt, Binary};
use runtree_repository::id::RunId;
use runtree_repository::{
    CheckedRun, ConflictOver, CreateRun, CreateRuns, Created, ErrorKind, Fingerprint, Namespace,
    RepositoryError, RetryRun, Run, RunSummary, Tag, WantedWorktree, Write,
};
use serde_json::Value;

use super::statement::Statement;
use super::store::Transaction;
use super::{PostgresRepository, canonical, sql};
use crate::in_order::row_in_order;
use crate::row::{ExistingRunRow, RunRow, WholeRunRow, parse, persistence_word};

/// How often a create starts again because what stood in its way was gone when it looked.
pub(crate) const MAX_TRIES: u32 = 10;

row_in_order! {
    /// A run as the insert answers it; the caller has the rest.
    pub(crate) struct CreatedRow {
        #[diesel(embed)]
        run: RunRow,
        #[diesel(sql_type = Binary)]
        fingerprint: Vec<u8>,
    }
}

row_in_order! {
    /// What stands in the way of one of several creates.
    pub(crate) struct InTheWayRow {
        #[diesel(embed)]
        existing: ExistingRunRow,
        #[diesel(sql_type = BigInt)]
        place: i64,
    }
}

/// A request whose values are allowed, with those that are stored as text already written.
pub(crate) struct Checked<'r> {
    pub(crate) request: &'r CreateRun,
    pub(crate) run: CheckedRun,
    metadata: String,
    tags: Option<String>,
}

impl<'r> Checked<'r> {
    pub(crate) fn new(request: &'r CreateRun) -> Result<Self, RepositoryError> {
        let run = request.run.check()?;
        let metadata = canonical(&Value::Object(run.metadata.clone()));
        let tags = run.tags.iter().map(Tag::as_str).map(Value::from).collect();
        let tags = (!run.tags.is_empty()).then(|| Value::Array(tags).to_string());
        Ok(Self {
            request,
            run,
            metadata,
            tags,
        })
    }

    fn worktree<'s>(&'s self, part: impl FnOnce(&'s WantedWorktree) -> &'s str) -> Option<&'s str> {
        self.request.worktree.as_ref().map(part)
    }

    /// The run as it was made, whole.
    pub(crate) fn made(&self, mut summary: RunSummary) -> Run {
        summary.tags.clone_from(&self.run.tags);
        summary.facts.clone_from(&self.run.facts);
        Run {
            summary,
            input: self.run.input.clone(),
            result: None,
            error: None,
            metadata: self.run.metadata.clone(),
            file_changes: Vec::new(),
        }
    }
}

#[async_trait]
impl CreateRuns for PostgresRepository {
    async fn create(&self, request: &CreateRun) -> Result<Created, RepositoryError> {
        let checked = [Checked::new(request)?];
        self.make(None, &checked)
            .await?
            .pop()
            .ok_or_else(|| super::no_row("the answer to a create"))
    }

    async fn create_many(&self, requests: &[CreateRun]) -> Result<Vec<Created>, RepositoryError> {
        CreateRun::check_batch(requests)?;
        let checked = requests
            .iter()
            .map(Checked::new)
            .collect::<Result<Vec<_>, _>>()?;
        if checked.len() < 2 {
            return self.make(None, &checked).await;
        }
        let mut tries = 1;
        let (transaction, made) = loop {
            let mut transaction = self.store.begin("create runs").await?;
            match self.make(Some(&mut transaction), &checked).await {
                Err(error) if super::is_undone(&error) && tries < super::MAX_TRIES => tries += 1,
                made => break (transaction, made?),
            }
        };
        self.commit(transaction).await?;
        if made.iter().any(|made| matches!(made, Created::New(_))) {
            self.wrote();
        }
        Ok(made)
    }

    async fn retry(&self, request: &RetryRun) -> Result<Write<Created>, RepositoryError> {
        let of = request.of.as_bytes();
        let id = request.id.as_bytes();
        let id_text = &request.id.to_string();
        let wanted = request.worktree.as_ref();
        let retry = || {
            self.statement(sql::RETRY)
                .id(of)
                .id(id)
                .text(id_text)
                .text_or_null(wanted.map(|wanted| wanted.name.as_str()))
                .text_or_null(wanted.map(|wanted| wanted.branch.as_str()))
                .text_or_null(wanted.map(|wanted| wanted.base.as_str()))
                .text_or_null(wanted.map(|wanted| persistence_word(wanted.persistence)))
                .instant_or_null(request.available_at)
                .instant_or_null(request.deadline)
        };
        for _ in 0..MAX_TRIES {
            if let Some(row) = self.write::<WholeRunRow>("retry a run", retry).await?.pop() {
                return Ok(Write::Applied(Created::New(row.decode()?)));
            }
            let Some(ended) = self.run(request.of).await? else {
                return Ok(Write::NotFound);
            };
            if !ended.has_ended() || !ended.status.is_known() {
                return Ok(Write::Stale {
                    current: Box::new(ended.summary),
                });
            }
            if let Some(answer) = self.in_the_way_of_retry(request, &ended).await? {
                return Ok(answer);
            }
            // The run that held the unique key has ended since.
        }
        Err(contended(request.id))
    }
}

impl PostgresRepository {
    /// Makes the runs of requests: several in one transaction, one in a statement of its own.
    async fn make(
        &self,
        mut transaction: Option<&mut Transaction<'_>>,
        requests: &[Checked<'_>],
    ) -> Result<Vec<Created>, RepositoryError> {
        let mut answers: Vec<Option<Created>> = Vec::new();
        answers.resize_with(requests.len(), || None);
        for _ in 0..MAX_TRIES {
            let left: Vec<usize> = (0..requests.len())
                .filter(|at| answers.get(*at).is_some_and(Option::is_none))
                .collect();
            if left.is_empty() {
                break;
            }
            let asked: Vec<&Checked<'_>> = left.iter().filter_map(|at| requests.get(*at)).collect();
            let mut new = self.insert(transaction.as_deref_mut(), &asked).await?;
            let mut lost: Vec<(usize, &Checked<'_>)> = Vec::new();
            let mut later: Vec<(RunId, usize)> = Vec::new();
            for (at, checked) in left.into_iter().zip(asked) {
                let made = new.remove(&(checked.request.id, *checked.run.fingerprint.as_bytes()));
                match (made, answers.get_mut(at)) {
                    (Some(row), Some(answer)) => {
                        later.push((row.id, lost.len()));
                        *answer = Some(Created::New(checked.made(row)));
                    }
                    (_, _) => lost.push((at, checked)),
                }
            }
            let in_the_way = self
                .in_the_way(transaction.as_deref_mut(), &lost, &later)
                .await?;
            for (at, answer) in in_the_way {
                if let Some(place) = answers.get_mut(at) {
                    *place = Some(answer);
                }
            }
            // Where nothing stands in the way, the run that held the unique key has ended since, or its create was undone.
        }
        answers
            .into_iter()
            .zip(requests)
            .map(|(answer, checked)| answer.ok_or_else(|| contended(checked.request.id)))
            .collect()
    }

    /// Inserts the runs that nothing stands in the way of, and answers them.
    async fn insert(
        &self,
        transaction: Option<&mut Transaction<'_>>,
        requests: &[&Checked<'_>],
    ) -> Result<BTreeMap<(RunId, [u8; 32]), RunSummary>, RepositoryError> {
        // Of requests that are the same, one can be new.
        let mut asked: Vec<&Checked<'_>> = Vec::with_capacity(requests.len());
        let mut seen = std::collections::BTreeSet::new();
        for &checked in requests {
            if seen.insert((checked.request.id, *checked.run.fingerprint.as_bytes())) {
                asked.push(checked);
            }
        }
        if asked.is_empty() {
            return Ok(BTreeMap::new());
        }
        let insert = || insertion(&self.namespace, &asked);
        made(match transaction {
            Some(transaction) => transaction.rows(insert()).await?,
            None => self.write("create runs", insert).await?,
        })
    }

    /// Answers the requests that something stands in the way of; `requests` are told apart by their numbers. The runs `later` were made
    /// just now, each after so many of the requests, and stood in the way of none of those.
    async fn in_the_way(
        &self,
        transaction: Option<&mut Transaction<'_>>,
        requests: &[(usize, &Checked<'_>)],
        later: &[(RunId, usize)],
    ) -> Result<Vec<(usize, Created)>, RepositoryError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let look = || looking(&self.namespace, requests, later);
        in_their_way(
            requests,
            match transaction {
                Some(transaction) => transaction.rows(look()).await?,
                None => self.read("find the runs of requests", look).await?,
            },
        )
    }

    async fn in_the_way_of_retry(
        &self,
        request: &RetryRun,
        ended: &Run,
    ) -> Result<Option<Write<Created>>, RepositoryError> {
        let unique_key = ended.unique_key.as_ref().map(AsRef::as_ref);
        let look = || {
            self.statement(sql::EXISTING)
                .ids([*request.id.as_bytes()])
                .texts_or_nulls([None])
                .texts_or_nulls([unique_key])
                .ids([])
                .ints([])
        };
        let rows: Vec<InTheWayRow> = self.read("find the run of a retry", look).await?;
        let Some(row) = rows.into_iter().next() else {
            return Ok(None);
        };
        let (existing, _) = row.existing.decode()?;
        let over = if existing.id == request.id {
            ConflictOver::Id
        } else {
            ConflictOver::UniqueKey
        };
        let is_same = over == ConflictOver::Id && existing.retry_of == Some(request.of);
        Ok(Some(if is_same {
            Write::Already(Created::Existing(existing))
        } else {
            Write::Applied(Created::Conflict { over, existing })
        }))
    }
}

/// Begins to make runs; no two of them are the same.
pub(crate) fn insertion<'s>(
    namespace: &'s Namespace,
    asked: &'s [&'s Checked<'s>],
) -> Statement<'s> {
    let runs = || asked.iter().map(|checked| &checked.run);
    Statement::new(sql::CREATE)
        .text(namespace.as_str())
        .ids(asked.iter().map(|checked| *checked.request.id.as_bytes()))
        .texts(runs().map(|run| run.workflow.as_str()))
        .texts(runs().map(|run| run.queue.as_str()))
        .ints(runs().map(|run| i64::from(run.priority.get())))
        .texts_or_nulls(runs().map(|run| run.idempotency_key.as_ref().map(AsRef::as_ref)))
        .texts_or_nulls(runs().map(|run| run.unique_key.as_ref().map(AsRef::as_ref)))
        .texts_or_nulls(runs().map(|run| Some(run.concurrency.as_ref()?.key.as_str())))
        .ints_or_nulls(runs().map(|run| Some(i64::from(run.concurrency.as_ref()?.limit.get()))))
        .ids_or_nulls(runs().map(|run| Some(*run.session_id?.as_uuid().as_bytes())))
        .texts_or_nulls(runs().map(|run| run.user.as_ref().map(AsRef::as_ref)))
        .bytes(runs().map(|run| run.fingerprint.as_bytes().as_slice()))
        .ints(runs().map(|run| i64::from(run.max_attempts.get())))
        .texts_or_nulls(asked.iter().map(|one| one.worktree(|w| w.name.as_str())))
        .texts_or_nulls(asked.iter().map(|one| one.worktree(|w| w.branch.as_str())))
        .texts_or_nulls(asked.iter().map(|one| one.worktree(|w| w.base.as_str())))
        .texts_or_nulls(
            asked
                .iter()
                .map(|one| one.worktree(|w| persistence_word(w.persistence))),
        )
        .instants_or_nulls(runs().map(|run| run.available_at))
        .instants_or_nulls(runs().map(|run| run.deadline))
        .texts_or_nulls(runs().map(|run| run.input.as_ref().map(AsRef::as_ref)))
        .texts(asked.iter().map(|checked| checked.metadata.as_str()))
        .texts_or_nulls(runs().map(|run| run.facts.agent.as_ref().map(AsRef::as_ref)))
        .texts_or_nulls(runs().map(|run| run.facts.model.as_ref().map(AsRef::as_ref)))
        .texts_or_nulls(runs().map(|run| run.facts.session_name.as_ref().map(AsRef::as_ref)))
        .texts_or_nulls(runs().map(|run| run.facts.git_repository.as_ref().map(AsRef::as_ref)))
        .texts_or_nulls(asked.iter().map(|checked| checked.tags.as_deref()))
}

/// Reads the runs that the insert made.
pub(crate) fn made(
    rows: Vec<CreatedRow>,
) -> Result<BTreeMap<(RunId, [u8; 32]), RunSummary>, RepositoryError> {
    rows.into_iter()
        .map(|row| {
            let run = row.run.decode()?;
            let fingerprint = parse("fingerprint", row.fingerprint.as_slice().try_into())?;
            Ok(((run.id, fingerprint), run))
        })
        .collect()
}

/// Begins to look for what stands in the way of requests; each of the runs `later` came after so many of them.
pub(crate) fn looking<'s>(
    namespace: &'s Namespace,
    requests: &'s [(usize, &'s Checked<'s>)],
    later: &'s [(RunId, usize)],
) -> Statement<'s> {
    let runs = || requests.iter().map(|(_, checked)| &checked.run);
    Statement::new(sql::EXISTING)
        .text(namespace.as_str())
        .ids(
            requests
                .iter()
                .map(|(_, checked)| *checked.request.id.as_bytes()),
        )
        .texts_or_nulls(runs().map(|run| run.idempotency_key.as_ref().map(AsRef::as_ref)))
        .texts_or_nulls(runs().map(|run| run.unique_key.as_ref().map(AsRef::as_ref)))
        .ids(later.iter().map(|(id, _)| *id.as_bytes()))
        .ints(
            later
                .iter()
                .map(|(_, after)| i64::try_from(*after).unwrap_or(i64::MAX)),
        )
}

/// Answers the requests that something stands in the way of.
pub(crate) fn in_their_way(
    requests: &[(usize, &Checked<'_>)],
    rows: Vec<InTheWayRow>,
) -> Result<Vec<(usize, Created)>, RepositoryError> {
    let mut answers = Vec::with_capacity(rows.len());
    for row in rows {
        let place = usize::try_from(row.place).ok();
        let asked = place.and_then(|place| requests.get(place.checked_sub(1)?));
        let (at, checked) = asked.ok_or_else(|| super::no_row("the place of a request"))?;
        let (existing, stored) = row.existing.decode()?;
        answers.push((*at, answered(checked, existing, stored)));
    }
    Ok(answers)
}

/// What the run that stands in the way means to a request.
fn answered(checked: &Checked<'_>, existing: Run, stored: Fingerprint) -> Created {
    let run = &checked.run;
    let over = if run.idempotency_key.is_some() && existing.idempotency_key == run.idempotency_key {
        ConflictOver::IdempotencyKey
    } else if existing.id == checked.request.id {
        ConflictOver::Id
    } else {
        ConflictOver::UniqueKey
    };
    if stored == run.fingerprint && over != ConflictOver::UniqueKey {
        Created::Existing(existing)
    } else {
        Created::Conflict { over, existing }
    }
}

pub(crate) fn contended(id: RunId) -> RepositoryError {
    RepositoryError::new(
        ErrorKind::Busy,
        format!(
            "failed to create the run {id}: others took and gave back its keys {MAX_TRIES} times"
        ),
    )
}
