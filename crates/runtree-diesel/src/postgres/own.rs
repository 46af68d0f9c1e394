//! What owners do: each write is one statement that shows the token; only the loser reads why it lost.

use std::borrow::Cow;
use std::collections::BTreeMap;

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::status::{Event, RunStatus, status_word};
use runtree_repository::{
    Claim, Claimed, CleanUpWorktrees, Ending, LeaseRef, LeaseTime, Namespace, Outcome, OwnRuns,
    ProcessMark, Renewal, RepositoryError, Run, RunSummary, WorktreeQuery, WorktreeRecord,
    WorktreeState, Write,
};

use super::read::summaries;
use super::statement::Statement;
use super::{MAX_TRIES, PostgresRepository, canonical, micros, sql};
use crate::row::{RunRow, WholeRunRow, WorktreeRow};

#[async_trait]
impl OwnRuns for PostgresRepository {
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, RepositoryError> {
        self.claimed(claim).await
    }

    async fn renew(
        &self,
        leases: &[LeaseRef],
        lease_time: LeaseTime,
    ) -> Result<Vec<Renewal>, RepositoryError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let statement = || {
            self.statement(sql::RENEW)
                .ids(leases.iter().map(|lease| *lease.run.as_bytes()))
                .ints(leases.iter().map(|lease| i64::from(lease.token.get())))
                .int(micros(lease_time.get()))
        };
        let mut renewed = BTreeMap::new();
        for row in self
            .write_quietly::<RunRow>("renew leases", statement)
            .await?
        {
            let run = row.decode()?;
            if let Some(expires_at) = run.lease_expires_at {
                let lease = LeaseRef {
                    run: run.id,
                    token: run.token,
                };
                renewed.insert(
                    lease,
                    Renewal::Renewed {
                        expires_at,
                        cancel: run.cancel,
                    },
                );
            }
        }
        let mut answers = Vec::with_capacity(leases.len());
        for lease in leases {
            let answer = renewed.get(lease).cloned().unwrap_or(Renewal::Lost);
            if answer == Renewal::Lost {
                self.reject(*lease, Event::Renew.as_str()).await;
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn record_child(
        &self,
        lease: LeaseRef,
        child: &ProcessMark,
    ) -> Result<Write<()>, RepositoryError> {
        let statement = || self.owned(sql::RECORD_CHILD, lease).text(child.as_str());
        if self.change("record the child of a run", statement).await? > 0 {
            return Ok(Write::Applied(()));
        }
        self.lost(lease, "record_child", |_| false)
            .await
            .map(|write| write.map(|_| ()))
    }

    async fn worktree_ready(
        &self,
        lease: LeaseRef,
    ) -> Result<Write<WorktreeRecord>, RepositoryError> {
        for _ in 0..MAX_TRIES {
            let statement = || self.owned(sql::WORKTREE_READY, lease);
            if let Some(row) = self
                .write::<WorktreeRow>("record that a worktree is ready", statement)
                .await?
                .pop()
            {
                return row.decode().map(Write::Applied);
            }
            let Some(run) = self.run(lease.run).await? else {
                return Ok(Write::NotFound);
            };
            let held = if is_held_by(&run, lease) {
                self.held_worktree(lease).await?
            } else {
                None
            };
            match held {
                Some(worktree) if worktree.state == WorktreeState::Ready => {
                    return Ok(Write::Already(worktree));
                }
                // Another event of the run came between; its number is taken.
                Some(worktree) if worktree.state == WorktreeState::Adding => {}
                Some(_) | None => return self.rejected(lease, "worktree_ready", run.summary).await,
            }
        }
        Err(super::contended(lease.run))
    }

    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Result<Write<Run>, RepositoryError> {
        let asked = AskedOfOne::new(outcome)?;
        let statement = || asked.statement(&self.namespace, lease);
        if let Some(row) = self
            .write::<WholeRunRow>("end a run", statement)
            .await?
            .pop()
        {
            return row.decode().map(Write::Applied);
        }
        self.lost(lease, asked.event.as_str(), |run| {
            run.token == lease.token && is_ended_by(run, outcome)
        })
        .await
    }

    async fn end_many(
        &self,
        endings: &[Ending],
    ) -> Result<Vec<Write<RunSummary>>, RepositoryError> {
        Ending::check_batch(endings)?;
        let asked = endings
            .iter()
            .map(Asked::new)
            .collect::<Result<Vec<_>, _>>()?;
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let statement = || {
            self.statement(sql::END_MANY)
                .ids(endings.iter().map(|ending| *ending.lease.run.as_bytes()))
                .ints(
                    endings
                        .iter()
                        .map(|ending| i64::from(ending.lease.token.get())),
                )
                .texts(asked.iter().map(|asked| asked.status))
                .texts_or_nulls(asked.iter().map(|asked| asked.payload.as_deref()))
                .ints_or_nulls(asked.iter().map(|asked| asked.retry_after))
        };
        let ended = summaries(self.write("end runs", statement).await?)?;
        self.answers_of_endings(endings, ended).await
    }

    async fn release(&self, lease: LeaseRef) -> Result<Write<Run>, RepositoryError> {
        let statement = || self.owned(sql::RELEASE, lease);
        if let Some(row) = self
            .write::<WholeRunRow>("release a run", statement)
            .await?
            .pop()
        {
            return row.decode().map(Write::Applied);
        }
        self.lost(lease, Event::Release.as_str(), |_| false).await
    }
}

/// What the ending of one run asks for.
pub(crate) struct AskedOfOne<'o> {
    pub(crate) event: Event,
    text: &'static str,
    payload: Option<Cow<'o, str>>,
    retry_after: Option<i64>,
}

impl<'o> AskedOfOne<'o> {
    pub(crate) fn new(outcome: &'o Outcome) -> Result<Self, RepositoryError> {
        outcome.check()?;
        let (event, text, payload, retry_after) = match outcome {
            Outcome::Completed { result } => {
                let result = result.as_ref().map(|result| Cow::Owned(canonical(result)));
                (Event::Complete, sql::COMPLETE, result, None)
            }
            Outcome::Failed { error, retry_after } => {
                let error = Some(Cow::Borrowed(error.as_str()));
                (Event::Fail, sql::FAIL, error, retry_after.map(micros))
            }
            Outcome::Killed => (
                Event::AcknowledgeCancel,
                sql::ACKNOWLEDGE_CANCEL,
                None,
                None,
            ),
            other => return Err(super::unsupported("outcome", other)),
        };
        Ok(Self {
            event,
            text,
            payload,
            retry_after,
        })
    }

