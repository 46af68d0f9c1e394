//! What owners do: each write is one statement that shows the token; only the loser reads why it lost.

use std::collections::BTreeMap;

use async_trait::async_trait;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use runtree_repository::id::DirectoryName;
use runtree_repository::status::{Event, RunStatus};
use runtree_repository::{
    Claim, ClaimOf, Claimed, CleanUpWorktrees, ErrorKind, HostPath, LeaseRef, LeaseTime, Outcome,
    OwnRuns, ProcessMark, Renewal, RepositoryError, Run, Token, WorkflowName, WorktreeKey,
    WorktreeQuery, WorktreeRecord, WorktreeSite, WorktreeState, Write,
};

use super::statement::Statement;
use super::{MAX_TRIES, PostgresRepository, micros, sql};
use crate::row::{RunRow, WholeRunRow, WorktreeRow, count, instant};

/// A claimed run, and its worktree where it wants one.
#[derive(QueryableByName)]
struct ClaimedRow {
    #[diesel(embed)]
    run: WholeRunRow,
    #[diesel(sql_type = Nullable<BigInt>)]
    planned_by: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    root: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    path: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    salvage: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    worktree_created_at: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    worktree_updated_at: Option<i64>,
}

#[async_trait]
impl OwnRuns for PostgresRepository {
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, RepositoryError> {
        let site = claim.site.as_ref();
        let prefix = site.map(path_prefix).transpose()?;
        let owner = &claim.owner;
        let owner_text = owner.id.to_string();
        let (text, workflows, run) = match &claim.of {
            ClaimOf::Any => (sql::CLAIM_ANY, None, None),
            ClaimOf::Workflows(names) => (sql::CLAIM_WORKFLOWS, Some(names), None),
            ClaimOf::Run(id) => (sql::CLAIM_RUN, None, Some(id.as_bytes())),
            other => return Err(super::unsupported("claim", other)),
        };
        let statement = || {
            self.statement(text)
                .int(super::count(claim.limit))
                .id(owner.id.as_bytes())
                .text(owner.host.as_str())
                .text(owner.process.as_str())
                .int(micros(claim.lease_time.get()))
                .text(&owner_text)
                .text_or_null(site.map(|site| site.host.as_str()))
                .text_or_null(site.map(|site| site.git_repository.as_str()))
                .text_or_null(site.map(|site| site.root.as_str()))
                .text_or_null(prefix.as_deref())
                .texts_or_null(
                    workflows.map(|names| names.iter().map(WorkflowName::as_str).collect()),
                )
                .id_or_null(run)
        };
        let rows: Vec<ClaimedRow> = self.write("claim runs", statement).await?;
        rows.into_iter().map(|row| row.decode(site)).collect()
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
                .ints(
                    leases
                        .iter()
                        .map(|lease| i64::from(lease.token.get()))
                        .collect(),
                )
                .int(micros(lease_time.get()))
        };
        let mut renewed = BTreeMap::new();
        for row in self.write::<RunRow>("renew leases", statement).await? {
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
                self.reject(*lease, Event::Renew.as_str()).await?;
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
                Some(_) | None => return self.rejected(lease, "worktree_ready", run).await,
            }
        }
        Err(super::contended(lease.run))
    }

    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Result<Write<Run>, RepositoryError> {
        outcome.check()?;
        let result;
        let (event, text, payload, retry_after) = match outcome {
            Outcome::Completed { result: value } => {
                result = value.as_ref().map(ToString::to_string);
                (Event::Complete, sql::COMPLETE, result.as_deref(), None)
            }
            Outcome::Failed { error, retry_after } => {
                (Event::Fail, sql::FAIL, Some(error.as_str()), *retry_after)
            }
            Outcome::Killed => (
                Event::AcknowledgeCancel,
                sql::ACKNOWLEDGE_CANCEL,
                None,
                None,
            ),
            other => return Err(super::unsupported("outcome", other)),
        };
        let statement = || {
            self.owned(text, lease)
                .text_or_null(payload)
                .int_or_null(retry_after.map(micros))
        };
        if let Some(row) = self
            .write::<WholeRunRow>("end a run", statement)
            .await?
            .pop()
        {
            return row.decode().map(Write::Applied);
        }
        self.lost(lease, event.as_str(), |run| {
            run.token == lease.token && is_ended_by(run, outcome)
        })
        .await
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

impl PostgresRepository {
    /// Begins a statement whose `$1` to `$3` are what an owner shows.
    fn owned(&self, text: &'static str, lease: LeaseRef) -> Statement<'_> {
        self.statement(text)
            .id(lease.run.as_bytes())
            .int(lease.token.get())
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
            Some(run) => self.rejected(lease, event, run).await,
        }
    }

    async fn rejected<T>(
        &self,
        lease: LeaseRef,
        event: &str,
        run: Run,
    ) -> Result<Write<T>, RepositoryError> {
        self.reject(lease, event).await?;
        Ok(Write::Stale {
            current: Box::new(run.summary),
        })
    }

    /// Adds a rejected write to the history of a run that exists.
    async fn reject(&self, lease: LeaseRef, event: &str) -> Result<(), RepositoryError> {
        let statement = || self.owned(sql::REJECT, lease).text(event);
        self.change("record a rejected write", statement).await?;
        Ok(())
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

impl ClaimedRow {
    fn decode(self, site: Option<&WorktreeSite>) -> Result<Claimed, RepositoryError> {
        let run = self.run.decode()?;
        let lease = LeaseRef {
            run: run.id,
            token: run.token,
        };
        let expires_at = run
            .lease_expires_at
            .ok_or_else(|| super::no_row("the lease of a claimed run"))?;
        let parts = (
            self.planned_by,
            self.root,
            self.path,
            self.state,
            self.worktree_created_at,
            self.worktree_updated_at,
        );
        let worktree = match (site, run.worktree.clone(), parts) {
            (
                Some(site),
                Some(wanted),
                (
                    Some(planned_by),
                    Some(root),
                    Some(path),
                    Some(state),
                    Some(created),
                    Some(updated),
                ),
            ) => Some(WorktreeRecord {
                key: WorktreeKey {
                    run: run.id,
                    planned_by: Token::new(count("planning token", planned_by)?),
                },
                site: WorktreeSite {
                    root: root.try_into()?,
                    ..site.clone()
                },
                path: path.try_into()?,
                wanted,
                state: WorktreeState::from_stored(&state)?,
                held_by: run.token,
                salvage: self.salvage.map(TryInto::try_into).transpose()?,
                reason: self.reason.map(TryInto::try_into).transpose()?,
                created_at: instant("creation instant", created)?,
                updated_at: instant("update instant", updated)?,
            }),
            (_, _, _) => None,
        };
        Ok(Claimed::new(lease, expires_at, run, worktree))
    }
}

/// What stands before the name in the path of every worktree of a site.
fn path_prefix(site: &WorktreeSite) -> Result<String, RepositoryError> {
    let root = site.root.as_str();
    let prefix = if root.ends_with('/') {
        root.to_owned()
    } else {
        format!("{root}/")
    };
    // The names are not known before the claim, which must not plan a path that cannot be read back.
    let most = HostPath::MAX_BYTES - DirectoryName::MAX_BYTES;
    if prefix.len() > most {
        return Err(RepositoryError::new(
            ErrorKind::InvalidInput,
            format!(
                "the root of worktrees has {} bytes, which leaves no room for a name; at most {most} are allowed",
                prefix.len()
            ),
        ));
    }
    Ok(prefix)
}

fn is_held_by(run: &Run, lease: LeaseRef) -> bool {
    run.status == RunStatus::Running && !run.has_ended() && run.token == lease.token
}

/// Tells whether the run stands where this outcome leads.
fn is_ended_by(run: &Run, outcome: &Outcome) -> bool {
    let status = match outcome {
        Outcome::Completed { .. } => RunStatus::Completed,
        Outcome::Failed { .. } if run.cancel.is_some() => RunStatus::Killed,
        Outcome::Failed { .. } => RunStatus::Failed,
        Outcome::Killed => RunStatus::Killed,
        _ => return false,
    };
    run.has_ended() && run.status == status
}