    pub(crate) fn statement<'s>(
        &'s self,
        namespace: &'s Namespace,
        lease: LeaseRef,
    ) -> Statement<'s> {
        owned(namespace, self.text, lease)
            .text_or_null(self.payload.as_deref())
            .int_or_null(self.retry_after)
    }
}

/// What an ending of a batch asks for, as it is stored.
struct Asked {
    event: Event,
    status: &'static str,
    payload: Option<String>,
    retry_after: Option<i64>,
}

impl Asked {
    fn new(ending: &Ending) -> Result<Self, RepositoryError> {
        ending.outcome.check()?;
        Ok(match &ending.outcome {
            Outcome::Completed { result } => Self {
                event: Event::Complete,
                status: status_word!(Completed),
                payload: result.as_ref().map(canonical),
                retry_after: None,
            },
            Outcome::Failed { error, retry_after } => Self {
                event: Event::Fail,
                status: status_word!(Failed),
                payload: Some(error.as_str().to_owned()),
                retry_after: retry_after.map(micros),
            },
            Outcome::Killed => Self {
                event: Event::AcknowledgeCancel,
                status: status_word!(Killed),
                payload: None,
                retry_after: None,
            },
            other => return Err(super::unsupported("outcome", other)),
        })
    }
}

impl PostgresRepository {
    /// Answers the endings of a batch, those that lost by a second look at their runs.
    async fn answers_of_endings(
        &self,
        endings: &[Ending],
        ended: Vec<RunSummary>,
    ) -> Result<Vec<Write<RunSummary>>, RepositoryError> {
        let mut ended: BTreeMap<RunId, RunSummary> =
            ended.into_iter().map(|run| (run.id, run)).collect();
        let mut answers = Vec::with_capacity(endings.len());
        let mut lost = Vec::new();
        for (at, ending) in endings.iter().enumerate() {
            // Of several for one run, the first that could be accepted was.
            let is_meant = |run: &&RunSummary| {
                run.token == ending.lease.token && leads_to(run, &ending.outcome)
            };
            if ended.get(&ending.lease.run).filter(is_meant).is_some() {
                answers.push(ended.remove(&ending.lease.run).map(Write::Applied));
            } else {
                lost.push(at);
                answers.push(None);
            }
        }
        if !lost.is_empty() {
            let ids: Vec<RunId> = lost
                .iter()
                .filter_map(|at| Some(endings.get(*at)?.lease.run))
                .collect();
            let current: BTreeMap<RunId, RunSummary> = self
                .runs(&ids)
                .await?
                .into_iter()
                .map(|run| (run.id, run))
                .collect();
            for at in lost {
                let (Some(ending), Some(place)) = (endings.get(at), answers.get_mut(at)) else {
                    continue;
                };
                let (lease, outcome) = (ending.lease, &ending.outcome);
                *place = Some(match current.get(&lease.run) {
                    None => Write::NotFound,
                    Some(run) if run.token == lease.token && is_ended_by(run, outcome) => {
                        Write::Already(run.clone())
                    }
                    Some(run) => {
                        let event = Asked::new(ending)?.event;
                        self.rejected(lease, event.as_str(), run.clone()).await?
                    }
                });
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.ok_or_else(|| super::no_row("the answer to an ending")))
            .collect()
    }

    /// Begins a statement whose `$1` to `$3` are what an owner shows.
    fn owned(&self, text: &'static str, lease: LeaseRef) -> Statement<'_> {
        owned(&self.namespace, text, lease)
    }

    /// Answers an owner whose guard did not hold.
    async fn lost(
        &self,
        lease: LeaseRef,
        event: &str,
        is_already: impl FnOnce(&Run) -> bool + Send,
    ) -> Result<Write<Run>, RepositoryError> {
        match self.run(lease.run).await? {
            None => Ok(Write::NotFound),
            Some(run) if is_already(&run) => Ok(Write::Already(run)),
            Some(run) => self.rejected(lease, event, run.summary).await,
        }
    }

    async fn rejected<T>(
        &self,
        lease: LeaseRef,
        event: &str,
        run: RunSummary,
    ) -> Result<Write<T>, RepositoryError> {
        self.reject(lease, event).await;
        Ok(Write::Stale {
            current: Box::new(run),
        })
    }

    /// Adds a rejected write to the history of a run that exists.
    ///
    /// What was decided is told even when the history cannot be written: other answers of the same call are committed already.
    async fn reject(&self, lease: LeaseRef, event: &str) {
        let statement = || rejecting(&self.namespace, lease, event);
        if let Err(error) = self.change("record a rejected write", statement).await {
            tracing::warn!(run = %lease.run, event, %error, "a rejected write is missing in the history");
        }
    }

    async fn held_worktree(
        &self,
        lease: LeaseRef,
    ) -> Result<Option<WorktreeRecord>, RepositoryError> {
        let worktrees = self.worktrees(&WorktreeQuery::Run(lease.run)).await?;
        Ok(worktrees
            .into_iter()
            .rev()
            .find(|worktree| worktree.held_by == lease.token))
    }
}

fn owned<'s>(namespace: &'s Namespace, text: &'static str, lease: LeaseRef) -> Statement<'s> {
    Statement::new(text)
        .text(namespace.as_str())
        .id(lease.run.as_bytes())
        .int(lease.token.get())
}

/// Begins to add a rejected write to the history of a run that exists.
pub(crate) fn rejecting<'s>(
    namespace: &'s Namespace,
    lease: LeaseRef,
    event: &'s str,
) -> Statement<'s> {
    owned(namespace, sql::REJECT, lease).text(event)
}

fn is_held_by(run: &Run, lease: LeaseRef) -> bool {
    run.status == RunStatus::Running && !run.has_ended() && run.token == lease.token
}

/// Tells whether the run ended as this outcome ends it for good.
pub(crate) fn is_ended_by(run: &RunSummary, outcome: &Outcome) -> bool {
    let cause = run.cancel.as_ref().map(|cancel| cancel.cause);
    let stopped = || cause.unwrap_or_default().end_reason().status();
    let status = match outcome {
        Outcome::Completed { .. } => Some(RunStatus::Completed),
        Outcome::Failed { .. } if cause.is_none() => Some(RunStatus::Failed),
        Outcome::Failed { .. } | Outcome::Killed => stopped(),
        _ => None,
    };
    run.has_ended() && status == Some(run.status)
}

/// Tells whether this outcome led to what became of the run: it ended so, or it waits for another attempt.
fn leads_to(run: &RunSummary, outcome: &Outcome) -> bool {
    let waits = !run.has_ended() && matches!(outcome, Outcome::Failed { .. });
    waits || is_ended_by(run, outcome)
}
